//! `status.progressPercent`: for display only, so it causes few writes and no events.

use super::{
    samples::{answer_with, fail, object, secs, success},
    world::World,
};
use image_export_model::{JobState, Observation};

fn at(percent: u8) -> Observation {
    answer_with(JobState::Running, |answer| answer.percent = Some(percent))
}

fn shown(world: &World) -> Option<i32> {
    world.status("x").progress_percent
}

#[test]
fn progress_rises_in_steps_of_10_at_most_once_a_minute() {
    let mut world = World::new();
    world.reports("x", at(4));
    world.create(object("x"));
    world.run(5);
    assert_eq!(
        (shown(&world), world.writes.len()),
        (Some(0), 1),
        "with the write of the phase"
    );
    world.reports("x", at(9));
    world.run(100);
    assert_eq!(world.writes.len(), 1);
    for (percent, step) in [(10, 10), (39, 30), (20, 30), (38, 30), (99, 90), (100, 100)] {
        world.reports("x", at(percent));
        world.run(100);
        assert_eq!(shown(&world), Some(step), "{percent}");
    }
    assert_eq!(world.writes.len(), 5);
    assert_eq!(world.reasons_shown(), ["JobRunning"]);
}

#[test]
fn a_job_with_frequent_progress_is_written_once_a_minute() {
    let mut world = World::new();
    for n in 0..100u8 {
        world.reports_from(secs(u64::from(n)), "x", at(n));
    }
    let mut fast = object("x");
    fast.spec.poll_period_seconds = Some(5);
    world.create(fast);
    world.run(125);
    assert!(world.writes.len() <= 3, "{}", world.writes.len());
}

#[test]
fn a_success_shows_100_percent_and_a_failure_keeps_the_last_progress() {
    for (end, complete) in [(success(), 100), (fail(), 40)] {
        let mut world = World::new();
        world.reports("x", at(40));
        world.create(object("x"));
        world.run(5);
        world.reports("x", end);
        world.run(31);
        assert_eq!((shown(&world), world.writes.len()), (Some(complete), 2));
    }
    let mut world = World::new();
    world.reports("x", success());
    world.create(object("x"));
    world.run(5);
    assert_eq!(shown(&world), None, "the cloud never reported progress");
    // The cloud may report SUCCESS together with 20 %.
    let mut world = World::new();
    world.reports(
        "x",
        answer_with(JobState::Success, |answer| {
            answer.percent = Some(20);
            answer.image_id = Some("image-1".into());
        }),
    );
    world.create(object("x"));
    world.run(5);
    assert_eq!(
        (shown(&world), world.reason("x")),
        (Some(100), "JobSucceeded")
    );
}

#[test]
fn progress_survives_a_restart() {
    let mut world = World::new();
    world.reports("x", at(40));
    world.create(object("x"));
    world.run(5);
    world.reports("x", at(20));
    world.restart();
    world.run(100);
    assert_eq!((shown(&world), world.writes.len()), (Some(40), 1));
}
