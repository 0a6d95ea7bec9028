//! Random lives: people, the cloud, the API server and the process itself do what they like. The
//! oracles hold at every step, and some time after the last fault each status is the truth.

use super::{
    samples::{
        beginning, cloud, fail, init, key, millis, not_found, object, refused, running,
        secret_missing, secret_unreadable_now, secs, success, success_without_image, throttled,
        time_out, unavailable, word,
    },
    world::{Fate, World},
};
use crate::{CredentialError, Input};
use image_export_api::{ImageExportJob, ImageExportJobStatus};
use image_export_model::{ConfigurationReason, Observation};
use proptest::prelude::*;
use std::{cell::Cell, collections::HashMap, rc::Rc};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const SECRETS: [&str; 2] = ["otc", "other"];

#[derive(Clone, Copy, Debug)]
enum Op {
    Create(usize),
    Delete(usize),
    Recreate(usize),
    Suspend(usize, bool),
    UseSecret(usize, usize),
    Period(usize, i32),
    Deadline(usize, Option<i32>),
    Ttl(usize, Option<i32>),
    Touch(usize),
    RequestPoll(usize, u8),
    Edit(usize, usize),
    Foreign(usize),
    /// The job goes on to this state; an end is for ever.
    Job(usize, usize),
    /// The cloud answers that instead of the job's state, or the state again.
    Trouble(usize, Option<usize>),
    Secret(usize, usize),
    /// What becomes of the next writes.
    Writes(Fate, u8),
    Lead(bool),
    LoseWatch,
    SeeAgain(usize),
    SeeOld(usize),
    SlowAnswers(u64),
    Crash {
        landed: bool,
    },
    Run(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let n = || 0..NAMES.len();
    let fate = prop_oneof![
        Just(Fate::LandsWithoutReply),
        Just(Fate::LandsThenConflict),
        Just(Fate::LandsLate),
        Just(Fate::Lost),
        Just(Fate::Failed),
        Just(Fate::Throttled),
        Just(Fate::Refused),
        Just(Fate::Conflict),
    ];
    prop_oneof![
        4 => n().prop_map(Op::Create),
        1 => n().prop_map(Op::Delete),
        1 => n().prop_map(Op::Recreate),
        2 => (n(), any::<bool>()).prop_map(|(n, on)| Op::Suspend(n, on)),
        1 => (n(), 0..SECRETS.len()).prop_map(|(n, secret)| Op::UseSecret(n, secret)),
        1 => (n(), 5..90i32).prop_map(|(n, period)| Op::Period(n, period)),
        1 => (n(), proptest::option::of(1..900i32)).prop_map(|(n, time)| Op::Deadline(n, time)),
        1 => (n(), proptest::option::of(0..300i32)).prop_map(|(n, time)| Op::Ttl(n, time)),
        1 => n().prop_map(Op::Touch),
        2 => (n(), any::<u8>()).prop_map(|(n, value)| Op::RequestPoll(n, value)),
        2 => (n(), 0..EDITS.len()).prop_map(|(n, edit)| Op::Edit(n, edit)),
        1 => n().prop_map(Op::Foreign),
        4 => (n(), 0..5usize).prop_map(|(n, state)| Op::Job(n, state)),
        4 => (n(), proptest::option::of(0..8usize)).prop_map(|(n, what)| Op::Trouble(n, what)),
        2 => (0..SECRETS.len(), 0..5usize).prop_map(|(secret, state)| Op::Secret(secret, state)),
        3 => (fate, 1..6u8).prop_map(|(fate, writes)| Op::Writes(fate, writes)),
        1 => any::<bool>().prop_map(Op::Lead),
        1 => Just(Op::LoseWatch),
        1 => n().prop_map(Op::SeeAgain),
        1 => n().prop_map(Op::SeeOld),
        1 => (1..20_000u64).prop_map(Op::SlowAnswers),
        1 => any::<bool>().prop_map(|landed| Op::Crash { landed }),
        8 => (0..10u64).prop_map(Op::Run),
        4 => (10..400u64).prop_map(Op::Run),
    ]
}

type Edit = fn(&mut ImageExportJobStatus);

/// Edits that do not add up: those that do, made while no operator runs, are out of scope.
const EDITS: [Edit; 5] = [
    |s| s.status = Some("FAIL".into()),
    |s| {
        s.completion_time = match s.completion_time {
            None => Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                beginning(),
            )),
            Some(_) => None,
        }
    },
    |s| s.observed_generation = Some(7),
    |s| {
        s.conditions.pop();
    },
    |s| *s = super::samples::crd_default(),
];

fn state(state: usize) -> (Observation, bool) {
    match state {
        0 => (init(), false),
        1 => (running(), false),
        2 => (success(), true),
        3 => (success_without_image(), true),
        _ => (fail(), true),
    }
}

