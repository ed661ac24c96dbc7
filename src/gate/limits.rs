//! Limits per peer and for the instance. A slot lives as long as the value that holds it.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use super::buckets::Buckets;
use super::held::Table;
use super::peer::{Network, Peer};

/// How many addresses each rate tells apart: about 7 MB. Far more than connect to one instance, far less than exist.
const KNOWN_ADDRESSES: usize = 100_000;

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
pub struct Limits {
    rules: ArcSwap<Rules>,
    sockets: AtomicUsize,
    sessions: AtomicUsize,
    /// Who holds what.
    pub(super) held: Table,
}

/// A TCP connection's slot, from accept until it closes or its session ends.
pub struct ConnectionPermit {
    limits: Arc<Limits>,
    /// Under which it counts; `None` if only in total.
    ip: Option<IpAddr>,
}

/// A session's slot.
pub struct SessionPermit {
    limits: Arc<Limits>,
    ip: Option<IpAddr>,
    endpoint: u32,
    /// All instances together have not let it in yet.
    asking: bool,
}

// Each session owns one.
const _: () = assert!(size_of::<SessionPermit>() <= 32);

/// What is held now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sockets with a permit.
    pub sockets: usize,
    /// Sessions and waiting polls.
    pub sessions: usize,
    /// Addresses (an IPv6 /64 is one) that hold any of them.
    pub addresses: usize,
    /// Entries of the rate tables: addresses that came by not long ago.
    pub remembered: usize,
}

struct Rules {
    settings: Settings,
    connects: Arc<Buckets>,
    requests: Arc<Buckets>,
}

impl Rate {
    /// As governor counts: one more each so often. Bounded on both sides, so that its sums of nanoseconds cannot overflow.
    fn quota(self) -> Quota {
        let burst = NonZeroU32::new(self.burst).unwrap_or(NonZeroU32::MIN);
        let longest = Duration::from_nanos(u64::MAX / 8 / u64::from(burst.get()));
        let period = Duration::try_from_secs_f64(self.per_second.recip()).unwrap_or(longest);
        let period = period.clamp(Duration::from_nanos(1), longest);
        Quota::with_period(period).expect("the period is at least a nanosecond").allow_burst(burst)
    }
}

impl Settings {
    /// How many sockets may be open: some more than sessions, so that those who come too many still get an answer.
    pub fn sockets(&self) -> usize {
        let connections = self.connections as usize;
        connections + connections / 16 + 64
    }
}

impl Refusal {
    /// All of them.
    pub const ALL: [Refusal; 5] = [
        Refusal::Connections,
        Refusal::ConnectionsPerIp,
        Refusal::ConnectsPerIp,
        Refusal::RequestsPerIp,
        Refusal::EndpointConnectionsPerIp,
    ];

    /// The metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Refusal::Connections => "connections",
            Refusal::ConnectionsPerIp => "connections_per_ip",
            Refusal::ConnectsPerIp => "connects_per_ip",
            Refusal::RequestsPerIp => "requests_per_ip",
            Refusal::EndpointConnectionsPerIp => "endpoint_connections_per_ip",
        }
    }

    /// 429 is about this address; 503 about everybody.
    pub fn status(self) -> u16 {
        if self == Refusal::Connections { 503 } else { 429 }
    }

    /// `Retry-After` in seconds: a bucket refills soon, a slot is free when somebody left. The caller adds jitter.
    pub fn retry_after(self) -> u64 {
        match self {
            Refusal::RequestsPerIp => 1,
            Refusal::ConnectsPerIp => 2,
            Refusal::Connections => 5,
            Refusal::ConnectionsPerIp | Refusal::EndpointConnectionsPerIp => 10,
        }
    }
}

impl Limits {
    /// With empty tables, for an instance that counts alone.
    pub fn new(settings: Settings) -> Arc<Limits> {
        Limits::with(settings, Table::new(false))
    }

    /// With empty tables, for one of several: each session then asks [`Shares`](super::shares::Shares) as well.
    pub fn shared(settings: Settings) -> Arc<Limits> {
        Limits::with(settings, Table::new(true))
    }

    fn with(settings: Settings, held: Table) -> Arc<Limits> {
        let rules = ArcSwap::from_pointee(Rules::new(settings));
        Arc::new(Limits { rules, sockets: AtomicUsize::new(0), sessions: AtomicUsize::new(0), held })
    }

    /// A changed file: those who are in stay in, and an unchanged rate remembers who came how often.
    pub fn apply(&self, settings: Settings) {
        let next = self.rules.load().changed_to(settings);
        self.rules.store(Arc::new(next));
    }

    /// At accept, before a byte is read. `None` for a remote that is a trusted proxy (its peers count, not itself). A peer may
    /// have twice `connections_per_ip` sockets, so that the ones above the session limit still get an answer.
    pub fn accept(self: &Arc<Self>, remote: Option<Peer>) -> Result<ConnectionPermit, Refusal> {
        let rules = self.rules.load();
        take(&self.sockets, rules.settings.sockets())?;
        let mut permit = ConnectionPermit { limits: Arc::clone(self), ip: None };
        if let Some(ip) = remote.and_then(|remote| rules.counted(remote)) {
            let most = rules.settings.connections_per_ip.saturating_mul(2);
            self.held.enter(ip, |held| held.add_socket(most))?;
            permit.ip = Some(ip);
        }
        Ok(permit)
    }

