//! What all partitions of this instance hold together, in bytes, and the time they were last told.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::Partition;
use crate::event::{Event, Time};

/// What an event costs beside its texts: itself, its place in a log, the allocator.
const OVERHEAD: u64 = 128;

/// What an event counts against `memory`, however often it is shared.
pub(super) fn cost(event: &Event) -> u64 {
    event.payload.bytes.len() as u64 + event.topic.as_str().len() as u64 + OVERHEAD
}

/// Bytes that a partition holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// In its log or among its last values.
    pub bytes: u64,
    /// Of these, not yet seen by every reader.
    pub unread: u64,
}

/// The budget. The counters are exact: each partition settles its difference before it lets go of its lock.
#[derive(Debug)]
pub(super) struct Memory {
    limit: AtomicU64,
    bytes: AtomicU64,
    unread: AtomicU64,
    now: AtomicU64,
    /// When what is past its age was last dropped to make room. Two who make room at once would each drop one event too
    /// many.
    making_room: Mutex<Time>,
}

impl Memory {
    pub fn new(limit: u64) -> Memory {
        Memory {
            limit: limit.into(),
            bytes: 0.into(),
            unread: 0.into(),
            now: 0.into(),
            making_room: Mutex::new(Time(0)),
        }
    }

    pub fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Relaxed);
    }

    /// Takes note of the time, which never goes back.
    pub fn tell(&self, now: Time) {
        if self.now.load(Relaxed) < now.0 {
            self.now.fetch_max(now.0, Relaxed);
        }
    }

    /// The latest time told.
    pub fn now(&self) -> Time {
        Time(self.now.load(Relaxed))
    }

    /// Counts what one partition holds now instead of what it held before.
    pub fn settle(&self, before: Held, after: Held) {
        if before.bytes != after.bytes {
            self.bytes.fetch_add(after.bytes.wrapping_sub(before.bytes), Relaxed);
        }
        if before.unread != after.unread {
            self.unread.fetch_add(after.unread.wrapping_sub(before.unread), Relaxed);
        }
    }

    /// Whether what readers have not seen is more than half of what may be held.
    pub fn is_behind(&self) -> bool {
        self.unread.load(Relaxed) > self.limit.load(Relaxed) / 2
    }

    /// Drops what is past its age, then the oldest event of all partitions, until there is room, or nothing is left that every reader has seen.
    pub fn make_room(&self, partitions: &[Arc<Partition>]) {
        if !self.is_over() {
            return;
        }
        let mut retired = self.making_room.lock().expect("nothing panics while it makes room");
        if *retired < self.now() {
            *retired = self.now();
            partitions.iter().for_each(|partition| partition.retire());
        }
        while self.is_over() {
            let oldest = partitions.iter().filter_map(|partition| Some((partition.oldest()?, partition)));
            let Some((_, partition)) = oldest.min_by_key(|(time, _)| *time) else { return };
            partition.evict();
        }
    }

    fn is_over(&self) -> bool {
        self.bytes.load(Relaxed) > self.limit.load(Relaxed)
    }
}
