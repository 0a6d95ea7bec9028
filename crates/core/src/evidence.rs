//! What the polls of one job have shown: the evidence from which [`Evidence::phase`] picks the phase.
//!
//! A grace period applies to *entering* a phase only; whatever ends a phase is written beside what
//! starts it.

use crate::{
    config::Config,
    facts::{Cause, Facts, Wait},
    pack::pack_struct,
    phase::{Detail, Phase},
    time::Moment,
};
use image_export_model::{
    ConfigurationError, ConfigurationReason, Failure, JobAnswer, JobState, Outcome, Stage,
};
use jiff::Timestamp;
use std::{sync::Arc, time::Duration};

/// 2010-01-01T00:00:00Z: no job of these clouds is older.
const EARLIEST_SANE: i64 = 1_262_304_000;
/// How far the cloud's clock may be ahead of ours, in seconds.
const CLOCK_TOLERANCE: i64 = 5 * 60;
/// Longest detail that a message carries, in bytes; leaves room for the sentence around it.
const DETAIL_MAX_BYTES: usize = 640;

/// Consecutive polls with one kind of outcome. Starts anew with the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Run {
    polls: u32,
    since: Duration,
}

pack_struct!(Run { polls, since });

impl Run {
    /// Counts one more. Returns whether the run now has `polls` polls and is `grace` old.
    fn extend(&mut self, at: Duration, polls: u32, grace: Duration) -> bool {
        if self.polls == 0 {
            self.since = at;
        }
        self.polls = self.polls.saturating_add(1);
        self.polls >= polls && at.saturating_sub(self.since) >= grace
    }
}

/// Evidence about one job.
#[derive(Clone, Debug, Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent findings: all combinations occur"
)]
pub struct Evidence {
    /// What is known about the job itself.
    pub facts: Arc<Facts>,
    /// `ImageIDMissing`: all attempts to get the image id are used up.
    pub image_id_given_up: bool,
    /// `DeadlineExceeded`: the deadline has passed. Ends with another spec.
    pub deadline_exceeded: bool,
    /// `JobNotFound` for good. Ends with a 200 or other credentials.
    pub not_found: bool,
    /// `JobNotFound`: the latest answer on whether the job exists was a 404. Ends with a 200.
    pub not_found_yet: bool,
    /// The configuration error that blocks polls. Ends as soon as it is disproved.
    pub configuration_error: Option<(ConfigurationReason, Cause)>,
    /// `PollFailed`. Ends with any classified reply.
    pub poll_failed: Option<Cause>,
    /// `PollOverdue`: why the poll waits, as of when it became overdue. Ends with any classified reply.
    pub poll_overdue: Option<Cause>,
    /// Why there is no answer: the first failure since the latest classified reply, else what the poll waits
    /// for. `Pending` names it.
    pub delay: Option<Cause>,
    /// `DeadlineExceeded` was adopted with whatever cause it names. Ends with any classified reply.
    stored_obstacle: bool,
    /// `Pending`: the grace period without any answer is over.
    pub pending: bool,
    /// The job was reported as running: it does not go back to `INIT`.
    has_run: bool,

    not_found_run: Run,
    failure_run: Run,
    /// Consecutive failures, for the backoff.
    failures: u32,
    /// Attempts since SUCCESS was reported without an image id.
    image_id_attempts: u8,
    /// When `progressPercent` last moved in this process.
    progress_moved: Option<Duration>,
    /// When the job ended: `end_time`, else when SUCCESS was first reported.
    ended: Option<i64>,
}

pack_struct!(Evidence {
    facts,
    image_id_given_up,
    deadline_exceeded,
    not_found,
    not_found_yet,
    configuration_error,
    poll_failed,
    poll_overdue,
    delay,
    stored_obstacle,
    pending,
    has_run,
    not_found_run,
    failure_run,
    failures,
    image_id_attempts,
    progress_moved,
    ended,
});

/// What an outcome means for the next poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At the pace of the phase.
    Pace,
    /// After the backoff for this many consecutive failures.
    Backoff(u32),
    /// As soon as the quota bucket's pause is over.
    AfterPause,
}

