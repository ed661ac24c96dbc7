//! Bytes to one session: its backlog as the socket drains, its queue, and what happens when it is slow.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::audience::Key;
use super::fanout::count_delivery;
use super::queue::{Dropped, Parcel, Span};
use super::seat::{Life, Line, id_text};
use super::shard::Shard;
use super::tails::write_cursor;
use crate::close::Close;
use crate::cursor::Mark;
use crate::event::Event;
use crate::session::backlog::{Backlog, Missing, Pulled};
use crate::session::endpoint::OnSlow;
use crate::session::pace::every;
use crate::session::past::Here;
use crate::wire::form::{Gap, GapReason};

/// Bytes encoded for a session that catches up before they are written: what a socket takes at once.
const CHUNK: usize = 16 * 1024;
/// Chunks before others get their turn.
const CHUNKS: usize = 8;

/// Why filling a chunk stopped.
enum Filled {
    /// The chunk is full, or the turn is over.
    More,
    /// Nothing until a page was fetched.
    Later,
    /// Nothing until the shard moves on.
    Ahead,
    /// Live from here.
    Live,
    /// A poll has its page.
    Page {
        /// There is more to read at once.
        more: bool,
        /// The cursor to answer with, if it is not how far the backlog is.
        at: Option<Vec<Mark>>,
    },
}

impl Shard {
    /// Sends from a backlog while the socket takes it.
    pub(super) fn pump(&mut self, number: u32) {
        for _ in 0..CHUNKS {
            let session = &mut self.sessions[number as usize];
            if session.queue.is_some() || session.life == Life::Leaving {
                return;
            }
            let Some(mut backlog) = session.backlog.take() else { return };
            let reach: Vec<u32> = backlog.seen.iter().map(|mark| mark.partition).collect();
            let here = self.tails.here(&reach);
            if here.len() != reach.len() {
                return self.close(number, Close::Reload); // a stream went away under it
            }
            let mut chunk = std::mem::take(&mut self.scratch);
            chunk.clear();
            let filled = self.fill(number, &mut backlog, &here, &mut chunk);
            self.count_waiting(number); // what its pace holds by now
            let sent = chunk.is_empty() || self.write(number, &chunk);
            self.scratch = chunk;
            if !sent {
                return self.end(number, Close::Gone);
            }
            match filled {
                Filled::Live => return self.go_live(number, &backlog),
                Filled::Page { more, at } => {
                    let marks = at.unwrap_or(backlog.seen);
                    return self.answer(number, &marks, more);
                }
                Filled::Later if self.does_without(number, &backlog) => return,
                Filled::Later => {
                    if self.sessions[number as usize].queue.is_some() {
                        backlog.rest(); // else what it has of other partitions is needed in a moment
                    }
                    self.sessions[number as usize].backlog = Some(backlog);
                    self.later.insert(number);
                    return;
                }
                Filled::Ahead if self.has_page(number) => return self.answer(number, &backlog.seen, false),
                Filled::Ahead => {
                    backlog.rest();
                    self.sessions[number as usize].backlog = Some(backlog);
                    self.ahead.insert(number);
                    return;
                }
                Filled::More => {
                    let session = &mut self.sessions[number as usize];
                    if session.queue.is_some() {
                        backlog.rest();
                    }
                    session.backlog = Some(backlog);
                }
            }
        }
        self.busy.insert(number);
    }

    fn fill(&mut self, number: u32, backlog: &mut Backlog, here: &[Here], chunk: &mut Vec<u8>) -> Filled {
        let key = self.sessions[number as usize].key.clone();
        while chunk.len() < CHUNK {
            match backlog.pull(here, &mut |event| key.hears(event)) {
                Pulled::Event(event, in_turn) => {
                    if let Some(page) = self.catch_up_event(number, &key, &event, in_turn.then_some(&*backlog), chunk) {
                        return Filled::Page { more: page && backlog.is_behind(here), at: None };
                    }
                }
                Pulled::Say(bytes) => chunk.extend(bytes),
                Pulled::Open => {
                    let session = &self.sessions[number as usize];
                    key.form.open(&id_text(&session.own.id), &cursor_of(&backlog.seen), chunk);
                }
                Pulled::Newest(event) => {
                    if let Some(pace) = &mut self.sessions[number as usize].pace
                        && every(pace.rules(), event.topic.as_str()).is_some()
                    {
                        pace.hold(&event);
                    }
                }
                Pulled::Gap(missing) => {
                    let gap = self.gap(&key, &missing);
                    if gap.topics.is_empty() {
                        continue; // nothing it listens to lies there
                    }
                    let line = &mut self.sessions[number as usize].line;
                    match line {
                        Line::Socket(_) => key.form.gap(&gap, chunk),
                        Line::Poll(poll) if poll.gap.is_none() && poll.items.is_empty() => {
                            let mut json = Vec::new();
                            gap.write(&mut json);
                            poll.gap = Some(json);
                        }
                        // A page tells one gap, before its items: the next page begins with this one.
                        Line::Poll(_) => return Filled::Page { more: true, at: missing.from },
                    }
                    self.plan.counters.gaps[missing.reason as usize].add(1);
                }
                Pulled::Pause => return Filled::More,
                Pulled::Later => return Filled::Later,
                Pulled::Ahead => return Filled::Ahead,
                Pulled::Live => return Filled::Live,
            }
        }
        Filled::More
    }

