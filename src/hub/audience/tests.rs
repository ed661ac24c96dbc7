use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::wire::form::{Format, Transport};

const PATTERNS: [&str; 4] = ["a/*", "a/1", "b", "**"];
const TOPICS: [&str; 4] = ["a/1", "a/2", "b", "c"];

/// Two endpoints, and any of the patterns.
fn key(number: u8) -> Key {
    let patterns = (0..4).filter(|at| number & 1 << at != 0).map(|at| Pattern::new(PATTERNS[at]).unwrap());
    Key {
        endpoint: u32::from(number >> 4 & 1),
        form: Form { transport: Transport::Sse, format: Format::Raw, chunked: true },
        patterns: crate::session::terms::unique(patterns.collect()),
        select: None,
        pace: None,
    }
}

#[derive(Debug, Clone)]
enum Step {
    Join(u8),
    /// The so manieth of those who are there.
    Leave(usize),
    WalkBegins,
    WalkEnds,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..32u8).prop_map(Step::Join),
        4 => any::<usize>().prop_map(Step::Leave),
        1 => Just(Step::WalkBegins),
        1 => Just(Step::WalkEnds),
    ]
}

/// A shard, as far as audiences see it.
#[derive(Default)]
struct World {
    audiences: Audiences,
    /// Who sits where, with which key.
    seats: BTreeMap<u32, (u32, u32, u8)>,
    walks: bool,
    ragged: Vec<u32>,
    /// Classes in use, by audience.
    classes: BTreeSet<u32>,
    next: u32,
    serial: u64,
}

impl World {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Join(number) => {
                let key = self.audiences.shared(key(*number));
                let (audience, seat, new) = self.audiences.join(&key, self.next);
                if new {
                    self.audiences.get_mut(audience).class = self.next;
                    self.classes.insert(self.next);
                }
                self.seats.insert(self.next, (audience, seat, *number));
                self.next += 1;
            }
            Step::Leave(at) if !self.seats.is_empty() => {
                let session = *self.seats.keys().nth(at % self.seats.len()).expect("within");
                let (audience, seat, _) = self.seats.remove(&session).expect("it is there");
                if self.walks {
                    self.ragged.push(audience);
                }
                let (moved, class) = self.audiences.leave(audience, seat, self.walks);
                if let Some(moved) = moved {
                    self.seats.get_mut(&moved).expect("it is there").1 = seat;
                }
                assert!(class.is_none_or(|class| self.classes.remove(&class)));
            }
            Step::Leave(_) => {}
            Step::WalkBegins => self.walks = true,
            Step::WalkEnds => {
                self.walks = false;
                for audience in std::mem::take(&mut self.ragged) {
                    let seats = &mut self.seats;
                    let class = self.audiences.compact(audience, &mut |member, seat| {
                        seats.get_mut(&member).expect("only those who are there have a seat").1 = seat;
                    });
                    assert!(class.is_none_or(|class| self.classes.remove(&class)));
                }
            }
        }
    }

    fn check(&mut self) {
        for (session, (audience, seat, number)) in &self.seats {
            let audience = self.audiences.get(*audience);
            assert_eq!(audience.members[*seat as usize], *session);
            assert_eq!(*audience.key, key(*number));
        }
        for topic in TOPICS {
            self.serial += 1;
            let mut ids = Vec::new();
            self.audiences.matching(topic, self.serial, &mut ids);
            let found = ids.iter().flat_map(|id| self.audiences.get(*id).members.clone()).filter(|m| *m != NONE);
            let mut found: Vec<u32> = found.collect();
            found.sort();
            let hears = |number: u8| key(number).patterns.iter().any(|pattern| pattern.matches(topic));
            let all = self.seats.iter().filter(|(_, (_, _, number))| hears(*number));
            assert_eq!(found, all.map(|(session, _)| *session).collect::<Vec<_>>(), "{topic}: each once");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everybody_hears_what_they_asked_for_wherever_they_sit(steps in proptest::collection::vec(step(), 0..60)) {
        let mut world = World::default();
        for step in &steps {
            world.step(step);
            world.check();
        }
        world.step(&Step::WalkEnds);
        while !world.seats.is_empty() {
            world.step(&Step::Leave(0));
            world.check();
        }
        prop_assert_eq!(world.audiences.counts(), (0, 0));
        prop_assert!(world.classes.is_empty());
    }
}

#[test]
fn adjacent_stretches_become_one() {
    let mut audiences = Audiences::default();
    let (id, _, _) = audiences.join(&Rc::new(key(1)), 7);
    let audience = audiences.get_mut(id);
    for (event, stretch) in [(0, (0, 10)), (1, (10, 30)), (3, (40, 50))] {
        audience.add(event, stretch);
    }
    assert_eq!((&audience.stretches[..], &audience.events[..]), (&[(0, 30), (40, 50)][..], &[0, 1, 3][..]));
    audience.settle();
    assert!(audience.stretches.is_empty() && audience.events.is_empty());
}
