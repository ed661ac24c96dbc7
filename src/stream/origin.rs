//! What a source that may be heard by many instances says of itself: who it is, how its events are called, who appends.

use std::sync::Arc;
use std::time::Duration;

/// The name of something at its source, the same wherever it is heard: a marker's number and the count since then, or
/// the two parts of the id of a Redis Stream's entry. Names of one source rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(pub u64, pub u64);

/// Who appends what a source says.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The source.
    pub source: Arc<str>,
    /// The number of the lease: a holder that has been overtaken is refused.
    pub fence: u64,
}

/// What is asked of a lease.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    /// By whom: an instance.
    pub me: &'a str,
    /// If it is free, it is taken.
    pub may_take: bool,
    /// If it is held, it is given back.
    pub resign: bool,
    /// A holder says that everything up to here is appended.
    pub done: Option<Name>,
    /// For how long it holds from now on.
    pub ttl: Duration,
}

/// What is known of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Whether the asker holds it.
    pub mine: bool,
    /// Its number.
    pub fence: u64,
    /// Everything up to here is appended, said the last holder.
    pub done: Option<Name>,
    /// How long it has been free, if it is.
    pub free_for: Option<Duration>,
    /// Whether anybody ever held it.
    pub known: bool,
}
