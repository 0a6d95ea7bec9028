//! The metrics of the process itself, under the names of the Prometheus client libraries. Read from `/proc` with
//! each scrape; on a system without it there are none.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};
use std::{
    fmt::Error,
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

/// Ticks a second of `/proc/self/stat`: Linux shows programs 100, whatever its own rate.
const TICKS: f64 = 100.0;

#[derive(Debug)]
pub(super) struct Process {
    /// In seconds since the epoch.
    started: f64,
}

/// What `/proc` shows.
#[derive(Debug, Default, PartialEq)]
struct Figures {
    cpu_seconds: f64,
    resident_bytes: f64,
    virtual_bytes: f64,
    open_files: f64,
    most_open_files: f64,
}

impl Process {
    /// A process that has just started.
    pub(super) fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            started: since_epoch.unwrap_or_default().as_secs_f64(),
        }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let Some(figures) = Figures::read() else {
            return Ok(());
        };
        let mut gauge = |name, help, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        let resident = "Resident memory in bytes.";
        gauge(
            "process_resident_memory_bytes",
            resident,
            figures.resident_bytes,
        )?;
        let virtual_ = "Virtual memory in bytes.";
        gauge(
            "process_virtual_memory_bytes",
            virtual_,
            figures.virtual_bytes,
        )?;
        gauge(
            "process_open_fds",
            "Open file descriptors.",
            figures.open_files,
        )?;
        let most = "Largest possible number of open file descriptors.";
        gauge("process_max_fds", most, figures.most_open_files)?;
        let started = "Start time of the process, in seconds since the epoch.";
        gauge("process_start_time_seconds", started, self.started)?;
        let cpu = ConstCounter::new(figures.cpu_seconds);
        let help = "User and system CPU time spent, in seconds.";
        cpu.encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            help,
            None,
            cpu.metric_type(),
        )?)
    }
}

impl Figures {
    fn read() -> Option<Self> {
        let file = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).ok();
        let files = fs::read_dir("/proc/self/fd").ok()?.count();
        let parsed = Self::parse(&file("stat")?, &file("status")?, &file("limits")?)?;
        Some(Self {
            // The folder that is being read is one of them.
            open_files: f64::from(u32::try_from(files.saturating_sub(1)).ok()?),
            ..parsed
        })
    }

    fn parse(stat: &str, status: &str, limits: &str) -> Option<Self> {
        // The name of the program, in parentheses, may hold spaces.
        let (_, stat) = stat.rsplit_once(')')?;
        let ticks = |field| stat.split_whitespace().nth(field)?.parse::<f64>().ok();
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let value = line.trim().strip_suffix(" kB")?;
            Some(value.parse::<f64>().ok()? * 1024.0)
        };
        let most = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"));
        Some(Self {
            cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS,
            resident_bytes: kib("VmRSS:")?,
            virtual_bytes: kib("VmSize:")?,
            open_files: 0.0,
            most_open_files: most?
                .split_whitespace()
                .next()?
                .parse()
                .unwrap_or(f64::INFINITY),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_proc_are_understood() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194304 900 0 0 0 120 30 0 0 20 0 4 0 5000 1 1";
        let status = "Name:\tx\nVmSize:\t   2048 kB\nVmRSS:\t    1024 kB\n";
        let limits =
            "Limit Soft Limit\nMax open files            1024                 4096 files\n";
        let figures = Figures {
            cpu_seconds: 1.5,
            resident_bytes: 1_048_576.0,
            virtual_bytes: 2_097_152.0,
            open_files: 0.0,
            most_open_files: 1024.0,
        };
        assert_eq!(Figures::parse(stat, status, limits), Some(figures));
        assert_eq!(Figures::parse("", status, limits), None);
    }
}
