//! A quota that is less than what is wanted: the cloud answers the rest with 429 and a Retry-After.

use crate::{
    bench::Bench,
    cluster::Layout,
    peers::{Launch, Subject},
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

/// Polls a second that the cloud allows.
const ALLOWED: u32 = 20;
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// 100 polls a second are wanted.
const COUNT: u32 = 1000;
const PERIOD: u64 = 10;
const WARM_UP: Duration = Duration::from_secs(15);
const WINDOW: Duration = Duration::from_secs(60);

pub async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let layout = Layout {
        projects: 1,
        ..Layout::many_projects(COUNT)
    };
    bench.ensure_known(layout).await?;
    let peers = bench.subjects.iter().copied();
    let peers: Vec<_> = peers.filter(|subject| !subject.is_operator()).collect();
    let both = [&[Subject::OPERATOR], &peers[..]].concat();
    // Peers have no such flag.
    for (case, polls_per_second, subjects) in [
        ("20/s allowed, --polls-per-second=20", ALLOWED, &both[..]),
        ("20/s allowed, --polls-per-second=100", 100, &both[..1]),
    ] {
        bench
            .paired("quota", case, subjects, async |bench, subject| {
                bench.cloud.limit(Some((ALLOWED.into(), RETRY_AFTER)));
                let figures = measure(bench, subject, polls_per_second).await;
                bench.cloud.limit(None);
                figures
            })
            .await?;
    }
    Ok(())
}

async fn measure(
    bench: &mut Bench,
    subject: Subject,
    polls_per_second: u32,
) -> anyhow::Result<Value> {
    let launch = Launch {
        polls_per_second,
        ..Launch::every(PERIOD)
    };
    let running = bench.start(subject, &launch)?;
    sleep(WARM_UP).await;
    let begun = bench.begin(&running).await?;
    sleep(WINDOW).await;
    let measured = bench.end(&running, &begun).await?;
    Ok(json!({
        "useful_per_second": (measured.polls - measured.throttled) / measured.seconds,
        "throttled": measured.throttled,
        "throttled_percent": measured.throttled / measured.polls * 100.0,
        "before_retry_after": measured.early,
        "status_writes": measured.server.status_writes,
        "cpu_seconds": measured.cpu,
    }))
}
