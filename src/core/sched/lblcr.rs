//! Locality-based least connections with replication: a destination address has a set of dests, of which the best by wlc is
//! taken; the set gains the best of all when that one has more active connections than its weight while some dest has less
//! than half of its weight, and loses its busiest when it has not changed for the expiration time.

use super::cache::Cache;
use super::known::{Known, KnownDests};
use super::lblc::Local;
use super::least::{Rank, Ratio};
use super::pool::{Pool, Slot};
use super::tree::{Share, Tree};
use super::wlc::Wlc;
use super::{Change, Expirations, PickKey, Scheduler};
use crate::types::Time;

/// Links of a set, in chunks so that growing moves nothing.
const CHUNK: usize = 1024;
/// Sets can have so many members together.
const MAX_CHUNKS: usize = 256;
const END: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Link {
    dest: Known,
    next: u32,
}

/// A set: its members, latest first, in a list of links.
#[derive(Clone, Copy)]
struct Set {
    first: u32,
    size: u32,
    changed: Time,
}

/// Where the links of all sets are.
struct Links {
    chunks: Vec<Vec<Link>>,
    free: u32,
    free_count: usize,
}

impl Links {
    fn new() -> Links {
        let mut links = Links {
            chunks: Vec::with_capacity(MAX_CHUNKS),
            free: END,
            free_count: 0,
        };
        links.grow();
        links
    }

    fn at(&self, link: u32) -> Link {
        self.chunks[link as usize / CHUNK][link as usize % CHUNK]
    }

    fn at_mut(&mut self, link: u32) -> &mut Link {
        &mut self.chunks[link as usize / CHUNK][link as usize % CHUNK]
    }

    /// Adds a chunk if few links are free.
    fn grow(&mut self) {
        if self.free_count >= CHUNK / 2 || self.chunks.len() == MAX_CHUNKS {
            return;
        }
        let base = (self.chunks.len() * CHUNK) as u32;
        let mut chunk = Vec::with_capacity(CHUNK);
        for i in 0..CHUNK as u32 {
            chunk.push(Link {
                dest: Known::NOBODY,
                next: if i == 0 { self.free } else { base + i - 1 },
            });
        }
        self.free = base + CHUNK as u32 - 1;
        self.free_count += CHUNK;
        self.chunks.push(chunk);
    }

    fn take(&mut self, dest: Known, next: u32) -> Option<u32> {
        if self.free == END {
            return None;
        }
        let link = self.free;
        self.free = self.at(link).next;
        self.free_count -= 1;
        *self.at_mut(link) = Link { dest, next };
        Some(link)
    }

    fn give_back(&mut self, link: u32) {
        self.at_mut(link).next = self.free;
        self.free = link;
        self.free_count += 1;
    }

    fn iter(&self, set: &Set) -> impl Iterator<Item = Known> + '_ {
        let mut link = set.first;
        std::iter::from_fn(move || {
            (link != END).then(|| {
                let Link { dest, next } = self.at(link);
                link = next;
                dest
            })
        })
    }

    /// Adds a dest at the front, if there is room and it isn't in it. True if so.
    fn insert(&mut self, set: &mut Set, dest: Known, now: Time) -> bool {
        if self.iter(set).any(|d| d == dest) {
            return false;
        }
        let Some(link) = self.take(dest, set.first) else {
            return false;
        };
        set.first = link;
        set.size += 1;
        set.changed = now;
        true
    }

    /// Takes a dest out that is in it.
    fn erase(&mut self, set: &mut Set, dest: Known, now: Time) {
        let (mut before, mut link) = (END, set.first);
        while link != END && self.at(link).dest != dest {
            (before, link) = (link, self.at(link).next);
        }
        if link == END {
            return;
        }
        let next = self.at(link).next;
        if before == END {
            set.first = next;
        } else {
            self.at_mut(before).next = next;
        }
        set.size -= 1;
        set.changed = now;
        self.give_back(link);
    }
}

pub(super) struct Lblcr {
    tree: Tree<Local>,
    known: KnownDests,
    cache: Cache<Set>,
    links: Links,
}

