//! Which Secrets are usable, and when they are read again. One entry serves all objects that name
//! the same (namespace, Secret, cloud): a broken one costs one read per retry, however many wait.

use super::{
    Config, CredentialError, CredentialRef, Effect, Now, Timer, Tracker, history::Next,
    quota::TokenBucket, record::Poll, verdict::Row,
};
use image_export_model::{ConfigurationError, ConfigurationReason, Observation, Outcome};
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

#[derive(Debug)]
enum State {
    /// Not read, or not needed for a while.
    Unread,
    /// Readable. Whether the cloud accepts it is another matter.
    Good,
    /// Something in it is to be mended.
    Broken(ConfigurationError),
}

#[derive(Debug)]
struct Credential {
    reference: Arc<CredentialRef>,
    /// Objects that name it.
    members: HashSet<u32>,
    state: State,
    /// Version of the content last read well.
    version: u64,
    /// A read is queued or under way.
    reading: bool,
    /// When the latest read ended.
    read_at: Option<Duration>,
    /// The next planned read.
    next_read: Option<Duration>,
    /// Reads in a row that did not mend it.
    retries: u32,
    /// The cloud rejected this content.
    rejected: bool,
}

/// All credentials.
#[derive(Debug)]
pub(super) struct Credentials {
    slots: Vec<Option<Credential>>,
    free: Vec<u32>,
    by_ref: HashMap<Arc<CredentialRef>, u32>,
    queue: VecDeque<u32>,
    reads: TokenBucket,
    wake_at: Option<Duration>,
}

impl Credentials {
    pub(super) fn new(config: &Config, now: Duration) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_ref: HashMap::new(),
            queue: VecDeque::new(),
            // Nothing is saved up, or the first second would have twice the rate.
            reads: TokenBucket::new(config.credential_reads, 1.0, now),
            wake_at: None,
        }
    }

    pub(super) fn index_of(&mut self, reference: &CredentialRef) -> u32 {
        if let Some(index) = self.by_ref.get(reference) {
            return *index;
        }
        let reference = Arc::new(reference.clone());
        let credential = Credential {
            reference: reference.clone(),
            members: HashSet::new(),
            state: State::Unread,
            version: 0,
            reading: false,
            read_at: None,
            next_read: None,
            retries: 0,
            rejected: false,
        };
        let index = if let Some(index) = self.free.pop() {
            self.slots[index as usize] = Some(credential);
            index
        } else {
            self.slots.push(Some(credential));
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 credentials")
        };
        self.by_ref.insert(reference, index);
        index
    }

    pub(super) fn join(&mut self, index: u32, member: u32) {
        if let Some(credential) = self.get_mut(index) {
            credential.members.insert(member);
        }
    }

    pub(super) fn leave(&mut self, index: u32, member: u32) {
        let Some(credential) = self.get_mut(index) else {
            return;
        };
        credential.members.remove(&member);
        if credential.members.is_empty() {
            let reference = credential.reference.clone();
            self.by_ref.remove(&reference);
            self.slots[index as usize] = None;
            self.free.push(index);
        }
    }

    pub(super) fn reference(&self, index: u32) -> Option<Arc<CredentialRef>> {
        Some(self.get(index)?.reference.clone())
    }

    /// Version of a usable credential.
    pub(super) fn usable(&self, index: u32) -> Option<u64> {
        let credential = self.get(index)?;
        matches!(credential.state, State::Good).then_some(credential.version)
    }

    /// Version of the content last read well, usable now or not.
    pub(super) fn version(&self, index: u32) -> Option<u64> {
        Some(self.get(index)?.version)
    }

    fn broken(&self, index: u32) -> Option<&ConfigurationError> {
        match &self.get(index)?.state {
            State::Broken(refusal) => Some(refusal),
            _ => None,
        }
    }

    fn members(&self, index: u32) -> Vec<u32> {
        let mut members: Vec<_> = self
            .get(index)
            .map(|c| c.members.iter().copied().collect())
            .unwrap_or_default();
        // The set's order differs from run to run; a replay must not.
        members.sort_unstable();
        members
    }

    fn get(&self, index: u32) -> Option<&Credential> {
        self.slots.get(index as usize)?.as_ref()
    }

    fn get_mut(&mut self, index: u32) -> Option<&mut Credential> {
        self.slots.get_mut(index as usize)?.as_mut()
    }

    fn queue_read(&mut self, index: u32) {
        if let Some(credential) = self.get_mut(index)
            && !credential.reading
        {
            credential.reading = true;
            credential.next_read = None;
            self.queue.push_back(index);
        }
    }

    /// How many there are in each state.
    pub(super) fn census(&self) -> BTreeMap<&'static str, usize> {
        let mut census = BTreeMap::new();
        for credential in self.slots.iter().flatten() {
            let state = match credential.state {
                State::Unread => "unread",
                State::Good if credential.rejected => "rejected",
                State::Good => "usable",
                State::Broken(_) => "broken",
            };
            *census.entry(state).or_default() += 1;
        }
        census
    }

    pub(super) fn wake(&mut self, at: Duration) {
        if self.wake_at == Some(at) {
            self.wake_at = None;
        }
    }
}

