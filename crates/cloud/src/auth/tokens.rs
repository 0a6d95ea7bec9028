//! The tokens of one credential: one login for all who wait (single flight), a refresh at half-life,
//! and a record of failed logins, so that many jobs on a broken credential cause few logins.

use super::{
    Pacing,
    keystone::{Grant, LoginError},
};
use image_export_model::ProjectId;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// From this number of projects on, slots that are of no more use are dropped.
const PURGE_FROM: usize = 64;

/// A token in use.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) grant: Grant,
    /// Counts the logins of its slot.
    generation: u64,
    /// Logins in a row, this one included, that replaced a rejected token and whose own tokens the
    /// image service has not accepted.
    consecutive_rejections: u32,
    accepted: AtomicBool,
    obtained: Instant,
}

impl Session {
    /// Records that the image service accepted the token.
    pub(crate) fn accept(&self) {
        self.accepted.store(true, Ordering::Relaxed);
    }

    fn expired(&self, now: Instant) -> bool {
        now >= self.obtained + self.grant.lifetime
    }

    fn half_spent(&self, now: Instant) -> bool {
        now >= self.obtained + self.grant.lifetime / 2
    }
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoToken {
    /// The login failed, now or recently.
    Login(LoginError),
    /// The token in use was rejected and is not replaced: no login yields another one, or the last
    /// fresh one was rejected too, too short a time ago.
    NotReplaced,
}

/// The tokens of one credential: one slot for each login scope.
#[derive(Debug)]
pub(crate) struct Tokens {
    pacing: Arc<Pacing>,
    slots: Mutex<HashMap<Option<ProjectId>, Arc<Slot>>>,
}

#[derive(Debug)]
pub(crate) struct Slot {
    pacing: Arc<Pacing>,
    state: Mutex<State>,
    /// Held during a login. A cancelled caller releases it, and the next one logs in.
    login: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    session: Option<Arc<Session>>,
    failed: Option<FailedLogin>,
    logins: u64,
}

#[derive(Debug)]
struct FailedLogin {
    error: LoginError,
    until: Instant,
    consecutive: u32,
}

enum Step {
    Use(Arc<Session>),
    /// Log in unless a login is in flight already; if one is, use the old token.
    Refresh(Arc<Session>),
    LogIn,
    GiveUp(NoToken),
}

impl Tokens {
    pub(crate) fn new(pacing: Arc<Pacing>) -> Self {
        Self {
            pacing,
            slots: Mutex::default(),
        }
    }

    /// The slot of a scope: the project of the job, or `None` where the entry names its own.
    pub(crate) fn slot(&self, scope: Option<&ProjectId>) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        let scope = scope.cloned();
        if slots.len() >= PURGE_FROM && !slots.contains_key(&scope) {
            let now = Instant::now();
            slots.retain(|_, slot| Arc::strong_count(slot) > 1 || lock(&slot.state).is_of_use(now));
        }
        let slot = slots
            .entry(scope)
            .or_insert_with(|| Arc::new(Slot::new(self.pacing.clone())));
        Arc::clone(slot)
    }
}

impl Slot {
    fn new(pacing: Arc<Pacing>) -> Self {
        Self {
            pacing,
            state: Mutex::default(),
            login: tokio::sync::Mutex::default(),
        }
    }

    /// A token other than `rejected`, from the cache or by `log_in`. One caller at a time calls it, and
    /// those who wait share its outcome, also a failed one. `renewable`: a login yields a token that
    /// lives longer than the one before.
    pub(crate) async fn session<F>(
        &self,
        rejected: Option<&Session>,
        renewable: bool,
        log_in: impl FnOnce() -> F,
    ) -> Result<Arc<Session>, NoToken>
    where
        F: Future<Output = Result<Grant, LoginError>>,
    {
        let first = lock(&self.state).step(&self.pacing, rejected, renewable, Instant::now());
        let guard = match first {
            Step::Use(session) => return Ok(session),
            Step::GiveUp(why) => return Err(why),
            Step::Refresh(session) => match self.login.try_lock() {
                Ok(guard) => guard,
                Err(_) => return Ok(session),
            },
            Step::LogIn => self.login.lock().await,
        };
        // Another caller may have logged in since the first look.
        match lock(&self.state).step(&self.pacing, rejected, renewable, Instant::now()) {
            Step::Use(session) => return Ok(session),
            Step::GiveUp(why) => return Err(why),
            Step::Refresh(_) | Step::LogIn => {}
        }
        let sent_at = Instant::now();
        let result = log_in().await;
        let outcome = lock(&self.state).record(&self.pacing, result, rejected, sent_at);
        drop(guard);
        outcome
    }
}