impl Lblcr {
    pub(super) fn new(pool: &Pool) -> Lblcr {
        Lblcr {
            tree: Tree::new(pool),
            known: KnownDests::new(pool),
            cache: Cache::new(),
            links: Links::new(),
        }
    }
}

/// The best by wlc of those in a set that may be chosen.
fn least(links: &Links, known: &KnownDests, pool: &Pool, set: &Set) -> Option<Slot> {
    let mut best: Option<(Ratio, Slot)> = None;
    for dest in links.iter(set) {
        let Some((Some(slot), member)) = known.get(pool, dest) else {
            continue;
        };
        if let Some(rank) = Wlc::of(member) {
            if best.is_none_or(|(least, _)| rank.less(&least)) {
                best = Some((rank, slot));
            }
        }
    }
    best.map(|(_, slot)| slot)
}

/// The worst by wlc of a set: also overloaded ones and ones no longer in the list, but none of weight 0.
fn most(links: &Links, known: &KnownDests, pool: &Pool, set: &Set) -> Option<Known> {
    let mut worst: Option<(Ratio, Known)> = None;
    for dest in links.iter(set) {
        let Some((_, member)) = known.get(pool, dest) else {
            continue;
        };
        if let Some(rank) = Ratio::of_weighted(member, member.overhead()) {
            if worst.is_none_or(|(most, _)| most.less(&rank)) {
                worst = Some((rank, dest));
            }
        }
    }
    worst.map(|(_, dest)| dest)
}

impl Scheduler for Lblcr {
    fn update(&mut self, pool: &Pool, change: &Change) {
        self.tree.update(pool, change);
        self.known.update(pool, change);
    }

    fn pick(&mut self, pool: &Pool, key: &PickKey) -> Option<Slot> {
        let now = key.now;
        let expiration = self.cache.expiration();
        let Some(set) = self.cache.get(&key.daddr, now) else {
            return self.begin_set(key);
        };
        let slot = least(&self.links, &self.known, pool, set);
        if set.size > 1 && now.0 > set.changed.0.saturating_add(expiration) {
            if let Some(dest) = most(&self.links, &self.known, pool, set) {
                self.links.erase(set, dest, now);
                self.known.release(dest);
            }
        }
        if let Some(slot) = slot {
            if !self.tree.relieves(pool.get(slot)?) {
                return Some(slot);
            }
        }
        let slot = self.tree.best()?;
        let dest = self.known.at(slot);
        if self.links.insert(set, dest, now) {
            self.known.hold(dest);
        }
        Some(slot)
    }

    fn stagger(&mut self, pool: &Pool, worker: u16, workers: u16) {
        self.tree.share(Share { worker, workers }, pool);
    }

    fn set_expiration(&mut self, expirations: Expirations) {
        self.cache.set_expiration(expirations.lblcr);
    }

    fn expire(&mut self, now: Time) {
        let (links, known) = (&mut self.links, &mut self.known);
        links.grow();
        self.cache.expire(now, |set| drop_set(links, known, set));
    }
}

impl Lblcr {
    fn begin_set(&mut self, key: &PickKey) -> Option<Slot> {
        let slot = self.tree.best()?;
        let dest = self.known.at(slot);
        let mut set = Set {
            first: END,
            size: 0,
            changed: key.now,
        };
        if self.links.insert(&mut set, dest, key.now) {
            self.known.hold(dest);
            if let Err(set) = self.cache.insert(key.daddr, set, key.now) {
                drop_set(&mut self.links, &mut self.known, set);
            }
        }
        Some(slot)
    }
}

