//! Locality-based least connections: a destination address keeps the dest that wlc gave it, unless that has more active
//! connections than its weight while some dest has less than half of its weight.

use super::cache::Cache;
use super::known::{Known, KnownDests};
use super::least::Best;
use super::pool::{Member, Pool, Slot};
use super::tree::{Share, Sum, Tree};
use super::wlc::Wlc;
use super::{Change, Expirations, PickKey, Scheduler};
use crate::types::Time;

/// Of a run of members, the best by wlc, and whether one is at less than half of its weight.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Local {
    best: Best<Wlc>,
    spare: bool,
}

impl Sum for Local {
    const NONE: Local = Local {
        best: Best::NONE,
        spare: false,
    };

    fn of(slot: Slot, member: &Member) -> Local {
        Local {
            best: Best::of(slot, member),
            spare: u64::from(member.active) * 2 < u64::from(member.weight.max(0).unsigned_abs()),
        }
    }

    fn join(one: &Local, other: &Local) -> Local {
        Local {
            best: Best::join(&one.best, &other.best),
            spare: one.spare || other.spare,
        }
    }

    fn chain(first: &Local, second: &Local) -> Local {
        Local {
            best: Best::chain(&first.best, &second.best),
            ..Local::join(first, second)
        }
    }
}

impl Tree<Local> {
    /// The best by wlc.
    pub(super) fn best(&self) -> Option<Slot> {
        self.all().best.slot()
    }

    /// Whether an address should leave this dest.
    pub(super) fn relieves(&self, member: &Member) -> bool {
        i64::from(member.active) > i64::from(member.weight) && self.whole().spare
    }
}

pub(super) struct Lblc {
    tree: Tree<Local>,
    known: KnownDests,
    cache: Cache<Known>,
}

impl Lblc {
    pub(super) fn new(pool: &Pool) -> Lblc {
        Lblc {
            tree: Tree::new(pool),
            known: KnownDests::new(pool),
            cache: Cache::new(),
        }
    }
}

impl Scheduler for Lblc {
    fn update(&mut self, pool: &Pool, change: &Change) {
        self.tree.update(pool, change);
        self.known.update(pool, change);
    }

    fn pick(&mut self, pool: &Pool, key: &PickKey) -> Option<Slot> {
        let cached = self.cache.get(&key.daddr, key.now);
        if let Some(known) = &cached {
            // Being overloaded by a threshold does not count here.
            if let Some((Some(slot), member)) = self.known.get(pool, **known) {
                if member.weight > 0 && !self.tree.relieves(member) {
                    return Some(slot);
                }
            }
        }
        let slot = self.tree.best()?;
        let known = self.known.at(slot);
        self.known.hold(known);
        let unused = match cached {
            Some(cached) => Some(std::mem::replace(cached, known)),
            None => self.cache.insert(key.daddr, known, key.now).err(),
        };
        if let Some(known) = unused {
            self.known.release(known);
        }
        Some(slot)
    }

    fn stagger(&mut self, pool: &Pool, worker: u16, workers: u16) {
        self.tree.share(Share { worker, workers }, pool);
    }

    fn set_expiration(&mut self, expirations: Expirations) {
        self.cache.set_expiration(expirations.lblc);
    }

    fn expire(&mut self, now: Time) {
        let known = &mut self.known;
        self.cache.expire(now, |dest| known.release(dest));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{any_vaddr, compare, group, picks, to, wlc, ListChange, Model};
    use super::*;
    use crate::spec::SchedKind;
    use crate::types::DestId;
    use std::net::IpAddr;

    /// ip_vs_lblc.c.
    #[derive(Default)]
    struct Loop(Vec<(IpAddr, DestId)>);

    impl Model for Loop {
        fn changed(&mut self, _list: &[Member], _change: &ListChange) {}

        fn pick(&mut self, list: &[Member], key: &PickKey) -> Option<DestId> {
            let cached = self.0.iter_mut().find(|(addr, _)| *addr == key.daddr);
            if let Some((_, id)) = &cached {
                if let Some(m) = list.iter().find(|m| m.id == *id) {
                    let spare = |d: &Member| d.active as i32 * 2 < d.weight;
                    let overloaded = m.active as i32 > m.weight && list.iter().any(spare);
                    if m.weight > 0 && !overloaded {
                        return Some(*id);
                    }
                }
            }
            let id = wlc(list.iter().filter(|m| !m.overloaded))?;
            match cached {
                Some(entry) => entry.1 = id,
                None => self.0.push((key.daddr, id)),
            }
            Some(id)
        }
    }

    #[test]
    fn picks_as_the_kernels_loop_does() {
        compare(SchedKind::Lblc, 0, any_vaddr, Loop::default, 2000);
    }

    #[test]
    fn picks_what_the_kernel_picked() {
        let mut group = group(SchedKind::Lblc, 0, &[(11, 4), (12, 30), (13, 5)]);
        let to_all = || (1..=9).map(|i| to([203, 0, 113, i]));
        assert_eq!(
            picks(&mut group, to_all()),
            [13, 12, 11, 12, 12, 12, 12, 12, 13]
        );
        assert_eq!(
            picks(&mut group, to_all()),
            [13, 12, 11, 12, 12, 12, 12, 12, 13]
        );
        assert_eq!(
            picks(&mut group, [to([203, 0, 113, 1]); 16]),
            [13, 13, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12]
        );
        assert_eq!(picks(&mut group, [to([203, 0, 113, 7]); 16]), [12; 16]);
        group.edit(DestId(12), 0);
        assert_eq!(
            picks(&mut group, to_all()),
            [11, 11, 11, 13, 11, 13, 11, 13, 13]
        );
    }

    #[test]
    fn an_address_is_forgotten_after_the_expiration_time() {
        let mut group = group(SchedKind::Lblc, 0, &[(1, 1), (2, 1)]);
        group.set_expirations(Expirations { lblc: 60, lblcr: 1 });
        assert_eq!(picks(&mut group, [to([203, 0, 113, 1])]), [2]);
        for minute in 0..29 {
            (0..100).for_each(|_| group.expire(Time::from_secs(60 * minute)));
        }
        assert_eq!(picks(&mut group, [to([203, 0, 113, 1])]), [2]);
        for minute in 29..40 {
            (0..100).for_each(|_| group.expire(Time::from_secs(60 * minute)));
        }
        assert_eq!(picks(&mut group, [to([203, 0, 113, 1])]), [1]);
    }

    #[test]
    fn an_address_stays_with_an_overloaded_dest_as_with_the_kernel() {
        let mut group = group(SchedKind::Lblc, 0, &[(11, 4), (12, 30), (13, 5)]);
        let to_all = |low: u8, high: u8| (low..=high).map(|i| to([203, 0, 113, i]));
        // 12 takes three.
        assert_eq!(picks(&mut group, to_all(1, 5)), [13, 12, 11, 12, 12]);
        group.set_overloaded(DestId(12), true);
        assert_eq!(picks(&mut group, to_all(6, 9)), [13, 11, 13, 11]);
        assert_eq!(
            picks(&mut group, to_all(1, 9)),
            [13, 12, 11, 12, 12, 13, 11, 13, 13]
        );
        let removed = group.remove(DestId(12)).unwrap();
        assert_eq!(picks(&mut group, to_all(1, 1)), [13]);
        group.add(Member {
            overloaded: false,
            ..removed
        });
        assert_eq!(picks(&mut group, to_all(1, 9)), [12; 9]);
    }
}