impl Evidence {
    /// The evidence that a written status amounts to.
    #[must_use]
    pub fn of(phase: Phase, facts: &Arc<Facts>) -> Self {
        let mut evidence = Self {
            facts: facts.clone(),
            ..Self::default()
        };
        match phase.row().detail {
            Detail::None => {}
            Detail::Configuration(reason) => {
                evidence.configuration_error = Some((reason, Cause::Stored));
            }
            Detail::Failure => evidence.poll_failed = Some(Cause::Stored),
            Detail::Wait => evidence.poll_overdue = Some(Cause::Stored),
            Detail::Delay => evidence.delay = Some(Cause::Stored),
            Detail::Obstacle => evidence.stored_obstacle = true,
        }
        evidence.pending = phase == Phase::Pending;
        evidence.has_run = facts.job_status == Some(JobState::Running);
        evidence.deadline_exceeded = phase == Phase::DeadlineExceeded;
        evidence.not_found = phase == Phase::JobNotFound;
        evidence.not_found_yet = phase == Phase::JobNotFoundYet;
        evidence.image_id_given_up = phase == Phase::ImageIdMissing;
        // The answer that began the wait was not one of the further attempts.
        evidence.image_id_attempts = u8::from(phase == Phase::ImageIdPending);
        evidence
    }

    /// The phase that holds: where several do, the first of this function. `None`: nothing to show yet.
    #[must_use]
    pub fn phase(&self, suspended: bool) -> Option<Phase> {
        match self.facts.job_status {
            Some(JobState::Success) if self.facts.is_complete() => {
                return Some(Phase::JobSucceeded);
            }
            Some(JobState::Success) if self.image_id_given_up => {
                return Some(Phase::ImageIdMissing);
            }
            Some(JobState::Success) => return Some(Phase::ImageIdPending),
            Some(JobState::Fail) => return Some(Phase::JobFailed),
            None | Some(JobState::Init | JobState::Running | JobState::Unrecognized(_)) => {}
        }
        if suspended {
            return Some(Phase::Suspended);
        }
        if self.deadline_exceeded {
            return Some(Phase::DeadlineExceeded);
        }
        if self.not_found {
            return Some(Phase::JobNotFound);
        }
        if let Some((reason, _)) = self.configuration_error {
            return Some(reason.into());
        }
        if self.poll_failed.is_some() {
            return Some(Phase::PollFailed);
        }
        if self.poll_overdue.is_some() {
            return Some(Phase::PollOverdue);
        }
        match self.facts.job_status {
            Some(JobState::Unrecognized(_)) => Some(Phase::JobStatusUnrecognized),
            _ if self.not_found_yet => Some(Phase::JobNotFoundYet),
            Some(JobState::Init) => Some(Phase::JobInitializing),
            Some(JobState::Running) => Some(Phase::JobRunning),
            None | Some(JobState::Success | JobState::Fail) => {
                self.pending.then_some(Phase::Pending)
            }
        }
    }

