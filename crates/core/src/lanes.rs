//! Which quota an object's polls are charged to.

use super::{Config, Now, Tracker, quota::PollBucket, record::Poll};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

/// The objects of one (credential, project). They use a bucket of their own until the cloud has
/// accepted their credential there once, then the one of (endpoint host, project): else a made-up
/// project id could pause somebody else's polls.
#[derive(Debug)]
pub(super) struct Lane {
    credential: u32,
    project: Arc<str>,
    members: u32,
    pub(super) bucket: u64,
    /// Whether the bucket is one that is shared.
    joined: bool,
    /// First polls still to come; new objects spread over a time that grows with them.
    pub(super) newcomers: u32,
}

/// Lanes and buckets.
#[derive(Debug, Default)]
pub(super) struct Polls {
    pub(super) lanes: Vec<Option<Lane>>,
    free_lanes: Vec<u32>,
    by_owner: HashMap<(u32, Arc<str>), u32>,
    pub(super) buckets: HashMap<u64, PollBucket>,
    shared: HashMap<(Arc<str>, Arc<str>), u64>,
    next_bucket: u64,
    /// Buckets that may have a poll to send, each in turn.
    pub(super) ready: VecDeque<u64>,
    pub(super) in_flight: usize,
}

impl Polls {
    fn new_bucket(&mut self, config: &Config, now: Duration) -> u64 {
        self.next_bucket += 1;
        let bucket = PollBucket::new(
            config.quota_rate,
            config.quota_burst,
            config.quota_in_flight,
            now,
        );
        self.buckets.insert(self.next_bucket, bucket);
        self.next_bucket
    }

    pub(super) fn join_lane(
        &mut self,
        config: &Config,
        now: Duration,
        credential: u32,
        project: &Arc<str>,
    ) -> u32 {
        let owner = (credential, project.clone());
        if let Some(&index) = self.by_owner.get(&owner) {
            if let Some(lane) = self.lane_mut(index) {
                lane.members += 1;
            }
            return index;
        }
        let bucket = self.new_bucket(config, now);
        self.retain_bucket(bucket);
        let lane = Lane {
            credential,
            project: project.clone(),
            members: 1,
            bucket,
            joined: false,
            newcomers: 0,
        };
        let index = if let Some(index) = self.free_lanes.pop() {
            self.lanes[index as usize] = Some(lane);
            index
        } else {
            self.lanes.push(Some(lane));
            u32::try_from(self.lanes.len() - 1).expect("fewer than 2^32 lanes")
        };
        self.by_owner.insert(owner, index);
        index
    }

    pub(super) fn leave_lane(&mut self, index: u32, now: Duration) {
        let Some(lane) = self.lane_mut(index) else {
            return;
        };
        lane.members -= 1;
        if lane.members == 0 {
            let (credential, project, bucket) =
                (lane.credential, lane.project.clone(), lane.bucket);
            self.by_owner.remove(&(credential, project));
            self.lanes[index as usize] = None;
            self.free_lanes.push(index);
            self.release_bucket(bucket, now);
        }
    }

    /// A new object had its first poll, or went away before.
    pub(super) fn newcomer_left(&mut self, lane: u32) {
        if let Some(lane) = self.lane_mut(lane) {
            lane.newcomers = lane.newcomers.saturating_sub(1);
        }
    }

    pub(super) fn lane(&self, index: u32) -> Option<&Lane> {
        self.lanes.get(index as usize)?.as_ref()
    }

    pub(super) fn lane_mut(&mut self, index: u32) -> Option<&mut Lane> {
        self.lanes.get_mut(index as usize)?.as_mut()
    }

    fn retain_bucket(&mut self, id: u64) {
        if let Some(bucket) = self.buckets.get_mut(&id) {
            bucket.lanes += 1;
        }
    }

    fn release_bucket(&mut self, id: u64, now: Duration) {
        if let Some(bucket) = self.buckets.get_mut(&id) {
            bucket.lanes = bucket.lanes.saturating_sub(1);
            if bucket.is_disposable(now) {
                self.buckets.remove(&id);
                self.shared.retain(|_, shared| *shared != id);
            }
        }
    }

    /// Buckets that wait because the cloud asked for it.
    pub(super) fn paused_buckets(&self, now: Duration) -> usize {
        self.buckets
            .values()
            .filter(|bucket| now < bucket.paused_until)
            .count()
    }

    /// Drops buckets that nobody uses and that hold no pause any more.
    pub(super) fn sweep(&mut self, now: Duration) {
        self.buckets.retain(|_, bucket| !bucket.is_disposable(now));
        let buckets = &self.buckets;
        self.shared.retain(|_, id| buckets.contains_key(id));
    }

    pub(super) fn mark_ready(&mut self, id: u64) {
        if let Some(bucket) = self.buckets.get_mut(&id)
            && !std::mem::replace(&mut bucket.ready, true)
        {
            self.ready.push_back(id);
        }
    }

    pub(super) fn wake(&mut self, id: u64, at: Duration) {
        if let Some(bucket) = self.buckets.get_mut(&id)
            && bucket.wake_at == Some(at)
        {
            bucket.wake_at = None;
            self.mark_ready(id);
        }
    }

    /// The cloud accepted a lane's credential at this host: its objects join the shared bucket.
    /// They stay there until the credential's content changes, even where its catalog comes to name
    /// another host.
    pub(super) fn join_shared(&mut self, index: u32, host: &Arc<str>, now: Duration) {
        let Some(lane) = self.lanes.get_mut(index as usize).and_then(Option::as_mut) else {
            return;
        };
        if std::mem::replace(&mut lane.joined, true) {
            return;
        }
        let (private, key) = (lane.bucket, (host.clone(), lane.project.clone()));
        let Some(&shared) = self.shared.get(&key) else {
            self.shared.insert(key, private);
            return;
        };
        lane.bucket = shared;
        self.retain_bucket(shared);
        if let Some(mut from) = self.buckets.remove(&private) {
            if let Some(to) = self.buckets.get_mut(&shared) {
                from.pour_into(to);
            }
            self.buckets.insert(private, from);
        }
        self.release_bucket(private, now);
        self.mark_ready(shared);
    }
}

impl Tracker {
    /// The content of a credential changed: what it may share has to be earned again. A pause of
    /// the old bucket goes along.
    pub(super) fn leave_shared_buckets(&mut self, now: Now, credential: u32) {
        let lanes: Vec<u32> = (0u32..)
            .zip(&self.polls.lanes)
            .filter(|(_, lane)| {
                lane.as_ref()
                    .is_some_and(|lane| lane.credential == credential && lane.joined)
            })
            .map(|(index, _)| index)
            .collect();
        for index in lanes {
            let fresh = self.polls.new_bucket(&self.config, now.mono);
            self.polls.retain_bucket(fresh);
            let Some(lane) = self.polls.lane_mut(index) else {
                continue;
            };
            let old = std::mem::replace(&mut lane.bucket, fresh);
            lane.joined = false;
            let paused_until = self
                .polls
                .buckets
                .get(&old)
                .map_or(Duration::ZERO, |b| b.paused_until);
            if let Some(bucket) = self.polls.buckets.get_mut(&fresh) {
                bucket.pause(now.mono, paused_until);
            }
            self.polls.release_bucket(old, now.mono);
            let queued: Vec<(u32, Duration)> = self
                .records
                .iter()
                .filter(|(_, record)| record.lane == index)
                .filter_map(|(at, record)| match record.poll {
                    Poll::Queued(due) => Some((at, due)),
                    _ => None,
                })
                .collect();
            for (at, due) in queued {
                self.enqueue(at, due);
            }
        }
    }
}
