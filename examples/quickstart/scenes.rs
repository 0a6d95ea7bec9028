//! The five scenes: the job that the simulated cloud has for each object, its explanation on the
//! screen, and the end that it must reach.

use crate::{environment::PROJECT, screen::Row};
use image_export_api::{
    ImageExportJob, ImageExportJobStatus,
    conditions::{Condition, reasons, types},
};
use k8s_openapi::jiff::Timestamp;
use std::time::Duration;
use testbed::ims::{Job, JobKey, RequestRecord, Start};

/// Duration of the outage in [`Scene::Outage`].
pub const OUTAGE: Duration = Duration::from_secs(12);
/// Time until the missing Secret is created.
pub const SECRET_DELAY: Duration = Duration::from_secs(7);

const ERROR_CODE: &str = "IMG.0148";
const FAIL_REASON: &str = "The OBS bucket does not exist.";
/// INIT, RUNNING and the end; one more where the first answer takes longer than 10 s.
const MAX_WRITES: usize = 4;

/// One object of `objects/`, which has the name of its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    Success,
    Failure,
    LongJob,
    Outage,
    LateSecret,
}

/// The progress of a scene.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    Open,
    Met,
    /// Ended otherwise than expected, and how.
    Missed(String),
}

/// The observed versions of one object, and the polls of its job.
#[derive(Default)]
pub struct Observed {
    object: Option<ImageExportJob>,
    /// The reasons of `Ready`, in their order.
    reasons: Vec<String>,
    writes: usize,
    polls: u64,
    answer: Option<u16>,
    /// Number of answers 503.
    unavailable: usize,
}

impl Scene {
    pub const ALL: [Self; 5] = [
        Self::Success,
        Self::Failure,
        Self::LongJob,
        Self::Outage,
        Self::LateSecret,
    ];

    /// Name of the object, and id of its job.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "golden-image",
            Self::Failure => "missing-bucket",
            Self::LongJob => "slow-export",
            Self::Outage => "cloud-outage",
            Self::LateSecret => "late-secret",
        }
    }

    pub fn key(self) -> JobKey {
        JobKey::new(PROJECT, self.name())
    }

    /// The job in the cloud. It starts with its first poll.
    pub fn job(self) -> Job {
        let (init, run) = match self {
            Self::Success => (4, 9),
            Self::Failure => (3, 14),
            Self::LongJob => (6, 34),
            Self::Outage => (3, 20),
            Self::LateSecret => (3, 6),
        };
        let job = job(self.name(), init, run);
        match self {
            Self::Failure => job.fails(ERROR_CODE, FAIL_REASON),
            _ => job,
        }
    }

    /// One line: what the screen shows, and why it matters.
    fn explanation(self, observed: &Observed) -> &'static str {
        let reason = observed.reason();
        let succeeded = reason == reasons::JOB_SUCCEEDED;
        match self {
            _ if reason.is_empty() => {
                "New: observedGeneration is -1, so no tool takes it for finished."
            }
            Self::Success if succeeded => {
                "Ready is True and the image is named: what `kubectl wait` waits for."
            }
            Self::Success => "Ready is Unknown, not False: no wait fails early.",
            Self::Failure if reason == reasons::JOB_FAILED => {
                "The cloud's own code and reason; Flux and Argo CD read Stalled."
            }
            Self::Failure => "It will fail, but only the cloud's own FAIL counts as failure.",
            Self::LongJob if succeeded => "Polled often, written only on a change: easy on etcd.",
            Self::LongJob => "POLLS grow, WRITES do not: an unchanged answer writes nothing.",
            Self::Outage if succeeded && observed.unavailable > 0 => {
                "The outage left no trace: the end was observed later, and is the cloud's."
            }
            Self::Outage if observed.answer == Some(503) => {
                "503, yet the last status is kept: PollFailed would come after 2 min."
            }
            Self::Outage if observed.unavailable > 0 => {
                "The cloud is available again, and polls succeed."
            }
            Self::Outage => "Soon the cloud will answer 503 to polls of this job, for a while.",
            Self::LateSecret if reason == reasons::CREDENTIALS_NOT_FOUND => {
                "Not a failure: the message names what is missing; Secrets are read again."
            }
            Self::LateSecret => "The Secret was created and polling began: no restart, no edit.",
        }
    }

    /// Whether the object has reached the expected end.
    pub fn progress(self, observed: &Observed) -> Progress {
        let Some(status) = observed
            .status()
            .filter(|status| status.completion_time.is_some())
        else {
            return Progress::Open;
        };
        match self.deviation(observed, status) {
            None => Progress::Met,
            Some(deviation) => Progress::Missed(deviation),
        }
    }

    fn deviation(self, observed: &Observed, status: &ImageExportJobStatus) -> Option<String> {
        let (ready, reason) = match self {
            Self::Failure => ("False", reasons::JOB_FAILED),
            _ => ("True", reasons::JOB_SUCCEEDED),
        };
        let seen = (observed.ready(), observed.reason());
        if seen != (ready, reason) {
            return Some(format!(
                "expected Ready={ready}/{reason}, it is {}/{}",
                seen.0, seen.1
            ));
        }
        let held = match self {
            Self::Success => status.image_id.is_some(),
            Self::Failure => {
                status.error_code.as_deref() == Some(ERROR_CODE)
                    && status.fail_reason.as_deref() == Some(FAIL_REASON)
            }
            Self::LongJob => observed.writes <= MAX_WRITES,
            Self::Outage => {
                let harmless = [
                    reasons::PENDING,
                    reasons::JOB_INITIALIZING,
                    reasons::JOB_RUNNING,
                    reasons::JOB_SUCCEEDED,
                ];
                let untouched = |reason: &String| harmless.contains(&reason.as_str());
                observed.unavailable > 0 && observed.reasons.iter().all(untouched)
            }
            Self::LateSecret => observed
                .reasons
                .iter()
                .any(|reason| reason == reasons::CREDENTIALS_NOT_FOUND),
        };
        (!held).then(|| {
            let expected = match self {
                Self::Success => "expected an image id".to_owned(),
                Self::Failure => format!("expected {ERROR_CODE} and {FAIL_REASON:?}"),
                Self::LongJob => format!("expected {MAX_WRITES} writes at most"),
                Self::Outage => "expected answers 503 that leave no trace".to_owned(),
                Self::LateSecret => "expected CredentialsNotFound on the way".to_owned(),
            };
            format!(
                "{expected}; it had {} writes, {} answers 503 and the reasons {}",
                observed.writes,
                observed.unavailable,
                observed.reasons.join(", ")
            )
        })
    }

    /// The object as a row of the table.
    pub fn row(self, observed: &Observed) -> Row {
        let created = observed
            .object
            .as_ref()
            .and_then(|object| object.metadata.creation_timestamp.as_ref());
        Row {
            name: self.name(),
            status: observed.job_status().to_owned(),
            ready: observed.ready().to_owned(),
            reason: observed.reason().to_owned(),
            message: observed.message().to_owned(),
            explanation: self.explanation(observed),
            age: created
                .and_then(|created| Timestamp::now().duration_since(created.0).try_into().ok()),
            answer: observed.answer,
            polls: observed.polls,
            writes: observed.writes,
            met: self.progress(observed) == Progress::Met,
        }
    }
}

