//! Watches: turn what the API server reports about objects into inputs.

mod pages;

use super::{Controller, guarded::Guarded};
use crate::telemetry::{Health, LogGate, Metrics};
use futures::{FutureExt, StreamExt};
use http::{Request, Response};
use image_export_api::ImageExportJob;
use image_export_cloud::ProxyProblem;
use image_export_core::{Input, ObjectKey, Source};
use kube::{
    Api, Client, CustomResourceExt, Resource,
    client::Body,
    runtime::{
        WatchStreamExt,
        utils::Backoff,
        watcher::{self, Config, DefaultBackoff, Event, ListSemantic, watcher},
    },
};
use pages::{Pages, TooLong, Turns};
use std::{error::Error, iter::successors, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, service_fn};
use tracing::{Instrument, error_span};

/// The API server ends each watch after this time, and kube's watcher gives up one that is silent
/// for 5 s longer: a connection that is lost without notice is replaced within a minute.
const WATCH_SECONDS: u32 = 50;
/// Longest wait before a watch that failed is tried again. One request in this time burdens no API server,
/// and objects are seen soon after the CRD or the rights are there.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Bound on the description of why an object does not decode, in bytes.
const ERROR_MAX_BYTES: usize = 256;

/// Starts one watch per namespace, or one for all. They end when `stop` is cancelled.
pub(super) fn spawn(
    controller: &Controller,
    sender: &mpsc::Sender<Input>,
    stop: &CancellationToken,
) {
    let namespaces = controller.namespaces.iter().map(Some);
    let all = controller.namespaces.is_empty().then_some(None);
    let turns = Turns::default();
    for (source, namespace) in (0..).map(Source).zip(namespaces.chain(all)) {
        let client = observed(controller, source, turns.clone());
        let (scope, api) = match namespace {
            Some(namespace) => (
                format!("namespace {namespace}"),
                Api::namespaced(client, namespace),
            ),
            None => ("all namespaces".to_owned(), Api::all(client)),
        };
        let span = error_span!("watch", scope);
        let watch = Watch {
            source,
            scope,
            api,
            label_selector: controller.label_selector.clone(),
            sender: sender.clone(),
            health: controller.health.clone(),
            metrics: controller.metrics.clone(),
            gate: LogGate::default(),
        };
        let stop = stop.clone();
        let task = async move { stop.run_until_cancelled(watch.run_always()).await };
        tokio::spawn(task.instrument(span));
    }
}

/// The client, where lists come in bounded pages, and health and metrics learn of each answer: while no object
/// changes, nothing else shows that a watch is accepted.
fn observed(controller: &Controller, source: Source, turns: Turns) -> Client {
    let namespace = controller.client.default_namespace().to_owned();
    controller.metrics.watch_seen(source);
    let observed = Observed {
        client: controller.client.clone(),
        source,
        health: controller.health.clone(),
        metrics: controller.metrics.clone(),
    };
    let pages = Arc::new(Pages::new(turns));
    let service = service_fn(move |request: Request<Body>| {
        let (observed, pages) = (observed.clone(), pages.clone());
        async move {
            if pages::is_page(request.uri()) {
                pages
                    .read(request, |request| observed.clone().send(request))
                    .await
            } else {
                Ok::<_, BoxError>(observed.send(request).await?)
            }
        }
    });
    Client::new(service, namespace)
}

#[derive(Clone)]
struct Observed {
    client: Client,
    source: Source,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

impl Observed {
    async fn send(self, request: Request<Body>) -> kube::Result<Response<Body>> {
        let response = self.client.send(request).await?;
        self.health
            .watch_answered(self.source, response.status().as_u16());
        if response.status().is_success() {
            self.metrics.watch_seen(self.source);
        }
        Ok(response)
    }
}

/// kube's backoff, up to [`LONGEST_WAIT`].
#[derive(Default)]
struct BoundedBackoff(DefaultBackoff);

impl Iterator for BoundedBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.0.next()?.min(LONGEST_WAIT))
    }
}

impl Backoff for BoundedBackoff {
    fn reset(&mut self) {
        self.0.reset();
    }
}

struct Watch {
    source: Source,
    /// The namespace, or all of them, for people.
    scope: String,
    api: Api<Guarded>,
    label_selector: Option<String>,
    sender: mpsc::Sender<Input>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    gate: LogGate,
}

