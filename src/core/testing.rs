//! A balancer in memory, for tests: any number of workers, the kernel oracle's two-armed surroundings (clients on port 0,
//! real servers on port 1, virtual addresses on lo), a clock handed in. After every frame the sum of verdicts must hold.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use ripvs_packet::memory::{MemFrame, MemIo};
use ripvs_packet::{PacketIo, PortId};

use crate::delta::{ConnEntry, Delta};
use crate::ledger::{Ledger, Line};
use crate::message::Msg;
use crate::net::{IfAddr, Iface, NetConfig, NetDelta, LO};
use crate::spec::{
    service_flags, DestSpec, Forward, SchedKind, ServiceKey, ServiceSpec, TunnelCsum, TunnelKind,
};
use crate::tally::TallySnapshot;
use crate::types::{DestId, IfaceId, ServiceId, Time, WorkerId};
use crate::verdict::Counters;
use crate::worker::{Post, Worker, WorkerConfig};

/// The MAC address of interface `n` of the balancer.
pub fn mac(n: u16) -> [u8; 6] {
    [2, 0, 0, 0, 0, n as u8 + 1]
}

struct Io<'a> {
    mem: &'a mut MemIo,
    rings: &'a mut VecDeque<(WorkerId, Msg<MemFrame>)>,
}

impl PacketIo for Io<'_> {
    type Frame = MemFrame;

    fn alloc(&mut self, bytes: &[u8]) -> Option<MemFrame> {
        self.mem.alloc(bytes)
    }

    fn transmit(&mut self, port: PortId, frame: MemFrame) {
        self.mem.transmit(port, frame);
    }
}

impl Post<MemFrame> for Io<'_> {
    fn post(&mut self, to: WorkerId, msg: Msg<MemFrame>) -> Result<(), Msg<MemFrame>> {
        self.rings.push_back((to, msg));
        Ok(())
    }
}

/// The balancer and its surroundings.
pub struct Rig {
    pub workers: Vec<Worker<MemFrame>>,
    mem: MemIo,
    rings: VecDeque<(WorkerId, Msg<MemFrame>)>,
    /// The moment; tests move it.
    pub now: Time,
    next_worker: usize,
    services: u32,
    dests: u32,
    /// By worker.
    ledgers: Vec<Ledger>,
}

impl Rig {
    /// A balancer with that many workers.
    pub fn new(workers: u16) -> Rig {
        let worker = |id: u16| {
            let config = WorkerConfig {
                id: WorkerId(id),
                workers,
                connections: 4096,
                owner_by_address: false,
                seed: 0x1234_5678_9abc_def1,
                net: NetConfig {
                    resolver: id == 0,
                    icmp_limit: None,
                    ..NetConfig::default()
                },
                frag: crate::frag::Settings::default(),
            };
            Worker::new(config, Time(0), Arc::default()).unwrap()
        };
        let mut rig = Rig {
            workers: (0..workers).map(worker).collect(),
            mem: MemIo::new(),
            rings: VecDeque::new(),
            now: Time::from_secs(1),
            next_worker: 0,
            services: 0,
            dests: 0,
            ledgers: (0..workers).map(|_| Ledger::default()).collect(),
        };
        let addr = |text: &str| {
            let (addr, len) = text.split_once('/').unwrap();
            IfAddr {
                addr: addr.parse().unwrap(),
                len: len.parse().unwrap(),
            }
        };
        for (n, addresses) in [
            ["198.18.0.254/24", "2001:db8:18::fe/64"],
            ["10.0.0.254/24", "2001:db8:10::fe/64"],
        ]
        .iter()
        .enumerate()
        {
            rig.apply(Delta::Net(NetDelta::IfaceSet(Iface {
                id: IfaceId(n as u16 + 1),
                name: format!("eth{n}"),
                port: Some(PortId(n as u16)),
                vlan: None,
                mac: mac(n as u16),
                mtu: 1500,
                addresses: addresses.iter().map(|text| addr(text)).collect(),
                up: true,
                companion: None,
            })));
        }
        for text in ["192.0.2.100/32", "192.0.2.101/32", "2001:db8:2::100/128"] {
            rig.apply(Delta::Net(NetDelta::AddrAdd {
                iface: LO,
                addr: addr(text),
            }));
        }
        for n in 1..10u8 {
            rig.neighbour(1, format!("198.18.0.{n}"), [2, 0, 0, 0, 1, n]);
            rig.neighbour(1, format!("2001:db8:18::{n}"), [2, 0, 0, 0, 1, n]);
            rig.neighbour(2, format!("10.0.0.{}", n + 10), [2, 0, 0, 0, 2, n]);
            rig.neighbour(
                2,
                format!("2001:db8:10::{:x}", n + 0x10),
                [2, 0, 0, 0, 2, n],
            );
        }
        rig
    }

