//! The newer path of the job query, and the gateway's quota.

use crate::{PROJECT, TOKEN, client, error, finished_job, query, simulator};
use reqwest::Response;
use serde_json::Value;
use std::time::Duration;
use testbed::ims::{Answer, Job, JobKey, Quota, Simulator};

async fn ask_newer(simulator: &Simulator, key: &JobKey, token: &str) -> Response {
    let request = client().get(simulator.newer_job_url(key));
    let request = request.header("X-Auth-Token", token);
    request.send().await.expect("an answer")
}

#[tokio::test]
async fn the_newer_path_answers_the_same_and_takes_the_project_from_the_token() {
    let simulator = simulator();
    let key = finished_job(&simulator);
    simulator.add_token("here", Some(PROJECT));
    simulator.add_token("elsewhere", Some("other-project"));
    let older = query(&simulator, &key).await.text().await.unwrap();
    for token in [TOKEN, "here"] {
        let newer = ask_newer(&simulator, &key, token).await;
        assert_eq!(newer.status(), 200);
        assert_eq!(newer.text().await.unwrap(), older, "{token}");
    }
    let elsewhere = ask_newer(&simulator, &key, "elsewhere").await;
    assert_eq!(error(elsewhere).await, (404, "IMG.0121".to_owned()));
    let unknown = ask_newer(&simulator, &JobKey::new("any", "no-job"), TOKEN).await;
    assert_eq!(unknown.status(), 404);
    let dead = ask_newer(&simulator, &key, "dead").await;
    assert_eq!(error(dead).await, (401, "APIGW.0301".to_owned()));
    assert_eq!(
        simulator.polls(&key),
        4,
        "the dead token seems to mean it too"
    );
    assert_eq!(simulator.counters().other, 0);
}

#[tokio::test]
async fn scripts_for_a_job_answer_on_the_newer_path_too() {
    let simulator = simulator();
    let key = finished_job(&simulator);
    simulator.script(key.clone(), [Answer::preset("running")]);
    let body: Value = ask_newer(&simulator, &key, TOKEN)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(
        (&body["status"], &body["job_id"]),
        (&"RUNNING".into(), &key.job.as_str().into())
    );
    let body: Value = ask_newer(&simulator, &key, TOKEN)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(body["status"], "SUCCESS");
}

#[tokio::test]
async fn a_quota_lets_so_many_queries_of_each_project_pass_per_period() {
    let simulator = simulator();
    let key = finished_job(&simulator);
    let other = Job::new("other-project", "j");
    let other_key = other.key();
    simulator.put_job(other);
    // Longer than this test.
    let per = Duration::from_hours(1);
    simulator.set_quota(Quota { requests: 3, per });
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(query(&simulator, &key).await.status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    assert_eq!(
        query(&simulator, &key).await.text().await.unwrap(),
        r#"{"error_msg":"The throttling threshold has been reached: policy ip over ratelimit,limit:3,time:3600 second","error_code":"APIGW.0308","request_id":"c50619de20b0e70590f57a99dbed044f"}"#
    );
    assert_eq!(query(&simulator, &other_key).await.status(), 200);
    assert_eq!(simulator.counters().throttled, 3);

    // One query uses up a short period; the next one passes when it is over.
    let short = Duration::from_millis(300);
    simulator.set_quota(Quota {
        requests: 1,
        per: short,
    });
    query(&simulator, &key).await;
    tokio::time::sleep(short).await;
    assert_eq!(query(&simulator, &key).await.status(), 200);

    simulator.set_quota(Quota { requests: 0, per });
    assert_eq!(query(&simulator, &key).await.status(), 429);
    simulator.set_quota(None);
    assert_eq!(query(&simulator, &key).await.status(), 200);
}
