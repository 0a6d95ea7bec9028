//! The five scenes: the job that the simulated cloud has for each object, what the reader sees of it,
//! and the end that it must reach.

use crate::{screen::Row, stage::PROJECT};
use image_export_api::{
    ImageExportJob, ImageExportJobStatus,
    conditions::{Condition, reasons, types},
};
use k8s_openapi::jiff::Timestamp;
use std::time::Duration;
use testbed::ims::{Job, JobKey, RequestRecord, Start};

/// How long the cloud is down for [`Scene::Outage`].
pub const OUTAGE: Duration = Duration::from_secs(12);
/// How long the missing Secret stays missing.
pub const SECRET_DELAY: Duration = Duration::from_secs(7);

const ERROR_CODE: &str = "IMG.0148";
const FAIL_REASON: &str = "The OBS bucket does not exist.";
/// INIT, RUNNING and the end; one more where the first answer takes longer than 10 s.
const MOST_WRITES: usize = 4;

/// One object of `objects/`, which has the name of its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    Success,
    Failure,
    Patience,
    Outage,
    LateSecret,
}

/// How far an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Open,
    Met,
    /// Ended otherwise than expected, for this reason.
    Missed(String),
}

/// What has been seen of one object, and of its job in the cloud.
#[derive(Default)]
pub struct Sight {
    object: Option<ImageExportJob>,
    /// The reasons of `Ready`, in the order in which they came.
    reasons: Vec<String>,
    writes: usize,
    polls: u64,
    answer: Option<u16>,
    /// How often the cloud has answered 503.
    unavailable: usize,
}

impl Scene {
    pub const ALL: [Self; 5] = [
        Self::Success,
        Self::Failure,
        Self::Patience,
        Self::Outage,
        Self::LateSecret,
    ];

    /// Name of the object, and id of its job.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "golden-image",
            Self::Failure => "missing-bucket",
            Self::Patience => "slow-export",
            Self::Outage => "cloud-outage",
            Self::LateSecret => "late-secret",
        }
    }

    pub fn key(self) -> JobKey {
        JobKey::new(PROJECT, self.name())
    }

    /// The job in the cloud. Its life starts when it is first asked for.
    pub fn job(self) -> Job {
        let (init, run) = match self {
            Self::Success => (4, 9),
            Self::Failure => (3, 14),
            Self::Patience => (6, 34),
            Self::Outage => (3, 20),
            Self::LateSecret => (3, 6),
        };
        let job = job(self.name(), init, run);
        match self {
            Self::Failure => job.fails(ERROR_CODE, FAIL_REASON),
            _ => job,
        }
    }

    /// One line: what is seen, and why it matters.
    fn explanation(self, sight: &Sight) -> &'static str {
        let reason = sight.reason();
        let succeeded = reason == reasons::JOB_SUCCEEDED;
        match self {
            _ if reason.is_empty() => {
                "New: observedGeneration is -1, so no tool takes it for finished."
            }
            Self::Success if succeeded => {
                "Ready is True and the image is named: what `kubectl wait` waits for."
            }
            Self::Success => "Ready is Unknown, not False: nobody who waits gives up early.",
            Self::Failure if reason == reasons::JOB_FAILED => {
                "The cloud's own code and reason; Stalled tells Flux and Argo CD."
            }
            Self::Failure => "It will fail, but only the cloud's own FAIL counts as failure.",
            Self::Patience if succeeded => {
                "Asked often, written only when something changed: easy on etcd."
            }
            Self::Patience => "POLLS grow, WRITES do not: an answer without news writes nothing.",
            Self::Outage if succeeded && sight.unavailable > 0 => {
                "The outage left no trace: the end came late, but as the cloud told it."
            }
            Self::Outage if sight.answer == Some(503) => {
                "503, yet the last status is kept: PollFailed would come after 2 min."
            }
            Self::Outage if sight.unavailable > 0 => "The cloud is back and so are the answers.",
            Self::Outage => "Soon the cloud will answer 503 about this job, for a while.",
            Self::LateSecret if reason == reasons::CREDENTIALS_NOT_FOUND => {
                "Not a failure: the message says what is missing; Secrets are read again."
            }
            Self::LateSecret => {
                "The Secret came and work began: no restart, no edit of the object."
            }
        }
    }

    /// Whether the object has reached the end that this scene is about.
    pub fn verdict(self, sight: &Sight) -> Verdict {
        let Some(status) = sight
            .status()
            .filter(|status| status.completion_time.is_some())
        else {
            return Verdict::Open;
        };
        match self.objection(sight, status) {
            None => Verdict::Met,
            Some(objection) => Verdict::Missed(objection),
        }
    }

    fn objection(self, sight: &Sight, status: &ImageExportJobStatus) -> Option<String> {
        let (ready, reason) = match self {
            Self::Failure => ("False", reasons::JOB_FAILED),
            _ => ("True", reasons::JOB_SUCCEEDED),
        };
        let seen = (sight.ready(), sight.reason());
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
            Self::Patience => sight.writes <= MOST_WRITES,
            Self::Outage => {
                let harmless = [
                    reasons::PENDING,
                    reasons::JOB_INITIALIZING,
                    reasons::JOB_RUNNING,
                    reasons::JOB_SUCCEEDED,
                ];
                let untouched = |reason: &String| harmless.contains(&reason.as_str());
                sight.unavailable > 0 && sight.reasons.iter().all(untouched)
            }
            Self::LateSecret => sight
                .reasons
                .iter()
                .any(|reason| reason == reasons::CREDENTIALS_NOT_FOUND),
        };
        (!held).then(|| {
            let expected = match self {
                Self::Success => "expected an image id".to_owned(),
                Self::Failure => format!("expected {ERROR_CODE} and {FAIL_REASON:?}"),
                Self::Patience => format!("expected {MOST_WRITES} writes at most"),
                Self::Outage => "expected answers 503 that leave no trace".to_owned(),
                Self::LateSecret => "expected CredentialsNotFound on the way".to_owned(),
            };
            format!(
                "{expected}; it had {} writes, {} answers 503 and the reasons {}",
                sight.writes,
                sight.unavailable,
                sight.reasons.join(", ")
            )
        })
    }

    /// The object as the table shows it.
    pub fn row(self, sight: &Sight) -> Row {
        let created = sight
            .object
            .as_ref()
            .and_then(|object| object.metadata.creation_timestamp.as_ref());
        Row {
            name: self.name(),
            status: sight.word().to_owned(),
            ready: sight.ready().to_owned(),
            reason: sight.reason().to_owned(),
            message: sight.message().to_owned(),
            explanation: self.explanation(sight),
            age: created
                .and_then(|created| Timestamp::now().duration_since(created.0).try_into().ok()),
            answer: sight.answer,
            polls: sight.polls,
            writes: sight.writes,
            met: self.verdict(sight) == Verdict::Met,
        }
    }
}

impl Sight {
    /// Takes in a version of the object that the watch has shown.
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

    /// Takes in all that the cloud was asked so far.
    pub fn ask(&mut self, key: &JobKey, requests: &[RequestRecord]) {
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
    pub fn word(&self) -> &str {
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
