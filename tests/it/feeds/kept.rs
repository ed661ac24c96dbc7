//! Redis Streams that an application keeps: read on from where the last instance stopped.

use serde_json::json;

use super::{counted, hears, holder, in_memory, in_redis, listen, start, start_all, told};
use crate::client::feed::{Feed, Item, Transport};
use crate::harness::{Relay, Signal, until};
use crate::redis::{Redis, Talk};

const BILLING: &str = "[[source.redis]]\nstreams = [\"billing\"]\ntopic = \"{channel}\"\n";

fn add(talk: &mut Talk, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        talk.xadd("billing", &[("number", number.to_string())]);
    }
}

/// What comes next, by topic.
fn next(feed: &mut Feed, count: usize) -> Vec<(String, serde_json::Value)> {
    let said = |item: Item| match item {
        Item::Event { topic, data, .. } => (topic, data),
        other => panic!("{other:?}"),
    };
    feed.events(count).into_iter().map(said).collect()
}

/// Whatever keeps the streams of the relay.
fn entries_are_events(redis: &Redis, toml: &str) {
    let mut talk = redis.talk();
    add(&mut talk, 1..=3);
    let relay = start(toml);
    let mut feed = listen(&relay);
    talk.xadd("billing", &[("kind", "invoice"), ("data", "{\"total\": 150}")]);
    talk.xadd("billing", &[("only", "text")]);
    talk.xadd("billing", &[("kind", "payment"), ("sum", "7")]);
    talk.xadd("billing", &[("data", b"\xff\x00" as &[u8])]);
    talk.xadd("new", &[("number", "1")]);
    let mut heard = next(&mut feed, 5);
    let new = heard.extract_if(.., |(topic, _)| topic == "all/new").count();
    let expected = [json!({"total": 150}), json!("text"), json!({"kind": "payment", "sum": "7"}), json!("/wA=")];
    assert_eq!(heard, expected.map(|data| ("all/billing".to_owned(), data)), "from the newest at the very first start");
    assert_eq!(new, 1, "a stream that was not there begins");
    add(&mut talk, 1..=1500);
    hears(&mut feed, 1..=1500);
    assert_eq!(counted(&relay, "messages_total", "billing"), 1504.0);
}

#[test]
fn entries_are_events_in_redis_and_in_memory() {
    let source = "[[source.redis]]\nstreams = [\"billing\", \"new\"]\ntopic = \"all/{channel}\"\n";
    for file in [in_redis, in_memory] {
        let redis = Redis::start();
        entries_are_events(&redis, &file(&redis.url(), source));
    }
}

#[test]
fn it_goes_on_where_the_last_instance_stopped() {
    let (store, application) = (Redis::start(), Redis::start());
    let toml = in_redis(&store.url(), &format!("{BILLING}url = \"{}\"\n", application.url()));
    let mut talk = application.talk();
    let relays = start_all(2, &toml);
    let mut feed = listen(&relays[0]);
    add(&mut talk, 1..=5);
    let events = feed.events(5);
    let cursor = events[4].cursor().unwrap().to_owned();
    drop(feed);
    drop(relays);
    add(&mut talk, 6..=900);
    let relay = start(&toml);
    let mut feed = Feed::open(relay.public(), "/events", Transport::Sse, "", Some(&cursor));
    hears(&mut feed, 6..=900);
    assert_eq!(counted(&relay, "gaps_total", "billing"), 0.0);
}

#[test]
fn another_instance_reads_on() {
    let redis = Redis::start();
    let mut relays = start_all(3, &in_redis(&redis.url(), BILLING));
    let mut talk = redis.talk();
    let first = holder(&relays, "billing");
    add(&mut talk, 1..=50);
    let mut feed = Feed::open(relays[(first + 1) % 3].public(), "/events", Transport::Sse, "replay=1000", None);
    relays[first].signal(Signal::STOP);
    add(&mut talk, 51..=100);
    let sleeper = relays.remove(first);
    let second = holder(&relays, "billing");
    sleeper.signal(Signal::CONT);
    add(&mut talk, 101..=150);
    relays[second].signal(Signal::KILL);
    relays[second].wait_for_exit();
    let survivor = relays.remove(1 - second);
    add(&mut talk, 151..=200);
    // The session may be on the one that was killed.
    drop(feed);
    until(|| survivor.metric("relay_stream_appended_total{stream=\"events\"}") > 0.0, || survivor.log());
    feed = Feed::open(survivor.public(), "/events", Transport::Sse, "replay=1000", None);
    hears(&mut feed, 1..=200);
    let gaps = |relay: &Relay| counted(relay, "gaps_total", "billing");
    assert_eq!(gaps(&sleeper) + gaps(&survivor), 0.0);
    drop(feed);
}

