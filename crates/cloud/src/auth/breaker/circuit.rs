//! The circuit of one login identity.

use super::{
    Attempt, Open, Stopped,
    round_robin::{Rank, RoundRobin},
};
use crate::auth::Pacing;
use image_export_model::PriorAcceptance;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// A rejected secret waits longer than an untried one, by this fraction of the pause (1/5), so that a
/// fixed secret is tried first.
const REJECTED_WAITS_LONGER: u32 = 5;
/// Who waits for an open circuit comes back within this many pauses, or is gone.
const STAY_PAUSES: u32 = 3;
/// Who is deferred comes back within so many deferrals, or is gone; its turn passes after the other number.
const STAY_DEFERRALS: u32 = 30;
const HOLD_DEFERRALS: u32 = 10;
/// So many secrets of an identity are remembered, and so many scopes of a secret.
pub(super) const MAX_SECRETS: usize = 64;
pub(super) const MAX_SCOPES: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Circuit {
    /// Consecutive rejections of any secret: what the cloud counts.
    consecutive_rejections: u32,
    /// Rejections of untrusted secrets since one of them was accepted.
    rejected: u32,
    /// Attempts of untrusted secrets in flight.
    in_flight: u32,
    /// When the latest rejection of an untrusted secret came.
    rejected_at: Option<Instant>,
    /// The cloud's answer to it, for messages.
    answer: Arc<str>,
    secrets: HashMap<u64, Secret>,
    waiting: RoundRobin,
    pub(super) used_at: Option<Instant>,
    /// Whether it counts all names of the identity: an accepted login showed them.
    is_complete: bool,
    /// Whether the identity is the id of a user, whose rejections by name may be counted elsewhere.
    is_partial: bool,
}

#[derive(Debug, Default)]
struct Secret {
    accepted: Option<Instant>,
    /// Consecutive rejections.
    rejected: u32,
    /// Whether it was rejected since an untrusted one of the identity was accepted.
    tried: bool,
    in_flight: u32,
    /// The scopes that were tried, and whether they were ever accepted.
    scopes: HashMap<u64, bool>,
    /// When one that never was accepted was last tried.
    scope_rejected_at: Option<Instant>,
    used_at: Option<Instant>,
}

/// How an attempt may be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Whether the secret was accepted before.
    pub(super) trusted: bool,
    /// Whether a request that got no answer may be sent once more.
    pub(super) may_repeat: bool,
}

impl Circuit {
    /// Begins an attempt, unless it has to wait.
    pub(super) fn enter(&mut self, pacing: &Pacing, attempt: Attempt) -> Result<Entry, Stopped> {
        self.is_partial |= attempt.by_id && !self.is_complete;
        let known = self.secrets.get(&attempt.secret);
        let known = known.filter(|secret| secret.has_outcome());
        let trusted = known.is_some_and(|secret| secret.is_trusted(pacing));
        // What another process saw is believed until this one sees an outcome.
        let prior = match known {
            None => attempt.prior,
            Some(_) => PriorAcceptance::Unknown,
        };
        if trusted {
            self.may_enter_trusted(pacing, attempt)?;
        } else if prior == PriorAcceptance::Accepted && self.may_add_one(pacing) {
            self.waiting.serve(attempt.waiter);
        } else if prior == PriorAcceptance::Rejected && self.rejected < self.limit(pacing) {
            self.may_enter_rejected(pacing, attempt)?;
        } else {
            let rank = match known {
                Some(secret) if !secret.tried => Rank::Untried,
                Some(secret) if secret.scopes.get(&attempt.scope) == Some(&true) => {
                    Rank::OnceAccepted
                }
                Some(_) => Rank::Rejected,
                None if prior == PriorAcceptance::Rejected => Rank::Rejected,
                None => Rank::Untried,
            };
            self.may_enter_untrusted(pacing, attempt, rank)?;
        }
        self.secret(pacing, attempt).in_flight += 1;
        self.in_flight += u32::from(!trusted);
        Ok(Entry {
            trusted,
            may_repeat: trusted && self.consecutive_rejections == 0,
        })
    }

    /// Ends an attempt, whatever its outcome.
    pub(super) fn leave(&mut self, attempt: Attempt, trusted: bool) {
        if let Some(secret) = self.secrets.get_mut(&attempt.secret) {
            secret.in_flight = secret.in_flight.saturating_sub(1);
        }
        self.in_flight = self.in_flight.saturating_sub(u32::from(!trusted));
    }

    /// The cloud accepted the secret.
    pub(super) fn apply_acceptance(&mut self, pacing: &Pacing, attempt: Attempt, trusted: bool) {
        let secret = self.secret(pacing, attempt);
        secret.accepted = Some(Instant::now());
        secret.rejected = 0;
        secret.remember(attempt.scope, true);
        self.consecutive_rejections = 0;
        if !trusted {
            self.rejected = 0;
            for secret in self.secrets.values_mut() {
                secret.tried = false;
            }
            self.waiting.clear();
        }
    }

