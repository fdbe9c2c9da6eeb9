//! A tree over the slots of a pool: each node is what its scheduler wants to know of the members below it.
//!
//! Owns nothing but those sums; which they are, a scheduler says by implementing [`Sum`]. A member's change costs
//! O(log members), and so does a search; the sum of all is at hand.

use super::pool::{Member, Pool, Slot};
use super::Change;

/// What a node knows of the members below it.
pub(super) trait Sum: Copy + PartialEq {
    /// What is known of no member at all.
    const NONE: Self;
    /// What is known of one.
    fn of(slot: Slot, member: &Member) -> Self;
    /// What is known of two runs of members, the first of them nearer to the head.
    fn join(first: &Self, second: &Self) -> Self;
}

/// A worker's share of the scheduling, where several schedule for one service each by itself: every worker does what the
/// kernel does, but to the list turned by its part of the length, so that together they begin everywhere at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) worker: u16,
    pub(super) workers: u16,
}

impl Share {
    pub(super) const WHOLE: Share = Share {
        worker: 0,
        workers: 1,
    };

    /// The list begins below this slot, goes down to 0, and goes on from the greatest slot down to this.
    fn origin(self, pool: &Pool) -> usize {
        let high = pool.head().map_or(0, |slot| slot.index() + 1);
        let low = pool.tail().map_or(0, Slot::index);
        let part = (high - low) as u64 * u64::from(self.worker) / u64::from(self.workers.max(1));
        high - part as usize
    }
}

/// The tree. Leaves are at `span..2 * span`, node 1 is the root; a greater index on one level is nearer to the head.
pub(super) struct Tree<S> {
    nodes: Vec<S>,
    span: usize,
    generation: u32,
    share: Share,
    origin: usize,
}

impl<S: Sum> Tree<S> {
    pub(super) fn new(pool: &Pool) -> Tree<S> {
        let mut tree = Tree {
            nodes: Vec::new(),
            span: 0,
            generation: 0,
            share: Share::WHOLE,
            origin: 0,
        };
        tree.rebuild(pool);
        tree
    }

    fn rebuild(&mut self, pool: &Pool) {
        self.span = pool.span();
        self.generation = pool.generation();
        self.nodes.clear();
        self.nodes.resize(2 * self.span, S::NONE);
        for (slot, member) in pool.iter() {
            self.nodes[self.span + slot.index()] = S::of(slot, member);
        }
        for i in (1..self.span).rev() {
            self.nodes[i] = S::join(&self.nodes[2 * i + 1], &self.nodes[2 * i]);
        }
        self.origin = self.share.origin(pool);
    }

    pub(super) fn share(&mut self, share: Share, pool: &Pool) {
        self.share = share;
        self.origin = share.origin(pool);
    }

    /// Takes a change in. True if all slots changed, so that the caller must find its cursor's again.
    pub(super) fn update(&mut self, pool: &Pool, change: &Change) -> bool {
        if self.generation != pool.generation() {
            self.rebuild(pool);
            return true;
        }
        match change {
            Change::Added(slot) => {
                self.refresh(pool, *slot);
                self.origin = self.share.origin(pool);
            }
            Change::Removed(removed) => {
                self.set(removed.slot, S::NONE);
                self.origin = self.share.origin(pool);
            }
            Change::Edited(slot) | Change::Load(slot) | Change::Overload(slot) => {
                self.refresh(pool, *slot);
            }
            Change::Table(_) => {}
        }
        false
    }

    fn refresh(&mut self, pool: &Pool, slot: Slot) {
        let sum = pool.get(slot).map_or(S::NONE, |m| S::of(slot, m));
        self.set(slot, sum);
    }

    fn set(&mut self, slot: Slot, sum: S) {
        let mut i = self.span + slot.index();
        if slot.index() >= self.span || self.nodes[i] == sum {
            return;
        }
        self.nodes[i] = sum;
        while i > 1 {
            i /= 2;
            let joined = S::join(&self.nodes[2 * i + 1], &self.nodes[2 * i]);
            if self.nodes[i] == joined {
                return;
            }
            self.nodes[i] = joined;
        }
    }

    /// The sum of all where order does not matter.
    pub(super) fn whole(&self) -> S {
        self.nodes.get(1).copied().unwrap_or(S::NONE)
    }

    /// The sum of all, in the order of the list.
    pub(super) fn all(&self) -> S {
        if self.span == 0 {
            S::NONE
        } else if self.share.worker == 0 {
            self.nodes[1]
        } else {
            S::join(
                &self.range(0, self.origin),
                &self.range(self.origin, self.span),
            )
        }
    }

    /// The sum of the slots from `low` to below `high`.
    fn range(&self, low: usize, high: usize) -> S {
        let (mut l, mut r) = (low + self.span, high + self.span);
        let (mut tailward, mut headward) = (S::NONE, S::NONE);
        while l < r {
            if l & 1 == 1 {
                tailward = S::join(&self.nodes[l], &tailward);
                l += 1;
            }
            if r & 1 == 1 {
                r -= 1;
                headward = S::join(&headward, &self.nodes[r]);
            }
            l /= 2;
            r /= 2;
        }
        S::join(&headward, &tailward)
    }

