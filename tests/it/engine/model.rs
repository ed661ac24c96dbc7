//! Random walks, side by side with a model that keeps everything and recounts it after every step.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use relay::select::{Field, Fields};

use super::*;

const READERS: usize = 2;
/// Room for about fifteen events, of which half may be unread.
const MEMORY: u64 = 15 * (OVERHEAD + 10);
const TOPICS: [&str; 7] = ["a/1", "a/2", "a/3", "b/1", "b/2", "b/3", "rest"];

#[derive(Debug, Clone)]
enum Step {
    Append { topic: usize, sizes: Vec<usize>, clears: bool, key: Option<u8>, later: u64 },
    Sweep { later: u64 },
    Tail { partition: usize, reader: usize, max: usize },
    Read { partition: usize, after: u64, pages: u64, max: usize },
    Apply { max_events: u64, retain: usize, memory: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let append = (0..TOPICS.len(), prop::collection::vec(1..20_usize, 1..4), prop::bool::weighted(0.2));
    let append = (append, prop::option::weighted(0.3, 0..4_u8), 1..20_u64);
    let tail = (0..4_usize, 0..READERS, prop_oneof![Just(usize::MAX), 0..4_usize]);
    let read = (0..4_usize, 0..30_u64, 0..8_u64, 0..8_usize);
    prop_oneof![
        8 => append.prop_map(|((topic, sizes, clears), key, later)| Step::Append { topic, sizes, clears, key, later }),
        1 => (0..60_u64).prop_map(|later| Step::Sweep { later }),
        8 => tail.prop_map(|(partition, reader, max)| Step::Tail { partition, reader, max }),
        3 => read.prop_map(|(partition, after, pages, max)| Step::Read { partition, after, pages, max }),
        1 => (1..12_u64, 0..4_usize, 1..20_u64)
            .prop_map(|(max_events, retain, memory)| Step::Apply { max_events, retain, memory: MEMORY / 20 * memory }),
    ]
}

fn settings(max_events: u64, retain: usize) -> Vec<Settings> {
    let clear = Fields::new(vec![(Field::parse(".clear", false).unwrap(), true.into())]);
    let a =
        Settings { retain, clear: Some(clear), max_age: Some(Duration::from_millis(60)), ..stream("a", max_events) };
    let b = Settings { partitions: 2, max_age: Some(Duration::from_millis(150)), ..stream("b", max_events * 2) };
    vec![a, b]
}

/// What the model knows of an event.
#[derive(Debug, Clone)]
struct Shadow {
    topic: &'static str,
    time: u64,
    cost: u64,
}

/// A partition that forgets nothing: position `n` is `all[n - 1]`.
#[derive(Debug, Clone)]
struct Part {
    max_events: u64,
    max_age: Option<u64>,
    retain: usize,
    all: Vec<Shadow>,
    first: u64,
    values: BTreeMap<&'static str, u64>,
    keys: HashMap<u8, (u64, u64)>,
    seen: [u64; READERS],
}

impl Part {
    fn new(max_events: u64, max_age: Option<u64>, retain: usize) -> Part {
        let (all, values, keys) = Default::default();
        Part { max_events, max_age, retain, all, first: 1, values, keys, seen: [0; READERS] }
    }
    fn head(&self) -> u64 {
        self.all.len() as u64
    }
    fn slowest(&self) -> u64 {
        *self.seen.iter().min().unwrap()
    }
    fn at(&self, position: u64) -> &Shadow {
        &self.all[position as usize - 1]
    }
    fn held(&self) -> impl Iterator<Item = u64> {
        let held = |p: &u64| *p >= self.first || *p > self.slowest() || self.values.values().any(|value| value == p);
        (1..=self.head()).filter(held)
    }
    fn bytes(&self) -> u64 {
        self.held().map(|position| self.at(position).cost).sum()
    }
    fn unread(&self) -> u64 {
        (self.slowest() + 1..=self.head()).map(|position| self.at(position).cost).sum()
    }
    fn values(&self) -> Vec<u64> {
        let mut values: Vec<_> = self.values.values().copied().collect();
        values.sort_unstable();
        values
    }
    fn forget_value(&mut self, position: u64) {
        self.values.retain(|_, value| *value != position);
    }
    fn retire(&mut self, now: u64) {
        self.first = self.first.max((self.head() + 1).saturating_sub(self.max_events));
        while self.first <= self.head() && self.max_age.is_some_and(|age| self.at(self.first).time + age < now) {
            self.first += 1;
        }
        while self.values.len() > self.retain {
            self.forget_value(self.values()[0]);
        }
    }
}

struct Model {
    parts: Vec<Part>,
    memory: u64,
    now: u64,
}

impl Model {
    fn refusing(&self) -> bool {
        self.parts.iter().map(Part::unread).sum::<u64>() > self.memory / 2
    }
    fn retire(&mut self) {
        self.parts.iter_mut().for_each(|part| part.retire(self.now));
    }
    fn make_room(&mut self) {
        self.retire();
        while self.parts.iter().map(Part::bytes).sum::<u64>() > self.memory {
            let oldest = self.parts.iter_mut().filter_map(|part| {
                let position = part.held().next().filter(|position| *position <= part.slowest())?;
                Some((part.at(position).time, position, part))
            });
            let Some((_, position, part)) = oldest.min_by_key(|(time, ..)| *time) else { return };
            part.first = part.first.max(position + 1);
            part.forget_value(position);
        }
    }
    /// What the engine must answer: the positions, how many of them duplicates.
    fn append(&mut self, part: usize, drafts: &[(Shadow, bool, Option<u8>)]) -> Option<(Vec<u64>, usize)> {
        self.retire();
        if self.refusing() {
            return None;
        }
        let (part, now, mut duplicates) = (&mut self.parts[part], self.now, 0);
        let mut positions = Vec::new();
        for (shadow, clears, key) in drafts {
            if let Some((position, _)) = key.and_then(|key| part.keys.get(&key)).filter(|(_, until)| now < *until) {
                duplicates += 1;
                positions.push(*position);
                continue;
            }
            part.all.push(shadow.clone());
            positions.push(part.head());
            part.values.insert(shadow.topic, part.head());
            if *clears {
                part.values.remove(shadow.topic);
            }
            if let Some(key) = key {
                part.keys.insert(*key, (part.head(), now + WINDOW));
            }
            part.retire(now);
        }
        if duplicates < drafts.len() {
            self.make_room();
        }
        Some((positions, duplicates))
    }
}

const WINDOW: u64 = 40;

/// Both, and which topic lies where.
struct Walk {
    streams: Arc<Streams>,
    model: Model,
    places: HashMap<&'static str, usize>,
}

impl Walk {
    fn new(make: Make) -> Walk {
        let streams = make(settings(4, 2), MEMORY, READERS);
        let model = Model {
            parts: vec![
                Part::new(4, Some(60), 2),
                Part::new(4, Some(150), 0),
                Part::new(4, Some(150), 0),
                Part::new(100_000, Some(24 * 60 * 60 * 1_000), 0),
            ],
            memory: MEMORY,
            now: 1_000,
        };
        // A topic's place is the same in every process, so another one can be asked.
        let scout = make(settings(4, 2), AMPLE, 0);
        let find = |topic: &&'static str| {
            put(&scout, topic, "", 1);
            let holds = |part: &Arc<Partition>| readable(part).iter().any(|event| event.topic.as_str() == *topic);
            (*topic, scout.partitions().iter().position(holds).expect("it was accepted"))
        };
        Walk { places: TOPICS.iter().map(find).collect(), streams, model }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Append { topic, sizes, clears, key, later } => {
                self.model.now += later;
                self.append(TOPICS[*topic], sizes, *clears, *key);
            }
            Step::Sweep { later } => {
                self.model.now += later;
                self.streams.sweep(Time(self.model.now));
                self.model.make_room();
            }
            Step::Tail { partition, reader, max } => self.tail(*partition, *reader, *max),
            Step::Read { partition, after, pages, max } => self.read(*partition, *after, after + pages, *max),
            Step::Apply { max_events, retain, memory } => {
                self.streams.apply(settings(*max_events, *retain), *memory);
                self.model.parts[0].retain = *retain;
                self.model.parts[..3].iter_mut().for_each(|part| part.max_events = *max_events);
                self.model.memory = *memory;
                self.model.make_room();
            }
        }
        self.compare();
    }

    fn append(&mut self, topic: &'static str, sizes: &[usize], clears: bool, key: Option<u8>) {
        let (mut drafts, mut shadows) = (Vec::new(), Vec::new());
        for size in sizes {
            let mut draft = json(topic, &format!(r#"{{"clear":{clears},"x":{}}}"#, "1".repeat(*size)));
            draft.dedupe = key.map(|key| Dedupe { key: key.to_string(), window: Duration::from_millis(WINDOW) });
            let cost = OVERHEAD + (topic.len() + draft.payload.bytes.len()) as u64;
            shadows.push((Shadow { topic, time: self.model.now, cost }, clears && topic.starts_with("a/"), key));
            drafts.push(draft);
        }
        let expected = self.model.append(self.places[topic], &shadows);
        let answer = append(&self.streams, drafts, self.model.now).ok();
        let position = |id: &String| id.rsplit('-').next().and_then(|text| text.parse().ok()).expect("ends the id");
        assert_eq!(answer.map(|all| (all.ids.iter().map(position).collect(), all.duplicates)), expected);
    }

    fn tail(&mut self, partition: usize, reader: usize, max: usize) {
        let part = &mut self.model.parts[partition];
        let (after, until) = (part.seen[reader], part.head());
        let mut events = Vec::new();
        self.streams.partitions()[partition].tail(reader, max, usize::MAX, &mut events);
        assert_eq!(positions(&events), (after + 1..=until).take(max).collect::<Vec<_>>());
        for event in &events {
            let shadow = part.at(event.position);
            assert_eq!((event.topic.as_str(), event.time.0), (shadow.topic, shadow.time));
        }
        part.seen[reader] += events.len() as u64;
        self.model.retire();
    }

    fn read(&self, partition: usize, after: u64, until: u64, max: usize) {
        let part = &self.model.parts[partition];
        let (page, expected) = if after < until.min(part.head()) && after + 1 < part.first {
            (Page::Gone { first: part.first }, vec![])
        } else {
            (Page::Here, (after + 1..=until.min(part.head())).take(max).collect())
        };
        let mut events = Vec::new();
        assert_eq!(self.streams.partitions()[partition].read(after, until, max, &mut events), page);
        assert_eq!(positions(&events), expected);
    }

    fn compare(&self) {
        for (engine, part) in self.streams.partitions().iter().zip(&self.model.parts) {
            assert_eq!((engine.first(), engine.head().1), (part.first, part.head()));
            assert_eq!(positions(&readable(engine)), (part.first..=part.head()).collect::<Vec<_>>());
            assert_eq!(positions(&retained(engine)), part.values());
        }
        let stats = self.streams.stats();
        assert_eq!(stats.iter().map(|one| one.partitions).collect::<Vec<_>>(), [1, 2, 1]);
        let bytes: u64 = self.model.parts.iter().map(Part::bytes).sum();
        assert_eq!(stats.iter().map(|one| one.bytes).sum::<u64>(), bytes);
        assert_eq!(self.streams.refusing().is_some(), self.model.refusing());
    }
}

pub fn random_walks_agree_with_a_naive_model(make: Make) {
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() });
    let walks = prop::collection::vec(step(), 1..80);
    let outcome = runner.run(&walks, |steps| {
        let mut walk = Walk::new(make);
        steps.iter().for_each(|step| walk.take(step));
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}
