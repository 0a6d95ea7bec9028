//! The gateway's throttling: so many job queries a period and project, then 429 until it is over.

use super::{Answer, refusal};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// How many job queries of one project pass in one period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Queries that pass.
    pub requests: u64,
    /// Length of a period; it starts with the first query after the one before is over.
    pub per: Duration,
}

#[derive(Default)]
pub(super) struct Throttle {
    quota: Option<Quota>,
    /// Start of the project's period, and what has passed in it.
    periods: HashMap<String, (Instant, u64)>,
}

impl Throttle {
    pub(super) fn new(quota: Option<Quota>) -> Self {
        Self {
            quota,
            periods: HashMap::new(),
        }
    }

    /// Counts one more query of this project, or rejects it. A rejected one is not counted.
    pub(super) fn admit(&mut self, project: &str, now: Instant) -> Result<(), Answer> {
        let Some(quota) = self.quota else {
            return Ok(());
        };
        let (since, passed) = self.periods.entry(project.to_owned()).or_insert((now, 0));
        if now.saturating_duration_since(*since) >= quota.per {
            (*since, *passed) = (now, 0);
        }
        if *passed >= quota.requests {
            return Err(refusal::throttled(quota));
        }
        *passed += 1;
        Ok(())
    }
}
