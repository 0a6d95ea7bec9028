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
                .map(|credential| {
                    let ignored = credential.ignored_keys();
                    if !ignored.is_empty() {
                        tracing::debug!(secret = %place, cloud, ?ignored, "keys that are not read");
                    }
                    Arc::new(credential)
                })
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

/// Keeps the credential in a `clouds.yaml`.
#[cfg(test)]
pub(super) fn put_for_test(store: &CredentialStore, reference: &Arc<CredentialRef>, yaml: &str) {
    let file = CloudsFile {
        place: &place(reference),
        clouds_yaml: Some(yaml.as_bytes()),
        cacert: None,
    };
    let credential = super::fake::cloud().credential(&file, "otc").unwrap();
    store.put(reference.clone(), Arc::new(credential));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::fake::{Reply, always, api_server, cloud};
    use image_export_api::CloudCredentialsRef;
    use image_export_cloud::CloudOptions;
    use k8s_openapi::ByteString;
    use serde_json::json;

    const YAML: &str = "clouds: {otc: {auth_type: token, auth: {token: t}, \
                        image_endpoint_override: \"https://ims.eu-de.otc.t-systems.com\"}}";

    fn reference() -> Arc<CredentialRef> {
        Arc::new(CredentialRef {
            namespace: "ns".into(),
            cloud: CloudCredentialsRef {
                secret_name: "otc".parse().unwrap(),
                cloud_name: "otc".parse().unwrap(),
            },
        })
    }

    fn secret(keys: &[(&str, &str)]) -> Reply {
        let data = keys.iter().map(|(key, value)| {
            let value = ByteString(value.as_bytes().to_vec());
            ((*key).to_owned(), value)
        });
        let secret = Secret {
            data: Some(data.collect()),
            ..Secret::default()
        };
        Reply::json(200, &serde_json::to_value(secret).unwrap())
    }

    #[tokio::test]
    async fn a_secret_is_read_and_its_credential_kept_while_its_content_stays() {
        let other = YAML.replace("token: t", "token: u");
        let mut replies = [
            secret(&[("clouds.yaml", YAML)]),
            secret(&[("clouds.yaml", YAML), ("more", "x")]),
            secret(&[("clouds.yaml", &other)]),
            Reply::Lost,
        ]
        .into_iter();
        let (client, sent) = api_server(move |_| replies.next().unwrap());
        let (store, metrics) = (Arc::<CredentialStore>::default(), Arc::<Metrics>::default());
        let cloud = cloud();
        let read = async || {
            let reference = reference();
            let (store, metrics) = (store.clone(), metrics.clone());
            let version = read(
                client.clone(),
                store.clone(),
                metrics,
                cloud.clone(),
                reference.clone(),
            );
            let version = version.await;
            (version.ok(), store.get(&reference).unwrap())
        };
        let (first, same, changed, lost) = (read().await, read().await, read().await, read().await);
        assert!(first.0.is_some_and(|version| version > 0));
        assert_eq!(same.0, first.0);
        assert!(Arc::ptr_eq(&same.1, &first.1), "with its tokens");
        assert!(changed.0.is_some() && changed.0 != first.0);
        assert!(!Arc::ptr_eq(&changed.1, &first.1));
        assert_eq!(lost.0, None);
        assert!(
            Arc::ptr_eq(&lost.1, &changed.1),
            "a failed read changes nothing"
        );
        assert_eq!(
            sent.lock().unwrap()[0].line,
            "GET /api/v1/namespaces/ns/secrets/otc"
        );
        for line in [
            "imageexport_secret_reads_total{result=\"usable\"} 3\n",
            "imageexport_secret_reads_total{result=\"failed\"} 1\n",
        ] {
            assert!(metrics.encode().contains(line), "{line}");
        }
    }

    #[tokio::test]
    async fn the_key_cacert_holds_certificates_to_trust() {
        let (client, _) = always(secret(&[
            ("clouds.yaml", YAML),
            ("cacert", "no certificate"),
        ]));
        let result = read(client, Arc::default(), Arc::default(), cloud(), reference()).await;
        let Err(CredentialError::Misconfigured(error)) = result else {
            panic!("{result:?}");
        };
        assert!(error.message.contains("cacert"), "{}", error.message);
    }

    #[tokio::test]
    async fn a_secret_that_cannot_be_used_says_why() {
        let null = json!(null);
        for (reply, label, expected) in [
            (
                Reply::failure(404, &null),
                "credentials_not_found",
                "CredentialsNotFound: Secret ns/otc does not exist",
            ),
            (
                Reply::failure(403, &null),
                "credentials_not_found",
                "CredentialsNotFound: the operator may not read Secret ns/otc: its role needs the verb get \
                 on secrets there",
            ),
            (
                secret(&[]),
                "credentials_not_found",
                "CredentialsNotFound: Secret ns/otc has no key clouds.yaml",
            ),
            (
                Reply::failure(500, &null),
                "failed",
                "Http: Secret ns/otc cannot be read, the API server answered 500",
            ),
            (
                Reply::Lost,
                "failed",
                "Network: Secret ns/otc cannot be read, the API server does not answer",
            ),
        ] {
            let (client, _) = always(reply);
            let (store, metrics) = (Arc::<CredentialStore>::default(), Arc::<Metrics>::default());
            let result = read(client, store.clone(), metrics.clone(), cloud(), reference()).await;
            let described = match result.unwrap_err() {
                CredentialError::Misconfigured(error) => {
                    format!("{:?}: {}", error.reason, error.message)
                }
                CredentialError::Unavailable(failure) => {
                    format!("{:?}: {}", failure.kind, failure.message)
                }
            };
            assert_eq!(described, expected);
            assert!(store.get(&reference()).is_none());
            let line = format!("imageexport_secret_reads_total{{result=\"{label}\"}} 1\n");
            assert!(metrics.encode().contains(&line), "{line}");
        }
    }

    #[test]
    fn a_credential_that_is_read_again_under_a_new_key_survives_the_old_one() {
        let file = CloudsFile {
            place: &place(&reference()),
            clouds_yaml: Some(YAML.as_bytes()),
            cacert: None,
        };
        let credential =
            Arc::new(Credential::parse(&file, "otc", &CloudOptions::default()).unwrap());
        let store = CredentialStore::default();
        store.put(reference(), credential.clone());
        let held = reference();
        store.put(held.clone(), credential);
        store.purge();
        assert!(
            store.get(&held).is_some(),
            "the tracker still holds its key"
        );
        drop(held);
        store.purge();
        assert!(store.get(&reference()).is_none());
    }
}
