//! Time passes: heartbeats, pace, and how sessions end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::flow::cursor_of;
use super::seat::{Life, Line, Session, id_text};
use super::shard::Shard;
use super::timers::{TICK, Tick, ticks};
use crate::close::Close;
use crate::session::endpoint::Endpoint;
use crate::session::terms;
use crate::wire::form::Transport;

/// How long a session that said goodbye may take to go.
const GOODBYE: Tick = 20;
/// How often a waiting poll is checked for a client that has left.
const POLL_CHECK: Tick = 10;
/// The `ping` of sessions whose endpoint was removed and which leave one by one.
const PING: Tick = 250;

impl Shard {
    /// A session's timer is due.
    pub(super) fn tend(&mut self, number: u32) {
        let now = self.timers.now();
        let Some(session) = self.sessions.get(number as usize).filter(|s| s.timer <= now) else { return };
        if session.life == Life::Leaving {
            return self.end(number, Close::Gone);
        }
        if session.own.farewell.is_some() && session.own.publishing == 0 {
            return self.farewell(number);
        }
        if let Some((_, why)) = session.own.leave.filter(|(at, _)| *at <= now) {
            return self.close(number, why);
        }
        match &session.line {
            Line::Poll(poll) if poll.reply.is_closed() => return self.end(number, Close::Gone),
            Line::Poll(poll) if poll.until <= now && session.is_live() => {
                let marks = self.marks(number);
                return self.answer_page(number, marks);
            }
            Line::Poll(poll) if poll.fetch <= now && self.later.contains(&number) => return self.pump(number),
            // It is ahead of this shard: there is nothing for it, and it keeps its cursor.
            Line::Poll(poll) if poll.until <= now && self.ahead.contains(&number) => {
                let marks = self.marks(number);
                return self.answer(number, &marks, false);
            }
            Line::Poll(_) => {}
            Line::Socket(_) => {
                if session.is_live() {
                    self.release(number);
                }
                self.heartbeat(number);
            }
        }
        self.schedule(number);
    }

    /// Idle for its `ping`: say so; and if the last one was not answered, that was it.
    fn heartbeat(&mut self, number: u32) {
        let Some(session) = self.sessions.get(number as usize) else { return };
        // One that is ahead of this shard, or for which a page is being fetched, has nothing to wait for but time.
        let waits = self.ahead.contains(&number) || self.later.contains(&number);
        let busy = session.queue.is_some() || session.backlog.is_some() && !waits;
        if busy || self.timers.now() < self.idle_at(number) {
            return;
        }
        if session.pinged {
            return self.close(number, Close::Silent);
        }
        self.settle(number);
        let Some(session) = self.sessions.get(number as usize) else { return };
        let form = session.key.form;
        let cursor = match &session.backlog {
            Some(backlog) => backlog.cursor().map(cursor_of),
            None => Some(self.cursor(number)),
        };
        let mut bytes = Vec::new();
        match cursor {
            Some(cursor) => form.heartbeat(&cursor, &mut bytes),
            None => form.breath(&mut bytes),
        }
        let session = &mut self.sessions[number as usize];
        let backlog = session.backlog.take(); // not behind it: this goes out now
        // With a backlog its input is not read: its pong would not be heard.
        session.pinged = form.transport == Transport::WebSocket && backlog.is_none();
        self.send(number, &bytes);
        if let Some(session) = self.sessions.get_mut(number as usize) {
            session.backlog = backlog;
        }
    }

    /// When a session has been idle for its `ping`; up to a tenth earlier, so that sessions that began together do not all
    /// breathe at once.
    fn idle_at(&self, number: u32) -> Tick {
        let session = &self.sessions[number as usize];
        let ping = self.endpoints.get(&session.key.endpoint).map_or(PING, |e| ticks(e.settings.ping));
        session.wrote + ping - (u64::from(number % 10) * u64::from(ping) / 100) as Tick
    }

