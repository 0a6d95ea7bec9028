//! HTTP as this client needs it: no redirects, no decompression, bounded time and size, a fresh
//! connection where a pooled one turned out dead. Knows nothing of jobs and tokens.

use super::{CloudOptions, endpoint::Endpoint};
use crate::observation::FailureKind;
use reqwest::{
    Client, RequestBuilder, Response,
    header::{CONTENT_ENCODING, HeaderMap},
    redirect,
};
use std::{error::Error, io, sync::OnceLock, time::Duration};

/// Gateways commonly drop idle connections after 60 s; be first.
const POOL_IDLE: Duration = Duration::from_secs(45);

/// The HTTP clients, all with the same options.
#[derive(Debug)]
pub(super) struct Http {
    options: CloudOptions,
    /// Honours the proxies of the environment.
    proxied: Clients,
    /// For loopback addresses, which no proxy can reach; built when first needed, as each client
    /// holds the system's root certificates.
    direct: OnceLock<Clients>,
}

#[derive(Debug)]
struct Clients {
    pooled: Client,
    /// Never keeps a connection, so each of its requests opens one.
    fresh: OnceLock<Client>,
}

/// An HTTP answer with as much of its body as was allowed.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Result<Vec<u8>, BodyError>,
}

/// Why a body could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    #[error("is longer than {0} KiB")]
    TooLong(usize),
    #[error("is compressed, which was not asked for")]
    Encoded,
    #[error("broke off")]
    Cut,
    #[error("did not end within {0} s")]
    Timeout(u64),
}

/// Why there was no answer: half a sentence that follows the host's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(super) struct NoAnswer {
    pub(super) kind: FailureKind,
    pub(super) text: String,
}

/// What one poll or login may still do, and what it did.
#[derive(Debug)]
pub(super) struct Attempts {
    /// Requests sent.
    pub(super) sent: u32,
    fresh_left: bool,
}

impl Attempts {
    pub(super) fn new() -> Self {
        Self {
            sent: 0,
            fresh_left: true,
        }
    }
}

impl Http {
    pub(super) fn new(options: CloudOptions) -> Result<Self, reqwest::Error> {
        let pooled = build(&options, true, true)?;
        Ok(Self {
            options,
            proxied: Clients {
                pooled,
                fresh: OnceLock::new(),
            },
            direct: OnceLock::new(),
        })
    }

    pub(super) fn options(&self) -> &CloudOptions {
        &self.options
    }

