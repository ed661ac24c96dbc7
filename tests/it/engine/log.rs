//! Order, ids, reading, cursors, dedupe.

use relay::cursor::Mark;
use relay::event::Epoch;
use relay::stream::Resolved;

use super::*;

pub fn positions_are_contiguous_and_times_never_go_back(make: Make) {
    let streams = make(vec![stream("a", 100)], AMPLE, 0);
    for (number, now) in [50, 60, 40, 60, 70].into_iter().enumerate() {
        let batch = vec![draft("a/x", &format!("{number}.0")), draft("a/y", &format!("{number}.1"))];
        append(&streams, batch, now).unwrap();
    }
    let events = readable(&only(&streams, "a"));
    assert_eq!(positions(&events), (1..=10).collect::<Vec<_>>());
    let times: Vec<_> = events.iter().step_by(2).map(|event| event.time.0).collect();
    assert_eq!(times, [50, 60, 60, 60, 70]);
    let expected: Vec<_> = (0..5).flat_map(|n| [format!("{n}.0"), format!("{n}.1")]).collect();
    assert_eq!(payloads(&events), expected);
}

pub fn an_id_is_the_same_everywhere(make: Make) {
    let streams = make(vec![Settings { retain: 10, ..stream("a", 100) }], AMPLE, 1);
    let ids = append(&streams, vec![draft("a/x", "1"), draft("a/y", "2")], 5).unwrap().ids;
    let a = only(&streams, "a");
    assert_eq!(ids, [format!("a-{}-1", a.head().0), format!("a-{}-2", a.head().0)]);
    let mut back = Vec::new();
    a.read_back(u64::MAX, 10, &mut back);
    back.reverse();
    for events in [readable(&a), retained(&a), back, tail(&a, 0)] {
        assert_eq!(events.iter().map(|event| event.id()).collect::<Vec<_>>(), ids);
        assert!(events.iter().all(|event| event.place == *a.place()));
    }
}

pub fn the_first_match_wins_and_events_has_the_rest(make: Make) {
    let all = Settings { topics: vec![Pattern::new("a/b/**").unwrap()], ..stream("late", 10) };
    let streams = make(vec![stream("a", 10), all], AMPLE, 0);
    let names: Vec<_> = streams.partitions().iter().map(|one| one.place().stream.to_string()).collect();
    assert_eq!(names, ["a", "late", "events"]);
    for topic in ["a/b/c", "a", "other"] {
        put(&streams, topic, topic, 1);
    }
    assert_eq!(payloads(&readable(&only(&streams, "a"))), ["a/b/c", "a"]);
    assert_eq!(payloads(&readable(&only(&streams, "late"))), [""; 0]);
    assert_eq!(payloads(&readable(&only(&streams, "events"))), ["other"]);
    let hash = |name| only(&streams, name).place().hash;
    assert_eq!(streams.reach(&[Pattern::new("a/b").unwrap()]), [hash("a")]);
}

pub fn a_batch_over_partitions_answers_in_its_own_order(make: Make) {
    let streams = make(vec![stream("a", 10), stream("b", 10)], AMPLE, 0);
    let batch = ["a/1", "b/1", "a/2", "c", "b/2", "a/3"];
    let appended = append(&streams, batch.iter().map(|topic| draft(topic, topic)).collect(), 1).unwrap();
    let answered: Vec<_> = appended.ids.iter().map(|id| (id.split('-').next(), id.rsplit('-').next())).collect();
    let expected = [("a", "1"), ("b", "1"), ("a", "2"), ("events", "1"), ("b", "2"), ("a", "3")];
    assert_eq!(answered, expected.map(|(stream, position)| (Some(stream), Some(position))));
    assert_eq!(append(&streams, vec![], 1), Ok(Appended::default()));
}

