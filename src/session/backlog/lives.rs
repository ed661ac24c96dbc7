//! A session against partitions that are mirrors of a store which loses its tail, begins other lives, drops what is old,
//! and has gaps of a source in it; pages come late or fail to come. Whatever happens: each event is told once and in
//! order, or lies in a gap that was told; and after a gap the last values are.
//!
//! All that was ever appended is a tree: a lost tail is a branch that ended. A session is at one node of it in each
//! partition, and only goes on to what grows there, or back to where a branch began, by a gap.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::tests::wanted;
use super::*;
use crate::event::{Epoch, Kind};
use crate::hub::tails::Tails;
use crate::session::terms::Begin;
use crate::stream::{Part, Settings, Staged};
use tree::Tree;

#[derive(Debug, Clone, Copy)]
enum Act {
    Append(usize, u8, u8),
    Gap(usize),
    Follow(usize, usize),
    Lose(usize, u64),
    Turn(usize),
    Settle(usize),
    Trim(usize, u64),
    Evict(usize),
    Bring(bool),
    Advance,
    Pull,
    Rest,
}

fn acts(most: usize) -> impl Strategy<Value = Vec<Act>> {
    let part = 0..2usize;
    let act = prop_oneof![
        12 => (part.clone(), 0..6u8, 0..6u8).prop_map(|(at, topic, payload)| Act::Append(at, topic, payload)),
        1 => part.clone().prop_map(Act::Gap),
        6 => (part.clone(), 1..20usize).prop_map(|(at, most)| Act::Follow(at, most)),
        1 => (part.clone(), 1..8u64).prop_map(|(at, back)| Act::Lose(at, back)),
        1 => part.clone().prop_map(Act::Turn),
        3 => part.clone().prop_map(Act::Settle),
        1 => (part.clone(), 1..12u64).prop_map(|(at, keep)| Act::Trim(at, keep)),
        3 => part.prop_map(Act::Evict),
        3 => any::<bool>().prop_map(Act::Bring),
        5 => Just(Act::Advance),
        10 => Just(Act::Pull),
        1 => Just(Act::Rest),
    ];
    proptest::collection::vec(act, 0..most)
}

/// What a session brings: new, with so much of the past; or a cursor, so many back from the end of the store.
#[derive(Debug, Clone)]
enum Start {
    Fresh(Replay),
    Back([u64; 2]),
}

fn start() -> impl Strategy<Value = Start> {
    let replay = prop_oneof![Just(Replay::None), Just(Replay::Retained), (1..12u64).prop_map(Replay::Newest)];
    prop_oneof![2 => replay.prop_map(Start::Fresh), 4 => [0..25u64, 0..25u64].prop_map(Start::Back)]
}

struct Run {
    staged: Staged,
    trees: Vec<Tree>,
    tails: Tails,
    reach: Vec<u32>,
    now: u64,
    backlog: Option<Backlog>,
    /// Up to where anything was ever dropped; a mirror may not know that a lost tail took it back.
    trimmed: [u64; 2],
    /// Where the session is, by partition.
    at: Vec<usize>,
    /// Last values that must be told: partition, epoch and position.
    values: Vec<(usize, Epoch, u64)>,
    told: HashSet<(usize, Epoch, u64)>,
    /// What the newest events were when it began, if that is what it asked for and nothing came in between.
    newest: Option<Vec<(usize, u64)>>,
    aside: Vec<(usize, u64)>,
    strikes: HashMap<&'static str, usize>,
}

impl Run {
    fn new(retain: usize) -> Run {
        let settings = Settings {
            name: "events".into(),
            topics: vec![Pattern::all()],
            max_events: 100_000,
            max_age: None,
            retain,
            clear: None,
            partitions: 2,
            live: false,
        };
        let staged = Staged::new(vec![settings], 1);
        let reach: Vec<u32> = staged.parts.iter().map(|part| part.mirror.place().hash).collect();
        let trees = staged.parts.iter().map(|part| {
            let mut tree = Tree::default();
            tree.tips.insert(part.mirror.head().0, 0);
            tree
        });
        Run {
            trees: trees.collect(),
            tails: Tails::new(&staged.streams, 0),
            reach,
            now: 1,
            backlog: None,
            trimmed: [1; 2],
            at: vec![0; 2],
            values: Vec::new(),
            told: HashSet::new(),
            newest: None,
            aside: Vec::new(),
            strikes: HashMap::new(),
            staged,
        }
    }

