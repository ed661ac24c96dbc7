//! Coming back: every later event once and in order, from any cursor, on any transport; and what is lost is told.

use serde_json::json;

use crate::checker::{check_items, position_of_cursor, position_of_id};
use crate::client::feed::{Feed, Item, Transport};
use crate::client::http::{get, request};
use crate::harness::{EXEMPT, PUBLISH, Relay, config, plain};

/// Publishes so many numbers; (id, topic) of all.
fn publish(relay: &Relay, topic: &str, count: usize) -> Vec<(String, String)> {
    (0..count).map(|n| (relay.publish(topic, &n.to_string()).remove(0), topic.to_owned())).collect()
}

fn cursor_now(relay: &Relay, path: &str) -> String {
    let page = get(relay.public(), &format!("{path}?transport=poll")).expect(200).json();
    page["cursor"].as_str().expect("a cursor").to_owned()
}

/// A stream that keeps so many events and the last value of each topic.
fn short(keep: usize) -> String {
    let stream = format!("[[stream]]\nname = \"short\"\ntopics = [\"**\"]\nmax_events = {keep}\nretain = 10\n");
    config(&[EXEMPT, &stream, PUBLISH, "[[endpoint]]\npath = \"/events\"\ntopics = [\"**\"]\n"].concat())
}

#[test]
fn every_transport_goes_on_where_every_other_stopped() {
    let relay = Relay::start(&plain());
    for first in Transport::ALL {
        for second in Transport::ALL {
            let mut feed = Feed::open(relay.public(), "/events", first, "", None);
            let (_, opened) = feed.until_open();
            let mut published = publish(&relay, "t", 2);
            let seen = feed.events(2);
            drop(feed);
            published.extend(publish(&relay, "t", 3));
            let cursor = seen[1].cursor().expect("in turn");
            let mut feed = Feed::open(relay.public(), "/events", second, "", Some(cursor));
            let (mut items, _) = feed.until_open();
            published.extend(publish(&relay, "t", 1));
            items.extend(feed.events(1));
            items.splice(..0, seen);
            assert_eq!(items.len(), 6, "{first:?} to {second:?}");
            check_items(&published, |_| true, position_of_cursor(&opened), &items);
        }
    }
}

#[test]
fn the_header_wins_over_the_address_and_both_over_replay() {
    let relay = Relay::start(&plain());
    let cursors: Vec<String> = (0..3)
        .map(|n| {
            relay.publish("t", &n.to_string());
            cursor_now(&relay, "/events")
        })
        .collect();
    let target = format!("/events?transport=poll&replay=100&after={}", cursors[0]);
    let page = get(relay.public(), &target).expect(200).json();
    assert_eq!(page["items"].as_array().map(Vec::len), Some(2), "{page}");
    let page = request(relay.public(), "GET", &target, &[("Last-Event-ID", &cursors[1])], b"").expect(200).json();
    assert_eq!(page["items"].as_array().map(Vec::len), Some(1), "{page}");
}

#[test]
fn an_expired_cursor_is_told_its_gap_then_what_is_retained_then_what_is_left() {
    let relay = Relay::start(&short(3));
    let before = relay.publish("before", "0");
    let cursor = cursor_now(&relay, "/events");
    let lost = publish(&relay, "lost", 2);
    let changing = publish(&relay, "changing", 4);
    let kept = &changing[1..];
    for transport in Transport::ALL {
        let mut feed = Feed::open(relay.public(), "/events", transport, "", Some(&cursor));
        let (items, open) = feed.until_open();
        let Item::Gap { reason, from, to, missed, topics } = &items[0] else { panic!("{transport:?}: {items:?}") };
        assert_eq!((reason.as_str(), from.as_deref()), ("expired", Some(&*cursor)), "{transport:?}");
        assert_eq!(position_of_cursor(to), position_of_id(&kept[0].0) - 1, "{transport:?}");
        assert!(missed.is_none_or(|missed| missed == 3), "{transport:?}: {missed:?}");
        assert_eq!(topics, &["**"], "{transport:?}");
        // The value of `changing` is in what is left; the others come, also the one that the session had read: what
        // was cleared meanwhile can be seen from what is missing.
        let ids: Vec<&String> = items[1..].iter().map(Item::id).collect();
        let rest: Vec<&String> = before.iter().chain(lost[1..].iter().chain(kept).map(|(id, _)| id)).collect();
        assert_eq!(ids, rest, "{transport:?}");
        assert_eq!(position_of_cursor(&open), position_of_id(&kept[2].0), "{transport:?}");
    }
}

