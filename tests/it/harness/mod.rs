//! The one test harness: a [`Team`] is a namespace with a simulated cloud, a Secret and an operator.

mod operator;
mod team;

pub use operator::{Launch, Operator};
pub use team::Team;

use image_export_api::{ImageExportJobStatus, conditions::Condition};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use std::{
    path::Path,
    sync::{Once, OnceLock},
    time::{Duration, Instant},
};
use testbed::{
    ims::{End, Job, JobKey},
    kubernetes::{Cluster, Output},
};
use tokio::task::JoinHandle;

/// Every duration of the operator is multiplied by this: 5 minutes become 6 seconds.
pub const SCALE: f64 = 0.02;
/// The same for tests in which a grace has to pass, as that of `PollFailed` or `JobNotFound`. The operator
/// starts its graces anew after a sleep of 10 s by its own time, so a busy machine must not delay it by as
/// much: half a second here, a fifth of a second with [`SCALE`].
pub const GRACE_SCALE: f64 = 0.05;
/// Longest wait for what has to happen: much longer than any machine needs.
pub const PATIENCE: Duration = Duration::from_secs(300);

pub const PROJECT: &str = "ac234de25c6741d2b1273da49eea1b9e";
pub const TOKEN: &str = "canary-token-5d1f8c";
pub const PASSWORD: &str = "canary-password-77ab";
/// The name of the CRD.
pub const CRD: &str = "imageexportjobs.imageexport.dev";
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
    cluster
        .install(deploy.as_ref(), CRD)
        .expect("it is installed, without a warning");
}

/// Each client in this process needs it.
pub fn install_tls_provider() {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        rustls::crypto::ring::default_provider()
            .install_default()
            .expect("the first provider");
    });
}

/// A client with the administrator's rights.
pub async fn client(cluster: &Cluster) -> Client {
    client_of(cluster.admin_kubeconfig()).await
}

/// A client with the rights of a kubeconfig.
pub async fn client_of(kubeconfig: &Path) -> Client {
    install_tls_provider();
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("a usable kubeconfig");
    Client::try_from(config).expect("a client")
}

/// Waits until `look` finds something.
pub async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "timed out: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn condition<'s>(status: &'s ImageExportJobStatus, type_: &str) -> Option<&'s Condition> {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_)
}

/// The message of `Ready`; empty where there is none yet.
pub fn message(status: &ImageExportJobStatus) -> &str {
    condition(status, "Ready").map_or("", |ready| &ready.message)
}

/// The key of the job in the simulator.
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

/// The summary of an object in progress: `Ready=Unknown`, `Reconciling`.
pub fn in_progress(reason: &str) -> Vec<String> {
    vec![
        format!("Ready=Unknown/{reason}"),
        format!("Reconciling=True/{reason}"),
        format!("Succeeded=Unknown/{reason}"),
    ]
}

/// A job that never ends.
pub fn running(job: &str) -> Job {
    Job::new(PROJECT, job).ends(End::Never)
}

/// The spec of an object whose Secret has the object's own name.
pub fn own_secret(name: &str) -> Value {
    json!({ "cloudCredentialsRef": { "secretName": name, "cloudName": "otc" } })
}

/// Waits for a [`Team::kubectl_wait`], which has to succeed.
pub async fn assert_met(wait: JoinHandle<Output>, what: &str) {
    let output = wait.await.expect("no panic");
    assert!(output.status.success(), "{what}: {}", output.stderr);
    assert!(
        output.stdout.contains("condition met"),
        "{what}: {}",
        output.stdout
    );
}
