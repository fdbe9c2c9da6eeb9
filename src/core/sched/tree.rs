//! A tree over the slots of a pool: each node is what its scheduler wants to know of the members below it.
//!
//! Owns nothing but those sums; which they are, a scheduler says by implementing [`Sum`]. A member's change costs
//! O(log members), and so does a search; the sum of all is at hand.

use ripvs_arch::prefetch_read;

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

/// Nodes of one block below each other, as a heap: 1 is on top, `2 * i + 1` and `2 * i` are below `i`, and the lowest are
/// at `WIDTH..2 * WIDTH`. A greater number on one level is nearer to the head.
type Block<S> = [S; 2 * WIDTH];
const WIDTH: usize = 16;

/// The tree, in levels of blocks: below the top of a block's lowest level's `i`th node is the `i`th block of the level
/// below, and the lowest nodes of the first level are the slots. It grows by blocks, so growing moves nothing.
pub(super) struct Tree<S> {
    /// The last level has one block.
    levels: Vec<Vec<Box<Block<S>>>>,
    share: Share,
    origin: usize,
}

impl<S: Sum> Tree<S> {
    pub(super) fn new(pool: &Pool) -> Tree<S> {
        let mut tree = Tree {
            levels: vec![vec![Box::new([S::NONE; 2 * WIDTH])]],
            share: Share::WHOLE,
            origin: 0,
        };
        for (slot, _) in pool.iter() {
            tree.refresh(pool, slot);
        }
        tree.origin = tree.share.origin(pool);
        tree
    }

    pub(super) fn share(&mut self, share: Share, pool: &Pool) {
        self.share = share;
        self.origin = share.origin(pool);
    }

