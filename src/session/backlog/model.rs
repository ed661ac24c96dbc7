//! A backlog against a model: what a session is told is held against what was published, whatever happens meanwhile.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::{World, wanted};
use super::*;
use crate::event::Epoch;
use crate::session::terms::Begin;

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
    /// A replay that is found when the backlog comes to it, of these partitions; whether after a gap.
    past: Option<(Replay, Vec<usize>, bool)>,
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
        if self.foreign.is_empty()
            && let Some((replay, of, after_gap)) = self.past.take()
        {
            expect_past(self, world, replay, &of, after_gap);
        }
        for (at, upto) in std::mem::take(&mut self.values) {
            let mut page = Vec::new();
            here[at].partition.retained(0, upto, 1000, &mut page);
            self.aside.extend(page.iter().filter(|e| wanted(e)).map(|e| ((at, e.position), true)));
        }
    }

    /// Nothing that should have been told aside is left, but what is gone by now.
    fn nothing_aside(&mut self, world: &World) {
        let here = world.here();
        assert!(self.values.is_empty() && self.foreign.is_empty() && self.past.is_none());
        for ((at, position), value) in std::mem::take(&mut self.aside) {
            let mut page = Vec::new();
            match value {
                true => here[at].partition.retained(position - 1, position, 1, &mut page),
                false => drop(here[at].partition.read(position - 1, position, 1, &mut page)),
            }
            assert!(page.is_empty(), "{position} was not told aside");
        }
    }

    fn event(&mut self, world: &World, event: &Event, in_turn: bool, seen: &[Mark]) {
        assert!(wanted(event));
        let at = world.reach.binary_search(&event.place.hash).expect("a partition of this world");
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
        let from = gap.from.as_ref().expect("only an unreadable cursor has none");
        self.claims(from);
        let mut hole = 0;
        for (at, (from, to)) in from.iter().zip(&gap.to).enumerate() {
            if !gap.partitions.contains(&to.partition) {
                assert_eq!(from, to);
                continue;
            }
            assert!(from.position < to.position, "nothing is missing");
            assert_eq!(from.position, self.at[at], "it begins too late");
            let partition = &world.here()[at].partition;
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
fn expect_past(checker: &mut Checker, world: &World, replay: Replay, of: &[usize], after_gap: bool) {
    let (here, most) = (world.here(), checker.most);
    let heads = checker.begun.clone();
    let mut newest = Vec::new();
    if let Replay::Newest(n) = replay {
        for &at in of {
            let budget = most / of.len() as u64;
            let from = here[at].partition.first().max((heads[at] + 1).saturating_sub(budget));
            let events = checker.log[at].iter().filter(|e| e.position >= from && e.position <= heads[at]);
            newest.extend(events.filter(|e| wanted(e)).map(|e| (e.time, e.position, at)));
        }
        newest.sort();
        newest.drain(..newest.len().saturating_sub(n as usize));
    }
    for &at in of {
        let first = newest.iter().filter(|(_, _, of)| *of == at).map(|(_, position, _)| position - 1).min();
        if after_gap || replay == Replay::Retained {
            checker.values.push((at, first.unwrap_or(heads[at])));
        }
    }
    checker.aside.extend(newest.into_iter().map(|(_, position, at)| ((at, position), false)));
}

/// The backlog of such a start, and what is to be expected of it.
fn begin(world: &World, checker: &mut Checker, start: &Start, most: u64) -> Backlog {
    let here = world.heads();
    let all: Vec<usize> = (0..here.len()).collect();
    let (begin, fallback) = match start {
        Start::Fresh(replay) => {
            checker.past = Some((*replay, all, false));
            (Begin::Fresh(*replay), Replay::None)
        }
        Start::Garbage(fallback) => {
            checker.foreign = world.reach.clone();
            checker.past = Some((*fallback, all, true));
            (Begin::After(None), *fallback)
        }
        Start::After(brought, fallback) => {
            let (mut marks, mut foreign) = (Vec::new(), Vec::new());
            for (at, Here { mark, .. }) in here.iter().enumerate() {
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
                checker.past = Some((*fallback, foreign, true));
            }
            (Begin::After(Some(marks)), *fallback)
        }
    };
    let mut backlog = Backlog::begin(&begin, fallback, &world.partitions(), most);
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
                assert!(self.checker.at.iter().zip(&here).all(|(at, here)| *at >= here.mark.position));
            }
            Pulled::Live => {
                assert!(self.opened, "live before it was told");
                self.checker.nothing_aside(&self.world);
                self.checker.claims(&self.backlog.seen);
                assert!(self.checker.at.iter().zip(&here).all(|(at, here)| *at == here.mark.position));
                self.live = true;
            }
            Pulled::Ahead => {
                assert!(self.opened, "it waits, and was not told that it stands");
                assert!(self.checker.at.iter().zip(&here).any(|(at, here)| *at > here.mark.position));
            }
            Pulled::Pause => {}
            Pulled::Say(_) | Pulled::Newest(_) | Pulled::Later => {
                panic!("nobody said anything, nothing must be fetched")
            }
        }
        !matches!(pulled, Pulled::Live | Pulled::Ahead)
    }
}

/// Takes note of what was published.
fn read_log(world: &World, checker: &mut Checker) {
    for (at, Here { partition, .. }) in world.here().iter().enumerate() {
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
        past: None,
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
    run.checker.begun = run.world.heads().iter().map(|here| here.mark.position).collect();
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
