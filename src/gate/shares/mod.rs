//! Shares: `connections_per_ip` counted over all instances that have one Redis in common.
//!
//! The count of this instance comes first and holds alone while Redis is away; nobody waits for it then. One task talks
//! with Redis, so that nothing overtakes anything: in rounds, each one script, it tells how many sessions the addresses
//! have here whose number changed, and asks for those that want to come in. All keys share a slot: the script that lets
//! somebody in sees in the same moment who is alive and what each of them has, and so the sum is exact. An instance that
//! was silent for a while does not count any more. Whenever it is in doubt what the others know (an answer did not come,
//! the server lost something, this instance slept) an instance opens a new *account*: the one before is void, and all
//! is told anew.

mod count;
mod round;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};

use super::limits::{Limits, Refusal, SessionPermit};
use crate::link::server::Server;
use count::Teller;
use round::{Ask, Names};

/// Who asks while the script of others is on its way. More wait until those are told.
const ASKING: usize = 1024;

/// Where instances meet, and which one this is.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where Redis is.
    pub server: Server,
    /// What all keys begin with.
    pub prefix: String,
    /// The name of this process among the others: no spaces, no dots.
    pub instance: String,
}

/// The way to the count of all instances.
pub struct Shares {
    asks: mpsc::Sender<Ask>,
    standing: watch::Receiver<Standing>,
    tally: Arc<Tally>,
}

/// What is known of the count of all, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Instances that count together; 1 while this one counts alone.
    pub instances: u64,
    /// Sessions that all of them together let in.
    pub admitted: u64,
    /// Sessions that were within the limits of this instance, and not of all.
    pub refused: u64,
    /// Sessions let in by this instance alone, because Redis was away.
    pub unasked: u64,
}

/// How this instance counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It has not heard yet.
    Trying,
    Together,
    Alone,
}

#[derive(Default)]
struct Tally {
    names: ArcSwap<Names>,
    instances: AtomicU64,
    admitted: AtomicU64,
    refused: AtomicU64,
    unasked: AtomicU64,
}

impl Shares {
    /// Counts with others from now on, in a task of its own. `limits` must be [shared](Limits::shared).
    pub fn start(settings: Settings, limits: &Arc<Limits>) -> Shares {
        let (asks, asked) = mpsc::channel(ASKING);
        let (tell, standing) = watch::channel(Standing::Trying);
        let tally = Arc::new(Tally::default());
        tokio::spawn(Teller::new(settings, limits.clone(), tell, tally.clone()).run(asked));
        Shares { asks, standing, tally }
    }

    /// Waits until it is known whether Redis can be asked, at most so long.
    pub async fn opened(&self, patience: Duration) {
        let mut standing = self.standing.clone();
        // Late: sessions are let in by the local count until then.
        let _ = tokio::time::timeout(patience, standing.wait_for(|now| *now != Standing::Trying)).await;
    }

    /// Whether all instances together let this session in; at once while Redis is away. `own` is its endpoint's limit.
    pub async fn admit(&self, mut permit: SessionPermit, own: Option<u32>) -> Result<SessionPermit, Refusal> {
        if permit.asking().is_none() {
            return Ok(permit);
        }
        if *self.standing.borrow() == Standing::Alone {
            self.tally.unasked.fetch_add(1, Relaxed);
            permit.admit(false);
            return Ok(permit);
        }
        let (reply, answered) = oneshot::channel();
        if let Err(mpsc::error::SendError(ask)) = self.asks.send(Ask { permit, own, reply }).await {
            ask.admit(false); // the task has ended: so does the process
        }
        answered.await.unwrap_or(Err(Refusal::ConnectionsPerIp))
    }

    /// Which endpoints there are, by their numbers: instances know them by their names.
    pub fn set_endpoints<'a>(&self, endpoints: impl IntoIterator<Item = (u32, &'a str)>) {
        let names: HashMap<u32, Arc<str>> = endpoints.into_iter().map(|(id, name)| (id, name.into())).collect();
        self.tally.names.store(Arc::new(names));
    }

    /// For metrics.
    pub fn counted(&self) -> Counted {
        let read = |count: &AtomicU64| count.load(Relaxed);
        let Tally { instances, admitted, refused, unasked, .. } = &*self.tally;
        Counted {
            instances: read(instances).max(1),
            admitted: read(admitted),
            refused: read(refused),
            unasked: read(unasked),
        }
    }
}
