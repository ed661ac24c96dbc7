//! The ways in: TLS with an authority of one's own, ACL users with the least rights that suffice, Unix sockets.

use std::collections::BTreeSet;

use super::{Crowd, LOG, cursor_now, instance, post, ready, refused, sharing, store, stored, unready_because};
use crate::client::feed::{Feed, Item, Transport};
use crate::harness::{Relay, fresh_folder};
use crate::redis::tls::Tls;
use crate::redis::{Cluster, Redis, Reply, Sentinel, Setup};

/// What an instance that keeps its streams in Redis needs to be allowed, with the prefix `relay`. Not more: a test counts
/// what is used; and the README says the same. (In a Cluster `+cluster|slots +asking` as well; for `[[source.redis]]` what it reads from.)
pub const LEAST: &str = "resetkeys resetchannels ~relay:* &relay:* -@all +info +ping +get +set +xread +publish \
                         +subscribe +evalsha +eval +time +persist +pexpire +hget +hgetall +hmget +hset +hdel +xadd \
                         +xtrim +xrange +xrevrange +zadd +zrem +zcard +zrange +zrangebyscore +zpopmin";

/// A live stream; one that keeps last values, some of which are cleared, with an age; and the built-in one without an age.
const EVERYTHING: &str = r#"
[[stream]]
name = "now"
topics = ["now/**"]
live = true
[[stream]]
name = "last"
topics = ["last/**"]
retain = 2
max_age = "1h"
clear = { ".gone" = true }
"#;

/// It stores what it hears.
#[track_caller]
fn serves(relay: &Relay) {
    ready(relay);
    let mut crowd = Crowd::on(relay);
    let ids = store(relay, "stored", 3);
    crowd.hear(&ids);
}

#[test]
fn over_tls_with_an_authority_of_ones_own() {
    let redis = Setup::new().tls().password("let me in".replace(' ', "-").as_str()).start();
    let url = redis.tls_url().replace("://", "://:let-me-in@");
    let relay = Relay::start(&sharing(&url, &format!("ca = \"{}\"", redis.ca().display()), ""));
    serves(&relay);
    assert!(redis.call(&["XLEN", LOG]).int() == 3);
}

#[test]
fn an_authority_that_did_not_sign_is_refused_with_a_reason() {
    let redis = Setup::new().tls().start();
    let folder = fresh_folder();
    let another = Tls::make(&folder);
    let relay = Relay::start(&sharing(&redis.tls_url(), &format!("ca = \"{}\"", another.ca.display()), ""));
    unready_because(&relay, "certificate");
    unready_because(&relay, "`ca`");
    refused(&relay, "refused");
    // The system's authorities did not sign it either.
    let relay = instance(&redis.tls_url());
    unready_because(&relay, "certificate");
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn through_a_unix_socket() {
    let redis = Redis::start();
    let relay = instance(&redis.unix_url());
    serves(&relay);
    redis.kill();
    unready_because(&relay, "redis.sock");
    redis.start_again();
    ready(&relay);
}

#[test]
fn as_a_user_with_the_least_rights_that_suffice() {
    let redis = Setup::new().user("relay", "let-me-in", LEAST).start();
    let url = redis.url_as("relay", "let-me-in");
    let file = sharing(&url, "", EVERYTHING).replace("engine = \"redis\"", "engine = \"redis\"\nmemory = \"1KiB\"");
    // The one does, and another that comes later finds and reads what there is.
    let relay = Relay::start(&file.replace("exempt = [\"127.0.0.0/8\"]", ""));
    ready(&relay);
    // Beyond the first page.
    store(&relay, "long ago", 130);
    let cursor = cursor_now(&relay);
    let mut live = Feed::open(relay.public(), "/events", Transport::Ndjson, "topic=now/x", None);
    live.until_open();
    store(&relay, "stored", 10);
    for number in 0..10 {
        stored(&relay, &format!("last/{number}"), &number.to_string());
    }
    relay.publish("last/9", r#"{"gone":true}"#);
    post(&relay, "now/x", "live").expect(200);
    assert!(matches!(live.expect(), Item::Other { .. }), "a live event has no id");
    let later = Relay::start(&file);
    ready(&later);
    let mut feed = Feed::open(later.public(), "/events", Transport::Sse, "topic=t", Some(&cursor));
    assert_eq!(feed.events(10).len(), 10);
    drop((live, feed));
    drop((relay, later));
    let denied = redis.call(&["ACL", "LOG"]);
    let of_ours = denied.list().iter().map(|entry| entry.list().iter().map(words).collect::<String>());
    assert_eq!(of_ours.collect::<Vec<_>>(), [""; 0]);
    let used = redis.info("commandstats");
    let used = used.keys().filter_map(|name| name.strip_prefix("cmdstat_"));
    // What everybody may, and what this test itself says.
    let ours = |name: &&str| !["hello", "auth", "acl|"].iter().any(|own| name.starts_with(own));
    let used: BTreeSet<&str> = used.filter(ours).collect();
    let allowed: BTreeSet<&str> = LEAST.split(' ').filter_map(|rule| rule.strip_prefix('+')).collect();
    assert_eq!(used, allowed);
}

fn words(reply: &Reply) -> String {
    if let Reply::Bytes(bytes) = reply { format!("{} ", String::from_utf8_lossy(bytes)) } else { String::new() }
}

#[test]
fn as_such_a_user_in_a_cluster_and_behind_sentinels() {
    let cluster =
        Cluster::with(&Setup::new().user("relay", "let-me-in", &format!("{LEAST} +cluster|slots +asking")), false);
    let url = cluster.url().replace("://", "://relay:let-me-in@");
    let wide = "[[stream]]\nname = \"wide\"\ntopics = [\"**\"]\npartitions = 4\n";
    serves(&Relay::start(&sharing(&url, "", wide)));
    let sentinel = Sentinel::with(&Setup::new().user("relay", "let-me-in", LEAST), 1);
    serves(&instance(&sentinel.url().replace("://", "://relay:let-me-in@")));
    for node in cluster.nodes().iter().chain([sentinel.master()]) {
        assert_eq!(node.call(&["ACL", "LOG"]).list(), []);
    }
}

#[test]
fn a_user_who_may_not_is_told_what_is_missing() {
    let redis = Setup::new().user("relay", "let-me-in", &LEAST.replace("+evalsha", "")).start();
    let relay = instance(&redis.url_as("relay", "let-me-in"));
    unready_because(&relay, "evalsha");
    unready_because(&relay, "ACL");
    redis.call(&["ACL", "SETUSER", "relay", "+evalsha"]);
    serves(&relay);
}
