//! Status writes: conflicts, preconditions, limits and errors.

use super::{
    samples::{fail, millis, not_found, object, running, secs, success, throttled, unavailable},
    world::{Fate, World},
};
use crate::{Config, Input, Precondition, WriteResult};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

/// A quota that delays no poll.
fn unlimited_quota() -> Config {
    Config {
        quota_rate: 1e6,
        quota_burst: 1e6,
        host_rate: 1e6,
        host_burst: 1e6,
        unproven_rate: 1e6,
        unproven_burst: 1e6,
        quota_in_flight: 1_000_000,
        polls_in_flight: 1_000_000,
        ..Config::default()
    }
}

/// A world with the object `x` after its first poll, with a write in flight.
fn world_writing() -> World {
    let mut world = World::new();
    world.held.writes = true;
    world.create(object("x"));
    world.run(1);
    world
}

/// The most of these times that fall into one window.
fn most_within(times: &[Duration], window: Duration) -> usize {
    let most = times.iter().map(|&from| {
        times
            .iter()
            .filter(|&&at| at >= from && at < from + window)
            .count()
    });
    most.max().unwrap_or_default()
}

#[test]
fn a_conflict_waits_for_the_newer_version_and_decides_again() {
    let mut world = world_writing();
    let write = world.take_write();
    world.held.watch = true;
    world.change("x", |x| x.spec.poll_period_seconds = Some(60));
    let result = world.land(&write);
    assert!(matches!(result, WriteResult::Conflict));
    world.reply(&write, result);
    world.run(2);
    assert!(
        world.open_writes.is_empty(),
        "the newer version has not arrived yet"
    );
    let newer = world.open_watch.remove(0);
    world.see(newer);
    let again = world.take_write();
    assert_eq!(
        again.status.observed_generation,
        Some(2),
        "decided again from the newer version"
    );
    assert!(matches!(world.land(&again), WriteResult::Written { .. }));
    assert!(world.fetches.is_empty());
}

#[test]
fn a_conflict_is_resolved_by_a_version_received_before_the_reply() {
    let mut world = world_writing();
    let write = world.take_write();
    world.touch("x");
    world.run(1);
    let result = world.land(&write);
    world.reply(&write, result);
    let again = world.take_write();
    assert!(matches!(world.land(&again), WriteResult::Written { .. }));
}

#[test]
fn a_conflict_that_the_watch_does_not_explain_is_resolved_by_one_read() {
    let mut world = world_writing();
    let write = world.take_write();
    world.held.watch = true;
    world.touch("x");
    let rejected_at = world.now;
    world.reply(&write, WriteResult::Conflict);
    world.run_until(rejected_at + millis(4990));
    assert!(world.fetches.is_empty() && world.open_writes.is_empty());
    world.run_until(rejected_at + millis(5050));
    assert_eq!(world.fetches.len(), 1);
    let again = world.take_write();
    assert!(matches!(world.land(&again), WriteResult::Written { .. }));
}

#[test]
fn a_conflict_with_our_own_write_confirms_it() {
    // The client sent the write twice: the first attempt landed and its reply was lost.
    let mut world = World::new();
    world.fate = Box::new(|_| Fate::LandsThenConflict);
    world.reports_from(secs(100), "x", success());
    world.create(object("x"));
    world.run(200);
    assert_eq!(world.writes.len(), 2);
    assert_eq!(world.reasons_shown(), ["JobRunning", "JobSucceeded"]);
    assert_eq!(world.census().counters.repairs, 0);
}

