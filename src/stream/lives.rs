//! The lives of a partition: a lost tail, or another Redis process, begins a new epoch in the same numbering. Knows which
//! positions of earlier epochs still mean what they meant. Pure.

use crate::cursor::Mark;
use crate::event::Epoch;

/// The present epoch, and those before it with the last position each had when the next began, newest first. The store
/// remembers 16 of them; a cursor from before is foreign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lives {
    pub epoch: Epoch,
    pub past: Vec<(Epoch, u64)>,
}

/// What a cursor's mark means here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolved {
    /// This position in the present numbering; one ahead of the head is fine.
    At(u64),
    /// The events it names were lost with the tail behind this position.
    Lost(u64),
    /// Its epoch is not known here.
    Unknown,
}

impl Resolved {
    /// A position of an epoch of which so much is kept.
    pub fn of(position: u64, kept: Option<u64>) -> Resolved {
        match kept {
            Some(kept) if position <= kept => Resolved::At(position),
            Some(kept) => Resolved::Lost(kept),
            None => Resolved::Unknown,
        }
    }
}

impl Lives {
    pub fn new(epoch: Epoch) -> Lives {
        Lives { epoch, past: Vec::new() }
    }

    /// Whether this epoch is one of them.
    pub fn know(&self, epoch: Epoch) -> bool {
        self.epoch == epoch || self.past.iter().any(|(past, _)| *past == epoch)
    }

    /// Up to where somebody who has read `head` positions of other lives has read the same events: `None` if the two have
    /// nothing in common.
    pub fn common(&self, other: &Lives, head: u64) -> Option<u64> {
        let mut read = head;
        let all = std::iter::once((other.epoch, head)).chain(other.past.iter().copied());
        for (epoch, last) in all {
            read = read.min(last);
            match self.resolve(&Mark { partition: 0, epoch, position: read }) {
                Resolved::At(position) | Resolved::Lost(position) => return Some(position),
                Resolved::Unknown => {}
            }
        }
        None
    }

    /// Up to where positions of an epoch still mean what they meant; `None`: it is not known. Each later life may have
    /// ended before an earlier one did: only what lies before all of their ends is still there.
    pub fn kept(&self, epoch: Epoch) -> Option<u64> {
        if epoch == self.epoch {
            return Some(u64::MAX);
        }
        let at = self.past.iter().position(|(past, _)| *past == epoch)?;
        self.past[..=at].iter().map(|(_, last)| *last).min()
    }

    pub fn resolve(&self, mark: &Mark) -> Resolved {
        Resolved::of(mark.position, self.kept(mark.epoch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_means_what_is_still_there() {
        let lives = Lives { epoch: Epoch(3), past: vec![(Epoch(2), 40), (Epoch(1), 60)] };
        let check = |epoch, position, expected| {
            let mark = Mark { partition: 7, epoch: Epoch(epoch), position };
            assert_eq!(lives.resolve(&mark), expected, "{epoch} {position}");
        };
        check(3, 1_000, Resolved::At(1_000));
        check(2, 40, Resolved::At(40));
        check(2, 41, Resolved::Lost(40));
        check(1, 40, Resolved::At(40));
        check(1, 50, Resolved::Lost(40));
        check(1, 70, Resolved::Lost(40));
        check(9, 1, Resolved::Unknown);
    }

    #[test]
    fn what_two_have_in_common_ends_where_the_first_lost_it() {
        let lives = |epoch, past: &[(u32, u64)]| Lives {
            epoch: Epoch(epoch),
            past: past.iter().map(|(epoch, last)| (Epoch(*epoch), *last)).collect(),
        };
        let check = |now: Lives, before: Lives, head, expected| assert_eq!(now.common(&before, head), expected);
        check(lives(2, &[(1, 40)]), lives(1, &[]), 30, Some(30));
        check(lives(2, &[(1, 40)]), lives(1, &[]), 50, Some(40));
        // The life in which it was read is gone without a trace, with the end of the one before.
        check(lives(3, &[(1, 40)]), lives(2, &[(1, 45)]), 60, Some(40));
        check(lives(3, &[(1, 50)]), lives(2, &[(1, 45)]), 60, Some(45));
        check(lives(3, &[]), lives(2, &[(1, 45)]), 60, None);
    }
}
