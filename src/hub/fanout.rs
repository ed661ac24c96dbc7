//! The fan-out, the hot path: all events that wait are taken at once, matched and encoded once for each audience, and
//! go to each member in one write.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::audience::{Audience, NONE};
use super::queue::{Parcel, Queue, Span};
use super::seat::{Life, Session};
use super::shard::Shard;
use crate::close::Close;
use crate::cursor::Mark;
use crate::event::{Event, Kind};
use crate::metrics::ShardCounters;
use crate::session::endpoint::OnSlow;
use crate::session::pace::{Offer, every};
use crate::wire::form::Transport;

/// Sessions served before the shard looks at its sockets and mail again: some 1.5 ms.
const SLICE: usize = 256;
/// Stretches written by one call; more are gathered first. Batches seldom leave an audience more.
const GATHER: usize = 16;

/// The batch being delivered.
#[derive(Default)]
pub struct Fanout {
    /// Counts batches, so that a session knows the last one it was served.
    batch: u64,
    /// Counts events, for audiences.
    serial: u64,
    events: Vec<Arc<Event>>,
    /// Taken, but behind the batch: it begins with the gap of a source, which is no event.
    rest: Vec<Arc<Event>>,
    /// Audiences with something in it.
    touched: Vec<u32>,
    /// Where the walk is: an audience of `touched`, a seat.
    at: (usize, usize),
    walking: bool,
    /// Audiences with seats that were emptied during the walk.
    ragged: Vec<u32>,
    before: Vec<Mark>,
    marks: Vec<Mark>,
    span: Option<Rc<Span>>,
    ids: Vec<u32>,
}

impl Fanout {
    /// The number of the present batch.
    pub fn batch(&self) -> u64 {
        self.batch
    }

    /// Whether some members are still to be served.
    pub fn is_walking(&self) -> bool {
        self.walking
    }

    /// Whether something was taken that is not delivered yet.
    pub fn has_more(&self) -> bool {
        self.walking || !self.rest.is_empty()
    }

    /// The events of the present batch, by their numbers.
    pub fn events(&self) -> &[Arc<Event>] {
        &self.events
    }

    /// An audience has an empty seat.
    pub fn ragged(&mut self, audience: u32) {
        self.ragged.push(audience);
    }

    /// The positions before the batch.
    pub fn before(&self) -> &[Mark] {
        &self.before
    }

    /// The positions around the batch, made when the first session needs them.
    fn span(&mut self) -> Rc<Span> {
        let make = || Rc::new(Span { before: self.before.clone(), after: self.marks.clone() });
        self.span.get_or_insert_with(make).clone()
    }
}

/// What became of one delivery.
enum Delivered {
    Sent,
    Queued,
    Dead,
}

impl Shard {
    /// Goes on with the batch, or takes the next one.
    pub(super) fn fan_out(&mut self) {
        if !self.fanout.walking {
            if self.tails.stale(&self.plan.streams) {
                self.tails.refresh(&self.plan.streams);
            }
            if !self.take_batch() {
                return;
            }
        }
        self.walk();
    }

    /// Takes what is new and finds who hears it; false if there is nothing to deliver.
    fn take_batch(&mut self) -> bool {
        self.fanout.events.clear();
        self.tails.marks(&mut self.fanout.before);
        let mut events = self.take_events();
        let mut end = events.len();
        for (number, event) in events.iter().enumerate() {
            if event.payload.kind == Kind::Gap {
                end = number;
                break;
            }
            self.tails.advance(event);
            self.tails.marks(&mut self.fanout.marks);
            self.match_event(number as u32, event);
        }
        self.classes.seal();
        if end < events.len() {
            self.fanout.rest = events.split_off(end);
            if end == 0 {
                let gap = self.fanout.rest.remove(0);
                self.tell_gap(&gap);
            }
        }
        let taken = !events.is_empty();
        self.plan.counters.events.add(events.len() as u64);
        self.fanout.events = events;
        if taken {
            self.fanout.batch += 1;
            (self.fanout.at, self.fanout.walking, self.fanout.span) = ((0, 0), true, None);
        }
        taken
    }

