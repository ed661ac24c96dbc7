//! What a session is told, case by case.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::*;
use crate::event::{Kind, Payload, Time};
use crate::hub::tails::Tails;
use crate::select::{Field, Fields};
use crate::session::terms::Begin;
use crate::stream::{Draft, Partition, Settings, Staged, Streams};
use crate::topic::Topic;

/// The memory engine never waits.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

/// A stream and a shard that reads it.
pub(super) struct World {
    streams: Streams,
    tails: Tails,
    pub reach: Vec<u32>,
    now: u64,
}

impl World {
    pub fn new(partitions: u32, max_events: u64, retain: usize) -> World {
        let clear = Fields::new(vec![(Field::parse(".", false).unwrap(), serde_json::json!(0))]);
        let settings = Settings {
            name: "events".into(),
            topics: vec![Pattern::all()],
            max_events,
            max_age: None,
            retain,
            clear: Some(clear),
            partitions,
            live: false,
        };
        let streams = Streams::new(vec![settings], 1 << 30, 1);
        let mut reach: Vec<u32> = streams.partitions().iter().map(|p| p.place().hash).collect();
        reach.sort();
        World { tails: Tails::new(&streams, 0), reach, streams, now: 1 }
    }

    /// The payload 0 clears.
    pub fn publish(&mut self, topic: u8, payload: u8) {
        self.now += u64::from(payload % 2);
        let bytes = Bytes::from(payload.to_string());
        let topic = Topic::new(&format!("t/{topic}")).unwrap();
        let draft = Draft { topic, payload: Payload { kind: Kind::Json, bytes }, dedupe: None, name: None };
        at_once(self.streams.append(vec![draft], Time(self.now))).unwrap();
    }

    /// The shard reads on.
    pub fn advance(&mut self) {
        let mut events = Vec::new();
        self.tails.take(&mut events);
        events.iter().for_each(|event| self.tails.advance(event));
    }

    pub fn here(&self) -> Vec<Here> {
        self.tails.here(&self.reach)
    }

    /// The partitions, in the order of the reach.
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.tails.partitions(&self.reach)
    }

    /// Where the partitions end, which the shard may not have read yet.
    pub fn heads(&self) -> Vec<Here> {
        self.partitions().iter().map(Here::at_head).collect()
    }
}

/// Topics 0 to 3 are the session's.
pub(super) fn wanted(event: &Event) -> bool {
    matches!(event.topic.as_str(), "t/0" | "t/1" | "t/2" | "t/3")
}

/// All that is told until it is live or must wait, as text: `+3` in turn, `3` aside, `gap 1-3`, what was said.
fn told(here: &[Here], backlog: &mut Backlog) -> String {
    let mut told = Vec::new();
    for _ in 0..1000 {
        told.push(match backlog.pull(here, &mut |event| wanted(event)) {
            Pulled::Event(event, true) => format!("+{}", event.position),
            Pulled::Event(event, false) => event.position.to_string(),
            Pulled::Say(text) => String::from_utf8(text).unwrap(),
            Pulled::Gap(gap) => {
                let from = gap.from.map_or("?".into(), |from| from[0].position.to_string());
                format!("{} {from}-{}", gap.reason.as_str(), gap.to[0].position)
            }
            Pulled::Open => "open".into(),
            Pulled::Pause => continue,
            Pulled::Newest(event) => format!("newest {}", event.position),
            Pulled::Later => "later".into(),
            Pulled::Ahead => "ahead".into(),
            Pulled::Live => "live".into(),
        });
        if matches!(told.last().map(String::as_str), Some("ahead" | "live" | "later")) {
            break;
        }
    }
    told.join(" ")
}

/// One partition with `count` events of topics 0, 1, 0, 1, …, all of them read by the shard.
fn world(max_events: u64, retain: usize, count: u8) -> World {
    let mut world = World::new(1, max_events, retain);
    (0..count).for_each(|n| world.publish(n % 2, 1));
    world.advance();
    world
}

fn mark(world: &World, position: u64) -> Vec<Mark> {
    vec![Mark { position, ..world.here()[0].mark }]
}

fn patterns(names: &[&str]) -> Vec<Pattern> {
    names.iter().map(|name| Pattern::new(name).unwrap()).collect()
}

/// What a live session is told that subscribes to `only` after `brought`, hearing `t/0` already.
fn subscribed(world: &World, brought: Option<u64>, fallback: Replay, only: &[&str], most: u64) -> String {
    let (brought, only, except) = (brought.map(|at| mark(world, at)), patterns(only), patterns(&["t/0"]));
    let mut backlog = Backlog::again(&world.here());
    let asked = Asked { brought: brought.as_deref(), fallback, only: &only, except: &except };
    backlog.walk(&asked, &world.here(), most);
    told(&world.here(), &mut backlog)
}

