//! Memory by the number of objects, each with a running job that was known before: as after a restart.

use crate::{
    bench::Bench,
    cluster::Layout,
    peers::{Launch, Subject},
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::time::sleep;

const COUNTS: [u32; 5] = [0, 1000, 10_000, 50_000, 100_000];
/// So that polls cost next to nothing.
const PERIOD: u64 = 600;
/// Of a processor, over [`STEP`]: what is at rest uses less, and has the API server use less.
const AT_REST: f64 = 0.3;
const STEP: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_mins(4);

pub async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    for count in COUNTS {
        if count > 10 * bench.many {
            continue;
        }
        bench.ensure_known(Layout::many_projects(count)).await?;
        let subjects = bench.subjects_for(count);
        let case = format!("{count} objects");
        bench
            .paired("memory", &case, &subjects, async |bench, subject| {
                measure(bench, subject).await
            })
            .await?;
    }
    Ok(())
}

async fn measure(bench: &mut Bench, subject: Subject) -> anyhow::Result<Value> {
    let running = bench.start(subject, &Launch::every(PERIOD))?;
    let started = Instant::now();
    let mut quiet = 0;
    while quiet < 2 && started.elapsed() < LONGEST {
        let begun = bench.begin(&running).await?;
        sleep(STEP).await;
        let measured = bench.end(&running, &begun).await?;
        let used = measured.cpu.max(measured.server.cpu_seconds);
        quiet = if used / measured.seconds < AT_REST {
            quiet + 1
        } else {
            0
        };
    }
    let memory = running.memory()?;
    Ok(json!({
        "rss_max_mib": memory.rss_max,
        "rss_mib": memory.rss,
        "anonymous_mib": memory.anonymous,
        "seconds": started.elapsed().as_secs_f64(),
        "is_quiet": quiet == 2,
    }))
}
