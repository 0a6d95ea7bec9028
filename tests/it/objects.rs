//! Objects as users write them: defaults and columns of the API server, and objects that the operator
//! cannot decode. `crd` has what the API server rejects.

use crate::harness::{PROJECT, TOKEN, Team, eventually, install, running};
use image_export_api::crd;
use serde_json::{Value, json};
use std::sync::OnceLock;
use testbed::{ims::Job, kubernetes::Cluster};

fn manifest(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "imageexport.dev/v1alpha1", "kind": "ImageExportJob",
        "metadata": { "name": name }, "spec": spec,
    })
}

fn good_spec(job: &str) -> Value {
    json!({
        "projectID": PROJECT, "jobID": job,
        "cloudCredentialsRef": { "secretName": "otc", "cloudName": "otc" },
    })
}

/// A spec with the value at a path replaced or removed.
fn with(path: &str, value: Option<Value>) -> Value {
    let mut spec = good_spec("good");
    let (parent, field) = path.rsplit_once('/').expect("a path");
    let fields = spec.pointer_mut(parent).expect("it is there");
    let fields = fields.as_object_mut().expect("an object");
    match value {
        Some(value) => fields.insert(field.to_owned(), value),
        None => fields.remove(field),
    };
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_object_reads_as_unfinished_and_kubectl_shows_status_reason_and_image() {
    let mut team = Team::without_operator("columns").await;
    team.delete_secret("otc");
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/sample");
    let whole = json!({ "pollPeriodSeconds": 30, "suspend": false });
    let mut spec = good_spec("whole");
    spec.as_object_mut()
        .unwrap()
        .extend(whole.as_object().unwrap().clone());
    let whole = manifest("whole", &spec).to_string();
    for (arguments, stdin) in [
        (vec!["apply", "-f", sample], ""),
        (vec!["apply", "--server-side", "-f", "-"], whole.as_str()),
        (
            vec!["apply", "--server-side", "--dry-run=server", "-f", "-"],
            whole.as_str(),
        ),
    ] {
        let output = team
            .kubectl(&arguments)
            .stdin(stdin)
            .run()
            .expect("kubectl runs");
        assert!(output.status.success(), "{arguments:?}: {}", output.stderr);
        assert_eq!(output.stderr, "", "{arguments:?}: no warning");
    }
    team.create("fresh").await;
    let fresh = team
        .kubectl(&["get", "iej", "fresh"])
        .json()
        .expect("it is there");
    assert_eq!(fresh["status"], json!({ "observedGeneration": -1 }));
    assert_eq!(fresh["spec"]["suspend"], json!(false));

    team.put_secret("otc", &team.clouds_yaml());
    team.start_operator();
    team.sim
        .put_job(Job::new(PROJECT, "fresh").image_id("an-image"));
    team.sim.put_job(running("whole"));
    team.until_reason("fresh", "JobSucceeded").await;
    team.until_reason("whole", "JobRunning").await;
    let cells = |line: &str| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let table = team
        .kubectl(&["get", "imageexport", "fresh"])
        .success()
        .expect("a table");
    let lines: Vec<_> = table.lines().map(cells).collect();
    assert_eq!(
        lines[0],
        ["NAME", "STATUS", "READY", "REASON", "IMAGE", "AGE"]
    );
    assert_eq!(
        lines[1][..5],
        ["fresh", "SUCCESS", "True", "JobSucceeded", "an-image"]
    );
    let table = team
        .kubectl(&["get", "iej", "fresh", "-o", "wide"])
        .success()
        .expect("a table");
    let lines: Vec<_> = table.lines().map(cells).collect();
    assert_eq!(lines[0][5..], ["AGE", "JOB", "PROGRESS", "MESSAGE"]);
    assert_eq!(
        lines[1][6..].join(" "),
        "fresh 100 Job fresh has succeeded: source image an-image is exported."
    );
    for (selector, found) in [
        (
            "status.status=RUNNING",
            "imageexportjob.imageexport.dev/whole\n",
        ),
        (
            "status.status=SUCCESS",
            "imageexportjob.imageexport.dev/fresh\n",
        ),
        ("spec.jobID=whole", "imageexportjob.imageexport.dev/whole\n"),
        ("spec.jobID=none", ""),
    ] {
        let names = team
            .kubectl(&["get", "iej", "-o", "name", "--field-selector", selector])
            .success()
            .expect("a selectable field");
        assert_eq!(names, found, "{selector}");
    }
}

/// An API server whose CRD lets through any spec and any status, as that of another version may.
fn relaxed_cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let cluster = Cluster::start().expect("a cluster");
        install(&cluster);
        let mut relaxed = crd::json();
        let top = relaxed["spec"].as_object_mut().expect("an object");
        let versions = top["versions"].as_array_mut().expect("a list");
        let version = versions[0].as_object_mut().expect("an object");
        version.remove("selectableFields");
        let properties = relaxed
            .pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties")
            .expect("properties");
        properties["spec"] =
            json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        properties["status"] = json!({ "x-kubernetes-preserve-unknown-fields": true });
        cluster
            .kubectl(["apply", "--server-side", "--force-conflicts", "-f", "-"])
            .stdin(relaxed.to_string())
            .success()
            .expect("the relaxed CRD");
        cluster
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_does_not_decode_is_reported_once_and_blocks_no_other() {
    let cluster = relaxed_cluster();
    let mut team = Team::without_operator_on(cluster, "unreadable").await;
    let bad = [
        ("bad-id", with("/jobID", Some("../../other".into()))),
        ("no-credentials", with("/cloudCredentialsRef", None)),
        ("wrong-type", with("/suspend", Some("yes".into()))),
        ("huge", with("/suspend", Some("y".repeat(1 << 19).into()))),
        (
            "pasted-token",
            with("/jobID", Some(format!("{TOKEN} ").into())),
        ),
    ];
    for (name, spec) in &bad[..2] {
        apply(&team, name, spec);
    }
    team.follow(Job::new(PROJECT, "before")).await;
    team.start_operator();
    team.until_reason("before", "JobSucceeded").await;
    for (name, spec) in &bad[2..] {
        apply(&team, name, spec);
    }
    for (name, _) in &bad {
        team.until_event(name, "Warning InvalidObject: ").await;
        for value in ["1", "2"] {
            team.kubectl(&["label", "--overwrite", "iej", name, &format!("try={value}")])
                .success()
                .expect("labelled");
        }
    }
    team.follow(Job::new(PROJECT, "after")).await;
    team.until_reason("after", "JobSucceeded").await;

    for ((name, _), cause) in bad.iter().zip([
        "not a valid JobId: 1 to 64 characters matching ^[A-Za-z0-9_-]+$",
        "missing field `cloudCredentialsRef`",
        "invalid type: string \"yes\", expected a boolean",
        &format!("invalid type: string \"{}…", "y".repeat(256 - 22)),
        "not a valid JobId: 1 to 64 characters matching ^[A-Za-z0-9_-]+$",
    ]) {
        let events = team.events(name).await;
        assert_eq!(
            events,
            [format!(
                "Warning InvalidObject: This object is not followed, because it cannot be read: {cause}."
            )]
        );
        let field = format!("\"object\":\"{}/{name}\"", team.namespace);
        let log = team.operator().log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains(&field)).collect();
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(lines[0].contains("\"WARN\""), "{}", lines[0]);
    }

    // Fixed, it is tracked like any other.
    team.sim.put_job(Job::new(PROJECT, "good"));
    apply(&team, "bad-id", &good_spec("good"));
    team.until_reason("bad-id", "JobSucceeded").await;
    assert_eq!(team.operator().get("/readyz").await.0, 200);
}

