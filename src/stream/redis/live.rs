//! Live streams: published and heard, and nothing else. No log, no id; lost while nobody listens, and then that is told.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::mpsc;

use super::{FORMAT, Store, entry, locked};
use crate::event::{Kind, Payload, Time};
use crate::link::{Backoff, Down};
use crate::stream::partition::Entry;
use crate::stream::{Draft, Streams};
use crate::topic::{Pattern, Topic};

/// What its trouble is called.
pub(super) const NAME: &str = "live";
/// What was heard and not yet taken. Beyond it something is lost, and told.
const HEARD: usize = 8192;
/// How often it is asked whether the other side is still there.
const PROBE: Duration = Duration::from_secs(1);

impl Store {
    fn channel(&self) -> Vec<u8> {
        format!("{}:{FORMAT}:live", self.prefix).into_bytes()
    }

    /// Publishes events of live streams; every instance hears them, this one too.
    pub async fn publish(&self, batch: &[Entry], now: Time) -> Result<(), Down> {
        for entry in batch {
            let mut data =
                format!("{} {} {}\n", now.0, entry::word(entry.payload.kind), entry.topic.as_str()).into_bytes();
            data.extend_from_slice(&entry.payload.bytes);
            let channel = self.channel();
            self.link.call(&channel, redis::cmd("PUBLISH").arg(&channel).arg(data)).await?;
        }
        Ok(())
    }
}

/// Listens for as long as there are live streams, and again after each interruption.
pub(in crate::stream) async fn run(store: Arc<Store>, streams: Weak<Streams>) {
    let mut backoff = Backoff::default();
    let mut before = false;
    loop {
        let changed = store.changed.notified();
        let Some(alive) = streams.upgrade() else { return };
        let topics = alive.live_topics();
        drop(alive);
        if topics.is_empty() {
            locked(&store.troubles).remove(NAME);
            before = false;
            changed.await;
            continue;
        }
        match listen(&store, &streams, before.then_some(&topics[..]), &mut backoff).await {
            Ok(()) => return,
            Err((down, listened)) => {
                before |= listened;
                locked(&store.troubles).insert(NAME.to_owned(), down.0);
            }
        }
        backoff.wait().await;
    }
}

/// Until the connection fails; with whether it listened at all. `missed`: what to tell once it listens again.
async fn listen(
    store: &Store,
    streams: &Weak<Streams>,
    missed: Option<&[Pattern]>,
    backoff: &mut Backoff,
) -> Result<(), (Down, bool)> {
    let (sender, mut heard) = mpsc::channel(HEARD);
    let overrun = Arc::new(AtomicBool::new(false));
    let over = overrun.clone();
    let push = Arc::new(move |info: PushInfo| {
        if matches!(info.kind, PushKind::Message | PushKind::Disconnection) && sender.try_send(info).is_err() {
            over.store(true, Relaxed);
        }
    });
    let channel = store.channel();
    let mut wire =
        store.link.own(&channel, Some(push), store.link.server().timeout).await.map_err(|down| (down, false))?;
    let subscribed = redis::cmd("SUBSCRIBE").arg(&channel).query_async::<Value>(&mut wire.connection).await;
    subscribed.map_err(|error| (store.link.down(&error), false))?;
    locked(&store.troubles).remove(NAME);
    backoff.reset();
    if let (Some(topics), Some(streams)) = (missed, streams.upgrade()) {
        streams.deliver_gap(topics, Time::now());
    }
    let mut probe = tokio::time::interval(PROBE);
    loop {
        tokio::select! {
            info = heard.recv() => match info {
                Some(_) if overrun.load(Relaxed) => {
                    return Err((Down("live events come faster than they are taken".to_owned()), true));
                }
                Some(info) if info.kind == PushKind::Message => {
                    let Some(streams) = streams.upgrade() else { return Ok(()) };
                    if let Some((draft, time)) = read(info.data) {
                        streams.deliver(vec![draft], time);
                    }
                }
                _ => return Err((Down("the subscription of live streams was interrupted".to_owned()), true)),
            },
            _ = probe.tick() => {
                if store.link.is_stale(&wire) {
                    return Err((Down("another is the master by now".to_owned()), true));
                }
                let alive = redis::cmd("PING").query_async::<Value>(&mut wire.connection).await;
                alive.map_err(|error| (store.link.down(&error), true))?;
            }
        }
    }
}

fn read(data: Vec<Value>) -> Option<(Draft, Time)> {
    let data = Bytes::from(entry::bytes(data.into_iter().nth(1)?)?);
    let end = memchr::memchr(b'\n', &data)?;
    let mut head = std::str::from_utf8(&data[..end]).ok()?.splitn(3, ' ');
    let time = Time(head.next()?.parse().ok()?);
    let (kind, _): (Kind, bool) = entry::kind(head.next()?.as_bytes())?;
    let topic = Topic::new(head.next()?).ok()?;
    let payload = Payload { kind, bytes: data.slice(end + 1..) };
    Some((Draft { topic, payload, dedupe: None, name: None }, time))
}
