//! Who may ask: private and shared buckets, pauses, rates.

use super::{
    samples::{millis, not_found, object_of, refused, running, secs, throttled, unavailable_for},
    world::World,
};
use crate::{Config, keys::BucketKey};
use image_export_model::{ConfigurationReason, Observation};
use std::{collections::HashSet, time::Duration};

fn buckets(world: &World, names: &[&str]) -> HashSet<BucketKey> {
    let latest = |name: &&str| {
        let of = world.polls.iter().rev().find(|poll| *poll.name == **name);
        of.expect("polled").bucket
    };
    names.iter().map(latest).collect()
}

/// Checks that no stretch of time holds more polls than a bucket of this rate and burst gives.
fn within(times: &[Duration], rate: f64, burst: f64) {
    for (first, from) in times.iter().enumerate() {
        for (last, to) in times.iter().enumerate().skip(first) {
            let sent = f64::from(u32::try_from(last - first + 1).expect("few"));
            let allowed = burst + (*to - *from).as_secs_f64() * rate + 1.001;
            assert!(sent <= allowed, "{sent} polls from {from:?} to {to:?}");
        }
    }
}

fn all_say(world: &mut World, names: &[String], observation: &Observation) {
    for name in names {
        world.says(name, observation.clone());
    }
}

#[test]
fn a_bucket_is_private_until_the_credential_was_accepted() {
    let mut world = World::new();
    world.create(object_of("a", "one", "project"));
    world.create(object_of("b", "two", "project"));
    world.run(1);
    assert_eq!(
        buckets(&world, &["a", "b"]).len(),
        2,
        "before the first answer"
    );
    world.run(60);
    assert_eq!(buckets(&world, &["a", "b"]).len(), 1, "one (host, project)");
}

#[test]
fn another_project_or_host_is_another_bucket() {
    let mut world = World::new();
    world.create(object_of("a", "one", "project"));
    world.create(object_of("b", "one", "other"));
    world.create(object_of("c", "two", "project"));
    let elsewhere = Observation {
        endpoint: Some("ims.elsewhere.example.com".into()),
        ..running()
    };
    world.says("c", elsewhere);
    world.run(100);
    assert_eq!(buckets(&world, &["a", "b", "c"]).len(), 3);
}

#[test]
fn only_a_200_earns_the_shared_bucket() {
    for answer in [
        not_found(),
        throttled(None),
        refused(ConfigurationReason::CredentialsInvalid),
        refused(ConfigurationReason::AccessDenied),
        super::samples::unavailable(),
    ] {
        let mut world = World::new();
        world.create(object_of("a", "one", "project"));
        world.create(object_of("b", "two", "project"));
        world.says("b", answer);
        world.run(700);
        assert_eq!(buckets(&world, &["a", "b"]).len(), 2);
    }
}

#[test]
fn a_pause_of_a_private_bucket_hurts_nobody_else() {
    let mut world = World::new();
    world.create(object_of("a", "one", "project"));
    world.run(5);
    // A stranger names the same project and is told to stay away.
    world.says("b", throttled(Some(secs(900))));
    world.create(object_of("b", "stranger", "project"));
    world.run(300);
    assert!(world.polls_of("a").len() >= 10);
    assert_eq!(world.polls_of("b").len(), 1);
}

#[test]
fn a_private_bucket_is_shared_by_all_objects_of_the_credential() {
    let mut world = World::new();
    let names: Vec<String> = (0..100).map(|n| format!("x{n}")).collect();
    all_say(&mut world, &names, &not_found());
    for name in &names {
        world.create(object_of(name, "one", "project"));
    }
    world.check_decisions = false;
    world.run(20);
    let times: Vec<Duration> = world.polls.iter().map(|poll| poll.at).collect();
    within(&times, 10.0, 0.0);
}

#[test]
fn a_pause_is_obeyed_by_all_and_followed_by_no_burst() {
    for pause in [throttled(Some(secs(60))), unavailable_for(secs(60))] {
        let mut world = World::new();
        world.check_decisions = false;
        let names: Vec<String> = (0..250).map(|n| format!("x{n}")).collect();
        for name in &names {
            world.create(object_of(name, "one", "project"));
        }
        world.run(100);
        all_say(&mut world, &names, &pause);
        let polls = world.polls.len();
        while world.polls.len() == polls {
            world.run_until(world.now + millis(1));
        }
        world.run_until(world.now + millis(50));
        let paused = world.now;
        all_say(&mut world, &names, &running());
        world.run(90);
        let after: Vec<Duration> = world
            .polls
            .iter()
            .map(|poll| poll.at)
            .filter(|at| *at > paused)
            .collect();
        let first = *after.first().expect("it goes on");
        assert!(
            first >= paused + secs(60) - millis(1) && first <= paused + secs(67),
            "{first:?}"
        );
        within(&after, 10.0, 0.0);
    }
}

