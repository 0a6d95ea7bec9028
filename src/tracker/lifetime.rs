//! What the spec limits in time: `deadlineSeconds` (row 3d) and `ttlSecondsAfterFinished`.
//!
//! Both count from times of day: the job's begin, the object's creation, the end. Each is turned
//! once a process into a time on the steady clock of [`Tracker::clock`], so no later step of the
//! wall clock moves a deadline or deletes anything early.

use super::{Now, Timer, Tracker, record::Record};
use crate::api::ImageExportJob;
use std::time::Duration;

/// The limits of one object, and what they count from. `Duration`s are on the steady clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// `spec.deadlineSeconds`
    deadline_seconds: Option<u32>,
    /// `spec.ttlSecondsAfterFinished`
    ttl_seconds: Option<u32>,
    /// Creation of the object, in seconds since the epoch by the API server's clock.
    created: i64,
    /// The same moment on the steady clock.
    born: Duration,
    /// The deadline that a timer is set for.
    armed: Option<Duration>,
    /// When the end was shown, once it is.
    ended: Option<Duration>,
    /// Somebody has deleted the object; only finalizers keep it.
    deleted: bool,
}

impl Record {
    /// When the job should have ended, `second` being the length of a second of the spec.
    pub fn deadline(&self, second: Duration) -> Option<Duration> {
        let limits = &self.limits;
        let seconds = limits.deadline_seconds?;
        // The base never moves later: a job that began after its object was created gains nothing.
        let earlier = self.history.facts.start.map_or(0, |start| {
            u64::try_from(limits.created.saturating_sub(start)).unwrap_or(0)
        });
        let base = limits.born.saturating_sub(Duration::from_secs(earlier));
        Some(base + second * seconds)
    }

    /// When the object is to be deleted: not before its end stands on the API server.
    pub fn expiry(&self, second: Duration) -> Option<Duration> {
        let limits = &self.limits;
        let seconds = limits.ttl_seconds.filter(|_| !limits.deleted)?;
        let shown = self.acknowledged.as_ref()?.row.is_finished();
        limits
            .ended
            .filter(|_| shown)
            .map(|at| at + second * seconds)
    }
}

impl Tracker {
    /// Takes in what the object says about itself at first sight.
    pub(super) fn take_lifetime(&mut self, now: Now, index: u32, object: &ImageExportJob) {
        let created = object
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(now.wall.as_second(), |time| time.0.as_second());
        let born = self.steady(now, created);
        let Some(record) = self.records.get_mut(index) else {
            return;
        };
        record.limits.created = created;
        record.limits.born = born;
        self.take_limits(now, index, object);
        self.note_end(now, index);
    }

    /// Takes in the limits of the spec.
    pub(super) fn take_limits(&mut self, now: Now, index: u32, object: &ImageExportJob) {
        let Some(record) = self.records.get_mut(index) else {
            return;
        };
        record.limits.deadline_seconds = seconds(object.spec.deadline_seconds);
        record.limits.ttl_seconds = seconds(object.spec.ttl_seconds_after_finished);
        self.arm_deadline(now, index);
        self.arm_expiry(now, index);
    }

    /// Takes in whether somebody has deleted the object.
    pub(super) fn take_deletion(&mut self, index: u32, object: &ImageExportJob) {
        if let Some(record) = self.records.get_mut(index) {
            record.limits.deleted = object.metadata.deletion_timestamp.is_some();
        }
    }

    /// A spec was changed: row 3d holds if the deadline that now counts has passed.
    pub(super) fn judge_deadline_anew(&mut self, now: Now, index: u32) {
        let passed = self.deadline_has_passed(now, index);
        if let Some(record) = self.records.get_mut(index) {
            record.history.overdue = passed;
        }
    }

    /// After an outcome: a deadline that had passed before this process came is shown now, since the
    /// outcome was not the end; one that a newly known start moves forward is armed again.
    pub(super) fn judge_deadline(&mut self, now: Now, index: u32) {
        if self.deadline_has_passed(now, index) {
            if let Some(record) = self.records.get_mut(index) {
                record.history.overdue = true;
            }
        } else {
            self.arm_deadline(now, index);
        }
    }

    /// Whether the deadline lies behind us.
    pub(super) fn deadline_has_passed(&self, now: Now, index: u32) -> bool {
        self.records
            .get(index)
            .and_then(|record| record.deadline(self.config.spec_second))
            .is_some_and(|at| at <= self.clock(now))
    }

    pub(super) fn deadline_timer(&mut self, now: Now, index: u32, serial: u32) {
        if self.records.current(index, serial).is_some() && self.deadline_has_passed(now, index) {
            self.judge_deadline(now, index);
            self.refresh_write(now, index);
        }
    }

    pub(super) fn expiry_timer(&mut self, now: Now, index: u32, serial: u32) {
        if self.records.current(index, serial).is_some() {
            self.refresh_write(now, index);
        }
    }

    /// An end stands on the API server: from now on the ttl counts. It begins with the later of
    /// `completionTime` and the moment that Succeeded turned, or a job that ended long ago would be
    /// deleted at first sight, and be created again from Git for ever.
    pub(super) fn note_end(&mut self, now: Now, index: u32) {
        let Some(record) = self.records.get(index) else {
            return;
        };
        let ended = record
            .acknowledged
            .as_ref()
            .filter(|standing| standing.row.is_finished())
            .map(|standing| {
                let wall = now.wall.as_second();
                let completed = standing.facts.completion.unwrap_or(wall);
                let latest = completed.max(standing.since.succeeded).min(wall);
                record.limits.ended.unwrap_or(self.steady(now, latest))
            });
        if let Some(record) = self.records.get_mut(index) {
            record.limits.ended = ended;
        }
        self.arm_expiry(now, index);
    }

    fn arm_deadline(&mut self, now: Now, index: u32) {
        let Some(record) = self.records.get_mut(index) else {
            return;
        };
        let at = record.deadline(self.config.spec_second);
        let serial = record.serial;
        if let Some(at) = at
            && record.limits.armed.replace(at) != Some(at)
        {
            self.set_future_timer(now, at, Timer::Deadline { index, serial });
        }
    }

    fn arm_expiry(&mut self, now: Now, index: u32) {
        let Some(record) = self.records.get(index) else {
            return;
        };
        let Some(at) = record.expiry(self.config.spec_second) else {
            return;
        };
        let serial = record.serial;
        self.set_future_timer(now, at, Timer::Expiry { index, serial });
    }

    /// Sets a timer on the steady clock, unless its time has come already.
    fn set_future_timer(&mut self, now: Now, at: Duration, timer: Timer) {
        if at > self.clock(now) {
            self.set_timer(at.saturating_sub(self.clock_offset), timer);
        }
    }

    /// A time of day, as seen now, on the steady clock.
    fn steady(&self, now: Now, second: i64) -> Duration {
        let ago = now.wall.as_second().saturating_sub(second);
        let distance = Duration::from_secs(ago.unsigned_abs());
        if ago >= 0 {
            self.clock(now).saturating_sub(distance)
        } else {
            self.clock(now) + distance
        }
    }
}

fn seconds(field: Option<i32>) -> Option<u32> {
    u32::try_from(field?).ok()
}
