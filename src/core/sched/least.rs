//! What lc, wlc, sed, nq, fo, ovf, lblc and lblcr have in common: the best of all members by some rank, and among equals
//! the first of the list.

use std::marker::PhantomData;

use super::pool::{Member, Pool, Slot};
use super::tree::{Share, Sum, Tree};
use super::{Change, PickKey, Scheduler};

/// What members are ranked by: the least is best. Two may be equal.
pub(super) trait Rank: Copy + PartialEq + Send {
    /// Whether members keep one order on all workers: then staggering would spread what the scheduler means to keep
    /// together.
    const FIXED: bool = false;
    /// The rank of a member; `None` if it must not be chosen.
    fn of(member: &Member) -> Option<Ratio>;
}

/// The best of a run of members; of none at all, a rank that every other is better than. Two words, because what is written
/// by smaller parts and read as a whole a moment later is waited for.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Best<R> {
    load: u64,
    /// Weight and slot.
    who: u64,
    rank: PhantomData<R>,
}

impl<R: Rank> Best<R> {
    fn new(ratio: Ratio, slot: Slot) -> Best<R> {
        Best {
            load: ratio.load,
            who: u64::from(ratio.weight) << 32 | u64::from(slot.0),
            rank: PhantomData,
        }
    }

    pub(super) fn slot(self) -> Option<Slot> {
        (self != Self::NONE).then_some(Slot(self.who as u32))
    }
}

impl<R: Rank> Sum for Best<R> {
    const NONE: Best<R> = Best {
        load: u64::MAX,
        who: 1 << 32,
        rank: PhantomData,
    };

    fn of(slot: Slot, member: &Member) -> Best<R> {
        R::of(member).map_or(Self::NONE, |ratio| Best::new(ratio, slot))
    }

    #[inline(always)]
    fn join(first: &Best<R>, second: &Best<R>) -> Best<R> {
        let ratio = |best: &Best<R>| Ratio {
            load: best.load,
            weight: (best.who >> 32) as u32,
        };
        // Without a branch: which is the better one no hardware foresees.
        let less = ratio(second).less(&ratio(first));
        let word = |first, second| if less { second } else { first };
        Best {
            load: word(first.load, second.load),
            who: word(first.who, second.who),
            rank: PhantomData,
        }
    }
}

/// The scheduler that picks the best.
pub(super) struct ByRank<R: Rank> {
    tree: Tree<Best<R>>,
}

impl<R: Rank> ByRank<R> {
    pub(super) fn new(pool: &Pool) -> ByRank<R> {
        ByRank {
            tree: Tree::new(pool),
        }
    }
}

impl<R: Rank> Scheduler for ByRank<R> {
    fn update(&mut self, pool: &Pool, change: &Change) {
        self.tree.update(pool, change);
    }

    fn pick(&mut self, _pool: &Pool, _key: &PickKey) -> Option<Slot> {
        self.tree.all().slot()
    }

    fn guess(&self, _pool: &Pool) -> Option<Slot> {
        self.tree.all().slot()
    }

    fn prefetch(&self, slot: Slot) {
        self.tree.prefetch(slot);
    }

    fn stagger(&mut self, pool: &Pool, worker: u16, workers: u16) {
        if !R::FIXED {
            self.tree.share(Share { worker, workers }, pool);
        }
    }
}

/// Load for each unit of weight: the least is best.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Ratio {
    load: u64,
    /// Greater than 0.
    weight: u32,
}

impl Ratio {
    /// The ratio of an available member with that load.
    pub(super) fn of(member: &Member, load: u64) -> Option<Ratio> {
        let weight = member.weight.unsigned_abs();
        member.available().then_some(Ratio { load, weight })
    }

    /// The ratio of a member by its load alone.
    pub(super) fn whole(load: u64) -> Ratio {
        Ratio { load, weight: 1 }
    }

    /// A ratio by which the greatest weight is best.
    pub(super) fn heaviest(member: &Member) -> Ratio {
        Ratio::whole(u64::from(i32::MAX.abs_diff(member.weight)))
    }

    /// The ratio of a member that is not quiesced, even if it is overloaded.
    pub(super) fn of_weighted(member: &Member, load: u64) -> Option<Ratio> {
        let weight = member.weight.max(0).unsigned_abs();
        (weight > 0).then_some(Ratio { load, weight })
    }

    /// Whether it is the lesser of the two. Exact: the products are of 64 and 31 bits at most.
    #[inline(always)]
    pub(super) fn less(&self, other: &Ratio) -> bool {
        u128::from(self.load) * u128::from(other.weight)
            < u128::from(other.load) * u128::from(self.weight)
    }
}
