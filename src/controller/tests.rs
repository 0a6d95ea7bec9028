//! The control loop with an API server for unit tests, in paused time.

use super::{fake::*, *};
use crate::telemetry::Captured;
use serde_json::{Value, json};
use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};
use tokio::time::sleep;

/// Answers a list with these objects, a watch not at all, and anything else as `answer` says.
fn server(
    objects: Value,
    mut answer: impl FnMut(&Sent) -> Reply + Send + 'static,
) -> (Controller, Arc<Mutex<Vec<Sent>>>) {
    let (client, sent) = api_server(move |sent| {
        if sent.line.contains("watch=true") {
            Reply::Never
        } else if sent.line.contains("/imageexportjobs?") {
            let list = json!({ "metadata": { "resourceVersion": "9" }, "items": objects });
            Reply::json(200, &list)
        } else {
            answer(sent)
        }
    });
    (controller(client), sent)
}

/// The object, whose Secret does not exist; a write, which is answered by this.
fn one_write(reply: Reply) -> (Controller, Arc<Mutex<Vec<Sent>>>) {
    server(json!([object(&json!({}))]), move |sent| {
        if sent.line.starts_with("PUT ") {
            reply.clone()
        } else if sent.line.contains("/secrets/") {
            Reply::failure(404, &json!(null))
        } else {
            Reply::Never
        }
    })
}

fn lines(sent: &Mutex<Vec<Sent>>, beginning: &str) -> usize {
    let sent = sent.lock().unwrap();
    sent.iter()
        .filter(|sent| sent.line.starts_with(beginning))
        .count()
}

