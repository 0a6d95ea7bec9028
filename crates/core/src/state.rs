//! Everything that the core holds, and the few steps that touch several parts of it.

use crate::{
    adaptive::{self, Adaptive},
    config::{Config, PollMode},
    effects::{CredentialRef, ObjectEvent, Output, Source, Transition},
    hosts::Hosts,
    job::{Job, PollStage, in_seconds},
    keys::JobKey,
    phase::{EventKind, Phase, Priority},
    quota::Quotas,
    registry::Registry,
    secrets::Secrets,
    sync::ChangeStage,
    time::Moment,
    timers::Timers,
    totals::{Tally, Totals},
    write_queue::WriteQueue,
};
use std::{collections::HashMap, time::Duration};

/// Things worth counting that only the core sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Answers that contradicted an end, or went back from RUNNING to INIT.
    pub contradictions: u64,
    /// Answers with a job status that nobody documented.
    pub unrecognized: u64,
    /// Answers dropped because the object, its credentials or the leadership had changed.
    pub dropped_answers: u64,
    /// Statuses that somebody else had changed and that were repaired.
    pub repairs: u64,
    /// Polls that became due.
    pub polls_due: u64,
}

/// Objects, Secrets, quotas, queues and timers.
pub struct State {
    pub config: Config,
    pub jobs: Registry,
    pub secrets: Secrets,
    pub quotas: Quotas,
    pub hosts: Hosts,
    pub adaptive: Adaptive,
    pub writes: WriteQueue,
    pub timers: Timers,
    pub totals: Totals,
    /// Whether this process may act.
    pub leading: bool,
    /// Since when: what was due before was the previous leader's to poll.
    pub leading_since: Duration,
    /// Whether the process is about to end.
    pub stopping: bool,
    /// Objects beside the one of the ticket that a poll in flight serves, by its sequence.
    pub alike: HashMap<u64, Vec<JobKey>>,
    /// Counts changes of leadership: what was sent under another epoch is void.
    pub epoch: u32,
    /// Numbers what is sent.
    pub sequence: u64,
    pub counters: Counters,
    /// Objects about which a decision is due.
    pub dirty: Vec<JobKey>,
    /// Objects whose poll began to wait for its quota.
    pub waiting: Vec<JobKey>,
    pub output: Output,
}

impl State {
    pub fn new(config: Config, at: Duration) -> Self {
        Self {
            jobs: Registry::default(),
            secrets: Secrets::new(&config, at),
            quotas: Quotas::new(&config),
            hosts: Hosts::default(),
            adaptive: Adaptive::default(),
            writes: WriteQueue::new(&config, at),
            timers: Timers::default(),
            totals: Totals::default(),
            leading: false,
            leading_since: at,
            stopping: false,
            alike: HashMap::new(),
            epoch: 0,
            sequence: 0,
            counters: Counters::default(),
            dirty: Vec::new(),
            waiting: Vec::new(),
            output: Output::default(),
            config,
        }
    }

    /// A number that nothing sent before has.
    pub fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Moves an object to the Secret that its spec names. Returns whether that is another one.
    pub fn change_secret(&mut self, now: Moment, key: JobKey, reference: CredentialRef) -> bool {
        let secret = self.secrets.key_of(reference);
        let Some(job) = self.jobs.get_mut(key).filter(|job| job.secret != secret) else {
            return false;
        };
        self.secrets.join(secret);
        let project = self.quotas.project(job.group).clone();
        let owner = (secret, &**self.secrets.reference(secret));
        let group = self.quotas.join(&self.config, now.at, owner, &project);
        let (waiting, id) = (job.waiting(key), job.id.clone());
        let old_secret = std::mem::replace(&mut job.secret, secret);
        let old_group = std::mem::replace(&mut job.group, group);
        let was_new = std::mem::take(&mut job.polling.counts_as_new);
        let counted = std::mem::take(&mut job.polling.counted);
        if let Some(waiting) = waiting {
            // A decision queues it anew, in the new group.
            job.polling.stage = PollStage::Off;
            self.quotas.remove(&waiting, &id);
        }
        self.quotas.change_interval(now.at, old_group, counted, 0);
        self.quotas.leave(now.at, old_group, was_new);
        self.secrets.leave(old_secret);
        true
    }