    fn neighbour(&mut self, iface: u16, addr: String, mac: [u8; 6]) {
        let addr = addr.parse().unwrap();
        self.apply(Delta::Net(NetDelta::NeighSet {
            iface: IfaceId(iface),
            addr,
            mac,
        }));
    }

    /// Applies a change at every worker.
    pub fn apply(&mut self, delta: Delta) {
        for worker in &mut self.workers {
            worker.apply(self.now, delta.clone());
        }
        for worker in &mut self.workers {
            worker.flush(&mut Io {
                mem: &mut self.mem,
                rings: &mut self.rings,
            });
        }
        self.settle();
    }

    /// Adds a service on an address.
    pub fn service(&mut self, proto: u8, addr: &str, port: u16, sched: SchedKind) -> ServiceId {
        let addr: IpAddr = addr.parse().unwrap();
        self.service_as(ServiceSpec {
            key: ServiceKey::Addr { proto, addr, port },
            sched: Some(sched),
            flags: 0,
            timeout: 0,
            netmask: if addr.is_ipv4() { u32::MAX } else { 128 },
            pe_sip: false,
            exact: false,
        })
    }

    /// Adds a service.
    pub fn service_as(&mut self, spec: ServiceSpec) -> ServiceId {
        let id = ServiceId(self.services);
        self.services += 1;
        let spec = Arc::new(spec);
        for worker in &mut self.workers {
            worker.apply(
                self.now,
                Delta::ServiceAdd {
                    id,
                    spec: spec.clone(),
                },
            );
        }
        id
    }

    /// Has a service scheduled at one worker, or by each for itself.
    pub fn set_exact(&mut self, service: ServiceId, exact: bool) {
        let spec = self.workers[0].services.get(service).unwrap().spec.clone();
        let spec = ServiceSpec {
            exact,
            ..(*spec).clone()
        };
        self.apply(Delta::ServiceEdit {
            id: service,
            spec: spec.into(),
        });
    }

    /// A service specification made persistent for that many seconds.
    pub fn persistent(proto: u8, addr: &str, port: u16, seconds: u32) -> ServiceSpec {
        ServiceSpec {
            key: ServiceKey::Addr {
                proto,
                addr: addr.parse().unwrap(),
                port,
            },
            sched: Some(SchedKind::Rr),
            flags: service_flags::PERSISTENT,
            timeout: seconds,
            netmask: u32::MAX,
            pe_sip: false,
            exact: false,
        }
    }

    /// Adds a dest.
    pub fn dest(&mut self, service: ServiceId, addr: &str, port: u16, forward: Forward) -> DestId {
        self.dest_as(service, Rig::dest_spec(addr, port, forward))
    }

    /// A dest of weight 1 without thresholds.
    pub fn dest_spec(addr: &str, port: u16, forward: Forward) -> DestSpec {
        DestSpec {
            addr: addr.parse().unwrap(),
            port,
            forward,
            weight: 1,
            upper: 0,
            lower: 0,
            tunnel: TunnelKind::Ipip,
            tunnel_csum: TunnelCsum::None,
        }
    }

