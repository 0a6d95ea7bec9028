//! A quota bucket, and the pool above it.

use super::{Namespace, Waiting, throttle::Throttle};
use crate::{
    adaptive::{Scarcity, UTILISATION},
    config::Config,
    effects::CredentialRef,
    fair::FairQueue,
    keys::{BucketKey, PoolKey},
    token_bucket::TokenBucket,
};
use image_export_model::ProjectId;
use std::{collections::HashMap, sync::Arc, time::Duration};

/// Polls that objects want.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Demand {
    /// How many objects.
    objects: u32,
    /// Polls in a million seconds of the operator's time, of all of them: a whole number, as it is added to and
    /// subtracted from for ever.
    polls: u64,
}

impl Demand {
    /// That of one object; none where its interval is 0.
    pub(super) fn of(interval: u32) -> Self {
        let polls = 1_000_000_u64.checked_div(interval.into());
        Self {
            objects: polls.is_some().into(),
            polls: polls.unwrap_or_default(),
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.objects += other.objects;
        self.polls += other.polls;
    }

    pub(super) fn subtract(&mut self, other: Self) {
        self.objects -= other.objects;
        self.polls -= other.polls;
    }

    /// Polls a second.
    #[allow(clippy::cast_precision_loss, reason = "a rate")]
    fn rate(self) -> f64 {
        self.polls as f64 / 1e6
    }
}

/// Whom a bucket of a project serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The objects that use this Secret, until its credential is proven to belong to the project.
    Secret(CredentialRef),
    /// All objects whose credentials were proven to at this host.
    Host(Arc<str>),
}

/// A namespace that was proven to belong to a bucket.
#[derive(Debug, Default)]
pub(super) struct Proven {
    /// Its groups that use the bucket.
    groups: u32,
    /// When the latest of them left.
    left: Duration,
}

/// For so long, and while it is paused, a bucket remembers namespaces that have gone: polls take less, and each may
/// still bring a pause.
const MEMORY: Duration = Duration::from_mins(5);

#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) owner: Owner,
    pub(super) project: ProjectId,
    pub(super) pool: PoolKey,
    pub(super) tokens: TokenBucket,
    pub(super) throttle: Throttle,
    /// What its groups want.
    pub(super) demand: Demand,
    /// The same of each namespace, and how scarce polls are for it.
    pub(super) demands: HashMap<Namespace, (Demand, Scarcity)>,
    /// Polls sent and not yet answered.
    pub(super) in_flight: usize,
    /// No poll before this time.
    pub(super) paused_until: Duration,
    /// Groups that use this bucket.
    pub(super) groups: u32,
    /// Namespaces that were proven to belong here; their credentials that have yet to be proven obey its pauses.
    pub(super) proven: HashMap<Namespace, Proven>,
    /// When those of them that have gone were forgotten.
    pub(super) forgotten: Duration,
    pub(super) queue: FairQueue<Namespace, Waiting>,
    /// Namespaces for which it is in the queue of its pool, with its place there.
    pub(super) offers: HashMap<Namespace, u64>,
    /// When to look again.
    pub(super) wake: Option<Duration>,
}

/// Why nothing can be sent now.
pub(super) enum Blocked {
    /// Before this time.
    Until(Duration),
    /// Before a poll in flight ends.
    InFlight,
    /// Nothing waits.
    Idle,
}

impl Bucket {
    pub(super) fn is_unused(&self) -> bool {
        self.groups == 0 && self.in_flight == 0
    }

    /// So many groups of this namespace were proven to belong here.
    pub(super) fn prove(&mut self, namespace: Namespace, groups: u32) {
        self.proven.entry(namespace).or_default().groups += groups;
    }

