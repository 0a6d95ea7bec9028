//! What the API server holds of one object, and the change of it that is under way.
//!
//! At most one change an object is under way. What is seen while a status write is in flight may be its
//! own echo, so it is held until the reply. A change whose end is unknown (conflict, lost reply) is
//! settled by the next version that the watch shows, or by one read.

mod packing;

use crate::{
    compact::Compact,
    config::Config,
    effects::{Precondition, WriteResult},
    evidence::Evidence,
    phase::Priority,
    status::{Snapshot, comes_from, looks_finished, same_owned_part, shown_end, unowned},
    version,
};
use image_export_api::{ImageExportJob, ImageExportJobStatus, conditions::Condition};
use std::{cmp::Ordering, sync::Arc, time::Duration};

type Status = Option<Box<ImageExportJobStatus>>;

/// The status on the API server.
#[derive(Debug)]
enum Remote {
    /// Nothing of ours: to be replaced.
    NotOurs(Status),
    /// Shows an end that is not consistent: nothing is written before the job was polled.
    Untrusted(Status),
    /// The acknowledged snapshot, to the letter.
    Acknowledged(Arc<Snapshot>),
    /// Somebody changed the acknowledged snapshot: to be replaced.
    Edited(Arc<Snapshot>, Status),
    /// The acknowledged snapshot as the API server stored it: without a field that an older CRD does not
    /// know, or with conditions in another order. Writing it again would only loop.
    Altered(Arc<Snapshot>, Status),
}

/// The change that is under way.
#[derive(Debug)]
pub enum ChangeStage {
    /// None.
    Idle,
    /// One waits for its turn.
    Queued(Priority),
    /// A status was sent.
    Writing {
        /// Sequence of the write.
        sequence: u64,
        /// What was sent.
        sent: Arc<Snapshot>,
        /// The newest version that was seen meanwhile.
        held: Option<Box<ImageExportJob>>,
    },
    /// The object is being read, to be deleted whatever others change in it.
    Rereading {
        /// Sequence of the read.
        sequence: u64,
    },
    /// The deletion of the object was sent.
    Deleting {
        /// Sequence of the deletion.
        sequence: u64,
    },
    /// Whether the latest write landed is unknown.
    Unconfirmed {
        /// When to read the object, unless the watch shows another version before.
        until: Duration,
        /// Reads that failed so far.
        tries: u32,
        /// The read waits for its turn.
        is_queued: bool,
    },
    /// The object is being read.
    Fetching {
        /// Sequence of the read.
        sequence: u64,
        /// Reads that failed so far.
        tries: u32,
    },
    /// The API server rejected the latest write.
    Rejected {
        /// Nothing is sent before.
        until: Duration,
    },
}

/// How a status was taken that somebody wrote.
#[derive(Debug, PartialEq, Eq)]
pub enum StatusChange {
    /// It shows what was acknowledged, or nothing of ours.
    None,
    /// An unconfirmed write of ours has landed.
    Confirmed,
    /// Somebody else changed what is ours.
    Edited,
}

/// What the reply to a change means.
#[derive(Debug)]
pub enum Reply {
    /// It answers nothing that is under way.
    Stale,
    /// Applied. With the newest version that was seen meanwhile.
    Applied(Option<Box<ImageExportJob>>),
    /// Applied. The next deletion is not before this long.
    DelayDeletion(Duration),
    /// The object is gone.
    Gone,
}

/// The object on the API server as far as is known, and the change of it that is under way.
#[derive(Debug)]
pub struct Sync {
    /// The newest resource version known.
    pub version: Compact,
    /// Whether the object of that version was seen. The reply to a write brings its version alone.
    is_seen: bool,
    remote: Remote,
    unowned: Option<Arc<[Condition]>>,
    /// The latest statuses that may have landed, or may still do so; mostly none.
    unconfirmed: Vec<Arc<Snapshot>>,
    /// The change that is under way.
    pub stage: ChangeStage,
    consecutive_conflicts: u32,
    /// Deletions that met a conflict.
    deletion_conflicts: u8,
    /// The object was read since the latest write, to delete it whatever others change.
    is_fresh: bool,
    /// Consecutive writes that were answered with a 500.
    consecutive_errors: u8,
    /// Edits of what is ours; mostly none.
    edits: Option<Box<Edits>>,
}

