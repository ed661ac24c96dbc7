//! That these do what they say: a test that believes a server was killed must not be wrong.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::{Balancer, Cluster, Proxy, Redis, Reply, Sentinel, Setup, Talk};
use crate::client::soon;

/// Time in which nothing must come. What this proves needs no more: everything is on one machine.
const SILENCE: Duration = Duration::from_millis(100);

#[track_caller]
fn get(redis: &Redis, key: &str) -> Option<String> {
    match redis.call(&["GET", key]) {
        Reply::Nil => None,
        value => Some(value.text()),
    }
}

#[track_caller]
fn set(redis: &Redis, key: &str, value: &str) {
    redis.call(&["SET", key, value]);
}

#[track_caller]
fn redis_cli(arguments: &[&str]) -> String {
    let output = Command::new("redis-cli").args(arguments).stdin(Stdio::null()).output().expect("redis-tools");
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

#[test]
fn a_durable_server_comes_back_with_its_data_or_without() {
    let redis = Setup::new().durable().start();
    let port = redis.port();
    set(&redis, "a", "1");
    redis.kill();
    assert!(!redis.is_up());
    let refused = TcpStream::connect(redis.address()).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    redis.start_again();
    assert_eq!((redis.port(), get(&redis, "a").as_deref()), (port, Some("1")));
    assert_eq!(redis_cli(&["-u", &redis.url(), "GET", "a"]), "1");
    redis.kill();
    redis.start_again_empty();
    assert_eq!((redis.port(), get(&redis, "a")), (port, None));
}

#[test]
fn one_that_keeps_nothing_comes_back_empty_and_as_another_process() {
    let redis = Redis::start();
    set(&redis, "a", "1");
    let first = redis.info("server")["run_id"].clone();
    redis.kill();
    redis.start_again();
    assert_eq!(get(&redis, "a"), None);
    assert_ne!(redis.info("server")["run_id"], first);
}

#[test]
fn a_paused_server_answers_when_it_goes_on() {
    let redis = Setup::new().durable_within_a_second().start();
    let mut talk = redis.talk().patient(SILENCE);
    redis.pause();
    assert!(!redis.is_up());
    assert_eq!(talk.try_call(&["PING"]).expect_err("paused").kind(), ErrorKind::TimedOut);
    redis.resume();
    let mut talk = talk.patient(crate::client::PATIENCE);
    assert_eq!(talk.reply().expect("the answer from before"), Reply::Bytes(b"PONG".into()));
    redis.pause();
    // Ends also what is paused, and leaves nothing behind.
    let (folder, address) = (redis.socket().parent().expect("a folder").to_owned(), redis.address());
    drop(redis);
    assert!(!folder.exists() && TcpStream::connect(address).is_err());
}

#[test]
fn every_door_has_its_address() {
    let redis = Setup::new()
        .tls()
        .password("for-all")
        .user("app", "for-one", "~app:* &* +@all")
        .line("maxmemory 100mb")
        .start();
    redis.config_set("maxmemory-policy", "noeviction");
    assert_eq!(redis.info("memory")["maxmemory"], "104857600");
    let port = redis.port().to_string();
    assert_eq!(redis_cli(&["-p", &port, "PING"]), "NOAUTH Authentication required.");
    let mut app = Talk::connect(redis.address()).expect("it listens");
    app.auth("app", "for-one");
    assert_eq!(app.call(&["ACL", "WHOAMI"]).text(), "app");
    assert_eq!(redis_cli(&["-u", &redis.url_as("default", "for-all"), "PING"]), "PONG");
    assert_eq!(redis_cli(&["-u", &redis.url_as("app", "for-one"), "SET", "app:1", "x"]), "OK");
    assert!(redis_cli(&["-u", &redis.url_as("app", "for-one"), "SET", "else", "x"]).starts_with("NOPERM"));
    assert_eq!(
        redis_cli(&["-a", "for-all", "--no-auth-warning", "-s", &redis.unix_url()["unix://".len()..], "PING"]),
        "PONG"
    );
    let ca = redis.ca().to_str().expect("UTF-8");
    let tls = |ca: &str| {
        redis_cli(&["--tls", "--cacert", ca, "-u", &redis.tls_url(), "--user", "app", "--pass", "for-one", "PING"])
    };
    assert_eq!(tls(ca), "PONG");
    let other = Setup::new().tls().start();
    assert_ne!(tls(other.ca().to_str().expect("UTF-8")), "PONG", "signed by somebody else");
}

#[test]
fn what_is_published_and_appended_arrives_in_order() {
    let redis = Redis::start();
    let (mut hears, mut says) = (redis.talk(), redis.talk());
    hears.call(&["SUBSCRIBE", "plain"]);
    assert_eq!(says.publish("plain", "one"), 1);
    assert_eq!(says.publish("other", "none"), 0);
    let payloads: Vec<String> = (0..2_500).map(|n| n.to_string()).collect();
    assert_eq!(says.publish_all("plain", &payloads), vec![1; 2_500]);
    for payload in std::iter::once("one").chain(payloads.iter().map(String::as_str)) {
        assert_eq!(hears.reply().expect("it comes").list()[2].text(), payload);
    }
    let mut hears = redis.talk();
    hears.call(&["SSUBSCRIBE", "sharded"]);
    assert_eq!(says.spublish("sharded", b"\xff\r\n"), 1);
    assert_eq!(hears.reply().expect("it comes").list()[2].bytes(), b"\xff\r\n");
    let ids = [says.xadd("s", &[("data", "1")]), says.xadd("s", &[("data", "2"), ("more", "3")])];
    let entries = says.call(&["XRANGE", "s", "-", "+"]);
    let found: Vec<String> = entries.list().iter().map(|entry| entry.list()[0].text()).collect();
    assert_eq!(found, ids);
}

#[test]
fn a_slot_moves_with_its_keys() {
    let cluster = Cluster::start();
    assert_eq!(cluster.url().matches(',').count(), 2);
    let from = cluster.owner_of("{here}:0");
    let to = (from + 1) % 3;
    let keys: Vec<String> = (0..150).map(|n| format!("{{here}}:{n}")).collect();
    keys.iter().for_each(|key| set(cluster.node(from), key, key));
    cluster.move_slot_of("{here}", to);
    assert_eq!(cluster.owner_of("{here}:0"), to);
    keys.iter().for_each(|key| assert_eq!(get(cluster.node(to), key).as_ref(), Some(key)));
    for other in (0..3).filter(|index| *index != to) {
        let answer = cluster.node(other).talk().call(&["GET", "{here}:0"]);
        assert!(matches!(&answer, Reply::Error(e) if e.starts_with("MOVED")), "{answer:?} from {other}");
    }
}

#[test]
fn a_cluster_survives_its_masters_one_after_the_other() {
    let cluster = Cluster::with_replicas();
    assert_eq!(cluster.nodes().len(), 6);
    let first = cluster.owner_of("key");
    set(cluster.node(first), "key", "1");
    let wait = cluster.node(first).call(&["WAIT", "1", "5000"]);
    let next = cluster.fail_over(first);
    assert_eq!((wait, cluster.owner_of("key")), (Reply::Int(1), next));
    assert_eq!(get(cluster.node(next), "key").as_deref(), Some("1"));
    // Now by force, and before the others notice.
    cluster.node(next).kill();
    assert_eq!(cluster.fail_over(next), first);
    assert_eq!(get(cluster.node(first), "key").as_deref(), Some("1"));
    cluster.node(next).start_again();
    cluster.wait_follows(next, first);
    assert_eq!(cluster.owner_of("key"), first);
}

#[test]
fn an_ordered_failover_loses_nothing() {
    let sentinel = Sentinel::with(&Setup::new(), 3);
    assert_eq!(sentinel.url().matches(',').count(), 2);
    let old = sentinel.master().port();
    set(sentinel.master(), "a", "1");
    sentinel.fail_over();
    assert_eq!(sentinel.replica().port(), old);
    assert_eq!(get(sentinel.master(), "a").as_deref(), Some("1"));
    assert_eq!(sentinel.sentinel(0).call(&["PING"]).text(), "PONG");
}

#[test]
fn a_failover_with_a_lagging_replica_loses_the_tail_and_only_that() {
    let sentinel = Sentinel::start();
    for round in ["1", "2"] {
        let old = sentinel.master().port();
        set(sentinel.master(), "kept", round);
        sentinel.fail_over_without(|| set(sentinel.master(), "lost", round));
        let master = sentinel.master();
        assert_ne!(master.port(), old);
        assert_eq!((get(master, "kept").as_deref(), get(master, "lost")), (Some(round), None));
        sentinel.start_old_again();
        assert_eq!((sentinel.replica().port(), get(sentinel.replica(), "lost")), (old, None));
    }
    // One that only lagged loses nothing.
    sentinel.lag_replica();
    set(sentinel.master(), "late", "1");
    assert_eq!(get(sentinel.replica(), "late"), None);
    sentinel.catch_up();
    assert_eq!(get(sentinel.replica(), "late").as_deref(), Some("1"));
}

fn talk_over(proxy: &Proxy) -> Talk {
    Talk::connect(proxy.address()).expect("the proxy listens").patient(crate::client::PATIENCE)
}

#[test]
fn a_proxy_passes_cuts_and_refuses() {
    let redis = Redis::start();
    let proxy = Proxy::before(redis.address());
    assert!(proxy.url().ends_with(&proxy.address().port().to_string()));
    let mut talk = talk_over(&proxy);
    talk.call(&["SET", "a", "1"]).ok();
    proxy.cut();
    talk.try_call(&["GET", "a"]).expect_err("it was cut");
    let mut talk = talk_over(&proxy);
    assert_eq!(talk.call(&["GET", "a"]).text(), "1");
    proxy.refuse();
    talk.try_call(&["GET", "a"]).expect_err("cut as well");
    assert_eq!(TcpStream::connect(proxy.address()).expect_err("refused").kind(), ErrorKind::ConnectionRefused);
    proxy.accept();
    assert_eq!(talk_over(&proxy).call(&["GET", "a"]).text(), "1");
    assert_eq!(proxy.accepted(), 3);
    let other = Redis::start();
    proxy.set_target(other.address());
    assert_eq!(talk_over(&proxy).call(&["GET", "a"]), Reply::Nil);
}

#[test]
fn a_stalled_proxy_holds_everything_and_loses_nothing() {
    let redis = Redis::start();
    let proxy = Proxy::before(redis.address());
    let mut talk = talk_over(&proxy).patient(SILENCE);
    talk.call(&["SET", "a", "1"]).ok();
    proxy.stall();
    assert_eq!(talk.try_call(&["SET", "a", "2"]).expect_err("stalled").kind(), ErrorKind::TimedOut);
    assert_eq!(get(&redis, "a").as_deref(), Some("1"), "nor did the request go through");
    proxy.flow();
    assert_eq!(talk.patient(crate::client::PATIENCE).reply().expect("it comes"), Reply::Bytes(b"OK".into()));
    assert_eq!(get(&redis, "a").as_deref(), Some("2"));
}

#[test]
fn a_swallowed_reply_is_lost_after_the_server_did_it() {
    let redis = Redis::start();
    let proxy = Proxy::before(redis.address());
    proxy.swallow_replies_to("INCR", 1);
    let mut talk = talk_over(&proxy);
    assert_eq!(talk.call(&["GET", "n"]), Reply::Nil, "others are answered");
    assert_eq!(proxy.swallowed(), 0);
    let lost = talk.try_call(&["INCR", "n"]).expect_err("its reply is lost");
    assert_eq!(lost.kind(), ErrorKind::UnexpectedEof);
    assert_eq!((proxy.swallowed(), get(&redis, "n").as_deref()), (1, Some("1")));
    assert_eq!(talk_over(&proxy).call(&["INCR", "n"]), Reply::Int(2));
    proxy.swallow_replies(2);
    for _ in 0..2 {
        talk_over(&proxy).try_call(&["PING"]).expect_err("any reply");
    }
    assert_eq!(talk_over(&proxy).call(&["PING"]).text(), "PONG");
}

/// Answers each connection with its own name.
fn named(name: u8) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || listener.incoming().flatten().for_each(|mut one| drop(one.write_all(&[name]))));
    address
}

fn who_answers(balancer: &Balancer) -> Vec<u8> {
    let mut answer = Vec::new();
    let mut stream = TcpStream::connect(balancer.address()).expect("it listens");
    stream.set_read_timeout(Some(soon() - std::time::Instant::now())).expect("a timeout");
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn a_balancer_goes_round_and_past_who_is_away() {
    let [a, b, c] = [b'a', b'b', b'c'].map(named);
    let balancer = Balancer::over(vec![a, b]);
    let mut four: Vec<u8> = (0..4).flat_map(|_| who_answers(&balancer)).collect();
    four.sort();
    assert_eq!(four, b"aabb");
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, super::ports::free()));
    balancer.set(vec![nobody, c]);
    let two: Vec<u8> = (0..2).flat_map(|_| who_answers(&balancer)).collect();
    assert_eq!(two, b"cc");
    balancer.set(vec![nobody]);
    assert_eq!(who_answers(&balancer), b"");
    balancer.cut();
}
