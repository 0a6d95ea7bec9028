//! What an answer of the job query endpoint means, by HTTP status **and** code.
//!
//! Pure: bytes in, a [`Verdict`] out. The statuses and codes are those of the public IMS and API
//! gateway documentation; whatever is not in there passes for trouble that goes away by itself.

use super::{job, retry_after, text::Redactor};
use image_export_model::{ConfigurationReason, FailureKind};
use jiff::Timestamp;
use reqwest::header::HeaderMap;
use serde_json::Value;
use std::{fmt, time::Duration};

/// Longest code or request id that is looked at.
const MAX_CODE_BYTES: usize = 64;

/// What to make of an answer that is not a well-formed 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Too many requests.
    Throttled,
    /// No such job.
    JobNotFound,
    /// The token or signature was not accepted.
    Rejected(Rejection),
    /// Asking again soon cannot help.
    Refused(ConfigurationReason, String),
    /// Passing trouble.
    Failed(FailureKind, String),
}

/// A token or signature that was not accepted, in the cloud's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    /// For example "401 APIGW.0307".
    pub(super) answer: String,
    /// What the code says about the cause.
    pub(super) cause: Option<&'static str>,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.answer)?;
        self.cause.map_or(Ok(()), |cause| write!(f, ": {cause}"))
    }
}

/// An error body, in any of the three documented shapes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ErrorBody {
    /// The code with `APIG.` spelt as `APIGW.`; a mere repetition of the HTTP status is none.
    pub(super) code: Option<String>,
    /// The text, for what only the text tells. Never shown.
    text: String,
    /// For the log only.
    pub(super) request_id: Option<String>,
}

impl ErrorBody {
    /// Reads `{"error":{"message","code"}}`, `{"error_msg","error_code","request_id"}` and
    /// `{"code","message"}`; anything else, HTML for example, is an empty error.
    pub(super) fn parse(status: u16, body: &[u8], redactor: &Redactor) -> Self {
        let Some(body) = job::from_json(body) else {
            return Self::default();
        };
        let error = &body["error"];
        let first = |values: &[&Value]| values.iter().find_map(|value| job::plain_text(value));
        let token = |text: String| redactor.clean(&text).filter(|text| is_token(text));
        Self {
            code: first(&[
                &error["code"],
                &error["error_code"],
                &body["error_code"],
                &body["code"],
            ])
            .and_then(token)
            .map(|code| canonical_code(&code))
            // Once more, as another spelling may be longer, or that of a secret.
            .and_then(token)
            .filter(|code| *code != status.to_string()),
            text: first(&[
                &error["message"],
                &error["error_msg"],
                &body["error_msg"],
                &body["message"],
            ])
            .unwrap_or_default(),
            request_id: first(&[&body["request_id"], &error["request_id"]]).and_then(token),
        }
    }

    fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// Throttling is told by the code, whatever the HTTP status.
    pub(super) fn is_throttling(&self, status: u16) -> bool {
        status == 429 || self.is("IMG.0060") || self.is("APIGW.0308")
    }

    /// What an `APIGW.0301` or another authentication error is about; only the text tells.
    fn rejection_cause(&self) -> Option<&'static str> {
        let text = self.text.to_ascii_lowercase();
        match self.code.as_deref() {
            Some("IMG.0030") => Some("project id and token do not match"),
            Some("IMG.0087") => Some("the token is wrong"),
            Some("APIGW.0307") => Some("the token has expired or belongs to another region"),
            Some("APIGW.0301") if text.contains("signature expired") => {
                Some("the clock of this cluster and the cloud's differ by more than 15 minutes")
            }
            Some("APIGW.0301") if text.contains("not exist") => {
                Some("the access key does not exist")
            }
            Some("APIGW.0301") if text.contains("verify aksk signature fail") => {
                Some("the secret key does not fit the access key")
            }
            Some("APIGW.0301") if text.contains("failed to reach the limit") => {
                Some("the access key is locked for some minutes after too many wrong signatures")
            }
            Some("APIGW.0301") if text.contains("decrypt token fail") => {
                Some("the token is dead or belongs to another cloud")
            }
            _ => None,
        }
    }
}

