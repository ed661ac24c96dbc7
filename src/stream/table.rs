//! Which topic lies where: the streams in the order of the file, and their partitions. Replaced whole by a reload.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::dedupe::Key;
use super::memory::Memory;
use super::older::Older;
use super::partition::{Entry, Limits};
use super::{Draft, Partition, Settings, StreamStats};
use crate::event::{Epoch, Kind, Payload, Place};
use crate::topic::Pattern;

/// The stream that has what no other takes, also when the file gives it settings of its own.
const REST: &str = "events";
/// Five characters or fewer in an id; sixty million lives are enough to tell one from the next.
pub(super) const EPOCHS: u32 = 36 * 36 * 36 * 36 * 36;

/// All streams at one time.
pub(super) struct Table {
    pub version: u64,
    /// All partitions, in the order of the file.
    pub partitions: Arc<[Arc<Partition>]>,
    streams: Vec<Stream>,
    /// Which of them is `REST`.
    rest: usize,
}

struct Stream {
    settings: Settings,
    partitions: Vec<Arc<Partition>>,
}

impl Table {
    /// What there is before the first settings.
    pub fn empty() -> Table {
        Table { version: 0, partitions: Arc::new([]), streams: Vec::new(), rest: 0 }
    }

    /// The table of other settings. Streams that were there keep their partitions, which follow the new settings at once.
    pub fn next(
        &self,
        mut settings: Vec<Settings>,
        memory: &Arc<Memory>,
        readers: usize,
        older: Option<&Arc<Older>>,
    ) -> Table {
        if !settings.iter().any(|one| &*one.name == REST) {
            settings.push(built_in());
        }
        let mut epochs = self.partitions.iter().map(|partition| partition.head().0).collect();
        let streams: Vec<_> = settings
            .into_iter()
            .map(|settings| match self.streams.iter().find(|one| one.settings.name == settings.name) {
                Some(known) => known.with(settings),
                None => Stream::new(settings, memory, readers, older, &mut epochs),
            })
            .collect();
        let partitions = streams.iter().flat_map(|stream| &stream.partitions).cloned().collect();
        let rest = streams.iter().position(|one| &*one.settings.name == REST).expect("added above if missing");
        Table { version: self.version + 1, partitions, streams, rest }
    }

    /// The batch, taken apart by partition; within each in the order given.
    pub fn route(&self, drafts: Vec<Draft>) -> Vec<(Arc<Partition>, Vec<Entry>)> {
        let mut batches: Vec<(Arc<Partition>, Vec<Entry>)> = Vec::with_capacity(1);
        for (at, draft) in drafts.into_iter().enumerate() {
            let stream = self.stream_of(draft.topic.as_str());
            let partition = stream.partition_of(draft.topic.as_str());
            let entry = stream.entry(at, draft);
            match batches.iter_mut().find(|(other, _)| Arc::ptr_eq(other, partition)) {
                Some((_, batch)) => batch.push(entry),
                None => batches.push((partition.clone(), vec![entry])),
            }
        }
        batches
    }

    /// The hashes of the partitions where topics under these patterns may lie, sorted.
    pub fn reach(&self, patterns: &[Pattern]) -> Vec<u32> {
        let mut hashes = Vec::new();
        for pattern in patterns {
            self.reach_one(pattern, &mut hashes);
        }
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    }

    fn reach_one(&self, pattern: &Pattern, hashes: &mut Vec<u32>) {
        if pattern.is_exact() {
            let topic = pattern.as_str();
            let place = self.stream_of(topic).partition_of(topic).place();
            hashes.extend((!place.live).then_some(place.hash));
            return;
        }
        for stream in &self.streams {
            if stream.settings.topics.iter().any(|own| own.overlaps(pattern)) {
                hashes.extend(stream.hashes());
            }
            // First match wins: nothing of it is left for later streams.
            if stream.settings.topics.iter().any(|own| own.covers(pattern)) {
                return;
            }
        }
        hashes.extend(self.streams[self.rest].hashes());
    }

    /// The streams that are live.
    pub fn live(&self) -> impl Iterator<Item = &Settings> {
        self.streams.iter().map(|stream| &stream.settings).filter(|settings| settings.live)
    }

