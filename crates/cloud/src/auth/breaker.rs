//! One circuit breaker for each login identity, whichever credentials use it: clouds lock an account or
//! an access key for all its users after a few rejections in a row, and the circuit opens well before.
//!
//! Secrets that the cloud accepted within a day are trusted and pass an open circuit, so a wrong
//! password for the same user elsewhere does not stop its owner. Neither does a project in which the
//! user has no role, which Keystone answers like a wrong password: once rejected, such scopes of a
//! trusted secret share one attempt per pause and are not counted.
//!
//! Nobody waits in here: an attempt is made at once, deferred, or stopped by an open circuit.

mod circuit;
mod identity;
mod round_robin;

pub(crate) use identity::LoginIdentity;

use self::{circuit::Circuit, round_robin::Waiter};
use super::{PURGE_FROM, Pacing, lock};
use image_export_model::{Caller, PriorAcceptance};
use secrecy::{ExposeSecret, SecretString};
use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::Instant;

/// So many identities are remembered at most, and so many of their other spellings.
const MAX_IDENTITIES: usize = 4096;

/// What is tried, on whose behalf: a secret, for a scope. All of them are known by their hashes only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    identity: u64,
    secret: u64,
    scope: u64,
    waiter: Waiter,
    prior: PriorAcceptance,
    /// Whether attempts of a trusted secret may be in flight in any number: signed requests, of which
    /// there are many, as against logins.
    unlimited: bool,
    /// Whether the identity is the id of a user, whom others may log in by its name.
    by_id: bool,
}

/// All breakers.
#[derive(Debug)]
pub(crate) struct Breakers {
    pub(crate) pacing: Arc<Pacing>,
    hasher: RandomState,
    circuits: Mutex<Circuits>,
}

#[derive(Debug, Default)]
struct Circuits {
    by_identity: HashMap<u64, Circuit>,
    /// Other spellings of an identity.
    same_as: HashMap<u64, u64>,
}

/// An attempt is not made now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// Other attempts end first; after this time it may be made.
    Deferred(Duration),
    /// The circuit is open.
    Open(Open),
}

/// The circuit is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    /// Rejections in a row that opened it; 0 where only this secret or scope is rejected.
    pub(crate) rejections: u32,
    /// How long until it permits an attempt.
    pub(crate) wait: Duration,
    /// The cloud's latest answer, for messages.
    pub(crate) answer: Arc<str>,
}

/// Permits one attempt. Dropping it records no outcome.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    breakers: &'a Breakers,
    attempt: Attempt,
    /// Whether the secret was accepted before.
    trusted: bool,
    /// Whether a request that got no answer may be sent once more. The cloud may have counted it, so only
    /// that of an accepted secret may, while no attempt of its identity is rejected.
    pub(crate) may_repeat: bool,
}

impl Breakers {
    pub(crate) fn new(pacing: Arc<Pacing>) -> Self {
        Self {
            pacing,
            hasher: RandomState::new(),
            circuits: Mutex::default(),
        }
    }

    /// An attempt of `identity` with `secrets`, for `scope`, which a poll of `caller` with a cloud entry makes.
    pub(crate) fn attempt<'s>(
        &self,
        identity: &LoginIdentity,
        secrets: impl IntoIterator<Item = &'s SecretString>,
        scope: impl Hash,
        caller: &Caller,
        entry: impl Hash,
        unlimited: bool,
    ) -> Attempt {
        let secrets: Vec<_> = secrets
            .into_iter()
            .map(|secret| self.hasher.hash_one(secret.expose_secret()))
            .collect();
        Attempt {
            identity: self.hasher.hash_one(identity),
            secret: self.hasher.hash_one(secrets),
            scope: self.hasher.hash_one(scope),
            waiter: Waiter {
                namespace: self.hasher.hash_one(&caller.namespace),
                entry: self.hasher.hash_one(entry),
            },
            prior: caller.prior,
            unlimited,
            by_id: identity.is_user_id(),
        }
    }

    /// Permits the attempt, if it may be made now.
    pub(crate) fn enter(&self, attempt: Attempt) -> Result<Permit<'_>, Stopped> {
        let entry = self.with(attempt, |circuit| circuit.enter(&self.pacing, attempt))?;
        Ok(Permit {
            breakers: self,
            attempt,
            trusted: entry.trusted,
            may_repeat: entry.may_repeat,
        })
    }

    /// The cloud showed that `others` are spellings of the identity of `attempt`: they share its circuit.
    pub(crate) fn merge(&self, attempt: Attempt, others: &[LoginIdentity]) {
        if others.is_empty() {
            return;
        }
        let others = others.iter().map(|other| self.hasher.hash_one(other));
        lock(&self.circuits).merge(&self.pacing, attempt.identity, others);
    }

    /// Number of open circuits.
    pub(crate) fn open(&self) -> usize {
        let circuits = lock(&self.circuits);
        circuits
            .by_identity
            .values()
            .filter(|circuit| circuit.is_open(&self.pacing))
            .count()
    }

    /// Uses the circuit of the attempt's identity.
    fn with<T>(&self, attempt: Attempt, use_it: impl FnOnce(&mut Circuit) -> T) -> T {
        let mut circuits = lock(&self.circuits);
        use_it(circuits.get(&self.pacing, attempt.identity))
    }
}

