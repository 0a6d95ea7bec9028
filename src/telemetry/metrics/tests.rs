//! What is counted, and how it is exposed.

use super::*;
use crate::contained::failure;
use image_export_model::{
    ConfigurationError, ConfigurationReason, FailureKind, JobAnswer, JobState,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
};
use tokio::time::advance;

fn value(metrics: &Metrics, series: &str) -> String {
    let text = metrics.encode();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = value.unwrap_or_else(|| panic!("{series} in\n{text}"));
    value.to_owned()
}

fn assert_lines(metrics: &Metrics, lines: &[&str]) {
    let text = metrics.encode();
    for line in lines {
        assert!(
            text.lines().any(|found| found == *line),
            "{line} in\n{text}"
        );
    }
}

fn answered(state: JobState) -> Outcome {
    Outcome::Answered(Box::new(JobAnswer {
        state,
        job_type: None,
        image_id: None,
        fail_reason: None,
        error_code: None,
        percent: None,
        begin_time: None,
        end_time: None,
    }))
}

fn failed() -> Outcome {
    Outcome::Failed(failure(FailureKind::Network, "no route".to_owned()))
}

fn rejected() -> Outcome {
    Outcome::Misconfigured(ConfigurationError {
        reason: ConfigurationReason::AccessDenied,
        message: "no".into(),
    })
}

/// A poll that starts so late and takes so long.
async fn poll(metrics: &Arc<Metrics>, late: u64, took: u64, outcome: &Outcome) {
    let running = metrics.poll_started(Duration::from_secs(late));
    advance(Duration::from_secs(took)).await;
    assert_eq!(running.end(outcome, 1).as_secs(), took);
}

#[tokio::test(start_paused = true)]
async fn what_happens_is_counted_by_its_kind() {
    let metrics = Arc::<Metrics>::default();
    poll(&metrics, 0, 0, &answered(JobState::Running)).await;
    poll(&metrics, 7, 3, &answered(JobState::Success)).await;
    metrics.secret_read("usable");
    metrics.wrote("written");
    metrics.deleted("deleted");
    metrics.event("posted");
    metrics.watch_failed("renewed");
    metrics.task_panicked();
    metrics.request(Operation::JobQuery, "success", Duration::from_millis(20));
    metrics.shown(Phase::JobFailed, Some(Duration::from_secs(90)));
    metrics.shown(Phase::DeadlineExceeded, Some(Duration::from_secs(90)));
    metrics.shown(Phase::JobNotFound, None);
    // Neither is an end.
    metrics.shown(Phase::JobNotFoundYet, None);
    metrics.shown(Phase::AccessDenied, None);
    assert_lines(
        &metrics,
        &[
            concat!(
                "imageexport_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"} 1"
            ),
            "imageexport_polls_total{outcome=\"answered\"} 2",
            "imageexport_poll_requests_total 2",
            "imageexport_poll_duration_seconds_sum 3.0",
            "imageexport_poll_duration_seconds_bucket{le=\"0.05\"} 1",
            "imageexport_poll_duration_seconds_bucket{le=\"5.0\"} 2",
            "imageexport_poll_lag_seconds_sum 7.0",
            "imageexport_poll_lag_seconds_bucket{le=\"5.0\"} 1",
            "imageexport_poll_lag_seconds_bucket{le=\"10.0\"} 2",
            "imageexport_secret_reads_total{result=\"usable\"} 1",
            "imageexport_status_writes_total{result=\"written\"} 1",
            "imageexport_deletions_total{result=\"deleted\"} 1",
            "imageexport_events_total{result=\"posted\"} 1",
            "imageexport_watch_errors_total{kind=\"renewed\"} 1",
            "imageexport_task_panics_total 1",
            "imageexport_cloud_requests_total{operation=\"job_query\",class=\"success\"} 1",
            "imageexport_cloud_request_duration_seconds_count{operation=\"job_query\"} 1",
            "imageexport_jobs_ended_total{reason=\"JobFailed\"} 1",
            "imageexport_jobs_ended_total{reason=\"DeadlineExceeded\"} 1",
            "imageexport_jobs_ended_total{reason=\"JobNotFound\"} 1",
            "imageexport_jobs_ended_total{reason=\"JobSucceeded\"} 0",
            "imageexport_job_duration_seconds_sum{reason=\"JobFailed\"} 90.0",
            "imageexport_job_duration_seconds_bucket{le=\"60.0\",reason=\"JobFailed\"} 0",
            "imageexport_job_duration_seconds_bucket{le=\"120.0\",reason=\"JobFailed\"} 1",
            "imageexport_job_duration_seconds_count{reason=\"JobSucceeded\"} 0",
        ],
    );
}

