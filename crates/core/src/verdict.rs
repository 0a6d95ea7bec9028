//! What an object's status should say: the conditions table as code.
//!
//! [`Row::of`] picks the row that holds (the precedence), [`Row::conditions`] is the table itself,
//! [`Row::message`] the sentence for people. All three are pure; a [`Standing`](super::standing)
//! carries their result.

use super::{
    history::History,
    standing::{Facts, Word},
};
use image_export_api::conditions::reasons;
use image_export_model::ConfigurationReason;
use std::fmt::Write as _;

/// Rows of the conditions table (`docs/conditions.md`). The number is the table's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Row {
    /// 0b: seen, no answer yet.
    Pending,
    /// 1, 1b, 1c: configuration stands in the way.
    Refused(ConfigurationReason),
    /// 2: `INIT`.
    Initializing,
    /// 3: `RUNNING`.
    Running,
    /// 3e: polls have been failing for a while.
    PollFailed,
    /// 3d: not finished within `spec.deadlineSeconds`.
    DeadlineExceeded,
    /// 4: `SUCCESS`, image id known or not to be had.
    Succeeded,
    /// 4a: `SUCCESS`, image id not there yet.
    ImageIdPending,
    /// 4b: `SUCCESS`, the image id never came.
    ImageIdMissing,
    /// 5: `FAIL`.
    Failed,
    /// 6: a status word nobody documented.
    Unrecognized,
    /// 7a: 404, within the grace.
    NotFoundYet,
    /// 7: 404 for so long that it stalls.
    NotFound,
    /// 8: suspended, unfinished.
    Suspended,
}

/// Value of a condition's `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// `True`
    True,
    /// `False`
    False,
    /// `Unknown`
    Unknown,
}

impl Truth {
    /// As written into the condition.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// Which of the two conditions that are present only while True a row shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// The operator works towards an end.
    Reconciling,
    /// Nothing changes without somebody's doing.
    Stalled,
}

/// One line of the table: what a row says in each condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// `Ready`
    pub ready: Truth,
    /// `Succeeded`
    pub succeeded: Truth,
    /// `Reconciling` or `Stalled`, never both.
    pub activity: Option<Activity>,
}

/// How the writes of a row queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Ends: people and pipelines wait for them.
    Final,
    /// Everything else that an answer brought.
    Normal,
    /// Deletions of what has been kept long enough.
    Expiry,
    /// Trouble, which hits all objects of a credential at once.
    Trouble,
    /// `PollFailed`, which in an outage hits all objects at once. Its rate is limited, so it has the
    /// last queue to itself and holds nobody else up.
    Outage,
}

impl Urgency {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 5] = [
        Self::Final,
        Self::Normal,
        Self::Expiry,
        Self::Trouble,
        Self::Outage,
    ];
}

impl Row {
    /// The row that holds, by precedence: 4, 5, 4b, 4a, 8, 3d, 7, 1, 3e, 6, 7a, 2 or 3, 0b.
    /// `None`: nothing to say yet.
    #[must_use]
    pub fn of(history: &History, suspended: bool) -> Option<Self> {
        match history.facts.word {
            Word::Success if history.facts.has_all_it_can() => return Some(Self::Succeeded),
            Word::Success if history.image_id_given_up => return Some(Self::ImageIdMissing),
            Word::Success => return Some(Self::ImageIdPending),
            Word::Fail => return Some(Self::Failed),
            Word::None | Word::Init | Word::Running | Word::Other(_) => {}
        }
        if suspended {
            return Some(Self::Suspended);
        }
        if history.overdue {
            return Some(Self::DeadlineExceeded);
        }
        if history.not_found {
            return Some(Self::NotFound);
        }
        if let Some(refusal) = &history.refusal {
            return Some(Self::Refused(refusal.reason));
        }
        if history.poll_failed.is_some() {
            return Some(Self::PollFailed);
        }
        match history.facts.word {
            Word::Other(_) => Some(Self::Unrecognized),
            _ if history.not_found_yet => Some(Self::NotFoundYet),
            Word::Init => Some(Self::Initializing),
            Word::Running => Some(Self::Running),
            _ => history.pending.then_some(Self::Pending),
        }
    }

