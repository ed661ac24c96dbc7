//! Several instances, one limit: `connections_per_ip` over all that share a Redis. The real relay, a real Redis, and
//! what happens when either dies, sleeps or comes back.

mod counted;

use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;

use crate::client::http::Answer;
use crate::client::websocket::WebSocket;
use crate::harness::{EVENTS, Relay, Signal, config, until};
use crate::redis::{Proxy, Redis, Talk};

const ALICE: &str = "192.0.2.1";
const BOB: &str = "192.0.2.2";

/// An instance that lets so many in from one address, with an endpoint `/few` that allows at most two.
fn start(url: &str, limit: u32) -> Relay {
    let limits = format!("[limits]\nconnections_per_ip = {limit}\nconnects_per_ip = \"10000/s burst 10000\"\n");
    let store = format!("[store]\nengine = \"redis\"\n[redis]\nurl = \"{url}\"\n");
    let few = format!("[[endpoint]]\npath = \"/few\"\ntopics = [\"**\"]\nconnections_per_ip = {}\n", limit.min(2));
    Relay::start(&config(&[&limits, &store, EVENTS, &few].concat()))
}

fn visit(address: SocketAddr, path: &str, who: &str) -> Result<WebSocket, Answer> {
    let target = format!("{path}?topic=none");
    WebSocket::connect(address, &target, &[("X-Forwarded-For", who)]).expect("connects")
}

fn enter(relay: &Relay, who: &str) -> Result<WebSocket, Answer> {
    visit(relay.public(), "/events", who)
}

#[track_caller]
fn let_in(relay: &Relay, who: &str) -> WebSocket {
    enter(relay, who).unwrap_or_else(|answer| panic!("{}{}\n{}", answer.head.raw, answer.text(), relay.metrics()))
}

#[track_caller]
fn turned_away(relay: &Relay, who: &str) {
    let answer = enter(relay, who).err().unwrap_or_else(|| panic!("one too many\n{}", relay.metrics()));
    assert_eq!(answer.status(), 429, "{}{}", answer.head.raw, answer.text());
    assert!(answer.header("retry-after").is_some(), "{}", answer.head.raw);
}

/// Tries until there is a place.
#[track_caller]
fn comes_in(relay: &Relay, who: &str) -> WebSocket {
    let mut inside = None;
    let mut try_again = || {
        inside = enter(relay, who).ok();
        inside.is_some()
    };
    until(&mut try_again, || format!("no place came free\n{}\n{}", relay.metrics(), relay.log()));
    inside.expect("it is inside")
}

/// How many sessions of an address the living instances have told Redis of.
fn told(talk: &mut Talk, who: &str) -> i64 {
    let key = format!("relay:1:{{shares}}:ip:{who}");
    let pairs = |talk: &mut Talk, key: &str| -> Vec<(String, String)> {
        let all = talk.call(&["HGETALL", key]).ok();
        all.list().chunks_exact(2).map(|pair| (pair[0].text(), pair[1].text())).collect()
    };
    let living: Vec<String> = pairs(talk, "relay:1:{shares}:instances").into_iter().map(|(id, _)| id).collect();
    let is_living = |field: &str| living.iter().any(|id| field.split(' ').next() == Some(id));
    let counts = pairs(talk, &key).into_iter().filter(|(field, _)| is_living(field));
    counts.map(|(_, count)| count.parse::<i64>().expect("a number")).sum()
}

/// Waits until that is so many.
#[track_caller]
fn wait_until_told(redis: &Redis, who: &str, sessions: i64) {
    let mut talk = redis.talk();
    let mut last = -1;
    let mut so = || {
        last = told(&mut talk, who);
        last == sessions
    };
    until(&mut so, || format!("{who} never had {sessions}"));
}

fn sessions(relay: &Relay, reason: &str) -> f64 {
    relay.metric(&format!("relay_shares_sessions_total{{reason=\"{reason}\"}}"))
}

/// Waits until so many instances count together, as each of them sees it.
#[track_caller]
fn count_together(relays: &[&Relay], instances: u32) {
    for relay in relays {
        let so = || relay.metric("relay_shares_instances") == f64::from(instances);
        until(so, || format!("not {instances} instances\n{}\n{}", relay.metrics(), relay.log()));
    }
}