fn trouble(what: usize) -> Observation {
    match what {
        0 => unavailable(),
        1 => time_out(),
        2 => throttled(Some(secs(20))),
        3 => refused(ConfigurationReason::AccessDenied),
        4 => refused(ConfigurationReason::CredentialsInvalid),
        5 => refused(ConfigurationReason::EndpointInvalid),
        6 => word("ODD"),
        _ => not_found(),
    }
}

struct Chaos {
    world: World,
    /// State of each job, and whether it is an end.
    jobs: HashMap<&'static str, (Observation, bool)>,
    next_writes: Rc<Cell<(Fate, u8)>>,
    /// Earlier versions of the objects.
    past: Vec<ImageExportJob>,
    secrets: u64,
}

impl Chaos {
    fn new() -> Self {
        let mut world = World::new();
        let next_writes = Rc::new(Cell::new((Fate::Lands, 0u8)));
        let next = next_writes.clone();
        let fate = move || {
            let (fate, left) = next.get();
            next.set((fate, left.saturating_sub(1)));
            if left > 0 { fate } else { Fate::Lands }
        };
        let of_deletions = fate.clone();
        world.fate = Box::new(move |_| fate());
        world.fate_of_deletions = Box::new(of_deletions);
        Self {
            world,
            jobs: NAMES.map(|name| (name, (running(), false))).into(),
            next_writes,
            past: Vec::new(),
            secrets: 1,
        }
    }

    fn change(&mut self, n: usize, change: impl FnOnce(&mut ImageExportJob)) {
        if let Some(object) = self.world.objects.get(&key(NAMES[n])) {
            self.past.push(object.clone());
            self.world.change(NAMES[n], change);
        }
    }

    fn apply(&mut self, op: Op) {
        let exists = |chaos: &Self, n: usize| chaos.world.objects.contains_key(&key(NAMES[n]));
        match op {
            Op::Create(n) if !exists(self, n) => self.world.create(object(NAMES[n])),
            Op::Delete(n) if exists(self, n) => self.world.delete(NAMES[n]),
            Op::Recreate(n) if exists(self, n) => {
                // The watch may show that as one change.
                self.world.objects.remove(&key(NAMES[n]));
                self.world.create(object(NAMES[n]));
            }
            Op::Create(_) | Op::Delete(_) | Op::Recreate(_) => {}
            Op::Suspend(n, on) => self.change(n, |x| x.spec.suspend = on),
            Op::UseSecret(n, secret) => {
                self.change(n, |x| x.spec.cloud_credentials_ref = cloud(SECRETS[secret]));
            }
            Op::Period(n, period) => self.change(n, |x| x.spec.poll_period_seconds = Some(period)),
            Op::Deadline(n, time) => self.change(n, |x| x.spec.deadline_seconds = time),
            Op::Ttl(n, time) => self.change(n, |x| x.spec.ttl_seconds_after_finished = time),
            Op::Touch(n) => self.change(n, |_| {}),
            Op::RequestPoll(n, value) => {
                if exists(self, n) {
                    self.world.request_poll(NAMES[n], &value.to_string());
                }
            }
            Op::Edit(n, edit) => {
                self.change(n, |x| EDITS[edit](x.status.get_or_insert_default()));
            }
            Op::Foreign(n) => self.change(n, |x| {
                let conditions = &mut x.status.get_or_insert_default().conditions;
                let before = conditions.len();
                conditions.retain(|c| c.type_ != "Approved");
                if conditions.len() == before {
                    conditions.push(super::repair::foreign("Approved"));
                }
            }),
            Op::Job(n, next) => {
                let job = self.jobs.get_mut(NAMES[n]).expect("all are in it");
                if !job.1 {
                    *job = state(next);
                    self.world.says(NAMES[n], job.0.clone());
                }
            }
            Op::Trouble(n, what) => {
                let (says, ended) = self.jobs[NAMES[n]].clone();
                // The cloud does not forget a job that has ended, nor give it another word.
                let what = what.filter(|what| !ended || *what < 6);
                self.world.says(NAMES[n], what.map_or(says, trouble));
            }
            Op::Secret(secret, state) => {
                self.secrets += 1;
                let invalid = super::samples::refusal(ConfigurationReason::CredentialsInvalid);
                let read = match state {
                    0 => Err(secret_missing()),
                    1 => Err(CredentialError::Misconfigured(invalid)),
                    2 => Err(secret_unreadable_now()),
                    _ => Ok(self.secrets),
                };
                self.world.secrets.insert(SECRETS[secret].into(), read);
            }
            Op::Writes(fate, writes) => self.next_writes.set((fate, writes)),
            Op::Lead(lead) => self.world.feed(Input::Leading(lead)),
            Op::LoseWatch => self.world.lose_watch(),
            Op::SeeAgain(n) => {
                if let Some(object) = self.world.objects.get(&key(NAMES[n])).cloned() {
                    self.world.see(object);
                }
            }
            Op::SeeOld(n) => {
                let current = self.world.objects.get(&key(NAMES[n])).cloned();
                let old = current.and_then(|current| {
                    let same = |old: &&ImageExportJob| old.metadata.uid == current.metadata.uid;
                    self.past.iter().find(same).cloned()
                });
                // Only what was shown before can come again.
                let known = self
                    .world
                    .tracker
                    .state
                    .jobs
                    .find(&key(NAMES[n]))
                    .is_some_and(|(_, record)| {
                        old.as_ref()
                            .is_some_and(|o| o.metadata.uid.as_deref() == Some(&*record.uid))
                    });
                if let Some(old) = old.filter(|_| known) {
                    self.world.see(old);
                }
            }
            Op::SlowAnswers(time) => self.world.poll_time = millis(time),
            Op::Crash { landed } => {
                if landed {
                    self.world.cut_replies();
                }
                self.world.restart();
            }
            Op::Run(seconds) => self.world.run(seconds),
        }
    }

