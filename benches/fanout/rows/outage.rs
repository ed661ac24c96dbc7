//! What breaks, and how soon it goes on. Raw events are published all the while, one after the other: each that was
//! heard by an instance must arrive once and in order, or lie in a gap that was told.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Scale, redis};
use crate::frames;
use crate::load::Load;
use crate::redis::Talk;
use crate::scene::Scene;
use crate::server::Kind;
use crate::subscribe::{Arrived, Transport};
use crate::table::Reading;
use crate::way::Way;

const SESSIONS: usize = 100;
/// Between two raw events, and between two looks at `/readyz`.
const STEP: Duration = Duration::from_millis(5);
/// Before something breaks: long enough for all that is renewed every second or so; and after it is whole again.
const BEFORE: Duration = Duration::from_secs(3);
const AFTER: Duration = Duration::from_millis(500);
/// What takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Raw events, and which of them an instance heard.
struct Raw {
    talk: Talk,
    next: u32,
    promised: Vec<u32>,
}

/// Redis ends without a word, is away for so long that all who try again have grown patient, and comes back with its
/// data.
pub fn redis_killed(scale: Scale, kind: Kind) -> Result<Vec<Reading>> {
    let mut scene = Scene::start(kind, &redis::by(Way::Publish))?;
    let Scene { server, load, redis: Some(redis), .. } = &mut scene else { return Ok(Vec::new()) };
    redis.keep()?;
    load.arrived.gaps_expected = true;
    load.sample_every(SESSIONS);
    load.connect(server, Transport::WebSocket, SESSIONS, &|_| String::new())?;
    load.wait_live()?;
    let mut raw = Raw::new(redis.talk()?);
    raw.publish_for(load, BEFORE)?;

    redis.kill()?;
    let killed = Instant::now();
    while server.readiness()? != 503 {
        load.idle(STEP)?;
        ensure!(killed.elapsed() < PATIENCE, "/readyz does not turn");
    }
    let turned = killed.elapsed().as_secs_f64();
    let away = scale.stretch * 2;
    load.idle(away)?;

    redis.start_again()?;
    let back = Instant::now();
    raw.talk = redis.talk()?;
    let reading = raw.until_heard(load, back)?;
    server.wait_ready()?;
    let ready = back.elapsed().as_secs_f64();
    let note = format!("{}; {away:?} away; /readyz 200 again within {ready:.2} s", raw.check(load)?);
    let stayed = format!("{SESSIONS} sessions stayed");
    Ok(vec![Reading { value: turned, note: stayed }, Reading { value: reading, note }])
}

/// The instance that appends what all hear ends without a word; the sessions are those of another.
pub fn holder_killed(_: Scale, kind: Kind) -> Result<Vec<Reading>> {
    let mut scene = Scene::start(kind, &redis::by(Way::Publish))?;
    let successor = scene.another(2)?;
    let mut raw = Raw::new(scene.redis()?.talk()?);
    let load = &mut scene.load;
    load.arrived.gaps_expected = true;
    load.sample_every(SESSIONS);
    load.connect(&successor, Transport::WebSocket, SESSIONS, &|_| String::new())?;
    load.wait_live()?;
    raw.publish_for(load, BEFORE)?;

    scene.server.kill()?;
    let value = raw.until_heard(load, Instant::now())?;
    Ok(vec![Reading { value, note: raw.check(load)? }])
}

impl Raw {
    fn new(talk: Talk) -> Raw {
        Raw { talk, next: 0, promised: Vec::new() }
    }

    fn publish(&mut self) -> Result<()> {
        if self.talk.publish("bench", &frames::numbered_payload(self.next))? > 0 {
            self.promised.push(self.next);
        }
        self.next += 1;
        Ok(())
    }

    fn publish_for(&mut self, load: &mut Load, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.publish()?;
            load.idle(STEP)?;
        }
        Ok(())
    }

    /// Publishes until one of the events from now on is heard; seconds since `moment`.
    fn until_heard(&mut self, load: &mut Load, moment: Instant) -> Result<f64> {
        let first = self.next;
        loop {
            self.publish()?;
            load.idle(STEP)?;
            if let Some((_, at)) = load.arrived.heard.iter().find(|(number, _)| *number >= first) {
                return Ok(at.duration_since(moment).as_secs_f64());
            }
            ensure!(moment.elapsed() < PATIENCE, "LOST: no raw event comes through any more");
        }
    }

    /// Publishes a little more and looks at all that was heard.
    fn check(&mut self, load: &mut Load) -> Result<String> {
        self.publish_for(load, AFTER)?;
        let last = self.promised.last().copied();
        load.idle_until(PATIENCE, |arrived| arrived.heard.last().map(|(number, _)| *number) >= last)?;
        let Arrived { heard, gaps, .. } = &load.arrived;
        let in_order = heard.is_sorted_by(|one, next| one.0 < next.0);
        ensure!(in_order, "DOUBLED or REORDERED: raw events after an outage");
        let was_heard = |number: &u32| heard.binary_search_by_key(number, |(number, _)| *number).is_ok();
        let missing = self.promised.iter().filter(|number| !was_heard(number)).count();
        ensure!(missing == 0 || *gaps > 0, "LOST {missing} raw events without a word");
        Ok(format!("{} raw events, {missing} of them in {gaps} gaps", self.promised.len()))
    }
}
