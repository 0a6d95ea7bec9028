//! Secrets: one read serves all objects of a Secret. A Secret is read again when it is broken or rejected,
//! and to notice that it was rotated or deleted.

use super::{
    samples::{
        cloud, configuration_error, millis, misconfigured, object, object_of, running,
        secret_missing, secret_unreadable_now, secs, success,
    },
    world::World,
};
use crate::{Config, CredentialError};
use image_export_model::ConfigurationReason;
use std::time::Duration;

fn read_times(world: &World) -> Vec<Duration> {
    world.reads.iter().map(|(at, _)| *at).collect()
}

fn rejected() -> image_export_model::Observation {
    misconfigured(ConfigurationReason::CredentialsInvalid)
}

#[test]
fn a_thousand_objects_on_one_secret_cause_one_read() {
    let mut world = World::new();
    world.check_decisions = false;
    for n in 0..1000 {
        world.create(object(&format!("x{n}")));
    }
    world.run(200);
    assert_eq!(world.reads.len(), 1);
}

#[test]
fn a_broken_secret_is_read_again_after_5_s_doubling_to_60_s() {
    let mut world = World::new();
    world.secrets.insert("otc".into(), Err(secret_missing()));
    world.create_all(["a", "b", "c"]);
    world.run(400);
    let times = read_times(&world);
    let gaps: Vec<u64> = times
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_secs())
        .collect();
    assert_eq!(gaps, [5, 10, 20, 40, 60, 60, 60, 60, 60], "{times:?}");
    assert!(world.polls.is_empty());
    assert_eq!(world.writes.len(), 3);
}

#[test]
fn polls_resume_at_once_when_the_secret_is_readable() {
    let mut world = World::new();
    world.secrets.insert("otc".into(), Err(secret_missing()));
    world.create_all(["a", "b"]);
    world.run(300);
    world.secrets.insert("otc".into(), Ok(1));
    world.run(61);
    let fixed_at = world.reads.last().expect("read").0;
    for name in ["a", "b"] {
        assert_eq!(world.reason(name), "JobRunning");
        assert!(world.polls_of(name)[0] - fixed_at <= millis(300));
    }
}

#[test]
fn the_status_follows_each_error_of_the_secret() {
    let mut world = World::new();
    let invalid = super::samples::configuration_error(ConfigurationReason::CredentialsInvalid);
    world.secrets.insert("otc".into(), Err(secret_missing()));
    world.create(object("x"));
    world.run(30);
    assert_eq!(world.reason("x"), "CredentialsNotFound");
    world
        .secrets
        .insert("otc".into(), Err(CredentialError::Misconfigured(invalid)));
    world.run(60);
    assert_eq!(world.reason("x"), "CredentialsInvalid");
    world.poll_time = secs(20);
    world.secrets.insert("otc".into(), Ok(5));
    world.run(65);
    assert_eq!(
        world.reason("x"),
        "Pending",
        "the error ends as soon as the Secret is read"
    );
    world.run(30);
    assert_eq!(world.reason("x"), "JobRunning");
}

#[test]
fn at_most_20_secrets_are_read_a_second() {
    let mut world = World::new();
    world.check_decisions = false;
    // After an idle time as well: the rate has no burst.
    world.run(60);
    for n in 0..300 {
        world.secrets.insert(format!("s{n}"), Err(secret_missing()));
        world.create(object_of(&format!("x{n}"), &format!("s{n}"), "project"));
    }
    world.run(120);
    let times = read_times(&world);
    for from in &times {
        let within = times
            .iter()
            .filter(|at| *at >= from && **at < *from + secs(1))
            .count();
        assert!(within <= 21, "{within} reads from {from:?}");
    }
    assert!(times.len() > 1000);
}

#[test]
fn a_rotated_secret_is_used_within_5_minutes_without_extra_polls() {
    let mut world = World::new();
    world.create(object("x"));
    world.run(100);
    world.secrets.insert("otc".into(), Ok(2));
    let rotated = world.now;
    let polls = world.polls.len();
    world.run(301);
    let read = world.reads.last().expect("read").0;
    assert!(read > rotated);
    assert!(world.polls.len() - polls <= 11);
    let state = &world.tracker.state;
    let (_, job) = state.jobs.iter().next().expect("one");
    assert!(state.secrets.is_current(job.secret, 2));
}

#[test]
fn a_rotated_secret_is_used_at_once_when_the_old_one_is_rejected() {
    let mut world = World::new();
    world.create(object("x"));
    world.run(60);
    world.secrets.insert("otc".into(), Ok(2));
    world.reports("x", rejected());
    world.held.polls = true;
    while world.open_polls.is_empty() {
        world.run(1);
    }
    let poll = world.take_poll();
    world.answer(&poll, rejected());
    world.run(1);
    let poll = world.take_poll();
    world.answer(&poll, running());
    world.run(1);
    assert_eq!(world.reason("x"), "JobRunning");
    assert_eq!(world.reads.len(), 2);
}

