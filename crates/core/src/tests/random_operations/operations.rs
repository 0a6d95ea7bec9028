//! What may happen: each operation, and how often it is tried.

use super::super::{
    repair::unowned_condition,
    samples::{
        answer_with, beginning, crd_default, deferred, fail, failure, init, misconfigured,
        not_found, running, secs, success, success_without_image, throttled, time_out, unavailable,
        unavailable_for, unrecognized,
    },
    world::Fate,
};
use image_export_api::{
    ImageExportJobStatus,
    conditions::{CONDITIONS_MAX, types},
};
use image_export_model::{ConfigurationReason, FailureKind, JobState, Observation, Outcome, Stage};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;

/// Names of objects, each with its project.
pub const NAMES: [(&str, &str); 6] = [
    ("a", "project"),
    ("b", "project"),
    ("c", "project"),
    ("d", "project"),
    ("e", "elsewhere"),
    ("strangers/f", "project"),
];
/// Names of Secrets. The credentials of the last one are for another host.
pub const SECRETS: [&str; 3] = ["otc", "other", "abroad"];

/// One operation. `usize` is an index of [`NAMES`] or [`SECRETS`].
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// With this Secret.
    Create(usize, usize),
    Delete(usize),
    /// Deleted and created again under the same name at once.
    Recreate(usize, usize),
    /// Others hold a deleted object back, or do so no longer.
    Finalizer(usize, bool),
    Suspend(usize, bool),
    UseSecret(usize, usize),
    /// Another Secret, and back after so many milliseconds.
    UseSecretAndBack(usize, usize, u64),
    Period(usize, i32),
    Deadline(usize, Option<i32>),
    Ttl(usize, Option<i32>),
    Touch(usize),
    /// Whether others change a label whenever something is sent about the object.
    Churn(usize, bool),
    RequestPoll(usize, u8),
    Edit(usize, usize),
    /// Others add this condition of theirs at this position, or remove it.
    UnownedCondition(usize, u8, u8),
    /// Others add so many conditions of theirs before all.
    UnownedConditions(usize, usize),
    /// Others bring the conditions into another order.
    Reorder(usize, u8),
    /// The object does not decode, or does so again.
    Undecodable(usize, bool),
    /// From now on the API server stores no value of a field; 0: of none.
    Prune(usize),
    /// The job gets this state. An end is final.
    Job(usize, usize),
    /// It is a success whose image id is reported after so many seconds.
    LateImageId(usize, u64),
    /// The cloud answers with this fault instead of the job's state; `None`: with the state again.
    Fault(usize, Option<usize>),
    /// The same for all jobs.
    Outage(Option<usize>),
    /// The Secret gets this content, or cannot be read.
    Secret(usize, usize),
    /// The fate of the next writes.
    Writes(Fate, u8),
    /// This process leads, and no other.
    Lead(usize),
    /// No process leads.
    LeadNone,
    /// This process leads; the other notices after so many milliseconds that it does not.
    Overlap(usize, u64),
    /// The watch of a process shows nothing for so many milliseconds.
    DelayWatch(usize, u64),
    /// The watch of a process breaks off.
    LoseWatch(usize),
    /// The watch shows the current version again.
    SeeAgain(usize),
    /// The watch shows an earlier version again.
    SeeOld(usize),
    /// Polls take this many milliseconds.
    SlowAnswers(u64),
    /// Reads of Secrets take this many milliseconds.
    SlowReads(u64),
    /// Writes take this many milliseconds.
    SlowWrites(u64),
    /// A process is about to end.
    Stop(usize),
    /// A process crashes; `landed`: what it sent before lands.
    Crash {
        process: usize,
        landed: bool,
    },
    /// The leader crashes; while all its polls are in flight together, the cloud throttles this job, and
    /// the logins of the others fail or, if `accepted`, their polls are answered.
    ThrottledTogether {
        throttled: usize,
        accepted: bool,
    },
    /// The machine sleeps for so many seconds.
    Sleep(u64),
    /// The wall clock is set by so many seconds.
    StepWall(i64),
    Run(u64),
    RunMillis(u64),
}

pub fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => user(),
        8 => others(),
        14 => cloud(),
        10 => cluster(),
        6 => (0..10u64).prop_map(Op::Run),
        3 => (0..1500u64).prop_map(Op::RunMillis),
        4 => (10..400u64).prop_map(Op::Run),
    ]
}

