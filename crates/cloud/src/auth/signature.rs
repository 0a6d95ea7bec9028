//! `SDK-HMAC-SHA256`: how requests are signed with an access key and a secret key.
//!
//! Source: Huawei Cloud, "API Signing Guide"; Open Telekom Cloud publishes the same algorithm.

use crate::{config::Keys, http};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use hmac::{Hmac, KeyInit, Mac};
use image_export_model::ProjectId;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use std::borrow::Cow;

const ALGORITHM: &str = "SDK-HMAC-SHA256";
/// All but the unreserved characters of RFC 3986.
const RESERVED: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');
const DATE: HeaderName = HeaderName::from_static("x-sdk-date");
const PROJECT: HeaderName = HeaderName::from_static("x-project-id");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-security-token");

/// The headers that authorise a request without a body, for `project_id`, sent at `now`. The cloud
/// accepts them for about 15 minutes around it, so each attempt is signed anew. `None` if the keys fit
/// into no header.
pub(crate) fn sign(
    keys: &Keys,
    method: &Method,
    uri: &Uri,
    project_id: &ProjectId,
    now: Timestamp,
) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(
        header::HOST,
        HeaderValue::from_str(uri.authority()?.as_str()).ok()?,
    );
    headers.insert(PROJECT, HeaderValue::from_str(project_id.as_str()).ok()?);
    if let Some(token) = &keys.security_token {
        headers.insert(SECURITY_TOKEN, http::sensitive(token.expose_secret())?);
    }
    let date = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    headers.insert(DATE, HeaderValue::from_str(&date).ok()?);
    let authorization = authorization(keys, method, uri, &headers, b"", &date);
    headers.insert(header::AUTHORIZATION, http::sensitive(&authorization)?);
    // The transport writes its own, with the same value.
    headers.remove(header::HOST);
    Some(headers)
}

/// The value of `Authorization` for a request with these headers, all of which are signed but those
/// with an underscore in their names; `date` is that of `X-Sdk-Date`.
fn authorization(
    keys: &Keys,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
    date: &str,
) -> String {
    let mut request = String::with_capacity(512);
    request.push_str(method.as_str());
    request.push('\n');
    push_path(&mut request, uri);
    request.push('\n');
    push_query(&mut request, uri);
    request.push('\n');
    let signed = push_headers(&mut request, headers);
    request.push('\n');
    request.push_str(&signed);
    request.push('\n');
    request.push_str(&hex(&Sha256::digest(body)));
    let to_sign = [ALGORITHM, date, &hex(&Sha256::digest(request))].join("\n");
    let mut mac = Hmac::<Sha256>::new_from_slice(keys.secret.expose_secret().as_bytes())
        .expect("HMAC takes keys of any length");
    mac.update(to_sign.as_bytes());
    let signature = hex(&mac.finalize().into_bytes());
    let access = &keys.access;
    format!("{ALGORITHM} Access={access}, SignedHeaders={signed}, Signature={signature}")
}

/// One line a header, sorted by name. Returns the names, joined by semicolons.
fn push_headers(to: &mut String, headers: &HeaderMap) -> String {
    let mut sorted: Vec<_> = headers
        .iter()
        .filter(|(name, _)| !name.as_str().contains('_'))
        .map(|(name, value)| (name.as_str(), value.as_bytes().trim_ascii()))
        .collect();
    sorted.sort_unstable();
    for (name, value) in &sorted {
        to.push_str(name);
        to.push(':');
        to.push_str(&String::from_utf8_lossy(value));
        to.push('\n');
    }
    let names: Vec<_> = sorted.iter().map(|(name, _)| *name).collect();
    names.join(";")
}

/// Each segment encoded anew, with a slash at the end, which the URI itself need not have.
fn push_path(to: &mut String, uri: &Uri) {
    for (n, segment) in uri.path().split('/').enumerate() {
        if n > 0 {
            to.push('/');
        }
        push_canonical(to, segment);
    }
    if !to.ends_with('/') {
        to.push('/');
    }
}

/// `key=value` pairs encoded anew and sorted, as encoded, by key, then value.
fn push_query(to: &mut String, uri: &Uri) {
    let mut pairs: Vec<_> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            // In a query, servers read a plus sign as a space.
            [key, value].map(|text| {
                let mut again = String::new();
                push_canonical(&mut again, &text.replace('+', " "));
                again
            })
        })
        .collect();
    pairs.sort_unstable();
    let pairs: Vec<_> = pairs.iter().map(|pair| pair.join("=")).collect();
    to.push_str(&pairs.join("&"));
}

