//! All that is held of one object: what it asks for, what is known of its job, what the API server has.

use crate::{
    cadence,
    compact::Compact,
    config::{Config, PollMode},
    deadline::Limits,
    effects::ObjectKey,
    evidence::{Evidence, Next},
    facts::Wait,
    keys::{GroupKey, HostKey, JobKey, SecretKey},
    phase::{Detail, Pace, Phase},
    quota::Waiting,
    status::Snapshot,
    sync::{StatusChange, Sync},
    time::{Due, Moment},
    totals::Tally,
};
use image_export_api::{ImageExportJob, ImageExportJobStatus};
use image_export_model::{ConfigurationReason, JobId, Outcome, PriorAcceptance};
use std::{num::NonZeroU32, sync::Arc, time::Duration};

/// Where an object is on its way to the next poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollStage {
    /// No poll is wanted.
    Off,
    /// Due at this time.
    Scheduled(Duration),
    /// Due, but its Secret is not usable.
    AwaitingSecret,
    /// Due, and waiting for its quota.
    Queued(Due),
    /// Sent, with this sequence.
    InFlight(u64),
}

/// When the next poll is due, unless something wants one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// At this time.
    At(Duration),
    /// After a failure, at the end of the backoff.
    Retry {
        /// When that is.
        at: Duration,
        /// Not before this time, even if the backoff ends early.
        earliest: Duration,
    },
    /// At the pace of the phase, not before this time.
    Paced(Duration),
}

/// What the schedule remembers of one object. Draws are stored when drawn.
#[derive(Debug)]
pub struct Polling {
    /// Where the next poll is.
    pub stage: PollStage,
    /// Since when the leader has a poll wait for its quota, or because the cloud asks for it.
    pub waits_since: Option<Duration>,
    /// Something happened after which a poll is due at once: it was requested, the object was resumed, its
    /// Secret was fixed, an answer was dropped, a deadline passed. Cleared when a poll is sent, so that one
    /// that is wanted during a poll follows it. The schedule decides in which phases it counts.
    pub wanted: Option<Due>,
    /// A poll that is wanted is not sent before: some time after the latest one, or when what defers it may
    /// have ended.
    pub earliest: Duration,
    /// When the next poll is due, unless one is wanted before.
    pub plan: Plan,
    /// The interval of the adaptive mode, in seconds of the operator's time.
    pub interval: Option<NonZeroU32>,
    /// The interval with which it counts in its quota group, likewise; 0: it does not.
    pub counted: u32,
    /// The age in seconds until which lifetimes have learned of its job; negative where that was not followed from its
    /// beginning, infinite once it has ended.
    pub followed: f32,
    /// The host at which the latest poll failed, if it did.
    pub failed_at: Option<HostKey>,
    /// Whether it counts among the first polls pending in its quota group.
    pub counts_as_new: bool,
    /// The next attempt to get an image id.
    pub image_id_at: Duration,
}

/// What is held of one object.
#[derive(Debug)]
pub struct Job {
    /// Where the object is.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: Compact,
    /// Seed of the poll instants and of jitter, a hash of the uid.
    pub seed: u64,

    /// `metadata.generation`
    pub generation: i64,
    /// `spec.jobID`
    pub id: JobId,
    /// `spec.pollPeriodSeconds`
    pub period_seconds: Option<u32>,
    /// `spec.suspend`
    pub suspended: bool,
    /// Somebody has deleted the object; only finalizers keep it.
    pub is_being_deleted: bool,
    /// `spec.deadlineSeconds` and `spec.ttlSecondsAfterFinished`
    pub limits: Limits,
    /// The Secret that the spec names.
    pub secret: SecretKey,
    /// Whose quota its polls are charged to.
    pub group: GroupKey,

    /// What its polls have shown.
    pub evidence: Evidence,
    /// When the cloud last reported the job here, or since when it is polled here.
    pub answered_at: Duration,
    /// When the object says that it waits for its first answer.
    pub pending_at: Option<Duration>,
    /// What the schedule remembers.
    pub polling: Polling,
    /// What the API server has, and what is being changed.
    pub sync: Sync,
    /// The latest accepted value of the poll-request annotation.
    pub handled_request: Option<Arc<str>>,
    /// A value that is too long was reported.
    pub reported_request: bool,
    /// The timer that is set for it.
    pub timer: Option<Duration>,
    /// What it counts in; `None`: it is not counted yet.
    pub tally: Option<Tally>,
}

