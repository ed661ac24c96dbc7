//! What one shard counts while it delivers: one writer, so an addition is a load and a store and shares no cache line.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::close::Close;

/// Upper bounds of the buckets, in microseconds: 0.25 ms to 10 s.
pub const BOUNDS_US: [u64; 15] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];

/// A number that one thread changes and any thread reads. Two writers would lose counts.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

/// How long something took, by its one writer.
#[derive(Debug, Default)]
pub struct Histogram {
    /// The last is what lies above all bounds.
    buckets: [Count; BOUNDS_US.len() + 1],
    sum_us: Count,
}

/// Read at once from one or several histograms.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// By bucket, not yet added up.
    pub buckets: [u64; BOUNDS_US.len() + 1],
    /// Of all observed, in microseconds.
    pub sum_us: u64,
}

/// The counters of one shard; only its thread writes. Aligned, so that two shards never share a cache line (or a pair of
/// lines fetched together).
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardCounters {
    /// Events taken from the streams.
    pub events: Count,
    /// Events put on sockets.
    pub deliveries: Count,
    /// Bytes put on sockets.
    pub delivered_bytes: Count,
    /// Writes to sockets.
    pub writes: Count,
    /// Gauge: bytes waiting to be written.
    pub queued_bytes: Count,
    /// Gauge: sessions by `Transport as usize`.
    pub sessions: [Count; 4],
    /// Gauge.
    pub audiences: Count,
    /// Gauge: (pattern, audience) pairs.
    pub patterns: Count,
    /// Full queues by `OnSlow as usize`.
    pub slow: [Count; 3],
    /// Gaps told by `GapReason as usize`.
    pub gaps: [Count; 4],
    /// Ends by `Close as usize`, which is the place in `Close::ALL`.
    pub closes: [Count; Close::ALL.len()],
    /// Commands done.
    pub commands: Count,
    /// Input that no command matched.
    pub commands_ignored: Count,
    /// Commands that could not be done.
    pub command_errors: Count,
    /// Sessions that came with a cursor.
    pub resumes: Count,
    /// Events of the past put on sockets.
    pub replayed: Count,
    /// From accepting an event to its write.
    pub latency: Histogram,
}

impl Count {
    /// That many more.
    pub fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Relaxed);
    }

    /// That many less, of a gauge.
    pub fn sub(&self, n: u64) {
        self.0.store(self.get().saturating_sub(n), Relaxed);
    }

    /// Exactly so many, of a gauge.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// How many.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Histogram {
    /// `n` things that each took so many microseconds.
    pub fn observe(&self, micros: u64, n: u64) {
        let bucket = BOUNDS_US.partition_point(|bound| *bound < micros);
        self.buckets[bucket].add(n);
        self.sum_us.add(micros.saturating_mul(n));
    }
}

/// Several histograms as one.
pub fn summed<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> Reading {
    let mut reading = Reading::default();
    for histogram in histograms {
        for (sum, bucket) in reading.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.get();
        }
        reading.sum_us = reading.sum_us.wrapping_add(histogram.sum_us.get());
    }
    reading
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_go_up_and_down_but_never_below_nothing() {
        let count = Count::default();
        count.add(5);
        count.sub(2);
        assert_eq!(count.get(), 3);
        count.sub(4);
        assert_eq!(count.get(), 0);
        count.set(7);
        assert_eq!(count.get(), 7);
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let check = |micros, bucket: usize| {
            let histogram = Histogram::default();
            histogram.observe(micros, 3);
            let mut expected = Reading { sum_us: micros * 3, ..Reading::default() };
            expected.buckets[bucket] = 3;
            assert_eq!(summed([&histogram].into_iter()), expected, "{micros}");
        };
        check(0, 0);
        check(250, 0);
        check(251, 1);
        check(10_000_000, 14);
        check(10_000_001, 15);
    }

    #[test]
    fn shards_share_no_cache_line() {
        assert_eq!(align_of::<ShardCounters>(), 128);
    }
}
