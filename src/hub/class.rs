//! Classes: everything that decides the bytes of an event. Encoding is lazy and once for each class and event.

use std::sync::Arc;

use bytes::Bytes;
use slab::Slab;

use super::tails::write_cursor;
use crate::cursor::Mark;
use crate::event::Event;
use crate::wire::form::Form;

/// Not encoded (yet).
const UNUSED: (u32, u32) = (u32::MAX, u32::MAX);

/// One form and reach, with its encoded bytes of the present batch.
#[derive(Debug)]
struct Class {
    form: Form,
    reach: Arc<[u32]>,
    users: u32,
    arena: Vec<u8>,
    spans: Vec<(u32, u32)>,
    block: Bytes,
}

/// All classes in use.
#[derive(Debug, Default)]
pub struct Classes {
    slab: Slab<Class>,
    /// Those that have something in the present batch.
    used: Vec<u32>,
    cursor: Vec<u8>,
    marks: Vec<Mark>,
}

impl Classes {
    /// One more audience of this form and reach.
    pub fn enter(&mut self, form: Form, reach: &Arc<[u32]>) -> u32 {
        let known = self.slab.iter_mut().find(|(_, class)| class.form == form && class.reach == *reach);
        if let Some((id, class)) = known {
            class.users += 1;
            return id as u32;
        }
        let class =
            Class { form, reach: reach.clone(), users: 1, arena: Vec::new(), spans: Vec::new(), block: Bytes::new() };
        self.slab.insert(class) as u32
    }

    /// One audience less.
    pub fn leave(&mut self, id: u32) {
        let class = &mut self.slab[id as usize];
        class.users -= 1;
        if class.users == 0 {
            self.slab.remove(id as usize);
            self.used.retain(|&used| used != id);
        }
    }

    /// Where in its block the event of this number lies; encodes it if nobody has yet. `marks`: cursors from here on.
    pub fn encode(&mut self, id: u32, number: u32, event: &Event, marks: &[Mark]) -> (u32, u32) {
        let class = &mut self.slab[id as usize];
        if class.spans.is_empty() {
            self.used.push(id);
        }
        class.spans.resize(class.spans.len().max(number as usize + 1), UNUSED);
        if class.spans[number as usize] == UNUSED {
            self.cursor.clear();
            write_cursor(marks, &class.reach, &mut self.marks, &mut self.cursor);
            let start = class.arena.len() as u32;
            class.form.event(event, Some(&self.cursor), &mut class.arena);
            class.spans[number as usize] = (start, class.arena.len() as u32);
        }
        class.spans[number as usize]
    }

    /// All is encoded: the bytes become shareable.
    pub fn seal(&mut self) {
        for &id in &self.used {
            let class = &mut self.slab[id as usize];
            class.block = Bytes::from(std::mem::take(&mut class.arena));
        }
    }

    /// The bytes of the batch.
    pub fn block(&self, id: u32) -> &Bytes {
        &self.slab[id as usize].block
    }

    /// The batch is delivered: its bytes belong to the queues that hold them.
    pub fn settle(&mut self) {
        for id in self.used.drain(..) {
            let class = &mut self.slab[id as usize];
            class.spans.clear();
            class.spans.shrink_to(16);
            class.block = Bytes::new();
        }
    }
}

#[cfg(test)]
mod tests;