#[test]
fn a_limit_counts_over_all_instances() {
    let redis = Redis::start();
    let relays = [(); 3].map(|()| start(&redis.url(), 3));
    let mut inside: Vec<WebSocket> = relays.iter().map(|relay| let_in(relay, ALICE)).collect();
    relays.iter().for_each(|relay| turned_away(relay, ALICE));
    let bob = let_in(&relays[0], BOB);
    // Who leaves one makes room on every other.
    for relay in relays.iter().rev() {
        inside.remove(0);
        inside.push(comes_in(relay, ALICE));
        relays.iter().for_each(|relay| turned_away(relay, ALICE));
    }
    drop(bob);
    for relay in &relays {
        assert_eq!(sessions(relay, "unasked"), 0.0, "{}", relay.log());
        assert!(sessions(relay, "refused") >= 3.0);
        assert!(relay.metric("relay_refused_total{reason=\"connections_per_ip\"}") >= 3.0);
    }
}

#[test]
fn the_number_of_an_endpoint_counts_over_all_instances() {
    let redis = Redis::start();
    let relays = [(); 2].map(|()| start(&redis.url(), 4));
    let few = |relay: &Relay| visit(relay.public(), "/few", ALICE);
    let inside = relays.each_ref().map(|relay| few(relay).expect("two are allowed"));
    for relay in &relays {
        assert_eq!(few(relay).err().map(|answer| answer.status()), Some(429));
        assert_eq!(relay.metric("relay_refused_total{reason=\"endpoint_connections_per_ip\"}"), 1.0);
    }
    let elsewhere = relays.each_ref().map(|relay| let_in(relay, ALICE));
    relays.iter().for_each(|relay| turned_away(relay, ALICE));
    drop((inside, elsewhere));
}

#[test]
fn an_instance_that_dies_gives_its_share_back() {
    let redis = Redis::start();
    let (mut dies, stays) = (start(&redis.url(), 3), start(&redis.url(), 3));
    let gone = [let_in(&dies, ALICE), let_in(&dies, ALICE)];
    let first = let_in(&stays, ALICE);
    turned_away(&stays, ALICE);
    count_together(&[&stays], 2);
    dies.signal(Signal::KILL);
    dies.wait_for_exit();
    let inside = [comes_in(&stays, ALICE), comes_in(&stays, ALICE)];
    turned_away(&stays, ALICE);
    count_together(&[&stays], 1);
    drop((gone, first, inside));
}

#[test]
fn an_instance_that_slept_is_counted_again_when_it_continues() {
    let redis = Redis::start();
    let (sleeps, wakes) = (start(&redis.url(), 3), start(&redis.url(), 3));
    let asleep = [(); 3].map(|()| let_in(&sleeps, ALICE));
    let bob = let_in(&sleeps, BOB);
    turned_away(&wakes, ALICE);
    sleeps.signal(Signal::STOP);
    let inside = comes_in(&wakes, ALICE);
    sleeps.signal(Signal::CONT);
    wait_until_told(&redis, ALICE, 4);
    turned_away(&wakes, ALICE);
    turned_away(&sleeps, ALICE);
    count_together(&[&sleeps, &wakes], 2);
    drop((asleep, bob));
    // One is inside at the other.
    let again = [comes_in(&sleeps, ALICE), comes_in(&sleeps, ALICE)];
    turned_away(&sleeps, ALICE);
    drop((inside, again));
}

#[test]
fn without_redis_each_instance_counts_alone_and_nobody_waits() {
    let redis = Redis::start();
    let relays = [(); 2].map(|()| start(&redis.url(), 3));
    let mut inside = relays.each_ref().map(|relay| vec![let_in(relay, ALICE)]);
    redis.kill();
    for (relay, inside) in relays.iter().zip(&mut inside) {
        relay.wait_for_log("counted by this instance alone");
        let before = sessions(relay, "unasked");
        inside.extend([let_in(relay, ALICE), let_in(relay, ALICE)]);
        turned_away(relay, ALICE);
        let_in(relay, BOB);
        assert_eq!(sessions(relay, "unasked"), before + 3.0, "nobody was asked");
    }
    redis.start_again_empty();
    count_together(&[&relays[0], &relays[1]], 2);
    relays.iter().for_each(|relay| relay.wait_for_log("counted over all instances again"));
    wait_until_told(&redis, ALICE, 6);
    // Three of six leave, all of one instance: still there is no place.
    inside[0].clear();
    wait_until_told(&redis, ALICE, 3);
    relays.iter().for_each(|relay| turned_away(relay, ALICE));
    inside[1].clear();
    wait_until_told(&redis, ALICE, 0);
    let inside = [let_in(&relays[0], ALICE), let_in(&relays[1], ALICE), let_in(&relays[0], ALICE)];
    relays.iter().for_each(|relay| turned_away(relay, ALICE));
    drop(inside);
}

