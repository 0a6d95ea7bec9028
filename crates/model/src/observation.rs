//! What one poll of a job reports.
//!
//! The cloud client fills these types, the tracker reads them; neither knows the other. Every text
//! in here may end up in an object's status, so it is already stripped of control characters and
//! bounded, and it never holds a secret, a request id, a time or a counter.

use jiff::Timestamp;
use std::{sync::Arc, time::Duration};

/// What one poll of a job reports, in all its attempts (at most one re-authentication and one fresh
/// connection belong to the same poll).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// How the poll ended.
    pub outcome: Outcome,
    /// How long no poll is wanted: `Retry-After`, or the period named in the text of a throttling
    /// error. Not yet bounded. Without an endpoint it is the identity service that asks for it.
    pub retry_after: Option<Duration>,
    /// `host[:port]` of the endpoint that answered with any HTTP status, to be shown; `None` where none did.
    pub endpoint: Option<Arc<str>>,
    /// A key of the endpoint that was queried, whether it answered or not: equal for one host alone. `None` where
    /// the poll ended before that.
    pub queried: Option<Arc<str>>,
    /// The same of the identity service, where a login for this poll succeeded, or the poll ended at it.
    pub identity: Option<Arc<str>>,
    /// Requests that this poll sent to the job query endpoint, 0 where it ended before that. Each
    /// takes one quota token.
    pub requests: u32,
    /// Whether a login was made for this poll.
    pub signed_in: bool,
    /// Whether the answer shows that the credential belongs to the project of the job: an identity service of the
    /// same cloud gave the token for that project, or a path that names it was answered with 200.
    pub proves_project: bool,
    /// The cloud's name for the latest request, for the log only.
    pub request_id: Option<Arc<str>>,
}

impl Observation {
    /// An outcome of which nothing else is known. `requests`: how many may have been sent.
    #[must_use]
    pub fn of(outcome: Outcome, requests: u32) -> Self {
        Self {
            outcome,
            retry_after: None,
            endpoint: None,
            queried: None,
            identity: None,
            requests,
            signed_in: false,
            proves_project: false,
            request_id: None,
        }
    }
}

/// What the status of the objects that use a credential shows about it when the operator starts: its memory
/// of who was accepted outlives the process there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PriorAcceptance {
    /// Nothing.
    #[default]
    Unknown,
    /// The cloud accepted it.
    Accepted,
    /// The cloud rejected it.
    Rejected,
}

/// On whose behalf a poll is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Namespace of the object: attempts of login identities are shared out by it.
    pub namespace: Arc<str>,
    /// Of the credential, as of the start of this process.
    pub prior: PriorAcceptance,
}

/// How a poll ended. `docs/architecture.md` lists the reason to which each leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 200 with our job id and a non-empty status.
    Answered(Box<JobAnswer>),
    /// 404 with a code of the image service: no such job.
    JobNotFound,
    /// 429, or a throttling code with any status.
    Throttled,
    /// A configuration error; polling again soon cannot help.
    Misconfigured(ConfigurationError),
    /// No answer was asked for yet: another attempt with the credential, or with its login identity, must end
    /// first. The poll is to be repeated after this time.
    Deferred(Duration),
    /// Passing trouble: 5xx, timeout, network, an answer that is unreadable or another job's.
    Failed(Failure),
}

impl Outcome {
    /// The message of a configuration error or a failure.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Misconfigured(error) => Some(&error.message),
            Self::Failed(failure) => Some(&failure.message),
            Self::Answered(_) | Self::JobNotFound | Self::Throttled | Self::Deferred(_) => None,
        }
    }

    /// Bounded label for metrics and logs.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Answered(_) => "answered",
            Self::JobNotFound => "not_found",
            Self::Throttled => "throttled",
            Self::Deferred(_) => "deferred",
            Self::Misconfigured(error) => error.reason.category(),
            Self::Failed(failure) => failure.kind.category(),
        }
    }
}

/// A well-formed answer about the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobAnswer {
    /// The job's state.
    pub state: JobState,
    /// `job_type`, an open set.
    pub job_type: Option<Arc<str>>,
    /// The image id, from wherever the answer keeps it, but from no part of the job that did not succeed. The
    /// first of several.
    pub image_id: Option<Arc<str>>,
    /// Why the job failed, in the cloud's words: its own reason, else that of a failed part.
    pub fail_reason: Option<Arc<str>>,
    /// The cloud's error code, for example `IMG.0148`: the job's own, else that of a failed part.
    pub error_code: Option<Arc<str>>,
    /// `process_percent` in whole percent, 0 to 100; `None` where absent or out of range.
    pub percent: Option<u8>,
    /// `begin_time`; `None` where absent or unreadable. Whether it is sane is the tracker's call.
    pub begin_time: Option<Timestamp>,
    /// `end_time`; `None` where absent, empty or unreadable.
    pub end_time: Option<Timestamp>,
}

