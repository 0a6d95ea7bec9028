//! What holds for every input: one function for each fuzz target of `fuzz/`; the replay of the corpus
//! calls them too. Compiled for tests and fuzzing only.

use crate::{
    CloudsFile, EndpointPolicy, JobPath, Place, cloud_names,
    config::{
        Auth, CloudEntry, Endpoint, Identity, KeystoneLogin, MAX_FIELD_BYTES, clouds_yaml::shown,
    },
    ims::{
        error::{Rejection, classify},
        job,
    },
    secret::Secret,
    wire::{error_body::ErrorBody, retry_after, text::Redactor, timestamp},
};
use http::header::{DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use image_export_model::{
    ConfigurationError, ConfigurationReason, JobAnswer, JobId, JobState, Outcome,
};
use jiff::tz::TimeZone;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use std::time::{Duration, SystemTime};
use url::Url;

/// What is done with the bytes of an input. Panics where something does not hold.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 5] = [
    ("job_answer", job_answer),
    ("error_body", error_body),
    ("retry_after", retry_after),
    ("timestamp", timestamp),
    ("clouds_yaml", clouds_yaml),
];

/// What the redactor knows, as with temporary keys: two secrets, in lower and in upper case.
const SECRETS: [&str; 2] = ["canary-7f3a", "CANARY.7F3A"];
/// No host can hold a circumflex, so of a `clouds.yaml` only a cloud's name may show this.
const YAML_CANARY: &str = "canary^7f3a";
const HOST: &str = "ims.example.com";
const LONGEST_PAUSE: Duration = Duration::from_secs(366 * 24 * 3600);

fn redactor() -> Redactor {
    Redactor::new(&SECRETS.map(SecretString::from))
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_445_412_480)
}

/// Invisible characters that change how the others are read.
fn deceives(c: char) -> bool {
    matches!(c, '\u{061C}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
}

fn check_visible(text: &str) {
    assert!(!text.is_empty() && text.trim() == text, "{text:?}");
    assert!(
        !text.chars().any(|c| c.is_control() || deceives(c)),
        "{text:?}"
    );
}

/// A text that may stand in a status.
fn check_text(text: &str, max_bytes: usize) {
    check_visible(text);
    assert!(text.len() <= max_bytes, "{} bytes: {text}", text.len());
    assert!(
        !SECRETS.iter().any(|secret| text.contains(secret)),
        "{text}"
    );
}

/// Half a sentence that may stand in a condition.
fn check_message(message: &str) {
    check_text(message, 512);
    assert!(!message.ends_with('.'), "{message}");
}

/// The body of a 200.
pub fn job_answer(body: &[u8]) {
    let json = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let raw: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
    let named = raw["job_id"].as_str().unwrap_or_default().trim();
    let id = |text: &str| text.parse::<JobId>();
    if named != "another" {
        let another = id("another").expect("an id");
        assert!(job::parse(body, &another, &redactor()).is_err());
    }
    // A query is only for what is an id.
    let Ok(job_id) = id(named) else { return };
    let Ok(answer) = job::parse(body, &job_id, &redactor()) else {
        return;
    };
    let status = raw["status"].as_str().expect("a status");
    check_state(&answer.state, status);
    check_texts(&answer);
}

/// An end must be reported by the cloud, letter for letter, and no other status reads like one.
fn check_state(state: &JobState, status: &str) {
    let word = status.trim().to_ascii_uppercase();
    match state {
        JobState::Init => assert_eq!(word, "INIT"),
        JobState::Running => assert_eq!(word, "RUNNING"),
        JobState::Success => assert_eq!(word, "SUCCESS"),
        JobState::Fail => assert!(["FAIL", "FAILED"].contains(&&*word), "{status:?}"),
        JobState::Unrecognized(raw) => {
            check_text(raw, 4 * 64);
            assert!(raw.chars().count() <= 64, "{raw}");
            let documented = ["INIT", "RUNNING", "SUCCESS", "FAIL", "FAILED"];
            assert!(!documented.contains(&&*raw.to_ascii_uppercase()), "{raw}");
        }
    }
}

fn check_texts(answer: &JobAnswer) {
    for (text, max_bytes) in [
        (&answer.job_type, 128),
        (&answer.image_id, 64),
        (&answer.fail_reason, 1024),
        (&answer.error_code, 64),
    ] {
        if let Some(text) = text {
            check_text(text, max_bytes);
            let cut = text.ends_with('…');
            assert!(cut || redactor().clean(text).as_deref() == Some(text));
        }
    }
    let id = answer.image_id.as_deref().unwrap_or_default();
    assert!(
        id.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)),
        "{id}"
    );
}

