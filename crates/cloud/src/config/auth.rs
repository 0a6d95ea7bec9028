//! How requests are authorised: plain data.

use super::Endpoint;
use crate::secret::Secret;
use secrecy::SecretString;
use serde::Serialize;
use std::fmt;

/// How the requests of a cloud entry are authorised.
#[derive(Clone, Debug)]
pub(crate) enum Auth {
    /// By tokens from logins at Keystone.
    Keystone(KeystoneLogin),
    /// By a token that the user gives, sent as it is to the image service at `endpoint`.
    Token { token: Secret, endpoint: Endpoint },
    /// By signing each request to the image service at `endpoint`.
    Keys { keys: Keys, endpoint: Endpoint },
}

impl Auth {
    /// The bytes of all texts in it but its secrets, which its entry counts.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Keystone(login) => login.bytes(),
            Self::Token { endpoint, .. } => endpoint.bytes(),
            Self::Keys { keys, endpoint } => keys.access.len() + endpoint.bytes(),
        }
    }

    /// The secrets that are used.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &Secret> {
        let (secret, security_token) = match self {
            Self::Keystone(login) => (login.identity.shared_secret(), None),
            Self::Token { token, .. } => (token, None),
            Self::Keys { keys, .. } => (&keys.secret, keys.security_token.as_ref()),
        };
        std::iter::once(secret).chain(security_token)
    }
}

/// Who logs in where.
#[derive(Clone, Debug)]
pub(crate) struct KeystoneLogin {
    pub(crate) auth_url: Endpoint,
    pub(crate) identity: Identity,
    /// The account of another domain to act for.
    pub(crate) agency: Option<Agency>,
}

impl KeystoneLogin {
    /// Whether another login yields a token that lives longer. A token that is exchanged for a token
    /// keeps the old expiry.
    pub(crate) fn is_renewable(&self) -> bool {
        !matches!(self.identity, Identity::Token(_))
    }

    fn bytes(&self) -> usize {
        let identity = match &self.identity {
            Identity::Password { user, .. } => user.bytes(),
            Identity::Token(_) => 0,
            Identity::ApplicationCredential { credential, .. } => credential.bytes(),
        };
        let agency = self.agency.as_ref().map_or(0, |agency| {
            let project = agency.caller_project.as_ref().map_or(0, EntityRef::bytes);
            agency.name.len() + agency.domain.bytes() + project
        });
        self.auth_url.bytes() + identity + agency
    }
}

/// Who logs in.
#[derive(Clone, Debug)]
pub(crate) enum Identity {
    Password {
        user: EntityRef,
        password: Secret,
    },
    Token(Secret),
    /// The cloud ties it to one project.
    ApplicationCredential {
        credential: ApplicationCredentialRef,
        secret: Secret,
    },
}

impl Identity {
    pub(crate) fn secret(&self) -> &SecretString {
        self.shared_secret()
    }

    fn shared_secret(&self) -> &Secret {
        match self {
            Self::Password { password, .. } => password,
            Self::Token(token) => token,
            Self::ApplicationCredential { secret, .. } => secret,
        }
    }
}

/// Access to another account that its owner delegates to the caller's.
#[derive(Clone, Debug)]
pub(crate) struct Agency {
    pub(crate) name: String,
    pub(crate) domain: DomainRef,
    /// What the caller itself logs in to; `None`: its domain.
    pub(crate) caller_project: Option<EntityRef>,
}

/// A user or project. It is serialized as the bodies of Keystone name it, as are the two below.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EntityRef {
    Id(String),
    #[serde(untagged)]
    Name {
        name: String,
        domain: DomainRef,
    },
}

impl EntityRef {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Id(id) => id.len(),
            Self::Name { name, domain } => name.len() + domain.bytes(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ApplicationCredentialRef {
    Id(String),
    #[serde(untagged)]
    Name {
        name: String,
        user: EntityRef,
    },
}

impl ApplicationCredentialRef {
    fn bytes(&self) -> usize {
        match self {
            Self::Id(id) => id.len(),
            Self::Name { name, user } => name.len() + user.bytes(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DomainRef {
    Id(String),
    Name(String),
}

impl DomainRef {
    fn bytes(&self) -> usize {
        let (Self::Id(text) | Self::Name(text)) = self;
        text.len()
    }
}

/// An access key with its secret.
#[derive(Clone)]
pub(crate) struct Keys {
    /// The access key's id: not a secret, but not shown either.
    pub(crate) access: String,
    pub(crate) secret: Secret,
    /// Comes with temporary keys.
    pub(crate) security_token: Option<Secret>,
}

impl Keys {
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &SecretString> {
        let secrets = std::iter::once(&self.secret).chain(&self.security_token);
        secrets.map(|secret| &**secret)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("temporary", &self.security_token.is_some())
            .finish_non_exhaustive()
    }
}
