//! Logins: for which scope, when they are repeated, and what a failed one means.

use super::{
    CANARY, credential, error_of,
    fake_cloud::{Cloud, JOB, PROJECT, accept, client, granted, query, query_in, respond, running},
};
use crate::config::host_key;
use futures::future::join_all;
use image_export_model::{Caller, ConfigurationReason, FailureKind, Outcome, Stage};
use serde_json::{Value, json};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn the_query_is_what_the_documentation_says() {
    let cloud = Cloud::start(accept, |_| running()).await;
    let poll = query(&client(), &cloud.overridden()).await;
    assert_eq!(poll.endpoint.as_deref(), cloud.url.strip_prefix("http://"));
    let query = &cloud.queries()[0];
    assert_eq!(query.uri.path(), format!("/v1/{PROJECT}/jobs/{JOB}"));
    assert_eq!(query.token(), "token-1");
    let agent = query.headers["user-agent"].to_str().unwrap();
    assert_eq!(
        agent,
        concat!("image-export-operator/", env!("CARGO_PKG_VERSION"))
    );
    assert!(!query.headers.contains_key("accept-encoding"));
}

#[tokio::test]
async fn a_poll_names_the_hosts_that_it_needed_whether_they_answered_well_or_not() {
    let cloud = Cloud::start(accept, |_| running()).await;
    let (client, credential) = (client(), cloud.overridden());
    let key = |cloud: &Cloud| cloud.url.strip_prefix("http://").map(host_key);
    let host = key(&cloud);
    for identity in [host.clone(), None] {
        // The second poll uses the token of the first.
        let poll = query(&client, &credential).await;
        assert_eq!((poll.identity, &poll.queried), (identity, &host));
    }
    let cloud = Cloud::start(|_| respond(503, ""), |_| running()).await;
    let credential = cloud.overridden();
    for _ in 0..2 {
        // The second poll shares the failed login of the first.
        let poll = query(&client, &credential).await;
        assert_eq!((poll.identity, poll.queried), (key(&cloud), None));
    }
}

#[tokio::test]
async fn the_scope_is_the_project_of_the_job_with_one_token_each() {
    let cloud = Cloud::start(
        |n| granted(n, ["p1", "p2"][n - 1], HOUR, &Value::Null),
        |_| running(),
    )
    .await;
    let (client, credential) = (client(), cloud.overridden());
    for project in ["p1", "p2", "p1", "p2"] {
        query_in(&client, &credential, project).await;
    }
    let logins = cloud.logins();
    let scopes: Vec<_> = logins
        .iter()
        .map(|login| &login.body["auth"]["scope"]["project"]["id"])
        .collect();
    assert_eq!(scopes, ["p1", "p2"]);
    assert_eq!(logins[0].uri.to_string(), "/v3/auth/tokens?nocatalog");
    let user = &logins[0].body["auth"]["identity"]["password"]["user"];
    assert_eq!(
        *user,
        json!({"name": "alice", "password": CANARY, "domain": {"name": "OTC1"}})
    );
    let tokens: Vec<_> = cloud
        .queries()
        .iter()
        .map(|query| query.token().to_owned())
        .collect();
    assert_eq!(tokens, ["token-1", "token-2", "token-1", "token-2"]);
}

#[tokio::test]
async fn a_login_for_another_project_is_refused_naming_both() {
    let cloud = Cloud::start(|n| granted(n, "other", HOUR, &Value::Null), |_| running()).await;
    let by_login = query(&client(), &cloud.overridden()).await;
    let url = &cloud.url;
    let named = credential(&format!(
        "clouds: {{otc: {{auth: {{auth_url: {url}, user_id: u, password: p-canary, project_id: other}}, image_endpoint_override: {url}}}}}"
    ))
    .unwrap();
    let by_name = query(&client(), &named).await;
    for poll in [by_login, by_name] {
        let error = error_of(&poll);
        assert_eq!(error.reason, ConfigurationReason::CredentialsInvalid);
        assert!(
            error
                .message
                .contains("project other, but spec.projectID is ac234"),
            "{error:?}"
        );
    }
    assert_eq!(
        cloud.logins().len(),
        1,
        "an entry that names its project needs no login to be refused"
    );
    assert_eq!(cloud.queries().len(), 0);
}

