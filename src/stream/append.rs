//! Into the streams: a batch is taken apart by partition, and each takes its part.

use std::sync::Arc;

use super::partition::Entry;
use super::table::Table;
use super::{Appended, Ask, Draft, Lease, Name, Origin, Partition, Refused, Streams};
use crate::event::{LOST_BY_SOURCE, Time};
use crate::topic::{Pattern, Topic};

impl Streams {
    /// Appends in order, with contiguous positions per partition. Each partition takes its part of the batch whole or
    /// not at all; the first that refuses ends it, so that a refused batch over several may be stored in part.
    pub async fn append(&self, drafts: Vec<Draft>, now: Time) -> Result<Appended, Refused> {
        self.append_all(None, drafts, now).await
    }

    /// The same for the holder of a source's lease: what was appended before, by whomever, is left out by its name. So a
    /// batch whose fate is not known is appended again, until it is.
    pub async fn append_from(&self, origin: &Origin, drafts: Vec<Draft>, now: Time) -> Result<Appended, Refused> {
        self.append_all(Some(origin), drafts, now).await
    }

    async fn append_all(&self, origin: Option<&Origin>, drafts: Vec<Draft>, now: Time) -> Result<Appended, Refused> {
        self.memory.tell(now);
        let table = self.table.load_full();
        let mut appended = Appended { ids: vec![String::new(); drafts.len()], duplicates: 0 };
        let mut outcome = Ok(());
        let mut news = false;
        for (partition, batch) in table.route(drafts) {
            match self.append_to(&partition, batch, origin, now, &mut appended).await {
                Ok(new) => news |= new,
                Err(refused) => {
                    outcome = Err(refused);
                    break;
                }
            }
        }
        if news {
            self.settle(&table);
        }
        outcome.map(|()| appended)
    }

    /// One partition's part; whether something new is here by now.
    async fn append_to(
        &self,
        partition: &Arc<Partition>,
        batch: Vec<Entry>,
        origin: Option<&Origin>,
        now: Time,
        appended: &mut Appended,
    ) -> Result<bool, Refused> {
        let Some(store) = &self.store else { return take(partition, batch, origin, now, appended) };
        if partition.place().live {
            return store.publish(&batch, now).await.map(|()| false).map_err(Refused::Away);
        }
        store.found(partition).await?;
        if partition.is_behind() || self.memory.is_behind() {
            return Err(Refused::Behind);
        }
        let landed = store.append(partition, batch, origin, now).await?;
        partition.count_duplicates(landed.iter().filter(|one| one.duplicate).count());
        for one in landed {
            appended.duplicates += usize::from(one.duplicate);
            if let Some((epoch, position)) = one.place {
                appended.ids[one.at] = partition.id_of(epoch, position);
            }
        }
        Ok(false) // it comes back by the tail
    }

    /// Something is new here: readers are woken, and there is room for it.
    fn settle(&self, table: &Table) {
        self.wake();
        self.memory.make_room(&table.partitions);
    }

    /// Says, in every partition that these patterns reach, that a source lost something here. `at`: under this name, so
    /// that it is said once. `if_known`: only where the source appended something before, since nobody waits for the rest
    /// elsewhere.
    pub async fn tell_gap(
        &self,
        origin: &Origin,
        topics: &[Pattern],
        (at, if_known): (Option<Name>, bool),
        now: Time,
    ) -> Result<(), Refused> {
        let table = self.table.load_full();
        for partition in table.reached(topics, false) {
            let entry = Entry { if_known, ..gap(topics, at) };
            self.append_to(&partition, vec![entry], Some(origin), now, &mut one()).await?;
        }
        self.settle(&table);
        Ok(())
    }

    /// Takes, keeps or gives back the lease of a source. With one instance there is nobody else to hold it.
    pub async fn lease(&self, source: &str, ask: &Ask<'_>) -> Result<Lease, Refused> {
        match &self.store {
            Some(store) => store.lease(source, ask).await,
            None => Ok(Lease { mine: !ask.resign, fence: 0, before: 0, done: None, free_for: None, known: false }),
        }
    }

    /// In which partition events of this topic lie, by its hash.
    pub fn place_of(&self, topic: &Topic) -> u32 {
        self.table.load().place_of(topic.as_str())
    }

    /// Whether events of this topic go by without a log.
    pub fn is_live(&self, topic: &Topic) -> bool {
        self.table.load().is_live(topic.as_str())
    }

    /// Whether some topic under these patterns may be such.
    pub fn may_be_live(&self, topics: &[Pattern]) -> bool {
        !self.table.load().reached(topics, true).is_empty()
    }

    /// Events of live streams, straight to the sessions of this instance. What comes faster than they are served is lost,
    /// and told.
    pub fn deliver(&self, drafts: Vec<Draft>, now: Time) {
        self.memory.tell(now);
        let table = self.table.load_full();
        for (partition, batch) in table.route(drafts) {
            if !partition.place().live {
                continue;
            }
            let topics: Vec<Pattern> =
                batch.iter().filter_map(|entry| Pattern::new(entry.topic.as_str()).ok()).collect();
            if take(&partition, batch, None, now, &mut one()).is_err() {
                partition.append_anyway(gap(&topics, None), now);
            }
        }
        self.settle(&table);
    }

    /// In the live streams of this instance something is missing.
    pub fn deliver_gap(&self, topics: &[Pattern], now: Time) {
        let table = self.table.load_full();
        for partition in table.reached(topics, true) {
            partition.append_anyway(gap(topics, None), now);
        }
        self.settle(&table);
    }
}

/// In memory.
fn take(
    partition: &Partition,
    batch: Vec<Entry>,
    origin: Option<&Origin>,
    now: Time,
    appended: &mut Appended,
) -> Result<bool, Refused> {
    let mut news = false;
    for one in partition.append(batch, origin, now)? {
        if !partition.place().live && one.at < appended.ids.len() {
            appended.ids[one.at] = one.event.id();
        }
        appended.duplicates += usize::from(one.duplicate);
        news |= !one.duplicate;
    }
    Ok(news)
}

/// For a batch of one, of which nobody asks the id.
fn one() -> Appended {
    Appended { ids: vec![String::new()], duplicates: 0 }
}

fn gap(topics: &[Pattern], name: Option<Name>) -> Entry {
    Entry { name, ..Entry::gap(LOST_BY_SOURCE, topics) }
}
