//! Older pages, fetched for those who read the past.

use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::{Cmd, FromRedisValue, Value};
use tokio::sync::Semaphore;

use super::{Store, entry};
use crate::event::{Epoch, Event};
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

/// What was read of a log.
pub(super) struct Read {
    /// The life it is in.
    epoch: Epoch,
    /// The oldest position that is kept from the first one on.
    oldest: Option<u64>,
    pub events: Vec<Arc<Event>>,
}

impl Store {
    async fn block(&self, partition: &Partition, number: u64) -> Result<Block, Down> {
        let first = number * BLOCK + 1;
        let Read { epoch, oldest, events } = self.entries(partition, first, first + BLOCK - 1).await?;
        if epoch != partition.head().0 {
            // Positions of a life that is not known here yet must not be taken for those of the one that is.
            return Err(Down("the partition begins another life".to_owned()));
        }
        Ok(Block::new(events, oldest.unwrap_or_else(|| partition.head().1 + 1)))
    }

    /// The events of some positions.
    pub(super) async fn entries(&self, partition: &Partition, first: u64, last: u64) -> Result<Read, Down> {
        let keys = self.keys(partition, &["log", "meta"]);
        let fill = move |_: &Wire, command: &mut Cmd| {
            command.arg(first).arg(last);
        };
        let answer = self.link.run(&PAGE, &keys, &fill).await?;
        let (epoch, oldest, entries): (u32, u64, Option<Vec<Value>>) =
            FromRedisValue::from_redis_value(answer).map_err(|error| Down(error.to_string()))?;
        let events = entries.into_iter().flatten().filter_map(|entry| entry::read(entry, partition.place()));
        let events = events.map(|(_, event, _)| event).collect();
        Ok(Read { epoch: Epoch(epoch), oldest: (oldest > 0).then_some(oldest), events })
    }
}