#[test]
fn after_3_consecutive_conflicts_the_precondition_is_a_json_patch_test() {
    let mut world = world_writing();
    for _ in 0..3 {
        let write = world.take_write();
        assert!(matches!(
            write.precondition,
            Precondition::ResourceVersion(_)
        ));
        world.touch("x");
        let result = world.land(&write);
        world.reply(&write, result);
        world.run(1);
    }
    let write = world.take_write();
    let stored = world.stored("x").clone();
    let expected = Precondition::Tests {
        uid: stored
            .metadata
            .uid
            .as_deref()
            .expect("stored objects have a uid")
            .into(),
        generation: 1,
        status: stored.status.map(Box::new),
    };
    assert_eq!(write.precondition, expected);
    world.touch("x");
    let result = world.land(&write);
    assert!(
        matches!(result, WriteResult::Written { .. }),
        "a label change causes no conflict"
    );
    world.reply(&write, result);
    world.run(1);
    world.change("x", |x| x.spec.suspend = true);
    world.run(1);
    let next = world.take_write();
    assert!(
        matches!(next.precondition, Precondition::ResourceVersion(_)),
        "a success resets the consecutive conflicts"
    );
}

#[test]
fn the_json_patch_test_rejects_a_write_decided_for_another_spec_or_status() {
    for change in [0, 1, 2] {
        let mut world = world_writing();
        for _ in 0..3 {
            let write = world.take_write();
            world.touch("x");
            world.reply(&write, WriteResult::Conflict);
            world.run(1);
        }
        let write = world.take_write();
        match change {
            0 => world.change("x", |x| x.spec.suspend = true),
            1 => world.edit("x", |status| status.status = Some("SUCCESS".into())),
            _ => {
                world.objects.clear();
                world.create(object("x"));
            }
        }
        assert!(matches!(world.land(&write), WriteResult::Conflict));
    }
}

#[test]
fn label_changes_do_not_prevent_a_status_write() {
    let mut world = World::new();
    world.write_time = millis(20);
    world.create(object("x"));
    for _ in 0..500 {
        world.touch("x");
        world.run_until(world.now + millis(10));
    }
    assert_eq!(
        (world.reason("x"), world.writes.len(), world.polls.len()),
        ("JobRunning", 1, 1)
    );
}

#[test]
fn a_newer_status_replaces_a_queued_one() {
    let mut world = World::with(Config {
        writes_in_flight: 1,
        ..unlimited_quota()
    });
    world.held.writes = true;
    world.create_all(["a"]);
    world.run(3);
    // The write of a takes the only place in flight. The write of b is queued, and is replaced there.
    world.create_all(["b"]);
    world.run(3);
    world.reports("b", success());
    world.run(40);
    let write = world.take_write();
    let result = world.land(&write);
    world.reply(&write, result);
    let write = world.take_write();
    assert_eq!(
        (&*write.key.name, write.status.status.as_deref()),
        ("b", Some("SUCCESS"))
    );
}

