//! Whether this instance is the one that appends, and what it has to do then. Pure: the shell asks the store, reads the
//! clock, appends, and tells here what came of it.

use std::time::{Duration, Instant};

use super::ear::Ear;
use super::name::{is_after, owes, owing, paid};
use super::ring::{Heard, Next};
use crate::stream::{Lease, Name};

/// Who cannot prove that it heard everything leaves a free lease for so long to those who can.
const GRACE: Duration = Duration::from_millis(1500);

/// A lease that is not asked for again is free after this.
pub const TTL: Duration = Duration::from_secs(3);

/// What to ask the store for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// The lease, if nobody holds it or we do.
    pub may_take: bool,
    /// To give it back.
    pub resign: bool,
    /// All up to here is appended by the holder with this fence, says the one who thinks to be it.
    pub done: Option<(u64, Name)>,
}

/// What an answer of the store means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// As before.
    Stays,
    /// From now on we append.
    Took(Start),
    /// From now on we do not.
    Lost,
}

/// Where a new holder begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the first that was heard. Something was missed before it; or this is the very beginning, as far as anybody
    /// knows: then it was only where the source is found to have appended something before.
    #[allow(missing_docs)]
    Afresh { gap: bool },
    /// Right after this.
    After(Name),
    /// With what will be heard: of what was heard nobody knows whether it was appended and then lost by the store.
    Beyond,
}

/// What the holder does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// To append these.
    Append(Vec<Heard>),
    /// Up to here something is missing; perhaps only where the source is known.
    #[allow(missing_docs)]
    TellGap { at: Name, if_known: bool },
    /// To ask the store: it must know what is done before more is, or it is to be told that we resign.
    Ask,
    /// Nothing.
    Rest,
}

/// The lease of one source, as this instance sees it.
#[derive(Debug, Default)]
pub struct Duty {
    /// The fence of the lease we hold.
    fence: Option<u64>,
    /// All up to here is appended, by all we know; or it is a gap that may not be told yet.
    done: Option<Name>,
    /// The same, as the store last said it.
    said: Option<Name>,
    /// Somebody held it at some time.
    known: bool,
    /// The store forgot what it had said.
    forgetful: bool,
    /// The store gives it to nobody else.
    alone: bool,
    /// The fence under which we held it last, if nobody else did since.
    last: Option<u64>,
    /// The number of the lease that was heard of last.
    fences: u64,
    /// When the store said last that we do.
    held: Option<Instant>,
    /// Nobody can prove anything: Redis is another process than the one that said what was appended last.
    pub hopeless: bool,
    /// Seen free in each answer since.
    free: Option<Instant>,
    /// It is to be given back.
    resigning: bool,
    /// And what was heard before that is appended.
    drained: bool,
    /// Nobody knows what came before the very first.
    begins_with_gap: bool,
    /// What was missed before one of the first so many stretches was missed before we held it.
    stretches: u64,
    /// The gap that is owed is one only where the source is known.
    if_known: bool,
    /// It forgot everything before this lease.
    emptied: bool,
    /// The store must know what is done before anything else is: or a successor would begin elsewhere.
    unsaid: bool,
}

impl Duty {
    /// Nobody's. `gap`: it takes the place of another source, with a gap between the two.
    pub fn new(gap: bool) -> Duty {
        Duty { begins_with_gap: gap, ..Duty::default() }
    }

    /// The fence, while we hold it.
    pub fn fence(&self) -> Option<u64> {
        self.fence
    }

    /// All up to here is appended, or lies in a gap.
    pub fn done(&self) -> Option<Name> {
        self.done.map(paid)
    }

    /// Whether somebody said where it began: from there on nothing is missed silently.
    pub fn has_begun(&self) -> bool {
        self.known && self.done.is_some() && !self.unsaid
    }

    /// It is given back at once: there is nothing that was read and is not appended.
    pub fn give_back(&mut self) {
        (self.resigning, self.drained) = (true, true);
    }

    /// A log knows a later holder: whatever the store thinks, we are not the one.
    pub fn fenced(&mut self) {
        self.leave();
        self.last = None;
        self.resigning = true;
    }

    /// What to ask for. `ready`: what is said can be heard; `proves`: and everything after this name was.
    pub fn wish(&self, now: Instant, ready: bool, proves: impl Fn(Name) -> bool) -> Wish {
        let resign = self.resigning && (self.fence.is_none() || self.drained);
        let has_waited = || self.hopeless || self.free.is_some_and(|since| now.duration_since(since) >= GRACE);
        let has_proof = || !self.forgetful && self.done.is_some_and(proves);
        let may_begin = || ready && (!self.known || self.alone || has_proof() || has_waited());
        let done = self.fence.zip(self.done);
        Wish { may_take: !resign && (self.fence.is_some() || may_begin()), resign, done }
    }

    /// The store could not be asked: what was seen before is worth nothing.
    pub fn unanswered(&mut self) {
        self.free = None;
    }

