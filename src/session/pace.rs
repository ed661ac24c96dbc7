//! Pace: of each topic at most one event in a while, the newest. Pure; time is milliseconds that the caller counts.

use std::collections::HashMap;
use std::sync::Arc;

use super::terms::Pacing;
use crate::event::Event;
use crate::topic::Topic;

/// What a topic costs while its time runs, whether an event is held or not.
const PER_TOPIC: usize = 64;
/// Fewer topics are not worth looking through for those whose time is over.
const FEW: usize = 64;

/// What is held back for one session.
#[derive(Debug)]
pub struct Pace {
    rules: Arc<[Pacing]>,
    topics: HashMap<Topic, Slot>,
    /// Of the payloads held.
    payloads: usize,
    /// How many topics it may have before those that are quiet are forgotten again.
    tidy_at: usize,
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

impl Slot {
    /// Holds an event in place of the one before it, and keeps count of their payloads.
    fn hold(&mut self, event: &Arc<Event>, payloads: &mut usize) {
        *payloads += event.payload.bytes.len();
        if let Some(old) = self.held.replace(event.clone()) {
            *payloads -= old.payload.bytes.len();
        }
    }
}

impl Pace {
    /// Nothing is held.
    pub fn new(rules: Arc<[Pacing]>) -> Pace {
        Pace { rules, topics: HashMap::new(), payloads: 0, tidy_at: FEW }
    }

    /// The rules it was made of.
    pub fn rules(&self) -> &Arc<[Pacing]> {
        &self.rules
    }

    /// Bytes held, 64 added for each topic.
    pub fn bytes(&self) -> usize {
        self.payloads + self.topics.len() * PER_TOPIC
    }

    /// Takes an event of a paced topic.
    pub fn offer(&mut self, event: &Arc<Event>, now: u64) -> Offer {
        if self.topics.len() >= self.tidy_at {
            self.topics.retain(|_, slot| slot.due > now || slot.held.is_some());
            self.tidy_at = (self.topics.len() * 2).max(FEW);
        }
        let slot = self.topics.entry(event.topic.clone()).or_insert(Slot { due: now, held: None });
        if slot.due <= now && slot.held.is_none() {
            slot.due = now + every(&self.rules, event.topic.as_str()).unwrap_or_default();
            return Offer::Now;
        }
        slot.hold(event, &mut self.payloads);
        Offer::Until(slot.due)
    }

    /// Holds an event until the next [`due`](Pace::due), for a session that is still catching up.
    pub fn hold(&mut self, event: &Arc<Event>) {
        let slot = self.topics.entry(event.topic.clone()).or_insert(Slot { due: 0, held: None });
        slot.hold(event, &mut self.payloads);
    }

    /// All that is held, oldest first: nothing is paced any more, or by other rules.
    pub fn into_held(self) -> Vec<Arc<Event>> {
        oldest_first(self.topics.into_values().filter_map(|slot| slot.held).collect())
    }

    /// What may go now, oldest first; forgets topics that were quiet for their time.
    pub fn due(&mut self, now: u64) -> Vec<Arc<Event>> {
        let mut out = Vec::new();
        let (rules, payloads) = (&self.rules, &mut self.payloads);
        self.topics.retain(|topic, slot| {
            if slot.due > now {
                return true;
            }
            let Some(event) = slot.held.take() else { return false };
            slot.due = now + every(rules, topic.as_str()).unwrap_or_default();
            *payloads -= event.payload.bytes.len();
            out.push(event);
            true
        });
        if self.topics.is_empty() {
            self.topics.shrink_to_fit();
        }
        oldest_first(out)
    }

    /// When something held may go next.
    pub fn next(&self) -> Option<u64> {
        self.topics.values().filter(|slot| slot.held.is_some()).map(|slot| slot.due).min()
    }
}

fn oldest_first(mut events: Vec<Arc<Event>>) -> Vec<Arc<Event>> {
    events.sort_by_key(|event| (event.time, event.position));
    events
}

/// How often a topic may be sent, in milliseconds, if it is paced at all.
pub fn every(rules: &[Pacing], topic: &str) -> Option<u64> {
    let rule = rules.iter().find(|rule| rule.topics.iter().any(|p| p.matches(topic)))?;
    Some(rule.every.as_millis() as u64)
}

#[cfg(test)]
mod tests;