    /// Sets the one timer of a session to the next thing that is due.
    pub(super) fn schedule(&mut self, number: u32) {
        let Some(session) = self.sessions.get(number as usize).filter(|s| s.life == Life::Here) else { return };
        let now = self.timers.now();
        let mut next = self.idle_at(number);
        if next <= now {
            next = now + POLL_CHECK; // it has something waiting, or catches up: look again
        }
        if let Line::Poll(poll) = &session.line {
            let until = if self.later.contains(&number) { poll.fetch } else { poll.until };
            next = until.min(now + POLL_CHECK);
        }
        if let Some((at, _)) = session.own.leave {
            next = next.min(at);
        }
        if session.own.farewell.is_some() && session.own.publishing == 0 {
            next = now + 1; // by then it has been served what it published
        }
        if let Some(due) = session.pace.as_ref().filter(|_| session.is_live()).and_then(|p| p.next()) {
            let wait = due.saturating_sub(self.millis).div_ceil(TICK.as_millis() as u64);
            next = next.min(now + wait.max(1) as Tick);
        }
        self.remind(number, next);
    }

    fn remind(&mut self, number: u32, at: Tick) {
        let now = self.timers.now();
        let session = &mut self.sessions[number as usize];
        let at = at.max(now + 1);
        if session.timer <= now || at < session.timer {
            session.timer = at;
            self.timers.insert(at, number);
        }
    }

    /// Ends a session with a word: `relay.close` where there is a form for it, and the transport's own ending.
    pub(super) fn close(&mut self, number: u32, why: Close) {
        let session = &self.sessions[number as usize];
        let retry = why.retry_ms().map(fastrand::u64);
        let mut bytes = Vec::new();
        session.key.form.close(why, retry, &mut bytes);
        self.leave(number, why, &bytes);
    }

    /// The last bytes of a session; then it waits a moment for the other side to go first.
    pub(super) fn leave(&mut self, number: u32, why: Close, last: &[u8]) {
        if why != Close::Slow {
            self.settle(number); // one that is slow comes again for it; and serving it here would make others slow in turn
        }
        if self.sessions.get(number as usize).is_none_or(|s| s.life == Life::Leaving) {
            return;
        }
        if matches!(self.sessions[number as usize].line, Line::Poll(_)) {
            return self.cut_short(number);
        }
        self.unseat(number);
        self.note(number, why);
        let session = &mut self.sessions[number as usize];
        session.life = Life::Leaving;
        (session.backlog, session.pace) = (None, None);
        if let Some(queue) = &mut session.queue
            && why == Close::Slow
        {
            queue.forget(); // it would not read them anyway
        }
        let alive = session.send(last).is_ok();
        session.timer = self.timers.now() + GOODBYE;
        let timer = session.timer;
        self.timers.insert(timer, number);
        self.count_waiting(number);
        match (alive, self.sessions[number as usize].queue.is_none()) {
            (false, _) => self.end(number, why),
            (true, true) => self.shut(number),
            (true, false) => {}
        }
    }

    /// All is said: nothing more will be written, the other side's end is awaited.
    pub(super) fn shut(&mut self, number: u32) {
        let Line::Socket(socket) = &self.sessions[number as usize].line else { return };
        if socket.shutdown(std::net::Shutdown::Write).is_err() {
            self.end(number, Close::Gone);
        }
    }

    /// A session is no more; its slots and its socket go with it.
    pub(super) fn end(&mut self, number: u32, why: Close) {
        self.take_out(number, why);
    }

    /// A session is no more here.
    pub(super) fn take_out(&mut self, number: u32, why: Close) -> Session {
        self.unseat(number);
        if self.sessions[number as usize].life == Life::Here {
            self.note(number, why);
        }
        let session = self.sessions.remove(number as usize);
        self.waiting -= session.counted;
        for set in [&mut self.busy, &mut self.ahead, &mut self.later] {
            set.remove(&number);
        }
        self.learning.remove(&number);
        session
    }