#[test]
fn a_rejected_secret_is_read_again_until_it_changes() {
    let mut world = World::new();
    world.reports("x", rejected());
    world.reports("y", rejected());
    world.create_all(["x", "y"]);
    world.run(600);
    assert_eq!(world.reason("x"), "CredentialsInvalid");
    let reads = world.reads.len();
    assert!(
        (10..=16).contains(&reads),
        "at once, then 5 s doubling to 60 s: {reads}"
    );
    for name in ["x", "y"] {
        let polls = world.polls_of(name).len();
        assert!(
            (2..=4).contains(&polls),
            "polls go on at the slow pace: {polls}"
        );
    }
    world.reports("x", running());
    world.reports("y", running());
    world.secrets.insert("otc".into(), Ok(2));
    world.run(62);
    assert_eq!(
        (world.reason("x"), world.reason("y")),
        ("JobRunning", "JobRunning")
    );
}

#[test]
fn a_deleted_secret_stops_polls_and_the_status_shows_it() {
    let mut world = World::new();
    world.create_all(["a", "b"]);
    world.run(100);
    world.secrets.insert("otc".into(), Err(secret_missing()));
    world.run(301);
    for name in ["a", "b"] {
        assert_eq!(world.reason(name), "CredentialsNotFound");
        assert_eq!(
            world.status(name).status.as_deref(),
            Some("RUNNING"),
            "the last job status is kept"
        );
    }
    let polls = world.polls.len();
    world.run(600);
    assert_eq!(world.polls.len(), polls);
    world.secrets.insert("otc".into(), Ok(1));
    world.run(61);
    assert_eq!(world.reason("a"), "JobRunning");
}

#[test]
fn a_failed_read_of_a_valid_secret_stops_no_polls_and_writes_nothing() {
    let mut world = World::new();
    world.create(object("x"));
    world.run(100);
    world
        .secrets
        .insert("otc".into(), Err(secret_unreadable_now()));
    world.run(1000);
    assert_eq!((world.reason("x"), world.writes.len()), ("JobRunning", 1));
    assert!(world.polls.len() >= 36);
}

#[test]
fn a_secret_that_was_never_readable_leads_to_poll_failed() {
    let mut world = World::new();
    world
        .secrets
        .insert("otc".into(), Err(secret_unreadable_now()));
    world.create(object("x"));
    world.run(60);
    assert_eq!(world.reason("x"), "Pending");
    world.run(180);
    assert_eq!(world.reason("x"), "PollFailed");
    assert!(world.polls.is_empty());
    world.secrets.insert("otc".into(), Ok(1));
    world.run(61);
    assert_eq!(world.reason("x"), "JobRunning");
}

#[test]
fn no_secret_is_read_for_finished_or_suspended_objects() {
    let mut world = World::new();
    world.reports("a", success());
    world.create_all(["a", "b"]);
    world.change("b", |b| b.spec.suspend = true);
    world.run(600);
    let reads = world.reads.len();
    world.run(100_000);
    assert_eq!((world.reads.len(), reads), (1, 1));
    world.change("b", |b| b.spec.suspend = false);
    world.run(2);
    assert_eq!(world.reads.len(), 2, "read again for the next poll");
    assert_eq!(world.reason("b"), "JobRunning");
}

#[test]
fn a_spec_with_other_credentials_is_polled_with_them_at_once() {
    let mut world = World::new();
    world.secrets.insert("otc".into(), Err(secret_missing()));
    world.create(object("x"));
    world.run(100);
    world.change("x", |x| x.spec.cloud_credentials_ref = cloud("good"));
    world.run(1);
    assert_eq!(world.reason("x"), "JobRunning");
    let reads = world.reads.len();
    world.run(200);
    assert_eq!(
        world.reads.len(),
        reads,
        "no object names the broken Secret any more"
    );
}

#[test]
fn a_secret_that_breaks_stops_the_queued_polls() {
    let mut world = World::with(Config {
        quota_rate: 0.5,
        quota_burst: 1.0,
        credential_refresh: secs(10),
        ..Config::default()
    });
    for n in 0..30 {
        world.create(object(&format!("x{n}")));
    }
    world.run(9);
    world.secrets.insert("otc".into(), Err(secret_missing()));
    world.run(11);
    let polls = world.polls.len();
    world.run(60);
    assert_eq!(world.polls.len(), polls);
    for n in 0..30 {
        assert_eq!(world.reason(&format!("x{n}")), "CredentialsNotFound");
    }
}

#[test]
fn the_answer_for_a_secret_that_no_object_names_is_dropped() {
    let mut world = World::new();
    world.held.reads = true;
    world.create(object("x"));
    world.run(1);
    world.delete("x");
    world.run(1);
    let reference = world.open_reads.remove(0);
    world.finish_read(&reference);
    world.run(1000);
    assert!(world.reads.len() == 1 && world.polls.is_empty());
}

