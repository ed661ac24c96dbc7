//! A changed file: what stays, what goes, what comes.

use std::sync::atomic::AtomicUsize;

use relay::cursor::Mark;
use relay::stream::Resolved;

use super::*;

pub fn a_stream_keeps_its_events_by_name(make: Make) {
    let streams = make(vec![stream("gone", 10), stream("a", 10)], AMPLE, 2);
    append(&streams, vec![keyed("a/x", "1", "k", 100), draft("a/x", "2"), draft("gone/x", "3")], 1).unwrap();
    put(&streams, "rest", "4", 1);
    let (a, ids) =
        (only(&streams, "a"), |part| readable(&only(&streams, part)).iter().map(|e| e.id()).collect::<Vec<_>>());
    let before = [ids("a"), ids("events")];
    assert_eq!(tail(&a, 0).len(), 2);

    // `partitions` needs a restart: here it changes nothing.
    let other = Settings { topics: vec![Pattern::new("a/y").unwrap()], partitions: 7, ..stream("a", 11) };
    streams.apply(vec![stream("new", 10), other], AMPLE);
    let names: Vec<_> = streams.partitions().iter().map(|one| one.place().stream.to_string()).collect();
    assert_eq!(names, ["new", "a", "events"]);
    assert_eq!([ids("a"), ids("events")], before);
    let duplicate = append(&streams, vec![keyed("a/y", "5", "k", 100), draft("a/y", "6")], 2).unwrap();
    assert_eq!((duplicate.duplicates, &duplicate.ids[0]), (1, &before[0][0]));
    assert_eq!(only(&streams, "a").head(), (a.head().0, 3));
    assert_eq!((positions(&tail(&a, 0)), positions(&tail(&a, 1))), (vec![3], vec![1, 2, 3]));
}

pub fn other_limits_hold_at_once(make: Make) {
    let before = Settings { retain: 10, ..stream("a", 10) };
    let streams = make(vec![before.clone()], AMPLE, 0);
    (0..8).for_each(|n| drop(put(&streams, &format!("a/{n}"), "", 100 + n)));
    let a = only(&streams, "a");
    streams.apply(vec![Settings { retain: 3, ..stream("a", 6) }], AMPLE);
    assert_eq!((positions(&readable(&a)), positions(&retained(&a))), (vec![3, 4, 5, 6, 7, 8], vec![6, 7, 8]));
    streams.apply(vec![Settings { max_age: Some(Duration::from_millis(1)), retain: 0, ..before.clone() }], AMPLE);
    assert_eq!((positions(&readable(&a)), positions(&retained(&a))), (vec![7, 8], vec![]));
    streams.apply(vec![before], AMPLE);
    assert_eq!(positions(&readable(&a)), [7, 8], "what is gone does not come back");
    put(&streams, "a/1", "", 500);
    assert_eq!((positions(&readable(&a)), positions(&retained(&a))), (vec![7, 8, 9], vec![9]));
}

pub fn less_memory_holds_at_once(make: Make) {
    let settings = || vec![stream("a", 100), stream("b", 100)];
    let streams = make(settings(), AMPLE, 0);
    (0..20).for_each(|n| drop(put(&streams, ["a/x", "b/x"][n % 2], "12345", n as u64)));
    streams.apply(settings(), 5 * (OVERHEAD + 8));
    let kept = ["a", "b"].map(|name| positions(&readable(&only(&streams, name))));
    assert_eq!(kept, [vec![9, 10], vec![8, 9, 10]]);
}

pub fn a_removed_stream_gives_its_memory_back(make: Make) {
    let event = OVERHEAD + 8;
    let streams = make(vec![stream("a", 100), stream("b", 100)], 4 * event, 1);
    append(&streams, ["b/x", "a/x", "a/x"].map(|topic| draft(topic, "12345")).to_vec(), 1).unwrap();
    assert_eq!(streams.refusing(), Some(Refused::Behind));
    streams.apply(vec![stream("b", 100)], 4 * event);
    assert_eq!(streams.refusing(), None, "nobody waits for what is removed");
    for now in 0..3 {
        put(&streams, "b/x", "12345", now);
        tail(&only(&streams, "b"), 0);
    }
    assert_eq!(readable(&only(&streams, "b")).len(), 4, "all memory is its own");
    assert_eq!(streams.stats().iter().map(|one| one.bytes).sum::<u64>(), 4 * event);
}

