//! Maglev hashing: a table of a prime number of entries, chosen by the client's address (`mh-port`: and its port).
//!
//! Making the table costs as many steps as it has entries and more, so the control thread makes it ([`Table::build`])
//! after every change to the list of dests and hands it to the workers, who share it; until then the last one serves. It
//! should keep one until every worker has the next, so that no worker has to free it.
//! (D. E. Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4.)

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::Arc;

use super::dh::fold;
use super::pool::{Member, Pool, Slot};
use super::wrr::gcd;
use super::{Change, PickKey, Scheduler};
use crate::spec::service_flags;
use crate::types::{Af, DestId};

/// How large a table is: about two to the power of this, from 8 to 17 (the kernel's `CONFIG_IP_VS_MH_TAB_INDEX`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableIndex(u8);

impl TableIndex {
    /// `None` if the index is not between 8 and 17.
    pub fn new(index: u8) -> Option<TableIndex> {
        (8..=17).contains(&index).then_some(TableIndex(index))
    }

    /// How many entries the table has: a prime.
    pub fn entries(self) -> u32 {
        const PRIMES: [u32; 10] = [
            251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131_071,
        ];
        PRIMES[usize::from(self.0 - 8)]
    }

    /// How many turns in a row the heaviest dest may have, in bits.
    fn turn_bits(self) -> u32 {
        u32::from(self.0) / 2
    }
}

impl Default for TableIndex {
    /// 12: 4093 entries.
    fn default() -> TableIndex {
        TableIndex(12)
    }
}

/// More dests than a table has entries: the kernel refuses to set mh for them (`EINVAL`), and where mh is set already,
/// keeps the table it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyDests {
    /// How many dests there are.
    pub dests: usize,
    /// How many there may be.
    pub entries: u32,
}

impl std::fmt::Display for TooManyDests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} dests do not fit in a Maglev table of {} entries",
            self.dests, self.entries
        )
    }
}

impl std::error::Error for TooManyDests {}

/// Which dest each hash belongs to.
#[derive(Debug)]
pub struct Table {
    /// Empty where there is no dest that ever had a weight.
    entries: Box<[Entry]>,
}

/// A dest, and the slot at which a worker last found it: the same, most likely, for all of them.
#[derive(Debug)]
struct Entry {
    id: DestId,
    slot: AtomicU32,
}

impl Entry {
    fn slot(&self, pool: &Pool) -> Option<Slot> {
        let last = Slot(self.slot.load(Relaxed));
        let slot = pool.find(self.id, last)?;
        if slot != last {
            self.slot.store(slot.0, Relaxed);
        }
        Some(slot)
    }
}

/// Where a dest is in filling its entries.
struct Turn {
    id: DestId,
    next: u32,
    skip: u32,
    turns: u32,
}

impl Table {
    /// The table of a service of that family for its dests, head first. It goes by their addresses, ports and
    /// `last_weight`, not by what else they are.
    ///
    /// # Errors
    /// There are more dests than entries.
    pub fn build<'a>(
        af: Af,
        dests: impl Iterator<Item = &'a Member>,
        index: TableIndex,
    ) -> Result<Arc<Table>, TooManyDests> {
        let dests: Vec<&Member> = dests.collect();
        let size = index.entries();
        if dests.len() > size as usize {
            return Err(TooManyDests {
                dests: dests.len(),
                entries: size,
            });
        }
        let weight = |m: &&Member| m.last_weight.max(0).unsigned_abs();
        let step = dests.iter().map(weight).fold(0, gcd);
        if step == 0 {
            return Ok(Arc::new(Table {
                entries: Box::new([]),
            }));
        }
        let most = dests.iter().map(weight).max().unwrap_or(0) / step;
        let shift = (u32::BITS - most.leading_zeros()).saturating_sub(index.turn_bits());
        let mut list: Vec<Turn> = dests
            .iter()
            .filter(|m| m.last_weight > 0)
            .map(|m| Turn {
                id: m.id,
                next: hash(af, m.addr, m.port, 0, FIRST) % size,
                skip: hash(af, m.addr, m.port, 0, SECOND) % (size - 1) + 1,
                turns: ((weight(m) / step) >> shift).max(1),
            })
            .collect();
        let mut entries: Vec<Option<DestId>> = vec![None; size as usize];
        let mut left = size;
        while left > 0 {
            for dest in &mut list {
                for _ in 0..dest.turns.min(left) {
                    while entries[dest.next as usize].is_some() {
                        dest.next = (dest.next + dest.skip) % size;
                    }
                    entries[dest.next as usize] = Some(dest.id);
                    left -= 1;
                }
            }
        }
        Ok(Arc::new(Table {
            entries: entries
                .into_iter()
                .flatten()
                .map(|id| Entry {
                    id,
                    slot: AtomicU32::new(0),
                })
                .collect(),
        }))
    }
}

