//! Which Secrets are usable, and when they are read again. One entry serves all objects that name the
//! same (namespace, Secret, cloud): a misconfigured one costs one read a retry, however many wait.

use crate::{
    config::Config,
    effects::{CredentialError, CredentialRef},
    fair::FairQueue,
    keys::{JobKey, SecretKey},
    slots::Slots,
    token_bucket::TokenBucket,
    totals::Tally,
};
use image_export_model::{ConfigurationError, Failure, PriorAcceptance};
use slotmap::SlotMap;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

/// What is known of a Secret.
#[derive(Clone, Debug)]
pub enum SecretState {
    /// Not read, or not needed for a while.
    Unread,
    /// Readable, with this version of its content. Whether the cloud accepts it is another matter.
    Usable(u64),
    /// Something in it is missing or invalid.
    Misconfigured(ConfigurationError),
}

/// What an outcome shows about the content of a Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// The cloud accepted it.
    Accepted,
    /// The cloud rejected it.
    Rejected,
    /// The login failed without an answer about it.
    LoginFailed,
}

/// What a read has changed for the objects that use the Secret.
#[derive(Debug)]
pub enum ReadChange {
    /// It is usable.
    Usable {
        /// It was misconfigured before.
        was_misconfigured: bool,
        /// Its content is not what was usable before.
        has_changed: bool,
    },
    /// It is misconfigured, otherwise than before.
    Misconfigured(ConfigurationError),
    /// It cannot be read at the moment.
    Unavailable(Failure),
    /// Nothing.
    None,
}

#[derive(Debug)]
struct Secret {
    reference: Arc<CredentialRef>,
    /// How many objects name it.
    objects: usize,
    /// How many of them are polled.
    polled: usize,
    /// Those that are unfinished.
    unfinished: BTreeSet<JobKey>,
    /// Those that wait for a read, or may be fixed by one.
    awaiting: BTreeSet<JobKey>,
    state: SecretState,
    /// Version of the content that was usable last; 0: none.
    version: u64,
    /// A read is queued or under way.
    is_reading: bool,
    /// Its place in the queue, while it waits there.
    place: Option<u64>,
    /// What the objects that use it showed of the content before this process read it.
    prior: PriorAcceptance,
    /// When the latest read ended.
    read_at: Option<Duration>,
    /// The next planned read.
    next_read: Option<Duration>,
    /// Consecutive reads that did not fix it.
    retries: u32,
    /// The cloud rejected this content, or the login with it failed.
    is_rejected: bool,
    /// The latter.
    has_login_failed: bool,
}

/// All Secrets that objects name.
#[derive(Debug)]
pub struct Secrets {
    entries: SlotMap<SecretKey, Secret>,
    by_reference: HashMap<Arc<CredentialRef>, SecretKey>,
    /// Reads that wait: namespaces take turns.
    queue: FairQueue<Arc<str>, (u64, SecretKey)>,
    /// Numbers what is queued.
    sequence: u64,
    /// Reads in flight.
    slots: Slots<Arc<str>>,
    reads: TokenBucket,
    /// When the next queued read has its token.
    token_at: Option<Duration>,
    planned: BTreeSet<(Duration, SecretKey)>,
}

impl Secrets {
    /// No Secrets yet.
    #[must_use]
    pub fn new(config: &Config, at: Duration) -> Self {
        Self {
            entries: SlotMap::with_key(),
            by_reference: HashMap::new(),
            queue: FairQueue::default(),
            sequence: 0,
            slots: Slots::new(config.credential_reads_in_flight),
            // Nothing is saved up, or the first second would have twice the rate.
            reads: TokenBucket::new(config.credential_reads, 1.0, at),
            token_at: None,
            planned: BTreeSet::new(),
        }
    }

    /// The entry of a reference, made where there is none.
    pub fn key_of(&mut self, reference: CredentialRef) -> SecretKey {
        if let Some(key) = self.by_reference.get(&reference) {
            return *key;
        }
        let reference = Arc::new(reference);
        let key = self.entries.insert(Secret {
            reference: reference.clone(),
            objects: 0,
            polled: 0,
            unfinished: BTreeSet::new(),
            awaiting: BTreeSet::new(),
            state: SecretState::Unread,
            version: 0,
            is_reading: false,
            place: None,
            prior: PriorAcceptance::Unknown,
            read_at: None,
            next_read: None,
            retries: 0,
            is_rejected: false,
            has_login_failed: false,
        });
        self.by_reference.insert(reference, key);
        key
    }

