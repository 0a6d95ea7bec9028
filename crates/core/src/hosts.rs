//! Hosts at which polls fail: the first success there ends the error backoff of all objects.

use crate::{
    config::Config,
    keys::{HostKey, JobKey},
};
use image_export_model::Stage;
use slotmap::SlotMap;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

#[derive(Debug)]
struct Host {
    name: (Stage, Arc<str>),
    /// Objects that wait for the end of their backoff after a failure here.
    waiting: BTreeSet<JobKey>,
    /// Failures since the latest success here.
    failures: u32,
    /// When the first of them was.
    since: Duration,
}

/// The hosts at which the latest poll of an object failed, those of the identity services apart.
#[derive(Debug, Default)]
pub struct Hosts {
    hosts: SlotMap<HostKey, Host>,
    by_name: HashMap<(Stage, Arc<str>), HostKey>,
}

impl Hosts {
    /// Applies that the poll of an object failed at this host, after which it waits.
    pub fn apply_failure(
        &mut self,
        at: Duration,
        stage: Stage,
        host: &Arc<str>,
        job: JobKey,
    ) -> HostKey {
        let name = (stage, host.clone());
        let hosts = &mut self.hosts;
        let key = *self.by_name.entry(name).or_insert_with_key(|name| {
            hosts.insert(Host {
                name: name.clone(),
                waiting: BTreeSet::new(),
                failures: 0,
                since: at,
            })
        });
        let host = &mut hosts[key];
        if host.failures == 0 {
            host.since = at;
        }
        host.failures = host.failures.saturating_add(1);
        host.waiting.insert(job);
        key
    }

    /// An object waits no longer after a failure at this host.
    pub fn leave(&mut self, key: HostKey, job: JobKey) {
        let Some(host) = self.hosts.get_mut(key) else {
            return;
        };
        host.waiting.remove(&job);
        if host.waiting.is_empty()
            && let Some(host) = self.hosts.remove(key)
        {
            self.by_name.remove(&host.name);
        }
    }

    /// Applies that a poll succeeded at this host. Returns the objects whose backoff that ends: all, after an
    /// outage. Single failures may be those of one job.
    pub fn apply_success(
        &mut self,
        config: &Config,
        at: Duration,
        stage: Stage,
        host: &Arc<str>,
    ) -> BTreeSet<JobKey> {
        if self.hosts.is_empty() {
            return BTreeSet::new();
        }
        let name = (stage, host.clone());
        let Some(&key) = self.by_name.get(&name) else {
            return BTreeSet::new();
        };
        let host = &mut self.hosts[key];
        let failures = std::mem::take(&mut host.failures);
        let time = at.saturating_sub(host.since);
        if failures < config.failure_polls || time < config.outage_grace {
            return BTreeSet::new();
        }
        self.by_name.remove(&name);
        let host = self.hosts.remove(key);
        host.map(|host| host.waiting).unwrap_or_default()
    }

    /// Names and sizes of what is held of hosts.
    #[cfg(test)]
    pub fn sizes(&self) -> [(&'static str, usize); 2] {
        [
            ("hosts", self.hosts.len()),
            ("names of hosts", self.by_name.len()),
        ]
    }
}
