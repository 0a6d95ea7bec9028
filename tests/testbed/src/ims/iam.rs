//! A small identity service in the manner of Keystone v3: passwords in, project tokens out.
//!
//! It knows what a login needs and no more. Whether a request may pass is decided in one place,
//! [`Iam::authorize`]; a checker of request signatures, or one that asks a real Keystone, belongs
//! there.

use super::{Answer, job::wall_clock, log::Credential, preset};
use axum::http::{HeaderMap, header};
use k8s_openapi::jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

/// A project: what a token is valid for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// The `project_id` of the job query's path.
    pub id: String,
    /// The name, for example `eu-de_images`.
    pub name: String,
}

/// Somebody who may log in.
#[derive(Clone, Debug)]
pub struct User {
    /// Id, for logins that do not use the name.
    pub id: String,
    /// Name, unique within the domain.
    pub name: String,
    /// Name of the domain of the user and the projects.
    pub domain: String,
    /// Id of that domain.
    pub domain_id: String,
    /// The password.
    pub password: SecretString,
    /// The projects that a login may be scoped to.
    pub projects: Vec<Project>,
    /// Id of the project that a login without a scope gets; without one its token has no project.
    pub default_project: Option<String>,
}

impl User {
    /// A user without projects; the ids are made from the names.
    #[must_use]
    pub fn new(name: &str, domain: &str, password: impl Into<SecretString>) -> Self {
        Self {
            id: format!("{name}-id"),
            name: name.to_owned(),
            domain: domain.to_owned(),
            domain_id: format!("{domain}-id"),
            password: password.into(),
            projects: Vec::new(),
            default_project: None,
        }
    }

    /// Adds a project.
    #[must_use]
    pub fn project(mut self, id: &str, name: &str) -> Self {
        self.projects.push(Project {
            id: id.to_owned(),
            name: name.to_owned(),
        });
        self
    }
}

/// What a token opens.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Scope {
    AnyProject,
    Project(String),
    Unscoped,
}

struct Token {
    scope: Scope,
    /// `None`: never.
    expires: Option<Instant>,
    fixed: bool,
    revoked: bool,
}

pub(super) struct Iam {
    users: Vec<User>,
    tokens: HashMap<String, Token>,
    lifetime: Duration,
    random: RandomState,
    issued: u64,
}

/// A token just issued.
pub(super) struct Issued {
    pub(super) token: String,
    pub(super) body: Value,
}

impl Iam {
    pub(super) fn new(users: Vec<User>, lifetime: Duration) -> Self {
        Self {
            users,
            tokens: HashMap::new(),
            lifetime,
            random: RandomState::new(),
            issued: 0,
        }
    }

    pub(super) fn add_fixed_token(&mut self, token: &SecretString, project: Option<&str>) {
        let scope = project.map_or(Scope::AnyProject, |id| Scope::Project(id.to_owned()));
        let token = token.expose_secret().to_owned();
        self.tokens.insert(
            token,
            Token {
                scope,
                expires: None,
                fixed: true,
                revoked: false,
            },
        );
    }

    pub(super) fn add_user(&mut self, user: User) {
        self.users.retain(|known| known.id != user.id);
        self.users.push(user);
    }

    pub(super) fn set_lifetime(&mut self, lifetime: Duration) {
        self.lifetime = lifetime;
    }

    /// Whether there was such a token.
    pub(super) fn revoke(&mut self, token: &str) -> bool {
        self.tokens
            .get_mut(token)
            .map(|token| token.revoked = true)
            .is_some()
    }

    /// Revokes what logins gave out; fixed tokens stay.
    pub(super) fn revoke_issued(&mut self) {
        for token in self.tokens.values_mut().filter(|token| !token.fixed) {
            token.revoked = true;
        }
    }

    pub(super) fn credential(&self, headers: &HeaderMap) -> Credential {
        let Some(token) = headers.get("x-auth-token") else {
            let signed = headers
                .get(header::AUTHORIZATION)
                .is_some_and(|value| value.as_bytes().starts_with(b"SDK-HMAC-SHA256 "));
            return if signed {
                Credential::Signature
            } else {
                Credential::None
            };
        };
        match token.to_str().ok().and_then(|token| self.tokens.get(token)) {
            None => Credential::UnknownToken,
            Some(token) if token.revoked => Credential::RevokedToken,
            Some(token) if token.fixed => Credential::FixedToken,
            Some(token) if token.expires.is_some_and(|at| at <= Instant::now()) => {
                Credential::ExpiredToken
            }
            Some(_) => Credential::IssuedToken,
        }
    }

    /// Whether the request may ask about jobs of `project`; else the documented refusal.
    pub(super) fn authorize(&self, headers: &HeaderMap, project: &str) -> Result<(), Answer> {
        match self.credential(headers) {
            Credential::None => Err(preset::token_missing()),
            Credential::Signature => Err(preset::signature_wrong()),
            Credential::UnknownToken | Credential::RevokedToken => {
                Err(preset::token_undecryptable())
            }
            Credential::ExpiredToken => Err(preset::token_expired()),
            Credential::FixedToken | Credential::IssuedToken => {
                let scope = headers
                    .get("x-auth-token")
                    .and_then(|token| token.to_str().ok())
                    .and_then(|token| self.tokens.get(token))
                    .map_or(&Scope::Unscoped, |token| &token.scope);
                match scope {
                    Scope::AnyProject => Ok(()),
                    Scope::Project(id) if id == project => Ok(()),
                    Scope::Project(_) | Scope::Unscoped => Err(preset::project_mismatch()),
                }
            }
        }
    }

