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

#[cfg(test)]
mod tests {
    use super::super::testing::{any_client, compare, from, group, picks, ListChange, Model};
    use super::super::{Group, Member};
    use super::*;
    use crate::spec::SchedKind;
    use crate::types::DestId;

    /// ip_vs_sh.c.
    #[derive(Default)]
    struct Loop {
        buckets: Vec<DestId>,
        fallback: bool,
        port: bool,
    }

    impl Model for Loop {
        fn changed(&mut self, list: &[Member], _change: &ListChange) {
            let round: Vec<DestId> = list
                .iter()
                .flat_map(|m| std::iter::repeat_n(m.id, m.weight.clamp(1, 256) as usize))
                .collect();
            self.buckets = round.iter().cycle().take(256).copied().collect();
        }

        fn pick(&mut self, list: &[Member], key: &PickKey) -> Option<DestId> {
            let (addr, port) = if key.inverse {
                (key.daddr, key.dport)
            } else {
                (key.saddr, key.sport)
            };
            let has_ports = self.port && [6, 17, 132].contains(&key.proto);
            let sum = fold(addr).wrapping_add(if has_ports { port.into() } else { 0 });
            let hash = |offset: u32| (hash_32(sum) + offset) & 255;
            let available = |hash: u32| {
                let id = *self.buckets.get(hash as usize)?;
                let m = list.iter().find(|m| m.id == id)?;
                (m.weight > 0 && !m.overloaded).then_some(id)
            };
            let ihash = hash(0);
            let tries = if self.fallback { 256 } else { 0 };
            available(ihash)
                .or_else(|| (0..tries).find_map(|offset| available(hash((offset + ihash) % 256))))
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
            compare(SchedKind::Sh, flags, any_client, model, 600);
        }
    }

    #[test]
    fn picks_what_the_kernel_picked() {
        let mut group = group(SchedKind::Sh, 0, &[(11, 1), (12, 2), (13, 3)]);
        let from_all = |n: u8| (1..=n).map(|i| from([198, 19, i, i + 7], 1000));
        assert_eq!(
            picks(&mut group, from_all(40)),
            [
                12, 12, 13, 13, 13, 13, 13, 13, 12, 12, 11, 11, 11, 13, 13, 13, 13, 12, 12, 12, 13,
                13, 13, 13, 13, 13, 12, 12, 12, 12, 11, 11, 13, 13, 13, 13, 12, 12, 12, 13
            ]
        );
        assert_eq!(picks(&mut group, [from([198, 19, 1, 8], 1001)]), [12]);
        group.edit(DestId(12), 0);
        assert_eq!(
            picks(&mut group, from_all(20)),
            [11, 13, 13, 11, 13, 11, 13, 11, 13, 13, 13, 13, 11, 13, 0, 13, 13, 13, 13, 11]
        );
        group.remove(DestId(12));
        assert_eq!(
            picks(&mut group, from_all(20)),
            [13, 13, 13, 13, 13, 11, 13, 13, 13, 13, 11, 13, 11, 13, 13, 13, 13, 11, 13, 11]
        );
    }

    #[test]
    fn picks_what_the_kernel_picked_by_port() {
        let flags = service_flags::SCHED2;
        let mut group = group(SchedKind::Sh, flags, &[(11, 1), (12, 1), (13, 2)]);
        let ports = |from_port: u16, n: u16| {
            (from_port..from_port + n).map(|port| from([198, 18, 0, 1], port))
        };
        assert_eq!(
            picks(&mut group, ports(1001, 32)),
            [
                13, 11, 13, 11, 13, 12, 13, 12, 13, 13, 11, 13, 11, 13, 12, 13, 12, 13, 13, 11, 13,
                11, 13, 12, 13, 12, 13, 12, 11, 13, 11, 13
            ]
        );
        group.edit(DestId(13), 0);
        assert_eq!(
            picks(&mut group, ports(2001, 12)),
            [12, 11, 12, 11, 12, 0, 0, 11, 0, 11, 0, 12]
        );
    }

    #[test]
    fn picks_what_the_kernel_picked_with_fallback() {
        let flags = service_flags::SCHED1;
        let mut group = group(SchedKind::Sh, flags, &[(11, 1), (12, 1), (13, 1)]);
        let from_all = |low: u8, high: u8| (low..=high).map(|i| from([198, 19, 7, i], 1000));
        assert_eq!(
            picks(&mut group, from_all(1, 16)),
            [12, 11, 12, 13, 13, 11, 13, 11, 13, 12, 13, 11, 13, 12, 11, 12]
        );
        group.edit(DestId(12), 0);
        assert_eq!(
            picks(&mut group, from_all(1, 16)),
            [11, 11, 11, 13, 13, 11, 13, 11, 13, 11, 13, 11, 13, 11, 11, 11]
        );
        group.edit(DestId(12), 1);
        group.edit(DestId(13), 1);
        assert_eq!(picks(&mut group, from_all(1, 4)), [12, 11, 12, 13]);
        group.set_overloaded(DestId(13), true);
        assert_eq!(
            picks(&mut group, from_all(5, 16)),
            [12, 11, 12, 11, 11, 12, 11, 11, 12, 12, 11, 12]
        );
    }

    #[test]
    fn picks_what_the_kernel_picked_for_ipv6() {
        let mut group = Group::new(Some(SchedKind::Sh), 0, 0, 1);
        for (n, weight) in [(11, 2), (12, 1), (13, 1)] {
            let addr = format!("2001:db8:10::{n}").parse().unwrap();
            group.add(Member::new(DestId(n), addr, 80, weight));
        }
        let clients = (1..=20).map(|i| {
            let caddr: std::net::Ipv6Addr = format!("2001:db8:19:{i}::{}", i + 5).parse().unwrap();
            from(caddr, 1000)
        });
        assert_eq!(
            picks(&mut group, clients),
            [11, 11, 13, 13, 12, 12, 12, 13, 11, 11, 11, 11, 13, 13, 13, 13, 13, 11, 11, 11]
        );
    }
}
