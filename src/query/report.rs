//! The report: text for people, JSON for programs, and the exit code.

use super::runtime::Finished;
use image_export_api::{ImageExportJobStatus, JobId, ProjectId, conditions::types};
use image_export_model::{ConfigurationReason, JobAnswer, JobState, Outcome};
use jiff::Timestamp;
use serde::Serialize;
use std::{fmt, sync::Arc};

/// How the query ended; the numbers are the exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Exit {
    /// The job has succeeded.
    Success = 0,
    /// The job has failed.
    Failed = 3,
    /// The job has not ended, or its status is undocumented.
    Running = 4,
    /// The cloud finds no such job.
    NotFound = 5,
    /// Credentials are missing, wrong or not sufficient.
    NotAuthorized = 6,
    /// No answer, an unreadable one, or throttling.
    Unreachable = 7,
    /// The endpoint or the request is invalid.
    Misdirected = 8,
}

/// The result of a query.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    #[serde(rename = "projectID")]
    project_id: ProjectId,
    #[serde(rename = "jobID")]
    job_id: JobId,
    /// `null` where there was no well-formed answer about the job.
    answer: Option<Answer>,
    classification: Classification,
    /// The status that an `ImageExportJob` for the job would have.
    status: ImageExportJobStatus,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_type: Option<String>,
    #[serde(rename = "imageID", skip_serializing_if = "Option::is_none")]
    image_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fail_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    begin_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Classification {
    result: Exit,
    /// The label of the operator's metrics.
    category: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// The host that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    /// The cloud's id of the request, for its support.
    #[serde(rename = "requestID", skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<u64>,
}

impl Report {
    pub(super) fn new(project_id: ProjectId, job_id: JobId, finished: Finished) -> Self {
        let observation = finished.observation;
        let outcome = &observation.outcome;
        let answer = match outcome {
            Outcome::Answered(answer) => Some(Answer::from(&**answer)),
            _ => None,
        };
        Self {
            project_id,
            job_id,
            answer,
            classification: Classification {
                result: Exit::of_status(&finished.status).unwrap_or_else(|| Exit::of(outcome)),
                category: outcome.category(),
                message: outcome.message().map(str::to_owned),
                endpoint: text(observation.endpoint.as_ref()),
                request_id: text(observation.request_id.as_ref()),
                retry_after_seconds: observation.retry_after.map(|wait| wait.as_secs()),
            },
            status: finished.status,
        }
    }

    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.classification.result
    }

    /// One JSON object.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("texts and times have a JSON form")
    }
}

impl From<&JobAnswer> for Answer {
    fn from(answer: &JobAnswer) -> Self {
        Self {
            status: answer.state.as_str().to_owned(),
            job_type: text(answer.job_type.as_ref()),
            image_id: text(answer.image_id.as_ref()),
            fail_reason: text(answer.fail_reason.as_ref()),
            error_code: text(answer.error_code.as_ref()),
            percent: answer.percent,
            begin_time: answer.begin_time,
            end_time: answer.end_time,
        }
    }
}

impl Exit {
    /// Of a final status: later answers do not change it.
    fn of_status(status: &ImageExportJobStatus) -> Option<Self> {
        let succeeded = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == types::SUCCEEDED)?;
        match succeeded.status.as_str() {
            "True" => Some(Self::Success),
            "False" => Some(Self::Failed),
            // Only its image id is still awaited.
            _ if status.status.as_deref() == Some("SUCCESS") => Some(Self::Success),
            _ => None,
        }
    }

    fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Answered(answer) => match answer.state {
                JobState::Success => Self::Success,
                JobState::Fail => Self::Failed,
                JobState::Init | JobState::Running | JobState::Unrecognized(_) => Self::Running,
            },
            Outcome::JobNotFound => Self::NotFound,
            Outcome::Throttled | Outcome::Deferred(_) | Outcome::Failed(_) => Self::Unreachable,
            Outcome::Misconfigured(error) => error.reason.into(),
        }
    }
}

impl From<ConfigurationReason> for Exit {
    fn from(reason: ConfigurationReason) -> Self {
        match reason {
            ConfigurationReason::CredentialsNotFound
            | ConfigurationReason::CredentialsInvalid
            | ConfigurationReason::AccessDenied => Self::NotAuthorized,
            ConfigurationReason::EndpointInvalid
            | ConfigurationReason::EndpointNotAllowed
            | ConfigurationReason::RequestRejected => Self::Misdirected,
        }
    }
}

fn text(text: Option<&Arc<str>>) -> Option<String> {
    text.map(ToString::to_string)
}

/// The text form.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: &str| writeln!(f, "{:<13} {value}", format!("{name}:"));
        line("job", self.job_id.as_str())?;
        line("project", self.project_id.as_str())?;
        if let Some(answer) = &self.answer {
            line("answer", &answer.status)?;
            let times =
                [answer.begin_time, answer.end_time].map(|time| time.map(|t| t.to_string()));
            let [begin, end] = times;
            let progress = answer.percent.map(|percent| format!("{percent} %"));
            for (name, value) in [
                ("job type", &answer.job_type),
                ("image id", &answer.image_id),
                ("fail reason", &answer.fail_reason),
                ("error code", &answer.error_code),
                ("progress", &progress),
                ("began", &begin),
                ("ended", &end),
            ] {
                if let Some(value) = value {
                    line(name, value)?;
                }
            }
        }
        let class = &self.classification;
        let seconds = class
            .retry_after_seconds
            .map(|seconds| format!("{seconds} s"));
        line("class", class.category)?;
        for (name, value) in [
            ("because", &class.message),
            ("endpoint", &class.endpoint),
            ("request id", &class.request_id),
            ("retry after", &seconds),
        ] {
            if let Some(value) = value {
                line(name, value)?;
            }
        }
        writeln!(f, "\nAn ImageExportJob for it would show:")?;
        let mut shown = "";
        for condition in &self.status.conditions {
            let (type_, status) = (&condition.type_, &condition.status);
            writeln!(f, "  {type_}={status} ({})", condition.reason)?;
            // Most conditions have the same message.
            if condition.message != shown {
                writeln!(f, "    {}", condition.message)?;
                shown = &condition.message;
            }
        }
        Ok(())
    }
}
