//! The store outside: streams kept in Redis, by many instances. One script for each partition touched appends; the tail
//! of every partition is read back and mirrored here; older pages are fetched when somebody reads them.

mod entry;
mod fetch;
mod lease;
mod live;
mod probe;
mod settle;
mod tail;
mod together;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use redis::{Cmd, FromRedisValue, Value};
use tokio::sync::Notify;

use super::dedupe::MAX_KEYS;
use super::older::Older;
use super::partition::Entry;
use super::{Origin, Partition, Refused, Streams};
use crate::event::{Epoch, Time};
use crate::link::server::Server;
use crate::link::{Down, Link, Script};

/// The layout of keys and entries, part of every key. Releases with another one refuse.
const FORMAT: &str = "1";
/// Entries that stay in the log however few of them sessions may read: instances read it in their own time, and what is
/// trimmed before one has come to it is lost to its sessions.
const LEAST: u64 = 8192;
/// How long an append waits until what it appended is here as well. It is, as a rule, at once; and if reading is
/// interrupted, what is stored is stored.
const ECHO: Duration = Duration::from_millis(250);

static APPEND: Script = Script::new(concat!(include_str!("life.lua"), include_str!("append.lua")));

/// What `[redis]` says.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where it is.
    pub server: Server,
    /// What all keys begin with.
    pub prefix: String,
    /// Whose clock says when an event was accepted: Redis's own, for it is the same for all instances; or that of whoever
    /// appends, for tests that make time pass.
    pub own_clock: bool,
}

/// Streams in one Redis.
pub(super) struct Store {
    pub link: Link,
    prefix: String,
    own_clock: bool,
    pub older: Arc<Older>,
    /// Behind which entry the tail of a partition is read on, by the partition's hash. Whoever changes what a partition
    /// mirrors holds it.
    places: tokio::sync::Mutex<HashMap<u32, Id>>,
    /// Something was mirrored.
    news: Notify,
    /// The table of streams changed, or the store is let go.
    pub changed: Notify,
    /// The last place that was acknowledged in each partition: what an answer promised must be there, or be told.
    promised: Mutex<HashMap<u32, (Epoch, u64)>>,
    /// Where appends are under way: whoever asks for one may be gone before it is.
    runtime: tokio::runtime::Handle,
    /// What goes with the next append of its partition.
    waiting: together::Waiting,
    /// What keeps the tails from being read, by connection.
    troubles: Mutex<HashMap<String, String>>,
}

/// Of an entry: its time and its position.
type Id = (u64, u64);

/// Where an event landed.
pub(super) struct Landed {
    /// Its number in the batch.
    pub at: usize,
    /// `None` if its source had appended it before.
    pub place: Option<(Epoch, u64)>,
    pub duplicate: bool,
}

/// Follows Redis for as long as there are streams.
pub(super) fn follow(store: &Arc<Store>, streams: &Weak<Streams>) {
    tokio::spawn(tail::run(store.clone(), streams.clone()));
    tokio::spawn(fetch::run(store.clone(), streams.clone()));
    tokio::spawn(live::run(store.clone(), streams.clone()));
    tokio::spawn(probe::run(store.clone(), streams.clone()));
}

impl Store {
    pub fn new(settings: Settings) -> Arc<Store> {
        let Settings { server, prefix, own_clock } = settings;
        Arc::new(Store {
            link: Link::new(server, "store"),
            prefix,
            own_clock,
            older: Arc::default(),
            places: tokio::sync::Mutex::default(),
            news: Notify::new(),
            changed: Notify::new(),
            promised: Mutex::default(),
            runtime: tokio::runtime::Handle::current(),
            waiting: Mutex::default(),
            troubles: Mutex::default(),
        })
    }

    /// Appends a batch to one partition, and waits for it to come back. Refused, it may be there all the same: an answer
    /// can be lost.
    pub async fn append(
        self: &Arc<Self>,
        partition: &Arc<Partition>,
        batch: Vec<Entry>,
        origin: Option<&Origin>,
        now: Time,
    ) -> Result<Vec<Landed>, Refused> {
        let landed = match origin {
            Some(_) => self.put(partition, &batch, origin, now).await?,
            None => self.together(partition, batch, now).await?,
        };
        let last = landed.iter().filter(|one| !one.duplicate).filter_map(|one| one.place).next_back();
        if let Some((epoch, position)) = last {
            self.promise(partition, epoch, position);
            self.echo(partition, position).await;
        }
        Ok(landed)
    }

