//! The cloud side: one query in, one [`Observation`] out.
//!
//! ```text
//! clouds_yaml ─▶ Credential ─▶ keystone (login) ─▶ tokens (cache, single flight)
//!                                                    │
//!                     Observation ◀─ job / error ◀─ client (GET job) ◀─ http
//! ```
//! Everything that decides (what a body, a status, a header, a clouds.yaml means) is a pure
//! function; only `http`, and `tokens` and `client` through it, touch the network. Nothing in here
//! knows of Kubernetes objects other than the name of a Secret for its messages.
//!
//! [`Observation`]: crate::observation::Observation

mod client;
mod clouds_yaml;
mod credential;
mod endpoint;
mod error;
mod http;
mod job;
mod keystone;
mod retry_after;
mod text;
mod timestamp;
mod tokens;

#[cfg(test)]
mod tests;

pub use client::{ClientError, CloudClient};
pub use credential::{Credential, content_version};

use std::{fmt, time::Duration};

/// What an administrator decides about talking to clouds.
#[derive(Clone, Debug)]
pub struct CloudOptions {
    /// Permits plain http, for labs.
    pub allow_http: bool,
    /// Longest time for a connection to come up, TLS included.
    pub connect_timeout: Duration,
    /// Longest time for one HTTP request in all, connection and body included.
    pub request_timeout: Duration,
    /// Longest body of an answer, in bytes.
    pub body_limit: usize,
    /// `User-Agent` of each request.
    pub user_agent: String,
}

impl Default for CloudOptions {
    fn default() -> Self {
        Self {
            allow_http: false,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(20),
            body_limit: 256 * 1024,
            user_agent: concat!("image-export-operator/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Names a Secret in messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecretName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret {}/{}", self.namespace, self.name)
    }
}