    /// What was left behind the last batch, or what is new.
    fn take_events(&mut self) -> Vec<Arc<Event>> {
        if !self.fanout.rest.is_empty() {
            return std::mem::take(&mut self.fanout.rest);
        }
        let mut events = std::mem::take(&mut self.fanout.events);
        let turned = self.tails.take(&mut events);
        if turned.any {
            self.turned(&turned.lost);
            self.tails.marks(&mut self.fanout.before);
        }
        events
    }

    fn match_event(&mut self, number: u32, event: &Event) {
        self.fanout.serial += 1;
        self.audiences.matching(event.topic.as_str(), self.fanout.serial, &mut self.fanout.ids);
        let mut parsed = None;
        for &id in &self.fanout.ids {
            let audience = self.audiences.get_mut(id);
            if let Some(select) = &audience.key.select {
                let value = parsed.get_or_insert_with(|| event.json());
                if !select.passes(value.as_ref()) {
                    continue;
                }
            }
            if audience.events.is_empty() && audience.paced.is_empty() {
                self.fanout.touched.push(id);
            }
            let paced = audience.key.pace.as_ref().is_some_and(|rules| every(rules, event.topic.as_str()).is_some());
            if paced {
                audience.paced.push(number);
            } else if audience.key.form.transport == Transport::Poll {
                audience.events.push(number); // only a bell: a poll reads its page itself
            } else {
                let stretch = self.classes.encode(audience.class, number, event, &self.fanout.marks);
                audience.add(number, stretch);
            }
        }
    }

    /// Serves all members that are left.
    pub(super) fn finish_walk(&mut self) {
        while self.fanout.walking {
            self.walk();
        }
    }

    /// Serves one slice of the members.
    fn walk(&mut self) {
        let mut left = SLICE;
        while let Some(&id) = self.fanout.touched.get(self.fanout.at.0) {
            let members = self.audiences.get(id).members.len();
            while self.fanout.at.1 < members {
                if left == 0 {
                    return;
                }
                left -= 1;
                let member = self.audiences.get(id).members[self.fanout.at.1];
                self.fanout.at.1 += 1;
                if member != NONE && self.sessions[member as usize].batch != self.fanout.batch {
                    self.serve(member);
                }
            }
            self.fanout.at = (self.fanout.at.0 + 1, 0);
        }
        self.finish_batch();
    }

    fn finish_batch(&mut self) {
        self.fanout.walking = false;
        for id in std::mem::take(&mut self.fanout.touched) {
            self.audiences.get_mut(id).settle();
        }
        let sessions = &mut self.sessions;
        for id in std::mem::take(&mut self.fanout.ragged) {
            let class = self.audiences.compact(id, &mut |member, seat| sessions[member as usize].seat = seat);
            if let Some(class) = class {
                self.classes.leave(class);
            }
        }
        self.classes.settle();
        let oldest = self.fanout.events.first().map(|event| event.time);
        if let Some(time) = oldest {
            let took = crate::event::Time::now().0.saturating_sub(time.0);
            self.plan.counters.latency.observe(took * 1000, 1);
        }
        self.fanout.events.clear();
        self.look_again();
    }

    /// Before a session moves or is told a cursor: it gets what the batch still has for it.
    pub(super) fn settle(&mut self, number: u32) {
        let session = &self.sessions[number as usize];
        if self.fanout.walking && session.is_live() && session.batch != self.fanout.batch {
            self.serve(number);
        }
    }

