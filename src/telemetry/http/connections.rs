//! Connections within bounds of number, bytes and time, so that whoever reaches the port can neither use up the
//! memory of the process nor keep probes from being answered.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{collections::VecDeque, io, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

/// Bytes of a request's line and headers.
const HEADER_BYTES: usize = 16 << 10;

#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Connections at the same time.
    connections: usize,
    /// The oldest one is closed in favour of a new one, once it has had this time for its request.
    turn: Duration,
    /// Time in which all headers must have come.
    headers: Duration,
    /// Time in which the answer must have been taken.
    answer: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 128,
            turn: Duration::from_millis(25),
            headers: Duration::from_secs(5),
            answer: Duration::from_secs(10),
        }
    }
}

struct Connection {
    since: Instant,
    task: JoinHandle<()>,
}

/// Accepts connections until the process ends.
pub(super) async fn serve(listener: TcpListener, router: Router, bounds: Bounds) {
    let mut open = VecDeque::new();
    loop {
        let stream = accept(&listener).await;
        make_room(&mut open, bounds).await;
        open.push_back(Connection {
            since: Instant::now(),
            task: tokio::spawn(answer(stream, router.clone(), bounds)),
        });
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // That connection alone.
            Err(error)
                if matches!(
                    error.kind(),
                    ConnectionAborted | ConnectionRefused | ConnectionReset
                ) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Closes the oldest connection where there are too many. A probe sends its request with its connection, and so is
/// answered within its turn, however many others open connections and send nothing.
async fn make_room(open: &mut VecDeque<Connection>, bounds: Bounds) {
    open.retain(|connection| !connection.task.is_finished());
    if open.len() >= bounds.connections
        && let Some(oldest) = open.pop_front()
    {
        sleep_until(oldest.since + bounds.turn).await;
        oldest.task.abort();
    }
}

/// Answers one request; a second one needs a new connection.
async fn answer(stream: TcpStream, router: Router, bounds: Bounds) {
    // One that sends nothing gets no buffers.
    let Ok(Ok(())) = timeout(bounds.headers, stream.readable()).await else {
        return;
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.headers)
        .max_buf_size(HEADER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // What goes wrong is the client's.
    let _ = timeout(bounds.headers + bounds.answer, connection).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use futures::FutureExt;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const HOUR: Duration = Duration::from_secs(3600);
    const PROBE: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";

    /// A port that answers to /healthz, with bounds that do not end a connection by themselves.
    fn start(bounds: Bounds) -> SocketAddr {
        let router = Router::new().route("/healthz", get(async || "ok"));
        let listener = super::super::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, router, bounds));
        address
    }

    fn patient() -> Bounds {
        Bounds {
            headers: HOUR,
            answer: HOUR,
            ..Bounds::default()
        }
    }

    /// A connection that has sent these bytes.
    async fn send(address: SocketAddr, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The other end may have closed it meanwhile.
        let _ = stream.write_all(bytes).await;
        stream
    }

    /// What comes until the other end closes the connection.
    async fn rest(mut stream: TcpStream) -> String {
        let mut bytes = Vec::new();
        // A reset is an end as well.
        let _ = stream.read_to_end(&mut bytes).await;
        String::from_utf8(bytes).unwrap()
    }

    async fn assert_answers(address: SocketAddr) {
        let answer = rest(send(address, PROBE).await).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer:?}");
        assert!(answer.ends_with("\r\n\r\nok"), "{answer:?}");
    }

    #[tokio::test]
    async fn a_connection_ends_with_its_answer() {
        let address = start(patient());
        assert_answers(address).await;
        let twice = rest(send(address, &[PROBE, PROBE].concat()).await).await;
        assert_eq!(twice.matches("HTTP/1.1").count(), 1, "{twice}");
    }

    /// In paused time each pause of the sockets lets the time pass.
    #[tokio::test(start_paused = true)]
    async fn unfinished_and_missing_headers_end_a_connection_in_time() {
        let address = start(Bounds::default());
        let started = Instant::now();
        for bytes in [&b""[..], b"GET /healthz HTTP/1.1\r\nx: y\r\n"] {
            assert_eq!(rest(send(address, bytes).await).await, "");
        }
        assert!(started.elapsed() >= 2 * Bounds::default().headers);
    }

    #[tokio::test]
    async fn headers_that_are_too_long_end_a_connection() {
        let address = start(patient());
        let long = format!("GET /healthz HTTP/1.1\r\nx: {}", "y".repeat(380 << 10));
        for _ in 0..5 {
            let answer = rest(send(address, long.as_bytes()).await).await;
            assert!(
                answer.is_empty() || answer.starts_with("HTTP/1.1 431 "),
                "{answer}"
            );
        }
        assert_answers(address).await;
    }

    #[tokio::test]
    async fn beyond_the_bound_the_oldest_connection_makes_room_for_a_probe() {
        let address = start(Bounds {
            connections: 8,
            turn: Duration::from_millis(1),
            ..patient()
        });
        let mut idle = Vec::new();
        for number in 0..100_usize {
            let begun: &[u8] = if number % 2 == 0 { b"" } else { b"GET /" };
            idle.push(send(address, begun).await);
        }
        assert_answers(address).await;
        // The probe and the last seven are left.
        let mut idle = idle.into_iter();
        for stream in idle.by_ref().take(93) {
            assert_eq!(rest(stream).await, "");
        }
        for mut stream in idle {
            assert!(stream.read(&mut [0]).now_or_never().is_none(), "open");
        }
    }
}
