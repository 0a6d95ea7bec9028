//! Statuses that others changed: hand edits, conditions owned by others, an older CRD.

use super::{
    invariants::condition,
    samples::{object, secs, success},
    world::World,
};
use image_export_api::{
    ImageExportJobStatus,
    conditions::{Condition, types},
};

/// A condition that others wrote.
pub fn unowned_condition(type_: &str) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: "True".into(),
        observed_generation: None,
        last_transition_time: "2024-02-29T12:00:00.123456Z".into(),
        reason: "Somebody".into(),
        message: String::new(),
    }
}

/// A world with the object `x`, whose job has ended or runs, and whose status is written.
fn world_at_rest(ended: bool) -> World {
    world_polled(ended, 3600)
}

/// The same with an object that is polled once a period.
fn world_polled(ended: bool, period: i32) -> World {
    let mut world = World::new();
    if ended {
        world.reports("x", success());
    }
    let mut object = object("x");
    object.spec.poll_period_seconds = Some(period);
    world.create(object);
    world.run(5);
    world
}

type Edit = fn(&mut ImageExportJobStatus);

const EDITS: [(&str, Edit); 8] = [
    ("a field changed", |s| s.status = Some("FAIL".into())),
    ("a field added", |s| s.fail_reason = Some("because".into())),
    ("a field removed", |s| s.job_type = None),
    ("the generation changed", |s| {
        s.observed_generation = Some(7);
    }),
    ("a condition of ours changed", |s| {
        s.conditions[0].status = "False".into();
    }),
    ("a condition of ours added", |s| {
        s.conditions.push(unowned_condition(types::STALLED));
    }),
    ("a condition of ours removed", |s| {
        s.conditions.remove(1);
    }),
    ("everything removed", |s| *s = super::samples::crd_default()),
];

#[test]
fn a_hand_edit_is_repaired_by_one_write_without_a_poll() {
    for ended in [false, true] {
        for (what, edit) in EDITS {
            let mut world = world_at_rest(ended);
            let before = world.status("x").clone();
            world.edit("x", edit);
            world.run(3);
            assert_eq!(world.status("x"), &before, "{what}: restored exactly");
            assert_eq!((world.writes.len(), world.polls.len()), (2, 1), "{what}");
            let events = usize::from(ended);
            assert_eq!(
                world.events.len(),
                events,
                "{what}: a repair publishes none"
            );
            assert_eq!(world.census().counters.repairs, 1, "{what}");
        }
    }
}

#[test]
fn an_edit_that_was_reverted_causes_no_write() {
    let mut world = world_at_rest(false);
    let before = world.status("x").clone();
    world.held.writes = true;
    world.write_time = std::time::Duration::from_secs(1);
    world.held.watch = true;
    world.edit("x", |s| s.status = None);
    world.edit("x", |s| s.clone_from(&before));
    let edited = world.open_watch.remove(0);
    let restored = world.open_watch.remove(0);
    world.see(edited);
    let write = world.take_write();
    assert!(matches!(world.land(&write), crate::WriteResult::Conflict));
    world.see(restored);
    world.reply(&write, crate::WriteResult::Conflict);
    world.run(20);
    assert!(world.open_writes.is_empty());
}

#[test]
fn conditions_owned_by_others_cause_no_write_and_are_kept() {
    for ended in [false, true] {
        let mut world = world_at_rest(ended);
        let unowned_conditions = |world: &World| -> Vec<Condition> {
            let ours = |c: &&Condition| !types::ALL.contains(&c.type_.as_str());
            world
                .status("x")
                .conditions
                .iter()
                .filter(ours)
                .cloned()
                .collect()
        };
        let (polls, writes) = (world.polls.len(), world.writes.len());
        world.edit("x", |s| s.conditions.push(unowned_condition("Approved")));
        world.run(1);
        world.edit("x", |s| {
            s.conditions.last_mut().expect("just added").message = "new".into();
        });
        world.run(1);
        world.edit("x", |s| {
            s.conditions.push(unowned_condition("example.com/Audited"));
        });
        world.run(1);
        world.edit("x", |s| {
            s.conditions.retain(|c| c.type_ != "Approved");
        });
        world.run(1);
        assert_eq!((world.polls.len(), world.writes.len()), (polls, writes));
        // The next write of the operator keeps them exactly.
        world.change("x", |x| x.spec.suspend = true);
        world.run(1);
        assert_eq!(world.writes.len(), writes + 1);
        assert_eq!(
            unowned_conditions(&world),
            [unowned_condition("example.com/Audited")]
        );
    }
}