/// Edits of what is ours that followed one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Edits {
    count: u8,
    /// The repair of the latest is not sent before.
    repair_at: Duration,
}

impl Sync {
    /// Whether no change is under way, and the status, if there is one, is the acknowledged snapshot to the letter.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        matches!(self.stage, ChangeStage::Idle)
            && matches!(self.remote, Remote::Acknowledged(_) | Remote::NotOurs(None))
            && self.unowned.is_none()
            && self.unconfirmed.is_empty()
    }

    /// An object as first seen, with its status still to be adopted.
    #[must_use]
    pub fn new(version: Compact) -> Self {
        Self {
            version,
            is_seen: true,
            remote: Remote::NotOurs(None),
            unowned: None,
            unconfirmed: Vec::new(),
            stage: ChangeStage::Idle,
            consecutive_conflicts: 0,
            deletion_conflicts: 0,
            is_fresh: false,
            consecutive_errors: 0,
            edits: None,
        }
    }

    /// Believes a status that this process did not write. Returns the snapshot in it.
    pub fn adopt(
        &mut self,
        status: Option<&ImageExportJobStatus>,
        job: &str,
    ) -> Option<Arc<Snapshot>> {
        self.unowned = unowned(status);
        self.unconfirmed.clear();
        let boxed = status.cloned().map(Box::new);
        self.remote = match status.and_then(|status| Snapshot::parse(status, job)) {
            Some(snapshot) => self.acknowledged_as(&Arc::new(snapshot), status, job),
            None if status.is_some_and(looks_finished) => Remote::Untrusted(boxed),
            None => Remote::NotOurs(boxed),
        };
        self.acknowledged().cloned()
    }

    /// How the API server has a snapshot that it acknowledged with this status.
    fn acknowledged_as(
        &self,
        snapshot: &Arc<Snapshot>,
        status: Option<&ImageExportJobStatus>,
        job: &str,
    ) -> Remote {
        let altered = || Remote::Altered(snapshot.clone(), status.cloned().map(Box::new));
        self.shown_in(snapshot, status, job).unwrap_or_else(altered)
    }

    /// How the API server has a snapshot, if this status shows it.
    fn shown_in(
        &self,
        snapshot: &Arc<Snapshot>,
        status: Option<&ImageExportJobStatus>,
        job: &str,
    ) -> Option<Remote> {
        let (rendered, status) = (snapshot.render(job, self.unowned()), status?);
        if rendered == *status {
            return Some(Remote::Acknowledged(snapshot.clone()));
        }
        let altered = || Remote::Altered(snapshot.clone(), Some(Box::new(status.clone())));
        same_owned_part(&rendered, status).then(altered)
    }

    fn unowned(&self) -> &[Condition] {
        self.unowned.as_deref().unwrap_or_default()
    }

    /// The latest status of ours that the API server has.
    #[must_use]
    pub fn acknowledged(&self) -> Option<&Arc<Snapshot>> {
        match &self.remote {
            Remote::NotOurs(_) | Remote::Untrusted(_) => None,
            Remote::Acknowledged(snapshot)
            | Remote::Edited(snapshot, _)
            | Remote::Altered(snapshot, _) => Some(snapshot),
        }
    }

    /// Whether the status shows an end that is not consistent.
    #[must_use]
    pub fn is_untrusted(&self) -> bool {
        matches!(self.remote, Remote::Untrusted(_))
    }

    /// The evidence of an untrusted status, where it shows one end.
    #[must_use]
    pub fn untrusted_end(&self) -> Option<Evidence> {
        match &self.remote {
            Remote::Untrusted(status) => status.as_deref().and_then(shown_end),
            _ => None,
        }
    }

    /// The job was polled: an untrusted status may be replaced.
    pub fn end_distrust(&mut self) {
        if let Remote::Untrusted(status) = &mut self.remote {
            self.remote = Remote::NotOurs(status.take());
        }
    }

    /// How a version of the object compares with the newest known.
    fn order(&self, version: &str) -> Option<Ordering> {
        self.version.look(|known| version::compare(version, known))
    }

    /// Applies a version of the object. Returns it if its content is to be applied now.
    pub fn apply_version(&mut self, object: Box<ImageExportJob>) -> Option<Box<ImageExportJob>> {
        let version = version_of(&object);
        match self.order(version) {
            Some(Ordering::Less) => return None,
            Some(Ordering::Equal) if self.is_seen => return None,
            _ => {}
        }
        if let ChangeStage::Writing { held, .. } = &mut self.stage {
            let newer = held.as_ref().is_none_or(|held| {
                version::compare(version, version_of(held)) != Some(Ordering::Less)
            });
            if newer {
                *held = Some(object);
            }
            return None;
        }
        let settles = self.version != *version;
        if settles
            && matches!(
                self.stage,
                ChangeStage::Unconfirmed { .. } | ChangeStage::Fetching { .. }
            )
        {
            self.stage = ChangeStage::Idle;
        }
        if settles {
            self.version = version.into();
        }
        self.is_seen = true;
        Some(object)
    }

    /// Whether the API server has this status already, as far as is known.
    #[must_use]
    pub fn holds(&self, status: Option<&ImageExportJobStatus>, job: &str) -> bool {
        self.status(job).as_deref() == status
    }

    /// Applies the status of a version. Conditions owned by others are theirs to change; anything else is
    /// replaced.
    pub fn apply_status(
        &mut self,
        config: &Config,
        at: Duration,
        status: Option<&ImageExportJobStatus>,
        job: &str,
    ) -> StatusChange {
        let others = unowned(status);
        if others != self.unowned {
            self.unowned = others;
        }
        let acknowledged = self.acknowledged().cloned();
        let shown = |snapshot| self.shown_in(snapshot, status, job);
        if let Some(remote) = acknowledged.as_ref().and_then(shown) {
            self.remote = remote;
            return StatusChange::None;
        }
        if let Some(remote) = self.unconfirmed.iter().rev().find_map(shown) {
            self.remote = remote;
            self.unconfirmed.clear();
            return StatusChange::Confirmed;
        }
        let boxed = status.cloned().map(Box::new);
        // An older CRD may have left out a field: written once more, the reply shows what is left of it.
        let pruned = |sent: &&Arc<Snapshot>| {
            status.is_some_and(|status| comes_from(status, &sent.render(job, self.unowned())))
        };
        if let Some(sent) = self.unconfirmed.iter().rev().find(pruned).cloned() {
            self.remote = Remote::Edited(sent, boxed);
            self.unconfirmed.clear();
            return StatusChange::Confirmed;
        }
        let Some(snapshot) = acknowledged else {
            match &mut self.remote {
                Remote::Untrusted(held) if status.is_some_and(looks_finished) => *held = boxed,
                remote => *remote = Remote::NotOurs(boxed),
            }
            return StatusChange::None;
        };
        let is_stored_so = match (&self.remote, status) {
            (Remote::Altered(_, Some(stored)), Some(status)) => same_owned_part(stored, status),
            (Remote::Altered(_, stored), status) => stored.is_none() && status.is_none(),
            _ => false,
        };
        if is_stored_so {
            self.remote = Remote::Altered(snapshot, boxed);
            return StatusChange::None;
        }
        self.remote = Remote::Edited(snapshot, boxed);
        self.plan_repair(config, at);
        StatusChange::Edited
    }

    /// Somebody who edits the status again and again is not answered at the same rate.
    fn plan_repair(&mut self, config: &Config, at: Duration) {
        let edits = self.edits.get_or_insert_default();
        if at >= edits.repair_at + config.repair_delay_max {
            edits.count = 0;
        }
        edits.count = edits.count.saturating_add(1);
        edits.repair_at = at;
        if let Some(doublings) = edits.count.checked_sub(config.repairs_at_once + 1) {
            let wait = config.pause_min.saturating_mul(1 << doublings.min(16));
            edits.repair_at += wait.min(config.repair_delay_max);
        }
    }

    /// When an edit is to be repaired, if there is one.
    #[must_use]
    pub fn repair_at(&self) -> Option<Duration> {
        let is_edited = matches!(self.remote, Remote::Edited(..));
        is_edited.then(|| {
            self.edits
                .as_ref()
                .map_or(Duration::ZERO, |edits| edits.repair_at)
        })
    }

    /// Whether the API server's status has to be replaced by `desired` now.
    #[must_use]
    pub fn needs(&self, at: Duration, desired: &Snapshot) -> bool {
        let is_news = |snapshot: &Snapshot| {
            snapshot.generation != desired.generation || !snapshot.content_eq(desired)
        };
        match &self.remote {
            Remote::Untrusted(_) => false,
            Remote::NotOurs(_) => true,
            Remote::Edited(snapshot, _) => {
                self.repair_at().is_some_and(|due| due <= at) || is_news(snapshot)
            }
            Remote::Acknowledged(snapshot) | Remote::Altered(snapshot, _) => is_news(snapshot),
        }
    }

    /// The status as it stands on the API server, as far as is known.
    fn status(&self, job: &str) -> Status {
        match &self.remote {
            Remote::Acknowledged(snapshot) => Some(Box::new(snapshot.render(job, self.unowned()))),
            Remote::NotOurs(status)
            | Remote::Untrusted(status)
            | Remote::Edited(_, status)
            | Remote::Altered(_, status) => status.clone(),
        }
    }

    /// Whether the object is to be read before it is deleted: after some conflicts a resource version would
    /// never match, as others change the object all the time.
    #[must_use]
    pub fn rereads_before_deletion(&self, config: &Config) -> bool {
        let conflicts = u32::from(self.deletion_conflicts);
        conflicts >= config.conflicts_before_json_patch && !self.is_fresh
    }

    /// The resource version that the next deletion needs; `None`: whatever it is, as the object was just read.
    pub fn next_deletion(&mut self) -> Option<Arc<str>> {
        let is_fresh = std::mem::take(&mut self.is_fresh);
        (!is_fresh).then(|| self.version.text())
    }

    /// The next write in full.
    #[must_use]
    pub fn next_write(
        &mut self,
        config: &Config,
        desired: &Snapshot,
        uid: &Compact,
        job: &str,
    ) -> (Precondition, ImageExportJobStatus) {
        self.is_fresh = false;
        // Each eighth attempt goes back to the resource version: a status that reads back otherwise than
        // it is stored never passes a test.
        let churning = self.consecutive_conflicts >= config.conflicts_before_json_patch
            && self.consecutive_conflicts % 8 != 7;
        let precondition = if churning {
            Precondition::Tests {
                uid: uid.text(),
                generation: desired.generation,
                status: self.status(job),
            }
        } else {
            Precondition::ResourceVersion(self.version.text())
        };
        (precondition, desired.render(job, self.unowned()))
    }

    /// Applies the reply to a status write or a deletion.
    pub fn apply_reply(
        &mut self,
        config: &Config,
        at: Duration,
        sequence: u64,
        result: WriteResult,
        job: &str,
    ) -> Reply {
        match std::mem::replace(&mut self.stage, ChangeStage::Idle) {
            ChangeStage::Writing {
                sequence: sent_as,
                sent,
                held,
            } if sent_as == sequence => {
                if matches!(result, WriteResult::Gone) {
                    return Reply::Gone;
                }
                self.apply_write(config, at, sent, result, job);
                Reply::Applied(held)
            }
            ChangeStage::Deleting { sequence: sent_as } if sent_as == sequence => {
                self.apply_deletion(config, &result)
            }
            other => {
                self.stage = other;
                Reply::Stale
            }
        }
    }

    fn apply_write(
        &mut self,
        config: &Config,
        at: Duration,
        sent: Arc<Snapshot>,
        result: WriteResult,
        job: &str,
    ) {
        match result {
            WriteResult::Written { version, status } => {
                self.version = version.as_str().into();
                self.is_seen = false;
                self.consecutive_conflicts = 0;
                self.consecutive_errors = 0;
                self.unconfirmed.clear();
                self.remote = self.acknowledged_as(&sent, status.as_deref(), job);
            }
            WriteResult::Conflict => {
                self.consecutive_conflicts = self.consecutive_conflicts.saturating_add(1);
                // An own write may have been in the way: a client that sends again after a lost reply
                // meets its first attempt.
                self.keep_unconfirmed(config, at, sent, 0);
            }
            WriteResult::Unknown => self.keep_unconfirmed(config, at, sent, 0),
            WriteResult::Failed => {
                self.consecutive_errors = self.consecutive_errors.saturating_add(1);
                self.keep_unconfirmed(config, at, sent, self.consecutive_errors.into());
            }
            WriteResult::Throttled(_) => {}
            // A status write is never answered with the latter two.
            WriteResult::Rejected | WriteResult::Deleted | WriteResult::Gone => {
                let until = at + config.rejected_write_delay;
                self.stage = ChangeStage::Rejected { until };
            }
        }
    }

    fn keep_unconfirmed(&mut self, config: &Config, at: Duration, sent: Arc<Snapshot>, tries: u32) {
        // Each later write makes it less likely that an earlier one is still on its way.
        const KEPT: usize = 4;
        if self.unconfirmed.len() == KEPT {
            self.unconfirmed.remove(0);
        }
        self.unconfirmed.push(sent);
        self.await_confirmation(config, at, tries);
    }

    /// Waits for the watch to show how a write ended, then for one read.
    fn await_confirmation(&mut self, config: &Config, at: Duration, tries: u32) {
        let until = at + config.confirm_after.saturating_mul(1 << tries.min(4));
        self.stage = ChangeStage::Unconfirmed {
            until,
            tries,
            is_queued: false,
        };
    }

    fn apply_deletion(&mut self, config: &Config, result: &WriteResult) -> Reply {
        let conflicts = u8::from(matches!(result, WriteResult::Conflict));
        self.deletion_conflicts = self.deletion_conflicts.saturating_add(conflicts);
        self.is_fresh = false;
        Reply::DelayDeletion(match result {
            // Finalizers that hold the object show in the watch; a deletion that got lost is sent again. A
            // deletion is never answered with the third.
            WriteResult::Deleted | WriteResult::Rejected | WriteResult::Written { .. } => {
                config.rejected_write_delay
            }
            // Not at once: else an object that others change all the time is deleted all the time.
            WriteResult::Conflict | WriteResult::Unknown => config.confirm_after,
            WriteResult::Failed => {
                self.consecutive_errors = self.consecutive_errors.saturating_add(1);
                let doublings = self.consecutive_errors.min(4);
                config.confirm_after.saturating_mul(1 << doublings)
            }
            WriteResult::Throttled(_) => return Reply::Applied(None),
            WriteResult::Gone => return Reply::Gone,
        })
    }

    /// Whether this read is the one under way.
    #[must_use]
    pub fn is_fetching(&self, fetch: u64) -> bool {
        matches!(self.stage,
            ChangeStage::Fetching { sequence, .. } | ChangeStage::Rereading { sequence }
            if sequence == fetch)
    }

    /// Applies that the read under way brought the object. Returns whether its content is news.
    pub fn apply_fetched(&mut self, object: &ImageExportJob) -> bool {
        let stage = std::mem::replace(&mut self.stage, ChangeStage::Idle);
        self.is_fresh = matches!(stage, ChangeStage::Rereading { .. });
        let version = version_of(object);
        if self.order(version) == Some(Ordering::Less) {
            // The watch has shown a newer one meanwhile.
            return false;
        }
        self.version = version.into();
        self.is_seen = true;
        true
    }

    /// Applies that the read under way brought no reply. Returns how long the next deletion waits, where it
    /// was for one.
    pub fn apply_failed_fetch(&mut self, config: &Config, at: Duration) -> Option<Duration> {
        if let ChangeStage::Fetching { tries, .. } = self.stage {
            self.await_confirmation(config, at, tries + 1);
            return None;
        }
        self.stage = ChangeStage::Idle;
        Some(config.confirm_after)
    }
}

fn version_of(object: &ImageExportJob) -> &str {
    object
        .metadata
        .resource_version
        .as_deref()
        .unwrap_or_default()
}
