//! HTTP as this client needs it: no redirects, bounded time and size, a fresh connection where a
//! pooled one turned out dead. Knows nothing of jobs and tokens.

use super::{
    CloudOptions, Operation,
    endpoint::Endpoint,
    hosts::{CheckedResolver, InternalAddress},
};
use flate2::read::MultiGzDecoder;
use image_export_model::FailureKind;
use reqwest::{
    Certificate, Client, RequestBuilder, Response,
    header::{CONTENT_ENCODING, HeaderMap},
    redirect, retry,
};
use std::{
    error::Error,
    io::{self, Read},
    sync::OnceLock,
    time::{Duration, Instant},
};

/// Gateways commonly drop idle connections after 60 s; be first.
const POOL_IDLE: Duration = Duration::from_secs(45);
/// Bytes of an answer's headers in HTTP/2: room for a token that is too long to be used, so that this
/// can be said.
const MAX_HEADERS: u32 = 64 * 1024;
/// An HTTP/2 connection whose other end is gone would swallow request after request, as no time-out
/// of a request ends it.
const PING_AFTER: Duration = Duration::from_secs(5);

/// The HTTP side: options, and clients for everybody who trusts the system's authorities.
pub(super) struct Http {
    options: CloudOptions,
    resolver: CheckedResolver,
    shared: Clients,
}

/// Whom servers may be certified by.
#[derive(Clone, Debug)]
pub(super) struct Trust {
    /// Beside those of the system.
    pub(super) authorities: Vec<Certificate>,
    /// `false`: any certificate will do.
    pub(super) verify: bool,
}

impl Trust {
    /// Whether it is another than the system's.
    pub(super) fn differs(&self) -> bool {
        !self.verify || !self.authorities.is_empty()
    }
}

impl Default for Trust {
    fn default() -> Self {
        Self {
            authorities: Vec::new(),
            verify: true,
        }
    }
}

/// The HTTP clients of one [`Trust`]. Each is built when first needed, as it holds the system's root
/// certificates.
#[derive(Debug, Default)]
pub(super) struct Clients {
    trust: Trust,
    /// Honours the proxies of the environment.
    proxied: Pair,
    /// For loopback addresses, which no proxy can reach.
    direct: Pair,
}

#[derive(Debug, Default)]
struct Pair {
    pooled: OnceLock<Client>,
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
    #[error("is encoded in a way that was not asked for")]
    Encoded,
    #[error("is not the gzip that it claims to be")]
    Corrupt,
    #[error("broke off")]
    Cut,
    #[error("did not end within {} s", .0.as_secs_f32())]
    Timeout(Duration),
}

/// Why there was no answer: half a sentence that follows the host's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("{1}")]
    Failed(FailureKind, String),
    /// The address may not be talked to.
    #[error("{0}, which is never asked")]
    NotAllowed(&'static str),
}

/// What one poll or login may still do, and what it did.
#[derive(Debug)]
pub(super) struct Attempts {
    /// Requests sent.
    pub(super) sent: u32,
    fresh_left: bool,
}

impl Attempts {
    /// Without a second one over a fresh connection.
    pub(super) fn single() -> Self {
        Self {
            sent: 0,
            fresh_left: false,
        }
    }

    pub(super) fn new() -> Self {
        Self {
            sent: 0,
            fresh_left: true,
        }
    }
}

impl Clients {
    pub(super) fn new(trust: Trust) -> Self {
        Self {
            trust,
            ..Self::default()
        }
    }
}

impl Http {
    pub(super) fn new(options: CloudOptions) -> Result<Self, reqwest::Error> {
        let http = Self {
            resolver: CheckedResolver::new(options.policy.clone()),
            options,
            shared: Clients::default(),
        };
        http.client(&http.shared, false, false)?;
        Ok(http)
    }

    pub(super) fn options(&self) -> &CloudOptions {
        &self.options
    }

