//! What polls without a change cost: all jobs run.

use crate::{
    bench::Bench,
    cluster::Layout,
    peers::{Launch, Subject},
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

/// Objects and period, with the name of the case.
const CASES: [(&str, u32, u64); 2] = [("500 polls/s", 1000, 2), ("15 polls/s", 300, 20)];

pub async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let mut subjects = Vec::new();
    for subject in bench.subjects.clone() {
        subjects.push(subject);
        if !subject.is_operator() {
            subjects.push(subject.strewn());
        }
    }
    for (case, count, period) in CASES {
        bench.objects.ensure(Layout::many_projects(count)).await?;
        bench
            .paired("polls", case, &subjects, async |bench, subject| {
                measure(bench, subject, count, period).await
            })
            .await?;
    }
    Ok(())
}

async fn measure(
    bench: &mut Bench,
    subject: Subject,
    count: u32,
    period: u64,
) -> anyhow::Result<Value> {
    let running = bench.start(subject, &Launch::every(period))?;
    let warm_up = Duration::from_secs(60 + 3 * period);
    bench.polls(&running, u64::from(count), warm_up).await?;
    bench.no_writes(&running, warm_up).await?;
    // Whole periods, as polls that come as they come come together.
    let periods = bench.window.as_secs().div_ceil(period).max(2);
    let begun = bench.begin(&running).await?;
    sleep(Duration::from_secs(periods * period)).await;
    let measured = bench.end(&running, &begun).await?;
    let memory = running.memory()?;
    Ok(json!({
        "cpu_seconds_per_10000_polls": measured.cpu / measured.polls * 1e4,
        "polls_per_second": measured.polls / measured.seconds,
        "context_switches_per_poll": measured.switches / measured.polls,
        "rss_mib": memory.rss,
        "anonymous_mib": memory.anonymous,
        "cloud_share": measured.cloud_share,
    }))
}
