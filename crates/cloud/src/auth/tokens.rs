//! The tokens of one credential: one login for all who wait (single flight), a refresh at half-life,
//! and a record of failed logins, so that many jobs on a broken credential cause few logins.

use super::{
    Pacing, entry,
    keystone::{Grant, LoginError},
    lock,
    token_memory::TokenMemory,
};
use image_export_model::{JobId, ProjectId};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// A token in use.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) grant: Grant,
    /// Logins in a row, this one included, that replaced a rejected token and whose own tokens the
    /// image service has not accepted.
    consecutive_rejections: u32,
    accepted: AtomicBool,
    /// Since it was last accepted.
    rejected: AtomicBool,
    obtained: Instant,
}

impl Session {
    fn was_accepted(&self) -> bool {
        self.accepted.load(Ordering::Relaxed)
    }

    fn is_rejected(&self) -> bool {
        self.rejected.load(Ordering::Relaxed)
    }

    fn expired(&self) -> bool {
        self.obtained.elapsed() >= self.grant.lifetime
    }
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoToken {
    /// The login failed, now or recently.
    Login(LoginError),
    /// The token in use was rejected and is not replaced: no login yields another one, or the last
    /// fresh one was rejected too, by all or for this job, too short a time ago.
    NotReplaced,
    /// Another caller logs in.
    LoginUnderWay,
}

/// The tokens of one credential: one slot for each login scope.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    slots: Mutex<HashMap<Option<ProjectId>, Arc<Slot>>>,
    pub(crate) delay: LoginDelay,
}

/// Until when the identity service wants no login of a credential, whatever it is for.
#[derive(Debug, Default)]
pub(crate) struct LoginDelay(Mutex<Option<Instant>>);

impl LoginDelay {
    /// How long it lasts, if it does.
    pub(crate) fn left(&self) -> Option<Duration> {
        let until = (*lock(&self.0))?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Makes it last for `pause` at least.
    pub(crate) fn extend(&self, pause: Duration) {
        let mut until = lock(&self.0);
        *until = (*until).max(Some(Instant::now() + pause));
    }
}

#[derive(Debug, Default)]
pub(crate) struct Slot {
    state: Mutex<State>,
    /// Held during a login; nobody waits for it. A cancelled caller releases it, and the next one logs in.
    login: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    session: Option<Arc<Session>>,
    failed: Option<FailedLogin>,
    /// Jobs for which fresh tokens were rejected.
    rejected_jobs: HashMap<JobId, RejectedJob>,
}

#[derive(Debug, Default)]
struct RejectedJob {
    /// Fresh tokens that were rejected for it in a row.
    consecutive: u32,
    /// When the latest of them was obtained.
    obtained: Option<Instant>,
}

#[derive(Debug)]
struct FailedLogin {
    error: LoginError,
    until: Instant,
    consecutive: u32,
}

enum Step {
    Done(Result<Arc<Session>, NoToken>),
    /// Log in; while another caller does, use the old token where there is one.
    LogIn(Option<Arc<Session>>),
}

impl Tokens {
    /// The slot of a scope: the project of the job, or `None` where the entry names its own.
    pub(crate) fn slot(&self, scope: Option<&ProjectId>) -> Arc<Slot> {
        let is_of_use =
            |slot: &Arc<Slot>| Arc::strong_count(slot) > 1 || lock(&slot.state).is_of_use();
        Arc::clone(entry(&mut lock(&self.slots), scope.cloned(), is_of_use))
    }
}

impl Tokens {
    /// Has a token take its share of the memory for tokens, for which the oldest ones of this credential make room.
    /// Where it gets none, it is used for one poll alone.
    pub(crate) fn count(
        &self,
        memory: &TokenMemory,
        namespace: &Arc<str>,
        mut grant: Grant,
    ) -> Grant {
        let share = std::iter::repeat_with(|| memory.take(namespace, grant.bytes()))
            .find(|share| share.is_some() || !self.drop_oldest());
        grant.share = share.flatten().map(Arc::new);
        grant.is_kept = grant.share.is_some();
        grant
    }

