//! How many, how soon.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Scale, latencies};
use crate::load::Load;
use crate::publish::Pace;
use crate::scene::{Scene, Spent};
use crate::server::{Kind, Server, Setup};
use crate::subscribe::Transport;
use crate::table::Reading;

const SESSIONS: usize = 1_000;
/// Where looking closely at every session would slow the load generator down.
const SAMPLED: usize = 16;
const IN_FLIGHT: usize = 16;
const RESUMED: u32 = 100;
const IDLE_EVENTS_PER_SECOND: f64 = 100.0;

/// What the fastest stretch was like.
pub struct Fastest {
    pub events: u32,
    pub seconds: f64,
    pub spent: Spent,
    /// How much of its core the load generator used, in percent.
    pub busy: f64,
}

pub fn most_envelope(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    most_by(scale, kind, &Setup::default())
}

pub fn most_by(scale: Scale, kind: Kind, setup: &Setup) -> Result<Vec<Reading>> {
    most(scale, Scene::open(kind, setup, Transport::WebSocket, SESSIONS, SAMPLED, IN_FLIGHT)?)
}

pub fn most_raw(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    let mut scene = Scene::publishing(kind, &Setup::default(), IN_FLIGHT)?;
    scene.load.sample_every(SAMPLED);
    scene.load.connect(&scene.server, Transport::WebSocket, SESSIONS, &|_| "?format=raw".to_owned())?;
    // A raw session is told nothing, so nothing tells when it is live.
    scene.load.idle(Duration::from_secs(1))?;
    most(scale, scene)
}

/// As fast as everything arrives everywhere; then what latency is like below that.
fn most(scale: Scale, mut scene: Scene) -> Result<Vec<Reading>> {
    let Fastest { events, seconds, spent, busy } = fastest(scale, &mut scene, IN_FLIGHT)?;
    let deliveries = f64::from(events) * SESSIONS as f64;
    let cpu = spent.micros / deliveries;
    let in_user = format!("{:.2} µs in user space{}", cpu * spent.user_share, spent.in_redis(events));
    let mut readings = vec![
        Reading { value: deliveries / seconds, note: format!("load generator {busy:.0} % busy") },
        Reading { value: cpu, note: in_user },
    ];
    for share in [0.1, 0.5, 0.9] {
        let rate = share * f64::from(events) / seconds;
        scene.load.publish(Pace::Rate(rate), scale.stretch / 5, u32::MAX)?;
        scene.load.settle_all()?;
        scene.load.forget();
        scene.load.publish(Pace::Rate(rate), scale.stretch, u32::MAX)?;
        scene.load.settle_all()?;
        readings.push(latencies(&mut scene.load.micros()));
    }
    Ok(readings)
}

/// Publishes as fast as every session hears it, with so many events on their way.
pub fn fastest(scale: Scale, scene: &mut Scene, on_their_way: usize) -> Result<Fastest> {
    let pace = Pace::Undelivered(on_their_way as u32);
    scene.load.publish(pace, scale.stretch / 4, u32::MAX)?;
    scene.load.settle_all()?;
    scene.load.forget();
    let own = scene.load.usage()?;
    let (started, mut events) = (Instant::now(), 0);
    let spent = scene.used(|load| {
        events = load.publish(pace, scale.stretch, u32::MAX)?.events;
        load.settle_all()
    })?;
    // `settle_all` waits 20 ms for what must not come.
    let seconds = (started.elapsed() - Duration::from_millis(20)).as_secs_f64();
    let busy = scene.load.usage()?.since(&own).micros / 1e4 / seconds;
    Ok(Fastest { events, seconds, spent, busy })
}

