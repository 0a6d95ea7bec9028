//! Everything around the tracker, in virtual time: a versioned API server with its watch, a scripted
//! cloud, Secrets. By default each effect is answered after a short time. A test that holds effects
//! (see [`Held`]) answers them itself.

mod due;
mod processes;

use super::{
    invariants::{self, Invariants},
    oracles::Oracles,
    samples::{HOST, beginning, job_of, running, secs},
};
use crate::{
    Census, Config, CredentialError, CredentialRef, Deletion, Effect, FetchTicket, Input, Now,
    ObjectEvent, ObjectKey, Output, PollMode, PollRequest, Source, StatusWrite, Tracker,
    Transition,
    keys::{BucketKey, JobKey},
};
pub use due::{Due, Fate};
use image_export_api::{ImageExportJob, ImageExportJobStatus, conditions::types};
use image_export_model::Observation;
use jiff::SignedDuration;
use processes::Peer;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

pub const SOURCE: Source = Source(0);
/// How long a call to the API server may take.
const HANGING: Duration = Duration::from_secs(15);

/// A poll that was sent.
#[derive(Clone, Debug)]
pub struct PollLog {
    pub at: Duration,
    pub name: Arc<str>,
    pub bucket: BucketKey,
    pub late: Duration,
}

/// A status that landed.
#[derive(Clone, Debug)]
pub struct WriteLog {
    pub at: Duration,
    pub status: ImageExportJobStatus,
}

/// Effects that wait for the test to answer them.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools)] // one for each kind of effect
pub struct Held {
    pub polls: bool,
    pub writes: bool,
    pub deletions: bool,
    pub watch: bool,
    pub reads: bool,
    pub fetches: bool,
}

/// What the cloud reports about a job at a time.
type Cloud = dyn Fn(&str, Duration) -> Observation;

pub struct World {
    pub tracker: Tracker,
    pub config: Config,
    pub now: Duration,
    /// How far the wall clock was set forward, in seconds.
    pub wall_step: i64,
    pub invariants: Invariants,
    pub objects: BTreeMap<ObjectKey, ImageExportJob>,
    pub version: u64,
    pub uids: u64,
    /// What the cloud reports about jobs without a script.
    pub cloud_by_default: Box<Cloud>,
    /// What the cloud reports about each job, and from when on.
    cloud: HashMap<String, Vec<(Duration, Observation)>>,
    /// Secrets by name. A Secret without an entry is readable and has version 1.
    pub secrets: HashMap<String, Result<u64, CredentialError>>,
    /// What happens when, to which process.
    due: BTreeMap<(Duration, u64), (usize, Due)>,
    sequence: u64,
    /// The process in turn: 0 or 1.
    pub process: usize,
    peer: Option<Box<Peer>>,
    /// The watch of the process in turn shows the next change not before.
    watch_at: Duration,
    /// All values that `wall_step` had.
    pub wall_steps: Vec<i64>,
    /// How long the machine has slept since each time before a sleep, in seconds.
    pub slept: Vec<i64>,
    pub oracles: Oracles,
    /// Objects that are there but do not decode.
    pub undecodable: BTreeSet<ObjectKey>,
    /// Objects in which others change a label whenever something is sent about them.
    pub churning: BTreeSet<ObjectKey>,
    /// The host at which the credentials of a Secret are used, where it is not the usual one.
    pub hosts: HashMap<String, Arc<str>>,
    /// How long polls with the credentials of a Secret take, where it is not the usual time.
    pub slow: HashMap<String, Duration>,
    /// Namespaces whose status writes hang.
    pub hanging: HashSet<&'static str>,
    pub read_time: Duration,
    pub held: Held,
    pub poll_time: Duration,
    pub write_time: Duration,
    pub fate: Box<dyn FnMut(&StatusWrite) -> Fate>,
    pub fate_of_deletions: Box<dyn FnMut() -> Fate>,
    /// What the API server does to a status as it stores it, as with an older CRD.
    pub prune: fn(&mut ImageExportJobStatus),
    pub open_polls: Vec<PollRequest>,
    pub open_writes: Vec<StatusWrite>,
    pub open_deletions: Vec<Deletion>,
    pub open_watch: Vec<ImageExportJob>,
    pub open_reads: Vec<Arc<CredentialRef>>,
    pub open_fetches: Vec<(FetchTicket, ObjectKey)>,
    pub polls: Vec<PollLog>,
    pub writes: Vec<WriteLog>,
    /// When each deletion was sent.
    pub deletions: Vec<Duration>,
    pub events: Vec<ObjectEvent>,
    pub transitions: Vec<Transition>,
    pub reads: Vec<(Duration, Arc<CredentialRef>)>,
    pub fetches: Vec<Duration>,
    /// Keeps writes and events; large runs only count them.
    pub keep_log: bool,
    pub landed: usize,
    /// When a status landed last.
    pub landed_last: Duration,
    /// Checks all objects after each step; large runs skip this.
    pub check_decisions: bool,
    output: Output,
}

