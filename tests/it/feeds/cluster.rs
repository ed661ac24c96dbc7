//! Channels of a Cluster: those of its shards have one order each, and plain ones that of the node where all listen.

use super::{counted, hears, holder, in_redis, listen, not_ready, say, start_all, told, wait_ready, wait_settled};
use crate::client::feed::{Feed, Transport};
use crate::harness::{Signal, until};
use crate::redis::{Cluster, Redis, Talk};

fn say_to_shard(cluster: &Cluster, channel: &str, numbers: std::ops::RangeInclusive<u64>) {
    let mut talk = cluster.node(cluster.owner_of(channel)).talk();
    for number in numbers {
        assert_eq!(talk.spublish(channel, number.to_string()), 2, "both instances hear {channel}");
    }
}

#[test]
fn channels_of_shards_are_exact_and_follow_their_slots() {
    let (cluster, store) = (Cluster::start(), Redis::start());
    let source = format!(
        "[[source.redis]]\nchannels = [\"one\", \"two\", \"{{tag}}.three\"]\nshard = true\ntopic = \"{{channel}}\"\nurl = \"{}\"\n",
        cluster.url()
    );
    let mut relays = start_all(2, &in_redis(&store.url(), &source));
    let mut feeds: Vec<Feed> = ["one", "two", "{tag}.three"]
        .iter()
        .map(|channel| {
            let mut feed = Feed::open(
                relays[0].public(),
                "/events",
                Transport::Sse,
                &format!("topic={}", channel.replace('{', "%7B").replace('}', "%7D")),
                None,
            );
            feed.until_open();
            feed
        })
        .collect();
    for (feed, channel) in feeds.iter_mut().zip(["one", "two", "{tag}.three"]) {
        say_to_shard(&cluster, channel, 1..=5);
        hears(feed, 1..=5);
    }
    // The slot of one moves: what was said until it is subscribed to again may be missing there, and nowhere else.
    let from = cluster.owner_of("one");
    cluster.move_slot_of("one", (from + 1) % 3);
    let gaps = |relays: &[crate::harness::Relay], source: &str| {
        relays.iter().map(|relay| counted(relay, "gaps_total", source)).sum::<f64>()
    };
    until(|| gaps(&relays, "one") == 1.0, || format!("{:?}\n{}", not_ready(&relays[0]), relays[0].log()));
    relays.iter().for_each(wait_ready);
    say_to_shard(&cluster, "one", 6..=9);
    assert_eq!(told(&mut feeds[0], 9), [None, Some(6), Some(7), Some(8), Some(9)]);
    assert_eq!(gaps(&relays, "two") + gaps(&relays, "{tag}.three"), 0.0);
    // And a takeover costs nothing.
    wait_settled(&store);
    let holds = holder(&relays, "two");
    drop(feeds);
    relays[holds].signal(Signal::KILL);
    relays[holds].wait_for_exit();
    let mut feed = Feed::open(relays[1 - holds].public(), "/events", Transport::Sse, "topic=two", None);
    feed.until_open();
    let mut talk = cluster.node(cluster.owner_of("two")).talk();
    for number in 6..=20 {
        talk.spublish("two", number.to_string());
    }
    hears(&mut feed, 6..=20);
    drop(feed);
}

#[test]
fn plain_channels_are_exact_for_those_who_listen_at_one_node() {
    let cluster = Cluster::start();
    let source = "[[source.redis]]\nchannels = [\"numbers\", \"other.*\"]\ntopic = \"{channel}\"\n";
    let mut relays = start_all(2, &in_redis(&cluster.url(), source));
    let holds = holder(&relays, "numbers +1");
    let mut feed = listen(&relays[1 - holds]);
    let mut talks: Vec<Talk> = (0..3).map(|node| cluster.node(node).talk()).collect();
    say(&mut talks[0], "numbers", 1..=5);
    hears(&mut feed, 1..=5);
    let leases = || (0..3).find(|node| !cluster.node(*node).call(&["KEYS", "relay:1:{source:*"]).list().is_empty());
    let store = cluster.node(leases().expect("a node has the lease"));
    wait_settled(store);
    relays[holds].signal(Signal::KILL);
    relays[holds].wait_for_exit();
    // Whatever node it is published at.
    for number in 6..=20 {
        let node = number as usize % 3;
        talks[node].publish("other.a", number.to_string());
        hears(&mut feed, number..=number);
    }
    assert_eq!(counted(&relays[1 - holds], "gaps_total", "numbers +1"), 0.0);
}
