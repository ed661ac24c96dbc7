//! How far this shard has read each partition, and the cursors that follow from it.

use std::sync::Arc;

use crate::cursor::{self, Mark};
use crate::event::Event;
use crate::session::past::Here;
use crate::stream::{Jump, Loss, Partition, Streams};

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
    /// How often the partition had turned when the place was looked at last.
    turns: u64,
}

/// What became of the places beside being read on.
#[derive(Debug, Default)]
pub struct Turned {
    /// Whether any partition turned: positions that somebody holds must be looked at again.
    pub any: bool,
    /// In which partitions this shard lost something.
    pub lost: Vec<u32>,
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
            self.tails.push(kept.unwrap_or_else(|| Tail::begin(partition, self.reader)));
        }
        self.tails.sort_by_key(|t| t.mark.partition);
    }

    /// Whether the table of streams changed since.
    pub fn stale(&self, streams: &Streams) -> bool {
        self.version != streams.version()
    }

    /// Takes what is new, in the order of each partition, partitions interleaved by time. Where a partition turned, the
    /// place is another before that: what was lost with it is told.
    pub fn take(&mut self, out: &mut Vec<Arc<Event>>) -> Turned {
        let (mut sources, mut turned) = (0, Turned::default());
        for tail in &mut self.tails {
            if tail.partition.turns() != tail.turns {
                tail.turn(self.reader, &mut turned);
            }
            if tail.partition.has_news(self.reader) {
                match tail.partition.tail(self.reader, BATCH_EVENTS, BATCH_BYTES, out) {
                    None => sources += 1,
                    Some(jump) => tail.jump(jump, &mut turned),
                }
            }
        }
        if sources > 1 {
            out.sort_by_key(|event| event.time); // stable: within a partition time never goes back
        }
        turned
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

    /// The partitions of a reach (sorted hashes), and where the shard stands in each.
    pub fn here(&self, reach: &[u32]) -> Vec<Here> {
        let tails = self.tails.iter().filter(|tail| reach.binary_search(&tail.mark.partition).is_ok());
        tails.map(|tail| tail.here(self.reader)).collect()
    }

    /// The same, but in partitions where something was lost, where it stood before: not the place any more.
    pub fn before(&self, reach: &[u32], marks: &[Mark], lost: &[u32]) -> Vec<Here> {
        let mut here = self.here(reach);
        for one in here.iter_mut().filter(|one| lost.contains(&one.mark.partition)) {
            let before = marks.iter().find(|mark| mark.partition == one.mark.partition);
            (one.mark, one.turns) = (*before.unwrap_or(&one.mark), None);
        }
        here
    }

    /// The partitions of a reach.
    pub fn partitions(&self, reach: &[u32]) -> Vec<Arc<Partition>> {
        let tails = self.tails.iter().filter(|tail| reach.binary_search(&tail.mark.partition).is_ok());
        tails.map(|tail| tail.partition.clone()).collect()
    }

    /// All positions, to remember them.
    pub fn marks(&self, out: &mut Vec<Mark>) {
        out.clear();
        out.extend(self.tails.iter().map(|t| t.mark));
    }
}

impl Tail {
    fn begin(partition: &Arc<Partition>, reader: usize) -> Tail {
        let turns = partition.turns();
        Tail { mark: partition.begins(reader), partition: partition.clone(), turns }
    }

    /// The partition turned, and nothing was lost here; unless it jumped, which is told next.
    fn turn(&mut self, reader: usize, turned: &mut Turned) {
        let turns = self.partition.turns();
        if let Some(mark) = self.partition.stands(reader) {
            (self.mark, self.turns, turned.any) = (mark, turns, true);
        }
    }

    fn jump(&mut self, jump: Jump, turned: &mut Turned) {
        self.mark = Mark { epoch: jump.epoch, position: jump.position, ..self.mark };
        turned.any = true;
        if jump.loss != Loss::None {
            turned.lost.push(self.mark.partition);
        }
    }

    /// Not the place any more, if the partition jumped and the shard was not told yet.
    fn here(&self, reader: usize) -> Here {
        let turns = self.partition.turns();
        let turns = (!self.partition.is_displaced(reader)).then_some(turns);
        Here { partition: self.partition.clone(), mark: self.mark, turns }
    }
}

/// The cursor of those marks that lie in a reach, appended to `out`.
pub fn write_cursor(marks: &[Mark], reach: &[u32], scratch: &mut Vec<Mark>, out: &mut Vec<u8>) {
    scratch.clear();
    scratch.extend(marks.iter().filter(|m| reach.binary_search(&m.partition).is_ok()));
    cursor::write(scratch, out);
}
