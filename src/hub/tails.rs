//! How far this shard has read each partition, and the cursors that follow from it.

use std::sync::Arc;

use crate::cursor::{self, Mark};
use crate::event::Event;
use crate::stream::{Partition, Streams};

/// Events a shard takes at once. Above this the fan-out gains nothing (one write then carries some 50 KiB), and a slice
/// between two batches gets too long.
const BATCH_EVENTS: usize = 256;
/// Bytes of payload taken at once; a larger event comes alone.
const BATCH_BYTES: usize = 64 * 1024;

/// One partition and the last position this shard delivered.
pub struct Tail {
    /// The partition.
    pub partition: Arc<Partition>,
    /// How far.
    pub mark: Mark,
}

/// All of them, sorted by the partition's hash.
pub struct Tails {
    reader: usize,
    version: u64,
    tails: Vec<Tail>,
}

impl Tails {
    /// For reader number `reader`, from the beginning.
    pub fn new(streams: &Streams, reader: usize) -> Tails {
        let mut tails = Tails { reader, version: 0, tails: Vec::new() };
        tails.refresh(streams);
        tails
    }

    /// Follows a changed table of streams; partitions that stay keep their position.
    pub fn refresh(&mut self, streams: &Streams) {
        self.version = streams.version();
        let mut old = std::mem::take(&mut self.tails);
        for partition in streams.partitions().iter() {
            let kept = old.iter().position(|t| Arc::ptr_eq(&t.partition, partition)).map(|at| old.swap_remove(at));
            self.tails.push(
                kept.unwrap_or_else(|| Tail { mark: partition.stands(self.reader), partition: partition.clone() }),
            );
        }
        self.tails.sort_by_key(|t| t.mark.partition);
    }

    /// Whether the table of streams changed since.
    pub fn stale(&self, streams: &Streams) -> bool {
        self.version != streams.version()
    }

    /// Takes what is new, in the order of each partition, partitions interleaved by time.
    pub fn take(&mut self, out: &mut Vec<Arc<Event>>) {
        let mut sources = 0;
        for tail in &self.tails {
            if tail.partition.has_news(self.reader) {
                tail.partition.tail(self.reader, BATCH_EVENTS, BATCH_BYTES, out);
                sources += 1;
            }
        }
        if sources > 1 {
            out.sort_by_key(|event| event.time); // stable: within a partition time never goes back
        }
    }

    /// Whether something waits to be taken.
    pub fn are_behind(&self) -> bool {
        self.tails.iter().any(|tail| tail.partition.has_news(self.reader))
    }

    /// An event is about to be delivered: from here on cursors include it.
    pub fn advance(&mut self, event: &Event) {
        if let Ok(at) = self.tails.binary_search_by_key(&event.place.hash, |t| t.mark.partition) {
            self.tails[at].mark.epoch = event.epoch;
            self.tails[at].mark.position = event.position;
        }
    }

    /// The partitions of a reach (sorted hashes).
    pub fn of<'a>(&'a self, reach: &'a [u32]) -> impl Iterator<Item = &'a Tail> {
        self.tails.iter().filter(|t| reach.binary_search(&t.mark.partition).is_ok())
    }

    /// All positions, to remember them.
    pub fn marks(&self, out: &mut Vec<Mark>) {
        out.clear();
        out.extend(self.tails.iter().map(|t| t.mark));
    }
}

/// The cursor of those marks that lie in a reach, appended to `out`.
pub fn write_cursor(marks: &[Mark], reach: &[u32], scratch: &mut Vec<Mark>, out: &mut Vec<u8>) {
    scratch.clear();
    scratch.extend(marks.iter().filter(|m| reach.binary_search(&m.partition).is_ok()));
    cursor::write(scratch, out);
}
