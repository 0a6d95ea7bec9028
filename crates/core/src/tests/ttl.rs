//! `spec.ttlSecondsAfterFinished`: which objects are deleted, when, and what follows a failed deletion.

use super::{
    control_loop::is_tracked,
    deadline::second_of,
    samples::{
        answer_with, beginning, fail, millis, not_found, object, running, secs, success,
        success_without_image, unavailable,
    },
    world::{Fate, World},
};
use crate::Input;
use image_export_api::ImageExportJob;
use image_export_model::JobState;
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

fn with_ttl(seconds: i32) -> ImageExportJob {
    let mut object = object("x");
    object.spec.ttl_seconds_after_finished = Some(seconds);
    object
}

#[test]
fn a_finished_object_is_deleted_after_its_ttl_and_not_before() {
    for (ttl, end) in [(0, success()), (60, success()), (60, fail())] {
        let mut world = World::new();
        world.reports("x", end);
        world.create(with_ttl(ttl));
        world.run_until(secs(3));
        let shown = world.writes[0].at;
        let due = shown + secs(ttl.unsigned_abs().into());
        world.run_until(due + secs(2));
        assert_eq!(world.deletions.len(), 1, "ttl {ttl}");
        assert!(world.deletions[0] + secs(1) >= due && world.deletions[0] <= due + secs(1));
        assert!(world.objects.is_empty() && !is_tracked(&world, "x"));
    }
}

#[test]
fn an_unfinished_object_is_never_deleted() {
    for report in [running(), not_found(), unavailable()] {
        let mut world = World::new();
        world.reports("x", report);
        let mut object = with_ttl(0);
        object.spec.deadline_seconds = Some(100);
        world.create(object);
        world.run(5000);
        assert_eq!(world.deletions.len(), 0, "{}", world.reason("x"));
    }
    // Nor is an object deleted whose status shows an end because of an edit.
    let mut world = World::new();
    world.create(with_ttl(0));
    world.run(5);
    world.edit("x", |status| status.status = Some("SUCCESS".into()));
    world.run(100);
    assert_eq!(
        (world.reason("x"), world.deletions.len()),
        ("JobRunning", 0)
    );
}

#[test]
fn image_id_missing_starts_the_ttl() {
    let mut world = World::new();
    world.reports("x", success_without_image());
    world.create(with_ttl(100));
    assert!((50..60).contains(&second_of(&mut world, "ImageIDMissing", 100)));
    world.run(90);
    assert_eq!(world.deletions.len(), 0);
    world.run(20);
    assert!(world.objects.is_empty());
}

#[test]
fn the_ttl_counts_from_when_the_end_was_shown() {
    let ended =
        |at: Timestamp| answer_with(JobState::Fail, move |answer| answer.end_time = Some(at));
    let day = SignedDuration::from_hours(24);
    // The end time that the cloud reports does not matter, even if its clock is 4 minutes ahead.
    for end in [
        beginning() - 2 * day,
        beginning() + SignedDuration::from_mins(4),
    ] {
        let mut world = World::new();
        world.reports("x", ended(end));
        world.create(with_ttl(100));
        world.run(98);
        assert_eq!(world.deletions.len(), 0, "{end}");
        world.run(10);
        assert_eq!(world.deletions.len(), 1, "{end}");
    }
}

#[test]
fn a_ttl_survives_a_restart() {
    let mut world = World::new();
    world.reports("x", success());
    world.create(with_ttl(100));
    world.run(50);
    world.restart();
    world.run(45);
    assert_eq!(world.deletions.len(), 0);
    world.run(10);
    assert_eq!(world.deletions.len(), 1);
}

#[test]
fn a_step_of_the_wall_clock_deletes_no_object_early() {
    let mut world = World::new();
    world.reports("x", success());
    world.create(with_ttl(100));
    world.run(10);
    world.wall_step = 1_000_000;
    world.run(85);
    assert_eq!(world.deletions.len(), 0);
    world.run(10);
    assert_eq!(world.deletions.len(), 1);
}

#[test]
fn a_changed_ttl_takes_effect_after_its_generation_is_acknowledged() {
    let mut world = World::new();
    world.reports("x", success());
    world.create(object("x"));
    world.run(100);
    assert_eq!(world.deletions.len(), 0, "without a ttl it is kept");
    world.change("x", |x| x.spec.ttl_seconds_after_finished = Some(200));
    world.run(50);
    world.change("x", |x| x.spec.ttl_seconds_after_finished = None);
    world.run(200);
    assert_eq!(world.deletions.len(), 0);
    world.change("x", |x| x.spec.ttl_seconds_after_finished = Some(10));
    world.run(1);
    let acknowledged = world.writes.last().expect("written");
    assert_eq!(acknowledged.status.observed_generation, Some(4));
    assert!(world.deletions[0] >= acknowledged.at);
}

