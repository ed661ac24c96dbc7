//! Which audiences hear a topic: exact names in a map, patterns in a trie of segments.

use crate::topic::Pattern;

/// Patterns, each with the numbers of those who asked for it.
#[derive(Debug, Default)]
pub struct Index(());

impl Index {
    /// Adds `id` under a pattern.
    pub fn insert(&mut self, pattern: &Pattern, id: u32) {
        let _ = (pattern, id);
        todo!()
    }
    /// Takes it away again; empty nodes go, so that nothing grows for ever.
    pub fn remove(&mut self, pattern: &Pattern, id: u32) {
        let _ = (pattern, id);
        todo!()
    }
    /// Appends every id with a matching pattern; one with several comes several times.
    pub fn matching(&self, topic: &str, out: &mut Vec<u32>) {
        let _ = (topic, out);
        todo!()
    }
    /// How many (pattern, id) pairs.
    pub fn len(&self) -> usize {
        todo!()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
