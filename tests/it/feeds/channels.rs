//! What is said on channels: which of it counts, under which topic, as what.

use serde_json::json;

use super::{counted, hears, holder, in_memory, in_redis, listen, newest, not_ready, say, start, start_all};
use crate::client::feed::Item;
use crate::harness::{Relay, until};
use crate::redis::{Redis, Setup};

const SOURCES: &str = r#"
[[source.redis]]
channels = ["plain", "orders.*", "orders.[a-e]u", "orders.eu"]
topic    = "{channel}"

[[source.redis]]
channels = ["made"]
topic    = "made/{.kind}/{.id|none}"
"#;

/// All of it, with whatever keeps the streams.
fn each_message_is_one_event(relay: &Relay, redis: &Redis) {
    let mut feed = listen(relay);
    let mut talk = redis.talk();
    // This one falls under three subscriptions, and comes twice with the same payload.
    for _ in 0..2 {
        assert_eq!(talk.publish("orders.eu", "same"), 3);
    }
    talk.publish("orders.us", "{\"id\": 1}");
    talk.publish("plain", "\"text\" that is no JSON");
    talk.publish("plain", b"\xff\x00");
    talk.publish("made", "{\"kind\":\"a/b\",\"id\":7}");
    talk.publish("made", "no object");
    talk.publish("made", "{\"kind\":\"c\"}");
    talk.publish("plain", "");
    let said = |item: &Item| match item {
        Item::Event { topic, data, .. } => (topic.clone(), data.clone()),
        other => panic!("{other:?}"),
    };
    let mut heard: Vec<_> = feed.events(8).iter().map(said).collect();
    // Two sources have no order between them.
    let made: Vec<_> = heard.extract_if(.., |(topic, _)| topic.starts_with("made")).collect();
    let expected = [
        ("orders.eu", json!("same")),
        ("orders.eu", json!("same")),
        ("orders.us", json!({"id": 1})),
        ("plain", json!("\"text\" that is no JSON")),
        ("plain", json!("/wA=")),
        ("plain", json!("")),
    ];
    assert_eq!(heard, expected.map(|(topic, data)| (topic.to_owned(), data)));
    assert_eq!(made[0], ("made/a_b/7".to_owned(), json!({"kind": "a/b", "id": 7})));
    assert_eq!(made[1].0, "made/c/none");
    assert!(newest(relay, 9).iter().any(|item| item["data_base64"] == "/wA="), "it is binary");
    let dropped = "relay_source_dropped_total{source=\"made\",reason=\"unfilled\"}";
    assert_eq!(relay.metric(dropped), 1.0);
    relay.wait_for_log("a message became no event");
    assert_eq!(counted(relay, "messages_total", "orders.* +3"), 6.0);
    assert_eq!((counted(relay, "up", "made"), counted(relay, "gaps_total", "made")), (1.0, 0.0));
}

#[test]
fn each_message_is_one_event_in_redis() {
    let redis = Redis::start();
    each_message_is_one_event(&start(&in_redis(&redis.url(), SOURCES)), &redis);
}

#[test]
fn each_message_is_one_event_in_memory() {
    let redis = Redis::start();
    each_message_is_one_event(&start(&in_memory(&redis.url(), SOURCES)), &redis);
}

#[test]
fn what_relays_say_among_themselves_is_no_event() {
    let redis = Redis::start();
    let live = "[[stream]]\nname = \"ticks\"\ntopics = [\"ticks\"]\nlive = true\n";
    let all = "[[source.redis]]\nchannels = [\"*\"]\ntopic = \"{channel}\"\n";
    let relays = start_all(2, &in_redis(&redis.url(), &[live, all].concat()));
    let mut feeds: Vec<_> = relays.iter().map(listen).collect();
    let mut markers = redis.talk();
    markers.call(&["PSUBSCRIBE", "relay:*"]);
    // Markers pass, and what goes by without a log.
    let mut talk = redis.talk();
    for _ in 0..3 {
        markers.reply().expect("a marker");
    }
    say(&mut talk, "numbers", 1..=5);
    feeds.iter_mut().for_each(|feed| hears(feed, 1..=5));
}

#[test]
fn the_application_has_a_redis_of_its_own_with_a_password_and_few_rights() {
    let rights = "resetkeys ~relay:* resetchannels &numbers &relay:* -@all +@connection +@pubsub +info +role +eval +evalsha \
                  +get +set +time";
    let (store, application) = (Redis::start(), Setup::new().user("relay", "secret", rights).start());
    let url = application.url_as("relay", "secret");
    let source = format!("[[source.redis]]\nchannels = [\"numbers\"]\ntopic = \"n/{{channel}}\"\nurl = \"{url}\"\n");
    let relays = start_all(2, &in_redis(&store.url(), &source));
    let mut feed = listen(&relays[0]);
    let mut talk = application.talk();
    say(&mut talk, "numbers", 1..=3);
    store.talk().publish("numbers", "4"); // nobody listens there
    say(&mut talk, "numbers", 5..=5);
    let topics: Vec<String> = feed.events(4).iter().map(|item| format!("{} {}", topic(item), item.data())).collect();
    assert_eq!(topics, ["n/numbers 1", "n/numbers 2", "n/numbers 3", "n/numbers 5"]);
    assert!(relays.iter().all(|relay| !relay.log().contains("secret")));
}

fn topic(item: &Item) -> &str {
    if let Item::Event { topic, .. } = item { topic } else { panic!("{item:?}") }
}

#[test]
fn a_source_that_cannot_be_heard_is_said_by_name() {
    let redis = Setup::new().user("relay", "secret", "+@all ~* resetchannels &numbers").start();
    let url = redis.url_as("relay", "secret");
    let source = format!("[[source.redis]]\nchannels = [\"numbers\"]\ntopic = \"{{channel}}\"\nurl = \"{url}\"\n");
    let relay = Relay::start(&in_memory(&redis.url(), &source));
    // The channel of the markers is not among those that it may hear.
    let said = |relay: &Relay| {
        not_ready(relay).iter().any(|why| why.contains("source numbers: ") && why.contains("more rights"))
    };
    until(|| said(&relay), || format!("{:?}\n{}", not_ready(&relay), relay.log()));
    assert!(!relay.log().contains("secret"));
    assert_eq!(counted(&relay, "up", "numbers"), 0.0);
}

#[test]
fn what_goes_by_without_a_log_is_heard_on_every_instance_once() {
    let redis = Redis::start();
    let live = "[[stream]]\nname = \"ticks\"\ntopics = [\"ticks/**\"]\nlive = true\n";
    let source = "[[source.redis]]\nchannels = [\"ticks/*\", \"numbers\"]\ntopic = \"{channel}\"\n";
    let relays = start_all(3, &in_redis(&redis.url(), &[live, source].concat()));
    holder(&relays, "numbers +1");
    let mut feeds: Vec<_> = relays.iter().map(listen).collect();
    let mut talk = redis.talk();
    for number in 1..=20 {
        talk.publish("ticks/a", number.to_string());
    }
    // It goes by another way than the log: whoever heard this as well heard all of that.
    for feed in &mut feeds {
        let mut heard = Vec::new();
        while heard.len() < 20 {
            match feed.expect() {
                Item::Other { data, .. } => {
                    let event: serde_json::Value = serde_json::from_slice(&data).unwrap();
                    assert_eq!(event["topic"], "ticks/a");
                    heard.push(event["data"].as_u64().unwrap());
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(heard.into_iter().eq(1..=20));
    }
    say(&mut talk, "numbers", 1..=3);
    feeds.iter_mut().for_each(|feed| hears(feed, 1..=3));
}
