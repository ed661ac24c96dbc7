//! Subscribers: sessions that read, count, and look closely at some of what comes.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::frames::{self, Unit};
use crate::publish::{Publisher, micros};
use crate::server::Server;

/// How a session reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    WebSocket,
    Sse,
}

/// One subscriber.
pub struct Session {
    stream: TcpStream,
    transport: Transport,
    /// The handshake was answered.
    open: bool,
    /// It stands whole: `relay.open` came.
    pub live: bool,
    /// The start of a frame whose rest is still to come.
    kept: Vec<u8>,
    pub events: u32,
    pub heartbeats: u32,
    /// Does not read any more.
    stalled: bool,
    sample: Option<Sample>,
}

/// What is looked at closely, for some sessions.
#[derive(Default)]
struct Sample {
    /// The number of the last event of each lane: a lane's events are in order, so with an exact total none was lost.
    by_lane: BTreeMap<u16, u32>,
    order: u64,
    /// From publish to arrival, in microseconds.
    micros: Vec<u32>,
}

/// What came, of all sessions together.
#[derive(Default)]
pub struct Arrived {
    pub opened: usize,
    pub live: usize,
    pub delivered: u64,
    /// What sampled sessions heard while nobody but the row itself publishes: number and time.
    pub heard: Vec<(u32, Instant)>,
    /// Gaps are told, not faults: a row that breaks things expects them.
    pub gaps_expected: bool,
    pub gaps: u32,
    /// Where a session that comes back may begin.
    pub cursor: Option<String>,
    /// Sessions that have read no more than the slowest; at 0 it is time to look again who that is.
    behind: usize,
    /// What the slowest has read.
    by_all: u32,
    pub fault: Option<String>,
}

