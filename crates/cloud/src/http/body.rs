//! Reading a body within its bound, and all bodies within theirs.

use crate::memory::{Share, Shares};
use ::http::header::{CONTENT_ENCODING, HeaderMap};
use flate2::write::MultiGzDecoder;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Bytes, Incoming};
use image_export_model::FailureKind;
use std::{
    io::{self, Write},
    ops::Deref,
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, timeout_at};

/// A body of this size needs no share of the [`Memory`]: hardly one is longer.
const SMALL: usize = 32 * 1024;

/// Why a body cannot be read: half a sentence after "the answer of …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("is longer than {0} KiB")]
    TooLong(usize),
    #[error("is encoded in a way that was not requested")]
    Encoded,
    #[error("is not the gzip that it claims to be")]
    Corrupt,
    #[error("broke off")]
    Cut,
    #[error("did not end within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    #[error("was not read within {} s, as other long answers took all memory for them", .0.as_secs_f32())]
    NoMemory(Duration),
}

impl BodyError {
    pub(crate) fn kind(&self) -> FailureKind {
        match self {
            Self::TooLong(_) | Self::Encoded | Self::Corrupt => FailureKind::Malformed,
            Self::Cut => FailureKind::Network,
            Self::Timeout(_) | Self::NoMemory(_) => FailureKind::Timeout,
        }
    }
}

/// A body, with its share of the memory for bodies.
#[derive(Debug, Default)]
pub(crate) struct Body {
    bytes: Vec<u8>,
    share: Option<Share>,
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, share: None }
    }
}

/// The memory for bodies that are longer than [`SMALL`]. Each takes a share of its limit, all at once, so that
/// no two wait for each other; it keeps that until it has been interpreted. A namespace takes another share while it
/// has no more than is free, so that one alone gets half and the next always finds some.
#[derive(Debug)]
pub(super) struct Memory {
    bytes: usize,
    shares: Arc<Shares>,
}

impl Memory {
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            bytes,
            shares: Arc::default(),
        }
    }

    /// Waits for a share; `None` if there is none until then.
    async fn share(&self, namespace: &Arc<str>, bytes: usize, until: Instant) -> Option<Share> {
        loop {
            // Before the look, or what is freed after it would go unnoticed.
            let freed = self.shares.freed();
            if let Some(share) = self.take(namespace, bytes) {
                return Some(share);
            }
            timeout_at(until, freed).await.ok()?;
        }
    }

    fn take(&self, namespace: &Arc<str>, bytes: usize) -> Option<Share> {
        let bytes = bytes.min(self.bytes);
        self.shares.take(namespace, bytes, |used| {
            let free = self.bytes - used.all;
            bytes <= free && (used.own == 0 || used.own + bytes <= free)
        })
    }
}

/// The bounds of one body.
pub(super) struct Bounds<'a> {
    /// Its length, packed and unpacked.
    pub(super) limit: usize,
    /// When the request ends, and how long it lasts, for the message.
    pub(super) until: Instant,
    pub(super) timeout: Duration,
    pub(super) memory: &'a Memory,
    /// On whose behalf it is read.
    pub(super) namespace: &'a Arc<str>,
}

impl Bounds<'_> {
    fn too_long(&self) -> BodyError {
        BodyError::TooLong(self.limit / 1024)
    }

    /// The next piece, if there is one.
    async fn next(&self, answer: &mut Incoming) -> Result<Option<Bytes>, BodyError> {
        loop {
            let frame = timeout_at(self.until, answer.frame()).await;
            let frame = frame.map_err(|_| BodyError::Timeout(self.timeout))?;
            let Some(frame) = frame.transpose().map_err(|_| BodyError::Cut)? else {
                return Ok(None);
            };
            // Trailers are of no use.
            if let Ok(piece) = frame.into_data() {
                return Ok(Some(piece));
            }
        }
    }

    async fn share(&self) -> Result<Share, BodyError> {
        let share = self.memory.share(self.namespace, self.limit, self.until);
        share.await.ok_or(BodyError::NoMemory(self.timeout))
    }
}

