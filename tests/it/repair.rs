//! Edits of the status by others: those of the operator's fields are repaired, conditions owned by
//! others are kept.

use crate::harness::{Operator, PROJECT, Team, cluster, condition, eventually, running};
use image_export_api::ImageExportJobStatus;
use serde_json::{Value, json};
use testbed::ims::Job;

/// An operator that polls once and then not for half an hour by the clock: each further poll has a
/// cause in the test.
async fn team(name: &str) -> Team {
    let mut team = Team::without_operator(name).await;
    let arguments = ["--namespace", &team.namespace, "--poll-period", "86400"];
    team.operator = Some(Operator::start(cluster(), &arguments));
    team
}

/// Conditions as they are, changed by `change`, which gets them in the order of the status.
fn conditions(status: &ImageExportJobStatus, change: impl FnOnce(&mut Vec<Value>)) -> Value {
    let mut conditions: Vec<Value> = status
        .conditions
        .iter()
        .map(|condition| serde_json::to_value(condition).expect("plain data"))
        .collect();
    change(&mut conditions);
    json!({ "conditions": conditions })
}

fn hand_made(type_: &str, status: &str) -> Value {
    json!({
        "type": type_, "status": status, "reason": "ByHand", "message": "by hand",
        "lastTransitionTime": "2026-01-02T03:04:05.678901Z",
    })
}

/// Edits by people and broken tools, as merge patches of the status.
fn edits(status: &ImageExportJobStatus) -> Vec<(&'static str, Value)> {
    vec![
        ("a field changed", json!({ "status": "CHANGED" })),
        ("a field removed", json!({ "jobType": null })),
        (
            "a field added",
            json!({ "lastHandledPollRequest": "by hand" }),
        ),
        (
            "fields of the other end added",
            json!({ "failReason": "by hand", "errorCode": "IMG.9999" }),
        ),
        (
            "an end made up",
            json!({
                "status": "FAIL", "completionTime": "2026-01-02T03:04:05Z",
                "conditions": [
                    hand_made("Ready", "False"), hand_made("Succeeded", "False"),
                    hand_made("Stalled", "True"),
                ],
            }),
        ),
        ("the generation ahead", json!({ "observedGeneration": 99 })),
        (
            "the generation removed",
            json!({ "observedGeneration": null }),
        ),
        ("no conditions", json!({ "conditions": null })),
        (
            "a condition turned",
            conditions(status, |conditions| {
                let turned = match conditions[0]["status"].as_str() {
                    Some("True") => "False",
                    _ => "True",
                };
                conditions[0]["status"] = turned.into();
            }),
        ),
        (
            "a message changed",
            conditions(status, |conditions| conditions[1]["message"] = "".into()),
        ),
        (
            "a transition time changed",
            conditions(status, |conditions| {
                conditions[0]["lastTransitionTime"] = "2026-01-02T03:04:05Z".into();
            }),
        ),
        (
            "a condition removed",
            conditions(status, |conditions| drop(conditions.pop())),
        ),
        (
            "Stalled added",
            conditions(status, |conditions| {
                conditions.retain(|condition| condition["type"] != "Stalled");
                conditions.push(hand_made("Stalled", "True"));
            }),
        ),
        (
            "Reconciling denied",
            conditions(status, |conditions| {
                conditions.retain(|condition| condition["type"] != "Reconciling");
                conditions.push(hand_made("Reconciling", "False"));
            }),
        ),
    ]
}

