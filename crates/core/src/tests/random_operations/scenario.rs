//! A world under random operations, and the true state of its jobs.

use super::{
    super::{
        samples::{
            cloud, configuration_error, key, millis, object_of, running, secret_missing,
            secret_unreadable_now, secs, success, success_without_image,
        },
        world::{Fate, World},
    },
    operations::{
        EDITS, NAMES, NO_REQUEST, Op, PRUNED, SECRETS, THROTTLED, fault, is_of_ended,
        put_conditions, reorder, state, toggle_condition,
    },
};
use crate::{Config, CredentialError, Input, PollMode};
use image_export_api::ImageExportJob;
use image_export_model::{ConfigurationReason, JobState, Observation, Outcome};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::{cell::Cell, rc::Rc};

/// The true state of a job.
#[derive(Clone)]
struct Truth {
    report: Observation,
    has_ended: bool,
    /// The image id came some time after the end, so that it may have been given up.
    is_late: bool,
}

pub struct Scenario {
    pub world: World,
    jobs: [Truth; NAMES.len()],
    /// The fault with which the cloud answers about each job.
    faults: [Option<usize>; NAMES.len()],
    next_writes: Rc<Cell<(Fate, u8)>>,
    /// Earlier versions of the objects.
    past: Vec<ImageExportJob>,
    /// A version of a Secret's content that was never used.
    new_content: u64,
    has_peer: bool,
}

impl Scenario {
    pub fn new(poll_mode: PollMode) -> Self {
        let mut world = World::adaptive(Config {
            poll_mode,
            // Reads wait for one another.
            credential_reads_in_flight: 1,
            ..Config::default()
        });
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
        let abroad = SECRETS[SECRETS.len() - 1].to_owned();
        world.hosts.insert(abroad, "ims.abroad.example.com".into());
        let truth = Truth {
            report: running(),
            has_ended: false,
            is_late: false,
        };
        Self {
            world,
            jobs: NAMES.map(|_| truth.clone()),
            faults: NAMES.map(|_| None),
            next_writes,
            past: Vec::new(),
            new_content: 100,
            has_peer: false,
        }
    }

    fn exists(&self, n: usize) -> bool {
        self.world.objects.contains_key(&key(NAMES[n].0))
    }

    /// Changes an object, if it exists.
    fn change(&mut self, n: usize, change: impl FnOnce(&mut ImageExportJob)) {
        let name = NAMES[n].0;
        if let Some(object) = self.world.objects.get(&key(name)) {
            self.past.push(object.clone());
            self.world.change(name, change);
        }
    }

    fn create(&mut self, n: usize, secret: usize) {
        let (name, project) = NAMES[n];
        self.world.create(object_of(name, SECRETS[secret], project));
    }

    /// Deletes an object, or begins to where others hold it back.
    fn delete(&mut self, n: usize) {
        let name = NAMES[n].0;
        if self.world.stored(name).metadata.finalizers.is_none() {
            return self.world.delete(name);
        }
        let now = self.world.present().wall;
        self.change(n, |x| {
            if x.metadata.deletion_timestamp.is_none() {
                x.metadata.deletion_timestamp = Some(Time(now));
                x.metadata.generation = x.metadata.generation.map(|g| g + 1);
            }
        });
    }

    /// Others hold the object back, or do so no longer.
    fn hold_back(&mut self, n: usize, on: bool) {
        let Some(object) = self.world.objects.get(&key(NAMES[n].0)) else {
            return;
        };
        let is_deleted = object.metadata.deletion_timestamp.is_some();
        if !on && is_deleted {
            return self.world.delete(NAMES[n].0);
        }
        // A deleted object gets no new finalizer.
        let finalizers = on.then(|| vec!["example.com/keep".to_owned()]);
        if !is_deleted && object.metadata.finalizers != finalizers {
            self.change(n, |x| x.metadata.finalizers = finalizers);
        }
    }

    /// What the cloud answers about a job from now on.
    fn report(&mut self, n: usize) {
        let truth = &self.jobs[n];
        // The cloud never answers 404 for a job that has ended, nor another job status.
        let what = self.faults[n].filter(|what| !truth.has_ended || is_of_ended(*what));
        let report = what.map_or_else(|| truth.report.clone(), fault);
        self.world.reports(NAMES[n].0, report);
    }

    fn end_job(&mut self, n: usize, truth: Truth) {
        if !self.jobs[n].has_ended {
            self.jobs[n] = truth;
            self.report(n);
        }
    }

    /// Makes a process the one in turn, starting it where it was not.
    fn turn_to(&mut self, process: usize) {
        if process == 1 && !self.has_peer {
            self.world.turn_to(0);
            self.world.start_peer();
            self.has_peer = true;
        }
        self.world.turn_to(process);
    }

