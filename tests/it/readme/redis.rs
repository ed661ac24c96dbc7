//! What it says of Redis: URLs, rights, keys, held against a real one.

use std::collections::BTreeSet;

use relay::link::server::Server;

use super::{blocks, chapter, spans};
use crate::client::feed::{Feed, Item, Transport};
use crate::client::http;
use crate::harness::{Relay, config, until};
use crate::outage::doors::LEAST;
use crate::redis::{Redis, Setup};

const CHAPTER: &str = "Several instances";

#[test]
fn every_url_it_shows_is_one() {
    let urls: BTreeSet<&str> = spans().filter(|span| span.contains("://") && span.contains("redis")).collect();
    for url in &urls {
        // A scheme alone is that of an address, which behind Sentinels has a name.
        let behind = if url.contains("sentinel") { "host/name" } else { "host" };
        let whole = url.replace("PORT", "7").replace("DB", "1") + if url.ends_with("://") { behind } else { "" };
        Server::parse(&whole).unwrap_or_else(|wrong| panic!("{url}: {wrong}"));
    }
    assert_eq!(urls.len(), 7, "{urls:?}");
}

/// An application's channels and streams, a live stream, last values: all there is.
const EVERYTHING: &str = r#"
[[source.redis]]
channels = ["orders.*"]
[[source.redis]]
streams = ["billing"]
[[stream]]
name = "now"
topics = ["now/**"]
live = true
[[stream]]
name = "last"
topics = ["last/**"]
retain = 2
max_age = "1h"
[[endpoint]]
path = "/events"
topics = ["**"]
[[source.webhook]]
path = "/publish/{topic...}"
topic = "{path.topic}"
verify = "none"
"#;

fn instance(url: &str) -> Relay {
    Relay::start(&config(&format!("[store]\nengine = \"redis\"\n[redis]\nurl = \"{url}\"\n{EVERYTHING}")))
}

/// Everything is said once, and heard.
#[track_caller]
fn use_everything(redis: &Redis, relay: &Relay) {
    let ready = || http::get(relay.admin(), "/readyz");
    until(|| ready().status() == 200, || format!("{}\n{}", ready().text(), relay.log()));
    let mut feed = Feed::open(relay.public(), "/events", Transport::Ndjson, "", None);
    feed.until_open();
    let mut heard = |what: &str| {
        let is_it = |item: Item| match item {
            Item::Event { data, .. } => data.to_string().contains(what),
            // A live event has no id.
            Item::Other { data, .. } => String::from_utf8_lossy(&data).contains(what),
            _ => false,
        };
        while !is_it(feed.expect()) {}
    };
    let mut redis = redis.talk();
    assert!(redis.publish("orders.eu", b"{\"from\":\"channel\"}") >= 1);
    heard("channel");
    redis.xadd("billing", &[("data", "from stream")]);
    heard("from stream");
    for topic in ["now/x", "last/1", "last/2", "last/3"] {
        let headers = [("Idempotency-Key", topic)];
        http::request(relay.public(), "POST", &format!("/publish/{topic}"), &headers, format!("{topic:?}").as_bytes())
            .expect(200);
        heard(topic);
    }
}

#[test]
fn the_least_rights_it_names_suffice() {
    let line = blocks(chapter(CHAPTER)).into_iter().find(|block| block.text.starts_with("ACL SETUSER"));
    let line = line.expect("a line of rights").text;
    let rights = |rules: &str| rules.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
    let rules = line.split_once(">PASSWORD").expect("rules follow").1;
    assert_eq!(rights(rules), rights(LEAST), "what is used is counted there");
    let rules = rules.split_whitespace().collect::<Vec<_>>().join(" ");
    // What applications' channels and streams take besides; not what Clusters do.
    let more = spans().filter(|span| span.starts_with(['&', '~']) && span.contains(" +"));
    let more = more.collect::<Vec<_>>().join(" ");
    assert!(more.contains("psubscribe") && more.contains("xinfo"), "{more}");
    let redis = Setup::new().user("relay", "let-me-in", &format!("{rules} {more}")).start();
    let relay = instance(&redis.url_as("relay", "let-me-in"));
    use_everything(&redis, &relay);
    drop(relay);
    let denied = redis.call(&["ACL", "LOG"]);
    assert!(denied.list().is_empty(), "{denied:?}");
}

#[test]
fn keys_it_names_are_those_there_are() {
    let redis = Redis::start();
    let relay = instance(&redis.url());
    use_everything(&redis, &relay);
    let keys = redis.call(&["KEYS", "*"]);
    let keys: Vec<String> = keys.list().iter().map(|key| key.text()).filter(|key| key != "billing").collect();
    let rows = chapter(CHAPTER).lines().filter(|line| line.starts_with("| `relay:"));
    let named: Vec<&str> =
        rows.flat_map(|row| row.split(" | ").next().unwrap_or_default().split('`').skip(1).step_by(2)).collect();
    assert_eq!(named.len(), 5, "{named:?}");
    for key in &keys {
        assert!(named.iter().any(|named| is(key, named)), "{key} is none of {named:?}");
    }
    for named in &named {
        assert!(keys.iter().any(|key| is(key, named)), "{named} is none of {keys:?}");
    }
    // What belongs to a source or an address goes by itself, or is gone already.
    let goes = keys.iter().filter(|key| !key.contains('/') && *key != "relay:format");
    let stay: Vec<_> = goes.filter(|key| redis.call(&["PTTL", key]).int() == -1).collect();
    assert_eq!(stay, [""; 0]);
}

/// Whether a key is one that is written so: words in capitals and `…` stand for anything.
fn is(key: &str, named: &str) -> bool {
    let fixed = named.split(|c: char| c.is_ascii_uppercase() || c == '…').filter(|part| !part.is_empty());
    let mut rest = key;
    named.starts_with(&key[..1])
        && fixed.into_iter().all(|part| match rest.split_once(part) {
            Some((_, behind)) => {
                rest = behind;
                true
            }
            None => false,
        })
}
