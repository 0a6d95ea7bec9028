//! What one object's polls have told us: the evidence from which [`Row::of`](super::verdict::Row::of)
//! picks the row. A grace applies to *entering* a row only; what ends a row is written beside what
//! starts it.

use super::{
    Now,
    config::Config,
    standing::{Facts, Standing, Word},
    verdict::Row,
};
use image_export_model::{
    ConfigurationError, ConfigurationReason, Failure, JobAnswer, JobState, Observation, Outcome,
    Stage,
};
use jiff::Timestamp;
use std::{sync::Arc, time::Duration};

/// 2010-01-01T00:00:00Z: no job of this cloud is older.
const EARLIEST_SANE: i64 = 1_262_304_000;
/// How far the cloud's clock may be ahead of ours, in seconds.
const CLOCK_TOLERANCE: i64 = 5 * 60;
/// Longest detail that a message carries, in bytes; leaves room for the sentence around it.
const DETAIL_MAX_BYTES: usize = 640;

/// Consecutive polls with the same kind of outcome. Starts anew with the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Run {
    polls: u32,
    since: Duration,
}

impl Run {
    /// Counts one more, and says whether the run is now `polls` long and `grace` old.
    fn extend(&mut self, now: Duration, polls: u32, grace: Duration) -> bool {
        if self.polls == 0 {
            self.since = now;
        }
        self.polls = self.polls.saturating_add(1);
        self.polls >= polls && now.saturating_sub(self.since) >= grace
    }
}

/// Evidence about one job.
#[derive(Clone, Debug, Default)]
// Each is evidence of its own; all combinations occur.
#[allow(clippy::struct_excessive_bools)]
pub struct History {
    /// What is known about the job itself.
    pub facts: Arc<Facts>,
    /// Row 4b: the image id was awaited in vain.
    pub image_id_given_up: bool,
    /// Row 3d: the deadline has passed. Ends with another spec.
    pub overdue: bool,
    /// Row 7: the 404s have lasted too long. Ends with a 200 or other credentials.
    pub not_found: bool,
    /// Row 7a: the last word on whether the job exists was a 404. Ends with a 200.
    pub not_found_yet: bool,
    /// Rows 1, 1b, 1c: what stands in the way. Ends as soon as that is disproved.
    pub refusal: Option<ConfigurationError>,
    /// Row 3e, with its cause. Ends with any classified reply.
    pub poll_failed: Option<Arc<str>>,
    /// What kept us from seeing the end, as a status said that is not of this process; until anything
    /// else is known.
    told: Option<Arc<str>>,
    /// Row 0b: time to say that we are at it.
    pub pending: bool,

    not_found_run: Run,
    failure_run: Run,
    /// Failures since the last success, for the backoff.
    failures: u32,
    /// First attempt since the last answer, for throttling.
    unanswered_since: Option<Duration>,
    /// Attempts since SUCCESS was answered without an image id.
    image_id_attempts: u8,
    /// When `progressPercent` last moved in this process.
    progress_moved: Option<Duration>,
    /// When the end was, if it was seen: `end_time`, else when SUCCESS was first answered.
    ended: Option<i64>,
}

/// What an outcome means for the next poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At the row's own pace.
    Pace,
    /// After the backoff for this many failures in a row.
    Backoff(u32),
    /// As soon as the bucket's pause is over.
    AfterPause,
}

/// Contradictions of the cloud that are counted but never shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contradiction {
    /// Another end, or no end, after an end.
    AfterEnd,
    /// INIT after RUNNING.
    Backwards,
}

impl History {
    /// The evidence that a written status amounts to.
    #[must_use]
    pub fn of(standing: &Standing) -> Self {
        let mut history = Self {
            facts: standing.facts.clone(),
            ..Self::default()
        };
        let detail = || {
            standing
                .detail
                .clone()
                .unwrap_or_else(|| "see the operator's log".into())
        };
        match standing.row {
            Row::Refused(reason) => {
                history.refusal = Some(ConfigurationError {
                    reason,
                    message: detail(),
                });
            }
            Row::PollFailed => history.poll_failed = Some(detail()),
            // The answer that began the wait was not one of the further attempts.
            Row::ImageIdPending => history.image_id_attempts = 1,
            Row::ImageIdMissing => history.image_id_given_up = true,
            Row::DeadlineExceeded => {
                history.overdue = true;
                history.told.clone_from(&standing.detail);
            }
            Row::NotFound => history.not_found = true,
            Row::NotFoundYet => history.not_found_yet = true,
            Row::Pending => history.pending = true,
            Row::Initializing
            | Row::Running
            | Row::Succeeded
            | Row::Failed
            | Row::Unrecognized
            | Row::Suspended => {}
        }
        history
    }

