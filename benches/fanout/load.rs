//! The load generator: one epoll loop with all sessions and all lanes, and one big buffer.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mio::{Events, Poll, Token};

use crate::publish::{FIRST_LANE, Pace, Publisher};
use crate::server::{Kind, Server, Setup, Usage};
use crate::subscribe::{Arrived, Session, Transport};

/// Handshakes under way at a time; below the backlog of any server.
const CONNECTING: usize = 128;
/// Without progress for so long, something is lost.
const PATIENCE: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(1);

/// Everything on this side of the wire.
pub struct Load {
    kind: Kind,
    poll: Poll,
    events: Events,
    buffer: Box<[u8]>,
    pub sessions: Vec<Session>,
    pub publisher: Option<Publisher>,
    pub arrived: Arrived,
    /// Every so many'th session is looked at closely.
    sample_every: usize,
}

/// What came of publishing for a while.
pub struct Published {
    pub events: u32,
    pub took: Duration,
}

impl Load {
    pub fn new(kind: Kind) -> Result<Load> {
        Ok(Load {
            kind,
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            buffer: vec![0; 512 << 10].into_boxed_slice(),
            sessions: Vec::new(),
            publisher: None,
            arrived: Arrived::default(),
            sample_every: 1,
        })
    }

    /// To the server or, where events come through Redis, to that.
    pub fn publish_to(&mut self, server: &Server, in_flight: usize, topics: &[String], setup: &Setup) -> Result<()> {
        let (registry, way) = (self.poll.registry(), setup.way(self.kind));
        let redis = setup.redis.filter(|_| way.is_redis());
        let address = redis.unwrap_or(server.publish);
        self.publisher = Some(Publisher::connect(registry, way, address, in_flight, topics, setup.payload)?);
        Ok(())
    }

    /// Opens so many more sessions and returns how long that took; `query` is each one's own.
    pub fn connect(
        &mut self,
        server: &Server,
        transport: Transport,
        count: usize,
        query: &dyn Fn(usize) -> String,
    ) -> Result<Duration> {
        let started = Instant::now();
        let first = self.sessions.len();
        let goal = self.arrived.opened + count;
        let mut progress = Progress::new();
        while self.arrived.opened < goal {
            let under_way = first + self.arrived.opened + count - goal;
            while self.sessions.len() < first + count && self.sessions.len() < under_way + CONNECTING {
                let mut session = Session::connect(server, transport, &query(self.sessions.len() - first))?;
                if self.sessions.len().is_multiple_of(self.sample_every) {
                    session.sample();
                }
                session.register(self.poll.registry(), Token(self.sessions.len()))?;
                self.sessions.push(session);
            }
            self.step(TICK)?;
            progress.check(self.arrived.opened as u64, "handshakes")?;
        }
        self.arrived.more_sessions();
        Ok(started.elapsed())
    }

    /// Looks closely at every so many'th session only, from the next one that connects.
    pub fn sample_every(&mut self, sessions: usize) {
        self.sample_every = sessions;
    }

    /// Waits until every session stands whole. The floor has no such word.
    pub fn wait_live(&mut self) -> Result<()> {
        let goal = if self.kind == Kind::Floor { 0 } else { self.sessions.len() };
        self.wait("sessions to be live", |load| (load.arrived.live >= goal, load.arrived.live as u64))
    }

    /// Turns the loop until `done`, as long as the number beside it moves.
    pub fn wait(&mut self, what: &str, done: impl Fn(&Load) -> (bool, u64)) -> Result<()> {
        let mut progress = Progress::new();
        loop {
            let (done, number) = done(self);
            if done {
                return Ok(());
            }
            self.step(TICK)?;
            progress.check(number, what)?;
        }
    }

    /// Reads for so long.
    pub fn idle(&mut self, time: Duration) -> Result<()> {
        self.idle_until(time, |_| false).map(drop)
    }

    /// Reads for so long, or until `done`; says whether it is.
    pub fn idle_until(&mut self, time: Duration, done: impl Fn(&Arrived) -> bool) -> Result<bool> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.step(TICK)?;
            if done(&self.arrived) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Publishes at `pace` for `time`, or `events` if that is sooner, and waits for the answers.
    pub fn publish(&mut self, pace: Pace, time: Duration, events: u32) -> Result<Published> {
        let started = Instant::now();
        let first = self.publisher().due();
        let mut progress = Progress::new();
        loop {
            let now = Instant::now();
            let over = now - started >= time || self.publisher().due() - first >= events;
            if !over {
                let by_all = self.arrived.by_all(&self.sessions);
                let publisher = self.publisher.as_mut().expect("a row connects its publisher first");
                let sent = publisher.due() - first;
                let wanted = match pace {
                    Pace::Rate(rate) => ((now - started).as_secs_f64() * rate) as u32 + 1 - sent,
                    Pace::Undelivered(most) => (by_all + most).saturating_sub(publisher.due()),
                    Pace::Unanswered => publisher.answered + publisher.in_flight() as u32 - publisher.due(),
                };
                publisher.add(wanted.min(events - sent), now);
            } else if self.publisher().answered == self.publisher().due() {
                return Ok(Published { events: self.publisher().due() - first, took: started.elapsed() });
            }
            let publisher = self.publisher.as_mut().expect("a row connects its publisher first");
            publisher.send(now)?;
            self.step(TICK)?;
            progress.check(u64::from(self.publisher().answered + self.publisher().due()), "answers")?;
        }
    }

