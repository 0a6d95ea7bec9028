//! Bodies of the API server's answers, read up to a bound and without a copy.

use http_body_util::BodyExt;
use kube::client::Body;

/// The whole body, or `None` where it is longer than `bound`.
pub(super) async fn collect(mut body: Body, bound: usize) -> kube::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > bound {
            return Ok(None);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Some(bytes))
}
