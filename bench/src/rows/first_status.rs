//! The time and the cost until each of many new objects has its first status.

use crate::{
    bench::Bench,
    cluster::Layout,
    peers::{Launch, Subject},
};
use anyhow::ensure;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

/// Long, so that each object is polled once.
const PERIOD: u64 = 600;
const LONGEST: f64 = 400.0;
/// Between two looks at the API server's metrics, which cost it something.
const LOOK: Duration = Duration::from_millis(500);

pub async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let count = bench.many;
    let case = format!("{count} objects");
    let subjects = bench.subjects_for(count);
    bench
        .paired("first-status", &case, &subjects, async |bench, subject| {
            let layout = Layout::many_projects(count);
            bench.objects.recreate(layout).await?;
            measure(bench, subject, count).await
        })
        .await
}

async fn measure(bench: &mut Bench, subject: Subject, count: u32) -> anyhow::Result<Value> {
    let before = bench.objects.server().await?;
    let running = bench.start(subject, &Launch::every(PERIOD))?;
    let begun = bench.begin(&running).await?;
    loop {
        sleep(LOOK).await;
        let measured = bench.end(&running, &begun).await?;
        let server = bench.objects.server().await? - before;
        let is_done = server.status_writes >= f64::from(count)
            && bench.objects.with_a_status().await? == count;
        if is_done {
            let memory = running.memory()?;
            return Ok(json!({
                "seconds": measured.seconds,
                "cpu_seconds": measured.cpu,
                "server_cpu_seconds": server.cpu_seconds,
                "status_writes_per_object": server.status_writes / f64::from(count),
                "refused": server.refused,
                "polls_per_object": measured.polls / f64::from(count),
                "rss_max_mib": memory.rss_max,
                "cloud_share": measured.cloud_share,
            }));
        }
        let seconds = measured.seconds;
        ensure!(
            seconds < LONGEST,
            "{} statuses after {seconds:.0} s",
            server.status_writes
        );
    }
}
