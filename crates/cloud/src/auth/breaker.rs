//! One circuit breaker for each login identity, whichever credentials use it: clouds lock an account or
//! an access key for all its users after a few rejections in a row, and the circuit opens well before.
//!
//! Secrets that the cloud accepted within a day are trusted and pass an open circuit, so a wrong
//! password for the same user elsewhere does not stop its owner. Neither does a project in which the
//! user has no role, which Keystone answers like a wrong password: once rejected, such scopes of a
//! trusted secret share one attempt per pause and are not counted.

use super::Pacing;
use secrecy::{ExposeSecret, SecretString};
use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// From this number of entries on, those that are of no more use are dropped.
const PURGE_FROM: usize = 64;
/// A rejected secret waits longer than an untried one, by this fraction of the pause (1/5), so that a
/// fixed secret is tried first.
const REJECTED_WAITS_LONGER: u32 = 5;

/// By what the cloud counts failures: an account or an access key. Compared by hash only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct IdentityHash(u64);

/// What is tried: a secret, for a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Attempt {
    identity: IdentityHash,
    secret: u64,
    scope: u64,
    /// Whether attempts of a trusted secret may be in flight in any number: signed requests, of which
    /// there are many, as against logins.
    unlimited: bool,
}

/// All breakers.
#[derive(Debug)]
pub(crate) struct Breakers {
    pacing: Arc<Pacing>,
    hasher: RandomState,
    by_identity: Mutex<HashMap<IdentityHash, Arc<Breaker>>>,
}

#[derive(Debug, Default)]
struct Breaker {
    state: Mutex<State>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
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
    /// Secrets that were rejected since one was accepted.
    tried: HashSet<u64>,
    /// Untried secrets, and when the open circuit last stopped them: they come first.
    waiting: HashMap<u64, Instant>,
    secrets: HashMap<u64, Secret>,
}

#[derive(Debug, Default)]
struct Secret {
    accepted: Option<Instant>,
    /// Consecutive rejections.
    rejected: u32,
    in_flight: u32,
    accepted_scopes: HashSet<u64>,
    /// Scopes that were rejected and never accepted.
    rejected_scopes: HashSet<u64>,
    /// When one of those was last tried.
    scope_rejected_at: Option<Instant>,
}

/// The circuit is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    /// Rejections in a row that opened it; 0 where only this scope is rejected.
    pub(crate) rejections: u32,
    /// How long until it permits an attempt.
    pub(crate) wait: Duration,
    /// The cloud's latest answer, for messages.
    pub(crate) answer: Arc<str>,
}

/// Permits one attempt. Dropping it records no outcome.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    breakers: &'a Breakers,
    breaker: Arc<Breaker>,
    attempt: Attempt,
    trusted: bool,
    ended: bool,
}

enum Step {
    Go {
        trusted: bool,
    },
    /// As many attempts are in flight as may fail.
    Wait,
    Stop(Open),
}

impl Breakers {
    pub(crate) fn new(pacing: Arc<Pacing>) -> Self {
        Self {
            pacing,
            hasher: RandomState::new(),
            by_identity: Mutex::default(),
        }
    }

    pub(crate) fn pacing(&self) -> &Pacing {
        &self.pacing
    }

