//! Random sequences of publish, subscribe, say, disconnect, resume, retention and reload, through the real binary and
//! through a model of a page; both must tell every session the same.

use std::collections::BTreeMap;

use crate::checker::{position_of_cursor, position_of_id};
use crate::client::feed::{Feed, Item, Transport};
use crate::client::soon;
use crate::harness::{EXEMPT, PUBLISH, Relay, config, seed};

const TOPICS: [&str; 5] = ["a/1", "a/2", "b/1", "b/2/x", "c"];
const PATTERNS: [&str; 6] = ["a/*", "a/**", "**", "b/2/x", "*/1", "c"];
/// Heard by every session, so that each can be brought to the same point and nothing too much goes unseen.
const SYNC: &str = "sync";
const STEPS: usize = 250;

/// The stream as it ought to be.
#[derive(Default)]
struct Log {
    topics: Vec<&'static str>,
    first: u64,
    retained: BTreeMap<&'static str, u64>,
    max_events: u64,
    retain: usize,
}

/// A session as it ought to be.
struct Session {
    patterns: Vec<&'static str>,
    feed: Option<Feed>,
    transport: Transport,
    /// How far it has read; `None` before it ever stood whole.
    at: Option<u64>,
}

/// What a session is told, as far as the model foretells it.
#[derive(Debug, Clone, PartialEq)]
enum Told {
    Aside(u64),
    Event(u64),
    Gap { from: u64, to: u64 },
    Open(u64),
}

impl Log {
    fn head(&self) -> u64 {
        self.topics.len() as u64
    }

    fn publish(&mut self, topic: &'static str, clear: bool) -> u64 {
        self.topics.push(topic);
        if clear {
            self.retained.remove(topic);
        } else {
            self.retained.insert(topic, self.head());
        }
        self.trim();
        self.head()
    }

    fn apply(&mut self, max_events: u64, retain: usize) {
        (self.max_events, self.retain) = (max_events, retain);
        self.trim();
    }

    /// The oldest events go, and the values that have been unchanged the longest.
    fn trim(&mut self) {
        self.first = self.first.max((self.head() + 1).saturating_sub(self.max_events)).max(1);
        while self.retained.len() > self.retain {
            let oldest = self.retained.iter().min_by_key(|(_, position)| **position).map(|(topic, _)| *topic);
            self.retained.remove(oldest.expect("there is one"));
        }
    }

    fn heard(&self, patterns: &[&str], after: u64) -> Vec<u64> {
        let all = (after + 1..=self.head()).filter(|p| hears(patterns, self.topics[*p as usize - 1]));
        all.collect()
    }

    fn last_values(&self, patterns: &[&str], upto: u64) -> Vec<Told> {
        let kept = self.retained.iter().filter(|(topic, position)| **position <= upto && hears(patterns, topic));
        let mut positions: Vec<u64> = kept.map(|(_, position)| *position).collect();
        positions.sort();
        positions.into_iter().map(Told::Aside).collect()
    }

    /// All that a session is told from its beginning until it stands whole.
    fn beginning(&self, session: &Session, replay: Replay) -> Vec<Told> {
        let mut told = Vec::new();
        match (session.at, replay) {
            (Some(at), _) => {
                if at + 1 < self.first {
                    told.push(Told::Gap { from: at, to: self.first - 1 });
                    told.extend(self.last_values(&session.patterns, self.first - 1));
                }
                let kept = self.heard(&session.patterns, at.max(self.first - 1));
                told.extend(kept.into_iter().map(Told::Event));
            }
            (None, Replay::Newest(count)) => {
                let kept = self.heard(&session.patterns, self.first - 1);
                told.extend(kept[kept.len().saturating_sub(count)..].iter().copied().map(Told::Aside));
            }
            (None, Replay::Retained) => told = self.last_values(&session.patterns, self.head()),
            (None, Replay::None) => {}
        }
        told.push(Told::Open(self.head()));
        told
    }
}

#[derive(Debug, Clone, Copy)]
enum Replay {
    None,
    Newest(usize),
    Retained,
}

/// The table of DESIGN section 1, once more and slowly.
fn hears(patterns: &[&str], topic: &str) -> bool {
    patterns.iter().any(|pattern| {
        let pattern = relay::topic::Pattern::new(pattern).expect("a pattern");
        pattern.matches(topic)
    }) || topic == SYNC
}

