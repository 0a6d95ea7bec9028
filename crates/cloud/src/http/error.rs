//! Why a request got no answer, in fixed texts: the library's own name addresses, times and other
//! things that change from poll to poll.

use super::{
    address::InternalAddress,
    proxy::{Proxy, ProxyProblem},
    verifier::TooMany,
};
use crate::{
    CloudOptions,
    outcome::{failed, misconfigured},
};
use image_export_model::{
    ConfigurationReason,
    FailureKind::{self, Internal, Network, Timeout},
    Outcome, Stage,
};
use std::{error::Error, io};

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
        error: &reqwest::Error,
        options: &CloudOptions,
        proxy: Option<&Proxy>,
    ) -> Self {
        if find::<InternalAddress>(error).is_some() {
            return Self::NotAllowed;
        }
        if error.is_dns() {
            return Self::Unresolved;
        }
        let (kind, text) = if error.is_timeout() && error.is_connect() {
            let seconds = options.connect_timeout.as_secs_f32();
            let way = proxy.map_or_else(String::new, |proxy| format!(" through proxy {proxy}"));
            let text = format!("did not accept a connection{way} within {seconds} s");
            (Timeout, text)
        } else if error.is_timeout() {
            let seconds = options.request_timeout.as_secs_f32();
            (Timeout, format!("did not answer within {seconds} s"))
        } else if error.is_builder() {
            let text = "cannot be queried: the request could not be built";
            (Internal, text.to_owned())
        } else {
            (Network, network_text(error))
        };
        Self::Failed(kind, text)
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

fn network_text(error: &reqwest::Error) -> String {
    if let Some(tls) = find::<rustls::Error>(error) {
        format!("cannot be trusted: {}", tls_text(tls))
    } else if let Some(io) = find::<io::Error>(error) {
        format!("cannot be reached: {}", io.kind())
    } else if error.is_connect() {
        "cannot be reached".to_owned()
    } else {
        "broke the connection without an answer".to_owned()
    }
}

/// Whether the connection was established and broke before an answer began.
pub(super) fn broke_after_connecting(error: &reqwest::Error) -> bool {
    error.is_request() && !error.is_connect() && !error.is_timeout()
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
