//! Real shards and real sockets over streams whose store is a test: what sessions are told when it loses something.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use serde_json::Value;
use tokio::sync::oneshot;

use super::seat::{Line, Poll};
use super::*;
use crate::cursor;
use crate::event::{Kind, LOST_BY_SOURCE, Payload, Time};
use crate::gate::limits::Rate;
use crate::session::endpoint::Replay;
use crate::session::terms::tests::endpoint;
use crate::session::terms::{Begin, Terms};
use crate::stream::{self, Draft, Staged};
use crate::topic::{Pattern, Topic};
use crate::wire::form::{Form, Format, Transport};

/// One shard over one stream `events`, and one `live` that takes `live/**`.
struct World {
    staged: Staged,
    hub: Hub,
    endpoint: Arc<Endpoint>,
    now: u64,
}

/// A session on ndjson, read line by line.
struct Listener {
    lines: BufReader<UnixStream>,
}

fn patterns(names: &[&str]) -> Vec<Pattern> {
    names.iter().map(|name| Pattern::new(name).unwrap()).collect()
}

impl World {
    fn new(retain: usize) -> World {
        World::pinging(retain, Duration::from_secs(600))
    }

    fn pinging(retain: usize, ping: Duration) -> World {
        let stream = |name: &str, topics: &[&str], live| stream::Settings {
            name: name.into(),
            topics: patterns(topics),
            max_events: 100_000,
            max_age: None,
            retain,
            clear: None,
            partitions: 1,
            live,
        };
        let streams = vec![stream("live", &["live/**"], true), stream("events", &["**"], false)];
        let staged = Staged::new(streams, 1);
        let metrics = Metrics::new(1, Time(0));
        let commands = Rate { per_second: 1e9, burst: 1_000 };
        let (queue, queues, replay, frame) = (1 << 20, 1 << 30, 10_000, 1 << 16);
        let settings = Settings { queue, queues, replay, frame, topics_per_session: 9, commands, session_age: None };
        let publish: Publish = Arc::new(|_, _| false);
        let hub = Hub::start(&staged.streams, &metrics, &settings.into(), &publish).unwrap();
        let reach = staged.streams.reach(&patterns(&["**"])).into();
        let endpoint = Arc::new(Endpoint { reach, ..endpoint(|settings| settings.ping = ping) });
        hub.endpoints(&HashMap::from([(endpoint.id, endpoint.clone())]), Duration::ZERO);
        World { staged, hub, endpoint, now: 1 }
    }

    /// The number of the part that is the log.
    fn log(&self) -> usize {
        self.staged.parts.iter().position(|part| !part.mirror.place().live).unwrap()
    }

    fn append(&mut self, topic: &str, kind: Kind, payload: &str) {
        self.now += 1;
        let log = self.log();
        self.staged.parts[log].append(topic, kind, payload, self.now);
    }

    fn publish(&mut self, topic: &str, payload: &str) {
        self.append(topic, Kind::Json, payload);
    }

    fn gap(&mut self, list: &str) {
        self.append(LOST_BY_SOURCE, Kind::Gap, list);
    }

    /// The mirror hears of all that is in the store, at once.
    fn follow(&mut self) {
        let log = self.log();
        self.staged.parts[log].settle();
        while self.staged.parts[log].follow(usize::MAX) {}
        self.staged.ring();
    }

    /// Drops from the mirror what was read by the shard.
    fn evict(&mut self, count: usize) {
        let part = &self.staged.parts[self.log()];
        until("the shard has read all", || {
            part.mirror.stands(0).is_some_and(|mark| mark.position == part.mirror.head().1)
        });
        (0..count).for_each(|_| part.evict());
    }

    fn open(&self, line: Line, transport: Transport, topics: &[&str], begin: Begin) {
        let terms = Terms {
            patterns: patterns(topics),
            allow: patterns(&["**"]).into(),
            select: None,
            pace: None,
            own_pace: false,
            begin,
            format: Format::Envelope,
        };
        self.hub.open(Opening {
            line,
            head: Vec::new(),
            early: bytes::Bytes::new(),
            id: [7; 16],
            endpoint: self.endpoint.clone(),
            form: Form { transport, format: Format::Envelope, chunked: false },
            terms,
            hello: None,
            request: None,
            permits: (None, None),
        });
    }

