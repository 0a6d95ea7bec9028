//! In which order changes of objects are sent to the API server, how many at once, and when none.

use crate::{
    config::Config, effects::WriteResult, keys::JobKey, phase::Priority, token_bucket::TokenBucket,
};
use std::{collections::VecDeque, time::Duration};

/// Queues and limits of status writes, deletions, and the reads that settle them.
#[derive(Debug)]
pub struct WriteQueue {
    queues: [VecDeque<JobKey>; Priority::ALL.len()],
    /// Limits [`Priority::Outage`]: a cloud outage must not become a write storm.
    outage: TokenBucket,
    in_flight: usize,
    /// Nothing is sent before this time: the API server is in trouble.
    paused_until: Duration,
    /// Consecutive failures, for the length of the pause.
    failures: u32,
    wake: Option<Duration>,
}

impl WriteQueue {
    /// An empty queue.
    #[must_use]
    pub fn new(config: &Config, at: Duration) -> Self {
        Self {
            queues: Default::default(),
            // Nothing is saved up, or the first second of an outage would have twice the rate.
            outage: TokenBucket::new(config.poll_failed_writes, 1.0, at),
            in_flight: 0,
            paused_until: Duration::ZERO,
            failures: 0,
            wake: None,
        }
    }

    /// Queues a change of an object.
    pub fn push(&mut self, job: JobKey, priority: Priority) {
        self.queues[priority as usize].push_back(job);
    }

    /// Drops objects that do not wait any more where those outnumber all objects.
    pub fn shrink(&mut self, objects: usize, is_waiting: impl Fn(JobKey, Priority) -> bool) {
        if self.len() > 2 * objects {
            for (priority, queue) in Priority::ALL.into_iter().zip(&mut self.queues) {
                queue.retain(|job| is_waiting(*job, priority));
            }
        }
    }

    /// How many wait, those included that do so no more.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    /// The next object whose change may be sent now. `is_waiting` tells objects that still wait with this
    /// priority from those that do not.
    pub fn next(
        &mut self,
        config: &Config,
        at: Duration,
        is_waiting: impl Fn(JobKey, Priority) -> bool,
    ) -> Option<JobKey> {
        self.wake = None;
        for (priority, queue) in Priority::ALL.into_iter().zip(&mut self.queues) {
            while let Some(&job) = queue.front() {
                if !is_waiting(job, priority) {
                    queue.pop_front();
                    continue;
                }
                if self.in_flight >= config.writes_in_flight {
                    return None;
                }
                if at < self.paused_until {
                    self.wake = Some(self.paused_until);
                    return None;
                }
                if priority == Priority::Outage
                    && let Err(wait) = self.outage.take(at)
                {
                    self.wake = Some(at + wait);
                    return None;
                }
                queue.pop_front();
                self.in_flight += 1;
                return Some(job);
            }
        }
        None
    }

    /// When something is due here next.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        self.wake
    }

    /// Changes sent and not yet answered.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Ends what [`WriteQueue::next`] began without any news of the API server.
    pub fn release(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Applies the end of a change. Trouble that is the API server's rather than the object's pauses all
    /// changes.
    pub fn apply_end(&mut self, config: &Config, at: Duration, result: &WriteResult) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let asked = match result {
            WriteResult::Throttled(asked) => asked.unwrap_or_default(),
            WriteResult::Unknown => Duration::ZERO,
            WriteResult::Failed => return,
            WriteResult::Written { .. }
            | WriteResult::Deleted
            | WriteResult::Conflict
            | WriteResult::Gone
            | WriteResult::Rejected => {
                self.failures = 0;
                return;
            }
        };
        if at < self.paused_until {
            // Sent before the pause: one trouble, not sixteen.
            return;
        }
        let pause = config.pause_min.saturating_mul(1 << self.failures.min(16));
        self.failures += 1;
        let asked = asked.min(config.pause_max);
        self.paused_until = at + pause.min(config.write_pause_max).max(asked);
    }
}
