//! The phases: what starts each of them, what keeps it and what ends it.

use super::{
    invariants::condition,
    samples::{
        answer_with, beginning, cloud, fail, init, millis, misconfigured, not_found, object,
        running, secs, success, success_without_image, throttled, time_out, unavailable,
        unrecognized,
    },
    world::World,
};
use image_export_api::conditions::types;
use image_export_model::{ConfigurationReason, JobState, Observation};

/// A world with the object `x`, about whose job the cloud reports this.
pub fn world_with(observation: Observation) -> World {
    let mut world = World::new();
    world.reports("x", observation);
    world.create(object("x"));
    world.run(5);
    world
}

/// Runs until the object shows another reason, at most this long. Returns the seconds that passed.
fn time_to_leave(world: &mut World, reason: &str, most: u64) -> u64 {
    let began = world.now;
    while world.reason("x") == reason && world.now - began < secs(most) {
        world.run(1);
    }
    (world.now - began).as_secs()
}

#[test]
fn pending_is_shown_after_10_s_without_an_answer_and_not_before() {
    let mut world = World::new();
    world.poll_time = secs(60);
    world.create(object("x"));
    world.run_until(millis(9_990));
    assert_eq!((world.reason("x"), world.writes.len()), ("", 0));
    world.run_until(millis(10_010));
    assert_eq!(world.reason("x"), "Pending");
}

#[test]
fn poll_failed_needs_3_consecutive_failures_and_2_minutes() {
    let mut world = World::new();
    world.reports("x", running());
    world.create(object("x"));
    world.run(1);
    world.reports("x", unavailable());
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
    let written = world.writes.last().expect("written").at;
    let last_poll = world.polls.last().expect("polled").at;
    assert!(
        written - last_poll < millis(100),
        "written on the outcome of a poll, not on a tick"
    );
}

