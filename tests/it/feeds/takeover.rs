//! Another instance takes over: nothing is lost, nothing comes twice, and no gap is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::{
    NUMBERS, counted, hears, holder, in_redis, listen, listeners, new_listener, say, start, start_all, wait_settled,
};
use crate::harness::{Relay, Signal, until};
use crate::redis::Redis;

/// Somebody who publishes numbers without a pause.
struct Publisher {
    stop: Arc<AtomicBool>,
    said: Arc<AtomicU64>,
    thread: thread::JoinHandle<u64>,
}

impl Publisher {
    fn start(redis: &Redis) -> Publisher {
        let (stop, said) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ends, counts, mut talk) = (stop.clone(), said.clone(), redis.talk());
        let thread = thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let number = counts.fetch_add(1, Ordering::Relaxed) + 1;
                say(&mut talk, "numbers", number..=number);
                thread::sleep(Duration::from_micros(300));
            }
            counts.load(Ordering::Relaxed)
        });
        Publisher { stop, said, thread }
    }

    /// Waits until so many more were published.
    fn wait_for_more(&self, more: u64) {
        let goal = self.said.load(Ordering::Relaxed) + more;
        until(|| self.said.load(Ordering::Relaxed) >= goal, || "it publishes nothing".to_owned());
    }

    /// How many it published.
    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Three instances, of which the one that appends is struck while messages come; then the others have all of them.
fn survives(strike: impl FnOnce(&mut Vec<Relay>, usize, &Redis)) {
    let redis = Redis::start();
    let mut relays = start_all(3, &in_redis(&redis.url(), NUMBERS));
    let first = holder(&relays, "numbers");
    wait_settled(&redis);
    let mut feed = listen(&relays[(first + 1) % 3]);
    let publisher = Publisher::start(&redis);
    publisher.wait_for_more(200);
    strike(&mut relays, first, &redis);
    publisher.wait_for_more(300);
    hears(&mut feed, 1..=publisher.end());
    assert_eq!(relays.iter().map(|relay| counted(relay, "gaps_total", "numbers")).sum::<f64>(), 0.0);
}

#[test]
fn from_one_that_is_killed() {
    survives(|relays, first, _| {
        relays[first].signal(Signal::KILL);
        relays[first].wait_for_exit();
        relays.remove(first);
        holder(relays, "numbers");
    });
}

#[test]
fn from_one_that_leaves() {
    survives(|relays, first, _| {
        relays[first].signal(Signal::TERM);
        assert!(relays[first].wait_for_exit().success());
        relays.remove(first);
        holder(relays, "numbers");
    });
}

#[test]
fn from_one_that_sleeps_past_its_lease_and_wakes() {
    survives(|relays, first, _| {
        relays[first].signal(Signal::STOP);
        let sleeper = relays.remove(first);
        holder(relays, "numbers");
        sleeper.signal(Signal::CONT);
        // It finds out that another one appends now, and what it had still to append is refused or known.
        until(|| counted(&sleeper, "lease", "numbers") == 0.0, || sleeper.log());
        relays.insert(first, sleeper);
    });
}

#[test]
fn from_one_whose_connection_was_killed() {
    let redis = Redis::start();
    let toml = in_redis(&redis.url(), NUMBERS);
    let mut relays = Vec::new();
    let mut clients = Vec::new();
    for _ in 0..3 {
        let before = listeners(&redis);
        relays.push(start(&toml));
        // The store has connections of its own that listen, but not to this channel.
        clients.push(subscriber(&redis, &before));
    }
    let first = holder(&relays, "numbers");
    wait_settled(&redis);
    let mut feed = listen(&relays[first]);
    let publisher = Publisher::start(&redis);
    publisher.wait_for_more(100);
    redis.call(&["CLIENT", "KILL", "ID", &clients[first]]);
    until(|| counted(&relays[first], "lease", "numbers") == 0.0, || relays[first].log());
    let second = holder(&relays, "numbers");
    assert_ne!(first, second);
    publisher.wait_for_more(100);
    hears(&mut feed, 1..=publisher.end());
    assert_eq!(counted(&relays[first], "reconnects_total", "numbers"), 1.0);
    assert_eq!(relays.iter().map(|relay| counted(relay, "gaps_total", "numbers")).sum::<f64>(), 0.0);
}

/// The new client that listens to two channels: the numbers and the markers.
fn subscriber(redis: &Redis, before: &[String]) -> String {
    new_listener(redis, before)
}
