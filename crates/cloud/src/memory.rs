//! Who has how much of a memory: bytes by namespace, in shares that are given back when they are dropped.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Notify, futures::Notified};

/// Shares of one memory. Who may have another one is its user's rule.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    used: Mutex<HashMap<Arc<str>, usize>>,
    freed: Notify,
}

/// What is in use, without the share that is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Bytes of the namespace.
    pub(crate) own: usize,
    /// Bytes of all.
    pub(crate) all: usize,
    /// Namespaces with a share, the one that asks included.
    pub(crate) namespaces: usize,
}

/// A share, until it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    shares: Arc<Shares>,
    namespace: Arc<str>,
    bytes: usize,
}

impl Shares {
    /// Takes so many bytes for a namespace, if that is permitted by what is in use.
    pub(crate) fn take(
        self: &Arc<Self>,
        namespace: &Arc<str>,
        bytes: usize,
        is_permitted: impl FnOnce(Usage) -> bool,
    ) -> Option<Share> {
        let mut used = self.lock();
        let own = used.get(namespace).copied().unwrap_or_default();
        let usage = Usage {
            own,
            all: used.values().sum(),
            namespaces: used.len() + usize::from(own == 0),
        };
        if !is_permitted(usage) {
            return None;
        }
        used.insert(namespace.clone(), own + bytes);
        Some(Share {
            shares: Arc::clone(self),
            namespace: namespace.clone(),
            bytes,
        })
    }

    /// Ends when a share is given back after this call.
    pub(crate) fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        // It is valid at each moment, so a poisoned lock is used all the same.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut used = self.shares.lock();
        if let Some(bytes) = used.get_mut(&self.namespace) {
            *bytes -= self.bytes;
            if *bytes == 0 {
                used.remove(&self.namespace);
            }
        }
        drop(used);
        self.shares.freed.notify_waiters();
    }
}
