//! What the statuses of objects say after a restart.

use super::*;

fn with(breakers: &Breakers, password: &str, prior: PriorAcceptance) -> Attempt {
    login_with(breakers, password, password, password, prior)
}

#[tokio::test(start_paused = true)]
async fn what_was_accepted_before_a_restart_passes_an_open_circuit() {
    let breakers = breakers();
    rejected_until_stopped(&breakers, login(&breakers, "wrong"));
    open(&breakers, login(&breakers, "right"));
    accept(
        &breakers,
        with(&breakers, "right", PriorAcceptance::Accepted),
    );
    // From then on by what this process has seen.
    rejected_until_stopped(&breakers, login(&breakers, "wrong"));
    accept(&breakers, login(&breakers, "right"));
}

#[tokio::test(start_paused = true)]
async fn own_evidence_outweighs_what_a_status_shows() {
    let breakers = breakers();
    let accepted = with(&breakers, "old", PriorAcceptance::Accepted);
    accept(&breakers, accepted);
    assert_eq!(rejected_until_stopped(&breakers, accepted), 3);
    for _ in 0..3 {
        open(&breakers, accepted);
        tokio::time::advance(MINUTE).await;
    }
    // And for what was rejected, the other way round.
    let rejected = with(&breakers, "right", PriorAcceptance::Rejected);
    open(&breakers, login(&breakers, "right"));
    tokio::time::advance(5 * MINUTE).await;
    accept(&breakers, login(&breakers, "right"));
    rejected_until_stopped(&breakers, login(&breakers, "wrong"));
    accept(&breakers, rejected);
}

/// A tenant may have its objects show that wrong secrets were accepted.
#[tokio::test(start_paused = true)]
async fn a_wrong_claim_of_acceptance_adds_one_rejection_in_a_row_at_most() {
    let wrong: Vec<_> = (0..100).map(|n| format!("wrong {n}")).collect();
    let claimed = |breakers: &Breakers| {
        let all = wrong
            .iter()
            .map(|secret| with(breakers, secret, PriorAcceptance::Accepted));
        all.collect::<Vec<_>>()
    };
    // One after another, beside others that claim nothing.
    let one_by_one = breakers();
    let mut rejected = rejected_until_stopped(&one_by_one, login(&one_by_one, "wrong"));
    for attempt in claimed(&one_by_one) {
        rejected += rejected_until_stopped(&one_by_one, attempt);
    }
    assert_eq!(rejected, 4);
    // All at once.
    let at_once = breakers();
    assert_eq!(rejected_at_once(&at_once, claimed(&at_once)).await, 4);
    // The circuit stops them as any others.
    for hour in 1..=24 {
        tokio::time::advance(60 * MINUTE).await;
        let all = claimed(&at_once).into_iter();
        let all: u32 = all
            .map(|attempt| rejected_until_stopped(&at_once, attempt))
            .sum();
        assert!(all <= 1, "{all} in hour {hour}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_rejected_before_a_restart_is_tried_once_and_others_as_ever() {
    let breakers = breakers();
    let rejected = |n: u32| with(&breakers, &format!("old {n}"), PriorAcceptance::Rejected);
    let all = (0..10).map(rejected);
    assert_eq!(rejected_at_once(&breakers, all).await, 1, "of ten Secrets");
    // Its message is that of a rejected login, as before the restart.
    let stopped = open(&breakers, rejected(5));
    assert_eq!((stopped.rejections, stopped.wait), (0, 6 * MINUTE));
    accept(&breakers, login(&breakers, "right"));
    // In an open circuit it waits as any rejected one.
    rejected_until_stopped(&breakers, login(&breakers, "wrong"));
    let untried = login(&breakers, "untried");
    open(&breakers, untried);
    tokio::time::advance(6 * MINUTE).await;
    assert_eq!(open(&breakers, rejected(5)).rejections, 3);
    reject(&breakers, untried);
    tokio::time::advance(6 * MINUTE).await;
    reject(&breakers, rejected(5));
}

#[tokio::test(start_paused = true)]
async fn untried_secrets_go_before_those_that_were_rejected_before_a_restart() {
    let breakers = breakers();
    let three = ["a", "b", "c"].map(|secret| breakers.enter(login(&breakers, secret)).unwrap());
    let rejected = with(&breakers, "rejected", PriorAcceptance::Rejected);
    let untried = with(&breakers, "untried", PriorAcceptance::Unknown);
    assert_eq!(breakers.enter(rejected).unwrap_err(), DEFERRED);
    assert_eq!(breakers.enter(untried).unwrap_err(), DEFERRED);
    drop(three);
    assert_eq!(breakers.enter(rejected).unwrap_err(), DEFERRED);
    accept(&breakers, untried);
    accept(&breakers, rejected);
}
