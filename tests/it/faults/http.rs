//! Faults E1 to E8: what statuses, error bodies and headers of the job query mean. How answers may
//! fail on their way is in `wire`.

use super::{Lab, passing, refused};
use crate::harness::{PROJECT, key};
use image_export_model::{ConfigurationReason, JobState, Outcome};
use std::time::Duration;
use testbed::ims::{Answer, Job};

const ME: &str = "cloud \"otc\" in Secret team-a/otc";

fn rejected(host: &str, answer: &str) -> Outcome {
    refused(
        ConfigurationReason::CredentialsInvalid,
        format!(
            "{host} rejects the token of {ME} ({answer}), which was given and cannot be renewed; write a new token"
        ),
    )
}

fn request_rejected(host: &str, answer: &str) -> Outcome {
    refused(
        ConfigurationReason::RequestRejected,
        format!("{host} refused the request ({answer}); check projectID and jobID"),
    )
}

fn access_denied(host: &str, answer: &str) -> Outcome {
    refused(
        ConfigurationReason::AccessDenied,
        format!(
            "{host} denies access ({answer}); grant the user a role that may read IMS jobs in this project"
        ),
    )
}

fn not_offered(host: &str) -> Outcome {
    refused(
        ConfigurationReason::EndpointInvalid,
        format!(
            "{host} does not offer the image job API (404 APIGW.0101); check the endpoint, image_endpoint_override and the region"
        ),
    )
}

fn redirected(host: &str, answer: &str) -> Outcome {
    refused(
        ConfigurationReason::EndpointInvalid,
        format!(
            "{host} redirects to another address ({answer}), which is never followed; name the final endpoint"
        ),
    )
}

fn throttled(_: &str, _: &str) -> Outcome {
    Outcome::Throttled
}

fn not_found(_: &str, _: &str) -> Outcome {
    Outcome::JobNotFound
}

/// A name, the answer, what comes of it, and the words in that for the answer.
type Case = (
    &'static str,
    Answer,
    fn(&str, &str) -> Outcome,
    &'static str,
);

/// Each answer comes to what its row says, by one request.
async fn assert_outcomes(cases: impl IntoIterator<Item = Case>) {
    let lab = Lab::new().await;
    let host = lab.host();
    for (name, answer, outcome, words) in cases {
        let asked = lab.answered(name, answer).await;
        asked.assert_once(name, &host);
        assert_eq!(asked.seen.outcome, outcome(&host, words), "{name}");
    }
    assert_eq!((lab.sim.logins(), lab.sim.counters().other), (0, 0));
}

#[tokio::test]
#[rustfmt::skip]
async fn e1_a_400_means_what_its_code_says() {
    let preset = Answer::preset;
    assert_outcomes([
        ("img-0024", preset("img-0024"), request_rejected as fn(&str, &str) -> Outcome, "400 IMG.0024"),
        ("no-body", Answer::status(400), request_rejected, "400"),
        ("code-of-no-form", Answer::ims_error(400, "<b>IMG.1</b>", "x"), request_rejected, "400"),
        ("status-as-code", Answer::keystone_error(400, "Bad Request", "x"), request_rejected, "400"),
        ("img-0023", preset("img-0023"), passing, "400 IMG.0023"),
        ("img-0026-as-400", preset("img-0026-as-400"), access_denied, "400 IMG.0026"),
        ("img-0030", preset("img-0030"), rejected, "400 IMG.0030: project id and token do not match"),
        ("img-0087", preset("img-0087"), rejected, "400 IMG.0087: the token is wrong"),
        ("img-0060", preset("img-0060"), throttled, ""),
        ("gateway", Answer::gateway_error(400, "APIGW.0308", "too many"), throttled, ""),
    ]).await;
}

