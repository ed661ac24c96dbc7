//! What is said to a shard from outside its thread.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::seat::{Line, Request};
use crate::gate::limits::{ConnectionPermit, Rate, SessionPermit};
use crate::session::endpoint::Endpoint;
use crate::session::terms::Terms;
use crate::stream::Draft;
use crate::wire::form::Form;

/// A session on its way into a shard.
pub struct Opening {
    /// Where its bytes go.
    pub line: Line,
    /// What is written before anything else: the head of the HTTP response.
    pub head: Vec<u8>,
    /// What the client sent together with its request.
    pub early: Bytes,
    /// Its id.
    pub id: [u8; 16],
    /// The endpoint as it was when it let the session in.
    pub endpoint: Arc<Endpoint>,
    /// How it is spoken to.
    pub form: Form,
    /// What it gets.
    pub terms: Terms,
    /// The endpoint's greeting, filled.
    pub hello: Option<Vec<u8>>,
    /// What later commands may name.
    pub request: Option<Arc<Request>>,
    /// Its slots.
    pub permits: (Option<ConnectionPermit>, Option<SessionPermit>),
}

/// What every session is held to.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Settings {
    pub queue: usize,
    pub queues: usize,
    pub replay: u64,
    pub frame: usize,
    pub topics_per_session: usize,
    pub commands: Rate,
    pub session_age: Option<Duration>,
}

/// Takes what a session publishes, unless too much waits already; calls back when it is in its stream, or was refused.
pub type Publish = Arc<dyn Fn(Draft, Done) -> bool + Send + Sync>;

/// Learns what became of a publication: why it was refused, if it was.
pub type Done = Box<dyn FnOnce(Option<String>) + Send>;

/// A message to a shard.
pub enum Mail {
    /// A new session.
    Open(Box<Opening>),
    /// What a session published is in its stream, or why not.
    Published {
        /// Its number.
        session: u32,
        /// Its id: the number may be another's by now.
        id: [u8; 16],
        /// Why not.
        refused: Option<String>,
    },
    /// Whatever could be learned of the cursor that a session's command brought is known now.
    Learned {
        /// Its number.
        session: u32,
        /// Its id: the number may be another's by now.
        id: [u8; 16],
        /// The store could not be asked.
        away: bool,
    },
    /// The endpoints as they are from now on; sessions that must go leave over this time.
    Endpoints {
        /// All of them.
        endpoints: HashMap<u32, Arc<Endpoint>>,
        /// How long that may take.
        over: Duration,
    },
    /// Other limits.
    Settings(Arc<Settings>),
    /// All sessions leave, evenly over this time.
    Drain(Duration),
    /// The thread ends.
    Stop,
}

/// A shard's letter box, and the bell beside it.
pub struct Mailbox {
    mails: Mutex<Vec<Mail>>,
    has_mail: AtomicBool,
    /// The bell was rung and not yet heard: no need to ring again.
    rung: AtomicBool,
    waker: mio::Waker,
}

impl Mailbox {
    /// Empty.
    pub fn new(waker: mio::Waker) -> Mailbox {
        Mailbox { mails: Mutex::default(), has_mail: AtomicBool::new(false), rung: AtomicBool::new(false), waker }
    }

    /// Sends.
    pub fn send(&self, mail: Mail) {
        self.mails.lock().unwrap_or_else(PoisonError::into_inner).push(mail);
        self.has_mail.store(true, Ordering::Release);
        self.ring();
    }

    /// Wakes the shard, once until it has looked.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "a shard could not be woken");
        }
    }

    /// Whether there is mail.
    pub fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::Acquire)
    }

    /// All of it; from here on the bell rings again.
    pub fn take(&self) -> Vec<Mail> {
        // A swap and not a store: who found the bell already rung has its news seen from here on.
        self.rung.swap(false, Ordering::AcqRel);
        if !self.has_mail.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut *self.mails.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
