//! Deadlines, times to live, progress, and events that return.

use crate::harness::{PATIENCE, PROJECT, Team, eventually, key, message, running, summary};
use serde_json::json;
use std::time::{Duration, Instant};
use testbed::ims::{Answer, Job, Start};

/// Waits until the object is deleted.
async fn until_deleted(team: &Team, name: &str) {
    let started = Instant::now();
    while team.jobs.get_opt(name).await.expect("an answer").is_some() {
        assert!(
            started.elapsed() < PATIENCE,
            "timed out: {name} to be deleted"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_job_is_stalled_and_polled_until_it_ends() {
    let team = Team::start("late").await;
    team.sim.put_job(running("late"));
    // 100 s of the operator's time are 2 s.
    team.create_with("late", json!({ "deadlineSeconds": 100 }))
        .await;

    let status = team.until_reason("late", "DeadlineExceeded").await;
    assert_eq!(
        summary(&status),
        [
            "Ready=False/DeadlineExceeded",
            "Stalled=True/DeadlineExceeded",
            "Succeeded=Unknown/DeadlineExceeded"
        ]
    );
    assert_eq!(status.status.as_deref(), Some("RUNNING"));
    assert_eq!(team.course("late"), ["JobRunning", "DeadlineExceeded"]);
    team.until_event("late", "Warning DeadlineExceeded: ").await;

    // A later deadline, which passes too.
    team.patch("late", json!({ "spec": { "deadlineSeconds": 150 } }))
        .await;
    let status = team.until_reason("late", "JobRunning").await;
    assert_eq!(status.observed_generation, Some(2));
    team.until_reason("late", "DeadlineExceeded").await;

    team.sim.put_job(Job::new(PROJECT, "late"));
    let status = team.until_reason("late", "JobSucceeded").await;
    assert!(status.image_id.is_some() && status.completion_time.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_passes_without_a_poll_too_and_the_message_names_the_obstacle() {
    let team = Team::start("late-secret").await;
    let spec = json!({
        "deadlineSeconds": 50,
        "cloudCredentialsRef": { "secretName": "none", "cloudName": "otc" },
    });
    team.create_with("x", spec).await;
    let status = team.until_reason("x", "DeadlineExceeded").await;
    let message = message(&status);
    assert!(
        message.contains("/none does not exist") && message.contains("spec.deadlineSeconds"),
        "{message}"
    );
    assert_eq!(team.polls("x"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_passes_while_no_operator_runs() {
    let mut team = Team::start("late-restart").await;
    team.sim.put_job(running("x"));
    team.create_with("x", json!({ "deadlineSeconds": 100 }))
        .await;
    team.until_reason("x", "JobRunning").await;
    team.operator().kill();
    // It passes while no operator runs; the next one shows it with its first answer.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    team.start_operator();
    team.until_reason("x", "DeadlineExceeded").await;
    let writes = team.writes("x");
    team.operator().kill();
    team.start_operator();
    let polls = team.polls("x");
    team.sim.polled(&key("x"), polls + 1).await;
    assert_eq!((team.writes("x"), writes), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_object_is_deleted_after_its_ttl() {
    let team = Team::start("ttl").await;
    for name in ["good", "kept", "open"] {
        team.sim.put_job(Job::new(PROJECT, name));
    }
    team.sim
        .put_job(Job::new(PROJECT, "bad").fails("IMG.0148", "No bucket."));
    team.sim.put_job(running("open"));
    let ttl = |seconds: u32| json!({ "ttlSecondsAfterFinished": seconds });
    team.create_with("good", ttl(0)).await;
    team.create_with("bad", ttl(100)).await;
    team.create_with("open", ttl(0)).await;
    team.create("kept").await;

    let bad = team.until_reason("bad", "JobFailed").await;
    let shown = Instant::now();
    until_deleted(&team, "good").await;
    assert_eq!(
        team.reasons("good").last().map(String::as_str),
        Some("JobSucceeded")
    );
    until_deleted(&team, "bad").await;
    // 2 s, from a time in whole seconds.
    assert!(
        shown.elapsed() >= Duration::from_millis(900),
        "{:?}",
        shown.elapsed()
    );
    assert!(bad.completion_time.is_some());
    let deleted = team
        .operator()
        .metric(r#"imageexport_deletions_total{result="deleted"}"#);
    assert!((deleted.await - 2.0).abs() < 0.5);

    for name in ["kept", "open"] {
        assert!(
            team.jobs.get_opt(name).await.expect("an answer").is_some(),
            "{name}"
        );
    }
    // A ttl that is set afterwards applies once it is acknowledged.
    team.patch("kept", json!({ "spec": ttl(1) })).await;
    until_deleted(&team, "kept").await;
    let last = team.versions("kept").pop().and_then(|object| object.status);
    assert_eq!(last.and_then(|status| status.observed_generation), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_under_constant_changes_is_deleted_and_its_successor_is_not() {
    let team = Team::start("ttl-race").await;
    team.follow(Job::new(PROJECT, "x")).await;
    team.until_reason("x", "JobSucceeded").await;
    team.patch("x", json!({ "spec": { "ttlSecondsAfterFinished": 0 } }))
        .await;
    for n in 0..10 {
        let labels = json!({ "metadata": { "labels": { "n": n.to_string() } } });
        let arguments = ["patch", "iej/x", "--type=merge", "-p", &labels.to_string()];
        // Fails once the object is deleted.
        let _ = team.kubectl(&arguments).run().expect("kubectl runs");
    }
    until_deleted(&team, "x").await;
    team.create("x").await;
    let successor = eventually("the successor", || {
        team.versions("x")
            .pop()
            .filter(|x| x.spec.ttl_seconds_after_finished.is_none())
    })
    .await;
    team.until_reason("x", "JobSucceeded").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let now = team.jobs.get("x").await.expect("it is still there");
    assert_eq!(now.metadata.uid, successor.metadata.uid);
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_shown_in_steps_and_publishes_no_event() {
    let team = Team::start("progress").await;
    let job = Job::new(PROJECT, "x")
        .starts(Start::FirstQuery)
        .running_for(Duration::from_secs(5));
    team.follow(job).await;
    team.until_reason("x", "JobSucceeded").await;

    let mut steps: Vec<i32> = team
        .versions("x")
        .iter()
        .filter_map(|object| object.status.as_ref()?.progress_percent)
        .collect();
    steps.dedup();
    assert!(
        steps.is_sorted() && steps.iter().all(|step| step % 10 == 0),
        "{steps:?}"
    );
    // At most one a minute of the operator's time, which is 1.2 s.
    assert!(
        (4..=7).contains(&steps.len()) && steps.last() == Some(&100),
        "{steps:?}"
    );
    let table = team
        .kubectl(&["get", "iej/x", "-o", "wide"])
        .success()
        .expect("a table");
    assert!(
        table.contains("PROGRESS") && table.contains(" 100 "),
        "{table}"
    );
    let events = team.until_event("x", "Normal JobSucceeded").await;
    assert_eq!(events.len(), 1, "{events:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_that_returns_publishes_an_event_again() {
    let team = Team::start("events-again").await;
    team.follow(running("x")).await;
    for n in 1..=3 {
        team.until_reason("x", "JobRunning").await;
        team.sim
            .script_forever(key("x"), Answer::preset("img-0026"));
        team.until_reason("x", "AccessDenied").await;
        team.sim.clear_script(key("x"));
        team.request_poll("x", &n.to_string()).await;
    }
    team.until_reason("x", "JobRunning").await;
    team.sim.put_job(Job::new(PROJECT, "x"));
    // Events are posted in order, so this one is the last.
    let events = team.until_event("x", "Normal JobSucceeded: ").await;
    let denied = |event: &&String| event.starts_with("Warning AccessDenied: ");
    assert_eq!(events.iter().filter(denied).count(), 3, "{events:#?}");
}