impl World {
    /// A leading operator that has listed an empty cluster.
    pub fn new() -> Self {
        Self::with(Config::default())
    }

    /// The same with other numbers, in the fixed mode, in which each poll has its time.
    pub fn with(mut config: Config) -> Self {
        config.poll_mode = PollMode::Fixed;
        Self::adaptive(config)
    }

    /// The same in the mode that the numbers say.
    pub fn adaptive(config: Config) -> Self {
        let mut world = Self::unstarted(config);
        world.list();
        world.feed(Input::Leading(true));
        world
    }

    /// An operator that has listed nothing and does not lead.
    pub fn unstarted(config: Config) -> Self {
        let now = Now {
            mono: Duration::ZERO,
            wall: beginning(),
        };
        Self {
            tracker: Tracker::new(config.clone(), now),
            config,
            now: Duration::ZERO,
            wall_step: 0,
            invariants: Invariants::default(),
            objects: BTreeMap::new(),
            version: 100,
            uids: 0,
            cloud_by_default: Box::new(|_, _| running()),
            cloud: HashMap::new(),
            secrets: HashMap::new(),
            due: BTreeMap::new(),
            sequence: 0,
            process: 0,
            peer: None,
            watch_at: Duration::ZERO,
            wall_steps: vec![0],
            slept: Vec::new(),
            oracles: Oracles::default(),
            undecodable: BTreeSet::new(),
            churning: BTreeSet::new(),
            hosts: HashMap::new(),
            slow: HashMap::new(),
            hanging: HashSet::new(),
            read_time: Duration::from_millis(3),
            held: Held::default(),
            poll_time: Duration::from_millis(50),
            write_time: Duration::from_millis(2),
            fate: Box::new(|_| Fate::Lands),
            fate_of_deletions: Box::new(|| Fate::Lands),
            prune: |_| {},
            open_polls: Vec::new(),
            open_writes: Vec::new(),
            open_deletions: Vec::new(),
            open_watch: Vec::new(),
            open_reads: Vec::new(),
            open_fetches: Vec::new(),
            polls: Vec::new(),
            writes: Vec::new(),
            deletions: Vec::new(),
            events: Vec::new(),
            transitions: Vec::new(),
            reads: Vec::new(),
            fetches: Vec::new(),
            keep_log: true,
            landed: 0,
            landed_last: Duration::ZERO,
            check_decisions: true,
            output: Output::default(),
        }
    }

    pub fn present(&self) -> Now {
        let wall = beginning()
            + SignedDuration::try_from(self.now).expect("tests are short")
            + SignedDuration::from_secs(self.wall_step);
        Now {
            mono: self.now,
            wall,
        }
    }

    pub fn census(&self) -> Census {
        self.tracker.census(self.present())
    }

