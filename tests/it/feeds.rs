//! Applications publish to Redis, and subscribers hear it: each message once and in order, whatever happens to the
//! instances in between, or a gap where it would have been.

mod channels;
mod cluster;
mod kept;
mod reloads;
mod single;
mod takeover;

use serde_json::Value;

use crate::client::feed::{Feed, Item, Transport};
use crate::client::http;
use crate::harness::{EVENTS, EXEMPT, Relay, config, until};
use crate::redis::{Redis, Reply, Talk};

/// Numbers on one channel, as an application would publish them.
const NUMBERS: &str = "[[source.redis]]\nchannels = [\"numbers\"]\ntopic = \"{channel}\"\n";

/// A file with streams in a Redis, and these sources.
fn in_redis(url: &str, sources: &str) -> String {
    let store = format!("[store]\nengine = \"redis\"\n[redis]\nurl = \"{url}\"\n");
    config(&[EXEMPT, &store, sources, EVENTS].concat())
}

/// The same with streams in memory.
fn in_memory(url: &str, sources: &str) -> String {
    config(&[EXEMPT, &format!("[redis]\nurl = \"{url}\"\n"), sources, EVENTS].concat())
}

/// A relay whose sources are heard.
#[track_caller]
fn start(toml: &str) -> Relay {
    let relay = Relay::start(toml);
    wait_ready(&relay);
    relay
}

/// Several of one file.
#[track_caller]
fn start_all(count: usize, toml: &str) -> Vec<Relay> {
    let relays: Vec<Relay> = (0..count).map(|_| Relay::start(toml)).collect();
    relays.iter().for_each(wait_ready);
    relays
}

fn not_ready(relay: &Relay) -> Vec<String> {
    let answer = http::get(relay.admin(), "/readyz").json();
    answer["reasons"].as_array().unwrap().iter().map(|reason| reason.as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn wait_ready(relay: &Relay) {
    until(|| not_ready(relay).is_empty(), || format!("{:?}\n{}", not_ready(relay), relay.log()));
}

fn counted(relay: &Relay, what: &str, source: &str) -> f64 {
    relay.metric(&format!("relay_source_{what}{{source=\"{source}\"}}"))
}

/// Waits until whoever listens now could go on where the one that appends stops: until that one said that everything up
/// to a later marker is appended.
#[track_caller]
fn wait_settled(store: &Redis) {
    let time = store.call(&["TIME"]);
    let now = time.list()[0].text().parse::<u64>().unwrap() * 1000 + 1000;
    let done = || {
        let keys = store.call(&["KEYS", "relay:1:{source:*"]);
        let marker = |key: &Reply| store.call(&[b"HGET", key.bytes(), b"marker"]);
        let markers = keys.list().iter().map(marker).map(|marker| marker.text().parse::<u64>().unwrap_or(0));
        markers.min().unwrap_or(0)
    };
    until(|| done() > now, || format!("{} is not after {now}", done()));
}

/// Which of these appends what a source says, once it is one of them.
#[track_caller]
fn holder(relays: &[Relay], source: &str) -> usize {
    let mut found = None;
    until(
        || {
            found = relays.iter().position(|relay| counted(relay, "lease", source) == 1.0);
            found.is_some()
        },
        || format!("nobody appends {source}"),
    );
    found.unwrap()
}

/// A session that hears everything from now on.
#[track_caller]
fn listen(relay: &Relay) -> Feed {
    let mut feed = Feed::open(relay.public(), "/events", Transport::Sse, "", None);
    feed.until_open();
    feed
}

/// Publishes numbers, each of which somebody hears.
fn say(talk: &mut Talk, channel: &str, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        talk.publish(channel, number.to_string());
    }
}

/// What a session is told: the numbers, and `None` for a gap of a source.
#[track_caller]
fn told(feed: &mut Feed, last: u64) -> Vec<Option<u64>> {
    let mut told = Vec::new();
    while told.last() != Some(&Some(last)) {
        match feed.expect() {
            Item::Event { data, .. } => told.push(Some(data.as_u64().unwrap_or_else(|| panic!("{data} is no number")))),
            Item::Gap { reason, .. } if reason == "source" => told.push(None),
            Item::Open { .. } => {}
            other => panic!("{other:?} after {told:?}"),
        }
    }
    told
}

/// Each number once and in order, and no gap.
#[track_caller]
fn hears(feed: &mut Feed, numbers: std::ops::RangeInclusive<u64>) {
    let expected: Vec<Option<u64>> = numbers.clone().map(Some).collect();
    let told = told(feed, *numbers.end());
    let at = told.iter().zip(&expected).position(|(told, expected)| told != expected);
    let around = at.map(|at| &told[at.saturating_sub(3)..told.len().min(at + 5)]);
    assert!(told == expected, "not what was published, around {around:?}; {} of {}", told.len(), expected.len());
}

/// What was published in vain: the numbers before, one gap, the numbers from there on.
#[track_caller]
fn hears_with_gap(feed: &mut Feed, before: std::ops::RangeInclusive<u64>, last: u64) {
    let told = told(feed, last);
    let gaps: Vec<usize> = (0..told.len()).filter(|at| told[*at].is_none()).collect();
    let [gap] = gaps[..] else { panic!("{} gaps in {told:?}", gaps.len()) };
    assert!(told[..gap].iter().copied().eq(before.map(Some)), "before the gap: {told:?}");
    let after: Vec<u64> = told[gap + 1..].iter().map(|number| number.unwrap()).collect();
    assert!(after.windows(2).all(|pair| pair[0] + 1 == pair[1]), "after the gap: {told:?}");
}

/// The clients of a server that listen to channels, by id.
fn listeners(redis: &Redis) -> Vec<String> {
    let list = redis.call(&["CLIENT", "LIST", "TYPE", "PUBSUB"]).text();
    let id = |line: &str| line.split(' ').find_map(|field| field.strip_prefix("id=")).map(str::to_owned);
    list.lines().filter_map(id).collect()
}

/// Those among them that are new: of a relay that was started meanwhile.
#[track_caller]
fn new_listener(redis: &Redis, before: &[String]) -> String {
    let mut new: Vec<String> = listeners(redis).into_iter().filter(|id| !before.contains(id)).collect();
    assert_eq!(new.len(), 1, "{new:?}");
    new.remove(0)
}

/// The newest payloads of a relay's streams, as its pages have them.
fn newest(relay: &Relay, count: usize) -> Vec<Value> {
    let page = http::get(relay.public(), &format!("/events?transport=poll&replay={count}")).expect(200).json();
    page["items"].as_array().unwrap().clone()
}
