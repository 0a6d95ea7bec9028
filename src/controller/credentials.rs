//! Secrets: read for the tracker, parsed, and kept with their tokens, within a budget of memory.

use super::body;
use crate::telemetry::Metrics;
use image_export_cloud::{CloudClient, CloudsFile, Credential, Place};
use image_export_core::{CredentialError, CredentialRef};
use image_export_model::{ConfigurationError, ConfigurationReason, Failure, FailureKind, Stage};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Client, Resource, api::GetParams, client::Body, core::Request};
use serde::Deserialize;
use std::{
    collections::HashMap,
    panic::resume_unwind,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Bound on reading one Secret.
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);

/// Most bytes of a Secret in JSON: its data has at most 1 MiB, which base64 makes 1.4 MiB.
const MAX_BYTES: usize = 2 << 20;
/// Bytes of credentials that one namespace may have.
const OF_NAMESPACE: usize = 4 << 20;
/// Where all have more than this, a namespace may have an equal share of it.
const OF_ALL: usize = 16 << 20;

/// The credentials in use.
///
/// Each is that of the very `Arc` by which the tracker refers to it, and not of an equal one: of an object that was
/// created anew the read for the former one may still be under way, and it replaces nothing.
#[derive(Default)]
pub(super) struct CredentialStore(Mutex<Credentials>);

#[derive(Default)]
struct Credentials {
    namespaces: HashMap<Arc<str>, OfNamespace>,
    bytes: usize,
}

#[derive(Default)]
struct OfNamespace {
    /// By the address of the reference.
    credentials: HashMap<usize, (Arc<CredentialRef>, Arc<Credential>)>,
    bytes: usize,
}

impl CredentialStore {
    pub(super) fn get(&self, reference: &Arc<CredentialRef>) -> Option<Arc<Credential>> {
        let credentials = self.lock();
        let own = credentials.namespaces.get(&reference.namespace)?;
        let (_, credential) = own.credentials.get(&address(reference))?;
        Some(credential.clone())
    }

    /// One of that content, if it has been read before, for this reference or an equal one.
    fn known(&self, reference: &CredentialRef, version: u64) -> Option<Arc<Credential>> {
        let credentials = self.lock();
        let own = credentials.namespaces.get(&reference.namespace)?;
        let mut all = own.credentials.values();
        let known = all
            .find(|(of, credential)| credential.version() == version && of.as_ref() == reference);
        known.map(|(_, credential)| credential.clone())
    }

    /// Keeps a credential, unless its namespace has too many; then it is dropped.
    fn put(
        &self,
        reference: Arc<CredentialRef>,
        credential: Arc<Credential>,
    ) -> Result<(), ConfigurationError> {
        let mut credentials = self.lock();
        credentials.remove(&reference);
        let bytes = credential.bytes();
        if !credentials.has_room(&reference.namespace, bytes) {
            credentials.purge();
        }
        if credentials.has_room(&reference.namespace, bytes) {
            credentials.insert(reference, credential, bytes);
            return Ok(());
        }
        let message = format!(
            "the entries of clouds.yaml that objects of namespace {} \
             use take more memory than the namespace may have; use fewer, or shorten them",
            reference.namespace
        );
        Err(ConfigurationError {
            reason: ConfigurationReason::CredentialsInvalid,
            message: message.into(),
        })
    }

    /// Drops those that the tracker has dropped.
    pub(super) fn purge(&self) {
        self.lock().purge();
    }

    fn lock(&self) -> MutexGuard<'_, Credentials> {
        // Nothing that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Credentials {
    /// Whether a namespace may have so many more bytes of credentials. Each is asked again whenever its Secret is
    /// read again: so those above their share make room for others within 5 min.
    fn has_room(&self, namespace: &str, more: usize) -> bool {
        let own = self.namespaces.get(namespace);
        let namespaces = self.namespaces.len() + usize::from(own.is_none());
        let share = if self.bytes + more > OF_ALL {
            OF_ALL / namespaces
        } else {
            OF_NAMESPACE
        };
        own.map_or(0, |own| own.bytes) + more <= share.min(OF_NAMESPACE)
    }

