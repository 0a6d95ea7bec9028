//! Gates: answers that wait until a test releases them.

use std::sync::Arc;
use tokio::sync::watch;

/// Holds answers until a test opens it. Clones are the same gate.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<GateState>);

#[derive(Debug, Default)]
struct GateState {
    open: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets all held answers go, and later ones through.
    pub fn open(&self) {
        self.0.open.send_replace(true);
    }

    /// How many requests are held now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        *self.0.waiting.borrow()
    }

    /// Returns once at least `count` requests are held at the same time.
    pub async fn arrived(&self, count: usize) {
        let mut waiting = self.0.waiting.subscribe();
        // `self` owns the sender, so the wait cannot fail.
        let _ = waiting.wait_for(|waiting| *waiting >= count).await;
    }

    pub(super) async fn pass(&self) {
        /// Counts down also when the client goes away and the request is dropped.
        struct Held<'a>(&'a watch::Sender<usize>);
        impl Drop for Held<'_> {
            fn drop(&mut self) {
                self.0.send_modify(|waiting| *waiting -= 1);
            }
        }
        let mut open = self.0.open.subscribe();
        self.0.waiting.send_modify(|waiting| *waiting += 1);
        let _held = Held(&self.0.waiting);
        let _ = open.wait_for(|open| *open).await;
    }
}
