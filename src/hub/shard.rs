//! One shard: a thread with its sessions, their sockets, and its own place in every stream. It sleeps in one poll; what
//! wakes it is a socket, a mail, an appended event or a tick.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use super::audience::{Audiences, NONE};
use super::class::Classes;
use super::fanout::Fanout;
use super::mail::{Mail, Mailbox, Opening, Publish, Settings};
use super::seat::{Line, Session};
use super::tails::Tails;
use super::timers::{TICK, Tick, Timers};
use crate::close::Close;
use crate::event::Time;
use crate::metrics::ShardCounters;
use crate::session::command::Deed;
use crate::session::endpoint::{Endpoint, OnSlow};
use crate::stream::Streams;

/// The waker's token; sessions use their number in the slab.
pub(super) const WAKE: Token = Token(usize::MAX);
/// Sockets looked at before events are looked for again.
const READY: usize = 1024;

/// Everything a shard needs from outside.
pub struct Plan {
    /// Its number, from 0: its place among the readers of every stream.
    pub number: usize,
    /// How many there are.
    pub shards: usize,
    /// What it reads.
    pub streams: Arc<Streams>,
    /// What it must hold to.
    pub settings: Arc<Settings>,
    /// What its sessions publish.
    pub publish: Publish,
    /// What it counts.
    pub counters: Arc<ShardCounters>,
    /// Bytes that wait in all shards together.
    pub queued: Arc<AtomicUsize>,
    /// Where a question to the store may wait for its answer.
    pub runtime: Option<tokio::runtime::Handle>,
}

/// The state of the thread.
pub struct Shard {
    pub(super) plan: Plan,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) poll: Poll,
    pub(super) sessions: Slab<Session>,
    pub(super) audiences: Audiences,
    pub(super) classes: Classes,
    pub(super) tails: Tails,
    pub(super) fanout: Fanout,
    pub(super) endpoints: HashMap<u32, Arc<Endpoint>>,
    pub(super) timers: Timers,
    /// Sessions with more to read or to send than one turn allowed.
    pub(super) busy: HashSet<u32>,
    /// Sessions that wait for the shard to reach their cursor.
    pub(super) ahead: HashSet<u32>,
    /// Sessions that wait for a page which is being fetched.
    pub(super) later: HashSet<u32>,
    /// Those of them whose page may be here.
    pub(super) woken: VecDeque<u32>,
    /// What sessions are about to do once more is known of the cursors they brought; whether it is.
    pub(super) learning: HashMap<u32, (Vec<Deed>, bool)>,
    /// How often pages came when the shard looked last.
    pub(super) brought: u64,
    pub(super) scratch: Vec<u8>,
    pub(super) input: Vec<u8>,
    pub(super) began: Instant,
    /// For people: it may be set back.
    pub(super) clock: Time,
    /// For pace: milliseconds since the shard began.
    pub(super) millis: u64,
    pub(super) stopping: bool,
    /// All sessions leave.
    pub(super) draining: bool,
    /// What this shard last added to the common count of waiting bytes.
    pub(super) told_queued: usize,
    /// Bytes that wait here.
    pub(super) waiting: usize,
}

impl Shard {
    /// Ready to run on a thread of its own.
    pub fn new(plan: Plan, poll: Poll, mailbox: Arc<Mailbox>) -> Shard {
        Shard {
            tails: Tails::new(&plan.streams, plan.number),
            plan,
            mailbox,
            poll,
            sessions: Slab::new(),
            audiences: Audiences::default(),
            classes: Classes::default(),
            fanout: Fanout::default(),
            endpoints: HashMap::new(),
            timers: Timers::new(),
            busy: HashSet::new(),
            ahead: HashSet::new(),
            later: HashSet::new(),
            woken: VecDeque::new(),
            learning: HashMap::new(),
            brought: 0,
            scratch: Vec::new(),
            input: vec![0; 64 * 1024],
            began: Instant::now(),
            clock: Time::now(),
            millis: 0,
            stopping: false,
            draining: false,
            told_queued: 0,
            waiting: 0,
        }
    }