pub fn partitions_spread_and_a_topic_stays_in_its_place(make: Make) {
    let settings = || vec![Settings { partitions: 4, ..stream("a", 100_000) }];
    let (streams, other) = (make(settings(), AMPLE, 0), make(settings(), AMPLE, 0));
    for round in 0..3 {
        for topic in 0..1_000 {
            for streams in [&streams, &other] {
                put(streams, &format!("a/{topic}"), &format!("{topic} {round}"), 1);
            }
        }
    }
    let parts: Vec<_> = (0..4).map(|number| readable(&partition(&streams, "a", number))).collect();
    assert_eq!(distinct(streams.partitions().iter().map(|one| one.head().0)), 5, "epochs, with that of events");
    assert_eq!(distinct(parts.iter().flatten().map(|event| event.id())), 3_000);
    for (number, events) in parts.iter().enumerate() {
        assert!((450..1_050).contains(&events.len()), "{} of 3,000 in one of four", events.len());
        let same = readable(&partition(&other, "a", number as u32));
        assert_eq!(payloads(events), payloads(&same), "the same place in every process");
        let topics = distinct(events.iter().map(|event| event.topic.clone()));
        assert_eq!(topics * 3, events.len(), "a topic lies in one partition");
        for round in 0..3 {
            let these = &payloads(events)[round * topics..(round + 1) * topics];
            assert!(these.iter().all(|payload| payload.ends_with(&format!(" {round}"))), "in order");
        }
    }
}

pub fn pages_join_without_a_seam(make: Make) {
    let streams = make(vec![stream("a", 100)], AMPLE, 0);
    (1..=20).for_each(|n| drop(put(&streams, "a/x", &n.to_string(), n)));
    let a = only(&streams, "a");
    let (mut events, mut after) = (Vec::new(), 2);
    while after < 17 {
        let before = events.len();
        assert_eq!(a.read(after, 17, 4, &mut events), Page::Here);
        assert!((1..=4).contains(&(events.len() - before)));
        after = events[events.len() - 1].position;
    }
    assert_eq!(positions(&events), (3..=17).collect::<Vec<_>>());
}

pub fn nothing_after_the_head_is_no_gap(make: Make) {
    let streams = make(vec![stream("a", 2)], AMPLE, 0);
    let a = only(&streams, "a");
    assert_eq!((a.head().1, a.first()), (0, 1));
    let mut events = Vec::new();
    assert_eq!(a.read(0, u64::MAX, 10, &mut events), Page::Here);
    (1..=5).for_each(|n| drop(put(&streams, "a/x", "", n)));
    for (after, until) in [(5, u64::MAX), (900, u64::MAX), (u64::MAX, u64::MAX), (1, 1), (1, 0)] {
        assert_eq!(a.read(after, until, 10, &mut events), Page::Here, "{after}..={until}");
    }
    assert_eq!(events.len(), 0);
}

pub fn reading_back_is_newest_first(make: Make) {
    let streams = make(vec![stream("a", 5)], AMPLE, 0);
    (1..=8).for_each(|n| drop(put(&streams, "a/x", "", n)));
    for (until, max, expected) in [
        (u64::MAX, 2, vec![8, 7]),
        (6, 2, vec![6, 5]),
        (6, 10, vec![6, 5, 4]),
        (4, 10, vec![4]),
        (3, 10, vec![]),
        (0, 10, vec![]),
        (8, 0, vec![]),
    ] {
        let mut events = Vec::new();
        only(&streams, "a").read_back(until, max, &mut events);
        assert_eq!(positions(&events), expected, "{max} up to {until}");
    }
}

pub fn marks_mean_positions_of_this_epoch_only(make: Make) {
    let streams = make(vec![stream("a", 2)], AMPLE, 0);
    (1..=5).for_each(|n| drop(put(&streams, "a/x", "", n)));
    let a = only(&streams, "a");
    let (epoch, head) = a.head();
    assert_eq!(head, 5);
    let mark = |epoch, position| Mark { partition: a.place().hash, epoch, position };
    for position in [0, 1, 5, 6, 1 << 40] {
        assert_eq!(a.resolve(&mark(epoch, position)), Resolved::At(position));
    }
    assert_eq!(a.resolve(&mark(Epoch(epoch.0 ^ 1), 3)), Resolved::Unknown);
    assert_eq!(a.resolve(&mark(only(&streams, "events").head().0, 0)), Resolved::Unknown);
}

