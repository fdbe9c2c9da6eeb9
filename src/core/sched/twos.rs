//! Power of two choices: two members drawn by their weights, and of them the one with less overhead for its weight.

use std::hash::{BuildHasher, Hasher};

use super::least::Ratio;
use super::pool::{Member, Pool, Slot};
use super::tree::{Near, Sum, Tree};
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
    /// What is drawn for the next connections, so that their memory may come; by the weights as they are.
    ahead: Option<Ahead>,
}

/// Two members each for the next connection and the one after it, and about which two it will be for the third.
#[derive(Clone, Copy)]
struct Ahead {
    next: [Slot; 2],
    second: [Slot; 2],
    third: [Near; 2],
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
            ahead: None,
        }
    }

    /// Draws twice from 0 up to and with the sum of all weights, as the kernel does: the first of the list is a little
    /// likelier.
    fn draw(&mut self) -> Option<[Near; 2]> {
        let total = self.tree.whole().0;
        if total == 0 {
            return None;
        }
        let mut amount = || self.random.up_to(total).max(1);
        let amounts = [amount(), amount()];
        Some(self.tree.approach(amounts, |sum| sum.0))
    }

    /// Who was drawn.
    fn see(&self, pool: &Pool, drawn: [Near; 2]) -> [Slot; 2] {
        let two = self.tree.arrive(drawn, |sum| sum.0);
        two.iter().for_each(|slot| pool.prefetch(*slot));
        two
    }
}

impl Scheduler for Twos {
    fn update(&mut self, pool: &Pool, change: &Change) {
        if matches!(change, Change::Load(_)) {
            return;
        }
        self.tree.update(pool, change);
        self.ahead = None;
    }

    fn pick(&mut self, pool: &Pool, _key: &PickKey) -> Option<Slot> {
        let ahead = match self.ahead {
            Some(ahead) => ahead,
            None => {
                let [next, second, third] = [self.draw()?, self.draw()?, self.draw()?];
                let [next, second] = [next, second].map(|drawn| self.see(pool, drawn));
                Ahead {
                    next,
                    second,
                    third,
                }
            }
        };
        self.ahead = self.draw().map(|drawn| Ahead {
            next: ahead.second,
            second: self.see(pool, ahead.third),
            third: drawn,
        });
        better(pool, ahead.next)
    }

    fn guess(&self, pool: &Pool) -> Option<Slot> {
        better(pool, self.ahead?.next)
    }
}

/// The one of two with less overhead for its weight, the first where they are equal.
fn better(pool: &Pool, [first, second]: [Slot; 2]) -> Option<Slot> {
    let ratio = |slot| {
        let member = pool.get(slot)?;
        Ratio::of(member, member.overhead())
    };
    Some(match ratio(second)?.less(&ratio(first)?) {
        true => second,
        false => first,
    })
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

#[cfg(test)]
mod tests {
    use super::super::testing::{group, key, member};
    use super::*;
    use crate::spec::SchedKind;
    use crate::types::DestId;

    /// ip_vs_twos.c: the probability of each dest, over all pairs of draws.
    fn probabilities(list: &[&Member]) -> Vec<f64> {
        let weight = |m: &Member| if m.available() { m.weight } else { 0 };
        let total: i32 = list.iter().map(|m| weight(m)).sum();
        let drawn: Vec<usize> = (0..=total)
            .map(|draw| {
                let mut rest = draw;
                list.iter()
                    .position(|m| {
                        rest -= weight(m);
                        weight(m) > 0 && rest <= 0
                    })
                    .unwrap()
            })
            .collect();
        let mut probabilities = vec![0.0; list.len()];
        for first in &drawn {
            for second in &drawn {
                let (a, b) = (list[*first], list[*second]);
                let picked = if b.weight as u64 * a.overhead() > a.weight as u64 * b.overhead() {
                    second
                } else {
                    first
                };
                probabilities[*picked] += 1.0 / (drawn.len() * drawn.len()) as f64;
            }
        }
        probabilities
    }

    #[test]
    fn picks_each_as_often_as_the_kernel_does() {
        let mut pool = Pool::new();
        let dests = [(4, 7), (1, 0), (9, 3), (2, 1), (0, 6), (5, 9), (3, 2)];
        for (n, (active, weight)) in dests.into_iter().enumerate() {
            let mut m = member(n as u32, weight);
            m.active = active;
            m.overloaded = n == 4;
            pool.add(m);
        }
        let list: Vec<(Slot, &Member)> = pool.iter().collect();
        let members: Vec<&Member> = list.iter().map(|(_, m)| *m).collect();
        let mut twos = Twos::with_seed(&pool, 7);
        let mut counts = vec![0; list.len()];
        let picks = 200_000;
        for _ in 0..picks {
            let slot = twos.pick(&pool, &key()).unwrap();
            counts[list.iter().position(|(s, _)| *s == slot).unwrap()] += 1;
        }
        let mut chi_square = 0.0;
        for (count, probability) in counts.iter().zip(probabilities(&members)) {
            let expected = probability * f64::from(picks);
            if expected == 0.0 {
                assert_eq!(*count, 0);
            } else {
                chi_square += (f64::from(*count) - expected).powi(2) / expected;
            }
        }
        // Five may be picked: with four degrees of freedom, one run in a thousand exceeds 18.5.
        assert!(chi_square < 18.5, "{chi_square}: {counts:?}");
    }

    #[test]
    fn where_none_may_be_chosen_it_picks_none() {
        let mut group = group(SchedKind::Twos, 0, &[(1, 0), (2, 1)]);
        assert_eq!(group.pick(&key()).map(|m| m.id), Some(DestId(2)));
        group.set_overloaded(DestId(2), true);
        assert_eq!(group.pick(&key()), None);
    }
}
