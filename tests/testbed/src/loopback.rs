//! HTTP to parts of the testbed: no proxy, no TLS, no connection that outlives a test's runtime.

use reqwest::{Client, ClientBuilder};
use rustls::{ClientConfig, RootCertStore};
use std::{sync::Arc, time::Duration};

/// A client whose requests take `timeout` at most.
pub(crate) fn client(timeout: Duration) -> anyhow::Result<ClientBuilder> {
    // Never used, but reqwest wants one, and the process may have no default provider yet.
    let tls =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
    Ok(Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .timeout(timeout)
        // A kept connection belongs to a test's runtime, and another test may be the next caller.
        .pool_max_idle_per_host(0))
}
