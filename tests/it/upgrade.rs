//! Another version of the operator takes over, the CRD changes under a running one, and everything is removed. With
//! an older binary in `OLD_OPERATOR`: see `tests/upgrade/run`.

use crate::{
    harness::{CRD, Launch, Operator, PATIENCE, PROJECT, Team, key, running},
    outage::own_cluster,
};
use image_export_api::ImageExportJob;
use kube::{Api, api::ListParams};
use serde_json::json;
use std::{collections::BTreeMap, path::Path, process::Command, time::Instant};
use testbed::{
    ims::{End, Job},
    kubernetes::Cluster,
};

/// The CRD of this version, with further flags.
fn apply_crd(cluster: &Cluster, crd: String) {
    cluster
        .kubectl(["apply", "--server-side", "--force-conflicts", "-f", "-"])
        .stdin(crd)
        .success()
        .expect("applied");
}

fn own_crd() -> String {
    crd_of(Path::new(env!("CARGO_BIN_EXE_image-export-operator")))
}

fn crd_of(operator: &Path) -> String {
    let output = Command::new(operator).arg("crd").output().expect("it runs");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Resource version and reason of each object.
async fn objects(team: &Team) -> BTreeMap<String, (String, String)> {
    let list = team
        .jobs
        .list(&ListParams::default())
        .await
        .expect("listed");
    let shown = |object: ImageExportJob| {
        let reasons = object
            .status
            .map(|status| status.conditions)
            .unwrap_or_default();
        let ready = reasons
            .into_iter()
            .find(|condition| condition.type_ == "Ready");
        let version = object.metadata.resource_version.unwrap_or_default();
        let reason = ready.map(|condition| condition.reason).unwrap_or_default();
        (object.metadata.name.unwrap_or_default(), (version, reason))
    };
    list.items.into_iter().map(shown).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crd_that_changes_or_comes_back_under_a_running_operator_loses_nothing() {
    let (_turn, cluster) = own_cluster().await;
    let mut team = Team::without_operator_on(cluster, "crd-changes").await;
    team.start_operator();
    team.follow(running("first")).await;
    team.until_reason("first", "JobRunning").await;

    // An upgrade of the CRD: another description, and a column more.
    let mut newer: serde_json::Value = cluster
        .kubectl(["get", "crd", CRD])
        .json()
        .expect("the CRD");
    newer["metadata"] = json!({ "name": CRD });
    newer["status"] = json!(null);
    let columns = newer.pointer_mut("/spec/versions/0/additionalPrinterColumns");
    let columns = columns
        .and_then(|columns| columns.as_array_mut())
        .expect("columns");
    columns.push(json!({ "name": "New", "type": "string", "jsonPath": ".spec.jobID" }));
    apply_crd(cluster, newer.to_string());
    let polls = team.polls("first");
    team.sim.polled(&key("first"), polls + 3).await;
    team.sim.put_job(Job::new(PROJECT, "first"));
    team.until_reason("first", "JobSucceeded").await;

    // Deleted with all objects, and applied again.
    cluster
        .kubectl(["delete", "crd", CRD])
        .success()
        .expect("it ends");
    apply_crd(cluster, own_crd());
    team.sim.put_job(running("second"));
    let started = Instant::now();
    while cluster
        .kubectl(["get", "iej", "-n", &team.namespace])
        .run()
        .is_ok_and(|output| !output.status.success())
    {
        assert!(started.elapsed() < PATIENCE);
    }
    team.create("second").await;
    let jobs: Api<ImageExportJob> = Api::namespaced(team.client.clone(), &team.namespace);
    let started = Instant::now();
    loop {
        let object = jobs.get("second").await.expect("the object");
        if object
            .status
            .is_some_and(|status| status.status.as_deref() == Some("RUNNING"))
        {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "it is not followed");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    println!(
        "first status after {:.1} s",
        started.elapsed().as_secs_f64()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_can_be_removed_in_any_order_while_the_operator_runs() {
    let (_turn, cluster) = own_cluster().await;
    let rights = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/rbac/cluster");
    let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/crds");
    let crd = ["-k", crds, "--timeout=60s"];
    let rights = ["-k", rights, "--timeout=60s"];
    // The namespace itself stays here: no controller runs that would end it.
    let account = [
        "deployment,serviceaccount",
        "image-export-operator",
        "--namespace=image-export-operator",
    ];
    for (name, order) in [
        ("crd-first", [crd, rights, account]),
        ("rights-first", [rights, account, crd]),
        ("account-first", [account, crd, rights]),
    ] {
        crate::harness::install(cluster);
        let mut team = Team::without_operator_on(cluster, name).await;
        team.start_operator();
        team.follow(running("job")).await;
        team.until_reason("job", "JobRunning").await;
        for part in order {
            let deleted = cluster.kubectl(["delete"]).args(part).success();
            deleted.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let operator = team.operator();
        assert!(operator.is_running());
        assert_eq!(operator.terminate(), 0);
    }
}

/// `OLD_OPERATOR` names the binary of an older version.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an older binary: tests/upgrade/run builds it"]
async fn a_newer_version_takes_over_and_an_older_one_again_and_nothing_is_lost() {
    let old = std::env::var("OLD_OPERATOR").expect("OLD_OPERATOR: see tests/upgrade/run");
    let old = Path::new(&old);
    let (_turn, cluster) = own_cluster().await;
    let team = Team::without_operator_on(cluster, "upgrade").await;
    apply_crd(cluster, crd_of(old));
    let arguments = ["--namespace", &team.namespace, "--poll-period", "10"];
    let launch = |program| Launch {
        program,
        ..Launch::for_graces()
    };
    let start = |program| Operator::start_as(cluster, launch(program), &arguments);

    let first = start(Some(old));
    team.follow(running("running")).await;
    team.follow(Job::new(PROJECT, "succeeded")).await;
    team.follow(Job::new(PROJECT, "failed").fails("IMG.0148", "No bucket."))
        .await;
    team.sim.put_job(running("secretless"));
    let missing = json!({ "cloudCredentialsRef": { "secretName": "none", "cloudName": "otc" } });
    team.create_with("secretless", missing).await;
    team.create("forgotten").await;
    team.create_with("suspended", json!({ "suspend": true }))
        .await;
    let overdue = json!({ "deadlineSeconds": 60 });
    team.sim.put_job(Job::new(PROJECT, "late").ends(End::Never));
    team.create_with("late", overdue).await;
    let expected = [
        ("running", "JobRunning"),
        ("succeeded", "JobSucceeded"),
        ("failed", "JobFailed"),
        ("secretless", "CredentialsNotFound"),
        ("forgotten", "JobNotFound"),
        ("suspended", "Suspended"),
        ("late", "DeadlineExceeded"),
    ];
    for (name, reason) in expected {
        team.until_reason(name, reason).await;
    }
    // `JobNotFound` for good.
    team.until("forgotten", "Stalled", |status| {
        status.conditions.iter().any(|c| c.type_ == "Stalled")
    })
    .await;
    assert_eq!(first.terminate(), 0);
    let before = objects(&team).await;
    let polls = |name| team.polls(name);
    let ended = (polls("succeeded"), polls("failed"));

    // The CRD first, then the operator; then back again, with either CRD.
    apply_crd(cluster, own_crd());
    for (program, crd) in [
        (None, None),
        (Some(old), None),
        (None, None),
        (Some(old), Some(old)),
    ] {
        if let Some(old) = crd {
            apply_crd(cluster, crd_of(old));
        }
        let operator = start(program);
        let count = polls("running");
        team.sim.polled(&key("running"), count + 5).await;
        assert_eq!(operator.terminate(), 0);
        let after = objects(&team).await;
        let reasons = after
            .iter()
            .map(|(name, (_, reason))| (name.as_str(), reason.as_str()));
        let reasons: BTreeMap<_, _> = reasons.collect();
        assert_eq!(reasons, BTreeMap::from(expected), "{program:?}");
        for name in ["succeeded", "failed", "suspended", "running"] {
            assert_eq!(
                before[name], after[name],
                "{name} is not written by {program:?}"
            );
        }
        assert_eq!(
            (polls("succeeded"), polls("failed")),
            ended,
            "polled again by {program:?}"
        );
    }
    let operator = start(None);
    team.sim.put_job(Job::new(PROJECT, "running"));
    team.until_reason("running", "JobSucceeded").await;
    assert_eq!(team.course("running"), ["JobRunning", "JobSucceeded"]);
    assert_eq!(operator.terminate(), 0);
}
