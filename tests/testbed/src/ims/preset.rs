//! Named faults: each documented answer, and each malformed answer that a client must survive.
//!
//! Codes and texts of IMS and gateway errors are the published ones. No body of a failed job and no
//! body for an unknown job is public: those here are constructed in the published shapes.

use super::{Answer, Quota, job::wall_clock, refusal};
use flate2::{Compression, write::GzEncoder};
use k8s_openapi::jiff::Timestamp;
use std::{io::Write, time::Duration};

/// A named fault.
pub struct Preset {
    /// The name, for `Answer::preset` and the admin API.
    pub name: &'static str,
    /// A short description.
    pub about: &'static str,
    make: fn() -> Answer,
}

impl Answer {
    /// The named fault. Panics where there is none of that name: see [`PRESETS`].
    #[must_use]
    pub fn preset(name: &str) -> Self {
        Self::find_preset(name).unwrap_or_else(|| panic!("no preset is named {name:?}"))
    }

    /// The named fault, if there is one of that name.
    #[must_use]
    pub fn find_preset(name: &str) -> Option<Self> {
        PRESETS
            .iter()
            .find(|preset| preset.name == name)
            .map(|preset| (preset.make)())
    }
}

const fn preset(name: &'static str, about: &'static str, make: fn() -> Answer) -> Preset {
    Preset { name, about, make }
}

