//! Proxies between the operator and the API server, and the families of addresses of the probes.

use crate::harness::{OPERATOR_NAMESPACE, PATIENCE, PROJECT, SCALE, Team, cluster, eventually};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    thread,
};
use testbed::{
    ims::Job,
    process::{Output, Supervised},
};

const SERVER: &str = "https://10.96.0.1:6443";
const PASSWORD: &str = "canary-proxy-password";

/// An operator of its own, with its log.
struct Started {
    process: Supervised,
    log: PathBuf,
}

impl Started {
    fn new(name: &str, kubeconfig: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        let log = scratch(&format!("{name}.log"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_image-export-operator"));
        command
            .args(["run", "--allow-http", "--log-format=json"])
            .args(arguments)
            .env("KUBECONFIG", kubeconfig)
            .env("IMAGE_EXPORT_TIME_SCALE", SCALE.to_string())
            .envs(variables.iter().copied());
        let process = Supervised::spawn(&command, Output::Merged(log.clone())).expect("it starts");
        Self { process, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for a line with these texts.
    async fn line(&self, texts: &[&str]) -> Value {
        let line = eventually("a line of the log", || {
            let log = self.log();
            let mut lines = log.lines();
            let line = lines.find(|line| texts.iter().all(|text| line.contains(text)));
            line.map(str::to_owned)
        });
        serde_json::from_str(&line.await).expect("a JSON line")
    }

    fn stop(&self) {
        self.process.terminate();
        assert_eq!(self.process.wait(PATIENCE), Some(0));
    }
}

fn scratch(name: &str) -> PathBuf {
    let name = format!("network-{}-{name}", std::process::id());
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// A kubeconfig of the operator in the shared cluster, at an address that only a proxy reaches.
fn kubeconfig(name: &str) -> PathBuf {
    let file = cluster()
        .kubeconfig_for_service_account(OPERATOR_NAMESPACE, "image-export-operator")
        .expect("a token for the operator");
    let text = std::fs::read_to_string(file).expect("a kubeconfig");
    let mut kubeconfig: Value = serde_json::from_str(&text).expect("JSON");
    let cluster = &mut kubeconfig["clusters"][0]["cluster"];
    cluster["server"] = json!(SERVER);
    cluster["tls-server-name"] = json!("127.0.0.1");
    let file = scratch(name);
    std::fs::write(&file, kubeconfig.to_string()).expect("a file");
    file
}

/// `127.0.0.1:PORT` of the shared API server.
pub fn api_server() -> String {
    let text = std::fs::read_to_string(cluster().admin_kubeconfig()).expect("a kubeconfig");
    let kubeconfig: Value = serde_json::from_str(&text).expect("JSON");
    let server = kubeconfig["clusters"][0]["cluster"]["server"].as_str();
    server.expect("a server").replace("https://", "")
}

/// A proxy on loopback: its address, and the CONNECT requests it got. It answers with `answer`, or, where
/// that is empty, leads each connection to `target`.
fn proxy(answer: &'static str, target: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let requests = seen.clone();
    thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            let (requests, target) = (requests.clone(), target.clone());
            thread::spawn(move || serve(connection, answer, &target, &requests));
        }
    });
    (address, seen)
}

/// Errors end a connection, as the operator may do at any time.
fn serve(
    mut client: TcpStream,
    answer: &str,
    target: &str,
    requests: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        request.extend(byte);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    requests.lock().expect("no panic").push(request);
    if !answer.is_empty() {
        return client.write_all(answer.as_bytes());
    }
    let mut server = TcpStream::connect(target)?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        let _ = std::io::copy(&mut from_server, &mut to_client);
        to_client.shutdown(Shutdown::Both)
    });
    std::io::copy(&mut client, &mut server)?;
    server.shutdown(Shutdown::Both)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_keeps_the_api_server_away_is_named_with_its_number_without_its_password() {
    for (answer, number) in [
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", 407),
        ("HTTP/1.1 403 Forbidden\r\n\r\n", 403),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n", 502),
    ] {
        let (address, requests) = proxy(answer, String::new());
        let url = format!("http://user:{PASSWORD}@{address}");
        let variables = [
            ("HTTPS_PROXY", url.as_str()),
            ("NO_PROXY", "localhost,127.0.0.1,"),
        ];
        let name = format!("refused-{number}");
        let arguments = ["--http-listen=127.0.0.1:0"];
        let operator = Started::new(&name, &kubeconfig(&name), &variables, &arguments);
        let line = operator.line(&["WARN", "watch failed"]).await;
        let problem = format!(
            "watch failed: all namespaces: the API server does not answer: \
             proxy {address} refused the connection to 10.96.0.1:6443 ({number})"
        );
        assert_eq!(line["message"], problem);
        let used = operator.line(&["using this API server"]).await;
        assert_eq!(used["proxy"], address);
        operator.stop();
        assert!(!operator.log().contains(PASSWORD), "{}", operator.log());
        let requests = requests.lock().expect("no panic");
        assert!(requests[0].starts_with("CONNECT 10.96.0.1:6443 HTTP/1.1\r\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_works_through_a_proxy_and_reaches_loopback_directly() {
    let team = Team::without_operator("behind-a-proxy").await;
    let (address, requests) = proxy("", api_server());
    // The simulated cloud is on loopback.
    let operator = Started::new(
        "through",
        &kubeconfig("through"),
        &[("all_proxy", &address), ("no_proxy", "example.com, ")],
        &["--http-listen=127.0.0.1:0", "--namespace", &team.namespace],
    );
    team.follow(Job::new(PROJECT, "behind")).await;
    team.until_reason("behind", "JobSucceeded").await;
    operator.stop();
    let requests = requests.lock().expect("no panic");
    let connect = "CONNECT 10.96.0.1:6443 HTTP/1.1\r\n";
    assert!(!requests.is_empty());
    assert!(
        requests.iter().all(|request| request.starts_with(connect)),
        "{requests:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_proxy_is_named_by_its_variable_alone() {
    let url = format!("gopher://user:{PASSWORD}@proxy");
    let output = Command::new(env!("CARGO_BIN_EXE_image-export-operator"))
        .arg("run")
        .env("KUBECONFIG", scratch("absent"))
        .env("HTTPS_PROXY", url)
        .output()
        .expect("it runs");
    let errors = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("Error: HTTPS_PROXY names no usable proxy: write "),
        "{errors}"
    );
    assert!(!errors.contains(PASSWORD), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_metrics_are_served_on_both_families() {
    let team = Team::without_operator("families").await;
    let kubeconfig = cluster()
        .kubeconfig_for_service_account(OPERATOR_NAMESPACE, "image-export-operator")
        .expect("a token for the operator");
    let arguments = ["--http-listen=[::]:0", "--namespace", &team.namespace];
    let operator = Started::new("families", &kubeconfig, &[], &arguments);
    operator.line(&["listed"]).await;
    let line = operator.line(&["serving /healthz"]).await;
    let address = line["address"].as_str().expect("an address");
    let mut hosts = vec!["127.0.0.1"];
    // Unless this machine has no IPv6.
    hosts.extend(address.starts_with("[::]:").then_some("[::1]"));
    let (_, port) = address.rsplit_once(':').expect("a port");
    for host in hosts {
        for path in ["/healthz", "/metrics"] {
            let url = format!("http://{host}:{port}{path}");
            let response = reqwest::get(&url).await.expect("an answer");
            assert_eq!(response.status(), 200, "{url}");
        }
    }
    operator.stop();
}

/// The default, and what `deploy/` says.
#[test]
fn the_default_is_both_families() {
    let output = Command::new(env!("CARGO_BIN_EXE_image-export-operator"))
        .args(["run", "--help"])
        .env_remove("IMAGE_EXPORT_HTTP_LISTEN")
        .output()
        .expect("it runs");
    let help = String::from_utf8(output.stdout).expect("text");
    assert!(help.contains("[default: [::]:8080]"), "{help}");
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/deploy/operator/deployment.yaml"
    );
    let deployment = std::fs::read_to_string(file).expect("a file");
    let deployment: Value = serde_saphyr::from_str(&deployment).expect("YAML");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["args"][1], "--http-listen=[::]:8080");
}
