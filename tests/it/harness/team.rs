//! A namespace with everything that a test needs.

use super::{Launch, Operator, PATIENCE, PROJECT, TOKEN, client, cluster, condition, eventually};
use futures::StreamExt;
use image_export_api::{
    ImageExportJob, ImageExportJobStatus, POLL_REQUEST_ANNOTATION, conditions::reasons::PENDING,
};
use k8s_openapi::{
    ByteString,
    api::{core::v1::Secret, events::v1::Event},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
    core::DeserializeGuard,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use testbed::{
    ims::{self, Job, JobKey, Simulator},
    kubernetes::{Cluster, Kubectl, Output},
};
use tokio::task::JoinHandle;

/// One namespace with its simulator, its Secret and its operator.
pub struct Team {
    pub namespace: String,
    pub sim: Simulator,
    pub client: Client,
    pub jobs: Api<ImageExportJob>,
    pub operator: Option<Operator>,
    seen: Arc<Mutex<Vec<ImageExportJob>>>,
    cluster: &'static Cluster,
}

impl Team {
    /// A namespace with a Secret `otc` (cloud `otc`, a token) and an operator that polls every 10 s
    /// by its own scaled time, 200 ms by the clock.
    pub async fn start(name: &str) -> Self {
        let mut team = Self::without_operator(name).await;
        team.start_operator();
        team
    }

    /// The same for tests in which a grace has to pass.
    pub async fn start_for_graces(name: &str) -> Self {
        let mut team = Self::without_operator(name).await;
        team.start_operator_as(Launch::for_graces(), &[]);
        team
    }

    /// The same, where the operator is started later.
    pub async fn without_operator(name: &str) -> Self {
        Self::without_operator_on(cluster(), name).await
    }

    /// The same with another configuration of the cloud.
    pub async fn with_cloud(name: &str, cloud: ims::Config) -> Self {
        Self::set_up(cluster(), name, cloud).await
    }

    /// The same on another API server than the shared one.
    pub async fn without_operator_on(cluster: &'static Cluster, name: &str) -> Self {
        Self::set_up(cluster, name, ims::Config::default()).await
    }

    async fn set_up(cluster: &'static Cluster, name: &str, cloud: ims::Config) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let namespace = format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        cluster
            .kubectl(["create", "namespace", &namespace])
            .success()
            .expect("a namespace");
        let client = client(cluster).await;
        let sim = Simulator::start(cloud).expect("a simulator");
        sim.add_token(TOKEN, Some(PROJECT));
        let jobs: Api<ImageExportJob> = Api::namespaced(client.clone(), &namespace);
        let seen = record(Api::namespaced(client.clone(), &namespace));
        let team = Self {
            namespace,
            sim,
            client,
            jobs,
            operator: None,
            seen,
            cluster,
        };
        team.put_secret("otc", &team.clouds_yaml());
        team
    }

    /// Starts (or starts again) the operator for this namespace.
    pub fn start_operator(&mut self) {
        self.start_operator_with(&[]);
    }

    /// The same with further arguments.
    pub fn start_operator_with(&mut self, arguments: &[&str]) {
        self.start_operator_as(Launch::default(), arguments);
    }

    /// The same with options of the process.
    pub fn start_operator_as(&mut self, launch: Launch<'_>, arguments: &[&str]) {
        let mut all = vec!["--namespace", &self.namespace, "--poll-period", "10"];
        all.extend(arguments);
        self.operator = Some(Operator::start_as(self.cluster, launch, &all));
    }

    pub fn operator(&self) -> &Operator {
        self.operator.as_ref().expect("an operator")
    }

    pub fn kubectl(&self, arguments: &[&str]) -> Kubectl {
        self.cluster
            .kubectl(["--namespace", &self.namespace])
            .args(arguments)
    }

    /// Starts `kubectl wait iej/NAME …`; `harness::assert_met` waits for its success.
    pub fn kubectl_wait(&self, name: &str, arguments: &[&str]) -> JoinHandle<Output> {
        let kubectl = self
            .kubectl(&["wait", &format!("iej/{name}")])
            .args(arguments);
        tokio::task::spawn_blocking(move || kubectl.run().expect("kubectl runs"))
    }

    /// A clouds.yaml for the simulator, with a token.
    pub fn clouds_yaml(&self) -> String {
        format!(
            "clouds:\n  otc:\n    auth_type: token\n    auth: {{token: {TOKEN}}}\n    image_endpoint_override: {}\n",
            self.sim.url()
        )
    }

    /// Creates or replaces a Secret with this clouds.yaml.
    pub fn put_secret(&self, name: &str, clouds_yaml: &str) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": name }, "stringData": { "clouds.yaml": clouds_yaml },
        });
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"])
            .stdin(secret.to_string())
            .success()
            .expect("a Secret");
    }

    /// Creates or replaces a Secret that has this one key.
    pub async fn put_secret_key(&self, name: &str, key: &str, value: impl Into<Vec<u8>>) {
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(key.to_owned(), ByteString(value.into()))])),
            ..Secret::default()
        };
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        secrets
            .patch(
                name,
                &PatchParams::apply("a-user").force(),
                &Patch::Apply(&secret),
            )
            .await
            .expect("a Secret");
    }

    pub fn delete_secret(&self, name: &str) {
        self.kubectl(&["delete", "secret", name])
            .success()
            .expect("deleted");
    }

    /// An object `name` for the job of that id, with changes to its spec.
    pub async fn create_with(&self, name: &str, spec: Value) -> ImageExportJob {
        let mut object = json!({
            "apiVersion": "imageexport.dev/v1alpha1", "kind": "ImageExportJob",
            "metadata": { "name": name },
            "spec": {
                "projectID": PROJECT, "jobID": name,
                "cloudCredentialsRef": { "secretName": "otc", "cloudName": "otc" },
            },
        });
        if let (Some(into), Value::Object(from)) = (object["spec"].as_object_mut(), spec) {
            into.extend(from);
        }
        let object = serde_json::from_value(object).expect("an object");
        self.jobs
            .create(&PostParams::default(), &object)
            .await
            .expect("it is accepted")
    }

    /// An object for the job of the same name.
    pub async fn create(&self, name: &str) -> ImageExportJob {
        self.create_with(name, json!({})).await
    }

    /// Gives the simulator a job and creates the object for it.
    pub async fn follow(&self, job: Job) -> String {
        let name = job.key().job;
        self.sim.put_job(job);
        self.create(&name).await;
        name
    }

    pub async fn delete(&self, name: &str) {
        self.jobs
            .delete(name, &DeleteParams::default())
            .await
            .expect("deleted");
    }

    /// A merge patch of the object.
    pub async fn patch(&self, name: &str, patch: Value) {
        self.jobs
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .expect("patched");
    }

    /// A merge patch of the status, as a hand edit.
    pub async fn patch_status(&self, name: &str, patch: Value) {
        self.jobs
            .patch_status(
                name,
                &PatchParams::default(),
                &Patch::Merge(json!({ "status": patch })),
            )
            .await
            .expect("patched");
    }

    pub fn polls(&self, job: &str) -> u64 {
        self.sim.polls(&JobKey::new(PROJECT, job))
    }

    /// Requests a poll at once, as a user would.
    pub async fn request_poll(&self, name: &str, value: &str) {
        let annotations = json!({ POLL_REQUEST_ANNOTATION: value });
        self.patch(name, json!({ "metadata": { "annotations": annotations } }))
            .await;
    }

    /// The events about the object, oldest first: `Warning InvalidObject: the note`.
    pub async fn events(&self, name: &str) -> Vec<String> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let events = events.list(&ListParams::default()).await.expect("events");
        let mut events: Vec<_> = events
            .into_iter()
            .filter(|event| {
                let regarding = event.regarding.as_ref();
                regarding.and_then(|object| object.name.as_deref()) == Some(name)
            })
            .collect();
        events.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
        events
            .into_iter()
            .map(|event| {
                format!(
                    "{} {}: {}",
                    event.type_.unwrap_or_default(),
                    event.reason.unwrap_or_default(),
                    event.note.unwrap_or_default()
                )
            })
            .collect()
    }

    /// Waits for an event about the object that begins with this; returns all of them.
    pub async fn until_event(&self, name: &str, beginning: &str) -> Vec<String> {
        let started = Instant::now();
        loop {
            let events = self.events(name).await;
            if events.iter().any(|event| event.starts_with(beginning)) {
                return events;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "timed out: {name} to have an event {beginning}; it has {events:#?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the object, as the watch shows it, fits; returns it.
    pub async fn until(
        &self,
        name: &str,
        what: &str,
        fits: impl Fn(&ImageExportJobStatus) -> bool,
    ) -> ImageExportJobStatus {
        let started = Instant::now();
        loop {
            let last = self
                .versions(name)
                .pop()
                .and_then(|object| object.status)
                .unwrap_or_default();
            if fits(&last) {
                return last;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "timed out: {name} {what}; it is\n{}\nthe operator's log\n{}",
                serde_json::to_string_pretty(&last).unwrap_or_default(),
                self.operator
                    .as_ref()
                    .map(Operator::last_words)
                    .unwrap_or_default(),
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until `Ready` gives this reason.
    pub async fn until_reason(&self, name: &str, reason: &str) -> ImageExportJobStatus {
        self.until(name, &format!("to be {reason}"), |status| {
            condition(status, "Ready").is_some_and(|ready| ready.reason == reason)
        })
        .await
    }

    /// The first status with this reason of `Ready`, once it was shown. A later one may have followed.
    pub async fn first_with_reason(&self, name: &str, reason: &str) -> ImageExportJobStatus {
        eventually(&format!("{name} to have been {reason}"), || {
            self.versions(name)
                .into_iter()
                .filter_map(|object| object.status)
                .find(|status| {
                    condition(status, "Ready").is_some_and(|ready| ready.reason == reason)
                })
        })
        .await
    }

    /// All versions of the object that the watch has shown so far.
    pub fn versions(&self, name: &str) -> Vec<ImageExportJob> {
        let seen = self.seen.lock().expect("no panic under the lock");
        seen.iter()
            .filter(|object| object.metadata.name.as_deref() == Some(name))
            .cloned()
            .collect()
    }

    /// The distinct reasons of `Ready` in the order in which they were shown.
    pub fn reasons(&self, name: &str) -> Vec<String> {
        let mut reasons: Vec<String> = self
            .versions(name)
            .iter()
            .filter_map(|object| Some(condition(object.status.as_ref()?, "Ready")?.reason.clone()))
            .collect();
        reasons.dedup();
        reasons
    }

    /// [`Self::reasons`] without `Pending`: that comes after 10 s without an answer by the operator's
    /// time, which is a fifth of a second here, and not every machine always answers within it.
    pub fn course(&self, name: &str) -> Vec<String> {
        let mut reasons = self.reasons(name);
        reasons.retain(|reason| reason != PENDING);
        reasons.dedup();
        reasons
    }

    /// The operator recovered from `reason`: `JobRunning` follows it, in one further write.
    pub fn assert_recovered(&self, name: &str, reason: &str) {
        assert_eq!(self.course(name), [reason, "JobRunning"], "{name}");
        assert_eq!(self.writes(name), 2, "{name}");
    }

    /// How many different statuses were shown; the CRD's default is not counted, nor is `Pending`.
    pub fn writes(&self, name: &str) -> usize {
        let mut statuses: Vec<ImageExportJobStatus> = self
            .versions(name)
            .into_iter()
            .filter_map(|object| object.status)
            .filter(|status| {
                condition(status, "Ready").is_some_and(|ready| ready.reason != PENDING)
            })
            .collect();
        statuses.dedup();
        statuses.len()
    }
}

/// Collects every version that the watch shows.
fn record(jobs: Api<DeserializeGuard<ImageExportJob>>) -> Arc<Mutex<Vec<ImageExportJob>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let into = seen.clone();
    tokio::spawn(async move {
        let mut objects = watcher(jobs, watcher::Config::default())
            .default_backoff()
            .touched_objects()
            .boxed();
        // An error is an outage of the API server or an object that does not decode: some tests
        // cause them.
        while let Some(result) = objects.next().await {
            if let Ok(DeserializeGuard(Ok(object))) = result {
                into.lock().expect("no panic under the lock").push(object);
            }
        }
    });
    seen
}
