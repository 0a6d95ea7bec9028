//! The core's loop: input → evidence → dirty objects → one decision each → effects.

use crate::{
    config::Config,
    decide::{Decision, decide},
    effects::{
        Deletion, Effect, FetchTicket, Input, Output, PollRequest, PollTicket, Source, StatusWrite,
        WriteTicket,
    },
    facts::Wait,
    intake,
    job::{Job, Plan, PollStage},
    keys::JobKey,
    outcomes,
    phase::{Detail, Phase, Priority},
    quota::{Charge, Waiting},
    schedule,
    secrets::SecretState,
    state::{Counters, State},
    sync::ChangeStage,
    time::{Due, Moment, Now},
};
use image_export_model::Outcome;
use jiff::Timestamp;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Every effect is answered within this time, unless the process sleeps.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

/// A look at the whole, for gauges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Objects by the reason of their Ready condition; "" where nothing was written yet.
    pub objects: BTreeMap<&'static str, usize>,
    /// Polls that were sent and not yet answered.
    pub polls_in_flight: usize,
    /// Changes of objects that were sent and not yet answered.
    pub writes_in_flight: usize,
    /// Credentials by state: `unread`, `usable`, `rejected` by the cloud, `login_failed`, `broken`.
    pub credentials: BTreeMap<&'static str, usize>,
    /// Quota buckets that wait because the cloud demands it.
    pub paused_buckets: usize,
    /// Quota buckets that use less than their quota, since the cloud throttled them.
    pub throttled_buckets: usize,
    /// Polls that are due and wait for their quota or for a read of their Secret.
    pub polls_waiting: usize,
    /// Unfinished objects whose poll is overdue because it waits for its quota or is throttled.
    pub polls_overdue: usize,
    /// The longest time since the cloud reported a job, of the unfinished objects that are not suspended, to an eighth
    /// of a second.
    pub oldest_answer: Duration,
    /// Counters since the start.
    pub counters: Counters,
}

/// The core: takes inputs, decides about the objects that they touch, and asks for effects.
pub struct Tracker {
    pub(crate) state: State,
    /// Added to [`Now::mono`], gives the time on the steady clock.
    clock_offset: Duration,
    /// When the latest input was handled.
    handled_at: Duration,
}

impl Tracker {
    /// A tracker that knows nothing and does not lead.
    #[must_use]
    pub fn new(config: Config, now: Now) -> Self {
        let since_epoch = now
            .wall
            .duration_since(Timestamp::UNIX_EPOCH)
            .unsigned_abs();
        let clock_offset = since_epoch.saturating_sub(now.mono);
        let at = now.mono + clock_offset;
        Self {
            state: State::new(config, at),
            clock_offset,
            handled_at: at,
        }
    }

    pub(crate) fn moment(&self, now: Now) -> Moment {
        Moment {
            at: now.mono + self.clock_offset,
            wall: now.wall.as_second(),
        }
    }

    /// Takes one input and asks for what is to be done about it. Without leadership Secrets alone are read, so
    /// that a new leader polls at once; everything else waits.
    pub fn handle(&mut self, now: Now, input: Input, output: &mut Output) {
        let now = self.moment(now);
        // What was due before the input comes first.
        self.state.quotas.end_pauses(now.at);
        self.fire_timers(now);
        self.apply(now, input);
        self.decide_dirty(now);
        let (leading, stopping) = (self.state.leading, self.state.stopping);
        if !stopping {
            self.send_reads(now);
        }
        if leading && !stopping {
            self.send_polls(now);
        }
        self.note_waits();
        self.decide_dirty(now);
        if leading {
            self.send_changes(now);
            output.events.append(&mut self.state.output.events);
            let transitions = &mut self.state.output.transitions;
            output.transitions.append(transitions);
        }
        output.effects.append(&mut self.state.output.effects);
        while let Some(key) = self.state.jobs.next_opened() {
            self.state.close(now, key);
        }
    }