pub(super) struct Mh {
    table: Option<Arc<Table>>,
    fallback: bool,
    port: bool,
}

impl Mh {
    pub(super) fn new(flags: u32) -> Mh {
        let mut mh = Mh {
            table: None,
            fallback: false,
            port: false,
        };
        mh.set_flags(flags);
        mh
    }
}

/// The dest of an entry: `None` if there is none, `Some(None)` if it may not be chosen.
fn at(table: &Table, pool: &Pool, hash: u32) -> Option<Option<Slot>> {
    let entry = hash.checked_rem(table.entries.len() as u32)?;
    let slot = table.entries.get(entry as usize)?.slot(pool)?;
    Some(Some(slot).filter(|slot| pool.get(*slot).is_some_and(Member::available)))
}

impl Scheduler for Mh {
    fn update(&mut self, _pool: &Pool, change: &Change) {
        if let Change::Table(table) = change {
            self.table = Some(Arc::clone(table));
        }
    }

    fn pick(&mut self, pool: &Pool, key: &PickKey) -> Option<Slot> {
        let table = self.table.as_deref()?;
        let size = table.entries.len() as u32;
        let addr = key.caddr();
        let af = Af::of(addr);
        let port = if self.port { key.client_port() } else { 0 };
        let first = hash(af, addr, port, 0, FIRST);
        let slot = at(table, pool, first)?;
        if slot.is_some() || !self.fallback || !pool.has_available() {
            return slot;
        }
        // The kernel's order, in which no step can be left out: as many as it takes to meet one that may be chosen, which is
        // few unless almost none may. An entry without a dest ends it.
        let start = first % size;
        (0..size)
            .map_while(|offset| {
                at(
                    table,
                    pool,
                    hash(af, addr, port, (start + offset) % size, FIRST),
                )
            })
            .flatten()
            .next()
    }

    fn set_flags(&mut self, flags: u32) {
        self.fallback = flags & service_flags::SCHED1 != 0;
        self.port = flags & service_flags::SCHED2 != 0;
    }
}

/// The key by which clients and dests' first entries are hashed, and that for their steps: both halves of each.
const FIRST: u64 = 2_654_435_761;
const SECOND: u64 = 2_654_446_892;

/// The kernel's hash of an address and port: SipHash-1-3 of their sum, with a fixed key.
fn hash(af: Af, addr: IpAddr, port: u16, offset: u32, key: u64) -> u32 {
    let addr = match (af, addr) {
        // A tunnel's IPv6 dest of an IPv4 service: the kernel takes the first word as if it were an address.
        (Af::V4, IpAddr::V6(v6)) => (u128::from(v6) >> 96) as u32,
        _ => fold(addr),
    };
    sip13(offset.wrapping_add(u32::from(port)).wrapping_add(addr), key)
}

