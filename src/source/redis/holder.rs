//! The lease of one source at work: asks the store, appends, tells gaps, and waits when that fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::duty::{Duty, TTL, Turn, Wish};
use super::feed::Feed;
use crate::event::Time;
use crate::link::Backoff;
use crate::stream::{Ask, Draft, Name, Origin, Refused};

/// A holder asks for it so often.
const RENEWED: Duration = Duration::from_secs(1);
/// The others look so often whether it is free, a little more or less.
const WATCHED: Duration = Duration::from_millis(500);
/// Who reads what is appended is behind: that passes in milliseconds.
const BEHIND: Duration = Duration::from_millis(10);

/// At most so many messages are appended at once,
pub const BATCH: usize = 512;
/// and not many more bytes: more gained nothing, and a batch should pass well within the timeout.
pub const BATCH_BYTES: usize = 256 * 1024;

/// The lease of a source, and its standing.
pub struct Holder {
    feed: Arc<Feed>,
    /// What may be done.
    pub duty: Duty,
    /// When the store is asked again.
    next: Instant,
    /// And not before, because it did not answer.
    unanswered: bool,
    backoff: Backoff,
}

impl Holder {
    /// Nobody asked yet.
    pub fn new(feed: Arc<Feed>) -> Holder {
        let duty = Duty::new(feed.begins_with_gap);
        Holder { feed, duty, next: Instant::now(), unanswered: false, backoff: Backoff::default() }
    }

    /// How long until the store is asked again; none: now.
    pub fn until_asking(&self) -> Option<Duration> {
        self.next.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// The store is asked at once.
    pub fn ask_soon(&mut self) {
        if !self.unanswered {
            self.next = Instant::now();
        }
    }

    /// Asks the store, unless it did not answer just now. None: it does not.
    pub async fn ask(&mut self, wish: Wish) -> Option<Turn> {
        if self.unanswered && self.until_asking().is_some() {
            return None;
        }
        let feed = &self.feed;
        let Wish { may_take, resign, done } = wish;
        let ask = Ask { me: &feed.me, may_take, resign, done, ttl: TTL };
        // The store says itself, elsewhere, what is wrong with it.
        let answer = feed.streams.lease(&feed.id, &ask).await.ok();
        let turn = answer.as_ref().map(|lease| self.duty.answered(wish, lease, Instant::now()));
        self.unanswered = turn.is_none();
        if self.unanswered {
            self.duty.unanswered();
        } else if self.duty.has_begun() {
            feed.known();
        }
        let ours = self.duty.fence().is_some();
        feed.counters.lease(ours);
        match turn {
            Some(Turn::Took(start)) => {
                tracing::info!(source = %feed.label, ?start, "this instance appends a source now")
            }
            Some(Turn::Lost) => tracing::info!(source = %feed.label, "this instance does not append a source any more"),
            Some(Turn::Stays) | None => {}
        }
        let ours = ours && !self.unanswered;
        self.next = Instant::now() + if ours { RENEWED } else { WATCHED.mul_f64(0.8 + 0.4 * fastrand::f64()) };
        turn
    }

    /// Appends drafts with names. False: they must be appended again, or by somebody else.
    pub async fn append(&mut self, drafts: Vec<Draft>) -> bool {
        let Some(origin) = self.origin() else { return false };
        if drafts.is_empty() {
            return true;
        }
        let stored = self.feed.streams.append_from(&origin, drafts, Time::now()).await;
        self.stored(stored.map(drop)).await
    }

    /// Tells, wherever events of the source could be, that some up to this name are missing. `if_known`: only where there
    /// are events of it, if there are.
    pub async fn tell_gap(&mut self, at: Option<Name>, if_known: bool) -> bool {
        let Some(origin) = self.origin() else { return false };
        let told = self.feed.streams.tell_gap(&origin, &self.feed.reach(), (at, if_known), Time::now()).await;
        let told = self.stored(told).await;
        if told && !if_known {
            self.feed.counters.gap();
            tracing::warn!(source = %self.feed.label, "messages of a source may be missing; a gap is told");
        }
        told
    }

    async fn stored(&mut self, stored: Result<(), Refused>) -> bool {
        match stored {
            Ok(()) => {
                self.backoff.reset();
                return true;
            }
            Err(Refused::Fenced) => {
                self.duty.fenced();
                self.ask_soon();
            }
            Err(Refused::Behind) => tokio::time::sleep(BEHIND).await,
            Err(Refused::Away(why)) => {
                tracing::debug!(source = %self.feed.label, %why, "a source waits for the store");
                self.backoff.wait().await;
            }
        }
        false
    }

    fn origin(&self) -> Option<Origin> {
        Some(Origin { source: self.feed.id.clone(), fence: self.duty.fence()? })
    }
}
