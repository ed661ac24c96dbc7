//! What a session still has to be sent before it is live: said things, gaps, a walk through the past, the catch-up to
//! the shard's own position. Pulled step by step as the socket drains, so it needs no buffer of its own. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use super::endpoint::Replay;
use super::terms::Begin;
use crate::cursor::Mark;
use crate::event::Event;
use crate::stream::{Page, Partition};
use crate::topic::Pattern;
use crate::wire::form::GapReason;

/// Events read from a partition at once.
const PAGE: usize = 64;
/// Events looked at in one pull, sent or not, before others get their turn.
const TURN: usize = 1024;

/// A partition and where the shard stands in it.
pub type Here = (Arc<Partition>, Mark);

/// What comes next.
#[derive(Debug)]
pub enum Pulled {
    /// An event; in its turn (with a cursor) or out of it.
    Event(Arc<Event>, bool),
    /// Bytes for this session alone.
    Say(Vec<u8>),
    /// Events are gone. The marks are the cursors around the hole; the partitions are those it lies in.
    Gap {
        /// Why.
        reason: GapReason,
        /// Before it; `None` if the session brought nothing readable.
        from: Option<Vec<Mark>>,
        /// How many positions, if it is known.
        hole: Option<u64>,
        /// Which partitions, by hash.
        partitions: Vec<u32>,
    },
    /// The session stands whole.
    Open,
    /// Others first; there is more.
    Pause,
    /// Nothing until the shard moves on: this session is ahead of it.
    Ahead,
    /// Live from here.
    Live,
}

enum Step {
    Say(Vec<u8>),
    Gap(GapReason, Option<Vec<Mark>>, Vec<u32>),
    Walk(Walk),
    Open,
}

/// A walk out of turn, up to a fixed end.
struct Walk {
    lanes: Vec<Lane>,
    /// Only these, and not those (which the session has heard already).
    only: Option<Vec<Pattern>>,
    except: Vec<Pattern>,
}

/// One partition of a walk or of the catch-up.
struct Lane {
    partition: Arc<Partition>,
    /// Last values to be told before the log, `(after, until]`.
    retained: Option<(u64, u64)>,
    after: u64,
    until: u64,
    page: VecDeque<Arc<Event>>,
}

/// Everything before live.
pub struct Backlog {
    steps: VecDeque<Step>,
    lanes: Vec<Lane>,
    /// How far this session has read, for the partitions of its reach, sorted: its own cursor.
    pub seen: Vec<Mark>,
}

/// Whether an event is for this session.
pub type Wants<'a> = &'a mut dyn FnMut(&Event) -> bool;

impl Lane {
    fn new(partition: &Arc<Partition>, retained: Option<(u64, u64)>, after: u64, until: u64) -> Lane {
        Lane { partition: partition.clone(), retained, after, until, page: VecDeque::new() }
    }

