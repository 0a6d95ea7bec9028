//! The sentence that an object's conditions and Events carry in each phase.
//!
//! A sentence names the job and, where people can do something, says what. It is stable as long as the
//! phase and its detail are: it holds no time, count or request id.

use crate::{facts::Facts, phase::Phase};
use image_export_api::POLL_REQUEST_ANNOTATION;
use std::fmt::Write as _;

/// Longest message of a condition, in bytes.
pub const MAX_BYTES: usize = 1024;

/// The sentence of a phase. `detail`: the cause, half a sentence without a final full stop, for phases
/// that have one. It comes from an [`Outcome`](image_export_model::Outcome), already bounded and free of
/// secrets and control characters.
#[must_use]
pub fn message(phase: Phase, job: &str, detail: Option<&str>, facts: &Facts) -> String {
    let cause = detail.unwrap_or("see the operator's log");
    let mut text = match phase {
        Phase::Pending => match detail {
            Some(detail) => format!("Waiting for the first answer about job {job}: {detail}."),
            None => format!("Waiting for the first answer about job {job}."),
        },
        Phase::CredentialsNotFound
        | Phase::CredentialsInvalid
        | Phase::AccessDenied
        | Phase::EndpointInvalid
        | Phase::EndpointNotAllowed
        | Phase::RequestRejected => format!("Job {job} cannot be queried: {cause}."),
        Phase::JobInitializing => format!("Job {job} has been accepted and has not started yet."),
        Phase::JobRunning => format!("Job {job} is running."),
        Phase::PollFailed => format!(
            "Job {job} cannot be queried at the moment: {cause}; the operator keeps trying."
        ),
        Phase::PollOverdue => format!("The poll of job {job} is overdue: {cause}."),
        Phase::DeadlineExceeded => match detail {
            Some(detail) => format!(
                "Job {job} was not seen to end within spec.deadlineSeconds: {detail}; an end that \
                 still comes will be shown."
            ),
            None => format!(
                "Job {job} has not ended within spec.deadlineSeconds: check it in the cloud, or \
                 raise the deadline; an end that still comes will be shown."
            ),
        },
        Phase::JobSucceeded => succeeded(job, facts),
        Phase::ImageIdPending => format!("Job {job} has succeeded; its image id is not known yet."),
        Phase::ImageIdMissing => format!(
            "Job {job} has succeeded, but the cloud reported no image id: look the image up in the \
             cloud, or change the annotation {POLL_REQUEST_ANNOTATION} to poll once more."
        ),
        Phase::JobFailed => failed(job, facts),
        Phase::JobStatusUnrecognized => format!(
            "Job {job} has a status that this version of the operator does not recognize: {}.",
            facts
                .job_status
                .as_ref()
                .map_or("", |status| status.as_str())
        ),
        Phase::JobNotFoundYet => format!("The cloud currently finds no job {job}."),
        Phase::JobNotFound if facts.job_status.is_none() => format!(
            "The cloud finds no job {job}: check jobID and projectID, and that the credentials are \
             for the job's region."
        ),
        Phase::JobNotFound => format!(
            "The cloud no longer finds job {job}, so its outcome is lost: check in the cloud \
             whether its image exists."
        ),
        Phase::Suspended => format!("Job {job} is not polled while spec.suspend is true."),
    };
    truncate(&mut text, MAX_BYTES);
    text
}

/// The sentence of the `Succeeded` condition where it is not that of `Ready`: it speaks of the job alone.
/// `None`: the same.
#[must_use]
pub fn succeeded_message(
    phase: Phase,
    job: &str,
    has_detail: bool,
    facts: &Facts,
) -> Option<String> {
    match phase {
        Phase::ImageIdMissing => Some(format!("Job {job} has succeeded.")),
        // What blocks polling is said by `Ready` and `Reconciling`.
        Phase::CredentialsNotFound
        | Phase::CredentialsInvalid
        | Phase::AccessDenied
        | Phase::EndpointInvalid
        | Phase::EndpointNotAllowed
        | Phase::RequestRejected
        | Phase::PollFailed
        | Phase::PollOverdue => Some(format!("Job {job} was not seen to end.")),
        // Also shows, whatever the wording, that the sentence of `Ready` has a detail.
        Phase::DeadlineExceeded | Phase::Pending if has_detail => {
            Some(message(phase, job, None, facts))
        }
        _ => None,
    }
}

fn succeeded(job: &str, facts: &Facts) -> String {
    match (&facts.image_id, facts.job_type.as_deref()) {
        (Some(image), Some(job_type)) if job_type.contains("ExportImage") => {
            format!("Job {job} has succeeded: source image {image} is exported.")
        }
        (Some(image), _) => format!("Job {job} has succeeded with image {image}."),
        (None, Some(job_type)) => {
            format!("Job {job} has succeeded; a job of type {job_type} has no image id.")
        }
        (None, None) => format!("Job {job} has succeeded."),
    }
}

fn failed(job: &str, facts: &Facts) -> String {
    let mut text = format!("Job {job} has failed");
    if let Some(code) = &facts.error_code {
        let _ = write!(text, " with {code}");
    }
    match &facts.fail_reason {
        Some(reason) => {
            let _ = write!(text, ": {}", reason.trim_end_matches('.'));
            truncate(&mut text, MAX_BYTES - 1);
        }
        None => text.push_str("; the cloud gave no reason"),
    }
    text.push('.');
    text
}

/// Cuts a text to at most `max` bytes on a character boundary, marking the cut.
fn truncate(text: &mut String, max: usize) {
    const MARK: &str = "…";
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max - MARK.len()));
        text.push_str(MARK);
    }
}