#[tokio::test(start_paused = true)]
async fn polls_are_the_reconciles_of_a_controller() {
    let metrics = Arc::<Metrics>::default();
    metrics.set_max_polls(256);
    let census = Census {
        polls_waiting: 4,
        counters: Counters {
            polls_due: 11,
            ..Counters::default()
        },
        ..Census::default()
    };
    metrics.update(&census, 0);
    metrics.update(&census, 0);
    for (outcome, result) in [
        (answered(JobState::Init), "requeue_after"),
        (answered(JobState::Running), "requeue_after"),
        (
            answered(JobState::Unrecognized("?".into())),
            "requeue_after",
        ),
        (Outcome::JobNotFound, "requeue_after"),
        (answered(JobState::Success), "success"),
        (answered(JobState::Fail), "success"),
        (Outcome::Throttled, "requeue"),
        (failed(), "error"),
        (rejected(), "error"),
    ] {
        let series = format!(
            "controller_runtime_reconcile_total{{controller=\"imageexportjob\",result=\"{result}\"}}"
        );
        let count = || value(&metrics, &series).parse::<u64>().unwrap();
        let before = count();
        poll(&metrics, 2, 1, &outcome).await;
        assert_eq!(count(), before + 1, "{outcome:?}");
    }
    let first = metrics.poll_started(Duration::ZERO);
    advance(Duration::from_secs(2)).await;
    let second = metrics.poll_started(Duration::ZERO);
    advance(Duration::from_secs(3)).await;
    let queue = "{controller=\"imageexportjob\",name=\"imageexportjob\"}";
    let controller = "{controller=\"imageexportjob\"}";
    for (series, expected) in [
        ("controller_runtime_reconcile_errors_total", "2"),
        ("controller_runtime_reconcile_time_seconds_count", "9"),
        ("controller_runtime_reconcile_time_seconds_sum", "9.0"),
        ("controller_runtime_active_workers", "2"),
        ("controller_runtime_max_concurrent_reconciles", "256"),
    ] {
        assert_eq!(
            value(&metrics, &format!("{series}{controller}")),
            expected,
            "{series}"
        );
    }
    for (series, expected) in [
        ("workqueue_depth", "4"),
        ("workqueue_adds_total", "11"),
        ("workqueue_queue_duration_seconds_sum", "18.0"),
        ("workqueue_queue_duration_seconds_count", "11"),
        ("workqueue_work_duration_seconds_sum", "9.0"),
        // Throttling and the failure; what is rejected is polled at its usual pace.
        ("workqueue_retries_total", "2"),
        ("workqueue_unfinished_work_seconds", "8.0"),
        ("workqueue_longest_running_processor_seconds", "5.0"),
    ] {
        assert_eq!(
            value(&metrics, &format!("{series}{queue}")),
            expected,
            "{series}"
        );
    }

    // A task that is dropped has run out of time, or the term in which it was to be of use has ended.
    advance(POLL_TIMEOUT).await;
    drop(first);
    drop(metrics.poll_started(Duration::ZERO));
    let panicked = AssertUnwindSafe(|| {
        let _second = second;
        std::panic::panic_any("a panic");
    });
    assert!(std::panic::catch_unwind(panicked).is_err());
    for (series, expected) in [
        ("imageexport_polls_total{outcome=\"timeout\"}", "1"),
        ("imageexport_polls_total{outcome=\"internal\"}", "1"),
        (
            "controller_runtime_reconcile_errors_total{controller=\"imageexportjob\"}",
            "4",
        ),
        (
            "controller_runtime_active_workers{controller=\"imageexportjob\"}",
            "0",
        ),
    ] {
        assert_eq!(value(&metrics, series), expected, "{series}");
    }
    let unfinished = format!("workqueue_unfinished_work_seconds{queue}");
    assert_eq!(value(&metrics, &unfinished), "0.0");
}

#[test]
fn calls_to_the_api_server_are_counted_from_zero_by_code_method_and_host() {
    let metrics = Metrics::default();
    assert!(
        !metrics.encode().contains("rest_client"),
        "no API server yet"
    );
    let calls = metrics.api_calls("10.96.0.1:443");
    let series = |code: &str, method: &str| {
        format!(
            "rest_client_requests_total{{code=\"{code}\",method=\"{method}\",host=\"10.96.0.1:443\"}}"
        )
    };
    for (code, method) in [
        ("200", "GET"),
        ("201", "POST"),
        ("409", "PATCH"),
        ("<error>", "DELETE"),
    ] {
        assert_eq!(value(&metrics, &series(code, method)), "0");
    }
    calls.count(&http::Method::GET, Some(200));
    calls.clone().count(&http::Method::GET, Some(200));
    calls.count(&http::Method::DELETE, None);
    calls.count(&http::Method::PATCH, Some(418));
    assert_eq!(value(&metrics, &series("200", "GET")), "2");
    assert_eq!(value(&metrics, &series("<error>", "DELETE")), "1");
    assert_eq!(value(&metrics, &series("418", "PATCH")), "1");
}

