//! Faults G1 to G8: what happens to tokens, Secrets and the identity service. The table of
//! everything that can be wrong in a Secret is in `crate::credentials`.

use super::{DOMAIN, Lab, PASSWORD, credential, given_token, options, origin, refused, secret};
use crate::{
    credentials::{own_secret, put, running},
    harness::{Launch, PROJECT, SCALE, Team, eventually, key},
};
use futures::{StreamExt, future::join_all, stream};
use image_export_cloud::{CloudOptions, Pacing};
use image_export_model::{ConfigurationReason, Failure, FailureKind, JobState, Outcome, Stage};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use testbed::ims::{self, Answer, Gate, Job, Target, User};

const OTHER_PROJECT: &str = "0123456789abcdef0123456789abcdef";
const ME: &str = "cloud \"otc\" in Secret team-a/otc";
/// What a busy machine may add to a time that the operator keeps.
const SLACK: Duration = Duration::from_millis(1500);

fn login_failed(kind: FailureKind, message: String) -> Outcome {
    Outcome::Failed(Failure {
        kind,
        stage: Stage::Login,
        message: message.into(),
    })
}

/// A clouds.yaml for a user of the team's simulator.
fn login(team: &Team, user: &str, password: &str) -> String {
    let url = team.sim.url();
    format!(
        "clouds: {{otc: {{auth: {{auth_url: '{url}/v3', username: {user}, user_domain_name: {DOMAIN}, password: {password}}}}}}}"
    )
}

