//! Who uses which bucket and which pool: groups come and go, are proven to belong to their projects, and have to be
//! proven anew.

use super::{
    Group, Namespace, Quotas, Waiting,
    bucket::{Bucket, Demand, Owner, Pool, PoolOwner},
    throttle::Throttle,
};
use crate::{
    config::Config,
    effects::CredentialRef,
    fair::FairQueue,
    keys::{BucketKey, GroupKey, PoolKey, SecretKey},
    token_bucket::TokenBucket,
};
use image_export_model::ProjectId;
use std::{collections::HashMap, sync::Arc, time::Duration};

impl Quotas {
    /// Adds an object to the group of its Secret and project.
    pub fn join(
        &mut self,
        config: &Config,
        at: Duration,
        secret: (SecretKey, &CredentialRef),
        project: &ProjectId,
    ) -> GroupKey {
        let (secret, reference) = secret;
        let groups = self.by_secret.entry(secret).or_default();
        if let Some(&key) = groups.get(project) {
            self.groups[key].members += 1;
            return key;
        }
        let bucket = self.private_bucket(config, at, reference, project);
        let key = self.groups.insert(Group {
            secret,
            namespace: reference.namespace.clone(),
            project: project.clone(),
            members: 1,
            bucket,
            demand: Demand::default(),
            new: 0,
        });
        let groups = self.by_secret.entry(secret).or_default();
        groups.insert(project.clone(), key);
        key
    }

    /// Takes an object out of its group. `was_new`: its first poll was pending.
    pub fn leave(&mut self, at: Duration, key: GroupKey, was_new: bool) {
        if was_new {
            self.end_first_poll(key);
        }
        let group = &mut self.groups[key];
        group.members -= 1;
        if group.members == 0 {
            let Some(group) = self.groups.remove(key) else {
                return;
            };
            if let Some(groups) = self.by_secret.get_mut(&group.secret) {
                groups.remove(&group.project);
                if groups.is_empty() {
                    self.by_secret.remove(&group.secret);
                }
            }
            self.release(at, group.bucket, &group.namespace);
        }
    }

    /// The project of a group.
    #[must_use]
    pub fn project(&self, key: GroupKey) -> &ProjectId {
        &self.groups[key].project
    }

    /// Counts one more first poll pending. Returns how many there are.
    pub fn begin_first_poll(&mut self, key: GroupKey) -> u32 {
        let group = &mut self.groups[key];
        group.new += 1;
        group.new
    }

    /// Counts one first poll less.
    pub fn end_first_poll(&mut self, key: GroupKey) {
        let group = &mut self.groups[key];
        group.new = group.new.saturating_sub(1);
    }

    /// An object of a group is to be polled at another interval, in seconds of the operator's time; 0: not at all.
    pub fn change_interval(&mut self, at: Duration, key: GroupKey, before: u32, after: u32) {
        let (before, after) = (Demand::of(before), Demand::of(after));
        let group = &mut self.groups[key];
        group.demand.add(after);
        group.demand.subtract(before);
        self.buckets[group.bucket].change_demand(at, &group.namespace, before, after);
    }

    /// How scarce polls are for the objects of a group, and the interval in seconds if all of its namespace got the same.
    pub fn scarcity(&mut self, config: &Config, at: Duration, key: GroupKey) -> (f64, f64) {
        let group = &self.groups[key];
        self.buckets[group.bucket].scarcity(config, at, &group.namespace)
    }

    fn find_bucket(&self, project: &ProjectId, owner: &Owner) -> Option<BucketKey> {
        self.by_project.get(project)?.find(owner)
    }

