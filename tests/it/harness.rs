//! What each test starts from: a [`Team`].

use futures::StreamExt;
use image_export_operator::api::{
    ImageExportJob, ImageExportJobStatus, POLL_REQUEST_ANNOTATION,
    conditions::{Condition, reasons::PENDING},
};
use k8s_openapi::api::events::v1::Event;
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::DeserializeGuard,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, Once, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use testbed::{
    ims::{self, Job, JobKey, Simulator},
    kubernetes::{Cluster, Kubectl},
    process::{Output, Supervised, last_lines},
};

/// Every time of the operator is multiplied by this: 5 minutes become 6 seconds.
pub const SCALE: f64 = 0.02;
/// Longest wait for something that should happen.
pub const PATIENCE: Duration = Duration::from_secs(45);

pub const PROJECT: &str = "ac234de25c6741d2b1273da49eea1b9e";
pub const TOKEN: &str = "canary-token-5d1f8c";
pub const OPERATOR_NAMESPACE: &str = "image-export-operator";

/// The API server that all tests share, with `deploy/` applied.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let cluster = Cluster::start().expect("a cluster");
        install(&cluster);
        cluster
    })
}

/// Applies `deploy/` as a user would.
pub fn install(cluster: &Cluster) {
    let deploy = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy");
    let output = cluster
        .kubectl(["apply", "--server-side", "-k", deploy])
        .run()
        .expect("kubectl runs");
    assert!(output.status.success(), "{}", output.stderr);
    assert_eq!(output.stderr, "", "kubectl has nothing to warn about");
    cluster
        .kubectl([
            "wait",
            "--for=condition=Established",
            "crd/imageexportjobs.imageexport.dev",
        ])
        .success()
        .expect("the CRD is established");
}

/// A client with the administrator's rights.
pub async fn client(cluster: &Cluster) -> Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        rustls::crypto::ring::default_provider()
            .install_default()
            .expect("the first provider");
    });
    let kubeconfig = Kubeconfig::read_from(cluster.admin_kubeconfig()).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("a usable kubeconfig");
    Client::try_from(config).expect("a client")
}

/// A folder for logs, one per test process.
fn logs() -> &'static Path {
    static LOGS: OnceLock<PathBuf> = OnceLock::new();
    LOGS.get_or_init(|| {
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("logs-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for logs");
        folder
    })
}

/// How an operator is started.
#[derive(Clone, Copy)]
pub struct Launch<'a> {
    /// With `--allow-http`, without which no simulator can be reached.
    pub allow_http: bool,
    pub log_level: &'a str,
    /// What its times are multiplied by.
    pub scale: f64,
}

impl Default for Launch<'_> {
    fn default() -> Self {
        Self {
            allow_http: true,
            log_level: "info,image_export_operator=debug",
            scale: SCALE,
        }
    }
}

/// A running operator.
pub struct Operator {
    process: Supervised,
    log: PathBuf,
}

impl Operator {
    /// Starts the real binary under its own `ServiceAccount`.
    pub fn start(cluster: &Cluster, arguments: &[&str]) -> Self {
        Self::start_as(cluster, Launch::default(), arguments)
    }

    /// The same, started otherwise.
    pub fn start_as(cluster: &Cluster, launch: Launch<'_>, arguments: &[&str]) -> Self {
        let kubeconfig = cluster
            .kubeconfig_for_service_account(OPERATOR_NAMESPACE, "image-export-operator")
            .expect("a token for the operator");
        Self::launch(&kubeconfig, launch, arguments)
    }

    /// Starts the real binary with a given kubeconfig.
    pub fn start_with(kubeconfig: &Path, arguments: &[&str]) -> Self {
        Self::launch(kubeconfig, Launch::default(), arguments)
    }

