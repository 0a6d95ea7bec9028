//! What the operator costs beside what a team would write itself: with kube-rs, controller-runtime or kopf, as their
//! documentation shows it and tuned. On a real API server and a cloud that costs next to nothing.

mod bench;
mod build;
mod cloud;
mod cluster;
mod conditions;
mod peers;
mod plan;
mod plot;
mod process;
mod report;
mod results;
mod rows;
mod server;
mod tables;
mod watch;

use anyhow::Context;
use bench::Bench;
use clap::Parser;
use cloud::Cloud;
use cluster::Objects;
use k8s_openapi::jiff::Timestamp;
use peers::Subject;
use results::Results;
use std::{path::PathBuf, time::Duration};

/// Measures image-export-operator and its peers side by side, and writes docs/benchmark.md.
///
/// Conditions: a kube-apiserver with etcd, and a cloud that answers at once, over http/1.1 on loopback, all on this
/// machine. Subjects are measured in the order A B B A, as a machine differs more from one minute to the next than
/// they do. CPU is user and system time of all threads of a subject.
#[derive(Parser)]
struct Args {
    /// What to measure, with commas between; a row that is measured again replaces what was measured of it
    #[arg(long, value_delimiter = ',', default_values = rows::ALL)]
    rows: Vec<String>,

    /// Peers to measure, with commas between: kube-rs-tuned, kube-rs, controller-runtime-tuned, controller-runtime,
    /// kopf; or none. Without it, all
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,

    /// A build of the operator; give several to compare them. Without it, that of this repository
    #[arg(long = "operator", value_name = "FILE")]
    operators: Vec<PathBuf>,

    /// How often each subject is measured
    #[arg(long, default_value_t = 5)]
    runs: u64,

    /// Seconds for which a run is measured, in rows that have no time of their own
    #[arg(long, default_value_t = 20)]
    seconds: u64,

    /// Objects of the rows that have many
    #[arg(long, default_value_t = 10_000)]
    objects: u32,

    /// File of all results, one a line
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results.jsonl"))]
    results: PathBuf,

    /// Make the page from the results, without measuring
    #[arg(long)]
    report: bool,

    /// The page with tables and plots
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmark.md"))]
    page: PathBuf,

    /// Further arguments of the operator
    #[arg(last = true)]
    further: Vec<String>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut results = Results::open(&args.results, Timestamp::now().to_string())?;
    if args.report {
        return report::write(&results, &args.page);
    }
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok()
        .context("another TLS provider is installed already")?;
    let subjects = Subject::select(args.operators.len().max(1), &args.peers)?;
    let cloud = Cloud::start()?;
    let starter = build::all(&subjects, &args.operators, &args.further, cloud.url())?;
    let conditions = conditions::read();
    eprintln!("{conditions:#}");
    results.add_conditions(&conditions)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let objects = Objects::prepare(cloud.urls()).await?;
        let mut bench = Bench {
            cloud,
            objects,
            starter,
            subjects,
            results,
            runs: args.runs,
            window: Duration::from_secs(args.seconds),
            many: args.objects,
        };
        for row in &args.rows {
            rows::run(row, &mut bench).await?;
            report::write(&bench.results, &args.page)?;
        }
        Ok(())
    })
}