    /// An attempt of `identity` with `secrets` at `host`, for `scope`.
    pub(crate) fn attempt<'s>(
        &self,
        identity: impl Hash,
        secrets: impl IntoIterator<Item = &'s SecretString>,
        host: &str,
        scope: impl Hash,
        unlimited: bool,
    ) -> Attempt {
        let secrets: Vec<_> = secrets
            .into_iter()
            .map(|secret| self.hasher.hash_one(secret.expose_secret()))
            .collect();
        Attempt {
            identity: IdentityHash(self.hasher.hash_one(identity)),
            secret: self.hasher.hash_one((secrets, host)),
            scope: self.hasher.hash_one(scope),
            unlimited,
        }
    }

    /// Waits until the attempt may be made; an error if the circuit is open to it.
    pub(crate) async fn enter(&self, attempt: Attempt) -> Result<Permit<'_>, Open> {
        let breaker = self.breaker(attempt.identity);
        let trusted = loop {
            // From here on no end of another attempt is missed.
            let mut ended = std::pin::pin!(breaker.ended.notified());
            ended.as_mut().enable();
            let step = lock(&breaker.state).step(&self.pacing, attempt, Instant::now());
            match step {
                Step::Go { trusted } => break trusted,
                Step::Wait => ended.await,
                Step::Stop(open) => return Err(open),
            }
        };
        Ok(Permit {
            breakers: self,
            breaker,
            attempt,
            trusted,
            ended: false,
        })
    }

    /// Number of open circuits.
    pub(crate) fn open(&self) -> usize {
        let breakers = lock(&self.by_identity);
        breakers
            .values()
            .filter(|breaker| lock(&breaker.state).is_open(&self.pacing))
            .count()
    }

    fn breaker(&self, identity: IdentityHash) -> Arc<Breaker> {
        let mut breakers = lock(&self.by_identity);
        if breakers.len() >= PURGE_FROM && !breakers.contains_key(&identity) {
            let now = Instant::now();
            breakers.retain(|_, breaker| {
                Arc::strong_count(breaker) > 1 || lock(&breaker.state).is_of_use(&self.pacing, now)
            });
        }
        Arc::clone(breakers.entry(identity).or_default())
    }
}

impl Permit<'_> {
    /// Whether the secret was accepted before.
    pub(crate) fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// Records that the cloud accepted the secret, whatever else it answered.
    pub(crate) fn accepted(mut self) {
        self.ended = true;
        let state = &mut *lock(&self.breaker.state);
        let secret = state.end(self.attempt, self.trusted);
        secret.accepted = Some(Instant::now());
        secret.rejected = 0;
        secret.accepted_scopes.insert(self.attempt.scope);
        secret.rejected_scopes.remove(&self.attempt.scope);
        state.consecutive_rejections = 0;
        if !self.trusted {
            state.rejected = 0;
            state.tried.clear();
            state.waiting.clear();
        }
    }

    /// Records that the cloud rejected the secret, with its `answer` for messages. Returns the circuit's
    /// state if it is open to this attempt now.
    pub(crate) fn rejected(mut self, answer: impl Into<Arc<str>>) -> Option<Open> {
        self.ended = true;
        let limit = self.breakers.pacing.breaker_rejections;
        let state = &mut *lock(&self.breaker.state);
        let scope = self.attempt.scope;
        let secret = state.end(self.attempt, self.trusted);
        if self.trusted && secret.rejected_scopes.contains(&scope) {
            return None;
        }
        secret.rejected += 1;
        if !secret.accepted_scopes.contains(&scope) {
            secret.rejected_scopes.insert(scope);
            secret.scope_rejected_at = Some(Instant::now());
        }
        let rejected = secret.rejected;
        state.consecutive_rejections += 1;
        if self.trusted {
            if rejected < limit && state.consecutive_rejections < limit {
                return None;
            }
            // The cloud has accepted the secret before and does not any more.
            if let Some(secret) = state.secrets.get_mut(&self.attempt.secret) {
                secret.accepted = None;
            }
            state.rejected = state.rejected.max(limit);
        } else {
            state.rejected += 1;
        }
        state.rejected_at = Some(Instant::now());
        state.answer = answer.into();
        state.tried.insert(self.attempt.secret);
        (state.rejected >= limit).then(|| state.stop(self.breakers.pacing.breaker_pause))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.ended {
            lock(&self.breaker.state).end(self.attempt, self.trusted);
        }
        self.breaker.ended.notify_waiters();
    }
}

