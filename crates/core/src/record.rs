//! The registry: one lean record per object, found by key or by index.

use super::{
    effects::{ObjectKey, Source},
    history::History,
    lifetime::Limits,
    standing::{Parsed, Standing, foreign, looks_finished},
    verdict::{Row, Urgency},
};
use image_export_api::{ImageExportJob, ImageExportJobStatus, conditions::Condition};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

/// What is kept of one object.
#[derive(Debug)]
// They have nothing to do with one another.
#[allow(clippy::struct_excessive_bools)]
pub struct Record {
    /// Differs for each incarnation at the same index.
    pub serial: u32,
    pub key: ObjectKey,
    pub uid: Arc<str>,
    /// Seed of phase and jitter, a hash of the uid.
    pub seed: u64,
    pub version: Arc<str>,
    pub generation: i64,
    source: Source,
    mark: u32,

    pub project: Arc<str>,
    pub job: Arc<str>,
    pub credential: u32,
    pub lane: u32,
    /// `spec.pollPeriodSeconds`
    pub period_seconds: Option<u32>,
    pub suspended: bool,
    pub limits: Limits,
    /// Somebody has deleted the object; only finalizers keep it.
    pub deleted: bool,

    pub history: History,
    /// Last status that the API server acknowledged.
    pub acknowledged: Option<Arc<Standing>>,
    pub server: Server,
    /// Last value of the poll-request annotation that was accepted.
    pub handled_request: Option<Arc<str>>,
    /// A value that was too long to accept was reported already.
    pub reported_request: bool,
    pub foreign: Option<Arc<[Condition]>>,
    /// The status claims an end that does not add up: nothing is written until the cloud was asked.
    pub doubtful: bool,
    /// Its first poll is still to come.
    pub newcomer: bool,

    pub poll: Poll,
    pub write: Write,
    /// The last statuses of which it is not known whether they landed; mostly none. One may still do
    /// so after others were seen to change the object, and is no edit of theirs then.
    pub unconfirmed: Vec<Arc<Standing>>,
    pub conflicts: u8,
    /// Writes in a row that met a 500.
    pub setbacks: u8,
}

/// What the API server holds as the status, as far as we know.
#[derive(Debug)]
pub enum Server {
    /// What was last acknowledged.
    Acknowledged,
    /// Something else, which is to be replaced.
    Holds(Option<Box<ImageExportJobStatus>>),
    /// What was last acknowledged, changed in storing (by an older CRD, say); writing it again
    /// would only loop.
    Stores(Option<Box<ImageExportJobStatus>>),
}

/// Where an object is on its way to the next poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// None is due: finished or suspended.
    Off,
    /// Due at this time.
    Scheduled(Duration),
    /// Due, but its credential is not usable.
    AwaitingCredential,
    /// Due since this time (zero: somebody asked for it), waiting for its quota.
    Queued(Duration),
    /// Asked.
    InFlight {
        /// Sequence of the poll.
        sequence: u64,
        /// Another one is wanted right after.
        again: bool,
    },
}

/// Where a write is.
#[derive(Debug)]
pub enum Write {
    /// Nothing is under way.
    Idle,
    /// Waiting for its turn.
    Queued(Urgency),
    /// Sent.
    InFlight {
        /// Sequence of the write.
        sequence: u64,
        /// What was sent.
        sent: Arc<Standing>,
        /// What the watch brought meanwhile.
        held: Option<Box<ImageExportJob>>,
    },
    /// Its deletion was sent.
    Deleting {
        /// Sequence of the deletion.
        sequence: u64,
    },
    /// A conflict, or no reply: the watch will tell, or one read at `until`.
    Settling {
        /// When to ask.
        until: Duration,
        /// Reads that failed so far.
        tries: u32,
    },
    /// Being read.
    Fetching {
        /// Sequence of the read.
        sequence: u64,
        /// Reads that failed so far.
        tries: u32,
    },
    /// Refused; left alone until then.
    Delayed(Duration),
}

impl Record {
    /// The row that holds now; [`Row::Pending`] where a row ended and nothing else holds.
    #[must_use]
    pub fn row(&self) -> Option<Row> {
        let spoken = self.acknowledged.is_some() || self.handled_request.is_some();
        Row::of(&self.history, self.suspended).or(spoken.then_some(Row::Pending))
    }

