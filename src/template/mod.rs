//! Placeholders and JSON templates. Pure: everything a placeholder can mean comes in a [`Scope`].
//!
//! A template is read once, with the file, and every mistake that can be known then is told then; filling it can only
//! fail on what was not there.

mod json;
mod placeholder;
mod text;

use std::fmt;
use std::ops::BitOr;

use serde_json::Value;

use crate::event::{Payload, Time};
use crate::topic::NameError;

pub use json::Json;
pub use text::Text;

/// What placeholders may name in one place of the file, as a set: `Roots::PAYLOAD | Roots::PATH`. A template that names
/// another is a mistake found when the file is read ("`{claims.…}` means nothing here; here are: …").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Roots(pub u16);

/// What placeholders mean now. Everything absent is `None`/empty.
#[derive(Default, Clone, Copy)]
pub struct Scope<'a> {
    /// `{.}` and `{.a.b}`.
    pub payload: Option<&'a Value>,
    /// The payload as it came: `{.}` in a JSON template is spliced from here byte for byte; a lone `{.}` as a whole
    /// publish body keeps its kind (also text and binary).
    pub raw: Option<&'a Payload>,
    /// `{path.x}`, percent-decoded.
    pub path: &'a [(String, String)],
    /// `{query.x}`; of several with one name the first counts.
    pub query: &'a [(String, String)],
    /// `{header.x}`.
    pub headers: Option<&'a http::HeaderMap>,
    /// `{claims.x}`, dots descend.
    pub claims: Option<&'a Value>,
    /// `{session.id}`.
    pub session: Option<&'a str>,
    /// `{topic}`.
    pub topic: Option<&'a str>,
    /// `{id}`.
    pub id: Option<&'a str>,
    /// `{channel}`.
    pub channel: Option<&'a str>,
    /// `{now}`.
    pub now: Time,
    /// `{stats.x}`.
    pub stats: Option<Stats<'a>>,
}

/// How `{stats.x}` is looked up.
pub type Stats<'a> = &'a dyn Fn(&str) -> Option<Value>;

/// A placeholder that had nothing to say, or a result that is no topic. The message names it: "`{.labels.job}` is
/// absent".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfilled(pub String);

impl Roots {
    /// No placeholder at all.
    pub const NONE: Roots = Roots(0);
    /// `{.}`, `{.a.b}`.
    pub const PAYLOAD: Roots = Roots(1);
    /// `{path.x}`.
    pub const PATH: Roots = Roots(1 << 1);
    /// `{query.x}`.
    pub const QUERY: Roots = Roots(1 << 2);
    /// `{header.x}`.
    pub const HEADER: Roots = Roots(1 << 3);
    /// `{claims.x}`.
    pub const CLAIMS: Roots = Roots(1 << 4);
    /// `{session.id}`.
    pub const SESSION: Roots = Roots(1 << 5);
    /// `{topic}`.
    pub const TOPIC: Roots = Roots(1 << 6);
    /// `{id}`.
    pub const ID: Roots = Roots(1 << 7);
    /// `{now}`.
    pub const NOW: Roots = Roots(1 << 8);
    /// `{stats.x}`.
    pub const STATS: Roots = Roots(1 << 9);
    /// `{channel}`.
    pub const CHANNEL: Roots = Roots(1 << 10);

    /// Whether all of `other` are among these.
    pub fn contains(self, other: Roots) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Roots {
    type Output = Roots;

    fn bitor(self, other: Roots) -> Roots {
        Roots(self.0 | other.0)
    }
}

/// As a list for the operator: `` `{.…}`, `{topic}` ``.
impl fmt::Display for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [
            (Roots::PAYLOAD, "`{.…}`"),
            (Roots::PATH, "`{path.…}`"),
            (Roots::QUERY, "`{query.…}`"),
            (Roots::HEADER, "`{header.…}`"),
            (Roots::CLAIMS, "`{claims.…}`"),
            (Roots::SESSION, "`{session.id}`"),
            (Roots::TOPIC, "`{topic}`"),
            (Roots::ID, "`{id}`"),
            (Roots::NOW, "`{now}`"),
            (Roots::STATS, "`{stats.…}`"),
            (Roots::CHANNEL, "`{channel}`"),
        ];
        let here: Vec<&str> = named.iter().filter(|(root, _)| self.contains(*root)).map(|(_, name)| *name).collect();
        f.write_str(&here.join(", "))
    }
}

impl From<NameError> for Unfilled {
    fn from(e: NameError) -> Unfilled {
        Unfilled(e.0)
    }
}

#[cfg(test)]
mod tests;
