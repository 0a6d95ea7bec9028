//! Leader election by one Lease, as pure arithmetic on times. It keeps client-go's rules: a candidate
//! compares nothing with the time that others wrote, it takes over a Lease that it has seen unchanged for the
//! Lease's own duration; each change of the Lease names the version that it replaces; a leader stops when it
//! could not renew for [`LeaseTimes::renew_deadline`].
//!
//! The caller sends what [`Elector::next`] asks for, and hands the reply to [`Elector::apply`].

use std::{cmp::max, sync::Arc, time::Duration};

/// Longest duration of a Lease that a candidate waits for, whatever the Lease says: somebody may have edited it.
const LONGEST_DURATION: Duration = Duration::from_secs(60);
/// Shortest time between an attempt that failed and the next.
const SHORTEST_RETRY: Duration = Duration::from_millis(500);

/// The times of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// Others take over a Lease that was not renewed for this long.
    pub duration: Duration,
    /// A leader stops this long after it sent the last renewal that succeeded.
    pub renew_deadline: Duration,
    /// From one renewal to the next.
    pub renew_period: Duration,
    /// From one look of a standby to the next.
    pub standby_period: Duration,
}

impl Default for LeaseTimes {
    /// Those of client-go. A standby looks twice as often as a leader renews, so that a Lease that was given
    /// up is taken within about a second.
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            renew_period: Duration::from_secs(2),
            standby_period: Duration::from_secs(1),
        }
    }
}

/// What a Lease shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Who holds it; `None`: it was given up.
    pub holder: Option<Arc<str>>,
    /// For how long each renewal counts.
    pub duration: Duration,
    /// When it was renewed, as its holder wrote it. Compared for equality alone.
    pub renewed: Option<Arc<str>>,
}

/// What to send next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Nothing before this time.
    Wait(Duration),
    /// Read the Lease.
    Read,
    /// Create it, held by this process.
    Create,
    /// Replace the version that was read or written last by one that this process holds, renewed now.
    /// `takes_over`: another held it.
    Hold {
        /// The holder changes.
        takes_over: bool,
    },
}

/// The reply to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// This is the Lease.
    Found(Lease),
    /// There is none.
    Missing,
    /// The Lease was created or replaced, and is now this.
    Held(Lease),
    /// The Lease had another version, or existed.
    Conflict,
    /// No reply, or one that says nothing about the Lease.
    Failed,
}

/// What is known of the Lease.
#[derive(Debug)]
enum Known {
    /// To be read.
    Nothing,
    /// There is none.
    Missing,
    /// Its latest version.
    Lease(Lease),
}

/// One candidate.
#[derive(Debug)]
pub struct Elector {
    identity: Arc<str>,
    times: LeaseTimes,
    known: Known,
    /// The latest Lease that others hold, and since when it is as it is.
    rival: Option<(Lease, Duration)>,
    /// There has been a Lease: where it is missing, somebody has deleted it, and its leader may go on.
    has_seen: bool,
    /// When the Lease was last found, or found missing.
    looked_at: Duration,
    /// This process leads until then.
    term: Option<Duration>,
    /// Nothing is sent before.
    next_at: Duration,
}

impl Elector {
    /// A candidate that has not looked yet. `identity` is unique to the process.
    #[must_use]
    pub fn new(identity: Arc<str>, times: LeaseTimes) -> Self {
        Self {
            identity,
            times,
            known: Known::Nothing,
            rival: None,
            has_seen: false,
            looked_at: Duration::ZERO,
            term: None,
            next_at: Duration::ZERO,
        }
    }

    /// When this process stops leading, unless it renews before; `None`: it does not lead.
    #[must_use]
    pub fn term(&self) -> Option<Duration> {
        self.term
    }

    /// Who leads, as far as is known, where it is another.
    #[must_use]
    pub fn rival(&self) -> Option<&Arc<str>> {
        let (lease, _) = self.rival.as_ref()?;
        lease.holder.as_ref()
    }