    fn apply(&mut self, now: Moment, input: Input) {
        let state = &mut self.state;
        match input {
            Input::ListStarted(source) => state.jobs.begin_list(source),
            Input::Applied(source, object) => intake::apply_object(state, now, source, object),
            Input::Undecodable {
                source,
                key,
                uid,
                error,
            } => {
                intake::apply_undecodable(state, now, source, &key, &uid, &error);
            }
            Input::Listed(source) => intake::apply_listed(state, now, source),
            Input::Deleted(key, uid) => intake::apply_deleted(state, now, &key, uid.as_deref()),
            Input::CredentialRead(reference, result) => {
                outcomes::apply_read(state, now, &reference, result);
            }
            Input::Polled(ticket, seen) => outcomes::apply_poll(state, now, &ticket, &seen),
            Input::Wrote(ticket, result) => outcomes::apply_write(state, now, &ticket, result),
            Input::Fetched(ticket, result) => outcomes::apply_fetch(state, now, &ticket, result),
            Input::Leading(leading) => self.apply_leadership(now, leading),
            Input::Stopping => {
                state.stopping = true;
                // Takes deletions out of the queue.
                state.dirty.extend(state.jobs.keys(None));
            }
            Input::Tick => {}
        }
    }

    /// A change of leadership voids what is in flight. A new leader has not observed any job for a while. It
    /// polls each at its usual instant: the former leader has polled it until now.
    fn apply_leadership(&mut self, now: Moment, leading: bool) {
        let state = &mut self.state;
        if std::mem::replace(&mut state.leading, leading) == leading {
            return;
        }
        state.epoch += 1;
        if leading {
            state.leading_since = now.at;
            state.secrets.apply_new_leadership();
            state.output.events.append(&mut state.jobs.take_reports());
            state.secrets.forget_priors();
            for key in state.jobs.keys(None) {
                begin_to_follow(state, now, key);
                if state.jobs.get_mut(key).is_some_and(|job| job.is_active()) {
                    state.set_interval(now, key, false);
                }
                state.dirty.push(key);
                state.close(now, key);
            }
        }
    }

