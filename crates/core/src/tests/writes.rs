//! Conflicts, fences, limits and errors of status writes.

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

/// A quota that binds nobody.
fn wide() -> Config {
    Config {
        quota_rate: 1e6,
        quota_burst: 1e6,
        quota_in_flight: 1_000_000,
        polls_in_flight: 1_000_000,
        ..Config::default()
    }
}

fn world_writing() -> World {
    let mut world = World::new();
    world.held.writes = true;
    world.create(object("x"));
    world.run(1);
    world
}

fn count_within(times: &[Duration], window: Duration) -> usize {
    let most = times.iter().map(|&from| {
        times
            .iter()
            .filter(|&&at| at >= from && at < from + window)
            .count()
    });
    most.max().unwrap_or_default()
}

#[test]
fn a_conflict_waits_for_the_newer_object_and_is_decided_anew() {
    let mut world = world_writing();
    let write = world.take_write();
    world.held.watch = true;
    world.change("x", |x| x.spec.poll_period_seconds = Some(60));
    let result = world.land(&write);
    assert!(matches!(result, WriteResult::Conflict));
    world.reply(&write, result);
    world.run(2);
    assert!(world.open_writes.is_empty(), "nothing to decide upon yet");
    let newer = world.open_watch.remove(0);
    world.see(newer);
    let again = world.take_write();
    assert_eq!(again.status.observed_generation, Some(2), "recomputed");
    assert!(matches!(world.land(&again), WriteResult::Written { .. }));
    assert!(world.fetches.is_empty());
}

#[test]
fn a_conflict_is_settled_by_the_object_that_came_before_the_reply() {
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
fn a_conflict_that_the_watch_does_not_explain_is_settled_by_one_read() {
    let mut world = world_writing();
    let write = world.take_write();
    world.held.watch = true;
    world.touch("x");
    let refused = world.now;
    world.reply(&write, WriteResult::Conflict);
    world.run_until(refused + millis(4990));
    assert!(world.fetches.is_empty() && world.open_writes.is_empty());
    world.run_until(refused + millis(5050));
    assert_eq!(world.fetches.len(), 1);
    let again = world.take_write();
    assert!(matches!(world.land(&again), WriteResult::Written { .. }));
}

#[test]
fn a_conflict_with_our_own_write_is_its_reply() {
    // The client sent it twice: the first attempt landed, its reply was lost.
    let mut world = World::new();
    world.fate = Box::new(|_| Fate::LandsThenConflict);
    world.says_from(secs(100), "x", success());
    world.create(object("x"));
    world.run(200);
    assert_eq!(world.writes.len(), 2);
    assert_eq!(world.reasons_of_events(), ["JobRunning", "JobSucceeded"]);
    assert_eq!(world.census().counters.repairs, 0);
}

#[test]
fn after_3_conflicts_in_a_row_the_fence_is_what_matters() {
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
        uid: stored.metadata.uid.as_deref().expect("it has one").into(),
        generation: 1,
        status: stored.status.map(Box::new),
    };
    assert_eq!(write.precondition, expected);
    world.touch("x");
    let result = world.land(&write);
    assert!(
        matches!(result, WriteResult::Written { .. }),
        "label churn does not matter"
    );
    world.reply(&write, result);
    world.run(1);
    world.change("x", |x| x.spec.suspend = true);
    world.run(1);
    let next = world.take_write();
    assert!(
        matches!(next.precondition, Precondition::ResourceVersion(_)),
        "a success ends the row of conflicts"
    );
}

