//! What is kept, and what goes: by count, by age, by memory.

use super::*;

pub fn a_count_keeps_the_newest(make: Make) {
    let streams = make(vec![stream("a", 3)], AMPLE, 0);
    (1..=10).for_each(|n| drop(put(&streams, "a/x", "", n)));
    let a = only(&streams, "a");
    assert_eq!((a.first(), positions(&readable(&a))), (8, vec![8, 9, 10]));
    let mut events = Vec::new();
    for (after, expected) in
        [(0, Page::Gone { first: 8 }), (6, Page::Gone { first: 8 }), (7, Page::Here), (9, Page::Here)]
    {
        assert_eq!(a.read(after, u64::MAX, 0, &mut events), expected, "after {after}");
    }
    assert_eq!(events.len(), 0);
}

pub fn a_count_is_shared_by_partitions(make: Make) {
    for (max_events, each) in [(40, 10), (43, 10), (3, 1), (0, 1)] {
        let streams = make(vec![Settings { partitions: 4, ..stream("a", max_events) }], AMPLE, 0);
        append(&streams, (0..400).map(|n| draft(&format!("a/{n}"), "")).collect(), 1).unwrap();
        for number in 0..4 {
            assert_eq!(readable(&partition(&streams, "a", number)).len(), each, "of {max_events}");
        }
    }
}

pub fn an_age_ends_at_any_sign_of_time(make: Make) {
    let aged = |name| Settings { max_age: Some(Duration::from_millis(100)), ..stream(name, 100) };
    let fresh = || {
        let streams = make(vec![aged("a"), stream("b", 100)], AMPLE, 0);
        put(&streams, "a/x", "1", 1_000);
        put(&streams, "b/x", "1", 1_000);
        put(&streams, "a/x", "2", 1_050);
        assert_eq!(only(&streams, "a").first(), 1);
        streams
    };
    type Sign = fn(&Streams, u64);
    let signs: [Sign; 3] = [
        |streams, now| streams.sweep(Time(now)),
        |streams, now| drop(put(streams, "a/x", "3", now)),
        |streams, now| drop(put(streams, "b/x", "elsewhere", now)),
    ];
    for (number, sign) in signs.into_iter().enumerate() {
        for (now, first) in [(1_100, 1), (1_101, 2), (1_150, 2)] {
            let streams = fresh();
            sign(&streams, now);
            assert_eq!(only(&streams, "a").first(), first, "sign {number} at {now}");
            assert_eq!(readable(&only(&streams, "a"))[0].position, first);
        }
    }
    let streams = fresh();
    streams.sweep(Time(2_000));
    let a = only(&streams, "a");
    assert_eq!((a.first(), a.head().1, readable(&a).len()), (3, 2, 0));
    assert_eq!(a.read(0, u64::MAX, 9, &mut vec![]), Page::Gone { first: 3 });
    assert_eq!(readable(&only(&streams, "b")).len(), 1, "no age, no end");
    assert_eq!(streams.stats()[0].bytes, 0);
}

/// The cost of `n` events of these tests: topics of three bytes, payloads of five.
const fn room(n: u64) -> u64 {
    n * (OVERHEAD + 3 + 5)
}

pub fn memory_drops_the_oldest_of_all_partitions(make: Make) {
    let streams = make(vec![stream("a", 100), stream("b", 100), stream("c", 100)], room(6), 0);
    let mut now = 0;
    let mut fill = |name: &str, n| {
        for _ in 0..n {
            now += 1;
            put(&streams, &format!("{name}/x"), "12345", now);
        }
    };
    let kept = || ["a", "b", "c"].map(|name| readable(&only(&streams, name)).len());
    fill("a", 2);
    fill("b", 3);
    fill("a", 1);
    assert_eq!(kept(), [3, 3, 0], "full to the byte");
    fill("c", 3);
    assert_eq!(kept(), [1, 2, 3]);
    fill("c", 3);
    assert_eq!(kept(), [0, 0, 6]);
    let a = only(&streams, "a");
    assert_eq!(a.read(2, u64::MAX, 9, &mut vec![]), Page::Gone { first: 4 });
    let stats = streams.stats();
    assert_eq!(stats.iter().map(|one| one.evicted_by_memory_total).collect::<Vec<_>>(), [3, 3, 0, 0]);
    assert_eq!(stats.iter().map(|one| one.bytes).sum::<u64>(), room(6));
}

pub fn memory_counts_an_event_once(make: Make) {
    let streams = make(vec![Settings { retain: 10, ..stream("a", 2) }], room(4), 0);
    let bytes = || streams.stats()[0].bytes;
    for (topic, held) in [("a/x", 1), ("a/y", 2), ("a/z", 3), ("a/z", 4), ("a/z", 4)] {
        put(&streams, topic, "12345", 1);
        assert_eq!(bytes(), room(held), "after {topic}");
    }
    let a = only(&streams, "a");
    assert_eq!((positions(&readable(&a)), positions(&retained(&a))), (vec![4, 5], vec![1, 2, 5]));
    put(&streams, "a/z", "12345", 2);
    put(&streams, "a/w", "12345", 3);
    assert_eq!((positions(&readable(&a)), positions(&retained(&a))), (vec![6, 7], vec![1, 2, 6, 7]));
    // One more is one too many: the oldest goes, which is the longest unchanged value.
    put(&streams, "a/v", "12345", 4);
    assert_eq!((positions(&readable(&a)), positions(&retained(&a))), (vec![7, 8], vec![2, 6, 7, 8]));
    // What is dropped while it is in the log and a last value leaves both.
    streams.apply(vec![Settings { retain: 10, ..stream("a", 2) }], room(1));
    assert_eq!((positions(&readable(&a)), positions(&retained(&a))), (vec![8], vec![8]));
    assert_eq!(bytes(), room(1));
}

pub fn memory_drops_what_is_past_its_retention_first(make: Make) {
    let aged = Settings { max_age: Some(Duration::from_millis(10)), ..stream("a", 100) };
    let streams = make(vec![aged, Settings { retain: 1, ..stream("b", 100) }], room(4), 0);
    put(&streams, "b/x", "12345", 1);
    (5..8).for_each(|now| drop(put(&streams, "a/x", "12345", now)));
    put(&streams, "b/y", "12345", 100);
    assert_eq!(positions(&readable(&only(&streams, "b"))), [1, 2], "older, but not too old");

    let streams = make(vec![stream("a", 2), stream("b", 100)], room(3), 0);
    put(&streams, "b/x", "12345", 1);
    (0..8).for_each(|_| drop(put(&streams, "a/x", "12345", 5)));
    assert_eq!(positions(&readable(&only(&streams, "b"))), [1], "there is room for two of the others");
    assert_eq!(streams.stats().iter().map(|one| one.evicted_by_memory_total).sum::<u64>(), 0);
}

pub fn a_payload_does_not_hold_the_buffer_it_came_in(make: Make) {
    let streams = make(vec![stream("a", 10)], AMPLE, 0);
    let buffer = bytes::Bytes::from(vec![b'x'; 1 << 20]);
    let mut small = draft("a/x", "");
    small.payload.bytes = buffer.slice(10..20);
    append(&streams, vec![small], 1).unwrap();
    assert!(buffer.is_unique(), "what is kept must be what is counted");
    assert_eq!(payloads(&readable(&only(&streams, "a"))), ["xxxxxxxxxx"]);
}
