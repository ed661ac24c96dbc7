//! What a partition keeps under its lock: log, last values, keys, and the bytes of them. Knows no lock and no other
//! partition.

use std::collections::HashMap;
use std::sync::Arc;

use super::StreamStats;
use super::dedupe::{Key, Keys};
use super::lives::Lives;
use super::log::Log;
use super::memory::{Held, cost};
use super::origin::Name;
use super::partition::Limits;
use super::retained::Retained;
use crate::event::{Epoch, Event, Kind, Time};

/// Readers may lag by half of this or of `max_events`, whichever is more: a stream that keeps ten events would
/// otherwise refuse at the sixth while a reader is merely scheduled out.
const MIN_RING: u64 = 8192;

/// See above. An event in the log and among the last values is counted once: it leaves `held` when it leaves the second.
#[derive(Debug)]
pub(super) struct State {
    limits: Limits,
    lives: Lives,
    log: Log,
    /// The oldest position that can be read anywhere: of a mirror also by a fetch.
    floor: u64,
    /// What is dropped for memory can be fetched again, so the last values stay.
    mirror: bool,
    retained: Retained,
    keys: Keys,
    /// What each source said last.
    names: HashMap<Arc<str>, Name>,
    /// The latest time here; no event has an earlier one after it.
    time: Time,
    /// Up to where every reader has seen.
    seen: u64,
    held: Held,
    appended: u64,
    duplicates: u64,
    evicted: u64,
}

impl State {
    /// Of a partition that begins here; a mirror follows a log that is kept elsewhere.
    pub fn new(limits: Limits, epoch: Epoch, mirror: bool, readers: usize) -> State {
        State {
            limits,
            lives: Lives::new(epoch),
            log: Log::behind(0),
            floor: 1,
            mirror,
            retained: Retained::default(),
            keys: Keys::default(),
            names: HashMap::new(),
            time: Time(0),
            seen: if readers == 0 { u64::MAX } else { 0 },
            held: Held::default(),
            appended: 0,
            duplicates: 0,
            evicted: 0,
        }
    }

