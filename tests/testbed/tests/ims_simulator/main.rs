//! The IMS simulator over HTTP, as the operator uses it.

mod admin;
mod faults;
mod gateway;
mod iam;
mod keystone;
mod logins;
mod manual;
mod program;
mod query;
mod signing;

use reqwest::{Client, Response, redirect};
use serde_json::Value;
use std::sync::Once;
use testbed::ims::{Config, Job, JobKey, Simulator, User};

const PROJECT: &str = "ac234de25c6741d2b1273da49eea1b9e";
const TOKEN: &str = "fixed-token";

/// A client that shows answers as they are: nothing followed.
fn client() -> Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        rustls::crypto::ring::default_provider()
            .install_default()
            .expect("no other provider is installed in this process");
    });
    Client::builder()
        .redirect(redirect::Policy::none())
        .build()
        .expect("a client without options builds")
}

/// A simulator that accepts [`TOKEN`] for all projects and has the user `kay` of `OTC0001` with
/// the projects `eu-de` ([`PROJECT`]) and `eu-de_other`.
fn simulator() -> Simulator {
    let kay = User::new("kay", "OTC0001", "correct horse")
        .project(PROJECT, "eu-de")
        .project("other-project", "eu-de_other");
    let simulator = Simulator::start(Config {
        users: vec![kay],
        ..Config::default()
    })
    .expect("a free port on loopback");
    simulator.add_token(TOKEN, None);
    simulator
}

/// A job of [`PROJECT`] that has already succeeded.
fn finished_job(simulator: &Simulator) -> JobKey {
    let job = Job::new(PROJECT, "9a175ac892fa134201930039db1a27b1");
    let key = job.key();
    simulator.put_job(job);
    key
}

async fn query(simulator: &Simulator, key: &JobKey) -> Response {
    query_with(simulator, key, TOKEN).await
}

async fn query_with(simulator: &Simulator, key: &JobKey, token: &str) -> Response {
    client()
        .get(simulator.job_url(key))
        .header("X-Auth-Token", token)
        .send()
        .await
        .expect("an answer")
}

async fn query_json(simulator: &Simulator, key: &JobKey) -> Value {
    query(simulator, key).await.json().await.expect("JSON")
}

/// Status and error code of an answer, whichever of the three shapes its body has.
async fn error(response: Response) -> (u16, String) {
    let (status, code, _) = message(response).await;
    (status, code)
}

/// The same, and the text.
async fn message(response: Response) -> (u16, String, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.expect("JSON");
    let code = body.get("error_code").unwrap_or(&body["error"]["code"]);
    let code = code
        .as_str()
        .map_or_else(|| code.to_string(), str::to_owned);
    let text = body.get("error_msg").unwrap_or(&body["error"]["message"]);
    (status, code, text.as_str().unwrap_or_default().to_owned())
}
