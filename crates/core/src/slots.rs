//! Slots in flight, shared so that whoever comes next always finds one.
//!
//! An owner takes another slot while it holds fewer than are free (the dynamic thresholds of Choudhury and Hahne,
//! 1998). One that is alone gets half of them; each further one half of what is left, until all hold alike.
//! None is reserved for owners that want none, and none is out of reach of one that wants its first.

use hashbrown::HashMap;
use std::hash::Hash;

/// Slots of which each owner may hold some.
#[derive(Debug)]
pub struct Slots<K> {
    total: usize,
    in_use: usize,
    held: HashMap<K, usize>,
}

impl<K: Clone + Eq + Hash> Slots<K> {
    /// So many slots, all of them free.
    #[must_use]
    pub fn new(total: usize) -> Self {
        Self {
            total,
            in_use: 0,
            held: HashMap::new(),
        }
    }

    /// How many are in use.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.in_use
    }

    /// How many are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.total.saturating_sub(self.in_use)
    }

    /// Whether an owner may take one more.
    #[must_use]
    pub fn may_take(&self, owner: &K) -> bool {
        self.held.get(owner).copied().unwrap_or_default() < self.free()
    }

    /// Takes one.
    pub fn take(&mut self, owner: &K) {
        self.in_use += 1;
        *self.held.entry(owner.clone()).or_default() += 1;
    }

    /// Gives one back.
    pub fn release(&mut self, owner: &K) {
        let Some(held) = self.held.get_mut(owner) else {
            return;
        };
        self.in_use -= 1;
        *held -= 1;
        if *held == 0 {
            self.held.remove(owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has the owners take slots in turn until none may. Returns how many each holds.
    fn fill<const N: usize>(slots: &mut Slots<usize>) -> [usize; N] {
        let mut held = [0; N];
        while (0..N).any(|owner| slots.may_take(&owner)) {
            for (owner, held) in held.iter_mut().enumerate() {
                if slots.may_take(&owner) {
                    slots.take(&owner);
                    *held += 1;
                }
            }
        }
        held
    }

    #[test]
    fn those_who_want_most_hold_alike_and_leave_as_much_again() {
        assert_eq!(fill(&mut Slots::new(256)), [128]);
        assert_eq!(fill(&mut Slots::new(256)), [86, 85]);
        assert_eq!(fill(&mut Slots::new(255)), [51; 4]);
        assert_eq!(fill(&mut Slots::new(1)), [1]);
    }

    #[test]
    fn whoever_comes_next_finds_a_slot_and_those_given_back_are_lent_again() {
        let mut slots = Slots::new(16);
        fill::<3>(&mut slots);
        assert!(slots.may_take(&3) && !slots.may_take(&0));
        slots.take(&3);
        slots.release(&3);
        for _ in 0..4 {
            slots.release(&0);
        }
        assert_eq!((slots.held.len(), slots.free()), (2, 8));
        assert!(slots.may_take(&1));
        // What nobody holds is not given back.
        slots.release(&0);
        assert_eq!(slots.in_use(), 8);
    }
}
