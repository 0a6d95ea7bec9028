//! The pure core: objects seen, polls due, answers taken in, statuses decided.
//!
//! [`Tracker::handle`] takes one [`Input`] and pushes [`Effect`]s; [`Tracker::next_deadline`] says
//! when to call it with a [`Input::Tick`]. There is no clock, no random source, no socket, no task
//! and no lock in here: time is passed in, jitter comes from a hash of the uid. So the life of
//! 100,000 jobs runs in a unit test in virtual time, and every failure is a list of inputs.
//!
//! | file | question |
//! |---|---|
//! | `intake` | what does the API server hold? |
//! | `credentials` | which Secrets are usable, and when are they read again? |
//! | `polls`, `cadence`, `lanes`, `quota` | who is asked about, and when? |
//! | `history` | what do the answers amount to? |
//! | `lifetime` | when is a job overdue, and when does its object go? |
//! | `verdict`, `standing` | what should the status say? |
//! | `writes` | what is written, in which order, and what if it fails? |

mod cadence;
mod config;
mod credentials;
mod effects;
pub mod history;
mod intake;
mod lanes;
mod lifetime;
mod polls;
mod quota;
mod record;
pub mod standing;
pub mod verdict;
mod version;
mod writes;

#[cfg(test)]
mod tests;

pub use config::Config;
pub use effects::{
    CredentialError, CredentialRef, Deletion, Effect, FetchResult, FetchTicket, Input, ObjectEvent,
    ObjectKey, Output, PollRequest, PollTicket, Precondition, Source, StatusWrite, WriteResult,
    WriteTicket,
};
pub use intake::INVALID_OBJECT;

use credentials::Credentials;
use jiff::Timestamp;
use lanes::Polls;
use record::Records;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};
use writes::Writes;

/// The present, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Time since the process started, by a clock that only goes forward. All scheduling uses it.
    pub mono: Duration,
    /// Time of day. It only dates conditions; no step of it moves a schedule.
    pub wall: Timestamp,
}

/// What a timer is for. Whether it still applies is checked when it fires, so that nothing has to
/// be taken out of the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A poll is due.
    Poll { index: u32, serial: u32 },
    /// A new object has had no answer for the grace.
    Pending { index: u32, serial: u32 },
    /// A conflict, lost reply or refusal of a write is due for another look.
    Write { index: u32, serial: u32 },
    /// A job should have ended, or an object has been kept long enough.
    Lifetime { index: u32, serial: u32 },
    /// A bucket has a token again, or its pause is over.
    Bucket(u64),
    /// A Secret is due to be read again.
    Credential(u32),
    /// Secret reads may go on.
    Reads,
    /// Writes may go on.
    Writes,
}

/// Things worth counting that only the tracker sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Answers that contradicted an end or went back from RUNNING to INIT.
    pub contradictions: u64,
    /// Answers with a status word nobody documented.
    pub unrecognized: u64,
    /// Answers dropped because the object, its credentials or the leadership had changed.
    pub dropped_answers: u64,
    /// Statuses that somebody else had changed and that were repaired.
    pub repairs: u64,
}

/// A look at the whole, for gauges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Objects by the reason of their Ready condition; "" where nothing was written yet.
    pub objects: BTreeMap<&'static str, usize>,
    /// Polls that were sent and not yet answered.
    pub polls_in_flight: usize,
    /// Status writes that were sent and not yet answered.
    pub writes_in_flight: usize,
    /// Credentials by state: `unread`, `usable`, `rejected` by the cloud, `broken`.
    pub credentials: BTreeMap<&'static str, usize>,
    /// Quota buckets that wait because the cloud asked for it.
    pub paused_buckets: usize,
    /// Counters since the start.
    pub counters: Counters,
}

/// The core. See the module's documentation.
pub struct Tracker {
    config: Config,
    records: Records,
    credentials: Credentials,
    polls: Polls,
    writes: Writes,
    timers: BinaryHeap<Reverse<(Duration, Timer)>>,
    leading: bool,
    /// Counts changes of leadership: what was sent under another epoch is void.
    epoch: u32,
    /// Added to [`Now::mono`], gives the time since the Unix epoch as of the start.
    clock_offset: Duration,
    sequence: u64,
    counters: Counters,
    out: Output,
}

