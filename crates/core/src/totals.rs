//! What the objects count in, kept up to date as they change: no gauge and no read of a Secret looks at all of them.

use crate::{
    config::Config,
    job::{Job, PollStage},
    keys::SecretKey,
    phase::{Phase, Priority},
    secrets::SecretState,
    sync::ChangeStage,
    time::nanos,
};
use std::{collections::BTreeMap, time::Duration};

/// Times of answers are told apart in steps of this many nanoseconds, an eighth of a second.
const STEP: u64 = 125_000_000;

/// What one object counts in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "counted one by one: all combinations occur"
)]
pub struct Tally {
    /// The phase that its status shows.
    pub shown: Option<Phase>,
    /// When the cloud last reported the job, in steps rounded up, while a report is expected.
    pub answered: Option<u64>,
    /// Its poll is due and waits for its quota or for a read of its Secret.
    pub is_waiting: bool,
    /// Its poll waits for too long.
    pub is_overdue: bool,
    /// Its status is still to be written, or the write to be confirmed.
    pub is_unwritten: bool,
    /// The Secret that it names.
    pub secret: SecretKey,
    /// It is unfinished, so it shows what is wrong with its Secret.
    pub is_unfinished: bool,
    /// It is polled.
    pub is_polled: bool,
    /// It waits for a read of its Secret, or may be fixed by one.
    pub awaits_secret: bool,
}

impl Tally {
    /// What an object counts in now. `secret`: the state of its Secret.
    #[must_use]
    pub fn of(config: &Config, at: Duration, job: &Job, secret: &SecretState) -> Self {
        let stage = job.polling.stage;
        let is_readable = !matches!(secret, SecretState::Misconfigured(_));
        let is_polled = stage != PollStage::Off;
        let is_active = job.is_active();
        let evidence = &job.evidence;
        let is_expected = is_active && !evidence.needs_action();
        Self {
            shown: job.sync.acknowledged().map(|shown| shown.phase),
            answered: is_expected.then(|| nanos(job.answered_at).div_ceil(STEP)),
            is_waiting: match stage {
                PollStage::Queued(_) => true,
                PollStage::AwaitingSecret => is_readable,
                PollStage::Off | PollStage::Scheduled(_) | PollStage::InFlight(_) => false,
            },
            is_overdue: job.polling.waits_since.is_some() && job.is_overdue(config, at),
            is_unwritten: !matches!(
                job.sync.stage,
                ChangeStage::Idle
                    | ChangeStage::Rejected { .. }
                    | ChangeStage::Rereading { .. }
                    | ChangeStage::Deleting { .. }
                    | ChangeStage::Queued(Priority::Expiry)
            ),
            secret: job.secret,
            is_unfinished: is_active || is_polled || !evidence.has_ended(),
            is_polled,
            awaits_secret: stage == PollStage::AwaitingSecret
                || evidence.configuration_error.is_some()
                || evidence.is_failing(),
        }
    }
}

/// How many objects count in what.
#[derive(Debug, Default)]
pub struct Totals {
    /// Objects by the phase that their status shows.
    shown: BTreeMap<Option<Phase>, usize>,
    /// Objects by the time of their latest answer, in steps.
    answered: BTreeMap<u64, usize>,
    /// Objects whose poll waits.
    pub waiting: usize,
    /// Those that wait for too long.
    pub overdue: usize,
    /// Objects whose status is still to be written or confirmed.
    pub unwritten: usize,
}

impl Totals {
    /// Counts an object anew. `None`: it is not there yet, or not any more.
    pub fn recount(&mut self, before: Option<&Tally>, after: Option<&Tally>) {
        let shown = |tally: Option<&Tally>| tally.map(|tally| tally.shown);
        change(&mut self.shown, shown(before), shown(after));
        let answered = |tally: Option<&Tally>| tally.and_then(|tally| tally.answered);
        change(&mut self.answered, answered(before), answered(after));
        if let Some(before) = before {
            self.waiting -= usize::from(before.is_waiting);
            self.overdue -= usize::from(before.is_overdue);
            self.unwritten -= usize::from(before.is_unwritten);
        }
        if let Some(after) = after {
            self.waiting += usize::from(after.is_waiting);
            self.overdue += usize::from(after.is_overdue);
            self.unwritten += usize::from(after.is_unwritten);
        }
    }

    /// Objects by the reason of their Ready condition; "" where nothing was written yet.
    #[must_use]
    pub fn by_reason(&self) -> BTreeMap<&'static str, usize> {
        let mut reasons = BTreeMap::new();
        for (shown, objects) in &self.shown {
            let reason = shown.map_or("", |phase| phase.row().reason);
            *reasons.entry(reason).or_default() += objects;
        }
        reasons
    }

    /// The longest time since the cloud reported a job of which it is to report, an eighth of a second less
    /// at most.
    #[must_use]
    pub fn oldest_answer(&self, at: Duration) -> Duration {
        let oldest = self.answered.keys().next();
        oldest.map_or(Duration::ZERO, |answered| {
            at.saturating_sub(Duration::from_nanos(answered * STEP))
        })
    }

    /// How many different things are counted.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.shown.len() + self.answered.len()
    }
}

fn change<K: Ord>(counts: &mut BTreeMap<K, usize>, before: Option<K>, after: Option<K>) {
    if before == after {
        return;
    }
    if let Some(before) = before
        && let Some(count) = counts.get_mut(&before)
    {
        *count -= 1;
        if *count == 0 {
            counts.remove(&before);
        }
    }
    if let Some(after) = after {
        *counts.entry(after).or_default() += 1;
    }
}
