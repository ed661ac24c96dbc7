//! Limits: who is above one is told so in the form that fits, everybody else is served, and every slot comes back.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::feed::{Feed, Item, Transport};
use crate::client::http::{Answer, Http, get, request};
use crate::client::soon;
use crate::client::websocket::WebSocket;
use crate::harness::{EVENTS, PUBLISH, Relay, config, raise_file_limit};

fn start(limits: &str, endpoint: &str) -> Relay {
    let endpoint = format!("[[endpoint]]\npath = \"/e\"\ntopics = [\"**\"]\n{endpoint}\n");
    Relay::start(&config(&format!("[limits]\n{limits}\n{PUBLISH}{EVENTS}{endpoint}")))
}

/// A WebSocket from an address that a trusted proxy (loopback is one) tells of.
fn from(address: SocketAddr, forwarded: &str) -> Result<WebSocket, Answer> {
    let headers = [("X-Forwarded-For", forwarded)];
    WebSocket::connect(address, "/e?topic=none", &headers).expect("connects")
}

fn refused(relay: &Relay, reason: &str) -> f64 {
    relay.metric(&format!("relay_refused_total{{reason=\"{reason}\"}}"))
}

#[track_caller]
fn assert_passing(answer: &Answer) {
    assert!([429, 503].contains(&answer.status()), "{}{}", answer.head.raw, answer.text());
    let seconds = answer.header("retry-after").and_then(|value| value.parse::<u64>().ok());
    assert!(seconds.is_some_and(|seconds| seconds >= 1), "{}", answer.head.raw);
}

#[test]
fn sessions_of_one_address_are_counted_on_all_transports() {
    let relay = start("connections_per_ip = 3", "");
    let mut feeds: Vec<Feed> =
        Transport::STREAMING.iter().map(|transport| Feed::open(relay.public(), "/e", *transport, "", None)).collect();
    feeds.iter_mut().for_each(|feed| drop(feed.until_open()));
    for transport in [Transport::WebSocket, Transport::Ndjson] {
        let refused = Feed::connect(relay.public(), "/e", transport, "", None).expect("connects");
        assert_passing(&refused.err().expect("one too many"));
    }
    let told = Feed::open(relay.public(), "/e", Transport::Sse, "", None).until_end();
    assert!(matches!(told.last(), Some(Item::Close { retry_ms: Some(_), .. })), "{told:?}");
    assert!(refused(&relay, "connections_per_ip") >= 3.0, "{}", relay.metrics());
    assert!(from(relay.public(), "192.0.2.1").is_ok(), "another address is another");
    feeds.pop();
    relay.wait_for_sessions(2);
    Feed::open(relay.public(), "/e", Transport::Sse, "", None).until_open();
}

#[test]
fn an_address_is_what_the_last_trusted_proxy_says_and_a_network_of_64_bits() {
    let relay = start("connections_per_ip = 1", "");
    let address = relay.public();
    let mut held = Vec::new();
    let mut is_new = |forwarded: &str| match from(address, forwarded) {
        Ok(socket) => {
            held.push(socket);
            true
        }
        Err(answer) => {
            assert_passing(&answer);
            false
        }
    };
    assert!(is_new("192.0.2.1"));
    assert!(!is_new("192.0.2.1"));
    assert!(!is_new("192.0.2.77, 192.0.2.1"), "what the client wrote itself does not count");
    assert!(is_new("192.0.2.1, 192.0.2.2"));
    assert!(is_new("192.0.2.3, 127.0.0.1"), "a trusted hop is skipped");
    assert!(is_new("2001:db8:0:1::1"));
    assert!(!is_new("2001:db8:0:1:ffff::2"), "the same /64");
    assert!(is_new("2001:db8:0:2::1"));
}

#[test]
fn an_untrusted_proxy_is_named_once() {
    let toml = config(&[PUBLISH, EVENTS].concat()).replacen("[admin]", "trusted_proxies = []\n[admin]", 1);
    let relay = Relay::start(&toml);
    for _ in 0..3 {
        let headers = [("X-Forwarded-For", "192.0.2.1"), ("Content-Type", "application/json")];
        request(relay.public(), "POST", "/publish/t", &headers, b"1").expect(200);
    }
    relay.wait_for_log("trusted_proxies");
    assert_eq!(relay.log().matches("trusted_proxies").count(), 1, "{}", relay.log());
}

