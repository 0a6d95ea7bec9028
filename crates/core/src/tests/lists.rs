//! Lists and deletion events: which objects are kept, and which are forgotten.

use super::{
    control_loop::{is_tracked, world_running},
    samples::{key, millis, object},
    world::{SOURCE, World},
};
use crate::{Config, Input, Source};

#[test]
fn a_list_that_starts_twice_counts_once() {
    let mut world = world_running("a");
    world.create(object("b"));
    world.run(5);
    world.feed(Input::ListStarted(SOURCE));
    world.see(world.stored("a").clone());
    // The list broke off. It starts again, and now has only b.
    world.feed(Input::ListStarted(SOURCE));
    world.see(world.stored("b").clone());
    assert!(
        is_tracked(&world, "a"),
        "no object is forgotten before the list is complete"
    );
    world.feed(Input::Listed(SOURCE));
    assert_eq!(
        (is_tracked(&world, "a"), is_tracked(&world, "b")),
        (false, true)
    );
}

#[test]
fn a_list_removes_objects_of_its_own_source_only() {
    let mut world = World::unstarted(Config::default());
    world.feed(Input::Leading(true));
    let mut other = object("other");
    other.metadata.namespace = Some("team-b".into());
    other.metadata.uid = Some("uid-b".into());
    other.metadata.resource_version = Some("7".into());
    world.feed(Input::Applied(Source(1), Box::new(other)));
    world.feed(Input::Listed(Source(1)));
    assert!(!world.tracker.has_listed(2), "one of two sources");
    world.feed(Input::ListStarted(SOURCE));
    world.feed(Input::Listed(SOURCE));
    assert!(world.tracker.has_listed(2));
    assert_eq!(world.tracker.state.jobs.iter().count(), 1);
}

#[test]
fn an_object_that_does_not_decode_is_kept_and_reported_once() {
    let mut world = world_running("x");
    let uid = world
        .stored("x")
        .metadata
        .uid
        .clone()
        .expect("stored objects have a uid");
    let broken = |uid: &str, name: &str| Input::Undecodable {
        source: SOURCE,
        key: key(name),
        uid: uid.to_owned(),
        error: "spec.jobID: not a valid JobId".into(),
    };
    for _ in 0..3 {
        world.feed(Input::ListStarted(SOURCE));
        world.feed(broken(&uid, "x"));
        world.feed(broken("uid-never-seen", "y"));
        world.feed(Input::Listed(SOURCE));
    }
    assert!(is_tracked(&world, "x"));
    let events = world
        .events
        .iter()
        .filter(|event| event.reason == "InvalidObject");
    assert_eq!(
        events.map(|event| event.warning).collect::<Vec<_>>(),
        [true, true]
    );
}

#[test]
fn an_undecodable_object_with_another_uid_removes_the_earlier_object() {
    let mut world = world_running("x");
    world.feed(Input::Undecodable {
        source: SOURCE,
        key: key("x"),
        uid: "uid-new".into(),
        error: "spec: missing".into(),
    });
    assert!(
        !is_tracked(&world, "x"),
        "the same name with another uid is another object"
    );
}

#[test]
fn a_deletion_event_with_an_earlier_uid_is_ignored() {
    let mut world = world_running("x");
    world.feed(Input::Deleted(key("x"), Some("uid-before".into())));
    assert!(is_tracked(&world, "x"));
    let polls = world.polls.len();
    world.delete("x");
    world.run(100);
    assert!(!is_tracked(&world, "x"));
    assert_eq!(world.polls.len(), polls, "a deleted object is not polled");
}

#[test]
fn an_undecodable_object_that_a_list_does_not_bring_is_forgotten() {
    let mut world = World::new();
    for other in [true, false] {
        world.feed(Input::ListStarted(SOURCE));
        if other {
            world.feed(Input::Undecodable {
                source: SOURCE,
                key: key("x"),
                uid: "uid-x".into(),
                error: "spec: missing".into(),
            });
        }
        world.feed(Input::Listed(SOURCE));
    }
    assert_eq!(world.tracker.state.leftovers(), []);
}

#[test]
fn nothing_is_left_of_objects_that_are_gone() {
    let mut world = World::new();
    world.check_decisions = false;
    world.create(object("kept"));
    for n in 0..100 {
        world.create(super::samples::object_of(
            &format!("x{n}"),
            &format!("secret-{}", n % 40),
            &format!("project-{}", n % 7),
        ));
    }
    world.run(1);
    // Each change moves the next poll, and with it the timer.
    for n in 0..20_000 {
        world.change("kept", |x| x.spec.poll_period_seconds = Some(30 + n % 1000));
        world.run_until(world.now + millis(3));
    }
    let timers = world.tracker.state.timers.len();
    assert!(timers <= 2 * 101, "{timers} timers of 101 objects");
    // Much of it is queued, and nothing moves.
    world.held.polls = true;
    world.held.writes = true;
    world.held.reads = true;
    for n in 0..100 {
        world.change(&format!("x{n}"), |x| {
            x.spec.cloud_credentials_ref = super::samples::cloud(&format!("other-{n}"));
        });
    }
    world.run(1);
    for name in world.objects.keys().cloned().collect::<Vec<_>>() {
        world.delete(&name.name);
    }
    world.run_until(world.now + millis(2));
    assert_eq!(world.tracker.state.leftovers(), []);
}