#[tokio::test]
#[rustfmt::skip]
async fn e2_a_401_says_why_where_its_text_does() {
    let preset = Answer::preset;
    assert_outcomes([
        ("token-expired", preset("token-expired"), rejected as fn(&str, &str) -> Outcome, "401 APIGW.0307: the token has expired or belongs to another region"),
        ("older-prefix", Answer::gateway_error(401, "APIG.0307", "The token must be updated."), rejected, "401 APIGW.0307: the token has expired or belongs to another region"),
        ("token-undecryptable", preset("token-undecryptable"), rejected, "401 APIGW.0301: the token is dead or belongs to another cloud"),
        ("signature-expired", preset("signature-expired"), rejected, "401 APIGW.0301: the clock of this cluster and the cloud's differ by more than 15 minutes"),
        ("ak-unknown", preset("ak-unknown"), rejected, "401 APIGW.0301: the access key does not exist"),
        ("signature-wrong", preset("signature-wrong"), rejected, "401 APIGW.0301: the secret key does not fit the access key"),
        ("token-missing", preset("token-missing"), rejected, "401 APIGW.0301"),
        ("unauthorized", preset("unauthorized"), rejected, "401"),
        ("no-body", Answer::status(401), rejected, "401"),
    ]).await;
}

#[tokio::test]
async fn e2_a_rejected_token_is_replaced_once_a_poll() {
    let lab = Lab::new().await;
    let me = lab.password();
    for (count, answer) in ["token-expired", "img-0030", "img-0087"]
        .into_iter()
        .enumerate()
    {
        lab.sim.put_job(Job::new(PROJECT, answer));
        lab.sim.script(key(answer), [Answer::preset(answer)]);
        let asked = lab.ask(&me, answer).await;
        assert_eq!(asked.answer().state, JobState::Success, "{answer}");
        assert_eq!((asked.times, asked.seen.signed_in), (2, true), "{answer}");
        assert_eq!(lab.sim.logins(), 2 + count as u64, "{answer}");
    }

    let logins = lab.sim.logins();
    lab.sim
        .script_forever(key("always"), Answer::preset("token-expired"));
    let asked = lab.ask(&me, "always").await;
    let words = "401 APIGW.0307: the token has expired or belongs to another region";
    let expected = format!(
        "{} rejects the token of {ME} ({words}), and a fresh one as well; check its region, project and user",
        lab.host()
    );
    assert_eq!(
        asked.seen.outcome,
        refused(ConfigurationReason::CredentialsInvalid, expected)
    );
    assert_eq!((asked.times, lab.sim.logins()), (2, logins + 1));
}

#[tokio::test]
#[rustfmt::skip]
async fn e3_a_403_is_a_role_that_does_not_suffice_unless_it_throttles() {
    let preset = Answer::preset;
    assert_outcomes([
        ("img-0026", preset("img-0026"), access_denied as fn(&str, &str) -> Outcome, "403 IMG.0026"),
        ("forbidden", preset("forbidden"), access_denied, "403"),
        ("no-body", Answer::status(403), access_denied, "403"),
        ("html", Answer::status(403).body("<html>Forbidden</html>"), access_denied, "403"),
        ("throttling", Answer::gateway_error(403, "APIG.0308", "too many"), throttled, ""),
    ]).await;
}

#[tokio::test]
#[rustfmt::skip]
async fn e4_a_404_is_no_such_job_unless_it_is_no_such_api() {
    let preset = Answer::preset;
    assert_outcomes([
        ("job-not-found", preset("job-not-found"), not_found as fn(&str, &str) -> Outcome, ""),
        ("no-body", Answer::status(404), not_found, ""),
        ("html", Answer::status(404).body("<html>Not Found</html>"), not_found, ""),
        ("other-code", Answer::gateway_error(404, "APIGW.0106", "x"), not_found, ""),
        ("api-not-published", preset("api-not-published"), |host, _| not_offered(host), ""),
        ("older-prefix", Answer::gateway_error(404, "APIG.0101", "x"), |host, _| not_offered(host), ""),
    ]).await;
}

#[tokio::test]
#[rustfmt::skip]
async fn e5_a_408_and_every_5xx_but_501_is_passing_trouble() {
    let preset = Answer::preset;
    assert_outcomes([
        ("status-408", preset("status-408"), passing as fn(&str, &str) -> Outcome, "408"),
        ("internal-error", preset("internal-error"), passing, "500"),
        ("bad-gateway", preset("bad-gateway"), passing, "502"),
        ("unavailable", preset("unavailable"), passing, "503"),
        ("iam-unavailable", preset("iam-unavailable"), passing, "503 APIGW.0613"),
        ("gateway-timeout", preset("gateway-timeout"), passing, "504"),
        ("status-505", Answer::status(505), passing, "505"),
        ("status-599", Answer::status(599), passing, "599"),
        // A body that breaks off takes nothing away from such a status.
        ("broken", Answer::status(500).body("x".repeat(100)).cut_after(10), passing, "500"),
        ("long", Answer::status(500).body(" ".repeat(1024)).endless(), passing, "500"),
        ("throttled-503", preset("throttled-503"), throttled, ""),
    ]).await;
}

