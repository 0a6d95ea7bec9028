//! `ImageIDPending` and `ImageIDMissing`: a success whose image id is not reported yet, or never.

use super::{
    phases::world_with,
    samples::{
        answer_with, deferred, millis, misconfigured, not_found, object, running, secret_missing,
        secs, success, success_without_image, throttled, time_out, unavailable,
    },
    world::World,
};
use crate::{Config, Input};
use image_export_model::{ConfigurationReason, JobState};
use std::time::Duration;

#[test]
fn image_id_pending_becomes_image_id_missing_after_5_more_polls_10_s_apart_whatever_they_return() {
    for attempt in [
        success_without_image(),
        running(),
        not_found(),
        unavailable(),
        time_out(),
        throttled(None),
        misconfigured(ConfigurationReason::AccessDenied),
        misconfigured(ConfigurationReason::CredentialsInvalid),
    ] {
        let mut world = world_with(success_without_image());
        let first = world.polls[0].at;
        world.reports("x", attempt.clone());
        world.run_until(first + secs(49));
        assert_eq!(world.reason("x"), "ImageIDPending", "{attempt:?}");
        world.run_until(first + secs(53));
        assert_eq!(world.reason("x"), "ImageIDMissing", "{attempt:?}");
        assert_eq!(world.polls.len(), 6, "{attempt:?}");
        world.run(3600);
        assert_eq!(world.polls.len(), 6, "{attempt:?}");
    }
}

#[test]
fn image_id_pending_ends_when_the_image_id_is_reported() {
    let mut world = world_with(success_without_image());
    world.reports("x", success());
    world.run(11);
    assert_eq!(world.reason("x"), "JobSucceeded");
    assert_eq!(world.status("x").image_id.as_deref(), Some("image-1"));
}

#[test]
fn suspending_and_resuming_do_not_change_when_image_id_pending_polls() {
    let mut world = world_with(success_without_image());
    world.change("x", |x| x.spec.suspend = true);
    world.run(20);
    assert_eq!(world.reason("x"), "ImageIDPending");
    world.change("x", |x| x.spec.suspend = false);
    world.run(20);
    assert_eq!(
        world.reason("x"),
        "ImageIDPending",
        "resuming causes no earlier poll"
    );
    world.run(12);
    assert_eq!(
        (world.reason("x"), world.polls.len()),
        ("ImageIDMissing", 6)
    );
    let polls = world.polls_of("x");
    let apart = polls.windows(2).all(|pair| pair[1] - pair[0] >= secs(10));
    assert!(apart, "{polls:?}");
}

#[test]
fn image_id_pending_ends_with_a_broken_secret_too() {
    let mut world = world_with(success_without_image());
    world.secrets.insert("otc".into(), Err(secret_missing()));
    world.poll_time = millis(50);
    world.reports("x", misconfigured(ConfigurationReason::CredentialsInvalid));
    world.run(55);
    assert_eq!(world.reason("x"), "ImageIDMissing");
}

/// How long after `ImageIDPending` the object showed `ImageIDMissing`.
fn time_to_missing(world: &World) -> Duration {
    world.writes[1].at - world.writes[0].at
}

#[test]
fn image_id_pending_polls_10_s_apart_when_the_secret_breaks_and_is_fixed() {
    for fixed_at in [secs(20), secs(500)] {
        let mut world = World::with(Config {
            credential_refresh: secs(7),
            ..Config::default()
        });
        world.reports("x", success_without_image());
        world.create(object("x"));
        world.run(1);
        let broken = Err(secret_missing());
        world.secrets.insert("otc".into(), broken);
        world.run_until(fixed_at);
        world.secrets.insert("otc".into(), Ok(1));
        world.run(100);
        assert_eq!(world.reason("x"), "ImageIDMissing");
        let waited = time_to_missing(&world);
        assert!(waited >= secs(50) && waited <= secs(53), "{waited:?}");
        let polls = world.polls_of("x");
        let apart = polls.windows(2).all(|pair| pair[1] - pair[0] >= secs(10));
        assert!(apart, "{polls:?}");
    }
}

#[test]
fn image_id_pending_polls_5_times_after_a_restart_too() {
    let mut world = world_with(success_without_image());
    world.run(20);
    world.restart();
    let before = world.polls.len();
    world.run(100);
    assert_eq!(world.reason("x"), "ImageIDMissing");
    assert_eq!(world.polls.len() - before, 5);
}