    /// Sends a request that may safely be sent twice: if its connection breaks before an answer
    /// begins, once more over a fresh connection, as pooled ones die unnoticed. `request` is called
    /// for each attempt. `clients` are those of a credential with authorities of its own. Reads at
    /// most `body_limit` bytes of the body, packed and unpacked.
    pub(super) async fn send(
        &self,
        clients: Option<&Clients>,
        endpoint: &Endpoint,
        operation: Operation,
        attempts: &mut Attempts,
        body_limit: usize,
        request: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Answer, NoAnswer> {
        let clients = clients.unwrap_or(&self.shared);
        let mut fresh = false;
        loop {
            let client = self
                .client(clients, endpoint.is_loopback(), fresh)
                .map_err(|error| self.no_answer(&error))?;
            attempts.sent += 1;
            let started = Instant::now();
            let result = request(&client).send().await;
            let again = !fresh
                && attempts.fresh_left
                && result.as_ref().err().is_some_and(broke_after_connecting);
            let result = match result {
                Ok(response) => Ok(self.read(response, body_limit).await),
                Err(error) => Err(self.no_answer(&error)),
            };
            let class = match &result {
                Ok(answer) => answer.class(),
                Err(NoAnswer::Failed(kind, _)) => kind.category(),
                Err(NoAnswer::NotAllowed(_)) => "not_allowed",
            };
            let observer = &self.options.observer;
            observer.request(operation, class, started.elapsed());
            if !again {
                return result;
            }
            attempts.fresh_left = false;
            fresh = true;
        }
    }

    fn client(&self, clients: &Clients, direct: bool, fresh: bool) -> reqwest::Result<Client> {
        let pair = if direct {
            &clients.direct
        } else {
            &clients.proxied
        };
        let slot = if fresh { &pair.fresh } else { &pair.pooled };
        if let Some(client) = slot.get() {
            return Ok(client.clone());
        }
        let mut builder = Client::builder()
            .user_agent(&self.options.user_agent)
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .dns_resolver(self.resolver.clone())
            .tls_danger_accept_invalid_certs(!clients.trust.verify)
            .tls_certs_merge(clients.trust.authorities.clone())
            .connect_timeout(self.options.connect_timeout)
            .timeout(self.options.request_timeout)
            .http2_max_header_list_size(MAX_HEADERS)
            .http2_keep_alive_interval(PING_AFTER)
            .http2_keep_alive_timeout(PING_AFTER)
            .pool_idle_timeout(POOL_IDLE);
        if direct {
            builder = builder.no_proxy();
        }
        if fresh {
            builder = builder.pool_max_idle_per_host(0);
        }
        let client = builder.build()?;
        // Of two that were built at once, one stays.
        Ok(slot.get_or_init(|| client).clone())
    }

    async fn read(&self, mut response: Response, limit: usize) -> Answer {
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        let body = match encoding(&headers) {
            Encoding::Plain => self.read_body(response, limit).await,
            Encoding::Gzip => match self.read_body(response, limit).await {
                Ok(packed) => unpack(&packed, limit),
                Err(error) => Err(error),
            },
            Encoding::Other => Err(BodyError::Encoded),
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
                    return Err(BodyError::Timeout(self.options.request_timeout));
                }
                Err(_) => return Err(BodyError::Cut),
            }
        }
    }

    /// Only fixed texts: the library's own would name addresses, times and other things that
    /// change from poll to poll.
    fn no_answer(&self, error: &reqwest::Error) -> NoAnswer {
        if find::<InternalAddress>(error).is_some() {
            return NoAnswer::NotAllowed("leads to a loopback, link-local or metadata address");
        }
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
        NoAnswer::Failed(kind, text)
    }
}

impl BodyError {
    pub(super) fn kind(&self) -> FailureKind {
        match self {
            Self::TooLong(_) | Self::Encoded | Self::Corrupt => FailureKind::Malformed,
            Self::Cut => FailureKind::Network,
            Self::Timeout(_) => FailureKind::Timeout,
        }
    }
}

impl Answer {
    /// Bounded label for metrics.
    fn class(&self) -> &'static str {
        match self.status {
            200..=299 => "success",
            300..=399 => "redirect",
            401 => "unauthorized",
            403 => "forbidden",
            404 => "not_found",
            429 => "throttled",
            400..=499 => "client_error",
            500..=599 => "server_error",
            _ => "other",
        }
    }
}

enum Encoding {
    Plain,
    /// Not asked for, but some gateways compress all the same.
    Gzip,
    Other,
}

fn encoding(headers: &HeaderMap) -> Encoding {
    let mut codings = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .map(|coding| coding.as_bytes().trim_ascii())
        .filter(|coding| !coding.eq_ignore_ascii_case(b"identity"));
    match (codings.next(), codings.next()) {
        (None, _) => Encoding::Plain,
        (Some(coding), None)
            if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") =>
        {
            Encoding::Gzip
        }
        _ => Encoding::Other,
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
            "its certificate comes from an unknown authority; put that authority's certificate into key cacert of the Secret"
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