    /// Gives one member its part of the batch.
    fn serve(&mut self, number: u32) {
        let session = &mut self.sessions[number as usize];
        let audience = self.audiences.get(session.audience);
        if audience.key.form.transport == Transport::Poll && !audience.events.is_empty() {
            return self.answer_batch(number); // which begins before this batch, as long as it is not marked as served
        }
        session.batch = self.fanout.batch;
        if !audience.paced.is_empty() {
            self.offer(number);
        }
        let Some(session) = self.sessions.get_mut(number as usize) else { return };
        let Some(audience) = (session.audience != NONE).then(|| self.audiences.get(session.audience)) else { return };
        if audience.stretches.is_empty() {
            return;
        }
        session.wrote = self.timers.now();
        match deliver(session, audience, self.classes.block(audience.class), &mut self.fanout) {
            Delivered::Sent => count_delivery(&self.plan.counters, audience.events.len(), audience.bytes()),
            Delivered::Queued => {
                count_delivery(&self.plan.counters, audience.events.len(), audience.bytes());
                self.weigh(number);
            }
            Delivered::Dead => self.end(number, Close::Gone),
        }
    }

    /// Offers the paced events of the batch to a session's pace.
    fn offer(&mut self, number: u32) {
        let now = self.millis;
        let session = &mut self.sessions[number as usize];
        let audience = self.audiences.get(session.audience);
        let Some(pace) = &mut session.pace else { return };
        let mut go = Vec::new();
        for &event in &audience.paced {
            let event = &self.fanout.events[event as usize];
            match pace.offer(event, now) {
                Offer::Now => go.push(event.clone()),
                Offer::Until(_) => {}
            }
        }
        self.weigh(number);
        self.send_events(number, &go);
        self.schedule(number);
    }
}

impl Audience {
    fn bytes(&self) -> usize {
        self.stretches.iter().map(|(start, end)| (end - start) as usize).sum()
    }
}

/// Writes the stretches of a block, or what the socket does not take into the queue.
fn deliver(session: &mut Session, audience: &Audience, block: &Bytes, fanout: &mut Fanout) -> Delivered {
    debug_assert!(session.life == Life::Here);
    let piece = |&(start, end): &(u32, u32)| &block[start as usize..end as usize];
    if let Some(queue) = &mut session.queue {
        queue.push(parcel(audience, block, 0, fanout));
        return Delivered::Queued;
    }
    let wrote = match audience.stretches.as_slice() {
        [one] => session.write(&[IoSlice::new(piece(one))]),
        few if few.len() <= GATHER => {
            let mut slices = [IoSlice::new(&[]); GATHER];
            few.iter().zip(&mut slices).for_each(|(stretch, slice)| *slice = IoSlice::new(piece(stretch)));
            session.write(&slices[..few.len()])
        }
        many => session.write(&[IoSlice::new(&many.iter().map(piece).collect::<Vec<_>>().concat())]),
    };
    match wrote {
        Ok(wrote) if wrote == audience.bytes() => Delivered::Sent,
        Ok(wrote) => {
            let parcel = parcel(audience, block, wrote, fanout);
            session.queue = Some(Box::new(if wrote > 0 { Queue::begun(parcel) } else { Queue::waits(parcel) }));
            Delivered::Queued
        }
        Err(_) => Delivered::Dead,
    }
}

/// The audience's part of a block as queued pieces, without its first `skip` bytes. A piece shares the block only if it
/// is a good part of it: a slow session must not keep alive what it does not count.
fn parcel(audience: &Audience, block: &Bytes, mut skip: usize, fanout: &mut Fanout) -> Parcel {
    let mut pieces = VecDeque::new();
    for &(start, end) in &audience.stretches {
        let (start, end) = (start as usize, end as usize);
        let skipped = skip.min(end - start);
        skip -= skipped;
        let start = start + skipped;
        if start < end {
            let share = (end - start) * 2 >= block.len();
            pieces.push_back(if share { block.slice(start..end) } else { Bytes::copy_from_slice(&block[start..end]) });
        }
    }
    let events = match audience.on_slow {
        OnSlow::Latest => audience.events.iter().map(|&n| fanout.events[n as usize].clone()).collect(),
        OnSlow::Disconnect | OnSlow::DropOldest => Vec::new(),
    };
    Parcel::of_events(pieces, audience.events.len() as u64, fanout.span(), events)
}

/// One write of so many events.
pub(super) fn count_delivery(counters: &ShardCounters, events: usize, bytes: usize) {
    counters.deliveries.add(events as u64);
    counters.delivered_bytes.add(bytes as u64);
    counters.writes.add(1);
}
