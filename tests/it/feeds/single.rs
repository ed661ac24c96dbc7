//! One instance, and nobody who heard what it missed: a gap is told in its place. And what costs nothing is no gap.

use super::{
    NUMBERS, counted, hears, hears_with_gap, holder, in_memory, in_redis, listen, listeners, new_listener, not_ready,
    say, start, start_all, told, wait_ready,
};
use crate::client::feed::{Feed, Item, Transport};
use crate::harness::{Relay, Signal, until};
use crate::redis::{Proxy, Redis, Setup};

/// Its connection is killed, and something is said before it is back.
fn a_lost_connection_is_a_gap(redis: &Redis, toml: &str) {
    let before = listeners(redis);
    let relay = start(toml);
    let mut feed = listen(&relay);
    let mut talk = redis.talk();
    say(&mut talk, "numbers", 1..=5);
    hears(&mut feed, 1..=5);
    say(&mut talk, "numbers", 6..=9);
    let client = new_listener(redis, &before);
    let kill: [&[u8]; 4] = [b"CLIENT", b"KILL", b"ID", client.as_bytes()];
    let lost: [&[&[u8]]; 2] = [&kill, &[b"PUBLISH", b"numbers", b"10"]];
    assert_eq!(talk.pipeline(&lost)[1].int(), 0, "nobody hears it");
    until(|| counted(&relay, "gaps_total", "numbers") == 1.0, || relay.log());
    say(&mut talk, "numbers", 11..=15);
    hears_with_gap(&mut feed, 6..=9, 15);
    // And so it stands in the stream.
    let mut again = Feed::open(relay.public(), "/events", Transport::Ndjson, "replay=100", None);
    let (items, _) = again.until_open();
    assert_eq!(items.iter().filter(|item| matches!(item, Item::Event { .. })).count(), 14);
}

#[test]
fn a_lost_connection_is_a_gap_in_redis() {
    let redis = Redis::start();
    a_lost_connection_is_a_gap(&redis, &in_redis(&redis.url(), NUMBERS));
}

#[test]
fn a_lost_connection_is_a_gap_in_memory() {
    let redis = Redis::start();
    a_lost_connection_is_a_gap(&redis, &in_memory(&redis.url(), NUMBERS));
}

#[test]
fn what_was_said_while_nobody_ran_is_a_gap() {
    let redis = Redis::start();
    let toml = in_redis(&redis.url(), NUMBERS);
    let relay = start(&toml);
    let mut talk = redis.talk();
    let mut feed = listen(&relay);
    say(&mut talk, "numbers", 1..=3);
    hears(&mut feed, 1..=3);
    drop(feed);
    let mut away = listen(&relay);
    say(&mut talk, "numbers", 4..=4);
    let cursor = away.events(1)[0].cursor().unwrap().to_owned();
    drop(away);
    drop(relay);
    talk.publish("numbers", "5");
    let relay = start(&toml);
    until(|| counted(&relay, "gaps_total", "numbers") == 1.0, || relay.log());
    // Also to who comes back with a cursor of before.
    let mut feed = Feed::open(relay.public(), "/events", Transport::WebSocket, "", Some(&cursor));
    say(&mut talk, "numbers", 6..=7);
    assert_eq!(told(&mut feed, 7), [None, Some(6), Some(7)]);
}

#[test]
fn a_redis_that_stops_for_a_while_costs_nothing() {
    let (store, application) = (Redis::start(), Redis::start());
    let source = format!("{NUMBERS}url = \"{}\"\n", application.url());
    let relay = start(&in_redis(&store.url(), &source));
    let mut feed = listen(&relay);
    let mut talk = application.talk();
    say(&mut talk, "numbers", 1..=3);
    hears(&mut feed, 1..=3);
    application.pause();
    until(|| not_ready(&relay).iter().any(|why| why.starts_with("source numbers: ")), || relay.log());
    application.resume();
    say(&mut talk, "numbers", 4..=6);
    hears(&mut feed, 4..=6);
    wait_ready(&relay);
    assert_eq!((counted(&relay, "reconnects_total", "numbers"), counted(&relay, "gaps_total", "numbers")), (0.0, 0.0));
}

#[test]
fn a_store_that_is_away_for_a_while_costs_nothing() {
    let (store, application) = (Redis::start(), Redis::start());
    let source = format!("{NUMBERS}url = \"{}\"\n", application.url());
    let relay = start(&in_redis(&store.url(), &source));
    let mut feed = listen(&relay);
    let mut talk = application.talk();
    say(&mut talk, "numbers", 1..=3);
    hears(&mut feed, 1..=3);
    store.pause();
    until(|| !not_ready(&relay).is_empty(), || relay.log());
    say(&mut talk, "numbers", 4..=900);
    store.resume();
    hears(&mut feed, 4..=900);
    assert_eq!(counted(&relay, "gaps_total", "numbers"), 0.0);
}

