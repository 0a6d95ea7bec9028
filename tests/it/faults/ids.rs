//! Fault H4: ids that are none. The API server refuses them, and so does the client, should one come
//! from elsewhere.

use super::{Lab, refused};
use crate::harness::{PROJECT, Team};
use image_export_model::{ConfigurationReason, JobState};
use kube::api::PostParams;
use serde_json::{Value, json};
use testbed::ims::Answer;

/// Texts that would lead a URL astray.
fn no_ids() -> Vec<String> {
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
async fn h4_the_crd_refuses_ids_that_are_none() {
    let team = Team::without_operator("h4").await;
    for field in ["projectID", "jobID"] {
        for (at, id) in no_ids().into_iter().enumerate() {
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

#[tokio::test]
async fn h4_an_id_that_is_none_reaches_no_url_even_where_an_older_crd_let_it_through() {
    let lab = Lab::new().await;
    for me in [lab.given_token(), lab.password()] {
        for id in no_ids() {
            for (field, project, job) in [
                ("spec.jobID", PROJECT, id.as_str()),
                ("spec.projectID", &id, "job"),
            ] {
                let seen = lab.client.query(&me, project, job).await;
                let message = format!("{field} is not an id of this cloud");
                let expected = refused(ConfigurationReason::RequestRejected, message);
                assert_eq!((seen.outcome, seen.requests), (expected, 0));
            }
        }
    }
    assert!(lab.sim.requests().is_empty());
    let asked = lab.answered("job", Answer::preset("running")).await;
    assert_eq!(asked.answer().state, JobState::Running);
}
