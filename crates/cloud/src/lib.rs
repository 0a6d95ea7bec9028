//! The cloud side: one query in, one [`Observation`] out.
//!
//! ```text
//! clouds_yaml ─▶ entry ─▶ Credential ─▶ keystone (login) ─▶ tokens (cache, single flight)
//!                                   └─▶ signature (AK/SK)     │
//!                                            breaker ─▶ client (GET job) ─▶ http ─▶ hosts
//!                       Observation ◀─ job / error ◀──────┘
//! ```
//! Everything that decides (what a body, a status, a header, a clouds.yaml means) is a pure
//! function; only `http`, and `tokens` and `client` through it, touch the network. Nothing in here
//! knows of Kubernetes objects other than the name of a Secret for its messages.
//!
//! [`Observation`]: image_export_model::Observation

mod breaker;
mod client;
mod clouds_yaml;
mod credential;
mod endpoint;
mod entry;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod hosts;
mod http;
mod job;
mod keystone;
mod retry_after;
mod signature;
mod text;
mod timestamp;
mod tokens;

#[cfg(test)]
mod tests;

pub use client::{ClientError, CloudClient};
pub use clouds_yaml::cloud_names;
pub use credential::{Credential, content_version};
pub use endpoint::JobPath;
pub use hosts::{EndpointPolicy, PUBLIC_CLOUDS, parse_allowed_host};

use std::{fmt, sync::Arc, time::Duration};

/// Bound on a whole poll: a login, the query, one repetition of each, at 20 s a request.
pub const POLL_TIMEOUT: Duration = Duration::from_secs(90);

/// What an administrator decides about talking to clouds.
#[derive(Clone, Debug)]
pub struct CloudOptions {
    /// Which hosts credentials may name.
    pub policy: Arc<EndpointPolicy>,
    /// The path of the job query where a cloud entry does not say otherwise.
    pub job_path: JobPath,
    /// How often logins are tried.
    pub pacing: Arc<Pacing>,
    /// Longest time for a connection to come up, TLS included.
    pub connect_timeout: Duration,
    /// Longest time for one HTTP request in all, connection and body included.
    pub request_timeout: Duration,
    /// Longest body of an answer, in bytes, packed and unpacked.
    pub body_limit: usize,
    /// `User-Agent` of each request.
    pub user_agent: String,
    /// Is told of each request.
    pub observer: Arc<dyn Observer>,
}

impl Default for CloudOptions {
    fn default() -> Self {
        Self {
            policy: Arc::default(),
            job_path: JobPath::default(),
            pacing: Arc::default(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(20),
            body_limit: 256 * 1024,
            user_agent: concat!("image-export-operator/", env!("CARGO_PKG_VERSION")).to_owned(),
            observer: Arc::new(()),
        }
    }
}

/// When logins are tried again. The clouds' API gateway locks an access key for 5 minutes, for
/// everybody, after more than 5 rejections in a row (its documentation of error `APIGW.0301`).
#[derive(Clone, Debug, PartialEq)]
pub struct Pacing {
    /// Pause after a login that failed, doubling up to [`Self::login_retry_max`].
    pub login_retry_min: Duration,
    /// Longest pause after logins that failed in a row.
    pub login_retry_max: Duration,
    /// Pause after a login that was rejected: each repetition brings its owner nearer to a lock.
    pub login_rejected: Duration,
    /// Nobody's `Retry-After` keeps logins away for longer.
    pub retry_after_max: Duration,
    /// Rejections in a row that open the breaker of a login identity.
    pub breaker_rejections: u32,
    /// How long an open breaker lets nothing pass, then one attempt.
    pub breaker_pause: Duration,
    /// How long the breaker trusts a content that was accepted.
    pub breaker_trust: Duration,
}

impl Default for Pacing {
    fn default() -> Self {
        Self {
            login_retry_min: Duration::from_secs(5),
            login_retry_max: Duration::from_secs(60),
            login_rejected: Duration::from_secs(300),
            retry_after_max: Duration::from_secs(15 * 60),
            breaker_rejections: 3,
            breaker_pause: Duration::from_secs(300),
            breaker_trust: Duration::from_secs(24 * 3600),
        }
    }
}

impl Pacing {
    /// [`Self::breaker_pause`] as messages name it.
    fn breaker_minutes(&self) -> u64 {
        self.breaker_pause.as_secs().div_ceil(60)
    }

    /// With all times multiplied by `factor`, for tests of the operator.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        let scale = |time: Duration| time.mul_f64(factor);
        Self {
            login_retry_min: scale(self.login_retry_min),
            login_retry_max: scale(self.login_retry_max),
            login_rejected: scale(self.login_rejected),
            retry_after_max: scale(self.retry_after_max),
            breaker_rejections: self.breaker_rejections,
            breaker_pause: scale(self.breaker_pause),
            breaker_trust: scale(self.breaker_trust),
        }
    }
}

/// Is told what the client does, for metrics.
pub trait Observer: fmt::Debug + Send + Sync {
    /// A request ended. `class` is one of a few words: what kind of answer came, or why none did.
    fn request(&self, operation: Operation, class: &'static str, took: Duration);
}

/// Nobody is told.
impl Observer for () {
    fn request(&self, _: Operation, _: &'static str, _: Duration) {}
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Getting a token.
    Login,
    /// Asking about a job.
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

/// Where a `clouds.yaml` stands, for messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A Secret of the cluster.
    Secret {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A file, by its path.
    File(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret { namespace, name } => write!(f, "Secret {namespace}/{name}"),
            Self::File(path) => write!(f, "file {path}"),
        }
    }
}

#[cfg(test)]
mod defaults {
    use super::*;

    #[test]
    fn the_numbers_of_the_manual() {
        let seconds = Duration::from_secs;
        let pinned = Pacing {
            login_retry_min: seconds(5),
            login_retry_max: seconds(60),
            login_rejected: seconds(300),
            retry_after_max: seconds(900),
            breaker_rejections: 3,
            breaker_pause: seconds(300),
            breaker_trust: seconds(86_400),
        };
        assert_eq!(Pacing::default(), pinned);
        let options = CloudOptions::default();
        assert_eq!(options.connect_timeout, seconds(5));
        assert_eq!(options.request_timeout, seconds(20));
        assert_eq!(options.body_limit, 256 * 1024);
    }
}
