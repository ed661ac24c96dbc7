//! Polls: one page, then it is over.

use std::sync::Arc;

use super::flow::cursor_of;
use super::seat::Line;
use super::shard::Shard;
use super::timers::Tick;
use crate::close::Close;
use crate::cursor::Mark;
use crate::event::Event;
use crate::session::backlog::Backlog;
use crate::session::endpoint::Replay;
use crate::session::terms::Begin;

/// How long a poll waits for a page that is being fetched, also if it asked to wait for nothing: an empty answer would say
/// that there is none.
pub(super) const FETCH: Tick = 20;
/// A poll's answer ends above this, so that a page of large events does not become a flood.
pub(super) const PAGE_BYTES: usize = 1024 * 1024;

impl Shard {
    /// Whether this is a poll with something to answer, or one that waits no longer.
    pub(super) fn has_page(&self, number: u32) -> bool {
        match &self.sessions[number as usize].line {
            Line::Poll(poll) => poll.count > 0 || poll.gap.is_some() || poll.until <= self.timers.now(),
            Line::Socket(_) => false,
        }
    }

    /// A page is being fetched. A poll that has something of its own turn, or waits no longer, does without; true if so.
    pub(super) fn does_without(&mut self, number: u32, backlog: &Backlog) -> bool {
        let now = self.timers.now();
        let Line::Poll(poll) = &self.sessions[number as usize].line else { return false };
        let has_some = poll.count > 0 || poll.gap.is_some();
        match backlog.cursor() {
            Some(marks) if has_some || poll.fetch <= now => self.answer(number, marks, true),
            // What it was sent so far has no place that a cursor could name: it must ask again from where it began.
            None if poll.fetch <= now => self.end(number, Close::Asked),
            _ => return false,
        }
        true
    }

    /// A poll must go before its time.
    pub(super) fn cut_short(&mut self, number: u32) {
        let backlog = self.sessions[number as usize].backlog.as_ref();
        match backlog.is_some_and(|backlog| backlog.cursor().is_none()) {
            true => drop(self.take_out(number, Close::Asked)), // in the middle of what no cursor names: as above
            false => {
                let marks = self.marks(number);
                self.answer(number, &marks, false);
            }
        }
    }

    /// Answers a poll; that ends it.
    pub(super) fn answer(&mut self, number: u32, marks: &[Mark], more: bool) {
        let Line::Poll(poll) = self.take_out(number, Close::Asked).line else { return };
        let mut body = b"{\"items\":[".to_vec();
        body.extend(poll.items);
        body.extend(b"],\"cursor\":\"");
        crate::cursor::write(marks, &mut body);
        body.extend(b"\",\"gap\":");
        body.extend(poll.gap.as_deref().unwrap_or(b"null"));
        body.extend(if more { &b",\"more\":true}"[..] } else { b",\"more\":false}" });
        let _ = poll.reply.send(body); // nobody waits any more: that is the client's affair
    }

    /// Something came for a waiting poll. What lies in no log is put on its page here and now, as much as it takes: it
    /// cannot be read again.
    pub(super) fn answer_batch(&mut self, number: u32) {
        let marks = self.marks(number);
        let session = &mut self.sessions[number as usize];
        let (audience, form) = (self.audiences.get(session.audience), session.key.form);
        let events = audience.events.iter().map(|&event| &self.fanout.events()[event as usize]);
        let live: Vec<&Arc<Event>> = events.filter(|event| event.place.live).collect();
        let more = live.len() < audience.events.len();
        if let Line::Poll(poll) = &mut session.line
            && !live.is_empty()
        {
            let cursor = cursor_of(&marks);
            live.into_iter().take(poll.limit).for_each(|event| poll.put(form, event, Some(&cursor)));
            if poll.is_full() {
                return self.answer(number, &marks, more);
            }
        }
        self.answer_page(number, marks);
    }

    /// Something came for a waiting poll, or its time is up: it reads its page from where it stood before this batch.
    pub(super) fn answer_page(&mut self, number: u32, marks: Vec<Mark>) {
        let now = self.timers.now();
        let key = self.sessions[number as usize].key.clone();
        let Some(endpoint) = self.endpoints.get(&key.endpoint) else {
            return self.answer(number, &marks, false); // removed: nothing more will come
        };
        let reach = self.tails.partitions(&endpoint.reach);
        let most = self.plan.settings.replay;
        let backlog = Backlog::begin(&Begin::After(Some(marks)), Replay::None, &reach, most);
        self.unseat(number);
        let session = &mut self.sessions[number as usize];
        session.backlog = Some(Box::new(backlog));
        if let Line::Poll(poll) = &mut session.line {
            poll.until = poll.until.min(now);
        }
        self.pump(number);
    }

    /// How far a session is: what a live one has not been served of the present batch is still before it.
    pub(super) fn marks(&self, number: u32) -> Vec<Mark> {
        let session = &self.sessions[number as usize];
        if let Some(backlog) = &session.backlog {
            return backlog.seen.clone();
        }
        let Some(endpoint) = self.endpoints.get(&session.key.endpoint) else { return Vec::new() };
        let mut marks = Vec::new();
        self.tails.marks(&mut marks);
        if self.fanout.is_walking() && session.batch != self.fanout.batch() {
            marks = self.fanout.before().to_vec();
        }
        marks.retain(|m| endpoint.reach.binary_search(&m.partition).is_ok());
        marks
    }
}
