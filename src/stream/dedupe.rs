//! Which senders' keys a partition has seen, and which event each of them became.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::Dedupe;
use crate::event::Time;

/// Per partition; oldest out. With the digest, a place and the table's slack this is some 10 MiB at worst.
pub(super) const MAX_KEYS: usize = 100_000;
/// Below this many slots an empty table is not worth giving back.
const SMALL: usize = 1024;

/// A key of any length in 20 bytes, so that keys are bounded in bytes as well. Who can forge a collision could as well
/// send the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Digest([u8; 20]);

impl Digest {
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn of(key: &str) -> Digest {
        Digest(sha1_smol::Sha1::from(key).digest().bytes())
    }
}

/// A sender's key as the partition takes it: hashed before the lock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub digest: Digest,
    pub window: Duration,
}

impl From<&Dedupe> for Key {
    fn from(dedupe: &Dedupe) -> Key {
        Key { digest: Digest::of(&dedupe.key), window: dedupe.window }
    }
}

#[derive(Debug, Clone, Copy)]
struct First {
    position: u64,
    until: Time,
}

/// The keys of a partition.
#[derive(Debug, Default)]
pub(super) struct Keys {
    firsts: HashMap<Digest, First>,
    /// In the order they came. An entry whose position is no longer the key's own has been overtaken by a later one.
    order: VecDeque<(Digest, u64)>,
}

impl Keys {
    /// The position of the event that this key already is.
    pub fn first(&self, key: &Key, now: Time) -> Option<u64> {
        self.firsts.get(&key.digest).filter(|first| now < first.until).map(|first| first.position)
    }

    /// Remembers that this key is the event at `position`, accepted at `now`.
    pub fn remember(&mut self, key: Key, position: u64, now: Time) {
        self.expire(now);
        if self.order.len() >= MAX_KEYS {
            self.forget_oldest();
        }
        let window = u64::try_from(key.window.as_millis()).unwrap_or(u64::MAX);
        let until = Time(now.0.saturating_add(window));
        self.firsts.insert(key.digest, First { position, until });
        self.order.push_back((key.digest, position));
    }

    /// Forgets the oldest keys while their windows are over. One with a long window may hold up those after it: they
    /// are bounded in number anyway.
    pub fn expire(&mut self, now: Time) {
        while let Some((digest, position)) = self.order.front() {
            let own = self.firsts.get(digest).filter(|first| first.position == *position);
            if own.is_some_and(|first| now < first.until) {
                return;
            }
            self.forget_oldest();
        }
    }

    /// Gives back the room of a burst that is over.
    pub fn shrink(&mut self) {
        let room = self.order.len() * 2;
        if self.order.capacity() > SMALL.max(room * 2) {
            self.order.shrink_to(room);
            self.firsts.shrink_to(room);
        }
    }

    fn forget_oldest(&mut self) {
        let Some((digest, position)) = self.order.pop_front() else { return };
        if self.firsts.get(&digest).is_some_and(|first| first.position == position) {
            self.firsts.remove(&digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str, millis: u64) -> Key {
        Key::from(&Dedupe { key: text.into(), window: Duration::from_millis(millis) })
    }

    #[test]
    fn a_key_is_known_until_its_window_ends() {
        let mut keys = Keys::default();
        keys.remember(key("a", 10), 1, Time(100));
        for (now, expected) in [(100, Some(1)), (109, Some(1)), (110, None)] {
            assert_eq!(keys.first(&key("a", 999), Time(now)), expected, "at {now}");
        }
        assert_eq!(keys.first(&key("b", 10), Time(100)), None);
    }

    #[test]
    fn a_window_without_end_does_not_overflow() {
        let mut keys = Keys::default();
        keys.remember(Key { window: Duration::MAX, ..key("a", 0) }, 1, Time(100));
        assert_eq!(keys.first(&key("a", 0), Time(u64::MAX - 1)), Some(1));
    }

    #[test]
    fn an_overtaken_entry_does_not_take_its_successor_along() {
        let mut keys = Keys::default();
        keys.remember(key("long", 1_000), 1, Time(0));
        keys.remember(key("a", 10), 2, Time(0));
        keys.remember(key("a", 5_000), 3, Time(20));
        keys.expire(Time(1_000));
        assert_eq!(keys.order.len(), 1, "the first two are gone");
        assert_eq!(keys.first(&key("a", 0), Time(1_000)), Some(3));
    }

    #[test]
    fn the_oldest_key_makes_room() {
        let mut keys = Keys::default();
        for n in 0..=MAX_KEYS {
            keys.remember(key(&n.to_string(), 1_000), n as u64 + 1, Time(0));
        }
        assert_eq!((keys.order.len(), keys.firsts.len()), (MAX_KEYS, MAX_KEYS));
        assert_eq!(keys.first(&key("0", 0), Time(1)), None);
        assert_eq!(keys.first(&key("1", 0), Time(1)), Some(2));
    }

    #[test]
    fn room_is_given_back() {
        let mut keys = Keys::default();
        for n in 0..10_000 {
            keys.remember(key(&n.to_string(), 10), n + 1, Time(0));
        }
        keys.expire(Time(10));
        keys.shrink();
        assert!(keys.order.capacity() <= SMALL && keys.firsts.capacity() <= SMALL);
    }
}
