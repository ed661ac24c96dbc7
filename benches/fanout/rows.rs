//! The rows: what NUMBERS has a target for, each measured on one kind of server at a time.

mod cost;
mod memory;
mod outage;
mod redis;
mod speed;

use std::time::Duration;

use anyhow::Result;

use crate::server::Kind;
use crate::table::Goal::{AtLeast, AtLeastFloor, AtMost, AtMostFloor, Shown};
use crate::table::{Goal, Line, Reading};

/// How long and how large.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    pub runs: usize,
    /// One measured stretch.
    pub stretch: Duration,
    /// Where NUMBERS says 10,000 sessions.
    pub many: usize,
    /// Where it says 100,000 events.
    pub backlog: u32,
}

/// Some lines that are measured together.
pub struct Row {
    pub name: &'static str,
    pub lines: &'static [Line],
    /// Whether the floor can do it.
    pub floor: bool,
    pub run: fn(Scale, Kind) -> Result<Vec<Reading>>,
}

impl Scale {
    pub const FULL: Scale = Scale { runs: 3, stretch: Duration::from_secs(5), many: 10_000, backlog: 100_000 };
    pub const QUICK: Scale = Scale { runs: 1, stretch: Duration::from_millis(1500), many: 2_000, backlog: 20_000 };

    /// How many events a stretch has at this rate.
    fn events(self, per_second: f64) -> u32 {
        (self.stretch.as_secs_f64() * per_second) as u32
    }
}

/// Everything, in the order of the table.
pub const ALL: &[Row] = &[
    Row { name: "ws-cpu", floor: true, run: cost::websocket, lines: WS_CPU },
    Row { name: "sse-cpu", floor: true, run: cost::sse, lines: SSE_CPU },
    Row { name: "most", floor: true, run: speed::most_envelope, lines: MOST },
    Row { name: "most-raw", floor: true, run: speed::most_raw, lines: MOST_RAW },
    Row { name: "p99-5000", floor: true, run: speed::five_thousand, lines: P99_5000 },
    Row { name: "idle-ws", floor: true, run: memory::websocket, lines: IDLE_WS },
    Row { name: "idle-sse", floor: true, run: memory::sse, lines: IDLE_SSE },
    Row { name: "accepts", floor: true, run: speed::accepts, lines: ACCEPTS },
    Row { name: "topics", floor: true, run: cost::thousand_topics, lines: TOPICS },
    Row { name: "strangers", floor: false, run: cost::strangers, lines: STRANGERS },
    Row { name: "stalled", floor: true, run: memory::stalled, lines: STALLED },
    Row { name: "webhook", floor: true, run: speed::webhook, lines: WEBHOOK },
    Row { name: "idle-latency", floor: true, run: speed::idle_latency, lines: IDLE_LATENCY },
    Row { name: "replay", floor: false, run: speed::replay, lines: REPLAY },
    Row { name: "cut", floor: false, run: speed::cut, lines: CUT },
    Row { name: "start", floor: false, run: speed::start, lines: START },
    Row { name: "redis-cpu-publish", floor: true, run: redis::cpu_publish, lines: REDIS_CPU_PUBLISH },
    Row { name: "redis-cpu-xadd", floor: true, run: redis::cpu_xadd, lines: REDIS_CPU_XADD },
    Row { name: "redis-most-publish", floor: true, run: redis::most_publish, lines: REDIS_MOST_PUBLISH },
    Row { name: "redis-most-xadd", floor: true, run: redis::most_xadd, lines: REDIS_MOST_XADD },
    Row { name: "redis-topics", floor: true, run: redis::topics, lines: REDIS_TOPICS },
    Row { name: "redis-into", floor: false, run: redis::into_sessions, lines: REDIS_INTO },
    Row { name: "redis-latency", floor: false, run: redis::any_instance, lines: REDIS_LATENCY },
    Row { name: "redis-webhook", floor: false, run: redis::webhook, lines: REDIS_WEBHOOK },
    Row { name: "redis-replay", floor: false, run: redis::replay, lines: REDIS_REPLAY },
    Row { name: "redis-cut", floor: false, run: redis::cut, lines: REDIS_CUT },
    Row { name: "redis-shared", floor: false, run: redis::shared, lines: REDIS_SHARED },
    Row { name: "redis-killed", floor: false, run: outage::redis_killed, lines: REDIS_KILLED },
    Row { name: "redis-holder", floor: false, run: outage::holder_killed, lines: REDIS_HOLDER },
];

