//! Secrets: read on the tracker's order, kept parsed with their tokens.

use crate::{
    cloud::{self, Credential, SecretName},
    observation::{Failure, FailureKind, Refusal, RefusalReason, Stage},
    telemetry::Metrics,
    tracker::{CredentialError, CredentialRef},
};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Bound on reading one Secret.
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);

/// The credentials in use.
#[derive(Default)]
pub(super) struct CredentialStore(Mutex<HashMap<Arc<CredentialRef>, Arc<Credential>>>);

impl CredentialStore {
    pub(super) fn get(&self, reference: &Arc<CredentialRef>) -> Option<Arc<Credential>> {
        self.lock().get(reference).cloned()
    }

    /// Forgets those that the tracker has forgotten.
    pub(super) fn purge(&self) {
        self.lock()
            .retain(|reference, _| Arc::strong_count(reference) > 1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<CredentialRef>, Arc<Credential>>> {
        // Nothing that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a Secret and keeps the credential in it; returns the version of its content. A credential
/// whose content is unchanged stays as it is, tokens included.
pub(super) async fn read(
    client: Client,
    store: Arc<CredentialStore>,
    metrics: Arc<Metrics>,
    allow_http: bool,
    reference: Arc<CredentialRef>,
) -> Result<u64, CredentialError> {
    let result = fetch(client, &reference).await.and_then(|secret| {
        let cloud = reference.cloud.cloud_name.as_str();
        let version = cloud::content_version(secret.data.as_ref(), cloud);
        if store
            .get(&reference)
            .is_some_and(|known| known.version() == version)
        {
            return Ok(version);
        }
        Credential::parse(&name(&reference), secret.data.as_ref(), cloud, allow_http)
            .map_err(CredentialError::Refused)
            .map(|credential| {
                store.lock().insert(reference.clone(), Arc::new(credential));
                version
            })
    });
    metrics.secret_read(match &result {
        Ok(_) => "usable",
        Err(CredentialError::Refused(refusal)) => refusal.reason.category(),
        Err(CredentialError::Failed(_)) => "failed",
    });
    // Zero is the tracker's word for "never read".
    result.map(|version| version.max(1))
}

fn name(reference: &CredentialRef) -> SecretName {
    SecretName {
        namespace: reference.namespace.to_string(),
        name: reference.cloud.secret_name.as_str().to_owned(),
    }
}

async fn fetch(client: Client, reference: &CredentialRef) -> Result<Secret, CredentialError> {
    let secrets: Api<Secret> = Api::namespaced(client, &reference.namespace);
    let name = name(reference);
    let missing = |message: String| {
        CredentialError::Refused(Refusal {
            reason: RefusalReason::CredentialsNotFound,
            message: message.into(),
        })
    };
    secrets.get(&name.name).await.map_err(|error| match &error {
        kube::Error::Api(status) if status.code == 404 => missing(format!("{name} does not exist")),
        kube::Error::Api(status) if status.code == 403 => missing(format!(
            "the operator may not read {name}: its role needs the verb get on secrets there"
        )),
        kube::Error::Api(status) => failed(
            FailureKind::Http,
            format!(
                "{name} cannot be read, the API server answered {}",
                status.code
            ),
        ),
        _ => failed(
            FailureKind::Network,
            format!("{name} cannot be read, the API server does not answer"),
        ),
    })
}

fn failed(kind: FailureKind, message: String) -> CredentialError {
    CredentialError::Failed(Failure {
        kind,
        stage: Stage::Login,
        message: message.into(),
    })
}
