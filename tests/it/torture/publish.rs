//! Publishers: webhooks, each sent again with its key until it is acknowledged, and channels of Redis.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::lines::Line;
use super::record::{RAW, TOPICS};
use super::storm::{Storm, millis};
use crate::checker::ids;
use crate::client::http::Http;
use crate::client::soon;
use crate::redis::{Reply, Talk};

/// The payload of the last event on each topic.
pub const LAST: &str = "last";
/// A payload that is published again and again.
const SAME: &str = "same";

/// What webhooks were told, while they published.
#[derive(Debug, Default)]
pub struct Webhooks {
    pub lines: Vec<(usize, Line)>,
    /// (id, topic), in order.
    pub acknowledged: Vec<(String, usize)>,
    pub tries: Tries,
}

/// How often an attempt ended otherwise than with the first 200.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tries {
    pub refused: usize,
    pub unanswered: usize,
    /// It had been stored before: only its answer was lost.
    pub duplicates: usize,
}

impl std::iter::Sum for Tries {
    fn sum<I: Iterator<Item = Tries>>(all: I) -> Tries {
        all.fold(Tries::default(), |sum, one| Tries {
            refused: sum.refused + one.refused,
            unanswered: sum.unanswered + one.unanswered,
            duplicates: sum.duplicates + one.duplicates,
        })
    }
}

/// One sender.
struct Sender<'a> {
    storm: &'a Storm,
    random: fastrand::Rng,
    http: Option<Http>,
    tries: Tries,
}

/// Publishes over webhooks as long as it storms.
pub fn webhooks(storm: &Storm, number: usize, random: fastrand::Rng) -> Webhooks {
    let mut sender = Sender { storm, random, http: None, tries: Tries::default() };
    let mut lines: BTreeMap<usize, Line> = BTreeMap::new();
    let mut acknowledged = Vec::new();
    for count in 0.. {
        if !storm.rages() {
            break;
        }
        let (topic, payload) = (sender.random.usize(..RAW), format!("{number}-{count}"));
        acknowledged.push((sender.publish(topic, &payload, &payload), topic));
        lines.entry(topic).or_default().push(storm.payloads.number(&payload), true);
        storm.acknowledged.fetch_add(1, Ordering::AcqRel);
        thread::sleep(millis(&mut sender.random, 10..60));
    }
    Webhooks { lines: lines.into_iter().collect(), acknowledged, tries: sender.tries }
}

/// The last event on each topic of webhooks.
pub fn last_webhooks(storm: &Storm, random: fastrand::Rng) -> Webhooks {
    let mut sender = Sender { storm, random, http: None, tries: Tries::default() };
    let id = |topic| (sender.publish(topic, LAST, &format!("last-{topic}")), topic);
    let acknowledged: Vec<(String, usize)> = (0..RAW).map(id).collect();
    let mut line = Line::default();
    line.push(storm.payloads.number(LAST), true);
    Webhooks { lines: (0..RAW).map(|topic| (topic, line.clone())).collect(), acknowledged, tries: sender.tries }
}

impl Sender<'_> {
    /// Sends it until it is acknowledged; its id.
    fn publish(&mut self, topic: usize, payload: &str, key: &str) -> String {
        let deadline = soon();
        loop {
            match self.attempt(topic, payload, key) {
                Ok(Some(id)) => return id,
                Ok(None) => self.tries.refused += 1,
                Err(_) => self.tries.unanswered += 1,
            }
            assert!(Instant::now() < deadline, "{payload} on {} was never acknowledged", TOPICS[topic]);
            // Elsewhere, as a balancer would have it.
            self.http = None;
            thread::sleep(millis(&mut self.random, 20..150));
        }
    }

    /// Sends it once: its id if it was acknowledged, nothing if it is to come again later.
    fn attempt(&mut self, topic: usize, payload: &str, key: &str) -> io::Result<Option<String>> {
        let http = match &mut self.http {
            Some(http) => http,
            None => self.http.insert(Http::connect(self.storm.balancer)?),
        };
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", key)];
        http.send("POST", &format!("/publish/{}", TOPICS[topic]), &headers, format!("{payload:?}").as_bytes())?;
        // Some lose patience while it is being done.
        let answer = http.answer(Instant::now() + millis(&mut self.random, 500..4_000))?;
        if answer.status() == 503 {
            return Ok(None);
        }
        let answer = answer.expect(200).json();
        self.tries.duplicates += answer["duplicates"].as_u64().expect("a number") as usize;
        Ok(Some(ids(&answer).remove(0)))
    }
}

/// Publishes on the channels as long as it storms, then the last events until everybody has heard them. `talk` connects to
/// where they are published.
pub fn channels(
    storm: &Storm,
    mut random: fastrand::Rng,
    is_calm: impl Fn() -> bool,
    talk: impl Fn() -> io::Result<Talk>,
) -> Vec<(usize, Line)> {
    let mut lines: Vec<(usize, Line)> = (RAW..TOPICS.len()).map(|topic| (topic, Line::default())).collect();
    let mut open = None;
    let mut publish = |topic: usize, payload: &str, text: &str, must_come: bool| {
        let outcome = say(&mut open, &talk, TOPICS[topic], text);
        let line = &mut lines[topic - RAW].1;
        match outcome {
            Ok(0) => {}
            Ok(_) => line.push(storm.payloads.number(payload), must_come),
            // The server was killed: whether before or after it did this, nobody knows.
            Err(_) => line.push(storm.payloads.number(payload), false),
        }
    };
    for count in 0.. {
        if !storm.rages() {
            break;
        }
        let topic = random.usize(RAW..TOPICS.len());
        let payload = format!("raw-{count}");
        match random.u8(..4) {
            0 => (0..random.u8(1..4)).for_each(|_| publish(topic, SAME, SAME, true)),
            1 => publish(topic, &payload, &format!("{payload:?}"), true),
            _ => publish(topic, &payload, &payload, true),
        }
        storm.said.store(count, Ordering::Release);
        thread::sleep(millis(&mut random, 10..40));
    }
    let mut again = Instant::now();
    // Sessions lose their patience sooner than this.
    let deadline = soon() + crate::client::PATIENCE;
    while storm.listening.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
        if is_calm() && Instant::now() >= again {
            // Said more than once, in case that something of the storm still hits it: one is enough.
            (RAW..TOPICS.len()).for_each(|topic| publish(topic, LAST, LAST, false));
            again = Instant::now() + Duration::from_secs(2);
        }
        thread::sleep(Duration::from_millis(10));
    }
    lines
}

/// Publishes it; how many heard it, 0 also if the server refused. An error means that it is not known.
fn say(open: &mut Option<Talk>, talk: impl Fn() -> io::Result<Talk>, channel: &str, text: &str) -> io::Result<i64> {
    let connection = match open {
        Some(connection) => connection,
        // Nothing was said yet.
        None => match talk() {
            Ok(connection) => open.insert(connection),
            Err(_) => return Ok(0),
        },
    };
    match connection.try_call(&["PUBLISH", channel, text]) {
        Ok(Reply::Int(heard)) => Ok(heard),
        Ok(_) => Ok(0),
        Err(e) => {
            *open = None;
            Err(e)
        }
    }
}
