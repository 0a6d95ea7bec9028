//! The operator ends at any moment, is started again, and nothing is lost or done twice.

use crate::harness::{
    OPERATOR_NAMESPACE, Operator, PROJECT, Team, cluster, condition, key, summary,
};
use image_export_api::ImageExportJobStatus;
use std::time::Duration;
use testbed::ims::{Answer, End, Gate, Job, Start};

async fn version(team: &Team, name: &str) -> String {
    let object = team.jobs.get(name).await.expect("it is there");
    object
        .metadata
        .resource_version
        .expect("a stored object has one")
}

/// The final statuses, in order, without repetitions.
fn finals(team: &Team, name: &str) -> Vec<ImageExportJobStatus> {
    let mut finals: Vec<_> = team
        .versions(name)
        .into_iter()
        .filter_map(|object| object.status)
        .skip_while(|status| status.completion_time.is_none())
        .collect();
    finals.dedup();
    finals
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_killed_in_mid_job_ends_that_job_and_leaves_finished_ones_alone() {
    let mut team = Team::start("killed").await;
    let done = team.follow(Job::new(PROJECT, "done")).await;
    let failed = team
        .follow(Job::new(PROJECT, "failed").fails("IMG.0148", "No bucket."))
        .await;
    let missing = team
        .follow(Job::new(PROJECT, "missing").without_image_id())
        .await;
    let running = team
        .follow(Job::new(PROJECT, "running").ends(End::Never))
        .await;
    team.until_reason(&done, "JobSucceeded").await;
    team.until_reason(&failed, "JobFailed").await;
    team.until_reason(&missing, "ImageIDMissing").await;
    team.until_reason(&running, "JobRunning").await;
    let finished = [&done, &failed, &missing];
    let mut before = Vec::new();
    for name in finished {
        before.push((version(&team, name).await, team.polls(name)));
    }
    let version_running = version(&team, &running).await;

    team.operator().kill();
    let polls = team.polls(&running);
    team.start_operator();
    team.sim.polled(&key(&running), polls + 3).await;
    assert_eq!(
        version(&team, &running).await,
        version_running,
        "an unchanged status is not written again"
    );
    team.sim.put_job(Job::new(PROJECT, "running"));
    team.until_reason(&running, "JobSucceeded").await;

    assert_eq!(team.course(&running), ["JobRunning", "JobSucceeded"]);
    assert_eq!(team.writes(&running), 2);
    for (name, before) in finished.into_iter().zip(before) {
        let after = (version(&team, name).await, team.polls(name));
        assert_eq!(after, before, "version and polls of {name}");
    }
}

/// A job of each lifecycle, with the conditions and the image id of its object in the end.
fn lifecycles() -> Vec<(Job, [&'static str; 2], Option<&'static str>)> {
    const SUCCEEDED: [&str; 2] = ["Ready=True/JobSucceeded", "Succeeded=True/JobSucceeded"];
    const FAILED: [&str; 2] = ["Ready=False/JobFailed", "Succeeded=False/JobFailed"];
    const MISSING: [&str; 2] = ["Ready=False/ImageIDMissing", "Succeeded=True/JobSucceeded"];
    const IMAGE: &str = "1ab4df10-fe18-48b7-91c9-53695fcd9df5";
    (0u64..12)
        .map(|n| {
            let job = Job::new(PROJECT, format!("job-{n}"))
                .starts(if n % 2 == 0 {
                    Start::Creation
                } else {
                    Start::FirstQuery
                })
                .init_for(Duration::from_millis(120 * (n % 5)))
                .running_for(Duration::from_millis(350 * n));
            match n % 4 {
                0 => (job, SUCCEEDED, Some(IMAGE)),
                1 => (
                    job.fails("IMG.0148", "The OBS bucket does not exist."),
                    FAILED,
                    None,
                ),
                2 => (
                    job.of_type("imsAddImageMembersJob").without_image_id(),
                    SUCCEEDED,
                    None,
                ),
                _ => (job.without_image_id(), MISSING, None),
            }
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_any_moment_lose_no_end_and_write_none_twice() {
    let mut team = Team::without_operator("kills").await;
    let kubeconfig = cluster()
        .kubeconfig_for_service_account(OPERATOR_NAMESPACE, "image-export-operator")
        .expect("a token for the operator");
    let arguments = ["--namespace", &team.namespace, "--poll-period", "10"];
    for (job, ..) in lifecycles() {
        team.follow(job).await;
    }

    // From a few milliseconds, before anything is listed, to a time in which much is written.
    for moment in [5, 480, 90, 700, 260, 40, 550, 160] {
        let operator = Operator::start_with(&kubeconfig, &arguments);
        tokio::time::sleep(Duration::from_millis(moment)).await;
        operator.kill();
    }
    team.operator = Some(Operator::start_with(&kubeconfig, &arguments));

    for (job, conditions, image_id) in lifecycles() {
        let name = job.key().job;
        let last = team
            .until(&name, "to have ended", |status| {
                status.completion_time.is_some()
            })
            .await;
        let shown = summary(&last);
        for line in conditions {
            assert!(shown.iter().any(|shown| shown == line), "{name}: {shown:?}");
        }
        assert_eq!(last.image_id.as_deref(), image_id, "{name}");
    }
    let polls: Vec<u64> = lifecycles()
        .iter()
        .map(|(job, ..)| team.polls(&job.key().job))
        .collect();

    // Once another job has ended, the operator has had time for a wrong write.
    team.follow(Job::new(PROJECT, "last").running_for(Duration::from_millis(900)))
        .await;
    team.until_reason("last", "JobSucceeded").await;
    for ((job, ..), polls) in lifecycles().into_iter().zip(polls) {
        let name = job.key().job;
        let finals = finals(&team, &name);
        assert_eq!(finals.len(), 1, "{name} has one final status");
        assert_eq!(team.polls(&name), polls, "{name} is no longer polled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_waits_for_polls_in_flight_and_writes_their_outcomes() {
    let mut team = Team::start("drain").await;
    let gate = Gate::new();
    let jobs = [
        Job::new(PROJECT, "good"),
        Job::new(PROJECT, "bad").fails("IMG.0148", "No bucket."),
        Job::new(PROJECT, "open").ends(End::Never),
    ];
    for job in jobs {
        team.sim.script(job.key(), [Answer::pass().held_by(&gate)]);
        team.follow(job).await;
    }
    gate.arrived(3).await;

    // The answers and the signal meet it at the same time, however slow the machine is.
    team.operator().pause();
    gate.open();
    team.operator().stop();
    team.operator().resume();
    assert_eq!(team.operator().ended(), 0);
    for (name, reason) in [
        ("good", "JobSucceeded"),
        ("bad", "JobFailed"),
        ("open", "JobRunning"),
    ] {
        let object = team.jobs.get(name).await.expect("it is there");
        let status = object.status.expect("a status");
        let ready = condition(&status, "Ready").map(|ready| ready.reason.as_str());
        assert_eq!(ready, Some(reason), "{name}");
        assert_eq!(team.polls(name), 1, "no poll starts on shutdown");
    }

    team.sim.put_job(Job::new(PROJECT, "open"));
    team.start_operator();
    team.until_reason("open", "JobSucceeded").await;
    assert_eq!((team.polls("good"), team.polls("bad")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_never_comes_does_not_keep_the_operator_from_stopping() {
    let team = Team::start("hung").await;
    let gate = Gate::new();
    team.sim
        .script(key("hung"), [Answer::pass().held_by(&gate)]);
    team.follow(Job::new(PROJECT, "hung")).await;
    gate.arrived(1).await;
    team.until_reason("hung", "Pending").await;

    assert_eq!(team.operator().terminate(), 0);
    let log = team.operator().log();
    assert!(!log.contains("gave up waiting"), "no status is unwritten");
    let line = log.lines().find(|line| line.contains("the next start"));
    let line = line.expect("a line about what is pending");
    for pending in [r#""polls":1"#, r#""api_calls":0"#] {
        assert!(line.contains(pending), "{line}");
    }
    assert_eq!(team.reasons("hung"), ["Pending"]);
}
