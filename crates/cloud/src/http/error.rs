//! Why a request got no answer, in fixed texts: the library's own name addresses, times and other
//! things that change from poll to poll.

use super::{
    address::{InternalAddress, Unresolved},
    clients::MAX_HEADERS,
    connection::Flood,
    proxy::{Proxy, ProxyProblem},
    verifier::TooMany,
};
use crate::{
    CloudOptions,
    outcome::{failed, misconfigured},
};
use hyper_util::client::legacy as client;
use image_export_model::{
    ConfigurationReason,
    FailureKind::{self, Network, Timeout},
    Outcome, Stage,
};
use std::{error::Error, io};
use tower::timeout::error::Elapsed;

/// Why there is no answer: half a sentence after the host's name, but for a proxy's problem.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("{1}")]
    Failed(FailureKind, String),
    /// DNS knows no address of the host.
    #[error("cannot be resolved to an address")]
    Unresolved,
    /// The host's addresses are not permitted.
    #[error("{InternalAddress}, which is never contacted")]
    NotAllowed,
    /// The proxy on the way to the host is at fault.
    #[error("{0}")]
    Proxy(ProxyProblem),
}

impl NoAnswer {
    /// `proxy` is on the way, and none of its problems is known.
    pub(super) fn new(
        error: &client::Error,
        options: &CloudOptions,
        proxy: Option<&Proxy>,
    ) -> Self {
        if find::<InternalAddress>(error).is_some() {
            return Self::NotAllowed;
        }
        if find::<Unresolved>(error).is_some() {
            return Self::Unresolved;
        }
        if is_connect_timeout(error) {
            let seconds = options.connect_timeout.as_secs_f32();
            let way = proxy.map_or_else(String::new, |proxy| format!(" through proxy {proxy}"));
            let text = format!("did not accept a connection{way} within {seconds} s");
            return Self::Failed(Timeout, text);
        }
        Self::Failed(Network, network_text(error))
    }

    /// There was none in time.
    pub(super) fn too_late(options: &CloudOptions) -> Self {
        let seconds = options.request_timeout.as_secs_f32();
        Self::Failed(Timeout, format!("did not answer within {seconds} s"))
    }

    /// As the outcome of a poll; `host` is named in its message.
    pub(crate) fn outcome(self, stage: Stage, host: &str) -> Outcome {
        let text = format!("{host} {self}");
        match self {
            Self::Failed(kind, _) => failed(stage, kind, text),
            Self::Unresolved => failed(stage, Network, text),
            Self::NotAllowed => misconfigured(ConfigurationReason::EndpointNotAllowed, text),
            Self::Proxy(problem) => failed(stage, Network, problem.to_string()),
        }
    }
}

fn network_text(error: &client::Error) -> String {
    if let Some(tls) = find::<rustls::Error>(error) {
        format!("cannot be trusted: {}", tls_text(tls))
    } else if let Some(flood) = find::<Flood>(error) {
        format!("sends {flood}")
    } else if find::<hyper::Error>(error).is_some_and(hyper::Error::is_parse_too_large) {
        format!("sends more than {} KiB of headers", MAX_HEADERS >> 10)
    } else if let Some(io) = causes(error)
        .filter_map(|cause| cause.downcast_ref())
        .last()
    {
        format!("cannot be reached: {}", io::Error::kind(io))
    } else if error.is_connect() {
        "cannot be reached".to_owned()
    } else {
        "broke the connection without an answer".to_owned()
    }
}

fn is_connect_timeout(error: &client::Error) -> bool {
    let timed_out = |cause: &(dyn Error + 'static)| {
        let io = cause.downcast_ref::<io::Error>();
        io.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
    };
    find::<Elapsed>(error).is_some() || error.is_connect() && causes(error).any(timed_out)
}

pub(super) fn tls_text(error: &rustls::Error) -> &'static str {
    use rustls::{CertificateError as Certificate, Error as Tls};
    match error {
        Tls::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => {
            "its certificate has expired"
        }
        Tls::InvalidCertificate(
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. },
        ) => "its certificate is not valid yet",
        Tls::InvalidCertificate(Certificate::UnknownIssuer) => {
            "its certificate comes from an unknown authority; add that authority's certificate as cacert, and intermediate ones that the server does not send"
        }
        Tls::InvalidCertificate(Certificate::NotValidForNameContext { presented, .. })
            if presented.is_empty() =>
        {
            "its certificate names no host (subjectAltName); the common name alone does not count"
        }
        Tls::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        ) => "its certificate is for another host name",
        // The library has no variant for it.
        Tls::InvalidCertificate(Certificate::Other(other))
            if other.to_string().contains("CaUsedAsEndEntity") =>
        {
            "its certificate is that of an authority (CA:TRUE), which no server may present; give the server one that this authority signs"
        }
        Tls::InvalidCertificate(Certificate::Other(other)) if other.0.is::<TooMany>() => {
            "it sends more than 8 certificates beside its own; have it send those alone that lead to a known authority"
        }
        Tls::InvalidCertificate(_) => "its certificate is not valid",
        _ => "the TLS handshake failed",
    }
}

/// The first cause of type `E`.
pub(super) fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// The first error of the operating system.
pub(super) fn os_error(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let mut errors = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>());
    errors
        .find(|error| error.raw_os_error().is_some())
        .map(io::Error::kind)
}

/// The error and its causes. An [`io::Error`] that wraps another error hides it from `source()`.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error: &&'a (dyn Error + 'static)| {
        let io = error.downcast_ref::<io::Error>();
        match io.and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        }
    })
}
