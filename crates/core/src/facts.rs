//! What is known about a job itself, as its object's status shows it.

use image_export_model::{JobState, TYPES_WITHOUT_IMAGE};
use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

/// What is known about the job itself. Shared between evidence and snapshot while they agree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// `status.status`
    pub job_status: Option<JobState>,
    /// `status.jobType`
    pub job_type: Option<Arc<str>>,
    /// `status.imageID`
    pub image_id: Option<Arc<str>>,
    /// `status.failReason`
    pub fail_reason: Option<Arc<str>>,
    /// `status.errorCode`
    pub error_code: Option<Arc<str>>,
    /// `status.progressPercent`: a multiple of 10.
    pub progress: Option<u8>,
    /// `status.startTime`, in seconds since the epoch.
    pub start: Option<i64>,
    /// `status.completionTime`, in seconds since the epoch.
    pub completion: Option<i64>,
}

impl Facts {
    /// Whether a success has its image id, or is of a job type that has none.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let has_no_image = |job_type: &str| TYPES_WITHOUT_IMAGE.contains(&job_type);
        self.image_id.is_some() || self.job_type.as_deref().is_some_and(has_no_image)
    }

    /// The time from the begin of the job to its end, once both are known.
    #[must_use]
    pub fn duration(&self) -> Option<Duration> {
        let seconds = self.completion?.saturating_sub(self.start?);
        u64::try_from(seconds).ok().map(Duration::from_secs)
    }

    /// The job ended at this second, but not before it began.
    pub fn complete(&mut self, ended: i64) {
        let start = self.start.unwrap_or(i64::MIN);
        self.completion.get_or_insert(ended.max(start));
    }
}

/// What a message names as the cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Whatever the stored status says; this process has not met it itself.
    Stored,
    /// Half a sentence that this process has reason to show.
    Observed(Arc<str>),
}

/// What a poll that is due waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The quota of polls a second of its endpoint and project.
    Quota,
    /// That of the endpoint, for all projects.
    Host,
    /// That of credentials which are not yet shown to belong to their projects.
    Unproven,
    /// A login with its credential, or another attempt with its login identity.
    Login,
    /// The end of a pause that the cloud asked for.
    Pause,
    /// One of the polls in flight, of which there are as many as there may be.
    InFlight,
}

impl From<Wait> for Cause {
    fn from(wait: Wait) -> Self {
        // Shared by all objects that wait.
        static TEXTS: LazyLock<[Arc<str>; 6]> = LazyLock::new(|| {
            [
                "more polls are due for its endpoint and project than --polls-per-second allows; raise that, or the poll periods",
                "more polls are due for its endpoint than --host-polls-per-second allows; raise that, or the poll periods",
                "its credentials are not yet shown to belong to its project, and all such polls of the namespace share one quota",
                "another login with its credentials, or with the same user or key, must end first",
                "the cloud asks to wait (throttling or Retry-After); if that lasts, raise the poll periods or lower --polls-per-second",
                "the polls before it, as many as may be in flight, still await their answers; the cloud is slow",
            ]
            .map(Arc::from)
        });
        Self::Observed(TEXTS[wait as usize].clone())
    }
}
