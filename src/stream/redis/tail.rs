//! The tails, read on as long as there is an instance: what was appended by anybody enters here, once and in order.
//!
//! One connection reads all partitions; in a Cluster, where one command can ask for one slot only, each has its own.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::{Cmd, Value};

use super::{Id, Store, entry, locked};
use crate::event::Event;
use crate::link::server::Topology;
use crate::link::{Backoff, Down, Wire};
use crate::stream::{Partition, Streams};

/// How long Redis holds an empty answer back. A process that is stopped is found after this and the `timeout`.
const BLOCK: Duration = Duration::from_millis(500);
/// Entries of each partition at once, at first and at most: more gains nothing, and this is some 200 KiB of ordinary
/// events. It grows while answers are full and small, so that a log of large events is read in small parts.
const COUNTS: (usize, usize) = (16, 1024);
/// What an answer should not exceed by much.
const ANSWER: usize = 1024 * 1024;
/// So much later Redis may look whether an answer was held back long enough.
const LATE: Duration = Duration::from_millis(200);
/// While the shards are behind, how often it is looked whether they have caught up.
const BEHIND: Duration = Duration::from_millis(2);

/// Those who read have at least so long before a changed table has others begin: long enough to connect and read, so that
/// a file that changes all the time does not keep everybody from reading.
const LEAST: Duration = Duration::from_millis(100);

/// Before anything else is known.
const UNREACHED: &str = "the store was not reached yet";

type Partitions = Vec<Arc<Partition>>;

/// An entry that does not follow what is here: the partition must be looked at again.
struct Astray;

/// What became of an answer.
#[derive(Default)]
struct Taken {
    /// Where something did not follow.
    astray: Partitions,
    /// Entries of the partition with most.
    longest: usize,
    bytes: usize,
}

impl Taken {
    /// How many entries to ask for next.
    fn next_count(&self, count: usize) -> usize {
        let next = if self.bytes > ANSWER {
            count / 2
        } else if self.longest >= count {
            count * 2
        } else {
            count
        };
        next.clamp(COUNTS.0, COUNTS.1)
    }
}

/// Reads on, for as long as there are streams; follows a changed table.
pub(in crate::stream) async fn run(store: Arc<Store>, streams: Weak<Streams>) {
    loop {
        let changed = store.changed.notified();
        let Some(alive) = streams.upgrade() else { return };
        let partitions: Partitions = alive.partitions().iter().filter(|one| !one.place().live).cloned().collect();
        drop(alive);
        locked(&store.troubles).retain(|name, _| name == super::live::NAME);
        let groups: Vec<Partitions> = match store.link.server().topology {
            Topology::Cluster => partitions.into_iter().map(|one| vec![one]).collect(),
            Topology::Single | Topology::Sentinel { .. } => vec![partitions],
        };
        let readers = groups.into_iter().map(|group| {
            let (store, streams) = (store.clone(), streams.clone());
            tokio::spawn(async move { store.read_for_ever(&group, &streams).await })
        });
        let readers: Vec<_> = readers.collect();
        let least = tokio::time::sleep(LEAST);
        changed.await;
        least.await;
        readers.iter().for_each(|reader| reader.abort());
    }
}

impl Store {
    async fn read_for_ever(&self, group: &Partitions, streams: &Weak<Streams>) {
        let place = group.first().map(|one| one.place().clone());
        let Some(name) = place.map(|place| format!("{}/{}", place.stream, place.partition)) else { return };
        locked(&self.troubles).insert(name.clone(), UNREACHED.to_owned());
        let mut backoff = Backoff::default();
        loop {
            let began = tokio::time::Instant::now();
            let Err(down) = self.read(&name, group, streams).await else { return };
            self.trouble(&name, Some(down));
            if began.elapsed() > Duration::from_secs(5) {
                backoff.reset();
            }
            backoff.wait().await;
        }
    }

    /// Why this group cannot be read now.
    fn trouble(&self, name: &str, down: Option<Down>) {
        let mut troubles = locked(&self.troubles);
        let before = match &down {
            Some(Down(why)) => troubles.insert(name.to_owned(), why.clone()),
            None => troubles.remove(name),
        };
        match (before.filter(|before| before != UNREACHED || down.is_none()), down) {
            (None, Some(Down(why))) => tracing::warn!(from = name, %why, "streams are not read"),
            (Some(_), None) => tracing::info!(from = name, "streams are read"),
            _ => {}
        }
    }

