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
    let host = std::env::var("HOSTNAME")
        .ok()
        .filter(|host| !host.is_empty());
    let instance = host.unwrap_or_else(|| MANAGER.to_owned());
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
    use crate::controller::fake::{Reply, always, api_server};
    use image_export_core::ObjectKey;
    use serde_json::json;
    use tokio::time::Instant;

    fn event(note: &str) -> ObjectEvent {
        ObjectEvent {
            key: ObjectKey {
                namespace: "ns".into(),
                name: "nightly".into(),
            },
            uid: "u-1".into(),
            reason: "JobFailed",
            warning: true,
            note: note.to_owned(),
        }
    }

    fn count(metrics: &Metrics, result: &str) -> u64 {
        let series = format!("imageexport_events_total{{result=\"{result}\"}} ");
        let text = metrics.encode();
        let value = text.lines().find_map(|line| line.strip_prefix(&series));
        value.map_or(0, |value| value.parse().unwrap())
    }

    fn created() -> Reply {
        Reply::json(201, &json!({ "metadata": {} }))
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_names_the_object_the_reason_and_the_reporter() {
        let (client, sent) = always(created());
        let before = Timestamp::now();
        assert_eq!(post(&client, "a-pod", event("Why.")).await, "posted");
        let normal = ObjectEvent {
            warning: false,
            ..event("Why.")
        };
        assert_eq!(post(&client, "a-pod", normal).await, "posted");
        let after = Timestamp::now();

        let sent = sent.lock().unwrap();
        assert_eq!(
            sent[0].line,
            "POST /apis/events.k8s.io/v1/namespaces/ns/events?"
        );
        let mut body = sent[0].body.clone();
        let time: Timestamp = body["eventTime"].take().as_str().unwrap().parse().unwrap();
        let name = body["metadata"]["name"].take();
        let digits = name.as_str().unwrap().strip_prefix("nightly.").unwrap();
        let named = i128::from_str_radix(digits, 16).unwrap();
        assert!((before.as_nanosecond()..=after.as_nanosecond()).contains(&named));
        assert!(
            (named - time.as_nanosecond()).abs() < 1000,
            "the same time, in µs"
        );
        assert_eq!(
            body,
            json!({
                "apiVersion": "events.k8s.io/v1", "kind": "Event",
                "metadata": { "namespace": "ns", "name": null },
                "eventTime": null, "type": "Warning", "reason": "JobFailed", "note": "Why.",
                "action": "FollowJob", "reportingInstance": "a-pod",
                "reportingController": "imageexport.dev/image-export-operator",
                "regarding": {
                    "apiVersion": "imageexport.dev/v1alpha1", "kind": "ImageExportJob",
                    "namespace": "ns", "name": "nightly", "uid": "u-1",
                },
            })
        );
        assert_eq!(sent[1].body["type"], "Normal");
    }

    #[test]
    fn a_note_is_cut_to_the_bound_of_the_api_server() {
        let note = |note: &str| render(event(note), "a-pod", Timestamp::now()).note.unwrap();
        assert_eq!(note(&"x".repeat(1024)), "x".repeat(1024));
        assert_eq!(note(&"x".repeat(1025)), "x".repeat(1024));
        assert_eq!(
            note(&format!("x{}", "ä".repeat(600))),
            format!("x{}", "ä".repeat(511))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn each_event_is_posted_once_twenty_a_second() {
        let metrics = Arc::new(Metrics::default());
        let (client, sent) = always(created());
        let queue = Queue::start(client, metrics.clone());
        for number in 0..40 {
            queue.push(event(&number.to_string()));
        }
        sleep(Duration::from_millis(975)).await;
        assert_eq!(sent.lock().unwrap().len(), 20);
        sleep(Duration::from_secs(60)).await;
        let sent = sent.lock().unwrap();
        let notes: Vec<_> = sent
            .iter()
            .map(|sent| sent.body["note"].as_str().unwrap())
            .collect();
        assert_eq!(
            notes,
            (0..40).map(|number| number.to_string()).collect::<Vec<_>>()
        );
        assert_eq!(
            (count(&metrics, "posted"), count(&metrics, "dropped")),
            (40, 0)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_is_rejected_or_gets_no_reply_for_five_seconds_is_not_posted_again() {
        let metrics = Arc::new(Metrics::default());
        let mut replies = [
            Reply::failure(403, &json!(null)),
            Reply::Lost,
            Reply::Never,
            Reply::After(Duration::from_millis(4900), Box::new(created())),
        ]
        .into_iter();
        let (client, sent) = api_server(move |_| replies.next().unwrap());
        let queue = Queue::start(client, metrics.clone());
        let started = Instant::now();
        for number in 0..4 {
            queue.push(event(&number.to_string()));
        }
        // Until the last one is sent, and until it is posted.
        sleep(GAP * 3 + Duration::from_secs(5) + Duration::from_millis(10)).await;
        assert_eq!(sent.lock().unwrap().len(), 4, "{:?}", started.elapsed());
        assert_eq!(
            (count(&metrics, "failed"), count(&metrics, "posted")),
            (3, 0)
        );
        sleep(TIMEOUT).await;
        assert_eq!(
            (count(&metrics, "failed"), count(&metrics, "posted")),
            (3, 1)
        );
        assert_eq!(sent.lock().unwrap().len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn events_beyond_a_thousand_are_dropped_and_counted() {
        let metrics = Arc::new(Metrics::default());
        let (client, _) = always(Reply::Never);
        let queue = Queue::start(client, metrics.clone());
        for _ in 0..1003 {
            queue.push(event(""));
        }
        assert_eq!(count(&metrics, "dropped"), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_end_events_are_dropped_and_counted_and_not_waited_for() {
        for reply in [Reply::Never, created()] {
            let metrics = Arc::new(Metrics::default());
            let (client, sent) = always(reply);
            let queue = Queue::start(client, metrics.clone());
            for _ in 0..1000 {
                queue.push(event(""));
            }
            sleep(Duration::from_millis(1)).await;
            let started = Instant::now();
            queue.end().await;
            assert_eq!(started.elapsed(), Duration::ZERO);
            assert_eq!(count(&metrics, "dropped") + count(&metrics, "posted"), 1000);
            assert!(count(&metrics, "dropped") >= 999);
            assert_eq!(sent.lock().unwrap().len(), 1);
        }
    }

    #[test]
    fn the_name_of_an_event_is_valid_however_long_the_objects_name_is() {
        let now: Timestamp = "2026-01-02T03:04:05.000000006Z".parse().unwrap();
        assert_eq!(name("nightly", now), "nightly.1886caf21c963206");
        for cut in 200..253 {
            let object = format!("{}.{}", "a".repeat(cut), "b".repeat(252 - cut));
            let name = name(&object, now);
            let kept = &name[..name.rfind('.').unwrap()];
            assert!(name.len() <= 253 && !name.contains(".."), "{name}");
            assert!(kept.len() >= 219 && object.starts_with(kept), "{name}");
        }
    }
}
