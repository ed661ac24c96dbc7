//! Which audiences hear a topic: exact names in a map, patterns in a trie of parts.
//!
//! A lookup visits, for each part of the topic, the literal branch and the `*` branch of the nodes it reached: what it
//! costs is set by the topic's depth and its matches, not by how many patterns there are.

use std::collections::HashMap;

use crate::topic::{Part, Parts, Pattern, Separator, parts};

/// `*` and `**` hang apart for each of the four separators, counting "none" at the start.
const SEPARATORS: usize = 4;

/// Patterns, each with the numbers of those who asked for it.
#[derive(Debug, Default)]
pub struct Index {
    exact: HashMap<Box<str>, Ids>,
    root: Node,
    pairs: usize,
}

/// Sorted, each once.
#[derive(Debug, Default)]
struct Ids(Vec<u32>);

/// What can follow on the parts that led here.
#[derive(Debug, Default)]
struct Node {
    /// Whose pattern ends here.
    here: Ids,
    literal: HashMap<Box<str>, Node>,
    star: [Option<Box<Node>>; SEPARATORS],
    /// Whose pattern ends here with `**`.
    rest: [Ids; SEPARATORS],
}

impl Index {
    /// Adds `id` under a pattern; a second time it changes nothing.
    pub fn insert(&mut self, pattern: &Pattern, id: u32) {
        let added = if pattern.is_exact() {
            self.exact.entry(pattern.as_str().into()).or_default().insert(id)
        } else {
            self.root.insert(parts(pattern.as_str()), id)
        };
        self.pairs += usize::from(added);
    }

    /// Takes it away again; empty nodes go, so that nothing grows for ever.
    pub fn remove(&mut self, pattern: &Pattern, id: u32) {
        let removed = if pattern.is_exact() {
            self.remove_exact(pattern.as_str(), id)
        } else {
            self.root.remove(parts(pattern.as_str()), id)
        };
        self.pairs -= usize::from(removed);
    }

    /// Appends every id with a matching pattern; one with several comes several times.
    pub fn matching(&self, topic: &str, out: &mut Vec<u32>) {
        if let Some(ids) = self.exact.get(topic) {
            out.extend_from_slice(&ids.0);
        }
        self.root.matching(parts(topic), out);
    }

    /// How many (pattern, id) pairs.
    pub fn len(&self) -> usize {
        self.pairs
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pairs == 0
    }

    fn remove_exact(&mut self, name: &str, id: u32) -> bool {
        let Some(ids) = self.exact.get_mut(name) else { return false };
        let removed = ids.remove(id);
        if ids.0.is_empty() {
            self.exact.remove(name);
        }
        removed
    }
}

impl Node {
    fn insert(&mut self, mut path: Parts<'_>, id: u32) -> bool {
        let Some(part) = path.next() else { return self.here.insert(id) };
        if part.is_rest() {
            return self.rest[slot(part)].insert(id);
        }
        let next = if part.is_star() {
            &mut **self.star[slot(part)].get_or_insert_default()
        } else {
            self.literal.entry(part.text.into()).or_default()
        };
        next.insert(path, id)
    }

    fn remove(&mut self, mut path: Parts<'_>, id: u32) -> bool {
        let Some(part) = path.next() else { return self.here.remove(id) };
        if part.is_rest() {
            return self.rest[slot(part)].remove(id);
        }
        if part.is_star() {
            let star = &mut self.star[slot(part)];
            let Some(next) = star else { return false };
            let removed = next.remove(path, id);
            if next.is_empty() {
                *star = None;
            }
            return removed;
        }
        let Some(next) = self.literal.get_mut(part.text) else { return false };
        let removed = next.remove(path, id);
        if next.is_empty() {
            self.literal.remove(part.text);
        }
        removed
    }

    /// Recursion is as deep as a topic has parts (at most 255), and only as deep as patterns lead.
    fn matching(&self, mut topic: Parts<'_>, out: &mut Vec<u32>) {
        let Some(part) = topic.next() else {
            out.extend_from_slice(&self.here.0);
            self.rest.iter().for_each(|rest| out.extend_from_slice(&rest.0));
            return;
        };
        let slot = slot(part);
        out.extend_from_slice(&self.rest[slot].0);
        if let Some(next) = &self.star[slot] {
            next.matching(topic.clone(), out);
        }
        if let Some(next) = self.literal.get(part.text) {
            next.matching(topic, out);
        }
    }