    /// Whether the job has ended by the cloud's own word.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.facts.word, Word::Success | Word::Fail)
    }

    /// What keeps us from seeing the end of the job, as far as anything is known to.
    #[must_use]
    pub fn obstacle(&self) -> Option<Arc<str>> {
        let refusal = self.refusal.as_ref().map(|refusal| &refusal.message);
        if let Some(cause) = refusal.or(self.poll_failed.as_ref()) {
            return Some(cause.clone());
        }
        if self.not_found || self.not_found_yet {
            return Some("the cloud does not know it".into());
        }
        self.told.clone()
    }

    /// Whether the last attempt failed.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Other credentials were named: what the old ones met says nothing any more.
    pub fn forget_credentials(&mut self) {
        self.told = None;
        self.refusal = None;
        self.not_found = false;
        self.not_found_yet = false;
        self.not_found_run = Run::default();
    }

    /// The Secret reads well: whatever was wrong with it is disproved.
    pub fn disprove_secret(&mut self) {
        if self.refusal.as_ref().is_some_and(|refusal| {
            matches!(
                refusal.reason,
                ConfigurationReason::CredentialsNotFound | ConfigurationReason::CredentialsInvalid
            )
        }) {
            self.refusal = None;
        }
    }

    /// Takes in one outcome.
    pub fn apply(
        &mut self,
        config: &Config,
        now: Now,
        seen: &Observation,
    ) -> (Next, Option<Contradiction>) {
        let contradiction = match &seen.outcome {
            Outcome::Answered(answer) => self.answered(config, now, answer),
            _ => None,
        };
        let next = match &seen.outcome {
            Outcome::Answered(_) => {
                self.not_found = false;
                self.not_found_yet = false;
                self.not_found_run = Run::default();
                self.unanswered_since = None;
                self.refusal = None;
                self.classified();
                Next::Pace
            }
            Outcome::JobNotFound => {
                self.not_found_yet = true;
                if self.not_found_run.extend(
                    now.mono,
                    config.not_found_polls,
                    config.not_found_grace,
                ) {
                    self.not_found = true;
                }
                self.unanswered_since = None;
                self.refusal = None;
                self.classified();
                Next::Pace
            }
            Outcome::Misconfigured(refusal) => {
                self.refusal = Some(ConfigurationError {
                    reason: refusal.reason,
                    message: bounded(&refusal.message),
                });
                self.unanswered_since = None;
                self.classified();
                Next::Pace
            }
            Outcome::Throttled => {
                let since = *self.unanswered_since.get_or_insert(now.mono);
                if now.mono.saturating_sub(since) >= config.throttling_grace {
                    self.poll_failed = Some("the cloud limits the rate of requests".into());
                }
                Next::AfterPause
            }
            Outcome::Failed(failure) => {
                self.failed(config, now, failure);
                Next::Backoff(self.failures)
            }
        };
        self.count_image_id_attempt(config, now);
        (next, contradiction)
    }

    /// Any classified reply ends a run of failures.
    fn classified(&mut self) {
        self.failure_run = Run::default();
        self.failures = 0;
        self.poll_failed = None;
        self.told = None;
    }

    fn failed(&mut self, config: &Config, now: Now, failure: &Failure) {
        self.failures = self.failures.saturating_add(1);
        self.unanswered_since.get_or_insert(now.mono);
        if self.poll_failed.is_some() {
            // The first cause stays: alternating ones would make the message flutter.
        } else if self
            .failure_run
            .extend(now.mono, config.failure_polls, config.failure_grace)
        {
            self.poll_failed = Some(bounded(&failure.message));
        }
        // A failure further down the road shows that what stood in the way before it is gone.
        if let (Some(refusal), Stage::Query) = (&self.refusal, failure.stage) {
            let disproved = match refusal.reason {
                ConfigurationReason::CredentialsNotFound
                | ConfigurationReason::CredentialsInvalid => true,
                ConfigurationReason::AccessDenied
                | ConfigurationReason::EndpointInvalid
                | ConfigurationReason::EndpointNotAllowed
                | ConfigurationReason::RequestRejected => failure.kind.answered(),
            };
            if disproved {
                self.refusal = None;
            }
        }
    }

    fn answered(&mut self, config: &Config, now: Now, answer: &JobAnswer) -> Option<Contradiction> {
        let wall = now.wall.as_second();
        let sane = |time: Option<Timestamp>| {
            time.map(Timestamp::as_second)
                .filter(|second| (EARLIEST_SANE..=wall + CLOCK_TOLERANCE).contains(second))
        };
        let before = &self.facts.word;
        let awaits_image_id = *before == Word::Success && self.facts.image_id.is_none();
        if self.has_ended() && !(awaits_image_id && answer.state == JobState::Success) {
            let same = matches!(
                (&answer.state, before),
                (JobState::Success, Word::Success) | (JobState::Fail, Word::Fail)
            );
            return (!same).then_some(Contradiction::AfterEnd);
        }
        let backwards = *before == Word::Running && answer.state == JobState::Init;
        // A copy, so that facts that stay the same stay shared with the standing.
        let mut facts = Facts::clone(&self.facts);
        facts.word = match &answer.state {
            JobState::Init if backwards => Word::Running,
            JobState::Init => Word::Init,
            JobState::Running => Word::Running,
            JobState::Success => Word::Success,
            JobState::Fail => Word::Fail,
            JobState::Unrecognized(word) => Word::Other(word.clone()),
        };
        if answer.job_type.is_some() {
            facts.job_type.clone_from(&answer.job_type);
        }
        if facts.start.is_none() {
            facts.start = sane(answer.begin_time);
        }
        match answer.state {
            JobState::Success => {
                // Where the cloud speaks of progress at all; what it says of an end may be anything.
                facts.progress = facts.progress.or(answer.percent).map(|_| 100);
                facts.image_id.clone_from(&answer.image_id);
                let ended = *self
                    .ended
                    .get_or_insert_with(|| sane(answer.end_time).unwrap_or(wall));
                if facts.has_all_it_can() || self.image_id_given_up {
                    facts.completion.get_or_insert(ended);
                }
            }
            JobState::Fail => {
                facts.fail_reason.clone_from(&answer.fail_reason);
                facts.error_code.clone_from(&answer.error_code);
                facts.completion = Some(sane(answer.end_time).unwrap_or(wall));
            }
            JobState::Init | JobState::Running | JobState::Unrecognized(_) => {
                let moved = facts.word != self.facts.word;
                self.take_progress(config, now, &mut facts, answer.percent, moved);
            }
        }
        if facts != *self.facts {
            self.facts = Arc::new(facts);
        }
        backwards.then_some(Contradiction::Backwards)
    }

    /// Steps of 10 that only go up, at most one a `progress_gap`, or with a word that is written
    /// anyway: a chatty job costs 11 writes at the most.
    fn take_progress(
        &mut self,
        config: &Config,
        now: Now,
        facts: &mut Facts,
        percent: Option<u8>,
        written_anyway: bool,
    ) {
        let step = percent.map(|percent| percent / 10 * 10);
        let due = self
            .progress_moved
            .is_none_or(|at| now.mono >= at + config.progress_gap);
        if step > facts.progress && (due || written_anyway) {
            facts.progress = step;
            self.progress_moved = Some(now.mono);
        }
    }

    /// Row 4a becomes 4b after so many further attempts, whatever they return.
    fn count_image_id_attempt(&mut self, config: &Config, now: Now) {
        if self.facts.word != Word::Success || self.facts.has_all_it_can() || self.image_id_given_up
        {
            return;
        }
        if self.image_id_attempts >= config.image_id_attempts {
            self.image_id_given_up = true;
            let ended = self.ended.unwrap_or(now.wall.as_second());
            Arc::make_mut(&mut self.facts)
                .completion
                .get_or_insert(ended);
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