#[test]
fn an_endpoint_may_have_a_lower_number_of_its_own() {
    let relay = start("", "connections_per_ip = 2");
    let held: Vec<_> = (0..2).map(|_| from(relay.public(), "192.0.2.1").expect("let in")).collect();
    assert_passing(&from(relay.public(), "192.0.2.1").err().expect("one too many"));
    assert_eq!(refused(&relay, "endpoint_connections_per_ip"), 1.0);
    let headers = [("X-Forwarded-For", "192.0.2.1")];
    let elsewhere = WebSocket::connect(relay.public(), "/events?topic=none", &headers).expect("connects");
    assert!(elsewhere.is_ok(), "another endpoint");
    drop(held);
}

#[test]
fn connects_have_a_rate() {
    let relay = start("connects_per_ip = \"1/s burst 3\"", "");
    let answers: Vec<bool> = (0..6).map(|_| from(relay.public(), "192.0.2.1").is_ok()).collect();
    assert_eq!(answers[..3], [true; 3]);
    assert!(answers[3..].contains(&false), "{answers:?}");
    assert!(refused(&relay, "connects_per_ip") >= 1.0);
    assert!(from(relay.public(), "192.0.2.2").is_ok());
}

#[test]
fn webhooks_above_their_rate_get_503_and_polls_429() {
    let relay = start("requests_per_ip = \"1/s burst 5\"", "");
    let post = || {
        let headers = [("X-Forwarded-For", "192.0.2.1"), ("Content-Type", "application/json")];
        request(relay.public(), "POST", "/publish/t", &headers, b"1")
    };
    let refusal = (0..50).map(|_| post()).find(|answer| answer.status() != 200).expect("one too many");
    assert_passing(&refusal);
    assert_eq!(refusal.status(), 503, "Alertmanager comes again after a 503 only");
    let poll = || request(relay.public(), "GET", "/e?transport=poll", &[("X-Forwarded-For", "192.0.2.2")], b"");
    let refusal = (0..50).map(|_| poll()).find(|answer| answer.status() != 200).expect("one too many");
    assert_passing(&refusal);
    assert_eq!(refusal.status(), 429);
    assert_eq!(get(relay.public(), "/e?transport=poll").status(), 200, "others are served");
    assert!(refused(&relay, "requests_per_ip") >= 2.0);
}

#[test]
fn the_whole_instance_has_a_number() {
    let relay = start("connections = 4\nexempt = [\"127.0.0.0/8\"]", "");
    let held: Vec<_> = (0..4).map(|_| from(relay.public(), "127.0.0.1").expect("let in")).collect();
    let refusal = from(relay.public(), "127.0.0.1").err().expect("one too many");
    assert_passing(&refusal);
    assert_eq!(refusal.status(), 503);
    assert!(refused(&relay, "connections") >= 1.0);
    relay.publish("t", "1");
    drop(held);
    relay.wait_for_sessions(0);
    assert!(from(relay.public(), "127.0.0.1").is_ok());
}

#[test]
fn topics_of_a_session_are_counted() {
    let relay = start("topics_per_session = 3", "");
    let page = |topics: &str| get(relay.public(), &format!("/e?transport=poll&{topics}")).status();
    assert_eq!(page("topic=a&topic=b&topic=c"), 200);
    assert!((400..500).contains(&page("topic=a&topic=b&topic=c&topic=d")));
    let mut socket =
        WebSocket::connect(relay.public(), "/e?topic=a&topic=b", &[]).expect("connects").expect("accepted");
    socket.text();
    for (topic, answer) in [("c", "subscribed"), ("d", "error")] {
        socket.say(&json!({"type": "subscribe", "topics": [topic]}).to_string());
        let text = socket.text();
        assert!(text.contains(answer), "{topic}: {text}");
    }
}

#[test]
fn commands_of_a_session_have_a_rate() {
    let relay = start("commands_per_session = \"1/s burst 5\"", "");
    let mut socket = WebSocket::connect(relay.public(), "/e?topic=a", &[]).expect("connects").expect("accepted");
    for _ in 0..20 {
        if socket.send(crate::client::websocket::TEXT, b"{\"type\":\"ping\"}").is_err() {
            break;
        }
    }
    let mut pongs = 0;
    let close = loop {
        match socket.beyond_pings() {
            crate::client::websocket::Message::Text(text) => pongs += usize::from(text.contains("pong")),
            other => break other,
        }
    };
    assert!((5..10).contains(&pongs), "{pongs} were answered");
    assert!(matches!(close, crate::client::websocket::Message::Close { code: Some(1008), .. }), "{close:?}");
}

