//! How requests are authorised: plain data.

use super::Endpoint;
use secrecy::SecretString;
use serde::Serialize;
use std::fmt;

/// How the requests of a cloud entry are authorised.
#[derive(Clone, Debug)]
pub(crate) enum Auth {
    /// By tokens from logins at Keystone.
    Keystone(KeystoneLogin),
    /// By a token that the user gives, sent as it is to the image service at `endpoint`.
    Token {
        token: SecretString,
        endpoint: Endpoint,
    },
    /// By signing each request to the image service at `endpoint`.
    Keys { keys: Keys, endpoint: Endpoint },
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
}

/// Who logs in.
#[derive(Clone, Debug)]
pub(crate) enum Identity {
    Password {
        user: EntityRef,
        password: SecretString,
    },
    Token(SecretString),
    /// The cloud ties it to one project.
    ApplicationCredential {
        credential: ApplicationCredentialRef,
        secret: SecretString,
    },
}

impl Identity {
    pub(crate) fn secret(&self) -> &SecretString {
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DomainRef {
    Id(String),
    Name(String),
}

/// An access key with its secret.
#[derive(Clone)]
pub(crate) struct Keys {
    /// The access key's id: not a secret, but not shown either.
    pub(crate) access: String,
    pub(crate) secret: SecretString,
    /// Comes with temporary keys.
    pub(crate) security_token: Option<SecretString>,
}

impl Keys {
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &SecretString> {
        std::iter::once(&self.secret).chain(&self.security_token)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("temporary", &self.security_token.is_some())
            .finish_non_exhaustive()
    }
}
