//! Events: one immutable thing that happened, with its place in a stream.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::topic::{Pattern, Topic};

/// RFC 3339 writes years with four digits; what lies beyond is written as the last millisecond of 9999.
const LAST_MILLISECOND: u64 = 253_402_300_799_999;

/// The topic of a gap that a source left, and of one that a lost tail left.
pub const LOST_BY_SOURCE: &str = "relay.gap.source";
/// See above.
pub const LOST_LIFE: &str = "relay.gap.epoch";

/// Two digits at a time: an event's time is written once for each wire format it goes out in.
const PAIRS: &[u8; 200] = b"\
    0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849\
    5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";

/// What the bytes of a payload are, decided where it enters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One JSON value, valid, as it was sent, byte for byte.
    Json,
    /// UTF-8.
    Text,
    /// Anything else.
    Binary,
    /// No event: here some are missing, because a source lost them. The payload is a JSON list of the patterns concerned.
    Gap,
}

/// What happened, as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// How to read them.
    pub kind: Kind,
    /// As published.
    pub bytes: Bytes,
}

/// Milliseconds since the Unix epoch. The core takes it as an argument and never reads a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

/// One life of a partition's numbering; a lost tail or, in memory, a new process begins another. Shown in base 36.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u32);

/// Which partition of which stream. `hash` is what cursors carry.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The stream's name.
    pub stream: Arc<str>,
    /// Its partition, from 0.
    pub partition: u32,
    /// A short hash of both (`alerts` alone for partition 0, `alerts/2`): stable across processes and releases.
    pub hash: u32,
    /// No log at all: what lies here has no id, and no cursor knows of it.
    pub live: bool,
}

/// One event in its place. Cheap to share, never changed.
#[derive(Debug)]
pub struct Event {
    /// Which partition.
    pub place: Arc<Place>,
    /// Which life of it.
    pub epoch: Epoch,
    /// Contiguous from 1 within the epoch's numbering.
    pub position: u64,
    /// What it is about.
    pub topic: Topic,
    /// When it was accepted; never goes back within a partition.
    pub time: Time,
    /// What happened.
    pub payload: Payload,
}

impl Time {
    /// The clock, for the shell.
    pub fn now() -> Time {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Time(since.unwrap_or_default().as_millis() as u64)
    }

    /// RFC 3339, UTC, milliseconds: `2026-11-20T20:15:00.123Z`, appended to `out`.
    pub fn write(self, out: &mut Vec<u8>) {
        let ms = self.0.min(LAST_MILLISECOND);
        let (year, month, day) = civil(ms / 86_400_000);
        let within = (ms % 86_400_000) as u32;
        let (seconds, millis) = (within / 1000, within % 1000);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        put_pair(&mut text, 0, year / 100);
        put_pair(&mut text, 2, year % 100);
        put_pair(&mut text, 5, month);
        put_pair(&mut text, 8, day);
        put_pair(&mut text, 11, seconds / 3600);
        put_pair(&mut text, 14, seconds / 60 % 60);
        put_pair(&mut text, 17, seconds % 60);
        text[20] = b'0' + (millis / 100) as u8;
        put_pair(&mut text, 21, millis % 100);
        out.extend_from_slice(&text);
    }
}

impl Epoch {
    fn write(self, out: &mut Vec<u8>) {
        write_digits(u64::from(self.0), 36, out);
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = Vec::with_capacity(7);
        self.write(&mut digits);
        f.write_str(&String::from_utf8_lossy(&digits))
    }
}

impl Place {
    /// A partition of a stream, with its hash.
    pub fn new(stream: Arc<str>, partition: u32, live: bool) -> Place {
        let hash = match partition {
            0 => fnv1a(stream.as_bytes()),
            n => fnv1a(format!("{stream}/{n}").as_bytes()),
        };
        Place { stream, partition, hash, live }
    }
}

impl Event {
    /// `alerts-k3f9-1042`, appended to `out`. Partitions of a stream have epochs of their own, so the id names one
    /// event without the partition's number.
    pub fn write_id(&self, out: &mut Vec<u8>) {
        write_id(&self.place, self.epoch, self.position, out);
    }

    /// The payload parsed, if it is JSON.
    pub fn json(&self) -> Option<serde_json::Value> {
        (self.payload.kind == Kind::Json).then(|| serde_json::from_slice(&self.payload.bytes).ok()).flatten()
    }

    /// The patterns under which events are missing here, if this is a gap of a source.
    pub fn lost(&self) -> Option<Vec<Pattern>> {
        let list = || serde_json::from_slice::<Vec<String>>(&self.payload.bytes).unwrap_or_default();
        (self.payload.kind == Kind::Gap).then(|| list().iter().filter_map(|text| Pattern::new(text).ok()).collect())
    }

