//! The right to query: tokens from logins, signatures, and the circuit breakers that keep both from
//! locking an account.

pub(crate) mod breaker;
pub(crate) mod keystone;
mod pacing;
pub(crate) mod signature;
pub(crate) mod token_memory;
pub(crate) mod tokens;

pub use pacing::Pacing;

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// From this number of entries on, a map drops those that are of no more use before it takes another.
const PURGE_FROM: usize = 64;

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
