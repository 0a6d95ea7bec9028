//! HTTP as this client needs it: no redirects, bounded time and size, a fresh connection where a
//! pooled one is dead. Knows neither jobs nor tokens.

mod address;
mod body;
mod clients;
mod error;
mod proxy;
mod verifier;

pub(crate) use address::is_internal;
pub(crate) use body::{Body, BodyError};
pub(crate) use clients::{Clients, Trust};
pub(crate) use error::NoAnswer;
pub use proxy::{InvalidProxy, Proxies, Proxy, ProxyProblem};

use crate::CloudOptions;
use body::{Bounds, Memory};
use clients::ClientCache;
use image_export_model::FailureKind;
use reqwest::{
    Client, RequestBuilder,
    header::{HeaderMap, HeaderValue},
};
use std::{
    error::Error,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};
use tracing::Instrument;
use url::Url;

/// Receives a report of each HTTP request, for metrics.
pub trait Observer: fmt::Debug + Send + Sync {
    /// A request ended after `took`. `class` is one of a few words: the kind of answer, or why there
    /// is none.
    fn request(&self, operation: Operation, class: &'static str, took: Duration);
}

/// Drops all reports.
impl Observer for () {
    fn request(&self, _: Operation, _: &'static str, _: Duration) {}
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Getting a token from the identity service.
    Login,
    /// Querying a job at the image service.
    JobQuery,
}

impl Operation {
    /// Bounded label for metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::JobQuery => "job_query",
        }
    }
}

/// The transport.
pub(crate) struct Http {
    pub(crate) options: CloudOptions,
    clients: ClientCache,
    memory: Memory,
}

/// Where and how one request is sent.
#[derive(Clone, Copy)]
pub(crate) struct Route<'a> {
    pub(crate) url: &'a Url,
    /// `host[:port]` as the log names it.
    pub(crate) host: &'a str,
    pub(crate) operation: Operation,
    /// Those of a credential with trust settings of its own; `None`: the default ones.
    pub(crate) clients: Option<&'a Clients>,
    /// Longest body that is read, in bytes, packed and unpacked.
    pub(crate) body_limit: usize,
    /// On whose behalf.
    pub(crate) namespace: &'a Arc<str>,
}

/// An HTTP answer with as much of its body as was allowed.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Result<Body, BodyError>,
}

/// The requests of one poll or login.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    pub(crate) sent: u32,
    /// No request may be repeated over a fresh connection, or one was.
    pub(crate) no_repetition: bool,
}

