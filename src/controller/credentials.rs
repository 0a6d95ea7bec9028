//! Secrets: read for the tracker, parsed, and kept with their tokens.
use crate::telemetry::Metrics;
use image_export_cloud::{CloudClient, CloudsFile, Credential, Place};
use image_export_core::{CredentialError, CredentialRef};
use image_export_model::{ConfigurationError, ConfigurationReason, Failure, FailureKind, Stage};
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

    /// Keeps a credential under this very `Arc`, of which the tracker holds a clone: [`Self::purge`] would
    /// drop an equal key that the tracker does not hold.
    fn put(&self, reference: Arc<CredentialRef>, credential: Arc<Credential>) {
        let mut credentials = self.lock();
        credentials.remove(&reference);
        credentials.insert(reference, credential);
    }

    /// Drops those that the tracker has dropped.
    pub(super) fn purge(&self) {
        self.lock()
            .retain(|reference, _| Arc::strong_count(reference) > 1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<CredentialRef>, Arc<Credential>>> {
        // Nothing that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a Secret and keeps its credential; returns the version of its content. Unchanged content keeps
/// the credential, tokens included.
pub(super) async fn read(
    client: Client,
    store: Arc<CredentialStore>,
    metrics: Arc<Metrics>,
    cloud_client: CloudClient,
    reference: Arc<CredentialRef>,
) -> Result<u64, CredentialError> {
    let result = fetch(client, &reference).await.and_then(|secret| {
        let cloud = reference.cloud.cloud_name.as_str();
        let place = place(&reference);
        let value = |key: &str| Some(secret.data.as_ref()?.get(key)?.0.as_slice());
        let file = CloudsFile {
            place: &place,
            clouds_yaml: value("clouds.yaml"),
            cacert: value("cacert"),
        };
        let version = file.version(cloud);
        let credential = match store.get(&reference) {
            Some(known) if known.version() == version => known,
            _ => cloud_client
                .credential(&file, cloud)
                .map(Arc::new)
                .map_err(CredentialError::Misconfigured)?,
        };
        store.put(reference.clone(), credential);
        Ok(version)
    });
    metrics.secret_read(match &result {
        Ok(_) => "usable",
        Err(CredentialError::Misconfigured(error)) => error.reason.category(),
        Err(CredentialError::Unavailable(_)) => "failed",
    });
    // Zero means "never read" to the tracker.
    result.map(|version| version.max(1))
}

/// Names the Secret in messages.
fn place(reference: &CredentialRef) -> Place {
    Place::KeyOf(format!(
        "Secret {}/{}",
        reference.namespace, reference.cloud.secret_name
    ))
}

async fn fetch(client: Client, reference: &CredentialRef) -> Result<Secret, CredentialError> {
    let secrets: Api<Secret> = Api::namespaced(client, &reference.namespace);
    let name = place(reference);
    let missing = |message: String| {
        CredentialError::Misconfigured(ConfigurationError {
            reason: ConfigurationReason::CredentialsNotFound,
            message: message.into(),
        })
    };
    secrets
        .get(reference.cloud.secret_name.as_str())
        .await
        .map_err(|error| match &error {
            kube::Error::Api(status) if status.code == 404 => {
                missing(format!("{name} does not exist"))
            }
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
    CredentialError::Unavailable(Failure {
        kind,
        stage: Stage::Login,
        message: message.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use image_export_api::CloudCredentialsRef;
    use image_export_cloud::CloudOptions;
    use image_export_core::CredentialRef;

    #[test]
    fn a_credential_that_is_read_again_under_a_new_key_survives_the_old_one() {
        let key = || {
            Arc::new(CredentialRef {
                namespace: "ns".into(),
                cloud: CloudCredentialsRef {
                    secret_name: "otc".parse().unwrap(),
                    cloud_name: "otc".parse().unwrap(),
                },
            })
        };
        let yaml = "clouds: {otc: {auth_type: token, auth: {token: t}, \
                    image_endpoint_override: \"https://ims.eu-de.otc.t-systems.com\"}}";
        let file = CloudsFile {
            place: &place(&key()),
            clouds_yaml: Some(yaml.as_bytes()),
            cacert: None,
        };
        let credential =
            Arc::new(Credential::parse(&file, "otc", &CloudOptions::default()).unwrap());
        let store = CredentialStore::default();
        store.put(key(), credential.clone());
        let held = key();
        store.put(held.clone(), credential);
        store.purge();
        assert!(
            store.get(&held).is_some(),
            "the tracker still holds its key"
        );
        drop(held);
        store.purge();
        assert!(store.get(&key()).is_none());
    }
}
