//! Events on an API server for unit tests, in paused time.

use super::*;
use crate::controller::fake::{Reply, Sent, always, api_server};
use image_export_core::ObjectKey;
use serde_json::json;
use std::collections::BTreeMap;
use tokio::time::{Instant, sleep};

fn event(note: &str) -> ObjectEvent {
    event_in("ns", note)
}

fn event_in(namespace: &str, note: &str) -> ObjectEvent {
    ObjectEvent {
        key: ObjectKey {
            namespace: namespace.into(),
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
    assert_eq!(post(&client, "a-pod", &event("Why.")).await, "posted");
    let normal = ObjectEvent {
        warning: false,
        ..event("Why.")
    };
    assert_eq!(post(&client, "a-pod", &normal).await, "posted");
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
    for (note, expected) in [
        ("x".repeat(1024), "x".repeat(1024)),
        ("x".repeat(1025), "x".repeat(1024)),
        (
            format!("x{}", "ä".repeat(600)),
            format!("x{}", "ä".repeat(511)),
        ),
    ] {
        let mut short = note;
        cut(&mut short);
        assert_eq!(short, expected);
    }
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
    sleep(GAP * 3 + Duration::from_millis(10)).await;
    assert_eq!(sent.lock().unwrap().len(), 4, "{:?}", started.elapsed());
    assert_eq!(
        (count(&metrics, "failed"), count(&metrics, "posted")),
        (2, 0)
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
    for number in 0..1003 {
        queue.push(event(&number.to_string()));
    }
    assert_eq!(count(&metrics, "dropped"), 3);
}

#[tokio::test(start_paused = true)]
async fn equal_events_that_wait_are_one_and_later_ones_are_posted_again() {
    let metrics = Arc::new(Metrics::default());
    let (client, sent) = always(created());
    let queue = Queue::start(client, metrics.clone());
    let other = ObjectEvent {
        uid: "u-2".into(),
        ..event("Why.")
    };
    for event in [event("Why."), event("Why."), other, event("Why.")] {
        queue.push(event);
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        (count(&metrics, "posted"), count(&metrics, "merged")),
        (2, 2)
    );
    queue.push(event("Why."));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(count(&metrics, "posted"), 3);
    assert_eq!(sent.lock().unwrap().len(), 3);
}

/// The Events sent of each namespace.
fn sent_by_namespace(sent: &Mutex<Vec<Sent>>) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for sent in sent.lock().unwrap().iter() {
        let namespace = sent.body["metadata"]["namespace"].as_str().unwrap();
        *counts.entry(namespace.to_owned()).or_default() += 1;
    }
    counts
}

#[tokio::test(start_paused = true)]
async fn the_few_events_of_a_namespace_are_lost_for_no_others_many() {
    let metrics = Arc::new(Metrics::default());
    let (client, sent) = always(created());
    let queue = Queue::start(client, metrics.clone());
    for number in 0..3000 {
        queue.push(event_in("noisy", &number.to_string()));
        if number % 150 == 149 {
            queue.push(event_in("quiet", &number.to_string()));
        }
    }
    assert_eq!(count(&metrics, "dropped"), 3020 - 1000);
    // One of the noisy namespace for each.
    sleep(GAP * 2 * 20 + Duration::from_millis(10)).await;
    assert_eq!(sent_by_namespace(&sent)["quiet"], 20);
}

#[tokio::test(start_paused = true)]
async fn ten_namespaces_of_which_one_is_noisy_have_equal_shares() {
    let metrics = Arc::new(Metrics::default());
    let (client, sent) = always(created());
    let queue = Queue::start(client, metrics.clone());
    // Two seconds bring 40 posts, and each namespace has more than its share of them.
    for second in 0..30 {
        for namespace in 0..10 {
            let many = if namespace == 0 { 200 } else { 5 };
            for number in 0..many {
                let note = format!("{second} {number}");
                queue.push(event_in(&format!("ns-{namespace}"), &note));
            }
        }
        sleep(Duration::from_secs(2)).await;
    }
    let counts = sent_by_namespace(&sent);
    let shares: Vec<f64> = counts.values().copied().map(f64::from).collect();
    let (sum, squares) = shares
        .iter()
        .fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
    let jain = sum * sum / (10.0 * squares);
    assert!(shares.len() == 10 && jain >= 0.99, "{jain}: {counts:?}");
    assert!(sum >= 1150.0, "{sum}: nothing is left unused");
}

#[tokio::test(start_paused = true)]
async fn posts_of_one_namespace_that_hang_do_not_hold_up_the_others() {
    let metrics = Arc::new(Metrics::default());
    let (client, sent) = api_server(|sent| {
        if sent.line.contains("/namespaces/stuck/") {
            Reply::Never
        } else {
            created()
        }
    });
    let queue = Queue::start(client, metrics.clone());
    for number in 0..100 {
        queue.push(event_in("stuck", &number.to_string()));
    }
    sleep(Duration::from_secs(1)).await;
    for number in 0..20 {
        queue.push(event_in("ns", &number.to_string()));
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(count(&metrics, "posted"), 20);
    assert_eq!(sent_by_namespace(&sent)["stuck"], 2);
}

#[tokio::test(start_paused = true)]
async fn at_the_end_events_are_dropped_and_counted_and_not_waited_for() {
    for reply in [Reply::Never, created()] {
        let metrics = Arc::new(Metrics::default());
        let (client, sent) = always(reply);
        let queue = Queue::start(client, metrics.clone());
        for number in 0..1000 {
            queue.push(event(&number.to_string()));
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
