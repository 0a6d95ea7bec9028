//! The most polls a second that one processor sustains: more are wanted than it can send.

use crate::{
    bench::Bench,
    cloud::HOSTS,
    cluster::Layout,
    peers::{Launch, Program, Subject},
    process,
};
use serde_json::{Value, json};
use std::{thread, time::Duration};
use tokio::time::sleep;

const PERIOD: u64 = 1;
/// What kopf bears at all.
const KOPF: u32 = 2000;
const WARM_UP: Duration = Duration::from_secs(30);

pub async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let (kopf, others): (Vec<_>, Vec<_>) = bench
        .subjects
        .iter()
        .partition(|subject| subject.program == Program::Kopf);
    let last = thread::available_parallelism()?.get() - 1;
    // The subject has the first processor for itself.
    process::pin_self(&format!("1-{}", last.max(1)))?;
    for (count, subjects) in [(4 * bench.many, others), (KOPF.min(bench.many), kopf)] {
        if subjects.is_empty() {
            continue;
        }
        let layout = Layout {
            hosts: u32::try_from(HOSTS)?,
            ..Layout::many_projects(count)
        };
        bench.ensure_known(layout).await?;
        let case = format!("{count} objects, 1 s");
        bench
            .paired("saturation", &case, &subjects, async |bench, subject| {
                measure(bench, subject).await
            })
            .await?;
    }
    process::pin_self(&format!("0-{last}"))
}

async fn measure(bench: &mut Bench, subject: Subject) -> anyhow::Result<Value> {
    let launch = Launch {
        processor: Some(0),
        ..Launch::every(PERIOD)
    };
    let running = bench.start(subject, &launch)?;
    sleep(WARM_UP).await;
    let begun = bench.begin(&running).await?;
    sleep(bench.window).await;
    let measured = bench.end(&running, &begun).await?;
    Ok(json!({
        "polls_per_second": measured.polls / measured.seconds,
        "polls_per_cpu_second": measured.polls / measured.cpu,
        "cpu_share": measured.cpu / measured.seconds,
        "cloud_share": measured.cloud_share,
    }))
}
