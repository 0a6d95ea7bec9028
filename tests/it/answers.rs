//! What an object shows for each well-formed answer about its job: every job status, every shape of
//! body, and answers that contradict the ones before.

use crate::harness::{PROJECT, Team, condition, in_progress, key, message, summary};
use image_export_api::ImageExportJobStatus;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use testbed::ims::{Answer, Gate, Job};

const IMAGE: &str = "e9e91bff-14b6-4a0b-8377-4ed0813e3360";
const REASON: &str = "The OBS bucket does not exist.";

/// A 200 about the job of the query, with these further fields.
fn answer(fields: &str) -> Answer {
    Answer::json(200, format!(r#"{{"job_id":"{{job_id}}",{fields}}}"#))
}

/// What an object is to show.
struct Shown {
    summary: Vec<String>,
    message: String,
    /// All other fields of the status.
    fields: ImageExportJobStatus,
    /// The answer has no end time, so the moment counts at which the end was seen.
    ended_when_seen: bool,
}

impl Shown {
    fn new(summary: Vec<String>, word: &str, message: String) -> Self {
        let fields = ImageExportJobStatus {
            observed_generation: Some(1),
            status: Some(word.to_owned()),
            ..ImageExportJobStatus::default()
        };
        Self {
            summary,
            message,
            fields,
            ended_when_seen: false,
        }
    }

    fn initializing(job: &str) -> Self {
        let message = format!("Job {job} has been accepted and has not started yet.");
        Self::new(in_progress("JobInitializing"), "INIT", message)
    }

    fn running(job: &str) -> Self {
        let message = format!("Job {job} is running.");
        Self::new(in_progress("JobRunning"), "RUNNING", message)
    }

    fn unrecognized(job: &str, word: &str) -> Self {
        let message = format!(
            "Job {job} has a status that this version of the operator does not recognize: {word}."
        );
        Self::new(in_progress("JobStatusUnrecognized"), word, message)
    }

    fn succeeded(job: &str, image: &str) -> Self {
        let mut shown =
            Self::succeeded_with(format!("Job {job} has succeeded with image {image}."));
        shown.fields.image_id = Some(image.to_owned());
        shown
    }

    fn succeeded_without_image(job: &str, job_type: &str) -> Self {
        Self::succeeded_with(format!(
            "Job {job} has succeeded; a job of type {job_type} has no image id."
        ))
        .of_type(job_type)
    }

    fn succeeded_with(message: String) -> Self {
        let summary = ["Ready=True/JobSucceeded", "Succeeded=True/JobSucceeded"];
        let mut shown = Self::new(summary.map(str::to_owned).to_vec(), "SUCCESS", message);
        shown.ended_when_seen = true;
        shown
    }

    fn failed(job: &str, code: Option<&str>, reason: Option<&str>) -> Self {
        let summary = [
            "Ready=False/JobFailed",
            "Stalled=True/JobFailed",
            "Succeeded=False/JobFailed",
        ];
        let with_code = code.map_or_else(String::new, |code| format!(" with {code}"));
        let why = match reason {
            Some(reason) => format!(": {reason}"),
            None => "; the cloud gave no reason.".to_owned(),
        };
        let message = format!("Job {job} has failed{with_code}{why}");
        let mut shown = Self::new(summary.map(str::to_owned).to_vec(), "FAIL", message);
        shown.ended_when_seen = true;
        shown.fields.error_code = code.map(str::to_owned);
        shown.fields.fail_reason = reason.map(str::to_owned);
        shown
    }

    fn of_type(mut self, job_type: &str) -> Self {
        self.fields.job_type = Some(job_type.to_owned());
        self
    }

    /// The job is an export, whose image is the source.
    fn exported(mut self, job: &str) -> Self {
        let image = self.fields.image_id.as_deref().expect("an image id");
        self.message = format!("Job {job} has succeeded: source image {image} is exported.");
        self.of_type("imsNativeExportImageJob")
    }

    fn at(mut self, percent: i32) -> Self {
        self.fields.progress_percent = Some(percent);
        self
    }

    fn began(mut self, at: &str) -> Self {
        self.fields.start_time = time(at);
        self
    }

    fn ended(mut self, at: &str) -> Self {
        self.fields.completion_time = time(at);
        self.ended_when_seen = self.fields.completion_time.is_none();
        self
    }

    fn assert_is(mut self, job: &str, mut status: ImageExportJobStatus, since: Timestamp) {
        assert_eq!(summary(&status), self.summary, "{job}");
        assert_eq!(message(&status), self.message, "{job}");
        if self.ended_when_seen {
            let seen = status.completion_time.take().map(|time| time.0);
            let seen = seen.unwrap_or_else(|| panic!("{job} has ended, so it has an end"));
            assert!(since <= seen && seen <= Timestamp::now(), "{job}: {seen}");
        }
        status.conditions.clear();
        self.fields.conditions.clear();
        assert_eq!(status, self.fields, "{job}");
    }
}

/// A published time may be ahead of this machine's clock; then it is not believed.
fn time(at: &str) -> Option<Time> {
    let at: Timestamp = at.parse().expect("a time stamp");
    (at <= Timestamp::now()).then_some(Time(at))
}

type Case = (&'static str, Answer, Shown);

/// The published bodies, to the letter.
fn published() -> Vec<Case> {
    let case = |job, body: &str, shown| (job, Answer::json(200, body), shown);
    let reference = "ff8080814dbd65d7014dbe0d84db0013";
    let export = "9a175ac892fa134201930039db1a27b1";
    let named = "9a175ac79d2a54ad019d2d0a1f074696";
    let copy = "ff80808280c204e30180d2784c3c0d86";
    vec![
        case(
            reference,
            r#"{"status":"SUCCESS","entities":{"image_id":"e9e91bff-14b6-4a0b-8377-4ed0813e3360"},"job_id":"ff8080814dbd65d7014dbe0d84db0013","job_type":"createImageByInstance","begin_time":"04-Jun-2015 18:11:06:586","end_time":"","error_code":null,"fail_reason":null}"#,
            Shown::succeeded(reference, IMAGE)
                .of_type("createImageByInstance")
                .began("2015-06-04T18:11:06Z"),
        ),
        case(
            export,
            r#"{"job_id":"9a175ac892fa134201930039db1a27b1","job_type":"imsNativeExportImageJob","begin_time":"2024-11-06T06:46:51.929Z","end_time":"2024-11-06T06:49:53.657Z","status":"SUCCESS","error_code":null,"fail_reason":null,"entities":{"image_id":"1ab4df10-fe18-48b7-91c9-53695fcd9df5"}}"#,
            Shown::succeeded(export, "1ab4df10-fe18-48b7-91c9-53695fcd9df5")
                .exported(export)
                .began("2024-11-06T06:46:51Z")
                .ended("2024-11-06T06:49:53Z"),
        ),
        case(
            named,
            r#"{"job_id":"9a175ac79d2a54ad019d2d0a1f074696","job_type":"imsNativeExportImageJob","begin_time":"2026-03-27T01:17:50.446Z","end_time":"2026-03-27T01:57:11.143Z","status":"SUCCESS","error_code":null,"fail_reason":null,"entities":{"image_name":"name","image_id":"698a61e2-abde-4151-a778-f9035e214c92","process_percent":1,"current_task":""}}"#,
            Shown::succeeded(named, "698a61e2-abde-4151-a778-f9035e214c92")
                .exported(named)
                .began("2026-03-27T01:17:50Z")
                .ended("2026-03-27T01:57:11Z")
                .at(100),
        ),
        case(
            copy,
            r#"{"job_id":"ff80808280c204e30180d2784c3c0d86","job_type":"imsCopyImageInRegionJob","begin_time":"2022-05-17T14:42:20.859Z","end_time":"","status":"RUNNING","error_code":null,"fail_reason":null,"entities":{"image_name":"d0d2e701-dfc4-4520-9247-f92907f38eb0","process_percent":0.40,"current_task":"CopyImageInRegionTask:","subJobId":"ff80808280ca6cd30180d278b9db0221","image_id":"498cc67e-7795-482c-8c47-32bcece2d7ec"}}"#,
            Shown::running(copy)
                .of_type("imsCopyImageInRegionJob")
                .began("2022-05-17T14:42:20Z")
                .at(40),
        ),
    ]
}

/// Where an image id may stand, and successes that have none.
#[rustfmt::skip]
fn successes() -> Vec<Case> {
    let members = |job, job_type| {
        let body = answer(&format!(r#""status":"SUCCESS","job_type":"{job_type}","entities":{{}}"#));
        (job, body, Shown::succeeded_without_image(job, job_type))
    };
    vec![
        ("in-results", answer(r#""status":"SUCCESS","entities":{"results":[{"status":"SUCCESS"},{"image_id":"first"},{"image_id":"second"}]}"#),
            Shown::succeeded("in-results", "first")),
        ("in-sub-jobs", answer(r#""status":"SUCCESS","entities":{"sub_jobs_result":[{"status":"SUCCESS","entities":{"image_id":"of-sub-job"}}]}"#),
            Shown::succeeded("in-sub-jobs", "of-sub-job")),
        ("in-data-images", answer(r#""status":"SUCCESS","entities":{"__data_images":"good"}"#), Shown::succeeded("in-data-images", "good")),
        ("result-failed", answer(r#""status":"SUCCESS","entities":{"results":[{"image_id":"bad","status":"FAIL"},{"image_id":"good","status":"SUCCESS"}]}"#),
            Shown::succeeded("result-failed", "good")),
        ("in-all-places", answer(r#""status":"SUCCESS","entities":{"sub_jobs_result":[{"entities":{"image_id":"3"}}],"results":[{"image_id":"2"}],"image_id":"1"}"#),
            Shown::succeeded("in-all-places", "1")),
        ("padded", answer(r#""status":" SUCCESS ","entities":{"image_id":" e9e91bff-14b6-4a0b-8377-4ed0813e3360"}"#),
            Shown::succeeded("padded", IMAGE)),
        ("success-with-error", Answer::preset("success-with-error"), Shown::succeeded("success-with-error", IMAGE).at(100)),
        ("lower-success", Answer::preset("lower-case-success"), Shown::succeeded("lower-success", IMAGE)),
        members("members-add", "imsAddImageMembersJob"),
        members("members-del", "imsDelImageMembersJob"),
        members("members-update", "imsUpdateImageMembersJob"),
    ]
}

/// Where the cause of a failure may stand. No body of a failed job is public: all are constructed.
#[rustfmt::skip]
fn failures() -> Vec<Case> {
    let full = |job| Shown::failed(job, Some("IMG.0148"), Some(REASON));
    vec![
        ("fail", Answer::preset("fail"), full("fail")),
        ("failed", Answer::preset("failed"), full("failed")),
        ("lower-fail", answer(r#""status":"fail","error_code":"IMG.0148","fail_reason":"The OBS bucket does not exist.""#), full("lower-fail")),
        ("fail-in-entities", Answer::preset("fail-in-entities"), full("fail-in-entities")),
        ("fail-in-error", answer(r#""status":"FAIL","error_code":null,"entities":{"error":{"code":"IMG.0148","message":"The OBS bucket does not exist."}}"#), full("fail-in-error")),
        ("fail-in-text", answer(r#""status":"FAIL","entities":{"error":"The OBS bucket does not exist.","error_code":"IMG.0148"}"#), full("fail-in-text")),
        ("fail-in-sub-job", answer(r#""status":"FAIL","entities":{"sub_jobs_result":[{"status":"FAIL","error_code":"IMG.0148","fail_reason":"The OBS bucket does not exist."}]}"#), full("fail-in-sub-job")),
        ("fail-null-reason", Answer::preset("fail-null-reason"), Shown::failed("fail-null-reason", None, None)),
        ("fail-code-alone", answer(r#""status":"FAIL","error_code":"IMG.0148","fail_reason":"""#), Shown::failed("fail-code-alone", Some("IMG.0148"), None)),
        ("fail-with-end", answer(r#""status":"FAIL","begin_time":"2024-11-06T06:46:51.929Z","end_time":"06-Nov-2024 06:49:53:657""#),
            Shown::failed("fail-with-end", None, None).began("2024-11-06T06:46:51Z").ended("2024-11-06T06:49:53Z")),
    ]
}

/// Jobs at work, and what must not spoil an answer.
#[rustfmt::skip]
fn oddities() -> Vec<Case> {
    vec![
        ("init", Answer::preset("init"), Shown::initializing("init")),
        ("lower-init", answer(r#""status":"init""#), Shown::initializing("lower-init")),
        ("running", Answer::preset("running"), Shown::running("running").at(40)),
        ("mixed-running", answer(r#""status":"Running""#), Shown::running("mixed-running")),
        ("old-running", answer(r#""status":"RUNNING","begin_time":"04-Jun-2015 18:11:06:586","end_time":"""#), Shown::running("old-running").began("2015-06-04T18:11:06Z")),
        ("byte-order-mark", Answer::json(200, "\u{feff}{\"job_id\":\" {job_id}\",\"status\":\"RUNNING\"}"), Shown::running("byte-order-mark")),
        ("wrong-types", Answer::preset("wrong-types"), Shown::running("wrong-types").of_type("7")),
        ("sub-job-failed", Answer::preset("sub-job-failed"), Shown::running("sub-job-failed")),
        ("begun-in-1999", answer(r#""status":"RUNNING","begin_time":"1999-12-31T23:59:59.000Z""#), Shown::running("begun-in-1999")),
        ("begun-in-2999", answer(r#""status":"RUNNING","begin_time":"2999-12-31T23:59:59.000Z""#), Shown::running("begun-in-2999")),
        ("unknown-word", Answer::preset("unknown-status"), Shown::unrecognized("unknown-word", "PENDING_PAYMENT")),
        ("nearly-success", answer(r#""status":" Success! ","entities":{"image_id":"x"}"#), Shown::unrecognized("nearly-success", "Success!")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_shows_its_own_status_in_one_write() {
    let team = Team::start("answers").await;
    let since = Timestamp::from_second(Timestamp::now().as_second()).expect("the same second");
    let cases: Vec<Case> = [published(), successes(), failures(), oddities()]
        .into_iter()
        .flatten()
        .collect();
    for (job, answer, _) in &cases {
        team.sim.script_forever(key(job), answer.clone());
        team.create(job).await;
    }
    for (job, _, shown) in cases {
        let status = team
            .until(job, "to show an answer", |status| {
                condition(status, "Ready").is_some_and(|ready| ready.reason != "Pending")
            })
            .await;
        shown.assert_is(job, status, since);
        assert_eq!(team.writes(job), 1, "{job}");
    }

    for word in ["unknown-word", "nearly-success"] {
        team.sim.put_job(Job::new(PROJECT, word));
        team.sim.clear_script(key(word));
    }
    for word in ["unknown-word", "nearly-success"] {
        team.until_reason(word, "JobSucceeded").await;
        assert_eq!(
            team.course(word),
            ["JobStatusUnrecognized", "JobSucceeded"],
            "an unknown status is no end: polling goes on"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_fail_reason_is_cut_and_stripped() {
    let team = Team::start("huge-reason").await;
    team.sim
        .script_forever(key("huge"), Answer::preset("fail-huge-reason"));
    team.create("huge").await;

    let status = team.until_reason("huge", "JobFailed").await;
    let mut expected = "<b>bold</b>[31m".repeat(100);
    expected.truncate(1024 - "…".len());
    assert_eq!(status.fail_reason, Some(expected.clone() + "…"));
    let message = message(&status);
    assert!(message.len() <= 1024, "{}", message.len());
    let shown = message
        .strip_prefix("Job huge has failed: ")
        .and_then(|rest| rest.strip_suffix("….").or_else(|| rest.strip_suffix('…')))
        .expect("the reason, and a sign that it is longer");
    assert!(expected.starts_with(shown), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_id_is_polled_for_and_then_reported_missing() {
    const PENDING: &str = "its image id is not known yet.";
    let mut team = Team::start("image-id").await;
    let none = || Answer::preset("success-no-image");
    // The second poll is answered once the outcome of the first is shown.
    let shown = Gate::new();
    // After two further attempts it is there.
    team.sim.put_job(Job::new(PROJECT, "late"));
    team.sim
        .script(key("late"), [none(), none().held_by(&shown), none()]);
    // It never comes, whatever the further attempts bring.
    for (job, first, further) in [
        ("never", "success-no-image", "success-no-image"),
        ("twice", "duplicate-keys", "duplicate-keys"),
        ("broken", "success-no-image", "unavailable"),
        ("lost", "success-no-image", "job-not-found"),
    ] {
        let further = Answer::preset(further);
        team.sim.script(
            key(job),
            [Answer::preset(first), further.clone().held_by(&shown)],
        );
        team.sim.script_forever(key(job), further);
    }
    let jobs = ["late", "never", "twice", "broken", "lost"];
    for job in jobs {
        team.create(job).await;
    }
    for job in jobs {
        team.until_reason(job, "ImageIDPending").await;
    }
    shown.open();

    let status = team.until_reason("late", "JobSucceeded").await;
    assert!(status.image_id.is_some() && status.completion_time.is_some());
    assert_eq!(team.course("late"), ["ImageIDPending", "JobSucceeded"]);
    assert_eq!((team.polls("late"), team.writes("late")), (4, 2));

    for job in ["never", "twice", "broken", "lost"] {
        let status = team.until_reason(job, "ImageIDMissing").await;
        assert_eq!(team.course(job), ["ImageIDPending", "ImageIDMissing"]);
        let pending = team.versions(job).into_iter().rev().find_map(|object| {
            object
                .status
                .filter(|status| message(status).ends_with(PENDING))
        });
        let pending = pending.expect("it was shown");
        assert_eq!(summary(&pending), in_progress("ImageIDPending"), "{job}");
        assert_eq!(pending.status.as_deref(), Some("SUCCESS"), "{job}");
        assert_eq!(pending.completion_time, None, "{job}");
        assert_eq!(
            summary(&status),
            [
                "Ready=False/ImageIDMissing",
                "Stalled=True/ImageIDMissing",
                "Succeeded=True/JobSucceeded"
            ],
            "{job}"
        );
        assert_eq!(
            message(&status),
            format!(
                "Job {job} has succeeded, but the cloud reported no image id: look the image up in the \
                 cloud, or change the annotation imageexport.dev/poll-requested-at to poll once more."
            )
        );
        assert!(status.completion_time.is_some(), "{job}");
        assert_eq!((team.polls(job), team.writes(job)), (6, 2), "{job}");
    }

    // A person may request one more poll: without success,
    team.request_poll("never", "once").await;
    let status = team
        .until("never", "to echo the request", |status| {
            status.last_handled_poll_request.as_deref() == Some("once")
        })
        .await;
    team.sim.polled(&key("never"), 7).await;
    assert_eq!(
        condition(&status, "Ready").unwrap().reason,
        "ImageIDMissing"
    );
    let ended = status.completion_time;
    // … and with success, also where the operator has not read the Secret since its start.
    team.operator().kill();
    team.start_operator();
    for job in ["never", "lost"] {
        team.sim.put_job(Job::new(PROJECT, job));
        team.sim.clear_script(key(job));
        team.request_poll(job, "again").await;
        let status = team.until_reason(job, "JobSucceeded").await;
        assert!(status.image_id.is_some(), "{job}");
        assert_eq!(status.last_handled_poll_request.as_deref(), Some("again"));
    }
    let status = team.until_reason("never", "JobSucceeded").await;
    assert_eq!(status.completion_time, ended, "the job ended when it ended");
    assert_eq!(
        (team.polls("broken"), team.polls("twice")),
        (6, 6),
        "without a request a finished job is not polled, after a restart either"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_an_end_and_running_does_not_become_init() {
    let team = Team::start("contradictions").await;
    let preset = Answer::preset;
    // A poll that would end what is shown is answered once that is shown.
    let [no_image, init, running] = [Gate::new(), Gate::new(), Gate::new()];
    team.sim.script(
        key("success"),
        [
            preset("success-no-image"),
            preset("running").held_by(&no_image),
            preset("fail"),
            preset("unknown-status"),
        ],
    );
    team.sim.put_job(Job::new(PROJECT, "success"));
    team.sim.script_forever(key("fail"), preset("fail"));
    team.sim.script(
        key("backwards"),
        [
            preset("init"),
            preset("running").held_by(&init),
            preset("init").held_by(&running),
            preset("init"),
        ],
    );
    team.sim.put_job(Job::new(PROJECT, "backwards"));
    for job in ["success", "fail", "backwards"] {
        team.create(job).await;
    }
    for (job, reason, gate) in [
        ("success", "ImageIDPending", no_image),
        ("backwards", "JobInitializing", init),
        ("backwards", "JobRunning", running),
    ] {
        team.until_reason(job, reason).await;
        gate.open();
    }

    team.until_reason("success", "JobSucceeded").await;
    assert_eq!(team.course("success"), ["ImageIDPending", "JobSucceeded"]);
    team.until_reason("backwards", "JobSucceeded").await;
    assert_eq!(
        team.course("backwards"),
        ["JobInitializing", "JobRunning", "JobSucceeded"]
    );
    assert_eq!(team.writes("backwards"), 3);

    team.until_reason("fail", "JobFailed").await;
    team.sim.script_forever(key("fail"), preset("success"));
    team.request_poll("fail", "is it really over?").await;
    let status = team
        .until("fail", "to echo the request", |status| {
            status.last_handled_poll_request.is_some()
        })
        .await;
    assert_eq!(condition(&status, "Ready").unwrap().reason, "JobFailed");
    assert_eq!(team.polls("fail"), 1, "a finished job is not polled");

    let counter = "imageexport_contradictory_answers_total";
    let counted = team.operator().until_metric(counter, 5.0).await;
    assert!((counted - 5.0).abs() < f64::EPSILON, "3 + 2: {counted}");
}
