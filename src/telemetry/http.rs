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
    let live = health.clone();
    let router = Router::new()
        .route("/healthz", get(async move || probe(live.live())))
        .route("/readyz", get(async move || probe(health.ready())))
        .route("/metrics", get(async move || expose(&metrics)));
    axum::serve(listener, router).await
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
