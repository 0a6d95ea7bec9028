//! Logins at a real Keystone, with a simulated image service that validates each token there.

use crate::harness::{Team, in_progress, message, own_secret, summary};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::{sync::OnceLock, time::Duration};
use testbed::{
    ims::{self, End, Job, JobKey},
    keystone::{Config, Keystone, User},
};

const DOMAIN: &str = "OTC00000000001000000101";
const PASSWORD: &str = "canary-password-of-keystone";

/// The Keystone that the tests share, each with users of its own.
fn shared() -> &'static Keystone {
    static KEYSTONE: OnceLock<Keystone> = OnceLock::new();
    KEYSTONE.get_or_init(|| start(Duration::from_secs(3600)))
}

fn start(token_lifetime: Duration) -> Keystone {
    Keystone::start(Config {
        token_lifetime,
        ..Config::default()
    })
    .expect("a Keystone")
}

/// A team whose cloud validates tokens at `keystone`, and a user with one project there.
struct Tenant {
    team: Team,
    keystone: &'static Keystone,
    user: User,
    project: String,
}

impl Tenant {
    async fn of(keystone: &'static Keystone, name: &str) -> Self {
        let cloud = ims::Config {
            keystone: Some(keystone.url().to_owned()),
            ..ims::Config::default()
        };
        let mut team = Team::with_cloud(name, cloud).await;
        team.start_operator();
        let project = format!("eu-de_{name}");
        let project = keystone.create_project(&project, DOMAIN).await;
        let project = project.expect("a project");
        let user = keystone
            .create_user(name, DOMAIN, PASSWORD, &[&project])
            .await
            .expect("a user");
        Self {
            team,
            keystone,
            user,
            project,
        }
    }

    async fn new(name: &str) -> Self {
        // The first one waits for the program to start.
        let keystone = tokio::task::spawn_blocking(shared).await;
        Self::of(keystone.expect("no panic"), name).await
    }

    fn key(&self, job: &str) -> JobKey {
        JobKey::new(self.project.as_str(), job)
    }

    /// The auth of a password login, with these further fields.
    fn password(&self, password: &str, more: &str) -> String {
        format!(
            "username: {}, user_domain_name: {DOMAIN}, password: '{password}'{more}",
            self.user.name
        )
    }

    /// A clouds.yaml for the simulated image service, with logins at the Keystone.
    fn clouds(&self, auth: &str, more: &str) -> String {
        format!(
            "clouds: {{otc: {{auth: {{auth_url: '{}', {auth}}}, image_endpoint_override: '{}'{more}}}}}",
            self.keystone.url(),
            self.team.sim.url()
        )
    }

    /// An object for the job of the same name, with a Secret of that name.
    async fn follow(&self, job: Job, clouds: &str) {
        let name = job.key().job;
        self.team.sim.put_job(job);
        self.team.put_secret_key(&name, "clouds.yaml", clouds).await;
        let mut spec = own_secret(&name);
        spec["projectID"] = Value::from(self.project.as_str());
        self.team.create_with(&name, spec).await;
    }

    fn job(&self, name: &str) -> Job {
        Job::new(self.project.as_str(), name)
    }

    fn running(&self, name: &str) -> Job {
        self.job(name).ends(End::Never)
    }

