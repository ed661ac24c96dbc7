//! What a session may say: the built-in protocol, and an endpoint's own.

use serde_json::{Value, json};

use crate::client::feed::{Feed, Item, Transport};
use crate::client::websocket::{BINARY, Message, TEXT, WebSocket};
use crate::harness::{EXEMPT, PUBLISH, Relay, config, relay_with_endpoint, relay_with_endpoint_on, until};

#[track_caller]
fn connect(relay: &Relay, target: &str) -> WebSocket {
    let socket = WebSocket::connect(relay.public(), target, &[]).expect("connects");
    socket.unwrap_or_else(|answer| panic!("{}{}", answer.head.raw, answer.text()))
}

#[track_caller]
fn hear(socket: &mut WebSocket) -> Value {
    let text = socket.text();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[track_caller]
fn ask(socket: &mut WebSocket, command: Value) -> Value {
    socket.say(&command.to_string());
    hear(socket)
}

#[test]
fn the_built_in_protocol_answers_everything() {
    let relay = relay_with_endpoint_on("[\"b\"]", "allow = [\"a/**\", \"b\"]\nalias = { all = \"a/**\" }");
    let mut socket = connect(&relay, "/e");
    let open = hear(&mut socket);
    assert_eq!(open["type"], "relay.open");
    assert!(open["session"].is_string() && open["cursor"].is_string(), "{open}");
    assert_eq!(ask(&mut socket, json!({"type": "ping"}))["type"], "pong");

    relay.publish("a/1", "1");
    relay.publish("b", "2");
    assert_eq!(hear(&mut socket)["data"], 2);
    assert_eq!(ask(&mut socket, json!({"type": "subscribe", "topics": ["all"]}))["type"], "subscribed");
    relay.publish("a/1", "3");
    assert_eq!(hear(&mut socket)["data"], 3);
    assert_eq!(ask(&mut socket, json!({"type": "unsubscribe", "topics": ["b"]}))["type"], "unsubscribed");
    relay.publish("b", "4");
    relay.publish("a/1", "5");
    assert_eq!(hear(&mut socket)["data"], 5);

    for nonsense in ["", "hello", "{}", "[]", "{\"type\":\"dance\"}", "{\"type\":\"subscribe\"}"] {
        socket.say(nonsense);
        let error = hear(&mut socket);
        assert_eq!(error["type"], "error", "{nonsense}: {error}");
        assert!(error["message"].as_str().is_some_and(|text| text.len() > 5), "{error}");
    }
    let refused = ask(&mut socket, json!({"type": "subscribe", "topics": ["c"]}));
    assert_eq!(refused["type"], "error", "{refused}");
    assert_eq!(ask(&mut socket, json!({"type": "ping"}))["type"], "pong", "the session lives on");
    socket.close(1000).expect("sent");
    assert_eq!(socket.until_close().0, Some(1000));
}

#[test]
fn a_subscription_with_a_cursor_catches_up_on_that_topic_alone() {
    let relay = relay_with_endpoint("");
    let mut first = Feed::open(relay.public(), "/e", Transport::WebSocket, "topic=none", None);
    let (_, cursor) = first.until_open();
    relay.publish("a", "1");
    relay.publish("b", "2");
    relay.publish("a", "3");
    let Feed::WebSocket(socket) = &mut first else { unreachable!("opened as one") };
    socket.say(&json!({"type": "subscribe", "topics": ["a"], "after": cursor}).to_string());
    let Item::Other { data, .. } = first.expect() else { panic!("an answer comes first") };
    assert!(String::from_utf8_lossy(&data).contains("subscribed"));
    relay.publish("a", "4");
    let events = first.events(3);
    let data: Vec<&Value> = events.iter().map(Item::data).collect();
    assert_eq!(data, [1, 3, 4]);
    // What its shard had read before comes out of turn; from the first event in turn on, all are.
    let in_turn: Vec<bool> = events.iter().map(|event| event.cursor().is_some()).collect();
    assert!(in_turn.is_sorted() && in_turn[2], "{in_turn:?}");
}

#[test]
fn a_pace_may_be_asked_for() {
    let relay = relay_with_endpoint("");
    let mut socket = connect(&relay, "/e");
    hear(&mut socket);
    ask(&mut socket, json!({"type": "pace", "every": "60s"}));
    for n in 0..3 {
        relay.publish("t", &n.to_string());
    }
    assert_eq!(hear(&mut socket)["data"], 0);
    assert_eq!(ask(&mut socket, json!({"type": "ping"}))["type"], "pong", "1 and 2 are held back");
}

const OWN: &str = r#"
[[endpoint]]
path   = "/own"
topics = ["hello"]
allow  = ["**"]
format = "raw"
hello  = "hi"
alias  = { all = "**" }

[[endpoint.command]]
when  = "ping"
reply = "pong"

[[endpoint.command]]
when  = { type = "ping" }
reply = { type = "pong", timestamp = "{now}", id = "{.id}" }

[[endpoint.command]]
when      = { type = "subscribe" }
subscribe = "{.topics}"
replay    = 1
reply     = { type = "heard", topics = "{.topics}" }

[[endpoint.command]]
when        = { type = "unsubscribe" }
unsubscribe = "{.topics}"

[[endpoint.command]]
when  = { type = "only" }
where = { any = [".who"], in = "{.who}", absent = "drop" }
reply = "only"

[[endpoint.command]]
when    = { type = "ack" }
publish = { topic = "acks/{.who}", body = { who = "{.who}", by = "{session.id}", whole = "{.}" } }
"#;

fn own() -> Relay {
    Relay::start(&config(&[EXEMPT, PUBLISH, OWN].concat()))
}

#[test]
fn own_commands_reply_subscribe_and_unsubscribe() {
    let relay = own();
    let mut socket = connect(&relay, "/own");
    assert_eq!(socket.text(), "hi");
    socket.say("ping");
    assert_eq!(socket.text(), "pong");
    let pong = ask(&mut socket, json!({"type": "ping", "id": 7}));
    assert_eq!((&pong["type"], &pong["id"]), (&json!("pong"), &json!(7)));
    assert!(pong["timestamp"].is_string());

    relay.publish("jobs/1", "\"old\"");
    socket.say(r#"{"type":"subscribe","topics":["jobs/*"]}"#);
    let (mut replayed, mut replied) = (false, false);
    while !(replayed && replied) {
        match hear(&mut socket) {
            Value::String(old) if old == "old" => replayed = true,
            heard => {
                assert_eq!(heard, json!({"type": "heard", "topics": ["jobs/*"]}));
                replied = true;
            }
        }
    }
    relay.publish("jobs/1", "\"new\"");
    assert_eq!(hear(&mut socket), "new");
    socket.say(r#"{"type":"unsubscribe","topics":["jobs/*"]}"#);
    socket.say("ping");
    assert_eq!(socket.text(), "pong");
    relay.publish("jobs/1", "\"unheard\"");
    relay.publish("hello", "\"heard\"");
    assert_eq!(hear(&mut socket), "heard");
}

#[test]
fn what_no_own_command_takes_is_ignored_and_counted() {
    let relay = own();
    let mut socket = connect(&relay, "/own");
    assert_eq!(socket.text(), "hi");
    let ignored = || relay.metric("relay_commands_ignored_total");
    let before = ignored();
    socket.say(r#"{"type":"dance"}"#);
    socket.say("nonsense");
    socket.send(BINARY, &[1, 2, 3]).expect("sent");
    socket.say("ping");
    assert_eq!(socket.text(), "pong");
    until(|| ignored() - before == 3.0, || relay.metrics());
}

#[test]
fn own_commands_select_and_publish() {
    let relay = own();
    let mut socket = connect(&relay, "/own?topic=**");
    assert_eq!(socket.text(), "hi");
    socket.say(r#"{"type":"only","who":["x","y"]}"#);
    assert_eq!(socket.text(), "only");
    for who in ["x", "z", "y"] {
        relay.publish("t", &json!({"who": who}).to_string());
    }
    assert_eq!(hear(&mut socket)["who"], "x");
    assert_eq!(hear(&mut socket)["who"], "y");

    let ack = r#"{"type":"ack", "who": "x" }"#;
    socket.say(ack);
    let heard = socket.text();
    assert!(heard.contains(&format!("\"whole\":{ack}")), "spliced byte for byte: {heard}");
    // Out of one segment there is no way into another.
    socket.say(r#"{"type":"ack","who":"x/../*"}"#);
    let mut other = Feed::open(relay.public(), "/own", Transport::Sse, "format=envelope&topic=acks/*&replay=2", None);
    other.expect();
    let topics: Vec<String> = other.events(2).into_iter().map(|event| topic(&event)).collect();
    assert_eq!(topics, ["acks/x", "acks/x_____"]);
}

fn topic(item: &Item) -> String {
    match item {
        Item::Event { topic, .. } => topic.clone(),
        other => panic!("no event: {other:?}"),
    }
}

const ECHO: &str = r#"
[limits]
frame                = "1MiB"
queue                = "8MiB"
commands_per_session = "1000/s burst 1000"
exempt               = ["127.0.0.0/8"]

[[endpoint]]
path   = "/echo"
topics = ["echo/{session.id}"]
format = "raw"

[[endpoint.command]]
publish = { topic = "echo/{session.id}", body = "{.}" }
"#;

#[test]
fn an_endpoint_can_be_an_exact_echo() {
    let relay = Relay::start(&config(ECHO));
    let (mut one, mut other) = (connect(&relay, "/echo"), connect(&relay, "/echo"));
    for size in [0, 1, 125, 126, 127, 1_000, 65_535, 65_536, 1 << 20] {
        let binary: Vec<u8> = (0..size).map(|n| (n * 31 % 251) as u8).collect();
        one.send(BINARY, &binary).expect("sent");
        assert!(one.beyond_pings() == Message::Binary(binary), "{size} bytes of binary");
        let text: String = "aé€😀".chars().cycle().take(size / 3).collect();
        one.send(TEXT, text.as_bytes()).expect("sent");
        assert!(one.beyond_pings() == Message::Text(text), "{size} bytes of text");
    }
    for text in ["{\"a\": 1}", "[1,  2]", "null", "\"x\"", " 1 ", "{", "ping"] {
        one.say(text);
        assert_eq!(one.text(), text);
    }
    other.say("mine");
    assert_eq!(other.text(), "mine", "nobody hears another's echo");
}
