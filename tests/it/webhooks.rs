//! What webhooks make of what they are sent: topics, bodies, one event for what comes twice.

use serde_json::json;

use crate::checker::ids;
use crate::client::feed::{Feed, Item, Transport};
use crate::client::http::{Answer, request};
use crate::harness::{EVENTS, EXEMPT, PUBLISH, Relay, config};

const HOOKS: &str = r#"
[[source.webhook]]
path   = "/orders/{shop}"
topic  = "orders/{path.shop}/{.id}/{query.kind|plain}"
body   = { type = "order", order = "{.}", at = "{now}", shop = "{path.shop}", total = "{.total|0 as number}" }
verify = "none"

[[source.webhook]]
path          = "/keyed"
topic         = "keyed"
dedupe        = "{.key}"
dedupe_window = "1h"
verify        = "none"
"#;

fn post(relay: &Relay, target: &str, mark: Option<&str>, body: &str) -> Answer {
    let mut headers = vec![("Content-Type", "application/json; charset=utf-8")];
    headers.extend(mark.map(|mark| ("Idempotency-Key", mark)));
    request(relay.public(), "POST", target, &headers, body.as_bytes())
}

#[test]
fn topics_and_bodies_are_made_of_the_request() {
    let relay = Relay::start(&config(&[EXEMPT, HOOKS, EVENTS].concat()));
    let mut feed = Feed::open(relay.public(), "/events", Transport::Sse, "", None);
    feed.until_open();
    post(&relay, "/orders/north%20side?kind=rush", None, r#"{"id":7,"total":"12.50"}"#).expect(200);
    let event = feed.events(1).remove(0);
    let Item::Event { topic, data, .. } = &event else { unreachable!("events are events") };
    assert_eq!(topic, "orders/north side/7/rush");
    assert_eq!(
        (&data["type"], &data["order"]["id"], &data["shop"]),
        (&json!("order"), &json!(7), &json!("north side"))
    );
    assert_eq!(data["total"].to_string(), "12.50");
    assert!(data["at"].is_string());
    let refused = post(&relay, "/orders/north", None, r#"{"total":1}"#).expect(422);
    assert!(refused.text().contains(".id"), "it names what is absent: {}", refused.text());
}

#[test]
fn what_comes_twice_is_one_event() {
    let relay = Relay::start(&config(&[EXEMPT, PUBLISH, HOOKS, EVENTS].concat()));
    let mut feed = Feed::open(relay.public(), "/events", Transport::Ndjson, "", None);
    feed.until_open();
    let sent = |target: &str, mark, body: &str| {
        let answer = post(&relay, target, mark, body).expect(200).json();
        (ids(&answer).remove(0), answer["duplicates"].as_u64().expect("a number"))
    };
    let (first, none) = sent("/publish/t", Some("one"), "1");
    assert_eq!((sent("/publish/t", Some("one"), "1"), none), ((first, 1), 0), "a retry has the id of the first");
    assert_eq!(sent("/publish/t", Some("two"), "2").1, 0);
    assert_eq!(sent("/publish/t", None, "3").1, 0);
    assert_eq!(sent("/publish/t", None, "3").1, 0, "without a mark a retry is a second event");
    assert_eq!(sent("/keyed", None, r#"{"key":"a"}"#).1, 0);
    assert_eq!(sent("/keyed", None, r#"{"key":"a","more":1}"#).1, 1, "its own key counts");
    assert_eq!(sent("/keyed", None, r#"{"key":"b"}"#).1, 0);
    let data: Vec<String> = feed.events(6).iter().map(|event| event.data().to_string()).collect();
    assert_eq!(data, ["1", "2", "3", "3", r#"{"key":"a"}"#, r#"{"key":"b"}"#]);
}
