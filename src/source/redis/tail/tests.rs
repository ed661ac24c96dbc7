use std::collections::BTreeMap;

use super::*;

fn id(ms: u64) -> Name {
    Name(ms, 0)
}

/// A stream as Redis keeps it.
#[derive(Debug, Clone, Default)]
struct Stream {
    entries: BTreeMap<Name, ()>,
    last: Option<Name>,
    added: u64,
    deleted: Option<Name>,
}

impl Stream {
    fn add(&mut self, at: u64) {
        self.entries.insert(id(at), ());
        self.last = Some(id(at));
        self.added += 1;
    }

    fn trim(&mut self, to: usize) {
        while self.entries.len() > to {
            self.entries.pop_first();
        }
    }

    fn delete(&mut self, at: Name) {
        if self.entries.remove(&at).is_some() {
            self.deleted = self.deleted.max(Some(at));
        }
    }

    fn info(&self) -> Info {
        Info {
            length: self.entries.len() as u64,
            first: self.entries.first_key_value().map(|(id, ())| *id),
            last: self.last,
            added: Some(self.added),
            deleted: self.deleted,
        }
    }

    /// One look, of at most so many entries.
    fn look(&self, tail: &mut Tail, most: usize) -> Vec<Told> {
        let behind: Vec<Name> = self.entries.keys().copied().filter(|id| *id > tail.at()).collect();
        let ids = &behind[..behind.len().min(most)];
        let (steps, next) = tail.look(&self.info(), ids, ids.len() == behind.len());
        assert!(next.at() >= tail.at());
        *tail = next;
        steps
            .into_iter()
            .map(|step| if let Step::Entry(index) = step { Told::Entry(ids[index].0) } else { Told::Gap })
            .collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Entry(u64),
    Gap,
}
use Told::{Entry, Gap};

fn stream(ids: std::ops::RangeInclusive<u64>) -> Stream {
    let mut stream = Stream::default();
    ids.for_each(|id| stream.add(id));
    stream
}

#[test]
fn what_lies_behind_is_read_in_order() {
    let mut stream = stream(1..=5);
    let mut tail = Tail::after(id(2));
    assert_eq!(stream.look(&mut tail, 2), [Entry(3), Entry(4)]);
    assert_eq!(stream.look(&mut tail, 2), [Entry(5)]);
    assert_eq!(stream.look(&mut tail, 2), []);
    stream.add(6);
    assert_eq!(stream.look(&mut tail, 2), [Entry(6)]);
}

#[test]
fn what_was_trimmed_after_it_was_read_is_no_loss() {
    let mut stream = stream(1..=5);
    stream.trim(2);
    assert_eq!(stream.look(&mut Tail::after(id(4)), 9), [Entry(5)], "4 is there still");
    let mut tail = Tail::after(id(5));
    assert_eq!(stream.look(&mut tail, 9), []);
    // A stream of one entry: whoever follows it knows by the counter.
    for at in 6..9 {
        stream.add(at);
        stream.trim(1);
        assert_eq!(stream.look(&mut tail, 9), [Entry(at)]);
    }
    stream.trim(0);
    assert_eq!(stream.look(&mut tail, 9), []);
    stream.add(10);
    assert_eq!(stream.look(&mut tail, 9), [Entry(10)]);
}

#[test]
fn who_begins_at_the_end_knows_that_nothing_was_there_before() {
    let mut stream = stream(1..=5);
    stream.delete(id(5));
    let mut tail = Tail::end(&stream.info());
    assert_eq!(tail.at(), id(5));
    stream.add(6);
    stream.trim(1);
    assert_eq!(stream.look(&mut tail, 9), [Entry(6)]);
    let (mut new, mut tail) = (Stream::default(), Tail::end(&Info::default()));
    (1..=3).for_each(|at| new.add(at));
    assert_eq!(new.look(&mut tail.clone(), 9), [Entry(1), Entry(2), Entry(3)]);
    new.trim(1);
    assert_eq!(new.look(&mut tail, 9), [Gap, Entry(3)]);
}

#[test]
fn what_was_trimmed_unread_is_a_gap_and_so_is_what_may_have_been() {
    let mut stream = stream(1..=5);
    stream.trim(2);
    assert_eq!(stream.look(&mut Tail::after(id(2)), 9), [Gap, Entry(4), Entry(5)]);
    assert_eq!(stream.look(&mut Tail::after(id(3)), 9), [Gap, Entry(4), Entry(5)], "who was away cannot know");
    let mut tail = Tail::after(id(3));
    assert_eq!(stream.look(&mut tail, 1), [Gap, Entry(4)]);
    assert_eq!(stream.look(&mut tail, 9), [Entry(5)], "told once");
    (6..9).for_each(|at| stream.add(at));
    stream.trim(1);
    assert_eq!(stream.look(&mut tail, 9), [Gap, Entry(8)]);
    stream.add(9);
    stream.trim(0);
    assert_eq!(stream.look(&mut tail, 9), [Gap]);
    assert_eq!(stream.look(&mut tail, 9), []);
}

#[test]
fn what_was_deleted_unread_is_a_gap_in_its_place() {
    let mut stream = stream(1..=6);
    stream.delete(id(1));
    let mut tail = Tail::after(id(2));
    assert_eq!(stream.look(&mut tail, 1), [Entry(3)]);
    stream.delete(id(5));
    assert_eq!(stream.look(&mut tail, 1), [Entry(4)]);
    assert_eq!(stream.look(&mut tail, 9), [Gap, Entry(6)]);
    (7..=8).for_each(|at| stream.add(at));
    stream.delete(id(8));
    assert_eq!(stream.look(&mut tail, 9), [Entry(7), Gap]);
    assert_eq!(stream.look(&mut tail, 9), []);
    stream.delete(id(7));
    stream.add(9);
    assert_eq!(stream.look(&mut tail, 9), [Entry(9)], "it had been read");
}

#[test]
fn a_stream_that_began_anew_or_lost_its_end_is_a_gap_once() {
    let whole = stream(1..=6);
    let mut tail = Tail::after(id(6));
    assert_eq!(whole.look(&mut tail, 9), []);
    let mut anew = stream(9..=9);
    let mut one = tail.clone();
    assert_eq!(anew.look(&mut one, 9), [Gap, Entry(9)]);
    anew.add(10);
    assert_eq!(anew.look(&mut one, 9), [Entry(10)]);
    // A failover lost 5 and 6.
    let mut shorter = stream(1..=4);
    for mut tail in [tail, Tail::after(id(6))] {
        assert_eq!(shorter.look(&mut tail, 9), [Gap]);
        assert_eq!(shorter.look(&mut tail, 9), []);
    }
    shorter.add(7);
    let mut late = Tail::after(id(6));
    assert_eq!(shorter.look(&mut late, 9), [Entry(7)], "nobody who comes later can know of it");
}

#[test]
fn the_place_of_a_gap_lies_between_what_was_read_and_what_comes() {
    let places = |at, info: &Info, ids: &[Name]| {
        let (steps, _) = Tail::after(at).look(info, ids, true);
        steps.into_iter().filter_map(|step| if let Step::Gap(at) = step { Some(at) } else { None }).collect::<Vec<_>>()
    };
    let info = Info { length: 1, first: Some(Name(9, 4)), last: Some(Name(9, 4)), added: Some(7), deleted: None };
    assert_eq!(places(Name(9, 1), &info, &[Name(9, 4)]), [Some(Name(9, 3))]);
    assert_eq!(places(Name(9, 3), &info, &[Name(9, 4)]), [None], "none lies between them");
    let info = Info { first: Some(id(9)), last: Some(id(9)), ..info };
    assert_eq!(places(id(2), &info, &[id(9)]), [Some(Name(8, u32::MAX.into()))]);
    let empty = Info { length: 0, first: None, last: Some(id(9)), added: Some(7), deleted: None };
    assert_eq!(places(id(2), &empty, &[]), [Some(id(9))]);
    assert_eq!(places(id(2), &Info::default(), &[]), []);
}

/// Whatever is done to a stream: each entry is read once, in order, or a gap stands between those around it; and who
/// follows it without a break is told no gap unless something was lost.
#[test]
fn nothing_is_lost_silently() {
    for seed in 0..5_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut stream, mut tail) = (Stream::default(), Tail::after(id(0)));
        let (mut told, mut lost, mut next, mut broke) = (Vec::new(), Vec::new(), 1, false);
        for _ in 0..60 {
            let before = stream.clone();
            match random.u8(..10) {
                0..=4 => {
                    stream.add(next);
                    next += random.u64(1..3);
                }
                5 => stream.trim(random.usize(..4)),
                6 => {
                    let ids: Vec<Name> = stream.entries.keys().copied().collect();
                    random.choice(ids).into_iter().for_each(|id| stream.delete(id));
                }
                7 if seed % 2 == 0 => (tail, broke) = (Tail::after(tail.at()), true), // another instance goes on
                _ => told.extend(stream.look(&mut tail, random.usize(1..4))),
            }
            let gone = before.entries.keys().filter(|id| !stream.entries.contains_key(id) && **id > tail.at());
            lost.extend(gone.map(|id| id.0));
        }
        (0..40).for_each(|_| told.extend(stream.look(&mut tail, 3)));
        check(seed, &told, &lost);
        assert!(broke || !lost.is_empty() || !told.contains(&Gap), "seed {seed}: a gap for nothing: {told:?}");
    }
}

fn check(seed: u64, told: &[Told], lost: &[u64]) {
    let entries: Vec<u64> =
        told.iter().filter_map(|told| if let Entry(id) = told { Some(*id) } else { None }).collect();
    assert!(entries.is_sorted_by(|a, b| a < b), "seed {seed}: {told:?}");
    for id in lost {
        assert!(!entries.contains(id));
        let from = told.iter().rposition(|told| matches!(told, Entry(one) if one < id)).map_or(0, |at| at + 1);
        // The last of those deleted one by one has its gap in its place; those before it are told with it.
        assert!(told[from..].contains(&Gap), "seed {seed}: {id} was lost silently: {told:?}");
    }
}
