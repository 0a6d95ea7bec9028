//! Shows each call to the API server to the probes and the metrics.

use crate::telemetry::{ApiCalls, Health};
use futures::{FutureExt, future::BoxFuture};
use http::{Method, Request, Response};
use std::{
    sync::Arc,
    task::{Context, Poll},
};
use tower::{Layer, Service};

/// Put it outside of what bounds the time of a call: one that is given up is a call without an answer.
#[derive(Clone)]
pub(crate) struct Observe {
    pub(crate) health: Arc<Health>,
    pub(crate) calls: ApiCalls,
}

impl<S> Layer<S> for Observe {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        let observe = self.clone();
        Observed { inner, observe }
    }
}

pub(crate) struct Observed<S> {
    inner: S,
    observe: Observe,
}

impl<S, B, R> Service<Request<B>> for Observed<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let call = Call {
            observe: self.observe.clone(),
            method: request.method().clone(),
            status: None,
        };
        let answer = self.inner.call(request);
        async move {
            // The whole of it, not a copy of a field.
            let mut call = call;
            let result = answer.await;
            call.status = result.as_ref().ok().map(|answer| answer.status().as_u16());
            result
        }
        .boxed()
    }
}

/// One call. It is counted when it is dropped, also where nobody waits for its answer any more.
struct Call {
    observe: Observe,
    method: Method,
    status: Option<u16>,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.observe.calls.count(&self.method, self.status);
        if let Some(status) = self.status {
            self.observe.health.api_answered(status);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;
    use std::{future::pending, time::Duration};
    use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn, timeout::TimeoutLayer};

    #[tokio::test(start_paused = true)]
    async fn each_call_is_counted_with_its_answer_or_as_one_without() {
        let metrics = Metrics::default();
        let health = Arc::<Health>::default();
        health.set_listed();
        let calls = metrics.api_calls("a:443");
        let observe = Observe {
            health: health.clone(),
            calls,
        };
        let mut service = ServiceBuilder::new()
            .layer(observe)
            .layer(TimeoutLayer::new(Duration::from_secs(15)))
            .service(service_fn(|request: Request<&'static str>| async move {
                match request.uri().path() {
                    "/lost" => Err(BoxError::from("the connection is lost")),
                    "/never" => pending().await,
                    path => Ok(Response::builder().status(&path[1..]).body(()).unwrap()),
                }
            }));
        let mut call = async |method: Method, path: &str| {
            let request = Request::builder().method(method).uri(path).body("");
            let service = service.ready().await.unwrap();
            let _ = service.call(request.unwrap()).await;
        };
        call(Method::GET, "/200").await;
        call(Method::GET, "/403").await;
        call(Method::PATCH, "/lost").await;
        call(Method::PATCH, "/never").await;
        let late = tokio::time::timeout(Duration::from_secs(1), call(Method::PATCH, "/never"));
        assert!(late.await.is_err());
        for (code, method, count) in [
            ("200", "GET", 1),
            ("403", "GET", 1),
            ("<error>", "PATCH", 3),
            ("<error>", "GET", 0),
        ] {
            let line = format!(
                "rest_client_requests_total{{code=\"{code}\",method=\"{method}\",host=\"a:443\"}} {count}\n"
            );
            assert!(
                metrics.encode().contains(&line),
                "{line} in {}",
                metrics.encode()
            );
        }

        tokio::time::advance(Duration::from_secs(60)).await;
        call(Method::GET, "/403").await;
        assert!(
            health.rejection().is_some(),
            "the probes learn of it as well"
        );
    }
}
