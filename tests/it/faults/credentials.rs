//! Secrets that change, and one that many objects share. The table of everything that can be wrong in
//! a Secret is in `crate::credentials`.

use crate::harness::{Launch, PROJECT, SCALE, Team, eventually, key, own_secret, running};
use futures::{StreamExt, stream};
use std::time::{Duration, Instant};
use testbed::ims::{self, Job, User};

const DOMAIN: &str = "OTC00000000001000000101";
const PASSWORD: &str = "canary-password-77ab";

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

/// How soon a rotated Secret is used is tested in virtual time, by
/// `a_rotated_secret_is_used_within_5_minutes_without_extra_polls` and
/// `a_rotated_secret_is_used_at_once_when_the_old_one_is_rejected` of the core.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_is_used_in_time_and_at_once_where_the_old_one_is_rejected() {
    let team = Team::start("rotated-secret").await;
    for name in ["old", "new"] {
        team.sim.put_user(user(name, PASSWORD));
    }
    team.put_secret_key("rotated", "clouds.yaml", login(&team, "old", PASSWORD))
        .await;
    team.sim.put_job(running("job"));
    team.create_with("job", own_secret("rotated")).await;
    team.until_reason("job", "JobRunning").await;
    assert_eq!(team.sim.logins(), 1);

    // Both users are good: the new one counts with the next read of the Secret.
    team.put_secret_key("rotated", "clouds.yaml", login(&team, "new", PASSWORD))
        .await;
    eventually("a login of the new user", || {
        (team.sim.logins() == 2).then_some(())
    })
    .await;
    assert_eq!(team.course("job"), ["JobRunning"]);
    assert_eq!(team.writes("job"), 1);

    // The password is changed here and there: at most one login tries the old one.
    team.put_secret_key(
        "rotated",
        "clouds.yaml",
        login(&team, "new", "canary-password-2"),
    )
    .await;
    let before = team.sim.requests().len();
    team.sim.put_user(user("new", "canary-password-2"));
    team.sim.revoke_issued_tokens();
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
    team.until_reason("job", "JobRunning").await;
    let counters = team.sim.counters();
    assert!(counters.password_failures <= 1, "{counters:?}");
    assert!(team.operator().is_running());
}

/// How soon a restored Secret is found is tested in virtual time, by
/// `a_broken_secret_is_read_again_after_5_s_doubling_to_60_s` and
/// `polls_resume_at_once_when_the_secret_is_readable` of the core. The bounds on reads here hold on a machine
/// of any speed: they grow with the time that the test has taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_secret_is_found_by_few_reads_whatever_the_number_of_objects() {
    const OBJECTS: usize = 15;
    // 5 s doubling to 60 s: a quarter of a second to three.
    const SLOWER: f64 = 0.05;
    let scaled = |seconds: u64| Duration::from_secs(seconds).mul_f64(SLOWER);
    let mut team = Team::without_operator("restored-secret").await;
    team.put_secret_key("broken", "clouds.yaml", "clouds: [")
        .await;
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
    let restore = async |secret: &str| {
        team.put_secret_key(secret, "clouds.yaml", team.clouds_yaml())
            .await;
        for name in names(secret) {
            team.until_reason(&name, "JobRunning").await;
        }
    };

    for name in names("gone") {
        team.until_reason(&name, "CredentialsNotFound").await;
    }
    restore("gone").await;
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
    restore("broken").await;
    for secret in ["gone", "broken"] {
        for name in names(secret) {
            assert_eq!(team.writes(&name), 2, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_objects_on_one_secret_cost_one_login_and_one_poll_each() {
    const OBJECTS: usize = 1000;
    let mut team = Team::without_operator("thousand-objects").await;
    team.sim.put_user(user("ieo", PASSWORD));
    team.put_secret("otc", &login(&team, "ieo", PASSWORD));
    let names: Vec<String> = (0..OBJECTS).map(|n| format!("job-{n}")).collect();
    stream::iter(&names)
        .for_each_concurrent(64, async |name| {
            team.follow(Job::new(PROJECT, name.as_str())).await;
        })
        .await;
    let started = Instant::now();
    team.start_operator();
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
