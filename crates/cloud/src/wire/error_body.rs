//! The body of an answer that reports an error, in any of the three documented shapes.

use super::{
    json::{self, Members, Object, Text, Value},
    responder, retry_after,
    text::Redactor,
};
use http::header::HeaderMap;
use serde::de::MapAccess;
use std::time::{Duration, SystemTime};

/// Longest code or request id, in bytes.
const MAX_TOKEN_BYTES: usize = 64;
/// As much of a text is read, in bytes.
const MAX_TEXT_BYTES: usize = 4 * 1024;

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
        let mut fields = Fields::default();
        if json::parse(bytes, Object(&mut fields)).is_none() {
            return Self {
                responder: by_body(),
                ..Self::default()
            };
        }
        let inner = fields.error;
        let code = (inner.code.or(inner.error_code))
            .or(fields.error_code)
            .or(fields.code)
            .map(|code| canonical_code(&code))
            .filter(|code| is_token(code));
        let has_prefix = |prefix| code.as_ref().is_some_and(|code| code.starts_with(prefix));
        Self {
            known_code: KNOWN_CODES
                .into_iter()
                .find(|known| code.as_deref() == Some(known)),
            is_by_ims: has_prefix("IMG."),
            responder: if has_prefix("APIGW.") {
                Some(responder::API_GATEWAY)
            } else if status == 404 && inner.has_title {
                Some(responder::OPENSTACK)
            } else {
                by_body()
            },
            code: code.filter(|code| *code != status.to_string() && !redactor.is_in(code)),
            text: (inner.message.or(inner.error_msg))
                .or(fields.error_msg)
                .or(fields.message)
                .unwrap_or_default(),
            request_id: (fields.request_id.or(inner.request_id))
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

/// The members of an error body, as far as they are read.
#[derive(Default)]
struct Fields {
    error: Inner,
    error_msg: Option<String>,
    error_code: Option<String>,
    message: Option<String>,
    code: Option<String>,
    request_id: Option<String>,
}

impl<'de> Members<'de> for Fields {
    const NAMES: &'static [&'static str] = &[
        "error",
        "error_msg",
        "error_code",
        "message",
        "code",
        "request_id",
    ];

    fn read<A: MapAccess<'de>>(&mut self, name: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        match name {
            "error" => {
                self.error = Inner::default();
                value.read(Object(&mut self.error))?;
            }
            "error_msg" => self.error_msg = value.read(Text(start))?,
            "error_code" => self.error_code = value.read(Text(start))?,
            "message" => self.message = value.read(Text(start))?,
            "code" => self.code = value.read(Text(start))?,
            _ => self.request_id = value.read(Text(start))?,
        }
        Ok(())
    }
}

/// Those of its `error`.
#[derive(Default)]
struct Inner {
    error_msg: Option<String>,
    error_code: Option<String>,
    message: Option<String>,
    code: Option<String>,
    request_id: Option<String>,
    has_title: bool,
}

impl<'de> Members<'de> for Inner {
    const NAMES: &'static [&'static str] = &[
        "error_msg",
        "error_code",
        "message",
        "code",
        "request_id",
        "title",
    ];

    fn read<A: MapAccess<'de>>(&mut self, name: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        match name {
            "error_msg" => self.error_msg = value.read(Text(start))?,
            "error_code" => self.error_code = value.read(Text(start))?,
            "message" => self.message = value.read(Text(start))?,
            "code" => self.code = value.read(Text(start))?,
            "request_id" => self.request_id = value.read(Text(start))?,
            _ => self.has_title = value.by(|_| true)?,
        }
        Ok(())
    }
}

/// The start of a text. A code or id that is cut is too long to be one.
#[allow(clippy::unnecessary_wraps, reason = "a reader of texts may find none")]
fn start(text: &str) -> Option<String> {
    let text = text.trim();
    Some(text[..text.floor_char_boundary(MAX_TEXT_BYTES)].to_owned())
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
