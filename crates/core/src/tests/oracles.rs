//! What must hold over a whole life: each of these remembers what an operator process was told, and fails as
//! soon as the process acts against it. [`World`](super::world::World) calls them at each step.

use crate::{
    Config, CredentialRef, Deletion, FetchResult, Input, Output, PollRequest, PollTicket, Tracker,
    WriteResult,
    intake::INVALID_OBJECT,
    job::{Job, PollStage},
    keys::GroupKey,
    phase::Phase,
    registry::View,
    time::Due,
};
use image_export_api::{ImageExportJobStatus, conditions::types};
use image_export_model::{JobState, Observation, Outcome, Stage};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

/// Reasons of plain progress: an Event for them only ends trouble.
const PROGRESS: [&str; 4] = ["Pending", "JobInitializing", "JobRunning", "ImageIDPending"];
/// Reasons that are neither progress nor trouble.
const GOOD: [&str; 2] = ["JobSucceeded", "Suspended"];

/// Where a pause that the cloud asked for applies.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Paused {
    /// Polls with accepted credentials at this host, for this project.
    Host(Arc<str>, String),
    /// Polls with this Secret, for this project.
    Secret(String, String),
}

/// A bucket since the end of a pause.
#[derive(Debug)]
struct Drained {
    until: Duration,
    polls: u32,
    /// Polls that ended without a request, so that their token is given back.
    refunds: u32,
}

/// What is remembered of one process.
#[derive(Debug, Default)]
struct Memory {
    /// Content of each Secret as read last.
    versions: HashMap<String, u64>,
    /// Host at which the content of a Secret was accepted for a project, while the same objects use it.
    accepted: HashMap<(String, String), (Arc<str>, GroupKey)>,
    pauses: Vec<(Paused, Duration)>,
    drained: HashMap<String, Drained>,
    /// Accepted poll requests that no poll has followed yet.
    requests: HashSet<Arc<str>>,
    handled: HashMap<Arc<str>, Option<Arc<str>>>,
    /// Since when the image id is awaited.
    awaited: HashMap<Arc<str>, Duration>,
    /// The latest attempt to get an image id, with the leadership in which it was made.
    attempts: HashMap<Arc<str>, (Duration, u32)>,
    /// Objects that were shown as running.
    has_run: HashSet<Arc<str>>,
    /// Since when each object is observed without a gap, and whether it was suspended.
    observed: HashMap<Arc<str>, (Duration, bool)>,
    /// Objects that were not read since a change of them met a conflict.
    unread: HashSet<Arc<str>>,
    /// Objects with evidence of `PollFailed`, of `PollOverdue` or of `JobNotFound` for good.
    troubled: [HashSet<Arc<str>>; 3],
}

/// What is remembered of all.
#[derive(Debug, Default)]
pub struct Oracles {
    processes: [Memory; 2],
    /// Reasons that the API server has shown of each uid, without repetitions.
    shown: HashMap<String, Vec<String>>,
    /// How often the API server has stored a status of each uid.
    writes: HashMap<String, usize>,
    /// The latest Event of each process about each uid, and how many reasons were shown by then.
    events: [HashMap<String, (&'static str, usize)>; 2],
}

fn jobs(tracker: &Tracker) -> impl Iterator<Item = View<'_>> {
    tracker.state.jobs.iter().map(|(_, job)| job)
}

/// Secret and project of an object.
fn credential(tracker: &Tracker, job: &Job) -> (String, String) {
    let state = &tracker.state;
    let secret = name_of(state.secrets.reference(job.secret));
    let project = state.quotas.project(job.group);
    (secret, project.as_str().to_owned())
}

fn name_of(reference: &CredentialRef) -> String {
    format!(
        "{}/{}",
        reference.namespace,
        reference.cloud.secret_name.as_str()
    )
}

/// How long the cloud asks for no poll of this kind, if it does.
fn asked_pause(config: &Config, seen: &Observation) -> Option<Duration> {
    let is_asked = match &seen.outcome {
        Outcome::Throttled => true,
        Outcome::Answered(_) => false,
        Outcome::Failed(failure) if failure.stage == Stage::Login => false,
        _ => seen.retry_after.is_some() && seen.endpoint.is_some(),
    };
    let asked = seen.retry_after.unwrap_or_default();
    is_asked.then(|| asked.clamp(config.pause_min, config.pause_max))
}

impl Oracles {
    /// A process has crashed, and with it what it remembered.
    pub fn restarted(&mut self, process: usize) {
        self.processes[process] = Memory::default();
    }

    /// The whole machine has slept until now.
    pub fn slept(&mut self, now: Duration) {
        for memory in &mut self.processes {
            for (since, _) in memory.observed.values_mut() {
                *since = now;
            }
        }
    }

