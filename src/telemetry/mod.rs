//! Logs, metrics and probes.

mod health;
mod http;
mod logging;
mod metrics;

pub use health::Health;
pub use http::serve;
pub use logging::{LogFilter, LogFilterError, LogFormat, LogGate, init as init_logging};
pub use metrics::Metrics;
