//! The quota of polls: private and shared buckets, rates.

mod pauses;

use super::{
    samples::{millis, misconfigured, not_found, object_of, running, secs, throttled, time_out},
    world::World,
};
use crate::{Config, keys::BucketKey};
use image_export_model::{ConfigurationReason, Observation};
use std::{collections::HashSet, time::Duration};

/// The buckets that the latest polls of these objects were charged to.
fn buckets(world: &World, names: &[&str]) -> HashSet<BucketKey> {
    let latest = |name: &&str| {
        let of = world.polls.iter().rev().find(|poll| *poll.name == **name);
        of.expect("polled").bucket
    };
    names.iter().map(latest).collect()
}

/// Checks that no interval has more polls than a bucket of this rate and burst allows.
fn check_rate(times: &[Duration], rate: f64, burst: f64) {
    for (first, from) in times.iter().enumerate() {
        for (last, to) in times.iter().enumerate().skip(first) {
            let sent = f64::from(u32::try_from(last - first + 1).expect("few"));
            let allowed = burst + (*to - *from).as_secs_f64() * rate + 1.001;
            assert!(sent <= allowed, "{sent} polls from {from:?} to {to:?}");
        }
    }
}

/// From now on, the cloud reports this about the jobs of all these objects.
fn all_report(world: &mut World, names: &[String], observation: &Observation) {
    for name in names {
        world.reports(name, observation.clone());
    }
}

#[test]
fn a_bucket_is_private_until_the_credential_is_accepted() {
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
    assert_eq!(
        buckets(&world, &["a", "b"]).len(),
        1,
        "both use the bucket of their host and project"
    );
}

#[test]
fn namespaces_that_have_gone_are_not_remembered_for_long() {
    let mut world = World::new();
    world.create(object_of("stays", "one", "project"));
    for n in 0..20 {
        let name = format!("team-{n}/x");
        world.create(object_of(&name, "one", "project"));
        world.run(60);
        world.delete(&name);
        world.run(240);
    }
    let proven = world.tracker.state.quotas.proven();
    assert!((1..=3).contains(&proven), "{proven}");
}

#[test]
fn another_project_or_host_has_another_bucket() {
    let mut world = World::new();
    world.create(object_of("a", "one", "project"));
    world.create(object_of("b", "one", "other"));
    world.create(object_of("c", "two", "project"));
    let elsewhere = Observation {
        queried: Some("ims.elsewhere.example.com".into()),
        ..running()
    };
    world.reports("c", elsewhere);
    world.run(100);
    assert_eq!(buckets(&world, &["a", "b", "c"]).len(), 3);
}

/// A login is a request as well, even where it is all that comes of a poll.
#[test]
fn polls_that_end_at_a_login_use_up_their_quota() {
    let mut world = World::new();
    world.check_decisions = false;
    let rejected = Observation {
        requests: 0,
        signed_in: true,
        endpoint: None,
        queried: None,
        proves_project: false,
        ..time_out()
    };
    world.cloud_by_default = Box::new(move |_, _| rejected.clone());
    for n in 0..500 {
        world.create(object_of(&format!("x{n}"), "one", &format!("p{n}")));
    }
    world.run(10);
    let times: Vec<Duration> = world.polls.iter().map(|poll| poll.at).collect();
    assert!(times.len() > 100);
    check_rate(&times, 20.0, 40.0);
}

#[test]
fn only_a_200_moves_a_credential_to_the_shared_bucket() {
    for answer in [
        not_found(),
        throttled(None),
        misconfigured(ConfigurationReason::CredentialsInvalid),
        misconfigured(ConfigurationReason::AccessDenied),
        super::samples::unavailable(),
    ] {
        let mut world = World::new();
        world.create(object_of("a", "one", "project"));
        world.create(object_of("b", "two", "project"));
        world.reports("b", answer);
        world.run(700);
        assert_eq!(buckets(&world, &["a", "b"]).len(), 2);
    }
}

