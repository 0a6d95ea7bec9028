//! Kubernetes Events: posted one by one, once each, from a bounded queue.
//!
//! Not by `kube::runtime::events::Recorder`: the caller of its `publish` waits for the API server, and
//! it keeps every Event of the last minutes in memory without a bound.

use crate::telemetry::Metrics;
use image_export_api::{ImageExportJob, MANAGER};
use image_export_core::ObjectEvent;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, Resource, api::PostParams, core::ObjectMeta};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error_span};

/// Events that may wait; those beyond it are dropped and counted.
const WAITING: usize = 1000;
/// Time between two posts: 20 a second.
const GAP: Duration = Duration::from_millis(50);
/// Bound on one post.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The API server's bound on a note, in bytes.
const NOTE_MAX_BYTES: usize = 1024;

pub(super) struct Queue {
    sender: mpsc::Sender<ObjectEvent>,
    /// Cancelled when no further Event is to be posted.
    end: CancellationToken,
    task: JoinHandle<()>,
    metrics: Arc<Metrics>,
}

impl Queue {
    /// Starts the task that posts.
    pub(super) fn start(client: Client, metrics: Arc<Metrics>) -> Self {
        let (sender, events) = mpsc::channel(WAITING);
        let end = CancellationToken::new();
        Self {
            task: tokio::spawn(post_all(client, metrics.clone(), events, end.clone())),
            sender,
            end,
            metrics,
        }
    }

    pub(super) fn push(&self, event: ObjectEvent) {
        if self.sender.try_send(event).is_err() {
            self.metrics.event("dropped");
        }
    }

    /// Drops and counts the Events that are not posted yet.
    pub(super) async fn end(self) {
        self.end.cancel();
        drop(self.sender);
        // A panic is logged by the runtime, and there is nothing left to do.
        let _ = self.task.await;
    }
}

/// Posts until the queue is dropped, or drops what is left once `end` is cancelled.
async fn post_all(
    client: Client,
    metrics: Arc<Metrics>,
    mut events: mpsc::Receiver<ObjectEvent>,
    end: CancellationToken,
) {
    let instance = std::env::var("HOSTNAME").unwrap_or_else(|_| MANAGER.to_owned());
    while let Some(event) = events.recv().await {
        let span = error_span!("post_event", object = %event.key, reason = event.reason);
        let post = post(&client, &instance, event).instrument(span);
        let result = end.run_until_cancelled(post).await;
        metrics.event(result.unwrap_or("dropped"));
        end.run_until_cancelled(sleep(GAP)).await;
    }
}

/// Posts an Event; returns the result as a metric label.
async fn post(client: &Client, instance: &str, event: ObjectEvent) -> &'static str {
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

fn render(event: ObjectEvent, instance: &str, now: Timestamp) -> Event {
    let mut note = event.note;
    note.truncate(note.floor_char_boundary(NOTE_MAX_BYTES));
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
        note: Some(note),
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
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_event_is_valid_however_long_the_objects_name_is() {
        let now: Timestamp = "2026-01-02T03:04:05.000000006Z".parse().unwrap();
        assert_eq!(name("nightly", now), "nightly.1886caf21c963206");
        for cut in 200..253 {
            let object = format!("{}.{}", "a".repeat(cut), "b".repeat(252 - cut));
            let name = name(&object, now);
            assert!(name.len() <= 253 && !name.contains(".."), "{name}");
        }
    }
}