fn user(name: &str, password: &str) -> User {
    User::new(name, DOMAIN, password).project(PROJECT, "eu-de_images")
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_a_token_that_expires_in_flight_is_replaced_by_one_login_for_all() {
    const LIFETIME: Duration = Duration::from_millis(1500);
    let lab = Lab::new().await;
    lab.sim.set_token_lifetime(LIFETIME);
    let me = lab.password();
    let gate = Gate::new();
    let jobs: Vec<String> = (0..10).map(|n| format!("job-{n}")).collect();
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
    let polls = join_all(jobs.iter().map(|job| lab.ask(&me, job)));
    let (polls, ()) = tokio::join!(polls, expiry);
    for asked in polls {
        assert_eq!(asked.answer().state, JobState::Running);
        assert_eq!(asked.times, 2);
    }
    assert_eq!(lab.sim.logins(), 2);
    let answers = lab.sim.counters().answers;
    assert_eq!((answers[&401], answers[&200]), (10, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn g2_a_rotated_secret_is_used_in_time_and_at_once_where_the_old_one_is_rejected() {
    let team = Team::start("g2").await;
    for name in ["old", "new"] {
        team.sim.put_user(user(name, PASSWORD));
    }
    put(
        &team,
        "rotated",
        "clouds.yaml",
        login(&team, "old", PASSWORD),
    )
    .await;
    team.sim.put_job(running("job"));
    team.create_with("job", own_secret("rotated")).await;
    team.until_reason("job", "JobRunning").await;
    assert_eq!(team.sim.logins(), 1);

    // Both users are good: the new one counts within 5 minutes.
    put(
        &team,
        "rotated",
        "clouds.yaml",
        login(&team, "new", PASSWORD),
    )
    .await;
    let rotated = Instant::now();
    eventually("a login of the new user", || {
        (team.sim.logins() == 2).then_some(())
    })
    .await;
    let refresh = Duration::from_secs(300).mul_f64(SCALE);
    assert!(rotated.elapsed() <= refresh + SLACK);
    assert_eq!(team.course("job"), ["JobRunning"]);
    assert_eq!(team.writes("job"), 1);

    // The password is changed here and there: it counts long before the next planned look.
    put(
        &team,
        "rotated",
        "clouds.yaml",
        login(&team, "new", "canary-password-2"),
    )
    .await;
    let before = team.sim.requests().len();
    team.sim.put_user(user("new", "canary-password-2"));
    team.sim.revoke_issued_tokens();
    let revoked = Instant::now();
    let path = key("job").to_string();
    eventually("an accepted poll", || {
        team.sim.requests()[before..]
            .iter()
            .any(|request| {
                request.path == path
                    && request.credential == ims::Credential::IssuedToken
                    && request.status == Some(200)
            })
            .then_some(())
    })
    .await;
    assert!(
        revoked.elapsed() <= refresh / 4 + SLACK,
        "{:?}",
        revoked.elapsed()
    );
    team.until_reason("job", "JobRunning").await;
    let counters = team.sim.counters();
    assert!(counters.password_failures <= 1, "{counters:?}");
    assert!(team.operator().is_running());
}

#[tokio::test]
async fn g3_a_secret_that_is_no_clouds_yaml_says_so_before_anything_is_sent() {
    let lab = Lab::new().await;
    let refusals = [
        lab.client.credential(&origin(), None, "otc"),
        lab.client
            .credential(&origin(), Some(&BTreeMap::new()), "otc"),
        secret(&lab.client, ""),
        secret(&lab.client, b"clouds: \xff".to_vec()),
        secret(&lab.client, "clouds: {otc: {auth: ["),
        secret(&lab.client, "clouds: {prod: {}}"),
    ]
    .map(|parsed| match parsed {
        Err(refusal) => (refusal.reason, refusal.message.to_string()),
        Ok(_) => panic!("it was taken"),
    });
    let beginnings = [
        (
            ConfigurationReason::CredentialsNotFound,
            "Secret team-a/otc has no key clouds.yaml",
        ),
        (
            ConfigurationReason::CredentialsNotFound,
            "Secret team-a/otc has no key clouds.yaml",
        ),
        (
            ConfigurationReason::CredentialsInvalid,
            "key clouds.yaml of Secret team-a/otc is empty",
        ),
        (
            ConfigurationReason::CredentialsInvalid,
            "key clouds.yaml of Secret team-a/otc is not UTF-8 text",
        ),
        (
            ConfigurationReason::CredentialsInvalid,
            "key clouds.yaml of Secret team-a/otc is not valid YAML",
        ),
        (
            ConfigurationReason::CredentialsNotFound,
            "clouds.yaml of Secret team-a/otc has no cloud \"otc\"",
        ),
    ];
    for ((reason, message), (expected, beginning)) in refusals.iter().zip(beginnings) {
        assert_eq!(*reason, expected, "{message}");
        assert!(message.starts_with(beginning), "{message}");
    }
    assert!(lab.sim.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn g4_a_restored_secret_is_found_soon_at_first_and_within_a_minute_later_by_one_read() {
    const OBJECTS: usize = 15;
    // 5 s doubling to 60 s: a quarter of a second to three.
    const SLOWER: f64 = 0.05;
    let scaled = |seconds: u64| Duration::from_secs(seconds).mul_f64(SLOWER);
    let mut team = Team::without_operator("g4").await;
    put(&team, "broken", "clouds.yaml", "clouds: [").await;
    let names =
        |secret: &str| -> Vec<String> { (0..OBJECTS).map(|n| format!("{secret}-{n}")).collect() };
    for secret in ["gone", "broken"] {
        for name in names(secret) {
            team.sim.put_job(running(&name));
            team.create_with(&name, own_secret(secret)).await;
        }
    }
    let launch = Launch {
        scale: SLOWER,
        ..Launch::default()
    };
    let started = Instant::now();
    team.start_operator_as(launch, &[]);
    let read = |result: &str| format!("imageexport_secret_reads_total{{result=\"{result}\"}}");
    let restore = async |secret: &str, within: Duration| {
        put(&team, secret, "clouds.yaml", team.clouds_yaml()).await;
        let restored = Instant::now();
        for name in names(secret) {
            team.sim.polled(&key(&name), 1).await;
        }
        let took = restored.elapsed();
        assert!(took <= within + SLACK, "{secret}: {took:?}");
        for name in names(secret) {
            team.until_reason(&name, "JobRunning").await;
        }
    };

    for name in names("gone") {
        team.until_reason(&name, "CredentialsNotFound").await;
    }
    restore("gone", scaled(10)).await;
    let usable = team.operator().metric(&read("usable")).await;
    let most = 1.0 + started.elapsed().as_secs_f64() / scaled(300).as_secs_f64();
    assert!(usable <= most, "{usable} reads");

    // At 0, 5, 15, 35 and 75 s, whatever the number of objects; then every 60 s.
    let broken = read("credentials_invalid");
    let reads = team.operator().until_metric(&broken, 5.0).await;
    let elapsed = started.elapsed().as_secs_f64() / SLOWER;
    assert!(
        reads <= 5.0 + (elapsed - 75.0).max(0.0) / 60.0,
        "{reads} in {elapsed} s"
    );
    restore("broken", scaled(60)).await;
    for secret in ["gone", "broken"] {
        for name in names(secret) {
            assert_eq!(team.writes(&name), 2, "{name}");
        }
    }
}

/// What an identity service in trouble does to who has a token and to who needs one.
async fn identity_in_trouble(answer: Answer, kind: FailureKind, words: &str) {
    let lab = Lab::with(CloudOptions {
        request_timeout: Duration::from_millis(500),
        pacing: Arc::new(Pacing::default().scaled(0.1)),
        ..options()
    })
    .await;
    lab.sim.put_job(running("job"));
    let (me, given, other) = (lab.password(), lab.given_token(), lab.password());
    assert_eq!(
        lab.ask(&other, "job").await.answer().state,
        JobState::Running
    );
    lab.sim.set_token_lifetime(Duration::from_secs(4));
    let signed_in = Instant::now();
    assert_eq!(lab.ask(&me, "job").await.answer().state, JobState::Running);
    assert_eq!(lab.sim.logins(), 2);
    lab.sim.script_forever(Target::Login, answer);

    // Past half of its life a fresh token is tried for, and the old one goes on.
    tokio::time::sleep_until((signed_in + Duration::from_millis(2200)).into()).await;
    for _ in 0..2 {
        let asked = lab.ask(&me, "job").await;
        assert_eq!(asked.answer().state, JobState::Running, "{words}");
        assert_eq!((asked.times, lab.sim.logins()), (1, 3), "{words}");
    }

    tokio::time::sleep_until((signed_in + Duration::from_millis(4200)).into()).await;
    let asked = lab.ask(&me, "job").await;
    let message = format!("identity service {} {words}", lab.host());
    assert_eq!(asked.seen.outcome, login_failed(kind, message));
    assert_eq!((asked.times, asked.seen.endpoint), (0, None), "{words}");
    let logins = lab.sim.logins();
    for unaffected in [&given, &other] {
        let asked = lab.ask(unaffected, "job").await;
        assert_eq!(asked.answer().state, JobState::Running, "{words}");
    }
    assert_eq!(lab.sim.logins(), logins, "{words}");

    lab.sim.clear_script(Target::Login);
    let mended = Instant::now();
    while !matches!(lab.ask(&me, "job").await.seen.outcome, Outcome::Answered(_)) {
        assert!(mended.elapsed() < Duration::from_secs(10), "{words}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g5_an_identity_service_in_trouble_concerns_nobody_whose_token_is_valid() {
    let preset = Answer::preset;
    let throttled = "asks for fewer logins (429)";
    let silent = "did not answer within 0.5 s";
    tokio::join!(
        identity_in_trouble(preset("internal-error"), FailureKind::Http, "answered 500"),
        identity_in_trouble(preset("unavailable"), FailureKind::Http, "answered 503"),
        identity_in_trouble(preset("iam-throttled"), FailureKind::Http, throttled),
        identity_in_trouble(Answer::hang(), FailureKind::Timeout, silent),
    );
}

#[tokio::test]
async fn g6_a_token_of_another_project_is_refused_naming_both() {
    let lab = Lab::new().await;
    lab.sim
        .put_user(user("ieo", PASSWORD).project(OTHER_PROJECT, "eu-de_other"));
    lab.sim.add_token("canary-token-other", Some(OTHER_PROJECT));
    for project in [PROJECT, OTHER_PROJECT] {
        lab.sim.put_job(Job::new(project, "job"));
    }
    let url = lab.sim.url();

    let given = given_token(&lab.client, &url, "canary-token-other");
    let asked = lab.ask(&given, "job").await;
    let message = format!(
        "{} rejects the token of {ME} (400 IMG.0030: project id and token do not match), which was given and cannot be renewed; write a new token",
        lab.host()
    );
    assert_eq!(
        asked.seen.outcome,
        refused(ConfigurationReason::CredentialsInvalid, message)
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
        let asked = lab.ask(&me, "job").await;
        assert_eq!(
            asked.seen.outcome,
            refused(ConfigurationReason::CredentialsInvalid, message.as_str())
        );
        assert_eq!((asked.times, lab.sim.logins()), (0, logins), "{project}");
    }

    // An entry that names none gets a token for each project, and never mixes them up.
    let me = lab.password();
    for project in [PROJECT, OTHER_PROJECT, PROJECT, OTHER_PROJECT] {
        let seen = lab.client.query(&me, project, "job").await;
        assert_eq!(seen.outcome.category(), "answered", "{project}: {seen:?}");
        assert_eq!(seen.requests, 1);
    }
    assert_eq!(lab.sim.logins(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn g7_a_thousand_objects_on_one_secret_cost_one_login_and_one_poll_each() {
    const OBJECTS: usize = 1000;
    let mut team = Team::without_operator("g7").await;
    team.sim.put_user(user("ieo", PASSWORD));
    team.put_secret("otc", &login(&team, "ieo", PASSWORD));
    let names: Vec<String> = (0..OBJECTS).map(|n| format!("job-{n}")).collect();
    stream::iter(&names)
        .for_each_concurrent(64, async |name| {
            team.follow(Job::new(PROJECT, name.as_str())).await;
        })
        .await;
    team.start_operator();
    let started = Instant::now();
    for name in &names {
        team.until_reason(name, "JobSucceeded").await;
    }
    let counters = team.sim.counters();
    assert_eq!((counters.logins, counters.polls), (1, OBJECTS as u64));
    let usable = "imageexport_secret_reads_total{result=\"usable\"}";
    let reads = team.operator().metric(usable).await;
    // One, and one more every 5 minutes by the operator's time.
    let most = 1.0 + started.elapsed().as_secs_f64() / (300.0 * SCALE);
    assert!((1.0..=most).contains(&reads), "{reads} reads");
}

#[tokio::test]
async fn g8_a_token_that_fits_into_no_header_is_said_to_be_one() {
    const KIB: usize = 1024;
    let lab = Lab::new().await;
    lab.sim.put_job(running("job"));
    // Tokens that hold a catalog are long.
    lab.sim.set_token_length(32 * KIB);
    let asked = lab.ask(&lab.password(), "job").await;
    assert_eq!(asked.answer().state, JobState::Running);

    lab.sim.set_token_length(32 * KIB + 1);
    let asked = lab.ask(&lab.password(), "job").await;
    let message = format!(
        "identity service {} answered with a token of more than 32 KiB, which fits into no header",
        lab.host()
    );
    assert_eq!(
        asked.seen.outcome,
        login_failed(FailureKind::Malformed, message)
    );
    assert_eq!(asked.times, 0);

    let long = "x".repeat(32 * KIB + 1);
    let entry = format!(
        "auth_type: token, auth: {{token: {long}}}, image_endpoint_override: '{}'",
        lab.sim.url()
    );
    let refusal = credential(&lab.client, &entry).expect_err("it is refused");
    assert_eq!(refusal.reason, ConfigurationReason::CredentialsInvalid);
    assert!(
        refusal.message.contains("longer than 32 KiB"),
        "{refusal:?}"
    );
    assert!(!refusal.message.contains("xxx"), "{refusal:?}");
}