impl Session {
    /// What it is told next, if anything is.
    fn told(&mut self) -> Option<Told> {
        let (feed, deadline) = (self.feed.as_mut()?, soon());
        let item = loop {
            match feed.next(deadline).ok()? {
                Item::Heartbeat { .. } => {}
                item => break item,
            }
        };
        let told = match item {
            Item::Event { cursor: None, id, .. } => Told::Aside(position_of_id(&id)),
            Item::Event { cursor: Some(_), id, .. } => Told::Event(position_of_id(&id)),
            Item::Gap { from, to, reason, .. } => {
                assert_eq!(reason, "expired");
                let from = from.as_deref().map(position_of_cursor).expect("a cursor was brought");
                Told::Gap { from, to: position_of_cursor(&to) }
            }
            Item::Open { cursor } => Told::Open(position_of_cursor(&cursor)),
            other => panic!("unforeseen: {other:?}"),
        };
        Some(told)
    }

    #[track_caller]
    fn must_be_told(&mut self, foretold: Vec<Told>, history: &[String]) {
        for expected in foretold {
            let told = self.told();
            // A poll's page does not say which of its events came out of turn.
            let told = match (self.transport, told, &expected) {
                (Transport::Poll, Some(Told::Event(p) | Told::Aside(p)), Told::Aside(_)) => Some(Told::Aside(p)),
                (_, told, _) => told,
            };
            assert_eq!(told, Some(expected), "{:?}; what happened: {history:#?}", self.patterns);
        }
    }
}

struct World {
    log: Log,
    sessions: Vec<Session>,
    random: fastrand::Rng,
    history: Vec<String>,
    // The last to be dropped: when it ends, its sessions must be gone.
    relay: Relay,
}

impl World {
    fn start(seed: u64) -> World {
        let mut log = Log::default();
        log.apply(20, 3);
        let relay = Relay::start(&file(20, 3));
        World { relay, log, sessions: Vec::new(), random: fastrand::Rng::with_seed(seed), history: Vec::new() }
    }

    fn step(&mut self) {
        match self.random.u8(..20) {
            0..=8 => {
                let topic = TOPICS[self.random.usize(..TOPICS.len())];
                let clear = self.random.u8(..5) == 0;
                self.publish(topic, clear);
            }
            9..=10 => self.subscribe(),
            11..=12 => self.say(),
            13..=14 => self.disconnect(),
            15..=17 => self.resume(),
            _ => self.reload(),
        }
    }

    fn publish(&mut self, topic: &'static str, clear: bool) {
        self.history.push(format!("publish {topic} clear {clear}"));
        let ids = self.relay.publish(topic, &format!("{{\"over\":{clear}}}"));
        let position = self.log.publish(topic, clear);
        assert_eq!(position_of_id(&ids[0]), position);
        for session in self.sessions.iter_mut().filter(|session| session.feed.is_some()) {
            if hears(&session.patterns, topic) {
                let mut foretold = vec![Told::Event(position)];
                if session.transport == Transport::Poll {
                    // A poll comes again each time: what became old between two pages is a gap to it.
                    foretold = self.log.beginning(session, Replay::None);
                    foretold.pop();
                }
                session.must_be_told(foretold, &self.history);
                session.at = Some(position);
            }
        }
    }

    fn subscribe(&mut self) {
        let patterns: Vec<_> = (0..self.random.usize(1..3)).map(|_| PATTERNS[self.random.usize(..6)]).collect();
        let replay = match self.random.u8(..3) {
            0 => Replay::None,
            1 => Replay::Newest(self.random.usize(1..30)),
            _ => Replay::Retained,
        };
        let transport = Transport::ALL[self.random.usize(..4)];
        self.history.push(format!("subscribe {patterns:?} {replay:?} {transport:?}"));
        let session = Session { patterns, feed: None, transport, at: None };
        self.sessions.push(session);
        self.connect(self.sessions.len() - 1, replay);
    }

    fn connect(&mut self, index: usize, replay: Replay) {
        let session = &mut self.sessions[index];
        let mut params = format!("topic={SYNC}");
        session.patterns.iter().for_each(|pattern| params.push_str(&format!("&topic={pattern}")));
        match replay {
            Replay::None => {}
            Replay::Newest(count) => params.push_str(&format!("&replay={count}")),
            Replay::Retained => params.push_str("&replay=retained"),
        }
        let after = session.at.map(|at| self.cursor(at));
        let session = &mut self.sessions[index];
        let feed = Feed::open(self.relay.public(), "/model", session.transport, &params, after.as_deref());
        session.feed = Some(feed);
        let foretold = self.log.beginning(session, replay);
        session.must_be_told(foretold, &self.history);
        session.at = Some(self.log.head());
    }

