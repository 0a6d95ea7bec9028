//! Counters and gauges. Labels are bounded: no label names a job, project or object.

use super::{
    labels::{
        CLASSES, CREDENTIALS, DELETED, EVENTS, NO_CHANGES, OUTCOMES, SECRET_READS, WATCH_ERRORS,
        WRITTEN,
    },
    process::Process,
};
use image_export_cloud::{Observer, Operation};
use image_export_core::{Census, Counters};
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Metric, Registry},
};
use std::{
    iter::once,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Upper bounds of the histograms' buckets, in seconds.
const DURATIONS: [f64; 10] = [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0];

/// `N` labels, each a name and a value.
type Labels<const N: usize> = [(&'static str, &'static str); N];

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    polls: Family<Labels<1>, Counter>,
    poll_requests: Counter,
    poll_duration: Histogram,
    requests: Family<Labels<2>, Counter>,
    request_duration: Family<Labels<1>, Histogram, fn() -> Histogram>,
    credentials: Family<Labels<1>, Gauge>,
    breakers_open: Gauge,
    paused_buckets: Gauge,
    secret_reads: Family<Labels<1>, Counter>,
    writes: Family<Labels<1>, Counter>,
    deletions: Family<Labels<1>, Counter>,
    events: Family<Labels<1>, Counter>,
    watch_errors: Family<Labels<1>, Counter>,
    panics: Counter,
    objects: Family<Labels<1>, Gauge>,
    polls_in_flight: Gauge,
    writes_in_flight: Gauge,
    contradictions: Counter,
    unrecognized: Counter,
    dropped_answers: Counter,
    repairs: Counter,
    /// The tracker's counters as of the last update.
    counted: Mutex<Counters>,
}

/// Registers a metric and returns it.
fn add<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    add_metric(registry, name, help, M::default())
}

/// The same for a counter with one label, of which these values are counted from the start.
fn add_by(
    registry: &mut Registry,
    name: &str,
    help: &str,
    label: &'static str,
    values: impl IntoIterator<Item = &'static str>,
) -> Family<Labels<1>, Counter> {
    let family: Family<Labels<1>, Counter> = add(registry, name, help);
    for value in values {
        drop(family.get_or_create(&[(label, value)]));
    }
    family
}

fn add_requests(registry: &mut Registry, name: &str, help: &str) -> Family<Labels<2>, Counter> {
    let family: Family<Labels<2>, Counter> = add(registry, name, help);
    for operation in [Operation::Login, Operation::JobQuery] {
        for class in CLASSES {
            let labels = [("operation", operation.label()), ("class", class)];
            drop(family.get_or_create(&labels));
        }
    }
    family
}

fn add_metric<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

impl Default for Metrics {
    #[allow(clippy::too_many_lines)] // an entry for each metric
    fn default() -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process::new()));
        let r = registry.sub_registry_with_prefix("imageexport");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        r.register("build", "Version of the operator", build);
        Self {
            polls: add_by(
                r,
                "polls",
                "Polls that ended, by outcome",
                "outcome",
                OUTCOMES,
            ),
            poll_requests: add(
                r,
                "poll_requests",
                "Requests sent to job query endpoints, repetitions included",
            ),
            poll_duration: add_metric(
                r,
                "poll_duration_seconds",
                "Time from the start of a poll to its outcome, logins included",
                Histogram::new(DURATIONS),
            ),
            requests: add_requests(
                r,
                "cloud_requests",
                "HTTP requests to clouds, by operation and class of the answer",
            ),
            request_duration: add_metric(
                r,
                "cloud_request_duration_seconds",
                "Time from the start of an HTTP request to the end of its answer",
                Family::new_with_constructor(|| Histogram::new(DURATIONS)),
            ),
            credentials: add(r, "credentials", "Credentials in use, by state"),
            breakers_open: add(
                r,
                "login_breakers_open",
                "Login identities whose circuit breaker is open after too many rejected logins",
            ),
            paused_buckets: add(
                r,
                "paused_poll_buckets",
                "Quota buckets that throttling or Retry-After pauses",
            ),
            secret_reads: add_by(
                r,
                "secret_reads",
                "Reads of credential Secrets, by result",
                "result",
                SECRET_READS,
            ),
            writes: add_by(
                r,
                "status_writes",
                "Status writes sent, by result",
                "result",
                once(WRITTEN).chain(NO_CHANGES),
            ),
            deletions: add_by(
                r,
                "deletions",
                "Deletions of finished objects sent, by result",
                "result",
                once(DELETED).chain(NO_CHANGES),
            ),
            events: add_by(
                r,
                "events",
                "Kubernetes Events, by result",
                "result",
                EVENTS,
            ),
            watch_errors: add_by(
                r,
                "watch_errors",
                "Failures of watches, by kind",
                "kind",
                WATCH_ERRORS,
            ),
            panics: add(r, "task_panics", "Panics of tasks, each caught"),
            objects: add(
                r,
                "objects",
                "ImageExportJobs by reason of their Ready condition; empty before the first status",
            ),
            polls_in_flight: add(r, "polls_in_flight", "Polls sent and not yet answered"),
            writes_in_flight: add(
                r,
                "status_writes_in_flight",
                "Status writes sent and not yet answered",
            ),
            contradictions: add(
                r,
                "contradictory_answers",
                "Answers not shown because they contradict a final status or go back to INIT",
            ),
            unrecognized: add(
                r,
                "unrecognized_statuses",
                "Answers with an undocumented job status",
            ),
            dropped_answers: add(
                r,
                "dropped_answers",
                "Answers dropped because the object, its credentials or the leadership had changed",
            ),
            repairs: add(
                r,
                "status_repairs",
                "Statuses repaired after an edit by another client",
            ),
            counted: Mutex::default(),
            registry,
        }
    }
}

