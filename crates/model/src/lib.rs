//! The vocabulary that the packages share: ids of the cloud's jobs, and what one poll of a job reports.
//!
//! It knows neither Kubernetes nor HTTP.

mod ids;
mod observation;

pub use ids::{CloudName, JobId, ProjectId, SecretName};
pub use observation::{
    Caller, ConfigurationError, ConfigurationReason, Failure, FailureKind, JobAnswer, JobState,
    Observation, Outcome, PriorAcceptance, Stage, TYPES_WITHOUT_IMAGE,
};
