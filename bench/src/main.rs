//! What the operator costs: CPU for each poll and each first status, and memory, on a real API server and a cloud
//! that costs next to nothing. Several builds of the operator are compared in one run, in the order A B B A, as
//! machines differ more from one minute to the next than builds do.

mod cloud;
mod cluster;
mod process;

use anyhow::Context;
use clap::Parser;
use cloud::Cloud;
use cluster::Objects;
use process::{Cost, Operator};
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// Measures builds of image-export-operator side by side and prints each run as a line of JSON.
///
/// Conditions: a kube-apiserver with etcd, and a cloud that answers RUNNING at once, over http/1.1 on loopback, all on
/// this machine. A run starts the operator, waits until each object has been polled twice, and measures for a while.
/// CPU is user and system time of all threads of the operator. Build it first: cargo build --release
#[derive(Parser)]
struct Args {
    /// A build of the operator; give several to compare them
    #[arg(long = "operator", value_name = "FILE", required = true)]
    operators: Vec<PathBuf>,

    /// Objects, each with a running job
    #[arg(long, default_value_t = 1000)]
    objects: u32,

    /// Polls a second, at which --poll-period is the number of objects by this
    #[arg(long, default_value_t = 100.0)]
    rate: f64,

    /// Seconds for which a run is measured
    #[arg(long, default_value_t = 20)]
    seconds: u64,

    /// How often each build is measured
    #[arg(long, default_value_t = 5)]
    runs: usize,

    /// Have each run begin with new objects, and measure until all have their first status
    #[arg(long)]
    first_status: bool,

    /// Further arguments of the operator
    #[arg(last = true)]
    further: Vec<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok()
        .context("another TLS provider is installed already")?;
    let cloud = Cloud::start().await?;
    let objects = Objects::prepare(&cloud.url(), args.objects).await?;
    if !args.first_status {
        objects.create().await?;
    }
    let mut results: Vec<Vec<Value>> = vec![Vec::new(); args.operators.len()];
    for run in 0..args.runs {
        let mut order: Vec<usize> = (0..args.operators.len()).collect();
        if run % 2 == 1 {
            order.reverse();
        }
        for build in order {
            let result = if args.first_status {
                first_statuses(&args, build, &objects).await?
            } else {
                polls(&args, build, &objects, &cloud).await?
            };
            println!("{result}");
            results[build].push(result);
        }
    }
    for (build, results) in args.operators.iter().zip(&results) {
        eprintln!("{}", build.display());
        for name in [
            "cpu_seconds_per_10000_polls",
            "cpu_seconds",
            "seconds",
            "rss_mib",
            "anonymous_mib",
        ] {
            let mut values: Vec<f64> = results.iter().filter_map(|r| r[name].as_f64()).collect();
            values.sort_by(f64::total_cmp);
            if let (Some(least), Some(most)) = (values.first(), values.last()) {
                let median = values[values.len() / 2];
                eprintln!("  {name}: {median:.3} ({least:.3} to {most:.3})");
            }
        }
    }
    Ok(())
}

fn start(args: &Args, build: usize, objects: &Objects) -> anyhow::Result<Operator> {
    let period = (f64::from(args.objects) / args.rate).ceil().max(1.0);
    let mut arguments = vec![
        format!("--poll-period={period}"),
        "--polls-per-second=1000".to_owned(),
        "--allow-http".to_owned(),
    ];
    arguments.extend(args.further.iter().cloned());
    Operator::start(&args.operators[build], &objects.kubeconfig()?, &arguments)
}

/// What polls without a change cost.
async fn polls(
    args: &Args,
    build: usize,
    objects: &Objects,
    cloud: &Cloud,
) -> anyhow::Result<Value> {
    let operator = start(args, build, objects)?;
    let before = cloud.answered();
    while cloud.answered() < before + 2 * u64::from(args.objects) {
        operator.check()?;
        sleep(Duration::from_millis(100)).await;
    }
    let (started, cost, answered) = (Instant::now(), operator.cost()?, cloud.answered());
    let cloud_cpu = process::own_cpu()?;
    sleep(Duration::from_secs(args.seconds)).await;
    let cost = operator.cost()? - cost;
    let (polls, elapsed) = (cloud.answered() - answered, started.elapsed().as_secs_f64());
    let cloud_cpu = process::own_cpu()?.saturating_sub(cloud_cpu);
    let cloud_share = cloud_cpu.as_secs_f64() / elapsed;
    anyhow::ensure!(
        cloud_share < 0.7,
        "void: the cloud used {cloud_share:.2} of a processor"
    );
    let polls = f64::from(u32::try_from(polls)?);
    let memory = operator.memory()?;
    Ok(json!({
        "operator": args.operators[build],
        "objects": args.objects,
        "polls_per_second": polls / elapsed,
        "cpu_seconds_per_10000_polls": cost.cpu.as_secs_f64() / polls * 1e4,
        "context_switches_per_poll": f64::from(u32::try_from(cost.switches)?) / polls,
        "rss_mib": memory.rss,
        "anonymous_mib": memory.anonymous,
        "cloud_share": cloud_share,
    }))
}

/// How long it takes, and what it costs, until all of many new objects have their first status.
async fn first_statuses(args: &Args, build: usize, objects: &Objects) -> anyhow::Result<Value> {
    objects.recreate().await?;
    let operator = start(args, build, objects)?;
    let started = Instant::now();
    objects.all_have_a_status(|| operator.check()).await?;
    let elapsed = started.elapsed().as_secs_f64();
    let Cost { cpu, .. } = operator.cost()?;
    let memory = operator.memory()?;
    Ok(json!({
        "operator": args.operators[build],
        "objects": args.objects,
        "seconds": elapsed,
        "cpu_seconds": cpu.as_secs_f64(),
        "rss_mib": memory.rss,
        "anonymous_mib": memory.anonymous,
    }))
}