#[test]
fn the_second_fence_holds_back_what_was_decided_for_another_spec_or_status() {
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
fn label_churn_does_not_keep_a_status_from_being_written() {
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
fn a_newer_status_replaces_one_that_waits() {
    let mut world = World::with(Config {
        writes_in_flight: 1,
        ..wide()
    });
    world.held.writes = true;
    world.create_all(["a"]);
    world.run(3);
    // a's write fills the pool; b's waits, and is out of date when its turn comes.
    world.create_all(["b"]);
    world.run(3);
    world.says("b", success());
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
    let mut world = World::with(wide());
    world.held.writes = true;
    let names: Vec<String> = (0..60).map(|n| format!("x{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        world.says(name, if n < 50 { running() } else { fail() });
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
    assert!(all_ends, "ends overtake what has waited longer");
}

#[test]
fn an_outage_is_written_at_20_a_second() {
    let mut world = World::with(wide());
    world.check_decisions = false;
    for n in 0..3000 {
        let name = format!("x{n}");
        world.create(object(&name));
    }
    world.run(60);
    let before = world.writes.len();
    for n in 0..3000 {
        world.says(&format!("x{n}"), unavailable());
    }
    world.run(900);
    let times: Vec<Duration> = world.writes[before..]
        .iter()
        .map(|write| write.at)
        .collect();
    assert_eq!(times.len(), 3000);
    let most = count_within(&times, secs(1));
    assert!(most <= 21, "{most} in one second");
}

#[test]
fn an_outage_holds_nobody_else_up() {
    let mut world = World::with(wide());
    world.check_decisions = false;
    for n in 0..6000 {
        let name = format!("x{n}");
        world.says(&name, unavailable());
        world.create(object(&name));
    }
    world.run(200);
    // Now the six thousand trickle out.
    world
        .secrets
        .insert("lost".into(), Err(super::samples::secret_missing()));
    world.create(super::samples::object_of("new", "lost", "project"));
    world.run(30);
    assert_eq!(world.reason("new"), "CredentialsNotFound");
}

#[test]
fn a_short_outage_and_throttling_are_no_reason_to_write() {
    let mut world = World::with(wide());
    world.check_decisions = false;
    for n in 0..100 {
        let name = format!("x{n}");
        world.says_from(secs(60), &name, unavailable());
        world.says_from(secs(170), &name, throttled(Some(secs(5))));
        world.says_from(secs(400), &name, running());
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
fn a_500_is_one_objects_trouble_and_is_tried_ever_more_slowly() {
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
    assert_eq!(world.reason("y"), "JobRunning", "nobody else waits");
    world.run(600);
    // At 0 s, and 10, 20, 40, 80, 80 … s after the one before.
    assert!((9..=12).contains(&sent.get()), "{}", sent.get());
}

#[test]
fn a_pause_of_writes_doubles_to_30_s_and_ends_with_the_first_success() {
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
    // 1 + 2 + 4 + 8 + 16 + 30 + 30 …
    let attempts = sent.borrow().len();
    assert!((12..=15).contains(&attempts), "{attempts}");
    ok.set(true);
    world.run(31);
    assert_eq!(world.reason("x"), "JobRunning");
    ok.set(false);
    world.says("x", success());
    world.run(30);
    let before = sent.borrow().len();
    assert!(before > attempts + 2, "the pause begins at a second again");
}

#[test]
fn sixteen_replies_of_one_trouble_are_one_trouble() {
    let mut world = World::with(wide());
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
fn a_refused_write_is_not_repeated_before_its_time() {
    let mut world = World::new();
    let attempts = Rc::new(Cell::new(0));
    let count = attempts.clone();
    world.fate = Box::new(move |_| {
        count.set(count.get() + 1);
        Fate::Refused
    });
    world.create(object("x"));
    world.run(5);
    assert_eq!(attempts.get(), 1);
    for n in 0..50 {
        world.touch("x");
        world.change("x", |x| x.spec.poll_period_seconds = Some(20 + n));
        world.run(1);
    }
    assert_eq!(attempts.get(), 1, "no storm");
    world.run(3600 - 55);
    assert!((59..=61).contains(&attempts.get()), "{}", attempts.get());
    world.fate = Box::new(|_| Fate::Lands);
    world.run(60);
    assert_eq!(world.reason("x"), "JobRunning");
}

#[test]
fn a_write_to_a_deleted_object_forgets_it() {
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
        ..wide()
    });
    world.held.writes = true;
    for n in 0..20 {
        world.says(&format!("x{n}"), not_found());
        world.create(object(&format!("x{n}")));
    }
    world.run(130);
    assert_eq!(world.open_writes.len(), 1, "the API server hangs");
    for n in 0..20 {
        assert!(world.polls_of(&format!("x{n}")).len() >= 2);
    }
}

#[test]
fn a_reply_after_leadership_was_lost_is_still_news() {
    let mut world = world_writing();
    let write = world.take_write();
    world.feed(Input::Leading(false));
    let result = world.land(&write);
    world.reply(&write, result);
    world.run(5);
    world.feed(Input::Leading(true));
    world.run(5);
    assert!(world.open_writes.is_empty(), "it is known to have landed");
}
