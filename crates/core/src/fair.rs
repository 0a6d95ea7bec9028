//! A queue that serves its owners in turn, so that none delays another by how much it queues.
//!
//! Deficit round robin with a quantum of one (Shreedhar and Varghese, 1995): an owner whose item cost more than
//! its turn owes the difference, and is passed over until it has paid.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
};

/// Items of many owners. Of one owner the least item comes first.
#[derive(Debug)]
pub struct FairQueue<K, T> {
    owners: HashMap<K, Owner<T>>,
    /// Owners with items or debts, by their turns.
    round: BTreeMap<u64, K>,
    /// The turn of the next owner that joins the round, or goes to its end.
    next_turn: u64,
    len: usize,
}

#[derive(Debug)]
struct Owner<T> {
    items: BTreeSet<T>,
    /// Turns that are still to be passed over.
    debt: u32,
    turn: u64,
}

impl<T> Owner<T> {
    fn is_idle(&self) -> bool {
        self.items.is_empty() && self.debt == 0
    }
}

impl<K, T> Default for FairQueue<K, T> {
    fn default() -> Self {
        Self {
            owners: HashMap::new(),
            round: BTreeMap::new(),
            next_turn: 0,
            len: 0,
        }
    }
}

impl<K: Clone + Eq + Hash, T: Ord> FairQueue<K, T> {
    /// Queues an item. Returns whether it was not there before.
    pub fn push(&mut self, key: &K, item: T) -> bool {
        let is_new = self.owner(key).items.insert(item);
        self.len += usize::from(is_new);
        is_new
    }

    /// Takes an item out. Returns whether it was there.
    pub fn remove(&mut self, key: &K, item: &T) -> bool {
        let Some(owner) = self.owners.get_mut(key) else {
            return false;
        };
        let was_there = owner.items.remove(item);
        self.len -= usize::from(was_there);
        self.drop_if_idle(key);
        was_there
    }

    /// Has an owner pass over so many turns.
    pub fn charge(&mut self, key: &K, turns: u32) {
        if turns > 0 {
            let owner = self.owner(key);
            owner.debt = owner.debt.saturating_add(turns);
        }
    }

    /// The next item of those owners that `may` be served, whose turn then ends; the others keep theirs. Costs a
    /// step for each owner that may not, and one for each turn that is owed.
    pub fn pop(&mut self, mut may: impl FnMut(&K) -> bool) -> Option<(K, T)> {
        let mut from = 0;
        loop {
            let (&turn, key) = self.round.range(from..).next()?;
            if !may(key) {
                from = turn + 1;
                continue;
            }
            let key = self.round.remove(&turn)?;
            let owner = self.owners.get_mut(&key)?;
            let item = if owner.debt > 0 {
                owner.debt -= 1;
                None
            } else {
                owner.items.pop_first()
            };
            if owner.is_idle() {
                self.owners.remove(&key);
            } else {
                owner.turn = self.next_turn;
                self.round.insert(self.next_turn, key.clone());
            }
            self.next_turn += 1;
            if let Some(item) = item {
                self.len -= 1;
                return Some((key, item));
            }
        }
    }

    /// Takes those items of an owner out that `leaves` names.
    pub fn extract(&mut self, key: &K, leaves: impl FnMut(&T) -> bool) -> Vec<T> {
        let Some(owner) = self.owners.get_mut(key) else {
            return Vec::new();
        };
        let taken: Vec<T> = owner.items.extract_if(.., leaves).collect();
        self.len -= taken.len();
        self.drop_if_idle(key);
        taken
    }

    /// Keeps those items alone that `stays` names.
    pub fn retain(&mut self, mut stays: impl FnMut(&T) -> bool) {
        self.len = 0;
        for owner in self.owners.values_mut() {
            owner.items.retain(&mut stays);
            self.len += owner.items.len();
        }
        let round = &mut self.round;
        self.owners.retain(|_, owner| {
            if owner.is_idle() {
                round.remove(&owner.turn);
            }
            !owner.is_idle()
        });
    }

    /// Those who wait, in the order of their turns.
    pub fn owners(&self) -> impl Iterator<Item = &K> {
        self.round.values()
    }