    /// Adds a dest.
    pub fn dest_as(&mut self, service: ServiceId, spec: DestSpec) -> DestId {
        let id = DestId(self.dests);
        self.dests += 1;
        let spec = Arc::new(spec);
        for (worker, ledger) in self.workers.iter_mut().zip(&mut self.ledgers) {
            worker.apply(
                self.now,
                Delta::DestAdd {
                    service,
                    id,
                    spec: spec.clone(),
                    tally: ledger.open(id, &spec),
                },
            );
        }
        id
    }

    /// What all workers counted for a dest.
    pub fn tally(&self, dest: DestId) -> TallySnapshot {
        let lines = self.ledgers.iter().filter_map(|ledger| ledger.line(dest));
        lines.map(Line::snapshot).sum()
    }

    /// Connections that the worker which schedules for a service charges a dest with.
    pub fn central_load(&self, dest: DestId) -> u32 {
        let central = self.workers.iter().find(|worker| {
            let dest = worker.services.dest(dest);
            let service = dest.and_then(|dest| worker.services.get(dest.service));
            service.is_some_and(|service| service.central() && service.counted_at.is_none())
        });
        let dest = central.and_then(|worker| worker.services.dest(dest));
        dest.map_or(0, |dest| dest.loads.active + dest.loads.inactive)
    }

    /// Active and inactive connections that all workers together charge a dest with, as schedulers see it.
    pub fn loads(&self, dest: DestId) -> (u32, u32) {
        let loads = self
            .workers
            .iter()
            .filter_map(|worker| worker.services.dest(dest));
        loads.fold((0, 0), |sum, dest| {
            (sum.0 + dest.loads.active, sum.1 + dest.loads.inactive)
        })
    }

    /// Lets a frame arrive by a port, at one worker after the other, and everything settle. Returns what was sent.
    pub fn send(&mut self, port: u16, frame: &[u8]) -> Vec<(u16, Vec<u8>)> {
        self.send_frame(port, MemFrame::new(frame))
    }

    /// As [`Rig::send`], with a frame as it lies.
    pub fn send_frame(&mut self, port: u16, frame: MemFrame) -> Vec<(u16, Vec<u8>)> {
        self.send_burst(port, vec![frame])
    }

    /// As [`Rig::send_frame`], with several frames at once.
    pub fn send_burst(&mut self, port: u16, mut frames: Vec<MemFrame>) -> Vec<(u16, Vec<u8>)> {
        let at = self.next_worker;
        self.next_worker = (at + 1) % self.workers.len();
        let mut io = Io {
            mem: &mut self.mem,
            rings: &mut self.rings,
        };
        self.workers[at].burst(self.now, PortId(port), &mut frames, &mut io);
        self.settle();
        self.mem.take_sent()
    }

    /// Lets time pass.
    pub fn wait(&mut self, seconds: u64) -> Vec<(u16, Vec<u8>)> {
        for _ in 0..seconds * 10 {
            self.now = Time(self.now.0 + Time::from_secs(1).0 / 10);
            for at in 0..self.workers.len() {
                let mut io = Io {
                    mem: &mut self.mem,
                    rings: &mut self.rings,
                };
                self.workers[at].tick(self.now, &mut io);
            }
            self.settle();
        }
        self.mem.take_sent()
    }

    fn settle(&mut self) {
        while let Some((to, msg)) = self.rings.pop_front() {
            let mut io = Io {
                mem: &mut self.mem,
                rings: &mut self.rings,
            };
            let worker = &mut self.workers[usize::from(to.0)];
            worker.deliver(self.now, msg, &mut io);
            worker.flush(&mut io);
        }
        assert!(self.counters().balanced(), "{:?}", self.counters());
    }

    /// Whether there is but one worker.
    pub fn is_alone(&self) -> bool {
        self.workers.len() == 1
    }

    /// The counters of all workers.
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        self.workers
            .iter()
            .for_each(|worker| sum += worker.counters());
        sum
    }

    /// All connections of all workers.
    pub fn conns(&self) -> Vec<ConnEntry> {
        let mut all = Vec::new();
        for worker in &self.workers {
            let mut cursor = Some(0);
            while let Some(at) = cursor {
                cursor = worker.list(self.now, at, 100, &mut all);
            }
        }
        all
    }
}
