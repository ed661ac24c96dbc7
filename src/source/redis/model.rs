//! Several instances that listen to one server and append to one store, in a world where anything may happen at any
//! moment. Whatever does: each message is appended once and in order, or lies within a gap that was told.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::duty::{Duty, TTL, Turn, Work};
use super::ear::{Ear, News, Said};
use super::name::{Run, of_one_run};
use super::ring::Heard;
use crate::stream::{Lease, Name};

const PARTITIONS: usize = 2;

/// What an application publishes to, and the clock of our markers.
struct Server {
    run: Run,
    clock: u64,
    marker: u64,
    published: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Event(u64),
    Gap,
    GapIfKnown,
    /// The store lost what came last, perhaps, and everybody is told.
    Epoch,
}

/// A partition, as its script keeps it.
#[derive(Default)]
struct Log {
    entries: Vec<Entry>,
    fence: u64,
    name: Option<Name>,
}

/// What a store knew at some time.
#[derive(Default)]
struct Past {
    logs: [(u64, Option<Name>); PARTITIONS],
    lease: (Option<u64>, u64, Option<Instant>, Option<Name>),
}

#[derive(Default)]
struct Store {
    logs: [Log; PARTITIONS],
    holder: Option<u64>,
    fence: u64,
    ends: Option<Instant>,
    done: Option<Name>,
}

/// On its way to the store, or lost on its way.
struct Sent {
    fence: u64,
    entries: Vec<(Name, Entry)>,
    up_to: Name,
}

struct Instance {
    /// No two processes have the same.
    id: u64,
    ear: Ear,
    duty: Duty,
    /// What the server wrote to its connection and it has not read.
    inbox: Option<VecDeque<Said>>,
    sent: Option<Sent>,
    /// Stopped: it does nothing, and time goes by.
    stopped: bool,
}

struct World {
    random: Rng,
    now: Instant,
    /// The store's, in milliseconds.
    clock: u64,
    server: Server,
    store: Store,
    instances: Vec<Instance>,
    /// Where the very first holder began.
    begun: Option<u64>,
    strikes: BTreeMap<&'static str, usize>,
    /// What a replica of the store has.
    past: Past,
}

impl Log {
    fn append(&mut self, fence: u64, name: Name, entry: Entry) {
        self.fence = fence;
        if entry == Entry::GapIfKnown && self.name.is_none() {
            return;
        }
        if self.name.is_none_or(|kept| !of_one_run(kept, name) || kept < name) {
            self.name = Some(name);
            self.entries.push(entry);
        }
    }
}

impl Store {
    /// As the script does; known is what was before.
    fn lease(&mut self, me: u64, wish: super::duty::Wish, now: Instant, clock: u64) -> Lease {
        let known = self.ends.is_some();
        let before = self.fence;
        let free = self.holder.is_none() || self.ends.is_some_and(|ends| ends <= now && self.holder != Some(me));
        if free && wish.may_take {
            (self.holder, self.fence) = (Some(me), (self.fence + 1).max(clock));
        }
        let mut mine = self.holder == Some(me);
        if mine {
            self.ends = Some(now + TTL);
            // Who was the holder until it slept says what was done by then.
            self.done = wish.done.filter(|done| done.0 == before).map(|done| done.1).or(self.done);
            if wish.resign {
                (self.holder, mine) = (None, false);
            }
        }
        let free_for = (!mine && (free || self.holder.is_none())).then_some(Duration::ZERO);
        Lease { mine, fence: self.fence, before, done: self.done, free_for, known }
    }

    fn past(&self) -> Past {
        let logs = std::array::from_fn(|number| (self.logs[number].fence, self.logs[number].name));
        Past { logs, lease: (self.holder, self.fence, self.ends, self.done) }
    }

    /// Fails over to one that knows no more than this.
    fn forget(&mut self, past: &Past) {
        (self.holder, self.fence, self.ends, self.done) = past.lease;
        for (log, kept) in self.logs.iter_mut().zip(past.logs) {
            (log.fence, log.name) = kept;
            log.entries.push(Entry::Epoch);
        }
    }

