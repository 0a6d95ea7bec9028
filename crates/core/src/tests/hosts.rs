//! The end of an outage of a host: the first success there ends the error backoff of all objects.

use super::{
    samples::{
        millis, misconfigured, object, object_of, running, secs, time_out, unavailable,
        unavailable_for,
    },
    world::World,
};
use crate::Config;
use image_export_model::{ConfigurationReason, Failure, FailureKind, Observation, Outcome, Stage};
use std::{collections::HashMap, time::Duration};

const IDENTITY: &str = "iam.example.com";

/// The identity service cannot be reached.
fn no_login() -> Observation {
    Observation {
        identity: Some(IDENTITY.into()),
        outcome: Outcome::Failed(Failure {
            kind: FailureKind::Network,
            stage: Stage::Login,
            message: "identity service iam.example.com cannot be reached".into(),
        }),
        ..Observation::of(Outcome::Throttled, 0)
    }
}

/// An answer for which a login was made.
fn signed_in() -> Observation {
    Observation {
        identity: Some(IDENTITY.into()),
        signed_in: true,
        ..running()
    }
}

/// How long after `from` the last object was answered for the first time since.
fn recovery(world: &World, from: Duration) -> Duration {
    let mut first = HashMap::new();
    for poll in world
        .polls
        .iter()
        .filter(|poll| poll.at + world.poll_time >= from)
    {
        first.entry(&poll.name).or_insert(poll.at);
    }
    assert_eq!(first.len(), world.objects.len());
    first
        .into_values()
        .max()
        .expect("some")
        .saturating_sub(from)
}

/// Objects whose cloud answers so from 100 s to 250 s after the start, and then well.
fn outage(objects: u32, rate: f64, fault: Observation, answer: Observation) -> World {
    let mut world = World::with(Config {
        quota_rate: rate,
        quota_burst: 2.0 * rate,
        host_rate: rate,
        host_burst: 2.0 * rate,
        unproven_rate: rate,
        unproven_burst: 2.0 * rate,
        ..Config::default()
    });
    world.check_decisions = false;
    world.keep_log = false;
    world.cloud_by_default = Box::new(move |_, now| {
        if (secs(100)..secs(250)).contains(&now) {
            fault.clone()
        } else {
            answer.clone()
        }
    });
    for n in 0..objects {
        world.create(object(&format!("x{n}")));
    }
    world.run_until(secs(400));
    world
}

#[test]
fn a_login_that_fails_after_a_rejected_token_ends_no_outage() {
    let polls = |fault: Observation| outage(50, 100.0, fault, signed_in()).polls.len();
    let after_a_token = Observation {
        signed_in: true,
        queried: Some("ims.example.com".into()),
        ..no_login()
    };
    assert_eq!(polls(after_a_token), polls(no_login()));
}

#[test]
fn all_objects_recover_within_their_period_and_the_time_that_the_quota_takes() {
    for (objects, rate) in [(5000, 100.0), (5000, 500.0), (300, 10.0)] {
        for (fault, answer) in [
            (unavailable(), running()),
            (time_out(), running()),
            (no_login(), signed_in()),
        ] {
            let world = outage(objects, rate, fault.clone(), answer);
            let last = recovery(&world, secs(250));
            let most = secs(30) + Duration::from_secs_f64(f64::from(objects) / rate) + secs(5);
            assert!(
                last <= most,
                "{objects} at {rate}/s after {fault:?}: {last:?}"
            );
            println!(
                "{objects} objects, {rate}/s, {:?}: the last after {last:?}",
                fault.outcome
            );
            // Spread, within the quota.
            let mut seconds = vec![0.0; 400];
            for poll in world.polls.iter().filter(|poll| poll.at >= secs(250)) {
                seconds[usize::try_from(poll.at.as_secs()).expect("few").min(399)] += 1.0;
            }
            let most = seconds.iter().copied().fold(0.0, f64::max);
            assert!(most <= 3.0 * rate, "{most} polls in a second");
            assert!(
                most <= f64::from(objects) / 10.0,
                "{most} polls in a second"
            );
        }
    }
}

/// A world with `well` and the object `x`, whose polls fail like this from 40 s on; with what `well` is
/// answered meanwhile. `other`: with credentials for another host.
fn beside(fault: Observation, other: bool, well: Observation) -> World {
    let mut world = World::new();
    world
        .hosts
        .insert("abroad".into(), "elsewhere.example.com".into());
    world.create(object_of(
        "well",
        if other { "abroad" } else { "otc" },
        "project",
    ));
    world.create(object_of("x", "otc", "elsewhere"));
    world.run(40);
    world.reports("x", fault);
    world.reports("well", well);
    world
}

#[test]
fn the_failures_of_one_job_do_not_end_with_the_successes_of_others() {
    let mut world = beside(unavailable(), false, running());
    world.run(3600);
    let polls = world.polls_of("x").len();
    // One in 150 s in the mean, and some at the begin; 120 at its usual instants.
    assert!(polls < 60, "{polls}");
}

#[test]
fn a_success_at_another_host_ends_no_backoff() {
    for (other, within) in [(true, false), (false, true)] {
        let mut world = beside(unavailable(), other, unavailable());
        world.run(1200);
        // Nothing in the way of a long backoff.
        let next = loop {
            let polls = world.polls_of("x").len();
            world.run(1);
            if world.polls_of("x").len() > polls {
                break world.now;
            }
        };
        world.reports("x", running());
        world.reports("well", running());
        world.request_poll("well", "1");
        world.run(40);
        let polls = world.polls_of("x");
        let again = polls.iter().any(|at| *at > next && *at < next + secs(40));
        assert_eq!(again, within, "another host: {other}");
    }
}

#[test]
fn no_poll_comes_before_a_retry_after_although_others_succeed() {
    let mut world = beside(unavailable(), false, unavailable());
    world.run(600);
    world.reports("x", unavailable_for(secs(600)));
    world.request_poll("x", "1");
    world.run(2);
    let asked = *world.polls_of("x").last().expect("polled");
    world.reports("x", running());
    world.reports("well", running());
    world.request_poll("well", "1");
    world.run_until(asked + secs(600));
    assert_eq!(world.polls_of("x").last(), Some(&asked));
    assert!(world.polls_of("well").last() > Some(&asked));
    world.run(400);
    assert_eq!(world.reason("x"), "JobRunning");
}

#[test]
fn a_success_ends_no_rejection() {
    let denied = misconfigured(ConfigurationReason::AccessDenied);
    let mut world = beside(denied, false, unavailable());
    world.run(600);
    let polls = world.polls_of("x").len();
    world.reports("well", running());
    world.request_poll("well", "1");
    world.run(280);
    let after = world.polls_of("x").len() - polls;
    assert!(after <= 1, "{after}");
}

#[test]
fn of_an_outage_nothing_is_left_when_the_objects_are_gone() {
    let mut world = beside(unavailable(), true, time_out());
    world.run(600);
    for name in ["x", "well"] {
        world.delete(name);
    }
    world.run_until(world.now + millis(1500));
    assert_eq!(world.tracker.state.leftovers(), []);
}
