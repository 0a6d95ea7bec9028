//! The admin API: the same powers over HTTP.

use crate::{PROJECT, client, finished_job, query, query_json, simulator};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use testbed::ims::{JobKey, PRESETS, Simulator};

async fn post(simulator: &Simulator, path: &str, body: &Value) -> (u16, String) {
    let response = client()
        .post(format!("{}/admin/{path}", simulator.url()))
        .json(body)
        .send()
        .await
        .expect("an answer");
    (
        response.status().as_u16(),
        response.text().await.expect("text"),
    )
}

async fn get(simulator: &Simulator, path: &str) -> Value {
    let url = format!("{}/admin/{path}", simulator.url());
    let response = client().get(url).send().await.expect("an answer");
    response.json().await.expect("JSON")
}

async fn delete(simulator: &Simulator, path: &str) -> u16 {
    let url = format!("{}/admin/{path}", simulator.url());
    let response = client().delete(url).send().await.expect("an answer");
    response.status().as_u16()
}

fn done() -> (u16, String) {
    (204, String::new())
}

#[tokio::test]
async fn it_creates_jobs_and_forgets_them() {
    let simulator = simulator();
    let key = JobKey::new(PROJECT, "j1");
    let minimal = json!({ "project_id": PROJECT, "job_id": "j1" });
    assert_eq!(post(&simulator, "jobs", &minimal).await, done());
    assert_eq!(query_json(&simulator, &key).await["status"], "SUCCESS");

    let full = json!({
        "project_id": PROJECT, "job_id": "j1", "job_type": "imsCopyImageInRegionJob",
        "start": "first_query", "init_seconds": 0, "run_seconds": 0.0, "layout": "reference",
        "end": "fail", "error_code": "IMG.0148", "fail_reason": "no bucket",
    });
    assert_eq!(post(&simulator, "jobs", &full).await, done());
    let body = query_json(&simulator, &key).await;
    assert_eq!(body["job_type"], "imsCopyImageInRegionJob");
    assert_eq!(body["status"], "FAIL");
    assert_eq!(body["fail_reason"], "no bucket");

    let waiting = json!({ "project_id": PROJECT, "job_id": "j1", "init_seconds": 60 });
    assert_eq!(post(&simulator, "jobs", &waiting).await, done());
    assert_eq!(query_json(&simulator, &key).await["status"], "INIT");

    let path = format!("jobs/{PROJECT}/j1");
    assert_eq!(delete(&simulator, &path).await, 204);
    assert_eq!(delete(&simulator, &path).await, 404);
    assert_eq!(query(&simulator, &key).await.status(), 404);
}

#[tokio::test]
async fn it_scripts_answers_and_takes_them_back() {
    let simulator = simulator();
    let key = finished_job(&simulator);
    let this_job = json!({ "job": { "project_id": key.project, "job_id": key.job } });
    let twice = json!({ "on": this_job, "answer": { "preset": "throttled" }, "times": 2 });
    let once = json!({ "on": "jobs", "answer": {
        "status": 503, "headers": { "Retry-After": "7" }, "body": "down", "delay_seconds": 0.01,
    } });
    assert_eq!(post(&simulator, "answers", &twice).await, done());
    assert_eq!(post(&simulator, "answers", &once).await, done());
    assert_eq!(query(&simulator, &key).await.status(), 429);
    assert_eq!(query(&simulator, &key).await.status(), 429);
    let response = query(&simulator, &key).await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "7");
    assert_eq!(response.text().await.unwrap(), "down");
    assert_eq!(query(&simulator, &key).await.status(), 200);

    let forever = json!({ "on": "jobs", "answer": { "status": 500 }, "forever": true });
    assert_eq!(post(&simulator, "answers", &forever).await, done());
    assert_eq!(query(&simulator, &key).await.status(), 500);
    assert_eq!(query(&simulator, &key).await.status(), 500);
    assert_eq!(delete(&simulator, "answers").await, 204);
    assert_eq!(query(&simulator, &key).await.status(), 200);
}

#[tokio::test]
async fn it_puts_an_outage() {
    let simulator = simulator();
    let key = finished_job(&simulator);
    let outage = json!({ "on": "jobs", "seconds": 3600, "start": "first_query" });
    assert_eq!(post(&simulator, "outage", &outage).await, done());
    assert_eq!(query(&simulator, &key).await.status(), 503);
    let over = json!({ "on": "jobs", "seconds": 0, "answer": { "preset": "hang" } });
    assert_eq!(post(&simulator, "outage", &over).await, done());
    assert_eq!(query(&simulator, &key).await.status(), 200);
}