    /// Notes what a process is about to be told.
    pub fn before(
        &mut self,
        process: usize,
        now: Duration,
        config: &Config,
        tracker: &Tracker,
        input: &Input,
    ) {
        let memory = &mut self.processes[process];
        match input {
            Input::CredentialRead(reference, Ok(version)) => {
                let secret = name_of(reference);
                let before = memory.versions.insert(secret.clone(), *version);
                if before != Some(*version) {
                    memory.accepted.retain(|(of, _), _| *of != secret);
                }
            }
            Input::Wrote(ticket, WriteResult::Conflict) => {
                let job = tracker.state.jobs.get(ticket.job);
                memory.unread.extend(job.map(|job| job.uid.text()));
            }
            Input::Fetched(ticket, FetchResult::Found(_)) => {
                let job = tracker.state.jobs.get(ticket.job);
                memory
                    .unread
                    .retain(|uid| job.as_ref().is_none_or(|job| job.uid != **uid));
            }
            Input::Polled(ticket, seen) => memory.answered(now, config, tracker, ticket, seen),
            _ => {}
        }
    }

    /// Notes what a process has made of an input, and checks what it publishes.
    pub fn after(
        &mut self,
        process: usize,
        now: Duration,
        config: &Config,
        tracker: &Tracker,
        was_leading: bool,
        output: &Output,
    ) {
        let leading = tracker.state.leading;
        let memory = &mut self.processes[process];
        memory.forget_unused(tracker);
        if !leading {
            // What the leader shows replaces what this process has observed.
            memory.has_run.clear();
        }
        if leading && !was_leading {
            for (since, _) in memory.observed.values_mut() {
                *since = now;
            }
        }
        for job in jobs(tracker) {
            memory.note(now, config, &job, leading && was_leading);
        }
        // What was published without leadership would be published late, at its beginning.
        let has_begun = leading && !was_leading;
        for event in &output.events {
            let late = [INVALID_OBJECT, "PollRequestIgnored"].contains(&event.reason);
            assert!(!has_begun || late, "published late: {event:?}");
            if !late {
                self.check_event(process, &event.uid, event.reason);
            }
        }
    }

    /// Events are published for ends, for trouble and for its end, once each time they are shown.
    fn check_event(&mut self, process: usize, uid: &str, reason: &'static str) {
        let shown = self.shown.get(uid).map_or(&[][..], Vec::as_slice);
        let is_shown = shown.iter().rposition(|other| other == reason);
        let at = is_shown.unwrap_or_else(|| panic!("{reason} was never shown: {shown:?}"));
        let is_trouble = |other: &String| {
            let is = |list: &[&str]| list.contains(&other.as_str());
            !is(&PROGRESS) && !is(&GOOD)
        };
        if PROGRESS.contains(&reason) {
            let ends_trouble = shown[..at].iter().any(is_trouble);
            assert!(ends_trouble, "plain progress: {reason} after {shown:?}");
        }
        let before = self.events[process].insert(uid.to_owned(), (reason, shown.len()));
        if let Some((_, length)) = before.filter(|(before, _)| *before == reason) {
            assert!(shown.len() > length + 1, "twice: {reason} in {shown:?}");
        }
    }

    /// The API server has stored a status.
    pub fn landed(&mut self, uid: &str, status: &ImageExportJobStatus) {
        *self.writes.entry(uid.to_owned()).or_default() += 1;
        let ready = status.conditions.iter().find(|c| c.type_ == types::READY);
        let reason = &ready.expect("written statuses have it").reason;
        let shown = self.shown.entry(uid.to_owned()).or_default();
        if shown.last() != Some(reason) {
            shown.push(reason.clone());
        }
    }

    /// A deletion is sent by a process.
    pub fn deletion_sent(&self, process: usize, deletion: &Deletion) {
        let is_read = !self.processes[process].unread.contains(&deletion.uid);
        assert!(
            deletion.version.is_some() || is_read,
            "not read: {deletion:?}"
        );
    }

    /// How often the status of one object was written at most.
    pub fn most_writes(&self) -> usize {
        self.writes.values().copied().max().unwrap_or_default()
    }

    /// Others than the operator changed the status: what was shown may be shown anew.
    pub fn edited(&mut self, uid: &str) {
        for events in &mut self.events {
            events.remove(uid);
        }
    }

    /// A poll is sent by a process, to this host.
    pub fn poll_sent(
        &mut self,
        process: usize,
        now: Duration,
        config: &Config,
        tracker: &Tracker,
        poll: &PollRequest,
        host: &Arc<str>,
    ) {
        let job = tracker.state.jobs.get(poll.ticket.job);
        let job = job.expect("effects name live objects");
        assert!(!job.is_being_deleted, "polled though deleted: {job:?}");
        self.processes[process].poll_sent(now, config, tracker, &job, poll, host);
    }

