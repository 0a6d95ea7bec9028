//! Sample objects and sample answers for the tests.
use crate::{Config, CredentialError, ObjectKey};
use image_export_api::{
    CloudCredentialsRef, ImageExportJob, ImageExportJobSpec, ImageExportJobStatus,
};
use image_export_model::{
    ConfigurationError, ConfigurationReason, Failure, FailureKind, JobAnswer, JobState,
    Observation, Outcome, Stage,
};
use jiff::Timestamp;
use std::time::Duration;

pub const HOST: &str = "ims.example.com";
pub const NAMESPACE: &str = "team-a";

pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Wall time at which every [`World`](super::world::World) begins: 2025-01-01T00:00:00Z.
pub fn beginning() -> Timestamp {
    Timestamp::from_second(1_735_689_600).expect("within range")
}

/// An object named `name` that follows the job `job-<name>`.
pub fn object(name: &str) -> ImageExportJob {
    object_of(name, "otc", "project")
}

pub fn object_of(name: &str, secret: &str, project: &str) -> ImageExportJob {
    let spec = ImageExportJobSpec {
        project_id: project.parse().expect("a valid project id"),
        job_id: job_of(name).parse().expect("a valid job id"),
        cloud_credentials_ref: cloud(secret),
        poll_period_seconds: None,
        deadline_seconds: None,
        ttl_seconds_after_finished: None,
        suspend: false,
    };
    let mut object = ImageExportJob::new(name, spec);
    object.metadata.namespace = Some(namespace_of(name).to_owned());
    object
}

/// The job of an object.
pub fn job_of(name: &str) -> String {
    format!("job-{}", name.replace('/', "-"))
}

/// Names of objects in other namespaces than the usual one begin with theirs.
fn namespace_of(name: &str) -> &str {
    name.split_once('/')
        .map_or(NAMESPACE, |(namespace, _)| namespace)
}

pub fn cloud(secret: &str) -> CloudCredentialsRef {
    CloudCredentialsRef {
        secret_name: secret.parse().expect("a valid Secret name"),
        cloud_name: "otc".parse().expect("a valid cloud name"),
    }
}

pub fn key(name: &str) -> ObjectKey {
    ObjectKey {
        namespace: namespace_of(name).into(),
        name: name.into(),
    }
}

/// The status of an object before its first write: the default of the CRD.
pub fn crd_default() -> ImageExportJobStatus {
    ImageExportJobStatus {
        observed_generation: Some(-1),
        ..ImageExportJobStatus::default()
    }
}

fn observed(outcome: Outcome) -> Observation {
    Observation {
        outcome,
        retry_after: None,
        endpoint: Some(HOST.into()),
        queried: Some(HOST.into()),
        identity: None,
        requests: 1,
        signed_in: false,
        proves_project: true,
        request_id: None,
    }
}

/// The fields that every answer has.
fn answer(state: JobState) -> JobAnswer {
    JobAnswer {
        state,
        job_type: Some("imsNativeExportImageJob".into()),
        image_id: None,
        fail_reason: None,
        error_code: None,
        percent: None,
        begin_time: Some(beginning()),
        end_time: None,
    }
}

/// An answer with this job state, adapted by `change`.
pub fn answer_with(state: JobState, change: impl FnOnce(&mut JobAnswer)) -> Observation {
    let mut answer = answer(state);
    change(&mut answer);
    observed(Outcome::Answered(Box::new(answer)))
}

pub fn init() -> Observation {
    answer_with(JobState::Init, |_| {})
}

pub fn running() -> Observation {
    answer_with(JobState::Running, |_| {})
}

pub fn success() -> Observation {
    answer_with(JobState::Success, |a| a.image_id = Some("image-1".into()))
}

pub fn success_without_image() -> Observation {
    answer_with(JobState::Success, |_| {})
}

pub fn fail() -> Observation {
    answer_with(JobState::Fail, |a| {
        a.fail_reason = Some("disk full".into());
        a.error_code = Some("IMG.0148".into());
    })
}

pub fn unrecognized(status: &str) -> Observation {
    answer_with(JobState::Unrecognized(status.into()), |_| {})
}

pub fn not_found() -> Observation {
    observed(Outcome::JobNotFound)
}

/// The poll has to wait for another one's login.
pub fn deferred(after: Duration) -> Observation {
    Observation {
        requests: 0,
        endpoint: None,
        queried: None,
        ..observed(Outcome::Deferred(after))
    }
}

pub fn throttled(retry_after: Option<Duration>) -> Observation {
    Observation {
        retry_after,
        ..observed(Outcome::Throttled)
    }
}

pub fn configuration_error(reason: ConfigurationReason) -> ConfigurationError {
    ConfigurationError {
        reason,
        message: "fix this".into(),
    }
}

pub fn misconfigured(reason: ConfigurationReason) -> Observation {
    observed(Outcome::Misconfigured(configuration_error(reason)))
}

pub fn failure(kind: FailureKind, stage: Stage) -> Failure {
    Failure {
        kind,
        stage,
        message: "ims.example.com answered 503".into(),
    }
}

/// A 503 of the job query endpoint.
pub fn unavailable() -> Observation {
    observed(Outcome::Failed(failure(FailureKind::Http, Stage::Query)))
}

pub fn unavailable_for(retry_after: Duration) -> Observation {
    Observation {
        retry_after: Some(retry_after),
        ..unavailable()
    }
}

/// The poll times out before any answer.
pub fn time_out() -> Observation {
    Observation {
        endpoint: None,
        ..observed(Outcome::Failed(failure(FailureKind::Timeout, Stage::Query)))
    }
}

pub fn secret_missing() -> CredentialError {
    CredentialError::Misconfigured(configuration_error(
        ConfigurationReason::CredentialsNotFound,
    ))
}

pub fn secret_unreadable_now() -> CredentialError {
    CredentialError::Unavailable(failure(FailureKind::Network, Stage::Login))
}

/// No quota and no number of polls in flight holds back a poll.
pub fn unlimited() -> Config {
    Config {
        quota_rate: 1e9,
        quota_burst: 1e9,
        host_rate: 1e9,
        host_burst: 1e9,
        unproven_rate: 1e9,
        unproven_burst: 1e9,
        quota_in_flight: 1_000_000,
        polls_in_flight: 1_000_000,
        ..Config::default()
    }
}
