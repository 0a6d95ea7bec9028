//! Namespaces take turns where attempts are limited, whatever one of them brings.

use super::*;

/// What a hostile namespace does each second.
#[derive(Clone, Copy, Debug)]
enum Hostile {
    /// Writes a new wrong secret into the same Secret.
    Rotates,
    /// Writes it into a new one.
    Adds,
    /// Brings many entries, and none comes back when it is its turn.
    Leaves,
}

/// The circuit is opened by one of some hostile namespaces, each of which comes each second. Returns after how
/// long another one makes its attempt, which comes after `first` and then each 5 min.
async fn waited(how: Hostile, namespaces: u32, first: Duration) -> Duration {
    let breakers = breakers();
    let victim = login_of(&breakers, "victim", "its entry", "right");
    rejected_until_stopped(
        &breakers,
        login_of(&breakers, "hostile 0", "first", "first"),
    );
    let started = Instant::now();
    let mut next_visit = started + first;
    for second in 0_u32.. {
        for number in 0..namespaces {
            let namespace = format!("hostile {number}");
            let (secret, entry) = match how {
                Hostile::Rotates => (second, 0),
                Hostile::Adds => (second, second),
                Hostile::Leaves if second < 299 => (second, second),
                Hostile::Leaves => continue,
            };
            let (secret, entry) = (format!("wrong {secret}"), entry.to_string());
            let attempt = login_of(&breakers, &namespace, &entry, &secret);
            if let Ok(permit) = breakers.enter(attempt) {
                let _ = permit.rejected("401");
            }
        }
        if Instant::now() >= next_visit {
            if breakers.enter(victim).is_ok() {
                return started.elapsed();
            }
            next_visit += 5 * MINUTE;
        }
        assert!(started.elapsed() < 24 * 60 * MINUTE, "it starves");
        tokio::time::advance(SECOND).await;
    }
    unreachable!()
}

#[tokio::test(start_paused = true)]
async fn an_untried_secret_waits_for_one_turn_of_each_other_namespace_at_most() {
    for how in [Hostile::Rotates, Hostile::Adds, Hostile::Leaves] {
        for namespaces in 1..=4 {
            for first in [1, 61, 299] {
                let first = first * SECOND;
                let waited = waited(how, namespaces, first).await;
                // A turn is a pause, and what its namespace takes to come back.
                let bound = first + 10 * MINUTE + (namespaces - 1) * 11 * MINUTE;
                assert!(
                    waited <= bound,
                    "{how:?} {namespaces} {first:?}: {waited:?}"
                );
            }
        }
    }
}

/// A rejected secret may be right by now: a role was granted, or the account has the password again.
#[tokio::test(start_paused = true)]
async fn a_rejected_secret_is_tried_again_whatever_untried_ones_come() {
    let breakers = breakers();
    let victim = login_of(&breakers, "victim", "its entry", "rejected");
    reject(&breakers, victim);
    let mut waited = 0;
    loop {
        for second in 0..300 {
            let secret = format!("wrong {waited} {second}");
            let hostile = login_of(&breakers, "hostile", "entry", &secret);
            if let Ok(permit) = breakers.enter(hostile) {
                let _ = permit.rejected("401");
            }
            tokio::time::advance(SECOND).await;
        }
        waited += 5;
        if breakers.enter(victim).is_ok() {
            break;
        }
    }
    assert!(waited <= 30, "{waited} min");
}

#[tokio::test(start_paused = true)]
async fn namespaces_go_in_turn_and_within_one_the_oldest_untried_secret_first() {
    let breakers = breakers();
    let of = |namespace: &str, entry: &str| {
        login_of(&breakers, namespace, entry, &format!("{namespace} {entry}"))
    };
    rejected_until_stopped(&breakers, of("a", "0"));
    let all = [
        ("a", "1"),
        ("b", "1"),
        ("b", "2"),
        ("c", "1"),
        ("b", "3"),
        ("a", "2"),
    ];
    let mut order = Vec::new();
    for _ in 0..all.len() {
        for (namespace, entry) in all {
            if !order.contains(&(namespace, entry)) {
                open(&breakers, of(namespace, entry));
                tokio::time::advance(SECOND).await;
            }
        }
        tokio::time::advance(5 * MINUTE).await;
        // In the worst order for those that are next.
        for (namespace, entry) in all.into_iter().rev() {
            if order.contains(&(namespace, entry)) {
                continue;
            }
            if let Ok(permit) = breakers.enter(of(namespace, entry)) {
                let _ = permit.rejected("401");
                order.push((namespace, entry));
            }
        }
    }
    let expected = [
        ("b", "1"),
        ("c", "1"),
        ("a", "1"),
        ("b", "2"),
        ("a", "2"),
        ("b", "3"),
    ];
    assert_eq!(order, expected);
}

/// A host that swallows connections keeps as many attempts in flight as may fail.
#[tokio::test(start_paused = true)]
async fn before_the_circuit_opens_namespaces_go_in_turn_as_well() {
    let breakers = breakers();
    let mut in_flight = Vec::new();
    let started = Instant::now();
    let mut served = Vec::new();
    for tick in 0_u32..1200 {
        in_flight.retain(|(since, _): &(Instant, Permit<'_>)| since.elapsed() < 20 * SECOND);
        for n in 0..10 {
            let name = format!("{tick} {n}");
            let hostile = login_of(&breakers, "hostile", &name, &name);
            match breakers.enter(hostile) {
                Ok(permit) => in_flight.push((Instant::now(), permit)),
                Err(stopped) => assert_eq!(stopped, DEFERRED),
            }
        }
        if tick % 10 == 9 {
            let victim = login_of(&breakers, "victim", "its entry", "right");
            if let Ok(permit) = breakers.enter(victim) {
                served.push(started.elapsed());
                in_flight.push((Instant::now(), permit));
            }
        }
        tokio::time::advance(SECOND / 10).await;
    }
    // Of the 18 attempts that two minutes have room for.
    assert!(served.len() >= 5, "{served:?}");
    assert!(served[0] <= 22 * SECOND, "{served:?}");
}

#[tokio::test(start_paused = true)]
async fn a_corrected_secret_keeps_the_place_of_its_entry() {
    let breakers = breakers();
    rejected_until_stopped(&breakers, login_of(&breakers, "other", "entry", "wrong"));
    open(&breakers, login_of(&breakers, "team", "first", "typo"));
    tokio::time::advance(SECOND).await;
    open(
        &breakers,
        login_of(&breakers, "team", "second", "also wrong"),
    );
    tokio::time::advance(5 * MINUTE).await;
    assert!(
        breakers
            .enter(login_of(&breakers, "team", "second", "also wrong"))
            .is_err()
    );
    accept(&breakers, login_of(&breakers, "team", "first", "right"));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_come_back_loses_its_turn() {
    let breakers = breakers();
    rejected_until_stopped(&breakers, login_of(&breakers, "other", "entry", "wrong"));
    let [gone, next] =
        ["gone", "next"].map(|namespace| login_of(&breakers, namespace, "entry", namespace));
    open(&breakers, gone);
    tokio::time::advance(SECOND).await;
    open(&breakers, next);
    // The pause, and the time within which callers come back.
    tokio::time::advance(10 * MINUTE).await;
    open(&breakers, next);
    tokio::time::advance(MINUTE).await;
    accept(&breakers, next);
}
