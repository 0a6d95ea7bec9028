//! The job query when nothing disturbs it.

use crate::{
    PROJECT, TOKEN, client, error, finished_job, query, query_json, query_with, simulator,
};
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};
use testbed::ims::{Config, Credential, End, Job, JobKey, Layout, Simulator, Start};

/// The example response of the API reference, as printed there.
const REFERENCE_EXAMPLE: &str = r#"
      {
          "status": "SUCCESS",
          "entities": {
              "image_id": "e9e91bff-14b6-4a0b-8377-4ed0813e3360"
          },
          "job_id": "ff8080814dbd65d7014dbe0d84db0013",
          "job_type": "createImageByInstance",
          "begin_time": "04-Jun-2015 18:11:06:586",
          "end_time": "",
          "error_code": null,
          "fail_reason": null
      }
"#;

#[tokio::test]
async fn the_reference_example_is_answered_byte_for_byte() {
    let simulator = simulator();
    simulator.put_job(Job::reference_example());
    let response = client()
        .get(format!(
            "{}/v1/ac234de25c6741d2b1273da49eea1b9e/jobs/ff8080814dbd65d7014dbe0d84db0013",
            simulator.url()
        ))
        .header("X-Auth-Token", TOKEN)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    let printed: String = REFERENCE_EXAMPLE.lines().map(str::trim).collect();
    assert_eq!(
        response.text().await.unwrap(),
        printed.replace("\": ", "\":")
    );
}

#[tokio::test]
async fn the_current_layout_has_the_published_fields_in_the_published_order() {
    let simulator = simulator();
    let job = Job::new(PROJECT, "9a175ac79d2a54ad019d2d0a1f074696")
        .image_id("698a61e2-abde-4151-a778-f9035e214c92")
        .begun_at("2026-03-27T01:17:50.446Z".parse().unwrap());
    let key = job.key();
    simulator.put_job(job);
    assert_eq!(
        query(&simulator, &key).await.text().await.unwrap(),
        r#"{"job_id":"9a175ac79d2a54ad019d2d0a1f074696","job_type":"imsNativeExportImageJob","begin_time":"2026-03-27T01:17:50.446Z","end_time":"2026-03-27T01:17:50.446Z","status":"SUCCESS","error_code":null,"fail_reason":null,"entities":{"image_name":"export","image_id":"698a61e2-abde-4151-a778-f9035e214c92","process_percent":1,"current_task":""}}"#
    );
}

#[tokio::test]
async fn a_job_passes_from_init_over_running_to_success() {
    // A slow machine may not query a short job while it runs; a longer one follows then.
    for seconds in [1, 10, 100] {
        if saw_a_job_run_for(seconds).await {
            return;
        }
    }
    panic!("no job was seen running");
}