/// The read of an object that is deleted and created again ends while that of the new one waits for its turn.
#[test]
fn the_answer_for_an_object_that_was_created_again_ends_no_read_of_the_new_one() {
    let mut world = World::with(Config {
        credential_reads: 0.02,
        ..Config::default()
    });
    world.held.reads = true;
    world.create(object("x"));
    world.run(60);
    world.delete("x");
    world.create(object("x"));
    world.run(1);
    let reference = world.open_reads.remove(0);
    world
        .secrets
        .insert("otc".into(), Err(super::samples::secret_unreadable_now()));
    world.finish_read(&reference);
    world.run(20);
    world.delete("x");
    world.create(super::samples::object_of("y", "other", "project"));
    world.run(100);
    let secrets = world
        .reads
        .iter()
        .map(|(_, reference)| reference.cloud.secret_name.as_str());
    assert_eq!(secrets.collect::<Vec<_>>(), ["otc", "other"]);
}

/// So that it takes no memory while nobody polls with it.
#[test]
fn the_reference_of_a_secret_with_which_nobody_polls_is_dropped() {
    let mut world = World::new();
    world.create(object("x"));
    world.reports("x", super::samples::success());
    world.run(10);
    let read = std::sync::Arc::downgrade(&world.reads.remove(0).1);
    world.polls.clear();
    assert!(read.upgrade().is_some());
    world.run(600);
    assert!(read.upgrade().is_none() && world.reads.is_empty());
    let state = &world.tracker.state;
    let (_, job) = state.jobs.find(&super::samples::key("x")).expect("tracked");
    let reference = state.secrets.reference(job.secret);
    assert_eq!(reference.cloud.secret_name.as_str(), "otc");
}

#[test]
fn a_secret_that_cannot_be_read_is_read_again_with_backoff() {
    let mut world = World::new();
    let unreadable = Err(super::samples::secret_unreadable_now());
    world.secrets.insert("otc".into(), unreadable);
    world.create(super::samples::object("x"));
    world.run(200);
    let reads: Vec<u64> = world.reads.iter().map(|(at, _)| at.as_secs()).collect();
    let gaps: Vec<u64> = reads.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps, [5, 10, 20, 40, 60, 60], "{reads:?}");
}

#[test]
fn an_error_with_credentials_that_have_become_invalid_is_dropped() {
    let mut world = World::with(Config {
        credential_refresh: secs(3),
        ..Config::default()
    });
    world.held.polls = true;
    world.create(super::samples::object("x"));
    world.run(2);
    let poll = world.take_poll();
    let missing = Err(super::samples::secret_missing());
    world.secrets.insert("otc".into(), missing);
    world.run(5);
    world.answer(
        &poll,
        misconfigured(ConfigurationReason::CredentialsInvalid),
    );
    world.run(1);
    assert_eq!(world.reason("x"), "CredentialsNotFound");
}

#[test]
fn a_rejection_of_what_was_rotated_meanwhile_is_not_shown_and_the_job_is_polled_again() {
    let mut world = World::with(Config {
        credential_refresh: secs(3),
        ..Config::default()
    });
    world.held.polls = true;
    world.create(super::samples::object("x"));
    world.create(super::samples::object("y"));
    world.run(2);
    let polls = std::mem::take(&mut world.open_polls);
    assert_eq!(polls.len(), 2);
    world.secrets.insert("otc".into(), Ok(2));
    world.run(5);
    world.held.polls = false;
    for poll in &polls {
        world.answer(poll, rejected());
    }
    world.run(2);
    for name in ["x", "y"] {
        assert_eq!(world.reason(name), "JobRunning");
        assert_eq!(world.polls_of(name).len(), 2);
    }
    assert_eq!(world.census().counters.dropped_answers, 2);
    assert_eq!(world.census().credentials["usable"], 1);
}

#[test]
fn a_rotation_causes_a_poll_where_polls_fail_and_nowhere_else() {
    for (report, is_polled) in [
        (running(), false),
        (super::samples::unavailable(), true),
        (misconfigured(ConfigurationReason::RequestRejected), true),
    ] {
        let mut world = World::with(Config {
            credential_refresh: secs(7),
            ..Config::default()
        });
        let mut rare = super::samples::object("x");
        rare.spec.poll_period_seconds = Some(86_400);
        world.create(rare);
        world.run(2);
        world.reports("x", report.clone());
        world.request_poll("x", "1");
        // Long enough for a long backoff.
        world.run(3000);
        let polls = world.polls.len();
        world.secrets.insert("otc".into(), Ok(2));
        world.run(8);
        assert_eq!(world.polls.len() > polls, is_polled, "{report:?}");
    }
}

#[test]
fn a_secret_that_becomes_invalid_shows_on_objects_that_are_not_being_polled() {
    let mut world = World::new();
    let mut idle = object("idle");
    idle.spec.poll_period_seconds = Some(3600);
    world.create(idle);
    world.create(object("busy"));
    world.run(60);
    let polls = world.polls_of("idle").len();
    let invalid = configuration_error(ConfigurationReason::CredentialsInvalid);
    let invalid = CredentialError::Misconfigured(invalid);
    world.secrets.insert("otc".into(), Err(invalid));
    world.reports("busy", rejected());
    world.run(400);
    assert_eq!(world.reason("idle"), "CredentialsInvalid");
    assert_eq!(world.polls_of("idle").len(), polls);
}
