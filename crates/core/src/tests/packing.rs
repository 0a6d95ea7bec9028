//! Objects at rest are packed, and unpack to what they were. That the latter holds of each object that is packed, each
//! [`World`] checks; here is which objects are packed, and how.

use super::{
    samples::{
        fail, init, key, misconfigured, object, running, secret_missing, secs, success,
        success_without_image, throttled, time_out, unrecognized,
    },
    world::{Fate, World},
};
use crate::{
    facts::{Cause, Facts},
    job::{Plan, PollStage, Polling},
    pack::{Pack, Reader, Words, Writer},
    phase::Phase,
    registry::View,
    status::{Since, Snapshot, Text},
    time::Due,
    totals::Tally,
};
use image_export_api::conditions::Condition;
use image_export_model::{ConfigurationReason, JobState, Observation};
use proptest::prelude::*;
use slotmap::KeyData;
use std::{fmt::Debug, num::NonZeroU32, sync::Arc, time::Duration};

fn is_packed(world: &World, name: &str) -> bool {
    let job = world.tracker.state.jobs.find(&key(name));
    let (_, job) = job.expect("the object is tracked");
    matches!(job, View::Unpacked(_))
}

#[test]
fn objects_with_nothing_under_way_are_packed() {
    let reports: [(&str, Observation); 9] = [
        ("JobInitializing", init()),
        ("JobRunning", running()),
        ("JobSucceeded", success()),
        ("ImageIDPending", success_without_image()),
        ("JobFailed", fail()),
        ("JobStatusUnrecognized", unrecognized("PAUSED")),
        (
            "AccessDenied",
            misconfigured(ConfigurationReason::AccessDenied),
        ),
        ("PollFailed", time_out()),
        ("Pending", throttled(Some(secs(900)))),
    ];
    for (reason, report) in reports {
        let mut world = World::new();
        world.create(object("x"));
        world.reports("x", report);
        let limit = world.now + secs(400);
        while world.reason("x") != reason && world.now < limit {
            world.run(1);
        }
        world.run(2);
        assert_eq!(world.reason("x"), reason);
        assert!(is_packed(&world, "x"), "{reason}");
    }
    let mut world = World::new();
    let mut suspended = object("x");
    suspended.spec.suspend = true;
    world.create(suspended);
    world.secrets.insert("otc".into(), Err(secret_missing()));
    world.create(object("y"));
    world.run(10);
    assert_eq!(world.reason("x"), "Suspended");
    assert_eq!(world.reason("y"), "CredentialsNotFound");
    assert!(is_packed(&world, "x") && is_packed(&world, "y"));
}

#[test]
fn objects_with_something_under_way_are_not_packed() {
    let mut world = World::new();
    world.held.polls = true;
    world.create(object("x"));
    world.run(5);
    assert!(!is_packed(&world, "x"), "a poll is in flight");
    let poll = world.take_poll();
    world.held.polls = false;
    world.held.writes = true;
    world.answer(&poll, running());
    assert!(!is_packed(&world, "x"), "a write is in flight");
    let write = world.take_write();
    world.held.writes = false;
    world.land_with(write, Fate::Lands);
    world.run(5);
    assert!(is_packed(&world, "x"));
    let condition = Condition {
        type_: "Theirs".to_owned(),
        ..world.status("x").conditions[0].clone()
    };
    world.edit("x", |status| status.conditions.push(condition));
    world.run(5);
    assert!(!is_packed(&world, "x"), "others own a condition");
}

#[test]
fn objects_whose_status_was_repaired_are_packed() {
    let mut world = World::new();
    world.create(object("x"));
    world.run(5);
    world.edit("x", |status| status.status = None);
    world.run(5);
    assert_eq!(world.census().counters.repairs, 1);
    assert!(is_packed(&world, "x"));
}