    /// The cloud rejected the secret. Returns the state of the circuit if it is open to this attempt now.
    pub(super) fn apply_rejection(
        &mut self,
        pacing: &Pacing,
        attempt: Attempt,
        trusted: bool,
        answer: Arc<str>,
    ) -> Option<Open> {
        let limit = self.limit(pacing);
        let in_a_row = self.consecutive_rejections + 1;
        let secret = self.secret(pacing, attempt);
        let was_accepted = secret.scopes.get(&attempt.scope).copied();
        if trusted && was_accepted == Some(false) {
            return None;
        }
        secret.rejected += 1;
        if was_accepted != Some(true) {
            secret.remember(attempt.scope, false);
            secret.scope_rejected_at = Some(Instant::now());
        }
        let is_trusted = trusted && secret.rejected < limit && in_a_row < limit;
        secret.tried |= !is_trusted;
        if trusted && !is_trusted {
            // The cloud has accepted the secret before and does not any more.
            secret.accepted = None;
        }
        self.consecutive_rejections = in_a_row;
        if is_trusted {
            return None;
        }
        self.rejected = if trusted {
            self.rejected.max(limit)
        } else {
            self.rejected + 1
        };
        self.rejected_at = Some(Instant::now());
        self.answer = answer;
        (self.rejected >= limit).then(|| self.open(pacing, pacing.breaker_pause))
    }

    /// Whether a secret that another process saw accepted may be tried beside the others: if all that are in
    /// flight are rejected, one more rejection in a row than opens the circuit is the most.
    fn may_add_one(&self, pacing: &Pacing) -> bool {
        let in_a_row = self.consecutive_rejections + self.in_flight;
        in_a_row < self.limit(pacing) + u32::from(!self.is_partial)
    }

    /// How many rejections in a row open it. For a part of an identity one does, so that all together stay
    /// below the lock.
    fn limit(&self, pacing: &Pacing) -> u32 {
        if self.is_partial {
            1
        } else {
            pacing.breaker_rejections
        }
    }

    /// An accepted login showed all names of the identity, which are counted here from now on.
    pub(super) fn complete(&mut self) {
        self.is_complete = true;
        self.is_partial = false;
    }

    fn may_enter_trusted(&mut self, pacing: &Pacing, attempt: Attempt) -> Result<(), Stopped> {
        let pause = pacing.breaker_pause;
        let secret = self.secrets.entry(attempt.secret).or_default();
        let is_rejected = secret.scopes.get(&attempt.scope) == Some(&false);
        let since = secret.scope_rejected_at.map_or(pause, |at| at.elapsed());
        if is_rejected && since < pause {
            return Err(Stopped::Open(Open {
                rejections: 0,
                ..self.open(pacing, pause.saturating_sub(since))
            }));
        }
        let in_a_row = self.consecutive_rejections;
        let unlimited = attempt.unlimited && in_a_row == 0;
        let may_fail = pacing.breaker_rejections.saturating_sub(in_a_row).max(1);
        if !unlimited && secret.in_flight >= may_fail {
            return Err(Stopped::Deferred(pacing.breaker_deferral));
        }
        if is_rejected {
            secret.scope_rejected_at = Some(Instant::now());
        }
        Ok(())
    }

    /// A secret that another process saw rejected is tried as if the circuit were open to it, which it need not
    /// be to others.
    fn may_enter_rejected(&mut self, pacing: &Pacing, attempt: Attempt) -> Result<(), Stopped> {
        let wait = self.pause_left(longer_pause(pacing));
        if self.rejected > 0 && !wait.is_zero() {
            return Err(Stopped::Open(Open {
                rejections: 0,
                ..self.open(pacing, wait)
            }));
        }
        if self.in_flight > 0 {
            return Err(Stopped::Deferred(pacing.breaker_deferral));
        }
        self.take_turn(pacing, attempt, Rank::Rejected)
    }

    fn may_enter_untrusted(
        &mut self,
        pacing: &Pacing,
        attempt: Attempt,
        rank: Rank,
    ) -> Result<(), Stopped> {
        let limit = self.limit(pacing);
        if self.rejected < limit {
            if self.rejected + self.in_flight < limit {
                return self.take_turn(pacing, attempt, rank);
            }
            self.wait_closed(pacing, attempt, rank);
            return Err(Stopped::Deferred(pacing.breaker_deferral));
        }
        let (pause, longer) = (pacing.breaker_pause, longer_pause(pacing));
        self.waiting.join(attempt.waiter, rank, STAY_PAUSES * pause);
        let is_rejected = rank == Rank::Rejected;
        let wait = self.pause_left(if is_rejected { longer } else { pause });
        if !wait.is_zero() {
            return Err(Stopped::Open(self.open(pacing, wait)));
        }
        let possible = self.rejected_at.map_or_else(Instant::now, |at| at + pause);
        // Callers come back once in a pause.
        if !self.waiting.is_next(attempt.waiter, possible, longer) {
            let wait = pause / REJECTED_WAITS_LONGER;
            return Err(Stopped::Open(self.open(pacing, wait)));
        }
        if self.in_flight > 0 {
            return Err(Stopped::Deferred(pacing.breaker_deferral));
        }
        self.waiting.serve(attempt.waiter);
        Ok(())
    }

