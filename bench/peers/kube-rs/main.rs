//! The operator that a team would write with kube-rs: `Controller` as its documentation shows it, or `--tuned`. It has the
//! cloud's URL and the token from its environment, where a real one would read a Secret.

// The derived types have no documentation to show.
#![allow(missing_docs)]

use clap::Parser;
use futures::{Stream, StreamExt, pin_mut};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client, CustomResource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{
        Config, Controller, PredicateConfig, WatchStreamExt, applier,
        controller::{Action, trigger_self},
        predicates, reflector, watcher,
    },
};
use reqwest::{StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    collections::HashSet,
    error::Error as StdError,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex},
    time::Duration,
};

/// Polls and writes in flight of the tuned form: more throughput is not to be had from an API server.
const CONCURRENCY: u16 = 32;

#[derive(Parser)]
struct Args {
    /// Bounded concurrency, one thread, no managedFields in memory, no reconciliation for the own writes, and Retry-After
    #[arg(long)]
    tuned: bool,
    /// Poll each object at an instant of its own within the period
    #[arg(long, env = "POLL_STREWN")]
    strewn: bool,
    /// Seconds between two polls of an object
    #[arg(long, env = "POLL_PERIOD")]
    period: u64,
    #[arg(long, env = "CLOUD_URL")]
    cloud: String,
    #[arg(long, env = "CLOUD_TOKEN", hide_env_values = true)]
    token: String,
}

#[derive(CustomResource, Clone, Debug, Serialize, Deserialize)]
#[kube(
    group = "imageexport.dev",
    version = "v1alpha1",
    kind = "ImageExportJob",
    namespaced,
    status = "ImageExportJobStatus",
    schema = "disabled"
)]
struct ImageExportJobSpec {
    #[serde(rename = "projectID")]
    project_id: String,
    #[serde(rename = "jobID")]
    job_id: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImageExportJobStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    observed_generation: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    #[serde(rename = "imageID", skip_serializing_if = "Option::is_none")]
    image_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fail_reason: Option<String>,
    #[serde(default)]
    conditions: Vec<Condition>,
}

impl ImageExportJobStatus {
    fn has_ended(&self) -> bool {
        matches!(self.status.as_deref(), Some("SUCCESS" | "FAIL"))
    }
}

/// What the cloud answers.
#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    entities: Entities,
    fail_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Entities {
    image_id: Option<String>,
}

