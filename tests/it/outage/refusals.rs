//! Redis is there, and says no: READONLY, OOM, LOADING, another release's keys, a policy that evicts.

use std::thread;

use super::{Crowd, cursor_now, instance, post, ready, refused, sharing, store, stored, unready, unready_because};
use crate::client::feed::{Feed, Transport};
use crate::harness::{Relay, until};
use crate::redis::{Redis, Setup, ports};

#[test]
fn a_master_that_became_a_replica_is_named_and_used_again_when_it_is_a_master() {
    let redis = Redis::start();
    let relay = instance(&redis.url());
    let mut crowd = Crowd::on(&relay);
    let before = store(&relay, "before", 2);
    crowd.hear(&before);
    redis.call(&["REPLICAOF", "127.0.0.1", &ports::free().to_string()]);
    refused(&relay, "refused");
    unready_because(&relay, "READONLY");
    redis.call(&["REPLICAOF", "NO", "ONE"]);
    ready(&relay);
    let (id, was_there) = stored(&relay, "t", "refused");
    assert!(!was_there);
    crowd.hear(&[id]);
}

#[test]
fn a_redis_that_takes_no_writes_says_why_until_it_does() {
    let redis = Redis::start();
    let relay = instance(&redis.url());
    let mut crowd = Crowd::on(&relay);
    for (key, value, back, why) in [("maxmemory", "1", "0", "OOM"), ("min-replicas-to-write", "1", "0", "NOREPLICAS")] {
        let before = store(&relay, &format!("before-{key}"), 2);
        redis.config_set(key, value);
        refused(&relay, &format!("refused-{key}"));
        unready_because(&relay, why);
        relay.wait_for_log(why);
        // What is there can be read all the same, also over a new connection.
        crowd.hear(&before);
        redis.call(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        unready_because(&relay, why);
        redis.config_set(key, back);
        ready(&relay);
        let (id, was_there) = stored(&relay, "t", &format!("refused-{key}"));
        assert!(!was_there);
        crowd.hear(&[id]);
    }
}

/// A real server, which is told to take its time for each thing it reads.
#[test]
fn a_redis_that_still_reads_its_data_is_waited_for() {
    let redis = Setup::new().durable_within_a_second().line("enable-debug-command local").start();
    let relay = instance(&redis.url());
    let before = store(&relay, "before", 2);
    let mut crowd = Crowd::on(&relay);
    redis.call(&["DEBUG", "POPULATE", "4000"]);
    redis.call(&["BGREWRITEAOF"]);
    until(|| redis.info("persistence")["aof_rewrite_in_progress"] == "0", || "it does not end".into());
    redis.kill();
    let slow = ["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"];
    thread::scope(|scope| {
        let starting = scope.spawn(|| redis.start_again_with(&slow));
        unready_because(&relay, "LOADING");
        refused(&relay, "too early");
        starting.join().expect("it starts");
    });
    ready(&relay);
    let (id, _) = stored(&relay, "t", "too early");
    crowd.hear(std::slice::from_ref(&id));
    let ids: Vec<u64> = [&before[1], &id].map(|id| crate::checker::position_of_id(id)).to_vec();
    assert_eq!(ids, [2, 3], "all that was there is there");
}

#[test]
fn what_another_release_keeps_under_the_prefix_is_left_alone_and_named() {
    let redis = Redis::start();
    redis.call(&["SET", "shop:format", "2"]);
    let relay = Relay::start(&sharing(&redis.url(), "prefix = \"shop\"", ""));
    for text in ["`shop`", "format 2", "format 1"] {
        unready_because(&relay, text);
        relay.wait_for_log(text);
    }
    refused(&relay, "refused");
    assert_eq!(redis.call(&["KEYS", "*{events*"]).list(), [], "nothing was written");
    // Another prefix is another Relay.
    let neighbour = instance(&redis.url());
    store(&neighbour, "here", 1);
    // And two of one release share it.
    let twin = instance(&redis.url());
    store(&twin, "there", 1);
    redis.call(&["DEL", "shop:format"]);
    ready(&relay);
    post(&relay, "t", "refused").expect(200);
}

#[test]
fn a_redis_that_may_evict_is_a_warning() {
    let redis = Setup::new().line("maxmemory 100mb").line("maxmemory-policy allkeys-lru").start();
    let relay = instance(&redis.url());
    relay.wait_for_log("maxmemory-policy");
    let log = relay.log();
    let line = log.lines().find(|line| line.contains("maxmemory-policy")).expect("it is there");
    assert!(line.contains("WARN") && line.contains("allkeys-lru"), "{line}");
    ready(&relay);
    // One that may not is none.
    let harmless = Setup::new().line("maxmemory 100mb").start();
    let relay = instance(&harmless.url());
    store(&relay, "stored", 1);
    assert!(!relay.log().contains("maxmemory-policy"), "{}", relay.log());
}

#[test]
fn sessions_are_served_from_what_is_here_while_redis_hangs_and_the_relay_ends_although_it_does() {
    let redis = Redis::start();
    let relay = instance(&redis.url());
    let cursor = cursor_now(&relay);
    let ids = store(&relay, "before", 3);
    redis.pause();
    unready(&relay);
    for transport in Transport::ALL {
        let mut feed = Feed::open(relay.public(), "/events", transport, "", Some(&cursor));
        let (heard, _) = feed.until_open();
        assert_eq!(heard.iter().map(|item| item.id().clone()).collect::<Vec<_>>(), ids, "{transport:?}");
    }
    // The harness asks that it leaves with 0.
    drop(relay);
}
