//! The HTTP clients of one set of trusted authorities.

use super::{Settings, address::CheckedResolver};
use reqwest::{Certificate, Client, redirect, retry};
use std::{sync::OnceLock, time::Duration};

/// Gateways commonly drop idle connections after 60 s; ours are dropped before.
const POOL_IDLE: Duration = Duration::from_secs(45);
/// Bytes of an answer's headers in HTTP/2. A token that is too long to be used fits in, so that the
/// message can report it.
const MAX_HEADERS: u32 = 64 * 1024;
/// Time-outs of requests do not end an HTTP/2 connection, and one whose other end is gone would
/// swallow request after request.
const PING_AFTER: Duration = Duration::from_secs(5);

/// Which server certificates are accepted.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    /// Beside the system's authorities.
    pub(crate) authorities: Vec<Certificate>,
    /// `false` accepts any certificate.
    pub(crate) verify: bool,
}

impl Trust {
    /// Whether it differs from the system's.
    pub(crate) fn differs(&self) -> bool {
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
pub(crate) struct Clients {
    trust: Trust,
    /// By [`Kind`].
    built: [[OnceLock<Client>; 2]; 2],
}

/// Which client a request takes.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    /// For loopback addresses, which no proxy can reach; else the environment's proxies are honoured.
    pub(super) direct: bool,
    /// Keeps no connection, so each of its requests opens one.
    pub(super) fresh: bool,
}

impl Clients {
    pub(crate) fn new(trust: Trust) -> Self {
        Self {
            trust,
            ..Self::default()
        }
    }

    pub(super) fn get(
        &self,
        settings: &Settings,
        resolver: &CheckedResolver,
        kind: Kind,
    ) -> reqwest::Result<Client> {
        let slot = &self.built[usize::from(kind.direct)][usize::from(kind.fresh)];
        if let Some(client) = slot.get() {
            return Ok(client.clone());
        }
        let mut builder = Client::builder()
            .user_agent(&settings.user_agent)
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .dns_resolver(resolver.clone())
            .tls_danger_accept_invalid_certs(!self.trust.verify)
            .tls_certs_merge(self.trust.authorities.clone())
            .connect_timeout(settings.connect_timeout)
            .timeout(settings.request_timeout)
            .http2_max_header_list_size(MAX_HEADERS)
            .http2_keep_alive_interval(PING_AFTER)
            .http2_keep_alive_timeout(PING_AFTER)
            .pool_idle_timeout(POOL_IDLE);
        if kind.direct {
            builder = builder.no_proxy();
        }
        if kind.fresh {
            builder = builder.pool_max_idle_per_host(0);
        }
        let client = builder.build()?;
        // Of two that were built at once, one stays.
        Ok(slot.get_or_init(|| client).clone())
    }
}
