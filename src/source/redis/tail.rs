//! How a Redis Stream is read on: what lies behind the last entry read, and whether some that lay there are gone. Pure.
//!
//! Trimming takes entries from the beginning of a stream. So while one is there that was read already, none was trimmed
//! away unread; and if none is, the counter of all entries ever added tells how many. What was deleted one by one is
//! known by the greatest id among them.

use crate::stream::Name;

/// What `XINFO STREAM` says. The counter and the greatest id deleted are there since Redis 7.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info {
    /// How many entries there are.
    pub length: u64,
    /// The oldest of them.
    pub first: Option<Name>,
    /// The id given last, to whatever became of it.
    pub last: Option<Name>,
    /// How many entries there ever were.
    pub added: Option<u64>,
    /// The greatest id that was deleted.
    pub deleted: Option<Name>,
}

/// What is to be done, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Up to this id some are missing; none: somewhere around here.
    Gap(Option<Name>),
    /// This one of the entries read.
    Entry(usize),
}

/// How far a stream was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// Up to this entry.
    at: Name,
    /// How many were ever added up to there, if that is known.
    added: Option<u64>,
    /// What was deleted up to here is accounted for.
    deleted: Option<Name>,
    /// The stream ends before what was read, and that was told.
    behind: bool,
}

impl Tail {
    /// Read up to here, by whomever.
    pub fn after(at: Name) -> Tail {
        // Before all ids there is nothing, which is as good as having read it.
        let added = (at == Name(0, 0)).then_some(0);
        Tail { at, added, deleted: None, behind: false }
    }

    /// Where it ends now; what is there already is the past.
    pub fn end(info: &Info) -> Tail {
        let ended = info.last.map(|at| Tail { at, added: info.added, deleted: info.deleted, behind: false });
        ended.unwrap_or_else(|| Tail::after(Name(0, 0)))
    }

    /// Up to which entry.
    pub fn at(&self) -> Name {
        self.at
    }

    /// What to do about the entries behind it, which were read in the same moment as the rest; `all`: there are no more.
    /// And how far it is read when that is done.
    pub fn look(&self, info: &Info, ids: &[Name], all: bool) -> (Vec<Step>, Tail) {
        let behind = info.last.is_some_and(|last| last < self.at);
        let lost = behind && !self.behind || self.is_another(info) || self.lost_before(info);
        let mut steps = Vec::with_capacity(ids.len() + 1);
        let mut at = self.at;
        if lost {
            let before = ids.first().map(|first| before(*first)).or(info.last).filter(|before| *before > at);
            at = before.unwrap_or(at);
            steps.push(Step::Gap(before));
        }
        // The last one that was deleted; that others were before it, nobody can see.
        let gone = info.deleted.filter(|gone| Some(*gone) > self.deleted.max(Some(at)));
        let place = gone.map(|gone| (gone, ids.partition_point(|id| *id < gone)));
        let told = place.is_none_or(|(_, place)| all || place < ids.len());
        for index in 0..=ids.len() {
            if let Some((gone, _)) = place.filter(|(_, place)| *place == index && told) {
                steps.push(Step::Gap(Some(gone)));
            }
            if index < ids.len() {
                steps.push(Step::Entry(index));
            }
        }
        let gaps = steps.iter().filter_map(|step| if let Step::Gap(at) = step { *at } else { None });
        let next = Tail {
            at: gaps.chain(ids.last().copied()).fold(self.at, Name::max),
            added: self.counted(info, ids.len() as u64, all, gone.is_some()),
            deleted: if told { self.deleted.max(info.deleted) } else { self.deleted },
            behind,
        };
        (steps, next)
    }

    /// It began anew under the same key, or lost its end.
    fn is_another(&self, info: &Info) -> bool {
        self.added.zip(info.added).is_some_and(|(before, now)| now < before)
    }

    /// Whether some that lay right behind it are gone, or nobody can know that none are.
    fn lost_before(&self, info: &Info) -> bool {
        let nothing_new = info.last.is_none_or(|last| last <= self.at);
        if nothing_new || info.first.is_some_and(|first| first <= self.at) {
            return false;
        }
        // All that are there lie behind it.
        self.added.zip(info.added).is_none_or(|(before, now)| now != before + info.length)
    }

    /// How many were added up to the last one read.
    fn counted(&self, info: &Info, read: u64, all: bool, gone: bool) -> Option<u64> {
        let now = info.added?;
        if all {
            return Some(now);
        }
        if info.first.is_some_and(|first| first > self.at) {
            return Some(now.saturating_sub(info.length) + read);
        }
        self.added.filter(|_| !gone).map(|before| before + read)
    }
}

/// The greatest id before this one that entries have, as a rule.
fn before(Name(ms, number): Name) -> Name {
    match number {
        0 => Name(ms.saturating_sub(1), u32::MAX.into()),
        _ => Name(ms, number - 1),
    }
}

#[cfg(test)]
mod tests;
