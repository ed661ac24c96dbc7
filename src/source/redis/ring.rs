//! What was heard of late, by name, on every instance: what a successor appends from, and what the holder has still to
//! append. Knows what it does not know: between two of its stretches something may have been missed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::name::{is_after, is_within};
use crate::stream::Name;

/// What was appended may have to be appended again, by a successor who knows less, for so long.
const KEPT: Duration = Duration::from_secs(15);
/// What a message costs beside its texts: itself, the allocator.
const OVERHEAD: usize = 128;

/// A raw message, as Redis said it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The same on every instance.
    pub name: Name,
    /// On which Redis channel.
    pub channel: Bytes,
    /// What.
    pub payload: Bytes,
    /// When.
    pub at: Instant,
}

/// What comes after a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// These, without a hole before or between them.
    These(Vec<Heard>),
    /// Nobody knows what was said up to here: a gap must be told before anything else is appended. By the stretch that
    /// follows, counted from 1, one can see since when that is so.
    #[allow(missing_docs)]
    Gap { at: Name, stretch: u64 },
    /// Nothing up to here.
    Nothing(Name),
    /// Nothing was heard at all.
    Unknown,
}

/// The last 15 s, and longer what is not known to be appended; bounded in bytes.
#[derive(Debug)]
pub struct Ring {
    /// One for each connection, oldest first; only the last may be empty.
    stretches: VecDeque<Stretch>,
    /// How many there were.
    count: u64,
    bytes: usize,
    most: usize,
}

/// What was heard without missing anything.
#[derive(Debug)]
struct Stretch {
    number: u64,
    /// After this name.
    begun: Name,
    /// Their names rise.
    kept: VecDeque<Heard>,
    /// Up to this one.
    latest: Name,
}

impl Ring {
    /// Holds at most so many bytes.
    pub fn new(most: usize) -> Ring {
        Ring { stretches: VecDeque::new(), count: 0, bytes: 0, most }
    }

    /// From here on nothing is missed; between what is kept and this perhaps something was.
    pub fn begin(&mut self, at: Name) {
        if self.stretches.back().is_some_and(|last| last.kept.is_empty()) {
            self.stretches.pop_back();
        }
        self.count += 1;
        self.stretches.push_back(Stretch { number: self.count, begun: at, kept: VecDeque::new(), latest: at });
    }

    /// A marker: all up to here was heard.
    pub fn reach(&mut self, at: Name) {
        if let Some(last) = self.stretches.back_mut() {
            last.latest = at;
        }
    }

    /// One more. True: something older had to go for it.
    pub fn push(&mut self, heard: Heard) -> bool {
        let Some(last) = self.stretches.back_mut() else { return false };
        last.latest = heard.name;
        self.bytes += cost(&heard);
        last.kept.push_back(heard);
        let full = self.bytes > self.most;
        while self.bytes > self.most {
            self.forget_first();
        }
        full
    }

    /// Lets go of what is old and, by all that is known, appended.
    pub fn settle(&mut self, done: Option<Name>, now: Instant) {
        while let Some(first) = self.stretches.front().and_then(|stretch| stretch.kept.front()) {
            let waits = done.is_none_or(|done| is_after(first.name, done));
            if waits || now.duration_since(first.at) < KEPT {
                return;
            }
            self.forget_first();
        }
    }

    /// Whether everything after this name, up to now, is here.
    pub fn is_complete_after(&self, name: Name) -> bool {
        self.stretches.back().is_some_and(|last| is_within(name, last.begun))
    }

    /// What comes after this name: at most so many, and not much more than so many bytes.
    pub fn next(&self, after: Option<Name>, most: usize, bytes: usize) -> Next {
        let Some(last) = self.stretches.back() else { return Next::Unknown };
        let holds = |stretch: &Stretch| after.is_some_and(|after| is_within(after, stretch.begun));
        let (Some(index), Some(after)) = (self.stretches.iter().rposition(holds), after) else {
            return last.gap();
        };
        let stretch = &self.stretches[index];
        let start = stretch.kept.partition_point(|heard| heard.name <= after);
        let mut size = 0;
        let fits = |heard: &&Heard| {
            let fits = size < bytes;
            size += heard.payload.len();
            fits
        };
        let these: Vec<Heard> = stretch.kept.range(start..).take(most).take_while(fits).cloned().collect();
        match self.stretches.get(index + 1) {
            _ if !these.is_empty() => Next::These(these),
            Some(later) => later.gap(),
            None => Next::Nothing(stretch.latest.max(after)),
        }
    }

    /// How many stretches there were.
    pub fn stretches(&self) -> u64 {
        self.count
    }

    /// After this name nothing was missed, so far.
    pub fn begun(&self) -> Option<Name> {
        self.stretches.back().map(|last| last.begun)
    }

    /// Of what was heard last.
    pub fn latest(&self) -> Option<Name> {
        self.stretches.back().map(|last| last.latest)
    }

    fn forget_first(&mut self) {
        let Some(stretch) = self.stretches.front_mut() else { return };
        if let Some(first) = stretch.kept.pop_front() {
            self.bytes -= cost(&first);
            stretch.begun = first.name;
        }
        if stretch.kept.is_empty() && self.stretches.len() > 1 {
            self.stretches.pop_front();
        }
    }
}

impl Stretch {
    fn gap(&self) -> Next {
        Next::Gap { at: self.begun, stretch: self.number }
    }
}

fn cost(heard: &Heard) -> usize {
    heard.channel.len() + heard.payload.len() + OVERHEAD
}

#[cfg(test)]
mod tests;
