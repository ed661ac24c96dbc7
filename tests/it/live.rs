//! Live streams: events go by, to whoever listens at that moment, and leave nothing behind.

use serde_json::Value;

use crate::client::feed::{Feed, Transport};
use crate::client::http;
use crate::client::websocket::WebSocket;
use crate::harness::{EVENTS, EXEMPT, PUBLISH, Relay, config, until};
use crate::redis::Redis;

const LIVE: &str = r#"
[[stream]]
name   = "ticks"
topics = ["ticks/**"]
live   = true
"#;

fn relay(store: &str) -> Relay {
    Relay::start(&config(&[EXEMPT, store, LIVE, PUBLISH, EVENTS].concat()))
}

fn in_redis(redis: &Redis) -> String {
    format!("[store]\nengine = \"redis\"\n[redis]\nurl = \"{}\"\n", redis.url())
}

fn listen(relay: &Relay) -> (WebSocket, String) {
    let mut session = WebSocket::connect(relay.public(), "/events", &[]).unwrap().expect("it is let in");
    let open: Value = serde_json::from_str(&session.text()).unwrap();
    assert_eq!(open["type"], "relay.open");
    (session, open["cursor"].as_str().unwrap().to_owned())
}

fn hear(session: &mut WebSocket) -> Value {
    serde_json::from_str(&session.text()).unwrap()
}

fn publish(relay: &Relay, topic: &str, json: &str) -> Value {
    http::post_json(relay.public(), &format!("/publish/{topic}"), json.as_bytes()).expect(200).json()
}

/// The rest is the same with and without a store.
fn goes_by(one: &Relay, other: &Relay) {
    let ((mut here, before), (mut there, _)) = (listen(one), listen(other));
    let answer = publish(one, "ticks/a", "1");
    assert_eq!(answer, serde_json::json!({"ids": [null], "duplicates": 0}));
    for session in [&mut here, &mut there] {
        let event = hear(session);
        assert_eq!((&event["topic"], &event["data"]), (&"ticks/a".into(), &1.into()));
        assert_eq!(event.get("id"), None, "{event}");
    }
    // A cursor knows nothing of it, so nothing is said to be missing.
    let kept = publish(other, "kept", "2");
    assert_eq!(hear(&mut here)["id"], kept["ids"][0]);
    let mut again = Feed::open(one.public(), "/events", Transport::WebSocket, "", Some(&before));
    let (items, _) = again.until_open();
    assert_eq!(items.len(), 1, "the event that is kept: {items:?}");
    let (items, _) = Feed::open(one.public(), "/events", Transport::WebSocket, "replay=10", None).until_open();
    assert_eq!(items.len(), 1, "{items:?}");
}

#[test]
fn in_memory_they_go_by() {
    let relay = relay("");
    goes_by(&relay, &relay);
}

#[test]
fn in_redis_every_instance_hears_them() {
    let redis = Redis::start();
    let (one, other) = (relay(&in_redis(&redis)), relay(&in_redis(&redis)));
    goes_by(&one, &other);
    let keys = redis.call(&["KEYS", "*ticks*"]).list().len();
    assert_eq!(keys, 0, "nothing of it is kept");
}

#[test]
fn a_waiting_poll_gets_one() {
    let relay = relay("");
    let address = relay.public();
    let poll = std::thread::spawn(move || http::get(address, "/events?topic=ticks/*&wait=30s").expect(200).json());
    relay.wait_for_sessions(1);
    publish(&relay, "ticks/a", "7");
    let page = poll.join().unwrap();
    assert_eq!((&page["items"][0]["data"], page["items"].as_array().unwrap().len()), (&7.into(), 1), "{page}");
}

#[test]
fn what_was_missed_while_nobody_heard_redis_is_told() {
    let redis = Redis::start();
    let relay = relay(&in_redis(&redis));
    let (mut session, _) = listen(&relay);
    publish(&relay, "ticks/a", "1");
    assert_eq!(hear(&mut session)["data"], 1);
    redis.call(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let gap = hear(&mut session);
    assert_eq!((&gap["type"], &gap["reason"]), (&"relay.gap".into(), &"source".into()), "{gap}");
    until(|| redis.call(&["PUBSUB", "NUMSUB", "relay:1:live"]).list()[1].int() == 1, || "not subscribed".into());
    publish(&relay, "ticks/a", "2");
    assert_eq!(hear(&mut session)["data"], 2);
}
