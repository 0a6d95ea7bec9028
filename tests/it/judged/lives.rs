//! Each moment of an object's life: every version that the watch showed, also between a change of the
//! spec and its acknowledgement.

use super::{
    Stand::{self, InMotion, Stalled, Succeeded, Suspended, Unacknowledged},
    assert_all_is_right, conditions, describe, judge,
    record::Record,
    running,
};
use crate::harness::{PROJECT, Team, key};
use image_export_api::ImageExportJob;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use testbed::ims::{Answer, Job};

/// Answers like this from now on.
fn answer(team: &Team, name: &str, preset: &str) {
    team.sim.clear_script(key(name));
    team.sim.script_forever(key(name), Answer::preset(preset));
}

/// `deadlineSeconds` of an object that is to be overdue in about this many seconds by the clock.
fn deadline_in(seconds: f64, object: &ImageExportJob) -> u32 {
    let created = object
        .metadata
        .creation_timestamp
        .as_ref()
        .expect("a time")
        .0;
    let lived = Timestamp::now().duration_since(created).as_secs_f64();
    let scaled = ((lived + seconds) / crate::harness::SCALE).ceil();
    format!("{scaled}").parse().expect("a whole number")
}

/// What an object stood for, one after the other.
fn course(versions: &[Value]) -> Vec<Stand> {
    let mut course: Vec<Stand> = versions.iter().map(Stand::of).collect();
    course.dedup();
    course
}

#[tokio::test(flavor = "multi_thread")]
async fn no_tool_is_misled_at_any_moment_of_a_life_with_every_kind_of_trouble() {
    let team = Team::start("long-life").await;
    let record = Record::of(&team);
    answer(&team, "life", "init");
    let object = team.create("life").await;
    record.until_reason("life", "JobInitializing").await;
    answer(&team, "life", "running");
    record.until_reason("life", "JobRunning").await;
    answer(&team, "life", "unavailable");
    record.until_reason("life", "PollFailed").await;
    answer(&team, "life", "running");
    team.request_poll("life", "the cloud is back").await;
    record.until_reason("life", "JobRunning").await;
    for (suspend, reason) in [(true, "Suspended"), (false, "JobRunning")] {
        team.patch("life", json!({ "spec": { "suspend": suspend } }))
            .await;
        record.until_reason("life", reason).await;
    }
    let deadline = deadline_in(1.0, &object);
    team.patch("life", json!({ "spec": { "deadlineSeconds": deadline } }))
        .await;
    record.until_reason("life", "DeadlineExceeded").await;
    answer(&team, "life", "success");
    team.request_poll("life", "late, but well").await;
    record.until_reason("life", "JobSucceeded").await;
    team.patch("life", json!({ "spec": { "suspend": true } }))
        .await;
    record
        .until("life", "be acknowledged", |object| {
            object["status"]["observedGeneration"] == 5
        })
        .await;

    let versions = record.versions("life");
    assert_all_is_right(&versions);
    let course = course(&versions);
    for stand in [InMotion, Suspended, Stalled, Succeeded] {
        assert!(course.contains(&stand), "{stand:?} in {course:?}");
    }
    let unacknowledged = course.iter().filter(|stand| **stand == Unacknowledged);
    assert_eq!(
        unacknowledged.count(),
        5,
        "fresh, and after four changes: {course:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_tool_is_misled_at_any_moment_of_a_life_that_ends_badly() {
    let team = Team::start("short-life").await;
    let record = Record::of(&team);
    answer(&team, "life", "running");
    team.create("life").await;
    record.until_reason("life", "JobRunning").await;
    team.patch("life", json!({ "spec": { "pollPeriodSeconds": 5 } }))
        .await;
    record.until_reason("life", "JobRunning").await;
    answer(&team, "life", "fail");
    record.until_reason("life", "JobFailed").await;
    team.patch("life", json!({ "spec": { "suspend": true } }))
        .await;
    record
        .until("life", "be acknowledged", |object| {
            object["status"]["observedGeneration"] == 3
        })
        .await;

    let versions = record.versions("life");
    assert_all_is_right(&versions);
    assert_eq!(
        course(&versions),
        [
            Unacknowledged,
            InMotion,
            Unacknowledged,
            InMotion,
            Stalled,
            Unacknowledged,
            Stalled
        ]
    );
}

/// A merge patch of the status that adds conditions of others.
fn with_foreign(object: &Value, observed_generation: Option<i64>) -> Value {
    let mut all: Vec<Value> = conditions(object).cloned().collect();
    for (type_, status) in [
        ("example.com/Scanned", "False"),
        ("Failed", "True"),
        ("Complete", "True"),
        ("Available", "False"),
    ] {
        let mut foreign = json!({
            "type": type_, "status": status, "reason": "Theirs", "message": "not ours",
            "lastTransitionTime": "2026-01-02T03:04:05Z",
        });
        if let Some(generation) = observed_generation {
            foreign["observedGeneration"] = generation.into();
        }
        all.push(foreign);
    }
    json!({ "conditions": all })
}

fn is_foreign(condition: &Value) -> bool {
    condition["reason"] == "Theirs"
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_of_others_change_no_verdict_on_ours() {
    let team = Team::start("neighbours").await;
    let record = Record::of(&team);
    for name in ["good", "bad"] {
        team.follow(running(name)).await;
        let object = record.until_reason(name, "JobRunning").await;
        team.patch_status(name, with_foreign(&object, (name == "bad").then_some(1)))
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
        versions.retain(|object| conditions(object).any(is_foreign));
        assert!(versions.len() >= 5, "{name}: {}", versions.len());
        let mut alone = versions.clone();
        for object in &mut alone {
            let conditions = object["status"]["conditions"]
                .as_array_mut()
                .expect("a list");
            conditions.retain(|condition| !is_foreign(condition));
        }
        for ((object, with), without) in versions.iter().zip(judge(&versions)).zip(judge(&alone)) {
            let what = describe(object);
            assert_eq!(with.kstatus, without.kstatus, "{what}");
            assert_eq!(with.flux_kstatus, without.flux_kstatus, "{what}");
            assert_eq!(with.argo, without.argo, "{what}");
            assert_eq!(with.argo_actions, without.argo_actions, "{what}");
        }
    }
    // Flux's checker wants an observedGeneration in each condition of an object that is Ready, ours or
    // not. Whoever writes one without has to mend it: what is not ours we do not touch.
    let with = record.versions("good").pop().expect("a version");
    let [said] = &judge(&[with])[..] else {
        panic!("one verdict")
    };
    assert!(
        said.flux_at_rest
            .iter()
            .any(|against| against.contains("example.com/Scanned")),
        "{:#?}",
        said.flux_at_rest
    );
}