#[test]
fn a_gap_is_counted_by_what_it_says() {
    let relay = Relay::start(&short(3));
    let cursor = cursor_now(&relay, "/events");
    let published = publish(&relay, "t", 10);
    let mut feed = Feed::open(relay.public(), "/events", Transport::Ndjson, "", Some(&cursor));
    let (items, _) = feed.until_open();
    check_items(&published, |_| true, 0, &items);
}

#[test]
fn garbage_foreign_and_incomplete_cursors_are_a_gap_and_then_replay() {
    let two = "[[stream]]\nname = \"other\"\ntopics = [\"other/**\"]\n\
               [[endpoint]]\npath = \"/e\"\ntopics = [\"**\"]\nreplay = 1\n\
               [[endpoint]]\npath = \"/other\"\ntopics = [\"other/**\"]\n";
    let relay = Relay::start(&config(&[EXEMPT, PUBLISH, two].concat()));
    let foreign = {
        let elsewhere = Relay::start(&plain());
        elsewhere.publish("t", "1");
        cursor_now(&elsewhere, "/events")
    };
    relay.publish("t", "1");
    relay.publish("t", "2");
    let lacking = cursor_now(&relay, "/other");
    let long = "A".repeat(4_000);
    let garbage = ["x", "%00", "..%2F", "1", "alerts-k3f9-1042", &long, &foreign, &lacking];
    for cursor in garbage {
        for transport in Transport::ALL {
            let mut feed = Feed::open(relay.public(), "/e", transport, "", Some(cursor));
            let (items, _) = feed.until_open();
            let Item::Gap { reason, missed, .. } = &items[0] else { panic!("{cursor} {transport:?}: {items:?}") };
            assert_eq!((reason.as_str(), missed), ("epoch", &None), "{cursor} {transport:?}");
            let [event] = &items[1..] else { panic!("{cursor} {transport:?}: {items:?}") };
            assert_eq!(event.data(), &json!(2), "{cursor} {transport:?}");
        }
    }
    let mut feed = Feed::open(relay.public(), "/e", Transport::Sse, "", None);
    feed.until_open();
}

#[test]
fn a_cursor_ahead_of_this_instance_is_normal() {
    let relay = Relay::start(&plain());
    publish(&relay, "t", 2);
    let mut marks = relay::cursor::parse(&cursor_now(&relay, "/events")).expect("our own");
    marks[0].position += 2;
    let mut ahead = Vec::new();
    relay::cursor::write(&marks, &mut ahead);
    let ahead = String::from_utf8(ahead).expect("URL-safe");
    let mut feeds: Vec<Feed> =
        Transport::STREAMING.iter().map(|t| Feed::open(relay.public(), "/events", *t, "", Some(&ahead))).collect();
    relay.wait_for_sessions(3);
    publish(&relay, "t", 3);
    for feed in &mut feeds {
        assert_eq!(feed.events(1)[0].data(), &json!(2), "it has the first two already");
    }
}

#[test]
fn a_new_process_is_a_new_epoch_and_says_so() {
    let cursor = {
        let relay = Relay::start(&plain());
        publish(&relay, "t", 5);
        cursor_now(&relay, "/events")
    };
    let relay = Relay::start(&plain());
    publish(&relay, "t", 1);
    let mut feed = Feed::open(relay.public(), "/events", Transport::WebSocket, "", Some(&cursor));
    let (items, _) = feed.until_open();
    let [Item::Gap { reason, .. }] = &items[..] else { panic!("{items:?}") };
    assert_eq!(reason, "epoch");
    publish(&relay, "t", 1);
    feed.events(1);
}

