//! Deadlines (row 3d): what they count from, when they show, and what ends them.

use super::{
    oracle::condition,
    samples::{
        beginning, cloud, fail, init, millis, not_found, object, running, says, secret_missing,
        secs, success, success_without_image, unavailable,
    },
    world::World,
};
use crate::Input;
use image_export_api::{ImageExportJob, conditions::types};
use image_export_model::{JobState, Observation};
use jiff::SignedDuration;

fn with_deadline(seconds: i32) -> ImageExportJob {
    let mut object = object("x");
    object.spec.deadline_seconds = Some(seconds);
    object
}

fn began(second: i64) -> Observation {
    let at = beginning() + SignedDuration::from_secs(second);
    says(JobState::Running, |answer| answer.begin_time = Some(at))
}

/// The second within `most` in which the object shows this reason.
pub fn second_of(world: &mut World, reason: &str, most: u64) -> u64 {
    while world.reason("x") != reason {
        world.run_until(world.now + millis(500));
        assert!(
            world.now < secs(most),
            "{reason} never came: {:?}",
            world.status("x")
        );
    }
    world.now.as_secs()
}

fn message(world: &World) -> &str {
    &condition(world.status("x"), types::READY)
        .expect("present")
        .message
}

#[test]
fn a_deadline_counts_from_the_creation_or_from_an_earlier_start_never_from_a_later_one() {
    for (begin, reached) in [(None, 100), (Some(-40), 60), (Some(60), 100)] {
        let mut world = World::new();
        let says = begin.map_or_else(
            || says(JobState::Running, |answer| answer.begin_time = None),
            began,
        );
        world.says("x", says);
        world.create(with_deadline(100));
        let second = second_of(&mut world, "DeadlineExceeded", 200);
        assert_eq!(second, reached, "began at {begin:?}");
    }
}

#[test]
fn a_deadline_is_reached_without_a_poll_and_whatever_the_cause() {
    let mut world = World::new();
    world.secrets.insert("otc".into(), Err(secret_missing()));
    world.create(with_deadline(100));
    assert_eq!(second_of(&mut world, "DeadlineExceeded", 200), 100);
    assert_eq!(world.polls.len(), 0);
    assert_eq!(
        message(&world),
        "Job job-x was not seen to end within spec.deadlineSeconds: mend this; an end that still \
         comes will be shown."
    );

    let mut world = World::new();
    world.says("x", not_found());
    world.create(with_deadline(100));
    second_of(&mut world, "DeadlineExceeded", 200);
    assert!(message(&world).contains("the cloud finds no such job"));
}

#[test]
fn a_deadline_is_left_by_an_end_and_by_nothing_else_that_the_cloud_says() {
    for (end, reason) in [
        (success(), "JobSucceeded"),
        (fail(), "JobFailed"),
        (success_without_image(), "ImageIDPending"),
    ] {
        let mut world = World::new();
        world.create(with_deadline(50));
        second_of(&mut world, "DeadlineExceeded", 60);
        for passing in [running(), init(), unavailable(), not_found()] {
            world.says("x", passing);
            world.run(700);
            assert_eq!(world.reason("x"), "DeadlineExceeded");
        }
        world.says("x", end);
        world.run(302);
        let then = ["JobRunning", "DeadlineExceeded", reason];
        assert_eq!(world.reasons_of_events()[..3], then);
    }
}

#[test]
fn a_suspended_object_is_no_late_one_but_its_time_runs_on() {
    let mut world = World::new();
    world.create(with_deadline(100));
    world.run(10);
    world.change("x", |x| x.spec.suspend = true);
    world.run(200);
    assert_eq!(world.reason("x"), "Suspended");
    world.change("x", |x| x.spec.suspend = false);
    world.run(1);
    assert_eq!(world.reason("x"), "DeadlineExceeded");
    world.change("x", |x| x.spec.suspend = true);
    world.run(1);
    assert_eq!(world.reason("x"), "Suspended");
}

#[test]
fn a_job_that_ended_unseen_is_not_called_late() {
    // While the object was suspended.
    let mut world = World::new();
    world.create(with_deadline(100));
    world.run(10);
    world.change("x", |x| x.spec.suspend = true);
    world.run(200);
    world.says("x", success());
    world.change("x", |x| x.spec.suspend = false);
    world.run(5);
    assert_eq!(
        world.reasons_of_events(),
        ["JobRunning", "Suspended", "JobRunning", "JobSucceeded"]
    );

    // While no operator ran, shortly before the deadline.
    let mut world = World::new();
    let mut rare = with_deadline(100);
    rare.spec.poll_period_seconds = Some(86_400);
    world.create(rare);
    world.run(90);
    world.says("x", success());
    world.restart();
    world.run(20);
    assert_eq!(world.reasons_of_events(), ["JobRunning", "JobSucceeded"]);
    assert!(world.writes[1].at > secs(100), "asked when it seemed late");

    // While the process slept.
    let mut world = World::new();
    world.create(with_deadline(100));
    world.run(50);
    world.says("x", success());
    world.now += secs(3600);
    world.run(5);
    assert_eq!(world.reasons_of_events(), ["JobRunning", "JobSucceeded"]);
}

