//! From the API server's watches to inputs.

use super::{Controller, source};
use crate::telemetry::{Health, LogGate, Metrics};
use futures::{FutureExt, StreamExt};
use image_export_api::ImageExportJob;
use image_export_core::{Input, ObjectKey, Source};
use kube::{
    Api, CustomResourceExt, Resource,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        watcher::{self, Config, Event, ListSemantic, watcher},
    },
};
use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::{sync::mpsc, task::JoinSet};

/// The API server ends each watch after this time, and the watcher takes one that is silent 5 s
/// longer for dead: a connection that died without a word is noticed within a minute.
const WATCH_SECONDS: u32 = 50;
/// Objects a list page holds. Each page is reduced to lean records before the next is asked for.
const PAGE: u32 = 500;
/// Longest account of why an object does not decode, in bytes.
const ERROR_MAX_BYTES: usize = 256;

type Guarded = DeserializeGuard<ImageExportJob>;

/// Starts one watch per namespace, or one for all. They end when the set is dropped.
pub(super) fn spawn(controller: &Controller, sender: &mpsc::Sender<Input>) -> JoinSet<()> {
    let apis: Vec<(String, Api<Guarded>)> = if controller.namespaces.is_empty() {
        vec![(
            "all namespaces".to_owned(),
            Api::all(controller.client.clone()),
        )]
    } else {
        controller
            .namespaces
            .iter()
            .map(|namespace| {
                let api = Api::namespaced(controller.client.clone(), namespace);
                (format!("namespace {namespace}"), api)
            })
            .collect()
    };
    let mut watches = JoinSet::new();
    for (index, (scope, api)) in apis.into_iter().enumerate() {
        let watch = Watch {
            source: source(index),
            scope,
            api,
            sender: sender.clone(),
            health: controller.health.clone(),
            metrics: controller.metrics.clone(),
            gate: LogGate::default(),
        };
        watches.spawn(async move {
            // A panic in here would leave the operator blind but alive: start over instead.
            while AssertUnwindSafe(watch.run()).catch_unwind().await.is_err() {
                watch.metrics.task_panicked();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }
    watches
}

struct Watch {
    source: Source,
    /// What is watched, for people.
    scope: String,
    api: Api<Guarded>,
    sender: mpsc::Sender<Input>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    gate: LogGate,
}

impl Watch {
    async fn run(&self) {
        // Never `any_semantic`: a list from the cache may be older than what was seen before.
        let config = Config::default()
            .timeout(WATCH_SECONDS)
            .page_size(PAGE)
            .list_semantic(ListSemantic::MostRecent);
        let mut events = watcher(self.api.clone(), config).default_backoff().boxed();
        while let Some(event) = events.next().await {
            let input = match event {
                Ok(event) => {
                    // `Init` only says that a list is about to be tried.
                    if !matches!(event, Event::Init) {
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
                tracing::info!(scope = self.scope, "listed");
                Input::Listed(self.source)
            }
            Event::InitApply(object) | Event::Apply(object) => self.seen(object)?,
            Event::Delete(object) => {
                let meta = object.meta();
                Input::Deleted(key(meta)?, meta.uid.clone())
            }
        })
    }

    fn seen(&self, object: Guarded) -> Option<Input> {
        match object.0 {
            Ok(object) => Some(Input::Applied(self.source, Box::new(object))),
            Err(invalid) => Some(Input::Undecodable {
                source: self.source,
                key: key(&invalid.metadata)?,
                uid: invalid.metadata.uid.unwrap_or_default(),
                error: bounded(invalid.error),
            }),
        }
    }

    fn report(&self, error: &watcher::Error) {
        let (kind, problem) = diagnose(error);
        let problem = format!("{}: {problem}", self.scope);
        self.metrics.watch_failed(kind);
        if self.gate.opens(kind) {
            tracing::warn!(kind, %error, "watch failed: {problem}");
        }
        // An expired or broken watch is renewed and loses nothing; the others keep us from seeing.
        if kind != "renewed" {
            self.health.watch_fails(self.source, problem);
        }
    }
}

/// What is wrong, as a metric label and for people.
fn diagnose(error: &watcher::Error) -> (&'static str, String) {
    use watcher::Error;
    let cause = match error {
        Error::InitialListFailed(cause) | Error::WatchStartFailed(cause) => cause,
        Error::WatchFailed(_) | Error::WatchError(_) | Error::NoResourceVersion => {
            return ("renewed", "the watch broke off and is renewed".to_owned());
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
            401 => (
                "unauthorized",
                "the API server does not accept the operator's token".to_owned(),
            ),
            410 => ("renewed", "the watch expired and is renewed".to_owned()),
            code => ("api_error", format!("the API server answered {code}")),
        },
        _ => ("unreachable", "the API server does not answer".to_owned()),
    }
}

/// The library repeats a value of the wrong type, however long it is.
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
