//! One subscriber on any of the four transports, so that a test can say what it expects and not how it came.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Instant;

use serde_json::Value;

use super::http::{Answer, Http, parse_chunk};
use super::websocket::{Message, WebSocket};
use super::{socket::Socket, soon};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    WebSocket,
    Sse,
    Ndjson,
    Poll,
}

impl Transport {
    pub const ALL: [Transport; 4] = [Transport::WebSocket, Transport::Sse, Transport::Ndjson, Transport::Poll];
    /// Those that stay open.
    pub const STREAMING: [Transport; 3] = [Transport::WebSocket, Transport::Sse, Transport::Ndjson];
}

/// What a subscriber was told.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    Event {
        cursor: Option<String>,
        id: String,
        topic: String,
        data: Value,
    },
    Gap {
        reason: String,
        from: Option<String>,
        to: String,
        missed: Option<u64>,
        topics: Vec<String>,
    },
    /// From here on it is live.
    Open {
        cursor: String,
    },
    Close {
        code: u64,
        reason: String,
        retry_ms: Option<u64>,
    },
    Heartbeat {
        cursor: Option<String>,
    },
    /// A raw payload, a greeting, a reply.
    Other {
        cursor: Option<String>,
        data: Vec<u8>,
    },
}

pub enum Feed {
    WebSocket(WebSocket),
    Sse(Lines),
    Ndjson(Lines),
    Poll(Poll),
}

/// A chunked body of lines (or of blocks of lines).
pub struct Lines {
    socket: Socket,
    text: Vec<u8>,
    /// SSE says that a session stands whole with its first id without data.
    opened: bool,
    ended: bool,
}

pub struct Poll {
    http: Http,
    target: String,
    cursor: Option<String>,
    items: std::collections::VecDeque<Item>,
    waiting: bool,
    opened: bool,
}

impl Feed {
    /// Subscribes. `params` is a query without `?`, `after` a cursor to go on from.
    pub fn connect(
        address: SocketAddr,
        path: &str,
        transport: Transport,
        params: &str,
        after: Option<&str>,
    ) -> io::Result<Result<Feed, Answer>> {
        let mut target = format!("{path}?{params}");
        if let (Some(cursor), false) = (after, transport == Transport::Poll) {
            target.push_str(&format!("&after={cursor}"));
        }
        match transport {
            Transport::WebSocket => Ok(WebSocket::connect(address, &target, &[])?.map(Feed::WebSocket)),
            Transport::Sse => Ok(Lines::open(address, &target, "text/event-stream")?.map(Feed::Sse)),
            Transport::Ndjson => Ok(Lines::open(address, &target, "application/x-ndjson")?.map(Feed::Ndjson)),
            Transport::Poll => Poll::open(address, target, after).map(|poll| Ok(Feed::Poll(poll))),
        }
    }

    /// The same, where nothing may refuse it.
    #[track_caller]
    pub fn open(address: SocketAddr, path: &str, transport: Transport, params: &str, after: Option<&str>) -> Feed {
        match Feed::connect(address, path, transport, params, after) {
            Ok(Ok(feed)) => feed,
            Ok(Err(answer)) => panic!("{transport:?} {path}?{params}: {}{}", answer.head.raw, answer.text()),
            Err(e) => panic!("{transport:?} {path}?{params}: {e}"),
        }
    }

    /// What comes next. A deadline that passes loses nothing; an end is `UnexpectedEof`.
    pub fn next(&mut self, deadline: Instant) -> io::Result<Item> {
        match self {
            Feed::WebSocket(socket) => match socket.message(deadline)? {
                Message::Text(text) => Ok(item(text.as_bytes(), None)),
                Message::Binary(data) => Ok(Item::Other { cursor: None, data }),
                Message::Ping => Ok(Item::Heartbeat { cursor: None }),
                Message::Close { .. } => Err(ErrorKind::UnexpectedEof.into()),
            },
            Feed::Sse(lines) => lines.block(deadline),
            Feed::Ndjson(lines) => {
                let line = lines.until(b"\n", deadline)?;
                if line.is_empty() { Ok(Item::Heartbeat { cursor: None }) } else { Ok(item(&line, None)) }
            }
            Feed::Poll(poll) => poll.next(deadline),
        }
    }

