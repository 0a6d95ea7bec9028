//! `/healthz`, `/readyz` and `/metrics`, for anybody who reaches the port: [`connections`] has the bounds.

mod connections;

use super::{Health, Metrics, exposition};
use axum::{
    Router,
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use connections::Bounds;
use socket2::{Domain, Socket, Type};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};
use tokio::net::TcpListener;

/// Connections that wait to be accepted: many come in the time in which one of them may wait for its turn.
const BACKLOG: i32 = 512;
/// Bytes that the kernel holds of what a connection has sent, for which the process pays: more than any request has.
const RECEIVE_BUFFER: usize = 16 << 10;

/// Listens. `[::]` is all addresses of both families, or those of IPv4 where the machine has no IPv6.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    listen_with(address, bind)
}

fn listen_with(
    address: SocketAddr,
    bind: impl Fn(SocketAddr) -> io::Result<TcpListener>,
) -> io::Result<TcpListener> {
    let is_all = address.is_ipv6() && address.ip().is_unspecified();
    match bind(address) {
        Err(error) if is_all && !is_about_the_port(&error) => {
            tracing::info!(%error, "no IPv6 here: listening on IPv4 alone");
            bind((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        result => result,
    }
}

/// Such an error would meet IPv4 as well.
fn is_about_the_port(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrInUse, PermissionDenied};
    matches!(error.kind(), AddrInUse | PermissionDenied)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        // The kernel's default may be either.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    // What is accepted inherits it.
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Answers until the process ends.
pub async fn serve(listener: TcpListener, health: Arc<Health>, metrics: Arc<Metrics>) {
    connections::serve(listener, router(health, metrics), Bounds::default()).await;
}

fn router(health: Arc<Health>, metrics: Arc<Metrics>) -> Router {
    let live = health.clone();
    Router::new()
        .route("/healthz", get(async move || probe(live.live())))
        .route("/readyz", get(async move || probe(health.ready())))
        .route(
            "/metrics",
            get(async move |headers: HeaderMap| expose(&metrics, &headers)),
        )
}

fn probe(result: Result<(), String>) -> Response {
    match result {
        Ok(()) => "ok\n".into_response(),
        Err(problem) => (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")).into_response(),
    }
}

fn expose(metrics: &Metrics, headers: &HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let metrics = metrics.encode();
    let (type_, text) = if exposition::accepts_open_metrics(accept.unwrap_or_default()) {
        (exposition::OPEN_METRICS, metrics)
    } else {
        (exposition::PROMETHEUS, exposition::to_prometheus(&metrics))
    };
    ([(CONTENT_TYPE, type_)], text).into_response()
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

    /// The port of an address of which others may not be in use.
    fn port(listener: &TcpListener) -> u16 {
        listener.local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn the_unspecified_address_of_ipv6_serves_both_families() {
        let listener = listen("[::]:0".parse().unwrap()).unwrap();
        let (v4, v6) = (
            format!("127.0.0.1:{}", port(&listener)),
            format!("[::1]:{}", port(&listener)),
        );
        assert!(std::net::TcpStream::connect(v4).is_ok());
        // A machine without IPv6 serves IPv4 alone.
        if listener.local_addr().unwrap().is_ipv6() {
            assert!(std::net::TcpStream::connect(v6).is_ok());
        }
    }

    #[tokio::test]
    async fn without_ipv6_the_same_port_of_ipv4_is_served() {
        // EAFNOSUPPORT and EADDRNOTAVAIL.
        for error in [97, 99] {
            let no_ipv6 = |address: SocketAddr| match address {
                SocketAddr::V6(_) => Err(io::Error::from_raw_os_error(error)),
                SocketAddr::V4(_) => bind(address),
            };
            let free = port(&bind("0.0.0.0:0".parse().unwrap()).unwrap());
            let listener = listen_with(format!("[::]:{free}").parse().unwrap(), no_ipv6).unwrap();
            assert_eq!(
                listener.local_addr().unwrap(),
                (Ipv4Addr::UNSPECIFIED, free).into()
            );
            // Another address was meant.
            assert!(listen_with("[::1]:0".parse().unwrap(), no_ipv6).is_err());
        }
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_not_looked_for_elsewhere() {
        let taken = listen("[::]:0".parse().unwrap()).unwrap();
        let bound = std::cell::Cell::new(0);
        let count = |address| {
            bound.set(bound.get() + 1);
            bind(address)
        };
        let error = listen_with(taken.local_addr().unwrap(), count).unwrap_err();
        assert_eq!((error.kind(), bound.get()), (io::ErrorKind::AddrInUse, 1));
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
        let open_metrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        let prometheus = "text/plain; version=0.0.4; charset=utf-8";
        for (accept, expected, end) in [
            (
                "application/openmetrics-text;q=0.5,*/*;q=0.1",
                open_metrics,
                "# EOF\n",
            ),
            ("*/*", prometheus, "\n"),
        ] {
            let request = Request::get("/metrics").header(ACCEPT, accept);
            let response = router
                .call(request.body(Body::empty()).unwrap())
                .await
                .unwrap();
            assert_eq!(response.headers()[CONTENT_TYPE], expected);
            let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
            let body = String::from_utf8(body.into()).unwrap();
            assert!(body.contains("imageexport_task_panics_total 1\n") && body.ends_with(end));
            assert_eq!(body.contains("# EOF"), expected == open_metrics);
        }
    }
}
