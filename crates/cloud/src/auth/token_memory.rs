//! Memory for tokens, in shares of namespaces. An identity service decides how long tokens are and how long they last,
//! and objects how many projects they are for.

use super::lock;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

/// Bytes of tokens that one namespace may have: those of 500 projects where a token has 6 KiB.
const OF_NAMESPACE: usize = 8 << 20;
/// Where all have more than this, a namespace may have an equal share of it …
const OF_ALL: usize = 24 << 20;
/// … and all together this much.
const MOST: usize = 36 << 20;

/// Bytes of tokens, by namespace.
#[derive(Debug, Default)]
pub(crate) struct TokenMemory(Mutex<HashMap<Arc<str>, usize>>);

/// What one token takes, until it is dropped.
#[derive(Debug)]
pub(crate) struct TokenShare {
    memory: Arc<TokenMemory>,
    namespace: Arc<str>,
    bytes: usize,
}

impl TokenMemory {
    /// Memory for a token; `None` where the namespace has none left.
    pub(crate) fn take(self: &Arc<Self>, namespace: &Arc<str>, bytes: usize) -> Option<TokenShare> {
        let mut used = lock(&self.0);
        let own = used.get(namespace).copied().unwrap_or_default() + bytes;
        let namespaces = used.len() + usize::from(!used.contains_key(namespace));
        let all = used.values().sum::<usize>() + bytes;
        let share = match all {
            ..=OF_ALL => OF_NAMESPACE,
            _ => OF_NAMESPACE.min(OF_ALL / namespaces),
        };
        if own > share || all > MOST {
            return None;
        }
        used.insert(namespace.clone(), own);
        Some(TokenShare {
            memory: Arc::clone(self),
            namespace: namespace.clone(),
            bytes,
        })
    }
}

impl Drop for TokenShare {
    fn drop(&mut self) {
        let mut used = lock(&self.memory.0);
        if let Some(bytes) = used.get_mut(&self.namespace) {
            *bytes -= self.bytes;
            if *bytes == 0 {
                used.remove(&self.namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_its_share_and_leaves_others_theirs() {
        let memory = Arc::<TokenMemory>::default();
        let [noisy, quiet] = ["noisy", "quiet"].map(Arc::<str>::from);
        let take = |namespace: &Arc<str>| memory.take(namespace, 70 << 10);
        let held: Vec<_> = std::iter::from_fn(|| take(&noisy)).collect();
        assert_eq!(held.len(), (8 << 20) / (70 << 10));
        let other = take(&quiet);
        assert!(other.is_some());
        drop(held);
        drop(other);
        assert!(lock(&memory.0).is_empty());
        // However many there are, there is a bound.
        let names: Vec<Arc<str>> = (0..100).map(|n| format!("n{n}").into()).collect();
        let take_all = |name| std::iter::from_fn(|| take(name)).collect::<Vec<_>>();
        let held: Vec<_> = names.iter().flat_map(take_all).collect();
        assert_eq!(held.len(), MOST / (70 << 10));
    }
}
