//! One poll: from a request to an observation.

use super::credentials::CredentialStore;
use crate::{
    cloud::CloudClient,
    observation::{Failure, FailureKind, Observation, Outcome, Stage},
    telemetry::Metrics,
    tracker::PollRequest,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Bound on a whole poll: a login, the query, one repetition of each, at 20 s a request.
pub(super) const TIMEOUT: Duration = Duration::from_secs(90);

pub(super) async fn poll(
    cloud: CloudClient,
    store: Arc<CredentialStore>,
    metrics: Arc<Metrics>,
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
        .query(&credential, &request.project, &request.job)
        .await;
    let elapsed = started.elapsed();
    let outcome = observation.outcome.category();
    metrics.polled(outcome, elapsed, observation.requests);
    tracing::debug!(
        object = %request.key,
        job = &*request.job,
        outcome,
        requests = observation.requests,
        milliseconds = elapsed.as_millis(),
        "polled"
    );
    observation
}
