//! One poll: from a request of the tracker to an observation.

use super::credentials::{self, CredentialStore};
use crate::{
    contained::failure,
    telemetry::{LogGate, Metrics},
};
use image_export_cloud::CloudClient;
use image_export_core::{CredentialRef, ObjectKey, PollRequest};
use image_export_model::{Caller, FailureKind, JobId, Observation, Outcome};
use std::sync::Arc;
use tracing::{Span, error_span, level_filters::LevelFilter};

/// On whose behalf a poll logs. Most log nothing, so the span is made where something is.
#[derive(Clone)]
pub(super) struct Origin {
    object: ObjectKey,
    credential: Arc<CredentialRef>,
    job: JobId,
}

impl Origin {
    pub(super) fn of(request: &PollRequest) -> Self {
        Self {
            object: request.key.clone(),
            credential: request.credential.clone(),
            job: request.job.clone(),
        }
    }

    /// For a poll whose steps are logged; else none.
    pub(super) fn span_of_steps(&self) -> Span {
        if LevelFilter::current() >= LevelFilter::DEBUG {
            self.span()
        } else {
            Span::none()
        }
    }

    fn span(&self) -> Span {
        let Self {
            object,
            credential,
            job,
        } = self;
        // Of the level of errors: whatever filter lets a line through shows its span too.
        error_span!("poll", %object, credential = %credentials::name(credential), %job)
    }

    /// Logs on behalf of the poll.
    pub(super) fn log(&self, log: impl FnOnce()) {
        if Span::current().is_none() {
            self.span().in_scope(log);
        } else {
            log();
        }
    }
}

