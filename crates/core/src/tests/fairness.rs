//! Fair shares: what the objects of one namespace do delays those of the others by a bounded time, in polls,
//! reads of Secrets, status writes and slots.

mod random;

use super::{
    samples::{deferred, object_of, running, secret_missing, secs, throttled, time_out},
    world::{Fate, World},
};
use crate::Config;
use image_export_model::Observation;
use std::{collections::BTreeMap, time::Duration};

/// Quiet namespaces.
const NEIGHBOURS: [&str; 9] = ["n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9"];

/// A world that is too large to be checked at each step.
fn world() -> World {
    let mut world = World::new();
    world.check_decisions = false;
    world
}

/// Creates objects of a namespace, with a Secret of its own.
fn create(world: &mut World, namespace: &str, objects: std::ops::Range<usize>, project: &str) {
    for n in objects {
        world.create(object_of(&format!("{namespace}/x{n}"), namespace, project));
    }
}

/// Gives each neighbour so many objects of a project of its own.
fn create_neighbours_apart(world: &mut World, objects: usize) {
    for namespace in NEIGHBOURS {
        create(world, namespace, 0..objects, &format!("of-{namespace}"));
    }
}

/// The same in one project.
fn create_neighbours(world: &mut World, objects: usize, project: &str) {
    for namespace in NEIGHBOURS {
        create(world, namespace, 0..objects, project);
    }
}

/// How many of these there are for each namespace.
fn count<'n>(names: impl IntoIterator<Item = &'n str>) -> BTreeMap<&'n str, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        let namespace = name.split_once('/').expect("of another namespace").0;
        *counts.entry(namespace).or_default() += 1;
    }
    counts
}

fn polls_since(world: &World, from: Duration) -> BTreeMap<&str, usize> {
    let polls = world.polls.iter().filter(|poll| poll.at >= from);
    count(polls.map(|poll| &*poll.name))
}

/// Jain's index of fairness: 1 where all have the same.
#[allow(clippy::cast_precision_loss)] // small counts
fn jain(counts: &BTreeMap<&str, usize>) -> f64 {
    let sum: f64 = counts.values().map(|count| *count as f64).sum();
    let squares: f64 = counts.values().map(|count| (*count as f64).powi(2)).sum();
    sum * sum / (counts.len() as f64 * squares)
}

/// The latest poll of the neighbours since then, by how late it was.
fn worst_of_neighbours(world: &World, from: Duration) -> Duration {
    let of_neighbours = |name: &str| {
        NEIGHBOURS
            .iter()
            .any(|n| name.starts_with(&format!("{n}/")))
    };
    let polls = world
        .polls
        .iter()
        .filter(|poll| poll.at >= from && of_neighbours(&poll.name));
    polls.map(|poll| poll.late).max().unwrap_or_default()
}

/// Checks that each neighbour has its first status.
fn check_first_statuses(world: &World) {
    for namespace in NEIGHBOURS {
        let name = format!("{namespace}/x0");
        assert_ne!(world.status(&name).observed_generation, Some(-1), "{name}");
    }
}

/// From now on the status writes of one namespace hang.
fn hang_writes(world: &mut World) {
    world.hanging.insert("noisy");
    world.fate = Box::new(|write| {
        if &*write.key.namespace == "noisy" {
            Fate::Lost
        } else {
            Fate::Lands
        }
    });
}

#[test]
fn ten_namespaces_that_want_more_than_the_quota_get_alike_whatever_one_of_them_queues() {
    let mut world = world();
    create(&mut world, "noisy", 0..1000, "project");
    create_neighbours(&mut world, 100, "project");
    world.run(400);
    let from = world.now;
    world.run(600);
    let polls = polls_since(&world, from);
    assert_eq!(polls.len(), 10);
    assert!(jain(&polls) >= 0.99, "{polls:?}");
    let all: usize = polls.values().sum();
    assert!(all >= 5900, "the quota is used: {polls:?}");
}

