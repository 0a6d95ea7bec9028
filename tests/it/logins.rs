//! Password logins on the simulator's own identity service: valid and invalid ones, and that many
//! objects share one login.

use crate::harness::{
    GRACE_SCALE, PASSWORD, PROJECT, SCALE, TOKEN, Team, in_progress, key, message, own_secret,
    running, summary,
};
use std::time::Instant;
use testbed::ims::{Answer, Credential, Gate, Job, Target, User};

const DOMAIN: &str = "OTC00000000001000000101";
const OTHER_PROJECT: &str = "0123456789abcdef0123456789abcdef";

fn user() -> User {
    User::new("ieo", DOMAIN, PASSWORD)
        .project(PROJECT, "eu-de_images")
        .project(OTHER_PROJECT, "eu-de_other")
}

/// A clouds.yaml for that user, with further `fields` of the entry and of its `auth`.
fn login(team: &Team, fields: &str, auth: &str) -> String {
    let url = team.sim.url();
    format!(
        "clouds:\n  otc: {{{fields}, auth: {{auth_url: '{url}/v3', username: ieo, user_domain_name: {DOMAIN}, {auth}}}}}\n"
    )
}

fn right(team: &Team) -> String {
    login(team, "region_name: eu-de", &format!("password: {PASSWORD}"))
}

