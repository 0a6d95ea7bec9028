//! Deadlines (row 3d), times to live, and progress.

use super::{
    oracle::condition,
    ring::known,
    samples::{
        beginning, cloud, fail, init, millis, not_found, object, running, says, secret_missing,
        secs, success, success_without_image, unavailable,
    },
    world::{Fate, World},
};
use crate::{
    api::{ImageExportJob, conditions::types},
    observation::{JobState, Observation},
    tracker::Input,
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

fn with_deadline(seconds: i32) -> ImageExportJob {
    let mut object = object("x");
    object.spec.deadline_seconds = Some(seconds);
    object
}

fn with_ttl(seconds: i32) -> ImageExportJob {
    let mut object = object("x");
    object.spec.ttl_seconds_after_finished = Some(seconds);
    object
}

fn began(second: i64) -> Observation {
    let at = beginning() + SignedDuration::from_secs(second);
    says(JobState::Running, |answer| answer.begin_time = Some(at))
}

/// The second within `most` in which the object shows this reason.
fn second_of(world: &mut World, reason: &str, most: u64) -> u64 {
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

// Deadlines.

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
    assert!(message(&world).contains("the cloud does not know it"));
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
        world.tracker.timers.len() < 10,
        "{}",
        world.tracker.timers.len()
    );
}

// Times to live.

#[test]
fn an_ended_object_is_deleted_after_its_ttl_and_not_before() {
    for (ttl, end) in [(0, success()), (60, success()), (60, fail())] {
        let mut world = World::new();
        world.says("x", end);
        world.create(with_ttl(ttl));
        world.run_until(secs(3));
        let shown = world.writes[0].at;
        let due = shown + secs(ttl.unsigned_abs().into());
        world.run_until(due + secs(2));
        assert_eq!(world.deletions.len(), 1, "ttl {ttl}");
        assert!(world.deletions[0] + secs(1) >= due && world.deletions[0] <= due + secs(1));
        assert!(world.objects.is_empty() && !known(&world, "x"));
    }
}