    /// All faults end.
    fn calm(&mut self) {
        self.next_writes.set((Fate::Lands, 0));
        self.world.poll_time = millis(50);
        for secret in SECRETS {
            self.secrets += 1;
            self.world.secrets.insert(secret.into(), Ok(self.secrets));
        }
        if !self.world.tracker.state.leading {
            self.world.feed(Input::Leading(true));
        }
        for (n, name) in NAMES.into_iter().enumerate() {
            self.world.says(name, self.jobs[name].0.clone());
            let now = self.world.present().wall;
            self.change(n, |x| {
                // One that has not passed yet might do so between two looks.
                let created = x
                    .metadata
                    .creation_timestamp
                    .as_ref()
                    .map_or(now, |at| at.0);
                let age = now.as_second() - created.as_second();
                x.spec
                    .deadline_seconds
                    .take_if(|time| i64::from(*time) > age);
                x.spec.suspend = false;
                x.spec.poll_period_seconds = Some(60);
            });
        }
    }

    fn expect_truth(&self) {
        for name in self.world.objects.keys().map(|key| &*key.name) {
            let (says, ended) = &self.jobs[name];
            let image_export_model::Outcome::Answered(truth) = &says.outcome else {
                panic!("a job's state is an answer");
            };
            let status = self.world.status(name);
            let spec = &self.world.stored(name).spec;
            let late = spec.deadline_seconds.is_some() && !ended;
            let kept = spec.ttl_seconds_after_finished.is_none() || !ended;
            assert!(kept, "{name} should be gone: {status:?}");
            let reasons: &[&str] = match (&truth.state, ended) {
                _ if late => &["DeadlineExceeded"],
                (image_export_model::JobState::Success, _) if truth.image_id.is_some() => {
                    &["JobSucceeded"]
                }
                (image_export_model::JobState::Success, _) => &["ImageIDMissing"],
                (image_export_model::JobState::Fail, _) => &["JobFailed"],
                // RUNNING then INIT is not shown.
                (image_export_model::JobState::Init, _) => &["JobInitializing", "JobRunning"],
                _ => &["JobRunning"],
            };
            assert!(
                reasons.contains(&self.world.reason(name)),
                "{name}: {status:?}"
            );
            assert_eq!(status.image_id.as_deref(), truth.image_id.as_deref());
            assert_eq!(status.fail_reason.as_deref(), truth.fail_reason.as_deref());
            assert_eq!(status.completion_time.is_some(), *ended);
            assert_eq!(
                status.observed_generation,
                self.world.stored(name).metadata.generation
            );
        }
        assert_eq!(
            self.world.tracker.state.jobs.iter().count(),
            self.world.objects.len()
        );
    }
}

fn live(ops: Vec<Op>) {
    let mut chaos = Chaos::new();
    for op in ops {
        chaos.apply(op);
    }
    chaos.calm();
    chaos.world.run(1000);
    chaos.expect_truth();
    let writes = chaos.world.landed;
    let repairs = chaos.world.census().counters.repairs;
    chaos.world.run(1000);
    assert_eq!(chaos.world.landed, writes, "and stays");
    assert_eq!(chaos.world.census().counters.repairs, repairs);
}

/// 1,500, or as many as `RANDOM_CASES` says.
fn cases() -> u32 {
    let asked = std::env::var("RANDOM_CASES").ok();
    asked.map_or(1500, |cases| cases.parse().expect("a number"))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn some_time_after_the_last_fault_each_status_is_the_truth(
        ops in proptest::collection::vec(op(), 1..60),
    ) {
        live(ops);
    }
}
