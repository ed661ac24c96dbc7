//! What a session says: read from its socket, understood, done. Input waits in the socket while a session catches up, so
//! a command never meets half a backlog, and nothing piles up here.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;

use super::audience::Key;
use super::mail::Mail;
use super::seat::{Heard, Life, Line, Session, id_text};
use super::shard::Shard;
use crate::close::Close;
use crate::cursor::Mark;
use crate::event::{Kind, Payload};
use crate::gate::limits::CommandRate;
use crate::select::Where;
use crate::session::backlog::{Asked, Backlog};
use crate::session::command::{Deed, Speaker, Understood, error, understand};
use crate::session::endpoint::{Endpoint, Replay};
use crate::session::pace::Pace;
use crate::session::past::Here;
use crate::session::terms::{Pacing, unique};
use crate::stream::Draft;
use crate::template::Scope;
use crate::topic::Pattern;
use crate::wire::form::Transport;
use crate::wire::websocket::{self, Fault, Input, Opcode};

/// Reads of one session before others get their turn.
const ROUNDS: usize = 4;
/// What an SSE or ndjson session may send before it is shown the door: it has nothing to say.
const STRAY: usize = 4096;

impl Shard {
    /// Reads what is there, and does what it says.
    pub(super) fn listen(&mut self, number: u32) {
        for _ in 0..ROUNDS {
            self.obey(number);
            let Some(session) = self.sessions.get_mut(number as usize) else { return };
            let Line::Socket(socket) = &session.line else { return };
            if !session.readable || session.backlog.is_some() || !session.own.heard.is_empty() {
                return;
            }
            let mut input = std::mem::take(&mut self.input);
            let read = (&*socket).read(&mut input);
            match read {
                Ok(0) => self.end(number, Close::Gone),
                Ok(n) => self.hear(number, &mut input[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => session.readable = false,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.end(number, Close::Gone),
            }
            self.input = input;
        }
        self.busy.insert(number);
    }

    /// Bytes came.
    pub(super) fn hear(&mut self, number: u32, bytes: &mut [u8]) {
        let session = &mut self.sessions[number as usize];
        session.heard = self.timers.now();
        session.pinged = false;
        if session.key.form.transport != Transport::WebSocket {
            session.own.stray += bytes.len();
            if session.own.stray > STRAY && session.life == Life::Here {
                self.close(number, Close::Policy);
            }
            return;
        }
        let mut closed = None;
        // More at once is more than the rate allows; it must not wait here while a backlog keeps it from being acted on.
        let rate = self.plan.settings.commands;
        let (most, mut flood) = ((rate.burst as usize).saturating_add(rate.per_second as usize), false);
        let (life, heard) = (session.life, &mut session.own.heard);
        let fed = session.reader.feed(bytes, self.plan.settings.frame, &mut |input| {
            match input {
                Input::Close(code) => closed = Some(code),
                _ if life == Life::Leaving => {}
                Input::Text(text) => heard.push_back(Heard::Text(Bytes::copy_from_slice(text.as_bytes()))),
                Input::Binary(data) => heard.push_back(Heard::Binary(Bytes::copy_from_slice(data))),
                Input::Ping(data) => heard.push_back(Heard::Ping(Bytes::copy_from_slice(data))),
                Input::Pong(_) => {}
            }
            flood = heard.len() > most;
            closed.is_none() && !flood
        });
        match (fed, closed) {
            (_, Some(code)) => self.asked_to_close(number, code),
            (Err(fault), _) => {
                self.obey(number); // what came before the fault still counts
                self.fail(number, fault);
            }
            (Ok(()), None) => self.obey(number),
        }
        if flood && self.sessions.get(number as usize).is_some_and(|s| s.life == Life::Here) {
            self.close(number, Close::TooManyCommands);
        }
    }

    fn fail(&mut self, number: u32, fault: Fault) {
        let why = match fault {
            Fault::Protocol(what) => {
                tracing::debug!(what, "a session broke the WebSocket protocol");
                Close::Protocol
            }
            Fault::BadText => Close::BadText,
            Fault::TooBig => Close::TooBig,
        };
        match self.sessions.get(number as usize).map(|s| s.life) {
            Some(Life::Here) => self.close(number, why),
            Some(Life::Leaving) => self.end(number, why),
            None => {}
        }
    }

    fn asked_to_close(&mut self, number: u32, code: Option<u16>) {
        self.obey(number);
        match self.sessions.get(number as usize).map(|s| s.life) {
            Some(Life::Here) => {
                let session = &mut self.sessions[number as usize];
                session.own.farewell = Some(code);
                if session.own.publishing == 0 {
                    self.farewell(number)
                }
            }
            Some(Life::Leaving) => self.end(number, Close::Asked),
            None => {}
        }
    }

    /// Answers the other side's Close, once it has heard what it still published.
    pub(super) fn farewell(&mut self, number: u32) {
        let Some(code) = self.sessions[number as usize].own.farewell else { return };
        let mut answer = Vec::new();
        websocket::close_answer(code, &mut answer);
        self.leave(number, Close::Asked, &answer);
    }

    /// Acts on what was heard, as long as the session is live.
    pub(super) fn obey(&mut self, number: u32) {
        while let Some(session) = self.sessions.get_mut(number as usize) {
            if session.life == Life::Leaving {
                session.own.heard.clear();
            }
            if !session.is_live() {
                return;
            }
            match self.learning.get(&number) {
                Some((_, false)) => return, // one after the other
                Some((_, true)) => {
                    self.go_on(number);
                    continue;
                }
                None => {}
            }
            let Some(heard) = session.own.heard.pop_front() else {
                session.own.heard.shrink_to_fit();
                return;
            };
            let rate = self.plan.settings.commands;
            if !session.own.rate.get_or_insert_with(|| Box::new(CommandRate::new(rate))).allows() {
                return self.close(number, Close::TooManyCommands);
            }
            self.plan.counters.commands.add(1);
            match heard {
                Heard::Ping(data) => {
                    let mut frame = Vec::new();
                    websocket::frame(Opcode::Pong, &data, &mut frame);
                    self.send(number, &frame);
                }
                Heard::Text(bytes) => self.command(number, Payload { kind: Kind::Text, bytes }),
                Heard::Binary(bytes) => self.command(number, Payload { kind: Kind::Binary, bytes }),
            }
        }
    }

    fn command(&mut self, number: u32, input: Payload) {
        let session = &self.sessions[number as usize];
        let Some(endpoint) = self.endpoints.get(&session.key.endpoint).cloned() else { return };
        let settings = &self.plan.settings;
        let speaker = Speaker {
            endpoint: &endpoint,
            allow: &session.own.allow,
            patterns: &session.key.patterns,
            topics: settings.topics_per_session,
            replay: settings.replay,
        };
        let id = id_text(&session.own.id);
        let understood = understand(&speaker, &input, &session.scope(&id, self.clock));
        match understood {
            Understood::Ignored => self.plan.counters.commands_ignored.add(1),
            Understood::Wrong(message) => {
                self.plan.counters.command_errors.add(1);
                self.say(number, &error(&message));
            }
            Understood::Deeds(deeds) => {
                if let Some(deeds) = self.learn(number, deeds) {
                    self.act(number, &endpoint, deeds);
                }
            }
        }
    }

    /// A cursor may be of a life that another instance began and this one has not heard of: it asks, once, before it does
    /// what was said.
    fn learn(&mut self, number: u32, deeds: Vec<Deed>) -> Option<Vec<Deed>> {
        let brought = deeds.iter().find_map(|deed| match deed {
            Deed::Subscribe(_, Some(Some(marks))) => Some(marks),
            _ => None,
        });
        let (Some(marks), Some(runtime)) = (brought, &self.plan.runtime) else { return Some(deeds) };
        let partitions = self.tails.partitions(&marks.iter().map(|mark| mark.partition).collect::<Vec<_>>());
        let foreign =
            |mark: &Mark| partitions.iter().any(|one| one.place().hash == mark.partition && one.may_learn(mark));
        if !marks.iter().any(foreign) {
            return Some(deeds);
        }
        let (streams, mailbox, marks) = (self.plan.streams.clone(), self.mailbox.clone(), marks.clone());
        let id = self.sessions[number as usize].own.id;
        runtime.spawn(async move {
            let learned = streams.learn(&marks).await;
            if let Err(down) = &learned {
                tracing::debug!(%down, "a cursor could not be understood");
            }
            mailbox.send(Mail::Learned { session: number, id, away: learned.is_err() });
        });
        self.learning.insert(number, (deeds, false));
        None
    }

    /// What could be learned is known: now it is done, whatever that was.
    pub(super) fn learned(&mut self, number: u32, id: [u8; 16], away: bool) {
        if self.sessions.get(number as usize).is_none_or(|s| s.own.id != id) {
            return;
        }
        if away {
            self.learning.remove(&number); // else it would be told a gap where perhaps there is none
            self.plan.counters.command_errors.add(1);
            self.say(number, &error("this cursor cannot be understood while the store is away; try again"));
        }
        self.learning.entry(number).and_modify(|(_, known)| *known = true);
        if self.sessions.contains(number as usize) {
            self.listen(number);
        }
    }

    fn go_on(&mut self, number: u32) {
        let endpoint = self.endpoints.get(&self.sessions[number as usize].key.endpoint).cloned();
        if let (Some((deeds, _)), Some(endpoint)) = (self.learning.remove(&number), endpoint) {
            self.act(number, &endpoint, deeds);
        }
    }

    fn act(&mut self, number: u32, endpoint: &Arc<Endpoint>, deeds: Vec<Deed>) {
        for deed in deeds {
            if self.sessions.get(number as usize).is_none_or(|s| s.life == Life::Leaving) {
                return;
            }
            match deed {
                Deed::Subscribe(patterns, after) => self.subscribe(number, endpoint, &patterns, after),
                Deed::Unsubscribe(patterns) => {
                    let keep = self.sessions[number as usize].key.patterns.clone();
                    let keep = keep.into_iter().filter(|p| !patterns.contains(p)).collect();
                    self.rekey(number, |key| key.patterns = keep);
                }
                Deed::Where(select) => self.select(number, Some(select), true),
                Deed::Pace(pace) => self.pace(number, pace, true),
                Deed::Replay(replay) => self.replay(number, endpoint, replay),
                Deed::Publish(draft) => self.publish(number, draft),
                Deed::Say(text) => self.say(number, &text),
            }
        }
        if self.sessions.get(number as usize).is_some_and(|s| s.backlog.is_some()) {
            self.pump(number);
        }
    }

    fn subscribe(&mut self, number: u32, endpoint: &Endpoint, new: &[Pattern], after: Option<Option<Vec<Mark>>>) {
        let old = self.sessions[number as usize].key.patterns.clone();
        let all = unique(old.iter().chain(new).cloned().collect());
        self.rekey(number, |key| key.patterns = all);
        if let Some(brought) = after {
            let (most, fallback) = (self.plan.settings.replay, endpoint.settings.replay);
            self.with_backlog(number, endpoint, |backlog, here| {
                let asked = Asked { brought: brought.as_deref(), fallback, only: new, except: &old };
                backlog.walk(&asked, here, most);
            });
        }
    }

    fn replay(&mut self, number: u32, endpoint: &Endpoint, replay: Replay) {
        let most = self.plan.settings.replay;
        self.with_backlog(number, endpoint, |backlog, here| backlog.replay(replay, here, most));
    }

    /// Lets a session catch up again: it leaves its audience until it has.
    fn with_backlog(&mut self, number: u32, endpoint: &Endpoint, fill: impl FnOnce(&mut Backlog, &[Here])) {
        self.settle(number);
        if self.sessions.get(number as usize).is_none_or(|s| s.life == Life::Leaving) {
            return;
        }
        self.unseat(number);
        let here = self.tails.here(&endpoint.reach);
        let session = &mut self.sessions[number as usize];
        let mut backlog = session.backlog.take().unwrap_or_else(|| Box::new(Backlog::again(&here)));
        fill(&mut backlog, &here);
        session.backlog = Some(backlog);
    }

    /// Changes what a session has in common with others, and seats it among the others with the same.
    pub(super) fn rekey(&mut self, number: u32, change: impl FnOnce(&mut Key)) {
        self.settle(number);
        let Some(session) = self.sessions.get_mut(number as usize).filter(|s| s.life == Life::Here) else { return };
        let old = &session.key;
        let mut key = Key {
            endpoint: old.endpoint,
            form: old.form,
            patterns: old.patterns.clone(),
            select: old.select.clone(),
            pace: old.pace.clone(),
        };
        change(&mut key);
        let live = session.is_live();
        self.unseat(number);
        self.sessions[number as usize].key = self.audiences.shared(key);
        if live {
            self.seat(number);
        }
    }

    pub(super) fn select(&mut self, number: u32, select: Option<Arc<Where>>, own: bool) {
        self.sessions[number as usize].own.own_select |= own;
        self.rekey(number, |key| key.select = select);
    }

    pub(super) fn pace(&mut self, number: u32, pace: Option<Arc<[Pacing]>>, own: bool) {
        self.sessions[number as usize].own.own_pace |= own;
        self.rekey(number, |key| key.pace = pace.clone());
        let Some(session) = self.sessions.get_mut(number as usize) else { return };
        let mut next = pace.map(|rules| Box::new(Pace::new(rules)));
        let held = session.pace.take().map(|old| old.into_held()).unwrap_or_default();
        match &mut next {
            Some(next) => held.iter().for_each(|event| next.hold(event)),
            None => self.send_events(number, &held),
        }
        let Some(session) = self.sessions.get_mut(number as usize) else { return };
        session.pace = next;
        self.weigh(number);
        if self.sessions.get(number as usize).is_some_and(Session::is_live) {
            self.release(number);
            self.schedule(number);
        }
    }

    fn publish(&mut self, number: u32, draft: Draft) {
        let session = &self.sessions[number as usize];
        let (mailbox, id) = (self.mailbox.clone(), session.own.id);
        let done = Box::new(move |refused| mailbox.send(Mail::Published { session: number, id, refused }));
        if (self.plan.publish)(draft, done) {
            self.sessions[number as usize].own.publishing += 1;
        } else {
            self.plan.counters.command_errors.add(1);
            self.say(number, &error("overloaded, nothing was published; try again"));
        }
    }

    /// What a session published has its place, or none.
    pub(super) fn published(&mut self, number: u32, id: [u8; 16], refused: Option<String>) {
        let Some(session) = self.sessions.get_mut(number as usize).filter(|s| s.own.id == id) else { return };
        session.own.publishing -= 1;
        if let Some(why) = refused {
            self.plan.counters.command_errors.add(1);
            self.say(number, &error(&why));
        }
        self.schedule(number);
    }
}

impl Session {
    /// What a template of this session can name.
    pub(super) fn scope<'a>(&'a self, id: &'a str, now: crate::event::Time) -> Scope<'a> {
        let request = self.own.request.as_deref();
        Scope {
            path: request.map_or(&[], |r| &r.path),
            query: request.map_or(&[], |r| &r.query),
            headers: request.map(|r| &r.headers),
            session: Some(id),
            now,
            ..Scope::default()
        }
    }
}

impl Key {
    /// Whether an event is for those who have this in common.
    pub fn hears(&self, event: &crate::event::Event) -> bool {
        self.patterns.iter().any(|p| p.matches(event.topic.as_str()))
            && self.select.as_ref().is_none_or(|select| select.passes(event.json().as_ref()))
    }

    /// Whether that is everything.
    pub fn hears_all(&self) -> bool {
        self.select.is_none() && self.pace.is_none() && self.patterns.contains(&Pattern::all())
    }
}