#[test]
fn an_object_without_an_end_is_never_deleted() {
    for says in [running(), not_found(), unavailable()] {
        let mut world = World::new();
        world.says("x", says);
        let mut object = with_ttl(0);
        object.spec.deadline_seconds = Some(100);
        world.create(object);
        world.run(5000);
        assert_eq!(world.deletions.len(), 0, "{}", world.reason("x"));
    }
    // Nor is one whose status claims an end that nobody saw.
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
fn a_success_without_its_image_has_ended_too() {
    let mut world = World::new();
    world.says("x", success_without_image());
    world.create(with_ttl(100));
    assert!((50..60).contains(&second_of(&mut world, "ImageIDMissing", 100)));
    world.run(90);
    assert_eq!(world.deletions.len(), 0);
    world.run(20);
    assert!(world.objects.is_empty());
}

#[test]
fn the_ttl_of_a_job_that_ended_long_ago_counts_from_when_that_was_shown() {
    let ended = |at: Timestamp| says(JobState::Fail, move |answer| answer.end_time = Some(at));
    let day = SignedDuration::from_hours(24);
    // A cloud whose clock is 4 minutes ahead delays nothing.
    for end in [
        beginning() - 2 * day,
        beginning() + SignedDuration::from_mins(4),
    ] {
        let mut world = World::new();
        world.says("x", ended(end));
        world.create(with_ttl(100));
        world.run(98);
        assert_eq!(world.deletions.len(), 0, "{end}");
        world.run(10);
        assert_eq!(world.deletions.len(), 1, "{end}");
    }
}

#[test]
fn a_ttl_runs_on_over_a_restart() {
    let mut world = World::new();
    world.says("x", success());
    world.create(with_ttl(100));
    world.run(50);
    world.restart();
    world.run(45);
    assert_eq!(world.deletions.len(), 0);
    world.run(10);
    assert_eq!(world.deletions.len(), 1);
}

#[test]
fn no_step_of_the_wall_clock_deletes_early() {
    let mut world = World::new();
    world.says("x", success());
    world.create(with_ttl(100));
    world.run(10);
    world.wall_step = 1_000_000;
    world.run(85);
    assert_eq!(world.deletions.len(), 0);
    world.run(10);
    assert_eq!(world.deletions.len(), 1);
}

#[test]
fn a_ttl_that_is_changed_counts_after_its_generation_is_acknowledged() {
    let mut world = World::new();
    world.says("x", success());
    world.create(object("x"));
    world.run(100);
    assert_eq!(world.deletions.len(), 0, "unset: kept");
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
fn a_deletion_is_of_this_object_in_this_version() {
    let mut world = World::new();
    world.says("x", success());
    world.held.deletions = true;
    world.create(with_ttl(10));
    world.run(15);
    let deletion = world.open_deletions.remove(0);
    let stored = &world.stored("x").metadata;
    assert_eq!(stored.uid.as_deref(), Some(&*deletion.uid));
    assert_eq!(stored.resource_version.as_deref(), Some(&*deletion.version));

    // Somebody keeps it in the last moment.
    world.change("x", |x| x.spec.ttl_seconds_after_finished = None);
    world.remove_with(&deletion, Fate::Lands);
    world.run(1000);
    assert!(world.open_deletions.is_empty() && known(&world, "x"));
    assert_eq!(world.status("x").observed_generation, Some(2));
}

#[test]
fn a_deletion_that_was_held_back_or_lost_is_sent_again() {
    for (fate, again) in [
        (Fate::Conflict, 6),
        (Fate::Lost, 6),
        (Fate::Failed, 11),
        (Fate::Throttled, 2),
        (Fate::Refused, 61),
    ] {
        let mut world = World::new();
        world.says("x", success());
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
    world.says("x", success());
    world.create(with_ttl(10));
    world.fate_of_deletions = Box::new(|| Fate::LandsWithoutReply);
    world.run(200);
    assert_eq!((world.deletions.len(), known(&world, "x")), (1, false));
}

#[test]
fn an_object_that_others_change_all_the_time_is_not_deleted_all_the_time() {
    for (fate, most) in [(Fate::Conflict, 12), (Fate::Lost, 12), (Fate::Failed, 4)] {
        let mut world = World::new();
        world.says("x", success());
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
fn a_deletion_that_is_refused_holds_up_no_status() {
    let mut world = World::new();
    world.says("x", success());
    world.create(with_ttl(10));
    world.fate_of_deletions = Box::new(|| Fate::Refused);
    world.run(60);
    world.change("x", |x| x.spec.suspend = true);
    world.run(1);
    assert_eq!(world.status("x").observed_generation, Some(2));
    assert!((1..=2).contains(&world.deletions.len()));
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
        world.tracker.timers.len() < 10,
        "{}",
        world.tracker.timers.len()
    );
}

#[test]
fn limits_cost_no_timer_for_each_write() {
    let mut world = World::new();
    world.says("x", success());
    let mut kept = with_ttl(30_000_000);
    kept.spec.deadline_seconds = Some(30_000_000);
    world.create(kept);
    for n in 0..200 {
        world.run(60);
        world.request_poll("x", &n.to_string());
    }
    assert!(
        world.tracker.timers.len() < 10,
        "{}",
        world.tracker.timers.len()
    );
    // An object that is gone keeps none for long.
    world.delete("x");
    world.run(4000);
    assert_eq!(world.tracker.timers.len(), 0);
}

#[test]
fn an_object_that_finalizers_keep_is_deleted_once() {
    let mut world = World::new();
    world.says("x", success());
    let mut kept = with_ttl(10);
    kept.metadata.finalizers = Some(vec!["example.com/keep".into()]);
    world.create(kept);
    world.run(5000);
    assert_eq!((world.deletions.len(), known(&world, "x")), (1, true));
    // Nor is one that somebody else has deleted.
    let mut world = World::new();
    world.says("x", success());
    world.create(with_ttl(10));
    world.run(5);
    world.change("x", |x| {
        x.metadata.deletion_timestamp = Some(Time(beginning()));
    });
    world.run(5000);
    assert_eq!(world.deletions.len(), 0);
}

#[test]
fn only_the_leader_deletes() {
    let mut world = World::new();
    world.says("x", success());
    world.create(with_ttl(10));
    world.run(5);
    world.feed(Input::Leading(false));
    world.run(100);
    assert_eq!(world.deletions.len(), 0);
    world.feed(Input::Leading(true));
    world.run(1);
    assert_eq!(world.deletions.len(), 1);
}

// Progress.

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
