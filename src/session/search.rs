//! Reading back: the newest events of some partitions, found page by page from where a session stands. A page that must
//! be fetched first holds the search up; it goes on where it was. Pure.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::past::{Here, Lane, PAGE, Wants};
use crate::cursor::Mark;
use crate::event::{Epoch, Event, Kind};
use crate::stream::{Page, Partition};
use crate::topic::Topic;

/// One partition, newest event first.
struct Back {
    partition: Arc<Partition>,
    epoch: Epoch,
    turns: u64,
    /// The next position to look at.
    until: u64,
    /// How many may still be looked at.
    left: u64,
    /// Read, not yet taken.
    page: VecDeque<Arc<Event>>,
}

/// What a search comes upon.
pub(super) enum Found {
    Event(Arc<Event>),
    /// Enough for one turn.
    Pause,
    /// A page is being fetched.
    Later,
}

/// For the place behind which the newest so many wanted events of all lie.
pub(super) struct Search {
    backs: Vec<Back>,
    here: Vec<Here>,
    /// Behind which position of each partition those found so far lie.
    starts: Vec<u64>,
    /// How many are still to be found.
    left: u64,
}

/// For the newest event of each topic.
pub(super) struct Topics {
    backs: Vec<Back>,
    found: HashSet<Topic>,
}

impl Back {
    fn new(here: &Here, until: u64, left: u64) -> Back {
        let (epoch, turns) = (here.mark.epoch, here.turns.unwrap_or(u64::MAX));
        Back { partition: here.partition.clone(), epoch, turns, until, left, page: VecDeque::new() }
    }

    /// Makes the next event visible; true if it must be fetched first.
    fn fill(&mut self) -> bool {
        while self.page.is_empty() && self.until > 0 && self.left > 0 {
            let mut page = Vec::new();
            let read = self.partition.read_back(self.until, PAGE.min(self.left as usize), &mut page);
            if self.partition.turns() != self.turns {
                self.turn();
                continue;
            }
            match read {
                Page::Later => return true,
                _ if page.is_empty() => self.left = 0, // nothing older is kept
                _ => self.page.extend(page),
            }
        }
        false
    }

    /// The partition turned: what was lost is not looked at.
    fn turn(&mut self) {
        let look = self.partition.look(self.epoch);
        (self.epoch, self.turns) = (look.epoch, look.turns);
        self.until = self.until.min(look.kept.unwrap_or(0));
    }

    fn take(&mut self) -> Option<Arc<Event>> {
        let event = self.page.pop_front()?;
        (self.until, self.left) = (event.position - 1, self.left - 1);
        Some(event)
    }
}

/// The newest event of all that none has looked at, and in which of them. `Err`: one must be fetched first, so it is not
/// known which is the newest.
fn newest(backs: &mut [Back]) -> Result<Option<(usize, Arc<Event>)>, ()> {
    // All are asked, so that all that is missing is fetched at once.
    if backs.iter_mut().fold(false, |later, back| back.fill() | later) {
        return Err(());
    }
    let fronts = backs.iter().enumerate().filter_map(|(at, back)| {
        let event = back.page.front()?;
        Some((event.time, event.position, at))
    });
    let next = fronts.max().map(|(_, _, at)| at);
    Ok(next.and_then(|at| Some((at, backs[at].take()?))))
}

fn rest(backs: &mut [Back]) {
    backs.iter_mut().for_each(|back| back.page = VecDeque::new());
}

impl Search {
    /// For the newest `n` up to `here`, looking at no more than `most` of all.
    pub fn new(n: u64, here: &[Here], most: u64) -> Search {
        let share = most / here.len().max(1) as u64;
        Search {
            backs: here.iter().map(|one| Back::new(one, one.mark.position, share)).collect(),
            starts: here.iter().map(|one| one.mark.position).collect(),
            here: here.to_vec(),
            left: n,
        }
    }

    /// Goes on; `None` when it is over.
    pub fn next(&mut self, turn: &mut usize, wants: Wants<'_>) -> Option<Found> {
        while self.left > 0 {
            let (at, event) = match newest(&mut self.backs) {
                Ok(next) => next?,
                Err(()) => return Some(Found::Later),
            };
            if event.payload.kind != Kind::Gap && wants(&event) {
                self.starts[at] = event.position - 1;
                self.left -= 1;
            }
            *turn -= 1;
            if *turn == 0 {
                return Some(Found::Pause);
            }
        }
        None
    }

    /// What is to be told: what was found and all behind it, and before it, if they are asked for, the last values.
    pub fn lanes(&self, values: bool) -> impl Iterator<Item = Lane> {
        let starts = self.here.iter().zip(&self.starts);
        starts.map(move |(here, start)| Lane::new(here, values.then_some((0, *start)), *start, here.mark.position))
    }

    /// Lets go of what was read ahead.
    pub fn rest(&mut self) {
        rest(&mut self.backs);
    }
}

impl Topics {
    /// Up to where a session has read, looking at no more than `most` of all.
    pub fn new(here: &[Here], seen: &[Mark], most: u64) -> Topics {
        let share = most / here.len().max(1) as u64;
        let backs = here.iter().zip(seen).map(|(one, mark)| Back::new(one, mark.position, share));
        Topics { backs: backs.collect(), found: HashSet::new() }
    }

    /// The next one; `None` when it is over.
    pub fn next(&mut self, turn: &mut usize, wants: Wants<'_>) -> Option<Found> {
        loop {
            let (_, event) = match newest(&mut self.backs) {
                Ok(next) => next?,
                Err(()) => return Some(Found::Later),
            };
            if event.payload.kind != Kind::Gap && wants(&event) && self.found.insert(event.topic.clone()) {
                return Some(Found::Event(event));
            }
            *turn -= 1;
            if *turn == 0 {
                return Some(Found::Pause);
            }
        }
    }

    /// Lets go of what was read ahead.
    pub fn rest(&mut self) {
        rest(&mut self.backs);
    }
}
