//! SIGTERM: readiness goes at once, newcomers are refused as passing, sessions leave evenly, webhooks are served to the
//! end, and the process leaves with 0.

use std::time::{Duration, Instant};

use crate::checker::check_items;
use crate::client::feed::{Feed, Item, Transport};
use crate::client::http::{Http, get, post_json};
use crate::client::soon;
use crate::client::websocket::WebSocket;
use crate::harness::{EVENTS, EXEMPT, PUBLISH, Relay, Signal, until, with_server};

fn start(drain: &str) -> Relay {
    Relay::start(&with_server(&format!("drain = \"{drain}\""), &[EXEMPT, PUBLISH, EVENTS].concat()))
}

#[test]
fn sessions_leave_evenly_with_a_hint_while_webhooks_are_served() {
    let mut relay = start("4s");
    let mut feeds: Vec<Feed> =
        (0..12).map(|n| Feed::open(relay.public(), "/events", Transport::STREAMING[n % 3], "", None)).collect();
    feeds.iter_mut().for_each(|feed| drop(feed.until_open()));
    assert_eq!(get(relay.admin(), "/readyz").status(), 200);
    relay.signal(Signal::TERM);
    let began = Instant::now();
    until(|| get(relay.admin(), "/readyz").status() == 503, || relay.log());
    assert_eq!(get(relay.admin(), "/healthz").status(), 200, "alive to the end");
    let ids: Vec<(String, String)> =
        (0..3).map(|n| (relay.publish("t", &n.to_string()).remove(0), "t".into())).collect();
    newcomers_are_refused(&relay);
    let mut left: Vec<Duration> = Vec::new();
    std::thread::scope(|scope| {
        let ends: Vec<_> =
            feeds.iter_mut().map(|feed| scope.spawn(move || (feed.until_end(), began.elapsed()))).collect();
        for end in ends {
            let (items, when) = end.join().expect("no panic");
            let Some(Item::Close { code: 1012, retry_ms: Some(_), .. }) = items.last() else { panic!("{items:?}") };
            let told = items.iter().filter(|item| matches!(item, Item::Event { .. })).count();
            // Some left before these were published.
            check_items(&ids[..told], |_| true, 0, &items);
            left.push(when);
        }
    });
    left.sort();
    let spread = left[11] - left[0];
    assert!(spread >= Duration::from_secs(2), "not evenly over 4 s: {left:?}");
    assert!(relay.wait_for_exit().success());
}

/// Browsers see no status, so what is passing is told in-band where it can be.
fn newcomers_are_refused(relay: &Relay) {
    let mut sse = Feed::open(relay.public(), "/events", Transport::Sse, "", None);
    let items = sse.until_end();
    assert!(matches!(items.last(), Some(Item::Close { retry_ms: Some(_), .. })), "{items:?}");
    for transport in [Transport::Ndjson, Transport::WebSocket] {
        let refused = Feed::connect(relay.public(), "/events", transport, "", None).expect("listening to the end");
        let Err(answer) = refused else { panic!("{transport:?} came in while all are leaving") };
        assert_eq!(answer.status(), 503, "{transport:?}");
        assert!(answer.header("retry-after").is_some(), "{}", answer.head.raw);
    }
    let poll = get(relay.public(), "/events?transport=poll");
    assert_eq!((poll.status(), poll.header("retry-after").is_some()), (503, true));
}

#[test]
fn without_sessions_it_ends_at_once() {
    let mut relay = start("60s");
    relay.publish("t", "1");
    // A kept connection is no session.
    let mut idle = Http::connect(relay.admin()).expect("connects");
    idle.request("GET", "/healthz", &[], b"").expect("an answer");
    let began = Instant::now();
    relay.signal(Signal::TERM);
    assert!(relay.wait_for_exit().success());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut relay = start("600s");
    let mut feed = Feed::open(relay.public(), "/events", Transport::WebSocket, "", None);
    feed.until_open();
    // Enough that one at least would stay for long.
    let mut more: Vec<Feed> = (0..5).map(|_| Feed::open(relay.public(), "/events", Transport::Sse, "", None)).collect();
    more.iter_mut().for_each(|feed| drop(feed.until_open()));
    relay.signal(Signal::TERM);
    until(|| get(relay.admin(), "/readyz").status() == 503, || relay.log());
    relay.signal(Signal::TERM);
    relay.wait_for_exit();
}

#[test]
fn sigint_is_the_same() {
    let mut relay = start("1s");
    let mut socket = WebSocket::connect(relay.public(), "/events", &[]).expect("connects").expect("accepted");
    relay.signal(Signal::INT);
    assert_eq!(socket.until_close().0, Some(1012));
    assert!(relay.wait_for_exit().success());
}

#[test]
fn who_waits_in_a_poll_is_answered() {
    let mut relay = start("1s");
    let page = get(relay.public(), "/events?transport=poll").expect(200).json();
    let mut http = Http::connect(relay.public()).expect("connects");
    let target = format!("/events?transport=poll&wait=60s&after={}", page["cursor"].as_str().expect("a cursor"));
    http.send("GET", &target, &[], b"").expect("sent");
    relay.wait_for_sessions(1);
    relay.signal(Signal::TERM);
    let answer = http.answer(soon()).expect("an answer, not a cut line");
    assert!([200, 503].contains(&answer.status()), "{}", answer.head.raw);
    assert!(relay.wait_for_exit().success());
}

#[test]
fn a_published_event_is_answered_even_while_leaving() {
    let mut relay = start("3s");
    let mut feeds: Vec<Feed> =
        (0..4).map(|_| Feed::open(relay.public(), "/events", Transport::Ndjson, "", None)).collect();
    feeds.iter_mut().for_each(|feed| drop(feed.until_open()));
    relay.signal(Signal::TERM);
    until(|| get(relay.admin(), "/readyz").status() == 503, || relay.log());
    let answer = post_json(relay.public(), "/publish/t", b"1");
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let (mut heard, mut ended) = (0, 0);
    for feed in &mut feeds {
        let items = feed.until_end();
        heard += usize::from(items.iter().any(|item| matches!(item, Item::Event { .. })));
        ended += usize::from(matches!(items.last(), Some(Item::Close { code: 1012, .. })));
    }
    assert!(heard >= 1, "nobody heard it: the last to leave would have");
    assert_eq!(ended, 4);
    assert!(relay.wait_for_exit().success());
}