#[test]
fn two_failures_do_not_show_poll_failed_however_long_they_last() {
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
fn any_classified_reply_ends_poll_failed() {
    for (reply, reason) in [
        (running(), "JobRunning"),
        (not_found(), "JobNotFound"),
        (
            misconfigured(ConfigurationReason::AccessDenied),
            "AccessDenied",
        ),
    ] {
        let mut world = world_with(unavailable());
        time_to_leave(&mut world, "Pending", 600);
        world.run(600);
        assert_eq!(world.reason("x"), "PollFailed");
        world.reports("x", reply);
        world.run(302);
        assert_eq!(world.reason("x"), reason);
    }
}

#[test]
fn poll_failed_keeps_its_first_cause() {
    let mut world = world_with(running());
    world.reports("x", unavailable());
    world.run(900);
    assert_eq!(world.reason("x"), "PollFailed");
    let written = world.writes.len();
    world.reports("x", time_out());
    world.run(900);
    world.reports("x", unavailable());
    world.run(900);
    assert_eq!(
        world.writes.len(),
        written,
        "alternating causes cause no writes"
    );
}

#[test]
fn throttling_shows_poll_overdue_after_5_minutes_and_never_poll_failed() {
    let mut world = world_with(running());
    world.reports("x", throttled(None));
    while world.polls.len() < 2 {
        world.run(1);
    }
    let first = world.polls[1].at;
    world.run_until(first + secs(299));
    assert_eq!((world.reason("x"), world.writes.len()), ("JobRunning", 1));
    world.run_until(first + secs(303));
    assert_eq!(world.reason("x"), "PollOverdue");
    let message = &condition(world.status("x"), types::READY)
        .expect("present")
        .message;
    assert!(message.contains("throttling"), "{message}");
    world.run(3600);
    assert_eq!((world.reason("x"), world.writes.len()), ("PollOverdue", 2));
    world.reports("x", running());
    world.run(40);
    assert_eq!((world.reason("x"), world.writes.len()), ("JobRunning", 3));
}

#[test]
fn throttling_is_not_shown_when_an_answer_comes_within_5_minutes() {
    let mut world = world_with(running());
    let written = world.writes.len();
    for _ in 0..4 {
        world.reports("x", throttled(Some(secs(60))));
        world.run(200);
        world.reports("x", running());
        world.run(120);
    }
    assert_eq!(world.writes.len(), written);
}

#[test]
fn job_not_found_stalls_after_5_polls_and_5_minutes_of_404() {
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
fn four_404s_do_not_stall_job_not_found_however_long_they_last() {
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
fn only_a_200_resets_the_consecutive_404s() {
    let mut world = world_with(not_found());
    world.run(120);
    // A failed poll neither counts as a 404 nor resets their count.
    world.reports("x", unavailable());
    world.run(60);
    world.reports("x", not_found());
    world.run(500);
    assert!(condition(world.status("x"), types::STALLED).is_some());
    world.reports("x", unavailable());
    world.run(2000);
    assert_eq!(
        world.reason("x"),
        "JobNotFound",
        "a 503 does not end the phase"
    );
    assert!(condition(world.status("x"), types::STALLED).is_some());
    world.reports("x", running());
    world.run(302);
    assert_eq!(world.reason("x"), "JobRunning");
    world.reports("x", not_found());
    world.run(200);
    assert!(
        condition(world.status("x"), types::STALLED).is_none(),
        "the count starts again"
    );
}

#[test]
fn job_not_found_polls_every_60_s_within_the_grace_whatever_the_own_period() {
    let mut world = World::new();
    world.reports("x", not_found());
    let mut slow = object("x");
    slow.spec.poll_period_seconds = Some(86_400);
    world.create(slow);
    world.run(290);
    let polls = world.polls_of("x");
    assert!((5..=6).contains(&polls.len()), "{polls:?}");
}

#[test]
fn after_success_no_other_job_status_is_shown() {
    for contradiction in [running(), fail(), init(), not_found(), unrecognized("GONE")] {
        let mut world = world_with(success_without_image());
        world.reports("x", contradiction);
        world.run(200);
        let job_statuses: Vec<_> = world
            .writes
            .iter()
            .map(|w| w.status.status.as_deref())
            .collect();
        assert_eq!(job_statuses, [Some("SUCCESS"); 2]);
    }
    let mut world = world_with(success_without_image());
    world.reports("x", fail());
    world.run(200);
    assert_eq!(world.census().counters.contradictions, 5);
}

#[test]
fn init_after_running_is_counted_and_not_shown() {
    let mut world = world_with(running());
    world.reports("x", init());
    world.run(100);
    assert_eq!((world.reason("x"), world.writes.len()), ("JobRunning", 1));
    assert!(world.census().counters.contradictions >= 3);
}

#[test]
fn the_latest_configuration_error_replaces_the_one_before() {
    let mut world = world_with(misconfigured(ConfigurationReason::AccessDenied));
    for reason in [
        ConfigurationReason::EndpointInvalid,
        ConfigurationReason::RequestRejected,
        ConfigurationReason::CredentialsInvalid,
        ConfigurationReason::AccessDenied,
    ] {
        world.reports("x", misconfigured(reason));
        world.run(301);
        assert_eq!(world.reason("x"), format!("{reason:?}"));
    }
}

#[test]
fn a_configuration_error_ends_only_when_an_outcome_disproves_it() {
    use ConfigurationReason::{AccessDenied, CredentialsInvalid, EndpointInvalid};
    for (error, failure, ends) in [
        // The query failed after the login: the login was accepted.
        (CredentialsInvalid, unavailable(), true),
        (CredentialsInvalid, time_out(), true),
        // The host answered, and not with a 403.
        (AccessDenied, unavailable(), true),
        (AccessDenied, time_out(), false),
        (EndpointInvalid, time_out(), false),
        (AccessDenied, throttled(None), false),
    ] {
        let mut world = world_with(misconfigured(error));
        world.reports("x", failure.clone());
        world.run(310);
        let stays = world.reason("x") == format!("{error:?}");
        assert_eq!(
            stays,
            !ends,
            "{error:?}, then {failure:?}: {}",
            world.reason("x")
        );
        if ends {
            assert_eq!(
                world.reason("x"),
                "Pending",
                "the next weaker phase is shown"
            );
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
    assert_eq!(world.polls.len(), 1, "a spec change causes no poll");
}

#[test]
fn a_finished_object_acknowledges_a_spec_change_without_a_poll() {
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
fn only_other_credentials_end_access_denied_and_job_not_found() {
    let denied = misconfigured(ConfigurationReason::AccessDenied);
    for (evidence, wait, reason) in [
        (denied, 5, "AccessDenied"),
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
            assert_eq!(
                world.reason("x"),
                "Pending",
                "the phase where no other holds"
            );
        }
        world.reports("x", running());
        world.run(10);
        assert_eq!(
            world.reason("x"),
            "JobRunning",
            "polled at once with the new credentials"
        );
    }
}

#[test]
fn suspended_ends_when_the_spec_no_longer_suspends() {
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
fn start_time_is_the_first_plausible_begin_time() {
    let at = |second: i64| {
        let time = jiff::Timestamp::from_second(second).expect("within range");
        answer_with(JobState::Running, move |a| a.begin_time = Some(time))
    };
    let now = super::samples::beginning().as_second();
    let shown = |world: &World| {
        world
            .status("x")
            .start_time
            .as_ref()
            .map(|t| t.0.as_second())
    };
    for implausible in [0, 1_262_303_999, now + 3600] {
        assert_eq!(shown(&world_with(at(implausible))), None, "{implausible}");
    }
    for plausible in [1_262_304_000, now, now + 299] {
        let mut world = world_with(at(plausible));
        world.reports("x", at(now - 100));
        world.run(40);
        assert_eq!(
            shown(&world),
            Some(plausible),
            "an earlier time reported later changes nothing"
        );
    }
}

#[test]
fn an_undisturbed_job_is_written_three_times() {
    let mut world = World::new();
    world.reports_from(secs(0), "x", init());
    world.reports_from(secs(100), "x", running());
    world.reports_from(secs(1000), "x", success());
    world.create(object("x"));
    world.run(3600);
    let reasons = world.reasons_shown();
    assert_eq!(reasons, ["JobInitializing", "JobRunning", "JobSucceeded"]);
    assert_eq!((world.writes.len(), world.fetches.len()), (3, 0));
}

#[test]
fn a_hundred_identical_polls_write_nothing() {
    for (evidence, reason) in [
        (init(), "JobInitializing"),
        (running(), "JobRunning"),
        (unavailable(), "PollFailed"),
        (throttled(None), "PollOverdue"),
        (
            misconfigured(ConfigurationReason::AccessDenied),
            "AccessDenied",
        ),
        (unrecognized("PARTIAL_FAIL"), "JobStatusUnrecognized"),
        (not_found(), "JobNotFound"),
    ] {
        let mut world = world_with(evidence);
        // Long enough to reach the phase, and to pass each grace period.
        world.run(2000);
        let (written, polls) = (world.writes.len(), world.polls.len());
        while world.polls.len() < polls + 100 {
            world.run(60);
        }
        assert_eq!(world.reason("x"), reason);
        assert_eq!(world.writes.len(), written, "{reason}");
    }
}

#[test]
fn init_after_running_is_not_shown_even_if_an_unknown_status_came_between() {
    let mut world = world_with(running());
    world.reports("x", unrecognized("ODD"));
    world.run(31);
    assert_eq!(world.reason("x"), "JobStatusUnrecognized");
    world.reports("x", init());
    world.run(31);
    assert_eq!(world.reason("x"), "JobRunning");
    assert_eq!(world.status("x").status.as_deref(), Some("RUNNING"));
    assert_eq!(world.census().counters.contradictions, 1);
}

#[test]
fn a_job_does_not_end_before_it_begins() {
    let begin = beginning() - jiff::SignedDuration::from_mins(5);
    for state in [JobState::Success, JobState::Fail] {
        for early in [true, false] {
            let end = begin + jiff::SignedDuration::from_mins(if early { -1 } else { 1 });
            let mut world = world_with(answer_with(state.clone(), |answer| {
                answer.begin_time = Some(begin);
                answer.end_time = Some(end);
                answer.image_id = Some("image-1".into());
            }));
            world.run(60);
            let status = world.status("x");
            let completed = status.completion_time.as_ref().expect("ended").0;
            assert_eq!(completed, end.max(begin), "{state:?}");
            assert_eq!(status.start_time.as_ref().expect("begun").0, begin);
        }
    }
}

#[test]
fn what_was_consecutive_before_a_gap_is_not_counted_after_it() {
    type Gap = fn(&mut World);
    let gaps: [Gap; 3] = [
        |world| {
            world.change("x", |x| x.spec.suspend = true);
            world.run(3600);
            world.change("x", |x| x.spec.suspend = false);
        },
        |world| {
            world.feed(crate::Input::Leading(false));
            world.run(3600);
            world.feed(crate::Input::Leading(true));
        },
        // The process sleeps.
        |world| world.now += secs(3600),
    ];
    for gap in gaps {
        for (report, polls) in [(throttled(None), 1), (unavailable(), 2), (not_found(), 4)] {
            let mut world = world_with(running());
            world.reports("x", report.clone());
            while world.polls.len() < 1 + polls {
                world.run(1);
            }
            world.run(1);
            let before = world.status("x").clone();
            gap(&mut world);
            let sent = world.polls.len();
            while world.polls.len() == sent {
                world.run(1);
            }
            world.run(1);
            let stalled = condition(world.status("x"), types::STALLED);
            assert!(stalled.is_none(), "{report:?}");
            assert_ne!(world.reason("x"), "PollFailed", "{report:?}");
            assert_eq!(world.status("x").status, before.status);
        }
    }
}