fn host(team: &Team) -> String {
    team.sim.url().replace("http://", "")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_login_polls_the_endpoint_of_the_catalog_or_of_the_entry() {
    let team = Team::start("passwords").await;
    team.sim.put_user(user());
    let (url, password) = (team.sim.url(), format!("password: {PASSWORD}"));
    let own = |fields: &str| {
        format!("clouds: {{otc: {{{fields}, user_domain_id: ignored}}, other: {{auth: 7}}}}")
    };
    let cases = [
        ("catalog", right(&team)),
        ("no-region", login(&team, "auth_type: password", &password)),
        (
            "override",
            login(
                &team,
                &format!("image_endpoint_override: '{url}/v2'"),
                &password,
            ),
        ),
        (
            "project-name",
            login(
                &team,
                "interface: publicURL",
                &format!("{password}, project_name: eu-de_images"),
            ),
        ),
        (
            "project-id",
            login(
                &team,
                "auth_type: v3password",
                &format!("{password}, project_id: {PROJECT}"),
            ),
        ),
        (
            "user-id",
            own(&format!(
                "auth: {{auth_url: '{url}', user_id: ieo-id, {password}}}"
            )),
        ),
    ];
    for (name, clouds) in &cases {
        team.put_secret_key(name, "clouds.yaml", clouds.as_str())
            .await;
        team.sim.put_job(Job::new(PROJECT, *name));
        team.create_with(name, own_secret(name)).await;
    }
    for (name, _) in &cases {
        team.until_reason(name, "JobSucceeded").await;
        let path = key(name).to_string();
        let requests = team.sim.requests();
        let polls: Vec<_> = requests
            .iter()
            .filter(|request| request.path == path)
            .map(|request| (request.credential, request.status))
            .collect();
        assert_eq!(polls, [(Credential::IssuedToken, Some(200))], "{name}");
    }
    assert_eq!(
        team.sim.logins(),
        cases.len() as u64,
        "one for each credential"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_login_is_reported_and_recovers_when_its_secret_is_fixed() {
    let team = Team::start("wrong-logins").await;
    team.sim.put_user(user());
    let (url, password) = (team.sim.url(), format!("password: {PASSWORD}"));
    team.sim
        .add_token("canary-token-other", Some(OTHER_PROJECT));
    let other = |auth: &str| login(&team, "region_name: eu-de", &format!("{password}, {auth}"));
    let given = |token: &str| team.clouds_yaml().replace(TOKEN, token);
    let mismatch =
        format!("{{me}} signs in to project {OTHER_PROJECT}, but spec.projectID is {PROJECT}");
    let cases = [
        (
            "password",
            login(
                &team,
                "region_name: eu-de",
                "password: canary-wrong-password",
            ),
            "CredentialsInvalid",
            "identity service {host} rejects the login of {me} (401); check user, password, domain and project",
        ),
        (
            "region",
            login(&team, "region_name: eu-nl", &password),
            "EndpointInvalid",
            "the image service of {me} is not in the wanted region; set region_name to one of: eu-de",
        ),
        (
            "interface",
            login(&team, "interface: internal", &password),
            "EndpointInvalid",
            "the catalog of {me} has no image service with the wanted interface; correct interface, or set image_endpoint_override",
        ),
        (
            "auth-url",
            right(&team).replace(&format!("{url}/v3"), &format!("{url}/identity")),
            "EndpointInvalid",
            "auth_url of {me} leads to {host}, which does not offer Keystone v3 there (404); check auth_url",
        ),
        (
            "project-name",
            other("project_name: eu-de_other"),
            "CredentialsInvalid",
            &mismatch,
        ),
        (
            "project-id",
            other(&format!("project_id: {OTHER_PROJECT}")),
            "CredentialsInvalid",
            &mismatch,
        ),
        (
            "token-project",
            given("canary-token-other"),
            "CredentialsInvalid",
            "{host} rejects the token of {me} (400 IMG.0030: project id and token do not match), which was given and cannot be renewed; write a new token",
        ),
        (
            "token",
            given("canary-token-dead"),
            "CredentialsInvalid",
            "{host} rejects the token of {me} (401 APIGW.0301: the token is dead or belongs to another cloud), which was given and cannot be renewed; write a new token",
        ),
    ];
    for (name, clouds, ..) in &cases {
        team.put_secret_key(name, "clouds.yaml", clouds.as_str())
            .await;
        team.sim.put_job(running(name));
        team.create_with(name, own_secret(name)).await;
    }
    for (name, _, reason, cause) in &cases {
        let status = team.until_reason(name, reason).await;
        assert_eq!(summary(&status), in_progress(reason), "{name}");
        let me = format!("cloud \"otc\" in Secret {}/{name}", team.namespace);
        let cause = cause.replace("{me}", &me).replace("{host}", &host(&team));
        assert_eq!(
            message(&status),
            format!("Job {name} cannot be queried: {cause}.")
        );
        team.put_secret_key(name, "clouds.yaml", right(&team)).await;
    }
    for (name, _, reason, _) in &cases {
        team.until_reason(name, "JobRunning").await;
        team.assert_recovered(name, reason);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_objects_share_one_read_one_login_and_one_new_login() {
    let mut team = Team::without_operator("fifty").await;
    team.sim.put_user(user());
    team.put_secret("otc", &right(&team));
    let names: Vec<String> = (0..50).map(|n| format!("job-{n}")).collect();
    for name in &names {
        team.follow(running(name)).await;
    }
    let started = Instant::now();
    team.start_operator();
    for name in &names {
        team.until_reason(name, "JobRunning").await;
    }
    assert_eq!(team.sim.logins(), 1);
    let usable = "imageexport_secret_reads_total{result=\"usable\"}";
    let reads = team.operator().metric(usable).await;
    // One, one more where the login came long after it, and one every 5 minutes by the operator's time.
    let most = 2.0 + started.elapsed().as_secs_f64() / (300.0 * SCALE);
    assert!((1.0..=most).contains(&reads), "{reads} reads");

    team.sim.revoke_issued_tokens();
    let polls: Vec<u64> = names.iter().map(|name| team.polls(name)).collect();
    for (name, polls) in names.iter().zip(polls) {
        team.sim.polled(&key(name), polls + 3).await;
    }
    assert_eq!(team.sim.logins(), 2, "one new login for all of them");
    for name in &names {
        assert_eq!(team.writes(name), 1, "{name}: no write");
        team.sim.put_job(Job::new(PROJECT, name.as_str()));
    }
    for name in &names {
        team.until_reason(name, "JobSucceeded").await;
        assert_eq!(team.course(name), ["JobRunning", "JobSucceeded"], "{name}");
    }
    assert_eq!(team.sim.logins(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_identity_service_affects_only_objects_without_a_token() {
    let team = Team::start_for_graces("iam").await;
    team.sim.put_user(user());
    let follow = async |name: &str| {
        team.put_secret_key(name, "clouds.yaml", right(&team)).await;
        team.sim.put_job(running(name));
        team.create_with(name, own_secret(name)).await;
    };
    follow("in").await;
    team.until_reason("in", "JobRunning").await;

    // The second login is answered once the outcome of the first is shown.
    let shown = Gate::new();
    team.sim.script(
        Target::Login,
        [
            Answer::preset("iam-forbidden"),
            Answer::pass().held_by(&shown),
        ],
    );
    follow("denied").await;
    let status = team.until_reason("denied", "AccessDenied").await;
    assert_eq!(summary(&status), in_progress("AccessDenied"));
    let me = |name: &str| format!("cloud \"otc\" in Secret {}/{name}", team.namespace);
    assert_eq!(
        message(&status),
        format!(
            "Job denied cannot be queried: identity service {} denies the login of {} (403); grant \
             the user access to the project.",
            host(&team),
            me("denied")
        )
    );
    shown.open();
    team.until_reason("denied", "JobRunning").await;

    team.sim
        .script_forever(Target::Login, Answer::preset("unavailable"));
    follow("late").await;
    let status = team.until_reason("late", "PollFailed").await;
    assert_eq!(summary(&status), in_progress("PollFailed"));
    assert_eq!(
        message(&status),
        format!(
            "Job late cannot be queried at the moment: identity service {} answered 503; the \
             operator keeps trying.",
            host(&team)
        )
    );
    let polls = team.polls("in");
    team.sim.polled(&key("in"), polls + 2).await;
    assert_eq!(team.writes("in"), 1);
    // A pause follows each failed login, at least 5 s by the operator's time. That pauses double is tested in
    // virtual time, by `failed_logins_pause_for_5_seconds_doubling_to_60` of the cloud client.
    let failed: Vec<f64> = team
        .sim
        .requests()
        .iter()
        .filter(|request| request.status == Some(503))
        .map(|request| request.at_seconds)
        .collect();
    assert!(failed.len() >= 3, "{failed:?}");
    for pair in failed.windows(2) {
        assert!(pair[1] - pair[0] >= 5.0 * GRACE_SCALE, "{failed:?}");
    }
    team.sim.clear_script(Target::Login);
    team.until_reason("late", "JobRunning").await;
    assert_eq!(team.course("in"), ["JobRunning"]);
    assert_eq!(team.course("denied"), ["AccessDenied", "JobRunning"]);
}