impl Tracker {
    /// An object is due. Returns whether its credential is usable; if not, the object is told once
    /// it is.
    pub(super) fn needs_credential(&mut self, now: Now, index: u32) -> bool {
        let Some(record) = self.records.get_mut(index) else {
            return false;
        };
        let credential = record.credential;
        if self.credentials.usable(credential).is_some() {
            return true;
        }
        record.poll = Poll::AwaitingCredential;
        if let Some(refusal) = self.credentials.broken(credential).cloned() {
            self.apply_unasked(now, index, Outcome::Misconfigured(refusal));
        } else {
            self.credentials.queue_read(credential);
        }
        false
    }

    pub(super) fn send_reads(&mut self, now: Now) {
        while let Some(&index) = self.credentials.queue.front() {
            let Some(reference) = self.credentials.reference(index) else {
                self.credentials.queue.pop_front();
                continue;
            };
            match self.credentials.reads.take(now.mono) {
                Ok(()) => {
                    self.credentials.queue.pop_front();
                    self.out.effects.push(Effect::ReadCredential(reference));
                }
                Err(wait) => {
                    let at = now.mono + wait;
                    if self.credentials.wake_at.is_none() {
                        self.credentials.wake_at = Some(at);
                        self.set_timer(at, Timer::Reads);
                    }
                    return;
                }
            }
        }
    }

    pub(super) fn credential_read(
        &mut self,
        now: Now,
        reference: &Arc<CredentialRef>,
        result: Result<u64, CredentialError>,
    ) {
        let Some(&index) = self.credentials.by_ref.get(reference) else {
            return;
        };
        let Some(credential) = self.credentials.get_mut(index) else {
            return;
        };
        credential.reading = false;
        credential.read_at = Some(now.mono);
        match result {
            Ok(version) => {
                let was_broken = matches!(credential.state, State::Broken(_));
                let known = credential.version != 0;
                let changed = credential.version != version;
                credential.state = State::Good;
                credential.version = version;
                if changed {
                    credential.rejected = false;
                }
                if !credential.rejected {
                    credential.retries = 0;
                }
                if changed && known {
                    self.leave_shared_buckets(now, index);
                }
                self.credential_is_good(now, index, was_broken, changed && known);
            }
            Err(CredentialError::Misconfigured(refusal)) => {
                let news = !matches!(&credential.state, State::Broken(old) if *old == refusal);
                credential.state = State::Broken(refusal.clone());
                credential.retries += 1;
                if news {
                    for member in self.credentials.members(index) {
                        self.credential_is_broken(now, member, &refusal);
                    }
                }
            }
            Err(CredentialError::Unavailable(failure)) => {
                credential.retries += 1;
                for member in self.credentials.members(index) {
                    let waits = self
                        .records
                        .get(member)
                        .is_some_and(|r| r.poll == Poll::AwaitingCredential);
                    if waits && self.credentials.broken(index).is_none() {
                        self.apply_unasked(now, member, Outcome::Failed(failure.clone()));
                    }
                }
            }
        }
        self.plan_read(now, index);
    }

    fn credential_is_good(&mut self, now: Now, index: u32, was_broken: bool, changed: bool) {
        for member in self.credentials.members(index) {
            let Some(record) = self.records.get_mut(member) else {
                continue;
            };
            let refused_for = record
                .history
                .refusal
                .as_ref()
                .map(|refusal| refusal.reason);
            let disproved =
                was_broken || refused_for == Some(ConfigurationReason::CredentialsNotFound);
            if disproved {
                record.history.disprove_secret();
            }
            let waits = record.poll == Poll::AwaitingCredential;
            let troubled = refused_for.is_some() || record.history.is_failing();
            let woken = disproved || (troubled && changed);
            // One that waits may be finished: a poll that was asked for after a success without image.
            let paced = record.row() == Some(Row::ImageIdPending);
            if waits || (woken && record.is_active() && !paced) {
                self.poll_now(now, member, now.mono);
            }
            self.refresh_write(now, member);
        }
    }

