//! The built-in identity service: logins, what their tokens open, and how they end.

use crate::{PROJECT, client, error, finished_job, query_with, simulator};
use reqwest::Response;
use serde_json::{Value, json};
use std::time::Duration;
use testbed::ims::{Answer, Simulator, Target, User};

pub async fn post_login(simulator: &Simulator, query: &str, body: &Value) -> Response {
    client()
        .post(format!("{}/v3/auth/tokens{query}", simulator.url()))
        .json(body)
        .send()
        .await
        .expect("an answer")
}

pub fn by_name() -> Value {
    json!({ "name": "kay", "domain": { "name": "OTC0001" }, "password": "correct horse" })
}

pub fn login_request(user: &Value, scope: Option<Value>) -> Value {
    let mut request = json!({
        "auth": { "identity": { "methods": ["password"], "password": { "user": user } } }
    });
    if let Some(scope) = scope {
        request["auth"]["scope"] = json!({ "project": scope });
    }
    request
}

pub async fn log_in(simulator: &Simulator) -> String {
    let request = login_request(&by_name(), Some(json!({ "id": PROJECT })));
    let response = post_login(simulator, "?nocatalog", &request).await;
    assert_eq!(response.status(), 201);
    subject_token(&response)
}

pub fn subject_token(response: &Response) -> String {
    response.headers()["x-subject-token"]
        .to_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn a_login_issues_a_token_that_the_job_query_accepts() {
    let simulator = simulator();
    let key = finished_job(&simulator);
    let token = log_in(&simulator).await;
    assert_eq!(query_with(&simulator, &key, &token).await.status(), 200);
    assert_eq!(simulator.logins(), 1);
    assert_eq!(simulator.counters().tokens_issued, 1);
    assert_ne!(token, log_in(&simulator).await);
}

#[tokio::test]
async fn user_and_project_may_be_named_by_id_or_by_name_and_domain() {
    let simulator = simulator();
    let by_id = json!({ "id": "kay-id", "password": "correct horse" });
    let by_domain_id =
        json!({ "name": "kay", "domain": { "id": "OTC0001-id" }, "password": "correct horse" });
    for user in [by_name(), by_id, by_domain_id] {
        for scope in [
            json!({ "id": PROJECT }),
            json!({ "name": "eu-de", "domain": { "name": "OTC0001" } }),
            json!({ "name": "eu-de", "domain": { "id": "OTC0001-id" } }),
            json!({ "name": "eu-de" }),
        ] {
            let response = post_login(&simulator, "", &login_request(&user, Some(scope))).await;
            assert_eq!(response.status(), 201);
            let body: Value = response.json().await.unwrap();
            assert_eq!(body["token"]["project"]["id"], PROJECT);
            assert_eq!(body["token"]["project"]["name"], "eu-de");
        }
    }
}

#[tokio::test]
async fn the_token_body_has_an_expiry_and_on_demand_a_catalog() {
    let simulator = simulator();
    simulator.set_token_lifetime(Duration::from_secs(3600));
    let request = login_request(&by_name(), Some(json!({ "id": PROJECT })));
    let body: Value = post_login(&simulator, "", &request)
        .await
        .json()
        .await
        .unwrap();
    let time = |field: &str| body["token"][field].as_str().unwrap().to_owned();
    for field in ["issued_at", "expires_at"] {
        let time = time(field);
        let (_, fraction) = time.split_once('.').unwrap();
        assert_eq!((fraction.len(), fraction.ends_with('Z')), (7, true));
    }
    let issued: k8s_openapi::jiff::Timestamp = time("issued_at").parse().unwrap();
    let expires: k8s_openapi::jiff::Timestamp = time("expires_at").parse().unwrap();
    assert_eq!(expires.duration_since(issued).as_secs(), 3600);

    let service = &body["token"]["catalog"][0];
    assert_eq!(service["type"], "image");
    assert_eq!(service["endpoints"][0]["interface"], "public");
    assert_eq!(service["endpoints"][0]["region"], "eu-de");
    assert_eq!(service["endpoints"][0]["url"], simulator.url());
    let body: Value = post_login(&simulator, "?nocatalog", &request)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(body["token"].get("catalog"), None);
}

#[tokio::test]
async fn a_token_opens_the_jobs_of_its_own_project_only() {
    let simulator = simulator();
    let key = finished_job(&simulator);
    let request = login_request(&by_name(), Some(json!({ "name": "eu-de_other" })));
    let other = subject_token(&post_login(&simulator, "", &request).await);
    assert_eq!(
        error(query_with(&simulator, &key, &other).await).await,
        (400, "IMG.0030".to_owned())
    );
}

#[tokio::test]
async fn without_a_scope_the_token_is_for_the_default_project_or_for_none() {
    let simulator = simulator();
    let key = finished_job(&simulator);
    let request = login_request(&by_name(), None);
    let response = post_login(&simulator, "", &request).await;
    let token = subject_token(&response);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["token"].get("project"), None);
    assert_eq!(
        error(query_with(&simulator, &key, &token).await).await,
        (400, "IMG.0030".to_owned())
    );

    let mut kay = User::new("kay", "OTC0001", "correct horse").project(PROJECT, "eu-de");
    kay.default_project = Some(PROJECT.to_owned());
    simulator.put_user(kay);
    let token = subject_token(&post_login(&simulator, "", &request).await);
    assert_eq!(query_with(&simulator, &key, &token).await.status(), 200);
}

