//! Random attacks of one namespace.

use super::{NEIGHBOURS, create, create_neighbours, hang_writes, world, worst_of_neighbours};
use crate::tests::{
    samples::{key, object_of, running, secret_missing, secs, throttled, time_out},
    world::World,
};
use image_export_model::Observation;
use proptest::prelude::*;

/// What a hostile namespace does.
#[derive(Clone, Copy, Debug)]
enum Attack {
    /// Objects of the neighbours' project.
    Objects(usize),
    /// Objects of projects that nobody has.
    Projects(usize),
    /// Objects that name Secrets which do not exist.
    Secrets(usize),
    /// Its polls take so many seconds and fail.
    Slow(u64),
    /// Its status writes hang.
    Hang,
    /// It is throttled.
    Throttled,
    /// Each second it requests a poll of each of the first objects.
    Requests(usize),
}

fn attack() -> impl Strategy<Value = Attack> {
    prop_oneof![
        (1..600usize).prop_map(Attack::Objects),
        (1..400usize).prop_map(Attack::Projects),
        (1..400usize).prop_map(Attack::Secrets),
        (1..25u64).prop_map(Attack::Slow),
        Just(Attack::Hang),
        Just(Attack::Throttled),
        (1..30usize).prop_map(Attack::Requests),
    ]
}

fn begin(world: &mut World, attack: Attack, n: usize) -> usize {
    let stranger = |observation| Observation {
        proves_project: false,
        ..observation
    };
    match attack {
        Attack::Objects(many) => create(world, "noisy", n * 1000..n * 1000 + many, "project"),
        Attack::Projects(many) => {
            for x in n * 1000..n * 1000 + many {
                world.reports(&format!("noisy/x{x}"), stranger(running()));
                create(world, "noisy", x..x + 1, &format!("made-up-{x}"));
            }
        }
        Attack::Secrets(many) => {
            for x in n * 1000..n * 1000 + many {
                world.secrets.insert(format!("s{x}"), Err(secret_missing()));
                world.create(object_of(
                    &format!("noisy/x{x}"),
                    &format!("s{x}"),
                    "project",
                ));
            }
        }
        Attack::Slow(time) => {
            world.slow.insert("noisy".into(), secs(time));
            world.cloud_by_default = Box::new(|job, _| {
                if job.starts_with("job-noisy") {
                    time_out()
                } else {
                    running()
                }
            });
        }
        Attack::Hang => hang_writes(world),
        Attack::Throttled => {
            world.cloud_by_default = Box::new(move |job, _| {
                if job.starts_with("job-noisy") {
                    stranger(throttled(Some(secs(60))))
                } else {
                    running()
                }
            });
        }
        Attack::Requests(many) => return many,
    }
    0
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn neighbours_wait_a_bounded_time_whatever_a_namespace_does(
        attacks in proptest::collection::vec(attack(), 1..5)
    ) {
        let mut world = world();
        create_neighbours(&mut world, 5, "project");
        world.run(60);
        let from = world.now;
        let mut requests = 0;
        for (n, attack) in attacks.iter().enumerate() {
            requests = requests.max(begin(&mut world, *attack, n));
        }
        for second in 0..120 {
            for x in 0..requests {
                let name = format!("noisy/x{x}");
                if world.objects.contains_key(&key(&name)) {
                    world.request_poll(&name, &second.to_string());
                }
            }
            if second == 60 {
                create_neighbours_late(&mut world);
            }
            world.run(1);
        }
        prop_assert!(worst_of_neighbours(&world, from) <= secs(3));
        for namespace in NEIGHBOURS {
            prop_assert_eq!(world.reason(&format!("{namespace}/late")), "JobRunning");
        }
    }
}

/// One object more for each neighbour.
fn create_neighbours_late(world: &mut World) {
    for namespace in NEIGHBOURS {
        world.create(object_of(
            &format!("{namespace}/late"),
            namespace,
            "project",
        ));
    }
}
