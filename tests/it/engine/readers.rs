//! Readers, which follow the tail and miss nothing; and what happens when they do not follow.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;

use super::*;

pub fn a_reader_sees_each_event_once(make: Make) {
    let streams = make(vec![stream("a", 100)], AMPLE, 2);
    let a = only(&streams, "a");
    assert_eq!(tail(&a, 0).len(), 0);
    (1..=3).for_each(|n| drop(put(&streams, "a/x", "", n)));
    assert_eq!(positions(&tail(&a, 0)), [1, 2, 3]);
    assert_eq!(tail(&a, 0).len(), 0);
    put(&streams, "a/x", "", 4);
    assert_eq!(positions(&tail(&a, 0)), [4]);
    assert_eq!(positions(&tail(&a, 1)), [1, 2, 3, 4], "each for itself");
}

pub fn a_page_of_the_tail_is_bounded_but_never_empty(make: Make) {
    let streams = make(vec![stream("a", 100)], AMPLE, 1);
    let a = only(&streams, "a");
    assert_eq!(tail(&a, 0).len(), 0);
    for size in [10, 1, 1, 1, 10, 1] {
        put(&streams, "a/x", &"x".repeat(size), 1);
    }
    let mut out = Vec::new();
    for (max, max_bytes, expected) in
        [(9, 5, vec![1]), (2, 5, vec![2, 3]), (9, 5, vec![4]), (9, 11, vec![5, 6]), (9, 0, vec![])]
    {
        let before = out.len();
        a.tail(0, max, max_bytes, &mut out);
        assert_eq!(positions(&out[before..]), expected, "{max} events, {max_bytes} bytes");
    }
    put(&streams, "a/x", "", 1);
    a.tail(0, 0, 100, &mut out);
    assert_eq!((out.len(), positions(&tail(&a, 0))), (6, vec![7]), "asked for none, seen none");
}

pub fn what_is_unread_outlives_its_retention(make: Make) {
    let settings = Settings { max_age: Some(Duration::from_millis(5)), ..stream("a", 2) };
    let streams = make(vec![settings], AMPLE, 2);
    let a = only(&streams, "a");
    (1..=10).for_each(|now| drop(put(&streams, "a/x", "12345", now)));
    assert_eq!(positions(&tail(&a, 0)), (1..=10).collect::<Vec<_>>());
    assert_eq!(a.read(3, u64::MAX, 9, &mut vec![]), Page::Gone { first: 9 }, "gone for sessions");
    streams.sweep(Time(100));
    assert_eq!((a.first(), streams.stats()[0].events), (11, 0));
    assert!(streams.stats()[0].bytes > 0, "held for the second reader");
    assert_eq!(positions(&tail(&a, 1)), (1..=10).collect::<Vec<_>>());
    assert_eq!(streams.stats()[0].bytes, 0);
}

pub fn nothing_is_missed_under_concurrent_appends(make: Make) {
    const EACH: usize = 1_500;
    // Sessions can read one event and memory holds about fifty, of 6,000.
    let streams = make(vec![Settings { retain: 2, ..stream("a", 1) }, stream("b", 1)], 7_000, 2);
    let broken = AtomicBool::new(false);
    let writer = |number: usize| {
        let fuse = Fuse(&broken);
        for n in 0..EACH {
            let batch =
                vec![draft(&format!("a/{number}"), &n.to_string()), draft(&format!("b/{number}"), &n.to_string())];
            // Only what was refused is sent again: the parts of a batch stand alone.
            for one in batch {
                while append(&streams, vec![one.clone()], n as u64).is_err() {
                    fuse.wait();
                }
            }
        }
    };
    let reader = |number: usize| {
        let fuse = Fuse(&broken);
        let mut random = fastrand::Rng::with_seed(number as u64);
        let parts = ["a", "b"].map(|name| only(&streams, name));
        let mut seen = [vec![], vec![]];
        while seen.iter().any(|seen| seen.len() < 2 * EACH) {
            for (part, seen) in parts.iter().zip(&mut seen) {
                part.tail(number, random.usize(1..20), random.usize(1..50), seen);
            }
            fuse.wait();
        }
        for seen in &seen {
            assert_eq!(positions(seen), (1..=2 * EACH as u64).collect::<Vec<_>>());
            let mut next = HashMap::<_, usize>::new();
            for (event, payload) in seen.iter().zip(payloads(seen)) {
                let next = next.entry(event.topic.clone()).or_default();
                assert_eq!(payload, next.to_string(), "a topic's own order");
                *next += 1;
            }
        }
    };
    std::thread::scope(|scope| {
        (0..2).for_each(|number| drop(scope.spawn(move || writer(number))));
        (0..2).for_each(|number| drop(scope.spawn(move || reader(number))));
    });
    let stats = streams.stats();
    assert_eq!(stats.iter().map(|one| one.appended_total).collect::<Vec<_>>(), [2 * EACH as u64, 2 * EACH as u64, 0]);
    assert_eq!((stats[0].events, stats[1].events), (1, 1));
}

/// Half the smallest ring.
const LAG: usize = 4096;

