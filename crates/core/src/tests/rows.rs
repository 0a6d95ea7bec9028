//! Rulings of `definitions.md`, "Rows": what enters a row, what keeps it, what ends it.

use super::{
    oracle::condition,
    samples::{
        cloud, fail, init, millis, not_found, object, refused, running, says, secs, success,
        success_without_image, throttled, time_out, unavailable, word,
    },
    world::World,
};
use image_export_api::conditions::types;
use image_export_model::{ConfigurationReason, JobState, Observation};

/// A world with the object `x`, about which the cloud says this.
pub fn world_with(observation: Observation) -> World {
    let mut world = World::new();
    world.says("x", observation);
    world.create(object("x"));
    world.run(5);
    world
}

/// Runs until the object's reason is another, at most so long; returns the time it took.
fn time_to_leave(world: &mut World, reason: &str, most: u64) -> u64 {
    let began = world.now;
    while world.reason("x") == reason && world.now - began < secs(most) {
        world.run(1);
    }
    (world.now - began).as_secs()
}

#[test]
fn row_0b_comes_after_10_s_without_an_answer_and_not_before() {
    let mut world = World::new();
    world.poll_time = secs(60);
    world.create(object("x"));
    world.run_until(millis(9_990));
    assert_eq!((world.reason("x"), world.writes.len()), ("", 0));
    world.run_until(millis(10_010));
    assert_eq!(world.reason("x"), "Pending");
}

#[test]
fn row_3e_needs_3_failures_in_a_row_and_2_minutes() {
    let mut world = World::new();
    world.says("x", running());
    world.create(object("x"));
    world.run(1);
    world.says("x", unavailable());
    let first = loop {
        world.run(1);
        if world.polls.len() >= 2 {
            break world.polls[1].at;
        }
    };
    world.run_until(first + secs(119));
    assert_eq!(world.reason("x"), "JobRunning", "not before 2 min");
    let most = 2 * 302;
    time_to_leave(&mut world, "JobRunning", most);
    assert_eq!(world.reason("x"), "PollFailed");
    let failed = world.polls.len() - 1;
    assert!(failed >= 3, "{failed}");
    let turned = world.writes.last().expect("written").at;
    let last_poll = world.polls.last().expect("polled").at;
    assert!(
        turned - last_poll < millis(100),
        "on a poll's outcome, not on a tick"
    );
}

#[test]
fn row_3e_two_failures_are_not_enough_however_long_they_last() {
    let mut world = World::new();
    world.create(object("x"));
    world.change("x", |x| x.spec.poll_period_seconds = Some(300));
    world.held.polls = true;
    world.run(1);
    let poll = world.take_poll();
    world.answer(&poll, running());
    for _ in 0..2 {
        while world.open_polls.is_empty() {
            world.run(1);
        }
        let poll = world.take_poll();
        world.run(200);
        world.answer(&poll, unavailable());
    }
    world.run(1);
    assert_eq!(world.reason("x"), "JobRunning");
}

#[test]
fn row_3e_is_broken_by_any_classified_reply() {
    for (reply, reason) in [
        (running(), "JobRunning"),
        (not_found(), "JobNotFound"),
        (refused(ConfigurationReason::AccessDenied), "AccessDenied"),
    ] {
        let mut world = world_with(unavailable());
        time_to_leave(&mut world, "Pending", 600);
        world.run(600);
        assert_eq!(world.reason("x"), "PollFailed");
        world.says("x", reply);
        world.run(302);
        assert_eq!(world.reason("x"), reason);
    }
}

#[test]
fn row_3e_keeps_its_first_cause() {
    let mut world = world_with(running());
    world.says("x", unavailable());
    world.run(900);
    assert_eq!(world.reason("x"), "PollFailed");
    let written = world.writes.len();
    world.says("x", time_out());
    world.run(900);
    world.says("x", unavailable());
    world.run(900);
    assert_eq!(
        world.writes.len(),
        written,
        "alternating causes do not flutter"
    );
}

#[test]
fn throttling_alone_is_written_after_15_minutes_only() {
    let mut world = world_with(running());
    world.says("x", throttled(None));
    while world.polls.len() < 2 {
        world.run(1);
    }
    let first = world.polls[1].at;
    world.run_until(first + secs(899));
    assert_eq!(world.reason("x"), "JobRunning");
    world.run_until(first + secs(905));
    assert_eq!(world.reason("x"), "PollFailed");
    let message = &condition(world.status("x"), types::READY)
        .expect("present")
        .message;
    assert!(message.contains("limits the rate"), "{message}");
}

#[test]
fn a_status_that_was_answered_within_15_minutes_knows_no_throttling() {
    let mut world = world_with(running());
    let written = world.writes.len();
    for _ in 0..4 {
        world.says("x", throttled(Some(secs(60))));
        world.run(800);
        world.says("x", running());
        world.run(120);
    }
    assert_eq!(world.writes.len(), written);
}

