//! Streams: ordered, bounded logs. Sources append; the hub's shards read on; sessions read back.
//!
//! The engine behind it is memory here; everything a caller sees holds for any engine, and `tests/it/engine.rs` is the
//! suite that says so.

pub mod partition;

use std::sync::Arc;
use std::time::Duration;

use crate::event::{Payload, Time};
use crate::select::Fields;
use crate::topic::{Pattern, Topic};
pub use partition::{Page, Partition};

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

/// All streams of this instance. Clone the `Arc` around it.
pub struct Streams(());

impl Streams {
    /// `memory` bounds events and last values in bytes (an event counts payload + topic + 128); `readers` is how many
    /// shards read on, known from the start. A built-in last stream `events` takes `**` unless the settings have one.
    pub fn new(settings: Vec<Settings>, memory: u64, readers: usize) -> Streams {
        let _ = (settings, memory, readers);
        todo!()
    }
    /// Called (outside all locks) after events were appended or the table changed; once per registered waker.
    pub fn on_change(&self, wake: Box<dyn Fn() + Send + Sync>) {
        let _ = wake;
        todo!()
    }
    /// A changed file: streams are known by name; same name keeps its events. `memory` may change too.
    pub fn apply(&self, settings: Vec<Settings>, memory: u64) {
        let _ = (settings, memory);
        todo!()
    }
    /// Changes with each `apply`, so that a reader sees when to ask for `partitions` again.
    pub fn version(&self) -> u64 {
        todo!()
    }
    /// All partitions, in the order of the file.
    pub fn partitions(&self) -> Arc<[Arc<Partition>]> {
        todo!()
    }
    /// The hashes of the partitions a session with these patterns can hear from (over-approximated), sorted.
    pub fn reach(&self, patterns: &[Pattern]) -> Vec<u32> {
        let _ = patterns;
        todo!()
    }
    /// Appends in order, with contiguous positions per partition.
    pub async fn append(&self, drafts: Vec<Draft>, now: Time) -> Result<Appended, Refused> {
        let _ = (drafts, now);
        todo!()
    }
    /// Whether an append would be refused now, and why (readiness).
    pub fn refusing(&self) -> Option<Refused> {
        todo!()
    }
    /// Drops what is too old. Called about once a second.
    pub fn sweep(&self, now: Time) {
        let _ = now;
        todo!()
    }
}