#[tokio::test]
async fn a_rejected_token_is_replaced_once_within_the_poll() {
    for (status, body) in [
        (
            401,
            r#"{"error_code":"APIGW.0307","error_msg":"The token must be updated"}"#,
        ),
        (400, r#"{"error":{"code":"IMG.0030","message":"x"}}"#),
        (400, r#"{"error":{"code":"IMG.0087","message":"x"}}"#),
    ] {
        let reject_first = move |query: &super::fake_cloud::Seen| match query.token() {
            "token-1" => respond(status, body),
            _ => running(),
        };
        let cloud = Cloud::start(accept, reject_first).await;
        let (client, credential) = (client(), cloud.overridden());
        let poll = query(&client, &credential).await;
        assert_eq!(
            (poll.outcome.category(), poll.requests),
            ("answered", 2),
            "{status} {body}"
        );
        let next = query(&client, &credential).await;
        assert_eq!((next.requests, cloud.logins().len()), (1, 2));
    }
}

#[tokio::test]
async fn a_fresh_token_that_is_rejected_too_is_invalid_and_not_replaced_again_at_once() {
    let cloud = Cloud::start(accept, |_| respond(401, r#"{"error_code":"APIGW.0307"}"#)).await;
    let (client, credential) = (client(), cloud.overridden());
    let first = query(&client, &credential).await;
    assert_eq!(first.requests, 2);
    let expected = error_of(&first);
    assert_eq!(expected.reason, ConfigurationReason::CredentialsInvalid);
    for part in [
        "127.0.0.1",
        "401 APIGW.0307",
        "expired",
        "Secret team-a/otc",
    ] {
        assert!(expected.message.contains(part), "{expected:?}");
    }
    let polls = join_all((0..20).map(|_| query(&client, &credential))).await;
    for next in polls {
        assert_eq!(error_of(&next), expected, "the same message");
        assert_eq!(next.requests, 1);
    }
    assert_eq!(cloud.logins().len(), 2);
}

/// What shares a quota with others has to belong to their project.
#[tokio::test]
async fn a_poll_proves_its_project_by_the_token_that_was_granted_or_by_the_path_that_was_answered()
{
    let ims = |status, code: &str| respond(status, format!(r#"{{"error_code":"{code}"}}"#));
    let query_answer = move |seen: &super::fake_cloud::Seen| match seen.uri.path() {
        path if path.ends_with("missing") => ims(404, "IMG.0001"),
        path if path.ends_with("denied") => ims(403, "IMG.0026"),
        path if path.ends_with("broken") => respond(200, "{}"),
        path if path.ends_with("throttled") => respond(429, ""),
        _ => running(),
    };
    let cloud = Cloud::start(accept, query_answer).await;
    let url = &cloud.url;
    let login = format!(
        "auth: {{auth_url: {url}, user_id: u, password: p-canary}}, image_endpoint_override: {url}"
    );
    let token =
        format!("auth_type: token, auth: {{token: given-canary}}, image_endpoint_override: {url}");
    let keys = format!("ak: AK, sk: some-secret, image_endpoint_override: {url}");
    let client = client();
    for (fields, path, job, proves) in [
        (&login, "v1-jobs", JOB, true),
        (&login, "cloudimages", JOB, true),
        (&login, "cloudimages", "missing", true),
        (&login, "cloudimages", "denied", false),
        (&login, "v1-jobs", "broken", false),
        (&login, "v1-jobs", "throttled", false),
        (&token, "v1-jobs", JOB, true),
        (&token, "v1-jobs", "missing", false),
        (&token, "cloudimages", JOB, false),
        (&keys, "v1-jobs", JOB, true),
        (&keys, "v1-jobs", "missing", false),
        (&keys, "v1-jobs", "denied", false),
        (&keys, "cloudimages", JOB, false),
    ] {
        let yaml = format!("clouds: {{otc: {{{fields}, image_job_path: {path}}}}}");
        let credential = credential(&yaml).unwrap();
        let (project, job) = (PROJECT.parse().unwrap(), job.parse().unwrap());
        let caller = Caller::default();
        let poll = client.query(&credential, &project, &job, &caller).await;
        assert_eq!(poll.proves_project, proves, "{yaml} {job}: {poll:?}");
    }
    // A login for another project ends the poll.
    let other = Cloud::start(|n| granted(n, "other", HOUR, &Value::Null), |_| running()).await;
    let poll = query(&client, &other.overridden()).await;
    assert!(!poll.proves_project, "{poll:?}");
}

#[tokio::test]
async fn an_agency_is_assumed_with_the_token_of_its_caller() {
    let agency = "agency_name: exporter, agency_domain_name: OTC2, delegated_project: theirs";
    for (own_project, own_scope) in [
        ("", json!({"domain": {"name": "OTC1"}})),
        ("project_id: p1", json!({"project": {"id": "p1"}})),
    ] {
        let cloud = Cloud::start(accept, |_| running()).await;
        let url = &cloud.url;
        let credential = credential(&format!(
            "clouds: {{otc: {{auth: {{auth_url: '{url}', username: alice, password: {CANARY}, user_domain_name: OTC1, {own_project}}}, image_endpoint_override: '{url}', {agency}}}}}"
        ))
        .unwrap();
        let poll = query(&client(), &credential).await;
        assert_eq!(poll.outcome.category(), "answered", "{poll:?}");
        let logins = cloud.logins();
        assert_eq!(logins.len(), 2);
        assert_eq!(logins[0].body["auth"]["scope"], own_scope);
        assert!(!logins[0].headers.contains_key("x-auth-token"));
        assert_eq!(logins[1].token(), "token-1");
        let assumed = &logins[1].body["auth"];
        let role = json!({"agency_name": "exporter", "domain_name": "OTC2"});
        assert_eq!(assumed["identity"]["assume_role"], role);
        let theirs = json!({"project": {"name": "theirs", "domain": {"name": "OTC2"}}});
        assert_eq!(assumed["scope"], theirs);
        assert_eq!(cloud.queries()[0].token(), "token-2");
    }
}

#[tokio::test]
async fn a_rejected_login_does_not_pass_its_retry_after_off_as_the_image_services() {
    let login = |number| {
        let mut response = respond(401, "");
        let headers = response.headers_mut();
        headers.insert("retry-after", "17".parse().unwrap());
        if number == 1 {
            accept(number)
        } else {
            response
        }
    };
    let cloud = Cloud::start(login, |_| respond(401, "")).await;
    let poll = query(&client(), &cloud.overridden()).await;
    assert_eq!(
        error_of(&poll).reason,
        ConfigurationReason::CredentialsInvalid
    );
    let retry_after = Some(Duration::from_secs(17));
    assert_eq!((poll.retry_after, poll.endpoint), (retry_after, None));
}

#[tokio::test]
async fn a_given_token_is_never_replaced() {
    let cloud = Cloud::start(accept, |_| respond(401, "")).await;
    let url = &cloud.url;
    let given = credential(&format!(
        "clouds: {{otc: {{auth_type: token, auth: {{token: {CANARY}}}, image_endpoint_override: {url}}}}}"
    ));
    let poll = query(&client(), &given.unwrap()).await;
    let error = error_of(&poll);
    assert_eq!(
        (error.reason, poll.requests),
        (ConfigurationReason::CredentialsInvalid, 1)
    );
    assert!(error.message.contains("write a new token"), "{error:?}");
    assert_eq!(cloud.queries()[0].token(), CANARY);
    assert_eq!(cloud.logins().len(), 0);
}

#[tokio::test]
async fn a_given_token_without_an_endpoint_is_exchanged_for_one_with_a_catalog() {
    let cloud = Cloud::start(|n| granted(n, PROJECT, HOUR, &json!([])), |_| running()).await;
    let url = &cloud.url;
    let given = credential(&format!(
        "clouds: {{otc: {{auth_type: v3token, auth: {{auth_url: {url}, token: {CANARY}}}}}}}"
    ));
    let poll = query(&client(), &given.unwrap()).await;
    assert_eq!(error_of(&poll).reason, ConfigurationReason::EndpointInvalid);
    let login = &cloud.logins()[0];
    assert_eq!(login.uri.to_string(), "/v3/auth/tokens", "with a catalog");
    assert_eq!(
        login.body["auth"]["identity"],
        json!({"methods": ["token"], "token": {"id": CANARY}})
    );
}

#[tokio::test]
async fn what_each_status_of_the_identity_service_means() {
    for (status, expected) in [
        (401, Some(ConfigurationReason::CredentialsInvalid)),
        (403, Some(ConfigurationReason::AccessDenied)),
        (400, Some(ConfigurationReason::EndpointInvalid)),
        (404, Some(ConfigurationReason::EndpointInvalid)),
        (302, Some(ConfigurationReason::EndpointInvalid)),
        (429, None),
        (500, None),
        (503, None),
    ] {
        let login = move |_| {
            let mut response = respond(status, "<html>");
            response
                .headers_mut()
                .insert("retry-after", "17".parse().unwrap());
            response
        };
        let cloud = Cloud::start(login, |_| running()).await;
        let poll = query(&client(), &cloud.overridden()).await;
        let message = match (&poll.outcome, expected) {
            (Outcome::Misconfigured(error), Some(reason)) if error.reason == reason => {
                &error.message
            }
            (Outcome::Failed(failure), None) if failure.kind == FailureKind::Http => {
                assert_eq!(failure.stage, Stage::Login);
                &failure.message
            }
            other => panic!("{status}: {other:?}"),
        };
        assert!(
            message.contains("127.0.0.1") && message.contains(&status.to_string()),
            "{message}"
        );
        let remedy = "(401); check user, password, domain and project";
        assert_eq!(message.ends_with(remedy), status == 401, "{message}");
        assert_eq!(
            (poll.retry_after, poll.requests, poll.endpoint),
            (Some(Duration::from_secs(17)), 0, None)
        );
    }
}

#[tokio::test]
async fn an_accepted_login_must_grant_a_token_for_a_project() {
    for (body, token) in [
        ("{}", Some("t")),
        ("<html>", Some("t")),
        (r#"{"token":{"project":{"id":"p"}}}"#, None),
    ] {
        let login = move |_| {
            let mut response = respond(201, body);
            if let Some(token) = token {
                response
                    .headers_mut()
                    .insert("x-subject-token", token.parse().unwrap());
            }
            response
        };
        let cloud = Cloud::start(login, |_| running()).await;
        let poll = query(&client(), &cloud.overridden()).await;
        assert!(
            matches!(&poll.outcome, Outcome::Failed(failure) if failure.kind == FailureKind::Malformed && failure.stage == Stage::Login),
            "{body}: {poll:?}"
        );
    }
}

#[tokio::test]
async fn a_token_may_have_32_kib() {
    const LONGEST: usize = 32 * 1024;
    for (length, category) in [(LONGEST, "answered"), (LONGEST + 1, "malformed")] {
        let login = move |number| {
            let mut response = accept(number);
            let token = "x".repeat(length).parse().unwrap();
            response.headers_mut().insert("x-subject-token", token);
            response
        };
        let cloud = Cloud::start(login, |_| running()).await;
        let poll = query(&client(), &cloud.overridden()).await;
        assert_eq!(poll.outcome.category(), category, "{length}");
    }
}

#[tokio::test]
async fn the_endpoint_comes_from_the_catalog() {
    // The project of the answer is called "eu-de_team".
    for (more, regions, expected) in [
        ("region_name: eu-nl", &["eu-de", "eu-nl"][..], Ok("eu-nl")),
        ("", &["eu-nl", "eu-de"], Ok("eu-de")),
        ("", &["RegionOne"], Ok("RegionOne")),
        ("", &["a", "b"], Err("set region_name to one of: a, b")),
        (
            "region_name: eu-ch",
            &["eu-de"],
            Err("set region_name to one of: eu-de"),
        ),
        (
            "interface: internal",
            &["eu-de"],
            Err("no image service with the wanted interface"),
        ),
        ("", &[], Err("set image_endpoint_override")),
    ] {
        let place = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
        let own = std::sync::Arc::clone(&place);
        let login = move |n| {
            granted(
                n,
                PROJECT,
                HOUR,
                &Cloud::catalog(own.get().unwrap(), regions),
            )
        };
        let cloud = Cloud::start(login, |_| running()).await;
        place.set(cloud.url.clone()).unwrap();
        let poll = query(&client(), &cloud.credential(more)).await;
        match expected {
            Ok(region) => {
                assert_eq!(poll.outcome.category(), "answered", "{poll:?}");
                assert_eq!(
                    cloud.queries()[0].uri.path(),
                    format!("/{region}/v1/{PROJECT}/jobs/{JOB}")
                );
            }
            Err(words) => {
                let error = error_of(&poll);
                assert_eq!(error.reason, ConfigurationReason::EndpointInvalid);
                assert!(error.message.contains(words), "{error:?}");
            }
        }
    }
}
