//! What users get wrong in a Secret, how the object says so, and how it heals once that is mended:
//! by itself, without a restart, and by few reads.

use crate::harness::{
    Operator, PROJECT, SCALE, TOKEN, Team, cluster, eventually, in_progress, key, message, summary,
};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{ObjectMeta, Patch, PatchParams},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use testbed::ims::{self, End, Job, User};

pub const PASSWORD: &str = "canary-password-77ab";

/// Creates or replaces a Secret with this one key.
pub async fn put(team: &Team, name: &str, key: &str, value: impl Into<Vec<u8>>) {
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(key.to_owned(), ByteString(value.into()))])),
        ..Secret::default()
    };
    let secrets: Api<Secret> = Api::namespaced(team.client.clone(), &team.namespace);
    secrets
        .patch(
            name,
            &PatchParams::apply("a-user").force(),
            &Patch::Apply(&secret),
        )
        .await
        .expect("a Secret");
}

/// The spec of an object whose Secret has the object's own name.
pub fn own_secret(name: &str) -> Value {
    json!({ "cloudCredentialsRef": { "secretName": name, "cloudName": "otc" } })
}

pub fn running(job: &str) -> Job {
    Job::new(PROJECT, job).ends(End::Never)
}

/// Reads of Secrets so far, whatever they found.
async fn reads(operator: &Operator) -> f64 {
    let (_, metrics) = operator.get("/metrics").await;
    let of = |line: &str| {
        line.strip_prefix("imageexport_secret_reads_total")?
            .split_once(' ')?
            .1
            .parse::<f64>()
            .ok()
    };
    metrics.lines().filter_map(of).sum()
}

/// From this reason to `JobRunning`, and nothing more.
pub fn assert_healed(team: &Team, name: &str, from: &str) {
    assert_eq!(team.course(name), [from, "JobRunning"], "{name}");
    assert_eq!(team.writes(name), 2, "{name}");
}

