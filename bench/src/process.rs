//! A process of the operator, and what it costs. From `/proc`, so on Linux alone.

use anyhow::{Context, ensure};
use std::{env, fs, ops::Sub, path::Path, process, process::Command, time::Duration};
use testbed::process::{Output, Supervised, last_lines};

/// A running operator; ends when dropped.
pub struct Operator(Supervised);

/// What a process has used since its start.
#[derive(Clone, Copy)]
pub struct Cost {
    pub cpu: Duration,
    /// Context switches of all threads.
    pub switches: u64,
}

impl Sub for Cost {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(other.cpu),
            switches: self.switches.saturating_sub(other.switches),
        }
    }
}

/// In MiB.
pub struct Memory {
    pub rss: f64,
    pub anonymous: f64,
}

impl Operator {
    /// Its errors go to a file in the temporary folder.
    pub fn start(program: &Path, kubeconfig: &Path, arguments: &[String]) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command
            .args(["run", "--http-listen=127.0.0.1:0", "--log-level=error"])
            .args(arguments)
            .env("KUBECONFIG", kubeconfig);
        let log = env::temp_dir().join(format!("image-export-bench-{}.log", process::id()));
        let process = Supervised::spawn(&command, Output::Merged(log));
        Ok(Self(
            process.with_context(|| program.display().to_string())?,
        ))
    }

    /// Fails once it has ended.
    pub fn check(&self) -> anyhow::Result<()> {
        let log = || last_lines(self.0.output().stderr(), 15);
        ensure!(self.0.is_running(), "the operator has ended: {}", log());
        Ok(())
    }

    pub fn cost(&self) -> anyhow::Result<Cost> {
        cost(&self.0.pid().to_string())
    }

    pub fn memory(&self) -> anyhow::Result<Memory> {
        let mib = |line: &str| -> anyhow::Result<f64> {
            let kib = testbed::process::memory(self.0.pid(), line)? / 1024;
            Ok(f64::from(u32::try_from(kib)?) / 1024.0)
        };
        Ok(Memory {
            rss: mib("VmRSS")?,
            anonymous: mib("RssAnon")?,
        })
    }
}

/// The CPU time of this process, which is the cloud's.
pub fn own_cpu() -> anyhow::Result<Duration> {
    Ok(cost("self")?.cpu)
}

/// Of the threads that live: in nanoseconds, where `stat` has hundredths of a second.
fn cost(process: &str) -> anyhow::Result<Cost> {
    let mut cost = Cost {
        cpu: Duration::ZERO,
        switches: 0,
    };
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let thread = thread?.path();
        // It may end meanwhile.
        let Ok(schedule) = fs::read_to_string(thread.join("schedstat")) else {
            continue;
        };
        let ran = schedule.split_whitespace().next().context("schedstat")?;
        cost.cpu += Duration::from_nanos(ran.parse()?);
        let status = fs::read_to_string(thread.join("status")).unwrap_or_default();
        let switches = status.lines().filter_map(|line| {
            let (name, count) = line.split_once(':')?;
            name.ends_with("ctxt_switches")
                .then(|| count.trim().parse::<u64>().ok())?
        });
        cost.switches += switches.sum::<u64>();
    }
    Ok(cost)
}
