//! Attacks by what a host answers.

use crate::{
    hosts::{Host, briefly},
    tenant::{secret, with_login, with_token},
    trial::Trial,
};
use serde_json::json;
use testbed::ims::{self, Answer, Gate, Simulator, Target};

/// `{"":0},{"":0},…` of about so many bytes: each element costs a generic value about 95 times its length.
fn unfolding(bytes: usize) -> String {
    format!("{}{{}}", "{\"\":0},".repeat(bytes / 7))
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_256_kib_that_unfold_when_parsed_fit_into_the_memory() {
    const JOBS: usize = 64;
    let trial = Trial::begin("unfolding").await;
    let quiet = trial.window("quiet").await;
    let host = Simulator::start(ims::Config::default()).expect("a simulator");
    let elements = unfolding(256 * 1024 - 200);
    let body = format!(
        r#"{{"job_id":"{{job_id}}","status":"RUNNING","entities":{{"sub_jobs_result":[{elements}]}}}}"#
    );
    let gate = Gate::new();
    host.script_forever(Target::Jobs, Answer::json(200, body).held_by(&gate));
    let clouds = with_token(&host.url(), &trial.tenant.token, "");
    trial.tenant.put_clouds("otc", clouds).await;
    let object = |n| trial.tenant.object(&format!("job-{n}"), json!({}));
    trial.tenant.create_many(JOBS, object).await;
    briefly(gate.arrived(JOBS)).await;
    gate.open();

    let attacked = trial.window("attack").await;
    trial.end(&quiet, &[&attacked]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_1_mib_to_eight_logins_at_once_fit_into_the_memory() {
    const LOGINS: usize = 8;
    let trial = Trial::begin("catalogs").await;
    let quiet = trial.window("quiet").await;
    let host = Simulator::start(ims::Config::default()).expect("a simulator");
    let elements = unfolding(1024 * 1024 - 200);
    let body = format!(
        r#"{{"token":{{"expires_at":"2099-01-01T00:00:00.000000Z","catalog":[{elements}]}}}}"#
    );
    let gate = Gate::new();
    let answer = Answer::status(201)
        .header("X-Subject-Token", "t")
        .body(body);
    host.script_forever(Target::Login, answer.held_by(&gate));
    let (auth_url, tenant) = (format!("{}/v3", host.url()), &trial.tenant);
    for n in 0..LOGINS {
        let fields = format!("username: u{n}, password: p, user_domain_name: d");
        let clouds = with_login(&auth_url, &host.url(), &fields);
        tenant.put_clouds(&format!("login-{n}"), clouds).await;
    }
    let object = |n| {
        let name = format!("login-{n}");
        tenant.object(&name, secret(&name))
    };
    tenant.create_many(LOGINS, object).await;
    briefly(gate.arrived(LOGINS)).await;
    gate.open();

    let attacked = trial.window("attack").await;
    trial.end(&quiet, &[&attacked]).await;
}

/// Four hundred objects at four hosts, each of which answers with these bytes and then with nothing.
async fn stalled_by(name: &str, answer: Vec<u8>) {
    const HOSTS: usize = 4;
    let trial = Trial::begin(name).await;
    let quiet = trial.window("quiet").await;
    let tenant = &trial.tenant;
    let mut hosts = Vec::new();
    for n in 0..HOSTS {
        let host = Host::stalling(answer.clone()).await;
        let clouds = with_token(&host.url(), &tenant.token, "");
        tenant.put_clouds(&format!("host-{n}"), clouds).await;
        hosts.push(host);
    }
    let object = |n| {
        let host = format!("host-{}", n % HOSTS);
        tenant.object(&format!("job-{n}"), secret(&host))
    };
    tenant.create_many(400, object).await;
    for host in &hosts {
        host.reached(1).await;
    }

    let attacked = trial.window("attack").await;
    trial.end(&quiet, &[&attacked]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_lack_their_last_byte_hold_no_memory_and_no_slots_of_others() {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 262144\r\n\r\n";
    stalled_by(
        "short",
        format!("{head}{}", " ".repeat(262_143)).into_bytes(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_never_end_hold_no_memory_and_no_slots_of_others() {
    let line = format!("X-Long: {}\r\n", "x".repeat(8000));
    let head = format!("HTTP/1.1 200 OK\r\n{}", line.repeat(48));
    stalled_by("headers", head.into_bytes()).await;
}
