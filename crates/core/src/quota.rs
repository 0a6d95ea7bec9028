//! Which object may be polled now: quota buckets with their pauses, above them pools, and slots in flight.
//!
//! The objects of one (Secret, project) are a group. A group has a bucket of its own until the cloud has
//! shown that its credential belongs to its project, then shares the one of (endpoint host, project): else a
//! made-up project id could use up the quota of others. A bucket outlives its groups for as long as it is
//! paused, so that no poll comes before a `Retry-After`, whatever becomes of the objects.
//!
//! Shared buckets draw from the pool of their host besides; those that are not proven, from one of their
//! namespace, so that made-up projects do not multiply polls. In pools and buckets namespaces take turns, and pay
//! for each request that a poll made. Of one namespace the earliest due goes first.

mod bucket;
mod members;
mod throttle;

use crate::{
    config::Config,
    effects::CredentialRef,
    facts::Wait,
    keys::{BucketKey, GroupKey, JobKey, PoolKey, SecretKey},
    slots::Slots,
    time::Due,
};
use bucket::{Blocked, Bucket, Demand, Owner, Pool, PoolOwner};
use image_export_model::{JobId, ProjectId};
use slotmap::SlotMap;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

type Namespace = Arc<str>;

/// An object that waits for its quota, the earliest due first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiting {
    /// When it became due.
    pub due: Due,
    /// Which object.
    pub job: JobKey,
    /// Its group when it was queued.
    pub group: GroupKey,
}

/// What a poll in flight is charged to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Its bucket.
    pub bucket: BucketKey,
    /// The pool of that.
    pub pool: PoolKey,
    /// The namespace of its object.
    pub namespace: Namespace,
    /// It is the first poll after a pause.
    pub is_trial: bool,
}

#[derive(Debug)]
struct Group {
    secret: SecretKey,
    namespace: Namespace,
    project: ProjectId,
    members: u32,
    bucket: BucketKey,
    demand: Demand,
    /// First polls pending: those of new objects spread over a time that grows with their number.
    new: u32,
}

/// The buckets of one project. A tenant decides how many Secrets name it, so none is looked for among all.
#[derive(Debug, Default)]
struct ProjectBuckets {
    /// By host.
    shared: HashMap<Arc<str>, BucketKey>,
    /// Those of Secrets that have yet to be proven, by namespace.
    private: HashMap<Namespace, HashMap<CredentialRef, BucketKey>>,
}

impl ProjectBuckets {
    fn find(&self, owner: &Owner) -> Option<BucketKey> {
        match owner {
            Owner::Host(host) => self.shared.get(host).copied(),
            Owner::Secret(secret) => {
                let private = self.private.get(&secret.namespace)?;
                private.get(secret).copied()
            }
        }
    }

    fn insert(&mut self, owner: Owner, key: BucketKey) {
        match owner {
            Owner::Host(host) => self.shared.insert(host, key),
            Owner::Secret(secret) => {
                let private = self.private.entry(secret.namespace.clone());
                private.or_default().insert(secret, key)
            }
        };
    }

