//! How the breaker counts, in virtual time. `turns` has who goes first, `prior` what a restart leaves.

mod prior;
mod random;
mod turns;

use super::{
    super::PURGE_FROM,
    circuit::{MAX_SCOPES, MAX_SECRETS},
    round_robin::MAX_WAITING,
    *,
};
use crate::config::{DomainRef, EntityRef};
use futures::future::join_all;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DEFERRED: Stopped = Stopped::Deferred(SECOND);

fn breakers() -> Breakers {
    Breakers::new(Arc::default())
}

fn user(name: &str) -> LoginIdentity {
    let domain = DomainRef::Name("OTC1".to_owned());
    let name = name.to_owned();
    LoginIdentity::of_user(&EntityRef::Name { name, domain }, "iam")
}

/// A login of Alice with this password, which only one entry of one namespace has.
fn login(breakers: &Breakers, password: &str) -> Attempt {
    login_to(breakers, password, "p1")
}

fn login_to(breakers: &Breakers, password: &str, project: &str) -> Attempt {
    let (secret, caller) = (password.into(), Caller::default());
    breakers.attempt(&user("alice"), [&secret], project, &caller, password, false)
}

/// A login of Alice for an entry of a namespace.
fn login_of(breakers: &Breakers, namespace: &str, entry: &str, password: &str) -> Attempt {
    login_with(
        breakers,
        namespace,
        entry,
        password,
        PriorAcceptance::Unknown,
    )
}

fn login_with(
    breakers: &Breakers,
    namespace: &str,
    entry: &str,
    password: &str,
    prior: PriorAcceptance,
) -> Attempt {
    let caller = Caller {
        namespace: namespace.into(),
        prior,
    };
    breakers.attempt(
        &user("alice"),
        [&password.into()],
        "p1",
        &caller,
        entry,
        false,
    )
}

fn reject(breakers: &Breakers, attempt: Attempt) -> Option<Open> {
    let permit = breakers.enter(attempt).expect("a permit");
    permit.rejected("401")
}

fn accept(breakers: &Breakers, attempt: Attempt) {
    breakers.enter(attempt).expect("a permit").accepted();
}

/// The state of the open circuit that stops an attempt.
fn open(breakers: &Breakers, attempt: Attempt) -> Open {
    match breakers.enter(attempt) {
        Err(Stopped::Open(open)) => open,
        other => panic!("{other:?}"),
    }
}

/// Enters as callers do who come back when they were deferred to.
async fn enter_patiently(breakers: &Breakers, attempt: Attempt) -> Result<Permit<'_>, Open> {
    loop {
        match breakers.enter(attempt) {
            Ok(permit) => return Ok(permit),
            Err(Stopped::Open(open)) => return Err(open),
            Err(Stopped::Deferred(after)) => tokio::time::sleep(after).await,
        }
    }
}

/// Lets a cloud reject until the circuit is open; returns how often it did.
fn rejected_until_stopped(breakers: &Breakers, attempt: Attempt) -> u32 {
    let mut rejected = 0;
    while let Ok(permit) = breakers.enter(attempt) {
        let _ = permit.rejected("401");
        rejected += 1;
    }
    rejected
}