    /// False: fenced.
    fn append(&mut self, sent: &Sent) -> bool {
        if self.logs.iter().any(|log| sent.fence < log.fence) {
            return false;
        }
        for (name, entry) in &sent.entries {
            match entry {
                Entry::Event(id) => self.logs[*id as usize % PARTITIONS].append(sent.fence, *name, *entry),
                _ => self.logs.iter_mut().for_each(|log| log.append(sent.fence, *name, *entry)),
            }
        }
        true
    }
}

impl Instance {
    fn new(id: u64) -> Instance {
        // Small enough to overrun now and then.
        let ear = Ear::new(100 * 200);
        Instance { id, ear, duty: Duty::new(false), inbox: None, sent: None, stopped: false }
    }

    fn connect(&mut self, run: Run, now: Instant) {
        self.ear.settle(self.duty.done(), now);
        self.ear.connected(run);
        self.inbox = Some(VecDeque::new());
    }

    fn disconnect(&mut self) {
        self.ear.disconnected();
        self.inbox = None;
    }

    fn read(&mut self, most: usize, now: Instant) {
        for _ in 0..most {
            let Some(said) = self.inbox.as_mut().and_then(VecDeque::pop_front) else { return };
            if self.ear.hear(said, now) == News::Astray {
                self.disconnect();
            }
        }
        self.ear.settle(self.duty.done(), now);
    }

    /// Sends what there is to append, if nothing is on its way.
    fn work(&mut self, most: usize, now: Instant) {
        if self.sent.is_some() {
            return;
        }
        let Some(fence) = self.duty.fence() else { return };
        self.sent = match self.duty.work(&self.ear, now, (most, usize::MAX)) {
            Work::Append(these) => {
                let id = |heard: &Heard| u64::from_be_bytes(heard.payload[..].try_into().unwrap());
                let entries: Vec<_> = these.iter().map(|heard| (heard.name, Entry::Event(id(heard)))).collect();
                let up_to = entries.last().unwrap().0;
                Some(Sent { fence, entries, up_to })
            }
            Work::TellGap { at, if_known } => {
                let gap = if if_known { Entry::GapIfKnown } else { Entry::Gap };
                Some(Sent { fence, entries: vec![(at, gap)], up_to: at })
            }
            Work::Ask | Work::Rest => None,
        };
    }
}