impl Job {
    /// The phase that holds now. `Pending` where a phase ended and nothing else holds.
    #[must_use]
    pub fn phase(&self) -> Option<Phase> {
        let was_shown = self.sync.acknowledged().is_some() || self.handled_request.is_some();
        self.evidence
            .phase(self.suspended)
            .or(was_shown.then_some(Phase::Pending))
    }

    /// Whether the job is to be followed: neither finished nor suspended, and its object not deleted.
    #[must_use]
    pub fn is_active(&self) -> bool {
        let is_over = |phase: Phase| phase.is_finished() || phase == Phase::Suspended;
        !self.is_being_deleted && !self.phase().is_some_and(is_over)
    }

    /// What the status shows of the credential, while the job is followed: that outlives the process.
    #[must_use]
    pub fn prior_acceptance(&self) -> PriorAcceptance {
        let Some(shown) = self.sync.acknowledged().filter(|_| self.is_active()) else {
            return PriorAcceptance::Unknown;
        };
        match shown.phase.row().detail {
            Detail::Configuration(ConfigurationReason::CredentialsInvalid) => {
                PriorAcceptance::Rejected
            }
            Detail::Configuration(ConfigurationReason::CredentialsNotFound) => {
                PriorAcceptance::Unknown
            }
            _ if shown.facts.job_status.is_some() => PriorAcceptance::Accepted,
            _ => PriorAcceptance::Unknown,
        }
    }

    /// Whether a poll by hand makes sense: `ImageIDMissing` is finished, but may still get its image id.
    #[must_use]
    pub fn accepts_request(&self) -> bool {
        let is_missing = self.phase() == Some(Phase::ImageIdMissing);
        self.is_active() || is_missing && !self.is_being_deleted
    }

    /// The status that the API server should have in this phase.
    #[must_use]
    pub fn snapshot(&self, phase: Phase, wall: i64) -> Snapshot {
        let (evidence, acknowledged) = (&self.evidence, self.sync.acknowledged().map(|a| &**a));
        let cause = evidence.cause(phase);
        Snapshot {
            phase,
            text: Snapshot::next_text(phase, cause, &evidence.facts, acknowledged),
            facts: evidence.facts.clone(),
            generation: self.generation,
            poll_request: self.handled_request.clone(),
            since: Snapshot::next_since(phase, wall, acknowledged),
        }
    }

    /// Believes a status that this process did not write: the evidence begins with what it shows.
    pub fn adopt(&mut self, config: &Config, now: Moment, status: Option<&ImageExportJobStatus>) {
        let snapshot = self.sync.adopt(status, self.id.as_str());
        let request = status.and_then(|status| status.last_handled_poll_request.as_deref());
        if request == self.handled_request.as_deref() {
            // The writer of the status has handled it.
            self.polling.wanted.take_if(|due| *due == Due::Requested);
        }
        self.handled_request = request.map(Arc::from);
        self.evidence =
            snapshot.map_or_else(Evidence::default, |s| Evidence::of(s.phase, &s.facts));
        self.polling.image_id_at = now.at + config.image_id_period;
    }

    /// Applies the status of a newer version. Returns how it was taken.
    pub fn apply_status(
        &mut self,
        config: &Config,
        at: Duration,
        status: Option<&ImageExportJobStatus>,
    ) -> StatusChange {
        self.sync.apply_status(config, at, status, self.id.as_str())
    }

    /// Applies those limits of a spec that are numbers alone.
    pub fn apply_limits(&mut self, config: &Config, object: &ImageExportJob) {
        let spec = &object.spec;
        let count = |seconds: Option<i32>| u32::try_from(seconds?).ok();
        let length = |seconds| Some(config.second * count(seconds)?);
        self.period_seconds = count(spec.poll_period_seconds).filter(|seconds| *seconds > 0);
        self.limits.deadline = length(spec.deadline_seconds);
        self.limits.ttl = length(spec.ttl_seconds_after_finished);
    }

