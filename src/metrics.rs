//! What is counted, and how Prometheus and `/stats` read it.
//!
//! Labels are bounded by the configuration: endpoint, source, stream, transport, reason. Never a topic, an address, a
//! user. What happens for each delivery is counted by its shard alone ([`ShardCounters`]); what happens for each request
//! may take a lock.

mod counters;
mod exposition;
mod sources;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde_json::{Map, Value, json};

use crate::close::Close;
use crate::event::Time;
use crate::gate::limits::{Counts, Refusal};
use crate::gate::shares::Counted;
use crate::stream::StreamStats;
use crate::wire::form::{GapReason, Transport};
pub use counters::{Count, Histogram, ShardCounters};
use exposition::{Exposition, Kind};
use sources::Sources;
pub use sources::{Dropped, SourceCounters};

/// The label `transport`, by `Transport as usize`.
const TRANSPORTS: [&str; 4] = ["websocket", "sse", "ndjson", "poll"];

/// The label `reason` of slow sessions, by `OnSlow as usize`.
const POLICIES: [&str; 3] = ["disconnect", "drop_oldest", "latest"];

/// By `GapReason as usize`.
const GAPS: [GapReason; 4] = [GapReason::Expired, GapReason::Epoch, GapReason::Source, GapReason::Slow];

/// Why a connection or request was turned away before it became a session or an event; a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refused {
    /// By the gate.
    Limit(Refusal),
    /// Nothing is served there.
    BadPath,
    /// Not with this method.
    Method,
    /// A page from elsewhere.
    Origin,
    /// The endpoint does not speak that.
    TransportNotAllowed,
    /// More than the endpoint gives.
    TopicNotAllowed,
    /// The head did not come in time.
    HeadTimeout,
    /// A head without end.
    HeadTooLarge,
    /// The body did not come in time.
    BodyTimeout,
    /// This instance is stopping.
    Draining,
    /// This instance has not found its store yet, or needs it and cannot reach it.
    NotOpen,
    /// The system gave no socket (`EMFILE` and its like).
    AcceptErrors,
    /// Served, but its `X-Forwarded-For` did not count: perhaps `trusted_proxies` lacks somebody.
    UntrustedForwarded,
}

/// Everything counted in this instance.
pub struct Metrics {
    shards: Vec<Arc<ShardCounters>>,
    requests: Mutex<Requests>,
    /// Each lives as long as its endpoint or a session of it.
    endpoints: Mutex<BTreeMap<String, Weak<EndpointCounters>>>,
    /// Each lives as long as its source.
    sources: Mutex<Sources>,
    started: Time,
    reloads_applied: AtomicU64,
    reloads_refused: AtomicU64,
    file_limit: AtomicU64,
}

/// Sessions of one endpoint, by `Transport as usize`; its shards count together.
#[derive(Debug, Default)]
pub struct EndpointCounters {
    sessions: [AtomicI64; 4],
    opened: [AtomicU64; 4],
}

/// What others know at the moment of asking.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Observed<'a> {
    pub now: Time,
    pub ready: bool,
    pub limits: Counts,
    /// None if this instance is alone.
    pub shares: Option<Counted>,
    pub streams: &'a [StreamStats],
}

/// Requests by what became of them.
struct Requests {
    /// By source, only configured ones.
    webhooks: BTreeMap<String, BTreeMap<&'static str, u64>>,
    refused: BTreeMap<&'static str, u64>,
}

impl Refused {
    /// All of them.
    pub const ALL: [Refused; 17] = [
        Refused::Limit(Refusal::Connections),
        Refused::Limit(Refusal::ConnectionsPerIp),
        Refused::Limit(Refusal::ConnectsPerIp),
        Refused::Limit(Refusal::RequestsPerIp),
        Refused::Limit(Refusal::EndpointConnectionsPerIp),
        Refused::BadPath,
        Refused::Method,
        Refused::Origin,
        Refused::TransportNotAllowed,
        Refused::TopicNotAllowed,
        Refused::HeadTimeout,
        Refused::HeadTooLarge,
        Refused::BodyTimeout,
        Refused::Draining,
        Refused::NotOpen,
        Refused::AcceptErrors,
        Refused::UntrustedForwarded,
    ];