    /// Each process is told whether it leads.
    fn lead(&mut self, leader: Option<usize>) {
        for process in 0..=usize::from(self.has_peer) {
            self.world.turn_to(process);
            if self.world.tracker.state.leading && leader != Some(process) {
                self.world.feed(Input::Leading(false));
            }
        }
        if let Some(process) = leader {
            self.turn_to(process);
            self.world.feed(Input::Leading(true));
        }
    }

    #[allow(clippy::too_many_lines)] // one arm for each operation
    pub fn apply(&mut self, op: Op) {
        match op {
            Op::Create(n, secret) => {
                if !self.exists(n) {
                    self.create(n, secret);
                }
            }
            Op::Delete(n) => {
                if self.exists(n) {
                    self.delete(n);
                }
            }
            Op::Recreate(n, secret) => {
                if self.exists(n) {
                    // The watch may show the deletion and the creation as one change.
                    self.world.objects.remove(&key(NAMES[n].0));
                    self.create(n, secret);
                }
            }
            Op::Finalizer(n, on) => self.hold_back(n, on),
            Op::Suspend(n, on) => self.change(n, |x| x.spec.suspend = on),
            Op::UseSecret(n, secret) => {
                self.change(n, |x| x.spec.cloud_credentials_ref = cloud(SECRETS[secret]));
            }
            Op::UseSecretAndBack(n, secret, time) => {
                if self.exists(n) {
                    let before = self.world.stored(NAMES[n].0).spec.clone();
                    let before = before.cloud_credentials_ref;
                    self.change(n, |x| x.spec.cloud_credentials_ref = cloud(SECRETS[secret]));
                    self.world.run_until(self.world.now + millis(time));
                    self.change(n, |x| x.spec.cloud_credentials_ref = before);
                }
            }
            Op::Period(n, period) => self.change(n, |x| x.spec.poll_period_seconds = Some(period)),
            Op::Deadline(n, time) => self.change(n, |x| x.spec.deadline_seconds = time),
            Op::Ttl(n, time) => self.change(n, |x| x.spec.ttl_seconds_after_finished = time),
            Op::Touch(n) => self.change(n, |_| {}),
            Op::Churn(n, on) => {
                let name = key(NAMES[n].0);
                if on {
                    self.world.churning.insert(name);
                } else {
                    self.world.churning.remove(&name);
                }
            }
            Op::RequestPoll(n, value) => {
                if self.exists(n) {
                    self.world.request_poll(NAMES[n].0, &value.to_string());
                }
            }
            Op::Edit(n, edit) => {
                self.change(n, |x| EDITS[edit](x.status.get_or_insert_default()));
            }
            Op::UnownedCondition(n, which, at) => self.change(n, |x| {
                toggle_condition(x.status.get_or_insert_default(), which, at);
            }),
            Op::UnownedConditions(n, many) => self.change(n, |x| {
                put_conditions(x.status.get_or_insert_default(), many);
            }),
            Op::Reorder(n, how) => self.change(n, |x| {
                reorder(x.status.get_or_insert_default(), how);
            }),
            Op::Undecodable(n, on) => self.set_undecodable(n, on),
            Op::Prune(which) => self.world.prune = PRUNED[which],
            Op::Job(n, next) => {
                let (report, has_ended) = state(next);
                let is_late = false;
                self.end_job(
                    n,
                    Truth {
                        report,
                        has_ended,
                        is_late,
                    },
                );
            }
            Op::LateImageId(n, after) => {
                if !self.jobs[n].has_ended {
                    let truth = |report| Truth {
                        report,
                        has_ended: true,
                        is_late: true,
                    };
                    self.end_job(n, truth(success_without_image()));
                    self.jobs[n] = truth(success());
                    let at = self.world.now + secs(after);
                    self.world.reports_from(at, NAMES[n].0, success());
                }
            }
            Op::Fault(n, what) => {
                self.faults[n] = what;
                self.report(n);
            }
            Op::Outage(what) => {
                self.faults = NAMES.map(|_| what);
                (0..NAMES.len()).for_each(|n| self.report(n));
            }
            Op::Secret(secret, state) => self.set_secret(secret, state),
            Op::Writes(fate, writes) => self.next_writes.set((fate, writes)),
            Op::SeeAgain(n) => {
                if let Some(object) = self.world.objects.get(&key(NAMES[n].0)).cloned() {
                    self.world.see(object);
                }
            }
            Op::SeeOld(n) => self.see_old(n),
            Op::SlowAnswers(time) => self.world.poll_time = millis(time),
            Op::SlowReads(time) => self.world.read_time = millis(time),
            Op::SlowWrites(time) => self.world.write_time = millis(time),
            Op::ThrottledTogether {
                throttled,
                accepted,
            } => self.throttle_together(throttled, accepted),
            Op::Sleep(time) => self.world.sleep(secs(time)),
            Op::StepWall(seconds) => self.world.step_wall(seconds),
            Op::Run(seconds) => self.world.run(seconds),
            Op::RunMillis(time) => self.world.run_until(self.world.now + millis(time)),
            Op::Lead(_)
            | Op::LeadNone
            | Op::Overlap(..)
            | Op::DelayWatch(..)
            | Op::LoseWatch(_)
            | Op::Stop(_)
            | Op::Crash { .. } => self.apply_to_processes(op),
        }
    }