    /// The entry of this very reference, which objects still use; not one that was made anew for the same Secret.
    #[must_use]
    pub fn find(&self, reference: &Arc<CredentialRef>) -> Option<SecretKey> {
        let (held, key) = self.by_reference.get_key_value(reference)?;
        Arc::ptr_eq(held, reference).then_some(*key)
    }

    /// An object uses the Secret.
    pub fn join(&mut self, key: SecretKey) {
        self.entries[key].objects += 1;
    }

    /// An object uses the Secret no longer; without any, the entry is dropped.
    pub fn leave(&mut self, key: SecretKey) {
        let secret = &mut self.entries[key];
        secret.objects -= 1;
        if secret.objects == 0 {
            if let Some(at) = secret.next_read {
                self.planned.remove(&(at, key));
            }
            if let Some(place) = secret.place {
                let namespace = &secret.reference.namespace;
                self.queue.remove(namespace, &(place, key));
            }
            self.by_reference.remove(&secret.reference);
            self.entries.remove(key);
        }
    }

    /// Names and sizes of what is held of Secrets.
    #[cfg(test)]
    pub fn sizes(&self) -> [(&'static str, usize); 4] {
        [
            ("Secrets", self.entries.len()),
            ("references", self.by_reference.len()),
            ("queued reads", self.queue.len()),
            ("planned reads", self.planned.len()),
        ]
    }

    /// Checks what is counted of the objects that use a Secret against what each of them counts in.
    #[cfg(test)]
    pub fn check_users(&self, key: SecretKey, users: &[(JobKey, Tally)]) {
        let of = |is_meant: fn(&Tally) -> bool| -> BTreeSet<JobKey> {
            let users = users.iter().filter(|(_, tally)| is_meant(tally));
            users.map(|(job, _)| *job).collect()
        };
        let secret = &self.entries[key];
        assert_eq!(secret.objects, users.len());
        assert_eq!(secret.polled, of(|tally| tally.is_polled).len());
        assert_eq!(secret.unfinished, of(|tally| tally.is_unfinished));
        assert_eq!(secret.awaiting, of(|tally| tally.awaits_secret));
    }

    /// The reference of an entry that an object uses.
    #[must_use]
    pub fn reference(&self, key: SecretKey) -> &Arc<CredentialRef> {
        &self.entries[key].reference
    }

    /// The state of an entry that an object uses.
    #[must_use]
    pub fn state(&self, key: SecretKey) -> &SecretState {
        &self.entries[key].state
    }

    /// Whether the Secret is usable with this content.
    #[must_use]
    pub fn is_current(&self, key: SecretKey, version: u64) -> bool {
        let secret = self.entries.get(key);
        secret.is_some_and(|s| matches!(s.state, SecretState::Usable(v) if v == version))
    }

    /// Counts an object that uses, or used, Secrets anew. `None`: it is not there yet, or not any more.
    pub fn recount(&mut self, job: JobKey, before: Option<&Tally>, after: Option<&Tally>) {
        let counts_in = |tally: Option<&Tally>| {
            tally.map(|t| (t.secret, t.is_unfinished, t.is_polled, t.awaits_secret))
        };
        if counts_in(before) == counts_in(after) {
            return;
        }
        if let Some(before) = before
            && let Some(secret) = self.entries.get_mut(before.secret)
        {
            secret.polled -= usize::from(before.is_polled);
            secret.unfinished.remove(&job);
            secret.awaiting.remove(&job);
        }
        if let Some(after) = after
            && let Some(secret) = self.entries.get_mut(after.secret)
        {
            secret.polled += usize::from(after.is_polled);
            secret.unfinished.extend(after.is_unfinished.then_some(job));
            secret.awaiting.extend(after.awaits_secret.then_some(job));
        }
    }

    /// Whether any object that uses the Secret is polled.
    #[must_use]
    pub fn is_polled(&self, key: SecretKey) -> bool {
        self.entries[key].polled > 0
    }

    /// The objects that a read may concern, in an order that a replay repeats.
    #[must_use]
    pub fn concerned(&self, key: SecretKey, change: &ReadChange) -> Vec<JobKey> {
        let secret = &self.entries[key];
        let objects = match change {
            ReadChange::None => return Vec::new(),
            ReadChange::Usable {
                was_misconfigured: true,
                ..
            }
            | ReadChange::Misconfigured(_) => &secret.unfinished,
            ReadChange::Usable { .. } | ReadChange::Unavailable(_) => &secret.awaiting,
        };
        objects.iter().copied().collect()
    }

    /// Queues a read, unless one is under way, or planned after a failure.
    pub fn need(&mut self, key: SecretKey) {
        if self.entries[key].next_read.is_none() {
            self.request_read(key);
        }
    }

    /// Queues a read, unless one is queued or under way.
    pub fn request_read(&mut self, key: SecretKey) {
        self.plan(key, None);
        let secret = &mut self.entries[key];
        if !std::mem::replace(&mut secret.is_reading, true) {
            self.sequence += 1;
            secret.place = Some(self.sequence);
            let namespace = &secret.reference.namespace;
            self.queue.push(namespace, (self.sequence, key));
        }
    }

    /// The next read that may be sent now.
    pub fn next_read(&mut self, at: Duration) -> Option<Arc<CredentialRef>> {
        self.token_at = None;
        if self.queue.is_empty() {
            return None;
        }
        if let Some(wait) = self.reads.wait(at) {
            self.token_at = Some(at + wait);
            return None;
        }
        let (namespace, (_, key)) = self.queue.pop(|namespace| self.slots.may_take(namespace))?;
        // It was looked at above.
        let _ = self.reads.take(at);
        self.slots.take(&namespace);
        let secret = &mut self.entries[key];
        secret.place = None;
        Some(secret.reference.clone())
    }

    /// Ends what [`Secrets::next_read`] began.
    pub fn release(&mut self, reference: &CredentialRef) {
        self.slots.release(&reference.namespace);
    }

    /// Forgets what objects showed, which is to be noted anew.
    pub fn forget_priors(&mut self) {
        for secret in self.entries.values_mut() {
            secret.prior = PriorAcceptance::Unknown;
        }
    }

    /// Notes what the status of an object that uses the Secret shows of its content. Once rejected it is that,
    /// whatever else is shown.
    pub fn apply_prior(&mut self, key: SecretKey, prior: PriorAcceptance) {
        let secret = &mut self.entries[key];
        if secret.prior != PriorAcceptance::Rejected && prior != PriorAcceptance::Unknown {
            secret.prior = prior;
        }
    }

    /// What the objects that use the Secret showed of its content.
    #[must_use]
    pub fn prior(&self, key: SecretKey) -> PriorAcceptance {
        self.entries[key].prior
    }

    /// When a planned read is due next.
    #[must_use]
    pub fn next_plan(&self) -> Option<Duration> {
        self.planned.first().map(|(at, _)| *at)
    }

    /// When the next queued read may be sent.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        self.token_at
    }

