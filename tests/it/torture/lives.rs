//! One line of numbers for all lives of a partition. Positions go on from one epoch to the next, but where a tail was lost
//! the same position is given twice: here each event gets a number of its own, in the order in which all was so.

use std::collections::{BTreeMap, BTreeSet};

use relay::event::Epoch;

/// A position, and in whose numbering.
pub type Mark = (Epoch, u64);

/// Above all positions of a test.
const LIFE: u64 = 1 << 40;

/// A life may begin with gaps: each instance that knew more tells it.
const GAPS: u64 = 12;

/// The epochs of a partition in their order, each with the first position that was given in it.
#[derive(Debug, Default)]
pub struct Lives {
    order: Vec<Epoch>,
    first: BTreeMap<Epoch, u64>,
}

/// What is known of a partition's lives before they are put in order.
#[derive(Debug, Default)]
pub struct Seen {
    /// Each gave a position before the other did.
    before: BTreeSet<(Epoch, Epoch)>,
    /// Somebody heard of one first. Who catches up in a later life, where events of earlier ones come, may hear of that
    /// life before: so this counts only where nothing else does.
    heard_first: BTreeSet<(Epoch, Epoch)>,
    epochs: BTreeSet<Epoch>,
    first: BTreeMap<Epoch, u64>,
}

impl Seen {
    /// Entries of the log, in its order.
    pub fn entries(&mut self, entries: impl IntoIterator<Item = Mark>) {
        let mut last = None;
        for (epoch, position) in entries {
            self.epochs.insert(epoch);
            let first = self.first.entry(epoch).or_insert(position);
            *first = position.min(*first);
            if let Some(last) = last.replace(epoch).filter(|last| *last != epoch) {
                self.before.insert((last, epoch));
            }
        }
    }

    /// A lost tail leads from one to the other.
    pub fn lost(&mut self, from: Epoch, to: Epoch) {
        self.before.extend((from != to).then_some((from, to)));
    }

    /// In whose numbering cursors were, in the order in which somebody heard them.
    pub fn cursors(&mut self, epochs: impl IntoIterator<Item = Epoch>) {
        let mut heard: Vec<Epoch> = Vec::new();
        for epoch in epochs {
            if !heard.contains(&epoch) {
                self.epochs.insert(epoch);
                self.heard_first.extend(heard.last().map(|last| (*last, epoch)));
                heard.push(epoch);
            }
        }
    }

    /// Fails if entries say that one was before the other and after it.
    pub fn in_order(mut self) -> Result<Lives, String> {
        let mut order = Vec::new();
        let is_first = |pairs: &BTreeSet<(Epoch, Epoch)>, epoch| !pairs.iter().any(|(_, later)| *later == epoch);
        while !self.epochs.is_empty() {
            let free = self.epochs.iter().filter(|epoch| is_first(&self.before, **epoch));
            let first =
                free.min_by_key(|epoch| (!is_first(&self.heard_first, **epoch), self.first.get(epoch))).copied();
            let first = first.ok_or_else(|| format!("epochs come in no order: {:?}", self.before))?;
            self.epochs.remove(&first);
            self.before.retain(|(earlier, _)| *earlier != first);
            self.heard_first.retain(|(earlier, _)| *earlier != first);
            order.push(first);
        }
        Ok(Lives { order, first: self.first })
    }
}

impl Lives {
    /// The number of a position: in the life that gave it, which may be an earlier one than that of who names it.
    pub fn number(&self, (epoch, position): Mark) -> u64 {
        let life = self.index(epoch);
        let gave =
            (0..=life).rev().find(|life| self.first.get(&self.order[*life]).is_some_and(|first| *first <= position));
        gave.unwrap_or(0) as u64 * LIFE + position
    }

    /// Where a gap that tells of a lost tail ends: behind everything that the life it begins in ever gave, and before all
    /// that came after it. Which life that is can be seen from where lives begin; the cursor may be in the numbering of a
    /// later one.
    pub fn number_behind(&self, from: Option<(u64, Epoch)>, (epoch, position): Mark) -> u64 {
        // Who is told in the same numbering reads what somebody wrote there; else the life where it was is over.
        let least = from.map_or(0, |(number, of)| (number / LIFE) as usize + usize::from(of != epoch));
        let last = self.index(epoch);
        let first = |life: usize| Some((life, *self.first.get(&self.order[life])?));
        // From the last to the first, without those of which nothing is left.
        let mut left: Vec<(usize, u64)> = Vec::new();
        for (life, first) in (least..=last).rev().filter_map(first) {
            if left.last().is_none_or(|(_, later)| first < *later) {
                left.push((life, first));
            }
        }
        let begins_there = left.iter().rev().find(|(_, first)| (position + 1..=position + GAPS).contains(first));
        let is_there = || left.iter().find(|(_, first)| *first <= position);
        let life = begins_there.or_else(is_there).map_or(last.max(least), |(life, _)| *life);
        life as u64 * LIFE + position
    }

