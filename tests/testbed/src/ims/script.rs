//! Scripts: answers that stand before the simulated services, for one job, all jobs or the login.

use super::{Answer, JobKey};
use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

/// Which requests a script speaks for. A script for one job goes before the one for all jobs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Queries of this job.
    Job(JobKey),
    /// Queries of any job.
    Jobs,
    /// Logins (`POST /v3/auth/tokens`).
    Login,
}

impl From<JobKey> for Target {
    fn from(key: JobKey) -> Self {
        Self::Job(key)
    }
}

/// When an outage starts to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutageStart {
    /// At once.
    #[default]
    Now,
    /// With the first request that meets it.
    FirstQuery,
}

struct Outage {
    answer: Answer,
    lasts: Duration,
    since: Option<Instant>,
}

#[derive(Default)]
struct Script {
    queue: VecDeque<Answer>,
    outage: Option<Outage>,
    forever: Option<Answer>,
}

impl Script {
    /// The queue first, one answer a request; then the outage while it lasts; then the lasting answer.
    fn next(&mut self, now: Instant) -> Option<Answer> {
        if let Some(answer) = self.queue.pop_front() {
            return Some(answer);
        }
        if let Some(outage) = &mut self.outage {
            let since = *outage.since.get_or_insert(now);
            if now.saturating_duration_since(since) < outage.lasts {
                return Some(outage.answer.clone());
            }
            self.outage = None;
        }
        self.forever.clone()
    }
}

#[derive(Default)]
pub(super) struct Scripts(HashMap<Target, Script>);

impl Scripts {
    pub(super) fn enqueue(&mut self, on: Target, answers: impl IntoIterator<Item = Answer>) {
        self.0.entry(on).or_default().queue.extend(answers);
    }

    pub(super) fn forever(&mut self, on: Target, answer: Answer) {
        self.0.entry(on).or_default().forever = Some(answer);
    }

    pub(super) fn outage(
        &mut self,
        on: Target,
        answer: Answer,
        lasts: Duration,
        start: OutageStart,
    ) {
        let since = match start {
            OutageStart::Now => Some(Instant::now()),
            OutageStart::FirstQuery => None,
        };
        self.0.entry(on).or_default().outage = Some(Outage {
            answer,
            lasts,
            since,
        });
    }

    pub(super) fn clear(&mut self, on: &Target) {
        self.0.remove(on);
    }

    pub(super) fn clear_all(&mut self) {
        self.0.clear();
    }

    pub(super) fn next_for_job(&mut self, key: &JobKey, now: Instant) -> Option<Answer> {
        self.next(&Target::Job(key.clone()), now)
            .or_else(|| self.next(&Target::Jobs, now))
    }

    pub(super) fn next_for_login(&mut self, now: Instant) -> Option<Answer> {
        self.next(&Target::Login, now)
    }

    fn next(&mut self, on: &Target, now: Instant) -> Option<Answer> {
        self.0.get_mut(on)?.next(now)
    }
}
