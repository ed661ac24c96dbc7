//! The file: read, checked, with every mistake in its place. Below this, nobody knows that there is a file.

use std::path::PathBuf;
use std::time::Duration;

use crate::gate::{limits, peer::Network};
use crate::http::path::PathPattern;
use crate::session::endpoint;
use crate::source::webhook;
use crate::stream;

/// The quickstart, compiled in.
pub const EMBEDDED: &str = include_str!("../../relay.toml");

/// What code may use, whole and checked.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Config {
    pub server: Server,
    pub admin: Admin,
    pub limits: Limits,
    pub store: Store,
    pub streams: Vec<stream::Settings>,
    pub webhooks: Vec<(PathPattern, webhook::Settings)>,
    pub endpoints: Vec<endpoint::Settings>,
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Address {
    Tcp(std::net::SocketAddr),
    Unix {
        path: PathBuf,
        mode: Option<u32>,
    },
    /// Sockets passed by systemd.
    Systemd,
}

/// `[server]`.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Server {
    pub listen: Vec<Address>,
    pub trusted_proxies: Vec<Network>,
    pub drain: Duration,
    pub session_age: Option<Duration>,
}

/// `[admin]`.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Admin {
    pub listen: Vec<Address>,
}

/// `[limits]`: the gate's, and the sessions'.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Limits {
    pub gate: limits::Settings,
    pub topics_per_session: usize,
    pub frame: usize,
    pub queue: usize,
    pub queues: usize,
    pub replay: u64,
}

/// `[store]`.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Store {
    pub memory: u64,
}
