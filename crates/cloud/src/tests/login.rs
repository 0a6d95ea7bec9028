//! Logins: how many there are, for which scope, when they are repeated, and what a failed one means.

use super::{
    CANARY, credential,
    fake_cloud::{
        Cloud, JOB, PROJECT, accept, client, client_with, granted, query, query_in, respond,
        running,
    },
    lab,
};
use crate::{CloudOptions, Pacing};
use futures::future::join_all;
use image_export_model::{
    ConfigurationError, ConfigurationReason, FailureKind, Observation, Outcome, Stage,
};
use serde_json::{Value, json};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

/// Pauses that no slow machine outlasts.
fn slow_pacing() -> Pacing {
    Pacing {
        login_retry_min: Duration::from_secs(300),
        login_retry_max: Duration::from_secs(300),
        ..Pacing::default()
    }
}

fn error_of(observation: &Observation) -> &ConfigurationError {
    let Outcome::Misconfigured(error) = &observation.outcome else {
        panic!("{observation:?}")
    };
    assert!(
        !error.message.contains(CANARY) && !error.message.contains("token-"),
        "{error:?}"
    );
    error
}

#[tokio::test]
async fn many_objects_on_one_credential_cause_one_login() {
    let cloud = Cloud::start(accept, |_| running()).await;
    let (client, credential) = (client(), cloud.overridden());
    let polls = join_all((0..100).map(|_| query(&client, &credential))).await;
    for poll in polls {
        assert_eq!(
            (poll.outcome.category(), poll.requests),
            ("answered", 1),
            "{poll:?}"
        );
    }
    assert_eq!(cloud.logins().len(), 1);
    assert_eq!(cloud.queries().len(), 100);
}

#[tokio::test]
async fn many_objects_on_a_broken_credential_share_one_failed_login() {
    let cloud = Cloud::start(|_| respond(401, "{}"), |_| running()).await;
    let (client, credential) = (client(), cloud.overridden());
    for _ in 0..3 {
        let polls = join_all((0..100).map(|_| query(&client, &credential))).await;
        for poll in polls {
            assert_eq!(
                error_of(&poll).reason,
                ConfigurationReason::CredentialsInvalid
            );
            assert_eq!((poll.requests, poll.endpoint), (0, None));
        }
    }
    assert_eq!(cloud.logins().len(), 1);
    assert_eq!(cloud.queries().len(), 0);
}

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