/// Classifies an answer that is not a well-formed 200. `host` names the endpoint in messages.
pub(super) fn classify(host: &str, status: u16, error: &ErrorBody) -> Verdict {
    let answer = describe(status, error);
    let refused = |reason, message| Verdict::Refused(reason, message);
    if error.is_throttling(status) {
        return Verdict::Throttled;
    }
    match status {
        400 if error.is("IMG.0030") || error.is("IMG.0087") => Verdict::Rejected(Rejection {
            answer,
            cause: error.rejection_cause(),
        }),
        // "Exception inside the job query": its own documentation calls it a fault of the cloud.
        400 if error.is("IMG.0023") => {
            Verdict::Failed(FailureKind::Http, format!("{host} answered {answer}"))
        }
        401 => Verdict::Rejected(Rejection {
            answer,
            cause: error.rejection_cause(),
        }),
        // The published table of codes lists this one with 400 as well.
        _ if status == 403 || (status == 400 && error.is("IMG.0026")) => refused(
            ConfigurationReason::AccessDenied,
            format!(
                "{host} denies access ({answer}); grant the user a role that may read IMS jobs in this project"
            ),
        ),
        404 if error.is("APIGW.0101") => refused(
            ConfigurationReason::EndpointInvalid,
            format!(
                "{host} does not offer the image job API ({answer}); check the endpoint, image_endpoint_override and the region"
            ),
        ),
        // Any other 404, with or without a body that can be read: the API was found, the job was not.
        404 => Verdict::JobNotFound,
        300..=399 => refused(
            ConfigurationReason::EndpointInvalid,
            format!(
                "{host} redirects to another address ({answer}), which is never followed; name the final endpoint"
            ),
        ),
        431 => refused(
            ConfigurationReason::RequestRejected,
            format!(
                "{host} finds the request's headers too long ({answer}), most likely for its token; set image_endpoint_override, which asks for one without a catalog"
            ),
        ),
        407 | 408 => Verdict::Failed(FailureKind::Http, format!("{host} answered {answer}")),
        400..=499 | 501 => refused(
            ConfigurationReason::RequestRejected,
            format!("{host} refused the request ({answer}); check projectID and jobID"),
        ),
        _ => Verdict::Failed(FailureKind::Http, format!("{host} answered {answer}")),
    }
}

/// "503", or "400 IMG.0024".
fn describe(status: u16, error: &ErrorBody) -> String {
    match &error.code {
        Some(code) => format!("{status} {code}"),
        None => status.to_string(),
    }
}

/// How long to stay away: the header, else, where the answer means throttling, its text.
pub(super) fn stay_away(
    headers: &HeaderMap,
    status: u16,
    error: &ErrorBody,
    now: Timestamp,
) -> Option<Duration> {
    retry_after::from_headers(headers, now).or_else(|| {
        error
            .is_throttling(status)
            .then(|| retry_after::from_text(&error.text))
            .flatten()
    })
}

/// The request id of an answer, for the log.
pub(super) fn request_id(
    headers: &HeaderMap,
    error: &ErrorBody,
    redactor: &Redactor,
) -> Option<String> {
    let header = headers
        .get("x-request-id")
        .and_then(|value| value.to_str().ok());
    header
        .and_then(|id| redactor.clean(id))
        .filter(|id| is_token(id))
        .or_else(|| error.request_id.clone())
}

/// One prefix for both spellings, in the case of the documentation.
fn canonical_code(code: &str) -> String {
    let code = code.to_ascii_uppercase();
    match code.strip_prefix("APIG.") {
        Some(number) => format!("APIGW.{number}"),
        None => code,
    }
}

/// Codes and request ids are single words, without a full stop at their end; prose in their place is
/// not repeated.
fn is_token(text: &str) -> bool {
    (1..=MAX_CODE_BYTES).contains(&text.len())
        && !text.ends_with('.')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}