    fn strike(&mut self, what: &'static str) {
        *self.strikes.entry(what).or_default() += 1;
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Append(at, topic, payload) => {
                self.now += u64::from(payload % 2);
                self.append(at, &format!("t/{topic}"), Kind::Json, &payload.to_string());
            }
            Act::Gap(at) => self.append(at, "relay.gap", Kind::Gap, r#"["t/**"]"#),
            Act::Follow(at, most) => self.follow(at, most),
            Act::Lose(at, back) => self.lose(at, back),
            Act::Turn(at) => self.lose(at, 0),
            Act::Settle(at) => self.settle(at),
            Act::Trim(at, keep) => {
                let part = &mut self.staged.parts[at];
                part.trim((part.log.len() as u64).saturating_sub(keep) + 1);
                (self.newest, self.trimmed[at]) = (None, self.trimmed[at].max(part.first));
            }
            Act::Evict(at) => self.staged.parts[at].evict(),
            Act::Bring(well) => drop(self.staged.bring(well)),
            Act::Advance => self.advance(),
            Act::Pull => drop(self.pull()),
            Act::Rest => self.backlog.iter_mut().for_each(Backlog::rest),
        }
    }

    fn append(&mut self, at: usize, topic: &str, kind: Kind, payload: &str) {
        let part = &mut self.staged.parts[at];
        let parent = part.log.last().map_or(0, |last| self.trees[at].nodes[&(last.epoch, last.position)]);
        let event = part.append(topic, kind, payload, self.now);
        self.trees[at].put(&event, parent);
    }

    fn lose(&mut self, at: usize, back: u64) {
        let part = &self.staged.parts[at];
        let to = (part.log.len() as u64).saturating_sub(back);
        self.staged.lose(at, to);
        let part = &mut self.staged.parts[at];
        let base = part.log.last().map_or(0, |last| self.trees[at].nodes[&(last.epoch, last.position)]);
        self.trees[at].tips.insert(part.epoch(), base);
        self.newest = None;
    }

    fn settle(&mut self, at: usize) {
        let last = self.staged.parts[at].log.last();
        self.trees[at].settled = last.map_or(0, |last| self.trees[at].nodes[&(last.epoch, last.position)]);
        if let Some(kept) = self.staged.parts[at].settle() {
            let tree = &mut self.trees[at];
            tree.mirror = tree.at(tree.mirror, kept);
            self.strike("rewound");
        }
    }

    fn follow(&mut self, at: usize, most: usize) {
        self.staged.parts[at].follow(most);
        let part = &self.staged.parts[at];
        let head = part.mirror.head().1;
        let tree = &mut self.trees[at];
        if head > tree.position(tree.mirror) {
            let last = &part.log[head as usize - 1];
            tree.mirror = tree.nodes[&(last.epoch, last.position)];
        }
    }

    /// The shard reads on, as `take_batch` does.
    fn advance(&mut self) {
        let (mut before, mut events) = (Vec::new(), Vec::new());
        self.tails.marks(&mut before);
        let turned = self.tails.take(&mut events);
        if self.backlog.is_none() && !turned.lost.is_empty() {
            self.strike("moved while live");
            self.backlog = Some(Backlog::again(&self.tails.before(&self.reach, &before, &turned.lost)));
            while self.pull() {}
        }
        for event in events {
            self.tails.advance(&event);
            if self.backlog.is_none() {
                self.hear(&event);
            }
        }
    }

    /// Live.
    fn hear(&mut self, event: &Arc<Event>) {
        let mut marks = Vec::new();
        self.tails.marks(&mut marks);
        let at = self.reach.binary_search(&event.place.hash).unwrap();
        match event.lost() {
            Some(_) => {
                self.gone_over(at, self.trees[at].nodes[&(event.epoch, event.position)]);
                self.claims(&marks);
            }
            None if wanted(event) => self.event(event, true, &marks),
            None => {}
        }
    }

