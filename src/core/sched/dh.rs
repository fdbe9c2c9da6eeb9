//! Destination hashing: 256 buckets dealt out to the list in turn, chosen by the destination address.

use super::pool::{Pool, Slot};
use super::{Change, PickKey, Scheduler};
use std::net::IpAddr;

pub(super) const BUCKETS: usize = 256;

pub(super) struct Dh {
    buckets: [Option<Slot>; BUCKETS],
}

impl Dh {
    pub(super) fn new(pool: &Pool) -> Dh {
        let mut dh = Dh {
            buckets: [None; BUCKETS],
        };
        dh.assign(pool);
        dh
    }

    fn assign(&mut self, pool: &Pool) {
        let mut list = pool.iter();
        for bucket in &mut self.buckets {
            let next = list.next().or_else(|| {
                list = pool.iter();
                list.next()
            });
            *bucket = next.map(|(slot, _)| slot);
        }
    }
}

impl Scheduler for Dh {
    fn update(&mut self, pool: &Pool, change: &Change) {
        // Weights don't matter to the buckets, so edits don't.
        if matches!(change, Change::Added(_) | Change::Removed(_)) {
            self.assign(pool);
        }
    }

    fn pick(&mut self, pool: &Pool, key: &PickKey) -> Option<Slot> {
        let slot = self.buckets[hash_32(fold(key.daddr)) as usize]?;
        pool.get(slot)?.available().then_some(slot)
    }
}

/// An address in 32 bits: an IPv6 address's four words, xored.
pub(super) fn fold(addr: IpAddr) -> u32 {
    match addr {
        IpAddr::V4(v4) => u32::from(v4),
        IpAddr::V6(v6) => {
            let bits = u128::from(v6);
            (bits >> 96) as u32 ^ (bits >> 64) as u32 ^ (bits >> 32) as u32 ^ bits as u32
        }
    }
}

/// The kernel's multiplicative hash of 8 bits (include/linux/hash.h).
pub(super) fn hash_32(value: u32) -> u32 {
    value.wrapping_mul(0x61C8_8647) >> 24
}

#[cfg(test)]
mod tests {
    use super::super::testing::{compare, group, picks, to, ListChange, Model, Random};
    use super::super::Member;
    use super::*;
    use crate::spec::SchedKind;
    use crate::types::DestId;
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// ip_vs_dh.c.
    #[derive(Default)]
    struct Loop(Vec<DestId>);

    impl Model for Loop {
        fn changed(&mut self, list: &[Member], _change: &ListChange) {
            self.0 = list.iter().cycle().take(256).map(|m| m.id).collect();
        }

        fn pick(&mut self, list: &[Member], key: &PickKey) -> Option<DestId> {
            let words = match key.daddr {
                IpAddr::V4(v4) => v4.octets().to_vec(),
                IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            let folded = words.chunks(4).fold(0, |fold, word| {
                fold ^ u32::from_be_bytes(word.try_into().unwrap())
            });
            let hash = folded.wrapping_mul(0x61c8_8647) >> 24;
            let id = *self.0.get(hash as usize)?;
            let m = list.iter().find(|m| m.id == id)?;
            (m.weight > 0 && !m.overloaded).then_some(id)
        }
    }

    #[test]
    fn picks_as_the_kernels_loop_does() {
        let keys = |random: &mut Random, _| {
            let n = random.below(1 << 32) as u32;
            if n & 1 == 0 {
                to(Ipv4Addr::from(n))
            } else {
                to(Ipv6Addr::from(u128::from(n) << (n & 95)))
            }
        };
        compare(SchedKind::Dh, 0, keys, Loop::default, 1500);
    }

    #[test]
    fn picks_what_the_kernel_picked() {
        let mut group = group(SchedKind::Dh, 0, &[(11, 1), (12, 2), (13, 1)]);
        let to_all = |n| (1..=n).map(|i| to([203, 0, 113, i]));
        assert_eq!(
            picks(&mut group, to_all(34)),
            [
                11, 13, 11, 13, 11, 11, 12, 13, 12, 13, 13, 11, 12, 11, 12, 11, 13, 11, 13, 12, 13,
                12, 13, 11, 11, 12, 11, 12, 11, 13, 11, 13, 11, 13
            ]
        );
        group.edit(DestId(11), 0);
        assert_eq!(
            picks(&mut group, to_all(10)),
            [0, 13, 0, 13, 0, 0, 12, 13, 12, 13]
        );
    }

    #[test]
    fn picks_what_the_kernel_picked_for_ipv6() {
        let mut group = group(SchedKind::Dh, 0, &[(11, 2), (12, 1), (13, 1)]);
        let vaddr: Ipv6Addr = "2001:db8:2::100".parse().unwrap();
        assert_eq!(picks(&mut group, [to(vaddr)]), [13]);
    }
}
