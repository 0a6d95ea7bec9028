//! Logs to standard error, as text or JSON.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use tracing_subscriber::{EnvFilter, filter::ParseError};

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What the API client logs on its own at level error although it is handled, and reported at a
/// bounded rate, elsewhere.
const QUIET: &str = "kube_client=off,kube_runtime=off";

/// Starts logging. `level` is error, warn, info, debug or trace, or a filter of the form
/// `target=level,…`.
pub fn init(format: LogFormat, level: &str) -> Result<(), ParseError> {
    let plain = level.parse::<tracing::Level>().is_ok();
    let directives = if plain {
        format!("{level},{QUIET}")
    } else {
        level.to_owned()
    };
    let filter = EnvFilter::builder().parse(directives)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

/// Lets one line of each kind through a minute: trouble that lasts is told, not repeated.
#[derive(Debug, Default)]
pub struct LogGate(Mutex<HashMap<&'static str, Instant>>);

impl LogGate {
    /// Whether a line of this kind may be written now.
    #[must_use]
    pub fn opens(&self, kind: &'static str) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = last
            .get(kind)
            .is_none_or(|at| at.elapsed() >= Duration::from_secs(60));
        if open {
            last.insert(kind, Instant::now());
        }
        open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_opens_once_a_minute_per_kind() {
        let gate = LogGate::default();
        assert!(gate.opens("forbidden"));
        assert!(!gate.opens("forbidden"));
        assert!(gate.opens("unreachable"));
    }
}
