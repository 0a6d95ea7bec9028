//! One circuit breaker for each login identity, whichever credentials use it: clouds lock an account or
//! an access key for all its users after a few rejections in a row, and the circuit opens well before.
//!
//! Secrets that the cloud accepted within a day are trusted and pass an open circuit, so a wrong
//! password for the same user elsewhere does not stop its owner. Neither does a project in which the
//! user has no role, which Keystone answers like a wrong password: once rejected, such scopes of a
//! trusted secret share one attempt per pause and are not counted.

use super::{Pacing, entry, lock};
use secrecy::{ExposeSecret, SecretString};
use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// A rejected secret waits longer than an untried one, by this fraction of the pause (1/5), so that a
/// fixed secret is tried first.
const REJECTED_WAITS_LONGER: u32 = 5;

/// What is tried: a secret, for a scope. All of them are known by their hashes only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    /// By what the cloud counts failures: an account or an access key.
    identity: u64,
    secret: u64,
    scope: u64,
    /// Whether attempts of a trusted secret may be in flight in any number: signed requests, of which
    /// there are many, as against logins.
    unlimited: bool,
}

/// All breakers.
#[derive(Debug)]
pub(crate) struct Breakers {
    pub(crate) pacing: Arc<Pacing>,
    hasher: RandomState,
    by_identity: Mutex<HashMap<u64, Breaker>>,
    /// An attempt of any identity ended.
    ended: Notify,
}

#[derive(Debug, Default)]
struct Breaker {
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
    /// The scopes that were tried, and whether they were ever accepted.
    scopes: HashMap<u64, bool>,
    /// When one that never was accepted was last tried.
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
    attempt: Attempt,
    /// Whether the secret was accepted before.
    trusted: bool,
    /// Whether a request that got no answer may be sent once more. The cloud may have counted it, so only
    /// that of an accepted secret may, while no attempt of its identity is rejected.
    pub(crate) may_repeat: bool,
}

impl Breakers {
    pub(crate) fn new(pacing: Arc<Pacing>) -> Self {
        Self {
            pacing,
            hasher: RandomState::new(),
            by_identity: Mutex::default(),
            ended: Notify::new(),
        }
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
            identity: self.hasher.hash_one(identity),
            secret: self.hasher.hash_one((secrets, host)),
            scope: self.hasher.hash_one(scope),
            unlimited,
        }
    }

    /// Waits until the attempt may be made; an error if the circuit is open to it.
    pub(crate) async fn enter(&self, attempt: Attempt) -> Result<Permit<'_>, Open> {
        loop {
            // From here on no end of another attempt is missed.
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            let entered = self.with(attempt, |breaker| breaker.enter(&self.pacing, attempt));
            if let Some((trusted, may_repeat)) = entered? {
                return Ok(Permit {
                    breakers: self,
                    attempt,
                    trusted,
                    may_repeat,
                });
            }
            ended.await;
        }
    }

    /// Number of open circuits.
    pub(crate) fn open(&self) -> usize {
        let breakers = lock(&self.by_identity);
        breakers
            .values()
            .filter(|breaker| breaker.is_open(&self.pacing))
            .count()
    }

    /// Uses the breaker of the attempt's identity.
    fn with<T>(&self, attempt: Attempt, use_it: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut breakers = lock(&self.by_identity);
        use_it(entry(&mut breakers, attempt.identity, |breaker| {
            breaker.is_of_use(&self.pacing)
        }))
    }
}

impl Permit<'_> {
    /// Records that the cloud accepted the secret, whatever else it answered.
    pub(crate) fn accepted(self) {
        self.breakers.with(self.attempt, |breaker| {
            let secret = breaker.secret(self.attempt);
            secret.accepted = Some(Instant::now());
            secret.rejected = 0;
            secret.scopes.insert(self.attempt.scope, true);
            breaker.consecutive_rejections = 0;
            if !self.trusted {
                breaker.rejected = 0;
                breaker.tried.clear();
                breaker.waiting.clear();
            }
        });
    }

    /// Records that the cloud rejected the secret, with its `answer` for messages. Returns the circuit's
    /// state if it is open to this attempt now.
    pub(crate) fn rejected(self, answer: impl Into<Arc<str>>) -> Option<Open> {
        let pacing = &self.breakers.pacing;
        let (limit, scope) = (pacing.breaker_rejections, self.attempt.scope);
        self.breakers.with(self.attempt, |breaker| {
            let secret = breaker.secrets.entry(self.attempt.secret).or_default();
            let was_accepted = secret.scopes.get(&scope).copied();
            if self.trusted && was_accepted == Some(false) {
                return None;
            }
            secret.rejected += 1;
            if was_accepted != Some(true) {
                secret.scopes.insert(scope, false);
                secret.scope_rejected_at = Some(Instant::now());
            }
            breaker.consecutive_rejections += 1;
            if self.trusted {
                if secret.rejected < limit && breaker.consecutive_rejections < limit {
                    return None;
                }
                // The cloud has accepted the secret before and does not any more.
                secret.accepted = None;
                breaker.rejected = breaker.rejected.max(limit);
            } else {
                breaker.rejected += 1;
            }
            breaker.rejected_at = Some(Instant::now());
            breaker.answer = answer.into();
            breaker.tried.insert(self.attempt.secret);
            (breaker.rejected >= limit).then(|| breaker.stop(pacing, pacing.breaker_pause))
        })
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.breakers.with(self.attempt, |breaker| {
            breaker.secret(self.attempt).in_flight -= 1;
            breaker.in_flight -= u32::from(!self.trusted);
        });
        self.breakers.ended.notify_waiters();
    }
}

