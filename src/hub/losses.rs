//! What a partition says beside its events: that a source lost some here, that its tail was lost, that a page was fetched.

use std::collections::{HashMap, VecDeque};
use std::mem::take;

use super::audience::Key;
use super::flow::cursor_of;
use super::seat::Line;
use super::shard::Shard;
use crate::cursor::Mark;
use crate::event::Event;
use crate::session::backlog::{Backlog, Missing};
use crate::session::past::{Here, reason};
use crate::topic::Pattern;
use crate::wire::form::{Gap, GapReason};

/// Sessions that look again for a page before the shard looks at its events: each reads and encodes some.
const LOOKS: usize = 64;

impl Shard {
    /// The notice of missing events, with those of the session's own topics that it can concern.
    pub(super) fn gap(&self, key: &Key, missing: &Missing) -> Gap {
        let Missing { reason, from, to, hole, partitions, lost } = missing;
        let lies = |pattern: &Pattern| {
            let reach = self.plan.streams.reach(std::slice::from_ref(pattern));
            partitions.is_empty() || reach.iter().any(|hash| partitions.contains(hash))
        };
        let concerned = |pattern: &&Pattern| {
            lost.as_ref().is_none_or(|lost| lost.iter().any(|lost| lost.overlaps(pattern))) && lies(pattern)
        };
        let token = |marks: &[Mark]| String::from_utf8(cursor_of(marks)).unwrap_or_default();
        Gap {
            reason: *reason,
            topics: key.patterns.iter().filter(concerned).map(|p| p.as_str().to_owned()).collect(),
            from: from.as_deref().map(token),
            to: token(to),
            missed: hole.filter(|_| key.hears_all()),
        }
    }

    /// A source lost something at this place of a partition: everybody who might have heard of it is told.
    pub(super) fn tell_gap(&mut self, event: &Event) {
        let (place, mut after) = (event.place.clone(), Vec::new());
        let before = self.fanout.before().to_vec();
        self.tails.advance(event);
        self.tails.marks(&mut after);
        let (mut told, reason) = (Vec::new(), reason(event));
        for audience in self.audiences.iter() {
            let Some(endpoint) = self.endpoints.get(&audience.key.endpoint) else { continue };
            let within = |marks: &[Mark]| -> Vec<Mark> {
                marks.iter().filter(|m| endpoint.reach.binary_search(&m.partition).is_ok()).copied().collect()
            };
            let missing = Missing {
                reason,
                from: Some(within(&before)),
                to: within(&after),
                hole: None,
                partitions: if place.live { Vec::new() } else { vec![place.hash] },
                lost: event.lost(),
            };
            let gap = self.gap(&audience.key, &missing);
            let reached = place.live || endpoint.reach.binary_search(&place.hash).is_ok();
            if reached && !gap.topics.is_empty() {
                told.push((audience.members.clone(), audience.key.clone(), gap, missing.from.unwrap_or_default()));
            }
        }
        for (members, key, gap, from) in told {
            let (mut bytes, mut json) = (Vec::new(), Vec::new());
            key.form.gap(&gap, &mut bytes);
            gap.write(&mut json);
            for member in members {
                self.tell_one(member, reason, &bytes, place.live.then_some(&*json), &from);
            }
        }
        self.look_again();
    }

    /// A gap to one live session. A poll reads it back with its page, if it lies in a log.
    fn tell_one(&mut self, number: u32, reason: GapReason, bytes: &[u8], lies_in_no_log: Option<&[u8]>, from: &[Mark]) {
        let Some(session) = self.sessions.get_mut(number as usize).filter(|session| session.is_live()) else { return };
        if let Line::Poll(poll) = &mut session.line {
            poll.gap = lies_in_no_log.map(<[u8]>::to_vec);
            self.plan.counters.gaps[reason as usize].add(u64::from(poll.gap.is_some()));
            return self.answer_page(number, from.to_vec());
        }
        self.plan.counters.gaps[reason as usize].add(1);
        self.send(number, bytes);
    }

    /// Partitions turned. Where this shard lost something, all its live sessions did: each looks at what is left from where
    /// it stood, is told, and is live again.
    pub(super) fn turned(&mut self, lost: &[u32]) {
        let before = self.fanout.before().to_vec();
        let mut places: HashMap<u32, Vec<Here>> = HashMap::new();
        for (id, endpoint) in self.endpoints.iter().filter(|_| !lost.is_empty()) {
            if endpoint.reach.iter().any(|hash| lost.contains(hash)) {
                places.insert(*id, self.tails.before(&endpoint.reach, &before, lost));
            }
        }
        let live = self.sessions.iter().filter(|(_, session)| session.is_live());
        let live: Vec<(u32, u32)> = live.map(|(number, session)| (number as u32, session.key.endpoint)).collect();
        for (number, endpoint) in live {
            let Some(here) = places.get(&endpoint).filter(|_| self.sessions.contains(number as usize)) else {
                continue;
            };
            self.unseat(number);
            self.sessions[number as usize].backlog = Some(Box::new(Backlog::again(here)));
            self.pump(number);
        }
        self.look_again();
    }

    /// The shard's place is another: sessions that were ahead of it look again.
    pub(super) fn look_again(&mut self) {
        for number in take(&mut self.ahead) {
            if self.sessions.get(number as usize).is_some_and(|s| s.backlog.is_some()) {
                self.pump(number);
            }
        }
    }

    /// Pages that were fetched are here: whoever waits for one looks again, some at a time.
    pub(super) fn fetched(&mut self) {
        if !self.later.is_empty() {
            let brought = self.plan.streams.brought();
            if std::mem::replace(&mut self.brought, brought) != brought {
                self.woken.extend(self.later.drain());
            }
        }
        for _ in 0..LOOKS.min(self.woken.len()) {
            let Some(number) = self.woken.pop_front() else { return };
            if self.sessions.contains(number as usize) {
                self.pump(number);
                self.listen(number);
            }
        }
        if self.woken.is_empty() {
            self.woken = VecDeque::new();
        }
    }
}
