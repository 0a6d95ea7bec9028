//! One cloud entry of a Secret with the tokens it was given.

use super::{
    SecretName,
    clouds_yaml::{self, Entry, Login, ProjectRef},
    endpoint::Endpoint,
    http::Http,
    keystone::{self, Grant, LoginProblem},
    text::Redactor,
    tokens::{NoToken, Session, Tokens},
};
use crate::observation::{Refusal, RefusalReason};
use k8s_openapi::ByteString;
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

const KEY: &str = "clouds.yaml";

/// One cloud entry of a Secret, parsed, with the tokens it was given. Meant to be shared (by an
/// `Arc`) by all objects that name it: they then share its logins.
#[derive(Debug)]
pub struct Credential {
    secret: SecretName,
    /// As messages show it.
    cloud: String,
    version: u64,
    entry: Entry,
    access: Access,
}

/// Where tokens come from.
#[derive(Debug)]
enum Access {
    /// From a login at `auth_url`; only some can be repeated for a token that lives longer.
    SignIn {
        auth_url: Endpoint,
        renewable: bool,
        tokens: Tokens,
    },
    /// The user gave both token and endpoint: nothing to ask for.
    Given(Arc<Session>),
}

/// A hash of what [`Credential::parse`] reads of a Secret, also of one that it refuses. Equal
/// content gives an equal version within one build of the program; nothing else is promised.
#[must_use]
pub fn content_version(data: Option<&BTreeMap<String, ByteString>>, cloud: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    data.and_then(|data| data.get(KEY))
        .map(|yaml| &yaml.0)
        .hash(&mut hasher);
    cloud.hash(&mut hasher);
    hasher.finish()
}

impl Credential {
    /// Parses entry `cloud` of the key `clouds.yaml` in `data`, the content of `secret`; plain
    /// http URLs need `allow_http`. A refusal names Secret, entry and field, never a value.
    pub fn parse(
        secret: &SecretName,
        data: Option<&BTreeMap<String, ByteString>>,
        cloud: &str,
        allow_http: bool,
    ) -> Result<Self, Refusal> {
        let yaml = data.and_then(|data| data.get(KEY)).ok_or_else(|| Refusal {
            reason: RefusalReason::CredentialsNotFound,
            message: format!("{secret} has no key {KEY}").into(),
        })?;
        let entry = clouds_yaml::parse(&yaml.0, cloud, secret, allow_http)?;
        let access = Access::of(&entry).ok_or_else(|| Refusal {
            reason: RefusalReason::CredentialsInvalid,
            message: format!("in {KEY} of {secret}, clouds.{} needs an auth_url and a token that fits into a header", clouds_yaml::shown(cloud)).into(),
        })?;
        Ok(Self {
            secret: secret.clone(),
            cloud: clouds_yaml::shown(cloud),
            version: content_version(data, cloud),
            entry,
            access,
        })
    }

    /// [`content_version`] of what it was parsed from.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Its place, for messages.
    pub(super) fn described(&self) -> String {
        format!("cloud \"{}\" in {}", self.cloud, self.secret)
    }

    pub(super) fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Knows the entry's own secrets.
    pub(super) fn redactor(&self) -> Redactor {
        redactor(&self.entry)
    }

    /// Whether a rejected token can be replaced by signing in again.
    pub(super) fn is_renewable(&self) -> bool {
        matches!(
            self.access,
            Access::SignIn {
                renewable: true,
                ..
            }
        )
    }

    /// A token for `project_id`, other than the `rejected` one.
    pub(super) async fn session(
        &self,
        http: &Http,
        project_id: &str,
        rejected: Option<&Session>,
    ) -> Result<Arc<Session>, NoToken> {
        match &self.access {
            Access::Given(_) if rejected.is_some() => Err(NoToken::NoFreshOne),
            Access::Given(session) => Ok(Arc::clone(session)),
            Access::SignIn {
                auth_url,
                renewable,
                tokens,
            } => {
                let scope = self.entry.project.is_none().then_some(project_id);
                let sign_in = || keystone::sign_in(http, auth_url, self, project_id);
                tokens
                    .slot(scope)
                    .session(rejected, *renewable, sign_in)
                    .await
            }
        }
    }

    /// Refuses a token for another project than `project_id`: what it sees is not what was asked.
    pub(super) fn check_project(
        &self,
        signed_in_to: Option<&str>,
        project_id: &str,
    ) -> Result<(), LoginProblem> {
        let named = match &self.entry.project {
            Some(ProjectRef::Id(id)) => Some(id.as_str()),
            Some(ProjectRef::Name { .. }) | None => None,
        };
        match named.or(signed_in_to) {
            Some(other) if other != project_id => {
                let other = self.redactor().clean_chars(other, 64).unwrap_or_default();
                Err(LoginProblem::refused(
                    RefusalReason::CredentialsInvalid,
                    format!(
                        "{} signs in to project {other}, but spec.projectID is {project_id}",
                        self.described()
                    ),
                ))
            }
            _ => Ok(()),
        }
    }
}

impl Access {
    fn of(entry: &Entry) -> Option<Self> {
        match &entry.login {
            Login::Password { auth_url, .. } => Some(Self::SignIn {
                auth_url: auth_url.clone(),
                renewable: true,
                tokens: Tokens::default(),
            }),
            Login::Token { auth_url, token } => match &entry.image_endpoint {
                Some(endpoint) => {
                    let grant = Grant::new(
                        token,
                        None,
                        endpoint.clone(),
                        Duration::MAX,
                        redactor(entry),
                    )?;
                    Some(Self::Given(Arc::new(Session::given(grant))))
                }
                // A token got from a token keeps the old expiry: refreshing it would gain nothing.
                None => Some(Self::SignIn {
                    auth_url: auth_url.clone()?,
                    renewable: false,
                    tokens: Tokens::default(),
                }),
            },
        }
    }
}

fn redactor(entry: &Entry) -> Redactor {
    match &entry.login {
        Login::Password { password, .. } => Redactor::new([password]),
        Login::Token { token, .. } => Redactor::new([token]),
    }
}
