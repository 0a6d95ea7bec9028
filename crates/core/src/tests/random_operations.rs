//! Random operations of users, the cloud, the API server and the process. The invariants hold at every
//! step, and some time after the last fault each status shows the true state of its job.

use super::{
    samples::{
        beginning, cloud, fail, init, key, millis, misconfigured, not_found, object, running,
        secret_missing, secret_unreadable_now, secs, success, success_without_image, throttled,
        time_out, unavailable, unrecognized,
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
    /// Others add or remove a condition of theirs.
    UnownedCondition(usize),
    /// The job gets this state. An end is final.
    Job(usize, usize),
    /// The cloud answers with this fault instead of the job's state; `None`: with the state again.
    Fault(usize, Option<usize>),
    Secret(usize, usize),
    /// The fate of the next writes.
    Writes(Fate, u8),
    Lead(bool),
    LoseWatch,
    /// The watch shows the current version again.
    SeeAgain(usize),
    /// The watch shows an earlier version again.
    SeeOld(usize),
    /// Polls take this many milliseconds.
    SlowAnswers(u64),
    /// The process crashes; `landed`: what it sent before lands.
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
        Just(Fate::Rejected),
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
        1 => n().prop_map(Op::UnownedCondition),
        4 => (n(), 0..5usize).prop_map(|(n, state)| Op::Job(n, state)),
        4 => (n(), proptest::option::of(0..8usize)).prop_map(|(n, what)| Op::Fault(n, what)),
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

/// Edits that make a status inconsistent. A consistent edit made while no operator runs cannot be detected,
/// so it is out of scope.
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

fn fault(what: usize) -> Observation {
    match what {
        0 => unavailable(),
        1 => time_out(),
        2 => throttled(Some(secs(20))),
        3 => misconfigured(ConfigurationReason::AccessDenied),
        4 => misconfigured(ConfigurationReason::CredentialsInvalid),
        5 => misconfigured(ConfigurationReason::EndpointInvalid),
        6 => unrecognized("ODD"),
        _ => not_found(),
    }
}

/// A world under random operations, and the true state of its jobs.
struct Scenario {
    world: World,
    /// The true state of each job, and whether it is an end.
    jobs: HashMap<&'static str, (Observation, bool)>,
    next_writes: Rc<Cell<(Fate, u8)>>,
    /// Earlier versions of the objects.
    past: Vec<ImageExportJob>,
    secrets: u64,
}

impl Scenario {
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

    /// Changes an object, if it exists.
    fn change(&mut self, n: usize, change: impl FnOnce(&mut ImageExportJob)) {
        if let Some(object) = self.world.objects.get(&key(NAMES[n])) {
            self.past.push(object.clone());
            self.world.change(NAMES[n], change);
        }
    }

    fn apply(&mut self, op: Op) {
        let exists =
            |scenario: &Self, n: usize| scenario.world.objects.contains_key(&key(NAMES[n]));
        match op {
            Op::Create(n) if !exists(self, n) => self.world.create(object(NAMES[n])),
            Op::Delete(n) if exists(self, n) => self.world.delete(NAMES[n]),
            Op::Recreate(n) if exists(self, n) => {
                // The watch may show the deletion and the creation as one change.
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
            Op::UnownedCondition(n) => self.change(n, |x| {
                let conditions = &mut x.status.get_or_insert_default().conditions;
                let before = conditions.len();
                conditions.retain(|c| c.type_ != "Approved");
                if conditions.len() == before {
                    conditions.push(super::repair::unowned_condition("Approved"));
                }
            }),
            Op::Job(n, next) => {
                let job = self.jobs.get_mut(NAMES[n]).expect("each name has a job");
                if !job.1 {
                    *job = state(next);
                    self.world.reports(NAMES[n], job.0.clone());
                }
            }
            Op::Fault(n, what) => {
                let (report, ended) = self.jobs[NAMES[n]].clone();
                // The cloud never answers 404 for a job that has ended, nor another job status.
                let what = what.filter(|what| !ended || *what < 6);
                self.world.reports(NAMES[n], what.map_or(report, fault));
            }
            Op::Secret(secret, state) => {
                self.secrets += 1;
                let invalid =
                    super::samples::configuration_error(ConfigurationReason::CredentialsInvalid);
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
                // Only an object that was received before can arrive again.
                let is_tracked = self
                    .world
                    .tracker
                    .state
                    .jobs
                    .find(&key(NAMES[n]))
                    .is_some_and(|(_, job)| {
                        old.as_ref()
                            .is_some_and(|o| o.metadata.uid.as_deref() == Some(&*job.uid))
                    });
                if let Some(old) = old.filter(|_| is_tracked) {
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

    /// Ends all faults.
    fn end_faults(&mut self) {
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
            self.world.reports(name, self.jobs[name].0.clone());
            let now = self.world.present().wall;
            self.change(n, |x| {
                // A deadline that has not passed yet might pass while the statuses are checked.
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

    /// Checks that each status shows the true state of its job.
    fn check_statuses(&self) {
        for name in self.world.objects.keys().map(|key| &*key.name) {
            let (report, ended) = &self.jobs[name];
            let image_export_model::Outcome::Answered(truth) = &report.outcome else {
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
                // INIT after RUNNING is not shown.
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

/// Applies the operations, ends all faults and checks the statuses some time later.
fn run_operations(ops: Vec<Op>) {
    let mut scenario = Scenario::new();
    for op in ops {
        scenario.apply(op);
    }
    scenario.end_faults();
    scenario.world.run(1000);
    scenario.check_statuses();
    let writes = scenario.world.landed;
    let repairs = scenario.world.census().counters.repairs;
    scenario.world.run(1000);
    assert_eq!(scenario.world.landed, writes, "nothing is written any more");
    assert_eq!(scenario.world.census().counters.repairs, repairs);
}

/// How many cases run: `RANDOM_CASES`, or else 1,500.
fn cases() -> u32 {
    let wanted = std::env::var("RANDOM_CASES").ok();
    wanted.map_or(1500, |cases| cases.parse().expect("a number"))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn each_status_is_true_some_time_after_the_last_fault(
        ops in proptest::collection::vec(op(), 1..60),
    ) {
        run_operations(ops);
    }
}