    fn insert(&mut self, reference: Arc<CredentialRef>, credential: Arc<Credential>, bytes: usize) {
        let namespace = reference.namespace.clone();
        let own = self.namespaces.entry(namespace).or_default();
        let address = address(&reference);
        own.credentials.insert(address, (reference, credential));
        own.bytes += bytes;
        self.bytes += bytes;
    }

    fn remove(&mut self, reference: &Arc<CredentialRef>) {
        let Some(own) = self.namespaces.get_mut(&reference.namespace) else {
            return;
        };
        if let Some((_, credential)) = own.credentials.remove(&address(reference)) {
            own.bytes -= credential.bytes();
            self.bytes -= credential.bytes();
        }
        if own.credentials.is_empty() {
            self.namespaces.remove(&reference.namespace);
        }
    }

    fn purge(&mut self) {
        self.namespaces.retain(|_, own| {
            own.credentials.retain(|_, (reference, credential)| {
                let is_used = Arc::strong_count(reference) > 1;
                if !is_used {
                    own.bytes -= credential.bytes();
                    self.bytes -= credential.bytes();
                }
                is_used
            });
            !own.credentials.is_empty()
        });
    }
}

/// Whose it is while the reference is kept beside it.
fn address(reference: &Arc<CredentialRef>) -> usize {
    Arc::as_ptr(reference).addr()
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
    let result = match fetch(client, &reference).await {
        Ok(keys) => {
            // Whoever writes the Secret decides how long it takes to parse.
            let keep = move || keep(&store, &cloud_client, reference, &keys);
            let kept = tokio::task::spawn_blocking(keep).await;
            kept.unwrap_or_else(|error| resume_unwind(error.into_panic()))
        }
        Err(error) => Err(error),
    };
    metrics.secret_read(match &result {
        Ok(_) => "usable",
        Err(CredentialError::Misconfigured(error)) => error.reason.category(),
        Err(CredentialError::Unavailable(_)) => "failed",
    });
    // Zero means "never read" to the tracker.
    result.map(|version| version.max(1))
}

/// Keeps the credential in what was read; returns the version of its content.
fn keep(
    store: &CredentialStore,
    cloud_client: &CloudClient,
    reference: Arc<CredentialRef>,
    keys: &Keys,
) -> Result<u64, CredentialError> {
    let cloud = reference.cloud.cloud_name.as_str();
    let place = place(&reference);
    let file = CloudsFile {
        place: &place,
        clouds_yaml: keys.clouds_yaml.as_ref().map(|value| value.0.as_slice()),
        cacert: keys.cacert.as_ref().map(|value| value.0.as_slice()),
    };
    let version = file.version(cloud);
    let credential = if let Some(known) = store.known(&reference, version) {
        known
    } else {
        let credential = cloud_client.credential(&file, cloud);
        let credential = credential.map_err(CredentialError::Misconfigured)?;
        let ignored = credential.ignored_keys();
        if !ignored.is_empty() {
            tracing::debug!(secret = %place, cloud, ?ignored, "keys that are not read");
        }
        Arc::new(credential)
    };
    let kept = store.put(reference, credential);
    kept.map_err(CredentialError::Misconfigured)?;
    Ok(version)
}

/// Names the Secret in messages.
fn place(reference: &CredentialRef) -> Place {
    Place::KeyOf(format!(
        "Secret {}/{}",
        reference.namespace, reference.cloud.secret_name
    ))
}

/// What is read of a Secret. Its other keys are skipped.
#[derive(Deserialize)]
struct Data {
    #[serde(rename = "kind")]
    _kind: Kind,
    #[serde(default)]
    data: Option<Keys>,
}

/// Anything else is the answer of something in front of the API server, and shows nothing about the Secret.
#[derive(Deserialize)]
enum Kind {
    Secret,
}

