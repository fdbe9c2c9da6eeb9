//! Which worker a packet is for: the one that owns its connection, known from the packet alone. The client's address and
//! port decide, whichever direction the packet goes, so that both directions of a NAT connection meet at one worker.

use std::net::IpAddr;

use ripvs_arch::FlowHash;

use crate::choose::TemplateKey;
use crate::spec::ServiceKey;
use crate::types::WorkerId;

/// The rule by which packets, fragments and templates find their worker: the same on every worker.
#[derive(Clone, Copy, Debug)]
pub struct Owners {
    workers: u16,
    by_address: bool,
    hash: FlowHash,
}

/// The worker that owns a client's connections where the hashes are keyed by `seed`: for measurements, which have packets
/// arrive at their owner or anywhere but there.
pub fn owner_of_client(workers: u16, seed: u64, client: IpAddr, port: u16) -> WorkerId {
    Owners::new(workers, false, seed).of_client(client, port)
}

impl Owners {
    /// A rule for that many workers. `by_address` leaves the client's port out; `seed` keys the hash.
    pub fn new(workers: u16, by_address: bool, seed: u64) -> Owners {
        Owners {
            workers,
            by_address,
            hash: FlowHash::new([seed, 0]),
        }
    }

    /// The owner of a client's connections.
    pub fn of_client(&self, client: IpAddr, port: u16) -> WorkerId {
        if self.workers == 1 {
            return WorkerId(0);
        }
        let port = if self.by_address { 0 } else { port };
        let [high, low] = words(client);
        self.worker(self.hash.words(&[high, low, u64::from(port)]))
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
        let ([src0, src1], [dst0, dst1]) = (words(src), words(dst));
        let datagram = u64::from(id) << 8 | u64::from(protocol);
        self.worker(self.hash.words(&[src0, src1, dst0, dst1, datagram]))
    }

    /// Who schedules for a service whose connections are counted at one worker: the same for a service that was deleted and
    /// comes back, whose templates and connections are still there.
    pub fn of_service(&self, key: &ServiceKey) -> WorkerId {
        if self.workers == 1 {
            return WorkerId(0);
        }
        self.worker(match *key {
            ServiceKey::Addr { proto, addr, port } => {
                let [high, low] = words(addr);
                self.hash
                    .words(&[high, low, u64::from(port) << 8 | u64::from(proto)])
            }
            ServiceKey::Mark { mark, af } => self.hash.words(&[u64::from(mark), af as u64]),
        })
    }

    /// Where a persistence template lives.
    pub fn of_template(&self, key: &TemplateKey, call_id: Option<&[u8]>) -> WorkerId {
        if self.workers == 1 {
            return WorkerId(0);
        }
        let ([vaddr0, vaddr1], [client0, client1]) = (words(key.vaddr), words(key.client));
        let port = u64::from(key.vport) << 8 | u64::from(key.proto);
        let call_id = call_id.map_or(0, |id| self.hash.bytes(id));
        self.worker(
            self.hash
                .words(&[vaddr0, vaddr1, client0, client1, port, call_id]),
        )
    }

    fn worker(&self, hash: u64) -> WorkerId {
        WorkerId(((u128::from(hash) * u128::from(self.workers)) >> 64) as u16)
    }
}

/// An address as two words, for the hash.
fn words(ip: IpAddr) -> [u64; 2] {
    match ip {
        IpAddr::V4(ip) => [u64::from(u32::from(ip)), 4],
        IpAddr::V6(ip) => [(u128::from(ip) >> 64) as u64, u128::from(ip) as u64],
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
    fn no_seed_leaves_a_worker_without_a_share_of_one_clients_ports() {
        let mut seed = 1u64;
        for _ in 0..10_000 {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            for seed in [seed, seed | seed >> 1 | seed << 1, !(seed & seed >> 3)] {
                let owners = Owners::new(3, false, seed);
                let mut counts = [0u32; 3];
                for port in 1000..1100 {
                    counts[usize::from(
                        owners.of_client(IpAddr::V4([10, 0, 0, 1].into()), port).0,
                    )] += 1;
                }
                assert!(counts.iter().all(|n| *n > 5), "{seed:x}: {counts:?}");
            }
        }
    }

    #[test]
    fn by_address_the_port_does_not_matter() {
        let owners = Owners::new(5, true, 99);
        let client = "2001:db8::1".parse().unwrap();
        assert!((0..100).all(|port| owners.of_client(client, port) == owners.of_client(client, 0)));
    }
}
