//! The errors of `kubectl apply` for invalid manifests, as a user reads them.

use super::text;
use crate::harness::{PROJECT, Team};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn manifest(name: &str, changes: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "imageexport.dev/v1alpha1", "kind": "ImageExportJob",
        "metadata": { "name": name },
        "spec": {
            "projectID": PROJECT, "jobID": "job",
            "cloudCredentialsRef": { "secretName": "otc", "cloudName": "otc" },
        },
    });
    let spec = object["spec"].as_object_mut().expect("an object");
    spec.extend(changes.as_object().expect("an object").clone());
    object
}

/// Changes of a valid spec, and the error for each. `ID` stands for either id.
#[rustfmt::skip]
const INVALID: [(&str, &str); 32] = [
    // Nothing that could leave its place in a URL.
    (r#"{"ID": "a/b"}"#, r#"spec.ID: Invalid value: "a/b": spec.ID in body should match '^[A-Za-z0-9_-]+$'"#),
    (r#"{"ID": "a.b"}"#, r#"spec.ID: Invalid value: "a.b": spec.ID in body should match '^[A-Za-z0-9_-]+$'"#),
    (r#"{"ID": "a%2fb"}"#, r#"spec.ID: Invalid value: "a%2fb": spec.ID in body should match '^[A-Za-z0-9_-]+$'"#),
    (r#"{"ID": "a?b"}"#, r#"spec.ID: Invalid value: "a?b": spec.ID in body should match '^[A-Za-z0-9_-]+$'"#),
    (r#"{"ID": "a#b"}"#, r#"spec.ID: Invalid value: "a#b": spec.ID in body should match '^[A-Za-z0-9_-]+$'"#),
    (r#"{"ID": "a\\b"}"#, r#"spec.ID: Invalid value: "a\\b": spec.ID in body should match '^[A-Za-z0-9_-]+$'"#),
    (r#"{"ID": "a b"}"#, r#"spec.ID: Invalid value: "a b": spec.ID in body should match '^[A-Za-z0-9_-]+$'"#),
    (r#"{"ID": "job\n"}"#, r#"spec.ID: Invalid value: "job\n": spec.ID in body should match '^[A-Za-z0-9_-]+$'"#),
    (r#"{"ID": "a\u0000b"}"#, r#"spec.ID: Invalid value: "a\x00b": spec.ID in body should match '^[A-Za-z0-9_-]+$'"#),
    (r#"{"ID": "a\u202eb"}"#, r#"spec.ID: Invalid value: "a\u202eb": spec.ID in body should match '^[A-Za-z0-9_-]+$'"#),
    (r#"{"ID": ""}"#, r#"spec.ID: Invalid value: "": spec.ID in body should be at least 1 chars long"#),
    (r#"{"ID": "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0"}"#, "spec.ID: Too long: may not be more than 64 bytes"),
    (r#"{"ID": 17}"#, r#"spec.ID: Invalid value: "integer": spec.ID in body must be of type string: "integer""#),
    (r#"{"ID": true}"#, r#"spec.ID: Invalid value: "boolean": spec.ID in body must be of type string: "boolean""#),
    (r#"{"ID": null}"#, "spec.ID: Required value"),
    (r#"{"cloudCredentialsRef": null}"#, "spec.cloudCredentialsRef: Required value"),
    (r#"{"cloudCredentialsRef": "otc"}"#, r#"spec.cloudCredentialsRef: Invalid value: "string": spec.cloudCredentialsRef in body must be of type object: "string""#),
    (r#"{"cloudCredentialsRef": {"cloudName": "otc"}}"#, "spec.cloudCredentialsRef.secretName: Required value"),
    (r#"{"cloudCredentialsRef": {"secretName": "otc"}}"#, "spec.cloudCredentialsRef.cloudName: Required value"),
    (r#"{"cloudCredentialsRef": {"secretName": "team-b/otc", "cloudName": "otc"}}"#, r#"spec.cloudCredentialsRef.secretName: Invalid value: "team-b/otc": spec.cloudCredentialsRef.secretName in body should match '^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$'"#),
    (r#"{"cloudCredentialsRef": {"secretName": "otc", "cloudName": "my cloud"}}"#, r#"spec.cloudCredentialsRef.cloudName: Invalid value: "my cloud": spec.cloudCredentialsRef.cloudName in body should match '^[A-Za-z0-9_.-]+$'"#),
    (r#"{"pollPeriodSeconds": 4}"#, "spec.pollPeriodSeconds: Invalid value: 4: spec.pollPeriodSeconds in body should be greater than or equal to 5"),
    (r#"{"pollPeriodSeconds": 86401}"#, "spec.pollPeriodSeconds: Invalid value: 86401: spec.pollPeriodSeconds in body should be less than or equal to 86400"),
    (r#"{"pollPeriodSeconds": "30s"}"#, r#"spec.pollPeriodSeconds: Invalid value: "string": spec.pollPeriodSeconds in body must be of type integer: "string""#),
    (r#"{"deadlineSeconds": 0}"#, "spec.deadlineSeconds: Invalid value: 0: spec.deadlineSeconds in body should be greater than or equal to 1"),
    (r#"{"deadlineSeconds": -7200}"#, "spec.deadlineSeconds: Invalid value: -7200: spec.deadlineSeconds in body should be greater than or equal to 1"),
    (r#"{"deadlineSeconds": 31536001}"#, "spec.deadlineSeconds: Invalid value: 31536001: spec.deadlineSeconds in body should be less than or equal to 31536000"),
    (r#"{"deadlineSeconds": "2h"}"#, r#"spec.deadlineSeconds: Invalid value: "string": spec.deadlineSeconds in body must be of type integer: "string""#),
    (r#"{"ttlSecondsAfterFinished": -1}"#, "spec.ttlSecondsAfterFinished: Invalid value: -1: spec.ttlSecondsAfterFinished in body should be greater than or equal to 0"),
    (r#"{"ttlSecondsAfterFinished": 31536001}"#, "spec.ttlSecondsAfterFinished: Invalid value: 31536001: spec.ttlSecondsAfterFinished in body should be less than or equal to 31536000"),
    (r#"{"ttlSecondsAfterFinished": "1d"}"#, r#"spec.ttlSecondsAfterFinished: Invalid value: "string": spec.ttlSecondsAfterFinished in body must be of type integer: "string""#),
    (r#"{"suspend": "yes"}"#, r#"spec.suspend: Invalid value: "string": spec.suspend in body must be of type boolean: "string""#),
];

/// The errors of kubectl about each of several objects, by name. One line each.
fn errors_of_each(team: &Team, objects: &[Value]) -> BTreeMap<String, String> {
    // Documents, not a List: kubectl validates lists itself, with other messages.
    let documents: Vec<_> = objects.iter().map(Value::to_string).collect();
    let stderr = team
        .kubectl(&["apply", "--dry-run=server", "-f", "-"])
        .stdin(documents.join("\n---\n"))
        .failure()
        .expect("kubectl runs");
    // Some rejections add this, which is not about the object.
    let addition = ", <nil>: Invalid value: null: some validation rules were not checked because the \
                 object was invalid; correct the existing errors to complete validation]";
    let errors = stderr.lines().filter_map(|line| {
        let (_, rest) = line.split_once("ImageExportJob.imageexport.dev \"")?;
        let (name, error) = rest.split_once("\" is invalid: ")?;
        let error = match error.strip_suffix(addition) {
            Some(error) => error.strip_prefix('[')?,
            None => error,
        };
        Some((name.to_owned(), error.to_owned()))
    });
    errors.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_manifest_is_rejected_with_the_field_named() {
    let team = Team::without_operator("rejections").await;
    let mut objects = Vec::new();
    let mut expected = BTreeMap::new();
    for (changes, error) in INVALID {
        let ids: &[&str] = if changes.contains("\"ID\"") {
            &["projectID", "jobID"]
        } else {
            &[""]
        };
        for id in ids {
            let name = format!("invalid-{}", objects.len());
            let [changes, error] = [changes, error].map(|text| text.replace("ID", id));
            let changes = serde_json::from_str(&changes).expect("JSON");
            objects.push(manifest(&name, &changes));
            expected.insert(name, error);
        }
    }
    let mut nothing = manifest("nothing", &json!({}));
    nothing.as_object_mut().expect("an object").remove("spec");
    objects.push(nothing);
    expected.insert("nothing".to_owned(), "spec: Required value".to_owned());
    assert_eq!(errors_of_each(&team, &objects), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_errors_are_reported_at_once() {
    let team = Team::without_operator("several").await;
    let changes = json!({ "jobID": "a/b", "deadlineSeconds": 0, "suspend": "yes" });
    let stderr = team
        .kubectl(&["apply", "--dry-run=server", "-f", "-"])
        .stdin(manifest("several", &changes).to_string())
        .failure()
        .expect("kubectl runs");
    for field in ["jobID", "deadlineSeconds", "suspend"] {
        let line = format!("\n* spec.{field}: Invalid value: ");
        assert!(stderr.contains(&line), "{field} in {stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_cannot_be_exchanged_for_another() {
    let team = Team::without_operator("exchange").await;
    let apply = |changes: &Value| {
        let manifest = manifest("job", changes).to_string();
        team.kubectl(&["apply", "-f", "-"]).stdin(manifest)
    };
    apply(&json!({})).success().expect("it is accepted");
    for id in ["projectID", "jobID"] {
        let stderr = apply(&json!({ id: "another" })).failure().expect("it runs");
        assert_eq!(
            stderr,
            format!(
                "The ImageExportJob \"job\" is invalid: spec.{id}: Invalid value: \"another\": {id} is \
                 immutable: create an ImageExportJob of another name\n"
            )
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_else_may_be_changed_up_to_its_limits() {
    let team = Team::without_operator("changes").await;
    let longest = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";
    let ids = json!({ "projectID": longest, "jobID": longest });
    for change in [
        json!({}),
        json!({ "suspend": true }),
        json!({ "pollPeriodSeconds": 5 }),
        json!({ "pollPeriodSeconds": 86_400 }),
        json!({ "pollPeriodSeconds": null }),
        json!({ "deadlineSeconds": 1 }),
        json!({ "deadlineSeconds": 31_536_000 }),
        json!({ "ttlSecondsAfterFinished": 0 }),
        json!({ "ttlSecondsAfterFinished": 31_536_000 }),
        json!({ "cloudCredentialsRef": { "secretName": "other.otc-2", "cloudName": "other.cloud_2" } }),
    ] {
        let mut object = manifest("longest", &ids);
        let spec = object["spec"].as_object_mut().expect("an object");
        spec.extend(change.as_object().expect("an object").clone());
        let output = team
            .kubectl(&["apply", "-f", "-"])
            .stdin(object.to_string())
            .run()
            .expect("kubectl runs");
        assert!(output.status.success(), "{change}: {}", output.stderr);
        assert_eq!(output.stderr, "", "{change}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_field_is_rejected_or_warned_about() {
    let team = Team::without_operator("misspelt").await;
    let misspelt = manifest("misspelt", &json!({ "deadlineSecond": 7200 })).to_string();
    let apply = |validate| {
        team.kubectl(&["apply", "--dry-run=server", validate, "-f", "-"])
            .stdin(misspelt.clone())
            .run()
            .expect("kubectl runs")
    };
    let strict = apply("--validate=strict");
    assert!(!strict.status.success());
    assert!(
        strict
            .stderr
            .ends_with("strict decoding error: unknown field \"spec.deadlineSecond\"\n"),
        "{}",
        strict.stderr
    );
    let warned = apply("--validate=warn");
    assert!(warned.status.success());
    assert_eq!(
        warned.stderr,
        "Warning: unknown field \"spec.deadlineSecond\"\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_in_a_manifest_is_dropped_without_a_warning() {
    let team = Team::without_operator("no-status").await;
    let mut object = manifest("job", &json!({}));
    object["status"] = json!({ "status": "SUCCESS", "imageID": "mine", "observedGeneration": 1 });
    for image in ["mine", "mine-too"] {
        object["status"]["imageID"] = json!(image);
        let output = team
            .kubectl(&["apply", "-f", "-"])
            .stdin(object.to_string())
            .run()
            .expect("kubectl runs");
        assert!(output.status.success(), "{}", output.stderr);
        assert_eq!(output.stderr, "");
        let stored = team
            .kubectl(&["get", "iej", "job"])
            .json()
            .expect("it is there");
        assert_eq!(stored["status"], json!({ "observedGeneration": -1 }));
    }
}

/// Invalid statuses, and the error for each.
fn invalid_statuses() -> Vec<(Value, &'static str)> {
    let condition = |change: Value| {
        let mut condition = json!({
            "type": "Ready", "status": "True", "reason": "JobSucceeded", "message": "",
            "lastTransitionTime": "2024-11-06T06:49:53Z",
        });
        let fields = condition.as_object_mut().expect("an object");
        fields.extend(change.as_object().expect("an object").clone());
        fields.retain(|_, value| !value.is_null());
        condition
    };
    let one = |change| json!({ "conditions": [condition(change)] });
    let many = (0..65).map(|number| condition(json!({ "type": format!("Type{number}") })));
    let many: Vec<_> = many.collect();
    let twice = [json!({}), json!({ "status": "False" })].map(condition);
    vec![
        (
            json!({"status": "x".repeat(65)}),
            "status.status: Too long: may not be more than 64 bytes",
        ),
        (
            json!({"imageID": "x".repeat(65)}),
            "status.imageID: Too long: may not be more than 64 bytes",
        ),
        (
            json!({"jobType": "x".repeat(129)}),
            "status.jobType: Too long: may not be more than 128 bytes",
        ),
        (
            json!({"failReason": "x".repeat(1025)}),
            "status.failReason: Too long: may not be more than 1024 bytes",
        ),
        (
            json!({"errorCode": "x".repeat(65)}),
            "status.errorCode: Too long: may not be more than 64 bytes",
        ),
        (
            json!({"lastHandledPollRequest": "x".repeat(65)}),
            "status.lastHandledPollRequest: Too long: may not be more than 64 bytes",
        ),
        (
            json!({"progressPercent": 101}),
            "status.progressPercent: Invalid value: 101: progressPercent in body should be less than or equal to 100",
        ),
        (
            json!({"progressPercent": -10}),
            "status.progressPercent: Invalid value: -10: progressPercent in body should be greater than or equal to 0",
        ),
        (
            json!({"observedGeneration": -2}),
            "status.observedGeneration: Invalid value: -2: observedGeneration in body should be greater than or equal to -1",
        ),
        (
            json!({"startTime": "2024-01-01T00:00:00+99:99"}),
            r#"status.startTime: Invalid value: "2024-01-01T00:00:00+99:99": startTime in body should match '^[0-8][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$'"#,
        ),
        (
            json!({"completionTime": "2024-02-30T00:00:00Z"}),
            r#"status.completionTime: Invalid value: "2024-02-30T00:00:00Z": completionTime in body must be of type date-time: "2024-02-30T00:00:00Z""#,
        ),
        (
            one(json!({"reason": null})),
            "status.conditions[0].reason: Required value",
        ),
        (
            one(json!({"reason": ""})),
            r#"status.conditions[0].reason: Invalid value: "": conditions[0].reason in body should be at least 1 chars long"#,
        ),
        (
            one(json!({"status": "Perhaps"})),
            r#"status.conditions[0].status: Unsupported value: "Perhaps": supported values: "True", "False", "Unknown""#,
        ),
        (
            one(json!({"message": "x".repeat(32_769)})),
            "status.conditions[0].message: Too long: may not be more than 32768 bytes",
        ),
        (
            one(json!({"observedGeneration": -1})),
            "status.conditions[0].observedGeneration: Invalid value: -1: conditions[0].observedGeneration in body should be greater than or equal to 0",
        ),
        (
            json!({"conditions": many}),
            "status.conditions: Too many: 65: must have at most 64 items",
        ),
        (
            json!({"conditions": twice}),
            r#"status.conditions[1]: Duplicate value: {"type":"Ready"}"#,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_beyond_its_limits_is_rejected_and_one_at_them_accepted() {
    let team = Team::without_operator("limits").await;
    team.create("job").await;
    let patch = |status: &Value| {
        let patch = json!({ "status": status }).to_string();
        let arguments = [
            "patch",
            "iej",
            "job",
            "--subresource=status",
            "--type=merge",
        ];
        let kubectl = team.kubectl(&arguments).args(["--patch", &patch]);
        kubectl.run().expect("kubectl runs")
    };
    for (status, error) in invalid_statuses() {
        let output = patch(&status);
        let stderr = output.stderr.replace("is invalid: \n* ", "is invalid: ");
        assert!(
            stderr.starts_with(&format!("The ImageExportJob \"job\" is invalid: {error}\n")),
            "{stderr}, not {error}"
        );
    }
    let stored = team
        .kubectl(&["get", "iej", "job"])
        .json()
        .expect("it is there");
    assert_eq!(stored["status"], json!({ "observedGeneration": -1 }));

    // Lengths are counted in characters, whatever the message calls them.
    let longest = json!({
        "status": "ä".repeat(64), "jobType": "ä".repeat(128), "imageID": "ä".repeat(64),
        "failReason": "ä".repeat(1024), "errorCode": "ä".repeat(64), "progressPercent": 100,
        "lastHandledPollRequest": "ä".repeat(64), "startTime": "8999-12-31T23:59:59Z",
    });
    let output = patch(&longest);
    assert!(output.status.success(), "{}", output.stderr);
    let stored = team
        .kubectl(&["get", "iej", "job"])
        .json()
        .expect("it is there");
    assert_eq!(text(&stored["status"]["failReason"]).chars().count(), 1024);
}
