//! What an HTTP answer to a job query means.

use super::{
    error_class::{ErrorClass, classify},
    job,
};
use crate::{
    http::Answer,
    wire::{error_body::ErrorBody, text::Redactor},
};
use image_export_model::{FailureKind, JobAnswer, JobId};
use std::time::{Duration, SystemTime};

/// An answer, interpreted.
pub(crate) struct ParsedAnswer {
    pub(crate) result: Result<JobAnswer, ErrorClass>,
    pub(crate) retry_after: Option<Duration>,
    pub(super) code: Option<String>,
    pub(super) request_id: Option<String>,
}

impl ParsedAnswer {
    /// Whether the code is one of the image service itself.
    pub(super) fn is_by_ims(&self) -> bool {
        self.code
            .as_ref()
            .is_some_and(|code| code.starts_with("IMG."))
    }
}

/// Interprets the answer of `host` to a query for `job_id`. Pure but for the clock, with which a
/// `Retry-After` date is compared where the answer has no `Date`.
pub(crate) fn parse(
    host: &str,
    answer: &Answer,
    job_id: &JobId,
    redactor: &Redactor,
) -> ParsedAnswer {
    let status = answer.status;
    let body = answer.body.as_deref().unwrap_or_default();
    let job = match &answer.body {
        Ok(body) if status == 200 => Some(job::parse(body, job_id, redactor)),
        _ => None,
    };
    let error = match &job {
        Some(Ok(_)) => ErrorBody::default(),
        _ => ErrorBody::parse(status, body, redactor),
    };
    let result = match (job, &answer.body) {
        (Some(Ok(job)), _) => Ok(job),
        (Some(Err(_)), _) if error.is_throttling(status) => Err(ErrorClass::Throttled),
        (Some(Err(why)), _) => Err(ErrorClass::Transient(
            FailureKind::Malformed,
            format!("the answer of {host} {why}"),
        )),
        (None, Err(broken)) if !status_suffices(status, broken.kind()) => Err(
            ErrorClass::Transient(broken.kind(), format!("the answer of {host} {broken}")),
        ),
        (None, _) => Err(classify(host, status, &error)),
    };
    ParsedAnswer {
        result,
        retry_after: error.retry_after(&answer.headers, status, SystemTime::now()),
        request_id: error.request_id(&answer.headers, redactor),
        code: error.code,
    }
}

/// Whether a status means the same whatever its unreadable body says. 404 does not: its body may be
/// `APIGW.0101`. A body that is merely too long is not one of the documented errors.
fn status_suffices(status: u16, broken: FailureKind) -> bool {
    // The cloud counts a rejected signature or password even if the body breaks off.
    matches!(status, 401 | 429)
        || status >= 500
        || (300..400).contains(&status)
        || status != 200 && broken == FailureKind::Malformed
}
