//! Logs, metrics and probes.

#[cfg(test)]
mod captured;
mod exposition;
mod health;
mod http;
mod labels;
mod logging;
mod metrics;
mod process;

#[cfg(test)]
pub(crate) use captured::Captured;
pub use health::Health;
pub use http::{listen, serve};
pub use labels::ENDS;
pub use logging::{
    LogFilter, LogFilterError, LogFormat, LogGate, SharedLogQuota, init as init_logging,
};
pub use metrics::{ApiCalls, Metrics, RunningPoll};
