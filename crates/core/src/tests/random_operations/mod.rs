//! Random operations of users, the cloud, the API server and the processes. The invariants and oracles hold
//! at every step; some time after the last fault each status shows the true state of its job; and of objects
//! that are gone nothing is left.

mod operations;
mod scenario;

use crate::PollMode;
use operations::{Op, op};
use proptest::{
    prelude::*,
    test_runner::{RngSeed, TestRunner},
};
use scenario::Scenario;
use std::{cell::RefCell, time::Duration};

/// Applies the operations, ends all faults and checks the statuses some time later. Then deletes all
/// objects. `abruptly`: deletes them in the midst of the faults.
fn run_operations(ops: Vec<Op>, abruptly: bool, worst: &mut Worst) {
    // Which poll follows when is no matter of what statuses show.
    let mut scenario = Scenario::new(match ops.len() % 2 {
        0 => PollMode::Fixed,
        _ => PollMode::Adaptive,
    });
    for op in ops {
        scenario.apply(op);
    }
    if abruptly {
        return scenario.check_leftovers();
    }
    scenario.end_faults();
    let ended = scenario.world.now;
    // A pause that the cloud asked for may last 15 minutes and a tenth.
    scenario.world.run(2000);
    scenario.check_statuses();
    let writes = scenario.world.landed;
    let lag = scenario.world.landed_last.saturating_sub(ended);
    worst.lag = worst.lag.max(lag);
    worst.writes = worst.writes.max(scenario.world.oracles.most_writes());
    let repairs = scenario.repairs();
    scenario.world.run(1000);
    assert_eq!(scenario.world.landed, writes, "nothing is written any more");
    assert_eq!(scenario.repairs(), repairs);
    scenario.check_requests();
    scenario.check_leftovers();
}

/// `RANDOM_CASES` cases, others each time; or else the same 1,500.
fn config() -> ProptestConfig {
    let wanted = std::env::var("RANDOM_CASES").ok();
    let config = ProptestConfig {
        cases: 1500,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    match wanted {
        None => config,
        Some(cases) => ProptestConfig {
            cases: cases.parse().expect("a number"),
            rng_seed: RngSeed::Random,
            ..config
        },
    }
}

/// The greatest figures of many lives.
#[derive(Debug, Default)]
#[allow(dead_code)] // printed
struct Worst {
    /// How long after the end of all faults the last status was written.
    lag: Duration,
    /// How often the status of one object was written in a life.
    writes: usize,
}

#[test]
fn each_status_is_true_some_time_after_the_last_fault() {
    let worst = RefCell::new(Worst::default());
    let lives = (
        proptest::collection::vec(op(), 1..60),
        proptest::bool::weighted(0.2),
    );
    let result = TestRunner::new(config()).run(&lives, |(ops, abruptly)| {
        run_operations(ops, abruptly, &mut worst.borrow_mut());
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    println!("{:?}", worst.into_inner());
}
