//! What happens to them: each fault counts when it has struck.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use super::storm::{Storm, millis};
use crate::client::http;
use crate::harness::{Relay, Signal, until};
use crate::redis::{Balancer, Proxy, Redis, Sentinel, Setup};

/// A lease lasts three seconds; who is paused longer has lost it.
const PAST_LEASE: std::ops::Range<u64> = 3_300..4_000;

/// The relays behind the balancer.
pub struct Instances {
    config: String,
    running: Mutex<Vec<Relay>>,
    balancer: Balancer,
}

impl Instances {
    pub fn start(config: String, count: usize) -> Instances {
        let running: Vec<Relay> = (0..count).map(|_| Relay::start(&config)).collect();
        let balancer = Balancer::over(running.iter().map(Relay::public).collect());
        Instances { config, running: Mutex::new(running), balancer }
    }

    pub fn address(&self) -> SocketAddr {
        self.balancer.address()
    }

    /// Waits until each is ready.
    #[track_caller]
    pub fn wait_ready(&self) {
        until(|| self.are_ready(), || self.pages());
    }

    /// Why they are not ready, and what they said.
    fn pages(&self) -> String {
        let running = self.running.lock().expect("not poisoned");
        running.iter().map(|relay| http::get(relay.admin(), "/readyz").text() + &relay.log()).collect()
    }

    pub fn are_ready(&self) -> bool {
        let running = self.running.lock().expect("not poisoned");
        running.iter().all(|relay| http::get(relay.admin(), "/readyz").status() == 200)
    }

    /// Waits until each instance hears the channels, and what one of them heard since then is in the log: now whoever
    /// takes over can prove that it has everything.
    pub fn wait_settled(&self, storm: &Storm) {
        until(|| self.are_ready() || !storm.rages(), || self.pages());
        storm.wait_heard();
    }

    /// One after the other, as long as it storms; `settle` waits before each.
    pub fn torture(&self, storm: &Storm, mut random: fastrand::Rng, settle: &Settle) {
        let mut faults: [Strike; 4] = [
            |all, storm, random| all.kill(storm, random, "instance killed", None),
            |all, storm, random| all.pause(storm, random),
            |all, storm, random| all.kill_holder(storm, random),
            |all, storm, _| all.cut(storm),
        ];
        while storm.rages() {
            random.shuffle(&mut faults);
            for strike in faults {
                storm.rest(millis(&mut random, 100..800));
                settle(self, storm);
                if storm.rages() {
                    strike(self, storm, &mut random);
                }
            }
        }
    }

    /// Kills one without a warning and starts another in its place.
    fn kill(&self, storm: &Storm, random: &mut fastrand::Rng, fault: &'static str, which: Option<usize>) {
        let mut running = self.running.lock().expect("not poisoned");
        let which = which.unwrap_or_else(|| random.usize(..running.len()));
        let mut relay = running.remove(which);
        relay.signal(Signal::KILL);
        relay.wait_for_exit();
        drop(relay);
        storm.struck(fault);
        self.balance(&running);
        thread::sleep(millis(random, 50..700));
        running.push(Relay::start(&self.config));
        self.balance(&running);
    }

    /// Holds one until its lease is somebody else's, then lets it go on as if nothing had been.
    fn pause(&self, storm: &Storm, random: &mut fastrand::Rng) {
        let running = self.running.lock().expect("not poisoned");
        let relay =
            &running[holder(&running).filter(|_| random.bool()).unwrap_or_else(|| random.usize(..running.len()))];
        relay.signal(Signal::STOP);
        thread::sleep(millis(random, PAST_LEASE));
        relay.signal(Signal::CONT);
        storm.struck("instance paused past its lease");
    }

    /// Kills the one who appends what the channels bring, and waits until somebody else does.
    fn kill_holder(&self, storm: &Storm, random: &mut fastrand::Rng) {
        let holder = holder(&self.running.lock().expect("not poisoned"));
        if holder.is_some() {
            self.kill(storm, random, "holder killed", holder);
            until(|| !storm.rages() || self.has_holder(), || "nobody took the lease".into());
            if self.has_holder() {
                storm.struck("lease moved");
            }
        }
    }

