//! Objects that change while a poll or a write of theirs is in flight.

use crate::harness::{
    Operator, PROJECT, TOKEN, Team, cluster, condition, eventually, key, running, summary,
};
use image_export_api::ImageExportJob;
use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use testbed::ims::{self, Answer, Gate, Job, Simulator, Target};

fn uid(object: &ImageExportJob) -> String {
    object
        .metadata
        .uid
        .clone()
        .expect("a stored object has one")
}

/// The reasons of `Ready` that this incarnation of the object has shown.
fn reasons_of(team: &Team, name: &str, incarnation: &ImageExportJob) -> Vec<String> {
    let mut reasons: Vec<String> = team
        .versions(name)
        .iter()
        .filter(|object| uid(object) == uid(incarnation))
        .filter_map(|object| Some(condition(object.status.as_ref()?, "Ready")?.reason.clone()))
        .collect();
    reasons.dedup();
    reasons
}

const DROPPED: &str = "imageexport_dropped_answers_total";

#[tokio::test(flavor = "multi_thread")]
async fn an_object_recreated_while_its_poll_is_in_flight_does_not_get_the_old_answer() {
    let team = Team::start("recreated").await;
    let (old, new) = (Gate::new(), Gate::new());
    team.sim.script(
        key("same"),
        [
            Answer::preset("fail").held_by(&old),
            Answer::pass().held_by(&new),
        ],
    );
    team.follow(running("same")).await;
    old.arrived(1).await;
    team.delete("same").await;
    let object = team.create("same").await;
    new.arrived(1).await;

    old.open();
    team.operator().until_metric(DROPPED, 1.0).await;
    new.open();
    team.until_reason("same", "JobRunning").await;
    team.sim.polled(&key("same"), 5).await;
    let reasons = reasons_of(&team, "same", &object);
    assert!(
        !reasons.iter().any(|reason| reason == "JobFailed"),
        "{reasons:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_recreated_for_another_job_shows_only_that_job() {
    let team = Team::start("rededicated").await;
    let gate = Gate::new();
    team.sim
        .script(key("first"), [Answer::preset("fail").held_by(&gate)]);
    team.sim.put_job(Job::new(PROJECT, "first"));
    team.sim
        .put_job(Job::new(PROJECT, "second").image_id("image-of-the-second"));
    team.create_with("moved", json!({ "jobID": "first" })).await;
    gate.arrived(1).await;
    team.delete("moved").await;
    let object = team
        .create_with("moved", json!({ "jobID": "second" }))
        .await;

    let status = team.until_reason("moved", "JobSucceeded").await;
    gate.open();
    team.operator().until_metric(DROPPED, 1.0).await;
    assert_eq!(status.image_id.as_deref(), Some("image-of-the-second"));
    let reasons = reasons_of(&team, "moved", &object);
    assert!(
        !reasons.iter().any(|reason| reason == "JobFailed"),
        "{reasons:?}"
    );
    assert_eq!(team.polls("first"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_recreated_before_the_old_ones_end_is_written_does_not_get_that_end() {
    let team = Team::start("overtaken").await;
    let names = ["one", "two", "three", "four"];
    let gate = Gate::new();
    for name in names {
        team.sim
            .script(key(name), [Answer::preset("fail").held_by(&gate)]);
        team.follow(running(name)).await;
    }
    gate.arrived(names.len()).await;

    // While the process is stopped, its answers and its watch become stale together; once it
    // continues it writes the ends of objects that have been replaced.
    team.operator().pause();
    gate.open();
    let mut objects = Vec::new();
    for name in names {
        team.delete(name).await;
        objects.push(team.create(name).await);
    }
    team.operator().resume();

    for (name, object) in names.into_iter().zip(&objects) {
        team.until_reason(name, "JobRunning").await;
        team.sim.polled(&key(name), 5).await;
        let reasons = reasons_of(&team, name, object);
        assert!(
            !reasons.iter().any(|reason| reason == "JobFailed"),
            "{name}: {reasons:?}"
        );
    }
    assert!(team.operator().is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_deleted_during_its_poll_causes_no_write_and_no_warning() {
    let team = Team::start("deleted").await;
    let gate = Gate::new();
    team.sim
        .script(key("short"), [Answer::preset("fail").held_by(&gate)]);
    team.follow(Job::new(PROJECT, "short")).await;
    gate.arrived(1).await;
    team.until_reason("short", "Pending").await;
    team.delete("short").await;
    // Once a later object is tracked, the watch has delivered the deletion.
    team.follow(Job::new(PROJECT, "later")).await;
    team.until_reason("later", "JobSucceeded").await;
    gate.open();
    team.operator().until_metric(DROPPED, 1.0).await;

    // The one before the deletion, and those of the other object, which may have been Pending too.
    let written = 1 + team.reasons("later").len();
    let (_, metrics) = team.operator().get("/metrics").await;
    let writes: Vec<_> = metrics
        .lines()
        .filter(|line| line.starts_with("imageexport_status_writes_total") && !line.ends_with(" 0"))
        .collect();
    assert_eq!(
        writes,
        [format!(
            r#"imageexport_status_writes_total{{result="written"}} {written}"#
        )]
    );
    let events = team.events("short").await;
    assert!(
        !events.iter().any(|event| event.contains("JobFailed")),
        "{events:?}"
    );
    let log = team.operator().log();
    let warnings: Vec<_> = log
        .lines()
        .filter(|line| line.contains(r#""level":"ERROR""#) || line.contains(r#""level":"WARN""#))
        .filter(|line| line.contains("short"))
        .collect();
    assert_eq!(warnings, Vec::<&str>::new());
}

/// Changes labels of the object in twelve tasks, as fast as the API server allows, until `stop`.
fn churn(team: &Team, name: &'static str) -> (Arc<AtomicBool>, Arc<AtomicU64>) {
    let (stop, changes) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    for task in 0..12 {
        let (stop, changes, jobs) = (stop.clone(), changes.clone(), team.jobs.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let value = changes.fetch_add(1, Ordering::Relaxed).to_string();
                let patch = json!({ "metadata": { "labels": { format!("churn-{task}"): value } } });
                let parameters = kube::api::PatchParams::default();
                let patch = kube::api::Patch::Merge(patch);
                jobs.patch(name, &parameters, &patch)
                    .await
                    .expect("patched");
            }
        });
    }
    (stop, changes)
}

#[tokio::test(flavor = "multi_thread")]
async fn constant_label_edits_neither_delay_a_status_nor_cause_a_poll() {
    let mut team = Team::without_operator("churn").await;
    team.follow(running("churned")).await;
    let (stop, changes) = churn(&team, "churned");
    // No poll but the first one and that of a request within this test.
    let arguments = ["--namespace", &team.namespace, "--poll-period", "86400"];
    team.operator = Some(Operator::start(cluster(), &arguments));
    team.until_reason("churned", "JobRunning").await;
    let before = changes.load(Ordering::Relaxed);
    eventually("a hundred further label edits", || {
        (changes.load(Ordering::Relaxed) > before + 100).then_some(())
    })
    .await;

    // The request comes after those edits, and so does its poll.
    team.sim.put_job(Job::new(PROJECT, "churned"));
    team.request_poll("churned", "now").await;
    team.until_reason("churned", "JobSucceeded").await;
    team.until("churned", "to echo the request", |status| {
        status.last_handled_poll_request.is_some()
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    assert_eq!(team.course("churned"), ["JobRunning", "JobSucceeded"]);
    assert_eq!(team.polls("churned"), 2);
    // The echo may be in the write of the end or in one of its own.
    let writes = team.writes("churned");
    assert!((2..=3).contains(&writes), "{writes} writes");
    // After three conflicts in a row the write has a weaker precondition, which labels do not fail.
    // `Pending` may have been written besides.
    let conflicts = r#"imageexport_status_writes_total{result="conflict"}"#;
    let conflicts = team.operator().metric(conflicts).await;
    let bound = f64::from(u32::try_from(3 * (writes + 1)).expect("a few"));
    assert!(conflicts <= bound, "{conflicts} conflicts, {writes} writes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_that_hangs_delays_no_object_of_another_cloud() {
    let team = Team::start("hanging").await;
    let broken = Simulator::start(ims::Config::default()).expect("a simulator");
    let gate = Gate::new();
    broken.script_forever(Target::Jobs, Answer::hang().held_by(&gate));
    let clouds = team.clouds_yaml().replace(&team.sim.url(), &broken.url());
    team.put_secret("broken", &clouds);
    // More than may be in flight at one endpoint.
    for n in 0..70 {
        let reference = json!({ "secretName": "broken", "cloudName": "otc" });
        team.create_with(
            &format!("stuck-{n}"),
            json!({ "cloudCredentialsRef": reference }),
        )
        .await;
    }
    gate.arrived(64).await;

    for n in 0..5 {
        team.follow(Job::new(PROJECT, format!("good-{n}"))).await;
    }
    for n in 0..5 {
        let status = team
            .until_reason(&format!("good-{n}"), "JobSucceeded")
            .await;
        assert_eq!(
            summary(&status),
            ["Ready=True/JobSucceeded", "Succeeded=True/JobSucceeded"]
        );
    }
    // The others still hang.
    gate.arrived(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_changed_during_a_poll_are_used_by_the_next_one() {
    let team = Team::start("swapped").await;
    let other = Simulator::start(ims::Config::default()).expect("a simulator");
    other.add_token(TOKEN, Some(PROJECT));
    other.put_job(Job::new(PROJECT, "swapped").image_id("image-of-the-other-cloud"));
    let clouds = team.clouds_yaml().replace(&team.sim.url(), &other.url());
    team.put_secret("other", &clouds);
    let gate = Gate::new();
    team.sim
        .script(key("swapped"), [Answer::preset("forbidden").held_by(&gate)]);
    team.follow(Job::new(PROJECT, "swapped")).await;
    gate.arrived(1).await;

    let reference = json!({ "secretName": "other" });
    team.patch(
        "swapped",
        json!({ "spec": { "cloudCredentialsRef": reference } }),
    )
    .await;
    team.until("swapped", "to show the new generation", |status| {
        status.observed_generation == Some(2)
    })
    .await;
    gate.open();
    let status = team.until_reason("swapped", "JobSucceeded").await;
    assert_eq!(team.reasons("swapped"), ["Pending", "JobSucceeded"]);
    assert_eq!(status.image_id.as_deref(), Some("image-of-the-other-cloud"));
    assert_eq!(status.observed_generation, Some(2));
    assert_eq!(
        (team.polls("swapped"), other.polls(&key("swapped"))),
        (1, 1)
    );
}
