//! What one event or delivery costs the server in CPU.

use anyhow::Result;

use super::{Scale, percentile};
use crate::publish::Pace;
use crate::scene::Scene;
use crate::server::{Kind, Setup};
use crate::subscribe::Transport;
use crate::table::Reading;

const SESSIONS: usize = 1_000;
const PER_SECOND: f64 = 50.0;
const TOPICS: usize = 1_000;
const TOPIC_EVENTS_PER_SECOND: f64 = 5_000.0;
const STRANGERS_PER_SESSION: usize = 100;
const STRANGERS_EVENTS_PER_SECOND: f64 = 2_000.0;

pub fn websocket(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    per_delivery(scale, kind, Transport::WebSocket, &Setup::default())
}

pub fn sse(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    per_delivery(scale, kind, Transport::Sse, &Setup::default())
}

pub fn per_delivery(scale: Scale, kind: Kind, transport: Transport, setup: &Setup) -> Result<Vec<Reading>> {
    let mut scene = Scene::open(kind, setup, transport, SESSIONS, 8, 16)?;
    let pace = Pace::Rate(PER_SECOND);
    scene.load.publish(pace, scale.stretch, scale.events(PER_SECOND) / 4)?;
    scene.load.settle_all()?;
    scene.load.forget();
    let events = scale.events(PER_SECOND);
    let used = scene.used(|load| {
        load.publish(pace, scale.stretch * 2, events)?;
        load.settle_all()
    })?;
    let value = used.micros / (f64::from(events) * SESSIONS as f64);
    let p99 = percentile(&mut scene.load.micros(), 0.99);
    let mut note = format!("{:.2} µs in user space, p99 {p99:.1} ms", value * used.user_share);
    note += &used.in_redis(events);
    Ok(vec![Reading { value, note }])
}

pub fn thousand_topics(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    per_event(scale, kind, &Setup::default()).map(|reading| vec![reading])
}

/// Each session hears one topic, each event is heard by one session.
pub fn per_event(scale: Scale, kind: Kind, setup: &Setup) -> Result<Reading> {
    let mut scene = Scene::start(kind, &Setup { in_turn: true, ..*setup })?;
    let topics: Vec<String> = (0..TOPICS).map(|topic| format!("bench/{topic}")).collect();
    scene.publish_to(&topics, 32)?;
    let own = |session: usize| format!("?topic=bench/{session}");
    scene.load.connect(&scene.server, Transport::WebSocket, TOPICS, &own)?;
    scene.load.wait_live()?;
    // Whole rounds, so that each session has the same number of events at the end.
    let rounds = (scale.events(TOPIC_EVENTS_PER_SECOND) as usize / TOPICS).max(1);
    let (warm, events) = (TOPICS as u32, (rounds * TOPICS) as u32);
    let pace = Pace::Rate(TOPIC_EVENTS_PER_SECOND);
    scene.load.publish(pace, scale.stretch * 4, warm)?;
    scene.load.settle(&|_| 1)?;
    scene.load.forget();
    let used = scene.used(|load| {
        load.publish(pace, scale.stretch * 4, events)?;
        load.settle(&|_| 1 + rounds as u32)
    })?;
    let value = used.micros / f64::from(events);
    let mut note = format!("{:.1} µs in user space", value * used.user_share);
    // The floor's frames have no numbers, and here a session hears only some of them.
    if kind == Kind::Relay {
        note += &format!(", p99 {:.1} ms", percentile(&mut scene.load.micros(), 0.99));
    }
    note += &used.in_redis(events);
    Ok(Reading { value, note })
}

/// The same event, heard by one session, without and with 100,000 topics and patterns that others asked for.
pub fn strangers(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    let alone = among(scale, kind, 1)?;
    let crowded = among(scale, kind, STRANGERS_PER_SESSION)?;
    Ok(vec![Reading { value: crowded / alone, note: format!("{alone:.1} and {crowded:.1} CPU µs/event") }])
}

fn among(scale: Scale, kind: Kind, per_session: usize) -> Result<f64> {
    let mut scene = Scene::publishing(kind, &Setup::default(), 16)?;
    let strange = |session: usize| strange_topics(session, per_session);
    scene.load.connect(&scene.server, Transport::WebSocket, SESSIONS, &strange)?;
    scene.load.connect(&scene.server, Transport::WebSocket, 1, &|_| String::new())?;
    scene.load.wait_live()?;
    let pace = Pace::Rate(STRANGERS_EVENTS_PER_SECOND);
    let (warm, events) = (scale.events(STRANGERS_EVENTS_PER_SECOND) / 4, scale.events(STRANGERS_EVENTS_PER_SECOND));
    let only_last = |sent: u32| move |session: usize| if session == SESSIONS { sent } else { 0 };
    scene.load.publish(pace, scale.stretch * 4, warm)?;
    scene.load.settle(&only_last(warm))?;
    let used = scene.used(|load| {
        load.publish(pace, scale.stretch * 4, events)?;
        load.settle(&only_last(warm + events))
    })?;
    Ok(used.micros / f64::from(events))
}

/// Topics and patterns that begin as the published one does, or with a wildcard: the dear ones to rule out.
fn strange_topics(session: usize, count: usize) -> String {
    let one = |number: usize| match number % 4 {
        0 => format!("topic=bench/{session}/{number}"),
        1 => format!("topic=bench/{session}x{number}/**"),
        2 => format!("topic=*/{session}/{number}"),
        _ => format!("topic=*/{session}x{number}/**"),
    };
    format!("?{}", (0..count).map(one).collect::<Vec<_>>().join("&"))
}