#[test]
fn at_most_16_writes_are_in_flight_and_ends_go_first() {
    let mut world = World::with(unlimited_quota());
    world.held.writes = true;
    let names: Vec<String> = (0..60).map(|n| format!("x{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        world.reports(name, if n < 50 { running() } else { fail() });
        world.create(object(name));
    }
    world.run(5);
    assert_eq!(world.open_writes.len(), 16);
    let first = std::mem::take(&mut world.open_writes);
    let ends = first
        .iter()
        .filter(|w| w.status.status.as_deref() == Some("FAIL"))
        .count();
    for write in first {
        let result = world.land(&write);
        world.reply(&write, result);
    }
    let next = &world.open_writes[..10 - ends];
    let all_ends = next
        .iter()
        .all(|w| w.status.status.as_deref() == Some("FAIL"));
    assert!(all_ends, "ends go before writes that were queued earlier");
}

#[test]
fn an_outage_is_written_at_20_objects_a_second() {
    let mut world = World::with(unlimited_quota());
    world.check_decisions = false;
    for n in 0..3000 {
        let name = format!("x{n}");
        world.create(object(&name));
    }
    world.run(60);
    let before = world.writes.len();
    for n in 0..3000 {
        world.reports(&format!("x{n}"), unavailable());
    }
    world.run(900);
    let times: Vec<Duration> = world.writes[before..]
        .iter()
        .map(|write| write.at)
        .collect();
    assert_eq!(times.len(), 3000);
    let most = most_within(&times, secs(1));
    assert!(most <= 21, "{most} in one second");
}

#[test]
fn an_outage_delays_no_other_write() {
    let mut world = World::with(unlimited_quota());
    world.check_decisions = false;
    for n in 0..6000 {
        let name = format!("x{n}");
        world.reports(&name, unavailable());
        world.create(object(&name));
    }
    world.run(200);
    // Now the 6,000 writes go out at a limited rate.
    world
        .secrets
        .insert("lost".into(), Err(super::samples::secret_missing()));
    world.create(super::samples::object_of("new", "lost", "project"));
    world.run(30);
    assert_eq!(world.reason("new"), "CredentialsNotFound");
}

#[test]
fn a_short_outage_and_throttling_cause_no_write() {
    let mut world = World::with(unlimited_quota());
    world.check_decisions = false;
    for n in 0..100 {
        let name = format!("x{n}");
        world.reports_from(secs(60), &name, unavailable());
        world.reports_from(secs(170), &name, throttled(Some(secs(5))));
        world.reports_from(secs(400), &name, running());
        world.create(object(&name));
    }
    world.run(600);
    assert_eq!(world.writes.len(), 100);
}

#[test]
fn a_throttled_or_lost_write_pauses_all_writes() {
    for (result, least) in [
        (WriteResult::Throttled(Some(secs(7))), secs(7)),
        (WriteResult::Throttled(None), secs(1)),
        (WriteResult::Throttled(Some(secs(86_400))), secs(900)),
        (WriteResult::Unknown, secs(1)),
    ] {
        let mut world = world_writing();
        world.create(object("y"));
        let write = world.take_write();
        let paused = world.now;
        world.reply(&write, result);
        while world.open_writes.is_empty() {
            world.run_until(world.now + millis(100));
        }
        let waited = world.now - paused;
        assert!(
            waited >= least && waited <= least + millis(200),
            "{waited:?}"
        );
    }
}

#[test]
fn a_500_delays_its_own_object_alone_with_a_growing_backoff() {
    let mut world = World::new();
    let sent = Rc::new(Cell::new(0));
    let count = sent.clone();
    world.fate = Box::new(move |write| {
        if &*write.key.name == "x" {
            count.set(count.get() + 1);
            Fate::Failed
        } else {
            Fate::Lands
        }
    });
    world.create(object("x"));
    world.run(1);
    world.create(object("y"));
    world.run(3);
    assert_eq!(
        world.reason("y"),
        "JobRunning",
        "the other object does not wait"
    );
    world.run(600);
    // The first at 0 s, then 10, 20, 40, 80, 80 … s after the one before.
    assert!((9..=12).contains(&sent.get()), "{}", sent.get());
}

#[test]
fn the_pause_of_writes_doubles_to_30_s_and_a_success_resets_it() {
    let mut world = World::new();
    let sent = Rc::new(RefCell::new(Vec::new()));
    let ok = Rc::new(Cell::new(false));
    let (log, fine, clock) = (sent.clone(), ok.clone(), Rc::new(Cell::new(0u32)));
    world.fate = Box::new(move |_| {
        clock.set(clock.get() + 1);
        log.borrow_mut().push(clock.get());
        if fine.get() {
            Fate::Lands
        } else {
            Fate::Throttled
        }
    });
    world.create(object("x"));
    world.run(300);
    // Pauses of 1, 2, 4, 8, 16, 30, 30 … s.
    let attempts = sent.borrow().len();
    assert!((12..=15).contains(&attempts), "{attempts}");
    ok.set(true);
    world.run(31);
    assert_eq!(world.reason("x"), "JobRunning");
    ok.set(false);
    world.reports("x", success());
    world.run(30);
    let before = sent.borrow().len();
    assert!(
        before > attempts + 2,
        "the pause starts at one second again"
    );
}

#[test]
fn sixteen_throttled_replies_double_the_pause_once() {
    let mut world = World::with(unlimited_quota());
    world.held.writes = true;
    for n in 0..16 {
        world.create(object(&format!("x{n}")));
    }
    world.run(5);
    let writes = std::mem::take(&mut world.open_writes);
    assert_eq!(writes.len(), 16);
    for write in writes {
        world.reply(&write, WriteResult::Throttled(None));
    }
    world.run_until(world.now + millis(1100));
    assert_eq!(
        world.open_writes.len(),
        16,
        "after one second, not after 2^16"
    );
}

#[test]
fn a_rejected_write_is_not_repeated_before_its_delay() {
    let mut world = World::new();
    let attempts = Rc::new(Cell::new(0));
    let count = attempts.clone();
    world.fate = Box::new(move |_| {
        count.set(count.get() + 1);
        Fate::Rejected
    });
    world.create(object("x"));
    world.run(5);
    assert_eq!(attempts.get(), 1);
    for n in 0..50 {
        world.touch("x");
        world.change("x", |x| x.spec.poll_period_seconds = Some(20 + n));
        world.run(1);
    }
    assert_eq!(attempts.get(), 1, "a spec change causes no earlier attempt");
    world.run(3600 - 55);
    assert!((59..=61).contains(&attempts.get()), "{}", attempts.get());
    world.fate = Box::new(|_| Fate::Lands);
    world.run(60);
    assert_eq!(world.reason("x"), "JobRunning");
}

#[test]
fn a_write_to_a_deleted_object_forgets_the_object() {
    let mut world = world_writing();
    let write = world.take_write();
    world.objects.clear();
    let result = world.land(&write);
    assert!(matches!(result, WriteResult::Gone));
    world.reply(&write, result);
    world.run(600);
    assert_eq!(world.tracker.state.jobs.iter().count(), 0);
    assert_eq!(world.polls.len(), 1);
}

#[test]
fn polls_do_not_wait_for_writes() {
    let mut world = World::with(Config {
        writes_in_flight: 1,
        ..unlimited_quota()
    });
    world.held.writes = true;
    for n in 0..20 {
        world.reports(&format!("x{n}"), not_found());
        world.create(object(&format!("x{n}")));
    }
    world.run(130);
    assert_eq!(world.open_writes.len(), 1, "no write is answered");
    for n in 0..20 {
        assert!(world.polls_of(&format!("x{n}")).len() >= 2);
    }
}

#[test]
fn a_reply_after_leadership_was_lost_confirms_the_write() {
    let mut world = world_writing();
    let write = world.take_write();
    world.feed(Input::Leading(false));
    let result = world.land(&write);
    world.reply(&write, result);
    world.run(5);
    world.feed(Input::Leading(true));
    world.run(5);
    assert!(
        world.open_writes.is_empty(),
        "the write is known to have landed"
    );
}

#[test]
fn each_eighth_attempt_under_conflicts_has_the_resource_version_again() {
    let mut world = world_writing();
    let mut forms = Vec::new();
    for _ in 0..20 {
        let write = world.take_write();
        forms.push(matches!(
            write.precondition,
            Precondition::ResourceVersion(_)
        ));
        world.touch("x");
        world.reply(&write, WriteResult::Conflict);
        world.run(1);
    }
    let with_version = (0..20).filter(|n| forms[*n]);
    assert_eq!(with_version.collect::<Vec<_>>(), [0, 1, 2, 7, 15]);
}

#[test]
fn the_census_counts_what_is_in_flight() {
    let mut world = World::with(unlimited_quota());
    world.held.polls = true;
    world.held.writes = true;
    world.create_all(["a", "b", "c"]);
    world.run(3);
    assert_eq!(
        (
            world.census().polls_in_flight,
            world.census().writes_in_flight
        ),
        (3, 0)
    );
    let poll = world.open_polls.remove(0);
    world.answer(&poll, running());
    assert_eq!(
        (
            world.census().polls_in_flight,
            world.census().writes_in_flight
        ),
        (2, 1)
    );
}