impl Watch {
    /// Starts over after a panic, which would otherwise leave the operator running without a watch.
    async fn run_always(&self) {
        while AssertUnwindSafe(self.run()).catch_unwind().await.is_err() {
            self.metrics.task_panicked();
            tracing::error!("internal error: the watch panicked and starts over");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn run(&self) {
        // Never `any_semantic`: a list from the cache may be older than the objects seen before.
        let config = Config {
            label_selector: self.label_selector.clone(),
            ..Config::default()
        };
        let config = config
            .timeout(WATCH_SECONDS)
            .page_size(pages::MOST)
            .list_semantic(ListSemantic::MostRecent);
        let events = watcher(self.api.clone(), config);
        let mut events = events.backoff(BoundedBackoff::default()).boxed();
        while let Some(event) = events.next().await {
            let input = match event {
                Ok(event) => {
                    // `Init` comes before the list request is sent.
                    if !matches!(event, Event::Init) {
                        self.metrics.watch_seen(self.source);
                        self.health.watch_works(self.source);
                    }
                    self.input(event)
                }
                Err(error) => {
                    self.report(&error);
                    continue;
                }
            };
            if let Some(input) = input
                && self.sender.send(input).await.is_err()
            {
                return;
            }
        }
    }

    fn input(&self, event: Event<Guarded>) -> Option<Input> {
        Some(match event {
            Event::Init => Input::ListStarted(self.source),
            Event::InitDone => {
                tracing::info!("listed");
                Input::Listed(self.source)
            }
            Event::InitApply(object) | Event::Apply(object) => self.applied(object)?,
            Event::Delete(object) => {
                let meta = object.meta();
                Input::Deleted(key(meta)?, meta.uid.clone())
            }
        })
    }

    fn applied(&self, object: Guarded) -> Option<Input> {
        match object.into_object() {
            Ok(object) => Some(Input::Applied(self.source, object)),
            Err(undecodable) => {
                let (metadata, error) = *undecodable;
                Some(Input::Undecodable {
                    source: self.source,
                    key: key(&metadata)?,
                    uid: metadata.uid.unwrap_or_default(),
                    error: bounded(error),
                })
            }
        }
    }

    fn report(&self, error: &watcher::Error) {
        let (kind, problem) = diagnose(error);
        let problem = format!("{}: {problem}", self.scope);
        self.metrics.watch_failed(kind);
        if self.gate.opens(kind) {
            tracing::warn!(kind, cause = cause(error), "watch failed: {problem}");
        }
        // A renewed watch loses nothing; after any other failure the operator misses changes.
        if kind != "renewed" {
            self.health.watch_fails(self.source, problem);
        }
    }
}

/// The kind of a failure as a metric label, and the problem for people.
fn diagnose(error: &watcher::Error) -> (&'static str, String) {
    use watcher::Error::{
        InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed,
    };
    let cause = match error {
        InitialListFailed(cause) | WatchStartFailed(cause) => cause,
        WatchFailed(_) | WatchError(_) | NoResourceVersion => {
            return ("renewed", "the watch ended early and is renewed".to_owned());
        }
    };
    match cause {
        kube::Error::Api(status) => match status.code {
            404 => (
                "crd_missing",
                format!(
                    "the API server does not know ImageExportJobs: apply the CRD {}, which is in crds/",
                    ImageExportJob::crd_name()
                ),
            ),
            403 => (
                "forbidden",
                "the operator may not list or watch ImageExportJobs: apply the RBAC in deploy/"
                    .to_owned(),
            ),
            400 => (
                "api_error",
                format!(
                    "the API server answered 400: {}",
                    bounded(status.message.clone())
                ),
            ),
            401 => (
                "unauthorized",
                "the API server does not accept the operator's token".to_owned(),
            ),
            410 => ("renewed", "the watch expired and is renewed".to_owned()),
            code => ("api_error", format!("the API server answered {code}")),
        },
        kube::Error::Service(error) if error.is::<TooLong>() => ("api_error", error.to_string()),
        kube::Error::Service(error) if error.is::<ProxyProblem>() => {
            let problem = format!("the API server does not answer: {error}");
            ("unreachable", problem)
        }
        _ => ("unreachable", "the API server does not answer".to_owned()),
    }
}

/// What the API server adds to the problem, or the innermost error. kube's own messages repeat it, with dumps of
/// structures.
fn cause(error: &watcher::Error) -> Option<String> {
    use watcher::Error::{InitialListFailed, WatchError, WatchFailed, WatchStartFailed};
    let (InitialListFailed(kube::Error::Api(status))
    | WatchStartFailed(kube::Error::Api(status))
    | WatchFailed(kube::Error::Api(status))
    | WatchError(status)) = error
    else {
        let sources = successors(error.source(), |&error| error.source());
        return sources.last().map(|error| bounded(error.to_string()));
    };
    let is_clear = matches!(status.code, 401 | 404) || status.message.is_empty();
    (!is_clear).then(|| bounded(status.message.clone()))
}

/// serde repeats a value of the wrong type, however long it is.
fn bounded(mut error: String) -> String {
    if error.len() > ERROR_MAX_BYTES {
        error.truncate(error.floor_char_boundary(ERROR_MAX_BYTES));
        error.push('…');
    }
    error
}

fn key(meta: &kube::core::ObjectMeta) -> Option<ObjectKey> {
    Some(ObjectKey {
        namespace: meta.namespace.as_deref()?.into(),
        name: meta.name.as_deref()?.into(),
    })
}

#[cfg(test)]
mod tests;
