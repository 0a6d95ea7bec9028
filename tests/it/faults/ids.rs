//! Texts that are not ids.

use crate::harness::{PROJECT, Team};
use image_export_model::{JobId, ProjectId};
use kube::api::PostParams;
use serde_json::{Value, json};

/// Texts that would change the path of a URL.
fn not_ids() -> Vec<String> {
    let mut texts: Vec<String> = [
        "",
        ".",
        "..",
        "../",
        "../../v3/auth/tokens",
        "a/b",
        "%2f",
        "a%2fb",
        "?",
        "a?b=c",
        "#",
        "a#b",
        "a\nb",
        "a\r\nX-Auth-Token: b",
        "a\0b",
        "a b",
        " a",
        "a;b",
        "a\\b",
        "ä",
        "a\u{202e}b",
    ]
    .map(str::to_owned)
    .into();
    texts.push("x".repeat(65));
    texts.push("x".repeat(1024 * 1024));
    texts
}

#[tokio::test(flavor = "multi_thread")]
async fn the_crd_and_the_client_refuse_what_is_not_an_id() {
    let team = Team::without_operator("not-ids").await;
    for field in ["projectID", "jobID"] {
        for (at, id) in not_ids().into_iter().enumerate() {
            // The client takes these types, so an older CRD's objects shape no URL either.
            assert!(id.parse::<JobId>().is_err() && id.parse::<ProjectId>().is_err());
            let mut object = json!({
                "apiVersion": "imageexport.dev/v1alpha1", "kind": "ImageExportJob",
                "metadata": { "name": format!("object-{at}"), "namespace": team.namespace },
                "spec": {
                    "projectID": PROJECT, "jobID": "job",
                    "cloudCredentialsRef": { "secretName": "otc", "cloudName": "otc" },
                },
            });
            object["spec"][field] = Value::String(id);
            let request = kube::core::Request::new(team.jobs.resource_url())
                .create(&PostParams::default(), object.to_string().into_bytes())
                .expect("a request");
            let answer = team.client.request::<Value>(request).await;
            let Err(kube::Error::Api(status)) = answer else {
                panic!("{field} {at}: {answer:?}")
            };
            assert_eq!(
                (status.code, &*status.reason),
                (422, "Invalid"),
                "{field} {at}"
            );
            assert!(
                status.message.contains(&format!("spec.{field}")),
                "{field} {at}"
            );
        }
    }
}
