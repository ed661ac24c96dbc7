//! Older pages, fetched for those who read the past.

use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::sync::Semaphore;

use super::{Store, entry};
use crate::event::Event;
use crate::link::{Down, Script, Wire};
use crate::stream::older::{BLOCK, Block, Number};
use crate::stream::{Partition, Streams};

static PAGE: Script = Script::new(include_str!("page.lua"));

/// Fetches under way at once: enough to hide the way to Redis, few enough not to be a burst.
const AT_ONCE: usize = 8;
/// Before those who wait for a page that could not be had ask again.
const PAUSE: Duration = Duration::from_millis(200);

/// Fetches what is wanted, for as long as there are streams.
pub(in crate::stream) async fn run(store: Arc<Store>, streams: Weak<Streams>) {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let number = store.older.next().await;
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let Some(alive) = streams.upgrade() else { return };
        let store = store.clone();
        tokio::spawn(async move {
            bring(&store, &alive, number).await;
            drop(slot);
        });
    }
}

async fn bring(store: &Store, streams: &Streams, number: Number) {
    let partition = streams.partitions().iter().find(|one| one.place().hash == number.0).cloned();
    let block = match partition {
        Some(partition) => store.block(&partition, number.1).await,
        None => Err(Down("the stream was removed".to_owned())),
    };
    if block.is_err() {
        tokio::time::sleep(PAUSE).await;
    }
    store.older.bring(number, block.ok());
    streams.wake();
}

impl Store {
    async fn block(&self, partition: &Partition, number: u64) -> Result<Block, Down> {
        let first = number * BLOCK + 1;
        let (oldest, events) = self.entries(partition, first, first + BLOCK - 1).await?;
        Ok(Block::new(events, oldest.unwrap_or_else(|| partition.head().1 + 1)))
    }

    /// The events of some positions, and the oldest position that is kept from the first one on.
    pub(super) async fn entries(
        &self,
        partition: &Partition,
        first: u64,
        last: u64,
    ) -> Result<(Option<u64>, Vec<Arc<Event>>), Down> {
        let keys = self.keys(partition, &["log"]);
        let fill = move |_: &Wire, command: &mut Cmd| {
            command.arg(first).arg(last);
        };
        let Value::Array(answer) = self.link.run(&PAGE, &keys, &fill).await? else { return Ok((None, Vec::new())) };
        let mut answer = answer.into_iter();
        let oldest = match answer.next() {
            Some(Value::Int(oldest)) if oldest > 0 => Some(oldest as u64),
            _ => None,
        };
        let Some(Value::Array(entries)) = answer.next() else { return Ok((oldest, Vec::new())) };
        let events = entries.into_iter().filter_map(|entry| entry::read(entry, partition.place()));
        Ok((oldest, events.map(|(_, event, _)| event).collect()))
    }
}
