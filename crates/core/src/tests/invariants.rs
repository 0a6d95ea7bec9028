//! What must hold at every step of every test.

use super::world::World;
use crate::{
    Census, Effect, Output, StatusWrite, Transition,
    decide::decide,
    job::PollStage,
    keys::{JobKey, SecretKey},
    phase::{Phase, Priority},
    secrets::SecretState,
    status::{Snapshot, unowned},
    sync::ChangeStage,
    time::Due,
    totals::Tally,
};
use image_export_api::{
    ImageExportJob, ImageExportJobStatus,
    conditions::{CONDITIONS_MAX, Condition, types},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

/// What the checks remember of earlier steps.
#[derive(Default)]
pub struct Invariants {
    polls: InFlight,
    writes: InFlight,
    /// The latest end that was written for each uid.
    ends: HashMap<String, String>,
    /// Uids whose status another leader wrote, unnoticed until then.
    contested: HashSet<String>,
    /// The process that wrote the status of each uid last.
    writers: HashMap<String, usize>,
    /// What each process wrote last for each uid.
    written: [HashMap<String, ImageExportJobStatus>; 2],
    /// Uids whose status others wrote: the next write is not compared with it.
    edited: HashSet<String>,
    /// Writes of each uid in a row of which an older CRD left nothing new.
    repeats: HashMap<String, u32>,
    pub wall_has_stepped: bool,
    ticks: (u64, usize),
    sent: (u64, usize),
}

/// What is in flight, and for which uid.
#[derive(Default)]
pub struct InFlight {
    by_sequence: HashMap<u64, String>,
    uids: HashSet<String>,
}

impl InFlight {
    /// Returns whether nothing else is in flight for this uid.
    fn began(&mut self, sequence: u64, uid: &str) -> bool {
        self.by_sequence.insert(sequence, uid.to_owned());
        self.uids.insert(uid.to_owned())
    }

    fn ended(&mut self, sequence: u64) {
        if let Some(uid) = self.by_sequence.remove(&sequence) {
            self.uids.remove(&uid);
        }
    }
}

pub fn condition<'s>(status: &'s ImageExportJobStatus, type_: &str) -> Option<&'s Condition> {
    status.conditions.iter().find(|c| c.type_ == type_)
}

impl Invariants {
    /// Others than the tracker changed the status.
    pub fn edited(&mut self, uid: &str) {
        self.edited.insert(uid.to_owned());
        self.ends.remove(uid);
    }

    /// A new process started: nothing is in flight any more.
    pub fn restarted(&mut self, process: usize) {
        self.polls = InFlight::default();
        self.writes = InFlight::default();
        self.written[process].clear();
    }

    /// Another process is in turn: exchanges what is in flight.
    pub fn exchange(&mut self, in_flight: &mut [InFlight; 2]) {
        let [polls, writes] = in_flight;
        std::mem::swap(&mut self.polls, polls);
        std::mem::swap(&mut self.writes, writes);
    }

    /// A leader was shown the object. It takes for an edit what another leader wrote.
    pub fn shown_to_leader(&mut self, process: usize, uid: &str) {
        if self
            .writers
            .get(uid)
            .is_some_and(|writer| *writer != process)
        {
            self.edited(uid);
            self.contested.insert(uid.to_owned());
        }
    }

    pub fn tick(&mut self, second: u64, limit: usize) {
        if self.ticks.0 != second {
            self.ticks = (second, 0);
        }
        self.ticks.1 += 1;
        assert!(self.ticks.1 <= limit, "busy loop in second {second}");
    }

    /// A status, a read or a deletion was sent: the API server is not kept busy.
    pub fn sent_to_server(&mut self, second: u64) {
        if self.sent.0 != second {
            self.sent = (second, 0);
        }
        self.sent.1 += 1;
        assert!(self.sent.1 <= 200, "busy loop in second {second}");
    }

    pub fn poll_sent(&mut self, sequence: u64, uid: &str) {
        assert!(
            self.polls.began(sequence, uid),
            "two polls of {uid} in flight"
        );
    }

