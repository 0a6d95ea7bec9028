//! Deadlines, times to live, progress, and events that return.

use crate::harness::{Launch, PATIENCE, PROJECT, Team, eventually, key, message, running, summary};
use serde_json::json;
use std::time::{Duration, Instant};
use testbed::ims::{Answer, Job};

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

/// A deadline that passes by itself, 50 s by the operator's time after the object was created, which are
/// 1 s by the clock. On a slow machine it may have passed before it is set: it is shown all the same.
const SOON: u32 = 50;
/// A deadline that passes in no test.
const FAR: u32 = 31_536_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_late_job_is_stalled_and_polled_until_it_ends() {
    let team = Team::start("late").await;
    team.follow(running("late")).await;
    team.until_reason("late", "JobRunning").await;
    team.patch("late", json!({ "spec": { "deadlineSeconds": SOON } }))
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

    // A later deadline, and again one that passes.
    team.patch("late", json!({ "spec": { "deadlineSeconds": FAR } }))
        .await;
    let status = team.until_reason("late", "JobRunning").await;
    assert_eq!(status.observed_generation, Some(3));
    team.patch("late", json!({ "spec": { "deadlineSeconds": SOON } }))
        .await;
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
    team.until("x", "to name both", |status| {
        let message = message(status);
        message.contains("/none does not exist") && message.contains("spec.deadlineSeconds")
    })
    .await;
    team.until_reason("x", "DeadlineExceeded").await;
    assert_eq!(team.polls("x"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_passes_while_no_operator_runs() {
    // The deadline is 5 minutes ahead by the clock of the first operator, and 0.6 s by that of the others:
    // on any machine it is ahead for the one and has passed when the next one starts.
    let launch = |scale| Launch {
        scale,
        ..Launch::default()
    };
    let mut team = Team::without_operator("late-restart").await;
    team.start_operator_as(launch(0.5), &[]);
    team.sim.put_job(running("x"));
    team.create_with("x", json!({ "deadlineSeconds": 600 }))
        .await;
    team.until_reason("x", "JobRunning").await;
    team.operator().kill();
    tokio::time::sleep(Duration::from_secs(1)).await;
    team.start_operator_as(launch(0.001), &[]);
    team.until_reason("x", "DeadlineExceeded").await;

    // The next one finds the status as it is; the write of the end is the next one.
    team.operator().kill();
    team.start_operator_as(launch(0.001), &[]);
    let polls = team.polls("x");
    team.sim.polled(&key("x"), polls + 2).await;
    team.sim.put_job(Job::new(PROJECT, "x"));
    team.until_reason("x", "JobSucceeded").await;
    assert_eq!(
        team.course("x"),
        ["JobRunning", "DeadlineExceeded", "JobSucceeded"]
    );
    assert_eq!(team.writes("x"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_object_is_deleted_after_its_ttl() {
    let team = Team::start("ttl").await;
    for name in ["good", "kept", "later"] {
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
    team.create_with("later", ttl(FAR)).await;

    // A deleted object had shown its end. That none is deleted early is tested in virtual time, by
    // `a_finished_object_is_deleted_after_its_ttl_and_not_before` of the core.
    for (name, reason) in [("good", "JobSucceeded"), ("bad", "JobFailed")] {
        until_deleted(&team, name).await;
        let status = team.until_reason(name, reason).await;
        assert!(status.completion_time.is_some(), "{name}");
    }
    for name in ["kept", "later"] {
        team.until_reason(name, "JobSucceeded").await;
    }
    let deleted = r#"imageexport_deletions_total{result="deleted"}"#;
    let deleted = team.operator().until_metric(deleted, 2.0).await;
    assert!((deleted - 2.0).abs() < 0.5, "{deleted}");

    for name in ["kept", "later", "open"] {
        assert!(
            team.jobs.get_opt(name).await.expect("an answer").is_some(),
            "{name}"
        );
    }
    // A ttl that is set afterwards applies once it is acknowledged.
    team.patch("kept", json!({ "spec": ttl(1) })).await;
    until_deleted(&team, "kept").await;
    team.until("kept", "to have acknowledged it", |status| {
        status.observed_generation == Some(2)
    })
    .await;
    // Deletions are sent in order: one of another object would have come before that.
    for name in ["later", "open"] {
        assert!(
            team.jobs.get_opt(name).await.expect("an answer").is_some(),
            "{name}"
        );
    }
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
    // Deletions are sent in order: that of the successor would come before this one.
    team.sim.put_job(Job::new(PROJECT, "last"));
    team.create_with("last", json!({ "ttlSecondsAfterFinished": 0 }))
        .await;
    until_deleted(&team, "last").await;
    let now = team.jobs.get("x").await.expect("it is still there");
    assert_eq!(now.metadata.uid, successor.metadata.uid);
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_shown_in_steps_and_publishes_no_event() {
    let team = Team::start("progress").await;
    let at = |percent: &str| {
        let body = r#"{"job_id":"{job_id}","status":"RUNNING","entities":{"process_percent":"#;
        Answer::json(200, format!("{body}{percent}}}}}"))
    };
    // Each answer is given until it is shown. That there is at most one step a minute is tested in
    // virtual time, by `progress_rises_in_steps_of_10_at_most_once_a_minute` of the core.
    team.sim.script_forever(key("x"), at("0.34"));
    team.create("x").await;
    let until_step = async |step| {
        team.until("x", "to show the step", |status| {
            status.progress_percent == Some(step)
        })
        .await
    };
    until_step(30).await;
    // No further step.
    team.sim.script_forever(key("x"), at("0.39"));
    team.sim.polled(&key("x"), team.polls("x") + 3).await;
    team.sim.script_forever(key("x"), at("0.78"));
    until_step(70).await;
    team.sim
        .script_forever(key("x"), Answer::preset("success-with-error"));
    team.until_reason("x", "JobSucceeded").await;

    let mut steps: Vec<i32> = team
        .versions("x")
        .iter()
        .filter_map(|object| object.status.as_ref()?.progress_percent)
        .collect();
    steps.dedup();
    assert_eq!(steps, [30, 70, 100]);
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
