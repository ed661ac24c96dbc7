//! What sessions publish: a source like any other. Each shard's publications are appended in the order they were said.

use std::sync::Arc;

use tokio::sync::mpsc::{self, Receiver};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::event::Time;
use crate::stream::{Draft, Streams};

/// Publications that may wait for a stream; above it a session is told at once that nothing was published.
const WAITING: usize = 1024;
/// Bytes of them: room for the largest frame of some sessions, not of all.
const BYTES: usize = 64 * 1024 * 1024;

/// Learns why something was not published, or that it was.
type Done = Box<dyn FnOnce(Option<String>) + Send>;

/// Something said, on its way.
struct Said {
    draft: Draft,
    done: Done,
    _room: OwnedSemaphorePermit,
}

/// Where sessions publish: false if too much waits already.
pub fn start(streams: Arc<Streams>) -> impl Fn(Draft, Done) -> bool + Send + Sync {
    let (sender, said) = mpsc::channel(WAITING);
    let room = Arc::new(Semaphore::new(BYTES));
    tokio::spawn(publish(streams, said));
    move |draft, done| {
        let bytes = draft.payload.bytes.len() as u32;
        let Ok(room) = room.clone().try_acquire_many_owned(bytes) else { return false };
        sender.try_send(Said { draft, done, _room: room }).is_ok()
    }
}

/// Appends until nobody can say anything any more.
async fn publish(streams: Arc<Streams>, mut said: Receiver<Said>) {
    while let Some(Said { draft, done, _room }) = said.recv().await {
        done(streams.append(vec![draft], Time::now()).await.err().map(|error| error.to_string()));
    }
}
