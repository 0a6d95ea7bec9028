//! Every version in the lifecycle of an object, also those between a change of the spec and its
//! acknowledgement.

use super::{
    Meaning::{self, InProgress, Stalled, Succeeded, Suspended, Unacknowledged},
    assert_valid, conditions, describe, judge,
    record::Record,
};
use crate::harness::{GRACE_SCALE, PROJECT, Team, key, running};
use image_export_api::ImageExportJob;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use testbed::ims::{Answer, Job};

/// Has the simulator give this answer to every poll from now on.
fn answer(team: &Team, name: &str, preset: &str) {
    team.sim.clear_script(key(name));
    team.sim.script_forever(key(name), Answer::preset(preset));
}

/// The `deadlineSeconds` that an object exceeds in about this many seconds by the clock, with `GRACE_SCALE`.
fn deadline_in(seconds: f64, object: &ImageExportJob) -> u32 {
    let created = object
        .metadata
        .creation_timestamp
        .as_ref()
        .expect("a time")
        .0;
    let age = Timestamp::now().duration_since(created).as_secs_f64();
    let scaled = ((age + seconds) / GRACE_SCALE).ceil();
    format!("{scaled}").parse().expect("a whole number")
}

/// The meanings of an object, in their order, without repetitions.
fn meanings(versions: &[Value]) -> Vec<Meaning> {
    let mut meanings: Vec<Meaning> = versions.iter().map(Meaning::of).collect();
    meanings.dedup();
    meanings
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_read_every_version_right_while_a_job_fails_polls_is_suspended_is_late_and_succeeds()
{
    let team = Team::start_for_graces("late-success").await;
    let record = Record::of(&team);
    answer(&team, "job", "init");
    let object = team.create("job").await;
    record.until_reason("job", "JobInitializing").await;
    answer(&team, "job", "running");
    record.until_reason("job", "JobRunning").await;
    answer(&team, "job", "unavailable");
    record.until_reason("job", "PollFailed").await;
    answer(&team, "job", "running");
    team.request_poll("job", "the cloud is available").await;
    record.until_reason("job", "JobRunning").await;
    for (suspend, reason) in [(true, "Suspended"), (false, "JobRunning")] {
        team.patch("job", json!({ "spec": { "suspend": suspend } }))
            .await;
        record.until_reason("job", reason).await;
    }
    let deadline = deadline_in(1.0, &object);
    team.patch("job", json!({ "spec": { "deadlineSeconds": deadline } }))
        .await;
    record.until_reason("job", "DeadlineExceeded").await;
    answer(&team, "job", "success");
    team.request_poll("job", "late, but well").await;
    record.until_reason("job", "JobSucceeded").await;
    team.patch("job", json!({ "spec": { "suspend": true } }))
        .await;
    record
        .until("job", "be acknowledged", |object| {
            object["status"]["observedGeneration"] == 5
        })
        .await;

    let versions = record.versions("job");
    assert_valid(&versions);
    let meanings = meanings(&versions);
    for meaning in [InProgress, Suspended, Stalled, Succeeded] {
        assert!(meanings.contains(&meaning), "{meaning:?} in {meanings:?}");
    }
    let unacknowledged = meanings.iter().filter(|&&one| one == Unacknowledged);
    assert_eq!(
        unacknowledged.count(),
        5,
        "new, and after four changes: {meanings:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_read_every_version_right_while_a_job_runs_and_fails() {
    let team = Team::start("failure").await;
    let record = Record::of(&team);
    answer(&team, "job", "running");
    team.create("job").await;
    record.until_reason("job", "JobRunning").await;
    team.patch("job", json!({ "spec": { "pollPeriodSeconds": 5 } }))
        .await;
    record.until_reason("job", "JobRunning").await;
    answer(&team, "job", "fail");
    record.until_reason("job", "JobFailed").await;
    team.patch("job", json!({ "spec": { "suspend": true } }))
        .await;
    record
        .until("job", "be acknowledged", |object| {
            object["status"]["observedGeneration"] == 3
        })
        .await;

    let versions = record.versions("job");
    assert_valid(&versions);
    assert_eq!(
        meanings(&versions),
        [
            Unacknowledged,
            InProgress,
            Unacknowledged,
            InProgress,
            Stalled,
            Unacknowledged,
            Stalled
        ]
    );
}

/// A merge patch of the status that adds conditions owned by others.
fn with_unowned(object: &Value, observed_generation: Option<i64>) -> Value {
    let mut all: Vec<Value> = conditions(object).cloned().collect();
    for (type_, status) in [
        ("example.com/Scanned", "False"),
        ("Failed", "True"),
        ("Complete", "True"),
        ("Available", "False"),
    ] {
        let mut unowned = json!({
            "type": type_, "status": status, "reason": "Theirs", "message": "not the operator's",
            "lastTransitionTime": "2026-01-02T03:04:05Z",
        });
        if let Some(generation) = observed_generation {
            unowned["observedGeneration"] = generation.into();
        }
        all.push(unowned);
    }
    json!({ "conditions": all })
}

fn is_unowned(condition: &Value) -> bool {
    condition["reason"] == "Theirs"
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_owned_by_others_change_no_tool_verdict() {
    let team = Team::start("neighbours").await;
    let record = Record::of(&team);
    for name in ["good", "bad"] {
        team.follow(running(name)).await;
        let object = record.until_reason(name, "JobRunning").await;
        team.patch_status(name, with_unowned(&object, (name == "bad").then_some(1)))
            .await;
    }
    for (suspend, reason) in [(true, "Suspended"), (false, "JobRunning")] {
        for name in ["good", "bad"] {
            team.patch(name, json!({ "spec": { "suspend": suspend } }))
                .await;
            record.until_reason(name, reason).await;
        }
    }
    team.sim.put_job(Job::new(PROJECT, "good"));
    team.sim
        .put_job(Job::new(PROJECT, "bad").fails("IMG.0148", "No bucket."));
    record.until_reason("good", "JobSucceeded").await;
    record.until_reason("bad", "JobFailed").await;

    for name in ["good", "bad"] {
        let mut versions = record.versions(name);
        versions.retain(|object| conditions(object).any(is_unowned));
        assert!(versions.len() >= 5, "{name}: {}", versions.len());
        let mut alone = versions.clone();
        for object in &mut alone {
            let conditions = object["status"]["conditions"]
                .as_array_mut()
                .expect("a list");
            conditions.retain(|condition| !is_unowned(condition));
        }
        for ((object, with), without) in versions.iter().zip(judge(&versions)).zip(judge(&alone)) {
            let what = describe(object);
            assert_eq!(with.kstatus, without.kstatus, "{what}");
            assert_eq!(with.flux_kstatus, without.flux_kstatus, "{what}");
            assert_eq!(with.argo, without.argo, "{what}");
            assert_eq!(with.argo_actions, without.argo_actions, "{what}");
        }
    }
    // Flux's checker wants an observedGeneration in each condition of an object that is Ready, also in
    // those owned by others. The operator does not change them: their owner has to set it.
    let with = record.versions("good").pop().expect("a version");
    let [verdict] = &judge(&[with])[..] else {
        panic!("one verdict")
    };
    assert!(
        verdict
            .flux_at_rest
            .iter()
            .any(|failure| failure.contains("example.com/Scanned")),
        "{:#?}",
        verdict.flux_at_rest
    );
}
