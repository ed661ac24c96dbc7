//! The rows: what NUMBERS has a target for, each measured on one kind of server at a time.

mod cost;
mod memory;
mod speed;

use std::time::Duration;

use anyhow::Result;

use crate::load::Load;
use crate::server::{Kind, Server, Setup, Used};
use crate::subscribe::Transport;
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

/// A server with sessions and a publisher.
struct Scene {
    server: Server,
    load: Load,
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

/// Twenty queues of 256 KiB, and as much again for what an allocator keeps.
const STALLED_QUEUES_MIB: f64 = 10.0;

const fn line(what: &'static str, unit: &'static str, goal: Goal) -> Line {
    Line { what, unit, goal }
}

impl Scene {
    /// So many sessions that hear the topic `bench`, all live, and sixteen lanes to publish to it. Every so many'th
    /// session is looked at closely.
    fn open(kind: Kind, setup: &Setup, transport: Transport, sessions: usize, sampled: usize) -> Result<Scene> {
        let mut scene = Scene::publishing(kind, setup, 16)?;
        scene.load.sample_every(sampled);
        scene.load.connect(&scene.server, transport, sessions, &|_| String::new())?;
        scene.load.wait_live()?;
        Ok(scene)
    }

    /// A server without sessions.
    fn publishing(kind: Kind, setup: &Setup, lanes: usize) -> Result<Scene> {
        let server = Server::start(kind, setup)?;
        let mut load = Load::new(kind)?;
        load.publish_to(&server, lanes, &["bench".to_owned()], setup)?;
        Ok(Scene { server, load })
    }

    /// What the server used of its core while something was done.
    fn used(&mut self, work: impl FnOnce(&mut Load) -> Result<()>) -> Result<Used> {
        let before = self.server.usage()?;
        work(&mut self.load)?;
        Ok(self.server.usage()?.since(&before))
    }
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