    /// Drops the oldest token, of those that no poll is about to use. Returns whether there was one.
    fn drop_oldest(&self) -> bool {
        let mut slots = lock(&self.slots);
        let idle = slots
            .iter()
            .filter(|(_, slot)| Arc::strong_count(slot) == 1);
        let obtained = idle.filter_map(|(scope, slot)| {
            let session = lock(&slot.state).session.as_ref()?.obtained;
            Some((session, scope.clone()))
        });
        let oldest = obtained.min_by_key(|(obtained, _)| *obtained);
        oldest.is_some_and(|(_, scope)| slots.remove(&scope).is_some())
    }
}

impl Slot {
    /// Records that the image service accepted the token for a job.
    pub(crate) fn accept(&self, session: &Session, job_id: &JobId) {
        session.accepted.store(true, Ordering::Relaxed);
        session.rejected.store(false, Ordering::Relaxed);
        lock(&self.state).rejected_jobs.remove(job_id);
    }

    /// Records that the image service rejected a token for a job that had just replaced a rejected one.
    pub(crate) fn reject_fresh(&self, pacing: &Pacing, session: &Session, job_id: &JobId) {
        let is_of_use = |job: &RejectedJob| job.is_paused(pacing);
        let jobs = &mut lock(&self.state).rejected_jobs;
        let job = entry(jobs, job_id.clone(), is_of_use);
        // Polls of the same job at the same time count once.
        if job.obtained < Some(session.obtained) {
            job.obtained = Some(session.obtained);
            job.consecutive += 1;
        }
    }

    /// A token other than the one that was `rejected` for a job, from the cache or by `log_in`. One caller
    /// at a time calls it; the others use the old token unless it is rejected, or come back, and then share
    /// the outcome, also a failed one. `renewable`: a login yields a token that lives longer than the one
    /// before.
    pub(crate) async fn session<F>(
        &self,
        pacing: &Pacing,
        rejected: Option<(&Arc<Session>, &JobId)>,
        renewable: bool,
        log_in: impl FnOnce() -> F,
    ) -> Result<Arc<Session>, NoToken>
    where
        F: Future<Output = Result<Grant, LoginError>>,
    {
        let step = || lock(&self.state).step(pacing, rejected, renewable);
        let old = match step() {
            Step::Done(Ok(session)) if session.is_rejected() => Some(session),
            Step::Done(outcome) => return outcome,
            Step::LogIn(old) => old,
        };
        let Ok(guard) = self.login.try_lock() else {
            let old = old.filter(|old| !old.is_rejected());
            return old.ok_or(NoToken::LoginUnderWay);
        };
        // Another caller may have logged in since the first look.
        if let Step::Done(outcome) = step() {
            return outcome;
        }
        let sent_at = Instant::now();
        let result = log_in().await;
        let outcome = lock(&self.state).record(pacing, result, rejected.is_some(), sent_at);
        drop(guard);
        outcome
    }
}

impl State {
    fn step(
        &self,
        pacing: &Pacing,
        rejected: Option<(&Arc<Session>, &JobId)>,
        renewable: bool,
    ) -> Step {
        let now = Instant::now();
        let paused = self.failed.as_ref().filter(|failed| now < failed.until);
        if let Some(session) = &self.session {
            match rejected.filter(|(rejected, _)| Arc::ptr_eq(rejected, session)) {
                Some((_, job_id))
                    if !renewable || self.is_replaced_too_often(pacing, session, job_id) =>
                {
                    return Step::Done(Err(NoToken::NotReplaced));
                }
                Some(_) => session.rejected.store(true, Ordering::Relaxed),
                None if !session.expired() => {
                    let half_spent = session.obtained.elapsed() >= session.grant.lifetime / 2;
                    let session = Arc::clone(session);
                    return if renewable && half_spent && paused.is_none() {
                        Step::LogIn(Some(session))
                    } else {
                        Step::Done(Ok(session))
                    };
                }
                None => {}
            }
        }
        paused.map_or(Step::LogIn(None), |failed| {
            // The error as of now: with what is left of its `Retry-After`.
            let mut error = failed.error.clone();
            error.retry_after = error.retry_after.map(|_| failed.until - now);
            Step::Done(Err(NoToken::Login(error)))
        })
    }

