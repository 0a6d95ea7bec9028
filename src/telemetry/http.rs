//! `/healthz`, `/readyz` and `/metrics`.

use super::{Health, Metrics};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use std::{io, net::SocketAddr, sync::Arc};
use tokio::net::TcpListener;

/// A bound server that does not answer yet.
pub struct Server {
    listener: TcpListener,
    router: Router,
}

/// Binds to `address`. Port 0 lets the system choose one.
pub async fn bind(
    address: SocketAddr,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
) -> io::Result<Server> {
    let router = Router::new()
        .route(
            "/healthz",
            get(|State((health, _)): State<Shared>| async move { probe(health.live()) }),
        )
        .route(
            "/readyz",
            get(|State((health, _)): State<Shared>| async move { probe(health.ready()) }),
        )
        .route(
            "/metrics",
            get(|State((_, metrics)): State<Shared>| async move { expose(&metrics) }),
        )
        .with_state((health, metrics));
    Ok(Server {
        listener: TcpListener::bind(address).await?,
        router,
    })
}

type Shared = (Arc<Health>, Arc<Metrics>);

impl Server {
    /// The address it is bound to.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until the process ends.
    pub async fn serve(self) -> io::Result<()> {
        axum::serve(self.listener, self.router).await
    }
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
