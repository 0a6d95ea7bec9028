//! The tool verdicts on each line of the conditions table, and that the files shipped for Argo CD are
//! the tested ones. The objects are the testdata of Argo CD's health script.

use serde_json::json;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use testbed::{
    judges::{
        ArgoHealth::{self, Degraded, Healthy, Progressing, Suspended},
        Judges,
        Kstatus::{self, Current, Failed, InProgress},
    },
    kubernetes::Cluster,
};

/// Which of Flux's two checkers has to pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flux {
    /// For objects in progress.
    Active,
    /// For objects at rest: ended, stalled or suspended.
    AtRest,
    /// The operator has not written a status of this generation.
    Unseen,
}

use Flux::{Active, AtRest, Unseen};

/// The conditions table as tools read it: file of the testdata, kstatus in both editions, Flux's
/// checker, Argo CD's health.
#[rustfmt::skip]
const TABLE: [(&str, Kstatus, Flux, ArgoHealth); 19] = [
    ("created",               InProgress, Unseen,   Progressing),
    ("pending",              InProgress, Active, Progressing),
    ("credentials-not-found", InProgress, Active, Progressing),
    ("endpoint-invalid",     InProgress, Active, Progressing),
    ("request-rejected",     InProgress, Active, Progressing),
    ("job-initializing",          InProgress, Active, Progressing),
    ("job-running",               InProgress, Active, Progressing),
    ("deadline-exceeded",    Failed,     AtRest,   Degraded),
    ("poll-failed",          InProgress, Active, Progressing),
    ("poll-overdue",         InProgress, Active, Progressing),
    ("job-succeeded",             Current,    AtRest,   Healthy),
    ("image-id-pending",     InProgress, Active, Progressing),
    ("image-id-missing",     Failed,     AtRest,   Degraded),
    ("job-failed",                Failed,     AtRest,   Degraded),
    ("job-status-unrecognized",          InProgress, Active, Progressing),
    ("job-not-found-for-good",             Failed,     AtRest,   Degraded),
    ("job-not-found-within-the-grace",        InProgress, Active, Progressing),
    ("suspended",             InProgress, AtRest,   Suspended),
    ("finished-then-changed", InProgress, Unseen,   Progressing),
];

fn judges() -> &'static Judges {
    Judges::shared().expect("the tools")
}

