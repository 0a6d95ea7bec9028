//! Attacks on the login of a neighbour, by wrong secrets for the same account or access key.

use crate::{
    hosts::briefly,
    tenant::{secret, with_key, with_login},
    trial::{Trial, until},
    window::NOISE,
};
use std::{ops::Range, time::Duration};
use testbed::ims::{self, AccessKey, JobKey, Simulator, User};

/// For tests that outlast a pause of the circuit breaker.
const BREAKER_SCALE: f64 = 0.02;
/// Five minutes by that.
const PAUSE: Duration = Duration::from_secs(6);

/// So many objects of the tenant, each with a Secret of its own.
async fn try_secrets(trial: &Trial, count: usize, clouds: impl Fn(usize) -> String) {
    try_more_secrets(trial, 0..count, clouds).await;
}

async fn try_more_secrets(trial: &Trial, numbers: Range<usize>, clouds: impl Fn(usize) -> String) {
    let tenant = &trial.tenant;
    for n in numbers {
        let name = format!("wrong-{n}");
        tenant.put_clouds(&name, clouds(n)).await;
        tenant.create(&tenant.object(&name, secret(&name))).await;
    }
}

/// Whether so many further polls of a job arrive in time.
async fn polled_again(trial: &Trial, key: &JobKey, further: u64) -> bool {
    let cloud = &trial.neighbours.cloud;
    let polled = cloud.polled(key, cloud.polls(key) + further);
    tokio::time::timeout(5 * NOISE, polled).await.is_ok()
}

/// Waits until this holds, or a defence prevents it.
async fn settled(holds: impl Fn() -> bool) {
    briefly(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_signatures_at_another_host_do_not_bar_an_access_key_from_its_own() {
    let mut trial = Trial::begin("elsewhere").await;
    let (url, key) = (
        trial.neighbours.cloud.url(),
        AccessKey::new("ELSEWHERE", "right"),
    );
    trial.neighbours.cloud.add_key(key);
    let other = Simulator::start(ims::Config::default()).expect("a simulator");
    other.add_key(AccessKey::new("ELSEWHERE", "another"));
    let wrong = |n| with_key(&other.url(), "ELSEWHERE", &format!("wrong-{n}"));
    try_secrets(&trial, 6, wrong).await;
    settled(|| other.counters().signature_failures >= 3).await;

    let clouds = with_key(&url, "ELSEWHERE", "right");
    let key = trial.follow_for_a_neighbour("elsewhere", clouds).await;
    trial.expect_running(&key, 3 * NOISE).await;
    trial.end_without_windows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fresh_wrong_secrets_all_the_time_neither_starve_nor_lock_an_untried_right_one() {
    const SECRETS: u64 = 6;
    let mut trial = Trial::begin_with("starved", BREAKER_SCALE, &[]).await;
    let cloud = &trial.neighbours.cloud;
    cloud.add_key(AccessKey::new("STARVED", "right"));
    let (url, before) = (cloud.url(), cloud.counters());
    let wrong = |n| with_key(&url, "STARVED", &format!("wrong-{n}"));
    try_secrets(&trial, 6, wrong).await;
    let (tenant, at) = (trial.tenant.clone(), url.clone());
    let rotations = trial.keep(2, move |n| {
        let clouds = with_key(&at, "STARVED", &format!("fresh-{n}"));
        let tenant = tenant.clone();
        async move {
            tenant
                .put_clouds(&format!("wrong-{}", n % SECRETS), clouds)
                .await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let failures = || trial.neighbours.cloud.counters().signature_failures;
    settled(|| failures() >= before.signature_failures + 3).await;
    until(&rotations, 50).await;

    let clouds = with_key(&url, "STARVED", "right");
    let key = trial.follow_for_a_neighbour("starved", clouds).await;
    trial.expect_running(&key, 2 * PAUSE + 3 * NOISE).await;
    let locks = trial.neighbours.cloud.counters().key_locks - before.key_locks;
    trial.expect(locks == 0, || format!("the key was locked {locks} times"));
    trial.end_without_windows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_access_key_is_trusted_after_restarts_however_many_wrong_secrets_there_are() {
    let mut trial = Trial::begin("trusted").await;
    let cloud = &trial.neighbours.cloud;
    cloud.add_key(AccessKey::new("TRUSTED", "right"));
    let (url, before) = (cloud.url(), cloud.counters());
    let clouds = with_key(&url, "TRUSTED", "right");
    let key = trial.follow_for_a_neighbour("trusted", clouds).await;
    trial.expect_running(&key, 3 * NOISE).await;
    let wrong = |n| with_key(&url, "TRUSTED", &format!("wrong-{n}"));
    try_secrets(&trial, 12, wrong).await;
    trial.tenant_is_told("CredentialsInvalid", "").await;

    for restart in 1..=3 {
        // With no accepted signature between them, those of two processes would add up to the cloud's lock.
        let polled = polled_again(&trial, &key, 2).await;
        trial.expect(polled, || format!("not polled before restart {restart}"));
        trial.operator.kill();
        // Objects that are new to the operator are polled before anything else.
        try_more_secrets(&trial, 12 * restart..12 * restart + 6, wrong).await;
        trial.restart().await;
        let polled = polled_again(&trial, &key, 4).await;
        trial.expect(polled, || format!("not polled after restart {restart}"));
        trial.expect_running(&key, Duration::ZERO).await;
    }
    let locks = trial.neighbours.cloud.counters().key_locks - before.key_locks;
    trial.expect(locks == 0, || format!("the key was locked {locks} times"));
    trial.end_without_windows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spellings_of_one_account_do_not_add_up_to_its_lock() {
    let mut trial = Trial::begin_with("spellings", BREAKER_SCALE, &[]).await;
    let cloud = &trial.neighbours.cloud;
    let project = &trial.neighbours.all[0].project;
    cloud.put_user(User::new("Export", "Domain", "right").project(project, "eu-de_images"));
    let before = cloud.counters();
    let (url, port) = (
        cloud.url(),
        cloud.url().rsplit_once(':').expect("a port").1.to_owned(),
    );
    let auth_url = |host: &str| format!("http://{host}:{port}/v3");
    let users = [
        "username: Export",
        "username: export",
        "username: EXPORT",
        "user_id: Export-id",
    ];
    let domains = [
        "user_domain_name: Domain",
        "user_domain_name: DOMAIN",
        "user_domain_id: Domain-id",
    ];
    let wrong = |n: usize| {
        let host = ["localhost", "LOCALHOST"][n % 2];
        let (user, domain) = (users[n / 2 % 4], domains[n / 8 % 3]);
        let fields = format!("{user}, {domain}, password: wrong-{n}");
        with_login(&auth_url(host), &url, &fields)
    };
    try_secrets(&trial, 24, wrong).await;
    trial.tenant_is_told("CredentialsInvalid", "").await;

    let fields = format!("{}, {}, password: right", users[0], domains[0]);
    let clouds = with_login(&auth_url("localhost"), &url, &fields);
    let key = trial.follow_for_a_neighbour("spellings", clouds).await;
    trial.expect_running(&key, 2 * PAUSE + 3 * NOISE).await;
    let after = trial.neighbours.cloud.counters();
    let logins = after.logins - before.logins;
    let wrong = after.password_failures - before.password_failures;
    let locks = after.account_locks - before.account_locks;
    println!("{logins} logins, {wrong} wrong passwords of the account");
    trial.expect(locks == 0, || {
        format!("{wrong} wrong passwords locked the account {locks} times")
    });
    trial.expect(wrong > 0, || "no wrong password arrived".to_owned());
    trial.end_without_windows().await;
}
