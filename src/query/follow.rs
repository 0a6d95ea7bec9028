//! The shell for one job: carries out what the tracker wants, against a file instead of a Secret
//! and memory instead of an API server.

use super::file::CloudsFile;
use image_export_api::{
    CloudCredentialsRef, CloudName, ImageExportJob, ImageExportJobSpec, ImageExportJobStatus,
    JobId, ProjectId, SecretName, conditions::types,
};
use image_export_cloud::{CloudClient, Credential, POLL_TIMEOUT};
use image_export_core::{
    Config, CredentialError, Effect, Input, Now, Output, PollTicket, Source, Tracker, WriteResult,
};
use image_export_model::{Failure, FailureKind, JobState, Observation, Outcome, Stage};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{Timestamp, tz::TimeZone},
};
use std::{
    io::{IsTerminal, Write, stderr},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

const SOURCE: Source = Source(0);

/// One job being asked about.
pub struct Follow {
    client: CloudClient,
    file: CloudsFile,
    cloud: CloudName,
    project: ProjectId,
    job: JobId,
    config: Config,
}

/// What was learnt when the asking ended.
#[derive(Debug)]
pub struct Ended {
    /// Project of the job.
    pub project: ProjectId,
    /// The job.
    pub job: JobId,
    /// The latest answer, also one of the credentials that were never sent.
    pub observation: Observation,
    /// The status that an object for the job would have now.
    pub status: ImageExportJobStatus,
}

impl Follow {
    pub(super) fn new(
        client: CloudClient,
        file: CloudsFile,
        cloud: CloudName,
        project: ProjectId,
        job: JobId,
        config: Config,
    ) -> Self {
        Self {
            client,
            file,
            cloud,
            project,
            job,
            config,
        }
    }

    /// Asks once, or until there is nothing to wait for.
    pub(super) async fn run(self, wait: bool) -> Ended {
        let (sender, mut answers) = mpsc::unbounded_channel();
        let started = Instant::now();
        let mut desk = Desk {
            tracker: Tracker::new(self.config.clone(), now(started)),
            credential: None,
            observation: None,
            status: None,
            versions: 1,
            asked: 0,
            progress: Progress::new(wait),
            sender,
            follow: &self,
        };
        desk.feed(now(started), Input::Leading(true));
        desk.feed(now(started), Input::ListStarted(SOURCE));
        desk.feed(
            now(started),
            Input::Applied(SOURCE, Box::new(self.object())),
        );
        desk.feed(now(started), Input::Listed(SOURCE));
        while !desk.is_done(wait) {
            let due = desk
                .tracker
                .next_deadline()
                .map_or(Duration::from_secs(60), |at| at)
                .saturating_sub(started.elapsed());
            tokio::select! {
                Some((ticket, observation)) = answers.recv() => {
                    desk.answered(now(started), ticket, observation);
                }
                () = tokio::time::sleep(due) => desk.feed(now(started), Input::Tick),
            }
        }
        desk.progress.end();
        desk.settle(now(started));
        Ended {
            project: self.project.clone(),
            job: self.job.clone(),
            observation: desk
                .observation
                .unwrap_or_else(|| failed(FailureKind::Internal, "nothing was asked".to_owned())),
            status: desk.status.unwrap_or_default(),
        }
    }

    fn object(&self) -> ImageExportJob {
        let spec = ImageExportJobSpec {
            project_id: self.project.clone(),
            job_id: self.job.clone(),
            cloud_credentials_ref: CloudCredentialsRef {
                secret_name: "clouds-yaml"
                    .parse::<SecretName>()
                    .expect("a name of the right form"),
                cloud_name: self.cloud.clone(),
            },
            poll_period_seconds: None,
            deadline_seconds: None,
            ttl_seconds_after_finished: None,
            suspend: false,
        };
        let mut object = ImageExportJob::new("query", spec);
        let meta = &mut object.metadata;
        meta.namespace = Some("default".to_owned());
        meta.uid = Some(self.job.to_string());
        meta.resource_version = Some("1".to_owned());
        meta.generation = Some(1);
        meta.creation_timestamp = Some(Time(Timestamp::now()));
        object
    }
}

fn now(started: Instant) -> Now {
    Now {
        mono: started.elapsed(),
        wall: Timestamp::now(),
    }
}

fn failed(kind: FailureKind, message: String) -> Observation {
    unasked(Outcome::Failed(Failure {
        kind,
        stage: Stage::Login,
        message: message.into(),
    }))
}

fn unasked(outcome: Outcome) -> Observation {
    Observation {
        outcome,
        retry_after: None,
        endpoint: None,
        requests: 0,
        signed_in: false,
        request_id: None,
    }
}

/// Where tracker, file and answers meet.
struct Desk<'a> {
    follow: &'a Follow,
    tracker: Tracker,
    credential: Option<Arc<Credential>>,
    observation: Option<Observation>,
    status: Option<ImageExportJobStatus>,
    /// Resource versions given out.
    versions: u64,
    asked: u32,
    progress: Progress,
    sender: mpsc::UnboundedSender<(PollTicket, Observation)>,
}