#[test]
fn one_failure_does_not_call_a_job_late_that_may_have_ended_unseen() {
    let mut world = World::new();
    world.create(with_deadline(100));
    world.run(50);
    world.says("x", unavailable());
    world.held.watch = true;
    world.now += secs(100);
    world.restart();
    world.held.watch = false;
    let polls = world.polls.len();
    while world.polls.len() == polls {
        world.run(1);
    }
    world.run(1);
    assert_eq!(world.reason("x"), "JobRunning", "one poll has failed");
    world.says("x", success());
    world.run(60);
    assert_eq!(world.reasons_of_events(), ["JobRunning", "JobSucceeded"]);
}

#[test]
fn what_was_shown_as_exceeded_stays_so_under_another_clock() {
    let mut world = World::new();
    world.create(with_deadline(100));
    second_of(&mut world, "DeadlineExceeded", 200);
    let written = world.writes.len();
    world.wall_step = -1_000_000;
    world.restart();
    world.run(1000);
    let seen = (world.reason("x"), world.writes.len());
    assert_eq!(seen, ("DeadlineExceeded", written));
}

#[test]
fn a_passed_deadline_that_is_set_before_the_first_outcome_is_asked_about() {
    let mut world = World::new();
    let mut rare = object("x");
    rare.spec.poll_period_seconds = Some(86_400);
    world.create(rare);
    world.run(50);
    world.says("x", success());
    world.restart();
    world.change("x", |x| x.spec.deadline_seconds = Some(10));
    world.run(5);
    assert_eq!(world.reasons_of_events(), ["JobRunning", "JobSucceeded"]);
}

#[test]
fn a_new_leader_asks_before_it_calls_a_job_late() {
    let mut world = World::new();
    world.create(with_deadline(100));
    world.run(50);
    world.feed(Input::Leading(false));
    world.run(200);
    assert_eq!(world.reason("x"), "JobRunning");
    world.says("x", success());
    world.feed(Input::Leading(true));
    world.run(60);
    assert_eq!(world.reasons_of_events(), ["JobRunning", "JobSucceeded"]);
}

#[test]
fn nobody_waits_for_an_outcome_for_ever() {
    let mut world = World::new();
    world.create(with_deadline(100));
    world.run(50);
    world.restart();
    world.held.polls = true;
    world.run_until(secs(399));
    assert_eq!(world.reason("x"), "JobRunning");
    world.run_until(secs(401));
    assert_eq!(world.reason("x"), "DeadlineExceeded");
}

#[test]
fn a_spec_change_before_the_first_outcome_shows_no_deadline() {
    let mut world = World::new();
    world.create(with_deadline(100));
    world.run(50);
    world.held.watch = true;
    world.now += secs(100);
    world.restart();
    world.held.watch = false;
    world.held.polls = true;
    world.change("x", |x| x.spec.poll_period_seconds = Some(60));
    world.run(100);
    assert_eq!(
        (world.reason("x"), world.status("x").observed_generation),
        ("JobRunning", Some(2))
    );
}

#[test]
fn what_a_status_says_about_the_cause_is_no_evidence_of_its_own() {
    for credentials in [false, true] {
        let mut world = World::new();
        world.secrets.insert("otc".into(), Err(secret_missing()));
        world.create(with_deadline(50));
        second_of(&mut world, "DeadlineExceeded", 60);
        world.held.reads = true;
        world.restart();
        world.run(5);
        assert!(message(&world).contains("mend this"), "kept as it is");
        world.change("x", |x| {
            if credentials {
                x.spec.cloud_credentials_ref = cloud("other");
            } else {
                x.spec.deadline_seconds = Some(1000);
            }
        });
        world.run(5);
        if credentials {
            assert!(
                !message(&world).contains("mend this"),
                "{}",
                message(&world)
            );
        } else {
            assert_eq!(
                world.reason("x"),
                "Pending",
                "no PollFailed without a failed poll"
            );
        }
    }
}

#[test]
fn the_cause_is_the_same_before_and_after_a_restart() {
    let mut world = World::new();
    world.says("x", not_found());
    world.create(with_deadline(1000));
    world.run(500);
    assert_eq!(world.reason("x"), "JobNotFound");
    world.restart();
    second_of(&mut world, "DeadlineExceeded", 1400);
    world.run(1000);
    assert_eq!(world.writes.len(), 3, "{}", message(&world));
}