/// Statuses that do not decode, as merge patches, with a name for each.
fn broken_statuses() -> [(&'static str, Value); 5] {
    [
        ("time", json!({ "startTime": "2024-01-01T00:00:00+99:99" })),
        ("number", json!({ "progressPercent": "40 %" })),
        ("list", json!({ "conditions": "Ready" })),
        (
            "item",
            json!({ "conditions": [{ "type": "Ready", "status": true }] }),
        ),
        ("object", json!("RUNNING")),
    ]
}

/// Makes the status one that does not decode; returns it as it was before.
fn break_status(team: &Team, name: &str, status: &Value) -> Value {
    let before = stored_status(team, name);
    let patch = json!({ "status": status }).to_string();
    team.kubectl(&["patch", "iej", name, "--subresource=status"])
        .args(["--type=merge", "--patch", &patch])
        .success()
        .expect("it is accepted");
    before
}

fn stored_status(team: &Team, name: &str) -> Value {
    let object = team.kubectl(&["get", "iej", name]).json();
    object.expect("it is there")["status"].clone()
}

async fn until_repaired(team: &Team, name: &str, wanted: &Value) {
    eventually(&format!("{name}: the repair"), || {
        (stored_status(team, name) == *wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_does_not_decode_is_repaired_and_hides_no_object() {
    let mut team = Team::without_operator_on(relaxed_cluster(), "broken").await;
    for (name, status) in broken_statuses() {
        team.sim.put_job(running(name));
        team.create(name).await;
        break_status(&team, name, &status);
    }
    team.start_operator();
    for (name, status) in broken_statuses() {
        team.until_reason(name, "JobRunning").await;
        let before = break_status(&team, name, &status);
        until_repaired(&team, name, &before).await;
    }
    for (name, status) in broken_statuses() {
        team.sim
            .put_job(Job::new(PROJECT, name).image_id("an-image"));
        team.until_reason(name, "JobSucceeded").await;
        let polls = team.polls(name);
        let ended = break_status(&team, name, &status);
        assert_eq!(ended["imageID"], "an-image", "{name}");
        until_repaired(&team, name, &ended).await;
        assert_eq!(
            team.polls(name),
            polls,
            "{name}: it is repaired from memory"
        );
    }
    let ended = break_status(
        &team,
        "time",
        &json!({ "completionTime": "9999-12-31T23:59:59Z" }),
    );
    until_repaired(&team, "time", &ended).await;
}

fn apply(team: &Team, name: &str, spec: &Value) {
    team.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"])
        .stdin(manifest(name, spec).to_string())
        .success()
        .expect("it is accepted");
}
