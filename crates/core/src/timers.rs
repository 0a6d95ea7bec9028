//! One timer an object: when its decision may change without an input.

use crate::{keys::JobKey, time::nanos};
use slotmap::{Key, KeyData};
use std::{collections::BTreeSet, time::Duration};

/// The timers of all objects, the next one first.
#[derive(Debug, Default)]
pub struct Timers(BTreeSet<Timer>);

/// A time in nanoseconds on the steady clock, and below it the key of an object: one number, as that is fast to
/// compare.
type Timer = u128;

fn timer(at: Duration, job: JobKey) -> Timer {
    Timer::from(nanos(at)) << 64 | Timer::from(job.data().as_ffi())
}

impl Timers {
    /// Replaces the timer of an object, if it has one.
    pub fn replace(&mut self, job: JobKey, before: Option<Duration>, after: Option<Duration>) {
        if before == after {
            return;
        }
        if let Some(before) = before {
            self.0.remove(&timer(before, job));
        }
        if let Some(after) = after {
            self.0.insert(timer(after, job));
        }
    }

    /// When the next one fires.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        self.0.first().map(time_of)
    }

    /// Takes out the next one that is due.
    #[allow(clippy::cast_possible_truncation, reason = "the lower half is the key")]
    pub fn pop_due(&mut self, at: Duration) -> Option<JobKey> {
        self.next_wake().filter(|due| *due <= at)?;
        let timer = self.0.pop_first()?;
        Some(KeyData::from_ffi(timer as u64).into())
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the upper half is a u64")]
fn time_of(timer: &Timer) -> Duration {
    Duration::from_nanos((timer >> 64) as u64)
}