#[test]
fn a_subscribe_catches_up_on_what_it_did_not_hear() {
    let all = world(100, 0, 8);
    let subscribed_all = |brought, only: &[&str]| subscribed(&all, brought, Replay::None, only, 1000);
    assert_eq!(subscribed_all(Some(3), &["t/1"]), "4 6 8 live");
    assert_eq!(subscribed_all(Some(3), &["**"]), "4 6 8 live");
    assert_eq!(subscribed_all(Some(3), &["t/0"]), "live", "it was heard as it came");
    assert_eq!(subscribed_all(Some(8), &["t/1"]), "live");
    assert_eq!(subscribed_all(Some(9), &["t/1"]), "live", "ahead");
    let kept = world(3, 5, 8);
    assert_eq!(subscribed(&kept, Some(1), Replay::None, &["t/1"], 1000), "expired 1-8 6 8 live");
    assert_eq!(subscribed(&all, Some(1), Replay::None, &["t/1"], 2), "expired 1-8 8 live");
    assert_eq!(subscribed(&kept, None, Replay::Newest(1), &["t/1"], 1000), "epoch ?-8 8 live");
    assert_eq!(subscribed(&all, None, Replay::Newest(2), &["t/1"], 1000), "epoch ?-8 6 8 live");
    assert_eq!(subscribed(&all, None, Replay::None, &["t/1"], 1000), "epoch ?-8 live");
}

#[test]
fn what_is_lost_while_a_subscribe_catches_up_is_told() {
    let mut world = world(100, 0, 100);
    let (brought, only) = (mark(&world, 0), patterns(&["t/1"]));
    let mut backlog = Backlog::again(&world.here());
    let asked = Asked { brought: Some(&brought), fallback: Replay::None, only: &only, except: &[] };
    backlog.walk(&asked, &world.here(), 1000);
    assert!(matches!(
        backlog.pull(&world.here(), &mut |event| wanted(event)),
        Pulled::Event(event, false) if event.position == 2
    ));
    backlog.rest();
    (0..95).for_each(|n| world.publish(n % 2, 1));
    assert_eq!(told(&world.here(), &mut backlog), "expired 2-100 96 98 100 live");
}

#[test]
fn what_is_said_has_its_place() {
    let world = world(100, 0, 4);
    let begin = Begin::After(Some(mark(&world, 2)));
    let mut backlog = Backlog::begin(&begin, Replay::None, &world.partitions(), 1000);
    backlog.announce();
    backlog.greet(b"head".to_vec());
    backlog.say(b"answer".to_vec());
    assert_eq!(told(&world.here(), &mut backlog), "head +3 +4 open answer live");
}

#[test]
fn a_partition_that_is_reached_from_now_on_is_read_from_its_beginning() {
    let mut world = World::new(2, 100, 0);
    (0..6).for_each(|n| world.publish(n % 4, 1));
    world.advance();
    let here = world.here();
    let one = &here[1..];
    let mut backlog = Backlog::again(one);
    backlog.widen(&here);
    assert_eq!(backlog.seen.iter().map(|m| m.position).collect::<Vec<_>>(), [0, here[1].mark.position]);
    let news = here[0].mark.position;
    assert!(news > 0, "or it shows nothing");
    let expected: Vec<String> = (1..=news).map(|position| format!("+{position}")).chain(["live".into()]).collect();
    assert_eq!(told(&world.here(), &mut backlog), expected.join(" "));
}

#[test]
fn a_session_ahead_waits_and_then_hears_what_it_has_not() {
    let mut world = world(100, 0, 2);
    let begin = Begin::After(Some(mark(&world, 3)));
    let mut backlog = Backlog::begin(&begin, Replay::None, &world.partitions(), 1000);
    assert_eq!(told(&world.here(), &mut backlog), "ahead");
    (0..3).for_each(|n| world.publish(n, 1));
    assert_eq!(told(&world.here(), &mut backlog), "ahead", "the shard has not moved");
    world.advance();
    assert_eq!(told(&world.here(), &mut backlog), "+4 +5 live");
}

/// Two partitions are too many here: one, whose store is this test.
fn staged(retain: usize) -> (Staged, Tails) {
    let settings = Settings {
        name: "events".into(),
        topics: vec![Pattern::all()],
        max_events: 1000,
        max_age: None,
        retain,
        clear: None,
        partitions: 1,
        live: false,
    };
    let staged = Staged::new(vec![settings], 1);
    let tails = Tails::new(&staged.streams, 0);
    (staged, tails)
}

impl Staged {
    /// So many events of topics 0, 1, 0, 1, …, which the shard reads as well.
    fn put(&mut self, count: usize, tails: &mut Tails) {
        let part = &mut self.parts[0];
        for n in 0..count {
            part.append(&format!("t/{}", n % 2), Kind::Json, "1", 1);
        }
        self.catch_up(tails);
    }