fn drop_set(links: &mut Links, known: &mut KnownDests, set: Set) {
    let mut link = set.first;
    while link != END {
        let Link { dest, next } = links.at(link);
        known.release(dest);
        links.give_back(link);
        link = next;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{any_vaddr, compare, group, picks, to, wlc, ListChange, Model};
    use super::super::Member;
    use super::*;
    use crate::spec::SchedKind;
    use crate::types::DestId;
    use std::net::IpAddr;

    const DAY: u64 = Time::from_secs(86_400).0;

    /// ip_vs_lblcr.c: for each address its set, latest first, and when that was changed.
    #[derive(Default)]
    struct Loop {
        sets: Vec<(IpAddr, Vec<DestId>, u64)>,
        gone: Vec<Member>,
    }

    impl Model for Loop {
        fn changed(&mut self, list: &[Member], change: &ListChange) {
            match change {
                ListChange::Removed(m, _) => self.gone.push(*m),
                ListChange::Added => self.gone.retain(|m| m.id != list[0].id),
                ListChange::Edited => {}
            }
        }

        fn pick(&mut self, list: &[Member], key: &PickKey) -> Option<DestId> {
            let now = key.now.0;
            let all = || wlc(list.iter().filter(|m| !m.overloaded));
            let listed = |id: &DestId| list.iter().find(|m| m.id == *id);
            let Some((_, set, changed)) = self.sets.iter_mut().find(|s| s.0 == key.daddr) else {
                let id = all()?;
                self.sets.push((key.daddr, vec![id], now));
                return Some(id);
            };
            let least = wlc(set.iter().filter_map(listed).filter(|m| !m.overloaded));
            if set.len() > 1 && now > *changed + DAY {
                let mut most: Option<&Member> = None;
                for id in set.iter() {
                    let m = listed(id).or_else(|| self.gone.iter().find(|m| m.id == *id))?;
                    if m.weight > 0
                        && most.is_none_or(|most| {
                            most.overhead() * (m.weight as u64) < m.overhead() * most.weight as u64
                        })
                    {
                        most = Some(m);
                    }
                }
                if let Some(id) = most.map(|m| m.id) {
                    set.retain(|other| *other != id);
                    *changed = now;
                }
            }
            if let Some(m) = least.as_ref().and_then(listed) {
                let spare = |d: &Member| d.active as i32 * 2 < d.weight;
                if m.active as i32 <= m.weight || !list.iter().any(spare) {
                    return least;
                }
            }
            let id = all()?;
            if !set.contains(&id) {
                set.insert(0, id);
                *changed = now;
            }
            Some(id)
        }
    }

    #[test]
    fn picks_as_the_kernels_loop_does() {
        compare(SchedKind::Lblcr, 0, any_vaddr, Loop::default, 4000);
    }

    #[test]
    fn picks_what_the_kernel_picked() {
        let mut group = group(SchedKind::Lblcr, 0, &[(11, 4), (12, 20), (13, 5)]);
        let to_all = || (1..=8).map(|i| to([203, 0, 113, i]));
        assert_eq!(
            picks(&mut group, to_all()),
            [13, 12, 11, 12, 12, 12, 13, 12]
        );
        assert_eq!(
            picks(&mut group, [to([203, 0, 113, 1]); 24]),
            [
                13, 13, 13, 13, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 11,
                11, 11, 11
            ]
        );
        group.remove(DestId(11));
        assert_eq!(
            picks(&mut group, to_all()),
            [12, 12, 12, 12, 12, 12, 13, 12]
        );
    }

    #[test]
    fn what_sets_held_is_free_again_once_they_are_forgotten() {
        let mut pool = Pool::new();
        (0..40).for_each(|n| {
            pool.add(super::super::testing::member(n, 1));
        });
        let mut lblcr = Lblcr::new(&pool);
        for round in 0..20 {
            for n in 0..200u8 {
                let key = PickKey {
                    now: Time(round),
                    ..to([203, 0, 113, n])
                };
                let slot = lblcr.pick(&pool, &key).unwrap();
                let active = pool.get(slot).unwrap().active + 1;
                pool.set_load(slot, active % 3, 0);
                lblcr.update(&pool, &Change::Load(slot));
            }
        }
        assert!(lblcr.links.free_count < lblcr.links.chunks.len() * CHUNK - 200);
        let removed = pool.remove(pool.slot_of(DestId(3)).unwrap()).unwrap();
        lblcr.update(&pool, &Change::Removed(removed));
        assert_eq!(lblcr.known.gone(), 1);
        for minute in 0..2000 {
            (0..70).for_each(|_| lblcr.expire(Time::from_secs(60 * minute)));
        }
        let links = &lblcr.links;
        assert_eq!(links.free_count, links.chunks.len() * CHUNK);
        assert_eq!(lblcr.known.gone(), 0);
    }
}
