//! What each error of the cloud means: HTTP status, code and text, in each documented body shape, and the
//! class and message of it. The tests of the operator show the same for one error of each class.

use super::{CANARY, grant};
use crate::{
    http::{Answer, BodyError},
    ims::{
        answer::{self, ParsedAnswer},
        error::Rejection,
    },
    outcome::{failed, misconfigured},
    wire::text::Redactor,
};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use image_export_model::{
    ConfigurationReason::{self, AccessDenied, EndpointInvalid, RequestRejected},
    FailureKind, Outcome, Stage,
};
use proptest::prelude::*;
use serde_json::json;
use std::time::Duration;

const HOST: &str = "ims.example.com";
const HTML: &str = "<html><body>Bad Gateway</body></html>";

fn parse(status: u16, headers: &[(&str, &str)], body: Result<&[u8], BodyError>) -> ParsedAnswer {
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
        body: body.map(|body| body.to_vec().into()),
    };
    answer::parse(HOST, &answer, &"j1".parse().unwrap(), &grant().redactor)
}

fn class(status: u16, body: &str) -> Class {
    parse(status, &[], Ok(body.as_bytes())).result
}

type Class = Result<Outcome, Rejection>;

fn transient(kind: FailureKind, message: String) -> Outcome {
    failed(Stage::Query, kind, message)
}

/// The three documented shapes of one error. In the third the code is the HTTP status where the
/// service has none of its own.
fn shapes(code: &str, text: &str) -> [String; 3] {
    [
        json!({"error": {"message": text, "code": code}}).to_string(),
        json!({"error_msg": text, "error_code": code, "request_id": "c50619de20b0e70590f57a99dbed044f"}).to_string(),
        json!({"error": {"message": text, "code": code, "title": "Title"}}).to_string(),
    ]
}

