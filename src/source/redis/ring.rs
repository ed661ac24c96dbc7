//! What was heard of late, by name, on every instance: what a successor appends from, and what the holder has still to
//! append. Knows what it does not know: across a *break* something may have been missed.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::name::of_one_run;
use crate::stream::Name;

/// What was appended may still have to be proven, or appended again by a successor, for so long.
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
    These(Range<usize>),
    /// Nobody knows what was said up to here: a gap must be told before anything else is appended.
    Gap(Name),
    /// Nothing, and all up to here was heard.
    Nothing(Option<Name>),
}

/// The last 15 s, and longer what is not known to be appended; bounded in bytes.
#[derive(Debug)]
pub struct Ring {
    /// Names rise.
    kept: VecDeque<Heard>,
    /// Up to each of these, from what lies before it, something may be missing. They rise.
    breaks: VecDeque<Name>,
    bytes: usize,
    most: usize,
    /// Of what was heard last, kept or not.
    latest: Option<Name>,
}

impl Ring {
    /// Holds at most so many bytes.
    pub fn new(most: usize) -> Ring {
        Ring { kept: VecDeque::new(), breaks: VecDeque::new(), bytes: 0, most, latest: None }
    }

    /// From here on nothing is missed; what was said before it, and after all that is kept, perhaps was.
    pub fn begin(&mut self, at: Name) {
        if self.breaks.back() >= self.kept.back().map(|heard| &heard.name) {
            self.breaks.pop_back(); // nothing lies between the two
        }
        self.breaks.push_back(at);
        self.latest = Some(at);
    }

    /// A marker: all up to here was heard.
    pub fn reach(&mut self, at: Name) {
        self.latest = Some(at);
    }

    /// One more. True: something older had to go for it.
    pub fn push(&mut self, heard: Heard) -> bool {
        self.latest = Some(heard.name);
        self.bytes += cost(&heard);
        self.kept.push_back(heard);
        let full = self.bytes > self.most;
        while self.bytes > self.most {
            self.forget_first();
        }
        full
    }

    /// Lets go of what is old and, by all that is known, appended.
    pub fn settle(&mut self, done: Option<Name>, now: Instant) {
        while let Some(first) = self.kept.front() {
            if Some(first.name) > done || now.duration_since(first.at) < KEPT {
                return;
            }
            self.forget_first();
        }
    }

    /// Forgets all it holds.
    pub fn clear(&mut self) {
        self.kept.clear();
        self.breaks.clear();
        self.bytes = 0;
    }

    /// Whether everything after this name, up to now, is here.
    pub fn is_complete_after(&self, name: Name) -> bool {
        self.breaks.back().is_some_and(|last| *last <= name)
    }

    /// What comes after this name.
    pub fn next(&self, after: Option<Name>) -> Next {
        let behind = |name: Name| after.is_none_or(|after| name > after);
        let ahead = self.breaks.iter().copied().find(|name| behind(*name));
        let within = self.breaks.iter().copied().rfind(|name| !behind(*name));
        if after.zip(within).is_some_and(|(after, within)| !of_one_run(after, within)) {
            // It lies between our names only by chance: what follows them does not follow it.
            return ahead.or(self.latest.filter(|name| behind(*name))).map_or(Next::Nothing(None), Next::Gap);
        }
        let start = self.kept.partition_point(|heard| !behind(heard.name));
        let end = ahead.map_or(self.kept.len(), |ahead| self.kept.partition_point(|heard| heard.name <= ahead));
        match ahead {
            _ if start < end => Next::These(start..end),
            Some(ahead) => Next::Gap(ahead),
            None => Next::Nothing(self.latest),
        }
    }

    /// One of what [`Self::next`] spoke of.
    pub fn get(&self, index: usize) -> Option<&Heard> {
        self.kept.get(index)
    }

    /// From here on nothing was missed, so far.
    pub fn begun(&self) -> Option<Name> {
        self.breaks.back().copied()
    }

    /// Of what was heard last.
    pub fn latest(&self) -> Option<Name> {
        self.latest
    }

    fn forget_first(&mut self) {
        let Some(first) = self.kept.pop_front() else { return };
        self.bytes -= cost(&first);
        while self.breaks.front().is_some_and(|name| *name <= first.name) {
            self.breaks.pop_front();
        }
        self.breaks.push_front(first.name);
    }
}

fn cost(heard: &Heard) -> usize {
    heard.channel.len() + heard.payload.len() + OVERHEAD
}

#[cfg(test)]
mod tests;