impl Desk<'_> {
    fn feed(&mut self, now: Now, input: Input) {
        let mut output = Output::default();
        self.tracker.handle(now, input, &mut output);
        for effect in output.effects {
            match effect {
                Effect::Poll(request) => self.poll(request.ticket),
                Effect::ReadCredential(reference) => {
                    let result = self.read();
                    self.feed(now, Input::CredentialRead(reference, result));
                }
                Effect::WriteStatus(write) => {
                    self.versions += 1;
                    let result = WriteResult::Written {
                        version: self.versions.to_string(),
                        status: Some(Box::new(write.status.clone())),
                    };
                    self.status = Some(write.status);
                    self.feed(now, Input::Wrote(write.ticket, result));
                }
                // Nothing else writes, so no write is ever unconfirmed.
                Effect::Fetch(..) | Effect::Delete(_) => {}
            }
        }
    }

    /// Reads the file; what is wrong with it counts as an answer.
    fn read(&mut self) -> Result<u64, CredentialError> {
        let follow = self.follow;
        let read = follow.file.credential(&follow.client, &follow.cloud);
        let (error, outcome) = match read {
            Ok(Ok(credential)) => {
                let version = credential.version().max(1);
                let known = self.credential.as_ref();
                if known.is_none_or(|known| known.version() != credential.version()) {
                    self.credential = Some(Arc::new(credential));
                }
                return Ok(version);
            }
            Ok(Err(refusal)) => (
                CredentialError::Misconfigured(refusal.clone()),
                unasked(Outcome::Misconfigured(refusal)),
            ),
            Err(error) => {
                let observation = failed(FailureKind::Internal, error.to_string());
                let Outcome::Failed(failure) = observation.outcome.clone() else {
                    unreachable!("made as a failure")
                };
                (CredentialError::Unavailable(failure), observation)
            }
        };
        // What was once in order may be in the middle of an edit.
        if self.credential.is_none() {
            self.observation = Some(outcome);
        }
        Err(error)
    }

    fn poll(&mut self, ticket: PollTicket) {
        let Some(credential) = self.credential.clone() else {
            return;
        };
        self.asked += 1;
        let (client, sender) = (self.follow.client.clone(), self.sender.clone());
        let (project, job) = (self.follow.project.clone(), self.follow.job.clone());
        let poll = tokio::spawn(async move {
            let query = client.query(&credential, &project, &job);
            tokio::time::timeout(POLL_TIMEOUT, query).await
        });
        tokio::spawn(async move {
            let observation = match poll.await {
                Ok(Ok(observation)) => observation,
                Ok(Err(_)) => failed(FailureKind::Timeout, "it took too long".to_owned()),
                Err(_) => failed(FailureKind::Internal, "a fault of this program".to_owned()),
            };
            // Where nobody listens any more, the asking has ended.
            let _ = sender.send((ticket, observation));
        });
    }

    fn answered(&mut self, now: Now, ticket: PollTicket, observation: Observation) {
        self.observation = Some(observation.clone());
        self.feed(now, Input::Polled(ticket, observation));
        let next = self.tracker.next_deadline();
        let next = next.map(|at| at.saturating_sub(now.mono));
        if let Some(observation) = &self.observation {
            self.progress.show(observation, self.asked, next);
        }
    }

    /// Whether there is nothing more to wait for: an answer, or, for those who wait, the job's end,
    /// or something that only its owner can mend.
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

    /// An object that is answered with trouble at first shows nothing until the grace is over: lets
    /// it pass for the tracker, so that there is a status to report.
    fn settle(&mut self, now: Now) {
        if self.status.is_none() {
            let later = Now {
                mono: now.mono + self.follow.config.pending_grace,
                wall: now.wall,
            };
            // What it would ask by then is not asked.
            self.credential = None;
            self.feed(later, Input::Tick);
        }
    }
}

/// Lines on standard error for those who wait: one that is rewritten on a terminal, else one for
/// each change.
struct Progress {
    shown: bool,
    terminal: bool,
    last: String,
}

impl Progress {
    fn new(shown: bool) -> Self {
        Self {
            shown,
            terminal: stderr().is_terminal(),
            last: String::new(),
        }
    }

    fn show(&mut self, observation: &Observation, asked: u32, next: Option<Duration>) {
        if !self.shown {
            return;
        }
        let state = match &observation.outcome {
            Outcome::Answered(answer) => word(&answer.state).to_owned(),
            Outcome::JobNotFound => "not found".to_owned(),
            Outcome::Throttled => "asked to wait".to_owned(),
            trouble => trouble.message().unwrap_or_default().to_owned(),
        };
        let time = Timestamp::now().to_zoned(TimeZone::system());
        let time = time.strftime("%H:%M:%S");
        // A closed standard error is no reason to stop waiting.
        if self.terminal {
            let next = next.map_or(0, |next| next.as_secs());
            let _ = write!(
                stderr(),
                "\r\x1b[K{time} {state} (asked {asked} times, again in {next} s)"
            );
            let _ = stderr().flush();
        } else if state != self.last {
            let _ = writeln!(stderr(), "{time} {state}");
        }
        self.last = state;
    }

    fn end(&self) {
        if self.shown && self.terminal && !self.last.is_empty() {
            let _ = writeln!(stderr());
        }
    }
}

/// The status word of the CRD.
pub(super) fn word(state: &JobState) -> &str {
    match state {
        JobState::Init => "INIT",
        JobState::Running => "RUNNING",
        JobState::Success => "SUCCESS",
        JobState::Fail => "FAIL",
        JobState::Unrecognized(word) => word,
    }
}
