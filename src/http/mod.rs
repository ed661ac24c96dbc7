//! HTTP: listeners, routes, and the hand-over of a socket to the hub. warp routes, hyper speaks, both only until a
//! subscriber's request is understood: from then on the socket belongs to a shard.

pub mod admin;
pub mod answer;
pub mod connection;
pub mod handshake;
pub mod listen;
pub mod path;
pub mod public;
pub mod subscribe;
pub mod webhook;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::ArcSwap;

use crate::gate::limits::{Counts, Limits};
use crate::gate::peer::Network;
use crate::gate::shares::Shares;
use crate::hub::Hub;
use crate::metrics::{Metrics, Observed};
use crate::session::endpoint::Endpoint;
use crate::source::redis::feeds::Feeds;
use crate::source::webhook as hook;
use crate::stream::{StreamStats, Streams};
use path::PathPattern;

/// What is served where, replaced whole when the file changes.
#[derive(Debug, Default)]
pub struct Routes {
    /// By path, in the order of the file.
    pub webhooks: Vec<(PathPattern, Arc<hook::Settings>)>,
    /// Every path of every endpoint.
    pub endpoints: Vec<(PathPattern, Arc<Endpoint>)>,
    /// Whose forwarding headers count.
    pub trusted: Vec<Network>,
    /// `topics_per_session`.
    pub topics_per_session: usize,
    /// `replay`.
    pub replay: u64,
}

/// Everything a request may need.
pub struct Site {
    /// What is served where.
    pub routes: ArcSwap<Routes>,
    /// Where sessions go.
    pub hub: Hub,
    /// Where events go.
    pub streams: Arc<Streams>,
    /// What is read from Redis.
    pub feeds: Feeds,
    /// Who may come in.
    pub limits: Arc<Limits>,
    /// Who may come in, counted with other instances; none if this one is alone.
    pub shares: Option<Shares>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// This instance is on its way out.
    pub draining: AtomicBool,
    /// Requests that are being answered.
    pub requests: AtomicUsize,
    /// The warning about an untrusted forwarding header was given.
    pub warned: AtomicBool,
}

impl Site {
    /// Whether new sessions are turned away.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Why this instance is not ready.
    pub fn troubles(&self) -> Vec<String> {
        let draining = self.is_draining().then(|| "draining".to_owned());
        draining.into_iter().chain(self.streams.troubles()).chain(self.feeds.troubles()).collect()
    }

    /// What metrics and stats show beside their own counts.
    pub fn observe<T>(&self, show: impl FnOnce(&Observed<'_>) -> T) -> T {
        let (limits, streams): (Counts, Vec<StreamStats>) = (self.limits.counts(), self.streams.stats());
        let shares = self.shares.as_ref().map(Shares::counted);
        let ready = self.troubles().is_empty();
        show(&Observed { now: crate::event::Time::now(), ready, limits, shares, streams: &streams })
    }
}
