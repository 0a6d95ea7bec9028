//! From a `clouds.yaml` to a checked [`CloudEntry`]: plain data: how requests are authorised
//! and where they go. Nothing in here sends a request.

pub(crate) mod auth;
pub(crate) mod clouds_yaml;
pub(crate) mod endpoint;
pub(crate) mod entry;
pub(crate) mod fields;
mod login;
pub(crate) mod policy;

pub(crate) use auth::{
    Agency, ApplicationCredentialRef, Auth, DomainRef, EntityRef, Identity, Keys, KeystoneLogin,
};
#[cfg(test)]
pub(crate) use endpoint::host_key;
pub(crate) use endpoint::{Endpoint, JobPath, normalised};
pub(crate) use entry::CloudEntry;
pub(crate) use policy::EndpointPolicy;

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
};

/// Longest clouds.yaml, in bytes.
pub(crate) const MAX_CLOUDS_YAML_BYTES: usize = 64 * 1024;
/// Longest text of a field, in bytes, but for those below.
pub(crate) const MAX_FIELD_BYTES: usize = 4 * 1024;
/// Longer tokens, in bytes, fit into no gateway's header limit.
pub(crate) const MAX_TOKEN_BYTES: usize = 32 * 1024;
/// Longest list of certificates, in bytes of PEM: some 40 authorities.
pub(crate) const MAX_CACERT_BYTES: usize = 64 * 1024;
/// Longest texts of an entry together, in bytes, without its certificates. Those behind aliases count each
/// time.
pub(crate) const MAX_ENTRY_BYTES: usize = 40 * 1024;

/// The content of a `clouds.yaml`, with the certificates that belong to it.
#[derive(Clone, Copy, Debug)]
pub struct CloudsFile<'a> {
    /// Names the place in messages.
    pub place: &'a Place,
    /// The file; `None` where the place has none.
    pub clouds_yaml: Option<&'a [u8]>,
    /// Certificates (PEM) of authorities to trust beside the system's.
    pub cacert: Option<&'a [u8]>,
}

impl CloudsFile<'_> {
    /// A hash of what entry `cloud` is parsed from, also of content that is refused. Equal content has
    /// an equal version within one build of the program; nothing else is promised.
    #[must_use]
    pub fn version(&self, cloud: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.clouds_yaml, self.cacert, cloud).hash(&mut hasher);
        hasher.finish()
    }
}

/// Where a `clouds.yaml` is, for messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Something that holds it as its key `clouds.yaml`, and certificates as its key `cacert`: for
    /// example "Secret team-a/otc".
    KeyOf(String),
    /// A file, by its path.
    File(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyOf(holder) => f.write_str(holder),
            Self::File(path) => write!(f, "file {path}"),
        }
    }
}

impl Place {
    /// The document as a whole.
    pub(crate) fn document(&self) -> String {
        match self {
            Self::KeyOf(holder) => format!("key clouds.yaml of {holder}"),
            Self::File(_) => self.to_string(),
        }
    }

    /// What is in the document.
    pub(crate) fn content(&self) -> String {
        match self {
            Self::KeyOf(holder) => format!("clouds.yaml of {holder}"),
            Self::File(_) => self.to_string(),
        }
    }

    pub(crate) fn cacert(&self) -> String {
        match self {
            Self::KeyOf(holder) => format!("key cacert of {holder}"),
            Self::File(_) => format!("cacert in {self}"),
        }
    }
}