    /// What to send now.
    #[must_use]
    pub fn next(&self, at: Duration) -> Request {
        if at < self.next_at {
            return Request::Wait(self.next_at);
        }
        match &self.known {
            Known::Nothing => Request::Read,
            Known::Missing if self.is_taken(at) || !self.is_fresh(at) => Request::Read,
            Known::Missing => Request::Create,
            Known::Lease(lease) if self.is_own(lease) => Request::Hold { takes_over: false },
            Known::Lease(_) if self.is_taken(at) => Request::Read,
            Known::Lease(_) => Request::Hold { takes_over: true },
        }
    }

    fn is_own(&self, lease: &Lease) -> bool {
        lease.holder.as_ref() == Some(&self.identity)
    }

    /// Whether nothing can have gone unseen since the latest look.
    fn is_fresh(&self, at: Duration) -> bool {
        at <= self.looked_at + 3 * self.times.standby_period
    }

    /// Whether another holds the Lease, or held one that was deleted just now.
    fn is_taken(&self, at: Duration) -> bool {
        self.rival.as_ref().is_some_and(|(lease, since)| {
            lease.holder.is_some() && at < *since + lease.duration.min(LONGEST_DURATION)
        })
    }

    /// Applies the reply to what was sent at `sent_at`.
    pub fn apply(&mut self, sent_at: Duration, at: Duration, reply: Reply) {
        let has_looked = !matches!(reply, Reply::Failed | Reply::Conflict);
        let has_seen = matches!(reply, Reply::Held(_) | Reply::Found(_));
        match reply {
            Reply::Held(lease) => {
                self.known = Known::Lease(lease);
                self.rival = None;
                self.term = Some(sent_at + self.times.renew_deadline);
                self.next_at = max(sent_at + self.times.renew_period, at);
            }
            Reply::Found(lease) if self.is_own(&lease) => {
                // The reply to the renewal got lost, or its term ended before it could be renewed.
                self.known = Known::Lease(lease);
                self.rival = None;
                self.next_at = at;
            }
            Reply::Found(lease) => {
                self.term = None;
                let known = self.rival.take().filter(|(known, _)| *known == lease);
                self.rival = Some(known.unwrap_or((lease.clone(), at)));
                self.known = Known::Lease(lease);
                self.next_at = self.next_look(at);
            }
            Reply::Missing => {
                let is_news = !matches!(self.known, Known::Missing) || !self.is_fresh(at);
                if is_news && self.has_seen && self.term.is_none() {
                    let holder = self.rival.take().and_then(|(lease, _)| lease.holder);
                    let lease = Lease {
                        holder: Some(holder.unwrap_or_else(|| "unknown".into())),
                        duration: self.times.duration,
                        renewed: None,
                    };
                    self.rival = Some((lease, at));
                }
                self.known = Known::Missing;
                self.next_at = self.next_look(at);
            }
            Reply::Conflict => {
                self.known = Known::Nothing;
                self.next_at = at + SHORTEST_RETRY;
            }
            Reply::Failed => {
                self.known = Known::Nothing;
                let period = match self.term {
                    Some(_) => self.times.renew_period,
                    None => self.times.standby_period,
                };
                self.next_at = max(sent_at + period, at + SHORTEST_RETRY);
            }
        }
        if has_looked {
            self.looked_at = at;
        }
        self.has_seen |= has_seen;
    }

    /// At once where the Lease is free.
    fn next_look(&self, at: Duration) -> Duration {
        if self.is_taken(at) {
            at + self.times.standby_period
        } else {
            at
        }
    }

    /// Applies that the term has ended. Returns whether it had begun.
    pub fn end_term(&mut self, at: Duration) -> bool {
        self.term.take_if(|end| *end <= at).is_some()
    }

    /// Ends the term. Returns whether the Lease is to be given up: the version that was written last is to be
    /// replaced by one without a holder.
    pub fn release(&mut self, at: Duration) -> bool {
        let leads = self.term.take().is_some_and(|end| at < end);
        leads && matches!(&self.known, Known::Lease(lease) if self.is_own(lease))
    }
}