    /// The metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Refused::Limit(refusal) => refusal.label(),
            Refused::BadPath => "bad_path",
            Refused::Method => "method",
            Refused::Origin => "origin",
            Refused::TransportNotAllowed => "transport_not_allowed",
            Refused::TopicNotAllowed => "topic_not_allowed",
            Refused::HeadTimeout => "head_timeout",
            Refused::HeadTooLarge => "head_too_large",
            Refused::BodyTimeout => "body_timeout",
            Refused::Draining => "draining",
            Refused::NotOpen => "not_open",
            Refused::AcceptErrors => "accept_errors",
            Refused::UntrustedForwarded => "untrusted_forwarded",
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        Refused::Limit(refusal)
    }
}

impl EndpointCounters {
    /// A session began.
    pub fn opened(&self, transport: Transport) {
        self.sessions[transport as usize].fetch_add(1, Relaxed);
        self.opened[transport as usize].fetch_add(1, Relaxed);
    }

    /// It ended.
    pub fn closed(&self, transport: Transport) {
        self.sessions[transport as usize].fetch_sub(1, Relaxed);
    }
}

impl Metrics {
    /// For an instance with so many shards that started now.
    pub fn new(shards: usize, now: Time) -> Arc<Metrics> {
        let refused = Refused::ALL.iter().map(|refused| (refused.label(), 0)).collect();
        Arc::new(Metrics {
            shards: (0..shards).map(|_| Arc::default()).collect(),
            requests: Mutex::new(Requests { webhooks: BTreeMap::new(), refused }),
            endpoints: Mutex::default(),
            sources: Mutex::default(),
            started: now,
            reloads_applied: AtomicU64::new(0),
            reloads_refused: AtomicU64::new(0),
            file_limit: AtomicU64::new(0),
        })
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// What this shard, and nobody else, counts.
    pub fn shard(&self, shard: usize) -> Arc<ShardCounters> {
        Arc::clone(&self.shards[shard])
    }

    /// The counters of an endpoint, by its first path: the same ones for as long as it, or a session of it, lives.
    pub fn endpoint(&self, name: &str) -> Arc<EndpointCounters> {
        let mut endpoints = locked(&self.endpoints);
        endpoints.retain(|_, counters| counters.strong_count() > 0);
        endpoints.get(name).and_then(Weak::upgrade).unwrap_or_else(|| {
            let counters = Arc::default();
            endpoints.insert(name.to_owned(), Arc::downgrade(&counters));
            counters
        })
    }

    /// Which webhooks there are (by their paths); others are forgotten.
    pub fn set_sources<'a>(&self, sources: impl IntoIterator<Item = &'a str>) {
        let webhooks = &mut locked(&self.requests).webhooks;
        let mut before = std::mem::take(webhooks);
        *webhooks =
            sources.into_iter().map(|name| (name.to_owned(), before.remove(name).unwrap_or_default())).collect();
    }

    /// A request to a webhook, by what became of it: `stored`, `duplicate`, or why not.
    pub fn webhook(&self, source: &str, reason: &'static str) {
        // One whose webhook was removed meanwhile is not worth a series.
        if let Some(reasons) = locked(&self.requests).webhooks.get_mut(source) {
            *reasons.entry(reason).or_default() += 1;
        }
    }

    /// Somebody was turned away.
    pub fn refused(&self, refused: impl Into<Refused>) {
        *locked(&self.requests).refused.entry(refused.into().label()).or_default() += 1;
    }

    /// A changed file was put in force, or refused.
    pub fn reloaded(&self, applied: bool) {
        let counter = if applied { &self.reloads_applied } else { &self.reloads_refused };
        counter.fetch_add(1, Relaxed);
    }

    /// How many files this process may have open.
    pub fn set_file_limit(&self, files: u64) {
        self.file_limit.store(files, Relaxed);
    }

    /// Prometheus text exposition, version 0.0.4.
    pub fn render(&self, observed: &Observed<'_>) -> String {
        let mut out = Exposition::default();
        self.write_sessions(&mut out);
        self.write_hub(&mut out);
        self.write_requests(&mut out);
        self.write_sources(&mut out);
        write_limits(&observed.limits, &mut out);
        write_shares(&observed.shares.unwrap_or_default(), &mut out);
        write_streams(observed.streams, &mut out);
        out.single("relay_ready", Kind::Gauge, "What /readyz says.", u64::from(observed.ready));
        self.write_process(&mut out);
        out.finish()
    }