impl Observed {
    /// Adds a version of the object that the watch has delivered.
    pub fn see(&mut self, object: ImageExportJob) {
        let before = self.status().cloned();
        self.object = Some(object);
        // The first status is the CRD's default, not the operator's.
        let written = |status: &&ImageExportJobStatus| !status.conditions.is_empty();
        if self.status().filter(written) != before.as_ref().filter(written) {
            self.writes += 1;
        }
        let reason = self.reason().to_owned();
        if !reason.is_empty() && self.reasons.last() != Some(&reason) {
            self.reasons.push(reason);
        }
    }

    /// Counts the polls so far.
    pub fn count_polls(&mut self, key: &JobKey, requests: &[RequestRecord]) {
        let path = key.to_string();
        let answers: Vec<Option<u16>> = requests
            .iter()
            .filter(|request| request.path == path)
            .map(|request| request.status)
            .collect();
        self.polls = answers.len() as u64;
        self.answer = answers.iter().rev().find_map(|answer| *answer);
        self.unavailable = answers.iter().filter(|a| **a == Some(503)).count();
    }

    pub fn status(&self) -> Option<&ImageExportJobStatus> {
        self.object.as_ref()?.status.as_ref()
    }

    /// `status.status`, empty where there is none.
    pub fn job_status(&self) -> &str {
        self.status()
            .and_then(|status| status.status.as_deref())
            .unwrap_or_default()
    }

    /// The reason of `Ready`, empty where there is none.
    pub fn reason(&self) -> &str {
        self.condition().map_or("", |ready| &ready.reason)
    }

    fn ready(&self) -> &str {
        self.condition().map_or("", |ready| &ready.status)
    }

    fn message(&self) -> &str {
        self.condition().map_or("", |ready| &ready.message)
    }

    fn condition(&self) -> Option<&Condition> {
        self.status()?
            .conditions
            .iter()
            .find(|condition| condition.type_ == types::READY)
    }
}

/// The job of `one-more.yaml`.
pub fn one_more() -> Job {
    job("one-more", 3, 9)
}

/// `init` and `run` in seconds.
fn job(name: &str, init: u64, run: u64) -> Job {
    Job::new(PROJECT, name)
        .starts(Start::FirstQuery)
        .init_for(Duration::from_secs(init))
        .running_for(Duration::from_secs(run))
}
