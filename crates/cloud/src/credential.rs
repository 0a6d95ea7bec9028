//! A cloud entry in use.

use crate::{
    CloudOptions,
    auth::{keystone::Grant, tokens::Tokens},
    config::{Auth, CloudEntry, CloudsFile},
    http::Clients,
};
use image_export_model::ConfigurationError;
use std::{sync::Arc, time::Duration};

/// A cloud entry with what belongs to it while it is in use: the tokens that it was granted, and its
/// HTTP clients. Meant to be shared (by an `Arc`) by all jobs that use it: they then share its logins.
///
/// It is plain data that [`CloudClient::query`](crate::CloudClient::query) reads and fills.
#[derive(Debug)]
pub struct Credential {
    pub(crate) entry: CloudEntry,
    pub(crate) tokens: Tokens,
    /// Of an entry with trust settings of its own.
    pub(crate) clients: Option<Clients>,
    /// What the given token grants; `None` of an entry that signs or logs in.
    pub(crate) given: Option<Grant>,
    /// The host of the image service, as messages name it, where requests are signed.
    pub(crate) signed_host: Option<Arc<str>>,
    version: u64,
}

impl Credential {
    /// Parses entry `cloud` of `file`. An error names place, entry and field, never a value.
    pub fn parse(
        file: &CloudsFile<'_>,
        cloud: &str,
        options: &CloudOptions,
    ) -> Result<Self, ConfigurationError> {
        let entry = CloudEntry::parse(file, cloud, &options.policy)?;
        let (mut given, mut signed_host) = (None, None);
        match &entry.auth {
            Auth::Token { token, endpoint } => {
                let (endpoint, redactor) = (endpoint.clone(), entry.redactor.clone());
                given = Grant::new(token, None, endpoint, Duration::MAX, redactor);
            }
            Auth::Keys { endpoint, .. } => {
                signed_host = Some(endpoint.shown_host(&entry.redactor));
            }
            Auth::Keystone(_) => {}
        }
        Ok(Self {
            tokens: Tokens::default(),
            clients: Clients::of(entry.trust.clone()),
            given,
            signed_host,
            version: file.version(cloud),
            entry,
        })
    }

    /// [`CloudsFile::version`] of what it was parsed from.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The memory that it holds, in bytes: its texts and certificates, and an allowance for what keeps them
    /// together. Its tokens have a memory of their own.
    #[must_use]
    pub fn bytes(&self) -> usize {
        /// Allocations are rounded up, and have a header each.
        const ALLOWANCE: usize = 1024;
        let given = self.given.as_ref().map_or(0, |grant| grant.token.len());
        size_of::<Self>() + ALLOWANCE + self.entry.bytes() + given
    }

    /// The project that the entry names by its id.
    #[must_use]
    pub fn project_id(&self) -> Option<&str> {
        self.entry.project_id()
    }

    /// The keys of the entry that have no meaning here, without secrets.
    #[must_use]
    pub fn ignored_keys(&self) -> &[String] {
        &self.entry.ignored
    }

    /// The file of certificates that the entry names. Parsing does not read it: whoever can reads it and
    /// gives its content as [`CloudsFile::cacert`].
    #[must_use]
    pub fn cacert_path(&self) -> Option<&str> {
        let path = self.entry.cacert_path.as_deref();
        path.filter(|_| !self.entry.trust.accept_any)
    }
}