    pub fn poll_ended(&mut self, sequence: u64) {
        self.polls.ended(sequence);
    }

    pub fn write_sent(&mut self, uid: &str, job: &str, write: &StatusWrite) {
        self.change_sent(write.ticket.sequence, uid);
        check_status(job, &write.status);
        let times = (&write.status.start_time, &write.status.completion_time);
        // A begin that becomes plausible by a step of the wall clock may be later than the end noted before.
        if let (Some(start), Some(completion)) = times
            && !self.wall_has_stepped
        {
            assert!(start.0 <= completion.0, "ends before it begins: {times:?}");
        }
    }

    /// A write or a deletion was sent.
    pub fn change_sent(&mut self, sequence: u64, uid: &str) {
        assert!(
            self.writes.began(sequence, uid),
            "two writes of {uid} in flight"
        );
    }

    pub fn write_ended(&mut self, sequence: u64) {
        self.writes.ended(sequence);
    }

    /// The API server replaces the status of the object by this one. `stored`: what an older CRD leaves of it.
    pub fn write_landed(
        &mut self,
        object: &ImageExportJob,
        new: &ImageExportJobStatus,
        stored: &ImageExportJobStatus,
        walls: &[i64],
        writer: usize,
    ) {
        let uid = object
            .metadata
            .uid
            .as_deref()
            .expect("stored objects have a uid");
        let old = object.status.clone().unwrap_or_default();
        // Others may sort the conditions or add some of theirs: each write has something new of ours, or
        // they and the operator would write against one another. A field that an older CRD prunes is new
        // once a process.
        let before = self.written[writer].insert(uid.to_owned(), new.clone());
        let is_new = before.is_none_or(|before| own_part(&before) != own_part(new));
        let changes =
            own_part(&old) != own_part(stored) || is_new && own_part(&old) != own_part(new);
        // A leader may write what another one has just written.
        let is_contested = self.contested.remove(uid);
        // A pruned status whose reply is lost is not recognized, and written again.
        let repeats = self.repeats.entry(uid.to_owned()).or_default();
        *repeats = if changes { 0 } else { *repeats + 1 };
        let is_lost = stored != new && *repeats <= 20;
        assert!(
            changes || is_contested || is_lost,
            "a write that changes nothing: {new:?}"
        );
        self.writers.insert(uid.to_owned(), writer);
        assert_eq!(new.observed_generation, object.metadata.generation);
        if !self.edited.remove(uid) {
            check_transition_times(&old, new, walls);
        }
        if stored != new {
            // If its reply is lost, a pruned status is not recognized, and replaced with new times.
            self.edited.insert(uid.to_owned());
        }
        if let Some(end) = self.ends.get(uid) {
            assert_eq!(new.status.as_ref(), Some(end), "an end is final");
        }
        if let Some(end) = new
            .status
            .as_ref()
            .filter(|status| *status == "SUCCESS" || *status == "FAIL")
        {
            self.ends.insert(uid.to_owned(), end.clone());
        }
    }
}

/// Checks that the tracker may delete this object now. `exact`: in the version that the tracker knows. Otherwise its
/// spec may have been changed while the deletion was under way.
pub fn check_deletion(object: &ImageExportJob, second: i64, exact: bool) {
    let status = object.status.as_ref().expect("it is finished");
    let succeeded = condition(status, types::SUCCEEDED).expect("it is finished");
    assert_ne!(succeeded.status, "Unknown", "{status:?}");
    let transition: jiff::Timestamp = succeeded.last_transition_time.parse().expect("a time");
    assert!(status.completion_time.is_some());
    if !exact {
        return;
    }
    let ttl = object.spec.ttl_seconds_after_finished;
    let ttl = ttl.expect("only objects with a ttl are deleted");
    assert!(
        transition.as_second() + i64::from(ttl) <= second,
        "too early: {status:?}"
    );
    assert_eq!(status.observed_generation, object.metadata.generation);
}