#[derive(Default, Deserialize)]
struct Keys {
    #[serde(rename = "clouds.yaml")]
    clouds_yaml: Option<ByteString>,
    cacert: Option<ByteString>,
}

async fn fetch(client: Client, reference: &CredentialRef) -> Result<Keys, CredentialError> {
    let name = place(reference);
    let missing = |message: String| {
        CredentialError::Misconfigured(ConfigurationError {
            reason: ConfigurationReason::CredentialsNotFound,
            message: message.into(),
        })
    };
    match get(client, reference).await {
        Ok(Ok(keys)) => Ok(keys),
        Ok(Err(404)) => Err(missing(format!("{name} does not exist"))),
        Ok(Err(403)) => Err(missing(format!(
            "the operator may not read {name}: its role needs the verb get on secrets there"
        ))),
        Ok(Err(code)) => Err(failed(
            FailureKind::Http,
            format!("{name} cannot be read, the API server answered {code}"),
        )),
        Err(_) => Err(failed(
            FailureKind::Network,
            format!("{name} cannot be read, the API server does not answer"),
        )),
    }
}

/// The keys of a Secret, or the status of the answer. Not by `Client::request`, which copies what it reads, and logs
/// what it cannot decode.
async fn get(client: Client, reference: &CredentialRef) -> kube::Result<Result<Keys, u16>> {
    let secrets = Request::new(Secret::url_path(&(), Some(&reference.namespace)));
    let name = reference.cloud.secret_name.as_str();
    let request = secrets
        .get(name, &GetParams::default())
        .map_err(kube::Error::BuildRequest)?;
    let answer = client.send(request.map(Body::from)).await?;
    let code = answer.status().as_u16();
    if code != 200 {
        return Ok(Err(code));
    }
    let Some(secret) = body::collect(answer.into_body(), MAX_BYTES).await? else {
        return Ok(Err(code));
    };
    let secret: Data = serde_json::from_slice(&secret).map_err(kube::Error::SerdeError)?;
    Ok(Ok(secret.data.unwrap_or_default()))
}

fn failed(kind: FailureKind, message: String) -> CredentialError {
    CredentialError::Unavailable(Failure {
        kind,
        stage: Stage::Login,
        message: message.into(),
    })
}

/// A credential in logs: where it is, never its content.
pub(super) fn name(reference: &CredentialRef) -> String {
    let (secret, cloud) = (&reference.cloud.secret_name, &reference.cloud.cloud_name);
    format!(
        "{}/{}/{}",
        reference.namespace,
        secret.as_str(),
        cloud.as_str()
    )
}

