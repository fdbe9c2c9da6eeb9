//! Power of two choices: two members drawn by their weights, and of them the one with less overhead for its weight.

use std::hash::{BuildHasher, Hasher};

use super::pool::{Member, Pool, Slot};
use super::tree::{Sum, Tree};
use super::{Change, PickKey, Scheduler};

/// The weights of a run of members that may be chosen, added up.
#[derive(Clone, Copy, PartialEq)]
struct Total(u64);

impl Sum for Total {
    const NONE: Total = Total(0);

    fn of(_slot: Slot, member: &Member) -> Total {
        if member.available() {
            Total(u64::from(member.weight.unsigned_abs()))
        } else {
            Total(0)
        }
    }

    fn join(first: &Total, second: &Total) -> Total {
        Total(first.0 + second.0)
    }
}

pub(super) struct Twos {
    tree: Tree<Total>,
    random: SplitMix,
}

impl Twos {
    pub(super) fn new(pool: &Pool) -> Twos {
        let seed = std::hash::RandomState::new().build_hasher().finish();
        Twos::with_seed(pool, seed)
    }

    fn with_seed(pool: &Pool, seed: u64) -> Twos {
        Twos {
            tree: Tree::new(pool),
            random: SplitMix(seed),
        }
    }

    /// Draws from 0 up to and with the total, as the kernel does: the first of the list is a little likelier.
    fn draw(&mut self, total: u64) -> Option<Slot> {
        let amount = self.random.up_to(total).max(1);
        self.tree.descend(amount, |sum| sum.0)
    }
}

impl Scheduler for Twos {
    fn update(&mut self, pool: &Pool, change: &Change) {
        self.tree.update(pool, change);
    }

    fn pick(&mut self, pool: &Pool, _key: &PickKey) -> Option<Slot> {
        let total = self.tree.whole().0;
        let (slot1, slot2) = (self.draw(total)?, self.draw(total)?);
        let (first, second) = (pool.get(slot1)?, pool.get(slot2)?);
        let load = |of: &Member, other: &Member| {
            u128::from(of.overhead()) * u128::from(other.weight.unsigned_abs())
        };
        Some(if load(first, second) > load(second, first) {
            slot2
        } else {
            slot1
        })
    }
}

/// Sebastiano Vigna's splitmix64.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `most`, each as likely but for less than one part in a million: `most` is below 2^44.
    fn up_to(&mut self, most: u64) -> u64 {
        ((u128::from(self.next()) * (u128::from(most) + 1)) >> 64) as u64
    }
}
