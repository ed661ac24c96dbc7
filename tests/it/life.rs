//! The life of a session that does nothing: it is pinged, must answer, and is asked to come again in time.

use std::time::{Duration, Instant};

use crate::client::feed::{Feed, Item, Transport};
use crate::client::soon;
use crate::client::websocket::{Frame, PING, PONG, WebSocket};
use crate::harness::{EVENTS, EXEMPT, PUBLISH, Relay, relay_with_endpoint, with_server};

fn raw(relay: &Relay) -> WebSocket {
    WebSocket::connect(relay.public(), "/e?format=raw", &[]).expect("connects").expect("accepted")
}

#[test]
fn who_answers_pings_stays_and_who_does_not_is_closed() {
    let relay = relay_with_endpoint("ping = \"1s\"");
    let (mut answers, mut silent) = (raw(&relay), raw(&relay));
    let mut pings = 0;
    while pings < 3 {
        let Frame { opcode, payload, .. } = answers.frame(soon()).expect("a ping comes");
        assert_eq!(opcode, PING, "a quiet raw session hears nothing else");
        answers.send(PONG, &payload).expect("sent");
        pings += 1;
    }
    let mut frames = Vec::new();
    while let Ok(frame) = silent.frame(soon()) {
        frames.push(frame.opcode);
    }
    assert!((1..=3).contains(&frames.iter().filter(|opcode| **opcode == PING).count()), "{frames:?}");
    assert_eq!(relay.metric("relay_closes_total{reason=\"silent\"}"), 1.0);
    relay.publish("t", "\"still here\"");
    loop {
        let frame = answers.frame(soon()).expect("it lives");
        if frame.opcode != PING {
            assert_eq!(frame.payload, b"\"still here\"");
            break;
        }
    }
}

#[test]
fn a_socket_that_is_gone_without_a_word_frees_its_slot() {
    let relay = relay_with_endpoint("ping = \"1s\"");
    for transport in Transport::STREAMING {
        let mut feed = Feed::open(relay.public(), "/e", transport, "", None);
        feed.until_open();
        drop(feed);
    }
    relay.wait_for_sessions(0);
    relay.assert_nothing_left();
}

#[test]
fn sessions_are_asked_to_reconnect_in_time_and_not_all_at_once() {
    let relay = Relay::start(&with_server("session_age = \"4s\"", &[EXEMPT, PUBLISH, EVENTS].concat()));
    let began = Instant::now();
    let mut ends = Vec::new();
    std::thread::scope(|scope| {
        let one = |number: usize| {
            let mut feed = Feed::open(relay.public(), "/events", Transport::STREAMING[number % 3], "", None);
            feed.until_open();
            scope.spawn(move || (feed.until_end(), began.elapsed()))
        };
        let all: Vec<_> = (0..12).map(one).collect();
        for end in all {
            let (items, when) = end.join().expect("no panic");
            assert!(matches!(items.last(), Some(Item::Close { code: 1012, retry_ms: Some(_), .. })), "{items:?}");
            ends.push(when);
        }
    });
    ends.sort();
    assert!(ends[0] >= Duration::from_secs(3), "none before 80 % of its age: {ends:?}");
    assert_eq!(relay.metric("relay_closes_total{reason=\"age\"}"), 12.0);
}