    /// What comes next and is no heartbeat.
    #[track_caller]
    pub fn expect(&mut self) -> Item {
        let deadline = soon();
        loop {
            match self.next(deadline).expect("something comes") {
                Item::Heartbeat { .. } => {}
                other => return other,
            }
        }
    }

    /// Reads until the session stands whole: what came before, and the cursor.
    #[track_caller]
    pub fn until_open(&mut self) -> (Vec<Item>, String) {
        let mut before = Vec::new();
        loop {
            match self.expect() {
                Item::Open { cursor } => return (before, cursor),
                other => before.push(other),
            }
        }
    }

    /// The next so many events, and nothing else between them.
    #[track_caller]
    pub fn events(&mut self, count: usize) -> Vec<Item> {
        let mut events = Vec::new();
        while events.len() < count {
            match self.expect() {
                Item::Open { .. } => {}
                event @ Item::Event { .. } => events.push(event),
                other => panic!("an event was expected, not {other:?}; so far {events:?}"),
            }
        }
        events
    }

    /// Reads to the end: the last thing said before it.
    #[track_caller]
    pub fn until_end(&mut self) -> Vec<Item> {
        let (mut all, deadline) = (Vec::new(), soon());
        loop {
            match self.next(deadline) {
                Ok(item) => all.push(item),
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return all,
                Err(e) => panic!("{e} instead of an end; so far {all:?}"),
            }
        }
    }
}

impl Item {
    pub fn cursor(&self) -> Option<&str> {
        match self {
            Item::Open { cursor } => Some(cursor),
            Item::Gap { to, .. } => Some(to),
            Item::Event { cursor, .. } | Item::Heartbeat { cursor } | Item::Other { cursor, .. } => cursor.as_deref(),
            Item::Close { .. } => None,
        }
    }
    #[track_caller]
    pub fn id(&self) -> &String {
        match self {
            Item::Event { id, .. } => id,
            other => panic!("no event: {other:?}"),
        }
    }
    #[track_caller]
    pub fn data(&self) -> &Value {
        match self {
            Item::Event { data, .. } => data,
            other => panic!("no event: {other:?}"),
        }
    }
}

impl Lines {
    fn open(address: SocketAddr, target: &str, accept: &str) -> io::Result<Result<Lines, Answer>> {
        let mut http = Http::connect(address)?;
        http.send("GET", target, &[("Accept", accept)], b"")?;
        let head = http.head(soon())?;
        if head.header("content-type").is_none_or(|kind| !kind.starts_with(accept)) {
            let body = http.body(&head, soon())?;
            return Ok(Err(Answer { head, body }));
        }
        assert_eq!(head.status, 200, "{}", head.raw);
        let endless = head.header("transfer-encoding") == Some("chunked");
        // A refusal that looks like a stream has an end from the start.
        let text = if endless { Vec::new() } else { http.body(&head, soon())? };
        Ok(Ok(Lines { socket: http.socket, text, opened: false, ended: !endless }))
    }