    /// One event of the past: to the socket's chunk, to the page of a poll, or held by its pace. `Some(true)`: the page is
    /// full.
    fn catch_up_event(
        &mut self,
        number: u32,
        key: &Rc<Key>,
        event: &Arc<Event>,
        turn: Option<&Backlog>,
        chunk: &mut Vec<u8>,
    ) -> Option<bool> {
        let session = &mut self.sessions[number as usize];
        if let Some(pace) = &mut session.pace
            && every(pace.rules(), event.topic.as_str()).is_some()
        {
            pace.hold(event);
            return None;
        }
        self.plan.counters.replayed.add(1);
        match &mut session.line {
            Line::Socket(_) => {
                let cursor = turn.map(|backlog| cursor_of(&backlog.seen));
                key.form.event(event, cursor.as_deref(), chunk);
                None
            }
            Line::Poll(poll) => {
                let cursor = turn.map(|backlog| cursor_of(&backlog.seen));
                poll.put(key.form, event, cursor.as_deref());
                (turn.is_some() && poll.is_full()).then_some(true)
            }
        }
    }

    fn go_live(&mut self, number: u32, backlog: &Backlog) {
        if self.has_page(number) {
            return self.answer(number, &backlog.seen, false);
        }
        self.seat(number);
        self.release(number);
        self.schedule(number);
        self.busy.insert(number); // what it said meanwhile
    }

    /// Writes to a session whose queue is empty; false if its line is dead.
    fn write(&mut self, number: u32, bytes: &[u8]) -> bool {
        let now = self.timers.now();
        let session = &mut self.sessions[number as usize];
        session.wrote = now;
        session.send(bytes).is_ok()
    }

    /// Bytes for one session that are no event, in their place behind what waits.
    pub(super) fn send(&mut self, number: u32, bytes: &[u8]) {
        let Some(session) = self.sessions.get_mut(number as usize).filter(|s| s.life == Life::Here) else { return };
        if let Some(backlog) = &mut session.backlog {
            backlog.say(bytes.to_vec());
            return;
        }
        if self.write(number, bytes) { self.weigh(number) } else { self.end(number, Close::Gone) }
    }

    /// Something said to this session alone, in its form.
    pub(super) fn say(&mut self, number: u32, text: &[u8]) {
        let Some(session) = self.sessions.get(number as usize) else { return };
        let mut bytes = Vec::new();
        session.key.form.say(text, &mut bytes);
        self.send(number, &bytes);
    }

    /// Events out of their turn, to a live session.
    pub(super) fn send_events(&mut self, number: u32, events: &[Arc<Event>]) {
        let Some(session) = self.sessions.get(number as usize).filter(|_| !events.is_empty()) else { return };
        let (form, mut bytes) = (session.key.form, Vec::new());
        events.iter().for_each(|event| form.event(event, None, &mut bytes));
        count_delivery(&self.plan.counters, events.len(), bytes.len());
        self.send(number, &bytes);
    }

    /// What pace held back and may go now.
    pub(super) fn release(&mut self, number: u32) {
        let now = self.millis;
        let Some(session) = self.sessions.get_mut(number as usize) else { return };
        let Some(pace) = &mut session.pace else { return };
        let events = pace.due(now);
        self.count_waiting(number);
        self.send_events(number, &events);
    }

    /// The socket takes bytes again.
    pub(super) fn flush(&mut self, number: u32) {
        let now = self.timers.now();
        let Some(session) = self.sessions.get_mut(number as usize) else { return };
        if session.queue.is_some() {
            let drained = session.drain();
            session.wrote = now;
            self.count_waiting(number);
            match drained {
                Err(_) => return self.end(number, Close::Gone),
                Ok(false) => return,
                // Once only: each shutdown says anew that the socket takes bytes.
                Ok(true) if self.sessions[number as usize].life == Life::Leaving => return self.shut(number),
                Ok(true) => {}
            }
        }
        self.pump(number);
    }

    /// After bytes were queued: the count of what waits, and the policy of a session that has too much.
    pub(super) fn weigh(&mut self, number: u32) {
        if !self.count_waiting(number) {
            return;
        }
        let session = &self.sessions[number as usize];
        let waiting = session.waiting();
        if session.life == Life::Leaving || session.backlog.is_some() {
            return; // it is on its way out, or reads the past at its own speed
        }
        if waiting > self.plan.settings.queue {
            self.slow(number, self.plan.settings.queue);
        }
        // The longest of all lies with those who hold more than their part: other shards have nothing to give.
        let queues = self.plan.settings.queues;
        if self.all_waiting() > queues && self.waiting > queues / self.plan.shards {
            self.relieve(queues);
        }
    }

