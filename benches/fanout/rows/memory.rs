//! What sessions cost in memory: idle ones, and those that do not read.

use std::time::Duration;

use anyhow::Result;

use super::{Scale, percentile};
use crate::load::Load;
use crate::publish::Pace;
use crate::scene::Scene;
use crate::server::{Kind, Setup, kernel_kib};
use crate::subscribe::Transport;
use crate::table::Reading;

const CHURN: usize = 3;
const HEARTBEATS: u32 = 2;
const READERS: usize = 200;
const STALLED: usize = READERS / 10;
const STALLED_STRETCHES: u32 = 3;
const LARGE: usize = 8 << 10;
const LARGE_PER_SECOND: f64 = 50.0;

pub fn websocket(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    idle(scale, kind, Transport::WebSocket)
}

pub fn sse(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    idle(scale, kind, Transport::Sse)
}

/// Growth from before the first session to all open and idle, after churn, heartbeats and an event.
fn idle(scale: Scale, kind: Kind, transport: Transport) -> Result<Vec<Reading>> {
    let setup = Setup { ping: "2s", ..Setup::default() };
    let Scene { server, mut load, .. } = Scene::publishing(kind, &setup, 1)?;
    load.idle(Duration::from_millis(300))?;
    let (before, kernel_before) = (server.pss_kib()?, kernel_kib()?);
    for _ in 0..CHURN {
        load.connect(&server, transport, scale.many, &|_| String::new())?;
        one_event(&mut load)?;
        load.cut(&server)?;
    }
    let left = server.pss_kib()? - before;
    load.connect(&server, transport, scale.many, &|_| String::new())?;
    if kind == Kind::Relay {
        load.wait("two heartbeats", |load| {
            let beats = load.sessions.iter().map(|session| session.heartbeats.min(HEARTBEATS));
            let (least, all) = beats.fold((HEARTBEATS, 0), |(least, all), beats| (least.min(beats), all + beats));
            (least == HEARTBEATS, u64::from(all))
        })?;
    }
    one_event(&mut load)?;
    load.idle(Duration::from_secs(1))?;
    let each = |kib: f64| kib / scale.many as f64;
    let (value, kernel) = (each(server.pss_kib()? - before), each(kernel_kib()? - kernel_before));
    let left = left / 1024.0;
    let note = format!("kernel {kernel:.1} KiB for both ends; {left:.1} MiB were left after churn");
    Ok(vec![Reading { value, note }])
}

fn one_event(load: &mut Load) -> Result<()> {
    load.wait_live()?;
    load.publish(Pace::Unanswered, Duration::from_secs(10), 1)?;
    load.settle(&|_| 1)
}

/// All read; then some stop.
pub fn stalled(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    let setup = Setup { payload: LARGE, ..Setup::default() };
    let Scene { server, mut load, .. } = Scene::open(kind, &setup, Transport::WebSocket, READERS, 1, 16)?;
    let pace = Pace::Rate(LARGE_PER_SECOND);
    let events = scale.events(LARGE_PER_SECOND);
    load.publish(pace, scale.stretch * 2, events / 4)?;
    load.forget();
    load.publish(pace, scale.stretch * 2, events)?;
    load.settle_all()?;
    let undisturbed = percentile(&mut load.micros(), 0.99);

    let (files, before, kernel_before) = (server.open_files()?, server.pss_kib()?, kernel_kib()?);
    load.stall(0..STALLED)?;
    load.forget();
    let (mut most, mut kernel) = (before, kernel_before);
    // Long enough to fill the kernel's buffers and then a queue. Memory is read seldom, and while nothing is on its way:
    // the event after it comes late.
    for _ in 0..STALLED_STRETCHES {
        load.publish(pace, scale.stretch * 2, events)?;
        load.settle_all()?;
        most = most.max(server.pss_kib()?);
        kernel = kernel.max(kernel_kib()?);
    }
    let disturbed = percentile(&mut load.micros(), 0.99);
    let ended = files.saturating_sub(server.open_files()?);
    let p99s = format!("{undisturbed:.2} and {disturbed:.2} ms");
    let (gained, kernel) = ((most - before) / 1024.0, (kernel - kernel_before) / 1024.0);
    let kept = format!(
        "{gained:.1} MiB in all, most of it the stream's log; kernel {kernel:.1} MiB; \
         {ended} of {STALLED} stalled sessions were ended"
    );
    // What the stream keeps of these events is no queue.
    let logged = if kind == Kind::Relay { events * STALLED_STRETCHES * LARGE as u32 } else { 0 };
    Ok(vec![
        Reading { value: disturbed / undisturbed, note: p99s },
        Reading { value: gained - f64::from(logged) / f64::from(1 << 20), note: kept },
    ])
}