    /// `/stats`, and what `{stats.x}` reads.
    pub fn snapshot(&self, observed: &Observed<'_>) -> Value {
        let by_transport = self.sessions_by_transport();
        let sessions: u64 = by_transport.iter().sum();
        let named: Map<String, Value> =
            TRANSPORTS.into_iter().map(str::to_owned).zip(by_transport.map(Value::from)).collect();
        let streams: Map<String, Value> =
            observed.streams.iter().map(|s| (s.name.to_string(), stream_json(s))).collect();
        json!({
            "uptime_s": observed.now.0.saturating_sub(self.started.0) / 1000,
            "config_version": self.config_version(),
            "connections": sessions,
            "sessions": sessions,
            "sessions_by_transport": named,
            "permits": observed.limits.sessions,
            "sockets": observed.limits.sockets,
            "addresses": observed.limits.addresses,
            "audiences": self.sum(|shard| &shard.audiences),
            "patterns": self.sum(|shard| &shard.patterns),
            "queued_bytes": self.sum(|shard| &shard.queued_bytes),
            "events": self.events(),
            "deliveries": self.sum(|shard| &shard.deliveries),
            "delivered_bytes": self.sum(|shard| &shard.delivered_bytes),
            "streams": streams,
        })
    }

    fn sum(&self, count: impl Fn(&ShardCounters) -> &Count) -> u64 {
        self.shards.iter().map(|shard| count(shard).get()).sum()
    }

    fn sessions_by_transport(&self) -> [u64; 4] {
        std::array::from_fn(|i| self.sum(|shard| &shard.sessions[i]))
    }

    /// Every shard takes every event: the one that is farthest has seen them all.
    fn events(&self) -> u64 {
        self.shards.iter().map(|shard| shard.events.get()).max().unwrap_or(0)
    }

    /// Which configuration is in force, counted from 1.
    fn config_version(&self) -> u64 {
        1 + self.reloads_applied.load(Relaxed)
    }

    fn write_sessions(&self, out: &mut Exposition) {
        let endpoints = locked(&self.endpoints);
        let alive: Vec<_> = endpoints.iter().filter_map(|(name, counters)| Some((name, counters.upgrade()?))).collect();
        let each = || alive.iter().flat_map(|(name, counters)| (0..4).map(move |i| (name.as_str(), counters, i)));
        out.family("relay_sessions", Kind::Gauge, "Open sessions.");
        for (endpoint, counters, i) in each() {
            let labels = [("endpoint", endpoint), ("transport", TRANSPORTS[i])];
            out.sample("relay_sessions", &labels, counters.sessions[i].load(Relaxed));
        }
        out.family("relay_sessions_opened_total", Kind::Counter, "Sessions that began.");
        for (endpoint, counters, i) in each() {
            let labels = [("endpoint", endpoint), ("transport", TRANSPORTS[i])];
            out.sample("relay_sessions_opened_total", &labels, counters.opened[i].load(Relaxed));
        }
        let closes = Close::ALL.iter().map(|close| (close.label(), self.sum(|s| &s.closes[*close as usize])));
        out.labelled("relay_closes_total", Kind::Counter, "Sessions that ended, by why.", "reason", closes);
    }

    fn write_hub(&self, out: &mut Exposition) {
        let by_transport = TRANSPORTS.into_iter().zip(self.sessions_by_transport());
        out.labelled("relay_hub_sessions", Kind::Gauge, "Sessions that a shard owns.", "transport", by_transport);
        out.single("relay_events_total", Kind::Counter, "Events read back from their streams.", self.events());
        for (name, help, count) in COUNTERS {
            out.single(name, Kind::Counter, help, self.sum(count));
        }
        for (name, help, count) in GAUGES {
            out.single(name, Kind::Gauge, help, self.sum(count));
        }
        let slow = POLICIES.into_iter().enumerate().map(|(i, policy)| (policy, self.sum(|s| &s.slow[i])));
        out.labelled("relay_slow_total", Kind::Counter, "Times a queue was full, by on_slow.", "reason", slow);
        let gaps = GAPS.into_iter().map(|gap| (gap.as_str(), self.sum(|s| &s.gaps[gap as usize])));
        out.labelled("relay_gaps_total", Kind::Counter, "Gaps told to sessions.", "reason", gaps);
        let latency = counters::summed(self.shards.iter().map(|shard| &shard.latency));
        out.histogram("relay_delivery_seconds", "From accepting an event to its write to a socket.", &latency);
    }

    fn write_requests(&self, out: &mut Exposition) {
        let requests = locked(&self.requests);
        out.family("relay_webhook_requests_total", Kind::Counter, "Requests to webhooks, by what became of them.");
        for (source, reasons) in &requests.webhooks {
            for (reason, count) in reasons {
                out.sample("relay_webhook_requests_total", &[("source", source), ("reason", reason)], count);
            }
        }
        let refused = requests.refused.iter().map(|(reason, count)| (*reason, *count));
        out.labelled("relay_refused_total", Kind::Counter, "Connections and requests turned away.", "reason", refused);
    }

