//! Logins other than by password, the account lock, and long tokens.

use crate::{
    PROJECT, error, finished_job,
    iam::{by_name, log_in, login_request, post_login, subject_token},
    message, query_with, simulator,
};
use reqwest::Response;
use serde_json::{Value, json};
use std::time::Duration;
use testbed::ims::{Agency, ApplicationCredential, Config, Simulator, User};

fn with_credential() -> Simulator {
    let simulator = simulator();
    simulator.add_application_credential(ApplicationCredential {
        id: "credential-id".to_owned(),
        name: "exports".to_owned(),
        secret: "battery staple".into(),
        user_id: "kay-id".to_owned(),
        project_id: PROJECT.to_owned(),
    });
    simulator
}

fn by_credential(credential: &Value) -> Value {
    json!({ "auth": { "identity": {
        "methods": ["application_credential"], "application_credential": credential,
    } } })
}

async fn opens(simulator: &Simulator, response: Response) -> Value {
    assert_eq!(response.status(), 201);
    let token = subject_token(&response);
    let key = finished_job(simulator);
    assert_eq!(query_with(simulator, &key, &token).await.status(), 200);
    response.json().await.unwrap()
}

#[tokio::test]
async fn an_application_credential_opens_its_project_by_id_or_by_name_and_user() {
    let simulator = with_credential();
    for credential in [
        json!({ "id": "credential-id", "secret": "battery staple" }),
        json!({ "name": "exports", "user": { "id": "kay-id" }, "secret": "battery staple" }),
        json!({ "name": "exports", "user": { "name": "kay", "domain": { "name": "OTC0001" } }, "secret": "battery staple" }),
    ] {
        let response = post_login(&simulator, "", &by_credential(&credential)).await;
        let body = opens(&simulator, response).await;
        assert_eq!(body["token"]["methods"], json!(["application_credential"]));
        assert_eq!(body["token"]["project"]["id"], PROJECT);
        assert_eq!(body["token"]["catalog"][0]["type"], "image");
    }
}

#[tokio::test]
async fn a_wrong_application_credential_is_rejected_as_keystone_does() {
    let simulator = with_credential();
    let right = json!({ "id": "credential-id", "secret": "battery staple" });
    let mut scoped = by_credential(&right);
    scoped["auth"]["scope"] = json!({ "project": { "id": PROJECT } });
    for (request, status, text) in [
        (
            by_credential(&json!({ "id": "credential-id", "secret": "wrong" })),
            401,
            "requires authentication",
        ),
        (
            by_credential(&json!({ "id": "nobody", "secret": "battery staple" })),
            404,
            "Could not find Application Credential: nobody.",
        ),
        (
            by_credential(&json!({ "name": "exports", "secret": "battery staple" })),
            404,
            "exports",
        ),
        (scoped, 401, "cannot request a scope"),
        (
            json!({ "auth": { "identity": { "methods": ["application_credential"] } } }),
            401,
            "unsupported method",
        ),
    ] {
        let (answered, _, message) = message(post_login(&simulator, "", &request).await).await;
        assert_eq!(answered, status, "{message}");
        assert!(message.contains(text), "{message}");
    }
    simulator.remove_application_credential("credential-id");
    assert_eq!(
        post_login(&simulator, "", &by_credential(&right))
            .await
            .status(),
        404
    );
}

fn by_token(token: &str, project: &str) -> Value {
    json!({ "auth": {
        "identity": { "methods": ["token"], "token": { "id": token } },
        "scope": { "project": { "id": project } },
    } })
}

#[tokio::test]
async fn a_token_from_a_token_opens_another_project_and_keeps_the_old_expiry() {
    let simulator = simulator();
    let request = login_request(&by_name(), Some(json!({ "name": "eu-de_other" })));
    let first = post_login(&simulator, "", &request).await;
    let token = subject_token(&first);
    let first: Value = first.json().await.unwrap();
    simulator.set_token_lifetime(Duration::from_secs(1));
    let second = post_login(&simulator, "", &by_token(&token, PROJECT)).await;
    let second = opens(&simulator, second).await;
    assert_eq!(second["token"]["expires_at"], first["token"]["expires_at"]);
    assert_eq!(second["token"]["methods"], json!(["token"]));

    let not_mine = post_login(&simulator, "", &by_token(&token, "not-mine")).await;
    assert_eq!(not_mine.status(), 401);
    assert_eq!(
        post_login(&simulator, "", &by_token("made-up", PROJECT))
            .await
            .status(),
        401
    );
    simulator.revoke_token(&token);
    assert_eq!(
        post_login(&simulator, "", &by_token(&token, PROJECT))
            .await
            .status(),
        401
    );
}

fn assume(agency: &Value, project: Option<&str>) -> Value {
    let mut request = json!({ "auth": { "identity": {
        "methods": ["assume_role"], "assume_role": agency,
    } } });
    if let Some(project) = project {
        request["auth"]["scope"] = json!({ "project": { "name": project } });
    }
    request
}

async fn post_as(simulator: &Simulator, token: &str, request: &Value) -> Response {
    let url = format!("{}/v3/auth/tokens", simulator.url());
    let request = crate::client()
        .post(url)
        .header("X-Auth-Token", token)
        .json(request);
    request.send().await.expect("an answer")
}

