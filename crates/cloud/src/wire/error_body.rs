//! The body of an answer that reports an error, in any of the three documented shapes.

use super::{json, retry_after, text::Redactor};
use reqwest::header::HeaderMap;
use std::time::{Duration, SystemTime};

/// Longest code or request id that is read, in bytes.
const MAX_TOKEN_BYTES: usize = 64;

/// What an error body reports.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ErrorBody {
    /// The code, with `APIG.` spelt as `APIGW.`. `None` also where it only repeats the HTTP status.
    pub(crate) code: Option<String>,
    /// The text, as some codes mean several things. Never shown.
    pub(crate) text: String,
    /// For the log only.
    pub(crate) request_id: Option<String>,
}

impl ErrorBody {
    /// Reads `{"error":{"message","code"}}`, `{"error_msg","error_code","request_id"}` and
    /// `{"code","message"}`; anything else, HTML for example, is an empty error.
    pub(crate) fn parse(status: u16, body: &[u8], redactor: &Redactor) -> Self {
        let Some(body) = json::parse(body) else {
            return Self::default();
        };
        let first = |paths: &[&str]| {
            paths
                .iter()
                .find_map(|path| json::text(body.pointer(path)?))
        };
        let token = |text: String| redactor.clean(&text).filter(|text| is_token(text));
        Self {
            code: first(&["/error/code", "/error/error_code", "/error_code", "/code"])
                .and_then(token)
                .map(|code| canonical_code(&code))
                // Checked again: the canonical spelling may be longer, or that of a secret.
                .and_then(token)
                .filter(|code| *code != status.to_string()),
            text: first(&[
                "/error/message",
                "/error/error_msg",
                "/error_msg",
                "/message",
            ])
            .unwrap_or_default(),
            request_id: first(&["/request_id", "/error/request_id"]).and_then(token),
        }
    }

    pub(crate) fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
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
            .and_then(|id| redactor.clean(id))
            .filter(|id| is_token(id))
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

/// Codes and request ids are single words without a full stop at their end; prose in their place is
/// not repeated.
fn is_token(text: &str) -> bool {
    (1..=MAX_TOKEN_BYTES).contains(&text.len())
        && !text.ends_with('.')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}