    fn write_process(&self, out: &mut Exposition) {
        let (applied, refused) = (self.reloads_applied.load(Relaxed), self.reloads_refused.load(Relaxed));
        let reloads = [("applied", applied), ("refused", refused)];
        out.labelled(
            "relay_reloads_total",
            Kind::Counter,
            "Changed configurations, by what became of them.",
            "reason",
            reloads,
        );
        out.single("relay_config_version", Kind::Gauge, "The configuration in force, from 1.", self.config_version());
        let started = self.started.0 as f64 / 1000.0;
        out.single("process_start_time_seconds", Kind::Gauge, "Start, in seconds since the Unix epoch.", started);
        out.single("process_max_fds", Kind::Gauge, "Files that may be open.", self.file_limit.load(Relaxed));
    }
}

type OfShard = fn(&ShardCounters) -> &Count;

const COUNTERS: [(&str, &str, OfShard); 8] = [
    ("relay_deliveries_total", "Events put on sockets.", |shard| &shard.deliveries),
    ("relay_delivered_bytes_total", "Bytes put on sockets.", |shard| &shard.delivered_bytes),
    ("relay_writes_total", "Writes to sockets; one may carry many events.", |shard| &shard.writes),
    ("relay_commands_total", "Commands of sessions.", |shard| &shard.commands),
    ("relay_commands_ignored_total", "Input of sessions that is no command.", |shard| &shard.commands_ignored),
    ("relay_command_errors_total", "Commands that could not be done.", |shard| &shard.command_errors),
    ("relay_resumes_total", "Sessions that came back with a cursor.", |shard| &shard.resumes),
    ("relay_replayed_events_total", "Events of the past put on sockets.", |shard| &shard.replayed),
];

const GAUGES: [(&str, &str, OfShard); 3] = [
    ("relay_queued_bytes", "Bytes waiting to be written.", |shard| &shard.queued_bytes),
    ("relay_audiences", "Groups of sessions that share matching and encoding.", |shard| &shard.audiences),
    ("relay_patterns", "Topics and patterns listened to.", |shard| &shard.patterns),
];

fn write_limits(limits: &Counts, out: &mut Exposition) {
    out.single("relay_connections", Kind::Gauge, "Open sockets.", limits.sockets);
    out.single("relay_session_permits", Kind::Gauge, "Sessions and waiting polls let in.", limits.sessions);
    out.single("relay_addresses", Kind::Gauge, "Addresses with a socket or session.", limits.addresses);
    out.single("relay_addresses_remembered", Kind::Gauge, "Entries of the rate tables.", limits.remembered);
}

fn write_shares(shares: &Counted, out: &mut Exposition) {
    let Counted { instances, admitted, refused, unasked } = *shares;
    let help = "Instances that count connections_per_ip together; 1 while this one counts alone.";
    out.single("relay_shares_instances", Kind::Gauge, help, instances.max(1));
    let asked = [("admitted", admitted), ("refused", refused), ("unasked", unasked)];
    let help = "Sessions by what the count over all instances said; unasked: Redis was away.";
    out.labelled("relay_shares_sessions_total", Kind::Counter, help, "reason", asked);
}

fn write_streams(streams: &[StreamStats], out: &mut Exposition) {
    let mut family = |name: &str, kind, help, of: fn(&StreamStats) -> u64| {
        out.labelled(name, kind, help, "stream", streams.iter().map(|stream| (&*stream.name, of(stream))));
    };
    family("relay_stream_events", Kind::Gauge, "Events that can be read again.", |s| s.events);
    family("relay_stream_bytes", Kind::Gauge, "Memory of events and last values.", |s| s.bytes);
    family("relay_stream_retained", Kind::Gauge, "Last values.", |s| s.retained);
    family("relay_stream_appended_total", Kind::Counter, "Events appended.", |s| s.appended_total);
    family("relay_stream_duplicates_total", Kind::Counter, "Events that had come before.", |s| s.duplicates_total);
    family("relay_stream_evicted_total", Kind::Counter, "Events dropped early for lack of memory.", |s| {
        s.evicted_by_memory_total
    });
}

fn stream_json(stream: &StreamStats) -> Value {
    json!({
        "partitions": stream.partitions,
        "events": stream.events,
        "bytes": stream.bytes,
        "retained": stream.retained,
        "appended": stream.appended_total,
        "duplicates": stream.duplicates_total,
        "evicted": stream.evicted_by_memory_total,
    })
}

/// A table of counters is whole after each change.
fn locked<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
