//! One partition: one order. Readers (the hub's shards) follow its tail; sessions read pages of it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::dedupe::Key;
use super::lives::Resolved;
use super::memory::Memory;
use super::older::Older;
use super::origin::{Name, Origin};
use super::state::State;
use super::{Refused, Settings, StreamStats};
use crate::cursor::Mark;
use crate::event::{Epoch, Event, Kind, Payload, Place, Time};
use crate::topic::{Pattern, Topic};

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
    /// It is being fetched: the wakers ring when it is here, or could not be had, and then the same read is asked again.
    Later,
}

/// Why a reader's place changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing: what it stands before was not known until now.
    None,
    /// The tail was lost, and another life went on before it.
    Epoch,
    /// It was so far behind that what it had not read is no longer kept.
    Expired,
}

/// A reader stands elsewhere now: what lay between its old place and this one is lost to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    /// Why.
    pub loss: Loss,
    /// The present epoch.
    pub epoch: Epoch,
    /// Behind this position it goes on. After a loss of the tail it lies before the old one.
    pub position: u64,
}

/// A partition at one moment, for somebody who holds positions of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// How often it had turned.
    pub turns: u64,
    /// The present epoch.
    pub epoch: Epoch,
    /// The last position.
    pub head: u64,
    /// The oldest position that is in process.
    pub first: u64,
    /// Up to where positions of that epoch still mean what they did; `None`: it is not known.
    pub kept: Option<u64>,
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
    /// What its source calls it.
    pub name: Option<Name>,
    /// Whether it removes what is retained of its topic.
    pub clears: bool,
    /// Only where its source appended something before.
    pub if_known: bool,
}

impl Entry {
    /// No event: under these patterns some are missing.
    pub fn gap(topic: &str, patterns: &[Pattern]) -> Entry {
        let list: Vec<&str> = patterns.iter().map(Pattern::as_str).collect();
        let bytes = serde_json::to_vec(&list).expect("texts are JSON").into();
        let topic = Topic::new(topic).expect("gaps have topics");
        let payload = Payload { kind: Kind::Gap, bytes };
        Entry { at: 0, topic, payload, key: None, name: None, clears: false, if_known: false }
    }
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

/// One reader of the tail: a shard. Written under the lock.
#[derive(Default)]
pub(super) struct Reader {
    /// How far it is.
    pub seen: AtomicU64,
    /// Something it had seen, or was about to see, was lost, and it does not know yet: 1 + the `Loss`.
    pub lost: AtomicU8,
}

/// An ordered log with a retention and, if its stream says so, last values. With a store outside, it is a mirror: the
/// newest part of a log that is kept there, from which `older` fetches what is no longer here.
pub struct Partition {
    pub(super) place: Arc<Place>,
    memory: Arc<Memory>,
    /// The last position.
    pub(super) head: AtomicU64,
    /// When the oldest event was accepted that may be dropped for memory.
    oldest: AtomicU64,
    /// Rises with every other life and every skip, under the lock.
    pub(super) turns: AtomicU64,
    /// A mirror was not found yet in what it mirrors.
    pub(super) unfound: AtomicBool,
    pub(super) readers: Box<[Reader]>,
    pub(super) older: Option<Arc<Older>>,
    state: Mutex<State>,
}

impl Partition {
    pub(super) fn new(
        place: Place,
        epoch: Epoch,
        limits: Limits,
        memory: &Arc<Memory>,
        readers: usize,
        older: Option<Arc<Older>>,
    ) -> Arc<Partition> {
        Arc::new(Partition {
            place: Arc::new(place),
            memory: memory.clone(),
            head: AtomicU64::new(0),
            oldest: AtomicU64::new(NOTHING),
            turns: AtomicU64::new(0),
            unfound: AtomicBool::new(older.is_some()),
            readers: (0..readers).map(|_| Reader::default()).collect(),
            state: Mutex::new(State::new(limits, epoch, older.is_some(), readers)),
            older,
        })
    }

    /// Its names.
    pub fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// The present epoch and last position (0: nothing yet).
    pub fn head(&self) -> (Epoch, u64) {
        self.with(|state| (state.lives().epoch, state.log().head()))
    }