/// A status without what belongs to others: their conditions, and the order of all.
fn own_part(status: &ImageExportJobStatus) -> ImageExportJobStatus {
    let mut own = status.clone();
    own.conditions
        .retain(|c| types::ALL.contains(&c.type_.as_str()));
    own.conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    own
}

/// Checks that a status is consistent, and that it is the same after parsing.
fn check_status(job: &str, status: &ImageExportJobStatus) {
    assert!(condition(status, types::READY).is_some());
    assert!(condition(status, types::SUCCEEDED).is_some());
    let both = condition(status, types::RECONCILING).is_some()
        && condition(status, types::STALLED).is_some();
    assert!(!both, "Reconciling beside Stalled: {status:?}");
    assert!(status.conditions.len() <= CONDITIONS_MAX);
    for condition in &status.conditions {
        if types::ALL.contains(&condition.type_.as_str()) {
            assert_eq!(condition.observed_generation, status.observed_generation);
            assert!(condition.message.len() <= 1024 && condition.message.contains(job));
        }
    }
    let Some(snapshot) = Snapshot::parse(status, job) else {
        panic!("a written status does not parse: {status:?}");
    };
    let unowned = unowned(Some(status)).unwrap_or_default();
    assert_eq!(
        &snapshot.render(job, &unowned),
        status,
        "renders to the same status"
    );
}

/// Checks that a transition time changes if, and only if, the status of its condition changes.
/// `walls`: the present, by the wall clock before and after each step of it.
fn check_transition_times(old: &ImageExportJobStatus, new: &ImageExportJobStatus, walls: &[i64]) {
    for now in &new.conditions {
        let Some(before) = condition(old, &now.type_) else {
            continue;
        };
        if before.status == now.status {
            assert_eq!(
                before.last_transition_time, now.last_transition_time,
                "{new:?}"
            );
        } else {
            let at: jiff::Timestamp = now.last_transition_time.parse().expect("a time");
            let mut walls = walls.iter();
            assert!(
                walls.any(|wall| (wall - 60..=*wall).contains(&at.as_second())),
                "{at}"
            );
        }
    }
}

/// Checks after each step that what is under way for each object is what would be decided now.
pub fn check_decisions(world: &World) {
    let now = world.tracker.moment(world.present());
    let leading = world.tracker.state.leading;
    for (_, job) in world.tracker.state.jobs.iter() {
        let decision = decide(&world.config, &job, now);
        if job.is_active() {
            let is_off = job.polling.stage == PollStage::Off;
            assert!(!is_off, "no poll is planned: {job:?}");
        }
        let is_overdue =
            leading && !world.tracker.state.stopping && job.is_overdue(&world.config, now.at);
        let shows_wait = job.evidence.poll_overdue.is_some();
        assert!(shows_wait || !is_overdue, "overdue without a word: {job:?}");
        match (job.polling.stage, decision.poll) {
            (PollStage::InFlight(_), _)
            | (PollStage::Off, None)
            | (PollStage::AwaitingSecret, Some(Due::Requested)) => {}
            (PollStage::Scheduled(at), Some(Due::Since(due))) => assert_eq!(at, due, "{job:?}"),
            (PollStage::Queued(queued), Some(due)) => assert_eq!(queued, due, "{job:?}"),
            (PollStage::AwaitingSecret, Some(Due::Since(at))) => assert!(at <= now.at, "{job:?}"),
            (stage, poll) => panic!("{stage:?} where {poll:?} was decided: {job:?}"),
        }
        let no_deletion = world.tracker.state.stopping;
        let change = decision
            .change
            .filter(|change| !(no_deletion && *change == Priority::Expiry));
        match (&job.sync.stage, change) {
            (ChangeStage::Idle | ChangeStage::Rejected { .. }, Some(change)) if leading => {
                panic!("{change:?} is not queued: {job:?}");
            }
            (ChangeStage::Queued(queued), change) if leading => {
                assert_eq!(Some(*queued), change, "{job:?}");
            }
            _ => {}
        }
        // A sleep moves the time at which a deadline is shown, and no timer with it.
        let is_moved = !world.slept.is_empty() && job.limits.deadline.is_some();
        if let Some(wake) = decision.wake.filter(|_| !is_moved) {
            let timer = job.timer.expect("a timer");
            assert!(timer <= wake, "wakes too late: {job:?}");
        }
    }
}

