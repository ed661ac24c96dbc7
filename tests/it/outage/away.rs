//! Redis is killed, comes back with its data or without, is paused, is not there at the start.

use std::time::Instant;

use super::{
    Crowd, LOG, TIMEOUT, cursor_now, instance, life_of, post, ready, refused, sharing, store, stored, unready,
    unready_because,
};
use crate::client::feed::{Feed, Item, Transport};
use crate::client::http::request;
use crate::harness::{Relay, until};
use crate::redis::{Redis, Setup};

#[test]
fn killed_and_back_with_its_data_it_costs_nobody_anything() {
    let redis = Setup::new().durable().start();
    let (one, other) = (instance(&redis.url()), instance(&redis.url()));
    let cursor = cursor_now(&one);
    let before = store(&one, "before", 3);
    let (mut here, mut there) = (Crowd::on(&one), Crowd::on(&other));
    redis.kill();
    for relay in [&one, &other] {
        refused(relay, "while it is away");
        unready_because(relay, &redis.address().to_string());
    }
    redis.start_again();
    ready(&one);
    ready(&other);
    let after = [store(&one, "after", 3), store(&other, "and after", 3)].concat();
    here.hear(&after);
    there.hear(&after);
    // Also who was away, and stands in the life before.
    for relay in [&one, &other] {
        let (_crowd, told) = Crowd::resumed(relay, Some(&cursor));
        for items in told {
            let ids: Vec<&String> = items.iter().map(Item::id).collect();
            assert_eq!(ids, before.iter().chain(&after).collect::<Vec<_>>());
        }
    }
    assert_ne!(life_of(&before[0]), life_of(&after[0]), "another process of Redis is another life");
}

#[test]
fn killed_while_many_publish_nothing_acknowledged_is_lost_and_nothing_comes_twice() {
    const EACH: usize = 60;
    let redis = Setup::new().durable().start();
    let relay = instance(&redis.url());
    let mut crowd = Crowd::on(&relay);
    std::thread::scope(|scope| {
        let publishers: Vec<_> = (0..3)
            .map(|number| {
                scope.spawn({
                    let relay = &relay;
                    move || store(relay, &format!("from-{number}"), EACH)
                })
            })
            .collect();
        for _ in 0..3 {
            redis.kill();
            redis.start_again();
            // Each time it is found again before it goes away again.
            stored(&relay, "t", &format!("found-{}", fastrand::u64(..)));
        }
        publishers.into_iter().for_each(|publisher| drop(publisher.join().expect("all are stored")));
    });
    let count = 3 * EACH + 3;
    let mut order: Option<Vec<String>> = None;
    for (transport, feed) in &mut crowd.0 {
        let heard = feed.events(count);
        let mut payloads: Vec<String> = heard.iter().map(|item| item.data().to_string()).collect();
        payloads.sort_unstable();
        payloads.dedup();
        assert_eq!(payloads.len(), count, "{transport:?}");
        let ids = heard.iter().map(|item| item.id().clone()).collect();
        assert_eq!(order.get_or_insert_with(|| Vec::clone(&ids)), &ids, "{transport:?}");
    }
    crowd.hear_nothing_else(&relay, "the last");
}

#[test]
fn back_without_its_data_it_is_another_life_and_everybody_is_told() {
    let redis = Setup::new().durable().start();
    let (one, other) = (instance(&redis.url()), instance(&redis.url()));
    let cursor = cursor_now(&one);
    let before = store(&one, "before", 5);
    let (mut here, mut there) = (Crowd::on(&one), Crowd::on(&other));
    let read_on = cursor_now(&other);
    redis.kill();
    unready(&one);
    unready(&other);
    redis.start_again_empty();
    ready(&one);
    ready(&other);
    here.are_told_of_a_lost_tail(0);
    there.are_told_of_a_lost_tail(0);
    let after = [store(&one, "after", 3), store(&other, "and after", 3)].concat();
    here.hear(&after);
    there.hear(&after);
    assert_ne!(life_of(&before[0]), life_of(&after[0]));
    // And those who were away.
    let later = instance(&redis.url());
    for (relay, cursor) in [(&one, &cursor), (&other, &read_on), (&later, &read_on)] {
        for transport in Transport::ALL {
            let mut feed = Feed::open(relay.public(), "/events", transport, "", Some(cursor));
            let (told, _) = feed.until_open();
            assert!(matches!(&told[0], Item::Gap { reason, .. } if reason == "epoch"), "{transport:?}: {told:?}");
        }
    }
}

/// The same process, so nothing but its contents says that they are others.
#[test]
fn emptied_while_it_runs_it_is_another_life_as_well() {
    let redis = Redis::start();
    let (one, other) = (instance(&redis.url()), instance(&redis.url()));
    let before = store(&one, "before", 5);
    let (mut here, mut there) = (Crowd::on(&one).standing(), Crowd::on(&other).standing());
    redis.call(&["FLUSHALL"]);
    // It is found when there is something new at the latest.
    let first = stored(&one, "t", "first").0;
    here.are_told_of_a_lost_tail(0);
    there.are_told_of_a_lost_tail(0);
    let after = [vec![first], store(&other, "after", 3)].concat();
    here.hear(&after);
    there.hear(&after);
    assert_ne!(life_of(&before[0]), life_of(&after[0]));
}