    pub fn lives(&self) -> &Lives {
        &self.lives
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    pub fn retained(&self) -> &Retained {
        &self.retained
    }

    pub fn retains(&self) -> bool {
        self.limits.retain > 0
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    pub fn held(&self) -> Held {
        self.held
    }

    /// Whether the slowest reader is more than half the replay ring behind.
    pub fn is_behind(&self) -> bool {
        let ring = self.limits.max_events.max(MIN_RING);
        self.log.head().saturating_sub(self.seen) > ring / 2
    }

    /// The time of what is accepted now: never before what was accepted last.
    pub fn advance(&mut self, now: Time) -> Time {
        self.time = self.time.max(now);
        self.time
    }

    /// The position of the event that this key already is.
    pub fn duplicate_of(&mut self, key: &Key) -> Option<u64> {
        let first = self.keys.first(key, self.time);
        self.duplicates += u64::from(first.is_some());
        first
    }

    /// Whether a source said anything before.
    pub fn knows(&self, source: &Arc<str>) -> bool {
        self.names.contains_key(source)
    }

    /// Whether a source did not say this before; remembered as said. Sources are as many as the file has.
    pub fn is_news(&mut self, source: &Arc<str>, name: Name) -> bool {
        let news = self.names.get(source).is_none_or(|last| name.follows(*last));
        if news {
            self.names.insert(source.clone(), name);
        }
        news
    }

    /// Those that a store found.
    pub fn count_duplicates(&mut self, count: usize) {
        self.duplicates += count as u64;
    }

    /// Takes the next event.
    pub fn push(&mut self, event: Arc<Event>, key: Option<Key>, clears: bool) {
        if let Some(key) = key {
            self.keys.remember(key, event.position, event.time);
        }
        self.appended += 1;
        self.held.bytes += cost(&event);
        if event.position > self.seen {
            self.held.unread += cost(&event);
        }
        self.log.push(event.clone());
        if clears {
            let cleared = self.retained.remove(&event.topic);
            self.let_go(cleared);
        } else if self.limits.retain > 0 && event.payload.kind != Kind::Gap {
            let before = self.retained.put(event);
            self.let_go(before);
            self.limit_retained();
        }
    }

    /// Takes from sessions what is past its retention, and lets go of it once every reader has seen it.
    pub fn retire(&mut self, now: Time) {
        let (first, horizon) = (self.log.first(), self.horizon(now));
        self.log.retire(self.limits.max_events, horizon);
        if self.log.first() > first {
            self.floor = self.log.first(); // and all that is older
        }
        self.floor = self.floor.max((self.log.head() + 1).saturating_sub(self.limits.max_events));
        self.release();
    }

    /// Nothing from before this time may be read.
    pub fn horizon(&self, now: Time) -> Time {
        let age = self.limits.max_age.map_or(u64::MAX, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        Time(now.0.saturating_sub(age))
    }

    /// Every reader has seen up to here.
    pub fn all_have_seen(&mut self, seen: u64) {
        if seen <= self.seen {
            return;
        }
        self.held.unread -= self.log.range(self.seen + 1, seen).map(|event| cost(event)).sum::<u64>();
        self.seen = seen;
        self.release();
    }

    /// The oldest event that could be dropped for memory, from the log or from the last values.
    pub fn oldest(&self) -> Option<&Arc<Event>> {
        let value = self.retained.oldest().filter(|_| !self.mirror);
        let candidates = self.log.oldest_held().into_iter().chain(value);
        candidates.min_by_key(|event| event.position).filter(|event| event.position <= self.seen)
    }

    /// Drops it, wherever it is kept.
    pub fn evict(&mut self) {
        let Some(position) = self.oldest().map(|event| event.position) else { return };
        self.evicted += 1;
        if !self.mirror && self.retained.holds(position) {
            let value = self.retained.pop_oldest();
            self.let_go(value);
        }
        if position == self.log.base() {
            self.log.retire_oldest();
            self.floor = if self.mirror { self.floor } else { self.log.first() };
            self.release();
        }
    }

    /// The oldest position that a session may read, here or by a fetch.
    pub fn floor(&self) -> u64 {
        if self.mirror { self.floor.min(self.log.first()) } else { self.log.first() }
    }

    /// A fetch found that nothing before this position is kept.
    pub fn raise_floor(&mut self, first: u64) {
        self.floor = self.floor.max(first);
    }

    /// Another life, in which nothing of what is here was lost.
    pub fn turn(&mut self, lives: Lives) {
        self.lives = lives;
    }

    /// Another life, in which everything behind `to` was lost; these are its last values up to there.
    pub fn rewind(&mut self, lives: Lives, to: u64, floor: u64, values: Vec<Arc<Event>>) {
        self.lives = lives;
        self.log.rewind(to);
        self.seen = self.seen.min(to);
        self.retake(floor, values);
    }

    /// A mirror begins, behind the position where the log was when it was found.
    pub fn open(&mut self, lives: Lives, at: u64, floor: u64, values: Vec<Arc<Event>>) {
        self.lives = lives;
        self.log.skip(at);
        self.seen = at;
        self.retake(floor, values);
    }

    fn retake(&mut self, floor: u64, values: Vec<Arc<Event>>) {
        self.floor = floor;
        self.retained = Retained::default();
        values.into_iter().for_each(|value| drop(self.retained.put(value)));
        self.recount();
    }

    /// Goes on behind `to`, with these last values: what lies between is no longer kept anywhere.
    pub fn skip(&mut self, to: u64, values: Vec<Arc<Event>>) {
        self.log.skip(to);
        self.seen = to;
        self.retake(to + 1, values);
    }

    /// What is held, from the beginning: after turns, which are rare.
    fn recount(&mut self) {
        let all = self.log.range(0, u64::MAX);
        let (mut bytes, mut unread) = (0, 0);
        for event in all {
            bytes += cost(event);
            unread += if event.position > self.seen { cost(event) } else { 0 };
        }
        let values = self.retained.range(0, u64::MAX).filter(|event| event.position < self.log.base());
        self.held = Held { bytes: bytes + values.map(|event| cost(event)).sum::<u64>(), unread };
    }

    /// Other settings, at once.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.limit_retained();
        self.retire(self.time);
    }

    /// Forgets keys whose windows are over, and gives back the room of bursts that are over.
    pub fn tidy(&mut self, now: Time) {
        self.keys.expire(now);
        self.keys.shrink();
        self.log.shrink();
    }

    /// Adds to the numbers of the stream.
    pub fn count(&self, stats: &mut StreamStats) {
        stats.partitions += 1;
        stats.events += self.log.head() + 1 - self.floor();
        stats.bytes += self.held.bytes;
        stats.head += self.log.head();
        let oldest = self.log.oldest_readable().map(|event| event.time);
        stats.oldest = stats.oldest.into_iter().chain(oldest).min();
        stats.retained += self.retained.len() as u64;
        stats.appended_total += self.appended;
        stats.duplicates_total += self.duplicates;
        stats.evicted_by_memory_total += self.evicted;
    }

    fn release(&mut self) {
        while let Some(event) = self.log.release(self.seen) {
            if !self.retained.holds(event.position) {
                self.held.bytes -= cost(&event);
            }
        }
    }

    fn limit_retained(&mut self) {
        while self.retained.len() > self.limits.retain {
            let oldest = self.retained.pop_oldest();
            self.let_go(oldest);
        }
    }

    /// An event that is no longer a last value.
    fn let_go(&mut self, value: Option<Arc<Event>>) {
        if let Some(event) = value.filter(|event| event.position < self.log.base()) {
            self.held.bytes -= cost(&event);
        }
    }
}
