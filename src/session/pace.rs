//! Pace: of each topic at most one event in a while, the newest. Pure; time is milliseconds that the caller counts.

use std::collections::HashMap;
use std::sync::Arc;

use super::terms::Pacing;
use crate::event::Event;
use crate::topic::Topic;

/// What is held back for one session.
#[derive(Debug)]
pub struct Pace {
    rules: Arc<[Pacing]>,
    topics: HashMap<Topic, Slot>,
    bytes: usize,
}

#[derive(Debug)]
struct Slot {
    due: u64,
    held: Option<Arc<Event>>,
}

/// What to do with an event.
#[derive(Debug, PartialEq, Eq)]
pub enum Offer {
    /// Send it now.
    Now,
    /// It waits until then, unless a newer one takes its place.
    Until(u64),
}

impl Pace {
    /// Nothing is held.
    pub fn new(rules: Arc<[Pacing]>) -> Pace {
        Pace { rules, topics: HashMap::new(), bytes: 0 }
    }

    /// The rules it was made of.
    pub fn rules(&self) -> &Arc<[Pacing]> {
        &self.rules
    }

    /// Bytes held, 64 added for each event.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes an event of a paced topic.
    pub fn offer(&mut self, event: &Arc<Event>, now: u64) -> Offer {
        let every = every(&self.rules, event.topic.as_str()).unwrap_or_default();
        let slot = self.topics.entry(event.topic.clone()).or_insert(Slot { due: now, held: None });
        if slot.due <= now && slot.held.is_none() {
            slot.due = now + every;
            return Offer::Now;
        }
        let due = slot.due;
        self.bytes += cost(event);
        if let Some(old) = slot.held.replace(event.clone()) {
            self.bytes -= cost(&old);
        }
        Offer::Until(due)
    }

    /// Holds an event until the next [`due`](Pace::due), for a session that is still catching up.
    pub fn hold(&mut self, event: &Arc<Event>) {
        let slot = self.topics.entry(event.topic.clone()).or_insert(Slot { due: 0, held: None });
        self.bytes += cost(event);
        if let Some(old) = slot.held.replace(event.clone()) {
            self.bytes -= cost(&old);
        }
    }

    /// What may go now, oldest first; forgets topics that were quiet for their time.
    pub fn due(&mut self, now: u64) -> Vec<Arc<Event>> {
        let mut out = Vec::new();
        let (rules, bytes) = (&self.rules, &mut self.bytes);
        self.topics.retain(|topic, slot| {
            if slot.due > now {
                return true;
            }
            let Some(event) = slot.held.take() else { return false };
            slot.due = now + every(rules, topic.as_str()).unwrap_or_default();
            *bytes -= cost(&event);
            out.push(event);
            true
        });
        out.sort_by_key(|event| (event.time, event.position));
        out
    }

    /// When something held may go next.
    pub fn next(&self) -> Option<u64> {
        self.topics.values().filter(|slot| slot.held.is_some()).map(|slot| slot.due).min()
    }
}

fn cost(event: &Event) -> usize {
    event.payload.bytes.len() + 64
}

/// How often a topic may be sent, in milliseconds, if it is paced at all.
pub fn every(rules: &[Pacing], topic: &str) -> Option<u64> {
    let rule = rules.iter().find(|rule| rule.topics.iter().any(|p| p.matches(topic)))?;
    Some(rule.every.as_millis() as u64)
}
