//! Watches on an API server for unit tests, in paused time.

use super::*;
use crate::controller::fake::controller;
use crate::{
    controller::fake::{Reply, Sent, api_server, object},
    telemetry::Captured,
};
use serde_json::{Value, json};
use std::sync::Mutex;
use tokio::time::timeout;

const PATH: &str = "/apis/imageexport.dev/v1alpha1/namespaces/ns/imageexportjobs";

fn watch_of(client: Client, sender: mpsc::Sender<Input>) -> Watch {
    Watch {
        source: Source(3),
        scope: "namespace ns".to_owned(),
        api: Api::namespaced(client, "ns"),
        label_selector: None,
        sender,
        health: Arc::default(),
        metrics: Arc::default(),
        gate: LogGate::default(),
    }
}

/// What a watch reports: its inputs until it has been silent for a minute.
struct Seen {
    inputs: Vec<String>,
    sent: Arc<Mutex<Vec<Sent>>>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

impl Seen {
    /// Replies to lists and to watches, each in order; afterwards there is none.
    async fn of(lists: Vec<Reply>, watches: Vec<Reply>) -> Self {
        let (mut lists, mut watches) = (lists.into_iter(), watches.into_iter());
        let (client, sent) = api_server(move |sent| {
            let is_watch = sent.line.contains("watch=true");
            let replies = if is_watch { &mut watches } else { &mut lists };
            replies.next().unwrap_or(Reply::Never)
        });
        let (health, metrics) = (Arc::default(), Arc::default());
        let (sender, mut received) = mpsc::channel(16);
        let watch = Watch {
            health: Arc::clone(&health),
            metrics: Arc::clone(&metrics),
            ..watch_of(client, sender)
        };
        let task = tokio::spawn(async move { watch.run_always().await });
        let mut inputs = Vec::new();
        let silence = Duration::from_secs(40);
        while let Ok(Some(input)) = timeout(silence, received.recv()).await {
            inputs.push(describe(&input));
        }
        task.abort();
        Self {
            inputs,
            sent,
            health,
            metrics,
        }
    }