#[test]
fn a_deletion_has_the_uid_and_the_resource_version_as_precondition() {
    let mut world = World::new();
    world.reports("x", success());
    world.held.deletions = true;
    world.create(with_ttl(10));
    world.run(15);
    let deletion = world.open_deletions.remove(0);
    let stored = &world.stored("x").metadata;
    assert_eq!(stored.uid.as_deref(), Some(&*deletion.uid));
    assert_eq!(
        stored.resource_version.as_deref(),
        deletion.version.as_deref()
    );

    // The ttl is removed while the deletion is in flight.
    world.change("x", |x| x.spec.ttl_seconds_after_finished = None);
    world.remove_with(&deletion, Fate::Lands);
    world.run(1000);
    assert!(world.open_deletions.is_empty() && is_tracked(&world, "x"));
    assert_eq!(world.status("x").observed_generation, Some(2));
}

#[test]
fn a_deletion_that_failed_or_was_lost_is_sent_again() {
    for (fate, again) in [
        (Fate::Conflict, 6),
        (Fate::Lost, 6),
        (Fate::Failed, 11),
        (Fate::Throttled, 2),
        (Fate::Rejected, 61),
    ] {
        let mut world = World::new();
        world.reports("x", success());
        world.create(with_ttl(10));
        let mut first = true;
        world.fate_of_deletions = Box::new(move || {
            if std::mem::take(&mut first) {
                fate
            } else {
                Fate::Lands
            }
        });
        world.run(200);
        assert!(world.objects.is_empty(), "{fate:?}");
        let gap = world.deletions[1] - world.deletions[0];
        assert!(
            gap <= secs(again) && gap >= millis(900),
            "{fate:?}: {gap:?}"
        );
        assert_eq!(world.deletions.len(), 2, "{fate:?}");
    }
    let mut world = World::new();
    world.reports("x", success());
    world.create(with_ttl(10));
    world.fate_of_deletions = Box::new(|| Fate::LandsWithoutReply);
    world.run(200);
    assert_eq!((world.deletions.len(), is_tracked(&world, "x")), (1, false));
}

#[test]
fn constant_changes_by_others_do_not_cause_constant_deletions() {
    for (fate, most) in [(Fate::Conflict, 12), (Fate::Lost, 12), (Fate::Failed, 4)] {
        let mut world = World::new();
        world.reports("x", success());
        world.create(with_ttl(10));
        world.fate_of_deletions = Box::new(move || fate);
        for _ in 0..600 {
            world.run_until(world.now + millis(100));
            world.touch("x");
        }
        let sent = world.deletions.len();
        assert!((2..=most).contains(&sent), "{fate:?}: {sent}");
    }
}

#[test]
fn a_rejected_deletion_delays_no_status() {
    let mut world = World::new();
    world.reports("x", success());
    world.create(with_ttl(10));
    world.fate_of_deletions = Box::new(|| Fate::Rejected);
    world.run(60);
    world.change("x", |x| x.spec.suspend = true);
    world.run(1);
    assert_eq!(world.status("x").observed_generation, Some(2));
    assert!((1..=2).contains(&world.deletions.len()));
}

#[test]
fn writes_add_no_timers_for_distant_limits() {
    let mut world = World::new();
    world.reports("x", success());
    let mut kept = with_ttl(30_000_000);
    kept.spec.deadline_seconds = Some(30_000_000);
    world.create(kept);
    for n in 0..200 {
        world.run(60);
        world.request_poll("x", &n.to_string());
    }
    assert!(
        world.tracker.state.timers.len() < 10,
        "{}",
        world.tracker.state.timers.len()
    );
    // The timers of a deleted object are gone soon.
    world.delete("x");
    world.run(4000);
    assert_eq!(world.tracker.state.timers.len(), 0);
}

