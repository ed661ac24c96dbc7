//! Holds what one session was told against what was published: in order, nothing twice, nothing missing but what lies in
//! a told gap, and each gap exactly as wide as what is missing.
//!
//! It looks at one partition: positions there are contiguous integers, so a hole is arithmetic. It knows no relay and no
//! clock, and is itself tested with records that are wrong in every way it must notice.

use serde_json::Value;

use crate::client::feed::Item;

/// What a session was told, as far as it counts.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// In its turn: an event with a cursor.
    Event(u64),
    /// Out of its turn: retained values, `replay`. Never ahead of what came in turn.
    Aside(u64),
    /// The events after `from` up to `to` are lost for this session.
    Gap { from: Option<u64>, to: u64, missed: Option<u64> },
    /// Everything up to here was sent: an open, a heartbeat.
    Upto(u64),
}

/// What a session had a right to: the positions of the events it may see, in order, after the one it began with.
pub struct Expected<'a> {
    pub positions: &'a [u64],
    pub began_after: u64,
    /// The position of the last event there is (of this session or not).
    pub head: u64,
}

/// The first thing that is wrong with a record.
pub fn check(expected: &Expected<'_>, record: &[Told]) -> Result<(), String> {
    let mut at = expected.began_after;
    let mut aside = Vec::new();
    for (index, told) in record.iter().enumerate() {
        step(expected, told, &mut at, &mut aside).map_err(|e| format!("{told:?} (number {index}): {e}"))?;
    }
    let lost = expected.between(at, expected.head);
    if lost.is_empty() { Ok(()) } else { Err(format!("after {at}, these never came: {lost:?}")) }
}

fn step(expected: &Expected<'_>, told: &Told, at: &mut u64, aside: &mut Vec<u64>) -> Result<(), String> {
    match *told {
        Told::Event(position) => {
            expected.may_see(position)?;
            if position <= *at {
                return Err(format!("came again or too late: the session is at {at}"));
            }
            expected.none_between(*at, position - 1)?;
            *at = position;
        }
        Told::Aside(position) => {
            expected.may_see(position)?;
            if aside.contains(&position) {
                return Err("was told aside before".into());
            }
            aside.push(position);
        }
        Told::Gap { from, to, missed } => {
            if let Some(from) = from {
                if from < *at && !expected.between(from, *at).is_empty() {
                    return Err(format!("begins before what the session already has ({at})"));
                }
                expected.none_between(*at, from)?;
            }
            if to < *at || to > expected.head {
                return Err(format!("ends where it cannot: the session is at {at}, the log at {}", expected.head));
            }
            let lost = expected.between(from.unwrap_or(*at).max(*at), to).len() as u64;
            if missed.is_some_and(|missed| missed != lost || missed == 0) {
                return Err(format!("{lost} events lie in it"));
            }
            *at = to;
        }
        Told::Upto(position) => {
            expected.none_between(*at, position)?;
            *at = position.max(*at);
        }
    }
    // What was told aside belongs to the past once the session moves on: it must not come in turn as well.
    match told {
        Told::Event(position) if aside.contains(position) => Err("was told aside already".into()),
        _ => Ok(()),
    }
}

impl Expected<'_> {
    fn between(&self, after: u64, upto: u64) -> &[u64] {
        let start = self.positions.partition_point(|p| *p <= after);
        let end = self.positions.partition_point(|p| *p <= upto);
        self.positions.get(start..end).unwrap_or_default()
    }
    fn none_between(&self, after: u64, upto: u64) -> Result<(), String> {
        match self.between(after, upto) {
            [] => Ok(()),
            lost => Err(format!("these never came: {lost:?}")),
        }
    }
    fn may_see(&self, position: u64) -> Result<(), String> {
        let found = self.positions.binary_search(&position);
        found.map(|_| ()).map_err(|_| "is no event of this session".into())
    }
}

/// The position that an event id ends with.
pub fn position_of_id(id: &str) -> u64 {
    let position = id.rsplit_once('-').and_then(|(_, position)| position.parse().ok());
    position.unwrap_or_else(|| panic!("{id:?} is no event id"))
}

/// The position in a cursor of one partition.
pub fn position_of_cursor(cursor: &str) -> u64 {
    match relay::cursor::parse(cursor).as_deref() {
        Some([mark]) => mark.position,
        other => panic!("{cursor:?} has marks {other:?}, not one"),
    }
}