    /// Applies what the passing of time alone shows: that there is no answer yet, that the deadline has
    /// passed, that the end is shown.
    pub fn apply_time(&mut self, config: &Config, now: Moment, leading: bool) {
        if self.pending_at.take_if(|at| *at <= now.at).is_some() && self.phase().is_none() {
            self.evidence.pending = true;
        }
        let start = self.evidence.facts.start;
        let is_late = self.limits.is_late(start, now.at);
        let was_late = std::mem::replace(&mut self.limits.was_late, is_late);
        // An outcome shows sooner than patience runs out whether the job ended unseen.
        if is_late
            && !was_late
            && self.limits.unobserved_since.is_some()
            && !self.evidence.has_ended()
        {
            self.want_poll(Due::Since(now.at));
        }
        let shown_at = self.limits.shown_late_at(start, config.slow_period);
        // Without leadership nothing is observed: the leader decides. Nor is a deleted object polled.
        let is_observed = leading && !self.is_being_deleted;
        if is_observed && shown_at.is_some_and(|at| at <= now.at) {
            self.evidence.deadline_exceeded = true;
        }
        let shown = self.sync.acknowledged();
        let end = shown.filter(|shown| shown.phase.is_finished());
        let end = end.map(|shown| (shown.facts.completion, shown.since.succeeded));
        self.limits.apply_shown_end(now, end);
    }

    /// Whether the deadline has passed.
    #[must_use]
    pub fn is_late(&self, at: Duration) -> bool {
        self.limits.is_late(self.evidence.facts.start, at)
    }

    /// When the object is to be deleted.
    #[must_use]
    pub fn expires_at(&self) -> Option<Duration> {
        self.limits.expires_at().filter(|_| !self.is_being_deleted)
    }

    /// Applies that nobody here observed the job until now.
    pub fn apply_gap(&mut self, now: Moment) {
        self.answered_at = now.at;
        self.polling.waits_since = None;
        self.limits.unobserved_since = Some(now.at);
        self.evidence.apply_gap();
    }

    /// Applies that the whole process has slept, and so has what is in flight.
    pub fn apply_sleep(&mut self, now: Moment) {
        self.polling.waits_since = None;
        self.evidence.apply_gap();
        if self.limits.unobserved_since.is_none() {
            self.limits.unobserved_since = Some(now.at);
            let is_in_flight = matches!(self.polling.stage, PollStage::InFlight(_));
            if is_in_flight && self.limits.deadline.is_some() {
                self.want_poll(Due::Since(now.at));
            }
        }
    }

    /// When its poll is overdue, if it waits.
    #[must_use]
    pub fn overdue_at(&self, config: &Config) -> Option<Duration> {
        let patience = self.own_period(config).max(config.slow_period);
        Some(self.polling.waits_since? + patience)
    }

    /// Whether a failure came with a `Retry-After` that is not over.
    #[must_use]
    pub fn is_asked_to_wait(&self, at: Duration) -> bool {
        matches!(self.polling.plan, Plan::Retry { earliest, .. } if at < earliest)
    }

    /// Whether its poll is overdue, and is not in flight.
    #[must_use]
    pub fn is_overdue(&self, config: &Config, at: Duration) -> bool {
        let is_in_flight = matches!(self.polling.stage, PollStage::InFlight(_));
        !is_in_flight
            && self.is_active()
            && self.overdue_at(config).is_some_and(|overdue| overdue <= at)
    }

    /// Applies what the poll waits for: to an object that begins to say that it waits for its first answer
    /// (`is_new`), and to one whose poll is overdue.
    pub fn apply_wait(&mut self, config: &Config, at: Duration, is_new: bool, wait: Wait) {
        if is_new {
            self.evidence.apply_wait(wait);
        }
        if self.is_overdue(config, at) {
            self.evidence.apply_overdue(wait);
            // It stays due, whatever the pace of the phase.
            if let PollStage::Queued(due) = self.polling.stage {
                self.want_poll(due);
            }
        }
    }