    /// All at one moment. Who compares `turns` again after a read knows whether what was read still belongs to it.
    pub fn look(&self, epoch: Epoch) -> Look {
        self.with(|state| Look {
            turns: self.turns.load(Ordering::Relaxed),
            epoch: state.lives().epoch,
            head: state.log().head(),
            first: state.log().first(),
            kept: state.lives().kept(epoch),
        })
    }

    /// What a cursor's mark means in the present numbering.
    pub fn resolve(&self, mark: &Mark) -> Resolved {
        self.with(|state| state.lives().resolve(mark))
    }

    /// Whether this mark's epoch is not known here, but perhaps where the log is kept.
    pub fn may_learn(&self, mark: &Mark) -> bool {
        self.older.is_some() && self.look(mark.epoch).kept.is_none()
    }

    /// The oldest position that may still be read by a session (head + 1 when empty). Of what is kept elsewhere it is
    /// what is known here: a read may find that less is left.
    pub fn first(&self) -> u64 {
        self.with(|state| state.floor())
    }

    /// Rises whenever positions that somebody holds may no longer mean what they did. Lock-free.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Acquire)
    }

    /// Events after `after` up to and including `until`, oldest first, at most `max` events, appended to `out`. Who has
    /// read up to `until` or the head misses nothing, whatever is still kept.
    pub fn read(&self, after: u64, until: u64, max: usize, out: &mut Vec<Arc<Event>>) -> Page {
        let held = self.with(|state| {
            let log = state.log();
            if after >= until.min(log.head()) {
                return Ok(Page::Here);
            }
            if after + 1 >= log.first() {
                out.extend(log.range(after + 1, until).take(max).cloned());
                return Ok(Page::Here);
            }
            if after + 1 < state.floor() || self.older.is_none() {
                return Ok(Page::Gone { first: state.floor() });
            }
            Err(until.min(log.first() - 1))
        });
        match (held, &self.older) {
            (Err(until), Some(older)) => self.found(older.read(&self.place, after, until, max, self.horizon(), out)),
            (held, _) => held.unwrap_or(Page::Here),
        }
    }

    /// Events at or below `until`, newest first, at most `max`, as far as they are kept.
    pub fn read_back(&self, until: u64, max: usize, out: &mut Vec<Arc<Event>>) -> Page {
        let (first, floor) = self.with(|state| {
            let log = state.log();
            out.extend(log.range(log.first(), until).rev().take(max).cloned());
            (log.first(), state.floor())
        });
        match &self.older {
            Some(older) if out.is_empty() && max > 0 && until < first && until >= floor => {
                self.found(older.read_back(&self.place, until, max, self.horizon(), out))
            }
            _ => Page::Here,
        }
    }

    /// What a fetch found is known from then on.
    fn found(&self, page: Page) -> Page {
        if let Page::Gone { first } = page {
            self.with(|state| state.raise_floor(first));
        }
        page
    }

    /// Nothing from before this time may be read.
    fn horizon(&self) -> Time {
        self.with(|state| state.horizon(self.memory.now()))
    }

    /// Last values with `after < position <= until`, by position, at most `max`. One that changed since stands at its new
    /// position, so a walk in pages up to a fixed `until` meets each value at most once.
    pub fn retained(&self, after: u64, until: u64, max: usize, out: &mut Vec<Arc<Event>>) {
        self.with(|state| out.extend(state.retained().range(after, until).take(max).cloned()));
    }

    /// Whether it can be read. Of a mirror nothing is known before it was found in its store for the first time.
    pub fn is_open(&self) -> bool {
        !self.unfound.load(Ordering::Acquire)
    }

    /// Whether there is something that this reader does not know. Lock-free.
    pub fn has_news(&self, reader: usize) -> bool {
        let Reader { seen, lost } = &self.readers[reader];
        seen.load(Ordering::Relaxed) != self.head.load(Ordering::Acquire) || lost.load(Ordering::Acquire) != 0
    }

    /// Whether this reader's place changed, and it was not told yet. Lock-free.
    pub fn is_displaced(&self, reader: usize) -> bool {
        self.readers[reader].lost.load(Ordering::Acquire) != 0
    }

