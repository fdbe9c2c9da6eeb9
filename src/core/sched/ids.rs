//! Where each dest of a pool is, by its id: a hash table that grows a few entries at a time.

use hashbrown::HashMap;

use super::pool::Slot;
use crate::types::DestId;

/// Slots by id. While it grows, what has not been put over yet is in `old`; what is in both counts in `new`.
#[derive(Clone, Debug, Default)]
pub(super) struct Ids {
    new: HashMap<DestId, Slot>,
    old: HashMap<DestId, Slot>,
    /// Slots below this have been put over.
    done: usize,
}

/// Slots looked at for each id that is set: enough to be through them before `new` is full.
const STEPS: usize = 8;

impl Ids {
    pub(super) fn get(&self, id: DestId) -> Option<Slot> {
        match self.new.get(&id) {
            None if !self.old.is_empty() => self.old.get(&id).copied(),
            found => found.copied(),
        }
    }

    pub(super) fn remove(&mut self, id: DestId) {
        self.new.remove(&id);
        if !self.old.is_empty() {
            self.old.remove(&id);
        }
    }

    /// Sets an id's slot. `members` says which id is at a slot, `span` is above all slots.
    pub(super) fn set(
        &mut self,
        id: DestId,
        slot: Slot,
        span: usize,
        members: impl Fn(usize) -> Option<DestId>,
    ) {
        if self.new.len() == self.new.capacity() {
            // What is left to put over is little or nothing, as `STEPS` is chosen.
            self.put_over(usize::MAX, span, &members);
            let room = HashMap::with_capacity((2 * self.new.len()).max(3));
            self.old = std::mem::replace(&mut self.new, room);
            self.done = 0;
        }
        self.put_over(STEPS, span, &members);
        self.new.insert(id, slot);
    }

    fn put_over(&mut self, steps: usize, span: usize, members: &impl Fn(usize) -> Option<DestId>) {
        if self.old.is_empty() {
            return;
        }
        let end = self.done.saturating_add(steps).min(span);
        for index in self.done..end {
            if let Some(id) = members(index) {
                self.new.insert(id, Slot::from_index(index));
            }
        }
        self.done = end;
        if end == span {
            self.old = HashMap::new();
        }
    }
}
