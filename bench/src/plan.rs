//! Jobs that come and go: a moment of a long time in which as many begin as end.

use crate::cloud::Job;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::f64::consts::TAU;

/// Types and their median durations in seconds; as many jobs of each begin.
const TYPES: [(&str, f64); 3] = [("short", 120.0), ("middling", 900.0), ("long", 14_400.0)];
/// Of the logarithm of a duration.
const SIGMA: f64 = 0.3;
/// Jobs of each type that have ended before, to learn from.
const ENDED: u32 = 60;

/// The jobs that exist at a moment, and those that begin within the time after it, in that order.
pub fn plan(seed: u64, running: f64, now: Timestamp, after: SignedDuration) -> Vec<Job> {
    let mut random = Random(seed.wrapping_mul(2).wrapping_add(1));
    let mean = (SIGMA * SIGMA / 2.0).exp() * TYPES.iter().map(|(_, median)| median).sum::<f64>();
    let between = mean / running;
    let seconds = SignedDuration::from_secs_f64;
    let mut jobs = Vec::new();
    for (kind, median) in TYPES {
        for _ in 0..ENDED {
            let end = now - SignedDuration::from_secs(60);
            jobs.push(job(kind, end - seconds(random.duration(median)), end));
        }
        // Longer than nearly all jobs last.
        let mut begins = now - seconds(median * 4.0);
        while begins < now + after {
            begins += seconds(random.exponential(between));
            let end = begins + seconds(random.duration(median));
            if end > now {
                jobs.push(job(kind, begins, end));
            }
        }
    }
    jobs.sort_by_key(|job| job.begins);
    jobs
}

fn job(kind: &'static str, begins: Timestamp, ends: Timestamp) -> Job {
    Job {
        kind,
        ..Job::running(begins, ends)
    }
}

/// The same numbers in each session.
struct Random(u64);

impl Random {
    /// Between 0 and 1, neither of them.
    #[allow(clippy::cast_precision_loss)]
    fn uniform(&mut self) -> f64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((z >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.uniform().ln()
    }

    /// Log-normal.
    fn duration(&mut self, median: f64) -> f64 {
        let normal = (-2.0 * self.uniform().ln()).sqrt() * (TAU * self.uniform()).cos();
        median * (SIGMA * normal).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_jobs_run_as_are_wanted_at_the_moment_and_later() {
        let now = Timestamp::now();
        let hour = SignedDuration::from_hours(1);
        let jobs = plan(7, 2000.0, now, hour);
        for time in [now, now + hour] {
            let running = jobs
                .iter()
                .filter(|job| job.begins <= time && time < job.ends);
            let running = running.count();
            assert!((1850..2150).contains(&running), "{running}");
        }
        let ended = jobs.iter().filter(|job| job.ends <= now).count();
        assert_eq!(ended, 3 * ENDED as usize);
        assert_eq!(plan(7, 2000.0, now, hour).len(), jobs.len());
    }
}
