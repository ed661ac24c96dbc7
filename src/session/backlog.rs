//! What a session still has to be sent before it is live: said things, gaps, a walk through the past, the catch-up to
//! the shard's own position. Pulled step by step as the socket drains, so it needs no buffer of its own. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use super::endpoint::Replay;
use super::past::{Here, Lane, Walk, Walked, Wants, oldest, past};
use super::terms::Begin;
use crate::cursor::Mark;
use crate::event::Event;
use crate::topic::Pattern;
use crate::wire::form::GapReason;

/// Events looked at in one pull, sent or not, before others get their turn.
const TURN: usize = 1024;

/// What comes next.
#[derive(Debug)]
pub enum Pulled {
    /// An event; in its turn (with a cursor) or out of it.
    Event(Arc<Event>, bool),
    /// Bytes for this session alone.
    Say(Vec<u8>),
    /// Events are gone.
    Gap(Missing),
    /// The session stands whole.
    Open,
    /// Others first; there is more.
    Pause,
    /// Nothing until the shard moves on: this session is ahead of it.
    Ahead,
    /// Live from here.
    Live,
}

/// Events that are gone. The marks are the cursors around the hole.
#[derive(Debug)]
pub struct Missing {
    /// Why.
    pub reason: GapReason,
    /// Before it; `None` if the session brought nothing readable.
    pub from: Option<Vec<Mark>>,
    /// Behind it.
    pub to: Vec<Mark>,
    /// How many positions, if it is known.
    pub hole: Option<u64>,
    /// Which partitions it lies in, by hash.
    pub partitions: Vec<u32>,
}

enum Step {
    Say(Vec<u8>),
    Gap(Missing),
    Walk(Walk),
    Open,
}

/// What one subscribe asks to catch up on.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// From here on; `None` is a cursor that could not be read.
    pub brought: Option<&'a [Mark]>,
    /// What comes instead where the cursor says nothing.
    pub fallback: Replay,
    /// These topics.
    pub only: &'a [Pattern],
    /// But not those, which it hears already.
    pub except: &'a [Pattern],
}

/// Everything before live.
pub struct Backlog {
    steps: VecDeque<Step>,
    lanes: Vec<Lane>,
    /// How far this session has read, for the partitions of its reach, sorted: its own cursor.
    pub seen: Vec<Mark>,
}

impl Backlog {
    /// Of a session that begins. `here` are the partitions of its reach with their last positions: whoever was told that
    /// an event is stored finds it, even if the shard has not come so far.
    pub fn begin(begin: &Begin, fallback: Replay, here: &[Here], most: u64, wants: Wants<'_>) -> Backlog {
        let seen = here.iter().map(|(_, mark)| *mark).collect();
        let mut backlog = Backlog { steps: VecDeque::new(), lanes: Vec::new(), seen };
        match begin {
            Begin::Fresh(replay) => {
                let walk = past(*replay, here, most, false, wants);
                backlog.steps.push_back(Step::Walk(walk));
            }
            Begin::After(brought) => backlog.resume(brought.as_deref(), fallback, here, most, wants),
        }
        backlog.catch_up(here);
        backlog
    }

    /// Of a live session that asked for some of the past again.
    pub fn again(here: &[Here]) -> Backlog {
        let mut backlog =
            Backlog { steps: VecDeque::new(), lanes: Vec::new(), seen: here.iter().map(|(_, m)| *m).collect() };
        backlog.catch_up(here);
        backlog
    }

    fn resume(&mut self, brought: Option<&[Mark]>, fallback: Replay, here: &[Here], most: u64, wants: Wants<'_>) {
        let mut foreign = Vec::new();
        for ((partition, mark), seen) in here.iter().zip(&mut self.seen) {
            let known = brought.and_then(|marks| marks.iter().find(|m| m.partition == mark.partition));
            match known.and_then(|mark| partition.resolve(mark).known()) {
                Some(position) => seen.position = position,
                None => foreign.push((partition.clone(), *mark)),
            }
        }
        if !foreign.is_empty() {
            let partitions = foreign.iter().map(|(_, mark)| mark.partition).collect();
            self.gap(GapReason::Epoch, brought, None, partitions);
            self.steps.push_back(Step::Walk(past(fallback, &foreign, most, true, wants)));
        }
        self.shorten(here, most);
    }