    fn listen(&self, topics: &[&str], begin: Begin) -> Listener {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        ours.set_nonblocking(true).unwrap();
        self.open(Line::Socket(ours.into()), Transport::Ndjson, topics, begin);
        Listener { lines: BufReader::new(theirs) }
    }

    fn poll(&self, topics: &[&str], begin: Begin, wait: Duration) -> oneshot::Receiver<Vec<u8>> {
        let (reply, answer) = oneshot::channel();
        let (items, gap) = (Vec::new(), None);
        let poll = Poll { reply, items, count: 0, limit: 3, gap, wait, until: 0, fetch: 0 };
        self.open(Line::Poll(Box::new(poll)), Transport::Poll, topics, begin);
        answer
    }

    /// Straight to those who are there.
    fn deliver(&self, topics: &[&str]) {
        let draft = |(n, topic): (usize, &&str)| Draft {
            topic: Topic::new(topic).unwrap(),
            payload: Payload { kind: Kind::Json, bytes: n.to_string().into() },
            dedupe: None,
            name: None,
        };
        self.staged.streams.deliver(topics.iter().enumerate().map(draft).collect(), Time(5));
    }

    /// Whoever was handed to the shard before is there.
    fn all_are_there(&self) {
        assert!(self.listen(&["nobody"], NEW).next().starts_with("open"));
    }

    /// The cursor behind this position.
    fn at(&self, position: u64) -> Begin {
        let part = &self.staged.parts[self.log()];
        let mark = cursor::Mark { partition: part.mirror.place().hash, epoch: part.epoch(), position };
        Begin::After(Some(vec![mark]))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.hub.stop();
    }
}

fn until(what: &str, mut there: impl FnMut() -> bool) {
    let began = Instant::now();
    while !there() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}: not in time");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn positions(token: &Value) -> Vec<u64> {
    cursor::parse(token.as_str().unwrap()).unwrap().iter().map(|mark| mark.position).collect()
}

