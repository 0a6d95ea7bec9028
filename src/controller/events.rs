//! Events, posted one by one from a bounded queue. One that comes again within half an hour, as
//! trouble does that comes and goes, is counted in the series of the first.
//!
//! Not by `kube::runtime::events::Recorder`: whoever calls its `publish` waits for the API server, and
//! it keeps every Event of the last minutes, however many there are.
use crate::telemetry::Metrics;
use image_export_api::{ImageExportJob, MANAGER};
use image_export_core::{ObjectEvent, ObjectKey};
use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
    core::{ObjectMeta, Status},
};
use serde_json::json;
use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};

/// Events that may wait; beyond it they are dropped and counted.
const WAITING: usize = 1000;
/// Time between two posts: 20 a second.
const GAP: Duration = Duration::from_millis(50);
/// Bound on one post.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long after the last time an Event counts as the same trouble. The API server keeps an Event
/// for an hour.
const SERIES_GAP: Duration = Duration::from_secs(30 * 60);
/// Events that are remembered in case they come again.
const REMEMBERED: usize = 1000;
/// The API server's bound on a note, in bytes.
const NOTE_MAX_BYTES: usize = 1024;

pub(super) struct Queue {
    sender: mpsc::Sender<ObjectEvent>,
    metrics: Arc<Metrics>,
    /// Events that are neither posted nor given up.
    pending: Arc<AtomicUsize>,
}

impl Queue {
    pub(super) fn push(&self, note: ObjectEvent) {
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
        let mut recent = Recent::default();
        while let Some(note) = notes.recv().await {
            metrics.event(publish(&client, &instance, &mut recent, note).await);
            pending.fetch_sub(1, Ordering::Relaxed);
            tokio::time::sleep(GAP).await;
        }
    });
    queue
}

/// Events that may come again, in the order of their last times.
#[derive(Default)]
struct Recent(VecDeque<Known>);

struct Known {
    /// Of the object, the reason and the note.
    hash: u64,
    name: String,
    count: i32,
    last: Instant,
}

impl Recent {
    /// Takes out the Event that this one repeats.
    fn take(&mut self, hash: u64, now: Instant) -> Option<Known> {
        let over = |known: &Known| now.duration_since(known.last) >= SERIES_GAP;
        while self.0.front().is_some_and(over) {
            self.0.pop_front();
        }
        let at = self.0.iter().rposition(|known| known.hash == hash)?;
        self.0.remove(at)
    }

    fn keep(&mut self, known: Known) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(known);
    }
}

fn hash(note: &ObjectEvent) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&note.uid, note.reason, &note.note).hash(&mut hasher);
    hasher.finish()
}

/// Counts the Event in the series that it repeats, or posts a new one. Returns what became of it.
async fn publish(
    client: &Client,
    instance: &str,
    recent: &mut Recent,
    note: ObjectEvent,
) -> &'static str {
    let api: Api<Event> = Api::namespaced(client.clone(), &note.key.namespace);
    let (key, hash, last) = (note.key.clone(), hash(&note), Instant::now());
    if let Some(mut known) = recent.take(hash, last) {
        known.count = known.count.saturating_add(1);
        known.last = last;
        let counted = bounded(count(&api, &known)).await;
        // One that is gone, or may not be changed, is posted anew.
        let refused = |status: &Status| status.code < 500 && status.code != 429;
        if !matches!(&counted, Err(kube::Error::Api(status)) if refused(status)) {
            let outcome = result(&key, counted, "counted");
            recent.keep(known);
            return outcome;
        }
    }
    let event = event(note, instance, Timestamp::now());
    let posted = bounded(api.create(&PostParams::default(), &event)).await;
    if posted.is_ok() {
        recent.keep(Known {
            hash,
            name: event.metadata.name.unwrap_or_default(),
            count: 1,
            last,
        });
    }
    result(&key, posted, "posted")
}

async fn count(api: &Api<Event>, known: &Known) -> kube::Result<Event> {
    let series = EventSeries {
        count: known.count,
        last_observed_time: MicroTime(Timestamp::now()),
    };
    let parameters = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(json!({ "series": series }));
    api.patch(&known.name, &parameters, &patch).await
}

async fn bounded(call: impl Future<Output = kube::Result<Event>>) -> kube::Result<Event> {
    tokio::time::timeout(TIMEOUT, call)
        .await
        .unwrap_or_else(|late| Err(kube::Error::Service(late.into())))
}

fn result(key: &ObjectKey, result: kube::Result<Event>, done: &'static str) -> &'static str {
    match result {
        Ok(_) => done,
        Err(error) => {
            tracing::debug!(object = %key, %error, "event not posted");
            "failed"
        }
    }
}

fn event(note: ObjectEvent, instance: &str, now: Timestamp) -> Event {
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

    fn known(hash: u64, last: Instant) -> Known {
        Known {
            hash,
            name: format!("event-{hash}"),
            count: 1,
            last,
        }
    }

    #[test]
    fn an_event_is_remembered_for_half_an_hour_after_it_came_last() {
        let began = Instant::now();
        let mut recent = Recent::default();
        recent.keep(known(1, began));
        assert!(recent.take(2, began).is_none(), "another one");
        let later = began + SERIES_GAP / 2;
        let mut again = recent.take(1, later).unwrap();
        again.last = later;
        recent.keep(again);
        assert!(recent.take(1, began + SERIES_GAP).is_some());
        recent.keep(known(1, began));
        assert!(recent.take(1, began + SERIES_GAP).is_none());
    }

    #[test]
    fn no_more_than_1000_events_are_remembered() {
        let began = Instant::now();
        let mut recent = Recent::default();
        (0..5000).for_each(|hash| recent.keep(known(hash, began)));
        assert_eq!(recent.0.len(), REMEMBERED);
        assert!(recent.take(4999, began).is_some() && recent.take(3999, began).is_none());
    }

    #[test]
    fn another_object_reason_or_note_is_another_event() {
        let note = |uid: &str, reason, note: &str| {
            hash(&ObjectEvent {
                key: ObjectKey {
                    namespace: "ns".into(),
                    name: "x".into(),
                },
                uid: uid.into(),
                reason,
                warning: true,
                note: note.into(),
            })
        };
        let first = note("1", "PollFailed", "503");
        assert_eq!(first, note("1", "PollFailed", "503"));
        for other in [
            note("2", "PollFailed", "503"),
            note("1", "AccessDenied", "503"),
            note("1", "PollFailed", "504"),
        ] {
            assert_ne!(first, other);
        }
    }

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