#[test]
fn an_object_that_finalizers_keep_is_deleted_once() {
    let mut world = World::new();
    world.reports("x", success());
    let mut kept = with_ttl(10);
    kept.metadata.finalizers = Some(vec!["example.com/keep".into()]);
    world.create(kept);
    world.run(5000);
    assert_eq!((world.deletions.len(), is_tracked(&world, "x")), (1, true));
    // An object that others have deleted is not deleted again.
    let mut world = World::new();
    world.reports("x", success());
    world.create(with_ttl(10));
    world.run(5);
    world.change("x", |x| {
        x.metadata.deletion_timestamp = Some(Time(beginning()));
    });
    world.run(5000);
    assert_eq!(world.deletions.len(), 0);
}

#[test]
fn only_the_leader_deletes_objects() {
    let mut world = World::new();
    world.reports("x", success());
    world.create(with_ttl(10));
    world.run(5);
    world.feed(Input::Leading(false));
    world.run(100);
    assert_eq!(world.deletions.len(), 0);
    world.feed(Input::Leading(true));
    world.run(1);
    assert_eq!(world.deletions.len(), 1);
}

#[test]
fn a_process_that_is_about_to_end_writes_statuses_and_does_nothing_else() {
    let mut world = World::new();
    world.held.polls = true;
    world.create(with_ttl(0));
    world.create_all(["late", "new"]);
    world.run(3);
    let polls = std::mem::take(&mut world.open_polls);
    assert_eq!(polls.len(), 3);
    // The object whose ttl is 0 would be deleted as soon as its end is shown.
    world.feed(Input::Stopping);
    assert!(!world.tracker.has_unwritten());
    for poll in &polls {
        world.answer(poll, success());
    }
    assert!(world.tracker.has_unwritten());
    world.create(super::samples::object_of("later", "other", "project"));
    let reads = world.reads.len();
    world.run(600);
    // Three ends, and that there is no answer about the fourth.
    assert_eq!(world.writes.len(), 4);
    assert!(!world.tracker.has_unwritten());
    assert_eq!((world.deletions.len(), world.polls.len()), (0, 3));
    assert_eq!(world.reads.len(), reads);
    // A deletion that waits, or that is in flight, holds nothing up.
    let mut world = World::new();
    world.held.deletions = true;
    world.reports("x", success());
    world.create(with_ttl(0));
    world.run(3);
    assert_eq!(world.open_deletions.len(), 1);
    world.feed(Input::Stopping);
    assert!(!world.tracker.has_unwritten());
}

#[test]
fn an_object_whose_labels_change_all_the_time_is_deleted() {
    let mut world = World::new();
    world.reports("x", success());
    world.write_time = millis(12);
    world.create(with_ttl(10));
    world.run(5);
    let mut changes = 0;
    while !world.objects.is_empty() && changes < 6000 {
        world.touch("x");
        changes += 1;
        world.run_until(world.now + millis(10));
    }
    assert!(world.objects.is_empty(), "{} tries", world.deletions.len());
    assert!(world.deletions.len() <= 5 && world.fetches.len() == 1);
    assert!(world.now < secs(45), "{:?}", world.now);
}

#[test]
fn an_object_is_not_deleted_whatever_its_version_when_a_read_shows_another_spec() {
    for removed in [false, true] {
        let mut world = World::new();
        world.reports("x", success());
        world.create(with_ttl(10));
        world.fate_of_deletions = Box::new(|| Fate::Conflict);
        world.run(25);
        world.held.fetches = true;
        world.held.watch = true;
        world.run(10);
        assert_eq!((world.deletions.len(), world.open_fetches.len()), (3, 1));
        world.fate_of_deletions = Box::new(|| Fate::Lands);
        if removed {
            // The watch does not show it before the read does.
            world.change("x", |x| x.spec.ttl_seconds_after_finished = None);
        }
        let (ticket, name) = world.open_fetches.remove(0);
        world.finish_fetch(ticket, &name);
        world.run(60);
        assert_eq!(world.objects.is_empty(), !removed);
        assert_eq!(world.deletions.len(), if removed { 3 } else { 4 });
    }
}

#[test]
fn a_failed_read_before_a_deletion_delays_it() {
    let mut world = World::new();
    world.reports("x", success());
    world.create(with_ttl(10));
    world.fate_of_deletions = Box::new(|| Fate::Conflict);
    world.held.fetches = true;
    world.run(35);
    for _ in 0..10 {
        let (ticket, _) = world.open_fetches.remove(0);
        world.feed(Input::Fetched(ticket, crate::FetchResult::Failed));
        world.run(6);
        for _ in 0..10 {
            world.touch("x");
            world.run_until(world.now + millis(5));
        }
    }
    assert_eq!(world.deletions.len(), 3);
    assert!(world.fetches.len() <= 11, "{}", world.fetches.len());
}