#[test]
fn all_objects_of_a_credential_share_its_private_bucket() {
    let mut world = World::new();
    let names: Vec<String> = (0..100).map(|n| format!("x{n}")).collect();
    all_report(&mut world, &names, &not_found());
    for name in &names {
        world.create(object_of(name, "one", "project"));
    }
    world.check_decisions = false;
    world.run(20);
    let times: Vec<Duration> = world.polls.iter().map(|poll| poll.at).collect();
    check_rate(&times, 10.0, 20.0);
}

#[test]
fn a_bucket_starts_empty_so_that_a_crash_loop_gains_no_polls() {
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
            "10 polls for each second that the process ran"
        );
        world.restart();
    }
    assert!(world.polls.len() > 200);
}

#[test]
fn a_poll_costs_as_many_tokens_as_it_makes_requests() {
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
        all_report(&mut world, &names, &answer);
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
fn a_scarce_quota_serves_all_objects_alike() {
    let mut world = World::new();
    world.check_decisions = false;
    let names: Vec<String> = (0..600).map(|n| format!("x{n}")).collect();
    for name in &names {
        world.create(object_of(name, "one", "project"));
    }
    // The objects need 20 polls a second; the quota allows 10.
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
fn polls_in_flight_are_capped_per_bucket_and_shared_by_namespaces_and_hosts() {
    let mut world = World::with(Config {
        quota_rate: 1e6,
        quota_burst: 1e6,
        host_rate: 1e6,
        host_burst: 1e6,
        unproven_rate: 1e6,
        unproven_burst: 1e6,
        ..Config::default()
    });
    world.check_decisions = false;
    for n in 0..1000 {
        let project = format!("project-{}", n % 5);
        world.create(object_of(&format!("x{n}"), "one", &project));
        world.create(object_of(&format!("other/x{n}"), "two", "abroad"));
    }
    world
        .hosts
        .insert("two".into(), "abroad.example.com".into());
    world.run(5);
    world.held.polls = true;
    let open = |world: &World| count_open(&world.open_polls);
    world.run(1);
    for n in 0..90 {
        world.request_poll(&format!("x{n}"), "1");
    }
    world.run(1);
    assert!(
        open(&world)[0] >= 90,
        "18 in each bucket: no cap is reached"
    );
    world.run(40);
    let [one, two] = open(&world);
    assert_eq!(two, 64, "the cap of a bucket");
    assert!((96..=128).contains(&one), "as many as are free: {one}");
    let mut world = World::with(world.config.clone());
    world.check_decisions = false;
    for n in 0..1000 {
        let project = format!("project-{}", n % 5);
        world.create(object_of(&format!("x{n}"), "one", &project));
        world.create(object_of(&format!("other/x{n}"), "two", &project));
    }
    world.run(5);
    world.held.polls = true;
    world.run(40);
    let [one, two] = open(&world);
    assert_eq!(one + two, 128, "half of the slots for one host");
    assert!(one.abs_diff(two) <= 16, "{one} and {two}");
}

#[test]
fn a_poll_that_waits_for_its_quota_goes_along_to_other_credentials() {
    let mut world = World::new();
    world.reports("x", throttled(Some(secs(20))));
    world.create(object_of("x", "a", "project"));
    world.create(object_of("y", "b", "project"));
    world.run(2);
    world.reports("x", running());
    world.change("x", |x| {
        x.spec.cloud_credentials_ref = super::samples::cloud("b");
    });
    world.run(2);
    assert_eq!(world.reason("x"), "JobRunning");
}

/// How many of these polls are of the usual namespace, and how many of others.
fn count_open(polls: &[crate::PollRequest]) -> [usize; 2] {
    let others = polls
        .iter()
        .filter(|poll| poll.key.name.contains('/'))
        .count();
    [polls.len() - others, others]
}
