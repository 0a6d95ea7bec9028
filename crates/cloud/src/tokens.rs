//! The tokens of one credential: one login for everybody who waits, refreshed at half-life, and a
//! memory of failed logins so that many objects on a broken credential cause few of them.

use super::{
    Pacing,
    keystone::{Grant, LoginProblem, LoginTrouble},
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// From how many projects on tokens that nobody can use any more are looked for and dropped.
const MANY_PROJECTS: usize = 64;

/// A token in use.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) grant: Grant,
    /// Counts the logins of its slot.
    generation: u64,
    /// Logins in a row, this one included, that followed a rejection by the query endpoint and
    /// whose tokens were not accepted there.
    in_vain: u32,
    accepted: AtomicBool,
    obtained: Instant,
}

impl Session {
    /// A token that is used as it is given, without a login.
    pub(super) fn given(grant: Grant) -> Self {
        Self {
            grant,
            generation: 0,
            in_vain: 0,
            accepted: AtomicBool::new(false),
            obtained: Instant::now(),
        }
    }

    /// Notes that the query endpoint took the token.
    pub(super) fn accept(&self) {
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
pub(super) enum NoToken {
    /// The login failed, now or a moment ago.
    Trouble(LoginTrouble),
    /// The token in use was rejected, and a fresh one is not to be had: none can be got, or the
    /// last one was rejected too, too short a time ago.
    NoFreshOne,
}

/// One slot a login scope.
#[derive(Debug)]
pub(super) struct Tokens {
    pacing: Arc<Pacing>,
    slots: Mutex<HashMap<Option<Box<str>>, Arc<Slot>>>,
}

#[derive(Debug)]
pub(super) struct Slot {
    pacing: Arc<Pacing>,
    state: Mutex<State>,
    /// Held while signing in. A caller that is cancelled gives it up, and the next one signs in.
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
    trouble: LoginTrouble,
    until: Instant,
    in_a_row: u32,
}

enum Step {
    Use(Arc<Session>),
    /// Sign in if nobody does yet, else go on with the old token.
    Refresh(Arc<Session>),
    SignIn,
    GiveUp(NoToken),
}

impl Tokens {
    pub(super) fn new(pacing: Arc<Pacing>) -> Self {
        Self {
            pacing,
            slots: Mutex::default(),
        }
    }

    /// The slot of a scope: the project asked for, or `None` where the entry names its own.
    pub(super) fn slot(&self, scope: Option<&str>) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        let scope = scope.map(Box::from);
        if slots.len() >= MANY_PROJECTS && !slots.contains_key(&scope) {
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

    /// A token other than `rejected`, from the cache or by `sign_in`, which is called by one
    /// caller at a time; those who wait share its outcome, also a failed one. `renewable` tells
    /// whether a login can give a token that lives longer than the one before.
    pub(super) async fn session<F>(
        &self,
        rejected: Option<&Session>,
        renewable: bool,
        sign_in: impl FnOnce() -> F,
    ) -> Result<Arc<Session>, NoToken>
    where
        F: Future<Output = Result<Grant, LoginTrouble>>,
    {
        let first = lock(&self.state).step(&self.pacing, rejected, renewable, Instant::now());
        let guard = match first {
            Step::Use(session) => return Ok(session),
            Step::GiveUp(why) => return Err(why),
            Step::Refresh(session) => match self.login.try_lock() {
                Ok(guard) => guard,
                Err(_) => return Ok(session),
            },
            Step::SignIn => self.login.lock().await,
        };
        // Somebody may have signed in since the first look.
        match lock(&self.state).step(&self.pacing, rejected, renewable, Instant::now()) {
            Step::Use(session) => return Ok(session),
            Step::GiveUp(why) => return Err(why),
            Step::Refresh(_) | Step::SignIn => {}
        }
        let asked_at = Instant::now();
        let result = sign_in().await;
        let outcome = lock(&self.state).record(&self.pacing, result, rejected, asked_at);
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
                    && session.in_vain > 0
                    && now < session.obtained + pause(pacing, session.in_vain);
                if !renewable || too_soon {
                    return Step::GiveUp(NoToken::NoFreshOne);
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
            Some(failed) => Step::GiveUp(NoToken::Trouble(failed.remembered(now))),
            None => Step::SignIn,
        }
    }

    /// `asked_at` is when the login was sent: a token is never believed to live longer than it does.
    fn record(
        &mut self,
        pacing: &Pacing,
        result: Result<Grant, LoginTrouble>,
        rejected: Option<&Session>,
        asked_at: Instant,
    ) -> Result<Arc<Session>, NoToken> {
        let now = Instant::now();
        match result {
            Ok(grant) => {
                self.logins += 1;
                let in_vain = match (rejected, &self.session) {
                    (Some(_), Some(old)) if !old.accepted.load(Ordering::Relaxed) => {
                        old.in_vain + 1
                    }
                    (Some(_), _) => 1,
                    (None, _) => 0,
                };
                let session = Arc::new(Session {
                    grant,
                    generation: self.logins,
                    in_vain,
                    accepted: AtomicBool::new(false),
                    obtained: asked_at,
                });
                self.session = Some(Arc::clone(&session));
                self.failed = None;
                Ok(session)
            }
            Err(trouble) => {
                let in_a_row = self.failed.as_ref().map_or(0, |failed| failed.in_a_row) + 1;
                let until = now + pause_after(pacing, &trouble, in_a_row);
                if trouble.problem.is_rejection() {
                    self.session = None;
                }
                self.failed = Some(FailedLogin {
                    trouble: trouble.clone(),
                    until,
                    in_a_row,
                });
                match &self.session {
                    Some(old) if rejected.is_none() && !old.expired(now) => Ok(Arc::clone(old)),
                    _ => Err(NoToken::Trouble(trouble)),
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
    /// The trouble as it is `now`: what is left of the time that was asked for.
    fn remembered(&self, now: Instant) -> LoginTrouble {
        let mut trouble = self.trouble.clone();
        trouble.retry_after = trouble.retry_after.map(|_| self.until - now);
        trouble
    }
}

fn pause_after(pacing: &Pacing, trouble: &LoginTrouble, in_a_row: u32) -> Duration {
    let own = match &trouble.problem {
        LoginProblem::Barred(_, wait) => *wait,
        problem if problem.is_rejection() => pacing.login_rejected,
        LoginProblem::Refused(_) | LoginProblem::Failed(_) => pause(pacing, in_a_row),
    };
    own.max(
        trouble
            .retry_after
            .unwrap_or_default()
            .min(pacing.retry_after_max),
    )
}

fn pause(pacing: &Pacing, in_a_row: u32) -> Duration {
    let doublings = in_a_row.saturating_sub(1).min(8);
    (pacing.login_retry_min * 2_u32.pow(doublings)).min(pacing.login_retry_max)
}

/// The data behind these locks is valid at each moment, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EndpointPolicy, endpoint::Endpoint, text::Redactor};
    use futures::future::join_all;
    use image_export_model::{ConfigurationReason, Failure, FailureKind, Stage};
    use std::cell::Cell;

    const HOUR: Duration = Duration::from_secs(3600);

    fn grant() -> Grant {
        let policy = EndpointPolicy::default();
        let endpoint = Endpoint::parse("https://ims.eu-de.otc.t-systems.com", &policy).unwrap();
        Grant::new(&"token".into(), None, endpoint, HOUR, Redactor::default()).unwrap()
    }

    fn failed(retry_after: Option<Duration>) -> LoginTrouble {
        let failure = Failure {
            kind: FailureKind::Http,
            stage: Stage::Login,
            message: "503".into(),
        };
        LoginTrouble {
            problem: LoginProblem::Failed(failure),
            retry_after,
        }
    }

    fn wrong_password() -> LoginTrouble {
        let problem =
            LoginProblem::refused(ConfigurationReason::CredentialsInvalid, "401".to_owned());
        LoginTrouble {
            problem,
            retry_after: None,
        }
    }

    /// A slot and the number of logins it caused.
    struct Counted {
        slot: Slot,
        logins: Cell<u32>,
    }

    impl Default for Counted {
        fn default() -> Self {
            Self {
                slot: Slot::new(Arc::default()),
                logins: Cell::default(),
            }
        }
    }

    impl Counted {
        async fn get(
            &self,
            rejected: Option<&Session>,
            answer: Result<Grant, LoginTrouble>,
        ) -> Result<Arc<Session>, NoToken> {
            self.slot
                .session(rejected, true, || async {
                    self.logins.set(self.logins.get() + 1);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    answer
                })
                .await
        }

        /// Seconds from now until a login is tried again.
        async fn pause(&self, trouble: &LoginTrouble) -> u64 {
            let (started, before) = (Instant::now(), self.logins.get());
            loop {
                let _ = self.get(None, Err(trouble.clone())).await;
                if self.logins.get() > before {
                    return started.elapsed().as_secs() - 1;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_callers_share_one_login_also_a_failed_one() {
        for answer in [Ok(grant()), Err(failed(None)), Err(wrong_password())] {
            let counted = Counted::default();
            let all = join_all((0..1000).map(|_| counted.get(None, answer.clone()))).await;
            assert!(all.iter().all(|one| one.is_ok() == answer.is_ok()));
            assert_eq!(counted.logins.get(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failed_logins_pause_for_5_seconds_doubling_to_60() {
        let counted = Counted::default();
        let mut pauses = Vec::new();
        for _ in 0..7 {
            pauses.push(counted.pause(&failed(None)).await);
        }
        assert_eq!(pauses, [0, 5, 10, 20, 40, 60, 60]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejected_login_is_not_repeated_for_5_minutes() {
        let counted = Counted::default();
        counted.pause(&wrong_password()).await;
        assert_eq!(counted.pause(&wrong_password()).await, 300);
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_obeyed_up_to_15_minutes_and_passed_on_as_what_is_left() {
        let counted = Counted::default();
        counted.pause(&failed(Some(HOUR))).await;
        tokio::time::sleep(Duration::from_secs(100)).await;
        let Err(NoToken::Trouble(remembered)) = counted.get(None, Ok(grant())).await else {
            panic!("not paused");
        };
        assert_eq!(remembered.retry_after, Some(Duration::from_secs(800)));
        assert_eq!(counted.pause(&failed(None)).await, 800);
    }

    #[tokio::test(start_paused = true)]
    async fn past_half_life_one_caller_refreshes_and_the_others_do_not_wait() {
        let counted = Counted::default();
        let old = counted.get(None, Ok(grant())).await.unwrap();
        tokio::time::advance(HOUR / 2).await;
        let all = join_all((0..10).map(|_| counted.get(None, Ok(grant())))).await;
        let still_old = all
            .iter()
            .filter(|one| Arc::ptr_eq(one.as_ref().unwrap(), &old))
            .count();
        assert_eq!((still_old, counted.logins.get()), (9, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_refresh_leaves_the_old_token_in_use_until_it_expires() {
        let counted = Counted::default();
        let old = counted.get(None, Ok(grant())).await.unwrap();
        tokio::time::advance(HOUR / 2).await;
        for _ in 0..3 {
            let still = counted.get(None, Err(failed(None))).await.unwrap();
            assert!(Arc::ptr_eq(&still, &old));
        }
        assert_eq!(counted.logins.get(), 2);
        tokio::time::advance(HOUR / 2).await;
        assert!(counted.get(None, Err(failed(None))).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejected_refresh_ends_the_old_token() {
        let counted = Counted::default();
        counted.get(None, Ok(grant())).await.unwrap();
        tokio::time::advance(HOUR / 2).await;
        assert!(counted.get(None, Err(wrong_password())).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn many_callers_with_a_rejected_token_share_one_fresh_one() {
        let counted = Counted::default();
        let old = counted.get(None, Ok(grant())).await.unwrap();
        let all = join_all((0..1000).map(|_| counted.get(Some(&old), Ok(grant())))).await;
        assert!(
            all.iter()
                .all(|fresh| !Arc::ptr_eq(fresh.as_ref().unwrap(), &old))
        );
        assert_eq!(counted.logins.get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn fresh_tokens_rejected_in_a_row_are_replaced_ever_more_slowly_until_one_is_accepted() {
        let counted = Counted::default();
        let mut token = counted.get(None, Ok(grant())).await.unwrap();
        for seconds in [0, 5, 10, 20, 40, 60, 60] {
            if seconds > 0 {
                tokio::time::advance(Duration::from_secs(seconds - 2)).await;
                let early = counted.get(Some(&token), Ok(grant())).await;
                assert_eq!(early.unwrap_err(), NoToken::NoFreshOne);
                tokio::time::advance(Duration::from_secs(2)).await;
            }
            token = counted.get(Some(&token), Ok(grant())).await.unwrap();
        }
        token.accept();
        assert!(counted.get(Some(&token), Ok(grant())).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_is_cancelled_leaves_the_login_to_the_next() {
        let counted = Counted::default();
        let impatient =
            tokio::time::timeout(Duration::from_millis(500), counted.get(None, Ok(grant())));
        assert!(impatient.await.is_err());
        assert!(counted.get(None, Ok(grant())).await.is_ok());
        assert_eq!(counted.logins.get(), 2);
    }

    #[test]
    fn slots_of_projects_that_nobody_asks_for_any_more_are_dropped() {
        let tokens = Tokens::new(Arc::default());
        let kept = tokens.slot(Some("kept"));
        for project in 0..10 * MANY_PROJECTS {
            tokens.slot(Some(&project.to_string()));
        }
        assert!(lock(&tokens.slots).len() <= MANY_PROJECTS);
        assert!(Arc::ptr_eq(&kept, &tokens.slot(Some("kept"))));
    }
}