impl State {
    fn step(
        &self,
        pacing: &Pacing,
        rejected: Option<&Session>,
        renewable: bool,
        now: Instant,
    ) -> Step {
        let paused = self.failed.as_ref().filter(|failed| now < failed.until);
        let is_rejected = |session: &Session| {
            rejected.is_some_and(|rejected| rejected.generation >= session.generation)
        };
        match &self.session {
            Some(session) if is_rejected(session) => {
                let too_soon = !session.accepted.load(Ordering::Relaxed)
                    && session.consecutive_rejections > 0
                    && now < session.obtained + pause(pacing, session.consecutive_rejections);
                if !renewable || too_soon {
                    return Step::GiveUp(NoToken::NotReplaced);
                }
            }
            Some(session) if !session.expired(now) => {
                let due = renewable && session.half_spent(now) && paused.is_none();
                let session = Arc::clone(session);
                return if due {
                    Step::Refresh(session)
                } else {
                    Step::Use(session)
                };
            }
            _ => {}
        }
        match paused {
            Some(failed) => Step::GiveUp(NoToken::Login(failed.remembered(now))),
            None => Step::LogIn,
        }
    }

    /// The token's life counts from `sent_at`, so that it is never taken for longer than it is.
    fn record(
        &mut self,
        pacing: &Pacing,
        result: Result<Grant, LoginError>,
        rejected: Option<&Session>,
        sent_at: Instant,
    ) -> Result<Arc<Session>, NoToken> {
        let now = Instant::now();
        match result {
            Ok(grant) => {
                self.logins += 1;
                let consecutive_rejections = match (rejected, &self.session) {
                    (Some(_), Some(old)) if !old.accepted.load(Ordering::Relaxed) => {
                        old.consecutive_rejections + 1
                    }
                    (Some(_), _) => 1,
                    (None, _) => 0,
                };
                let session = Arc::new(Session {
                    grant,
                    generation: self.logins,
                    consecutive_rejections,
                    accepted: AtomicBool::new(false),
                    obtained: sent_at,
                });
                self.session = Some(Arc::clone(&session));
                self.failed = None;
                Ok(session)
            }
            Err(error) => {
                let consecutive = self.failed.as_ref().map_or(0, |failed| failed.consecutive) + 1;
                let until = now + pause_after(pacing, &error, consecutive);
                if error.is_rejection() {
                    self.session = None;
                }
                self.failed = Some(FailedLogin {
                    error: error.clone(),
                    until,
                    consecutive,
                });
                match &self.session {
                    Some(old) if rejected.is_none() && !old.expired(now) => Ok(Arc::clone(old)),
                    _ => Err(NoToken::Login(error)),
                }
            }
        }
    }

    fn is_of_use(&self, now: Instant) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| !session.expired(now))
            || self
                .failed
                .as_ref()
                .is_some_and(|failed| now < failed.until)
    }
}

impl FailedLogin {
    /// The error as of `now`: with what is left of its `Retry-After`.
    fn remembered(&self, now: Instant) -> LoginError {
        let mut error = self.error.clone();
        error.retry_after = error.retry_after.map(|_| self.until - now);
        error
    }
}

fn pause_after(pacing: &Pacing, error: &LoginError, consecutive: u32) -> Duration {
    let own = match error.circuit_open {
        Some(wait) => wait,
        None if error.is_rejection() => pacing.login_rejected,
        None => pause(pacing, consecutive),
    };
    own.max(
        error
            .retry_after
            .unwrap_or_default()
            .min(pacing.retry_after_max),
    )
}

fn pause(pacing: &Pacing, consecutive: u32) -> Duration {
    let doublings = consecutive.saturating_sub(1).min(8);
    (pacing.login_retry_min * 2_u32.pow(doublings)).min(pacing.login_retry_max)
}

/// The data behind these locks is valid at each moment, so a poisoned lock is used all the same.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
