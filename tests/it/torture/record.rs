//! What a session was told, small enough that hundreds of sessions can keep all of it.

use std::collections::HashMap;
use std::sync::Mutex;

use relay::cursor;
use relay::event::{Epoch, Place};

use super::lines::Payload;
use super::lives::Mark;
use crate::client::feed::Item;

/// The streams of the torture, each with one partition, so that an event id says which partition it means.
pub const STREAMS: [&str; 2] = ["one", "two"];

/// What is published: four topics by webhooks, and the two channels, which are topics as well.
pub const TOPICS: [&str; 6] = ["one/0", "one/1", "two/0", "two/1", "raw.one", "raw.two"];

/// From here on they are channels of Redis.
pub const RAW: usize = 4;

/// Numbers for payloads.
#[derive(Default)]
pub struct Payloads(Mutex<HashMap<String, Payload>>);

#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    Event { partition: usize, mark: Mark, topic: usize, payload: Payload },
    Upto { partition: usize, mark: Mark },
    Gap { partition: usize, reason: Reason, from: Option<Mark>, to: Mark, missed: Option<u64> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Source,
    Epoch,
    Other,
}

/// Everything one session was told, over all its connections.
#[derive(Debug, Default)]
pub struct Record {
    /// By their numbers in [`TOPICS`].
    pub topics: Vec<usize>,
    pub cursor: Option<String>,
    pub told: Vec<Told>,
    pub began: [Option<Mark>; 2],
    /// The last mark of each partition.
    at: [Option<Mark>; 2],
    /// What must not be, whatever was published.
    pub faults: Vec<String>,
    pub connections: usize,
}

impl Payloads {
    pub fn number(&self, payload: &str) -> Payload {
        let mut known = self.0.lock().expect("not poisoned");
        if let Some(number) = known.get(payload) {
            return *number;
        }
        let number = known.len() as Payload;
        known.insert(payload.to_owned(), number);
        number
    }
}

impl Reason {
    pub fn name(self) -> &'static str {
        match self {
            Reason::Source => "source",
            Reason::Epoch => "epoch",
            Reason::Other => "other",
        }
    }
}

impl Told {
    pub fn partition(&self) -> usize {
        match self {
            Told::Event { partition, .. } | Told::Upto { partition, .. } | Told::Gap { partition, .. } => *partition,
        }
    }

    pub fn mark(&self) -> Mark {
        match self {
            Told::Event { mark, .. } | Told::Upto { mark, .. } | Told::Gap { to: mark, .. } => *mark,
        }
    }
}

impl Record {
    pub fn of(topics: Vec<usize>) -> Record {
        Record { topics, ..Record::default() }
    }

    /// Takes what it was told.
    pub fn take(&mut self, item: &Item, payloads: &Payloads) {
        match item {
            Item::Event { cursor: Some(cursor), id, topic, data } => {
                let payload = payloads.number(data.as_str().unwrap_or_default());
                match TOPICS.iter().position(|known| known == topic).filter(|topic| self.topics.contains(topic)) {
                    Some(topic) => self.event(id, topic, payload, cursor),
                    None => self.fault(format!("not its topic: {item:?}")),
                }
            }
            Item::Gap { reason, from, to, missed, topics } => {
                let is_raw = |topic: &String| topic.starts_with("raw.");
                if reason == "source" && !(topics.iter().all(is_raw) && self.topics.iter().any(|topic| *topic >= RAW)) {
                    self.fault(format!("a gap of a source that it does not hear: {item:?}"));
                }
                self.gap(reason, from.as_deref(), to, *missed);
            }
            Item::Open { cursor } | Item::Heartbeat { cursor: Some(cursor) } => self.upto(cursor),
            Item::Heartbeat { cursor: None } | Item::Close { .. } => {}
            Item::Event { cursor: None, .. } | Item::Other { .. } => self.fault(format!("not asked for: {item:?}")),
        }
        if let Some(cursor) = item.cursor() {
            self.cursor = Some(cursor.to_owned());
        }
    }

    fn event(&mut self, id: &str, topic: usize, payload: Payload, cursor: &str) {
        let (partition, mark) = parse_id(id);
        self.told.push(Told::Event { partition, mark, topic, payload });
        if marks(cursor)[partition].is_none_or(|own| own.1 != mark.1) {
            self.fault(format!("the cursor of {id} stands elsewhere: {:?}", cursor::parse(cursor)));
        }
        self.upto(cursor);
    }

    fn upto(&mut self, cursor: &str) {
        for (partition, mark) in marks(cursor).into_iter().enumerate() {
            let Some(mark) = mark else {
                self.fault(format!("a cursor without a mark in {}: {cursor}", STREAMS[partition]));
                continue;
            };
            self.began[partition].get_or_insert(mark);
            if self.at[partition].replace(mark) != Some(mark) {
                self.told.push(Told::Upto { partition, mark });
            }
        }
    }

    /// A gap is one in each partition where it leads on.
    fn gap(&mut self, reason: &str, from: Option<&str>, to: &str, missed: Option<u64>) {
        let reason = match reason {
            "source" => Reason::Source,
            "epoch" => Reason::Epoch,
            other => {
                self.fault(format!("a gap, {other}"));
                Reason::Other
            }
        };
        let from = from.map(marks);
        for (partition, mark) in marks(to).into_iter().enumerate() {
            let from = from.as_ref().and_then(|from| from[partition]);
            let Some(to) = mark.filter(|to| Some(*to) != from.or(self.at[partition])) else { continue };
            self.told.push(Told::Gap { partition, reason, from, to, missed });
            self.at[partition] = Some(to);
        }
    }

    fn fault(&mut self, what: String) {
        self.faults.push(what);
    }
}

/// The partition and the mark of an event.
#[track_caller]
pub fn parse_id(id: &str) -> (usize, Mark) {
    let mut parts = id.splitn(3, '-');
    let mut part = || parts.next().unwrap_or_else(|| panic!("{id:?} is no event id"));
    let (stream, epoch, position) = (part(), part(), part());
    let partition = STREAMS.iter().position(|name| *name == stream);
    let epoch = u32::from_str_radix(epoch, 36).map(Epoch);
    match (partition, epoch, position.parse()) {
        (Some(partition), Ok(epoch), Ok(position)) => (partition, (epoch, position)),
        _ => panic!("{id:?} is no event id of the torture"),
    }
}

/// Where a cursor stands in each of the streams.
fn marks(cursor: &str) -> [Option<Mark>; 2] {
    let marks = cursor::parse(cursor).unwrap_or_default();
    STREAMS.map(|stream| {
        let hash = Place::new(stream.into(), 0, false).hash;
        marks.iter().find(|mark| mark.partition == hash).map(|mark| (mark.epoch, mark.position))
    })
}
