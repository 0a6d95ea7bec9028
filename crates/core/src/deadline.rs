//! What a spec limits in time: `deadlineSeconds` and `ttlSecondsAfterFinished`.
//!
//! Both count from times of day: the job's begin, the object's creation, the end. Each is turned once a
//! process into a time on the steady clock, so no later step of the wall clock moves a deadline or
//! deletes anything early.

use crate::{pack::pack_struct, time::Moment};
use std::time::Duration;

/// The limits of one object and what they count from. Times are on the steady clock.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `spec.deadlineSeconds`
    pub deadline: Option<Duration>,
    /// `spec.ttlSecondsAfterFinished`
    pub ttl: Option<Duration>,
    /// When the object was created, in seconds since the epoch by the API server's clock.
    created: i64,
    /// The same on the steady clock.
    created_at: Duration,
    /// Since when the job may have ended without the operator seeing it: first sight, the end of a
    /// suspension, of a sleep of the process or of another's leadership. `None`: it would have been seen.
    pub unobserved_since: Option<Duration>,
    /// The deadline had passed when it was last looked at.
    pub was_late: bool,
    /// When the end was shown, once it is.
    ended: Option<Duration>,
    /// The next deletion is not sent before.
    delayed_until: Option<Duration>,
}

pack_struct!(Limits {
    deadline,
    ttl,
    created,
    created_at,
    unobserved_since,
    was_late,
    ended,
    delayed_until,
});

impl Limits {
    /// No limits yet; the job was not observed before now.
    #[must_use]
    pub fn new(now: Moment, created: Option<i64>) -> Self {
        let created = created.unwrap_or(now.wall);
        Self {
            deadline: None,
            ttl: None,
            created,
            created_at: now.steady(created),
            unobserved_since: Some(now.at),
            was_late: false,
            ended: None,
            delayed_until: None,
        }
    }

    /// When the object was created, in seconds since the epoch.
    #[must_use]
    pub fn created(&self) -> i64 {
        self.created
    }

    /// When the job should have ended. `start`: its begin, in seconds since the epoch.
    #[must_use]
    pub fn deadline(&self, start: Option<i64>) -> Option<Duration> {
        // The base never moves later: a job that began after its object was created gains nothing.
        let earlier = start.map_or(0, |start| {
            u64::try_from(self.created.saturating_sub(start)).unwrap_or(0)
        });
        let base = self.created_at.saturating_sub(Duration::from_secs(earlier));
        Some(base + self.deadline?)
    }

    /// Whether the deadline has passed.
    #[must_use]
    pub fn is_late(&self, start: Option<i64>, at: Duration) -> bool {
        self.deadline(start).is_some_and(|deadline| deadline <= at)
    }

    /// When a deadline that has passed is shown: while the job is unobserved not before an outcome, unless
    /// none comes for `patience`.
    #[must_use]
    pub fn shown_late_at(&self, start: Option<i64>, patience: Duration) -> Option<Duration> {
        let deadline = self.deadline(start)?;
        Some(match self.unobserved_since {
            None => deadline,
            Some(since) => deadline.max(since) + patience,
        })
    }

    /// Applies what the API server shows: the end, with `completionTime` and the moment that `Succeeded`
    /// turned, or none. The ttl counts from the later of the two, or a job that ended long ago would be
    /// deleted at first sight, and be created again from Git for ever.
    pub fn apply_shown_end(&mut self, now: Moment, end: Option<(Option<i64>, i64)>) {
        self.ended = end.map(|(completed, turned)| {
            let latest = completed.unwrap_or(now.wall).max(turned).min(now.wall);
            self.ended.unwrap_or_else(|| now.steady(latest))
        });
    }

    /// When the object is to be deleted: not before its end is shown on the API server.
    #[must_use]
    pub fn expires_at(&self) -> Option<Duration> {
        let expiry = self.ended? + self.ttl?;
        Some(self.delayed_until.map_or(expiry, |until| expiry.max(until)))
    }

    /// Delays the next deletion; the status may be written meanwhile.
    pub fn delay_deletion(&mut self, until: Duration) {
        self.delayed_until = Some(until);
    }
}
