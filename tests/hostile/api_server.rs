//! Attacks on the queues of calls to the API server: status writes, reads of Secrets, Events.

use crate::{
    harness::cluster,
    hosts::Host,
    tenant::secret,
    trial::{Trial, until},
};
use image_export_api::POLL_REQUEST_ANNOTATION;
use serde_json::json;
use testbed::ims::{End, Job};

/// An admission webhook that does not answer, for the statuses of one namespace.
fn hang_status_writes(namespace: &str, host: &Host) {
    let webhook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": { "name": namespace },
        "webhooks": [{
            "name": "hangs.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "timeoutSeconds": 10, "failurePolicy": "Fail",
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } },
            "rules": [{
                "apiGroups": ["imageexport.dev"], "apiVersions": ["*"], "operations": ["UPDATE"],
                "resources": ["imageexportjobs/status"],
            }],
            "clientConfig": { "url": format!("https://127.0.0.1:{}/", host.port) },
        }],
    });
    cluster()
        .kubectl(["apply", "--server-side", "-f", "-"])
        .stdin(webhook.to_string())
        .success()
        .expect("a webhook");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_writes_that_hang_in_one_namespace_delay_none_of_others() {
    let mut trial = Trial::begin("hanging").await;
    let quiet = trial.window("quiet").await;
    let host = Host::silent().await;
    hang_status_writes(&trial.tenant.namespace, &host);
    let object = |n| {
        let name = format!("job-{n}");
        let job = Job::new(&trial.tenant.project, name.as_str()).ends(End::Never);
        trial.neighbours.cloud.put_job(job);
        trial.tenant.object(&name, json!({}))
    };
    trial.tenant.create_many(200, object).await;
    host.reached(1).await;

    let attacked = trial.window("attack").await;
    let again = trial.window_after_restart().await;
    trial.end(&quiet, &[&attacked, &again]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifteen_hundred_objects_that_name_missing_secrets_delay_no_read_of_others() {
    let trial = Trial::begin("missing").await;
    let quiet = trial.window("quiet").await;
    let object = |n| {
        let name = format!("missing-{n}");
        trial.tenant.object(&name, secret(&name))
    };
    trial.tenant.create_many(1500, object).await;

    let attacked = trial.window("attack").await;
    trial.end(&quiet, &[&attacked]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_toggled_until_events_are_dropped_cost_no_event_of_others() {
    const OBJECTS: u64 = 8;
    let mut trial = Trial::begin("events").await;
    let quiet = trial.window("quiet").await;
    let tenant = trial.tenant.clone();
    let object = |n| tenant.object(&format!("job-{n}"), json!({ "suspend": true }));
    tenant.create_many(8, object).await;
    // A value that is too long causes an Event each time that it comes anew.
    let toggles = trial.keep(8, move |n| {
        let tenant = tenant.clone();
        async move {
            let value = (n / OBJECTS).is_multiple_of(2).then(|| "x".repeat(100));
            let annotations = json!({ POLL_REQUEST_ANNOTATION: value });
            let patch = json!({ "metadata": { "annotations": annotations } });
            tenant
                .try_patch(&format!("job-{}", n % OBJECTS), patch)
                .await;
        }
    });
    until(&toggles, 2500).await;

    let attacked = trial.window("attack").await;
    trial.end(&quiet, &[&attacked]).await;
}