#[test]
fn several_streams_and_partitions_resume_with_one_short_cursor() {
    let streams = "[[stream]]\nname = \"parts\"\ntopics = [\"p/**\"]\npartitions = 2\n\
                   [[stream]]\nname = \"whole\"\ntopics = [\"w/**\"]\n\
                   [[endpoint]]\npath = \"/e\"\ntopics = [\"p/**\", \"w/**\"]\n";
    let relay = Relay::start(&config(&[EXEMPT, streams, PUBLISH].concat()));
    let topic = |n: usize| if n.is_multiple_of(3) { "w/x".to_owned() } else { format!("p/{}", n % 7) };
    let mut feed = Feed::open(relay.public(), "/e", Transport::WebSocket, "", None);
    feed.until_open();
    let all: Vec<String> = (0..40).map(|n| relay.publish(&topic(n), &n.to_string()).remove(0)).collect();
    let mut seen = feed.events(10);
    for (transport, count) in [(Transport::Sse, 5), (Transport::Poll, 5), (Transport::Ndjson, 9), (Transport::Sse, 11)]
    {
        let cursor = seen.last().and_then(Item::cursor).expect("in turn").to_owned();
        assert!(cursor.len() < 64, "{cursor}");
        feed = Feed::open(relay.public(), "/e", transport, "", Some(&cursor));
        seen.extend(feed.events(count));
    }
    assert_eq!(seen.len(), 40);
    let mut ids: Vec<&String> = seen.iter().map(Item::id).collect();
    for number in 0..7 {
        let of = |n: &usize| n % 7 == number && !n.is_multiple_of(3);
        let wanted: Vec<&String> = (0..40).filter(of).map(|n| &all[n]).collect();
        let came: Vec<&String> = ids.iter().copied().filter(|id| wanted.contains(id)).collect();
        assert_eq!(came, wanted, "each topic in its order");
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 40, "none twice");
}

#[test]
fn a_quiet_topic_in_a_busy_stream_does_not_age_into_a_gap() {
    let stream = "[[stream]]\nname = \"busy\"\ntopics = [\"**\"]\nmax_events = 5\n";
    let endpoint = "[[endpoint]]\npath = \"/e\"\ntopics = [\"**\"]\nping = \"1s\"\n";
    let relay = Relay::start(&config(&[EXEMPT, stream, PUBLISH, endpoint].concat()));
    for transport in Transport::STREAMING {
        let mut feed = Feed::open(relay.public(), "/e", transport, "topic=quiet", None);
        let (_, opened) = feed.until_open();
        publish(&relay, "busy", 10);
        let head = position_of_cursor(&cursor_now(&relay, "/e"));
        let cursor = loop {
            if let Item::Heartbeat { cursor: Some(cursor) } = feed.next(crate::client::soon()).expect("a heartbeat") {
                if position_of_cursor(&cursor) == head {
                    break cursor;
                }
                assert!(position_of_cursor(&cursor) >= position_of_cursor(&opened));
            }
        };
        let mut feed = Feed::open(relay.public(), "/e", transport, "topic=quiet", Some(&cursor));
        assert_eq!(feed.until_open().0, [], "{transport:?}");
    }
}

#[test]
fn a_resume_reads_only_so_far_back() {
    let limits = "[limits]\nexempt = [\"127.0.0.0/8\"]\nreplay = 10\n";
    let relay = Relay::start(&config(&[limits, PUBLISH, crate::harness::EVENTS].concat()));
    let cursor = cursor_now(&relay, "/events");
    let published = publish(&relay, "t", 30);
    for transport in Transport::ALL {
        let mut feed = Feed::open(relay.public(), "/events", transport, "", Some(&cursor));
        let (items, _) = feed.until_open();
        assert!(matches!(&items[0], Item::Gap { reason, .. } if reason == "expired"), "{transport:?}: {items:?}");
        assert_eq!(items.len(), 11, "{transport:?}");
        check_items(&published, |_| true, 0, &items);
    }
}