impl Metrics {
    /// A poll ended.
    pub fn polled(&self, outcome: &'static str, elapsed: Duration, requests: u32) {
        debug_assert!(OUTCOMES.contains(&outcome), "{outcome}");
        self.polls.get_or_create(&[("outcome", outcome)]).inc();
        self.poll_requests.inc_by(requests.into());
        self.poll_duration.observe(elapsed.as_secs_f64());
    }

    /// A Secret was read.
    pub fn secret_read(&self, result: &'static str) {
        debug_assert!(SECRET_READS.contains(&result), "{result}");
        self.secret_reads.get_or_create(&[("result", result)]).inc();
    }

    /// A status write ended.
    pub fn wrote(&self, result: &'static str) {
        debug_assert!(
            result == WRITTEN || NO_CHANGES.contains(&result),
            "{result}"
        );
        self.writes.get_or_create(&[("result", result)]).inc();
    }

    /// A deletion ended.
    pub fn deleted(&self, result: &'static str) {
        debug_assert!(
            result == DELETED || NO_CHANGES.contains(&result),
            "{result}"
        );
        self.deletions.get_or_create(&[("result", result)]).inc();
    }

    /// An Event was posted, failed or dropped.
    pub fn event(&self, result: &'static str) {
        debug_assert!(EVENTS.contains(&result), "{result}");
        self.events.get_or_create(&[("result", result)]).inc();
    }

    /// A watch failed.
    pub fn watch_failed(&self, kind: &'static str) {
        debug_assert!(WATCH_ERRORS.contains(&kind), "{kind}");
        self.watch_errors.get_or_create(&[("kind", kind)]).inc();
    }

    /// A task panicked.
    pub fn task_panicked(&self) {
        self.panics.inc();
    }

    /// Updates the gauges, and the counters that the tracker keeps.
    pub fn update(&self, census: &Census, breakers_open: usize) {
        self.breakers_open.set(gauge(breakers_open));
        self.paused_buckets.set(gauge(census.paused_buckets));
        for state in CREDENTIALS {
            let count = census.credentials.get(state).copied().unwrap_or_default();
            self.credentials
                .get_or_create(&[("state", state)])
                .set(gauge(count));
        }
        self.objects.clear();
        for (&reason, &count) in &census.objects {
            self.objects
                .get_or_create(&[("reason", reason)])
                .set(gauge(count));
        }
        self.polls_in_flight.set(gauge(census.polls_in_flight));
        self.writes_in_flight.set(gauge(census.writes_in_flight));
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, after) = (*counted, census.counters);
        self.contradictions
            .inc_by(after.contradictions - before.contradictions);
        self.unrecognized
            .inc_by(after.unrecognized - before.unrecognized);
        self.dropped_answers
            .inc_by(after.dropped_answers - before.dropped_answers);
        self.repairs.inc_by(after.repairs - before.repairs);
        *counted = after;
    }

    /// All metrics, as `OpenMetrics`.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a String does not fail");
        text
    }
}