impl World {
    fn new(seed: u64, instances: usize) -> World {
        let server = Server { run: Run::new("0"), clock: 1_000_000, marker: 0, published: 0 };
        World {
            random: Rng::with_seed(seed),
            now: Instant::now(),
            clock: 1,
            server,
            store: Store::default(),
            instances: (0..instances as u64).map(Instance::new).collect(),
            begun: None,
            strikes: BTreeMap::new(),
            past: Past::default(),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.clock += time.as_millis() as u64 + 1;
        self.server.clock += time.as_millis() as u64;
    }

    fn say(&mut self, said: &Said) {
        self.instances.iter_mut().filter_map(|one| one.inbox.as_mut()).for_each(|inbox| inbox.push_back(said.clone()));
    }

    fn publish(&mut self) {
        self.server.published += 1;
        let payload = self.server.published.to_be_bytes().to_vec().into();
        self.say(&Said::Message { by: None, channel: "c".into(), payload });
    }

    fn mark(&mut self, floor: u64) {
        self.server.marker = self.server.clock.max(self.server.marker + 1).max(floor + 1);
        self.say(&Said::Marker(self.server.marker));
    }

    /// What an instance does of itself.
    fn turn(&mut self, me: usize) {
        if self.instances[me].stopped {
            return;
        }
        match self.random.u8(..10) {
            0..=3 => {
                let most = self.random.usize(1..20);
                self.instances[me].read(most, self.now);
            }
            4 | 5 => self.ask(me, true),
            6 => {
                let most = self.random.usize(1..8);
                self.instances[me].work(most, self.now);
            }
            7 => self.arrive(me, true),
            8 => self.mark(self.instances[me].ear.marker_floor()),
            _ if self.instances[me].inbox.is_none() => {
                self.instances[me].connect(self.server.run, self.now);
                self.mark(self.instances[me].ear.marker_floor());
            }
            _ => {}
        }
    }

    fn ask(&mut self, me: usize, answered: bool) {
        let Instance { id, ear, duty, .. } = &mut self.instances[me];
        let _ = duty.work(ear, self.now, (1, 1));
        let wish = duty.wish(self.now, ear.is_hearing(), |name| ear.proves(name));
        let lease = self.store.lease(*id, wish, self.now, self.clock);
        if !answered {
            return duty.unanswered();
        }
        if let Turn::Took(start) = duty.answered(wish, &lease, self.now) {
            duty.start(start, ear);
            if !lease.known {
                // All that it has not missed counts from here on.
                self.begun.get_or_insert(self.server.published);
            }
        }
    }

    /// What it sent comes to the store; perhaps it never hears of it.
    fn arrive(&mut self, me: usize, answered: bool) {
        let one = &mut self.instances[me];
        let Some(sent) = one.sent.take() else { return };
        let stored = self.store.append(&sent);
        match sent.entries[0].1 {
            _ if !answered => {}
            _ if !stored => one.duty.fenced(),
            _ => one.duty.appended(sent.up_to),
        }
    }

    /// One fault. (A store that goes back in time while one who held the lease in that time sleeps, and does not know that
    /// another one took it, is more than can be told apart.)
    fn strike(&mut self, me: usize) {
        let all_awake = self.instances.iter().all(|one| !one.stopped);
        let one = &mut self.instances[me];
        let name = match self.random.u8(..14) {
            0 | 1 => {
                one.disconnect();
                "connection"
            }
            2 => {
                // Its connection is gone before it knows, with all that it would still have read.
                one.inbox = one.inbox.take().map(|_| VecDeque::new());
                one.disconnect();
                "unread"
            }
            3 | 4 => {
                one.stopped = !one.stopped;
                "stopped"
            }
            5 => {
                *one = Instance::new(self.random.u64(..));
                "killed"
            }
            6 => {
                self.ask(me, false);
                "lease unanswered"
            }
            7 => {
                self.arrive(me, false);
                "append unanswered"
            }
            8 => {
                one.sent = None;
                "append lost"
            }
            9 => {
                self.pass(TTL);
                "time"
            }
            10 if all_awake => {
                self.fail_over(&Past::default());
                "store emptied"
            }
            11 if all_awake => {
                let past = std::mem::take(&mut self.past);
                self.fail_over(&past);
                "store failed over"
            }
            12 => {
                (0..200).for_each(|_| self.publish());
                "burst"
            }
            _ => {
                let run = self.random.u32(..).to_string();
                self.server.run = Run::new(&run);
                // The new one knows no marker, and its clock is behind.
                (self.server.marker, self.server.clock) =
                    (0, self.server.clock.saturating_sub(self.random.u64(..9000)));
                self.instances.iter_mut().for_each(Instance::disconnect);
                "server"
            }
        };
        *self.strikes.entry(name).or_default() += 1;
    }

    /// Another one is the store, and knows no more than this. What was on its way to the old one is lost.
    fn fail_over(&mut self, past: &Past) {
        self.store.forget(past);
        self.past = self.store.past();
        self.instances.iter_mut().for_each(|one| one.sent = None);
        self.pass(Duration::from_millis(1));
    }

    /// Everybody lives, and has time.
    fn recover(&mut self) {
        for _ in 0..40 {
            self.pass(Duration::from_millis(500));
            for me in 0..self.instances.len() {
                self.instances[me].stopped = false;
                if self.instances[me].inbox.is_none() {
                    self.instances[me].connect(self.server.run, self.now);
                }
                self.mark(self.instances[me].ear.marker_floor());
                self.instances[me].read(usize::MAX, self.now);
                self.ask(me, true);
                self.instances[me].work(8, self.now);
                while self.instances[me].sent.is_some() {
                    self.arrive(me, true);
                    self.instances[me].work(8, self.now);
                }
            }
        }
    }

    fn gaps(&self) -> usize {
        self.store.logs.iter().flat_map(|log| &log.entries).filter(|entry| **entry == Entry::Gap).count()
    }

    /// Once each and in order, or in a gap. What was published before anybody was there is nobody's.
    fn check(&self, seed: u64) {
        for (number, log) in self.store.logs.iter().enumerate() {
            let step = PARTITIONS as u64;
            let from = |id: u64| id + (number as u64 + step - id % step) % step;
            let (mut last, mut gap) = (None, false);
            for entry in &log.entries {
                let id = match *entry {
                    Entry::Event(id) => id,
                    Entry::Gap | Entry::GapIfKnown => {
                        gap = true;
                        continue;
                    }
                    // What was appended and then lost by the store may come again: nobody can know whether it was heard.
                    Entry::Epoch => {
                        (last, gap) = (None, true);
                        continue;
                    }
                };
                let due = last.map_or_else(|| self.begun.map_or(0, |begun| from(begun + 1)), |last: u64| last + step);
                assert!(last.is_none() || id >= due, "seed {seed}: {id} again, or late, in {number}");
                assert!(gap || id <= due, "seed {seed}: {due} is missing in {number} before {id}");
                (last, gap) = (Some(id), false);
            }
            let newest = from(self.server.published + 1) - step;
            assert!(gap || last == Some(newest), "seed {seed}: {newest} is missing at the end of {number}: {last:?}");
        }
    }
}

/// Anything, at any moment.
#[test]
fn each_message_is_appended_once_or_lies_in_a_gap() {
    let mut strikes = BTreeMap::new();
    for seed in 0..2_000 {
        let mut world = World::new(seed, 1 + seed as usize % 4);
        for _ in 0..600 {
            let me = world.random.usize(..world.instances.len());
            match world.random.u8(..40) {
                0 => world.strike(me),
                1..=10 => world.publish(),
                11 => world.past = world.store.past(),
                12..=14 => {
                    let time = world.random.u64(..400);
                    world.pass(Duration::from_millis(time));
                }
                _ => world.turn(me),
            }
        }
        world.recover();
        (0..5).for_each(|_| world.publish());
        world.recover();
        world.check(seed);
        world.strikes.into_iter().for_each(|(name, count)| *strikes.entry(name).or_insert(0) += count);
    }
    assert_eq!(strikes.len(), 12, "{strikes:?}");
}

/// Whatever befalls one of several, the others heard all.
#[test]
fn one_that_falls_costs_nothing() {
    for seed in 0..500 {
        let mut world = World::new(seed, 3);
        world.recover();
        for round in 0..6 {
            let holder = world.store.holder.unwrap();
            let holder = world.instances.iter().position(|one| one.id == holder).unwrap();
            (0..world.random.usize(..20)).for_each(|_| world.publish());
            for _ in 0..30 {
                let me = world.random.usize(..3);
                world.turn(me);
            }
            match round % 3 {
                0 => world.instances[holder] = Instance::new(world.random.u64(..)),
                1 => world.instances[holder].disconnect(),
                _ => {
                    world.instances[holder].stopped = true;
                    for _ in 0..14 {
                        world.pass(Duration::from_millis(500));
                        for me in (0..3).filter(|me| *me != holder) {
                            world.publish();
                            world.mark(world.instances[me].ear.marker_floor());
                            world.instances[me].read(usize::MAX, world.now);
                            world.ask(me, true);
                        }
                    }
                }
            }
            (0..world.random.usize(..20)).for_each(|_| world.publish());
            world.recover();
        }
        world.check(seed);
        assert_eq!(world.gaps(), 0, "seed {seed}");
    }
}
