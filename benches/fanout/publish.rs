//! Publishing: keep-alive connections, *lanes*, each with as many events in flight as its way allows.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::way::{Answer, Request, Way};

/// Tokens of lanes start here, above all sessions.
pub const FIRST_LANE: usize = 1 << 32;
/// A 503 is passing; how long a lane waits before it sends the same event again.
const RETRY: Duration = Duration::from_millis(2);

/// When events are sent.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// So many per second, whatever comes back.
    Rate(f64),
    /// So many at a time that were not yet delivered to every session.
    Undelivered(u32),
    /// The next one as soon as a lane has its answer.
    Unanswered,
}

/// All lanes, and what is known of each event sent.
pub struct Publisher {
    way: Way,
    registry: Registry,
    address: SocketAddr,
    lanes: Vec<Lane>,
    /// Events in flight on one lane, at most.
    depth: usize,
    requests: Vec<Request>,
    /// When each event was due; its index is its number.
    pub stamps: Vec<Instant>,
    /// The lane of each event: events of one lane are in order.
    pub lane_of: Vec<u16>,
    /// Events due, not yet sent.
    waiting: u32,
    /// Events answered: with 200, or by Redis.
    pub answered: u32,
    /// Answers 503.
    pub refused: u32,
    /// Writes: the events of one write are a batch.
    pub writes: u32,
    /// From due to answered, in microseconds.
    pub answer_micros: Vec<u32>,
}

struct Lane {
    stream: TcpStream,
    /// The events in flight, oldest first.
    flying: VecDeque<u32>,
    retry_at: Option<Instant>,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Publisher {
    /// Event n goes to topic n modulo their number.
    pub fn connect(
        registry: &Registry,
        way: Way,
        address: SocketAddr,
        in_flight: usize,
        topics: &[String],
        payload: usize,
    ) -> Result<Publisher> {
        let (lanes, depth) = way.lanes(in_flight);
        let open = |number| Lane::connect(registry, address, number);
        Ok(Publisher {
            way,
            registry: registry.try_clone()?,
            address,
            lanes: (0..lanes).map(open).collect::<Result<_>>()?,
            depth,
            requests: topics.iter().map(|topic| Request::new(way, topic, payload)).collect(),
            stamps: Vec::new(),
            lane_of: Vec::new(),
            waiting: 0,
            answered: 0,
            refused: 0,
            writes: 0,
            answer_micros: Vec::new(),
        })
    }

    /// Events in flight at a time, at most.
    pub fn in_flight(&self) -> usize {
        self.lanes.len() * self.depth
    }

    /// Whether frames carry the number of their event.
    pub fn is_numbered(&self) -> bool {
        self.way != Way::Trigger
    }

    /// Events sent so far.
    pub fn sent(&self) -> u32 {
        u32::try_from(self.stamps.len()).expect("a run has fewer than 2^32 events") - self.waiting
    }

    /// Events sent or due.
    pub fn due(&self) -> u32 {
        self.sent() + self.waiting
    }

    /// So many more events are due now; they go out as lanes are free.
    pub fn add(&mut self, events: u32, now: Instant) {
        self.stamps.extend((0..events).map(|_| now));
        self.waiting += events;
    }

    /// Sends what waits, and again what was refused.
    pub fn send(&mut self, now: Instant) -> Result<()> {
        for index in 0..self.lanes.len() {
            let lane = &mut self.lanes[index];
            if lane.retry_at.is_some_and(|at| at <= now) {
                lane.retry_at = None;
                let refused = *lane.flying.front().context("what was refused is in flight")?;
                self.put(index, refused);
            }
            while self.waiting > 0 && self.lanes[index].flying.len() < self.depth {
                let number = self.sent();
                self.waiting -= 1;
                self.lane_of.push(u16::try_from(index).expect("there are few lanes"));
                self.lanes[index].flying.push_back(number);
                self.put(index, number);
            }
            self.writes += u32::from(self.lanes[index].flush()?);
        }
        Ok(())
    }

    fn put(&mut self, lane: usize, number: u32) {
        let turn = number as usize % self.requests.len();
        self.lanes[lane].output.extend_from_slice(self.requests[turn].numbered(number));
    }

    /// A lane has something to read.
    pub fn readable(&mut self, index: usize, buffer: &mut [u8]) -> Result<()> {
        let lane = &mut self.lanes[index];
        let length = match lane.stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            read => read.context("publishing")?,
        };
        if length == 0 {
            // A server may end a connection that was idle for long.
            ensure!(lane.flying.is_empty(), "the server closed a connection and owes an answer");
            *lane = Lane::connect(&self.registry, self.address, index)?;
            return Ok(());
        }
        lane.input.extend_from_slice(&buffer[..length]);
        let (now, mut at) = (Instant::now(), 0);
        while let Some((answer, length)) = self.way.answer(&lane.input[at..])? {
            at += length;
            if answer == Answer::Refused {
                self.refused += 1;
                lane.retry_at = Some(now + RETRY);
                continue;
            }
            let number = lane.flying.pop_front().context("an answer without a question")?;
            self.answered += 1;
            self.answer_micros.push(micros(self.stamps[number as usize], now));
        }
        lane.input.drain(..at);
        Ok(())
    }
}

impl Lane {
    fn connect(registry: &Registry, address: SocketAddr, number: usize) -> Result<Lane> {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        registry.register(&mut stream, Token(FIRST_LANE + number), Interest::READABLE)?;
        Ok(Lane { stream, flying: VecDeque::new(), retry_at: None, input: Vec::new(), output: Vec::new() })
    }

    /// Writes what is put; what the kernel does not take goes with the next turn of the loop. Says whether it wrote.
    fn flush(&mut self) -> Result<bool> {
        if self.output.is_empty() {
            return Ok(false);
        }
        let written = match self.stream.write(&self.output) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            written => written.context("publishing")?,
        };
        self.output.drain(..written);
        Ok(true)
    }
}

/// A latency as it is kept: whole microseconds.
pub fn micros(from: Instant, to: Instant) -> u32 {
    u32::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(u32::MAX)
}
