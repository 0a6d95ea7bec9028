//! The body of an answer that reports an error, in any of the three documented shapes.

use super::{json, responder, retry_after, text::Redactor};
use reqwest::header::HeaderMap;
use std::time::{Duration, SystemTime};

/// Longest code or request id that is read, in bytes.
const MAX_TOKEN_BYTES: usize = 64;

/// The codes with a meaning of their own. They are public, and recognised before secrets are removed.
const KNOWN_CODES: [&str; 9] = [
    "APIGW.0101",
    "APIGW.0301",
    "APIGW.0307",
    "APIGW.0308",
    "IMG.0023",
    "IMG.0026",
    "IMG.0030",
    "IMG.0060",
    "IMG.0087",
];

/// What an error body reports.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ErrorBody {
    /// The code if it is one of [`KNOWN_CODES`].
    pub(crate) known_code: Option<&'static str>,
    /// Whether the code is one of the image service.
    pub(crate) is_by_ims: bool,
    /// The server that answers in place of the image service, where the body shows it.
    pub(crate) responder: Option<&'static str>,
    /// The code as it is shown, with `APIG.` spelt as `APIGW.`. `None` also where it only repeats the HTTP
    /// status or holds a secret.
    pub(crate) code: Option<String>,
    /// The text, as some codes mean several things. Never shown.
    pub(crate) text: String,
    /// For the log only.
    pub(crate) request_id: Option<String>,
}

impl ErrorBody {
    /// Reads `{"error":{"message","code"}}`, `{"error_msg","error_code","request_id"}` and
    /// `{"code","message"}`; anything else, HTML for example, is an error that shows its responder at most.
    pub(crate) fn parse(status: u16, bytes: &[u8], redactor: &Redactor) -> Self {
        let by_body = || (status >= 400).then(|| responder::by_body(bytes)).flatten();
        let Some(body) = json::parse(bytes) else {
            return Self {
                responder: by_body(),
                ..Self::default()
            };
        };
        let first = |paths: &[&str]| {
            paths
                .iter()
                .find_map(|path| json::text(body.pointer(path)?))
        };
        let code = first(&["/error/code", "/error/error_code", "/error_code", "/code"])
            .map(|code| canonical_code(code.trim()))
            .filter(|code| is_token(code));
        let has_prefix = |prefix| code.as_ref().is_some_and(|code| code.starts_with(prefix));
        Self {
            known_code: KNOWN_CODES
                .into_iter()
                .find(|known| code.as_deref() == Some(known)),
            is_by_ims: has_prefix("IMG."),
            responder: if has_prefix("APIGW.") {
                Some(responder::API_GATEWAY)
            } else if status == 404 && body.pointer("/error/title").is_some() {
                Some(responder::OPENSTACK)
            } else {
                by_body()
            },
            code: code.filter(|code| *code != status.to_string() && !redactor.is_in(code)),
            text: first(&[
                "/error/message",
                "/error/error_msg",
                "/error_msg",
                "/message",
            ])
            .unwrap_or_default(),
            request_id: first(&["/request_id", "/error/request_id"])
                .and_then(|id| request_id(&id, redactor)),
        }
    }

    pub(crate) fn is(&self, code: &str) -> bool {
        self.known_code == Some(code)
    }

    /// Whether the answer limits the rate of requests. Gateways send these codes with any status.
    pub(crate) fn is_throttling(&self, status: u16) -> bool {
        status == 429 || self.is("IMG.0060") || self.is("APIGW.0308")
    }

    /// "503", or "400 IMG.0024".
    pub(crate) fn describe(&self, status: u16) -> String {
        match &self.code {
            Some(code) => format!("{status} {code}"),
            None => status.to_string(),
        }
    }

    /// How long the sender wants no further requests: `Retry-After`, else, of an answer that
    /// throttles, the period in its text.
    pub(crate) fn retry_after(
        &self,
        headers: &HeaderMap,
        status: u16,
        now: SystemTime,
    ) -> Option<Duration> {
        retry_after::from_headers(headers, now).or_else(|| {
            self.is_throttling(status)
                .then(|| retry_after::from_text(&self.text))
                .flatten()
        })
    }

    /// The request id of the answer, for the log: from `X-Request-Id`, else from the body.
    pub(crate) fn request_id(&self, headers: &HeaderMap, redactor: &Redactor) -> Option<String> {
        let header = headers
            .get("x-request-id")
            .and_then(|value| value.to_str().ok());
        header
            .and_then(|id| request_id(id, redactor))
            .or_else(|| self.request_id.clone())
    }
}

/// One prefix for both spellings, in the case of the documentation.
fn canonical_code(code: &str) -> String {
    let code = code.to_ascii_uppercase();
    match code.strip_prefix("APIG.") {
        Some(number) => format!("APIGW.{number}"),
        None => code,
    }
}

fn request_id(raw: &str, redactor: &Redactor) -> Option<String> {
    let id = raw.trim();
    (is_token(id) && !redactor.is_in(id)).then(|| id.to_owned())
}

/// Codes and request ids are single words without a full stop at their end; prose in their place is
/// not repeated.
fn is_token(text: &str) -> bool {
    (1..=MAX_TOKEN_BYTES).contains(&text.len())
        && !text.ends_with('.')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}