    /// Whether the cloud has anything left to tell.
    #[must_use]
    pub fn is_active(&self) -> bool {
        !self
            .row()
            .is_some_and(|row| row.is_finished() || row == Row::Suspended)
    }

    /// Believes a status that is not of this run: the evidence begins with what it says.
    pub fn adopt(&mut self, status: Option<&ImageExportJobStatus>) {
        self.foreign = status.and_then(foreign);
        self.handled_request = status
            .and_then(|status| status.last_handled_poll_request.as_deref())
            .map(Arc::from);
        self.history = History::default();
        self.acknowledged = None;
        self.unconfirmed.clear();
        self.doubtful = false;
        self.server = Server::Holds(status.cloned().map(Box::new));
        match Standing::parse(status, &self.job) {
            Parsed::Ours(standing) => {
                self.history = History::of(&standing);
                if status == Some(&standing.render(&self.job)) {
                    self.server = Server::Acknowledged;
                }
                self.acknowledged = Some(Arc::new(standing));
            }
            Parsed::Fresh => {}
            Parsed::Strange => self.doubtful = status.is_some_and(looks_finished),
        }
    }

    /// Whether a poll that somebody asks for makes sense: row 4b is finished, and yet may learn its
    /// image id.
    #[must_use]
    pub fn may_be_asked(&self) -> bool {
        self.is_active() || self.row() == Some(Row::ImageIdMissing)
    }

    /// Keeps a status that was sent and may have landed.
    pub fn doubt(&mut self, sent: Arc<Standing>) {
        // Each later one makes it less likely that an earlier one is still on its way.
        const KEPT: usize = 4;
        if self.unconfirmed.len() == KEPT {
            self.unconfirmed.remove(0);
        }
        self.unconfirmed.push(sent);
    }

    /// The one among the unconfirmed statuses that is this one, whatever others did to their
    /// conditions since.
    #[must_use]
    pub fn confirmed_by(&self, status: Option<&ImageExportJobStatus>) -> Option<Arc<Standing>> {
        self.unconfirmed.iter().rev().find_map(|sent| {
            let mut sent = sent.clone();
            if sent.foreign != self.foreign {
                Arc::make_mut(&mut sent).foreign.clone_from(&self.foreign);
            }
            (status == Some(&sent.render(&self.job))).then_some(sent)
        })
    }

    /// The status that should be written, but for its transition times.
    #[must_use]
    pub fn desired(&self, wall: i64) -> Option<Standing> {
        if self.doubtful {
            return None;
        }
        let row = self.row()?;
        let history = &self.history;
        let detail = match row {
            Row::Refused(_) => history
                .refusal
                .as_ref()
                .map(|refusal| refusal.message.clone()),
            Row::PollFailed => history.poll_failed.clone(),
            Row::DeadlineExceeded => history.obstacle(),
            _ => None,
        };
        Some(Standing {
            row,
            detail,
            facts: history.facts.clone(),
            generation: self.generation,
            poll_request: self.handled_request.clone(),
            since: Standing::since(row, wall, self.acknowledged.as_deref()),
            foreign: self.foreign.clone(),
        })
    }

