//! The namespaces of objects: each is held once, and counts its objects.

use crate::keys::NamespaceKey;
use slotmap::SlotMap;
use std::{collections::HashMap, ops::Index, sync::Arc};

/// Namespaces with objects.
#[derive(Debug, Default)]
pub struct Namespaces {
    held: SlotMap<NamespaceKey, Namespace>,
    keys: HashMap<Arc<str>, NamespaceKey>,
}

#[derive(Debug)]
struct Namespace {
    name: Arc<str>,
    objects: usize,
}

impl Namespaces {
    /// One more object.
    pub fn join(&mut self, name: &Arc<str>) -> NamespaceKey {
        let held = &mut self.held;
        let key = *self.keys.entry(name.clone()).or_insert_with(|| {
            held.insert(Namespace {
                name: name.clone(),
                objects: 0,
            })
        });
        self.held[key].objects += 1;
        key
    }

    /// One object less. With the last one the namespace is forgotten.
    pub fn leave(&mut self, key: NamespaceKey) {
        let namespace = &mut self.held[key];
        namespace.objects -= 1;
        if namespace.objects == 0 {
            self.keys.remove(&namespace.name);
            self.held.remove(key);
        }
    }

    /// The key of a namespace that has objects.
    #[must_use]
    pub fn key_of(&self, name: &str) -> Option<NamespaceKey> {
        self.keys.get(name).copied()
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.held.len().max(self.keys.len())
    }
}

impl Index<NamespaceKey> for Namespaces {
    type Output = Arc<str>;

    fn index(&self, key: NamespaceKey) -> &Arc<str> {
        &self.held[key].name
    }
}