    /// Answers `POST /v3/auth/tokens`. `image_url` goes into the catalog; `None` leaves it out.
    pub(super) fn login(
        &mut self,
        body: &[u8],
        image_url: Option<&str>,
        region: &str,
    ) -> Result<Issued, Answer> {
        let request: LoginRequest = serde_json::from_slice(body).map_err(|error| {
            let message = format!("Expecting to find a valid login request: {error}.");
            Answer::keystone_error(400, "Bad Request", &message)
        })?;
        let identity = request.auth.identity;
        let password = identity
            .password
            .filter(|_| identity.methods == ["password"])
            .ok_or_else(|| {
                Answer::keystone_error(
                    401,
                    "Unauthorized",
                    "Attempted to authenticate with an unsupported method.",
                )
            })?;
        let user = self
            .users
            .iter()
            .find(|user| password.user.is(user))
            .ok_or_else(preset::login_refused)?;
        let project = match request.auth.scope.and_then(|scope| scope.project) {
            Some(wanted) => Some(
                user.projects
                    .iter()
                    .find(|project| wanted.is(project, user))
                    .ok_or_else(preset::login_refused)?,
            ),
            None => user
                .projects
                .iter()
                .find(|project| Some(&project.id) == user.default_project.as_ref()),
        };

        let now = wall_clock();
        let mut token = json!({
            "methods": ["password"],
            "user": {
                "id": user.id,
                "name": user.name,
                "domain": { "id": user.domain_id, "name": user.domain },
                "password_expires_at": null,
            },
            "issued_at": format!("{now:.6}"),
            "expires_at": format!("{:.6}", now.saturating_add(self.lifetime).unwrap_or(Timestamp::MAX)),
        });
        if let Some(project) = project {
            token["project"] = json!({
                "id": project.id,
                "name": project.name,
                "domain": { "id": user.domain_id, "name": user.domain },
            });
            token["roles"] = json!([{ "id": "0", "name": "ims_adm" }]);
            if let Some(url) = image_url {
                token["catalog"] = catalog(url, region);
            }
        }

        let scope = project.map_or(Scope::Unscoped, |project| {
            Scope::Project(project.id.clone())
        });
        self.issued += 1;
        let id = format!(
            "issued-{}-{:016x}{:016x}",
            self.issued,
            self.random.hash_one(self.issued),
            self.random.hash_one(!self.issued),
        );
        self.tokens.insert(
            id.clone(),
            Token {
                scope,
                expires: Instant::now().checked_add(self.lifetime),
                fixed: false,
                revoked: false,
            },
        );
        Ok(Issued {
            token: id,
            body: json!({ "token": token }),
        })
    }
}

fn catalog(url: &str, region: &str) -> Value {
    json!([{
        "id": "ims",
        "type": "image",
        "name": "glance",
        "endpoints": [{
            "id": "ims-public",
            "interface": "public",
            "region": region,
            "region_id": region,
            "url": url,
        }],
    }])
}

#[derive(Deserialize)]
struct LoginRequest {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    identity: Identity,
    scope: Option<ScopeRequest>,
}

#[derive(Deserialize)]
struct Identity {
    methods: Vec<String>,
    password: Option<PasswordMethod>,
}

#[derive(Deserialize)]
struct PasswordMethod {
    user: UserRequest,
}

#[derive(Deserialize)]
struct UserRequest {
    id: Option<String>,
    name: Option<String>,
    domain: Option<DomainRequest>,
    password: String,
}

impl UserRequest {
    fn is(&self, user: &User) -> bool {
        let named = match (&self.id, &self.name, &self.domain) {
            (Some(id), _, _) => *id == user.id,
            (None, Some(name), Some(domain)) => *name == user.name && domain.is(user),
            _ => false,
        };
        named && self.password == user.password.expose_secret()
    }
}

#[derive(Deserialize)]
struct DomainRequest {
    id: Option<String>,
    name: Option<String>,
}

impl DomainRequest {
    fn is(&self, user: &User) -> bool {
        match (&self.id, &self.name) {
            (Some(id), _) => *id == user.domain_id,
            (None, Some(name)) => *name == user.domain,
            (None, None) => false,
        }
    }
}

#[derive(Deserialize)]
struct ScopeRequest {
    project: Option<ProjectRequest>,
}

#[derive(Deserialize)]
struct ProjectRequest {
    id: Option<String>,
    name: Option<String>,
    domain: Option<DomainRequest>,
}

impl ProjectRequest {
    fn is(&self, project: &Project, user: &User) -> bool {
        match (&self.id, &self.name) {
            (Some(id), _) => *id == project.id,
            // OTC takes a project name without a domain: the user's own.
            (None, Some(name)) => {
                *name == project.name && self.domain.as_ref().is_none_or(|domain| domain.is(user))
            }
            (None, None) => false,
        }
    }
}