    /// When [`Input::Tick`] is due, on the clock of [`Now::mono`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let next = self.next_wake()?;
        Some(next.saturating_sub(self.clock_offset))
    }

    /// The same on the steady clock.
    fn next_wake(&self) -> Option<Duration> {
        let state = &self.state;
        let decisions = [state.timers.next_wake(), state.secrets.next_plan()];
        let reads = state.secrets.next_wake().filter(|_| !state.stopping);
        let polls = state
            .quotas
            .next_wake()
            .filter(|_| state.leading && !state.stopping);
        let writes = state.writes.next_wake().filter(|_| state.leading);
        let all = decisions.into_iter().chain([reads, polls, writes]);
        all.flatten().min()
    }

    /// Whether every source has been listed once.
    #[must_use]
    pub fn has_listed(&self, sources: u16) -> bool {
        (0..sources).all(|source| self.state.jobs.has_listed(Source(source)))
    }

    /// Whether this process is still to write a status, or to confirm its write.
    #[must_use]
    pub fn has_unwritten(&self) -> bool {
        self.state.leading && self.state.totals.unwritten > 0
    }

    /// How many objects there are of each kind, as of the latest input.
    #[must_use]
    pub fn census(&self, now: Now) -> Census {
        let now = self.moment(now);
        let state = &self.state;
        let mut census = Census {
            objects: state.totals.by_reason(),
            credentials: state.secrets.census(),
            paused_buckets: state.quotas.paused(now.at),
            throttled_buckets: state.quotas.throttled(&state.config, now.at),
            polls_in_flight: state.quotas.in_flight(),
            writes_in_flight: state.writes.in_flight(),
            counters: state.counters,
            ..Census::default()
        };
        // What a standby has not polled is not overdue.
        if state.leading {
            census.polls_waiting = state.totals.waiting;
            census.polls_overdue = state.totals.overdue;
            census.oldest_answer = state.totals.oldest_answer(now.at);
        }
        census
    }

    /// Marks the objects whose timer fires, and queues the reads of Secrets that are due.
    fn fire_timers(&mut self, now: Moment) {
        // Where nothing is due, replies are awaited, which take less than a minute.
        let due = self.next_wake().unwrap_or(self.handled_at + REPLY_TIMEOUT);
        let has_slept = now.at > due + self.state.config.sleep_threshold;
        self.handled_at = now.at;
        let state = &mut self.state;
        if has_slept {
            for key in state.jobs.keys(None) {
                if let Some(job) = state.jobs.get_mut(key) {
                    job.apply_sleep(now);
                }
                state.dirty.push(key);
                state.close(now, key);
            }
        }
        while let Some(key) = state.timers.pop_due(now.at) {
            state.dirty.push(key);
        }
        while let Some(key) = state.secrets.next_due(now.at) {
            if state.secrets.is_polled(key) {
                state.secrets.request_read(key);
            } else {
                state.secrets.set_unneeded(key);
            }
        }
        self.decide_dirty(now);
    }

    /// Decides about each object that was touched, and compares the decision with what is under way.
    fn decide_dirty(&mut self, now: Moment) {
        while !self.state.dirty.is_empty() {
            for key in std::mem::take(&mut self.state.dirty) {
                let state = &mut self.state;
                let Some(job) = state.jobs.get_mut(key) else {
                    continue;
                };
                let was_pending = job.evidence.pending;
                job.apply_time(&state.config, now, state.leading);
                let is_new = job.evidence.pending && !was_pending && job.waiting(key).is_some();
                if (is_new || job.is_overdue(&state.config, now.at))
                    && state.leading
                    && !state.stopping
                {
                    let wait = if job.is_asked_to_wait(now.at) {
                        Wait::Pause
                    } else {
                        state.quotas.wait(&state.config, now.at, job.group)
                    };
                    job.apply_wait(&state.config, now.at, is_new, wait);
                }
                let decision = decide(&state.config, job, now);
                self.enact(now, key, decision);
                // At once: all of them may be too many to be unpacked.
                self.state.close(now, key);
            }
        }
    }

    fn enact(&mut self, now: Moment, key: JobKey, decision: Decision) {
        self.enact_poll(now, key, &decision);
        let state = &mut self.state;
        let Some(job) = state.jobs.get_mut(key) else {
            return;
        };
        let ends = |priority: &Priority| *priority == Priority::Expiry && state.stopping;
        let change = decision.change.filter(|p| state.leading && !ends(p));
        match (&mut job.sync.stage, change) {
            (
                ChangeStage::Unconfirmed {
                    is_queued: is_queued @ false,
                    ..
                },
                Some(priority),
            ) => {
                *is_queued = true;
                state.queue_change(key, priority);
            }
            (ChangeStage::Queued(queued), Some(priority)) if *queued == priority => {}
            (
                stage @ (ChangeStage::Idle | ChangeStage::Queued(_) | ChangeStage::Rejected { .. }),
                Some(priority),
            ) => {
                *stage = ChangeStage::Queued(priority);
                state.queue_change(key, priority);
            }
            (stage @ ChangeStage::Queued(_), None) => *stage = ChangeStage::Idle,
            _ => {}
        }
        state.set_timer(now, key, decision.wake);
    }

    fn enact_poll(&mut self, now: Moment, key: JobKey, decision: &Decision) {
        let state = &mut self.state;
        let Some(job) = state.jobs.get_mut(key) else {
            return;
        };
        let waiting = job.waiting(key);
        let stage = &mut job.polling.stage;
        *stage = match (*stage, decision.poll) {
            (PollStage::InFlight(_), _) => return,
            (_, None) => PollStage::Off,
            (_, Some(Due::Since(at))) if at > now.at => PollStage::Scheduled(at),
            (_, Some(due)) => match state.secrets.state(job.secret) {
                SecretState::Usable(_) => PollStage::Queued(due),
                SecretState::Unread | SecretState::Misconfigured(_) => PollStage::AwaitingSecret,
            },
        };
        let waits = job.waiting(key);
        let counted = match job.polling.stage {
            PollStage::Off => 0,
            _ => job.demanded_interval(&state.config),
        };
        let before = std::mem::replace(&mut job.polling.counted, counted);
        if before != counted {
            state
                .quotas
                .change_interval(now.at, job.group, before, counted);
        }
        match job.polling.stage {
            PollStage::Queued(_) if state.leading && job.polling.waits_since.is_none() => {
                job.polling.waits_since = Some(now.at);
                state.waiting.push(key);
            }
            PollStage::Queued(_) => {}
            // It waits for something other than its time.
            PollStage::Scheduled(_) if job.is_asked_to_wait(now.at) || job.is_deferred(now.at) => {}
            _ => job.polling.waits_since = None,
        }
        if waits != waiting {
            if let Some(waiting) = waiting {
                state.quotas.remove(&waiting, &job.id);
            }
            if let Some(waits) = waits {
                state.counters.polls_due += u64::from(waiting.is_none());
                state.quotas.push(waits, &job.id);
            }
        }
        if job.polling.stage != PollStage::AwaitingSecret {
            return;
        }
        match state.secrets.state(job.secret) {
            SecretState::Usable(_) => {}
            SecretState::Unread => state.secrets.need(job.secret),
            SecretState::Misconfigured(error) => {
                let is_attempt = decision.phase == Some(Phase::ImageIdPending);
                // A standby believes what the leader shows.
                if !state.leading {
                    return;
                }
                if is_attempt || job.is_active() && !job.evidence.shows(error) {
                    let outcome = Outcome::Misconfigured(error.clone());
                    job.apply_unpolled(&state.config, now, &outcome);
                    state.dirty.push(key);
                }
            }
        }
    }

    fn send_reads(&mut self, now: Moment) {
        while let Some(reference) = self.state.secrets.next_read(now.at) {
            self.state
                .output
                .effects
                .push(Effect::ReadCredential(reference));
        }
    }

    /// Has those polls decided about that were not sent at once: each is overdue at some time.
    fn note_waits(&mut self) {
        let state = &mut self.state;
        let mut waiting = std::mem::take(&mut state.waiting);
        for key in waiting.drain(..) {
            let is_sent = |job: &Job| matches!(job.polling.stage, PollStage::InFlight(_));
            if !state.jobs.get_unpacked(key).is_some_and(is_sent) {
                state.dirty.push(key);
            }
        }
        state.waiting = waiting;
    }

    fn send_polls(&mut self, now: Moment) {
        let state = &mut self.state;
        while let Some((waiting, charge)) = state.quotas.next_poll(&state.config, now.at) {
            send_poll(state, now, &waiting, charge);
        }
    }

    fn send_changes(&mut self, now: Moment) {
        while let Some(key) = self.state.next_change(now) {
            send_change(&mut self.state, now, key);
        }
    }
}