    /// Enters a closed circuit that has room for an attempt, if no other is next.
    fn take_turn(&mut self, pacing: &Pacing, attempt: Attempt, rank: Rank) -> Result<(), Stopped> {
        let (waiter, deferral) = (attempt.waiter, pacing.breaker_deferral);
        self.wait_closed(pacing, attempt, rank);
        let hold = HOLD_DEFERRALS * deferral;
        if !self.waiting.is_next(waiter, Instant::now(), hold) {
            return Err(Stopped::Deferred(deferral));
        }
        self.waiting.serve(waiter);
        Ok(())
    }

    fn wait_closed(&mut self, pacing: &Pacing, attempt: Attempt, rank: Rank) {
        let stay = STAY_DEFERRALS * pacing.breaker_deferral;
        self.waiting.join(attempt.waiter, rank, stay);
    }

    /// What is left of a pause after the latest rejection.
    fn pause_left(&self, pause: Duration) -> Duration {
        let since = self.rejected_at.map_or(pause, |at| at.elapsed());
        pause.saturating_sub(since)
    }

    fn open(&self, pacing: &Pacing, wait: Duration) -> Open {
        Open {
            rejections: self.rejected.min(self.limit(pacing)),
            wait,
            answer: Arc::clone(&self.answer),
        }
    }

    /// The secret of an attempt; the one of least use makes room for a new one.
    fn secret(&mut self, pacing: &Pacing, attempt: Attempt) -> &mut Secret {
        if self.secrets.len() >= MAX_SECRETS && !self.secrets.contains_key(&attempt.secret) {
            let idle = self
                .secrets
                .iter()
                .filter(|(_, secret)| secret.in_flight == 0);
            let least = idle.min_by_key(|(_, secret)| (secret.is_trusted(pacing), secret.used_at));
            let least = least.map(|(hash, _)| *hash);
            self.secrets.retain(|hash, _| Some(*hash) != least);
        }
        let secret = self.secrets.entry(attempt.secret).or_default();
        secret.used_at = Some(Instant::now());
        secret
    }

    /// Takes over what is known of another spelling of the identity. The latest acceptance counts for both.
    pub(super) fn absorb(&mut self, other: Self) {
        self.rejected = self.rejected.max(other.rejected);
        self.in_flight += other.in_flight;
        if self.rejected_at < other.rejected_at {
            self.rejected_at = other.rejected_at;
            self.answer = other.answer;
        }
        for (hash, secret) in other.secrets {
            let own = self.secrets.entry(hash).or_default();
            own.in_flight += secret.in_flight;
            if !own.has_outcome() {
                *own = Secret {
                    in_flight: own.in_flight,
                    ..secret
                };
            }
        }
        self.waiting.absorb(other.waiting);
    }

    /// Whether it stops attempts. One without a rejection for two pauses counts as closed: the
    /// credential may be gone, which is not reported here.
    pub(super) fn is_open(&self, pacing: &Pacing) -> bool {
        self.rejected >= self.limit(pacing) && self.was_rejected_recently(pacing)
    }

    fn was_rejected_recently(&self, pacing: &Pacing) -> bool {
        self.rejected_at
            .is_some_and(|at| at.elapsed() < 2 * pacing.breaker_pause)
    }

    pub(super) fn is_of_use(&self, pacing: &Pacing) -> bool {
        self.was_rejected_recently(pacing) || self.is_in_flight() || self.is_trusted(pacing)
    }

    /// Rejections in a row, which lead to the cloud's lock.
    pub(super) fn rejections(&self) -> u32 {
        self.consecutive_rejections
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.secrets.values().any(|secret| secret.in_flight > 0)
    }

    /// Whether one of its secrets is.
    pub(super) fn is_trusted(&self, pacing: &Pacing) -> bool {
        self.secrets
            .values()
            .any(|secret| secret.is_trusted(pacing))
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        let scopes = self.secrets.values().map(|secret| secret.scopes.len());
        let (waiting, _) = self.waiting.len();
        (
            self.secrets.len(),
            scopes.max().unwrap_or_default(),
            waiting,
        )
    }
}

impl Secret {
    fn has_outcome(&self) -> bool {
        self.accepted.is_some() || !self.scopes.is_empty()
    }

    fn is_trusted(&self, pacing: &Pacing) -> bool {
        let recent = |at: Instant| at.elapsed() < pacing.breaker_trust;
        self.rejected < pacing.breaker_rejections && self.accepted.is_some_and(recent)
    }

    /// Remembers the outcome for a scope. Rejected scopes make room for it, else all.
    fn remember(&mut self, scope: u64, accepted: bool) {
        if self.scopes.len() >= MAX_SCOPES && !self.scopes.contains_key(&scope) {
            self.scopes.retain(|_, accepted| *accepted);
            if self.scopes.len() >= MAX_SCOPES {
                self.scopes.clear();
            }
        }
        self.scopes.insert(scope, accepted);
    }
}

fn longer_pause(pacing: &Pacing) -> Duration {
    pacing.breaker_pause + pacing.breaker_pause / REJECTED_WAITS_LONGER
}