    fn promise(&self, partition: &Partition, epoch: Epoch, position: u64) {
        let mut promised = locked(&self.promised);
        let before = promised.entry(partition.place().hash).or_insert((epoch, position));
        *before = if before.0 == epoch { (epoch, before.1.max(position)) } else { (epoch, position) };
    }

    /// What this instance knows to have been there: it mirrored it, or an answer said so. If it is there no more, the script
    /// says so in the log, also for those who had not read as far, and would never know.
    fn add_known(&self, partition: &Partition, command: &mut Cmd) {
        let mirrored = Some(partition.head()).filter(|_| partition.is_open());
        let promised = locked(&self.promised).get(&partition.place().hash).copied();
        for known in [mirrored, promised] {
            match known {
                Some((epoch, position)) => command.arg(epoch.0).arg(position),
                None => command.arg("").arg(""),
            };
        }
    }

    async fn put(
        &self,
        partition: &Partition,
        batch: &[Entry],
        origin: Option<&Origin>,
        now: Time,
    ) -> Result<Vec<Landed>, Refused> {
        let limits = partition.limits();
        let mut keys = self.keys(partition, &["log", "meta", "keys", "order", "values", "topics"]);
        if let Some(origin) = origin {
            keys.extend(self.keys(partition, &[&format!("at:{}", origin.source)]));
        }
        let now = if self.own_clock { String::new() } else { now.0.to_string() };
        let age = limits.max_age.map_or(0, |age| age.as_millis());
        let fence = origin.map(|origin| origin.fence.to_string()).unwrap_or_default();
        let fill = |wire: &crate::link::Wire, command: &mut Cmd| {
            command.arg(&*wire.run_id).arg(&now).arg(candidate(partition).0).arg(limits.max_events.max(LEAST));
            command.arg(age.to_string()).arg(limits.retain).arg(MAX_KEYS).arg(&fence);
            self.add_known(partition, command);
            batch.iter().for_each(|entry| entry::write(entry, command));
        };
        let answer = self.link.run(&APPEND, &keys, &fill).await?;
        if matches!(answer, Value::Int(0)) {
            return Err(Refused::Fenced);
        }
        let numbers = Vec::<i64>::from_redis_value(answer).map_err(|error| Down(error.to_string()))?;
        let landed = |(entry, pair): (&Entry, &[i64])| Landed {
            at: entry.at,
            place: (pair[0] > 0).then(|| (Epoch(pair[0] as u32), pair[1].unsigned_abs())),
            duplicate: pair[1] <= 0,
        };
        Ok(batch.iter().zip(numbers.chunks_exact(2)).map(landed).collect())
    }

    /// Waits until this instance has what it appended, so that whoever was told of it finds it here.
    async fn echo(&self, partition: &Partition, position: u64) {
        let here = async {
            loop {
                let news = self.news.notified();
                if partition.is_at(position) {
                    return;
                }
                news.await;
            }
        };
        let _ = tokio::time::timeout(ECHO, here).await; // it comes when the tail is read again
    }

    /// A partition that is new here is found in a moment, if the store is there.
    pub async fn found(&self, partition: &Partition) -> Result<(), Down> {
        let open = async {
            while !partition.is_open() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let late = |_| self.link.is_up().err().unwrap_or_else(|| Down("the store was not reached yet".to_owned()));
        let patience = if self.link.is_up().is_ok() { self.link.server().timeout } else { Duration::ZERO };
        tokio::time::timeout(patience, open).await.map_err(late)
    }

    /// Why not everything can be read and appended now.
    pub fn troubles(&self) -> Vec<String> {
        let mut all: Vec<String> = locked(&self.troubles).values().cloned().collect();
        all.extend(self.link.is_up().err().map(|down| down.0));
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Keys of a partition; they share a slot.
    fn keys(&self, partition: &Partition, names: &[&str]) -> Vec<Vec<u8>> {
        let place = partition.place();
        let key = |name: &&str| {
            format!("{}:{FORMAT}:{{{}/{}}}:{name}", self.prefix, place.stream, place.partition).into_bytes()
        };
        names.iter().map(key).collect()
    }
}

/// An epoch for a new life. Ids name the stream and the epoch, but not the partition: so the partitions of a stream take
/// theirs from different numbers.
fn candidate(partition: &Partition) -> Epoch {
    let number = partition.place().partition;
    let random = getrandom::u32().expect("the system has random numbers once it runs programs") % super::table::EPOCHS;
    Epoch((random - random % 64 + number).max(64 + number))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
