//! Changes of leadership: what another leader did meanwhile is believed, and nothing stale is shown.

use super::{
    samples::{object, running, secret_missing, secs, success, success_without_image},
    world::World,
};
use crate::{Config, Input};

/// The reasons of the Events that follow when this process leads again for a while.
fn events_after_takeover(world: &mut World, seconds: u64) -> Vec<&'static str> {
    let before = world.events.len();
    world.feed(Input::Leading(true));
    world.run(seconds);
    world.reasons_of_events().split_off(before)
}

#[test]
fn a_secret_that_was_fixed_under_another_leader_is_not_shown_as_missing() {
    let mut world = World::new();
    world.secrets.insert("otc".into(), Err(secret_missing()));
    world.create(object("x"));
    world.run(30);
    assert_eq!(world.reason("x"), "CredentialsNotFound");
    world.feed(Input::Leading(false));
    world.secrets.insert("otc".into(), Ok(7));
    let mut other = World::new();
    other.create(object("x"));
    other.run(10);
    let written = other.status("x").clone();
    world.edit("x", |status| *status = written);
    world.run(3600);
    let writes = world.writes.len();
    assert!(events_after_takeover(&mut world, 60).is_empty());
    assert_eq!(world.writes.len(), writes);
}

#[test]
fn a_request_that_another_leader_handled_is_not_polled_again() {
    let mut other = World::new();
    other.reports("x", success_without_image());
    other.create(object("x"));
    other.run(100);
    assert_eq!(other.reason("x"), "ImageIDMissing");
    let mut world = World::unstarted(Config::default());
    world.list();
    let mut seen = object("x");
    seen.status = Some(other.status("x").clone());
    world.create(seen);
    world.run(5);
    for world in [&mut world, &mut other] {
        world.request_poll("x", "1");
        world.run(10);
    }
    let handled = other.status("x").clone();
    world.edit("x", |status| *status = handled);
    world.run(10_000);
    world.feed(Input::Leading(true));
    world.run(100);
    assert_eq!(world.polls.len(), 0);
}

#[test]
fn a_deadline_that_passed_under_another_leader_is_shown_only_after_a_poll() {
    let mut world = World::new();
    let mut late = object("x");
    late.spec.deadline_seconds = Some(1000);
    late.spec.poll_period_seconds = Some(36_000);
    world.create(late);
    world.run(500);
    world.feed(Input::Leading(false));
    world.run(510);
    world.reports("x", success());
    assert_eq!(events_after_takeover(&mut world, 1000), ["JobSucceeded"]);
}

#[test]
fn a_deadline_that_passed_while_suspended_is_shown_only_after_a_poll() {
    let mut world = World::new();
    let mut late = object("x");
    late.spec.deadline_seconds = Some(100);
    late.spec.suspend = true;
    world.create(late);
    world.run(200);
    world.feed(Input::Leading(false));
    world.change("x", |x| x.spec.suspend = false);
    world.run(10);
    world.reports("x", success());
    let events = events_after_takeover(&mut world, 1000);
    assert_eq!(events, ["JobSucceeded"]);
}

#[test]
fn a_poll_from_before_a_suspension_shows_nothing_of_the_time_after_it() {
    let mut probe = World::new();
    probe.create(object("x"));
    probe.run(200);
    let polls = probe.polls_of("x");
    let at = *polls.iter().find(|at| **at > secs(100)).expect("a poll");
    let mut world = World::new();
    let mut late = object("x");
    late.spec.deadline_seconds = i32::try_from(at.as_secs() + 3).ok();
    world.create(late);
    world.run_until(at - secs(1));
    world.held.polls = true;
    world.run(2);
    let poll = world.take_poll();
    world.change("x", |x| x.spec.suspend = true);
    world.run(5);
    world.change("x", |x| x.spec.suspend = false);
    world.run(1);
    let events = world.events.len();
    world.held.polls = false;
    world.reports("x", success());
    world.answer(&poll, running());
    world.run(400);
    assert_eq!(world.reasons_of_events()[events..], ["JobSucceeded"]);
}