#[tokio::test]
#[rustfmt::skip]
async fn e6_retry_after_is_understood_in_each_of_its_forms() {
    let after = |value: &str| Answer::status(429).header("Retry-After", value);
    let year = Duration::from_secs(366 * 24 * 3600);
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let lab = Lab::new().await;
    for (name, answer, expected) in [
        ("seconds", after("120"), seconds(120)),
        ("padded", after(" 7 "), seconds(7)),
        ("date", after("Wed, 21 Oct 2015 07:28:30 GMT").header("Date", "Wed, 21 Oct 2015 07:28:00 GMT"), seconds(30)),
        ("past", after("Wed, 21 Oct 2015 07:28:00 GMT").header("Date", "Wed, 21 Oct 2015 07:28:00 GMT"), None),
        ("huge", Answer::preset("throttled-retry-after-huge"), Some(year)),
        ("far", after("Thu, 30 Dec 9999 00:00:00 GMT"), Some(year)),
        // Where the header says nothing, the text may.
        ("negative", Answer::preset("throttled-retry-after-negative"), seconds(5)),
        ("garbage", Answer::preset("throttled-retry-after-garbage"), seconds(5)),
        ("text", Answer::preset("throttled"), seconds(5)),
        ("both", Answer::preset("throttled-retry-after"), seconds(2)),
        ("zero", after("0"), None),
        ("fraction", after("1.5"), None),
        ("nothing", Answer::status(429), None),
    ] {
        let asked = lab.answered(name, answer).await;
        asked.assert_once(name, &lab.host());
        assert_eq!(asked.seen.outcome, Outcome::Throttled, "{name}");
        assert_eq!(asked.seen.retry_after, expected, "{name}");
    }
    // Without a Date of its own, a date is compared with our clock.
    let asked = lab.preset("throttled-retry-after-date").await;
    let wait = asked.seen.retry_after.expect("a time to wait");
    assert!(wait <= Duration::from_secs(3), "{wait:?}");
    // A failure may ask for time as well.
    let asked = lab.preset("unavailable-retry-after").await;
    assert_eq!(asked.seen.outcome, passing(&lab.host(), "503"));
    assert_eq!(asked.seen.retry_after, seconds(2));
}

#[tokio::test]
#[rustfmt::skip]
async fn e7_statuses_that_nobody_documented_are_no_answer() {
    let preset = Answer::preset;
    assert_outcomes([
        ("status-405", preset("status-405"), request_rejected as fn(&str, &str) -> Outcome, "405"),
        ("status-406", preset("status-406"), request_rejected, "406"),
        ("status-409", preset("status-409"), request_rejected, "409"),
        ("status-418", Answer::status(418), request_rejected, "418"),
        ("status-501", preset("status-501"), request_rejected, "501"),
        ("status-407", preset("status-407"), passing, "407"),
        ("no-content", preset("no-content"), passing, "204"),
        // These three bring the SUCCESS of the job that was asked for.
        ("status-206", preset("status-206"), passing, "206"),
        ("status-299", preset("status-299"), passing, "299"),
        ("status-999", preset("status-999"), passing, "999"),
    ]).await;
}

#[tokio::test]
async fn e8_a_redirect_is_refused_and_never_followed() {
    let lab = Lab::new().await;
    lab.sim.put_job(Job::new(PROJECT, "target"));
    for status in [300, 301, 302, 303, 304, 307, 308] {
        let target = lab.sim.job_url(&key("target"));
        let answer = Answer::status(status).header("Location", &target);
        let asked = lab.answered(&format!("redirect-{status}"), answer).await;
        asked.assert_once("redirect", &lab.host());
        let expected = redirected(&lab.host(), &status.to_string());
        assert_eq!(asked.seen.outcome, expected);
    }
    let asked = lab.preset("redirect").await;
    assert_eq!(asked.seen.outcome, redirected(&lab.host(), "302"));
    assert_eq!(lab.sim.polls(&key("target")), 0, "the token stayed here");
}
