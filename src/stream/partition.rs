//! One partition: one order. Readers (the hub's shards) follow its tail; sessions read pages of it.

use std::sync::Arc;

use crate::cursor::Mark;
use crate::event::{Epoch, Event, Place};

/// What a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The events, as many as fit (none: nothing after that position yet).
    Here,
    /// The position after `after` is no longer kept (by retention or memory); `first` is the oldest that is (or head+1).
    Gone {
        /// Where reading can begin.
        first: u64,
    },
}

/// An ordered log with a retention and, if its stream says so, last values.
pub struct Partition(());

impl Partition {
    /// Its names.
    pub fn place(&self) -> &Arc<Place> {
        todo!()
    }
    /// The present epoch and last position (0: nothing yet). Lock-free.
    pub fn head(&self) -> (Epoch, u64) {
        todo!()
    }
    /// The position in the present numbering that a cursor's mark means; `None` if its epoch is unknown here (gap
    /// `epoch`). A position ahead of the head in the present epoch is fine.
    pub fn resolve(&self, mark: &Mark) -> Option<u64> {
        let _ = mark;
        todo!()
    }
    /// The oldest position that may still be read by a session (head + 1 when empty).
    pub fn first(&self) -> u64 {
        todo!()
    }
    /// Events after `after` up to and including `until`, oldest first, at most `max` events, appended to `out`.
    pub fn read(&self, after: u64, until: u64, max: usize, out: &mut Vec<Arc<Event>>) -> Page {
        let _ = (after, until, max, out);
        todo!()
    }
    /// Events at or below `until`, newest first, at most `max`, as far as they are kept.
    pub fn read_back(&self, until: u64, max: usize, out: &mut Vec<Arc<Event>>) {
        let _ = (until, max, out);
        todo!()
    }
    /// Last values with `after < position <= until`, by position, at most `max`. One that changed since stands at its new
    /// position, so a walk in pages up to a fixed `until` meets each value at most once.
    pub fn retained(&self, after: u64, until: u64, max: usize, out: &mut Vec<Arc<Event>>) {
        let _ = (after, until, max, out);
        todo!()
    }
    /// For reader number `reader`: what it has not seen (at most `max` events, `max_bytes` of payload but at least one),
    /// which counts as seen from now on. Never misses: what a reader has not seen is not dropped, whatever the retention.
    pub fn tail(&self, reader: usize, max: usize, max_bytes: usize, out: &mut Vec<Arc<Event>>) {
        let _ = (reader, max, max_bytes, out);
        todo!()
    }
}
