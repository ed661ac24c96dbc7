//! What one publisher said on one topic, in order, held against what one session heard of it.
//!
//! Payloads may be identical, and whether something was published may be unknown: so it is not asked which one was heard,
//! but whether there is any way to read what was heard as what was published.

/// A payload by its number; equal ones have the same.
pub type Payload = u32;

/// What was published, in order.
#[derive(Debug, Default, Clone)]
pub struct Line {
    pub sent: Vec<Sent>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sent {
    pub payload: Payload,
    /// It was acknowledged, so it must come; the others may.
    pub certain: bool,
}

/// What a session was told that concerns a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Heard {
    /// Where it lies in the log, and what it is.
    Event(u64, Payload),
    /// Any number may be missing here; what lies behind `kept` in the log is no more, so it may come again.
    Gap { kept: u64 },
}

/// How often it was wrong.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Wrong {
    /// Acknowledged, and it never came.
    pub lost: usize,
    /// It came again, or after a later one.
    pub again: usize,
    /// Nobody published it here.
    pub strange: usize,
    /// This is not wrong: how many acknowledged ones lie in gaps, at least.
    pub excused: usize,
}

/// How a session has got on with a line.
struct Walk<'a> {
    sent: &'a [Sent],
    /// Each number of `sent` that what was heard so far may be: sorted, never empty.
    at: Vec<usize>,
    /// For each event that was heard and is still in the log: where it lies, and the least it could be.
    heard: Vec<(u64, usize)>,
    wrong: Wrong,
}

impl Line {
    pub fn push(&mut self, payload: Payload, certain: bool) {
        self.sent.push(Sent { payload, certain });
    }

    pub fn check(&self, heard: impl IntoIterator<Item = Heard>) -> Wrong {
        let mut walk = Walk { sent: &self.sent, at: vec![0], heard: Vec::new(), wrong: Wrong::default() };
        for heard in heard {
            match heard {
                Heard::Event(position, payload) => walk.event(position, payload),
                Heard::Gap { kept } => walk.gap(kept),
            }
        }
        let lost = walk.at.iter().map(|at| certain(&self.sent[*at..])).min().expect("never empty");
        let lost = walk.wrong.lost + lost;
        let came = walk.heard.len().saturating_sub(walk.wrong.again + walk.wrong.strange);
        Wrong { lost, excused: certain(&self.sent).saturating_sub(came + lost), ..walk.wrong }
    }
}

impl Wrong {
    pub fn is_right(&self) -> bool {
        (self.lost, self.again, self.strange) == (0, 0, 0)
    }
}

impl Walk<'_> {
    fn event(&mut self, position: u64, payload: Payload) {
        let mut next: Vec<usize> = self.at.iter().flat_map(|at| self.steps(*at, payload)).collect();
        next.sort_unstable();
        next.dedup();
        if next.is_empty() {
            next.push(self.wrong_step(payload));
        }
        self.heard.push((position, next[0]));
        self.at = next;
    }

    /// Where one is after this payload, having been here: only what is not certain may be passed over.
    fn steps(&self, at: usize, payload: Payload) -> impl Iterator<Item = usize> {
        let rest = &self.sent[at..];
        let passable = rest.iter().take_while(|sent| !sent.certain).count();
        let reach = &rest[..(passable + 1).min(rest.len())];
        let found = reach.iter().enumerate().filter(move |(_, sent)| sent.payload == payload);
        found.map(move |(skipped, _)| at + skipped + 1)
    }

    /// There is no right way to read it: counts what is wrong, and goes on from the likeliest place.
    fn wrong_step(&mut self, payload: Payload) -> usize {
        let at = self.at[0];
        let (before, after) = self.sent.split_at(at);
        let is_it = |sent: &Sent| sent.payload == payload;
        if let Some(skipped) = after.iter().position(is_it) {
            self.wrong.lost += certain(&after[..skipped]);
            return at + skipped + 1;
        }
        match before.iter().any(is_it) {
            true => self.wrong.again += 1,
            false => self.wrong.strange += 1,
        }
        at
    }

    fn gap(&mut self, kept: u64) {
        let still = self.heard.iter().take_while(|(position, _)| *position <= kept).count();
        let rewinds = still < self.heard.len();
        self.heard.truncate(still);
        let least = if rewinds { self.heard.last().map_or(0, |(_, least)| *least) } else { self.at[0] };
        self.at = (least..=self.sent.len()).collect();
    }
}

