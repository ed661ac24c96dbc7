//! What one instance hears of a source: the order of one connection made into names that are the same on every instance.
//!
//! All who listen to one Redis process hear its messages and the markers among them in the same order. So a message's
//! name is the last marker before it and how many came since. Pure: whoever owns the connection tells what it says.

use std::time::Instant;

use bytes::Bytes;

use super::name::{Count, MOST, Run, named, paid, same_run};
use super::ring::{Heard, Ring};
use crate::stream::Name;

/// What a connection says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A number of ours.
    Marker(u64),
    /// A message, by the pattern it came for; none: the channel itself was subscribed to.
    #[allow(missing_docs)]
    Message { by: Option<Bytes>, channel: Bytes, payload: Bytes },
}

/// What was new in what was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The first marker of a connection: from here on all is heard, with names.
    Begun,
    /// Another marker.
    Marked,
    /// A message with a name.
    Message,
    /// The same, and something older had to go for it.
    Overrun,
    /// The same message once more, by another subscription; or one before the first marker, which has no name.
    Nothing,
    /// Markers do not rise any more: this connection proves nothing.
    Astray,
}

/// The state of listening, and what was heard.
#[derive(Debug)]
pub struct Ear {
    /// What was heard.
    pub ring: Ring,
    /// All up to here is appended, by all that is known.
    pub done: Option<Name>,
    /// When a marker was heard last on this connection.
    pub marked: Option<Instant>,
    hearing: Hearing,
    /// The message that is being said.
    spoken: Spoken,
}

#[derive(Debug, Clone, Copy)]
enum Hearing {
    /// Not connected.
    Deaf,
    /// Connected; the first marker begins it, if it is above what was heard of the same process before.
    Waiting { run: Run, floor: u64 },
    /// All is heard.
    All { run: Run, marker: u64, count: Count },
}

/// One PUBLISH comes once for each of our subscriptions that it falls under, one right after the other and in any order.
/// So a subscription that comes again, or another channel, is the next PUBLISH: also if the payload is the same.
#[derive(Debug, Default)]
struct Spoken {
    channel: Bytes,
    by: Vec<Option<Bytes>>,
}

impl Ear {
    /// Deaf. Its ring holds so many bytes.
    pub fn new(most: usize) -> Ear {
        Ear { ring: Ring::new(most), done: None, marked: None, hearing: Hearing::Deaf, spoken: Spoken::default() }
    }

    /// A connection to this process begins: nothing has a name before a marker.
    pub fn connected(&mut self, run: Run) {
        let known = [self.done, self.ring.latest()].into_iter().flatten().filter(|name| same_run(*name, run));
        let floor = known.map(|name| name.0).max().unwrap_or(0);
        self.hearing = Hearing::Waiting { run, floor };
        self.spoken = Spoken::default();
        self.marked = None;
    }

    /// All up to here is appended.
    pub fn settle(&mut self, done: Option<Name>, now: Instant) {
        self.done = done;
        self.ring.settle(done, now);
    }

    /// It ended. True: something was heard until then.
    pub fn disconnected(&mut self) -> bool {
        let heard = self.is_hearing();
        self.hearing = Hearing::Deaf;
        heard
    }

    /// What a marker of ours must exceed.
    pub fn marker_floor(&self) -> u64 {
        match self.hearing {
            Hearing::Deaf => 0,
            Hearing::Waiting { floor, .. } => floor,
            Hearing::All { marker, .. } => marker,
        }
    }

    /// Whether all is heard, with names.
    pub fn is_hearing(&self) -> bool {
        matches!(self.hearing, Hearing::All { .. })
    }

    /// Whether everything after this name, up to now, was heard here, and goes on being heard.
    pub fn proves(&self, done: Name) -> bool {
        self.is_hearing() && self.ring.is_complete_after(paid(done))
    }

    /// Whether this name was given to what another process said: then nobody heard everything since.
    pub fn is_of_another(&self, done: Name) -> bool {
        matches!(self.hearing, Hearing::All { run, .. } if !same_run(paid(done), run))
    }

    /// Takes in what the connection says.
    pub fn hear(&mut self, said: Said, now: Instant) -> News {
        match said {
            Said::Marker(marker) => {
                self.marked = Some(now);
                self.mark(marker)
            }
            Said::Message { by, channel, payload } => {
                if !self.spoken.is_next(by, &channel) {
                    return News::Nothing;
                }
                self.message(channel, payload, now)
            }
        }
    }

    fn mark(&mut self, new: u64) -> News {
        self.spoken = Spoken::default();
        match &mut self.hearing {
            Hearing::Deaf => News::Nothing,
            Hearing::Waiting { floor, .. } if new <= *floor => News::Nothing,
            Hearing::Waiting { run, .. } => {
                let run = *run;
                self.hearing = Hearing::All { run, marker: new, count: 0 };
                self.ring.begin(named(new, run, 0));
                News::Begun
            }
            Hearing::All { marker, .. } if new <= *marker => News::Astray,
            Hearing::All { run, marker, count } => {
                (*marker, *count) = (new, 0);
                self.ring.reach(named(new, *run, 0));
                News::Marked
            }
        }
    }

    fn message(&mut self, channel: Bytes, payload: Bytes, at: Instant) -> News {
        let Hearing::All { run, marker, count } = &mut self.hearing else { return News::Nothing };
        if *count == MOST {
            return News::Astray;
        }
        *count += 1;
        let name = named(*marker, *run, *count);
        if self.ring.push(Heard { name, channel, payload, at }) { News::Overrun } else { News::Message }
    }
}

impl Spoken {
    /// Whether this is another PUBLISH than the last one.
    fn is_next(&mut self, by: Option<Bytes>, channel: &Bytes) -> bool {
        let same = *channel == self.channel && !self.by.is_empty() && !self.by.contains(&by);
        if !same {
            self.by.clear();
            self.channel = channel.clone();
        }
        self.by.push(by);
        !same
    }
}

#[cfg(test)]
mod tests;
