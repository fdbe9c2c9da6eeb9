//! The dests of one service in the kernel's list order, numbered so that the order can be asked of a tree.
//!
//! Owns the members and their numbers (slots); knows no scheduler. A new dest goes to the head of the list and gets the
//! greatest slot, so going down the list is going down the slots. A removal leaves a hole; when half of the slots are
//! holes, the members move down over them, a few with each addition, and [`Pool::moves`] says which. No change takes more
//! than a few steps, whatever the number of members.

use std::net::IpAddr;

use ripvs_arch::prefetch_read;

use crate::growing::{Chunked, GrowMap};
use crate::types::DestId;

/// Where a member stands in its pool. Greater is nearer to the head. [`Pool::add`] may move members to other
/// slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
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

/// A cache line.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Node {
    member: Option<Member>,
    /// The neighbour nearer to the head.
    ahead: Option<Slot>,
    /// The neighbour nearer to the tail.
    behind: Option<Slot>,
}

/// Members looked at, and maybe moved, with each addition while the pool closes its holes.
const STEPS: usize = 4;

const _: () = assert!(size_of::<Node>() == 64);

/// The dests of one service, in list order.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    /// By slot; the last is the head or a hole.
    nodes: Chunked<Node>,
    head: Option<Slot>,
    tail: Option<Slot>,
    slots: GrowMap<DestId, Slot>,
    len: usize,
    available: usize,
    /// While holes are closed: below the first all is closed as far as it goes, and between it and the second is nothing.
    closing: Option<(usize, usize)>,
    moves: Vec<(Slot, Slot)>,
}

impl Pool {
    /// An empty pool.
    pub fn new() -> Pool {
        Pool::default()
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
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
        self.moves.clear();
        self.close_holes();
        let slot = Slot::from_index(self.nodes.len());
        let behind = self.head.replace(slot);
        self.nodes.push(Node {
            member: Some(member),
            ahead: None,
            behind,
        });
        match behind {
            Some(behind) => self.nodes[behind.index()].ahead = Some(slot),
            None => self.tail = Some(slot),
        }
        self.len += 1;
        self.available += usize::from(member.available());
        self.slots.insert(member.id, slot);
        slot
    }

    fn close_holes(&mut self) {
        if self.closing.is_none() && self.nodes.len() >= 2 * self.len + 16 {
            self.closing = Some((0, 0));
        }
        for _ in 0..STEPS {
            let Some((closed, next)) = self.closing else {
                return;
            };
            if next == self.nodes.len() {
                self.nodes.truncate(closed);
                self.closing = None;
                return;
            }
            let moved = usize::from(self.nodes[next].member.is_some());
            if moved == 1 && closed < next {
                self.move_down(Slot::from_index(next), Slot::from_index(closed));
            }
            self.closing = Some((closed + moved, next + 1));
        }
    }

    fn move_down(&mut self, from: Slot, to: Slot) {
        let hole = Node {
            member: None,
            ahead: None,
            behind: None,
        };
        let node = std::mem::replace(&mut self.nodes[from.index()], hole);
        match node.ahead {
            Some(ahead) => self.nodes[ahead.index()].behind = Some(to),
            None => self.head = Some(to),
        }
        match node.behind {
            Some(behind) => self.nodes[behind.index()].ahead = Some(to),
            None => self.tail = Some(to),
        }
        let id = node.member.map(|member| member.id);
        self.nodes[to.index()] = node;
        if let Some(id) = id {
            self.slots.insert(id, to);
        }
        self.moves.push((from, to));
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
        self.slots.remove(&member.id);
        self.len -= 1;
        self.available -= usize::from(member.available());
        Some(Removed {
            slot,
            member,
            ahead,
        })
    }

    /// The slot of a dest, in O(1).
    pub fn slot_of(&self, id: DestId) -> Option<Slot> {
        self.slots.get(&id).copied()
    }

    /// The slot of a dest that was at `last` some time ago, if not at none in particular.
    #[inline]
    pub fn find(&self, id: DestId, last: Slot) -> Option<Slot> {
        match self.get(last) {
            Some(member) if member.id == id => Some(last),
            _ => self.slot_of(id),
        }
    }

    /// The member at a slot.
    pub fn get(&self, slot: Slot) -> Option<&Member> {
        self.nodes.get(slot.index())?.member.as_ref()
    }

    /// Begins to fetch a member.
    pub fn prefetch(&self, slot: Slot) {
        if let Some(node) = self.nodes.get(slot.index()) {
            prefetch_read(node);
        }
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

    /// The next of the list, behind whose last comes its first.
    pub fn after(&self, slot: Slot) -> Option<Slot> {
        let node = self.nodes.get(slot.index());
        node.and_then(|node| node.behind).or(self.head)
    }

    /// The first of the list.
    pub fn head(&self) -> Option<Slot> {
        self.head
    }

    /// The last of the list.
    pub fn tail(&self) -> Option<Slot> {
        self.tail
    }

    /// The members that the latest addition moved, in the order in which it did: from which slot, and to which. They were
    /// moved before the new member was added.
    pub fn moves(&self) -> &[(Slot, Slot)] {
        &self.moves
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Random;
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
    fn order_lookup_and_moves_hold_through_churn_and_holes_do_not_pile_up() {
        let mut pool = Pool::new();
        let mut list: Vec<u32> = Vec::new();
        let mut known: Vec<(Slot, u32)> = Vec::new();
        let mut random = Random::new(1);
        for n in 0..20_000 {
            let slot = pool.add(member(n));
            for (from, to) in pool.moves() {
                assert!(known.iter().all(|(slot, _)| slot != to));
                let moved = known.iter_mut().find(|(slot, _)| slot == from).unwrap();
                moved.0 = *to;
            }
            assert!(pool.moves().len() <= STEPS);
            known.push((slot, n));
            list.insert(0, n);
            let most = if n % 4000 < 2000 { 40 } else { 150 };
            while list.len() > most {
                let id = list.remove(random.below(list.len() as u64) as usize);
                let slot = pool.slot_of(DestId(id)).unwrap();
                pool.remove(slot).unwrap();
                known.retain(|(_, n)| *n != id);
            }
            assert!(pool.nodes.len() < 450);
            if n % 50 == 0 {
                assert_eq!(order(&pool), list);
                assert_eq!(pool.len(), list.len());
                for (slot, n) in &known {
                    assert_eq!(pool.slot_of(DestId(*n)), Some(*slot));
                    assert_eq!(pool.find(DestId(*n), *slot), Some(*slot));
                    assert_eq!(pool.find(DestId(*n), Slot(7)), Some(*slot));
                    assert_eq!(pool.get(*slot).map(|m| m.id.0), Some(*n));
                }
            }
        }
        let slots: Vec<Slot> = pool.iter().map(|(slot, _)| slot).collect();
        assert!(slots.windows(2).all(|w| w[0] > w[1]));
        assert_eq!(pool.slot_of(DestId(0)), None);
    }

    #[test]
    fn it_knows_whether_one_may_be_chosen() {
        let mut pool = Pool::new();
        let slot = pool.add(member(1));
        assert!(pool.has_available());
        pool.set_overloaded(slot, true);
        pool.set_weight(slot, 0);
        pool.set_overloaded(slot, false);
        assert!(!pool.has_available());
        pool.set_weight(slot, 1);
        assert!(pool.has_available());
        pool.remove(slot);
        assert!(!pool.has_available());
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
