//! What a source that may be heard by many instances says of itself: who it is, how its events are called, who appends.

use std::sync::Arc;
use std::time::Duration;

/// The name of something at its source, the same wherever it is heard: a marker's number and the count since then, or
/// the two parts of the id of a Redis Stream's entry. Names of one source rise, as long as the upper half of the second
/// part stays the same: there stands which process counted, and what another one counted is neither before nor after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(pub u64, pub u64);

impl Name {
    /// Whether it comes after this one, or cannot be compared with it.
    pub fn follows(self, kept: Name) -> bool {
        let counted_by = |name: Name| name.1 >> 32;
        counted_by(self) != counted_by(kept) || self > kept
    }
}

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
    /// The holder with this fence says that everything up to here is appended.
    pub done: Option<(u64, Name)>,
    /// For how long it holds from now on.
    pub ttl: Duration,
}

/// What is known of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Whether the asker holds it.
    pub mine: bool,
    /// Its number, which rises whenever somebody takes it.
    pub fence: u64,
    /// Its number before that was asked.
    pub before: u64,
    /// Everything up to here is appended, said the last holder.
    pub done: Option<Name>,
    /// How long it has been free, if it is.
    pub free_for: Option<Duration>,
    /// Whether anybody ever held it.
    pub known: bool,
}
