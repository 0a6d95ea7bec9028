//! Faults F1 to F13: what an answer may say, alone and after the answers before it. What the cloud
//! client reads is asked of it alone; what is shown over time is watched on the whole operator.

use super::{Lab, PASSWORD, failed};
use crate::harness::{PROJECT, TOKEN, Team, condition, in_progress, key, summary};
use image_export_model::{FailureKind, JobState};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use testbed::ims::{Answer, End, Gate, Job};

const IMAGE: &str = "e9e91bff-14b6-4a0b-8377-4ed0813e3360";
const DROPPED: &str = "imageexport_dropped_answers_total";

/// A 200 about the job that is asked for, with these further fields.
fn answer(fields: &str) -> Answer {
    Answer::json(200, format!(r#"{{"job_id":"{{job_id}}",{fields}}}"#))
}

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time stamp")
}

#[tokio::test]
async fn f1_only_the_documented_words_mean_what_they_say() {
    let lab = Lab::new().await;
    let words = [
        ("INIT", JobState::Init),
        (" running ", JobState::Running),
        ("Success", JobState::Success),
        ("FAIL", JobState::Fail),
        ("failed", JobState::Fail),
    ];
    for (at, (word, state)) in words.into_iter().enumerate() {
        let asked = lab
            .answered(
                &format!("known-{at}"),
                answer(&format!(r#""status":"{word}""#)),
            )
            .await;
        assert_eq!(asked.answer().state, state, "{word}");
    }

    let long = "PENDING_".repeat(10);
    let words = [
        ("PENDING_PAYMENT", "PENDING_PAYMENT"),
        ("rollback", "rollback"),
        ("PARTIAL_FAIL", "PARTIAL_FAIL"),
        ("SUCCESSFUL", "SUCCESSFUL"),
        ("SUCCESS!", "SUCCESS!"),
        (r"FAI\u0007LING", "FAILING"),
        (&long, &long[..64]),
    ];
    for (at, (word, shown)) in words.into_iter().enumerate() {
        let image = format!(r#""entities":{{"image_id":"{IMAGE}"}}"#);
        let fields = format!(r#""status":"{word}",{image}"#);
        let asked = lab
            .answered(&format!("unknown-{at}"), answer(&fields))
            .await;
        assert_eq!(
            asked.answer().state,
            JobState::Unrecognized(shown.into()),
            "{word}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f2_after_a_success_running_changes_nothing() {
    let mut team = Team::start("f2").await;
    for (job, first) in [("whole", "success"), ("no-image", "success-no-image")] {
        team.sim.script(key(job), [Answer::preset(first)]);
        team.sim.script_forever(key(job), Answer::preset("running"));
        team.create(job).await;
    }
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
async fn f3_after_a_success_a_fail_changes_nothing() {
    let team = Team::start("f3").await;
    for (job, first) in [("whole", "success"), ("no-image", "success-no-image")] {
        team.sim.script(key(job), [Answer::preset(first)]);
        team.sim.script_forever(key(job), Answer::preset("fail"));
        team.create(job).await;
    }
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
    // The one exception to "finished is never asked about" is a missing image id.
    team.sim.polled(&key("no-image"), 7).await;
    assert_eq!(team.polls("whole"), 1);
    assert_eq!(
        team.course("no-image"),
        ["ImageIDPending", "ImageIDMissing"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn f4_running_never_goes_back_to_init_across_a_restart_either() {
    let mut team = Team::start("f4").await;
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

#[tokio::test]
async fn f5_an_answer_about_another_job_or_none_is_not_ours() {
    let lab = Lab::new().await;
    let named = |id: &str| Answer::json(200, format!(r#"{{"job_id":{id},"status":"SUCCESS"}}"#));
    let cases = [
        (
            "other-job",
            Answer::preset("other-job"),
            "is about another job",
        ),
        (
            "upper-case",
            named(r#""UPPER-CASE""#),
            "is about another job",
        ),
        (
            "longer",
            named(r#""longer-by-far""#),
            "is about another job",
        ),
        ("no-job-id", Answer::preset("no-job-id"), "has no job_id"),
        (
            "number-job-id",
            Answer::preset("number-job-id"),
            "has no job_id",
        ),
        ("null-job-id", named("null"), "has no job_id"),
        ("empty-job-id", named(r#""""#), "has no job_id"),
        ("blank-job-id", named(r#"" ""#), "has no job_id"),
        ("list-job-id", named(r#"["list-job-id"]"#), "has no job_id"),
    ];
    for (job, answer, words) in cases {
        lab.assert_malformed(job, answer, words).await;
    }
    // A space before the id occurs in a published example.
    let asked = lab.answered("padded", named(r#"" padded""#)).await;
    assert_eq!(asked.answer().state, JobState::Success);
}

#[tokio::test]
async fn f6_a_status_of_the_wrong_type_is_none_and_other_fields_do_not_matter() {
    let lab = Lab::new().await;
    for preset in [
        "no-status",
        "null-status",
        "empty-status",
        "number-status",
        "array-status",
    ] {
        lab.assert_malformed_preset(preset, "has no status").await;
    }

    let asked = lab.preset("wrong-types").await;
    let read = asked.answer();
    assert_eq!(read.state, JobState::Running);
    assert_eq!((read.begin_time, read.end_time), (None, None));
    assert_eq!(read.image_id, None);
    for (at, entities) in [
        "null",
        "[]",
        "7",
        r#""text""#,
        r#"{"image_id":7}"#,
        r#"{"image_id":["x"],"results":{"image_id":"x"},"sub_jobs_result":"x"}"#,
        r#"{"results":[7,null,[],{"image_id":{}}],"sub_jobs_result":[{"entities":7}]}"#,
        r#"{"image_id":"../../etc"}"#,
    ]
    .into_iter()
    .enumerate()
    {
        let fields = format!(r#""status":"SUCCESS","entities":{entities}"#);
        let asked = lab
            .answered(&format!("entities-{at}"), answer(&fields))
            .await;
        assert_eq!(asked.answer().state, JobState::Success, "{entities}");
        assert_eq!(asked.answer().image_id, None, "{entities}");
    }
}

#[tokio::test]
async fn f7_a_success_is_one_whatever_else_the_answer_says() {
    let lab = Lab::new().await;
    for (preset, image, error_code) in [
        ("success-with-error", Some(IMAGE), Some("IMG.0001")),
        ("success-old-times", Some(IMAGE), None),
        ("lower-case-success", Some(IMAGE), None),
        ("success-no-image", None, None),
    ] {
        let asked = lab.preset(preset).await;
        let read = asked.answer();
        assert_eq!(read.state, JobState::Success, "{preset}");
        assert_eq!(read.image_id.as_deref(), image, "{preset}");
        assert_eq!(read.error_code.as_deref(), error_code, "{preset}");
        assert_eq!(read.end_time, None, "{preset}");
    }
    // Nothing is ever concluded from a percentage.
    let done = answer(r#""status":"RUNNING","entities":{"process_percent":1}"#);
    let asked = lab.answered("done", done).await;
    assert_eq!(asked.answer().state, JobState::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn f8_both_time_formats_tell_the_same_time_and_an_absent_end_is_when_it_was_seen() {
    let lab = Lab::new().await;
    let begun = Some(time("2015-06-04T18:11:06.586Z"));
    for (job, text) in [
        ("older", "04-Jun-2015 18:11:06:586"),
        ("newer", "2015-06-04T18:11:06.586Z"),
    ] {
        let times = format!(r#""status":"RUNNING","begin_time":"{text}","end_time":"""#);
        let asked = lab.answered(job, answer(&times)).await;
        let read = asked.answer();
        assert_eq!((read.begin_time, read.end_time), (begun, None), "{job}");
    }

    let mut team = Team::start("f8").await;
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

#[tokio::test]
async fn f9_a_reason_is_bounded_stripped_and_holds_no_secret_of_ours() {
    let lab = Lab::new().await;
    let asked = lab.preset("fail-huge-reason").await;
    let read = asked.answer();
    assert_eq!(read.state, JobState::Fail);
    let reason = read.fail_reason.as_deref().expect("a reason");
    assert!(reason.starts_with("<b>bold</b>[31m<b>bold</b>"), "{reason}");
    assert!(reason.len() <= 1024 && reason.ends_with('…'), "{reason}");
    assert!(!reason.contains(char::is_control), "{reason}");

    // With a MiB the answer as a whole is too long to be read.
    let asked = lab.preset("fail-reason-1-mib").await;
    let message = format!("the answer of {} is longer than 256 KiB", lab.host());
    assert_eq!(asked.seen.outcome, failed(FailureKind::Malformed, message));

    for (me, secret) in [(lab.given_token(), TOKEN), (lab.password(), "issued-")] {
        lab.sim
            .script_forever(key("own"), Answer::preset("fail-own-token"));
        let asked = lab.ask(&me, "own").await;
        assert_eq!(
            asked.answer().fail_reason.as_deref(),
            Some("cannot read with [redacted]")
        );
        assert!(!format!("{:?}", asked.seen).contains(secret));
    }
    let everywhere = Answer::json(
        200,
        format!(
            r#"{{"job_id":"{{job_id}}","status":"{{token}}","job_type":"x {{token}}","error_code":"{{token}}","fail_reason":"{PASSWORD}","entities":{{"image_id":"{{token}}"}}}}"#
        ),
    )
    .header("X-Request-Id", TOKEN);
    lab.sim.script_forever(key("everywhere"), everywhere);
    for me in [lab.given_token(), lab.password()] {
        let asked = lab.ask(&me, "everywhere").await;
        let seen = format!("{:?}", asked.seen);
        assert!(seen.contains("[redacted]"), "{seen}");
        assert!(!seen.contains("issued-"), "{seen}");
        let own = if asked.seen.signed_in {
            PASSWORD
        } else {
            TOKEN
        };
        assert!(!seen.contains(own), "{seen}");
    }
}

#[tokio::test]
async fn f10_any_job_type_is_read_and_none_is_needed() {
    let lab = Lab::new().await;
    let long = "imsVeryLongJob".repeat(20);
    for (at, (job_type, read)) in [
        (
            r#""imsCopyImageInRegionJob""#,
            Some("imsCopyImageInRegionJob"),
        ),
        (r#""somethingNew""#, Some("somethingNew")),
        (r#""""#, None),
        ("null", None),
        ("[]", None),
    ]
    .into_iter()
    .enumerate()
    {
        let fields = format!(r#""status":"SUCCESS","job_type":{job_type}"#);
        let asked = lab.answered(&format!("type-{at}"), answer(&fields)).await;
        assert_eq!(asked.answer().state, JobState::Success, "{job_type}");
        assert_eq!(asked.answer().job_type.as_deref(), read, "{job_type}");
    }
    let fields = format!(r#""status":"SUCCESS","job_type":"{long}""#);
    let asked = lab.answered("long", answer(&fields)).await;
    let read = asked.answer().job_type.as_deref().expect("a type");
    assert!(
        read.len() <= 128 && read.starts_with(&long[..100]),
        "{read}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn f11_a_job_that_runs_for_ever_is_asked_about_steadily_and_written_once() {
    const POLLS: u64 = 20;
    // 10 s by the operator's clock.
    const PERIOD: f64 = 10.0 * crate::harness::SCALE;
    let team = Team::start("f11").await;
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
async fn f12_nothing_makes_a_second_poll_of_an_object_overtake_the_first() {
    let team = Team::start("f12").await;
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
    // What is created later is polled several times meanwhile.
    team.follow(Job::new(PROJECT, "later").ends(End::Never))
        .await;
    team.sim.polled(&key("later"), 5).await;
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
async fn f12_an_answer_that_comes_after_a_newer_one_is_dropped() {
    let team = Team::start("f12-late").await;
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
async fn f13_a_sub_job_that_fails_does_not_end_its_parent() {
    let team = Team::start("f13").await;
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