#[tokio::test]
async fn an_agency_opens_its_project_to_those_it_trusts() {
    let simulator = simulator();
    simulator.put_user(User::new("kim", "OTC0001", "pw").project("other-project", "eu-de_other"));
    simulator.put_user(User::new("lee", "OTC0003", "pw").project("third-project", "eu-de_third"));
    let agency = Agency::new("export", "OTC0002").project(PROJECT, "eu-de_theirs");
    simulator.add_agency(agency.clone().trusts_domain("OTC0001"));
    let by_name = json!({ "domain_name": "OTC0002", "agency_name": "export" });
    let by_id = json!({ "domain_id": "OTC0002-id", "agency_name": "export" });
    let kay = log_in(&simulator).await;
    let lee = login_request(&json!({ "id": "lee-id", "password": "pw" }), None);
    let lee = subject_token(&post_login(&simulator, "", &lee).await);
    for agency in [&by_name, &by_id] {
        let response = post_as(&simulator, &kay, &assume(agency, Some("eu-de_theirs"))).await;
        let body = opens(&simulator, response).await;
        assert_eq!(body["token"]["user"]["name"], "OTC0002/export");
        assert_eq!(body["token"]["assumed_by"]["user"]["id"], "kay-id");
    }

    let unknown = json!({ "domain_name": "OTC0002", "agency_name": "none" });
    let wrong_domain = json!({ "domain_name": "OTC0001", "agency_name": "export" });
    let project = Some("eu-de_theirs");
    for (token, request, status) in [
        ("made-up", assume(&by_name, project), 401),
        (lee.as_str(), assume(&by_name, project), 403),
        (crate::TOKEN, assume(&by_name, project), 403),
        (kay.as_str(), assume(&unknown, project), 404),
        (kay.as_str(), assume(&wrong_domain, project), 404),
        (kay.as_str(), assume(&by_name, Some("eu-de")), 401),
        (kay.as_str(), assume(&by_name, None), 400),
    ] {
        let response = post_as(&simulator, token, &request).await;
        assert_eq!(
            error(response).await,
            (status, status.to_string()),
            "{request}"
        );
    }

    simulator.add_agency(agency.trusts_user("lee-id"));
    let request = assume(&by_name, project);
    assert_eq!(post_as(&simulator, &lee, &request).await.status(), 201);
    assert_eq!(post_as(&simulator, &kay, &request).await.status(), 403);
}

fn wrong_password() -> Value {
    let mut user = by_name();
    user["password"] = json!("wrong");
    login_request(&user, None)
}

#[tokio::test]
async fn the_sixth_wrong_password_in_a_row_locks_the_account_for_a_while() {
    let kay = || User::new("kay", "OTC0001", "correct horse").project(PROJECT, "eu-de");
    // Longer than this test.
    let simulator = Simulator::start(Config {
        users: vec![kay()],
        account_lock: Some(Duration::from_hours(1)),
        ..Config::default()
    })
    .unwrap();
    for _ in 0..5 {
        assert_eq!(
            post_login(&simulator, "", &wrong_password()).await.status(),
            401
        );
    }
    log_in(&simulator).await;
    for _ in 0..6 {
        assert_eq!(
            post_login(&simulator, "", &wrong_password()).await.status(),
            401
        );
    }
    let right = login_request(&by_name(), None);
    let (status, _, text) = message(post_login(&simulator, "", &right).await).await;
    assert_eq!(
        (status, text.as_str()),
        (401, "The account is locked for user: kay-id.")
    );
    let counters = simulator.counters();
    assert_eq!(
        (counters.password_failures, counters.account_locks),
        (11, 1)
    );
    simulator.put_user(kay());
    log_in(&simulator).await;
}

#[tokio::test]
async fn the_lock_of_an_account_ends_by_itself() {
    let lasts = Duration::from_millis(200);
    let kay = User::new("kay", "OTC0001", "correct horse").project(PROJECT, "eu-de");
    let simulator = Simulator::start(Config {
        users: vec![kay],
        account_lock: Some(lasts),
        ..Config::default()
    })
    .unwrap();
    for _ in 0..6 {
        post_login(&simulator, "", &wrong_password()).await;
    }
    assert_eq!(simulator.counters().account_locks, 1);
    tokio::time::sleep(lasts).await;
    log_in(&simulator).await;
}

#[tokio::test]
async fn without_an_account_lock_wrong_passwords_have_no_consequence() {
    let kay = User::new("kay", "OTC0001", "correct horse").project(PROJECT, "eu-de");
    let simulator = Simulator::start(Config {
        users: vec![kay],
        account_lock: None,
        ..Config::default()
    })
    .unwrap();
    for _ in 0..8 {
        post_login(&simulator, "", &wrong_password()).await;
    }
    log_in(&simulator).await;
    assert_eq!(simulator.counters().account_locks, 0);
}

#[tokio::test]
async fn tokens_may_have_any_length() {
    let simulator = simulator();
    let key = finished_job(&simulator);
    let usual = log_in(&simulator).await;
    simulator.set_token_length(30_000);
    let token = log_in(&simulator).await;
    assert!(usual.len() < 100);
    assert_eq!(token.len(), 30_000);
    assert_eq!(query_with(&simulator, &key, &token).await.status(), 200);
}