/// Decodes and percent-encodes anew, so that equal texts are spelt equally.
fn push_canonical(to: &mut String, text: &str) {
    let decoded = Cow::from(percent_decode_str(text));
    to.extend(percent_encode(&decoded, &RESERVED));
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let digits = digits.map(|digit| b"0123456789abcdef"[usize::from(digit)]);
    let mut text = Vec::with_capacity(2 * bytes.len());
    text.extend(digits);
    String::from_utf8(text).expect("ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use testbed::ims::verify_signature;
    use url::Url;

    fn signature(authorization: &str) -> &str {
        authorization.rsplit_once("Signature=").unwrap().1
    }

    /// Signs with the headers that the published examples sign.
    fn signed(
        keys: (&str, &str),
        method: &Method,
        url: &str,
        date: &str,
        content_type: bool,
        body: &str,
    ) -> String {
        let keys = Keys {
            access: keys.0.to_owned(),
            secret: keys.1.into(),
            security_token: None,
        };
        let uri: Uri = url.parse().unwrap();
        let mut headers = HeaderMap::new();
        let host = uri.authority().unwrap().as_str();
        headers.insert(header::HOST, host.parse().unwrap());
        headers.insert(DATE, date.parse().unwrap());
        if content_type {
            headers.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
        }
        authorization(&keys, method, &uri, &headers, body.as_bytes(), date)
    }

    #[test]
    fn the_published_example_with_a_query() {
        let authorization = signed(
            (
                "QTWAOYTTINDUT2QVKYUC",
                "MFyfvK41ba2giqM7Uio6PznpdUKGpownRZlmVmHc",
            ),
            &Method::GET,
            "https://service.region.example.com/v1/77b6a44cba5143ab91d13ab9a8ff44fd/vpcs?limit=2&marker=13551d6b-755d-4757-b956-536f674975c0",
            "20191115T033655Z",
            true,
            "",
        );
        assert_eq!(
            authorization,
            "SDK-HMAC-SHA256 Access=QTWAOYTTINDUT2QVKYUC, SignedHeaders=content-type;host;x-sdk-date, \
             Signature=7be6668032f70418fcc22abc52071e57aff61b84a1d2381bb430d6870f4f6ebe"
        );
    }

    #[test]
    fn the_published_examples_without_and_with_a_body() {
        for (method, body, expected) in [
            (
                Method::GET,
                "",
                "cfb4171acec81de07d50e53d57eb77edd537414d66ddb1d7d780f128e12cd842",
            ),
            (
                Method::POST,
                r#"{"name":"test","id":1}"#,
                "436b1ac0a1ae03705934bb70ef2f2e09f7bfed2117d731a38235053199323a1f",
            ),
        ] {
            let authorization = signed(
                ("AccessKey", "SecretKey"),
                &method,
                "https://service.endpoint.myhuaweicloud.com/resources?size=1",
                "20200608T023900Z",
                false,
                body,
            );
            assert_eq!(signature(&authorization), expected);
        }
    }

    #[test]
    fn a_poll_is_signed_for_its_project_and_with_the_token_of_temporary_keys() {
        let keys = Keys {
            access: "AK".into(),
            secret: "canary-7f3a".into(),
            security_token: Some("canary-token".into()),
        };
        let uri = Uri::from_static("https://ims.example.com:8443/v1/p1/jobs/j1");
        let now: Timestamp = "2026-01-02T03:04:05.6Z".parse().unwrap();
        let headers = sign(&keys, &Method::GET, &uri, &"p1".parse().unwrap(), now).unwrap();
        assert_eq!(headers[&DATE], "20260102T030405Z");
        assert_eq!(headers[&PROJECT], "p1");
        assert!(headers[&SECURITY_TOKEN].is_sensitive());
        let authorization = headers[header::AUTHORIZATION].to_str().unwrap();
        assert!(
            authorization.contains("SignedHeaders=host;x-project-id;x-sdk-date;x-security-token,"),
            "{authorization}"
        );
        assert!(!format!("{keys:?}{headers:?}").contains("canary"));
    }

    #[test]
    fn headers_with_an_underscore_are_not_signed_and_values_are_trimmed() {
        let mut headers = HeaderMap::new();
        headers.insert("x_skipped", "1".parse().unwrap());
        headers.insert("b", " two  words ".parse().unwrap());
        headers.insert("a", "1".parse().unwrap());
        let mut lines = String::new();
        assert_eq!(push_headers(&mut lines, &headers), "a;b");
        assert_eq!(lines, "a:1\nb:two  words\n");
    }

    proptest! {
        #[test]
        fn a_verifier_written_from_the_specification_agrees_on_any_request(
            method in prop::sample::select(vec![Method::GET, Method::POST, Method::PUT, Method::DELETE]),
            path in "(/\\PC{0,12}){0,5}",
            query in proptest::option::of("\\PC{0,40}"),
            extra in prop::collection::vec(("[a-z][a-z0-9_-]{0,12}", "[ -~]{0,20}"), 0..5),
            body in prop::collection::vec(any::<u8>(), 0..100),
            secret in "\\PC{1,40}",
            changed in any::<prop::sample::Index>(),
        ) {
            let keys = Keys {
                access: "AK".into(),
                secret: secret.as_str().into(),
                security_token: None,
            };
            let mut url = Url::parse("https://ims.example.com").unwrap();
            url.set_path(&path);
            url.set_query(query.as_deref());
            let mut headers = HeaderMap::new();
            for (name, value) in &extra {
                headers.insert(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
            }
            headers.insert(header::HOST, url.authority().parse().unwrap());
            headers.insert(DATE, "20260102T030405Z".parse().unwrap());
            let uri: Uri = url.as_str().parse().unwrap();
            let authorization = authorization(&keys, &method, &uri, &headers, &body, "20260102T030405Z");
            headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
            let verify = |body: &[u8], secret: &str| {
                verify_signature(method.as_str(), url.path(), url.query(), &headers, body, secret)
            };
            prop_assert_eq!(verify(&body, &secret), Ok(()));

            // And on one that was changed on its way.
            let mut other = body.clone();
            other.insert(changed.index(body.len() + 1), 0);
            prop_assert!(verify(&other, &secret).is_err());
            let longer = secret + "x";
            prop_assert!(verify(&body, &longer).is_err());
        }
    }
}
