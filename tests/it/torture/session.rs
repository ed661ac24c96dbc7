//! Sessions that disconnect, hop between instances and change transports, and go on by their cursor.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;

use super::publish::LAST;
use super::record::{Record, TOPICS};
use super::storm::{Storm, millis};
use crate::client::feed::{Feed, Item, Transport};
use crate::client::soon;

pub struct Session {
    record: Record,
    random: fastrand::Rng,
    /// The topics where the last event came.
    ended: BTreeSet<usize>,
}

impl Session {
    /// Each hears one to four of the topics; every fifth all of them.
    pub fn new(mut random: fastrand::Rng) -> Session {
        let mut topics: Vec<usize> = (0..TOPICS.len()).collect();
        random.shuffle(&mut topics);
        if random.u8(..5) > 0 {
            topics.truncate(random.usize(1..=4));
        }
        Session { record: Record::of(topics), random, ended: BTreeSet::new() }
    }

    /// Connects until it stands whole for the first time: before that it has no right to anything.
    pub fn stand(&mut self, storm: &Storm) {
        let deadline = soon();
        while self.record.cursor.is_none() {
            assert!(Instant::now() < deadline, "a session never stood whole");
            let mut feed = self.connect(storm);
            while let (Some(open), None) = (&mut feed, &self.record.cursor) {
                match open.next(deadline) {
                    Ok(item) => self.take(&item, storm),
                    Err(_) => feed = None,
                }
            }
        }
        storm.standing.fetch_add(1, Ordering::AcqRel);
    }

    /// Comes and goes as long as it storms, then until it has heard the last event of each of its topics; what it was told.
    pub fn live(mut self, storm: &Storm) -> Record {
        let mut patience = soon();
        while self.ended.len() < self.record.topics.len() {
            if storm.rages() {
                patience = soon();
            } else if Instant::now() > patience {
                self.record.faults.push(format!("the end never came: {:?} of {:?}", self.ended, self.record.topics));
                break;
            }
            if let Err(e) = self.visit(storm)
                && ![ErrorKind::TimedOut, ErrorKind::UnexpectedEof].contains(&e.kind())
            {
                thread::sleep(millis(&mut self.random, 20..200));
            }
        }
        storm.listening.fetch_sub(1, Ordering::AcqRel);
        self.record
    }

    /// Connects and reads for a while; what it holds when it goes is simply dropped.
    fn visit(&mut self, storm: &Storm) -> io::Result<()> {
        let stay = if self.random.bool() { 20..400 } else { 400..3_000 };
        let until = Instant::now() + millis(&mut self.random, stay);
        let mut feed = self.connect(storm).ok_or(ErrorKind::ConnectionRefused)?;
        while self.ended.len() < self.record.topics.len() {
            let item = feed.next(until)?;
            self.take(&item, storm);
        }
        Ok(())
    }

    fn connect(&mut self, storm: &Storm) -> Option<Feed> {
        let transport = Transport::ALL[self.random.usize(..4)];
        let topics: Vec<String> = self.record.topics.iter().map(|topic| format!("topic={}", TOPICS[*topic])).collect();
        let cursor = self.record.cursor.as_deref();
        let feed = Feed::connect(storm.balancer, "/torture", transport, &topics.join("&"), cursor);
        let feed = feed.ok().and_then(Result::ok);
        self.record.connections += usize::from(feed.is_some());
        feed
    }

    fn take(&mut self, item: &Item, storm: &Storm) {
        if let Item::Event { topic, data, .. } = item
            && data == LAST
        {
            self.ended.extend(TOPICS.iter().position(|known| known == topic));
        }
        if let Item::Event { data, .. } = item
            && let Some(number) = data.as_str().and_then(|text| text.strip_prefix("raw-")?.parse().ok())
        {
            storm.heard.fetch_max(number, Ordering::AcqRel);
        }
        self.record.take(item, &storm.payloads);
    }
}
