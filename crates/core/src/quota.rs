//! Which object may be polled now: quota buckets with a queue, a cap on what is in flight, and a pause.
//!
//! The objects of one (Secret, project) are a group. A group has a bucket of its own until the cloud has
//! accepted its credential for its project, then shares the one of (endpoint host, project): else a
//! made-up project id could pause the polls of others.

use crate::{
    config::Config,
    keys::{BucketKey, GroupKey, JobKey, SecretKey},
    time::Due,
    token_bucket::TokenBucket,
};
use image_export_model::ProjectId;
use slotmap::SlotMap;
use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

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

#[derive(Debug)]
struct Group {
    secret: SecretKey,
    project: ProjectId,
    members: u32,
    bucket: BucketKey,
    /// Whether the bucket is one that groups share.
    is_shared: bool,
    /// First polls pending: those of new objects spread over a time that grows with their number.
    new: u32,
}

#[derive(Debug)]
struct Bucket {
    tokens: TokenBucket,
    /// Polls sent and not yet answered.
    in_flight: usize,
    /// No poll before this time.
    paused_until: Duration,
    /// Groups that use this bucket.
    groups: u32,
    queue: BinaryHeap<Reverse<Waiting>>,
    /// When to look again.
    wake: Option<Duration>,
    /// It is in the round of buckets that may have a poll to send.
    is_ready: bool,
}

impl Bucket {
    fn new(config: &Config, at: Duration) -> Self {
        Self {
            tokens: TokenBucket::new(config.quota_rate, config.quota_burst, at),
            in_flight: 0,
            paused_until: Duration::ZERO,
            groups: 0,
            queue: BinaryHeap::new(),
            wake: None,
            is_ready: false,
        }
    }

    fn pause(&mut self, at: Duration, until: Duration) {
        self.paused_until = self.paused_until.max(until);
        self.tokens.pause(at, self.paused_until);
    }

    fn is_disposable(&self, at: Duration) -> bool {
        self.groups == 0 && self.in_flight == 0 && at >= self.paused_until
    }

    /// The next poll, or when to look again.
    fn next(
        &mut self,
        config: &Config,
        at: Duration,
        is_waiting: impl Fn(&Waiting) -> bool,
    ) -> Result<Waiting, Option<Duration>> {
        while let Some(Reverse(first)) = self.queue.peek().copied() {
            if !is_waiting(&first) {
                self.queue.pop();
                continue;
            }
            if self.in_flight >= config.quota_in_flight {
                return Err(None);
            }
            if at < self.paused_until {
                return Err(Some(self.paused_until));
            }
            self.tokens.take(at).map_err(|wait| Some(at + wait))?;
            self.queue.pop();
            self.in_flight += 1;
            return Ok(first);
        }
        Err(None)
    }
}

/// All groups and buckets.
#[derive(Debug, Default)]
pub struct Quotas {
    groups: SlotMap<GroupKey, Group>,
    by_owner: HashMap<(SecretKey, ProjectId), GroupKey>,
    buckets: SlotMap<BucketKey, Bucket>,
    shared: HashMap<(Arc<str>, ProjectId), BucketKey>,
    /// Buckets that may have a poll to send, each in turn.
    ready: VecDeque<BucketKey>,
    wakes: BTreeSet<(Duration, BucketKey)>,
    in_flight: usize,
}