impl Session {
    /// Starts a connection with its request. On loopback the kernel shakes hands within `connect`, so the request can
    /// follow at once.
    pub fn connect(server: &Server, transport: Transport, query: &str) -> Result<Session> {
        let mut stream = TcpStream::connect(server.public)?;
        let wants = match transport {
            Transport::WebSocket => {
                "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                 sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            }
            Transport::Sse => "accept: text/event-stream\r\n",
        };
        let request = format!("GET /events{query} HTTP/1.1\r\nhost: {}\r\n{wants}\r\n", server.public);
        let written = stream.write(request.as_bytes()).context("a handshake on loopback was not done at once")?;
        ensure!(written == request.len(), "a request did not fit into an idle socket");
        let (open, live, stalled, kept, sample) = (false, false, false, Vec::new(), None);
        Ok(Session { stream, transport, open, live, kept, events: 0, heartbeats: 0, stalled, sample })
    }

    pub fn register(&mut self, registry: &Registry, token: Token) -> Result<()> {
        Ok(registry.register(&mut self.stream, token, Interest::READABLE)?)
    }

    /// From now on it is looked at closely.
    pub fn sample(&mut self) {
        self.sample = Some(Sample::default());
    }

    /// Equal for sampled sessions that saw the same events in the same order.
    pub fn order(&self) -> Option<u64> {
        self.sample.as_ref().map(|sample| sample.order)
    }

    /// Of a sampled session: from publish to arrival.
    pub fn micros(&self) -> &[u32] {
        self.sample.as_ref().map_or(&[], |sample| &sample.micros)
    }

    /// Forgets what was measured while things warmed up.
    pub fn forget(&mut self) {
        if let Some(sample) = &mut self.sample {
            sample.micros.clear();
        }
    }

    /// Reads no more, and has little room for what comes.
    pub fn stall(&mut self, registry: &Registry) -> Result<()> {
        self.stalled = true;
        socket2::SockRef::from(&self.stream).set_recv_buffer_size(16 << 10)?;
        Ok(registry.deregister(&mut self.stream)?)
    }

    pub fn is_reading(&self) -> bool {
        !self.stalled
    }

    /// Ends without a word. A reset leaves no port behind in TIME_WAIT.
    pub fn cut(self) -> Result<()> {
        Ok(socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))?)
    }

    /// Reads what is there. A short read empties the socket, so that no second call has to find that out.
    pub fn read(&mut self, buffer: &mut [u8], arrived: &mut Arrived, publisher: Option<&Publisher>) -> Result<()> {
        loop {
            let kept = self.kept.len();
            buffer[..kept].copy_from_slice(&self.kept);
            let length = match self.stream.read(&mut buffer[kept..]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                read => read.context("a session was cut by the server")?,
            };
            ensure!(length > 0, "CLOSED: the server ended a session");
            let now = Instant::now();
            let whole = self.take(&buffer[..kept + length], now, arrived, publisher)?;
            self.kept.clear();
            self.kept.extend_from_slice(&buffer[whole..kept + length]);
            if kept + length < buffer.len() {
                return Ok(());
            }
        }
    }

    /// Takes all whole units; returns how many bytes they were.
    fn take(
        &mut self,
        bytes: &[u8],
        now: Instant,
        arrived: &mut Arrived,
        publisher: Option<&Publisher>,
    ) -> Result<usize> {
        let mut at = 0;
        if !self.open {
            let Some((status, head)) = frames::head(bytes) else { return Ok(0) };
            ensure!(status == 101 || status == 200, "a session was refused with {status}");
            self.open = true;
            arrived.opened += 1;
            at = head;
        }
        let next = if self.transport == Transport::WebSocket { frames::websocket } else { frames::sse };
        while let Some((unit, length)) = next(&bytes[at..]) {
            at += length;
            match unit {
                Unit::Event(event) => self.event(event, now, arrived, publisher),
                Unit::Control(control) => self.control(control, arrived),
                Unit::Ping(payload) => self.pong(payload)?,
                Unit::Close => bail!("CLOSED: the server ended a session"),
            }
        }
        Ok(at)
    }

    fn event(&mut self, event: &[u8], now: Instant, arrived: &mut Arrived, publisher: Option<&Publisher>) {
        if self.events == arrived.by_all {
            arrived.behind = arrived.behind.saturating_sub(1);
        }
        let turn = self.events;
        self.events += 1;
        arrived.delivered += 1;
        let Some(sample) = &mut self.sample else { return };
        let Some(publisher) = publisher else {
            arrived.heard.extend(frames::number(event).map(|number| (number, now)));
            return;
        };
        // The floor's frames have no numbers: there the order is that of sending.
        let number = if publisher.is_numbered() { frames::number(event) } else { Some(turn) };
        let known = number.and_then(|number| Some((number, publisher.lane_of.get(number as usize)?)));
        let Some((number, lane)) = known else {
            arrived.fault = Some("CORRUPT: an event that was never published".to_owned());
            return;
        };
        sample.order = sample.order.wrapping_mul(0x0100_0000_01b3).wrapping_add(u64::from(number) + 1);
        if sample.by_lane.insert(*lane, number).is_some_and(|last| last >= number) && publisher.is_numbered() {
            arrived.fault = Some(format!("REORDERED: event {number} came after a later one"));
        }
        sample.micros.push(micros(publisher.stamps[number as usize], now));
    }

    fn control(&mut self, control: &[u8], arrived: &mut Arrived) {
        let says = |what: &[u8]| memchr::memmem::find(&control[..control.len().min(64)], what).is_some();
        if says(b"relay.gap") && arrived.gaps_expected {
            arrived.gaps += u32::from(self.sample.is_some());
        } else if says(b"relay.gap") || says(b"relay.close") {
            arrived.fault = Some(format!("GAP: {}", String::from_utf8_lossy(control)));
        } else if says(b"relay.open") || says(b"id:") && !self.live {
            self.live = true;
            arrived.live += 1;
            if arrived.cursor.is_none() {
                arrived.cursor = frames::cursor(control);
            }
        } else if self.transport == Transport::Sse && says(b"id:") {
            self.heartbeats += 1;
        }
    }

    /// A client's frames are masked; a mask of zeros leaves the payload as it is.
    fn pong(&mut self, payload: &[u8]) -> Result<()> {
        self.heartbeats += 1;
        let length = u8::try_from(payload.len()).context("a Ping of more than 125 bytes")?;
        let pong = [&[0x8a, 0x80 | length, 0, 0, 0, 0], payload].concat();
        ensure!(self.stream.write(&pong)? == pong.len(), "a Pong did not fit into an idle socket");
        Ok(())
    }
}

impl Arrived {
    /// Sessions came: who is slowest must be looked up again.
    pub fn more_sessions(&mut self) {
        self.behind = 0;
    }

    /// How many events every session has.
    pub fn by_all(&mut self, sessions: &[Session]) -> u32 {
        if self.behind == 0 {
            self.by_all = sessions.iter().map(|session| session.events).min().unwrap_or(0);
            self.behind = sessions.iter().filter(|session| session.events == self.by_all).count();
        }
        self.by_all
    }
}
