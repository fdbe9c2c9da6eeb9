//! The dests that lblc and lblcr remember, by address and port: one that is taken out and added again is the same to them,
//! as it is to the kernel while something refers to it.

use std::net::IpAddr;

use super::pool::{Member, Pool, Slot};
use super::Change;
use crate::growing::{Chunked, GrowMap};

/// A remembered dest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known(u32);

impl Known {
    /// No dest: what a free place holds.
    pub(super) const NOBODY: Known = Known(u32::MAX);
}

enum Place {
    Listed(Slot),
    /// Taken out; this is how it was then.
    Gone(Box<Member>),
}

struct Item {
    place: Place,
    refs: u32,
}

/// All members of a pool, and those that were members and are referred to.
pub(super) struct KnownDests {
    items: Chunked<Item>,
    free: Chunked<Known>,
    /// Of the members, by slot.
    by_slot: Chunked<Known>,
    /// Of those that are gone.
    gone: GrowMap<(IpAddr, u16), Known>,
}

impl KnownDests {
    pub(super) fn new(pool: &Pool) -> KnownDests {
        let mut known = KnownDests {
            items: Chunked::default(),
            free: Chunked::default(),
            by_slot: Chunked::default(),
            gone: GrowMap::default(),
        };
        for (slot, member) in pool.iter() {
            known.add(slot, member);
        }
        known
    }

    fn add(&mut self, slot: Slot, member: &Member) {
        let known = match self.gone.remove(&(member.addr, member.port)) {
            Some(known) => known,
            None => self.new_item(),
        };
        self.items[known.0 as usize].place = Place::Listed(slot);
        self.set(slot, known);
    }

    fn new_item(&mut self) -> Known {
        let last = self.free.len().checked_sub(1);
        if let Some(known) = last.and_then(|last| self.free.get(last)).copied() {
            self.free.truncate(self.free.len() - 1);
            return known;
        }
        self.items.push(Item {
            place: Place::Listed(Slot::from_index(0)),
            refs: 0,
        });
        Known(self.items.len() as u32 - 1)
    }

    fn set(&mut self, slot: Slot, known: Known) {
        while self.by_slot.len() <= slot.index() {
            self.by_slot.push(Known::NOBODY);
        }
        self.by_slot[slot.index()] = known;
    }

    pub(super) fn update(&mut self, pool: &Pool, change: &Change) {
        match change {
            Change::Added(slot) => {
                for (from, to) in pool.moves() {
                    let known = self.at(*from);
                    self.items[known.0 as usize].place = Place::Listed(*to);
                    self.set(*to, known);
                }
                if let Some(member) = pool.get(*slot) {
                    self.add(*slot, member);
                }
            }
            Change::Removed(removed) => {
                let known = self.at(removed.slot);
                let item = &mut self.items[known.0 as usize];
                if item.refs == 0 {
                    self.free.push(known);
                } else {
                    let member = removed.member;
                    item.place = Place::Gone(Box::new(member));
                    self.gone.insert((member.addr, member.port), known);
                }
            }
            _ => {}
        }
    }

    /// The member at that slot.
    pub(super) fn at(&self, slot: Slot) -> Known {
        self.by_slot[slot.index()]
    }

    /// Where it is and how it is; no slot and how it was, if it is no longer in the list.
    pub(super) fn get<'a>(
        &'a self,
        pool: &'a Pool,
        known: Known,
    ) -> Option<(Option<Slot>, &'a Member)> {
        match &self.items[known.0 as usize].place {
            Place::Listed(slot) => Some((Some(*slot), pool.get(*slot)?)),
            Place::Gone(member) => Some((None, member)),
        }
    }

    pub(super) fn hold(&mut self, known: Known) {
        self.items[known.0 as usize].refs += 1;
    }

    pub(super) fn release(&mut self, known: Known) {
        let item = &mut self.items[known.0 as usize];
        item.refs -= 1;
        if let (0, Place::Gone(member)) = (item.refs, &item.place) {
            self.gone.remove(&(member.addr, member.port));
            self.free.push(known);
        }
    }

    /// How many are remembered though gone.
    #[cfg(test)]
    pub(super) fn gone(&self) -> usize {
        self.gone.len()
    }
}
