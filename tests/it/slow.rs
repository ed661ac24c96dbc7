//! Those who do not read cost nobody but themselves, and are told what they missed.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use serde_json::Value;

use crate::checker::{check_items, position_of_cursor};
use crate::client::feed::{Feed, Item, Transport};
use crate::client::http::Http;
use crate::client::soon;
use crate::harness::{PUBLISH, Relay, config};

/// More than kernels keep for two sockets.
const EVENTS: usize = 120;
const SIZE: usize = 200 * 1024;

/// A relay whose sessions may have little waiting, and whose stream forgets nothing.
fn relay(on_slow: &str) -> Relay {
    let limits = "[limits]\nexempt = [\"127.0.0.0/8\"]\nqueue = \"1MiB\"\n[store]\nmemory = \"256MiB\"\n";
    let endpoint = format!("[[endpoint]]\npath = \"/e\"\ntopics = [\"**\"]\n{on_slow}\n");
    Relay::start(&config(&[limits, PUBLISH, &endpoint].concat()))
}

/// Publishes the lot; (id, topic) of all.
fn publish(relay: &Relay) -> Vec<(String, String)> {
    publish_each(relay, || {})
}

/// The same, with something to do after each. Each event says its number, and is big.
fn publish_each(relay: &Relay, mut then: impl FnMut()) -> Vec<(String, String)> {
    let filler = "x".repeat(SIZE);
    let mut http = Http::connect(relay.public()).expect("connects");
    let one = |number: usize| {
        let topic = format!("topic/{}", number % 3);
        let body = format!("[{number},\"{filler}\"]");
        let headers = [("Content-Type", "application/json")];
        let answer = http.request("POST", &format!("/publish/{topic}"), &headers, body.as_bytes()).expect("an answer");
        then();
        (crate::checker::ids(&answer.expect(200).json()).remove(0), topic)
    };
    (0..EVENTS).map(one).collect()
}

/// Feeds that stand whole, and where.
fn opened(relay: &Relay) -> Vec<(Feed, u64)> {
    let open = |transport: &Transport| {
        let mut feed = Feed::open(relay.public(), "/e", *transport, "", None);
        let (_, cursor) = feed.until_open();
        (feed, position_of_cursor(&cursor))
    };
    Transport::STREAMING.iter().map(open).collect()
}

fn number(item: &Item) -> Option<u64> {
    match item {
        Item::Event { data, .. } => data[0].as_u64(),
        _ => None,
    }
}

/// Without what makes it big, for reading a failure.
fn lean(mut item: Item) -> Item {
    if let Item::Event { data, .. } = &mut item {
        *data = Value::Array(vec![data[0].take()]);
    }
    item
}

/// Reads until the last event or the end.
fn read(feed: &mut Feed) -> Vec<Item> {
    let mut items = Vec::new();
    loop {
        match feed.next(soon()) {
            Ok(item) => {
                let last = number(&item) == Some(EVENTS as u64 - 1);
                items.push(lean(item));
                if last {
                    return items;
                }
            }
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return items,
            Err(e) => panic!("{e} after {:?}", items.last()),
        }
    }
}

#[test]
fn who_is_disconnected_resumes_without_loss() {
    let relay = relay("");
    let feeds = opened(&relay);
    let published = publish(&relay);
    relay.wait_for_sessions(0);
    for (mut feed, began_after) in feeds {
        let mut items = Vec::new();
        // It may be slow again while it catches up: never for long, as catching up waits for it.
        for transport in Transport::STREAMING.iter().cycle().take(20) {
            items.extend(read(&mut feed));
            if items.last().and_then(number) == Some(EVENTS as u64 - 1) {
                break;
            }
            let cursor = items.iter().rev().find_map(Item::cursor).map(str::to_owned);
            feed = Feed::open(relay.public(), "/e", *transport, "", cursor.as_deref());
        }
        let closes: Vec<&Item> = items.iter().filter(|item| matches!(item, Item::Close { .. })).collect();
        assert!(
            closes.iter().all(|close| matches!(close, Item::Close { code: 1013, retry_ms: Some(_), .. })),
            "{closes:?}"
        );
        assert!(!items.iter().any(|item| matches!(item, Item::Gap { .. })), "nothing was lost");
        check_items(&published, |_| true, began_after, &items);
    }
    let closed = relay.metrics();
    assert!(closed.lines().any(|line| line.contains("reason=\"slow\"") && !line.ends_with(" 0")), "{closed}");
}

#[test]
fn who_drops_the_oldest_is_told_exactly_what() {
    let relay = relay("on_slow = \"drop_oldest\"");
    let feeds = opened(&relay);
    let published = publish(&relay);
    relay.wait_for_sessions(3);
    for (mut feed, began_after) in feeds {
        let items = read(&mut feed);
        let gaps: Vec<&Item> = items.iter().filter(|item| matches!(item, Item::Gap { .. })).collect();
        assert!(!gaps.is_empty(), "it was told of nothing");
        for gap in gaps {
            let Item::Gap { reason, missed, from, .. } = gap else { unreachable!("chosen so") };
            assert_eq!((reason.as_str(), missed.is_some(), from.is_some()), ("slow", true, true));
        }
        check_items(&published, |_| true, began_after, &items);
    }
}

#[test]
fn who_wants_the_latest_gets_the_newest_of_each_topic() {
    let relay = relay("on_slow = \"latest\"");
    let feeds = opened(&relay);
    publish(&relay);
    relay.wait_for_sessions(3);
    for (mut feed, _) in feeds {
        let mut last = BTreeMap::new();
        for item in read(&mut feed) {
            if let Item::Event { topic, data, .. } = item {
                let number = data[0].as_u64().expect("a number");
                assert!(last.insert(topic, number).is_none_or(|before| before < number), "never an older one");
            }
        }
        assert_eq!(last["topic/2"], EVENTS as u64 - 1);
        // The others' newest stand before it or come after it: everyone has them in the end.
        while last.values().sum::<u64>() < 3 * EVENTS as u64 - 6 {
            if let Item::Event { topic, data, .. } = feed.expect() {
                last.insert(topic, data[0].as_u64().expect("a number"));
            }
        }
    }
}

#[test]
fn slow_readers_harm_nobody() {
    let relay = relay("");
    let stalled: Vec<_> = opened(&relay).into_iter().chain(opened(&relay)).collect();
    let mut reading: Vec<(Feed, u64, Vec<Item>)> =
        opened(&relay).into_iter().map(|(feed, began_after)| (feed, began_after, Vec::new())).collect();
    // Each reader has read each event before the next one is published: nobody here is slow but the stalled.
    let published = publish_each(&relay, || {
        for (feed, _, items) in &mut reading {
            items.extend(feed.events(1).into_iter().map(lean));
        }
    });
    for (_, began_after, items) in &reading {
        check_items(&published, |_| true, *began_after, items);
    }
    assert_eq!(published.len(), EVENTS);
    relay.wait_for_sessions(3);
    let queued = relay.stats()["queued_bytes"].as_u64().expect("a number");
    assert!(queued <= 3 << 20, "{queued} bytes wait for three sessions that read");
    drop(stalled);
}