struct Context {
    args: Args,
    kube: Client,
    http: reqwest::Client,
    /// Objects that have waited for their instant, where polls are strewn.
    seen: Mutex<HashSet<String>>,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the cloud: {0}")]
    Cloud(#[from] reqwest::Error),
    #[error("the API server: {0}")]
    Kube(#[from] kube::Error),
}

async fn reconcile(job: Arc<ImageExportJob>, context: Arc<Context>) -> Result<Action, Error> {
    let shown = job.status.clone().unwrap_or_default();
    if shown.has_ended() {
        return Ok(Action::await_change());
    }
    let args = &context.args;
    let period = Duration::from_secs(args.period);
    if args.strewn && context.first_sight(&job) {
        return Ok(Action::requeue(delay(&job, period)));
    }
    let ImageExportJobSpec { project_id, job_id } = &job.spec;
    let request = context
        .http
        .get(format!("{}/v1/{project_id}/jobs/{job_id}", args.cloud))
        .header("X-Auth-Token", &args.token);
    let response = request.send().await?;
    if args.tuned && response.status() == StatusCode::TOO_MANY_REQUESTS {
        let after = response.headers().get(header::RETRY_AFTER);
        let after = after.and_then(|value| value.to_str().ok()?.parse().ok());
        return Ok(Action::requeue(Duration::from_secs(after.unwrap_or(5))));
    }
    let answer: Answer = response.error_for_status()?.json().await?;
    if let Some(status) = changed(&job, &shown, answer) {
        let namespace = job.namespace().unwrap_or_default();
        let jobs = Api::<ImageExportJob>::namespaced(context.kube.clone(), &namespace);
        let patch = Patch::Merge(json!({ "status": status }));
        jobs.patch_status(&job.name_any(), &PatchParams::default(), &patch)
            .await?;
        if status.has_ended() {
            return Ok(Action::await_change());
        }
    }
    Ok(Action::requeue(period))
}

/// The status to write, unless the object shows it already.
fn changed(
    job: &ImageExportJob,
    shown: &ImageExportJobStatus,
    answer: Answer,
) -> Option<ImageExportJobStatus> {
    let (ready, reason) = match answer.status.as_str() {
        "SUCCESS" => ("True", "JobSucceeded"),
        "FAIL" => ("False", "JobFailed"),
        "INIT" => ("Unknown", "JobInitializing"),
        _ => ("Unknown", "JobRunning"),
    };
    let condition = shown.conditions.iter().find(|c| c.type_ == "Ready");
    if shown.status.as_ref() == Some(&answer.status)
        && condition.is_some_and(|condition| condition.reason == reason)
    {
        return None;
    }
    let since = condition.filter(|condition| condition.status == ready);
    let now = Time(Timestamp::now());
    Some(ImageExportJobStatus {
        observed_generation: job.metadata.generation,
        conditions: vec![Condition {
            type_: "Ready".to_owned(),
            status: ready.to_owned(),
            reason: reason.to_owned(),
            message: format!("Job {} is {}.", job.spec.job_id, answer.status),
            observed_generation: job.metadata.generation,
            last_transition_time: since.map_or(now, |c| c.last_transition_time.clone()),
        }],
        status: Some(answer.status),
        image_id: answer.entities.image_id,
        fail_reason: answer.fail_reason,
    })
}

impl Context {
    fn first_sight(&self, job: &ImageExportJob) -> bool {
        let mut seen = self.seen.lock().expect("no panic holds it");
        seen.insert(job.uid().unwrap_or_default())
    }
}

fn delay(job: &ImageExportJob, period: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    job.uid().hash(&mut hasher);
    let permille = u32::try_from(hasher.finish() % 1000).expect("less than 1000");
    period * permille / 1000
}

#[allow(clippy::needless_pass_by_value)]
fn error_policy(_: Arc<ImageExportJob>, error: &Error, _: Arc<Context>) -> Action {
    eprintln!("{error}");
    Action::requeue(Duration::from_secs(5))
}

/// As the documentation shows it.
async fn run(jobs: Api<ImageExportJob>, context: Arc<Context>) {
    let controller = Controller::new(jobs, watcher::Config::default());
    report(controller.run(reconcile, error_policy, context)).await;
}

/// `Controller` in its parts, for what its stable form has no setting for.
async fn run_tuned(jobs: Api<ImageExportJob>, context: Arc<Context>) {
    let (store, writer) = reflector::store();
    let objects = watcher(jobs, watcher::Config::default())
        .default_backoff()
        .modify(|job: &mut ImageExportJob| job.managed_fields_mut().clear());
    let changes = reflector(writer, objects)
        .applied_objects()
        .predicate_filter(predicates::generation, PredicateConfig::default());
    let config = Config::default().concurrency(CONCURRENCY);
    let reconcile = |job, context| Box::pin(reconcile(job, context));
    let queue = trigger_self(changes, ());
    report(applier(
        reconcile,
        error_policy,
        context,
        store,
        queue,
        config,
    ))
    .await;
}

async fn report<T, E: StdError>(results: impl Stream<Item = Result<T, E>>) {
    pin_mut!(results);
    while let Some(result) = results.next().await {
        if let Err(error) = result {
            eprintln!("{error}");
        }
    }
}

async fn start(args: Args) -> anyhow::Result<()> {
    let tuned = args.tuned;
    let mut http = reqwest::Client::builder().timeout(Duration::from_secs(20));
    if tuned {
        http = http.pool_max_idle_per_host(usize::from(CONCURRENCY));
    }
    let kube = Client::try_default().await?;
    let jobs = Api::all(kube.clone());
    let context = Arc::new(Context {
        args,
        kube,
        http: http.build()?,
        seen: Mutex::default(),
    });
    if tuned {
        run_tuned(jobs, context).await;
    } else {
        run(jobs, context).await;
    }
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    rustls::crypto::ring::default_provider()
        .install_default()
        .expect("nobody else installs one");
    let mut runtime = if args.tuned {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    runtime.enable_all().build()?.block_on(start(args))
}
