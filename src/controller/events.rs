//! Events, posted one by one from a bounded queue.
//!
//! Not by `kube::runtime::events::Recorder`: its `publish` walks all events of the last minutes
//! under a lock and keeps each of them. The tracker emits on transitions only, so there is nothing
//! to aggregate.

use crate::{
    api::{ImageExportJob, MANAGER},
    telemetry::Metrics,
    tracker::EventNote,
};
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, Resource, api::PostParams, core::ObjectMeta};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;

/// Events that may wait; beyond it they are dropped and counted.
const WAITING: usize = 1000;
/// Time between two posts: 20 a second.
const GAP: Duration = Duration::from_millis(50);
/// Bound on one post.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The API server's bound on a note, in bytes.
const NOTE_MAX_BYTES: usize = 1024;

pub(super) struct Queue {
    sender: mpsc::Sender<EventNote>,
    metrics: Arc<Metrics>,
    /// Events that are neither posted nor given up.
    pending: Arc<AtomicUsize>,
}

impl Queue {
    pub(super) fn push(&self, note: EventNote) {
        self.pending.fetch_add(1, Ordering::Relaxed);
        if self.sender.try_send(note).is_err() {
            self.pending.fetch_sub(1, Ordering::Relaxed);
            self.metrics.event("dropped");
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.load(Ordering::Relaxed) == 0
    }
}

pub(super) fn spawn(client: Client, metrics: Arc<Metrics>) -> Queue {
    let (sender, mut notes) = mpsc::channel(WAITING);
    let queue = Queue {
        sender,
        metrics: metrics.clone(),
        pending: Arc::default(),
    };
    let pending = queue.pending.clone();
    tokio::spawn(async move {
        let instance = std::env::var("HOSTNAME").unwrap_or_else(|_| MANAGER.to_owned());
        while let Some(note) = notes.recv().await {
            metrics.event(post(&client, &instance, note).await);
            pending.fetch_sub(1, Ordering::Relaxed);
            tokio::time::sleep(GAP).await;
        }
    });
    queue
}

async fn post(client: &Client, instance: &str, note: EventNote) -> &'static str {
    let api: Api<Event> = Api::namespaced(client.clone(), &note.key.namespace);
    let key = note.key.clone();
    let event = event(note, instance, Timestamp::now());
    let parameters = PostParams::default();
    match tokio::time::timeout(TIMEOUT, api.create(&parameters, &event)).await {
        Ok(Ok(_)) => "posted",
        Ok(Err(error)) => {
            tracing::debug!(object = %key, %error, "event not posted");
            "failed"
        }
        Err(_) => "failed",
    }
}

fn event(note: EventNote, instance: &str, now: Timestamp) -> Event {
    let mut text = note.note;
    if text.len() > NOTE_MAX_BYTES {
        text.truncate(text.floor_char_boundary(NOTE_MAX_BYTES));
    }
    Event {
        metadata: ObjectMeta {
            namespace: Some(note.key.namespace.to_string()),
            name: Some(name(&note.key.name, now)),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(format!("imageexport.dev/{MANAGER}")),
        reporting_instance: Some(instance.to_owned()),
        action: Some("FollowJob".to_owned()),
        reason: Some(note.reason.to_owned()),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
        note: Some(text),
        regarding: Some(ObjectReference {
            api_version: Some(ImageExportJob::api_version(&()).into_owned()),
            kind: Some(ImageExportJob::kind(&()).into_owned()),
            namespace: Some(note.key.namespace.to_string()),
            name: Some(note.key.name.to_string()),
            uid: Some(note.uid.to_string()),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

/// The object's name and the time, as client-go does it; posts of one operator are 50 ms apart. Not
/// a `generateName`: it would have to end with a letter, a digit or a dash, which object names may.
fn name(object: &str, now: Timestamp) -> String {
    // Object names are ASCII, at most 253 characters, as are the names of events.
    let kept = &object[..object.floor_char_boundary(253 - 1 - 32)];
    let kept = kept.trim_end_matches(['.', '-']);
    format!("{kept}.{:x}", now.as_nanosecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_event_is_a_valid_one_however_long_the_objects_is() {
        let now: Timestamp = "2026-01-02T03:04:05.000000006Z".parse().unwrap();
        assert_eq!(name("nightly", now), "nightly.1886caf21c963206");
        for cut in 200..253 {
            let object = format!("{}.{}", "a".repeat(cut), "b".repeat(252 - cut));
            let name = name(&object, now);
            assert!(name.len() <= 253 && !name.contains(".."), "{name}");
        }
    }
}
