//! Progress: display only, and cheap.

use super::{
    samples::{fail, object, says, secs, success},
    world::World,
};
use image_export_model::{JobState, Observation};

fn at(percent: u8) -> Observation {
    says(JobState::Running, |answer| answer.percent = Some(percent))
}

fn shown(world: &World) -> Option<i32> {
    world.status("x").progress_percent
}

#[test]
fn progress_comes_in_steps_of_10_that_only_go_up_at_most_one_a_minute() {
    let mut world = World::new();
    world.says("x", at(4));
    world.create(object("x"));
    world.run(5);
    assert_eq!(
        (shown(&world), world.writes.len()),
        (Some(0), 1),
        "with the row's own write"
    );
    world.says("x", at(9));
    world.run(100);
    assert_eq!(world.writes.len(), 1);
    for (percent, step) in [(10, 10), (39, 30), (20, 30), (38, 30), (99, 90), (100, 100)] {
        world.says("x", at(percent));
        world.run(100);
        assert_eq!(shown(&world), Some(step), "{percent}");
    }
    assert_eq!(world.writes.len(), 5);
    assert_eq!(world.reasons_of_events(), ["JobRunning"]);
}

#[test]
fn a_chatty_job_is_written_once_a_minute() {
    let mut world = World::new();
    for n in 0..100u8 {
        world.says_from(secs(u64::from(n)), "x", at(n));
    }
    let mut chatty = object("x");
    chatty.spec.poll_period_seconds = Some(5);
    world.create(chatty);
    world.run(125);
    assert!(world.writes.len() <= 3, "{}", world.writes.len());
}

#[test]
fn a_success_is_complete_and_a_failure_stays_where_it_was() {
    for (end, complete) in [(success(), 100), (fail(), 40)] {
        let mut world = World::new();
        world.says("x", at(40));
        world.create(object("x"));
        world.run(5);
        world.says("x", end);
        world.run(31);
        assert_eq!((shown(&world), world.writes.len()), (Some(complete), 2));
    }
    let mut world = World::new();
    world.says("x", success());
    world.create(object("x"));
    world.run(5);
    assert_eq!(shown(&world), None, "where the cloud never told");
    // Seen from the cloud: SUCCESS at 20 %.
    let mut world = World::new();
    world.says(
        "x",
        says(JobState::Success, |answer| {
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
fn progress_outlives_a_restart() {
    let mut world = World::new();
    world.says("x", at(40));
    world.create(object("x"));
    world.run(5);
    world.says("x", at(20));
    world.restart();
    world.run(100);
    assert_eq!((shown(&world), world.writes.len()), (Some(40), 1));
}
