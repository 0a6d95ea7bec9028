//! The control loop: echoes of own writes, lost replies, resource versions, objects that were re-created,
//! and inputs that arrive after the object or the leadership has changed.

use super::{
    samples::{fail, key, millis, object, running, secs, success},
    world::{SOURCE, World},
};
use crate::{Config, Input, WriteResult};
use image_export_api::ImageExportJob;

pub fn world_running(name: &str) -> World {
    let mut world = World::new();
    world.create(object(name));
    world.run(5);
    assert_eq!(world.reason(name), "JobRunning");
    world
}

/// Whether the tracker holds the object.
pub fn is_tracked(world: &World, name: &str) -> bool {
    world.tracker.state.jobs.find(&key(name)).is_some()
}

/// A world with the object `x` after its first poll, with a write in flight.
fn world_writing() -> World {
    let mut world = World::new();
    world.held.writes = true;
    world.held.watch = true;
    world.reports("x", success());
    world.create(object("x"));
    let created = world.open_watch.remove(0);
    world.see(created);
    world.run(1);
    world
}

/// Takes out the oldest held watch event.
fn next_event(world: &mut World) -> ImageExportJob {
    world.open_watch.remove(0)
}

// Echoes of own writes, and lost replies.

#[test]
fn an_echo_before_the_reply_is_no_edit() {
    let mut world = world_writing();
    let write = world.take_write();
    let result = world.land(&write);
    let echo = next_event(&mut world);
    world.see(echo);
    world.reply(&write, result);
    world.run(10);
    assert!(world.open_writes.is_empty());
    assert_eq!(world.census().counters.repairs, 0);
}

#[test]
fn an_echo_after_the_reply_is_no_edit() {
    let mut world = world_writing();
    let write = world.take_write();
    let result = world.land(&write);
    world.reply(&write, result);
    let echo = next_event(&mut world);
    world.see(echo);
    world.run(10);
    assert!(world.open_writes.is_empty());
    assert_eq!(world.census().counters.repairs, 0);
}

#[test]
fn a_lost_reply_is_resolved_by_the_echo_before_or_after_it() {
    for before in [true, false] {
        let mut world = world_writing();
        let write = world.take_write();
        world.land(&write);
        let echo = next_event(&mut world);
        if before {
            world.see(echo);
            world.reply(&write, WriteResult::Unknown);
        } else {
            world.reply(&write, WriteResult::Unknown);
            world.see(echo);
        }
        world.run(20);
        assert!(world.open_writes.is_empty(), "the write has landed");
        assert!(world.fetches.is_empty(), "the watch showed it");
        assert_eq!(world.reasons_of_events(), ["JobSucceeded"]);
    }
}

#[test]
fn a_lost_reply_is_resolved_by_one_read_after_5_s() {
    for landed in [true, false] {
        let mut world = world_writing();
        let write = world.take_write();
        if landed {
            world.land(&write);
        }
        let lost = world.now;
        world.reply(&write, WriteResult::Unknown);
        world.run_until(lost + millis(4990));
        assert!(world.fetches.is_empty());
        world.run_until(lost + millis(5100));
        assert_eq!(world.fetches.len(), 1);
        assert_eq!(
            world.open_writes.len(),
            usize::from(!landed),
            "landed: {landed}"
        );
        world.run_until(lost + secs(20));
        assert_eq!(world.fetches.len(), 1);
    }
}

#[test]
fn a_landed_write_is_recognized_although_others_changed_their_conditions() {
    let mut world = world_writing();
    let write = world.take_write();
    world.land(&write);
    let unowned = super::repair::unowned_condition("Approved");
    world.change("x", |x| {
        x.status.as_mut().expect("written").conditions.push(unowned);
    });
    world.reply(&write, WriteResult::Unknown);
    let _echo = next_event(&mut world);
    let both = next_event(&mut world);
    world.see(both);
    world.run(20);
    assert!(world.open_writes.is_empty());
    assert_eq!(world.reasons_of_events(), ["JobSucceeded"]);
}

#[test]
fn a_write_that_lands_late_is_no_edit() {
    // A JSON Patch with tests lands on any resource version. So a newer version with the old status does not
    // show that the write is lost.
    let mut world = world_writing();
    for _ in 0..3 {
        let write = world.take_write();
        world.touch("x");
        let touched = next_event(&mut world);
        world.see(touched);
        world.reply(&write, WriteResult::Conflict);
    }
    let write = world.take_write();
    world.touch("x");
    let touched = next_event(&mut world);
    world.reply(&write, WriteResult::Unknown);
    world.see(touched);
    world.land(&write);
    let echo = next_event(&mut world);
    world.see(echo);
    world.run(20);
    assert!(world.open_writes.is_empty());
    assert_eq!(world.census().counters.repairs, 0);
    assert_eq!(world.reasons_of_events(), ["JobSucceeded"]);
}

