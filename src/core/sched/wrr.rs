//! Weighted round robin: the next of the list after the last one picked whose weight reaches a level; the level sinks from
//! the greatest weight by the weights' greatest common divisor, one step each time the list is through.

use super::pool::{Member, Pool, Slot};
use super::tree::{Share, Sum, Tree};
use super::{Change, PickKey, Scheduler};

/// The weights of a run of members.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Weights {
    /// The greatest of one that is not overloaded.
    available: i32,
    /// The greatest.
    greatest: i32,
    /// Greatest common divisor of those above 0; 0 if there is none.
    gcd: u32,
}

impl Sum for Weights {
    const NONE: Weights = Weights {
        available: 0,
        greatest: 0,
        gcd: 0,
    };

    fn of(_slot: Slot, member: &Member) -> Weights {
        let weight = member.weight.max(0);
        Weights {
            available: if member.overloaded { 0 } else { weight },
            greatest: weight,
            gcd: weight.unsigned_abs(),
        }
    }

    fn join(first: &Weights, second: &Weights) -> Weights {
        Weights {
            available: first.available.max(second.available),
            greatest: first.greatest.max(second.greatest),
            gcd: gcd(first.gcd, second.gcd),
        }
    }
}

/// Greatest common divisor, where 0 counts as nothing.
pub(super) fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The names are the kernel's: they behave so after edits too.
pub(super) struct Wrr {
    tree: Tree<Weights>,
    /// Current dest; `None` is before the head, where every edit puts it.
    cl: Option<Slot>,
    /// Current level.
    cw: i32,
    /// Highest level: the greatest weight less `di - 1`, so that the last level is 1.
    mw: i32,
    /// Step from level to level.
    di: i32,
    /// Until its first pick, a staggered worker begins at this part of the levels, of so many.
    begin: Option<Share>,
}

impl Wrr {
    pub(super) fn new(pool: &Pool) -> Wrr {
        let mut wrr = Wrr {
            tree: Tree::new(pool),
            cl: None,
            cw: 0,
            mw: 0,
            di: 1,
            begin: None,
        };
        wrr.measure();
        wrr.cw = wrr.mw;
        wrr
    }

    fn measure(&mut self) {
        let weights = self.tree.whole();
        self.di = weights.gcd.max(1) as i32;
        self.mw = weights.greatest - (self.di - 1);
    }

    fn dests_changed(&mut self) {
        self.cl = None;
        self.measure();
        if self.cw > self.mw || self.cw == 0 {
            self.cw = self.mw;
        } else if self.di > 1 {
            self.cw = self.cw / self.di * self.di + 1;
        }
        self.begin_at_part();
    }

    fn begin_at_part(&mut self) {
        if let Some(Share { worker, workers }) = self.begin {
            let levels = i64::from((self.mw + self.di - 1) / self.di);
            let passed = levels * i64::from(worker) / i64::from(workers.max(1));
            self.cw = self.mw - passed as i32 * self.di;
        }
    }

    /// What the kernel's loop leaves behind when it has found nobody.
    fn give_up(&mut self) {
        if self.cl.is_some() && self.cw <= self.di {
            // It began within the last level, and after all levels finished that up to where it had begun.
            self.cw = (self.mw - 1) % self.di + 1;
        } else {
            self.cl = None;
            self.cw = self.mw;
        }
    }

    fn next(&self) -> Option<Slot> {
        let level = self.cw;
        self.tree.next(self.cl, |w| w.available >= level)
    }
}

impl Scheduler for Wrr {
    fn update(&mut self, pool: &Pool, change: &Change) {
        if matches!(change, Change::Load(_)) {
            return;
        }
        self.tree.update(pool, change);
        if change.is_of_list() {
            self.dests_changed();
        }
    }

    fn pick(&mut self, _pool: &Pool, _key: &PickKey) -> Option<Slot> {
        if self.mw == 0 {
            return None;
        }
        self.begin = None;
        if let Some(slot) = self.next() {
            self.cl = Some(slot);
            return Some(slot);
        }
        let available = self.tree.whole().available;
        if available == 0 {
            self.give_up();
            return None;
        }
        self.cl = None;
        self.cw -= self.di;
        if self.cw <= 0 {
            self.cw = self.mw;
        }
        if self.cw > available {
            // Levels that nobody reaches are passed in one step.
            let levels = (self.cw - available + self.di - 1) / self.di;
            self.cw = (self.cw - levels * self.di).max(1);
        }
        self.cl = self.next();
        self.cl
    }

    fn guess(&self, pool: &Pool) -> Option<Slot> {
        let next = pool.after(self.cl?)?;
        // Of the one behind it nothing can be said before this has come.
        pool.prefetch(pool.after(next)?);
        Some(next)
    }

