//! The body of a 200. It must name the job of the query and have a status; everything else is lenient.
//!
//! The names of the fields are those of the published API reference and of the public SDKs of both clouds
//! (IMS v1 and v2: `JobEntities`, `JobEntitiesResult`, `SubJobResult`).

use crate::wire::{
    json::{self, items, string},
    text::Redactor,
    timestamp,
};
use image_export_model::{JobAnswer, JobId, JobState, TYPES_WITHOUT_IMAGE};
use serde_json::Value;
use std::{iter, sync::Arc};

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
    let error = job_error(&job, state == JobState::Fail, redactor);
    Ok(JobAnswer {
        job_type: job_type(&job["job_type"], redactor),
        image_id: image_id(entities, redactor),
        fail_reason: error.reason,
        error_code: error.code,
        percent: percent(&entities["process_percent"]),
        begin_time: string(&job["begin_time"]).and_then(timestamp::parse),
        end_time: string(&job["end_time"]).and_then(timestamp::parse),
        state,
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

/// The first of these that is an id and holds no long secret:
/// 1. `entities.image_id`,
/// 2. `entities.__data_images` of data disk images: an id, several with commas, or a list of them,
/// 3. `image_id`, then `entities.image_id`, of each of the [`parts`] with the status `SUCCESS` or none.
///
/// A part that failed, still runs or has an undocumented status yields none: a missing id is polled for again, a
/// wrong one would stay.
fn image_id(entities: &Value, redactor: &Redactor) -> Option<Arc<str>> {
    let data_images = &entities["__data_images"];
    let data_images = iter::once(data_images)
        .chain(items(data_images))
        .filter_map(string)
        .flat_map(|ids| ids.split(',').map(str::trim));
    let of_parts = parts(entities)
        .filter(|part| has_status(part, &JobState::Success))
        .flat_map(|part| [&part["image_id"], &part["entities"]["image_id"]])
        .filter_map(string);
    string(&entities["image_id"])
        .into_iter()
        .chain(data_images)
        .chain(of_parts)
        .find(|id| is_id(id) && !redactor.is_in(id))
        .map(Arc::from)
}

/// The parts of a job, each with a status of its own: `results[]` of a batch, `sub_jobs_result[]`, and
/// objects in place of ids in `__data_images`.
fn parts(entities: &Value) -> impl Iterator<Item = &Value> {
    ["results", "sub_jobs_result", "__data_images"]
        .into_iter()
        .flat_map(|list| items(&entities[list]))
        .chain(iter::once(&entities["__data_images"]))
}

/// Whether a part has this status, compared as that of a job, or none: then the job's own status decides alone.
fn has_status(part: &Value, state: &JobState) -> bool {
    match &part["status"] {
        Value::Null => true,
        Value::String(status) if status.trim().is_empty() => true,
        status => string(status).and_then(documented_state).as_ref() == Some(state),
    }
}

/// Why a job failed.
struct JobError {
    reason: Option<Arc<str>>,
    code: Option<Arc<str>>,
}

impl JobError {
    /// The first reason and the first code in a job, or in a sub-job, which has the same fields.
    fn of(job: &Value, redactor: &Redactor) -> Self {
        const REASONS: [&str; 6] = [
            "/fail_reason",
            "/error_msg",
            "/entities/fail_reason",
            "/entities/error",
            "/entities/error_msg",
            "/entities/addition_error_msg",
        ];
        const CODES: [&str; 4] = [
            "/error_code",
            "/entities/error_code",
            "/entities/error/code",
            "/entities/addition_error_code",
        ];
        Self {
            reason: text(job, &REASONS, MAX_FAIL_REASON_BYTES, redactor),
            code: text(job, &CODES, MAX_ERROR_CODE_BYTES, redactor),
        }
    }
}

/// The job's own reason and code. What a job that failed lacks of these comes from one of its [`parts`] that
/// failed, the first with a reason, else the first with a code; a missing code at last from `entities.alarm_code`.
fn job_error(job: &Value, has_failed: bool, redactor: &Redactor) -> JobError {
    let own = JobError::of(job, redactor);
    if !has_failed || own.reason.is_some() && own.code.is_some() {
        return own;
    }
    let of_parts = || {
        parts(&job["entities"])
            .filter(|part| has_status(part, &JobState::Fail))
            .map(|part| JobError::of(part, redactor))
    };
    let of_part = of_parts()
        .find(|error| error.reason.is_some())
        .or_else(|| of_parts().find(|error| error.code.is_some()));
    let (reason, code) = of_part.map_or((None, None), |error| (error.reason, error.code));
    let alarm = || {
        text(
            job,
            &["/entities/alarm_code"],
            MAX_ERROR_CODE_BYTES,
            redactor,
        )
    };
    JobError {
        reason: own.reason.or(reason),
        code: own.code.or(code).or_else(alarm),
    }
}

/// The first of these places at which a text is left once it is cleaned.
fn text(job: &Value, paths: &[&str], max_bytes: usize, redactor: &Redactor) -> Option<Arc<str>> {
    paths.iter().find_map(|path| {
        let raw = json::text(job.pointer(path)?)?;
        // As some write what is absent.
        let is_absent = ["null", "none", "0"].contains(&raw.trim().to_ascii_lowercase().as_str());
        let shown = redactor.clean_bytes(&raw, max_bytes).map(Arc::from);
        shown.filter(|_| !is_absent)
    })
}

/// `^[A-Za-z0-9_-]{1,64}$`, the form of every id of this API.
fn is_id(text: &str) -> bool {
    (1..=MAX_IMAGE_ID_BYTES).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}