fn certain(sent: &[Sent]) -> usize {
    sent.iter().filter(|sent| sent.certain).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAME: Payload = 7;

    /// 1, 2, SAME, SAME, 3 (perhaps), SAME, 4.
    fn line() -> Line {
        let certain = |payload| Sent { payload, certain: true };
        let perhaps = Sent { payload: 3, certain: false };
        Line { sent: vec![certain(1), certain(2), certain(SAME), certain(SAME), perhaps, certain(SAME), certain(4)] }
    }

    /// The payloads at positions 1, 2, …; 0 is a gap that loses nothing of the log.
    fn wrong(heard: &[Payload]) -> [usize; 3] {
        let positions = 1u64..;
        check(positions.zip(heard).map(|(position, payload)| match payload {
            0 => Heard::Gap { kept: u64::MAX },
            payload => Heard::Event(position, *payload),
        }))
    }

    /// How many are lost, come again, are strange.
    fn check(heard: impl IntoIterator<Item = Heard>) -> [usize; 3] {
        let Wrong { lost, again, strange, .. } = line().check(heard);
        [lost, again, strange]
    }

    fn lost(lost: usize) -> [usize; 3] {
        [lost, 0, 0]
    }

    #[test]
    fn what_was_published_once_and_in_order_is_right() {
        assert_eq!(wrong(&[1, 2, 7, 7, 3, 7, 4]), lost(0));
        assert_eq!(wrong(&[1, 2, 7, 7, 7, 4]), lost(0), "what is not certain may be missing");
    }

    #[test]
    fn each_loss_is_found() {
        let whole = [1, 2, 7, 7, 3, 7, 4];
        for missing in [0, 1, 2, 5, 6] {
            let mut heard = whole.to_vec();
            heard.remove(missing);
            assert_eq!(wrong(&heard)[0], 1, "without number {missing}");
        }
        assert_eq!(wrong(&[1, 2, 7, 7, 4]), lost(1), "one of the identical ones");
        assert_eq!(wrong(&[]), lost(6));
    }

    #[test]
    fn each_duplicate_is_found() {
        let whole = [1, 2, 7, 7, 3, 7, 4];
        for doubled in 0..whole.len() {
            let mut heard = whole.to_vec();
            heard.insert(doubled, whole[doubled]);
            // Where three of the same follow each other only their number can be wrong, and it is.
            assert_ne!(wrong(&heard), lost(0), "number {doubled} twice");
        }
        assert_eq!(wrong(&[1, 1, 2, 7, 7, 7, 4]), [0, 1, 0]);
        assert_eq!(wrong(&[1, 2, 7, 7, 7, 7, 4]), [0, 1, 0]);
    }

    #[test]
    fn a_swap_is_found() {
        assert_eq!(wrong(&[2, 1, 7, 7, 7, 4]), [1, 1, 0]);
        assert_ne!(wrong(&[1, 7, 2, 7, 7, 4]), lost(0));
        assert_ne!(wrong(&[1, 2, 7, 3, 7, 7, 4]), lost(0));
    }

    #[test]
    fn what_nobody_published_is_found() {
        assert_eq!(wrong(&[1, 9, 2, 7, 7, 7, 4]), [0, 0, 1]);
    }

    #[test]
    fn a_loss_in_a_gap_is_excused_and_only_there() {
        assert_eq!(wrong(&[1, 0, 7, 7, 4]), lost(0));
        assert_eq!(wrong(&[1, 2, 7, 7, 0]), lost(0));
        assert_eq!(wrong(&[0]), lost(0));
        assert_eq!(line().check([Heard::Event(1, 1), Heard::Gap { kept: 1 }, Heard::Event(2, 4)]).excused, 4);
        assert_eq!(wrong(&[1, 2, 0, 3, 4]), lost(1), "the gap is elsewhere");
        assert_eq!(wrong(&[1, 0, 2, 7, 4]), lost(2));
        assert_eq!(wrong(&[1, 2, 0, 1, 7, 7, 7, 4])[1], 1, "a gap excuses no duplicate");
    }

    #[test]
    fn what_the_log_lost_may_come_again() {
        use Heard::*;
        let after = [Event(2, 2), Event(3, SAME), Event(4, SAME), Event(5, SAME), Event(6, 4)];
        let heard = |kept| [&[Event(1, 1), Event(2, 2), Event(3, SAME), Gap { kept }], after.as_slice()].concat();
        assert_eq!(check(heard(1)), lost(0));
        assert_ne!(check(heard(2))[1], 0, "but not what it kept");
        let rest = [Event(2, SAME), Event(3, SAME), Event(4, SAME), Event(5, 4)];
        assert_eq!(check([&[Gap { kept: 0 }], rest.as_slice()].concat()), lost(0), "nor need it");
    }
}
