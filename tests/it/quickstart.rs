//! The quick start on a cluster of the user's.

use crate::harness::CRD;
use std::{path::Path, process::Command};
use testbed::kubernetes::Cluster;

fn quickstart(cluster: &Cluster, context: &str) -> (bool, String) {
    // Built by `cargo test`, or by `cargo build --examples`.
    let program = Path::new(env!("CARGO_BIN_EXE_image-export-operator"));
    let program = program.with_file_name("examples").join("quickstart");
    let mut command = Command::new(&program);
    command.args(["--context", context]);
    command.env("KUBECONFIG", cluster.admin_kubeconfig());
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.success(), text)
}

#[test]
fn it_runs_on_a_cluster_that_is_named_and_leaves_nothing_there() {
    let cluster = Cluster::start().expect("a cluster");
    let (success, text) = quickstart(&cluster, "no-such-context");
    assert!(!success && text.contains("no-such-context"), "{text}");

    let (success, text) = quickstart(&cluster, "testbed");
    assert!(success, "{text}");
    let left = cluster.kubectl(["get", "crd", CRD, "--ignore-not-found", "-o", "name"]);
    assert_eq!(left.success().expect("an answer"), "");
    let namespace = cluster.kubectl(["get", "namespace", "image-export-quickstart"]);
    // No controller runs here that would end it.
    let namespace = namespace.json().unwrap_or_default();
    let phase = namespace["status"]["phase"].as_str();
    assert!(
        phase.is_none_or(|phase| phase == "Terminating"),
        "{namespace}"
    );

    // Where the CRD is already, somebody's operator may be as well: nothing is touched.
    let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/crds");
    cluster
        .kubectl(["apply", "--server-side", "-k", crds])
        .success()
        .expect("applied");
    let (success, text) = quickstart(&cluster, "testbed");
    assert!(!success && text.contains("delete the CRD"), "{text}");
    cluster
        .kubectl(["get", "crd", CRD])
        .success()
        .expect("it stays");
}
