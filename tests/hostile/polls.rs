//! Attacks on the queue of polls, its slots and the quota of a project.

use crate::{
    hosts::Host,
    tenant::{secret, with_login, with_token},
    trial::{SCALE, Trial, until},
};
use image_export_api::POLL_REQUEST_ANNOTATION;
use serde_json::{Value, json};
use testbed::ims::{Answer, End, Job, JobKey};

/// A patch that requests a poll.
fn poll_request(n: u64) -> Value {
    json!({ "metadata": { "annotations": { POLL_REQUEST_ANNOTATION: n.to_string() } } })
}

/// Requests polls of these objects of the tenant all the time, and returns once that has begun.
async fn request_polls(trial: &mut Trial, tasks: usize, objects: u64) {
    let tenant = trial.tenant.clone();
    let requests = trial.keep(tasks, move |n| {
        let tenant = tenant.clone();
        async move {
            let name = format!("job-{}", n % objects);
            tenant.try_patch(&name, poll_request(n)).await;
        }
    });
    until(&requests, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_swallows_the_polls_of_600_objects_holds_no_slot_of_others() {
    let mut trial = Trial::begin("swallowed").await;
    let quiet = trial.window("quiet").await;
    let host = Host::silent().await;
    let clouds = with_token(&host.url(), &trial.tenant.token, "");
    trial.tenant.put_clouds("otc", clouds).await;
    let object = |n| {
        let spec = json!({ "projectID": format!("made-up-{n}") });
        trial.tenant.object(&format!("job-{n}"), spec)
    };
    trial.tenant.create_many(600, object).await;
    host.reached(8).await;

    let attacked = trial.window("attack").await;
    let again = trial.window_after_restart().await;
    trial.end(&quiet, &[&attacked, &again]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_hundred_objects_that_wait_for_one_login_hold_no_slot_of_others() {
    let trial = Trial::begin("one-login").await;
    let quiet = trial.window("quiet").await;
    let host = Host::silent().await;
    // A project by its name: which one that is shows after the login alone, so all wait for it.
    let fields =
        "username: u, password: p, user_domain_name: d, project_name: p, project_domain_name: d";
    let auth_url = format!("{}/v3", host.url());
    let clouds = with_login(&auth_url, &trial.neighbours.cloud.url(), fields);
    trial.tenant.put_clouds("otc", clouds).await;
    let object = |n| {
        let spec = json!({ "projectID": format!("made-up-{n}") });
        trial.tenant.object(&format!("job-{n}"), spec)
    };
    trial.tenant.create_many(400, object).await;
    host.reached(1).await;

    let attacked = trial.window("attack").await;
    trial.end(&quiet, &[&attacked]).await;
}

/// The tenant's objects name the project of a neighbour, and jobs of the tenant's own, which a path without a project
/// finds. The quota is two polls a second, which the neighbour's jobs use half of.
async fn begin_with_a_path_without_a_project(name: &str) -> Trial {
    let trial = Trial::begin_with(name, SCALE, &["--polls-per-second", "2"]).await;
    let url = trial.neighbours.cloud.url();
    let clouds = with_token(&url, &trial.tenant.token, "image_job_path: cloudimages,");
    trial.tenant.put_clouds("otc", clouds).await;
    trial
}

async fn name_the_project_of_a_neighbour(trial: &Trial) {
    let project = &trial.neighbours.all[0].project;
    let object = |n| {
        let name = format!("job-{n}");
        let job = Job::new(&trial.tenant.project, name.as_str()).ends(End::Never);
        trial.neighbours.cloud.put_job(job);
        trial.tenant.object(&name, json!({ "projectID": project }))
    };
    trial.tenant.create_many(10, object).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_project_takes_no_quota_of_the_project_that_its_objects_name() {
    let mut trial = begin_with_a_path_without_a_project("stranger").await;
    let quiet = trial.window("quiet").await;
    name_the_project_of_a_neighbour(&trial).await;
    request_polls(&mut trial, 10, 10).await;

    let attacked = trial.window("attack").await;
    let again = trial.window_after_restart().await;
    trial.end(&quiet, &[&attacked, &again]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_throttling_of_a_stranger_pauses_no_polls_of_the_project_that_its_objects_name() {
    let trial = begin_with_a_path_without_a_project("throttled").await;
    let quiet = trial.window("quiet").await;
    let throttled = Answer::preset("throttled").header("Retry-After", "60");
    let cloud = &trial.neighbours.cloud;
    // The first answer is good, as that is what might let the stranger in.
    let key = JobKey::new(&trial.tenant.project, "job-0");
    cloud.script(key.clone(), [Answer::pass()]);
    cloud.script_forever(key.clone(), throttled);
    name_the_project_of_a_neighbour(&trial).await;
    cloud.polled(&key, 2).await;

    let attacked = trial.window("attack").await;
    trial.end(&quiet, &[&attacked]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_made_up_projects_at_the_neighbours_host_take_no_polls_of_theirs() {
    let trial = Trial::begin("made-up").await;
    let quiet = trial.window("quiet").await;
    let (cloud, tenant) = (&trial.neighbours.cloud, &trial.tenant);
    let token = "token-of-many-projects";
    cloud.add_token(token, None);
    let clouds = with_token(&cloud.url(), token, "");
    tenant.put_clouds("many", clouds).await;
    let object = |n| {
        let (project, name) = (format!("made-up-{n}"), format!("job-{n}"));
        cloud.put_job(Job::new(&project, name.as_str()).ends(End::Never));
        let mut spec = secret("many");
        spec["projectID"] = json!(project);
        tenant.object(&name, spec)
    };
    tenant.create_many(200, object).await;

    let attacked = trial.window("attack").await;
    trial.end(&quiet, &[&attacked]).await;
}

/// The tenant has a token for the project of the first neighbour too, so both share its quota.
async fn begin_in_a_shared_project(name: &str, polls_per_second: &str) -> Trial {
    let arguments = ["--polls-per-second", polls_per_second];
    let trial = Trial::begin_with(name, SCALE, &arguments).await;
    let (cloud, token) = (&trial.neighbours.cloud, "token-of-the-shared-project");
    cloud.add_token(token, Some(&trial.neighbours.all[0].project));
    let clouds = with_token(&cloud.url(), token, "");
    trial.tenant.put_clouds("otc", clouds).await;
    trial
}

async fn follow_jobs_of_the_shared_project(trial: &Trial, count: usize) {
    let project = &trial.neighbours.all[0].project;
    let object = |n| {
        let name = format!("job-{n}");
        let job = Job::new(project, name.as_str()).ends(End::Never);
        trial.neighbours.cloud.put_job(job);
        trial.tenant.object(&name, json!({ "projectID": project }))
    };
    trial.tenant.create_many(count, object).await;
}

/// The object's own pace lets it take half of the quota of two polls a second.
#[tokio::test(flavor = "multi_thread")]
async fn one_object_whose_annotation_changes_all_the_time_takes_no_polls_of_its_project() {
    let mut trial = begin_in_a_shared_project("annotated", "2").await;
    let quiet = trial.window("quiet").await;
    follow_jobs_of_the_shared_project(&trial, 1).await;
    request_polls(&mut trial, 4, 1).await;

    let attacked = trial.window("attack").await;
    trial.end(&quiet, &[&attacked]).await;
}

/// The neighbour needs less than half of the quota of three polls a second.
#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_jobs_of_one_namespace_leave_the_others_their_share_of_the_project() {
    let trial = begin_in_a_shared_project("load", "3").await;
    let quiet = trial.window("quiet").await;
    follow_jobs_of_the_shared_project(&trial, 300).await;

    let attacked = trial.window("attack").await;
    trial.end(&quiet, &[&attacked]).await;
}