fn testdata() -> PathBuf {
    judges().customization().join("testdata")
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[test]
fn each_object_of_the_conditions_table_is_read_right_by_every_tool() {
    let files = TABLE.map(|(name, ..)| testdata().join(format!("{name}.yaml")));
    let verdicts = judges().judge_files(&files).expect("verdicts");
    for ((name, kstatus, flux, argo), verdict) in TABLE.into_iter().zip(verdicts) {
        assert_eq!(verdict.kstatus.status, kstatus, "{name}: {verdict:?}");
        assert_eq!(verdict.flux_kstatus.status, kstatus, "{name}: {verdict:?}");
        assert_eq!(verdict.argo.status, argo, "{name}: {verdict:?}");
        match flux {
            Active => assert_eq!(verdict.flux_in_progress, [""; 0], "{name}"),
            AtRest => assert_eq!(verdict.flux_at_rest, [""; 0], "{name}"),
            Unseen => assert_eq!(verdict.argo.message, "waiting for the operator", "{name}"),
        }
    }
}

#[test]
fn the_table_has_all_of_the_testdata() {
    let present: BTreeSet<_> = fs::read_dir(testdata())
        .expect("testdata")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    let judged = TABLE.map(|(name, ..)| format!("{name}.yaml").into());
    assert_eq!(present, BTreeSet::from(judged));
}

#[test]
fn objects_are_read_as_an_api_server_returns_them() {
    let job = |conditions| {
        json!({
            "apiVersion": "imageexport.dev/v1alpha1",
            "kind": "ImageExportJob",
            "metadata": {"name": "x", "namespace": "n", "generation": 1},
            "spec": {},
            "status": {"observedGeneration": 1, "conditions": conditions},
        })
    };
    let failed_alone = job(json!([{"type": "Failed", "status": "True"}]));
    let verdicts = judges().judge(&[failed_alone, job(json!([]))]);
    let [failed_alone, empty] = verdicts.expect("verdicts").try_into().expect("two");
    assert_eq!(failed_alone.kstatus.status, Current, "hence Stalled");
    assert_eq!(empty.argo_actions, ["suspend"]);
    assert!(empty.flux_at_rest[0].starts_with("Ready condition must always be present"));

    let error = judges().judge(&[json!({"name": "x"})]).unwrap_err();
    assert!(error.to_string().contains("'Kind' is missing"), "{error}");
    assert!(judges().judge(&[]).expect("verdicts").is_empty());
}

#[test]
fn the_shipped_scripts_for_argo_cd_pass_the_tests_beside_them() {
    let report = judges().argocd_test(judges().customization());
    let report = report.expect("no deviation");
    assert!(report.ends_with(" tests, 0 deviations"), "{report}");

    let nowhere = judges().argocd_test(&testdata()).unwrap_err().to_string();
    assert!(nowhere.contains("health.lua"), "{nowhere}");
}

/// The text of a block scalar.
fn indented(script: &str, width: usize) -> String {
    let script = read(&judges().customization().join(script));
    let lines = script.lines().map(|line| match line {
        "" => "\n".to_owned(),
        line => format!("{:width$}{line}\n", ""),
    });
    lines.collect()
}

#[test]
fn the_config_map_for_argo_cd_holds_the_tested_scripts_to_the_letter() {
    let folder = judges().customization().ancestors().nth(3);
    let config_map = read(&folder.expect("a folder").join("argocd-cm.yaml"));
    let expected = format!(
        "\ndata:
  resource.customizations.health.imageexport.dev_ImageExportJob: |
{}  resource.customizations.actions.imageexport.dev_ImageExportJob: |
    discovery.lua: |
{}    definitions:
      - name: suspend
        action.lua: |
{}      - name: resume
        action.lua: |
{}",
        indented("health.lua", 4),
        indented("actions/discovery.lua", 6),
        indented("actions/suspend/action.lua", 10),
        indented("actions/resume/action.lua", 10),
    );
    let (_, data) = config_map.split_at(config_map.find("\ndata:").expect("data"));
    assert_eq!(data, expected);
}

#[test]
fn flux_waits_for_live_objects_until_they_are_ready_or_stalled_or_the_timeout() {
    let cluster = Cluster::start().expect("a cluster");
    let run = |args: &[&str]| cluster.kubectl(args).success().expect("kubectl");
    let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crds");
    run(&["apply", "--server-side", "-k", crds]);
    run(&[
        "wait",
        "--for=condition=Established",
        "--timeout=5m",
        "crd/imageexportjobs.imageexport.dev",
    ]);
    let objects = [
        ("new", json!([])),
        ("good", json!([["Ready", "True"]])),
        ("bad", json!([["Ready", "False"], ["Stalled", "True"]])),
    ];
    for (name, conditions) in objects {
        let object = json!({
            "apiVersion": "imageexport.dev/v1alpha1",
            "kind": "ImageExportJob",
            "metadata": {"name": name},
            "spec": {
                "projectID": "ac234de25c6741d2b1273da49eea1b9e",
                "jobID": "ff8080814dbd65d7014dbe0d84db0013",
                "cloudCredentialsRef": {"secretName": "otc", "cloudName": "otc"},
            },
        });
        let create = cluster.kubectl(["create", "-f", "-"]);
        create.stdin(object.to_string()).success().expect("created");
        let conditions: Vec<_> = conditions
            .as_array()
            .expect("a list")
            .iter()
            .map(|condition| {
                json!({
                    "type": condition[0],
                    "status": condition[1],
                    "observedGeneration": 1,
                    "lastTransitionTime": "2024-11-06T06:47:10Z",
                    "reason": "Test",
                    "message": "",
                })
            })
            .collect();
        if !conditions.is_empty() {
            let status = json!({"status": {"observedGeneration": 1, "conditions": conditions}});
            let patch = [
                "patch",
                "iej",
                name,
                "--subresource=status",
                "--type=merge",
                "-p",
            ];
            run(&[&patch[..], &[&status.to_string()]].concat());
        }
    }
    let wait = |names: &[&str], seconds| {
        let kubeconfig = cluster.admin_kubeconfig();
        let timeout = Duration::from_secs(seconds);
        judges().flux_wait(kubeconfig, "default", names, timeout)
    };
    assert_eq!(wait(&["good"], 300).expect("an answer"), Ok(()));
    assert_eq!(
        wait(&["good", "bad"], 300).expect("an answer").unwrap_err(),
        "failed early due to stalled resources: [ImageExportJob/default/bad status: 'Failed']"
    );
    assert_eq!(
        wait(&["new"], 3).expect("an answer").unwrap_err(),
        "timeout waiting for: [ImageExportJob/default/new status: 'InProgress']"
    );
    let unknown = judges().flux_wait(Path::new("missing"), "default", &["x"], Duration::ZERO);
    assert!(unknown.is_err(), "no kubeconfig, no answer");
}