#[test]
fn a_redis_that_falls_silent_keeps_nobody_out() {
    let redis = Redis::start();
    let relays = [(); 2].map(|()| start(&redis.url(), 2));
    let first = let_in(&relays[0], ALICE);
    redis.pause();
    let second = [let_in(&relays[0], ALICE), let_in(&relays[1], ALICE), let_in(&relays[1], ALICE)];
    relays.iter().for_each(|relay| {
        turned_away(relay, ALICE);
        relay.wait_for_log("no answer within");
    });
    redis.resume();
    count_together(&[&relays[0], &relays[1]], 2);
    wait_until_told(&redis, ALICE, 4);
    drop((first, second));
    wait_until_told(&redis, ALICE, 0);
    let inside = [let_in(&relays[1], ALICE), let_in(&relays[0], ALICE)];
    relays.iter().for_each(|relay| turned_away(relay, ALICE));
    drop(inside);
}

#[test]
fn redis_may_be_away_at_the_start() {
    let (redis, proxy) = (Redis::start(), Proxy::before(([127, 0, 0, 1], 1).into()));
    proxy.refuse();
    let settings = ["", "/7"].map(|database| start(&format!("{}{database}", redis.url()), 1));
    let late = start(&proxy.url(), 1);
    late.wait_for_log("counted by this instance alone");
    proxy.set_target(redis.address());
    proxy.accept();
    // The database of a Redis keeps its keys apart from others.
    count_together(&[&settings[0], &late], 2);
    count_together(&[&settings[1]], 1);
    let inside = let_in(&late, ALICE);
    turned_away(&settings[0], ALICE);
    let apart = let_in(&settings[1], ALICE);
    drop((inside, apart));
}

#[test]
fn a_storm_over_two_instances_lets_in_exactly_as_many_as_may() {
    const LIMIT: u32 = 10;
    const STORM: usize = 50;
    let redis = Redis::start();
    let relays = [(); 2].map(|()| start(&redis.url(), LIMIT));
    for round in 0..5 {
        let (who, all) = (format!("192.0.2.{round}"), Barrier::new(STORM));
        let storm = |number: usize| {
            all.wait();
            enter(&relays[number % 2], &who)
        };
        let answers: Vec<Result<WebSocket, Answer>> = thread::scope(|scope| {
            let visitors: Vec<_> = (0..STORM).map(|number| scope.spawn(move || storm(number))).collect();
            visitors.into_iter().map(|visitor| visitor.join().expect("no panic")).collect()
        });
        let unasked = relays.each_ref().map(|relay| sessions(relay, "unasked"));
        assert_eq!(unasked, [0.0; 2], "this Redis answers: {}", relays[0].log());
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count() as u32, LIMIT);
        let others = answers.iter().filter_map(|answer| answer.as_ref().err());
        assert!(others.into_iter().all(|answer| answer.status() == 429));
    }
}

#[test]
fn a_changed_limit_counts_over_all_instances() {
    let redis = Redis::start();
    let relays = [(); 2].map(|()| start(&redis.url(), 2));
    let inside: Vec<WebSocket> = relays.iter().map(|relay| let_in(relay, ALICE)).collect();
    turned_away(&relays[0], ALICE);
    let file = relays[0].folder().join("relay.toml");
    let raised = std::fs::read_to_string(&file)
        .expect("it is there")
        .replace("connections_per_ip = 2\nconn", "connections_per_ip = 3\nconn");
    relays[0].reload(|| relays[0].write_config(&raised));
    let third = let_in(&relays[0], ALICE);
    relays.iter().for_each(|relay| turned_away(relay, ALICE));
    drop((inside, third));
}