fn name() -> std::ops::Range<usize> {
    0..NAMES.len()
}

fn secret() -> std::ops::Range<usize> {
    0..SECRETS.len()
}

fn user() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (name(), secret()).prop_map(|(n, secret)| Op::Create(n, secret)),
        1 => name().prop_map(Op::Delete),
        1 => (name(), secret()).prop_map(|(n, secret)| Op::Recreate(n, secret)),
        2 => (name(), any::<bool>()).prop_map(|(n, on)| Op::Suspend(n, on)),
        1 => (name(), secret()).prop_map(|(n, secret)| Op::UseSecret(n, secret)),
        1 => (name(), secret(), 0..3000u64).prop_map(|(n, s, time)| Op::UseSecretAndBack(n, s, time)),
        1 => (name(), 5..90i32).prop_map(|(n, period)| Op::Period(n, period)),
        1 => (name(), proptest::option::of(1..900i32)).prop_map(|(n, time)| Op::Deadline(n, time)),
        1 => (name(), proptest::option::of(0..300i32)).prop_map(|(n, time)| Op::Ttl(n, time)),
        2 => (name(), any::<u8>()).prop_map(|(n, value)| Op::RequestPoll(n, value)),
    ]
}

fn others() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => name().prop_map(Op::Touch),
        1 => (name(), any::<bool>()).prop_map(|(n, on)| Op::Churn(n, on)),
        1 => (name(), any::<bool>()).prop_map(|(n, on)| Op::Finalizer(n, on)),
        2 => (name(), 0..EDITS.len()).prop_map(|(n, edit)| Op::Edit(n, edit)),
        1 => (name(), 0..6u8, any::<u8>()).prop_map(|(n, which, at)| Op::UnownedCondition(n, which, at)),
        1 => (name(), 0..=30usize).prop_map(|(n, many)| Op::UnownedConditions(n, many)),
        2 => (name(), any::<u8>()).prop_map(|(n, how)| Op::Reorder(n, how)),
        1 => (name(), any::<bool>()).prop_map(|(n, on)| Op::Undecodable(n, on)),
        1 => (0..PRUNED.len()).prop_map(Op::Prune),
    ]
}

fn cloud() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (name(), 0..STATES).prop_map(|(n, state)| Op::Job(n, state)),
        2 => (name(), prop_oneof![Just(15), Just(35), 1..100u64])
            .prop_map(|(n, after)| Op::LateImageId(n, after)),
        5 => (name(), proptest::option::of(0..FAULTS)).prop_map(|(n, what)| Op::Fault(n, what)),
        2 => proptest::option::of(0..FAULTS).prop_map(Op::Outage),
        3 => (secret(), 0..6usize).prop_map(|(secret, state)| Op::Secret(secret, state)),
        1 => (1..20_000u64).prop_map(Op::SlowAnswers),
        1 => (1..15_000u64).prop_map(Op::SlowReads),
    ]
}

fn cluster() -> impl Strategy<Value = Op> {
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
    let process = || 0..2usize;
    prop_oneof![
        6 => (fate, 1..6u8).prop_map(|(fate, writes)| Op::Writes(fate, writes)),
        2 => process().prop_map(Op::Lead),
        1 => Just(Op::LeadNone),
        1 => (process(), 0..10_000u64).prop_map(|(process, time)| Op::Overlap(process, time)),
        1 => (process(), 0..30_000u64).prop_map(|(process, time)| Op::DelayWatch(process, time)),
        2 => process().prop_map(Op::LoseWatch),
        1 => name().prop_map(Op::SeeAgain),
        1 => name().prop_map(Op::SeeOld),
        1 => (1..8000u64).prop_map(Op::SlowWrites),
        1 => process().prop_map(Op::Stop),
        2 => (process(), any::<bool>()).prop_map(|(process, landed)| Op::Crash { process, landed }),
        1 => (name(), any::<bool>())
            .prop_map(|(throttled, accepted)| Op::ThrottledTogether { throttled, accepted }),
        1 => Just(Op::Sleep(3600)),
        1 => prop_oneof![Just(-3600), Just(3600), -90..90i64].prop_map(Op::StepWall),
    ]
}

type Edit = fn(&mut ImageExportJobStatus);

