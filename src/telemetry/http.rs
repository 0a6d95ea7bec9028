//! `/healthz`, `/readyz` and `/metrics`.

use super::{Health, Metrics};
use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use std::{io, sync::Arc};
use tokio::net::TcpListener;

/// Answers until the process ends.
pub async fn serve(
    listener: TcpListener,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
) -> io::Result<()> {
    axum::serve(listener, router(health, metrics)).await
}

fn router(health: Arc<Health>, metrics: Arc<Metrics>) -> Router {
    let live = health.clone();
    Router::new()
        .route("/healthz", get(async move || probe(live.live())))
        .route("/readyz", get(async move || probe(health.ready())))
        .route("/metrics", get(async move || expose(&metrics)))
}

fn probe(result: Result<(), String>) -> Response {
    match result {
        Ok(()) => "ok\n".into_response(),
        Err(problem) => (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")).into_response(),
    }
}

fn expose(metrics: &Metrics) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, content_type)], metrics.encode()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{
        body::{Body, to_bytes},
        http::Request,
    };
    use std::time::Duration;
    use tower::Service;

    async fn get(router: &mut Router, path: &str) -> (u16, String, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.call(request).await.unwrap();
        let type_ = response.headers()[CONTENT_TYPE]
            .to_str()
            .unwrap()
            .to_owned();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, type_, String::from_utf8(body.into()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn probes_answer_200_or_503_with_the_problem() {
        let (health, metrics) = (Arc::new(Health::default()), Arc::new(Metrics::default()));
        let mut router = router(health.clone(), metrics.clone());
        let plain = "text/plain; charset=utf-8".to_owned();
        let ok = (200, plain.clone(), "ok\n".to_owned());
        assert_eq!(get(&mut router, "/healthz").await, ok);
        let listing = "ImageExportJobs are being listed\n".to_owned();
        assert_eq!(
            get(&mut router, "/readyz").await,
            (503, plain.clone(), listing)
        );
        health.set_listed();
        assert_eq!(get(&mut router, "/readyz").await, ok);
        tokio::time::advance(Duration::from_secs(61)).await;
        let stuck = "the control loop has not turned for 61 s\n".to_owned();
        assert_eq!(get(&mut router, "/healthz").await, (503, plain, stuck));
        assert_eq!(get(&mut router, "/readyz").await, ok);

        metrics.task_panicked();
        let (status, type_, body) = get(&mut router, "/metrics").await;
        let expected = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert_eq!((status, type_.as_str()), (200, expected));
        assert_eq!(body, metrics.encode());
        assert!(body.contains("imageexport_task_panics_total 1\n") && body.ends_with("# EOF\n"));
    }
}
