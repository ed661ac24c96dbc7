//! The first moments of a session in its shard.

use std::collections::VecDeque;
use std::sync::Arc;

use super::audience::{Key, NONE};
use super::mail::Opening;
use super::poll::FETCH;
use super::seat::{Life, Line, Own, Session};
use super::shard::Shard;
use super::timers::ticks;
use crate::close::Close;
use crate::session::backlog::Backlog;
use crate::session::endpoint::{Endpoint, Replay};
use crate::session::pace::Pace;
use crate::session::terms::Begin;
use crate::wire::form::Transport;
use crate::wire::websocket;

/// What is left of an opening when the session has its seat.
pub(super) struct Start {
    begin: Begin,
    first: Vec<u8>,
    hello: Option<Vec<u8>>,
    early: bytes::Bytes,
}

/// Makes the session; it is not yet in the slab.
pub(super) fn seat(opening: Opening, endpoint: &Endpoint, shard: &Shard) -> (Session, Start) {
    let now = shard.timers.now();
    let Opening { mut line, head, early, id, endpoint: _, form, terms, hello, request, permits } = opening;
    if let Line::Poll(poll) = &mut line {
        poll.until = if poll.wait.is_zero() { now } else { now + ticks(poll.wait) };
        poll.fetch = poll.until.max(now + FETCH);
    }
    let key = Key {
        endpoint: endpoint.id,
        form,
        patterns: terms.patterns,
        select: terms.select,
        // A poll has no time to pace: it is asked again at its own.
        pace: terms.pace.filter(|_| form.transport != Transport::Poll),
    };
    // 80-100 %: sessions that began together do not leave together.
    let leave =
        shard.plan.settings.session_age.map(|age| (now + ticks(age.mul_f64(0.8 + 0.2 * fastrand::f64())), Close::Age));
    let own = Own {
        id,
        allow: terms.allow,
        request: request.filter(|_| endpoint.settings.needs_request()),
        rate: None,
        heard: VecDeque::new(),
        stray: 0,
        publishing: 0,
        farewell: None,
        leave,
        own_select: false,
        own_pace: terms.own_pace,
        permits,
    };
    let session = Session {
        line,
        pace: key.pace.clone().map(|rules| Box::new(Pace::new(rules))),
        key: shard.audiences.shared(key),
        audience: NONE,
        seat: NONE,
        batch: shard.fanout.batch(),
        wrote: now,
        heard: now,
        timer: 0,
        life: Life::Here,
        pinged: false,
        readable: true,
        reader: websocket::Reader::default(),
        queue: None,
        backlog: None,
        counted: 0,
        own: Box::new(own),
    };
    (session, Start { begin: terms.begin, first: head, hello, early })
}

impl Shard {
    /// The session's backlog, and the first bytes.
    pub(super) fn begin(&mut self, number: u32, endpoint: &Arc<Endpoint>, mut start: Start) {
        let reach = self.tails.partitions(&endpoint.reach);
        let most = self.plan.settings.replay;
        let session = &mut self.sessions[number as usize];
        let key = session.key.clone();
        let fallback = match (&session.line, endpoint.settings.replay) {
            (Line::Poll(poll), Replay::Newest(n)) => Replay::Newest(n.min(poll.limit as u64)),
            (_, replay) => replay,
        };
        let begin = match (&session.line, start.begin) {
            (Line::Poll(poll), Begin::Fresh(Replay::Newest(n))) => {
                Begin::Fresh(Replay::Newest(n.min(poll.limit as u64)))
            }
            (_, begin) => begin,
        };
        let mut backlog = Backlog::begin(&begin, fallback, &reach, most);
        if matches!(begin, Begin::After(_)) {
            self.plan.counters.resumes.add(1);
            if session.pace.is_some() {
                backlog.remind(&reach, most);
            }
        }
        if key.form.transport != Transport::Poll {
            key.form.prelude(&mut start.first);
            if let Some(hello) = start.hello {
                key.form.say(&hello, &mut start.first);
            }
            backlog.greet(start.first);
            backlog.announce();
        }
        session.backlog = Some(Box::new(backlog));
        self.count_waiting(number);
        self.pump(number);
        if !start.early.is_empty() && self.sessions.contains(number as usize) {
            let mut early = start.early.to_vec();
            self.hear(number, &mut early);
        }
    }
}