    /// Gives the tracker one input, runs its effects and checks the invariants.
    pub fn feed(&mut self, input: Input) {
        let mut output = std::mem::take(&mut self.output);
        let step = self.oracles_before(&input);
        let jobs = &mut self.tracker.state.jobs;
        (jobs.few, jobs.live_max, jobs.checks_packing) = (0, 0, self.check_decisions);
        self.tracker.handle(self.present(), input, &mut output);
        if !self.tracker.state.leading {
            invariants::check_standby(&output);
        }
        if self.tracker.state.stopping {
            invariants::check_stopping(&output);
        }
        self.oracles_after(step, &output);
        invariants::check_transitions(&output);
        for effect in output.effects.drain(..) {
            self.perform(effect);
        }
        if self.check_decisions {
            self.oracles.check(self.process, &self.tracker);
        }
        if self.keep_log {
            self.events.append(&mut output.events);
            self.transitions.append(&mut output.transitions);
        }
        output.events.clear();
        output.transitions.clear();
        self.output = output;
        let next = self.tracker.next_deadline();
        assert!(
            next.is_none_or(|at| at > self.now),
            "no progress at {:?}",
            self.now
        );
        if self.check_decisions {
            invariants::check_decisions(self);
            invariants::check_totals(self);
        }
    }

    fn oracles_before(&mut self, input: &Input) -> bool {
        let leading = self.tracker.state.leading;
        if self.check_decisions {
            let now = self.now;
            self.oracles
                .before(self.process, now, &self.config, &self.tracker, input);
        }
        leading
    }

    fn oracles_after(&mut self, was_leading: bool, output: &Output) {
        if self.check_decisions {
            let (process, now) = (self.process, self.now);
            self.oracles.after(
                process,
                now,
                &self.config,
                &self.tracker,
                was_leading,
                output,
            );
        }
    }

    /// Schedules something that happens to the process in turn.
    pub fn after(&mut self, wait: Duration, due: Due) {
        self.at(self.now + wait, due);
    }

    fn at(&mut self, at: Duration, due: Due) {
        self.sequence += 1;
        self.due.insert((at, self.sequence), (self.process, due));
    }

    /// The watch of each process shows this soon, each change after the one before.
    pub fn show(&mut self, object: Option<&ImageExportJob>, key: &ObjectKey, uid: &str) {
        let turn = self.process;
        for process in [0, 1] {
            if self.turn_to(process) {
                self.watch_at = self.watch_at.max(self.now + Duration::from_millis(1));
                let object = object.cloned().map(Box::new);
                self.at(
                    self.watch_at,
                    Due::Watch(object, key.clone(), uid.to_owned()),
                );
            }
        }
        self.turn_to(turn);
    }

    /// The whole machine sleeps.
    pub fn sleep(&mut self, time: Duration) {
        self.now += time;
        let seconds = i64::try_from(time.as_secs()).expect("tests are short");
        self.slept.iter_mut().for_each(|slept| *slept += seconds);
        self.slept.push(seconds);
        self.oracles.slept(self.now);
    }

    /// The wall clock is set.
    pub fn step_wall(&mut self, seconds: i64) {
        self.wall_step += seconds;
        self.wall_steps.push(self.wall_step);
        self.invariants.wall_has_stepped = true;
    }

    fn uid_of(&self, key: JobKey) -> String {
        let job = self.tracker.state.jobs.get(key);
        job.expect("effects name live objects").uid.to_string()
    }

