//! `POST /v3/auth/tokens`: the four ways to log in, and the token that comes out.

use super::{
    Caller, Expiry, Iam, Issued, Project, Scope, Token, User,
    request::{self, LoginRequest, NamedAgency, NamedCredential, NamedToken, PasswordUser},
};
use crate::ims::{Answer, job::wall_clock, log::Credential, refusal};
use axum::http::HeaderMap;
use k8s_openapi::jiff::Timestamp;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::{hash::BuildHasher, time::Instant};

/// What a login has earned.
struct Grant {
    method: &'static str,
    holder: Caller,
    /// Whether the holder is a user, and not an agency.
    is_user: bool,
    project: Option<Project>,
    /// A token got from a token keeps the old one's.
    expiry: Option<Expiry>,
    assumed_by: Option<Caller>,
}

impl Grant {
    fn to_user(method: &'static str, user: &User, project: Option<Project>) -> Self {
        Self {
            method,
            holder: user.into(),
            is_user: true,
            project,
            expiry: None,
            assumed_by: None,
        }
    }
}

impl From<&User> for Caller {
    fn from(user: &User) -> Self {
        Self {
            id: user.id.clone(),
            name: user.name.clone(),
            domain: user.domain.clone(),
            domain_id: user.domain_id.clone(),
        }
    }
}

impl Caller {
    fn domain_json(&self) -> Value {
        json!({ "id": self.domain_id, "name": self.domain })
    }

    fn json(&self) -> Value {
        json!({
            "id": self.id,
            "name": self.name,
            "domain": self.domain_json(),
            "password_expires_at": null,
        })
    }
}

impl Iam {
    /// Answers `POST /v3/auth/tokens`. `vouched` is the holder of the `X-Auth-Token` according to a
    /// real Keystone. `image_url` goes into the catalog; `None` leaves it out.
    pub(in crate::ims) fn login(
        &mut self,
        body: &[u8],
        headers: &HeaderMap,
        vouched: Option<Caller>,
        image_url: Option<&str>,
        region: &str,
    ) -> Result<Issued, Answer> {
        let request: LoginRequest = serde_json::from_slice(body).map_err(|error| {
            bad_request(&format!(
                "Expecting to find a valid login request: {error}."
            ))
        })?;
        let identity = request.auth.identity;
        let scope = request.auth.scope;
        let methods: Vec<&str> = identity.methods.iter().map(String::as_str).collect();
        let grant = match *methods {
            ["password"] => self.by_password(&method(identity.password)?.user, scope),
            ["application_credential"] => {
                self.by_credential(&method(identity.application_credential)?, scope.is_some())
            }
            ["token"] => self.by_token(&method(identity.token)?, scope),
            ["assume_role"] => {
                let caller = self.caller(headers, vouched)?;
                self.by_agency(&method(identity.assume_role)?, caller, scope)
            }
            _ => Err(refusal::method_unsupported()),
        }?;
        Ok(self.issue(grant, image_url, region))
    }

    fn by_password(
        &mut self,
        named: &PasswordUser,
        scope: Option<request::Scope>,
    ) -> Result<Grant, Answer> {
        let user = self
            .users
            .iter()
            .find(|user| named.named.is(user))
            .ok_or_else(refusal::login_refused)?;
        let now = Instant::now();
        let lock = self.account_locks.entry(user.id.clone()).or_default();
        let length = self.rules.account_lock;
        if length.is_some() && lock.holds(now) {
            return Err(refusal::account_locked(&user.id));
        }
        if named.password != user.password.expose_secret() {
            self.sums.password_failures += 1;
            if length.is_some_and(|length| lock.wrong(now, length)) {
                self.sums.account_locks += 1;
            }
            return Err(refusal::login_refused());
        }
        lock.right();
        let project = scoped(user, scope)?;
        Ok(Grant::to_user("password", user, project))
    }

    fn by_credential(&self, named: &NamedCredential, scoped: bool) -> Result<Grant, Answer> {
        if scoped {
            return Err(refusal::credential_scoped());
        }
        let mut owned = self.credentials.iter().filter_map(|credential| {
            let owner = self
                .users
                .iter()
                .find(|user| user.id == credential.user_id)?;
            Some((credential, owner))
        });
        let (credential, owner) = owned
            .find(|(credential, owner)| named.is(credential, owner))
            .ok_or_else(|| {
                let wanted = named.id.as_ref().or(named.name.as_ref());
                refusal::credential_unknown(wanted.map_or("", String::as_str))
            })?;
        let project = owner
            .projects
            .iter()
            .find(|project| project.id == credential.project_id)
            .filter(|_| named.secret == credential.secret.expose_secret())
            .ok_or_else(refusal::login_refused)?;
        let method = "application_credential";
        Ok(Grant::to_user(method, owner, Some(project.clone())))
    }

