//! The past of some partitions, read page by page: what is retained, then what is left of the log, oldest first. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use super::endpoint::Replay;
use super::search::{Found, Search};
use crate::cursor::Mark;
use crate::event::{Epoch, Event};
use crate::stream::{Page, Partition};
use crate::topic::Pattern;
use crate::wire::form::GapReason;

/// Events read from a partition at once.
pub(super) const PAGE: usize = 64;

/// A partition and where the shard stands in it, or where it ends.
#[derive(Clone)]
pub struct Here {
    /// The partition.
    pub partition: Arc<Partition>,
    /// The place.
    pub mark: Mark,
    /// How often the partition had turned when this was the place; `None` if it is not: the shard was moved, and has not
    /// been told.
    pub turns: Option<u64>,
}

/// Whether an event is for this session.
pub type Wants<'a> = &'a mut dyn FnMut(&Event) -> bool;

/// One partition of a walk or of the catch-up.
pub(super) struct Lane {
    partition: Arc<Partition>,
    /// Whose numbering the positions are.
    epoch: Epoch,
    /// How often the partition had turned when they were looked at last.
    turns: u64,
    /// Last values to be told before the log, `(after, until]`.
    retained: Option<(u64, u64)>,
    /// Last values are told: should older ones come back with another life, they are told again.
    pub valued: bool,
    after: u64,
    pub until: u64,
    /// It had come further than what is left, and that is still to be told: until then it goes no further.
    pub lost: bool,
    /// Read, not yet taken: the events after `after`, or of `retained`.
    page: VecDeque<Arc<Event>>,
}

/// Why there is no next event yet.
pub(super) enum Stop {
    /// Something is gone; the first position that can be read.
    Hole(u64),
    /// It is being fetched.
    Later,
    /// The partition turned: positions must be looked at again.
    Turned,
}

/// A walk out of turn, up to a fixed end.
pub(super) struct Walk {
    lanes: Vec<Lane>,
    /// What must be found first: from where on some lanes go, and whether their last values are told.
    search: Option<(Box<Search>, bool)>,
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
    /// A page is being fetched.
    Later,
    /// Events behind `from` are gone; or a source lost some with these topics.
    Hole {
        from: Vec<Mark>,
        partition: u32,
        reason: GapReason,
        lost: Option<Vec<Pattern>>,
    },
}

impl Here {
    /// The end of a partition, where the shard may not have come.
    pub fn at_head(partition: &Arc<Partition>) -> Here {
        Here::looked_up(partition, Epoch(0)).0
    }

    /// The same, and up to where positions of an epoch are still good.
    pub fn looked_up(partition: &Arc<Partition>, epoch: Epoch) -> (Here, Option<u64>) {
        let look = partition.look(epoch);
        let mark = Mark { partition: partition.place().hash, epoch: look.epoch, position: look.head };
        (Here { partition: partition.clone(), mark, turns: Some(look.turns) }, look.kept)
    }
}

impl Lane {
    /// `after` and `until` are positions of the same numbering as `here`.
    pub fn new(here: &Here, retained: Option<(u64, u64)>, after: u64, until: u64) -> Lane {
        let (partition, epoch) = (here.partition.clone(), here.mark.epoch);
        let turns = here.turns.unwrap_or(u64::MAX); // looked at before the first read
        let (valued, lost, page) = (retained.is_some(), false, VecDeque::new());
        Lane { partition, epoch, turns, retained, valued, after, until, lost, page }
    }

    /// Makes the next event visible.
    pub fn fill(&mut self) -> Result<(), Stop> {
        while self.page.is_empty() && !self.lost {
            let (mut page, mut read) = (Vec::new(), Page::Here);
            match self.retained {
                Some((after, until)) => self.partition.retained(after, until, PAGE, &mut page),
                None if self.after >= self.until => return Ok(()),
                None => read = self.partition.read(self.after, self.until, PAGE, &mut page),
            }
            if self.has_turned() {
                return Err(Stop::Turned);
            }
            match read {
                Page::Gone { first } => return Err(Stop::Hole(first)),
                Page::Later => return Err(Stop::Later),
                Page::Here if page.is_empty() && self.retained.take().is_none() => return Ok(()),
                Page::Here => self.page.extend(page),
            }
        }
        Ok(())
    }

    /// How often the partition had turned when its positions were looked at last.
    pub fn turns(&self) -> u64 {
        self.turns
    }

    /// Whether its positions must be looked at again.
    pub fn has_turned(&self) -> bool {
        self.partition.turns() != self.turns
    }

    /// Looks at its positions again: nothing lies behind what was lost.
    pub fn turn(&mut self) {
        let look = self.partition.look(self.epoch);
        (self.epoch, self.turns, self.page) = (look.epoch, look.turns, VecDeque::new());
        // Of a numbering that nobody knows any more nothing is left but what there is now.
        let kept = look.kept.unwrap_or(look.first - 1);
        if self.after > look.kept.unwrap_or(0) {
            (self.after, self.lost) = (kept, true);
        }
        self.until = self.until.min(kept);
        self.retained = (self.valued && !self.lost).then_some((0, self.after));
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
        self.after = next;
        self.tell_values();
        hole
    }

    /// All that is retained before its place is told next.
    pub fn tell_values(&mut self) {
        (self.retained, self.valued) = (Some((0, self.after)), true);
    }

    /// Where the shard is, if it is in the same life.
    pub fn goal(&self, here: &Here) -> Option<u64> {
        (here.turns == Some(self.turns)).then_some(here.mark.position)
    }