/// A header that is a secret, which no debug form shows; `None` if it cannot be one.
pub(crate) fn sensitive(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl Http {
    pub(crate) fn new(options: CloudOptions) -> Result<Self, Box<dyn Error + Send + Sync>> {
        Ok(Self {
            clients: ClientCache::new(&options)?,
            memory: Memory::new(options.bodies_limit),
            options,
        })
    }

    /// Sends a request that may safely be sent twice: pooled connections die unnoticed, so if one
    /// breaks before an answer begins, the request is sent once more over a fresh connection.
    /// `request` builds each attempt.
    pub(crate) async fn send(
        &self,
        route: Route<'_>,
        attempts: &mut Attempts,
        request: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Answer, NoAnswer> {
        let span = tracing::debug_span!(
            "request",
            operation = route.operation.label(),
            host = route.host
        );
        let pair = self.clients.get(route.clients);
        let mut fresh = false;
        loop {
            let client = ClientCache::client(&pair, &self.options, fresh)?;
            attempts.sent += 1;
            let (result, broke) = self
                .attempt(request(&client), route)
                .instrument(span.clone())
                .await;
            if !broke || fresh || attempts.no_repetition {
                return result;
            }
            attempts.no_repetition = true;
            fresh = true;
        }
    }

    /// Sends one request; also returns whether its connection broke before an answer began.
    async fn attempt(
        &self,
        request: RequestBuilder,
        route: Route<'_>,
    ) -> (Result<Answer, NoAnswer>, bool) {
        let (started, timeout) = (Instant::now(), self.options.request_timeout);
        let until = tokio::time::Instant::now() + timeout;
        let result = request.send().await;
        let broke = result
            .as_ref()
            .err()
            .is_some_and(error::broke_after_connecting);
        let result = match result {
            Ok(mut response) => {
                let headers = std::mem::take(response.headers_mut());
                let bounds = Bounds {
                    limit: route.body_limit,
                    until,
                    timeout,
                    memory: &self.memory,
                    namespace: route.namespace,
                };
                Ok(Answer {
                    status: response.status().as_u16(),
                    body: body::read(response, &headers, bounds).await,
                    headers,
                })
            }
            Err(error) => Err(self.no_answer(&error, route.url).await),
        };
        let (class, took) = (class(&result), started.elapsed());
        let observer = &self.options.observer;
        observer.request(route.operation, class, took);
        tracing::debug!(class, milliseconds = took.as_millis(), "request ended");
        (result, broke)
    }

    async fn no_answer(&self, error: &reqwest::Error, url: &Url) -> NoAnswer {
        let proxy = self.options.proxies.of(url);
        let Some(proxy) = proxy else {
            return NoAnswer::new(error, &self.options, None);
        };
        if url.scheme() == "http" && error.is_connect() && !error.is_timeout() {
            // Such requests go to the proxy itself, without a tunnel.
            NoAnswer::Proxy(proxy.unreachable(error))
        } else if let Some(problem) = proxy.problem(error, url) {
            NoAnswer::Proxy(problem.await)
        } else {
            NoAnswer::new(error, &self.options, Some(proxy))
        }
    }
}

/// Bounded label for metrics and logs.
fn class(result: &Result<Answer, NoAnswer>) -> &'static str {
    match result {
        Err(NoAnswer::Failed(kind, _)) => kind.category(),
        Err(NoAnswer::Unresolved | NoAnswer::Proxy(_)) => FailureKind::Network.category(),
        Err(NoAnswer::NotAllowed) => "not_allowed",
        Ok(answer) => match answer.status {
            200..=299 => "success",
            300..=399 => "redirect",
            401 => "unauthorized",
            403 => "forbidden",
            404 => "not_found",
            429 => "throttled",
            400..=499 => "client_error",
            500..=599 => "server_error",
            _ => "other",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    const KIB: usize = 1024;

    /// Answers each request with as many bytes as its path says.
    async fn server() -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(connection.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let path = head.split(' ').nth(1).unwrap();
                let length: usize = path[1..].parse().unwrap();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{}",
                    "x".repeat(length)
                );
                // A client that waits for memory takes no more.
                tokio::spawn(async move { connection.write_all(answer.as_bytes()).await });
            }
        });
        url.parse().unwrap()
    }

    #[tokio::test]
    async fn long_answers_share_a_memory_and_short_ones_need_none() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Http::new(CloudOptions {
            bodies_limit: 256 * KIB,
            request_timeout: Duration::from_millis(500),
            ..CloudOptions::default()
        })
        .unwrap();
        let server = server().await;
        let body = async |length: usize| {
            let url = server.join(&length.to_string()).unwrap();
            let route = Route {
                url: &url,
                host: "host",
                operation: Operation::JobQuery,
                clients: None,
                body_limit: 256 * KIB,
                namespace: &"team-a".into(),
            };
            let mut attempts = Attempts::default();
            let answer = http.send(route, &mut attempts, |client| client.get(url.clone()));
            answer.await.unwrap().body
        };
        let first = body(200 * KIB).await.unwrap();
        assert_eq!(first.len(), 200 * KIB);
        let error = body(200 * KIB).await.unwrap_err();
        assert_eq!(error, BodyError::NoMemory(Duration::from_millis(500)));
        assert_eq!(error.kind(), FailureKind::Timeout);
        assert_eq!(
            error.to_string(),
            "was not read within 0.5 s, as other long answers took all memory for them"
        );
        assert_eq!(body(32 * KIB).await.unwrap().len(), 32 * KIB);
        assert_eq!(body(257 * KIB).await.unwrap_err(), BodyError::TooLong(256));
        drop(first);
        assert_eq!(body(256 * KIB).await.unwrap().len(), 256 * KIB);
    }

    #[test]
    fn each_answer_has_its_class() {
        let class_of = |status| {
            class(&Ok(Answer {
                status,
                headers: HeaderMap::new(),
                body: Ok(Body::default()),
            }))
        };
        for (statuses, expected) in [
            (&[200, 201, 299][..], "success"),
            (&[300, 302, 399], "redirect"),
            (&[401], "unauthorized"),
            (&[403], "forbidden"),
            (&[404], "not_found"),
            (&[429], "throttled"),
            (&[400, 402, 408, 499], "client_error"),
            (&[500, 503, 599], "server_error"),
            (&[100, 600, 999], "other"),
        ] {
            for status in statuses {
                assert_eq!(class_of(*status), expected, "{status}");
            }
        }
        assert_eq!(class(&Err(NoAnswer::NotAllowed)), "not_allowed");
        let kind = FailureKind::Timeout;
        assert_eq!(
            class(&Err(NoAnswer::Failed(kind, String::new()))),
            "timeout"
        );
    }
}
