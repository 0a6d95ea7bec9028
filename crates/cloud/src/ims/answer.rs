//! What an HTTP answer to a job query means.

use super::{
    error::{Rejection, classify},
    job,
};
use crate::{
    http::Answer,
    outcome::failed,
    wire::{error_body::ErrorBody, responder, text::Redactor},
};
use image_export_model::{ConfigurationReason, FailureKind, JobId, Outcome, Stage};
use std::time::{Duration, SystemTime};

/// An answer, interpreted.
pub(crate) struct ParsedAnswer {
    /// An `Err` is a token or signature that was not accepted.
    pub(crate) result: Result<Outcome, Rejection>,
    pub(crate) retry_after: Option<Duration>,
    /// For the log.
    pub(super) code: Option<String>,
    /// Whether the code is one of the image service.
    has_ims_code: bool,
    pub(super) request_id: Option<String>,
}

impl ParsedAnswer {
    /// Whether the server accepted the token or signature: it reports on the job, or denies access to it.
    pub(super) fn is_accepted(&self) -> bool {
        match &self.result {
            Ok(Outcome::Answered(_) | Outcome::JobNotFound) => true,
            Ok(Outcome::Misconfigured(error)) => error.reason == ConfigurationReason::AccessDenied,
            _ => false,
        }
    }

    /// Whether this server is the image service, by a job or one of its codes. Any other server can
    /// answer 403 or 404 as well.
    pub(super) fn is_by_ims(&self) -> bool {
        self.has_ims_code || matches!(self.result, Ok(Outcome::Answered(_)))
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
    let mut error = match &job {
        Some(Ok(_)) => ErrorBody::default(),
        _ => ErrorBody::parse(status, body, redactor),
    };
    if status == 404 && matches!(&answer.body, Ok(body) if body.trim_ascii().is_empty()) {
        error.responder = responder::by_header(&answer.headers);
    }
    let unreadable = |kind, problem: &dyn std::fmt::Display| {
        let message = format!("the answer of {host} {problem}");
        Ok(failed(Stage::Query, kind, message))
    };
    let result = match (job, &answer.body) {
        (Some(Ok(job)), _) => Ok(Outcome::Answered(Box::new(job))),
        (Some(Err(_)), _) if error.is_throttling(status) => Ok(Outcome::Throttled),
        (Some(Err(invalid)), _) => unreadable(FailureKind::Malformed, &invalid),
        (None, Err(broken)) if !status_suffices(status, broken.kind()) => {
            unreadable(broken.kind(), broken)
        }
        (None, _) => classify(host, status, &error),
    };
    ParsedAnswer {
        result,
        retry_after: error.retry_after(&answer.headers, status, SystemTime::now()),
        request_id: error.request_id(&answer.headers, redactor),
        has_ims_code: error.is_by_ims,
        code: error.code,
    }
}

/// Whether a status means the same whatever its unreadable body holds. 404 does not: its body may hold a code of
/// the image service. A body that is merely too long is not one of the documented errors.
fn status_suffices(status: u16, broken: FailureKind) -> bool {
    // The cloud counts a rejected signature or password even if the body breaks off.
    matches!(status, 401 | 429)
        || status >= 500
        || (300..400).contains(&status)
        || status != 200 && broken == FailureKind::Malformed
}
