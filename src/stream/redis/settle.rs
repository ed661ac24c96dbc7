//! What a look at the store means for the mirror of a partition: it begins, goes on, turns to another life, goes back.

use std::sync::Arc;

use redis::{Cmd, FromRedisValue, Value};

use super::{Id, Store, candidate, entry, locked};
use crate::event::{Epoch, Event};
use crate::link::{Down, Script, Wire};
use crate::stream::Partition;
use crate::stream::lives::Lives;
use crate::stream::mirror::Found;

static OPEN: Script = Script::new(concat!(include_str!("life.lua"), include_str!("open.lua")));
static VALUES: Script = Script::new(include_str!("values.lua"));

/// Last values read at once.
const VALUES_PAGE: u64 = 256;
/// How far back a log is read on that has nothing to do with the one before. What lies before that is in the gap.
const UNKNOWN: u64 = 8192;

/// A partition as it was found.
pub(super) struct Look {
    found: Found,
    /// The id of its last entry.
    last: Id,
}

impl Store {
    /// Looks at a partition, over this wire or the common one, and begins its new life if it must.
    pub(super) async fn look(&self, partition: &Partition, wire: Option<&mut Wire>) -> Result<Look, Down> {
        let keys = self.keys(partition, &["log", "meta"]);
        let fill = |wire: &Wire, command: &mut Cmd| {
            command.arg(&*wire.run_id).arg(candidate(partition).0);
            self.add_known(partition, command);
        };
        let answer = match wire {
            Some(wire) => match OPEN.run(wire, &keys, &fill, false).await {
                Ok(answer) => answer,
                Err(error) => {
                    self.link.failed(wire, &error).await;
                    return Err(self.link.down(&error));
                }
            },
            None => self.link.run(&OPEN, &keys, &fill).await?,
        };
        read_look(answer).ok_or_else(|| Down("the store answers in a language of another release".to_owned()))
    }

    /// Makes the mirror follow what was found. Called with the places locked.
    pub(super) async fn settle(&self, partition: &Partition, id: &mut Id, look: Look) -> Result<(), Down> {
        let Look { found, last } = look;
        let lives = partition.lives();
        let head = partition.head().1;
        if !partition.is_open() {
            let values = self.values(partition, found.position).await?;
            *id = last;
            partition.open(found, values);
            return Ok(());
        }
        if found.lives == lives && found.position >= head {
            return Ok(());
        }
        // What was promised in lives that are over was looked at, with the partition.
        let (hash, present) = (partition.place().hash, found.lives.epoch);
        locked(&self.promised).retain(|partition, (epoch, _)| *partition != hash || *epoch == present);
        let common = found.lives.common(&lives, head).map(|common| common.min(found.position));
        if common == Some(head) {
            partition.turn(found.lives);
            return Ok(());
        }
        let far = || found.position.saturating_sub(UNKNOWN).max(found.first.saturating_sub(1));
        let to = common.unwrap_or_else(far);
        let values = self.values(partition, to).await?;
        *id = if to == found.position { last } else { self.id_of(partition, to).await? };
        tracing::warn!(
            stream = %partition.place().stream,
            partition = partition.place().partition,
            from = head,
            to,
            "the store lost events that were there; sessions are told"
        );
        match common {
            None => partition.restart(found.lives, to, found.first, values),
            Some(_) => partition.rewind(found.lives, to, found.first, values),
        }
        Ok(())
    }

    /// The last values up to a position.
    pub(super) async fn values(&self, partition: &Partition, until: u64) -> Result<Vec<Arc<Event>>, Down> {
        let keys = self.keys(partition, &["values", "topics"]);
        let (mut all, mut after) = (Vec::new(), 0);
        while partition.retains() && after < until {
            let fill = move |_: &Wire, command: &mut Cmd| {
                command.arg(after).arg(VALUES_PAGE);
            };
            let Value::Array(page) = self.link.run(&VALUES, &keys, &fill).await? else { break };
            let mut page = page.into_iter();
            let before = after;
            while let (Some(topic), Some(value)) = (page.next(), page.next()) {
                let Some(event) = entry::read_value(topic, value, partition.place()) else { continue };
                after = after.max(event.position);
                all.push(event);
            }
            if after == before {
                break;
            }
        }
        all.retain(|event| event.position <= until);
        Ok(all)
    }

    /// The id behind which the entry after this position stands.
    async fn id_of(&self, partition: &Partition, position: u64) -> Result<Id, Down> {
        let read = self.entries(partition, position, position).await?;
        Ok(read.events.first().map_or((0, 0), |event| (event.time.0, event.position)))
    }

    /// Makes sure that the lives these marks name are known here, if anybody knows them. Those who ask at the same time
    /// share one look.
    pub(in crate::stream) async fn learn(&self, partition: &Partition, epoch: Epoch) -> Result<(), Down> {
        let mut places = self.places.lock().await;
        if partition.knows(epoch) {
            return Ok(());
        }
        let look = self.look(partition, None).await?;
        let id = places.entry(partition.place().hash).or_default();
        self.settle(partition, id, look).await
    }
}

fn read_look(answer: Value) -> Option<Look> {
    let parts = Vec::<String>::from_redis_value(answer).ok()?;
    let [epoch, position, time, past, first] = <[String; 5]>::try_from(parts).ok()?;
    let past = past.split(',').filter(|one| !one.is_empty()).map(|one| {
        let (epoch, last) = one.split_once(':')?;
        Some((Epoch(epoch.parse().ok()?), last.parse().ok()?))
    });
    let (position, time) = (position.parse().ok()?, time.parse().ok()?);
    let lives = Lives { epoch: Epoch(epoch.parse().ok()?), past: past.collect::<Option<_>>()? };
    Some(Look { found: Found { lives, position, first: first.parse().ok()? }, last: (time, position) })
}