    /// The bucket of a credential that has yet to be proven, for one more group. It obeys what proven credentials of
    /// its namespace were asked for; others may have been proven at a host of their own.
    pub(super) fn private_bucket(
        &mut self,
        config: &Config,
        at: Duration,
        reference: &CredentialRef,
        project: &ProjectId,
    ) -> BucketKey {
        let owner = Owner::Secret(reference.clone());
        let key = self.find_bucket(project, &owner).unwrap_or_else(|| {
            let pool = PoolOwner::Unproven(reference.namespace.clone());
            let pool = self.join_pool(config, at, pool);
            let key = self.buckets.insert(Bucket {
                owner: owner.clone(),
                project: project.clone(),
                pool,
                tokens: TokenBucket::new(config.quota_rate, config.quota_burst, at),
                throttle: Throttle::default(),
                demand: Demand::default(),
                demands: HashMap::new(),
                in_flight: 0,
                paused_until: Duration::ZERO,
                groups: 0,
                proven: HashMap::new(),
                forgotten: Duration::ZERO,
                queue: FairQueue::default(),
                offers: HashMap::new(),
                wake: None,
            });
            let buckets = self.by_project.entry(project.clone()).or_default();
            buckets.insert(owner, key);
            key
        });
        let buckets = self.by_project.get(project).into_iter();
        let shared = buckets.flat_map(|buckets| buckets.shared.values());
        let shared = shared.map(|shared| &self.buckets[*shared]);
        let obeyed = shared.filter(|bucket| bucket.proven.contains_key(&reference.namespace));
        let paused_until = obeyed.map(|bucket| bucket.paused_until).max();
        let bucket = &mut self.buckets[key];
        bucket.groups += 1;
        bucket.pause(at, paused_until.unwrap_or_default());
        key
    }

    /// The pool of an owner, for one more bucket.
    pub(super) fn join_pool(&mut self, config: &Config, at: Duration, owner: PoolOwner) -> PoolKey {
        let pools = &mut self.pools;
        let key = *self.by_owner.entry(owner).or_insert_with_key(|owner| {
            let (rate, burst) = match owner {
                PoolOwner::Host(_) => (config.host_rate, config.host_burst),
                PoolOwner::Unproven(_) => (config.unproven_rate, config.unproven_burst),
            };
            pools.insert(Pool {
                owner: owner.clone(),
                tokens: TokenBucket::new(rate, burst, at),
                buckets: 0,
                queue: FairQueue::default(),
                wake: None,
                is_ready: false,
            })
        });
        self.pools[key].buckets += 1;
        key
    }

    /// A bucket leaves its pool.
    pub(super) fn leave_pool(&mut self, bucket: BucketKey) {
        let bucket_key = bucket;
        let bucket = &mut self.buckets[bucket_key];
        let key = bucket.pool;
        let pool = &mut self.pools[key];
        for (namespace, place) in bucket.offers.drain() {
            pool.queue.remove(&namespace, &(place, bucket_key));
        }
        pool.buckets -= 1;
        if pool.buckets == 0 {
            self.set_pool_wake(key, None);
            if let Some(pool) = self.pools.remove(key) {
                self.by_owner.remove(&pool.owner);
            }
            self.ready.retain(|other| *other != key);
            self.blocked.remove(&key);
        }
    }

    /// A group of this namespace uses the bucket no longer.
    pub(super) fn release(&mut self, at: Duration, key: BucketKey, namespace: &Namespace) {
        self.buckets[key].leave(at, namespace);
        self.dispose_unused(at, key);
    }

    /// Drops a bucket that nobody uses, at the end of its pause.
    pub(super) fn dispose_unused(&mut self, at: Duration, key: BucketKey) {
        let Some(bucket) = self.buckets.get(key).filter(|bucket| bucket.is_unused()) else {
            return;
        };
        let paused_until = bucket.paused_until;
        if at < paused_until {
            return self.set_wake(key, Some(paused_until));
        }
        self.set_wake(key, None);
        self.leave_pool(key);
        let Some(bucket) = self.buckets.remove(key) else {
            return;
        };
        if let Some(buckets) = self.by_project.get_mut(&bucket.project) {
            buckets.remove(&bucket.owner);
            if buckets.is_empty() {
                self.by_project.remove(&bucket.project);
            }
        }
    }