    /// Where this reader begins. What was lost before is nothing to it.
    pub fn begins(&self, reader: usize) -> Mark {
        self.with(|state| {
            self.readers[reader].lost.store(0, Ordering::Relaxed);
            self.mark_of(state, reader)
        })
    }

    /// Where this reader stands in the present epoch; `None` if its place changed, which `tail` tells.
    pub fn stands(&self, reader: usize) -> Option<Mark> {
        self.with(|state| (!self.is_displaced(reader)).then(|| self.mark_of(state, reader)))
    }

    fn mark_of(&self, state: &State, reader: usize) -> Mark {
        let position = self.readers[reader].seen.load(Ordering::Relaxed);
        Mark { partition: self.place.hash, epoch: state.lives().epoch, position }
    }

    /// For reader number `reader`: what it has not seen (at most `max` events, `max_bytes` of payload but at least one),
    /// which counts as seen from now on. Never misses: what a reader has not seen is not dropped, whatever the retention;
    /// and if it was lost all the same, the reader is told first where it stands now. Without news it takes no lock.
    pub fn tail(&self, reader: usize, max: usize, max_bytes: usize, out: &mut Vec<Arc<Event>>) -> Option<Jump> {
        if !self.has_news(reader) {
            return None;
        }
        let Reader { seen, lost } = &self.readers[reader];
        self.with(|state| {
            let after = seen.load(Ordering::Relaxed);
            let loss = match lost.swap(0, Ordering::Relaxed) {
                0 => None,
                lost if lost == 1 + Loss::None as u8 => Some(Loss::None),
                lost if lost == 1 + Loss::Epoch as u8 => Some(Loss::Epoch),
                _ => Some(Loss::Expired),
            };
            if let Some(loss) = loss {
                return Some(Jump { loss, epoch: state.lives().epoch, position: after });
            }
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
            seen.store(now_seen, Ordering::Relaxed);
            state.all_have_seen(self.slowest());
            None
        })
    }

    /// Appends a batch whole, or nothing of it.
    /// Of a source it leaves out what it had before.
    pub(super) fn append(
        &self,
        mut batch: Vec<Entry>,
        origin: Option<&Origin>,
        now: Time,
    ) -> Result<Vec<Placed>, Refused> {
        self.with(|state| {
            if state.is_behind() || self.memory.is_behind() {
                return Err(Refused::Behind);
            }
            let now = state.advance(now);
            if let Some(origin) = origin {
                batch.retain(|entry| !entry.if_known || state.knows(&origin.source));
                batch.retain(|entry| entry.name.is_none_or(|name| state.is_news(&origin.source, name)));
            }
            let placed = batch.into_iter().map(|entry| self.put(state, entry, now)).collect();
            state.retire(now);
            Ok(placed)
        })
    }

    /// Appends though readers are behind: it tells them that something is missing.
    pub(super) fn append_anyway(&self, entry: Entry, now: Time) {
        self.with(|state| {
            let now = state.advance(now);
            self.put(state, entry, now);
        });
    }

    /// Gives one entry its place, or that of the first with its key.
    fn put(&self, state: &mut State, entry: Entry, time: Time) -> Placed {
        let Entry { at, topic, payload, key, name: _, clears, if_known: _ } = entry;
        let first = key.and_then(|key| state.duplicate_of(&key));
        let position = first.unwrap_or(state.log().head() + 1);
        let epoch = state.lives().epoch;
        let event = Arc::new(Event { place: self.place.clone(), epoch, position, topic, time, payload });
        if first.is_none() {
            state.push(event.clone(), key, clears);
        }
        Placed { at, event, duplicate: first.is_some() }
    }

    /// What it holds to.
    pub(super) fn limits(&self) -> Limits {
        self.with(|state| state.limits())
    }

    /// The id of an event that stands here.
    pub(super) fn id_of(&self, epoch: Epoch, position: u64) -> String {
        crate::event::id(&self.place, epoch, position)
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
    pub(super) fn slowest(&self) -> u64 {
        self.readers.iter().map(|reader| reader.seen.load(Ordering::Relaxed)).min().unwrap_or(u64::MAX)
    }

    /// The one way to the state: what is past its retention is gone before `act` looks, and what `act` changed is told to
    /// those who do not take the lock.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
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