    fn remove(&mut self, owner: &Owner) {
        match owner {
            Owner::Host(host) => drop(self.shared.remove(host)),
            Owner::Secret(secret) => {
                if let Some(private) = self.private.get_mut(&secret.namespace) {
                    private.remove(secret);
                    if private.is_empty() {
                        self.private.remove(&secret.namespace);
                    }
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.shared.is_empty() && self.private.is_empty()
    }
}

/// Objects that wait for the same: mostly one.
#[derive(Debug)]
struct Alike {
    first: Waiting,
    others: BTreeSet<Waiting>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wake {
    Bucket(BucketKey),
    Pool(PoolKey),
}

/// All groups, buckets and pools.
#[derive(Debug)]
pub struct Quotas {
    groups: SlotMap<GroupKey, Group>,
    by_secret: HashMap<SecretKey, BTreeMap<ProjectId, GroupKey>>,
    buckets: SlotMap<BucketKey, Bucket>,
    by_project: HashMap<ProjectId, ProjectBuckets>,
    pools: SlotMap<PoolKey, Pool>,
    by_owner: HashMap<PoolOwner, PoolKey>,
    /// Pools that may have a poll to send, each in turn.
    ready: VecDeque<PoolKey>,
    /// Pools whose namespaces all hold as many slots as they may.
    blocked: BTreeSet<PoolKey>,
    wakes: BTreeSet<(Duration, Wake)>,
    /// Slots in flight, as shared by namespaces …
    slots: Slots<Namespace>,
    /// … and the same ones, as shared by pools: a host that answers slowly holds up nobody elsewhere.
    pool_slots: Slots<PoolKey>,
    /// Objects that wait, by what they ask for.
    waiting: HashMap<(GroupKey, JobId), Alike>,
    /// Numbers the places in the queues of pools.
    places: u64,
}

impl Quotas {
    /// Nothing yet.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            groups: SlotMap::with_key(),
            by_secret: HashMap::new(),
            buckets: SlotMap::with_key(),
            by_project: HashMap::new(),
            pools: SlotMap::with_key(),
            by_owner: HashMap::new(),
            ready: VecDeque::new(),
            blocked: BTreeSet::new(),
            wakes: BTreeSet::new(),
            slots: Slots::new(config.polls_in_flight),
            pool_slots: Slots::new(config.polls_in_flight),
            waiting: HashMap::new(),
            places: 0,
        }
    }

    /// Names and sizes of what is held of groups, buckets and pools.
    #[cfg(test)]
    pub fn sizes(&self) -> [(&'static str, usize); 10] {
        [
            ("groups", self.groups.len()),
            ("owners of groups", self.by_secret.len()),
            ("buckets", self.buckets.len()),
            ("proven namespaces", self.proven()),
            ("projects", self.by_project.len()),
            ("pools", self.pools.len()),
            ("owners of pools", self.by_owner.len()),
            ("ready pools", self.ready.len() + self.blocked.len()),
            ("wakes of buckets", self.wakes.len()),
            ("waiting polls", self.waiting.len()),
        ]
    }

    /// How many namespaces are known to belong to buckets, all told.
    #[cfg(test)]
    pub fn proven(&self) -> usize {
        let buckets = self.buckets.values();
        buckets.map(|bucket| bucket.proven.len()).sum()
    }

    /// How many buckets wait because the cloud demands it.
    #[must_use]
    pub fn paused(&self, at: Duration) -> usize {
        self.buckets
            .values()
            .filter(|bucket| at < bucket.paused_until)
            .count()
    }

    /// How many buckets use less than their quota, since the cloud throttled them.
    #[must_use]
    pub fn throttled(&self, config: &Config, at: Duration) -> usize {
        let buckets = self.buckets.values();
        buckets
            .filter(|bucket| bucket.throttle.share(config, at) < 1.0)
            .count()
    }

    /// Polls sent and not yet answered.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.slots.in_use()
    }

    /// What the objects of a group wait for now.
    #[must_use]
    pub fn wait(&self, config: &Config, at: Duration, group: GroupKey) -> Wait {
        let group = &self.groups[group];
        let bucket = &self.buckets[group.bucket];
        if bucket.is_throttled(config, at) {
            return Wait::Pause;
        }
        let has_slot =
            self.slots.may_take(&group.namespace) && self.pool_slots.may_take(&bucket.pool);
        if bucket.is_full(config) || !has_slot {
            return Wait::InFlight;
        }
        let pool = &self.pools[bucket.pool];
        match pool.owner {
            _ if bucket.tokens.wait(at).is_some() || pool.tokens.wait(at).is_none() => Wait::Quota,
            PoolOwner::Host(_) => Wait::Host,
            PoolOwner::Unproven(_) => Wait::Unproven,
        }
    }

    /// Queues an object that is due.
    pub fn push(&mut self, waiting: Waiting, id: &JobId) {
        let (key, namespace) = self.place_of(&waiting);
        self.buckets[key].queue.push(&namespace, waiting);
        match self.waiting.entry((waiting.group, id.clone())) {
            Entry::Vacant(entry) => {
                entry.insert(Alike {
                    first: waiting,
                    others: BTreeSet::new(),
                });
            }
            Entry::Occupied(mut entry) => {
                entry.get_mut().others.insert(waiting);
            }
        }
        self.offer(key, &namespace);
    }

    /// Takes an object out of the queue.
    pub fn remove(&mut self, waiting: &Waiting, id: &JobId) {
        let (key, namespace) = self.place_of(waiting);
        self.buckets[key].queue.remove(&namespace, waiting);
        let Entry::Occupied(mut entry) = self.waiting.entry((waiting.group, id.clone())) else {
            return;
        };
        let alike = entry.get_mut();
        if alike.first != *waiting {
            alike.others.remove(waiting);
        } else if let Some(other) = alike.others.pop_first() {
            alike.first = other;
        } else {
            entry.remove();
        }
    }

    /// Takes out the objects that wait for the same as the poll of this group that is sent now: it serves them
    /// too.
    pub fn take_alike(&mut self, sent: &Waiting, id: &JobId) -> Vec<Waiting> {
        let Some(alike) = self.waiting.remove(&(sent.group, id.clone())) else {
            return Vec::new();
        };
        let all = std::iter::once(alike.first).chain(alike.others);
        let others: Vec<Waiting> = all.filter(|other| other != sent).collect();
        for other in &others {
            let (key, namespace) = self.place_of(other);
            self.buckets[key].queue.remove(&namespace, other);
        }
        others
    }

    fn place_of(&self, waiting: &Waiting) -> (BucketKey, Namespace) {
        let group = &self.groups[waiting.group];
        (group.bucket, group.namespace.clone())
    }

    /// Has the pool of a bucket know that polls of this namespace wait there.
    fn offer(&mut self, key: BucketKey, namespace: &Namespace) {
        let bucket = &mut self.buckets[key];
        if bucket.queue.len_of(namespace) == 0 || bucket.offers.contains_key(namespace) {
            return;
        }
        self.places += 1;
        bucket.offers.insert(namespace.clone(), self.places);
        let (pool_key, place) = (bucket.pool, (self.places, key));
        self.pools[pool_key].queue.push(namespace, place);
        self.set_ready(pool_key);
    }

    /// The same for all namespaces that wait there.
    fn offer_all(&mut self, key: BucketKey) {
        let Some(bucket) = self.buckets.get(key) else {
            return;
        };
        let namespaces: Vec<Namespace> = bucket.queue.owners().cloned().collect();
        for namespace in namespaces {
            self.offer(key, &namespace);
        }
    }

    fn set_ready(&mut self, key: PoolKey) {
        if let Some(pool) = self.pools.get_mut(key)
            && !std::mem::replace(&mut pool.is_ready, true)
        {
            self.ready.push_back(key);
        }
    }

    fn set_wake(&mut self, key: BucketKey, at: Option<Duration>) {
        let Some(bucket) = self.buckets.get_mut(key) else {
            return;
        };
        let before = std::mem::replace(&mut bucket.wake, at);
        replace_wake(&mut self.wakes, Wake::Bucket(key), before, at);
    }

    fn set_pool_wake(&mut self, key: PoolKey, at: Option<Duration>) {
        let before = std::mem::replace(&mut self.pools[key].wake, at);
        replace_wake(&mut self.wakes, Wake::Pool(key), before, at);
    }

    /// When something is due here next.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// Drops buckets that nobody uses at the end of their pauses.
    pub fn end_pauses(&mut self, at: Duration) {
        let ended = self.wakes.iter().take_while(|(due, _)| *due <= at);
        let unused = ended.filter_map(|(_, wake)| match wake {
            Wake::Bucket(key) => Some(*key).filter(|key| self.buckets[*key].is_unused()),
            Wake::Pool(_) => None,
        });
        let unused: Vec<BucketKey> = unused.collect();
        for key in unused {
            self.dispose_unused(at, key);
        }
    }

    /// The next poll that may be sent now, with what is charged for it.
    pub fn next_poll(&mut self, config: &Config, at: Duration) -> Option<(Waiting, Charge)> {
        while let Some(&(due, wake)) = self.wakes.first()
            && due <= at
        {
            match wake {
                Wake::Bucket(key) => {
                    self.set_wake(key, None);
                    self.offer_all(key);
                }
                Wake::Pool(key) => {
                    self.set_pool_wake(key, None);
                    self.set_ready(key);
                }
            }
        }
        while self.slots.free() > 0 {
            let key = self.ready.pop_front()?;
            self.pools[key].is_ready = false;
            match self.next_of_pool(config, at, key) {
                Ok(next) => {
                    self.set_ready(key);
                    return Some(next);
                }
                Err(Blocked::InFlight) => _ = self.blocked.insert(key),
                Err(Blocked::Until(wake)) => self.set_pool_wake(key, Some(wake)),
                Err(Blocked::Idle) => {}
            }
        }
        None
    }

    fn next_of_pool(
        &mut self,
        config: &Config,
        at: Duration,
        pool_key: PoolKey,
    ) -> Result<(Waiting, Charge), Blocked> {
        loop {
            let pool = &mut self.pools[pool_key];
            if pool.queue.is_empty() {
                return Err(Blocked::Idle);
            }
            if !self.pool_slots.may_take(&pool_key) {
                return Err(Blocked::InFlight);
            }
            if let Some(wait) = pool.tokens.wait(at) {
                return Err(Blocked::Until(at + wait));
            }
            let slots = &self.slots;
            let may_poll = |namespace: &Namespace| slots.may_take(namespace);
            let next = pool.queue.pop(may_poll);
            let (offered_to, (_, key)) = next.ok_or(Blocked::InFlight)?;
            let bucket = &mut self.buckets[key];
            bucket.offers.remove(&offered_to);
            match bucket.check(config, at) {
                Ok(()) => {}
                Err(Blocked::Until(wake)) => {
                    self.set_wake(key, Some(wake));
                    continue;
                }
                Err(Blocked::InFlight | Blocked::Idle) => continue,
            }
            // Namespaces take turns in the bucket too, and whoever is served there pays for the turn.
            let Some((namespace, waiting)) = bucket.queue.pop(may_poll) else {
                continue;
            };
            // Both were looked at above.
            let _ = (bucket.tokens.take(at), pool.tokens.take(at));
            bucket.in_flight += 1;
            let is_trial = bucket.throttle.begin_poll();
            if namespace != offered_to {
                pool.queue.charge(&namespace, 1);
            }
            self.slots.take(&namespace);
            self.pool_slots.take(&pool_key);
            self.offer(key, &offered_to);
            let charge = Charge {
                bucket: key,
                pool: pool_key,
                namespace,
                is_trial,
            };
            return Ok((waiting, charge));
        }
    }

    /// Applies the end of a poll that took so many requests; one token was taken beforehand. `was_sent`: the cloud
    /// was asked for something.
    pub fn apply_end(&mut self, at: Duration, charge: &Charge, requests: u32, was_sent: bool) {
        self.slots.release(&charge.namespace);
        self.pool_slots.release(&charge.pool);
        let (refund, more) = (1.0 - f64::from(requests), requests.saturating_sub(1));
        if let Some(pool) = self.pools.get_mut(charge.pool) {
            pool.tokens.adjust(at, refund);
            pool.queue.charge(&charge.namespace, more);
        }
        if let Some(bucket) = self.buckets.get_mut(charge.bucket) {
            bucket.in_flight = bucket.in_flight.saturating_sub(1);
            if charge.is_trial {
                bucket.throttle.end_trial(was_sent);
            }
            bucket.tokens.adjust(at, refund);
            bucket.queue.charge(&charge.namespace, more);
            self.dispose_unused(at, charge.bucket);
        }
        self.offer_all(charge.bucket);
        for pool in std::mem::take(&mut self.blocked) {
            self.set_ready(pool);
        }
    }

    /// No poll before `until` in the bucket that was charged, nor in that of the group now, unless it is of another
    /// endpoint; and fewer a second than before where that is `for_throttling`. Nothing is saved up meanwhile: what follows a pause is spread
    /// by the rate, not sent as a burst.
    pub fn pause(
        &mut self,
        config: &Config,
        at: Duration,
        (charged, group): (BucketKey, Option<GroupKey>),
        endpoint: Option<&Arc<str>>,
        until: Duration,
        for_throttling: bool,
    ) {
        let group = group.and_then(|group| self.groups.get(group));
        let present = group.map(|group| group.bucket);
        for key in [Some(charged), present.filter(|key| *key != charged)] {
            let bucket = key.and_then(|key| self.buckets.get_mut(key));
            let (Some(key), Some(bucket)) = (key, bucket.filter(|b| b.obeys(endpoint))) else {
                continue;
            };
            if for_throttling {
                bucket.throttle.lower(config, at, until);
            }
            self.pause_bucket(at, key, until);
        }
    }

    /// What proven credentials are asked for holds for those of their namespaces that have yet to be proven too, but
    /// not the other way round.
    fn pause_bucket(&mut self, at: Duration, key: BucketKey, until: Duration) {
        let Some(bucket) = self.buckets.get_mut(key) else {
            return;
        };
        bucket.pause(at, until);
        let Some(project) = self.by_project.get(&bucket.project) else {
            return;
        };
        let proven = bucket.proven.keys();
        let private = proven.filter_map(|namespace| project.private.get(namespace));
        let keys: Vec<BucketKey> = private.flat_map(HashMap::values).copied().collect();
        for key in keys {
            self.buckets[key].pause(at, until);
        }
    }
}

fn replace_wake(
    wakes: &mut BTreeSet<(Duration, Wake)>,
    wake: Wake,
    before: Option<Duration>,
    at: Option<Duration>,
) {
    if before != at {
        if let Some(before) = before {
            wakes.remove(&(before, wake));
        }
        wakes.extend(at.map(|at| (at, wake)));
    }
}