#[test]
fn image_id_missing_keeps_the_completion_time_of_the_success() {
    let ended = super::samples::beginning();
    let mut world = world_with(answer_with(JobState::Success, |a| a.end_time = Some(ended)));
    world.run(100);
    assert_eq!(world.reason("x"), "ImageIDMissing");
    assert_eq!(
        world.status("x").completion_time.as_ref().expect("set").0,
        ended
    );
}

#[test]
fn neither_poll_requests_nor_changes_of_credentials_use_up_the_attempts() {
    type Step = fn(&mut World, u8);
    let steps: [Step; 3] = [
        |world, n| world.request_poll("x", &n.to_string()),
        |world, n| {
            world.change("x", |x| {
                x.spec.cloud_credentials_ref =
                    super::samples::cloud(["otc", "other"][usize::from(n % 2)]);
            });
        },
        |world, n| world.change("x", |x| x.spec.suspend = n % 2 == 0),
    ];
    for step in steps {
        let mut world = world_with(success_without_image());
        world.reports_from(world.now + secs(15), "x", success());
        for n in 0..8 {
            step(&mut world, n);
            world.run_until(world.now + millis(250));
        }
        world.run(10);
        assert_eq!(world.reason("x"), "ImageIDPending");
        world.run(15);
        assert_eq!(world.reason("x"), "JobSucceeded");
        let polls = world.polls_of("x");
        let apart = polls.windows(2).all(|pair| pair[1] - pair[0] >= secs(10));
        assert!(apart, "{polls:?}");
    }
}

#[test]
fn an_attempt_obeys_a_pause_of_its_bucket() {
    let mut world = world_with(success_without_image());
    world.reports("x", throttled(Some(secs(40))));
    world.run(11);
    let polls = world.polls.len();
    world.run(33);
    assert_eq!(world.polls.len(), polls, "the cloud asked for 40 s");
    world.reports("x", success());
    world.run(20);
    assert_eq!(world.reason("x"), "JobSucceeded");
}

#[test]
fn image_id_missing_gets_its_image_id_by_a_poll_request() {
    let mut world = world_with(success_without_image());
    world.run(100);
    assert_eq!(world.reason("x"), "ImageIDMissing");
    let completed = world.status("x").completion_time.clone();
    let polls = world.polls.len();

    world.request_poll("x", "still none?");
    world.run(100);
    assert_eq!(
        (world.reason("x"), world.polls.len()),
        ("ImageIDMissing", polls + 1)
    );

    // Much later, when the credential has not been used for a while.
    world.run(3600);
    world.reports("x", success());
    world.request_poll("x", "and now?");
    world.run(3);
    assert_eq!(
        (world.reason("x"), world.polls.len()),
        ("JobSucceeded", polls + 2)
    );
    assert_eq!(world.status("x").completion_time, completed);
}

#[test]
fn a_poll_request_in_image_id_missing_is_repeated_where_it_waits_for_a_login_or_is_throttled() {
    for unanswered in [deferred(secs(1)), throttled(Some(secs(5)))] {
        let mut world = world_with(success_without_image());
        world.run(1000);
        let polls = world.polls.len();
        world.held.polls = true;
        world.request_poll("x", "now");
        world.run(1);
        let poll = world.take_poll();
        world.answer(&poll, unanswered);
        world.run(20);
        let poll = world.take_poll();
        world.answer(&poll, success());
        world.run(1);
        assert_eq!(
            (world.reason("x"), world.polls.len()),
            ("JobSucceeded", polls + 2)
        );
    }
}

#[test]
fn a_poll_request_in_image_id_missing_is_polled_when_the_secret_is_fixed() {
    let mut world = world_with(success_without_image());
    world.run(1000);
    let polls = world.polls.len();
    world.secrets.insert("otc".into(), Err(secret_missing()));
    world.reports("x", success());
    world.request_poll("x", "now");
    world.run(1000);
    assert_eq!(
        (world.reason("x"), world.polls.len()),
        ("ImageIDMissing", polls)
    );
    world.secrets.insert("otc".into(), Ok(2));
    world.run(61);
    assert_eq!(
        (world.reason("x"), world.polls.len()),
        ("JobSucceeded", polls + 1)
    );
}

#[test]
fn a_poll_request_in_image_id_missing_survives_a_change_of_leadership() {
    let mut world = world_with(success_without_image());
    world.run(100);
    world.held.polls = true;
    world.request_poll("x", "now");
    world.run(1);
    let poll = world.take_poll();
    world.feed(Input::Leading(false));
    world.feed(Input::Leading(true));
    world.answer(&poll, success());
    world.run(1);
    let poll = world.take_poll();
    world.answer(&poll, success());
    world.run(1);
    assert_eq!(world.reason("x"), "JobSucceeded");
}
