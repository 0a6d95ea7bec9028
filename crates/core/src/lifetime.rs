//! What the spec limits in time: `deadlineSeconds` (row 3d) and `ttlSecondsAfterFinished`.
//!
//! Both count from times of day: the job's begin, the object's creation, the end. Each is turned
//! once a process into a time on the steady clock of [`Tracker::clock`], so no later step of the
//! wall clock moves a deadline or deletes anything early.

use super::{
    Now, Timer, Tracker,
    record::{Poll, Record},
};
use image_export_api::ImageExportJob;
use image_export_model::Outcome;
use std::time::Duration;

/// Longest timer: a longer wait is made of several, so that objects that are gone do not keep theirs
/// for a year.
const HOP: Duration = Duration::from_secs(60 * 60);

/// The limits of one object, and what they count from. Moments are on the steady clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// `spec.deadlineSeconds`
    deadline: Option<Duration>,
    /// `spec.ttlSecondsAfterFinished`
    ttl: Option<Duration>,
    /// Creation of the object, in seconds since the epoch by the API server's clock.
    created: i64,
    /// The same moment on the steady clock.
    born: Duration,
    /// Since when nothing has been heard about the job, where it may have ended meanwhile without our
    /// knowing: first sight, the end of a suspension or of a sleep.
    blind_since: Option<Duration>,
    /// When the end was shown, once it is.
    ended: Option<Duration>,
    /// An attempt to delete the object came to nothing: the next one is not before this.
    held_until: Option<Duration>,
    /// What the timer is set for.
    timer: Option<Duration>,
}

impl Record {
    /// When the job should have ended.
    fn deadline(&self) -> Option<Duration> {
        let limits = &self.limits;
        // The base never moves later: a job that began after its object was created gains nothing.
        let earlier = self.history.facts.start.map_or(0, |start| {
            u64::try_from(limits.created.saturating_sub(start)).unwrap_or(0)
        });
        let base = limits.born.saturating_sub(Duration::from_secs(earlier));
        Some(base + limits.deadline?)
    }

    /// Whether the deadline lies behind us.
    pub fn is_late(&self, clock: Duration) -> bool {
        self.deadline().is_some_and(|at| at <= clock)
    }

    /// When a deadline that has passed is shown. While we are blind, not before an outcome, unless
    /// none comes for `patience`.
    fn overdue_at(&self, patience: Duration) -> Option<Duration> {
        let deadline = self.deadline()?;
        Some(match self.limits.blind_since {
            None => deadline,
            Some(since) => deadline.max(since) + patience,
        })
    }

    /// When the object is to be deleted: not before its end stands on the API server.
    fn expiry(&self) -> Option<Duration> {
        let shown = self.acknowledged.as_ref()?.row.is_finished();
        let ended = self.limits.ended.filter(|_| shown && !self.deleted)?;
        let over = ended + self.limits.ttl?;
        Some(self.limits.held_until.map_or(over, |held| over.max(held)))
    }

    /// Whether the object has been kept long enough.
    pub fn has_expired(&self, clock: Duration) -> bool {
        self.expiry().is_some_and(|at| at <= clock)
    }

    /// The job may have ended meanwhile: nobody is told that it is late before it was asked about.
    pub fn turn_blind(&mut self, clock: Duration) {
        self.limits.blind_since = Some(clock);
    }
}

impl Tracker {
    /// Takes in what a new object limits, and since when.
    pub(super) fn take_lifetime(&mut self, now: Now, index: u32, object: &ImageExportJob) {
        let created = object
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(now.wall.as_second(), |time| time.0.as_second());
        let (clock, born) = (self.clock(now), self.steady(now, created));
        let Some(record) = self.records.get_mut(index) else {
            return;
        };
        record.limits.created = created;
        record.limits.born = born;
        record.turn_blind(clock);
        // The spec may have been changed while nobody looked.
        let shown = record.acknowledged.as_ref().map(|shown| shown.generation);
        let changed = shown != Some(record.generation);
        self.take_limits(index, object);
        if changed {
            self.judge_deadline_anew(now, index);
        }
        self.note_end(now, index);
    }

    /// Takes in another spec. Row 3d ends where it does not hold any more.
    pub(super) fn take_other_limits(&mut self, now: Now, index: u32, object: &ImageExportJob) {
        self.take_limits(index, object);
        self.ask_if_late(now, index);
        self.judge_deadline_anew(now, index);
        self.arm_lifetime(now, index);
    }

    fn take_limits(&mut self, index: u32, object: &ImageExportJob) {
        let second = self.config.spec_second;
        let length = |seconds: Option<i32>| Some(second * u32::try_from(seconds?).ok()?);
        if let Some(record) = self.records.get_mut(index) {
            record.limits.deadline = length(object.spec.deadline_seconds);
            record.limits.ttl = length(object.spec.ttl_seconds_after_finished);
        }
    }

