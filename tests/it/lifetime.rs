//! What the spec limits in time, on a real API server: deadlines and times to live; and progress.

use crate::harness::{PATIENCE, PROJECT, Team, eventually, key, message, summary};
use serde_json::json;
use std::time::{Duration, Instant};
use testbed::ims::{Answer, End, Job, Start};

/// Waits until the API server has the object no more.
async fn until_deleted(team: &Team, name: &str) {
    let started = Instant::now();
    while team.jobs.get_opt(name).await.expect("an answer").is_some() {
        assert!(
            started.elapsed() < PATIENCE,
            "in vain: {name} to be deleted"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_job_stalls_goes_on_and_ends() {
    let team = Team::start("late").await;
    team.sim.put_job(Job::new(PROJECT, "late").ends(End::Never));
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

    // More time is given, and used up.
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
async fn a_job_that_nobody_could_ask_about_is_late_too_and_says_why() {
    let team = Team::start("late-secret").await;
    let spec = json!({
        "deadlineSeconds": 50,
        "cloudCredentialsRef": { "secretName": "none", "cloudName": "otc" },
    });
    team.create_with("x", spec).await;
    let status = team.until_reason("x", "DeadlineExceeded").await;
    let said = message(&status);
    assert!(
        said.contains("/none does not exist") && said.contains("spec.deadlineSeconds"),
        "{said}"
    );
    assert_eq!(team.polls("x"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_outlives_the_operator() {
    let mut team = Team::start("late-restart").await;
    team.sim.put_job(Job::new(PROJECT, "x").ends(End::Never));
    team.create_with("x", json!({ "deadlineSeconds": 100 }))
        .await;
    team.until_reason("x", "JobRunning").await;
    team.operator().kill();
    // It passes while no operator runs: known with the first answer of the next one.
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
async fn an_ended_object_goes_when_its_time_is_over() {
    let team = Team::start("ttl").await;
    for name in ["good", "kept", "open"] {
        team.sim.put_job(Job::new(PROJECT, name));
    }
    team.sim
        .put_job(Job::new(PROJECT, "bad").fails("IMG.0148", "No bucket."));
    team.sim.put_job(Job::new(PROJECT, "open").ends(End::Never));
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
    // 2 s, from a moment that is kept in whole seconds.
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
    // What is set afterwards counts, too, once it is acknowledged.
    team.patch("kept", json!({ "spec": ttl(1) })).await;
    until_deleted(&team, "kept").await;
    let last = team.versions("kept").pop().and_then(|object| object.status);
    assert_eq!(last.and_then(|status| status.observed_generation), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_changed_all_the_time_is_deleted_in_the_end_and_its_successor_is_not() {
    let team = Team::start("ttl-race").await;
    team.follow(Job::new(PROJECT, "x")).await;
    team.until_reason("x", "JobSucceeded").await;
    team.patch("x", json!({ "spec": { "ttlSecondsAfterFinished": 0 } }))
        .await;
    for n in 0..10 {
        let labels = json!({ "metadata": { "labels": { "n": n.to_string() } } });
        let arguments = ["patch", "iej/x", "--type=merge", "-p", &labels.to_string()];
        // In vain as soon as it is gone.
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
async fn progress_is_shown_in_steps_and_is_no_event() {
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
    let of_answers = events.iter().filter(|event| !event.contains(" Pending: "));
    assert_eq!(of_answers.count(), 2, "{events:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_of_reason_is_an_event_of_its_own() {
    let team = Team::start("events").await;
    team.follow(Job::new(PROJECT, "x").ends(End::Never)).await;
    for n in 1..=3 {
        team.until_reason("x", "JobRunning").await;
        team.sim
            .script_forever(key("x"), Answer::preset("img-0026"));
        team.until_reason("x", "AccessDenied").await;
        team.sim.clear_script(key("x"));
        team.request_poll("x", &n.to_string()).await;
    }
    team.until_reason("x", "JobRunning").await;
    let started = Instant::now();
    loop {
        let events = team.events("x").await;
        let denied = events.iter().filter(|e| e.contains(" AccessDenied: "));
        if denied.count() == 3 {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{events:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
