//! One case: frames to send, how to cut them, what must come back; and the client that plays it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// The example of RFC 6455, section 1.3, and its answer.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub struct Case {
    pub name: String,
    pub frames: Vec<Vec<u8>>,
    pub chop: Chop,
    pub expected: Expected,
}

/// How the frames are written to the socket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Chop {
    /// All at once.
    Whole,
    /// So many bytes in the same write as the handshake, the rest after it.
    WithHandshake(usize),
    /// One write for each frame.
    Frames,
    /// One write for each frame, when the one before was answered.
    Answered,
    /// So many bytes a write.
    Bytes(usize),
}

/// What came back, or must.
#[derive(Default)]
pub struct Expected {
    /// Opcode and payload.
    pub echoes: Vec<(u8, Vec<u8>)>,
    pub pongs: Vec<Vec<u8>>,
    pub end: End,
    /// A server that fails a connection may drop what was still on its way back.
    pub may_lack_echoes: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub enum End {
    /// The connection is as good as before: our Close with 1000 is answered by the same.
    #[default]
    Sound,
    /// The frames held a Close, and it is answered with this code.
    Closed(Option<u16>),
    /// The server fails the connection with this code.
    Failed(u16),
}

/// Plays a case; `Err` says what was wrong.
pub fn run(addr: SocketAddr, path: &str, case: &Case, patience: Duration) -> Result<(), String> {
    play(addr, path, case, patience).map_err(|why| format!("{} ({:?}): {why}", case.name, case.chop))
}

fn play(addr: SocketAddr, path: &str, case: &Case, patience: Duration) -> Result<(), String> {
    let stream = TcpStream::connect(addr).map_err(|e| format!("connect: {e}"))?;
    let timeouts = stream.set_read_timeout(Some(patience)).and(stream.set_write_timeout(Some(patience)));
    timeouts.and(stream.set_nodelay(true)).map_err(|e| format!("socket: {e}"))?;
    let mut early = Vec::new();
    if let Chop::WithHandshake(count) = case.chop {
        early = case.frames.concat();
        early.truncate(count);
    }
    let mut incoming = Incoming { stream: &stream, buffer: Vec::new() };
    handshake(&mut incoming, addr, path, &early)?;
    let (heard, answers) = channel();
    thread::scope(|scope| {
        scope.spawn(|| say(&stream, case, answers));
        let result = listen(&mut incoming, case, heard);
        // Whatever the writer is still at, it is over.
        let _ = stream.shutdown(Shutdown::Both);
        result
    })
}

fn handshake(incoming: &mut Incoming<'_>, addr: SocketAddr, path: &str, early: &[u8]) -> Result<(), String> {
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
    .into_bytes();
    request.extend_from_slice(early);
    incoming.stream.write_all(&request).map_err(|e| format!("handshake: {e}"))?;
    let end = loop {
        if let Some(at) = incoming.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        incoming.fill()?;
    };
    let head = String::from_utf8_lossy(&incoming.buffer[..end]).into_owned();
    incoming.buffer.drain(..end);
    let accepted = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .any(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-accept") && value == ACCEPT);
    if head.starts_with("HTTP/1.1 101 ") && accepted { Ok(()) } else { Err(format!("no handshake: {head:?}")) }
}

/// Writes the case. A server that has failed the connection takes no more, which is not for the writer to judge.
fn say(mut stream: &TcpStream, case: &Case, answers: Receiver<()>) {
    let all;
    let pieces: Vec<&[u8]> = match case.chop {
        Chop::Frames | Chop::Answered => case.frames.iter().map(Vec::as_slice).collect(),
        Chop::Whole => {
            all = case.frames.concat();
            vec![&all[..]]
        }
        Chop::WithHandshake(count) => {
            all = case.frames.concat();
            vec![&all[count.min(all.len())..]]
        }
        Chop::Bytes(count) => {
            all = case.frames.concat();
            all.chunks(count).collect()
        }
    };
    let mut left = case.expected.echoes.len() + case.expected.pongs.len();
    for piece in pieces {
        if stream.write_all(piece).is_err() {
            return;
        }
        if case.chop == Chop::Answered && left > 0 {
            left -= 1;
            if answers.recv().is_err() {
                return;
            }
        }
    }
    if case.expected.end == End::Sound && answers.iter().take(left).count() == left {
        let _ = stream.write_all(&frame(0x80 | CLOSE, &1000u16.to_be_bytes()));
    }
}

/// Reads until the server ends, and holds it against what was expected.
fn listen(incoming: &mut Incoming<'_>, case: &Case, heard: Sender<()>) -> Result<(), String> {
    let mut came = Expected::default();
    let code = loop {
        let (opcode, payload) = incoming.frame().map_err(|why| {
            let (echoes, pongs) = (came.echoes.len(), came.pongs.len());
            format!("after {echoes} echoes and {pongs} pongs: {why}")
        })?;
        match opcode {
            TEXT | BINARY => came.echoes.push((opcode, payload)),
            PONG => came.pongs.push(payload),
            // A slow machine may make us look idle.
            PING => continue,
            CLOSE => break close_code(&payload)?,
            other => return Err(format!("opcode {other} came back")),
        }
        // The writer may have no use for it any more.
        let _ = heard.send(());
    };
    let expected = match case.expected.end {
        End::Sound => Some(1000),
        End::Closed(code) => code,
        End::Failed(code) => Some(code),
    };
    if code != expected {
        return Err(format!("closed with {code:?} instead of {expected:?}"));
    }
    if let End::Failed(_) = case.expected.end {
        // Stands for our Close: the writer may be within a frame.
        let _ = incoming.stream.shutdown(Shutdown::Write);
    }
    incoming.end()?;
    came.hold_against(&case.expected)
}

impl Expected {
    fn hold_against(&self, expected: &Expected) -> Result<(), String> {
        let lacks = expected.may_lack_echoes && expected.echoes.starts_with(&self.echoes);
        if self.echoes != expected.echoes && !lacks {
            return Err(format!("echoes: {} instead of {}", shown(&self.echoes), shown(&expected.echoes)));
        }
        if self.pongs != expected.pongs {
            return Err(format!("pongs: {:?} instead of {:?}", self.pongs, expected.pongs));
        }
        Ok(())
    }
}

fn shown(echoes: &[(u8, Vec<u8>)]) -> String {
    let one = |(opcode, payload): &(u8, Vec<u8>)| {
        let kind = if *opcode == TEXT { "text" } else { "binary" };
        let start = String::from_utf8_lossy(&payload[..payload.len().min(24)]);
        format!("{kind} of {} {start:?}", payload.len())
    };
    format!("[{}]", echoes.iter().take(5).map(one).collect::<Vec<_>>().join(", "))
}

fn close_code(payload: &[u8]) -> Result<Option<u16>, String> {
    match payload {
        [] => Ok(None),
        [high, low, reason @ ..] if reason.len() <= 123 && std::str::from_utf8(reason).is_ok() => {
            Ok(Some(u16::from_be_bytes([*high, *low])))
        }
        other => Err(format!("a malformed close: {other:?}")),
    }
}

/// What the server sends, frame by frame.
struct Incoming<'s> {
    stream: &'s TcpStream,
    buffer: Vec<u8>,
}

impl Incoming<'_> {
    fn fill(&mut self) -> Result<(), String> {
        let mut chunk = vec![0; 1 << 16];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err("the connection ended without a close".into()),
            Ok(count) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                Ok(())
            }
            Err(e) => Err(format!("nothing came: {e}")),
        }
    }

    /// Opcode and payload. A server's frame is whole, not masked, without reserved bits, its length in the fewest bytes.
    fn frame(&mut self) -> Result<(u8, Vec<u8>), String> {
        loop {
            if let Some((start, end)) = span(&self.buffer)?
                && self.buffer.len() >= end
            {
                let first = self.buffer[0];
                let payload = self.buffer[start..end].to_vec();
                self.buffer.drain(..end);
                return Ok((first & 0x0f, payload));
            }
            self.fill()?;
        }
    }

    /// Nothing comes after a Close, and the server ends the connection.
    fn end(&mut self) -> Result<(), String> {
        while self.buffer.is_empty() {
            let mut chunk = [0; 64];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return Ok(()),
                Err(e) => return Err(format!("the connection stays open after the close: {e}")),
            }
        }
        Err(format!("{:?} came after the close", self.buffer))
    }
}