    /// A planned read that is due. The caller says what to do: [`Secrets::request_read`] or
    /// [`Secrets::set_unneeded`].
    pub fn next_due(&mut self, at: Duration) -> Option<SecretKey> {
        let (due, key) = *self.planned.first()?;
        (due <= at).then(|| {
            self.plan(key, None);
            key
        })
    }

    /// Forgets configuration errors, which may be fixed, and reads those Secrets anew: a standby shows nothing
    /// of what it reads.
    pub fn apply_new_leadership(&mut self) {
        let misconfigured = |(key, secret): (SecretKey, &Secret)| {
            matches!(secret.state, SecretState::Misconfigured(_)).then_some(key)
        };
        let keys: Vec<_> = self.entries.iter().filter_map(misconfigured).collect();
        for key in keys {
            self.set_unneeded(key);
            self.request_read(key);
        }
    }

    /// Nobody polls with the Secret: the next who does has it read anew. Whoever keeps what was read under the
    /// reference sees that the reference is dropped.
    pub fn set_unneeded(&mut self, key: SecretKey) {
        let secret = &mut self.entries[key];
        secret.state = SecretState::Unread;
        secret.retries = 0;
        if !secret.is_reading {
            let reference = Arc::new(CredentialRef::clone(&secret.reference));
            self.by_reference.remove(&secret.reference);
            self.by_reference.insert(reference.clone(), key);
            secret.reference = reference;
        }
    }

