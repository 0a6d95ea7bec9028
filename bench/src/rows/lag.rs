//! How long after a job's end it is known and shown: while few end, and in a storm of ends.

use crate::{
    bench::Bench,
    cloud::Job,
    cluster::{Layout, NAMESPACE},
    peers::{Launch, Subject},
    watch::Shown,
};
use anyhow::ensure;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Longer than any run.
const NO_END: SignedDuration = SignedDuration::from_hours(24);
const LONGEST: Duration = Duration::from_mins(7);

/// What ends when.
#[derive(Clone, Copy)]
struct Ends {
    layout: Layout,
    period: u64,
    /// Seconds within which all jobs end, evenly.
    within: u32,
}

/// A fixed period of 30 s for 10,000 objects, scaled to a third.
pub async fn calm(bench: &mut Bench) -> anyhow::Result<()> {
    let count = bench.many * 3 / 10;
    let ends = Ends {
        layout: Layout::many_projects(count),
        period: 10,
        within: 90,
    };
    rows(bench, "lag", ends).await
}

pub async fn storm(bench: &mut Bench) -> anyhow::Result<()> {
    let ends = Ends {
        layout: Layout::many_projects(bench.many),
        period: 30,
        within: 70,
    };
    rows(bench, "storm", ends).await
}

async fn rows(bench: &mut Bench, row: &str, ends: Ends) -> anyhow::Result<()> {
    let Ends { layout, period, .. } = ends;
    let case = format!("{} objects, {period} s", layout.count);
    let subjects = bench.subjects_for(layout.count);
    bench
        .paired(row, &case, &subjects, async |bench, subject| {
            bench.objects.recreate(layout).await?;
            let figures = measure(bench, subject, ends).await;
            bench.cloud.take_jobs();
            figures
        })
        .await
}

async fn measure(bench: &mut Bench, subject: Subject, ends: Ends) -> anyhow::Result<Value> {
    let Ends { layout, period, .. } = ends;
    let now = Timestamp::now();
    let jobs = (0..layout.count).map(|n| (layout.path(n), Job::running(now, now + NO_END)));
    bench.cloud.add_jobs(jobs);
    let running = bench.start(subject, &Launch::every(period))?;
    let writes = bench.begin(&running).await?;
    let started = Instant::now();
    loop {
        let written = bench.end(&running, &writes).await?.server.status_writes;
        if written >= f64::from(layout.count) {
            break;
        }
        ensure!(started.elapsed() < LONGEST, "no first status of all");
        sleep(Duration::from_secs(1)).await;
    }
    bench.no_writes(&running, LONGEST).await?;

    let shown = Shown::watch(bench.objects.jobs(NAMESPACE)).await?;
    let first = Timestamp::now() + SignedDuration::from_secs(2);
    let within = SignedDuration::from_secs(ends.within.into());
    // Neighbours in number do not end one after the other.
    let order = |n: u32| u64::from(n) * 7919 % u64::from(layout.count);
    let end = |n: u32| {
        let place = i32::try_from(order(n)).unwrap_or(0);
        first + within * place / i32::try_from(layout.count).unwrap_or(1)
    };
    let jobs = (0..layout.count).map(|n| (layout.path(n), Job::running(now, end(n))));
    bench.cloud.add_jobs(jobs);
    let begun = bench.begin(&running).await?;
    sleep(Duration::from_secs(u64::from(ends.within) + 2)).await;
    let measured = bench.end(&running, &begun).await?;
    let ended = Instant::now();
    while shown.count() < layout.count as usize && ended.elapsed() < LONGEST {
        running.check()?;
        sleep(Duration::from_millis(500)).await;
    }
    let known = bench.cloud.take_jobs();
    let known = known
        .values()
        .filter_map(|job| Some(since(job.ends, job.end_answered?)));
    let times = shown.times();
    let shown = (0..layout.count).filter_map(|n| Some(since(end(n), *times.get(&n)?)));
    let (known, shown) = (Lags::of(known), Lags::of(shown));
    Ok(json!({
        "known_p50": known.quantile(0.5),
        "known_p99": known.quantile(0.99),
        "shown_p50": shown.quantile(0.5),
        "shown_p99": shown.quantile(0.99),
        "shown_max": shown.quantile(1.0),
        "shown": shown.0.len(),
        "polls_per_second": measured.polls / measured.seconds,
        "cpu_share": measured.cpu / measured.seconds,
        "server_cpu_share": measured.server.cpu_seconds / measured.seconds,
        "refused": measured.server.refused,
        "cloud_share": measured.cloud_share,
    }))
}

pub fn since(end: Timestamp, seen: Timestamp) -> f64 {
    seen.duration_since(end).as_secs_f64()
}

/// Lags in seconds, from the least to the most.
pub struct Lags(pub Vec<f64>);

impl Lags {
    pub fn of(lags: impl Iterator<Item = f64>) -> Self {
        let mut lags: Vec<_> = lags.collect();
        lags.sort_by(f64::total_cmp);
        Self(lags)
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let last = self.0.len().checked_sub(1)?;
        Some(self.0[(q * last as f64).round() as usize])
    }

    #[allow(clippy::cast_precision_loss)]
    pub fn mean(&self) -> Option<f64> {
        let count = self.0.len();
        (count > 0).then(|| self.0.iter().sum::<f64>() / count as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_lags() {
        let lags = Lags::of((0..=100).rev().map(f64::from));
        let quantiles = [0.0, 0.5, 0.99, 1.0].map(|q| lags.quantile(q).unwrap());
        assert_eq!(format!("{quantiles:?}"), "[0.0, 50.0, 99.0, 100.0]");
        assert_eq!(lags.mean(), Some(50.0));
        assert_eq!(Lags(Vec::new()).quantile(0.5), None);
    }
}
