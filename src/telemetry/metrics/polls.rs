//! The polls under the names that dashboards of controller-runtime know. Here a reconcile is a poll, and the
//! work queue holds the polls that are due.

use super::register::{Series, add, add_by, add_seconds, gauge};
use image_export_core::Census;
use image_export_model::{JobState, Outcome};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{
        counter::Counter,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::{Registry, Unit},
};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

const NAME: &str = "imageexportjob";
const RESULTS: [&str; 4] = ["success", "error", "requeue", "requeue_after"];
/// Upper bounds of buckets for the duration of a poll, in seconds.
const DURATIONS: [f64; 12] = [
    0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0,
];
/// The same for how late it starts.
pub(super) const LAGS: [f64; 13] = [
    0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
];

#[derive(Debug)]
pub(super) struct Polls {
    reconciles: Series<1, Counter>,
    errors: Counter,
    time: Histogram,
    active: Gauge,
    max_active: Gauge,
    depth: Gauge,
    adds: Counter,
    queue_duration: Histogram,
    work_duration: Histogram,
    retries: Counter,
    running: Arc<Running>,
}

impl Polls {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let controller = ("controller".into(), NAME.into());
        let labelled = registry.sub_registry_with_label(controller);
        let r = labelled.sub_registry_with_prefix("controller_runtime");
        let reconciles = add_by(
            r,
            "reconcile",
            "Polls that ended, by result: success where the job has ended, requeue_after where it is polled again \
             later, requeue after throttling, error where the poll failed or was rejected",
            "result",
            RESULTS,
        );
        let errors = add(
            r,
            "reconcile_errors",
            "Polls that failed or were rejected for their credentials, rights or endpoint",
        );
        let time = add_seconds(
            r,
            "reconcile_time",
            "Time from the start of a poll to its outcome, logins included",
            Histogram::new(DURATIONS),
        );
        let active = add(r, "active_workers", "Polls that are running");
        let max_active = add(
            r,
            "max_concurrent_reconciles",
            "Most polls that may run at once",
        );

        let labelled = labelled.sub_registry_with_label(("name".into(), NAME.into()));
        let r = labelled.sub_registry_with_prefix("workqueue");
        let running = Arc::<Running>::default();
        r.register_collector(Box::new(running.clone()));
        Self {
            reconciles,
            errors,
            time,
            active,
            max_active,
            depth: add(
                r,
                "depth",
                "Polls that are due and wait for their quota or for a read of their Secret",
            ),
            adds: add(r, "adds", "Polls that became due"),
            queue_duration: add_seconds(
                r,
                "queue_duration",
                "Time from when a poll is due to its start",
                Histogram::new(LAGS),
            ),
            work_duration: add_seconds(
                r,
                "work_duration",
                "Time from the start of a poll to its outcome, logins included",
                Histogram::new(DURATIONS),
            ),
            retries: add(
                r,
                "retries",
                "Polls that are repeated after a failure or after throttling",
            ),
            running,
        }
    }

    pub(super) fn set_max(&self, polls: usize) {
        self.max_active.set(gauge(polls));
    }

    pub(super) fn update(&self, census: &Census, became_due: u64) {
        self.depth.set(gauge(census.polls_waiting));
        self.adds.inc_by(became_due);
    }

    /// Counts the start of a poll. Returns what [`Polls::end`] needs.
    pub(super) fn start(&self, late: Duration) -> Run {
        self.queue_duration.observe(late.as_secs_f64());
        self.active.inc();
        self.running.start()
    }

    /// Counts the end of a poll, whose outcome is not known where it timed out or panicked. Returns how long it
    /// took.
    pub(super) fn end(&self, run: &Run, outcome: Option<&Outcome>) -> Duration {
        let result = match outcome {
            Some(Outcome::Answered(answer)) => match answer.state {
                JobState::Success | JobState::Fail => "success",
                JobState::Init | JobState::Running | JobState::Unrecognized(_) => "requeue_after",
            },
            Some(Outcome::JobNotFound) => "requeue_after",
            Some(Outcome::Throttled | Outcome::Deferred(_)) => "requeue",
            Some(Outcome::Misconfigured(_) | Outcome::Failed(_)) | None => "error",
        };
        self.reconciles.inc([result]);
        self.errors.inc_by(u64::from(result == "error"));
        let is_misconfigured = matches!(outcome, Some(Outcome::Misconfigured(_)));
        let is_repeated = matches!(result, "requeue" | "error") && !is_misconfigured;
        self.retries.inc_by(u64::from(is_repeated));
        let took = run.took();
        self.time.observe(took.as_secs_f64());
        self.work_duration.observe(took.as_secs_f64());
        self.abandon(run);
        took
    }

    /// A poll runs no longer, and is not counted.
    pub(super) fn abandon(&self, run: &Run) {
        self.active.dec();
        self.running.starts().remove(&run.number);
    }
}

/// A poll that runs.
#[derive(Debug)]
pub(super) struct Run {
    number: u64,
    started: Instant,
}

impl Run {
    pub(super) fn took(&self) -> Duration {
        self.started.elapsed()
    }
}

/// When the running polls started, read with each scrape.
#[derive(Debug, Default)]
struct Running {
    next: AtomicU64,
    starts: Mutex<BTreeMap<u64, Instant>>,
}

impl Running {
    fn start(&self) -> Run {
        let run = Run {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            started: Instant::now(),
        };
        self.starts().insert(run.number, run.started);
        run
    }

    fn starts(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Running {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let (sum, longest) = {
            let starts = self.starts();
            let times = starts.values().map(|start| start.elapsed().as_secs_f64());
            times.fold((0.0, 0.0), |(sum, longest): (f64, f64), time| {
                (sum + time, longest.max(time))
            })
        };
        for (name, help, seconds) in [
            (
                "unfinished_work",
                "Sum of the times for which the running polls have been running.",
                sum,
            ),
            (
                "longest_running_processor",
                "Time for which the longest of the running polls has been running.",
                longest,
            ),
        ] {
            let gauge = ConstGauge::new(seconds);
            let type_ = gauge.metric_type();
            gauge.encode(encoder.encode_descriptor(name, help, Some(&Unit::Seconds), type_)?)?;
        }
        Ok(())
    }
}
