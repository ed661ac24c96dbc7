//! Between instances: the same events in the same order, and a cursor is good everywhere.

use std::thread;

use super::{Crowd, cursor_now, instance, post, sharing, store, stored};
use crate::checker::{check_items, ids, position_of_cursor};
use crate::client::feed::{Feed, Transport};
use crate::harness::Relay;
use crate::redis::Redis;

#[test]
fn what_one_instance_took_is_heard_on_every_other() {
    let redis = Redis::start();
    let (one, other) = (instance(&redis.url()), instance(&redis.url()));
    let (mut here, mut there) = (Crowd::on(&one), Crowd::on(&other));
    let published = [store(&one, "a", 3), store(&other, "b", 3)].concat();
    here.hear(&published);
    there.hear(&published);
}

#[test]
fn all_instances_deliver_the_same_order_whoever_appends() {
    const EACH: usize = 200;
    let redis = Redis::start();
    let relays = [instance(&redis.url()), instance(&redis.url())];
    let mut feeds: Vec<Feed> =
        relays.iter().map(|relay| Feed::open(relay.public(), "/events", Transport::Sse, "", None)).collect();
    feeds.iter_mut().for_each(|feed| drop(feed.until_open()));
    thread::scope(|scope| {
        for (number, relay) in relays.iter().enumerate() {
            scope.spawn(move || store(relay, &format!("from-{number}"), EACH));
        }
    });
    let [first, second] = &mut feeds[..] else { panic!("two") };
    let heard = first.events(2 * EACH);
    let order = |items: &[crate::client::feed::Item]| items.iter().map(|item| item.id().clone()).collect::<Vec<_>>();
    assert_eq!(order(&heard), order(&second.events(2 * EACH)));
    let mut payloads: Vec<String> = heard.iter().map(|item| item.data().to_string()).collect();
    payloads.sort_unstable();
    payloads.dedup();
    assert_eq!(payloads.len(), 2 * EACH);
}

/// Many more events than any instance keeps in process: older pages come from Redis.
#[test]
fn a_cursor_goes_on_at_any_instance_also_at_a_later_one_and_over_any_transport() {
    const COUNT: usize = 1_500;
    let redis = Redis::start();
    let file = sharing(&redis.url(), "", "").replace("engine = \"redis\"", "engine = \"redis\"\nmemory = \"16KiB\"");
    let first = Relay::start(&file);
    let mut feed = Feed::open(first.public(), "/events", Transport::WebSocket, "", None);
    let (_, began) = feed.until_open();
    let mut published: Vec<(String, String)> = Vec::new();
    // The half of them by the first, which the second hears as well.
    let second = Relay::start(&file);
    for number in 0..COUNT {
        let relay = if number % 2 == 0 { &first } else { &second };
        published.push((stored(relay, "t", &format!("{number}")).0, "t".into()));
    }
    let later = Relay::start(&file);
    let seen = feed.events(COUNT);
    check_items(&published, |_| true, position_of_cursor(&began), &seen);
    for relay in [&first, &second, &later] {
        for (number, transport) in Transport::ALL.into_iter().enumerate() {
            let at = 100 * number + 77;
            let mut again = Feed::open(relay.public(), "/events", transport, "", seen[at].cursor());
            let (items, _) = again.until_open();
            let after = position_of_cursor(seen[at].cursor().expect("in turn"));
            check_items(&published, |_| true, after, &items);
            assert_eq!(items.len(), COUNT - 1 - at, "{transport:?}");
        }
    }
}

#[test]
fn a_cursor_goes_from_instance_to_instance_without_a_seam() {
    let redis = Redis::start();
    let relays = [instance(&redis.url()), instance(&redis.url())];
    let began = cursor_now(&relays[0]);
    let (mut published, mut items, mut cursor) = (Vec::new(), Vec::new(), began.clone());
    for (turn, transport) in Transport::ALL.into_iter().cycle().take(12).enumerate() {
        published
            .extend(store(&relays[turn % 2], &format!("{turn}-away"), 3).into_iter().map(|id| (id, "t".to_owned())));
        let mut feed = Feed::open(relays[(turn + 1) % 2].public(), "/events", transport, "", Some(&cursor));
        published
            .extend(store(&relays[turn % 2], &format!("{turn}-here"), 2).into_iter().map(|id| (id, "t".to_owned())));
        let heard = feed.events(5);
        cursor = heard[4].cursor().expect("in turn").to_owned();
        items.extend(heard);
    }
    check_items(&published, |_| true, position_of_cursor(&began), &items);
}

#[test]
fn a_key_is_one_event_on_all_instances() {
    let redis = Redis::start();
    let (one, other) = (instance(&redis.url()), instance(&redis.url()));
    let (first, _) = stored(&one, "t", "the same");
    let answer = post(&other, "t", "the same").expect(200).json();
    assert_eq!((ids(&answer), &answer["duplicates"]), (vec![first], &1.into()));
}
