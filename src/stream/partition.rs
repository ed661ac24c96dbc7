//! One partition: one order. Readers (the hub's shards) follow its tail; sessions read pages of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::dedupe::Key;
use super::memory::Memory;
use super::state::State;
use super::{Refused, Settings, StreamStats};
use crate::cursor::Mark;
use crate::event::{Epoch, Event, Payload, Place, Time};
use crate::topic::Topic;

/// Stands for "nothing that could be dropped" in `Partition::oldest`.
const NOTHING: u64 = u64::MAX;

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

/// A partition's part of its stream's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub max_events: u64,
    pub max_age: Option<Duration>,
    pub retain: usize,
}

impl Limits {
    /// The share of one partition: never nothing of what the stream has.
    pub fn share(settings: &Settings, partitions: usize) -> Limits {
        Limits {
            max_events: (settings.max_events / partitions as u64).max(1),
            max_age: settings.max_age,
            retain: if settings.retain == 0 { 0 } else { (settings.retain / partitions).max(1) },
        }
    }
}

/// A draft that has found its partition; all that needs no lock has been done.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its number in the batch.
    pub at: usize,
    pub topic: Topic,
    pub payload: Payload,
    pub key: Option<Key>,
    /// Whether it removes what is retained of its topic.
    pub clears: bool,
}

/// What became of an entry.
#[derive(Debug)]
pub(super) struct Placed {
    /// Its number in the batch.
    pub at: usize,
    /// The event, or for a duplicate one with the place of the first.
    pub event: Arc<Event>,
    pub duplicate: bool,
}

/// An ordered log with a retention and, if its stream says so, last values.
pub struct Partition {
    place: Arc<Place>,
    epoch: Epoch,
    memory: Arc<Memory>,
    /// The last position.
    head: AtomicU64,
    /// When the oldest event was accepted that may be dropped for memory.
    oldest: AtomicU64,
    /// How far each reader is. Written by that reader alone, under the lock.
    seen: Box<[AtomicU64]>,
    state: Mutex<State>,
}

impl Partition {
    pub(super) fn new(
        place: Place,
        epoch: Epoch,
        limits: Limits,
        memory: &Arc<Memory>,
        readers: usize,
    ) -> Arc<Partition> {
        Arc::new(Partition {
            place: Arc::new(place),
            epoch,
            memory: memory.clone(),
            head: AtomicU64::new(0),
            oldest: AtomicU64::new(NOTHING),
            seen: (0..readers).map(|_| AtomicU64::new(0)).collect(),
            state: Mutex::new(State::new(limits, readers)),
        })
    }

    /// Its names.
    pub fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// The present epoch and last position (0: nothing yet). Lock-free.
    pub fn head(&self) -> (Epoch, u64) {
        (self.epoch, self.head.load(Ordering::Acquire))
    }

    /// The position in the present numbering that a cursor's mark means; `None` if its epoch is unknown here (gap
    /// `epoch`). A position ahead of the head in the present epoch is fine.
    pub fn resolve(&self, mark: &Mark) -> Option<u64> {
        (mark.epoch == self.epoch).then_some(mark.position)
    }

    /// The oldest position that may still be read by a session (head + 1 when empty).
    pub fn first(&self) -> u64 {
        self.with(|state| state.log().first())
    }

    /// Events after `after` up to and including `until`, oldest first, at most `max` events, appended to `out`. Who has
    /// read up to `until` or the head misses nothing, whatever is still kept.
    pub fn read(&self, after: u64, until: u64, max: usize, out: &mut Vec<Arc<Event>>) -> Page {
        self.with(|state| {
            let log = state.log();
            if after >= until.min(log.head()) {
                return Page::Here;
            }
            if after + 1 < log.first() {
                return Page::Gone { first: log.first() };
            }
            out.extend(log.range(after + 1, until).take(max).cloned());
            Page::Here
        })
    }

    /// Events at or below `until`, newest first, at most `max`, as far as they are kept.
    pub fn read_back(&self, until: u64, max: usize, out: &mut Vec<Arc<Event>>) {
        self.with(|state| {
            let log = state.log();
            out.extend(log.range(log.first(), until).rev().take(max).cloned());
        });
    }

    /// Last values with `after < position <= until`, by position, at most `max`. One that changed since stands at its new
    /// position, so a walk in pages up to a fixed `until` meets each value at most once.
    pub fn retained(&self, after: u64, until: u64, max: usize, out: &mut Vec<Arc<Event>>) {
        self.with(|state| out.extend(state.retained().range(after, until).take(max).cloned()));
    }