#[test]
fn with_few_objects_nothing_is_packed() {
    let mut world = World::new();
    world.create(object("x"));
    world.run(100);
    assert!(is_packed(&world, "x"), "in tests each is");
    let jobs = &mut world.tracker.state.jobs;
    jobs.few = 1;
    let (x, _) = jobs.find(&key("x")).expect("tracked");
    assert!(jobs.get_mut(x).is_some());
    jobs.close(x);
    assert!(!is_packed(&world, "x"));
    let jobs = &mut world.tracker.state.jobs;
    jobs.few = 0;
    assert!(jobs.get_mut(x).is_some());
    jobs.close(x);
    assert!(is_packed(&world, "x"));
}

/// Packs two values and unpacks them: the first ends where the second begins.
fn check<T: Pack + Debug>(value: &T) {
    let (mut bytes, mut words) = (Vec::new(), Words::default());
    let mut to = Writer::new(&mut bytes, &mut words);
    value.pack(&mut to);
    7_u64.pack(&mut to);
    let mut from = Reader::new(&bytes, &words);
    let unpacked = T::unpack(&mut from);
    assert_eq!(format!("{unpacked:?}"), format!("{value:?}"));
    assert_eq!(u64::unpack(&mut from), 7, "of {value:?}");
    if value.is_empty() {
        assert_eq!(format!("{:?}", T::empty()), format!("{value:?}"));
    }
}

fn text() -> impl Strategy<Value = Arc<str>> {
    "[a-f0-9]{32}|[0-9]{1,20}|.{0,300}".prop_map(Arc::from)
}

fn time() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_nanos)
}

fn due() -> impl Strategy<Value = Due> {
    prop_oneof![Just(Due::Requested), time().prop_map(Due::Since)]
}

fn cause() -> impl Strategy<Value = Cause> {
    prop_oneof![Just(Cause::Stored), text().prop_map(Cause::Observed)]
}

fn phase() -> impl Strategy<Value = Phase> {
    (0..Phase::ALL.len()).prop_map(|n| Phase::ALL[n])
}

fn state() -> impl Strategy<Value = JobState> {
    use JobState::{Fail, Init, Running, Success, Unrecognized};
    prop_oneof![
        Just(Init),
        Just(Running),
        Just(Success),
        Just(Fail),
        text().prop_map(Unrecognized)
    ]
}

fn facts() -> impl Strategy<Value = Facts> {
    let option = proptest::option::of::<BoxedStrategy<Arc<str>>>;
    let texts = [(); 4].map(|()| option(text().boxed()));
    let times = any::<(Option<u8>, Option<i64>, Option<i64>)>();
    (proptest::option::of(state()), texts, times).prop_map(|(job_status, texts, times)| {
        let [job_type, image_id, fail_reason, error_code] = texts;
        let (progress, start, completion) = times;
        Facts {
            job_status,
            job_type,
            image_id,
            fail_reason,
            error_code,
            progress,
            start,
            completion,
        }
    })
}

fn polling() -> impl Strategy<Value = Polling> {
    let stage = prop_oneof![
        Just(PollStage::Off),
        time().prop_map(PollStage::Scheduled),
        Just(PollStage::AwaitingSecret),
        due().prop_map(PollStage::Queued),
    ];
    let plan = prop_oneof![
        time().prop_map(Plan::At),
        time().prop_map(Plan::Paced),
        (time(), time()).prop_map(|(at, earliest)| Plan::Retry { at, earliest }),
    ];
    let numbers = any::<(Option<NonZeroU32>, u32, Option<u64>, bool)>();
    let followed = prop_oneof![Just(0.0), Just(f32::INFINITY), -1e9f32..1e9];
    let wanted = proptest::option::of(due());
    let waits = proptest::option::of(time());
    (
        stage,
        plan,
        waits,
        wanted,
        followed,
        numbers,
        time(),
        time(),
    )
        .prop_map(
            |(stage, plan, waits_since, wanted, followed, numbers, earliest, image_id_at)| {
                let (interval, counted, host, counts_as_new) = numbers;
                Polling {
                    stage,
                    waits_since,
                    wanted,
                    earliest,
                    plan,
                    interval,
                    counted,
                    followed,
                    failed_at: host.map(|host| KeyData::from_ffi(host).into()),
                    counts_as_new,
                    image_id_at,
                }
            },
        )
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let messages = proptest::collection::vec(".{0,50}", 0..4);
    let stored = (messages, any::<bool>()).prop_map(|(messages, has_detail)| Text::Stored {
        messages: messages.into_iter().map(Box::from).collect(),
        has_detail,
    });
    let wording = prop_oneof![
        proptest::option::of(text()).prop_map(Text::Rendered),
        stored
    ];
    let since = any::<(i64, i64, i64)>();
    let request = proptest::option::of(text());
    (phase(), wording, facts(), any::<i64>(), request, since).prop_map(
        |(phase, text, facts, generation, poll_request, (ready, succeeded, activity))| Snapshot {
            phase,
            text,
            facts: facts.into(),
            generation,
            poll_request,
            since: Since {
                ready,
                succeeded,
                activity,
            },
        },
    )
}

