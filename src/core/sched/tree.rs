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
    /// What is known of two runs of members, whichever of them is nearer to the head.
    fn join(one: &Self, other: &Self) -> Self;
    /// The same of two runs where the first is to count as nearer to the head, whatever their slots.
    fn chain(first: &Self, second: &Self) -> Self {
        Self::join(first, second)
    }
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

/// Sixteen nodes and, above each four of them, one more. What four nodes come to is reckoned of three of them while the
/// fourth is still being reckoned itself, and they lie in one cache line, or two. A greater number is nearer to the head.
#[repr(align(64))]
struct Block<S> {
    above: Four<S>,
    nodes: [Four<S>; FOUR],
}

type Four<S> = [S; FOUR];
const FOUR: usize = 4;
const WIDTH: usize = FOUR * FOUR;

impl<S: Sum> Block<S> {
    fn new() -> Box<Block<S>> {
        Box::new(Block {
            above: [S::NONE; FOUR],
            nodes: [[S::NONE; FOUR]; FOUR],
        })
    }

    /// What all nodes come to.
    fn whole(&self) -> S {
        sum_of(&self.above)
    }

    /// Sets a node's sum; what all come to now, if that may be something else.
    #[inline(always)]
    fn set(&mut self, node: usize, sum: S) -> Option<S> {
        let sum = put(&mut self.nodes[node / FOUR], node, sum)?;
        put(&mut self.above, node / FOUR, sum)
    }

    /// The sum of the nodes from `low` to below `high`.
    fn part(&self, low: usize, high: usize) -> S {
        let (mut sum, mut next) = (S::NONE, low);
        while next < high {
            let four = next / FOUR;
            if next.is_multiple_of(FOUR) && next + FOUR <= high {
                sum = S::join(&sum, &self.above[four]);
                next += FOUR;
            } else {
                sum = S::join(&sum, &self.nodes[four][next % FOUR]);
                next += 1;
            }
        }
        sum
    }

    /// The greatest node below `high` for which `has` holds.
    fn last(&self, high: usize, has: &impl Fn(&S) -> bool) -> Option<usize> {
        let mut next = high;
        while next > 0 {
            let four = (next - 1) / FOUR;
            if !next.is_multiple_of(FOUR) || has(&self.above[four]) {
                let nodes = &self.nodes[four][..next - four * FOUR];
                if let Some(found) = nodes.iter().rposition(has) {
                    return Some(four * FOUR + found);
                }
            }
            next = four * FOUR;
        }
        None
    }

    /// The node at which `taken`, added up from the head on, first reaches `amount`, and what of that is left for it.
    #[inline(always)]
    fn descend(&self, amount: u64, taken: &impl Fn(&S) -> u64) -> (usize, u64) {
        let (four, amount) = one_of_four(&self.above, amount, taken);
        let (node, amount) = one_of_four(&self.nodes[four], amount, taken);
        (four * FOUR + node, amount)
    }
}

fn sum_of<S: Sum>(four: &Four<S>) -> S {
    S::join(&S::join(&four[0], &four[1]), &S::join(&four[2], &four[3]))
}

/// Sets one of four sums; what they come to now, if that may be something else.
#[inline(always)]
fn put<S: Sum>(four: &mut Four<S>, place: usize, sum: S) -> Option<S> {
    let place = place % FOUR;
    if four[place] == sum {
        return None;
    }
    four[place] = sum;
    let others = S::join(&four[place ^ 1], &four[place ^ 2]);
    let others = S::join(&others, &four[place ^ 3]);
    Some(S::join(&others, &sum))
}

/// Which of four it is at which `taken`, added up from the last on, first reaches `amount`, and what is left for it.
#[inline(always)]
fn one_of_four<S>(four: &Four<S>, amount: u64, taken: &impl Fn(&S) -> u64) -> (usize, u64) {
    let first = taken(&four[3]);
    let second = first + taken(&four[2]);
    let third = second + taken(&four[1]);
    // Without a branch: which one it is no hardware foresees.
    let mut passed = if first < amount { first } else { 0 };
    passed = if second < amount { second } else { passed };
    passed = if third < amount { third } else { passed };
    let place =
        usize::from(first >= amount) + usize::from(second >= amount) + usize::from(third >= amount);
    (place, amount - passed)
}

/// The tree, in levels of blocks: what the `i`th block of a level comes to is the `i`th node of the next, and the nodes of
/// the first are the slots. It grows by blocks, so growing moves nothing.
pub(super) struct Tree<S> {
    /// The last level has one block.
    levels: Vec<Vec<Box<Block<S>>>>,
    whole: S,
    share: Share,
    origin: usize,
}

impl<S: Sum> Tree<S> {
    pub(super) fn new(pool: &Pool) -> Tree<S> {
        let mut tree = Tree {
            levels: vec![vec![Block::new()]],
            whole: S::NONE,
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
            match level[index / WIDTH].set(index % WIDTH, sum) {
                Some(above) => sum = above,
                None => return,
            }
            index /= WIDTH;
        }
        self.whole = sum;
    }

    /// Adds blocks until there is one for that slot, and levels until they end in one block.
    fn reach(&mut self, slot: Slot) {
        let mut index = slot.index();
        let mut level = 0;
        while level < self.levels.len() {
            index /= WIDTH;
            while self.levels[level].len() <= index {
                self.levels[level].push(Block::new());
            }
            if level + 1 == self.levels.len() && index > 0 {
                let mut top = Block::new();
                top.set(0, self.levels[level][0].whole());
                self.levels.push(vec![top]);
            }
            level += 1;
        }
    }

