//! What an object shows while its job cannot be queried: one error of each class. The table of all errors
//! is in the package of the cloud client (`src/tests/error_table.rs`). What was reported before stays, and
//! the next answer is shown at once.

use crate::harness::{
    PROJECT, TOKEN, Team, condition, eventually, in_progress, key, message, summary,
};
use image_export_api::ImageExportJobStatus;
use serde_json::json;
use std::fmt::Write as _;
use testbed::ims::{Answer, End, Gate, Job, JobKey};

/// Opens all projects of the simulator.
const ANY_PROJECT: &str = "canary-token-of-all-projects";
const BEGAN: &str = "2024-11-06T06:46:51Z";

/// Runs until it is replaced by [`finished`].
fn running(job: &str) -> Job {
    finished(job).ends(End::Never)
}

fn finished(job: &str) -> Job {
    Job::new(PROJECT, job).begun_at(BEGAN.parse().expect("a time stamp"))
}

fn assert_still_known(job: &str, status: &ImageExportJobStatus) {
    assert_eq!(status.status.as_deref(), Some("RUNNING"), "{job}");
    let job_type = status.job_type.as_deref();
    assert_eq!(job_type, Some("imsNativeExportImageJob"), "{job}");
    let began = status.start_time.as_ref().map(|time| time.0.to_string());
    assert_eq!(began.as_deref(), Some(BEGAN), "{job}");
    assert_eq!(status.image_id, None, "{job}");
    assert_eq!(status.completion_time, None, "{job}");
}

fn host(team: &Team) -> String {
    team.sim.url().replace("http://", "")
}

/// Lets the job end and the cloud answer properly.
fn repair(team: &Team, job: &str) {
    team.sim.put_job(finished(job));
    team.sim.clear_script(key(job));
}