/// One way to get it wrong.
struct Wrong {
    name: &'static str,
    /// Key and value of the Secret; none: no Secret.
    data: Option<(&'static str, Vec<u8>)>,
    reason: &'static str,
    /// What the message says; `{secret}` is the Secret's name.
    words: &'static str,
}

/// A clouds.yaml whose entry `otc` is given as flow-style YAML.
fn entry(fields: &str) -> Vec<u8> {
    format!("clouds: {{otc: {{{fields}}}}}").into_bytes()
}

#[rustfmt::skip]
fn wrong_secrets() -> Vec<Wrong> {
    let file = |name, reason, value: Vec<u8>, words| Wrong { name, data: Some(("clouds.yaml", value)), reason, words };
    let invalid = |name, value, words| file(name, "CredentialsInvalid", value, words);
    let url = "https://ims.example.com";
    let login = |fields: &str| entry(&format!("auth: {{auth_url: 'https://iam.example.com/v3', {fields}}}"));
    vec![
        Wrong { name: "missing", data: None, reason: "CredentialsNotFound", words: "{secret} does not exist" },
        Wrong {
            name: "other-key", data: Some(("clouds.yml", entry(&format!("auth: {{token: {TOKEN}}}")))),
            reason: "CredentialsNotFound", words: "{secret} has no key clouds.yaml",
        },
        invalid("empty", vec![], "key clouds.yaml of {secret} is empty"),
        invalid("blank", b" \n\t\n".to_vec(), "key clouds.yaml of {secret} is empty"),
        invalid("not-utf8", [b"clouds: \xff ", TOKEN.as_bytes()].concat(), "key clouds.yaml of {secret} is not UTF-8 text"),
        invalid("not-yaml", format!("clouds:\n  otc: {{auth: {{token: {TOKEN}\n").into(),
            "key clouds.yaml of {secret} is not valid YAML, or has a list or map where text belongs at line 2, column 15"),
        invalid("list", format!("clouds:\n  otc:\n    auth: {{token: [{TOKEN}]}}").into(),
            "key clouds.yaml of {secret} is not valid YAML, or has a list or map where text belongs at line 3, column 19"),
        invalid("no-clouds", format!("otc: {{auth: {{token: {TOKEN}}}}}").into(), "key clouds.yaml of {secret} has no map \"clouds\""),
        file("other-cloud", "CredentialsNotFound", format!("clouds: {{prod: {{auth: {{token: {TOKEN}}}}}, dev: {{}}}}").into(),
            "clouds.yaml of {secret} has no cloud \"otc\"; it has prod, dev"),
        file("no-entry", "CredentialsNotFound", b"clouds: {}".to_vec(), "clouds.yaml of {secret} has no cloud \"otc\"; it has none"),
        invalid("nothing", b"clouds:\n  otc:\n".to_vec(), "in clouds.yaml of {secret}, clouds.otc.auth.auth_url is missing or empty"),
        invalid("no-token", entry(&format!("auth_type: token, auth: {{password: {PASSWORD}}}, image_endpoint_override: '{url}'")),
            "in clouds.yaml of {secret}, clouds.otc.auth.token is missing or empty"),
        invalid("spaced-token", entry(&format!("auth_type: token, auth: {{token: '{TOKEN} {TOKEN}'}}, image_endpoint_override: '{url}'")),
            "in clouds.yaml of {secret}, clouds.otc.auth.token is not a token: it is longer than 32 KiB or holds spaces or other characters that no token has"),
        invalid("no-auth-url", entry(&format!("auth_type: token, auth: {{token: {TOKEN}}}")),
            "in clouds.yaml of {secret}, clouds.otc.auth.auth_url is missing or empty"),
        invalid("no-username", login(&format!("password: {PASSWORD}")), "in clouds.yaml of {secret}, clouds.otc.auth.username is missing or empty"),
        invalid("no-domain", login(&format!("username: u, password: {PASSWORD}")),
            "in clouds.yaml of {secret}, clouds.otc.auth.user_domain_name is missing or empty"),
        invalid("no-password", login("username: u, user_domain_name: d"), "in clouds.yaml of {secret}, clouds.otc.auth.password is missing or empty"),
        invalid("no-project-domain", login(&format!("user_id: u, password: {PASSWORD}, project_name: p")),
            "in clouds.yaml of {secret}, clouds.otc.auth.project_domain_name is missing or empty"),
        invalid("no-region", entry(&format!("auth: {{auth_url: 'https://iam.{{region_name}}.example.com', user_id: u, password: {PASSWORD}}}")),
            "in clouds.yaml of {secret}, clouds.otc.region_name is missing or empty"),
        invalid("auth-type", entry(&format!("auth_type: v3totp, auth: {{passcode: {PASSWORD}}}")),
            "in clouds.yaml of {secret}, clouds.otc.auth_type is not supported; write password, token, v3applicationcredential or aksk"),
        file("no-url", "EndpointInvalid", entry(&format!("auth_type: token, auth: {{token: {TOKEN}}}, image_endpoint_override: {TOKEN}")),
            "clouds.otc.image_endpoint_override in {secret} is not a URL such as https://ims.eu-de.otc.t-systems.com"),
        file("user-info", "EndpointInvalid", entry(&format!("auth: {{auth_url: 'https://u:{PASSWORD}@iam.example.com'}}")),
            "clouds.otc.auth.auth_url in {secret} holds user info (user:password@), which is not allowed; remove it"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_named_with_what_to_mend_and_heals_by_itself() {
    let team = Team::start("wrong-secrets").await;
    let cases = wrong_secrets();
    for wrong in &cases {
        if let Some((key, value)) = &wrong.data {
            put(&team, wrong.name, key, value.clone()).await;
        }
        team.sim.put_job(running(wrong.name));
        team.create_with(wrong.name, own_secret(wrong.name)).await;
    }
    for wrong in &cases {
        let name = wrong.name;
        let status = team.until_reason(name, wrong.reason).await;
        assert_eq!(summary(&status), in_progress(wrong.reason), "{name}");
        let secret = format!("Secret {}/{name}", team.namespace);
        let words = wrong.words.replace("{secret}", &secret);
        assert_eq!(
            message(&status),
            format!("Job {name} cannot be queried: {words}.")
        );
        assert_eq!(team.polls(name), 0, "{name}");
        put(&team, name, "clouds.yaml", team.clouds_yaml()).await;
    }
    for wrong in &cases {
        team.until_reason(wrong.name, "JobRunning").await;
        assert_healed(&team, wrong.name, wrong.reason);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_objects_on_one_broken_secret_cost_the_reads_of_one() {
    const OBJECTS: usize = 25;
    let mut team = Team::without_operator("shared-secret").await;
    team.delete_secret("otc");
    let names: Vec<String> = (0..OBJECTS).map(|n| format!("job-{n}")).collect();
    for name in &names {
        team.follow(running(name)).await;
    }
    let started = Instant::now();
    team.start_operator();
    for name in &names {
        team.until_reason(name, "CredentialsNotFound").await;
    }
    // 5 s doubling to 60 s by the operator's time: five reads up to the first pause of 60 s.
    let most = |elapsed: Duration| 5.0 + elapsed.as_secs_f64() / (60.0 * SCALE);
    team.operator()
        .until_metric(
            "imageexport_secret_reads_total{result=\"credentials_not_found\"}",
            6.0,
        )
        .await;
    let counted = reads(team.operator()).await;
    assert!(counted <= most(started.elapsed()), "{counted} reads");

    team.put_secret("otc", &team.clouds_yaml());
    let mended = Instant::now();
    for name in &names {
        team.until_reason(name, "JobRunning").await;
        assert_healed(&team, name, "CredentialsNotFound");
    }
    // One read mended them all; a healthy Secret is read again every 5 minutes of that time.
    let usable = "imageexport_secret_reads_total{result=\"usable\"}";
    let counted = team.operator().metric(usable).await;
    let most = 1.0 + mended.elapsed().as_secs_f64() / (300.0 * SCALE);
    assert!(counted <= most, "{counted} reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_refused_without_the_flag_that_permits_it() {
    let mut team = Team::without_operator("plain-http").await;
    let url = team.sim.url();
    let host = url.replace("http://", "");
    let login = format!("auth: {{auth_url: '{url}', user_id: u, password: {PASSWORD}}}");
    put(&team, "login", "clouds.yaml", entry(&login)).await;
    for (name, secret) in [("override", "otc"), ("login", "login")] {
        team.sim.put_job(running(name));
        team.create_with(name, own_secret(secret)).await;
    }
    let https_only = crate::harness::Launch {
        allow_http: false,
        ..Default::default()
    };
    team.start_operator_as(https_only, &[]);
    for (name, field, secret) in [
        ("override", "image_endpoint_override", "otc"),
        ("login", "auth.auth_url", "login"),
    ] {
        let status = team.until_reason(name, "EndpointNotAllowed").await;
        assert_eq!(summary(&status), in_progress("EndpointNotAllowed"));
        assert_eq!(
            message(&status),
            format!(
                "Job {name} cannot be queried: clouds.otc.{field} in Secret {}/{secret} uses plain \
                 http with host {host}; use https, or start the operator with --allow-http.",
                team.namespace
            )
        );
    }
    assert!(team.sim.requests().is_empty(), "not a byte went there");

    assert_eq!(team.operator().terminate(), 0);
    team.start_operator();
    team.until_reason("override", "JobRunning").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_rights_on_secrets_are_said_to_be_missing_rights() {
    let mut team = Team::without_operator("no-rights").await;
    let namespace = team.namespace.clone();
    let account = format!("{namespace}:blind");
    // The rights of deploy/ but for the Secrets.
    for (role, rules) in [
        (
            "sees-jobs",
            vec![
                "--verb=get,list,watch",
                "--resource=imageexportjobs.imageexport.dev",
            ],
        ),
        (
            "writes-status",
            vec![
                "--verb=patch",
                "--resource=imageexportjobs.imageexport.dev/status",
            ],
        ),
    ] {
        let create = [vec!["create", "role", role], rules].concat();
        team.kubectl(&create).success().expect("a Role");
        grant(&team, role, &account);
    }
    team.kubectl(&["create", "serviceaccount", "blind"])
        .success()
        .expect("a ServiceAccount");
    let kubeconfig = cluster()
        .kubeconfig_for_service_account(&namespace, "blind")
        .expect("a token");
    let operator = Operator::start_with(&kubeconfig, &["--namespace", &namespace]);
    team.operator = Some(operator);

    team.follow(running("forbidden")).await;
    let status = team.until_reason("forbidden", "CredentialsNotFound").await;
    assert_eq!(
        message(&status),
        format!(
            "Job forbidden cannot be queried: the operator may not read Secret {namespace}/otc: \
             its role needs the verb get on secrets there."
        )
    );
    team.kubectl(&[
        "create",
        "role",
        "reads-secrets",
        "--verb=get",
        "--resource=secrets",
    ])
    .success()
    .expect("a Role");
    grant(&team, "reads-secrets", &account);
    team.until_reason("forbidden", "JobRunning").await;
}

fn grant(team: &Team, role: &str, account: &str) {
    let (role_flag, account_flag) = (
        format!("--role={role}"),
        format!("--serviceaccount={account}"),
    );
    team.kubectl(&["create", "rolebinding", role, &role_flag, &account_flag])
        .success()
        .expect("a RoleBinding");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_deleted_or_rotated_is_noticed_without_a_restart() {
    let team = Team::start("rotated").await;
    let user = User::new("ieo", "OTC00000000001000000101", PASSWORD).project(PROJECT, "eu-de");
    team.sim.put_user(user);
    for name in ["deleted", "renewed", "rejected"] {
        put(&team, name, "clouds.yaml", team.clouds_yaml()).await;
        team.sim.put_job(running(name));
        team.create_with(name, own_secret(name)).await;
    }
    team.sim.add_token("canary-token-old", Some(PROJECT));
    put(
        &team,
        "rejected",
        "clouds.yaml",
        team.clouds_yaml().replace(TOKEN, "canary-token-old"),
    )
    .await;
    for name in ["deleted", "renewed", "rejected"] {
        team.until_reason(name, "JobRunning").await;
    }
    // The content must be in use before it is changed.
    let uses = |name: &str, credential: ims::Credential| {
        let path = key(name).to_string();
        let requests = team.sim.requests();
        let last = requests.iter().rfind(|request| request.path == path);
        last.is_some_and(|request| request.credential == credential && request.status == Some(200))
            .then_some(())
    };

    // Deleted: what is known of the job stays; the next look at the Secret tells.
    team.delete_secret("deleted");
    // Other content that is good as well: used from the next look on.
    let url = team.sim.url();
    let login = entry(&format!(
        "auth: {{auth_url: '{url}', user_id: ieo-id, password: {PASSWORD}}}, image_endpoint_override: '{url}'"
    ));
    put(&team, "renewed", "clouds.yaml", login.clone()).await;
    // Other content, and the old is rejected: used at once.
    put(&team, "rejected", "clouds.yaml", login).await;
    team.sim.revoke_token("canary-token-old");

    for name in ["renewed", "rejected"] {
        eventually(&format!("{name} uses its new content"), || {
            uses(name, ims::Credential::IssuedToken)
        })
        .await;
        team.until_reason(name, "JobRunning").await;
    }
    assert_eq!(team.course("renewed"), ["JobRunning"]);
    assert_eq!(team.writes("renewed"), 1);
    let status = team.until_reason("deleted", "CredentialsNotFound").await;
    assert_eq!(summary(&status), in_progress("CredentialsNotFound"));
    assert_eq!(status.status.as_deref(), Some("RUNNING"));
    assert_eq!(
        message(&status),
        format!(
            "Job deleted cannot be queried: Secret {}/deleted does not exist.",
            team.namespace
        )
    );
    put(&team, "deleted", "clouds.yaml", team.clouds_yaml()).await;
    team.until_reason("deleted", "JobRunning").await;
    assert_eq!(
        team.course("deleted"),
        ["JobRunning", "CredentialsNotFound", "JobRunning"]
    );
    assert_eq!(team.writes("deleted"), 3);
}
