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
        if change.is_of_list() {
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
