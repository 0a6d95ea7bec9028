//! What a new process does with the statuses that an earlier one wrote.

use super::{
    invariants::condition,
    samples::{
        fail, init, key, misconfigured, not_found, object, running, secret_missing, secs, success,
        success_without_image, unavailable, unrecognized,
    },
    world::World,
};
use crate::phase::Phase;
use image_export_api::{ImageExportJob, ImageExportJobStatus, conditions::types};
use image_export_model::{ConfigurationError, ConfigurationReason, Observation, Outcome};
use std::time::Duration;

/// A world with objects in many phases, after some time.
fn many_phases() -> World {
    let mut world = World::new();
    world.check_decisions = false;
    let reports: [(&str, Observation); 9] = [
        ("init", init()),
        ("running", running()),
        ("success", success()),
        ("fail", fail()),
        ("missing", success_without_image()),
        ("odd", unrecognized("ODD")),
        ("unknown", not_found()),
        ("denied", misconfigured(ConfigurationReason::AccessDenied)),
        ("down", unavailable()),
    ];
    for (name, report) in reports {
        world.reports(name, report);
        world.create(object(name));
    }
    world.secrets.insert("lost".into(), Err(secret_missing()));
    world.create(super::samples::object_of("lost", "lost", "project"));
    let mut suspended = object("suspended");
    suspended.spec.suspend = true;
    world.create(suspended);
    world.run(1000);
    world
}

#[test]
fn a_restart_changes_no_status() {
    let mut world = many_phases();
    let before = world.objects.clone();
    let (writes, events) = (world.writes.len(), world.events.len());
    for _ in 0..3 {
        world.restart();
        world.run(400);
    }
    for (key, object) in &before {
        assert_eq!(&world.objects[key].status, &object.status, "{key}");
    }
    assert_eq!((world.writes.len(), world.events.len()), (writes, events));
}

#[test]
fn a_restart_polls_no_finished_or_suspended_object() {
    let mut world = many_phases();
    world.restart();
    world.polls.clear();
    world.run(10_000);
    for name in ["success", "fail", "missing", "suspended"] {
        assert_eq!(world.polls_of(name).len(), 0, "{name}");
    }
    assert!(!world.polls_of("running").is_empty());
}

#[test]
fn a_restart_causes_no_burst_of_polls() {
    let mut world = World::new();
    world.check_decisions = false;
    for n in 0..100 {
        world.create(object(&format!("x{n}")));
    }
    world.run(100);
    world.restart();
    world.polls.clear();
    let began = world.now;
    world.run(30);
    assert_eq!(world.polls.len(), 100);
    for second in 0..30 {
        let from = began + secs(second);
        let polls = world
            .polls
            .iter()
            .filter(|p| p.at >= from && p.at < from + secs(1))
            .count();
        assert!(polls <= 12, "{polls} in second {second}");
    }
}

#[test]
fn a_restart_resets_the_consecutive_failures_and_404s() {
    let mut world = World::new();
    world.reports("x", running());
    world.reports("y", not_found());
    world.create_all(["x", "y"]);
    world.run(200);
    world.reports("x", unavailable());
    world.run(115);
    world.restart();
    world.run(100);
    assert_eq!(world.reason("x"), "JobRunning");
    assert!(condition(world.status("y"), types::STALLED).is_none());
}

#[test]
fn a_restart_keeps_the_phase_until_an_outcome_selects_another() {
    let mut world = many_phases();
    world.reports("unknown", unavailable());
    world.reports("down", super::samples::throttled(None));
    world.reports("denied", super::samples::time_out());
    world.restart();
    let writes = world.writes.len();
    world.run(600);
    assert_eq!(world.writes.len(), writes);
    world.reports("unknown", running());
    world.reports("down", running());
    world.reports("denied", running());
    world.run(400);
    for name in ["unknown", "down", "denied"] {
        assert_eq!(world.reason(name), "JobRunning");
    }
}

#[test]
fn a_secret_fixed_while_no_operator_ran_is_noticed_at_once_and_any_other_fix_with_the_next_poll() {
    let mut world = many_phases();
    world.reports("denied", running());
    world.secrets.insert("lost".into(), Ok(1));
    world.restart();
    world.run(5);
    assert_eq!(world.reason("lost"), "JobRunning");
    world.run(300);
    assert_eq!(world.reason("denied"), "JobRunning");
}