    /// The cursor of a position: any session's at that moment is as good.
    fn cursor(&self, position: u64) -> String {
        let page = crate::client::http::get(self.relay.public(), "/model?transport=poll").expect(200).json();
        let mut marks = relay::cursor::parse(page["cursor"].as_str().expect("a cursor")).expect("our own");
        assert_eq!(marks.len(), 1);
        marks[0].position = position;
        let mut text = Vec::new();
        relay::cursor::write(&marks, &mut text);
        String::from_utf8(text).expect("URL-safe")
    }

    /// A WebSocket session asks for one pattern more, or one less.
    fn say(&mut self) {
        let speakers = self.sessions.iter_mut().filter(|s| matches!(s.feed, Some(Feed::WebSocket(_))));
        let Some(session) = self.random.choice(speakers.collect::<Vec<_>>()) else { return };
        let pattern = PATTERNS[self.random.usize(..6)];
        let verb = if self.random.bool() { "subscribe" } else { "unsubscribe" };
        self.history.push(format!("{verb} {pattern} by {:?}", session.patterns));
        session.patterns.retain(|asked| *asked != pattern);
        if verb == "subscribe" {
            session.patterns.push(pattern);
        }
        let Some(Feed::WebSocket(socket)) = &mut session.feed else { unreachable!("it was chosen so") };
        socket.say(&format!("{{\"type\":\"{verb}\",\"topics\":[\"{pattern}\"]}}"));
        let answer = session.feed.as_mut().expect("it stands").expect();
        let Item::Other { data, .. } = &answer else { panic!("no answer: {answer:?}") };
        let answer: serde_json::Value = serde_json::from_slice(data).expect("JSON");
        assert_eq!(answer["type"], format!("{verb}d"), "{answer}");
    }

    fn disconnect(&mut self) {
        let standing = self.sessions.iter_mut().filter(|session| session.feed.is_some());
        if let Some(session) = self.random.choice(standing.collect::<Vec<_>>()) {
            self.history.push(format!("disconnect {:?} at {:?}", session.patterns, session.at));
            session.feed = None;
        }
    }

    fn resume(&mut self) {
        let away = (0..self.sessions.len()).filter(|index| self.sessions[*index].feed.is_none());
        let Some(index) = self.random.choice(away.collect::<Vec<_>>()) else { return };
        let session = &mut self.sessions[index];
        session.transport = Transport::ALL[self.random.usize(..4)];
        self.history.push(format!("resume {:?} at {:?} on {:?}", session.patterns, session.at, session.transport));
        self.connect(index, Replay::None);
    }

    fn reload(&mut self) {
        let (max_events, retain) = (self.random.u64(1..30), self.random.usize(..6));
        self.history.push(format!("reload max_events {max_events} retain {retain}"));
        self.relay.reload(|| self.relay.write_config(&file(max_events, retain)));
        self.log.apply(max_events, retain);
    }
}

fn file(max_events: u64, retain: usize) -> String {
    // Two files are never the same, so that each reload is one.
    let stream = format!(
        "# {}\n[[stream]]\nname = \"model\"\ntopics = [\"**\"]\nmax_events = {max_events}\nretain = {retain}\n",
        fastrand::u64(..)
    );
    let clear = if retain > 0 { "clear = { \".over\" = true }\n" } else { "" };
    config(&[EXEMPT, &stream, clear, PUBLISH, "[[endpoint]]\npath = \"/model\"\ntopics = [\"**\"]\n"].concat())
}

#[test]
fn the_relay_does_what_the_model_says() {
    let mut world = World::start(seed());
    for _ in 0..STEPS {
        world.step();
    }
    // Whatever came too much to anybody stands before this.
    world.publish(SYNC, false);
}

#[test]
fn the_model_forgets_as_the_design_says() {
    let mut log = Log::default();
    log.apply(3, 2);
    for topic in ["a/1", "a/2", "b/1", "c"] {
        log.publish(topic, false);
    }
    let session = |at| Session { patterns: vec!["a/*", "c"], feed: None, transport: Transport::Sse, at };
    assert_eq!(log.beginning(&session(None), Replay::Newest(9)), [Told::Aside(2), Told::Aside(4), Told::Open(4)]);
    assert_eq!(log.beginning(&session(None), Replay::Retained), [Told::Aside(4), Told::Open(4)]);
    let gap = Told::Gap { from: 0, to: 1 };
    assert_eq!(log.beginning(&session(Some(0)), Replay::None), [gap, Told::Event(2), Told::Event(4), Told::Open(4)]);
    log.publish("c", true);
    assert_eq!(log.retained.keys().collect::<Vec<_>>(), [&"b/1"]);
}
