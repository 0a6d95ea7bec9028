//! What is written, in which order, and what if it fails.

use super::{
    Config, Deletion, Effect, FetchResult, FetchTicket, Now, ObjectEvent, Precondition,
    StatusWrite, Timer, Tracker, WriteResult, WriteTicket,
    quota::TokenBucket,
    record::{Record, Server, Write},
    standing::Standing,
    verdict::{Row, Urgency},
};
use image_export_api::ImageExportJob;
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// The queues and limits of status writes.
#[derive(Debug)]
pub(super) struct Writes {
    queues: [VecDeque<(u32, u32)>; Urgency::ALL.len()],
    /// Objects to read, to settle how a write ended.
    fetches: VecDeque<(u32, u32)>,
    poll_failed: TokenBucket,
    pub(super) in_flight: usize,
    paused_until: Duration,
    /// Troubled writes in a row, for the length of the pause.
    troubles: u32,
    wake_at: Option<Duration>,
}

impl Writes {
    pub(super) fn new(config: &Config, now: Duration) -> Self {
        Self {
            queues: Default::default(),
            fetches: VecDeque::new(),
            // Nothing is saved up, or the first second of an outage would have twice the rate.
            poll_failed: TokenBucket::new(config.poll_failed_writes, 1.0, now),
            in_flight: 0,
            paused_until: Duration::ZERO,
            troubles: 0,
            wake_at: None,
        }
    }

    pub(super) fn wake(&mut self, at: Duration) {
        if self.wake_at == Some(at) {
            self.wake_at = None;
        }
    }
}

fn needs_write(record: &Record, desired: &Standing) -> bool {
    match (&record.server, &record.acknowledged) {
        (Server::Holds(_), _) | (_, None) => true,
        (Server::Acknowledged | Server::Stores(_), Some(acknowledged)) => {
            acknowledged.generation != desired.generation || !acknowledged.says_the_same(desired)
        }
    }
}

impl Tracker {
    /// Queues a write where the status should say something else than it does. Cheap where not.
    pub(super) fn refresh_write(&mut self, now: Now, index: u32) {
        let clock = self.clock(now);
        let Some(record) = self.records.get_mut(index) else {
            return;
        };
        let queued = match &record.write {
            Write::Idle => None,
            Write::Queued(urgency) => Some(*urgency),
            _ => return,
        };
        let wanted = record
            .desired(now.wall.as_second())
            .filter(|desired| needs_write(record, desired))
            .map(|desired| desired.row.urgency());
        let wanted = wanted.or_else(|| record.has_expired(clock).then_some(Urgency::Expiry));
        match wanted {
            None => record.write = Write::Idle,
            Some(urgency) if queued != Some(urgency) => {
                record.write = Write::Queued(urgency);
                self.writes.queues[urgency as usize].push_back((index, record.serial));
            }
            Some(_) => {}
        }
    }

    pub(super) fn send_writes(&mut self, now: Now) {
        let clock = self.clock(now);
        while self.writes.in_flight < self.config.writes_in_flight {
            if now.mono < self.writes.paused_until {
                self.wake_writes(self.writes.paused_until);
                return;
            }
            if let Some((index, serial)) = self.writes.fetches.pop_front() {
                self.send_fetch(index, serial);
                continue;
            }
            let Some((queue, index, serial)) = self.first_queued() else {
                return;
            };
            let record = self
                .records
                .current_mut(index, serial)
                .expect("it is queued");
            let desired = record
                .desired(now.wall.as_second())
                .filter(|desired| needs_write(record, desired));
            let Some(desired) = desired else {
                self.writes.queues[queue].pop_front();
                record.write = Write::Idle;
                if record.has_expired(clock) {
                    self.send_deletion(index);
                }
                continue;
            };
            if desired.row == Row::PollFailed
                && let Err(wait) = self.writes.poll_failed.take(now.mono)
            {
                self.wake_writes(now.mono + wait);
                return;
            }
            self.writes.queues[queue].pop_front();
            self.send_write(index, Arc::new(desired));
        }
    }

    /// The first entry that still stands, by urgency.
    fn first_queued(&mut self) -> Option<(usize, u32, u32)> {
        for (queue, urgency) in Urgency::ALL.into_iter().enumerate() {
            while let Some(&(index, serial)) = self.writes.queues[queue].front() {
                let stands = self
                    .records
                    .current(index, serial)
                    .is_some_and(|record| matches!(record.write, Write::Queued(u) if u == urgency));
                if stands {
                    return Some((queue, index, serial));
                }
                self.writes.queues[queue].pop_front();
            }
        }
        None
    }

    fn wake_writes(&mut self, at: Duration) {
        if self.writes.wake_at.is_none_or(|wake_at| wake_at > at) {
            self.writes.wake_at = Some(at);
            self.set_timer(at, Timer::Writes);
        }
    }

