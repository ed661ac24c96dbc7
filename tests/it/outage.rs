//! When Redis misbehaves: sessions stay, webhooks hear 503 in time, `/readyz` turns and returns, and what can be proven
//! complete is told to nobody as a gap. From outside: the real relay, a real Redis.

mod away;
mod between;
mod cluster;
mod cut;
pub mod doors;
mod login;
mod refusals;
mod sentinel;

use std::time::{Duration, Instant};

use crate::checker::ids;
use crate::client::feed::{Feed, Item, Transport};
use crate::client::http::{Answer, get, request};
use crate::harness::{EVENTS, EXEMPT, PUBLISH, Relay, config, until};

/// How long the relay waits for an answer of Redis.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Where the events of a file without streams lie.
const LOG: &str = "relay:1:{events/0}:log";

/// A relay that shares this Redis, with more keys of `[redis]`, then more of the file.
fn sharing(url: &str, keys: &str, more: &str) -> String {
    let redis = format!("[redis]\nurl = \"{url}\"\ntimeout = \"{}ms\"\n{keys}\n", TIMEOUT.as_millis());
    config(&[EXEMPT, "[store]\nengine = \"redis\"\n", &redis, more, PUBLISH, EVENTS].concat())
}

/// One instance of those that share it.
#[track_caller]
fn instance(url: &str) -> Relay {
    Relay::start(&sharing(url, "", ""))
}

/// A webhook with this key.
#[track_caller]
fn post(relay: &Relay, topic: &str, key: &str) -> Answer {
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", key)];
    request(relay.public(), "POST", &format!("/publish/{topic}"), &headers, format!("\"{key}\"").as_bytes())
}

/// A webhook that is repeated until it is stored: its id, and whether it had been stored before.
#[track_caller]
fn stored(relay: &Relay, topic: &str, key: &str) -> (String, bool) {
    let mut answer = None;
    until(
        || answer.insert(post(relay, topic, key)).status() != 503,
        || format!("{key} is never stored\n{}", relay.log()),
    );
    let answer = answer.expect("asked at least once").expect(200).json();
    (ids(&answer).remove(0), answer["duplicates"] == 1)
}

/// Several, one after the other, with keys `name-0`, `name-1`, …: their ids.
#[track_caller]
fn store(relay: &Relay, name: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| stored(relay, "t", &format!("{name}-{number}")).0).collect()
}

/// A webhook that finds no Redis: refused as passing, in time.
#[track_caller]
fn refused(relay: &Relay, key: &str) {
    let began = Instant::now();
    let answer = post(relay, "t", key);
    let took = began.elapsed();
    assert_eq!(answer.status(), 503, "{}{}\n{}", answer.head.raw, answer.text(), relay.log());
    assert!(answer.header("retry-after").is_some(), "{}", answer.head.raw);
    assert!(took < 3 * TIMEOUT, "503 after {took:?}\n{}", relay.log());
}

/// Why it is not ready, once it is not. It stays healthy.
#[track_caller]
fn unready(relay: &Relay) -> String {
    let mut reasons = String::new();
    until(
        || {
            let answer = get(relay.admin(), "/readyz");
            reasons = answer.text();
            answer.status() == 503
        },
        || format!("it stays ready\n{}", relay.log()),
    );
    get(relay.admin(), "/healthz").expect(200);
    reasons
}

/// Waits until it is not ready, and says so with this text.
#[track_caller]
fn unready_because(relay: &Relay, text: &str) {
    until(|| unready(relay).contains(text), || format!("{text:?} is no reason of {}\n{}", unready(relay), relay.log()));
}

/// Waits until it is ready, by itself.
#[track_caller]
fn ready(relay: &Relay) {
    let is_ready = || get(relay.admin(), "/readyz").status() == 200;
    until(is_ready, || format!("{}\n{}", get(relay.admin(), "/readyz").text(), relay.log()));
}

/// A cursor of the present.
#[track_caller]
fn cursor_now(relay: &Relay) -> String {
    let page = get(relay.public(), "/events?transport=poll").expect(200).json();
    page["cursor"].as_str().expect("a cursor").to_owned()
}

/// Sessions on every transport of an instance, which stand whole.
struct Crowd(Vec<(Transport, Feed)>);

impl Crowd {
    #[track_caller]
    fn on(relay: &Relay) -> Crowd {
        Crowd::resumed(relay, None).0
    }

    /// Those that go on after this cursor; and what each was told before it stood.
    #[track_caller]
    fn resumed(relay: &Relay, after: Option<&str>) -> (Crowd, Vec<Vec<Item>>) {
        let open = |transport| {
            let mut feed = Feed::open(relay.public(), "/events", transport, "", after);
            let (told, _) = feed.until_open();
            ((transport, feed), told)
        };
        let (feeds, told) = Transport::ALL.into_iter().map(open).unzip();
        (Crowd(feeds), told)
    }

    /// Without those that come again and again: of a foreign life a poll is told nothing but that it is one.
    fn standing(self) -> Crowd {
        Crowd(self.0.into_iter().filter(|(transport, _)| *transport != Transport::Poll).collect())
    }

    /// All of them hear exactly this next: no gap, nothing else, nothing twice.
    #[track_caller]
    fn hear(&mut self, ids: &[String]) {
        for (transport, feed) in &mut self.0 {
            let heard: Vec<String> = feed.events(ids.len()).iter().map(|event| event.id().clone()).collect();
            assert_eq!(heard, ids, "{transport:?}");
        }
    }

    /// All of them are told a gap `epoch` next, where so many events may come before it.
    #[track_caller]
    fn are_told_of_a_lost_tail(&mut self, may_come_before: usize) {
        for (transport, feed) in &mut self.0 {
            let mut before = Vec::new();
            let reason = loop {
                match feed.expect() {
                    Item::Gap { reason, .. } => break reason,
                    Item::Open { .. } => {}
                    other => before.push(other),
                }
                assert!(before.len() <= may_come_before, "{transport:?}: no gap but {before:?}");
            };
            assert_eq!(reason, "epoch", "{transport:?}");
        }
    }

    /// Nothing waits that was not asked for: what is published now comes next.
    #[track_caller]
    fn hear_nothing_else(&mut self, relay: &Relay, key: &str) {
        let (id, _) = stored(relay, "t", key);
        self.hear(&[id]);
    }
}

/// The stream and epoch of an id.
fn life_of(id: &str) -> &str {
    id.rsplit_once('-').expect("a position ends an id").0
}
