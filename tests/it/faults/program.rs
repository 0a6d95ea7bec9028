//! What only the whole program shows: little memory, and proxies.

use crate::harness::{PROJECT, TOKEN, key};
use flate2::{Compression, write::GzEncoder};
use std::{
    io::Write,
    path::Path,
    process::{Command, Output},
};
use testbed::ims::{self, Answer, Job, Simulator};

fn simulator() -> Simulator {
    let sim = Simulator::start(ims::Config::default()).expect("a simulator");
    sim.add_token(TOKEN, Some(PROJECT));
    sim
}

fn host(sim: &Simulator) -> String {
    sim.url().replace("http://", "")
}

/// The program's `query` with a token for `url`, in at most so many KiB of address space.
fn query(sim: &Simulator, url: &str, job: &str, proxy: &str, space: Option<u32>) -> Output {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
        "clouds-{}-{job}.yaml",
        host(sim).replace([':', '.'], "-")
    ));
    let entry =
        format!("auth_type: token, auth: {{token: {TOKEN}}}, image_endpoint_override: '{url}'");
    std::fs::write(&file, format!("clouds: {{otc: {{{entry}}}}}")).expect("a file");
    let limit = space.map_or_else(String::new, |kib| format!("ulimit -v {kib} && "));
    let output = Command::new("sh")
        .args(["-c", &format!("{limit}exec \"$@\""), "sh"])
        .arg(env!("CARGO_BIN_EXE_image-export-operator"))
        .args(["query", "--allow-http", "--output", "json"])
        .args(["--project", PROJECT, "--job", job, "--clouds-yaml"])
        .arg(&file)
        .env_clear()
        .envs([("http_proxy", proxy), ("NO_PROXY", "")])
        .output()
        .expect("the program runs");
    let _ = std::fs::remove_file(file);
    output
}

/// What the program reports about the poll.
fn classification(output: &Output) -> serde_json::Value {
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    report["classification"].clone()
}

/// 240 MiB out of so little that it passes the bound on the packed body.
fn bomb() -> Answer {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    let spaces = vec![b' '; 1024 * 1024];
    for _ in 0..240 {
        packed.write_all(&spaces).expect("memory");
    }
    let packed = packed.finish().expect("memory");
    assert!(packed.len() < 256 * 1024, "{}", packed.len());
    Answer::json(200, "")
        .header("Content-Encoding", "gzip")
        .body(packed)
}

#[test]
fn a_gzip_bomb_does_no_harm_in_little_memory() {
    // KiB: enough for the program, less than the bomb unpacked.
    const SPACE: u32 = 160 * 1024;
    let sim = simulator();
    sim.put_job(Job::new(PROJECT, "harmless"));
    sim.script_forever(key("bomb"), bomb());
    let url = sim.url();
    let output = query(&sim, &url, "harmless", "", Some(SPACE));
    assert_eq!(
        classification(&output)["category"],
        "answered",
        "{output:?}"
    );
    let output = query(&sim, &url, "bomb", "", Some(SPACE));
    let message = format!("the answer of {} is longer than 256 KiB", host(&sim));
    assert_eq!(classification(&output)["message"], message, "{output:?}");
}

#[test]
fn a_proxy_that_is_down_affects_only_hosts_behind_it() {
    let sim = simulator();
    sim.put_job(Job::new(PROJECT, "loopback"));
    // A port that is taken, so that nobody else gets it, and on which nobody listens.
    let port = tokio::net::TcpSocket::new_v4().expect("a socket");
    let loopback = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    port.bind(loopback).expect("a port");
    let address = port.local_addr().expect("an address");
    let nobody = format!("http://{address}");

    let output = query(&sim, "http://ims.example.com", "behind", &nobody, None);
    let said = classification(&output);
    assert_eq!(said["category"], "network", "{output:?}");
    assert_eq!(
        said["message"],
        format!("proxy {address} cannot be reached: connection refused")
    );
    assert!(!String::from_utf8_lossy(&output.stderr).contains(TOKEN));

    // No proxy can reach this machine's own addresses.
    let output = query(&sim, &sim.url(), "loopback", &nobody, None);
    assert_eq!(classification(&output)["category"], "answered");
    assert_eq!(sim.counters().polls, 1);
}

#[test]
fn a_proxy_that_answers_for_itself_is_not_taken_for_the_cloud() {
    // The simulator, spoken to as a proxy.
    let sim = simulator();
    let proxy = sim.url();
    for (job, answer, category) in [
        ("wants-login", Answer::preset("status-407"), "http_error"),
        ("lost-it", Answer::preset("bad-gateway"), "http_error"),
        ("wall", Answer::preset("html"), "malformed"),
        ("timeout", Answer::preset("gateway-timeout"), "http_error"),
    ] {
        sim.script_forever(key(job), answer);
        let output = query(&sim, "http://ims.example.com", job, &proxy, None);
        assert_eq!(classification(&output)["category"], category, "{job}");
        assert_eq!(sim.polls(&key(job)), 1, "{job}");
    }
}