    /// A group of this namespace uses it no longer.
    pub(super) fn leave(&mut self, at: Duration, namespace: &Namespace) {
        self.groups -= 1;
        if let Some(proven) = self.proven.get_mut(namespace) {
            proven.groups -= 1;
            proven.left = at;
        }
        if at >= self.paused_until.max(self.forgotten + MEMORY) {
            self.forgotten = at;
            self.proven
                .retain(|_, proven| proven.groups > 0 || at < proven.left + MEMORY);
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        matches!(self.owner, Owner::Host(_))
    }

    /// Whether what this endpoint asks for concerns it.
    pub(super) fn obeys(&self, endpoint: Option<&Arc<str>>) -> bool {
        match &self.owner {
            Owner::Secret(_) => true,
            Owner::Host(host) => endpoint == Some(host),
        }
    }

    pub(super) fn is_full(&self, config: &Config) -> bool {
        self.in_flight >= config.quota_in_flight || self.throttle.is_tried()
    }

    /// Whether it is paused, was so just now, or uses less than its quota because of that. What is throttled after
    /// a pause begins the next one.
    pub(super) fn is_throttled(&self, config: &Config, at: Duration) -> bool {
        let was_paused = !self.paused_until.is_zero();
        was_paused && at < self.paused_until + config.pause_min * 10
            || self.throttle.share(config, at) < 1.0
    }

    pub(super) fn pause(&mut self, at: Duration, until: Duration) {
        if until > self.paused_until {
            self.paused_until = until;
            self.tokens.pause(at, until);
            self.throttle.pause();
        }
    }

    /// A group of this namespace comes to want other polls.
    pub(super) fn change_demand(
        &mut self,
        at: Duration,
        namespace: &Namespace,
        before: Demand,
        after: Demand,
    ) {
        let own = self.demands.entry(namespace.clone());
        let (own, _) = own.or_insert_with(|| (Demand::default(), Scarcity::none(at)));
        for demand in [&mut *own, &mut self.demand] {
            demand.add(after);
            demand.subtract(before);
        }
        if own.objects == 0 {
            self.demands.remove(namespace);
        }
    }

    /// How scarce polls are for a namespace, and the interval in seconds if all its objects got the same. It may use
    /// what the others leave, and an equal share at least.
    #[allow(clippy::cast_precision_loss, reason = "a number of namespaces")]
    pub(super) fn scarcity(
        &mut self,
        config: &Config,
        at: Duration,
        namespace: &Namespace,
    ) -> (f64, f64) {
        let namespaces = self.demands.len() as f64;
        let Some((own, scarcity)) = self.demands.get_mut(namespace) else {
            return (1.0, 0.0);
        };
        let second = config.second.as_secs_f64();
        let rate = config.quota_rate * self.throttle.share(config, at) * second * UTILISATION;
        let left = rate - (self.demand.rate() - own.rate());
        let share = left.max(rate / namespaces);
        let scarcity = scarcity.renew(at, own.rate() / share);
        (scarcity, f64::from(own.objects) / share)
    }

    /// Whether a poll can be sent now.
    pub(super) fn check(&mut self, config: &Config, at: Duration) -> Result<(), Blocked> {
        if self.is_unused() {
            let is_paused = at < self.paused_until;
            return Err(if is_paused {
                Blocked::Until(self.paused_until)
            } else {
                Blocked::Idle
            });
        }
        if self.queue.is_empty() {
            return Err(Blocked::Idle);
        }
        if self.is_full(config) {
            return Err(Blocked::InFlight);
        }
        if at < self.paused_until {
            return Err(Blocked::Until(self.paused_until));
        }
        let share = self.throttle.share(config, at);
        let (rate, burst) = (config.quota_rate * share, config.quota_burst * share);
        self.tokens.set_rate(at, rate, burst);
        self.tokens
            .wait(at)
            .map_or(Ok(()), |wait| Err(Blocked::Until(at + wait)))
    }
}

/// Whose buckets a pool is above.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum PoolOwner {
    /// The shared ones of this host.
    Host(Arc<str>),
    /// Those of this namespace that are not proven.
    Unproven(Namespace),
}

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) owner: PoolOwner,
    pub(super) tokens: TokenBucket,
    /// How many buckets it has.
    pub(super) buckets: u32,
    /// Its buckets that may have a poll to send, for each namespace that waits there. Of one namespace the one
    /// that came first.
    pub(super) queue: FairQueue<Namespace, (u64, BucketKey)>,
    pub(super) wake: Option<Duration>,
    /// It is in the round of pools that may have a poll to send.
    pub(super) is_ready: bool,
}