    /// The next of the list after `cursor` (`None`: from its beginning) up to its end, for whom `has` holds. `has` must
    /// hold for a join exactly if it holds for one of its two parts.
    pub(super) fn next(&self, cursor: Option<Slot>, has: impl Fn(&S) -> bool) -> Option<Slot> {
        let from = cursor.map_or(self.origin, Slot::index);
        if cursor.is_some() && from >= self.origin {
            return self.last_below(from, self.origin, &has);
        }
        self.last_below(from, 0, &has)
            .or_else(|| self.last_below(self.span, self.origin, &has))
    }

    /// The greatest slot from `low` to below `high` for which `has` holds.
    fn last_below(&self, high: usize, low: usize, has: &impl Fn(&S) -> bool) -> Option<Slot> {
        if high <= low {
            return None;
        }
        let mut i = high + self.span;
        loop {
            // The widest node that ends where we have come to.
            i -= 1;
            while i > 1 && i & 1 == 1 {
                i /= 2;
            }
            if has(&self.nodes[i]) {
                while i < self.span {
                    i = 2 * i + 1;
                    if !has(&self.nodes[i]) {
                        i -= 1;
                    }
                }
                let found = i - self.span;
                return (found >= low).then_some(Slot::from_index(found));
            }
            if i.is_power_of_two() {
                return None;
            }
        }
    }

    /// Going down the list, the slot at which `taken`, added up, first reaches `amount`, which is above 0.
    pub(super) fn descend(&self, amount: u64, taken: impl Fn(&S) -> u64) -> Option<Slot> {
        if self.span == 0 || taken(&self.nodes[1]) < amount {
            return None;
        }
        let (mut i, mut rest) = (1, amount);
        while i < self.span {
            let headward = taken(&self.nodes[2 * i + 1]);
            if headward >= rest {
                i = 2 * i + 1;
            } else {
                rest -= headward;
                i *= 2;
            }
        }
        Some(Slot::from_index(i - self.span))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{member, Random};
    use super::*;

    /// The members in order, each by its slot: what is joined in another order differs.
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Order {
        first: Option<Slot>,
        last: Option<Slot>,
        most: i32,
    }

    impl Sum for Order {
        const NONE: Order = Order {
            first: None,
            last: None,
            most: 0,
        };

        fn of(slot: Slot, member: &Member) -> Order {
            Order {
                first: Some(slot),
                last: Some(slot),
                most: member.weight,
            }
        }

        fn join(first: &Order, second: &Order) -> Order {
            Order {
                first: first.first.or(second.first),
                last: second.last.or(first.last),
                most: first.most.max(second.most),
            }
        }
    }

    /// Weights added up.
    #[derive(Clone, Copy, PartialEq)]
    struct Added(u64);

    impl Sum for Added {
        const NONE: Added = Added(0);

        fn of(_slot: Slot, member: &Member) -> Added {
            Added(member.weight as u64)
        }

        fn join(first: &Added, second: &Added) -> Added {
            Added(first.0 + second.0)
        }
    }

    /// A pool with holes.
    fn pool(random: &mut Random, most: u64) -> Pool {
        let mut pool = Pool::new();
        for n in 0..random.below(most) {
            pool.add(member(n as u32, random.below(10) as i32));
            if random.below(3) == 0 {
                let at = random.below(pool.len() as u64) as usize;
                let slot = pool.iter().nth(at).map(|(slot, _)| slot);
                slot.map(|slot| pool.remove(slot));
            }
        }
        pool
    }

    #[test]
    fn every_worker_goes_through_the_list_from_its_part_on() {
        let mut random = Random::new(3);
        for _ in 0..300 {
            let pool = pool(&mut random, 60);
            let workers = 1 + random.below(8) as u16;
            let worker = random.below(u64::from(workers)) as u16;
            let mut tree: Tree<Order> = Tree::new(&pool);
            tree.share(Share { worker, workers }, &pool);
            let (up, down): (Vec<_>, Vec<_>) = pool
                .iter()
                .partition(|(slot, _)| slot.index() >= tree.origin);
            let list: Vec<(Slot, &Member)> = down.into_iter().chain(up).collect();
            assert_eq!(tree.all().first, list.first().map(|(slot, _)| *slot));
            assert_eq!(tree.all().last, list.last().map(|(slot, _)| *slot));
            for level in 0..10 {
                let mut from = 0;
                let mut cursor = None;
                loop {
                    let next = (from..list.len()).find(|i| list[*i].1.weight >= level.max(1));
                    let found = tree.next(cursor, |sum| sum.most >= level.max(1));
                    assert_eq!(found, next.map(|i| list[i].0));
                    let Some(i) = next else { break };
                    (from, cursor) = (i + 1, found);
                }
            }
        }
    }

    #[test]
    fn descending_finds_where_a_walk_reaches_the_amount() {
        let mut random = Random::new(4);
        for _ in 0..100 {
            let pool = pool(&mut random, 40);
            let tree: Tree<Added> = Tree::new(&pool);
            let mut amount = 0;
            for (slot, member) in pool.iter() {
                for _ in 0..member.weight {
                    amount += 1;
                    assert_eq!(tree.descend(amount, |sum| sum.0), Some(slot));
                }
            }
            assert_eq!(tree.descend(amount + 1, |sum| sum.0), None);
        }
    }
}