/// Edits that make a status inconsistent. A consistent edit made while no operator runs cannot be detected,
/// so it is out of scope.
pub const EDITS: [Edit; 6] = [
    |s| s.status = Some("FAIL".into()),
    |s| {
        s.completion_time = match s.completion_time {
            None => Some(Time(beginning())),
            Some(_) => None,
        }
    },
    |s| s.observed_generation = Some(7),
    |s| {
        s.conditions.pop();
    },
    |s| *s = crd_default(),
    |s| {
        s.conditions
            .retain(|c| !types::ALL.contains(&c.type_.as_str()));
    },
];

/// What an older CRD does not know.
pub const PRUNED: [Edit; 4] = [
    |_| {},
    |s| s.job_type = None,
    |s| s.progress_percent = None,
    |s| s.error_code = None,
];

/// Adds a condition of others, or removes it.
pub fn toggle_condition(status: &mut ImageExportJobStatus, which: u8, at: u8) {
    let type_ = format!("Other{which}");
    let conditions = &mut status.conditions;
    let before = conditions.len();
    conditions.retain(|c| c.type_ != type_);
    if conditions.len() == before && before < CONDITIONS_MAX {
        conditions.insert(usize::from(at) % (before + 1), unowned_condition(&type_));
    }
}

/// Adds so many conditions of others before all, in place of theirs.
pub fn put_conditions(status: &mut ImageExportJobStatus, many: usize) {
    let conditions = &mut status.conditions;
    conditions.retain(|c| types::ALL.contains(&c.type_.as_str()));
    for n in 0..many {
        conditions.insert(0, unowned_condition(&format!("Other{n}")));
    }
}

/// Brings the conditions into another order.
pub fn reorder(status: &mut ImageExportJobStatus, how: u8) {
    let conditions = &mut status.conditions;
    match how % 3 {
        0 => conditions.sort_by(|a, b| a.type_.cmp(&b.type_)),
        1 => conditions.reverse(),
        _ if conditions.is_empty() => {}
        _ => {
            let by = usize::from(how) % conditions.len();
            conditions.rotate_left(by);
        }
    }
}

/// How many states [`state`] knows.
const STATES: usize = 8;

/// What the cloud reports in a state, and whether it is an end.
pub fn state(state: usize) -> (Observation, bool) {
    match state {
        0 => (init(), false),
        1 => (running(), false),
        2 => (success(), true),
        3 => (success_without_image(), true),
        4 => (fail(), true),
        // It ends before it begins.
        5 | 6 => {
            let state = [JobState::Success, JobState::Fail][state - 5].clone();
            let ended = answer_with(state, |answer| {
                answer.end_time = Some(beginning() - SignedDuration::from_mins(1));
                answer.image_id = (answer.state == JobState::Success).then(|| "image-2".into());
            });
            (ended, true)
        }
        _ => {
            let halfway = answer_with(JobState::Running, |answer| answer.percent = Some(47));
            (halfway, false)
        }
    }
}

/// How many faults [`fault`] knows.
const FAULTS: usize = 16;
/// The one that throttles for 20 s.
pub const THROTTLED: usize = 4;
/// The one whose login fails, so that no request is sent.
pub const NO_REQUEST: usize = 12;

/// Whether the cloud answers so about a job that has ended.
pub fn is_of_ended(what: usize) -> bool {
    what >= 2
}

pub fn fault(what: usize) -> Observation {
    match what {
        0 => unrecognized("ODD"),
        1 => not_found(),
        2 => unavailable(),
        3 => time_out(),
        THROTTLED => throttled(Some(secs(20))),
        5 => throttled(None),
        6 => throttled(Some(secs(5000))),
        7 => unavailable_for(secs(40)),
        8 => unavailable_for(secs(2000)),
        9 => misconfigured(ConfigurationReason::AccessDenied),
        10 => misconfigured(ConfigurationReason::CredentialsInvalid),
        11 => misconfigured(ConfigurationReason::EndpointInvalid),
        NO_REQUEST => Observation {
            requests: 0,
            endpoint: None,
            ..unavailable_login()
        },
        13 => Observation {
            retry_after: Some(secs(7)),
            ..misconfigured(ConfigurationReason::RequestRejected)
        },
        14 => deferred(secs(1)),
        // It needs a second request, after a login.
        _ => Observation {
            requests: 2,
            signed_in: true,
            ..unavailable()
        },
    }
}

fn unavailable_login() -> Observation {
    let failure = failure(FailureKind::Http, Stage::Login);
    Observation {
        outcome: Outcome::Failed(failure),
        ..unavailable()
    }
}
