//! A backlog against a model: what a session is told is held against what was published, whatever happens meanwhile.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::event::{Epoch, Kind, Payload, Time};
use crate::hub::tails::Tails;
use crate::select::{Field, Fields};
use crate::stream::{Draft, Settings, Streams};
use crate::topic::Topic;

/// The memory engine never waits.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

/// A stream and a shard that reads it.
struct World {
    streams: Streams,
    tails: Tails,
    reach: Vec<u32>,
    now: u64,
}

impl World {
    fn new(partitions: u32, max_events: u64, retain: usize) -> World {
        let clear = Fields::new(vec![(Field::parse(".", false).unwrap(), serde_json::json!(0))]);
        let settings = Settings {
            name: "events".into(),
            topics: vec![Pattern::all()],
            max_events,
            max_age: None,
            retain,
            clear: Some(clear),
            partitions,
        };
        let streams = Streams::new(vec![settings], 1 << 30, 1);
        let mut reach: Vec<u32> = streams.partitions().iter().map(|p| p.place().hash).collect();
        reach.sort();
        World { tails: Tails::new(&streams, 0), reach, streams, now: 1 }
    }

    /// The payload 0 clears.
    fn publish(&mut self, topic: u8, payload: u8) {
        self.now += u64::from(payload % 2);
        let bytes = Bytes::from(payload.to_string());
        let topic = Topic::new(&format!("t/{topic}")).unwrap();
        let draft = Draft { topic, payload: Payload { kind: Kind::Json, bytes }, dedupe: None };
        at_once(self.streams.append(vec![draft], Time(self.now))).unwrap();
    }

    /// The shard reads on.
    fn advance(&mut self) {
        let mut events = Vec::new();
        self.tails.take(&mut events);
        events.iter().for_each(|event| self.tails.advance(event));
    }

    fn here(&self) -> Vec<Here> {
        self.tails.of(&self.reach).map(|tail| (tail.partition.clone(), tail.mark)).collect()
    }
}

/// Topics 0 to 3 are the session's.
fn wanted(event: &Event) -> bool {
    matches!(event.topic.as_str(), "t/0" | "t/1" | "t/2" | "t/3")
}

#[derive(Debug, Clone)]
enum Step {
    Publish(u8, u8),
    Advance,
    Pull,
    Rest,
}

/// A partition's mark of the cursor that a session brings, against the shard's position.
#[derive(Debug, Clone, Copy)]
enum Brought {
    /// So many back.
    Back(u64),
    /// So many ahead.
    Ahead(u64),
    OtherEpoch,
    Missing,
}

#[derive(Debug, Clone)]
enum Start {
    Fresh(Replay),
    Garbage(Replay),
    After(Vec<Brought>, Replay),
}

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0..6u8, 0..6u8).prop_map(|(topic, payload)| Step::Publish(topic, payload)),
        3 => Just(Step::Advance),
        4 => Just(Step::Pull),
        1 => Just(Step::Rest),
    ];
    proptest::collection::vec(step, 0..most)
}

fn replay() -> impl Strategy<Value = Replay> {
    prop_oneof![Just(Replay::None), Just(Replay::Retained), (1..9u64).prop_map(Replay::Newest)]
}

fn start() -> impl Strategy<Value = Start> {
    let brought = prop_oneof![
        6 => (0..40u64).prop_map(Brought::Back),
        1 => (1..5u64).prop_map(Brought::Ahead),
        1 => Just(Brought::OtherEpoch),
        1 => Just(Brought::Missing),
    ];
    prop_oneof![
        2 => replay().prop_map(Start::Fresh),
        1 => replay().prop_map(Start::Garbage),
        6 => (proptest::collection::vec(brought, 3), replay()).prop_map(|(marks, replay)| Start::After(marks, replay)),
    ]
}

/// Holds what is told against what there is.
struct Checker {
    /// All events, by partition in the order of the reach.
    log: Vec<Vec<Arc<Event>>>,
    /// Up to where all was told.
    at: Vec<u64>,
    /// Positions to be told out of turn, next; whether as last values, or as what is left of the log.
    aside: BTreeMap<(usize, u64), bool>,
    /// Where last values are to be told up to, once they are looked at.
    values: Vec<(usize, u64)>,
    /// Partitions of an epoch gap that is still to be told.
    foreign: Vec<u32>,
    /// A resume may read so much less of a partition than there is.
    share: u64,
    most: u64,
    begun: Vec<u64>,
}

impl Checker {
    fn hears_between(&self, at: usize, after: u64, upto: u64) -> Vec<u64> {
        let events = self.log[at].iter().filter(|e| e.position > after && e.position <= upto && wanted(e));
        events.map(|e| e.position).collect()
    }

