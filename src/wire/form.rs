//! How an event, a gap, a heartbeat look on each transport and in each format.
//!
//! What is written here is written once and shared by every session of a form, so all functions append to one buffer and
//! allocate nothing else. A *unit* is what must not be torn apart: a WebSocket frame, an SSE block, a line; on a
//! socket taken over from HTTP/1.1 each unit is one chunk.
//!
//! CR and LF never reach an SSE field or break a line of ndjson: JSON has raw line breaks only between tokens, where
//! dropping them changes nothing; a text in an envelope is a JSON string; cursors, ids and topics have none.

use data_encoding::BASE64;
use serde::Serialize;

use super::websocket::{self, Opcode};
use crate::close::Close;
use crate::event::{Event, Kind, Payload};

/// Left free before a unit whose length is not known yet. Fits the frames and chunks of most events; the others are
/// moved to their place.
const HEAD: usize = 4;

/// One of the four ways out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Transport {
    WebSocket,
    Sse,
    Ndjson,
    Poll,
}

/// What a payload is wrapped in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// The payload as published. Where bytes cannot stand: base64 text on SSE, a JSON string of base64 on ndjson,
    /// `{"data_base64":…}` on poll.
    Raw,
    /// `{"id":…,"topic":…,"time":…,"data":…,"cursor":…}`; binary is `data_base64`; out of turn there is no cursor.
    Envelope,
}

/// Everything that decides the bytes of an event beside its cursor. Sessions of one form share encoded bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Form {
    /// Which transport. For `Poll`, an event is encoded as one element of `items` (no separators).
    pub transport: Transport,
    /// Which format.
    pub format: Format,
    /// Each unit is an HTTP chunk of its own (SSE and ndjson on a socket taken over from HTTP/1.1).
    pub chunked: bool,
}

/// Why events are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// They are older than what the stream keeps.
    Expired,
    /// The cursor is of another life of the stream, or of none.
    Epoch,
    /// The source lost them before they entered.
    Source,
    /// The session read too slowly.
    Slow,
}

/// Events a session can no longer get.
#[derive(Debug, Clone, PartialEq)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// Patterns it concerns.
    pub topics: Vec<String>,
    /// Cursor before it, if one is known.
    pub from: Option<String>,
    /// Cursor after it.
    pub to: String,
    /// How many of the session's events, if that is known.
    pub missed: Option<u64>,
}

/// What an SSE block has beside its data. The other transports have no place for it.
#[derive(Default)]
struct Fields<'a> {
    id: Option<&'a [u8]>,
    event: Option<&'a str>,
    retry_ms: Option<u64>,
}

impl Form {
    /// One event, ready to be written. `cursor` is the encoded token, `None` out of turn.
    pub fn event(self, event: &Event, cursor: Option<&[u8]>, out: &mut Vec<u8>) {
        let payload = &event.payload;
        if self.format == Format::Raw {
            match (self.transport, payload.kind) {
                (Transport::WebSocket, Kind::Binary) => websocket::frame(Opcode::Binary, &payload.bytes, out),
                (Transport::WebSocket, _) => websocket::frame(Opcode::Text, &payload.bytes, out),
                _ => self.unit(Fields::id(cursor), out, |out| self.raw(payload, out)),
            }
        } else {
            self.unit(Fields::id(cursor), out, |out| self.envelope(event, cursor, out));
        }
    }