/// All named faults.
#[rustfmt::skip]
pub static PRESETS: &[Preset] = &[
    // Errors of IMS.
    preset("img-0023", "400 IMG.0023: exception inside the job query", || Answer::ims_error(400, "IMG.0023", "An exception occurred during job query.")),
    preset("img-0024", "400 IMG.0024: the published example of an error", || Answer::ims_error(400, "IMG.0024", "The imagetype is invalid.")),
    preset("img-0026", "403 IMG.0026: role not sufficient", || Answer::ims_error(403, "IMG.0026", ROLE)),
    preset("img-0026-as-400", "400 IMG.0026: the same, with the status of the published code table", || Answer::ims_error(400, "IMG.0026", ROLE)),
    preset("img-0030", "400 IMG.0030: project id and token do not match", refusal::project_mismatch),
    preset("img-0060", "400 IMG.0060: throttled", || Answer::ims_error(400, "IMG.0060", "The number of tasks exceeds the flow control limit.")),
    preset("img-0087", "400 IMG.0087: token wrong", || Answer::ims_error(400, "IMG.0087", "The token is incorrect.")),
    preset("job-not-found", "404 IMG.0121: no such job (constructed)", refusal::job_not_found),
    // Errors of the gateway.
    preset("token-expired", "401 APIGW.0307: expired token", refusal::token_expired),
    preset("token-missing", "401 APIGW.0301: no token", refusal::token_missing),
    preset("token-undecryptable", "401 APIGW.0301: dead or foreign token", refusal::token_undecryptable),
    preset("signature-expired", "401 APIGW.0301: clock skew", refusal::signature_expired),
    preset("signature-wrong", "401 APIGW.0301: wrong secret key", refusal::signature_wrong),
    preset("ak-unknown", "401 APIGW.0301: no such access key", || refusal::key_unknown("QTWAOYTTINDUT2QVKYUC")),
    preset("ak-locked", "401 APIGW.0301: access key locked after too many wrong signatures", refusal::key_locked),
    preset("security-token-wrong", "401 APIGW.0301: temporary key without its security token (constructed)", refusal::security_token_wrong),
    preset("unauthorized", "401 in the shape of the identity service", || Answer::keystone_error(401, "Unauthorized", "Unauthorized.")),
    preset("forbidden", "403 without a code", || Answer::keystone_error(403, "Forbidden", "You do not have the rights to perform the operation.")),
    preset("api-not-published", "404 APIGW.0101: wrong endpoint or path", refusal::api_not_published),
    preset("throttled", "429 APIGW.0308: the period stands in the text alone", throttled),
    preset("throttled-retry-after", "429 APIGW.0308 with Retry-After: 2", || throttled().header("Retry-After", "2")),
    preset("throttled-retry-after-date", "429 APIGW.0308 with a date 2 s ahead as Retry-After", || throttled().header("Retry-After", &http_date(Duration::from_secs(2)))),
    preset("throttled-retry-after-huge", "429 APIGW.0308 with Retry-After: 99999999999999999999", || throttled().header("Retry-After", "99999999999999999999")),
    preset("throttled-retry-after-negative", "429 APIGW.0308 with Retry-After: -5", || throttled().header("Retry-After", "-5")),
    preset("throttled-retry-after-garbage", "429 APIGW.0308 with Retry-After: soon", || throttled().header("Retry-After", "soon")),
    preset("throttled-503", "503 with code APIGW.0308", || Answer::gateway_error(503, "APIGW.0308", &refusal::throttling_text(PUBLISHED_QUOTA))),
    // Passing trouble.
    preset("internal-error", "500", || Answer::keystone_error(500, "Internal Server Error", "Internal Server Error")),
    preset("bad-gateway", "502 with an HTML page", || html(502, "Bad Gateway")),
    preset("unavailable", "503", || Answer::keystone_error(503, "Service Unavailable", "The service is unavailable.")),
    preset("unavailable-retry-after", "503 with Retry-After: 2", || Answer::status(503).header("Retry-After", "2")),
    preset("gateway-timeout", "504 with an HTML page", || html(504, "Gateway Time-out")),
    preset("iam-unavailable", "503 APIGW.0613: the gateway is without its IAM", refusal::iam_unavailable),
    preset("status-405", "405", || Answer::status(405).header("Allow", "POST")),
    preset("status-406", "406", || Answer::status(406)),
    preset("status-407", "407", || Answer::status(407).header("Proxy-Authenticate", "Basic")),
    preset("status-408", "408", || Answer::status(408)),
    preset("status-409", "409", || Answer::status(409)),
    preset("status-501", "501", || Answer::status(501)),
    preset("status-206", "206 with a SUCCESS", || Answer::json(206, SUCCESS)),
    preset("status-299", "299 with a SUCCESS", || Answer::json(299, SUCCESS)),
    preset("status-999", "999 with a SUCCESS", || Answer::json(999, SUCCESS)),
    preset("redirect", "302 to another host", || Answer::status(302).header("Location", "http://elsewhere.invalid/")),
    preset("no-content", "204", || Answer::status(204)),
    preset("hang", "accepts and never answers", Answer::hang),
    preset("cut", "200, connection cut in mid-body", || success().cut_after(40)),
    preset("drip", "200, one byte a second", || success().drip(Duration::from_secs(1))),
    preset("drip-head", "200, one byte a second from the status line on", || with_lengths(&[]).drip(Duration::from_secs(1))),
    preset("no-http", "bytes that are no HTTP", || Answer::raw("SSH-2.0-OpenSSH_9.9\r\n")),
    preset("closed", "closes the connection without a byte", || Answer::raw("")),
    preset("length-too-long", "200, SUCCESS; Content-Length announces more than comes", || with_lengths(&["100000"])),
    preset("length-too-short", "200, SUCCESS; Content-Length announces 20 bytes of it", || with_lengths(&["20"])),
    preset("length-twice", "200, SUCCESS; two different lengths", || with_lengths(&["20", "30"])),
    preset("second-answer", "200, {}, and unasked a second answer: SUCCESS", || Answer::raw(format!("HTTP/1.1 200 OK\r\n{JSON}Content-Length: 2\r\n\r\n{{}}HTTP/1.1 200 OK\r\n{JSON}Connection: close\r\n\r\n{SUCCESS}"))),
    preset("huge-head", "200, 1 MiB of headers", || Answer::raw(format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-Padding: 0123456789abcdef\r\n".repeat(1024 * 1024 / 29)))),
    preset("gzip", "200, RUNNING of another job, compressed", || gzip(0)),
    preset("gzip-bomb", "200, 64 MiB out of 64 KiB of gzip", || gzip(64 * 1024 * 1024)),
    preset("one-gib", "200, spaces, 1 GiB announced and sent", || Answer::json(200, " ".repeat(64 * 1024)).repeated(16 * 1024)),
    preset("endless", "200, a body without an end", || Answer::json(200, " ".repeat(64 * 1024)).endless()),
    // A 200 that cannot be read.
    preset("empty", "200 without a body", || Answer::json(200, "")),
    preset("truncated-json", "200, JSON that stops in the middle", || Answer::json(200, r#"{"status":"SUCCESS","job_id":"{job_id}","enti"#)),
    preset("html", "200 with an HTML page", || html(200, "Sign in")),
    preset("bad-utf8", "200, bytes that are not UTF-8", || Answer::json(200, "").body(&b"{\"status\":\"\xff\xfe\",\"job_id\":\"x\"}"[..])),
    preset("bom", "200, SUCCESS after a byte order mark", || Answer::json(200, format!("\u{feff}{SUCCESS}"))),
    preset("nan", "200, NaN where a number belongs", || Answer::json(200, r#"{"status":"RUNNING","job_id":"{job_id}","entities":{"process_percent":NaN}}"#)),
    preset("deep", "200, JSON nested 10,000 levels deep", || Answer::json(200, ["[".repeat(10_000), "]".repeat(10_000)].concat())),
    preset("json-array", "200, an array where the object belongs", || Answer::json(200, "[]")),
    // A 200 with unusual content.
    preset("other-job", "200, SUCCESS of another job", || Answer::json(200, r#"{"status":"SUCCESS","entities":{"image_id":"e9e91bff-14b6-4a0b-8377-4ed0813e3360"},"job_id":"00000000000000000000000000000000"}"#)),
    preset("no-job-id", "200 without job_id", || Answer::json(200, r#"{"status":"SUCCESS","entities":{"image_id":"e9e91bff-14b6-4a0b-8377-4ed0813e3360"}}"#)),
    preset("no-status", "200 without status", || job("")),
    preset("null-status", "200, status null", || job(r#","status":null"#)),
    preset("empty-status", "200, status empty", || job(r#","status":"""#)),
    preset("number-status", "200, status a number", || job(r#","status":1"#)),
    preset("array-status", "200, status an array", || job(r#","status":["SUCCESS"]"#)),
    preset("number-job-id", "200, SUCCESS, job_id a number", || Answer::json(200, r#"{"job_id":1,"status":"SUCCESS"}"#)),
    preset("wrong-types", "200, RUNNING with all other fields of the wrong type", || job(r#","status":"RUNNING","job_type":7,"begin_time":[],"end_time":{},"error_code":0.5,"fail_reason":true,"entities":"none""#)),
    preset("duplicate-keys", "200, status twice: RUNNING, then SUCCESS", || job(r#","status":"RUNNING","status":"SUCCESS""#)),
    preset("unknown-status", "200, an undocumented status", || job(r#","status":"PENDING_PAYMENT""#)),
    preset("lower-case-success", "200, success in lower case, image id in results[]", || job(r#","status":"success","entities":{"results":[{"image_id":"e9e91bff-14b6-4a0b-8377-4ed0813e3360"}]}"#)),
    preset("success", "200, SUCCESS with an image id", success),
    preset("success-old-times", "200, SUCCESS with times of the older format and an empty end_time", || job(r#","job_type":"createImageByInstance","begin_time":"04-Jun-2015 18:11:06:586","end_time":"","status":"SUCCESS","error_code":null,"fail_reason":null,"entities":{"image_id":"e9e91bff-14b6-4a0b-8377-4ed0813e3360"}"#)),
    preset("success-other-type", "200, SUCCESS of a job type that has no image id", || job(r#","job_type":"imsAddImageMembersJob","status":"SUCCESS","entities":{}"#)),
    preset("success-no-image", "200, SUCCESS without image id", || job(r#","status":"SUCCESS","error_code":null,"fail_reason":null,"entities":{}"#)),
    preset("success-with-error", "200, SUCCESS with an error_code and 20 %", || job(r#","status":"SUCCESS","end_time":"","error_code":"IMG.0001","entities":{"image_id":"e9e91bff-14b6-4a0b-8377-4ed0813e3360","process_percent":0.20}"#)),
    preset("running", "200, RUNNING", || job(r#","status":"RUNNING","end_time":"","error_code":null,"fail_reason":null,"entities":{"process_percent":0.40}"#)),
    preset("init", "200, INIT", || job(r#","status":"INIT","end_time":"","error_code":null,"fail_reason":null,"entities":{}"#)),
    preset("fail", "200, FAIL with code and reason (constructed)", || job(r#","status":"FAIL","error_code":"IMG.0148","fail_reason":"The OBS bucket does not exist.","entities":{}"#)),
    preset("fail-null-reason", "200, FAIL with fail_reason null (constructed)", || job(r#","status":"FAIL","error_code":null,"fail_reason":null,"entities":{}"#)),
    preset("fail-in-entities", "200, FAIL with the reason in entities alone (constructed)", || job(r#","status":"FAIL","entities":{"error_code":"IMG.0148","fail_reason":"The OBS bucket does not exist."}"#)),
    preset("failed", "200, the spelling FAILED (constructed)", || job(r#","status":"FAILED","error_code":"IMG.0148","fail_reason":"The OBS bucket does not exist.","entities":{}"#)),
    preset("fail-huge-reason", "200, FAIL with a reason of 128 KiB, control characters and mark-up (constructed)", || long_reason(128 * 1024)),
    preset("fail-reason-1-mib", "200, the same with 1 MiB (constructed)", || long_reason(1024 * 1024)),
    preset("fail-own-token", "200, FAIL with the caller's own token in the reason (constructed)", || job(r#","status":"FAIL","error_code":"IMG.0148","fail_reason":"cannot read with {token}""#)),
    preset("sub-job-failed", "200, RUNNING while a sub-job failed (constructed)", || job(r#","status":"RUNNING","entities":{"sub_jobs_result":[{"status":"FAIL","job_id":"00000000000000000000000000000001","fail_reason":"sub-job"}]}"#)),
    // Errors of the identity service.
    preset("iam-unauthorized", "401: wrong user or password", refusal::login_refused),
    preset("iam-forbidden", "403", || Answer::keystone_error(403, "Forbidden", "You are not authorized to perform the requested action.")),
    preset("iam-not-found", "404", || Answer::keystone_error(404, "Not Found", "The resource could not be found.")),
    preset("iam-locked", "401: account locked after too many wrong passwords (constructed)", || refusal::account_locked("somebody")),
    preset("iam-no-token", "201 without X-Subject-Token", || Answer::json(201, LOGIN)),
    preset("iam-long-token", "201 with a token of 64 KiB", || Answer::json(201, LOGIN).header("X-Subject-Token", &"x".repeat(64 * 1024))),
    preset("iam-throttled", "429 with Retry-After: 2", || Answer::keystone_error(429, "Too Many Requests", "Too many requests.").header("Retry-After", "2")),
];

const LOGIN: &str =
    r#"{"token":{"methods":["password"],"expires_at":"2099-01-01T00:00:00.000000Z"}}"#;
const JSON: &str = "Content-Type: application/json\r\n";
const SUCCESS: &str = r#"{"job_id":"{job_id}","status":"SUCCESS","entities":{"image_id":"e9e91bff-14b6-4a0b-8377-4ed0813e3360"}}"#;
const ROLE: &str = "The operator does not have the rights to perform the operation.";

/// The quota of the published example.
const PUBLISHED_QUOTA: Quota = Quota {
    requests: 5,
    per: Duration::from_secs(5),
};

fn throttled() -> Answer {
    refusal::throttled(PUBLISHED_QUOTA)
}

/// A FAIL with a reason of about so many bytes, full of control characters and mark-up.
fn long_reason(bytes: usize) -> Answer {
    let piece = r"<b>bold</b>\u0007\u001b[31m";
    let reason = piece.repeat(bytes / piece.len());
    job(&format!(r#","status":"FAIL","fail_reason":"{reason}""#))
}

/// A compressed RUNNING with so many spaces in it.
fn gzip(spaces: usize) -> Answer {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let written = encoder
        .write_all(br#"{"job_id":"compressed","status":"RUNNING""#)
        .and_then(|()| encoder.write_all(&vec![b' '; spaces]))
        .and_then(|()| encoder.write_all(b"}"))
        .and_then(|()| encoder.finish());
    Answer::json(200, "")
        .header("Content-Encoding", "gzip")
        .body(written.expect("a vector takes everything"))
}

/// A head with this `Content-Length`, or several, and a SUCCESS of the requested job.
fn with_lengths(lengths: &[&str]) -> Answer {
    let mut head = format!("HTTP/1.1 200 OK\r\n{JSON}");
    for length in lengths {
        head.extend(["Content-Length: ", length, "\r\n"]);
    }
    Answer::raw(format!("{head}\r\n{SUCCESS}"))
}

/// So long from now, in the form of HTTP.
fn http_date(from_now: Duration) -> String {
    let at = wall_clock()
        .saturating_add(from_now)
        .unwrap_or(Timestamp::MAX);
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// A 200 of the requested job; `fields` start with a comma.
fn job(fields: &str) -> Answer {
    Answer::json(200, format!(r#"{{"job_id":"{{job_id}}"{fields}}}"#))
}

fn success() -> Answer {
    job(
        r#","job_type":"imsNativeExportImageJob","begin_time":"2024-11-06T06:46:51.929Z","end_time":"2024-11-06T06:49:53.657Z","status":"SUCCESS","error_code":null,"fail_reason":null,"entities":{"image_id":"1ab4df10-fe18-48b7-91c9-53695fcd9df5"}"#,
    )
}

fn html(status: u16, title: &str) -> Answer {
    Answer::status(status)
        .header("Content-Type", "text/html")
        .body(format!(
            "<html>\r\n<head><title>{status} {title}</title></head>\r\n<body><h1>{status} {title}</h1></body>\r\n</html>\r\n"
        ))
}