    /// Ends all connections at once: everybody comes again in the same moment.
    fn cut(&self, storm: &Storm) {
        self.balancer.cut();
        storm.struck("all cut off");
    }

    fn has_holder(&self) -> bool {
        holder(&self.running.lock().expect("not poisoned")).is_some()
    }

    fn balance(&self, running: &[Relay]) {
        self.balancer.set(running.iter().map(Relay::public).collect());
    }
}

/// What is waited for before a fault strikes.
pub type Settle = dyn Fn(&Instances, &Storm) + Sync;
type Strike = fn(&Instances, &Storm, &mut fastrand::Rng);

/// Who says that it appends what the channels bring.
fn holder(running: &[Relay]) -> Option<usize> {
    running.iter().position(|relay| {
        relay.metrics().lines().any(|line| line.starts_with("relay_source_lease") && line.ends_with(" 1"))
    })
}

/// A single Redis that keeps its data, and what lies between it and the relays. Publishers on its channels are not cut off.
pub struct Single {
    pub redis: Redis,
    pub links: Proxy,
}

impl Single {
    pub fn start() -> Single {
        let redis = Setup::new().durable().start();
        let links = Proxy::before(redis.address());
        Single { redis, links }
    }

    /// One after the other, as long as it storms.
    pub fn torture(&self, storm: &Storm, mut random: fastrand::Rng) {
        let mut faults: [fn(&Single, &Storm, &mut fastrand::Rng); 5] =
            [Single::pause, Single::kill, Single::cut, Single::stall, Single::lose_replies];
        while storm.rages() {
            random.shuffle(&mut faults);
            for strike in faults {
                storm.rest(millis(&mut random, 500..2_000));
                if storm.rages() {
                    strike(self, storm, &mut random);
                }
            }
        }
    }

    fn pause(&self, storm: &Storm, random: &mut fastrand::Rng) {
        self.redis.pause();
        thread::sleep(millis(random, 300..3_500));
        self.redis.resume();
        storm.struck("Redis paused");
    }

    fn kill(&self, storm: &Storm, random: &mut fastrand::Rng) {
        self.redis.kill();
        storm.struck("Redis killed");
        thread::sleep(millis(random, 0..1_500));
        self.redis.start_again();
    }

    fn cut(&self, storm: &Storm, _: &mut fastrand::Rng) {
        self.links.cut();
        storm.struck("links cut");
    }

    /// Connected and deaf.
    fn stall(&self, storm: &Storm, random: &mut fastrand::Rng) {
        self.links.stall();
        thread::sleep(millis(random, 300..3_000));
        self.links.flow();
        storm.struck("links stalled");
    }

    /// A script ran, and who asked for it never hears that.
    fn lose_replies(&self, storm: &Storm, random: &mut fastrand::Rng) {
        self.links.swallow_replies_to("EVALSHA", random.usize(1..6));
        storm.rest(millis(random, 200..1_000));
        if self.links.swallowed() > 0 {
            storm.struck("replies lost");
        }
        self.links.swallow_replies(0);
    }
}

/// A master whose replica lags: again and again it is killed, and what it had acknowledged last is gone.
pub fn torture_sentinel(sentinel: &Sentinel, storm: &Storm, mut random: fastrand::Rng) {
    while storm.rages() {
        let acknowledged = || storm.acknowledged.load(std::sync::atomic::Ordering::Acquire);
        let lost = sentinel.fail_over_without(|| {
            let before = acknowledged();
            storm.rest(millis(&mut random, 200..800));
            acknowledged() - before
        });
        if lost > 0 {
            storm.struck("failover that lost what was acknowledged");
        }
        thread::sleep(Duration::from_millis(random.u64(100..1_000)));
        sentinel.start_old_again();
        storm.rest(millis(&mut random, 500..1_500));
    }
}