impl Permit<'_> {
    /// Records that the cloud accepted the secret, whatever else it answered.
    pub(crate) fn accepted(self) {
        let (breakers, attempt) = (self.breakers, self.attempt);
        breakers.with(attempt, |circuit| {
            circuit.apply_acceptance(&breakers.pacing, attempt, self.trusted);
        });
    }

    /// Records that the cloud rejected the secret, with its `answer` for messages. Returns the circuit's
    /// state if it is open to this attempt now.
    pub(crate) fn rejected(self, answer: impl Into<Arc<str>>) -> Option<Open> {
        let (breakers, attempt) = (self.breakers, self.attempt);
        breakers.with(attempt, |circuit| {
            circuit.apply_rejection(&breakers.pacing, attempt, self.trusted, answer.into())
        })
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.breakers.with(self.attempt, |circuit| {
            circuit.leave(self.attempt, self.trusted);
        });
    }
}

impl Circuits {
    fn get(&mut self, pacing: &Pacing, identity: u64) -> &mut Circuit {
        let identity = self.resolve(identity);
        let count = self.by_identity.len();
        if count >= PURGE_FROM && !self.by_identity.contains_key(&identity) {
            self.by_identity
                .retain(|_, circuit| circuit.is_of_use(pacing));
            if self.by_identity.len() >= MAX_IDENTITIES {
                self.purge_one(pacing);
            }
        }
        let circuit = self.by_identity.entry(identity).or_default();
        circuit.used_at = Some(Instant::now());
        circuit
    }

    fn resolve(&self, identity: u64) -> u64 {
        self.same_as.get(&identity).copied().unwrap_or(identity)
    }

    /// Forgets the identity with the fewest rejections in a row; of several one without an accepted secret, and of
    /// those the one that was used longest ago. So nobody makes rejections forgotten by identities that an identity
    /// service of its own accepts.
    fn purge_one(&mut self, pacing: &Pacing) {
        let idle = self
            .by_identity
            .iter()
            .filter(|(_, circuit)| !circuit.is_in_flight());
        let least = idle.min_by_key(|(_, circuit)| {
            let trusted = circuit.is_trusted(pacing);
            (circuit.rejections(), trusted, circuit.used_at)
        });
        let least = least.map(|(identity, _)| *identity);
        self.by_identity
            .retain(|identity, _| Some(*identity) != least);
    }

    fn merge(&mut self, pacing: &Pacing, identity: u64, others: impl Iterator<Item = u64>) {
        let identity = self.resolve(identity);
        let mut has_all = true;
        for name in others {
            let other = self.resolve(name);
            if other == identity {
                continue;
            }
            if !self.has_room_for_spellings() {
                has_all = false;
                continue;
            }
            let same = self.same_as.values_mut().filter(|same| **same == other);
            same.for_each(|same| *same = identity);
            self.same_as.extend([(name, identity), (other, identity)]);
            if let Some(circuit) = self.by_identity.remove(&other) {
                self.get(pacing, identity).absorb(circuit);
            }
        }
        if has_all {
            self.get(pacing, identity).complete();
        }
    }

    fn has_room_for_spellings(&mut self) -> bool {
        if self.same_as.len() >= MAX_IDENTITIES {
            let known = &self.by_identity;
            self.same_as.retain(|_, same| known.contains_key(same));
        }
        self.same_as.len() < MAX_IDENTITIES
    }
}

#[cfg(test)]
mod tests;
