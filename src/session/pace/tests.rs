use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::event::{Epoch, Kind, Payload, Place, Time};
use crate::topic::Pattern;

fn event(topic: &str, position: u64) -> Arc<Event> {
    let payload = Payload { kind: Kind::Text, bytes: Bytes::from(vec![b'x'; position as usize % 7]) };
    let topic = Topic::new(topic).unwrap();
    let place = Place::new("s".into(), 0, false).into();
    Arc::new(Event { place, epoch: Epoch(1), position, topic, time: Time(position), payload })
}

fn rules(rules: &[(&str, u64)]) -> Arc<[Pacing]> {
    let rule = |(pattern, millis): &(&str, u64)| Pacing {
        topics: vec![Pattern::new(pattern).unwrap()],
        every: Duration::from_millis(*millis),
    };
    rules.iter().map(rule).collect()
}

fn positions(events: &[Arc<Event>]) -> Vec<u64> {
    events.iter().map(|event| event.position).collect()
}

#[test]
fn the_first_goes_at_once_and_of_the_others_the_newest_in_its_time() {
    let mut pace = Pace::new(rules(&[("**", 100)]));
    assert_eq!(pace.offer(&event("a", 1), 1000), Offer::Now);
    assert_eq!(pace.offer(&event("a", 2), 1050), Offer::Until(1100));
    assert_eq!(pace.offer(&event("b", 3), 1050), Offer::Now, "each topic has its own time");
    assert_eq!(pace.offer(&event("a", 4), 1099), Offer::Until(1100));
    assert_eq!(pace.next(), Some(1100));
    assert!(pace.due(1099).is_empty());
    assert_eq!(positions(&pace.due(1100)), [4]);
    assert_eq!(pace.offer(&event("a", 5), 1199), Offer::Until(1200));
    assert_eq!(pace.offer(&event("a", 6), 1300), Offer::Until(1200), "what is held goes first, or is replaced");
    assert_eq!(positions(&pace.due(1300)), [6]);
}

#[test]
fn a_topic_that_was_quiet_is_forgotten() {
    let mut pace = Pace::new(rules(&[("**", 100)]));
    pace.offer(&event("a", 1), 0);
    assert_eq!(pace.bytes(), PER_TOPIC);
    assert!(pace.due(100).is_empty());
    assert_eq!((pace.bytes(), pace.next()), (0, None));
    assert_eq!(pace.offer(&event("a", 2), 101), Offer::Now);
}

#[test]
fn topics_that_never_come_again_do_not_pile_up() {
    let mut pace = Pace::new(rules(&[("**", 10)]));
    for number in 0..10_000 {
        pace.offer(&event(&format!("t/{number}"), number), number);
        assert!(pace.topics.len() <= FEW, "{} at {number}", pace.topics.len());
    }
}

#[test]
fn the_first_rule_that_matches_counts() {
    let rules = rules(&[("live/*", 500), ("**", 1000)]);
    for (topic, expected) in [("live/a", 500), ("live/a/b", 1000), ("x", 1000)] {
        assert_eq!(every(&rules, topic), Some(expected), "{topic}");
    }
    assert_eq!(every(&rules[..1], "x"), None);
}

#[test]
fn what_is_held_in_catch_up_goes_as_soon_as_somebody_asks() {
    let mut pace = Pace::new(rules(&[("**", 100)]));
    for (topic, position) in [("b", 1), ("a", 2), ("b", 3)] {
        pace.hold(&event(topic, position));
    }
    assert_eq!(positions(&pace.due(0)), [2, 3]);
    assert_eq!(pace.offer(&event("a", 4), 50), Offer::Until(100));
    assert_eq!(positions(&pace.into_held()), [4]);
}

#[derive(Debug, Clone)]
enum Step {
    Offer(u8),
    Hold(u8),
    Wait(u64),
    Due,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..4u8).prop_map(Step::Offer),
        1 => (0..4u8).prop_map(Step::Hold),
        2 => (1..80u64).prop_map(Step::Wait),
        2 => Just(Step::Due),
    ]
}

proptest! {
    /// Whatever happens, the newest event of a topic is sent in the end, never an older one after a newer one, and two
    /// that were not held while catching up are `every` apart.
    #[test]
    fn the_newest_arrives_and_none_too_early(steps in proptest::collection::vec(step(), 0..80)) {
        const EVERY: u64 = 50;
        let mut pace = Pace::new(rules(&[("**", EVERY)]));
        let (mut now, mut position) = (0, 0);
        let mut newest = BTreeMap::new();
        let mut sent: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for step in steps.into_iter().chain([Step::Wait(EVERY), Step::Due]) {
            let mut go = Vec::new();
            match step {
                Step::Offer(topic) | Step::Hold(topic) => {
                    position += 1;
                    let event = event(&format!("t/{topic}"), position);
                    newest.insert(event.topic.to_string(), position);
                    if matches!(step, Step::Hold(_)) {
                        pace.hold(&event);
                    } else if pace.offer(&event, now) == Offer::Now {
                        go.push(event);
                    }
                }
                Step::Wait(millis) => now += millis,
                Step::Due => go = pace.due(now),
            }
            for event in go {
                let before = sent.insert(event.topic.to_string(), (event.position, now));
                if let Some((position, at)) = before {
                    prop_assert!(position < event.position && at + EVERY <= now);
                }
            }
            let held: usize = pace.topics.values().flat_map(|slot| &slot.held).map(|e| e.payload.bytes.len()).sum();
            prop_assert_eq!(pace.payloads, held);
        }
        let sent: BTreeMap<_, _> = sent.into_iter().map(|(topic, (position, _))| (topic, position)).collect();
        prop_assert_eq!(sent, newest);
        prop_assert!(pace.next().is_none());
    }
}
