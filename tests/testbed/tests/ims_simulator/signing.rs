//! Signed requests: the verifier by the published vectors, then keys, windows and locks.

use crate::{PROJECT, client, error, finished_job, message, simulator};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use hmac::{Hmac, KeyInit, Mac};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use reqwest::Response;
use sha2::{Digest, Sha256};
use std::time::{Duration, SystemTime};
use testbed::ims::{
    AccessKey, Config, Credential, JobKey, SIGNATURE_WINDOW, SignatureError, Simulator,
    verify_signature,
};

const AK: &str = "QTWAOYTTINDUT2QVKYUC";
const SK: &str = "MFyfvK41ba2giqM7Uio6PznpdUKGpownRZlmVmHc";

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::try_from(*value).unwrap(),
            )
        })
        .collect()
}

const VPCS: &str = "/v1/77b6a44cba5143ab91d13ab9a8ff44fd/vpcs";
const VPCS_QUERY: &str = "limit=2&marker=13551d6b-755d-4757-b956-536f674975c0";
const VPCS_SIGNATURE: &str = "7be6668032f70418fcc22abc52071e57aff61b84a1d2381bb430d6870f4f6ebe";

fn vpcs_headers(signed_headers: &str, signature: &str) -> HeaderMap {
    headers(&[
        ("host", "service.region.example.com"),
        ("content-type", "application/json"),
        ("x-sdk-date", "20191115T033655Z"),
        (
            "authorization",
            &format!(
                "SDK-HMAC-SHA256 Access={AK}, SignedHeaders={signed_headers}, Signature={signature}"
            ),
        ),
    ])
}

#[test]
fn the_published_vectors_hold() {
    let vpcs = vpcs_headers("content-type;host;x-sdk-date", VPCS_SIGNATURE);
    assert_eq!(
        verify_signature("GET", VPCS, Some(VPCS_QUERY), &vpcs, b"", SK),
        Ok(())
    );
    for (method, body, signature) in [
        (
            "GET",
            "",
            "cfb4171acec81de07d50e53d57eb77edd537414d66ddb1d7d780f128e12cd842",
        ),
        (
            "POST",
            r#"{"name":"test","id":1}"#,
            "436b1ac0a1ae03705934bb70ef2f2e09f7bfed2117d731a38235053199323a1f",
        ),
    ] {
        let resources = headers(&[
            ("host", "service.endpoint.myhuaweicloud.com"),
            ("x-sdk-date", "20200608T023900Z"),
            (
                "authorization",
                &format!(
                    "SDK-HMAC-SHA256 Access=AccessKey, SignedHeaders=host;x-sdk-date, Signature={signature}"
                ),
            ),
        ]);
        assert_eq!(
            verify_signature(
                method,
                "/resources",
                Some("size=1"),
                &resources,
                body.as_bytes(),
                "SecretKey"
            ),
            Ok(()),
            "{method}"
        );
    }
}

#[test]
fn whatever_is_changed_after_signing_breaks_the_signature() {
    let signed = vpcs_headers("content-type;host;x-sdk-date", VPCS_SIGNATURE);
    let mut other_host = signed.clone();
    other_host.insert("host", HeaderValue::from_static("elsewhere.example.com"));
    let check =
        |method: &str, path: &str, query: &str, headers: &HeaderMap, body: &[u8], key: &str| {
            verify_signature(method, path, Some(query), headers, body, key)
        };
    for changed in [
        check("PUT", VPCS, VPCS_QUERY, &signed, b"", SK),
        check("GET", "/v1/other/vpcs", VPCS_QUERY, &signed, b"", SK),
        check("GET", VPCS, "limit=3", &signed, b"", SK),
        check("GET", VPCS, VPCS_QUERY, &other_host, b"", SK),
        check("GET", VPCS, VPCS_QUERY, &signed, b" ", SK),
        check("GET", VPCS, VPCS_QUERY, &signed, b"", "another"),
    ] {
        assert_eq!(changed, Err(SignatureError::Mismatch));
    }
    // The canonical form has a final slash and a sorted query, whatever the wire has.
    let (limit, marker) = VPCS_QUERY.split_once('&').unwrap();
    let path = format!("{VPCS}/");
    let query = format!("{marker}&{limit}");
    assert_eq!(check("GET", &path, &query, &signed, b"", SK), Ok(()));
}

