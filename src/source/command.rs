//! What sessions publish: a source like any other. Each shard's publications are appended in the order they were said.

use std::sync::Arc;

use tokio::sync::mpsc::Receiver;

use crate::event::Time;
use crate::stream::{Draft, Streams};

/// Publications that may wait for a stream; above it a session is told at once that nothing was published.
pub const WAITING: usize = 1024;

/// Something said, and what to do if it was not published.
pub struct Said {
    /// What.
    pub draft: Draft,
    /// Learns why it was not published, or that it was.
    pub done: Box<dyn FnOnce(Option<String>) + Send>,
}

/// Appends until nobody can say anything any more.
pub async fn publish(streams: Arc<Streams>, mut said: Receiver<Said>) {
    while let Some(Said { draft, done }) = said.recv().await {
        done(streams.append(vec![draft], Time::now()).await.err().map(|error| error.to_string()));
    }
}
