//! What applications say in Redis: channels they publish to, and streams they keep.

mod draft;
mod duty;
mod ear;
mod entry;
mod feed;
pub mod feeds;
mod hold;
mod holder;
mod listen;
mod live;
#[cfg(test)]
mod model;
mod name;
mod read;
mod ring;
mod tail;

use crate::link::server::Server;
use crate::template::Text;

/// What `[[source.redis]]` says. A source is known by what it reads, and from where.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What it reads.
    pub reads: Reads,
    /// The topic of its events: over the payload, `{channel}` (of a stream, its key) and `{now}`.
    pub topic: Text,
    /// From where; `None`: from the Redis of `[redis]`.
    pub server: Option<Server>,
}

/// What a source reads; never empty, and no name is there twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reads {
    /// Channels, and globs of channels ([`is_glob`]).
    Channels(Vec<String>),
    /// Channels of a Cluster's shards, by name. Braces in a name are those of one hash tag, `{tag}`.
    Sharded(Vec<String>),
    /// Redis Streams, by key.
    Streams(Vec<String>),
}

/// Whether Redis takes it for a glob: it must be subscribed to as a pattern.
pub fn is_glob(channel: &str) -> bool {
    channel.contains(['*', '?', '[', '\\'])
}