    /// Over one connection, until it fails. `Ok` when there is nobody left to read for.
    async fn read(&self, name: &str, group: &Partitions, streams: &Weak<Streams>) -> Result<(), Down> {
        let key = self.keys(&group[0], &["log"]).remove(0);
        let mut wire = self.link.own(&key, None, BLOCK + LATE + self.link.server().timeout).await?;
        self.check_format().await?;
        let mut astray: Vec<Arc<Partition>> = group.clone();
        let mut count = COUNTS.0;
        loop {
            for partition in std::mem::take(&mut astray) {
                let mut places = self.places.lock().await;
                let look = self.look(&partition, Some(&mut wire)).await?;
                self.settle(&partition, places.entry(partition.place().hash).or_default(), look).await?;
            }
            let Some(alive) = streams.upgrade() else { return Ok(()) };
            self.trouble(name, None);
            alive.wake();
            let ready = alive.ready_to_read(group);
            drop(alive);
            if ready.is_empty() {
                tokio::time::sleep(BEHIND).await;
                continue;
            }
            let answer = self.ask(&mut wire, &ready, count).await?;
            if self.link.is_stale(&wire) {
                return Err(Down("another is the master by now".to_owned()));
            }
            let news = !matches!(answer, Value::Nil);
            let taken = self.take(&ready, answer).await;
            count = taken.next_count(count);
            astray = taken.astray;
            if news {
                let Some(alive) = streams.upgrade() else { return Ok(()) };
                alive.mirrored();
                self.news.notify_waiters();
            }
        }
    }

    /// What follows in all partitions of the group; waits a while for something.
    async fn ask(&self, wire: &mut Wire, group: &Partitions, count: usize) -> Result<Value, Down> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(count).arg("BLOCK").arg(BLOCK.as_millis() as u64).arg("STREAMS");
        for partition in group {
            command.arg(&self.keys(partition, &["log"])[0]);
        }
        self.add_places(&mut command, group).await;
        let answer = command.query_async(&mut wire.connection).await;
        match answer {
            Ok(answer) => Ok(answer),
            Err(error) => {
                self.link.failed(wire, &error).await;
                Err(self.link.down(&error))
            }
        }
    }

    async fn add_places(&self, command: &mut Cmd, group: &Partitions) {
        let places = self.places.lock().await;
        for partition in group {
            let (time, position) = places.get(&partition.place().hash).copied().unwrap_or_default();
            command.arg(format!("{time}-{position}"));
        }
    }

    /// Mirrors what came; the partitions in which something does not follow.
    async fn take(&self, group: &Partitions, answer: Value) -> Taken {
        let by_key: HashMap<Vec<u8>, &Arc<Partition>> =
            group.iter().map(|partition| (self.keys(partition, &["log"]).remove(0), partition)).collect();
        let mut taken = Taken::default();
        let mut places = self.places.lock().await;
        for (key, entries) in logs(answer) {
            let Some(partition) = by_key.get(&key) else { continue };
            let id = places.entry(partition.place().hash).or_default();
            taken.longest = taken.longest.max(entries.len());
            taken.bytes += entries.iter().map(entry::size).sum::<usize>();
            if self.follow(partition, id, entries).await.is_err() {
                taken.astray.push(Arc::clone(partition));
            }
        }
        taken
    }

    /// Mirrors entries of one partition, as far as they follow what is there.
    async fn follow(&self, partition: &Arc<Partition>, id: &mut Id, entries: Vec<Value>) -> Result<(), Astray> {
        let mut batch: Vec<(Arc<Event>, bool)> = Vec::with_capacity(entries.len());
        let (epoch, mut head) = partition.head();
        for value in entries {
            let Some((entry, event, clears)) = entry::read(value, partition.place()) else {
                tracing::error!(stream = %partition.place().stream, "an entry of the store is none of Relay's; it is left out");
                continue;
            };
            if event.position <= head && event.epoch == epoch {
                *id = entry; // it came by another way already
                continue;
            }
            if event.epoch != epoch && !partition.knows(event.epoch) || event.position <= head {
                partition.follow(batch);
                return Err(Astray);
            }
            if event.position > head + 1 {
                partition.follow(std::mem::take(&mut batch));
                self.pass(partition, event.position - 1).await?;
            }
            (head, *id) = (event.position, entry);
            batch.push((event, clears));
        }
        partition.follow(batch);
        Ok(())
    }

    /// Goes over a hole: what was there is past its retention. Those who still read what is before it do so first.
    async fn pass(&self, partition: &Partition, to: u64) -> Result<(), Astray> {
        while !partition.all_is_seen() {
            tokio::time::sleep(BEHIND).await;
        }
        let values = self.values(partition, to).await.map_err(|_| Astray)?;
        partition.skip(to, values);
        Ok(())
    }
}

/// The logs of an answer of XREAD, as a map (RESP3) or a list of pairs.
fn logs(answer: Value) -> Vec<(Vec<u8>, Vec<Value>)> {
    let pairs: Vec<(Value, Value)> = match answer {
        Value::Map(pairs) => pairs,
        Value::Array(pairs) => pairs
            .into_iter()
            .filter_map(|pair| match pair {
                Value::Array(pair) => <[Value; 2]>::try_from(pair).ok().map(|[key, entries]| (key, entries)),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    };
    let entries = |value| match value {
        Value::Array(entries) => Some(entries),
        _ => None,
    };
    pairs.into_iter().filter_map(|(key, value)| Some((entry::bytes(key)?, entries(value)?))).collect()
}