    /// A cursor says that all before it was sent.
    fn claims(&mut self, marks: &[Mark]) {
        for (at, mark) in marks.iter().enumerate() {
            assert!(self.hears_between(at, self.at[at], mark.position).is_empty(), "{mark:?} claims too much");
            self.at[at] = self.at[at].max(mark.position);
        }
    }

    /// What is to be told aside is known when the backlog looks.
    fn look(&mut self, world: &World) {
        let here = world.here();
        for (at, upto) in std::mem::take(&mut self.values) {
            let mut page = Vec::new();
            here[at].0.retained(0, upto, 1000, &mut page);
            self.aside.extend(page.iter().filter(|e| wanted(e)).map(|e| ((at, e.position), true)));
        }
    }

    /// Nothing that should have been told aside is left, but what is gone by now.
    fn nothing_aside(&mut self, world: &World) {
        let here = world.here();
        assert!(self.values.is_empty() && self.foreign.is_empty());
        for ((at, position), value) in std::mem::take(&mut self.aside) {
            let mut page = Vec::new();
            match value {
                true => here[at].0.retained(position - 1, position, 1, &mut page),
                false => drop(here[at].0.read(position - 1, position, 1, &mut page)),
            }
            assert!(page.is_empty(), "{position} was not told aside");
        }
    }

    fn event(&mut self, world: &World, event: &Event, in_turn: bool, seen: &[Mark]) {
        assert!(wanted(event));
        let at = world.reach.binary_search(&event.place.hash).unwrap();
        if !in_turn {
            assert!(self.aside.remove(&(at, event.position)).is_some(), "{} of {:?}", event.position, self.aside);
            return;
        }
        self.nothing_aside(world);
        assert!(event.position > self.at[at], "{} again or too late", event.position);
        assert_eq!(seen[at].position, event.position);
        let missed = self.hears_between(at, self.at[at], event.position - 1);
        assert!(missed.is_empty(), "{missed:?} never came");
        self.at[at] = event.position;
        self.claims(seen);
    }

    fn gap(&mut self, world: &World, gap: &Missing) {
        assert!(!gap.partitions.is_empty());
        if gap.reason == GapReason::Epoch {
            assert_eq!(std::mem::take(&mut self.foreign), gap.partitions);
            return;
        }
        self.nothing_aside(world);
        let from = gap.from.as_ref().unwrap();
        self.claims(from);
        let mut hole = 0;
        for (at, (from, to)) in from.iter().zip(&gap.to).enumerate() {
            if !gap.partitions.contains(&to.partition) {
                assert_eq!(from, to);
                continue;
            }
            assert!(from.position < to.position, "nothing is missing");
            assert_eq!(from.position, self.at[at], "it begins too late");
            let (partition, _) = &world.here()[at];
            if to.position >= partition.first() {
                let lag = self.begun[at] - to.position;
                assert!(lag >= self.share && lag <= self.most, "{lag} of {} to read is too narrow", self.share);
            }
            hole += to.position - from.position;
            self.at[at] = to.position;
            self.values.push((at, to.position));
        }
        assert_eq!(gap.hole, Some(hole));
    }
}

/// What a replay means here, slowly.
fn expect_past(checker: &mut Checker, world: &World, replay: Replay, of: &[usize], after_gap: bool, most: u64) {
    let here = world.here();
    let mut newest = Vec::new();
    if let Replay::Newest(n) = replay {
        for &at in of {
            let budget = most / of.len() as u64;
            let from = here[at].0.first().max((here[at].1.position + 1).saturating_sub(budget));
            let events = checker.log[at].iter().filter(|e| e.position >= from && e.position <= here[at].1.position);
            newest.extend(events.filter(|e| wanted(e)).map(|e| (e.time, e.position, at)));
        }
        newest.sort();
        newest.drain(..newest.len().saturating_sub(n as usize));
    }
    for &at in of {
        let first = newest.iter().filter(|(_, _, of)| *of == at).map(|(_, position, _)| position - 1).min();
        if after_gap || replay == Replay::Retained {
            checker.values.push((at, first.unwrap_or(here[at].1.position)));
        }
    }
    checker.aside.extend(newest.into_iter().map(|(_, position, at)| ((at, position), false)));
}

