//! Coarse timers: a wheel of ticks. An entry is only a number; whether it still means something its owner knows.

use std::time::Duration;

/// How long a tick is. Heartbeats, pace and drain need no finer grain, and a shard wakes at most ten times a second.
pub const TICK: Duration = Duration::from_millis(100);

/// Slots of the wheel. Later deadlines wait in the farthest slot and are placed again: at 25 s pings none does.
const SLOTS: usize = 1024;

/// Ticks since the shard began.
pub type Tick = u32;

/// Ticks in a duration, rounded up, at least one.
pub fn ticks(duration: Duration) -> Tick {
    duration.as_millis().div_ceil(TICK.as_millis()).clamp(1, u128::from(Tick::MAX / 4)) as Tick
}

/// Which numbers are due when.
#[derive(Debug)]
pub struct Timers {
    slots: Vec<Vec<(Tick, u32)>>,
    now: Tick,
    len: usize,
}

impl Timers {
    /// Nothing is due.
    pub fn new() -> Timers {
        Timers { slots: vec![Vec::new(); SLOTS], now: 0, len: 0 }
    }

    /// The present tick.
    pub fn now(&self) -> Tick {
        self.now
    }

    /// Whether any entry waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Remembers `number` for a tick after the present one.
    pub fn insert(&mut self, at: Tick, number: u32) {
        let at = at.max(self.now + 1);
        let slot = at.min(self.now + SLOTS as Tick - 1);
        self.slots[slot as usize % SLOTS].push((at, number));
        self.len += 1;
    }

    /// Moves on to `now` and appends what became due.
    pub fn advance(&mut self, now: Tick, due: &mut Vec<u32>) {
        while self.now < now {
            self.now += 1;
            let mut slot = std::mem::take(&mut self.slots[self.now as usize % SLOTS]);
            self.len -= slot.len();
            for (at, number) in slot.drain(..) {
                if at <= self.now { due.push(number) } else { self.insert(at, number) }
            }
            // The emptied slot keeps its room: the next round needs about as much.
            if self.slots[self.now as usize % SLOTS].is_empty() {
                self.slots[self.now as usize % SLOTS] = slot;
            }
        }
    }
}

impl Default for Timers {
    fn default() -> Self {
        Timers::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_entry_comes_once_and_not_before_its_tick() {
        let mut timers = Timers::new();
        for at in [1u32, 5, 5, 1023, 1024, 5000] {
            timers.insert(at, at);
        }
        let mut seen = Vec::new();
        for now in 1..=6000 {
            let mut due = Vec::new();
            timers.advance(now, &mut due);
            assert!(due.iter().all(|&at| at == now), "{due:?} at {now}");
            seen.extend(due);
        }
        assert_eq!(seen, [1, 5, 5, 1023, 1024, 5000]);
        assert!(timers.is_empty());
    }

    #[test]
    fn a_jump_of_the_clock_skips_nothing() {
        let mut timers = Timers::new();
        timers.insert(3, 3);
        timers.insert(2000, 2000);
        let mut due = Vec::new();
        timers.advance(10_000, &mut due);
        assert_eq!(due, [3, 2000]);
    }
}
