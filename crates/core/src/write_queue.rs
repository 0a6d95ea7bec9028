//! In which order changes of objects are sent to the API server, how many at once, and when none.
//!
//! Namespaces take turns. Of one namespace the most urgent change goes first. Trouble is that of a namespace
//! (an admission webhook that hangs), and pauses its changes alone, until several have it.

use crate::{
    config::Config, effects::WriteResult, fair::FairQueue, keys::JobKey, phase::Priority,
    slots::Slots, token_bucket::TokenBucket,
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

type Namespace = Arc<str>;

/// Queues and limits of status writes, deletions, and the reads that settle them.
#[derive(Debug)]
pub struct WriteQueue {
    /// Those of [`Priority::Outage`] apart, whose rate is limited: a cloud outage must not become a write storm.
    queues: [FairQueue<Namespace, (Priority, u64, JobKey)>; 2],
    /// What is in them: nothing twice.
    queued: HashSet<(Priority, JobKey)>,
    outage: TokenBucket,
    slots: Slots<Namespace>,
    /// Namespaces in trouble.
    troubled: HashMap<Namespace, Trouble>,
    /// The trouble of the API server itself …
    general: Trouble,
    /// … which is that of several namespaces: those with a failure since the latest success.
    failing: HashSet<Namespace>,
    wake: Option<Duration>,
    /// Numbers what is queued.
    sequence: u64,
}

/// Consecutive failures, and the pause after them.
#[derive(Debug, Default)]
struct Trouble {
    paused_until: Duration,
    failures: u32,
}

impl Trouble {
    /// Applies one more failure, after which the API server may have asked for a pause. What was sent before a
    /// pause is part of the same trouble.
    fn extend(&mut self, config: &Config, at: Duration, asked: Duration) {
        if at >= self.paused_until {
            let pause = config.pause_min.saturating_mul(1 << self.failures.min(16));
            self.failures += 1;
            let asked = asked.min(config.pause_max);
            self.paused_until = at + pause.min(config.write_pause_max).max(asked);
        }
    }
}

impl WriteQueue {
    /// An empty queue.
    #[must_use]
    pub fn new(config: &Config, at: Duration) -> Self {
        Self {
            queues: Default::default(),
            queued: HashSet::new(),
            // Nothing is saved up, or the first second of an outage would have twice the rate.
            outage: TokenBucket::new(config.poll_failed_writes, 1.0, at),
            slots: Slots::new(config.writes_in_flight),
            troubled: HashMap::new(),
            general: Trouble::default(),
            failing: HashSet::new(),
            wake: None,
            sequence: 0,
        }
    }

    /// Queues a change of an object.
    pub fn push(&mut self, namespace: &Namespace, job: JobKey, priority: Priority) {
        if !self.queued.insert((priority, job)) {
            return;
        }
        self.sequence += 1;
        let queue = &mut self.queues[usize::from(priority == Priority::Outage)];
        queue.push(namespace, (priority, self.sequence, job));
    }

    /// Drops objects that do not wait any more where those outnumber all objects.
    pub fn shrink(&mut self, objects: usize, is_waiting: impl Fn(JobKey, Priority) -> bool) {
        if self.len() > 2 * objects {
            for queue in &mut self.queues {
                queue.retain(|(priority, _, job)| is_waiting(*job, *priority));
            }
            self.queued
                .retain(|(priority, job)| is_waiting(*job, *priority));
        }
        if objects == 0 {
            self.forget_troubles();
        }
    }

    /// Forgets the troubles of all namespaces.
    pub fn forget_troubles(&mut self) {
        self.troubled.clear();
        self.failing.clear();
    }

    /// How many wait, those included that do so no more.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queues.iter().map(FairQueue::len).sum()
    }

    /// How many namespaces are in trouble.
    #[cfg(test)]
    pub fn troubled(&self) -> usize {
        self.troubled.len() + self.failing.len()
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
        let forgotten = |trouble: &Trouble| at >= trouble.paused_until + config.write_pause_max;
        self.troubled.retain(|_, trouble| !forgotten(trouble));
        if self.len() == 0 {
            return None;
        }
        if at < self.general.paused_until {
            self.wake = Some(self.general.paused_until);
            return None;
        }
        let mut wake: Option<Duration> = None;
        for (n, queue) in self.queues.iter_mut().enumerate() {
            let is_limited = n == 1;
            loop {
                if is_limited && let Some(wait) = self.outage.wait(at) {
                    if !queue.is_empty() {
                        wake = Some(wake.map_or(at + wait, |other| other.min(at + wait)));
                    }
                    break;
                }
                let next = queue.pop(|namespace| {
                    let paused = self
                        .troubled
                        .get(namespace)
                        .map(|trouble| trouble.paused_until);
                    if let Some(until) = paused.filter(|until| at < *until) {
                        wake = Some(wake.map_or(until, |other| other.min(until)));
                        return false;
                    }
                    self.slots.may_take(namespace)
                });
                let Some((namespace, (priority, _, job))) = next else {
                    break;
                };
                self.queued.remove(&(priority, job));
                if !is_waiting(job, priority) {
                    continue;
                }
                if is_limited {
                    // It was looked at above.
                    let _ = self.outage.take(at);
                }
                self.slots.take(&namespace);
                return Some(job);
            }
        }
        self.wake = wake;
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
        self.slots.in_use()
    }

    /// Ends what [`WriteQueue::next`] began without any news of the API server.
    pub fn release(&mut self, namespace: &Namespace) {
        self.slots.release(namespace);
    }

    /// Applies the end of a change. Trouble that is not the object's alone pauses the namespace, and that of
    /// several namespaces all changes.
    pub fn apply_end(
        &mut self,
        config: &Config,
        at: Duration,
        namespace: &Namespace,
        result: &WriteResult,
    ) {
        self.slots.release(namespace);
        let asked = match result {
            WriteResult::Throttled(asked) => asked.unwrap_or_default(),
            WriteResult::Unknown => Duration::ZERO,
            WriteResult::Failed => return,
            WriteResult::Written { .. }
            | WriteResult::Deleted
            | WriteResult::Conflict
            | WriteResult::Gone
            | WriteResult::Rejected => {
                if let Some(trouble) = self.troubled.get_mut(namespace) {
                    trouble.failures = 0;
                }
                self.general.failures = 0;
                self.failing.clear();
                return;
            }
        };
        let trouble = self.troubled.entry(namespace.clone()).or_default();
        trouble.extend(config, at, asked);
        self.failing.insert(namespace.clone());
        if self.failing.len() >= config.write_trouble_namespaces {
            self.general.extend(config, at, asked);
        }
    }
}
