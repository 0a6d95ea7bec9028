//! The requests: counters that only grow, and the latest requests one by one.

use super::JobKey;
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

/// Requests kept; older ones are forgotten, so that a long benchmark does not fill the memory.
const KEPT: usize = 100_000;

/// What a request brought to prove who it is. Never the secret itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    /// Nothing.
    None,
    /// A token that was given to the simulator.
    FixedToken,
    /// A token from a login, still valid.
    IssuedToken,
    /// A token from a login, too old.
    ExpiredToken,
    /// A token that was revoked.
    RevokedToken,
    /// A token that the simulator has never seen.
    UnknownToken,
    /// A token that a real Keystone has just vouched for.
    KeystoneToken,
    /// An `Authorization: SDK-HMAC-SHA256 …` header, right or wrong.
    Signature,
}

/// One request.
#[derive(Clone, Debug, Serialize)]
pub struct RequestRecord {
    /// Arrival, seconds since the simulator started.
    pub at_seconds: f64,
    /// `GET`, `POST`, …
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// What it brought to prove who it is.
    pub credential: Credential,
    /// The status answered; `None` while in work, and for ever if the client went away first.
    pub status: Option<u16>,
}

/// Sums since the start.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Counters {
    /// Job queries that arrived, whatever they were answered.
    pub polls: u64,
    /// Login requests that arrived.
    pub logins: u64,
    /// Tokens issued.
    pub tokens_issued: u64,
    /// Requests to paths that the simulator does not serve.
    pub other: u64,
    /// Answers sent, by status.
    pub answers: BTreeMap<u16, u64>,
    /// Requests that ended without an answer, because the client went away.
    pub unanswered: u64,
    /// Signatures that did not match.
    pub signature_failures: u64,
    /// Times that an access key was locked.
    pub key_locks: u64,
    /// Logins with a wrong password of a known user.
    pub password_failures: u64,
    /// Times that an account was locked.
    pub account_locks: u64,
    /// Job queries rejected by the quota.
    pub throttled: u64,
    /// Questions put to a real Keystone.
    pub keystone_validations: u64,
    /// Most job queries that were in work at the same time.
    pub peak_polls_in_flight: u64,
}

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Poll(JobKey),
    Login,
    Other,
}

#[derive(Default)]
pub(super) struct Log {
    pub(super) counters: Counters,
    polls: HashMap<JobKey, u64>,
    polls_in_flight: u64,
    requests: VecDeque<RequestRecord>,
    /// Number of the oldest request kept.
    first: u64,
}

impl Log {
    /// Notes an arrival and returns the number of the request.
    pub(super) fn arrived(
        &mut self,
        kind: &Kind,
        at: Duration,
        method: &str,
        path: &str,
        credential: Credential,
    ) -> u64 {
        match kind {
            Kind::Poll(key) => {
                self.counters.polls += 1;
                self.polls_in_flight += 1;
                self.counters.peak_polls_in_flight =
                    self.counters.peak_polls_in_flight.max(self.polls_in_flight);
                *self.polls.entry(key.clone()).or_default() += 1;
            }
            Kind::Login => self.counters.logins += 1,
            Kind::Other => self.counters.other += 1,
        }
        if self.requests.len() == KEPT {
            self.requests.pop_front();
            self.first += 1;
        }
        self.requests.push_back(RequestRecord {
            at_seconds: at.as_secs_f64(),
            method: method.to_owned(),
            path: path.to_owned(),
            credential,
            status: None,
        });
        self.first + self.requests.len() as u64 - 1
    }

    /// Notes the end of request `number`; `status` is `None` if the client went away.
    pub(super) fn ended(&mut self, kind: &Kind, number: u64, status: Option<u16>) {
        if matches!(kind, Kind::Poll(_)) {
            self.polls_in_flight -= 1;
        }
        match status {
            Some(status) => *self.counters.answers.entry(status).or_default() += 1,
            None => self.counters.unanswered += 1,
        }
        if let Some(record) = self.record(number) {
            record.status = status;
        }
    }

    /// Notes what request `number` turned out to bring.
    pub(super) fn proved(&mut self, number: u64, credential: Credential) {
        if let Some(record) = self.record(number) {
            record.credential = credential;
        }
    }

    fn record(&mut self, number: u64) -> Option<&mut RequestRecord> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.requests.get_mut(place)
    }

    pub(super) fn polls_of(&self, key: &JobKey) -> u64 {
        self.polls.get(key).copied().unwrap_or_default()
    }

    pub(super) fn polls_by_job(&self) -> BTreeMap<String, u64> {
        self.polls
            .iter()
            .map(|(key, polls)| (key.to_string(), *polls))
            .collect()
    }

    pub(super) fn requests(&self) -> Vec<RequestRecord> {
        self.requests.iter().cloned().collect()
    }
}