    /// Makes the next event visible. `Err` is a hole: the first position that can be read.
    fn fill(&mut self) -> Result<(), u64> {
        while self.page.is_empty() {
            let mut page = Vec::new();
            if let Some((after, until)) = self.retained {
                self.partition.retained(after, until, PAGE, &mut page);
                self.retained = page.last().map(|last| (last.position, until));
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

    fn take(&mut self) -> Option<Arc<Event>> {
        let event = self.page.pop_front()?;
        if self.retained.is_none() {
            self.after = self.after.max(event.position);
        }
        Some(event)
    }
}

/// Of the lanes with something to tell, the one whose next event is the oldest.
fn oldest(lanes: &[Lane]) -> Option<usize> {
    let heads = lanes.iter().enumerate().filter_map(|(at, lane)| Some((lane.page.front()?.time, at)));
    heads.min().map(|(_, at)| at)
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
            match known.and_then(|mark| partition.resolve(mark)) {
                Some(position) => seen.position = position,
                None => foreign.push((partition.clone(), *mark)),
            }
        }
        if !foreign.is_empty() {
            let hashes = foreign.iter().map(|(_, mark)| mark.partition).collect();
            self.steps.push_back(Step::Gap(GapReason::Epoch, brought.map(<[Mark]>::to_vec), hashes));
            self.steps.push_back(Step::Walk(past(fallback, &foreign, most, true, wants)));
        }
        self.shorten(here, most);
    }

    /// One resume reads at most so many events; what is older is a gap.
    fn shorten(&mut self, here: &[Here], most: u64) {
        let from = self.seen.clone();
        let mut lags: Vec<(u64, usize)> = Vec::new();
        for (at, (_, mark)) in here.iter().enumerate() {
            lags.push((mark.position.saturating_sub(self.seen[at].position), at));
        }
        lags.sort_unstable();
        let (mut left, mut cut) = (most, Vec::new());
        for (done, (lag, at)) in lags.iter().enumerate() {
            // What the shorter ones do not need, the longer ones may use.
            let share = lag.min(&(left / (lags.len() - done) as u64)).to_owned();
            left -= share;
            if share < *lag {
                self.seen[*at].position = here[*at].1.position - share;
                cut.push(self.seen[*at].partition);
            }
        }
        if !cut.is_empty() {
            self.steps.push_back(Step::Gap(GapReason::Expired, Some(from.clone()), cut.clone()));
            let lanes = here.iter().zip(&from).zip(&self.seen);
            let lanes =
                lanes.filter(|((_, from), _)| cut.contains(&from.partition)).map(|(((partition, _), _), to)| {
                    Lane::new(partition, Some((0, to.position)), to.position, to.position)
                });
            self.steps.push_back(Step::Walk(Walk { lanes: lanes.collect(), only: None, except: Vec::new() }));
        }
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
    pub fn walk(&mut self, brought: Option<&[Mark]>, here: &[Here], most: u64, only: &[Pattern], except: &[Pattern]) {
        let (mut lanes, mut gone, mut foreign) = (Vec::new(), Vec::new(), Vec::new());
        for (partition, mark) in here {
            let known = brought.and_then(|marks| marks.iter().find(|m| m.partition == mark.partition));
            let Some(after) = known.and_then(|mark| partition.resolve(mark)) else {
                foreign.push(mark.partition);
                lanes.push(Lane::new(partition, Some((0, mark.position)), mark.position, mark.position));
                continue;
            };
            let readable = after.max(mark.position.saturating_sub(most)).max(partition.first() - 1).min(mark.position);
            if readable > after {
                gone.push(mark.partition);
            }
            let retained = (readable > after).then_some((0, readable));
            lanes.push(Lane::new(partition, retained, readable, mark.position));
        }
        for (reason, partitions) in [(GapReason::Epoch, foreign), (GapReason::Expired, gone)] {
            if !partitions.is_empty() {
                self.steps.push_back(Step::Gap(reason, brought.map(<[Mark]>::to_vec), partitions));
            }
        }
        self.steps.push_back(Step::Walk(Walk { lanes, only: Some(only.to_vec()), except: except.to_vec() }));
    }

    /// What comes next. `here` says how far the shard is now, in the order of `seen`.
    pub fn pull(&mut self, here: &[Here], wants: Wants<'_>) -> Pulled {
        let mut turn = TURN;
        while let Some(step) = self.steps.pop_front() {
            match step {
                Step::Say(bytes) => return Pulled::Say(bytes),
                Step::Gap(reason, from, partitions) => return Pulled::Gap { reason, from, hole: None, partitions },
                Step::Open if !self.is_behind(here) => return Pulled::Open,
                Step::Open => {
                    self.steps.push_front(Step::Open);
                    break;
                }
                Step::Walk(mut walk) => {
                    if let Some(pulled) = walk.next(&mut turn, wants) {
                        self.steps.push_front(Step::Walk(walk));
                        return pulled;
                    }
                }
            }
        }
        self.follow(here, turn, wants)
    }

    /// Whether there is more to read at once.
    pub fn is_behind(&self, here: &[Here]) -> bool {
        let lanes = self.lanes.iter().zip(here);
        lanes.into_iter().any(|(lane, (_, mark))| !lane.page.is_empty() || lane.after < mark.position.max(lane.until))
    }

    fn caught_up(&self, here: &[Here]) -> bool {
        self.lanes
            .iter()
            .zip(here)
            .all(|(lane, (_, mark))| lane.after == mark.position && lane.retained.is_none() && lane.page.is_empty())
    }

    /// The catch-up: everything after the session's own cursor, to where the shard is now.
    fn follow(&mut self, here: &[Here], mut turn: usize, wants: Wants<'_>) -> Pulled {
        for (lane, (_, mark)) in self.lanes.iter_mut().zip(here) {
            lane.until = lane.until.max(mark.position);
        }
        loop {
            for at in 0..self.lanes.len() {
                if let Err(first) = self.lanes[at].fill() {
                    return self.hole(at, first);
                }
            }
            let Some(at) = oldest(&self.lanes) else { break };
            let in_turn = self.lanes[at].retained.is_none();
            let Some(event) = self.lanes[at].take() else { break };
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
        match (self.caught_up(here), self.steps.is_empty()) {
            (true, true) => Pulled::Live,
            (true, false) => Pulled::Pause,
            (false, _) => Pulled::Ahead,
        }
    }

    fn hole(&mut self, at: usize, first: u64) -> Pulled {
        let from = self.seen.clone();
        let lane = &mut self.lanes[at];
        let (before, next) = (lane.after, (first - 1).min(lane.until));
        lane.retained = Some((0, next));
        lane.after = next;
        self.seen[at].position = next;
        let partitions = vec![self.seen[at].partition];
        Pulled::Gap { reason: GapReason::Expired, from: Some(from), hole: Some(next - before), partitions }
    }
}

impl Walk {
    fn next(&mut self, turn: &mut usize, wants: Wants<'_>) -> Option<Pulled> {
        loop {
            for lane in &mut self.lanes {
                while let Err(first) = lane.fill() {
                    lane.after = first - 1; // out of turn nothing was promised: go on with what is left
                }
            }
            let at = oldest(&self.lanes)?;
            let event = self.lanes[at].take()?;
            let asked = self.only.as_ref().is_none_or(|only| only.iter().any(|p| p.matches(event.topic.as_str())));
            let heard = self.except.iter().any(|p| p.matches(event.topic.as_str()));
            if asked && !heard && wants(&event) {
                return Some(Pulled::Event(event, false));
            }
            *turn -= 1;
            if *turn == 0 {
                *turn = TURN;
                return Some(Pulled::Pause);
            }
        }
    }
}

/// The walk that a replay means, up to `here`. After a gap the last values come too, as far as the rest lacks them.
fn past(replay: Replay, here: &[Here], most: u64, after_gap: bool, wants: Wants<'_>) -> Walk {
    let starts = match replay {
        Replay::Newest(n) => newest(n, here, most, wants),
        Replay::None | Replay::Retained => here.iter().map(|(_, mark)| mark.position).collect(),
    };
    let values = after_gap || replay == Replay::Retained;
    let lanes = here
        .iter()
        .zip(starts)
        .map(|((partition, mark), start)| Lane::new(partition, values.then_some((0, start)), start, mark.position));
    Walk { lanes: lanes.collect(), only: None, except: Vec::new() }
}

/// Behind which position of each partition the newest `n` wanted events of all lie.
fn newest(n: u64, here: &[Here], most: u64, wants: Wants<'_>) -> Vec<u64> {
    let budget = most / here.len().max(1) as u64;
    let mut found = Vec::new();
    for (at, (partition, mark)) in here.iter().enumerate() {
        let (mut until, mut left, mut hits) = (mark.position, budget, 0);
        while until > 0 && left > 0 && hits < n {
            let mut page = Vec::new();
            partition.read_back(until, PAGE.min(left as usize), &mut page);
            let Some(last) = page.last() else { break };
            (until, left) = (last.position - 1, left - page.len() as u64);
            for event in page.iter().filter(|event| wants(event)) {
                found.push((event.time, event.position, at));
                hits += 1;
            }
        }
    }
    found.sort_unstable();
    let kept = found.split_off(found.len().saturating_sub(n as usize));
    let mut starts: Vec<u64> = here.iter().map(|(_, mark)| mark.position).collect();
    for (_, position, at) in kept {
        starts[at] = starts[at].min(position - 1);
    }
    starts
}

/// The newest event of each topic that `paced` says yes to, up to where a session has read: what a paced session begins
/// with after a resume, because it may have been held back when the session was lost.
pub fn newest_of_each(here: &[Here], seen: &[Mark], most: u64, wants: Wants<'_>) -> Vec<Arc<Event>> {
    let mut events: Vec<Arc<Event>> = Vec::new();
    for ((partition, _), seen) in here.iter().zip(seen) {
        let mut topics = std::collections::HashSet::new();
        let (mut until, mut left) = (seen.position, most / here.len().max(1) as u64);
        while until > 0 && left > 0 {
            let mut page = Vec::new();
            partition.read_back(until, PAGE.min(left as usize), &mut page);
            let Some(last) = page.last() else { break };
            (until, left) = (last.position - 1, left - page.len() as u64);
            events.extend(page.into_iter().filter(|event| wants(event) && topics.insert(event.topic.clone())));
        }
    }
    events
}
