//! Source hashing: 256 buckets dealt out to the list in turn, as many in a row as a weight is, chosen by the client's
//! address (`sh-port`: and its port). Without `sh-fallback` a client whose server may not be chosen has none.

use super::dh::{fold, hash_32, BUCKETS};
use super::pool::{Pool, Slot};
use super::{Change, PickKey, Scheduler};
use crate::spec::service_flags;

pub(super) struct Sh {
    buckets: [Option<Slot>; BUCKETS],
    fallback: bool,
    port: bool,
}

impl Sh {
    pub(super) fn new(pool: &Pool, flags: u32) -> Sh {
        let mut sh = Sh {
            buckets: [None; BUCKETS],
            fallback: false,
            port: false,
        };
        sh.set_flags(flags);
        sh.assign(pool);
        sh
    }

    fn assign(&mut self, pool: &Pool) {
        let mut list = pool.iter();
        let mut current = None;
        let mut left = 0;
        for bucket in &mut self.buckets {
            if left == 0 {
                let next = list.next().or_else(|| {
                    list = pool.iter();
                    list.next()
                });
                current = next.map(|(slot, _)| slot);
                // Weight 0 gets a bucket too, and its clients no server.
                left = next.map_or(0, |(_, member)| member.weight.max(1));
            }
            *bucket = current;
            left -= 1;
        }
    }

    fn available(&self, pool: &Pool, bucket: usize) -> Option<Slot> {
        let slot = self.buckets[bucket]?;
        pool.get(slot)?.available().then_some(slot)
    }
}

impl Scheduler for Sh {
    fn update(&mut self, pool: &Pool, change: &Change) {
        if change.is_of_list() {
            self.assign(pool);
        }
    }

    fn pick(&mut self, pool: &Pool, key: &PickKey) -> Option<Slot> {
        let port = if self.port { key.client_port() } else { 0 };
        let hash = hash_32(fold(key.caddr()).wrapping_add(u32::from(port))) as usize;
        let slot = self.available(pool, hash);
        if slot.is_some() || !self.fallback {
            return slot;
        }
        // The kernel's order: it adds the hash to itself, and goes on from there.
        (0..BUCKETS).find_map(|offset| self.available(pool, (2 * hash + offset) % BUCKETS))
    }

    fn set_flags(&mut self, flags: u32) {
        self.fallback = flags & service_flags::SCHED1 != 0;
        self.port = flags & service_flags::SCHED2 != 0;
    }
}