/// The body of any other answer, with every status that has a meaning and some that have none.
pub fn error_body(body: &[u8]) {
    let redactor = redactor();
    for parsed_with in [200, 400, 401, 404, 429, 503] {
        let error = ErrorBody::parse(parsed_with, body, &redactor);
        for word in error.code.iter().chain(&error.request_id) {
            check_text(word, 64);
            assert!(word.is_ascii() && !word.contains(' '), "{word}");
        }
        if let Some(status) = error.code.as_deref().and_then(|code| code.parse().ok()) {
            let repeated = ErrorBody::parse(status, body, &redactor).code;
            assert_ne!(repeated, Some(status.to_string()));
        }
    }
    let error = ErrorBody::parse(599, body, &redactor);
    for status in (300..=505).chain([100, 200, 204, 206, 299, 599, 999]) {
        check_class(&classify(HOST, status, &error), status, &error);
        let pause = error.retry_after(&HeaderMap::new(), status, now());
        check_pause(pause);
        assert!(pause.is_none() || error.is_throttling(status));
    }
}

fn check_class(class: &Result<Outcome, Rejection>, status: u16, error: &ErrorBody) {
    let throttled = *class == Ok(Outcome::Throttled);
    assert_eq!(throttled, error.is_throttling(status), "{status}");
    match class {
        Ok(Outcome::Throttled) => {}
        Ok(Outcome::JobNotFound) => assert!(status == 404 && error.is_by_ims, "{status}"),
        Err(rejection) => {
            assert!([400, 401].contains(&status), "{status}");
            check_message(&rejection.to_string());
        }
        Ok(outcome @ (Outcome::Misconfigured(_) | Outcome::Failed(_))) => {
            let expected = match outcome {
                Outcome::Failed(_) => !(300..400).contains(&status),
                _ => (300..500).contains(&status) || status == 501,
            };
            assert!(expected, "{status}: {outcome:?}");
            let message = outcome.message().expect("a message");
            assert!(message.contains(HOST) && message.contains(&status.to_string()));
            check_message(message);
        }
        Ok(Outcome::Answered(_) | Outcome::Deferred(_)) => panic!("an error is not an answer"),
    }
}

fn check_pause(pause: Option<Duration>) {
    assert!(
        pause.is_none_or(|pause| !pause.is_zero() && pause <= LONGEST_PAUSE),
        "{pause:?}"
    );
}

/// A `Retry-After` header, on the next line a `Date`, and below them the text of an error.
pub fn retry_after(data: &[u8]) {
    let mut lines = data.splitn(3, |b| *b == b'\n');
    let mut headers = HeaderMap::new();
    for name in [RETRY_AFTER, DATE] {
        let value = HeaderValue::from_bytes(lines.next().unwrap_or_default());
        if let Ok(value) = value {
            headers.insert(name, value);
        }
    }
    let from_headers = retry_after::from_headers(&headers, now());
    check_pause(from_headers);
    let later = retry_after::from_headers(&headers, now() + Duration::from_secs(3600));
    assert!(later <= from_headers, "{later:?} after {from_headers:?}");
    let value = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    if let Some(Ok(seconds)) = value.map(|value| value.trim().parse::<u64>())
        && !value.is_some_and(|value| value.contains('+'))
    {
        let seconds = Duration::from_secs(seconds).min(LONGEST_PAUSE);
        assert_eq!(from_headers.unwrap_or_default(), seconds);
    }

    let text = String::from_utf8_lossy(lines.next().unwrap_or_default());
    let from_text = retry_after::from_text(&text);
    check_pause(from_text);
    let body = json!({"error_msg": text}).to_string();
    let error = ErrorBody::parse(429, body.as_bytes(), &redactor());
    let pause = error.retry_after(&headers, 429, now());
    assert_eq!(pause, from_headers.or(from_text));
}

/// A time, as text.
pub fn timestamp(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Some(time) = timestamp::parse(text) else {
        return;
    };
    assert!(text.trim().len() <= 64);
    assert_eq!(timestamp::parse(&time.to_string()), Some(time), "{time}");
    assert_eq!(timestamp::parse(&format!(" {text}\n")), Some(time));
    let civil = TimeZone::UTC.to_datetime(time);
    if civil.year() >= 0 && time.as_nanosecond() % 1_000_000 == 0 {
        let other = civil.strftime("%d-%b-%Y %H:%M:%S");
        let other = format!("{other}:{:03}", civil.millisecond());
        assert_eq!(timestamp::parse(&other), Some(time), "{other}");
    }
}

/// A `clouds.yaml`, read as one of production and as one of a lab; and once more as a password in
/// one.
pub fn clouds_yaml(yaml: &[u8]) {
    let strict = EndpointPolicy::default();
    let lab = EndpointPolicy {
        allow_http: true,
        ..EndpointPolicy::default()
    };
    let text = std::str::from_utf8(yaml).unwrap_or_default();
    let names = cloud_names(text);
    for cloud in names.iter().map(String::as_str).take(3).chain(["otc"]) {
        let strictly = parse(yaml, cloud, &strict);
        let loosely = parse(yaml, cloud, &lab);
        for outcome in [&strictly, &loosely] {
            match outcome {
                Ok(entry) => check_hidden(entry),
                Err(error) => check_error(error, cloud, &names),
            }
        }
        if let Ok(entry) = strictly {
            check_endpoints(&entry);
            let loosely = loosely.expect("a lab permits what is permitted elsewhere");
            assert_eq!(format!("{entry:?}"), format!("{loosely:?}"));
        }
    }
    check_password(text, &strict);
}

