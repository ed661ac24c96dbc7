//! Last values of one partition: the newest event of each topic, in the order of their positions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::event::Event;
use crate::topic::Topic;

/// One event per topic. The order by position serves the walk in pages and finds the longest unchanged.
#[derive(Debug, Default)]
pub(super) struct Retained {
    values: BTreeMap<u64, Arc<Event>>,
    topics: HashMap<Topic, u64>,
}

impl Retained {
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// The longest unchanged.
    pub fn oldest(&self) -> Option<&Arc<Event>> {
        self.values.first_key_value().map(|(_, event)| event)
    }

    /// Whether this very event is the last value of its topic.
    pub fn holds(&self, position: u64) -> bool {
        self.values.contains_key(&position)
    }

    /// Keeps the event in place of the one before it, which is returned.
    pub fn put(&mut self, event: Arc<Event>) -> Option<Arc<Event>> {
        let before = self.topics.insert(event.topic.clone(), event.position);
        let before = before.and_then(|position| self.values.remove(&position));
        self.values.insert(event.position, event);
        before
    }

    /// Takes away what is kept of a topic.
    pub fn remove(&mut self, topic: &Topic) -> Option<Arc<Event>> {
        let position = self.topics.remove(topic)?;
        self.values.remove(&position)
    }

    /// Takes away the longest unchanged.
    pub fn pop_oldest(&mut self) -> Option<Arc<Event>> {
        let (_, event) = self.values.pop_first()?;
        self.topics.remove(&event.topic);
        Some(event)
    }

    /// Those with `after < position <= until`.
    pub fn range(&self, after: u64, until: u64) -> impl Iterator<Item = &Arc<Event>> {
        // A range of a map panics when it is upside down.
        let until = until.max(after);
        let bounds = (std::ops::Bound::Excluded(after), std::ops::Bound::Included(until));
        self.values.range(bounds).map(|(_, event)| event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Epoch, Kind, Payload, Place, Time};

    fn event(topic: &str, position: u64) -> Arc<Event> {
        let place = Place { stream: "s".into(), partition: 0, hash: 7, live: false };
        let payload = Payload { kind: Kind::Text, bytes: "x".into() };
        let topic = Topic::new(topic).unwrap();
        Arc::new(Event { place: place.into(), epoch: Epoch(1), position, topic, time: Time(position), payload })
    }

    fn kept(retained: &Retained, after: u64, until: u64) -> Vec<(String, u64)> {
        retained.range(after, until).map(|event| (event.topic.to_string(), event.position)).collect()
    }

    #[test]
    fn a_topic_stands_once_at_its_newest_position() {
        let mut retained = Retained::default();
        assert!(retained.put(event("a", 1)).is_none());
        assert!(retained.put(event("b", 2)).is_none());
        assert_eq!(retained.put(event("a", 3)).unwrap().position, 1);
        assert_eq!(kept(&retained, 0, 9), [("b".to_string(), 2), ("a".to_string(), 3)]);
        assert_eq!(retained.oldest().unwrap().position, 2);
        assert!(retained.holds(3) && !retained.holds(1));
    }

    #[test]
    fn what_is_taken_away_leaves_no_trace() {
        let mut retained = Retained::default();
        retained.put(event("a", 1));
        retained.put(event("b", 2));
        assert_eq!(retained.pop_oldest().unwrap().position, 1);
        assert!(retained.remove(&Topic::new("a").unwrap()).is_none());
        assert_eq!(retained.remove(&Topic::new("b").unwrap()).unwrap().position, 2);
        assert_eq!((retained.len(), retained.topics.len()), (0, 0));
    }

    #[test]
    fn a_range_excludes_its_start_and_includes_its_end() {
        let mut retained = Retained::default();
        for (topic, position) in [("a", 1), ("b", 2), ("c", 3)] {
            retained.put(event(topic, position));
        }
        assert_eq!(kept(&retained, 1, 2), [("b".to_string(), 2)]);
        assert_eq!(kept(&retained, 2, 2), []);
        assert_eq!(kept(&retained, 3, 1), []);
    }
}