    /// Takes a change in.
    pub(super) fn update(&mut self, pool: &Pool, change: &Change) {
        match change {
            Change::Added(slot) => {
                for (from, to) in pool.moves() {
                    self.refresh(pool, *from);
                    self.refresh(pool, *to);
                }
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
    }

    fn refresh(&mut self, pool: &Pool, slot: Slot) {
        let sum = pool.get(slot).map_or(S::NONE, |m| S::of(slot, m));
        self.set(slot, sum);
    }

    /// Sets a slot's sum and those above it.
    fn set(&mut self, slot: Slot, mut sum: S) {
        let mut index = slot.index();
        if index >= self.span() {
            self.reach(slot);
        }
        for level in &mut self.levels {
            let block = &mut level[index / WIDTH];
            let mut i = WIDTH + index % WIDTH;
            loop {
                if block[i] == sum {
                    return;
                }
                block[i] = sum;
                if i == 1 {
                    break;
                }
                i /= 2;
                sum = S::join(&block[2 * i + 1], &block[2 * i]);
            }
            index /= WIDTH;
        }
    }

    /// Adds blocks until there is one for that slot, and levels until they end in one block.
    fn reach(&mut self, slot: Slot) {
        let mut index = slot.index();
        let mut level = 0;
        while level < self.levels.len() {
            index /= WIDTH;
            while self.levels[level].len() <= index {
                self.levels[level].push(Box::new([S::NONE; 2 * WIDTH]));
            }
            if level + 1 == self.levels.len() && index > 0 {
                let mut top = Box::new([S::NONE; 2 * WIDTH]);
                let mut i = WIDTH;
                top[i] = self.levels[level][0][1];
                while i > 1 {
                    i /= 2;
                    top[i] = S::join(&top[2 * i + 1], &top[2 * i]);
                }
                self.levels.push(vec![top]);
            }
            level += 1;
        }
    }

    /// Begins to fetch what a slot's change is set in, but for what is needed so often that it stays in the cache.
    pub(super) fn prefetch(&self, slot: Slot) {
        let index = slot.index();
        if let Some(block) = self.levels[0].get(index / WIDTH) {
            let mut i = WIDTH + index % WIDTH;
            while i > 0 {
                prefetch_read(&block[i]);
                i /= 2;
            }
        }
    }

    /// The sum of all where order does not matter.
    pub(super) fn whole(&self) -> S {
        self.levels.last().map_or(S::NONE, |level| level[0][1])
    }

    /// The sum of all, in the order of the list.
    pub(super) fn all(&self) -> S {
        if self.share.worker == 0 {
            self.whole()
        } else {
            let span = self.span();
            S::join(&self.range(0, self.origin), &self.range(self.origin, span))
        }
    }

    /// Slots are below this.
    fn span(&self) -> usize {
        self.levels[0].len() * WIDTH
    }

    /// The sum of the slots from `low` to below `high`.
    fn range(&self, mut low: usize, mut high: usize) -> S {
        let (mut headward, mut tailward) = (S::NONE, S::NONE);
        for level in &self.levels {
            if low >= high {
                break;
            }
            // What of this level doesn't fill a block goes in here, the blocks between on the next level.
            let (first, last) = (low.div_ceil(WIDTH), high / WIDTH);
            if first > last {
                let sum = part(&level[last], low - last * WIDTH, high - last * WIDTH);
                return S::join(&S::join(&headward, &sum), &tailward);
            }
            if low < first * WIDTH {
                let block = first - 1;
                let sum = part(&level[block], low - block * WIDTH, WIDTH);
                tailward = S::join(&sum, &tailward);
            }
            if high > last * WIDTH {
                let sum = part(&level[last], 0, high - last * WIDTH);
                headward = S::join(&headward, &sum);
            }
            (low, high) = (first, last);
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
            .or_else(|| self.last_below(self.span(), self.origin, &has))
    }

    /// The greatest slot from `low` to below `high` for which `has` holds.
    fn last_below(&self, high: usize, low: usize, has: &impl Fn(&S) -> bool) -> Option<Slot> {
        if high <= low {
            return None;
        }
        let mut high = high;
        for (number, level) in self.levels.iter().enumerate() {
            // The rest of the block that `high` is in or behind, then the blocks before it on the next level.
            let block = high.checked_sub(1)? / WIDTH;
            let below = high - block * WIDTH;
            if let Some(found) = last_in(&level[block], below, has) {
                let mut index = block * WIDTH + found;
                for level in self.levels[..number].iter().rev() {
                    index = index * WIDTH + last_in(&level[index], WIDTH, has)?;
                }
                return (index >= low).then_some(Slot::from_index(index));
            }
            high = block;
        }
        None
    }

    /// Going down the list, the slot at which `taken`, added up, first reaches `amount`, which is above 0.
    pub(super) fn descend(&self, amount: u64, taken: impl Fn(&S) -> u64) -> Option<Slot> {
        if taken(&self.whole()) < amount {
            return None;
        }
        let (mut index, mut rest) = (0, amount);
        for level in self.levels.iter().rev() {
            let block = &level[index];
            let mut i = 1;
            while i < WIDTH {
                // Without a branch: which way it goes no hardware foresees.
                let headward = taken(&block[2 * i + 1]);
                let there = headward >= rest;
                rest -= if there { 0 } else { headward };
                i = 2 * i + usize::from(there);
            }
            index = index * WIDTH + i - WIDTH;
        }
        Some(Slot::from_index(index))
    }
}

/// The sum of a block's lowest nodes from `low` to below `high`.
fn part<S: Sum>(block: &Block<S>, low: usize, high: usize) -> S {
    let (mut l, mut r) = (low + WIDTH, high + WIDTH);
    let (mut headward, mut tailward) = (S::NONE, S::NONE);
    while l < r {
        if l & 1 == 1 {
            tailward = S::join(&block[l], &tailward);
            l += 1;
        }
        if r & 1 == 1 {
            r -= 1;
            headward = S::join(&headward, &block[r]);
        }
        l /= 2;
        r /= 2;
    }
    S::join(&headward, &tailward)
}

/// The greatest of a block's lowest nodes below `high`, which is above 0, for which `has` holds.
fn last_in<S>(block: &Block<S>, high: usize, has: &impl Fn(&S) -> bool) -> Option<usize> {
    let mut i = high + WIDTH;
    loop {
        // The widest node that ends where we have come to.
        i -= 1;
        while i > 1 && i & 1 == 1 {
            i /= 2;
        }
        if has(&block[i]) {
            while i < WIDTH {
                i = 2 * i + 1;
                if !has(&block[i]) {
                    i -= 1;
                }
            }
            return Some(i - WIDTH);
        }
        if i.is_power_of_two() {
            return None;
        }
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
        for round in 0..300 {
            let pool = pool(&mut random, [20, 60, 700][round % 3]);
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
        for round in 0..100 {
            let pool = pool(&mut random, [40, 900][round % 2]);
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