/// SipHash-1-3 of four bytes in little-endian order, as the kernel's `hsiphash` is on 64-bit machines; `key` is both halves
/// of its key. (J.-P. Aumasson, D. J. Bernstein, "SipHash: a fast short-input PRF", 2012.)
fn sip13(value: u32, key: u64) -> u32 {
    let mut v = [
        0x736f_6d65_7073_6575 ^ key,
        0x646f_7261_6e64_6f6d ^ key,
        0x6c79_6765_6e65_7261 ^ key,
        0x7465_6462_7974_6573 ^ key,
    ];
    let round = |v: &mut [u64; 4]| {
        v[0] = v[0].wrapping_add(v[1]);
        v[1] = v[1].rotate_left(13) ^ v[0];
        v[0] = v[0].rotate_left(32);
        v[2] = v[2].wrapping_add(v[3]);
        v[3] = v[3].rotate_left(16) ^ v[2];
        v[0] = v[0].wrapping_add(v[3]);
        v[3] = v[3].rotate_left(21) ^ v[0];
        v[2] = v[2].wrapping_add(v[1]);
        v[1] = v[1].rotate_left(17) ^ v[2];
        v[2] = v[2].rotate_left(32);
    };
    let block = 4 << 56 | u64::from(value);
    v[3] ^= block;
    round(&mut v);
    v[0] ^= block;
    v[2] ^= 0xff;
    for _ in 0..3 {
        round(&mut v);
    }
    (v[0] ^ v[1] ^ v[2] ^ v[3]) as u32
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        any_client, compare, from, give_table, group, member, picks, ListChange, Model,
    };
    use super::super::Group;
    use super::*;
    use crate::spec::SchedKind;

    /// ip_vs_mh.c with a table of 251.
    #[derive(Default)]
    struct Loop {
        table: Vec<DestId>,
        fallback: bool,
        port: bool,
    }

    fn slow_table(list: &[Member], size: u32, bits: u32) -> Vec<DestId> {
        let weights = || list.iter().map(|m| m.last_weight).filter(|w| *w > 0);
        let Some(most) = weights().max() else {
            return vec![];
        };
        let divides = |d: &i32| weights().all(|w| w % d == 0);
        let gcd = (1..=most).rev().find(divides).unwrap();
        let shift = ((most / gcd).ilog2() + 1).saturating_sub(bits);
        let mut table = vec![None; size as usize];
        let mut tried = vec![0; list.len()];
        let mut filled = 0;
        while filled < size {
            for (m, tried) in list.iter().zip(&mut tried) {
                let turns = match (m.last_weight / gcd) >> shift {
                    0 => i32::from(m.last_weight != 0),
                    turns => turns,
                };
                for _ in 0..turns {
                    let preferred = |j: u32| {
                        let offset = hash(Af::V4, m.addr, m.port, 0, FIRST) % size;
                        let skip = hash(Af::V4, m.addr, m.port, 0, SECOND) % (size - 1) + 1;
                        ((u64::from(offset) + u64::from(j) * u64::from(skip)) % u64::from(size))
                            as usize
                    };
                    while filled < size && table[preferred(*tried)].is_some() {
                        *tried += 1;
                    }
                    if filled < size {
                        table[preferred(*tried)] = Some(m.id);
                        filled += 1;
                    }
                }
            }
        }
        table.into_iter().flatten().collect()
    }

    impl Model for Loop {
        fn changed(&mut self, list: &[Member], _change: &ListChange) {
            self.table = slow_table(list, 251, 4);
        }

        fn pick(&mut self, list: &[Member], key: &PickKey) -> Option<DestId> {
            if self.table.is_empty() {
                return None;
            }
            let (addr, port) = if key.inverse {
                (key.daddr, key.dport)
            } else {
                (key.saddr, key.sport)
            };
            let has_ports = self.port && [6, 17, 132].contains(&key.proto);
            let sum = fold(addr).wrapping_add(if has_ports { port.into() } else { 0 });
            let available = |offset: u32| {
                let hash = sip13(sum.wrapping_add(offset), FIRST) % 251;
                let id = self.table[hash as usize];
                let m = list.iter().find(|m| m.id == id)?;
                (m.weight > 0 && !m.overloaded).then_some(id)
            };
            let ihash = sip13(sum, FIRST) % 251;
            let tries = if self.fallback { 251 } else { 0 };
            available(0).or_else(|| (0..tries).find_map(|offset| available((offset + ihash) % 251)))
        }
    }

    #[test]
    fn picks_as_the_kernels_loop_does() {
        for flags in [0, 0x8, 0x10, 0x18] {
            let model = || Loop {
                fallback: flags & 0x8 != 0,
                port: flags & 0x10 != 0,
                ..Loop::default()
            };
            compare(SchedKind::Mh, flags, any_client, model, 300);
        }
    }

    #[test]
    fn picks_what_the_kernel_picked() {
        let mut group = group(SchedKind::Mh, 0, &[(11, 1), (12, 2), (13, 3)]);
        give_table(&mut group, TableIndex::default());
        let from_all = |n: u8| (1..=n).map(|i| from([198, 19, i, i + 3], 1000));
        assert_eq!(
            picks(&mut group, from_all(40)),
            [
                13, 11, 12, 13, 13, 11, 12, 12, 13, 13, 13, 13, 12, 13, 13, 13, 11, 13, 13, 13, 12,
                12, 13, 12, 12, 13, 13, 13, 11, 13, 11, 13, 12, 13, 13, 13, 12, 12, 12, 13
            ]
        );
        group.edit(DestId(13), 0);
        give_table(&mut group, TableIndex::default());
        assert_eq!(
            picks(&mut group, from_all(16)),
            [0, 11, 12, 0, 0, 11, 12, 12, 0, 0, 0, 0, 12, 0, 0, 0]
        );
        group.remove(DestId(13));
        give_table(&mut group, TableIndex::default());
        assert_eq!(
            picks(&mut group, from_all(16)),
            [12, 11, 12, 12, 12, 11, 12, 12, 12, 11, 11, 12, 12, 12, 12, 12]
        );
    }

    #[test]
    fn picks_what_the_kernel_picked_by_port_with_fallback() {
        let flags = service_flags::SCHED1 | service_flags::SCHED2;
        let mut group = group(SchedKind::Mh, flags, &[(11, 1), (12, 1), (13, 1), (14, 1)]);
        give_table(&mut group, TableIndex::default());
        let ports = |from_port: u16, n: u16| {
            (from_port..from_port + n).map(|port| from([198, 18, 0, 1], port))
        };
        assert_eq!(
            picks(&mut group, ports(1001, 32)),
            [
                12, 11, 14, 12, 14, 11, 11, 11, 14, 13, 12, 14, 11, 13, 12, 14, 11, 14, 11, 14, 12,
                12, 14, 12, 11, 11, 13, 12, 11, 13, 13, 12
            ]
        );
        group.edit(DestId(14), 0);
        give_table(&mut group, TableIndex::default());
        assert_eq!(
            picks(&mut group, ports(2001, 24)),
            [
                11, 13, 11, 12, 11, 11, 13, 12, 13, 12, 12, 12, 11, 13, 13, 11, 11, 13, 11, 13, 11,
                11, 11, 13
            ]
        );
    }

    #[test]
    fn every_size_is_filled_by_the_weights() {
        for index in 8..=17 {
            let index = TableIndex::new(index).unwrap();
            let mut pool = Pool::new();
            for (n, weight) in [(1, 100), (2, 300), (3, 0), (4, 600), (5, 1000)] {
                pool.add(member(n, weight));
            }
            let list: Vec<Member> = pool.iter().map(|(_, m)| *m).collect();
            let table = Table::build(Af::V4, list.iter(), index).unwrap();
            assert_eq!(table.entries.len(), index.entries() as usize);
            let share = |n: u32| {
                let count = table.entries.iter().filter(|e| e.id.0 == n).count();
                (count * 20) as f64 / table.entries.len() as f64
            };
            for (n, expected) in [(1, 1.0), (2, 3.0), (3, 0.0), (4, 6.0), (5, 10.0)] {
                assert!((share(n) - expected).abs() < 0.8, "{n}: {}", share(n));
            }
            let ids: Vec<DestId> = table.entries.iter().map(|entry| entry.id).collect();
            assert_eq!(ids, slow_table(&list, index.entries(), index.turn_bits()));
        }
        assert_eq!((TableIndex::new(7), TableIndex::new(18)), (None, None));
    }

    #[test]
    fn more_dests_than_entries_are_refused() {
        let list: Vec<Member> = (0..252).map(|n| member(n, 1)).collect();
        let index = TableIndex::new(8).unwrap();
        assert!(Table::build(Af::V4, list[..251].iter(), index).is_ok());
        let refused = Table::build(Af::V4, list.iter(), index);
        assert_eq!(
            refused.err(),
            Some(TooManyDests {
                dests: 252,
                entries: 251
            })
        );
    }

    #[test]
    fn without_a_dest_that_ever_had_a_weight_nobody_is_picked() {
        let mut group = group(SchedKind::Mh, 0, &[(1, 0)]);
        assert_eq!(picks(&mut group, [from([198, 18, 0, 1], 1)]), [0]);
        give_table(&mut group, TableIndex::default());
        assert_eq!(picks(&mut group, [from([198, 18, 0, 1], 1)]), [0]);
    }

    #[test]
    fn an_ipv6_dest_of_an_ipv4_service_is_hashed_by_its_first_word() {
        let v6 = "2001:db8::7".parse().unwrap();
        let v4 = IpAddr::from([0x20, 0x01, 0x0d, 0xb8]);
        let key = |af, addr| hash(af, addr, 80, 0, FIRST);
        assert_eq!(key(Af::V4, v6), key(Af::V4, v4));
        assert_ne!(key(Af::V6, v6), key(Af::V4, v4));
    }

    #[test]
    fn picks_what_the_kernel_picked_for_ipv6() {
        let mut group = Group::new(Some(SchedKind::Mh), 0, 0, 1);
        for (n, weight) in [(11, 2), (12, 1), (13, 1)] {
            let addr = format!("2001:db8:10::{n}").parse().unwrap();
            group.add(Member::new(DestId(n), addr, 80, weight));
        }
        let dests = group.pool().iter().map(|(_, m)| m);
        let table = Table::build(Af::V6, dests, TableIndex::default()).unwrap();
        group.set_table(table);
        let clients = (1..=20).map(|i| {
            let caddr: std::net::Ipv6Addr = format!("2001:db8:19:{i}::{}", i + 5).parse().unwrap();
            from(caddr, 1000)
        });
        assert_eq!(
            picks(&mut group, clients),
            [11, 12, 12, 11, 13, 12, 13, 11, 11, 12, 11, 12, 12, 11, 11, 11, 11, 11, 11, 12]
        );
    }
}
