//! Secrets stay secret: whatever users and clouds do, no token and no password appears in a log line
//! at the most verbose level, in an event, an object or a metric.

use crate::harness::{
    Launch, OPERATOR_NAMESPACE, Operator, PASSWORD, PROJECT, TOKEN, Team, cluster, key, message,
    own_secret, running,
};
use k8s_openapi::api::{core::v1::Secret, events::v1::Event};
use kube::{Api, api::ListParams};
use serde_json::Value;
use testbed::ims::{AccessKey, Agency, Answer, ApplicationCredential, Target, User};

const WRONG_PASSWORD: &str = "canary-wrong-password";
const DOMAIN: &str = "OTC00000000001000000101";
const SECRET_KEY: &str = "canary-secret-key";
const SECURITY_TOKEN: &str = "canary-security-token";
const ROBOTS_SECRET: &str = "canary-secret-of-the-robot";

/// Answers that contain what the operator sent, in every field that it reads, and the reasons.
#[rustfmt::skip]
fn echoes() -> Vec<(&'static str, Answer, &'static str)> {
    let job = |fields: &str| Answer::json(200, format!(r#"{{"job_id":"{{job_id}}",{fields}}}"#));
    let in_header = |answer: Answer| answer.header("X-Request-Id", TOKEN);
    vec![
        ("fail-reason", job(&format!(r#""status":"FAIL","fail_reason":"no such token: {TOKEN}","error_code":"{TOKEN}""#)), "JobFailed"),
        ("split", job(&format!(r#""status":"FAIL","fail_reason":"{}\u0000{}""#, &TOKEN[..8], &TOKEN[8..])), "JobFailed"),
        ("status", job(&format!(r#""status":"{TOKEN}""#)), "JobStatusUnrecognized"),
        ("job-type", in_header(job(&format!(r#""status":"RUNNING","job_type":"{TOKEN}""#))), "JobRunning"),
        ("image-id", job(&format!(r#""status":"SUCCESS","entities":{{"image_id":"{TOKEN}"}}"#)), "ImageIDMissing"),
        ("code", in_header(Answer::ims_error(400, TOKEN, &format!("bad: {TOKEN}"))), "RequestRejected"),
        ("failure", in_header(Answer::gateway_error(500, TOKEN, TOKEN)), "PollFailed"),
        ("garbage", Answer::status(200).body(TOKEN), "PollFailed"),
        ("redirect", Answer::status(302).header("Location", &format!("http://{TOKEN}.invalid/")), "EndpointInvalid"),
    ]
}

/// Valid and invalid Secrets, and the reasons.
#[rustfmt::skip]
fn secrets(url: &str) -> [(&'static str, String, &'static str); 9] {
    let login = |password: &str| format!(
        "clouds: {{otc: {{auth: {{auth_url: '{url}', username: ieo, user_domain_name: {DOMAIN}, password: {password}}}}}}}"
    );
    let keys = |access: &str, token: &str| format!(
        "clouds: {{otc: {{ak: {access}, sk: {SECRET_KEY}, security_token: {token}, image_endpoint_override: '{url}'}}}}"
    );
    [
        ("login", login(PASSWORD), "JobRunning"),
        ("rejected", login(WRONG_PASSWORD), "CredentialsInvalid"),
        ("misplaced", login(PASSWORD).replace("username: ieo", &format!("username: [{PASSWORD}]")), "CredentialsInvalid"),
        ("as-url", login(PASSWORD).replace("http://", &format!("http://ieo:{PASSWORD}@")), "EndpointInvalid"),
        ("open-quote", format!("clouds: {{otc: '{TOKEN}"), "CredentialsInvalid"),
        ("keys", keys("TEMPORARY", SECURITY_TOKEN), "JobRunning"),
        ("wrong-keys", keys("OTHER", SECURITY_TOKEN), "CredentialsInvalid"),
        ("robot", format!("clouds: {{otc: {{auth_type: v3applicationcredential, auth: {{auth_url: '{url}', application_credential_id: robot-id, application_credential_secret: {ROBOTS_SECRET}}}}}}}"), "JobRunning"),
        ("agency", login(PASSWORD).replace("username", "agency_name: exporter, agency_domain_name: OTC2, username"), "JobRunning"),
    ]
}

/// Creates the identities that the Secrets name.
fn create_identities(team: &Team) {
    let user = User::new("ieo", DOMAIN, PASSWORD).project(PROJECT, "eu-de");
    team.sim.put_user(user.clone());
    let key_pair = AccessKey::new("TEMPORARY", SECRET_KEY).security_token(SECURITY_TOKEN);
    team.sim.add_key(key_pair);
    team.sim
        .add_key(AccessKey::new("OTHER", "another-secret-key"));
    team.sim.add_application_credential(ApplicationCredential {
        id: "robot-id".to_owned(),
        name: "robot".to_owned(),
        secret: ROBOTS_SECRET.into(),
        user_id: user.id.clone(),
        project_id: PROJECT.to_owned(),
    });
    let agency = Agency::new("exporter", "OTC2")
        .project(PROJECT, "eu-de_theirs")
        .trusts_domain(DOMAIN);
    team.sim.add_agency(agency);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_appears_in_logs_events_objects_or_metrics() {
    let mut team = Team::without_operator("canary").await;
    create_identities(&team);
    let kubeconfig = cluster()
        .kubeconfig_for_service_account(OPERATOR_NAMESPACE, "image-export-operator")
        .expect("a token");
    let launch = Launch {
        log_level: "trace,kube_client=trace,kube_runtime=trace",
        ..Launch::for_graces()
    };
    let operator = Operator::launch(&kubeconfig, launch, &["--namespace", &team.namespace]);
    team.operator = Some(operator);

    for (name, answer, _) in echoes() {
        team.sim.script_forever(key(name), answer);
        team.create(name).await;
    }
    let secrets = secrets(&team.sim.url());
    for (name, clouds, reason) in &secrets {
        if *name == "rejected" {
            let echo = Answer::keystone_error(401, WRONG_PASSWORD, WRONG_PASSWORD);
            team.sim.script(Target::Login, [echo]);
        }
        team.put_secret_key(name, "clouds.yaml", clouds.as_str())
            .await;
        team.sim.put_job(running(name));
        team.create_with(name, own_secret(name)).await;
        team.until_reason(name, reason).await;
    }
    for (name, _, reason) in echoes() {
        team.until_reason(name, reason).await;
    }
    let status = team.until_reason("fail-reason", "JobFailed").await;
    assert_eq!(
        message(&status),
        "Job fail-reason has failed with [redacted]: no such token: [redacted]."
    );

    let events: Api<Event> = Api::namespaced(team.client.clone(), &team.namespace);
    let mut posted = String::new();
    for (name, _, reason) in secrets.iter().filter(|(.., r)| *r != "JobRunning") {
        team.until_event(name, &format!("Warning {reason}: ")).await;
    }
    for event in events.list(&ListParams::default()).await.expect("events") {
        posted += &serde_json::to_string(&event).expect("JSON");
    }
    let objects: Vec<_> = echoes()
        .iter()
        .map(|(name, ..)| *name)
        .chain(secrets.iter().map(|(name, ..)| *name))
        .flat_map(|name| team.versions(name))
        .collect();
    let objects = serde_json::to_string(&objects).expect("JSON");
    let (_, metrics) = team.operator().get("/metrics").await;
    assert_eq!(team.operator().terminate(), 0);
    let log = team.operator().log();
    assert!(log.contains("\"TRACE\""), "the log is at level trace");

    let kubeconfig = std::fs::read_to_string(kubeconfig).expect("a kubeconfig");
    let kubeconfig: Value = serde_json::from_str(&kubeconfig).expect("JSON");
    let own_token = kubeconfig["users"][0]["user"]["token"].as_str();
    let mut canaries = vec![
        TOKEN.to_owned(),
        PASSWORD.to_owned(),
        WRONG_PASSWORD.to_owned(),
        SECRET_KEY.to_owned(),
        SECURITY_TOKEN.to_owned(),
        ROBOTS_SECRET.to_owned(),
        // What the simulator's tokens from logins begin with.
        "issued-".to_owned(),
        own_token.expect("a token").to_owned(),
    ];
    let api: Api<Secret> = Api::namespaced(team.client.clone(), &team.namespace);
    for secret in api.list(&ListParams::default()).await.expect("Secrets") {
        let encoded = serde_json::to_value(&secret.data).expect("JSON");
        let encoded = encoded["clouds.yaml"].as_str().expect("a clouds.yaml");
        canaries.push(encoded.to_owned());
    }
    for (place, text) in [
        ("an event", &posted),
        ("an object", &objects),
        ("a metric", &metrics),
        ("the log", &log),
    ] {
        for canary in &canaries {
            let found = text.lines().find(|line| line.contains(canary.as_str()));
            assert_eq!(found, None, "{canary} in {place}");
        }
    }
}
