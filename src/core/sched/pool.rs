//! The dests of one service in the kernel's list order, numbered so that the order can be asked of a tree.
//!
//! Owns the members and their numbers (slots); knows no scheduler. A new dest goes to the head of the list and gets the
//! greatest slot, so going down the list is going down the slots. A removal leaves a hole. When slots run out, the members
//! are numbered anew with room for at least half as many again: that costs O(members) and happens once in as many
//! additions. Whoever keeps slots compares [`Pool::generation`] to notice.

use std::net::IpAddr;

use hashbrown::HashMap;

use crate::types::DestId;

/// Where a member stands in its pool. Greater is nearer to the head. Good until the next [`Pool::add`]; to keep hold of a
/// member longer, keep its [`DestId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub(super) u32);

impl Slot {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }

    pub(super) fn from_index(index: usize) -> Slot {
        Slot(index as u32)
    }
}

/// What schedulers know of a dest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which dest it is.
    pub id: DestId,
    /// Its address.
    pub addr: IpAddr,
    /// Its port, host byte order.
    pub port: u16,
    /// Its weight; 0 is quiesced.
    pub weight: i32,
    /// Its latest weight that was not 0, or 0 if it was added with that and never had another. Only mh looks at it.
    pub last_weight: i32,
    /// Connections that count as active.
    pub active: u32,
    /// Connections that count as inactive.
    pub inactive: u32,
    /// Whether its upper threshold was reached (`IP_VS_DEST_F_OVERLOAD`); the caller maintains it.
    pub overloaded: bool,
}

impl Member {
    /// A dest as it is when an operator has just added it.
    pub fn new(id: DestId, addr: IpAddr, port: u16, weight: i32) -> Member {
        Member {
            id,
            addr,
            port,
            weight,
            last_weight: weight,
            active: 0,
            inactive: 0,
            overloaded: false,
        }
    }

    /// Whether schedulers may choose it at all.
    pub fn available(&self) -> bool {
        self.weight > 0 && !self.overloaded
    }

    /// The load as lc, wlc, lblc, lblcr and twos reckon it: an active connection weighs 256 inactive ones.
    pub fn overhead(&self) -> u64 {
        (u64::from(self.active) << 8) + u64::from(self.inactive)
    }
}

/// A member that was taken out, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The slot it had.
    pub slot: Slot,
    /// The member as it was.
    pub member: Member,
    /// Its neighbour on the side of the head, if it had one.
    pub ahead: Option<Slot>,
}

#[derive(Clone, Debug)]
struct Node {
    member: Option<Member>,
    /// The neighbour nearer to the head.
    ahead: Option<Slot>,
    /// The neighbour nearer to the tail.
    behind: Option<Slot>,
}

/// The dests of one service, in list order.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    nodes: Vec<Node>,
    span: usize,
    head: Option<Slot>,
    tail: Option<Slot>,
    by_id: HashMap<DestId, Slot>,
    available: usize,
    generation: u32,
}