    /// Whether the token replaced a rejected one too short a time ago to be replaced itself.
    fn is_replaced_too_often(&self, pacing: &Pacing, session: &Session, job_id: &JobId) -> bool {
        if session.was_accepted() {
            // For other jobs, if it was rejected for this one as a fresh one.
            let job = self.rejected_jobs.get(job_id);
            job.is_some_and(|job| job.is_paused(pacing))
        } else {
            let consecutive = session.consecutive_rejections;
            consecutive > 0 && session.obtained.elapsed() < pause(pacing, consecutive)
        }
    }

    /// The token's life counts from `sent_at`, so that it is never taken for longer than it is.
    fn record(
        &mut self,
        pacing: &Pacing,
        result: Result<Grant, LoginError>,
        was_rejected: bool,
        sent_at: Instant,
    ) -> Result<Arc<Session>, NoToken> {
        let error = match result {
            Ok(grant) => {
                let unaccepted = self.session.as_ref().filter(|old| !old.was_accepted());
                let before = unaccepted.map_or(0, |old| old.consecutive_rejections);
                let session = Arc::new(Session {
                    grant,
                    consecutive_rejections: if was_rejected { before + 1 } else { 0 },
                    accepted: AtomicBool::new(false),
                    rejected: AtomicBool::new(false),
                    obtained: sent_at,
                });
                self.session = session.grant.is_kept.then(|| Arc::clone(&session));
                self.failed = None;
                return Ok(session);
            }
            Err(error) => error,
        };
        if error.is_rejection() {
            self.session = None;
        }
        if !error.is_deferred() {
            let consecutive = self.failed.as_ref().map_or(0, |failed| failed.consecutive) + 1;
            self.failed = Some(FailedLogin {
                until: Instant::now() + pause_after(pacing, &error, consecutive),
                error: error.clone(),
                consecutive,
            });
        }
        match &self.session {
            Some(old) if !was_rejected && !old.expired() => Ok(Arc::clone(old)),
            _ => Err(NoToken::Login(error)),
        }
    }

    fn is_of_use(&self) -> bool {
        let paused = |failed: &FailedLogin| Instant::now() < failed.until;
        self.session.as_ref().is_some_and(|old| !old.expired())
            || self.failed.as_ref().is_some_and(paused)
    }
}

impl RejectedJob {
    /// Whether no login is made for it: another token is hardly accepted where the last one is accepted
    /// for other jobs, so the pause grows to 21 h.
    fn is_paused(&self, pacing: &Pacing) -> bool {
        let pause = doubled(pacing.login_rejected, self.consecutive);
        self.obtained.is_some_and(|at| at.elapsed() < pause)
    }
}

fn pause_after(pacing: &Pacing, error: &LoginError, consecutive: u32) -> Duration {
    let own = match error.circuit_open {
        Some(wait) => wait,
        // A little less than the pace of polls after that, or each second one would come too early.
        None if error.is_rejection() => pacing.login_rejected.mul_f64(0.98),
        None => pause(pacing, consecutive),
    };
    let wanted = error.retry_after.unwrap_or_default();
    own.max(wanted.min(pacing.retry_after_max))
}

fn pause(pacing: &Pacing, consecutive: u32) -> Duration {
    doubled(pacing.login_retry_min, consecutive).min(pacing.login_retry_max)
}

/// `first`, doubled with each further time, 8 times at most.
fn doubled(first: Duration, consecutive: u32) -> Duration {
    first * 2_u32.pow(consecutive.saturating_sub(1).min(8))
}

#[cfg(test)]
mod tests;
