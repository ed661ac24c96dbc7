//! Behind Sentinel: a failover that loses nothing, and one that does.

use super::{Crowd, LOG, cursor_now, instance, life_of, ready, store, stored, unready};
use crate::client::feed::{Feed, Item, Transport};
use crate::harness::until;
use crate::redis::Sentinel;

#[test]
fn an_ordered_failover_costs_nobody_anything() {
    let sentinel = Sentinel::start();
    let (one, other) = (instance(&sentinel.url()), instance(&sentinel.url()));
    let (mut here, mut there) = (Crowd::on(&one), Crowd::on(&other));
    let mut ids = [store(&one, "before", 3), store(&other, "also before", 3)].concat();
    sentinel.fail_over();
    ready(&one);
    ready(&other);
    ids.extend([store(&one, "after", 3), store(&other, "also after", 3)].concat());
    here.hear(&ids);
    there.hear(&ids);
    assert_ne!(life_of(&ids[0]), life_of(&ids[11]));
}

#[test]
fn what_a_failover_loses_is_told_to_all_who_could_miss_it() {
    let sentinel = Sentinel::start();
    let (one, other) = (instance(&sentinel.url()), instance(&sentinel.url()));
    let (mut here, mut there) = (Crowd::on(&one), Crowd::on(&other));
    let away = cursor_now(&one);
    let kept = store(&one, "kept", 3);
    here.hear(&kept);
    there.hear(&kept);
    let behind = cursor_now(&one);
    let lost = sentinel.fail_over_without(|| {
        let lost = store(&one, "lost", 4);
        // They have heard it, and stand behind what will not be.
        here.hear(&lost);
        there.hear(&lost);
        lost
    });
    let ahead = super::cursor_now(&one);
    ready(&one);
    ready(&other);
    here.are_told_of_a_lost_tail(0);
    there.are_told_of_a_lost_tail(0);
    let after = [store(&one, "after", 2), store(&other, "also after", 2)].concat();
    hear_beyond_gaps(&mut here, &after);
    hear_beyond_gaps(&mut there, &after);
    assert_ne!(life_of(&lost[0]), life_of(&after[0]));
    let later = instance(&sentinel.url());
    for relay in [&one, &other, &later] {
        for transport in Transport::ALL {
            // Who had heard what was lost.
            let mut feed = Feed::open(relay.public(), "/events", transport, "", Some(&ahead));
            let (told, _) = feed.until_open();
            assert!(is_lost_tail(&told[0]), "{transport:?}: {told:?}");
            assert_eq!(ids(&told), after.iter().collect::<Vec<_>>(), "{transport:?}");
            // Who had not come so far, or was away all the time: it is told between what was kept and what came after.
            for (cursor, rest) in [(&behind, &kept[3..]), (&away, &kept[..])] {
                let mut feed = Feed::open(relay.public(), "/events", transport, "", Some(cursor));
                let (told, _) = feed.until_open();
                assert_eq!(ids(&told), rest.iter().chain(&after).collect::<Vec<_>>(), "{transport:?}: {told:?}");
                let gap = told.iter().position(is_lost_tail);
                assert!(gap.is_some_and(|gap| gap >= rest.len()), "{transport:?}: {told:?}");
            }
        }
    }
}

/// Sentinel promotes first, and only later tells the old master: whoever is connected to that writes into the void.
#[test]
fn what_an_old_master_takes_after_it_was_replaced_is_told_to_be_lost() {
    let sentinel = Sentinel::start();
    let relay = instance(&sentinel.url());
    let mut crowd = Crowd::on(&relay);
    let away = cursor_now(&relay);
    let kept = store(&relay, "kept", 2);
    crowd.hear(&kept);
    let old = sentinel.promote_replica();
    // It is left as soon as the Sentinels name another, long before they tell the old one.
    let (new, mut into_the_void) = (sentinel.master(), Vec::new());
    let before = new.call(&["XLEN", LOG]).int();
    until(
        || {
            into_the_void.push(stored(&relay, "t", &format!("into the void {}", into_the_void.len())).0);
            new.call(&["XLEN", LOG]).int() > before
        },
        || format!("it stays with the old master\n{}", relay.log()),
    );
    assert_eq!(old.call(&["ROLE"]).list()[0].text(), "master");
    let after = store(&relay, "after", 2);
    ready(&relay);
    // Each of them is heard or lies in a gap: for those who are here, and then for those who were away.
    let (lost, kept): (Vec<String>, _) = into_the_void.into_iter().partition(|id| life_of(id) != life_of(&after[0]));
    let present = [kept, after].concat();
    for (transport, feed) in &mut crowd.0 {
        // Who stood behind what was lost hears of it at once, who stood before it may hear what came after first.
        let (mut told, mut heard) = (lost.is_empty(), Vec::new());
        while !told || heard.len() < present.len() {
            match feed.expect() {
                Item::Open { .. } => {}
                item if is_lost_tail(&item) => told = true,
                item if present.contains(item.id()) => heard.push(item.id().clone()),
                item => assert!(lost.contains(item.id()), "{transport:?}: {item:?}"),
            }
        }
        assert_eq!(heard, present, "{transport:?}");
    }
    let (_crowd, told) = Crowd::resumed(&relay, Some(&away));
    for items in told {
        let heard = ids(&items);
        assert!(present.iter().all(|id| heard.contains(&id)), "{items:?}");
        let missing = lost.iter().filter(|id| !heard.contains(id)).count();
        assert!(missing == 0 || items.iter().any(is_lost_tail), "{missing} lost: {items:?}");
    }
}

#[test]
fn sentinels_that_are_all_away_are_a_reason_only_when_the_master_must_be_found() {
    let sentinel = Sentinel::start();
    let relay = instance(&sentinel.url());
    let mut crowd = Crowd::on(&relay);
    sentinel.sentinel(0).kill();
    let ids = store(&relay, "without", 2);
    crowd.hear(&ids);
    let late = instance(&sentinel.url());
    let why = unready(&late);
    assert!(why.contains(&sentinel.sentinel(0).address().to_string()), "{why}");
    sentinel.sentinel(0).start_again();
    ready(&late);
    let id = stored(&late, "t", "with").0;
    crowd.hear(&[id]);
}

fn is_lost_tail(item: &Item) -> bool {
    matches!(item, Item::Gap { reason, .. } if reason == "epoch")
}

fn ids(items: &[Item]) -> Vec<&String> {
    items.iter().filter(|item| matches!(item, Item::Event { .. })).map(Item::id).collect()
}

/// These events and no others; a lost tail may be told more than once.
#[track_caller]
fn hear_beyond_gaps(crowd: &mut Crowd, expected: &[String]) {
    for (transport, feed) in &mut crowd.0 {
        let mut heard = Vec::new();
        while heard.len() < expected.len() {
            match feed.expect() {
                item if is_lost_tail(&item) => {}
                item => heard.push(item.id().clone()),
            }
        }
        assert_eq!(heard, expected, "{transport:?}");
    }
}