#[test]
fn each_malformed_signature_has_its_own_error() {
    let verify =
        |headers: &HeaderMap| verify_signature("GET", VPCS, Some(VPCS_QUERY), headers, b"", SK);
    for (signed_headers, error) in [
        (
            "host;content-type;x-sdk-date",
            SignatureError::UnsortedHeaders,
        ),
        ("Host;x-sdk-date", SignatureError::UnsortedHeaders),
        ("host;host;x-sdk-date", SignatureError::UnsortedHeaders),
        ("host;x-sdk-date;x_y", SignatureError::UnderscoreHeader),
        ("content-type;x-sdk-date", SignatureError::UnsignedHeader),
        ("content-type;host", SignatureError::UnsignedHeader),
        ("", SignatureError::UnsignedHeader),
        ("host;x-absent;x-sdk-date", SignatureError::MissingHeader),
    ] {
        assert_eq!(
            verify(&vpcs_headers(signed_headers, VPCS_SIGNATURE)),
            Err(error),
            "{signed_headers}"
        );
    }
    for authorization in [
        "",
        "SDK-HMAC-SHA256",
        "SDK-HMAC-SHA256 Access=a, SignedHeaders=host;x-sdk-date",
        "SDK-HMAC-SHA256 SignedHeaders=host;x-sdk-date, Access=a, Signature=0",
        "AWS4-HMAC-SHA256 Access=a, SignedHeaders=host;x-sdk-date, Signature=0",
    ] {
        let mut headers = vpcs_headers("host", "0");
        headers.insert(
            "authorization",
            HeaderValue::try_from(authorization).unwrap(),
        );
        assert_eq!(
            verify(&headers),
            Err(SignatureError::Malformed),
            "{authorization}"
        );
    }
    for date in [
        "20191115T033655",
        "2019-11-15T03:36Z",
        "20191315T033655Z",
        "now",
    ] {
        let mut headers = vpcs_headers("content-type;host;x-sdk-date", VPCS_SIGNATURE);
        headers.insert("x-sdk-date", HeaderValue::from_static(date));
        assert_eq!(verify(&headers), Err(SignatureError::BadDate), "{date}");
    }
}

/// A job query to be signed; the tests change one thing each.
struct Query<'a> {
    access_key: &'a str,
    secret_key: &'a str,
    project: Option<&'a str>,
    security_token: Option<&'a str>,
    /// Clock of the signer, seconds ahead of the real one.
    ahead: i64,
}

impl Default for Query<'_> {
    fn default() -> Self {
        Self {
            access_key: AK,
            secret_key: SK,
            project: Some(PROJECT),
            security_token: None,
            ahead: 0,
        }
    }
}

