//! Polls that wait: what `Pending` and `PollOverdue` say of them, when, and in how many writes.

use super::{
    invariants::condition,
    phases::world_with,
    samples::{
        millis, object, object_of, running, secs, success, throttled, time_out, unavailable,
        unavailable_for,
    },
    world::World,
};
use crate::{Config, Input};
use image_export_api::conditions::types;
use image_export_model::Outcome;
use std::{collections::HashMap, time::Duration};

fn message(world: &World, name: &str) -> String {
    let ready = condition(world.status(name), types::READY);
    ready.expect("present").message.clone()
}

fn overdue(world: &World) -> usize {
    let objects = world.objects.keys();
    objects
        .filter(|key| world.reason(&key.name) == "PollOverdue")
        .count()
}

/// As many objects as this, of which one is polled in a second.
fn scarce(objects: u32) -> World {
    let mut world = World::with(Config {
        quota_rate: 1.0,
        quota_burst: 2.0,
        ..Config::default()
    });
    world.check_decisions = false;
    for n in 0..objects {
        world.create(object(&format!("x{n}")));
    }
    world
}

#[test]
fn a_scarce_quota_is_named_and_costs_two_writes_for_each_poll_that_is_overdue() {
    let mut world = scarce(400);
    // Some wait for their first poll, and say so.
    world.run(20);
    let waiting = world.objects.keys().filter(|key| {
        message(&world, &key.name).contains("more polls are due for its endpoint and project")
    });
    assert!(waiting.count() > 350);
    // A round takes 400 s: each waits for more than 5 minutes in each.
    world.run_until(secs(350));
    let shown = overdue(&world);
    assert!((70..=100).contains(&shown), "{shown}");
    assert_eq!(world.census().polls_overdue, shown);
    world.run_until(secs(1600));
    let mut reasons: HashMap<&str, u32> = HashMap::new();
    let mut statuses = 0;
    for write in &world.writes {
        let ready = condition(&write.status, types::READY).expect("present");
        *reasons.entry(&ready.reason).or_default() += 1;
        if ready.reason == "PollOverdue" {
            assert!(
                ready.message.contains("--polls-per-second"),
                "{}",
                ready.message
            );
            statuses += u32::from(write.status.status.as_deref() == Some("RUNNING"));
        }
    }
    let (enters, leaves) = (reasons["PollOverdue"], reasons["JobRunning"]);
    assert!(enters > 300, "{reasons:?}");
    // Each object shows its first answer once, a quarter of them after an overdue poll; every other write
    // ends an overdue poll, of which some are left.
    assert!(
        (100..=250).contains(&(enters + 400 - leaves)),
        "{reasons:?}"
    );
    assert!(
        statuses + 100 >= enters,
        "the last known status stays: {statuses} of {enters}"
    );
}

#[test]
fn poll_overdue_is_written_at_the_rate_of_poll_failed() {
    let mut world = World::with(Config {
        quota_rate: 100.0,
        quota_burst: 200.0,
        host_rate: 100.0,
        host_burst: 200.0,
        unproven_rate: 100.0,
        unproven_burst: 200.0,
        ..Config::default()
    });
    world.check_decisions = false;
    for n in 0..1000 {
        world.create(object(&format!("x{n}")));
    }
    world.run(200);
    world.cloud_by_default = Box::new(|_, _| throttled(Some(secs(800))));
    world.run(290);
    let before = world.writes.len();
    world.run(100);
    let written = &world.writes[before..];
    assert_eq!((written.len(), overdue(&world)), (1000, 1000));
    for second in 0..50 {
        let from = written[0].at + secs(second);
        let count = written
            .iter()
            .filter(|w| (from..from + secs(1)).contains(&w.at));
        assert!(count.count() <= 21, "in second {second}");
    }
}

#[test]
fn a_poll_is_overdue_by_the_period_of_its_own_where_that_is_longer() {
    let mut world = World::new();
    let mut rare = object("x");
    rare.spec.poll_period_seconds = Some(1800);
    world.create(rare);
    world.run(10);
    world.reports("x", throttled(Some(secs(100))));
    while world.polls.len() < 2 {
        world.run(1);
    }
    let first = world.polls[1].at;
    world.run_until(first + secs(1795));
    assert_eq!(world.reason("x"), "JobRunning");
    world.run_until(first + secs(1801));
    assert_eq!(world.reason("x"), "PollOverdue");
}

#[test]
fn polls_in_flight_that_are_not_answered_are_named() {
    let mut world = World::with(Config {
        quota_in_flight: 1,
        ..Config::default()
    });
    world.create_all(["x", "y"]);
    world.run(5);
    world.held.polls = true;
    world.run(31);
    let first = world.open_polls[0].key.name.clone();
    let other = if &*first == "x" { "y" } else { "x" };
    world.run(330);
    assert_eq!(
        (world.reason(other), world.reason(&first)),
        ("PollOverdue", "JobRunning")
    );
    assert!(message(&world, other).contains("as many as may be in flight"));
    world.held.polls = false;
    let poll = world.take_poll();
    world.answer(&poll, running());
    world.run(1);
    assert_eq!(world.reason(other), "JobRunning");
}

#[test]
fn a_retry_after_of_a_failure_is_named_on_all_objects_that_it_pauses() {
    for accepted in [true, false] {
        let mut world = World::new();
        world.create_all(["x", "y"]);
        if accepted {
            world.run(5);
        }
        let asks = unavailable_for(secs(800));
        world.reports("x", asks.clone());
        world.reports("y", asks);
        world.run(340);
        for name in ["x", "y"] {
            assert_eq!(world.reason(name), "PollOverdue", "{name}, {accepted}");
            assert!(message(&world, name).contains("the cloud asks to wait"));
        }
        world.reports("x", running());
        world.reports("y", running());
        world.run(660);
        assert_eq!(overdue(&world), 0);
    }
}