/// What an item of a feed on one partition means to the checker; a close, a reply mean nothing.
pub fn told(item: &Item) -> Option<Told> {
    let upto = |cursor: &Option<String>| Some(Told::Upto(position_of_cursor(cursor.as_deref()?)));
    match item {
        Item::Event { cursor: Some(cursor), id, .. } => {
            let position = position_of_id(id);
            assert_eq!(position_of_cursor(cursor), position, "an event's cursor stands at the event");
            Some(Told::Event(position))
        }
        Item::Event { cursor: None, id, .. } => Some(Told::Aside(position_of_id(id))),
        Item::Gap { from, to, missed, .. } => Some(Told::Gap {
            from: from.as_deref().map(position_of_cursor),
            to: position_of_cursor(to),
            missed: *missed,
        }),
        Item::Open { cursor } => upto(&Some(cursor.clone())),
        Item::Heartbeat { cursor } => upto(cursor),
        Item::Close { .. } | Item::Other { .. } => None,
    }
}

/// A session on everything: events 1, 2, 3 come, 4 to 6 are lost, 7, 8 come; of a log where 5 is another's.
fn clean() -> Vec<Told> {
    use Told::*;
    vec![
        Upto(0),
        Event(1),
        Event(2),
        Event(3),
        Gap { from: Some(3), to: 6, missed: Some(2) },
        Aside(4),
        Event(7),
        Event(8),
        Upto(9),
    ]
}

fn verdict(record: &[Told]) -> Result<(), String> {
    check(&Expected { positions: &[1, 2, 3, 4, 6, 7, 8], began_after: 0, head: 9 }, record)
}

#[test]
fn a_clean_record_passes() {
    verdict(&clean()).expect("clean");
}

#[test]
fn each_event_that_is_removed_doubled_or_swapped_is_noticed() {
    let clean = clean();
    let events: Vec<usize> = (0..clean.len()).filter(|i| matches!(clean[*i], Told::Event(_))).collect();
    assert_eq!(events.len(), 5);
    for &index in &events {
        let mut removed = clean.clone();
        removed.remove(index);
        verdict(&removed).expect_err("one is missing");
        let mut doubled = clean.clone();
        doubled.insert(index, clean[index].clone());
        verdict(&doubled).expect_err("one came twice");
    }
    for pair in events.windows(2) {
        let mut swapped = clean.clone();
        swapped.swap(pair[0], pair[1]);
        verdict(&swapped).expect_err("two are swapped");
    }
    verdict(&clean[..clean.len() - 2]).expect_err("the last one is missing");
}

#[test]
fn a_gap_too_wide_or_too_narrow_by_one_is_noticed() {
    let wrong = [
        (Some(3), 6, Some(1)),
        (Some(3), 6, Some(3)),
        (Some(3), 6, Some(0)),
        (Some(2), 6, Some(3)),
        (Some(2), 6, Some(2)),
        (Some(4), 6, Some(1)),
        (Some(3), 5, Some(1)),
        (Some(3), 7, Some(3)),
        (Some(3), 5, None),
        (Some(3), 7, None),
        (Some(3), 10, None),
        (None, 7, Some(3)),
        (None, 2, None),
    ];
    for (from, to, missed) in wrong {
        let mut record = clean();
        record[4] = Told::Gap { from, to, missed };
        verdict(&record).expect_err(&format!("{:?}", record[4]));
    }
    let mut untold = clean();
    untold.remove(4);
    verdict(&untold).expect_err("a gap that nobody told");
    let mut vague = clean();
    vague[4] = Told::Gap { from: None, to: 6, missed: None };
    verdict(&vague).expect("who does not know how many may say so");
}

#[test]
fn what_is_no_event_of_the_session_or_told_twice_is_noticed() {
    for (index, told) in [(5, Told::Aside(5)), (5, Told::Aside(9)), (6, Told::Event(5)), (6, Told::Aside(4))] {
        let mut record = clean();
        record.insert(index, told.clone());
        verdict(&record).expect_err(&format!("{told:?}"));
    }
    let mut early = clean();
    early[0] = Told::Upto(1);
    verdict(&early).expect_err("a cursor ahead of what was sent");
    let mut aside = clean();
    aside.insert(1, Told::Aside(1));
    verdict(&aside).expect_err("replayed and then delivered");
}

/// What is wrong with what a session was told, where `published` are the (id, topic) of everything that was.
pub fn check_items(published: &[(String, String)], hears: impl Fn(&str) -> bool, began_after: u64, items: &[Item]) {
    let mine = published.iter().filter(|(_, topic)| hears(topic)).map(|(id, _)| position_of_id(id));
    let positions: Vec<u64> = mine.collect();
    let head = published.iter().map(|(id, _)| position_of_id(id)).max().unwrap_or(0);
    let record: Vec<Told> = items.iter().filter_map(told).collect();
    if let Err(e) = check(&Expected { positions: &positions, began_after, head }, &record) {
        panic!("{e}\nthe record: {record:?}");
    }
}

/// The ids of a webhook's answer.
pub fn ids(answer: &Value) -> Vec<String> {
    let ids = answer["ids"].as_array().unwrap_or_else(|| panic!("no ids in {answer}"));
    ids.iter().map(|id| id.as_str().expect("a text").to_owned()).collect()
}
