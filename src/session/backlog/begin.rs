//! Where a backlog begins: what a cursor means by now, and what comes before the catch-up.

use super::*;
use crate::session::terms::Begin;
use crate::stream::{Partition, Resolved};

/// What a cursor says of a partition.
fn of(brought: Option<&[Mark]>, partition: u32) -> Option<Mark> {
    brought.and_then(|marks| marks.iter().find(|mark| mark.partition == partition)).copied()
}

impl Backlog {
    /// Of a session that begins. It catches up to the end of each partition of its reach: whoever was told that an event is
    /// stored finds it, even if the shard has not come so far.
    pub fn begin(begin: &Begin, fallback: Replay, reach: &[Arc<Partition>], most: u64) -> Backlog {
        let mut here: Vec<Here> = reach.iter().map(Here::at_head).collect();
        let mut backlog = Backlog::again(&here);
        match begin {
            Begin::Fresh(replay) => {
                let mut walk = Walk::new(Vec::new());
                walk.add(*replay, &here, most, false);
                backlog.steps.push_back(Step::Walk(walk));
            }
            Begin::After(brought) => backlog.resume(brought.as_deref(), fallback, &mut here, most),
        }
        backlog.catch_up(&here);
        backlog
    }

    /// Of a session that stands here: it asked for some of the past again, or its place changed.
    pub fn again(here: &[Here]) -> Backlog {
        let seen = here.iter().map(|one| one.mark).collect();
        let mut backlog = Backlog { steps: VecDeque::new(), lanes: Vec::new(), seen };
        backlog.catch_up(here);
        backlog
    }

    fn resume(&mut self, brought: Option<&[Mark]>, fallback: Replay, here: &mut [Here], most: u64) {
        let (mut lost, mut foreign, mut partitions) = (Vec::new(), Vec::new(), Vec::new());
        for (here, seen) in here.iter_mut().zip(&mut self.seen) {
            let mut resolved = Resolved::Unknown;
            if let Some(mark) = of(brought, seen.partition) {
                let (now, kept) = Here::looked_up(&here.partition, mark.epoch);
                (*here, *seen, resolved) = (now.clone(), now.mark, Resolved::of(mark.position, kept));
            }
            match resolved {
                Resolved::At(position) => {
                    seen.position = position;
                    continue;
                }
                Resolved::Lost(position) => {
                    seen.position = position;
                    lost.push(Lane::new(here, Some((0, position)), position, position));
                }
                Resolved::Unknown => foreign.push(here.clone()),
            }
            partitions.push(seen.partition);
        }
        if !partitions.is_empty() {
            self.gap(GapReason::Epoch, brought, None, partitions);
            let mut walk = Walk::new(lost);
            walk.add(fallback, &foreign, most, true);
            self.steps.push_back(Step::Walk(walk));
        }
        self.shorten(here, most);
    }

    /// One resume reads at most so many events; what is older is a gap.
    fn shorten(&mut self, here: &[Here], most: u64) {
        let from = self.seen.clone();
        let lag = |(at, here): (usize, &Here)| {
            // What is no longer kept is not read: that hole is told when the reading comes to it.
            let readable = from[at].position.max(here.partition.first() - 1);
            (here.mark.position.saturating_sub(readable), at)
        };
        let mut lags: Vec<(u64, usize)> = here.iter().enumerate().map(lag).collect();
        lags.sort_unstable();
        let (mut left, mut hole, mut cut, mut lanes) = (most, 0, Vec::new(), Vec::new());
        for (done, (lag, at)) in lags.iter().enumerate() {
            // What the shorter ones do not need, the longer ones may use.
            let share = (*lag).min(left / (lags.len() - done) as u64);
            left -= share;
            if share < *lag {
                let here = &here[*at];
                let to = here.mark.position - share;
                hole += to - from[*at].position;
                self.seen[*at].position = to;
                cut.push(here.mark.partition);
                lanes.push(Lane::new(here, Some((0, to)), to, to));
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
        self.steps.push_back(Step::Gap(Missing { reason, from, to, hole, partitions, lost: None }));
    }

    fn catch_up(&mut self, here: &[Here]) {
        let lanes = here.iter().zip(&self.seen);
        self.lanes = lanes.map(|(here, seen)| Lane::new(here, None, seen.position, here.mark.position)).collect();
        let gaps =
            self.steps.iter().filter_map(|step| if let Step::Gap(missing) = step { Some(missing) } else { None });
        for hash in gaps.flat_map(|gap| &gap.partitions) {
            self.lanes.iter_mut().filter(|lane| lane.mark().partition == *hash).for_each(|lane| lane.valued = true);
        }
    }

    /// Before all else comes the newest event of each topic, up to where the session has read: what a paced session begins
    /// with after a resume, because it may have been held back when the session was lost.
    pub fn remind(&mut self, reach: &[Arc<Partition>], most: u64) {
        let here: Vec<Here> = reach.iter().map(Here::at_head).collect();
        self.steps.push_front(Step::Topics(Topics::new(&here, &self.seen, most)));
    }

    /// Adds a walk through what a replay means at this place.
    pub fn replay(&mut self, replay: Replay, here: &[Here], most: u64) {
        let mut walk = Walk::new(Vec::new());
        walk.add(replay, here, most, false);
        self.steps.push_back(Step::Walk(walk));
    }

    /// Adds the catch-up of one subscribe: what `only` matches and `except` did not, from a cursor to here.
    pub fn walk(&mut self, asked: &Asked<'_>, here: &[Here], most: u64) {
        let Asked { brought, fallback, only, except } = *asked;
        let (mut lanes, mut gone, mut lost, mut foreign) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for here in here {
            let (partition, mark) = (&here.partition, here.mark);
            let resolved = of(brought, mark.partition).map(|mark| partition.resolve(&mark));
            let after = match resolved.unwrap_or(Resolved::Unknown) {
                Resolved::At(position) => position,
                Resolved::Lost(position) => {
                    lost.push(mark.partition);
                    position
                }
                Resolved::Unknown => {
                    lost.push(mark.partition);
                    foreign.push(here.clone());
                    continue;
                }
            };
            let readable = after.max(mark.position.saturating_sub(most)).max(partition.first() - 1).min(mark.position);
            if readable > after {
                gone.push(mark.partition);
            }
            let gap = readable > after || matches!(resolved, Some(Resolved::Lost(_)));
            lanes.push(Lane::new(here, gap.then_some((0, readable)), readable, mark.position));
        }
        for (reason, partitions) in [(GapReason::Epoch, lost), (GapReason::Expired, gone)] {
            if !partitions.is_empty() {
                self.gap(reason, brought, None, partitions);
            }
        }
        let mut walk = Walk::new(lanes).of(only, except);
        walk.add(fallback, &foreign, most, true);
        self.steps.push_back(Step::Walk(walk));
    }

    /// The endpoint reaches further now: partitions that are new to it are read from their beginning.
    pub fn widen(&mut self, here: &[Here]) {
        for here in here {
            if let Err(at) = self.seen.binary_search_by_key(&here.mark.partition, |seen| seen.partition) {
                let position = here.partition.first() - 1;
                self.seen.insert(at, Mark { position, ..here.mark });
                self.lanes.insert(at, Lane::new(here, None, position, here.mark.position));
            }
        }
    }
}