    /// Applies an operation on the operator processes.
    fn apply_to_processes(&mut self, op: Op) {
        let process = match op {
            Op::Lead(process) => return self.lead(Some(process)),
            Op::LeadNone => return self.lead(None),
            Op::Overlap(process, time) => {
                self.turn_to(process);
                self.world.feed(Input::Leading(true));
                self.world.run_until(self.world.now + millis(time));
                return self.lead(Some(process));
            }
            Op::DelayWatch(process, _)
            | Op::LoseWatch(process)
            | Op::Stop(process)
            | Op::Crash { process, .. } => process,
            _ => return,
        };
        if !self.world.turn_to(process) {
            return;
        }
        match op {
            Op::DelayWatch(_, time) => self.world.delay_watch(millis(time)),
            Op::LoseWatch(_) => self.world.lose_watch(),
            Op::Stop(_) => self.world.feed(Input::Stopping),
            Op::Crash { landed, .. } => {
                if landed {
                    self.world.cut_replies();
                }
                let leading = self.world.tracker.state.leading;
                self.world.restart_as(leading);
            }
            _ => {}
        }
    }

    fn throttle_together(&mut self, throttled: usize, accepted: bool) {
        if accepted {
            let leading = self.world.tracker.state.leading;
            self.world.restart_as(leading);
        }
        let before = self.world.poll_time;
        self.world.poll_time = secs(8);
        for n in (0..NAMES.len())
            .filter(|n| self.exists(*n))
            .collect::<Vec<_>>()
        {
            self.world.request_poll(NAMES[n].0, "together");
        }
        self.world.run(6);
        self.faults = NAMES.map(|_| (!accepted).then_some(NO_REQUEST));
        self.faults[throttled] = Some(THROTTLED);
        (0..NAMES.len()).for_each(|n| self.report(n));
        self.world.run(8);
        self.world.poll_time = before;
        self.world.run(30);
    }

    fn set_undecodable(&mut self, n: usize, on: bool) {
        let name = key(NAMES[n].0);
        if !self.exists(n) || self.world.undecodable.contains(&name) == on {
            return;
        }
        if on {
            self.world.undecodable.insert(name);
        } else {
            self.world.undecodable.remove(&name);
        }
        self.change(n, |_| {});
    }

    fn set_secret(&mut self, secret: usize, state: usize) {
        let invalid = configuration_error(ConfigurationReason::CredentialsInvalid);
        let read = match state {
            0 => Err(secret_missing()),
            1 => Err(CredentialError::Misconfigured(invalid)),
            2 => Err(secret_unreadable_now()),
            3 => {
                self.new_content += 1;
                Ok(self.new_content)
            }
            // Content that it may have had before.
            version => Ok(u64::try_from(version).expect("small") - 3),
        };
        self.world.secrets.insert(SECRETS[secret].into(), read);
    }

    fn see_old(&mut self, n: usize) {
        let name = key(NAMES[n].0);
        let current = self.world.objects.get(&name).cloned();
        let old = current.and_then(|current| {
            let same = |old: &&ImageExportJob| old.metadata.uid == current.metadata.uid;
            self.past.iter().find(same).cloned()
        });
        // Only an object that was received before can arrive again.
        let tracked = self.world.tracker.state.jobs.find(&name);
        let uid = tracked.map(|(_, job)| job.uid.text());
        if let (Some(old), Some(uid)) = (old, uid)
            && old.metadata.uid.as_deref() == Some(&*uid)
        {
            self.world.see(old);
        }
    }