    /// A ticket for the next write of an object.
    fn write_ticket(&mut self, index: u32) -> Option<WriteTicket> {
        let sequence = self.next_sequence();
        Some(WriteTicket {
            index,
            serial: self.records.get(index)?.serial,
            sequence,
            epoch: self.epoch,
        })
    }

    fn send_write(&mut self, index: u32, desired: Arc<Standing>) {
        let Some(ticket) = self.write_ticket(index) else {
            return;
        };
        let Some(record) = self.records.get_mut(index) else {
            return;
        };
        // Each eighth attempt goes back to the first precondition: a status that reads back otherwise than it
        // was stored never passes the second one's test.
        let churning = record.conflicts >= self.config.conflicts_before_json_patch
            && record.conflicts % 8 != 7;
        let precondition = if churning {
            Precondition::Tests {
                uid: record.uid.clone(),
                generation: record.generation,
                status: record.server_status(),
            }
        } else {
            Precondition::ResourceVersion(record.version.clone())
        };
        let write = StatusWrite {
            ticket,
            key: record.key.clone(),
            precondition,
            status: desired.render(&record.job),
        };
        record.write = Write::InFlight {
            sequence: write.ticket.sequence,
            sent: desired,
            held: None,
        };
        self.writes.in_flight += 1;
        self.out.effects.push(Effect::WriteStatus(Box::new(write)));
    }

    fn send_deletion(&mut self, index: u32) {
        let Some(ticket) = self.write_ticket(index) else {
            return;
        };
        let sequence = ticket.sequence;
        let Some(record) = self.records.get_mut(index) else {
            return;
        };
        let deletion = Deletion {
            ticket,
            key: record.key.clone(),
            uid: record.uid.clone(),
            version: record.version.clone(),
        };
        record.write = Write::Deleting { sequence };
        self.writes.in_flight += 1;
        self.out.effects.push(Effect::Delete(Box::new(deletion)));
    }

    pub(super) fn wrote(&mut self, now: Now, ticket: &WriteTicket, result: WriteResult) {
        self.writes.in_flight -= 1;
        self.note_trouble(now, &result);
        let Some(record) = self.records.current_mut(ticket.index, ticket.serial) else {
            return;
        };
        let (Write::InFlight { sequence, .. } | Write::Deleting { sequence }) = record.write else {
            return;
        };
        if sequence != ticket.sequence {
            return;
        }
        let index = ticket.index;
        let ended = std::mem::replace(&mut record.write, Write::Idle);
        if let Write::InFlight { sent, held, .. } = ended {
            self.status_written(now, index, sent, result);
            if let Some(object) = held {
                self.seen_again(now, index, *object);
            }
        } else {
            self.deletion_ended(now, index, &result);
        }
        self.refresh_write(now, index);
    }

    fn status_written(&mut self, now: Now, index: u32, sent: Arc<Standing>, result: WriteResult) {
        let Some(record) = self.records.get_mut(index) else {
            return;
        };
        match result {
            WriteResult::Written { version, status } => {
                record.version = version.as_str().into();
                record.conflicts = 0;
                record.setbacks = 0;
                let as_sent = status.as_deref() == Some(&sent.render(&record.job));
                self.acknowledge(now, index, sent);
                if !as_sent && let Some(record) = self.records.get_mut(index) {
                    record.server = Server::Stores(status);
                }
            }
            WriteResult::Conflict => {
                record.conflicts = record.conflicts.saturating_add(1);
                // It may be our own write that was in the way: a client that tries again after a lost
                // reply meets its first attempt.
                record.doubt(sent);
                self.settle_later(now, index, 0);
            }
            WriteResult::Unknown => {
                record.doubt(sent);
                self.settle_later(now, index, 0);
            }
            WriteResult::Failed => {
                record.doubt(sent);
                let tries = self.count_setback(index);
                self.settle_later(now, index, tries);
            }
            WriteResult::Gone => self.forget(index, now),
            WriteResult::Throttled(_) => {}
            // The second is never said of a status.
            WriteResult::Rejected | WriteResult::Deleted => {
                let until = now.mono + self.config.refused_write_delay;
                let serial = record.serial;
                record.write = Write::Delayed(until);
                self.set_timer(until, Timer::Write { index, serial });
            }
        }
    }

