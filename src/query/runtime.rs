//! The local runtime: runs the tracker for one job. A file takes the place of the Secret, memory that
//! of the API server.

use super::{file::CloudsFile, progress::Progress};
use crate::contained::{contain, failure, log_panic};
use image_export_api::{
    CloudCredentialsRef, CloudName, ImageExportJob, ImageExportJobSpec, ImageExportJobStatus,
    JobId, ProjectId, conditions::types,
};
use image_export_cloud::{CloudClient, Credential, POLL_TIMEOUT};
use image_export_core::{
    Config, CredentialError, Effect, Input, Now, Output, PollTicket, Source, Tracker, WriteResult,
};
use image_export_model::{Caller, FailureKind, Observation, Outcome};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, time::sleep};

const SOURCE: Source = Source(0);

/// The job to follow, and with what.
pub(super) struct Target {
    pub(super) client: CloudClient,
    pub(super) file: CloudsFile,
    pub(super) cloud: CloudName,
    pub(super) project: ProjectId,
    pub(super) job: JobId,
    pub(super) config: Config,
}

/// What is known when the runtime ends.
pub(super) struct Finished {
    /// The latest one; also why credentials could not be used.
    pub(super) observation: Observation,
    /// The status that an object for the job would have now.
    pub(super) status: ImageExportJobStatus,
}

pub(super) struct LocalRuntime<'a> {
    target: &'a Target,
    tracker: Tracker,
    started: Instant,
    credential: Option<Arc<Credential>>,
    observation: Option<Observation>,
    status: Option<ImageExportJobStatus>,
    /// Number of status writes.
    writes: u64,
    /// Number of polls.
    polls: u32,
    progress: Progress,
    results: mpsc::UnboundedSender<(PollTicket, Observation)>,
}

impl<'a> LocalRuntime<'a> {
    /// Polls once or, with `wait`, until the job has ended or only the user can help.
    pub(super) async fn run(target: &'a Target, wait: bool) -> Finished {
        let (sender, mut results) = mpsc::unbounded_channel();
        let started = Instant::now();
        let mut runtime = Self {
            target,
            tracker: Tracker::new(target.config.clone(), now(started)),
            started,
            credential: None,
            observation: None,
            status: None,
            writes: 0,
            polls: 0,
            progress: Progress::new(wait),
            results: sender,
        };
        for input in [
            Input::Leading(true),
            Input::ListStarted(SOURCE),
            Input::Applied(SOURCE, Box::new(object(target))),
            Input::Listed(SOURCE),
        ] {
            runtime.handle(now(started), input);
        }
        while !runtime.is_done(wait) {
            let deadline = runtime.next_deadline().unwrap_or(Duration::from_secs(60));
            tokio::select! {
                Some((ticket, observation)) = results.recv() => {
                    runtime.polled(ticket, observation);
                }
                () = sleep(deadline) => runtime.handle(now(started), Input::Tick),
            }
        }
        runtime.progress.end();
        runtime.pass_grace();
        Finished {
            observation: runtime
                .observation
                .expect("the loop ends with an observation"),
            status: runtime.status.unwrap_or_default(),
        }
    }

    /// Time until the tracker's next deadline.
    fn next_deadline(&self) -> Option<Duration> {
        let at = self.tracker.next_deadline()?;
        Some(at.saturating_sub(self.started.elapsed()))
    }

