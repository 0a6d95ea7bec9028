//! A process of an operator, and what it costs. From `/proc`, so on Linux alone.

use anyhow::{Context, bail, ensure};
use std::{
    collections::HashMap,
    env, fs,
    path::PathBuf,
    process::{self, Command},
    time::Duration,
};
use testbed::process::{Output, Supervised, last_lines};

/// A running operator; ends when dropped.
pub struct Running(Supervised);

/// What threads have used.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    pub cpu: Duration,
    /// Context switches.
    pub switches: u64,
}

/// What the threads that live have used since they began.
pub struct Costs(HashMap<PathBuf, Cost>);

impl Costs {
    /// What has been used since an earlier time, but for the threads that ended meanwhile.
    pub fn since(&self, earlier: &Self) -> Cost {
        let mut all = Cost::default();
        for (thread, cost) in &self.0 {
            let before = earlier.0.get(thread).copied().unwrap_or_default();
            all.cpu += cost.cpu.saturating_sub(before.cpu);
            all.switches += cost.switches.saturating_sub(before.switches);
        }
        all
    }
}

/// In MiB.
pub struct Memory {
    /// The most it has had.
    pub rss_max: f64,
    pub rss: f64,
    pub anonymous: f64,
}

impl Running {
    /// Its output goes to a file in the temporary folder.
    pub fn start(command: &Command) -> anyhow::Result<Self> {
        let log = env::temp_dir().join(format!("image-export-bench-{}.log", process::id()));
        let _ = fs::remove_file(&log);
        let process = Supervised::spawn(command, Output::Merged(log));
        Ok(Self(process.context("it does not start")?))
    }

    /// Fails once it has ended, and shows its last words.
    pub fn check(&self) -> anyhow::Result<()> {
        if !self.0.is_running() {
            eprintln!("{}", last_lines(self.0.output().stderr(), 15));
            bail!("it has ended");
        }
        Ok(())
    }

    pub fn costs(&self) -> anyhow::Result<Costs> {
        costs(&self.0.pid().to_string(), None)
    }

    pub fn memory(&self) -> anyhow::Result<Memory> {
        let mib = |line: &str| -> anyhow::Result<f64> {
            let kib = testbed::process::memory(self.0.pid(), line)? / 1024;
            Ok(f64::from(u32::try_from(kib)?) / 1024.0)
        };
        Ok(Memory {
            rss_max: mib("VmHWM")?,
            rss: mib("VmRSS")?,
            anonymous: mib("RssAnon")?,
        })
    }
}

/// The CPU time of the threads of this process that have this name.
pub fn own_thread_cpu(name: &str) -> anyhow::Result<Duration> {
    let costs = costs("self", Some(name))?;
    Ok(costs.0.values().map(|cost| cost.cpu).sum())
}

/// Keeps this process on these processors.
pub fn pin_self(processors: &str) -> anyhow::Result<()> {
    let mut taskset = Command::new("taskset");
    taskset
        .args(["--all-tasks", "--cpu-list", "--pid", processors])
        .arg(process::id().to_string());
    let output = taskset.output().context("taskset")?;
    ensure!(output.status.success(), "taskset: {}", output.status);
    Ok(())
}

/// In nanoseconds, where `stat` has hundredths of a second.
fn costs(process: &str, thread_name: Option<&str>) -> anyhow::Result<Costs> {
    let mut costs = HashMap::new();
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let thread = thread?.path();
        if let Some(name) = thread_name {
            let found = fs::read_to_string(thread.join("comm")).unwrap_or_default();
            if found.trim() != name {
                continue;
            }
        }
        // It may end meanwhile.
        let Ok(schedule) = fs::read_to_string(thread.join("schedstat")) else {
            continue;
        };
        let ran = schedule.split_whitespace().next().context("schedstat")?;
        let cpu = Duration::from_nanos(ran.parse()?);
        let status = fs::read_to_string(thread.join("status")).unwrap_or_default();
        let switches = status.lines().filter_map(|line| {
            let (name, count) = line.split_once(':')?;
            name.ends_with("ctxt_switches")
                .then(|| count.trim().parse::<u64>().ok())?
        });
        let switches = switches.sum();
        costs.insert(thread, Cost { cpu, switches });
    }
    Ok(Costs(costs))
}
