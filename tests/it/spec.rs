//! `suspend`, `pollPeriodSeconds` and the poll-request annotation.

use crate::harness::{Launch, Operator, PROJECT, Team, cluster, condition, key, running, summary};
use serde_json::json;
use testbed::ims::Job;

const SUSPENDED: [&str; 2] = ["Ready=Unknown/Suspended", "Succeeded=Unknown/Suspended"];

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_job_is_not_polled_until_it_is_resumed() {
    let team = Team::start("suspend").await;
    team.sim.put_job(running("from-the-start"));
    team.create_with("from-the-start", json!({ "suspend": true }))
        .await;
    team.follow(running("underway")).await;
    team.follow(Job::new(PROJECT, "finished")).await;
    let suspend = async |name: &str, value: bool| {
        team.patch(name, json!({ "spec": { "suspend": value } }))
            .await;
    };

    let status = team.until_reason("from-the-start", "Suspended").await;
    assert_eq!(summary(&status), SUSPENDED);
    assert_eq!(status.status, None);
    let ready = condition(&status, "Ready").expect("it was seen");
    assert_eq!(
        ready.message,
        "Job from-the-start is not polled while spec.suspend is true."
    );

    team.until_reason("underway", "JobRunning").await;
    suspend("underway", true).await;
    let status = team.until_reason("underway", "Suspended").await;
    assert_eq!(summary(&status), SUSPENDED);
    assert_eq!(
        status.status.as_deref(),
        Some("RUNNING"),
        "the last known status stays"
    );
    assert_eq!(status.observed_generation, Some(2));

    team.until_reason("finished", "JobSucceeded").await;
    suspend("finished", true).await;
    let status = team
        .until("finished", "to be up to date", |status| {
            status.observed_generation == Some(2)
        })
        .await;
    assert_eq!(
        summary(&status),
        ["Ready=True/JobSucceeded", "Succeeded=True/JobSucceeded"]
    );

    // The echo shows that the operator is running; the job stays suspended.
    team.request_poll("underway", "running?").await;
    let status = team
        .until("underway", "to echo", |status| {
            status.last_handled_poll_request.is_some()
        })
        .await;
    assert_eq!(
        status.last_handled_poll_request.as_deref(),
        Some("running?")
    );
    assert_eq!(summary(&status), SUSPENDED);
    // Another job that is polled many times meanwhile.
    team.follow(running("other")).await;
    // By then a poll from before the suspension has arrived, if there was one.
    team.sim.polled(&key("other"), 3).await;
    let polls = team.polls("underway");
    team.sim.polled(&key("other"), 13).await;
    assert_eq!(team.polls("underway"), polls);
    assert_eq!(
        (team.polls("from-the-start"), team.polls("finished")),
        (0, 1)
    );

    for name in ["underway", "from-the-start"] {
        team.sim.put_job(Job::new(PROJECT, name));
        suspend(name, false).await;
        team.until_reason(name, "JobSucceeded").await;
    }
    assert_eq!(team.course("from-the-start"), ["Suspended", "JobSucceeded"]);
    // Between its resumption and the next answer it shows its last status.
    let course = team.course("underway");
    assert_eq!(course[..2], ["JobRunning", "Suspended"]);
    suspend("finished", false).await;
    team.until("finished", "to be up to date", |status| {
        status.observed_generation == Some(3)
    })
    .await;
    assert_eq!(team.polls("finished"), 1, "a finished job is not polled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_request_causes_one_poll_at_once_and_is_echoed() {
    let team = Team::start("requests").await;
    // Not polled again within this test without a request.
    let rarely = json!({ "pollPeriodSeconds": 86_400 });
    for name in ["requested", "long"] {
        team.sim.put_job(running(name));
        team.create_with(name, rarely.clone()).await;
        team.until_reason(name, "JobRunning").await;
    }
    let echo = async |name: &str, value: &str| {
        team.until(name, "to echo", |status| {
            status.last_handled_poll_request.as_deref() == Some(value)
        })
        .await
    };
    let longest = "x".repeat(64);
    for (count, value) in [(2, "2026-01-02T03:04:05Z"), (3, "again"), (4, &longest)] {
        team.request_poll("requested", value).await;
        team.sim.polled(&key("requested"), count).await;
        echo("requested", value).await;
        assert_eq!(team.polls("requested"), count);
    }
    // The same value again is no request.
    team.patch(
        "requested",
        json!({ "metadata": { "labels": { "a": "label" } } }),
    )
    .await;
    team.sim.put_job(Job::new(PROJECT, "requested"));
    team.request_poll("requested", "the end").await;
    team.until_reason("requested", "JobSucceeded").await;
    assert_eq!(team.polls("requested"), 5);
    assert_eq!(team.course("requested"), ["JobRunning", "JobSucceeded"]);
    team.request_poll("requested", "after the end").await;
    echo("requested", "after the end").await;
    assert_eq!(team.polls("requested"), 5, "a finished job is not polled");

    // Too long: reported once and otherwise ignored.
    let ignored = "Warning PollRequestIgnored: The annotation imageexport.dev/poll-requested-at is \
                   ignored: its value is longer than 64 bytes.";
    for extra in ["x", "xx"] {
        team.request_poll("long", &(longest.clone() + extra)).await;
    }
    team.until_event("long", ignored).await;
    team.request_poll("long", "short").await;
    let status = echo("long", "short").await;
    assert_eq!(condition(&status, "Ready").unwrap().reason, "JobRunning");
    team.sim.polled(&key("long"), 2).await;
    team.sim.put_job(Job::new(PROJECT, "long"));
    team.request_poll("long", "the end").await;
    let events = team.until_event("long", "Normal JobSucceeded: ").await;
    let ignored: Vec<_> = events.iter().filter(|event| *event == ignored).collect();
    assert_eq!(ignored.len(), 1, "{events:#?}");
    assert_eq!(team.polls("long"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_period_in_a_spec_applies_to_that_object_alone() {
    const PERIOD: u32 = 5;
    let slower = Launch {
        scale: 0.2,
        ..Launch::default()
    };
    let mut team = Team::without_operator("period").await;
    for job in ["often", "rarely"] {
        team.sim.put_job(running(job));
    }
    team.create_with("often", json!({ "pollPeriodSeconds": PERIOD }))
        .await;
    team.create("rarely").await;
    let arguments = ["--namespace", &team.namespace, "--poll-period", "86400"];
    team.operator = Some(Operator::start_as(cluster(), slower, &arguments));

    team.sim.polled(&key("often"), 4).await;
    team.until_reason("rarely", "JobRunning").await;
    assert_eq!(team.polls("rarely"), 1);
    let path = key("often").to_string();
    let mut requests = team.sim.requests();
    requests.retain(|request| request.path == path);
    // The first poll of a new object is early. The others keep their phase and may be late, but
    // not by a period.
    let two = requests[3].at_seconds - requests[1].at_seconds;
    assert!(two >= f64::from(PERIOD) * slower.scale, "{two} s");

    let change = |value| json!({ "spec": { "pollPeriodSeconds": value } });
    team.patch("rarely", change(Some(PERIOD))).await;
    team.sim.polled(&key("rarely"), 3).await;
    team.patch("often", change(None)).await;
    team.until("often", "to be up to date", |status| {
        status.observed_generation == Some(2)
    })
    .await;
    let polls = team.polls("often");
    team.sim
        .polled(&key("rarely"), team.polls("rarely") + 2)
        .await;
    assert!(
        team.polls("often") <= polls + 1,
        "none but one that was in flight"
    );
}
