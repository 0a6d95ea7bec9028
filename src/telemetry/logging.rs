//! Logs to standard error, as text or JSON.

use std::{
    collections::HashMap,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
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

/// Off unless the filter names them: they log what the operator handles, and logs itself at a bounded rate;
/// rustls once for each alert that a server sends. kube's client also logs the whole of an answer that it cannot parse, which may be
/// a Secret.
const QUIET: &str = "kube_client=off,kube_runtime=off,rustls=off";

/// What is logged: a level for everything, or `target=level` for targets that begin with `target`, in
/// a list with commas.
#[derive(Clone, Debug)]
pub struct LogFilter(Targets);

/// An invalid part of a filter.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is neither error, warn, info, debug or trace, nor of the form target=level")]
pub struct LogFilterError(String);

impl FromStr for LogFilter {
    type Err = LogFilterError;

    fn from_str(text: &str) -> Result<Self, LogFilterError> {
        // `Targets` takes a misspelt level for a target, and then logs nothing else.
        let is_level = |part: &str| !part.is_empty() && part.parse::<LevelFilter>().is_ok();
        let is_valid = |part: &&str| match part.split_once('=') {
            Some((target, level)) => !target.is_empty() && is_level(level),
            None => is_level(part),
        };
        let invalid = |part: &str| LogFilterError(part.to_owned());
        if let Some(part) = text.split(',').find(|part| !is_valid(part)) {
            return Err(invalid(part));
        }
        // The last of two directives for one target counts.
        let targets = format!("{QUIET},{text}").parse::<Targets>();
        let targets = targets.map_err(|_| invalid(text))?;
        // It logs the whole certificate at each attempt; the message of the failed request is enough.
        Ok(Self(
            targets.with_target("rustls_platform_verifier", LevelFilter::OFF),
        ))
    }
}

/// Starts logging. Call it once.
pub fn init(format: LogFormat, filter: LogFilter) {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .boxed(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(filter.0))
        .init();
}

/// Lets one line of each kind through per minute.
#[derive(Debug, Default)]
pub struct LogGate(Mutex<HashMap<&'static str, Instant>>);

impl LogGate {
    /// Whether a line of this kind may be logged now.
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

/// Lets so many lines about the objects of one namespace through at once, and then so many a second; of all namespaces
/// together four times as many.
#[derive(Debug)]
pub struct SharedLogQuota {
    at_once: f64,
    per_second: f64,
    all: LogQuota,
    by_namespace: HashMap<Arc<str>, LogQuota>,
    /// With so many namespaces, those that have used nothing lately are dropped.
    prune_at: usize,
}

impl SharedLogQuota {
    /// A quota of which nothing is used.
    #[must_use]
    pub fn new(at_once: f64, per_second: f64) -> Self {
        Self {
            at_once,
            per_second,
            all: LogQuota::new(4.0 * at_once, 4.0 * per_second),
            by_namespace: HashMap::new(),
            prune_at: 64,
        }
    }

    /// Whether one more line about an object of this namespace may be logged.
    pub fn takes(&mut self, namespace: &Arc<str>) -> bool {
        if self.by_namespace.len() >= self.prune_at {
            self.by_namespace.retain(|_, quota| !quota.is_unused());
            self.prune_at = 64.max(2 * self.by_namespace.len());
        }
        let own = self.by_namespace.entry(namespace.clone());
        let own = own.or_insert_with(|| LogQuota::new(self.at_once, self.per_second));
        own.takes() && self.all.takes()
    }
}

/// Lets so many lines through at once, and then so many a second.
#[derive(Debug)]
struct LogQuota {
    per_second: f64,
    at_once: f64,
    left: f64,
    as_of: Instant,
}

impl LogQuota {
    fn new(at_once: f64, per_second: f64) -> Self {
        Self {
            per_second,
            at_once,
            left: at_once,
            as_of: Instant::now(),
        }
    }

    fn refill(&mut self) {
        let gained = self.as_of.elapsed().as_secs_f64() * self.per_second;
        self.as_of = Instant::now();
        self.left = (self.left + gained).min(self.at_once);
    }

    fn is_unused(&mut self) -> bool {
        self.refill();
        self.left >= self.at_once
    }

    fn takes(&mut self) -> bool {
        self.refill();
        let takes = self.left >= 1.0;
        if takes {
            self.left -= 1.0;
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_with_a_misspelt_level_is_invalid() {
        for valid in ["info", "TRACE", "warn,image_export=debug", "a::b=off"] {
            assert!(valid.parse::<LogFilter>().is_ok(), "{valid}");
        }
        for (invalid, part) in [
            ("loud", "loud"),
            ("", ""),
            ("info,a=loud", "a=loud"),
            ("=info", "=info"),
        ] {
            let error = invalid.parse::<LogFilter>().unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("{part:?} is neither"))
            );
        }
    }

    #[test]
    fn kube_and_the_verifier_of_certificates_are_quiet_unless_named() {
        let enabled = |filter: &str, target: &str| {
            let filter: LogFilter = filter.parse().unwrap();
            filter.0.would_enable(target, &tracing::Level::ERROR)
        };
        for target in ["kube_client", "kube_runtime", "rustls_platform_verifier"] {
            assert!(!enabled("trace", target), "{target}");
        }
        assert!(enabled("trace,kube_client=debug", "kube_client"));
        assert!(!enabled(
            "trace,rustls_platform_verifier=trace",
            "rustls_platform_verifier"
        ));
        assert!(enabled("error", "image_export_operator"));
        assert!(!enabled("info,image_export=off", "image_export_operator"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_gate_opens_once_a_minute_per_kind() {
        let gate = LogGate::default();
        assert!(gate.opens("forbidden"));
        assert!(!gate.opens("forbidden"));
        assert!(gate.opens("unreachable"));
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(!gate.opens("forbidden"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(gate.opens("forbidden"));
        assert!(!gate.opens("forbidden"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_quota_lets_some_lines_through_at_once_and_then_so_many_a_second() {
        let mut quota = LogQuota::new(3.0, 0.5);
        let mut lines = |of: usize| (0..of).filter(|_| quota.takes()).count();
        assert_eq!(lines(9), 3);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(lines(9), 1);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(lines(9), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn one_namespace_leaves_lines_to_others() {
        let mut quota = SharedLogQuota::new(2.0, 1.0);
        let mut lines =
            |namespace: &str, of: usize| (0..of).filter(|_| quota.takes(&namespace.into())).count();
        assert_eq!((lines("noisy", 99), lines("quiet", 1)), (2, 1));
        // All together have no more than the quota.
        let others = (0..9).map(|n| lines(&format!("ns-{n}"), 2)).sum::<usize>();
        assert_eq!(others, 5);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((lines("noisy", 99), lines("quiet", 1)), (1, 1));
        // Namespaces that log nothing any more are forgotten.
        for n in 0..1000 {
            lines(&format!("passing-{n}"), 1);
            tokio::time::advance(Duration::from_secs(10)).await;
        }
        assert!(quota.by_namespace.len() <= 64);
    }
}