    /// The status as it stands on the API server.
    #[must_use]
    pub fn server_status(&self) -> Option<Box<ImageExportJobStatus>> {
        match (&self.server, &self.acknowledged) {
            (Server::Holds(status) | Server::Stores(status), _) => status.clone(),
            (Server::Acknowledged, acknowledged) => acknowledged
                .as_ref()
                .map(|standing| Box::new(standing.render(&self.job))),
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Listing {
    mark: u32,
    listed: bool,
}

/// All records.
#[derive(Debug, Default)]
pub struct Records {
    slots: Vec<Option<Box<Record>>>,
    free: Vec<u32>,
    by_key: HashMap<ObjectKey, u32>,
    listings: HashMap<Source, Listing>,
    /// Objects that do not decode, by uid: reported once.
    undecodable: HashSet<String>,
    names: HashSet<Arc<str>>,
    serial: u32,
}

impl Records {
    /// A list of this source begins.
    pub fn began(&mut self, source: Source) {
        self.listings.entry(source).or_default().mark += 1;
    }

    /// The records of this source that its list, now complete, did not bring.
    pub fn unlisted(&mut self, source: Source) -> Vec<u32> {
        let listing = self.listings.entry(source).or_default();
        listing.listed = true;
        let mark = listing.mark;
        self.iter()
            .filter(|(_, record)| record.source == source && record.mark != mark)
            .map(|(index, _)| index)
            .collect()
    }

    /// Whether this source was ever listed to the end.
    #[must_use]
    pub fn has_listed(&self, source: Source) -> bool {
        self.listings
            .get(&source)
            .is_some_and(|listing| listing.listed)
    }

    /// Notes that the object was seen.
    pub fn mark(&mut self, index: u32, source: Source) {
        let mark = self.listings.entry(source).or_default().mark;
        if let Some(record) = self.get_mut(index) {
            record.source = source;
            record.mark = mark;
        }
    }

    /// Whether this is the first report of an object that does not decode.
    pub fn report_undecodable(&mut self, uid: &str) -> bool {
        self.undecodable.insert(uid.to_owned())
    }

    /// The object decodes again, or is gone.
    pub fn forget_undecodable(&mut self, uid: &str) {
        self.undecodable.remove(uid);
    }

    /// One shared copy of a name that many records bear.
    pub fn intern(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        self.names.insert(name.clone());
        name
    }

    /// Drops shared names that no record bears any more.
    pub fn purge_names(&mut self) {
        self.names.retain(|name| Arc::strong_count(name) > 1);
    }

    /// A serial that no record has had.
    pub fn next_serial(&mut self) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        self.serial
    }

    /// The record of the object at this place, with its index.
    #[must_use]
    pub fn at(&self, key: &ObjectKey) -> Option<(u32, &Record)> {
        let index = *self.by_key.get(key)?;
        Some((index, self.get(index)?))
    }

    /// The record at this index.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&Record> {
        self.slots.get(index as usize)?.as_deref()
    }

    /// The record at this index.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut Record> {
        self.slots.get_mut(index as usize)?.as_deref_mut()
    }

    /// The record at this index, if it is still this incarnation.
    #[must_use]
    pub fn current(&self, index: u32, serial: u32) -> Option<&Record> {
        self.get(index).filter(|record| record.serial == serial)
    }

    /// The record at this index, if it is still this incarnation.
    pub fn current_mut(&mut self, index: u32, serial: u32) -> Option<&mut Record> {
        self.get_mut(index).filter(|record| record.serial == serial)
    }

    /// The index that the next [`Records::insert`] returns.
    #[must_use]
    pub fn next_index(&self) -> u32 {
        self.free
            .last()
            .copied()
            .unwrap_or_else(|| u32::try_from(self.slots.len()).expect("fewer than 2^32 objects"))
    }

    /// Adds a record.
    pub fn insert(&mut self, record: Record) -> u32 {
        let index = self.next_index();
        self.by_key.insert(record.key.clone(), index);
        match self.free.pop() {
            Some(free) => self.slots[free as usize] = Some(Box::new(record)),
            None => self.slots.push(Some(Box::new(record))),
        }
        index
    }

    /// Takes a record out.
    pub fn remove(&mut self, index: u32) -> Option<Record> {
        let record = self.slots.get_mut(index as usize)?.take()?;
        self.by_key.remove(&record.key);
        self.free.push(index);
        Some(*record)
    }

    /// All records with their indices.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Record)> {
        (0u32..)
            .zip(&self.slots)
            .filter_map(|(index, slot)| Some((index, slot.as_deref()?)))
    }
}

/// Fields of a new record that come from its object alone.
pub struct Identity {
    pub key: ObjectKey,
    pub uid: Arc<str>,
    pub version: Arc<str>,
    pub generation: i64,
    pub project: Arc<str>,
    pub job: Arc<str>,
}

impl Record {
    /// A record about which nothing is known yet.
    #[must_use]
    pub fn new(
        serial: u32,
        source: Source,
        identity: Identity,
        credential: u32,
        lane: u32,
    ) -> Self {
        Self {
            serial,
            seed: super::cadence::seed(&identity.uid),
            key: identity.key,
            uid: identity.uid,
            version: identity.version,
            generation: identity.generation,
            source,
            mark: 0,
            project: identity.project,
            job: identity.job,
            credential,
            lane,
            period_seconds: None,
            suspended: false,
            limits: Limits::default(),
            deleted: false,
            history: History::default(),
            acknowledged: None,
            server: Server::Holds(None),
            handled_request: None,
            reported_request: false,
            foreign: None,
            doubtful: false,
            newcomer: false,
            poll: Poll::Off,
            write: Write::Idle,
            unconfirmed: Vec::new(),
            conflicts: 0,
            setbacks: 0,
        }
    }
}
