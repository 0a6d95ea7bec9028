//! What a new process makes of the statuses that an old one left.

use super::{
    oracle::condition,
    samples::{
        fail, init, key, not_found, object, refused, running, secret_missing, secs, success,
        success_without_image, unavailable, word,
    },
    world::World,
};
use crate::phase::Phase;
use image_export_api::{ImageExportJob, ImageExportJobStatus, conditions::types};
use image_export_model::{ConfigurationError, ConfigurationReason, Observation, Outcome};

/// A world with objects in many rows, after some time.
fn many_rows() -> World {
    let mut world = World::new();
    world.check_decisions = false;
    let says: [(&str, Observation); 9] = [
        ("init", init()),
        ("running", running()),
        ("success", success()),
        ("fail", fail()),
        ("missing", success_without_image()),
        ("odd", word("ODD")),
        ("unknown", not_found()),
        ("denied", refused(ConfigurationReason::AccessDenied)),
        ("down", unavailable()),
    ];
    for (name, says) in says {
        world.says(name, says);
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
    let mut world = many_rows();
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
fn a_restart_asks_nothing_about_finished_objects() {
    let mut world = many_rows();
    world.restart();
    world.polls.clear();
    world.run(10_000);
    for name in ["success", "fail", "missing", "suspended"] {
        assert_eq!(world.polls_of(name).len(), 0, "{name}");
    }
    assert!(!world.polls_of("running").is_empty());
}

#[test]
fn a_restart_is_no_burst() {
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
fn runs_of_failures_and_404s_start_anew() {
    let mut world = World::new();
    world.says("x", running());
    world.says("y", not_found());
    world.create_all(["x", "y"]);
    world.run(200);
    world.says("x", unavailable());
    world.run(115);
    world.restart();
    world.run(100);
    assert_eq!(world.reason("x"), "JobRunning");
    assert!(condition(world.status("y"), types::STALLED).is_none());
}

#[test]
fn a_row_is_kept_until_an_outcome_of_this_run_selects_another() {
    let mut world = many_rows();
    world.says("unknown", unavailable());
    world.says("down", super::samples::throttled(None));
    world.says("denied", super::samples::time_out());
    world.restart();
    let writes = world.writes.len();
    world.run(600);
    assert_eq!(world.writes.len(), writes);
    world.says("unknown", running());
    world.says("down", running());
    world.says("denied", running());
    world.run(400);
    for name in ["unknown", "down", "denied"] {
        assert_eq!(world.reason(name), "JobRunning");
    }
}

#[test]
fn what_was_mended_while_the_operator_was_away_is_tried_at_once() {
    let mut world = many_rows();
    world.says("denied", running());
    world.secrets.insert("lost".into(), Ok(1));
    world.restart();
    world.run(5);
    assert_eq!(
        (world.reason("denied"), world.reason("lost")),
        ("JobRunning", "JobRunning")
    );
}

#[test]
fn a_spec_that_changed_while_the_operator_was_away_is_acknowledged_without_a_poll() {
    let mut world = many_rows();
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
fn a_crash_after_the_final_poll_and_before_the_write_invents_nothing() {
    let mut world = World::new();
    world.create(object("x"));
    world.run(5);
    world.held.writes = true;
    world.says("x", success());
    world.run(40);
    assert_eq!(world.open_writes.len(), 1);
    // The write is lost with the process, and the cloud forgets the job.
    world.held.writes = false;
    world.says("x", not_found());
    world.restart();
    world.run(1000);
    assert_eq!(world.reason("x"), "JobNotFound");
    assert_eq!(world.status("x").image_id, None);
}

#[test]
fn a_crash_after_the_write_landed_writes_nothing_more() {
    let mut world = World::new();
    world.says("x", success());
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

// Statuses that do not add up.

/// A status that says SUCCESS or FAIL, as written, then edited while no operator ran.
fn left_behind(end: Observation, edit: fn(&mut ImageExportJobStatus)) -> World {
    let mut first = World::new();
    first.says("x", end);
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
    world.oracle.edited("uid-1");
    world
}

type Edit = fn(&mut ImageExportJobStatus);

const DOUBTFUL: [(&str, Edit); 5] = [
    ("a condition of ours is missing", |s| {
        s.conditions.remove(0);
    }),
    ("a condition contradicts", |s| {
        s.conditions[0].status = "Unknown".into();
    }),
    ("a condition too many", |s| {
        s.conditions
            .push(super::repair::foreign(types::RECONCILING));
    }),
    ("generations differ", |s| {
        s.conditions[0].observed_generation = Some(77);
    }),
    ("the other end", |s| {
        let other = if s.status.as_deref() == Some("FAIL") {
            "SUCCESS"
        } else {
            "FAIL"
        };
        s.status = Some(other.into());
    }),
];

#[test]
fn a_doubtful_end_is_asked_once_and_the_answer_is_the_truth() {
    for (what, edit) in DOUBTFUL {
        for (truth, reason) in [(success(), "JobSucceeded"), (fail(), "JobFailed")] {
            for end in [success(), fail()] {
                let mut world = left_behind(end, edit);
                world.says("x", truth.clone());
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
            "{what}: it had not ended at all"
        );
    }
}

#[test]
fn a_doubtful_end_that_the_cloud_has_forgotten_is_left_alone() {
    for (what, edit) in DOUBTFUL {
        let mut world = left_behind(success(), edit);
        let before = world.status("x").clone();
        world.says("x", not_found());
        world.run(10_000);
        assert_eq!(world.status("x"), &before, "{what}");
        assert_eq!(
            (world.polls.len(), world.writes.len(), world.reads.len()),
            (1, 0, 1),
            "{what}"
        );
    }
}

#[test]
fn a_doubtful_end_is_asked_again_after_a_failure() {
    for trouble in [
        unavailable(),
        super::samples::throttled(None),
        refused(ConfigurationReason::AccessDenied),
    ] {
        let mut world = left_behind(success(), DOUBTFUL[0].1);
        let before = world.status("x").clone();
        world.says("x", trouble);
        world.run(2000);
        assert_eq!(
            world.status("x"),
            &before,
            "trouble says nothing about the end"
        );
        world.says("x", success());
        world.run(302);
        assert_eq!((world.reason("x"), world.writes.len()), ("JobSucceeded", 1));
        let polls = world.polls.len();
        world.run(1000);
        assert_eq!(world.polls.len(), polls);
    }
}

#[test]
fn an_end_that_only_the_fields_or_only_the_conditions_claim_is_none() {
    let claims: [(&str, Observation, Edit); 3] = [
        ("fields", running(), |s| {
            s.status = Some("SUCCESS".into());
            s.image_id = Some("made-up".into());
        }),
        ("conditions", success(), |s| {
            s.status = Some("RUNNING".into());
        }),
        ("no completion", success(), |s| s.completion_time = None),
    ];
    for (what, end, edit) in claims {
        let mut world = left_behind(end, edit);
        world.run(5);
        assert_eq!(world.polls.len(), 1, "{what}");
        assert_eq!(world.reason("x"), "JobRunning", "{what}");
        assert_eq!(world.status("x").image_id, None, "{what}");
    }
}

/// What brings the object `x` into a phase.
type Situation = fn(&mut World);

#[test]
fn a_reworded_message_causes_no_write_and_no_poll() {
    let reworded =
        "What an older version used to say about job-x: mend this, ims.example.com answered 503";
    let phases: [(&str, Situation); 19] = [
        ("Pending", |w| w.poll_time = secs(100_000)),
        ("CredentialsNotFound", |w| {
            w.secrets.insert("otc".into(), Err(secret_missing()));
        }),
        ("CredentialsInvalid", |w| {
            w.says("x", refused(ConfigurationReason::CredentialsInvalid));
        }),
        ("AccessDenied", |w| {
            w.says("x", refused(ConfigurationReason::AccessDenied));
        }),
        ("EndpointInvalid", |w| {
            w.says("x", refused(ConfigurationReason::EndpointInvalid));
        }),
        ("EndpointNotAllowed", |w| {
            w.says("x", refused(ConfigurationReason::EndpointNotAllowed));
        }),
        ("RequestRejected", |w| {
            w.says("x", refused(ConfigurationReason::RequestRejected));
        }),
        ("JobInitializing", |w| w.says("x", init())),
        ("JobRunning", |_| {}),
        ("PollFailed", |w| w.says("x", unavailable())),
        ("DeadlineExceeded", |w| {
            w.run(1);
            w.change("x", |x| x.spec.deadline_seconds = Some(10));
        }),
        ("DeadlineExceeded", |w| {
            w.says("x", refused(ConfigurationReason::AccessDenied));
            w.run(1);
            w.change("x", |x| x.spec.deadline_seconds = Some(10));
        }),
        ("JobSucceeded", |w| w.says("x", success())),
        ("ImageIDPending", |w| w.says("x", success_without_image())),
        ("ImageIDMissing", |w| w.says("x", success_without_image())),
        ("JobFailed", |w| w.says("x", fail())),
        ("JobStatusUnrecognized", |w| w.says("x", word("ODD"))),
        ("JobNotFound", |w| w.says("x", not_found())),
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
        // As an older version with other sentences would have left it. A sentence of `Ready` that has a
        // detail differs from that of `Succeeded`, in this version as in any.
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
fn a_stored_message_is_replaced_where_the_cause_is_another() {
    let mut world = World::new();
    world.says("x", refused(ConfigurationReason::AccessDenied));
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
    world.says("x", answer);
    world.run(600);
    assert_eq!(
        world.status("x").conditions[0].message,
        "Job job-x cannot be queried: another role is missing."
    );
}

#[test]
fn foreign_conditions_survive_a_restart() {
    let mut world = many_rows();
    world.edit("success", |s| {
        s.conditions.push(super::repair::foreign("Approved"));
    });
    world.run(1);
    let before = world.status("success").clone();
    let writes = world.writes.len();
    world.restart();
    world.run(100);
    assert_eq!(world.status("success"), &before);
    assert_eq!(world.writes.len(), writes);
}
