//! Last values, and what clears them.

use std::collections::HashMap;

use relay::select::{Field, Fields};

use super::*;

fn retaining(retain: usize) -> Settings {
    Settings { retain, ..stream("a", 3) }
}

pub fn the_last_event_of_a_topic_is_kept_beyond_the_log(make: Make) {
    let streams = make(vec![retaining(10)], AMPLE, 0);
    for (topic, payload) in [("a/x", "1"), ("a/y", "2"), ("a/x", "3"), ("a/z", "4"), ("a/z", "5"), ("a/z", "6")] {
        put(&streams, topic, payload, 1);
    }
    let a = only(&streams, "a");
    assert_eq!(a.first(), 4);
    let values = retained(&a);
    assert_eq!(
        (topics(&values), payloads(&values)),
        (vec!["a/y", "a/x", "a/z"], vec!["2".into(), "3".into(), "6".into()])
    );
    assert_eq!(positions(&values), [2, 3, 6]);
    put(&streams, "other", "", 1);
    assert_eq!(retained(&only(&streams, "events")).len(), 0, "only where the stream says so");
}

pub fn the_longest_unchanged_goes_first(make: Make) {
    let streams = make(vec![retaining(3)], AMPLE, 0);
    for topic in ["a/1", "a/2", "a/3", "a/1", "a/4", "a/5"] {
        put(&streams, topic, "", 1);
    }
    assert_eq!(topics(&retained(&only(&streams, "a"))), ["a/1", "a/4", "a/5"]);

    let streams = make(vec![Settings { partitions: 4, ..retaining(40) }], AMPLE, 0);
    append(&streams, (0..400).map(|n| draft(&format!("a/{n}"), "")).collect(), 1).unwrap();
    assert_eq!(streams.stats()[0].retained, 40, "shared by partitions");
}

pub fn an_event_that_clears_is_delivered_and_removes(make: Make) {
    let resolved = (Field::parse(".status", false).unwrap(), serde_json::json!("resolved"));
    let clear = Some(Fields::new(vec![resolved]));
    let streams = make(vec![Settings { clear, max_events: 100, ..retaining(10) }], AMPLE, 1);
    let firing = |topic| json(topic, r#"{"status":"firing"}"#);
    let resolved = |topic| json(topic, r#"{"status":"resolved"}"#);
    let a = only(&streams, "a");
    append(&streams, vec![firing("a/x"), firing("a/y"), resolved("a/x"), resolved("a/never")], 1).unwrap();
    assert_eq!(topics(&retained(&a)), ["a/y"]);
    // What is no JSON clears nothing, whatever it looks like.
    append(&streams, vec![draft("a/y", r#"{"status":"resolved"}"#), json("a/z", "resolved")], 2).unwrap();
    assert_eq!(positions(&retained(&a)), [5, 6]);
    append(&streams, vec![resolved("a/y"), firing("a/y"), resolved("a/z")], 3).unwrap();
    assert_eq!(positions(&retained(&a)), [8]);
    assert_eq!(positions(&tail(&a, 0)), (1..=9).collect::<Vec<_>>(), "delivered as any other");
    assert_eq!(readable(&a).len(), 9);
}

/// Every value up to `until`, in pages of `max`; between two of them, `meanwhile`.
fn walk(a: &Partition, until: u64, max: usize, mut meanwhile: impl FnMut()) -> Vec<Arc<Event>> {
    let (mut events, mut after) = (Vec::new(), 0);
    loop {
        let before = events.len();
        a.retained(after, until, max, &mut events);
        assert!(events.len() - before <= max);
        if events.len() == before {
            return events;
        }
        after = events[events.len() - 1].position;
        meanwhile();
    }
}

pub fn a_walk_in_pages_meets_each_value_at_most_once(make: Make) {
    let streams = make(vec![retaining(100)], AMPLE, 0);
    append(&streams, (0..20).map(|n| draft(&format!("a/{n:02}"), "")).collect(), 1).unwrap();
    let a = only(&streams, "a");
    let mut updated = 0;
    // Each page of three is followed by a change of one value that was met and one that was not.
    let met = walk(&a, 20, 3, || {
        for topic in [updated, 19 - updated] {
            put(&streams, &format!("a/{topic:02}"), "", 2);
        }
        updated += 1;
    });
    assert_eq!(topics(&met), (0..15).map(|n| format!("a/{n:02}")).collect::<Vec<_>>());
    assert_eq!(walk(&a, a.head().1, 7, || ()).len(), 20);
    assert_eq!(walk(&a, 0, 7, || ()).len(), 0);
}

pub fn a_walk_under_concurrent_updates_misses_nothing_unchanged(make: Make) {
    let streams = make(vec![retaining(1_000)], AMPLE, 0);
    let still: Vec<_> = (0..100).map(|n| format!("a/still/{n}")).collect();
    let moving: Vec<_> = (0..100).map(|n| format!("a/moving/{n}")).collect();
    for (still, moving) in still.iter().zip(&moving) {
        append(&streams, vec![draft(still, ""), draft(moving, "")], 1).unwrap();
    }
    let (a, done) = (only(&streams, "a"), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for topic in moving.iter().cycle().take_while(|_| !done.load(Ordering::Relaxed)) {
                put(&streams, topic, "", 2);
            }
        });
        // The other thread is done also when an assertion fails.
        let fuse = Fuse(&done);
        for _ in 0..200 {
            let met = walk(&a, a.head().1, 7, || fuse.wait());
            assert!(positions(&met).is_sorted_by(|one, next| one < next));
            let mut times = HashMap::<_, usize>::new();
            met.iter().for_each(|event| *times.entry(event.topic.as_str()).or_default() += 1);
            assert!(times.values().all(|times| *times == 1), "at most once");
            assert!(still.iter().all(|topic| times.contains_key(topic.as_str())), "nothing unchanged is missed");
        }
        done.store(true, Ordering::Relaxed);
    });
}