    fn stagger(&mut self, pool: &Pool, worker: u16, workers: u16) {
        let share = Share { worker, workers };
        self.tree.share(share, pool);
        self.begin = (worker > 0).then_some(share);
        self.begin_at_part();
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{compare, group, key, member, picks, ListChange, Model};
    use super::super::Group;
    use super::*;
    use crate::spec::SchedKind;
    use crate::types::DestId;

    /// ip_vs_wrr.c, pass by pass; `cl` is a place in the list.
    #[derive(Default)]
    struct Loop {
        cl: Option<usize>,
        cw: i32,
        mw: i32,
        di: i32,
    }

    impl Model for Loop {
        fn changed(&mut self, list: &[Member], _change: &ListChange) {
            self.cl = None;
            let weights = || list.iter().map(|m| m.weight).filter(|w| *w > 0);
            let most = weights().max().unwrap_or(0);
            self.di = (1..=most)
                .rev()
                .find(|d| weights().all(|w| w % d == 0))
                .unwrap_or(1);
            self.mw = most - (self.di - 1);
            if self.cw > self.mw || self.cw == 0 {
                self.cw = self.mw;
            } else if self.di > 1 {
                self.cw = (self.cw / self.di) * self.di + 1;
            }
        }

        fn pick(&mut self, list: &[Member], _key: &PickKey) -> Option<DestId> {
            if self.mw == 0 {
                return None;
            }
            let last = self.cl;
            let (mut last_pass, mut restarted, mut stop) = (false, false, None);
            let mut from = last.map_or(0, |cl| cl + 1);
            loop {
                for (i, m) in list.iter().enumerate().skip(from) {
                    if !m.overloaded && m.weight >= self.cw {
                        self.cl = Some(i);
                        return Some(m.id);
                    }
                    if stop == Some(i) {
                        self.cl = stop;
                        return None;
                    }
                }
                from = 0;
                self.cw -= self.di;
                if self.cw <= 0 {
                    self.cw = self.mw;
                    if last_pass || last.is_none() {
                        self.cl = None;
                        return None;
                    }
                    restarted = true;
                }
                last_pass = self.cw <= self.di;
                if last_pass && restarted && last.is_some() {
                    stop = last;
                }
            }
        }
    }

    #[test]
    fn picks_as_the_kernels_loop_does() {
        compare(SchedKind::Wrr, 0, |_, _| key(), Loop::default, 1500);
    }

    #[test]
    fn picks_what_the_kernel_picked_through_edits() {
        let mut group = group(SchedKind::Wrr, 0, &[(11, 4), (12, 3), (13, 2), (14, 0)]);
        assert_eq!(
            picks(&mut group, [key(); 20]),
            [13, 12, 11, 11, 12, 11, 13, 12, 11, 13, 12, 11, 11, 12, 11, 13, 12, 11, 13, 12]
        );
        group.edit(DestId(11), 1);
        group.edit(DestId(14), 6);
        assert_eq!(
            picks(&mut group, [key(); 14]),
            [14, 13, 12, 11, 14, 14, 14, 14, 12, 14, 13, 12, 14, 13]
        );
        group.remove(DestId(14));
        group.add(member(15, 2));
        assert_eq!(
            picks(&mut group, [key(); 10]),
            [15, 13, 12, 11, 12, 15, 13, 12, 15, 13]
        );
    }

    #[test]
    fn picks_what_the_kernel_picked_with_a_common_divisor() {
        let mut group = group(SchedKind::Wrr, 0, &[(11, 100), (12, 50), (13, 250)]);
        assert_eq!(
            picks(&mut group, [key(); 18]),
            [13, 12, 11, 13, 13, 13, 13, 11, 13, 12, 11, 13, 13, 13, 13, 11, 13, 12]
        );
        for id in [11, 12, 13] {
            group.edit(DestId(id), 0);
        }
        assert_eq!(picks(&mut group, [key()]), [0]);
        group.edit(DestId(12), 10);
        assert_eq!(picks(&mut group, [key(); 4]), [12; 4]);
    }

    #[test]
    fn staggered_workers_together_begin_as_one_would() {
        let spread = |workers: u16, picked: usize| {
            let mut total = [0; 8];
            for worker in 0..workers {
                let mut group = Group::new(Some(SchedKind::Wrr), 0, worker, workers);
                (0..8).for_each(|n| group.add(member(n, 1 + n as i32 % 4)));
                for id in picks(&mut group, vec![key(); picked]) {
                    total[id as usize] += 1;
                }
            }
            total
        };
        assert_eq!(spread(1, 20), [1, 2, 3, 4, 1, 2, 3, 4]);
        // A fourth each, and no dest more than one off.
        assert_eq!(spread(4, 5), [1, 2, 2, 3, 1, 3, 4, 4]);
        assert_eq!(spread(4, 20), [4, 8, 12, 16, 4, 8, 12, 16]);
    }

    #[test]
    fn picks_what_the_kernel_picked_around_overloaded_dests() {
        let mut upper = [(11, 2), (12, 3), (13, 4), (14, 99)];
        let mut group = group(SchedKind::Wrr, 0, &[(11, 6), (12, 4), (13, 2)]);
        let run = |group: &mut Group, upper: &[(u32, u32)], times: usize| {
            let mut picked = Vec::new();
            for _ in 0..times {
                let id = picks(group, [key()])[0];
                picked.push(id);
                for (n, upper) in upper.iter().filter(|(n, _)| *n == id) {
                    let slot = group.pool().slot_of(DestId(*n)).unwrap();
                    let active = group.pool().get(slot).unwrap().active;
                    group.set_overloaded(DestId(*n), active >= *upper);
                }
            }
            picked
        };
        assert_eq!(
            run(&mut group, &upper, 12),
            [13, 12, 11, 11, 12, 13, 12, 13, 13, 0, 0, 0]
        );
        upper[1].1 = 9;
        group.set_overloaded(DestId(12), false);
        group.edit(DestId(12), 4);
        assert_eq!(run(&mut group, &upper, 3), [12, 12, 12]);
        group.add(member(14, 8));
        assert_eq!(
            run(&mut group, &upper, 10),
            [14, 12, 14, 14, 14, 12, 14, 12, 14, 14]
        );
        group.remove(DestId(11));
        upper[2].1 = 99;
        group.set_overloaded(DestId(13), false);
        group.edit(DestId(13), 3);
        assert_eq!(
            run(&mut group, &upper, 20),
            [14, 14, 14, 13, 14, 13, 14, 13, 14, 14, 14, 14, 14, 14, 13, 14, 13, 14, 13, 14]
        );
    }
}
