//! Properties of the breaker under random callers.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    /// A caller of a namespace comes, with an entry and a secret. Secret 0 is right.
    Visit {
        namespace: u8,
        entry: u8,
        secret: u8,
        prior: PriorAcceptance,
    },
    /// The oldest attempt in flight ends, with or without an answer.
    End {
        answered: bool,
    },
    Advance(u64),
}

fn step(prior: &[PriorAcceptance]) -> impl Strategy<Value = Step> + use<> {
    let prior = proptest::sample::select(prior.to_vec());
    let visit = (0_u8..4, 0_u8..3, 0_u8..12, prior);
    let visit = visit.prop_map(|(namespace, entry, secret, prior)| Step::Visit {
        namespace,
        entry,
        secret,
        prior,
    });
    prop_oneof![
        6 => visit,
        4 => prop_oneof![4 => Just(true), 1 => Just(false)]
            .prop_map(|answered| Step::End { answered }),
        2 => (1_u64..90).prop_map(Step::Advance),
    ]
}

/// The most rejections that come in a row within one pause.
async fn worst_row(steps: Vec<Step>) -> usize {
    let breakers = breakers();
    let mut in_flight = std::collections::VecDeque::new();
    let mut in_a_row = Vec::new();
    let mut worst = 0;
    for step in steps {
        match step {
            Step::Visit {
                namespace,
                entry,
                secret,
                prior,
            } => {
                let (namespace, entry) = (namespace.to_string(), entry.to_string());
                let password = secret.to_string();
                let attempt = login_with(&breakers, &namespace, &entry, &password, prior);
                if let Ok(permit) = breakers.enter(attempt) {
                    in_flight.push_back((permit, secret == 0));
                }
            }
            Step::End { answered } => match in_flight.pop_front() {
                Some((permit, true)) if answered => {
                    permit.accepted();
                    in_a_row.clear();
                }
                Some((permit, false)) if answered => {
                    let _ = permit.rejected("401");
                    in_a_row.push(Instant::now());
                    in_a_row.retain(|at: &Instant| at.elapsed() < 5 * MINUTE);
                    worst = worst.max(in_a_row.len());
                }
                _ => {}
            },
            Step::Advance(seconds) => tokio::time::advance(Duration::from_secs(seconds)).await,
        }
    }
    drop(in_flight);
    let idle = breakers.with(login(&breakers, ""), |circuit| !circuit.is_in_flight());
    assert!(idle, "each attempt ended");
    worst
}

fn run(steps: Vec<Step>) -> usize {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(worst_row(steps))
}

proptest! {
    #[test]
    fn three_rejections_in_a_row_at_most_come_before_a_pause(
        steps in prop::collection::vec(step(&[PriorAcceptance::Unknown, PriorAcceptance::Rejected]), 1..300)
    ) {
        prop_assert!(run(steps) <= 3);
    }

    /// A cloud locks at the sixth.
    #[test]
    fn wrong_claims_of_acceptance_add_one(
        steps in prop::collection::vec(step(&[PriorAcceptance::Accepted, PriorAcceptance::Unknown]), 1..300)
    ) {
        prop_assert!(run(steps) <= 4);
    }
}