/// Reads a body.
pub(super) async fn read(
    answer: Incoming,
    headers: &HeaderMap,
    bounds: Bounds<'_>,
) -> Result<Body, BodyError> {
    let announced = answer.size_hint().lower();
    if announced > bounds.limit as u64 {
        return Err(bounds.too_long());
    }
    let mut codings = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .map(|coding| coding.as_bytes().trim_ascii().to_ascii_lowercase())
        .filter(|coding| coding != b"identity");
    match (codings.next().as_deref(), codings.next()) {
        (None, _) => read_plain(answer, bounds).await,
        // The request does not ask for it, but some gateways compress all the same.
        (Some(b"gzip" | b"x-gzip"), None) => Box::pin(read_gzip(answer, bounds)).await,
        _ => Err(BodyError::Encoded),
    }
}

async fn read_plain(mut answer: Incoming, bounds: Bounds<'_>) -> Result<Body, BodyError> {
    let mut body = Body::default();
    while let Some(chunk) = bounds.next(&mut answer).await? {
        let length = body.len() + chunk.len();
        if length > bounds.limit {
            return Err(bounds.too_long());
        }
        if length > SMALL && body.share.is_none() {
            body.share = Some(bounds.share().await?);
            // Once, and no more than the share.
            let more = bounds.limit - body.len();
            body.bytes.reserve_exact(more);
        }
        body.bytes.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Unpacks while it reads: only what is unpacked is kept.
async fn read_gzip(mut answer: Incoming, bounds: Bounds<'_>) -> Result<Body, BodyError> {
    let share = bounds.share().await?;
    let mut unpacked = MultiGzDecoder::new(Unpacked::new(bounds.limit));
    let mut length = 0;
    while let Some(chunk) = bounds.next(&mut answer).await? {
        length += chunk.len();
        let written = unpacked.write_all(&chunk);
        if length > bounds.limit || unpacked.get_ref().is_full {
            return Err(bounds.too_long());
        }
        written.map_err(|_| BodyError::Corrupt)?;
    }
    let finished = unpacked.finish();
    let unpacked = finished.map_err(|_| BodyError::Corrupt)?;
    if unpacked.is_full {
        return Err(bounds.too_long());
    }
    Ok(Body {
        bytes: unpacked.bytes,
        share: Some(share),
    })
}

/// Takes what is unpacked, up to a limit.
struct Unpacked {
    bytes: Vec<u8>,
    limit: usize,
    /// There is more than the limit.
    is_full: bool,
}

impl Unpacked {
    fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            limit,
            is_full: false,
        }
    }
}

impl Write for Unpacked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.bytes.len() {
            self.is_full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    const TIMEOUT: Duration = Duration::from_secs(20);

    /// However many long bodies arrive for one namespace, half is left, and each of the others waits for its share
    /// until its request ends.
    #[tokio::test(start_paused = true)]
    async fn shares_of_the_memory_are_waited_for_and_never_exceeded() {
        let memory = Memory::new(8 << 20);
        let [noisy, quiet] = ["noisy", "quiet"].map(Arc::<str>::from);
        let until = Instant::now() + TIMEOUT;
        let mut held = Vec::new();
        for _ in 0..16 {
            held.push(memory.share(&noisy, 256 << 10, until).await.unwrap());
        }
        assert!(memory.take(&noisy, 256 << 10).is_none());
        assert!(memory.take(&quiet, 256 << 10).is_some());
        let waiting = memory.share(&noisy, 256 << 10, until);
        let interpreted = async {
            sleep(TIMEOUT / 2).await;
            held.pop();
        };
        let (share, ()) = tokio::join!(waiting, interpreted);
        assert!(share.is_some());
        assert!(memory.share(&noisy, 256 << 10, until).await.is_none());
        assert_eq!(Instant::now(), until);
        drop((share, held));
        assert!(memory.shares.is_empty());
    }

    /// A limit beyond all memory does not wait for ever.
    #[tokio::test(start_paused = true)]
    async fn no_share_is_larger_than_the_memory() {
        let memory = Memory::new(64 << 10);
        let until = Instant::now() + TIMEOUT;
        let share = memory.share(&"n".into(), 1 << 20, until).await;
        assert_eq!(share.unwrap().bytes(), 64 << 10);
    }
}