#[test]
fn who_leads_is_shown_only_with_leader_election() {
    let metrics = Metrics::default();
    let name = "leader_election_master_status";
    assert!(!metrics.encode().contains(name));
    let series = format!("{name}{{name=\"image-export-operator\"}}");
    for (leads, shown) in [(false, "0"), (true, "1"), (false, "0")] {
        metrics.set_leader("image-export-operator", leads);
        assert_eq!(value(&metrics, &series), shown);
    }
}

#[tokio::test(start_paused = true)]
async fn the_age_of_the_watches_is_that_of_the_most_silent_one() {
    let metrics = Metrics::default();
    let age = || value(&metrics, "imageexport_watch_age_seconds");
    assert_eq!(age(), "0.0");
    metrics.watch_seen(Source(0));
    advance(Duration::from_secs(30)).await;
    metrics.watch_seen(Source(1));
    advance(Duration::from_secs(5)).await;
    assert_eq!(age(), "35.0");
    metrics.watch_seen(Source(0));
    assert_eq!(age(), "5.0");
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
            "imageexport_jobs_ended_total{reason=\"ImageIDMissing\"} 0",
            "imageexport_job_duration_seconds_count{reason=\"JobFailed\"} 0",
            "imageexport_cloud_request_duration_seconds_count{operation=\"login\"} 0",
            "imageexport_objects{reason=\"\"} 0",
            "imageexport_objects{reason=\"JobFailed\"} 0",
            "imageexport_credentials{state=\"login_failed\"} 0",
            "imageexport_polls_overdue 0",
            "imageexport_oldest_answer_age_seconds 0.0",
            "imageexport_poll_lag_seconds_count 0",
            "controller_runtime_reconcile_total{controller=\"imageexportjob\",result=\"error\"} 0",
        ],
    );
}

/// Whatever happens, no series comes on top but one for an unusual code of the API server.
#[tokio::test(start_paused = true)]
async fn the_number_of_series_is_bounded() {
    let metrics = Arc::<Metrics>::default();
    let calls = metrics.api_calls("a:443");
    metrics.set_leader("image-export-operator", true);
    let count = || {
        metrics
            .encode()
            .lines()
            .filter(|line| !line.starts_with('#'))
            .count()
    };
    let before = count();
    assert!(before < 600, "{before}");
    for phase in Phase::ALL {
        metrics.shown(*phase, Some(Duration::from_secs(1)));
        let census = Census {
            objects: BTreeMap::from([(phase.row().reason, 1)]),
            ..Census::default()
        };
        metrics.update(&census, 1);
    }
    for outcome in [
        answered(JobState::Unrecognized("made up".into())),
        failed(),
        rejected(),
        Outcome::Throttled,
        Outcome::JobNotFound,
    ] {
        poll(&metrics, 1, 1, &outcome).await;
    }
    for (operation, class) in [
        (Operation::Login, "unauthorized"),
        (Operation::JobQuery, "network"),
    ] {
        metrics.request(operation, class, Duration::ZERO);
    }
    for method in [http::Method::GET, http::Method::PUT, http::Method::DELETE] {
        for status in [Some(200), Some(409), Some(503), None] {
            calls.count(&method, status);
        }
    }
    metrics.watch_seen(Source(0));
    assert_eq!(count(), before, "{}", metrics.encode());
    calls.count(&http::Method::GET, Some(418));
    assert_eq!(count(), before + 1);
}

#[test]
fn each_metric_is_documented() {
    let metrics = Metrics::default();
    metrics.set_leader("image-export-operator", true);
    let _calls = metrics.api_calls("a");
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
        // Those of kube-state-metrics.
        .filter(|name| !name.starts_with("imageexportjob_"))
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
        throttled_buckets: 7,
        counters: Counters {
            contradictions: 7,
            unrecognized: 8,
            dropped_answers: 9,
            repairs: 10,
            polls_due: 0,
        },
        polls_waiting: 0,
        polls_overdue: 12,
        oldest_answer: Duration::from_millis(13_500),
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
            "imageexport_throttled_poll_buckets 7",
            "imageexport_login_breakers_open 11",
            "imageexport_polls_overdue 12",
            "imageexport_oldest_answer_age_seconds 13.5",
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
            "imageexport_objects{reason=\"JobRunning\"} 0",
            "imageexport_login_breakers_open 0",
        ],
    );
    assert_lines(&metrics, &["imageexport_credentials{state=\"usable\"} 0"]);
}