/// A class. `{}` in a text, and the start of a rejection, is the answer: "400 IMG.0024".
#[derive(Clone, Copy, Debug)]
enum Row {
    Throttled,
    JobNotFound,
    /// With the cause; empty where the answer does not report one.
    Rejected(&'static str),
    /// With the message after the host's name.
    Misconfigured(ConfigurationReason, &'static str),
    Transient,
}

impl Row {
    /// `code`: that of the answer, shown or not.
    fn class(self, answer: &str, code: &str) -> Class {
        let message = |text: &str| format!("{HOST}{}", text.replace("{}", answer));
        match self {
            Self::Throttled => Ok(Outcome::Throttled),
            Self::JobNotFound => Ok(Outcome::JobNotFound),
            Self::Rejected(cause) => Err(Rejection {
                answer: answer.to_owned(),
                cause: Some(cause).filter(|cause| !cause.is_empty()),
            }),
            Self::Misconfigured(reason, text) => Ok(misconfigured(reason, message(text))),
            Self::Transient => {
                let from = match code {
                    code if code.starts_with("IMG.") => "from the image service",
                    code if code.starts_with("APIGW.") => "from the API gateway",
                    _ => "without a code of the image service",
                };
                let text = format!(" answered {{}} {from}");
                Ok(transient(FailureKind::Http, message(&text)))
            }
        }
    }
}

const REFUSED: &str = " refused the request ({}); check projectID and jobID";
const DENIED: &str =
    " denies access ({}); grant the user a role that may read IMS jobs in this project";
const NOT_OFFERED: &str = " does not offer the image job API ({} from the API gateway); check the endpoint, image_endpoint_override, image_job_path and the region";
const WITHOUT_CODE: &str = " answered {} without a code of the image service, as a gateway, load balancer or ingress does; check the endpoint, image_endpoint_override, the region and jobID";
const REDIRECTS: &str =
    " redirects to another address ({}), which is never followed; name the final endpoint";
const OVER: &str =
    "The throttling threshold has been reached: policy ip over ratelimit,limit:5,time:5 second";

#[rustfmt::skip]
const TABLE: &[(u16, &str, &str, Row)] = &[
    (400, "IMG.0030", "x", Row::Rejected("project id and token do not match")),
    (400, "IMG.0087", "x", Row::Rejected("the token is wrong")),
    (401, "APIGW.0307", "The token must be updated.", Row::Rejected("the token has expired or belongs to another region")),
    (401, "APIGW.0301", "Incorrect IAM authentication information: decrypt token fail", Row::Rejected("the token is dead or belongs to another cloud")),
    (401, "APIGW.0301", "Incorrect IAM authentication information: Signature expired", Row::Rejected("the clock of this cluster and the cloud's differ by more than 15 minutes")),
    (401, "APIGW.0301", "Incorrect IAM authentication information: ak QTWA not exist", Row::Rejected("the access key does not exist")),
    (401, "APIGW.0301", "Incorrect IAM authentication information: verify aksk signature fail", Row::Rejected("the secret key does not fit the access key")),
    (401, "APIGW.0301", "Incorrect IAM authentication information: ak has failed to reach the limit", Row::Rejected("the access key is locked for some minutes after too many wrong signatures")),
    (401, "APIGW.0301", "Incorrect IAM authentication information", Row::Rejected("")),
    (401, "401", "Unauthorized.", Row::Rejected("")),
    (400, "IMG.0060", "x", Row::Throttled),
    (400, "APIGW.0308", "x", Row::Throttled),
    (403, "APIGW.0308", "x", Row::Throttled),
    (429, "APIGW.0308", OVER, Row::Throttled),
    (429, "IMG.9999", "x", Row::Throttled),
    (500, "APIGW.0308", "x", Row::Throttled),
    (503, "APIGW.0308", OVER, Row::Throttled),
    (200, "APIGW.0308", "x", Row::Throttled),
    (400, "IMG.0023", "x", Row::Transient),
    (500, "IMG.0001", "x", Row::Transient),
    (503, "APIGW.0201", "x", Row::Transient),
    (503, "APIGW.0613", "x", Row::Transient),
    (504, "504", "x", Row::Transient),
    (400, "IMG.0024", "The imagetype is invalid.", Row::Misconfigured(RequestRejected, REFUSED)),
    (400, "APIGW.0201", "x", Row::Misconfigured(RequestRejected, REFUSED)),
    (400, "400", "x", Row::Misconfigured(RequestRejected, REFUSED)),
    (405, "IMG.0001", "x", Row::Misconfigured(RequestRejected, REFUSED)),
    (400, "IMG.0026", "x", Row::Misconfigured(AccessDenied, DENIED)),
    (403, "IMG.0026", "x", Row::Misconfigured(AccessDenied, DENIED)),
    (403, "APIGW.0302", "x", Row::Misconfigured(AccessDenied, DENIED)),
    (404, "APIGW.0101", "x", Row::Misconfigured(EndpointInvalid, NOT_OFFERED)),
    (302, "IMG.0001", "x", Row::Misconfigured(EndpointInvalid, REDIRECTS)),
    (404, "APIGW.0103", "The backend does not exist.", Row::Misconfigured(EndpointInvalid, NOT_OFFERED)),
    (404, "APIGW.0106", "x", Row::Misconfigured(EndpointInvalid, NOT_OFFERED)),
    (404, "IMG.0027", "The image ID in the request does not exist.", Row::JobNotFound),
    (404, "IMG.0121", "The object cannot be found.", Row::JobNotFound),
];

#[test]
fn each_status_and_code_in_each_body_shape_and_spelling() {
    for (status, code, text, row) in TABLE {
        for spelling in [(*code).to_owned(), code.replace("APIGW.", "APIG.")] {
            for body in shapes(&spelling, text) {
                let answer = if *code == status.to_string() {
                    (*code).to_owned()
                } else {
                    format!("{status} {code}")
                };
                assert_eq!(
                    class(*status, &body),
                    row.class(&answer, code),
                    "{status} {body}"
                );
            }
        }
    }
    for body in shapes("IMG.0001", "x") {
        let message = format!("the answer of {HOST} has no job_id");
        let malformed = Ok(transient(FailureKind::Malformed, message));
        assert_eq!(class(200, &body), malformed, "{body}");
    }
}

#[test]
fn each_status_without_a_readable_body() {
    let rows: [(&[u16], Row); 8] = [
        (
            &[300, 301, 302, 303, 304, 307, 308],
            Row::Misconfigured(EndpointInvalid, REDIRECTS),
        ),
        (&[401], Row::Rejected("")),
        (&[403], Row::Misconfigured(AccessDenied, DENIED)),
        (&[404], Row::Misconfigured(EndpointInvalid, WITHOUT_CODE)),
        (&[429], Row::Throttled),
        (
            &[400, 402, 405, 406, 409, 410, 413, 418, 422, 451, 499, 501],
            Row::Misconfigured(RequestRejected, REFUSED),
        ),
        (
            &[407, 408, 500, 502, 503, 504, 505, 511, 599],
            Row::Transient,
        ),
        (&[201, 202, 204, 206, 299, 999], Row::Transient),
    ];
    for (statuses, row) in rows {
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
                "{\"error_code\":\"<b>IMG.1</b>\"}",
                // Only a 200 reports on the job.
                "{\"job_id\":\"j1\",\"status\":\"SUCCESS\"}",
            ] {
                let expected = row.class(&status.to_string(), "");
                assert_eq!(class(*status, body), expected, "{status} {body}");
            }
        }
    }
}

