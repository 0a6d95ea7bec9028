//! What happens to tokens, and to the identity service.

use super::{
    DOMAIN, Lab, ME, PASSWORD, PROJECT, TOKEN, credential, given_token, key, misconfigured,
    options, query, running,
};
use futures::future::join_all;
use image_export_cloud::{CloudOptions, Pacing};
use image_export_model::{ConfigurationReason, Failure, FailureKind, JobState, Outcome, Stage};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use testbed::ims::{Answer, Gate, Job, Target, User};

const OTHER_PROJECT: &str = "0123456789abcdef0123456789abcdef";

fn login_failed(kind: FailureKind, message: String) -> Outcome {
    Outcome::Failed(Failure {
        kind,
        stage: Stage::Login,
        message: message.into(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_in_flight_is_replaced_by_one_login_for_all() {
    const LIFETIME: Duration = Duration::from_millis(1500);
    let lab = Lab::new();
    lab.sim.set_token_lifetime(LIFETIME);
    let me = lab.password();
    let gate = Gate::new();
    let jobs: Vec<String> = (0..10).map(|n| format!("job-{n}")).collect();
    lab.sim.put_job(running("first"));
    lab.poll(&me, "first").await;
    for job in &jobs {
        lab.sim.put_job(running(job));
        // The token is looked at when the gate is passed.
        lab.sim.script(key(job), [Answer::pass().held_by(&gate)]);
    }
    let expiry = async {
        gate.arrived(jobs.len()).await;
        tokio::time::sleep(LIFETIME).await;
        lab.sim.set_token_lifetime(Duration::from_secs(3600));
        gate.open();
    };
    let polls = join_all(jobs.iter().map(async |job| {
        let polled = lab.poll(&me, job).await;
        match polled.observation.outcome {
            Outcome::Deferred(after) => {
                assert_eq!(polled.queries, 1);
                tokio::time::sleep(after).await;
                let polled = lab.poll(&me, job).await;
                (1 + polled.queries, polled)
            }
            _ => (polled.queries, polled),
        }
    }));
    let (polls, ()) = tokio::join!(polls, expiry);
    for (queries, polled) in polls {
        assert_eq!(polled.answer().state, JobState::Running);
        assert_eq!(queries, 2);
    }
    assert_eq!(lab.sim.logins(), 2);
    let answers = lab.sim.counters().answers;
    assert_eq!((answers[&401], answers[&200]), (10, 11));
}

#[tokio::test]
async fn a_rejected_token_is_replaced_once_a_poll() {
    let lab = Lab::new();
    let me = lab.password();
    for (count, answer) in ["token-expired", "img-0030", "img-0087"]
        .into_iter()
        .enumerate()
    {
        lab.sim.put_job(Job::new(PROJECT, answer));
        lab.sim.script(key(answer), [Answer::preset(answer)]);
        let polled = lab.poll(&me, answer).await;
        assert_eq!(polled.answer().state, JobState::Success, "{answer}");
        assert_eq!(
            (polled.queries, polled.observation.signed_in),
            (2, true),
            "{answer}"
        );
        assert_eq!(lab.sim.logins(), 2 + count as u64, "{answer}");
    }

    let logins = lab.sim.logins();
    lab.sim
        .script_forever(key("always"), Answer::preset("token-expired"));
    let polled = lab.poll(&me, "always").await;
    let words = "401 APIGW.0307: the token has expired or belongs to another region";
    let expected = format!(
        "{} rejects the token of {ME} ({words}), and a fresh one as well; check its region, project and user",
        lab.host()
    );
    assert_eq!(
        polled.observation.outcome,
        misconfigured(ConfigurationReason::CredentialsInvalid, expected)
    );
    assert_eq!((polled.queries, lab.sim.logins()), (2, logins + 1));
}

/// What a failing identity service does to those who have a token and to those who need one.
async fn failing_identity_service(answer: Answer, kind: FailureKind, words: &str) {
    let lab = Lab::with(CloudOptions {
        request_timeout: Duration::from_secs(5),
        pacing: Arc::new(Pacing::default().scaled(0.1)),
        ..options()
    });
    lab.sim.put_job(running("job"));
    let (me, given, other) = (lab.password(), lab.given_token(), lab.password());
    assert_eq!(
        lab.poll(&other, "job").await.answer().state,
        JobState::Running
    );
    lab.sim.set_token_lifetime(Duration::from_secs(30));
    let signed_in = Instant::now();
    assert_eq!(lab.poll(&me, "job").await.answer().state, JobState::Running);
    assert_eq!(lab.sim.logins(), 2);
    lab.sim.script_forever(Target::Login, answer);

    // Past half of its life a login is tried, and the old token stays in use.
    tokio::time::sleep_until((signed_in + Duration::from_secs(16)).into()).await;
    for _ in 0..2 {
        let polled = lab.poll(&me, "job").await;
        assert_eq!(polled.answer().state, JobState::Running, "{words}");
        assert_eq!((polled.queries, lab.sim.logins()), (1, 3), "{words}");
    }

    tokio::time::sleep_until((signed_in + Duration::from_secs(31)).into()).await;
    let polled = lab.poll(&me, "job").await;
    let message = format!("identity service {} {words}", lab.host());
    assert_eq!(polled.observation.outcome, login_failed(kind, message));
    assert_eq!(
        (polled.queries, polled.observation.endpoint),
        (0, None),
        "{words}"
    );
    let logins = lab.sim.logins();
    for unaffected in [&given, &other] {
        let polled = lab.poll(unaffected, "job").await;
        assert_eq!(polled.answer().state, JobState::Running, "{words}");
    }
    assert_eq!(lab.sim.logins(), logins, "{words}");

    lab.sim.clear_script(Target::Login);
    let fixed = Instant::now();
    while !matches!(
        lab.poll(&me, "job").await.observation.outcome,
        Outcome::Answered(_)
    ) {
        assert!(fixed.elapsed() < Duration::from_secs(60), "{words}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_identity_service_does_not_affect_valid_tokens() {
    let preset = Answer::preset;
    let throttled = "limits the rate of logins (429)";
    let silent = "did not answer within 5 s";
    tokio::join!(
        failing_identity_service(preset("internal-error"), FailureKind::Http, "answered 500"),
        failing_identity_service(preset("unavailable"), FailureKind::Http, "answered 503"),
        failing_identity_service(preset("iam-throttled"), FailureKind::Http, throttled),
        failing_identity_service(Answer::hang(), FailureKind::Timeout, silent),
    );
}

#[tokio::test]
async fn a_token_of_another_project_is_refused_naming_both() {
    let lab = Lab::new();
    lab.sim.put_user(
        User::new("ieo", DOMAIN, PASSWORD)
            .project(PROJECT, "eu-de_images")
            .project(OTHER_PROJECT, "eu-de_other"),
    );
    lab.sim.add_token("canary-token-other", Some(OTHER_PROJECT));
    for project in [PROJECT, OTHER_PROJECT] {
        lab.sim.put_job(Job::new(project, "job"));
    }
    let url = lab.sim.url();

    let given = given_token(&lab.client, &url, "canary-token-other");
    let polled = lab.poll(&given, "job").await;
    let message = format!(
        "{} rejects the token of {ME} (400 IMG.0030: project id and token do not match), which was given and cannot be renewed; write a new token",
        lab.host()
    );
    assert_eq!(
        polled.observation.outcome,
        misconfigured(ConfigurationReason::CredentialsInvalid, message)
    );

    let message =
        format!("{ME} signs in to project {OTHER_PROJECT}, but spec.projectID is {PROJECT}");
    // An id is compared before the login, a name after it.
    let by_id = format!("project_id: {OTHER_PROJECT}");
    for (project, logins) in [(by_id.as_str(), 0), ("project_name: eu-de_other", 1)] {
        let entry = format!(
            "auth: {{auth_url: '{url}/v3', username: ieo, password: {PASSWORD}, user_domain_name: {DOMAIN}, {project}}}"
        );
        let me = credential(&lab.client, &entry).expect("a usable entry");
        let polled = lab.poll(&me, "job").await;
        assert_eq!(
            polled.observation.outcome,
            misconfigured(ConfigurationReason::CredentialsInvalid, message.as_str())
        );
        assert_eq!((polled.queries, lab.sim.logins()), (0, logins), "{project}");
    }

    // An entry that names none gets a token for each project, and never mixes them up.
    let me = lab.password();
    for project in [PROJECT, OTHER_PROJECT, PROJECT, OTHER_PROJECT] {
        let seen = query(&lab.client, &me, project, "job").await;
        assert_eq!(seen.outcome.category(), "answered", "{project}: {seen:?}");
        assert_eq!(seen.requests, 1);
    }
    assert_eq!(lab.sim.logins(), 3);
}

#[tokio::test]
async fn a_token_that_fits_into_no_header_is_reported() {
    const KIB: usize = 1024;
    let lab = Lab::new();
    lab.sim.put_job(running("job"));
    // Tokens that hold a catalog are long.
    lab.sim.set_token_length(32 * KIB);
    let polled = lab.poll(&lab.password(), "job").await;
    assert_eq!(polled.answer().state, JobState::Running);

    lab.sim.set_token_length(32 * KIB + 1);
    let polled = lab.poll(&lab.password(), "job").await;
    let message = format!(
        "identity service {} answered with a token of more than 32 KiB, which fits into no header",
        lab.host()
    );
    assert_eq!(
        polled.observation.outcome,
        login_failed(FailureKind::Malformed, message)
    );
    assert_eq!(polled.queries, 0);

    let long = "x".repeat(32 * KIB + 1);
    let entry = format!(
        "auth_type: token, auth: {{token: {long}}}, image_endpoint_override: '{}'",
        lab.sim.url()
    );
    let error = credential(&lab.client, &entry).expect_err("it is refused");
    assert_eq!(error.reason, ConfigurationReason::CredentialsInvalid);
    assert!(
        error
            .message
            .contains("token has 32769 bytes, and at most 32768 are read"),
        "{error:?}"
    );
    assert!(!error.message.contains("xxx"), "{error:?}");
}

#[tokio::test]
async fn an_answer_that_repeats_a_secret_is_redacted() {
    let lab = Lab::new();
    for (me, secret) in [(lab.given_token(), TOKEN), (lab.password(), "issued-")] {
        lab.sim
            .script_forever(key("own"), Answer::preset("fail-own-token"));
        let polled = lab.poll(&me, "own").await;
        assert_eq!(
            polled.answer().fail_reason.as_deref(),
            Some("cannot read with [redacted]")
        );
        assert!(!format!("{:?}", polled.observation).contains(secret));
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
        let polled = lab.poll(&me, "everywhere").await;
        let seen = format!("{:?}", polled.observation);
        assert!(seen.contains("[redacted]"), "{seen}");
        assert!(!seen.contains("issued-"), "{seen}");
        let own = if polled.observation.signed_in {
            PASSWORD
        } else {
            TOKEN
        };
        assert!(!seen.contains(own), "{seen}");
    }
}
