//! Errors in a Secret: each is reported on the object, and the object recovers once the Secret is
//! fixed, without a restart and with few reads.

use crate::harness::{
    Launch, Operator, PASSWORD, PROJECT, SCALE, TOKEN, Team, cluster, eventually, in_progress, key,
    message, own_secret, running, summary,
};
use std::time::{Duration, Instant};
use testbed::ims::{self, User};

/// Reads of Secrets so far, whatever their result.
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

/// An invalid Secret.
struct Invalid {
    name: &'static str,
    /// Key and value of the Secret; none: no Secret.
    data: Option<(&'static str, Vec<u8>)>,
    reason: &'static str,
    /// Part of the message; `{secret}` is the Secret's name.
    cause: &'static str,
}

/// A clouds.yaml whose entry `otc` is given as flow-style YAML.
fn entry(fields: &str) -> Vec<u8> {
    format!("clouds: {{otc: {{{fields}}}}}").into_bytes()
}

#[rustfmt::skip]
fn invalid_secrets() -> Vec<Invalid> {
    let file = |name, reason, value: Vec<u8>, cause| Invalid { name, data: Some(("clouds.yaml", value)), reason, cause };
    let invalid = |name, value, cause| file(name, "CredentialsInvalid", value, cause);
    let url = "https://ims.example.com";
    let login = |fields: &str| entry(&format!("auth: {{auth_url: 'https://iam.example.com/v3', {fields}}}"));
    vec![
        Invalid { name: "missing", data: None, reason: "CredentialsNotFound", cause: "{secret} does not exist" },
        Invalid {
            name: "other-key", data: Some(("clouds.yml", entry(&format!("auth: {{token: {TOKEN}}}")))),
            reason: "CredentialsNotFound", cause: "{secret} has no key clouds.yaml",
        },
        invalid("empty", vec![], "key clouds.yaml of {secret} is empty"),
        invalid("blank", b" \n\t\n".to_vec(), "key clouds.yaml of {secret} is empty"),
        invalid("not-utf8", [b"clouds: \xff ", TOKEN.as_bytes()].concat(), "key clouds.yaml of {secret} is not UTF-8 text"),
        invalid("not-yaml", format!("clouds:\n  otc: {{auth: {{token: {TOKEN}\n").into(),
            "key clouds.yaml of {secret} is not valid YAML, or has a repeated key, or a text, list or map where another of these belongs at line 2, column 15"),
        invalid("list", format!("clouds:\n  otc:\n    auth: {{token: [{TOKEN}]}}").into(),
            "key clouds.yaml of {secret} is not valid YAML, or has a repeated key, or a text, list or map where another of these belongs at line 3, column 19"),
        invalid("no-clouds", format!("otc: {{auth: {{token: {TOKEN}}}}}").into(), "key clouds.yaml of {secret} has no map \"clouds\""),
        file("other-cloud", "CredentialsNotFound", format!("clouds: {{prod: {{auth: {{token: {TOKEN}}}}}, dev: {{}}}}").into(),
            "clouds.yaml of {secret} has no cloud \"otc\"; it has prod, dev"),
        file("no-entry", "CredentialsNotFound", b"clouds: {}".to_vec(), "clouds.yaml of {secret} has no cloud \"otc\"; it has none"),
        invalid("nothing", b"clouds:\n  otc:\n".to_vec(), "in clouds.yaml of {secret}, clouds.otc.auth.auth_url is missing or empty"),
        invalid("no-token", entry(&format!("auth_type: token, auth: {{password: {PASSWORD}}}, image_endpoint_override: '{url}'")),
            "in clouds.yaml of {secret}, clouds.otc.auth.token is missing or empty"),
        invalid("spaced-token", entry(&format!("auth_type: token, auth: {{token: '{TOKEN} {TOKEN}'}}, image_endpoint_override: '{url}'")),
            "in clouds.yaml of {secret}, clouds.otc.auth.token is not a token: it holds spaces or other characters that no token has"),
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
async fn an_invalid_secret_is_reported_with_the_fix_and_the_object_recovers() {
    let team = Team::start("invalid-secrets").await;
    let cases = invalid_secrets();
    for invalid in &cases {
        if let Some((key, value)) = &invalid.data {
            team.put_secret_key(invalid.name, key, value.clone()).await;
        }
        team.sim.put_job(running(invalid.name));
        team.create_with(invalid.name, own_secret(invalid.name))
            .await;
    }
    for invalid in &cases {
        let name = invalid.name;
        let status = team.until_reason(name, invalid.reason).await;
        assert_eq!(summary(&status), in_progress(invalid.reason), "{name}");
        let secret = format!("Secret {}/{name}", team.namespace);
        let cause = invalid.cause.replace("{secret}", &secret);
        assert_eq!(
            message(&status),
            format!("Job {name} cannot be queried: {cause}.")
        );
        assert_eq!(team.polls(name), 0, "{name}");
        team.put_secret_key(name, "clouds.yaml", team.clouds_yaml())
            .await;
    }
    for invalid in &cases {
        team.until_reason(invalid.name, "JobRunning").await;
        team.assert_recovered(invalid.name, invalid.reason);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_share_an_invalid_secret_share_its_reads() {
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

    let fixed = Instant::now();
    team.put_secret("otc", &team.clouds_yaml());
    for name in &names {
        team.until_reason(name, "JobRunning").await;
        team.assert_recovered(name, "CredentialsNotFound");
    }
    // One read serves them all; a valid Secret is read again every 5 minutes of that time.
    let usable = "imageexport_secret_reads_total{result=\"usable\"}";
    let counted = team.operator().metric(usable).await;
    let most = 1.0 + fixed.elapsed().as_secs_f64() / (300.0 * SCALE);
    assert!(counted <= most, "{counted} reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_not_allowed_without_the_flag() {
    let mut team = Team::without_operator("plain-http").await;
    let url = team.sim.url();
    let host = url.replace("http://", "");
    let login = format!("auth: {{auth_url: '{url}', user_id: u, password: {PASSWORD}}}");
    team.put_secret_key("login", "clouds.yaml", entry(&login))
        .await;
    for (name, secret) in [("override", "otc"), ("login", "login")] {
        team.sim.put_job(running(name));
        team.create_with(name, own_secret(secret)).await;
    }
    let https_only = Launch {
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
    assert!(team.sim.requests().is_empty(), "no request was sent");

    assert_eq!(team.operator().terminate(), 0);
    team.start_operator();
    team.until_reason("override", "JobRunning").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_rights_on_secrets_are_reported_as_such() {
    let mut team = Team::without_operator("no-rights").await;
    let namespace = team.namespace.clone();
    let account = format!("{namespace}:no-secrets");
    // The rights of deploy/ without those on Secrets.
    for (role, rules) in [
        (
            "reads-jobs",
            vec![
                "--verb=get,list,watch",
                "--resource=imageexportjobs.imageexport.dev",
            ],
        ),
        (
            "writes-status",
            vec![
                "--verb=update,patch",
                "--resource=imageexportjobs.imageexport.dev/status",
            ],
        ),
    ] {
        let create = [vec!["create", "role", role], rules].concat();
        team.kubectl(&create).success().expect("a Role");
        grant(&team, role, &account);
    }
    team.kubectl(&["create", "serviceaccount", "no-secrets"])
        .success()
        .expect("a ServiceAccount");
    let kubeconfig = cluster()
        .kubeconfig_for_service_account(&namespace, "no-secrets")
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
        team.put_secret_key(name, "clouds.yaml", team.clouds_yaml())
            .await;
        team.sim.put_job(running(name));
        team.create_with(name, own_secret(name)).await;
    }
    team.sim.add_token("canary-token-old", Some(PROJECT));
    team.put_secret_key(
        "rejected",
        "clouds.yaml",
        team.clouds_yaml().replace(TOKEN, "canary-token-old"),
    )
    .await;
    for name in ["deleted", "renewed", "rejected"] {
        team.until_reason(name, "JobRunning").await;
    }
    // The content has to be in use before it is changed.
    let uses = |name: &str, credential: ims::Credential| {
        let path = key(name).to_string();
        let requests = team.sim.requests();
        let last = requests.iter().rfind(|request| request.path == path);
        last.is_some_and(|request| request.credential == credential && request.status == Some(200))
            .then_some(())
    };

    // Deleted: the status of the job stays; the next read of the Secret finds nothing.
    team.delete_secret("deleted");
    // Other valid content: used from the next read on.
    let url = team.sim.url();
    let login = entry(&format!(
        "auth: {{auth_url: '{url}', user_id: ieo-id, password: {PASSWORD}}}, image_endpoint_override: '{url}'"
    ));
    team.put_secret_key("renewed", "clouds.yaml", login.clone())
        .await;
    // Other valid content, and the cloud rejects the old: used at once.
    team.put_secret_key("rejected", "clouds.yaml", login).await;
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
    team.put_secret_key("deleted", "clouds.yaml", team.clouds_yaml())
        .await;
    team.until_reason("deleted", "JobRunning").await;
    assert_eq!(
        team.course("deleted"),
        ["JobRunning", "CredentialsNotFound", "JobRunning"]
    );
    assert_eq!(team.writes("deleted"), 3);
}