    fn gap(&mut self, patterns: &str) {
        self.parts[0].append("relay.gap.source", Kind::Gap, patterns, 1);
    }

    fn catch_up(&mut self, tails: &mut Tails) {
        self.parts[0].settle();
        while self.parts[0].follow(1000) {}
        let mut events = Vec::new();
        while tails.are_behind() {
            tails.take(&mut events);
        }
        events.iter().for_each(|event| tails.advance(event));
    }

    fn here(&self, tails: &Tails) -> Vec<Here> {
        tails.here(&[self.parts[0].mirror.place().hash])
    }

    fn mark(&self, position: u64) -> Vec<Mark> {
        vec![Mark { partition: self.parts[0].mirror.place().hash, epoch: self.parts[0].epoch(), position }]
    }

    fn begin(&self, begin: &Begin, tails: &Tails) -> Backlog {
        let reach = tails.partitions(&[self.parts[0].mirror.place().hash]);
        Backlog::begin(begin, Replay::Newest(1), &reach, 1000)
    }
}

#[test]
fn who_comes_with_a_cursor_from_a_lost_tail_hears_what_is_left_and_no_replay() {
    let (mut staged, mut tails) = staged(8);
    staged.put(8, &mut tails);
    let brought = staged.mark(7);
    staged.lose(0, 4);
    staged.put(1, &mut tails);
    let mut backlog = staged.begin(&Begin::After(Some(brought)), &tails);
    assert_eq!(told(&staged.here(&tails), &mut backlog), "epoch 7-4 4 +5 live", "the value 3 has another since");
    // The replay is for those of whom nothing is known.
    let foreign = vec![Mark { epoch: crate::event::Epoch(1), ..staged.mark(7)[0] }];
    let mut backlog = staged.begin(&Begin::After(Some(foreign)), &tails);
    assert_eq!(told(&staged.here(&tails), &mut backlog), "epoch 7-5 4 5 live");
}

#[test]
fn a_subscribe_is_told_what_a_source_lost_of_its_topics() {
    let (mut staged, mut tails) = staged(0);
    staged.put(2, &mut tails);
    staged.gap(r#"["t/1"]"#);
    staged.gap(r#"["t/0"]"#);
    staged.put(2, &mut tails);
    let walked = |only: &[&str]| {
        let (brought, only) = (staged.mark(0), patterns(only));
        let mut backlog = Backlog::again(&staged.here(&tails));
        let asked = Asked { brought: Some(&brought), fallback: Replay::None, only: &only, except: &[] };
        backlog.walk(&asked, &staged.here(&tails), 1000);
        told(&staged.here(&tails), &mut backlog)
    };
    assert_eq!(walked(&["t/1"]), "2 source 2-6 6 live");
    assert_eq!(walked(&["t/*"]), "1 2 source 2-6 source 3-6 5 6 live");
    let mut backlog = Backlog::again(&staged.here(&tails));
    backlog.replay(Replay::Newest(3), &staged.here(&tails), 1000);
    assert_eq!(told(&staged.here(&tails), &mut backlog), "2 5 6 live", "a replay promised nothing");
}

#[test]
fn a_subscribe_with_a_cursor_from_a_lost_tail_is_told() {
    let (mut staged, mut tails) = staged(0);
    staged.put(6, &mut tails);
    let brought = staged.mark(5);
    staged.lose(0, 2);
    staged.put(2, &mut tails);
    let only = patterns(&["t/1"]);
    let mut backlog = Backlog::again(&staged.here(&tails));
    let asked = Asked { brought: Some(&brought), fallback: Replay::Newest(9), only: &only, except: &[] };
    backlog.walk(&asked, &staged.here(&tails), 1000);
    assert_eq!(told(&staged.here(&tails), &mut backlog), "epoch 5-4 4 live");
}

#[test]
fn what_is_searched_goes_on_where_it_had_to_wait() {
    let (mut staged, mut tails) = staged(0);
    staged.put(500, &mut tails);
    (0..500).for_each(|_| staged.parts[0].evict());
    let mut backlog = staged.begin(&Begin::After(Some(staged.mark(500))), &tails);
    backlog.remind(&tails.partitions(&[staged.parts[0].mirror.place().hash]), 300);
    for expected in ["newest 500 newest 499 later", "later", "live"] {
        assert_eq!(told(&staged.here(&tails), &mut backlog), "later");
        assert!(staged.bring(false));
        assert!(!staged.bring(true), "one is asked for at a time, and once");
        assert_eq!(told(&staged.here(&tails), &mut backlog), "later", "it could not be had");
        assert!(staged.bring(true));
        backlog.rest();
        assert_eq!(told(&staged.here(&tails), &mut backlog), expected);
    }
}
