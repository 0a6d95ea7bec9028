//! HTTP as this client needs it: no redirects, bounded time and size, a fresh connection where a
//! pooled one is dead. Knows neither jobs nor tokens.

mod address;
mod body;
mod clients;
mod connect;
mod connection;
mod error;
mod proxy;
mod turns;
mod verifier;

pub(crate) use address::is_internal;
pub(crate) use body::{Body, BodyError};
pub(crate) use clients::{Clients, Trust};
pub(crate) use error::NoAnswer;
pub use proxy::{InvalidProxy, Proxies, Proxy, ProxyProblem};

use crate::CloudOptions;
use ::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri,
    header::{ACCEPT, CONTENT_TYPE, PROXY_AUTHORIZATION, USER_AGENT},
    uri::Scheme,
};
use body::{Bounds, Memory};
use clients::{Client, ClientCache};
use connect::proxy_of;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::client::legacy;
use image_export_model::FailureKind;
use std::{
    error::Error,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::timeout_at;
use tracing::Instrument;
use turns::Turns;
use url::Url;

/// Where a token goes in a request.
pub(crate) const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-auth-token");

/// A request. Its body is in memory, so it may be sent twice.
pub(crate) type Request = ::http::Request<Full<Bytes>>;

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
    turns: Turns,
    memory: Memory,
    user_agent: HeaderValue,
}

/// Where and how one request is sent.
#[derive(Clone, Copy)]
pub(crate) struct Route<'a> {
    pub(crate) uri: &'a Uri,
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

/// `GET`, of JSON.
pub(crate) fn get(uri: &Uri) -> Request {
    let mut request = Request::default();
    *request.uri_mut() = uri.clone();
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(ACCEPT, json);
    request
}

/// `POST`, of JSON.
pub(crate) fn post(uri: &Uri, body: Vec<u8>) -> Request {
    let mut request = get(uri);
    *request.method_mut() = Method::POST;
    *request.body_mut() = body.into();
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(CONTENT_TYPE, json);
    request
}

impl Http {
    pub(crate) fn new(options: CloudOptions) -> Result<Self, Box<dyn Error + Send + Sync>> {
        Ok(Self {
            clients: ClientCache::new(&options)?,
            turns: Turns::default(),
            memory: Memory::new(options.bodies_limit),
            user_agent: HeaderValue::from_str(&options.user_agent)?,
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
        request: impl Fn() -> Request,
    ) -> Result<Answer, NoAnswer> {
        let span = tracing::debug_span!(
            "request",
            operation = route.operation.label(),
            host = route.host
        );
        let pair = self.clients.get(route.clients);
        let mut fresh = false;
        loop {
            let client = self.clients.client(&pair, &self.options, fresh)?;
            attempts.sent += 1;
            let (result, broke) = self
                .attempt(&client, request(), route)
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
        client: &Client,
        mut request: Request,
        route: Route<'_>,
    ) -> (Result<Answer, NoAnswer>, bool) {
        let timeout = self.options.request_timeout;
        let until = tokio::time::Instant::now() + timeout;
        let _turn = self.turns.next(route.host).await;
        let started = Instant::now();
        self.complete(&mut request);
        let result = timeout_at(until, client.request(request)).await;
        let broke = matches!(&result, Ok(Err(error)) if !error.is_connect());
        let result = match result {
            Ok(Ok(response)) => {
                let (head, answer) = response.into_parts();
                let bounds = Bounds {
                    limit: route.body_limit,
                    until,
                    timeout,
                    memory: &self.memory,
                    namespace: route.namespace,
                };
                Ok(Answer {
                    status: head.status.as_u16(),
                    body: body::read(answer, &head.headers, bounds).await,
                    headers: head.headers,
                })
            }
            Ok(Err(error)) => Err(Box::pin(self.no_answer(&error, route.uri)).await),
            Err(_) => Err(NoAnswer::too_late(&self.options)),
        };
        let (class, took) = (class(&result), started.elapsed());
        let observer = &self.options.observer;
        observer.request(route.operation, class, took);
        tracing::debug!(class, milliseconds = took.as_millis(), "request ended");
        (result, broke)
    }

    /// Adds the headers that all requests have.
    fn complete(&self, request: &mut Request) {
        let user = match request.uri().scheme() {
            // Such requests go to the proxy itself, without a tunnel.
            Some(scheme) if *scheme == Scheme::HTTP => {
                let proxy = proxy_of(&self.options.proxies, request.uri());
                proxy
                    .filter(|proxy| !proxy.is_socks())
                    .and_then(Proxy::basic_auth)
            }
            _ => None,
        };
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, self.user_agent.clone());
        headers.extend(user.map(|user| (PROXY_AUTHORIZATION, user)));
    }

    async fn no_answer(&self, error: &legacy::Error, uri: &Uri) -> NoAnswer {
        let way = proxy_of(&self.options.proxies, uri).zip(Url::parse(&uri.to_string()).ok());
        let Some((proxy, url)) = way else {
            return NoAnswer::new(error, &self.options, None);
        };
        let no_answer = NoAnswer::new(error, &self.options, Some(proxy));
        let is_late = matches!(no_answer, NoAnswer::Failed(FailureKind::Timeout, _));
        if url.scheme() == "http" && error.is_connect() && !is_late {
            NoAnswer::Proxy(proxy.unreachable(error))
        } else if let Some(problem) = proxy.problem(error, &url) {
            NoAnswer::Proxy(problem.await)
        } else {
            no_answer
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
            let uri = format!("{server}{length}").parse().unwrap();
            let route = Route {
                uri: &uri,
                host: "host",
                operation: Operation::JobQuery,
                clients: None,
                body_limit: 256 * KIB,
                namespace: &"team-a".into(),
            };
            let mut attempts = Attempts::default();
            let answer = http.send(route, &mut attempts, || get(&uri));
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