    /// Sends a request that may safely be sent twice: if its connection breaks before an answer
    /// begins, once more over a fresh connection, as pooled ones die unnoticed. Reads at most
    /// `body_limit` bytes of the body.
    pub(super) async fn send(
        &self,
        endpoint: &Endpoint,
        attempts: &mut Attempts,
        body_limit: usize,
        request: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Answer, NoAnswer> {
        let clients = self.clients(endpoint);
        attempts.sent += 1;
        let mut result = request(&clients.pooled).send().await;
        if attempts.fresh_left && result.as_ref().err().is_some_and(broke_after_connecting) {
            attempts.fresh_left = false;
            attempts.sent += 1;
            result = request(self.fresh(endpoint, clients)).send().await;
        }
        match result {
            Ok(response) => Ok(self.read(response, body_limit).await),
            Err(error) => Err(self.no_answer(&error)),
        }
    }

    fn clients(&self, endpoint: &Endpoint) -> &Clients {
        if !endpoint.is_loopback() {
            return &self.proxied;
        }
        self.direct.get_or_init(|| Clients {
            pooled: build(&self.options, false, true)
                .unwrap_or_else(|_| self.proxied.pooled.clone()),
            fresh: OnceLock::new(),
        })
    }

    fn fresh<'a>(&self, endpoint: &Endpoint, clients: &'a Clients) -> &'a Client {
        clients.fresh.get_or_init(|| {
            build(&self.options, !endpoint.is_loopback(), false)
                .unwrap_or_else(|_| clients.pooled.clone())
        })
    }

    async fn read(&self, mut response: Response, limit: usize) -> Answer {
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        let body = if is_encoded(&headers) {
            Err(BodyError::Encoded)
        } else {
            self.read_body(response, limit).await
        };
        Answer {
            status,
            headers,
            body,
        }
    }

    async fn read_body(&self, mut response: Response, limit: usize) -> Result<Vec<u8>, BodyError> {
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > limit => {
                    return Err(BodyError::TooLong(limit / 1024));
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => return Ok(body),
                Err(error) if error.is_timeout() => {
                    return Err(BodyError::Timeout(self.options.request_timeout.as_secs()));
                }
                Err(_) => return Err(BodyError::Cut),
            }
        }
    }

    /// Only fixed texts: the library's own would name addresses, times and other things that
    /// change from poll to poll.
    fn no_answer(&self, error: &reqwest::Error) -> NoAnswer {
        let (kind, text) = if error.is_timeout() && error.is_connect() {
            let seconds = self.options.connect_timeout.as_secs_f32();
            (
                FailureKind::Timeout,
                format!("did not accept a connection within {seconds} s"),
            )
        } else if error.is_timeout() {
            let seconds = self.options.request_timeout.as_secs_f32();
            (
                FailureKind::Timeout,
                format!("did not answer within {seconds} s"),
            )
        } else if error.is_dns() {
            (
                FailureKind::Network,
                "cannot be resolved to an address".to_owned(),
            )
        } else if error.is_builder() {
            (
                FailureKind::Internal,
                "cannot be asked: the request could not be built".to_owned(),
            )
        } else if let Some(tls) = find::<rustls::Error>(error) {
            (FailureKind::Network, tls_text(tls))
        } else if let Some(io) = find::<io::Error>(error) {
            (
                FailureKind::Network,
                format!("cannot be reached: {}", io.kind()),
            )
        } else if error.is_connect() {
            (FailureKind::Network, "cannot be reached".to_owned())
        } else {
            (
                FailureKind::Network,
                "broke the connection without an answer".to_owned(),
            )
        };
        NoAnswer { kind, text }
    }
}

impl BodyError {
    pub(super) fn kind(&self) -> FailureKind {
        match self {
            Self::TooLong(_) | Self::Encoded => FailureKind::Malformed,
            Self::Cut => FailureKind::Network,
            Self::Timeout(_) => FailureKind::Timeout,
        }
    }
}

fn build(options: &CloudOptions, proxies: bool, keep_connections: bool) -> reqwest::Result<Client> {
    let mut builder = Client::builder()
        .user_agent(&options.user_agent)
        .redirect(redirect::Policy::none())
        .referer(false)
        .connect_timeout(options.connect_timeout)
        .timeout(options.request_timeout)
        .pool_idle_timeout(POOL_IDLE);
    if !proxies {
        builder = builder.no_proxy();
    }
    if !keep_connections {
        builder = builder.pool_max_idle_per_host(0);
    }
    builder.build()
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Whether the connection was there and broke before an answer began.
fn broke_after_connecting(error: &reqwest::Error) -> bool {
    error.is_request() && !error.is_connect() && !error.is_timeout()
}

fn tls_text(error: &rustls::Error) -> String {
    use rustls::{CertificateError as Certificate, Error as Tls};
    let cause = match error {
        Tls::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => {
            "its certificate has expired"
        }
        Tls::InvalidCertificate(
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. },
        ) => "its certificate is not valid yet",
        Tls::InvalidCertificate(Certificate::UnknownIssuer) => {
            "its certificate comes from an unknown authority"
        }
        Tls::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        ) => "its certificate is for another host name",
        Tls::InvalidCertificate(_) => "its certificate is not valid",
        _ => "the TLS handshake failed",
    };
    format!("cannot be trusted: {cause}")
}

/// The first cause of type `E`. An [`io::Error`] that wraps another error hides it from
/// `source()`, so its inner error is looked at as well.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        let wrapped = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        if let Some(wrapped) = wrapped
            && let Some(found) = find::<E>(wrapped)
        {
            return Some(found);
        }
        cause = error.source();
    }
    None
}
