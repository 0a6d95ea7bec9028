//! A small identity service in the manner of Keystone v3, and the gateway's guard: logins in,
//! project tokens out, and whether a token or a signature opens a project.
//!
//! It has what a login needs and no more. Tokens of a real Keystone are checked by
//! [`super::validation`].

mod directory;
mod keys;
mod lock;
mod login;
mod request;

pub(super) use self::keys::Signed;
pub use self::{
    directory::{AccessKey, Agency, ApplicationCredential, Project, User},
    keys::SIGNATURE_WINDOW,
};
use self::{keys::Keys, lock::Lock};
use super::{Answer, job::wall_clock, log::Credential, refusal};
use axum::http::{HeaderMap, header};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use std::{
    collections::HashMap,
    hash::RandomState,
    time::{Duration, Instant},
};

/// What a token is valid for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    AnyProject,
    Project(String),
    Unscoped,
}

impl Scope {
    /// Its access; the error answer where the path names another project.
    pub(super) fn access(&self, path_project: Option<&str>) -> Result<Access, Answer> {
        match self {
            Self::AnyProject => Ok(Access::AnyProject),
            Self::Project(id) if path_project.is_none_or(|path| path == id) => {
                Ok(Access::Project(id.clone()))
            }
            Self::Project(_) | Self::Unscoped => Err(refusal::project_mismatch()),
        }
    }
}

/// The projects whose jobs a request may query.
pub(super) enum Access {
    Project(String),
    AnyProject,
}

/// Why a request may not pass.
pub(super) enum Refusal {
    Answered(Answer),
    /// A token that was never seen here: perhaps a real Keystone's.
    UnknownToken,
}

impl From<Answer> for Refusal {
    fn from(answer: Answer) -> Self {
        Self::Answered(answer)
    }
}

/// Who wants to assume an agency.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) domain: String,
    pub(super) domain_id: String,
}

#[derive(Clone, Copy)]
struct Expiry {
    /// `None`: too far away for the clock.
    at: Option<Instant>,
    shown: Timestamp,
}

struct Token {
    scope: Scope,
    /// `None`: never.
    expiry: Option<Expiry>,
    /// Id of the user who logged in; agencies and fixed tokens have none.
    user: Option<String>,
    fixed: bool,
    revoked: bool,
}

impl Token {
    fn is_expired(&self) -> bool {
        let at = self.expiry.and_then(|expiry| expiry.at);
        at.is_some_and(|at| at <= Instant::now())
    }
}

/// How strict the service is.
pub(super) struct Rules {
    pub(super) token_lifetime: Duration,
    pub(super) token_length: usize,
    pub(super) key_lock: Duration,
    /// `None`: accounts are never locked.
    pub(super) account_lock: Option<Duration>,
    /// How far the clock for signatures is ahead of the real one.
    pub(super) clock_offset: SignedDuration,
}

/// What happened since the start.
#[derive(Clone, Copy, Default)]
pub(super) struct Sums {
    pub(super) signature_failures: u64,
    pub(super) key_locks: u64,
    pub(super) password_failures: u64,
    pub(super) account_locks: u64,
}

pub(super) struct Iam {
    pub(super) rules: Rules,
    users: Vec<User>,
    credentials: Vec<ApplicationCredential>,
    agencies: Vec<Agency>,
    keys: Keys,
    account_locks: HashMap<String, Lock>,
    tokens: HashMap<String, Token>,
    sums: Sums,
    random: RandomState,
    issued: u64,
}

/// A token just issued.
pub(super) struct Issued {
    pub(super) token: String,
    pub(super) body: Value,
}

impl Iam {
    pub(super) fn new(users: Vec<User>, rules: Rules) -> Self {
        Self {
            rules,
            users,
            credentials: Vec::new(),
            agencies: Vec::new(),
            keys: Keys::default(),
            account_locks: HashMap::new(),
            tokens: HashMap::new(),
            sums: Sums::default(),
            random: RandomState::new(),
            issued: 0,
        }
    }

    pub(super) fn sums(&self) -> Sums {
        self.sums
    }

