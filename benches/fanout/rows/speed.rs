//! How many, how soon.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Scale, Scene, latencies};
use crate::load::Load;
use crate::publish::Pace;
use crate::server::{Kind, Server, Setup};
use crate::subscribe::Transport;
use crate::table::Reading;

const SESSIONS: usize = 1_000;
/// Where looking closely at every session would slow the load generator down.
const SAMPLED: usize = 16;
const IN_FLIGHT: u32 = 16;
const RESUMED: u32 = 100;
const IDLE_EVENTS_PER_SECOND: f64 = 100.0;

pub fn most_envelope(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    let scene = Scene::open(kind, &Setup::default(), Transport::WebSocket, SESSIONS, SAMPLED)?;
    most(scale, scene)
}

pub fn most_raw(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    let mut scene = Scene::publishing(kind, &Setup::default(), 16)?;
    scene.load.sample_every(SAMPLED);
    scene.load.connect(&scene.server, Transport::WebSocket, SESSIONS, &|_| "?format=raw".to_owned())?;
    // A raw session is told nothing, so nothing tells when it is live.
    scene.load.idle(Duration::from_secs(1))?;
    most(scale, scene)
}

/// As fast as everything arrives everywhere; then what latency is like below that.
fn most(scale: Scale, mut scene: Scene) -> Result<Vec<Reading>> {
    let pace = Pace::Undelivered(IN_FLIGHT);
    scene.load.publish(pace, scale.stretch / 4, u32::MAX)?;
    scene.load.settle_all()?;
    let own = scene.load.usage()?;
    let (started, mut events) = (Instant::now(), 0);
    let used = scene.used(|load| {
        events = load.publish(pace, scale.stretch, u32::MAX)?.events;
        load.settle_all()
    })?;
    // `settle_all` waits 20 ms for what must not come.
    let seconds = (started.elapsed() - Duration::from_millis(20)).as_secs_f64();
    let busy = scene.load.usage()?.since(&own).micros / 1e4 / seconds;
    let deliveries = f64::from(events) * SESSIONS as f64;
    let cpu = used.micros / deliveries;
    let mut readings = vec![
        Reading { value: deliveries / seconds, note: format!("load generator {busy:.0} % busy") },
        Reading { value: cpu, note: format!("{:.2} µs in user space", cpu * used.user_share) },
    ];
    for share in [0.1, 0.5, 0.9] {
        let rate = share * f64::from(events) / seconds;
        scene.load.publish(Pace::Rate(rate), scale.stretch / 5, u32::MAX)?;
        scene.load.settle_all()?;
        scene.load.forget();
        scene.load.publish(Pace::Rate(rate), scale.stretch, u32::MAX)?;
        scene.load.settle_all()?;
        readings.push(latencies(&mut scene.load.arrived.micros));
    }
    Ok(readings)
}

pub fn five_thousand(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    let mut scene = Scene::open(kind, &Setup::default(), Transport::WebSocket, 5_000, 1)?;
    let pace = Pace::Rate(10.0);
    scene.load.publish(pace, scale.stretch / 4, u32::MAX)?;
    scene.load.settle_all()?;
    scene.load.forget();
    scene.load.publish(pace, scale.stretch * 2, u32::MAX)?;
    scene.load.settle_all()?;
    Ok(vec![latencies(&mut scene.load.arrived.micros)])
}

pub fn accepts(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    let server = Server::start(kind, &Setup::default())?;
    let mut load = Load::new(kind)?;
    // What the first sessions touch for the first time is not the price of the next.
    load.connect(&server, Transport::WebSocket, scale.many / 10, &|_| String::new())?;
    load.wait_live()?;
    load.cut(&server)?;
    let (before, own) = (server.usage()?, load.usage()?);
    let took = load.connect(&server, Transport::WebSocket, scale.many, &|_| String::new())?;
    let each = server.usage()?.since(&before).micros / scale.many as f64;
    let busy = load.usage()?.since(&own).micros / 1e4 / took.as_secs_f64();
    let note = format!("{each:.1} CPU µs each, load generator {busy:.0} % busy");
    Ok(vec![Reading { value: scale.many as f64 / took.as_secs_f64(), note }])
}

