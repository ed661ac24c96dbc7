//! The README's chapter about several instances, run: its file on two instances with one Redis, its nginx and its HAProxy
//! before them.

mod away;
mod front;
mod hops;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use front::{Front, Program};

use crate::checker::ids;
use crate::client::feed::{Feed, Transport};
use crate::client::http::{Answer, Http};
use crate::client::soon;
use crate::harness::{Relay, until};
use crate::readme::{SECRET, shown, with_secrets};
use crate::redis::{Redis, Setup};

/// Two instances with what the README puts in front of them. What is last ends last.
struct Scene {
    front: Front,
    instances: Vec<Relay>,
    redis: Redis,
    file: String,
}

impl Scene {
    /// What this test adds to the file: tables, and keys of `[server]`.
    #[track_caller]
    fn new(program: Program, tables: &str, server: &str) -> Scene {
        let redis = Setup::new().durable().start();
        let file = file(&redis).replacen("[server]\n", &format!("[server]\n{server}\n"), 1) + "\n" + tables;
        let instances: Vec<Relay> = (0..2).map(|_| Relay::start(&file)).collect();
        let front = Front::start(program, &instances.iter().collect::<Vec<_>>());
        Scene { front, instances, redis, file }
    }

    fn open(&self, transport: Transport, after: Option<&str>) -> Feed {
        Feed::open(self.front.address, "/events", transport, "", after)
    }

    fn post(&self, topic: &str, key: &str) -> Answer {
        post(self.front.address, topic, key).expect("an answer")
    }

    /// One that must be taken: the id of its event.
    #[track_caller]
    fn publish(&self, topic: &str, key: &str) -> String {
        ids(&self.post(topic, key).expect(200).json()).remove(0)
    }

    /// Of which each has sessions.
    fn sessions(&self) -> Vec<u64> {
        let sessions = |relay: &Relay| relay.stats()["sessions"].as_u64().expect("a number");
        self.instances.iter().map(sessions).collect()
    }
}

/// The webhook of the README's file.
fn post(front: SocketAddr, topic: &str, key: &str) -> io::Result<Answer> {
    let headers = [("Authorization", &*format!("Bearer {SECRET}")), ("Idempotency-Key", key)];
    Http::connect(front)?.request("POST", &format!("/publish/{topic}"), &headers, b"{\"n\":1}")
}

/// The README's file, with the addresses of a test. Nothing else is different.
fn file(redis: &Redis) -> String {
    let mut file = with_secrets(&shown("Several instances", "toml"));
    for (theirs, ours) in [
        ("0.0.0.0:8080", "127.0.0.1:0"),
        ("0.0.0.0:9090", "127.0.0.1:0"),
        ("10.0.0.1", "127.0.0.1"),
        ("redis://10.0.0.9:6379", &*redis.url()),
    ] {
        let theirs = format!("\"{theirs}\"");
        assert!(file.contains(&theirs), "{theirs} in\n{file}");
        file = file.replace(&theirs, &format!("\"{ours}\""));
    }
    file
}

#[test]
fn the_file_it_shows_makes_two_instances_one_relay() {
    let redis = Redis::start();
    let (one, two) = (Relay::start(&file(&redis)), Relay::start(&file(&redis)));
    let mut feeds = [&one, &two].map(|relay| Feed::open(relay.public(), "/events", Transport::Sse, "", None));
    let began = feeds.each_mut().map(|feed| feed.until_open().1);
    let publish = |(relay, key): (&Relay, &str)| {
        let answer = post(relay.public(), "orders.eu", key).expect("an answer").expect(200);
        ids(&answer.json()).remove(0)
    };
    let published = [(&one, "a"), (&two, "b"), (&one, "c")].map(publish);
    for feed in &mut feeds {
        assert_eq!(feed.events(3).iter().map(|event| event.id().clone()).collect::<Vec<_>>(), published);
    }
    let mut resumed = Feed::open(two.public(), "/events", Transport::Ndjson, "", Some(&began[0]));
    assert_eq!(resumed.events(3).iter().map(|event| event.id().clone()).collect::<Vec<_>>(), published);
}

