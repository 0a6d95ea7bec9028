//! What an administrator decides.

use crate::{
    auth::Pacing,
    config::{EndpointPolicy, JobPath},
    http::{Observer, Proxies},
};
use std::{sync::Arc, time::Duration};

/// How a client talks to clouds.
#[derive(Clone, Debug)]
pub struct CloudOptions {
    /// Which hosts cloud entries may name.
    pub policy: Arc<EndpointPolicy>,
    /// The path of the job query, unless a cloud entry names one.
    pub job_path: JobPath,
    /// Which proxies lead to clouds. Default: none.
    pub proxies: Arc<Proxies>,
    /// When logins are tried again.
    pub pacing: Arc<Pacing>,
    /// Bounds the connecting, TLS included. Default 5 s.
    pub connect_timeout: Duration,
    /// Bounds a whole HTTP request, connection and body included. Default 20 s.
    pub request_timeout: Duration,
    /// Longest body of a job query's answer, in bytes, packed and unpacked. Default 256 KiB.
    pub body_limit: usize,
    /// Memory for all bodies beyond 32 KiB, each with its own limit, in bytes. Those that find none left wait
    /// within their time-out. Default 8 MiB.
    pub bodies_limit: usize,
    /// `User-Agent` of each request.
    pub user_agent: String,
    /// Receives a report of each request.
    pub observer: Arc<dyn Observer>,
}

impl Default for CloudOptions {
    fn default() -> Self {
        Self {
            policy: Arc::default(),
            job_path: JobPath::default(),
            proxies: Arc::default(),
            pacing: Arc::default(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(20),
            body_limit: 256 * 1024,
            bodies_limit: 8 * 1024 * 1024,
            user_agent: concat!("image-export-operator/", env!("CARGO_PKG_VERSION")).to_owned(),
            observer: Arc::new(()),
        }
    }
}