pub fn a_new_partition_is_unread(make: Make) {
    let streams = make(vec![stream("a", 10)], AMPLE, 2);
    put(&streams, "a/x", "", 1);
    let first = only(&streams, "a");
    streams.apply(vec![stream("b", 10)], AMPLE);
    streams.apply(vec![stream("a", 10), stream("b", 10)], AMPLE);
    append(&streams, vec![draft("a/x", ""), draft("b/x", "")], 2).unwrap();
    for name in ["a", "b"] {
        let part = only(&streams, name);
        for reader in 0..2 {
            assert_eq!(positions(&tail(&part, reader)), [1]);
        }
    }
    let (epoch, position) = first.head();
    let again = only(&streams, "a");
    assert_eq!(again.place().hash, first.place().hash);
    assert_eq!(
        again.resolve(&Mark { partition: again.place().hash, epoch, position }),
        Resolved::Unknown,
        "another life"
    );
}

pub fn a_stream_that_comes_back_can_be_used(make: Make) {
    let streams = make(vec![stream("a", 10)], AMPLE, 1);
    put(&streams, "a/x", "1", 1);
    streams.apply(vec![], AMPLE);
    streams.apply(vec![stream("a", 10)], AMPLE);
    crate::harness::until(|| streams.is_open(), || "it does not open again".into());
    put(&streams, "a/x", "2", 2);
    let a = only(&streams, "a");
    assert_eq!(payloads(&tail(&a, 0)), ["2"]);
}

pub fn topics_move_with_the_file(make: Make) {
    let streams = make(vec![], AMPLE, 0);
    put(&streams, "a/x", "1", 1);
    streams.apply(vec![stream("a", 10)], AMPLE);
    put(&streams, "a/x", "2", 1);
    streams.apply(vec![], AMPLE);
    put(&streams, "a/x", "3", 1);
    assert_eq!(payloads(&readable(&only(&streams, "events"))), ["1", "3"]);
}

pub fn an_apply_is_seen(make: Make) {
    let streams = make(vec![], AMPLE, 0);
    let woken = Arc::new(AtomicUsize::new(0));
    let counted = woken.clone();
    streams.on_change(Box::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    }));
    let versions: Vec<_> = (0..3)
        .map(|n| {
            assert_eq!(woken.load(Ordering::Relaxed), n);
            streams.apply(vec![], AMPLE);
            streams.version()
        })
        .collect();
    assert_eq!(distinct(versions), 3);
    assert_eq!(woken.load(Ordering::Relaxed), 3);
}

pub fn appends_go_on_during_applies(make: Make) {
    const ALL: u64 = 5_000;
    let settings =
        |n: usize| vec![Settings { retain: n % 3, ..stream("a", 1 + n as u64 % 50) }, stream(["b", "c"][n % 2], 10)];
    let streams = make(settings(0), AMPLE, 1);
    let (done, broken) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let fuse = Fuse(&broken);
            for now in 0..ALL {
                while append(&streams, vec![draft("a/x", &now.to_string())], now).is_err() {
                    fuse.wait();
                }
            }
        });
        scope.spawn(|| {
            let fuse = Fuse(&broken);
            for n in (0..).take_while(|_| !done.load(Ordering::Relaxed)) {
                streams.apply(settings(n), AMPLE + n as u64);
                fuse.wait();
            }
        });
        let (mut seen, fuse) = (Vec::new(), Fuse(&broken));
        while (seen.len() as u64) < ALL {
            only(&streams, "a").tail(0, 100, 1_000, &mut seen);
            fuse.wait();
        }
        done.store(true, Ordering::Relaxed);
        assert_eq!(positions(&seen), (1..=ALL).collect::<Vec<_>>());
    });
}