impl Tracker {
    /// A tracker that knows nothing and does not lead.
    #[must_use]
    pub fn new(config: Config, now: Now) -> Self {
        let since_epoch = now
            .wall
            .duration_since(Timestamp::UNIX_EPOCH)
            .unsigned_abs();
        Self {
            credentials: Credentials::new(&config, now.mono),
            polls: Polls::default(),
            writes: Writes::new(&config, now.mono),
            records: Records::default(),
            timers: BinaryHeap::new(),
            leading: false,
            epoch: 0,
            clock_offset: since_epoch.saturating_sub(now.mono),
            sequence: 0,
            counters: Counters::default(),
            out: Output::default(),
            config,
        }
    }

    /// Takes one input and pushes what is to be done about it: nothing while not leading.
    pub fn handle(&mut self, now: Now, input: Input, output: &mut Output) {
        // What was due before the input comes first.
        self.run_timers(now);
        match input {
            Input::ListStarted(source) => self.records.began(source),
            Input::Applied(source, object) => self.seen(now, source, *object),
            Input::Undecodable {
                source,
                key,
                uid,
                error,
            } => {
                self.undecodable(now, source, key, &uid, &error);
            }
            Input::Listed(source) => self.listed(now, source),
            Input::Deleted(key, uid) => self.gone(now, &key, uid.as_deref()),
            Input::CredentialRead(reference, result) => {
                self.credential_read(now, &reference, result);
            }
            Input::Polled(ticket, observation) => self.answered(now, &ticket, &observation),
            Input::Wrote(ticket, result) => self.wrote(now, &ticket, result),
            Input::Fetched(ticket, result) => self.fetched(now, &ticket, result),
            Input::Leading(leading) => {
                self.epoch += 1;
                self.leading = leading;
                if leading {
                    self.take_lead(now);
                }
            }
            Input::Tick => {}
        }
        self.run_timers(now);
        if self.leading {
            self.send_reads(now);
            self.send_polls(now);
            self.send_writes(now);
            output.effects.append(&mut self.out.effects);
            output.events.append(&mut self.out.events);
        }
    }

    /// When [`Input::Tick`] is due, on the clock of [`Now::mono`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// Whether every source has been listed once.
    #[must_use]
    pub fn has_listed(&self, sources: u16) -> bool {
        (0..sources).all(|source| self.records.has_listed(Source(source)))
    }

    /// Whether any status is still to be written, or its end to be seen. Costs a pass over the objects.
    #[must_use]
    pub fn has_unwritten(&self) -> bool {
        self.records.iter().any(|(_, record)| {
            !matches!(
                record.write,
                record::Write::Idle | record::Write::Delayed(_)
            )
        })
    }

    /// Counts the objects. Costs a pass over them.
    #[must_use]
    pub fn census(&self, now: Now) -> Census {
        let mut census = Census {
            credentials: self.credentials.census(),
            paused_buckets: self.polls.paused_buckets(now.mono),
            polls_in_flight: self.polls.in_flight,
            writes_in_flight: self.writes.in_flight,
            counters: self.counters,
            ..Census::default()
        };
        for (_, record) in self.records.iter() {
            let reason = record
                .acknowledged
                .as_ref()
                .map_or("", |standing| standing.row.reason());
            *census.objects.entry(reason).or_default() += 1;
        }
        census
    }

    fn run_timers(&mut self, now: Now) {
        while let Some(&Reverse((at, timer))) = self.timers.peek() {
            if at > now.mono {
                return;
            }
            self.timers.pop();
            match timer {
                Timer::Poll { index, serial } => self.poll_timer(now, index, serial, at),
                Timer::Pending { index, serial } => self.pending_timer(now, index, serial),
                Timer::Write { index, serial } => self.write_timer(now, index, serial, at),
                Timer::Lifetime { index, serial } => self.lifetime_timer(now, index, serial, at),
                Timer::Bucket(id) => self.polls.wake(id, at),
                Timer::Credential(index) => self.credential_timer(now, index, at),
                Timer::Reads => self.credentials.wake(at),
                Timer::Writes => self.writes.wake(at),
            }
        }
    }

    fn set_timer(&mut self, at: Duration, timer: Timer) {
        self.timers.push(Reverse((at, timer)));
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Time since the Unix epoch by the clock that no step moves.
    fn clock(&self, now: Now) -> Duration {
        now.mono + self.clock_offset
    }
}