    /// The store answered a wish.
    pub fn answered(&mut self, wish: Wish, lease: &Lease, now: Instant) -> Turn {
        let went_back = match (self.said, lease.done) {
            (Some(said), Some(done)) => is_after(paid(said), paid(done)),
            (said, done) => said.is_some() && done.is_none(),
        };
        // Its numbers rise: a lower one is of a store that does not know of the last one.
        let forgot = self.known && !lease.known || lease.before < self.fences;
        self.fences = lease.fence;
        self.forgetful |= went_back || forgot;
        let turn = match lease.mine {
            true if wish.may_take => self.granted(wish, lease, now, forgot),
            // A lease that nobody ever held, and that is ours unasked or although we give it back: there is no store.
            true if !lease.known => {
                self.alone = true;
                if wish.resign { self.refused(now) } else { Turn::Stays }
            }
            // By an answer that was lost; what we do not want we give back.
            true => {
                self.resigning = true;
                Turn::Stays
            }
            false => self.seen(lease, now),
        };
        self.known |= lease.known || self.fence.is_some();
        self.said = lease.done;
        if self.fence.is_none() {
            self.done = self.newest(lease.done, self.last.is_some());
        }
        turn
    }

    fn granted(&mut self, wish: Wish, lease: &Lease, now: Instant, forgot: bool) -> Turn {
        self.free = None;
        if self.fence == Some(lease.fence) {
            self.held = Some(now);
            self.unsaid &= wish.done.is_none() || wish.done != self.fence.zip(self.done);
            return Turn::Stays;
        }
        // What a store forgot somebody else may have held since ours ran out.
        let lasts = self.held.is_some_and(|held| now.duration_since(held) < TTL);
        let ours = self.last.is_some_and(|last| last == lease.before || forgot && (lasts || self.alone));
        self.held = Some(now);
        self.leave();
        self.fence = Some(lease.fence);
        self.last = self.fence;
        let start = match self.newest(lease.done, ours) {
            _ if self.forgetful && !ours => Start::Beyond,
            _ if !lease.known && !self.known => Start::Afresh { gap: self.begins_with_gap },
            Some(done) => Start::After(done),
            None => Start::Afresh { gap: true },
        };
        // A store that knows nothing takes anything, also from one that slept since long ago; unless it is told a fence.
        self.emptied = forgot && !self.alone;
        self.forgetful = false;
        Turn::Took(start)
    }

    /// Not ours.
    fn seen(&mut self, lease: &Lease, now: Instant) -> Turn {
        self.last = self.last.filter(|last| *last == lease.fence || !lease.known);
        let turn = self.refused(now);
        if lease.free_for.is_none() && lease.known {
            // Whoever holds it has found out by now what is missing.
            (self.free, self.last, self.forgetful) = (None, None, false);
        }
        turn
    }

    fn refused(&mut self, now: Instant) -> Turn {
        self.free.get_or_insert(now);
        let had = self.fence.is_some();
        self.leave();
        if had { Turn::Lost } else { Turn::Stays }
    }

    fn leave(&mut self) {
        (self.fence, self.resigning, self.drained, self.unsaid) = (None, false, false, false);
    }

    /// What is appended, by what the store says and, if nobody appended since, by what we did.
    fn newest(&self, said: Option<Name>, ours: bool) -> Option<Name> {
        let own = self.done.filter(|own| ours && said.is_none_or(|said| !is_after(paid(said), paid(*own))));
        own.or(said).or(self.done)
    }

    /// Where we begin, now that we hold it.
    pub fn start(&mut self, start: Start, ear: &Ear) {
        self.unsaid = self.emptied || !matches!(start, Start::After(_));
        self.if_known = match start {
            Start::Afresh { gap } => !gap,
            Start::After(_) => self.emptied,
            Start::Beyond => false,
        };
        self.done = match start {
            Start::After(name) if self.emptied => Some(owing(name)),
            Start::After(name) => Some(name),
            Start::Afresh { .. } => ear.ring.begun().map(owing),
            Start::Beyond => ear.ring.latest().map(owing),
        };
        self.stretches = ear.ring.stretches();
        self.begins_with_gap = false;
    }

    /// The same for who reads a log, and need not have heard it: behind this, or where it ends.
    pub fn start_at(&mut self, done: Option<Name>) {
        self.done = done;
        self.begins_with_gap = false;
    }

    /// What to do next, as the holder: at most so many messages, and not much more than so many bytes.
    pub fn work(&mut self, ear: &Ear, now: Instant, (most, bytes): (usize, usize)) -> Work {
        if self.fence.is_none() {
            return Work::Rest;
        }
        // Who missed something while it held the lease gives it back, because somebody else may have heard all.
        self.resigning |= !ear.is_hearing();
        // A lease that ran out is perhaps another one's. (An append would be refused then; unless the store forgot that.)
        let ran_out = self.held.is_none_or(|held| now.duration_since(held) >= TTL);
        if self.unsaid || ran_out {
            return Work::Ask;
        }
        if let Some(at) = self.done.filter(|done| owes(*done)) {
            return Work::TellGap { at: paid(at), if_known: self.if_known };
        }
        match ear.ring.next(self.done, most, bytes) {
            Next::These(these) => return Work::Append(these),
            Next::Gap { at, stretch } if !self.resigning && stretch <= self.stretches => {
                (self.done, self.unsaid, self.if_known) = (Some(owing(at)), true, false);
                return Work::Ask;
            }
            Next::Gap { .. } => self.resigning = true,
            Next::Nothing(latest) => self.done = Some(latest),
            Next::Unknown => {}
        }
        self.drained = self.resigning;
        if self.drained { Work::Ask } else { Work::Rest }
    }

    /// All up to here is appended, or is nothing that can be; or the gap up to here is told.
    pub fn appended(&mut self, up_to: Name) {
        self.done = Some(up_to);
    }
}

#[cfg(test)]
mod tests;
