//! What comes for a partition while its last append is under way goes together with the next one: fifty webhooks at once
//! are a few scripts, and each of them is answered after one or two.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use super::{Landed, Store, locked};
use crate::event::Time;
use crate::link::Down;
use crate::stream::partition::Entry;
use crate::stream::{Partition, Refused};

/// Events that go together at most, unless one batch alone is larger; and bytes of them.
const MOST: usize = 512;
const LARGE: usize = 1024 * 1024;

/// By the partition's hash; who is in it has an append under way.
pub(super) type Waiting = Mutex<HashMap<u32, Vec<Job>>>;

/// A batch, and who waits for what becomes of it.
pub(super) struct Job {
    batch: Vec<Entry>,
    now: Time,
    done: oneshot::Sender<Result<Vec<Landed>, Refused>>,
}

impl Store {
    /// Appends a batch, whole or not at all, perhaps with others. Goes on when who waits for it does not.
    pub(super) async fn together(
        self: &Arc<Self>,
        partition: &Arc<Partition>,
        batch: Vec<Entry>,
        now: Time,
    ) -> Result<Vec<Landed>, Refused> {
        let (done, landed) = oneshot::channel();
        let job = Job { batch, now, done };
        let hash = partition.place().hash;
        let first = {
            let mut waiting = locked(&self.waiting);
            let first = !waiting.contains_key(&hash);
            waiting.entry(hash).or_default().push(job);
            first
        };
        if first {
            let (store, partition) = (self.clone(), partition.clone());
            self.runtime.spawn(async move { store.append_all(&partition).await });
        }
        landed.await.unwrap_or_else(|_| Err(Down("the append was ended".to_owned()).into()))
    }

    /// One append after the other, until nobody waits.
    async fn append_all(&self, partition: &Partition) {
        while let Some(jobs) = self.next(partition.place().hash) {
            let now = jobs.iter().map(|job| job.now).max().unwrap_or_default();
            let (mut all, mut whose) = (Vec::new(), Vec::new());
            for Job { batch, done, .. } in jobs {
                whose.push((batch.len(), done));
                all.extend(batch);
            }
            let appended = self.put(partition, &all, None, now).await;
            let mut landed = appended.map(Vec::into_iter);
            for (count, done) in whose {
                let own = landed.as_mut().map(|landed| landed.take(count).collect()).map_err(|refused| refused.clone());
                let _ = done.send(own); // nobody waits any more
            }
        }
    }

    /// Those who go next; when there is nobody, the next to come is the first again.
    fn next(&self, hash: u32) -> Option<Vec<Job>> {
        let mut waiting = locked(&self.waiting);
        let jobs = waiting.get_mut(&hash)?;
        let (mut events, mut bytes) = (0, 0);
        let fits = |job: &&Job| {
            let fits = events < MOST && bytes < LARGE;
            events += job.batch.len();
            bytes += job.batch.iter().map(|entry| entry.payload.bytes.len()).sum::<usize>();
            fits
        };
        let count = jobs.iter().take_while(fits).count();
        if count == 0 {
            waiting.remove(&hash);
            return None;
        }
        Some(jobs.drain(..count).collect())
    }
}