fn tally() -> impl Strategy<Value = Tally> {
    let shown = proptest::option::of(phase());
    (shown, any::<(Option<u64>, [bool; 6], u64)>()).prop_map(
        |(shown, (answered, flags, secret))| {
            let [is_waiting, is_overdue, is_unwritten, rest @ ..] = flags;
            let [is_unfinished, is_polled, awaits_secret] = rest;
            Tally {
                shown,
                answered,
                is_waiting,
                is_overdue,
                is_unwritten,
                secret: KeyData::from_ffi(secret).into(),
                is_unfinished,
                is_polled,
                awaits_secret,
            }
        },
    )
}

proptest! {
    #[test]
    fn what_is_packed_unpacks_to_what_it_was(
        (number, signed, short) in any::<(u64, i64, Option<u32>)>(),
        (due, cause, reason) in (due(), cause(), 0..6_usize),
        (polling, snapshot, tally) in (polling(), snapshot(), tally()),
    ) {
        check(&number);
        check(&signed);
        check(&(signed % 100));
        check(&short.unwrap_or_default());
        check(&due);
        let reason = [
            ConfigurationReason::CredentialsNotFound,
            ConfigurationReason::CredentialsInvalid,
            ConfigurationReason::AccessDenied,
            ConfigurationReason::EndpointInvalid,
            ConfigurationReason::EndpointNotAllowed,
            ConfigurationReason::RequestRejected,
        ][reason];
        check(&(reason, cause.clone()));
        check(&cause);
        check(&polling);
        check(&snapshot);
        check(&tally);
    }

    #[test]
    fn facts_that_are_shared_are_packed_once_and_stay_shared(facts in facts()) {
        let (mut bytes, mut words) = (Vec::new(), Words::default());
        let facts = Arc::new(facts);
        let mut to = Writer::new(&mut bytes, &mut words);
        facts.pack(&mut to);
        facts.pack(&mut to);
        let mut from = Reader::new(&bytes, &words);
        let first: Arc<Facts> = Pack::unpack(&mut from);
        let second: Arc<Facts> = Pack::unpack(&mut from);
        prop_assert_eq!(&first, &facts);
        prop_assert!(Arc::ptr_eq(&first, &second));
    }
}

#[test]
fn words_are_held_once_and_are_not_too_many() {
    let mut words = Words::default();
    let texts: Vec<Arc<str>> = (0..200).map(|n| format!("type-{n}").into()).collect();
    for text in texts.iter().chain(&texts) {
        let facts = Facts {
            job_type: Some(text.clone()),
            ..Facts::default()
        };
        let mut bytes = Vec::new();
        facts.pack(&mut Writer::new(&mut bytes, &mut words));
        let unpacked = Facts::unpack(&mut Reader::new(&bytes, &words));
        assert_eq!(unpacked, facts);
    }
    assert_eq!(words.len(), 100);
}