    /// The text up to the next `end`, without it.
    fn until(&mut self, end: &[u8], deadline: Instant) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.text, end) {
                let mut whole: Vec<u8> = self.text.drain(..at + end.len()).collect();
                whole.truncate(at);
                return Ok(whole);
            }
            if self.ended {
                assert!(self.text.is_empty(), "cut short: {:?}", String::from_utf8_lossy(&self.text));
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let chunk = self.socket.take(deadline, parse_chunk)?;
            self.ended = chunk.is_empty();
            self.text.extend(chunk);
        }
    }

    /// One block of an event stream.
    fn block(&mut self, deadline: Instant) -> io::Result<Item> {
        let block = String::from_utf8(self.until(b"\n\n", deadline)?).expect("an event stream is UTF-8");
        let (mut cursor, mut data): (_, Option<String>) = (None, None);
        for line in block.lines() {
            if let Some(value) = line.strip_prefix("id: ") {
                cursor = Some(value.to_owned());
            } else if let Some(value) = line.strip_prefix("data: ").or(line.strip_prefix("data:")) {
                match &mut data {
                    Some(text) => *text = format!("{text}\n{value}"),
                    None => data = Some(value.to_owned()),
                }
            } else {
                let known = [":", "event: relay.", "retry: "].iter().any(|start| line.starts_with(start));
                assert!(known, "an unknown line {line:?} in {block:?}");
            }
        }
        Ok(match (data, cursor) {
            (Some(data), cursor) => item(data.as_bytes(), cursor),
            (None, Some(cursor)) if !std::mem::replace(&mut self.opened, true) => Item::Open { cursor },
            (None, cursor) => Item::Heartbeat { cursor },
        })
    }
}

impl Poll {
    fn open(address: SocketAddr, target: String, after: Option<&str>) -> io::Result<Poll> {
        let http = Http::connect(address)?;
        let cursor = after.map(str::to_owned);
        let items = std::collections::VecDeque::new();
        Ok(Poll { http, target, cursor, items, waiting: false, opened: false })
    }

    fn next(&mut self, deadline: Instant) -> io::Result<Item> {
        loop {
            if let Some(item) = self.items.pop_front() {
                return Ok(item);
            }
            if !self.waiting {
                let target = match &self.cursor {
                    Some(cursor) => format!("{}&transport=poll&after={cursor}", self.target),
                    None => format!("{}&transport=poll", self.target),
                };
                let wait = if self.opened { "&wait=30s" } else { "" };
                self.http.send("GET", &format!("{target}{wait}"), &[], b"")?;
                self.waiting = true;
            }
            let answer = self.http.answer(deadline)?;
            self.waiting = false;
            if answer.status() != 200 {
                return Err(io::Error::other(format!("{}{}", answer.head.raw, answer.text())));
            }
            self.page(&answer.json());
        }
    }

    fn page(&mut self, page: &Value) {
        let cursor = page["cursor"].as_str().expect("a page has a cursor").to_owned();
        if !page["gap"].is_null() {
            self.items.push_back(item(page["gap"].to_string().as_bytes(), None));
        }
        for each in page["items"].as_array().expect("a page has items") {
            self.items.push_back(item(each.to_string().as_bytes(), None));
        }
        let more = page["more"].as_bool().expect("a page says whether there is more");
        if !more && !std::mem::replace(&mut self.opened, true) {
            self.items.push_back(Item::Open { cursor: cursor.clone() });
        } else {
            self.items.push_back(Item::Heartbeat { cursor: Some(cursor.clone()) });
        }
        self.cursor = Some(cursor);
    }
}

/// Reads what was said in an envelope, or takes it as it is.
fn item(bytes: &[u8], id_line: Option<String>) -> Item {
    let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    let cursor = id_line.or(text("cursor"));
    match value["type"].as_str() {
        Some("relay.gap") => Item::Gap {
            reason: text("reason").expect("a gap has a reason"),
            from: text("from"),
            to: text("to").expect("a gap says where it ends"),
            missed: value["missed"].as_u64(),
            topics: value["topics"].as_array().map_or(vec![], |all| all.iter().map(string).collect()),
        },
        Some("relay.open") => Item::Open { cursor: cursor.expect("relay.open has a cursor") },
        Some("relay.close") => Item::Close {
            code: value["code"].as_u64().expect("a close has a code"),
            reason: text("reason").expect("a close has a reason"),
            retry_ms: value["retry_ms"].as_u64(),
        },
        Some("relay.ping") => Item::Heartbeat { cursor },
        _ => match (text("id"), text("topic"), value.get("data").or(value.get("data_base64"))) {
            (Some(id), Some(topic), Some(data)) => Item::Event { cursor, id, topic, data: data.clone() },
            _ => Item::Other { cursor, data: bytes.to_vec() },
        },
    }
}

fn string(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}