    fn by_token(&self, named: &NamedToken, scope: Option<request::Scope>) -> Result<Grant, Answer> {
        let token = self
            .tokens
            .get(&named.id)
            .filter(|token| !token.revoked && !token.is_expired())
            .ok_or_else(refusal::login_refused)?;
        let user = self
            .users
            .iter()
            .find(|user| token.user.as_ref() == Some(&user.id))
            .ok_or_else(refusal::login_refused)?;
        Ok(Grant {
            expiry: token.expiry,
            ..Grant::to_user("token", user, scoped(user, scope)?)
        })
    }

    /// Whose valid token came in `X-Auth-Token`.
    fn caller(&self, headers: &HeaderMap, vouched: Option<Caller>) -> Result<Caller, Answer> {
        if let Some(caller) = vouched {
            return Ok(caller);
        }
        let valid = matches!(
            self.credential(headers),
            Credential::IssuedToken | Credential::FixedToken
        );
        let token = self
            .token(headers)
            .filter(|_| valid)
            .ok_or_else(refusal::login_refused)?;
        self.users
            .iter()
            .find(|user| token.user.as_ref() == Some(&user.id))
            .map(Caller::from)
            .ok_or_else(refusal::agency_forbidden)
    }

    fn by_agency(
        &self,
        named: &NamedAgency,
        caller: Caller,
        scope: Option<request::Scope>,
    ) -> Result<Grant, Answer> {
        let agency = self
            .agencies
            .iter()
            .find(|agency| named.is(agency))
            .ok_or_else(|| refusal::agency_unknown(&named.agency_name))?;
        let trusted = agency.trusted_domains.contains(&caller.domain)
            || agency.trusted_users.contains(&caller.id);
        if !trusted {
            return Err(refusal::agency_forbidden());
        }
        let wanted = scope
            .and_then(|scope| scope.project)
            .ok_or_else(|| bad_request("Expecting to find scope in the request body."))?;
        let project = agency
            .projects
            .iter()
            .find(|project| wanted.is(project, &agency.domain_id, &agency.domain))
            .ok_or_else(refusal::login_refused)?;
        Ok(Grant {
            method: "assume_role",
            holder: Caller {
                id: format!("{}-{}", agency.domain_id, agency.name),
                name: format!("{}/{}", agency.domain, agency.name),
                domain: agency.domain.clone(),
                domain_id: agency.domain_id.clone(),
            },
            is_user: false,
            project: Some(project.clone()),
            expiry: None,
            assumed_by: Some(caller),
        })
    }

    fn issue(&mut self, grant: Grant, image_url: Option<&str>, region: &str) -> Issued {
        let now = wall_clock();
        let lifetime = self.rules.token_lifetime;
        let expiry = grant.expiry.unwrap_or_else(|| Expiry {
            at: Instant::now().checked_add(lifetime),
            shown: now.saturating_add(lifetime).unwrap_or(Timestamp::MAX),
        });
        let mut token = json!({
            "methods": [grant.method],
            "user": grant.holder.json(),
            "issued_at": format!("{now:.6}"),
            "expires_at": format!("{:.6}", expiry.shown),
        });
        if let Some(caller) = &grant.assumed_by {
            token["assumed_by"] = json!({ "user": caller.json() });
        }
        if let Some(project) = &grant.project {
            token["project"] = json!({
                "id": project.id,
                "name": project.name,
                "domain": grant.holder.domain_json(),
            });
            token["roles"] = json!([{ "id": "0", "name": "ims_adm" }]);
            if let Some(url) = image_url {
                token["catalog"] = catalog(url, region);
            }
        }

        self.issued += 1;
        let id = format!(
            "issued-{}-{:016x}{:016x}",
            self.issued,
            self.random.hash_one(self.issued),
            self.random.hash_one(!self.issued),
        );
        let id = format!("{id:x<0$}", self.rules.token_length);
        self.tokens.insert(
            id.clone(),
            Token {
                scope: grant
                    .project
                    .map_or(Scope::Unscoped, |project| Scope::Project(project.id)),
                expiry: Some(expiry),
                user: grant.is_user.then_some(grant.holder.id),
                fixed: false,
                revoked: false,
            },
        );
        Issued {
            token: id,
            body: json!({ "token": token }),
        }
    }
}

/// The part of the request that belongs to its method.
fn method<T>(part: Option<T>) -> Result<T, Answer> {
    part.ok_or_else(refusal::method_unsupported)
}

/// The project that a login requests; without a scope the default one, if there is one.
fn scoped(user: &User, scope: Option<request::Scope>) -> Result<Option<Project>, Answer> {
    match scope.and_then(|scope| scope.project) {
        Some(wanted) => user
            .projects
            .iter()
            .find(|project| wanted.is(project, &user.domain_id, &user.domain))
            .map(|project| Some(project.clone()))
            .ok_or_else(refusal::login_refused),
        None => Ok(user
            .projects
            .iter()
            .find(|project| Some(&project.id) == user.default_project.as_ref())
            .cloned()),
    }
}

fn bad_request(message: &str) -> Answer {
    Answer::keystone_error(400, "Bad Request", message)
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
