//! The two clocks.

use jiff::Timestamp;
use std::time::Duration;

/// The present, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Time since the process started, by a clock that only goes forward. All scheduling uses it.
    pub mono: Duration,
    /// Time of day. It dates conditions and ends, and anchors times of day that others noted; no step of it
    /// moves a schedule.
    pub wall: Timestamp,
}

/// The present as the core computes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Time since the Unix epoch by the steady clock: the wall clock as of the start of the process, and
    /// never stepped since. A restart finds the same instants again.
    pub at: Duration,
    /// Time of day in seconds since the Unix epoch.
    pub wall: i64,
}

impl Moment {
    /// A time of day, as seen now, on the steady clock.
    #[must_use]
    pub fn steady(self, second: i64) -> Duration {
        let ago = self.wall.saturating_sub(second);
        let distance = Duration::from_secs(ago.unsigned_abs());
        if ago >= 0 {
            self.at.saturating_sub(distance)
        } else {
            self.at + distance
        }
    }
}

/// When something is due: a request by hand before everything else, then by time on the steady clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// Now: a poll was requested by hand.
    Requested,
    /// From this time on.
    Since(Duration),
}

/// A time in nanoseconds. It fits for some centuries after the Unix epoch, and ends there.
#[must_use]
pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
