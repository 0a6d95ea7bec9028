//! The body of a 200. It must name the job of the query and have a status; everything else is lenient.
//!
//! The names of the fields are those of the published API reference and of the public SDKs of both clouds
//! (IMS v1 and v2: `JobEntities`, `JobEntitiesResult`, `SubJobResult`). Each value is checked, cleaned and cut
//! when it is read, so that of a body of any size only what an answer holds is kept.

mod error;
mod parts;

use crate::wire::{
    json::{self, Members, Object, Scalar, Text, Value},
    text::Redactor,
    timestamp,
};
use error::JobError;
use image_export_model::{JobAnswer, JobId, JobState, TYPES_WITHOUT_IMAGE};
use jiff::Timestamp;
use parts::{DataImages, Parts};
use serde::de::MapAccess;
use std::sync::{Arc, LazyLock};

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

/// Bytes of a body up to which it is read also where it is not all UTF-8. It takes three times as many.
const REPAIRED: usize = 32 * 1024;

/// Reads the body of a 200 to a query for `job_id`. A text that was cut within a character does not hide an end.
pub(crate) fn parse(
    body: &[u8],
    job_id: &JobId,
    redactor: &Redactor,
) -> Result<JobAnswer, InvalidJob> {
    match parse_text(body, job_id, redactor) {
        Err(InvalidJob::NotJson) if body.len() <= REPAIRED && str::from_utf8(body).is_err() => {
            parse_text(String::from_utf8_lossy(body).as_bytes(), job_id, redactor)
        }
        result => result,
    }
}

fn parse_text(body: &[u8], job_id: &JobId, redactor: &Redactor) -> Result<JobAnswer, InvalidJob> {
    let mut job = Body::new(job_id, redactor);
    if !json::parse(body, Object(&mut job)).ok_or(InvalidJob::NotJson)? {
        return Err(InvalidJob::NotAnObject);
    }
    if !job.is_ours.ok_or(InvalidJob::NoJobId)? {
        return Err(InvalidJob::OtherJob);
    }
    let state = job.state.ok_or(InvalidJob::NoStatus)?;

    let entities = job.entities;
    let error = JobError::of(job.error, entities.error);
    let error = if state == JobState::Fail {
        error
            .or(entities.parts.error())
            .or_code(entities.alarm_code)
    } else {
        error
    };
    Ok(JobAnswer {
        job_type: job.job_type,
        image_id: entities.image_id.or_else(|| entities.parts.image_id()),
        fail_reason: error.reason,
        error_code: error.code,
        percent: entities.percent,
        begin_time: job.begin_time,
        end_time: job.end_time,
        state,
    })
}

/// The members of the body.
struct Body<'a> {
    job_id: &'a JobId,
    redactor: &'a Redactor,
    /// Whether the answer names the job of the query; `None` where it names none.
    is_ours: Option<bool>,
    state: Option<JobState>,
    job_type: Option<Arc<str>>,
    begin_time: Option<Timestamp>,
    end_time: Option<Timestamp>,
    error: error::Outer,
    entities: Entities<'a>,
}

impl<'a> Body<'a> {
    fn new(job_id: &'a JobId, redactor: &'a Redactor) -> Self {
        Self {
            job_id,
            redactor,
            is_ours: None,
            state: None,
            job_type: None,
            begin_time: None,
            end_time: None,
            error: error::Outer::default(),
            entities: Entities::new(redactor),
        }
    }
}

impl<'de> Members<'de> for Body<'_> {
    const NAMES: &'static [&'static str] = &[
        "job_id",
        "status",
        "job_type",
        "begin_time",
        "end_time",
        "fail_reason",
        "error_msg",
        "error_code",
        "entities",
    ];

    fn read<A: MapAccess<'de>>(&mut self, name: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        let redactor = self.redactor;
        match name {
            "job_id" => {
                let ours = self.job_id.as_str();
                self.is_ours = value.by(|id| Some(id.string()? == ours))?;
            }
            "status" => self.state = value.by(|status| state(status.string()?, redactor))?,
            "job_type" => self.job_type = value.read(Text(|raw: &str| job_type(raw, redactor)))?,
            "begin_time" => self.begin_time = value.by(|at| timestamp::parse(at.string()?))?,
            "end_time" => self.end_time = value.by(|at| timestamp::parse(at.string()?))?,
            "entities" => {
                self.entities = Entities::new(redactor);
                value.read(Object(&mut self.entities))?;
            }
            _ => self.error.read(name, value, redactor)?,
        }
        Ok(())
    }
}

