//! Connections within bounds: how much a server may send, and how many stay open, whatever hosts they lead to.

use futures::task::AtomicWaker;
use hyper_util::client::legacy::connect::{Connected, Connection as Connect};
use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

/// Bytes that a server may send after it was last sent anything: more than the longest answer with headers and
/// certificates. Interim answers (1xx) have no end of their own.
const UNASKED: usize = 384 * 1024;
/// The same of a connection that carries many requests, HTTP/2: as much as its window.
const UNASKED_OF_MANY: usize = super::clients::CONNECTION_WINDOW as usize;
/// Bytes that are read within a [`WINDOW`]; what is more waits at the server. Frames of HTTP/2 that have to be answered
/// have no other bound.
const IN_WINDOW: usize = 256 * 1024;
const WINDOW: Duration = Duration::from_millis(100);
/// Open connections: those of all polls in flight, and half as many that are kept.
const MOST: usize = 384;

/// A server sends more than any answer has.
#[derive(Debug, thiserror::Error)]
#[error("more than {} KiB without an answer", .0 >> 10)]
pub(super) struct Flood(usize);

/// A TCP connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    is_proxied: bool,
    may_send: usize,
    unasked: usize,
    window: Instant,
    in_window: usize,
    pause: Option<Pin<Box<Sleep>>>,
    place: Arc<Place>,
    all: Connections,
}

/// All open connections.
#[derive(Clone, Debug)]
pub(super) struct Connections(Arc<All>);

#[derive(Debug)]
struct All {
    started: Instant,
    places: Mutex<Vec<Arc<Place>>>,
}

/// What is known of an open connection.
#[derive(Debug, Default)]
struct Place {
    /// When it was last used, in milliseconds.
    used: AtomicU64,
    /// Something was sent, and nothing was received since.
    waits: AtomicBool,
    /// It has to make room for another.
    is_closed: AtomicBool,
    reader: AtomicWaker,
}

impl Default for Connections {
    fn default() -> Self {
        Self(Arc::new(All {
            started: Instant::now(),
            places: Mutex::default(),
        }))
    }
}

impl Connections {
    /// Takes a connection in. Where there are too many, the one that was unused for longest is closed, those that wait
    /// for an answer last. `is_proxied`: requests on it name the server that the proxy is to ask.
    pub(super) fn add(&self, stream: TcpStream, is_proxied: bool) -> Connection {
        let now = Instant::now();
        let place = Arc::new(Place::default());
        place.note_use(self.millis(now), true);
        let mut places = self.places();
        if places.len() >= MOST {
            let order = |place: &Arc<Place>| (place.waits.load(Relaxed), place.used.load(Relaxed));
            let oldest = (0..places.len()).min_by_key(|at| order(&places[*at]));
            if let Some(oldest) = oldest {
                places.swap_remove(oldest).close();
            }
        }
        places.push(Arc::clone(&place));
        drop(places);
        Connection {
            stream,
            is_proxied,
            may_send: UNASKED,
            unasked: 0,
            window: now,
            in_window: 0,
            pause: None,
            place,
            all: self.clone(),
        }
    }

    fn places(&self) -> MutexGuard<'_, Vec<Arc<Place>>> {
        // The list is valid at each moment, so a poisoned lock is used all the same.
        let places = self.0.places.lock();
        places.unwrap_or_else(PoisonError::into_inner)
    }

    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.0.started);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Place {
    fn note_use(&self, millis: u64, waits: bool) {
        self.used.store(millis, Relaxed);
        self.waits.store(waits, Relaxed);
    }

    fn close(&self) {
        self.is_closed.store(true, Relaxed);
        self.reader.wake();
    }
}

impl Connection {
    /// It carries many requests at once, whose answers may all come after the last of them was sent.
    pub(super) fn carry_many(&mut self) {
        self.may_send = UNASKED_OF_MANY;
    }