    fn host(&self) -> String {
        let url = self.keystone.url().replace("http://", "");
        url.trim_end_matches("/v3").to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_application_credentials_and_tokens_of_a_real_keystone_are_accepted() {
    let tenant = Tenant::new("real-logins").await;
    let keystone = tenant.keystone;
    let robot = keystone
        .create_application_credential(&tenant.user, &tenant.project, "robot")
        .await
        .expect("an application credential");
    let secret = format!(
        "application_credential_secret: '{}'",
        robot.secret.expose_secret()
    );
    let token = keystone.issue_token(&tenant.user, &tenant.project).await;
    let token = token.expect("a token");
    let project = &tenant.project;
    let robots = ", auth_type: v3applicationcredential";
    for (name, auth, more) in [
        ("password", tenant.password(PASSWORD, ""), ""),
        (
            "project-id",
            tenant.password(PASSWORD, &format!(", project_id: {project}")),
            "",
        ),
        (
            "project-name",
            tenant.password(PASSWORD, ", project_name: eu-de_real-logins"),
            "",
        ),
        (
            "user-id",
            format!("user_id: {}, password: {PASSWORD}", tenant.user.id),
            "",
        ),
        (
            "robot-by-id",
            format!("application_credential_id: {}, {secret}", robot.id),
            robots,
        ),
        (
            "robot-by-name",
            format!(
                "application_credential_name: {}, username: {}, user_domain_name: {DOMAIN}, {secret}",
                robot.name, tenant.user.name
            ),
            robots,
        ),
        ("token", format!("token: {token}"), ", auth_type: token"),
    ] {
        let clouds = tenant.clouds(&auth, more);
        tenant.follow(tenant.job(name), &clouds).await;
    }
    for name in [
        "password",
        "project-id",
        "project-name",
        "user-id",
        "robot-by-id",
        "robot-by-name",
        "token",
    ] {
        tenant.team.until_reason(name, "JobSucceeded").await;
        assert_eq!(tenant.team.course(name), ["JobSucceeded"], "{name}");
    }
    let counters = tenant.team.sim.counters();
    assert!(counters.keystone_validations >= 7, "each token is checked");
    assert_eq!(counters.answers.keys().collect::<Vec<_>>(), [&200]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_a_short_life_are_renewed_and_the_endpoint_is_that_of_the_catalog() {
    static KEYSTONE: OnceLock<Keystone> = OnceLock::new();
    let lifetime = Duration::from_secs(40);
    let keystone = tokio::task::spawn_blocking(move || KEYSTONE.get_or_init(|| start(lifetime)));
    let keystone: &'static Keystone = keystone.await.expect("no panic");
    let tenant = Tenant::of(keystone, "short-lived").await;
    let url = format!("{}/v2", tenant.team.sim.url());
    keystone.set_image_endpoint(&url).await.expect("a catalog");
    let clouds = format!(
        "clouds: {{otc: {{region_name: eu-de, auth: {{auth_url: '{}', {}}}}}}}",
        keystone.url(),
        tenant.password(PASSWORD, "")
    );
    tenant.follow(tenant.running("job"), &clouds).await;
    tenant.team.until_reason("job", "JobRunning").await;
    // Past half of each lifetime, and not at each poll: that is tested in virtual time, by
    // `past_half_life_one_caller_refreshes_and_the_others_do_not_wait` of the cloud client.
    let metric = r#"imageexport_cloud_requests_total{operation="login",class="success"}"#;
    tenant.team.operator().until_metric(metric, 3.0).await;
    tenant.team.sim.put_job(tenant.job("job"));
    tenant.team.until_reason("job", "JobSucceeded").await;
    // On a starved machine a request may time out; the credential stays good all the while.
    let mut course = tenant.team.course("job");
    course.retain(|reason| reason != "PollFailed");
    course.dedup();
    assert_eq!(course, ["JobRunning", "JobSucceeded"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_revoked_by_keystone_is_replaced_and_no_error_is_shown() {
    let tenant = Tenant::new("revoked").await;
    let clouds = tenant.clouds(&tenant.password(PASSWORD, ""), "");
    tenant.follow(tenant.running("job"), &clouds).await;
    tenant.team.until_reason("job", "JobRunning").await;
    // Keystone revokes all tokens of a user whose password is set, to the same one too, and all
    // that are issued within that second: no login happens meanwhile.
    let suspend = |suspend: bool| json!({ "spec": { "suspend": suspend } });
    tenant.team.patch("job", suspend(true)).await;
    tenant.team.until_reason("job", "Suspended").await;
    let same = tenant.keystone.change_password(&tenant.user, PASSWORD);
    same.await.expect("set again");
    tenant.team.patch("job", suspend(false)).await;
    let key = tenant.key("job");
    let polls = tenant.team.sim.polls(&key);
    tenant.team.sim.polled(&key, polls + 10).await;
    tenant.team.until_reason("job", "JobRunning").await;
    let mut course = tenant.team.course("job");
    course.retain(|reason| reason != "JobRunning");
    assert_eq!(course, ["Suspended"]);
    let counters = tenant.team.sim.counters();
    assert_eq!(counters.answers.get(&401), Some(&1), "{counters:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_changed_in_keystone_and_in_the_secret_is_used_without_a_restart() {
    let tenant = Tenant::new("rotated").await;
    let clouds = tenant.clouds(&tenant.password(PASSWORD, ""), "");
    tenant.follow(tenant.running("job"), &clouds).await;
    tenant.team.until_reason("job", "JobRunning").await;
    let changed = tenant.keystone.change_password(&tenant.user, "canary-new");
    changed.await.expect("changed");
    tenant.team.until_reason("job", "CredentialsInvalid").await;
    let clouds = tenant.clouds(&tenant.password("canary-new", ""), "");
    tenant
        .team
        .put_secret_key("job", "clouds.yaml", clouds)
        .await;
    tenant.team.until_reason("job", "JobRunning").await;
    tenant.team.sim.put_job(tenant.job("job"));
    tenant.team.until_reason("job", "JobSucceeded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rejection_by_a_real_keystone_is_reported_with_what_to_check() {
    let tenant = Tenant::new("rejected").await;
    let foreign = tenant.keystone.create_project("foreign-one", DOMAIN).await;
    let foreign = foreign.expect("a project");
    let host = tenant.host();
    let me = |name: &str| format!("cloud \"otc\" in Secret {}/{name}", tenant.team.namespace);
    let rejects = |name: &str, check: &str| {
        format!(
            "identity service {host} rejects the login of {} (401); check {check}",
            me(name)
        )
    };
    let user = "user, password, domain and project";
    let cases = [
        (
            "wrong-password",
            tenant.clouds(&tenant.password("canary-wrong", ""), ""),
            rejects("wrong-password", user),
        ),
        (
            "no-such-user",
            tenant.clouds(
                &format!("username: nobody, user_domain_name: {DOMAIN}, password: {PASSWORD}"),
                "",
            ),
            rejects("no-such-user", user),
        ),
        (
            "other-project",
            tenant.clouds(
                &tenant.password(PASSWORD, &format!(", project_id: {foreign}")),
                "",
            ),
            format!(
                "{} signs in to project {foreign}, but spec.projectID is {}",
                me("other-project"),
                tenant.project
            ),
        ),
        (
            "wrong-robot",
            tenant.clouds(
                "application_credential_id: 0123456789abcdef0123456789abcdef, application_credential_secret: canary-no",
                ", auth_type: v3applicationcredential",
            ),
            format!(
                "identity service {host} does not know the application credential of {} (404); check auth_url, and id, secret and age of the application credential",
                me("wrong-robot")
            ),
        ),
    ];
    for (name, clouds, _) in &cases {
        tenant.follow(tenant.running(name), clouds).await;
    }
    for (name, _, cause) in &cases {
        let status = tenant.team.until_reason(name, "CredentialsInvalid").await;
        assert_eq!(summary(&status), in_progress("CredentialsInvalid"));
        let expected = format!("Job {name} cannot be queried: {cause}.");
        assert_eq!(message(&status), expected);
    }
    // A project in which the user has no role is rejected by Keystone itself.
    tenant
        .team
        .put_secret_key(
            "no-role",
            "clouds.yaml",
            tenant.clouds(&tenant.password(PASSWORD, ""), ""),
        )
        .await;
    let mut spec = own_secret("no-role");
    spec["projectID"] = json!(foreign);
    tenant.team.create_with("no-role", spec).await;
    let status = tenant
        .team
        .until_reason("no-role", "CredentialsInvalid")
        .await;
    assert!(
        message(&status).contains(&rejects("no-role", user)),
        "{}",
        message(&status)
    );
}