    /// For reader number `reader`: what it has not seen (at most `max` events, `max_bytes` of payload but at least one),
    /// which counts as seen from now on. Never misses: what a reader has not seen is not dropped, whatever the retention.
    /// Without news it takes no lock.
    pub fn tail(&self, reader: usize, max: usize, max_bytes: usize, out: &mut Vec<Arc<Event>>) {
        let after = self.seen[reader].load(Ordering::Relaxed);
        if after == self.head.load(Ordering::Acquire) {
            return;
        }
        self.with(|state| {
            let mut bytes = 0;
            let before = out.len();
            for event in state.log().range(after + 1, u64::MAX).take(max) {
                bytes += event.payload.bytes.len();
                if bytes > max_bytes && out.len() > before {
                    break;
                }
                out.push(event.clone());
            }
            let now_seen = after + (out.len() - before) as u64;
            self.seen[reader].store(now_seen, Ordering::Relaxed);
            state.all_have_seen(self.slowest());
        });
    }

    /// Appends a batch whole, or nothing of it.
    pub(super) fn append(&self, batch: Vec<Entry>, now: Time) -> Result<Vec<Placed>, Refused> {
        self.with(|state| {
            if state.is_behind() || self.memory.is_behind() {
                return Err(Refused::Behind);
            }
            let now = state.advance(now);
            let placed = batch.into_iter().map(|entry| self.put(state, entry, now)).collect();
            state.retire(now);
            Ok(placed)
        })
    }

    /// Gives one entry its place, or that of the first with its key.
    fn put(&self, state: &mut State, entry: Entry, time: Time) -> Placed {
        let Entry { at, topic, payload, key, clears } = entry;
        let first = key.and_then(|key| state.duplicate_of(&key));
        let position = first.unwrap_or(state.log().head() + 1);
        let event = Arc::new(Event { place: self.place.clone(), epoch: self.epoch, position, topic, time, payload });
        if first.is_none() {
            state.push(event.clone(), key, clears);
        }
        Placed { at, event, duplicate: first.is_some() }
    }

    /// Other settings, at once.
    pub(super) fn set_limits(&self, limits: Limits) {
        self.with(|state| state.set_limits(limits));
    }

    /// Drops what is too old, and gives back the room of bursts that are over.
    pub(super) fn sweep(&self) {
        let now = self.memory.now();
        self.with(|state| state.tidy(now));
    }

    /// When the oldest event was accepted that may be dropped for memory. Lock-free.
    pub(super) fn oldest(&self) -> Option<Time> {
        Some(self.oldest.load(Ordering::Relaxed)).filter(|time| *time != NOTHING).map(Time)
    }

    /// Drops what is past its retention.
    pub(super) fn retire(&self) {
        self.with(|_| ());
    }

    /// Drops the oldest event that every reader has seen, for memory.
    pub(super) fn evict(&self) {
        self.with(State::evict);
    }

    /// Whether its slowest reader is so far behind that it takes no more.
    pub(super) fn is_behind(&self) -> bool {
        self.with(|state| state.is_behind())
    }

    /// Adds its part to the numbers of its stream.
    pub(super) fn count(&self, stats: &mut StreamStats) {
        self.with(|state| state.count(stats));
    }

    /// The reader that is furthest behind; without readers, nobody is.
    fn slowest(&self) -> u64 {
        self.seen.iter().map(|seen| seen.load(Ordering::Relaxed)).min().unwrap_or(u64::MAX)
    }

    /// The one way to the state: what is past its retention is gone before `act` looks, and what `act` changed is told to
    /// those who do not take the lock.
    fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock().expect("nothing panics while it holds a partition");
        let before = state.held();
        state.retire(self.memory.now());
        let result = act(&mut state);
        self.memory.settle(before, state.held());
        self.head.store(state.log().head(), Ordering::Release);
        let oldest = state.oldest().map_or(NOTHING, |event| event.time.0);
        self.oldest.store(oldest, Ordering::Relaxed);
        result
    }
}

/// A removed stream's partition gives back its share when the last who reads it lets go.
impl Drop for Partition {
    fn drop(&mut self) {
        if let Ok(state) = self.state.get_mut() {
            self.memory.settle(state.held(), Default::default());
        }
    }
}