    /// What waits in all shards together.
    fn all_waiting(&self) -> usize {
        let others = self.plan.queued.load(Ordering::Relaxed).wrapping_sub(self.told_queued);
        others.wrapping_add(self.waiting)
    }

    /// All queues together are too long: the longest are treated as slow, until there is a tenth to spare, so that this
    /// look at every session is worth its while.
    fn relieve(&mut self, queues: usize) {
        let sessions = self.sessions.iter().map(|(number, session)| (session.waiting(), number as u32));
        let mut longest: Vec<_> = sessions.filter(|(waiting, _)| *waiting > 0).collect();
        longest.sort_unstable();
        while let Some((waiting, number)) = longest.pop().filter(|_| self.all_waiting() > queues / 10 * 9) {
            if self.sessions.contains(number as usize) {
                self.slow(number, waiting / 2);
            }
        }
    }

    /// Counts anew what waits for a session; whether it has become more. Whoever queues or holds something for one ends
    /// here, and forgetting to is put right the next time.
    pub(super) fn count_waiting(&mut self, number: u32) -> bool {
        let Some(session) = self.sessions.get_mut(number as usize) else { return false };
        let waiting = session.waiting();
        let before = std::mem::replace(&mut session.counted, waiting);
        self.waiting = self.waiting - before + waiting;
        waiting > before
    }

    /// A session has more waiting than `limit`.
    fn slow(&mut self, number: u32, limit: usize) {
        let session = &self.sessions[number as usize];
        if session.life == Life::Leaving {
            return self.end(number, Close::Gone); // it was told already
        }
        let policy = self.endpoints.get(&session.key.endpoint).map_or(OnSlow::Disconnect, |e| e.settings.on_slow);
        match policy {
            OnSlow::Disconnect => {}
            OnSlow::DropOldest => self.drop_oldest(number, limit),
            OnSlow::Latest => self.keep_latest(number),
        }
        self.count_waiting(number);
        let ends = self.sessions[number as usize].waiting() > limit;
        let did = if ends { OnSlow::Disconnect } else { policy };
        self.plan.counters.slow[did as usize].add(1);
        if ends {
            self.close(number, Close::Slow);
        }
    }

    fn drop_oldest(&mut self, number: u32, limit: usize) {
        let key = self.sessions[number as usize].key.clone();
        let reach = self.endpoints.get(&key.endpoint).map(|e| e.reach.clone()).unwrap_or_default();
        let Some(mut queue) = self.sessions[number as usize].queue.take() else { return };
        let mut gaps = 0;
        queue.drop_oldest(limit, &mut |dropped: &Dropped| {
            gaps += 1;
            let within = |marks: &[Mark]| -> Vec<Mark> {
                marks.iter().filter(|m| reach.binary_search(&m.partition).is_ok()).copied().collect()
            };
            let (from, to) = (within(&dropped.first.before), within(&dropped.last.after));
            let (reason, from) = (GapReason::Slow, Some(from));
            let missing = Missing { reason, from, to, hole: None, partitions: Vec::new(), lost: None };
            let gap = Gap { missed: Some(dropped.count), ..self.gap(&key, &missing) };
            let mut bytes = Vec::new();
            key.form.gap(&gap, &mut bytes);
            Bytes::from(bytes)
        });
        if gaps > 0 {
            self.plan.counters.gaps[GapReason::Slow as usize].add(1);
        }
        self.sessions[number as usize].queue = Some(queue);
    }

    /// Of all events that wait, the newest of each topic stays.
    fn keep_latest(&mut self, number: u32) {
        let session = &mut self.sessions[number as usize];
        let form = session.key.form;
        let Some(queue) = &mut session.queue else { return };
        let mut topics = HashSet::new();
        let mut events: Vec<_> = queue.take_events();
        events.reverse();
        events.retain(|event| topics.insert(event.topic.clone()));
        events.reverse();
        let mut bytes = Vec::new();
        events.iter().for_each(|event| form.event(event, None, &mut bytes));
        if !events.is_empty() {
            // Never dropped by position, so the span says nothing.
            let span = Rc::new(Span { before: Vec::new(), after: Vec::new() });
            queue.push(Parcel::of_events([Bytes::from(bytes)].into(), events.len() as u64, span, events));
        }
    }
}

/// A session's own cursor.
pub(super) fn cursor_of(marks: &[Mark]) -> Vec<u8> {
    let mut out = Vec::new();
    crate::cursor::write(marks, &mut out);
    out
}

impl Shard {
    /// The shard's cursor for a session that stands whole.
    pub(super) fn cursor(&self, number: u32) -> Vec<u8> {
        let session = &self.sessions[number as usize];
        let reach = self.endpoints.get(&session.key.endpoint).map(|e| e.reach.clone()).unwrap_or_default();
        let (mut marks, mut within, mut out) = (Vec::new(), Vec::new(), Vec::new());
        self.tails.marks(&mut marks);
        write_cursor(&marks, &reach, &mut within, &mut out);
        out
    }
}
