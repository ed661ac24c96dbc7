//! Listening: one connection with a feed's subscriptions, made again for ever; and the markers that prove that it hears.
//!
//! Markers are published over the link that all share, and must come back over the connection that listens. So a Redis
//! that does not answer at all is waited for, since nothing is lost while it is stopped; and a connection that is silent
//! although markers go out is deaf, and is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::{Cmd, PushInfo, PushKind, RedisError, Value};
use tokio::sync::mpsc;

use super::ear::{News, Said};
use super::feed::Feed;
use super::name::Run;
use super::{Reads, is_glob};
use crate::link::{Backoff, Down, Script, Wire};
use crate::metrics::SourceCounters;

/// Somebody publishes a marker when none was heard for so long; with many instances still about one a second.
const MARKED: Duration = Duration::from_millis(1000);
/// A marker that went out comes back within so many looks, or the connection is deaf: 3 s, in which this process ran.
const DEAF: u32 = 12;
/// From one look to the next.
const LOOK: Duration = Duration::from_millis(250);

/// Markers are below: numbers that a script can count to.
const MOST: u64 = 1 << 53;

/// Numbers rise, whoever publishes them: `KEYS[1]` the last one; `ARGV` the channel, what is known to have been heard, and
/// how to publish. The server's time, so that they rise also when the key is gone. One a second must not fail because
/// memory is short, or nobody would know that nothing is missed.
static MARK: Script = Script::new(
    "#!lua flags=allow-oom
    local clock = redis.call('TIME')
    local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
    local last = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), tonumber(ARGV[2]))
    local marker = string.format('%.0f', math.max(now, last + 1))
    redis.call('SET', KEYS[1], marker, 'EX', 86400)
    redis.call(ARGV[3], ARGV[1], marker)
    return 1",
);

/// Listens for as long as the feed lives.
pub(super) async fn run(feed: Arc<Feed>) {
    let mut backoff = Backoff::default();
    loop {
        let since = Instant::now();
        let Down(why) = connected(&feed).await;
        let heard = feed.ear().disconnected();
        feed.heard.notify_one();
        if heard {
            tracing::warn!(source = %feed.label, %why, "a source's connection is lost, or left");
        }
        feed.troubled(Some(why));
        if since.elapsed() > Duration::from_secs(5) {
            backoff.reset();
        }
        backoff.wait().await;
    }
}

/// One connection, until it ends: why.
async fn connected(feed: &Arc<Feed>) -> Down {
    let (ends, mut ended) = mpsc::channel(1);
    let current = Current(Arc::new(AtomicBool::new(true)));
    let push = {
        let (feed, current) = (feed.clone(), current.0.clone());
        Arc::new(move |info| take(&feed, &current, &ends, info))
    };
    let timeout = feed.link.server().timeout;
    let mut wire = match feed.link.own(feed.marks.as_bytes(), Some(push), timeout).await {
        Ok(wire) => wire,
        Err(down) => return down,
    };
    feed.ear().connected(Run::new(&wire.run_id));
    let _counted = Counted(&feed.counters);
    if let Err(down) = subscribe(feed, &mut wire).await {
        return down;
    }
    let why = tokio::select! {
        why = ended.recv() => why.unwrap_or("the connection ended"),
        why = mark(feed) => why,
    };
    Down(format!("{}: {why}", feed.link.server()))
}

/// What an old connection still says does not count.
struct Current(Arc<AtomicBool>);

impl Drop for Current {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

/// A connection that was there is counted when it is gone.
struct Counted<'f>(&'f SourceCounters);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.reconnects();
    }
}

/// The markers' channel comes last: once one is heard, all is.
async fn subscribe(feed: &Feed, wire: &mut Wire) -> Result<(), Down> {
    let failed = async |wire: &Wire, error| {
        feed.link.failed(wire, &error).await;
        feed.link.down(&error)
    };
    let subscribed = match &feed.reads {
        Reads::Channels(names) => {
            let (globs, mut channels): (Vec<&str>, Vec<&str>) =
                names.iter().map(|name| &**name).partition(|n| is_glob(n));
            channels.push(&feed.marks);
            let globs = if globs.is_empty() { Ok(()) } else { wire.connection.psubscribe(globs).await };
            match globs {
                Ok(()) => wire.connection.subscribe(channels).await,
                failed => failed,
            }
        }
        Reads::Sharded(names) => sharded(wire, names.iter().chain([&feed.marks])).await,
        Reads::Streams(_) => Ok(()),
    };
    match subscribed {
        Ok(()) => Ok(()),
        Err(error) => Err(failed(wire, error).await),
    }
}