const WS_CPU: &[Line] = &[line("1,000 WebSocket, 50 events/s", "CPU µs/delivery", AtMostFloor(1.15, 1.05))];
const SSE_CPU: &[Line] = &[line("1,000 SSE, 50 events/s", "CPU µs/delivery", AtMostFloor(1.20, 1.05))];
const MOST: &[Line] = &[
    line("most, 1,000 WebSocket, 16 in flight", "deliveries/s", AtLeastFloor(5.0, 12.0)),
    line("… its CPU", "CPU µs/delivery", Shown),
    line("p99 at 10 % of its own most", "ms", Shown),
    line("p99 at 50 %", "ms", Shown),
    line("p99 at 90 %", "ms", Shown),
];
const MOST_RAW: &[Line] = &[
    line("most, raw", "deliveries/s", AtLeastFloor(5.0, 12.0)),
    line("… its CPU", "CPU µs/delivery", Shown),
    line("p99 at 10 % of its own most, raw", "ms", Shown),
    line("p99 at 50 %, raw", "ms", Shown),
    line("p99 at 90 %, raw", "ms", Shown),
];
const P99_5000: &[Line] = &[line("p99, 5,000 WebSocket, 10 events/s", "ms", AtMostFloor(1.25, 1.05))];
const IDLE_WS: &[Line] = &[line("idle WebSocket after churn", "KiB", AtMost(3.0, Some(1.0)))];
const IDLE_SSE: &[Line] = &[line("idle SSE after churn", "KiB", AtMost(3.0, Some(1.0)))];
const ACCEPTS: &[Line] = &[line("accepts, handshake done", "per second", AtLeast(15_000.0, Some(30_000.0)))];
const TOPICS: &[Line] = &[line("1,000 topics, 5,000 events/s over HTTP", "CPU µs/event", AtMost(45.0, Some(30.0)))];
const STRANGERS: &[Line] =
    &[line("an event among 100,000 other topics and patterns", "× alone", AtMost(1.2, Some(1.0)))];
const STALLED: &[Line] = &[
    line("10 % of 200 readers stalled, 8 KiB at 50/s: p99 of the others", "× undisturbed", AtMost(1.2, Some(1.0))),
    line("… memory gained beside the events themselves", "MiB", AtMost(STALLED_QUEUES_MIB, None)),
];
const WEBHOOK: &[Line] = &[line("webhook → 200, 50 at a time: p99", "ms", AtMost(2.0, None))];
const IDLE_LATENCY: &[Line] = &[line("published → on the socket, idle: p99", "ms", AtMost(1.0, None))];
const REPLAY: &[Line] = &[line("replay into one session, from the ring", "events/s", AtLeast(100_000.0, None))];
const CUT: &[Line] = &[line("10,000 cut at once, each resumes 100: all live", "s", AtMost(5.0, Some(2.0)))];
const START: &[Line] = &[line("start to ready", "ms", AtMost(100.0, None))];

const REDIS_CPU_PUBLISH: &[Line] =
    &[line("by PUBLISH, Redis engine: 1,000 WebSocket, 50 events/s", "CPU µs/delivery", AtMostFloor(1.15, 1.05))];
const REDIS_CPU_XADD: &[Line] =
    &[line("by XADD, Redis engine: 1,000 WebSocket, 50 events/s", "CPU µs/delivery", AtMostFloor(1.15, 1.05))];
