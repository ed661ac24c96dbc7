//! A Redis Cluster: the partitions of a stream on several nodes, slots that move, masters that change.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{post, ready, sharing, stored, unready_because};
use crate::checker::ids;
use crate::client::feed::{Feed, Item, Transport};
use crate::harness::{Relay, until};
use crate::redis::{Cluster, Redis, Setup};

const PARTITIONS: usize = 4;

fn spread(url: &str) -> String {
    let stream = format!("[[stream]]\nname = \"wide\"\ntopics = [\"**\"]\npartitions = {PARTITIONS}\n");
    sharing(url, "", &stream)
}

fn log_of(partition: usize) -> String {
    format!("relay:1:{{wide/{partition}}}:log")
}

/// Publishes to many topics over both instances while `act` does, and before and after it: what was acknowledged. Ends
/// when `act` has, and so many more are stored.
fn under_load(relays: &[Relay; 2], act: impl FnOnce()) -> BTreeSet<String> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let publishers: Vec<_> = (0..2)
            .map(|number| {
                let (relay, done) = (&relays[number], &done);
                scope.spawn(move || {
                    let (mut ids, mut left) = (BTreeSet::new(), 20);
                    for count in 0.. {
                        left -= usize::from(done.load(Ordering::Acquire));
                        if left == 0 {
                            break;
                        }
                        ids.insert(stored(relay, &format!("t/{}", count % 16), &format!("{number}-{count}")).0);
                    }
                    ids
                })
            })
            .collect();
        act();
        done.store(true, Ordering::Release);
        publishers.into_iter().flat_map(|publisher| publisher.join().expect("all are stored")).collect()
    })
}

/// A session on each instance.
fn listen(relays: &[Relay; 2]) -> [Feed; 2] {
    [Transport::WebSocket, Transport::Sse].map(|transport| {
        let relay = &relays[usize::from(transport == Transport::Sse)];
        let mut feed = Feed::open(relay.public(), "/events", transport, "", None);
        feed.until_open();
        feed
    })
}

/// Each hears all of it, once, nothing else, and in the order of its partition.
#[track_caller]
fn hear(feeds: &mut [Feed; 2], published: &BTreeSet<String>) {
    let mut orders = Vec::new();
    for feed in feeds {
        let heard = feed.events(published.len());
        assert_eq!(&heard.iter().map(|event| event.id().clone()).collect::<BTreeSet<_>>(), published);
        orders.push(by_topic(&heard));
    }
    assert_eq!(orders[0], orders[1]);
}

fn by_topic(items: &[Item]) -> std::collections::BTreeMap<String, Vec<String>> {
    let mut all = std::collections::BTreeMap::<String, Vec<String>>::new();
    for item in items {
        let Item::Event { id, topic, .. } = item else { panic!("no event: {item:?}") };
        all.entry(topic.clone()).or_default().push(id.clone());
    }
    all
}

#[track_caller]
fn start(cluster: &Cluster) -> ([Relay; 2], [Feed; 2]) {
    let relays = [0, 1].map(|_| Relay::start(&spread(&cluster.url())));
    relays.iter().for_each(ready);
    let feeds = listen(&relays);
    (relays, feeds)
}

#[test]
fn a_stream_lies_on_several_nodes_and_is_one() {
    let cluster = Cluster::start();
    let (relays, mut feeds) = start(&cluster);
    let published = under_load(&relays, || ());
    hear(&mut feeds, &published);
    let owners: BTreeSet<usize> = (0..PARTITIONS).map(|number| cluster.owner_of(&log_of(number))).collect();
    assert!(owners.len() > 1, "all on one node");
    // Who comes later finds all of it.
    let mut again = Feed::open(relays[1].public(), "/events", Transport::Poll, "replay=1000", None);
    let (items, _) = again.until_open();
    assert_eq!(items.iter().map(|item| item.id().clone()).collect::<BTreeSet<_>>(), published);
}

#[test]
fn a_slot_that_moves_under_load_loses_nothing_and_no_gap_is_told() {
    let cluster = Cluster::start();
    let (relays, mut feeds) = start(&cluster);
    let published = under_load(&relays, || {
        for partition in [0, 1, 0] {
            let log = log_of(partition);
            let from = cluster.owner_of(&log);
            cluster.move_slot_of(&log, (from + 1) % 3);
        }
    });
    hear(&mut feeds, &published);
    relays.iter().for_each(ready);
}

#[test]
fn a_master_that_hands_over_to_its_replica_loses_nothing_and_no_gap_is_told() {
    let cluster = Cluster::with_replicas();
    let (relays, mut feeds) = start(&cluster);
    let published = under_load(&relays, || {
        let master = cluster.owner_of(&log_of(0));
        cluster.fail_over(master);
    });
    hear(&mut feeds, &published);
    relays.iter().for_each(ready);
}

/// Also the first node of the URL, which everybody asks first.
#[test]
fn a_master_that_hangs_is_replaced_and_found() {
    let cluster = Cluster::with_replicas();
    let (relays, _feeds) = start(&cluster);
    under_load(&relays, || ());
    let replaced = 0;
    cluster.node(replaced).pause();
    cluster.fail_over(replaced);
    relays.iter().for_each(ready);
    for number in 0..PARTITIONS * 8 {
        stored(&relays[number % 2], &format!("t/{number}"), &format!("after-{number}"));
    }
    cluster.node(replaced).resume();
}

#[test]
fn a_node_that_is_gone_takes_only_its_own_partitions_along() {
    let setup = Setup::new().durable().line("cluster-require-full-coverage no");
    let cluster = Cluster::with(&setup, false);
    let (relays, mut feeds) = start(&cluster);
    // Another than the one that is asked whether all is well.
    let probed = cluster.owner_of("relay:format");
    let mut owners = (0..PARTITIONS).map(|number| cluster.owner_of(&log_of(number)));
    let gone = owners.find(|owner| *owner != probed).expect("partitions lie on several nodes");
    let mut published = under_load(&relays, || ());
    // Which topics lie where, by what became of them.
    cluster.node(gone).kill();
    unready_because(&relays[0], "redis+cluster://");
    let topics: Vec<String> = (0..16).map(|number| format!("t/{number}")).collect();
    let mut lost = Vec::new();
    for topic in &topics {
        let answer = post(&relays[0], topic, &format!("while-{topic}"));
        if answer.status() == 200 {
            published.extend(ids(&answer.json()));
        } else {
            lost.push(topic);
        }
    }
    assert!(!lost.is_empty() && lost.len() < topics.len(), "{lost:?}");
    // It is said that it is gone, and not once for each time that somebody finds it so and another node well.
    let probes = |probed: &Redis| {
        let calls = probed.info("commandstats").get("cmdstat_set").cloned().unwrap_or_default();
        calls.strip_prefix("calls=").and_then(|rest| rest.split(',').next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    let enough = probes(cluster.node(probed)) + 8;
    until(
        || {
            assert_eq!(post(&relays[0], lost[0], "again").status(), 503);
            probes(cluster.node(probed)) >= enough
        },
        || "nobody probes".into(),
    );
    let said = relays[0].log().matches("cannot be used").count();
    assert!((1..=3).contains(&said), "{}", relays[0].log());
    cluster.node(gone).start_again();
    cluster.wait_ok();
    relays.iter().for_each(ready);
    published.insert(stored(&relays[1], lost[0], "again").0);
    for topic in lost {
        published.insert(stored(&relays[1], topic, &format!("while-{topic}")).0);
    }
    hear(&mut feeds, &published);
}