/// Fifty lanes, each with the next event as soon as it has its answer; one session listens.
pub fn webhook(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    let mut scene = Scene::publishing(kind, &Setup::default(), 50)?;
    scene.load.connect(&scene.server, Transport::WebSocket, 1, &|_| String::new())?;
    scene.load.wait_live()?;
    scene.load.publish(Pace::Unanswered, scale.stretch / 4, u32::MAX)?;
    scene.load.settle_all()?;
    scene.load.forget();
    let run = scene.load.publish(Pace::Unanswered, scale.stretch, u32::MAX)?;
    scene.load.settle_all()?;
    let publisher = scene.load.publisher.as_mut().context("there is a publisher")?;
    let mut reading = latencies(&mut publisher.answer_micros);
    let rate = f64::from(run.events) / run.took.as_secs_f64();
    reading.note += &format!(", {rate:.0} events/s, {} answers 503", publisher.refused);
    Ok(vec![reading])
}

/// From the request to the event's arrival: a little more than from its acceptance.
pub fn idle_latency(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    let mut scene = Scene::open(kind, &Setup::default(), Transport::WebSocket, 1, 1)?;
    let pace = Pace::Rate(IDLE_EVENTS_PER_SECOND);
    scene.load.publish(pace, scale.stretch / 4, u32::MAX)?;
    scene.load.forget();
    scene.load.publish(pace, scale.stretch * 2, u32::MAX)?;
    scene.load.settle_all()?;
    Ok(vec![latencies(&mut scene.load.arrived.micros)])
}

/// One session leaves its cursor, much is published, another takes it up.
pub fn replay(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    let mut scene = Scene::publishing(kind, &Setup::default(), 50)?;
    let cursor = leave(&mut scene, 1)?;
    scene.load.publish(Pace::Unanswered, Duration::from_secs(60), scale.backlog)?;
    let started = Instant::now();
    scene.load.connect(&scene.server, Transport::WebSocket, 1, &|_| format!("?after={cursor}"))?;
    let goal = u64::from(scale.backlog);
    scene.load.wait("the replay", |load| (load.arrived.delivered >= goal, load.arrived.delivered))?;
    let took = started.elapsed().as_secs_f64();
    scene.load.settle(&|_| scale.backlog)?;
    Ok(vec![Reading { value: f64::from(scale.backlog) / took, note: format!("{} events", scale.backlog) }])
}

/// All sessions go at once, a hundred events pass, all come back at once.
pub fn cut(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    let mut scene = Scene::publishing(kind, &Setup::default(), 50)?;
    scene.load.sample_every(SAMPLED);
    let cursor = leave(&mut scene, scale.many)?;
    scene.load.publish(Pace::Unanswered, Duration::from_secs(60), RESUMED)?;
    let before = scene.server.usage()?;
    let started = Instant::now();
    let connected =
        scene.load.connect(&scene.server, Transport::WebSocket, scale.many, &|_| format!("?after={cursor}"))?;
    let goal = scale.many as u64 * u64::from(RESUMED);
    scene.load.wait("the backlogs", |load| (load.arrived.delivered >= goal, load.arrived.delivered))?;
    scene.load.wait_live()?;
    let value = started.elapsed().as_secs_f64();
    let cpu = scene.server.usage()?.since(&before).micros / 1e6;
    scene.load.settle(&|_| RESUMED)?;
    scene.load.same_order()?;
    let note =
        format!("{} sessions; handshakes done after {:.2} s; {cpu:.2} s of CPU", scale.many, connected.as_secs_f64());
    Ok(vec![Reading { value, note }])
}

/// Opens sessions, keeps a cursor, cuts them.
fn leave(scene: &mut Scene, sessions: usize) -> Result<String> {
    scene.load.connect(&scene.server, Transport::WebSocket, sessions, &|_| String::new())?;
    scene.load.wait_live()?;
    scene.load.cut(&scene.server)?;
    scene.load.arrived.cursor.clone().context("relay.open came without a cursor")
}

pub fn start(_: Scale, kind: Kind) -> Result<Vec<Reading>> {
    let server = Server::start(kind, &Setup::default())?;
    let value = server.ready_after.as_secs_f64() * 1e3;
    Ok(vec![Reading { value, note: "from exec to the line `ready`".to_owned() }])
}
