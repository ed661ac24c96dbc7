//! Histories that are wrong in every way that must be noticed, and some that are right although they look wrong.

use relay::event::Epoch;

use super::lines::{Line, Payload};
use super::lives::Mark;
use super::record::{RAW, Reason, Record, Told};
use super::verdict::{Published, Verdict, judge};

const A: Epoch = Epoch(1);
const B: Epoch = Epoch(2);
/// `one/0`, published by webhooks.
const HOOK: usize = 0;
/// `raw.one`.
const CHANNEL: usize = RAW;

/// Of stream one. The payloads of the webhook are 1 to 4, those of the channel 11 to 13.
fn published() -> Published {
    let line = |payloads: std::ops::RangeInclusive<Payload>| {
        let mut line = Line::default();
        payloads.for_each(|payload| line.push(payload, true));
        line
    };
    let ids = [1, 3, 5, 7].map(|position| (format!("one-1-{position}"), HOOK));
    Published { lines: vec![(HOOK, line(1..=4)), (CHANNEL, line(11..=13))], acknowledged: vec![ids.to_vec()] }
}

fn event(epoch: Epoch, position: u64, topic: usize, payload: Payload) -> Told {
    Told::Event { partition: 0, mark: (epoch, position), topic, payload }
}

fn gap(reason: Reason, from: Mark, to: Mark) -> Told {
    Told::Gap { partition: 0, reason, from: Some(from), to, missed: None }
}

fn upto(position: u64) -> Told {
    Told::Upto { partition: 0, mark: (A, position) }
}

/// Hooks at 1, 3, 5, 7, the channel at 2, 6, 8.
fn clean() -> Vec<Told> {
    let places = [(1, HOOK, 1), (2, CHANNEL, 11), (3, HOOK, 2), (5, HOOK, 3), (6, CHANNEL, 12), (7, HOOK, 4)];
    let mut all: Vec<Told> =
        places.iter().map(|(position, topic, payload)| event(A, *position, *topic, *payload)).collect();
    all.push(event(A, 8, CHANNEL, 13));
    all.insert(3, upto(4));
    all
}

/// What one session was told, beside another that was told all.
fn verdict(told: Vec<Told>, excuses: &[Reason]) -> Verdict {
    let record = |told| {
        let mut record = Record::of(vec![HOOK, CHANNEL]);
        record.began = [Some((A, 0)), Some((A, 0))];
        record.told = told;
        record
    };
    judge(&[record(clean()), record(told)], &published(), excuses)
}

#[test]
fn a_clean_history_is_clean() {
    let verdict = verdict(clean(), &[]);
    assert!(verdict.faults.is_empty(), "{:?}", verdict.faults);
    let Verdict { events, deliveries, losses, duplicates, lives, .. } = verdict;
    assert_eq!((events, deliveries, losses, duplicates, lives), (7, 14, 0, 0, 2));
}

#[test]
fn each_loss_duplicate_and_swap_is_found() {
    let events: Vec<usize> = (0..8).filter(|index| *index != 3).collect();
    for &index in &events {
        let mut lost = clean();
        lost.remove(index);
        let found = verdict(lost, &[]);
        let by_position = usize::from(index < 7);
        assert!(found.losses == 1 && found.faults.len() == 1 + by_position, "without {index}: {found}");
        let mut doubled = clean();
        doubled.insert(index, doubled[index].clone());
        let found = verdict(doubled, &[]);
        assert!(found.duplicates == 1 && !found.faults.is_empty(), "{index} twice: {found}");
    }
    for pair in events.windows(2) {
        let mut swapped = clean();
        swapped.swap(pair[0], pair[1]);
        assert!(!verdict(swapped, &[]).faults.is_empty(), "{pair:?} swapped");
    }
}

#[test]
fn what_is_appended_twice_is_found_by_who_hears_both() {
    let mut twice = clean();
    twice.push(event(A, 9, HOOK, 4));
    let found = verdict(twice, &[]);
    // The other one went before.
    assert!(found.duplicates == 1 && found.faults.len() == 1, "{:?}", found.faults);
}

#[test]
fn a_gap_of_a_source_excuses_what_came_from_there_and_only_in_its_place() {
    let without = |payload: Payload, place: usize| {
        let mut told = clean();
        told.retain(|told| !matches!(told, Told::Event { payload: of, .. } if *of == payload));
        told.insert(place, gap(Reason::Source, (A, 8), (A, 9)));
        told
    };
    // Nobody heard 13, so it is not in the log at all.
    let everybody = |told: Vec<Told>, excuses: &[Reason]| {
        let mut record = Record::of(vec![HOOK, CHANNEL]);
        record.began = [Some((A, 0)), Some((A, 0))];
        record.told = told;
        judge(&[record], &published(), excuses)
    };
    assert!(everybody(without(13, 7), &[Reason::Source]).faults.is_empty());
    assert!(!everybody(without(13, 7), &[]).faults.is_empty(), "not where nothing excuses it");
    assert!(!everybody(without(4, 7), &[Reason::Source]).faults.is_empty(), "not what webhooks lost");
    assert!(!everybody(without(12, 7), &[Reason::Source]).faults.is_empty(), "not elsewhere");
}

#[test]
fn a_lost_tail_is_excused_by_a_gap_and_nothing_else() {
    // Redis lost 7 and 8; then 7 was published anew by the channel, which its publisher knows nothing of.
    let common = || clean().into_iter().take(6);
    let anew = event(B, 7, CHANNEL, 13);
    let lost_tail = gap(Reason::Epoch, (A, 6), (B, 6));
    let mut published = published();
    published.lines[1].1.push(13, true);
    let verdict = |second: Vec<Told>| {
        let record = |told| {
            let mut record = Record::of(vec![HOOK, CHANNEL]);
            record.began = [Some((A, 0)), Some((A, 0))];
            record.told = told;
            record
        };
        let mut first = clean();
        first.extend([gap(Reason::Epoch, (A, 8), (B, 6)), anew.clone()]);
        judge(&[record(first), record(second)], &published, &[Reason::Epoch])
    };
    let told = verdict(common().chain([lost_tail, anew.clone()]).collect());
    assert!(told.faults.is_empty() && told.lives == 3 && told.forgotten == 2, "{:?}", told.faults);
    let silent = verdict(common().chain([anew.clone()]).collect());
    assert!(silent.losses > 0 && silent.faults.len() > 1, "{:?}", silent.faults);
}

#[test]
fn a_gap_may_follow_where_another_led_to() {
    let led = [gap(Reason::Epoch, (A, 8), (B, 6)), gap(Reason::Epoch, (B, 6), (B, 7)), event(B, 8, CHANNEL, 13)];
    let mut record = Record::of(vec![HOOK, CHANNEL]);
    record.began = [Some((A, 0)), Some((A, 0))];
    record.told = clean().into_iter().chain(led).collect();
    let found = judge(&[record], &published(), &[Reason::Epoch]);
    assert!(found.faults.is_empty() && found.losses == 0 && found.forgotten == 1, "{found}: {:?}", found.faults);
}

#[test]
fn two_events_in_one_place_are_found() {
    let mut told = clean();
    told[0] = event(A, 1, HOOK, 2);
    assert!(verdict(told, &[]).faults.iter().any(|fault| fault.starts_with("two events in one place")));
}
