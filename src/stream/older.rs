//! Pages of the past that are no longer in process, fetched once for all who read them. Knows no store: somebody takes
//! what is wanted, and brings it.
//!
//! Blocks have fixed borders, so that sessions that resume from many places ask for the same few.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::partition::Page;
use crate::event::{Event, Place, Time};

/// Positions of a block: one answer of the store, some 30 KiB of ordinary events.
pub(super) const BLOCK: u64 = 128;
/// What is kept of them. A storm of sessions reads what one resume may read, 10,000 events, some 3 MiB.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// A block: a partition by its hash, a number from 0.
pub(super) type Number = (u32, u64);

/// What was fetched, and what is wanted.
#[derive(Default)]
pub struct Older {
    blocks: Mutex<Blocks>,
    wanted: Notify,
    /// Rises with every answer, so that who waits knows when it is worth asking again.
    brought: AtomicU64,
}

#[derive(Default)]
struct Blocks {
    here: HashMap<Number, Block>,
    asked: HashSet<Number>,
    waiting: VecDeque<Number>,
    /// Under way, and whether the partition turned meanwhile: then the answer is of a life that is over.
    coming: HashMap<Number, bool>,
    bytes: usize,
    /// Counts reads, so that the longest unused is known.
    reads: u64,
}

/// What the store has of a block.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// Without a hole between them.
    pub events: Vec<Arc<Event>>,
    /// The oldest position at all, from the block's first one on.
    pub first: u64,
    used: u64,
    bytes: usize,
}

impl Older {
    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As `Partition::read`, of what is older than what the partition holds.
    pub fn read(
        &self,
        place: &Place,
        after: u64,
        until: u64,
        max: usize,
        horizon: Time,
        out: &mut Vec<Arc<Event>>,
    ) -> Page {
        let mut blocks = self.blocks();
        let number = (place.hash, after / BLOCK);
        let Some(block) = blocks.find(number) else { return self.want(blocks, number) };
        let first = block.first_after(horizon, number.1);
        if first > after + 1 {
            return Page::Gone { first };
        }
        let from = block.events.iter().skip_while(|event| event.position <= after);
        let before = out.len();
        out.extend(from.take_while(|event| event.position <= until).take(max).cloned());
        if out.len() > before {
            return Page::Here;
        }
        // It was fetched before this position was written.
        blocks.drop_block(number);
        self.want(blocks, number)
    }

    /// As `Partition::read_back`, of what is older than what the partition holds.
    pub fn read_back(&self, place: &Place, until: u64, max: usize, horizon: Time, out: &mut Vec<Arc<Event>>) -> Page {
        let mut blocks = self.blocks();
        let number = (place.hash, (until - 1) / BLOCK);
        let Some(block) = blocks.find(number) else { return self.want(blocks, number) };
        let first = block.first_after(horizon, number.1);
        if first > until {
            return Page::Here; // nothing older is left
        }
        if block.events.last().is_none_or(|last| last.position < until) {
            blocks.drop_block(number);
            return self.want(blocks, number);
        }
        let back = block.events.iter().rev().skip_while(|event| event.position > until);
        out.extend(back.take_while(|event| event.position >= first).take(max).cloned());
        Page::Here
    }

    fn want(&self, mut blocks: MutexGuard<'_, Blocks>, number: Number) -> Page {
        // What is still coming from a life that is over is asked for again when it came.
        if blocks.asked.insert(number) && !blocks.coming.contains_key(&number) {
            blocks.waiting.push_back(number);
            self.wanted.notify_one();
        }
        Page::Later
    }

    /// How many answers came so far.
    pub(super) fn brought(&self) -> u64 {
        self.brought.load(Ordering::Acquire)
    }

    /// The next block that somebody waits for.
    pub(super) async fn next(&self) -> Number {
        loop {
            if let Some(number) = self.blocks().take_next() {
                return number;
            }
            self.wanted.notified().await;
        }
    }

    /// What was wanted is here; or could not be had, and is asked for again.
    pub(super) fn bring(&self, number: Number, block: Option<Block>) {
        let mut blocks = self.blocks();
        let over = blocks.coming.remove(&number).unwrap_or_default();
        if over && blocks.asked.contains(&number) {
            blocks.waiting.push_back(number);
            self.wanted.notify_one();
        } else if blocks.asked.remove(&number)
            && let Some(block) = block
        {
            blocks.put(number, block);
        }
        self.brought.fetch_add(1, Ordering::AcqRel);
    }

    /// Another life of this partition: what was fetched may be no more.
    pub(super) fn forget(&self, partition: u32) {
        let mut blocks = self.blocks();
        let numbers: Vec<Number> = blocks.here.keys().filter(|number| number.0 == partition).copied().collect();
        numbers.into_iter().for_each(|number| blocks.drop_block(number));
        // What is under way was read before: it comes to nobody, and is asked for again.
        blocks.asked.retain(|number| number.0 != partition);
        blocks.waiting.retain(|number| number.0 != partition);
        blocks.coming.iter_mut().filter(|(number, _)| number.0 == partition).for_each(|(_, over)| *over = true);
        self.brought.fetch_add(1, Ordering::AcqRel);
    }
}

impl Block {
    /// What was found from the block's first position on; `first` is the oldest of all that is left there.
    pub fn new(events: Vec<Arc<Event>>, first: u64) -> Block {
        let bytes = events.iter().map(|event| super::memory::cost(event) as usize).sum();
        Block { events, first, used: 0, bytes }
    }

    /// The oldest position that may be read.
    fn first_after(&self, horizon: Time, number: u64) -> u64 {
        match self.events.iter().find(|event| event.time >= horizon) {
            Some(event) => event.position.max(self.first),
            None if self.events.is_empty() => self.first.max(number * BLOCK + 1),
            None => (number + 1) * BLOCK + 1,
        }
    }
}

impl Blocks {
    fn take_next(&mut self) -> Option<Number> {
        let number = self.waiting.pop_front()?;
        self.coming.insert(number, false);
        Some(number)
    }

    fn find(&mut self, number: Number) -> Option<&Block> {
        self.reads += 1;
        let reads = self.reads;
        let block = self.here.get_mut(&number)?;
        block.used = reads;
        Some(block)
    }

    fn put(&mut self, number: Number, block: Block) {
        self.reads += 1;
        self.drop_block(number);
        self.bytes += block.bytes;
        self.here.insert(number, Block { used: self.reads, ..block });
        while self.bytes > MOST_BYTES && self.here.len() > 1 {
            let oldest = self.here.iter().min_by_key(|(_, block)| block.used).map(|(number, _)| *number);
            let Some(oldest) = oldest else { return };
            self.drop_block(oldest);
        }
    }

    fn drop_block(&mut self, number: Number) {
        if let Some(block) = self.here.remove(&number) {
            self.bytes -= block.bytes;
        }
    }
}