    /// Runs until told to stop.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(READY);
        let mut due = Vec::new();
        while !self.stopping {
            match self.poll.poll(&mut events, self.patience()) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            (self.clock, self.millis) = (Time::now(), self.began.elapsed().as_millis() as u64);
            // First of all: after a long sleep, whoever comes in now must not count from when it began.
            self.timers.advance((u128::from(self.millis) / TICK.as_millis()) as Tick, &mut due);
            for event in events.iter().filter(|e| e.token() != WAKE) {
                let number = event.token().0 as u32;
                self.ready(
                    number,
                    event.is_readable(),
                    event.is_writable(),
                    event.is_read_closed() || event.is_error(),
                );
            }
            for mail in self.mailbox.take() {
                self.receive(mail);
            }
            self.fan_out();
            self.fetched();
            self.work();
            for number in due.drain(..) {
                self.tend(number);
            }
            self.tell_queued();
            // Lets whoever shares this core append some more before the shard sleeps, so that it need not be woken for each.
            std::thread::yield_now();
        }
        Ok(())
    }

    /// How long to sleep.
    fn patience(&self) -> Option<Duration> {
        let waits = self.fanout.has_more() || !self.busy.is_empty() || !self.woken.is_empty();
        if waits || self.mailbox.has_mail() || self.tails.are_behind() {
            return Some(Duration::ZERO);
        }
        if self.timers.is_empty() {
            return None;
        }
        let next = TICK * (self.timers.now() + 1);
        Some(next.saturating_sub(self.began.elapsed()) + Duration::from_millis(1))
    }

    /// Sessions that were stopped for fairness get another turn.
    fn work(&mut self) {
        let busy: Vec<u32> = self.busy.drain().collect();
        for number in busy {
            if self.sessions.contains(number as usize) {
                self.pump(number);
                self.listen(number);
            }
        }
    }

    fn ready(&mut self, number: u32, readable: bool, writable: bool, closed: bool) {
        let Some(session) = self.sessions.get_mut(number as usize) else { return };
        session.readable |= readable;
        if closed && session.backlog.is_some() {
            // Its input is not read while it catches up, so this is the only word of its end.
            return self.end(number, Close::Gone);
        }
        if writable {
            self.flush(number);
        }
        self.listen(number);
    }

    fn receive(&mut self, mail: Mail) {
        match mail {
            Mail::Open(opening) => self.open(*opening),
            Mail::Published { session, id, refused } => self.published(session, id, refused),
            Mail::Learned { session, id, away } => self.learned(session, id, away),
            Mail::Endpoints { endpoints, over } => self.change(endpoints, over),
            Mail::Settings(settings) => self.plan.settings = settings,
            Mail::Drain(over) => self.drain_all(over),
            Mail::Stop => self.stopping = true,
        }
    }

    /// Lets a socket's readiness reach this shard.
    pub(super) fn register(&mut self, number: u32) -> io::Result<()> {
        let Line::Socket(socket) = &self.sessions[number as usize].line else { return Ok(()) };
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), Token(number as usize), interest)
    }

    /// Takes in a new session.
    fn open(&mut self, opening: Opening) {
        let Some(endpoint) = self.endpoints.get(&opening.endpoint.id).cloned() else {
            return; // removed while it was on its way: the line closes, the permits go
        };
        let (transport, outdated) = (opening.form.transport, opening.endpoint.settings.breaks(&endpoint.settings));
        let (session, start) = super::opening::seat(opening, &endpoint, self);
        let number = self.sessions.insert(session) as u32;
        if let Err(error) = self.register(number) {
            tracing::warn!(%error, "a session's socket could not be watched");
            self.sessions.remove(number as usize);
            return;
        }
        endpoint.counters.opened(transport);
        self.plan.counters.sessions[transport as usize].add(1);
        self.begin(number, &endpoint, start);
        if self.draining || outdated {
            // It was let in before, and missed the word to leave.
            let why = if self.draining { Close::Drain } else { Close::Reload };
            self.depart(&[(number, why)], self.timers.now(), Duration::ZERO);
        }
        self.tend(number);
        self.listen(number);
    }

    /// Bytes waiting here, told to everybody when it changed by much.
    fn tell_queued(&mut self) {
        if self.waiting != self.told_queued {
            self.plan.queued.fetch_add(self.waiting.wrapping_sub(self.told_queued), Ordering::Relaxed);
            self.told_queued = self.waiting;
        }
        let (audiences, patterns) = self.audiences.counts();
        let counters = &self.plan.counters;
        counters.audiences.set(audiences as u64);
        counters.patterns.set(patterns as u64);
        counters.queued_bytes.set(self.waiting as u64);
    }

    /// A session's place in no audience.
    pub(super) fn unseat(&mut self, number: u32) {
        let session = &mut self.sessions[number as usize];
        let (audience, seat) = (session.audience, session.seat);
        if audience == NONE {
            return;
        }
        (session.audience, session.seat) = (NONE, NONE);
        let walks = self.fanout.is_walking();
        if walks {
            self.fanout.ragged(audience);
        }
        let (moved, class) = self.audiences.leave(audience, seat, walks);
        if let Some(moved) = moved {
            self.sessions[moved as usize].seat = seat;
        }
        if let Some(class) = class {
            self.classes.leave(class);
        }
    }

    /// A session hears events as they come, from here on.
    pub(super) fn seat(&mut self, number: u32) {
        let session = &mut self.sessions[number as usize];
        let (audience, seat, new) = self.audiences.join(&session.key, number);
        (session.audience, session.seat, session.batch) = (audience, seat, self.fanout.batch());
        if new {
            let endpoint = self.endpoints.get(&session.key.endpoint);
            let reach = endpoint.map(|e| e.reach.clone()).unwrap_or_default();
            let new = self.audiences.get_mut(audience);
            new.class = self.classes.enter(session.key.form, &reach);
            new.on_slow = endpoint.map_or(OnSlow::Disconnect, |e| e.settings.on_slow);
        }
    }
}
