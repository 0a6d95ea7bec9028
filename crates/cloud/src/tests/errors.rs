//! Every answer that is not a well-formed 200: status, code and body shape, and what they mean.

use super::{CANARY, session};
use crate::{
    client,
    error::Verdict,
    http::{Answer, BodyError},
};
use image_export_model::{ConfigurationReason, FailureKind};
use proptest::prelude::*;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use std::time::Duration;

const HOST: &str = "ims.example.com";
const HTML: &str = "<html><body>Bad Gateway</body></html>";

fn read(status: u16, headers: &[(&str, &str)], body: Result<&[u8], BodyError>) -> client::Read {
    let headers = headers
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            )
        })
        .collect::<HeaderMap>();
    let answer = Answer {
        status,
        headers,
        body: body.map(<[u8]>::to_vec),
    };
    client::read(HOST, &answer, "j1", &session().grant.redactor)
}

fn verdict(status: u16, body: &str) -> Verdict {
    read(status, &[], Ok(body.as_bytes())).result.unwrap_err()
}

/// The three documented shapes of one error.
fn shapes(code: &str, text: &str) -> [String; 3] {
    [
        json!({"error": {"message": text, "code": code}}).to_string(),
        json!({"error_msg": text, "error_code": code, "request_id": "c50619de20b0e70590f57a99dbed044f"}).to_string(),
        json!({"error": {"message": text, "code": code, "title": "Title"}}).to_string(),
    ]
}

/// What a verdict comes to, without its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    Throttled,
    NoJob,
    Token,
    Refused(ConfigurationReason),
    Failed(FailureKind),
}

fn means(verdict: &Verdict) -> Means {
    match verdict {
        Verdict::Throttled => Means::Throttled,
        Verdict::JobNotFound => Means::NoJob,
        Verdict::Rejected(_) => Means::Token,
        Verdict::Refused(reason, _) => Means::Refused(*reason),
        Verdict::Failed(kind, _) => Means::Failed(*kind),
    }
}

#[test]
fn each_status_and_code_in_each_body_shape() {
    use ConfigurationReason::{AccessDenied, EndpointInvalid, RequestRejected};
    let http = Means::Failed(FailureKind::Http);
    let rejected = Means::Refused(RequestRejected);
    for (status, code, expected) in [
        (400, "IMG.0030", Means::Token),
        (400, "IMG.0087", Means::Token),
        (400, "IMG.0060", Means::Throttled),
        (400, "IMG.0023", http),
        (400, "IMG.0024", rejected),
        (400, "APIGW.0201", rejected),
        (429, "APIGW.0308", Means::Throttled),
        (429, "IMG.9999", Means::Throttled),
        (403, "APIGW.0308", Means::Throttled),
        (500, "APIG.0308", Means::Throttled),
        (200, "APIGW.0308", Means::Throttled),
        (401, "APIGW.0307", Means::Token),
        (401, "APIG.0301", Means::Token),
        (401, "401", Means::Token),
        (403, "IMG.0026", Means::Refused(AccessDenied)),
        (400, "IMG.0026", Means::Refused(AccessDenied)),
        (403, "APIGW.0302", Means::Refused(AccessDenied)),
        (404, "APIGW.0101", Means::Refused(EndpointInvalid)),
        (404, "APIG.0101", Means::Refused(EndpointInvalid)),
        (404, "IMG.0027", Means::NoJob),
        (500, "IMG.0001", http),
        (503, "APIGW.0201", http),
        (200, "IMG.0001", Means::Failed(FailureKind::Malformed)),
    ] {
        for body in shapes(code, "some text") {
            assert_eq!(means(&verdict(status, &body)), expected, "{status} {body}");
        }
    }
}

#[test]
fn each_status_without_a_body_that_can_be_read() {
    use ConfigurationReason::{AccessDenied, EndpointInvalid, RequestRejected};
    let http = Means::Failed(FailureKind::Http);
    let rows: [(&[u16], Means); 8] = [
        (
            &[301, 302, 303, 304, 307, 308],
            Means::Refused(EndpointInvalid),
        ),
        (&[401], Means::Token),
        (&[403], Means::Refused(AccessDenied)),
        (&[404], Means::NoJob),
        (&[429], Means::Throttled),
        (
            &[400, 402, 405, 406, 409, 410, 413, 418, 422, 451, 499, 501],
            Means::Refused(RequestRejected),
        ),
        (&[407, 408, 500, 502, 503, 504, 505, 511, 599], http),
        (&[201, 202, 204, 206, 299, 999], http),
    ];
    for (statuses, expected) in rows {
        for status in statuses {
            for body in [
                "",
                HTML,
                "null",
                "[]",
                "{}",
                "{\"error\":null}",
                "{\"error\":[5]}",
                "{\"error\":{\"code\":{}}}",
            ] {
                assert_eq!(means(&verdict(*status, body)), expected, "{status} {body}");
            }
        }
    }
}

#[test]
fn a_code_may_be_a_number() {
    let body = r#"{"error":{"message":"Unauthorized.","code":401,"title":"Unauthorized"}}"#;
    let Verdict::Rejected(rejection) = verdict(401, body) else {
        panic!("not a rejection")
    };
    assert_eq!(
        rejection.answer, "401",
        "a code that repeats the status is not said twice"
    );
    let Verdict::Refused(_, message) = verdict(400, r#"{"error_code":17}"#) else {
        panic!("not refused")
    };
    assert!(message.contains("400 17"), "{message}");
}

