//! A partition as the mirror of a log that is kept elsewhere: what a store's tail does to it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Partition;
use super::lives::Lives;
use super::partition::Loss;
use crate::event::{Epoch, Event};

/// What the log was when it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub lives: Lives,
    /// The last position.
    pub position: u64,
    /// The oldest that is kept.
    pub first: u64,
}

impl Partition {
    /// Begins where the log is; nobody has read anything before.
    pub(super) fn open(&self, found: Found, values: Vec<Arc<Event>>) {
        let Found { lives, position, first } = found;
        self.with(|state| {
            state.open(lives, position, first, values);
            self.displace(Loss::None, |_| true, position);
            self.unfound.store(false, Ordering::Release);
        });
    }

    /// Drafts that were duplicates, as the store found.
    pub(super) fn count_duplicates(&self, count: usize) {
        if count > 0 {
            self.with(|state| state.count_duplicates(count));
        }
    }

    /// Whether last values are kept.
    pub(super) fn retains(&self) -> bool {
        self.with(|state| state.retains())
    }

    /// Whether it has come to this position, if only to be told that it was lost again.
    pub(super) fn is_at(&self, position: u64) -> bool {
        self.head.load(Ordering::Acquire) >= position
    }

    /// Whether this epoch is known here.
    pub(super) fn knows(&self, epoch: Epoch) -> bool {
        self.with(|state| state.lives().know(epoch))
    }

    /// The present lives.
    pub(super) fn lives(&self) -> Lives {
        self.with(|state| state.lives().clone())
    }

    /// Another life in which nothing that is here was lost. Somebody who is ahead may have lost something all the same.
    pub(super) fn turn(&self, lives: Lives) {
        self.with(|state| {
            state.turn(lives);
            self.turned();
        });
        self.forget_older(); // a page may reach further than the mirror does
    }

    /// Another life in which everything behind `to` was lost. A reader that has come further is told.
    pub(super) fn rewind(&self, lives: Lives, to: u64, first: u64, values: Vec<Arc<Event>>) {
        self.with(|state| {
            state.rewind(lives, to, first, values);
            self.displace(Loss::Epoch, |seen| seen > to, to);
        });
        self.forget_older();
    }

    /// Another log altogether, which goes on behind `to`. Every reader is told.
    pub(super) fn restart(&self, lives: Lives, to: u64, first: u64, values: Vec<Arc<Event>>) {
        self.with(|state| {
            state.open(lives, to, first, values);
            self.displace(Loss::Epoch, |_| true, to);
        });
        self.forget_older();
    }

    /// Goes on behind `to`, which all readers must have come near to: what lies between is no longer kept anywhere.
    pub(super) fn skip(&self, to: u64, values: Vec<Arc<Event>>) {
        self.with(|state| {
            state.skip(to, values);
            self.displace(Loss::Expired, |seen| seen < to, to);
        });
    }

    fn displace(&self, loss: Loss, concerned: impl Fn(u64) -> bool, to: u64) {
        for reader in self.readers.iter().filter(|reader| concerned(reader.seen.load(Ordering::Relaxed))) {
            reader.seen.store(to, Ordering::Relaxed);
            reader.lost.store(1 + loss as u8, Ordering::Release);
        }
        self.turned();
    }

    fn turned(&self) {
        self.turns.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether every reader has read what is here.
    pub(super) fn all_is_seen(&self) -> bool {
        self.slowest() >= self.head.load(Ordering::Acquire)
    }

    /// Takes what follows, in order; with each event whether it clears what is retained of its topic.
    pub(super) fn follow(&self, events: Vec<(Arc<Event>, bool)>) {
        self.with(|state| {
            for (event, clears) in events {
                state.advance(event.time);
                state.push(event, None, clears);
            }
            if self.readers.is_empty() {
                state.all_have_seen(u64::MAX);
            }
        });
    }

    fn forget_older(&self) {
        if let Some(older) = &self.older {
            older.forget(self.place.hash);
        }
    }
}
