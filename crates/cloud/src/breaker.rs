//! One circuit breaker a login identity, across Secrets and namespaces: clouds lock an account or an
//! access key for everybody after a few rejections in a row, so we stop well before.
//!
//! Contents that the cloud has accepted within a day are trusted and go on: somebody else's Secret
//! with a wrong password for the same user cannot stop its owner. Nor can a project that the user has
//! no role in, which Keystone answers like a wrong password: once refused, such scopes of a trusted
//! content share one attempt a pause and count no more.

use super::Pacing;
use secrecy::{ExposeSecret, SecretString};
use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// From how many identities on forgotten ones are looked for.
const MANY: usize = 64;
/// How much longer what has just been rejected waits than what was not tried yet, so that a mended
/// Secret comes first.
const TRIED_BEFORE: u32 = 5;

/// What an account or a key is known by to the cloud that counts its failures. Compared by hash
/// only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct IdentityHash(u64);

/// What is tried: the secret, and what the login is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Attempt {
    identity: IdentityHash,
    content: u64,
    scope: u64,
    /// Attempts of a trusted content are not counted while they are under way: signed requests,
    /// of which there are many, as against logins.
    unlimited: bool,
}

/// All breakers.
#[derive(Debug)]
pub(super) struct Breakers {
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
    /// Rejections in a row of whatever content: what the cloud counts.
    in_a_row: u32,
    /// Rejections of contents that were not trusted, since one of them was accepted.
    rejected: u32,
    /// Attempts of such contents that have not ended.
    under_way: u32,
    /// When the latest of them came.
    rejected_at: Option<Instant>,
    /// What the cloud said to it, in words for a message.
    answer: Arc<str>,
    /// Contents that were rejected since then.
    tried: HashSet<u64>,
    /// Others, and when they last asked in vain: they come first.
    waiting: HashMap<u64, Instant>,
    contents: HashMap<u64, Content>,
}

#[derive(Debug, Default)]
struct Content {
    accepted: Option<Instant>,
    /// Rejections in a row.
    rejected: u32,
    under_way: u32,
    /// Scopes that were accepted.
    opened: HashSet<u64>,
    /// Scopes that never were, but rejected.
    refused: HashSet<u64>,
    /// When one of those was last tried.
    refused_at: Option<Instant>,
}

/// The breaker is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Open {
    /// Rejections in a row that opened it; 0 where only this scope is refused.
    pub(super) rejections: u32,
    /// How long until an attempt may be made.
    pub(super) wait: Duration,
    /// What the cloud said last.
    pub(super) answer: Arc<str>,
}

/// Leave for one attempt; dropping it without a word means that nothing was learnt.
#[derive(Debug)]
pub(super) struct Permit<'a> {
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
    /// As many attempts are under way as may fail.
    Wait,
    Stop(Open),
}

impl Breakers {
    pub(super) fn new(pacing: Arc<Pacing>) -> Self {
        Self {
            pacing,
            hasher: RandomState::new(),
            by_identity: Mutex::default(),
        }
    }

    /// An attempt of `identity` with `secrets` at `host`, for `scope`.
    pub(super) fn attempt<'s>(
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
            content: self.hasher.hash_one((secrets, host)),
            scope: self.hasher.hash_one(scope),
            unlimited,
        }
    }

    /// Waits until the attempt may be made, or says that it may not.
    pub(super) async fn enter(&self, attempt: Attempt) -> Result<Permit<'_>, Open> {
        let breaker = self.breaker(attempt.identity);
        let trusted = loop {
            // From here on no end is missed.
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

    /// How many are open.
    pub(super) fn open(&self) -> usize {
        let breakers = lock(&self.by_identity);
        breakers
            .values()
            .filter(|breaker| lock(&breaker.state).is_open(&self.pacing))
            .count()
    }

    fn breaker(&self, identity: IdentityHash) -> Arc<Breaker> {
        let mut breakers = lock(&self.by_identity);
        if breakers.len() >= MANY && !breakers.contains_key(&identity) {
            let now = Instant::now();
            breakers.retain(|_, breaker| {
                Arc::strong_count(breaker) > 1 || lock(&breaker.state).is_of_use(&self.pacing, now)
            });
        }
        Arc::clone(breakers.entry(identity).or_default())
    }
}

