//! The past of some partitions, read page by page: what is retained, then what is left of the log, oldest first. Pure.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::endpoint::Replay;
use crate::cursor::Mark;
use crate::event::Event;
use crate::stream::{Page, Partition};
use crate::topic::Pattern;

/// Events read from a partition at once.
const PAGE: usize = 64;

/// A partition and where the shard stands in it.
pub type Here = (Arc<Partition>, Mark);

/// Whether an event is for this session.
pub type Wants<'a> = &'a mut dyn FnMut(&Event) -> bool;

/// One partition of a walk or of the catch-up.
pub(super) struct Lane {
    partition: Arc<Partition>,
    /// Last values to be told before the log, `(after, until]`.
    retained: Option<(u64, u64)>,
    after: u64,
    pub until: u64,
    /// Read, not yet taken: the events after `after`, or of `retained`.
    page: VecDeque<Arc<Event>>,
}

/// A walk out of turn, up to a fixed end.
pub(super) struct Walk {
    lanes: Vec<Lane>,
    /// Only these, and not those (which the session has heard already). It then goes on from a cursor: what is lost under
    /// way is told.
    only: Option<Vec<Pattern>>,
    except: Vec<Pattern>,
}

/// What a walk comes upon.
pub(super) enum Walked {
    Event(Arc<Event>),
    /// Enough for one turn.
    Pause,
    /// Events behind `from` are gone.
    Hole {
        from: Vec<Mark>,
        partition: u32,
    },
}

impl Lane {
    pub fn new(partition: &Arc<Partition>, retained: Option<(u64, u64)>, after: u64, until: u64) -> Lane {
        Lane { partition: partition.clone(), retained, after, until, page: VecDeque::new() }
    }

    /// Makes the next event visible. `Err` is a hole: the first position that can be read.
    pub fn fill(&mut self) -> Result<(), u64> {
        while self.page.is_empty() {
            let mut page = Vec::new();
            if let Some((after, until)) = self.retained {
                self.partition.retained(after, until, PAGE, &mut page);
                if page.is_empty() {
                    self.retained = None;
                }
            } else if self.after >= self.until {
                return Ok(());
            } else if let Page::Gone { first } = self.partition.read(self.after, self.until, PAGE, &mut page) {
                return Err(first);
            } else if page.is_empty() {
                return Ok(());
            }
            self.page.extend(page);
        }
        Ok(())
    }

    /// The next event, and whether it comes in its turn.
    pub fn take(&mut self) -> Option<(Arc<Event>, bool)> {
        let event = self.page.pop_front()?;
        match &mut self.retained {
            Some((after, _)) => *after = event.position,
            None => self.after = event.position,
        }
        Some((event, self.retained.is_none()))
    }

    /// Goes over a hole, in front of which all that is retained is told. Returns how wide it is.
    pub fn skip(&mut self, first: u64) -> u64 {
        let next = (first - 1).min(self.until);
        let hole = next - self.after;
        (self.retained, self.after) = (Some((0, next)), next);
        hole
    }

    /// Whether something is left before this position, or before its own end, which may lie further on.
    pub fn is_behind(&self, position: u64) -> bool {
        self.after < position.max(self.until) || self.retained.is_some() || !self.page.is_empty()
    }

    /// Whether all is told up to this position, and nothing after it.
    pub fn is_at(&self, position: u64) -> bool {
        self.after == position && !self.is_behind(position)
    }

    /// Whether what comes next are last values.
    pub fn is_retained(&self) -> bool {
        self.retained.is_some()
    }

    /// Lets go of what was read ahead.
    pub fn rest(&mut self) {
        self.page = VecDeque::new();
    }

    fn mark(&self) -> Mark {
        Mark { partition: self.partition.place().hash, epoch: self.partition.head().0, position: self.after }
    }
}

/// Of the lanes with something to tell, the one whose next event is the oldest. What is retained goes first: a cursor
/// that has passed a gap says that its last values were told.
pub(super) fn oldest(lanes: &[Lane]) -> Option<usize> {
    let heads =
        lanes.iter().enumerate().filter_map(|(at, lane)| Some((!lane.is_retained(), lane.page.front()?.time, at)));
    heads.min().map(|(_, _, at)| at)
}

impl Walk {
    pub fn new(lanes: Vec<Lane>) -> Walk {
        Walk { lanes, only: None, except: Vec::new() }
    }

