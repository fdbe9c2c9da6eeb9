//! One worker with services, real servers and neighbours, in memory: what `micro` measures.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ripvs_arch::clock::now_ns;
use ripvs_core::delta::Delta;
use ripvs_core::net::{IfAddr, Iface, NetConfig, NetDelta, Prefix, RouteSpec};
use ripvs_core::settings::Settings;
use ripvs_core::tally::Tally;
use ripvs_core::types::{DestId, IfaceId, ServiceId, Time, WorkerId};
use ripvs_core::{
    frag, DestSpec, Forward, SchedKind, ServiceKey, ServiceSpec, TunnelCsum, TunnelKind, Worker,
    WorkerConfig,
};
use ripvs_packet::PortId;

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
    /// Most connections.
    pub connections: u32,
}

/// A worker with its counters.
pub struct Bench {
    /// The worker.
    pub worker: Worker<PoolFrame>,
    /// Its frames.
    pub pool: Pool,
    dests: Vec<Arc<Tally>>,
    next_tick: u64,
}

/// Frames in a burst, as ripvsd takes them.
pub const BURST: usize = 32;

/// Nanoseconds between two looks at the clock's business, as ripvsd has it.
const TICK: u64 = 1_000_000;

impl Bench {
    /// A worker laid out for this traffic.
    ///
    /// # Errors
    /// There is not enough memory.
    pub fn new(traffic: &Traffic, setup: &Setup) -> std::io::Result<Bench> {
        let config = WorkerConfig {
            id: WorkerId(0),
            workers: 1,
            connections: setup.connections,
            owner_by_address: false,
            seed: 0x1234_5678_9abc_def1,
            net: NetConfig {
                neigh_max: 65_000,
                ..NetConfig::default()
            },
            frag: frag::Settings::default(),
        };
        let now = Time(now_ns());
        let mut bench = Bench {
            worker: Worker::new(config, now, Arc::default())?,
            pool: Pool::new(4 * BURST),
            dests: Vec::new(),
            next_tick: 0,
        };
        bench.surroundings(traffic.v6, setup);
        bench.services(traffic, setup);
        Ok(bench)
    }

    fn apply(&mut self, delta: Delta) {
        self.worker.apply(Time(now_ns()), delta);
    }

    fn surroundings(&mut self, v6: bool, setup: &Setup) {
        let addresses = match v6 {
            false => ["198.18.0.254/16", "10.0.255.254/16"],
            true => ["2001:db8:18::fe/64", "2001:db8:10::fffe/64"],
        };
        self.apply(Delta::Net(NetDelta::IfaceSet(Iface {
            id: IfaceId(1),
            name: "eth0".into(),
            port: Some(PortId(0)),
            vlan: None,
            mac: traffic::PORT_MAC,
            mtu: 1500,
            addresses: addresses.iter().filter_map(|text| if_addr(text)).collect(),
            up: true,
            companion: None,
        })));
        let neighbour = |addr, mac| {
            Delta::Net(NetDelta::NeighSet {
                iface: IfaceId(1),
                addr,
                mac,
            })
        };
        self.apply(neighbour(traffic::router(v6), traffic::ROUTER_MAC));
        for n in 0..setup.dests {
            self.apply(neighbour(traffic::server(v6, n), traffic::server_mac(n)));
        }
        let router = traffic::router(v6);
        let unspecified: IpAddr = if v6 {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        if let Some(prefix) = Prefix::new(unspecified, 0) {
            self.apply(Delta::Net(NetDelta::RouteAdd(RouteSpec {
                prefix,
                via: Some(router),
                dev: None,
                mtu: None,
                from: None,
            })));
        }
        let settings = Settings {
            sloppy_tcp: 1,
            ..Settings::default()
        };
        self.apply(Delta::Settings(settings));
    }

    fn services(&mut self, traffic: &Traffic, setup: &Setup) {
        for service in 0..traffic.services {
            self.apply(Delta::ServiceAdd {
                id: ServiceId(service),
                spec: Arc::new(ServiceSpec {
                    key: ServiceKey::Addr {
                        proto: if traffic.proto == Proto::Udp { 17 } else { 6 },
                        addr: traffic::vip(traffic.v6),
                        port: traffic.vport(service),
                    },
                    sched: Some(setup.sched),
                    flags: 0,
                    timeout: 0,
                    netmask: if traffic.v6 { 128 } else { u32::MAX },
                    pe_sip: false,
                    exact: false,
                }),
                tally: Arc::default(),
            });
            for n in 0..setup.dests {
                let tally = Arc::<Tally>::default();
                self.dests.push(tally.clone());
                self.apply(Delta::DestAdd {
                    service: ServiceId(service),
                    id: DestId(service * setup.dests + n),
                    spec: Arc::new(DestSpec {
                        addr: traffic::server(traffic.v6, n),
                        port: match setup.forward {
                            Forward::Masq => traffic::DPORT,
                            _ => traffic.vport(service),
                        },
                        forward: setup.forward,
                        weight: 1,
                        upper: 0,
                        lower: 0,
                        tunnel: TunnelKind::Ipip,
                        tunnel_csum: TunnelCsum::None,
                    }),
                    tally,
                });
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

    /// One round of the worker's loop with these frames, which it takes; returns how many it sent.
    #[inline]
    pub fn round(&mut self, frames: &mut Vec<PoolFrame>) -> usize {
        let now = Time(now_ns());
        self.worker.burst(now, PortId(0), frames, &mut self.pool);
        if now.0 >= self.next_tick {
            self.next_tick = now.0 + TICK;
            self.worker.tick(now, &mut self.pool);
        } else {
            self.worker.flush(&mut self.pool);
        }
        self.pool.recycle()
    }
}

fn if_addr(text: &str) -> Option<IfAddr> {
    let (addr, len) = text.split_once('/')?;
    Some(IfAddr {
        addr: addr.parse().ok()?,
        len: len.parse().ok()?,
    })
}