    /// Ends the backoff after a failure: the next poll is at the usual instant, so that the objects of a host
    /// spread, unless it comes before anyway.
    pub fn end_backoff(&mut self, config: &Config, now: Moment) {
        self.polling.failed_at = None;
        let (gap, period) = (self.least_gap(config), self.own_period(config));
        if let Plan::Retry { at, earliest } = &mut self.polling.plan {
            let earliest = (now.at + gap).max(*earliest);
            let usual = cadence::next_instant(self.seed, period, config.second, earliest);
            *at = usual.min(*at);
        }
    }

    /// A poll is sent, also for this object.
    pub fn begin_poll(&mut self, config: &Config, at: Duration, sequence: u64) {
        let gap = self.least_gap(config);
        let polling = &mut self.polling;
        polling.stage = PollStage::InFlight(sequence);
        polling.wanted = None;
        polling.earliest = at + gap;
        // Also where its answer is dropped.
        polling.image_id_at = at + config.image_id_period;
    }

    /// The poll asked for no answer yet: another one must end first. It stays due.
    pub fn defer_poll(&mut self, config: &Config, at: Duration, after: Duration) {
        let after = after.clamp(config.min_poll_gap / 10, config.pause_max);
        self.polling.earliest = at + after;
        self.polling.image_id_at = at + after;
        self.want_poll(self.due_again(at));
        if self.evidence.pending {
            self.evidence.apply_wait(Wait::Login);
        }
    }

    /// When a poll that brought no answer is due again: of a finished job, only where somebody requests it.
    #[must_use]
    pub fn due_again(&self, at: Duration) -> Due {
        if self.is_active() {
            Due::Since(at)
        } else {
            Due::Requested
        }
    }

    /// Whether a poll is wanted that must not be sent yet.
    #[must_use]
    pub fn is_deferred(&self, at: Duration) -> bool {
        self.polling.wanted.is_some() && at < self.polling.earliest
    }

    /// Wants a poll at once.
    pub fn want_poll(&mut self, due: Due) {
        let wanted = self.polling.wanted.map_or(due, |wanted| wanted.min(due));
        self.polling.wanted = Some(wanted);
    }

    /// Applies the outcome of a poll. Returns whether the answer contradicts an earlier one.
    pub fn apply_outcome(
        &mut self,
        config: &Config,
        now: Moment,
        outcome: &Outcome,
        retry_after: Option<Duration>,
    ) -> bool {
        // An outcome from before something made the job unobserved shows nothing of the time since.
        let is_stale = self.polling.wanted.is_some();
        if !matches!(outcome, Outcome::Throttled | Outcome::Deferred(_)) {
            self.polling.waits_since = None;
        }
        let due_again = self.due_again(now.at);
        let (next, contradicts) = self.apply_evidence(config, now, outcome, is_stale);
        let earliest = now.at + self.least_gap(config);
        let polling = &mut self.polling;
        polling.plan = Plan::Paced(earliest);
        match next {
            Next::Pace => {}
            // The bucket's pause holds it; afterwards it is among the first.
            Next::AfterPause => {
                polling.wanted.get_or_insert(due_again);
            }
            Next::Backoff(failures) => {
                let asked = retry_after.unwrap_or_default().min(config.pause_max);
                let backoff = cadence::backoff(config, self.seed, failures);
                polling.waits_since = (asked >= backoff).then_some(now.at);
                polling.plan = Plan::Retry {
                    at: now.at + backoff.max(asked),
                    earliest: now.at + asked,
                };
            }
        }
        if self.sync.is_untrusted()
            && next == Next::Pace
            && !self.evidence.not_found_yet
            && self.evidence.configuration_error.is_none()
        {
            self.sync.end_distrust();
        }
        // The cloud has forgotten the job: what the status shows is all that is left of its end.
        if self.evidence.not_found
            && let Some(evidence) = self.sync.untrusted_end()
        {
            self.evidence = evidence;
            self.sync.end_distrust();
        }
        contradicts
    }

