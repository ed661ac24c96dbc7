//! Limits per peer and for the instance. A slot lives as long as the value that holds it.

use std::sync::Arc;

use super::peer::{Network, Peer};

/// A rate: `"20/s burst 64"`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Per second.
    pub per_second: f64,
    /// At once.
    pub burst: u32,
}

/// `[limits]`, as far as the gate counts it.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Settings {
    pub connections: u32,
    pub connections_per_ip: u32,
    pub connects_per_ip: Rate,
    pub requests_per_ip: Rate,
    pub commands_per_session: Rate,
    pub exempt: Vec<Network>,
}

/// Which limit said no; a closed list, also a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Refusal {
    Connections,
    ConnectionsPerIp,
    ConnectsPerIp,
    RequestsPerIp,
    EndpointConnectionsPerIp,
}

/// The tables. Bounded whatever strangers do.
pub struct Limits(());

/// A TCP connection's slot, from accept until it closes or its session ends.
pub struct ConnectionPermit(());
/// A session's slot.
pub struct SessionPermit(());

impl Limits {
    /// With empty tables.
    pub fn new(settings: Settings) -> Arc<Limits> {
        let _ = settings;
        todo!()
    }
    /// A changed file: those who are in stay in.
    pub fn apply(&self, settings: Settings) {
        let _ = settings;
        todo!()
    }
    /// At accept, before a byte is read. `None` for a remote that is a trusted proxy (its peers count, not itself). A peer may
    /// have twice `connections_per_ip` sockets, so that the ones above the session limit still get an answer.
    pub fn accept(self: &Arc<Self>, remote: Option<Peer>) -> Result<ConnectionPermit, Refusal> {
        let _ = remote;
        todo!()
    }
    /// A session (or a waiting poll): total, per IP, the endpoint's own per-IP number (counted per `(endpoint, ip)`), and rate.
    pub fn session(self: &Arc<Self>, peer: Peer, endpoint: u32, own: Option<u32>) -> Result<SessionPermit, Refusal> {
        let _ = (peer, endpoint, own);
        todo!()
    }
    /// A webhook or a poll.
    pub fn request(&self, peer: Peer) -> Result<(), Refusal> {
        let _ = peer;
        todo!()
    }
    /// Now and then: forget who has been quiet.
    pub fn sweep(&self) {
        todo!()
    }
    /// Connections, sessions, addresses known: for metrics and for tests that nothing is left.
    pub fn counts(&self) -> (usize, usize, usize) {
        todo!()
    }
}

/// The rate of commands of one session; made at its first command.
pub struct CommandRate(());
impl CommandRate {
    /// A fresh bucket.
    pub fn new(rate: Rate) -> CommandRate {
        let _ = rate;
        todo!()
    }
    /// Whether one more is within it.
    pub fn allows(&self) -> bool {
        todo!()
    }
}
