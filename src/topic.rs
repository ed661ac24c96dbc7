//! Topics and patterns: names of events, and names with wildcards.

use std::sync::Arc;

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

impl Topic {
    /// Checks and keeps a name.
    pub fn new(name: &str) -> Result<Topic, NameError> {
        let _ = name;
        todo!()
    }
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Pattern {
    /// Checks and keeps a pattern.
    pub fn new(text: &str) -> Result<Pattern, NameError> {
        let _ = text;
        todo!()
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
        todo!()
    }
    /// Whether this topic falls under it.
    pub fn matches(&self, topic: &str) -> bool {
        let _ = topic;
        todo!()
    }
    /// Whether every topic that `other` matches is matched by this one.
    pub fn covers(&self, other: &Pattern) -> bool {
        let _ = other;
        todo!()
    }
    /// Whether some topic is matched by both. May say yes too often, never no wrongly.
    pub fn overlaps(&self, other: &Pattern) -> bool {
        let _ = other;
        todo!()
    }
}
impl std::fmt::Debug for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
impl std::fmt::Display for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
