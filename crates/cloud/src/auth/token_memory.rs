//! Memory for tokens, in shares of namespaces. An identity service decides how long tokens are and how long they last,
//! and objects how many projects they are for.

use crate::memory::{Share, Shares};
use std::sync::Arc;

/// Bytes of tokens that one namespace may have: those of 500 projects where a token has 6 KiB.
const OF_NAMESPACE: usize = 8 << 20;
/// Where all have more than this, a namespace may have an equal share of it …
const OF_ALL: usize = 24 << 20;
/// … and all together this much.
const MOST: usize = 36 << 20;

/// The memory for tokens.
#[derive(Debug, Default)]
pub(crate) struct TokenMemory(Arc<Shares>);

impl TokenMemory {
    /// Memory for a token; `None` where the namespace has none left.
    pub(crate) fn take(&self, namespace: &Arc<str>, bytes: usize) -> Option<Share> {
        self.0.take(namespace, bytes, |used| {
            let all = used.all + bytes;
            let limit = match all {
                ..=OF_ALL => OF_NAMESPACE,
                _ => OF_NAMESPACE.min(OF_ALL / used.namespaces),
            };
            used.own + bytes <= limit && all <= MOST
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_its_share_and_leaves_others_theirs() {
        let memory = TokenMemory::default();
        let [noisy, quiet] = ["noisy", "quiet"].map(Arc::<str>::from);
        let take = |namespace: &Arc<str>| memory.take(namespace, 70 << 10);
        let held: Vec<_> = std::iter::from_fn(|| take(&noisy)).collect();
        assert_eq!(held.len(), (8 << 20) / (70 << 10));
        let other = take(&quiet);
        assert!(other.is_some());
        drop(held);
        drop(other);
        assert!(memory.0.is_empty());
        // However many there are, there is a bound.
        let names: Vec<Arc<str>> = (0..100).map(|n| format!("n{n}").into()).collect();
        let take_all = |name| std::iter::from_fn(|| take(name)).collect::<Vec<_>>();
        let held: Vec<_> = names.iter().flat_map(take_all).collect();
        assert_eq!(held.len(), MOST / (70 << 10));
    }
}
