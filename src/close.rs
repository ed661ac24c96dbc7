//! Why a session ended: a closed list. An end is no error: it has a number, a reason, and a rule for coming back.

use std::ops::RangeInclusive;

use tracing::Level;

/// Every way a session can end. Each has a WebSocket code, a reason, a log level, a metric label and a retry rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Close {
    /// The subscriber asked.
    Asked,
    /// The subscriber's socket ended without a word; nothing more can be said to it.
    Gone,
    /// The endpoint was removed; it will not be there again.
    Removed,
    /// The bytes were no WebSocket frames.
    Protocol,
    /// A text was not UTF-8.
    BadText,
    /// A frame or text was larger than `limits.frame`.
    TooBig,
    /// What was asked is not allowed.
    Policy,
    /// More commands than `limits.commands_per_session`.
    TooManyCommands,
    /// This instance is stopping.
    Drain,
    /// The session reached `session_age`.
    Age,
    /// The endpoint's settings changed in a way that open sessions cannot follow.
    Reload,
    /// It read slower than its events came.
    Slow,
    /// The instance is at its limits.
    Overloaded,
    /// No pong, or a socket that took nothing for too long.
    Silent,
    /// Our own fault.
    Fault,
}

/// What is known of each; `retry` is the span, in milliseconds, in which to come back, `None` is never.
struct Facts {
    code: u16,
    reason: &'static str,
    level: Level,
    label: &'static str,
    retry: Option<(u64, u64)>,
}

/// Another instance, or this one after a reload, is ready at once: only the crowd must be spread.
const SOON: Option<(u64, u64)> = Some((100, 2_000));
/// Something has to get better first.
const LATER: Option<(u64, u64)> = Some((2_000, 15_000));
const NEVER: Option<(u64, u64)> = None;

impl Close {
    /// All of them.
    pub const ALL: &[Close] = &[
        Close::Asked,
        Close::Gone,
        Close::Removed,
        Close::Protocol,
        Close::BadText,
        Close::TooBig,
        Close::Policy,
        Close::TooManyCommands,
        Close::Drain,
        Close::Age,
        Close::Reload,
        Close::Slow,
        Close::Overloaded,
        Close::Silent,
        Close::Fault,
    ];

    /// The WebSocket close code. 1006 is the one that stands for "nothing was said" and is never sent.
    pub fn code(self) -> u16 {
        self.facts().code
    }

    /// A text for people, at most 123 bytes, so that it fits a Close frame.
    pub fn reason(self) -> &'static str {
        self.facts().reason
    }

    /// The metric label `reason`.
    pub fn label(self) -> &'static str {
        self.facts().label
    }

    /// How loud the log line is. What a stranger can cause at will is never above `INFO`.
    pub fn level(self) -> Level {
        self.facts().level
    }

    /// Whether the subscriber should come back.
    pub fn retries(self) -> bool {
        self.facts().retry.is_some()
    }

    /// The span from which `retry_ms` is drawn, so that a crowd does not return in one instant; `None` is never.
    pub fn retry_ms(self) -> Option<RangeInclusive<u64>> {
        self.facts().retry.map(|(least, most)| least..=most)
    }

    fn facts(self) -> Facts {
        let (code, label, level, retry, reason) = match self {
            Close::Asked => (1000, "asked", Level::DEBUG, NEVER, "as asked"),
            Close::Gone => (1006, "gone", Level::DEBUG, NEVER, "the connection ended"),
            Close::Removed => (1001, "removed", Level::DEBUG, NEVER, "this endpoint was removed"),
            Close::Protocol => (1002, "protocol", Level::INFO, NEVER, "not a valid WebSocket frame"),
            Close::BadText => (1007, "bad_text", Level::INFO, NEVER, "text that is not UTF-8"),
            Close::TooBig => (1009, "too_big", Level::INFO, NEVER, "larger than this endpoint takes"),
            Close::Policy => (1008, "policy", Level::INFO, NEVER, "not allowed here"),
            Close::TooManyCommands => (1008, "too_many_commands", Level::INFO, NEVER, "too many commands"),
            Close::Drain => (1012, "drain", Level::DEBUG, SOON, "this instance is stopping"),
            Close::Age => (1012, "age", Level::DEBUG, SOON, "time to reconnect"),
            Close::Reload => (1012, "reload", Level::DEBUG, SOON, "this endpoint changed"),
            Close::Slow => (1013, "slow", Level::INFO, SOON, "events came faster than they were read"),
            Close::Overloaded => (1013, "overloaded", Level::WARN, LATER, "too many sessions or bytes, try later"),
            Close::Silent => (1013, "silent", Level::DEBUG, SOON, "no sign of life"),
            Close::Fault => (1011, "fault", Level::ERROR, LATER, "a fault of this server"),
        };
        Facts { code, reason, level, label, retry }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// Fails to compile when a variant is added, so that `ALL` is not forgotten.
    fn ordinal(close: Close) -> usize {
        match close {
            Close::Asked => 0,
            Close::Gone => 1,
            Close::Removed => 2,
            Close::Protocol => 3,
            Close::BadText => 4,
            Close::TooBig => 5,
            Close::Policy => 6,
            Close::TooManyCommands => 7,
            Close::Drain => 8,
            Close::Age => 9,
            Close::Reload => 10,
            Close::Slow => 11,
            Close::Overloaded => 12,
            Close::Silent => 13,
            Close::Fault => 14,
        }
    }

    #[test]
    fn the_list_is_whole_and_without_doubles() {
        assert_eq!(Close::ALL.len(), 15);
        for (at, close) in Close::ALL.iter().enumerate() {
            assert_eq!(ordinal(*close), at, "{close:?}");
        }
        let labels: BTreeSet<_> = Close::ALL.iter().map(|c| c.label()).collect();
        let reasons: BTreeSet<_> = Close::ALL.iter().map(|c| c.reason()).collect();
        assert_eq!((labels.len(), reasons.len()), (Close::ALL.len(), Close::ALL.len()));
    }

    #[test]
    fn codes_are_those_of_the_contract() {
        let codes: BTreeMap<&str, u16> = Close::ALL.iter().map(|c| (c.label(), c.code())).collect();
        let expected = [
            ("age", 1012),
            ("asked", 1000),
            ("bad_text", 1007),
            ("drain", 1012),
            ("fault", 1011),
            ("gone", 1006),
            ("overloaded", 1013),
            ("policy", 1008),
            ("protocol", 1002),
            ("reload", 1012),
            ("removed", 1001),
            ("silent", 1013),
            ("slow", 1013),
            ("too_big", 1009),
            ("too_many_commands", 1008),
        ];
        assert_eq!(codes, expected.into());
    }

    /// A foreign WebSocket library sees the code alone: it must be able to decide by it.
    #[test]
    fn one_code_one_retry_rule() {
        for a in Close::ALL {
            for b in Close::ALL {
                assert!(a.code() != b.code() || a.retries() == b.retries(), "{a:?} {b:?}");
            }
            let returns = matches!(a.code(), 1011..=1013);
            assert_eq!(a.retries(), returns, "{a:?}");
            assert!(a.retry_ms().is_none_or(|span| !span.is_empty()), "{a:?}");
        }
    }

    #[test]
    fn reasons_fit_a_close_frame_and_need_no_escape() {
        for close in Close::ALL {
            assert!(close.reason().len() <= 123, "{close:?}");
            assert!(close.reason().chars().all(|c| (' '..='~').contains(&c) && c != '"' && c != '\\'), "{close:?}");
        }
    }
}