    /// Whether a later life gave this position to something else.
    pub fn is_lost(&self, (epoch, position): Mark) -> bool {
        let later = &self.order[self.index(epoch) + 1..];
        later.iter().any(|later| self.first.get(later).is_some_and(|first| *first <= position))
    }

    pub fn count(&self) -> usize {
        self.order.len()
    }

    fn index(&self, epoch: Epoch) -> usize {
        self.order.iter().position(|known| *known == epoch).expect("all epochs that were seen are here")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Epoch = Epoch(9);
    const B: Epoch = Epoch(5);
    const C: Epoch = Epoch(7);

    /// A gave 1 to 10; B went on from 8, so that 9 and 10 were lost, up to 12; C lost nothing.
    fn lives() -> Lives {
        let mut seen = Seen::default();
        seen.entries([(A, 1), (A, 2), (A, 9), (A, 10), (C, 13)]);
        seen.entries([(A, 8), (B, 9), (B, 12), (C, 13), (C, 14)]);
        // In C somebody caught up from A.
        seen.cursors([A, C, A, B, C]);
        seen.in_order().expect("an order")
    }

    #[test]
    fn each_event_has_one_number_however_it_is_named() {
        let lives = lives();
        assert_eq!((lives.order.as_slice(), lives.count()), ([A, B, C].as_slice(), 3));
        for name in [(A, 8), (B, 8), (C, 8)] {
            assert_eq!(lives.number(name), 8, "{name:?}");
        }
        assert_eq!((lives.number((B, 9)), lives.number((C, 9))), (LIFE + 9, LIFE + 9));
        assert_eq!(lives.number((A, 9)), 9, "lost, and still itself");
        let all = [(A, 8), (A, 9), (A, 10), (B, 9), (B, 12), (C, 13)].map(|mark| lives.number(mark));
        assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
        let lost = [(A, 8), (A, 9), (A, 10), (B, 9), (B, 12)].map(|mark| lives.is_lost(mark));
        assert_eq!(lost, [false, true, true, false, false]);
        let behind = lives.number_behind(Some((10, A)), (B, 8));
        assert!(lives.number((A, 10)) < behind && behind < lives.number((B, 9)));
        assert_eq!(lives.number_behind(Some((behind, B)), (B, 10)), lives.number((B, 10)));
    }

    #[test]
    fn who_comes_late_is_told_of_a_lost_tail_in_the_numbering_of_a_later_life() {
        let mut seen = Seen::default();
        seen.entries([(A, 1), (A, 100), (B, 96), (B, 200), (C, 105)]);
        let lives = seen.in_order().expect("an order");
        assert_eq!(lives.number_behind(Some((100, A)), (C, 95)), LIFE + 95);
        let in_b = lives.number((B, 200));
        assert_eq!(lives.number_behind(Some((in_b, B)), (C, 104)), 2 * LIFE + 104);
        assert_eq!(lives.number_behind(Some((in_b, C)), (C, 110)), 2 * LIFE + 110);
    }

    #[test]
    fn a_life_of_which_nothing_is_left_is_passed_over() {
        let mut seen = Seen::default();
        seen.entries([(A, 1), (A, 100), (B, 96), (B, 99), (C, 90)]);
        let lives = seen.in_order().expect("an order");
        assert_eq!(lives.number_behind(Some((92, A)), (C, 89)), 2 * LIFE + 89);
        // The gaps of three instances came first.
        let mut seen = Seen::default();
        seen.entries([(A, 1), (A, 37), (B, 4)]);
        let lives = seen.in_order().expect("an order");
        assert_eq!(lives.number_behind(Some((37, A)), (B, 0)), LIFE);
        assert_eq!(lives.number_behind(Some((LIFE, B)), (B, 1)), LIFE + 1);
    }

    #[test]
    fn a_life_that_gave_nothing_has_its_place() {
        let mut seen = Seen::default();
        seen.entries([(A, 1), (A, 100), (C, 96)]);
        // All that was lost with B's end is A's.
        seen.cursors([A, B, A, B, C]);
        let lives = seen.in_order().expect("an order");
        assert_eq!((lives.order.as_slice(), lives.number((B, 100))), ([A, B, C].as_slice(), 100));
    }

    #[test]
    fn who_goes_back_is_found() {
        let mut seen = Seen::default();
        seen.entries([(A, 1), (B, 2), (A, 3)]);
        seen.in_order().expect_err("B was before A and after it");
        let mut seen = Seen::default();
        seen.entries([(A, 1), (B, 2)]);
        seen.lost(B, A);
        seen.in_order().expect_err("a gap leads back");
    }
}
