//! What the tracker measures and reports for metrics and logs: how late polls are, how old answers are, and
//! transitions.

use super::{
    samples::{
        answer_with, beginning, key, misconfigured, not_found, object, running, secret_missing,
        secs, success, throttled, time_out,
    },
    world::World,
};
use crate::{Config, Input, phase::Phase};
use image_export_model::{ConfigurationReason, JobState};
use std::time::Duration;

/// An object whose quota is paused for 15 minutes from its second poll on; returns when that began.
fn paused(change: impl FnOnce(&mut image_export_api::ImageExportJob)) -> (World, Duration) {
    let mut world = World::new();
    let mut object = object("x");
    change(&mut object);
    world.create(object);
    world.run(10);
    world.reports("x", throttled(Some(secs(900))));
    let polls = world.polls.len();
    while world.polls.len() == polls {
        world.run(1);
    }
    world.run(1);
    let from = world.polls[polls].at + world.poll_time;
    world.reports("x", running());
    (world, from)
}

#[test]
fn a_poll_in_time_is_not_late_and_one_after_a_pause_is_late_by_the_pause() {
    let (mut world, from) = paused(|_| {});
    for poll in &world.polls {
        assert!(poll.late < secs(1), "{poll:?}");
    }
    let polls = world.polls.len();
    world.run(1200);
    let late = &world.polls[polls];
    assert!(late.at >= from + secs(900));
    assert_eq!(late.late, late.at - from);
    for poll in &world.polls[polls + 1..] {
        assert!(poll.late < secs(1), "{poll:?}");
    }
}

#[test]
fn a_poll_that_is_requested_meanwhile_stays_late_since_its_planned_time() {
    let (mut world, from) = paused(|_| {});
    let polls = world.polls.len();
    world.run_until(from + secs(400));
    world.request_poll("x", "1");
    world.run(10);
    assert_eq!(world.census().polls_overdue, 1);
    world.run(900);
    let late = &world.polls[polls];
    let since_from = late.at - from;
    assert!(
        late.late <= since_from && late.late + secs(31) >= since_from,
        "{late:?}"
    );

    // One that is planned for later is due with its request.
    let mut world = World::new();
    let mut slow = object("x");
    slow.spec.poll_period_seconds = Some(36_000);
    world.create(slow);
    world.run(100);
    let polls = world.polls.len();
    world.request_poll("x", "1");
    world.run(10);
    assert!(world.polls[polls].late < secs(1));
}

#[test]
fn a_poll_is_overdue_after_its_period_and_five_minutes() {
    for (period, patience) in [(None, 300), (Some(299), 300), (Some(600), 600)] {
        let (mut world, from) = paused(|x| x.spec.poll_period_seconds = period);
        let overdue = |world: &World| world.census().polls_overdue;
        world.run_until(from + secs(patience - 1));
        assert_eq!((overdue(&world), world.census().polls_waiting), (0, 1));
        world.run(2);
        assert_eq!(overdue(&world), 1);
        let mut suspended = object("y");
        suspended.spec.suspend = true;
        world.create(suspended);
        world.run(10);
        assert_eq!(overdue(&world), 1);
        world.run(1000);
        assert_eq!((overdue(&world), world.census().polls_waiting), (0, 0));
    }
    let (mut world, from) = paused(|_| {});
    world.run_until(from + secs(400));
    world.change("x", |x| x.spec.suspend = true);
    world.run(10);
    assert_eq!(
        (world.census().polls_overdue, world.census().polls_waiting),
        (0, 0)
    );
}

#[test]
fn what_waits_for_its_user_is_not_overdue() {
    let mut world = World::new();
    world.secrets.insert("otc".into(), Err(secret_missing()));
    world.create(object("x"));
    world.run(4000);
    assert_eq!(world.reason("x"), "CredentialsNotFound");
    let census = world.census();
    assert_eq!((census.polls_overdue, census.polls_waiting), (0, 0));
    assert_eq!(
        census.oldest_answer,
        Duration::ZERO,
        "nor is it owed an answer"
    );
    world.secrets.insert("otc".into(), Ok(2));
    world.run(100);
    assert!(world.polls[0].late < secs(1), "{:?}", world.polls[0]);
}

#[test]
fn a_secret_that_is_not_read_yet_has_polls_wait() {
    let mut world = World::new();
    world.held.reads = true;
    world.create(object("x"));
    world.run(400);
    let census = world.census();
    // That is no matter of the quota or the cloud.
    assert_eq!((census.polls_waiting, census.polls_overdue), (1, 0));
    let reference = world.open_reads.remove(0);
    world.finish_read(&reference);
    let late = world.polls[0].late;
    assert!(late >= secs(397) && late <= secs(400), "{late:?}");
}