/// Where the payload of the frame at the start of `bytes` begins and ends.
fn span(bytes: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if first & 0xf0 != 0x80 || second & 0x80 != 0 {
        return Err(format!("a frame that begins with {first:#04x} {second:#04x}"));
    }
    let (size, len, least) = match (second, rest) {
        (126, [a, b, ..]) => (4, u64::from(u16::from_be_bytes([*a, *b])), 126),
        (127, rest) if rest.len() >= 8 => (10, rest[..8].iter().fold(0, |n, b| n << 8 | u64::from(*b)), 1 << 16),
        (126 | 127, _) => return Ok(None),
        (short, _) => (2, u64::from(*short), 0),
    };
    if len < least {
        return Err(format!("a length of {len} in {size} bytes"));
    }
    Ok(Some((size, size + len as usize)))
}

/// A client's frame; `first` is its first byte.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = head(first, payload.len() as u64);
    let mask = [0x5a, 0xc3, 0x17, 0x88];
    out.extend_from_slice(&mask);
    out.reserve(payload.len());
    let (fours, tail) = payload.as_chunks::<4>();
    for four in fours {
        out.extend_from_slice(&(u32::from_ne_bytes(*four) ^ u32::from_ne_bytes(mask)).to_ne_bytes());
    }
    out.extend(tail.iter().zip(mask).map(|(byte, key)| byte ^ key));
    out
}

/// The first bytes of a masked frame, before the mask.
pub fn head(first: u8, len: u64) -> Vec<u8> {
    let mut out = vec![first];
    match len {
        0..=125 => out.push(0x80 | len as u8),
        126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend_from_slice(&len.to_be_bytes());
        }
    }
    out
}
