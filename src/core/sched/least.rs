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

/// The best of a run of members, in one number: the rank's, and below it the slot's, so that the least is the best, and of
/// equals the nearest to the head. Of none at all, a number that every other is less than.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Best<R> {
    number: u128,
    rank: PhantomData<R>,
}

/// Bits of a slot's number. A rank's has 103, so a list has room for 33 million dests, which is two gigabytes of members.
const SLOT_BITS: u32 = 25;
const SLOTS: u32 = 1 << SLOT_BITS;

impl<R: Rank> Best<R> {
    pub(super) fn slot(self) -> Option<Slot> {
        let below_head = self.number as u32 % SLOTS;
        (self != Self::NONE).then_some(Slot(SLOTS - 1 - below_head))
    }
}

impl<R: Rank> Sum for Best<R> {
    const NONE: Best<R> = Best {
        number: u128::MAX,
        rank: PhantomData,
    };

    fn of(slot: Slot, member: &Member) -> Best<R> {
        match R::of(member) {
            Some(ratio) if slot.0 < SLOTS => Best {
                number: ratio.number() << SLOT_BITS | u128::from(SLOTS - 1 - slot.0),
                rank: PhantomData,
            },
            _ => Self::NONE,
        }
    }

    #[inline(always)]
    fn join(one: &Best<R>, other: &Best<R>) -> Best<R> {
        Best {
            number: one.number.min(other.number),
            rank: PhantomData,
        }
    }

    fn chain(first: &Best<R>, second: &Best<R>) -> Best<R> {
        match second.number >> SLOT_BITS < first.number >> SLOT_BITS {
            true => *second,
            false => *first,
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
#[derive(Clone, Copy, Debug, PartialEq)]
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

    /// A number below 2^103 that is the less the less the ratio is, and the same only for equal ones. Ratios of weights
    /// below 2^31 that are not equal lie at least 2^-62 apart, so that 62 bits behind the point tell all of them.
    #[inline]
    fn number(self) -> u128 {
        let weight = u64::from(self.weight);
        if weight == 1 {
            return u128::from(self.load) << 62;
        }
        let (whole, rest) = (self.load / weight, self.load % weight);
        let (high, rest) = ((rest << 31) / weight, (rest << 31) % weight);
        let low = (rest << 31) / weight;
        u128::from(whole) << 62 | u128::from(high << 31 | low)
    }

    /// Whether it is the lesser of the two. Exact: the products are of 64 and 31 bits at most.
    #[inline(always)]
    pub(super) fn less(&self, other: &Ratio) -> bool {
        u128::from(self.load) * u128::from(other.weight)
            < u128::from(other.load) * u128::from(self.weight)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::member;
    use super::super::wlc::Wlc;
    use super::*;

    /// Loads and weights, small ones and such as lie beside the greatest.
    fn ratio() -> impl Strategy<Value = Ratio> {
        let load = prop_oneof![0..20u64, (1u64 << 40) - 20..1 << 40, 0..1u64 << 40];
        let weight = prop_oneof![1..20u32, (1u32 << 31) - 20..1 << 31, 1..1u32 << 31];
        (load, weight).prop_map(|(load, weight)| Ratio { load, weight })
    }

    proptest! {
        #[test]
        fn numbers_lie_as_the_ratios_do(one in ratio(), other in ratio(), times in 1..1000u32) {
            prop_assert_eq!(one.number() < other.number(), one.less(&other));
            prop_assert!(one.number() < 1 << 103);
            let weight = one.weight.min(u32::MAX / times);
            let small = Ratio { weight, ..one };
            let same = Ratio { load: one.load * u64::from(times), weight: weight * times };
            // Only weights below 2^31 occur.
            if same.weight < 1 << 31 {
                prop_assert_eq!(small.number(), same.number());
            }
        }
    }

    #[test]
    fn neighbouring_ratios_of_the_greatest_weights_differ() {
        let most = i32::MAX.unsigned_abs();
        let pairs = [(most - 1, most), (most - 2, most - 1)];
        let [greater, less] = pairs.map(|(load, weight)| Ratio {
            load: u64::from(load),
            weight,
        });
        assert!(less.less(&greater) && less.number() < greater.number());
    }

    #[test]
    fn a_best_tells_its_slot() {
        for slot in [0, 1, 77, SLOTS - 1].map(Slot) {
            assert_eq!(Best::<Wlc>::of(slot, &member(1, 3)).slot(), Some(slot));
        }
        assert_eq!(Best::<Wlc>::of(Slot(SLOTS), &member(1, 3)).slot(), None);
        assert_eq!(Best::<Wlc>::NONE.slot(), None);
    }
}
