//! How tokens are shared, refreshed and replaced, in virtual time.

use super::{super::PURGE_FROM, *};
use crate::{
    config::{Endpoint, EndpointPolicy},
    outcome,
    wire::text::Redactor,
};
use futures::future::join_all;
use image_export_model::{ConfigurationReason, FailureKind, Outcome, Stage};
use std::cell::Cell;

const HOUR: Duration = Duration::from_secs(3600);

fn grant() -> Grant {
    let policy = EndpointPolicy::default();
    let endpoint = Endpoint::parse("https://ims.eu-de.otc.t-systems.com", &policy).unwrap();
    Grant::new(&"token".into(), None, endpoint, HOUR, Redactor::default()).unwrap()
}

fn job_id(job: &str) -> JobId {
    job.parse().unwrap()
}

fn failed(retry_after: Option<Duration>) -> LoginError {
    LoginError {
        retry_after,
        ..outcome::failed(Stage::Login, FailureKind::Http, "503".to_owned()).into()
    }
}

fn wrong_password() -> LoginError {
    outcome::misconfigured(ConfigurationReason::CredentialsInvalid, "401".to_owned()).into()
}

/// A slot and the number of logins it caused.
#[derive(Default)]
struct Counted {
    slot: Slot,
    logins: Cell<u32>,
}

impl Counted {
    async fn get(
        &self,
        rejected: Option<&Arc<Session>>,
        answer: Result<Grant, LoginError>,
    ) -> Result<Arc<Session>, NoToken> {
        self.get_for("job", rejected, answer).await
    }

    async fn get_for(
        &self,
        job: &str,
        rejected: Option<&Arc<Session>>,
        answer: Result<Grant, LoginError>,
    ) -> Result<Arc<Session>, NoToken> {
        let job = job_id(job);
        let rejected = rejected.map(|session| (session, &job));
        self.slot
            .session(&Pacing::default(), rejected, true, || async {
                self.logins.set(self.logins.get() + 1);
                tokio::time::sleep(Duration::from_secs(1)).await;
                answer
            })
            .await
    }

