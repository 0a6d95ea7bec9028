//! Logs to standard error, as text or JSON.

use std::{
    collections::HashMap,
    str::FromStr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// These log at level error what is handled, and reported at a bounded rate, elsewhere: the API client
/// (and a whole answer that it cannot read, which may be a Secret), and the check of certificates.
const QUIET: &str = "kube_client=off,kube_runtime=off,rustls_platform_verifier=off";

/// What is logged: a level for everything, or `target=level` for parts, in a list with commas.
#[derive(Clone, Debug)]
pub struct LogFilter(Targets);

/// A word of a filter that means nothing.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is neither error, warn, info, debug or trace, nor of the form target=level")]
pub struct LogFilterError(String);

impl FromStr for LogFilter {
    type Err = LogFilterError;

    fn from_str(text: &str) -> Result<Self, LogFilterError> {
        // `Targets` would take a misspelt level for a target, and then log nothing else.
        let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
        let is_sound = |word: &&str| match word.split_once('=') {
            Some((target, level)) => !target.is_empty() && is_level(level),
            None => is_level(word),
        };
        let wrong = |word: &str| LogFilterError(word.to_owned());
        if let Some(word) = text.split(',').find(|word| !is_sound(word)) {
            return Err(wrong(word));
        }
        // First, so that whoever names these targets has the last word.
        format!("{QUIET},{text}")
            .parse()
            .map(Self)
            .map_err(|_| wrong(text))
    }
}

/// Starts logging. Call it once.
pub fn init(format: LogFormat, filter: LogFilter) {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        // It logs the other side's certificate at each attempt; our own words say what is wrong with it.
        .with(
            lines.with_filter(
                filter
                    .0
                    .with_target("rustls_platform_verifier", LevelFilter::OFF),
            ),
        )
        .init();
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
    fn a_filter_with_a_misspelt_level_is_refused() {
        for good in [
            "info",
            "TRACE",
            "warn,image_export_operator=debug",
            "a::b=off",
        ] {
            assert!(good.parse::<LogFilter>().is_ok(), "{good}");
        }
        for (wrong, word) in [
            ("loud", "loud"),
            ("", ""),
            ("info,a=loud", "a=loud"),
            ("=info", "=info"),
        ] {
            let error = wrong.parse::<LogFilter>().unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("{word:?} is neither"))
            );
        }
    }

    #[test]
    fn the_gate_opens_once_a_minute_per_kind() {
        let gate = LogGate::default();
        assert!(gate.opens("forbidden"));
        assert!(!gate.opens("forbidden"));
        assert!(gate.opens("unreachable"));
    }
}