#[test]
fn row_7_needs_5_polls_and_5_minutes_of_404() {
    let mut world = world_with(not_found());
    let first = world.polls[0].at;
    assert_eq!(world.reason("x"), "JobNotFound");
    world.run_until(first + secs(299));
    assert!(condition(world.status("x"), types::STALLED).is_none());
    world.run_until(first + secs(361));
    assert!(condition(world.status("x"), types::STALLED).is_some());
    assert!(world.polls.len() >= 5);
}

#[test]
fn row_7_four_404s_are_not_enough_however_long_they_last() {
    let mut world = World::new();
    world.held.polls = true;
    world.create(object("x"));
    world.run(1);
    for _ in 0..4 {
        let poll = world.take_poll();
        world.run(200);
        world.answer(&poll, not_found());
        world.run(61);
    }
    assert!(condition(world.status("x"), types::STALLED).is_none());
    let poll = world.take_poll();
    world.answer(&poll, not_found());
    world.run(1);
    assert!(condition(world.status("x"), types::STALLED).is_some());
}

#[test]
fn row_7_a_404_run_is_broken_by_a_200_only() {
    let mut world = world_with(not_found());
    world.run(120);
    // Neither failures nor refusals count, and neither breaks the run.
    world.says("x", unavailable());
    world.run(60);
    world.says("x", not_found());
    world.run(500);
    assert!(condition(world.status("x"), types::STALLED).is_some());
    world.says("x", unavailable());
    world.run(2000);
    assert_eq!(
        world.reason("x"),
        "JobNotFound",
        "followed by a 503 it stays"
    );
    assert!(condition(world.status("x"), types::STALLED).is_some());
    world.says("x", running());
    world.run(302);
    assert_eq!(world.reason("x"), "JobRunning");
    world.says("x", not_found());
    world.run(200);
    assert!(
        condition(world.status("x"), types::STALLED).is_none(),
        "it starts anew"
    );
}

#[test]
fn row_7a_polls_every_60_s_whatever_the_object_asks_for() {
    let mut world = World::new();
    world.says("x", not_found());
    let mut slow = object("x");
    slow.spec.poll_period_seconds = Some(86_400);
    world.create(slow);
    world.run(290);
    let polls = world.polls_of("x");
    assert!((5..=6).contains(&polls.len()), "{polls:?}");
}

#[test]
fn once_success_was_answered_nothing_else_is_shown() {
    for contradiction in [running(), fail(), init(), not_found(), word("GONE")] {
        let mut world = world_with(success_without_image());
        world.says("x", contradiction);
        world.run(200);
        let words: Vec<_> = world
            .writes
            .iter()
            .map(|w| w.status.status.as_deref())
            .collect();
        assert_eq!(words, [Some("SUCCESS"); 2]);
    }
    let mut world = world_with(success_without_image());
    world.says("x", fail());
    world.run(200);
    assert_eq!(world.census().counters.contradictions, 5);
}

#[test]
fn running_then_init_is_counted_and_not_shown() {
    let mut world = world_with(running());
    world.says("x", init());
    world.run(100);
    assert_eq!((world.reason("x"), world.writes.len()), ("JobRunning", 1));
    assert!(world.census().counters.contradictions >= 3);
}

#[test]
fn rows_1_replace_one_another_by_the_latest_evidence() {
    let mut world = world_with(refused(ConfigurationReason::AccessDenied));
    for reason in [
        ConfigurationReason::EndpointInvalid,
        ConfigurationReason::RequestRejected,
        ConfigurationReason::CredentialsInvalid,
        ConfigurationReason::AccessDenied,
    ] {
        world.says("x", refused(reason));
        world.run(301);
        assert_eq!(world.reason("x"), format!("{reason:?}"));
    }
}

#[test]
fn rows_1_end_when_what_they_name_is_disproved_and_not_before() {
    use ConfigurationReason::{AccessDenied, CredentialsInvalid, EndpointInvalid};
    for (refusal, failure, ends) in [
        // Signed in, then the query failed: the login was accepted.
        (CredentialsInvalid, unavailable(), true),
        (CredentialsInvalid, time_out(), true),
        // The host answers otherwise than with a 403.
        (AccessDenied, unavailable(), true),
        (AccessDenied, time_out(), false),
        (EndpointInvalid, time_out(), false),
        (AccessDenied, throttled(None), false),
    ] {
        let mut world = world_with(refused(refusal));
        world.says("x", failure.clone());
        world.run(310);
        let stays = world.reason("x") == format!("{refusal:?}");
        assert_eq!(
            stays,
            !ends,
            "{refusal:?}, then {failure:?}: {}",
            world.reason("x")
        );
        if ends {
            assert_eq!(world.reason("x"), "Pending", "the lower rows compete");
        }
    }
}

