//! What the operator makes of `suspend`, `pollPeriodSeconds` and the poll-request annotation.

use crate::harness::{Launch, Operator, PROJECT, Team, cluster, condition, key, summary};
use serde_json::json;
use testbed::ims::{End, Job};

const SUSPENDED: [&str; 2] = ["Ready=Unknown/Suspended", "Succeeded=Unknown/Suspended"];

fn running(job: &str) -> Job {
    Job::new(PROJECT, job).ends(End::Never)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_job_is_not_asked_about_until_it_is_resumed() {
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
        "Job from-the-start is not asked about while spec.suspend is true."
    );

    team.until_reason("underway", "JobRunning").await;
    suspend("underway", true).await;
    let status = team.until_reason("underway", "Suspended").await;
    assert_eq!(summary(&status), SUSPENDED);
    assert_eq!(
        status.status.as_deref(),
        Some("RUNNING"),
        "what is known stays"
    );
    assert_eq!(status.observed_generation, Some(2));
    let polls = team.polls("underway");

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

    // A request is the user's probe that the operator lives; the job stays suspended.
    team.request_poll("underway", "alive?").await;
    let status = team
        .until("underway", "to echo", |status| {
            status.last_handled_poll_request.is_some()
        })
        .await;
    assert_eq!(status.last_handled_poll_request.as_deref(), Some("alive?"));
    assert_eq!(summary(&status), SUSPENDED);
    // A neighbour that is asked about many times in the meantime.
    team.follow(running("neighbour")).await;
    team.sim.polled(&key("neighbour"), 10).await;
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
    // Between its resumption and the next answer it is what it was.
    let course = team.course("underway");
    assert_eq!(course[..2], ["JobRunning", "Suspended"]);
    suspend("finished", false).await;
    team.until("finished", "to be up to date", |status| {
        status.observed_generation == Some(3)
    })
    .await;
    assert_eq!(
        team.polls("finished"),
        1,
        "a finished job is not asked about"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_polled_at_once_and_echoed() {
    let team = Team::start("requests").await;
    // Never asked about again within this test unless somebody wants it.
    let rarely = json!({ "pollPeriodSeconds": 86_400 });
    for name in ["asked", "long"] {
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
        team.request_poll("asked", value).await;
        team.sim.polled(&key("asked"), count).await;
        echo("asked", value).await;
        assert_eq!(team.polls("asked"), count);
    }
    // The same value once more is no request.
    team.patch(
        "asked",
        json!({ "metadata": { "labels": { "a": "label" } } }),
    )
    .await;
    team.sim.put_job(Job::new(PROJECT, "asked"));
    team.request_poll("asked", "the end").await;
    team.until_reason("asked", "JobSucceeded").await;
    assert_eq!(team.polls("asked"), 5);
    assert_eq!(team.course("asked"), ["JobRunning", "JobSucceeded"]);
    team.request_poll("asked", "after the end").await;
    echo("asked", "after the end").await;
    assert_eq!(team.polls("asked"), 5, "a finished job is not asked about");

    // Too long: said once, and otherwise as if it were not there.
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
async fn an_objects_own_period_counts_for_it_alone() {
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
        "none but what was under way"
    );
}