    /// The hash of the partition in which a topic lies.
    pub fn place_of(&self, topic: &str) -> u32 {
        self.stream_of(topic).partition_of(topic).place().hash
    }

    /// Whether events of this topic go by without a log.
    pub fn is_live(&self, topic: &str) -> bool {
        self.stream_of(topic).settings.live
    }

    /// The partitions where topics under these patterns may lie, those of live streams or the others.
    pub fn reached(&self, patterns: &[Pattern], live: bool) -> Vec<Arc<Partition>> {
        let overlap = |stream: &&Stream| {
            stream.settings.live == live
                && stream.settings.topics.iter().any(|own| patterns.iter().any(|pattern| own.overlaps(pattern)))
        };
        let hashes = self.reach(patterns);
        let logged = |one: &&Arc<Partition>| live || hashes.contains(&one.place().hash);
        self.streams.iter().filter(overlap).flat_map(|stream| &stream.partitions).filter(logged).cloned().collect()
    }

    pub fn stats(&self) -> Vec<StreamStats> {
        self.streams.iter().map(Stream::stats).collect()
    }

    fn stream_of(&self, topic: &str) -> &Stream {
        let takes = |stream: &&Stream| stream.settings.topics.iter().any(|pattern| pattern.matches(topic));
        self.streams.iter().find(takes).unwrap_or(&self.streams[self.rest])
    }
}

impl Stream {
    fn new(
        settings: Settings,
        memory: &Arc<Memory>,
        readers: usize,
        older: Option<&Arc<Older>>,
        epochs: &mut HashSet<Epoch>,
    ) -> Stream {
        let count = settings.partitions.max(1);
        let limits = Limits::share(&settings, count as usize);
        let partitions = (0..count)
            .map(|number| {
                let place = Place::new(settings.name.clone(), number, settings.live);
                let older = older.filter(|_| !settings.live).cloned();
                // A mirror takes its lives from the store.
                let epoch = if older.is_some() { Epoch(0) } else { new_epoch(epochs) };
                Partition::new(place, epoch, limits, memory, readers, older)
            })
            .collect();
        Stream { settings, partitions }
    }

    /// The same events under other settings.
    fn with(&self, settings: Settings) -> Stream {
        let limits = Limits::share(&settings, self.partitions.len());
        self.partitions.iter().for_each(|partition| partition.set_limits(limits));
        Stream { settings, partitions: self.partitions.clone() }
    }

    fn partition_of(&self, topic: &str) -> &Arc<Partition> {
        let count = self.partitions.len();
        if count == 1 {
            return &self.partitions[0];
        }
        &self.partitions[(stable_hash(topic.as_bytes()) % count as u64) as usize]
    }

    /// All that can be known of a draft before it has its place.
    fn entry(&self, at: usize, draft: Draft) -> Entry {
        // A payload may be a small part of a large read buffer, which must not live as long as the event does: what is
        // held would be many times what is counted.
        let Payload { kind, bytes } = draft.payload;
        let payload = Payload { kind, bytes: Bytes::copy_from_slice(&bytes) };
        let clears = self.clears(&payload);
        let key = draft.dedupe.as_ref().map(Key::from);
        Entry { at, topic: draft.topic, key, name: draft.name, clears, if_known: false, payload }
    }

    fn clears(&self, payload: &Payload) -> bool {
        let Some(clear) = self.settings.clear.as_ref().filter(|_| self.settings.retain > 0) else { return false };
        payload.kind == Kind::Json && serde_json::from_slice(&payload.bytes).is_ok_and(|value| clear.hold(&value))
    }

    fn hashes(&self) -> impl Iterator<Item = u32> {
        self.partitions.iter().map(|partition| partition.place()).filter(|place| !place.live).map(|place| place.hash)
    }

    fn stats(&self) -> StreamStats {
        let mut stats = StreamStats {
            name: self.settings.name.clone(),
            partitions: 0,
            events: 0,
            bytes: 0,
            head: 0,
            oldest: None,
            retained: 0,
            appended_total: 0,
            duplicates_total: 0,
            evicted_by_memory_total: 0,
        };
        self.partitions.iter().for_each(|partition| partition.count(&mut stats));
        stats
    }
}

