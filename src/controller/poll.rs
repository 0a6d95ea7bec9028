//! One poll: from a request to an observation.

use super::credentials::CredentialStore;
use crate::telemetry::{LogGate, Metrics};
use image_export_cloud::CloudClient;
use image_export_core::PollRequest;
use image_export_model::{Failure, FailureKind, Observation, Outcome, Stage};
use std::{sync::Arc, time::Instant};

pub(super) async fn poll(
    cloud: CloudClient,
    store: Arc<CredentialStore>,
    metrics: Arc<Metrics>,
    gate: Arc<LogGate>,
    request: PollRequest,
) -> Observation {
    let Some(credential) = store.get(&request.credential) else {
        // The tracker asks only with credentials that were read.
        return Observation {
            outcome: Outcome::Failed(Failure {
                kind: FailureKind::Internal,
                stage: Stage::Login,
                message: "its credentials are being read again".into(),
            }),
            retry_after: None,
            endpoint: None,
            requests: 0,
            signed_in: false,
            request_id: None,
        };
    };
    let started = Instant::now();
    let observation = cloud
        .query(&credential, request.project.as_str(), request.job.as_str())
        .await;
    let elapsed = started.elapsed();
    let outcome = observation.outcome.category();
    metrics.polled(outcome, elapsed, observation.requests);
    let (endpoint, request_id) = (&observation.endpoint, &observation.request_id);
    // What the cloud's support asks for; one line a minute for each kind of trouble.
    let trouble = match &observation.outcome {
        Outcome::Answered(_) => None,
        Outcome::JobNotFound => Some("the cloud knows no such job"),
        Outcome::Throttled => Some("the cloud asks to wait"),
        Outcome::Misconfigured(_) | Outcome::Failed(_) => observation.outcome.message(),
    };
    if let Some(trouble) = trouble
        && gate.opens(outcome)
    {
        tracing::info!(
            job = %request.job,
            outcome,
            endpoint = endpoint.as_deref(),
            request_id = request_id.as_deref(),
            "{trouble}"
        );
    }
    tracing::debug!(
        job = %request.job,
        outcome,
        endpoint = endpoint.as_deref(),
        request_id = request_id.as_deref(),
        requests = observation.requests,
        milliseconds = elapsed.as_millis(),
        "polled"
    );
    observation
}
