//! How an event, a gap, a heartbeat look on each transport and in each format.

use crate::close::Close;
use crate::event::Event;

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
    /// The payload as published.
    Raw,
    /// `{"id":…,"topic":…,"time":…,"data":…,"cursor":…}`.
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
#[allow(missing_docs)]
pub enum GapReason {
    Expired,
    Epoch,
    Source,
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

impl Form {
    /// One event, ready to be written. `cursor` is the encoded token, `None` out of turn.
    pub fn event(self, event: &Event, cursor: Option<&[u8]>, out: &mut Vec<u8>) {
        let _ = (event, cursor, out);
        todo!()
    }
    /// `relay.open` (nothing on raw WebSocket and raw ndjson; an `id:` without data on SSE).
    pub fn open(self, session: &str, cursor: &[u8], out: &mut Vec<u8>) {
        let _ = (session, cursor, out);
        todo!()
    }
    /// A gap notice, on every form (nothing for `Poll`: see [`Gap::write`]).
    pub fn gap(self, gap: &Gap, out: &mut Vec<u8>) {
        let _ = (gap, out);
        todo!()
    }
    /// `relay.close` where there is a form for it, then the transport's own ending (Close frame, last chunk).
    pub fn close(self, close: Close, retry_ms: Option<u64>, out: &mut Vec<u8>) {
        let _ = (close, retry_ms, out);
        todo!()
    }
    /// What is sent when idle: a Ping frame (and `relay.ping` in envelopes), an `id:` line, `relay.ping` or a blank line.
    pub fn heartbeat(self, cursor: &[u8], out: &mut Vec<u8>) {
        let _ = (cursor, out);
        todo!()
    }
    /// Something said to this one session: hello, a reply. Text (JSON or not).
    pub fn say(self, text: &[u8], out: &mut Vec<u8>) {
        let _ = (text, out);
        todo!()
    }
    /// The first bytes of the body: an SSE comment, so that `onopen` fires. Nothing elsewhere.
    pub fn prelude(self, out: &mut Vec<u8>) {
        let _ = out;
        todo!()
    }
}

impl Gap {
    /// The JSON object `{"type":"relay.gap",…}`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let _ = out;
        todo!()
    }
}