    fn perform(&mut self, effect: Effect) {
        let is_change = !matches!(effect, Effect::Poll(_) | Effect::ReadCredential(_));
        // Two leaders write against one another for as long as both believe that they lead.
        let peer = self.peer.as_ref();
        let is_contested = peer.is_some_and(|peer| peer.tracker.state.leading);
        if is_change && self.check_decisions && !is_contested {
            self.invariants.sent_to_server(self.now.as_secs());
        }
        match effect {
            Effect::Poll(poll) => {
                let uid = self.uid_of(poll.ticket.job);
                self.invariants.poll_sent(poll.ticket.sequence, &uid);
                if self.check_decisions {
                    let secret = poll.credential.cloud.secret_name.as_str();
                    let host = self.host_of(secret);
                    let (process, now) = (self.process, self.now);
                    self.oracles
                        .poll_sent(process, now, &self.config, &self.tracker, &poll, &host);
                }
                self.polls.push(PollLog {
                    at: self.now,
                    name: poll.key.name.clone(),
                    bucket: poll.ticket.charge.bucket,
                    late: poll.late,
                });
                if self.held.polls {
                    self.open_polls.push(*poll);
                } else {
                    let time = self.slow.get(poll.credential.cloud.secret_name.as_str());
                    let time = time.copied().unwrap_or(self.poll_time);
                    self.after(time, Due::Answer(poll));
                }
            }
            Effect::WriteStatus(write) => {
                let key = write.ticket.job;
                let (uid, job) = {
                    let job = self
                        .tracker
                        .state
                        .jobs
                        .get(key)
                        .expect("effects name live objects");
                    (job.uid.text(), job.id.clone())
                };
                self.invariants.write_sent(&uid, job.as_str(), &write);
                if self.check_decisions {
                    self.oracles.write_sent(self.process, &uid, &write.status);
                }
                self.churn(&write.key);
                if self.held.writes {
                    self.open_writes.push(*write);
                } else {
                    let fate = (self.fate)(&write);
                    let hangs = self.hanging.contains(&*write.key.namespace);
                    let time = if hangs { HANGING } else { self.write_time };
                    self.after(time, Due::Land(write, fate));
                }
            }
            Effect::Delete(deletion) => {
                let uid = self.uid_of(deletion.ticket.job);
                self.invariants.change_sent(deletion.ticket.sequence, &uid);
                if self.check_decisions {
                    self.oracles.deletion_sent(self.process, &deletion);
                }
                self.deletions.push(self.now);
                self.churn(&deletion.key);
                if self.held.deletions {
                    self.open_deletions.push(*deletion);
                } else {
                    let fate = (self.fate_of_deletions)();
                    self.after(self.write_time, Due::Remove(deletion, fate));
                }
            }
            Effect::ReadCredential(reference) => {
                self.reads.push((self.now, reference.clone()));
                if self.held.reads {
                    self.open_reads.push(reference);
                } else {
                    self.after(self.read_time, Due::Read(reference));
                }
            }
            Effect::Fetch(ticket, key) => {
                self.fetches.push(self.now);
                self.churn(&key);
                if self.held.fetches {
                    self.open_fetches.push((ticket, key));
                } else {
                    self.after(Duration::from_millis(3), Due::Fetch(ticket, key));
                }
            }
        }
    }

    /// Others change a label of this object soon, if they do so all the time.
    fn churn(&mut self, key: &ObjectKey) {
        if self.churning.contains(key) {
            self.after(Duration::from_micros(500), Due::Touch(key.clone()));
        }
    }

    fn host_of(&self, secret: &str) -> Arc<str> {
        let host = self.hosts.get(secret).cloned();
        host.unwrap_or_else(|| HOST.into())
    }

    /// Runs everything that is due until this time.
    pub fn run_until(&mut self, until: Duration) {
        loop {
            let due = self.due.first_key_value().map(|(&(at, _), _)| at);
            let tick = self.next_tick();
            let at = match (due, tick) {
                (Some(due), Some((tick, _))) => due.min(tick),
                (Some(at), None) | (None, Some((at, _))) => at,
                (None, None) => break,
            };
            if at > until {
                break;
            }
            self.now = self.now.max(at);
            if due == Some(at) {
                let (_, (process, due)) = self.due.pop_first().expect("just looked at");
                self.turn_to(process);
                self.happen(due);
            } else if let Some((_, process)) = tick {
                self.turn_to(process);
                let limit = 200 + 4 * self.objects.len();
                self.invariants.tick(self.now.as_secs(), limit);
                self.feed(Input::Tick);
            }
        }
        self.now = self.now.max(until);
    }

