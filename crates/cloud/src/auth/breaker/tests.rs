//! How the breaker counts, in virtual time.

use super::{super::PURGE_FROM, *};
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
    let permit = breakers.enter(attempt).await.expect("a permit");
    permit.rejected("401")
}

async fn accept(breakers: &Breakers, attempt: Attempt) {
    breakers.enter(attempt).await.expect("a permit").accepted();
}

/// Lets a cloud reject until the circuit is open; returns how often it did.
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
        "one attempt, then open again"
    );
    assert!(breakers.enter(wrong).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_fixed_secret_comes_before_rejected_ones_and_closes_the_circuit() {
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
async fn an_untried_secret_is_not_overtaken_by_a_rejected_one() {
    let breakers = breakers();
    let (wrong, right) = (login(&breakers, "wrong"), login(&breakers, "right"));
    rejected_until_stopped(&breakers, wrong).await;
    assert!(breakers.enter(right).await.is_err());
    tokio::time::advance(9 * MINUTE).await;
    let open = breakers.enter(wrong).await.unwrap_err();
    assert_eq!(open.wait, MINUTE, "the untried one comes first");
    accept(&breakers, right).await;
    // An untried secret that does not come back does not block for ever.
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
            "still open to the stranger"
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

/// Makes all attempts at once; each is rejected after a second. Returns how often the cloud rejected.
async fn rejected_at_once(breakers: &Breakers, attempts: impl IntoIterator<Item = Attempt>) -> u32 {
    let rejected = Mutex::new(0);
    let all = attempts.into_iter().map(async |attempt| {
        if let Ok(permit) = breakers.enter(attempt).await {
            *lock(&rejected) += 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let _ = permit.rejected("401");
        }
    });
    join_all(all).await;
    *lock(&rejected)
}

#[tokio::test(start_paused = true)]
async fn parallel_logins_of_an_owner_whose_password_was_changed_stop_after_three() {
    for are_known in [true, false] {
        let breakers = breakers();
        let projects: Vec<_> = (0..100)
            .map(|n| login_to(&breakers, "old", &format!("p{n}")))
            .collect();
        accept(&breakers, login(&breakers, "old")).await;
        if are_known {
            for project in &projects {
                accept(&breakers, *project).await;
            }
        }
        let rejected = rejected_at_once(&breakers, projects.clone()).await;
        assert_eq!(rejected, 3, "{are_known}");
        assert_eq!(breakers.open(), 1);
        // The password that replaced it is tried first, and closes the circuit.
        let new = login(&breakers, "new");
        assert!(breakers.enter(new).await.is_err());
        tokio::time::advance(5 * MINUTE).await;
        accept(&breakers, new).await;
        assert_eq!(breakers.open(), 0);
        assert_eq!(
            rejected_at_once(&breakers, projects).await,
            3,
            "the old one is not trusted any more"
        );
        accept(&breakers, new).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_owner_has_as_many_logins_in_flight_as_may_still_fail() {
    for (before, may_fail) in [(0, 3), (1, 2), (2, 1)] {
        let breakers = breakers();
        let (owner, stranger) = (login(&breakers, "right"), login(&breakers, "wrong"));
        accept(&breakers, owner).await;
        for _ in 0..before {
            reject(&breakers, stranger).await;
        }
        let mut permits = Vec::new();
        for _ in 0..may_fail {
            permits.push(breakers.enter(owner).await.unwrap());
        }
        let waiting = tokio::time::timeout(MINUTE, breakers.enter(owner)).await;
        assert!(waiting.is_err(), "{before}");
        // They do not count as those of others, whose secrets are not trusted.
        assert!(breakers.enter(stranger).await.is_ok(), "{before}");
        permits.pop();
        assert!(breakers.enter(owner).await.is_ok(), "{before}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_project_that_a_trusted_secret_has_no_role_in_waits_as_rejected_alone() {
    let breakers = breakers();
    let [good, other] = ["good", "other"].map(|p| login_to(&breakers, "right", p));
    accept(&breakers, good).await;
    reject(&breakers, other).await;
    // Rejections of others are not the cause.
    reject(&breakers, login(&breakers, "wrong")).await;
    let open = breakers.enter(other).await.unwrap_err();
    assert_eq!((open.rejections, open.wait), (0, 5 * MINUTE));
}

#[tokio::test(start_paused = true)]
async fn a_project_without_a_role_does_not_stop_the_others_of_its_user() {
    let breakers = breakers();
    let [good, other, wrong] =
        ["good", "other", "made-up"].map(|p| login_to(&breakers, "right", p));
    accept(&breakers, good).await;
    let mut rejected = 0;
    for _ in 0..25 {
        match breakers.enter(wrong).await {
            Ok(permit) => {
                assert_eq!(permit.rejected("401"), None);
                rejected += 1;
            }
            Err(open) => assert_eq!((open.rejections, open.wait), (0, 5 * MINUTE / 2)),
        }
        tokio::time::advance(5 * MINUTE / 2).await;
    }
    assert_eq!(rejected, 13, "once in 5 min, for an hour");
    accept(&breakers, other).await;
    accept(&breakers, good).await;
}

#[tokio::test(start_paused = true)]
async fn a_stranger_and_an_owner_who_is_out_of_date_stop_at_four_together() {
    let breakers = breakers();
    let (owner, stranger) = (login(&breakers, "old"), login(&breakers, "typo"));
    accept(&breakers, owner).await;
    let all = rejected_until_stopped(&breakers, stranger).await
        + rejected_until_stopped(&breakers, owner).await;
    assert_eq!(all, 4);
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
async fn no_more_attempts_are_in_flight_than_may_fail() {
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
async fn a_cancelled_attempt_makes_room_for_the_next() {
    let breakers = breakers();
    let attempt = login(&breakers, "right");
    let three = join_all((0..3).map(|_| breakers.enter(attempt))).await;
    let impatient = tokio::time::timeout(MINUTE, breakers.enter(attempt)).await;
    assert!(impatient.is_err());
    drop(three);
    accept(&breakers, attempt).await;
}

#[tokio::test(start_paused = true)]
async fn signed_requests_of_a_trusted_key_are_in_flight_in_any_number() {
    let breakers = breakers();
    let signed = breakers.attempt("AK", [&"sk".into()], "ims", "", true);
    accept(&breakers, signed).await;
    let mut many = join_all((0..100).map(|_| breakers.enter(signed))).await;
    assert!(many.iter().all(Result::is_ok));
    // Until one of them is rejected: then in as small a number as logins.
    let _ = many.pop().unwrap().unwrap().rejected("401");
    let waiting = tokio::time::timeout(MINUTE, breakers.enter(signed)).await;
    assert!(waiting.is_err());
    many.truncate(1);
    assert!(breakers.enter(signed).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn only_what_was_accepted_and_is_not_rejected_by_now_may_be_sent_twice() {
    let breakers = breakers();
    let (right, wrong) = (login(&breakers, "right"), login(&breakers, "wrong"));
    let may_repeat = async |attempt| breakers.enter(attempt).await.unwrap().may_repeat;
    assert!(!may_repeat(right).await, "untried");
    accept(&breakers, right).await;
    assert!(may_repeat(right).await);
    assert!(!may_repeat(wrong).await, "untried");
    reject(&breakers, wrong).await;
    assert!(!may_repeat(right).await, "one more brings the lock nearer");
    accept(&breakers, right).await;
    assert!(may_repeat(right).await);
    tokio::time::advance(25 * 60 * MINUTE).await;
    assert!(!may_repeat(right).await, "accepted too long ago");
}

#[tokio::test(start_paused = true)]
async fn an_accepted_secret_is_not_forgotten_for_many_others_of_its_user() {
    let breakers = breakers();
    let owner = login(&breakers, "right");
    accept(&breakers, owner).await;
    for n in 0..10 * PURGE_FROM {
        drop(breakers.enter(login(&breakers, &n.to_string())).await);
    }
    let held = lock(&breakers.by_identity)[&owner.identity].secrets.len();
    assert!(held <= PURGE_FROM, "{held}");
    rejected_until_stopped(&breakers, login(&breakers, "wrong")).await;
    accept(&breakers, owner).await;
}

#[tokio::test(start_paused = true)]
async fn identities_that_are_not_used_any_more_are_forgotten() {
    let breakers = breakers();
    for n in 0..10 * PURGE_FROM {
        let attempt = breakers.attempt(n, [&"x".into()], "iam", "", false);
        drop(breakers.enter(attempt).await);
    }
    assert!(lock(&breakers.by_identity).len() <= PURGE_FROM);
    let wrong = login(&breakers, "wrong");
    rejected_until_stopped(&breakers, wrong).await;
    for n in 0..10 * PURGE_FROM {
        let attempt = breakers.attempt(n, [&"x".into()], "iam", "", false);
        drop(breakers.enter(attempt).await);
    }
    assert!(breakers.enter(wrong).await.is_err(), "an open one is kept");
}