#[test]
fn what_was_trimmed_away_unread_is_a_gap_and_what_was_read_is_none() {
    let redis = Redis::start();
    let toml = in_redis(&redis.url(), BILLING);
    let mut talk = redis.talk();
    let relay = start(&toml);
    let mut feed = listen(&relay);
    for number in 1..=20u64 {
        talk.call(&["XADD", "billing", "MAXLEN", "1", "*", "number", &number.to_string()]);
        hears(&mut feed, number..=number);
    }
    let cursor = end_of(feed, &mut talk, 21);
    drop(relay);
    // Trimmed, but all of it was read.
    let relay = start(&toml);
    let mut feed = Feed::open(relay.public(), "/events", Transport::Sse, "", Some(&cursor));
    add(&mut talk, 22..=25);
    hears(&mut feed, 22..=25);
    let cursor = end_of(feed, &mut talk, 26);
    drop(relay);
    // Now some of it is gone that nobody read.
    add(&mut talk, 27..=40);
    talk.call(&["XTRIM", "billing", "MAXLEN", "5"]);
    let relay = start(&toml);
    let mut feed = Feed::open(relay.public(), "/events", Transport::Sse, "", Some(&cursor));
    assert_eq!(told(&mut feed, 40), [None, Some(36), Some(37), Some(38), Some(39), Some(40)]);
    assert_eq!(counted(&relay, "gaps_total", "billing"), 1.0);
}

/// One more event, and the cursor behind it.
fn end_of(mut feed: Feed, talk: &mut Talk, number: u64) -> String {
    add(talk, number..=number);
    feed.events(1)[0].cursor().unwrap().to_owned()
}

#[test]
fn a_lost_connection_costs_nothing() {
    let redis = Redis::start();
    for file in [in_redis, in_memory] {
        let relay = start(&file(&redis.url(), BILLING));
        let (mut feed, mut talk) = (listen(&relay), redis.talk());
        until(|| blocked(&redis).len() == 1, || format!("{:?}", blocked(&redis)));
        add(&mut talk, 1..=3);
        hears(&mut feed, 1..=3);
        // Of all connections, since the one that reads may stand or not.
        redis.call(&["CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "YES"]);
        let mut talk = redis.talk();
        add(&mut talk, 4..=6);
        hears(&mut feed, 4..=6);
        assert_eq!(counted(&relay, "gaps_total", "billing"), 0.0);
        drop(feed);
    }
}

/// Clients that wait for an entry of the application's stream.
fn blocked(redis: &Redis) -> Vec<String> {
    let list = redis.call(&["CLIENT", "LIST"]).text();
    list.lines().filter(|line| line.contains("cmd=xread") && line.contains(" flags=b")).map(str::to_owned).collect()
}

#[test]
fn a_key_of_another_type_is_said_by_name() {
    let redis = Redis::start();
    redis.call(&["SET", "billing", "1"]);
    let relay = Relay::start(&in_redis(&redis.url(), BILLING));
    let said =
        || super::not_ready(&relay).iter().any(|why| why.contains("source billing: ") && why.contains("kind of value"));
    until(said, || format!("{:?}\n{}", super::not_ready(&relay), relay.log()));
    redis.call(&["DEL", "billing"]);
    super::wait_ready(&relay);
    let (mut feed, mut talk) = (listen(&relay), redis.talk());
    add(&mut talk, 1..=1);
    hears(&mut feed, 1..=1);
}
