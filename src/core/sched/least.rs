//! What lc, wlc, sed, nq, fo, ovf, lblc and lblcr have in common: the best of all members by some rank, and among equals
//! the first of the list.

use super::pool::{Member, Pool, Slot};
use super::tree::{Share, Sum, Tree};
use super::{Change, PickKey, Scheduler};

/// A rank among members. Weak order: two members may be equal.
pub(super) trait Rank: Copy + PartialEq + Send {
    /// Whether members keep one order on all workers: then staggering would spread what the scheduler means to keep
    /// together.
    const FIXED: bool = false;
    /// The rank of a member; `None` if it must not be chosen.
    fn of(member: &Member) -> Option<Self>;
    /// Whether `self` is chosen over `other` even if it comes later in the list.
    fn beats(&self, other: &Self) -> bool;
}

/// The best of a run of members.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Best<R>(Option<(R, Slot)>);

impl<R> Best<R> {
    pub(super) fn slot(self) -> Option<Slot> {
        self.0.map(|(_, slot)| slot)
    }
}

impl<R: Rank> Sum for Best<R> {
    const NONE: Best<R> = Best(None);

    fn of(slot: Slot, member: &Member) -> Best<R> {
        Best(R::of(member).map(|rank| (rank, slot)))
    }

    fn join(first: &Best<R>, second: &Best<R>) -> Best<R> {
        match (&first.0, &second.0) {
            (Some((a, _)), Some((b, _))) if b.beats(a) => *second,
            (None, _) => *second,
            _ => *first,
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

    fn stagger(&mut self, pool: &Pool, worker: u16, workers: u16) {
        if !R::FIXED {
            self.tree.share(Share { worker, workers }, pool);
        }
    }
}

/// Load for each unit of weight: the least is best.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Ratio {
    pub(super) load: u64,
    /// Greater than 0.
    pub(super) weight: u32,
}

impl Ratio {
    /// The ratio of an available member with that load.
    pub(super) fn of(member: &Member, load: u64) -> Option<Ratio> {
        member.available().then_some(Ratio {
            load,
            weight: member.weight.unsigned_abs(),
        })
    }

    /// Whether it is the lesser of the two. Exact: the products are of 40 and 31 bits.
    pub(super) fn less(&self, other: &Ratio) -> bool {
        u128::from(self.load) * u128::from(other.weight)
            < u128::from(other.load) * u128::from(self.weight)
    }
}