/// Makes each edit and waits for its repair; returns how many there were.
async fn make_edits(team: &Team, name: &str, status: &ImageExportJobStatus) -> usize {
    let edits = edits(status);
    let count = edits.len();
    for (what, edit) in edits {
        let before = team.versions(name).len();
        team.patch_status(name, edit).await;
        let repaired = eventually(&format!("{name}: the repair of {what}"), || {
            let versions = team.versions(name);
            let since = versions.get(before..)?;
            (since.len() >= 2).then(|| since.to_vec())
        })
        .await;
        assert_ne!(repaired[0].status.as_ref(), Some(status), "{what}: an edit");
        assert_eq!(repaired[1].status.as_ref(), Some(status), "{what}");
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn every_edit_of_a_running_jobs_status_is_repaired_by_one_write_without_a_poll() {
    let team = team("repair-running").await;
    team.follow(running("run")).await;
    let status = team.until_reason("run", "JobRunning").await;
    let before = team.versions("run").len();
    let edits = make_edits(&team, "run", &status).await;

    // The next write is that of an answer: by then every repair has been written.
    team.sim.put_job(Job::new(PROJECT, "run"));
    assert_eq!(team.polls("run"), 1);
    team.request_poll("run", "now").await;
    team.until_reason("run", "JobSucceeded").await;
    let versions = team.versions("run").len() - before;
    // Two versions an edit, the annotation, its echo (which may be in the answer's write), SUCCESS.
    let least = 2 * edits + 2;
    assert!(
        (least..=least + 1).contains(&versions),
        "{versions} versions for {edits} edits"
    );
    assert_eq!(team.polls("run"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_edit_of_a_finished_jobs_status_is_repaired_by_one_write_without_a_poll() {
    let team = team("repair-final").await;
    let jobs = [
        Job::new(PROJECT, "good"),
        Job::new(PROJECT, "bad").fails("IMG.0148", "No bucket."),
    ];
    for job in jobs {
        let name = team.follow(job).await;
        let status = team
            .until(&name, "to have ended", |status| {
                status.completion_time.is_some()
            })
            .await;
        let before = team.versions(&name).len();
        let edits = make_edits(&team, &name, &status).await;
        assert_eq!(team.versions(&name).len() - before, 2 * edits);
        assert_eq!(team.polls(&name), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_status_is_written_again() {
    let team = team("removed").await;
    let name = team.follow(Job::new(PROJECT, "removed")).await;
    let status = team.until_reason(&name, "JobSucceeded").await;
    let before = team.versions(&name).len();
    team.kubectl(&["patch", "iej", &name, "--subresource=status"])
        .args([
            "--type=json",
            r#"--patch=[{"op":"remove","path":"/status"}]"#,
        ])
        .success()
        .expect("removed");
    eventually("the status to be written again", || {
        let since = team.versions(&name).split_off(before);
        (since.len() == 2 && since[1].status.as_ref() == Some(&status)).then_some(())
    })
    .await;
    assert_eq!(team.polls(&name), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_owned_by_others_are_kept_through_every_transition() {
    let team = team("unowned").await;
    team.follow(running("shared")).await;
    let status = team.until_reason("shared", "JobRunning").await;
    let owned = status.conditions.clone();
    let before = team.versions("shared").len();

    for unowned in [
        hand_made("example.com/Scanned", "Unknown"),
        hand_made("example.com/Scanned", "True"),
        hand_made("Failed", "True"),
    ] {
        let edit = conditions(&status, |conditions| conditions.push(unowned));
        team.patch_status("shared", edit).await;
    }

    let unowned = [
        hand_made("example.com/Scanned", "True"),
        hand_made("Failed", "True"),
    ];
    let edit = conditions(&status, |conditions| conditions.extend(unowned.clone()));
    team.patch_status("shared", edit).await;
    let edit = json!({ "jobType": "by hand" });
    team.patch_status("shared", edit).await;
    let versions = eventually("the repair", || {
        let since = team.versions("shared").split_off(before);
        (since.len() >= 6).then_some(since)
    })
    .await;
    let job_types: Vec<_> = versions
        .iter()
        .filter_map(|object| object.status.as_ref()?.job_type.as_deref())
        .collect();
    let (own_type, by_hand) = (status.job_type.as_deref().expect("a type"), "by hand");
    assert_eq!(
        job_types,
        [own_type, own_type, own_type, own_type, by_hand, own_type],
        "four edits that need no repair, one that does, and its repair"
    );
    let repaired = versions[5].status.as_ref().expect("a status");
    assert_eq!(repaired.conditions[..owned.len()], owned);

    for reason in ["Suspended", "JobRunning", "JobFailed"] {
        let change = match reason {
            "Suspended" => json!({ "spec": { "suspend": true } }),
            "JobRunning" => json!({ "spec": { "suspend": false } }),
            _ => {
                team.sim
                    .put_job(Job::new(PROJECT, "shared").fails("IMG.0148", "No bucket."));
                json!({ "metadata": { "annotations": { "imageexport.dev/poll-requested-at": "now" } } })
            }
        };
        team.patch("shared", change).await;
        let status = team.until_reason("shared", reason).await;
        for unowned in &unowned {
            let type_ = unowned["type"].as_str().expect("a string");
            let kept = condition(&status, type_).expect("it is kept");
            let kept = serde_json::to_value(kept).expect("plain data");
            assert_eq!(&kept, unowned, "in {reason}");
        }
    }
}