impl Query<'_> {
    /// Signs by hand: these paths need no encoding, and there is no query.
    async fn send(&self, url: &str) -> Response {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let signed_at = i64::try_from(now).unwrap() + self.ahead;
        let date = Timestamp::from_second(signed_at).unwrap();
        let date = date.strftime("%Y%m%dT%H%M%SZ").to_string();
        let (host, path) = url
            .strip_prefix("http://")
            .unwrap()
            .split_once('/')
            .unwrap();
        let mut signed = vec![("host", host)];
        signed.extend(self.project.map(|project| ("x-project-id", project)));
        signed.push(("x-sdk-date", &date));
        signed.extend(self.security_token.map(|token| ("x-security-token", token)));
        let names: Vec<&str> = signed.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let mut lines = String::new();
        for (name, value) in &signed {
            lines.extend([*name, ":", *value, "\n"]);
        }
        let hash = |text: &str| hex(&Sha256::digest(text));
        let canonical = format!("GET\n/{path}/\n\n{lines}\n{names}\n{}", hash(""));
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret_key.as_bytes()).unwrap();
        mac.update(format!("SDK-HMAC-SHA256\n{date}\n{}", hash(&canonical)).as_bytes());
        let signature = hex(&mac.finalize().into_bytes());
        let mut request = client().get(url);
        for (name, value) in signed.into_iter().filter(|(name, _)| *name != "host") {
            request = request.header(name, value);
        }
        let access_key = self.access_key;
        let request = request.header(
            "Authorization",
            format!(
                "SDK-HMAC-SHA256 Access={access_key}, SignedHeaders={names}, Signature={signature}"
            ),
        );
        request.send().await.expect("an answer")
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn with_key(key: AccessKey) -> (Simulator, JobKey) {
    let simulator = simulator();
    simulator.add_key(key);
    let key = finished_job(&simulator);
    (simulator, key)
}

const REFUSED: (u16, &str) = (401, "APIGW.0301");

async fn refusal(response: Response) -> String {
    let (status, code, message) = message(response).await;
    assert_eq!((status, code.as_str()), REFUSED, "{message}");
    message
}

#[tokio::test]
async fn a_right_signature_is_accepted_on_both_paths() {
    let (simulator, key) = with_key(AccessKey::new(AK, SK));
    let query = Query::default();
    assert_eq!(query.send(&simulator.job_url(&key)).await.status(), 200);
    assert_eq!(
        query.send(&simulator.newer_job_url(&key)).await.status(),
        200
    );
    assert_eq!(simulator.requests()[0].credential, Credential::Signature);
    assert_eq!(simulator.polls(&key), 2);
}

#[tokio::test]
async fn the_header_x_project_id_has_to_name_the_project_and_the_key_to_open_it() {
    let (simulator, key) = with_key(AccessKey::new(AK, SK).project(PROJECT));
    let mismatch = (400, "IMG.0030".to_owned());
    for project in [None, Some("other-project")] {
        let query = Query {
            project,
            ..Query::default()
        };
        assert_eq!(
            error(query.send(&simulator.job_url(&key)).await).await,
            mismatch
        );
        assert_eq!(
            error(query.send(&simulator.newer_job_url(&key)).await).await,
            mismatch
        );
    }
    let elsewhere = JobKey::new("other-project", &key.job);
    let query = Query {
        project: Some("other-project"),
        ..Query::default()
    };
    assert_eq!(
        error(query.send(&simulator.job_url(&elsewhere)).await).await,
        mismatch
    );
    assert_eq!(
        Query::default()
            .send(&simulator.job_url(&key))
            .await
            .status(),
        200
    );
}

#[tokio::test]
async fn unknown_disabled_and_removed_keys_do_not_exist() {
    let (simulator, key) = with_key(AccessKey::new(AK, SK));
    let url = simulator.job_url(&key);
    let unknown = Query {
        access_key: "NOBODY",
        ..Query::default()
    };
    assert_eq!(
        refusal(unknown.send(&url).await).await,
        "Incorrect IAM authentication information: Get secretKey failed,ak:NOBODY,err:ak not exist"
    );
    simulator.set_key_enabled(AK, false);
    assert!(
        refusal(Query::default().send(&url).await)
            .await
            .contains("ak not exist")
    );
    simulator.set_key_enabled(AK, true);
    assert_eq!(Query::default().send(&url).await.status(), 200);
    simulator.remove_key(AK);
    assert!(
        refusal(Query::default().send(&url).await)
            .await
            .contains("ak not exist")
    );
    assert_eq!(simulator.counters().signature_failures, 0);
}