    /// A session (or a waiting poll): total, per IP, the endpoint's own per-IP number (counted per `(endpoint, ip)`), and rate.
    pub fn session(self: &Arc<Self>, peer: Peer, endpoint: u32, own: Option<u32>) -> Result<SessionPermit, Refusal> {
        let rules = self.rules.load();
        take(&self.sessions, rules.settings.connections as usize)?;
        let mut permit = SessionPermit { limits: Arc::clone(self), ip: None, endpoint, asking: false };
        if let Some(ip) = rules.counted(peer) {
            if !rules.connects.allows(ip) {
                return Err(Refusal::ConnectsPerIp);
            }
            let (most, asking) = (rules.settings.connections_per_ip, self.held.is_shared());
            self.held.enter(ip, |held| held.add_session(most, endpoint, own, asking))?;
            (permit.ip, permit.asking) = (Some(ip), asking);
        }
        Ok(permit)
    }

    /// A webhook or a poll.
    pub fn request(&self, peer: Peer) -> Result<(), Refusal> {
        let rules = self.rules.load();
        match rules.counted(peer) {
            Some(ip) if !rules.requests.allows(ip) => Err(Refusal::RequestsPerIp),
            _ => Ok(()),
        }
    }

    /// Now and then: forget who has been quiet. Milliseconds when the tables are full.
    pub fn sweep(&self) {
        let rules = self.rules.load();
        rules.connects.sweep();
        rules.requests.sweep();
        self.held.shrink();
    }

    /// For metrics, and for tests that nothing is left.
    pub fn counts(&self) -> Counts {
        let rules = self.rules.load();
        Counts {
            sockets: self.sockets.load(Relaxed),
            sessions: self.sessions.load(Relaxed),
            addresses: self.held.len(),
            remembered: rules.connects.len() + rules.requests.len(),
        }
    }

    /// How many sessions one address may have.
    pub(super) fn sessions_per_ip(&self) -> u32 {
        self.rules.load().settings.connections_per_ip
    }
}

impl Rules {
    fn new(settings: Settings) -> Rules {
        let connects = buckets(settings.connects_per_ip);
        let requests = buckets(settings.requests_per_ip);
        Rules { settings, connects, requests }
    }

    fn changed_to(&self, settings: Settings) -> Rules {
        let kept = |old: Rate, new: Rate, table: &Arc<Buckets>| match old == new {
            true => Arc::clone(table),
            false => buckets(new),
        };
        let connects = kept(self.settings.connects_per_ip, settings.connects_per_ip, &self.connects);
        let requests = kept(self.settings.requests_per_ip, settings.requests_per_ip, &self.requests);
        Rules { settings, connects, requests }
    }

    /// Under which address this peer counts; `None` if it is exempt, or behind a Unix socket that names nobody.
    fn counted(&self, peer: Peer) -> Option<IpAddr> {
        let ip = peer.0?;
        let exempt = self.settings.exempt.iter().any(|network| network.contains(ip));
        if exempt { None } else { peer.key() }
    }
}

impl SessionPermit {
    /// Whose it is and at which endpoint, if all instances together have yet to let it in.
    pub(super) fn asking(&self) -> Option<(IpAddr, u32)> {
        self.ip.filter(|_| self.asking).map(|ip| (ip, self.endpoint))
    }

    /// It is in. `told`: the other instances know already.
    pub(super) fn admit(&mut self, told: bool) {
        if let Some((ip, endpoint)) = self.asking() {
            self.limits.held.admit(ip, endpoint, told);
            self.asking = false;
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.limits.sockets.fetch_sub(1, Relaxed);
        if let Some(ip) = self.ip {
            self.limits.held.leave_socket(ip);
        }
    }
}

impl Drop for SessionPermit {
    fn drop(&mut self) {
        self.limits.sessions.fetch_sub(1, Relaxed);
        if let Some(ip) = self.ip {
            self.limits.held.leave_session(ip, self.endpoint, self.asking);
        }
    }
}

/// The rate of commands of one session; made at its first command.
pub struct CommandRate(DefaultDirectRateLimiter);

impl CommandRate {
    /// A fresh bucket.
    pub fn new(rate: Rate) -> CommandRate {
        CommandRate(RateLimiter::direct(rate.quota()))
    }

    /// Whether one more is within it.
    pub fn allows(&self) -> bool {
        self.0.check().is_ok()
    }
}

fn buckets(rate: Rate) -> Arc<Buckets> {
    Arc::new(Buckets::new(rate.quota(), KNOWN_ADDRESSES))
}

fn take(count: &AtomicUsize, most: usize) -> Result<(), Refusal> {
    let taken = count.fetch_update(Relaxed, Relaxed, |n| (n < most).then_some(n + 1));
    taken.map(drop).map_err(|_| Refusal::Connections)
}

#[cfg(test)]
mod tests;