    fn credential_is_broken(&mut self, now: Now, member: u32, refusal: &ConfigurationError) {
        let Some(record) = self.records.get_mut(member) else {
            return;
        };
        if !record.is_active() || matches!(record.poll, Poll::InFlight { .. }) {
            return;
        }
        if record.row() == Some(Row::ImageIdPending) && record.poll != Poll::AwaitingCredential {
            // Its next attempt finds out.
            return;
        }
        record.poll = Poll::AwaitingCredential;
        self.apply_unasked(now, member, Outcome::Misconfigured(refusal.clone()));
    }

    /// Takes in an outcome that came about without asking the cloud. The schedule stays, but for
    /// row 4a: its attempts go on, or a broken Secret would hide behind it for ever.
    fn apply_unasked(&mut self, now: Now, index: u32, outcome: Outcome) {
        let Some(record) = self.records.get_mut(index) else {
            return;
        };
        let observation = Observation {
            outcome,
            retry_after: None,
            endpoint: None,
            requests: 0,
            signed_in: false,
            request_id: None,
        };
        let was_active = record.is_active();
        let (Next::Pace | Next::Backoff(_) | Next::AfterPause, _) =
            record.history.apply(&self.config, now, &observation);
        self.heard(now, index, &observation.outcome, false);
        let Some(record) = self.records.get_mut(index) else {
            return;
        };
        if record.row() == Some(Row::ImageIdPending) {
            self.schedule(index, now.mono + self.config.image_id_period);
        } else if was_active && !record.is_active() {
            self.stop_polling(index);
        }
        self.refresh_write(now, index);
    }

    /// The cloud rejected (or accepted) what the Secret says.
    pub(super) fn credential_judged(&mut self, now: Now, index: u32, rejected: bool) {
        let Some(credential) = self.credentials.get_mut(index) else {
            return;
        };
        let news = rejected && !credential.rejected;
        credential.rejected = rejected;
        if news {
            // Somebody may have rotated it just now.
            self.credentials.queue_read(index);
        } else if !rejected && credential.retries > 0 {
            credential.retries = 0;
            self.plan_read(now, index);
        }
    }

    /// A login was made with what was read some time ago: see whether it still stands there.
    pub(super) fn credential_signed_in(&mut self, now: Now, index: u32) {
        let just_read = |at: Duration| now.mono < at + self.config.credential_retry_min;
        let fresh = self
            .credentials
            .get(index)
            .is_none_or(|credential| credential.read_at.is_none_or(just_read));
        if !fresh {
            self.credentials.queue_read(index);
        }
    }

    fn plan_read(&mut self, now: Now, index: u32) {
        let config = &self.config;
        let (refresh, retry_min, retry_max) = (
            config.credential_refresh,
            config.credential_retry_min,
            config.credential_retry_max,
        );
        let Some(credential) = self.credentials.get_mut(index) else {
            return;
        };
        if credential.reading {
            return;
        }
        let healthy = matches!(credential.state, State::Good) && !credential.rejected;
        let wait = if healthy && credential.retries == 0 {
            refresh
        } else {
            if credential.rejected {
                credential.retries += 1;
            }
            let doublings = credential.retries.saturating_sub(1).min(16);
            retry_min.saturating_mul(1 << doublings).min(retry_max)
        };
        let at = now.mono + wait;
        credential.next_read = Some(at);
        self.set_timer(at, Timer::Credential(index));
    }

    pub(super) fn credential_timer(&mut self, _now: Now, index: u32, at: Duration) {
        let due = self
            .credentials
            .get(index)
            .is_some_and(|c| c.next_read == Some(at));
        if !due {
            return;
        }
        let needed = self.credentials.members(index).iter().any(|&member| {
            self.records
                .get(member)
                .is_some_and(|record| record.poll != Poll::Off)
        });
        if needed {
            self.credentials.queue_read(index);
        } else if let Some(credential) = self.credentials.get_mut(index) {
            // Nobody asks with it: the next one who does has it read afresh.
            credential.state = State::Unread;
            credential.next_read = None;
            credential.retries = 0;
        }
    }
}
