//! Lists in pages that adapt to bytes: an object may have 256 KiB of annotations, which the operator does not
//! use, and a page of 100 such objects takes more memory than all else.

use crate::controller::body::collect;
use http::{Request, Response, Uri, request::Parts};
use kube::client::Body;
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};
use tokio::sync::Semaphore;
use tower::BoxError;

/// Most objects of a page. What a page takes while it is read stays with the process: with 500 that was more than what
/// 10,000 objects take.
pub(super) const MOST: u32 = 100;
/// Objects of the first page.
const FIRST: u32 = 50;
/// Most bytes of a page. A longer one is dropped while it is read, and asked for again with fewer objects. Etcd
/// takes no object of half this size.
const BOUND: usize = 4 << 20;
/// A page that is shorter has twice as many objects the next time.
const SHORT: usize = 1 << 20;
/// Pages that are read at the same time, over all watches.
const AT_ONCE: usize = 2;

/// One object alone is longer than a page may be.
#[derive(Debug, thiserror::Error)]
#[error(
    "an ImageExportJob takes more than {} MiB of a list: shorten its annotations, or delete it",
    BOUND >> 20
)]
pub(super) struct TooLong;

/// The turns of the watches to read a page.
#[derive(Clone, Debug)]
pub(super) struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

/// The pages of one watch.
#[derive(Debug)]
pub(super) struct Pages {
    /// Objects of the next page.
    limit: AtomicU32,
    turns: Turns,
}

impl Pages {
    pub(super) fn new(turns: Turns) -> Self {
        Self {
            limit: AtomicU32::new(FIRST),
            turns,
        }
    }

    /// Sends a request for a page, with another limit, until the answer is short enough.
    pub(super) async fn read<F>(
        &self,
        request: Request<Body>,
        send: impl Fn(Request<Body>) -> F,
    ) -> Result<Response<Body>, BoxError>
    where
        F: Future<Output = kube::Result<Response<Body>>>,
    {
        let (parts, _) = request.into_parts();
        let _turn = self.turns.0.acquire().await?;
        loop {
            let limit = self.limit.load(Ordering::Relaxed);
            let response = send(with_limit(parts.clone(), limit)).await?;
            if !response.status().is_success() {
                return Ok(response);
            }
            let (head, body) = response.into_parts();
            let page = collect(body, BOUND).await?;
            let next = match &page {
                Some(page) if page.len() < SHORT => (2 * limit).min(MOST),
                Some(_) => limit,
                None if limit == 1 => return Err(TooLong.into()),
                None => (limit / 4).max(1),
            };
            self.limit.store(next, Ordering::Relaxed);
            if let Some(page) = page {
                return Ok(Response::from_parts(head, Body::from(page)));
            }
        }
    }
}

/// Whether a request is for a page of a list.
pub(super) fn is_page(uri: &Uri) -> bool {
    pairs(uri).any(is_limit)
}

fn pairs(uri: &Uri) -> impl Iterator<Item = &str> {
    uri.query().unwrap_or_default().split('&')
}

fn is_limit(pair: &str) -> bool {
    pair.starts_with("limit=")
}

fn with_limit(mut parts: Parts, limit: u32) -> Request<Body> {
    let query = pairs(&parts.uri).map(|pair| {
        if is_limit(pair) {
            format!("limit={limit}")
        } else {
            pair.to_owned()
        }
    });
    let query = query.collect::<Vec<_>>().join("&");
    // Other digits keep it valid.
    if let Ok(uri) = format!("{}?{query}", parts.uri.path()).parse() {
        parts.uri = uri;
    }
    Request::from_parts(parts, Body::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::fake::{Reply, api_server};
    use serde_json::json;

    const LIST: &str = "/apis/x/v1/things?&labelSelector=a%3Db&limit=100&continue=token";

    /// The requests for so many pages of an API server whose objects have so many bytes each, and the last
    /// answer.
    async fn pages(bytes: usize, count: usize) -> (Vec<String>, Result<usize, BoxError>) {
        let (client, sent) = api_server(move |sent| {
            let page = bytes * limit(&sent.line);
            Reply::Text(200, "x".repeat(page.min(BOUND + 1)))
        });
        let pages = Pages::new(Turns::default());
        let mut last = Ok(0);
        for _ in 0..count {
            let request = Request::get(LIST).body(Body::empty()).unwrap();
            let answer = pages
                .read(request, |request| {
                    let client = client.clone();
                    async move { client.send(request).await }
                })
                .await;
            last = match answer {
                Ok(answer) => Ok(answer.into_body().collect_bytes().await.unwrap().len()),
                Err(error) => Err(error),
            };
        }
        let lines = sent.lock().unwrap();
        (lines.iter().map(|sent| sent.line.clone()).collect(), last)
    }

    fn limit(line: &str) -> usize {
        let (_, rest) = line.split_once("limit=").unwrap();
        rest.split('&').next().unwrap().parse().unwrap()
    }

    fn limits(lines: &[String]) -> Vec<usize> {
        lines.iter().map(|line| limit(line)).collect()
    }

    #[tokio::test]
    async fn pages_of_small_objects_grow_to_a_hundred() {
        let (lines, last) = pages(1000, 3).await;
        assert_eq!(limits(&lines), [50, 100, 100]);
        assert_eq!(last.unwrap(), 100_000);
        assert_eq!(lines[2], format!("GET {LIST}"));
    }

    #[tokio::test]
    async fn a_page_that_is_too_long_is_asked_for_again_with_fewer_objects() {
        let (lines, last) = pages(255 << 10, 2).await;
        assert_eq!(limits(&lines), [50, 12, 12]);
        assert_eq!(last.unwrap(), 12 * (255 << 10));
        let same = lines.iter().all(|line| line.ends_with("&continue=token"));
        assert!(same, "{lines:?}");
        let (lines, last) = pages(BOUND, 1).await;
        assert_eq!(limits(&lines), [50, 12, 3, 1]);
        assert_eq!(last.unwrap(), BOUND);
    }

    #[tokio::test]
    async fn an_object_that_is_too_long_by_itself_is_an_error() {
        let (lines, last) = pages(BOUND + 1, 2).await;
        assert_eq!(limits(&lines), [50, 12, 3, 1, 1]);
        assert_eq!(
            last.unwrap_err().to_string(),
            "an ImageExportJob takes more than 4 MiB of a list: shorten its annotations, or delete it"
        );
    }

    #[tokio::test]
    async fn a_rejected_list_is_passed_on() {
        let (client, _) = api_server(|_| Reply::failure(403, &json!(null)));
        let request = Request::get(LIST).body(Body::empty()).unwrap();
        let pages = Pages::new(Turns::default());
        let answer = pages.read(request, |request| {
            let client = client.clone();
            async move { client.send(request).await }
        });
        assert_eq!(answer.await.unwrap().status(), 403);
    }

    #[test]
    fn a_watch_is_no_page() {
        for (uri, expected) in [
            (LIST, true),
            ("/things?&watch=true&timeoutSeconds=50", false),
            ("/things/x", false),
        ] {
            assert_eq!(is_page(&uri.parse().unwrap()), expected, "{uri}");
        }
    }
}
