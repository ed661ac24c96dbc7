//! A thousand sessions that come and go at random, each time on another transport, while events are published: in the
//! end each has been told everything once and in order.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::checker::{check_items, ids, position_of_cursor, position_of_id};
use crate::client::feed::{Feed, Item, Transport};
use crate::client::http::Http;
use crate::client::soon;
use crate::harness::{EXEMPT, PUBLISH, Relay, config, raise_file_limit, seed};

const SESSIONS: usize = 1_000;
const WORKERS: usize = 8;
/// How often a worker turns to one of its sessions while events are published.
const TURNS: usize = 2_500;
const TOPICS: usize = 10;
/// Everybody hears it, so that everybody knows when it is over.
const LAST: &str = "storm/last";

/// What one subscriber lives through, over all its connections.
struct Subscriber {
    topics: Vec<String>,
    feed: Option<Feed>,
    transport: Option<Transport>,
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
    let (all_stand, storming) = (Barrier::new(WORKERS + 1), AtomicUsize::new(WORKERS));
    let (published, subscribers) = thread::scope(|scope| {
        let run = |random| scope.spawn(|| live_through(address, random, &all_stand, &storming));
        let workers: Vec<_> = workers.into_iter().map(run).collect();
        all_stand.wait();
        let published = publish(address, random, &storming);
        let all = workers.into_iter().flat_map(|worker| worker.join().expect("a worker that did not panic"));
        (published, all.collect::<Vec<_>>())
    });
    assert_eq!(subscribers.len(), SESSIONS);
    let resumed = relay.metric("relay_resumes_total");
    println!("{} events, {resumed} resumes", published.len());
    assert!(published.len() > 500 && resumed > 1_000.0, "the storm did not blow");
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

/// Publishes one after the other as long as it storms; (id, topic) of all.
fn publish(address: SocketAddr, mut random: fastrand::Rng, storming: &AtomicUsize) -> Vec<(String, String)> {
    let mut http = Http::connect(address).expect("the relay listens");
    let mut publish = |topic: String| {
        let headers = [("Content-Type", "application/json")];
        let answer = http.request("POST", &format!("/publish/{topic}"), &headers, b"{\"storm\":true}");
        let ids = ids(&answer.expect("an answer").expect(200).json());
        (ids.into_iter().next().expect("one id"), topic)
    };
    let mut published = Vec::new();
    while storming.load(Ordering::Acquire) > 0 {
        published.push(publish(topic(random.usize(..TOPICS))));
        // Each event goes to some two hundred sessions: at full speed there would be time for nothing else.
        thread::sleep(Duration::from_millis(2));
    }
    published.push(publish(LAST.into()));
    published
}

/// One worker's share of the sessions: all stand, then each in turn reads a little, goes, or comes again; in the end all
/// read the rest.
fn live_through(
    address: SocketAddr,
    mut random: fastrand::Rng,
    all_stand: &Barrier,
    storming: &AtomicUsize,
) -> Vec<Subscriber> {
    let mut all: Vec<Subscriber> = (0..SESSIONS / WORKERS).map(|_| Subscriber::new(&mut random)).collect();
    for subscriber in &mut all {
        while subscriber.cursor.is_none() {
            subscriber.read(address, &mut random, soon(), 1);
        }
    }
    all_stand.wait();
    for _ in 0..TURNS {
        let subscriber = &mut all[random.usize(..SESSIONS / WORKERS)];
        match random.u8(..4) {
            0 => subscriber.feed = None,
            _ => {
                let most = random.usize(1..20);
                subscriber.read(address, &mut random, Instant::now() + Duration::from_millis(1), most);
            }
        }
    }
    storming.fetch_sub(1, Ordering::Release);
    for subscriber in &mut all {
        let deadline = soon();
        while !subscriber.has_last() {
            assert!(Instant::now() < deadline, "the last event never came to {subscriber:?}");
            subscriber.read(address, &mut random, deadline, 20);
        }
    }
    all
}

impl std::fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lately = &self.items[self.items.len().saturating_sub(5)..];
        write!(f, "{:?} on {:?}, began after {}: … {lately:#?}", self.topics, self.transport, self.began_after)
    }
}

impl Subscriber {
    fn new(random: &mut fastrand::Rng) -> Subscriber {
        let count = random.usize(1..=3);
        let mut topics: Vec<String> = (0..count).map(|_| topic(random.usize(..TOPICS))).collect();
        topics.sort();
        topics.dedup();
        Subscriber { topics, feed: None, transport: None, cursor: None, began_after: 0, items: Vec::new() }
    }

    fn has_last(&self) -> bool {
        self.items.iter().any(|item| matches!(item, Item::Event { topic, .. } if topic == LAST))
    }

    /// Comes (again) if it is away, then reads at most so many items.
    fn read(&mut self, address: SocketAddr, random: &mut fastrand::Rng, deadline: Instant, most: usize) {
        let feed = match &mut self.feed {
            Some(feed) => feed,
            None => {
                let transport = *self.transport.insert(Transport::ALL[random.usize(..4)]);
                let params = format!("topic={}&topic={LAST}", self.topics.join("&topic="));
                self.feed.insert(Feed::open(address, "/storm", transport, &params, self.cursor.as_deref()))
            }
        };
        for _ in 0..most {
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
