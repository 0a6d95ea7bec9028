//! Lists and deletions: what is present, what is gone.

use super::{
    ring::{known, world_running},
    samples::{key, object},
    world::{SOURCE, World},
};
use crate::{Config, Input, Source};

#[test]
fn a_list_that_begins_twice_counts_once() {
    let mut world = world_running("a");
    world.create(object("b"));
    world.run(5);
    world.feed(Input::ListStarted(SOURCE));
    world.see(world.stored("a").clone());
    // The list broke off; its second run brings only b.
    world.feed(Input::ListStarted(SOURCE));
    world.see(world.stored("b").clone());
    assert!(
        known(&world, "a"),
        "nothing is gone before the list is complete"
    );
    world.feed(Input::Listed(SOURCE));
    assert_eq!((known(&world, "a"), known(&world, "b")), (false, true));
}

#[test]
fn a_list_speaks_for_its_source_only() {
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
fn an_object_that_does_not_decode_is_present_and_reported_once() {
    let mut world = world_running("x");
    let uid = world.stored("x").metadata.uid.clone().expect("it has one");
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
    assert!(known(&world, "x"));
    let told = world
        .events
        .iter()
        .filter(|note| note.reason == "InvalidObject");
    assert_eq!(
        told.map(|note| note.warning).collect::<Vec<_>>(),
        [true, true]
    );
}

#[test]
fn another_object_that_does_not_decode_ends_the_one_before() {
    let mut world = world_running("x");
    world.feed(Input::Undecodable {
        source: SOURCE,
        key: key("x"),
        uid: "uid-new".into(),
        error: "spec: missing".into(),
    });
    assert!(
        !known(&world, "x"),
        "same name with another uid = gone + seen"
    );
}

#[test]
fn a_deletion_of_an_earlier_incarnation_is_old_news() {
    let mut world = world_running("x");
    world.feed(Input::Deleted(key("x"), Some("uid-before".into())));
    assert!(known(&world, "x"));
    let polls = world.polls.len();
    world.delete("x");
    world.run(100);
    assert!(!known(&world, "x"));
    assert_eq!(
        world.polls.len(),
        polls,
        "a deleted object is not asked about"
    );
}
