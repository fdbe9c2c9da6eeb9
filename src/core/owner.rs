//! Which worker a packet is for: the one that owns its connection, known from the packet alone. The client's address and
//! port decide, whichever direction the packet goes, so that both directions of a NAT connection meet at one worker.

use std::net::IpAddr;

use crate::choose::TemplateKey;
use crate::spec::ServiceKey;
use crate::types::WorkerId;

/// The rule by which packets, fragments and templates find their worker: the same on every worker.
#[derive(Clone, Copy, Debug)]
pub struct Owners {
    workers: u16,
    by_address: bool,
    seed: u64,
}

impl Owners {
    /// A rule for that many workers. `by_address` leaves the client's port out; `seed` keys the hash.
    pub fn new(workers: u16, by_address: bool, seed: u64) -> Owners {
        Owners {
            workers,
            by_address,
            seed,
        }
    }

    /// The owner of a client's connections.
    pub fn of_client(&self, client: IpAddr, port: u16) -> WorkerId {
        if self.workers == 1 {
            return WorkerId(0);
        }
        let port = if self.by_address { 0 } else { port };
        self.worker(self.mix(self.mix_ip(self.seed, client), u64::from(port)))
    }

    /// Where a client's FTP data connections are expected whose port is not known yet.
    pub fn of_expected(&self, client: IpAddr) -> WorkerId {
        self.of_client(client, 0)
    }

    /// Who gathers the fragments of a datagram.
    pub fn of_fragments(&self, src: IpAddr, dst: IpAddr, id: u32, protocol: u8) -> WorkerId {
        if self.workers == 1 {
            return WorkerId(0);
        }
        let hash = self.mix_ip(self.mix_ip(self.seed, src), dst);
        self.worker(self.mix(hash, u64::from(id) << 8 | u64::from(protocol)))
    }

    /// Who schedules for a service whose connections are counted at one worker: the same for a service that was deleted and
    /// comes back, whose templates and connections are still there.
    pub fn of_service(&self, key: &ServiceKey) -> WorkerId {
        if self.workers == 1 {
            return WorkerId(0);
        }
        self.worker(match *key {
            ServiceKey::Addr { proto, addr, port } => self.mix(
                self.mix_ip(self.seed, addr),
                u64::from(port) << 8 | u64::from(proto),
            ),
            ServiceKey::Mark { mark, af } => self.mix(self.seed, u64::from(mark) << 8 | af as u64),
        })
    }

    /// Where a persistence template lives.
    pub fn of_template(&self, key: &TemplateKey, call_id: Option<&[u8]>) -> WorkerId {
        if self.workers == 1 {
            return WorkerId(0);
        }
        let mut hash = self.mix_ip(self.seed, key.vaddr);
        hash = self.mix(hash, u64::from(key.vport) << 8 | u64::from(key.proto));
        hash = self.mix_ip(hash, key.client);
        for byte in call_id.unwrap_or_default() {
            hash = self.mix(hash, u64::from(*byte));
        }
        self.worker(hash)
    }

    fn mix_ip(&self, hash: u64, ip: IpAddr) -> u64 {
        match ip {
            IpAddr::V4(ip) => self.mix(hash, u64::from(u32::from(ip))),
            IpAddr::V6(ip) => {
                let bits = u128::from(ip);
                self.mix(self.mix(hash, (bits >> 64) as u64), bits as u64)
            }
        }
    }

    /// Folds the product of two odd-ish words, as wyhash does: enough to spread clients that count up.
    fn mix(&self, hash: u64, value: u64) -> u64 {
        let product = u128::from(hash ^ value ^ 0x9e37_79b9_7f4a_7c15)
            * u128::from(self.seed | 0xd6e8_feb8_6659_fd93);
        (product >> 64) as u64 ^ product as u64
    }

    fn worker(&self, hash: u64) -> WorkerId {
        WorkerId(((u128::from(hash) * u128::from(self.workers)) >> 64) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_count_up_are_spread_evenly() {
        for workers in [2u16, 3, 7] {
            let owners = Owners::new(workers, false, 0x1234_5678_9abc_def1);
            let mut counts = vec![0u32; usize::from(workers)];
            for n in 0..30_000u32 {
                let client = IpAddr::V4((0x0a00_0000 + n / 10).into());
                counts[usize::from(owners.of_client(client, 1024 + (n % 10) as u16).0)] += 1;
            }
            let fair = 30_000 / u32::from(workers);
            assert!(
                counts.iter().all(|n| n.abs_diff(fair) < fair / 10),
                "{counts:?}"
            );
        }
    }

    #[test]
    fn by_address_the_port_does_not_matter() {
        let owners = Owners::new(5, true, 99);
        let client = "2001:db8::1".parse().unwrap();
        assert!((0..100).all(|port| owners.of_client(client, port) == owners.of_client(client, 0)));
    }
}