    fn lines(&self) -> Vec<String> {
        self.sent
            .lock()
            .unwrap()
            .iter()
            .map(|sent| sent.line.clone())
            .collect()
    }
}

fn describe(input: &Input) -> String {
    match input {
        Input::ListStarted(Source(3)) => "list started".to_owned(),
        Input::Listed(Source(3)) => "listed".to_owned(),
        Input::Applied(Source(3), object) => {
            let meta = &object.metadata;
            format!("applied {}", meta.resource_version.as_ref().unwrap())
        }
        Input::Undecodable {
            source: Source(3),
            key,
            uid,
            error,
        } => format!("undecodable {key} {uid}: {error}"),
        Input::Deleted(key, uid) => format!("deleted {key} {uid:?}"),
        other => format!("{other:?}"),
    }
}

fn version(version: &str) -> Value {
    let mut object = object(&json!({}));
    object["metadata"]["resourceVersion"] = version.into();
    object
}

fn undecodable() -> Value {
    let mut object = version("9");
    object["spec"]["suspend"] = "y".repeat(300).into();
    object
}

fn list(items: &[Value]) -> Reply {
    Reply::json(
        200,
        &json!({ "metadata": { "resourceVersion": "10" }, "items": items }),
    )
}

/// A watch that brings these and ends.
fn watch(events: &[(&str, Value)]) -> Reply {
    let lines = events
        .iter()
        .map(|(type_, object)| json!({ "type": type_, "object": object }).to_string());
    Reply::Text(200, lines.collect::<Vec<_>>().join("\n"))
}

fn ready(health: &Health) -> String {
    health.ready().unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn what_the_api_server_shows_becomes_inputs() {
    let seen = Seen::of(
        vec![list(&[version("7"), undecodable()])],
        vec![watch(&[
            ("ADDED", version("11")),
            ("MODIFIED", version("12")),
            ("MODIFIED", undecodable()),
            ("DELETED", version("13")),
            (
                "BOOKMARK",
                json!({ "kind": "ImageExportJob", "apiVersion": "imageexport.dev/v1alpha1",
                                 "metadata": { "resourceVersion": "14" } }),
            ),
        ])],
    )
    .await;
    let invalid = format!(
        "undecodable ns/x u-1: invalid type: string \"{}…",
        "y".repeat(234)
    );
    assert_eq!(
        seen.inputs,
        [
            "list started",
            "applied 7",
            &invalid,
            "listed",
            "applied 11",
            "applied 12",
            &invalid,
            "deleted ns/x Some(\"u-1\")",
        ]
    );
    let watched = |version| {
        format!(
            "GET {PATH}?&watch=true&timeoutSeconds=50&allowWatchBookmarks=true&resourceVersion={version}"
        )
    };
    assert_eq!(
        seen.lines(),
        [format!("GET {PATH}?&limit=100"), watched(10), watched(14)]
    );
    assert_eq!(ready(&seen.health), "ImageExportJobs are being listed");
}

/// Its log at warn, once it has ended.
async fn warning(lists: Vec<Reply>, watches: Vec<Reply>) -> Vec<(String, Option<String>)> {
    let (log, _guard) = Captured::start();
    Seen::of(lists, watches).await;
    let lines = log.of("::watch").into_iter();
    let warnings = lines.filter(|line| line["level"] == "WARN");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    warnings
        .map(|line| (text(&line["message"]).unwrap(), text(&line["cause"])))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_logged_in_one_sentence_with_what_the_api_server_adds() {
    let forbidden = Reply::json(
        403,
        &json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "reason": "Forbidden",
            "message": "User \"u\" cannot list resource \"imageexportjobs\"", "details": null,
        }),
    );
    let no_crd = Reply::Text(404, "404 page not found\n".to_owned());
    for (reply, problem, cause) in [
        (
            no_crd,
            "the API server does not know ImageExportJobs: apply the CRD \
             imageexportjobs.imageexport.dev, which is in crds/",
            None,
        ),
        (
            forbidden,
            "the operator may not list or watch ImageExportJobs: apply the RBAC in deploy/",
            Some("User \"u\" cannot list resource \"imageexportjobs\""),
        ),
        (
            Reply::Lost,
            "the API server does not answer",
            Some("the connection is lost"),
        ),
    ] {
        let message = format!("watch failed: namespace ns: {problem}");
        let expected = vec![(message, cause.map(str::to_owned))];
        assert_eq!(warning(vec![reply.clone(); 2], vec![]).await, expected);
        let started = vec![list(&[])];
        assert_eq!(warning(started, vec![reply]).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn each_success_is_a_sign_of_life_of_the_watch() {
    // A list after 10 s, its second page and a watch after 10 s more each, a rejection after another 10 s.
    let page = json!({
        "metadata": { "resourceVersion": "10", "continue": "more" }, "items": [],
    });
    let after = |reply| Reply::After(Duration::from_secs(10), Box::new(reply));
    let replies = [
        after(Reply::json(200, &page)),
        after(list(&[])),
        after(watch(&[])),
        after(Reply::failure(403, &json!(null))),
    ];
    let mut replies = replies.into_iter();
    let (client, _) = api_server(move |_| replies.next().unwrap_or(Reply::Never));
    let controller = controller(client);
    let metrics = controller.metrics.clone();
    let (sender, mut received) = mpsc::channel(16);
    let client = observed(&controller, Source(3), Turns::default());
    let watch = watch_of(client, sender);
    let task = tokio::spawn(async move { watch.run_always().await });
    let mut ages = Vec::new();
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_secs(9)).await;
        let text = metrics.encode();
        let mut lines = text.lines();
        let age = lines.find_map(|line| line.strip_prefix("imageexport_watch_age_seconds "));
        let age: f64 = age.unwrap().parse().unwrap();
        ages.push(format!("{age:.0}"));
        while received.try_recv().is_ok() {}
    }
    task.abort();
    // At 9, 18, 27, 36, 45 and 54 s: successes at 10, 20 and 30 s.
    assert_eq!(ages, ["9", "8", "7", "6", "15", "24"]);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_longer_than_a_page_may_be_is_a_problem() {
    let (client, sent) = api_server(|_| Reply::Text(200, "x".repeat((4 << 20) + 1)));
    let controller = controller(client);
    let (sender, _received) = mpsc::channel(1000);
    let client = observed(&controller, Source(3), Turns::default());
    let watch = watch_of(client, sender);
    let run = timeout(Duration::from_secs(5), watch.run_always());
    assert!(run.await.is_err(), "it tries again");
    let problem = "namespace ns: an ImageExportJob takes more than 4 MiB of a list: shorten its annotations, \
                   or delete it";
    assert_eq!(ready(&watch.health), problem);
    let line = sent.lock().unwrap()[0].line.clone();
    assert_eq!(line, format!("GET {PATH}?&limit=50"));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_counted_and_named_until_the_watch_works() {
    for (reply, kind, problem) in [
        (
            Reply::failure(404, &json!(null)),
            "crd_missing",
            "the API server does not know ImageExportJobs: apply the CRD \
             imageexportjobs.imageexport.dev, which is in crds/",
        ),
        (
            Reply::failure(403, &json!(null)),
            "forbidden",
            "the operator may not list or watch ImageExportJobs: apply the RBAC in deploy/",
        ),
        (
            Reply::failure(401, &json!(null)),
            "unauthorized",
            "the API server does not accept the operator's token",
        ),
        (
            Reply::failure(500, &json!(null)),
            "api_error",
            "the API server answered 500",
        ),
        (Reply::Lost, "unreachable", "the API server does not answer"),
    ] {
        let problem = format!("namespace ns: {problem}");
        let failures = vec![reply; 2];
        let counted = format!("imageexport_watch_errors_total{{kind=\"{kind}\"}} 2\n");
        let seen = Seen::of(failures.clone(), vec![]).await;
        assert_eq!(ready(&seen.health), problem);
        assert!(seen.metrics.encode().contains(&counted), "{counted}");

        let seen = Seen::of([failures.clone(), vec![list(&[])]].concat(), vec![]).await;
        assert_eq!(
            seen.inputs.last().map(String::as_str),
            Some("listed"),
            "{kind}"
        );
        assert_eq!(ready(&seen.health), "ImageExportJobs are being listed");

        let seen = Seen::of(vec![list(&[])], failures).await;
        assert_eq!(ready(&seen.health), problem);
        assert!(seen.metrics.encode().contains(&counted), "{counted}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_early_or_has_expired_is_renewed_and_is_no_problem() {
    let expired =
        json!({ "kind": "Status", "status": "Failure", "code": 410, "reason": "Expired" });
    for (watches, inputs) in [
        (vec![watch(&[("ERROR", expired)])], 4),
        (vec![Reply::failure(410, &json!(null))], 2),
        (vec![watch(&[("ADDED", json!(7))])], 2),
    ] {
        let seen = Seen::of(vec![list(&[]), list(&[])], watches).await;
        assert_eq!(seen.inputs.len(), inputs, "{:?}", seen.inputs);
        assert_eq!(ready(&seen.health), "ImageExportJobs are being listed");
        let counted = "imageexport_watch_errors_total{kind=\"renewed\"} 1\n";
        assert!(seen.metrics.encode().contains(counted), "{counted}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_counted_and_the_watch_starts_over() {
    let seen = Seen::of(vec![Reply::Panic, list(&[version("7")])], vec![]).await;
    assert_eq!(
        seen.inputs,
        ["list started", "list started", "applied 7", "listed"]
    );
    assert!(
        seen.metrics
            .encode()
            .contains("imageexport_task_panics_total 1\n")
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_failed_is_tried_again_within_10_seconds() {
    let (sent, mut times) = mpsc::unbounded_channel();
    let (client, _) = api_server(move |request| {
        sent.send(tokio::time::Instant::now()).unwrap();
        if request.line.contains("watch=true") {
            Reply::failure(404, &json!(null))
        } else {
            list(&[])
        }
    });
    let (sender, _received) = mpsc::channel(1000);
    let watch = watch_of(client, sender);
    let run = timeout(Duration::from_secs(600), watch.run_always());
    assert!(run.await.is_err(), "it never ends");
    drop(watch);
    let mut at = Vec::new();
    while let Ok(time) = times.try_recv() {
        at.push(time);
    }
    let longest = at.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(
        longest <= LONGEST_WAIT + Duration::from_millis(5),
        "{longest:?}"
    );
    assert!(at.len() >= 60, "{}", at.len());
}

#[test]
fn an_error_is_cut_to_its_bound() {
    assert_eq!(bounded("x".repeat(256)), "x".repeat(256));
    assert_eq!(bounded("x".repeat(257)), format!("{}…", "x".repeat(256)));
    assert_eq!(
        bounded(format!("x{}", "ä".repeat(200))),
        format!("x{}…", "ä".repeat(127))
    );
}