impl Pool {
    /// An empty pool.
    pub fn new() -> Pool {
        Pool::default()
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Whether there is a member that may be chosen.
    pub fn has_available(&self) -> bool {
        self.available > 0
    }

    /// Puts a member at the head. Where a member of that id is in the pool already, nothing is added and its slot returned.
    pub fn add(&mut self, member: Member) -> Slot {
        if let Some(slot) = self.slot_of(member.id) {
            return slot;
        }
        if self.nodes.len() == self.span {
            self.renumber();
        }
        let slot = Slot::from_index(self.nodes.len());
        self.link(slot, member);
        self.available += usize::from(member.available());
        slot
    }

    fn link(&mut self, slot: Slot, member: Member) {
        let behind = self.head;
        self.nodes.push(Node {
            member: Some(member),
            ahead: None,
            behind,
        });
        match behind {
            Some(old) => self.nodes[old.index()].ahead = Some(slot),
            None => self.tail = Some(slot),
        }
        self.head = Some(slot);
        self.by_id.insert(member.id, slot);
    }

    fn renumber(&mut self) {
        let live = self.len();
        let span = (live + live / 2 + 1).next_power_of_two().max(8);
        let old = std::mem::replace(&mut self.nodes, Vec::with_capacity(span));
        self.head = None;
        self.tail = None;
        for member in old.into_iter().filter_map(|node| node.member) {
            let slot = Slot::from_index(self.nodes.len());
            self.link(slot, member);
        }
        self.span = span;
        self.generation = self.generation.wrapping_add(1);
    }

    /// Takes a member out; `None` if there is none at that slot.
    pub fn remove(&mut self, slot: Slot) -> Option<Removed> {
        let node = self.nodes.get_mut(slot.index())?;
        let member = node.member.take()?;
        let (ahead, behind) = (node.ahead, node.behind);
        match ahead {
            Some(a) => self.nodes[a.index()].behind = behind,
            None => self.head = behind,
        }
        match behind {
            Some(b) => self.nodes[b.index()].ahead = ahead,
            None => self.tail = ahead,
        }
        self.by_id.remove(&member.id);
        self.available -= usize::from(member.available());
        Some(Removed {
            slot,
            member,
            ahead,
        })
    }

    /// The slot of a dest, in O(1).
    pub fn slot_of(&self, id: DestId) -> Option<Slot> {
        self.by_id.get(&id).copied()
    }

    /// The member at a slot.
    pub fn get(&self, slot: Slot) -> Option<&Member> {
        self.nodes.get(slot.index())?.member.as_ref()
    }

    fn change(&mut self, slot: Slot, change: impl FnOnce(&mut Member)) {
        let node = self.nodes.get_mut(slot.index());
        if let Some(member) = node.and_then(|node| node.member.as_mut()) {
            self.available -= usize::from(member.available());
            change(member);
            self.available += usize::from(member.available());
        }
    }

    /// Sets a weight, and with it the latest weight that was not 0.
    pub fn set_weight(&mut self, slot: Slot, weight: i32) {
        self.change(slot, |member| {
            member.weight = weight;
            if weight != 0 {
                member.last_weight = weight;
            }
        });
    }

    /// Sets the counts of connections.
    pub fn set_load(&mut self, slot: Slot, active: u32, inactive: u32) {
        self.change(slot, |member| {
            member.active = active;
            member.inactive = inactive;
        });
    }

    /// Sets whether the member is overloaded.
    pub fn set_overloaded(&mut self, slot: Slot, overloaded: bool) {
        self.change(slot, |member| member.overloaded = overloaded);
    }

    /// The members and their slots, head first.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Member)> {
        std::iter::successors(self.head, |slot| self.nodes[slot.index()].behind)
            .filter_map(|slot| Some((slot, self.get(slot)?)))
    }

    /// The first of the list.
    pub fn head(&self) -> Option<Slot> {
        self.head
    }

    /// The last of the list.
    pub fn tail(&self) -> Option<Slot> {
        self.tail
    }

    /// Slots are below this; 0 or a power of two. Changes only with [`Pool::generation`].
    pub fn span(&self) -> usize {
        self.span
    }

    /// Another value than before means that every slot may have changed.
    pub fn generation(&self) -> u32 {
        self.generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn member(n: u32) -> Member {
        Member::new(DestId(n), IpAddr::V4(Ipv4Addr::from(n)), 80, 1)
    }

    fn order(pool: &Pool) -> Vec<u32> {
        pool.iter().map(|(_, m)| m.id.0).collect()
    }

    #[test]
    fn a_new_member_goes_to_the_head() {
        let mut pool = Pool::new();
        for n in 0..4 {
            pool.add(member(n));
        }
        assert_eq!(order(&pool), [3, 2, 1, 0]);
    }

    #[test]
    fn a_removed_member_tells_its_neighbour_nearer_to_the_head() {
        let mut pool = Pool::new();
        let slots: Vec<Slot> = (0..3).map(|n| pool.add(member(n))).collect();
        assert_eq!(pool.remove(slots[1]).unwrap().ahead, Some(slots[2]));
        assert_eq!(pool.remove(slots[2]).unwrap().ahead, None);
        assert_eq!(pool.remove(slots[2]), None);
        assert_eq!(order(&pool), [0]);
    }

    #[test]
    fn order_and_lookup_hold_through_churn_and_renumbering_is_rare() {
        let mut pool = Pool::new();
        let mut list: Vec<u32> = Vec::new();
        let mut seed = 1u32;
        for n in 0..5000 {
            pool.add(member(n));
            list.insert(0, n);
            if list.len() > 40 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let id = list.remove(seed as usize % list.len());
                let slot = pool.slot_of(DestId(id)).unwrap();
                pool.remove(slot).unwrap();
            }
        }
        assert_eq!(order(&pool), list);
        let slots: Vec<Slot> = pool.iter().map(|(slot, _)| slot).collect();
        assert!(slots.windows(2).all(|w| w[0] > w[1]));
        assert!(pool.generation() < 5000 / 20 + 8, "{}", pool.generation());
        assert!(pool.span() <= 128);
    }

    #[test]
    fn weight_zero_leaves_the_last_weight() {
        let mut pool = Pool::new();
        let slot = pool.add(member(1));
        pool.set_weight(slot, 7);
        pool.set_weight(slot, 0);
        assert_eq!(
            pool.get(slot).map(|m| (m.weight, m.last_weight)),
            Some((0, 7))
        );
    }
}