    /// The conditions table.
    #[must_use]
    pub fn conditions(self) -> Conditions {
        use Activity::{Reconciling, Stalled};
        use Truth::{False, True, Unknown};
        let (ready, succeeded, activity) = match self {
            Self::Pending
            | Self::Refused(_)
            | Self::Initializing
            | Self::Running
            | Self::PollFailed
            | Self::ImageIdPending
            | Self::Unrecognized
            | Self::NotFoundYet => (Unknown, Unknown, Some(Reconciling)),
            Self::Succeeded => (True, True, None),
            Self::ImageIdMissing => (False, True, Some(Stalled)),
            Self::Failed => (False, False, Some(Stalled)),
            Self::DeadlineExceeded | Self::NotFound => (False, Unknown, Some(Stalled)),
            Self::Suspended => (Unknown, Unknown, None),
        };
        Conditions {
            ready,
            succeeded,
            activity,
        }
    }

    /// The reason that `Ready` (and each other condition, save [`Row::succeeded_reason`]) gives.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Pending => reasons::PENDING,
            Self::Refused(ConfigurationReason::CredentialsNotFound) => {
                reasons::CREDENTIALS_NOT_FOUND
            }
            Self::Refused(ConfigurationReason::CredentialsInvalid) => reasons::CREDENTIALS_INVALID,
            Self::Refused(ConfigurationReason::AccessDenied) => reasons::ACCESS_DENIED,
            Self::Refused(ConfigurationReason::EndpointInvalid) => reasons::ENDPOINT_INVALID,
            Self::Refused(ConfigurationReason::EndpointNotAllowed) => reasons::ENDPOINT_NOT_ALLOWED,
            Self::Refused(ConfigurationReason::RequestRejected) => reasons::REQUEST_REJECTED,
            Self::Initializing => reasons::JOB_INITIALIZING,
            Self::Running => reasons::JOB_RUNNING,
            Self::PollFailed => reasons::POLL_FAILED,
            Self::DeadlineExceeded => reasons::DEADLINE_EXCEEDED,
            Self::Succeeded => reasons::JOB_SUCCEEDED,
            Self::ImageIdPending => reasons::IMAGE_ID_PENDING,
            Self::ImageIdMissing => reasons::IMAGE_ID_MISSING,
            Self::Failed => reasons::JOB_FAILED,
            Self::Unrecognized => reasons::JOB_STATUS_UNRECOGNIZED,
            Self::NotFoundYet | Self::NotFound => reasons::JOB_NOT_FOUND,
            Self::Suspended => reasons::SUSPENDED,
        }
    }

    /// The reason that `Succeeded` gives: in row 4b the job did succeed.
    #[must_use]
    pub fn succeeded_reason(self) -> &'static str {
        match self {
            Self::ImageIdMissing => reasons::JOB_SUCCEEDED,
            _ => self.reason(),
        }
    }

    /// The row that a written reason stands for; `stalled` tells 7 from 7a.
    #[must_use]
    pub fn from_reason(reason: &str, stalled: bool) -> Option<Self> {
        use ConfigurationReason as ConfigurationError;
        Some(match reason {
            reasons::PENDING => Self::Pending,
            reasons::CREDENTIALS_NOT_FOUND => {
                Self::Refused(ConfigurationError::CredentialsNotFound)
            }
            reasons::CREDENTIALS_INVALID => Self::Refused(ConfigurationError::CredentialsInvalid),
            reasons::ACCESS_DENIED => Self::Refused(ConfigurationError::AccessDenied),
            reasons::ENDPOINT_INVALID => Self::Refused(ConfigurationError::EndpointInvalid),
            reasons::ENDPOINT_NOT_ALLOWED => Self::Refused(ConfigurationError::EndpointNotAllowed),
            reasons::REQUEST_REJECTED => Self::Refused(ConfigurationError::RequestRejected),
            reasons::JOB_INITIALIZING => Self::Initializing,
            reasons::JOB_RUNNING => Self::Running,
            reasons::POLL_FAILED => Self::PollFailed,
            reasons::DEADLINE_EXCEEDED => Self::DeadlineExceeded,
            reasons::JOB_SUCCEEDED => Self::Succeeded,
            reasons::IMAGE_ID_PENDING => Self::ImageIdPending,
            reasons::IMAGE_ID_MISSING => Self::ImageIdMissing,
            reasons::JOB_FAILED => Self::Failed,
            reasons::JOB_STATUS_UNRECOGNIZED => Self::Unrecognized,
            reasons::JOB_NOT_FOUND if stalled => Self::NotFound,
            reasons::JOB_NOT_FOUND => Self::NotFoundYet,
            reasons::SUSPENDED => Self::Suspended,
            _ => return None,
        })
    }

    /// Rows in which the cloud is not asked any more.
    #[must_use]
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::ImageIdMissing)
    }

    /// Rows that people should look at: their events are warnings.
    #[must_use]
    pub fn is_trouble(self) -> bool {
        !matches!(
            self,
            Self::Pending
                | Self::Initializing
                | Self::Running
                | Self::Succeeded
                | Self::ImageIdPending
                | Self::Suspended
        )
    }

    /// How writes of this row queue.
    #[must_use]
    pub fn urgency(self) -> Urgency {
        match self {
            row if row.is_finished() => Urgency::Final,
            Self::PollFailed => Urgency::Outage,
            Self::Refused(_) | Self::NotFoundYet | Self::Pending => Urgency::Trouble,
            _ => Urgency::Normal,
        }
    }

    /// One sentence that names the job and, where somebody can do something, says what. Stable as
    /// long as the situation is: it holds no time, count or request id. At most
    /// [`MESSAGE_MAX_BYTES`].
    #[must_use]
    pub fn message(self, job: &str, detail: Option<&str>, facts: &Facts) -> String {
        let cause = detail.unwrap_or("see the operator's log");
        let mut text = match self {
            Self::Pending => {
                format!("Waiting for the first answer about job {job}.")
            }
            Self::Refused(_) => format!("{}{cause}.", refused_prefix(job)),
            Self::Initializing => format!("Job {job} has been accepted and has not started yet."),
            Self::Running => format!("Job {job} is running."),
            Self::PollFailed => {
                format!("{}{cause}{POLL_FAILED_SUFFIX}", poll_failed_prefix(job))
            }
            Self::DeadlineExceeded => match detail {
                Some(detail) => format!("{}{detail}{OVERDUE_SUFFIX}", overdue_prefix(job)),
                None => format!(
                    "Job {job} has not ended within spec.deadlineSeconds: look after it in the \
                     cloud, or raise the deadline{OVERDUE_SUFFIX}"
                ),
            },
            Self::Succeeded => match (&facts.image_id, &facts.job_type) {
                (Some(image), _) => format!("Job {job} has succeeded with image {image}."),
                (None, Some(job_type)) => {
                    format!("Job {job} has succeeded; a job of type {job_type} has no image id.")
                }
                (None, None) => format!("Job {job} has succeeded."),
            },
            Self::ImageIdPending => {
                format!("Job {job} has succeeded; its image id is not known yet.")
            }
            Self::ImageIdMissing => format!(
                "Job {job} has succeeded, but the cloud gave no image id: look the image up in \
                 the cloud, or change the annotation {} to ask once more.",
                image_export_api::POLL_REQUEST_ANNOTATION
            ),
            Self::Failed => failed(job, facts),
            Self::Unrecognized => format!(
                "Job {job} has a status that this version of the operator does not know: {}.",
                facts.word.as_str().unwrap_or_default()
            ),
            Self::NotFoundYet => format!("The cloud does not know job {job} at the moment."),
            Self::NotFound if facts.word == Word::None => format!(
                "The cloud does not know job {job}: check jobID and projectID, and that the \
                 credentials are for the job's region."
            ),
            Self::NotFound => format!(
                "The cloud does not know job {job} any more, so its outcome is lost: check in the \
                 cloud whether its image is there."
            ),
            Self::Suspended => {
                format!("Job {job} is not asked about while spec.suspend is true.")
            }
        };
        truncate(&mut text, MESSAGE_MAX_BYTES);
        text
    }
}

