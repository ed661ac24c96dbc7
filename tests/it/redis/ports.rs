//! Free ports for what must be told its port: below those that the kernel gives to whoever asks for any, so that one
//! stays free while its server is down for a while.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;

/// Linux gives 32768 and above to outgoing connections and to port 0.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

/// A port that nobody listens on, and that nobody else in this process is given.
pub fn free() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    // Not from the seed of a test: two test runs at once must not try the same ones.
    let mut random = fastrand::Rng::new();
    for _ in 0..1_000 {
        let port = random.u16(RANGE);
        let is_free = || TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        let mut given = GIVEN.lock().expect("not poisoned");
        if !given.contains(&port) && is_free() {
            given.insert(port);
            return port;
        }
    }
    panic!("no free port in {RANGE:?}");
}
