//! The cloud side: one query in, one [`Observation`] out.
//!
//! ```text
//! config   clouds.yaml ─▶ CloudEntry (plain data: Auth, endpoints, trust)
//! auth     tokens ─▶ keystone · signature · breaker
//! ims      client ─▶ poll ─▶ answer (job, error) ─▶ Observation
//!
//! below all of them:  http (transport) · wire (JSON, texts, times, error bodies) · memory (shares of it)
//! ```
//! Each layer uses those above it in this picture, and `http`, `wire` and `memory`; none uses a later one. What
//! decides (the meaning of a body, a status, a header, a clouds.yaml) is a pure function; only `http`
//! touches the network. Nothing in here knows Kubernetes.
//!
//! [`Observation`]: image_export_model::Observation

mod auth;
mod config;
mod credential;
mod http;
mod ims;
mod memory;
mod options;
mod outcome;
mod secret;
mod wire;

#[cfg(any(test, fuzzing))]
#[path = "tests/fuzzing.rs"]
pub mod fuzzing;
#[cfg(test)]
mod tests;

pub use auth::Pacing;
pub use config::{
    CloudsFile, Place,
    clouds_yaml::cloud_names,
    endpoint::JobPath,
    policy::{AllowedHost, EndpointPolicy, PUBLIC_CLOUDS},
};
pub use credential::Credential;
pub use http::{InvalidProxy, Observer, Operation, Proxies, Proxy, ProxyProblem};
pub use ims::client::{ClientError, CloudClient};
pub use options::CloudOptions;

/// Bound on a whole poll: a login, the query, one repetition of each, at 20 s a request.
pub const POLL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(90);
