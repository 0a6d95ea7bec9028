//! One poll: from a request of the tracker to an observation.

use super::credentials::CredentialStore;
use crate::{
    contained::failure,
    telemetry::{LogGate, Metrics},
};
use image_export_cloud::CloudClient;
use image_export_core::PollRequest;
use image_export_model::{FailureKind, Observation, Outcome};
use std::{sync::Arc, time::Instant};

/// Polls a job with the credential that was read for it.
pub(super) async fn poll(
    cloud: CloudClient,
    store: Arc<CredentialStore>,
    metrics: Arc<Metrics>,
    gate: Arc<LogGate>,
    request: PollRequest,
) -> Observation {
    let Some(credential) = store.get(&request.credential) else {
        // The tracker polls only with credentials that were read.
        let message = "its credentials are being read again".to_owned();
        let failure = failure(FailureKind::Internal, message);
        return Observation::of(Outcome::Failed(failure), 0);
    };
    let started = Instant::now();
    let observation = cloud
        .query(&credential, &request.project, &request.job)
        .await;
    let elapsed = started.elapsed();
    let outcome = observation.outcome.category();
    metrics.polled(outcome, elapsed, observation.requests);
    let (endpoint, request_id) = (&observation.endpoint, &observation.request_id);
    // One line a minute for each category, with the request id that the cloud's support asks for.
    let problem = match &observation.outcome {
        Outcome::Answered(_) => None,
        Outcome::JobNotFound => Some("the cloud finds no such job"),
        Outcome::Throttled => Some("the cloud limits the rate of requests"),
        Outcome::Misconfigured(_) | Outcome::Failed(_) => observation.outcome.message(),
    };
    if let Some(problem) = problem
        && gate.opens(outcome)
    {
        tracing::info!(
            outcome,
            endpoint = endpoint.as_deref(),
            request_id = request_id.as_deref(),
            "{problem}"
        );
    }
    tracing::debug!(
        outcome,
        endpoint = endpoint.as_deref(),
        request_id = request_id.as_deref(),
        requests = observation.requests,
        milliseconds = elapsed.as_millis(),
        "polled"
    );
    observation
}
