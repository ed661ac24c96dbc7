//! One feed: a `[[source.redis]]` at work. What its parts share.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use super::draft::{self, NoDraft};
use super::ear::Ear;
use super::{Reads, hold, listen, live, name, read};
use crate::link::Link;
use crate::metrics::SourceCounters;
use crate::stream::Streams;
use crate::template::Text;
use crate::topic::Pattern;

/// Complaints about single messages come at most so often.
const QUIET: Duration = Duration::from_secs(10);

/// A source of Redis, as all its parts see it.
pub(super) struct Feed {
    /// What it is known by on every instance.
    pub id: Arc<str>,
    /// What people and metrics call it.
    pub label: String,
    /// Channels of one order, or one Redis Stream.
    pub reads: Reads,
    /// The channel of its markers.
    pub marks: String,
    /// What the channels begin with over which relays speak among themselves.
    pub ours: String,
    /// It takes the place of another one that overlapped it.
    pub begins_with_gap: bool,
    pub topic: ArcSwap<Text>,
    pub link: Link,
    pub streams: Arc<Streams>,
    /// This process.
    pub me: Arc<str>,
    pub counters: Arc<SourceCounters>,
    /// What is heard of its channels.
    ear: Mutex<Ear>,
    /// Something was heard, or no more is: for who appends.
    pub heard: Notify,
    /// The same for who delivers what goes by without a log.
    pub passing: Notify,
    /// Why it cannot be heard.
    trouble: Mutex<Option<String>>,
    /// Somebody appends what it says, or did.
    known: AtomicBool,
    complaints: Mutex<Complaints>,
}

/// What was not said in the log.
#[derive(Default)]
struct Complaints {
    last: Option<Instant>,
    unsaid: u64,
}

/// What a feed is made of.
pub(super) struct Parts {
    pub id: Arc<str>,
    pub label: String,
    pub reads: Reads,
    pub topic: Text,
    pub link: Link,
    pub prefix: Arc<str>,
    pub me: Arc<str>,
    pub streams: Arc<Streams>,
    pub counters: Arc<SourceCounters>,
    /// Bytes that its ring may hold.
    pub ring: usize,
    pub begins_with_gap: bool,
}

impl Feed {
    pub fn new(parts: Parts) -> Feed {
        Feed {
            marks: name::marks(&parts.prefix, &parts.id, &parts.reads),
            ours: name::ours(&parts.prefix),
            id: parts.id,
            label: parts.label,
            reads: parts.reads,
            begins_with_gap: parts.begins_with_gap,
            topic: ArcSwap::from_pointee(parts.topic),
            link: parts.link,
            streams: parts.streams,
            me: parts.me,
            counters: parts.counters,
            ear: Mutex::new(Ear::new(parts.ring)),
            heard: Notify::new(),
            passing: Notify::new(),
            trouble: Mutex::new(Some("not connected yet".to_owned())),
            known: AtomicBool::new(false),
            complaints: Mutex::default(),
        }
    }

    /// Until it is told to stop, and what was heard by then is appended.
    pub async fn run(self: Arc<Feed>, stop: watch::Receiver<bool>) {
        if let Reads::Streams(_) = self.reads {
            return read::run(&self, stop).await;
        }
        let listening = tokio::spawn(listen::run(self.clone()));
        let passing = tokio::spawn(live::run(self.clone()));
        // Whatever ends this ends those.
        let _both = (Aborted(listening.abort_handle()), Aborted(passing.abort_handle()));
        hold::run(&self, stop, listening).await;
    }

    /// What is heard of its channels.
    pub fn ear(&self) -> MutexGuard<'_, Ear> {
        locked(&self.ear)
    }

    /// Where its events can lie.
    pub fn reach(&self) -> Vec<Pattern> {
        draft::reach(&self.reads, &self.topic.load())
    }

    /// It can be heard, or cannot, and why not.
    pub fn troubled(&self, why: Option<String>) {
        self.counters.up(why.is_none());
        let mut trouble = locked(&self.trouble);
        match (&*trouble, &why) {
            (None, Some(why)) => tracing::warn!(source = %self.label, %why, "a source cannot be heard"),
            (Some(_), None) => tracing::info!(source = %self.label, "a source is heard"),
            _ => {}
        }
        *trouble = why;
    }

    /// From now on nothing is missed without a gap being told.
    pub fn known(&self) {
        self.known.store(true, Relaxed);
    }

    /// Why an instance with this feed is not ready.
    pub fn trouble(&self) -> Option<String> {
        let why = locked(&self.trouble).clone();
        let unknown = || (!self.known.load(Relaxed)).then(|| "nobody appends it yet".to_owned());
        why.or_else(unknown).map(|why| format!("source {}: {why}", self.label))
    }

    /// Counts what became no event, and says so now and then.
    pub fn dropped(&self, channel: &[u8], NoDraft(reason, what): &NoDraft) {
        self.counters.dropped(*reason, 1);
        let mut complaints = locked(&self.complaints);
        if complaints.last.is_some_and(|last| last.elapsed() < QUIET) {
            complaints.unsaid += 1;
            return;
        }
        let unsaid = std::mem::take(&mut complaints.unsaid);
        complaints.last = Some(Instant::now());
        let (channel, reason) = (draft::shown(channel), reason.label());
        tracing::warn!(source = %self.label, %channel, reason, %what, unsaid, "a message became no event");
    }
}

/// A task that ends with its owner.
struct Aborted(tokio::task::AbortHandle);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
