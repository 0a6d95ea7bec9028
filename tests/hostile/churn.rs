//! Attacks by changes without an end, and by objects that look alike.

use crate::{
    tenant::{secret, with_token},
    trial::{SCALE, Trial, until},
};
use image_export_api::POLL_REQUEST_ANNOTATION;
use kube::api::DeleteParams;
use serde_json::json;
use testbed::ims::{End, Job};

#[tokio::test(flavor = "multi_thread")]
async fn one_job_in_five_hundred_objects_takes_no_polls_of_others() {
    let trial = Trial::begin("one-job").await;
    let quiet = trial.window("quiet").await;
    let job = Job::new(&trial.tenant.project, "one").ends(End::Never);
    trial.neighbours.cloud.put_job(job);
    let object = |n| {
        let spec = json!({ "jobID": "one" });
        trial.tenant.object(&format!("job-{n}"), spec)
    };
    trial.tenant.create_many(500, object).await;

    let attacked = trial.window("attack").await;
    trial.end(&quiet, &[&attacked]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_four_hundred_projects_that_changes_all_the_time_delays_nobody() {
    let mut trial = Trial::begin("rotated").await;
    let quiet = trial.window("quiet").await;
    let (cloud, tenant) = (&trial.neighbours.cloud, trial.tenant.clone());
    cloud.add_token("token-of-all-projects", None);
    let object = |n| {
        let (project, name) = (format!("rotated-{n}"), format!("job-{n}"));
        cloud.put_job(Job::new(&project, name.as_str()).ends(End::Never));
        let mut spec = secret("rotated");
        spec["projectID"] = json!(project);
        tenant.object(&name, spec)
    };
    tenant.create_many(400, object).await;
    let url = cloud.url();
    let rotations = trial.keep(1, move |n| {
        // Every second content is rejected, so the Secret is read again soon.
        let token = ["token-of-all-projects", "unknown"][usize::from(n % 2 == 1)];
        let clouds = with_token(&url, token, "");
        let tenant = tenant.clone();
        async move {
            tenant.put_clouds("rotated", clouds).await;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    });
    until(&rotations, 10).await;

    let attacked = trial.window("attack").await;
    trial.end(&quiet, &[&attacked]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_objects_that_are_suspended_and_resumed_all_the_time_delay_nobody() {
    let mut trial = Trial::begin("suspended").await;
    let quiet = trial.window("quiet").await;
    let tenant = trial.tenant.clone();
    let object = |n| {
        let name = format!("job-{n}");
        let job = Job::new(&tenant.project, name.as_str()).ends(End::Never);
        trial.neighbours.cloud.put_job(job);
        tenant.object(&name, json!({}))
    };
    tenant.create_many(100, object).await;
    let toggles = trial.keep(8, move |n| {
        let tenant = tenant.clone();
        async move {
            let patch = json!({ "spec": { "suspend": (n / 100).is_multiple_of(2) } });
            tenant.try_patch(&format!("job-{}", n % 100), patch).await;
        }
    });
    until(&toggles, 500).await;

    let attacked = trial.window("attack").await;
    trial.end(&quiet, &[&attacked]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_created_and_deleted_in_a_loop_delay_nobody() {
    let mut trial = Trial::begin("recreated").await;
    let quiet = trial.window("quiet").await;
    let done = Job::new(&trial.tenant.project, "done");
    trial.neighbours.cloud.put_job(done);
    let tenant = trial.tenant.clone();
    // The operator deletes every second one, the tenant the others.
    let lives = trial.keep(8, move |n| {
        let tenant = tenant.clone();
        async move {
            let spec = json!({ "jobID": "done", "ttlSecondsAfterFinished": 0 });
            let name = format!("object-{n}");
            let object = tenant.object(&name, spec);
            tenant.create(&object).await;
            if n.is_multiple_of(2) {
                // The operator may have come first.
                let _ = tenant.jobs.delete(&name, &DeleteParams::default()).await;
            }
        }
    });
    until(&lives, 300).await;

    let attacked = trial.window("attack").await;
    trial.end(&quiet, &[&attacked]).await;
}

/// The quota is two polls a second, which the neighbour's jobs use half of.
#[tokio::test(flavor = "multi_thread")]
async fn objects_for_the_jobs_of_a_neighbour_without_its_rights_take_no_polls_of_it() {
    let arguments = ["--polls-per-second", "2"];
    let mut trial = Trial::begin_with("forbidden", SCALE, &arguments).await;
    let quiet = trial.window("quiet").await;
    let (project, tenant) = (
        trial.neighbours.all[0].project.clone(),
        trial.tenant.clone(),
    );
    let object = |n| {
        let spec = json!({ "projectID": project, "jobID": format!("steady-{}", n % 4) });
        tenant.object(&format!("job-{n}"), spec)
    };
    tenant.create_many(100, object).await;
    let requests = trial.keep(8, move |n| {
        let tenant = tenant.clone();
        async move {
            let annotations = json!({ POLL_REQUEST_ANNOTATION: n.to_string() });
            let patch = json!({ "metadata": { "annotations": annotations } });
            tenant.try_patch(&format!("job-{}", n % 100), patch).await;
        }
    });
    until(&requests, 200).await;

    let attacked = trial.window("attack").await;
    trial.end(&quiet, &[&attacked]).await;
}