/// Stops the controller after `time`; returns how long it took to stop.
async fn stop_after(time: Duration, controller: Controller) -> Duration {
    let stop = CancellationToken::new();
    let running = tokio::spawn(controller.run(stop.clone()));
    sleep(time).await;
    stop.cancel();
    let stopped = Instant::now();
    running.await.unwrap();
    stopped.elapsed()
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn with_nothing_to_write_it_stops_at_once() {
    let (nothing_answers, _) = always(Reply::Never);
    let (no_objects, _) = server(json!([]), |_| Reply::Never);
    let (secret_unread, _) = server(json!([object(&json!({}))]), |_| Reply::Never);
    for controller in [controller(nothing_answers), no_objects, secret_unread] {
        assert_eq!(stop_after(SECOND, controller).await, Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_in_flight_is_waited_for_and_its_event_is_dropped() {
    let written = Reply::json(200, &object(&json!({})));
    let late = Reply::After(7 * SECOND, Box::new(written));
    let (controller, sent) = one_write(late);
    let metrics = controller.metrics.clone();
    let took = stop_after(5 * SECOND, controller).await;
    assert!((SECOND..=7 * SECOND).contains(&took), "{took:?}");
    assert_eq!(lines(&sent, "PUT "), 1);
    assert_eq!(lines(&sent, "GET /api/v1/namespaces/ns/secrets/otc"), 1);
    let counted = "imageexport_events_total{result=\"dropped\"} 1\n";
    assert!(metrics.encode().contains(counted), "{}", metrics.encode());
}

#[tokio::test(start_paused = true)]
async fn a_status_that_cannot_be_written_is_given_up_within_15_seconds() {
    for reply in [Reply::Never, Reply::Lost, Reply::failure(500, &json!(null))] {
        let (controller, sent) = one_write(reply);
        let took = stop_after(12 * SECOND, controller).await;
        assert_eq!(took, 14 * SECOND);
        assert!(lines(&sent, "PUT ") >= 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_not_posted_does_not_keep_it_from_stopping() {
    let (controller, sent) = one_write(Reply::json(200, &object(&json!({}))));
    assert_eq!(stop_after(12 * SECOND, controller).await, Duration::ZERO);
    assert!(lines(&sent, "POST /apis/events.k8s.io/") >= 1);
}

#[tokio::test(start_paused = true)]
async fn polls_in_flight_have_a_second_to_end() {
    for (poll, expected) in [(SECOND / 2, SECOND / 2), (SECOND * 60, SECOND)] {
        let (client, _) = always(Reply::Never);
        let mut control = ControlLoop::new(controller(client), election::endless());
        control.turn(&mut Vec::new());
        control.runner.polls.spawn(sleep(poll));
        let started = Instant::now();
        control.drain().await;
        // Timers have a resolution of a millisecond.
        assert_eq!(started.elapsed().as_millis(), expected.as_millis());
    }
}

/// The messages of this module with these counts of what is pending.
fn messages(log: &Captured) -> Vec<String> {
    let lines = log.of("");
    let lines = lines.iter().map(|line| {
        let message = line["message"].as_str().unwrap();
        format!(
            "{} {message} {} {}",
            line["level"].as_str().unwrap(),
            line["polls"],
            line["api_calls"]
        )
    });
    lines.collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_pending_at_the_end_is_logged() {
    let (log, _guard) = Captured::start();
    let (controller, _) = server(json!([object(&json!({}))]), |_| Reply::Never);
    stop_after(SECOND, controller).await;
    let stopping = "INFO shutting down null null".to_owned();
    let repeated = "INFO the next start repeats what is in flight 0 1".to_owned();
    assert_eq!(messages(&log), [stopping.clone(), repeated]);

    let (log, _guard) = Captured::start();
    let (controller, _) = one_write(Reply::Never);
    stop_after(12 * SECOND, controller).await;
    let given_up = "WARN gave up waiting after 14 s: the next start writes the statuses that are not \
                    written 0 1";
    assert_eq!(messages(&log), [stopping.clone(), given_up.to_owned()]);

    let (log, _guard) = Captured::start();
    let (controller, _) = server(json!([]), |_| Reply::Never);
    stop_after(SECOND, controller).await;
    assert_eq!(messages(&log), [stopping]);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_does_not_decode_is_logged_and_an_event_of_it_posted() {
    let (log, _guard) = Captured::start();
    let mut object = object(&json!({}));
    object["spec"] = json!({});
    let (controller, sent) = server(json!([object]), |_| Reply::Never);
    stop_after(SECOND, controller).await;
    let logged = log.of("::transitions");
    assert_eq!(logged.len(), 1, "{logged:?}");
    let note = "This object is not followed, because it cannot be read: missing field `projectID`.";
    assert_eq!(
        (&logged[0]["level"], &logged[0]["message"]),
        (&"WARN".into(), &note.into())
    );
    assert_eq!(lines(&sent, "POST /apis/events.k8s.io/"), 1);
}

#[tokio::test(start_paused = true)]
async fn each_namespace_has_a_watch_and_all_of_them_have_to_be_listed() {
    let list = "/apis/imageexport.dev/v1alpha1/namespaces/two/imageexportjobs?&limit";
    for (answers, ready) in [(true, true), (false, false)] {
        let (client, sent) = api_server(move |sent| {
            if sent.line.contains("watch=true") || sent.line.contains(list) && !answers {
                return Reply::Never;
            }
            let list = json!({ "metadata": { "resourceVersion": "9" }, "items": [] });
            Reply::json(200, &list)
        });
        let mut controller = controller(client);
        controller.namespaces = vec!["one".to_owned(), "two".to_owned()];
        let health = controller.health.clone();
        stop_after(SECOND, controller).await;
        assert_eq!(health.ready().is_ok(), ready);
        assert_eq!(lines(&sent, &format!("GET {list}")), 1);
        let one = "GET /apis/imageexport.dev/v1alpha1/namespaces/one/imageexportjobs?&";
        // A list and a watch.
        assert_eq!(lines(&sent, one), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn while_it_runs_it_is_live_and_ready_and_its_gauges_are_up_to_date() {
    let (controller, _) = one_write(Reply::json(200, &object(&json!({}))));
    let (health, metrics) = (controller.health.clone(), controller.metrics.clone());
    assert!(health.ready().is_err());
    let stop = CancellationToken::new();
    let running = tokio::spawn(controller.run(stop.clone()));
    sleep(2 * SECOND).await;
    assert_eq!(health.ready(), Ok(()));
    // Through 10 minutes without any input.
    for _ in 0..600 {
        sleep(SECOND).await;
        assert_eq!(health.live(), Ok(()));
    }
    let text = metrics.encode();
    for line in [
        "imageexport_objects{reason=\"CredentialsNotFound\"} 1\n",
        "imageexport_status_writes_total{result=\"written\"} 1\n",
        "imageexport_status_writes_in_flight 0\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    stop.cancel();
    running.await.unwrap();
}

/// Rights are taken away while a watch is open, for ten minutes.
#[tokio::test(start_paused = true)]
async fn without_rights_it_is_not_ready_says_so_once_a_minute_and_recovers_by_itself() {
    let (log, _guard) = Captured::start();
    let may = Arc::new(AtomicBool::new(true));
    let allowed = may.clone();
    let controller = observed(move |sent| {
        if !allowed.load(Ordering::Relaxed) {
            Reply::failure(403, &json!(null))
        } else if sent.line.contains("watch=true") {
            Reply::After(50 * SECOND, Box::new(Reply::Text(200, String::new())))
        } else if sent.line.contains("/imageexportjobs?") {
            Reply::json(
                200,
                &json!({ "metadata": { "resourceVersion": "9" }, "items": [] }),
            )
        } else {
            Reply::failure(404, &json!(null))
        }
    });
    let health = controller.health.clone();
    let stop = CancellationToken::new();
    let running = tokio::spawn(controller.run(stop.clone()));
    let warnings = || {
        let lines = log.of("").into_iter();
        let messages = lines.map(|line| line["message"].as_str().unwrap().to_owned());
        messages
            .filter(|line| line.contains("rejected every call"))
            .collect::<Vec<_>>()
    };
    sleep(2 * SECOND).await;
    assert_eq!((health.ready(), warnings().len()), (Ok(()), 0));

    may.store(false, Ordering::Relaxed);
    sleep(60 * SECOND).await;
    assert_eq!(
        health.ready(),
        Ok(()),
        "the watch was open for most of the time"
    );
    sleep(540 * SECOND).await;
    let problem = health.ready().unwrap_err();
    assert!(
        problem.ends_with("s (403): apply the RBAC in deploy/"),
        "{problem}"
    );
    // From about the third minute on.
    let lines = warnings();
    assert!((7..=9).contains(&lines.len()), "{lines:?}");

    may.store(true, Ordering::Relaxed);
    // The pause before the next watch, and its time here until it is answered.
    sleep(100 * SECOND).await;
    let said = warnings().len();
    sleep(200 * SECOND).await;
    assert_eq!((health.ready(), warnings().len()), (Ok(()), said));
    stop.cancel();
    running.await.unwrap();
}

/// The API server answers every call with an error, for six minutes.
#[tokio::test(start_paused = true)]
async fn it_is_not_ready_once_no_watch_was_accepted_for_5_minutes_and_recovers_by_itself() {
    let fails = Arc::new(AtomicBool::new(false));
    let failing = fails.clone();
    let controller = observed(move |sent| {
        if failing.load(Ordering::Relaxed) {
            Reply::failure(503, &json!(null))
        } else if sent.line.contains("watch=true") {
            Reply::After(50 * SECOND, Box::new(Reply::Text(200, String::new())))
        } else {
            let list = json!({ "metadata": { "resourceVersion": "9" }, "items": [] });
            Reply::json(200, &list)
        }
    });
    let health = controller.health.clone();
    let stop = CancellationToken::new();
    let running = tokio::spawn(controller.run(stop.clone()));
    // While no object changes, only the watches that are accepted anew show that all is well.
    for _ in 0..10 {
        sleep(60 * SECOND).await;
        assert_eq!(health.ready(), Ok(()));
    }
    fails.store(true, Ordering::Relaxed);
    sleep(240 * SECOND).await;
    assert_eq!(health.ready(), Ok(()));
    sleep(120 * SECOND).await;
    let problem = health.ready().unwrap_err();
    let names =
        "all namespaces: the API server answered 503: changes of objects have not been seen";
    assert!(problem.starts_with(names), "{problem}");
    assert_eq!(health.live(), Ok(()), "a restart does not help");
    fails.store(false, Ordering::Relaxed);
    sleep(70 * SECOND).await;
    assert_eq!(health.ready(), Ok(()));
    stop.cancel();
    running.await.unwrap();
}
