//! All that was ever appended to a partition: a lost tail is a branch that ended.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::tests::wanted;
use crate::cursor::Mark;
use crate::event::{Epoch, Event, Kind};

/// Node 0 of a partition is before its first event.
#[derive(Default)]
pub struct Tree {
    pub events: Vec<Arc<Event>>,
    pub parents: Vec<usize>,
    pub nodes: HashMap<(Epoch, u64), usize>,
    /// The last node of each life.
    pub tips: HashMap<Epoch, usize>,
    /// What the mirror is at.
    pub mirror: usize,
    /// The end of the store when the mirror heard of its life.
    pub settled: usize,
}

impl Tree {
    pub fn event(&self, node: usize) -> &Arc<Event> {
        &self.events[node - 1]
    }

    pub fn position(&self, node: usize) -> u64 {
        if node == 0 { 0 } else { self.event(node).position }
    }

    pub fn put(&mut self, event: &Arc<Event>, parent: usize) -> usize {
        self.events.push(event.clone());
        self.parents.push(parent);
        let node = self.events.len();
        self.nodes.insert((event.epoch, event.position), node);
        self.tips.insert(event.epoch, node);
        node
    }

    pub fn at(&self, mut node: usize, position: u64) -> usize {
        while self.position(node) > position {
            node = self.parents[node - 1];
        }
        assert_eq!(self.position(node), position, "there is no such place");
        node
    }

    pub fn of(&self, mark: &Mark) -> usize {
        self.at(*self.tips.get(&mark.epoch).expect("an epoch of this partition"), mark.position)
    }

    /// The nodes behind `from` up to `to`, if it grows there.
    pub fn path(&self, from: usize, to: usize) -> Option<Vec<usize>> {
        let (mut nodes, mut node) = (Vec::new(), to);
        while self.position(node) > self.position(from) {
            nodes.push(node);
            node = self.parents[node - 1];
        }
        (node == from).then_some(nodes)
    }

    /// What must not be passed over without a word.
    pub fn is_told(&self, node: usize) -> bool {
        self.event(node).payload.kind == Kind::Gap || wanted(self.event(node))
    }

    /// The last node that leads to both.
    pub fn common(&self, one: usize, other: usize) -> usize {
        let least = self.position(one).min(self.position(other));
        let (mut one, mut other) = (self.at(one, least), self.at(other, least));
        while one != other {
            (one, other) = (self.parents[one - 1], self.parents[other - 1]);
        }
        one
    }
}