    /// Drops an object. What is in flight for it is dropped when it comes back.
    pub fn forget(&mut self, now: Moment, key: JobKey) {
        if let Some(job) = self.jobs.remove(key) {
            if let Some(waiting) = job.waiting(key) {
                self.quotas.remove(&waiting, &job.id);
            }
            if !self.jobs.has_namespace(&job.key.namespace) {
                self.adaptive.forget(&job.key.namespace);
            }
            let polling = &job.polling;
            self.quotas
                .change_interval(now.at, job.group, polling.counted, 0);
            self.quotas.leave(now.at, job.group, polling.counts_as_new);
            self.totals.recount(job.tally.as_ref(), None);
            self.secrets.recount(key, job.tally.as_ref(), None);
            self.secrets.leave(job.secret);
            self.timers.replace(key, job.timer, None);
            if let Some(host) = job.polling.failed_at {
                self.hosts.leave(host, key);
            }
            let jobs = &self.jobs;
            self.writes
                .shrink(jobs.len(), |job, priority| waits(jobs, job, priority));
        }
    }

    /// Learns from a job how long those of its type last: from its end, or as it was `running` at this second. No time
    /// counts twice, and none before a job that runs was found: those that ended meanwhile may be gone, so that long ones
    /// would seem to be more than they are. For the same reason such a job is counted when it ends.
    #[allow(clippy::cast_possible_truncation, reason = "statistics")]
    pub fn learn(&mut self, key: JobKey, running: Option<i64>) {
        let Some(job) = self.jobs.get_mut(key) else {
            return;
        };
        let (facts, ended) = (&job.evidence.facts, job.evidence.has_ended());
        let until = if ended { facts.completion } else { running };
        let (Some(start), Some(until)) = (facts.start, until) else {
            return;
        };
        let age = in_seconds(&self.config, until.saturating_sub(start));
        let followed = job.polling.followed;
        let from = f64::from(followed.abs());
        if self.config.poll_mode == PollMode::Fixed || from.is_infinite() || from >= age && !ended {
            return;
        }
        if followed == 0.0 && !ended && age > adaptive::EARLY {
            job.polling.followed = -(age as f32);
            return;
        }
        let is_first = if followed < 0.0 {
            ended
        } else {
            followed == 0.0
        };
        job.polling.followed = if ended {
            f32::INFINITY
        } else {
            (age as f32).copysign(followed)
        };
        let (namespace, job_type) = (&job.key.namespace, facts.job_type.as_ref());
        let ages = (from, age);
        self.adaptive
            .learn(namespace, job_type, ages, is_first, ended);
    }

    /// Sets how long a job waits for its next poll. `is_polled`: it has just been polled.
    pub fn set_interval(&mut self, now: Moment, key: JobKey, is_polled: bool) {
        let config = &self.config;
        let Some(job) = self.jobs.get_mut(key).filter(|job| job.is_adaptive(config)) else {
            return;
        };
        let (namespace, job_type) = (&job.key.namespace, &job.evidence.facts.job_type);
        let interval = self.adaptive.interval(
            config,
            now.at,
            namespace,
            (job_type.as_deref(), job.age(config, now)),
            self.quotas.scarcity(config, now.at, job.group),
        );
        job.set_interval(config, now.at, interval, is_polled);
    }

    /// The same for all of one source that are followed: some objects have shown how long jobs last.
    pub fn set_intervals(&mut self, now: Moment, of: Source) {
        if self.config.poll_mode == PollMode::Adaptive {
            for key in self.jobs.keys(Some(of)) {
                if self.jobs.get_mut(key).is_some_and(|job| job.is_active()) {
                    self.set_interval(now, key, false);
                    self.dirty.push(key);
                }
                self.close(now, key);
            }
        }
    }

    /// Counts an object that is open as it is now, and closes it.
    pub fn close(&mut self, now: Moment, key: JobKey) {
        let Some(job) = self.jobs.get_opened(key) else {
            return;
        };
        let secret = self.secrets.state(job.secret);
        let after = Some(Tally::of(&self.config, now.at, job, secret));
        if job.tally != after {
            let before = std::mem::replace(&mut job.tally, after);
            let after = job.tally.as_ref();
            self.totals.recount(before.as_ref(), after);
            self.secrets.recount(key, before.as_ref(), after);
        }
        self.jobs.close(key);
    }

