//! What a restart costs where each object has its status already: polls that nobody needs, and CPU.

use crate::{
    bench::Bench,
    cluster::Layout,
    peers::{Launch, Subject},
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

/// Long, so that few polls are due.
const PERIOD: u64 = 600;
const WINDOW: Duration = Duration::from_secs(30);

pub async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let count = bench.many;
    bench.ensure_known(Layout::many_projects(count)).await?;
    let case = format!("{count} objects");
    let subjects = bench.subjects_for(count);
    bench
        .paired("restart", &case, &subjects, async |bench, subject| {
            measure(bench, subject, count).await
        })
        .await
}

async fn measure(bench: &mut Bench, subject: Subject, count: u32) -> anyhow::Result<Value> {
    let running = bench.start(subject, &Launch::every(PERIOD))?;
    let begun = bench.begin(&running).await?;
    sleep(WINDOW).await;
    let measured = bench.end(&running, &begun).await?;
    let due = f64::from(count) * WINDOW.as_secs_f64() / Duration::from_secs(PERIOD).as_secs_f64();
    Ok(json!({
        "polls": measured.polls,
        "polls_due": due,
        "cpu_seconds": measured.cpu,
        "server_cpu_seconds": measured.server.cpu_seconds,
        "status_writes": measured.server.status_writes,
        "other_writes": measured.server.other_writes,
        "cloud_share": measured.cloud_share,
    }))
}