pub fn five_thousand(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    let mut scene = Scene::open(kind, &Setup::default(), Transport::WebSocket, 5_000, 1, IN_FLIGHT)?;
    let pace = Pace::Rate(10.0);
    scene.load.publish(pace, scale.stretch / 4, u32::MAX)?;
    scene.load.settle_all()?;
    scene.load.forget();
    scene.load.publish(pace, scale.stretch * 2, u32::MAX)?;
    scene.load.settle_all()?;
    Ok(vec![latencies(&mut scene.load.micros())])
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

pub fn webhook(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    webhook_into(scale, kind, &Setup::default())
}

/// Fifty lanes, each with the next event as soon as it has its answer; one session listens.
pub fn webhook_into(scale: Scale, kind: Kind, setup: &Setup) -> Result<Vec<Reading>> {
    let mut scene = Scene::publishing(kind, setup, 50)?;
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
    let mut scene = Scene::open(kind, &Setup::default(), Transport::WebSocket, 1, 1, IN_FLIGHT)?;
    let pace = Pace::Rate(IDLE_EVENTS_PER_SECOND);
    scene.load.publish(pace, scale.stretch / 4, u32::MAX)?;
    scene.load.forget();
    scene.load.publish(pace, scale.stretch * 2, u32::MAX)?;
    scene.load.settle_all()?;
    Ok(vec![latencies(&mut scene.load.micros())])
}

/// One session leaves its cursor, much is published, another takes it up.
pub fn replay(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    let mut scene = Scene::publishing(kind, &Setup::default(), 50)?;
    let cursor = leave(&mut scene, 1)?;
    scene.load.publish(Pace::Unanswered, Duration::from_secs(60), scale.backlog)?;
    Ok(vec![take_up(&mut scene.load, &scene.server, &cursor, scale.backlog)?])
}

/// One session comes with this cursor, behind which so many events lie.
pub fn take_up(load: &mut Load, server: &Server, cursor: &str, events: u32) -> Result<Reading> {
    let had = load.arrived.delivered;
    let started = Instant::now();
    load.connect(server, Transport::WebSocket, 1, &|_| format!("?after={cursor}"))?;
    let goal = had + u64::from(events);
    load.wait("the replay", |load| (load.arrived.delivered >= goal, load.arrived.delivered))?;
    let took = started.elapsed().as_secs_f64();
    load.settle(&|_| events)?;
    Ok(Reading { value: f64::from(events) / took, note: format!("{events} events") })
}

pub fn cut(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    let mut scene = Scene::publishing(kind, &Setup::default(), 50)?;
    let cursor = cut_all(scale, &mut scene)?;
    Ok(vec![come_back(scale, &mut scene.load, &scene.server, &cursor)?])
}

/// All sessions go at once, and a hundred events pass; returns where they stood.
pub fn cut_all(scale: Scale, scene: &mut Scene) -> Result<String> {
    scene.load.sample_every(SAMPLED);
    let cursor = leave(scene, scale.many)?;
    scene.load.publish(Pace::Unanswered, Duration::from_secs(60), RESUMED)?;
    Ok(cursor)
}

/// All come back at once.
pub fn come_back(scale: Scale, load: &mut Load, server: &Server, cursor: &str) -> Result<Reading> {
    let before = server.usage()?;
    let started = Instant::now();
    let connected = load.connect(server, Transport::WebSocket, scale.many, &|_| format!("?after={cursor}"))?;
    let goal = scale.many as u64 * u64::from(RESUMED);
    load.wait("the backlogs", |load| (load.arrived.delivered >= goal, load.arrived.delivered))?;
    load.wait_live()?;
    let value = started.elapsed().as_secs_f64();
    let cpu = server.usage()?.since(&before).micros / 1e6;
    load.settle(&|_| RESUMED)?;
    load.same_order()?;
    let note =
        format!("{} sessions; handshakes done after {:.2} s; {cpu:.2} s of CPU", scale.many, connected.as_secs_f64());
    Ok(Reading { value, note })
}

/// Opens sessions, keeps a cursor, cuts them.
pub fn leave(scene: &mut Scene, sessions: usize) -> Result<String> {
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