/// The backlog of such a start, and what is to be expected of it.
fn begin(world: &World, checker: &mut Checker, start: &Start, most: u64) -> Backlog {
    let here = world.here();
    let all: Vec<usize> = (0..here.len()).collect();
    let (begin, fallback) = match start {
        Start::Fresh(replay) => {
            expect_past(checker, world, *replay, &all, false, most);
            (Begin::Fresh(*replay), Replay::None)
        }
        Start::Garbage(fallback) => {
            checker.foreign = world.reach.clone();
            expect_past(checker, world, *fallback, &all, true, most);
            (Begin::After(None), *fallback)
        }
        Start::After(brought, fallback) => {
            let (mut marks, mut foreign) = (Vec::new(), Vec::new());
            for (at, (_, mark)) in here.iter().enumerate() {
                let (epoch, position) = match brought[at] {
                    Brought::Back(n) => (mark.epoch, mark.position.saturating_sub(n)),
                    Brought::Ahead(n) => (mark.epoch, mark.position + n),
                    Brought::OtherEpoch => (Epoch(mark.epoch.0 ^ 1), mark.position / 2),
                    Brought::Missing => {
                        foreign.push(at);
                        continue;
                    }
                };
                marks.push(Mark { partition: mark.partition, epoch, position });
                if epoch == mark.epoch { checker.at[at] = position } else { foreign.push(at) }
            }
            checker.foreign = foreign.iter().map(|at| world.reach[*at]).collect();
            if !foreign.is_empty() {
                expect_past(checker, world, *fallback, &foreign, true, most);
            }
            (Begin::After(Some(marks)), *fallback)
        }
    };
    let mut backlog = Backlog::begin(&begin, fallback, &here, most, &mut |event| wanted(event));
    backlog.announce();
    backlog
}

struct Run {
    world: World,
    checker: Checker,
    backlog: Backlog,
    opened: bool,
    live: bool,
}

impl Run {
    fn publish(&mut self, topic: u8, payload: u8) {
        self.world.publish(topic, payload);
        read_log(&self.world, &mut self.checker);
    }

    /// Pulls once. Whether it says to go on.
    fn pull(&mut self) -> bool {
        self.checker.look(&self.world);
        let here = self.world.here();
        let pulled = self.backlog.pull(&here, &mut |event| wanted(event));
        match &pulled {
            Pulled::Event(event, in_turn) => {
                self.checker.event(&self.world, event, *in_turn, &self.backlog.seen);
            }
            Pulled::Gap(gap) => self.checker.gap(&self.world, gap),
            Pulled::Open => {
                assert!(!std::mem::replace(&mut self.opened, true), "it opened twice");
                self.checker.nothing_aside(&self.world);
                self.checker.claims(&self.backlog.seen);
                assert!(self.checker.at.iter().zip(&here).all(|(at, (_, mark))| *at >= mark.position));
            }
            Pulled::Live => {
                assert!(self.opened, "live before it was told");
                self.checker.nothing_aside(&self.world);
                self.checker.claims(&self.backlog.seen);
                assert!(self.checker.at.iter().zip(&here).all(|(at, (_, mark))| *at == mark.position));
                self.live = true;
            }
            Pulled::Ahead => {
                assert!(self.opened, "it waits, and was not told that it stands");
                assert!(self.checker.at.iter().zip(&here).any(|(at, (_, mark))| *at > mark.position));
            }
            Pulled::Pause => {}
            Pulled::Say(_) => panic!("nobody said anything"),
        }
        !matches!(pulled, Pulled::Live | Pulled::Ahead)
    }
}

/// Takes note of what was published.
fn read_log(world: &World, checker: &mut Checker) {
    for (at, (partition, _)) in world.here().iter().enumerate() {
        let known = checker.log[at].len() as u64;
        partition.read(known, u64::MAX, 1, &mut checker.log[at]);
        assert_eq!(checker.log[at].len() as u64, partition.head().1);
    }
}