#[test]
fn a_bucket_starts_empty_so_that_a_crash_loop_gains_nothing() {
    let mut world = World::new();
    world.check_decisions = false;
    for n in 0..500 {
        world.create(object_of(&format!("x{n}"), "one", "project"));
    }
    for _ in 0..20 {
        let before = world.polls.len();
        world.run_until(world.now + millis(1500));
        assert!(
            world.polls.len() - before <= 15,
            "10 a second of its short life"
        );
        world.restart();
    }
    assert!(world.polls.len() > 200);
}

#[test]
fn extra_requests_of_a_poll_cost_tokens_and_none_cost_none() {
    for (requests, expected) in [(2, 500), (1, 1000), (0, 5000)] {
        let mut world = World::with(Config {
            poll_period: secs(5),
            quota_in_flight: 1000,
            ..Config::default()
        });
        world.check_decisions = false;
        let names: Vec<String> = (0..1000).map(|n| format!("x{n}")).collect();
        let answer = Observation {
            requests,
            ..running()
        };
        all_say(&mut world, &names, &answer);
        for name in &names {
            world.create(object_of(name, "one", "project"));
        }
        world.run(100);
        let polls = world.polls.len();
        let fits = if requests == 0 {
            polls > expected
        } else {
            polls.abs_diff(expected) < 30
        };
        assert!(fits, "{requests} requests a poll: {polls} polls in 100 s");
    }
}

#[test]
fn where_the_quota_binds_all_are_served_alike() {
    let mut world = World::new();
    world.check_decisions = false;
    let names: Vec<String> = (0..600).map(|n| format!("x{n}")).collect();
    for name in &names {
        world.create(object_of(name, "one", "project"));
    }
    // 20 polls a second are wanted, 10 are to be had.
    world.run(1200);
    let times: Vec<Duration> = world.polls.iter().map(|poll| poll.at).collect();
    assert!((11_900..=12_000).contains(&times.len()), "{}", times.len());
    let counts: Vec<usize> = names
        .iter()
        .map(|name| world.polls_of(name).len())
        .collect();
    let (least, most) = (counts.iter().min(), counts.iter().max());
    assert!(
        most.expect("some") - least.expect("some") <= 2,
        "{least:?} to {most:?}"
    );
}

#[test]
fn in_flight_polls_are_capped_per_bucket_and_in_all() {
    let mut world = World::with(Config {
        quota_rate: 1e6,
        quota_burst: 1e6,
        ..Config::default()
    });
    world.held.polls = true;
    world.check_decisions = false;
    for n in 0..1000 {
        let project = format!("project-{}", n % 5);
        world.create(object_of(&format!("x{n}"), "one", &project));
        if n == 99 {
            world.run(5);
            assert_eq!(world.open_polls.len(), 100, "20 a bucket, none capped");
        }
    }
    world.run(5);
    assert_eq!(world.open_polls.len(), 256, "in all");
    let mut world = World::with(world.config.clone());
    world.held.polls = true;
    world.check_decisions = false;
    for n in 0..1000 {
        world.create(object_of(&format!("x{n}"), "one", "project"));
    }
    world.run(5);
    assert_eq!(world.open_polls.len(), 64, "in one bucket");
}

#[test]
fn a_rotated_secret_earns_the_shared_bucket_anew_and_takes_its_pause_along() {
    let mut world = World::new();
    world.create(object_of("a", "one", "project"));
    world.create(object_of("b", "two", "project"));
    world.run(100);
    world.says("a", throttled(Some(secs(600))));
    world.run(35);
    let paused = world.polls_of("a").len();
    world.secrets.insert("one".into(), Ok(2));
    world.run(400);
    assert_eq!(
        world.polls_of("a").len(),
        paused,
        "a new secret does not lift the pause"
    );
    world.says("a", running());
    world.run(400);
    assert_eq!(buckets(&world, &["a", "b"]).len(), 1);
}

#[test]
fn a_throttled_poll_with_earlier_credentials_pauses_no_others() {
    let mut world = World::new();
    world.held.polls = true;
    world.create(object_of("x", "a", "project"));
    world.run(1);
    let poll = world.take_poll();
    // The third Secret comes when nothing uses the first any more: where entries were reused, it would
    // take the place of the first.
    for secret in ["b", "c"] {
        world.change("x", |x| {
            x.spec.cloud_credentials_ref = super::samples::cloud(secret);
        });
        world.run(1);
    }
    world.create(object_of("y", "c", "project"));
    world.run(1);
    world.open_polls.clear();
    world.answer(&poll, throttled(Some(secs(600))));
    world.run(3);
    assert!(!world.open_polls.is_empty(), "x is polled with c");
}

#[test]
fn a_poll_that_waits_for_its_quota_goes_along_to_other_credentials() {
    let mut world = World::new();
    world.says("x", throttled(Some(secs(20))));
    world.create(object_of("x", "a", "project"));
    world.create(object_of("y", "b", "project"));
    world.run(2);
    world.says("x", running());
    world.change("x", |x| {
        x.spec.cloud_credentials_ref = super::samples::cloud("b");
    });
    world.run(2);
    assert_eq!(world.reason("x"), "JobRunning");
}