#[test]
fn a_repair_keeps_the_conditions_owned_by_others() {
    let mut world = world_at_rest(false);
    world.edit("x", |s| {
        s.status = Some("SUCCESS".into());
        s.conditions.insert(0, unowned_condition("Approved"));
    });
    world.run(1);
    assert_eq!(world.status("x").status.as_deref(), Some("RUNNING"));
    assert!(condition(world.status("x"), "Approved").is_some());
    assert_eq!((world.writes.len(), world.polls.len()), (2, 1));
}

#[test]
fn an_unowned_condition_between_ours_causes_at_most_one_write() {
    let mut world = world_at_rest(false);
    world.edit("x", |s| {
        s.conditions.insert(1, unowned_condition("Approved"));
    });
    world.run(5);
    let writes = world.writes.len();
    assert!(writes <= 2, "at most one write, to restore the order");
    world.run(25);
    assert_eq!(world.writes.len(), writes);
    assert!(condition(world.status("x"), "Approved").is_some());
}

#[test]
fn a_status_that_an_older_crd_prunes_is_written_once() {
    let prunes: [fn(&mut ImageExportJobStatus); 4] = [
        |s| s.job_type = None,
        |s| {
            s.conditions
                .iter_mut()
                .for_each(|c| c.observed_generation = None);
        },
        |s| s.image_id = None,
        |s| *s = ImageExportJobStatus::default(),
    ];
    for ended in [false, true] {
        for prune in prunes {
            let mut world = World::new();
            world.prune = prune;
            if ended {
                world.reports("x", success());
            }
            world.create(object("x"));
            world.run(3600);
            world.touch("x");
            world.list();
            world.run(5);
            assert_eq!(world.writes.len(), 1);
            assert_eq!(world.events.len(), usize::from(ended));
        }
    }
}

#[test]
fn a_status_that_is_pruned_entirely_is_written_once() {
    let mut world = World::new();
    world.held.writes = true;
    world.create(object("x"));
    world.run(2);
    let write = world.take_write();
    world.change("x", |x| x.status = None);
    let version = world.version.to_string();
    world.reply(
        &write,
        crate::WriteResult::Written {
            version,
            status: None,
        },
    );
    world.run(20);
    assert!(
        world.open_writes.is_empty(),
        "writing it again would only loop"
    );
}

#[test]
fn the_order_of_conditions_and_those_of_others_are_theirs() {
    for ended in [false, true] {
        let mut world = world_at_rest(ended);
        let writes = world.writes.len();
        world.edit("x", |s| {
            s.conditions.insert(0, unowned_condition("Approved"));
        });
        world.run(1);
        // A controller that sorts the conditions after each change.
        for _ in 0..100 {
            world.edit("x", |s| {
                s.conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
                s.conditions.rotate_left(1);
            });
            world.run(1);
        }
        assert_eq!(world.writes.len(), writes, "ended: {ended}");
        assert_eq!(world.census().counters.repairs, 0);
        // An edit of ours among them is still repaired.
        world.edit("x", |s| s.job_type = None);
        world.run(1);
        assert_eq!(world.writes.len(), writes + 1);
    }
}

#[test]
fn an_end_among_conditions_of_others_is_trusted_after_a_restart() {
    let mut world = world_at_rest(true);
    world.edit("x", |s| {
        s.conditions.insert(0, unowned_condition("Approved"));
    });
    let before = world.status("x").clone();
    world.reports("x", super::samples::not_found());
    world.restart();
    world.run(600);
    assert_eq!(world.polls.len(), 1, "a finished job is not polled");
    assert_eq!(world.status("x"), &before);
    // What is noted in it later is written.
    world.change("x", |x| x.spec.suspend = true);
    world.run(1);
    assert_eq!(world.status("x").observed_generation, Some(2));
}