fn check(world: World, before: Vec<Step>, start: &Start, most: u64, steps: Vec<Step>) {
    let partitions = world.reach.len();
    let checker = Checker {
        log: vec![Vec::new(); partitions],
        at: vec![0; partitions],
        aside: BTreeMap::new(),
        values: Vec::new(),
        foreign: Vec::new(),
        share: most / partitions as u64,
        most,
        begun: Vec::new(),
    };
    let backlog = Backlog::again(&[]);
    let mut run = Run { world, checker, backlog, opened: false, live: false };
    for step in before {
        match step {
            Step::Publish(topic, payload) => run.publish(topic, payload),
            _ => run.world.advance(),
        }
    }
    run.checker.begun = run.world.here().iter().map(|(_, mark)| mark.position).collect();
    run.checker.at = run.checker.begun.clone();
    run.backlog = begin(&run.world, &mut run.checker, start, most);
    for step in steps {
        match step {
            Step::Publish(topic, payload) => run.publish(topic, payload),
            Step::Advance => run.world.advance(),
            Step::Rest => run.backlog.rest(),
            Step::Pull if run.live => {}
            Step::Pull => {
                run.pull();
            }
        }
    }
    if !run.live {
        run.world.advance();
        let mut pulls = 0;
        while run.pull() {
            pulls += 1;
            assert!(pulls < 10_000, "it never ends");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_session_is_told_everything_once(
        (partitions, max_events, retain) in (1..=3u32, 1..60u64, prop_oneof![Just(0usize), 1..8usize]),
        before in steps(80),
        start in start(),
        most in prop_oneof![Just(10_000u64), 1..20u64],
        steps in steps(80),
    ) {
        check(World::new(partitions, max_events, retain), before, &start, most, steps);
    }
}

/// All that is told until it is live or must wait, as text: `+3` in turn, `3` aside, `gap 1-3`, what was said.
fn told(world: &World, backlog: &mut Backlog) -> String {
    let mut told = Vec::new();
    for _ in 0..1000 {
        told.push(match backlog.pull(&world.here(), &mut |event| wanted(event)) {
            Pulled::Event(event, true) => format!("+{}", event.position),
            Pulled::Event(event, false) => event.position.to_string(),
            Pulled::Say(text) => String::from_utf8(text).unwrap(),
            Pulled::Gap(gap) => {
                let from = gap.from.map_or("?".into(), |from| from[0].position.to_string());
                format!("{} {from}-{}", gap.reason.as_str(), gap.to[0].position)
            }
            Pulled::Open => "open".into(),
            Pulled::Pause => continue,
            Pulled::Ahead => "ahead".into(),
            Pulled::Live => "live".into(),
        });
        if matches!(told.last().map(String::as_str), Some("ahead" | "live")) {
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
    vec![Mark { position, ..world.here()[0].1 }]
}

fn patterns(names: &[&str]) -> Vec<Pattern> {
    names.iter().map(|name| Pattern::new(name).unwrap()).collect()
}

/// What a live session is told that subscribes to `only` after `brought`, hearing `t/0` already.
fn subscribed(world: &World, brought: Option<u64>, fallback: Replay, only: &[&str], most: u64) -> String {
    let (brought, only, except) = (brought.map(|at| mark(world, at)), patterns(only), patterns(&["t/0"]));
    let mut backlog = Backlog::again(&world.here());
    let asked = Asked { brought: brought.as_deref(), fallback, only: &only, except: &except };
    backlog.walk(&asked, &world.here(), most, &mut |event| wanted(event));
    told(world, &mut backlog)
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
    backlog.walk(&asked, &world.here(), 1000, &mut |event| wanted(event));
    assert!(matches!(
        backlog.pull(&world.here(), &mut |event| wanted(event)),
        Pulled::Event(event, false) if event.position == 2
    ));
    backlog.rest();
    (0..95).for_each(|n| world.publish(n % 2, 1));
    assert_eq!(told(&world, &mut backlog), "expired 2-100 96 98 100 live");
}

#[test]
fn what_is_said_has_its_place() {
    let world = world(100, 0, 4);
    let mut backlog =
        Backlog::begin(&Begin::After(Some(mark(&world, 2))), Replay::None, &world.here(), 1000, &mut |event| {
            wanted(event)
        });
    backlog.announce();
    backlog.greet(b"head".to_vec());
    backlog.say(b"answer".to_vec());
    assert_eq!(told(&world, &mut backlog), "head +3 +4 open answer live");
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
    assert_eq!(backlog.seen.iter().map(|m| m.position).collect::<Vec<_>>(), [0, here[1].1.position]);
    let news = here[0].1.position;
    assert!(news > 0, "or it shows nothing");
    let expected: Vec<String> = (1..=news).map(|position| format!("+{position}")).chain(["live".into()]).collect();
    assert_eq!(told(&world, &mut backlog), expected.join(" "));
}

#[test]
fn a_session_ahead_waits_and_then_hears_what_it_has_not() {
    let mut world = world(100, 0, 2);
    let mut backlog =
        Backlog::begin(&Begin::After(Some(mark(&world, 3))), Replay::None, &world.here(), 1000, &mut |e| wanted(e));
    assert_eq!(told(&world, &mut backlog), "ahead");
    (0..3).for_each(|n| world.publish(n, 1));
    assert_eq!(told(&world, &mut backlog), "ahead", "the shard has not moved");
    world.advance();
    assert_eq!(told(&world, &mut backlog), "+4 +5 live");
}