#[test]
fn through_nginx_every_transport_hears_at_once() {
    every_transport_hears_at_once(Program::Nginx);
}

#[test]
fn through_haproxy_every_transport_hears_at_once() {
    every_transport_hears_at_once(Program::Haproxy);
}

/// Streams stay open while it is looked for: what waits for more, or for the end, does not come.
fn every_transport_hears_at_once(program: Program) {
    let scene = Scene::new(program, "", "");
    let mut feeds = Transport::ALL.map(|transport| scene.open(transport, None));
    feeds.iter_mut().for_each(|feed| drop(feed.until_open()));
    let spread = || scene.sessions();
    for number in 0..3 {
        let id = scene.publish("orders.eu", &format!("key {number}"));
        for feed in &mut feeds {
            assert_eq!(feed.events(1)[0].id(), &id);
        }
        until(|| spread().iter().all(|sessions| *sessions > 0), || format!("all on one: {:?}", spread()));
    }
    let again = scene.post("orders.eu", "key 0").expect(200).json();
    assert_eq!(again["duplicates"], 1, "whichever instance it came to");
}

#[test]
fn nginx_holds_nothing_back() {
    nothing_is_held_back(Program::Nginx);
}

#[test]
fn haproxy_holds_nothing_back() {
    nothing_is_held_back(Program::Haproxy);
}

/// A proxy does not look at what goes over a WebSocket; so what is a stream of HTTP must not take much longer. (HAProxy
/// waits 200 ms for more, unless it is told.)
fn nothing_is_held_back(program: Program) {
    const ROUNDS: usize = 15;
    let scene = Scene::new(program, "", "");
    let mut feeds = Transport::STREAMING.map(|transport| scene.open(transport, None));
    feeds.iter_mut().for_each(|feed| drop(feed.until_open()));
    let mut times = [const { Vec::new() }; 3];
    for round in 0..ROUNDS {
        for listening in 0..feeds.len() {
            let began = Instant::now();
            scene.publish("orders.eu", &format!("{round} {listening}"));
            feeds[listening].events(1);
            times[listening].push(began.elapsed());
            let others = feeds.iter_mut().enumerate().filter(|(other, _)| *other != listening);
            others.for_each(|(_, feed)| drop(feed.events(1)));
        }
    }
    let [socket, sse, ndjson] = times.map(|mut times: Vec<Duration>| {
        times.sort();
        times[ROUNDS / 2]
    });
    assert!(sse < 10 * socket && ndjson < 10 * socket, "WebSocket {socket:?}, SSE {sse:?}, ndjson {ndjson:?}");
}

#[test]
fn behind_nginx_limits_count_the_clients() {
    limits_count_the_clients(Program::Nginx);
}

#[test]
fn behind_haproxy_limits_count_the_clients() {
    limits_count_the_clients(Program::Haproxy);
}

/// Over both instances, and whatever a client says it is.
fn limits_count_the_clients(program: Program) {
    let scene = Scene::new(program, "[limits]\nconnections_per_ip = 2\n", "");
    let subscribe = |client: u8, claims: u8| {
        let mut http = Http::connect_from(Ipv4Addr::new(127, 0, 0, client), scene.front.address).expect("it listens");
        let claims = format!("203.0.113.{claims}");
        let headers = [("Accept", "application/x-ndjson"), ("X-Forwarded-For", &*claims)];
        http.send("GET", "/events", &headers, b"").expect("sent");
        let status = http.head(soon()).expect("a head").status;
        (status, http)
    };
    let standing: Vec<(u16, Http)> = (1..=2).map(|claims| subscribe(2, claims)).collect();
    assert_eq!(standing.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [200, 200]);
    assert_eq!(subscribe(2, 3).0, 429);
    assert_eq!(subscribe(3, 3).0, 200, "another client");
}
