//! The floor: what nobody can beat without writing several events at once. It accepts, answers a handshake without
//! looking at it, and for each trigger byte does one `write()` of a ready frame per session. No parsing, no topics, no
//! queues; what the kernel does not take is dropped.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use anyhow::{Context, Result};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use crate::frames;

const PUBLIC: Token = Token(0);
const TRIGGERS: Token = Token(1);
const FIRST_SUBSCRIBER: usize = 2;
/// Above all subscribers.
const FIRST_TRIGGER: usize = 1 << 32;

const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const STREAMING: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

struct Floor {
    poll: Poll,
    public: TcpListener,
    triggers: TcpListener,
    subscribers: Slab<Subscriber>,
    publishers: Slab<TcpStream>,
    /// Each event goes to one session, round and round, instead of to all.
    in_turn: Option<usize>,
    websocket: Vec<u8>,
    sse: Vec<u8>,
    input: Vec<u8>,
}

struct Subscriber {
    stream: TcpStream,
    transport: Transport,
}

#[derive(Clone, Copy, PartialEq)]
enum Transport {
    Unknown,
    WebSocket,
    Sse,
}

/// Serves until it is killed. Arguments: payload size; `in-turn` or `all`.
pub fn serve(arguments: &[String]) -> Result<()> {
    let size = arguments.first().context("payload size")?.parse()?;
    let in_turn = (arguments.get(1).map(String::as_str) == Some("in-turn")).then_some(0);
    let mut floor = Floor::bind(size, in_turn)?;
    println!("public  http://{}", floor.public.local_addr()?);
    println!("trigger http://{}", floor.triggers.local_addr()?);
    println!("ready");
    let mut events = Events::with_capacity(1024);
    loop {
        floor.poll.poll(&mut events, None)?;
        for event in &events {
            floor.turn(event.token())?;
        }
    }
}

impl Floor {
    fn bind(size: usize, in_turn: Option<usize>) -> Result<Floor> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let poll = Poll::new()?;
        let (mut public, mut triggers) = (TcpListener::bind(any)?, TcpListener::bind(any)?);
        poll.registry().register(&mut public, PUBLIC, Interest::READABLE)?;
        poll.registry().register(&mut triggers, TRIGGERS, Interest::READABLE)?;
        let payload = frames::payload(size);
        let (subscribers, publishers, input) = (Slab::new(), Slab::new(), vec![0; 64 << 10]);
        let (websocket, sse) = (frame(&payload), chunk(&payload));
        Ok(Floor { poll, public, triggers, subscribers, publishers, in_turn, websocket, sse, input })
    }

    fn turn(&mut self, token: Token) -> Result<()> {
        match token {
            PUBLIC => self.accept_subscribers(),
            TRIGGERS => self.accept_publishers(),
            Token(number) if number >= FIRST_TRIGGER => self.trigger(number - FIRST_TRIGGER),
            Token(number) => self.answer(number - FIRST_SUBSCRIBER),
        }
    }

    fn accept_subscribers(&mut self) -> Result<()> {
        while let Some(mut stream) = accept(&self.public)? {
            let entry = self.subscribers.vacant_entry();
            let token = Token(FIRST_SUBSCRIBER + entry.key());
            self.poll.registry().register(&mut stream, token, Interest::READABLE)?;
            entry.insert(Subscriber { stream, transport: Transport::Unknown });
        }
        Ok(())
    }

    fn accept_publishers(&mut self) -> Result<()> {
        while let Some(mut stream) = accept(&self.triggers)? {
            let entry = self.publishers.vacant_entry();
            let token = Token(FIRST_TRIGGER + entry.key());
            stream.set_nodelay(true)?;
            self.poll.registry().register(&mut stream, token, Interest::READABLE)?;
            entry.insert(stream);
        }
        Ok(())
    }

    /// A subscriber sent its request, or went. A request comes in one piece: the load generator writes it so.
    fn answer(&mut self, key: usize) -> Result<()> {
        let Some(subscriber) = self.subscribers.get_mut(key) else { return Ok(()) };
        let length = match subscriber.stream.read(&mut self.input) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            read => read.unwrap_or(0),
        };
        if length == 0 {
            self.subscribers.remove(key);
        } else if subscriber.transport == Transport::Unknown {
            let sse = memchr::memmem::find(&self.input[..length], b"text/event-stream").is_some();
            let (transport, head) = if sse { (Transport::Sse, STREAMING) } else { (Transport::WebSocket, SWITCHING) };
            subscriber.transport = transport;
            subscriber.stream.write_all(head)?;
        }
        Ok(())
    }

    /// So many bytes are so many events, and as many bytes are the answer.
    fn trigger(&mut self, key: usize) -> Result<()> {
        let length = match self.publishers[key].read(&mut self.input) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            read => read.unwrap_or(0),
        };
        for _ in 0..length {
            self.deliver();
        }
        if length == 0 {
            self.publishers.remove(key);
        } else {
            self.publishers[key].write_all(&self.input[..length])?;
        }
        Ok(())
    }

    fn deliver(&mut self) {
        match &mut self.in_turn {
            None => {
                for (_, subscriber) in &self.subscribers {
                    subscriber.write(&self.websocket, &self.sse);
                }
            }
            Some(next) => {
                if let Some(subscriber) = self.subscribers.get(*next % self.subscribers.len().max(1)) {
                    subscriber.write(&self.websocket, &self.sse);
                }
                *next += 1;
            }
        }
    }
}

impl Subscriber {
    fn write(&self, websocket: &[u8], sse: &[u8]) {
        let frame = match self.transport {
            Transport::WebSocket => websocket,
            Transport::Sse => sse,
            Transport::Unknown => return,
        };
        // A full socket loses the event: the floor has no queue. The load generator notices.
        let _ = (&self.stream).write(frame);
    }
}

fn accept(listener: &TcpListener) -> Result<Option<TcpStream>> {
    match listener.accept() {
        Ok((stream, _)) => Ok(Some(stream)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// An unmasked text frame.
fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("the bench publishes less than 64 KiB");
    let mut frame = vec![0x81, 126];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// An SSE event as one HTTP chunk.
fn chunk(payload: &[u8]) -> Vec<u8> {
    let event = [b"data: ", payload, b"\n\n"].concat();
    [format!("{:x}\r\n", event.len()).as_bytes(), &event, b"\r\n"].concat()
}