    /// A status is sent by a process.
    pub fn write_sent(&mut self, process: usize, uid: &Arc<str>, status: &ImageExportJobStatus) {
        let has_run = &mut self.processes[process].has_run;
        match status.status.as_deref() {
            Some("RUNNING") => _ = has_run.insert(uid.clone()),
            Some("INIT") => assert!(!has_run.contains(uid), "INIT after RUNNING: {status:?}"),
            _ => {}
        }
    }

    /// Checks a process after a step.
    pub fn check(&self, process: usize, tracker: &Tracker) {
        let state = &tracker.state;
        let held = (state.output.effects.len(), state.output.events.len());
        assert_eq!(held, (0, 0), "kept for later");
        // Replaced entries of queues are dropped before they are many.
        let objects = state.jobs.len();
        assert!(state.writes.len() <= 2 * objects && state.timers.len() <= 4 * objects);
        let memory = &self.processes[process];
        for job in jobs(tracker).filter(|job| memory.requests.contains(&job.uid.text())) {
            let is_in_flight = matches!(job.polling.stage, PollStage::InFlight(_));
            let is_wanted = job.polling.wanted == Some(Due::Requested);
            assert!(is_in_flight || is_wanted, "request lost: {job:?}");
        }
    }

    /// Checks a process that was left alone for a while.
    pub fn check_idle(&self, process: usize) {
        let requests = &self.processes[process].requests;
        assert!(requests.is_empty(), "never polled: {requests:?}");
    }
}

impl Memory {
    fn answered(
        &mut self,
        now: Duration,
        config: &Config,
        tracker: &Tracker,
        ticket: &PollTicket,
        seen: &Observation,
    ) {
        let state = &tracker.state;
        let bucket = format!("{:?}", ticket.charge.bucket);
        if let Some(drained) = self.drained.get_mut(&bucket) {
            drained.refunds += u32::from(seen.requests == 0 && now >= drained.until);
        }
        let job = state.jobs.get(ticket.job);
        // What was not asked is no attempt.
        if let (Outcome::Deferred(_), Some(job)) = (&seen.outcome, &job) {
            self.attempts.remove(&job.uid.text());
        }
        let job = job.filter(|job| job.secret == ticket.secret);
        // The Secret may have no object any more; then nothing new uses its bucket.
        let Some(job) = job else {
            return;
        };
        let credential = credential(tracker, &job);
        if let Some(pause) = asked_pause(config, seen) {
            let until = now + pause;
            let queried = seen.queried.as_ref();
            let accepted = self.accepted.get(&credential).map(|(host, _)| host.clone());
            let is_elsewhere = accepted.as_ref().is_some_and(|host| queried != Some(host));
            let is_current = state
                .secrets
                .is_current(ticket.secret, ticket.credential_version);
            match accepted {
                // Former content had another host.
                Some(_) if is_elsewhere && !is_current => return,
                // The catalog has come to name another one, where nothing is accepted yet.
                Some(_) if is_elsewhere => _ = self.accepted.remove(&credential),
                Some(host) => {
                    let host = Paused::Host(host, credential.1.clone());
                    self.pauses.push((host, until));
                }
                None => {}
            }
            let (secret, project) = credential;
            self.pauses.push((Paused::Secret(secret, project), until));
            let drained = self.drained.entry(bucket).or_insert(Drained {
                until,
                polls: 0,
                refunds: 0,
            });
            if until >= drained.until {
                *drained = Drained {
                    until,
                    polls: 0,
                    refunds: 0,
                };
            }
            return;
        }
        let Outcome::Answered(answer) = &seen.outcome else {
            return;
        };
        let is_end = matches!(answer.state, JobState::Success | JobState::Fail);
        let is_dropped = job.suspended && !is_end && !job.evidence.has_ended();
        let is_current = ticket.epoch == state.epoch
            && job.polling.stage == PollStage::InFlight(ticket.sequence)
            && state
                .secrets
                .is_current(ticket.secret, ticket.credential_version);
        if is_current
            && !is_dropped
            && let Some(host) = &seen.queried
        {
            let accepted = (host.clone(), job.group);
            self.accepted.entry(credential).or_insert(accepted);
        }
    }