/// A new leader begins to follow the job of an object, which it has not observed.
fn begin_to_follow(state: &mut State, now: Moment, key: JobKey) {
    let Some(job) = state.jobs.get_mut(key) else {
        return;
    };
    state
        .secrets
        .apply_prior(job.secret, job.prior_acceptance());
    job.apply_gap(now);
    job.limits.was_late = false;
    let Some(phase) = job.phase() else {
        return;
    };
    if matches!(phase.row().detail, Detail::Configuration(_)) && job.is_active() {
        state.secrets.request_read(job.secret);
    }
    job.polling
        .wanted
        .take_if(|due| matches!(due, Due::Since(_)));
    job.polling.plan = match schedule::first_poll(&state.config, now, job, None) {
        Some(at) => Plan::At(at),
        None => Plan::Paced(now.at),
    };
}

/// Polls for an object, and for those of its group that wait for the same job.
fn send_poll(state: &mut State, now: Moment, waiting: &Waiting, charge: Charge) {
    let key = waiting.job;
    let sequence = state.next_sequence();
    let Some(job) = state.jobs.get_mut(key) else {
        return;
    };
    let alike = state.quotas.take_alike(waiting, &job.id);
    let &SecretState::Usable(credential_version) = state.secrets.state(job.secret) else {
        // A change of the Secret takes its objects out of the queue; should one be left, it is decided anew.
        for key in alike.iter().chain([waiting]).map(|waiting| waiting.job) {
            if let Some(job) = state.jobs.get_mut(key) {
                job.polling.stage = PollStage::Off;
                state.dirty.push(key);
            }
        }
        state.quotas.apply_end(now.at, &charge, 0, false);
        return;
    };
    let since = state.leading_since;
    let late = schedule::lateness(&state.config, job, waiting.due, since, now.at);
    job.begin_poll(&state.config, now.at, sequence);
    let request = PollRequest {
        ticket: PollTicket {
            job: key,
            sequence,
            epoch: state.epoch,
            charge,
            secret: job.secret,
            credential_version,
        },
        key: job.key.clone(),
        credential: state.secrets.reference(job.secret).clone(),
        project: state.quotas.project(job.group).clone(),
        job: job.id.clone(),
        prior: state.secrets.prior(job.secret),
        late,
    };
    state.output.effects.push(Effect::Poll(Box::new(request)));
    let alike: Vec<JobKey> = alike.iter().map(|waiting| waiting.job).collect();
    for key in &alike {
        if let Some(job) = state.jobs.get_mut(*key) {
            job.begin_poll(&state.config, now.at, sequence);
        }
    }
    if !alike.is_empty() {
        state.alike.insert(sequence, alike);
    }
}