impl Quotas {
    /// Adds an object to the group of its Secret and project.
    pub fn join(
        &mut self,
        config: &Config,
        at: Duration,
        secret: SecretKey,
        project: &ProjectId,
    ) -> GroupKey {
        let owner = (secret, project.clone());
        if let Some(&key) = self.by_owner.get(&owner) {
            self.groups[key].members += 1;
            return key;
        }
        let bucket = self.new_bucket(config, at);
        let key = self.groups.insert(Group {
            secret,
            project: project.clone(),
            members: 1,
            bucket,
            is_shared: false,
            new: 0,
        });
        self.by_owner.insert(owner, key);
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
            let bucket = group.bucket;
            if let Some(group) = self.groups.remove(key) {
                self.by_owner.remove(&(group.secret, group.project));
            }
            self.release(at, bucket);
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

    fn new_bucket(&mut self, config: &Config, at: Duration) -> BucketKey {
        let mut bucket = Bucket::new(config, at);
        bucket.groups = 1;
        self.buckets.insert(bucket)
    }

    fn release(&mut self, at: Duration, key: BucketKey) {
        if let Some(bucket) = self.buckets.get_mut(key) {
            bucket.groups = bucket.groups.saturating_sub(1);
            self.dispose(at, key);
        }
    }

    /// Drops a bucket that nobody uses, once it holds no pause any more.
    fn dispose(&mut self, at: Duration, key: BucketKey) {
        if self
            .buckets
            .get(key)
            .is_some_and(|bucket| bucket.is_disposable(at))
        {
            self.set_wake(key, None);
            self.buckets.remove(key);
            self.shared.retain(|_, shared| *shared != key);
        }
    }

    /// Drops the buckets that nobody uses and that hold no pause any more.
    pub fn sweep(&mut self, at: Duration) {
        let unused: Vec<BucketKey> = self
            .buckets
            .iter()
            .filter(|(_, bucket)| bucket.is_disposable(at))
            .map(|(key, _)| key)
            .collect();
        for key in unused {
            self.dispose(at, key);
        }
    }

    /// How many buckets wait because the cloud demands it.
    #[must_use]
    pub fn paused(&self, at: Duration) -> usize {
        self.buckets
            .values()
            .filter(|bucket| at < bucket.paused_until)
            .count()
    }

    /// Polls sent and not yet answered.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Queues an object that is due.
    pub fn push(&mut self, waiting: Waiting) {
        let bucket = self.groups[waiting.group].bucket;
        self.buckets[bucket].queue.push(Reverse(waiting));
        self.set_ready(bucket);
    }

    fn set_ready(&mut self, key: BucketKey) {
        if let Some(bucket) = self.buckets.get_mut(key)
            && !std::mem::replace(&mut bucket.is_ready, true)
        {
            self.ready.push_back(key);
        }
    }

    fn set_wake(&mut self, key: BucketKey, at: Option<Duration>) {
        let Some(bucket) = self.buckets.get_mut(key) else {
            return;
        };
        let before = std::mem::replace(&mut bucket.wake, at);
        if before != at {
            if let Some(before) = before {
                self.wakes.remove(&(before, key));
            }
            self.wakes.extend(at.map(|at| (at, key)));
        }
    }

    /// When something is due here next.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// The next poll that may be sent now, with the bucket that is charged for it. `is_waiting` tells
    /// objects that still wait from those that do not.
    pub fn next_poll(
        &mut self,
        config: &Config,
        at: Duration,
        is_waiting: impl Fn(&Waiting) -> bool,
    ) -> Option<(Waiting, BucketKey)> {
        while let Some(&(due, key)) = self.wakes.first().filter(|(due, _)| *due <= at) {
            self.wakes.remove(&(due, key));
            self.buckets[key].wake = None;
            self.set_ready(key);
        }
        while self.in_flight < config.polls_in_flight {
            let key = self.ready.pop_front()?;
            let Some(bucket) = self.buckets.get_mut(key) else {
                continue;
            };
            bucket.is_ready = false;
            match bucket.next(config, at, &is_waiting) {
                Ok(waiting) => {
                    self.in_flight += 1;
                    self.set_ready(key);
                    return Some((waiting, key));
                }
                Err(wake) => self.set_wake(key, wake),
            }
        }
        None
    }

    /// Applies the end of a poll that took so many requests; one token was taken beforehand.
    pub fn apply_end(&mut self, at: Duration, key: BucketKey, requests: u32) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(bucket) = self.buckets.get_mut(key) {
            bucket.in_flight = bucket.in_flight.saturating_sub(1);
            bucket.tokens.adjust(1.0 - f64::from(requests));
            self.dispose(at, key);
        }
        self.set_ready(key);
    }

    /// No poll before `until` in the bucket that was charged, nor in that of the group now. Nothing is
    /// saved up meanwhile: what follows a pause is spread by the rate, not sent as a burst.
    pub fn pause(
        &mut self,
        at: Duration,
        charged: BucketKey,
        group: Option<GroupKey>,
        until: Duration,
    ) {
        let present = group
            .and_then(|group| self.groups.get(group))
            .map(|group| group.bucket);
        for key in [Some(charged), present.filter(|present| *present != charged)] {
            if let Some(bucket) = key.and_then(|key| self.buckets.get_mut(key)) {
                bucket.pause(at, until);
            }
        }
    }

    /// The cloud accepted the group's credential for its project at this host: its objects join the
    /// shared bucket. They stay there until the content of the Secret changes, even where the catalog
    /// comes to name another host.
    pub fn share(&mut self, at: Duration, key: GroupKey, host: &Arc<str>) {
        let group = &mut self.groups[key];
        if std::mem::replace(&mut group.is_shared, true) {
            return;
        }
        let own = group.bucket;
        let owner = (host.clone(), group.project.clone());
        let Some(&shared) = self.shared.get(&owner) else {
            self.shared.insert(owner, own);
            return;
        };
        group.bucket = shared;
        let mut queue = std::mem::take(&mut self.buckets[own].queue);
        let bucket = &mut self.buckets[shared];
        bucket.queue.append(&mut queue);
        bucket.groups += 1;
        self.release(at, own);
        self.set_ready(shared);
    }

    /// The content of a Secret changed: what its groups share has to be earned again. A pause of the old
    /// bucket goes along.
    pub fn unshare(&mut self, config: &Config, at: Duration, secret: SecretKey) {
        let shared: Vec<GroupKey> = self
            .groups
            .iter()
            .filter(|(_, group)| group.secret == secret && group.is_shared)
            .map(|(key, _)| key)
            .collect();
        for key in shared {
            let own = self.new_bucket(config, at);
            let group = &mut self.groups[key];
            group.is_shared = false;
            let old = std::mem::replace(&mut group.bucket, own);
            let queue = std::mem::take(&mut self.buckets[old].queue);
            let (moved, left): (Vec<_>, Vec<_>) = queue
                .into_iter()
                .partition(|Reverse(waiting)| waiting.group == key);
            self.buckets[old].queue = left.into();
            let paused_until = self.buckets[old].paused_until;
            let bucket = &mut self.buckets[own];
            bucket.queue = moved.into();
            bucket.pause(at, paused_until);
            self.release(at, old);
            self.set_ready(own);
        }
    }
}