#[test]
fn the_pace_comes_back_with_more_time() {
    let mut world = World::new();
    let mut quick = with_deadline(100);
    quick.spec.poll_period_seconds = Some(5);
    world.create(quick);
    second_of(&mut world, "DeadlineExceeded", 200);
    world.run(20);
    world.change("x", |x| x.spec.deadline_seconds = Some(10_000));
    let polls = world.polls.len();
    world.run(30);
    assert!(
        world.polls.len() >= polls + 5,
        "{}",
        world.polls.len() - polls
    );
}

#[test]
fn another_deadline_counts_at_once() {
    let mut world = World::new();
    world.create(with_deadline(100));
    second_of(&mut world, "DeadlineExceeded", 200);
    world.change("x", |x| x.spec.deadline_seconds = Some(200));
    world.run(1);
    assert_eq!(world.reason("x"), "JobRunning");
    assert_eq!(second_of(&mut world, "DeadlineExceeded", 300), 200);
    world.change("x", |x| x.spec.deadline_seconds = None);
    world.run(1);
    assert_eq!(world.reason("x"), "JobRunning");
    world.change("x", |x| x.spec.deadline_seconds = Some(1));
    world.run(1);
    assert_eq!(world.reason("x"), "DeadlineExceeded");
    // Anything else in the spec ends it only where it does not hold.
    world.change("x", |x| x.spec.poll_period_seconds = Some(60));
    world.run(1);
    assert_eq!(world.reason("x"), "DeadlineExceeded");
}

#[test]
fn a_deadline_outlives_a_restart() {
    let mut world = World::new();
    world.create(with_deadline(100));
    world.run(50);
    world.restart();
    assert_eq!(second_of(&mut world, "DeadlineExceeded", 200), 100);
    let written = world.writes.len();
    world.restart();
    world.run(1000);
    assert_eq!(world.writes.len(), written, "and is not written again");
}

#[test]
fn a_deadline_that_passed_while_nobody_looked_waits_for_an_outcome() {
    let down = |world: &mut World| {
        world.run(50);
        world.held.watch = true;
        world.now += secs(100);
    };
    // The job has ended meanwhile: nobody is told that it is late.
    let mut world = World::new();
    world.create(with_deadline(100));
    down(&mut world);
    world.says("x", success());
    world.restart();
    world.held.watch = false;
    world.run(301);
    assert_eq!(world.reasons_of_events(), ["JobRunning", "JobSucceeded"]);

    // It goes on: that is shown with the first answer, however long its own period is.
    let mut world = World::new();
    let mut rare = with_deadline(100);
    rare.spec.poll_period_seconds = Some(86_400);
    world.create(rare);
    down(&mut world);
    world.restart();
    let polls = world.polls.len();
    world.held.watch = false;
    world.run(301);
    assert_eq!(world.reason("x"), "DeadlineExceeded");
    assert!(world.polls.len() > polls);
    assert!(world.writes.last().expect("written").at >= world.polls[polls].at);
}

#[test]
fn a_spec_that_was_changed_while_nobody_looked_counts_at_once() {
    let mut world = World::new();
    world.create(with_deadline(50));
    second_of(&mut world, "DeadlineExceeded", 60);
    world.held.watch = true;
    world.change("x", |x| x.spec.deadline_seconds = Some(100_000));
    world.restart();
    world.held.watch = false;
    world.run(2);
    assert_eq!(world.reason("x"), "JobRunning");
}

#[test]
fn no_step_of_the_wall_clock_moves_a_deadline() {
    for step in [-1_000_000, 1_000_000] {
        let mut world = World::new();
        world.create(with_deadline(100));
        world.run(10);
        world.wall_step = step;
        assert_eq!(second_of(&mut world, "DeadlineExceeded", 200), 100);
    }
}

#[test]
fn an_unsuspected_deadline_costs_no_timer_for_each_poll() {
    let mut world = World::new();
    world.create(with_deadline(1_000_000));
    world.run(50_000);
    assert!(
        world.tracker.state.timers.len() < 10,
        "{}",
        world.tracker.state.timers.len()
    );
}

#[test]
fn spec_edits_leave_no_timers_behind() {
    let mut world = World::new();
    world.create(object("x"));
    for _ in 0..50 {
        for seconds in [30_000_000, 5000] {
            world.change("x", |x| x.spec.deadline_seconds = Some(seconds));
            world.run(10);
        }
    }
    world.run(8000);
    assert!(
        world.tracker.state.timers.len() < 10,
        "{}",
        world.tracker.state.timers.len()
    );
}