#[tokio::test]
async fn a_signature_holds_for_fifteen_minutes_either_way() {
    let (simulator, key) = with_key(AccessKey::new(AK, SK));
    let url = simulator.job_url(&key);
    let window = i64::try_from(SIGNATURE_WINDOW.as_secs()).unwrap();
    for (ahead, holds) in [
        (10 - window, true),
        (-10 - window, false),
        (window - 10, true),
        (window + 10, false),
    ] {
        let query = Query {
            ahead,
            ..Query::default()
        };
        let response = query.send(&url).await;
        if holds {
            assert_eq!(response.status(), 200, "{ahead}");
        } else {
            assert!(
                refusal(response).await.contains("signature expired"),
                "{ahead}"
            );
        }
    }
    simulator.set_clock_offset(SignedDuration::from_secs(window + 10));
    assert!(
        refusal(Query::default().send(&url).await)
            .await
            .contains("signature expired")
    );
    let query = Query {
        ahead: window,
        ..Query::default()
    };
    assert_eq!(query.send(&url).await.status(), 200);
    assert_eq!(simulator.counters().signature_failures, 0);
}

#[tokio::test]
async fn a_temporary_key_needs_its_security_token() {
    let (simulator, key) = with_key(AccessKey::new(AK, SK).security_token("temporary"));
    let url = simulator.job_url(&key);
    for (security_token, accepted) in [
        (None, false),
        (Some("another"), false),
        (Some("temporary"), true),
    ] {
        let query = Query {
            security_token,
            ..Query::default()
        };
        let response = query.send(&url).await;
        if accepted {
            assert_eq!(response.status(), 200);
        } else {
            assert!(refusal(response).await.contains("X-Security-Token"));
        }
    }
}

#[tokio::test]
async fn the_sixth_wrong_signature_in_a_row_locks_the_key_for_everybody_and_for_a_while() {
    // Longer than this test.
    let simulator = Simulator::start(Config {
        key_lock: Duration::from_hours(1),
        ..Config::default()
    })
    .unwrap();
    simulator.add_key(AccessKey::new(AK, SK));
    simulator.add_key(AccessKey::new("OTHER", SK));
    let url = simulator.job_url(&finished_job(&simulator));
    let wrong = Query {
        secret_key: "wrong",
        ..Query::default()
    };
    let right = Query::default();
    for _ in 0..5 {
        assert!(
            refusal(wrong.send(&url).await)
                .await
                .ends_with("verify aksk signature fail")
        );
    }
    assert_eq!(
        right.send(&url).await.status(),
        200,
        "five are let pass, a right one resets"
    );
    for _ in 0..6 {
        assert!(
            refusal(wrong.send(&url).await)
                .await
                .ends_with("verify aksk signature fail")
        );
    }
    for query in [&right, &wrong] {
        assert_eq!(
            refusal(query.send(&url).await).await,
            "Incorrect IAM authentication information: AK access failed to reach the limit,forbidden."
        );
    }
    let other = Query {
        access_key: "OTHER",
        ..Query::default()
    };
    assert_eq!(other.send(&url).await.status(), 200);
    let counters = simulator.counters();
    assert_eq!((counters.signature_failures, counters.key_locks), (11, 1));
    simulator.unlock();
    assert_eq!(right.send(&url).await.status(), 200);
}

#[tokio::test]
async fn the_lock_of_a_key_ends_by_itself() {
    let lasts = Duration::from_millis(200);
    let simulator = Simulator::start(Config {
        key_lock: lasts,
        ..Config::default()
    })
    .unwrap();
    simulator.add_key(AccessKey::new(AK, SK));
    let url = simulator.job_url(&finished_job(&simulator));
    let wrong = Query {
        secret_key: "wrong",
        ..Query::default()
    };
    for _ in 0..6 {
        wrong.send(&url).await;
    }
    assert_eq!(simulator.counters().key_locks, 1);
    tokio::time::sleep(lasts).await;
    assert_eq!(Query::default().send(&url).await.status(), 200);
}