#[test]
fn each_poll_becomes_due_once() {
    let (mut world, _) = paused(|_| {});
    world.create_all(["a", "b"]);
    world.run(2000);
    let due = world.census().counters.polls_due;
    assert_eq!(due, u64::try_from(world.polls.len()).expect("a few"));
}

#[test]
fn the_oldest_answer_is_that_of_the_unfinished_object_which_has_none_for_longest() {
    let mut world = World::new();
    assert_eq!(world.census().oldest_answer, Duration::ZERO);
    let age = |world: &World| world.census().oldest_answer.as_secs();
    world.create_all(["good", "bad"]);
    world.reports("bad", time_out());
    world.run(500);
    assert_eq!(age(&world), 499, "since it was first seen");
    world.reports("bad", throttled(None));
    world.run(500);
    assert_eq!(age(&world), 999, "that is no report of the job's status");
    for report in [
        misconfigured(ConfigurationReason::AccessDenied),
        not_found(),
    ] {
        world.reports("bad", report);
        world.request_poll("bad", "now");
        world.run(500);
        assert!(
            age(&world) <= 30,
            "no report is expected before somebody acts"
        );
    }
    world.reports("bad", running());
    world.request_poll("bad", "again");
    world.run(10);
    world.reports("bad", time_out());
    world.run(500);
    assert!(age(&world) >= 500);
    world.change("bad", |bad| bad.spec.suspend = true);
    world.run(10);
    assert!(age(&world) <= 30);
    world.change("bad", |bad| bad.spec.suspend = false);
    world.run(1);
    assert!(age(&world) <= 30, "since it was resumed");
    world.reports("bad", time_out());
    world.run(200);
    assert!((200..=202).contains(&age(&world)), "{}", age(&world));
    world.reports("bad", success());
    world.request_poll("bad", "1");
    world.run(10);
    assert_eq!(world.reason("bad"), "JobSucceeded");
    world.run(1000);
    assert!(age(&world) <= 30, "finished");
}

#[test]
fn a_standby_has_nothing_to_measure_and_begins_when_it_leads() {
    let mut world = World::unstarted(Config::default());
    world.list();
    world.create_all(["a", "b"]);
    world.run(7200);
    let census = world.census();
    assert_eq!((census.polls_waiting, census.polls_overdue), (0, 0));
    assert_eq!(census.oldest_answer, Duration::ZERO);
    world.feed(Input::Leading(true));
    let census = world.census();
    assert_eq!(census.polls_overdue, 0);
    assert_eq!(census.oldest_answer, Duration::ZERO);
    world.run(100);
    assert!(world.polls.len() >= 4);
    for poll in &world.polls {
        assert!(poll.late < secs(1), "{poll:?}");
    }
}

/// What an object showed before and after each transition.
fn transitions(world: &World) -> Vec<(Option<Phase>, Phase)> {
    let transitions = world.transitions.iter();
    transitions
        .map(|transition| (transition.before, transition.after))
        .collect()
}

#[test]
fn ends_and_troubles_are_transitions_and_plain_progress_is_none() {
    let mut world = World::new();
    world.create(object("x"));
    world.run(40);
    assert_eq!(world.reason("x"), "JobRunning");
    assert_eq!(transitions(&world), []);
    world.reports("x", misconfigured(ConfigurationReason::AccessDenied));
    world.run(40);
    world.reports("x", running());
    world.request_poll("x", "1");
    world.run(40);
    world.reports(
        "x",
        answer_with(JobState::Success, |answer| {
            answer.image_id = Some("image-1".into());
            answer.end_time = Some(beginning() + secs(100));
        }),
    );
    world.run(40);
    assert_eq!(
        transitions(&world),
        [
            (Some(Phase::JobRunning), Phase::AccessDenied),
            (Some(Phase::AccessDenied), Phase::JobRunning),
            (Some(Phase::JobRunning), Phase::JobSucceeded),
        ]
    );
    let last = &world.transitions[2];
    assert_eq!((&last.key, last.took), (&key("x"), Some(secs(100))));
    assert_eq!(last.message, world.events[2].note);
    assert_eq!(world.transitions[0].took, None);

    // A restart repeats none.
    world.restart();
    world.run(4000);
    assert_eq!(world.transitions.len(), 3);
}

#[test]
fn that_a_job_is_not_found_for_good_is_a_transition_without_an_event() {
    let mut world = World::new();
    world.cloud_by_default = Box::new(|_, _| not_found());
    world.create(object("x"));
    world.run(1000);
    assert_eq!(
        transitions(&world),
        [
            (None, Phase::JobNotFoundYet),
            (Some(Phase::JobNotFoundYet), Phase::JobNotFound),
        ]
    );
    assert_eq!(world.reasons_of_events(), ["JobNotFound"]);
}
