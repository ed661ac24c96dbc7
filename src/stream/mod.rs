//! Streams: ordered, bounded logs. Sources append; the hub's shards read on; sessions read back.
//!
//! The engine behind it is memory, or a store outside of which each partition here is the mirror. What a caller sees is
//! the same, and `tests/it/engine.rs` is the suite that says so.

mod append;
mod dedupe;
mod lives;
mod log;
mod memory;
mod mirror;
mod older;
mod origin;
pub mod partition;
pub mod redis;
mod retained;
#[cfg(test)]
mod staged;
mod state;
mod table;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::cursor::Mark;
use crate::event::{Payload, Time};
use crate::link::Down;
use crate::select::Fields;
use crate::topic::{Pattern, Topic};
pub use lives::Resolved;
use memory::Memory;
use older::Older;
pub use origin::{Ask, Lease, Name, Origin};
pub use partition::{Jump, Look, Loss, Page, Partition};
#[cfg(test)]
pub(crate) use staged::{Part, Staged};
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
    /// No log at all: its events go straight to those who are connected, without ids, cursors or replay. What is said
    /// above about keeping events means nothing then.
    pub live: bool,
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
    /// What its source calls it, where all who hear the source call it the same.
    pub name: Option<Name>,
}

/// A sender's own mark of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Dedupe {
    pub key: String,
    pub window: Duration,
}

/// What became of a batch: the id of each draft's event, in order (a duplicate has the id of the first), and how many
/// were duplicates. Of a live stream an event has no id, and it is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Appended {
    pub ids: Vec<String>,
    pub duplicates: usize,
}

/// Why nothing (or, over several partitions, not all) was appended; always worth a retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A reader is more than half the ring behind.
    #[error("delivery is behind; try again")]
    Behind,
    /// The store does not answer, or takes nothing. Why is for operators, not for senders.
    #[error("the store of events cannot be used now; try again")]
    Away(#[from] Down),
    /// Another holds the lease of the source by now.
    #[error("another instance appends what this source says")]
    Fenced,
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
    store: Option<Arc<redis::Store>>,
}

impl Streams {
    /// `memory` bounds events and last values in bytes (an event counts payload + topic + 128); `readers` is how many
    /// shards read on, known from the start. A built-in last stream `events` takes `**` unless the settings have one;
    /// either way it has what no other takes.
    pub fn new(settings: Vec<Settings>, memory: u64, readers: usize) -> Streams {
        Streams::of(settings, memory, readers, None, None)
    }

    /// The same, kept in Redis by any number of instances; here are mirrors, for which `memory` holds. They follow as
    /// long as somebody has the streams. Needs a runtime.
    pub fn in_redis(settings: Vec<Settings>, memory: u64, readers: usize, store: redis::Settings) -> Arc<Streams> {
        let store = redis::Store::new(store);
        let streams = Arc::new(Streams::of(settings, memory, readers, Some(store.older.clone()), Some(store.clone())));
        redis::follow(&store, &Arc::downgrade(&streams));
        streams
    }

    /// With `older` the partitions are mirrors.
    fn of(
        settings: Vec<Settings>,
        memory: u64,
        readers: usize,
        older: Option<Arc<Older>>,
        store: Option<Arc<redis::Store>>,
    ) -> Streams {
        let memory = Arc::new(Memory::new(memory));
        let table = Table::empty().next(settings, &memory, readers, older.as_ref());
        Streams {
            store,
            table: ArcSwap::from_pointee(table),
            memory,
            readers,
            older,
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
            let table = self.table.load().next(settings, &self.memory, self.readers, self.older.as_ref());
            self.memory.set_limit(memory);
            self.table.store(Arc::new(table));
        }
        self.memory.make_room(&self.partitions());
        if let Some(store) = &self.store {
            store.changed.notify_waiters();
        }
        self.wake();
    }

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

    /// Whether they are kept in a store, to which there is a way.
    pub fn are_stored(&self) -> bool {
        self.store.is_some()
    }

    /// Whether everything can be read. A store that was not reached yet may hold what a session asks for.
    pub fn is_open(&self) -> bool {
        self.table.load().partitions.iter().all(|partition| partition.is_open())
    }

    /// Waits until everything can be read, but no longer than this.
    pub async fn opened(&self, patience: Duration) {
        let open = async {
            while !self.is_open() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let _ = tokio::time::timeout(patience, open).await;
    }

    /// Makes sure that the epochs these marks name are known here, if any instance knows them.
    pub async fn learn(&self, marks: &[Mark]) -> Result<(), Down> {
        let Some(store) = &self.store else { return Ok(()) };
        let table = self.table.load_full();
        for mark in marks {
            let meant = table.partitions.iter().find(|one| one.place().hash == mark.partition && !one.place().live);
            if let Some(partition) = meant.filter(|one| !one.knows(mark.epoch)) {
                store.learn(partition, mark.epoch).await?;
                self.wake();
            }
        }
        Ok(())
    }

    /// Why this instance is not ready, as far as its streams are concerned.
    pub fn troubles(&self) -> Vec<String> {
        let refusing = self.refusing().map(|refused| refused.to_string());
        refusing.into_iter().chain(self.store.iter().flat_map(|store| store.troubles())).collect()
    }

    /// What live streams take.
    fn live_topics(&self) -> Vec<Pattern> {
        self.table.load().live().flat_map(|settings| settings.topics.clone()).collect()
    }

    /// Those of which more can be taken: readers are not too far behind.
    fn ready_to_read(&self, partitions: &[Arc<Partition>]) -> Vec<Arc<Partition>> {
        let ready = |one: &&Arc<Partition>| !one.is_behind() && !self.memory.is_behind();
        partitions.iter().filter(ready).cloned().collect()
    }

    /// Something was mirrored.
    fn mirrored(&self) {
        self.wake();
        self.memory.make_room(&self.partitions());
    }

    fn wake(&self) {
        self.wakers.load().iter().for_each(|wake| wake());
    }
}
