//! Audiences: the sessions of one shard that hear the same events in the same form.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use slab::Slab;

use super::index::Index;
use crate::select::Where;
use crate::session::endpoint::OnSlow;
use crate::session::terms::Pacing;
use crate::topic::Pattern;
use crate::wire::form::Form;

/// No audience, no seat.
pub const NONE: u32 = u32::MAX;

/// What makes two sessions hear the same.
#[derive(Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct Key {
    pub endpoint: u32,
    pub form: Form,
    /// Sorted, without repetition.
    pub patterns: Vec<Pattern>,
    pub select: Option<Arc<Where>>,
    pub pace: Option<Arc<[Pacing]>>,
}

/// Those who hear it, and what the present batch means for them.
#[derive(Debug)]
pub struct Audience {
    /// What they have in common.
    pub key: Rc<Key>,
    /// Session numbers; [`NONE`] is an empty seat, left while a fan-out walks over them.
    pub members: Vec<u32>,
    /// Which encoded form they get.
    pub class: u32,
    /// What happens to a member that is slow.
    pub on_slow: OnSlow,
    /// Stretches of the class's block, adjacent ones joined.
    pub stretches: Vec<(u32, u32)>,
    /// Which events of the batch those are, by number.
    pub events: Vec<u32>,
    /// Events by number in the batch that pace may hold back.
    pub paced: Vec<u32>,
    /// The last event it was found for: patterns may overlap, an event counts once.
    found: u64,
    /// Occupied seats.
    seated: u32,
}

/// All audiences, and who among them hears a topic.
#[derive(Debug, Default)]
pub struct Audiences {
    slab: Slab<Audience>,
    keys: HashMap<Rc<Key>, u32>,
    index: Index,
}

impl Audiences {
    /// Seats a session; returns audience and seat, and whether the audience is new (its class is not set then).
    pub fn join(&mut self, key: &Rc<Key>, session: u32) -> (u32, u32, bool) {
        let known = self.keys.get(key).copied();
        let id = known.unwrap_or_else(|| self.found(key.clone()));
        let audience = &mut self.slab[id as usize];
        audience.members.push(session);
        audience.seated += 1;
        (id, audience.members.len() as u32 - 1, known.is_none())
    }

    fn found(&mut self, key: Rc<Key>) -> u32 {
        let id = self.slab.insert(Audience {
            key: key.clone(),
            members: Vec::new(),
            class: NONE,
            on_slow: OnSlow::Disconnect,
            stretches: Vec::new(),
            events: Vec::new(),
            paced: Vec::new(),
            found: u64::MAX,
            seated: 0,
        }) as u32;
        for pattern in &key.patterns {
            self.index.insert(pattern, id);
        }
        self.keys.insert(key, id);
        id
    }

    /// An equal key that is already in use, so that equal sessions share one.
    pub fn shared(&self, key: Key) -> Rc<Key> {
        match self.keys.get_key_value(&key) {
            Some((known, _)) => known.clone(),
            None => Rc::new(key),
        }
    }

    /// Empties a seat. Unless a fan-out `walks`, the last member takes it: then its number is returned. The second value
    /// is the class of an audience that is gone with this member.
    pub fn leave(&mut self, id: u32, seat: u32, walks: bool) -> (Option<u32>, Option<u32>) {
        let audience = &mut self.slab[id as usize];
        audience.seated -= 1;
        if walks {
            audience.members[seat as usize] = NONE;
            return (None, None);
        }
        audience.members.swap_remove(seat as usize);
        let moved = audience.members.get(seat as usize).copied().filter(|&m| m != NONE);
        (moved, self.close(id))
    }

    /// After a fan-out: closes the empty seats of an audience; `reseat` learns who sits where now.
    pub fn compact(&mut self, id: u32, reseat: &mut dyn FnMut(u32, u32)) -> Option<u32> {
        let audience = self.slab.get_mut(id as usize)?;
        if audience.members.len() != audience.seated as usize {
            audience.members.retain(|&m| m != NONE);
            for (seat, &member) in audience.members.iter().enumerate() {
                reseat(member, seat as u32);
            }
        }
        self.close(id)
    }

    /// Removes an audience nobody is left of; returns its class.
    fn close(&mut self, id: u32) -> Option<u32> {
        if self.slab[id as usize].seated > 0 {
            return None;
        }
        let audience = self.slab.remove(id as usize);
        for pattern in &audience.key.patterns {
            self.index.remove(pattern, id);
        }
        self.keys.remove(&audience.key);
        Some(audience.class)
    }

    /// Those who asked for a topic, each once. `serial` is another for each event.
    pub fn matching(&mut self, topic: &str, serial: u64, scratch: &mut Vec<u32>) {
        scratch.clear();
        self.index.matching(topic, scratch);
        let slab = &mut self.slab;
        scratch.retain(|&id| {
            let audience = &mut slab[id as usize];
            std::mem::replace(&mut audience.found, serial) != serial
        });
    }

    /// One of them.
    pub fn get(&self, id: u32) -> &Audience {
        &self.slab[id as usize]
    }

    /// One of them.
    pub fn get_mut(&mut self, id: u32) -> &mut Audience {
        &mut self.slab[id as usize]
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Audience> {
        self.slab.iter().map(|(_, audience)| audience)
    }

    /// After the endpoints changed: what an audience has from its endpoint is set anew.
    pub fn refit(&mut self, mut set: impl FnMut(&mut Audience)) {
        self.slab.iter_mut().for_each(|(_, audience)| set(audience));
    }

    /// How many audiences and patterns.
    pub fn counts(&self) -> (usize, usize) {
        (self.slab.len(), self.index.len())
    }
}

impl Audience {
    /// Adds an event and its stretch of the block.
    pub fn add(&mut self, event: u32, (start, end): (u32, u32)) {
        self.events.push(event);
        match self.stretches.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => self.stretches.push((start, end)),
        }
    }

    /// Forgets the batch. The room is kept only where it is small: an idle audience holds no buffer.
    pub fn settle(&mut self) {
        for list in [&mut self.events, &mut self.paced] {
            list.clear();
            list.shrink_to(4);
        }
        self.stretches.clear();
        self.stretches.shrink_to(4);
    }
}

#[cfg(test)]
mod tests;