#[test]
fn objects_in_trouble_are_no_burst_after_a_restart() {
    let longest_gap = |world: &World, from: Duration| {
        let gap = |n: usize| {
            let mut polls = world.polls_of(&format!("well-{n}"));
            polls.retain(|at| *at >= from);
            let gaps = polls.windows(2).map(|pair| pair[1] - pair[0]);
            gaps.max().expect("polled")
        };
        (0..100).map(gap).max().expect("some")
    };
    let mut world = World::new();
    world.check_decisions = false;
    for n in 0..2000 {
        let name = format!("rejected-{n}");
        world.reports(&name, misconfigured(ConfigurationReason::RequestRejected));
        world.create(object(&name));
    }
    for n in 0..100 {
        world.create(object(&format!("well-{n}")));
    }
    world.run(1200);
    let steady = longest_gap(&world, world.now - secs(600));
    let from = world.now - secs(60);
    world.restart();
    world.run(600);
    let after = longest_gap(&world, from);
    assert!(after < steady + secs(10), "{steady:?}, then {after:?}");
}

#[test]
fn a_spec_changed_while_no_operator_ran_is_acknowledged_without_a_poll() {
    let mut world = many_phases();
    world.held.watch = true;
    world.change("success", |x| x.spec.suspend = true);
    world.change("suspended", |x| x.spec.suspend = false);
    world.held.watch = false;
    world.restart();
    world.polls.clear();
    world.run(3);
    assert_eq!(world.status("success").observed_generation, Some(2));
    assert_eq!(world.polls_of("success").len(), 0);
    assert_ne!(world.reason("suspended"), "Suspended");
    assert_eq!(world.status("suspended").observed_generation, Some(2));
}

#[test]
fn a_crash_between_the_final_poll_and_its_write_shows_no_end() {
    let mut world = World::new();
    world.create(object("x"));
    world.run(5);
    world.held.writes = true;
    world.reports("x", success());
    world.run(40);
    assert_eq!(world.open_writes.len(), 1);
    // The write is lost with the process, and the cloud no longer finds the job.
    world.held.writes = false;
    world.reports("x", not_found());
    world.restart();
    world.run(1000);
    assert_eq!(world.reason("x"), "JobNotFound");
    assert_eq!(world.status("x").image_id, None);
}

#[test]
fn a_crash_after_the_write_landed_causes_no_write() {
    let mut world = World::new();
    world.reports("x", success());
    world.held.writes = true;
    world.create(object("x"));
    world.run(1);
    let write = world.take_write();
    world.land(&write);
    world.restart();
    world.run(600);
    assert!(world.open_writes.is_empty());
    assert_eq!(world.polls.len(), 1);
}

// Statuses that are not consistent.

/// A world with the object `x`, whose status was written at this state of its job, then edited while no
/// operator ran.
fn left_behind(report: Observation, edit: fn(&mut ImageExportJobStatus)) -> World {
    let mut first = World::new();
    first.reports("x", report);
    first.create(object("x"));
    first.run(100);
    let mut object = ImageExportJob::new("x", first.stored("x").spec.clone());
    object
        .metadata
        .namespace
        .clone_from(&first.stored("x").metadata.namespace);
    let mut status = first.status("x").clone();
    edit(&mut status);
    object.status = Some(status);
    let mut world = World::new();
    world.create(object);
    world.invariants.edited("uid-1");
    world
}

type Edit = fn(&mut ImageExportJobStatus);

const INCONSISTENT: [(&str, Edit); 5] = [
    ("a condition of ours is missing", |s| {
        s.conditions.remove(0);
    }),
    ("a condition contradicts", |s| {
        s.conditions[0].status = "Unknown".into();
    }),
    ("an extra condition", |s| {
        s.conditions
            .push(super::repair::unowned_condition(types::RECONCILING));
    }),
    ("generations differ", |s| {
        s.conditions[0].observed_generation = Some(77);
    }),
    ("the job status of the other end", |s| {
        let other = if s.status.as_deref() == Some("FAIL") {
            "SUCCESS"
        } else {
            "FAIL"
        };
        s.status = Some(other.into());
    }),
];

#[test]
fn an_untrusted_end_is_polled_once_and_replaced_by_the_answer() {
    for (what, edit) in INCONSISTENT {
        for (truth, reason) in [(success(), "JobSucceeded"), (fail(), "JobFailed")] {
            for end in [success(), fail()] {
                let mut world = left_behind(end, edit);
                world.reports("x", truth.clone());
                world.run(600);
                assert_eq!(world.reason("x"), reason, "{what}");
                assert_eq!((world.polls.len(), world.writes.len()), (1, 1), "{what}");
            }
        }
        let mut world = left_behind(success(), edit);
        world.run(100);
        assert_eq!(
            world.reason("x"),
            "JobRunning",
            "{what}: the job has not ended"
        );
    }
}