#[test]
fn conditions_of_others_never_make_a_status_too_long() {
    use image_export_api::conditions::CONDITIONS_MAX;
    for others in [30, CONDITIONS_MAX - 2, CONDITIONS_MAX] {
        let mut world = world_polled(false, 30);
        world.edit("x", |s| {
            s.conditions.truncate(CONDITIONS_MAX.saturating_sub(others));
            for n in 0..others {
                s.conditions
                    .insert(0, unowned_condition(&format!("Other{n}")));
            }
        });
        world.run(1);
        world.reports("x", success());
        world.run(60);
        let shown = &world.status("x").conditions;
        assert!(shown.len() <= CONDITIONS_MAX, "{others}: {}", shown.len());
        assert_eq!(world.reason("x"), "JobSucceeded");
        let kept = shown.iter().filter(|c| c.type_.starts_with("Other"));
        assert_eq!(kept.count(), others.min(CONDITIONS_MAX - types::ALL.len()));
        let writes = world.writes.len();
        world.run(600);
        assert_eq!(world.writes.len(), writes);
    }
}

#[test]
fn changes_by_others_are_no_edits_where_an_older_crd_prunes_a_field() {
    let mut world = World::new();
    world.prune = |s| s.job_type = None;
    world.create(object("x"));
    world.run(5);
    for _ in 0..20 {
        world.touch("x");
        world.edit("x", |s| s.conditions.rotate_left(1));
        world.edit("x", |s| {
            s.conditions.retain(|c| c.type_ != "Approved");
            s.conditions.insert(0, unowned_condition("Approved"));
        });
        world.run(5);
    }
    assert_eq!(world.writes.len(), 1);
    world.edit("x", |s| s.status = Some("SUCCESS".into()));
    world.run(1);
    assert_eq!(world.status("x").status.as_deref(), Some("RUNNING"));
    assert_eq!(world.writes.len(), 2);
}

#[test]
fn somebody_who_insists_on_another_status_is_answered_ever_more_slowly() {
    let mut world = world_polled(false, 30);
    let edit: fn(&mut ImageExportJobStatus) = |s| s.status = Some("SUCCESS".into());
    let began = world.now;
    while world.now < began + secs(600) {
        if world.status("x").status.as_deref() == Some("RUNNING") {
            world.edit("x", edit);
        }
        world.run_until(world.now + super::samples::millis(20));
    }
    // 5 at once, then after 1, 2, 4 … 60 s.
    let repairs = world.writes.len() - 1;
    assert!((15..=25).contains(&repairs), "{repairs}");
    // What the cloud reports is written at once all the same.
    world.reports("x", super::samples::fail());
    world.run(31);
    assert_eq!(world.reason("x"), "JobFailed");
    // After a while without an edit, the next one is repaired at once.
    world.run(130);
    world.edit("x", edit);
    world.run(1);
    assert_eq!(world.status("x").status.as_deref(), Some("FAIL"));
}

#[test]
fn a_lost_reply_is_no_edit_where_an_older_crd_prunes_a_field() {
    let mut world = World::new();
    world.prune = |s| s.job_type = None;
    world.reports_from(secs(40), "x", success());
    let mut writes = 0;
    world.fate = Box::new(move |_| {
        writes += 1;
        if writes == 2 {
            super::world::Fate::LandsWithoutReply
        } else {
            super::world::Fate::Lands
        }
    });
    world.create(object("x"));
    world.run(600);
    assert_eq!(world.reason("x"), "JobSucceeded");
    assert_eq!(world.writes.len(), 3, "RUNNING, SUCCESS, and once more");
    let turned = |n: usize| {
        world.writes[n].status.conditions[1]
            .last_transition_time
            .clone()
    };
    assert_eq!(turned(1), turned(2));
    assert_eq!(world.census().counters.repairs, 0);
    assert_eq!(world.reasons_of_events(), ["JobSucceeded"]);
}