#[test]
fn a_failed_read_is_repeated_at_growing_intervals() {
    let mut world = world_writing();
    world.held.fetches = true;
    let write = world.take_write();
    world.reply(&write, WriteResult::Unknown);
    while world.now < secs(400) {
        world.run_until(world.now + millis(100));
        for (ticket, _) in std::mem::take(&mut world.open_fetches) {
            world.feed(Input::Fetched(ticket, crate::FetchResult::Failed));
        }
    }
    let gaps = world.fetches.windows(2).map(|pair| pair[1] - pair[0]);
    let gaps: Vec<u64> = gaps.map(|gap| gap.as_secs()).collect();
    assert_eq!(gaps[..6], [10, 20, 40, 80, 80, 80]);
}

#[test]
fn a_read_that_finds_no_object_forgets_it() {
    let mut world = world_writing();
    let write = world.take_write();
    world.objects.clear();
    world.reply(&write, WriteResult::Unknown);
    world.run(20);
    assert!(!is_tracked(&world, "x"));
}

#[test]
fn a_read_that_finds_a_recreated_object_does_not_take_it_for_the_old_one() {
    for ended in [true, false] {
        let mut world = world_writing();
        let write = world.take_write();
        world.reply(&write, WriteResult::Unknown);
        // The object is created anew under its name, for another job; the watch does not show it yet.
        world.objects.clear();
        let mut other = object("x");
        other.spec.job_id = "another".parse().expect("a valid job id");
        if ended {
            other.spec.suspend = true;
        }
        world.create(other);
        world.held.writes = false;
        world.run(20);
        assert_eq!(world.fetches.len(), 1);
        assert!(!is_tracked(&world, "x"));
        assert!(world.writes.is_empty(), "nothing of the old job is written");
        world.held.watch = false;
        let created = next_event(&mut world);
        world.see(created);
        world.run(20);
        let expected = if ended { "Suspended" } else { "JobRunning" };
        assert_eq!(world.reason("x"), expected);
        assert!(world.status("x").conditions[0].message.contains("another"));
    }
}

// Resource versions.

#[test]
fn an_older_version_is_ignored() {
    let mut world = world_running("x");
    let old = world.stored("x").clone();
    world.change("x", |x| x.spec.suspend = true);
    world.run(5);
    let (polls, writes) = (world.polls.len(), world.writes.len());
    let mut old_with_edit = old;
    old_with_edit.status = None;
    world.see(old_with_edit);
    world.run(100);
    assert_eq!((world.polls.len(), world.writes.len()), (polls, writes));
    assert_eq!(world.reason("x"), "Suspended");
}

#[test]
fn resource_versions_may_have_any_length() {
    let mut world = World::unstarted(Config::default());
    let version = |x: &mut ImageExportJob, version: &str, suspend| {
        x.metadata.resource_version = Some(version.to_owned());
        x.metadata.generation = Some(if suspend { 2 } else { 1 });
        x.spec.suspend = suspend;
    };
    let mut x = object("x");
    x.metadata.uid = Some("uid".into());
    version(&mut x, "99999999999999999999999999999999999999", false);
    world.see(x.clone());
    version(&mut x, "100000000000000000000000000000000000000", true);
    world.see(x.clone());
    let suspended = |world: &World| {
        world
            .tracker
            .state
            .jobs
            .find(&key("x"))
            .expect("tracked")
            .1
            .suspended
    };
    assert!(suspended(&world), "a version with one more digit is newer");
    version(&mut x, "99999999999999999999999999999999999999", false);
    world.see(x.clone());
    assert!(suspended(&world), "a version with one digit less is older");
    version(&mut x, "not-a-number", false);
    world.see(x);
    assert!(
        !suspended(&world),
        "a version that cannot be compared counts as newer"
    );
}

// Objects that were re-created under the same name.

#[test]
fn a_late_event_of_a_replaced_object_is_ignored() {
    let mut world = world_running("x");
    let old = world.stored("x").clone();
    world.objects.clear();
    world.create(object("x"));
    world.run(5);
    let (polls, writes) = (world.polls.len(), world.writes.len());
    world.see(old);
    world.run(5);
    assert_eq!((world.polls.len(), world.writes.len()), (polls, writes));
    assert_eq!(
        world
            .tracker
            .state
            .jobs
            .find(&key("x"))
            .map(|(_, x)| x.uid.text()),
        Some("uid-2".into())
    );
}

#[test]
fn an_answer_for_a_replaced_object_is_dropped() {
    let mut world = World::new();
    world.held.polls = true;
    world.create(object("x"));
    world.run(1);
    let old = world.take_poll();
    world.objects.clear();
    world.create(object("x"));
    world.run(1);
    let new = world.take_poll();
    world.answer(&old, success());
    world.run(1);
    assert_eq!(
        world.reason("x"),
        "",
        "the end of the old job is not the end of the new one"
    );
    assert_eq!(world.census().counters.dropped_answers, 1);
    world.answer(&new, running());
    world.run(1);
    assert_eq!(world.reason("x"), "JobRunning");
}