    /// Whether the cloud has reported the end of the job.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(
            self.facts.job_status,
            Some(JobState::Success | JobState::Fail)
        )
    }

    /// The cause that the message of `phase` names, if it names one.
    #[must_use]
    pub fn cause(&self, phase: Phase) -> Option<Cause> {
        match phase.row().detail {
            Detail::None => None,
            Detail::Configuration(_) => {
                let (_, cause) = self.configuration_error.as_ref()?;
                Some(cause.clone())
            }
            Detail::Failure => self.poll_failed.clone(),
            Detail::Wait => self.poll_overdue.clone(),
            Detail::Delay => self.delay.clone(),
            Detail::Obstacle => self.obstacle(),
        }
    }

    /// What keeps the operator from seeing the end of the job.
    fn obstacle(&self) -> Option<Cause> {
        let configuration = self.configuration_error.as_ref().map(|(_, cause)| cause);
        let failure = self.poll_failed.as_ref().or(self.poll_overdue.as_ref());
        if let Some(cause) = configuration.or(failure) {
            return Some(cause.clone());
        }
        if self.not_found || self.not_found_yet {
            return Some(Cause::Observed("the cloud finds no such job".into()));
        }
        self.stored_obstacle.then_some(Cause::Stored)
    }

    /// Whether this configuration error is what is shown already.
    #[must_use]
    pub fn shows(&self, error: &ConfigurationError) -> bool {
        matches!(&self.configuration_error, Some((reason, Cause::Observed(message)))
            if *reason == error.reason && *message == bounded(&error.message))
    }

    /// Whether the cloud will not report the job before somebody acts: the configuration is wrong, or the
    /// cloud does not know the job.
    #[must_use]
    pub fn needs_action(&self) -> bool {
        self.configuration_error.is_some() || self.not_found || self.not_found_yet
    }

    /// Whether the latest attempt failed.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Applies the choice of other credentials: what the old ones met says nothing any more.
    pub fn apply_other_credentials(&mut self) {
        self.stored_obstacle = false;
        self.delay = None;
        self.configuration_error = None;
        self.not_found = false;
        self.not_found_yet = false;
        self.not_found_run = Run::default();
    }

    /// Applies that the Secret reads well: whatever was wrong with it is disproved.
    pub fn apply_readable_secret(&mut self) {
        self.configuration_error
            .take_if(|(reason, _)| reason.is_in_secret());
    }

    /// Applies that the job was not polled for a while: what was consecutive begins anew.
    pub fn apply_gap(&mut self) {
        self.not_found_run = Run::default();
        self.failure_run = Run::default();
    }

    /// Applies what the poll of a job waits for.
    pub fn apply_wait(&mut self, wait: Wait) {
        self.delay.get_or_insert_with(|| wait.into());
    }

    /// Applies that the poll of the job is overdue.
    pub fn apply_overdue(&mut self, wait: Wait) {
        self.poll_overdue.get_or_insert_with(|| wait.into());
    }

    /// Applies one outcome. Returns when to poll next, and whether the answer contradicts an earlier one.
    pub fn apply(&mut self, config: &Config, now: Moment, outcome: &Outcome) -> (Next, bool) {
        let mut contradicts = false;
        let next = match outcome {
            Outcome::Answered(answer) => {
                contradicts = self.apply_answer(config, now, answer);
                self.not_found = false;
                self.not_found_yet = false;
                self.not_found_run = Run::default();
                self.configuration_error = None;
                self.end_failures();
                Next::Pace
            }
            Outcome::JobNotFound => {
                self.not_found_yet = true;
                self.not_found |= self.not_found_run.extend(
                    now.at,
                    config.not_found_polls,
                    config.not_found_grace,
                );
                self.configuration_error = None;
                self.end_failures();
                Next::Pace
            }
            Outcome::Misconfigured(ConfigurationError { reason, message }) => {
                self.configuration_error = Some((*reason, Cause::Observed(bounded(message))));
                self.end_failures();
                Next::Pace
            }
            Outcome::Throttled => {
                self.apply_wait(Wait::Pause);
                Next::AfterPause
            }
            Outcome::Deferred(_) => return (Next::AfterPause, false),
            Outcome::Failed(failure) => {
                self.apply_failure(config, now, failure);
                Next::Backoff(self.failures)
            }
        };
        self.count_image_id_attempt(config, now);
        (next, contradicts)
    }

    /// Ends a run of failures, as any classified reply does.
    fn end_failures(&mut self) {
        self.failure_run = Run::default();
        self.failures = 0;
        self.delay = None;
        self.poll_failed = None;
        self.poll_overdue = None;
        self.stored_obstacle = false;
    }

    fn apply_failure(&mut self, config: &Config, now: Moment, failure: &Failure) {
        self.failures = self.failures.saturating_add(1);
        if self.failures == 1 || self.delay.is_none() {
            self.delay = Some(Cause::Observed(bounded(&failure.message)));
        }
        let (polls, grace) = (config.failure_polls, config.failure_grace);
        // The first cause stays: alternating causes would make the message flutter.
        if self.poll_failed.is_none() && self.failure_run.extend(now.at, polls, grace) {
            self.poll_failed = Some(Cause::Observed(bounded(&failure.message)));
        }
        // A failure at a later step shows that what blocked an earlier step is gone.
        if failure.stage == Stage::Query {
            let answered = failure.kind.answered();
            self.configuration_error
                .take_if(|(reason, _)| answered || reason.is_in_secret());
        }
    }

    /// Returns whether the answer contradicts an earlier one; an end stays as it was then.
    fn apply_answer(&mut self, config: &Config, now: Moment, answer: &JobAnswer) -> bool {
        let sane = |time: Option<Timestamp>| {
            time.map(Timestamp::as_second)
                .filter(|second| (EARLIEST_SANE..=now.wall + CLOCK_TOLERANCE).contains(second))
        };
        let before = &self.facts.job_status;
        let awaits_image_id = *before == Some(JobState::Success) && self.facts.image_id.is_none();
        if self.has_ended() && !(awaits_image_id && answer.state == JobState::Success) {
            return before.as_ref() != Some(&answer.state);
        }
        self.has_run |= answer.state == JobState::Running;
        let backwards = self.has_run && answer.state == JobState::Init;
        // A copy, so that facts that stay the same stay shared with the snapshot.
        let mut facts = Facts::clone(&self.facts);
        let shown = if backwards {
            &JobState::Running
        } else {
            &answer.state
        };
        facts.job_status = Some(shown.clone());
        if answer.job_type.is_some() {
            facts.job_type.clone_from(&answer.job_type);
        }
        if facts.start.is_none() {
            facts.start = sane(answer.begin_time);
        }
        let end = || sane(answer.end_time).unwrap_or(now.wall);
        match answer.state {
            JobState::Success => {
                // Only where the cloud reports progress at all; what it reports at an end may be anything.
                facts.progress = facts.progress.or(answer.percent).map(|_| 100);
                facts.image_id.clone_from(&answer.image_id);
                let ended = *self.ended.get_or_insert_with(end);
                if facts.is_complete() || self.image_id_given_up {
                    facts.complete(ended);
                }
            }
            JobState::Fail => {
                facts.fail_reason.clone_from(&answer.fail_reason);
                facts.error_code.clone_from(&answer.error_code);
                facts.complete(end());
            }
            JobState::Init | JobState::Running | JobState::Unrecognized(_) => {
                let is_written_anyway = facts.job_status != self.facts.job_status;
                self.apply_progress(config, now, &mut facts, answer.percent, is_written_anyway);
            }
        }
        if facts != *self.facts {
            self.facts = Arc::new(facts);
        }
        backwards
    }

    /// Activity goes up in steps of 10, at most one a `progress_gap` or with a job status that is
    /// written anyway: a job causes at most 11 writes by it.
    fn apply_progress(
        &mut self,
        config: &Config,
        now: Moment,
        facts: &mut Facts,
        percent: Option<u8>,
        is_written_anyway: bool,
    ) {
        let step = percent.map(|percent| percent / 10 * 10);
        let due = self
            .progress_moved
            .is_none_or(|at| now.at >= at + config.progress_gap);
        if step > facts.progress && (due || is_written_anyway) {
            facts.progress = step;
            self.progress_moved = Some(now.at);
        }
    }

    /// `ImageIDPending` becomes `ImageIDMissing` after so many further attempts, whatever they return.
    fn count_image_id_attempt(&mut self, config: &Config, now: Moment) {
        let awaited = self.facts.job_status == Some(JobState::Success) && !self.facts.is_complete();
        if !awaited || self.image_id_given_up {
            return;
        }
        if self.image_id_attempts >= config.image_id_attempts {
            self.image_id_given_up = true;
            let ended = self.ended.unwrap_or(now.wall);
            Arc::make_mut(&mut self.facts).complete(ended);
        }
        self.image_id_attempts = self.image_id_attempts.saturating_add(1);
    }
}

fn bounded(text: &Arc<str>) -> Arc<str> {
    if text.len() <= DETAIL_MAX_BYTES {
        return text.clone();
    }
    format!("{}…", &text[..text.floor_char_boundary(DETAIL_MAX_BYTES)]).into()
}
