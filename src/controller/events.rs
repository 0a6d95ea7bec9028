//! Kubernetes Events: posted once each, from a bounded queue in which namespaces take turns.
//!
//! Not by `kube::runtime::events::Recorder`: the caller of its `publish` waits for the API server, and
//! it keeps every Event of the last minutes in memory without a bound.

mod waiting;

use crate::telemetry::Metrics;
use futures::{StreamExt, stream::FuturesUnordered};
use image_export_api::{ImageExportJob, MANAGER};
use image_export_core::ObjectEvent;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, Resource, api::PostParams, core::ObjectMeta};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error_span};
use waiting::Waiting;

/// Time between two posts: 20 a second.
const GAP: Duration = Duration::from_millis(50);
/// Posts in flight, at most half of them of one namespace: those that hang do not hold up the others.
const IN_FLIGHT: usize = 4;
/// Bound on one post.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The API server's bound on a note, in bytes.
const NOTE_MAX_BYTES: usize = 1024;

pub(super) struct Queue {
    shared: Arc<Shared>,
    /// Cancelled when no further Event is to be posted.
    end: CancellationToken,
    task: JoinHandle<()>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Notified of each Event that is queued.
    queued: Notify,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that can panic runs under the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Starts the task that posts.
    pub(super) fn start(client: Client, metrics: Arc<Metrics>) -> Self {
        let shared = Arc::<Shared>::default();
        let end = CancellationToken::new();
        let host = std::env::var("HOSTNAME")
            .ok()
            .filter(|host| !host.is_empty());
        let poster = Poster {
            client,
            instance: host.unwrap_or_else(|| MANAGER.to_owned()),
            metrics: metrics.clone(),
            shared: shared.clone(),
        };
        Self {
            task: tokio::spawn(poster.run(end.clone())),
            shared,
            end,
            metrics,
        }
    }

    pub(super) fn push(&self, mut event: ObjectEvent) {
        cut(&mut event.note);
        if let Some(result) = self.shared.waiting().push(event) {
            self.metrics.event(result);
        }
        self.shared.queued.notify_one();
    }

    /// Drops and counts the Events that are not posted yet.
    pub(super) async fn end(self) {
        self.end.cancel();
        // A panic is logged by the runtime, and there is nothing left to do.
        let _ = self.task.await;
    }
}

/// Before it is queued, so that the queue is bounded in bytes as well.
fn cut(note: &mut String) {
    note.truncate(note.floor_char_boundary(NOTE_MAX_BYTES));
    note.shrink_to_fit();
}

struct Poster {
    client: Client,
    instance: String,
    metrics: Arc<Metrics>,
    shared: Arc<Shared>,
}

impl Poster {
    /// Posts until `end` is cancelled, then drops and counts what is left.
    async fn run(self, end: CancellationToken) {
        let mut posts = FuturesUnordered::new();
        // The namespaces of the posts in flight.
        let mut busy: Vec<Arc<str>> = Vec::new();
        let mut next_post = Instant::now();
        loop {
            // Read once: between two reads the time to post could pass unseen.
            let now = Instant::now();
            if posts.len() < IN_FLIGHT && now >= next_post {
                let may = |namespace: &Arc<str>| {
                    busy.iter().filter(|busy| *busy == namespace).count() < IN_FLIGHT / 2
                };
                let event = self.shared.waiting().pop(may);
                if let Some(event) = event {
                    next_post = now + GAP;
                    busy.push(event.key.namespace.clone());
                    posts.push(self.post(event));
                }
            }
            tokio::select! {
                biased;
                () = end.cancelled() => break,
                Some(namespace) = posts.next() => {
                    if let Some(index) = busy.iter().position(|busy| *busy == namespace) {
                        busy.swap_remove(index);
                    }
                }
                () = sleep_until(next_post), if now < next_post => {}
                () = self.shared.queued.notified() => {}
            }
        }
        for _ in 0..posts.len() + self.shared.waiting().len() {
            self.metrics.event("dropped");
        }
    }

    /// Posts an Event and counts it; returns its namespace.
    async fn post(&self, event: Arc<ObjectEvent>) -> Arc<str> {
        let span = error_span!("post_event", object = %event.key, reason = event.reason);
        let result = post(&self.client, &self.instance, &event);
        self.metrics.event(result.instrument(span).await);
        event.key.namespace.clone()
    }
}

/// Posts an Event; returns the result as a metric label.
async fn post(client: &Client, instance: &str, event: &ObjectEvent) -> &'static str {
    let api: Api<Event> = Api::namespaced(client.clone(), &event.key.namespace);
    let event = render(event, instance, Timestamp::now());
    let error = match timeout(TIMEOUT, api.create(&PostParams::default(), &event)).await {
        Ok(Ok(_)) => return "posted",
        Ok(Err(error)) => error,
        Err(late) => kube::Error::Service(late.into()),
    };
    tracing::debug!(%error, "event not posted");
    "failed"
}

fn render(event: &ObjectEvent, instance: &str, now: Timestamp) -> Event {
    Event {
        metadata: ObjectMeta {
            namespace: Some(event.key.namespace.to_string()),
            name: Some(name(&event.key.name, now)),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(format!("imageexport.dev/{MANAGER}")),
        reporting_instance: Some(instance.to_owned()),
        action: Some("FollowJob".to_owned()),
        reason: Some(event.reason.to_owned()),
        type_: Some(if event.warning { "Warning" } else { "Normal" }.to_owned()),
        note: Some(event.note.clone()),
        regarding: Some(ObjectReference {
            api_version: Some(ImageExportJob::api_version(&()).into_owned()),
            kind: Some(ImageExportJob::kind(&()).into_owned()),
            namespace: Some(event.key.namespace.to_string()),
            name: Some(event.key.name.to_string()),
            uid: Some(event.uid.to_string()),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

/// The object's name and the time, as client-go does it; posts of one operator are 50 ms apart. Not
/// a `generateName`: one that ends with a dot is invalid.
fn name(object: &str, now: Timestamp) -> String {
    // Object names are ASCII, at most 253 characters, as are the names of Events.
    let kept = &object[..object.floor_char_boundary(253 - 1 - 32)];
    let kept = kept.trim_end_matches(['.', '-']);
    format!("{kept}.{:x}", now.as_nanosecond())
}

#[cfg(test)]
mod tests;
