//! One poll: from a request of the tracker to an observation.

use super::credentials::CredentialStore;
use crate::telemetry::{LogGate, Metrics};
use image_export_cloud::CloudClient;
use image_export_core::PollRequest;
use image_export_model::{Failure, FailureKind, JobId, Observation, Outcome, ProjectId, Stage};
use std::{sync::Arc, time::Instant};

#[tracing::instrument(name = "poll", skip_all, fields(
    object = %request.key,
    secret = %request.credential.cloud.secret_name,
    cloud = %request.credential.cloud.cloud_name,
    job = %request.job,
))]
pub(super) async fn poll(
    cloud: CloudClient,
    store: Arc<CredentialStore>,
    metrics: Arc<Metrics>,
    gate: Arc<LogGate>,
    request: PollRequest,
) -> Observation {
    let Some(credential) = store.get(&request.credential) else {
        // The tracker polls only with credentials that were read.
        return not_sent("its credentials are being read again");
    };
    let (Ok(project), Ok(job)) = (
        ProjectId::try_from(request.project.to_string()),
        JobId::try_from(request.job.to_string()),
    ) else {
        // The object's own fields have these types.
        return not_sent("its ids are not ids of a cloud");
    };
    let started = Instant::now();
    let observation = cloud.query(&credential, &project, &job).await;
    let elapsed = started.elapsed();
    let outcome = observation.outcome.category();
    metrics.polled(outcome, elapsed, observation.requests);
    let (endpoint, request_id) = (&observation.endpoint, &observation.request_id);
    // One line a minute for each category, with the request id that the cloud's support asks for.
    let problem = match &observation.outcome {
        Outcome::Answered(_) => None,
        Outcome::JobNotFound => Some("the cloud knows no such job"),
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

fn not_sent(message: &str) -> Observation {
    Observation {
        outcome: Outcome::Failed(Failure {
            kind: FailureKind::Internal,
            stage: Stage::Login,
            message: message.into(),
        }),
        retry_after: None,
        endpoint: None,
        requests: 0,
        signed_in: false,
        request_id: None,
    }
}
