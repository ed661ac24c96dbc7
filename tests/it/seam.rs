//! The seam between the past and live, where it is crossed most often: sessions that go and resume without a pause, on
//! all transports in turn, while events come into three partitions as fast as they are taken.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use crate::checker::{ids, position_of_id};
use crate::client::feed::{Feed, Item, Transport};
use crate::client::http::Http;
use crate::client::soon;
use crate::harness::{PUBLISH, Relay, config, seed};

const PUBLISHERS: usize = 2;
const EVENTS: usize = 1_500;
const SESSIONS: usize = 12;
const TOPICS: usize = 8;

const SEAM: &str = r#"
[limits]
exempt = ["127.0.0.0/8"]
replay = 1_000_000

[[stream]]
name       = "seam"
topics     = ["seam/**"]
partitions = 3

[[endpoint]]
path   = "/seam"
topics = ["seam/**"]
"#;

/// What was published: (id, topic). Set when it is all.
type Published = OnceLock<Vec<(String, String)>>;

/// One subscriber, over all its connections.
struct Subscriber {
    topics: Vec<String>,
    cursor: String,
    /// The ids it was told, in order.
    heard: Vec<String>,
    connections: usize,
}

#[test]
fn who_resumes_without_a_pause_at_full_speed_hears_everything_once() {
    let relay = Relay::start(&config(&[SEAM, PUBLISH].concat()));
    let mut random = fastrand::Rng::with_seed(seed());
    let (address, published) = (relay.public(), Published::new());
    let subscribers: Vec<Subscriber> = (0..SESSIONS).map(|number| Subscriber::new(address, number)).collect();
    let heard: Vec<Subscriber> = thread::scope(|scope| {
        let run = |mut subscriber: Subscriber, mut random: fastrand::Rng| {
            let published = &published;
            scope.spawn(move || {
                while subscriber.lacks(published) {
                    subscriber.connect_and_read(address, &mut random);
                }
                subscriber
            })
        };
        let running: Vec<_> = subscribers.into_iter().map(|one| run(one, random.fork())).collect();
        let publish = |number: usize| scope.spawn(move || publish(address, number));
        let publishing: Vec<_> = (0..PUBLISHERS).map(publish).collect();
        let all = publishing.into_iter().flat_map(|one| one.join().expect("no panic")).collect();
        published.set(all).expect("set once");
        running.into_iter().map(|one| one.join().expect("no panic")).collect()
    });
    let published = published.get().expect("set above");
    assert_eq!(by_partition(published.iter().map(|(id, _)| id)).len(), 3, "events lie in all partitions");
    let connections: usize = heard.iter().map(|subscriber| subscriber.connections).sum();
    assert!(connections > 10 * SESSIONS, "only {connections} connections: the seam was hardly crossed");
    for subscriber in heard {
        let mine = published.iter().filter(|(_, topic)| subscriber.topics.contains(topic)).map(|(id, _)| id);
        let mut expected = by_partition(mine);
        expected.values_mut().for_each(|positions| positions.sort());
        assert_eq!(by_partition(subscriber.heard.iter()), expected);
    }
}

/// The positions, in the order they came. Each partition has an epoch of its own.
fn by_partition<'a>(ids: impl Iterator<Item = &'a String>) -> BTreeMap<&'a str, Vec<u64>> {
    let mut all = BTreeMap::<_, Vec<u64>>::new();
    for id in ids {
        let (partition, _) = id.rsplit_once('-').expect("an event id");
        all.entry(partition).or_default().push(position_of_id(id));
    }
    all
}

/// Publishes as fast as it is answered.
fn publish(address: SocketAddr, number: usize) -> Vec<(String, String)> {
    let mut http = Http::connect(address).expect("the relay listens");
    let one = |count: usize| {
        let topic = format!("seam/{}", (count * PUBLISHERS + number) % TOPICS);
        let headers = [("Content-Type", "application/json")];
        let answer = http.request("POST", &format!("/publish/{topic}"), &headers, b"0").expect("an answer");
        (ids(&answer.expect(200).json()).remove(0), topic)
    };
    (0..EVENTS).map(one).collect()
}

impl Subscriber {
    /// Stands whole before anything is published. Every second one hears but a few topics.
    fn new(address: SocketAddr, number: usize) -> Subscriber {
        let topics: Vec<String> = (0..TOPICS)
            .filter(|t| number.is_multiple_of(2) || t.is_multiple_of(3))
            .map(|t| format!("seam/{t}"))
            .collect();
        let transport = Transport::ALL[number % 4];
        let (_, cursor) = Feed::open(address, "/seam", transport, "", None).until_open();
        Subscriber { topics, cursor, heard: Vec::new(), connections: 0 }
    }

    fn lacks(&self, published: &Published) -> bool {
        let all = published.get();
        all.is_none_or(|all| all.iter().filter(|(_, topic)| self.topics.contains(topic)).count() > self.heard.len())
    }

    /// Reads until it has had enough, for once.
    fn connect_and_read(&mut self, address: SocketAddr, random: &mut fastrand::Rng) {
        let params = format!("topic={}", self.topics.join("&topic="));
        let transport = Transport::ALL[self.connections % 4];
        let mut feed = Feed::open(address, "/seam", transport, &params, Some(&self.cursor));
        self.connections += 1;
        let (enough, deadline) = (self.heard.len() + random.usize(1..60), soon());
        let patience = Instant::now() + Duration::from_millis(random.u64(5..200));
        while self.heard.len() < enough {
            match feed.next(patience) {
                Ok(item) => self.hear(item),
                Err(e) if e.kind() == ErrorKind::TimedOut => return,
                Err(e) => panic!("{e} on {transport:?}"),
            }
            assert!(Instant::now() < deadline, "nothing but heartbeats");
        }
    }

    fn hear(&mut self, item: Item) {
        match &item {
            Item::Event { id, cursor: Some(_), .. } => self.heard.push(id.clone()),
            Item::Open { .. } | Item::Heartbeat { .. } => {}
            other => panic!("{other:?} after {} events", self.heard.len()),
        }
        if let Some(cursor) = item.cursor() {
            self.cursor = cursor.to_owned();
        }
    }
}