    /// Counts and logs an end, once.
    fn note(&mut self, number: u32, why: Close) {
        let session = &self.sessions[number as usize];
        let transport = session.key.form.transport;
        self.plan.counters.sessions[transport as usize].sub(1);
        self.plan.counters.closes[why as usize].add(1);
        let endpoint = self.endpoints.get(&session.key.endpoint);
        let name = endpoint.map_or("", |e| {
            e.counters.closed(transport);
            e.settings.name()
        });
        let id = id_text(&session.own.id);
        if why.level() == tracing::Level::DEBUG {
            tracing::debug!(endpoint = name, session = id, code = why.code(), reason = why.reason(), "session ended");
        } else {
            tracing::info!(endpoint = name, session = id, code = why.code(), reason = why.reason(), "session ended");
        }
    }

    /// The endpoints changed. Sessions of one that is gone, or that changed in what it promised, leave; all others go on
    /// under the new settings.
    pub(super) fn change(&mut self, endpoints: HashMap<u32, Arc<Endpoint>>, over: Duration) {
        self.finish_walk();
        self.tails.refresh(&self.plan.streams);
        let before = std::mem::replace(&mut self.endpoints, endpoints);
        let numbers: Vec<u32> = self.sessions.iter().map(|(n, _)| n as u32).collect();
        let (mut leaving, now) = (Vec::new(), self.timers.now());
        for number in numbers {
            let Some(session) = self.sessions.get(number as usize) else { continue }; // it made room for another
            let id = session.key.endpoint;
            match (before.get(&id), self.endpoints.get(&id).cloned()) {
                (_, None) => leaving.push((number, Close::Removed)),
                (Some(old), Some(new)) if old.settings.breaks(&new.settings) => leaving.push((number, Close::Reload)),
                (Some(old), Some(new)) if !Arc::ptr_eq(old, &new) => {
                    let here = self.tails.here(&new.reach);
                    if let Some(backlog) = &mut self.sessions[number as usize].backlog {
                        backlog.widen(&here);
                    }
                    self.follow(number, old, &new);
                }
                _ => {}
            }
        }
        let (known, classes) = (&self.endpoints, &mut self.classes);
        self.audiences.refit(|audience| {
            if let Some(endpoint) = known.get(&audience.key.endpoint) {
                classes.leave(audience.class);
                audience.class = classes.enter(audience.key.form, &endpoint.reach);
                audience.on_slow = endpoint.settings.on_slow;
            }
        });
        self.depart(&leaving, now, over);
    }

    /// A session goes on under changed settings.
    fn follow(&mut self, number: u32, old: &Endpoint, new: &Endpoint) {
        let session = &self.sessions[number as usize];
        let id = id_text(&session.own.id);
        let scope = session.scope(&id, self.clock);
        let select = new.settings.select.as_ref().and_then(|rule| terms::select(rule, &scope).ok());
        let pace = terms::paces(&new.settings, None, &scope).ok().flatten();
        if old.settings.select != new.settings.select && !session.own.own_select {
            self.select(number, select, false);
        }
        let Some(session) = self.sessions.get(number as usize) else { return };
        let paces = session.key.form.transport != Transport::Poll;
        if old.settings.pace != new.settings.pace && paces && !session.own.own_pace {
            self.pace(number, pace, false);
        }
    }

    /// All sessions leave.
    pub(super) fn drain_all(&mut self, over: Duration) {
        self.draining = true;
        let all: Vec<_> = self.sessions.iter().map(|(n, _)| (n as u32, Close::Drain)).collect();
        self.depart(&all, self.timers.now(), over);
    }

    /// Spreads departures evenly.
    pub(super) fn depart(&mut self, leaving: &[(u32, Close)], now: Tick, over: Duration) {
        let over = if over.is_zero() { 0 } else { u64::from(ticks(over)) };
        for (at, (number, why)) in leaving.iter().enumerate() {
            let when = now + (over * at as u64 / leaving.len() as u64) as Tick + 1;
            let Some(own) = self.sessions.get_mut(*number as usize).map(|s| &mut s.own) else { continue };
            if own.leave.is_none_or(|(at, _)| at > when) {
                own.leave = Some((when, *why));
            }
            self.schedule(*number);
        }
    }
}
