//! Access keys and agencies, and the circuit breaker that keeps shared ones from being locked.

use crate::harness::{
    Launch, PASSWORD, PROJECT, Team, in_progress, key, message, own_secret, running, summary,
};
use testbed::ims::{self, AccessKey, Agency, Answer, Job, Target, User};

const AK: &str = "QTWAOYTTINDUT2QVKYUC";
const SK: &str = "canary-secret-key-1c2d";
const DOMAIN: &str = "OTC00000000001000000101";

fn clouds(team: &Team, fields: &str) -> String {
    format!(
        "clouds: {{otc: {{image_endpoint_override: '{}', {fields}}}}}",
        team.sim.url()
    )
}

async fn follow(team: &Team, job: Job, fields: &str) {
    let name = job.key().job;
    team.sim.put_job(job);
    team.put_secret_key(&name, "clouds.yaml", clouds(team, fields))
        .await;
    team.create_with(&name, own_secret(&name)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn access_keys_sign_each_poll_on_both_paths() {
    let team = Team::start("keys").await;
    team.sim.add_key(AccessKey::new(AK, SK).project(PROJECT));
    let mut temporary = AccessKey::new("TEMPORARY1", SK).project(PROJECT);
    temporary.security_token = Some("canary-security-token".into());
    team.sim.add_key(temporary);
    let cases = [
        ("beside", format!("ak: {AK}, sk: {SK}")),
        (
            "inside",
            format!("auth: {{access_key: {AK}, secret_key: {SK}}}"),
        ),
        (
            "temporary",
            format!("ak: TEMPORARY1, sk: {SK}, security_token: canary-security-token"),
        ),
        (
            "newer-path",
            format!("ak: {AK}, sk: {SK}, image_job_path: cloudimages"),
        ),
    ];
    for (name, fields) in &cases {
        follow(&team, Job::new(PROJECT, *name), fields).await;
    }
    for (name, _) in &cases {
        team.until_reason(name, "JobSucceeded").await;
        assert_eq!(team.course(name), ["JobSucceeded"], "{name}");
    }
    let counters = team.sim.counters();
    assert_eq!((counters.logins, counters.signature_failures), (0, 0));
    let paths: Vec<_> = team.sim.requests().into_iter().map(|r| r.path).collect();
    assert!(
        paths.contains(&"/v1/cloudimages/job/newer-path".to_owned()),
        "{paths:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_own_setting_of_the_path_is_used_where_the_entry_has_none() {
    let mut team = Team::without_operator("newer-path").await;
    team.start_operator_with(&["--job-path", "cloudimages"]);
    team.follow(Job::new(PROJECT, "newer")).await;
    team.until_reason("newer", "JobSucceeded").await;
    let paths: Vec<_> = team.sim.requests().into_iter().map(|r| r.path).collect();
    assert_eq!(paths, ["/v1/cloudimages/job/newer"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_error_of_an_access_key_has_its_own_message() {
    let team = Team::start("wrong-keys").await;
    for (name, fields, cause) in [
        (
            "unknown",
            "ak: NOSUCHKEY, sk: canary-x".to_owned(),
            "the access key does not exist",
        ),
        (
            "secret",
            "ak: WRONGSECRET, sk: canary-x".to_owned(),
            "the secret key does not fit the access key",
        ),
    ] {
        team.sim.add_key(AccessKey::new("WRONGSECRET", SK));
        follow(&team, running(name), &fields).await;
        let status = team.until_reason(name, "CredentialsInvalid").await;
        assert_eq!(summary(&status), in_progress("CredentialsInvalid"));
        let message = message(&status);
        assert!(
            message.contains(cause) && message.contains("check ak, sk and security_token"),
            "{message}"
        );
    }
    team.sim.add_key(AccessKey::new("CLOCK", SK));
    team.sim
        .set_clock_offset(k8s_openapi::jiff::SignedDuration::from_mins(20));
    follow(&team, running("clock"), &format!("ak: CLOCK, sk: {SK}")).await;
    let status = team.until_reason("clock", "CredentialsInvalid").await;
    assert!(
        message(&status).contains("differ by more than 15 minutes"),
        "{}",
        message(&status)
    );
}

/// The cloud locks a key after the sixth wrong signature in a row; ten Secrets have a wrong one here.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_key_in_many_secrets_never_locks_the_key_of_its_owner() {
    let team = Team::start("breaker").await;
    team.sim.add_key(AccessKey::new(AK, SK));
    follow(&team, running("owner"), &format!("ak: {AK}, sk: {SK}")).await;
    team.until_reason("owner", "JobRunning").await;
    for n in 0..10 {
        let name = format!("wrong-{n}");
        follow(
            &team,
            running(&name),
            &format!("ak: {AK}, sk: canary-wrong-{n}"),
        )
        .await;
    }
    for n in 0..10 {
        let name = format!("wrong-{n}");
        let status = team.until_reason(&name, "CredentialsInvalid").await;
        assert_eq!(summary(&status), in_progress("CredentialsInvalid"));
    }
    team.operator()
        .until_metric("imageexport_login_breakers_open", 1.0)
        .await;
    team.until("wrong-0", "to be blocked by the breaker", |status| {
        message(status).contains("to keep the key from being locked")
    })
    .await;
    let polls = team.polls("owner");
    team.sim.polled(&key("owner"), polls + 20).await;
    assert_eq!(team.course("owner"), ["JobRunning"]);
    // That three rejections open the circuit for 5 minutes is tested in virtual time, by
    // `three_rejections_in_a_row_open_it_for_5_minutes` of the cloud client.
    let counters = team.sim.counters();
    assert_eq!(counters.key_locks, 0, "{counters:?}");
    assert!(counters.signature_failures >= 3, "{counters:?}");

    // Fixed, it is used once the breaker lets a login through.
    team.put_secret_key(
        "wrong-7",
        "clouds.yaml",
        clouds(&team, &format!("ak: {AK}, sk: {SK}")),
    )
    .await;
    team.until_reason("wrong-7", "JobRunning").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_in_many_secrets_never_locks_the_account() {
    // With the durations as they are, so that the open circuit permits no attempt within this test. What it
    // permits after 5 minutes is tested in virtual time, by
    // `a_fixed_secret_comes_before_rejected_ones_and_closes_the_circuit` of the cloud client.
    let mut team = Team::without_operator("accounts").await;
    let launch = Launch {
        scale: 1.0,
        ..Launch::default()
    };
    team.start_operator_as(launch, &[]);
    let user = User::new("ieo", DOMAIN, PASSWORD).project(PROJECT, "eu-de_images");
    team.sim.put_user(user);
    let auth = |password: &str| {
        format!(
            "auth: {{auth_url: '{}/v3', username: ieo, user_domain_name: {DOMAIN}, password: {password}}}",
            team.sim.url()
        )
    };
    follow(&team, running("right"), &auth(PASSWORD)).await;
    team.until_reason("right", "JobRunning").await;
    for n in 0..10 {
        follow(
            &team,
            running(&format!("wrong-{n}")),
            &auth("canary-of-yesterday"),
        )
        .await;
    }
    for n in 0..10 {
        team.until_reason(&format!("wrong-{n}"), "CredentialsInvalid")
            .await;
    }
    // The password that was accepted before passes the open circuit.
    team.sim.revoke_issued_tokens();
    team.sim.put_job(Job::new(PROJECT, "right"));
    team.request_poll("right", "now").await;
    team.until_reason("right", "JobSucceeded").await;
    assert_eq!(team.course("right"), ["JobRunning", "JobSucceeded"]);
    let counters = team.sim.counters();
    assert_eq!(counters.account_locks, 0, "{counters:?}");
    assert_eq!(counters.password_failures, 3, "{counters:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agency_is_assumed_with_the_callers_token() {
    let team = Team::start("agency").await;
    let user = User::new("ieo", DOMAIN, PASSWORD).project("callers-project", "eu-de_ours");
    team.sim.put_user(user);
    let mut agency = Agency::new("exporter", "OTC2");
    agency.trusted_domains.push(DOMAIN.to_owned());
    agency.projects.push(ims::Project {
        id: PROJECT.to_owned(),
        name: "eu-de_theirs".to_owned(),
    });
    team.sim.add_agency(agency);
    let auth = format!(
        "auth: {{auth_url: '{}/v3', username: ieo, user_domain_name: {DOMAIN}, password: {PASSWORD}, project_name: eu-de_ours}}",
        team.sim.url()
    );
    let by = |more: &str| format!("{auth}, agency_domain_name: OTC2, {more}");
    follow(
        &team,
        Job::new(PROJECT, "by-id"),
        &by("agency_name: exporter"),
    )
    .await;
    follow(
        &team,
        Job::new(PROJECT, "by-name"),
        &by("agency_name: exporter, delegated_project: eu-de_theirs"),
    )
    .await;
    follow(&team, running("no-such-agency"), &by("agency_name: other")).await;
    for name in ["by-id", "by-name"] {
        team.until_reason(name, "JobSucceeded").await;
    }
    team.until("no-such-agency", "to name the agency", |status| {
        message(status).contains("agency other")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn throttled_logins_are_retried_and_no_error_is_shown() {
    let team = Team::start("login-throttled").await;
    let user = User::new("ieo", DOMAIN, PASSWORD).project(PROJECT, "eu-de_images");
    team.sim.put_user(user);
    team.sim
        .script(Target::Login, [Answer::preset("throttled")]);
    let auth = format!(
        "auth: {{auth_url: '{}/v3', username: ieo, user_domain_name: {DOMAIN}, password: {PASSWORD}}}",
        team.sim.url()
    );
    follow(&team, running("job"), &auth).await;
    team.until_reason("job", "JobRunning").await;
    assert_eq!(team.course("job"), ["JobRunning"]);
}