#[tokio::test]
async fn it_shows_the_requests_and_does_not_count_itself() {
    let simulator = simulator();
    let key = finished_job(&simulator);
    query(&simulator, &key).await;
    let counters = get(&simulator, "counters").await;
    assert_eq!(counters["polls"], 1);
    assert_eq!(counters["other"], 0);
    assert_eq!(counters["answers"], json!({ "200": 1 }));
    assert_eq!(counters["polls_by_job"][key.to_string()], 1);
    let requests = get(&simulator, "requests").await;
    assert_eq!(requests.as_array().unwrap().len(), 1);
    assert_eq!(requests[0]["path"], key.to_string());
    assert_eq!(requests[0]["credential"], "fixed_token");
    assert_eq!(requests[0]["status"], 200);
    let presets = get(&simulator, "presets").await;
    assert_eq!(presets.as_object().unwrap().len(), PRESETS.len());
    assert_eq!(delete(&simulator, "tokens").await, 204);
}

#[tokio::test]
async fn invalid_requests_are_rejected_with_the_reason() {
    let simulator = simulator();
    for (path, body, reason) in [
        (
            "answers",
            json!({ "on": "jobs", "answer": { "preset": "nope" } }),
            "GET /admin/presets",
        ),
        (
            "answers",
            json!({ "on": "jobs", "answer": { "preset": "fail", "status": 500 } }),
            "not two of them",
        ),
        (
            "answers",
            json!({ "on": "jobs", "answer": { "raw": "x", "preset": "fail" } }),
            "not two of them",
        ),
        (
            "quota",
            json!({ "requests": 1, "seconds": -1 }),
            "no number of seconds",
        ),
        ("users", json!({ "name": "n" }), "missing field `domain`"),
        (
            "answers",
            json!({ "on": "jobs", "answer": { "status": 99 } }),
            "not within 200 to 999",
        ),
        (
            "answers",
            json!({ "on": "jobs", "answer": { "status": 500, "headers": { "a b": "c" } } }),
            "header name",
        ),
        (
            "answers",
            json!({ "on": "jobs", "answer": {}, "times": 1, "forever": true }),
            "not both",
        ),
        (
            "answers",
            json!({ "on": "jobs", "answer": {}, "times": 1_000_000_000 }),
            "at most",
        ),
        (
            "outage",
            json!({ "on": "jobs", "seconds": -1 }),
            "no number of seconds",
        ),
        (
            "jobs",
            json!({ "project_id": "p", "job_id": "j", "typo": 1 }),
            "unknown field `typo`",
        ),
    ] {
        let (status, text) = post(&simulator, path, &body).await;
        assert!(matches!(status, 400 | 422), "{body}: {status}");
        assert!(text.contains(reason), "{body}: {text}");
    }
}

#[tokio::test]
async fn it_shapes_bodies_and_sends_raw_bytes() {
    let simulator = simulator();
    let key = finished_job(&simulator);
    let answers = [
        json!({ "status": 200, "body": "ab", "repeated": 3 }),
        json!({ "status": 200, "body": "abc", "drip_seconds": 0.05 }),
        json!({ "raw": "HTTP/1.1 299 Odd\r\n\r\n{job_id}" }),
    ];
    for answer in answers {
        let script = json!({ "on": "jobs", "answer": answer });
        assert_eq!(post(&simulator, "answers", &script).await, done());
    }
    assert_eq!(
        query(&simulator, &key).await.text().await.unwrap(),
        "ababab"
    );
    let started = Instant::now();
    assert_eq!(query(&simulator, &key).await.text().await.unwrap(), "abc");
    assert!(started.elapsed() >= Duration::from_millis(150));
    let raw = query(&simulator, &key).await;
    assert_eq!(raw.status(), 299);
    assert_eq!(raw.text().await.unwrap(), key.job);

    let endless =
        json!({ "on": "jobs", "answer": { "status": 200, "body": "x", "endless": true } });
    assert_eq!(post(&simulator, "answers", &endless).await, done());
    let mut response = query(&simulator, &key).await;
    let mut got = 0;
    while got < 100 {
        got += response.chunk().await.unwrap().unwrap().len();
    }
}

#[tokio::test]
async fn a_named_gate_holds_answers_until_it_is_opened() {
    let simulator = simulator();
    let key = finished_job(&simulator);
    let held = json!({ "on": "jobs", "answer": { "gate": "g" }, "times": 2 });
    assert_eq!(post(&simulator, "answers", &held).await, done());
    assert_eq!(get(&simulator, "gates").await, json!({ "g": 0 }));
    let open = async {
        while get(&simulator, "gates").await != json!({ "g": 1 }) {}
        assert_eq!(post(&simulator, "gates/g", &json!(null)).await, done());
    };
    let (answer, ()) = tokio::join!(query(&simulator, &key), open);
    assert_eq!(answer.status(), 200);
    assert_eq!(query(&simulator, &key).await.status(), 200, "it stays open");
    assert_eq!(post(&simulator, "gates/g", &json!(null)).await.0, 404);
}

