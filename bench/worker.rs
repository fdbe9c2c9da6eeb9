//! Workers with services, real servers and neighbours, in memory: what is measured where there is no DPDK.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ripvs_core::delta::Delta;
use ripvs_core::ledger::{Account, Ledger};
use ripvs_core::net::{IfAddr, Iface, NetConfig, NetDelta, Prefix, RouteSpec};
use ripvs_core::sched::{mh, Member};
use ripvs_core::settings::Settings;
use ripvs_core::types::{Af, DestId, IfaceId, ServiceId, Time, WorkerId};
use ripvs_core::{
    frag, service_flags, DestSpec, Forward, SchedKind, ServiceKey, ServiceSpec, TunnelCsum,
    TunnelKind, Worker, WorkerConfig,
};
use ripvs_packet::{Frame, PortId};

use crate::memory::{Pool, PoolFrame};
use crate::traffic::{self, Proto, Traffic};

/// What is measured: forwarding method, and how many real servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// How packets reach the real servers.
    pub forward: Forward,
    /// How many real servers each service has.
    pub dests: u32,
    /// The scheduler.
    pub sched: SchedKind,
    /// Most connections of a worker.
    pub connections: u32,
    /// Seconds for which clients keep their real server; 0: services are not persistent.
    pub persistent: u32,
    /// Seconds after which a connection of UDP ends.
    pub udp_timeout: u32,
    /// How many workers there are, one or two; frames come to the first.
    pub workers: u16,
}

impl Setup {
    /// What is usual: ten real servers in turn, the kernel's timeout.
    pub fn new(forward: Forward, connections: u32) -> Setup {
        Setup {
            forward,
            dests: 10,
            sched: SchedKind::Rr,
            connections,
            persistent: 0,
            udp_timeout: 300,
            workers: 1,
        }
    }
}

/// Workers with their counters.
pub struct Bench {
    /// The workers; frames come to the first.
    pub workers: Vec<Worker<PoolFrame>>,
    /// Their frames.
    pub pool: Pool,
    ledger: Ledger,
    dests: Vec<Account>,
    next_tick: u64,
}

/// What keys the workers' hashes.
pub const SEED: u64 = 0x1234_5678_9abc_def1;

/// Frames in a burst, as ripvsd takes them.
pub const BURST: usize = 32;

/// Nanoseconds between two looks at the clock's business, as ripvsd has it.
pub const TICK: u64 = 1_000_000;

impl Bench {
    /// Workers laid out for this traffic.
    ///
    /// # Errors
    /// There is not enough memory.
    pub fn new(traffic: &Traffic, setup: &Setup, now: Time) -> std::io::Result<Bench> {
        let worker = |id| {
            let config = WorkerConfig {
                id: WorkerId(id),
                workers: setup.workers,
                connections: setup.connections,
                owner_by_address: false,
                seed: SEED,
                net: NetConfig {
                    neigh_max: 65_000,
                    ..NetConfig::default()
                },
                frag: frag::Settings::default(),
            };
            Worker::new(config, now, Arc::default())
        };
        let mut bench = Bench {
            workers: (0..setup.workers).map(worker).collect::<Result<_, _>>()?,
            pool: Pool::new(4 * BURST, setup.workers > 1),
            ledger: Ledger::default(),
            dests: Vec::new(),
            next_tick: 0,
        };
        bench.surroundings(now, traffic.v6, setup);
        bench.services(now, traffic, setup);
        // What a worker announces at its start is no packet of the traffic's.
        bench.tick(now);
        bench.pool.recycle();
        Ok(bench)
    }

    fn apply(&mut self, now: Time, delta: Delta) {
        for worker in &mut self.workers {
            worker.apply(now, delta.clone());
        }
    }

