//! A WebSocket client that sends exactly the frames it is told to.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use super::http::{Answer, Http};
use super::{socket::Socket, soon};

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// RFC 6455 section 1.3 answers that key so.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// FIN and the reserved bits, as they came.
    pub flags: u8,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    Text(String),
    Binary(Vec<u8>),
    Ping,
    Close { code: Option<u16>, reason: String },
}

pub struct WebSocket {
    pub socket: Socket,
}

impl WebSocket {
    /// Opens one; a refusal is the answer that came instead.
    pub fn connect(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> io::Result<Result<Self, Answer>> {
        Self::connect_with(address, target, headers, b"")
    }

    /// The same, with bytes that follow the handshake without waiting for its answer.
    pub fn connect_with(
        address: SocketAddr,
        target: &str,
        headers: &[(&str, &str)],
        early: &[u8],
    ) -> io::Result<Result<Self, Answer>> {
        let mut http = Http::connect(address)?;
        let mut all = vec![
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", KEY),
        ];
        all.extend_from_slice(headers);
        let mut bytes = super::http::request_bytes(address, "GET", target, &all, b"");
        bytes.extend_from_slice(early);
        http.socket.write(&bytes)?;
        let head = http.head(soon())?;
        if head.status != 101 {
            let body = http.body(&head, soon())?;
            return Ok(Err(Answer { head, body }));
        }
        assert_eq!(head.header("sec-websocket-accept"), Some(ACCEPT), "{}", head.raw);
        Ok(Ok(WebSocket { socket: http.socket }))
    }

    pub fn send(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        self.socket.write(&masked(0x80 | opcode, payload))
    }

    #[track_caller]
    pub fn say(&mut self, text: &str) {
        self.send(TEXT, text.as_bytes()).expect("the session stands");
    }

    pub fn close(&mut self, code: u16) -> io::Result<()> {
        self.send(CLOSE, &code.to_be_bytes())
    }

    pub fn frame(&mut self, deadline: Instant) -> io::Result<Frame> {
        self.socket.take(deadline, parse_frame)
    }

    /// The next thing said; answers pings. The server never fragments and never masks.
    pub fn message(&mut self, deadline: Instant) -> io::Result<Message> {
        loop {
            let frame = self.frame(deadline)?;
            assert_eq!(frame.flags, 0x80, "whole and without reserved bits: {frame:?}");
            return Ok(match frame.opcode {
                TEXT => Message::Text(String::from_utf8(frame.payload).expect("text frames are UTF-8")),
                BINARY => Message::Binary(frame.payload),
                CLOSE => close_of(&frame.payload),
                PING => {
                    self.send(PONG, &frame.payload)?;
                    Message::Ping
                }
                PONG => continue,
                other => panic!("opcode {other}"),
            });
        }
    }

    /// The next text, skipping pings.
    #[track_caller]
    pub fn text(&mut self) -> String {
        match self.beyond_pings() {
            Message::Text(text) => text,
            other => panic!("a text was expected, not {other:?}"),
        }
    }

    /// Whatever comes that is no ping frame.
    #[track_caller]
    pub fn beyond_pings(&mut self) -> Message {
        let deadline = soon();
        loop {
            match self.message(deadline).expect("something comes") {
                Message::Ping => {}
                other => return other,
            }
        }
    }

    /// Reads on until the Close frame: its code and reason.
    #[track_caller]
    pub fn until_close(&mut self) -> (Option<u16>, String) {
        let deadline = soon();
        loop {
            if let Message::Close { code, reason } = self.message(deadline).expect("a Close frame comes") {
                return (code, reason);
            }
        }
    }
}

fn close_of(payload: &[u8]) -> Message {
    let code = payload.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
    let reason = String::from_utf8(payload.get(2..).unwrap_or_default().to_vec()).expect("a reason is UTF-8");
    Message::Close { code, reason }
}

/// A frame as clients must send it. `first` is FIN, the reserved bits and the opcode.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        n @ 0..=125 => out.push(0x80 | n as u8),
        n @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend((n as u16).to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend((n as u64).to_be_bytes());
        }
    }
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

fn parse_frame(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    assert_eq!(second & 0x80, 0, "a server does not mask");
    let (length, start) = match second {
        126 => (u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize, 4),
        127 => (u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize, 10),
        n => (n as usize, 2),
    };
    let payload = bytes.get(start..start + length)?.to_vec();
    Some((Frame { flags: first & 0xf0, opcode: first & 0x0f, payload }, start + length))
}

#[test]
fn frames_are_read_whole_or_not_at_all() {
    for length in [0, 1, 125, 126, 65_535, 65_536] {
        let payload = vec![7; length];
        let mut frame = Vec::new();
        relay_frame(&payload, &mut frame);
        assert!(parse_frame(&frame[..frame.len() - 1]).is_none());
        let (parsed, used) = parse_frame(&frame).expect("whole");
        assert_eq!((parsed.payload.len(), used), (length, frame.len()));
    }
}

/// An unmasked frame by the book, so that the parser above is not tested with itself.
#[cfg(test)]
fn relay_frame(payload: &[u8], out: &mut Vec<u8>) {
    let mut with_mask = masked(0x82, payload);
    with_mask[1] &= 0x7f;
    let head = with_mask.len() - payload.len() - 4;
    out.extend_from_slice(&with_mask[..head]);
    out.extend_from_slice(payload);
}