#[test]
fn a_share_that_is_not_wanted_is_lent() {
    let mut world = world();
    create(&mut world, "noisy", 0..1000, "project");
    create_neighbours(&mut world, 2, "project");
    world.run(400);
    let from = world.now;
    world.run(300);
    let polls = polls_since(&world, from);
    let all: usize = polls.values().sum();
    assert!(all >= 2950 && polls["noisy"] >= 2700, "{polls:?}");
    assert!(worst_of_neighbours(&world, from) <= secs(2));
}

#[test]
fn a_job_that_comes_after_3000_of_the_same_project_is_followed_like_one_alone() {
    let mut world = world();
    create(&mut world, "load", 0..3000, "project");
    world.run(200);
    let from = world.now;
    create(&mut world, "n1", 0..1, "project");
    world.run(5);
    assert_eq!(world.reason("n1/x0"), "JobRunning");
    world.reports("n1/x0", super::samples::success());
    world.run(32);
    assert_eq!(world.reason("n1/x0"), "JobSucceeded");
    assert!(worst_of_neighbours(&world, from) <= secs(2));
}

#[test]
fn a_poll_is_charged_by_its_requests_to_the_namespace_that_caused_them() {
    let mut world = world();
    let costly = Observation {
        requests: 2,
        ..running()
    };
    for n in 0..300 {
        world.reports(&format!("noisy/x{n}"), costly.clone());
    }
    create(&mut world, "noisy", 0..300, "project");
    create(&mut world, "n1", 0..300, "project");
    world.run(100);
    let from = world.now;
    world.run(300);
    let polls = polls_since(&world, from);
    let (noisy, neighbour) = (polls["noisy"], polls["n1"]);
    assert!(neighbour >= 1450 && noisy <= 760, "{polls:?}");
}

#[test]
fn requests_by_annotation_keep_the_pace_of_an_object_and_the_turn_of_its_namespace() {
    let mut world = world();
    create(&mut world, "n1", 0..10, "project");
    create(&mut world, "noisy", 0..20, "project");
    world.run(60);
    let from = world.now;
    for n in 0..1200 {
        for x in 0..20 {
            world.request_poll(&format!("noisy/x{x}"), &n.to_string());
        }
        world.run_until(world.now + Duration::from_millis(100));
    }
    let polls = polls_since(&world, from);
    assert!(polls["n1"] >= 39, "{polls:?}");
    assert!(worst_of_neighbours(&world, from) <= secs(2));
    let of_one = world.polls_of("noisy/x0");
    let gaps = of_one.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.min().expect("many") >= secs(1));
}

#[test]
fn made_up_projects_do_not_multiply_polls_nor_take_part_in_the_quota_of_others() {
    let mut world = world();
    let stranger = Observation {
        proves_project: false,
        ..running()
    };
    for n in 0..3000 {
        world.reports(&format!("noisy/x{n}"), stranger.clone());
    }
    for n in 0..3000 {
        create(&mut world, "noisy", n..n + 1, &format!("made-up-{n}"));
    }
    // It even names the project of a neighbour, and is throttled there.
    world.reports(
        "noisy/x9999",
        Observation {
            proves_project: false,
            ..throttled(Some(secs(900)))
        },
    );
    create(&mut world, "noisy", 9999..10_000, "of-n1");
    world.run(100);
    let from = world.now;
    create_neighbours_apart(&mut world, 5);
    world.run(300);
    let polls = polls_since(&world, from);
    assert!(polls["noisy"] <= 20 * 300 + 41, "{polls:?}");
    assert!(polls["n1"] >= 49, "{polls:?}");
    assert!(worst_of_neighbours(&world, from) <= secs(2));
}

#[test]
fn all_projects_of_a_host_share_its_quota_and_namespaces_take_turns_there() {
    let mut world = World::with(Config {
        host_rate: 20.0,
        host_burst: 20.0,
        ..Config::default()
    });
    world.check_decisions = false;
    for project in 0..50 {
        let objects = project * 20..(project + 1) * 20;
        create(&mut world, "noisy", objects, &format!("project-{project}"));
    }
    for namespace in NEIGHBOURS {
        create(
            &mut world,
            namespace,
            0..90,
            &format!("project-of-{namespace}"),
        );
    }
    world.run(300);
    let from = world.now;
    world.run(600);
    let polls = polls_since(&world, from);
    let all: usize = polls.values().sum();
    assert!((11_900..=12_030).contains(&all), "{polls:?}");
    assert!(jain(&polls) >= 0.99, "{polls:?}");
}