    /// Queues a change of an object, whose stage is set by the caller.
    pub fn queue_change(&mut self, key: JobKey, priority: Priority) {
        let Some(job) = self.jobs.get(key) else {
            return;
        };
        self.writes.push(&job.key.namespace, key, priority);
        let jobs = &self.jobs;
        self.writes
            .shrink(jobs.len(), |job, priority| waits(jobs, job, priority));
    }

    /// The next object whose change may be sent now.
    pub fn next_change(&mut self, now: Moment) -> Option<JobKey> {
        let jobs = &self.jobs;
        self.writes.next(&self.config, now.at, |job, priority| {
            waits(jobs, job, priority)
        })
    }

    /// What is left in the collections, timers and queues of others included: names and sizes.
    #[cfg(test)]
    pub fn leftovers(&self) -> Vec<(&'static str, usize)> {
        let mut sizes = vec![
            ("timers", self.timers.len()),
            ("totals", self.totals.len()),
            ("queued changes", self.writes.len()),
            ("namespaces in trouble", self.writes.troubled()),
            ("namespaces that were learned from", self.adaptive.len()),
            ("dirty objects", self.dirty.len()),
            ("waiting objects", self.waiting.len()),
            ("polls for several objects", self.alike.len()),
            ("effects", self.output.effects.len()),
            ("events", self.output.events.len()),
            ("transitions", self.output.transitions.len()),
        ];
        sizes.extend(self.jobs.sizes());
        sizes.extend(self.secrets.sizes());
        sizes.extend(self.quotas.sizes());
        sizes.extend(self.hosts.sizes());
        sizes.retain(|(_, size)| *size > 0);
        sizes
    }

    /// Sets the timer of an object, unless one fires before it anyway.
    pub fn set_timer(&mut self, now: Moment, key: JobKey, at: Option<Duration>) {
        let Some(job) = self.jobs.get_mut(key) else {
            return;
        };
        // Without the one that has fired.
        job.timer.take_if(|set| *set <= now.at);
        if at.is_some_and(|at| job.timer.is_none_or(|set| at < set)) {
            self.timers.replace(key, job.timer, at);
            job.timer = at;
        }
    }

    /// Reports that the acknowledged phase is another than `before`, plain progress aside; with an Event where
    /// its reason is another as well. Only the leader reports.
    pub fn publish_phase(&mut self, key: JobKey, before: Option<Phase>) {
        let Some(job) = self.jobs.get(key).filter(|_| self.leading) else {
            return;
        };
        let Some(shown) = job.sync.acknowledged() else {
            return;
        };
        let (row, row_before) = (shown.phase.row(), before.map(Phase::row));
        let was_trouble = row_before.is_some_and(|row| row.event == EventKind::Warning);
        if before == Some(shown.phase) || row.event == EventKind::Progress && !was_trouble {
            return;
        }
        let note = shown.message(job.id.as_str());
        self.output.transitions.push(Transition {
            key: job.key.clone(),
            before,
            after: shown.phase,
            message: note.clone(),
            took: shown.facts.duration(),
        });
        if row_before.is_none_or(|before| before.reason != row.reason) {
            self.publish(key, row.reason, row.event == EventKind::Warning, note);
        }
    }

    /// Publishes an Event about an object. Only the leader publishes.
    pub fn publish(&mut self, key: JobKey, reason: &'static str, warning: bool, note: String) {
        if let Some(job) = self.jobs.get(key).filter(|_| self.leading) {
            self.output.events.push(ObjectEvent {
                key: job.key.clone(),
                uid: job.uid.text(),
                reason,
                warning,
                note,
            });
        }
    }
}

/// The phase that the API server has.
pub fn acknowledged_phase(job: &Job) -> Option<Phase> {
    job.sync.acknowledged().map(|shown| shown.phase)
}

/// Whether the change of this priority that is queued for an object is still to be sent.
fn waits(jobs: &Registry, key: JobKey, priority: Priority) -> bool {
    jobs.get_unpacked(key)
        .is_some_and(|job| match job.sync.stage {
            ChangeStage::Queued(queued) => queued == priority,
            ChangeStage::Unconfirmed { is_queued, .. } => {
                is_queued && priority == Priority::Confirm
            }
            _ => false,
        })
}