    fn is_empty(&self) -> bool {
        self.here.0.is_empty()
            && self.literal.is_empty()
            && self.star.iter().all(Option::is_none)
            && self.rest.iter().all(|rest| rest.0.is_empty())
    }
}

impl Ids {
    /// Whether it is new.
    fn insert(&mut self, id: u32) -> bool {
        let found = self.0.binary_search(&id);
        if let Err(at) = found {
            self.0.insert(at, id);
        }
        found.is_err()
    }

    /// Whether it was there.
    fn remove(&mut self, id: u32) -> bool {
        let found = self.0.binary_search(&id);
        if let Ok(at) = found {
            self.0.remove(at);
        }
        found.is_ok()
    }
}

fn slot(part: Part<'_>) -> usize {
    match part.separator {
        Separator::Start => 0,
        Separator::Slash => 1,
        Separator::Dot => 2,
        Separator::Colon => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn matching(index: &Index, topic: &str) -> Vec<u32> {
        let mut out = Vec::new();
        index.matching(topic, &mut out);
        out.sort_unstable();
        out
    }

    fn index(pairs: &[(&str, u32)]) -> Index {
        let mut index = Index::default();
        for (pattern, id) in pairs {
            index.insert(&Pattern::new(pattern).unwrap(), *id);
        }
        index
    }

    #[test]
    fn a_topic_finds_exact_names_stars_and_rests() {
        let index = index(&[
            ("a/b", 1),
            ("a/*", 2),
            ("a/**", 3),
            ("*/b", 4),
            ("**", 5),
            ("a.b", 6),
            ("a/b/**", 7),
            ("a/b/*", 8),
            ("a.**", 9),
            ("b/**", 10),
        ]);
        for (topic, expected) in [
            ("a/b", &[1, 2, 3, 4, 5, 7][..]),
            ("a.b", &[5, 6, 9]),
            ("a", &[3, 5, 9]),
            ("a/b/", &[3, 5, 7, 8]),
            ("x", &[5]),
        ] {
            assert_eq!(matching(&index, topic), expected, "{topic}");
        }
    }

    #[test]
    fn an_id_with_several_patterns_comes_several_times_and_a_pair_once() {
        let mut index = index(&[("a/*", 1), ("a/**", 1), ("a/**", 1), ("a/b", 1)]);
        assert_eq!(index.len(), 3);
        assert_eq!(matching(&index, "a/b"), [1, 1, 1]);
        for (pattern, id) in [("a/*", 2), ("b", 1), ("a/b/**", 1), ("*/*", 1), ("a/c/*", 1)] {
            index.remove(&Pattern::new(pattern).unwrap(), id);
        }
        assert_eq!(index.len(), 3, "what was not there takes nothing away");
    }

    #[test]
    fn what_is_taken_away_leaves_no_node() {
        let patterns = ["a/b", "a/*", "a/*/c/**", "a/*/d", "**", "*.*.*", "x/y/z/**"];
        let mut index = index(&patterns.map(|pattern| (pattern, 7)));
        assert_eq!(index.len(), patterns.len());
        for pattern in patterns {
            index.remove(&Pattern::new(pattern).unwrap(), 7);
        }
        assert!(index.is_empty() && index.exact.is_empty() && index.root.is_empty());
    }

    fn pattern() -> impl Strategy<Value = Pattern> {
        "([ab]|\\*|\\*\\*)?([/.]([ab]|\\*|\\*\\*)?){0,3}"
            .prop_filter_map("only patterns", |text| Pattern::new(&text).ok())
    }

    proptest! {
        #[test]
        fn the_trie_agrees_with_each_pattern(
            kept in proptest::collection::vec((pattern(), 0..4u32), 0..30),
            gone in proptest::collection::vec((pattern(), 0..4u32), 0..10),
            topic in "[abx]?([/.:][abx]?){0,4}",
        ) {
            let mut index = Index::default();
            for (pattern, id) in kept.iter().chain(&gone) {
                index.insert(pattern, *id);
            }
            for (pattern, id) in &gone {
                index.remove(pattern, *id);
            }
            let left: BTreeSet<_> = kept.iter().filter(|pair| !gone.contains(pair)).collect();
            let mut expected: Vec<u32> =
                left.iter().filter(|(pattern, _)| pattern.matches(&topic)).map(|(_, id)| *id).collect();
            expected.sort_unstable();
            prop_assert_eq!(index.len(), left.len());
            prop_assert_eq!(matching(&index, &topic), expected);
        }
    }
}
