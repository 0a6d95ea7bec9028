//! How many logins are sent, and when: one for many objects, none before its time.

use super::{
    credential, error_of,
    fake_cloud::{
        Cloud, JOB, PROJECT, accept, client, client_with, granted, query, query_in, respond,
        running,
    },
    lab,
};
use crate::{CloudClient, CloudOptions, Credential, Pacing, config::Endpoint};
use futures::future::join_all;
use image_export_model::{Caller, ConfigurationReason, FailureKind, Observation, Outcome, Stage};
use serde_json::{Value, json};
use std::time::Duration;

/// Pauses that no slow machine outlasts.
fn slow_pacing() -> Pacing {
    Pacing {
        login_retry_min: Duration::from_secs(300),
        login_retry_max: Duration::from_secs(300),
        ..Pacing::default()
    }
}

/// Polls a hundred times at once while nobody has a token: one logs in, and the others do not wait for it.
async fn first_polls(client: &CloudClient, credential: &Credential) -> Observation {
    let mut polls = join_all((0..100).map(|_| query(client, credential))).await;
    for poll in polls.drain(1..) {
        let (requests, login) = (poll.requests, poll.signed_in);
        let deferred = Outcome::Deferred(Pacing::default().login_deferral);
        assert_eq!((poll.outcome, requests, login), (deferred, 0, false));
        assert_eq!((poll.endpoint, poll.identity), (None, None));
    }
    polls.remove(0)
}

#[tokio::test]
async fn many_objects_on_one_credential_cause_one_login() {
    let cloud = Cloud::start(accept, |_| running()).await;
    let (client, credential) = (client(), cloud.overridden());
    let first = first_polls(&client, &credential).await;
    assert_eq!(first.outcome.category(), "answered", "{first:?}");
    let polls = join_all((0..99).map(|_| query(&client, &credential))).await;
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
    let first = first_polls(&client, &credential).await;
    let mut polls = join_all((0..200).map(|_| query(&client, &credential))).await;
    polls.push(first);
    for poll in polls {
        assert_eq!(
            error_of(&poll).reason,
            ConfigurationReason::CredentialsInvalid
        );
        assert_eq!((poll.requests, poll.endpoint), (0, None));
    }
    assert_eq!(cloud.logins().len(), 1);
    assert_eq!(cloud.queries().len(), 0);
}

