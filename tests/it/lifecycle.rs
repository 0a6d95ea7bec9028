//! Jobs from their beginning to their end.

use crate::harness::{PROJECT, Team, condition, key, summary};
use testbed::ims::{Answer, Job};

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_example_ends_with_its_image() {
    let team = Team::start("example").await;
    team.sim.add_token("other", None);
    let name = team.follow(Job::reference_example()).await;

    let status = team.until_reason(&name, "JobSucceeded").await;
    assert_eq!(status.status.as_deref(), Some("SUCCESS"));
    assert_eq!(
        status.image_id.as_deref(),
        Some("e9e91bff-14b6-4a0b-8377-4ed0813e3360")
    );
    assert_eq!(status.job_type.as_deref(), Some("createImageByInstance"));
    assert_eq!(status.observed_generation, Some(1));
    assert_eq!(
        summary(&status),
        ["Ready=True/JobSucceeded", "Succeeded=True/JobSucceeded"]
    );
    assert_eq!(
        status.start_time.unwrap().0.to_string(),
        "2015-06-04T18:11:06Z"
    );
    assert!(
        status.completion_time.is_some(),
        "when the end was observed, as end_time is empty"
    );
    assert_eq!(team.writes(&name), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn init_and_running_are_shown_before_the_end() {
    let team = Team::start("three").await;
    let name = "three";
    // Each answer is given until it is shown.
    team.sim.script_forever(key(name), Answer::preset("init"));
    team.create(name).await;
    team.until_reason(name, "JobInitializing").await;
    team.sim
        .script_forever(key(name), Answer::preset("running"));
    team.until_reason(name, "JobRunning").await;
    team.sim
        .script_forever(key(name), Answer::preset("success"));
    let status = team.until_reason(name, "JobSucceeded").await;
    assert_eq!(
        team.course(name),
        ["JobInitializing", "JobRunning", "JobSucceeded"]
    );
    assert_eq!(team.writes(name), 3, "one write per visible transition");
    let statuses: Vec<_> = team
        .versions(name)
        .into_iter()
        .filter_map(|o| o.status?.status)
        .collect();
    assert_eq!(statuses, ["INIT", "RUNNING", "SUCCESS"]);
    let ready = condition(&status, "Ready").unwrap();
    assert!(
        ready.message.contains("three")
            && ready.message.contains(status.image_id.as_deref().unwrap())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_shows_the_code_and_reason_of_the_cloud() {
    let team = Team::start("failed").await;
    let name = team
        .follow(Job::new(PROJECT, "failed").fails("IMG.0148", "The OBS bucket does not exist."))
        .await;

    let status = team.until_reason(&name, "JobFailed").await;
    assert_eq!(status.status.as_deref(), Some("FAIL"));
    assert_eq!(status.error_code.as_deref(), Some("IMG.0148"));
    assert_eq!(
        status.fail_reason.as_deref(),
        Some("The OBS bucket does not exist.")
    );
    assert_eq!(status.image_id, None);
    assert!(status.completion_time.is_some());
    assert_eq!(
        summary(&status),
        [
            "Ready=False/JobFailed",
            "Stalled=True/JobFailed",
            "Succeeded=False/JobFailed"
        ]
    );
}
