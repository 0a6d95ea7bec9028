//! Counters and gauges. Labels are bounded: no job, project or object ever names a series.
use image_export_cloud::{Observer, Operation};
use image_export_core::{Census, Counters};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Upper bounds of the poll duration buckets, in seconds.
const DURATIONS: [f64; 10] = [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0];

macro_rules! label {
    ($name:ident, $label:ident) => {
        #[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
        struct $name {
            $label: &'static str,
        }
    };
}
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    operation: &'static str,
    class: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Of {
    operation: &'static str,
}

label!(Outcome, outcome);
label!(WriteOutcome, result);
label!(Kind, kind);
label!(Reason, reason);
label!(State, state);

/// All series.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    polls: Family<Outcome, Counter>,
    poll_requests: Counter,
    poll_duration: Histogram,
    requests: Family<Request, Counter>,
    request_duration: Family<Of, Histogram, fn() -> Histogram>,
    credentials: Family<State, Gauge>,
    breakers_open: Gauge,
    paused_buckets: Gauge,
    secret_reads: Family<WriteOutcome, Counter>,
    writes: Family<WriteOutcome, Counter>,
    deletions: Family<WriteOutcome, Counter>,
    events: Family<WriteOutcome, Counter>,
    watch_errors: Family<Kind, Counter>,
    panics: Counter,
    objects: Family<Reason, Gauge>,
    polls_in_flight: Gauge,
    writes_in_flight: Gauge,
    contradictions: Counter,
    unrecognized: Counter,
    dropped_answers: Counter,
    repairs: Counter,
    counted: Mutex<Counters>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("imageexport"),
            polls: Family::default(),
            poll_requests: Counter::default(),
            poll_duration: Histogram::new(DURATIONS),
            requests: Family::default(),
            request_duration: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
            credentials: Family::default(),
            breakers_open: Gauge::default(),
            paused_buckets: Gauge::default(),
            secret_reads: Family::default(),
            writes: Family::default(),
            deletions: Family::default(),
            events: Family::default(),
            watch_errors: Family::default(),
            panics: Counter::default(),
            objects: Family::default(),
            polls_in_flight: Gauge::default(),
            writes_in_flight: Gauge::default(),
            contradictions: Counter::default(),
            unrecognized: Counter::default(),
            dropped_answers: Counter::default(),
            repairs: Counter::default(),
            counted: Mutex::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        self.registry
            .register("build", "Version of the operator", build);
        self.register_cloud();
        self.register_cluster();
    }

    /// What is asked of clouds.
    fn register_cloud(&mut self) {
        let registry = &mut self.registry;
        registry.register("polls", "Polls that ended, by outcome", self.polls.clone());
        registry.register(
            "poll_requests",
            "Requests sent to job query endpoints, repetitions included",
            self.poll_requests.clone(),
        );
        registry.register(
            "poll_duration_seconds",
            "Time from the start of a poll to its outcome, logins included",
            self.poll_duration.clone(),
        );
        registry.register(
            "cloud_requests",
            "HTTP requests to clouds, by operation and class of the answer",
            self.requests.clone(),
        );
        registry.register(
            "cloud_request_duration_seconds",
            "Time from the start of an HTTP request to the end of its answer",
            self.request_duration.clone(),
        );
        registry.register(
            "credentials",
            "Credentials in use, by state",
            self.credentials.clone(),
        );
        registry.register(
            "login_breakers_open",
            "Login identities kept from trying, as the cloud rejected them too often",
            self.breakers_open.clone(),
        );
        registry.register(
            "paused_poll_buckets",
            "Quota buckets that the cloud asked to wait (throttling, Retry-After)",
            self.paused_buckets.clone(),
        );
    }

    /// What is read from and written to the API server, and what objects amount to.
    fn register_cluster(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "secret_reads",
            "Reads of credential Secrets, by result",
            self.secret_reads.clone(),
        );
        registry.register(
            "status_writes",
            "Status writes sent, by result",
            self.writes.clone(),
        );
        registry.register(
            "deletions",
            "Deletions of finished objects sent, by result",
            self.deletions.clone(),
        );
        registry.register(
            "events",
            "Events, by what became of them",
            self.events.clone(),
        );
        registry.register(
            "watch_errors",
            "Failures of watches, by kind",
            self.watch_errors.clone(),
        );
        registry.register(
            "task_panics",
            "Panics that were contained",
            self.panics.clone(),
        );
        registry.register(
            "objects",
            "ImageExportJobs by reason of their Ready condition; empty before the first status",
            self.objects.clone(),
        );
        registry.register(
            "polls_in_flight",
            "Polls sent and not yet answered",
            self.polls_in_flight.clone(),
        );
        registry.register(
            "status_writes_in_flight",
            "Status writes sent and not yet answered",
            self.writes_in_flight.clone(),
        );
        registry.register(
            "contradictory_answers",
            "Answers that contradicted an end or went back, and were not shown",
            self.contradictions.clone(),
        );
        registry.register(
            "unrecognized_statuses",
            "Answers with a status word that is not documented",
            self.unrecognized.clone(),
        );
        registry.register(
            "dropped_answers",
            "Answers dropped because what they were for had changed",
            self.dropped_answers.clone(),
        );
        registry.register(
            "status_repairs",
            "Statuses repaired after somebody's edit",
            self.repairs.clone(),
        );
    }

    /// A poll ended.
    pub fn polled(&self, outcome: &'static str, elapsed: Duration, requests: u32) {
        self.polls.get_or_create(&Outcome { outcome }).inc();
        self.poll_requests.inc_by(requests.into());
        self.poll_duration.observe(elapsed.as_secs_f64());
    }

    /// A Secret was read.
    pub fn secret_read(&self, result: &'static str) {
        self.secret_reads
            .get_or_create(&WriteOutcome { result })
            .inc();
    }

    /// A status write ended.
    pub fn wrote(&self, result: &'static str) {
        self.writes.get_or_create(&WriteOutcome { result }).inc();
    }

    /// A deletion ended.
    pub fn deleted(&self, result: &'static str) {
        self.deletions.get_or_create(&WriteOutcome { result }).inc();
    }

    /// An Event was posted, failed or dropped.
    pub fn event(&self, result: &'static str) {
        self.events.get_or_create(&WriteOutcome { result }).inc();
    }

    /// A watch failed.
    pub fn watch_failed(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&Kind { kind }).inc();
    }

    /// A task panicked.
    pub fn task_panicked(&self) {
        self.panics.inc();
    }

    /// Takes over the figures of the tracker and the number of open breakers.
    pub fn take(&self, census: &Census, breakers_open: usize) {
        self.breakers_open.set(gauge(breakers_open));
        self.paused_buckets.set(gauge(census.paused_buckets));
        self.credentials.clear();
        for (&state, &count) in &census.credentials {
            self.credentials
                .get_or_create(&State { state })
                .set(gauge(count));
        }
        self.objects.clear();
        for (&reason, &count) in &census.objects {
            self.objects
                .get_or_create(&Reason { reason })
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

    /// All series in the `OpenMetrics` text format.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a String does not fail");
        text
    }
}

impl Observer for Metrics {
    fn request(&self, operation: Operation, class: &'static str, took: Duration) {
        let operation = operation.label();
        self.requests
            .get_or_create(&Request { operation, class })
            .inc();
        self.request_duration
            .get_or_create(&Of { operation })
            .observe(took.as_secs_f64());
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