pub fn a_key_is_one_event_within_its_window(make: Make) {
    let streams = make(vec![stream("a", 2), stream("b", 10)], AMPLE, 0);
    let batch = vec![keyed("a/x", "1", "k", 100), keyed("a/x", "2", "k", 100), keyed("a/x", "3", "other", 100)];
    let first = append(&streams, batch, 1_000).unwrap();
    assert_eq!((first.duplicates, &first.ids[0]), (1, &first.ids[1]));
    // The first event leaves the log; its id remains.
    (0..4).for_each(|n| drop(put(&streams, "a/x", "", 1_010 + n)));
    assert!(only(&streams, "a").first() > 3);
    let again = append(&streams, vec![keyed("a/y", "4", "k", 100)], 1_099).unwrap();
    assert_eq!(again, Appended { ids: vec![first.ids[0].clone()], duplicates: 1 });
    let elsewhere = append(&streams, vec![keyed("b/x", "4", "k", 100)], 1_099).unwrap();
    assert_eq!(elsewhere.duplicates, 0, "keys belong to a partition");
    // A duplicate does not prolong the window.
    let later = append(&streams, vec![keyed("a/x", "5", "k", 100)], 1_100).unwrap();
    assert_eq!((later.duplicates, later.ids == again.ids), (0, false));
    let last = append(&streams, vec![keyed("a/x", "6", "k", 100)], 1_101).unwrap();
    assert_eq!(last.ids, later.ids);
    assert_eq!(only(&streams, "a").head().1, 7);
}

pub fn keys_of_any_length_are_told_apart(make: Make) {
    let streams = make(vec![stream("a", 10)], AMPLE, 0);
    let long = "k".repeat(100_000);
    let keys = [long.as_str(), &long[1..], &long[..256], &long[..255], "k", ""];
    let batch = || keys.iter().map(|key| keyed("a/x", "", key, 1_000)).collect::<Vec<_>>();
    let first = append(&streams, batch(), 1).unwrap();
    assert_eq!((first.duplicates, distinct(&first.ids)), (0, keys.len()));
    let second = append(&streams, batch(), 2).unwrap();
    assert_eq!((second.duplicates, second.ids), (keys.len(), first.ids));
}

pub fn keys_are_bounded(make: Make) {
    let streams = make(vec![stream("a", 10)], AMPLE, 0);
    let send = |keys: std::ops::Range<usize>| -> usize {
        let batches = keys.clone().step_by(1_000).map(|from| from..keys.end.min(from + 1_000));
        let batches = batches.map(|keys| keys.map(|n| keyed("a/x", "", &n.to_string(), 1_000)).collect());
        batches.map(|batch| append(&streams, batch, 1).unwrap().duplicates).sum()
    };
    assert_eq!(send(0..100_000), 0);
    assert_eq!(send(0..100_000), 100_000);
    assert_eq!(send(100_000..100_001), 0, "the oldest key makes room");
    assert_eq!((send(1..2), send(0..1)), (1, 0));
}

pub fn stats_count(make: Make) {
    let settings = Settings { partitions: 2, max_events: 6, retain: 4, ..stream("a", 0) };
    let streams = make(vec![settings], AMPLE, 0);
    let batch = |now| append(&streams, (0..20).map(|n| draft(&format!("a/{n}"), "12345")).collect(), now).unwrap();
    batch(7);
    batch(9);
    append(&streams, vec![keyed("a/1", "12345", "k", 9), keyed("a/1", "12345", "k", 9)], 11).unwrap();
    let stats = streams.stats();
    assert_eq!(stats.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["a", "events"]);
    let a = &stats[0];
    assert_eq!((a.partitions, a.events, a.head, a.oldest), (2, 6, 41, Some(Time(9))));
    assert_eq!((a.appended_total, a.duplicates_total, a.evicted_by_memory_total), (41, 1, 0));
    assert_eq!(a.retained, 4);
    let held: u64 = (0..2)
        .flat_map(|number| {
            let one = partition(&streams, "a", number);
            readable(&one).into_iter().chain(retained(&one)).map(|event| (event.id(), event))
        })
        .collect::<std::collections::HashMap<_, _>>()
        .values()
        .map(|event| OVERHEAD + 5 + event.topic.as_str().len() as u64)
        .sum();
    assert_eq!(a.bytes, held);
    assert_eq!((stats[1].events, stats[1].bytes, stats[1].oldest), (0, 0, None));
}
