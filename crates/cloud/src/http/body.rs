//! Reading a body within its bound.

use flate2::read::MultiGzDecoder;
use image_export_model::FailureKind;
use reqwest::{
    Response,
    header::{CONTENT_ENCODING, HeaderMap},
};
use std::{io::Read, time::Duration};

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
}

impl BodyError {
    pub(crate) fn kind(&self) -> FailureKind {
        match self {
            Self::TooLong(_) | Self::Encoded | Self::Corrupt => FailureKind::Malformed,
            Self::Cut => FailureKind::Network,
            Self::Timeout(_) => FailureKind::Timeout,
        }
    }
}

/// Reads at most `limit` bytes, packed and unpacked. `timeout` is that of the request, for the message.
pub(super) async fn read(
    response: Response,
    headers: &HeaderMap,
    limit: usize,
    timeout: Duration,
) -> Result<Vec<u8>, BodyError> {
    let mut codings = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .map(|coding| coding.as_bytes().trim_ascii().to_ascii_lowercase())
        .filter(|coding| coding != b"identity");
    match (codings.next().as_deref(), codings.next()) {
        (None, _) => read_raw(response, limit, timeout).await,
        // The request does not ask for it, but some gateways compress all the same.
        (Some(b"gzip" | b"x-gzip"), None) => {
            unpack(&read_raw(response, limit, timeout).await?, limit)
        }
        _ => Err(BodyError::Encoded),
    }
}

async fn read_raw(
    mut response: Response,
    limit: usize,
    timeout: Duration,
) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > limit => {
                return Err(BodyError::TooLong(limit / 1024));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) if error.is_timeout() => return Err(BodyError::Timeout(timeout)),
            Err(_) => return Err(BodyError::Cut),
        }
    }
}

fn unpack(packed: &[u8], limit: usize) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    let read = MultiGzDecoder::new(packed)
        .take(limit as u64 + 1)
        .read_to_end(&mut body);
    match read {
        Ok(_) if body.len() > limit => Err(BodyError::TooLong(limit / 1024)),
        Ok(_) => Ok(body),
        Err(_) => Err(BodyError::Corrupt),
    }
}
