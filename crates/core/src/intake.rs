//! What the API server holds: lists, changes, deletions.

use super::{
    Now, ObjectEvent, ObjectKey, Source, Timer, Tracker,
    effects::CredentialRef,
    record::{Identity, Poll, Record, Server, Write},
    standing::foreign,
    version,
};
use image_export_api::{
    ImageExportJob, ImageExportJobStatus, POLL_REQUEST_ANNOTATION, POLL_REQUEST_MAX_BYTES,
};
use std::{cmp::Ordering, sync::Arc, time::Duration};

/// Event reason: an object that the operator cannot read. Told once an object.
pub const INVALID_OBJECT: &str = "InvalidObject";
/// Event reason: an unusable value of the poll-request annotation.
const POLL_REQUEST_IGNORED: &str = "PollRequestIgnored";

impl Tracker {
    pub(super) fn seen(&mut self, now: Now, source: Source, object: ImageExportJob) {
        let Some(identity) = self.identify(&object) else {
            return;
        };
        self.records.forget_undecodable(&identity.uid);
        if let Some((index, record)) = self.records.at(&identity.key) {
            if record.uid == identity.uid {
                self.records.mark(index, source);
                self.seen_again(now, index, object);
                return;
            }
            if version::compare(&identity.version, &record.version) == Some(Ordering::Less) {
                // An earlier incarnation, shown late: what is deleted does not come back.
                return;
            }
            // Same name, another object: the old one is gone, whether or not we were told.
            self.forget(index, now);
        }
        self.seen_first(now, source, identity, &object);
    }

    fn identify(&mut self, object: &ImageExportJob) -> Option<Identity> {
        let meta = &object.metadata;
        Some(Identity {
            key: ObjectKey {
                namespace: self.records.intern(meta.namespace.as_deref()?),
                name: meta.name.as_deref()?.into(),
            },
            uid: meta.uid.as_deref()?.into(),
            version: meta.resource_version.as_deref()?.into(),
            generation: meta.generation.unwrap_or_default(),
            project: self.records.intern(object.spec.project_id.as_str()),
            job: object.spec.job_id.as_str().into(),
        })
    }

    fn credential_ref(&mut self, namespace: &Arc<str>, object: &ImageExportJob) -> u32 {
        self.credentials.index_of(&CredentialRef {
            namespace: namespace.clone(),
            cloud: object.spec.cloud_credentials_ref.clone(),
        })
    }

    fn seen_first(
        &mut self,
        now: Now,
        source: Source,
        identity: Identity,
        object: &ImageExportJob,
    ) {
        let credential = self.credential_ref(&identity.key.namespace, object);
        let lane = self
            .polls
            .join_lane(&self.config, now.mono, credential, &identity.project);
        let serial = self.records.next_serial();
        let mut record = Record::new(serial, source, identity, credential, lane);
        record.period_seconds = period_seconds(object);
        record.suspended = object.spec.suspend;
        record.deleted = object.metadata.deletion_timestamp.is_some();
        record.adopt(object.status.as_ref());
        let index = self.records.insert(record);
        self.records.mark(index, source);
        self.credentials.join(credential, index);
        self.take_lifetime(now, index, object);
        self.schedule_first(now, index);
        self.take_poll_request(now, index, object);
        if self
            .records
            .get(index)
            .is_some_and(|record| record.row().is_none())
        {
            self.set_timer(
                now.mono + self.config.pending_grace,
                Timer::Pending { index, serial },
            );
        }
        self.refresh_write(now, index);
    }

    pub(super) fn seen_again(&mut self, now: Now, index: u32, object: ImageExportJob) {
        let Some(record) = self.records.get_mut(index) else {
            return;
        };
        let version = object
            .metadata
            .resource_version
            .as_deref()
            .unwrap_or_default();
        if version::compare(version, &record.version) == Some(Ordering::Less) {
            return;
        }
        if let Write::InFlight { held, .. } = &mut record.write {
            // Possibly our own echo, which may come before the reply: the reply tells.
            let newer = held.as_ref().is_none_or(|held| {
                let held = held
                    .metadata
                    .resource_version
                    .as_deref()
                    .unwrap_or_default();
                version::compare(version, held) != Some(Ordering::Less)
            });
            if newer {
                *held = Some(Box::new(object));
            }
            return;
        }
        let changed = *version != *record.version;
        self.take_in(now, index, &object, changed);
    }

