//! What waits to be written to one session: bounded, in order, cut only between events. Pure.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::cursor::Mark;
use crate::event::Event;

/// What an event costs beside its bytes, so that many tiny ones are bounded as well.
const PER_EVENT: usize = 64;

/// Positions of all partitions before and after a batch: what a gap that swallows it must tell.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Span {
    pub before: Vec<Mark>,
    pub after: Vec<Mark>,
}

/// All that one batch means for one session: dropped together or not at all.
#[derive(Debug)]
pub struct Parcel {
    /// Encoded events, ready to write.
    pub pieces: VecDeque<Bytes>,
    /// How many.
    pub count: u64,
    /// The batch; `None` for what is not an event (replies, heartbeats), which is never dropped.
    pub span: Option<Rc<Span>>,
    /// The events themselves, kept only where the newest of each topic may be asked for.
    pub events: Vec<Arc<Event>>,
    /// Set on the notice of a gap: a later drop widens it instead of adding another.
    gap: Option<Dropped>,
}

/// Parcels, oldest first. The front one may be half written; it no longer counts.
#[derive(Debug, Default)]
pub struct Queue {
    parcels: VecDeque<Parcel>,
    begun: bool,
    waiting: usize,
}

/// What was dropped from a queue: enough to tell it.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Dropped {
    pub first: Rc<Span>,
    pub last: Rc<Span>,
    pub count: u64,
}

impl Parcel {
    /// Bytes that are no event: never dropped.
    pub fn of_bytes(bytes: Bytes) -> Parcel {
        Parcel { pieces: VecDeque::from([bytes]), count: 0, span: None, events: Vec::new(), gap: None }
    }

    /// What a batch means for one session.
    pub fn of_events(pieces: VecDeque<Bytes>, count: u64, span: Rc<Span>, events: Vec<Arc<Event>>) -> Parcel {
        Parcel { pieces, count, span: Some(span), events, gap: None }
    }

    fn cost(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum::<usize>() + self.count as usize * PER_EVENT
    }
}

impl Queue {
    /// A queue whose first parcel is already half written.
    pub fn begun(parcel: Parcel) -> Queue {
        Queue { parcels: VecDeque::from([parcel]), begun: true, waiting: 0 }
    }

    /// A queue of one parcel that nothing was written of.
    pub fn waits(parcel: Parcel) -> Queue {
        let mut queue = Queue::default();
        queue.push(parcel);
        queue
    }

    /// Drops all that waits, but for the rest of the parcel being written.
    pub fn forget(&mut self) {
        self.parcels.truncate(usize::from(self.begun));
        self.waiting = 0;
    }

    /// Adds a parcel behind all others.
    pub fn push(&mut self, parcel: Parcel) {
        self.waiting += parcel.cost();
        self.parcels.push_back(parcel);
    }

    /// Whether all was written.
    pub fn is_empty(&self) -> bool {
        self.parcels.is_empty()
    }

    /// What waits behind the parcel being written, in bytes, 64 added for each event.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// The next bytes, at most `slices.len()` pieces; returns how many.
    pub fn front<'q>(&'q self, slices: &mut [IoSlice<'q>]) -> usize {
        let pieces = self.parcels.iter().flat_map(|p| p.pieces.iter());
        slices.iter_mut().zip(pieces).map(|(slice, piece)| *slice = IoSlice::new(piece)).count()
    }

