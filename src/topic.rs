//! Topics and patterns: names of events, and names with wildcards.
//!
//! A name is a row of *parts*: a segment together with the separator before it (`alerts/eu.db` is `alerts`, `/eu`,
//! `.db`). So `a/*` and `a.b` differ in their second part, and one comparison covers separator and segment.

use std::fmt;
use std::sync::Arc;

/// Longest topic or pattern, in bytes.
pub const MAX_NAME: usize = 255;

/// Most single `*` in a pattern. An index follows each `*` beside the literal segment, so this bounds what one session
/// can make every event cost.
const MAX_STARS: usize = 8;

/// The name an event is published under: 1-255 bytes of UTF-8 without control characters or `*`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

/// A topic with wildcards: `*` is one segment, `**` at the end any rest. A topic is a pattern that matches itself.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Arc<str>);

/// Why a text is no topic or pattern; the message tells what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(pub String);

/// What stands before a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Separator {
    /// Nothing: it is the first.
    Start,
    Slash,
    Dot,
    Colon,
}

/// A segment with the separator before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    pub separator: Separator,
    /// Separator and segment as they stand in the name.
    pub text: &'a str,
}

/// The parts of a name, in order; a name has at least one.
#[derive(Debug, Clone)]
pub(crate) struct Parts<'a> {
    rest: Option<&'a str>,
    separator: Separator,
}

impl Topic {
    /// Checks and keeps a name.
    pub fn new(name: &str) -> Result<Topic, NameError> {
        check_name("a topic", name)?;
        if name.contains('*') {
            return Err(NameError(format!("a topic has no `*`, which is for patterns: {name:?}")));
        }
        Ok(Topic(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Pattern {
    /// Checks and keeps a pattern.
    pub fn new(text: &str) -> Result<Pattern, NameError> {
        check_name("a pattern", text)?;
        let mut stars = 0;
        let mut segments = parts(text).map(Part::segment).peekable();
        while let Some(segment) = segments.next() {
            match segment {
                "*" => stars += 1,
                "**" if segments.peek().is_none() => {}
                "**" => return Err(NameError(format!("`**` stands only at the end of a pattern: {text:?}"))),
                _ if segment.contains('*') => {
                    return Err(NameError(format!(
                        "`*` is a whole segment, not part of one ({segment:?} in {text:?})"
                    )));
                }
                _ => {}
            }
        }
        if stars > MAX_STARS {
            return Err(NameError(format!("a pattern has at most {MAX_STARS} single `*`: {text:?}")));
        }
        Ok(Pattern(text.into()))
    }

    /// The pattern of everything, `**`.
    pub fn all() -> Pattern {
        Pattern("**".into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it has no wildcard, and so names one topic.
    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    /// Whether this topic falls under it.
    pub fn matches(&self, topic: &str) -> bool {
        let mut topic = parts(topic);
        for wanted in parts(&self.0) {
            let found = topic.next();
            if wanted.is_rest() {
                return found.is_none_or(|found| found.separator == wanted.separator);
            }
            let Some(found) = found else { return false };
            if !wanted.includes(found) {
                return false;
            }
        }
        topic.next().is_none()
    }

    /// Whether every topic that `other` matches is matched by this one.
    pub fn covers(&self, other: &Pattern) -> bool {
        let mut other = parts(&other.0);
        for mine in parts(&self.0) {
            let theirs = other.next();
            if mine.is_rest() {
                return theirs.is_none_or(|theirs| theirs.separator == mine.separator);
            }
            let Some(theirs) = theirs else { return false };
            if theirs.is_rest() || !mine.includes(theirs) {
                return false;
            }
        }
        other.next().is_none()
    }

    /// Whether some topic is matched by both. May say yes too often, never no wrongly.
    pub fn overlaps(&self, other: &Pattern) -> bool {
        let (mut these, mut those) = (parts(&self.0), parts(&other.0));
        loop {
            let (mine, theirs) = match (these.next(), those.next()) {
                (None, None) => return true,
                (Some(longer), None) | (None, Some(longer)) => return longer.is_rest(),
                (Some(mine), Some(theirs)) => (mine, theirs),
            };
            match (mine.is_rest(), theirs.is_rest()) {
                (true, true) => return true,
                (true, false) | (false, true) => return mine.separator == theirs.separator,
                (false, false) if mine.includes(theirs) || theirs.includes(mine) => {}
                (false, false) => return false,
            }
        }
    }
}

impl<'a> Part<'a> {
    /// Without the separator.
    pub fn segment(self) -> &'a str {
        if self.separator == Separator::Start { self.text } else { &self.text[1..] }
    }

    /// Whether it is `*`.
    pub fn is_star(self) -> bool {
        self.segment() == "*"
    }

    /// Whether it is `**`.
    pub fn is_rest(self) -> bool {
        self.segment() == "**"
    }

    /// Whether it stands for this part, as a literal or `*`.
    fn includes(self, other: Part<'_>) -> bool {
        self.text == other.text || self.separator == other.separator && self.is_star()
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let rest = self.rest?;
        let separator = self.separator;
        let from = usize::from(separator != Separator::Start);
        let end = rest.bytes().skip(from).position(is_separator).map(|at| at + from);
        let (text, rest) = match end {
            Some(end) => (&rest[..end], Some(&rest[end..])),
            None => (rest, None),
        };
        self.rest = rest;
        self.separator = rest.map_or(separator, |rest| match rest.as_bytes()[0] {
            b'/' => Separator::Slash,
            b'.' => Separator::Dot,
            _ => Separator::Colon,
        });
        Some(Part { separator, text })
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The parts of a topic or pattern.
pub(crate) fn parts(name: &str) -> Parts<'_> {
    Parts { rest: Some(name), separator: Separator::Start }
}

/// Whether it ends a segment.
pub(crate) fn is_separator(byte: u8) -> bool {
    matches!(byte, b'/' | b'.' | b':')
}

fn check_name(what: &str, name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError(format!("{what} cannot be empty")));
    }
    if name.len() > MAX_NAME {
        let start: String = name.chars().take(40).collect();
        return Err(NameError(format!("{what} has at most {MAX_NAME} bytes, {start:?}… has {}", name.len())));
    }
    if name.chars().any(char::is_control) {
        return Err(NameError(format!("{what} has no control characters: {name:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