/// What stands in front of the image service, or in its place, answers a path or host that it does not know: with
/// which header `Server` and body, and which server the message names, or none where neither shows it.
#[rustfmt::skip]
const OTHERS_404: &[(&str, &str, Option<&str>)] = &[
    ("", r#"{"error_msg":"The API does not exist or has not been published in the environment","error_code":"APIG.0101","request_id":"x"}"#, Some("the API gateway")),
    ("", r#"{"message":"API not found","request_id":"x"}"#, Some("an API gateway")),
    ("kong/3.9.1", r#"{"message":"no Route matched with those values"}"#, Some("Kong, an API gateway")),
    ("", "{\n  \"message\":\"no Route matched with those values\",\n  \"request_id\":\"7ff37d24ee159e3dae99721c17beae2d\"\n}", Some("Kong, an API gateway")),
    ("APISIX/3.8.0", r#"{"error_msg":"404 Route Not Found"}"#, Some("APISIX, an API gateway")),
    ("nginx", "<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n<center><h1>404 Not Found</h1></center>\r\n<hr><center>nginx/1.25.3</center>\r\n</body>\r\n</html>\r\n", Some("nginx, a proxy or ingress controller")),
    ("", "<html>\r\n<body>\r\n<hr><center>openresty</center>\r\n</body>\r\n</html>\r\n", Some("OpenResty, a proxy or API gateway")),
    ("", "404 page not found\n", Some("Traefik or another server that is written in Go")),
    ("", "default backend - 404", Some("the default backend of an ingress controller")),
    ("", "<html><body><h1>404 Not Found</h1>\nThe resource could not be found.\n</body></html>\n", Some("HAProxy, a load balancer")),
    ("envoy", "", Some("Envoy, a proxy or ingress gateway")),
    ("istio-envoy", "\n", Some("Envoy, a proxy or ingress gateway")),
    ("awselb/2.0", "", Some("a load balancer")),
    ("", r#"{"error":{"code":404,"title":"Not Found","message":"Could not find resource."}}"#, Some("an OpenStack service such as the identity service")),
    ("", r#"<?xml version="1.0"?><Error><Code>NoSuchBucket</Code></Error>"#, Some("an object storage service")),
    ("", "", None),
    ("some/1", "", None),
    ("", r#"{"code":"404 Not Found","message":"The resource could not be found.<br /><br />\n\n\n","title":"Not Found"}"#, None),
    // Envoy sets its name in what it forwards, too.
    ("istio-envoy", r#"{"message":"Not Found"}"#, None),
    ("", r#"{"detail":"Not Found"}"#, None),
    ("", r#"{"timestamp":"2026-01-01T00:00:00Z","status":404,"error":"Not Found","path":"/v1/p/jobs/j"}"#, None),
    ("", r#"{"error":{"message":"The job does not exist.","code":404}}"#, None),
    ("", r#"{"error":"IMG.0121"}"#, None),
    ("", r#"{"message":"IMG.0121"}"#, None),
    ("", "<html><head><title>404 Not Found</title></head></html>", None),
];

#[test]
fn a_404_without_a_code_of_the_image_service_is_another_servers() {
    for (server, body, responder) in OTHERS_404 {
        let headers = [("server", *server)];
        let headers = &headers[usize::from(server.is_empty())..];
        let outcome = parse(404, headers, Ok(body.as_bytes())).result.unwrap();
        let answer = if body.contains("APIG") {
            "404 APIGW.0101"
        } else {
            "404"
        };
        let text = responder.map_or(WITHOUT_CODE.to_owned(), |responder| {
            NOT_OFFERED.replace("the API gateway", responder)
        });
        let message = format!("{HOST}{}", text.replace("{}", answer));
        assert_eq!(
            outcome,
            misconfigured(EndpointInvalid, message),
            "{server} {body}"
        );
    }
    let nginx =
        "<html><head><title>502 Bad Gateway</title></head><hr><center>nginx</center></html>";
    let message = format!("{HOST} answered 502 from nginx, a proxy or ingress controller");
    assert_eq!(class(502, nginx), Ok(transient(FailureKind::Http, message)));
    let of_service = r#"{"error":{"code":"IMG.0121","message":"404 page not found"}}"#;
    let found = parse(404, &[("server", "istio-envoy")], Ok(of_service.as_bytes()));
    assert_eq!(found.result, Ok(Outcome::JobNotFound));
}

#[test]
fn a_token_that_is_too_long_for_the_gateway_has_a_remedy() {
    let outcome = class(431, "").unwrap();
    assert_eq!(outcome.category(), "request_rejected");
    let message = outcome.message().unwrap();
    assert!(message.contains("set image_endpoint_override"), "{message}");
}

#[test]
fn a_code_may_be_a_number() {
    let body = r#"{"error":{"message":"Unauthorized.","code":401,"title":"Unauthorized"}}"#;
    let Err(rejection) = class(401, body) else {
        panic!("not a rejection")
    };
    assert_eq!(
        rejection.answer, "401",
        "a code that repeats the status is not shown twice"
    );
    let outcome = class(400, r#"{"error_code":17}"#).unwrap();
    let message = outcome.message().unwrap();
    assert!(message.contains("400 17"), "{message}");
}

#[test]
fn the_period_of_throttling_comes_from_the_header_else_from_the_text() {
    let text =
        "The throttling threshold has been reached: policy ip over ratelimit,limit:5,time:5 second";
    for body in shapes("APIGW.0308", text) {
        let wait = |headers: &[_]| parse(429, headers, Ok(body.as_bytes())).retry_after;
        // Where the header is no period, the text counts.
        for (header, seconds) in [
            (&[][..], 5),
            (&[("retry-after", "17")], 17),
            (&[("retry-after", " 7 ")], 7),
            (&[("retry-after", "99999999999999999999")], 366 * 24 * 3600),
            (&[("retry-after", "garbage")], 5),
            (&[("retry-after", "-5")], 5),
            (&[("retry-after", "0")], 5),
        ] {
            assert_eq!(
                wait(header),
                Some(Duration::from_secs(seconds)),
                "{header:?}"
            );
        }
    }
    assert_eq!(parse(429, &[], Ok(b"")).retry_after, None);
    let unavailable = parse(503, &[("retry-after", "30")], Ok(HTML.as_bytes()));
    assert_eq!(unavailable.retry_after, Some(Duration::from_secs(30)));
    let expected = Row::Transient.class("503", "");
    assert_eq!(unavailable.result, expected);
    let chatty = json!({"error_msg": "time:5 second", "error_code": "IMG.0001"}).to_string();
    assert_eq!(
        parse(500, &[], Ok(chatty.as_bytes())).retry_after,
        None,
        "only throttling is read from a text"
    );
}

#[test]
fn a_body_that_breaks_off_matters_unless_the_status_suffices() {
    let class = |status, broken: BodyError| parse(status, &[], Err(broken)).result;
    for (broken, kind, text) in [
        (BodyError::Cut, FailureKind::Network, "broke off"),
        (
            BodyError::Timeout(Duration::from_secs(20)),
            FailureKind::Timeout,
            "did not end within 20 s",
        ),
        (
            BodyError::TooLong(256),
            FailureKind::Malformed,
            "is longer than 256 KiB",
        ),
        (
            BodyError::Encoded,
            FailureKind::Malformed,
            "is encoded in a way that was not requested",
        ),
    ] {
        let message = format!("the answer of {HOST} {text}");
        assert_eq!(class(200, broken), Ok(transient(kind, message)));
    }
    let message = format!("the answer of {HOST} broke off");
    let network = Ok(transient(FailureKind::Network, message));
    assert_eq!(
        class(404, BodyError::Cut),
        network,
        "it might have been one of the image service"
    );
    for (status, broken, row) in [
        (
            404,
            BodyError::TooLong(256),
            Row::Misconfigured(EndpointInvalid, WITHOUT_CODE),
        ),
        (429, BodyError::Cut, Row::Throttled),
        // The cloud has counted it.
        (401, BodyError::Cut, Row::Rejected("")),
        (
            302,
            BodyError::Cut,
            Row::Misconfigured(EndpointInvalid, REDIRECTS),
        ),
        (500, BodyError::Cut, Row::Transient),
        (500, BodyError::TooLong(256), Row::Transient),
    ] {
        assert_eq!(class(status, broken), row.class(&status.to_string(), ""));
    }
}

#[test]
fn messages_are_stable_half_sentences_with_host_and_code() {
    for status in (300..600).filter(|status| ![401, 429].contains(status)) {
        let message = |request_id: &str| {
            let body = json!({"error_msg": format!("at 12:00 for {CANARY}"), "error_code": "XYZ.7777", "request_id": request_id});
            let outcome = class(status, &body.to_string()).unwrap();
            outcome.message().expect("a message").to_owned()
        };
        let shown = message("a");
        assert_eq!(shown, message("b"), "no request ids");
        assert!(
            shown.contains(HOST) && shown.contains(&format!("{status} XYZ.7777")),
            "{shown}"
        );
        assert!(!shown.ends_with('.') && !shown.contains(CANARY), "{shown}");
    }
}

#[test]
fn a_code_is_shown_only_if_it_looks_like_one() {
    for code in [CANARY, "a b", "<b>", "x\u{202e}y z", &"x".repeat(65), ""] {
        let expected = Row::Transient.class("500", "");
        assert_eq!(class(500, &shapes(code, "")[0]), expected, "{code}");
    }
}

/// A password may be a code of the cloud, or hold one.
#[test]
fn no_secret_changes_what_an_error_means() {
    for (status, code, text, row) in TABLE {
        for secret in [
            *code,
            &code[..code.len() - 1],
            "IMG.",
            "APIGW",
            "APIG",
            "0308",
        ] {
            let redactor = Redactor::new([&secret.into()]);
            for body in shapes(code, text) {
                let answer = Answer {
                    status: *status,
                    headers: HeaderMap::new(),
                    body: Ok(body.into_bytes().into()),
                };
                let parsed = answer::parse(HOST, &answer, &"j1".parse().unwrap(), &redactor);
                // Only a long secret hides the code.
                let is_shown = secret.len() < 8 && *code != status.to_string();
                let shown = if is_shown {
                    format!("{status} {code}")
                } else {
                    status.to_string()
                };
                assert_eq!(
                    parsed.result,
                    row.class(&shown, code),
                    "{secret} {status} {code}"
                );
            }
        }
    }
}

#[test]
fn a_code_counts_letter_for_letter() {
    for code in ["IMG.\u{200b}0030", "APIGW.0308\u{0}", "IMG.0060 x"] {
        for body in shapes(code, "") {
            assert_eq!(
                class(400, &body),
                Row::Misconfigured(RequestRejected, REFUSED).class("400", "")
            );
        }
    }
    let spaced = class(400, &shapes(" img.0060 ", "")[0]);
    assert_eq!(spaced, Ok(Outcome::Throttled));
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
        let answer = Answer { status, headers, body: Ok(body.into()) };
        let _ = answer::parse(HOST, &answer, &"j1".parse().unwrap(), &grant().redactor);
    }

    #[test]
    fn no_error_text_makes_it_panic(status in 100_u16..=999, code in any::<String>(), text in any::<String>()) {
        for body in shapes(&code, &text) {
            let _ = parse(status, &[], Ok(body.as_bytes()));
        }
    }
}