#[cfg(test)]
pub(super) fn put_for_test(store: &CredentialStore, reference: &Arc<CredentialRef>, yaml: &str) {
    let file = CloudsFile {
        place: &place(reference),
        clouds_yaml: Some(yaml.as_bytes()),
        cacert: None,
    };
    let credential = super::fake::cloud().credential(&file, "otc").unwrap();
    store.put(reference.clone(), Arc::new(credential)).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::fake::{Reply, always, api_server, cloud};
    use image_export_api::CloudCredentialsRef;
    use image_export_cloud::CloudOptions;
    use serde_json::json;

    const YAML: &str = "clouds: {otc: {auth_type: token, auth: {token: t}, \
                        image_endpoint_override: \"https://ims.eu-de.otc.t-systems.com\"}}";

    fn reference() -> Arc<CredentialRef> {
        reference_in("ns", "otc")
    }

    fn reference_in(namespace: &str, secret: &str) -> Arc<CredentialRef> {
        Arc::new(CredentialRef {
            namespace: namespace.into(),
            cloud: CloudCredentialsRef {
                secret_name: secret.parse().unwrap(),
                cloud_name: "otc".parse().unwrap(),
            },
        })
    }

    fn credential() -> Arc<Credential> {
        let file = CloudsFile {
            place: &place(&reference()),
            clouds_yaml: Some(YAML.as_bytes()),
            cacert: None,
        };
        Arc::new(Credential::parse(&file, "otc", &CloudOptions::default()).unwrap())
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
        let (cloud, reference) = (cloud(), reference());
        let read = async || {
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
    fn a_read_for_a_former_object_that_answers_late_does_not_replace_what_was_read_since() {
        let store = CredentialStore::default();
        let (former, present) = (reference(), reference());
        let (late, recent) = (credential(), credential());
        store.put(present.clone(), recent.clone()).unwrap();
        store.put(former.clone(), late).unwrap();
        drop(former);
        let kept = |reference| store.get(reference).unwrap();
        assert!(Arc::ptr_eq(&kept(&present), &recent));
        store.purge();
        assert!(Arc::ptr_eq(&kept(&present), &recent));
        assert!(store.get(&reference()).is_none());
        drop(present);
        store.purge();
        let empty = store.lock();
        assert_eq!((empty.namespaces.len(), empty.bytes), (0, 0));
    }

    #[test]
    fn an_equal_reference_finds_what_was_read_before() {
        let store = CredentialStore::default();
        let (former, credential) = (reference(), credential());
        store.put(former, credential.clone()).unwrap();
        let version = credential.version();
        let known = store.known(&reference(), version).unwrap();
        assert!(Arc::ptr_eq(&known, &credential));
        assert!(store.known(&reference(), version + 1).is_none());
        assert!(store.known(&reference_in("ns", "other"), version).is_none());
        assert!(
            store
                .known(&reference_in("other", "otc"), version)
                .is_none()
        );
    }

    fn references(namespace: &str, count: usize) -> Vec<Arc<CredentialRef>> {
        let reference = |number| reference_in(namespace, &format!("s-{number}"));
        (0..count).map(reference).collect()
    }

    /// How many credentials are kept of those that are read.
    fn kept(store: &CredentialStore, read: &[Arc<CredentialRef>]) -> usize {
        let credential = credential();
        let kept = read.iter().filter(|reference| {
            let result = store.put(Arc::clone(reference), credential.clone());
            assert_eq!(result.is_ok(), store.get(reference).is_some());
            if let Err(error) = &result {
                assert_eq!(error.reason, ConfigurationReason::CredentialsInvalid);
                let namespace = format!("namespace {} ", reference.namespace);
                assert!(error.message.contains(&namespace), "{}", error.message);
            }
            result.is_ok()
        });
        kept.count()
    }

    #[test]
    fn a_namespace_keeps_credentials_within_its_budget_and_others_within_theirs() {
        let store = CredentialStore::default();
        let each = credential().bytes();
        let most = OF_NAMESPACE / each;
        let mut greedy = references("greedy", most + 100);
        assert_eq!(kept(&store, &greedy), most);
        let other = references("other", 5);
        assert_eq!(kept(&store, &other), 5);
        // Those that are kept stay so when they are read again.
        assert_eq!(kept(&store, &greedy[..most]), most);
        // What the tracker drops makes room.
        greedy.drain(..100);
        assert_eq!(kept(&store, &greedy), most);
    }

    #[test]
    fn where_all_have_too_many_a_namespace_has_an_equal_share() {
        let store = CredentialStore::default();
        let each = credential().bytes();
        let (most, full) = (OF_NAMESPACE / each, OF_ALL / OF_NAMESPACE);
        let greedy = |number| references(&format!("greedy-{number}"), most);
        let greedy: Vec<_> = (0..full).map(greedy).collect();
        for references in &greedy {
            assert_eq!(kept(&store, references), most);
        }
        let share = OF_ALL / (full + 1) / each;
        let late = references("late", share + 10);
        assert_eq!(kept(&store, &late), share);
        // The next reads of the others make room.
        assert!(kept(&store, &greedy[0]) < most);
        assert_eq!(kept(&store, &late[..share]), share);
    }
}