/// One job of a credential is always rejected, beside others that are accepted.
#[tokio::test]
async fn a_job_that_is_always_rejected_does_not_cause_a_login_for_each_poll() {
    let answer = |query: &super::fake_cloud::Seen| {
        if query.uri.path().ends_with(JOB) {
            respond(401, r#"{"error_code":"APIGW.0307"}"#)
        } else {
            let good = json!({"job_id": "good", "status": "RUNNING"});
            respond(200, good.to_string())
        }
    };
    let cloud = Cloud::start(accept, answer).await;
    let (client, credential) = (client(), cloud.overridden());
    for _ in 0..20 {
        let bad = query(&client, &credential).await;
        let message = &error_of(&bad).message;
        assert!(message.contains("and a fresh one as well"), "{message}");
        let good = client
            .query(
                &credential,
                &PROJECT.parse().unwrap(),
                &"good".parse().unwrap(),
            )
            .await;
        assert_eq!((good.outcome.category(), good.requests), ("answered", 1));
    }
    assert_eq!(cloud.logins().len(), 2);
}

/// A login that is throttled for `seconds`, the others accepted.
fn throttled_login(number: usize, seconds: Option<&str>) -> axum::http::Response<axum::body::Body> {
    let mut response = respond(429, "");
    if let Some(seconds) = seconds {
        let seconds = seconds.parse().unwrap();
        response.headers_mut().insert("retry-after", seconds);
    }
    if number == 1 {
        accept(number)
    } else {
        response
    }
}

#[tokio::test]
async fn no_login_of_a_credential_is_sent_before_the_retry_after_of_the_identity_service() {
    for seconds in [Some("600"), None] {
        // The first token is rejected; whoever else needs one has to wait.
        let cloud = Cloud::start(
            move |n| throttled_login(n, seconds),
            |_| {
                let mut response = respond(401, "");
                let headers = response.headers_mut();
                headers.insert("retry-after", "7".parse().unwrap());
                response
            },
        )
        .await;
        let client = client_with(CloudOptions {
            pacing: slow_pacing().into(),
            ..lab()
        });
        let credential = cloud.overridden();
        let first = query(&client, &credential).await;
        let message = "limits the rate of logins (429)";
        let mut polls = vec![(first, 1, message)];
        for project in [PROJECT, "p2", "p3", PROJECT, "p2"] {
            let message = match project {
                PROJECT => message,
                _ => "permits no login for now",
            };
            let requests = u32::from(project == PROJECT);
            polls.push((
                query_in(&client, &credential, project).await,
                requests,
                message,
            ));
        }
        for (poll, requests, message) in polls {
            let Outcome::Failed(failure) = &poll.outcome else {
                panic!("{poll:?}")
            };
            assert_eq!(
                (failure.stage, failure.kind),
                (Stage::Login, FailureKind::Http)
            );
            assert!(failure.message.ends_with(message), "{failure:?}");
            assert_eq!((poll.requests, &poll.endpoint), (requests, &None));
            // What is left of it; an answer that names none has none itself.
            let wait = poll.retry_after.map(|wait| wait.as_secs_f32().ceil());
            let is_right = match (seconds, message) {
                (Some(_), _) => wait.is_some_and(|wait| wait <= 600.0),
                (None, "permits no login for now") => wait.is_some_and(|wait| wait <= 300.0),
                _ => wait.is_none(),
            };
            assert!(is_right, "{poll:?}");
        }
        assert_eq!(cloud.logins().len(), 2);

        let other = cloud.overridden();
        query(&client, &other).await;
        assert_eq!(cloud.logins().len(), 3, "another credential may log in");
    }
}

#[tokio::test]
async fn rejected_logins_open_the_circuit_of_their_user_and_failed_ones_do_not() {
    for (status, sent, open) in [(401, 3, 1), (403, 5, 0), (500, 5, 0), (503, 5, 0)] {
        let cloud = Cloud::start(move |_| respond(status, ""), |_| running()).await;
        let (client, credential) = (client(), cloud.overridden());
        let mut last = None;
        for project in ["p1", "p2", "p3", "p4", "p5"] {
            last = Some(query_in(&client, &credential, project).await);
        }
        assert_eq!((cloud.logins().len(), client.open_breakers()), (sent, open));
        if open == 1 {
            let message = &error_of(&last.unwrap()).message.to_string();
            let words = "rejected this user's logins 3 times in a row (401), with cloud \"otc\"";
            assert!(
                message.contains(words) && message.contains("every 5 min"),
                "{message}"
            );
        }
    }
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

/// Logins that waited for others of the same user to end are not sent either.
#[tokio::test]
async fn a_throttled_login_stops_those_that_wait_behind_it() {
    let login = |_| throttled_login(0, Some("600"));
    let cloud = Cloud::start(login, |_| running()).await;
    let (client, credential) = (client(), cloud.overridden());
    let projects: Vec<_> = (0..20).map(|n| format!("p{n}")).collect();
    let polls = projects
        .iter()
        .map(|project| query_in(&client, &credential, project));
    for poll in join_all(polls).await {
        assert_eq!(poll.outcome.category(), "http_error");
    }
    assert_eq!(cloud.logins().len(), 3, "as many as may fail at once");
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

/// An identity service that repeats the password, or the token that it issues, in what messages name.
#[tokio::test]
async fn a_secret_that_the_identity_service_repeats_is_not_shown() {
    const TOKEN: &str = "issued-canary-9b1c";
    for echo in [CANARY, TOKEN, "CANARY-7F3A", "x issued-CANARY-9b1c x"] {
        for (more, project, regions, shown) in [
            (
                "region_name: eu-de",
                PROJECT,
                [echo, "a"],
                "set region_name to one of: ",
            ),
            (
                "region_name: eu-de",
                echo,
                ["eu-de", "a"],
                "signs in to project ",
            ),
        ] {
            let login = move |n| {
                let catalog = Cloud::catalog("http://127.0.0.1:1", &regions);
                let mut response = granted(n, project, HOUR, &catalog);
                let headers = response.headers_mut();
                headers.insert("x-subject-token", TOKEN.parse().unwrap());
                response
            };
            let cloud = Cloud::start(login, |_| running()).await;
            let (client, credential) = (client(), cloud.credential(more));
            // Once by the login itself, once by what is remembered of it.
            for _ in 0..2 {
                let poll = query(&client, &credential).await;
                let message = error_of(&poll).message.to_lowercase();
                assert!(
                    message.contains(shown) && message.contains("[redacted]"),
                    "{message}"
                );
                assert!(!message.contains("canary"), "{message}");
            }
        }
    }
}

/// A host may be a secret: here the address of the fake cloud.
#[tokio::test]
async fn a_host_that_holds_a_secret_is_not_shown() {
    const HOST: &str = "127.0.0.1";
    for (password, token) in [(HOST, "issued-token"), ("some-password", HOST)] {
        let login = move |n| {
            let mut response = accept(n);
            let headers = response.headers_mut();
            headers.insert("x-subject-token", token.parse().unwrap());
            response
        };
        let cloud = Cloud::start(login, |_| respond(503, "")).await;
        let url = &cloud.url;
        let port = url.rsplit_once(':').unwrap().1;
        let credential = credential(&format!(
            "clouds: {{otc: {{auth: {{auth_url: '{url}', user_id: u, password: {password}}}, image_endpoint_override: '{url}'}}}}"
        ))
        .unwrap();
        let poll = query(&client(), &credential).await;
        let shown = format!("[redacted]:{port}");
        assert_eq!(poll.endpoint.as_deref(), Some(&*shown));
        let message = format!("{shown} answered 503");
        assert_eq!(poll.outcome.message(), Some(&*message));
    }
    // The identity service, and the image service of an access key.
    let cloud = Cloud::start(|_| respond(500, ""), |_| respond(401, "")).await;
    let url = &cloud.url;
    for entry in [
        format!("auth: {{auth_url: '{url}', user_id: u, password: {HOST}}}"),
        format!("ak: AK, sk: {HOST}, image_endpoint_override: '{url}'"),
    ] {
        let credential = credential(&format!("clouds: {{otc: {{{entry}}}}}")).unwrap();
        let poll = query(&client(), &credential).await;
        let message = poll.outcome.message().unwrap();
        assert!(
            !message.contains(HOST) && message.contains("[redacted]:"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn an_agency_whose_name_is_a_secret_is_not_shown() {
    for status in [400, 403] {
        let login = move |n| match n {
            1 => accept(n),
            _ => respond(status, ""),
        };
        let cloud = Cloud::start(login, |_| running()).await;
        let agency = "agency_name: x canary-7f3a, agency_domain_name: OTC2, delegated_project: p";
        let poll = query(&client(), &cloud.credential(agency)).await;
        let message = &error_of(&poll).message;
        assert!(message.contains("agency x [redacted]"), "{message}");
    }
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

/// `auth::tokens` has the tests of half-life, in virtual time.
#[tokio::test]
async fn an_expired_token_is_replaced_and_a_failed_login_not_repeated_at_once() {
    let login = |n| match n {
        1 => granted(n, PROJECT, Duration::from_secs(1), &Value::Null),
        _ => respond(503, ""),
    };
    let cloud = Cloud::start(login, |_| running()).await;
    let client = client_with(CloudOptions {
        pacing: slow_pacing().into(),
        ..lab()
    });
    let credential = cloud.overridden();
    let first = query(&client, &credential).await;
    assert_eq!(first.outcome.category(), "answered");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for _ in 0..2 {
        let expired = query(&client, &credential).await;
        assert_eq!(expired.outcome.category(), "http_error");
        assert_eq!(cloud.logins().len(), 2);
    }
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
        assert_eq!(
            (poll.retry_after, poll.requests, poll.endpoint),
            (Some(Duration::from_secs(17)), 0, None)
        );
    }
}

#[tokio::test]
async fn a_throttled_login_is_transient_whatever_its_status() {
    for status in [400, 401, 403, 429] {
        let body =
            r#"{"error_code":"APIGW.0308","error_msg":"over ratelimit,limit:5,time:1 minute"}"#;
        let cloud = Cloud::start(move |_| respond(status, body), |_| running()).await;
        let poll = query(&client(), &cloud.overridden()).await;
        assert_eq!(poll.outcome.category(), "http_error", "{status}: {poll:?}");
        assert_eq!(poll.retry_after, Some(Duration::from_secs(60)));
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