    /// How many items wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many items of an owner wait.
    #[must_use]
    pub fn len_of(&self, key: &K) -> usize {
        self.owners.get(key).map_or(0, |owner| owner.items.len())
    }

    /// The owner of the most items. Costs a pass over the owners.
    #[must_use]
    pub fn longest(&self) -> Option<&K> {
        let longest = self
            .owners
            .iter()
            .max_by_key(|(_, owner)| (owner.items.len(), owner.turn));
        longest.map(|(key, _)| key)
    }

    /// Takes out the last item of an owner.
    pub fn pop_last_of(&mut self, key: &K) -> Option<T> {
        let item = self.owners.get_mut(key)?.items.pop_last()?;
        self.len -= 1;
        self.drop_if_idle(key);
        Some(item)
    }

    fn owner(&mut self, key: &K) -> &mut Owner<T> {
        let (round, next_turn) = (&mut self.round, &mut self.next_turn);
        self.owners.entry(key.clone()).or_insert_with(|| {
            let turn = *next_turn;
            round.insert(turn, key.clone());
            *next_turn += 1;
            Owner {
                items: BTreeSet::new(),
                debt: 0,
                turn,
            }
        })
    }

    fn drop_if_idle(&mut self, key: &K) {
        if let Some(owner) = self.owners.get(key).filter(|owner| owner.is_idle()) {
            self.round.remove(&owner.turn);
            self.owners.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut FairQueue<&'static str, u32>) -> Vec<(&'static str, u32)> {
        std::iter::from_fn(|| queue.pop(|_| true)).collect()
    }

    fn filled(items: &[(&'static str, u32)]) -> FairQueue<&'static str, u32> {
        let mut queue = FairQueue::default();
        for (key, item) in items {
            queue.push(key, *item);
        }
        queue
    }

    #[test]
    fn owners_take_turns_and_the_least_item_of_each_comes_first() {
        let mut queue = filled(&[("a", 3), ("a", 1), ("a", 2), ("b", 9), ("c", 4), ("c", 5)]);
        assert_eq!(queue.len(), 6);
        let served = drain(&mut queue);
        assert_eq!(
            served,
            [("a", 1), ("b", 9), ("c", 4), ("a", 2), ("c", 5), ("a", 3)]
        );
        assert!(queue.is_empty() && queue.owners.is_empty() && queue.round.is_empty());
    }

    #[test]
    fn an_owner_that_may_not_be_served_keeps_its_turn() {
        let mut queue = filled(&[("a", 1), ("a", 2), ("b", 1), ("b", 2)]);
        assert_eq!(queue.pop(|key| *key != "a"), Some(("b", 1)));
        assert_eq!(queue.pop(|key| *key != "a"), Some(("b", 2)));
        assert_eq!(queue.pop(|key| *key != "a"), None);
        queue.push(&"b", 3);
        assert_eq!(drain(&mut queue), [("a", 1), ("b", 3), ("a", 2)]);
    }

    #[test]
    fn what_an_owner_costs_beyond_its_turn_is_paid_by_turns_even_where_it_leaves() {
        let mut queue = filled(&[("a", 1), ("b", 1), ("b", 2), ("b", 3)]);
        assert_eq!(queue.pop(|_| true), Some(("a", 1)));
        queue.charge(&"a", 2);
        queue.push(&"a", 2);
        assert_eq!(drain(&mut queue), [("b", 1), ("b", 2), ("b", 3), ("a", 2)]);
        queue.charge(&"a", 1);
        assert_eq!(queue.pop(|_| true), None);
        assert!(queue.owners.is_empty() && queue.round.is_empty());
    }

    #[test]
    fn items_are_taken_out_by_value_and_from_the_longest_owner() {
        let mut queue = filled(&[("a", 1), ("b", 1), ("b", 2)]);
        assert!(!queue.push(&"b", 2));
        assert!(queue.remove(&"a", &1) && !queue.remove(&"a", &1));
        assert_eq!(
            (queue.longest(), queue.len_of(&"b"), queue.len_of(&"a")),
            (Some(&"b"), 2, 0)
        );
        assert_eq!(queue.pop_last_of(&"b"), Some(2));
        assert_eq!(drain(&mut queue), [("b", 1)]);
    }
}