#[test]
fn nothing_is_published_without_leadership_nor_made_up_for_later() {
    let mut world = World::unstarted(Config::default());
    let undecodable = |uid: &str| Input::Undecodable {
        source: super::world::SOURCE,
        key: super::samples::key("y"),
        uid: uid.into(),
        error: "spec: missing".into(),
    };
    // `World::feed` checks that a standby has no output.
    for uid in ["uid-1", "uid-2"] {
        world.feed(undecodable(uid));
    }
    world.create(object("x"));
    world.request_poll("x", &"x".repeat(65));
    for n in 0..200 {
        world.change("x", |x| x.spec.poll_period_seconds = Some(30 + n));
        world.run(60);
    }
    let state = &world.tracker.state;
    assert_eq!(
        (state.output.events.len(), state.output.effects.len()),
        (0, 0)
    );
    assert_eq!(state.writes.len(), 0);
    assert!(state.timers.len() <= 2, "{}", state.timers.len());
    // The new leader reports what is invalid now, and once.
    let both = ["InvalidObject", "PollRequestIgnored"];
    assert_eq!(events_after_takeover(&mut world, 100), both);
    assert_eq!(world.events[0].uid.as_ref(), "uid-2");
    world.feed(undecodable("uid-2"));
    world.touch("x");
    world.run(1);
    assert_eq!(world.reasons_of_events(), both);
}

/// A standby beside a leader, which has followed `x` for a while; the standby takes over.
fn after_takeover(grace: u64) -> World {
    let config = Config {
        takeover_grace: secs(grace),
        ..Config::default()
    };
    let mut leader = World::new();
    leader.create(object("x"));
    leader.run(100);
    let mut world = World::unstarted(config);
    world.list();
    let mut seen = object("x");
    seen.status = Some(leader.status("x").clone());
    world.create(seen);
    world.run(3600);
    assert_eq!(world.polls.len(), 0);
    world.feed(Input::Leading(true));
    world
}

#[test]
fn a_standby_has_read_the_secrets_and_polls_each_job_at_its_usual_instant() {
    let mut world = World::unstarted(Config::default());
    world.list();
    let mut other = World::new();
    for name in ["x", "y", "z"] {
        other.create(object(name));
        other.run(10);
        let mut seen = object(name);
        seen.status = Some(other.status(name).clone());
        world.create(seen);
    }
    world.run(3600);
    let reads = world.reads.len();
    // Each five minutes, as a leader reads them.
    assert!((11..=14).contains(&reads), "{reads}");
    world.feed(Input::Leading(true));
    assert_eq!(world.polls.len(), 0, "no burst");
    world.run(30);
    assert_eq!(world.polls.len(), 3, "each within a period");
}

#[test]
fn a_late_write_of_the_former_leader_is_believed() {
    let mut finished = World::new();
    finished.reports("x", success());
    finished.create(object("x"));
    finished.run(10);
    let end = finished.status("x").clone();

    let mut world = after_takeover(20);
    world.run(5);
    let polls = world.polls.len();
    world.edit("x", |status| *status = end.clone());
    world.run(600);
    assert_eq!(world.reason("x"), "JobSucceeded");
    assert_eq!(
        (world.polls.len(), world.census().counters.repairs),
        (polls, 0)
    );

    // Later, and without an election, it is somebody's edit.
    for (grace, wait) in [(20, 21), (0, 5)] {
        let mut world = after_takeover(grace);
        world.run(wait);
        world.edit("x", |status| *status = end.clone());
        world.run(600);
        assert_eq!(world.reason("x"), "JobRunning");
        assert_eq!(world.census().counters.repairs, 1);
    }
}

#[test]
fn a_late_write_of_less_than_was_observed_is_replaced() {
    let mut world = after_takeover(60);
    let initializing = world.status("x").clone();
    world.run(35);
    assert_eq!(world.polls.len(), 1, "observed");
    world.edit("x", |status| {
        *status = initializing;
        status.status = Some("INIT".to_owned());
    });
    world.run(5);
    assert_eq!(world.reason("x"), "JobRunning");
    assert_eq!(world.status("x").status.as_deref(), Some("RUNNING"));
}
