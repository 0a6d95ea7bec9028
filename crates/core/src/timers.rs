//! One timer an object: when its decision may change without an input.

use crate::keys::JobKey;
use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

/// Timers of all objects. One that was replaced stays in the heap until it fires or until those outnumber
/// the valid ones; the object knows which is valid.
#[derive(Debug, Default)]
pub struct Timers(BinaryHeap<Reverse<(Duration, JobKey)>>);

impl Timers {
    /// Sets a timer. `valid`: how many objects have one at most, and which are theirs.
    pub fn set(
        &mut self,
        at: Duration,
        job: JobKey,
        objects: usize,
        is_valid: impl Fn(Duration, JobKey) -> bool,
    ) {
        self.0.push(Reverse((at, job)));
        self.shrink(objects, is_valid);
    }

    /// Drops replaced timers where they outnumber the objects.
    pub fn shrink(&mut self, objects: usize, is_valid: impl Fn(Duration, JobKey) -> bool) {
        if self.0.len() > 2 * objects {
            self.0.retain(|Reverse((at, job))| is_valid(*at, *job));
        }
    }

    /// When the next one fires.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    /// The next one that is due.
    pub fn pop_due(&mut self, at: Duration) -> Option<(Duration, JobKey)> {
        self.next_wake().filter(|due| *due <= at)?;
        self.0.pop().map(|Reverse(timer)| timer)
    }

    /// How many there are, replaced ones included.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
