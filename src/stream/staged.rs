//! Streams whose store is a test: it says what the store holds, what the mirrors hear of it, and which pages come.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::lives::{Lives, Resolved};
use super::mirror::Found;
use super::older::{BLOCK, Block, Older};
use super::{Partition, Settings, Streams};
use crate::cursor::Mark;
use crate::event::{Epoch, Event, Kind, Payload, Time};
use crate::topic::Topic;

/// Streams and their partitions, by their hashes. What is live has no store.
pub(crate) struct Staged {
    pub streams: Arc<Streams>,
    pub parts: Vec<Part>,
    older: Arc<Older>,
    epochs: u32,
}

/// One partition, as the store has it.
pub(crate) struct Part {
    pub mirror: Arc<Partition>,
    /// By position, from 1.
    pub log: Vec<Arc<Event>>,
    /// The oldest that is kept.
    pub first: u64,
    retain: usize,
    lives: Lives,
}

impl Staged {
    pub fn new(settings: Vec<Settings>, readers: usize) -> Staged {
        let older = Arc::new(Older::default());
        let streams = Arc::new(Streams::of(settings, 1 << 30, readers, Some(older.clone()), None));
        let mut staged = Staged { streams, parts: Vec::new(), older, epochs: 0 };
        let mut mirrors: Vec<_> = staged.streams.partitions().iter().cloned().collect();
        mirrors.sort_by_key(|mirror| mirror.place().hash);
        for mirror in mirrors {
            let retain = mirror.limits().retain;
            let lives = Lives { epoch: staged.new_epoch(), past: Vec::new() };
            if !mirror.place().live {
                mirror.open(Found { lives: lives.clone(), position: 0, first: 1 }, Vec::new());
            }
            staged.parts.push(Part { mirror, log: Vec::new(), first: 1, retain, lives });
        }
        staged
    }

    fn new_epoch(&mut self) -> Epoch {
        self.epochs += 1;
        Epoch(1_000 - self.epochs)
    }

    /// The store's tail behind this position is lost, and its next life begins.
    pub fn lose(&mut self, at: usize, to: u64) {
        let epoch = self.new_epoch();
        let part = &mut self.parts[at];
        part.log.truncate(to as usize);
        part.lives.past.insert(0, (part.lives.epoch, to));
        part.lives.epoch = epoch;
        part.first = part.first.min(to + 1);
    }

    /// Brings one page that somebody waits for, or fails to. False if nobody waits for any.
    pub fn bring(&mut self, well: bool) -> bool {
        let next = pin!(self.older.next()).poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(number) = next else { return false };
        let part = self.parts.iter().find(|part| part.mirror.place().hash == number.0);
        let block = part.filter(|part| well && part.mirror.lives() == part.lives).map(|part| part.block(number.1));
        self.older.bring(number, block);
        true
    }

    /// Everybody who waits is told to look.
    pub fn ring(&self) {
        self.streams.wake();
    }
}

impl Part {
    /// The epoch of the store.
    pub fn epoch(&self) -> Epoch {
        self.lives.epoch
    }

    /// Whether the mirror has heard of the life of the store.
    pub fn is_settled(&self) -> bool {
        self.mirror.lives() == self.lives
    }

    /// Something is appended to the store; the payload 0 clears.
    pub fn append(&mut self, topic: &str, kind: Kind, payload: &str, time: u64) -> Arc<Event> {
        let event = Arc::new(Event {
            place: self.mirror.place().clone(),
            epoch: self.lives.epoch,
            position: self.log.len() as u64 + 1,
            topic: Topic::new(topic).unwrap(),
            time: Time(time),
            payload: Payload { kind, bytes: payload.to_owned().into() },
        });
        self.log.push(event.clone());
        event
    }

    /// The mirror hears of the life of the store. Up to where what it had is still there, if it had to be told.
    pub fn settle(&mut self) -> Option<u64> {
        let lives = self.lives.clone();
        let (epoch, position) = self.mirror.head();
        if self.mirror.lives() == lives {
            return None;
        }
        match lives.resolve(&Mark { partition: 0, epoch, position }) {
            Resolved::At(_) => self.mirror.turn(lives),
            Resolved::Lost(kept) => {
                self.mirror.rewind(lives, kept, self.first, self.values(kept));
                return Some(kept);
            }
            Resolved::Unknown => unreachable!("the store forgets no life"),
        }
        None
    }

    /// The mirror follows by at most so many events, if it is in the same life. What is no longer kept it goes over, once
    /// what is before was read.
    pub fn follow(&mut self, most: usize) -> bool {
        let head = self.mirror.head().1;
        if self.mirror.lives() != self.lives || head >= self.log.len() as u64 {
            return false;
        }
        if self.first > head + 1 {
            let passes = self.mirror.all_is_seen();
            if passes {
                let to = self.first - 1;
                self.mirror.skip(to, self.values(to));
            }
            return passes;
        }
        let news = self.log[head as usize..].iter().take(most);
        self.mirror.follow(news.map(|event| (event.clone(), clears(event))).collect());
        true
    }

    /// Retention, in the store.
    pub fn trim(&mut self, first: u64) {
        self.first = self.first.max(first.min(self.log.len() as u64 + 1));
    }

    /// The mirror drops its oldest event, for memory.
    pub fn evict(&self) {
        self.mirror.evict();
    }

    fn block(&self, number: u64) -> Block {
        let first = (number * BLOCK + 1).max(self.first);
        let events = self.log.iter().filter(|event| event.position >= first && event.position <= (number + 1) * BLOCK);
        Block::new(events.cloned().collect(), first)
    }

    fn values(&self, until: u64) -> Vec<Arc<Event>> {
        let mut values: HashMap<&Topic, &Arc<Event>> = HashMap::new();
        for event in self.log[..until as usize].iter().filter(|event| event.payload.kind != Kind::Gap) {
            match clears(event) {
                true => values.remove(&event.topic),
                false => values.insert(&event.topic, event),
            };
        }
        let mut values: Vec<_> = values.into_values().cloned().collect();
        values.sort_by_key(|event| event.position);
        values.split_off(values.len().saturating_sub(self.retain))
    }
}

fn clears(event: &Event) -> bool {
    event.payload.kind != Kind::Gap && &*event.payload.bytes == b"0"
}
