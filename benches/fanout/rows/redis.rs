//! The same through a Redis that keeps the events, and what only a Redis brings: several instances.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Scale, cost, latencies, speed};
use crate::publish::Pace;
use crate::redis::Calls;
use crate::scene::Scene;
use crate::server::{Engine, Kind, Server, Setup};
use crate::subscribe::Transport;
use crate::table::Reading;
use crate::way::Way;

const IDLE_EVENTS_PER_SECOND: f64 = 100.0;
/// On their way at once: enough that neither Redis nor the relay has to wait for the other.
const INTO_ONE: usize = 1_024;
const INTO_MANY: usize = 64;
const SHARED_EVENTS_PER_SECOND: f64 = 5_000.0;
const INSTANCES: usize = 3;
/// Commands that read a stream, and scripts, which might.
const RANGE_READS: [&str; 4] = ["xrange", "xrevrange", "eval", "fcall"];
const SCRIPTS: [&str; 2] = ["eval", "fcall"];
const READS: [&str; 3] = ["xread", "xrange", "xrevrange"];

/// Events come this way, and Redis keeps them.
pub fn by(way: Way) -> Setup {
    Setup { way, engine: Engine::Redis, ..Setup::default() }
}

/// They come this way, and the instance keeps them itself.
fn in_memory(way: Way) -> Setup {
    Setup { way, ..Setup::default() }
}

pub fn cpu_publish(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    cost::per_delivery(scale, kind, Transport::WebSocket, &by(Way::Publish))
}

pub fn cpu_xadd(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    cost::per_delivery(scale, kind, Transport::WebSocket, &by(Way::Xadd))
}

pub fn most_publish(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    speed::most_by(scale, kind, &by(Way::Publish))
}

pub fn most_xadd(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    speed::most_by(scale, kind, &by(Way::Xadd))
}

pub fn topics(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    let kept = cost::per_event(scale, kind, &by(Way::Publish))?;
    // To the floor it is all the same.
    let alone = (kind == Kind::Relay).then(|| cost::per_event(scale, kind, &in_memory(Way::Publish)));
    Ok([Some(kept), alone.transpose()?].into_iter().flatten().collect())
}

pub fn webhook(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    speed::webhook_into(scale, kind, &by(Way::Http))
}

/// What one instance can take in.
pub fn into_sessions(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    let one = into(scale, kind, &by(Way::Publish), 1, INTO_ONE)?;
    let alone = into(scale, kind, &in_memory(Way::Publish), 1, INTO_ONE)?;
    let many = into(scale, kind, &by(Way::Publish), 1_000, INTO_MANY)?;
    Ok(vec![one, alone, many])
}

fn into(scale: Scale, kind: Kind, setup: &Setup, sessions: usize, on_their_way: usize) -> Result<Reading> {
    let sampled = sessions.div_ceil(64);
    let mut scene = Scene::open(kind, setup, Transport::WebSocket, sessions, sampled, on_their_way)?;
    let speed::Fastest { events, seconds, spent, busy } = speed::fastest(scale, &mut scene, on_their_way)?;
    let relay = spent.micros / f64::from(events);
    let (redis_busy, p99) = (spent.redis.unwrap_or(0.0) / 1e4 / seconds, latencies(&mut scene.load.micros()).value);
    let note = format!(
        "relay {relay:.1} µs/event{}; p99 {p99:.1} ms; load generator {busy:.0} % and Redis {redis_busy:.0} % of a core",
        spent.in_redis(events)
    );
    Ok(Reading { value: f64::from(events) / seconds, note })
}

/// Two instances: the one that appends what it hears, and one that only hears of it.
pub fn any_instance(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    let mut scene = Scene::publishing(kind, &by(Way::Publish), 16)?;
    let other = scene.another(2)?;
    for server in [&scene.server, &other] {
        scene.load.connect(server, Transport::WebSocket, 1, &|_| String::new())?;
    }
    scene.load.wait_live()?;
    let pace = Pace::Rate(IDLE_EVENTS_PER_SECOND);
    scene.load.publish(pace, scale.stretch / 4, u32::MAX)?;
    scene.load.settle_all()?;
    scene.load.forget();
    scene.load.publish(pace, scale.stretch * 2, u32::MAX)?;
    scene.load.settle_all()?;
    Ok(scene.load.sessions.iter().map(|session| latencies(&mut session.micros().to_vec())).collect())
}