fn parse(
    yaml: &[u8],
    cloud: &str,
    policy: &EndpointPolicy,
) -> Result<CloudEntry, ConfigurationError> {
    let file = CloudsFile {
        place: &Place::KeyOf("Secret team-a/otc".to_owned()),
        clouds_yaml: Some(yaml),
        cacert: None,
    };
    CloudEntry::parse(&file, cloud, policy)
}

fn check_error(error: &ConfigurationError, cloud: &str, names: &[String]) {
    let message = &*error.message;
    check_visible(message);
    assert!(message.chars().count() <= 512, "{message}");
    assert!(message.contains("Secret team-a/otc"));
    // Such a message ends with the name of a cloud, which may end in anything.
    let others_shown = error.reason == ConfigurationReason::CredentialsNotFound;
    assert!(others_shown || !message.ends_with('.'), "{message}");
    let shown = |name: &str| shown(name, &Redactor::default());
    let is_name = shown(cloud).contains(YAML_CANARY)
        || others_shown && names.iter().any(|name| shown(name).contains(YAML_CANARY));
    assert!(is_name || !message.contains(YAML_CANARY), "{message}");
}

/// The debug form of an entry is the same with other secrets, and its redactor knows its own.
fn check_hidden(entry: &CloudEntry) {
    let mut other = entry.clone();
    let mut secrets = Vec::new();
    for secret in secrets_of(&mut other.auth) {
        secrets.push(std::mem::replace(secret, "other".into()));
    }
    assert_eq!(format!("{entry:?}"), format!("{other:?}"));
    for secret in &secrets {
        let secret = secret.expose_secret();
        // Others are not searched for, or occur in their replacement.
        let plain = secret.bytes().all(|b| b.is_ascii_alphanumeric());
        if plain && secret.len() >= 4 && !"redacted".contains(&secret.to_ascii_lowercase()) {
            let (before, after) = if secret.len() < 8 {
                ("<", ">")
            } else {
                ("x", "x")
            };
            let echo = entry.redactor.clean(&format!("{before}{secret}{after}"));
            assert!(!echo.expect("a text").contains(secret));
        }
    }
}

fn secrets_of(auth: &mut Auth) -> Vec<&mut Secret> {
    match auth {
        Auth::Token { token: secret, .. }
        | Auth::Keystone(KeystoneLogin {
            identity:
                Identity::Password {
                    password: secret, ..
                }
                | Identity::Token(secret)
                | Identity::ApplicationCredential { secret, .. },
            ..
        }) => vec![secret],
        Auth::Keys { keys, .. } => std::iter::once(&mut keys.secret)
            .chain(&mut keys.security_token)
            .collect(),
    }
}

/// What passed the strict policy leads nowhere but to the public clouds.
fn check_endpoints(entry: &CloudEntry) {
    let of_auth: &Endpoint = match &entry.auth {
        Auth::Keystone(login) => &login.auth_url,
        Auth::Keys { endpoint, .. } | Auth::Token { endpoint, .. } => endpoint,
    };
    let (project, job) = ("p".parse().expect("an id"), "j".parse().expect("an id"));
    for endpoint in entry.image_endpoint.iter().chain([of_auth]) {
        let uri = endpoint.job_uri(JobPath::V1Jobs, &project, &job);
        let url = Url::parse(&uri.to_string()).expect("a URL");
        assert_eq!(url.scheme(), "https");
        assert_eq!((url.username(), url.password()), ("", None));
        assert_eq!(url.port_or_known_default(), Some(443));
        let host = url.host_str().expect("a host").trim_end_matches('.');
        let service = host.split('.').next().expect("a label");
        assert!(["iam", "iam-pub", "ims"].contains(&service), "{host}");
        assert!(!host.contains(".obs"), "{host}");
        let domains = ["otc.t-systems.com", "myhuaweicloud.com", "myhuaweicloud.eu"];
        let mut domains = domains.iter();
        assert!(
            domains.any(|domain| host.ends_with(&format!(".{domain}"))),
            "{host}"
        );
    }
}

/// A quoted password is used exactly as it is written, and shown nowhere.
fn check_password(password: &str, policy: &EndpointPolicy) {
    // JSON's quotation is YAML's for what YAML permits in a document.
    let printable = |c: char| c != '\u{7f}' && !('\u{80}'..'\u{a0}').contains(&c);
    let is_long = password.len() > MAX_FIELD_BYTES;
    if is_long || password.trim().is_empty() || !password.chars().all(printable) {
        return;
    }
    let auth = json!({
        "auth_url": "https://iam.eu-de.otc.t-systems.com", "user_id": "u1", "password": password,
    });
    let yaml = json!({"clouds": {"otc": {"auth": auth}}}).to_string();
    let entry = parse(yaml.as_bytes(), "otc", policy)
        .unwrap_or_else(|error| panic!("{error:?} for {password:?}"));
    let Auth::Keystone(login) = &entry.auth else {
        panic!("{entry:?}")
    };
    assert_eq!(login.identity.secret().expose_secret(), password);
    check_hidden(&entry);
}