    /// Ends all faults but for what others do to labels.
    pub fn end_faults(&mut self) {
        self.next_writes.set((Fate::Lands, 0));
        self.world.poll_time = millis(50);
        self.world.read_time = millis(3);
        self.world.write_time = millis(2);
        for secret in SECRETS {
            self.new_content += 1;
            let content = Ok(self.new_content);
            self.world.secrets.insert(secret.into(), content);
        }
        for n in 0..NAMES.len() {
            self.set_undecodable(n, false);
            self.hold_back(n, false);
        }
        let mut leader = None;
        for process in 0..=usize::from(self.has_peer) {
            self.world.turn_to(process);
            let state = &self.world.tracker.state;
            let leading = state.leading;
            if state.stopping {
                self.world.restart_as(leading);
            }
            leader = leader.or(leading.then_some(process));
        }
        self.lead(Some(leader.unwrap_or(0)));
        let has_stepped = self.world.wall_steps.len() > 1;
        if has_stepped {
            self.world.step_wall(-self.world.wall_step);
        }
        self.faults = NAMES.map(|_| None);
        for n in 0..NAMES.len() {
            // A late image id has come by now.
            self.report(n);
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
                    .take_if(|time| has_stepped || i64::from(*time) > age);
                x.spec.suspend = false;
                x.spec.poll_period_seconds = Some(60);
            });
        }
    }

    /// Checks that each status shows the true state of its job.
    pub fn check_statuses(&self) {
        for (n, (name, _)) in NAMES.into_iter().enumerate() {
            if self.exists(n) {
                self.check_status(name, &self.jobs[n]);
            }
        }
        let tracked = self.world.tracker.state.jobs.len();
        assert_eq!(tracked, self.world.objects.len());
    }

    fn check_status(&self, name: &str, truth: &Truth) {
        let Outcome::Answered(answer) = &truth.report.outcome else {
            panic!("a job's state is an answer");
        };
        let ended = truth.has_ended;
        let status = self.world.status(name);
        let spec = &self.world.stored(name).spec;
        let late = spec.deadline_seconds.is_some() && !ended;
        let kept = spec.ttl_seconds_after_finished.is_none() || !ended;
        assert!(kept, "{name} should be gone: {status:?}");
        let reason = self.world.reason(name);
        let is_given_up = truth.is_late && reason == "ImageIDMissing";
        let image_id = answer.image_id.as_deref().filter(|_| !is_given_up);
        let reasons: &[&str] = match &answer.state {
            _ if late => &["DeadlineExceeded"],
            JobState::Success if image_id.is_some() => &["JobSucceeded"],
            JobState::Success => &["ImageIDMissing"],
            JobState::Fail => &["JobFailed"],
            // INIT after RUNNING is not shown.
            JobState::Init => &["JobInitializing", "JobRunning"],
            _ => &["JobRunning"],
        };
        assert!(reasons.contains(&reason), "{name}: {status:?}");
        assert_eq!(status.image_id.as_deref(), image_id);
        assert_eq!(status.fail_reason.as_deref(), answer.fail_reason.as_deref());
        assert_eq!(status.completion_time.is_some(), ended);
        assert_eq!(
            status.observed_generation,
            self.world.stored(name).metadata.generation
        );
    }

    /// Deletes all objects, and checks that nothing is left of them but quota buckets with a poll in flight
    /// or a pause, and those no longer than that.
    pub fn check_leftovers(&mut self) {
        for name in self.world.objects.keys().cloned().collect::<Vec<_>>() {
            self.world.delete(&name.name);
        }
        for process in 0..=usize::from(self.has_peer) {
            self.world.turn_to(process);
            self.world.lose_watch();
            assert_eq!(self.leftovers(true), [], "process {process}");
        }
        self.world.run(1100);
        for process in 0..=usize::from(self.has_peer) {
            self.world.turn_to(process);
            // A standby drops a quota bucket only when it leads again, and a process that ends no more.
            let state = &self.world.tracker.state;
            let keeps_buckets = !state.leading || state.stopping;
            assert_eq!(self.leftovers(keeps_buckets), [], "process {process}");
        }
    }

    /// What is left in the collections of the process in turn.
    /// Repairs of all processes.
    pub fn repairs(&mut self) -> u64 {
        let turn = self.world.process;
        let mut repairs = 0;
        for process in 0..=usize::from(self.has_peer) {
            self.world.turn_to(process);
            repairs += self.world.census().counters.repairs;
        }
        self.world.turn_to(turn);
        repairs
    }

    fn leftovers(&self, but_for_buckets: bool) -> Vec<(&'static str, usize)> {
        let buckets = [
            "buckets",
            "proven namespaces",
            "projects",
            "pools",
            "owners of pools",
            "ready pools",
            "wakes of buckets",
        ];
        let mut left = self.world.tracker.state.leftovers();
        left.retain(|(what, _)| !but_for_buckets || !buckets.contains(what));
        left
    }

    /// Checks that nothing that was accepted has been forgotten.
    pub fn check_requests(&mut self) {
        for process in 0..=usize::from(self.has_peer) {
            self.world.turn_to(process);
            self.world.oracles.check_idle(process);
        }
    }
}
