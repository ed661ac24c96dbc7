//! How often: one token bucket for each address, in a table that strangers cannot grow.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use governor::clock::DefaultClock;
use governor::nanos::Nanos;
use governor::state::keyed::{DashMapStateStore, ShrinkableKeyedStateStore};
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// A full table is searched for the quiet at most this often: 100,000 entries take a millisecond, and each stranger
/// would ask for it.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// A rate for each address.
pub struct Buckets {
    limiter: RateLimiter<IpAddr, Known, DefaultClock>,
    cap: usize,
    sweeps: DefaultDirectRateLimiter,
}

/// The addresses that have a bucket of their own, at most `cap`; above that, strangers share one. So those who are known
/// keep theirs whatever strangers do, and strangers get in as long as they are few.
struct Known {
    table: DashMapStateStore<IpAddr>,
    cap: usize,
    /// The table's length, which itself would take a lock for each of its shards.
    len: AtomicUsize,
    strangers: InMemoryState,
}

impl Buckets {
    /// At most `cap` addresses are told apart.
    pub fn new(quota: Quota, cap: usize) -> Buckets {
        let pause = Quota::with_period(SWEEP_PAUSE).expect("the pause is not zero");
        Buckets {
            cap,
            limiter: RateLimiter::new(quota, Known::new(cap), DefaultClock::default()),
            sweeps: RateLimiter::direct(pause),
        }
    }

    /// Whether one more is within the rate of this address.
    pub fn allows(&self, ip: IpAddr) -> bool {
        if self.limiter.len() >= self.cap && self.sweeps.check().is_ok() {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(&ip).is_ok()
    }

    /// Forgets who has been quiet for so long that a new bucket would be as full, and gives the memory back.
    pub fn sweep(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }

    /// How many addresses have a bucket.
    pub fn len(&self) -> usize {
        self.limiter.len()
    }
}

impl Known {
    fn new(cap: usize) -> Known {
        Known {
            table: DashMapStateStore::default(),
            cap,
            len: AtomicUsize::new(0),
            strangers: InMemoryState::default(),
        }
    }

    fn admits_one_more(&self) -> bool {
        self.len.fetch_update(Relaxed, Relaxed, |len| (len < self.cap).then_some(len + 1)).is_ok()
    }
}

impl StateStore for Known {
    type Key = IpAddr;

    fn measure_and_replace<T, F, E>(&self, ip: &IpAddr, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        if let Some(bucket) = self.table.get(ip) {
            return bucket.measure_and_replace(&NotKeyed::NonKey, f);
        }
        match self.admits_one_more() {
            true => self.table.measure_and_replace(ip, f),
            false => self.strangers.measure_and_replace(&NotKeyed::NonKey, f),
        }
    }
}

impl ShrinkableKeyedStateStore<IpAddr> for Known {
    fn retain_recent(&self, drop_below: Nanos) {
        self.table.retain_recent(drop_below);
        // Two threads that met the same stranger at once counted it twice: here the count is put right.
        self.len.store(self.table.len(), Relaxed);
    }

    fn shrink_to_fit(&self) {
        self.table.shrink_to_fit();
    }

    fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use governor::clock::FakeRelativeClock;
    use governor::middleware::NoOpMiddleware;

    use super::*;

    fn quota(period: Duration, burst: u32) -> Quota {
        Quota::with_period(period).unwrap().allow_burst(NonZeroU32::new(burst).unwrap())
    }

    fn ip(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[test]
    fn each_address_has_its_own_bucket() {
        let buckets = Buckets::new(quota(Duration::from_secs(3600), 3), 10);
        let allowed = |n| (0..5).filter(|_| buckets.allows(ip(n))).count();
        assert_eq!((allowed(1), allowed(2), allowed(1)), (3, 3, 0));
        assert_eq!(buckets.len(), 2);
    }

    #[test]
    fn strangers_share_one_bucket_when_the_table_is_full() {
        let buckets = Buckets::new(quota(Duration::from_secs(3600), 2), 3);
        assert!((0..3).all(|n| buckets.allows(ip(n))));
        let strangers = (1000..2000).filter(|n| buckets.allows(ip(*n))).count();
        assert_eq!(strangers, 2, "one bucket for all of them");
        assert!((0..3).all(|n| buckets.allows(ip(n))), "the known ones still have theirs");
        assert!(!buckets.allows(ip(0)), "which ends like any other");
        assert_eq!(buckets.len(), 3);
    }

    #[test]
    fn the_quiet_are_forgotten_and_the_busy_are_not() {
        let clock = FakeRelativeClock::default();
        let limiter: RateLimiter<_, _, _, NoOpMiddleware<Nanos>> =
            RateLimiter::new(quota(Duration::from_secs(1), 10), Known::new(2), clock.clone());
        let allowed = |n, times| (0..times).filter(|_| limiter.check_key(&ip(n)).is_ok()).count();
        assert_eq!((allowed(1, 1), allowed(2, 20), allowed(3, 1)), (1, 10, 1));
        clock.advance(Duration::from_secs(5));
        limiter.retain_recent();
        assert_eq!(limiter.len(), 1);
        assert_eq!((allowed(2, 20), allowed(3, 20)), (5, 10), "3 has a place of its own now");
        clock.advance(Duration::from_secs(60));
        limiter.retain_recent();
        assert!(limiter.is_empty());
    }

    #[test]
    fn many_threads_do_not_pass_the_cap() {
        let buckets = Buckets::new(quota(Duration::from_secs(3600), 1), 500);
        std::thread::scope(|scope| {
            for thread in 0..8_u32 {
                let buckets = &buckets;
                scope.spawn(move || (0..1000).filter(|n| buckets.allows(ip((thread % 4) << 16 | n))).count());
            }
        });
        let known = buckets.limiter.into_state_store();
        // Each thread may be about to enter one that a sweep beside it did not count.
        assert!(known.table.len() <= 500 + 8, "{}", known.table.len());
        assert!(known.table.len() >= 250, "at worst each was counted twice");
    }
}