/// As text: `open 3`, `a/1=5@3` for the payload 5 at the cursor 3, `source a/**,b 1-2`.
fn text(value: &Value) -> String {
    let at = |name: &str| value.get(name).map_or("-".into(), |token| format!("{:?}", positions(token)));
    match value.get("type").and_then(Value::as_str) {
        Some("relay.open") => format!("open {}", at("cursor")),
        Some("relay.ping") => format!("ping {}", at("cursor")),
        Some("relay.gap") => {
            let topics: Vec<_> = value["topics"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
            let missed = value["missed"].as_u64().map_or(String::new(), |n| format!(" {n} missed"));
            format!("{} {} {}-{}{missed}", value["reason"].as_str().unwrap(), topics.join(","), at("from"), at("to"))
        }
        Some(other) => panic!("{other}"),
        None => format!("{}={}@{}", value["topic"].as_str().unwrap(), value["data"], at("cursor")),
    }
}

impl Listener {
    fn next(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("something comes");
        if line == "\n" {
            return "breath".to_owned();
        }
        text(&serde_json::from_str(&line).expect("a line is JSON"))
    }

    fn hears(&mut self, expected: &[&str]) {
        let told: Vec<String> = expected.iter().map(|_| self.next()).collect();
        assert_eq!(told, expected);
    }
}

/// Items, gap, cursor, more.
fn answered(answer: oneshot::Receiver<Vec<u8>>) -> String {
    let body: Value = serde_json::from_slice(&answer.blocking_recv().expect("an answer")).unwrap();
    let mut parts: VecDeque<String> = body["items"].as_array().unwrap().iter().map(text).collect();
    if body["gap"].is_object() {
        parts.push_front(text(&body["gap"]));
    }
    parts.push_back(format!("at {:?}", positions(&body["cursor"])));
    if body["more"] == true {
        parts.push_back("more".to_owned());
    }
    Vec::from(parts).join("; ")
}

const NEW: Begin = Begin::Fresh(Replay::None);

#[test]
fn a_gap_of_a_source_is_told_in_its_place() {
    let mut world = World::new(0);
    let (mut all, mut some, mut other) =
        (world.listen(&["**"], NEW), world.listen(&["a/*", "b"], NEW), world.listen(&["c"], NEW));
    for listener in [&mut all, &mut some, &mut other] {
        listener.hears(&["open [0]"]);
    }
    let waiting = world.poll(&["a/1"], world.at(0), Duration::from_secs(30));
    let deaf = world.poll(&["c"], world.at(0), Duration::from_secs(30));
    world.publish("a/1", "1");
    world.follow();
    assert_eq!(answered(waiting), "a/1=1@[1]; at [1]");
    let waiting = world.poll(&["a/1"], world.at(1), Duration::from_secs(30));
    world.publish("a/1", "2");
    world.gap(r#"["a/**"]"#);
    world.publish("b", "4");
    world.publish("c", "5");
    world.follow();
    all.hears(&["a/1=1@[1]", "a/1=2@[2]", "source ** [2]-[3]", "b=4@[4]", "c=5@[5]"]);
    some.hears(&["a/1=1@[1]", "a/1=2@[2]", "source a/* [2]-[3]", "b=4@[4]"]);
    other.hears(&["c=5@[5]"]);
    assert_eq!(answered(waiting), "a/1=2@[2]; at [2]; more", "a gap comes first in a page");
    assert_eq!(answered(deaf), "c=5@[5]; at [5]");
    assert_eq!(answered(world.poll(&["a/1"], world.at(2), Duration::ZERO)), "source a/1 [2]-[3]; at [5]");
    world.listen(&["a/*"], world.at(1)).hears(&["a/1=2@[2]", "source a/* [2]-[3]", "open [5]"]);
    world.listen(&["**"], Begin::Fresh(Replay::Newest(3))).hears(&["a/1=2@-", "b=4@-", "c=5@-", "open [5]"]);
}

#[test]
fn a_gap_wakes_those_who_wait_and_only_them() {
    let mut world = World::new(0);
    let waiting = world.poll(&["a/1", "b"], world.at(0), Duration::from_secs(30));
    let deaf = world.poll(&["c"], world.at(0), Duration::from_secs(30));
    let mut listener = world.listen(&["c"], NEW);
    listener.hears(&["open [0]"]);
    world.gap(r#"["a/**"]"#);
    world.gap(r#"["b"]"#);
    world.follow();
    assert_eq!(answered(waiting), "source a/1 [0]-[1]; at [1]; more", "a page tells one gap");
    world.publish("c", "1");
    world.follow();
    listener.hears(&["c=1@[3]"]);
    assert_eq!(answered(deaf), "c=1@[3]; at [3]");
}

#[test]
fn a_lost_tail_is_told_to_those_who_had_come_so_far() {
    let mut world = World::new(10);
    let mut live = world.listen(&["a/**"], NEW);
    let mut other = world.listen(&["c"], NEW);
    live.hears(&["open [0]"]);
    other.hears(&["open [0]"]);
    (1..=4).for_each(|n| world.publish(&format!("a/{}", n % 2), &n.to_string()));
    world.follow();
    live.hears(&["a/1=1@[1]", "a/0=2@[2]", "a/1=3@[3]", "a/0=4@[4]"]);
    let waiting = world.poll(&["a/1"], world.at(4), Duration::from_secs(30));
    let behind = world.at(1);
    world.all_are_there();
    let log = world.log();
    world.staged.lose(log, 2);
    world.publish("a/2", "33");
    world.publish("c", "44");
    world.follow();
    live.hears(&["epoch a/** [4]-[2]", "a/1=1@-", "a/0=2@-", "a/2=33@[3]"]);
    other.hears(&["epoch c [4]-[2]", "c=44@[4]"]);
    assert_eq!(answered(waiting), "epoch a/1 [4]-[2]; a/1=1@-; at [2]");
    // One who was away hears of it if it had come further, and only then.
    world.listen(&["a/**"], behind).hears(&["a/0=2@[2]", "a/2=33@[3]", "open [4]"]);
}

#[test]
fn another_life_without_a_loss_is_silent() {
    let mut world = World::new(10);
    let mut live = world.listen(&["a"], NEW);
    live.hears(&["open [0]"]);
    world.publish("a", "1");
    world.follow();
    live.hears(&["a=1@[1]"]);
    let log = world.log();
    let brought = world.at(1);
    world.staged.lose(log, 1);
    world.publish("a", "2");
    world.follow();
    live.hears(&["a=2@[2]"]);
    world.listen(&["a"], brought).hears(&["a=2@[2]", "open [2]"]);
}

#[test]
fn a_session_that_is_ahead_of_what_is_left_is_told() {
    let mut world = World::new(0);
    (1..=3).for_each(|n| world.publish("a", &n.to_string()));
    // The mirror has nothing of it yet: the session comes from another instance.
    let mut ahead = world.listen(&["a"], world.at(3));
    ahead.hears(&["open [3]"]);
    let log = world.log();
    world.staged.lose(log, 1);
    world.publish("a", "22");
    world.follow();
    ahead.hears(&["epoch a [3]-[1]", "a=22@[2]"]);
}

#[test]
fn pages_that_are_fetched_are_waited_for() {
    let mut world = World::new(0);
    (1..=400).for_each(|n| world.publish("a", &n.to_string()));
    world.follow();
    world.evict(390);
    let mut away = world.listen(&["a"], world.at(100));
    let mut newest = world.listen(&["a"], Begin::Fresh(Replay::Newest(20)));
    let page = world.poll(&["a"], world.at(150), Duration::from_secs(30));
    until("somebody wants a page", || world.staged.bring(false));
    world.staged.ring();
    for _ in 0..4 {
        until("somebody wants a page", || world.staged.bring(true));
        world.staged.ring();
    }
    let expected: Vec<String> = (101..=400).map(|n| format!("a={n}@[{n}]")).collect();
    away.hears(&expected.iter().map(String::as_str).collect::<Vec<_>>());
    away.hears(&["open [400]"]);
    let expected: Vec<String> = (381..=400).map(|n| format!("a={n}@-")).collect();
    newest.hears(&expected.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(answered(page), "a=151@[151]; a=152@[152]; a=153@[153]; at [153]; more");
}

#[test]
fn who_waits_for_a_page_hears_that_it_is_not_forgotten() {
    let mut world = World::pinging(0, Duration::from_millis(200));
    (1..=9).for_each(|n| world.publish("a", &n.to_string()));
    world.follow();
    world.evict(9);
    let (mut away, mut newest) =
        (world.listen(&["a"], world.at(7)), world.listen(&["a"], Begin::Fresh(Replay::Newest(1))));
    away.hears(&["ping [7]", "ping [7]"]);
    newest.hears(&["breath", "breath"]);
    until("somebody wants a page", || world.staged.bring(true));
    world.staged.ring();
    until("it comes", || newest.next() == "a=9@-");
    newest.hears(&["open [9]", "ping [9]"]);
    until("it comes", || away.next() == "a=8@[8]");
    away.hears(&["a=9@[9]", "open [9]", "ping [9]"]);
}

#[test]
fn a_poll_waits_for_a_page_as_long_as_it_is_worth_it() {
    let mut world = World::new(0);
    (1..=9).for_each(|n| world.publish("a", &n.to_string()));
    world.follow();
    world.evict(9);
    let resumed = world.poll(&["a"], world.at(2), Duration::ZERO);
    let fresh = world.poll(&["a"], Begin::Fresh(Replay::Newest(3)), Duration::ZERO);
    assert_eq!(answered(resumed), "at [2]; more", "the page did not come");
    assert!(fresh.blocking_recv().is_err(), "half a replay has no cursor: it must be asked again");
}

#[test]
fn what_lies_in_no_log_is_heard_by_those_who_are_there() {
    let world = World::new(0);
    let mut listener = world.listen(&["live/*"], NEW);
    let waiting = world.poll(&["live/*"], NEW, Duration::from_secs(30));
    listener.hears(&["open [0]"]);
    world.all_are_there();
    world.deliver(&["live/1", "live/2", "live/1", "live/2"]);
    listener.hears(&["live/1=0@[0]", "live/2=1@[0]", "live/1=2@[0]", "live/2=3@[0]"]);
    assert_eq!(answered(waiting), "live/1=0@[0]; live/2=1@[0]; live/1=2@[0]; at [0]", "as many as it takes");
    let waiting = world.poll(&["live/1"], NEW, Duration::from_secs(30));
    world.all_are_there();
    world.staged.streams.deliver_gap(&patterns(&["live/**"]), Time(9));
    listener.hears(&["source live/* [0]-[0]"]);
    assert_eq!(answered(waiting), "source live/1 [0]-[0]; at [0]");
}
