//! One cloud entry of a Secret with the tokens it was given.

use super::{
    CloudOptions, JobPath, Origin,
    breaker::Breakers,
    clouds_yaml,
    endpoint::Endpoint,
    entry::{Entry, Identity, Login, ProjectRef},
    http::{Clients, Http, Trust},
    keystone::{self, Grant, LoginProblem},
    signature::Keys,
    text::Redactor,
    tokens::{NoToken, Session, Tokens},
};
use image_export_model::{ConfigurationError, ConfigurationReason};
use k8s_openapi::ByteString;
use reqwest::Certificate;
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Keys of the Secret.
const CLOUDS: &str = "clouds.yaml";
const CACERT: &str = "cacert";
/// Tells certificates from the path of their file.
const PEM: &str = "-----BEGIN";

/// One cloud entry of a Secret, parsed, with the tokens it was given. Meant to be shared (by an
/// `Arc`) by all objects that name it: they then share its logins.
#[derive(Debug)]
pub struct Credential {
    origin: Origin,
    /// As messages show it.
    cloud: String,
    version: u64,
    entry: Entry,
    /// Knows the entry's own secrets.
    redactor: Redactor,
    access: Access,
    /// Where the entry has authorities of its own.
    clients: Option<Clients>,
}

/// Where the right to ask comes from.
#[derive(Debug)]
enum Access {
    /// Logins.
    SignIn(Tokens),
    /// The user gave both token and endpoint: nothing to ask for.
    Given(Arc<Session>),
    /// Each request is signed.
    Keys,
}

/// A hash of what [`Credential::parse`] reads of a Secret, also of one that it refuses. Equal
/// content gives an equal version within one build of the program; nothing else is promised.
#[must_use]
pub fn content_version(data: Option<&BTreeMap<String, ByteString>>, cloud: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    for key in [CLOUDS, CACERT] {
        data.and_then(|data| data.get(key))
            .map(|value| &value.0)
            .hash(&mut hasher);
    }
    cloud.hash(&mut hasher);
    hasher.finish()
}

impl Credential {
    /// Parses entry `cloud` of the key `clouds.yaml` in `data`, the content of `origin`, with the
    /// certificates of its key `cacert`, if there are any. A refusal names Secret, entry and field,
    /// never a value.
    pub fn parse(
        origin: &Origin,
        data: Option<&BTreeMap<String, ByteString>>,
        cloud: &str,
        options: &CloudOptions,
    ) -> Result<Self, ConfigurationError> {
        let key = |name| data.and_then(|data| data.get(name));
        let yaml = key(CLOUDS).ok_or_else(|| ConfigurationError {
            reason: ConfigurationReason::CredentialsNotFound,
            message: format!("{origin} has no key {CLOUDS}").into(),
        })?;
        let entry = Entry::parse(&yaml.0, cloud, origin, &options.policy)?;
        let invalid = |message: String| ConfigurationError {
            reason: ConfigurationReason::CredentialsInvalid,
            message: message.into(),
        };
        let access = Access::of(&entry, options).ok_or_else(|| {
            invalid(format!(
                "in {CLOUDS} of {origin}, the token of clouds.{} fits into no header",
                clouds_yaml::shown(cloud)
            ))
        })?;
        let own = key(CACERT).map(|pem| pem.0.as_slice());
        let trust = trust(&entry, own).ok_or_else(|| {
            invalid(format!(
                "key {CACERT} of {origin} is not a list of certificates in PEM"
            ))
        })?;
        let clients = trust.differs().then(|| Clients::new(trust));
        Ok(Self {
            origin: origin.clone(),
            cloud: clouds_yaml::shown(cloud),
            version: content_version(data, cloud),
            redactor: entry.redactor(),
            entry,
            access,
            clients,
        })
    }

    /// [`content_version`] of what it was parsed from.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Its place, for messages.
    pub(super) fn described(&self) -> String {
        format!("cloud \"{}\" in {}", self.cloud, self.origin)
    }

