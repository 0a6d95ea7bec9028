//! The conditions table: what an object's status shows in each phase. Which phase holds is decided in
//! [`Evidence::phase`](crate::evidence::Evidence::phase).
//!
//! `docs/conditions.md` shows the same table to users; a test compares the two. The sentences are in
//! [`message`](crate::message).

use image_export_api::conditions::reasons;
use image_export_model::ConfigurationReason;

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

/// The condition that a phase shows beside `Ready` and `Succeeded`. Present only while True, so never
/// both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// `Reconciling`: the operator works towards an end.
    Reconciling,
    /// `Stalled`: nothing changes until somebody acts.
    Stalled,
    /// Neither: at rest, as wanted.
    Rest,
}

/// Order in which changes of objects are sent, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// A read that shows whether an earlier write landed.
    Confirm,
    /// Ends: people and pipelines wait for them.
    End,
    /// Everything else that an answer brought.
    Normal,
    /// Deletions of objects whose time to live is over.
    Expiry,
    /// Configuration errors, which hit all objects of a credential at once.
    Trouble,
    /// `PollFailed` and `PollOverdue`, which an outage or a scarce quota causes on all objects at once, and
    /// causes that `Pending` comes to name. Their rate is limited, so they come last and delay nothing else.
    Outage,
}

impl Priority {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 6] = [
        Self::Confirm,
        Self::End,
        Self::Normal,
        Self::Expiry,
        Self::Trouble,
        Self::Outage,
    ];
}

/// How often a job is polled in a phase, errors and quota aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// The object's own period.
    Own,
    /// The object's own period, at least `Config::slow_period`.
    Slow,
    /// Every `Config::not_found_period`.
    NotFound,
    /// A few times, `Config::image_id_period` apart.
    ImageId,
    /// Not at all.
    Never,
}

/// What the sentence of a phase names beside the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Nothing that the fields of the status do not show.
    None,
    /// The configuration error.
    Configuration(ConfigurationReason),
    /// Why polls fail.
    Failure,
    /// Why the poll waits.
    Wait,
    /// Why there is no answer yet, if the cause is known.
    Delay,
    /// Why the end may not have been seen, if there is a cause.
    Obstacle,
}

/// Which Event tells people that a phase is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A warning: people should look at the object.
    Warning,
    /// A normal one.
    Normal,
    /// A normal one where the phase before had a warning, so that its end is told. Otherwise none: plain
    /// progress is in the status, and an Event for each job would double the writes of a start.
    Progress,
}

/// One row of the conditions table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Reason of `Ready`, and of each other condition but for [`Row::succeeded_reason`].
    pub reason: &'static str,
    /// Status of `Ready`.
    pub ready: Truth,
    /// Status of `Succeeded`.
    pub succeeded: Truth,
    /// Reason of `Succeeded`.
    pub succeeded_reason: &'static str,
    /// The third condition.
    pub activity: Activity,
    /// How often the job is polled.
    pub pace: Pace,
    /// How urgent it is to write the phase.
    pub priority: Priority,
    /// The Event that is published when the phase is shown.
    pub event: EventKind,
    /// What its sentence names.
    pub detail: Detail,
}