#[test]
fn the_text_of_apigw_0301_tells_what_was_wrong() {
    for (text, cause) in [
        (
            "Incorrect IAM authentication information: decrypt token fail",
            Some("the token is dead or belongs to another cloud"),
        ),
        (
            "Incorrect IAM authentication information: Signature expired",
            Some("the clock of this cluster and the cloud's differ by more than 15 minutes"),
        ),
        (
            "Incorrect IAM authentication information: ak QTWA not exist",
            Some("the access key does not exist"),
        ),
        (
            "Incorrect IAM authentication information: verify aksk signature fail",
            Some("the secret key does not fit the access key"),
        ),
        ("Incorrect IAM authentication information", None),
    ] {
        for code in ["APIGW.0301", "APIG.0301"] {
            for body in shapes(code, text) {
                let Verdict::Rejected(rejection) = verdict(401, &body) else {
                    panic!("{body}")
                };
                assert_eq!(
                    (rejection.cause, &*rejection.answer),
                    (cause, "401 APIGW.0301"),
                    "{body}"
                );
            }
        }
    }
}

#[test]
fn the_period_of_throttling_comes_from_the_header_else_from_the_text() {
    let text =
        "The throttling threshold has been reached: policy ip over ratelimit,limit:5,time:5 second";
    for body in shapes("APIGW.0308", text) {
        let wait = |headers: &[_]| read(429, headers, Ok(body.as_bytes())).retry_after;
        assert_eq!(wait(&[]), Some(Duration::from_secs(5)));
        assert_eq!(
            wait(&[("retry-after", "17")]),
            Some(Duration::from_secs(17))
        );
        assert_eq!(
            wait(&[("retry-after", "garbage")]),
            Some(Duration::from_secs(5))
        );
    }
    let unavailable = read(503, &[("retry-after", "30")], Ok(HTML.as_bytes()));
    assert_eq!(unavailable.retry_after, Some(Duration::from_secs(30)));
    assert_eq!(
        means(&unavailable.result.unwrap_err()),
        Means::Failed(FailureKind::Http)
    );
    let chatty = json!({"error_msg": "time:5 second", "error_code": "IMG.0001"}).to_string();
    assert_eq!(
        read(500, &[], Ok(chatty.as_bytes())).retry_after,
        None,
        "only throttling is read from a text"
    );
}

#[test]
fn a_body_that_breaks_off_counts_only_where_the_status_says_all() {
    let after =
        |status, broken: BodyError| means(&read(status, &[], Err(broken)).result.unwrap_err());
    assert_eq!(
        after(200, BodyError::Cut),
        Means::Failed(FailureKind::Network)
    );
    assert_eq!(
        after(200, BodyError::Timeout(Duration::from_secs(20))),
        Means::Failed(FailureKind::Timeout)
    );
    assert_eq!(
        after(200, BodyError::TooLong(256)),
        Means::Failed(FailureKind::Malformed)
    );
    assert_eq!(
        after(200, BodyError::Encoded),
        Means::Failed(FailureKind::Malformed)
    );
    assert_eq!(
        after(404, BodyError::Cut),
        Means::Failed(FailureKind::Network),
        "it might have been APIGW.0101"
    );
    assert_eq!(after(404, BodyError::TooLong(256)), Means::NoJob);
    assert_eq!(after(429, BodyError::Cut), Means::Throttled);
    assert_eq!(
        after(401, BodyError::Cut),
        Means::Token,
        "the cloud has counted it"
    );
    assert_eq!(
        after(302, BodyError::Cut),
        Means::Refused(ConfigurationReason::EndpointInvalid)
    );
}

#[test]
fn messages_are_stable_half_sentences_with_host_and_code() {
    for status in (300..600).filter(|status| ![401, 404, 429].contains(status)) {
        let message = |request_id: &str| {
            let body = json!({"error_msg": format!("at 12:00 for {CANARY}"), "error_code": "IMG.7777", "request_id": request_id});
            match verdict(status, &body.to_string()) {
                Verdict::Refused(_, message) | Verdict::Failed(_, message) => message,
                other => panic!("{status}: {other:?}"),
            }
        };
        let said = message("a");
        assert_eq!(said, message("b"), "no request ids");
        assert!(
            said.contains(HOST) && said.contains(&format!("{status} IMG.7777")),
            "{said}"
        );
        assert!(!said.ends_with('.') && !said.contains(CANARY), "{said}");
    }
}

#[test]
fn what_stands_in_place_of_a_code_is_shown_only_if_it_looks_like_one() {
    for code in [CANARY, "a b", "<b>", "x\u{202e}y z", &"x".repeat(65), ""] {
        let Verdict::Failed(_, message) = verdict(500, &shapes(code, "")[0]) else {
            panic!("{code}")
        };
        assert_eq!(message, format!("{HOST} answered 500"), "{code}");
    }
}

proptest! {
    #[test]
    fn no_answer_makes_it_panic(
        status in 100_u16..=999,
        body in proptest::collection::vec(any::<u8>(), 0..256),
        header in proptest::collection::vec(any::<u8>(), 0..32),
    ) {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&header) {
            headers.insert("retry-after", value.clone());
            headers.insert("x-request-id", value);
        }
        let answer = Answer { status, headers, body: Ok(body) };
        let _ = client::read(HOST, &answer, "j1", &session().grant.redactor);
    }

    #[test]
    fn no_error_text_makes_it_panic(status in 100_u16..=999, code in any::<String>(), text in any::<String>()) {
        for body in shapes(&code, &text) {
            let _ = read(status, &[], Ok(body.as_bytes()));
        }
    }
}