#[test]
fn an_untrusted_end_is_believed_when_the_cloud_no_longer_finds_the_job() {
    for end in [success(), fail(), success_without_image()] {
        for (what, edit) in INCONSISTENT {
            let mut world = left_behind(end.clone(), edit);
            let before = world.status("x").clone();
            world.reports("x", not_found());
            world.run(290);
            assert_eq!(world.status("x"), &before, "{what}: a 404 may pass");
            world.run(10_000);
            let after = world.status("x");
            if what == "the job status of the other end" {
                // Its fields and its conditions show different ends.
                assert_eq!((after, world.writes.len()), (&before, 0));
                continue;
            }
            let polls = world.polls.len();
            assert!((6..=7).contains(&polls), "{what}: {polls}");
            assert_eq!(world.writes.len(), 1, "{what}");
            assert_eq!(after.status, before.status);
            assert_eq!(after.image_id, before.image_id);
            assert_eq!(after.fail_reason, before.fail_reason);
            assert_eq!(after.completion_time, before.completion_time);
            // From now on it is finished like any other.
            world.change("x", |x| x.spec.suspend = true);
            world.restart();
            world.run(1000);
            assert_eq!(world.status("x").observed_generation, Some(2), "{what}");
            assert_eq!(world.polls.len(), polls, "{what}");
        }
    }
}

#[test]
fn a_passing_404_does_not_end_the_polls_of_an_untrusted_end() {
    let mut world = left_behind(success(), INCONSISTENT[0].1);
    world.reports("x", not_found());
    world.run(100);
    world.reports("x", fail());
    world.run(61);
    assert_eq!(world.reason("x"), "JobFailed");
}

#[test]
fn an_untrusted_end_is_polled_again_after_a_failure() {
    for failure in [
        unavailable(),
        super::samples::throttled(None),
        misconfigured(ConfigurationReason::AccessDenied),
    ] {
        let mut world = left_behind(success(), INCONSISTENT[0].1);
        let before = world.status("x").clone();
        world.reports("x", failure);
        world.run(2000);
        assert_eq!(
            world.status("x"),
            &before,
            "a failure shows nothing about the end"
        );
        world.reports("x", success());
        world.run(302);
        assert_eq!((world.reason("x"), world.writes.len()), ("JobSucceeded", 1));
        let polls = world.polls.len();
        world.run(1000);
        assert_eq!(world.polls.len(), polls);
    }
}

#[test]
fn an_end_in_the_fields_alone_or_in_the_conditions_alone_is_replaced() {
    let ends: [(&str, Observation, Edit); 3] = [
        ("fields", running(), |s| {
            s.status = Some("SUCCESS".into());
            s.image_id = Some("made-up".into());
        }),
        ("conditions", success(), |s| {
            s.status = Some("RUNNING".into());
        }),
        ("no completion", success(), |s| s.completion_time = None),
    ];
    for (what, report, edit) in ends {
        let mut world = left_behind(report, edit);
        world.run(5);
        assert_eq!(world.polls.len(), 1, "{what}");
        assert_eq!(world.reason("x"), "JobRunning", "{what}");
        assert_eq!(world.status("x").image_id, None, "{what}");
    }
}

/// Brings the object `x` into a phase.
type Situation = fn(&mut World);