    /// One resume reads at most so many events; what is older is a gap.
    fn shorten(&mut self, here: &[Here], most: u64) {
        let from = self.seen.clone();
        let lag = |(at, (partition, mark)): (usize, &Here)| {
            // What is no longer kept is not read: that hole is told when the reading comes to it.
            let readable = from[at].position.max(partition.first() - 1);
            (mark.position.saturating_sub(readable), at)
        };
        let mut lags: Vec<(u64, usize)> = here.iter().enumerate().map(lag).collect();
        lags.sort_unstable();
        let (mut left, mut hole, mut cut, mut lanes) = (most, 0, Vec::new(), Vec::new());
        for (done, (lag, at)) in lags.iter().enumerate() {
            // What the shorter ones do not need, the longer ones may use.
            let share = (*lag).min(left / (lags.len() - done) as u64);
            left -= share;
            if share < *lag {
                let (partition, mark) = &here[*at];
                let to = mark.position - share;
                hole += to - from[*at].position;
                self.seen[*at].position = to;
                cut.push(mark.partition);
                lanes.push(Lane::new(partition, Some((0, to)), to, to));
            }
        }
        if !cut.is_empty() {
            self.gap(GapReason::Expired, Some(&from), Some(hole), cut);
            self.steps.push_back(Step::Walk(Walk::new(lanes)));
        }
    }

    /// Says what is missing before the place where the session is now.
    fn gap(&mut self, reason: GapReason, from: Option<&[Mark]>, hole: Option<u64>, partitions: Vec<u32>) {
        let (from, to) = (from.map(<[Mark]>::to_vec), self.seen.clone());
        self.steps.push_back(Step::Gap(Missing { reason, from, to, hole, partitions }));
    }

    fn catch_up(&mut self, here: &[Here]) {
        let lanes = here.iter().zip(&self.seen);
        self.lanes =
            lanes.map(|((partition, mark), seen)| Lane::new(partition, None, seen.position, mark.position)).collect();
    }

    /// Adds bytes behind everything but the catch-up.
    pub fn say(&mut self, bytes: Vec<u8>) {
        self.steps.push_back(Step::Say(bytes));
    }

    /// The session is told when it stands whole.
    pub fn announce(&mut self) {
        self.steps.push_back(Step::Open);
    }

    /// Puts bytes before everything.
    pub fn greet(&mut self, bytes: Vec<u8>) {
        self.steps.push_front(Step::Say(bytes));
    }

    /// Adds a walk through what a replay means at this place.
    pub fn replay(&mut self, replay: Replay, here: &[Here], most: u64, wants: Wants<'_>) {
        self.steps.push_back(Step::Walk(past(replay, here, most, false, wants)));
    }

    /// Adds the catch-up of one subscribe: what `only` matches and `except` did not, from a cursor to here.
    pub fn walk(&mut self, asked: &Asked<'_>, here: &[Here], most: u64, wants: Wants<'_>) {
        let Asked { brought, fallback, only, except } = *asked;
        let (mut lanes, mut gone, mut foreign) = (Vec::new(), Vec::new(), Vec::new());
        for (partition, mark) in here {
            let known = brought.and_then(|marks| marks.iter().find(|m| m.partition == mark.partition));
            let Some(after) = known.and_then(|mark| partition.resolve(mark).known()) else {
                foreign.push((partition.clone(), *mark));
                continue;
            };
            let readable = after.max(mark.position.saturating_sub(most)).max(partition.first() - 1).min(mark.position);
            if readable > after {
                gone.push(mark.partition);
            }
            let retained = (readable > after).then_some((0, readable));
            lanes.push(Lane::new(partition, retained, readable, mark.position));
        }
        let hashes: Vec<u32> = foreign.iter().map(|(_, mark)| mark.partition).collect();
        for (reason, partitions) in [(GapReason::Epoch, hashes), (GapReason::Expired, gone)] {
            if !partitions.is_empty() {
                self.gap(reason, brought, None, partitions);
            }
        }
        let mut walk = Walk::new(lanes).of(only, except);
        walk.add(past(fallback, &foreign, most, true, &mut |event| walk.asks_for(event) && wants(event)));
        self.steps.push_back(Step::Walk(walk));
    }