    fn plan(&mut self, key: SecretKey, at: Option<Duration>) {
        let before = std::mem::replace(&mut self.entries[key].next_read, at);
        if let Some(before) = before {
            self.planned.remove(&(before, key));
        }
        if let Some(at) = at {
            self.planned.insert((at, key));
        }
    }

    /// Applies the outcome of a read.
    pub fn apply_read(
        &mut self,
        config: &Config,
        at: Duration,
        key: SecretKey,
        result: Result<u64, CredentialError>,
    ) -> ReadChange {
        let secret = &mut self.entries[key];
        secret.is_reading = false;
        secret.read_at = Some(at);
        let change = match result {
            Ok(version) => {
                let was_misconfigured = matches!(secret.state, SecretState::Misconfigured(_));
                let is_other = secret.version != version;
                let has_changed = is_other && secret.version != 0;
                if has_changed {
                    secret.prior = PriorAcceptance::Unknown;
                }
                secret.state = SecretState::Usable(version);
                secret.version = version;
                secret.is_rejected &= !is_other;
                if !secret.is_rejected {
                    secret.retries = 0;
                }
                ReadChange::Usable {
                    was_misconfigured,
                    has_changed,
                }
            }
            Err(CredentialError::Misconfigured(error)) => {
                secret.retries += 1;
                let known = matches!(&secret.state, SecretState::Misconfigured(e) if *e == error);
                secret.state = SecretState::Misconfigured(error.clone());
                if known {
                    ReadChange::None
                } else {
                    ReadChange::Misconfigured(error)
                }
            }
            Err(CredentialError::Unavailable(failure)) => {
                secret.retries += 1;
                match secret.state {
                    SecretState::Misconfigured(_) => ReadChange::None,
                    SecretState::Unread | SecretState::Usable(_) => {
                        ReadChange::Unavailable(failure)
                    }
                }
            }
        };
        self.plan_next_read(config, at, key);
        change
    }

    /// Applies whether the cloud accepted what the Secret holds. After a login that failed it is read anew as
    /// after a rejected one: its URL may be fixed there.
    pub fn apply_acceptance(
        &mut self,
        config: &Config,
        at: Duration,
        key: SecretKey,
        acceptance: Acceptance,
    ) {
        let secret = &mut self.entries[key];
        let accepted = acceptance == Acceptance::Accepted;
        secret.has_login_failed = acceptance == Acceptance::LoginFailed;
        let was_rejected = std::mem::replace(&mut secret.is_rejected, !accepted);
        if !accepted && !was_rejected {
            // Somebody may have rotated it just now.
            self.request_read(key);
        } else if accepted && secret.retries > 0 {
            secret.retries = 0;
            self.plan_next_read(config, at, key);
        }
    }

    /// Applies that a login was made with what was read: reads it anew where that was some time ago.
    pub fn apply_login(&mut self, config: &Config, at: Duration, key: SecretKey) {
        let read_at = self.entries[key].read_at;
        if read_at.is_some_and(|read_at| at >= read_at + config.credential_retry_min) {
            self.request_read(key);
        }
    }

    fn plan_next_read(&mut self, config: &Config, at: Duration, key: SecretKey) {
        let secret = &mut self.entries[key];
        if secret.is_reading {
            return;
        }
        let is_usable = matches!(secret.state, SecretState::Usable(_)) && !secret.is_rejected;
        let wait = if is_usable && secret.retries == 0 {
            config.credential_refresh
        } else {
            secret.retries += u32::from(secret.is_rejected);
            let doublings = secret.retries.saturating_sub(1).min(16);
            let wait = config.credential_retry_min.saturating_mul(1 << doublings);
            wait.min(config.credential_retry_max)
        };
        self.plan(key, Some(at + wait));
    }

    /// How many there are in each state.
    #[must_use]
    pub fn census(&self) -> BTreeMap<&'static str, usize> {
        let mut census = BTreeMap::new();
        for secret in self.entries.values() {
            let state = match secret.state {
                SecretState::Unread => "unread",
                SecretState::Usable(_) if secret.is_rejected && secret.has_login_failed => {
                    "login_failed"
                }
                SecretState::Usable(_) if secret.is_rejected => "rejected",
                SecretState::Usable(_) => "usable",
                SecretState::Misconfigured(_) => "broken",
            };
            *census.entry(state).or_default() += 1;
        }
        census
    }
}