    /// On behalf of one subscribe.
    pub fn of(self, only: &[Pattern], except: &[Pattern]) -> Walk {
        Walk { only: Some(only.to_vec()), except: except.to_vec(), ..self }
    }

    /// Takes over the lanes of another.
    pub fn add(&mut self, other: Walk) {
        self.lanes.extend(other.lanes);
    }

    /// Whether a topic is meant.
    pub fn asks_for(&self, event: &Event) -> bool {
        let among = |patterns: &[Pattern]| patterns.iter().any(|p| p.matches(event.topic.as_str()));
        self.only.as_deref().is_none_or(among) && !among(&self.except)
    }

    pub fn rest(&mut self) {
        self.lanes.iter_mut().for_each(Lane::rest);
    }

    pub fn next(&mut self, turn: &mut usize, wants: Wants<'_>) -> Option<Walked> {
        loop {
            for at in 0..self.lanes.len() {
                while let Err(first) = self.lanes[at].fill() {
                    let from: Vec<Mark> = self.lanes.iter().map(Lane::mark).collect();
                    let partition = from[at].partition;
                    self.lanes[at].skip(first);
                    if self.only.is_some() {
                        return Some(Walked::Hole { from, partition });
                    }
                    self.lanes[at].retained = None; // nothing was promised: what is left goes on
                }
            }
            let at = oldest(&self.lanes)?;
            let (event, _) = self.lanes[at].take()?;
            if self.asks_for(&event) && wants(&event) {
                return Some(Walked::Event(event));
            }
            *turn -= 1;
            if *turn == 0 {
                return Some(Walked::Pause);
            }
        }
    }
}

/// The walk that a replay means, up to `here`. After a gap all last values come too, but for those in what is left.
pub(super) fn past(replay: Replay, here: &[Here], most: u64, after_gap: bool, wants: Wants<'_>) -> Walk {
    let starts = match replay {
        Replay::Newest(n) => newest(n, here, most, wants),
        Replay::None | Replay::Retained => here.iter().map(|(_, mark)| mark.position).collect(),
    };
    let values = after_gap || replay == Replay::Retained;
    let lanes = here
        .iter()
        .zip(starts)
        .map(|((partition, mark), start)| Lane::new(partition, values.then_some((0, start)), start, mark.position));
    Walk::new(lanes.collect())
}

/// Behind which position of each partition the newest `n` wanted events of all lie.
fn newest(n: u64, here: &[Here], most: u64, wants: Wants<'_>) -> Vec<u64> {
    let budget = most / here.len().max(1) as u64;
    let mut found = Vec::new();
    for (at, (partition, mark)) in here.iter().enumerate() {
        let mut hits = 0;
        back(partition, mark.position, budget, &mut |event| {
            if wants(event) {
                found.push((event.time, event.position, at));
                hits += 1;
            }
            hits < n
        });
    }
    found.sort_unstable();
    let kept = found.split_off(found.len().saturating_sub(n as usize));
    let mut starts: Vec<u64> = here.iter().map(|(_, mark)| mark.position).collect();
    for (_, position, at) in kept {
        starts[at] = starts[at].min(position - 1);
    }
    starts
}

/// The newest event of each topic that `wants` says yes to, up to where a session has read: what a paced session begins
/// with after a resume, because it may have been held back when the session was lost.
pub fn newest_of_each(here: &[Here], seen: &[Mark], most: u64, wants: Wants<'_>) -> Vec<Arc<Event>> {
    let mut events: Vec<Arc<Event>> = Vec::new();
    for ((partition, _), seen) in here.iter().zip(seen) {
        let mut topics = HashSet::new();
        back(partition, seen.position, most / here.len().max(1) as u64, &mut |event| {
            if wants(event) && topics.insert(event.topic.clone()) {
                events.push(event.clone());
            }
            true
        });
    }
    events
}

/// Reads a partition backwards, at most `most` events, as long as `each` wants to go on.
fn back(partition: &Partition, mut until: u64, most: u64, each: &mut dyn FnMut(&Arc<Event>) -> bool) {
    let mut left = most;
    while until > 0 && left > 0 {
        let mut page = Vec::new();
        partition.read_back(until, PAGE.min(left as usize), &mut page);
        let Some(last) = page.last() else { return };
        (until, left) = (last.position - 1, left - page.len() as u64);
        for event in &page {
            if !each(event) {
                return;
            }
        }
    }
}