/// Job types whose answers carry no image id.
pub const TYPES_WITHOUT_IMAGE: [&str; 3] = [
    "imsAddImageMembersJob",
    "imsDelImageMembersJob",
    "imsUpdateImageMembersJob",
];

/// The `status` of a job, compared without case; `FAILED` is `FAIL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// Accepted, not started.
    Init,
    /// At work.
    Running,
    /// Ended well.
    Success,
    /// Ended badly.
    Fail,
    /// A word nobody documented: trimmed, at most 64 characters, and never one of the words above.
    Unrecognized(Arc<str>),
}

impl JobState {
    /// As objects show it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Init => "INIT",
            Self::Running => "RUNNING",
            Self::Success => "SUCCESS",
            Self::Fail => "FAIL",
            Self::Unrecognized(status) => status,
        }
    }

    /// The state that an object shows: the inverse of [`Self::as_str`].
    #[must_use]
    pub fn shown_as(text: &str) -> Self {
        match text {
            "INIT" => Self::Init,
            "RUNNING" => Self::Running,
            "SUCCESS" => Self::Success,
            "FAIL" => Self::Fail,
            other => Self::Unrecognized(other.into()),
        }
    }
}

/// A configuration error, with what to fix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigurationError {
    /// The condition reason it leads to.
    pub reason: ConfigurationReason,
    /// Half a sentence that names what to fix, without a final full stop: it completes
    /// "Job X cannot be queried: …".
    pub message: Arc<str>,
}

/// The condition reasons of configuration errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConfigurationReason {
    /// Secret, key or cloud entry missing (or the operator may not read it).
    CredentialsNotFound,
    /// Not YAML, incomplete, or rejected by the cloud after one re-authentication.
    CredentialsInvalid,
    /// 403: signed in, but the role is not sufficient.
    AccessDenied,
    /// Endpoint unknown or wrong: no catalog entry, a 404 without a code of the image service, a redirect.
    EndpointInvalid,
    /// Plain http without `--allow-http`.
    EndpointNotAllowed,
    /// The request itself was refused: other 400, 405, 501 and the like.
    RequestRejected,
}

impl ConfigurationReason {
    /// Whether a Secret that reads well, or a later step of a poll, disproves it.
    #[must_use]
    pub fn is_in_secret(self) -> bool {
        matches!(self, Self::CredentialsNotFound | Self::CredentialsInvalid)
    }

    /// Bounded label for metrics and logs.
    #[must_use]
    pub fn category(self) -> &'static str {
        match self {
            Self::CredentialsNotFound => "credentials_not_found",
            Self::CredentialsInvalid => "credentials_invalid",
            Self::AccessDenied => "access_denied",
            Self::EndpointInvalid => "endpoint_invalid",
            Self::EndpointNotAllowed => "endpoint_not_allowed",
            Self::RequestRejected => "request_rejected",
        }
    }
}

/// Passing trouble of one poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which kind of trouble.
    pub kind: FailureKind,
    /// Whether it happened while signing in or while asking about the job.
    pub stage: Stage,
    /// Half a sentence without a final full stop, for example
    /// "ims.eu-de.otc.t-systems.com answered 503": it completes "Job X cannot be queried: …".
    pub message: Arc<str>,
}

/// Where a poll failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// At the identity service.
    Login,
    /// At the job query endpoint; the login had been accepted, or needed none.
    Query,
}

/// Kinds of passing trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// Any HTTP status that is not classified otherwise.
    Http,
    /// A 200 that cannot be read, or is not about our job.
    Malformed,
    /// No answer within the time-out.
    Timeout,
    /// Name resolution, TLS, connection refused or broken.
    Network,
    /// A fault of our own, for example a contained panic.
    Internal,
}

impl FailureKind {
    /// Bounded label for metrics and logs.
    #[must_use]
    pub fn category(self) -> &'static str {
        match self {
            Self::Http => "http_error",
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
            Self::Network => "network",
            Self::Internal => "internal",
        }
    }

    /// Whether the other side answered with an HTTP response at all.
    #[must_use]
    pub fn answered(self) -> bool {
        matches!(self, Self::Http | Self::Malformed)
    }
}