impl Permit<'_> {
    /// Whether the content was accepted before.
    pub(super) fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// The cloud took the secret for right, whatever else it said.
    pub(super) fn accepted(mut self) {
        self.ended = true;
        let state = &mut *lock(&self.breaker.state);
        let content = state.end(self.attempt, self.trusted);
        content.accepted = Some(Instant::now());
        content.rejected = 0;
        content.opened.insert(self.attempt.scope);
        content.refused.remove(&self.attempt.scope);
        state.in_a_row = 0;
        if !self.trusted {
            state.rejected = 0;
            state.tried.clear();
            state.waiting.clear();
        }
    }

    /// The cloud did not take the secret; `answer` says it in words for a message. Returns the
    /// breaker's state if it is open to this attempt now.
    pub(super) fn rejected(mut self, answer: impl Into<Arc<str>>) -> Option<Open> {
        self.ended = true;
        let limit = self.breakers.pacing.breaker_rejections;
        let state = &mut *lock(&self.breaker.state);
        let scope = self.attempt.scope;
        let content = state.end(self.attempt, self.trusted);
        if self.trusted && content.refused.contains(&scope) {
            return None;
        }
        content.rejected += 1;
        if !content.opened.contains(&scope) {
            content.refused.insert(scope);
            content.refused_at = Some(Instant::now());
        }
        let rejected = content.rejected;
        state.in_a_row += 1;
        if self.trusted {
            if rejected < limit && state.in_a_row < limit {
                return None;
            }
            // What the cloud took until today it does not take any more.
            if let Some(content) = state.contents.get_mut(&self.attempt.content) {
                content.accepted = None;
            }
            state.rejected = state.rejected.max(limit);
        } else {
            state.rejected += 1;
        }
        state.rejected_at = Some(Instant::now());
        state.answer = answer.into();
        state.tried.insert(self.attempt.content);
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
        let limit = pacing.breaker_rejections;
        if self.contents.len() >= MANY {
            self.contents
                .retain(|_, content| content.under_way > 0 || content.is_trusted(pacing, now));
        }
        let content = self.contents.entry(attempt.content).or_default();
        if content.is_trusted(pacing, now) {
            let refused = content.refused.contains(&attempt.scope);
            let since = content
                .refused_at
                .map_or(pacing.breaker_pause, |at| now - at);
            if refused && since < pacing.breaker_pause {
                return Step::Stop(Open {
                    rejections: 0,
                    wait: pacing.breaker_pause.saturating_sub(since),
                    answer: Arc::clone(&self.answer),
                });
            }
            let free = attempt.unlimited && self.in_a_row == 0;
            let may_fail = limit.saturating_sub(self.in_a_row).max(1);
            if !free && content.under_way >= may_fail {
                return Step::Wait;
            }
            if refused {
                content.refused_at = Some(now);
            }
            content.under_way += 1;
            return Step::Go { trusted: true };
        }
        if self.rejected >= limit {
            if let Some(wait) = self.wait(pacing, attempt, now) {
                return Step::Stop(self.stop(wait));
            }
            if self.under_way > 0 {
                return Step::Wait;
            }
        } else if self.rejected + self.under_way >= limit {
            return Step::Wait;
        }
        let content = self.contents.entry(attempt.content).or_default();
        content.under_way += 1;
        self.under_way += 1;
        self.waiting.remove(&attempt.content);
        Step::Go { trusted: false }
    }

    /// How long an open breaker keeps this attempt from being made.
    fn wait(&mut self, pacing: &Pacing, attempt: Attempt, now: Instant) -> Option<Duration> {
        let pause = pacing.breaker_pause;
        self.waiting.retain(|_, asked| now - *asked < 2 * pause);
        let since = self.rejected_at.map_or(pause, |at| now - at);
        let opened = |content: &Content| content.opened.contains(&attempt.scope);
        let comes_first = !self.tried.contains(&attempt.content)
            || self.contents.get(&attempt.content).is_some_and(opened);
        let until = if comes_first {
            if since < pause {
                self.waiting.insert(attempt.content, now);
            }
            pause
        } else if self.waiting.is_empty() {
            pause + pause / TRIED_BEFORE
        } else {
            since.max(pause) + pause / TRIED_BEFORE
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

    fn end(&mut self, attempt: Attempt, trusted: bool) -> &mut Content {
        if !trusted {
            self.under_way -= 1;
        }
        let content = self.contents.entry(attempt.content).or_default();
        content.under_way = content.under_way.saturating_sub(1);
        content
    }

    /// Whether something is kept from trying, as far as is known: nobody tells that a Secret is gone.
    fn is_open(&self, pacing: &Pacing) -> bool {
        let recent = |at: Instant| at.elapsed() < 2 * pacing.breaker_pause;
        self.rejected >= pacing.breaker_rejections && self.rejected_at.is_some_and(recent)
    }

    fn is_of_use(&self, pacing: &Pacing, now: Instant) -> bool {
        self.rejected_at
            .is_some_and(|at| now - at < 2 * pacing.breaker_pause)
            || self
                .contents
                .values()
                .any(|content| content.is_trusted(pacing, now))
    }
}

impl Content {
    fn is_trusted(&self, pacing: &Pacing, now: Instant) -> bool {
        self.rejected < pacing.breaker_rejections
            && self
                .accepted
                .is_some_and(|accepted| now - accepted < pacing.breaker_trust)
    }
}

/// The data behind these locks is valid at each moment, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