    /// Begins to fetch what a slot's change is set in, but for what is needed so often that it stays in the cache.
    pub(super) fn prefetch(&self, slot: Slot) {
        let index = slot.index();
        if let Some(block) = self.levels[0].get(index / WIDTH) {
            prefetch_read(&block.above);
            prefetch_read(&block.nodes[index % WIDTH / FOUR]);
        }
    }

    /// The sum of all where order does not matter.
    pub(super) fn whole(&self) -> S {
        self.whole
    }

    /// The sum of all, in the order of the list.
    pub(super) fn all(&self) -> S {
        if self.share.worker == 0 {
            self.whole()
        } else {
            let span = self.span();
            S::chain(&self.range(0, self.origin), &self.range(self.origin, span))
        }
    }

    /// Slots are below this.
    fn span(&self) -> usize {
        self.levels[0].len() * WIDTH
    }

    /// The sum of the slots from `low` to below `high`.
    fn range(&self, mut low: usize, mut high: usize) -> S {
        let mut sum = S::NONE;
        for level in &self.levels {
            if low >= high {
                break;
            }
            // What of this level doesn't fill a block goes in here, the blocks between on the next level.
            let (first, last) = (low.div_ceil(WIDTH), high / WIDTH);
            if first > last {
                let part = level[last].part(low - last * WIDTH, high - last * WIDTH);
                return S::join(&sum, &part);
            }
            if low < first * WIDTH {
                let block = first - 1;
                sum = S::join(&sum, &level[block].part(low - block * WIDTH, WIDTH));
            }
            if high > last * WIDTH {
                sum = S::join(&sum, &level[last].part(0, high - last * WIDTH));
            }
            (low, high) = (first, last);
        }
        match low < high {
            // The top block is in it as a whole.
            true => S::join(&sum, &self.whole),
            false => sum,
        }
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
            if let Some(found) = level[block].last(below, has) {
                let mut index = block * WIDTH + found;
                for level in self.levels[..number].iter().rev() {
                    index = index * WIDTH + level[index].last(WIDTH, has)?;
                }
                return (index >= low).then_some(Slot::from_index(index));
            }
            high = block;
        }
        None
    }

    /// Going down the list, near the slots at which `taken`, added up, first reaches these amounts, which are above 0 and at
    /// most what all come to. All of them at once, so that what one waits for is another's time; where they end, memory is
    /// asked for.
    #[inline(always)]
    pub(super) fn approach<const N: usize>(
        &self,
        amounts: [u64; N],
        taken: impl Fn(&S) -> u64,
    ) -> [Near; N] {
        let mut near = amounts.map(|rest| Near { block: 0, rest });
        for level in self.levels[1..].iter().rev() {
            near = near.map(|Near { block, rest }| {
                let (node, rest) = level[block].descend(rest, &taken);
                let block = block * WIDTH + node;
                Near { block, rest }
            });
        }
        for near in &near {
            let block = &self.levels[0][near.block];
            prefetch_read(&block.above);
            block.nodes.iter().for_each(prefetch_read);
        }
        near
    }

    /// The slots that were approached, if nothing has changed since.
    #[inline(always)]
    pub(super) fn arrive<const N: usize>(
        &self,
        near: [Near; N],
        taken: impl Fn(&S) -> u64,
    ) -> [Slot; N] {
        near.map(|Near { block, rest }| {
            let (node, _) = self.levels[0][block].descend(rest, &taken);
            Slot::from_index(block * WIDTH + node)
        })
    }
}

/// A block of the first level, and what is left to be reached there.
#[derive(Clone, Copy)]
pub(super) struct Near {
    block: usize,
    rest: u64,
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

        fn join(one: &Order, other: &Order) -> Order {
            Order {
                first: one.first.max(other.first),
                last: one.last.into_iter().chain(other.last).min(),
                most: one.most.max(other.most),
            }
        }

        fn chain(first: &Order, second: &Order) -> Order {
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
    fn a_range_of_slots_is_summed_whether_it_fills_blocks_or_not() {
        for total in [1, 16, 17, 40, 256, 300] {
            let mut pool = Pool::new();
            (0..total).for_each(|n| {
                pool.add(member(n, 1));
            });
            let tree: Tree<Order> = Tree::new(&pool);
            for low in 0..=tree.span() {
                for high in low..=tree.span() {
                    let top = high.min(total as usize);
                    let ends = (low < top).then(|| (top - 1, low));
                    let ends =
                        ends.map(|(first, last)| (Slot::from_index(first), Slot::from_index(last)));
                    let sum = tree.range(low, high);
                    assert_eq!(sum.first.zip(sum.last), ends, "{total}: {low} to {high}");
                }
            }
        }
    }

    #[test]
    fn it_arrives_where_a_walk_reaches_the_amount() {
        let mut random = Random::new(4);
        for round in 0..100 {
            let pool = pool(&mut random, [40, 900][round % 2]);
            let tree: Tree<Added> = Tree::new(&pool);
            let (mut amount, mut first) = (0, None);
            for (slot, member) in pool.iter() {
                for _ in 0..member.weight {
                    amount += 1;
                    let near = tree.approach([amount, 1, amount], |sum| sum.0);
                    let found = tree.arrive(near, |sum| sum.0);
                    let first = first.get_or_insert(slot);
                    assert_eq!(found, [slot, *first, slot]);
                }
            }
        }
    }
}
