//! The log of one partition: events in a row, without a hole. It knows which of them a session may still read, and lets
//! go of none that a reader has not seen.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::event::{Event, Time};

/// Below this many slots an empty log is not worth giving back.
const SMALL: usize = 1024;

/// Events by position. Those before `first` are past their retention and wait only for a slow reader.
#[derive(Debug)]
pub(super) struct Log {
    events: VecDeque<Arc<Event>>,
    /// The position of `events[0]`, or the next one.
    base: u64,
    /// The oldest that a session may read.
    first: u64,
}

impl Log {
    /// Empty; the next event stands behind this position.
    pub fn behind(position: u64) -> Log {
        Log { events: VecDeque::new(), base: position + 1, first: position + 1 }
    }

    /// The last position; 0 before the first event.
    pub fn head(&self) -> u64 {
        self.base + self.events.len() as u64 - 1
    }

    /// The oldest position that is held, readable or not.
    pub fn base(&self) -> u64 {
        self.base
    }

    pub fn first(&self) -> u64 {
        self.first
    }

    pub fn oldest_held(&self) -> Option<&Arc<Event>> {
        self.events.front()
    }

    pub fn oldest_readable(&self) -> Option<&Arc<Event>> {
        self.range(self.first, self.first).next()
    }

    /// Adds the event whose position follows the head.
    pub fn push(&mut self, event: Arc<Event>) {
        debug_assert_eq!(event.position, self.head() + 1);
        self.events.push_back(event);
    }

    /// The events of these positions, both included, as far as they are held.
    pub fn range(&self, from: u64, to: u64) -> impl DoubleEndedIterator<Item = &Arc<Event>> {
        let start = from.clamp(self.base, self.head() + 1);
        let end = to.saturating_add(1).clamp(start, self.head() + 1);
        self.events.range((start - self.base) as usize..(end - self.base) as usize)
    }

    /// Takes from sessions what is more than `max_events` or from before `horizon`.
    pub fn retire(&mut self, max_events: u64, horizon: Time) {
        self.first = self.first.max((self.head() + 1).saturating_sub(max_events));
        while self.oldest_readable().is_some_and(|event| event.time < horizon) {
            self.first += 1;
        }
    }

    /// Takes the oldest event that is held from sessions.
    pub fn retire_oldest(&mut self) {
        self.first = self.first.max(self.base + 1).min(self.head() + 1);
    }

    /// Lets go of one event that no session may read and that has been seen up to `seen`.
    pub fn release(&mut self, seen: u64) -> Option<Arc<Event>> {
        if self.base >= self.first || self.base > seen {
            return None;
        }
        let event = self.events.pop_front()?;
        self.base += 1;
        Some(event)
    }

    /// Takes everything behind this position away, and goes on from there. Returns what was held of it.
    pub fn rewind(&mut self, to: u64) -> Vec<Arc<Event>> {
        let keep = (to + 1).saturating_sub(self.base).min(self.events.len() as u64) as usize;
        let gone = self.events.split_off(keep).into();
        if to + 1 < self.base {
            self.base = to + 1;
        }
        self.first = self.first.min(to + 1);
        gone
    }

    /// Lets go of everything, and goes on behind this position.
    pub fn skip(&mut self, to: u64) -> Vec<Arc<Event>> {
        (self.base, self.first) = (to + 1, to + 1);
        std::mem::take(&mut self.events).into()
    }

    /// Gives back the room of a burst that is over.
    pub fn shrink(&mut self) {
        if self.events.capacity() > SMALL.max(self.events.len() * 4) {
            self.events.shrink_to(self.events.len() * 2);
        }
    }
}