    /// The cloud has shown that the group's credential belongs to its project at this host: its objects join the
    /// shared bucket, and so does a pause. They stay there until the content of the Secret changes, or
    /// another host is queried.
    pub fn share(&mut self, config: &Config, at: Duration, key: GroupKey, host: &Arc<str>) {
        let group = &self.groups[key];
        let (own, project, namespace) =
            (group.bucket, group.project.clone(), group.namespace.clone());
        if self.buckets[own].is_shared() {
            return;
        }
        let owner = Owner::Host(host.clone());
        let paused_until = self.buckets[own].paused_until;
        let Some(shared) = self.find_bucket(&project, &owner) else {
            let pool = self.join_pool(config, at, PoolOwner::Host(host.clone()));
            self.leave_pool(own);
            let bucket = &mut self.buckets[own];
            let buckets = self.by_project.entry(project).or_default();
            buckets.remove(&bucket.owner);
            buckets.insert(owner.clone(), own);
            (bucket.owner, bucket.pool) = (owner, pool);
            bucket.prove(namespace, bucket.groups);
            self.pause_bucket(at, own, paused_until);
            return self.offer_all(own);
        };
        self.groups[key].bucket = shared;
        self.move_demand(at, key, own, shared);
        let queue = self.buckets[own].queue.extract(&namespace, |_| true);
        let bucket = &mut self.buckets[shared];
        for waiting in queue {
            bucket.queue.push(&namespace, waiting);
        }
        bucket.groups += 1;
        bucket.prove(namespace.clone(), 1);
        // Those of its namespace that have yet to be proven obey what the others here were asked for.
        let paused_until = paused_until.max(bucket.paused_until);
        self.pause_bucket(at, shared, paused_until);
        self.release(at, own, &namespace);
        self.offer(shared, &namespace);
    }

    fn move_demand(&mut self, at: Duration, key: GroupKey, from: BucketKey, to: BucketKey) {
        let (group, none) = (&self.groups[key], Demand::default());
        self.buckets[from].change_demand(at, &group.namespace, group.demand, none);
        self.buckets[to].change_demand(at, &group.namespace, none, group.demand);
    }

    /// The content of a Secret changed: what its groups share has to be earned again. A pause goes along.
    pub fn unshare(
        &mut self,
        config: &Config,
        at: Duration,
        secret: SecretKey,
        reference: &CredentialRef,
    ) {
        let groups = self.by_secret.get(&secret).into_iter().flatten();
        let shared: Vec<GroupKey> = groups
            .map(|(_, key)| *key)
            .filter(|key| self.buckets[self.groups[*key].bucket].is_shared())
            .collect();
        for key in shared {
            self.unshare_group(config, at, key, reference);
        }
    }

    /// A poll of this group has queried a host: where it shares the quota of another one, it does so no longer.
    pub fn leave_other_host(
        &mut self,
        config: &Config,
        at: Duration,
        key: GroupKey,
        reference: &CredentialRef,
        queried: &Arc<str>,
    ) {
        let bucket = &self.buckets[self.groups[key].bucket];
        if !bucket.obeys(Some(queried)) {
            self.unshare_group(config, at, key, reference);
        }
    }

    fn unshare_group(
        &mut self,
        config: &Config,
        at: Duration,
        key: GroupKey,
        reference: &CredentialRef,
    ) {
        let project = self.groups[key].project.clone();
        let own = self.private_bucket(config, at, reference, &project);
        let group = &mut self.groups[key];
        let old = std::mem::replace(&mut group.bucket, own);
        let namespace = group.namespace.clone();
        self.move_demand(at, key, old, own);
        let is_of_group = |waiting: &Waiting| waiting.group == key;
        let moved = self.buckets[old].queue.extract(&namespace, is_of_group);
        for waiting in moved {
            self.buckets[own].queue.push(&namespace, waiting);
        }
        self.release(at, old, &namespace);
        self.offer(own, &namespace);
    }
}