const REDIS_MOST_PUBLISH: &[Line] = &[
    line("most by PUBLISH, Redis engine, 16 in flight", "deliveries/s", AtLeastFloor(5.0, 12.0)),
    line("… its CPU", "CPU µs/delivery", Shown),
    line("p99 at 10 % of its own most, by PUBLISH", "ms", Shown),
    line("p99 at 50 %, by PUBLISH", "ms", Shown),
    line("p99 at 90 %, by PUBLISH", "ms", Shown),
];
const REDIS_MOST_XADD: &[Line] = &[
    line("most by XADD, Redis engine, 16 in flight", "deliveries/s", AtLeastFloor(5.0, 12.0)),
    line("… its CPU", "CPU µs/delivery", Shown),
    line("p99 at 10 % of its own most, by XADD", "ms", Shown),
    line("p99 at 50 %, by XADD", "ms", Shown),
    line("p99 at 90 %, by XADD", "ms", Shown),
];
const REDIS_TOPICS: &[Line] = &[
    line("1,000 topics, 5,000 events/s by PUBLISH, Redis engine", "CPU µs/event", AtMost(25.0, Some(12.0))),
    line("… memory engine", "CPU µs/event", AtMost(25.0, Some(12.0))),
];
const REDIS_INTO: &[Line] = &[
    line("by PUBLISH into 1 session, Redis engine", "events/s", AtLeast(50_000.0, Some(150_000.0))),
    line("… memory engine", "events/s", AtLeast(50_000.0, Some(150_000.0))),
    line("by PUBLISH into 1,000 sessions, Redis engine", "events/s", AtLeast(1_000.0, Some(2_000.0))),
];
const REDIS_LATENCY: &[Line] = &[
    line("PUBLISH → on the socket of the instance that appends: p99", "ms", AtMost(5.0, Some(2.0))),
    line("… of another instance", "ms", AtMost(5.0, Some(2.0))),
];
const REDIS_WEBHOOK: &[Line] = &[line("webhook → 200, Redis engine, 50 at a time: p99", "ms", AtMost(5.0, None))];
const REDIS_REPLAY: &[Line] = &[
    line("replay into one session, Redis engine: from the ring", "events/s", AtLeast(100_000.0, None)),
    line("… from Redis", "events/s", AtLeast(30_000.0, None)),
];
const REDIS_CUT: &[Line] = &[
    line("10,000 cut at once, Redis engine, back at the same instance", "s", AtMost(5.0, Some(2.0))),
    line("… Redis range reads", "% of sessions", AtMost(1.0, None)),
    line("… back at a younger instance", "s", AtMost(5.0, Some(2.0))),
    line("… Redis range reads", "% of sessions", AtMost(1.0, None)),
];
const REDIS_SHARED: &[Line] = &[
    line("Redis's CPU with three instances, 5,000 events/s by PUBLISH", "× with one", AtMost(1.3, None)),
    line("… over HTTP", "× with one", AtMost(1.3, None)),
    line("scripts, three instances, by PUBLISH", "per batch", AtMost(ONE_EACH, None)),
    line("reads", "per script and instance", AtMost(ONE_EACH, None)),
];
const REDIS_KILLED: &[Line] = &[
    line("Redis killed → /readyz 503", "s", AtMost(3.0, None)),
    line("Redis back → next raw event", "s", AtMost(2.0, None)),
];
const REDIS_HOLDER: &[Line] = &[line("lease holder killed → next raw event", "s", AtMost(5.0, None))];

/// One, and what a lease or a marker more or less than in the quiet stretch can add.
const ONE_EACH: f64 = 1.02;
/// Twenty queues of 256 KiB, and as much again for what an allocator keeps.
const STALLED_QUEUES_MIB: f64 = 10.0;

const fn line(what: &'static str, unit: &'static str, goal: Goal) -> Line {
    Line { what, unit, goal }
}

/// Of latencies in microseconds, in milliseconds. Sorts them.
fn percentile(micros: &mut [u32], share: f64) -> f64 {
    micros.sort_unstable();
    let index = ((micros.len() as f64 * share).ceil() as usize).clamp(1, micros.len().max(1)) - 1;
    micros.get(index).map_or(f64::NAN, |micros| f64::from(*micros) / 1e3)
}

/// p99 as the value, p50 and p99.9 beside it.
fn latencies(micros: &mut [u32]) -> Reading {
    let (p50, p99, p999) = (percentile(micros, 0.5), percentile(micros, 0.99), percentile(micros, 0.999));
    Reading { value: p99, note: format!("p50 {p50:.2}, p99.9 {p999:.2}") }
}
