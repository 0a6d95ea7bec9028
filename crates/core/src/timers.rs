//! One timer an object: when its decision may change without an input.

use crate::{keys::JobKey, time};
use std::{collections::BTreeSet, time::Duration};

/// The timers of all objects, in nanoseconds on the steady clock.
#[derive(Debug, Default)]
pub struct Timers(BTreeSet<(u64, JobKey)>);

impl Timers {
    /// Sets the timer of an object in place of the one that it has.
    pub fn set(&mut self, job: JobKey, before: Option<Duration>, at: Duration) {
        self.remove(job, before);
        self.0.insert((time::nanos(at), job));
    }

    /// Removes the timer of an object, if it has one.
    pub fn remove(&mut self, job: JobKey, timer: Option<Duration>) {
        if let Some(at) = timer {
            self.0.remove(&(time::nanos(at), job));
        }
    }

    /// When the next one fires.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        let (at, _) = self.0.first()?;
        Some(Duration::from_nanos(*at))
    }

    /// Takes out the next one that is due.
    pub fn pop_due(&mut self, at: Duration) -> Option<JobKey> {
        self.next_wake().filter(|due| *due <= at)?;
        self.0.pop_first().map(|(_, job)| job)
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