    /// An outcome came in. It ends blindness if it says how the job is, or that nobody can know: one
    /// failure alone does not. `stale`: it was asked for before something happened that makes blind.
    pub(super) fn heard(&mut self, now: Now, index: u32, outcome: &Outcome, stale: bool) {
        let Some(record) = self.records.get_mut(index) else {
            return;
        };
        let tells = match outcome {
            Outcome::Answered(_) | Outcome::JobNotFound | Outcome::Misconfigured(_) => true,
            Outcome::Failed(_) => record.history.poll_failed.is_some(),
            Outcome::Throttled => false,
        };
        if tells && !stale {
            record.limits.blind_since = None;
        }
        self.judge_deadline(now, index);
        // A start that has just become known may have moved it.
        self.arm_lifetime(now, index);
    }

    /// This process leads from now on, and has not asked about anything for a while.
    pub(super) fn take_lead(&mut self, now: Now) {
        let clock = self.clock(now);
        let all: Vec<u32> = self.records.iter().map(|(index, _)| index).collect();
        for index in all {
            if let Some(record) = self.records.get_mut(index) {
                record.turn_blind(clock);
            }
            self.arm_lifetime(now, index);
        }
    }

    /// Shows the deadline as exceeded where it is. That stays so until another spec lifts it.
    fn judge_deadline(&mut self, now: Now, index: u32) {
        let (clock, patience) = (self.clock(now), self.config.slow_period);
        // Without leading, nothing is heard: the leader judges.
        let leading = self.leading;
        if let Some(record) = self.records.get_mut(index) {
            let exceeded = record.overdue_at(patience).is_some_and(|at| at <= clock);
            record.history.overdue |= leading && exceeded;
        }
    }

    /// Judges under another spec: what was shown holds no longer where the deadline is ahead again.
    fn judge_deadline_anew(&mut self, now: Now, index: u32) {
        let clock = self.clock(now);
        if let Some(record) = self.records.get_mut(index) {
            record.history.overdue &= record.is_late(clock);
        }
        self.judge_deadline(now, index);
    }

    /// Asks about a job that may be late, unless it is known not to have ended unseen: an outcome tells
    /// sooner than patience runs out.
    fn ask_if_late(&mut self, now: Now, index: u32) {
        let clock = self.clock(now);
        let asks = self.records.get(index).is_some_and(|record| {
            record.limits.blind_since.is_some()
                && record.is_late(clock)
                && !record.history.has_ended()
                && matches!(record.poll, Poll::Scheduled(_))
        });
        if asks {
            self.poll_now(now, index, now.mono);
        }
    }

    /// A deadline, the end of patience or an expiry may have come.
    pub(super) fn lifetime_timer(&mut self, now: Now, index: u32, serial: u32, at: Duration) {
        let (clock, set_for) = (self.clock(now), at + self.clock_offset);
        let grace = self.config.pending_grace;
        let Some(record) = self.records.current_mut(index, serial) else {
            return;
        };
        if record.limits.timer != Some(set_for) {
            // Superseded by an earlier one.
            return;
        }
        record.limits.timer = None;
        if now.mono > at + grace && record.limits.blind_since.is_none() {
            // The whole process was asleep, and so is what is under way.
            record.turn_blind(clock);
            if let Poll::InFlight { again, .. } = &mut record.poll {
                *again = true;
            }
        }
        self.ask_if_late(now, index);
        self.judge_deadline(now, index);
        self.arm_lifetime(now, index);
        self.refresh_write(now, index);
    }

    /// Leaves the object undeleted for a time; its status may be written meanwhile.
    pub(super) fn hold_deletion(&mut self, now: Now, index: u32, time: Duration) {
        let until = self.clock(now) + time;
        if let Some(record) = self.records.get_mut(index) {
            record.limits.held_until = Some(until);
        }
        self.arm_lifetime(now, index);
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
        self.arm_lifetime(now, index);
    }

    /// Sets the timer for the next moment that changes anything, unless one comes before it anyway and
    /// looks again.
    fn arm_lifetime(&mut self, now: Now, index: u32) {
        let (clock, patience) = (self.clock(now), self.config.slow_period);
        let Some(record) = self.records.get_mut(index) else {
            return;
        };
        let moments = [
            record.deadline(),
            record.overdue_at(patience),
            record.expiry(),
        ];
        let next = moments.into_iter().flatten().filter(|&at| at > clock).min();
        let Some(at) = next.map(|at| at.min(clock + HOP)) else {
            return;
        };
        if record.limits.timer.is_none_or(|set| at < set) {
            record.limits.timer = Some(at);
            let serial = record.serial;
            let at = at.saturating_sub(self.clock_offset);
            self.set_timer(at, Timer::Lifetime { index, serial });
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