#[test]
fn polls_that_hang_leave_slots_to_others() {
    let mut world = world();
    world.slow.insert("noisy".into(), secs(20));
    for n in 0..1500 {
        world.reports(&format!("noisy/x{n}"), time_out());
        create(&mut world, "noisy", n..n + 1, &format!("made-up-{n}"));
    }
    world.run(100);
    let from = world.now;
    create_neighbours_apart(&mut world, 5);
    world.run(300);
    // Half of all, and what neighbours poll in one instant.
    let in_flight = world.census().polls_in_flight;
    assert!((128..140).contains(&in_flight), "{in_flight}");
    assert!(worst_of_neighbours(&world, from) <= secs(2));
    assert!(polls_since(&world, from)["n9"] >= 49);
}

#[test]
fn a_host_that_answers_slowly_leaves_slots_to_the_others_whoever_polls_there() {
    let mut world = World::with(Config {
        host_rate: 1000.0,
        ..Config::default()
    });
    world.check_decisions = false;
    for n in 0..40 {
        let name = format!("slow{n}");
        world.hosts.insert(name.clone(), "slow.example.com".into());
        create(&mut world, &name, 0..60, &format!("project-{n}"));
    }
    world.run(60);
    for n in 0..40 {
        world.slow.insert(format!("slow{n}"), secs(20));
    }
    world.run(60);
    let from = world.now;
    create_neighbours_apart(&mut world, 5);
    world.run(120);
    assert!(worst_of_neighbours(&world, from) <= secs(2));
}

#[test]
fn a_secret_is_read_soon_although_another_namespace_names_10000_that_are_missing() {
    let mut world = world();
    for n in 0..10_000 {
        world.secrets.insert(format!("s{n}"), Err(secret_missing()));
        world.create(object_of(
            &format!("noisy/x{n}"),
            &format!("s{n}"),
            "project",
        ));
    }
    world.run(20);
    let from = world.now;
    create_neighbours(&mut world, 1, "project");
    world.run(5);
    let mut reads = world.reads.iter().filter(|(at, _)| *at >= from);
    let last = reads.rfind(|(_, reference)| {
        reference.namespace.starts_with('n') && &*reference.namespace != "noisy"
    });
    let (at, _) = last.expect("all are read");
    assert!(*at - from <= secs(2), "{:?}", *at - from);
    check_first_statuses(&world);
}

#[test]
fn ten_namespaces_read_secrets_alike_whatever_one_of_them_queues() {
    let mut world = world();
    let mut want = |namespace: &str, secrets: usize| {
        for n in 0..secrets {
            let secret = format!("{namespace}-{n}");
            world.secrets.insert(secret.clone(), Err(secret_missing()));
            world.create(object_of(&format!("{namespace}/x{n}"), &secret, "project"));
        }
    };
    want("noisy", 2000);
    for namespace in NEIGHBOURS {
        want(namespace, 200);
    }
    world.run(60);
    let reads = world
        .reads
        .iter()
        .map(|(_, reference)| format!("{}/", reference.namespace));
    let reads: Vec<String> = reads.collect();
    let reads = count(reads.iter().map(String::as_str));
    assert!(jain(&reads) >= 0.99 && reads.len() == 10, "{reads:?}");
    assert!(reads.values().sum::<usize>() >= 1190, "{reads:?}");
}

#[test]
fn ten_namespaces_write_alike_whatever_one_of_them_queues() {
    let mut world = world();
    world.write_time = secs(1);
    create(&mut world, "noisy", 0..2000, "of-noisy");
    for namespace in NEIGHBOURS {
        create(&mut world, namespace, 0..200, &format!("of-{namespace}"));
    }
    world.run(40);
    let written = world.objects.values().filter(|object| {
        let status = object.status.as_ref().expect("the CRD gives one");
        status.observed_generation != Some(-1)
    });
    let written = count(written.map(|object| object.metadata.name.as_deref().expect("named")));
    assert!(jain(&written) >= 0.99 && written.len() == 10, "{written:?}");
}