/// Polls a job with the credential that was read for it.
pub(super) async fn poll(
    cloud: CloudClient,
    store: Arc<CredentialStore>,
    metrics: Arc<Metrics>,
    gate: Arc<LogGate>,
    request: PollRequest,
) -> Observation {
    let origin = Origin::of(&request);
    let Some(credential) = store.get(&request.credential) else {
        // The tracker polls only with credentials that were read.
        let message = "its credentials are being read again".to_owned();
        let failure = failure(FailureKind::Internal, message);
        return Observation::of(Outcome::Failed(failure), 0);
    };
    let caller = Caller {
        namespace: request.key.namespace.clone(),
        prior: request.prior,
    };
    let running = metrics.poll_started(request.late);
    let observation = cloud
        .query(&credential, &request.project, &request.job, &caller)
        .await;
    let elapsed = running.end(&observation.outcome, observation.requests);
    let outcome = observation.outcome.category();
    let (endpoint, request_id) = (&observation.endpoint, &observation.request_id);
    // One line a minute for each category, with the request id that the cloud's support asks for.
    let problem = match &observation.outcome {
        Outcome::Answered(_) | Outcome::Deferred(_) => None,
        Outcome::JobNotFound => Some("the cloud finds no such job"),
        Outcome::Throttled => Some("the cloud limits the rate of requests"),
        Outcome::Misconfigured(_) | Outcome::Failed(_) => observation.outcome.message(),
    };
    if let Some(problem) = problem
        && gate.opens(outcome)
    {
        origin.log(|| {
            tracing::info!(
                outcome,
                endpoint = endpoint.as_deref(),
                request_id = request_id.as_deref(),
                "{problem}"
            );
        });
    }
    tracing::debug!(
        outcome,
        endpoint = endpoint.as_deref(),
        request_id = request_id.as_deref(),
        requests = observation.requests,
        milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        "polled"
    );
    observation
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{controller::fake, telemetry::Captured};
    use image_export_api::ImageExportJob;
    use image_export_core::{Config, Effect, Input, Now, Output, Source, Tracker};
    use serde_json::json;
    use std::time::Duration;
    use testbed::ims::{self, Answer, JobKey, Simulator};

    /// A request for the object of `fake::object`, of which only the tracker can make one.
    fn request() -> PollRequest {
        let mut now = Now {
            mono: Duration::ZERO,
            wall: "2024-11-06T06:50:00Z".parse().unwrap(),
        };
        let mut tracker = Tracker::new(Config::default(), now);
        let object = fake::object(&json!({}));
        let object: ImageExportJob = serde_json::from_value(object).unwrap();
        let mut inputs = vec![
            Input::Leading(true),
            Input::ListStarted(Source(0)),
            Input::Applied(Source(0), Box::new(object)),
            Input::Listed(Source(0)),
        ];
        loop {
            let mut output = Output::default();
            for input in inputs.drain(..) {
                tracker.handle(now, input, &mut output);
            }
            for effect in output.effects {
                match effect {
                    Effect::Poll(request) => return *request,
                    Effect::ReadCredential(reference) => {
                        inputs.push(Input::CredentialRead(reference, Ok(1)));
                    }
                    other => panic!("{other:?}"),
                }
            }
            if inputs.is_empty() {
                now.mono = tracker.next_deadline().unwrap();
                inputs.push(Input::Tick);
            }
        }
    }

    #[tokio::test]
    async fn a_poll_is_counted_and_logged_with_the_id_of_the_request() {
        let sim = Simulator::start(ims::Config::default()).unwrap();
        sim.add_token("t", Some("p"));
        let credentials = format!(
            "clouds: {{otc: {{auth_type: token, auth: {{token: t}}, image_endpoint_override: \"{}\"}}}}",
            sim.url()
        );
        let (store, metrics, gate) = (
            Arc::<CredentialStore>::default(),
            Arc::<Metrics>::default(),
            Arc::default(),
        );
        let key = JobKey::new("p", "j");
        let answers = [
            Answer::ims_error(429, "IMG.0060", "slow down").header("X-Request-Id", "one"),
            Answer::ims_error(503, "IMG.0023", "down").header("X-Request-Id", "two"),
            Answer::ims_error(503, "IMG.0023", "down").header("X-Request-Id", "three"),
            Answer::ims_error(403, "IMG.0026", "no").header("X-Request-Id", "four"),
            Answer::json(200, r#"{"job_id":"{job_id}","status":"RUNNING"}"#)
                .header("X-Request-Id", "five"),
        ];
        let (log, _guard) = Captured::start();
        let mut categories = Vec::new();
        for answer in answers {
            sim.script(key.clone(), [answer]);
            let request = request();
            credentials::put_for_test(&store, &request.credential, &credentials);
            let (store, metrics, gate) = (Arc::clone(&store), metrics.clone(), Arc::clone(&gate));
            let observation = poll(fake::cloud(), store, metrics, gate, request).await;
            categories.push(observation.outcome.category());
        }
        assert_eq!(
            categories,
            [
                "throttled",
                "http_error",
                "http_error",
                "access_denied",
                "answered"
            ]
        );

        let address = sim.url().replace("http://", "");
        let lines = log.of("::poll");
        let ids = |level: &str| -> Vec<String> {
            let lines = lines.iter().filter(|line| line["level"] == level);
            lines
                .map(|line| {
                    assert_eq!(line["endpoint"], address, "{line}");
                    format!(
                        "{} {}",
                        line["outcome"].as_str().unwrap(),
                        line["request_id"].as_str().unwrap()
                    )
                })
                .collect()
        };
        let all = [
            "throttled one",
            "http_error two",
            "http_error three",
            "access_denied four",
            "answered five",
        ];
        assert_eq!(ids("DEBUG"), all);
        // One line a minute for each problem.
        assert_eq!(ids("INFO"), [all[0], all[1], all[3]]);
        for line in lines.iter().filter(|line| line["level"] == "DEBUG") {
            assert_eq!(line["requests"], 1, "{line}");
            assert!(line["milliseconds"].is_u64(), "{line}");
        }
        let text = metrics.encode();
        for line in [
            "imageexport_polls_total{outcome=\"http_error\"} 2\n",
            "imageexport_polls_total{outcome=\"answered\"} 1\n",
            "imageexport_poll_requests_total 5\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[tokio::test]
    async fn without_its_credential_a_poll_sends_nothing() {
        let metrics = Arc::<Metrics>::default();
        let observation = poll(
            fake::cloud(),
            Arc::default(),
            metrics.clone(),
            Arc::default(),
            request(),
        )
        .await;
        let message = "its credentials are being read again".to_owned();
        let outcome = Outcome::Failed(failure(FailureKind::Internal, message));
        assert_eq!(observation, Observation::of(outcome, 0));
        assert!(
            metrics
                .encode()
                .contains("imageexport_poll_requests_total 0\n")
        );
    }
}