/// Longest message of a condition, in bytes.
pub const MESSAGE_MAX_BYTES: usize = 1024;

const POLL_FAILED_SUFFIX: &str = "; the operator keeps trying.";

const OVERDUE_SUFFIX: &str = "; an end that still comes will be shown.";

fn overdue_prefix(job: &str) -> String {
    format!("Job {job} was not seen to end within spec.deadlineSeconds: ")
}

fn refused_prefix(job: &str) -> String {
    format!("Job {job} cannot be queried: ")
}

fn poll_failed_prefix(job: &str) -> String {
    format!("Job {job} cannot be queried at the moment: ")
}

/// The detail inside a written message: the inverse of [`Row::message`] for rows that have one.
#[must_use]
pub fn detail_of<'m>(row: Row, job: &str, message: &'m str) -> Option<&'m str> {
    match row {
        Row::Refused(_) => message
            .strip_prefix(&refused_prefix(job))?
            .strip_suffix('.'),
        Row::PollFailed => message
            .strip_prefix(&poll_failed_prefix(job))?
            .strip_suffix(POLL_FAILED_SUFFIX),
        Row::DeadlineExceeded => message
            .strip_prefix(&overdue_prefix(job))?
            .strip_suffix(OVERDUE_SUFFIX),
        _ => None,
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
            truncate(&mut text, MESSAGE_MAX_BYTES - 1);
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
