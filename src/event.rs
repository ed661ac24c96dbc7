//! Events: one immutable thing that happened, with its place in a stream.

use std::sync::Arc;

use bytes::Bytes;

use crate::topic::Topic;

/// What the bytes of a payload are, decided where it enters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One JSON value, valid, as it was sent, byte for byte.
    Json,
    /// UTF-8.
    Text,
    /// Anything else.
    Binary,
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

impl Time {
    /// The clock, for the shell.
    pub fn now() -> Time {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Time(since.unwrap_or_default().as_millis() as u64)
    }
    /// RFC 3339, UTC, milliseconds: `2026-11-20T20:15:00.123Z`, appended to `out`.
    pub fn write(self, out: &mut Vec<u8>) {
        let _ = out;
        todo!()
    }
}

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

impl Event {
    /// `alerts-k3f9-1042`, appended to `out`.
    pub fn write_id(&self, out: &mut Vec<u8>) {
        let _ = out;
        todo!()
    }
    /// The id as text.
    pub fn id(&self) -> String {
        todo!()
    }
}