/// One session resumes where all of it is in the ring, and one where nothing is: at an instance that is younger than
/// the events.
pub fn replay(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    let mut scene = Scene::publishing(kind, &by(Way::Http), 50)?;
    let cursor = speed::leave(&mut scene, 1)?;
    scene.load.publish(Pace::Unanswered, Duration::from_secs(120), scale.backlog)?;
    let ring = speed::take_up(&mut scene.load, &scene.server, &cursor, scale.backlog)?;
    let younger = scene.another(2)?;
    let before = scene.redis()?.calls()?;
    let mut fetched = speed::take_up(&mut scene.load, &younger, &cursor, scale.backlog)?;
    fetched.note += &format!("; Redis: {}", scene.redis()?.calls()?.most(&before));
    Ok(vec![ring, fetched])
}

/// All sessions cut at once, back at the same instance; and once more, back at an instance younger than the events.
pub fn cut(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    let mut scene = Scene::publishing(kind, &by(Way::Http), 50)?;
    let cursor = speed::cut_all(scale, &mut scene)?;
    let before = scene.redis()?.calls()?;
    let same = speed::come_back(scale, &mut scene.load, &scene.server, &cursor)?;
    let of_same = range_reads(scale, &scene, &before)?;
    scene.load.cut(&scene.server)?;
    let younger = scene.another(2)?;
    let before = scene.redis()?.calls()?;
    let elsewhere = speed::come_back(scale, &mut scene.load, &younger, &cursor)?;
    let of_younger = range_reads(scale, &scene, &before)?;
    Ok(vec![same, of_same, elsewhere, of_younger])
}

/// In percent of the sessions.
fn range_reads(scale: Scale, scene: &Scene, before: &Calls) -> Result<Reading> {
    let calls = scene.redis()?.calls()?;
    let reads = calls.since(before, &RANGE_READS);
    Ok(Reading { value: 100.0 * reads / scale.many as f64, note: calls.most(before) })
}

/// What so many instances cost the Redis that they share.
struct Shared {
    micros_per_event: f64,
    scripts_per_batch: f64,
    reads_per_script: f64,
    note: String,
}

pub fn shared(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    let (one, three) = (share(scale, kind, Way::Publish, 1)?, share(scale, kind, Way::Publish, INSTANCES)?);
    let (posted, posted_three) = (share(scale, kind, Way::Http, 1)?, share(scale, kind, Way::Http, INSTANCES)?);
    let times = |one: &Shared, three: &Shared| {
        let note = format!("{:.1} and {:.1} µs/event", one.micros_per_event, three.micros_per_event);
        Reading { value: three.micros_per_event / one.micros_per_event, note }
    };
    let (published, http) = (times(&one, &three), times(&posted, &posted_three));
    let reads = Reading { value: three.reads_per_script, note: format!("{:.2} of one instance", one.reads_per_script) };
    Ok(vec![published, http, Reading { value: three.scripts_per_batch, note: three.note }, reads])
}

fn share(scale: Scale, kind: Kind, way: Way, instances: usize) -> Result<Shared> {
    let mut scene = Scene::publishing(kind, &by(way), 32)?;
    let others: Vec<Server> = (2..=instances).map(|count| scene.another(count)).collect::<Result<_>>()?;
    for server in std::iter::once(&scene.server).chain(&others) {
        scene.load.connect(server, Transport::WebSocket, 1, &|_| String::new())?;
    }
    scene.load.wait_live()?;
    let pace = Pace::Rate(SHARED_EVENTS_PER_SECOND);
    scene.load.publish(pace, scale.stretch / 4, u32::MAX)?;
    scene.load.settle_all()?;

    // What goes on while nothing happens is no batch's: markers, leases.
    let (before, started) = (scene.redis()?.calls()?, Instant::now());
    scene.load.idle(scale.stretch)?;
    let (quiet, quiet_time) = (scene.redis()?.calls()?, started.elapsed().as_secs_f64());

    let (writes, started, mut events) = (scene.load.publisher().writes, Instant::now(), 0);
    let spent = scene.used(|load| {
        events = load.publish(pace, scale.stretch, u32::MAX)?.events;
        load.settle_all()
    })?;
    let (calls, time) = (scene.redis()?.calls()?, started.elapsed().as_secs_f64());
    let own = |words: &[&str]| calls.since(&quiet, words) - quiet.since(&before, words) * time / quiet_time;
    let (scripts, batches) = (own(&SCRIPTS), f64::from(scene.load.publisher().writes - writes));
    Ok(Shared {
        micros_per_event: spent.redis.unwrap_or(f64::NAN) / f64::from(events),
        scripts_per_batch: scripts / batches,
        reads_per_script: own(&READS) / scripts / instances as f64,
        note: format!("{events} events in {batches} batches; {}", calls.most(&quiet)),
    })
}
