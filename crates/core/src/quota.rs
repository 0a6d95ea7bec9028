//! Which object may be polled now: quota buckets with a queue, a cap on what is in flight, and a pause.
//!
//! The objects of one (Secret, project) are a group. A group has a bucket of its own until the cloud has
//! accepted its credential for its project, then shares the one of (endpoint host, project): else a
//! made-up project id could pause the polls of others. A bucket outlives its groups for as long as it is
//! paused, so that no poll comes before a `Retry-After`, whatever becomes of the objects.

use crate::{
    config::Config,
    effects::CredentialRef,
    facts::Wait,
    keys::{BucketKey, GroupKey, JobKey, SecretKey},
    time::Due,
    token_bucket::TokenBucket,
};
use image_export_model::ProjectId;
use slotmap::SlotMap;
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
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
    /// First polls pending: those of new objects spread over a time that grows with their number.
    new: u32,
}

/// Whom a bucket of a project serves.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owner {
    /// The objects that use this Secret, until its credential is accepted.
    Secret(CredentialRef),
    /// All objects whose credentials were accepted at this host.
    Host(Arc<str>),
}

#[derive(Debug)]
struct Bucket {
    owner: Owner,
    project: ProjectId,
    tokens: TokenBucket,
    /// Polls sent and not yet answered.
    in_flight: usize,
    /// No poll before this time.
    paused_until: Duration,
    /// Groups that use this bucket.
    groups: u32,
    queue: BTreeSet<Waiting>,
    /// When to look again.
    wake: Option<Duration>,
    /// It is in the round of buckets that may have a poll to send.
    is_ready: bool,
}

impl Bucket {
    fn is_unused(&self) -> bool {
        self.groups == 0 && self.in_flight == 0
    }

    fn is_shared(&self) -> bool {
        matches!(self.owner, Owner::Host(_))
    }

    fn pause(&mut self, at: Duration, until: Duration) {
        if until > self.paused_until {
            self.paused_until = until;
            self.tokens.pause(at, until);
        }
    }

    /// The next poll, or when to look again.
    fn next(&mut self, config: &Config, at: Duration) -> Result<Waiting, Option<Duration>> {
        if self.is_unused() {
            return Err(Some(self.paused_until).filter(|until| at < *until));
        }
        if self.queue.is_empty() || self.in_flight >= config.quota_in_flight {
            return Err(None);
        }
        if at < self.paused_until {
            return Err(Some(self.paused_until));
        }
        self.tokens.take(at).map_err(|wait| Some(at + wait))?;
        self.in_flight += 1;
        self.queue.pop_first().ok_or(None)
    }
}

