//! The operator processes on the API server and the cloud of a [`World`]: they start, crash and lose their watch.
//!
//! A second process may run beside the first. One of the two is in turn: its tracker is [`World::tracker`], and
//! [`World::turn_to`] exchanges them.

use super::{super::invariants::InFlight, Due, World};
use crate::{Input, Tracker};
use std::time::Duration;

/// The operator process that is not in turn.
pub struct Peer {
    pub(super) tracker: Tracker,
    in_flight: [InFlight; 2],
    watch_at: Duration,
}

impl World {
    /// The watch of the process in turn shows nothing for a while, then everything.
    pub fn delay_watch(&mut self, wait: Duration) {
        self.watch_at = self.watch_at.max(self.now + wait);
        for due in self.take_due(|due| matches!(due, Due::Watch(..))) {
            self.at(self.watch_at, due);
        }
    }

    /// Takes out, in order, what would happen to the process in turn.
    fn take_due(&mut self, is_taken: impl Fn(&Due) -> bool) -> Vec<Due> {
        let process = self.process;
        let taken = self
            .due
            .extract_if(.., |_, (of, due)| *of == process && is_taken(due));
        taken.map(|(_, (_, due))| due).collect()
    }

    /// Starts a second operator process, which does not lead.
    pub fn start_peer(&mut self) {
        let turn = self.process;
        assert!(self.peer.is_none() && turn == 0);
        self.peer = Some(Box::new(Peer {
            tracker: Tracker::new(self.config.clone(), self.present()),
            in_flight: Default::default(),
            watch_at: Duration::ZERO,
        }));
        self.turn_to(1);
        self.list();
        self.turn_to(turn);
    }

    /// Whether there is this process. Then it is the one in turn.
    pub fn turn_to(&mut self, process: usize) -> bool {
        if self.process == process {
            return true;
        }
        let Some(peer) = &mut self.peer else {
            return false;
        };
        self.process = process;
        std::mem::swap(&mut self.tracker, &mut peer.tracker);
        std::mem::swap(&mut self.watch_at, &mut peer.watch_at);
        self.invariants.exchange(&mut peer.in_flight);
        true
    }

    /// Which process has something to do next, and when.
    pub(super) fn next_tick(&mut self) -> Option<(Duration, usize)> {
        let own = self.tracker.next_deadline().map(|at| (at, self.process));
        let peer = self.peer.as_ref().and_then(|p| p.tracker.next_deadline());
        let peer = peer.map(|at| (at, 1 - self.process));
        own.into_iter().chain(peer).min()
    }

    /// The watch breaks off: its pending events are lost, and a new list replaces them.
    pub fn lose_watch(&mut self) {
        self.take_due(|due| matches!(due, Due::Watch(..)));
        self.watch_at = Duration::ZERO;
        self.list();
    }

    /// Everything that the process in turn sent to the API server lands, but no reply comes back.
    pub fn cut_replies(&mut self) {
        for due in self.take_due(|due| matches!(due, Due::Land(..) | Due::Remove(..))) {
            match due {
                Due::Land(write, _) => _ = self.land(&write),
                Due::Remove(deletion, _) => _ = self.remove(&deletion),
                _ => {}
            }
        }
    }

    /// The process in turn crashes and a new one starts, which leads: everything in flight is lost. Writes
    /// that have landed stay.
    pub fn restart(&mut self) {
        self.restart_as(true);
    }

    /// The same, with or without leadership.
    pub fn restart_as(&mut self, leading: bool) {
        let process = self.process;
        self.take_due(|_| true);
        self.watch_at = Duration::ZERO;
        self.oracles.restarted(process);
        self.open_polls.clear();
        self.open_writes.clear();
        self.open_deletions.clear();
        self.open_watch.clear();
        self.open_reads.clear();
        self.open_fetches.clear();
        self.invariants.restarted(process);
        self.tracker = Tracker::new(self.config.clone(), self.present());
        self.list();
        self.feed(Input::Leading(leading));
    }
}
