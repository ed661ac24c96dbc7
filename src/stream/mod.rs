//! Streams: ordered, bounded logs. Sources append; the hub's shards read on; sessions read back.
//!
//! The engine behind it is memory here; everything a caller sees holds for any engine, and `tests/it/engine.rs` is the
//! suite that says so.

mod dedupe;
mod lives;
mod log;
mod memory;
mod mirror;
mod older;
pub mod partition;
mod retained;
mod state;
mod table;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::cursor::Mark;
use crate::event::{Payload, Time};
use crate::select::Fields;
use crate::topic::{Pattern, Topic};
pub use lives::Resolved;
use memory::Memory;
use older::Older;
pub use partition::{Jump, Look, Loss, Page, Partition};
use table::Table;

/// What `[[stream]]` says.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Its name: 1-64 of `A-Z a-z 0-9 _` (no `-`, which separates the parts of an event id).
    pub name: Arc<str>,
    /// Which topics lie in it.
    pub topics: Vec<Pattern>,
    /// How many events, in all its partitions together, may be read again.
    pub max_events: u64,
    /// How old they may be.
    pub max_age: Option<Duration>,
    /// Of how many topics the last event is kept, beyond the log. 0: none.
    pub retain: usize,
    /// An event that matches is delivered and removes what is retained of its topic.
    pub clear: Option<Fields>,
    /// How many parts with an order of their own.
    pub partitions: u32,
}

/// An event before it has its place.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Under which name.
    pub topic: Topic,
    /// What.
    pub payload: Payload,
    /// The same key within the window is one event.
    pub dedupe: Option<Dedupe>,
}

/// A sender's own mark of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Dedupe {
    pub key: String,
    pub window: Duration,
}

/// What became of a batch: the id of each draft's event, in order (a duplicate has the id of the first), and how many
/// were duplicates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Appended {
    pub ids: Vec<String>,
    pub duplicates: usize,
}

/// Why nothing (or, over several partitions, not all) was appended; always worth a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A reader is more than half the ring behind.
    #[error("delivery is behind; try again")]
    Behind,
}

/// What a stream holds, and what became of what it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamStats {
    /// Its name.
    pub name: Arc<str>,
    /// How many partitions it has.
    pub partitions: u32,
    /// Events that may be read again.
    pub events: u64,
    /// What its events and last values count against `memory`.
    pub bytes: u64,
    /// The last positions of its partitions, added up.
    pub head: u64,
    /// When the oldest event that may be read again was accepted.
    pub oldest: Option<Time>,
    /// Last values.
    pub retained: u64,
    /// Events since the stream exists.
    pub appended_total: u64,
    /// Drafts that were duplicates.
    pub duplicates_total: u64,
    /// Events and last values dropped for `memory`, before their retention was over.
    pub evicted_by_memory_total: u64,
}

type Waker = Arc<dyn Fn() + Send + Sync>;

/// All streams of this instance. Clone the `Arc` around it.
pub struct Streams {
    table: ArcSwap<Table>,
    memory: Arc<Memory>,
    readers: usize,
    /// Where a store outside brings what is older than what is in process.
    older: Option<Arc<Older>>,
    /// One `apply` at a time.
    applying: Mutex<()>,
    wakers: ArcSwap<Vec<Waker>>,
}

impl Streams {
    /// `memory` bounds events and last values in bytes (an event counts payload + topic + 128); `readers` is how many
    /// shards read on, known from the start. A built-in last stream `events` takes `**` unless the settings have one;
    /// either way it has what no other takes.
    pub fn new(settings: Vec<Settings>, memory: u64, readers: usize) -> Streams {
        let memory = Arc::new(Memory::new(memory));
        let table = Table::empty().next(settings, &memory, readers);
        Streams {
            table: ArcSwap::from_pointee(table),
            memory,
            readers,
            older: None,
            applying: Mutex::new(()),
            wakers: ArcSwap::default(),
        }
    }

    /// Called (outside all locks) after events were appended or the table changed; once per registered waker.
    pub fn on_change(&self, wake: Box<dyn Fn() + Send + Sync>) {
        let wake: Waker = wake.into();
        self.wakers.rcu(|wakers| wakers.iter().chain([&wake]).cloned().collect::<Vec<_>>());
    }

    /// A changed file: streams are known by name; same name keeps its events, under the new settings from now on
    /// (`partitions` apart, which needs a restart). A removed stream takes its events along. `memory` may change too.
    pub fn apply(&self, settings: Vec<Settings>, memory: u64) {
        {
            let _one = self.applying.lock().expect("nothing panics while it applies settings");
            let table = self.table.load().next(settings, &self.memory, self.readers);
            self.memory.set_limit(memory);
            self.table.store(Arc::new(table));
        }
        self.memory.make_room(&self.partitions());
        self.wake();
    }

    /// Whether there is anything to subscribe to: a store outside must be found first.
    pub fn is_open(&self) -> bool {
        true
    }

    /// Makes sure that the lives which these marks name are known here, if any instance knows them.
    pub async fn learn(&self, _marks: &[Mark]) {}

    /// Rises whenever a read that was told to come later is worth another try.
    pub fn brought(&self) -> u64 {
        self.older.as_ref().map_or(0, |older| older.brought())
    }

    /// Changes with each `apply`, so that a reader sees when to ask for `partitions` again.
    pub fn version(&self) -> u64 {
        self.table.load().version
    }

    /// All partitions, in the order of the file.
    pub fn partitions(&self) -> Arc<[Arc<Partition>]> {
        self.table.load().partitions.clone()
    }

    /// The hashes of the partitions a session with these patterns can hear from (over-approximated), sorted.
    pub fn reach(&self, patterns: &[Pattern]) -> Vec<u32> {
        self.table.load().reach(patterns)
    }

    /// Appends in order, with contiguous positions per partition. Each partition takes its part of the batch whole or
    /// not at all; the first that refuses ends it, so that a refused batch over several may be stored in part.
    pub async fn append(&self, drafts: Vec<Draft>, now: Time) -> Result<Appended, Refused> {
        self.memory.tell(now);
        let table = self.table.load();
        let mut appended = Appended { ids: vec![String::new(); drafts.len()], duplicates: 0 };
        let mut outcome = Ok(());
        let mut news = false;
        for (partition, batch) in table.route(drafts) {
            match partition.append(batch, now) {
                Ok(placed) => {
                    for one in placed {
                        appended.ids[one.at] = one.event.id();
                        appended.duplicates += usize::from(one.duplicate);
                        news |= !one.duplicate;
                    }
                }
                Err(refused) => {
                    outcome = Err(refused);
                    break;
                }
            }
        }
        if news {
            self.wake();
            self.memory.make_room(&table.partitions);
        }
        outcome.map(|()| appended)
    }

    /// Whether an append would be refused now, and why (readiness).
    pub fn refusing(&self) -> Option<Refused> {
        let behind = self.memory.is_behind() || self.table.load().partitions.iter().any(|one| one.is_behind());
        behind.then_some(Refused::Behind)
    }

    /// Drops what is too old. Called about once a second.
    pub fn sweep(&self, now: Time) {
        self.memory.tell(now);
        let table = self.table.load();
        table.partitions.iter().for_each(|partition| partition.sweep());
        self.memory.make_room(&table.partitions);
    }

    /// What each stream holds, in the order of the file.
    pub fn stats(&self) -> Vec<StreamStats> {
        self.table.load().stats()
    }

    fn wake(&self) {
        self.wakers.load().iter().for_each(|wake| wake());
    }
}
