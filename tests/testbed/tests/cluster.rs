//! The API server of the testbed behaves as one in a real cluster does, where the operator's
//! tests depend on it.

mod common;

use common::{PATIENCE, eventually, is_alive, is_part, start_part};
use std::{fs, path::Path, process::Command, thread};
use testbed::kubernetes::{Binaries, Cluster, Lookup};

#[test]
fn a_service_account_may_do_what_rbac_grants_it_and_nothing_else() {
    let cluster = Cluster::start().unwrap();
    let run = |args: &[&str]| cluster.kubectl(args).success().unwrap();
    run(&["create", "namespace", "team"]);
    run(&["create", "serviceaccount", "operator", "-n", "team"]);
    let operator = cluster
        .kubeconfig_for_service_account("team", "operator")
        .unwrap();
    let as_operator = |args: &[&str]| cluster.kubectl(args).kubeconfig(&operator);

    let whoami = as_operator(&["auth", "whoami"]).json().unwrap();
    assert_eq!(
        whoami["status"]["userInfo"]["username"],
        "system:serviceaccount:team:operator"
    );
    let denied = as_operator(&["get", "secrets"]).failure().unwrap();
    assert!(denied.contains("is forbidden"), "{denied}");

    run(&[
        "create",
        "role",
        "reader",
        "-n",
        "team",
        "--verb=get,list",
        "--resource=secrets",
    ]);
    run(&[
        "create",
        "rolebinding",
        "reader",
        "-n",
        "team",
        "--role=reader",
        "--serviceaccount=team:operator",
    ]);
    assert!(eventually(|| {
        as_operator(&["get", "secrets"]).success().is_ok()
    }));
    let denied = as_operator(&["create", "configmap", "any"])
        .failure()
        .unwrap();
    assert!(denied.contains("is forbidden"), "{denied}");
    let denied = as_operator(&["get", "secrets", "-n", "default"])
        .failure()
        .unwrap();
    assert!(denied.contains("is forbidden"), "{denied}");
}

#[test]
fn what_was_acknowledged_survives_an_outage_and_the_url_stays() {
    let cluster = Cluster::start().unwrap();
    let config_map = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"kept"}}"#;
    cluster
        .kubectl(["apply", "-f", "-"])
        .stdin(config_map)
        .success()
        .unwrap();
    cluster
        .kubectl(["create", "serviceaccount", "kept"])
        .success()
        .unwrap();
    let account = cluster
        .kubeconfig_for_service_account("default", "kept")
        .unwrap();
    let url = cluster.url();

    cluster.stop_api_server().unwrap();
    let refused = cluster
        .kubectl(["get", "configmap", "kept"])
        .failure()
        .unwrap();
    assert!(refused.contains("refused"), "{refused}");

    cluster.start_api_server().unwrap();
    assert_eq!(cluster.url(), url);
    let kept = cluster
        .kubectl(["get", "configmap", "kept"])
        .json()
        .unwrap();
    assert_eq!(kept["metadata"]["name"], "kept");
    // The keys are kept too, so tokens from before are still good.
    cluster
        .kubectl(["auth", "whoami"])
        .kubeconfig(&account)
        .success()
        .unwrap();
}

#[test]
fn clusters_at_the_same_time_are_independent() {
    let (one, other) = thread::scope(|scope| {
        let one = scope.spawn(|| Cluster::start().unwrap());
        let other = scope.spawn(|| Cluster::start().unwrap());
        (one.join().unwrap(), other.join().unwrap())
    });
    assert_ne!(one.url(), other.url());
    one.kubectl(["create", "namespace", "only-here"])
        .success()
        .unwrap();
    let missing = other
        .kubectl(["get", "namespace", "only-here"])
        .failure()
        .unwrap();
    assert!(missing.contains("NotFound"), "{missing}");
    let stranger = one
        .kubectl(["get", "namespaces", "--server", &other.url()])
        .failure()
        .unwrap();
    assert!(stranger.contains("certificate"), "{stranger}");
}

