//! Turns of requests at a host, so that polls which are due at once share few connections: each poll of a burst would
//! open its own, which costs several times what the poll does, and most would be closed again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Requests that have a turn at a host at a time.
const AT_ONCE: usize = 32;
/// A request goes on without a turn after this time: others may wait for an answer that does not come.
const PATIENCE: Duration = Duration::from_millis(100);
/// With so many hosts, those without a request are forgotten.
const PURGE_FROM: usize = 64;

/// The turns at all hosts.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<Box<str>, Arc<Semaphore>>>);

impl Turns {
    /// Waits for a turn at `host`. It ends when what is returned is dropped.
    pub(super) async fn next(&self, host: &str) -> Option<OwnedSemaphorePermit> {
        let turns = self.of(host);
        if let Ok(turn) = Arc::clone(&turns).try_acquire_owned() {
            return Some(turn);
        }
        timeout(PATIENCE, turns.acquire_owned()).await.ok()?.ok()
    }

    fn of(&self, host: &str) -> Arc<Semaphore> {
        // The map is valid at each moment, so a poisoned lock is used all the same.
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turns) = hosts.get(host) {
            return Arc::clone(turns);
        }
        if hosts.len() >= PURGE_FROM {
            hosts.retain(|_, turns| Arc::strong_count(turns) > 1);
        }
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        hosts.insert(host.into(), Arc::clone(&turns));
        turns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_burst_takes_turns_and_nobody_waits_long() {
        let turns = Turns::default();
        let mut taken = Vec::new();
        for _ in 0..AT_ONCE {
            taken.push(turns.next("ims.example").await.unwrap());
        }
        let started = Instant::now();
        assert!(turns.next("ims.example").await.is_none());
        assert_eq!(started.elapsed(), PATIENCE);
        assert!(turns.next("other.example").await.is_some());
        taken.pop();
        assert!(turns.next("ims.example").await.is_some());
        assert_eq!(started.elapsed(), PATIENCE);
    }

    #[tokio::test]
    async fn hosts_without_a_request_are_forgotten_and_others_are_not() {
        let turns = Turns::default();
        let turn = turns.next("first").await;
        for n in 0..1000 {
            turns.next(&n.to_string()).await;
        }
        let hosts = turns.0.lock().unwrap();
        assert!(hosts.len() <= PURGE_FROM && hosts.contains_key("first"));
        drop(turn);
    }
}
