//! Attacks on the memory by what a tenant stores on the API server.

use crate::{
    harness::cluster,
    tenant::{many, put_secret, secret, with_token},
    trial::Trial,
};
use serde_json::{Value, json};
use std::fmt::Write as _;
use testbed::ims::{End, Job};

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_900_kb_that_70_objects_name_costs_no_memory_and_says_why_it_is_not_used() {
    const ENTRIES: usize = 70;
    let mut trial = Trial::begin("anchors").await;
    let quiet = trial.window("quiet").await;
    let (url, long) = (trial.neighbours.cloud.url(), "x".repeat(900_000));
    let mut clouds = format!(
        "clouds:\n  c0: &entry {{ak: HOSTILE, sk: '{long}', image_endpoint_override: '{url}'}}\n"
    );
    for n in 1..ENTRIES {
        writeln!(clouds, "  c{n}: *entry").expect("text");
    }
    trial.tenant.put_clouds("otc", clouds).await;
    let entry = |n| json!({ "secretName": "otc", "cloudName": format!("c{n}") });
    let object = |n| {
        let spec = json!({ "cloudCredentialsRef": entry(n) });
        trial.tenant.object(&format!("entry-{n}"), spec)
    };
    trial.tenant.create_many(ENTRIES, object).await;

    let attacked = trial.window("attack").await;
    trial
        .tenant_is_told("CredentialsInvalid", "at most 65536 are read")
        .await;
    let again = trial.window_after_restart().await;
    trial.end(&quiet, &[&attacked, &again]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_300_objects_with_255_kb_of_annotations_each_fits_into_the_memory_at_every_start()
{
    let mut trial = Trial::begin("annotations").await;
    let quiet = trial.window("quiet").await;
    let long: Value = "x".repeat(255_000).into();
    let object = |n| {
        let spec = json!({ "suspend": true });
        let mut object = trial.tenant.object(&format!("long-{n}"), spec);
        let annotations = json!({ "example.com/long": long });
        object.metadata.annotations = serde_json::from_value(annotations).expect("annotations");
        object
    };
    trial.tenant.create_many(300, object).await;
    // While the API server takes in 76 MB, whoever watches it sees new objects late: that is its share of the harm.
    println!("{}", trial.window("created").await);

    let attacked = trial.window("attack").await;
    let again = trial.window_after_restart().await;
    trial.end(&quiet, &[&attacked, &again]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn seven_hundred_certificate_bundles_of_their_own_fit_into_the_memory() {
    const BUNDLES: usize = 700;
    let trial = Trial::begin("bundles").await;
    let quiet = trial.window("quiet").await;
    let kubeconfig = std::fs::read_to_string(cluster().admin_kubeconfig()).expect("a kubeconfig");
    let kubeconfig: Value = serde_json::from_str(&kubeconfig).expect("JSON");
    let file = &kubeconfig["clusters"][0]["cluster"]["certificate-authority"];
    let pem = std::fs::read_to_string(file.as_str().expect("a file")).expect("a certificate");
    let (url, tenant) = (trial.neighbours.cloud.url(), &trial.tenant);
    let clouds = with_token(&url, &tenant.token, "");
    many(BUNDLES, async |n| {
        let data = [
            ("clouds.yaml", clouds.clone()),
            // Different texts, as comments are no part of a certificate.
            ("cacert", format!("# {n}\n{pem}")),
        ];
        put_secret(&tenant.secrets, &format!("bundle-{n}"), &data).await;
    })
    .await;
    let object = |n| {
        let name = format!("bundle-{n}");
        let job = Job::new(&tenant.project, name.as_str()).ends(End::Never);
        trial.neighbours.cloud.put_job(job);
        tenant.object(&name, secret(&name))
    };
    tenant.create_many(BUNDLES, object).await;

    let attacked = trial.window("attack").await;
    trial.end(&quiet, &[&attacked]).await;
}
