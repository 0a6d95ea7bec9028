//! `spec.deadlineSeconds`: what a deadline counts from, when `DeadlineExceeded` is shown, what ends it.

use super::{
    invariants::condition,
    samples::{
        answer_with, beginning, cloud, fail, init, millis, not_found, object, running,
        secret_missing, secs, success, success_without_image, unavailable,
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
    answer_with(JobState::Running, |answer| answer.begin_time = Some(at))
}

/// Runs until the object shows this reason, which must be within `most` seconds. Returns the second.
pub fn second_of(world: &mut World, reason: &str, most: u64) -> u64 {
    while world.reason("x") != reason {
        world.run_until(world.now + millis(500));
        assert!(
            world.now < secs(most),
            "{reason} is not shown: {:?}",
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
fn a_deadline_counts_from_the_earlier_of_creation_and_start() {
    for (begin, reached) in [(None, 100), (Some(-40), 60), (Some(60), 100)] {
        let mut world = World::new();
        let report = begin.map_or_else(
            || answer_with(JobState::Running, |answer| answer.begin_time = None),
            began,
        );
        world.reports("x", report);
        world.create(with_deadline(100));
        let second = second_of(&mut world, "DeadlineExceeded", 200);
        assert_eq!(second, reached, "began at {begin:?}");
    }
}

#[test]
fn a_deadline_passes_without_a_poll_and_the_message_gives_the_cause() {
    let mut world = World::new();
    world.secrets.insert("otc".into(), Err(secret_missing()));
    world.create(with_deadline(100));
    assert_eq!(second_of(&mut world, "DeadlineExceeded", 200), 100);
    assert_eq!(world.polls.len(), 0);
    assert_eq!(
        message(&world),
        "Job job-x was not seen to end within spec.deadlineSeconds: fix this; an end that still \
         comes will be shown."
    );

    let mut world = World::new();
    world.reports("x", not_found());
    world.create(with_deadline(100));
    second_of(&mut world, "DeadlineExceeded", 200);
    assert!(message(&world).contains("the cloud finds no such job"));
}

#[test]
fn only_the_end_of_the_job_replaces_deadline_exceeded() {
    for (end, reason) in [
        (success(), "JobSucceeded"),
        (fail(), "JobFailed"),
        (success_without_image(), "ImageIDPending"),
    ] {
        let mut world = World::new();
        world.create(with_deadline(50));
        second_of(&mut world, "DeadlineExceeded", 60);
        for passing in [running(), init(), unavailable(), not_found()] {
            world.reports("x", passing);
            world.run(700);
            assert_eq!(world.reason("x"), "DeadlineExceeded");
        }
        world.reports("x", end);
        world.run(302);
        let then = ["JobRunning", "DeadlineExceeded", reason];
        assert_eq!(world.reasons_shown()[..3], then);
    }
}

#[test]
fn suspension_hides_an_exceeded_deadline_but_does_not_stop_its_time() {
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
fn a_job_that_ended_unobserved_does_not_show_deadline_exceeded() {
    // While the object was suspended.
    let mut world = World::new();
    world.create(with_deadline(100));
    world.run(10);
    world.change("x", |x| x.spec.suspend = true);
    world.run(200);
    world.reports("x", success());
    world.change("x", |x| x.spec.suspend = false);
    world.run(5);
    assert_eq!(
        world.reasons_shown(),
        ["JobRunning", "Suspended", "JobRunning", "JobSucceeded"]
    );

    // While no operator ran, shortly before the deadline.
    let mut world = World::new();
    let mut rare = with_deadline(100);
    rare.spec.poll_period_seconds = Some(86_400);
    world.create(rare);
    world.run(90);
    world.reports("x", success());
    world.restart();
    world.run(20);
    assert_eq!(world.reasons_shown(), ["JobRunning", "JobSucceeded"]);
    assert!(
        world.writes[1].at > secs(100),
        "polled when the deadline had passed"
    );

    // While the process slept.
    let mut world = World::new();
    world.create(with_deadline(100));
    world.run(50);
    world.reports("x", success());
    world.now += secs(3600);
    world.run(5);
    assert_eq!(world.reasons_shown(), ["JobRunning", "JobSucceeded"]);
}

#[test]
fn one_failed_poll_does_not_show_deadline_exceeded_for_an_unobserved_job() {
    let mut world = World::new();
    world.create(with_deadline(100));
    world.run(50);
    world.reports("x", unavailable());
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
    world.reports("x", success());
    world.run(60);
    assert_eq!(world.reasons_shown(), ["JobRunning", "JobSucceeded"]);
}

#[test]
fn deadline_exceeded_stays_when_the_wall_clock_goes_back() {
    let mut world = World::new();
    world.create(with_deadline(100));
    second_of(&mut world, "DeadlineExceeded", 200);
    let written = world.writes.len();
    world.wall_step = -1_000_000;
    world.restart();
    world.run(1000);
    let shown = (world.reason("x"), world.writes.len());
    assert_eq!(shown, ("DeadlineExceeded", written));
}

#[test]
fn a_passed_deadline_set_before_the_first_outcome_causes_a_poll() {
    let mut world = World::new();
    let mut rare = object("x");
    rare.spec.poll_period_seconds = Some(86_400);
    world.create(rare);
    world.run(50);
    world.reports("x", success());
    world.restart();
    world.change("x", |x| x.spec.deadline_seconds = Some(10));
    world.run(5);
    assert_eq!(world.reasons_shown(), ["JobRunning", "JobSucceeded"]);
}

#[test]
fn a_new_leader_polls_before_it_shows_deadline_exceeded() {
    let mut world = World::new();
    world.create(with_deadline(100));
    world.run(50);
    world.feed(Input::Leading(false));
    world.run(200);
    assert_eq!(world.reason("x"), "JobRunning");
    world.reports("x", success());
    world.feed(Input::Leading(true));
    world.run(60);
    assert_eq!(world.reasons_shown(), ["JobRunning", "JobSucceeded"]);
}

#[test]
fn the_wait_for_an_outcome_after_the_deadline_is_limited() {
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
fn a_spec_change_before_the_first_outcome_does_not_show_deadline_exceeded() {
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
fn the_cause_in_a_stored_message_is_no_evidence() {
    for credentials in [false, true] {
        let mut world = World::new();
        world.secrets.insert("otc".into(), Err(secret_missing()));
        world.create(with_deadline(50));
        second_of(&mut world, "DeadlineExceeded", 60);
        world.held.reads = true;
        world.restart();
        world.run(5);
        assert!(
            message(&world).contains("fix this"),
            "the stored message is kept"
        );
        world.change("x", |x| {
            if credentials {
                x.spec.cloud_credentials_ref = cloud("other");
            } else {
                x.spec.deadline_seconds = Some(1000);
            }
        });
        world.run(5);
        if credentials {
            assert!(!message(&world).contains("fix this"), "{}", message(&world));
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
fn a_restart_does_not_change_the_cause() {
    let mut world = World::new();
    world.reports("x", not_found());
    world.create(with_deadline(1000));
    world.run(500);
    assert_eq!(world.reason("x"), "JobNotFound");
    world.restart();
    second_of(&mut world, "DeadlineExceeded", 1400);
    world.run(1000);
    assert_eq!(world.writes.len(), 3, "{}", message(&world));
}

#[test]
fn a_later_deadline_restores_the_own_period() {
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
fn a_changed_deadline_takes_effect_at_once() {
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
    // Another change of the spec does not end the phase while the deadline is exceeded.
    world.change("x", |x| x.spec.poll_period_seconds = Some(60));
    world.run(1);
    assert_eq!(world.reason("x"), "DeadlineExceeded");
}

#[test]
fn a_deadline_survives_a_restart() {
    let mut world = World::new();
    world.create(with_deadline(100));
    world.run(50);
    world.restart();
    assert_eq!(second_of(&mut world, "DeadlineExceeded", 200), 100);
    let written = world.writes.len();
    world.restart();
    world.run(1000);
    assert_eq!(world.writes.len(), written, "it is not written again");
}

#[test]
fn a_deadline_that_passed_unobserved_is_shown_after_an_outcome() {
    let down = |world: &mut World| {
        world.run(50);
        world.held.watch = true;
        world.now += secs(100);
    };
    // The job has ended meanwhile: `DeadlineExceeded` is never shown.
    let mut world = World::new();
    world.create(with_deadline(100));
    down(&mut world);
    world.reports("x", success());
    world.restart();
    world.held.watch = false;
    world.run(301);
    assert_eq!(world.reasons_shown(), ["JobRunning", "JobSucceeded"]);

    // The job still runs: `DeadlineExceeded` is shown with the first answer, however long the period is.
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
fn a_deadline_changed_while_no_operator_ran_takes_effect_at_once() {
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
fn a_step_of_the_wall_clock_moves_no_deadline() {
    for step in [-1_000_000, 1_000_000] {
        let mut world = World::new();
        world.create(with_deadline(100));
        world.run(10);
        world.wall_step = step;
        assert_eq!(second_of(&mut world, "DeadlineExceeded", 200), 100);
    }
}

#[test]
fn polls_add_no_timers_for_a_distant_deadline() {
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
