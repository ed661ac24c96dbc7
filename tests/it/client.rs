//! Clients of our own: small, blocking, exact about bytes. And two foreign ones, so that we do not only agree with
//! ourselves.

pub mod feed;
pub mod foreign;
pub mod http;
pub mod socket;
pub mod websocket;

use std::time::{Duration, Instant};

/// How long a test waits for what must come. Nothing waits this long when all is well.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The moment when patience ends.
pub fn soon() -> Instant {
    Instant::now() + PATIENCE
}
