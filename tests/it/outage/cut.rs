//! What stands between the relay and Redis fails: replies are lost, links are cut, refused, deaf.

use super::{Crowd, cursor_now, instance, life_of, post, ready, refused, store, stored, unready_because};
use crate::client::feed::{Feed, Transport};
use crate::harness::until;
use crate::redis::{Proxy, Redis, Setup};

#[test]
fn replies_lost_after_the_script_ran_and_the_retries_are_one_event_each() {
    let redis = Redis::start();
    let proxy = Proxy::before(redis.address());
    let relay = instance(&proxy.url());
    let before = store(&relay, "before", 1);
    let mut crowd = Crowd::on(&relay);
    let mut ids = Vec::new();
    for number in 0..3 {
        // With nothing else of the relay's on the way: readers run no script as long as nothing is wrong.
        ready(&relay);
        proxy.swallow_replies_to("EVALSHA", 1);
        let key = format!("lost {number}");
        refused(&relay, &key);
        assert_eq!(proxy.swallowed(), 1);
        let (id, was_there) = stored(&relay, "t", &key);
        assert!(was_there, "{id}");
        assert_eq!(life_of(&id), life_of(&before[0]));
        ids.push(id);
    }
    crowd.hear(&ids);
    crowd.hear_nothing_else(&relay, "the last");
}

#[test]
fn a_link_that_is_cut_is_made_again_and_nobody_notices() {
    let redis = Redis::start();
    let proxy = Proxy::before(redis.address());
    let relay = instance(&proxy.url());
    let mut crowd = Crowd::on(&relay);
    for number in 0..4 {
        let ids = store(&relay, &format!("before-{number}"), 2);
        proxy.cut();
        let ids = [ids, store(&relay, &format!("after-{number}"), 2)].concat();
        crowd.hear(&ids);
    }
    ready(&relay);
}

#[test]
fn a_link_that_is_refused_is_tried_again_until_it_is_taken() {
    let redis = Redis::start();
    let proxy = Proxy::before(redis.address());
    let relay = instance(&proxy.url());
    let mut crowd = Crowd::on(&relay);
    proxy.refuse();
    refused(&relay, "refused");
    unready_because(&relay, &proxy.address().to_string());
    // Another instance goes on meanwhile.
    let other = instance(&redis.url());
    let mut ids = store(&other, "elsewhere", 3);
    proxy.accept();
    ready(&relay);
    ids.push(stored(&relay, "t", "refused").0);
    crowd.hear(&ids);
}

#[test]
fn a_link_that_is_deaf_is_found_and_replaced() {
    let redis = Redis::start();
    let proxy = Proxy::before(redis.address());
    let relay = instance(&proxy.url());
    let mut crowd = Crowd::on(&relay);
    let other = instance(&redis.url());
    let ids = store(&relay, "before", 1);
    crowd.hear(&ids);
    proxy.stall();
    // Nobody sends it anything: it finds out by itself.
    unready_because(&relay, &proxy.address().to_string());
    refused(&relay, "refused");
    let mut ids = store(&other, "elsewhere", 3);
    // The old connections never speak again; new ones do.
    proxy.cut();
    proxy.flow();
    ready(&relay);
    let (id, was_there) = stored(&relay, "t", "refused");
    assert!(!was_there);
    ids.push(id);
    crowd.hear(&ids);
    crowd.hear_nothing_else(&relay, "the last");
}

/// As a Redis with a `timeout` does with what is idle; readers never are.
#[test]
fn a_connection_that_was_closed_is_replaced_before_somebody_needs_it() {
    let redis = Redis::start();
    let relay = instance(&redis.url());
    for number in 0..3 {
        store(&relay, &format!("before-{number}"), 1);
        for (id, command) in connections(&redis) {
            if command != "xread" {
                redis.call(&["CLIENT", "KILL", "ID", &id]);
            }
        }
        // Nobody has published since: it is the relay itself that asked over a new one whether all is well.
        let asks = || connections(&redis).iter().any(|(_, command)| command == "set");
        until(asks, || format!("it is not replaced: {:?}", connections(&redis)));
        post(&relay, "t", &format!("after-{number}")).expect(200);
    }
    ready(&relay);
}

/// The relay's connections: their numbers, and what was said over them last.
fn connections(redis: &Redis) -> Vec<(String, String)> {
    let list = redis.call(&["CLIENT", "LIST"]).text();
    let field = |line: &str, name: &str| {
        let found = line.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_default().to_owned()
    };
    let ours = list.lines().filter(|line| field(line, "user") == "default");
    ours.map(|line| (field(line, "id"), field(line, "cmd"))).collect()
}

#[test]
fn a_cursor_ahead_of_an_instance_that_is_behind_goes_on_there_when_it_has_caught_up() {
    let redis = Redis::start();
    let proxy = Proxy::before(redis.address());
    let (behind, ahead) = (instance(&proxy.url()), instance(&redis.url()));
    store(&ahead, "before", 2);
    ready(&behind);
    proxy.stall();
    store(&ahead, "meanwhile", 5);
    let cursor = cursor_now(&ahead);
    let mut feeds = Transport::STREAMING.map(|each| Feed::open(behind.public(), "/events", each, "", Some(&cursor)));
    proxy.flow();
    let ids = store(&ahead, "after", 2);
    for feed in &mut feeds {
        let heard: Vec<String> = feed.events(2).iter().map(|event| event.id().clone()).collect();
        assert_eq!(heard, ids);
    }
}

/// An instance that does not know yet that there is another life must not take its cursors for foreign ones.
#[test]
fn a_cursor_of_a_life_that_an_instance_has_not_seen_is_no_gap_there() {
    let redis = Setup::new().durable().start();
    let proxy = Proxy::before(redis.address());
    let (behind, ahead) = (instance(&proxy.url()), instance(&redis.url()));
    store(&ahead, "before", 2);
    proxy.stall();
    redis.kill();
    redis.start_again();
    let first = store(&ahead, "meanwhile", 3);
    let cursor = cursor_now(&ahead);
    let refusal = Feed::connect(behind.public(), "/events", Transport::Ndjson, "", Some(&cursor)).expect("an answer");
    assert_eq!(refusal.err().map(|answer| answer.status()), Some(503));
    proxy.cut();
    proxy.flow();
    ready(&behind);
    let ids = store(&ahead, "after", 2);
    assert_eq!(life_of(&first[0]), life_of(&ids[0]));
    for transport in Transport::ALL {
        let mut feed = Feed::open(behind.public(), "/events", transport, "", Some(&cursor));
        let heard: Vec<String> = feed.events(2).iter().map(|event| event.id().clone()).collect();
        assert_eq!(heard, ids, "{transport:?}");
    }
}