pub fn too_many_unread_events_are_refused_until_read(make: Make) {
    let streams = make(vec![stream("a", 10), stream("b", 10)], AMPLE, 2);
    let a = only(&streams, "a");
    assert_eq!((tail(&a, 0).len(), tail(&a, 1).len()), (0, 0));
    append(&streams, (0..LAG).map(|_| draft("a/x", "")).collect(), 1).unwrap();
    assert_eq!(streams.refusing(), None);
    put(&streams, "a/x", "", 1);
    assert_eq!(streams.refusing(), Some(Refused::Behind));
    assert_eq!(append(&streams, vec![draft("a/x", "")], 1), Err(Refused::Behind));
    assert_eq!(a.head().1, LAG as u64 + 1);
    put(&streams, "b/x", "another partition", 1);

    assert_eq!(tail(&a, 0).len(), LAG + 1);
    assert_eq!(append(&streams, vec![draft("a/x", "")], 1), Err(Refused::Behind), "the slowest counts");
    a.tail(1, 1, 100, &mut vec![]);
    assert_eq!(streams.refusing(), None);
    put(&streams, "a/x", "", 1);
    assert_eq!(positions(&tail(&a, 1)), (2..=LAG as u64 + 2).collect::<Vec<_>>());
}

pub fn too_many_unread_bytes_are_refused_until_read(make: Make) {
    let event = OVERHEAD + 3 + 5;
    let streams = make(vec![stream("a", 100), stream("b", 100)], 10 * event, 1);
    for topic in ["a/x", "b/x", "a/x", "b/x", "a/x", "b/x"] {
        assert_eq!(streams.refusing(), None);
        put(&streams, topic, "12345", 1);
    }
    assert_eq!(streams.refusing(), Some(Refused::Behind));
    assert_eq!(append(&streams, vec![draft("a/x", "")], 1), Err(Refused::Behind));
    assert_eq!(tail(&only(&streams, "b"), 0).len(), 3);
    assert_eq!(streams.refusing(), None);
    put(&streams, "a/x", "12345", 1);
    assert_eq!(tail(&only(&streams, "a"), 0).len(), 4);

    // A batch larger than all memory is taken whole, kept until it has been read, and no longer.
    append(&streams, (0..20).map(|_| draft("a/x", "12345")).collect(), 2).unwrap();
    assert_eq!(append(&streams, vec![draft("b/x", "")], 2), Err(Refused::Behind));
    assert_eq!(tail(&only(&streams, "a"), 0).len(), 20);
    streams.sweep(Time(2));
    assert_eq!(readable(&only(&streams, "a")).len(), 10);
    assert_eq!(streams.stats().iter().map(|one| one.bytes).sum::<u64>(), 10 * event);
}

pub fn a_partition_that_refuses_takes_nothing_of_the_batch(make: Make) {
    let streams = make(vec![stream("a", 10), stream("b", 10)], AMPLE, 1);
    append(&streams, (0..=LAG).map(|_| draft("a/x", "")).collect(), 1).unwrap();
    let batch = || ["b/x", "a/x", "b/y", "a/y"].map(|topic| keyed(topic, "", topic, 100)).to_vec();
    assert_eq!(append(&streams, batch(), 1), Err(Refused::Behind));
    let heads = || ["a", "b"].map(|name| only(&streams, name).head().1);
    assert_eq!(heads(), [LAG as u64 + 1, 2]);
    tail(&only(&streams, "a"), 0);
    let again = append(&streams, batch(), 2).unwrap();
    assert_eq!((again.duplicates, heads()), (2, [LAG as u64 + 3, 2]), "a retry adds only what is missing");
}

pub fn a_large_ring_allows_a_long_lag(make: Make) {
    let streams = make(vec![Settings { partitions: 2, ..stream("a", 40_000) }], AMPLE, 1);
    append(&streams, (0..=10_000).map(|_| draft("a/x", "")).collect(), 1).unwrap();
    assert_eq!(append(&streams, vec![draft("a/x", "")], 1), Err(Refused::Behind));
    streams.apply(vec![Settings { partitions: 2, ..stream("a", 40_004) }], AMPLE);
    assert_eq!(streams.refusing(), None);
    put(&streams, "a/x", "", 1);
    assert_eq!(streams.refusing(), Some(Refused::Behind));
}

pub fn every_waker_hears_of_new_events(make: Make) {
    let streams = Arc::new(OnceLock::<Arc<Streams>>::new());
    let seen = Arc::new(AtomicUsize::new(0));
    let made = make(vec![stream("a", 10), stream("b", 10)], AMPLE, 1);
    for _ in 0..2 {
        let (streams, seen) = (streams.clone(), seen.clone());
        made.on_change(Box::new(move || {
            // What was appended can be read by then, and no lock is held.
            let streams = streams.get().expect("set before the first append");
            assert!(streams.partitions().iter().any(|one| !readable(one).is_empty()));
            seen.fetch_add(1, Ordering::Relaxed);
        }));
    }
    let streams = streams.get_or_init(|| made);
    let woken = |batch| {
        let before = seen.load(Ordering::Relaxed);
        append(streams, batch, 1).unwrap();
        seen.load(Ordering::Relaxed) - before
    };
    assert_eq!(woken(vec![keyed("a/x", "", "k", 9)]), 2);
    assert_eq!(woken(vec![draft("a/x", ""), draft("b/x", ""), draft("a/x", "")]), 2);
    assert_eq!(woken(vec![keyed("a/x", "", "k", 9)]), 0, "a duplicate is no news");
}
