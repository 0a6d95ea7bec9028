//! The number of consecutive wrong attempts of an identity, and whether it is locked.

use std::time::{Duration, Instant};

/// Wrong attempts in a row that are let pass; the next one locks.
const TOLERATED: u32 = 5;

#[derive(Debug, Default)]
pub(super) struct Lock {
    wrong: u32,
    until: Option<Instant>,
}

impl Lock {
    pub(super) fn holds(&mut self, now: Instant) -> bool {
        let holds = self.until.is_some_and(|until| now < until);
        if !holds && self.until.is_some() {
            *self = Self::default();
        }
        holds
    }

    /// Counts a wrong attempt; returns whether it locks the identity.
    pub(super) fn wrong(&mut self, now: Instant, length: Duration) -> bool {
        self.wrong += 1;
        if self.wrong > TOLERATED {
            self.until = now.checked_add(length);
        }
        self.until.is_some()
    }

    pub(super) fn right(&mut self) {
        *self = Self::default();
    }
}
