//! The operator's two modes at the same time, each with the same jobs: short, middling and long ones that come and go,
//! looked at for some minutes. Both have finished objects to learn from.

use super::lag::{Lags, since};
use crate::{
    bench::{Bench, number},
    cloud::Job,
    cluster::Layout,
    peers::{Launch, Subject},
    plan::plan,
    process::Running,
};
use anyhow::ensure;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::{collections::HashMap, time::Duration};
use tokio::time::sleep;

const CASE: &str = "jobs of 2 min, 15 min and 4 h; period 60 s";
/// Namespaces and subjects.
const MODES: [(&str, &str); 2] = [
    ("bench-fixed", "operator"),
    ("bench-adaptive", "operator adaptive"),
];
const PERIOD: u64 = 60;
const WARM_UP: Duration = Duration::from_mins(2);
const WINDOW: Duration = Duration::from_mins(5);
/// So that the last ends of the window are known.
const TAIL: Duration = Duration::from_secs(90);
/// Longer than a run.
const LONGEST: SignedDuration = SignedDuration::from_mins(20);

pub async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    bench.objects.recreate(Layout::many_projects(0)).await?;
    let clouds = bench.cloud.urls().to_vec();
    for (namespace, _) in MODES {
        bench.objects.add_namespace(namespace, &clouds)?;
    }
    for run in 0..bench.runs {
        let measured = measure(bench, run).await;
        bench.cloud.take_jobs();
        let figures = match measured {
            Ok(figures) => figures.map(Ok),
            Err(error) => [(); 2].map(|()| Err(anyhow::anyhow!("{error:#}"))),
        };
        for ((namespace, subject), figures) in MODES.into_iter().zip(figures) {
            bench.keep("adaptive", CASE, run, subject, figures)?;
            bench.objects.clear(namespace).await?;
        }
    }
    Ok(())
}

async fn measure(bench: &Bench, run: u64) -> anyhow::Result<[Value; 2]> {
    let now = Timestamp::now();
    let jobs = plan(run, f64::from(bench.many) / 2.0, now, LONGEST);
    let layouts = MODES.map(|(namespace, _)| Layout {
        namespace,
        ..Layout::many_projects(u32::try_from(jobs.len()).unwrap_or(u32::MAX))
    });
    let first = jobs.partition_point(|job| job.begins <= now);
    let mut numbers = 0_u32..;
    let mut add = |jobs: &[Job]| -> Vec<u32> {
        let added: Vec<u32> = numbers.by_ref().take(jobs.len()).collect();
        for layout in layouts {
            let paths = added.iter().map(|n| layout.path(*n));
            bench.cloud.add_jobs(paths.zip(jobs.iter().cloned()));
        }
        added
    };
    let existing = add(&jobs[..first]);
    for layout in layouts {
        bench
            .objects
            .create(layout, existing.iter().copied())
            .await?;
    }
    let arrivals = async {
        for job in &jobs[first..] {
            let wait = job.begins.duration_since(Timestamp::now());
            sleep(Duration::try_from(wait).unwrap_or_default()).await;
            let added = add(std::slice::from_ref(job));
            for layout in layouts {
                bench.objects.create(layout, added.iter().copied()).await?;
            }
        }
        anyhow::bail!("no more jobs begin")
    };
    tokio::select! {
        figures = look(bench, first) => figures,
        ended = arrivals => ended,
    }
}

/// Runs both modes, and looks at what they do in the window.
async fn look(bench: &Bench, existing: usize) -> anyhow::Result<[Value; 2]> {
    let start = |adaptive, namespace| {
        let launch = Launch {
            adaptive,
            namespace: Some(namespace),
            ..Launch::every(PERIOD)
        };
        bench.start(Subject::OPERATOR, &launch)
    };
    let running: [Running; 2] = [start(false, MODES[0].0)?, start(true, MODES[1].0)?];
    let enough = 2 * u64::try_from(existing)?;
    bench
        .polls(&running[0], enough, Duration::from_mins(5))
        .await?;
    sleep(WARM_UP).await;
    let (begins, before) = (Timestamp::now(), polls(bench));
    sleep(WINDOW).await;
    let (ends, after) = (Timestamp::now(), polls(bench));
    sleep(TAIL).await;
    let now = Timestamp::now();
    for running in &running {
        running.check()?;
    }
    let figures = MODES.map(|(namespace, _)| {
        let lags = bench.cloud.with_jobs(|jobs| {
            let of_mode = jobs.iter().filter(|(path, _)| mode_of(path) == namespace);
            let ended = of_mode.filter(|(_, job)| (begins..ends).contains(&job.ends));
            Lags::of(ended.map(|(_, job)| since(job.ends, job.end_answered.unwrap_or(now))))
        });
        let polls = number(after[namespace] - before[namespace]);
        let ended = lags.0.len();
        json!({
            "ended": ended,
            "polls_per_job": polls / number(ended as u64),
            "polls_per_second": polls / WINDOW.as_secs_f64(),
            "known_mean": lags.mean(),
            "known_p50": lags.quantile(0.5),
            "known_p99": lags.quantile(0.99),
        })
    });
    ensure!(figures[0]["ended"] != json!(0), "no job has ended");
    Ok(figures)
}

/// Polls of each mode so far.
fn polls(bench: &Bench) -> HashMap<&'static str, u64> {
    bench.cloud.with_jobs(|jobs| {
        let polls = MODES.map(|(namespace, _)| {
            let of_mode = jobs.iter().filter(|(path, _)| mode_of(path) == namespace);
            (namespace, of_mode.map(|(_, job)| job.polls).sum())
        });
        HashMap::from(polls)
    })
}

/// The namespace that a path's project begins with.
fn mode_of(path: &str) -> &str {
    let project = path.split('/').nth(2).unwrap_or_default();
    project
        .rsplit_once('-')
        .map_or("", |(namespace, _)| namespace)
}