#[test]
fn reads_of_secrets_that_hang_leave_slots_to_others() {
    let mut world = world();
    world.held.reads = true;
    for n in 0..100 {
        world.create(object_of(
            &format!("noisy/x{n}"),
            &format!("s{n}"),
            "project",
        ));
    }
    world.run(30);
    let held = world.open_reads.len();
    assert!(held < world.config.credential_reads_in_flight, "{held}");
    world.held.reads = false;
    create_neighbours(&mut world, 1, "project");
    world.run(5);
    check_first_statuses(&world);
}

#[test]
fn status_writes_that_hang_delay_those_of_their_namespace_alone() {
    let mut world = world();
    hang_writes(&mut world);
    create(&mut world, "noisy", 0..500, "project");
    world.run(60);
    create_neighbours(&mut world, 10, "elsewhere");
    world.run(16);
    check_first_statuses(&world);
    let statuses = NEIGHBOURS
        .iter()
        .flat_map(|n| (0..10).map(move |x| format!("{n}/x{x}")));
    for name in statuses {
        assert_eq!(world.reason(&name), "JobRunning", "{name}");
    }
}

#[test]
fn trouble_of_several_namespaces_is_that_of_the_api_server_until_something_lands() {
    let mut world = world();
    create_neighbours(&mut world, 1, "project");
    world.run(40);
    world.fate = Box::new(|_| Fate::Throttled);
    let before = world.landed;
    for namespace in NEIGHBOURS {
        world.reports(&format!("{namespace}/x0"), super::samples::success());
    }
    world.run(120);
    assert_eq!(world.landed, before);
    world.fate = Box::new(|_| Fate::Lands);
    world.run(61);
    for namespace in NEIGHBOURS {
        assert_eq!(world.reason(&format!("{namespace}/x0")), "JobSucceeded");
    }
}

#[test]
fn objects_that_wait_for_the_same_job_are_served_by_one_poll() {
    let mut world = world();
    for n in 0..2000 {
        let mut object = object_of(&format!("n1/x{n}"), "n1", "project");
        object.spec.job_id = "the-job".parse().expect("valid");
        world.create(object);
    }
    world.run(10);
    let late: Vec<_> = (0..2000)
        .filter(|n| world.status(&format!("n1/x{n}")).observed_generation == Some(-1))
        .collect();
    assert_eq!(late, [0; 0]);
    assert!(world.polls.len() <= 110, "{}", world.polls.len());
    // Each object is followed as if it were alone.
    let from = world.now;
    world.cloud_by_default = Box::new(|_, _| super::samples::success());
    world.run(40);
    let polls = world.polls.iter().filter(|poll| poll.at >= from).count();
    assert!(polls <= 420, "{polls}");
    for n in [0, 999, 1999] {
        assert_eq!(world.reason(&format!("n1/x{n}")), "JobSucceeded");
    }
}

#[test]
fn a_poll_that_is_deferred_stays_due_and_holds_no_slot() {
    let mut world = World::new();
    world.held.polls = true;
    world.create(object_of("n1/x", "n1", "project"));
    world.run(20);
    let poll = world.take_poll();
    world.answer(&poll, deferred(secs(3)));
    assert_eq!(world.census().polls_in_flight, 0);
    let from = world.now;
    world.run_until(from + secs(3) - Duration::from_millis(1));
    assert!(world.open_polls.is_empty());
    world.run(1);
    let poll = world.take_poll();
    assert!(poll.late >= secs(2), "{:?}", poll.late);
    world.answer(&poll, running());
    world.run(1);
    assert_eq!(world.reason("n1/x"), "JobRunning");
}

#[test]
fn polls_that_are_deferred_are_repeated_within_the_quota() {
    let mut world = world();
    world.cloud_by_default = Box::new(|_, _| deferred(Duration::from_millis(100)));
    create(&mut world, "n1", 0..1000, "project");
    world.run(100);
    assert!(world.polls.len() <= 1020, "{}", world.polls.len());
}