#[tokio::test(start_paused = true)]
async fn three_rejections_in_a_row_open_it_for_5_minutes() {
    let breakers = breakers();
    let wrong = login(&breakers, "wrong");
    assert_eq!(reject(&breakers, wrong), None);
    assert_eq!(reject(&breakers, wrong), None);
    let open = reject(&breakers, wrong).expect("open");
    assert_eq!((open.rejections, &*open.answer), (3, "401"));
    assert_eq!(breakers.open(), 1);
    tokio::time::advance(4 * MINUTE).await;
    assert_eq!(self::open(&breakers, wrong).wait, 2 * MINUTE);
    tokio::time::advance(2 * MINUTE).await;
    assert!(
        reject(&breakers, wrong).is_some(),
        "one attempt, then open again"
    );
    assert!(breakers.enter(wrong).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_fixed_secret_comes_before_rejected_ones_and_closes_the_circuit() {
    let breakers = breakers();
    let (wrong, right) = (login(&breakers, "wrong"), login(&breakers, "right"));
    assert_eq!(rejected_until_stopped(&breakers, wrong), 3);
    assert!(breakers.enter(right).is_err());
    tokio::time::advance(5 * MINUTE).await;
    assert!(breakers.enter(wrong).is_err());
    accept(&breakers, right);
    assert_eq!(breakers.open(), 0);
    assert_eq!(rejected_until_stopped(&breakers, wrong), 3, "counted anew");
}

#[tokio::test(start_paused = true)]
async fn an_untried_secret_is_not_overtaken_by_a_rejected_one() {
    let breakers = breakers();
    let (wrong, right) = (login(&breakers, "wrong"), login(&breakers, "right"));
    rejected_until_stopped(&breakers, wrong);
    assert!(breakers.enter(right).is_err());
    tokio::time::advance(9 * MINUTE).await;
    let open = open(&breakers, wrong);
    assert_eq!(open.wait, MINUTE, "the untried one comes first");
    accept(&breakers, right);
    // An untried secret that does not come back does not block for ever.
    rejected_until_stopped(&breakers, wrong);
    assert!(breakers.enter(login(&breakers, "gone")).is_err());
    tokio::time::advance(11 * MINUTE).await;
    assert!(reject(&breakers, wrong).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_stranger_with_a_wrong_secret_does_not_stop_the_owner() {
    let breakers = breakers();
    let (owner, stranger) = (login(&breakers, "right"), login(&breakers, "wrong"));
    accept(&breakers, owner);
    assert_eq!(rejected_until_stopped(&breakers, stranger), 3);
    for _ in 0..10 {
        accept(&breakers, owner);
        assert!(
            breakers.enter(stranger).is_err(),
            "still open to the stranger"
        );
    }
    tokio::time::advance(25 * 60 * MINUTE).await;
    accept(&breakers, login(&breakers, "right"));
}

#[tokio::test(start_paused = true)]
async fn an_owner_whose_password_was_changed_stops_after_three_as_well() {
    let breakers = breakers();
    let projects = ["p1", "p2", "p3", "p4", "p5"].map(|p| login_to(&breakers, "old", p));
    for project in projects {
        accept(&breakers, project);
    }
    let mut rejected = 0;
    for project in projects.iter().cycle().take(20) {
        if let Ok(permit) = breakers.enter(*project) {
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
        if let Ok(permit) = enter_patiently(breakers, attempt).await {
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
        accept(&breakers, login(&breakers, "old"));
        if are_known {
            for project in &projects {
                accept(&breakers, *project);
            }
        }
        let rejected = rejected_at_once(&breakers, projects.clone()).await;
        assert_eq!(rejected, 3, "{are_known}");
        assert_eq!(breakers.open(), 1);
        // The password that replaced it is tried first, and closes the circuit.
        let new = login(&breakers, "new");
        assert!(breakers.enter(new).is_err());
        tokio::time::advance(5 * MINUTE).await;
        accept(&breakers, new);
        assert_eq!(breakers.open(), 0);
        assert_eq!(
            rejected_at_once(&breakers, projects).await,
            3,
            "the old one is not trusted any more"
        );
        accept(&breakers, new);
    }
}

#[tokio::test(start_paused = true)]
async fn an_owner_has_as_many_logins_in_flight_as_may_still_fail() {
    for (before, may_fail) in [(0, 3), (1, 2), (2, 1)] {
        let breakers = breakers();
        let (owner, stranger) = (login(&breakers, "right"), login(&breakers, "wrong"));
        accept(&breakers, owner);
        for _ in 0..before {
            reject(&breakers, stranger);
        }
        let mut permits = Vec::new();
        for _ in 0..may_fail {
            permits.push(breakers.enter(owner).unwrap());
        }
        assert_eq!(breakers.enter(owner).unwrap_err(), DEFERRED, "{before}");
        // They do not count as those of others, whose secrets are not trusted.
        assert!(breakers.enter(stranger).is_ok(), "{before}");
        permits.pop();
        assert!(breakers.enter(owner).is_ok(), "{before}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_project_that_a_trusted_secret_has_no_role_in_waits_as_rejected_alone() {
    let breakers = breakers();
    let [good, other] = ["good", "other"].map(|p| login_to(&breakers, "right", p));
    accept(&breakers, good);
    reject(&breakers, other);
    // Rejections of others are not the cause.
    reject(&breakers, login(&breakers, "wrong"));
    let open = open(&breakers, other);
    assert_eq!((open.rejections, open.wait), (0, 5 * MINUTE));
}

#[tokio::test(start_paused = true)]
async fn a_project_without_a_role_does_not_stop_the_others_of_its_user() {
    let breakers = breakers();
    let [good, other, wrong] =
        ["good", "other", "made-up"].map(|p| login_to(&breakers, "right", p));
    accept(&breakers, good);
    let paused = Stopped::Open(Open {
        rejections: 0,
        wait: 5 * MINUTE / 2,
        answer: Arc::default(),
    });
    let mut rejected = 0;
    for _ in 0..25 {
        match breakers.enter(wrong) {
            Ok(permit) => {
                assert_eq!(permit.rejected("401"), None);
                rejected += 1;
            }
            Err(stopped) => assert_eq!(stopped, paused),
        }
        tokio::time::advance(5 * MINUTE / 2).await;
    }
    assert_eq!(rejected, 13, "once in 5 min, for an hour");
    accept(&breakers, other);
    accept(&breakers, good);
}

#[tokio::test(start_paused = true)]
async fn a_stranger_and_an_owner_who_is_out_of_date_stop_at_four_together() {
    let breakers = breakers();
    let (owner, stranger) = (login(&breakers, "old"), login(&breakers, "typo"));
    accept(&breakers, owner);
    let all =
        rejected_until_stopped(&breakers, stranger) + rejected_until_stopped(&breakers, owner);
    assert_eq!(all, 4);
}

#[tokio::test(start_paused = true)]
async fn acceptance_counts_for_a_day() {
    let breakers = breakers();
    let login = login(&breakers, "right");
    accept(&breakers, login);
    tokio::time::advance(25 * 60 * MINUTE).await;
    assert_eq!(rejected_until_stopped(&breakers, login), 3);
}

#[tokio::test(start_paused = true)]
async fn no_more_attempts_are_in_flight_than_may_fail() {
    let breakers = breakers();
    let tried = Mutex::new(0);
    let all = (0..1000).map(|n| {
        let attempt = login(&breakers, &format!("wrong {n}"));
        let (breakers, tried) = (&breakers, &tried);
        async move {
            if let Ok(permit) = enter_patiently(breakers, attempt).await {
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
    let three = [(); 3].map(|()| breakers.enter(attempt).unwrap());
    assert_eq!(breakers.enter(attempt).unwrap_err(), DEFERRED);
    drop(three);
    accept(&breakers, attempt);
}

#[tokio::test(start_paused = true)]
async fn signed_requests_of_a_trusted_key_are_in_flight_in_any_number() {
    let breakers = breakers();
    let signed = Attempt {
        unlimited: true,
        ..login(&breakers, "right")
    };
    accept(&breakers, signed);
    let many = (0..100).map(|_| breakers.enter(signed).unwrap());
    let mut many: Vec<_> = many.collect();
    // Until one of them is rejected: then in as small a number as logins.
    let _ = many.pop().unwrap().rejected("401");
    assert_eq!(breakers.enter(signed).unwrap_err(), DEFERRED);
    many.truncate(1);
    assert!(breakers.enter(signed).is_ok());
}

#[tokio::test(start_paused = true)]
async fn only_what_was_accepted_and_is_not_rejected_by_now_may_be_sent_twice() {
    let breakers = breakers();
    let (right, wrong) = (login(&breakers, "right"), login(&breakers, "wrong"));
    let may_repeat = |attempt| breakers.enter(attempt).unwrap().may_repeat;
    assert!(!may_repeat(right), "untried");
    accept(&breakers, right);
    assert!(may_repeat(right));
    assert!(!may_repeat(wrong), "untried");
    reject(&breakers, wrong);
    assert!(!may_repeat(right), "one more brings the lock nearer");
    accept(&breakers, right);
    assert!(may_repeat(right));
    tokio::time::advance(25 * 60 * MINUTE).await;
    assert!(!may_repeat(right), "accepted too long ago");
}

#[tokio::test(start_paused = true)]
async fn an_accepted_secret_is_not_forgotten_for_many_others_of_its_user() {
    let breakers = breakers();
    let owner = login(&breakers, "right");
    accept(&breakers, owner);
    for n in 0..10 * MAX_SECRETS {
        drop(breakers.enter(login(&breakers, &n.to_string())));
    }
    rejected_until_stopped(&breakers, login(&breakers, "wrong"));
    for n in 0..10 * MAX_WAITING {
        open(&breakers, login(&breakers, &n.to_string()));
    }
    for n in 0..2 * MAX_SCOPES {
        accept(&breakers, login_to(&breakers, "right", &n.to_string()));
    }
    let held = breakers.with(owner, |circuit| circuit.sizes());
    assert!(held <= (MAX_SECRETS, MAX_SCOPES, MAX_WAITING), "{held:?}");
    assert!(held.1 <= MAX_SCOPES && held.2 <= MAX_WAITING, "{held:?}");
    accept(&breakers, owner);
}

/// An attempt of another user.
fn login_as(breakers: &Breakers, name: &str) -> Attempt {
    let caller = Caller::default();
    breakers.attempt(&user(name), [&"x".into()], "p1", &caller, name, false)
}

fn identities(breakers: &Breakers) -> usize {
    lock(&breakers.circuits).by_identity.len()
}

#[tokio::test(start_paused = true)]
async fn identities_that_are_not_used_any_more_are_forgotten() {
    let breakers = breakers();
    let wrong = login(&breakers, "wrong");
    rejected_until_stopped(&breakers, wrong);
    for n in 0..10 * PURGE_FROM {
        drop(breakers.enter(login_as(&breakers, &n.to_string())));
    }
    assert!(identities(&breakers) <= PURGE_FROM);
    assert!(breakers.enter(wrong).is_err(), "an open one is kept");
}

#[tokio::test(start_paused = true)]
async fn made_up_identities_displace_one_another_and_not_an_accepted_one() {
    let breakers = breakers();
    let owner = login(&breakers, "right");
    accept(&breakers, owner);
    let wrong = login(&breakers, "wrong");
    rejected_until_stopped(&breakers, wrong);
    for n in 0..MAX_IDENTITIES + 100 {
        reject(&breakers, login_as(&breakers, &n.to_string()));
    }
    assert_eq!(identities(&breakers), MAX_IDENTITIES);
    assert!(breakers.enter(wrong).is_err(), "its circuit is kept");
    accept(&breakers, owner);
}

fn login_by_id(breakers: &Breakers, password: &str) -> Attempt {
    let id = LoginIdentity::of_user(&EntityRef::Id("alice-id".to_owned()), "iam");
    let caller = Caller::default();
    breakers.attempt(&id, [&password.into()], "p1", &caller, password, false)
}

/// A cloud locks the account at the sixth.
#[tokio::test(start_paused = true)]
async fn a_user_by_its_id_adds_one_rejection_until_its_name_is_known() {
    let breakers = breakers();
    let by_name = rejected_until_stopped(&breakers, login(&breakers, "wrong"));
    let by_id = rejected_until_stopped(&breakers, login_by_id(&breakers, "wrong"));
    assert_eq!((by_name, by_id, breakers.open()), (3, 1, 2));
    let claimed = Attempt {
        prior: PriorAcceptance::Accepted,
        ..login_by_id(&breakers, "claimed")
    };
    assert_eq!(open(&breakers, claimed).rejections, 1);
}

#[tokio::test(start_paused = true)]
async fn names_that_an_accepted_login_shows_share_one_circuit() {
    let both: [fn(&Breakers, &str) -> Attempt; 2] = [login, login_by_id];
    for owner_by_id in [false, true] {
        let breakers = breakers();
        let id = LoginIdentity::of_user(&EntityRef::Id("alice-id".to_owned()), "iam");
        let names = [id, user("alice"), user("alice of OTC")];
        let by_name = login_as(&breakers, "alice of OTC");
        // What is known of each is kept: rejections, and attempts in flight.
        reject(&breakers, by_name);
        reject(&breakers, by_name);
        let in_flight = breakers.enter(login_by_id(&breakers, "wrong"));
        let in_flight = in_flight.expect("a permit");
        let owner = both[usize::from(owner_by_id)](&breakers, "right");
        if owner_by_id {
            assert_eq!(breakers.enter(owner).unwrap_err(), DEFERRED);
            drop(in_flight);
            accept(&breakers, owner);
            breakers.merge(owner, &names);
            assert!(reject(&breakers, login(&breakers, "wrong")).is_some());
        } else {
            accept(&breakers, owner);
            for _ in 0..2 {
                breakers.merge(owner, &names);
            }
            assert_eq!(breakers.enter(by_name).unwrap_err(), DEFERRED);
            assert!(in_flight.rejected("401").is_some(), "the third of all");
        }
        for login in both {
            assert_eq!(open(&breakers, login(&breakers, "other")).rejections, 3);
            accept(&breakers, login(&breakers, "right"));
        }
        assert_eq!((breakers.open(), identities(&breakers)), (1, 1));
    }
}
