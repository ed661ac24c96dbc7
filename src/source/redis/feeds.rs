//! All feeds of this instance, as the file has them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::feed::{Feed, Parts};
use super::{Reads, Settings, is_glob, name};
use crate::link::Link;
use crate::link::server::Server;
use crate::metrics::Metrics;
use crate::stream::Streams;
use crate::template::Text;

/// What one source may hold of what it heard: 15 s of 1 MiB a second.
const RING: usize = 16 * 1024 * 1024;
/// A source of many channels of a Cluster's shards has as many rings, and none is smaller than this.
const SMALLEST_RING: usize = 1024 * 1024;
/// A feed that failed begins again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// All feeds together have so long to end.
const END: Duration = Duration::from_millis(1500);

/// Everything read from Redis, here.
pub struct Feeds {
    streams: Arc<Streams>,
    metrics: Arc<Metrics>,
    /// The Redis of `[redis]`, and what keys and channels in it begin with.
    server: Server,
    prefix: Arc<str>,
    /// This process.
    me: Arc<str>,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    feeds: Vec<One>,
    /// One link for each server.
    links: Vec<Link>,
}

/// A feed and its task.
struct One {
    feed: Arc<Feed>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// What a feed is to be: a source of the file, or one of its channels or streams.
struct Wanted {
    id: Arc<str>,
    label: String,
    reads: Reads,
    topic: Text,
    server: Server,
    ring: usize,
}

impl Feeds {
    /// None yet. `redis`: the server of `[redis]`, and the prefix; `me`: no two processes have the same.
    pub fn new(streams: Arc<Streams>, metrics: Arc<Metrics>, redis: (Server, &str), me: &str) -> Feeds {
        let (server, prefix) = redis;
        Feeds { streams, metrics, server, prefix: prefix.into(), me: me.into(), running: Mutex::default() }
    }

    /// What the file says now. A source that is still there goes on, perhaps with another topic; one that is gone gives
    /// its lease back; a new one begins, and where it reads what an old one read, after that and with a gap.
    pub fn apply(&self, settings: &[Settings]) {
        let mut running = locked(&self.running);
        let mut before = std::mem::take(&mut *running);
        let wanted = self.wanted(settings);
        let stays = |one: &One| wanted.iter().any(|wanted| wanted.is(&one.feed));
        let gone: Vec<One> = extract(&mut before.feeds, |one| !stays(one));
        let overlapped = |wanted: &Wanted| gone.iter().any(|one| wanted.overlaps(&one.feed));
        let overlaps: Vec<bool> = wanted.iter().map(overlapped).collect();
        gone.iter().for_each(One::stop);
        let (ended, end) = watch::channel(gone.is_empty());
        tokio::spawn(async move {
            for one in gone {
                let _ = one.task.await; // how it ended its own supervisor says
            }
            ended.send_replace(true);
        });
        for (wanted, overlaps) in wanted.into_iter().zip(overlaps) {
            let same = extract(&mut before.feeds, |one| wanted.is(&one.feed)).pop();
            let one = match same {
                Some(one) => {
                    one.feed.topic.store(Arc::new(wanted.topic));
                    one
                }
                None => {
                    let link = before.link(&wanted.server);
                    self.start(wanted, link, overlaps, end.clone())
                }
            };
            running.feeds.push(one);
        }
        let used = |link: &Link| running.feeds.iter().any(|one| one.feed.link.server() == link.server());
        before.links.retain(used);
        running.links = before.links;
    }

    /// Why this instance is not ready, as far as these are concerned.
    pub fn troubles(&self) -> Vec<String> {
        locked(&self.running).feeds.iter().filter_map(|one| one.feed.trouble()).collect()
    }

    /// Ends them: what was heard is appended, leases are given back, so that another instance goes on at once.
    pub async fn close(&self) {
        let feeds = std::mem::take(&mut *locked(&self.running)).feeds;
        feeds.iter().for_each(One::stop);
        let ended = async {
            for one in feeds {
                let _ = one.task.await; // how it ended its own supervisor says
            }
        };
        if tokio::time::timeout(END, ended).await.is_err() {
            tracing::warn!("some sources did not end in time; their leases run out");
        }
    }