    /// Applies an outcome that came about without a poll: the schedule stays.
    pub fn apply_unpolled(&mut self, config: &Config, now: Moment, outcome: &Outcome) {
        self.apply_evidence(config, now, outcome, false);
    }

    fn apply_evidence(
        &mut self,
        config: &Config,
        now: Moment,
        outcome: &Outcome,
        is_stale: bool,
    ) -> (Next, bool) {
        let applied = self.evidence.apply(config, now, outcome);
        self.polling.image_id_at = now.at + config.image_id_period;
        if matches!(outcome, Outcome::Answered(_)) {
            self.answered_at = now.at;
        }
        // One failure alone does not show how the job is, nor that nobody can know.
        let shows = match outcome {
            Outcome::Answered(_) | Outcome::JobNotFound | Outcome::Misconfigured(_) => true,
            Outcome::Failed(_) => self.evidence.poll_failed.is_some(),
            Outcome::Throttled | Outcome::Deferred(_) => false,
        };
        if shows && !is_stale {
            self.limits.unobserved_since = None;
        }
        applied
    }

    /// Its place in the queue of its quota, while it waits there.
    #[must_use]
    pub fn waiting(&self, key: JobKey) -> Option<Waiting> {
        let PollStage::Queued(due) = self.polling.stage else {
            return None;
        };
        Some(Waiting {
            due,
            job: key,
            group: self.group,
        })
    }

    /// The period of the object's own.
    #[must_use]
    pub fn own_period(&self, config: &Config) -> Duration {
        let seconds = self.period_seconds;
        seconds.map_or(config.poll_period, |seconds| config.second * seconds)
    }

    /// The time between two polls while the job is healthy.
    #[must_use]
    pub fn interval(&self, config: &Config) -> Duration {
        match self.polling.interval.filter(|_| self.is_adaptive(config)) {
            Some(seconds) => config.second * seconds.get(),
            None => self.own_period(config),
        }
    }

    /// The same in seconds of the operator's time, as its quota group counts it; 0 in the fixed mode, in which nobody
    /// asks for that.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates"
    )]
    pub fn demanded_interval(&self, config: &Config) -> u32 {
        if config.poll_mode == PollMode::Fixed {
            return 0;
        }
        let seconds = self.interval(config).div_duration_f64(config.second);
        (seconds.round() as u32).max(1)
    }

    /// Whether that depends on its type and age.
    #[must_use]
    pub fn is_adaptive(&self, config: &Config) -> bool {
        config.poll_mode == PollMode::Adaptive && self.period_seconds.is_none()
    }

    /// Sets the interval. `is_polled`: the job has just been polled, and so it is polled next about an interval later.
    pub fn set_interval(&mut self, config: &Config, at: Duration, seconds: u32, is_polled: bool) {
        self.polling.interval = NonZeroU32::new(seconds);
        let is_own = self
            .phase()
            .is_none_or(|phase| phase.row().pace == Pace::Own);
        if is_polled && is_own && matches!(self.polling.plan, Plan::Paced(_)) {
            let interval = self.interval(config);
            self.polling.plan = if self.polling.counts_as_new {
                // Objects that are created together part at once.
                Plan::Paced(at + interval / 2)
            } else {
                let next = cadence::next_after(self.seed, interval, config.second, at);
                Plan::At(next)
            };
        }
    }

    /// The age of its job in seconds of the operator's time: from its begin, or from the creation of the object while
    /// that is not known.
    #[must_use]
    pub fn age(&self, config: &Config, now: Moment) -> f64 {
        let start = self.evidence.facts.start;
        let age = now
            .wall
            .saturating_sub(start.unwrap_or(self.limits.created()));
        in_seconds(config, age)
    }

    /// Shortest time between two polls at the pace of the phase.
    #[must_use]
    pub fn least_gap(&self, config: &Config) -> Duration {
        // Half of a short period, or it would skip every other instant.
        config.min_poll_gap.min(self.own_period(config) / 2)
    }
}

/// Seconds as of the operator's time.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "ages")]
pub fn in_seconds(config: &Config, seconds: i64) -> f64 {
    seconds.max(0) as f64 / config.second.as_secs_f64()
}