    /// Seconds from now until a login is tried again.
    async fn pause(&self, error: &LoginError) -> u64 {
        let (started, before) = (Instant::now(), self.logins.get());
        loop {
            let _ = self.get(None, Err(error.clone())).await;
            if self.logins.get() > before {
                return started.elapsed().as_secs() - 1;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

fn is_under_way(session: &Result<Arc<Session>, NoToken>) -> bool {
    matches!(session, Err(NoToken::LoginUnderWay))
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_share_one_login_also_a_failed_one_and_none_waits_for_it() {
    for answer in [Ok(grant()), Err(failed(None)), Err(wrong_password())] {
        let counted = Counted::default();
        let all = join_all((0..1000).map(|_| counted.get(None, answer.clone()))).await;
        assert!(all.iter().skip(1).all(is_under_way));
        assert_eq!(all[0].is_ok(), answer.is_ok());
        let started = Instant::now();
        let again = join_all((0..1000).map(|_| counted.get(None, answer.clone()))).await;
        assert!(again.iter().all(|one| one.is_ok() == answer.is_ok()));
        assert!(!again.iter().any(is_under_way));
        assert_eq!(
            (counted.logins.get(), started.elapsed()),
            (1, Duration::ZERO)
        );
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
async fn a_rejected_login_is_repeated_by_a_poll_5_minutes_later() {
    let counted = Counted::default();
    counted.pause(&wrong_password()).await;
    assert_eq!(counted.pause(&wrong_password()).await, 294);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_obeyed_up_to_15_minutes_and_passed_on_as_what_is_left() {
    let counted = Counted::default();
    counted.pause(&failed(Some(HOUR))).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    let Err(NoToken::Login(remembered)) = counted.get(None, Ok(grant())).await else {
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
    let fresh = all[0].as_ref().unwrap();
    assert!(!Arc::ptr_eq(fresh, &old));
    assert!(all.iter().skip(1).all(is_under_way));
    let again = join_all((0..1000).map(|_| counted.get(Some(&old), Ok(grant())))).await;
    assert!(
        again
            .iter()
            .all(|one| Arc::ptr_eq(one.as_ref().unwrap(), fresh))
    );
    assert_eq!(counted.logins.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_not_used_while_it_is_replaced_unless_it_is_accepted_again() {
    for is_accepted in [false, true] {
        let counted = Counted::default();
        let old = counted.get(None, Ok(grant())).await.unwrap();
        let replaced = counted.get_for("rejected", Some(&old), Ok(grant()));
        let others = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            if is_accepted {
                counted.slot.accept(&old, &job_id("other"));
            }
            counted.get_for("other", None, Ok(grant())).await
        };
        let (replaced, other) = tokio::join!(replaced, others);
        assert!(replaced.is_ok());
        if is_accepted {
            assert!(Arc::ptr_eq(&other.unwrap(), &old));
        } else {
            assert!(is_under_way(&other));
        }
        assert_eq!(counted.logins.get(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_that_is_deferred_is_not_a_failed_one() {
    let deferred = || LoginError::from(Outcome::Deferred(Duration::from_secs(1)));
    let counted = Counted::default();
    for _ in 0..3 {
        let error = counted.get(None, Err(deferred())).await.unwrap_err();
        assert_eq!(error, NoToken::Login(deferred()));
    }
    let old = counted.get(None, Ok(grant())).await.unwrap();
    assert_eq!(counted.logins.get(), 4, "each was tried");
    tokio::time::advance(HOUR / 2).await;
    let still = counted.get(None, Err(deferred())).await.unwrap();
    assert!(Arc::ptr_eq(&still, &old));
    let fresh = counted.get(None, Ok(grant())).await.unwrap();
    assert!(!Arc::ptr_eq(&fresh, &old));
}

#[tokio::test(start_paused = true)]
async fn fresh_tokens_rejected_in_a_row_are_replaced_ever_more_slowly_until_one_is_accepted() {
    let counted = Counted::default();
    let mut token = counted.get(None, Ok(grant())).await.unwrap();
    for seconds in [0, 5, 10, 20, 40, 60, 60] {
        if seconds > 0 {
            tokio::time::advance(Duration::from_secs(seconds - 2)).await;
            let early = counted.get(Some(&token), Ok(grant())).await;
            assert_eq!(early.unwrap_err(), NoToken::NotReplaced);
            tokio::time::advance(Duration::from_secs(2)).await;
        }
        token = counted.get(Some(&token), Ok(grant())).await.unwrap();
    }
    counted.slot.accept(&token, &job_id("job"));
    assert!(counted.get(Some(&token), Ok(grant())).await.is_ok());
}

/// One job is always rejected, beside another that is always accepted.
#[tokio::test(start_paused = true)]
async fn a_token_that_is_accepted_for_other_jobs_is_replaced_ever_more_slowly_for_one() {
    let counted = Counted::default();
    let (good, bad) = (job_id("good"), job_id("bad"));
    let pacing = Pacing::default();
    let mut logins = Vec::new();
    for poll in 0..100 {
        let token = counted.get_for("good", None, Ok(grant())).await.unwrap();
        counted.slot.accept(&token, &good);
        match counted.get_for("bad", Some(&token), Ok(grant())).await {
            Ok(fresh) => {
                logins.push(poll);
                counted.slot.reject_fresh(&pacing, &fresh, &bad);
                counted.slot.reject_fresh(&pacing, &fresh, &bad);
            }
            Err(error) => assert_eq!(error, NoToken::NotReplaced),
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    // Minutes: 5, 10, 20 and so on between them; every half hour the token is refreshed anyway.
    assert_eq!(logins, [0, 5, 15, 35, 75]);

    // For the others a dead token is replaced at once, for a job that was never polled before too.
    for job in ["good", "new"] {
        let token = counted.get_for(job, None, Ok(grant())).await.unwrap();
        counted.slot.accept(&token, &good);
        assert!(
            counted
                .get_for(job, Some(&token), Ok(grant()))
                .await
                .is_ok()
        );
    }
    // As it is for this one, once a token was accepted for it.
    let token = counted.get_for("bad", None, Ok(grant())).await.unwrap();
    counted.slot.accept(&token, &good);
    assert!(
        counted
            .get_for("bad", Some(&token), Ok(grant()))
            .await
            .is_err()
    );
    counted.slot.accept(&token, &bad);
    assert!(
        counted
            .get_for("bad", Some(&token), Ok(grant()))
            .await
            .is_ok()
    );
}

#[tokio::test(start_paused = true)]
async fn rejected_jobs_that_are_not_polled_any_more_are_forgotten() {
    let counted = Counted::default();
    for number in 0..10 * PURGE_FROM {
        let token = counted.get(None, Ok(grant())).await.unwrap();
        let job = job_id(&number.to_string());
        let pacing = Pacing::default();
        counted.slot.reject_fresh(&pacing, &token, &job);
        tokio::time::advance(Duration::from_secs(60)).await;
    }
    assert!(lock(&counted.slot.state).rejected_jobs.len() <= PURGE_FROM);
}

#[tokio::test(start_paused = true)]
async fn a_delay_lasts_as_long_as_the_longest_that_was_wanted() {
    let delay = LoginDelay::default();
    assert_eq!(delay.left(), None);
    delay.extend(Duration::from_secs(60));
    delay.extend(Duration::from_secs(5));
    tokio::time::advance(Duration::from_secs(59)).await;
    assert_eq!(delay.left(), Some(Duration::from_secs(1)));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(delay.left(), None);
    delay.extend(Duration::from_secs(5));
    assert_eq!(delay.left(), Some(Duration::from_secs(5)));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_is_cancelled_leaves_the_login_to_the_next() {
    let counted = Counted::default();
    let impatient =
        tokio::time::timeout(Duration::from_millis(500), counted.get(None, Ok(grant())));
    let early = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        counted.get(None, Ok(grant())).await
    };
    let (cancelled, early) = tokio::join!(impatient, early);
    assert!(cancelled.is_err() && is_under_way(&early));
    assert!(counted.get(None, Ok(grant())).await.is_ok());
    assert_eq!(counted.logins.get(), 2);
}

#[test]
fn slots_of_projects_that_are_not_polled_any_more_are_dropped() {
    let tokens = Tokens::default();
    let project = |name: &str| name.parse::<ProjectId>().unwrap();
    let kept = tokens.slot(Some(&project("kept")));
    for number in 0..10 * PURGE_FROM {
        tokens.slot(Some(&project(&number.to_string())));
    }
    assert!(lock(&tokens.slots).len() <= PURGE_FROM);
    assert!(Arc::ptr_eq(&kept, &tokens.slot(Some(&project("kept")))));
}
