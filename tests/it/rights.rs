//! The rights that `deploy/` gives: each of the operator's is needed, and the role for people is enough.

use crate::{
    harness::{Operator, PROJECT, Team, cluster, eventually},
    leadership::elected_in,
    manifests::apply,
    network::api_server,
    repository::{leader_election_rules, rules},
};
use image_export_api::{POLL_REQUEST_ANNOTATION, conditions::reasons};
use kube::{
    api::{Patch, PatchParams, PostParams},
    core::ObjectMeta,
};
use serde_json::{Value, json};
use testbed::ims::{End, Job};

const NAME: &str = "image-export-operator";

/// What shows that one of the rights is missing.
enum Sign {
    Metric(&'static str),
    Reason(&'static str),
    Log(&'static str),
}

/// A namespace with an operator that lacks one verb of one rule, of those in the namespaces that it serves and, after
/// them, those on its Lease.
async fn team_without(rule: usize, verb: &str) -> Team {
    let mut team = Team::without_operator(&format!("lacks-{rule}-{verb}")).await;
    let mut rules: Vec<Value> = [rules(), leader_election_rules()]
        .iter()
        .flat_map(|rules| rules.as_array().expect("rules").clone())
        .collect();
    let verbs = rules[rule]["verbs"].as_array_mut().expect("verbs");
    let before = verbs.len();
    verbs.retain(|other| other != verb);
    assert_eq!(verbs.len(), before - 1, "{verb}");
    if verbs.is_empty() {
        rules.remove(rule);
    }
    let metadata = json!({ "name": NAME, "namespace": team.namespace });
    let api = "rbac.authorization.k8s.io";
    let output = apply(
        cluster(),
        &[],
        &[
            json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata }),
            json!({
                "apiVersion": format!("{api}/v1"), "kind": "Role",
                "metadata": metadata, "rules": rules,
            }),
            json!({
                "apiVersion": format!("{api}/v1"), "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": { "apiGroup": api, "kind": "Role", "name": NAME },
                "subjects": [{
                    "kind": "ServiceAccount", "name": NAME, "namespace": team.namespace,
                }],
            }),
        ],
    );
    assert!(output.status.success(), "{}", output.stderr);
    let kubeconfig = cluster()
        .kubeconfig_for_service_account(&team.namespace, NAME)
        .expect("a token");
    let arguments = elected_in(&team.namespace);
    team.operator = Some(Operator::start_with(&kubeconfig, &arguments));
    team
}

/// One right is taken away at a time; `get` of objects and `patch` of their statuses are below.
#[tokio::test(flavor = "multi_thread")]
async fn without_one_of_its_rights_something_fails() {
    use Sign::{Log, Metric, Reason};
    const FORBIDDEN: &str = r#"imageexport_watch_errors_total{kind="forbidden"}"#;
    const NO_LEASE: &str = "the operator may not read and write it: apply the Role in deploy/";
    for (rule, verb, sign) in [
        (0_usize, "list", Metric(FORBIDDEN)),
        (0, "watch", Metric(FORBIDDEN)),
        (
            0,
            "delete",
            Metric(r#"imageexport_deletions_total{result="refused"}"#),
        ),
        (
            1,
            "update",
            Metric(r#"imageexport_status_writes_total{result="refused"}"#),
        ),
        (
            2,
            "create",
            Metric(r#"imageexport_events_total{result="failed"}"#),
        ),
        (3, "get", Reason(reasons::CREDENTIALS_NOT_FOUND)),
        (4, "create", Log(NO_LEASE)),
        (5, "get", Log(NO_LEASE)),
        (5, "update", Log(NO_LEASE)),
    ] {
        let team = team_without(rule, verb).await;
        team.sim.put_job(Job::new(PROJECT, "x"));
        team.create_with("x", json!({ "ttlSecondsAfterFinished": 0 }))
            .await;
        match sign {
            Metric(series) => {
                team.operator().until_metric(series, 1.0).await;
            }
            Reason(reason) => {
                team.until_reason("x", reason).await;
            }
            Log(text) => {
                let logged = || team.operator().log().contains(text).then_some(());
                eventually(text, logged).await;
            }
        }
    }
}

/// The status of an object that others change all the time is patched after three conflicts.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_patch_a_status_that_of_a_changing_object_is_not_written() {
    let team = team_without(1, "patch").await;
    team.sim.put_job(Job::new(PROJECT, "x").ends(End::Never));
    team.create("x").await;
    let jobs = team.jobs.clone();
    let changes = tokio::spawn(async move {
        for number in 0_u64.. {
            // Each is to be acknowledged in the status.
            let annotations = json!({ POLL_REQUEST_ANNOTATION: number.to_string() });
            let change = Patch::Merge(json!({ "metadata": { "annotations": annotations } }));
            let _ = jobs.patch("x", &PatchParams::default(), &change).await;
        }
    });
    let forbidden = format!(
        r#"rest_client_requests_total{{code="403",method="PATCH",host="{}"}}"#,
        api_server()
    );
    team.operator().until_metric(&forbidden, 1.0).await;
    changes.abort();
}

/// An object that others change all the time is read after three conflicts of its deletion.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_read_an_object_its_deletion_is_not_settled() {
    let team = team_without(0, "get").await;
    team.sim.put_job(Job::new(PROJECT, "x"));
    let spec = json!({ "ttlSecondsAfterFinished": 0 });
    let mut object = team.create_with("x", spec).await;
    object.metadata = ObjectMeta {
        name: Some("x".to_owned()),
        ..ObjectMeta::default()
    };
    let jobs = team.jobs.clone();
    let changes = tokio::spawn(async move {
        for number in 0_u64.. {
            let annotations = json!({ "number": number.to_string() });
            let change = Patch::Merge(json!({ "metadata": { "annotations": annotations } }));
            let changed = jobs.patch("x", &PatchParams::default(), &change).await;
            if changed.is_err() {
                // It was deleted before the third conflict.
                let _ = jobs.create(&PostParams::default(), &object).await;
            }
        }
    });
    let forbidden = format!(
        r#"rest_client_requests_total{{code="403",method="GET",host="{}"}}"#,
        api_server()
    );
    team.operator().until_metric(&forbidden, 1.0).await;
    changes.abort();
}

/// As a `GitOps` tool does that acts under a `ServiceAccount` of the namespace.
#[tokio::test(flavor = "multi_thread")]
async fn the_edit_role_alone_is_enough_to_use_the_objects() {
    let team = Team::start("edit-role").await;
    for arguments in [
        &["create", "serviceaccount", "tool"][..],
        &[
            "create",
            "rolebinding",
            "tool",
            "--clusterrole=image-export-operator-edit",
            &format!("--serviceaccount={}:tool", team.namespace),
        ],
    ] {
        team.kubectl(arguments).success().expect("created");
    }
    let kubeconfig = cluster()
        .kubeconfig_for_service_account(&team.namespace, "tool")
        .expect("a token");
    let act = |arguments: &[&str]| team.kubectl(arguments).kubeconfig(&kubeconfig);
    let object = |name: &str| {
        json!({
            "apiVersion": "imageexport.dev/v1alpha1", "kind": "ImageExportJob",
            "metadata": { "name": name },
            "spec": {
                "projectID": PROJECT, "jobID": name,
                "cloudCredentialsRef": { "secretName": "otc", "cloudName": "otc" },
            },
        })
        .to_string()
    };
    for (name, how) in [
        ("client", "--server-side=false"),
        ("server", "--server-side"),
    ] {
        team.sim.put_job(Job::new(PROJECT, name));
        for _ in 0..2 {
            act(&["apply", how, "-f", "-"])
                .stdin(object(name))
                .success()
                .expect("applied");
        }
        let suspend = r#"{"spec":{"suspend":false}}"#;
        for arguments in [
            &["wait", "iej", name, "--for=condition=Ready", "--timeout=5m"][..],
            &["get", "iej", name, "-o", "jsonpath={.status.imageID}"],
            &["get", "iej", name, "--subresource=status"],
            &[
                "annotate",
                "iej",
                name,
                "imageexport.dev/poll-requested-at=now",
            ],
            &["patch", "iej", name, "--type=merge", "--patch", suspend],
        ] {
            act(arguments).success().expect("allowed");
        }
        let status = r#"{"status":{"status":"FAIL"}}"#;
        act(&[
            "patch",
            "iej",
            name,
            "--subresource=status",
            "--type=merge",
            "--patch",
            status,
        ])
        .failure()
        .expect("forbidden");
        act(&["delete", "iej", name]).success().expect("allowed");
    }
}