    pub fn run(&mut self, seconds: u64) {
        self.run_until(self.now + secs(seconds));
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Answer(poll) => {
                self.invariants.poll_ended(poll.ticket.sequence);
                let mut observation = self.cloud_reports(poll.job.as_str());
                let secret = poll.credential.cloud.secret_name.as_str();
                if let Some(host) = self.hosts.get(secret) {
                    let seen = [&mut observation.endpoint, &mut observation.queried];
                    for seen in seen.into_iter().flatten() {
                        seen.clone_from(host);
                    }
                }
                self.feed(Input::Polled(poll.ticket, observation));
            }
            Due::Land(write, fate) => self.land_with(*write, fate),
            Due::Remove(deletion, fate) => self.remove_with(&deletion, fate),
            Due::Reply(ticket, result) => {
                self.invariants.write_ended(ticket.sequence);
                self.feed(Input::Wrote(ticket, result));
            }
            Due::Watch(Some(object), _, _) => self.see(*object),
            Due::Watch(None, key, uid) => self.feed(Input::Deleted(key, Some(uid))),
            Due::Read(reference) => self.finish_read(&reference),
            Due::Fetch(ticket, key) => self.finish_fetch(ticket, &key),
            Due::Touch(key) => {
                if self.objects.contains_key(&key) {
                    self.touch(&key.name);
                }
            }
        }
    }

    /// From now on, the cloud reports this about the job of this object.
    pub fn reports(&mut self, name: &str, observation: Observation) {
        self.reports_from(self.now, name, observation);
    }

    /// From this time on, the cloud reports this about the job of this object.
    pub fn reports_from(&mut self, from: Duration, name: &str, observation: Observation) {
        let script = self.cloud.entry(job_of(name)).or_default();
        script.push((from, observation));
    }

    /// What the cloud reports about a job now.
    pub fn cloud_reports(&self, job: &str) -> Observation {
        let script = self.cloud.get(job).map_or(&[][..], Vec::as_slice);
        let latest = script.iter().rev().find(|(from, _)| *from <= self.now);
        latest.map_or_else(
            || (self.cloud_by_default)(job, self.now),
            |(_, report)| report.clone(),
        )
    }

    /// Answers a held poll.
    pub fn answer(&mut self, poll: &PollRequest, observation: Observation) {
        self.invariants.poll_ended(poll.ticket.sequence);
        self.feed(Input::Polled(poll.ticket.clone(), observation));
    }

    /// Takes out the only held poll.
    pub fn take_poll(&mut self) -> PollRequest {
        assert_eq!(self.open_polls.len(), 1, "{:?}", self.open_polls);
        self.open_polls.remove(0)
    }

    /// Takes out the only held write.
    pub fn take_write(&mut self) -> StatusWrite {
        assert_eq!(self.open_writes.len(), 1, "{:?}", self.open_writes);
        self.open_writes.remove(0)
    }

    /// Answers a read of a Secret.
    pub fn finish_read(&mut self, reference: &Arc<CredentialRef>) {
        let secret = self.secrets.get(reference.cloud.secret_name.as_str());
        let result = secret.cloned().unwrap_or(Ok(1));
        self.feed(Input::CredentialRead(reference.clone(), result));
    }

    pub fn polls_of(&self, name: &str) -> Vec<Duration> {
        let of = |poll: &&PollLog| &*poll.name == name;
        self.polls.iter().filter(of).map(|poll| poll.at).collect()
    }

    /// The reasons that statuses have shown, one after another.
    pub fn reasons_shown(&self) -> Vec<String> {
        let ready = |write: &WriteLog| {
            let ready = invariants::condition(&write.status, types::READY);
            ready.expect("written statuses have it").reason.clone()
        };
        let mut reasons: Vec<String> = self.writes.iter().map(ready).collect();
        reasons.dedup();
        reasons
    }

    pub fn reasons_of_events(&self) -> Vec<&'static str> {
        self.events.iter().map(|event| event.reason).collect()
    }
}