/// Queries a job until it has succeeded; whether it was seen running.
async fn saw_a_job_run_for(seconds: u32) -> bool {
    let simulator = simulator();
    let job = Job::new(PROJECT, "j")
        .of_type("imsCopyImageInRegionJob")
        .starts(Start::FirstQuery)
        .init_for(Duration::from_millis(300))
        .running_for(Duration::from_secs(seconds.into()));
    let key = job.key();
    simulator.put_job(job);
    // Time before the first query does not count.
    tokio::time::sleep(Duration::from_millis(500)).await;

    let mut seen = Vec::new();
    let mut percents = Vec::new();
    let last = loop {
        let body = query_json(&simulator, &key).await;
        let status = body["status"].as_str().unwrap().to_owned();
        assert_eq!(body["job_type"], "imsCopyImageInRegionJob");
        if status == "RUNNING" {
            assert_eq!(body["end_time"], "");
            percents.push(body["entities"]["process_percent"].as_f64().unwrap());
        }
        if seen.last() != Some(&status) {
            seen.push(status);
        }
        if body["status"] == "SUCCESS" {
            break body;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    if percents.len() < 2 || percents.first() == percents.last() {
        return false;
    }
    assert_eq!(seen, ["INIT", "RUNNING", "SUCCESS"]);
    assert!(percents.is_sorted());
    assert!(percents.iter().all(|percent| (0.0..1.0).contains(percent)));
    let time = |field: &str| -> k8s_openapi::jiff::Timestamp {
        last[field].as_str().unwrap().parse().unwrap()
    };
    let took = time("end_time").duration_since(time("begin_time"));
    // Milliseconds are cut off in both.
    let expected = i128::from(seconds) * 1000 + 300;
    assert!(took.as_millis().abs_diff(expected) <= 1, "{took:?}");
    true
}

#[tokio::test]
async fn a_job_fails_with_the_texts_given() {
    let simulator = simulator();
    for layout in [Layout::Current, Layout::Reference] {
        let job = Job::new(PROJECT, "f")
            .fails("IMG.0148", "no bucket")
            .layout(layout);
        let key = job.key();
        simulator.put_job(job);
        let body = query_json(&simulator, &key).await;
        assert_eq!(body["status"], "FAIL");
        assert_eq!(body["error_code"], "IMG.0148");
        assert_eq!(body["fail_reason"], "no bucket");
        simulator.put_job(Job::new(PROJECT, "f").layout(layout).ends(End::Fail {
            error_code: None,
            fail_reason: None,
        }));
        let body = query_json(&simulator, &key).await;
        assert_eq!(
            (&body["error_code"], &body["fail_reason"]),
            (&Value::Null, &Value::Null)
        );
    }
}

#[tokio::test]
async fn a_job_may_succeed_without_an_image_or_never_end() {
    let simulator = simulator();
    let imageless = JobKey::new(PROJECT, "imageless");
    simulator.put_job(Job::new(PROJECT, "imageless").without_image_id());
    let body = query_json(&simulator, &imageless).await;
    assert_eq!(body["status"], "SUCCESS");
    assert_eq!(body["entities"].get("image_id"), None);

    let stuck = JobKey::new(PROJECT, "stuck");
    simulator.put_job(Job::new(PROJECT, "stuck").ends(End::Never));
    let body = query_json(&simulator, &stuck).await;
    assert_eq!(body["status"], "RUNNING");
    assert_eq!(body["entities"]["process_percent"], json!(0.99));
}

#[tokio::test]
async fn unknown_and_forgotten_jobs_and_jobs_of_other_projects_are_404() {
    let simulator = simulator();
    let key = finished_job(&simulator);
    assert_eq!(query(&simulator, &key).await.status(), 200);
    let elsewhere = JobKey::new("other-project", &key.job);
    assert_eq!(
        error(query(&simulator, &elsewhere).await).await,
        (404, "IMG.0121".to_owned())
    );
    simulator.remove_job(&key);
    let response = query(&simulator, &key).await;
    assert_eq!(response.status(), 404);
    assert_eq!(
        response.text().await.unwrap(),
        r#"{"error":{"message":"The object cannot be found.","code":"IMG.0121"}}"#
    );
}

#[tokio::test]
async fn any_other_path_is_an_api_that_is_not_published() {
    let simulator = simulator();
    for path in [
        "/",
        "/v2/images",
        "/v1/p/jobs",
        "/v1/p/jobs/j/",
        "/v1/v1/p/jobs/j",
    ] {
        let response = client()
            .get(simulator.url() + path)
            .header("X-Auth-Token", TOKEN)
            .send()
            .await
            .unwrap();
        assert_eq!(error(response).await, (404, "APIGW.0101".to_owned()));
    }
    let key = finished_job(&simulator);
    let posted = client().post(simulator.job_url(&key)).send().await.unwrap();
    assert_eq!(error(posted).await, (404, "APIGW.0101".to_owned()));
    assert_eq!((simulator.counters().other, simulator.polls(&key)), (6, 0));
}

#[tokio::test]
async fn missing_wrong_and_foreign_tokens_are_rejected() {
    let simulator = simulator();
    let key = finished_job(&simulator);
    simulator.add_token("one-project", Some("other-project"));
    let bare = client().get(simulator.job_url(&key));
    let missing = bare.send().await.unwrap();
    assert_eq!(error(missing).await, (401, "APIGW.0301".to_owned()));
    let signed = client()
        .get(simulator.job_url(&key))
        .header("Authorization", "SDK-HMAC-SHA256 Access=AK, Signature=00");
    let signed = signed.send().await.unwrap();
    assert_eq!(error(signed).await, (401, "APIGW.0301".to_owned()));
    let wrong = query_with(&simulator, &key, "wrong").await;
    assert_eq!(error(wrong).await, (401, "APIGW.0301".to_owned()));
    let foreign = query_with(&simulator, &key, "one-project").await;
    assert_eq!(error(foreign).await, (400, "IMG.0030".to_owned()));

    let credentials: Vec<_> = simulator
        .requests()
        .iter()
        .map(|request| (request.credential, request.status))
        .collect();
    assert_eq!(
        credentials,
        [
            (Credential::None, Some(401)),
            (Credential::Signature, Some(401)),
            (Credential::UnknownToken, Some(401)),
            (Credential::FixedToken, Some(400)),
        ]
    );
}

#[tokio::test]
async fn each_query_is_counted_and_logged_and_has_a_request_id() {
    let simulator = simulator();
    let key = finished_job(&simulator);
    let unknown = JobKey::new(PROJECT, "unknown");
    let first = query(&simulator, &key).await;
    let second = query(&simulator, &unknown).await;
    assert_ne!(
        first.headers()["x-request-id"],
        second.headers()["x-request-id"]
    );
    query(&simulator, &key).await;
    assert_eq!((simulator.polls(&key), simulator.polls(&unknown)), (2, 1));
    let counters = simulator.counters();
    assert_eq!((counters.polls, counters.logins), (3, 0));
    assert_eq!(counters.answers, [(200, 2), (404, 1)].into());
    let requests = simulator.requests();
    assert_eq!(requests[1].path, format!("/v1/{PROJECT}/jobs/unknown"));
    assert_eq!(
        (requests[1].method.as_str(), requests[1].status),
        ("GET", Some(404))
    );
    assert!(requests[0].at_seconds <= requests[1].at_seconds);
}

#[tokio::test]
async fn it_stops_when_dropped() {
    let simulator = simulator();
    let url = simulator.url();
    assert!(client().get(&url).send().await.is_ok());
    drop(simulator);
    assert!(client().get(&url).send().await.unwrap_err().is_connect());
}

#[test]
fn it_listens_to_other_machines_only_with_the_setting() {
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let mut config = Config {
        listen: everywhere,
        ..Config::default()
    };
    let refusal = Simulator::start(config.clone()).err().unwrap().to_string();
    assert!(
        refusal.contains("reachable from other machines"),
        "{refusal}"
    );
    config.allow_remote = true;
    let simulator = Simulator::start(config).unwrap();
    assert!(simulator.url().starts_with("http://127.0.0.1:"));
}