    fn surroundings(&mut self, now: Time, v6: bool, setup: &Setup) {
        let addresses = match v6 {
            false => ["198.18.0.254/16", "10.0.255.254/16"],
            true => ["2001:db8:18::fe/64", "2001:db8:10::fffe/64"],
        };
        self.apply(
            now,
            Delta::Net(NetDelta::IfaceSet(Iface {
                id: IfaceId(1),
                name: "eth0".into(),
                port: Some(PortId(0)),
                vlan: None,
                mac: traffic::PORT_MAC,
                mtu: 1500,
                addresses: addresses.iter().filter_map(|text| if_addr(text)).collect(),
                up: true,
                companion: None,
            })),
        );
        let neighbour = |addr, mac| {
            Delta::Net(NetDelta::NeighSet {
                iface: IfaceId(1),
                addr,
                mac,
            })
        };
        self.apply(now, neighbour(traffic::router(v6), traffic::ROUTER_MAC));
        for n in 0..setup.dests {
            self.apply(
                now,
                neighbour(traffic::server(v6, n), traffic::server_mac(n)),
            );
        }
        let router = traffic::router(v6);
        let unspecified: IpAddr = if v6 {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        if let Some(prefix) = Prefix::new(unspecified, 0) {
            self.apply(
                now,
                Delta::Net(NetDelta::RouteAdd(RouteSpec {
                    prefix,
                    via: Some(router),
                    dev: None,
                    mtu: None,
                    from: None,
                })),
            );
        }
        let settings = Settings {
            sloppy_tcp: 1,
            ..Settings::default()
        };
        self.apply(now, Delta::Settings(settings));
        self.apply(
            now,
            Delta::Timeouts {
                tcp: 0,
                tcp_fin: 0,
                udp: setup.udp_timeout,
            },
        );
    }

    fn services(&mut self, now: Time, traffic: &Traffic, setup: &Setup) {
        for service in 0..traffic.services {
            self.apply(
                now,
                Delta::ServiceAdd {
                    id: ServiceId(service),
                    spec: Arc::new(ServiceSpec {
                        key: ServiceKey::Addr {
                            proto: if traffic.proto == Proto::Udp { 17 } else { 6 },
                            addr: traffic.service(service).0,
                            port: traffic.service(service).1,
                        },
                        sched: Some(setup.sched),
                        flags: match setup.persistent {
                            0 => 0,
                            _ => service_flags::PERSISTENT,
                        },
                        timeout: setup.persistent,
                        netmask: if traffic.v6 { 128 } else { u32::MAX },
                        pe_sip: false,
                        exact: false,
                    }),
                },
            );
            let first = service * setup.dests;
            for n in 0..setup.dests {
                let spec = Arc::new(DestSpec {
                    addr: traffic::server(traffic.v6, n),
                    port: dport(traffic, setup, service),
                    forward: setup.forward,
                    weight: 1,
                    upper: 0,
                    lower: 0,
                    tunnel: TunnelKind::Ipip,
                    tunnel_csum: TunnelCsum::None,
                });
                let tally = self.ledger.open(DestId(first + n), &spec);
                self.dests.push(tally.clone());
                self.apply(
                    now,
                    Delta::DestAdd {
                        service: ServiceId(service),
                        id: DestId(first + n),
                        spec,
                        tally,
                    },
                );
            }
            if setup.sched == SchedKind::Mh {
                let port = dport(traffic, setup, service);
                let members: Vec<Member> = (0..setup.dests)
                    .map(|n| {
                        Member::new(DestId(first + n), traffic::server(traffic.v6, n), port, 1)
                    })
                    .collect();
                let af = Af::of(traffic::router(traffic.v6));
                // Where there are too many, there is no table, and nothing is scheduled: which shows.
                if let Ok(table) = mh::Table::build(af, members.iter(), mh::TableIndex::default()) {
                    let id = ServiceId(service);
                    self.apply(now, Delta::MaglevTable { id, table });
                }
            }
        }
    }

    /// Packets that the tallies of all dests have from clients and from servers.
    pub fn tallied(&self) -> (u64, u64) {
        let snapshots = self.dests.iter().map(|tally| tally.snapshot());
        snapshots.fold((0, 0), |sum, s| {
            (sum.0 + s.in_packets, sum.1 + s.out_packets)
        })
    }

    /// One round of the first worker's loop with these frames, which it takes, and of the other's; returns how many were
    /// sent.
    #[inline]
    pub fn round(&mut self, now: Time, frames: &mut Vec<PoolFrame>) -> usize {
        self.workers[0].burst(now, PortId(0), frames, &mut self.pool);
        if now.0 >= self.next_tick {
            self.next_tick = now.0 + TICK;
            self.tick(now);
        } else {
            for worker in &mut self.workers {
                worker.catch_up(now);
            }
            self.flush(now);
        }
        self.pool.recycle()
    }

    /// Lets time pass.
    #[inline]
    pub fn tick(&mut self, now: Time) {
        for worker in &mut self.workers {
            worker.tick(now, &mut self.pool);
        }
        self.deliver(now);
    }

    /// What a round ends with.
    #[inline]
    pub fn flush(&mut self, now: Time) {
        for worker in &mut self.workers {
            worker.flush(&mut self.pool);
        }
        self.deliver(now);
    }

    /// Brings what workers have for each other.
    #[inline]
    fn deliver(&mut self, now: Time) {
        while let Some((to, msg)) = self.pool.posted.pop_front() {
            if let Some(worker) = self.workers.get_mut(usize::from(to.0)) {
                worker.deliver(now, msg, &mut self.pool);
                worker.flush(&mut self.pool);
            }
        }
    }

    /// Sends the first packet of each flow, in order, and says which real server each went to.
    ///
    /// # Errors
    /// Packets were not forwarded.
    pub fn establish(&mut self, traffic: &Traffic, now: Time) -> Result<Vec<u32>, String> {
        let mut servers = Vec::with_capacity(traffic.flows as usize);
        let mut frames = Vec::with_capacity(1);
        for flow in 0..traffic.flows {
            frames.push(self.pool.take(&traffic.request(flow)));
            self.workers[0].burst(now, PortId(0), &mut frames, &mut self.pool);
            self.flush(now);
            let sent = self.pool.sent.last();
            let sent = sent.ok_or("a first packet was not sent")?;
            let mac = &sent.head()[..6];
            servers.push(u32::from_be_bytes([0, mac[3] - 2, mac[4], mac[5]]));
            self.pool.recycle();
        }
        Ok(servers)
    }

    /// How many connections there are.
    pub fn conns(&self) -> u32 {
        self.workers.iter().map(Worker::conns).sum()
    }
}

/// The port of a service's dests.
fn dport(traffic: &Traffic, setup: &Setup, service: u32) -> u16 {
    match setup.forward {
        Forward::Masq => traffic::DPORT,
        _ => traffic.service(service).1,
    }
}

fn if_addr(text: &str) -> Option<IfAddr> {
    let (addr, len) = text.split_once('/')?;
    Some(IfAddr {
        addr: addr.parse().ok()?,
        len: len.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tick_leaves_ends_in_the_rounds_that_follow() {
        let traffic = Traffic {
            v6: false,
            proto: Proto::Udp,
            flows: 1_000,
            services: 1,
            by_port: false,
        };
        let setup = Setup {
            udp_timeout: 1,
            ..Setup::new(Forward::Route, 2_000)
        };
        let now = Time(1_000_000_000);
        let mut bench = Bench::new(&traffic, &setup, now).unwrap();
        bench.establish(&traffic, now).unwrap();
        let later = Time(now.0 + 2_000_000_000);
        bench.round(later, &mut Vec::new());
        let left = bench.conns();
        assert!(left > 100, "one tick does a bounded piece of work");
        for _ in 0..left / 32 {
            bench.round(later, &mut Vec::new());
        }
        assert_eq!(
            bench.conns(),
            0,
            "32 a round at least, with the clock standing still"
        );
    }
}