#[tokio::test]
async fn it_keeps_users_agencies_and_application_credentials() {
    let simulator = simulator();
    let key = finished_job(&simulator);
    let project = json!([{ "id": PROJECT, "name": "eu-de" }]);
    for (path, body) in [
        (
            "users",
            json!({ "name": "kim", "domain": "OTC0009", "password": "pw", "projects": project, "default_project": PROJECT }),
        ),
        (
            "application-credentials",
            json!({ "id": "c", "name": "n", "secret": "s", "user_id": "kim-id", "project_id": PROJECT }),
        ),
        (
            "agencies",
            json!({ "name": "a", "domain": "OTC0008", "projects": project, "trusted_users": ["kim-id"] }),
        ),
    ] {
        assert_eq!(post(&simulator, path, &body).await, done(), "{path}");
    }
    let kim = json!({ "id": "kim-id", "password": "pw" });
    let credential = json!({ "methods": ["application_credential"], "application_credential": { "id": "c", "secret": "s" } });
    let assume = json!({ "methods": ["assume_role"], "assume_role": { "agency_name": "a", "domain_name": "OTC0008" } });
    let mut token = String::new();
    for (identity, scope) in [
        (
            json!({ "methods": ["password"], "password": { "user": kim } }),
            Value::Null,
        ),
        (credential, Value::Null),
        (assume, json!({ "project": { "id": PROJECT } })),
    ] {
        let mut request = json!({ "auth": { "identity": identity } });
        if !scope.is_null() {
            request["auth"]["scope"] = scope;
        }
        let url = format!("{}/v3/auth/tokens", simulator.url());
        let request = client()
            .post(url)
            .header("X-Auth-Token", &token)
            .json(&request);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 201, "{identity}");
        token = crate::iam::subject_token(&response);
        assert_eq!(
            crate::query_with(&simulator, &key, &token).await.status(),
            200
        );
    }
    assert_eq!(delete(&simulator, "application-credentials/c").await, 204);
    assert_eq!(delete(&simulator, "application-credentials/c").await, 404);
}

async fn patch(simulator: &Simulator, path: &str, body: &Value) -> u16 {
    let url = format!("{}/admin/{path}", simulator.url());
    let response = client()
        .patch(url)
        .json(body)
        .send()
        .await
        .expect("an answer");
    response.status().as_u16()
}

#[tokio::test]
async fn it_keeps_keys_tokens_the_clock_and_the_quota() {
    let simulator = simulator();
    let key = finished_job(&simulator);
    let access_key = json!({ "access_key": "AK", "secret_key": "SK", "projects": [PROJECT], "security_token": "t" });
    assert_eq!(post(&simulator, "keys", &access_key).await, done());
    assert_eq!(
        patch(&simulator, "keys/AK", &json!({ "enabled": false })).await,
        204
    );
    assert_eq!(
        patch(&simulator, "keys/none", &json!({ "enabled": false })).await,
        404
    );
    assert_eq!(delete(&simulator, "keys/AK").await, 204);
    assert_eq!(delete(&simulator, "keys/AK").await, 404);
    assert_eq!(delete(&simulator, "locks").await, 204);
    assert_eq!(
        post(&simulator, "clock", &json!({ "ahead_seconds": -3600 })).await,
        done()
    );

    let token = json!({ "token": "mine", "project_id": "elsewhere" });
    assert_eq!(post(&simulator, "tokens", &token).await, done());
    assert_eq!(
        crate::query_with(&simulator, &key, "mine").await.status(),
        400
    );
    let shape = json!({ "lifetime_seconds": 60, "length": 5000 });
    assert_eq!(patch(&simulator, "tokens", &shape).await, 204);
    assert_eq!(crate::iam::log_in(&simulator).await.len(), 5000);
    assert_eq!(
        patch(&simulator, "tokens", &json!({ "length": 1_000_000 })).await,
        400
    );

    let quota = json!({ "requests": 1, "seconds": 3600 });
    assert_eq!(post(&simulator, "quota", &quota).await, done());
    assert_eq!(query(&simulator, &key).await.status(), 200);
    assert_eq!(query(&simulator, &key).await.status(), 429);
    assert_eq!(delete(&simulator, "quota").await, 204);
    assert_eq!(query(&simulator, &key).await.status(), 200);
    assert_eq!(get(&simulator, "counters").await["throttled"], 1);
}
