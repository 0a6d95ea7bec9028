//! The program `ims-simulator`.

use crate::client;
use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ims-simulator");

/// Ends the program with the test, passed or failed.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the program and returns what it says up to the line that ends the greeting.
fn start(arguments: &[&str]) -> (Running, String) {
    let mut child = Command::new(PROGRAM)
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let running = Running(child);
    let mut greeting = String::new();
    while !greeting.contains("Ctrl-C") {
        assert_ne!(out.read_line(&mut greeting).unwrap(), 0, "{greeting}");
    }
    (running, greeting)
}

#[tokio::test]
async fn the_commands_that_it_prints_work() {
    let (_running, greeting) = start(&["--demo"]);
    let curl = greeting
        .lines()
        .find(|line| line.trim_start().starts_with("curl"))
        .unwrap();
    assert!(curl.contains("\"X-Auth-Token: demo-token\""), "{greeting}");
    let url = curl.split_whitespace().last().unwrap();
    let ask = |url: String| {
        client()
            .get(url)
            .header("X-Auth-Token", "demo-token")
            .send()
    };
    let body: Value = ask(url.to_owned()).await.unwrap().json().await.unwrap();
    assert_eq!(body["status"], "INIT");
    let reference = url.replace("demo-export", "ff8080814dbd65d7014dbe0d84db0013");
    let body: Value = ask(reference).await.unwrap().json().await.unwrap();
    assert_eq!(body["begin_time"], "04-Jun-2015 18:11:06:586");
}

#[test]
fn it_prints_no_tokens_and_no_passwords() {
    let (_running, greeting) = start(&["--token", "canary-1", "--password", "canary-2"]);
    assert!(!greeting.contains("canary"), "{greeting}");
    let help = Command::new(PROGRAM)
        .arg("--help")
        .env("IMS_SIMULATOR_TOKEN", "canary-1")
        .env("IMS_SIMULATOR_PASSWORD", "canary-2")
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(!help.contains("canary"), "{help}");
    assert!(help.contains("POST   /admin/answers"), "{help}");
}

#[test]
fn it_listens_to_other_machines_only_with_the_flag() {
    let refused = Command::new(PROGRAM)
        .args(["--listen", "0.0.0.0:0"])
        .output()
        .unwrap();
    assert!(!refused.status.success());
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(message.contains("--allow-remote"), "{message}");
    let (_running, greeting) = start(&["--listen", "0.0.0.0:0", "--allow-remote"]);
    assert!(greeting.contains("http://127.0.0.1:"), "{greeting}");
}

#[tokio::test]
async fn its_flags_give_it_a_key_a_quota_a_keystone_and_long_tokens() {
    let (_running, greeting) = start(&[
        "--demo",
        "--access-key",
        "AK",
        "--secret-key",
        "canary-3",
        "--quota",
        "2/60",
        "--token-length",
        "500",
        "--keystone",
        "http://127.0.0.1:9/v3",
        "--key-lock",
        "1",
        "--account-lock",
        "0",
    ]);
    assert!(
        greeting.contains("(auth_url): http://127.0.0.1:9/v3"),
        "{greeting}"
    );
    assert!(!greeting.contains("canary"), "{greeting}");
    let url = greeting
        .lines()
        .next()
        .unwrap()
        .split_whitespace()
        .last()
        .unwrap();
    let login = serde_json::json!({ "auth": { "identity": {
        "methods": ["password"],
        "password": { "user": { "name": "demo", "domain": { "name": "demo" }, "password": "demo" } },
    } } });
    let tokens = format!("{url}/v3/auth/tokens");
    let response = client().post(tokens).json(&login).send().await.unwrap();
    assert_eq!(response.headers()["x-subject-token"].len(), 500);
    let job = format!("{url}/v1/cloudimages/job/demo-stuck");
    let ask = |token: &str| client().get(&job).header("X-Auth-Token", token).send();
    for status in [200, 200, 429] {
        assert_eq!(ask("demo-token").await.unwrap().status(), status);
    }
    assert_eq!(ask("perhaps").await.unwrap().status(), 503);
    let signed = client().get(&job).header(
        "Authorization",
        "SDK-HMAC-SHA256 Access=AK, SignedHeaders=host;x-sdk-date, Signature=0",
    );
    let text = signed.send().await.unwrap().text().await.unwrap();
    assert!(text.contains("a signed header is missing"), "{text}");
}

#[test]
fn an_invalid_quota_is_rejected() {
    for quota in ["2", "x/1", "1/-1", "1/0"] {
        let refused = Command::new(PROGRAM)
            .args(["--quota", quota])
            .output()
            .unwrap();
        assert!(!refused.status.success(), "{quota}");
    }
}
