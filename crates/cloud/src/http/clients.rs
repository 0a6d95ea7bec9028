//! The HTTP clients of one set of trusted authorities.

use super::address::CheckedResolver;
use crate::CloudOptions;
use reqwest::{Certificate, Client, Proxy, Url, redirect, retry};
use std::{sync::OnceLock, time::Duration};

/// Gateways commonly drop idle connections after 60 s; ours are dropped before.
const POOL_IDLE: Duration = Duration::from_secs(45);
/// Bytes of an answer's headers in HTTP/2. A token that is too long to be used fits in, so that the
/// message can report it.
const MAX_HEADERS: u32 = 64 * 1024;
/// Time-outs of requests do not end an HTTP/2 connection, and one whose other end is gone would
/// swallow request after request.
const PING_AFTER: Duration = Duration::from_secs(5);

/// Which server certificates are accepted; by default those of the system's authorities.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    /// Beside the system's authorities.
    pub(crate) authorities: Vec<Certificate>,
    pub(crate) accept_any: bool,
}

/// The HTTP clients of one [`Trust`]. Each is built when first needed, as it holds the system's root
/// certificates.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    trust: Trust,
    /// By the flag of [`Self::get`].
    built: [OnceLock<Client>; 2],
}

impl Clients {
    /// `None` if `trust` is the default one, for which all share their clients.
    pub(crate) fn of(trust: Trust) -> Option<Self> {
        let differs = trust.accept_any || !trust.authorities.is_empty();
        differs.then(|| Self {
            trust,
            ..Self::default()
        })
    }

    /// `fresh`: keeps no connection, so each of its requests opens one.
    pub(super) fn get(&self, options: &CloudOptions, fresh: bool) -> reqwest::Result<Client> {
        let slot = &self.built[usize::from(fresh)];
        if let Some(client) = slot.get() {
            return Ok(client.clone());
        }
        let mut builder = Client::builder()
            .user_agent(&options.user_agent)
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .dns_resolver(CheckedResolver::new(options))
            .tls_danger_accept_invalid_certs(self.trust.accept_any)
            .tls_certs_merge(self.trust.authorities.clone())
            .connect_timeout(options.connect_timeout)
            .timeout(options.request_timeout)
            .http2_max_header_list_size(MAX_HEADERS)
            .http2_keep_alive_interval(PING_AFTER)
            .http2_keep_alive_timeout(PING_AFTER)
            .pool_idle_timeout(POOL_IDLE);
        builder = if options.proxies.is_empty() {
            builder.no_proxy()
        } else {
            let proxies = options.proxies.clone();
            let proxy_of = move |url: &Url| proxies.of(url).map(|proxy| proxy.url().clone());
            builder.proxy(Proxy::custom(proxy_of))
        };
        if fresh {
            builder = builder.pool_max_idle_per_host(0);
        }
        let client = builder.build()?;
        // Of two that were built at once, one stays.
        Ok(slot.get_or_init(|| client).clone())
    }
}
