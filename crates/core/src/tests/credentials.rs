//! Secrets: read once for all their objects, re-read when broken, rotated, deleted, unused.

use super::{
    samples::{
        cloud, millis, object, object_of, refused, running, secret_missing, secret_unreadable_now,
        secs, success,
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
    refused(ConfigurationReason::CredentialsInvalid)
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
fn work_resumes_at_once_when_the_secret_reads_well() {
    let mut world = World::new();
    world.secrets.insert("otc".into(), Err(secret_missing()));
    world.create_all(["a", "b"]);
    world.run(300);
    world.secrets.insert("otc".into(), Ok(1));
    world.run(61);
    let mended = world.reads.last().expect("read").0;
    for name in ["a", "b"] {
        assert_eq!(world.reason(name), "JobRunning");
        assert!(world.polls_of(name)[0] - mended <= millis(300));
    }
}

#[test]
fn what_is_wrong_with_a_secret_is_told_as_it_changes() {
    let mut world = World::new();
    let invalid = super::samples::refusal(ConfigurationReason::CredentialsInvalid);
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
        "disproved as soon as it was read"
    );
    world.run(30);
    assert_eq!(world.reason("x"), "JobRunning");
}

#[test]
fn at_most_20_secrets_are_read_a_second() {
    let mut world = World::new();
    world.check_decisions = false;
    // After a quiet time, too: nothing is saved up.
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
fn a_rotation_is_picked_up_within_5_minutes_without_a_poll_more() {
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
fn a_rotation_is_picked_up_at_once_when_the_old_secret_is_rejected() {
    let mut world = World::new();
    world.create(object("x"));
    world.run(60);
    world.secrets.insert("otc".into(), Ok(2));
    world.says("x", rejected());
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
    world.says("x", rejected());
    world.says("y", rejected());
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
            "the cloud is asked slowly all the while: {polls}"
        );
    }
    world.says("x", running());
    world.says("y", running());
    world.secrets.insert("otc".into(), Ok(2));
    world.run(62);
    assert_eq!(
        (world.reason("x"), world.reason("y")),
        ("JobRunning", "JobRunning")
    );
}

#[test]
fn a_deleted_secret_stops_polls_and_says_so() {
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
            "last status kept"
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
fn trouble_in_reading_a_good_secret_is_not_told_and_stops_nothing() {
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
fn a_secret_that_never_could_be_read_becomes_poll_failed() {
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
fn nothing_is_read_for_finished_objects() {
    let mut world = World::new();
    world.says("a", success());
    world.create_all(["a", "b"]);
    world.change("b", |b| b.spec.suspend = true);
    world.run(600);
    let reads = world.reads.len();
    world.run(100_000);
    assert_eq!((world.reads.len(), reads), (1, 1));
    world.change("b", |b| b.spec.suspend = false);
    world.run(2);
    assert_eq!(
        world.reads.len(),
        2,
        "read afresh for the next one who asks"
    );
    assert_eq!(world.reason("b"), "JobRunning");
}

#[test]
fn a_spec_that_names_other_credentials_is_asked_at_once_with_them() {
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
        "nobody names the broken one any more"
    );
}

#[test]
fn credentials_broken_while_objects_wait_in_the_queue() {
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
fn the_read_of_a_secret_that_nobody_names_any_more_is_nobodys() {
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