    /// Waits until every session that reads has exactly what it must have, in the same order.
    pub fn settle(&mut self, expected: &dyn Fn(usize) -> u32) -> Result<()> {
        let missing = |session: (usize, &Session)| u64::from(expected(session.0).saturating_sub(session.1.events));
        let goal = self.arrived.delivered + self.reading().map(missing).sum::<u64>();
        let waited = self.wait("events", |load| (load.arrived.delivered >= goal, load.arrived.delivered));
        waited.with_context(|| format!("LOST {} deliveries", goal - self.arrived.delivered))?;
        // Whatever came twice is there by now.
        self.idle(Duration::from_millis(20))?;
        for (index, session) in self.reading() {
            let (had, expected) = (session.events, expected(index));
            ensure!(had == expected, "LOST or DOUBLED: session {index} has {had} of {expected} events");
        }
        Ok(())
    }

    fn reading(&self) -> impl Iterator<Item = (usize, &Session)> {
        self.sessions.iter().enumerate().filter(|(_, session)| session.is_reading())
    }

    /// [`Load::settle`] where every session hears everything.
    pub fn settle_all(&mut self) -> Result<()> {
        let sent = self.publisher().sent();
        self.settle(&|_| sent)?;
        self.same_order()
    }

    /// Sessions that heard the same heard it in the same order.
    pub fn same_order(&self) -> Result<()> {
        let mut orders = self.reading().filter_map(|(_, session)| session.order());
        let first = orders.next();
        ensure!(orders.all(|order| Some(order) == first), "REORDERED: two sessions saw different orders");
        Ok(())
    }

    /// Ends all sessions at once, without a word, and waits until the server has noticed.
    pub fn cut(&mut self, server: &Server) -> Result<()> {
        let going = self.sessions.len();
        let goal = server.open_files()?.saturating_sub(going);
        self.sessions.drain(..).try_for_each(Session::cut)?;
        let cursor = self.arrived.cursor.take();
        self.arrived = Arrived::default();
        self.arrived.cursor = cursor;
        let mut progress = Progress::new();
        while server.open_files()? > goal {
            self.idle(Duration::from_millis(10))?;
            progress.check(server.open_files()? as u64, "the server to notice that sessions are gone")?;
        }
        Ok(())
    }

    /// These sessions read no more.
    pub fn stall(&mut self, sessions: std::ops::Range<usize>) -> Result<()> {
        let registry = self.poll.registry();
        self.sessions[sessions].iter_mut().try_for_each(|session| session.stall(registry))
    }

    pub fn publisher(&self) -> &Publisher {
        self.publisher.as_ref().expect("a row connects its publisher first")
    }

    /// Forgets what was measured while things warmed up.
    pub fn forget(&mut self) {
        self.sessions.iter_mut().for_each(Session::forget);
        if let Some(publisher) = &mut self.publisher {
            publisher.answer_micros.clear();
            publisher.refused = 0;
        }
    }

    /// From publish to arrival, in microseconds, of all sampled sessions.
    pub fn micros(&self) -> Vec<u32> {
        self.sessions.iter().flat_map(Session::micros).copied().collect()
    }

    /// CPU time of this process.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of(std::process::id())
    }

    fn step(&mut self, timeout: Duration) -> Result<()> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            polled => polled?,
        }
        for event in &self.events {
            match event.token().0 {
                lane if lane >= FIRST_LANE => {
                    let publisher = self.publisher.as_mut().expect("only a publisher has lanes");
                    publisher.readable(lane - FIRST_LANE, &mut self.buffer)?;
                }
                index => {
                    let session = &mut self.sessions[index];
                    if session.is_reading() {
                        session.read(&mut self.buffer, &mut self.arrived, self.publisher.as_ref())?;
                    }
                }
            }
        }
        match self.arrived.fault.take() {
            Some(fault) => bail!(fault),
            None => Ok(()),
        }
    }
}

/// Sees that nothing happens any more.
struct Progress {
    last: u64,
    since: Instant,
}

impl Progress {
    fn new() -> Progress {
        Progress { last: 0, since: Instant::now() }
    }

    fn check(&mut self, number: u64, what: &str) -> Result<()> {
        if number != self.last {
            (self.last, self.since) = (number, Instant::now());
        }
        ensure!(
            self.since.elapsed() < PATIENCE,
            "nothing moved for {PATIENCE:?} while waiting for {what} (at {number})"
        );
        Ok(())
    }
}
