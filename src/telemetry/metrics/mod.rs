//! Counters, gauges and histograms. Labels are bounded: no label names a job, project or object.

mod api_server;
mod polls;
mod register;
#[cfg(test)]
mod tests;

use super::{
    labels::{
        CLASSES, CREDENTIALS, DELETED, ENDS, EVENTS, NO_CHANGES, OUTCOMES, SECRET_READS,
        TIMED_ENDS, WATCH_ERRORS, WRITTEN,
    },
    process::Process,
};
pub use api_server::ApiCalls;
use api_server::{Calls, Watches};
use image_export_cloud::{Observer, Operation, POLL_TIMEOUT};
use image_export_core::{Census, Counters, Source, phase::Phase};
use image_export_model::Outcome;
use polls::{LAGS, Polls, Run};
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};
use register::{
    Labels, Seconds, Series, add, add_by, add_requests, add_seconds, add_seconds_by, gauge,
};
use std::{
    iter::once,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Upper bounds of buckets for requests and polls, in seconds.
const DURATIONS: [f64; 10] = [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0];
/// The same for jobs: from a minute to a day.
const JOB_DURATIONS: [f64; 12] = [
    60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14_400.0, 28_800.0, 43_200.0,
    86_400.0,
];

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    outcomes: Series<1, Counter>,
    poll_requests: Counter,
    poll_duration: Histogram,
    poll_lag: Histogram,
    polls_overdue: Gauge,
    oldest_answer: Seconds,
    jobs_ended: Series<1, Counter>,
    job_duration: Series<1, Histogram>,
    requests: Series<2, Counter>,
    request_duration: Series<1, Histogram>,
    credentials: Family<Labels<1>, Gauge>,
    breakers_open: Gauge,
    paused_buckets: Gauge,
    throttled_buckets: Gauge,
    secret_reads: Series<1, Counter>,
    writes: Series<1, Counter>,
    deletions: Series<1, Counter>,
    events: Series<1, Counter>,
    watch_errors: Series<1, Counter>,
    panics: Counter,
    objects: Family<Labels<1>, Gauge>,
    polls_in_flight: Gauge,
    writes_in_flight: Gauge,
    contradictions: Counter,
    unrecognized: Counter,
    dropped_answers: Counter,
    repairs: Counter,
    /// The same polls under the names of controller-runtime.
    polls: Polls,
    watches: Arc<Watches>,
    api_calls: Calls,
    leader: Family<[(&'static str, String); 1], Gauge>,
    /// The tracker's counters as of the last update.
    counted: Mutex<Counters>,
}

impl Default for Metrics {
    #[allow(clippy::too_many_lines)] // an entry for each metric
    fn default() -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process::new()));
        let polls = Polls::new(&mut registry);
        let api_calls = ApiCalls::register(&mut registry);
        let leader = add(
            &mut registry,
            "leader_election_master_status",
            "Whether this process leads: 1, or 0 on a standby; absent without leader election",
        );
        let watches = Arc::<Watches>::default();
        let r = registry.sub_registry_with_prefix("imageexport");
        r.register_collector(Box::new(watches.clone()));
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        r.register("build", "Version of the operator", build);
        let metrics = Self {
            outcomes: add_by(
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
            poll_duration: add_seconds(
                r,
                "poll_duration",
                "Time from the start of a poll to its outcome, logins included",
                Histogram::new(DURATIONS),
            ),
            poll_lag: add_seconds(
                r,
                "poll_lag",
                "Time from when a poll is due to its start",
                Histogram::new(LAGS),
            ),
            polls_overdue: add(
                r,
                "polls_overdue",
                "Unfinished objects whose poll is overdue by more than their period and than five minutes",
            ),
            oldest_answer: add_seconds(
                r,
                "oldest_answer_age",
                "Longest time since the cloud reported a job, of the unfinished objects of which it is to report",
                Seconds::default(),
            ),
            jobs_ended: add_by(
                r,
                "jobs_ended",
                "Objects that came to show an end, by reason",
                "reason",
                ENDS.map(|phase| phase.row().reason),
            ),
            job_duration: add_seconds_by(
                r,
                "job_duration",
                "Time from the begin of a job to its end, as the cloud reports them, by reason",
                "reason",
                TIMED_ENDS.map(|phase| phase.row().reason),
                || Histogram::new(JOB_DURATIONS),
            ),
            requests: add_requests(
                r,
                "cloud_requests",
                "HTTP requests to clouds, by operation and class of the answer",
                &CLASSES,
            ),
            request_duration: add_seconds_by(
                r,
                "cloud_request_duration",
                "Time from the start of an HTTP request to the end of its answer, by operation",
                "operation",
                [Operation::Login, Operation::JobQuery].map(Operation::label),
                || Histogram::new(DURATIONS),
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
            throttled_buckets: add(
                r,
                "throttled_poll_buckets",
                "Quota buckets that use less than --polls-per-second, since the cloud throttled them",
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
            polls,
            watches,
            api_calls,
            leader,
            registry,
        };
        metrics.update(&Census::default(), 0);
        metrics
    }
}

impl Metrics {
    /// A poll starts so long after it was due.
    pub fn poll_started(self: &Arc<Self>, late: Duration) -> RunningPoll {
        self.poll_lag.observe(late.as_secs_f64());
        RunningPoll {
            run: Some(self.polls.start(late)),
            metrics: self.clone(),
        }
    }

    fn poll_ended(
        &self,
        run: &Run,
        outcome: Option<&Outcome>,
        label: &'static str,
        requests: u32,
    ) -> Duration {
        let took = self.polls.end(run, outcome);
        self.outcomes.inc([label]);
        self.poll_requests.inc_by(requests.into());
        self.poll_duration.observe(took.as_secs_f64());
        took
    }

    /// How many polls may run at once.
    pub fn set_max_polls(&self, polls: usize) {
        self.polls.set_max(polls);
    }

    /// An object came to show a phase, which is counted if it is an end. `took`: from the begin of its job to its
    /// end.
    pub fn shown(&self, phase: Phase, took: Option<Duration>) {
        let reason = [phase.row().reason];
        if ENDS.contains(&phase) {
            self.jobs_ended.inc(reason);
        }
        if let Some(took) = took.filter(|_| TIMED_ENDS.contains(&phase)) {
            self.job_duration.observe(reason, took.as_secs_f64());
        }
    }

    /// The API server sent something on this watch, or it starts.
    pub fn watch_seen(&self, source: Source) {
        self.watches.seen(source);
    }

    /// Counts the calls to the API server at this host.
    #[must_use]
    pub fn api_calls(&self, host: &str) -> ApiCalls {
        ApiCalls::new(self.api_calls.clone(), host)
    }

    /// Whether this process leads, by the Lease of this name. Not called without leader election.
    pub fn set_leader(&self, lease: &str, leading: bool) {
        self.leader
            .get_or_create(&[("name", lease.to_owned())])
            .set(leading.into());
    }

    /// A Secret was read.
    pub fn secret_read(&self, result: &'static str) {
        self.secret_reads.inc([result]);
    }

    /// A status write ended.
    pub fn wrote(&self, result: &'static str) {
        self.writes.inc([result]);
    }

    /// A deletion ended.
    pub fn deleted(&self, result: &'static str) {
        self.deletions.inc([result]);
    }

    /// An Event was posted, failed or dropped.
    pub fn event(&self, result: &'static str) {
        self.events.inc([result]);
    }

    /// A watch failed.
    pub fn watch_failed(&self, kind: &'static str) {
        self.watch_errors.inc([kind]);
    }

    /// A task panicked.
    pub fn task_panicked(&self) {
        self.panics.inc();
    }

    /// Updates the gauges, and the counters that the tracker keeps.
    pub fn update(&self, census: &Census, breakers_open: usize) {
        self.breakers_open.set(gauge(breakers_open));
        self.paused_buckets.set(gauge(census.paused_buckets));
        self.throttled_buckets.set(gauge(census.throttled_buckets));
        self.polls_overdue.set(gauge(census.polls_overdue));
        self.oldest_answer.set(census.oldest_answer.as_secs_f64());
        for state in CREDENTIALS {
            let count = census.credentials.get(state).copied().unwrap_or_default();
            self.credentials
                .get_or_create(&[("state", state)])
                .set(gauge(count));
        }
        for reason in once("").chain(Phase::ALL.iter().map(|phase| phase.row().reason)) {
            let count = census.objects.get(reason).copied().unwrap_or_default();
            self.objects
                .get_or_create(&[("reason", reason)])
                .set(gauge(count));
        }
        self.polls_in_flight.set(gauge(census.polls_in_flight));
        self.writes_in_flight.set(gauge(census.writes_in_flight));
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, after) = (*counted, census.counters);
        self.polls
            .update(census, after.polls_due - before.polls_due);
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

/// A poll that runs. One that is dropped before its outcome is known has timed out or panicked.
#[derive(Debug)]
#[must_use]
pub struct RunningPoll {
    /// Taken at the end.
    run: Option<Run>,
    metrics: Arc<Metrics>,
}

impl RunningPoll {
    /// The poll ended. Returns how long it took.
    #[must_use]
    pub fn end(mut self, outcome: &Outcome, requests: u32) -> Duration {
        let run = self.run.take();
        run.map_or(Duration::ZERO, |run| {
            let label = outcome.category();
            self.metrics
                .poll_ended(&run, Some(outcome), label, requests)
        })
    }
}

impl Drop for RunningPoll {
    fn drop(&mut self) {
        if let Some(run) = self.run.take() {
            let label = if std::thread::panicking() {
                "internal"
            } else if run.took() >= POLL_TIMEOUT {
                "timeout"
            } else {
                // This process leads no longer: nobody waits for the outcome.
                return self.metrics.polls.abandon(&run);
            };
            self.metrics.poll_ended(&run, None, label, 0);
        }
    }
}

impl Observer for Metrics {
    fn request(&self, operation: Operation, class: &'static str, took: Duration) {
        let operation = operation.label();
        self.requests.inc([operation, class]);
        self.request_duration
            .observe([operation], took.as_secs_f64());
    }
}
