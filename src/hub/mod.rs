//! The hub: shards, each a thread with its own sessions; the hot path. No configuration file, no HTTP.
pub mod index;
pub mod timers;
pub mod queue;
pub mod tails;