#[test]
fn a_reply_for_a_replaced_object_does_not_affect_its_replacement() {
    for result in [
        WriteResult::Conflict,
        WriteResult::Gone,
        WriteResult::Unknown,
    ] {
        let mut world = world_writing();
        let write = world.take_write();
        world.objects.clear();
        world.create(object("x"));
        let recreated = next_event(&mut world);
        world.see(recreated);
        world.reply(&write, result);
        world.run(5);
        assert!(is_tracked(&world, "x"));
        let write = world.take_write();
        let result = world.land(&write);
        assert!(matches!(result, WriteResult::Written { .. }));
        assert!(world.fetches.is_empty());
    }
}

// The credentials, the suspension or the leadership changed while an effect was in flight.

#[test]
fn with_former_credentials_an_end_counts_and_an_error_is_dropped() {
    for (answer, reason) in [
        (success(), "JobSucceeded"),
        (fail(), "JobFailed"),
        (super::samples::unavailable(), ""),
        (super::samples::not_found(), ""),
        (
            super::samples::misconfigured(image_export_model::ConfigurationReason::AccessDenied),
            "",
        ),
        (super::samples::throttled(None), ""),
    ] {
        let mut world = World::new();
        world.held.polls = true;
        world.create(object("x"));
        world.run(1);
        let old = world.take_poll();
        world.change("x", |x| {
            x.spec.cloud_credentials_ref = super::samples::cloud("other");
        });
        world.run(1);
        world.answer(&old, answer.clone());
        world.run(2);
        assert_eq!(world.reason("x"), reason, "{answer:?}");
        assert_eq!(
            world.open_polls.len(),
            usize::from(reason.is_empty()),
            "polled again at once"
        );
    }
}

#[test]
fn an_answer_for_a_suspended_object_counts_only_if_it_is_an_end() {
    for (answer, reason) in [
        (success(), "JobSucceeded"),
        (fail(), "JobFailed"),
        (running(), "Suspended"),
        (super::samples::unavailable(), "Suspended"),
    ] {
        let mut world = World::new();
        world.held.polls = true;
        world.create(object("x"));
        world.run(1);
        let poll = world.take_poll();
        world.change("x", |x| x.spec.suspend = true);
        world.run(1);
        world.answer(&poll, answer);
        world.run(100);
        assert_eq!(world.reason("x"), reason);
        assert!(world.open_polls.is_empty());
    }
}

#[test]
fn the_last_of_many_suspend_changes_wins() {
    let mut world = world_running("x");
    for n in 0..21 {
        world.change("x", |x| x.spec.suspend = n % 2 == 0);
    }
    world.run(5);
    assert_eq!(world.reason("x"), "Suspended");
    assert_eq!(world.status("x").observed_generation, Some(22));
}

#[test]
fn an_answer_of_an_earlier_leadership_is_dropped() {
    let mut world = World::new();
    world.held.polls = true;
    world.create(object("x"));
    world.run(1);
    let poll = world.take_poll();
    world.feed(Input::Leading(false));
    world.feed(Input::Leading(true));
    world.answer(&poll, success());
    world.run(1);
    assert_eq!(world.reason("x"), "");
    let poll = world.take_poll();
    world.answer(&poll, success());
    world.run(1);
    assert_eq!(world.reason("x"), "JobSucceeded");
}

#[test]
fn a_standby_has_no_effects_and_keeps_what_it_received() {
    let mut world = World::unstarted(Config::default());
    world.create(object("x"));
    world.feed(Input::Undecodable {
        source: SOURCE,
        key: key("y"),
        uid: "uid-y".into(),
        error: "spec: missing".into(),
    });
    // `World::feed` checks that there are no effects.
    world.run(3600);
    assert!(world.events.is_empty());
    world.feed(Input::Leading(true));
    world.run(5);
    assert_eq!(world.reason("x"), "JobRunning");
    assert_eq!(world.reasons_of_events(), ["InvalidObject"]);
}

#[test]
fn a_new_leader_adopts_the_status_of_the_former_one() {
    let mut leader = World::new();
    leader.reports("x", success());
    leader.create(object("x"));
    let mut standby = World::unstarted(Config::default());
    standby.create(object("x"));
    standby.run(30);
    leader.run(5);
    let mut finished = leader.stored("x").clone();
    finished.metadata.resource_version = Some("1000".into());
    standby.objects.insert(key("x"), finished.clone());
    standby.see(finished);
    standby.feed(Input::Leading(true));
    standby.run(600);
    assert_eq!((standby.polls.len(), standby.writes.len()), (0, 0));
    assert_eq!(standby.reason("x"), "JobSucceeded");
}