    /// Pulls once. Whether to go on.
    fn pull(&mut self) -> bool {
        let Some(mut backlog) = self.backlog.take() else { return false };
        let here = self.tails.here(&self.reach);
        let pulled = backlog.pull(&here, &mut |event| wanted(event));
        let seen = backlog.seen.clone();
        self.backlog = Some(backlog);
        match &pulled {
            Pulled::Event(event, in_turn) => self.event(event, *in_turn, &seen),
            Pulled::Gap(missing) => self.gap(missing),
            Pulled::Open => self.open(),
            Pulled::Live => {
                self.values_were_told();
                self.claims(&seen);
                self.backlog = None;
                let mut marks = Vec::new();
                self.tails.marks(&mut marks);
                self.claims(&marks);
            }
            Pulled::Later => self.strike("later"),
            Pulled::Pause | Pulled::Ahead => {}
            Pulled::Say(_) | Pulled::Newest(_) => panic!("nobody said anything"),
        }
        !matches!(pulled, Pulled::Live | Pulled::Later | Pulled::Ahead)
    }

    fn open(&mut self) {
        self.values_were_told();
        if let Some(mut newest) = self.newest.take() {
            newest.sort_unstable();
            self.aside.sort_unstable();
            assert_eq!(self.aside, newest, "these are the newest");
            self.strike("newest");
        }
    }

    fn event(&mut self, event: &Arc<Event>, in_turn: bool, seen: &[Mark]) {
        assert!(wanted(event) && event.payload.kind != Kind::Gap);
        let at = self.reach.binary_search(&event.place.hash).unwrap();
        if !in_turn {
            self.told.insert((at, event.epoch, event.position));
            self.aside.push((at, event.position));
            return;
        }
        self.values_were_told();
        let node = self.trees[at].nodes[&(event.epoch, event.position)];
        assert_eq!(self.trees[at].of(&seen[at]), node, "its cursor includes it");
        self.gone_over(at, node);
        self.claims(seen);
    }

    /// The session was told of this node, and of all that leads there.
    fn gone_over(&mut self, at: usize, node: usize) {
        let tree = &self.trees[at];
        let path = tree.path(self.at[at], node).expect("again, or from a tail that was lost");
        assert!(!path.is_empty(), "again");
        let missed: Vec<_> = path[1..].iter().filter(|node| tree.is_told(**node)).collect();
        assert!(missed.is_empty(), "{missed:?} were never told");
        self.at[at] = node;
    }

    /// A cursor says that all before it was sent.
    fn claims(&mut self, marks: &[Mark]) {
        for (at, mark) in marks.iter().enumerate() {
            let tree = &self.trees[at];
            let node = tree.of(mark);
            let path = tree.path(self.at[at], node).expect("a cursor goes on");
            assert!(path.iter().all(|node| !tree.is_told(*node)), "{mark:?} claims too much");
            self.at[at] = node;
        }
    }

    fn gap(&mut self, missing: &Missing) {
        if missing.reason == GapReason::Epoch {
            // These values are told anew, as they are in what is left.
            self.values.retain(|(at, ..)| !missing.partitions.contains(&self.reach[*at]));
        }
        self.values_were_told();
        let from = missing.from.as_ref().expect("it brought a cursor");
        self.claims(from);
        for (at, (from, to)) in from.iter().zip(&missing.to).enumerate() {
            if !missing.partitions.contains(&to.partition) {
                continue;
            }
            let (before, node) = (self.at[at], self.trees[at].of(to));
            self.strike(missing.reason.as_str());
            match missing.reason {
                GapReason::Epoch => {
                    let tree = &self.trees[at];
                    let common = tree.common(before, tree.settled);
                    assert_ne!(common, before, "nothing of it was lost");
                    assert_eq!(common, node, "it goes back to what is left");
                    self.at[at] = node;
                }
                GapReason::Expired => {
                    assert!(to.position > from.position && to.position < self.trimmed[at]);
                    assert!(self.trees[at].path(before, node).is_some());
                    self.at[at] = node;
                }
                GapReason::Source => {
                    assert_eq!(self.trees[at].event(node).payload.kind, Kind::Gap);
                    self.gone_over(at, node);
                    continue;
                }
                GapReason::Slow => panic!("nobody is slow"),
            }
            let mut values = Vec::new();
            self.staged.parts[at].mirror.retained(0, to.position, 1_000, &mut values);
            let values = values.iter().filter(|event| wanted(event));
            self.values.extend(values.map(|event| (at, event.epoch, event.position)));
            self.told.clear();
        }
        self.claims(&missing.to);
    }

