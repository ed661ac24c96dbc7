//! What all who take part in a run share: where to go, and how far it is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::record::Payloads;
use crate::harness::until;

pub struct Storm {
    /// Where sessions and webhooks go.
    pub balancer: SocketAddr,
    pub payloads: Payloads,
    /// How many webhooks were answered with 200.
    pub acknowledged: AtomicUsize,
    /// The number of the event that was published last on a channel, and of the last that any session heard.
    pub said: AtomicUsize,
    pub heard: AtomicUsize,
    /// How many sessions stood whole once.
    pub standing: AtomicUsize,
    /// How many sessions have not heard the last events yet.
    pub listening: AtomicUsize,
    over: AtomicBool,
    strikes: Mutex<BTreeMap<&'static str, usize>>,
}

/// When it is dropped, also by a panic, the storm is over: nobody waits for who is gone.
pub struct EndsStorm<'a>(pub &'a Storm);

impl Storm {
    pub fn new(balancer: SocketAddr, sessions: usize) -> Storm {
        Storm {
            balancer,
            payloads: Payloads::default(),
            acknowledged: AtomicUsize::new(0),
            said: AtomicUsize::new(0),
            heard: AtomicUsize::new(0),
            standing: AtomicUsize::new(0),
            listening: AtomicUsize::new(sessions),
            over: AtomicBool::new(false),
            strikes: Mutex::default(),
        }
    }

    pub fn rages(&self) -> bool {
        !self.over.load(Ordering::Acquire)
    }

    /// A fault has struck.
    pub fn struck(&self, fault: &'static str) {
        *self.strikes.lock().expect("not poisoned").entry(fault).or_default() += 1;
    }

    pub fn strikes(&self) -> BTreeMap<&'static str, usize> {
        self.strikes.lock().expect("not poisoned").clone()
    }

    /// Waits until something was heard that is being published on a channel only now, or until the storm is over.
    pub fn wait_heard(&self) {
        let said = self.said.load(Ordering::Acquire);
        let heard = || self.heard.load(Ordering::Acquire) > said;
        until(|| heard() || !self.rages(), || format!("nothing after {said} was heard"));
    }

    /// Waits so long, or until the storm is over.
    pub fn rest(&self, time: Duration) {
        let end = std::time::Instant::now() + time;
        while self.rages() && std::time::Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for EndsStorm<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
    }
}

pub fn millis(random: &mut fastrand::Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.u64(range))
}
