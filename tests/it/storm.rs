//! A thousand sessions that come and go at random, each time on another transport, while events are published: in the
//! end each has been told everything once and in order.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::checker::{check_items, ids, position_of_cursor, position_of_id};
use crate::client::feed::{Feed, Item, Transport};
use crate::client::http::Http;
use crate::client::soon;
use crate::harness::{EXEMPT, PUBLISH, Relay, config, raise_file_limit, seed};

const SESSIONS: usize = 1_000;
const WORKERS: usize = 8;
const EVENTS: usize = 2_000;
const TOPICS: usize = 10;
/// Everybody hears it, so that everybody knows when it is over.
const LAST: &str = "storm/last";

/// What one subscriber lives through, over all its connections.
struct Subscriber {
    topics: Vec<String>,
    feed: Option<Feed>,
    cursor: Option<String>,
    began_after: u64,
    items: Vec<Item>,
}

#[test]
fn a_thousand_sessions_resume_on_changing_transports_and_miss_nothing() {
    raise_file_limit();
    let seed = seed();
    let relay = Relay::start(&config(&[EXEMPT, PUBLISH, STORM].concat()));
    let address = relay.public();
    let mut random = fastrand::Rng::with_seed(seed);
    let workers: Vec<fastrand::Rng> = (0..WORKERS).map(|_| random.fork()).collect();
    let over = AtomicBool::new(false);
    let (published, subscribers) = thread::scope(|scope| {
        let run = |random| scope.spawn(|| live_through(address, random, &over));
        let workers: Vec<_> = workers.into_iter().map(run).collect();
        let published = publish(address, random);
        over.store(true, Ordering::Release);
        let all = workers.into_iter().flat_map(|worker| worker.join().expect("a worker that did not panic"));
        (published, all.collect::<Vec<_>>())
    });
    assert_eq!(subscribers.len(), SESSIONS);
    assert_eq!(published.len(), EVENTS + 1);
    let told: usize = subscribers.iter().map(|subscriber| subscriber.items.len()).sum();
    assert!(told > SESSIONS * EVENTS / TOPICS, "only {told} items were told: the storm did not blow");
    for subscriber in subscribers {
        let hears = |topic: &str| topic == LAST || subscriber.topics.iter().any(|asked| asked == topic);
        check_items(&published, hears, subscriber.began_after, &subscriber.items);
    }
}

const STORM: &str = r#"
[[endpoint]]
path   = "/storm"
topics = ["storm/**"]
"#;

fn topic(number: usize) -> String {
    format!("storm/{number}")
}

/// Publishes one after the other; (id, topic) of all.
fn publish(address: SocketAddr, mut random: fastrand::Rng) -> Vec<(String, String)> {
    let mut http = Http::connect(address).expect("the relay listens");
    let mut publish = |topic: String| {
        let headers = [("Content-Type", "application/json")];
        let answer = http.request("POST", &format!("/publish/{topic}"), &headers, b"{\"storm\":true}");
        let ids = ids(&answer.expect("an answer").expect(200).json());
        (ids.into_iter().next().expect("one id"), topic)
    };
    let mut published: Vec<_> = (0..EVENTS).map(|_| publish(topic(random.usize(..TOPICS)))).collect();
    published.push(publish(LAST.into()));
    published
}

/// One worker's share of the sessions: each in turn reads a little, goes, or comes again, until all is published; then
/// reads the rest.
fn live_through(address: SocketAddr, mut random: fastrand::Rng, over: &AtomicBool) -> Vec<Subscriber> {
    let mut all: Vec<Subscriber> = (0..SESSIONS / WORKERS).map(|_| Subscriber::new(&mut random)).collect();
    while !over.load(Ordering::Acquire) {
        for _ in 0..all.len() {
            let subscriber = &mut all[random.usize(..SESSIONS / WORKERS)];
            match random.u8(..8) {
                0 => subscriber.feed = None,
                _ => subscriber.read(address, &mut random, Instant::now() + Duration::from_millis(1)),
            }
        }
    }
    for subscriber in &mut all {
        let deadline = soon();
        while !subscriber.has_last() {
            assert!(Instant::now() < deadline, "the last event never came: {:?}", subscriber.items.last());
            subscriber.read(address, &mut random, deadline);
        }
    }
    all
}

impl Subscriber {
    fn new(random: &mut fastrand::Rng) -> Subscriber {
        let count = random.usize(1..=3);
        let mut topics: Vec<String> = (0..count).map(|_| topic(random.usize(..TOPICS))).collect();
        topics.sort();
        topics.dedup();
        Subscriber { topics, feed: None, cursor: None, began_after: 0, items: Vec::new() }
    }

    fn has_last(&self) -> bool {
        self.items.iter().any(|item| matches!(item, Item::Event { topic, .. } if topic == LAST))
    }

    /// Comes (again) if it is away, then reads a few items.
    fn read(&mut self, address: SocketAddr, random: &mut fastrand::Rng, deadline: Instant) {
        let feed = match &mut self.feed {
            Some(feed) => feed,
            None => {
                let transport = Transport::ALL[random.usize(..4)];
                let params = format!("topic={}&topic={LAST}", self.topics.join("&topic="));
                self.feed.insert(Feed::open(address, "/storm", transport, &params, self.cursor.as_deref()))
            }
        };
        for _ in 0..random.usize(1..20) {
            match feed.next(deadline) {
                Ok(item) => {
                    if let (Item::Open { cursor }, None) = (&item, &self.cursor) {
                        self.began_after = position_of_cursor(cursor);
                    }
                    let last = matches!(&item, Item::Event { topic, .. } if topic == LAST);
                    assert!(
                        self.cursor.is_some() || matches!(item, Item::Open { .. } | Item::Heartbeat { cursor: None })
                    );
                    self.cursor = item.cursor().map(str::to_owned).or(self.cursor.take());
                    self.items.push(item);
                    if last {
                        return;
                    }
                }
                Err(e) if e.kind() == ErrorKind::TimedOut => return,
                // It was slow, so it was sent away: it comes again like everybody.
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return self.feed = None,
                Err(e) => panic!("{e}"),
            }
        }
    }
}

#[test]
fn several_publishers_at_once_get_one_order() {
    let relay = Relay::start(&crate::harness::plain());
    let address = relay.public();
    let mut feeds: Vec<Feed> =
        Transport::ALL.iter().map(|transport| Feed::open(address, "/events", *transport, "", None)).collect();
    for feed in &mut feeds {
        feed.until_open();
    }
    let mut published: Vec<(String, String)> = thread::scope(|scope| {
        let publisher = |number: usize| {
            scope.spawn(move || {
                let mut http = Http::connect(address).expect("the relay listens");
                let topic = format!("publisher/{number}");
                let one = |_| {
                    let headers = [("Content-Type", "application/json")];
                    let answer = http.request("POST", &format!("/publish/{topic}"), &headers, b"1").expect("an answer");
                    (ids(&answer.expect(200).json()).remove(0), topic.clone())
                };
                (0..100).map(one).collect::<Vec<_>>()
            })
        };
        let all: Vec<_> = (0..4).map(publisher).collect();
        all.into_iter().flat_map(|one| one.join().expect("no panic")).collect()
    });
    published.sort_by_key(|(id, _)| position_of_id(id));
    let order: Vec<&String> = published.iter().map(|(id, _)| id).collect();
    for feed in &mut feeds {
        let events = feed.events(400);
        let came: Vec<&String> = events.iter().map(|event| event.id()).collect();
        assert_eq!(came, order);
    }
}
