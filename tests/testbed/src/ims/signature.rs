//! The verifying side of `SDK-HMAC-SHA256`, written from the published description of the scheme.
//!
//! It judges one request and one secret key; which keys there are, and when a date is too old, is
//! decided in [`super::iam`].

use axum::http::{HeaderMap, header};
use hmac::{Hmac, KeyInit, Mac};
use k8s_openapi::jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use sha2::{Digest, Sha256};
use std::{error::Error, fmt, fmt::Write};

const ALGORITHM: &str = "SDK-HMAC-SHA256";
const DATE: &str = "x-sdk-date";

/// Why a signature does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureError {
    /// There is no header `Authorization: SDK-HMAC-SHA256 Access=…, SignedHeaders=…, Signature=…`.
    Malformed,
    /// `SignedHeaders` is not in lower case, not sorted, or names a header twice.
    UnsortedHeaders,
    /// `SignedHeaders` names a header with an underscore: gateways drop those.
    UnderscoreHeader,
    /// `Host` or `X-Sdk-Date` is not signed.
    UnsignedHeader,
    /// A signed header did not come, or not as text.
    MissingHeader,
    /// `X-Sdk-Date` is no `YYYYMMDDTHHMMSSZ`.
    BadDate,
    /// Another key, or another request than the one signed.
    Mismatch,
}

impl fmt::Display for SignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the Authorization header is malformed",
            Self::UnsortedHeaders => "SignedHeaders is not sorted and in lower case",
            Self::UnderscoreHeader => "a header with an underscore is signed",
            Self::UnsignedHeader => "host and x-sdk-date have to be signed",
            Self::MissingHeader => "a signed header is missing",
            Self::BadDate => "X-Sdk-Date is not of the form YYYYMMDDTHHMMSSZ",
            Self::Mismatch => "the signature is another",
        })
    }
}

impl Error for SignatureError {}

/// The parts of an `Authorization` header.
struct Authorization<'a> {
    access_key: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    fn parse(headers: &'a HeaderMap) -> Option<Self> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let mut parts = value.strip_prefix(ALGORITHM)?.split(',').map(str::trim);
        let parsed = Self {
            access_key: parts.next()?.strip_prefix("Access=")?,
            signed_headers: parts.next()?.strip_prefix("SignedHeaders=")?,
            signature: parts.next()?.strip_prefix("Signature=")?,
        };
        parts.next().is_none().then_some(parsed)
    }
}

/// The access key that a request claims to be signed with.
pub(super) fn access_key(headers: &HeaderMap) -> Option<&str> {
    Authorization::parse(headers).map(|authorization| authorization.access_key)
}

/// When the request was signed, by its own `X-Sdk-Date`.
pub(super) fn signed_at(headers: &HeaderMap) -> Result<Timestamp, SignatureError> {
    let date = headers
        .get(DATE)
        .and_then(|date| date.to_str().ok())
        .ok_or(SignatureError::MissingHeader)?;
    // The parser alone would take shorter numbers too.
    if date.len() != "20191115T033655Z".len() {
        return Err(SignatureError::BadDate);
    }
    DateTime::strptime("%Y%m%dT%H%M%SZ", date)
        .and_then(|date| TimeZone::UTC.to_timestamp(date))
        .map_err(|_| SignatureError::BadDate)
}

/// Checks the signature of a request.
///
/// `uri_path` and `raw_query` are those of the request line, undecoded; `headers` must contain
/// `Host`. Says nothing about the age of the date: a published vector is valid for ever.
pub fn verify_signature(
    method: &str,
    uri_path: &str,
    raw_query: Option<&str>,
    headers: &HeaderMap,
    body: &[u8],
    secret_key: &str,
) -> Result<(), SignatureError> {
    let authorization = Authorization::parse(headers).ok_or(SignatureError::Malformed)?;
    let names: Vec<&str> = authorization.signed_headers.split(';').collect();
    let lower_case = names.iter().all(|name| *name == name.to_ascii_lowercase());
    if !lower_case || !names.is_sorted_by(|left, right| left < right) {
        return Err(SignatureError::UnsortedHeaders);
    }
    if authorization.signed_headers.contains('_') {
        return Err(SignatureError::UnderscoreHeader);
    }
    if !names.contains(&"host") || !names.contains(&DATE) {
        return Err(SignatureError::UnsignedHeader);
    }
    let mut canonical_headers = String::new();
    for name in &names {
        let value = headers
            .get(*name)
            .and_then(|value| value.to_str().ok())
            .ok_or(SignatureError::MissingHeader)?;
        let _ = writeln!(canonical_headers, "{name}:{}", value.trim());
    }
    signed_at(headers)?;
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());

    let request = format!(
        "{method}\n{}\n{}\n{canonical_headers}\n{}\n{}",
        canonical_path(uri_path),
        canonical_query(raw_query.unwrap_or_default()),
        authorization.signed_headers,
        hex(&Sha256::digest(body)),
    );
    let to_sign = format!(
        "{ALGORITHM}\n{}\n{}",
        date.unwrap_or_default(),
        hex(&Sha256::digest(request.as_bytes()))
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(secret_key.as_bytes())
        .expect("HMAC takes keys of any length");
    mac.update(to_sign.as_bytes());
    if hex(&mac.finalize().into_bytes()) == authorization.signature {
        Ok(())
    } else {
        Err(SignatureError::Mismatch)
    }
}

fn canonical_path(path: &str) -> String {
    let mut canonical: String = path
        .split('/')
        .map(|segment| encode(&decode(segment, false)))
        .collect::<Vec<_>>()
        .join("/");
    if !canonical.ends_with('/') {
        canonical.push('/');
    }
    canonical
}

fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (encode(&decode(key, true)), encode(&decode(value, true)))
        })
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join("&")
}

/// Everything but the unreserved characters of RFC 3986 becomes `%XX`.
fn encode(bytes: &[u8]) -> String {
    let mut encoded = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Undoes percent-encoding; what is none stays as it is. In a query a plus is a space.
fn decode(text: &str, query: bool) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after
            .get(..2)
            .filter(|_| byte == b'%')
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let Some(escaped) = escaped {
            decoded.push(escaped);
            rest = &after[2..];
        } else {
            decoded.push(if query && byte == b'+' { b' ' } else { byte });
            rest = after;
        }
    }
    decoded
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