    fn handle(&mut self, now: Now, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut output = Output::default();
            self.tracker.handle(now, input, &mut output);
            for effect in output.effects {
                inputs.extend(self.run_effect(effect));
            }
        }
    }

    /// Returns the input that answers the effect; that of a poll comes later.
    fn run_effect(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Poll(request) => {
                self.start_poll(request.ticket);
                None
            }
            Effect::ReadCredential(reference) => {
                let result = self.read_credential();
                Some(Input::CredentialRead(reference, result))
            }
            Effect::WriteStatus(write) => {
                self.writes += 1;
                self.status = Some(write.status.clone());
                let result = WriteResult::Written {
                    // The object began with version 1.
                    version: (self.writes + 1).to_string(),
                    status: Some(Box::new(write.status)),
                };
                Some(Input::Wrote(write.ticket, result))
            }
            // No write is unconfirmed, and the object has no time to live.
            Effect::Fetch(..) | Effect::Delete(_) => None,
        }
    }

    /// Reads the file. An error in it counts as an observation, unless the file was valid before:
    /// then the user may be editing it.
    fn read_credential(&mut self) -> Result<u64, CredentialError> {
        let target = self.target;
        let (error, outcome) = match target.file.credential(&target.client, &target.cloud) {
            Ok(Ok(credential)) => {
                let version = credential.version();
                let known = self.credential.as_ref();
                // An unchanged credential keeps its tokens.
                if known.is_none_or(|known| known.version() != version) {
                    self.credential = Some(Arc::new(credential));
                }
                // The tracker takes zero for "never read".
                return Ok(version.max(1));
            }
            Ok(Err(error)) => (
                CredentialError::Misconfigured(error.clone()),
                Outcome::Misconfigured(error),
            ),
            Err(error) => {
                let failure = failure(FailureKind::Internal, error.to_string());
                (
                    CredentialError::Unavailable(failure.clone()),
                    Outcome::Failed(failure),
                )
            }
        };
        let observation = Observation::of(outcome, 0);
        if self.credential.is_none() {
            self.observation = Some(observation);
        } else {
            self.progress.show(&observation, self.polls, None);
        }
        Err(error)
    }

    fn start_poll(&mut self, ticket: PollTicket) {
        let Some(credential) = self.credential.clone() else {
            return;
        };
        self.polls += 1;
        let (client, results) = (self.target.client.clone(), self.results.clone());
        let (project, job) = (self.target.project.clone(), self.target.job.clone());
        tokio::spawn(async move {
            let caller = Caller::default();
            let query = client.query(&credential, &project, &job, &caller);
            let observation = contain(POLL_TIMEOUT, query, log_panic)
                .await
                .unwrap_or_else(|failure| Observation::of(Outcome::Failed(failure), 1));
            // Fails only after the runtime has ended.
            let _ = results.send((ticket, observation));
        });
    }

    fn polled(&mut self, ticket: PollTicket, observation: Observation) {
        self.handle(
            now(self.started),
            Input::Polled(ticket, observation.clone()),
        );
        self.progress
            .show(&observation, self.polls, self.next_deadline());
        self.observation = Some(observation);
    }

    /// Whether the runtime ends: after any observation or, with `wait`, once the job has ended or
    /// only the user can help.
    fn is_done(&self, wait: bool) -> bool {
        let Some(observation) = &self.observation else {
            return false;
        };
        if !wait || matches!(observation.outcome, Outcome::Misconfigured(_)) {
            return true;
        }
        self.status.as_ref().is_some_and(|status| {
            status.conditions.iter().any(|condition| {
                (condition.type_ == types::SUCCEEDED && condition.status != "Unknown")
                    || condition.type_ == types::STALLED
            })
        })
    }

    /// An object whose first polls fail has no status until a grace is over. Moves the tracker's
    /// time past it, so that there is a status to report.
    fn pass_grace(&mut self) {
        if self.status.is_none() {
            let mut later = now(self.started);
            later.mono += self.target.config.pending_grace;
            // Polls that are due by then are not sent.
            self.credential = None;
            self.handle(later, Input::Tick);
        }
    }
}

/// The object whose status is reported. The tracker follows objects only, and an object has to name
/// a Secret. There is no Secret, and no code reads this name.
fn object(target: &Target) -> ImageExportJob {
    let spec = ImageExportJobSpec {
        project_id: target.project.clone(),
        job_id: target.job.clone(),
        cloud_credentials_ref: CloudCredentialsRef {
            secret_name: "none".parse().expect("a name of the right form"),
            cloud_name: target.cloud.clone(),
        },
        poll_period_seconds: None,
        deadline_seconds: None,
        ttl_seconds_after_finished: None,
        suspend: false,
    };
    let mut object = ImageExportJob::new("query", spec);
    let meta = &mut object.metadata;
    meta.namespace = Some("default".to_owned());
    meta.uid = Some(target.job.to_string());
    meta.resource_version = Some("1".to_owned());
    meta.generation = Some(1);
    meta.creation_timestamp = Some(Time(Timestamp::now()));
    object
}

fn now(started: Instant) -> Now {
    Now {
        mono: started.elapsed(),
        wall: Timestamp::now(),
    }
}
