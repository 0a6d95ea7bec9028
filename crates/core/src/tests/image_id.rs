//! Rows 4a and 4b: a success whose image id is awaited, in vain or not.

use super::{
    rows::world_with,
    samples::{
        millis, not_found, object, refused, running, says, secs, success, success_without_image,
        throttled, time_out, unavailable,
    },
    world::World,
};
use crate::Config;
use image_export_model::{ConfigurationReason, JobState};
use std::time::Duration;

#[test]
fn row_4a_becomes_4b_after_5_further_attempts_10_s_apart_whatever_they_return() {
    for attempt in [
        success_without_image(),
        running(),
        not_found(),
        unavailable(),
        time_out(),
        throttled(None),
        refused(ConfigurationReason::AccessDenied),
        refused(ConfigurationReason::CredentialsInvalid),
    ] {
        let mut world = world_with(success_without_image());
        let first = world.polls[0].at;
        world.says("x", attempt.clone());
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
fn row_4a_ends_when_the_image_id_comes() {
    let mut world = world_with(success_without_image());
    world.says("x", success());
    world.run(11);
    assert_eq!(world.reason("x"), "JobSucceeded");
    assert_eq!(world.status("x").image_id.as_deref(), Some("image-1"));
}

#[test]
fn row_4a_ends_suspended_or_not_and_keeps_its_distance() {
    let mut world = world_with(success_without_image());
    world.change("x", |x| x.spec.suspend = true);
    world.run(20);
    assert_eq!(world.reason("x"), "ImageIDPending");
    world.change("x", |x| x.spec.suspend = false);
    world.run(20);
    assert_eq!(
        world.reason("x"),
        "ImageIDPending",
        "resuming brings no attempt forward"
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
fn row_4a_ends_with_a_broken_secret_too() {
    let mut world = world_with(success_without_image());
    world
        .secrets
        .insert("otc".into(), Err(super::samples::secret_missing()));
    world.poll_time = millis(50);
    world.says("x", refused(ConfigurationReason::CredentialsInvalid));
    world.run(55);
    assert_eq!(world.reason("x"), "ImageIDMissing");
}

/// When row 4b was written, after the answer that began row 4a.
fn time_to_4b(world: &World) -> Duration {
    world.writes[1].at - world.writes[0].at
}

#[test]
fn row_4a_keeps_its_distance_when_its_secret_breaks_and_is_mended() {
    for mended in [secs(20), secs(500)] {
        let mut world = World::with(Config {
            credential_refresh: secs(7),
            ..Config::default()
        });
        world.says("x", success_without_image());
        world.create(object("x"));
        world.run(1);
        let broken = Err(super::samples::secret_missing());
        world.secrets.insert("otc".into(), broken);
        world.run_until(mended);
        world.secrets.insert("otc".into(), Ok(1));
        world.run(100);
        assert_eq!(world.reason("x"), "ImageIDMissing");
        let waited = time_to_4b(&world);
        assert!(waited >= secs(50) && waited <= secs(53), "{waited:?}");
        let polls = world.polls_of("x");
        let apart = polls.windows(2).all(|pair| pair[1] - pair[0] >= secs(10));
        assert!(apart, "{polls:?}");
    }
}

#[test]
fn row_4a_has_5_attempts_after_a_restart_as_well() {
    let mut world = world_with(success_without_image());
    world.run(20);
    world.restart();
    let before = world.polls.len();
    world.run(100);
    assert_eq!(world.reason("x"), "ImageIDMissing");
    assert_eq!(world.polls.len() - before, 5);
}

#[test]
fn row_4b_completion_time_is_when_the_success_was() {
    let ended = super::samples::beginning();
    let mut world = world_with(says(JobState::Success, |a| a.end_time = Some(ended)));
    world.run(100);
    assert_eq!(world.reason("x"), "ImageIDMissing");
    assert_eq!(
        world.status("x").completion_time.as_ref().expect("set").0,
        ended
    );
}