    /// The same, started otherwise.
    pub fn launch(kubeconfig: &Path, launch: Launch<'_>, arguments: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let log = logs().join(format!(
            "operator-{}.log",
            COUNT.fetch_add(1, Ordering::Relaxed)
        ));
        let mut command = Command::new(env!("CARGO_BIN_EXE_image-export-operator"));
        command
            .arg("run")
            .args(["--http-listen", "127.0.0.1:0", "--log-format", "json"])
            .args(["--log-level", launch.log_level])
            .args(launch.allow_http.then_some("--allow-http"))
            .args(arguments)
            .env("KUBECONFIG", kubeconfig)
            .env("IMAGE_EXPORT_TIME_SCALE", launch.scale.to_string());
        let process =
            Supervised::spawn(&command, Output::Merged(log.clone())).expect("the operator starts");
        Self { process, log }
    }

    /// As `kill -9`.
    pub fn kill(&self) {
        self.process.kill();
        self.process.wait(PATIENCE).expect("a killed process ends");
    }

    /// Stops it in its tracks, as a starved or suspended machine would, until [`Self::resume`].
    pub fn pause(&self) {
        self.signal("STOP");
    }

    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.process.pid().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success(), "kill -s {name}");
    }

    /// SIGTERM, without waiting for the end.
    pub fn stop(&self) {
        self.process.terminate();
    }

    /// SIGTERM; returns the exit code.
    pub fn terminate(&self) -> i32 {
        self.process.terminate();
        self.process
            .wait(PATIENCE)
            .expect("the operator ends on SIGTERM")
    }

    /// Exit code of an operator that ends by itself.
    pub fn ended(&self) -> i32 {
        self.process
            .wait(PATIENCE)
            .expect("the operator ends by itself")
    }

    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `http://127.0.0.1:PORT` of its probes.
    pub async fn url(&self) -> String {
        let line = eventually("the address of the probes", || {
            self.log()
                .lines()
                .find(|line| line.contains("serving /healthz"))
                .map(str::to_owned)
        })
        .await;
        let line: Value = serde_json::from_str(&line).expect("a JSON line");
        format!("http://{}", line["address"].as_str().expect("an address"))
    }

    /// A GET of one of its probes: status and body.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let url = format!("{}{path}", self.url().await);
        let response = reqwest::get(url).await.expect("an answer");
        (
            response.status().as_u16(),
            response.text().await.expect("a body"),
        )
    }

    /// Value of a metric, 0 where it has none yet.
    pub async fn metric(&self, series: &str) -> f64 {
        let (_, text) = self.get("/metrics").await;
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or(0.0)
    }

    /// Waits until a metric has at least this value; returns it.
    pub async fn until_metric(&self, series: &str, least: f64) -> f64 {
        let started = Instant::now();
        loop {
            let value = self.metric(series).await;
            if value >= least {
                return value;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "in vain: {series} is {value}, not {least}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Waits until `look` finds something.
pub async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

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
    /// of its own time, 200 ms by the clock.
    pub async fn start(name: &str) -> Self {
        let mut team = Self::without_operator(name).await;
        team.start_operator();
        team
    }

    /// The same, where the operator is started later.
    pub async fn without_operator(name: &str) -> Self {
        Self::without_operator_on(cluster(), name).await
    }

    /// The same on another API server than the shared one.
    pub async fn without_operator_on(cluster: &'static Cluster, name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let namespace = format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        cluster
            .kubectl(["create", "namespace", &namespace])
            .success()
            .expect("a namespace");
        let client = client(cluster).await;
        let sim = Simulator::start(ims::Config::default()).expect("a simulator");
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

    /// The same, started otherwise.
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

    /// Asks for a poll at once, as a user would.
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
                "in vain: {name} to have an event {beginning}; it has {events:#?}"
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
                "in vain: {name} {what}; it is\n{}\nthe operator says\n{}",
                serde_json::to_string_pretty(&last).unwrap_or_default(),
                self.operator
                    .as_ref()
                    .map(|operator| last_lines(&operator.log, 25))
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

    /// [`Self::reasons`] without `Pending`: it comes after 10 s without an answer by the operator's
    /// time, which is a fifth of a second here, and not every machine is that quick every time.
    pub fn course(&self, name: &str) -> Vec<String> {
        let mut reasons = self.reasons(name);
        reasons.retain(|reason| reason != PENDING);
        reasons.dedup();
        reasons
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

pub fn condition<'s>(status: &'s ImageExportJobStatus, type_: &str) -> Option<&'s Condition> {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_)
}

/// The sentence that `Ready` says; empty where there is none yet.
pub fn message(status: &ImageExportJobStatus) -> &str {
    condition(status, "Ready").map_or("", |ready| &ready.message)
}

/// How the simulator knows the job.
pub fn key(job: &str) -> JobKey {
    JobKey::new(PROJECT, job)
}

/// `Ready=True/JobSucceeded` in one line, for comparison.
pub fn summary(status: &ImageExportJobStatus) -> Vec<String> {
    let mut lines: Vec<String> = status
        .conditions
        .iter()
        .map(|condition| {
            format!(
                "{}={}/{}",
                condition.type_, condition.status, condition.reason
            )
        })
        .collect();
    lines.sort();
    lines
}

/// The summary of a row in which work goes on: `Ready=Unknown`, `Reconciling`.
pub fn in_progress(reason: &str) -> Vec<String> {
    vec![
        format!("Ready=Unknown/{reason}"),
        format!("Reconciling=True/{reason}"),
        format!("Succeeded=Unknown/{reason}"),
    ]
}

fn record(jobs: Api<DeserializeGuard<ImageExportJob>>) -> Arc<Mutex<Vec<ImageExportJob>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let into = seen.clone();
    tokio::spawn(async move {
        let mut objects = watcher(jobs, watcher::Config::default())
            .default_backoff()
            .touched_objects()
            .boxed();
        // An error is an outage of the API server, which some tests make, as they make objects
        // that nobody can read.
        while let Some(result) = objects.next().await {
            if let Ok(DeserializeGuard(Ok(object))) = result {
                into.lock().expect("no panic under the lock").push(object);
            }
        }
    });
    seen
}