macro_rules! phases {
    ($($(#[$doc:meta])* $phase:ident: $reason:ident, $ready:ident, $succeeded:ident $(($succeeded_reason:ident))?,
       $activity:ident, $pace:ident, $priority:ident, $event:ident, $detail:expr;)*) => {
        /// What an object's status shows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Phase {
            $($(#[$doc])* $phase,)*
        }

        impl Phase {
            /// All phases, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$phase),*];

            /// The phase's row of the conditions table.
            #[must_use]
            pub const fn row(self) -> &'static Row {
                use ConfigurationReason as Error;
                use Detail::{Configuration, Delay, Failure, None, Obstacle, Wait};
                match self {
                    $(Self::$phase => &Row {
                        reason: reasons::$reason,
                        ready: Truth::$ready,
                        succeeded: Truth::$succeeded,
                        succeeded_reason: phases!(@succeeded $reason $($succeeded_reason)?),
                        activity: Activity::$activity,
                        pace: Pace::$pace,
                        priority: Priority::$priority,
                        event: EventKind::$event,
                        detail: $detail,
                    },)*
                }
            }
        }
    };
    (@succeeded $reason:ident) => { reasons::$reason };
    (@succeeded $reason:ident $succeeded:ident) => { reasons::$succeeded };
}

#[rustfmt::skip]
phases! {
    // phase                reason                   Ready    Succeeded             third        pace      write    Event     detail
    /// No answer yet.
    Pending:                PENDING,                 Unknown, Unknown,              Reconciling, Own,      Trouble, Progress, Delay;
    /// Secret, key or cloud entry missing.
    CredentialsNotFound:    CREDENTIALS_NOT_FOUND,   Unknown, Unknown,              Reconciling, Slow,     Trouble, Warning,  Configuration(Error::CredentialsNotFound);
    /// Credentials unreadable, incomplete or rejected.
    CredentialsInvalid:     CREDENTIALS_INVALID,     Unknown, Unknown,              Reconciling, Slow,     Trouble, Warning,  Configuration(Error::CredentialsInvalid);
    /// Logged in, but the role is not sufficient.
    AccessDenied:           ACCESS_DENIED,           Unknown, Unknown,              Reconciling, Slow,     Trouble, Warning,  Configuration(Error::AccessDenied);
    /// Endpoint unknown or wrong.
    EndpointInvalid:        ENDPOINT_INVALID,        Unknown, Unknown,              Reconciling, Slow,     Trouble, Warning,  Configuration(Error::EndpointInvalid);
    /// Endpoint forbidden by the operator's configuration.
    EndpointNotAllowed:     ENDPOINT_NOT_ALLOWED,    Unknown, Unknown,              Reconciling, Slow,     Trouble, Warning,  Configuration(Error::EndpointNotAllowed);
    /// The cloud rejects the request itself.
    RequestRejected:        REQUEST_REJECTED,        Unknown, Unknown,              Reconciling, Slow,     Trouble, Warning,  Configuration(Error::RequestRejected);
    /// `INIT`
    JobInitializing:        JOB_INITIALIZING,        Unknown, Unknown,              Reconciling, Own,      Normal,  Progress, None;
    /// `RUNNING`
    JobRunning:             JOB_RUNNING,             Unknown, Unknown,              Reconciling, Own,      Normal,  Progress, None;
    /// Polls have failed for a while.
    PollFailed:             POLL_FAILED,             Unknown, Unknown,              Reconciling, Own,      Outage,  Warning,  Failure;
    /// The poll has been due for a while.
    PollOverdue:            POLL_OVERDUE,            Unknown, Unknown,              Reconciling, Own,      Outage,  Warning,  Wait;
    /// Not finished within `spec.deadlineSeconds`.
    DeadlineExceeded:       DEADLINE_EXCEEDED,       False,   Unknown,              Stalled,     Slow,     Normal,  Warning,  Obstacle;
    /// `SUCCESS` with its image id, or of a job type that has none.
    JobSucceeded:           JOB_SUCCEEDED,           True,    True,                 Rest,        Never,    End,     Normal,   None;
    /// `SUCCESS`, image id not reported yet.
    ImageIdPending:         IMAGE_ID_PENDING,        Unknown, Unknown,              Reconciling, ImageId,  Normal,  Progress, None;
    /// `SUCCESS`, image id never reported. The job did succeed, and its own condition shows it.
    ImageIdMissing:         IMAGE_ID_MISSING,        False,   True (JOB_SUCCEEDED), Stalled,     Never,    End,     Warning,  None;
    /// `FAIL`
    JobFailed:              JOB_FAILED,              False,   False,                Stalled,     Never,    End,     Warning,  None;
    /// A job status that nobody documented.
    JobStatusUnrecognized:  JOB_STATUS_UNRECOGNIZED, Unknown, Unknown,              Reconciling, Own,      Normal,  Warning,  None;
    /// 404, within the grace period.
    JobNotFoundYet:         JOB_NOT_FOUND,           Unknown, Unknown,              Reconciling, NotFound, Trouble, Warning,  None;
    /// 404 for longer than the grace period.
    JobNotFound:            JOB_NOT_FOUND,           False,   Unknown,              Stalled,     Slow,     Normal,  Warning,  None;
    /// `spec.suspend`, not finished.
    Suspended:              SUSPENDED,               Unknown, Unknown,              Rest,        Never,    Normal,  Normal,   None;
}

impl From<ConfigurationReason> for Phase {
    fn from(reason: ConfigurationReason) -> Self {
        match reason {
            ConfigurationReason::CredentialsNotFound => Self::CredentialsNotFound,
            ConfigurationReason::CredentialsInvalid => Self::CredentialsInvalid,
            ConfigurationReason::AccessDenied => Self::AccessDenied,
            ConfigurationReason::EndpointInvalid => Self::EndpointInvalid,
            ConfigurationReason::EndpointNotAllowed => Self::EndpointNotAllowed,
            ConfigurationReason::RequestRejected => Self::RequestRejected,
        }
    }
}

impl Phase {
    /// The phase that a written reason stands for; `stalled` tells the two `JobNotFound` apart.
    #[must_use]
    pub fn from_reason(reason: &str, stalled: bool) -> Option<Self> {
        let mut named = Self::ALL
            .iter()
            .filter(|phase| phase.row().reason == reason);
        let first = named.next()?;
        let stalls = |phase: &&Self| (phase.row().activity == Activity::Stalled) == stalled;
        Some(*named.find(stalls).unwrap_or(first))
    }

    /// Whether the job has ended: how, `Succeeded` shows.
    #[must_use]
    pub fn is_finished(self) -> bool {
        self.row().succeeded != Truth::Unknown
    }
}