    fn count_read(&mut self, bytes: usize) -> io::Result<()> {
        let now = Instant::now();
        self.place.note_use(self.all.millis(now), false);
        self.unasked += bytes;
        if self.unasked > self.may_send {
            let flood = Flood(self.may_send);
            return Err(io::Error::new(io::ErrorKind::InvalidData, flood));
        }
        if now >= self.window + WINDOW {
            (self.window, self.in_window) = (now, 0);
        }
        self.in_window += bytes;
        if self.in_window > IN_WINDOW {
            self.pause = Some(Box::pin(sleep_until(self.window + WINDOW)));
        }
        Ok(())
    }

    fn count_write(&mut self) {
        self.unasked = 0;
        self.place.note_use(self.all.millis(Instant::now()), true);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Before the look, or a close after it would go unnoticed.
        this.place.reader.register(context.waker());
        if this.place.is_closed.load(Relaxed) {
            // As if the server had closed it.
            return Poll::Ready(Ok(()));
        }
        if let Some(pause) = &mut this.pause {
            ready!(pause.as_mut().poll(context));
            this.pause = None;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        Poll::Ready(this.count_read(buffer.filled().len() - before))
    }
}

/// Not vectored: requests are small, and one buffer costs less to send than several.
impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.count_write();
        Pin::new(&mut this.stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

impl Connect for Connection {
    /// Without the addresses, which each answer would carry.
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.is_proxied)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let own = &self.place;
        self.all.places().retain(|place| !Arc::ptr_eq(place, own));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    /// Both ends of a connection.
    async fn pair(listener: &TcpListener, all: &Connections) -> (Connection, TcpStream) {
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (all.add(near.unwrap(), false), far.unwrap().0)
    }

    async fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").await.unwrap()
    }

    #[tokio::test]
    async fn a_server_that_goes_on_without_being_asked_is_cut_off() {
        let all = Connections::default();
        let (mut near, mut far) = pair(&listener().await, &all).await;
        let server = tokio::spawn(async move {
            let chunk = vec![0; 64 * 1024];
            let mut sent = 0;
            while far.write_all(&chunk).await.is_ok() {
                sent += chunk.len();
            }
            sent
        });
        let mut buffer = vec![0; 64 * 1024];
        let started = Instant::now();
        // What is asked for in between does not count.
        let mut read = 0;
        for _ in 0..3 {
            near.write_all(b"x").await.unwrap();
            let begin = read;
            while read - begin < UNASKED - buffer.len() {
                read += near.read(&mut buffer).await.unwrap();
            }
        }
        let error = loop {
            match near.read(&mut buffer).await {
                Ok(bytes) => read += bytes,
                Err(error) => break error,
            }
        };
        assert!(
            error
                .get_ref()
                .is_some_and(<dyn Error + Send + Sync>::is::<Flood>)
        );
        let windows = u32::try_from(read / (IN_WINDOW + buffer.len())).unwrap();
        assert!(
            started.elapsed() >= windows.saturating_sub(1) * WINDOW,
            "{read} bytes"
        );
        drop(near);
        assert!(server.await.unwrap() >= read);
    }

    #[tokio::test]
    async fn of_too_many_the_one_that_is_unused_for_longest_makes_room() {
        let (all, listener) = (Connections::default(), listener().await);
        let mut open = Vec::new();
        for _ in 0..MOST {
            open.push(pair(&listener, &all).await);
        }
        // The first two wait for an answer; of the others each got one, the third one first of all.
        for (near, far) in &mut open[2..] {
            far.write_all(b"x").await.unwrap();
            assert_eq!(near.read_u8().await.unwrap(), b'x');
            near.place.used.store(2, Relaxed);
        }
        open[2].0.place.used.store(1, Relaxed);
        let waits = tokio::spawn(async move {
            let mut third = open.swap_remove(2).0;
            let end = third.read(&mut [0; 8]).await.unwrap();
            (end, open)
        });
        tokio::task::yield_now().await;
        let further = pair(&listener, &all).await;
        let (end, open) = waits.await.unwrap();
        assert_eq!(end, 0, "it reads the end of its connection");
        assert_eq!(all.places().len(), MOST);
        let is_closed = |(near, _): &(Connection, _)| near.place.is_closed.load(Relaxed);
        assert!(!open.iter().chain([&further]).any(is_closed));
        drop((open, further));
        assert!(all.places().is_empty());
    }
}
