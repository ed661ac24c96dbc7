//! Durations, sizes and rates, as people write them.

use std::time::Duration;

use super::mistake::Wrong;
use crate::gate::limits::Rate;

const DURATIONS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZES: [(&str, u64); 7] = [
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// `"25s"`.
pub fn duration(text: &str) -> Result<Duration, Wrong> {
    let wrong = || {
        Wrong::new(
            format!("{text:?} is no duration"),
            "write a number and a unit: \"500ms\", \"25s\", \"10m\", \"12h\", \"7d\"",
        )
    };
    scaled(text, &DURATIONS).map(Duration::from_millis).ok_or_else(wrong)
}

/// `"64KiB"`, in bytes.
pub fn size(text: &str) -> Result<u64, Wrong> {
    let wrong = || {
        Wrong::new(
            format!("{text:?} is no size"),
            "write a number and a unit: B, KB, MB, GB (thousands) or KiB, MiB, GiB (1024), as in \"64KiB\"",
        )
    };
    scaled(text, &SIZES).ok_or_else(wrong)
}

/// `"20/s"`, `"20/s burst 50"`. Without a burst, it is the number itself.
pub fn rate(text: &str) -> Result<Rate, Wrong> {
    let wrong = || {
        Wrong::new(
            format!("{text:?} is no rate"),
            "write so many per second or minute, at least 1, and perhaps how many at once: \"20/s\", \"90/m burst 30\"",
        )
    };
    parse_rate(text).ok_or_else(wrong)
}

fn parse_rate(text: &str) -> Option<Rate> {
    let (rate, burst) = match text.split_once(" burst ") {
        Some((rate, burst)) => (rate, Some(burst)),
        None => (text, None),
    };
    let (number, seconds) = match rate.split_once('/')? {
        (number, "s") => (number, 1.0),
        (number, "m") => (number, 60.0),
        _ => return None,
    };
    let number = u32::try_from(digits(number)?).ok()?;
    let burst = burst.map_or(Some(number), |burst| u32::try_from(digits(burst)?).ok())?;
    (number > 0 && burst > 0).then_some(Rate { per_second: f64::from(number) / seconds, burst })
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    digits(number)?.checked_mul(*factor)
}

/// Digits and nothing else (`u64::from_str` takes a plus sign too).
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text, millis: Option<u64>| {
            assert_eq!(duration(text).ok(), millis.map(Duration::from_millis), "{text}");
        };
        check("500ms", Some(500));
        check("0s", Some(0));
        check("25s", Some(25_000));
        check("10m", Some(600_000));
        check("12h", Some(43_200_000));
        check("7d", Some(604_800_000));
        for text in [
            "",
            "25",
            "s",
            "+5s",
            "-5s",
            "1.5s",
            "25 s",
            "25S",
            "1h30m",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn sizes() {
        let check = |text, bytes| assert_eq!(size(text).ok(), bytes, "{text}");
        check("1B", Some(1));
        check("64KB", Some(64_000));
        check("64KiB", Some(65_536));
        check("16MiB", Some(16 << 20));
        check("2MB", Some(2_000_000));
        check("3GiB", Some(3 << 30));
        check("3GB", Some(3_000_000_000));
        for text in ["", "64", "64kb", "64K", "64 KiB", "1TiB", "-1B", "99999999999GiB"] {
            check(text, None);
        }
    }

    #[test]
    fn rates() {
        let check = |text, expected: Option<(f64, u32)>| {
            assert_eq!(rate(text).ok().map(|rate| (rate.per_second, rate.burst)), expected, "{text}");
        };
        check("20/s", Some((20.0, 20)));
        check("20/s burst 50", Some((20.0, 50)));
        check("90/m", Some((1.5, 90)));
        check("30/m burst 5", Some((0.5, 5)));
        for text in [
            "",
            "20",
            "/s",
            "20/h",
            "0/s",
            "20/s burst 0",
            "20/s burst",
            "20/s  burst 5",
            "5000000000/s",
            "20/s burst 5 burst 6",
        ] {
            check(text, None);
        }
    }
}