    /// Takes in an object that is not older than the record. `settles`: a write whose end is not
    /// known is settled by it.
    pub(super) fn take_in(&mut self, now: Now, index: u32, object: &ImageExportJob, settles: bool) {
        let Some(record) = self.records.get_mut(index) else {
            return;
        };
        record.version = object
            .metadata
            .resource_version
            .as_deref()
            .unwrap_or_default()
            .into();
        record.deleted = object.metadata.deletion_timestamp.is_some();
        if settles
            && matches!(
                record.write,
                Write::Settling { .. } | Write::Fetching { .. }
            )
        {
            record.write = Write::Idle;
        }
        if !self.take_over(now, index, object) {
            self.take_status(now, index, object.status.as_ref());
        }
        self.take_spec(now, index, object);
        self.take_poll_request(now, index, object);
        self.refresh_write(now, index);
    }

    /// While another one leads, the status is that one's to write and ours to believe. Returns
    /// whether that was so.
    fn take_over(&mut self, now: Now, index: u32, object: &ImageExportJob) -> bool {
        if self.leading {
            return false;
        }
        let Some(record) = self.records.get_mut(index) else {
            return false;
        };
        let status = object.status.as_ref();
        if record.server_status().as_deref() == status {
            return false;
        }
        record.adopt(status);
        self.note_end(now, index);
        let Some(record) = self.records.get(index) else {
            return true;
        };
        if !record.is_active() {
            self.stop_polling(index);
        } else if record.poll == Poll::Off {
            self.poll_now(now, index, now.mono);
        }
        true
    }

    /// Compares the status with what was last acknowledged. Conditions of others are theirs to
    /// change; anything else is repaired.
    fn take_status(&mut self, now: Now, index: u32, status: Option<&ImageExportJobStatus>) {
        let Some(record) = self.records.get_mut(index) else {
            return;
        };
        record.foreign = status.and_then(foreign);
        if let Some(acknowledged) = &mut record.acknowledged {
            if acknowledged.foreign != record.foreign {
                Arc::make_mut(acknowledged)
                    .foreign
                    .clone_from(&record.foreign);
            }
            if status == Some(&acknowledged.render(&record.job)) {
                record.server = Server::Acknowledged;
                return;
            }
        }
        if let Some(sent) = record.confirmed_by(status) {
            self.acknowledge(now, index, sent);
            return;
        }
        if record.acknowledged.is_some() {
            if let Server::Stores(stored) = &record.server
                && status == stored.as_deref()
            {
                return;
            }
            self.counters.repairs += 1;
        }
        record.server = Server::Holds(status.cloned().map(Box::new));
    }

    fn take_spec(&mut self, now: Now, index: u32, object: &ImageExportJob) {
        let (clock, leading) = (self.clock(now), self.leading);
        let generation = object.metadata.generation.unwrap_or_default();
        let Some(record) = self.records.get_mut(index) else {
            return;
        };
        if record.generation == generation {
            return;
        }
        let row = record.row();
        record.generation = generation;
        let resumed =
            std::mem::replace(&mut record.suspended, object.spec.suspend) && !record.suspended;
        if resumed && leading {
            record.history.overdue = false;
            record.turn_blind(clock);
        }
        let old_period = std::mem::replace(&mut record.period_seconds, period_seconds(object));
        let (old_credential, old_lane) = (record.credential, record.lane);
        let (namespace, project) = (record.key.namespace.clone(), record.project.clone());

        let credential = self.credential_ref(&namespace, object);
        let other_credential = credential != old_credential;
        if other_credential {
            self.credentials.join(credential, index);
            let lane = self
                .polls
                .join_lane(&self.config, now.mono, credential, &project);
            let record = self
                .records
                .get_mut(index)
                .expect("it was there a moment ago");
            record.credential = credential;
            record.lane = lane;
            record.history.forget_credentials();
            if std::mem::take(&mut record.newcomer) {
                self.polls.newcomer_left(old_lane);
            }
            self.credentials.leave(old_credential, index);
            self.polls.leave_lane(old_lane, now.mono);
        }
        self.take_other_limits(now, index, object);
        let record = self.records.get(index).expect("it was there a moment ago");
        // Row 4a goes on while suspended; resuming must not bring its next attempt forward.
        let resumed = record.poll == Poll::Off;
        if !record.is_active() {
            self.stop_polling(index);
        } else if other_credential || resumed {
            self.poll_now(now, index, now.mono);
        } else if record.period_seconds != old_period || record.row() != row {
            self.schedule_pace(now, index);
        }
    }