/// Sends what waits for an object: a read, a status or a deletion.
fn send_change(state: &mut State, now: Moment, key: JobKey) {
    let sequence = state.next_sequence();
    let epoch = state.epoch;
    let Some(job) = state.jobs.get_mut(key) else {
        return;
    };
    let ticket = WriteTicket {
        job: key,
        sequence,
        epoch,
        namespace: job.key.namespace.clone(),
    };
    let fetch = FetchTicket {
        job: key,
        sequence,
        namespace: job.key.namespace.clone(),
    };
    let effect = match (&job.sync.stage, job.phase()) {
        (&ChangeStage::Unconfirmed { tries, .. }, _) => {
            job.sync.stage = ChangeStage::Fetching { sequence, tries };
            Effect::Fetch(fetch, job.key.clone())
        }
        (ChangeStage::Queued(Priority::Expiry), _) => {
            if job.sync.rereads_before_deletion(&state.config) {
                job.sync.stage = ChangeStage::Rereading { sequence };
                Effect::Fetch(fetch, job.key.clone())
            } else {
                job.sync.stage = ChangeStage::Deleting { sequence };
                Effect::Delete(Box::new(Deletion {
                    ticket,
                    key: job.key.clone(),
                    uid: job.uid.text(),
                    version: job.sync.next_deletion(),
                }))
            }
        }
        (ChangeStage::Queued(_), Some(phase)) => {
            let desired = Arc::new(job.snapshot(phase, now.wall));
            let (precondition, status) =
                job.sync
                    .next_write(&state.config, &desired, &job.uid, job.id.as_str());
            job.sync.stage = ChangeStage::Writing {
                sequence,
                sent: desired,
                held: None,
            };
            let key = job.key.clone();
            Effect::WriteStatus(Box::new(StatusWrite {
                ticket,
                key,
                precondition,
                status,
            }))
        }
        // Nothing waits any more.
        _ => return state.writes.release(&ticket.namespace),
    };
    state.output.effects.push(effect);
}
