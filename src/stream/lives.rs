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
    /// The position, if nothing before it was lost.
    pub fn known(self) -> Option<u64> {
        match self {
            Resolved::At(position) => Some(position),
            Resolved::Lost(_) | Resolved::Unknown => None,
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

    /// Each later life may have ended before an earlier one did: only what lies before all of their ends is still there.
    pub fn resolve(&self, mark: &Mark) -> Resolved {
        if mark.epoch == self.epoch {
            return Resolved::At(mark.position);
        }
        let mut kept = u64::MAX;
        for (epoch, last) in &self.past {
            kept = kept.min(*last);
            if *epoch == mark.epoch {
                return if mark.position <= kept { Resolved::At(mark.position) } else { Resolved::Lost(kept) };
            }
        }
        Resolved::Unknown
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
}