#[tokio::test]
async fn rustls_accepts_the_certificate_by_the_authority_of_the_kubeconfig() {
    let cluster = tokio::task::spawn_blocking(|| Cluster::start().unwrap())
        .await
        .unwrap();
    let kubeconfig = fs::read_to_string(cluster.admin_kubeconfig()).unwrap();
    let kubeconfig: serde_json::Value = serde_json::from_str(&kubeconfig).unwrap();
    let authority = kubeconfig["clusters"][0]["cluster"]["certificate-authority"]
        .as_str()
        .unwrap();
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&fs::read(authority).unwrap()).unwrap()])
        .no_proxy()
        .build()
        .unwrap();
    let answer = client
        .get(format!("{}/version", cluster.url()))
        .send()
        .await
        .unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
}

#[test]
fn a_program_that_exits_at_its_start_is_reported_with_its_last_lines() {
    let error = start_with_fake_etcd("etcd-without-disk", "echo 'the disk is full' >&2; exit 4");
    assert!(
        error.contains("etcd ended with code 4") && error.contains("the disk is full"),
        "{error}"
    );
}

#[test]
fn a_port_that_stays_taken_is_given_up_in_the_end() {
    let error = start_with_fake_etcd(
        "etcd-without-port",
        "echo 'bind: address already in use' >&2; exit 1",
    );
    assert!(error.contains("taken port 5 times"), "{error}");
}

/// The error of a cluster whose etcd is a shell script.
fn start_with_fake_etcd(name: &str, script: &str) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    for program in ["etcd", "kubectl", "kube-apiserver"] {
        // Written by a shell: were it open for writing here, a process that another test's thread
        // starts at that moment would hold it open too, and it could not be executed.
        let status = Command::new("/bin/sh")
            .args([
                "-c",
                r#"printf '#!/bin/sh\n%s\n' "$2" >"$1" && chmod 700 "$1""#,
            ])
            .arg("sh")
            .arg(folder.join(program))
            .arg(script)
            .status()
            .unwrap();
        assert!(status.success());
    }
    let binaries = Binaries::resolve(&Lookup {
        assets: Some(folder),
        ..Lookup::default()
    })
    .unwrap();
    format!("{:#}", Cluster::start_with(binaries).unwrap_err())
}

#[test]
fn nothing_is_left_after_kill_9_of_the_process_that_started_a_cluster() {
    let (mut owner, folder) = start_part("owner_of_a_cluster", "folder: ");
    let folder = Path::new(&folder);
    let programs = processes_that_name(&folder.to_string_lossy());
    let names: Vec<&str> = programs.iter().map(|(_, name)| name.as_str()).collect();
    assert!(
        names.contains(&"etcd") && names.contains(&"kube-apiserver"),
        "{programs:?}"
    );

    owner.kill().unwrap();
    owner.wait().unwrap();

    assert!(
        eventually(|| { !programs.iter().any(|(pid, _)| is_alive(pid)) && !folder.exists() }),
        "left: {:?} {:?}",
        processes_that_name(&folder.to_string_lossy()),
        folder
    );
}

#[test]
#[ignore = "a part of nothing_is_left_after_kill_9_of_the_process_that_started_a_cluster"]
fn owner_of_a_cluster() {
    if !is_part() {
        return;
    }
    let cluster = Cluster::start().unwrap();
    let folder = cluster.admin_kubeconfig().parent().unwrap();
    println!("folder: {}", folder.display());
    thread::sleep(4 * PATIENCE);
}

/// Process id and name of all processes that have `text` in their command line.
fn processes_that_name(text: &str) -> Vec<(String, String)> {
    let read = |pid: &str, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|pid| read(pid, "cmdline").is_ok_and(|line| line.contains(text)))
        .map(|pid| {
            let name = read(&pid, "comm").unwrap_or_default();
            (pid, name.trim().to_owned())
        })
        .collect()
}