impl Observer for Metrics {
    fn request(&self, operation: Operation, class: &'static str, took: Duration) {
        debug_assert!(CLASSES.contains(&class), "{class}");
        let operation = operation.label();
        self.requests
            .get_or_create(&[("operation", operation), ("class", class)])
            .inc();
        self.request_duration
            .get_or_create(&[("operation", operation)])
            .observe(took.as_secs_f64());
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn assert_lines(metrics: &Metrics, lines: &[&str]) {
        let text = metrics.encode();
        for line in lines {
            assert!(
                text.lines().any(|found| found == *line),
                "{line} in\n{text}"
            );
        }
    }

    #[test]
    fn what_happens_is_counted_by_its_kind() {
        let metrics = Metrics::default();
        metrics.polled("answered", Duration::from_millis(40), 2);
        metrics.polled("answered", Duration::from_secs(3), 1);
        metrics.secret_read("usable");
        metrics.wrote("written");
        metrics.deleted("deleted");
        metrics.event("posted");
        metrics.watch_failed("renewed");
        metrics.task_panicked();
        metrics.request(Operation::JobQuery, "success", Duration::from_millis(20));
        assert_lines(
            &metrics,
            &[
                concat!(
                    "imageexport_build_info{version=\"",
                    env!("CARGO_PKG_VERSION"),
                    "\"} 1"
                ),
                "imageexport_polls_total{outcome=\"answered\"} 2",
                "imageexport_poll_requests_total 3",
                "imageexport_poll_duration_seconds_sum 3.04",
                "imageexport_poll_duration_seconds_bucket{le=\"0.05\"} 1",
                "imageexport_poll_duration_seconds_bucket{le=\"5.0\"} 2",
                "imageexport_secret_reads_total{result=\"usable\"} 1",
                "imageexport_status_writes_total{result=\"written\"} 1",
                "imageexport_deletions_total{result=\"deleted\"} 1",
                "imageexport_events_total{result=\"posted\"} 1",
                "imageexport_watch_errors_total{kind=\"renewed\"} 1",
                "imageexport_task_panics_total 1",
            ],
        );
        let text = metrics.encode();
        for name in ["requests_total", "request_duration_seconds_count"] {
            let lines = text
                .lines()
                .filter(|line| line.contains(name) && line.ends_with(" 1"));
            assert_eq!(lines.count(), 1, "{name} in\n{text}");
        }
    }

    /// A rate sees no first event of a series that begins with it.
    #[test]
    fn all_that_is_counted_is_zero_from_the_start() {
        assert_lines(
            &Metrics::default(),
            &[
                "imageexport_polls_total{outcome=\"http_error\"} 0",
                "imageexport_secret_reads_total{result=\"failed\"} 0",
                "imageexport_status_writes_total{result=\"refused\"} 0",
                "imageexport_deletions_total{result=\"conflict\"} 0",
                "imageexport_events_total{result=\"dropped\"} 0",
                "imageexport_watch_errors_total{kind=\"crd_missing\"} 0",
                "imageexport_cloud_requests_total{operation=\"login\",class=\"unauthorized\"} 0",
                "imageexport_task_panics_total 0",
            ],
        );
    }

    #[test]
    fn each_metric_is_documented() {
        let metrics = Metrics::default();
        let census = Census {
            objects: BTreeMap::from([("JobRunning", 1)]),
            ..Census::default()
        };
        metrics.update(&census, 0);
        metrics.request(Operation::Login, "success", Duration::ZERO);
        let exposed = super::super::exposition::to_prometheus(&metrics.encode());
        let names = exposed
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "));
        let names: BTreeSet<&str> = names.filter_map(|line| line.split(' ').next()).collect();
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/monitoring.md");
        let page = std::fs::read_to_string(page).unwrap();
        let documented = page.lines().filter_map(|line| line.strip_prefix("| `"));
        let documented: BTreeSet<&str> = documented
            .filter_map(|line| line.split('`').next())
            .collect();
        assert_eq!(names, documented);
    }

    #[test]
    fn the_process_shows_itself_as_other_programs_do() {
        let text = Metrics::default().encode();
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_virtual_memory_bytes",
            "process_open_fds",
            "process_max_fds",
            "process_start_time_seconds",
        ] {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let value = line.unwrap_or_else(|| panic!("{name} in\n{text}"));
            assert!(
                value.trim().parse::<f64>().is_ok_and(|value| value >= 0.0),
                "{value}"
            );
        }
    }

    #[test]
    fn gauges_and_the_trackers_counters_show_the_latest_census() {
        let metrics = Metrics::default();
        let mut census = Census {
            objects: BTreeMap::from([("JobRunning", 2), ("", 1)]),
            polls_in_flight: 3,
            writes_in_flight: 4,
            credentials: BTreeMap::from([("usable", 5)]),
            paused_buckets: 6,
            counters: Counters {
                contradictions: 7,
                unrecognized: 8,
                dropped_answers: 9,
                repairs: 10,
            },
            ..Census::default()
        };
        metrics.update(&census, 11);
        let counters = [
            "imageexport_contradictory_answers_total 7",
            "imageexport_unrecognized_statuses_total 8",
            "imageexport_dropped_answers_total 9",
            "imageexport_status_repairs_total 10",
        ];
        assert_lines(&metrics, &counters);
        assert_lines(
            &metrics,
            &[
                "imageexport_objects{reason=\"JobRunning\"} 2",
                "imageexport_objects{reason=\"\"} 1",
                "imageexport_polls_in_flight 3",
                "imageexport_status_writes_in_flight 4",
                "imageexport_credentials{state=\"usable\"} 5",
                "imageexport_paused_poll_buckets 6",
                "imageexport_login_breakers_open 11",
            ],
        );
        census.objects = BTreeMap::from([("JobSucceeded", 2)]);
        census.credentials.clear();
        census.counters.repairs += 1;
        metrics.update(&census, 0);
        assert_lines(&metrics, &counters[..3]);
        assert_lines(
            &metrics,
            &[
                "imageexport_status_repairs_total 11",
                "imageexport_objects{reason=\"JobSucceeded\"} 2",
                "imageexport_login_breakers_open 0",
            ],
        );
        assert_lines(&metrics, &["imageexport_credentials{state=\"usable\"} 0"]);
        let text = metrics.encode();
        assert!(!text.contains("JobRunning"), "{text}");
    }
}