    /// The endpoint reaches further now: partitions that are new to it are read from their beginning.
    pub fn widen(&mut self, here: &[Here]) {
        for (partition, mark) in here {
            if let Err(at) = self.seen.binary_search_by_key(&mark.partition, |seen| seen.partition) {
                let position = partition.first() - 1;
                self.seen.insert(at, Mark { position, ..*mark });
                self.lanes.insert(at, Lane::new(partition, None, position, mark.position));
            }
        }
    }

    /// The socket takes nothing more for now: what was read and not sent is let go, to be read again.
    pub fn rest(&mut self) {
        self.lanes.iter_mut().for_each(Lane::rest);
        for step in &mut self.steps {
            if let Step::Walk(walk) = step {
                walk.rest();
            }
        }
    }

    /// What comes next. `here` says how far the shard is now, in the order of `seen`.
    pub fn pull(&mut self, here: &[Here], wants: Wants<'_>) -> Pulled {
        let mut turn = TURN;
        while let Some(step) = self.steps.pop_front() {
            match step {
                Step::Say(bytes) => return Pulled::Say(bytes),
                Step::Gap(missing) => return Pulled::Gap(missing),
                Step::Open if !self.is_behind(here) => return Pulled::Open,
                Step::Open => {
                    self.steps.push_front(Step::Open);
                    break;
                }
                Step::Walk(mut walk) => {
                    if let Some(walked) = walk.next(&mut turn, wants) {
                        self.steps.push_front(Step::Walk(walk));
                        return self.walked(walked);
                    }
                }
            }
        }
        self.follow(here, turn, wants)
    }

    fn walked(&self, walked: Walked) -> Pulled {
        match walked {
            Walked::Event(event) => Pulled::Event(event, false),
            Walked::Pause => Pulled::Pause,
            Walked::Hole { from, partition } => Pulled::Gap(Missing {
                reason: GapReason::Expired,
                from: Some(from),
                to: self.seen.clone(),
                hole: None,
                partitions: vec![partition],
            }),
        }
    }

    /// Whether there is more to read at once.
    pub fn is_behind(&self, here: &[Here]) -> bool {
        self.lanes.iter().zip(here).any(|(lane, (_, mark))| lane.is_behind(mark.position))
    }

    /// The catch-up: everything after the session's own cursor, to where the shard is now.
    fn follow(&mut self, here: &[Here], mut turn: usize, wants: Wants<'_>) -> Pulled {
        for (lane, (_, mark)) in self.lanes.iter_mut().zip(here) {
            lane.until = lane.until.max(mark.position);
        }
        loop {
            let mut hole = None;
            for (at, lane) in self.lanes.iter_mut().enumerate() {
                if let Err(first) = lane.fill() {
                    hole.get_or_insert((at, first));
                }
            }
            // One hole at a time: its last values are told before the next one.
            let next = oldest(&self.lanes).filter(|&at| hole.is_none() || self.lanes[at].is_retained());
            let at = match (next, hole) {
                (Some(at), _) => at,
                (None, Some((at, first))) => return self.hole(at, first),
                (None, None) => break,
            };
            let Some((event, in_turn)) = self.lanes[at].take() else { break };
            if in_turn {
                self.seen[at].position = self.seen[at].position.max(event.position);
            }
            if wants(&event) {
                return Pulled::Event(event, in_turn);
            }
            turn -= 1;
            if turn == 0 {
                return Pulled::Pause;
            }
        }
        match self.lanes.iter().zip(here).all(|(lane, (_, mark))| lane.is_at(mark.position)) {
            _ if !self.steps.is_empty() => Pulled::Pause, // it stands whole, and is to hear so
            true => Pulled::Live,
            false => Pulled::Ahead,
        }
    }

    fn hole(&mut self, at: usize, first: u64) -> Pulled {
        let from = self.seen.clone();
        let hole = self.lanes[at].skip(first);
        self.seen[at].position += hole;
        let partitions = vec![self.seen[at].partition];
        let (from, hole, to) = (Some(from), Some(hole), self.seen.clone());
        Pulled::Gap(Missing { reason: GapReason::Expired, from, to, hole, partitions })
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