    /// Whether that gap is a tail that was lost with a life of the partition, and not what a source lost.
    pub fn lost_a_life(&self) -> bool {
        self.payload.kind == Kind::Gap && self.topic.as_str() == LOST_LIFE
    }

    /// The id as text; of a live stream there is none.
    pub fn id(&self) -> String {
        id(&self.place, self.epoch, self.position)
    }
}

/// The id of the event that stands there.
pub fn id(place: &Place, epoch: Epoch, position: u64) -> String {
    let mut id = Vec::with_capacity(place.stream.len() + 29);
    write_id(place, epoch, position, &mut id);
    String::from_utf8(id).expect("a stream's name is UTF-8 and the rest is digits")
}

fn write_id(place: &Place, epoch: Epoch, position: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(place.stream.as_bytes());
    out.push(b'-');
    epoch.write(out);
    out.push(b'-');
    write_digits(position, 10, out);
}

/// The Gregorian date of a day since 1970, by counting in years that begin in March, so that the leap day is the last
/// and a month's start is a linear function.
fn civil(days: u64) -> (u32, u32, u32) {
    // 719,468 days lie between 0000-03-01 and 1970-01-01; 146,097 are one cycle of 400 years.
    let day = days as u32 + 719_468;
    let (cycle, of_cycle) = (day / 146_097, day % 146_097);
    let year_of_cycle = (of_cycle - of_cycle / 1460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = cycle * 400 + year_of_cycle + u32::from(month <= 2);
    (year, month, of_year - (153 * from_march + 2) / 5 + 1)
}

fn put_pair(text: &mut [u8; 24], at: usize, value: u32) {
    let pair = value as usize * 2;
    text[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
}

fn write_digits(mut number: u64, base: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % base) as usize];
        number /= base;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// FNV-1a: short, and the same in every release, which a hasher of the standard library does not promise.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(time: u64) -> String {
        let mut out = Vec::new();
        Time(time).write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_rfc_3339() {
        for (time, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_763_669_700_123, "2025-11-20T20:15:00.123Z"),
            (1_709_164_800_007, "2024-02-29T00:00:00.007Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (1_798_761_599_040, "2026-12-31T23:59:59.040Z"),
            (LAST_MILLISECOND, "9999-12-31T23:59:59.999Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(written(time), expected, "{time}");
        }
    }

    /// The calendar the plain way: count years and months off.
    fn counted(mut days: u64) -> (u32, u32, u32) {
        let leap = |year: u32| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let mut year = 1970;
        while days >= 365 + u64::from(leap(year)) {
            days -= 365 + u64::from(leap(year));
            year += 1;
        }
        let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let mut month = 0;
        while days >= lengths[month] {
            days -= lengths[month];
            month += 1;
        }
        (year, month as u32 + 1, days as u32 + 1)
    }

    #[test]
    fn every_day_until_2500_is_the_calendar_s() {
        for day in 0..193_600 {
            assert_eq!(civil(day), counted(day), "day {day}");
        }
    }

    proptest! {
        #[test]
        fn times_sort_as_their_text(a in 0..=LAST_MILLISECOND, b in 0..=LAST_MILLISECOND) {
            prop_assert_eq!(a.cmp(&b), written(a).cmp(&written(b)));
        }

        #[test]
        fn digits_read_back(number: u64, epoch: u32) {
            let mut out = Vec::new();
            write_digits(number, 10, &mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
            prop_assert_eq!(u32::from_str_radix(&Epoch(epoch).to_string(), 36).unwrap(), epoch);
        }
    }

    #[test]
    fn an_id_names_stream_epoch_position() {
        let event = |epoch, position| Event {
            place: Arc::new(Place::new("alerts".into(), 3, false)),
            epoch: Epoch(epoch),
            position,
            topic: Topic::new("alerts/critical").unwrap(),
            time: Time(0),
            payload: Payload { kind: Kind::Text, bytes: Bytes::new() },
        };
        assert_eq!(event(937_557, 1042).id(), "alerts-k3f9-1042");
        assert_eq!(event(0, 0).id(), "alerts-0-0");
        assert_eq!(event(u32::MAX, u64::MAX).id(), "alerts-1z141z3-18446744073709551615");
    }

    #[test]
    fn places_have_hashes_that_last() {
        for (stream, partition, expected) in
            [("", 0, 0x811c_9dc5), ("a", 0, 0xe40c_292c), ("foobar", 0, 0xbf9c_f968), ("alerts", 0, fnv1a(b"alerts"))]
        {
            assert_eq!(Place::new(stream.into(), partition, false).hash, expected, "{stream} {partition}");
        }
        assert_eq!(Place::new("alerts".into(), 2, false).hash, fnv1a(b"alerts/2"));
    }
}
