//! Publishing: keep-alive connections, *lanes*, with one event in flight on each. To the relay a lane speaks HTTP; to
//! the floor it sends a byte and awaits a byte.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::frames;
use crate::server::Kind;

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
    kind: Kind,
    registry: Registry,
    address: SocketAddr,
    lanes: Vec<Lane>,
    requests: Vec<Request>,
    /// When each event was due; its index is its number.
    pub stamps: Vec<Instant>,
    /// The lane of each event: events of one lane are in order.
    pub lane_of: Vec<u16>,
    /// Events due, not yet sent.
    waiting: u32,
    /// Events answered with 200.
    pub answered: u32,
    /// Answers 503.
    pub refused: u32,
    /// From due to 200, in microseconds.
    pub answer_micros: Vec<u32>,
}

struct Lane {
    stream: TcpStream,
    /// The event in flight.
    number: Option<u32>,
    retry_at: Option<Instant>,
    input: Vec<u8>,
}

/// A whole HTTP request, with a place for the number.
struct Request {
    bytes: Vec<u8>,
    number_at: usize,
}

impl Publisher {
    /// Event n goes to topic n modulo their number.
    pub fn connect(
        registry: &Registry,
        kind: Kind,
        address: SocketAddr,
        lanes: usize,
        topics: &[String],
        payload: usize,
    ) -> Result<Publisher> {
        let open = |number| Lane::connect(registry, address, number);
        Ok(Publisher {
            kind,
            registry: registry.try_clone()?,
            address,
            lanes: (0..lanes).map(open).collect::<Result<_>>()?,
            requests: topics.iter().map(|topic| Request::new(topic, payload)).collect(),
            stamps: Vec::new(),
            lane_of: Vec::new(),
            waiting: 0,
            answered: 0,
            refused: 0,
            answer_micros: Vec::new(),
        })
    }

    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Whether frames carry the number of their event.
    pub fn is_numbered(&self) -> bool {
        self.kind == Kind::Relay
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
            match (lane.number, lane.retry_at) {
                (Some(number), Some(at)) if at <= now => {
                    lane.retry_at = None;
                    self.write(index, number)?;
                }
                (None, _) if self.waiting > 0 => {
                    let number = self.sent();
                    self.waiting -= 1;
                    self.lane_of.push(u16::try_from(index).expect("there are few lanes"));
                    self.lanes[index].number = Some(number);
                    self.write(index, number)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn write(&mut self, lane: usize, number: u32) -> Result<()> {
        let stream = &mut self.lanes[lane].stream;
        let written = match self.kind {
            Kind::Floor => stream.write(b"!").map(|length| length == 1),
            Kind::Relay => {
                let turn = number as usize % self.requests.len();
                let request = &mut self.requests[turn];
                frames::set_number(&mut request.bytes, request.number_at, number);
                stream.write(&request.bytes).map(|length| length == request.bytes.len())
            }
        };
        ensure!(written.context("publishing")?, "a request did not fit into an idle socket");
        Ok(())
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
            ensure!(lane.number.is_none(), "the server closed a connection and owes an answer");
            *lane = Lane::connect(&self.registry, self.address, index)?;
            return Ok(());
        }
        lane.input.extend_from_slice(&buffer[..length]);
        let Some(status) = lane.answer(self.kind)? else { return Ok(()) };
        let now = Instant::now();
        if status == 503 {
            self.refused += 1;
            lane.retry_at = Some(now + RETRY);
            return Ok(());
        }
        ensure!(status == 200, "a publish was answered with {status}");
        let number = lane.number.take().context("an answer without a question")?;
        self.answered += 1;
        self.answer_micros.push(micros(self.stamps[number as usize], now));
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
        Ok(Lane { stream, number: None, retry_at: None, input: Vec::new() })
    }

    /// Takes one whole answer from the input.
    fn answer(&mut self, kind: Kind) -> Result<Option<u16>> {
        if kind == Kind::Floor {
            self.input.clear();
            return Ok(Some(200));
        }
        let Some((status, head)) = frames::head(&self.input) else { return Ok(None) };
        let whole = head + frames::content_length(&self.input[..head]);
        if self.input.len() < whole {
            return Ok(None);
        }
        ensure!(self.input.len() == whole, "more than one answer to one publish");
        self.input.clear();
        Ok(Some(status))
    }
}

impl Request {
    fn new(topic: &str, payload: usize) -> Request {
        let body = frames::payload(payload);
        let head = format!(
            "POST /publish/{topic} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        // The payload begins with `{` and the key.
        let number_at = head.len() + 1 + frames::NUMBER_KEY.len();
        Request { bytes: [head.as_bytes(), &body].concat(), number_at }
    }
}

/// A latency as it is kept: whole microseconds.
pub fn micros(from: Instant, to: Instant) -> u32 {
    u32::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(u32::MAX)
}
