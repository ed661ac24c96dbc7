//! A session's place in a shard: its line, what it has in common with others, what it has for itself.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use socket2::Socket;
use tokio::sync::oneshot;

use super::audience::{Key, NONE};
use super::poll::PAGE_BYTES;
use super::queue::{Parcel, Queue};
use super::timers::Tick;
use crate::close::Close;
use crate::event::Event;
use crate::gate::limits::{CommandRate, ConnectionPermit, SessionPermit};
use crate::session::backlog::Backlog;
use crate::session::pace::Pace;
use crate::topic::Pattern;
use crate::wire::form::Form;
use crate::wire::websocket;

/// Where the bytes go.
pub enum Line {
    /// A socket that is ours: TCP, Unix, or one end of a pair whose other end feeds an ordinary HTTP body.
    Socket(Socket),
    /// A poll: one answer, then it is over.
    Poll(Box<Poll>),
}

/// A poll that is being answered.
pub struct Poll {
    /// Who waits for the body.
    pub reply: oneshot::Sender<Vec<u8>>,
    /// Elements of `items`, joined by commas.
    pub items: Vec<u8>,
    /// How many.
    pub count: usize,
    /// How many at most.
    pub limit: usize,
    /// What is missing before them, as JSON.
    pub gap: Option<Vec<u8>>,
    /// How long an empty answer is held back, as asked.
    pub wait: Duration,
    /// And until when that is.
    pub until: Tick,
    /// Until when it waits for what is being fetched.
    pub fetch: Tick,
}

impl Poll {
    /// Adds an element.
    pub fn put(&mut self, form: Form, event: &Event, cursor: Option<&[u8]>) {
        if self.count > 0 {
            self.items.push(b',');
        }
        form.event(event, cursor, &mut self.items);
        self.count += 1;
    }

    /// Whether its page takes no more.
    pub fn is_full(&self) -> bool {
        self.count >= self.limit || self.items.len() >= PAGE_BYTES
    }
}

/// What a session's later commands may name of its request.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Request {
    pub path: Vec<(String, String)>,
    pub query: Vec<(String, String)>,
    pub headers: http::HeaderMap,
}

/// One input, waiting until the session is live.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Heard {
    Text(Bytes),
    Binary(Bytes),
    Ping(Bytes),
}

/// What is looked at rarely, out of the way of what a fan-out touches.
pub struct Own {
    /// `{session.id}`.
    pub id: [u8; 16],
    /// What it may ask for.
    pub allow: Arc<[Pattern]>,
    /// Kept only where a template may ask for it.
    pub request: Option<Arc<Request>>,
    /// Made at its first command.
    pub rate: Option<Box<CommandRate>>,
    /// Read, but not yet acted on.
    pub heard: VecDeque<Heard>,
    /// Bytes from a session that has nothing to say.
    pub stray: usize,
    /// Publications on their way into a stream.
    pub publishing: u32,
    /// The other side sent a Close with this code; it is answered when nothing is on its way any more.
    pub farewell: Option<Option<u16>>,
    /// When it is to leave, and why.
    pub leave: Option<(Tick, Close)>,
    /// `where` was set by a command, so a changed file does not touch it.
    pub own_select: bool,
    /// The same of its pace, also if it asked for it when it came.
    pub own_pace: bool,
    /// Its slots: given back when the session is gone.
    pub permits: (Option<ConnectionPermit>, Option<SessionPermit>),
}

/// How far a session's life is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Catching up or live.
    Here,
    /// Said goodbye; waits for the other side until its next timer.
    Leaving,
}

/// One session.
pub struct Session {
    /// Where the bytes go.
    pub line: Line,
    /// What it has in common with its audience.
    pub key: Rc<Key>,
    /// Its audience, [`NONE`] while it has a backlog.
    pub audience: u32,
    /// Its seat there.
    pub seat: u32,
    /// The last batch it was served.
    pub batch: u64,
    /// When it was last written to, heard, is next looked after.
    pub wrote: Tick,
    /// Last byte from it.
    pub heard: Tick,
    /// The one timer entry that counts.
    pub timer: Tick,
    /// Where it is in its life.
    pub life: Life,
    /// A ping is out and was not answered.
    pub pinged: bool,
    /// Its socket may hold more input.
    pub readable: bool,
    /// Reads frames.
    pub reader: websocket::Reader,
    /// What the socket did not take.
    pub queue: Option<Box<Queue>>,
    /// What comes before live.
    pub backlog: Option<Box<Backlog>>,
    /// What pace holds back.
    pub pace: Option<Box<Pace>>,
    /// How much of what waits its shard has counted.
    pub counted: usize,
    /// The rest.
    pub own: Box<Own>,
}

impl Session {
    /// Bytes that wait.
    pub fn waiting(&self) -> usize {
        self.queue.as_ref().map_or(0, |q| q.waiting()) + self.pace.as_ref().map_or(0, |p| p.bytes())
    }

    /// Whether it hears its audience's events as they come.
    pub fn is_live(&self) -> bool {
        self.audience != NONE
    }

    /// Writes what the socket takes now. `Ok(n)` may be short; an error is the end of the line.
    pub fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let Line::Socket(socket) = &self.line else { return Ok(slices.iter().map(|s| s.len()).sum()) };
        loop {
            let wrote = match slices {
                [one] => socket.send(one),
                many => socket.send_vectored(many),
            };
            match wrote {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// Writes, or queues what does not go.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(queue) = &mut self.queue {
            queue.push(Parcel::of_bytes(Bytes::copy_from_slice(bytes)));
            return Ok(());
        }
        let wrote = self.write(&[IoSlice::new(bytes)])?;
        if wrote < bytes.len() {
            let rest = Bytes::copy_from_slice(&bytes[wrote..]);
            self.queue = Some(Box::new(Queue::begun(Parcel::of_bytes(rest))));
        }
        Ok(())
    }

    /// Writes from the queue; true when it is empty.
    pub fn drain(&mut self) -> io::Result<bool> {
        while let Some(queue) = &self.queue {
            let mut slices = [IoSlice::new(&[]); 64];
            let count = queue.front(&mut slices);
            let want: usize = slices[..count].iter().map(|s| s.len()).sum();
            let wrote = self.write(&slices[..count])?;
            let queue = self.queue.as_mut().expect("it was looked at just now");
            queue.wrote(wrote);
            if queue.is_empty() {
                self.queue = None;
            } else if wrote < want {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A session id as people write it: a random UUID.
pub fn id_text(id: &[u8; 16]) -> String {
    let hex = data_encoding::HEXLOWER.encode(id);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
