//! A scene: servers with sessions and a publisher, and a Redis between them where a row wants one.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::frames;
use crate::load::Load;
use crate::redis::Redis;
use crate::server::{Kind, Server, Setup, Usage};
use crate::subscribe::Transport;
use crate::way::Way;

/// How often, and how long apart, something is published until somebody hears it.
const PROBES: u32 = 100;
const PROBE: Duration = Duration::from_millis(100);

/// What a row plays in.
pub struct Scene {
    pub server: Server,
    pub load: Load,
    pub redis: Option<Redis>,
    kind: Kind,
    setup: Setup,
}

/// CPU time of a while.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    /// The server's, in microseconds.
    pub micros: f64,
    /// How much of it outside the kernel, 0-1.
    pub user_share: f64,
    /// Redis's, in microseconds.
    pub redis: Option<f64>,
}

impl Scene {
    /// So many sessions that hear the topic `bench`, all live, and a publisher to it with so many events in flight.
    /// Every so many'th session is looked at closely.
    pub fn open(
        kind: Kind,
        setup: &Setup,
        transport: Transport,
        sessions: usize,
        sampled: usize,
        in_flight: usize,
    ) -> Result<Scene> {
        let mut scene = Scene::publishing(kind, setup, in_flight)?;
        scene.load.sample_every(sampled);
        scene.load.connect(&scene.server, transport, sessions, &|_| String::new())?;
        scene.load.wait_live()?;
        Ok(scene)
    }

    /// A server without sessions, and a publisher to the topic `bench`.
    pub fn publishing(kind: Kind, setup: &Setup, in_flight: usize) -> Result<Scene> {
        let mut scene = Scene::start(kind, setup)?;
        scene.publish_to(&["bench".to_owned()], in_flight)?;
        Ok(scene)
    }

    /// Servers only.
    pub fn start(kind: Kind, setup: &Setup) -> Result<Scene> {
        let redis = (kind == Kind::Relay && setup.needs_redis()).then(Redis::start).transpose()?;
        let setup = Setup { redis: redis.as_ref().map(|redis| redis.address), ..*setup };
        let server = Server::start(kind, &setup)?;
        let load = Load::new(kind)?;
        let scene = Scene { server, load, redis, kind, setup };
        scene.wait_listening(&scene.server, "bench", 1)?;
        Ok(scene)
    }

    /// One more instance with the same file. All of them listen when this returns, and the first holds the lease.
    pub fn another(&self, instances: usize) -> Result<Server> {
        let server = Server::start(self.kind, &self.setup)?;
        self.wait_listening(&server, "bench", instances)?;
        Ok(server)
    }

    /// Whom the events go to.
    pub fn publish_to(&mut self, topics: &[String], in_flight: usize) -> Result<()> {
        self.wait_listening(&self.server, &topics[0], 1)?;
        self.load.publish_to(&self.server, in_flight, topics, &self.setup)
    }

    pub fn redis(&self) -> Result<&Redis> {
        self.redis.as_ref().context("this row has a Redis")
    }

    /// Publishes until an event comes through to a session there: a raw channel keeps nothing for those who do not
    /// listen yet, and a stream is read from its newest entry.
    fn wait_listening(&self, server: &Server, topic: &str, instances: usize) -> Result<()> {
        let Some(redis) = &self.redis else { return Ok(()) };
        server.wait_ready()?;
        if !self.setup.way.is_redis() {
            return Ok(());
        }
        let mut load = Load::new(self.kind)?;
        load.connect(server, Transport::WebSocket, 1, &|_| format!("?topic={topic}"))?;
        load.wait_live()?;
        let mut talk = redis.talk()?;
        for number in 0..PROBES {
            let payload = frames::numbered_payload(number);
            let listeners = match self.setup.way {
                Way::Publish => talk.publish(topic, &payload)?,
                _ => talk.ask(&[b"XADD", topic.as_bytes(), b"*", b"data", &payload]).map(|_| instances)?,
            };
            // Whoever hears the newest will not hear an older one any more.
            let heard = load.idle_until(PROBE, |arrived| arrived.heard.last().is_some_and(|last| last.0 == number))?;
            if heard && listeners >= instances {
                return Ok(());
            }
        }
        ensure!(load.arrived.heard.is_empty(), "fewer than {instances} instances listen to `{topic}`");
        bail!("nothing that was published to `{topic}` came through")
    }

    /// What server and Redis used of their cores while something was done.
    pub fn used(&mut self, work: impl FnOnce(&mut Load) -> Result<()>) -> Result<Spent> {
        let redis = |scene: &Scene| -> Result<Option<Usage>> { scene.redis.as_ref().map(Redis::usage).transpose() };
        let (server_before, redis_before) = (self.server.usage()?, redis(self)?);
        work(&mut self.load)?;
        let (server, redis) = (self.server.usage()?.since(&server_before), redis(self)?);
        let redis = redis.zip(redis_before).map(|(now, before)| now.since(&before).micros);
        Ok(Spent { micros: server.micros, user_share: server.user_share, redis })
    }
}

impl Spent {
    /// Redis's part of it, for people.
    pub fn in_redis(&self, events: u32) -> String {
        self.redis.map_or(String::new(), |micros| format!(", Redis {:.1} µs/event", micros / f64::from(events)))
    }
}
