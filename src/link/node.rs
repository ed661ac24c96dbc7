//! One node of a server, connected or not. One attempt at a time, whoever asked for it; and it outlives who asked, so that
//! a node that hangs is known to hang by those who come next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::server::Address;
use super::{Backoff, Down, Link, Wire, connect};

/// See above.
pub(super) struct Node {
    address: Address,
    tried: Mutex<Tried>,
    /// The wire that somebody found broken.
    broken: AtomicU64,
}

/// What became of the last attempt.
enum Tried {
    Never,
    Up(Wire),
    Down { why: Down, until: Instant, pause: Duration },
}

impl Node {
    pub fn new(address: Address) -> Node {
        Node { address, tried: Mutex::new(Tried::Never), broken: AtomicU64::new(0) }
    }

    /// Wires up to this one are not handed out any more.
    pub fn give_up(&self, wire: &Wire) {
        self.broken.fetch_max(wire.number, Relaxed);
    }

    /// The connection that all share, made if it must be; or why there is none.
    pub async fn shared(self: &Arc<Self>, link: &Link) -> Result<Wire, Down> {
        if let Some(known) = self.known(&*self.tried.lock().await, link) {
            return known;
        }
        let (node, link) = (self.clone(), link.clone());
        let attempt = tokio::spawn(async move { node.attempt(&link).await });
        attempt.await.unwrap_or_else(|_| Err(Down("the attempt to connect was ended".to_owned())))
    }

    /// What the last attempt says, if that still holds.
    fn known(&self, tried: &Tried, link: &Link) -> Option<Result<Wire, Down>> {
        match tried {
            Tried::Up(wire) => {
                let good = wire.number > self.broken.load(Relaxed) && !wire.is_closed() && !link.is_stale(wire);
                good.then(|| Ok(wire.clone()))
            }
            Tried::Down { why, until, .. } => (Instant::now() < *until).then(|| Err(why.clone())),
            Tried::Never => None,
        }
    }

    async fn attempt(&self, link: &Link) -> Result<Wire, Down> {
        let mut tried = self.tried.lock().await;
        if let Some(known) = self.known(&tried, link) {
            return known; // of the attempt that was waited for
        }
        let mut backoff = match &*tried {
            Tried::Down { pause, .. } => Backoff(*pause),
            Tried::Never | Tried::Up(_) => Backoff::default(),
        };
        let made = connect::connect(link.server(), &self.address, None, link.server().timeout).await;
        link.tried(&made);
        *tried = match &made {
            Ok(wire) => Tried::Up(wire.clone()),
            Err(why) => {
                let until = Instant::now() + backoff.next();
                Tried::Down { why: why.clone(), until, pause: backoff.0 }
            }
        };
        made
    }
}