#[test]
fn failures_become_poll_failed_and_not_poll_overdue() {
    for fault in [unavailable(), time_out(), unavailable_for(secs(5))] {
        let mut world = world_with(running());
        world.reports("x", fault);
        world.run(3000);
        assert_eq!(world.reasons_shown(), ["JobRunning", "PollFailed"]);
    }
}

/// `x` in `PollOverdue`.
fn overdue_world() -> World {
    let mut world = world_with(running());
    world.reports("x", throttled(Some(secs(60))));
    world.run(400);
    assert_eq!(world.reason("x"), "PollOverdue");
    world
}

#[test]
fn an_answer_ends_poll_overdue_and_failures_do_not_before_they_are_poll_failed() {
    let mut world = overdue_world();
    world.reports("x", success());
    world.run(70);
    assert_eq!(world.reason("x"), "JobSucceeded");

    let mut world = overdue_world();
    world.reports("x", unavailable());
    world.run(1000);
    let reasons = world.reasons_shown();
    assert_eq!(reasons, ["JobRunning", "PollOverdue", "PollFailed"]);
    world.reports("x", running());
    world.run(302);
    assert_eq!(world.reason("x"), "JobRunning");
}

#[test]
fn a_restart_keeps_poll_overdue_until_an_answer() {
    let mut world = overdue_world();
    let before = world.status("x").clone();
    let written = world.writes.len();
    for _ in 0..3 {
        world.restart();
        world.run(500);
    }
    assert_eq!(world.status("x"), &before);
    world.reports("x", running());
    world.restart();
    world.run(310);
    assert_eq!(
        (world.reason("x"), world.writes.len()),
        ("JobRunning", written + 1)
    );
}

#[test]
fn a_new_leader_counts_from_its_beginning() {
    let mut world = World::unstarted(Config::default());
    world.create(object("x"));
    world.list();
    world.run(3600);
    assert_eq!(world.census().polls_overdue, 0);
    world.reports("x", throttled(None));
    world.feed(Input::Leading(true));
    world.run(290);
    assert_eq!(overdue(&world), 0);
    world.run(30);
    assert_eq!((overdue(&world), world.census().polls_overdue), (1, 1));
}

#[test]
fn a_deadline_names_that_polls_wait() {
    let mut world = World::new();
    let mut late = object("x");
    late.spec.deadline_seconds = Some(600);
    world.create(late);
    world.run(5);
    world.reports("x", throttled(Some(secs(60))));
    world.run(700);
    assert_eq!(world.reason("x"), "DeadlineExceeded");
    assert!(message(&world, "x").contains("the cloud asks to wait"));
}

#[test]
fn pending_names_the_first_failure_in_the_same_write_or_in_one_more() {
    // Known before it is shown.
    let mut world = world_with(time_out());
    world.run(6);
    assert_eq!(world.writes.len(), 1);
    let waiting = "Waiting for the first answer about job job-x";
    let known = format!("{waiting}: ims.example.com answered 503.");
    assert_eq!(message(&world, "x"), known);
    // Other failures change nothing.
    let mut other = unavailable();
    if let Outcome::Failed(failure) = &mut other.outcome {
        failure.message = "ims.example.com answered 502".into();
    }
    world.reports("x", other);
    world.run(60);
    assert_eq!((world.reason("x"), world.writes.len()), ("Pending", 1));

    // Known afterwards.
    let mut world = World::new();
    world.poll_time = secs(15);
    world.reports("x", time_out());
    world.create(object("x"));
    world.run(12);
    assert_eq!(message(&world, "x"), format!("{waiting}."));
    world.run(10);
    assert_eq!((message(&world, "x"), world.writes.len()), (known, 2));
    world.reports("x", running());
    world.run(300);
    assert_eq!(world.reason("x"), "JobRunning");
}

#[test]
fn what_pending_comes_to_name_is_written_at_the_rate_of_poll_failed() {
    let mut world = World::with(Config {
        quota_rate: 1e6,
        quota_burst: 1e6,
        host_rate: 1e6,
        host_burst: 1e6,
        unproven_rate: 1e6,
        unproven_burst: 1e6,
        quota_in_flight: 10_000,
        polls_in_flight: 10_000,
        ..Config::default()
    });
    world.check_decisions = false;
    world.poll_time = secs(15);
    world.cloud_by_default = Box::new(|_, _| time_out());
    for n in 0..500 {
        world.create(object(&format!("x{n}")));
    }
    world.run(14);
    assert_eq!(world.writes.len(), 500);
    world.run(6);
    let named: Vec<Duration> = world.writes[500..].iter().map(|write| write.at).collect();
    assert!(named.len() <= 21 * 6, "{}", named.len());
    world.run(30);
    assert_eq!(world.writes.len(), 1000);
}

#[test]
fn pending_keeps_its_cause_over_a_restart() {
    let mut world = world_with(time_out());
    world.run(10);
    let before = world.status("x").clone();
    world.restart();
    world.run_until(world.now + millis(500));
    assert_eq!(world.status("x"), &before);
    world.run(100);
    assert_eq!((world.status("x"), world.writes.len()), (&before, 1));
}

#[test]
fn one_credential_that_has_to_wait_says_nothing_of_another() {
    let mut world = World::new();
    world.create(object_of("a", "one", "project"));
    world.run(5);
    world.reports("b", throttled(Some(secs(800))));
    world.create(object_of("b", "two", "project"));
    world.run(400);
    assert_eq!(
        (world.reason("a"), world.reason("b")),
        ("JobRunning", "PollOverdue")
    );
}