#[test]
fn a_spec_change_is_written_at_once_with_its_generation() {
    let mut world = world_with(running());
    world.change("x", |x| x.spec.poll_period_seconds = Some(60));
    world.run_until(world.now + millis(10));
    assert_eq!(world.status("x").observed_generation, Some(2));
    assert_eq!(world.reason("x"), "JobRunning");
    assert_eq!(world.polls.len(), 1, "and is no reason to ask");
}

#[test]
fn row_9_a_finished_object_acknowledges_a_spec_change_without_a_poll() {
    for end in [success(), fail()] {
        let mut world = world_with(end);
        let before = world.status("x").clone();
        world.change("x", |x| x.spec.suspend = true);
        world.run(600);
        let mut after = world.status("x").clone();
        assert_eq!(after.observed_generation, Some(2));
        after.observed_generation = Some(1);
        after
            .conditions
            .iter_mut()
            .for_each(|c| c.observed_generation = Some(1));
        assert_eq!(after, before);
        assert_eq!((world.polls.len(), world.writes.len()), (1, 2));
    }
}

#[test]
fn a_spec_change_ends_rows_1_and_7_only_with_other_credentials() {
    let refused = refused(ConfigurationReason::AccessDenied);
    for (evidence, wait, reason) in [
        (refused, 5, "AccessDenied"),
        (not_found(), 400, "JobNotFound"),
    ] {
        let mut world = world_with(evidence);
        world.run(wait);
        let stalled = condition(world.status("x"), types::STALLED).is_some();
        world.change("x", |x| x.spec.poll_period_seconds = Some(60));
        world.run(2);
        assert_eq!(world.reason("x"), reason);
        assert_eq!(
            condition(world.status("x"), types::STALLED).is_some(),
            stalled
        );

        world.poll_time = secs(8);
        world.change("x", |x| x.spec.cloud_credentials_ref = cloud("other"));
        world.run(2);
        assert!(condition(world.status("x"), types::STALLED).is_none());
        if reason == "AccessDenied" {
            assert_eq!(world.reason("x"), "Pending", "where nothing else holds, 0b");
        }
        world.says("x", running());
        world.run(10);
        assert_eq!(
            world.reason("x"),
            "JobRunning",
            "asked at once with the new ones"
        );
    }
}

#[test]
fn a_spec_change_ends_row_8_where_it_does_not_hold_any_more() {
    let mut world = World::new();
    let mut suspended = object("x");
    suspended.spec.suspend = true;
    world.create(suspended);
    world.run(100);
    assert_eq!((world.reason("x"), world.polls.len()), ("Suspended", 0));
    world.poll_time = secs(5);
    world.change("x", |x| x.spec.suspend = false);
    world.run(2);
    assert_eq!(world.reason("x"), "Pending");
    world.run(5);
    assert_eq!(world.reason("x"), "JobRunning");
}

#[test]
fn start_time_is_the_first_known_sane_value() {
    let at = |second: i64| {
        let time = jiff::Timestamp::from_second(second).expect("within range");
        says(JobState::Running, move |a| a.begin_time = Some(time))
    };
    let now = super::samples::beginning().as_second();
    let shown = |world: &World| {
        world
            .status("x")
            .start_time
            .as_ref()
            .map(|t| t.0.as_second())
    };
    for insane in [0, 1_262_303_999, now + 3600] {
        assert_eq!(shown(&world_with(at(insane))), None, "{insane}");
    }
    for sane in [1_262_304_000, now, now + 299] {
        let mut world = world_with(at(sane));
        world.says("x", at(now - 100));
        world.run(40);
        assert_eq!(shown(&world), Some(sane), "never moved later");
    }
}

#[test]
fn an_undisturbed_job_has_three_writes() {
    let mut world = World::new();
    world.says_from(secs(0), "x", init());
    world.says_from(secs(100), "x", running());
    world.says_from(secs(1000), "x", success());
    world.create(object("x"));
    world.run(3600);
    let reasons = world.reasons_of_events();
    assert_eq!(reasons, ["JobInitializing", "JobRunning", "JobSucceeded"]);
    assert_eq!((world.writes.len(), world.fetches.len()), (3, 0));
}

#[test]
fn a_hundred_identical_polls_write_nothing() {
    for (evidence, reason) in [
        (init(), "JobInitializing"),
        (running(), "JobRunning"),
        (unavailable(), "PollFailed"),
        (throttled(None), "PollFailed"),
        (refused(ConfigurationReason::AccessDenied), "AccessDenied"),
        (word("PARTIAL_FAIL"), "JobStatusUnrecognized"),
        (not_found(), "JobNotFound"),
    ] {
        let mut world = world_with(evidence);
        // Into the row, and past each grace.
        world.run(2000);
        let (written, polls) = (world.writes.len(), world.polls.len());
        while world.polls.len() < polls + 100 {
            world.run(60);
        }
        assert_eq!(world.reason("x"), reason);
        assert_eq!(world.writes.len(), written, "{reason}");
    }
}
