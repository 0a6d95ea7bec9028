//! One circuit breaker a login identity, across Secrets and namespaces: clouds lock an account or an
//! access key for everybody after a few rejections in a row, so we stop well before.
//!
//! Contents that the cloud has accepted within a day are trusted and go on: somebody else's Secret
//! with a wrong password for the same user cannot stop its owner.

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

impl Attempt {
    fn key(self) -> (u64, u64) {
        (self.content, self.scope)
    }
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
    /// Rejections in a row of contents that were not trusted.
    rejected: u32,
    /// Attempts of such contents that have not ended.
    under_way: u32,
    /// When the latest of them came.
    rejected_at: Option<Instant>,
    /// What the cloud said to it, in words for a message.
    answer: Arc<str>,
    /// What was rejected since the latest acceptance.
    tried: HashSet<(u64, u64)>,
    /// What was not, and when it last asked in vain: it comes first.
    waiting: HashMap<(u64, u64), Instant>,
    contents: HashMap<u64, Content>,
}

#[derive(Debug, Default)]
struct Content {
    accepted: Option<Instant>,
    /// Rejections in a row.
    rejected: u32,
    under_way: u32,
}

/// The breaker is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Open {
    /// Rejections in a row that opened it.
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
            .filter(|breaker| lock(&breaker.state).rejected >= self.pacing.breaker_rejections)
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
    /// The cloud took the secret for right, whatever else it said.
    pub(super) fn accepted(mut self) {
        self.ended = true;
        let state = &mut *lock(&self.breaker.state);
        let content = state.end(self.attempt, self.trusted);
        content.accepted = Some(Instant::now());
        content.rejected = 0;
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
        let pacing = &self.breakers.pacing;
        let state = &mut *lock(&self.breaker.state);
        let content = state.end(self.attempt, self.trusted);
        content.rejected += 1;
        if self.trusted {
            if content.rejected < pacing.breaker_rejections {
                return None;
            }
            // What the cloud took until today it does not take any more.
            state.rejected = state.rejected.max(pacing.breaker_rejections);
        } else {
            state.rejected += 1;
        }
        state.rejected_at = Some(Instant::now());
        state.answer = answer.into();
        state
            .tried
            .insert((self.attempt.content, self.attempt.scope));
        (state.rejected >= pacing.breaker_rejections).then(|| state.stop(pacing.breaker_pause))
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
            let free = attempt.unlimited && content.rejected == 0;
            if !free && content.rejected + content.under_way >= limit {
                return Step::Wait;
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
        self.waiting.remove(&attempt.key());
        Step::Go { trusted: false }
    }

    /// How long an open breaker keeps this attempt from being made.
    fn wait(&mut self, pacing: &Pacing, attempt: Attempt, now: Instant) -> Option<Duration> {
        let pause = pacing.breaker_pause;
        self.waiting.retain(|_, asked| now - *asked < 2 * pause);
        let since = self.rejected_at.map_or(pause, |at| now - at);
        let until = if !self.tried.contains(&attempt.key()) {
            if since < pause {
                self.waiting.insert(attempt.key(), now);
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
mod tests {
    use super::*;
    use futures::future::join_all;

    const MINUTE: Duration = Duration::from_secs(60);

    fn breakers() -> Breakers {
        Breakers::new(Arc::default())
    }

    /// A login of Alice with this password.
    fn login(breakers: &Breakers, password: &str) -> Attempt {
        login_to(breakers, password, "p1")
    }

    fn login_to(breakers: &Breakers, password: &str, project: &str) -> Attempt {
        breakers.attempt("alice", [&password.into()], "iam", project, false)
    }

    async fn reject(breakers: &Breakers, attempt: Attempt) -> Option<Open> {
        let permit = breakers.enter(attempt).await.expect("leave to try");
        permit.rejected("401")
    }

    async fn accept(breakers: &Breakers, attempt: Attempt) {
        breakers
            .enter(attempt)
            .await
            .expect("leave to try")
            .accepted();
    }

    /// Lets a cloud reject until nothing may be tried any more; returns how often it did.
    async fn rejected_until_stopped(breakers: &Breakers, attempt: Attempt) -> u32 {
        let mut rejected = 0;
        while let Ok(permit) = breakers.enter(attempt).await {
            let _ = permit.rejected("401");
            rejected += 1;
        }
        rejected
    }

    #[tokio::test(start_paused = true)]
    async fn three_rejections_in_a_row_open_it_for_5_minutes() {
        let breakers = breakers();
        let wrong = login(&breakers, "wrong");
        assert_eq!(reject(&breakers, wrong).await, None);
        assert_eq!(reject(&breakers, wrong).await, None);
        let open = reject(&breakers, wrong).await.expect("open");
        assert_eq!((open.rejections, &*open.answer), (3, "401"));
        assert_eq!(breakers.open(), 1);
        tokio::time::advance(4 * MINUTE).await;
        let open = breakers.enter(wrong).await.unwrap_err();
        assert_eq!(open.wait, 2 * MINUTE);
        tokio::time::advance(2 * MINUTE).await;
        assert!(
            reject(&breakers, wrong).await.is_some(),
            "one try, then shut again"
        );
        assert!(breakers.enter(wrong).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_mended_content_comes_before_what_was_rejected_and_closes_it() {
        let breakers = breakers();
        let (wrong, right) = (login(&breakers, "wrong"), login(&breakers, "right"));
        assert_eq!(rejected_until_stopped(&breakers, wrong).await, 3);
        assert!(breakers.enter(right).await.is_err());
        tokio::time::advance(5 * MINUTE).await;
        assert!(breakers.enter(wrong).await.is_err());
        accept(&breakers, right).await;
        assert_eq!(breakers.open(), 0);
        assert_eq!(
            rejected_until_stopped(&breakers, wrong).await,
            3,
            "counted anew"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_untried_is_not_overtaken_by_what_was_rejected() {
        let breakers = breakers();
        let (wrong, right) = (login(&breakers, "wrong"), login(&breakers, "right"));
        rejected_until_stopped(&breakers, wrong).await;
        assert!(breakers.enter(right).await.is_err());
        tokio::time::advance(9 * MINUTE).await;
        let open = breakers.enter(wrong).await.unwrap_err();
        assert_eq!(open.wait, MINUTE, "the other one has its turn");
        accept(&breakers, right).await;
        // One that does not come back is not waited for for ever.
        rejected_until_stopped(&breakers, wrong).await;
        assert!(breakers.enter(login(&breakers, "gone")).await.is_err());
        tokio::time::advance(11 * MINUTE).await;
        assert!(reject(&breakers, wrong).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_with_a_wrong_secret_does_not_stop_the_owner() {
        let breakers = breakers();
        let (owner, stranger) = (login(&breakers, "right"), login(&breakers, "wrong"));
        accept(&breakers, owner).await;
        assert_eq!(rejected_until_stopped(&breakers, stranger).await, 3);
        for _ in 0..10 {
            accept(&breakers, owner).await;
            assert!(
                breakers.enter(stranger).await.is_err(),
                "still shut to the stranger"
            );
        }
        tokio::time::advance(25 * 60 * MINUTE).await;
        accept(&breakers, login(&breakers, "right")).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_whose_password_was_changed_stops_after_three_as_well() {
        let breakers = breakers();
        let projects = ["p1", "p2", "p3", "p4", "p5"].map(|p| login_to(&breakers, "old", p));
        for project in projects {
            accept(&breakers, project).await;
        }
        let mut rejected = 0;
        for project in projects.iter().cycle().take(20) {
            if let Ok(permit) = breakers.enter(*project).await {
                let _ = permit.rejected("401");
                rejected += 1;
            }
        }
        assert_eq!(rejected, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn acceptance_counts_for_a_day() {
        let breakers = breakers();
        let login = login(&breakers, "right");
        accept(&breakers, login).await;
        tokio::time::advance(25 * 60 * MINUTE).await;
        assert_eq!(rejected_until_stopped(&breakers, login).await, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_attempts_are_under_way_than_may_fail() {
        let breakers = breakers();
        let tried = Mutex::new(0);
        let all = (0..1000).map(|n| {
            let attempt = login(&breakers, &format!("wrong {n}"));
            let (breakers, tried) = (&breakers, &tried);
            async move {
                if let Ok(permit) = breakers.enter(attempt).await {
                    *lock(tried) += 1;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    let _ = permit.rejected("401");
                }
            }
        });
        join_all(all).await;
        assert_eq!(*lock(&tried), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_is_given_up_makes_room_for_the_next() {
        let breakers = breakers();
        let attempt = login(&breakers, "right");
        let three = join_all((0..3).map(|_| breakers.enter(attempt))).await;
        let impatient = tokio::time::timeout(MINUTE, breakers.enter(attempt)).await;
        assert!(impatient.is_err());
        drop(three);
        accept(&breakers, attempt).await;
    }

    #[tokio::test(start_paused = true)]
    async fn signed_requests_of_a_trusted_key_are_not_counted_while_under_way() {
        let breakers = breakers();
        let signed = breakers.attempt("AK", [&"sk".into()], "ims", "", true);
        accept(&breakers, signed).await;
        let many = join_all((0..100).map(|_| breakers.enter(signed))).await;
        assert!(many.iter().all(Result::is_ok));
    }

    #[tokio::test(start_paused = true)]
    async fn identities_that_are_not_used_any_more_are_forgotten() {
        let breakers = breakers();
        for n in 0..10 * MANY {
            let attempt = breakers.attempt(n, [&"x".into()], "iam", "", false);
            drop(breakers.enter(attempt).await);
        }
        assert!(lock(&breakers.by_identity).len() <= MANY);
        let wrong = login(&breakers, "wrong");
        rejected_until_stopped(&breakers, wrong).await;
        for n in 0..10 * MANY {
            let attempt = breakers.attempt(n, [&"x".into()], "iam", "", false);
            drop(breakers.enter(attempt).await);
        }
        assert!(breakers.enter(wrong).await.is_err(), "an open one is kept");
    }
}