#[test]
fn a_connection_that_is_deaf_is_left() {
    let (store, application) = (Redis::start(), Redis::start());
    let proxy = Proxy::before(application.address());
    let relay = start(&in_redis(&store.url(), &format!("{NUMBERS}url = \"{}\"\n", proxy.url())));
    let mut feed = listen(&relay);
    let mut talk = application.talk();
    say(&mut talk, "numbers", 1..=3);
    hears(&mut feed, 1..=3);
    proxy.deafen();
    until(|| counted(&relay, "reconnects_total", "numbers") == 1.0, || relay.log());
    relay.wait_for_log("deaf");
    until(|| counted(&relay, "gaps_total", "numbers") == 1.0, || relay.log());
    say(&mut talk, "numbers", 4..=6);
    assert_eq!(told(&mut feed, 6), [None, Some(4), Some(5), Some(6)]);
}

#[test]
fn who_reads_too_slowly_for_redis_is_told_a_gap() {
    let store = Redis::start();
    let application = Setup::new().line("client-output-buffer-limit pubsub 256kb 0 0").start();
    let relay = start(&in_redis(&store.url(), &format!("{NUMBERS}url = \"{}\"\n", application.url())));
    let mut feed = listen(&relay);
    let mut talk = application.talk();
    say(&mut talk, "numbers", 1..=3);
    hears(&mut feed, 1..=3);
    relay.signal(Signal::STOP);
    let large = format!("\"{}\"", "x".repeat(100_000));
    until(|| talk.publish("numbers", &large) == 0, || "Redis keeps the connection".to_owned());
    relay.signal(Signal::CONT);
    until(|| counted(&relay, "gaps_total", "numbers") == 1.0, || relay.log());
    say(&mut talk, "numbers", 4..=5);
    let mut rest = Vec::new();
    while rest.last() != Some(&Some(5)) {
        match feed.expect() {
            Item::Event { data, .. } => rest.push(data.as_u64()),
            Item::Gap { .. } => rest.push(Some(0)),
            other => panic!("{other:?}"),
        }
    }
    // What the sockets still held, then the gap.
    let heard = rest.iter().take_while(|item| item.is_none()).count();
    assert_eq!(rest[heard..], [Some(0), Some(4), Some(5)]);
}

#[test]
fn a_redis_without_memory_is_heard_all_the_same() {
    let (store, application) = (Redis::start(), Redis::start());
    let relay = start(&in_redis(&store.url(), &format!("{NUMBERS}url = \"{}\"\n", application.url())));
    application.config_set("maxmemory", "1");
    let (mut feed, mut markers, mut talk) = (listen(&relay), application.talk(), application.talk());
    markers.call(&["PSUBSCRIBE", "relay:*"]);
    (0..3).for_each(|_| drop(markers.reply().expect("a marker")));
    say(&mut talk, "numbers", 1..=3);
    hears(&mut feed, 1..=3);
    wait_ready(&relay);
}

#[test]
fn a_redis_that_starts_again_is_a_gap() {
    let (store, application) = (Redis::start(), Redis::start());
    let source = format!("{NUMBERS}url = \"{}\"\n", application.url());
    let relays: Vec<Relay> = start_all(2, &in_redis(&store.url(), &source));
    let mut feed = listen(&relays[0]);
    say(&mut application.talk(), "numbers", 1..=3);
    hears(&mut feed, 1..=3);
    application.kill();
    until(|| relays.iter().all(|relay| counted(relay, "up", "numbers") == 0.0), || relays[0].log());
    application.start_again();
    relays.iter().for_each(wait_ready);
    let gaps = || relays.iter().map(|relay| counted(relay, "gaps_total", "numbers")).sum::<f64>();
    until(|| gaps() == 1.0, || format!("{} gaps\n{}", gaps(), relays[0].log()));
    say(&mut application.talk(), "numbers", 4..=6);
    assert_eq!(told(&mut feed, 6), [None, Some(4), Some(5), Some(6)]);
}

#[test]
fn one_that_starts_while_redis_is_away_hears_when_it_comes() {
    let (store, application) = (Redis::start(), Redis::start());
    application.kill();
    let relay = Relay::start(&in_redis(&store.url(), &format!("{NUMBERS}url = \"{}\"\n", application.url())));
    until(|| not_ready(&relay).iter().any(|why| why.starts_with("source numbers: ")), || relay.log());
    application.start_again();
    wait_ready(&relay);
    assert_eq!(holder(std::slice::from_ref(&relay), "numbers"), 0);
    let mut feed = listen(&relay);
    say(&mut application.talk(), "numbers", 1..=3);
    hears(&mut feed, 1..=3);
    relay.signal(Signal::HUP);
    hears_nothing_twice(&relay, &mut feed, &application);
}

/// A file that did not change changes nothing.
fn hears_nothing_twice(relay: &Relay, feed: &mut Feed, redis: &Redis) {
    until(|| relay.metric("relay_reloads_total{reason=\"applied\"}") > 0.0, || relay.log());
    say(&mut redis.talk(), "numbers", 4..=5);
    hears(feed, 4..=5);
}
