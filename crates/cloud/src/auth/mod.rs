//! The right to query: tokens from logins, signatures, and the circuit breakers that keep both from
//! locking an account.

pub(crate) mod breaker;
pub(crate) mod keystone;
pub(crate) mod signature;
pub(crate) mod tokens;

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// From this number of entries on, a map drops those that are of no more use before it takes another.
const PURGE_FROM: usize = 64;

/// When logins are tried again. The clouds' API gateway locks an access key for 5 minutes, for
/// all who use it, after more than 5 rejections in a row (its documentation of error `APIGW.0301`).
#[derive(Clone, Debug, PartialEq)]
pub struct Pacing {
    /// Pause after a failed login, doubling up to [`Self::login_retry_max`]. Default 5 s.
    pub login_retry_min: Duration,
    /// Longest pause after logins that failed in a row. Default 60 s.
    pub login_retry_max: Duration,
    /// Pause after a rejected login: each repetition brings the account nearer to a lock. Default
    /// 5 min.
    pub login_rejected: Duration,
    /// Upper bound of any `Retry-After` of an identity service. Default 15 min.
    pub retry_after_max: Duration,
    /// Rejections in a row that open the circuit of a login identity. Default 3.
    pub breaker_rejections: u32,
    /// How long an open circuit permits no attempt; after that it permits one. Default 5 min.
    pub breaker_pause: Duration,
    /// How long the breaker trusts a secret that was accepted. Default 24 h.
    pub breaker_trust: Duration,
}

impl Default for Pacing {
    fn default() -> Self {
        Self {
            login_retry_min: Duration::from_secs(5),
            login_retry_max: Duration::from_secs(60),
            login_rejected: Duration::from_secs(300),
            retry_after_max: Duration::from_secs(15 * 60),
            breaker_rejections: 3,
            breaker_pause: Duration::from_secs(300),
            breaker_trust: Duration::from_secs(24 * 3600),
        }
    }
}

impl Pacing {
    /// All durations multiplied by `factor`, for tests of the operator.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        let scale = |time: Duration| time.mul_f64(factor);
        Self {
            login_retry_min: scale(self.login_retry_min),
            login_retry_max: scale(self.login_retry_max),
            login_rejected: scale(self.login_rejected),
            retry_after_max: scale(self.retry_after_max),
            breaker_rejections: self.breaker_rejections,
            breaker_pause: scale(self.breaker_pause),
            breaker_trust: scale(self.breaker_trust),
        }
    }
}

/// The entry of `key`, for which entries that are of no more use make room.
fn entry<K: Eq + Hash, V: Default>(
    map: &mut HashMap<K, V>,
    key: K,
    is_of_use: impl Fn(&V) -> bool,
) -> &mut V {
    if map.len() >= PURGE_FROM && !map.contains_key(&key) {
        map.retain(|_, value| is_of_use(value));
    }
    map.entry(key).or_default()
}

/// The data behind the locks of this module is valid at each moment, so a poisoned lock is used all the
/// same.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
