//! Lists and deletion events: which objects are kept, and which are forgotten.

use super::{
    control_loop::{is_tracked, world_running},
    samples::{key, object},
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
