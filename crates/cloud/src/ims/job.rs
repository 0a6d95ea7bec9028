//! The body of a 200. It must name the job of the query and have a status; everything else is lenient.

use crate::wire::{
    json::{self, items, string},
    text::Redactor,
    timestamp,
};
use image_export_model::{JobAnswer, JobId, JobState, TYPES_WITHOUT_IMAGE};
use serde_json::Value;
use std::sync::Arc;

/// Bounds of texts that reach a status.
const MAX_FAIL_REASON_BYTES: usize = 1024;
const MAX_ERROR_CODE_BYTES: usize = 64;
const MAX_JOB_TYPE_BYTES: usize = 128;
const MAX_STATUS_CHARS: usize = 64;
const MAX_IMAGE_ID_BYTES: usize = 64;

/// Why a 200 is not an answer about the job: half a sentence after "the answer of …".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidJob {
    #[error("is not JSON")]
    NotJson,
    #[error("is not a JSON object")]
    NotAnObject,
    #[error("has no job_id")]
    NoJobId,
    #[error("is about another job")]
    OtherJob,
    #[error("has no status")]
    NoStatus,
}

/// Reads the body of a 200 to a query for `job_id`.
pub(crate) fn parse(
    body: &[u8],
    job_id: &JobId,
    redactor: &Redactor,
) -> Result<JobAnswer, InvalidJob> {
    let job = json::parse(body).ok_or(InvalidJob::NotJson)?;
    if !job.is_object() {
        return Err(InvalidJob::NotAnObject);
    }
    let answered_for = string(&job["job_id"]).ok_or(InvalidJob::NoJobId)?;
    if answered_for != job_id.as_str() {
        return Err(InvalidJob::OtherJob);
    }
    let state = string(&job["status"])
        .and_then(|status| state(status, redactor))
        .ok_or(InvalidJob::NoStatus)?;

    let entities = &job["entities"];
    let text = |paths: &[&str], max_bytes| {
        paths.iter().find_map(|path| {
            let raw = json::text(job.pointer(path)?)?;
            redactor.clean_bytes(&raw, max_bytes).map(Arc::from)
        })
    };
    let fail_reason = ["/fail_reason", "/entities/fail_reason", "/entities/error"];
    let error_code = [
        "/error_code",
        "/entities/error_code",
        "/entities/error/code",
    ];
    Ok(JobAnswer {
        state,
        job_type: job_type(&job["job_type"], redactor),
        image_id: image_id(entities, redactor),
        fail_reason: text(&fail_reason, MAX_FAIL_REASON_BYTES),
        error_code: text(&error_code, MAX_ERROR_CODE_BYTES),
        percent: percent(&entities["process_percent"]),
        begin_time: string(&job["begin_time"]).and_then(timestamp::parse),
        end_time: string(&job["end_time"]).and_then(timestamp::parse),
    })
}

/// The state by its status as it came, so that neither removed characters nor a secret make it another
/// one; `None` where nothing of the status can be seen.
fn state(raw: &str, redactor: &Redactor) -> Option<JobState> {
    documented_state(raw).or_else(|| {
        let mut shown = redactor.clean_chars(raw, MAX_STATUS_CHARS)?;
        // What looks like a documented status only once it is cleaned must not be read back as one.
        if documented_state(&shown).is_some() {
            shown.push('?');
        }
        Some(JobState::Unrecognized(shown.into()))
    })
}

fn documented_state(status: &str) -> Option<JobState> {
    match status.to_ascii_uppercase().as_str() {
        "INIT" => Some(JobState::Init),
        "RUNNING" => Some(JobState::Running),
        "SUCCESS" => Some(JobState::Success),
        "FAIL" | "FAILED" => Some(JobState::Fail),
        _ => None,
    }
}

/// Recognised and shown as a status is.
fn job_type(value: &Value, redactor: &Redactor) -> Option<Arc<str>> {
    let raw = json::text(value)?;
    let raw = raw.trim();
    if TYPES_WITHOUT_IMAGE.contains(&raw) {
        return Some(raw.into());
    }
    let mut shown = redactor.clean_bytes(raw, MAX_JOB_TYPE_BYTES)?;
    if TYPES_WITHOUT_IMAGE.contains(&shown.as_str()) {
        shown.push('?');
    }
    Some(shown.into())
}

/// `process_percent` is a fraction, 0 to 1 (seen in all published bodies); another value counts as
/// absent.
fn percent(fraction: &Value) -> Option<u8> {
    let fraction = fraction.as_f64().filter(|f| (0.0..=1.0).contains(f))?;
    // Half a step of the last digit, or 0.29 would be 28 %. In 0..=100, so the cast loses nothing.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Some((fraction * 100.0 + 0.001) as u8)
}

/// `entities.image_id`, else the first of `results[].image_id`, else the first of
/// `sub_jobs_result[].entities.image_id`. A value that is not an id, or holds a long secret, counts as
/// absent.
fn image_id(entities: &Value, redactor: &Redactor) -> Option<Arc<str>> {
    let results = items(&entities["results"]).iter();
    let sub_jobs = items(&entities["sub_jobs_result"]).iter();
    std::iter::once(&entities["image_id"])
        .chain(results.map(|result| &result["image_id"]))
        .chain(sub_jobs.map(|sub_job| &sub_job["entities"]["image_id"]))
        .filter_map(string)
        .find(|id| is_id(id) && !redactor.is_in(id))
        .map(Arc::from)
}

/// `^[A-Za-z0-9_-]{1,64}$`, the form of every id of this API.
fn is_id(text: &str) -> bool {
    (1..=MAX_IMAGE_ID_BYTES).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}