    /// What was a last value when a gap was told, and still is.
    fn values_were_told(&mut self) {
        for (at, epoch, position) in std::mem::take(&mut self.values) {
            let mut kept = Vec::new();
            self.staged.parts[at].mirror.retained(position - 1, position, 1, &mut kept);
            let is_kept = kept.iter().any(|event| event.epoch == epoch);
            assert!(!is_kept || self.told.contains(&(at, epoch, position)), "{position} was not told as a last value");
        }
    }

    fn begin(&mut self, start: &Start) {
        (self.aside, self.values) = (Vec::new(), Vec::new());
        let partitions = self.tails.partitions(&self.reach);
        let begin = match start {
            Start::Fresh(replay) => {
                for at in 0..2 {
                    self.at[at] = self.trees[at].mirror;
                }
                if let Replay::Newest(n) = replay
                    && self.trimmed == [1; 2]
                    && self.staged.parts.iter().all(Part::is_settled)
                {
                    self.newest = Some(self.newest(*n as usize));
                }
                Begin::Fresh(*replay)
            }
            Start::Back(back) => {
                let marks = (0..2).map(|at| {
                    let part = &self.staged.parts[at];
                    let position = (part.log.len() as u64).saturating_sub(back[at]);
                    Mark { partition: self.reach[at], epoch: part.epoch(), position }
                });
                // Where the cursor is of a life that is not known here, `learn` has made it known before.
                let marks: Vec<Mark> = marks.collect();
                self.at = marks.iter().enumerate().map(|(at, mark)| self.trees[at].of(mark)).collect();
                (0..2).for_each(|at| self.settle(at));
                Begin::After(Some(marks))
            }
        };
        let mut backlog = Backlog::begin(&begin, Replay::None, &partitions, 100_000);
        backlog.announce();
        self.backlog = Some(backlog);
    }

    /// The newest so many of what the mirrors know of.
    fn newest(&self, n: usize) -> Vec<(usize, u64)> {
        let mut newest = Vec::new();
        for (at, tree) in self.trees.iter().enumerate() {
            let path = tree.path(0, tree.mirror).unwrap();
            let events = path.into_iter().map(|node| tree.event(node));
            let events = events.filter(|event| wanted(event) && event.payload.kind != Kind::Gap);
            newest.extend(events.map(|event| (event.time, event.position, at)));
        }
        newest.sort_unstable();
        newest.split_off(newest.len().saturating_sub(n)).into_iter().map(|(_, position, at)| (at, position)).collect()
    }

    /// Everything comes to rest, and the session has everything.
    fn finish(&mut self) {
        for round in 0.. {
            assert!(round < 1_000, "it never ends");
            (0..2).for_each(|at| self.settle(at));
            (0..2).for_each(|at| self.follow(at, usize::MAX));
            self.advance();
            while self.pull() {}
            let all =
                (0..2).all(|at| self.trees[at].mirror == self.trees[at].of(&self.tails.here(&self.reach)[at].mark));
            let stored = self.staged.parts.iter().all(|part| part.mirror.head().1 == part.log.len() as u64);
            if !self.staged.bring(true) && self.backlog.is_none() && all && stored {
                break;
            }
        }
        let mut marks = Vec::new();
        self.tails.marks(&mut marks);
        self.claims(&marks);
    }
}

fn check(retain: usize, before: Vec<Act>, start: &Start, after: Vec<Act>) -> HashMap<&'static str, usize> {
    let mut run = Run::new(retain);
    before.into_iter().for_each(|act| run.act(act));
    run.begin(start);
    after.into_iter().for_each(|act| run.act(act));
    run.finish();
    run.strikes
}

#[test]
fn every_event_comes_once_or_lies_in_a_gap_that_was_told() {
    let config = ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() };
    let strikes = std::cell::RefCell::new(HashMap::<&str, usize>::new());
    let given = (prop_oneof![Just(0usize), Just(8)], acts(120), start(), acts(160));
    let outcome = proptest::test_runner::TestRunner::new(config).run(&given, |(retain, before, start, after)| {
        for (what, count) in check(retain, before, &start, after) {
            *strikes.borrow_mut().entry(what).or_default() += count;
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    for what in ["rewound", "moved while live", "later", "newest", "epoch", "expired", "source"] {
        assert!(strikes.borrow().get(what).is_some_and(|count| *count > 5), "{what}: {:?}", strikes.borrow());
    }
}

#[cfg(test)]
mod tree;