impl Breaker {
    fn secret(&mut self, attempt: Attempt) -> &mut Secret {
        self.secrets.entry(attempt.secret).or_default()
    }

    /// If the attempt may be made now, whether the secret is trusted and [`Permit::may_repeat`]; `None`
    /// while as many attempts are in flight as may fail.
    fn enter(&mut self, pacing: &Pacing, attempt: Attempt) -> Result<Option<(bool, bool)>, Open> {
        let secret = entry(&mut self.secrets, attempt.secret, |secret| {
            secret.is_of_use(pacing)
        });
        let trusted = secret.is_trusted(pacing);
        let may_enter = if trusted {
            self.may_enter_trusted(pacing, attempt)?
        } else {
            self.may_enter_untrusted(pacing, attempt)?
        };
        if may_enter {
            self.secret(attempt).in_flight += 1;
            self.in_flight += u32::from(!trusted);
        }
        let may_repeat = trusted && self.consecutive_rejections == 0;
        Ok(may_enter.then_some((trusted, may_repeat)))
    }

    fn may_enter_untrusted(&mut self, pacing: &Pacing, attempt: Attempt) -> Result<bool, Open> {
        let limit = pacing.breaker_rejections;
        let may_enter = if self.rejected < limit {
            self.rejected + self.in_flight < limit
        } else if let Some(wait) = self.wait(pacing, attempt) {
            return Err(self.stop(pacing, wait));
        } else {
            self.in_flight == 0
        };
        if may_enter {
            self.waiting.remove(&attempt.secret);
        }
        Ok(may_enter)
    }

    fn may_enter_trusted(&mut self, pacing: &Pacing, attempt: Attempt) -> Result<bool, Open> {
        let secret = self.secrets.entry(attempt.secret).or_default();
        let is_rejected = secret.scopes.get(&attempt.scope) == Some(&false);
        let since = secret
            .scope_rejected_at
            .map_or(pacing.breaker_pause, |at| at.elapsed());
        if is_rejected && since < pacing.breaker_pause {
            let wait = pacing.breaker_pause.saturating_sub(since);
            return Err(Open {
                rejections: 0,
                ..self.stop(pacing, wait)
            });
        }
        let unlimited = attempt.unlimited && self.consecutive_rejections == 0;
        let may_fail = pacing
            .breaker_rejections
            .saturating_sub(self.consecutive_rejections)
            .max(1);
        let may_enter = unlimited || secret.in_flight < may_fail;
        if may_enter && is_rejected {
            secret.scope_rejected_at = Some(Instant::now());
        }
        Ok(may_enter)
    }

    /// How long the open circuit still stops this attempt; `None` if it may be made.
    fn wait(&mut self, pacing: &Pacing, attempt: Attempt) -> Option<Duration> {
        let pause = pacing.breaker_pause;
        self.waiting
            .retain(|_, stopped_at| stopped_at.elapsed() < 2 * pause);
        let since = self.rejected_at.map_or(pause, |at| at.elapsed());
        let comes_first = !self.tried.contains(&attempt.secret)
            || self.secret(attempt).scopes.get(&attempt.scope) == Some(&true);
        let until = if comes_first {
            if since < pause {
                self.waiting.insert(attempt.secret, Instant::now());
            }
            pause
        } else if self.waiting.is_empty() {
            pause + pause / REJECTED_WAITS_LONGER
        } else {
            since.max(pause) + pause / REJECTED_WAITS_LONGER
        };
        (since < until).then(|| until.saturating_sub(since))
    }

    fn stop(&self, pacing: &Pacing, wait: Duration) -> Open {
        Open {
            rejections: self.rejected.min(pacing.breaker_rejections),
            wait,
            answer: Arc::clone(&self.answer),
        }
    }

    /// Whether it stops attempts. One without a rejection for two pauses counts as closed: the
    /// credential may be gone, which is not reported here.
    fn is_open(&self, pacing: &Pacing) -> bool {
        self.rejected >= pacing.breaker_rejections && self.was_rejected_recently(pacing)
    }

    fn was_rejected_recently(&self, pacing: &Pacing) -> bool {
        self.rejected_at
            .is_some_and(|at| at.elapsed() < 2 * pacing.breaker_pause)
    }

    fn is_of_use(&self, pacing: &Pacing) -> bool {
        let mut secrets = self.secrets.values();
        self.was_rejected_recently(pacing) || secrets.any(|secret| secret.is_of_use(pacing))
    }
}

impl Secret {
    fn is_of_use(&self, pacing: &Pacing) -> bool {
        self.in_flight > 0 || self.is_trusted(pacing)
    }

    fn is_trusted(&self, pacing: &Pacing) -> bool {
        let recent = |at: Instant| at.elapsed() < pacing.breaker_trust;
        self.rejected < pacing.breaker_rejections && self.accepted.is_some_and(recent)
    }
}

#[cfg(test)]
mod tests;
