//! The hub: shards, each a thread with its own sessions; the hot path. No configuration file, no HTTP.

pub mod audience;
pub mod class;
mod fanout;
mod flow;
pub mod index;
mod losses;
pub mod mail;
mod opening;
mod poll;
pub mod queue;
pub mod seat;
mod shard;
pub mod tails;
mod talk;
mod tend;
pub mod timers;

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use mail::{Mail, Mailbox, Opening, Publish, Settings};
use shard::{Plan, Shard};

use crate::metrics::Metrics;
use crate::session::endpoint::Endpoint;
use crate::stream::Streams;

/// All shards of this instance.
pub struct Hub {
    shards: Vec<Arc<Mailbox>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    next: AtomicUsize,
    /// Rises when a shard's thread ended without being told to: the process cannot go on.
    pub failed: Arc<tokio::sync::Notify>,
}

impl Hub {
    /// Starts one thread for each reader of the streams. What sessions publish goes to `publish`.
    pub fn start(
        streams: &Arc<Streams>,
        metrics: &Arc<Metrics>,
        settings: &Arc<Settings>,
        publish: &Publish,
    ) -> io::Result<Hub> {
        let queued = Arc::new(AtomicUsize::new(0));
        let failed = Arc::new(tokio::sync::Notify::new());
        let (mut shards, mut threads) = (Vec::new(), Vec::new());
        for number in 0..metrics.shards() {
            let poll = mio::Poll::new()?;
            let mailbox = Arc::new(Mailbox::new(mio::Waker::new(poll.registry(), shard::WAKE)?));
            let bell = mailbox.clone();
            streams.on_change(Box::new(move || bell.ring()));
            let plan = Plan {
                number,
                shards: metrics.shards(),
                streams: streams.clone(),
                settings: settings.clone(),
                publish: publish.clone(),
                counters: metrics.shard(number),
                queued: queued.clone(),
                runtime: tokio::runtime::Handle::try_current().ok(),
            };
            let (letters, failed) = (mailbox.clone(), failed.clone());
            let body = move || match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                Shard::new(plan, poll, letters).run()
            })) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!(%error, number, "a shard failed");
                    failed.notify_one();
                }
                Err(_) => {
                    tracing::error!(number, "a shard panicked");
                    failed.notify_one();
                }
            };
            threads.push(std::thread::Builder::new().name(format!("shard-{number}")).spawn(body)?);
            shards.push(mailbox);
        }
        Ok(Hub { shards, threads: Mutex::new(threads), next: AtomicUsize::new(0), failed })
    }

    /// Hands a session to a shard, in turn.
    pub fn open(&self, opening: Opening) {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.shards.len();
        self.shards[at].send(Mail::Open(Box::new(opening)));
    }

    /// The endpoints as they are from now on.
    pub fn endpoints(&self, endpoints: &HashMap<u32, Arc<Endpoint>>, over: Duration) {
        self.shards.iter().for_each(|s| s.send(Mail::Endpoints { endpoints: endpoints.clone(), over }));
    }

    /// Other limits.
    pub fn settings(&self, settings: &Arc<Settings>) {
        self.shards.iter().for_each(|s| s.send(Mail::Settings(settings.clone())));
    }

    /// All sessions leave, evenly over this time.
    pub fn drain(&self, over: Duration) {
        self.shards.iter().for_each(|s| s.send(Mail::Drain(over)));
    }

    /// Ends the threads and waits for them.
    pub fn stop(&self) {
        self.shards.iter().for_each(|s| s.send(Mail::Stop));
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = thread.join(); // a panic was logged where it happened
        }
    }
}

#[cfg(test)]
mod tests;