    fn deletion_ended(&mut self, now: Now, index: u32, result: &WriteResult) {
        let hold = match result {
            // Finalizers that hold it up show in the watch; if it got lost after all, it is sent
            // again. The third is never said of a deletion.
            WriteResult::Deleted | WriteResult::Rejected | WriteResult::Written { .. } => {
                self.config.refused_write_delay
            }
            // Not at once: an object that others change all the time would be deleted all the time.
            WriteResult::Conflict | WriteResult::Unknown => self.config.settle_after,
            WriteResult::Failed => {
                let setbacks = self.count_setback(index);
                self.config
                    .settle_after
                    .saturating_mul(1 << setbacks.min(4))
            }
            WriteResult::Throttled(_) => return,
            WriteResult::Gone => {
                self.forget(index, now);
                return;
            }
        };
        self.hold_deletion(now, index, hold);
    }

    /// Counts one more write that met a 500.
    fn count_setback(&mut self, index: u32) -> u32 {
        self.records.get_mut(index).map_or(0, |record| {
            record.setbacks = record.setbacks.saturating_add(1);
            record.setbacks.into()
        })
    }

    /// Waits for the watch to tell how a write ended, and asks if it does not.
    fn settle_later(&mut self, now: Now, index: u32, tries: u32) {
        let wait = self.config.settle_after.saturating_mul(1 << tries.min(4));
        let until = now.mono + wait;
        if let Some(record) = self.records.get_mut(index) {
            record.write = Write::Settling { until, tries };
            let serial = record.serial;
            self.set_timer(until, Timer::Write { index, serial });
        }
    }

    /// Trouble that is the API server's rather than the object's pauses all writes.
    fn note_trouble(&mut self, now: Now, result: &WriteResult) {
        let asked = match result {
            WriteResult::Throttled(asked) => asked.unwrap_or_default(),
            WriteResult::Unknown => Duration::ZERO,
            WriteResult::Failed => return,
            _ => {
                self.writes.troubles = 0;
                return;
            }
        };
        if now.mono < self.writes.paused_until {
            // Sent before the pause: one trouble, not sixteen.
            return;
        }
        let longest = self.config.write_pause_max;
        let pause = self
            .config
            .pause_min
            .saturating_mul(1 << self.writes.troubles.min(16))
            .min(longest);
        self.writes.troubles += 1;
        self.writes.paused_until = now.mono + pause.max(asked.min(self.config.pause_max));
    }

    /// The API server holds this standing now.
    pub(super) fn acknowledge(&mut self, now: Now, index: u32, standing: Arc<Standing>) {
        let Some(record) = self.records.get_mut(index) else {
            return;
        };
        let before = record
            .acknowledged
            .as_ref()
            .map(|standing| standing.row.reason());
        let row = standing.row;
        if before != Some(row.reason()) {
            let note = ObjectEvent {
                key: record.key.clone(),
                uid: record.uid.clone(),
                reason: row.reason(),
                warning: row.is_trouble(),
                note: row.message(&record.job, standing.detail.as_deref(), &standing.facts),
            };
            self.out.events.push(note);
        }
        record.acknowledged = Some(standing);
        record.unconfirmed.clear();
        record.server = Server::Acknowledged;
        self.note_end(now, index);
    }

    pub(super) fn write_timer(&mut self, now: Now, index: u32, serial: u32, at: Duration) {
        let Some(record) = self.records.current_mut(index, serial) else {
            return;
        };
        match &record.write {
            Write::Delayed(until) if *until == at => {
                record.write = Write::Idle;
                self.refresh_write(now, index);
            }
            Write::Settling { until, .. } if *until == at => {
                self.writes.fetches.push_back((index, serial));
            }
            _ => {}
        }
    }

    fn send_fetch(&mut self, index: u32, serial: u32) {
        let sequence = self.next_sequence();
        let Some(record) = self.records.current_mut(index, serial) else {
            return;
        };
        let Write::Settling { tries, .. } = record.write else {
            return;
        };
        record.write = Write::Fetching { sequence, tries };
        self.writes.in_flight += 1;
        let ticket = FetchTicket {
            index,
            serial,
            sequence,
        };
        self.out
            .effects
            .push(Effect::Fetch(ticket, record.key.clone()));
    }

    pub(super) fn fetched(&mut self, now: Now, ticket: &FetchTicket, result: FetchResult) {
        self.writes.in_flight -= 1;
        let index = ticket.index;
        let Some(record) = self.records.current_mut(index, ticket.serial) else {
            return;
        };
        let Write::Fetching { sequence, tries } = record.write else {
            return;
        };
        if sequence != ticket.sequence {
            return;
        }
        match result {
            FetchResult::Found(object) => self.settle(now, index, &object),
            FetchResult::Gone => self.forget(index, now),
            FetchResult::Failed => self.settle_later(now, index, tries + 1),
        }
    }

    fn settle(&mut self, now: Now, index: u32, object: &ImageExportJob) {
        let same = self
            .records
            .get(index)
            .is_some_and(|record| object.metadata.uid.as_deref() == Some(&*record.uid));
        if same {
            self.take_in(now, index, object, true);
        } else {
            self.forget(index, now);
        }
    }
}
