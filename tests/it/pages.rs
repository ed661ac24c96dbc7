//! Older than what an instance has in process: pages of it are fetched from Redis, once for all who read them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::checker::{check_items, ids, position_of_cursor, position_of_id};
use crate::client::feed::{Feed, Item, Transport};
use crate::client::http::{get, post_json};
use crate::client::websocket::WebSocket;
use crate::harness::{EVENTS, EXEMPT, PUBLISH, Relay, config};
use crate::redis::Redis;

/// Several pages.
const MANY: usize = 700;

fn relay(redis: &Redis) -> Relay {
    let store = format!("[store]\nengine = \"redis\"\n[redis]\nurl = \"{}\"\n", redis.url());
    Relay::start(&config(&[EXEMPT, &store, PUBLISH, EVENTS].concat()))
}

fn cursor_now(relay: &Relay) -> String {
    let page = get(relay.public(), "/events?transport=poll").expect(200).json();
    page["cursor"].as_str().expect("a cursor").to_owned()
}

/// The topics `t/0` and `t/1` in turn; (id, topic) of all.
fn publish(relay: &Relay, count: usize) -> Vec<(String, String)> {
    let topic = |n: usize| format!("t/{}", n % 2);
    let publish =
        |n| ids(&post_json(relay.public(), &format!("/publish/{}", topic(n)), n.to_string().as_bytes()).json());
    (0..count).map(|n| (publish(n).remove(0), topic(n))).collect()
}

/// An instance that was started after all of that was published, and cursors from before it, after a third, after all.
fn started_later(redis: &Redis) -> (Relay, Relay, Vec<(String, String)>, [String; 3]) {
    let one = relay(redis);
    let before = cursor_now(&one);
    let mut published = publish(&one, MANY / 3);
    let after_some = cursor_now(&one);
    published.extend(publish(&one, MANY - MANY / 3));
    let after_all = cursor_now(&one);
    let other = relay(redis);
    (one, other, published, [before, after_some, after_all])
}

#[test]
fn every_cursor_goes_on_at_an_instance_that_was_started_later() {
    let redis = Redis::start();
    let (one, other, mut published, cursors) = started_later(&redis);
    for cursor in &cursors {
        for transport in Transport::ALL {
            let mut feed = Feed::open(other.public(), "/events", transport, "", Some(cursor));
            let (mut items, _) = feed.until_open();
            published.extend(publish(&one, 1));
            items.extend(feed.events(1));
            assert!(items.iter().all(|item| matches!(item, Item::Event { .. })), "{transport:?}: {items:?}");
            check_items(&published, |_| true, position_of_cursor(cursor), &items);
        }
    }
}

#[test]
fn the_newest_are_found_where_none_of_them_is_in_process() {
    let redis = Redis::start();
    let (_one, other, published, [_, _, last]) = started_later(&redis);
    let newest = |topic: &str, count: usize| -> Vec<String> {
        let of: Vec<_> = published.iter().filter(|(_, own)| topic == "t/*" || own == topic).collect();
        of[of.len() - count..].iter().map(|(id, _)| id.clone()).collect()
    };
    for transport in Transport::ALL {
        for (topic, count) in [("t/*", 20), ("t/1", 250)] {
            let params = format!("topic={topic}&replay={count}&limit=1000");
            let (items, open) = Feed::open(other.public(), "/events", transport, &params, None).until_open();
            let told: Vec<String> = items.iter().map(|item| item.id().clone()).collect();
            assert_eq!(told, newest(topic, count), "{transport:?}");
            assert_eq!(position_of_cursor(&open), position_of_cursor(&last), "{transport:?}");
        }
    }
    // A paced session begins with the newest of each topic.
    let mut feed = Feed::open(other.public(), "/events", Transport::WebSocket, "pace=100ms", Some(&last));
    let told: BTreeSet<String> = feed.events(2).iter().map(|item| item.id().clone()).collect();
    assert_eq!(told, BTreeSet::from_iter(newest("t/*", 2)));
}

#[test]
fn a_subscribe_catches_up_on_pages_that_are_fetched() {
    let redis = Redis::start();
    let (_one, other, published, [before, ..]) = started_later(&redis);
    let mut session = WebSocket::connect(other.public(), "/events?topic=t/0", &[]).unwrap().expect("it is let in");
    let mut next = || serde_json::from_str::<Value>(&session.text()).unwrap();
    assert_eq!(next()["type"], "relay.open");
    session.say(&json!({"type": "subscribe", "topics": ["t/*"], "after": before}).to_string());
    let mut next = || serde_json::from_str::<Value>(&session.text()).unwrap();
    assert_eq!(next()["type"], "subscribed");
    for (id, _) in published.iter().filter(|(_, topic)| topic == "t/1") {
        let event = next();
        assert_eq!((&event["id"], event.get("cursor")), (&json!(id), None));
    }
}

#[test]
fn a_subscribe_with_a_cursor_that_is_not_known_asks_the_store() {
    let (redis, elsewhere) = (Redis::start(), Redis::start());
    let foreign = cursor_now(&relay(&elsewhere));
    let relay = relay(&redis);
    publish(&relay, 3);
    let mut session = WebSocket::connect(relay.public(), "/events?topic=t/0", &[]).unwrap().expect("it is let in");
    let subscribe = json!({"type": "subscribe", "topics": ["t/1"], "after": foreign}).to_string();
    let hears = |session: &mut WebSocket, expected: &[&str]| {
        for kind in expected {
            let said: Value = serde_json::from_str(&session.text()).unwrap();
            let own = said["type"].as_str().or(said["topic"].as_str()).expect("a type or a topic");
            assert_eq!((own, said["reason"].as_str().filter(|why| *why != "epoch")), (*kind, None), "{said}");
        }
    };
    hears(&mut session, &["relay.open"]);
    // What is said meanwhile waits for its turn.
    session.say(&subscribe);
    session.say(r#"{"type":"ping"}"#);
    hears(&mut session, &["subscribed", "relay.gap", "pong"]);
    redis.pause();
    session.say(&subscribe);
    hears(&mut session, &["error"]);
    redis.resume();
    publish(&relay, 2);
    hears(&mut session, &["t/0", "t/1"]);
}

#[test]
fn a_storm_reads_each_page_once() {
    let redis = Redis::start();
    let (one, other, mut published, cursors) = started_later(&redis);
    let reads = || {
        let stats = redis.info("commandstats");
        let calls =
            stats.get("cmdstat_xrange").and_then(|one| one.split_once("calls=")?.1.split(',').next()?.parse().ok());
        calls.unwrap_or(0u64)
    };
    let before = reads();
    let mut feeds: Vec<(Feed, &String)> = Vec::new();
    for (n, cursor) in cursors[..2].iter().cycle().take(120).enumerate() {
        let transport = [Transport::WebSocket, Transport::Sse, Transport::Ndjson][n % 3];
        feeds.push((Feed::open(other.public(), "/events", transport, "", Some(cursor)), cursor));
    }
    published.extend(publish(&one, 1));
    for (feed, cursor) in &mut feeds {
        let (mut items, _) = feed.until_open();
        let last = &published.last().unwrap().0;
        if items.last().is_none_or(|item| item.id() != last) {
            items.extend(feed.events(1));
        }
        check_items(&published, |_| true, position_of_cursor(cursor), &items);
    }
    // Each page is found by halving: a score of reads, but not once for each session.
    let reads = reads() - before;
    let pages = position_of_id(&published[MANY - 1].0) / 128 + 1;
    assert!(reads >= pages && reads < pages * 40, "{reads} reads for {pages} pages and {} sessions", feeds.len());
}