    /// `relay.open` (nothing on raw WebSocket and raw ndjson; an `id:` without data on SSE).
    pub fn open(self, session: &str, cursor: &[u8], out: &mut Vec<u8>) {
        match (self.transport, self.format) {
            (Transport::Sse, _) => self.id_alone(cursor, out),
            (Transport::WebSocket | Transport::Ndjson, Format::Envelope) => self.unit(Fields::default(), out, |out| {
                out.extend_from_slice(br#"{"type":"relay.open","session":"#);
                json(session, out);
                out.extend_from_slice(br#","cursor":"#);
                quoted(cursor, out);
                out.push(b'}');
            }),
            _ => {}
        }
    }

    /// A gap notice, on every form (nothing for `Poll`: see [`Gap::write`]). On SSE it has no `id:`: retained values may
    /// follow it, and a session lost in between must be told again.
    pub fn gap(self, gap: &Gap, out: &mut Vec<u8>) {
        if self.transport != Transport::Poll {
            self.unit(Fields { event: Some("relay.gap"), ..Fields::default() }, out, |out| gap.write(out));
        }
    }

    /// `relay.close` where there is a form for it, then the transport's own ending (Close frame, last chunk). To a peer
    /// that asked, or whose frames are broken, the Close frame alone; to one that has gone, nothing.
    pub fn close(self, close: Close, retry_ms: Option<u64>, out: &mut Vec<u8>) {
        if close == Close::Gone || self.transport == Transport::Poll {
            return;
        }
        let bare = matches!(close, Close::Asked | Close::Protocol | Close::BadText | Close::TooBig);
        if !(bare && self.transport == Transport::WebSocket) {
            self.say_close(close, retry_ms, out);
        }
        if self.transport == Transport::WebSocket {
            websocket::close(close.code(), close.reason(), out);
        } else if self.chunked {
            out.extend_from_slice(b"0\r\n\r\n");
        }
    }

    /// What is sent when idle: a Ping frame (and `relay.ping` in envelopes), an `id:` line, `relay.ping` or a blank line.
    pub fn heartbeat(self, cursor: &[u8], out: &mut Vec<u8>) {
        match (self.transport, self.format) {
            (Transport::Sse, _) => self.id_alone(cursor, out),
            (Transport::WebSocket, _) => websocket::frame(Opcode::Ping, b"", out),
            (Transport::Ndjson, Format::Raw) => self.unit(Fields::default(), out, |_| ()),
            _ => {}
        }
        if self.format == Format::Envelope && matches!(self.transport, Transport::WebSocket | Transport::Ndjson) {
            self.unit(Fields::default(), out, |out| {
                out.extend_from_slice(br#"{"type":"relay.ping","cursor":"#);
                quoted(cursor, out);
                out.push(b'}');
            });
        }
    }

    /// The same without a cursor, for a session that does not stand whole.
    pub fn breath(self, out: &mut Vec<u8>) {
        match self.transport {
            Transport::Sse => self.prelude(out),
            Transport::WebSocket => websocket::frame(Opcode::Ping, b"", out),
            Transport::Ndjson => self.unit(Fields::default(), out, |_| ()),
            Transport::Poll => {}
        }
    }

    /// Something said to this one session: hello, a reply. Text (JSON or not). A poll has no room for it.
    pub fn say(self, text: &[u8], out: &mut Vec<u8>) {
        if self.transport != Transport::Poll {
            self.unit(Fields::default(), out, |out| self.splice(text, out));
        }
    }

    /// The first bytes of the body: an SSE comment, so that `onopen` fires. Nothing elsewhere.
    pub fn prelude(self, out: &mut Vec<u8>) {
        if self.transport == Transport::Sse {
            self.sealed(out, |out| out.extend_from_slice(b": relay\n\n"));
        }
    }

    /// One unit: a text frame, an SSE block with these fields, a line, or the body as it is.
    fn unit(self, fields: Fields<'_>, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
        self.sealed(out, |out| match self.transport {
            Transport::Sse => {
                fields.write(out);
                out.extend_from_slice(b"data: ");
                body(out);
                out.extend_from_slice(b"\n\n");
            }
            Transport::Ndjson => {
                body(out);
                out.push(b'\n');
            }
            Transport::WebSocket | Transport::Poll => body(out),
        });
    }

    /// An SSE block that only moves the last event id.
    fn id_alone(self, cursor: &[u8], out: &mut Vec<u8>) {
        self.sealed(out, |out| {
            Fields::id(Some(cursor)).write(out);
            out.push(b'\n');
        });
    }

    /// Puts what `body` writes into a text frame or a chunk, if this form has one.
    fn sealed(self, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
        let framed = self.transport == Transport::WebSocket;
        if !framed && !self.chunked {
            return body(out);
        }
        let start = out.len();
        out.extend_from_slice(&[0; HEAD]);
        body(out);
        let len = out.len() - start - HEAD;
        if framed {
            let (head, size) = websocket::head(Opcode::Text, len);
            put_head(&head[..size], start, out);
        } else {
            let (head, size) = chunk_head(len);
            put_head(&head[..size], start, out);
            out.extend_from_slice(b"\r\n");
        }
    }

    fn raw(self, payload: &Payload, out: &mut Vec<u8>) {
        match (payload.kind, self.transport) {
            (Kind::Text, Transport::Poll) => json(&*String::from_utf8_lossy(&payload.bytes), out),
            (Kind::Json | Kind::Text | Kind::Gap, _) => self.splice(&payload.bytes, out),
            (Kind::Binary, Transport::Sse) => base64(&payload.bytes, out),
            (Kind::Binary, Transport::Poll) => {
                out.extend_from_slice(br#"{"data_base64":""#);
                base64(&payload.bytes, out);
                out.extend_from_slice(br#""}"#);
            }
            (Kind::Binary, _) => {
                out.push(b'"');
                base64(&payload.bytes, out);
                out.push(b'"');
            }
        }
    }

    fn envelope(self, event: &Event, cursor: Option<&[u8]>, out: &mut Vec<u8>) {
        out.push(b'{');
        if !event.place.live {
            out.extend_from_slice(br#""id":""#);
            event.write_id(out);
            out.extend_from_slice(br#"","#);
        }
        out.extend_from_slice(br#""topic":"#);
        json(event.topic.as_str(), out);
        out.extend_from_slice(br#","time":""#);
        event.time.write(out);
        let bytes = &event.payload.bytes;
        match event.payload.kind {
            Kind::Json | Kind::Gap => {
                out.extend_from_slice(br#"","data":"#);
                self.splice(bytes, out);
            }
            Kind::Text => {
                out.extend_from_slice(br#"","data":"#);
                json(&*String::from_utf8_lossy(bytes), out);
            }
            Kind::Binary => {
                out.extend_from_slice(br#"","data_base64":""#);
                base64(bytes, out);
                out.push(b'"');
            }
        }
        if let Some(cursor) = cursor {
            out.extend_from_slice(br#","cursor":"#);
            quoted(cursor, out);
        }
        out.push(b'}');
    }

    /// The bytes as they are, but for line breaks where the transport is made of lines: one `data:` for each line on
    /// SSE, none on ndjson.
    fn splice(self, bytes: &[u8], out: &mut Vec<u8>) {
        let line_break: &[u8] = match self.transport {
            Transport::WebSocket | Transport::Poll => return out.extend_from_slice(bytes),
            Transport::Sse => b"\ndata: ",
            Transport::Ndjson => b"",
        };
        let mut rest = bytes;
        while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
            out.extend_from_slice(&rest[..at]);
            out.extend_from_slice(line_break);
            rest = &rest[at..];
            rest = rest.strip_prefix(b"\r\n").unwrap_or(&rest[1..]);
        }
        out.extend_from_slice(rest);
    }

    fn say_close(self, close: Close, retry_ms: Option<u64>, out: &mut Vec<u8>) {
        self.unit(Fields { event: Some("relay.close"), retry_ms, id: None }, out, |out| {
            out.extend_from_slice(br#"{"type":"relay.close","code":"#);
            json(&close.code(), out);
            out.extend_from_slice(br#","reason":"#);
            json(close.reason(), out);
            out.extend_from_slice(br#","retry_ms":"#);
            json(&retry_ms, out);
            out.push(b'}');
        });
    }
}

impl<'a> Fields<'a> {
    fn id(id: Option<&'a [u8]>) -> Self {
        Fields { id, ..Fields::default() }
    }

    fn write(&self, out: &mut Vec<u8>) {
        if let Some(id) = self.id {
            out.extend_from_slice(b"id: ");
            out.extend_from_slice(id);
            out.push(b'\n');
        }
        if let Some(event) = self.event {
            out.extend_from_slice(b"event: ");
            out.extend_from_slice(event.as_bytes());
            out.push(b'\n');
        }
        if let Some(ms) = self.retry_ms {
            out.extend_from_slice(b"retry: ");
            json(&ms, out);
            out.push(b'\n');
        }
    }
}

impl GapReason {
    /// As it stands in a notice, and as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            GapReason::Expired => "expired",
            GapReason::Epoch => "epoch",
            GapReason::Source => "source",
            GapReason::Slow => "slow",
        }
    }
}

impl Gap {
    /// The JSON object `{"type":"relay.gap",…}`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"type":"relay.gap","reason":"#);
        json(self.reason.as_str(), out);
        out.extend_from_slice(br#","topics":"#);
        json(&self.topics, out);
        out.extend_from_slice(br#","from":"#);
        json(&self.from, out);
        out.extend_from_slice(br#","to":"#);
        json(&self.to, out);
        out.extend_from_slice(br#","missed":"#);
        json(&self.missed, out);
        out.push(b'}');
    }
}

/// Writes `head` at `start`, where [`HEAD`] bytes were left free for it.
fn put_head(head: &[u8], start: usize, out: &mut Vec<u8>) {
    let (body, end) = (start + HEAD, out.len());
    if head.len() > HEAD {
        out.resize(end + head.len() - HEAD, 0);
    }
    out.copy_within(body..end, start + head.len());
    out.truncate(end + head.len() - HEAD);
    out[start..start + head.len()].copy_from_slice(head);
}

/// A chunk's length in hexadecimal and its line end, and how many bytes that are.
fn chunk_head(len: usize) -> ([u8; 18], usize) {
    let mut head = [0; 18];
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4).max(1) as usize;
    for (at, byte) in head[..digits].iter_mut().enumerate() {
        let nibble = (len >> (4 * (digits - 1 - at))) & 0xf;
        *byte = b"0123456789abcdef"[nibble];
    }
    head[digits..digits + 2].copy_from_slice(b"\r\n");
    (head, digits + 2)
}

/// A text, a number, `null`, a list of texts. Appends, and allocates nothing else.
fn json<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("a Vec takes every byte, and these are always JSON");
}

/// A cursor as a JSON string: it is URL-safe, so nothing in it needs an escape.
fn quoted(cursor: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(cursor);
    out.push(b'"');
}

fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + BASE64.encode_len(bytes.len()), 0);
    BASE64.encode_mut(bytes, &mut out[start..]);
}

#[cfg(test)]
mod tests;
