//! Writes over the life of a job that initialises, runs and succeeds.

use crate::{
    bench::Bench,
    cloud::Job,
    cluster::Layout,
    peers::{Launch, Subject},
};
use anyhow::ensure;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::time::sleep;

const COUNT: u32 = 200;
const PERIOD: u64 = 2;
/// Seconds after the start at which jobs run, and end.
const RUNS: i64 = 8;
const ENDS: i64 = 20;
const LONGEST: Duration = Duration::from_mins(3);

pub async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let case = format!("{COUNT} jobs");
    let subjects = bench.subjects.clone();
    bench
        .paired("writes", &case, &subjects, async |bench, subject| {
            let layout = Layout::many_projects(COUNT);
            bench.objects.recreate(layout).await?;
            let figures = measure(bench, subject, layout).await;
            bench.cloud.take_jobs();
            figures
        })
        .await
}

async fn measure(bench: &mut Bench, subject: Subject, layout: Layout) -> anyhow::Result<Value> {
    let now = Timestamp::now();
    let mut job = Job::running(now, now + SignedDuration::from_secs(ENDS));
    job.runs = now + SignedDuration::from_secs(RUNS);
    let jobs = (0..layout.count).map(|n| (layout.path(n), job.clone()));
    bench.cloud.add_jobs(jobs);
    let running = bench.start(subject, &Launch::every(PERIOD))?;
    let begun = bench.begin(&running).await?;
    let started = Instant::now();
    let all_ended = || {
        let ended = |job: &Job| job.end_answered.is_some();
        bench.cloud.with_jobs(|jobs| jobs.values().all(ended))
    };
    while !all_ended() {
        ensure!(started.elapsed() < LONGEST, "not all ends were seen");
        running.check()?;
        sleep(Duration::from_millis(100)).await;
    }
    bench.no_writes(&running, LONGEST).await?;
    let measured = bench.end(&running, &begun).await?;
    let count = f64::from(layout.count);
    Ok(json!({
        "status_writes_per_job": measured.server.status_writes / count,
        "other_writes_per_job": measured.server.other_writes / count,
        "polls_per_job": measured.polls / count,
    }))
}
