//! The file changes while sources are read.

use super::{NUMBERS, counted, hears, in_memory, in_redis, listen, say, start, told, wait_ready};
use crate::harness::until;
use crate::redis::Redis;

fn source(channels: &str, topic: &str) -> String {
    format!("[[source.redis]]\nchannels = [{channels}]\ntopic = \"{topic}\"\n")
}

#[test]
fn what_stays_goes_on_and_what_changes_begins_with_a_gap() {
    let redis = Redis::start();
    for file in [in_redis, in_memory] {
        let toml = |sources: &[String]| file(&redis.url(), &sources.concat());
        let relay = start(&toml(&[NUMBERS.to_owned(), source("\"a\", \"b\"", "{channel}")]));
        let (mut feed, mut talk) = (listen(&relay), redis.talk());
        say(&mut talk, "numbers", 1..=3);
        hears(&mut feed, 1..=3);
        say(&mut talk, "a", 4..=4);
        hears(&mut feed, 4..=4);
        // Another topic, in place; another list, which is another source; one that is new.
        let changed =
            [source("\"numbers\"", "n/{channel}"), source("\"b\", \"c\"", "{channel}"), source("\"d\"", "{channel}")];
        relay.reload(|| relay.write_config(&toml(&changed)));
        wait_ready(&relay);
        until(|| counted(&relay, "gaps_total", "b +1") == 1.0, || relay.log());
        say(&mut talk, "numbers", 5..=6);
        assert_eq!(told(&mut feed, 6), [None, Some(5), Some(6)]);
        for (channel, number) in [("b", 7), ("c", 8), ("d", 9)] {
            assert_eq!(talk.publish(channel, number.to_string()), 1, "{channel}");
            hears(&mut feed, number..=number);
        }
        assert_eq!(talk.publish("a", "10"), 0, "nobody listens any more");
        assert_eq!(counted(&relay, "gaps_total", "numbers") + counted(&relay, "gaps_total", "d"), 0.0);
        assert!(!relay.metrics().contains("source=\"a +1\""), "what is gone is not counted any more");
        relay.reload(|| relay.write_config(&toml(&[])));
        until(|| talk.publish("numbers", "11") == 0, || relay.log());
        assert!(super::not_ready(&relay).is_empty());
        drop(feed);
    }
}