fn built_in() -> Settings {
    Settings {
        name: REST.into(),
        topics: vec![Pattern::all()],
        max_events: 100_000,
        max_age: Some(Duration::from_secs(24 * 60 * 60)),
        retain: 0,
        clear: None,
        partitions: 1,
        live: false,
    }
}

/// An epoch that no other partition of this instance has: ids name the stream and the epoch, but not the partition.
fn new_epoch(taken: &mut HashSet<Epoch>) -> Epoch {
    loop {
        let random = getrandom::u32().expect("the system has random numbers once it runs programs");
        let epoch = Epoch(1 + random % (EPOCHS - 1));
        if taken.insert(epoch) {
            return epoch;
        }
    }
}

/// FNV-1a with a finish that spreads into the low bits. Stable across processes and releases: a topic stays in its
/// partition.
fn stable_hash(bytes: &[u8]) -> u64 {
    let mut hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change here moves topics to other partitions: never.
    #[test]
    fn the_hash_is_stable() {
        for (text, expected) in [
            ("", 0xecba_3df2_c338_3c52),
            ("alerts/critical", 0xde7c_2e65_e436_7277),
            ("orders.eu.created", 0x0659_1587_429c_937e),
        ] {
            assert_eq!(stable_hash(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn epochs_are_small_and_not_given_twice() {
        let mut taken = HashSet::new();
        for _ in 0..1_000 {
            let epoch = new_epoch(&mut taken);
            assert!((1..EPOCHS).contains(&epoch.0));
        }
        assert_eq!(taken.len(), 1_000);
    }

    fn settings(name: &str, topics: &[&str], partitions: u32) -> Settings {
        let topics = topics.iter().map(|text| Pattern::new(text).unwrap()).collect();
        Settings { name: name.into(), topics, partitions, ..built_in() }
    }

    fn table(settings: Vec<Settings>) -> Table {
        Table::empty().next(settings, &Arc::new(Memory::new(1 << 20)), 0, None)
    }

    #[test]
    fn the_first_match_wins_and_the_rest_is_events() {
        let streams = vec![
            settings("alerts", &["alerts/**", "pages.*"], 1),
            settings("events", &["own/**"], 1),
            settings("late", &["alerts/late", "late/**"], 1),
        ];
        let table = table(streams);
        for (topic, expected) in [
            ("alerts", "alerts"),
            ("alerts/late", "alerts"),
            ("pages.x", "alerts"),
            ("own/x", "events"),
            ("late/x", "late"),
            ("nobody's", "events"),
        ] {
            assert_eq!(&*table.stream_of(topic).settings.name, expected, "{topic}");
        }
        assert_eq!(table.streams.len(), 3, "no second events");
    }

    #[test]
    fn reach_is_where_a_topic_can_lie() {
        let table = table(vec![settings("alerts", &["alerts/**"], 2), settings("orders", &["orders.*"], 1)]);
        let names = |patterns: &[&str]| -> Vec<String> {
            let patterns: Vec<_> = patterns.iter().map(|text| Pattern::new(text).unwrap()).collect();
            let reach = table.reach(&patterns);
            assert!(reach.is_sorted());
            let places = table.partitions.iter().map(|partition| partition.place());
            let reached = places.filter(|place| reach.contains(&place.hash));
            reached.map(|place| format!("{}/{}", place.stream, place.partition)).collect()
        };
        let everything = ["alerts/0", "alerts/1", "orders/0", "events/0"];
        assert_eq!(names(&["**"]), everything);
        assert_eq!(names(&["alerts/*"]), ["alerts/0", "alerts/1"], "covered: nothing is left for events");
        assert_eq!(names(&["orders.**"]), ["orders/0", "events/0"]);
        assert_eq!(names(&["orders.x", "orders.y"]), ["orders/0"]);
        assert_eq!(names(&["x", "orders.x"]), ["orders/0", "events/0"]);
        assert_eq!(names(&["alerts/7"]).len(), 1, "an exact topic lies in one partition");
        assert_eq!(names(&[]).len(), 0);
    }
}