/// `entities` of a job.
struct Entities<'a> {
    redactor: &'a Redactor,
    image_id: Option<Arc<str>>,
    percent: Option<u8>,
    error: error::Inner,
    alarm_code: Option<Arc<str>>,
    parts: PartLists,
}

/// The parts of a job, each with a status of its own: `results[]` of a batch, `sub_jobs_result[]`, and
/// objects in place of ids in `__data_images`.
#[derive(Default)]
struct PartLists {
    results: Parts,
    sub_jobs: Parts,
    data_images: DataImages,
}

impl PartLists {
    /// The first of these:
    /// 1. an id in `__data_images` of data disk images: an id, several with commas, or a list of them,
    /// 2. `image_id`, then `entities.image_id`, of each of the parts with the status `SUCCESS` or none.
    fn image_id(self) -> Option<Arc<str>> {
        let images = self.data_images;
        let of_data = images.image_id;
        let of_parts = [self.results, self.sub_jobs, images.items, images.object];
        of_data.or_else(|| of_parts.into_iter().find_map(|parts| parts.image_id))
    }

    /// That of the first part that failed and has a reason, else of the first with a code.
    fn error(&self) -> JobError {
        let images = &self.data_images;
        let parts = [&self.results, &self.sub_jobs, &images.items, &images.object];
        let first = |error: fn(&Parts) -> &Option<JobError>| {
            let mut errors = parts.into_iter().filter_map(|parts| error(parts).as_ref());
            errors.next()
        };
        let error = first(|parts| &parts.with_reason).or_else(|| first(|parts| &parts.with_code));
        error.cloned().unwrap_or_default()
    }
}

impl<'a> Entities<'a> {
    fn new(redactor: &'a Redactor) -> Self {
        Self {
            redactor,
            image_id: None,
            percent: None,
            error: error::Inner::default(),
            alarm_code: None,
            parts: PartLists::default(),
        }
    }
}

impl<'de> Members<'de> for Entities<'_> {
    const NAMES: &'static [&'static str] = &[
        "image_id",
        "process_percent",
        "alarm_code",
        "results",
        "sub_jobs_result",
        "__data_images",
        "fail_reason",
        "error",
        "error_msg",
        "addition_error_msg",
        "error_code",
        "addition_error_code",
    ];

    fn read<A: MapAccess<'de>>(&mut self, name: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        let redactor = self.redactor;
        match name {
            "image_id" => self.image_id = value.by(|id| image_id(id.string()?, redactor))?,
            "process_percent" => self.percent = value.by(percent)?,
            "alarm_code" => self.alarm_code = value.read(error::code(redactor))?,
            "results" => self.parts.results = Parts::read(value, redactor)?,
            "sub_jobs_result" => self.parts.sub_jobs = Parts::read(value, redactor)?,
            "__data_images" => self.parts.data_images = DataImages::read(value, redactor)?,
            _ => self.error.read(name, value, redactor)?,
        }
        Ok(())
    }
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
    let documented = [
        ("INIT", JobState::Init),
        ("RUNNING", JobState::Running),
        ("SUCCESS", JobState::Success),
        ("FAIL", JobState::Fail),
        ("FAILED", JobState::Fail),
    ];
    let mut found = documented.into_iter();
    let (_, state) = found.find(|(word, _)| status.eq_ignore_ascii_case(word))?;
    Some(state)
}

/// Recognised and shown as a status is.
fn job_type(raw: &str, redactor: &Redactor) -> Option<Arc<str>> {
    static EXPORT: LazyLock<Arc<str>> = LazyLock::new(|| "imsNativeExportImageJob".into());
    let raw = raw.trim();
    // Nearly all polls: shared, and as well known as those below.
    if *raw == **EXPORT {
        return Some(EXPORT.clone());
    }
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
fn percent(fraction: Scalar<'_>) -> Option<u8> {
    let Scalar::Number(fraction) = fraction else {
        return None;
    };
    let fraction = fraction.as_f64().filter(|f| (0.0..=1.0).contains(f))?;
    // Half a step of the last digit, or 0.29 would be 28 %. In 0..=100, so the cast loses nothing.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Some((fraction * 100.0 + 0.001) as u8)
}

/// An id that holds no long secret.
fn image_id(raw: &str, redactor: &Redactor) -> Option<Arc<str>> {
    let is_used = is_id(raw) && !redactor.is_in(raw);
    is_used.then(|| raw.into())
}

/// `^[A-Za-z0-9_-]{1,64}$`, the form of every id of this API.
fn is_id(text: &str) -> bool {
    (1..=MAX_IMAGE_ID_BYTES).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}