    /// Whether something is left before where the shard is, or before its own end, which may lie further on.
    pub fn is_behind(&self, here: &Here) -> bool {
        let until = self.goal(here).map_or(self.until, |goal| goal.max(self.until));
        self.after < until || self.lost || self.retained.is_some() || !self.page.is_empty()
    }

    /// Whether all is told up to where the shard is, and nothing after it.
    pub fn is_at(&self, here: &Here) -> bool {
        self.goal(here) == Some(self.after) && !self.is_behind(here)
    }

    /// Whether what comes next are last values.
    pub fn is_retained(&self) -> bool {
        self.retained.is_some()
    }

    /// Lets go of what was read ahead.
    pub fn rest(&mut self) {
        self.page = VecDeque::new();
    }

    /// How far it is.
    pub fn mark(&self) -> Mark {
        Mark { partition: self.partition.place().hash, epoch: self.epoch, position: self.after }
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
        Walk { lanes, search: None, only: None, except: Vec::new() }
    }

    /// On behalf of one subscribe.
    pub fn of(self, only: &[Pattern], except: &[Pattern]) -> Walk {
        Walk { only: Some(only.to_vec()), except: except.to_vec(), ..self }
    }

    /// Adds what a replay means, up to `here`. After a gap all last values come too, but for those in what is left.
    pub fn add(&mut self, replay: Replay, here: &[Here], most: u64, after_gap: bool) {
        let values = after_gap || replay == Replay::Retained;
        if let Replay::Newest(n) = replay {
            self.search = Some((Box::new(Search::new(n, here, most)), values));
            return;
        }
        let lane = |here: &Here| {
            let end = here.mark.position;
            Lane::new(here, values.then_some((0, end)), end, end)
        };
        self.lanes.extend(here.iter().map(lane));
    }

    pub fn rest(&mut self) {
        self.lanes.iter_mut().for_each(Lane::rest);
        if let Some((search, _)) = &mut self.search {
            search.rest();
        }
    }

    pub fn next(&mut self, turn: &mut usize, wants: Wants<'_>) -> Option<Walked> {
        if let Some((search, values)) = &mut self.search {
            match search.next(turn, &mut |event| asks_for(&self.only, &self.except, event) && wants(event)) {
                Some(Found::Later) => return Some(Walked::Later),
                Some(Found::Pause | Found::Event(_)) => return Some(Walked::Pause),
                None => self.lanes.extend(search.lanes(*values)),
            }
            self.search = None;
        }
        loop {
            let mut later = false;
            for at in 0..self.lanes.len() {
                match self.fill(at) {
                    Some(Walked::Later) => later = true,
                    Some(hole) => return Some(hole),
                    None => {}
                }
            }
            let next = oldest(&self.lanes).filter(|&at| !later || self.lanes[at].is_retained());
            let Some(at) = next else { return later.then_some(Walked::Later) };
            let (event, _) = self.lanes[at].take()?;
            match event.lost() {
                Some(lost) => {
                    if let Some(gap) = self.gap(at, &event, &lost) {
                        return Some(gap);
                    }
                }
                None if asks_for(&self.only, &self.except, &event) && wants(&event) => {
                    return Some(Walked::Event(event));
                }
                None => {}
            }
            *turn -= 1;
            if *turn == 0 {
                return Some(Walked::Pause);
            }
        }
    }

    /// Makes the next event of a lane visible, or says why there is none.
    fn fill(&mut self, at: usize) -> Option<Walked> {
        loop {
            match self.lanes[at].fill() {
                Ok(()) => return None,
                Err(Stop::Later) => return Some(Walked::Later),
                Err(Stop::Turned) => {
                    self.lanes[at].turn();
                    self.lanes[at].lost = false; // which the session is told in its turn
                }
                Err(Stop::Hole(first)) => {
                    let (from, partition) = (self.marks(), self.lanes[at].mark().partition);
                    self.lanes[at].skip(first);
                    if self.only.is_some() {
                        return Some(Walked::Hole { from, partition, reason: GapReason::Expired, lost: None });
                    }
                    (self.lanes[at].retained, self.lanes[at].valued) = (None, false); // nothing was promised
                }
            }
        }
    }

    /// A source lost something here. A replay promised nothing, and says nothing of it.
    fn gap(&self, at: usize, event: &Event, lost: &[Pattern]) -> Option<Walked> {
        let concerned = |pattern: &&Pattern| lost.iter().any(|lost| lost.overlaps(pattern));
        let lost: Vec<Pattern> = self.only.as_ref()?.iter().filter(concerned).cloned().collect();
        let (mut from, partition) = (self.marks(), self.lanes[at].mark().partition);
        from.iter_mut().filter(|mark| mark.partition == partition).for_each(|mark| mark.position = event.position - 1);
        let reason = reason(event);
        (!lost.is_empty()).then_some(Walked::Hole { from, partition, reason, lost: Some(lost) })
    }

    /// How far it is, as a cursor.
    fn marks(&self) -> Vec<Mark> {
        let mut marks: Vec<Mark> = self.lanes.iter().map(Lane::mark).collect();
        marks.sort_unstable();
        marks
    }
}

/// Why events are missing where a gap stands in a log.
pub fn reason(gap: &Event) -> GapReason {
    if gap.lost_a_life() { GapReason::Epoch } else { GapReason::Source }
}

/// Whether a topic is meant.
fn asks_for(only: &Option<Vec<Pattern>>, except: &[Pattern], event: &Event) -> bool {
    let among = |patterns: &[Pattern]| patterns.iter().any(|p| p.matches(event.topic.as_str()));
    only.as_deref().is_none_or(among) && !among(except)
}