/// One by one: several in one command would have to share a slot, and the crate would forget some of them.
async fn sharded(wire: &mut Wire, names: impl Iterator<Item = &String>) -> Result<(), RedisError> {
    for name in names {
        let _: Value = redis::cmd("SSUBSCRIBE").arg(name).query_async(&mut wire.connection).await?;
    }
    Ok(())
}

/// Publishes markers until one does not come back: why the connection is to be left.
async fn mark(feed: &Feed) -> &'static str {
    let jitter = MARKED.mul_f64(0.2 * fastrand::f64());
    let (mut looks, mut published, mut marked, mut speaks) = (0, Instant::now(), None, true);
    loop {
        let heard = feed.ear().marked;
        if heard != marked {
            (marked, looks, speaks) = (heard, 0, true);
        }
        if looks > DEAF {
            return "it is deaf: a marker that was published was not heard";
        }
        let silent = marked.is_none_or(|marked| marked.elapsed() >= MARKED + jitter);
        if silent && (looks == 0 || published.elapsed() >= MARKED) {
            match publish(feed).await {
                Ok(()) => {
                    published = Instant::now();
                    looks += 1;
                }
                // Whoever cannot speak cannot know whether it hears: it waits.
                Err(Down(why)) => {
                    speaks = false;
                    feed.troubled(Some(why));
                }
            }
        } else if looks > 0 {
            looks += 1;
        }
        if speaks && looks == 0 && feed.ear().is_hearing() {
            feed.troubled(None);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn publish(feed: &Feed) -> Result<(), Down> {
    let floor = feed.ear().marker_floor().to_string();
    let verb = if matches!(feed.reads, Reads::Sharded(_)) { "SPUBLISH" } else { "PUBLISH" };
    let fill = |_: &Wire, command: &mut Cmd| {
        command.arg(&feed.marks).arg(&floor).arg(verb);
    };
    feed.link.run(&MARK, &[feed.marks.clone().into_bytes()], &fill).await.map(drop)
}

/// What Redis says on the connection. Runs where the connection is read: it must not wait.
fn take(feed: &Feed, current: &AtomicBool, ends: &mpsc::Sender<&'static str>, PushInfo { kind, data }: PushInfo) {
    let end = |why| {
        let _ = ends.try_send(why); // a second reason to end is none
    };
    let said = match kind {
        PushKind::Message | PushKind::PMessage | PushKind::SMessage => said(feed, data),
        PushKind::Disconnection => return end("the connection ended"),
        PushKind::SUnsubscribe => return end("the slot moved to another node"),
        _ => return,
    };
    let Some(said) = said else { return };
    let news = {
        let mut ear = feed.ear();
        if !current.load(Relaxed) {
            return;
        }
        ear.hear(said, Instant::now())
    };
    match news {
        News::Nothing => return,
        News::Astray => return end("markers do not rise any more: its clock was set back and its keys are gone"),
        News::Begun => feed.troubled(None),
        News::Marked => {}
        News::Message | News::Overrun => feed.counters.heard(1),
    }
    feed.heard.notify_one();
    feed.passing.notify_one();
}

/// A message has two parts, and one that comes for a pattern has that before them. What relays say among themselves is
/// none, even if a glob takes it.
fn said(feed: &Feed, data: Vec<Value>) -> Option<Said> {
    let mut parts = data.into_iter().rev().map(|part| match part {
        Value::BulkString(bytes) => Some(Bytes::from(bytes)),
        Value::SimpleString(text) => Some(Bytes::from(text)),
        _ => None,
    });
    let (payload, channel, by) = (parts.next()??, parts.next()??, parts.next().flatten());
    if by.is_none() && channel == feed.marks.as_bytes() {
        let marker = std::str::from_utf8(&payload).ok()?.parse().ok();
        return marker.filter(|marker| *marker < MOST).map(Said::Marker);
    }
    (!channel.starts_with(feed.ours.as_bytes())).then_some(Said::Message { by, channel, payload })
}