/// Transient errors, and the detail of their message.
fn transient() -> Vec<(&'static str, Answer, &'static str)> {
    let preset = |name, detail| (name, Answer::preset(name), detail);
    vec![
        preset(
            "img-0023",
            "{host} answered 400 IMG.0023 from the image service",
        ),
        preset(
            "unavailable",
            "{host} answered 503 without a code of the image service",
        ),
        preset(
            "no-content",
            "{host} answered 204 without a code of the image service",
        ),
        preset("cut", "the answer of {host} broke off"),
        preset("endless", "the answer of {host} is longer than 256 KiB"),
        preset("html", "the answer of {host} is not JSON"),
        preset("json-array", "the answer of {host} is not a JSON object"),
        preset("other-job", "the answer of {host} is about another job"),
        preset("no-job-id", "the answer of {host} has no job_id"),
        preset("null-status", "the answer of {host} has no status"),
        (
            "compressed",
            Answer::json(200, "not looked at").header("Content-Encoding", "gzip"),
            "the answer of {host} is not the gzip that it claims to be",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transient_error_is_shown_only_when_it_lasts_and_hides_nothing() {
    let team = Team::start_for_graces("transient").await;
    let cases = transient();
    for (job, ..) in &cases {
        team.follow(running(job)).await;
    }

    // While it is short, no write reports it.
    for (job, answer, _) in &cases {
        team.until_reason(job, "JobRunning").await;
        team.sim.script(key(job), [answer.clone(), answer.clone()]);
    }
    let polls: Vec<u64> = cases.iter().map(|(job, ..)| team.polls(job)).collect();
    for ((job, ..), polls) in cases.iter().zip(polls) {
        team.sim.polled(&key(job), polls + 4).await;
        assert_eq!(team.writes(job), 1, "{job}");
    }

    for (job, answer, _) in &cases {
        team.sim.script_forever(key(job), answer.clone());
    }
    for (job, _, detail) in &cases {
        let status = team.until_reason(job, "PollFailed").await;
        assert_eq!(summary(&status), in_progress("PollFailed"), "{job}");
        let detail = detail.replace("{host}", &host(&team));
        assert_eq!(
            message(&status),
            format!(
                "Job {job} cannot be queried at the moment: {detail}; the operator keeps trying."
            )
        );
        assert_still_known(job, &status);
        repair(&team, job);
    }
    for (job, ..) in &cases {
        team.until_reason(job, "JobSucceeded").await;
        assert_eq!(
            team.course(job),
            ["JobRunning", "PollFailed", "JobSucceeded"],
            "{job}"
        );
        assert_eq!(team.writes(job), 3, "{job}");
    }
}

/// Configuration errors: the reason, and the detail of the message. `{me}` is the credential.
fn misconfigured() -> Vec<(&'static str, Answer, &'static str, &'static str)> {
    let preset = |name, reason, detail| (name, Answer::preset(name), reason, detail);
    vec![
        preset(
            "img-0024",
            "RequestRejected",
            "{host} refused the request (400 IMG.0024); check projectID and jobID",
        ),
        (
            "not-implemented",
            Answer::status(501),
            "RequestRejected",
            "{host} refused the request (501); check projectID and jobID",
        ),
        preset(
            "img-0026",
            "AccessDenied",
            "{host} denies access (403 IMG.0026); grant the user a role that may read IMS jobs in this project",
        ),
        preset(
            "api-not-published",
            "EndpointInvalid",
            "{host} does not offer the image job API (404 APIGW.0101 from the API gateway); check the endpoint, image_endpoint_override, image_job_path and the region",
        ),
        (
            "default-backend",
            Answer::status(404).body("default backend - 404"),
            "EndpointInvalid",
            "{host} does not offer the image job API (404 from the default backend of an ingress controller); check the endpoint, image_endpoint_override, image_job_path and the region",
        ),
        (
            "empty-404",
            Answer::status(404),
            "EndpointInvalid",
            "{host} answered 404 without a code of the image service, as a gateway, load balancer or ingress does; check the endpoint, image_endpoint_override, the region and jobID",
        ),
        preset(
            "redirect",
            "EndpointInvalid",
            "{host} redirects to another address (302), which is never followed; name the final endpoint",
        ),
        preset(
            "img-0030",
            "CredentialsInvalid",
            "{host} rejects the token of {me} (400 IMG.0030: project id and token do not match), which was given and cannot be renewed; write a new token",
        ),
        preset(
            "token-expired",
            "CredentialsInvalid",
            "{host} rejects the token of {me} (401 APIGW.0307: the token has expired or belongs to another region), which was given and cannot be renewed; write a new token",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_error_is_shown_at_once_and_named() {
    let team = Team::start("misconfigured").await;
    let cases = misconfigured();
    // A cloud entry each, so that a rejected token affects no other object.
    let mut clouds = "clouds:\n".to_owned();
    for (job, ..) in &cases {
        let url = team.sim.url();
        let _ = writeln!(
            clouds,
            "  {job}: {{auth_type: token, auth: {{token: {TOKEN}}}, image_endpoint_override: '{url}'}}"
        );
    }
    team.put_secret("each", &clouds);
    for (job, ..) in &cases {
        team.sim.put_job(running(job));
        let reference = json!({ "secretName": "each", "cloudName": job });
        team.create_with(job, json!({ "cloudCredentialsRef": reference }))
            .await;
    }
    for (job, answer, ..) in &cases {
        team.until_reason(job, "JobRunning").await;
        team.sim.script_forever(key(job), answer.clone());
    }
    for (job, _, reason, detail) in &cases {
        let status = team.until_reason(job, reason).await;
        assert_eq!(summary(&status), in_progress(reason), "{job}");
        let me = format!("cloud \"{job}\" in Secret {}/each", team.namespace);
        let detail = detail.replace("{host}", &host(&team)).replace("{me}", &me);
        assert_eq!(
            message(&status),
            format!("Job {job} cannot be queried: {detail}.")
        );
        assert_still_known(job, &status);
        repair(&team, job);
    }
    for (job, _, reason, _) in &cases {
        team.until_reason(job, "JobSucceeded").await;
        assert_eq!(
            team.course(job),
            ["JobRunning", *reason, "JobSucceeded"],
            "{job}"
        );
        assert_eq!(team.writes(job), 3, "{job}");
    }
    assert_eq!(team.sim.counters().other, 0, "no redirect was followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_the_cloud_does_not_know_is_lost_only_after_a_grace() {
    let team = Team::start_for_graces("not-found").await;
    let stalled = [
        "Ready=False/JobNotFound",
        "Stalled=True/JobNotFound",
        "Succeeded=Unknown/JobNotFound",
    ];
    let is_stalled = |status: &ImageExportJobStatus| condition(status, "Stalled").is_some();
    for job in ["seen", "blip"] {
        team.follow(running(job)).await;
    }
    team.create("never-seen").await;

    team.until_reason("blip", "JobRunning").await;
    // The poll after the blip is answered once the blip is shown.
    let shown = Gate::new();
    team.sim.script(
        key("blip"),
        [
            Answer::preset("job-not-found"),
            Answer::pass().held_by(&shown),
        ],
    );
    team.until_reason("blip", "JobNotFound").await;
    shown.open();
    team.until_reason("seen", "JobRunning").await;
    team.sim.remove_job(&key("seen"));
    for job in ["seen", "never-seen"] {
        let status = team.first_with_reason(job, "JobNotFound").await;
        assert_eq!(summary(&status), in_progress("JobNotFound"), "{job}");
        let expected = format!("The cloud currently finds no job {job}.");
        assert_eq!(message(&status), expected);
    }

    let status = team.until("seen", "to stall", is_stalled).await;
    assert_eq!(summary(&status), stalled);
    assert_still_known("seen", &status);
    assert_eq!(
        message(&status),
        "The cloud no longer finds job seen, so its outcome is lost: check in the cloud whether its \
         image exists."
    );
    assert!(team.polls("seen") > 5, "{}", team.polls("seen"));
    let status = team.until("never-seen", "to stall", is_stalled).await;
    assert_eq!(summary(&status), stalled);
    assert_eq!(status.status, None);
    assert_eq!(
        message(&status),
        "The cloud finds no job never-seen: check jobID and projectID, and that the \
         credentials are for the job's region."
    );

    // Other errors do not show whether the job exists; an answer does.
    team.sim
        .script(key("seen"), vec![Answer::preset("unavailable"); 2]);
    for job in ["seen", "never-seen"] {
        team.sim.put_job(finished(job));
        team.until_reason(job, "JobSucceeded").await;
    }
    assert_eq!(
        team.course("seen"),
        ["JobRunning", "JobNotFound", "JobSucceeded"]
    );
    assert_eq!(team.writes("seen"), 4);
    assert_eq!(team.course("never-seen"), ["JobNotFound", "JobSucceeded"]);
    assert_eq!(team.writes("never-seen"), 3);
    eventually("the blip is over", || {
        (team.course("blip") == ["JobRunning", "JobNotFound", "JobRunning"]).then_some(())
    })
    .await;
}

/// Answers that throttle, and for how many seconds.
#[rustfmt::skip]
fn throttling() -> Vec<(&'static str, Answer, f64)> {
    let over = |seconds: u32| format!("The throttling threshold has been reached: policy ip over ratelimit,limit:5,time:{seconds} second");
    vec![
        ("seconds", Answer::status(429).header("Retry-After", "3"), 3.0),
        // By the answer's own clock, not the local one.
        ("date", Answer::status(429).header("Date", "Wed, 21 Oct 2015 07:28:00 GMT").header("Retry-After", "Wed, 21 Oct 2015 07:28:03 GMT"), 3.0),
        ("text", Answer::gateway_error(429, "APIGW.0308", &over(3)), 3.0),
        ("older-prefix", Answer::gateway_error(403, "APIG.0308", &over(3)), 3.0),
        ("as-503", Answer::gateway_error(503, "APIGW.0308", &over(3)), 3.0),
        ("img-0060", Answer::preset("img-0060").header("Retry-After", "3"), 3.0),
        ("negative", Answer::status(429).header("Retry-After", "-3"), 0.0),
        ("garbage", Answer::status(429).header("Retry-After", "soon"), 0.0),
    ]
}

/// That throttling is reported when it lasts, after 5 minutes, is tested in virtual time, by
/// `throttling_shows_poll_overdue_after_5_minutes_and_never_poll_failed` of the core.
#[tokio::test(flavor = "multi_thread")]
async fn no_poll_comes_before_the_time_that_the_cloud_names() {
    let team = Team::start("throttled").await;
    team.sim.add_token(ANY_PROJECT, None);
    team.put_secret("otc", &team.clouds_yaml().replace(TOKEN, ANY_PROJECT));
    let busy = Answer::status(503).header("Retry-After", "3");
    let cases = || {
        throttling()
            .into_iter()
            .chain([("busy", busy.clone(), 3.0)])
    };
    // A project each: a pause concerns all jobs of one project.
    let spec = |project: &str| json!({ "projectID": project });
    for (name, ..) in cases() {
        team.sim.put_job(running(name).of_project(name));
        team.create_with(name, spec(name)).await;
    }
    for (name, answer, _) in cases() {
        team.until_reason(name, "JobRunning").await;
        team.sim.script(JobKey::new(name, name), [answer]);
    }
    let outcome = |outcome| format!("imageexport_polls_total{{outcome=\"{outcome}\"}}");
    let operator = team.operator();
    operator.until_metric(&outcome("throttled"), 8.0).await;
    operator.until_metric(&outcome("http_error"), 1.0).await;

    // A neighbour in the same project waits as well.
    for (name, ..) in cases() {
        let neighbour = format!("{name}-neighbour");
        team.sim.put_job(finished(&neighbour).of_project(name));
        team.create_with(&neighbour, spec(name)).await;
    }
    for (name, _, seconds) in cases() {
        let neighbour = format!("{name}-neighbour");
        team.until_reason(&neighbour, "JobSucceeded").await;
        let own = JobKey::new(name, name);
        team.sim.polled(&own, team.sim.polls(&own) + 1).await;
        let paths = [own.to_string(), JobKey::new(name, neighbour).to_string()];
        let mut requests = team.sim.requests();
        requests.retain(|request| paths.contains(&request.path));
        let refused = requests
            .iter()
            .position(|request| request.status.is_some_and(|status| status != 200))
            .expect("one was refused");
        let pause = requests[refused + 1].at_seconds - requests[refused].at_seconds;
        assert!(pause >= seconds, "{name}: polled again after {pause} s");
        assert_eq!(team.writes(name), 1, "{name}: no write reports it");
        team.sim.put_job(finished(name).of_project(name));
    }
    for (name, ..) in cases() {
        team.until_reason(name, "JobSucceeded").await;
        assert_eq!(team.course(name), ["JobRunning", "JobSucceeded"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_hangs_is_cancelled_and_holds_up_no_other() {
    let team = Team::start("hanging").await;
    for job in ["hangs", "drips"] {
        team.follow(running(job)).await;
    }
    for job in ["hangs", "drips"] {
        team.until_reason(job, "JobRunning").await;
    }
    team.sim.script(key("drips"), [Answer::preset("drip")]);
    // A request is given up after 20 s by the clock. On a machine on which the neighbour takes longer than
    // that, another neighbour is tried with the next request.
    let mut holds_up_no_other = false;
    for attempt in 0..5 {
        let never = Gate::new();
        team.sim
            .script(key("hangs"), [Answer::hang().held_by(&never)]);
        never.arrived(1).await;
        let polls = team.polls("hangs");
        let neighbour = format!("neighbour-{attempt}");
        team.follow(finished(&neighbour)).await;
        team.until_reason(&neighbour, "JobSucceeded").await;
        holds_up_no_other = never.waiting() == 1;
        eventually("the operator hangs up", || {
            (never.waiting() == 0).then_some(())
        })
        .await;
        team.sim.polled(&key("hangs"), polls + 2).await;
        if holds_up_no_other {
            break;
        }
    }
    assert!(holds_up_no_other, "one job does not hold up another");
    team.sim
        .polled(&key("drips"), team.polls("drips") + 2)
        .await;
    for job in ["hangs", "drips"] {
        assert_eq!(team.writes(job), 1, "one time-out is not reported");
        repair(&team, job);
    }
    for job in ["hangs", "drips"] {
        team.until_reason(job, "JobSucceeded").await;
        assert_eq!(team.course(job), ["JobRunning", "JobSucceeded"]);
    }
}
