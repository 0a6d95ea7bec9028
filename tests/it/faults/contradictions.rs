//! Answers that contradict the ones before, that come late, or that never change.

use crate::harness::{PROJECT, Team, condition, in_progress, key, summary};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use testbed::ims::{Answer, End, Gate, Job};

const DROPPED: &str = "imageexport_dropped_answers_total";

/// A 200 about the job of the query, with these further fields.
fn answer(fields: &str) -> Answer {
    Answer::json(200, format!(r#"{{"job_id":"{{job_id}}",{fields}}}"#))
}

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time stamp")
}

/// Creates the object `whole`, whose job succeeds, and `no-image`, whose job does so without an image id and
/// gets the `further` answer once that is shown.
async fn success_and_then(team: &Team, further: &str) {
    let shown = Gate::new();
    for (job, first) in [("whole", "success"), ("no-image", "success-no-image")] {
        let further = Answer::preset(further);
        team.sim.script(
            key(job),
            [Answer::preset(first), further.clone().held_by(&shown)],
        );
        team.sim.script_forever(key(job), further);
        team.create(job).await;
    }
    team.until_reason("no-image", "ImageIDPending").await;
    shown.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_success_running_changes_nothing() {
    let mut team = Team::start("running-after-success").await;
    success_and_then(&team, "running").await;
    team.until_reason("whole", "JobSucceeded").await;
    let status = team.until_reason("no-image", "ImageIDMissing").await;
    assert_eq!(status.status.as_deref(), Some("SUCCESS"));
    assert_eq!(
        team.course("no-image"),
        ["ImageIDPending", "ImageIDMissing"]
    );

    team.operator().kill();
    team.start_operator();
    // What is created later is polled later: until then the others would have been.
    team.follow(Job::new(PROJECT, "later").ends(End::Never))
        .await;
    team.sim.polled(&key("later"), 5).await;
    assert_eq!((team.polls("whole"), team.polls("no-image")), (1, 6));
    assert_eq!(team.course("whole"), ["JobSucceeded"]);
    assert_eq!(
        team.course("no-image"),
        ["ImageIDPending", "ImageIDMissing"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_success_a_fail_changes_nothing() {
    let team = Team::start("fail-after-success").await;
    success_and_then(&team, "fail").await;
    let status = team.until_reason("no-image", "ImageIDMissing").await;
    assert_eq!(status.status.as_deref(), Some("SUCCESS"));
    assert_eq!((status.fail_reason, status.error_code), (None, None));
    team.until_reason("whole", "JobSucceeded").await;
    for job in ["whole", "no-image"] {
        team.request_poll(job, "really?").await;
        let status = team
            .until(job, "to echo the request", |status| {
                status.last_handled_poll_request.is_some()
            })
            .await;
        let succeeded = condition(&status, "Succeeded").expect("it is there");
        assert_eq!(succeeded.status, "True", "{job}");
    }
    // A finished job is not polled any more; the one exception is a missing image id.
    team.sim.polled(&key("no-image"), 7).await;
    assert_eq!(team.polls("whole"), 1);
    assert_eq!(
        team.course("no-image"),
        ["ImageIDPending", "ImageIDMissing"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn running_never_goes_back_to_init_across_a_restart_either() {
    let mut team = Team::start("init-after-running").await;
    team.sim.script(key("job"), [Answer::preset("running")]);
    team.sim.script_forever(key("job"), Answer::preset("init"));
    team.create("job").await;
    team.until_reason("job", "JobRunning").await;
    team.sim.polled(&key("job"), 5).await;

    team.operator().kill();
    let polls = team.polls("job");
    team.start_operator();
    team.sim.polled(&key("job"), polls + 4).await;
    let status = team.until_reason("job", "JobRunning").await;
    assert_eq!(status.status.as_deref(), Some("RUNNING"));
    assert_eq!(team.writes("job"), 1);

    team.sim.put_job(Job::new(PROJECT, "job"));
    team.sim.clear_script(key("job"));
    team.until_reason("job", "JobSucceeded").await;
    assert_eq!(team.course("job"), ["JobRunning", "JobSucceeded"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_time_formats_give_the_same_time_and_an_absent_end_is_when_it_was_seen() {
    let mut team = Team::start("time-formats").await;
    let since = Timestamp::from_second(Timestamp::now().as_second()).expect("the same second");
    let older = r#""status":"SUCCESS","begin_time":"06-Nov-2024 06:46:51:929","end_time":"06-Nov-2024 06:49:53:657","entities":{"image_id":"x"}"#;
    for (job, answer) in [
        ("older", answer(older)),
        ("newer", Answer::preset("success")),
        ("no-end", Answer::preset("success-old-times")),
    ] {
        team.sim.script_forever(key(job), answer);
        team.create(job).await;
    }
    for job in ["older", "newer"] {
        let status = team.until_reason(job, "JobSucceeded").await;
        let times = [status.start_time, status.completion_time].map(|time| time.map(|time| time.0));
        let expected =
            ["2024-11-06T06:46:51Z", "2024-11-06T06:49:53Z"].map(|text| Some(time(text)));
        assert_eq!(times, expected, "{job}");
    }
    let status = team.until_reason("no-end", "JobSucceeded").await;
    let ended = status.completion_time.clone().expect("it has ended").0;
    assert!((since..=Timestamp::now()).contains(&ended), "{ended}");
    assert_eq!(
        status.start_time.map(|time| time.0),
        Some(time("2015-06-04T18:11:06Z"))
    );

    team.operator().kill();
    team.start_operator();
    team.follow(Job::new(PROJECT, "later")).await;
    team.until_reason("later", "JobSucceeded").await;
    for job in ["older", "newer", "no-end"] {
        assert_eq!((team.polls(job), team.writes(job)), (1, 1), "{job}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_does_not_end_is_polled_steadily_and_written_once() {
    const POLLS: u64 = 20;
    // 10 s by the operator's clock.
    const PERIOD: f64 = 10.0 * crate::harness::SCALE;
    let mut team = Team::without_operator("endless-job").await;
    team.start_operator_with(&["--poll-mode", "fixed"]);
    team.follow(Job::new(PROJECT, "job").ends(End::Never)).await;
    team.sim.polled(&key("job"), POLLS).await;
    assert_eq!(team.writes("job"), 1);
    let status = team.until_reason("job", "JobRunning").await;
    assert_eq!(summary(&status), in_progress("JobRunning"));

    let times: Vec<f64> = team
        .sim
        .requests()
        .iter()
        .map(|request| request.at_seconds)
        .collect();
    // The first may come early, and each may be late by as long as this machine is busy.
    let took = times[times.len() - 1] - times[1];
    let periods = f64::from(u32::try_from(times.len()).expect("few") - 3);
    assert!(took >= periods * PERIOD, "{took} s for {periods} periods");
}

/// Answers cannot overtake one another while at most one poll of an object is in flight.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_makes_a_second_poll_of_an_object_overtake_the_first() {
    let team = Team::start("one-poll-in-flight").await;
    let (first, second) = (Gate::new(), Gate::new());
    team.sim.script(
        key("job"),
        [
            Answer::preset("init").held_by(&first),
            Answer::preset("running").held_by(&second),
        ],
    );
    team.follow(Job::new(PROJECT, "job").ends(End::Never)).await;
    first.arrived(1).await;

    team.request_poll("job", "now").await;
    team.patch("job", json!({ "spec": { "pollPeriodSeconds": 5 } }))
        .await;
    // What is created later is polled twice meanwhile.
    team.follow(Job::new(PROJECT, "later").ends(End::Never))
        .await;
    team.sim.polled(&key("later"), 2).await;
    assert_eq!((team.polls("job"), first.waiting()), (1, 1));

    first.open();
    team.until_reason("job", "JobInitializing").await;
    second.arrived(1).await;
    second.open();
    team.until_reason("job", "JobRunning").await;
    team.sim.put_job(Job::new(PROJECT, "job"));
    team.until_reason("job", "JobSucceeded").await;
    assert_eq!(
        team.course("job"),
        ["JobInitializing", "JobRunning", "JobSucceeded"]
    );
}

/// The one way for a newer answer to come first: each belongs to another object of the same name.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_after_a_newer_one_is_dropped() {
    let team = Team::start("late-answer").await;
    let late = Gate::new();
    team.sim
        .script(key("job"), [Answer::preset("success").held_by(&late)]);
    team.follow(Job::new(PROJECT, "job").ends(End::Never)).await;
    late.arrived(1).await;
    team.delete("job").await;
    team.create("job").await;
    team.until_reason("job", "JobRunning").await;

    late.open();
    team.operator().until_metric(DROPPED, 1.0).await;
    team.sim.polled(&key("job"), team.polls("job") + 3).await;
    assert_eq!(team.course("job"), ["JobRunning"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sub_job_that_fails_does_not_end_its_parent() {
    let team = Team::start("failed-sub-job").await;
    for job in ["recovers", "follows"] {
        team.sim
            .script_forever(key(job), Answer::preset("sub-job-failed"));
        team.create(job).await;
    }
    for job in ["recovers", "follows"] {
        let status = team.until_reason(job, "JobRunning").await;
        assert_eq!((status.fail_reason, status.error_code), (None, None));
        team.sim.polled(&key(job), 5).await;
        assert_eq!(team.writes(job), 1, "{job}");
    }
    team.sim
        .script_forever(key("recovers"), Answer::preset("success"));
    team.sim
        .script_forever(key("follows"), Answer::preset("fail"));
    team.until_reason("recovers", "JobSucceeded").await;
    let status = team.until_reason("follows", "JobFailed").await;
    assert_eq!(status.error_code.as_deref(), Some("IMG.0148"));
    assert_eq!(team.course("recovers"), ["JobRunning", "JobSucceeded"]);
    assert_eq!(team.course("follows"), ["JobRunning", "JobFailed"]);
}
