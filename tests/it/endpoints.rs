//! What an endpoint promises by its keys, on every transport.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::checker::position_of_id;
use crate::client::feed::{Feed, Item, Transport};
use crate::client::http::{Http, get, post_json, request};
use crate::client::soon;
use crate::client::websocket::{Message, WebSocket};
use crate::harness::{EXEMPT, PUBLISH, Relay, config, plain, relay_with_endpoint, relay_with_endpoint_on};

/// An address nobody of ours has.
const ELSEWHERE: (&str, &str) = ("Origin", "https://elsewhere.example");

#[track_caller]
fn open(relay: &Relay, transport: Transport, params: &str) -> Feed {
    Feed::open(relay.public(), "/e", transport, params, None)
}

fn numbers(items: &[Item]) -> Vec<u64> {
    items.iter().map(|item| item.data().as_u64().expect("a number")).collect()
}

#[test]
fn an_event_travels_to_every_transport_in_an_envelope() {
    let relay = Relay::start(&plain());
    for transport in Transport::ALL {
        let mut feed = Feed::open(relay.public(), "/events", transport, "", None);
        feed.until_open();
        let id = relay.publish("a/b.c", r#"{"x": 1.10}"#).remove(0);
        let event = feed.events(1).remove(0);
        let Item::Event { cursor, id: told, topic, data } = event else { unreachable!("events are events") };
        assert_eq!((told, topic), (id, "a/b.c".into()), "{transport:?}");
        assert_eq!(data.to_string(), r#"{"x":1.10}"#, "{transport:?}");
        assert!(cursor.is_some_and(|cursor| cursor.len() < 64), "{transport:?}");
    }
}

#[test]
fn json_is_passed_on_byte_for_byte() {
    let relay = Relay::start(&plain());
    let odd = r#"{ "b":1e2,  "a" : "\u00e9\/" , "b":2 }"#;
    let mut socket = WebSocket::connect(relay.public(), "/events", &[]).expect("connects").expect("accepted");
    assert!(socket.text().starts_with(r#"{"type":"relay.open","#));
    let mut raw = WebSocket::connect(relay.public(), "/events?format=raw", &[]).expect("connects").expect("accepted");
    relay.wait_for_sessions(2);
    relay.publish("odd", odd);
    let envelope = socket.text();
    assert!(envelope.contains(&format!("\"data\":{odd},")), "{envelope}");
    assert_eq!(raw.text(), odd);
}

#[test]
fn hello_comes_first_on_every_stream() {
    let relay = relay_with_endpoint(
        r#"hello = { type = "connection", status = "connected", client_id = "{session.id}", timestamp = "{now}" }"#,
    );
    for transport in Transport::STREAMING {
        let (before, _) = open(&relay, transport, "").until_open();
        let [Item::Other { data, .. }] = &before[..] else { panic!("{transport:?}: {before:?}") };
        let hello: Value = serde_json::from_slice(data).expect("JSON");
        assert_eq!((&hello["type"], &hello["status"]), (&json!("connection"), &json!("connected")));
        assert!(hello["client_id"].as_str().is_some_and(|id| id.len() > 8), "{hello}");
        let now = hello["timestamp"].as_str().expect("a time");
        assert!(now.len() == "2026-11-20T20:15:00.123Z".len() && now.ends_with('Z'), "{now}");
    }
}

#[test]
fn replay_gives_a_new_session_the_newest_events() {
    let relay = relay_with_endpoint("replay = 2");
    let ids: Vec<String> = (0..5).map(|n| relay.publish("t", &n.to_string()).remove(0)).collect();
    for transport in Transport::ALL {
        let (before, _) = open(&relay, transport, "").until_open();
        assert_eq!(numbers(&before), [3, 4], "{transport:?}");
        let (before, _) = open(&relay, transport, "replay=3").until_open();
        assert_eq!(numbers(&before), [2, 3, 4], "{transport:?}");
        // A topic that has none has none.
        let (before, _) = open(&relay, transport, "replay=3&topic=other").until_open();
        assert_eq!(before, [], "{transport:?}");
    }
    assert_eq!(position_of_id(&ids[4]) - position_of_id(&ids[0]), 4);
}

#[test]
fn a_new_session_sees_what_is_retained_until_it_is_cleared() {
    let stream = "[[stream]]\nname = \"states\"\ntopics = [\"**\"]\nmax_events = 1\nretain = 10\n\
                  clear = { \".status\" = \"resolved\" }\n";
    let endpoint = "[[endpoint]]\npath = \"/e\"\ntopics = [\"**\"]\nreplay = \"retained\"\n";
    let relay = Relay::start(&config(&[EXEMPT, stream, PUBLISH, endpoint].concat()));
    for (topic, status) in [("one", "firing"), ("two", "firing"), ("one", "still"), ("three", "firing")] {
        relay.publish(topic, &json!({"topic": topic, "status": status}).to_string());
    }
    let retained = |transport| {
        let (before, _) = open(&relay, transport, "").until_open();
        let told = |item: &Item| (item.data()["topic"].clone(), item.data()["status"].clone());
        before.iter().map(told).collect::<Vec<_>>()
    };
    let pair = |a: &str, b: &str| (json!(a), json!(b));
    for transport in Transport::ALL {
        assert_eq!(retained(transport), [pair("two", "firing"), pair("one", "still"), pair("three", "firing")]);
    }
    let mut live = open(&relay, Transport::Sse, "");
    live.until_open();
    relay.publish("two", &json!({"topic": "two", "status": "resolved"}).to_string());
    assert_eq!(live.events(1)[0].data()["status"], "resolved", "the end of it is delivered");
    for transport in Transport::ALL {
        assert_eq!(retained(transport), [pair("one", "still"), pair("three", "firing")]);
    }
}

#[test]
fn where_lets_through_what_has_the_value() {
    let relay = relay_with_endpoint(
        r#"where = { any = [".severity", ".labels.severity"], in = ["high", "3"], absent = "drop" }"#,
    );
    let payloads = [
        r#"{"severity":"high"}"#,
        r#"{"severity":"low"}"#,
        r#"{"labels":{"severity":"high"}}"#,
        r#"{"severity":"3"}"#,
        r#"{"other":1}"#,
        r#"{"severity":"low","labels":{"severity":"high"}}"#,
        r#"{"severity":"high","last":true}"#,
    ];
    let mut feeds: Vec<Feed> = Transport::ALL.iter().map(|transport| open(&relay, *transport, "")).collect();
    feeds.iter_mut().for_each(|feed| drop(feed.until_open()));
    for payload in payloads {
        relay.publish("t", payload);
    }
    for feed in &mut feeds {
        let told: Vec<String> = feed.events(5).iter().map(|event| event.data().to_string()).collect();
        assert_eq!(told, [payloads[0], payloads[2], payloads[3], payloads[5], payloads[6]]);
    }
}

#[test]
fn pace_lets_go_of_the_newest_only() {
    let relay = relay_with_endpoint(r#"pace = "1s""#);
    for transport in Transport::STREAMING {
        let mut feed = open(&relay, transport, "");
        feed.until_open();
        let began = std::time::Instant::now();
        for n in 0..30 {
            relay.publish("paced", &n.to_string());
        }
        let mut told = vec![];
        while told.last() != Some(&29) {
            told.extend(numbers(&feed.events(1)));
        }
        assert!(told.is_sorted_by(|a, b| a < b), "{told:?}");
        // One at once, then one each second; and the last one whenever it was due.
        let most = began.elapsed().as_secs() as usize + 2;
        assert!(told.len() <= most, "{transport:?}: {told:?} in {:?}", began.elapsed());
    }
    let refused = get(relay.public(), "/e?transport=sse&pace=nonsense");
    assert_eq!(refused.status(), 400, "{}", refused.text());
}

#[test]
fn a_pace_may_come_from_the_address_within_its_bounds() {
    let relay = relay_with_endpoint(
        r#"pace = [{ topics = ["live/*"], every = "{query.update_interval|10}s", min = "1s", max = "60s" }]"#,
    );
    assert_eq!(get(relay.public(), "/e?transport=sse&update_interval=61").status(), 400);
    assert_eq!(get(relay.public(), "/e?transport=sse&update_interval=x").status(), 400);
    let mut feed = open(&relay, Transport::WebSocket, "update_interval=60");
    feed.until_open();
    for n in 0..3 {
        relay.publish("live/a", &n.to_string());
    }
    relay.publish("other", "9");
    assert_eq!(numbers(&feed.events(2)), [0, 9], "other topics are not held back");
}

#[test]
fn the_path_may_name_the_topic() {
    let endpoint = "[[endpoint]]\npath = \"/hear/{topic...}\"\ntopics = [\"{path.topic}\"]\n";
    let relay = Relay::start(&config(&[EXEMPT, PUBLISH, endpoint].concat()));
    let mut feed = Feed::open(relay.public(), "/hear/a/b", Transport::Sse, "", None);
    feed.until_open();
    relay.publish("a/c", "1");
    relay.publish("a/b", "2");
    assert_eq!(numbers(&feed.events(1)), [2]);
}

#[test]
fn only_what_is_allowed_may_be_asked_for() {
    let relay = relay_with_endpoint_on("[\"one\"]", "allow = [\"open/**\", \"one\"]");
    for (topic, status) in [("one", 200), ("open/a/*", 200), ("two", 403), ("**", 403), ("open", 200), ("o/**", 403)] {
        let answer = get(relay.public(), &format!("/e?transport=poll&topic={topic}"));
        assert_eq!(answer.status(), status, "{topic}: {}", answer.text());
    }
}

#[test]
fn the_request_chooses_among_the_transports_that_are_allowed() {
    let relay = relay_with_endpoint("transports = [\"sse\", \"poll\"]");
    let address = relay.public();
    let kind = |target: &str, accept: &str| {
        let mut http = Http::connect(address).expect("connects");
        http.send("GET", target, &[("Accept", accept)], b"").expect("sent");
        let head = http.head(soon()).expect("a head");
        (head.status, head.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default().to_owned())
    };
    let sse = (200, "text/event-stream".to_owned());
    let poll = (200, "application/json".to_owned());
    assert_eq!(kind("/e", "text/event-stream"), sse);
    assert_eq!(kind("/e", "text/html, text/event-stream;q=0.9"), sse);
    assert_eq!(kind("/e", "*/*"), poll);
    assert_eq!(kind("/e?transport=sse", "*/*"), sse);
    assert_eq!(kind("/e?transport=poll", "text/event-stream"), poll);
    assert_eq!(kind("/e", "application/x-ndjson").0, 406);
    assert_eq!(kind("/e?transport=ndjson", "*/*").0, 406);
    assert_eq!(kind("/nowhere", "*/*").0, 404);
    let refused = WebSocket::connect(address, "/e", &[]).expect("connects").err().expect("no WebSocket here");
    assert_eq!(refused.status(), 406);
}

#[test]
fn pages_of_other_origins_stay_outside() {
    let address = |relay: &Relay, path: &str, origin: &str| {
        let refused = request(relay.public(), "GET", &format!("{path}?transport=poll"), &[("Origin", origin)], b"");
        let socket = WebSocket::connect(relay.public(), path, &[("Origin", origin)]).expect("connects");
        assert_eq!(socket.is_ok(), refused.status() == 200, "{origin}");
        refused.status()
    };
    let relay = relay_with_endpoint("origins = [\"https://app.example.com\"]");
    let own = format!("http://{}", relay.public());
    assert_eq!(address(&relay, "/e", &own), 200);
    assert_eq!(address(&relay, "/e", "https://app.example.com"), 200);
    assert_eq!(address(&relay, "/e", "http://app.example.com"), 403, "another scheme");
    assert_eq!(address(&relay, "/e", ELSEWHERE.1), 403);
    let relay = relay_with_endpoint("origins = \"*\"");
    assert_eq!(address(&relay, "/e", ELSEWHERE.1), 200);
    let relay = relay_with_endpoint("");
    assert_eq!(address(&relay, "/e", ELSEWHERE.1), 403);
    let publish =
        request(relay.public(), "POST", "/publish/t", &[ELSEWHERE, ("Content-Type", "application/json")], b"1");
    assert_eq!(publish.status(), 403, "a webhook without a secret is not for pages of others");
    assert!(post_json(relay.public(), "/publish/t", b"1").status() == 200);
}

#[test]
fn poll_pages_through_and_waits() {
    let relay = relay_with_endpoint("");
    let address = relay.public();
    let page = |params: &str| get(address, &format!("/e?transport=poll&{params}")).expect(200).json();
    let before = page("")["cursor"].as_str().expect("a cursor").to_owned();
    for n in 0..5 {
        relay.publish("t", &n.to_string());
    }
    let first = page(&format!("after={before}&limit=3"));
    assert_eq!((first["items"].as_array().map(Vec::len), &first["more"]), (Some(3), &json!(true)), "{first}");
    assert_eq!((&first["gap"], &first["items"][0]["data"]), (&Value::Null, &json!(0)));
    let cursor = first["cursor"].as_str().expect("a cursor");
    let second = page(&format!("after={cursor}&limit=3"));
    assert_eq!((second["items"].as_array().map(Vec::len), &second["more"]), (Some(2), &json!(false)), "{second}");
    let cursor = second["cursor"].as_str().expect("a cursor").to_owned();

    let mut waiting = Http::connect(address).expect("connects");
    waiting.send("GET", &format!("/e?transport=poll&after={cursor}&wait=30s"), &[], b"").expect("sent");
    relay.wait_for_sessions(1);
    relay.publish("t", "5");
    let woken = waiting.answer(soon()).expect("it wakes").expect(200).json();
    assert_eq!(woken["items"][0]["data"], 5);
    let cursor = woken["cursor"].as_str().expect("a cursor");
    let empty = page(&format!("after={cursor}&wait=1s&topic=quiet"));
    assert_eq!((empty["items"].as_array().map(Vec::len), &empty["more"]), (Some(0), &json!(false)), "{empty}");
    for wrong in ["limit=0", "limit=x", "limit=1001", "wait=x"] {
        let answer = get(address, &format!("/e?transport=poll&{wrong}"));
        assert!([200, 400].contains(&answer.status()), "{wrong}: {}", answer.text());
    }
}

#[test]
fn a_poll_waits_as_long_as_it_asks_also_after_a_quiet_time() {
    let relay = relay_with_endpoint("");
    // Until then nobody is there, and nothing moves the clocks of the shards.
    relay.wait_for(|stats| stats["uptime_s"].as_u64() >= Some(2));
    // As many as there may be shards, because each has a clock of its own.
    for _ in 0..4 {
        let began = Instant::now();
        get(relay.public(), "/e?transport=poll&wait=1s").expect(200);
        let waited = began.elapsed();
        assert!(waited >= Duration::from_millis(800), "{waited:?}");
    }
}

/// Everything up to the first empty line, with the second that it was sent masked.
fn head_without_date(raw: &str) -> String {
    let mask = |line: &str| if line.starts_with("date: ") { "date: X".into() } else { line.to_owned() };
    raw.split("\r\n").map(mask).collect::<Vec<_>>().join("\r\n")
}

#[test]
fn a_socket_taken_over_answers_like_the_ordinary_path() {
    let relay = Relay::start(&plain());
    for accept in ["text/event-stream", "application/x-ndjson"] {
        let answer = |length: &[u8]| {
            let mut http = Http::connect(relay.public()).expect("connects");
            // A body keeps hyper in charge of the connection.
            http.send("GET", "/events", &[("Accept", accept)], length).expect("sent");
            let head = http.head(soon()).expect("a head");
            let first = http.socket.take(soon(), crate::client::http::parse_chunk).expect("a first chunk");
            relay.publish("both", "\"same\"");
            let mut rest = first;
            while !rest.ends_with(b"\n") || !rest.windows(4).any(|part| part == b"same") {
                rest.extend(http.socket.take(soon(), crate::client::http::parse_chunk).expect("a chunk"));
            }
            (head_without_date(&head.raw), String::from_utf8(rest).expect("UTF-8"))
        };
        let ((taken, taken_body), (ordinary, ordinary_body)) = (answer(b""), answer(b"x"));
        assert_eq!(taken, ordinary);
        for name in ["cache-control: no-store, no-transform", "x-accel-buffering: no"] {
            assert!(taken.contains(name), "{taken}");
        }
        assert_eq!(taken_body.lines().count(), ordinary_body.lines().count(), "{taken_body}\n{ordinary_body}");
    }
}

#[test]
fn http_1_0_is_served_too() {
    let relay = Relay::start(&plain());
    let mut http = Http::connect(relay.public()).expect("connects");
    http.socket.write(b"GET /events HTTP/1.0\r\nAccept: application/x-ndjson\r\n\r\n").expect("sent");
    let head = http.head(soon()).expect("a head");
    assert_eq!((head.status, head.header("transfer-encoding")), (200, None), "{}", head.raw);
    relay.wait_for_sessions(1);
    relay.publish("old", "\"times\"");
    let line = http.socket.take(soon(), |bytes| {
        let at = memchr::memmem::find(bytes, b"\"times\"")?;
        let end = at + bytes[at..].iter().position(|byte| *byte == b'\n')? + 1;
        Some((bytes[..end].to_vec(), end))
    });
    assert!(String::from_utf8(line.expect("the event")).is_ok());
}

#[test]
fn foreign_clients_find_us_ordinary() {
    let relay = relay_with_endpoint("");
    let say = [r#"{"type":"ping"}"#, r#"{"type":"subscribe","topics":["x"]}"#];
    for foreign in [crate::client::foreign::tungstenite, crate::client::foreign::python_websockets] {
        let told = foreign(relay.public(), "/e", &say);
        let kinds: Vec<Value> = told.iter().map(|line| serde_json::from_str(line).unwrap_or_default()).collect();
        let types: Vec<&str> = kinds.iter().filter_map(|value| value["type"].as_str()).collect();
        assert!(types.starts_with(&["relay.open"]), "{told:?}");
        assert!(told.last().is_some_and(|code| ["1000", "none"].contains(&code.as_str())), "{told:?}");
    }
}

#[test]
fn text_and_binary_have_their_forms() {
    let text = "[[source.webhook]]\npath = \"/text\"\nformat = \"text\"\ntopic = \"text\"\nverify = \"none\"\n";
    let speak = "[[endpoint]]\npath = \"/speak\"\ntopics = [\"none\"]\nformat = \"raw\"\n\
                 [[endpoint.command]]\npublish = { topic = \"binary\", body = \"{.}\" }\n";
    let hear = "[[endpoint]]\npath = \"/e\"\ntopics = [\"text\", \"binary\"]\n";
    let relay = Relay::start(&config(&[EXEMPT, text, speak, hear].concat()));
    let mut feeds: Vec<Feed> = Transport::ALL.iter().map(|transport| open(&relay, *transport, "")).collect();
    feeds.iter_mut().for_each(|feed| drop(feed.until_open()));
    let mut raw = WebSocket::connect(relay.public(), "/e?format=raw", &[]).expect("connects").expect("accepted");
    let mut speaker = WebSocket::connect(relay.public(), "/speak", &[]).expect("connects").expect("accepted");
    relay.wait_for(|stats| stats["sessions"].as_u64() >= Some(5));
    request(relay.public(), "POST", "/text", &[("Content-Type", "text/plain")], "ä\nb".as_bytes()).expect(200);
    assert_eq!(raw.beyond_pings(), Message::Text("ä\nb".into()));
    speaker.send(crate::client::websocket::BINARY, &[0, 255, 1]).expect("sent");
    assert_eq!(raw.beyond_pings(), Message::Binary(vec![0, 255, 1]));
    for feed in &mut feeds {
        let events = feed.events(2);
        assert_eq!((events[0].data(), events[1].data()), (&json!("ä\nb"), &json!("AP8B")));
    }
}