    fn take_poll_request(&mut self, now: Now, index: u32, object: &ImageExportJob) {
        let request = object
            .metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(POLL_REQUEST_ANNOTATION));
        let Some(record) = self.records.get_mut(index) else {
            return;
        };
        let Some(request) = request.filter(|request| !request.is_empty()) else {
            record.reported_request = false;
            return;
        };
        if record.handled_request.as_deref() == Some(request) {
            return;
        }
        if request.len() > POLL_REQUEST_MAX_BYTES {
            if !std::mem::replace(&mut record.reported_request, true) {
                let note = ObjectEvent {
                    key: record.key.clone(),
                    uid: record.uid.clone(),
                    reason: POLL_REQUEST_IGNORED,
                    warning: true,
                    note: format!(
                        "The annotation {POLL_REQUEST_ANNOTATION} is ignored: its value is longer than \
                         {POLL_REQUEST_MAX_BYTES} bytes."
                    ),
                };
                self.out.events.push(note);
            }
            return;
        }
        record.reported_request = false;
        record.handled_request = Some(request.as_str().into());
        let first_in_line = record.poll == Poll::Queued(Duration::ZERO);
        if record.may_be_asked() && !first_in_line {
            self.poll_now(now, index, Duration::ZERO);
        }
    }

    pub(super) fn undecodable(
        &mut self,
        now: Now,
        source: Source,
        key: ObjectKey,
        uid: &str,
        error: &str,
    ) {
        if let Some((index, record)) = self.records.at(&key) {
            if *record.uid == *uid {
                self.records.mark(index, source);
            } else {
                self.forget(index, now);
            }
        }
        if self.records.report_undecodable(uid) {
            let note = ObjectEvent {
                key,
                uid: uid.into(),
                reason: INVALID_OBJECT,
                warning: true,
                note: format!("This object is not followed, because it cannot be read: {error}."),
            };
            self.out.events.push(note);
        }
    }

    pub(super) fn listed(&mut self, now: Now, source: Source) {
        for index in self.records.unlisted(source) {
            self.forget(index, now);
        }
        self.records.purge_names();
        self.polls.sweep(now.mono);
    }

    pub(super) fn gone(&mut self, now: Now, key: &ObjectKey, uid: Option<&str>) {
        if let Some(uid) = uid {
            self.records.forget_undecodable(uid);
        }
        if let Some((index, record)) = self.records.at(key)
            && uid.is_none_or(|uid| *record.uid == *uid)
        {
            self.forget(index, now);
        }
    }

    /// Drops a record. What is in flight for it is dropped when it comes back.
    pub(super) fn forget(&mut self, index: u32, now: Now) {
        if let Some(record) = self.records.remove(index) {
            if record.newcomer {
                self.polls.newcomer_left(record.lane);
            }
            self.credentials.leave(record.credential, index);
            self.polls.leave_lane(record.lane, now.mono);
        }
    }

    pub(super) fn pending_timer(&mut self, now: Now, index: u32, serial: u32) {
        let Some(record) = self.records.current_mut(index, serial) else {
            return;
        };
        if record.row().is_none() {
            record.history.pending = true;
            self.refresh_write(now, index);
        }
    }
}

fn period_seconds(object: &ImageExportJob) -> Option<u32> {
    let seconds = u32::try_from(object.spec.poll_period_seconds?).ok()?;
    (seconds > 0).then_some(seconds)
}
