//! The dests that lblc and lblcr remember, by address and port: one that is taken out and added again is the same to them,
//! as it is to the kernel while something refers to it.

use std::net::IpAddr;

use hashbrown::HashMap;

use super::pool::{Member, Pool, Slot};
use super::Change;

/// A remembered dest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known(u32);

impl Known {
    /// No dest: what a free place holds.
    pub(super) const NOBODY: Known = Known(u32::MAX);
}

struct Item {
    /// Where it is, while it is in the list.
    slot: Option<Slot>,
    /// How it was when it was taken out.
    last: Member,
    refs: u32,
}

/// All members of a pool, and those that were members and are referred to.
pub(super) struct KnownDests {
    by_addr: HashMap<(IpAddr, u16), Known>,
    items: Vec<Item>,
    free: Vec<Known>,
    generation: u32,
}

impl KnownDests {
    pub(super) fn new(pool: &Pool) -> KnownDests {
        let mut known = KnownDests {
            by_addr: HashMap::new(),
            items: Vec::new(),
            free: Vec::new(),
            generation: 0,
        };
        known.refresh(pool);
        known
    }

    fn refresh(&mut self, pool: &Pool) {
        self.generation = pool.generation();
        for (slot, member) in pool.iter() {
            self.add(slot, member);
        }
    }

    fn add(&mut self, slot: Slot, member: &Member) {
        let item = Item {
            slot: Some(slot),
            last: *member,
            refs: 0,
        };
        let (items, free) = (&mut self.items, &mut self.free);
        let known = *self
            .by_addr
            .entry((member.addr, member.port))
            .or_insert_with(|| match free.pop() {
                Some(known) => {
                    items[known.0 as usize] = item;
                    known
                }
                None => {
                    items.push(item);
                    Known(items.len() as u32 - 1)
                }
            });
        items[known.0 as usize].slot = Some(slot);
    }

    pub(super) fn update(&mut self, pool: &Pool, change: &Change) {
        if self.generation != pool.generation() {
            self.refresh(pool);
            return;
        }
        match change {
            Change::Added(slot) => {
                if let Some(member) = pool.get(*slot) {
                    self.add(*slot, member);
                }
            }
            Change::Removed(removed) => {
                if let Some(known) = self.find(&removed.member) {
                    let item = &mut self.items[known.0 as usize];
                    item.slot = None;
                    item.last = removed.member;
                    self.forget(known);
                }
            }
            _ => {}
        }
    }

    pub(super) fn find(&self, member: &Member) -> Option<Known> {
        self.by_addr.get(&(member.addr, member.port)).copied()
    }

    /// Where it is and how it is; no slot and how it was, if it is no longer in the list.
    pub(super) fn get<'a>(&'a self, pool: &'a Pool, known: Known) -> (Option<Slot>, &'a Member) {
        let item = &self.items[known.0 as usize];
        match item.slot.and_then(|slot| pool.get(slot)) {
            Some(member) => (item.slot, member),
            None => (None, &item.last),
        }
    }

    pub(super) fn hold(&mut self, known: Known) {
        self.items[known.0 as usize].refs += 1;
    }

    pub(super) fn release(&mut self, known: Known) {
        self.items[known.0 as usize].refs -= 1;
        self.forget(known);
    }

    fn forget(&mut self, known: Known) {
        let item = &self.items[known.0 as usize];
        if item.refs == 0 && item.slot.is_none() {
            self.by_addr.remove(&(item.last.addr, item.last.port));
            self.free.push(known);
        }
    }
}
