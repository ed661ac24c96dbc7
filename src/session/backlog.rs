//! What a session still has to be sent before it is live: said things, gaps, a walk through the past, the catch-up to
//! the shard's own position. Pulled step by step as the socket drains, so it needs no buffer of its own. Pure.

mod begin;

use std::collections::VecDeque;
use std::sync::Arc;

use super::endpoint::Replay;
use super::past::{Here, Lane, Stop, Walk, Walked, Wants, oldest, reason};
use super::search::{Found, Topics};
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
    /// The newest event of a topic, which the session has perhaps seen before.
    Newest(Arc<Event>),
    /// Bytes for this session alone.
    Say(Vec<u8>),
    /// Events are gone.
    Gap(Missing),
    /// The session stands whole.
    Open,
    /// Others first; there is more.
    Pause,
    /// Nothing until a page came that is being fetched.
    Later,
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
    /// Which topics it can concern, if that is known.
    pub lost: Option<Vec<Pattern>>,
}

enum Step {
    Say(Vec<u8>),
    Gap(Missing),
    Topics(Topics),
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

    /// The socket takes nothing more for now: what was read and not sent is let go, to be read again.
    pub fn rest(&mut self) {
        self.lanes.iter_mut().for_each(Lane::rest);
        for step in &mut self.steps {
            match step {
                Step::Walk(walk) => walk.rest(),
                Step::Topics(topics) => topics.rest(),
                Step::Say(_) | Step::Gap(_) | Step::Open => {}
            }
        }
    }

    /// The session's cursor, if it is true now that everything before it was sent.
    pub fn cursor(&self) -> Option<&[Mark]> {
        let only_words = self.steps.iter().all(|step| matches!(step, Step::Say(_) | Step::Open));
        (only_words && !self.lanes.iter().any(Lane::is_retained)).then_some(&self.seen)
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
                Step::Topics(mut topics) => {
                    if let Some(found) = topics.next(&mut turn, wants) {
                        self.steps.push_front(Step::Topics(topics));
                        return match found {
                            Found::Event(event) => Pulled::Newest(event),
                            Found::Pause => Pulled::Pause,
                            Found::Later => Pulled::Later,
                        };
                    }
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
            Walked::Later => Pulled::Later,
            Walked::Hole { from, partition, reason, lost } => Pulled::Gap(Missing {
                reason,
                from: Some(from),
                to: self.seen.clone(),
                hole: None,
                partitions: vec![partition],
                lost,
            }),
        }
    }

    /// Whether there is more to read at once.
    pub fn is_behind(&self, here: &[Here]) -> bool {
        self.lanes.iter().zip(here).any(|(lane, here)| lane.is_behind(here))
    }

    /// The catch-up: everything after the session's own cursor, to where the shard is now.
    fn follow(&mut self, here: &[Here], mut turn: usize, wants: Wants<'_>) -> Pulled {
        for ((lane, seen), here) in self.lanes.iter_mut().zip(&mut self.seen).zip(here) {
            if here.turns != Some(lane.turns()) && lane.has_turned() {
                lane.turn();
                *seen = if lane.lost { *seen } else { lane.mark() };
            }
            lane.until = lane.goal(here).map_or(lane.until, |goal| goal.max(lane.until));
        }
        loop {
            let (mut hole, mut later) = (None, false);
            for (at, lane) in self.lanes.iter_mut().enumerate() {
                match lane.fill() {
                    Ok(()) => {}
                    Err(Stop::Hole(first)) => hole = hole.or(Some((at, first))),
                    Err(Stop::Later) => later = true,
                    Err(Stop::Turned) => return Pulled::Pause, // that is looked at first of all
                }
            }
            // One hole at a time: its last values are told before the next one.
            let lost = self.lanes.iter().any(|lane| lane.lost);
            let free = hole.is_none() && !later && !lost;
            let next = oldest(&self.lanes).filter(|&at| free || self.lanes[at].is_retained());
            let at = match (next, hole) {
                (Some(at), _) => at,
                (None, _) if lost => return self.lost(),
                (None, Some((at, first))) => return self.hole(at, first),
                (None, None) if later => return Pulled::Later,
                (None, None) => break,
            };
            let Some((event, in_turn)) = self.lanes[at].take() else { break };
            if let Some(lost) = event.lost() {
                return self.passed(at, reason(&event), lost);
            }
            if in_turn {
                self.seen[at] = self.lanes[at].mark();
            }
            if wants(&event) {
                return Pulled::Event(event, in_turn);
            }
            turn -= 1;
            if turn == 0 {
                return Pulled::Pause;
            }
        }
        self.end(here)
    }

    /// All is read that there is up to where the shard stands.
    fn end(&self, here: &[Here]) -> Pulled {
        let mut lanes = self.lanes.iter().zip(here);
        match lanes.clone().all(|(lane, here)| lane.is_at(here)) {
            _ if !self.steps.is_empty() => Pulled::Pause, // it stands whole, and is to hear so
            true => Pulled::Live,
            // A partition turned just now, and `here` is from before.
            false if lanes.any(|(lane, here)| here.turns.is_some() && lane.goal(here).is_none()) => Pulled::Pause,
            false => Pulled::Ahead,
        }
    }

    /// Partitions turned, and this session had come further than what is left.
    fn lost(&mut self) -> Pulled {
        let (from, mut partitions) = (Some(self.seen.clone()), Vec::new());
        for (lane, seen) in self.lanes.iter_mut().zip(&mut self.seen).filter(|(lane, _)| lane.lost) {
            lane.lost = false;
            lane.tell_values();
            *seen = lane.mark();
            partitions.push(seen.partition);
        }
        let to = self.seen.clone();
        Pulled::Gap(Missing { reason: GapReason::Epoch, from, to, hole: None, partitions, lost: None })
    }

    fn hole(&mut self, at: usize, first: u64) -> Pulled {
        let from = Some(self.seen.clone());
        let hole = Some(self.lanes[at].skip(first));
        self.seen[at] = self.lanes[at].mark();
        let (to, partitions) = (self.seen.clone(), vec![self.seen[at].partition]);
        Pulled::Gap(Missing { reason: GapReason::Expired, from, to, hole, partitions, lost: None })
    }

    /// A source lost something at the place that was just passed.
    fn passed(&mut self, at: usize, reason: GapReason, lost: Vec<Pattern>) -> Pulled {
        let from = Some(self.seen.clone());
        self.seen[at] = self.lanes[at].mark();
        let (to, partitions) = (self.seen.clone(), vec![self.seen[at].partition]);
        Pulled::Gap(Missing { reason, from, to, hole: None, partitions, lost: Some(lost) })
    }
}

#[cfg(test)]
mod lives;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