#[tokio::test]
async fn wrong_logins_are_rejected_as_keystone_does() {
    let simulator = simulator();
    let user = |name: &str, domain: &str, password: &str| json!({ "name": name, "domain": { "name": domain }, "password": password });
    let scope = || Some(json!({ "id": PROJECT }));
    let no_domain = json!({ "name": "kay", "password": "correct horse" });
    for request in [
        login_request(&user("kay", "OTC0001", "wrong"), scope()),
        login_request(&user("kim", "OTC0001", "correct horse"), scope()),
        login_request(&user("kay", "OTC0002", "correct horse"), scope()),
        login_request(&no_domain, scope()),
        login_request(&by_name(), Some(json!({ "id": "not-mine" }))),
        json!({ "auth": { "identity": { "methods": ["assume_role"] } } }),
    ] {
        let response = post_login(&simulator, "", &request).await;
        assert_eq!(response.status(), 401);
        assert!(!response.headers().contains_key("x-subject-token"));
        let body: Value = response.json().await.unwrap();
        assert_eq!(
            (&body["error"]["code"], &body["error"]["title"]),
            (&json!(401), &json!("Unauthorized"))
        );
    }
    let nonsense = post_login(&simulator, "", &json!({ "auth": 1 })).await;
    assert_eq!(error(nonsense).await, (400, "400".to_owned()));
    assert_eq!(simulator.counters().tokens_issued, 0);
}

#[tokio::test]
async fn a_changed_password_ends_the_old_one() {
    let simulator = simulator();
    simulator.put_user(User::new("kay", "OTC0001", "battery").project(PROJECT, "eu-de"));
    let old = post_login(&simulator, "", &login_request(&by_name(), None)).await;
    assert_eq!(old.status(), 401);
    let mut user = by_name();
    user["password"] = json!("battery");
    let new = post_login(&simulator, "", &login_request(&user, None)).await;
    assert_eq!(new.status(), 201);
}

#[tokio::test]
async fn an_expired_token_must_be_updated() {
    let simulator = simulator();
    let key = finished_job(&simulator);
    let lasting = log_in(&simulator).await;
    simulator.set_token_lifetime(Duration::from_secs(1));
    let token = log_in(&simulator).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(query_with(&simulator, &key, &lasting).await.status(), 200);
    assert_eq!(
        error(query_with(&simulator, &key, &token).await).await,
        (401, "APIGW.0307".to_owned())
    );
}

#[tokio::test]
async fn a_revoked_token_is_dead() {
    let simulator = simulator();
    let key = finished_job(&simulator);
    let dead = || (401, "APIGW.0301".to_owned());

    let token = log_in(&simulator).await;
    simulator.revoke_token(&token);
    assert_eq!(
        error(query_with(&simulator, &key, &token).await).await,
        dead()
    );

    let tokens = [log_in(&simulator).await, log_in(&simulator).await];
    simulator.revoke_issued_tokens();
    for token in &tokens {
        assert_eq!(
            error(query_with(&simulator, &key, token).await).await,
            dead()
        );
    }
    assert_eq!(
        query_with(&simulator, &key, crate::TOKEN).await.status(),
        200,
        "fixed tokens stay"
    );

    let token = log_in(&simulator).await;
    let revoke = || {
        client()
            .delete(format!("{}/v3/auth/tokens", simulator.url()))
            .header("X-Auth-Token", &token)
            .header("X-Subject-Token", &token)
            .send()
    };
    assert_eq!(revoke().await.unwrap().status(), 204);
    assert_eq!(revoke().await.unwrap().status(), 401);
    assert_eq!(
        error(query_with(&simulator, &key, &token).await).await,
        dead()
    );
}

#[tokio::test]
async fn logins_are_scripted_apart_from_job_queries() {
    let simulator = simulator();
    let key = finished_job(&simulator);
    simulator.script(
        Target::Login,
        [
            Answer::preset("iam-unauthorized"),
            Answer::preset("iam-forbidden"),
            Answer::preset("iam-not-found"),
            Answer::preset("iam-throttled"),
            Answer::preset("internal-error"),
            Answer::pass().after(Duration::from_millis(100)),
        ],
    );
    let request = login_request(&by_name(), Some(json!({ "id": PROJECT })));
    let mut statuses = Vec::new();
    for _ in 0..6 {
        assert_eq!(
            query_with(&simulator, &key, crate::TOKEN).await.status(),
            200
        );
        let response = post_login(&simulator, "", &request).await;
        statuses.push(response.status().as_u16());
    }
    assert_eq!(statuses, [401, 403, 404, 429, 500, 201]);
    assert_eq!(simulator.logins(), 6);
    assert_eq!(simulator.counters().tokens_issued, 1);
}