    pub(super) fn add_fixed_token(&mut self, token: &SecretString, project: Option<&str>) {
        let scope = project.map_or(Scope::AnyProject, |id| Scope::Project(id.to_owned()));
        let token = token.expose_secret().to_owned();
        self.tokens.insert(
            token,
            Token {
                scope,
                expiry: None,
                user: None,
                fixed: true,
                revoked: false,
            },
        );
    }

    pub(super) fn add_user(&mut self, user: User) {
        self.account_locks.remove(&user.id);
        self.users.retain(|known| known.id != user.id);
        self.users.push(user);
    }

    pub(super) fn add_credential(&mut self, credential: ApplicationCredential) {
        self.credentials.retain(|known| known.id != credential.id);
        self.credentials.push(credential);
    }

    /// Whether there was such an application credential.
    pub(super) fn remove_credential(&mut self, id: &str) -> bool {
        let before = self.credentials.len();
        self.credentials.retain(|known| known.id != id);
        self.credentials.len() < before
    }

    pub(super) fn add_agency(&mut self, agency: Agency) {
        self.agencies
            .retain(|known| (&known.name, &known.domain) != (&agency.name, &agency.domain));
        self.agencies.push(agency);
    }

    pub(super) fn add_key(&mut self, key: AccessKey) {
        self.keys.add(key);
    }

    pub(super) fn remove_key(&mut self, access_key: &str) -> bool {
        self.keys.remove(access_key)
    }

    pub(super) fn enable_key(&mut self, access_key: &str, enabled: bool) -> bool {
        self.keys.enable(access_key, enabled)
    }

    /// Ends the locks of all keys and accounts.
    pub(super) fn unlock(&mut self) {
        self.keys.unlock();
        self.account_locks.clear();
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

    fn token(&self, headers: &HeaderMap) -> Option<&Token> {
        let token = headers.get("x-auth-token")?.to_str().ok()?;
        self.tokens.get(token)
    }

    pub(super) fn credential(&self, headers: &HeaderMap) -> Credential {
        if !headers.contains_key("x-auth-token") {
            let signed = headers
                .get(header::AUTHORIZATION)
                .is_some_and(|value| value.as_bytes().starts_with(b"SDK-HMAC-SHA256 "));
            return if signed {
                Credential::Signature
            } else {
                Credential::None
            };
        }
        match self.token(headers) {
            None => Credential::UnknownToken,
            Some(token) if token.revoked => Credential::RevokedToken,
            Some(token) if token.fixed => Credential::FixedToken,
            Some(token) if token.is_expired() => Credential::ExpiredToken,
            Some(_) => Credential::IssuedToken,
        }
    }

    /// The project that a request without one in its path seems to be about, by its credential.
    pub(super) fn apparent_project(&self, headers: &HeaderMap) -> Option<String> {
        match self.token(headers) {
            Some(token) => match &token.scope {
                Scope::Project(id) => Some(id.clone()),
                Scope::AnyProject | Scope::Unscoped => None,
            },
            None => Some(headers.get("x-project-id")?.to_str().ok()?.to_owned()),
        }
    }

    /// Whether the request may query jobs, of `path_project` if the path names one; else the
    /// documented error answer.
    pub(super) fn authorize(
        &mut self,
        request: &Signed<'_>,
        path_project: Option<&str>,
    ) -> Result<Access, Refusal> {
        match self.credential(request.headers) {
            Credential::None => Err(refusal::token_missing().into()),
            Credential::Signature => {
                let clock = wall_clock()
                    .saturating_add(self.rules.clock_offset)
                    .unwrap_or(Timestamp::MAX);
                let project = self.keys.verify(
                    request,
                    path_project,
                    clock,
                    self.rules.key_lock,
                    &mut self.sums,
                )?;
                Ok(Access::Project(project))
            }
            Credential::UnknownToken | Credential::KeystoneToken => Err(Refusal::UnknownToken),
            Credential::RevokedToken => Err(refusal::token_undecryptable().into()),
            Credential::ExpiredToken => Err(refusal::token_expired().into()),
            Credential::FixedToken | Credential::IssuedToken => {
                let token = self.token(request.headers);
                let scope = token.map_or(&Scope::Unscoped, |token| &token.scope);
                Ok(scope.access(path_project)?)
            }
        }
    }
}