impl State {
    fn step(&mut self, pacing: &Pacing, attempt: Attempt, now: Instant) -> Step {
        if self.secrets.len() >= PURGE_FROM {
            self.secrets
                .retain(|_, secret| secret.in_flight > 0 || secret.is_trusted(pacing, now));
        }
        let secret = self.secrets.entry(attempt.secret).or_default();
        if secret.is_trusted(pacing, now) {
            return self.step_trusted(pacing, attempt, now);
        }
        let limit = pacing.breaker_rejections;
        if self.rejected >= limit {
            if let Some(wait) = self.wait(pacing, attempt, now) {
                return Step::Stop(self.stop(wait));
            }
            if self.in_flight > 0 {
                return Step::Wait;
            }
        } else if self.rejected + self.in_flight >= limit {
            return Step::Wait;
        }
        self.secrets.entry(attempt.secret).or_default().in_flight += 1;
        self.in_flight += 1;
        self.waiting.remove(&attempt.secret);
        Step::Go { trusted: false }
    }

    fn step_trusted(&mut self, pacing: &Pacing, attempt: Attempt, now: Instant) -> Step {
        let secret = self.secrets.entry(attempt.secret).or_default();
        let is_rejected = secret.rejected_scopes.contains(&attempt.scope);
        let since = secret
            .scope_rejected_at
            .map_or(pacing.breaker_pause, |at| now - at);
        if is_rejected && since < pacing.breaker_pause {
            return Step::Stop(Open {
                rejections: 0,
                wait: pacing.breaker_pause.saturating_sub(since),
                answer: Arc::clone(&self.answer),
            });
        }
        let unlimited = attempt.unlimited && self.consecutive_rejections == 0;
        let may_fail = pacing
            .breaker_rejections
            .saturating_sub(self.consecutive_rejections)
            .max(1);
        if !unlimited && secret.in_flight >= may_fail {
            return Step::Wait;
        }
        if is_rejected {
            secret.scope_rejected_at = Some(now);
        }
        secret.in_flight += 1;
        Step::Go { trusted: true }
    }

    /// How long the open circuit still stops this attempt; `None` if it may be made.
    fn wait(&mut self, pacing: &Pacing, attempt: Attempt, now: Instant) -> Option<Duration> {
        let pause = pacing.breaker_pause;
        self.waiting
            .retain(|_, stopped_at| now - *stopped_at < 2 * pause);
        let since = self.rejected_at.map_or(pause, |at| now - at);
        let scope_accepted = |secret: &Secret| secret.accepted_scopes.contains(&attempt.scope);
        let comes_first = !self.tried.contains(&attempt.secret)
            || self
                .secrets
                .get(&attempt.secret)
                .is_some_and(scope_accepted);
        let until = if comes_first {
            if since < pause {
                self.waiting.insert(attempt.secret, now);
            }
            pause
        } else if self.waiting.is_empty() {
            pause + pause / REJECTED_WAITS_LONGER
        } else {
            since.max(pause) + pause / REJECTED_WAITS_LONGER
        };
        (since < until).then(|| until.saturating_sub(since))
    }

    fn stop(&self, wait: Duration) -> Open {
        Open {
            rejections: self.rejected,
            wait,
            answer: Arc::clone(&self.answer),
        }
    }

    fn end(&mut self, attempt: Attempt, trusted: bool) -> &mut Secret {
        if !trusted {
            self.in_flight -= 1;
        }
        let secret = self.secrets.entry(attempt.secret).or_default();
        secret.in_flight = secret.in_flight.saturating_sub(1);
        secret
    }

    /// Whether it stops attempts. One without a rejection for two pauses counts as closed: the
    /// credential may be gone, which is not reported here.
    fn is_open(&self, pacing: &Pacing) -> bool {
        let recent = |at: Instant| at.elapsed() < 2 * pacing.breaker_pause;
        self.rejected >= pacing.breaker_rejections && self.rejected_at.is_some_and(recent)
    }

    fn is_of_use(&self, pacing: &Pacing, now: Instant) -> bool {
        self.rejected_at
            .is_some_and(|at| now - at < 2 * pacing.breaker_pause)
            || self
                .secrets
                .values()
                .any(|secret| secret.is_trusted(pacing, now))
    }
}

impl Secret {
    fn is_trusted(&self, pacing: &Pacing, now: Instant) -> bool {
        self.rejected < pacing.breaker_rejections
            && self
                .accepted
                .is_some_and(|accepted| now - accepted < pacing.breaker_trust)
    }
}

/// The data behind these locks is valid at each moment, so a poisoned lock is used all the same.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