    /// A feed for each order: a channel of a shard, a Redis Stream, or all channels of a source together.
    fn wanted(&self, settings: &[Settings]) -> Vec<Wanted> {
        let mut labels = HashSet::new();
        let mut wanted = Vec::new();
        for Settings { reads, topic, server } in settings {
            let each = |names: &[String], of: fn(Vec<String>) -> Reads| -> Vec<Reads> {
                names.iter().map(|name| of(vec![name.clone()])).collect()
            };
            let parts = match reads {
                Reads::Channels(_) => vec![reads.clone()],
                Reads::Sharded(names) => each(names, Reads::Sharded),
                Reads::Streams(names) => each(names, Reads::Streams),
            };
            let ring = (RING / parts.len().max(1)).max(SMALLEST_RING);
            for reads in parts {
                let id = name::identity(&reads, server.as_ref()).into();
                let label = unused(&mut labels, label(&reads));
                let server = server.as_ref().unwrap_or(&self.server).clone();
                wanted.push(Wanted { id, label, reads, topic: topic.clone(), server, ring });
            }
        }
        wanted
    }

    fn start(&self, wanted: Wanted, link: Link, begins_with_gap: bool, mut after: watch::Receiver<bool>) -> One {
        let Wanted { id, label, reads, topic, ring, .. } = wanted;
        let feed = Arc::new(Feed::new(Parts {
            counters: self.metrics.source(&label),
            id,
            label,
            reads,
            topic,
            link,
            prefix: self.prefix.clone(),
            me: self.me.clone(),
            streams: self.streams.clone(),
            ring,
            begins_with_gap,
        }));
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn({
            let feed = feed.clone();
            async move {
                let _ = after.wait_for(|ended| *ended).await; // nobody left to wait for is as good
                supervise(feed, stopped).await;
            }
        });
        One { feed, stop, task }
    }
}

impl One {
    fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Running {
    fn link(&mut self, server: &Server) -> Link {
        if let Some(link) = self.links.iter().find(|link| link.server() == server) {
            return link.clone();
        }
        let link = Link::new(server.clone(), "source");
        self.links.push(link.clone());
        link
    }
}

impl Wanted {
    /// Whether this one is already at work.
    fn is(&self, feed: &Feed) -> bool {
        self.id == feed.id && self.server == *feed.link.server()
    }

    /// Whether something that the other one read may be read by this one.
    fn overlaps(&self, other: &Feed) -> bool {
        if self.id == other.id {
            return false; // it goes on where that one stopped
        }
        let same_place = self.server.addresses == other.link.server().addresses;
        let may_be_one = |a: &String, b: &String| a == b || is_glob(a) || is_glob(b);
        match (&self.reads, &other.reads) {
            (Reads::Channels(these), Reads::Channels(those)) if same_place => {
                these.iter().any(|this| those.iter().any(|that| may_be_one(this, that)))
            }
            _ => false,
        }
    }
}

/// Runs a feed again if it should fail.
async fn supervise(feed: Arc<Feed>, stop: watch::Receiver<bool>) {
    loop {
        match tokio::spawn(feed.clone().run(stop.clone())).await {
            Ok(()) => return,
            Err(error) => tracing::error!(source = %feed.label, %error, "a source failed and begins again"),
        }
        feed.troubled(Some("it failed and begins again".to_owned()));
        tokio::time::sleep(AGAIN).await;
    }
}

/// As the file calls it, short enough for a label.
fn label(reads: &Reads) -> String {
    let (Reads::Channels(names) | Reads::Sharded(names) | Reads::Streams(names)) = reads;
    let first: String = names.first().map_or("", String::as_str).chars().take(64).collect();
    match names.len() {
        0 | 1 => first,
        more => format!("{first} +{}", more - 1),
    }
}

/// With a number if another source is called so.
fn unused(labels: &mut HashSet<String>, label: String) -> String {
    let numbered = (2..).map(|number| format!("{label} ({number})"));
    let label = std::iter::once(label.clone()).chain(numbered).find(|label| !labels.contains(label)).unwrap_or(label);
    labels.insert(label.clone());
    label
}

fn extract(all: &mut Vec<One>, taken: impl Fn(&One) -> bool) -> Vec<One> {
    let (taken, rest) = std::mem::take(all).into_iter().partition(taken);
    *all = rest;
    taken
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
