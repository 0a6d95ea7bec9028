//! The interfaces for users and their tools: `kubectl wait`, Events, probes, metrics.

use crate::harness::{PATIENCE, PROJECT, Team, assert_met, key};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use testbed::ims::{Answer, End, Job, Start};

/// The waits of the README: for success, for failure, for either.
pub const SUCCESS: [&str; 2] = ["--for=condition=Ready", "--timeout=10m"];
pub const FAILURE: [&str; 2] = ["--for=condition=Succeeded=False", "--timeout=10m"];
pub const EITHER: [&str; 2] = ["--for=jsonpath={.status.completionTime}", "--timeout=10m"];

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_began_before_the_operator_returns_at_the_end_and_not_before() {
    let mut team = Team::without_operator("wait").await;
    for name in ["good", "bad"] {
        team.follow(Job::new(PROJECT, name).ends(End::Never)).await;
    }
    let waits = [
        team.kubectl_wait("good", &SUCCESS),
        team.kubectl_wait("good", &EITHER),
        team.kubectl_wait("bad", &FAILURE),
        team.kubectl_wait("bad", &EITHER),
    ];
    let none_has_returned = || waits.iter().all(|wait| !wait.is_finished());

    team.start_operator();
    for name in ["good", "bad"] {
        team.until_reason(name, "JobRunning").await;
        team.sim.polled(&key(name), 5).await;
    }
    for (arguments, name) in [(SUCCESS, "good"), (FAILURE, "bad"), (EITHER, "good")] {
        let output = team
            .kubectl_wait(name, &[arguments[0], "--timeout=1s"])
            .await
            .expect("no panic");
        assert!(!output.status.success());
        assert!(output.stderr.contains("timed out"), "{}", output.stderr);
    }
    assert!(none_has_returned());

    team.sim.put_job(Job::new(PROJECT, "good"));
    team.sim
        .put_job(Job::new(PROJECT, "bad").fails("IMG.0148", "No bucket."));
    for wait in waits {
        assert_met(wait, "from before the start").await;
    }
    // For a job that has ended they return at once.
    for (name, arguments) in [
        ("good", SUCCESS),
        ("good", EITHER),
        ("bad", FAILURE),
        ("bad", EITHER),
    ] {
        assert_met(team.kubectl_wait(name, &arguments), name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_trouble_and_its_end_publish_one_event_each_with_the_message_of_the_condition() {
    let mut team = Team::start("events").await;
    let moment = Duration::from_millis(700);
    team.follow(
        Job::new(PROJECT, "good")
            .starts(Start::FirstQuery)
            .init_for(moment)
            .running_for(moment),
    )
    .await;
    team.follow(Job::new(PROJECT, "bad").fails("IMG.0148", "No bucket."))
        .await;
    team.follow(Job::new(PROJECT, "open").ends(End::Never))
        .await;
    let good = team.until_reason("good", "JobSucceeded").await;
    let bad = team.until_reason("bad", "JobFailed").await;
    team.until_reason("open", "JobRunning").await;
    team.sim
        .script_forever(key("open"), Answer::preset("img-0026"));
    let denied = team.until_reason("open", "AccessDenied").await;
    team.sim.clear_script(key("open"));
    team.request_poll("open", "1").await;
    let open = team.until_reason("open", "JobRunning").await;
    for (name, event) in [
        ("good", "Normal JobSucceeded: "),
        ("bad", "Warning JobFailed: "),
        ("open", "Normal JobRunning: "),
    ] {
        team.until_event(name, event).await;
    }

    let reasons_logged = |name: &str| -> Vec<String> {
        let object = format!("{}/{name}", team.namespace);
        let log = team.operator().log();
        let lines = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let lines = lines.filter(|line| {
            line["target"] == "image_export_operator::controller::transitions"
                && line["object"] == object
        });
        lines
            .map(|line| {
                assert_eq!(line["level"], "INFO", "{line}");
                let reason = line["reason"].as_str().expect("a reason");
                format!("{reason}: {}", line["message"].as_str().expect("a message"))
            })
            .collect()
    };
    let line = |reason: &str, status: &image_export_api::ImageExportJobStatus| {
        format!("{reason}: {}", status.conditions[0].message)
    };
    for (name, expected) in [
        ("good", vec![line("JobSucceeded", &good)]),
        ("bad", vec![line("JobFailed", &bad)]),
        (
            "open",
            vec![line("AccessDenied", &denied), line("JobRunning", &open)],
        ),
    ] {
        assert_eq!(reasons_logged(name), expected);
    }

    // A restart repeats none; events are posted in order, so the last one follows any repetition.
    team.operator().kill();
    team.sim.put_job(Job::new(PROJECT, "open"));
    team.start_operator();
    let done = team.until_reason("open", "JobSucceeded").await;
    team.until_event("open", "Normal JobSucceeded: ").await;
    let message =
        |status: &image_export_api::ImageExportJobStatus| status.conditions[0].message.clone();
    for (name, expected) in [
        (
            "good",
            vec![format!("Normal JobSucceeded: {}", message(&good))],
        ),
        ("bad", vec![format!("Warning JobFailed: {}", message(&bad))]),
        (
            "open",
            vec![
                format!("Warning AccessDenied: {}", message(&denied)),
                format!("Normal JobRunning: {}", message(&open)),
                format!("Normal JobSucceeded: {}", message(&done)),
            ],
        ),
    ] {
        assert_eq!(team.events(name).await, expected);
    }

    let table = team
        .kubectl(&["events", "--for=imageexportjob/bad", "--no-headers"])
        .success()
        .expect("events");
    let lines: Vec<_> = table.lines().filter(|l| l.contains("JobFailed")).collect();
    assert_eq!(lines.len(), 1, "{table}");
    for cell in ["Warning", "ImageExportJob/bad", "No bucket"] {
        assert!(lines[0].contains(cell), "{cell} in {table}");
    }
}

/// What is shown when two jobs have succeeded and one has failed.
const EXACTLY: &[(&str, f64)] = &[
    (r#"imageexport_objects{reason="JobSucceeded"}"#, 2.0),
    (r#"imageexport_objects{reason="JobFailed"}"#, 1.0),
    (r#"imageexport_polls_total{outcome="answered"}"#, 3.0),
    (r#"imageexport_credentials{state="usable"}"#, 1.0),
    ("imageexport_login_breakers_open", 0.0),
    ("imageexport_paused_poll_buckets", 0.0),
    ("imageexport_throttled_poll_buckets", 0.0),
    ("imageexport_polls_in_flight", 0.0),
    ("imageexport_status_writes_in_flight", 0.0),
    ("imageexport_task_panics_total", 0.0),
    ("imageexport_contradictory_answers_total", 0.0),
    ("imageexport_unrecognized_statuses_total", 0.0),
    ("imageexport_dropped_answers_total", 0.0),
    ("imageexport_status_repairs_total", 0.0),
    (
        r#"imageexport_jobs_ended_total{reason="JobSucceeded"}"#,
        2.0,
    ),
    (r#"imageexport_jobs_ended_total{reason="JobFailed"}"#, 1.0),
    (
        r#"imageexport_jobs_ended_total{reason="DeadlineExceeded"}"#,
        0.0,
    ),
    (
        r#"imageexport_job_duration_seconds_count{reason="JobSucceeded"}"#,
        2.0,
    ),
    ("imageexport_polls_overdue", 0.0),
    ("imageexport_oldest_answer_age_seconds", 0.0),
    (
        r#"controller_runtime_active_workers{controller="imageexportjob"}"#,
        0.0,
    ),
    (
        r#"controller_runtime_max_concurrent_reconciles{controller="imageexportjob"}"#,
        256.0,
    ),
    (
        r#"controller_runtime_reconcile_total{controller="imageexportjob",result="success"}"#,
        3.0,
    ),
    (
        r#"workqueue_depth{controller="imageexportjob",name="imageexportjob"}"#,
        0.0,
    ),
    (
        r#"workqueue_unfinished_work_seconds{controller="imageexportjob",name="imageexportjob"}"#,
        0.0,
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_metrics_show_the_state_of_the_operator() {
    let team = Team::start("metrics").await;
    team.follow(Job::new(PROJECT, "good-1")).await;
    team.follow(Job::new(PROJECT, "good-2")).await;
    team.follow(Job::new(PROJECT, "bad").fails("IMG.0148", "No bucket."))
        .await;
    team.until_reason("good-1", "JobSucceeded").await;
    team.until_reason("good-2", "JobSucceeded").await;
    team.until_reason("bad", "JobFailed").await;
    for probe in ["/healthz", "/readyz"] {
        let answer = team.operator().get(probe).await;
        assert_eq!(answer, (200, "ok\n".to_owned()), "{probe}");
    }
    assert_eq!(team.operator().get("/").await.0, 404);

    let url = format!("{}/metrics", team.operator().url().await);
    let open = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let transitions: usize = ["good-1", "good-2", "bad"]
        .iter()
        .map(|name| team.reasons(name).len())
        .sum();
    let transitions = f64::from(u32::try_from(transitions).expect("a few"));
    // A request that timed out on a busy machine was sent once more, and is counted.
    let at_least = [
        ("imageexport_poll_requests_total", 3.0),
        ("imageexport_poll_duration_seconds_count", 3.0),
        ("imageexport_poll_lag_seconds_count", 3.0),
        (
            r#"workqueue_adds_total{controller="imageexportjob",name="imageexportjob"}"#,
            3.0,
        ),
        (
            r#"imageexport_status_writes_total{result="written"}"#,
            transitions,
        ),
        (r#"imageexport_secret_reads_total{result="usable"}"#, 1.0),
        (r#"imageexport_events_total{result="posted"}"#, 3.0),
        (
            r#"imageexport_cloud_requests_total{operation="job_query",class="success"}"#,
            3.0,
        ),
        (
            r#"imageexport_cloud_request_duration_seconds_count{operation="job_query"}"#,
            3.0,
        ),
    ];
    let started = Instant::now();
    // Gauges are updated every few seconds.
    let text = loop {
        let request = reqwest::Client::new().get(&url).header("accept", open);
        let response = request.send().await.expect("an answer");
        assert_eq!(response.headers()["content-type"], open);
        let text = response.text().await.expect("a body");
        let samples = open_metrics(&text);
        let shown = |series: &str| samples.get(series).copied().unwrap_or(-1.0);
        let differs = EXACTLY
            .iter()
            .find(|(series, value)| (shown(series) - value).abs() > 0.5)
            .or(at_least
                .iter()
                .find(|(series, value)| shown(series) < *value));
        let Some((series, value)) = differs else {
            break text;
        };
        assert!(
            started.elapsed() < PATIENCE,
            "{series} is {}, not {value}\n{text}",
            shown(series)
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let samples = open_metrics(&text);
    let build = format!(
        r#"imageexport_build_info{{version="{}"}}"#,
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(samples.get(build.as_str()), Some(&1.0));
    let age = samples["imageexport_watch_age_seconds"];
    assert!((0.0..60.0).contains(&age), "{age}");
    let calls = |code: &str, method: &str| {
        let series = format!(
            r#"rest_client_requests_total{{code="{code}",method="{method}",host="127.0.0.1:"#
        );
        let found = samples.iter().find(|(name, _)| name.starts_with(&series));
        *found.unwrap_or_else(|| panic!("{series} in {text}")).1
    };
    // A list, a watch, a Secret; and each status was written.
    assert!(
        calls("200", "GET") >= 3.0 && calls("200", "PUT") >= transitions,
        "{text}"
    );
    assert!(calls("201", "POST") >= 3.0, "an Event for each end: {text}");
    for bounded in [PROJECT, "good-1", &team.namespace] {
        assert!(!text.contains(bounded), "no label names {bounded}");
    }
}

/// Parses an `OpenMetrics` exposition strictly; panics with the line that breaks its rules.
fn open_metrics(text: &str) -> BTreeMap<&str, f64> {
    let mut samples = BTreeMap::new();
    let mut families = BTreeMap::new();
    let mut family = ("", "");
    let body = text
        .strip_suffix("# EOF\n")
        .expect("it ends with # EOF and nothing after it");
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect(line);
            assert!(!help.is_empty(), "no help: {line}");
            assert!(!families.contains_key(name), "in two places: {line}");
            family.0 = name;
            families.insert(name, "");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect(line);
            assert_eq!(name, family.0, "TYPE does not follow HELP: {line}");
            family.1 = kind;
            families.insert(name, kind);
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (name, unit) = rest.split_once(' ').expect(line);
            assert!(name == family.0 && name.ends_with(unit), "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').expect(line);
            let (name, labels) = match series.split_once('{') {
                None => (series, ""),
                Some((name, labels)) => (name, labels.strip_suffix('}').expect(line)),
            };
            let suffixes: &[&str] = match family.1 {
                "counter" => &["_total"],
                "gauge" => &[""],
                "info" => &["_info"],
                "histogram" => &["_bucket", "_sum", "_count"],
                other => panic!("type {other:?}: {line}"),
            };
            let suffix = name.strip_prefix(family.0).expect(line);
            assert!(suffixes.contains(&suffix), "not of {}: {line}", family.0);
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (key, value) = label.split_once("=\"").expect(line);
                let inner = value.strip_suffix('"').expect(line);
                assert!(!key.is_empty() && !inner.contains('"'), "{line}");
            }
            let value: f64 = value.parse().expect(line);
            assert!(samples.insert(series, value).is_none(), "twice: {line}");
        }
    }
    assert_buckets_are_cumulative(&families, &samples);
    samples
}

fn assert_buckets_are_cumulative(families: &BTreeMap<&str, &str>, samples: &BTreeMap<&str, f64>) {
    for (family, _) in families.iter().filter(|(_, kind)| **kind == "histogram") {
        // The buckets of each set of other labels.
        let mut histograms: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        let prefix = format!("{family}_bucket{{");
        for (series, count) in samples {
            let Some(labels) = series.strip_prefix(&prefix) else {
                continue;
            };
            let (others, bound) = labels.split_once("le=\"").expect(series);
            // On either side of the other labels.
            let (bound, after) = bound.split_once('"').expect(series);
            let others = format!("{others}{}", after.trim_end_matches('}'));
            let others = others.trim_matches(',').to_owned();
            let buckets = histograms.entry(others).or_default();
            buckets.push((bound.parse().expect("a bound"), *count));
        }
        for (labels, mut buckets) in histograms {
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{family}");
            let last = buckets.last().expect("buckets");
            assert!(last.0.is_infinite(), "{family} ends with +Inf");
            let count = match labels.as_str() {
                "" => format!("{family}_count"),
                labels => format!("{family}_count{{{labels}}}"),
            };
            assert_eq!(Some(&last.1), samples.get(count.as_str()), "{count}");
        }
    }
}