/// Checks after each step that what is counted as objects change is what a pass over them finds.
pub fn check_totals(world: &World) {
    let (now, state) = (world.tracker.moment(world.present()), &world.tracker.state);
    let mut expected = Census {
        oldest_answer: Duration::ZERO,
        ..world.census()
    };
    expected.objects.clear();
    (expected.polls_waiting, expected.polls_overdue) = (0, 0);
    let mut is_unwritten = false;
    let mut users: BTreeMap<SecretKey, Vec<(JobKey, Tally)>> = BTreeMap::new();
    for (key, job) in state.jobs.iter() {
        let shown = job.sync.acknowledged();
        let reason = shown.map_or("", |shown| shown.phase.row().reason);
        *expected.objects.entry(reason).or_default() += 1;
        is_unwritten |= match job.sync.stage {
            ChangeStage::Queued(priority) => priority != Priority::Expiry,
            ChangeStage::Writing { .. }
            | ChangeStage::Unconfirmed { .. }
            | ChangeStage::Fetching { .. } => true,
            ChangeStage::Idle
            | ChangeStage::Rejected { .. }
            | ChangeStage::Rereading { .. }
            | ChangeStage::Deleting { .. } => false,
        };
        let secret = state.secrets.state(job.secret);
        if state.leading {
            let is_waiting = match job.polling.stage {
                PollStage::Queued(_) => true,
                PollStage::AwaitingSecret => !matches!(secret, SecretState::Misconfigured(_)),
                _ => false,
            };
            expected.polls_waiting += usize::from(is_waiting);
            expected.polls_overdue += usize::from(job.is_overdue(&world.config, now.at));
            if job.is_active() && !job.evidence.needs_action() {
                let age = now.at.saturating_sub(job.answered_at);
                expected.oldest_answer = expected.oldest_answer.max(age);
            }
        }
        let tally = Tally::of(&world.config, now.at, &job, secret);
        users.entry(job.secret).or_default().push((key, tally));
    }
    let census = world.census();
    let rounded = expected.oldest_answer.saturating_sub(census.oldest_answer);
    assert!(rounded < Duration::from_millis(125), "{rounded:?}");
    expected.oldest_answer = census.oldest_answer.min(expected.oldest_answer);
    assert_eq!(census, expected);
    assert_eq!(world.tracker.has_unwritten(), state.leading && is_unwritten);
    for (secret, users) in users {
        state.secrets.check_users(secret, &users);
    }
}

/// Each Event about a phase comes with a transition of the same sentence.
pub fn check_transitions(output: &Output) {
    for event in &output.events {
        let same = |transition: &&Transition| {
            transition.key == event.key && transition.after.row().reason == event.reason
        };
        let is_phase = Phase::from_reason(event.reason, false).is_some();
        let found = output.transitions.iter().find(same);
        let found = found.map(|transition| &transition.message);
        assert_eq!(found, Some(&event.note).filter(|_| is_phase), "{event:?}");
    }
    for transition in &output.transitions {
        assert_ne!(transition.before, Some(transition.after), "{transition:?}");
    }
}

/// Checks that Secrets alone are read, and no event is published, without leadership.
pub fn check_standby(output: &Output) {
    let is_read = |effect: &Effect| matches!(effect, Effect::ReadCredential(_));
    let nothing = output.effects.iter().all(is_read) && output.events.is_empty();
    assert!(nothing, "not leading: {output:?}");
}

/// Checks that a process that is about to end sends statuses and what confirms them, and nothing else.
pub fn check_stopping(output: &Output) {
    for effect in &output.effects {
        let is_status = matches!(effect, Effect::WriteStatus(_) | Effect::Fetch(..));
        assert!(is_status, "stopping: {effect:?}");
    }
}