#[test]
fn a_connection_that_is_kept_busy_is_not_taken_for_a_silent_one() {
    let relay = Relay::start(&crate::harness::plain());
    let mut http = Http::connect(relay.public()).expect("connects");
    // Longer than a head may take.
    let until = Instant::now() + Duration::from_secs(12);
    let mut answered = 0;
    while Instant::now() < until {
        let headers = [("Content-Type", "application/json")];
        let answer = http.request("POST", "/publish/t", &headers, b"1");
        answer.unwrap_or_else(|e| panic!("{e} after {answered} answers")).expect(200);
        answered += 1;
        // Not as fast as it can: other tests run beside this one.
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn limits_hold_under_a_storm_and_every_slot_comes_back() {
    const LIMIT: usize = 20;
    raise_file_limit();
    let relay = start(&format!("connections_per_ip = {LIMIT}\nconnects_per_ip = \"100000/s burst 100000\""), "");
    let address = relay.public();
    let (inside, most, turned_away) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for number in 0..16 {
            let (inside, most, turned_away) = (&inside, &most, &turned_away);
            scope.spawn(move || {
                for round in 0..40 {
                    let transport = Transport::STREAMING[(number + round) % 3];
                    let feed = Feed::connect(address, "/e", transport, "topic=none", None);
                    // More than twice the number of sockets: they are not even read.
                    let Ok(Ok(mut feed)) = feed else {
                        turned_away.fetch_add(1, Ordering::Relaxed);
                        continue;
                    };
                    if !matches!(feed.next(soon()), Ok(Item::Open { .. } | Item::Heartbeat { .. })) {
                        turned_away.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    // Counted as inside only after the relay let it in, and no longer before it is let go.
                    let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    if round % 3 == 0 {
                        thread::yield_now();
                    }
                    inside.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert!(most.load(Ordering::SeqCst) <= LIMIT);
    relay.wait_for_sessions(0);
    let held: Vec<Feed> =
        (0..LIMIT).map(|_| Feed::open(address, "/e", Transport::WebSocket, "topic=none", None)).collect();
    relay.wait_for_sessions(LIMIT as u64);
    let one_more = Feed::connect(address, "/e", Transport::WebSocket, "topic=none", None).expect("connects");
    assert_passing(&one_more.err().expect("one too many"));
    drop(held);
}

#[test]
fn all_queues_together_are_bounded() {
    const TOGETHER: u64 = 4 << 20;
    let limits = "exempt = [\"127.0.0.0/8\"]\nqueue = \"3MiB\"\nqueues = \"4MiB\"\n[store]\nmemory = \"256MiB\"";
    let relay = start(limits, "");
    let mut stalled: Vec<Feed> =
        (0..8).map(|n| Feed::open(relay.public(), "/e", Transport::STREAMING[n % 3], "topic=big", None)).collect();
    stalled.iter_mut().for_each(|feed| drop(feed.until_open()));
    let event = format!("\"{}\"", "x".repeat(200 * 1024));
    let mut highest = 0;
    for _ in 0..100 {
        relay.publish("big", &event);
        highest = highest.max(relay.stats()["queued_bytes"].as_u64().expect("a number"));
    }
    // One event for each may be on its way in when the sum is looked at.
    assert!(highest <= TOGETHER + 8 * 201 * 1024, "{highest} bytes waited");
    relay.wait_for(|stats| stats["queued_bytes"].as_u64().is_some_and(|bytes| bytes <= TOGETHER));
    assert!(relay.stats()["sessions"].as_u64().is_some_and(|left| left < 8), "somebody had to go");
}

#[test]
fn changed_limits_hold_for_newcomers_and_leave_those_inside() {
    let relay = start("connections_per_ip = 5", "");
    let held: Vec<_> = (0..4).map(|_| from(relay.public(), "192.0.2.1").expect("let in")).collect();
    let lower =
        config(&format!("[limits]\nconnections_per_ip = 2\n{PUBLISH}[[endpoint]]\npath = \"/e\"\ntopics = [\"**\"]\n"));
    relay.reload(|| relay.write_config(&lower));
    assert_eq!(relay.stats()["sessions"], 4);
    assert_passing(&from(relay.public(), "192.0.2.1").err().expect("one too many"));
    drop(held);
    relay.wait_for_sessions(0);
    let two: Vec<_> = (0..2).map(|_| from(relay.public(), "192.0.2.1").expect("let in")).collect();
    assert_passing(&from(relay.public(), "192.0.2.1").err().expect("one too many"));
    drop(two);
}
