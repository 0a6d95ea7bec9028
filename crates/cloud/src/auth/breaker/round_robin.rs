//! Who waits for an attempt of one identity. Namespaces take turns, the one that was served longest ago
//! first, so none delays another for longer than its own turn, however many secrets it brings. Within a
//! namespace untried secrets go first, and of these the one that has waited longest.

use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;

/// So many wait at most, and so many namespaces are remembered as served.
pub(super) const MAX_WAITING: usize = 64;
/// After so many attempts of untried secrets one of a rejected secret that waits has its turn: it may be right
/// by now.
const UNTRIED_IN_A_ROW: u32 = 2;

/// A cloud entry of a namespace, whatever secret it holds: a new secret keeps the place of the old one. Both
/// are known by their hashes only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Waiter {
    pub(super) namespace: u64,
    pub(super) entry: u64,
}

/// What is known of the secret of a waiter, in the order in which they go within a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Untried,
    /// Rejected, and accepted for this scope before.
    OnceAccepted,
    Rejected,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    rank: Rank,
    since: Instant,
    /// It is given up for gone then, unless it comes back.
    until: Instant,
}

impl Place {
    fn is_rejected(self) -> bool {
        self.rank == Rank::Rejected
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    places: HashMap<Waiter, Place>,
    /// The number of the latest turn of each namespace.
    served: HashMap<u64, u64>,
    turns: u64,
    untried_in_a_row: u32,
    /// Whose turn it is, and since when: of rejected secrets or not, and a namespace.
    turn: Option<((bool, u64), Instant)>,
    /// When the latest turn ended.
    ended: Option<Instant>,
}

impl RoundRobin {
    /// `waiter` waits, as from when it came first, until `stay` from now.
    pub(super) fn join(&mut self, waiter: Waiter, rank: Rank, stay: Duration) {
        let now = Instant::now();
        if !self.places.contains_key(&waiter) && !self.has_room_for(waiter, now) {
            return;
        }
        let place = self.places.entry(waiter).or_insert(Place {
            rank,
            since: now,
            until: now,
        });
        place.rank = rank;
        place.until = now + stay;
    }

    /// Whether the next attempt is that of `waiter`. An attempt was possible from `possible` on; a turn that
    /// is not taken within `hold` passes to the next, and who did not take it waits no more.
    pub(super) fn is_next(
        &mut self,
        waiter: Waiter,
        mut possible: Instant,
        hold: Duration,
    ) -> bool {
        let now = Instant::now();
        self.places.retain(|_, place| place.until > now);
        for _ in 0..=MAX_WAITING {
            let Some((next, place)) = self.next() else {
                return false;
            };
            if next == waiter {
                return true;
            }
            let turn = (place.is_rejected(), next.namespace);
            let began = match self.turn {
                Some((same, began)) if same == turn => began,
                // The one whose turn it was is gone.
                Some(_) => now,
                None => possible
                    .max(place.since)
                    .max(self.ended.unwrap_or(possible)),
            };
            possible = began + hold;
            if now < possible {
                self.turn = Some((turn, began));
                return false;
            }
            self.places.remove(&next);
            self.end_turn(turn, possible);
        }
        false
    }

    /// `waiter` makes its attempt and waits no more.
    pub(super) fn serve(&mut self, waiter: Waiter) {
        if let Some(place) = self.places.remove(&waiter) {
            self.end_turn((place.is_rejected(), waiter.namespace), Instant::now());
        }
    }

    /// Nobody has to wait any more.
    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.turn = None;
    }

    /// Takes over those who wait in `other`.
    pub(super) fn absorb(&mut self, other: Self) {
        for (waiter, place) in other.places {
            self.join(waiter, place.rank, Duration::ZERO);
            if let Some(own) = self.places.get_mut(&waiter) {
                own.since = own.since.min(place.since);
                own.until = own.until.max(place.until);
            }
        }
    }

    fn next(&self) -> Option<(Waiter, Place)> {
        let waits = |rejected| {
            self.places
                .values()
                .any(|place| place.is_rejected() == rejected)
        };
        let rejected = !waits(false) || self.untried_in_a_row >= UNTRIED_IN_A_ROW && waits(true);
        let of_kind = self.places.iter();
        let of_kind = of_kind.filter(|(_, place)| place.is_rejected() == rejected);
        let next = of_kind.min_by_key(|(waiter, place)| {
            let served = self.served.get(&waiter.namespace).copied();
            (
                served.unwrap_or_default(),
                place.rank,
                place.since,
                waiter.entry,
            )
        });
        next.map(|(waiter, place)| (*waiter, *place))
    }

    fn end_turn(&mut self, (rejected, namespace): (bool, u64), at: Instant) {
        self.turn = None;
        self.ended = Some(at);
        self.turns += 1;
        let are_passed_over = !rejected && self.places.values().any(|place| place.is_rejected());
        self.untried_in_a_row = if are_passed_over {
            self.untried_in_a_row + 1
        } else {
            0
        };
        self.served.insert(namespace, self.turns);
        if self.served.len() > MAX_WAITING {
            // To be forgotten is to be next, which the one that was served longest ago is anyway.
            let oldest = self.served.iter().min_by_key(|(_, turn)| **turn);
            let oldest = oldest.map(|(namespace, _)| *namespace);
            self.served
                .retain(|namespace, _| Some(*namespace) != oldest);
        }
    }

    /// Makes room at the expense of the namespace with the most places, if that has more than this one.
    fn has_room_for(&mut self, waiter: Waiter, now: Instant) -> bool {
        if self.places.len() < MAX_WAITING {
            return true;
        }
        self.places.retain(|_, place| place.until > now);
        if self.places.len() < MAX_WAITING {
            return true;
        }
        let mut counts: HashMap<u64, usize> = HashMap::new();
        for place in self.places.keys() {
            *counts.entry(place.namespace).or_default() += 1;
        }
        let own = counts.get(&waiter.namespace).copied().unwrap_or_default();
        let Some((most, count)) = counts.into_iter().max_by_key(|(_, count)| *count) else {
            return true;
        };
        if count <= own + 1 {
            return false;
        }
        let of_most = self
            .places
            .iter()
            .filter(|(place, _)| place.namespace == most);
        let youngest = of_most.max_by_key(|(_, place)| place.since);
        let youngest = youngest.map(|(waiter, _)| *waiter);
        self.places.retain(|waiter, _| Some(*waiter) != youngest);
        true
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.places.len(), self.served.len())
    }
}
