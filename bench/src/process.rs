//! A process of the operator, and what it costs. From `/proc`, so on Linux alone.

use anyhow::Context;
use std::{
    fs,
    ops::Sub,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

/// A running operator; ends when dropped.
pub struct Operator(Mutex<Child>);

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
    pub fn start(program: &Path, kubeconfig: &Path, arguments: &[String]) -> anyhow::Result<Self> {
        let child = Command::new(program)
            .args(["run", "--http-listen=127.0.0.1:0", "--log-level=error"])
            .args(arguments)
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| program.display().to_string())?;
        Ok(Self(Mutex::new(child)))
    }

    /// Fails once it has ended.
    pub fn check(&self) -> anyhow::Result<()> {
        let mut child = self.0.lock().expect("no panic under the lock");
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("the operator has ended: {status}"),
        }
    }

    fn folder(&self) -> String {
        let child = self.0.lock().expect("no panic under the lock");
        format!("/proc/{}", child.id())
    }

    pub fn cost(&self) -> anyhow::Result<Cost> {
        cost(&self.folder())
    }

    pub fn memory(&self) -> anyhow::Result<Memory> {
        let status = fs::read_to_string(format!("{}/status", self.folder()))?;
        let mib = |name: &str| -> anyhow::Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
            Ok(kib.context("no such line")?.trim().parse::<f64>()? / 1024.0)
        };
        Ok(Memory {
            rss: mib("VmRSS:")?,
            anonymous: mib("RssAnon:")?,
        })
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let mut child = self.0.lock().expect("no panic under the lock");
        // It may have ended.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The CPU time of this process, which is the cloud's.
pub fn own_cpu() -> anyhow::Result<Duration> {
    Ok(cost("/proc/self")?.cpu)
}

/// Of the threads that live: in nanoseconds, where `stat` has hundredths of a second.
fn cost(folder: &str) -> anyhow::Result<Cost> {
    let mut cost = Cost {
        cpu: Duration::ZERO,
        switches: 0,
    };
    for thread in fs::read_dir(format!("{folder}/task"))? {
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