    pub(super) fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Knows the entry's own secrets.
    pub(super) fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// The project that the entry itself names by id.
    #[must_use]
    pub fn project_id(&self) -> Option<&str> {
        match &self.entry.project {
            Some(ProjectRef::Id(id)) => Some(id),
            Some(ProjectRef::Name { .. }) | None => None,
        }
    }

    /// The file of certificates that the entry names. In a Secret such a path leads nowhere.
    #[must_use]
    pub fn cacert_path(&self) -> Option<&str> {
        let cacert = self.entry.cacert.as_deref()?;
        (!cacert.contains(PEM)).then_some(cacert)
    }

    /// HTTP clients of its own, where it has authorities of its own.
    pub(super) fn clients(&self) -> Option<&Clients> {
        self.clients.as_ref()
    }

    /// The path of the job query, where the operator's own setting is `default`.
    pub(super) fn job_path(&self, default: JobPath) -> JobPath {
        self.entry.job_path.unwrap_or(default)
    }

    /// What requests are signed with and where they go, if that is how they are authorised.
    pub(super) fn keys(&self) -> Option<(&Keys, &Endpoint)> {
        match &self.entry.login {
            Login::Keys { keys, endpoint } => Some((keys, endpoint)),
            Login::Keystone { .. } | Login::Token(_) => None,
        }
    }

    /// Whether a rejected token can be replaced by signing in again. A token got from a token keeps
    /// the old expiry.
    pub(super) fn is_renewable(&self) -> bool {
        matches!(
            &self.entry.login,
            Login::Keystone {
                identity: Identity::Password { .. } | Identity::ApplicationCredential { .. },
                ..
            }
        )
    }

    /// A token for `project_id`, other than the `rejected` one. Sets `signed_in` if a login was
    /// made for it.
    pub(super) async fn session(
        &self,
        http: &Http,
        breakers: &Breakers,
        project_id: &str,
        rejected: Option<&Session>,
        signed_in: &AtomicBool,
    ) -> Result<Arc<Session>, NoToken> {
        let (tokens, login) = match (&self.access, &self.entry.login) {
            (
                Access::SignIn(tokens),
                Login::Keystone {
                    auth_url,
                    identity,
                    agency,
                },
            ) => {
                let login = keystone::Login {
                    http,
                    breakers,
                    credential: self,
                    auth_url,
                    identity,
                    agency: agency.as_ref(),
                };
                (tokens, login)
            }
            (Access::Given(session), _) if rejected.is_none() => return Ok(Arc::clone(session)),
            _ => return Err(NoToken::NoFreshOne),
        };
        let own_scope = self.entry.project.is_some()
            || matches!(login.identity, Identity::ApplicationCredential { .. })
                && login.agency.is_none();
        let scope = (!own_scope).then_some(project_id);
        let sign_in = || {
            signed_in.store(true, Ordering::Relaxed);
            login.sign_in(project_id)
        };
        tokens
            .slot(scope)
            .session(rejected, self.is_renewable(), sign_in)
            .await
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
                    ConfigurationReason::CredentialsInvalid,
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
    /// `None` for a token that cannot stand in a header.
    fn of(entry: &Entry, options: &CloudOptions) -> Option<Self> {
        Some(match &entry.login {
            Login::Keystone { .. } => Self::SignIn(Tokens::new(options.pacing.clone())),
            Login::Token(token) => {
                let endpoint = entry.image_endpoint.clone()?;
                let grant = Grant::new(token, None, endpoint, Duration::MAX, entry.redactor())?;
                Self::Given(Arc::new(Session::given(grant)))
            }
            Login::Keys { .. } => Self::Keys,
        })
    }
}

/// `None` if there are no certificates where some should be. A path in the entry leads nowhere in a
/// Secret and is passed over.
fn trust(entry: &Entry, cacert: Option<&[u8]>) -> Option<Trust> {
    let in_entry = entry
        .cacert
        .as_deref()
        .filter(|text| text.contains(PEM))
        .map(str::as_bytes);
    let authorities = match cacert.or(in_entry) {
        Some(pem) => Certificate::from_pem_bundle(pem)
            .ok()
            .filter(|certificates| !certificates.is_empty())?,
        None => Vec::new(),
    };
    Some(Trust {
        authorities,
        verify: entry.verify,
    })
}