/// What is not in process any more is fetched when it can be.
#[test]
fn who_reads_the_past_while_redis_is_paused_reads_on_when_it_goes_on() {
    const COUNT: usize = 400;
    let redis = Redis::start();
    let file = sharing(&redis.url(), "", "").replace("engine = \"redis\"", "engine = \"redis\"\nmemory = \"1KiB\"");
    let relay = Relay::start(&file);
    let cursor = cursor_now(&relay);
    let mut ids = store(&relay, "past", COUNT);
    redis.pause();
    unready(&relay);
    let mut feeds = Transport::STREAMING.map(|each| Feed::open(relay.public(), "/events", each, "", Some(&cursor)));
    redis.resume();
    ready(&relay);
    ids.push(stored(&relay, "t", "present").0);
    for feed in &mut feeds {
        let heard: Vec<String> = feed.events(COUNT + 1).iter().map(|event| event.id().clone()).collect();
        assert_eq!(heard, ids);
    }
}

#[test]
fn paused_and_resumed_it_costs_nobody_anything() {
    let redis = Redis::start();
    let relay = instance(&redis.url());
    let mut crowd = Crowd::on(&relay);
    let before = store(&relay, "before", 3);
    redis.pause();
    refused(&relay, "the first waits");
    refused(&relay, "the second waits no longer");
    unready_because(&relay, &redis.address().to_string());
    // Until those who read have found out as well.
    relay.wait_for_log("streams are not read");
    // By then it is known, and nobody waits for the end of the same attempt again and again.
    until(
        || {
            let began = Instant::now();
            refused(&relay, "the third");
            began.elapsed() < TIMEOUT / 2
        },
        || "all of them wait".into(),
    );
    redis.resume();
    ready(&relay);
    crowd.hear(&before);
    // What was refused may have been stored all the same, and comes before what is stored now.
    let keys = ["the first waits", "the second waits no longer", "the third"];
    let again: Vec<String> = keys.iter().map(|key| stored(&relay, "t", key).0).collect();
    let mut order = again.clone();
    order.sort_by_key(|id| crate::checker::position_of_id(id));
    crowd.hear(&order);
    crowd.hear_nothing_else(&relay, "the last");
}

/// Readers notice nothing, as they wait longer than others do.
#[test]
fn a_pause_too_short_for_readers_to_notice_ends_by_itself_as_well() {
    let redis = Redis::start();
    let relay = Relay::start(&sharing(&redis.url(), "", "").replace("\"1000ms\"", "\"100ms\""));
    ready(&relay);
    let mut crowd = Crowd::on(&relay);
    redis.pause();
    // The second finds that the connection is of no use any more, and gets no other.
    refused(&relay, "refused");
    refused(&relay, "refused");
    redis.resume();
    // Nobody sends a webhook to an instance that says it is not ready.
    ready(&relay);
    eprintln!("LOG {}", relay.log());
    let (id, _) = stored(&relay, "t", "refused");
    crowd.hear(&[id]);
}

#[test]
fn a_script_that_ran_after_all_and_its_retry_are_one_event() {
    let redis = Redis::start();
    let relay = instance(&redis.url());
    // So that the script is known, and the connection there.
    let before = store(&relay, "before", 1);
    let mut crowd = Crowd::on(&relay);
    redis.pause();
    refused(&relay, "its request waits in the socket");
    redis.resume();
    let length = || redis.call(&["XLEN", LOG]).int();
    until(|| length() == 2, || "the script did not run".into());
    let (id, was_there) = stored(&relay, "t", "its request waits in the socket");
    assert!(was_there && life_of(&id) == life_of(&before[0]));
    crowd.hear(&[id]);
    crowd.hear_nothing_else(&relay, "the last");
}

#[test]
fn started_without_redis_it_is_not_ready_and_comes_to_be_by_itself() {
    let redis = Setup::new().durable().start();
    let (url, address) = (redis.url(), redis.address().to_string());
    {
        let earlier = instance(&url);
        store(&earlier, "earlier", 2);
    }
    redis.kill();
    let relay = instance(&url);
    unready_because(&relay, &address);
    refused(&relay, "too early");
    // Sessions come again: for those who see a status by it, for an EventSource by what it can see.
    for transport in [Transport::WebSocket, Transport::Ndjson] {
        let answer = Feed::connect(relay.public(), "/events", transport, "", None).expect("it answers");
        let answer = answer.err().unwrap_or_else(|| panic!("{transport:?}: a session stands on nothing"));
        assert_eq!(answer.status(), 503, "{transport:?}");
        assert!(answer.header("retry-after").is_some(), "{transport:?}: {}", answer.head.raw);
    }
    let poll = request(relay.public(), "GET", "/events?transport=poll", &[], b"").expect(503);
    assert!(poll.header("retry-after").is_some(), "{}", poll.head.raw);
    let mut sse = Feed::open(relay.public(), "/events", Transport::Sse, "", None);
    let told = sse.until_end();
    assert!(matches!(told.last(), Some(Item::Close { code: 1013, retry_ms: Some(_), .. })), "{told:?}");
    redis.start_again();
    ready(&relay);
    let mut crowd = Crowd::on(&relay);
    let after = store(&relay, "after", 2);
    crowd.hear(&after);
    post(&relay, "t", "too early").expect(200);
}