#[test]
fn a_reworded_message_causes_no_write_and_no_poll() {
    let reworded =
        "What an older version used to say about job-x: fix this, ims.example.com answered 503";
    let phases: [(&str, Situation); 19] = [
        ("Pending", |w| w.poll_time = secs(100_000)),
        ("CredentialsNotFound", |w| {
            w.secrets.insert("otc".into(), Err(secret_missing()));
        }),
        ("CredentialsInvalid", |w| {
            w.reports("x", misconfigured(ConfigurationReason::CredentialsInvalid));
        }),
        ("AccessDenied", |w| {
            w.reports("x", misconfigured(ConfigurationReason::AccessDenied));
        }),
        ("EndpointInvalid", |w| {
            w.reports("x", misconfigured(ConfigurationReason::EndpointInvalid));
        }),
        ("EndpointNotAllowed", |w| {
            w.reports("x", misconfigured(ConfigurationReason::EndpointNotAllowed));
        }),
        ("RequestRejected", |w| {
            w.reports("x", misconfigured(ConfigurationReason::RequestRejected));
        }),
        ("JobInitializing", |w| w.reports("x", init())),
        ("JobRunning", |_| {}),
        ("PollFailed", |w| w.reports("x", unavailable())),
        ("DeadlineExceeded", |w| {
            w.run(1);
            w.change("x", |x| x.spec.deadline_seconds = Some(10));
        }),
        ("DeadlineExceeded", |w| {
            w.reports("x", misconfigured(ConfigurationReason::AccessDenied));
            w.run(1);
            w.change("x", |x| x.spec.deadline_seconds = Some(10));
        }),
        ("JobSucceeded", |w| w.reports("x", success())),
        ("ImageIDPending", |w| {
            w.reports("x", success_without_image());
        }),
        ("ImageIDMissing", |w| {
            w.reports("x", success_without_image());
        }),
        ("JobFailed", |w| w.reports("x", fail())),
        ("JobStatusUnrecognized", |w| {
            w.reports("x", unrecognized("ODD"));
        }),
        ("JobNotFound", |w| w.reports("x", not_found())),
        ("Suspended", |w| w.change("x", |x| x.spec.suspend = true)),
    ];
    for (phase, situation) in phases {
        let mut world = World::new();
        world.create(object("x"));
        situation(&mut world);
        world.run(match phase {
            "ImageIDPending" => 20,
            "PollFailed" => 400,
            "JobNotFound" => 700,
            _ => 70,
        });
        assert_eq!(world.reason("x"), phase);
        // An older version with other messages would have left the status so. Where the message of `Ready`
        // has a detail, it differs from that of `Succeeded`, in each version.
        let mut object = world.stored("x").clone();
        let status = object.status.as_mut().expect("written");
        let has_detail = status.conditions[0].message != status.conditions[1].message;
        for (n, condition) in status.conditions.iter_mut().enumerate() {
            let plain = has_detail && n == 1;
            condition.message = if plain { "job-x, otherwise" } else { reworded }.to_owned();
        }
        world.objects.insert(key("x"), object.clone());
        let (polls, writes) = (world.polls.len(), world.writes.len());
        world.restart();
        world.run(if phase == "ImageIDPending" { 40 } else { 3600 });
        assert_eq!(world.stored("x"), &object, "{phase}");
        assert_eq!(world.writes.len(), writes, "{phase}");
        let phase = Phase::from_reason(phase, false).expect("a phase");
        if phase.is_finished() {
            assert_eq!(world.polls.len(), polls, "{phase:?}");
        }
    }
}

#[test]
fn a_stored_message_is_replaced_when_the_cause_changes() {
    let mut world = World::new();
    world.reports("x", misconfigured(ConfigurationReason::AccessDenied));
    world.create(object("x"));
    world.run(5);
    world.restart();
    let error = ConfigurationError {
        reason: ConfigurationReason::AccessDenied,
        message: "another role is missing".into(),
    };
    let answer = Observation {
        outcome: Outcome::Misconfigured(error),
        ..running()
    };
    world.reports("x", answer);
    world.run(600);
    assert_eq!(
        world.status("x").conditions[0].message,
        "Job job-x cannot be queried: another role is missing."
    );
}

#[test]
fn conditions_owned_by_others_survive_a_restart() {
    let mut world = many_phases();
    world.edit("success", |s| {
        s.conditions
            .push(super::repair::unowned_condition("Approved"));
    });
    world.run(1);
    let before = world.status("success").clone();
    let writes = world.writes.len();
    world.restart();
    world.run(100);
    assert_eq!(world.status("success"), &before);
    assert_eq!(world.writes.len(), writes);
}

#[test]
fn trouble_before_a_restart_does_not_outlast_a_long_period() {
    for reason in [
        ConfigurationReason::RequestRejected,
        ConfigurationReason::AccessDenied,
        ConfigurationReason::EndpointInvalid,
    ] {
        let mut world = World::new();
        world.reports("x", misconfigured(reason));
        let mut rare = object("x");
        rare.spec.poll_period_seconds = Some(86_400);
        world.create(rare);
        world.run(60);
        world.reports("x", running());
        world.restart();
        world.run(301);
        assert_eq!(world.reason("x"), "JobRunning", "{reason:?}");
    }
}
