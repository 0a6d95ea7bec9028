//! The Events that wait: a bounded queue whose namespaces take turns.

use image_export_core::{FairQueue, ObjectEvent};
use std::{collections::HashSet, sync::Arc};

/// Events that may wait. Beyond it, the namespace with the most of them loses its newest.
pub(super) const BOUND: usize = 1000;

#[derive(Default)]
pub(super) struct Waiting {
    /// Numbered in the order in which they came.
    queue: FairQueue<Arc<str>, (u64, Arc<ObjectEvent>)>,
    /// The same, to find equal ones.
    known: HashSet<Arc<ObjectEvent>>,
    next: u64,
}

impl Waiting {
    /// Queues an Event, unless an equal one waits. Returns the result, as a metric label, of an Event that is
    /// not posted because of this one.
    pub(super) fn push(&mut self, event: ObjectEvent) -> Option<&'static str> {
        let event = Arc::new(event);
        if !self.known.insert(event.clone()) {
            return Some("merged");
        }
        let namespace = event.key.namespace.clone();
        self.queue.push(&namespace, (self.next, event));
        self.next += 1;
        if self.queue.len() <= BOUND {
            return None;
        }
        let longest = self.queue.longest()?.clone();
        let (_, dropped) = self.queue.pop_last_of(&longest)?;
        self.known.remove(&dropped);
        Some("dropped")
    }

    /// The oldest Event of the namespace whose turn it is, among those that `may` post one.
    pub(super) fn pop(&mut self, may: impl FnMut(&Arc<str>) -> bool) -> Option<Arc<ObjectEvent>> {
        let (_, (_, event)) = self.queue.pop(may)?;
        self.known.remove(&event);
        Some(event)
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}
