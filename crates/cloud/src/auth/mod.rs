//! The right to query: tokens from logins, signatures, and the circuit breakers that keep both from
//! locking an account.

pub(crate) mod breaker;
pub(crate) mod keystone;
mod pacing;
pub(crate) mod signature;
pub(crate) mod tokens;

pub use pacing::Pacing;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The data behind the locks of this module is valid at each moment, so a poisoned lock is used all the
/// same.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
