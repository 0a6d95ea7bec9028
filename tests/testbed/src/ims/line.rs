//! The server's connections. An answer may take one over, to send what no HTTP server would.

use axum::{
    body::Bytes,
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::Sleep,
};

pub(super) struct Lines(pub(super) TcpListener);

impl Listener for Lines {
    type Io = Line;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Line, SocketAddr) {
        let (stream, peer) = Listener::accept(&mut self.0).await;
        let takeover = Takeover::default();
        (Line { stream, takeover }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// What is sent in place of the server's own answer; then the connection ends.
struct Raw {
    rest: Bytes,
    /// The pause before each byte; `None`: all at once.
    every: Option<Duration>,
    pause: Option<Pin<Box<Sleep>>>,
}

/// The handle on a connection by which an answer takes it over.
#[derive(Clone, Default)]
pub(super) struct Takeover(Arc<Mutex<Option<Raw>>>);

impl Takeover {
    /// Sends these bytes instead of whatever the server sends next.
    pub(super) fn send(&self, bytes: Bytes, every: Option<Duration>) {
        let raw = Raw {
            rest: bytes,
            every,
            pause: None,
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(raw);
    }
}

impl Connected<IncomingStream<'_, Lines>> for Takeover {
    fn connect_info(stream: IncomingStream<'_, Lines>) -> Self {
        stream.io().takeover.clone()
    }
}

pub(super) struct Line {
    stream: TcpStream,
    takeover: Takeover,
}

impl AsyncRead for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, takeover } = self.get_mut();
        let mut stream = Pin::new(stream);
        let mut raw = takeover.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(raw) = raw.as_mut() else {
            return stream.poll_write(cx, buffer);
        };
        while !raw.rest.is_empty() {
            let now = match raw.every {
                None => raw.rest.len(),
                Some(every) => {
                    let pause = raw
                        .pause
                        .get_or_insert_with(|| Box::pin(tokio::time::sleep(every)));
                    ready!(pause.as_mut().poll(cx));
                    1
                }
            };
            let written = ready!(stream.as_mut().poll_write(cx, &raw.rest[..now]))?;
            raw.rest = raw.rest.split_off(written);
            raw.pause = None;
        }
        ready!(stream.poll_shutdown(cx))?;
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
