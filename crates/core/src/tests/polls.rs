//! When a job is polled: first polls, periods, poll requests, backoff.

use super::{
    samples::{
        beginning, fail, millis, not_found, object, running, secs, success, success_without_image,
        throttled, unavailable, unavailable_for,
    },
    world::World,
};
use crate::Config;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;

fn gaps(times: &[Duration]) -> Vec<Duration> {
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// Whether a time is as expected, but for a delay by the quota of at most a tenth of a second.
fn about(time: Duration, expected: Duration) -> bool {
    time + millis(1) >= expected && time <= expected + millis(110)
}

#[test]
fn a_single_new_object_is_polled_at_once() {
    let mut world = World::new();
    world.create(object("x"));
    world.run(1);
    assert!(world.polls[0].at <= millis(250), "{:?}", world.polls[0]);
}

#[test]
fn a_long_period_does_not_delay_the_first_poll() {
    let mut world = World::new();
    world.create(object("x"));
    world.change("x", |x| x.spec.poll_period_seconds = Some(86_400));
    world.run(3);
    assert_eq!(world.polls.len(), 1);
}

#[test]
fn an_object_that_leaves_its_quota_group_has_no_first_poll_pending_there() {
    let mut world = World::new();
    world.create_all(["stays", "moves", "goes"]);
    world.change("moves", |x| {
        x.spec.cloud_credentials_ref = super::samples::cloud("other");
    });
    world.delete("goes");
    world.run(5);
    let state = &mut world.tracker.state;
    let (_, stays) = state
        .jobs
        .find(&super::samples::key("stays"))
        .expect("tracked");
    let group = stays.group;
    assert_eq!(
        state.quotas.begin_first_poll(group),
        1,
        "no other first poll is pending"
    );
}

#[test]
fn first_polls_of_many_objects_spread_over_2_s() {
    let mut world = World::with(Config {
        quota_rate: 1000.0,
        quota_burst: 1000.0,
        host_rate: 1000.0,
        host_burst: 1000.0,
        unproven_rate: 1000.0,
        unproven_burst: 1000.0,
        ..Config::default()
    });
    world.check_decisions = false;
    world.run(10);
    let began = world.now;
    for n in 0..2000 {
        world.create(object(&format!("x{n}")));
    }
    world.run_until(began + millis(2100));
    let polled: std::collections::HashSet<_> = world.polls.iter().map(|poll| &poll.name).collect();
    assert_eq!(polled.len(), 2000);
    for tenth in 0..20 {
        let from = began + millis(tenth * 100);
        let within = world
            .polls
            .iter()
            .filter(|p| p.at >= from && p.at < from + millis(100));
        let polls = within.count();
        assert!((50..250).contains(&polls), "{polls} in tenth {tenth}");
    }
}

#[test]
fn polls_keep_their_offset_in_the_period_and_no_two_objects_share_it() {
    let mut world = World::new();
    world.create_all(["a", "b", "c"]);
    world.run(1000);
    for name in ["a", "b", "c"] {
        let polls = world.polls_of(name);
        assert!(
            gaps(&polls[1..])
                .iter()
                .all(|gap| about(*gap + millis(50), secs(30)))
        );
        assert!((33..=35).contains(&polls.len()));
    }
    let offset = |name| world.polls_of(name)[5].as_millis() % 30_000;
    assert!(offset("a") != offset("b") && offset("b") != offset("c"));
}

#[test]
fn poll_period_seconds_sets_the_period_of_one_object() {
    for period in [5, 60, 3600] {
        let mut world = World::new();
        let mut x = object("x");
        x.spec.poll_period_seconds = Some(period);
        world.create(x);
        let period = secs(u64::try_from(period).expect("positive"));
        world.run_until(period * 5);
        let gaps = gaps(&world.polls_of("x")[1..]);
        assert!(
            gaps.iter().all(|gap| about(*gap + millis(50), period)),
            "{gaps:?}"
        );
        assert!(gaps.len() >= 3);
    }
}

#[test]
fn a_longer_own_period_replaces_the_slow_period() {
    let mut world = World::new();
    world.reports("x", super::samples::unrecognized("ODD"));
    let mut x = object("x");
    x.spec.poll_period_seconds = Some(1000);
    world.create(x);
    world.run(5000);
    let gaps = gaps(&world.polls_of("x")[1..]);
    assert!(
        gaps.iter().all(|gap| about(*gap + millis(50), secs(1000))),
        "{gaps:?}"
    );
}

#[test]
fn a_changed_period_takes_effect_at_once() {
    let mut world = World::new();
    let mut x = object("x");
    x.spec.poll_period_seconds = Some(86_400);
    world.create(x);
    world.run(5);
    world.change("x", |x| x.spec.poll_period_seconds = Some(5));
    world.run(20);
    assert!(world.polls.len() >= 4);
}

#[test]
fn label_changes_cause_no_poll_and_no_write() {
    let mut world = World::new();
    world.create(object("x"));
    world.create(object("y"));
    // A period of 10,000 changes.
    for _ in 0..10_000 {
        world.touch("x");
        world.run_until(world.now + millis(3));
    }
    assert_eq!(
        world.polls_of("x").len(),
        2,
        "the first, and one at its time"
    );
    assert_eq!(world.writes.len(), 2, "one of each object");
}

#[test]
fn a_step_of_the_wall_clock_moves_no_poll() {
    for step in [3600, -3600, 31_536_000, -31_536_000] {
        let mut world = World::new();
        world.create(object("x"));
        world.run(40);
        let before = *world.polls_of("x").last().expect("polled");
        world.wall_step = step;
        world.run(65);
        let after: Vec<_> = world
            .polls_of("x")
            .into_iter()
            .filter(|at| *at > before)
            .collect();
        for (n, at) in (1u32..).zip(&after) {
            let expected = before + secs(30) * n;
            assert!(
                *at + millis(110) > expected && *at < expected + millis(110),
                "{step}: {after:?}"
            );
        }
        assert!(after.len() >= 2);
    }
}

// Backoff.

#[test]
fn the_backoff_is_1_s_plus_jitter_that_doubles_to_300_s() {
    let mut world = World::new();
    world.check_decisions = false;
    for n in 0..50 {
        world.reports(&format!("x{n}"), unavailable());
        world.create(object(&format!("x{n}")));
    }
    world.run(4000);
    for n in 0..50 {
        for (k, gap) in (1u32..).zip(gaps(&world.polls_of(&format!("x{n}")))) {
            let most = secs(1) + secs(2).saturating_mul(1 << k.min(16)).min(secs(300));
            // The time of the answer is added, and the quota may delay a poll by a few tenths of a second.
            assert!(
                gap >= secs(1) && gap <= most + secs(5),
                "x{n}, failure {k}: {gap:?}"
            );
        }
    }
}

#[test]
fn an_answer_resets_the_backoff() {
    let mut world = World::new();
    world.reports("x", unavailable());
    world.create(object("x"));
    world.run(2000);
    world.reports("x", running());
    world.run(400);
    world.reports("x", unavailable());
    let before = world.polls.len();
    world.run(33);
    let gaps = gaps(&world.polls_of("x")[before..]);
    assert!(gaps.first().is_none_or(|gap| *gap <= secs(6)), "{gaps:?}");
}

#[test]
fn retry_after_is_obeyed_up_to_15_minutes() {
    for (retry_after, least) in [(20, 20), (600, 600), (86_400, 900), (0, 1)] {
        for answer in [
            unavailable_for(secs(retry_after)),
            throttled(Some(secs(retry_after))),
        ] {
            let mut world = World::new();
            world.reports("x", answer.clone());
            world.create(object("x"));
            world.run(1);
            world.reports("x", running());
            world.run(1500);
            let polls = world.polls_of("x");
            let wait = polls[1] - polls[0];
            let most = secs(least).mul_f64(1.1) + secs(6);
            assert!(wait >= secs(least) && wait <= most, "{answer:?}: {wait:?}");
        }
    }
}

// Poll requests.

#[test]
fn a_poll_request_is_polled_and_acknowledged_at_once() {
    for (report, reason) in [(running(), "JobRunning"), (not_found(), "JobNotFound")] {
        let mut world = World::new();
        world.reports("x", report);
        world.create(object("x"));
        world.run(2);
        let polls = world.polls.len();
        world.request_poll("x", "now");
        world.run_until(world.now + millis(20));
        assert_eq!(
            world.status("x").last_handled_poll_request.as_deref(),
            Some("now")
        );
        assert_eq!(world.polls.len(), polls + 1);
        assert_eq!(world.reason("x"), reason);
        world.run(3);
        assert_eq!(world.polls.len(), polls + 1, "polled once");
    }
}

#[test]
fn a_poll_request_on_a_new_object_is_acknowledged() {
    let mut world = World::new();
    let mut x = object("x");
    let annotation = image_export_api::POLL_REQUEST_ANNOTATION.to_owned();
    x.metadata
        .annotations
        .get_or_insert_default()
        .insert(annotation, "first".into());
    world.create(x);
    world.run(2);
    assert_eq!(
        world.status("x").last_handled_poll_request.as_deref(),
        Some("first")
    );
    assert_eq!((world.reason("x"), world.polls.len()), ("JobRunning", 1));
    world.restart();
    world.run(1);
    assert!(
        world.polls.len() <= 2,
        "an acknowledged request is not polled again"
    );
}

#[test]
fn job_succeeded_job_failed_and_suspended_acknowledge_a_poll_request_without_a_poll() {
    for (report, suspend) in [(success(), false), (fail(), false), (running(), true)] {
        let mut world = World::new();
        world.reports("x", report);
        world.create(object("x"));
        world.run(2);
        world.change("x", |x| x.spec.suspend = suspend);
        world.run(2);
        let polls = world.polls.len();
        world.request_poll("x", "now");
        world.run(100);
        assert_eq!(
            world.status("x").last_handled_poll_request.as_deref(),
            Some("now")
        );
        assert_eq!(world.polls.len(), polls);
    }
}

#[test]
fn a_poll_request_during_a_poll_causes_another_poll() {
    let mut world = World::new();
    world.held.polls = true;
    world.create(object("x"));
    world.run(1);
    let first = world.take_poll();
    world.request_poll("x", "now");
    world.run(1);
    assert!(world.open_polls.is_empty(), "one poll in flight per object");
    world.answer(&first, running());
    world.run(1);
    assert_eq!(world.open_polls.len(), 1);
}

#[test]
fn a_poll_request_goes_first_in_its_bucket_but_obeys_the_pause() {
    let mut world = World::with(Config {
        quota_rate: 1.0,
        quota_burst: 1.0,
        ..Config::default()
    });
    world.check_decisions = false;
    let names: Vec<String> = (0..60).map(|n| format!("x{n}")).collect();
    world.create_all(names.iter().map(String::as_str));
    world.run(200);
    world.request_poll("x7", "now");
    let requested_at = world.now;
    world.run(2);
    assert!(
        world.polls_of("x7").last().expect("polled") > &requested_at,
        "before all other objects"
    );

    for name in &names {
        world.reports(name, throttled(Some(secs(60))));
    }
    world.run(2);
    let paused = world.now;
    world.request_poll("x9", "now");
    world.run(50);
    assert_eq!(
        world.status("x9").last_handled_poll_request.as_deref(),
        Some("now")
    );
    assert!(world.polls.iter().all(|poll| poll.at <= paused));
}

#[test]
fn a_poll_request_that_is_too_long_publishes_one_warning() {
    let mut world = World::new();
    world.create(object("x"));
    world.run(2);
    let long = "x".repeat(65);
    world.request_poll("x", &long);
    world.run(2);
    world.touch("x");
    world.list();
    world.run(2);
    assert_eq!(world.reasons_of_events(), ["PollRequestIgnored"]);
    assert!(world.events[0].warning);
    assert_eq!((world.polls.len(), world.writes.len()), (1, 1));
    world.request_poll("x", &"x".repeat(64));
    world.run(2);
    assert_eq!(world.polls.len(), 2);
}

#[test]
fn poll_times_derive_from_the_epoch_so_that_a_restart_keeps_them() {
    let mut world = World::new();
    world.create(object("x"));
    world.run(100);
    let offset = |at: &Duration| {
        let epoch = beginning().duration_since(jiff::Timestamp::UNIX_EPOCH);
        ((epoch.unsigned_abs() + *at).as_millis() % 30_000) / 200
    };
    let before = offset(world.polls_of("x").last().expect("polled"));
    world.restart();
    world.run(100);
    assert_eq!(offset(world.polls_of("x").last().expect("polled")), before);
}

#[test]
fn a_second_poll_request_during_a_poll_in_image_id_missing_is_polled() {
    let mut world = World::new();
    world.reports("x", success_without_image());
    world.create(object("x"));
    world.run(100);
    assert_eq!(world.reason("x"), "ImageIDMissing");
    world.held.polls = true;
    world.request_poll("x", "1");
    world.run(1);
    let poll = world.take_poll();
    world.request_poll("x", "2");
    world.run(1);
    assert_eq!(
        world.status("x").last_handled_poll_request.as_deref(),
        Some("2")
    );
    world.answer(&poll, success_without_image());
    world.run(1);
    let poll = world.take_poll();
    world.answer(&poll, super::samples::success());
    world.run(1);
    assert_eq!(world.reason("x"), "JobSucceeded");
}

#[test]
fn a_poll_request_that_waits_for_its_secret_survives_a_change_of_the_spec() {
    let mut world = World::new();
    world.create(object("x"));
    world.run(5);
    world.held.reads = true;
    world.change("x", |x| {
        x.spec.cloud_credentials_ref = super::samples::cloud("slow");
    });
    world.run(1);
    world.request_poll("x", "1");
    world.run(1);
    let polls = world.polls.len();
    world.change("x", |x| x.spec.poll_period_seconds = Some(86_400));
    world.run(1);
    let reference = world.open_reads.remove(0);
    world.finish_read(&reference);
    world.run(1);
    assert_eq!(world.polls.len(), polls + 1);
}

#[test]
fn each_period_that_the_flag_accepts_is_kept() {
    for seconds in [1, 2, 3, 5] {
        let mut world = World::with(Config {
            poll_period: secs(seconds),
            ..Config::default()
        });
        // Answers take up to half of the period.
        world.poll_time = secs(seconds) / 2 - millis(20);
        world.create(object("x"));
        world.run(10);
        let polls = world.polls.len();
        world.run(100 * seconds);
        assert!(
            (99..=101).contains(&(world.polls.len() - polls)),
            "{seconds} s"
        );
    }
}

#[test]
fn an_object_that_is_being_deleted_is_not_polled() {
    let mut world = World::new();
    world.create(object("x"));
    world.run(5);
    world.change("x", |x| {
        x.metadata.finalizers = Some(vec!["example.com/keep".into()]);
        x.metadata.deletion_timestamp = Some(Time(beginning()));
    });
    let polls = world.polls.len();
    world.request_poll("x", "1");
    world.run(3600);
    assert_eq!(world.polls.len(), polls);
    assert_eq!(
        world.status("x").last_handled_poll_request.as_deref(),
        Some("1")
    );
    world.restart();
    world.run(3600);
    assert_eq!(
        (world.polls.len(), world.reason("x")),
        (polls, "JobRunning")
    );
}

#[test]
fn a_change_of_the_period_polls_no_object_at_once() {
    let mut world = World::new();
    world.check_decisions = false;
    for n in 0..100 {
        world.create(object(&format!("x{n}")));
    }
    world.run(65);
    let changed = world.now;
    for n in 0..100 {
        world.change(&format!("x{n}"), |x| x.spec.poll_period_seconds = Some(20));
    }
    world.run(30);
    let early = |poll: &&super::world::PollLog| poll.at < changed + millis(990);
    let polls = &world.polls[world.polls.partition_point(|poll| poll.at <= changed)..];
    assert!(polls.iter().filter(early).count() == 0);
    assert!(polls.len() >= 100, "each is polled in its new period");
}