/// All groups and buckets.
#[derive(Debug, Default)]
pub struct Quotas {
    groups: SlotMap<GroupKey, Group>,
    by_secret: HashMap<(SecretKey, ProjectId), GroupKey>,
    buckets: SlotMap<BucketKey, Bucket>,
    by_project: HashMap<ProjectId, Vec<BucketKey>>,
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
        secret: (SecretKey, &CredentialRef),
        project: &ProjectId,
    ) -> GroupKey {
        let (secret, reference) = secret;
        let index = (secret, project.clone());
        if let Some(&key) = self.by_secret.get(&index) {
            self.groups[key].members += 1;
            return key;
        }
        let bucket = self.private_bucket(config, at, reference, project);
        let key = self.groups.insert(Group {
            secret,
            project: project.clone(),
            members: 1,
            bucket,
            new: 0,
        });
        self.by_secret.insert(index, key);
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
                self.by_secret.remove(&(group.secret, group.project));
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

    /// The buckets of a project.
    fn buckets_of(&self, project: &ProjectId) -> impl Iterator<Item = (BucketKey, &Bucket)> {
        let keys = self.by_project.get(project).into_iter().flatten();
        keys.map(|key| (*key, &self.buckets[*key]))
    }

    fn find_bucket(&self, project: &ProjectId, owner: &Owner) -> Option<BucketKey> {
        let mut buckets = self.buckets_of(project);
        let found = buckets.find(|(_, bucket)| bucket.owner == *owner);
        found.map(|(key, _)| key)
    }

    /// The bucket of a credential that has yet to be accepted, for one more group. It obeys what accepted
    /// credentials were asked for.
    fn private_bucket(
        &mut self,
        config: &Config,
        at: Duration,
        reference: &CredentialRef,
        project: &ProjectId,
    ) -> BucketKey {
        let owner = Owner::Secret(reference.clone());
        let key = self.find_bucket(project, &owner).unwrap_or_else(|| {
            let key = self.buckets.insert(Bucket {
                owner,
                project: project.clone(),
                tokens: TokenBucket::new(config.quota_rate, config.quota_burst, at),
                in_flight: 0,
                paused_until: Duration::ZERO,
                groups: 0,
                queue: BTreeSet::new(),
                wake: None,
                is_ready: false,
            });
            let keys = self.by_project.entry(project.clone()).or_default();
            keys.push(key);
            key
        });
        let shared = self
            .buckets_of(project)
            .filter(|(_, bucket)| bucket.is_shared());
        let paused_until = shared.map(|(_, bucket)| bucket.paused_until).max();
        let bucket = &mut self.buckets[key];
        bucket.groups += 1;
        bucket.pause(at, paused_until.unwrap_or_default());
        key
    }

    /// A group uses the bucket no longer.
    fn release(&mut self, at: Duration, key: BucketKey) {
        self.buckets[key].groups -= 1;
        self.dispose_unused(at, key);
    }

    /// Drops a bucket that nobody uses, at the end of its pause.
    fn dispose_unused(&mut self, at: Duration, key: BucketKey) {
        let Some(bucket) = self.buckets.get(key).filter(|bucket| bucket.is_unused()) else {
            return;
        };
        let paused_until = bucket.paused_until;
        if at < paused_until {
            return self.set_wake(key, Some(paused_until));
        }
        self.set_wake(key, None);
        let Some(bucket) = self.buckets.remove(key) else {
            return;
        };
        if bucket.is_ready {
            self.ready.retain(|other| *other != key);
        }
        if let Some(keys) = self.by_project.get_mut(&bucket.project) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.by_project.remove(&bucket.project);
            }
        }
    }

    /// Names and sizes of what is held of groups and buckets.
    #[cfg(test)]
    pub fn sizes(&self) -> [(&'static str, usize); 6] {
        [
            ("groups", self.groups.len()),
            ("owners of groups", self.by_secret.len()),
            ("buckets", self.buckets.len()),
            ("projects", self.by_project.len()),
            ("ready buckets", self.ready.len()),
            ("wakes of buckets", self.wakes.len()),
        ]
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

    /// What the objects of a group wait for now. A pause counts for a while after it: polls that are
    /// throttled once it is over begin the next one.
    #[must_use]
    pub fn wait(&self, config: &Config, at: Duration, group: GroupKey) -> Wait {
        let bucket = &self.buckets[self.groups[group].bucket];
        let is_paused = !bucket.paused_until.is_zero();
        if is_paused && at < bucket.paused_until + config.pause_min * 10 {
            Wait::Pause
        } else if bucket.in_flight >= config.quota_in_flight
            || self.in_flight >= config.polls_in_flight
        {
            Wait::InFlight
        } else {
            Wait::Quota
        }
    }

    /// Queues an object that is due.
    pub fn push(&mut self, waiting: Waiting) {
        let bucket = self.groups[waiting.group].bucket;
        self.buckets[bucket].queue.insert(waiting);
        self.set_ready(bucket);
    }

    /// Takes an object out of the queue.
    pub fn remove(&mut self, waiting: &Waiting) {
        let bucket = self.groups[waiting.group].bucket;
        self.buckets[bucket].queue.remove(waiting);
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

    /// Drops buckets that nobody uses at the end of their pauses.
    pub fn end_pauses(&mut self, at: Duration) {
        let ended = self.wakes.iter().take_while(|(due, _)| *due <= at);
        let unused = |key: &BucketKey| self.buckets[*key].is_unused();
        let ended: Vec<BucketKey> = ended.map(|(_, key)| *key).filter(unused).collect();
        for key in ended {
            self.dispose_unused(at, key);
        }
    }

    /// The next poll that may be sent now, with the bucket that is charged for it.
    pub fn next_poll(&mut self, config: &Config, at: Duration) -> Option<(Waiting, BucketKey)> {
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
            match bucket.next(config, at) {
                Ok(waiting) => {
                    self.in_flight += 1;
                    self.set_ready(key);
                    return Some((waiting, key));
                }
                Err(wake) => {
                    self.set_wake(key, wake);
                    self.dispose_unused(at, key);
                }
            }
        }
        None
    }

    /// Applies the end of a poll that took so many requests; one token was taken beforehand.
    pub fn apply_end(&mut self, at: Duration, key: BucketKey, requests: u32) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(bucket) = self.buckets.get_mut(key) {
            bucket.in_flight = bucket.in_flight.saturating_sub(1);
            bucket.tokens.adjust(at, 1.0 - f64::from(requests));
            self.dispose_unused(at, key);
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
        let group = group.and_then(|group| self.groups.get(group));
        let present = group.map(|group| group.bucket);
        for key in [Some(charged), present].into_iter().flatten() {
            self.pause_bucket(at, key, until);
        }
    }

    /// What accepted credentials are asked for holds for those that have yet to be accepted too, but not
    /// the other way round.
    fn pause_bucket(&mut self, at: Duration, key: BucketKey, until: Duration) {
        let Some(bucket) = self.buckets.get_mut(key) else {
            return;
        };
        bucket.pause(at, until);
        if bucket.is_shared()
            && let Some(keys) = self.by_project.get(&bucket.project)
        {
            for other in keys {
                let bucket = &mut self.buckets[*other];
                if !bucket.is_shared() {
                    bucket.pause(at, until);
                }
            }
        }
    }

    /// The cloud accepted the group's credential for its project at this host: its objects join the
    /// shared bucket, and so does a pause. They stay there until the content of the Secret changes, even
    /// where the catalog comes to name another host.
    pub fn share(&mut self, at: Duration, key: GroupKey, host: &Arc<str>) {
        let group = &self.groups[key];
        let (own, project) = (group.bucket, group.project.clone());
        if self.buckets[own].is_shared() {
            return;
        }
        let owner = Owner::Host(host.clone());
        let paused_until = self.buckets[own].paused_until;
        let Some(shared) = self.find_bucket(&project, &owner) else {
            self.buckets[own].owner = owner;
            return self.pause_bucket(at, own, paused_until);
        };
        self.groups[key].bucket = shared;
        let mut queue = std::mem::take(&mut self.buckets[own].queue);
        let bucket = &mut self.buckets[shared];
        bucket.queue.append(&mut queue);
        bucket.groups += 1;
        self.pause_bucket(at, shared, paused_until);
        self.release(at, own);
        self.set_ready(shared);
    }

    /// The content of a Secret changed: what its groups share has to be earned again. A pause goes along.
    pub fn unshare(
        &mut self,
        config: &Config,
        at: Duration,
        secret: SecretKey,
        reference: &CredentialRef,
    ) {
        let shared: Vec<GroupKey> = self
            .groups
            .iter()
            .filter(|(_, group)| group.secret == secret && self.buckets[group.bucket].is_shared())
            .map(|(key, _)| key)
            .collect();
        for key in shared {
            let project = self.groups[key].project.clone();
            let own = self.private_bucket(config, at, reference, &project);
            let old = std::mem::replace(&mut self.groups[key].bucket, own);
            let queue = std::mem::take(&mut self.buckets[old].queue);
            let (moved, left) = queue.into_iter().partition(|waiting| waiting.group == key);
            self.buckets[old].queue = left;
            self.buckets[own].queue = moved;
            self.release(at, old);
            self.set_ready(own);
        }
    }
}