    /// Drops what is remembered of objects and credentials that are gone.
    fn forget_unused(&mut self, tracker: &Tracker) {
        let groups: HashSet<_> = jobs(tracker).map(|job| job.group).collect();
        self.accepted.retain(|_, (_, group)| groups.contains(group));
        let uids: HashSet<_> = jobs(tracker).map(|job| job.uid.text()).collect();
        let is_gone = |uid: &Arc<str>| !uids.contains(uid);
        self.requests.retain(|uid| !is_gone(uid));
        self.observed.retain(|uid, _| !is_gone(uid));
        self.awaited.retain(|uid, _| !is_gone(uid));
        self.unread.retain(|uid| !is_gone(uid));
        // A late version of a deleted object can bring back what its record has shown first.
        self.has_run.retain(|uid| !is_gone(uid));
    }

    fn note(&mut self, now: Duration, config: &Config, job: &Job, leading: bool) {
        let uid = &job.uid.text();
        // A gap in what is observed ends what was consecutive.
        let is_known = self.observed.contains_key(uid);
        let observed = self.observed.entry(uid.clone());
        let (since, was_suspended) = observed.or_insert((now, job.suspended));
        if std::mem::replace(was_suspended, job.suspended) && !job.suspended {
            *since = now;
        }
        let evidence = &job.evidence;
        let troubles = [
            (evidence.poll_failed.is_some(), config.failure_grace),
            (evidence.poll_overdue.is_some(), config.slow_period),
            (evidence.not_found, config.not_found_grace),
        ];
        for ((holds, grace), troubled) in troubles.into_iter().zip(&mut self.troubled) {
            if !holds {
                troubled.remove(uid);
            } else if troubled.insert(uid.clone()) && leading && is_known {
                assert!(now - *since >= grace, "too early: {job:?}");
            }
        }
        // A poll request is accepted where a poll makes sense, and is polled then.
        let handled = job.handled_request.clone();
        let before = self.handled.insert(uid.clone(), handled.clone());
        let is_new = before.is_none_or(|before| before != handled)
            && job.polling.wanted == Some(Due::Requested);
        if !leading || job.suspended || !job.accepts_request() {
            self.requests.remove(uid);
        } else if is_new {
            self.requests.insert(uid.clone());
        }
        // The image id is given up after so many attempts, which keep their distance.
        let awaits = job.phase() == Some(Phase::ImageIdPending);
        if awaits {
            self.awaited.entry(uid.clone()).or_insert(now);
        } else if let Some(since) = self.awaited.remove(uid)
            && leading
            && job.phase() == Some(Phase::ImageIdMissing)
        {
            let attempts = u32::from(config.image_id_attempts);
            assert!(
                now - since >= config.image_id_period * attempts,
                "given up after {:?}: {job:?}",
                now - since
            );
        }
    }

    fn poll_sent(
        &mut self,
        now: Duration,
        config: &Config,
        tracker: &Tracker,
        job: &Job,
        poll: &PollRequest,
        host: &Arc<str>,
    ) {
        self.requests.remove(&job.uid.text());
        // No poll comes before a `Retry-After`, whatever is deleted, re-created or changed meanwhile.
        let (secret, project) = credential(tracker, job);
        // What accepted credentials are asked for holds for the others of their namespaces as well.
        let namespace = |secret: &str| secret.split('/').next().map(str::to_owned);
        let is_alike = |((other, of), (at, _)): (&(String, String), &(Arc<str>, GroupKey))| {
            *of == project && at == host && namespace(other) == namespace(&secret)
        };
        let accepted_at = match self.accepted.get(&(secret.clone(), project.clone())) {
            Some((at, _)) => Some(at),
            None => self.accepted.iter().any(is_alike).then_some(host),
        };
        let at_host = accepted_at.map(|at| Paused::Host(at.clone(), project.clone()));
        let by_secret = Paused::Secret(secret, project);
        for (paused, until) in &self.pauses {
            let applies = Some(paused) == at_host.as_ref() || *paused == by_secret;
            assert!(
                !applies || now >= *until,
                "polled before {until:?}, the pause of {paused:?}"
            );
        }
        self.pauses.retain(|(_, until)| *until > now);
        // Nothing is saved up during a pause: no burst follows it.
        let bucket = format!("{:?}", poll.ticket.charge.bucket);
        if let Some(drained) = self.drained.get_mut(&bucket)
            && now >= drained.until
        {
            drained.polls += 1;
            let time = (now - drained.until).as_secs_f64();
            let earned = time * config.quota_rate + f64::from(drained.refunds);
            assert!(
                f64::from(drained.polls) <= earned + 0.001,
                "a burst after the pause until {:?}",
                drained.until
            );
        }
        if job.phase() == Some(Phase::ImageIdPending) {
            let epoch = tracker.state.epoch;
            let before = self.attempts.insert(job.uid.text(), (now, epoch));
            if let Some((at, _)) = before.filter(|(_, of)| *of == epoch) {
                assert!(
                    now - at >= config.image_id_period,
                    "attempts at {at:?} and {now:?}"
                );
            }
        }
    }
}
