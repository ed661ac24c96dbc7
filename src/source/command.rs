//! What sessions publish: a source like any other. Each shard's publications are appended in the order they were said.

use std::sync::Arc;

use tokio::sync::mpsc::{self, Receiver};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::event::Time;
use crate::stream::{Draft, Streams};

/// Publications that may wait for a stream; above it a session is told at once that nothing was published.
const WAITING: usize = 1024;
/// Publications appended together at most, and what more of them is not added to.
const TOGETHER: usize = 256;
const LARGE: usize = 1024 * 1024;
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

/// Appends until nobody can say anything any more: what waits goes together, as far as it lies together, so that a way
/// to a store is not gone once for each.
async fn publish(streams: Arc<Streams>, mut said: Receiver<Said>) {
    let mut waiting = Vec::new();
    while said.recv_many(&mut waiting, TOGETHER).await > 0 {
        while let Some(first) = waiting.first() {
            let (place, mut bytes) = (streams.place_of(&first.draft.topic), 0);
            let alike = waiting.iter().take_while(|one| {
                let fits = bytes < LARGE && streams.place_of(&one.draft.topic) == place;
                bytes += one.draft.payload.bytes.len();
                fits
            });
            let alike = alike.count();
            let (drafts, done): (Vec<Draft>, Vec<_>) =
                waiting.drain(..alike).map(|Said { draft, done, _room }| (draft, (done, _room))).unzip();
            let refused = streams.append(drafts, Time::now()).await.err().map(|error| error.to_string());
            done.into_iter().for_each(|(done, _room)| done(refused.clone()));
        }
    }
}