/// The request that was sent counts towards the quota; the answer is not that of the image service.
#[tokio::test]
async fn a_poll_whose_token_is_rejected_is_deferred_while_another_one_logs_in() {
    let reject = |_: &super::fake_cloud::Seen| respond(401, r#"{"error_code":"APIGW.0307"}"#);
    let cloud = Cloud::start(accept, reject).await;
    let (client, credential) = (client(), cloud.overridden());
    let slot = credential.tokens.slot(Some(&PROJECT.parse().unwrap()));
    let granted = || {
        let mut grant = super::grant();
        grant.endpoint = Endpoint::parse(&cloud.url, &lab().policy).unwrap();
        Ok(grant)
    };
    let (pacing, job) = (Pacing::default(), JOB.parse().unwrap());
    let old = slot.session(&pacing, None, true, async || granted()).await;
    let old = old.expect("a token");
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let other = slot.session(&pacing, Some((&old, &job)), true, || async {
        let _ = ended.await;
        granted()
    });
    let polls = async {
        let before = query(&client, &credential).await;
        // As another job does, whose answer was under way.
        slot.accept(&old, &job);
        let after = query(&client, &credential).await;
        drop(end);
        [(before, 0), (after, 1)]
    };
    let (other, polls) = tokio::join!(other, polls);
    assert!(other.is_ok());
    for (poll, requests) in polls {
        let seen = (poll.outcome.category(), poll.requests, poll.signed_in);
        assert_eq!(seen, ("deferred", requests, false), "{poll:?}");
        assert_eq!((poll.endpoint, poll.retry_after), (None, None));
    }
    assert_eq!(cloud.logins().len(), 0);
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
                &Caller::default(),
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

/// The pause of a login that was not sent is that of its circuit, not that of a rejected one.
#[tokio::test]
async fn a_login_that_an_open_circuit_stopped_is_sent_when_that_permits() {
    let answer = |number| {
        if number <= 3 {
            respond(401, "")
        } else {
            accept(number)
        }
    };
    let cloud = Cloud::start(answer, |_| running()).await;
    let client = client_with(CloudOptions {
        pacing: Pacing {
            breaker_pause: Duration::from_millis(40),
            login_rejected: Duration::from_secs(300),
            ..Pacing::default()
        }
        .into(),
        ..lab()
    });
    let credential = cloud.overridden();
    for project in ["p1", "p2", "p3"] {
        query_in(&client, &credential, project).await;
    }
    // On a slow machine the circuit permits it already.
    query(&client, &credential).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let poll = query(&client, &credential).await;
    assert_eq!(poll.outcome.category(), "answered", "{poll:?}");
}

/// A wrong secret key of somebody else does not count for the right one.
#[tokio::test]
async fn secrets_of_one_access_key_are_told_apart() {
    let answer = |query: &super::fake_cloud::Seen| {
        if query
            .headers
            .get("x-security-token")
            .is_some_and(|token| token == "wrong")
        {
            respond(401, r#"{"error_code":"APIGW.0301"}"#)
        } else {
            running()
        }
    };
    let cloud = Cloud::start(accept, answer).await;
    let with = |token: &str| {
        let url = &cloud.url;
        let fields =
            format!("ak: AK, sk: s, security_token: {token}, image_endpoint_override: {url}");
        credential(&format!("clouds: {{otc: {{{fields}}}}}")).unwrap()
    };
    let (client, right, wrong) = (client(), with("right"), with("wrong"));
    assert_eq!(query(&client, &right).await.outcome.category(), "answered");
    for _ in 0..4 {
        let poll = query(&client, &wrong).await;
        assert_eq!(poll.outcome.category(), "credentials_invalid", "{poll:?}");
    }
    assert_eq!(
        cloud.queries().len(),
        4,
        "the wrong one is stopped after three"
    );
    assert_eq!(query(&client, &right).await.outcome.category(), "answered");
}

#[tokio::test]
async fn logins_beyond_those_that_may_fail_at_once_are_deferred_and_a_throttled_one_stops_them() {
    let login = |_| throttled_login(0, Some("600"));
    let cloud = Cloud::start(login, |_| running()).await;
    let (client, credential) = (client(), cloud.overridden());
    let projects: Vec<_> = (0..20).map(|n| format!("p{n}")).collect();
    for may_fail in [3, 20] {
        let polls = projects
            .iter()
            .map(|project| query_in(&client, &credential, project));
        for (n, poll) in join_all(polls).await.into_iter().enumerate() {
            let expected = if n < may_fail {
                "http_error"
            } else {
                "deferred"
            };
            assert_eq!(poll.outcome.category(), expected, "{n}: {poll:?}");
            assert_eq!(poll.requests, 0);
            assert!(expected == "http_error" || !poll.signed_in, "{poll:?}");
        }
    }
    assert_eq!(cloud.logins().len(), 3);
}

/// A key that is tried for the first time.
#[tokio::test]
async fn signatures_beyond_those_that_may_fail_at_once_are_deferred() {
    let cloud = Cloud::start(accept, |_| running()).await;
    let keys = format!(
        "clouds: {{otc: {{ak: AK, sk: some-secret-key, image_endpoint_override: '{}'}}}}",
        cloud.url
    );
    let (client, keys) = (client(), credential(&keys).unwrap());
    for answered in [3, 10] {
        let polls = join_all((0..10).map(|_| query(&client, &keys))).await;
        for (n, poll) in polls.into_iter().enumerate() {
            let expected = if n < answered {
                ("answered", 1)
            } else {
                ("deferred", 0)
            };
            assert_eq!((poll.outcome.category(), poll.requests), expected);
        }
    }
}

/// Wrong passwords in many spellings of an account that the cloud has shown under its names.
#[tokio::test]
async fn spellings_of_one_account_share_its_attempts() {
    let login = |n| if n == 1 { accept(n) } else { respond(401, "") };
    let cloud = Cloud::start(login, |_| running()).await;
    let client = client();
    let owner = query(&client, &cloud.overridden()).await;
    assert_eq!(owner.outcome.category(), "answered", "{owner:?}");
    let users = [
        "username: alice, user_domain_name: OTC1",
        "username: ALICE, user_domain_name: OTC1",
        "username: ' Alice ', user_domain_name: otc1",
        "username: alicé, user_domain_name: 'OTC1 '",
        "username: alice, user_domain_id: otc1-id",
        "username: aLice, user_domain_id: OTC1-ID",
        "user_id: alice-id",
        "user_id: ALICE-id",
    ];
    let mut sent = 0;
    for (n, user) in users.iter().cycle().take(24).enumerate() {
        let url = &cloud.url;
        let auth = format!("auth_url: {url}, {user}, password: wrong-{n}");
        let fields = format!("auth: {{{auth}}}, image_endpoint_override: {url}");
        let wrong = credential(&format!("clouds: {{otc: {{{fields}}}}}")).unwrap();
        let poll = query(&client, &wrong).await;
        assert_eq!(
            error_of(&poll).reason,
            ConfigurationReason::CredentialsInvalid
        );
        sent = cloud.logins().len() - 1;
    }
    assert_eq!(sent, 3);
}

/// The breaker of a key at one host is not that of another host.
#[tokio::test]
async fn wrong_signatures_at_another_host_do_not_stop_a_key() {
    let reject = |_: &super::fake_cloud::Seen| respond(401, r#"{"error_code":"APIGW.0301"}"#);
    let elsewhere = Cloud::start(accept, reject).await;
    let own = Cloud::start(accept, |_| running()).await;
    let client = client();
    let with = |secret: &str, cloud: &Cloud| {
        let url = &cloud.url;
        let fields = format!("ak: AK, sk: {secret}, image_endpoint_override: '{url}'");
        credential(&format!("clouds: {{otc: {{{fields}}}}}")).unwrap()
    };
    for _ in 0..5 {
        query(&client, &with("wrong", &elsewhere)).await;
    }
    assert_eq!((elsewhere.queries().len(), client.open_breakers()), (3, 1));
    let poll = query(&client, &with("right", &own)).await;
    assert_eq!(poll.outcome.category(), "answered", "{poll:?}");
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

/// The core takes a login that succeeds for the end of an outage.
#[tokio::test]
async fn a_token_that_outlives_a_failed_login_shows_nothing_of_the_identity_service() {
    let login = |n| match n {
        1 => granted(n, PROJECT, Duration::from_secs(30), &Value::Null),
        _ => respond(503, ""),
    };
    let cloud = Cloud::start(login, |_| running()).await;
    let (client, credential) = (client(), cloud.overridden());
    let first = query(&client, &credential).await;
    assert!(first.signed_in && first.identity.is_some(), "{first:?}");
    tokio::time::sleep(Duration::from_millis(15_100)).await;
    let later = query(&client, &credential).await;
    assert_eq!(later.outcome.category(), "answered", "{later:?}");
    assert_eq!((later.signed_in, later.identity), (true, None));
    assert_eq!(cloud.logins().len(), 2);
}

/// The gateway has checked the signature before the image service looks at the project.
#[tokio::test]
async fn projects_that_a_key_has_no_right_to_do_not_stop_it_in_its_own() {
    let answer = |query: &super::fake_cloud::Seen| match query.uri.path().split('/').nth(2) {
        Some(PROJECT) => running(),
        Some("unknown") => respond(401, r#"{"error_code":"APIGW.0301"}"#),
        _ => respond(400, r#"{"error":{"code":"IMG.0030","message":"x"}}"#),
    };
    let cloud = Cloud::start(accept, answer).await;
    let url = &cloud.url;
    let keys = format!("clouds: {{otc: {{ak: AK, sk: s, image_endpoint_override: '{url}'}}}}");
    let (client, keys) = (client(), credential(&keys).unwrap());
    for _ in 0..3 {
        let own = query(&client, &keys).await;
        assert_eq!(own.outcome.category(), "answered", "{own:?}");
        for project in ["p1", "p2", "unknown", "p3", "unknown"] {
            let wrong = query_in(&client, &keys, project).await;
            let message = error_of(&wrong).message.to_string();
            let remedy = if project == "unknown" {
                "check ak, sk and security_token"
            } else {
                "(400 IMG.0030: project id and token do not match); check projectID"
            };
            assert!(message.ends_with(remedy), "{message}");
        }
    }
    assert_eq!(client.open_breakers(), 0);
    let unknown = cloud.queries();
    let unknown = unknown
        .iter()
        .filter(|query| query.uri.path().contains("/unknown/"));
    assert_eq!(unknown.count(), 1, "not repeated within the pause");
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