    /// So many bytes were written.
    pub fn wrote(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let Some(parcel) = self.parcels.front_mut() else { return };
            if !self.begun {
                self.waiting -= parcel.cost();
                self.begun = true;
            }
            let Some(piece) = parcel.pieces.front_mut() else { return };
            let taken = bytes.min(piece.len());
            piece.advance(taken);
            bytes -= taken;
            if piece.is_empty() {
                parcel.pieces.pop_front();
            }
            if parcel.pieces.is_empty() {
                self.parcels.pop_front();
                self.begun = false;
            }
        }
    }

    /// Drops the oldest parcels of events until at most `limit` waits, and puts in their place the notice that `tell`
    /// writes. A notice that is still waiting is widened. Returns how many events were dropped.
    pub fn drop_oldest(&mut self, limit: usize, tell: &mut dyn FnMut(&Dropped) -> Bytes) -> u64 {
        let (mut dropped, mut at, mut count) = (None::<Dropped>, usize::from(self.begun), 0);
        let mut place = None;
        while at < self.parcels.len() && (self.waiting > limit || self.parcels[at].gap.is_some()) {
            let parcel = &self.parcels[at];
            let now = match (&parcel.gap, &parcel.span) {
                (Some(gap), _) => gap.clone(),
                (None, Some(span)) => Dropped { first: span.clone(), last: span.clone(), count: parcel.count },
                (None, None) => {
                    at += 1;
                    continue;
                }
            };
            self.waiting -= parcel.cost();
            count += parcel.count;
            self.parcels.remove(at);
            place.get_or_insert(at);
            dropped = Some(match dropped {
                None => now,
                Some(before) => Dropped { first: before.first, last: now.last, count: before.count + now.count },
            });
        }
        if let (Some(gap), Some(place)) = (dropped, place) {
            let notice = Parcel { gap: Some(gap.clone()), ..Parcel::of_bytes(tell(&gap)) };
            self.waiting += notice.cost();
            self.parcels.insert(place, notice);
        }
        count
    }

    /// Takes all events that wait, in order (their encoded bytes go). Parcels from before the policy changed brought no
    /// events along; they stay.
    pub fn take_events(&mut self) -> Vec<Arc<Event>> {
        let mut events = Vec::new();
        let keep = usize::from(self.begun);
        let waiting = self.parcels.split_off(keep);
        for mut parcel in waiting {
            if !parcel.events.is_empty() {
                self.waiting -= parcel.cost();
                events.append(&mut parcel.events);
            } else {
                self.parcels.push_back(parcel);
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(n: u64, len: usize) -> Parcel {
        let mark = |position| vec![Mark { partition: 1, epoch: crate::event::Epoch(1), position }];
        let span = Rc::new(Span { before: mark(n - 1), after: mark(n) });
        Parcel::of_events(VecDeque::from([Bytes::from(vec![n as u8; len])]), 1, span, Vec::new())
    }

    fn drained(queue: &mut Queue) -> Vec<u8> {
        let mut out = Vec::new();
        while !queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); 4];
            let n = queue.front(&mut slices);
            let bytes: Vec<u8> = slices[..n].iter().flat_map(|s| s.to_vec()).collect();
            let step = bytes.len().min(7);
            out.extend(&bytes[..step]);
            queue.wrote(step);
        }
        out
    }

    #[test]
    fn writes_in_order_whatever_the_socket_takes() {
        let mut queue = Queue::begun(parcel(1, 10));
        queue.push(parcel(2, 3));
        queue.push(parcel(3, 20));
        let want: Vec<u8> = [vec![1; 10], vec![2; 3], vec![3; 20]].concat();
        assert_eq!(drained(&mut queue), want);
        assert_eq!(queue.waiting(), 0);
    }

    fn tell(gap: &Dropped) -> Bytes {
        Bytes::from(format!("{}-{};", gap.first.before[0].position, gap.last.after[0].position))
    }

    #[test]
    fn drops_whole_parcels_and_never_the_one_being_written() {
        let mut queue = Queue::begun(parcel(1, 10));
        for n in 2..=9 {
            queue.push(parcel(n, 36));
        }
        assert_eq!(queue.waiting(), 800);
        assert_eq!(queue.drop_oldest(300, &mut tell), 5);
        assert_eq!(queue.drop_oldest(210, &mut tell), 1, "again: the waiting notice is widened");
        let want = [vec![1u8; 10], b"1-7;".to_vec(), vec![8; 36], vec![9; 36]].concat();
        assert_eq!(drained(&mut queue), want);
    }

    #[test]
    fn what_is_no_event_stays() {
        let mut queue = Queue::begun(parcel(1, 1));
        queue.push(Parcel::of_bytes(Bytes::from_static(b"pong")));
        queue.push(parcel(2, 400));
        assert_eq!(queue.drop_oldest(10, &mut tell), 1);
        assert_eq!(queue.drop_oldest(0, &mut tell), 0);
        assert_eq!(drained(&mut queue), b"\x01pong1-2;");
    }
}
