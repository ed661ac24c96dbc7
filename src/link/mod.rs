//! Links: supervised connections to Redis servers.

pub mod server;
