//! The client: what all polls share.

use super::poll::{self, Shared};
use crate::{
    CloudOptions, Credential,
    auth::{breaker::Breakers, token_memory::TokenMemory},
    config::CloudsFile,
    http::Http,
};
use image_export_model::{Caller, ConfigurationError, JobId, Observation, ProjectId};
use std::{error::Error, sync::Arc};

/// A client cannot be built, because of TLS or the system's root certificates.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the HTTP client for the cloud; check the system's CA certificates")]
pub struct ClientError(#[source] Box<dyn Error + Send + Sync>);

/// Queries clouds about jobs. Cheap to clone; clones share their connections and circuit breakers.
#[derive(Clone)]
pub struct CloudClient(Arc<Shared>);

impl CloudClient {
    /// A client without connections. The process must have installed its rustls provider.
    pub fn new(options: CloudOptions) -> Result<Self, ClientError> {
        Ok(Self(Arc::new(Shared {
            breakers: Breakers::new(options.pacing.clone()),
            tokens: TokenMemory::default(),
            http: Http::new(options).map_err(ClientError)?,
        })))
    }

    /// [`Credential::parse`] under this client's options.
    pub fn credential(
        &self,
        file: &CloudsFile<'_>,
        cloud: &str,
    ) -> Result<Credential, ConfigurationError> {
        Credential::parse(file, cloud, &self.0.http.options)
    }

    /// Number of login identities whose circuit is open: they were rejected too often.
    #[must_use]
    pub fn open_breakers(&self) -> usize {
        self.0.breakers.open()
    }

    /// Polls a job once: logs in if need be, then queries. A poll takes at most one re-authentication
    /// and one fresh connection; all its failures are outcomes of the observation. `endpoint` of the
    /// observation is that of the image service, `None` where the poll ended at the identity service: then
    /// `retry_after` is the identity service's, and delays logins of this credential alone. No poll waits for
    /// another one: where that has to end first, the outcome is `Deferred`.
    pub async fn query(
        &self,
        credential: &Credential,
        project_id: &ProjectId,
        job_id: &JobId,
        caller: &Caller,
    ) -> Observation {
        poll::run(&self.0, credential, project_id, job_id, caller).await
    }
}
