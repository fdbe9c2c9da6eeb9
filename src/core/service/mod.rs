//! One worker's copy of the service table: which service a packet belongs to, and the dests of each. Changed by deltas
//! only; nothing here fails.

mod dest;
mod ready;
mod way;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use crate::growing::{GrowMap, Numbered};
use crate::ledger::Ledger;
use crate::message::Load;
use crate::owner::Owners;
use crate::sched::{Expirations, Group};
use crate::spec::{service_flags, ServiceKey, ServiceSpec, TunnelKind};
use crate::types::{proto, Af, DestId, ServiceId, Time, WorkerId};

pub use dest::Dest;
pub use ready::Ready;

/// The FTP control port, which persistence treats apart.
pub const FTP_PORT: u16 = 21;

/// The port from which an FTP server's own data connections come.
pub const FTP_DATA_PORT: u16 = 20;

/// A virtual service at one worker.
pub struct Service {
    /// What the operator said.
    pub spec: Arc<ServiceSpec>,
    /// Its dests and their scheduler.
    pub group: Group,
    /// How many of its dests have an upper threshold.
    limited: usize,
    /// Whether the kernel tracks connections for it: it is on the FTP port, and has or had a dest under NAT.
    tracked: bool,
    /// The worker that schedules for all and counts all connections, where that is so and it is another one.
    pub counted_at: Option<WorkerId>,
    /// Its port, if it has one and a connection to it needs nothing but one of its dests, picked and counted here, or kept by
    /// the client's address.
    pub plain_port: Option<u16>,
    /// Its dests that were taken out and are still known.
    left: GrowMap<DestId, ()>,
}

impl Service {
    /// Whether clients keep their dest for a time.
    pub fn persistent(&self) -> bool {
        self.spec.flags & service_flags::PERSISTENT != 0
    }

    /// Finds out [`Service::plain_port`] anew.
    fn see_whether_plain(&mut self) {
        let usual = self.spec.flags & service_flags::ONE_PACKET == 0 && !self.spec.pe_sip;
        let plain = usual && self.counted_at.is_none();
        self.plain_port = Some(self.port()).filter(|port| plain && *port != 0);
    }

    /// Whether its connections are counted at one worker: the order of scheduling or a threshold depends on all of them.
    pub fn central(&self) -> bool {
        self.spec.exact || self.limited > 0
    }

    /// Tells the scheduler whether it schedules for all workers or for one of them.
    fn set_share(&mut self, share: (u16, u16)) {
        let (worker, workers) = if self.central() { (0, 1) } else { share };
        self.group.set_share(worker, workers);
    }

    /// The mark, where it is a service by mark.
    pub fn mark(&self) -> Option<u32> {
        match self.spec.key {
            ServiceKey::Mark { mark, .. } => Some(mark),
            ServiceKey::Addr { .. } => None,
        }
    }

    /// The virtual port; 0 for all ports and for services by mark.
    pub fn port(&self) -> u16 {
        match self.spec.key {
            ServiceKey::Addr { port, .. } => port,
            ServiceKey::Mark { .. } => 0,
        }
    }
}

/// Services whose schedulers are let forget in one step.
const EXPIRE_STEP: usize = 64;

/// A dest, and the protocol of its service, if that has one.
type RealServer = (Option<u8>, DestId);

/// All services and dests of one worker.
#[derive(Default)]
pub struct Services {
    /// Which of how many workers this is.
    share: (u16, u16),
    /// Who schedules for all, where one does.
    owners: Option<Owners>,
    /// How long lblc and lblcr remember.
    expirations: Expirations,
    /// Changes that other workers are to be told of.
    reports: VecDeque<(WorkerId, Load)>,
    services: Numbered<Box<Service>>,
    dests: Numbered<Dest>,
    ledger: Ledger,
    by_key: GrowMap<ServiceKey, ServiceId>,
    /// Services by family.
    families: [usize; 2],
    /// Whether there ever was a service or dest of IPv6.
    v6_met: bool,
    /// Services on port 0 and on the FTP port by family: without any the further look-ups are spared.
    wildcards: [usize; 2],
    ftps: [usize; 2],
    /// Services by family for which the kernel tracks connections.
    tracked: [usize; 2],
    /// Services by mark.
    marks: usize,
    /// Dests under NAT by address, port and when they were added, with the protocol of their service, if it has one: for
    /// `nat_icmp_send` and for servers' own requests.
    real_servers: BTreeMap<(IpAddr, u16, u64), RealServer>,
    /// How many dests were added so far.
    added: u64,
    /// Services with a persistence engine that heeds servers' own requests.
    engines: usize,
    /// The service whose scheduler was last let forget.
    expire_next: usize,
    /// How many services hold each end of a tunnel: for ICMP errors about them.
    tunnels: GrowMap<(IpAddr, TunnelKind), usize>,
    /// How many dests have each address, removed ones that connections refer to included.
    dest_addrs: GrowMap<IpAddr, usize>,
    /// What routers told of the ways to dests.
    ways: way::Ways,
    /// Who knows each virtual address.
    virtuals: GrowMap<IpAddr, Holders>,
    /// How many virtual addresses have outlived their services.
    outlived: usize,
}

/// How many know a virtual address: services that have it, and dests that are or were in one that had.
#[derive(Clone, Copy, Debug, Default)]
struct Holders {
    services: usize,
    dests: usize,
}

impl Holders {
    fn outlived(self) -> bool {
        self.services == 0 && self.dests > 0
    }
}

impl Services {
    /// Whether there is a service of that family: without one IPVS is off for it (`ip_vs_unregister_hooks`).
    pub fn enabled(&self, af: Af) -> bool {
        self.families[af as usize] != 0
    }

    /// Whether IPv6 fragments that pass through are put together: from the first service or dest of IPv6 on, for good
    /// (`nf_defrag_ipv6_enable`).
    pub fn gathers_v6(&self) -> bool {
        self.v6_met
    }

    /// The service of that id.
    pub fn get(&self, id: ServiceId) -> Option<&Service> {
        self.services.get(id.0).map(|service| &**service)
    }

    /// The service of that id.
    pub fn get_mut(&mut self, id: ServiceId) -> Option<&mut Service> {
        self.services.get_mut(id.0).map(|service| &mut **service)
    }

    /// The dest of that id.
    pub fn dest(&self, id: DestId) -> Option<&Dest> {
        self.dests.get(id.0)
    }

    /// Whether any dest, be it a removed one that connections refer to, has that address.
    pub(crate) fn has_dest_at(&self, addr: IpAddr) -> bool {
        self.dest_addrs.contains_key(&addr)
    }

    /// The dest of that id.
    pub fn dest_mut(&mut self, id: DestId) -> Option<&mut Dest> {
        self.dests.get_mut(id.0)
    }

    /// Where packets are counted.
    #[inline(always)]
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Lets schedulers forget what they have not used for long: a bounded number of services a call, all in turn.
    pub fn expire(&mut self, now: Time) {
        let places = self.services.places();
        for _ in 0..places.min(EXPIRE_STEP) {
            self.expire_next = (self.expire_next + 1) % places;
            if let Some(service) = self.services.get_mut(self.expire_next as u32) {
                service.group.expire(now);
            }
        }
    }

    /// Sets how long schedulers remember what they have not used, here and in services to come.
    pub(crate) fn set_expirations(&mut self, expirations: Expirations) {
        self.expirations = expirations;
        for service in self.services.iter_mut() {
            service.group.set_expirations(expirations);
        }
    }

    /// The service that a packet of `proto` to `vaddr`:`vport` with that mark (0: none) belongs to, in the kernel's order
    /// (`ip_vs_service_find`): mark; address and port; the FTP service for what may be its data connections; port 0.
    pub fn find(&self, mark: u32, proto: u8, vaddr: IpAddr, vport: u16) -> Option<ServiceId> {
        let af = Af::of(vaddr);
        if mark != 0 {
            if let Some(id) = self.by_key.get(&ServiceKey::Mark { mark, af }) {
                return Some(*id);
            }
        }
        let at = |port| {
            self.by_key
                .get(&ServiceKey::Addr {
                    proto,
                    addr: vaddr,
                    port,
                })
                .copied()
        };
        if let Some(id) = at(vport) {
            return Some(id);
        }
        if proto == proto::TCP
            && self.ftps[af as usize] > 0
            && (vport == FTP_DATA_PORT || vport >= 1024)
        {
            if let Some(id) = at(FTP_PORT) {
                return Some(id);
            }
        }
        if self.wildcards[af as usize] > 0 {
            return at(0);
        }
        None
    }

    /// Whether the kernel would track connections of that family, and so put fragments together as they come in
    /// (`ip_vs_register_conntrack`).
    pub fn tracks(&self, af: Af) -> bool {
        self.tracked[af as usize] > 0
    }

    /// A dest is or becomes one under NAT (`__ip_vs_update_dest`).
    fn track(&mut self, id: ServiceId) {
        let Some(service) = self.get_mut(id) else {
            return;
        };
        if service.tracked || service.port() != FTP_PORT {
            return;
        }
        service.tracked = true;
        let af = service.spec.key.af();
        self.tracked[af as usize] += 1;
    }

    /// Whether there is any service by mark.
    pub fn has_marks(&self) -> bool {
        self.marks > 0
    }

    /// Whether any service has a persistence engine that heeds servers' own requests (`conn_out_counter`).
    pub fn has_engines(&self) -> bool {
        self.engines > 0
    }

    /// The dest under NAT with this address and port (`ip_vs_find_real_service`): of the protocol's services or those by
    /// mark, the one added last.
    pub fn real_server(&self, proto: u8, addr: IpAddr, port: u16) -> Option<DestId> {
        let servers = self
            .real_servers
            .range((addr, port, 0)..=(addr, port, u64::MAX));
        let fits = |(own, id): &RealServer| own.is_none_or(|own| own == proto).then_some(*id);
        servers.rev().find_map(|(_, server)| fits(server))
    }

    /// Whether some service has a dest at that address behind such a tunnel.
    pub fn is_tunnel(&self, addr: IpAddr, kind: TunnelKind) -> bool {
        self.tunnels.contains_key(&(addr, kind))
    }

    /// Whether there may be connections to addresses of services which are gone.
    pub fn any_outlived(&self) -> bool {
        self.outlived > 0
    }

    /// Whether an address was that of services which are gone, and there may be connections to it.
    #[inline]
    pub fn outlived(&self, addr: IpAddr) -> bool {
        self.outlived > 0
            && self
                .virtuals
                .get(&addr)
                .is_some_and(|holders| holders.outlived())
    }

    /// Changes how many know a virtual address.
    fn hold(&mut self, addr: Option<IpAddr>, services: isize, dests: isize) {
        let Some(addr) = addr else { return };
        let (mut before, mut after) = (false, Holders::default());
        self.virtuals.change(addr, |holders| {
            before = holders.outlived();
            holders.services = holders.services.saturating_add_signed(services);
            holders.dests = holders.dests.saturating_add_signed(dests);
            after = *holders;
        });
        if after.services == 0 && after.dests == 0 {
            self.virtuals.remove(&addr);
        }
        self.outlived = self.outlived + usize::from(after.outlived()) - usize::from(before);
    }

    /// An empty table. This is `worker` of `workers` that schedule, each for itself.
    pub fn new(worker: WorkerId, workers: u16, owners: Owners) -> Services {
        Services {
            share: (worker.0, workers),
            owners: Some(owners),
            ..Services::default()
        }
    }

    /// Adds a service.
    pub fn add(&mut self, id: ServiceId, spec: Arc<ServiceSpec>) {
        self.take_in(&mut Ready::new(id, spec, self.share));
    }

    /// Changes a service's settings; the same scheduler goes on where it was.
    pub fn edit(&mut self, id: ServiceId, spec: Arc<ServiceSpec>) {
        let share = self.share;
        if let Some(service) = self.get_mut(id) {
            service.group.set_scheduler(spec.sched, spec.flags);
            let (old, new) = (service.spec.pe_sip, spec.pe_sip);
            service.spec = spec;
            service.set_share(share);
            self.engines = self.engines + usize::from(new) - usize::from(old);
        }
        self.recount(id);
    }

    /// Removes a service and what dests it still has. It is returned.
    pub fn remove(&mut self, id: ServiceId) -> Option<Box<Service>> {
        let service = self.services.take(id.0)?;
        self.count_special(&service.spec.key, -1);
        self.tracked[service.spec.key.af() as usize] -= usize::from(service.tracked);
        self.engines -= usize::from(service.spec.pe_sip);
        self.by_key.remove(&service.spec.key);
        self.hold(service.spec.key.addr(), -1, 0);
        // They go at once, so nothing is kept right that goes with the service.
        for (_, member) in service.group.pool().iter() {
            self.suspend(member.id);
        }
        Some(service)
    }

    fn count_special(&mut self, key: &ServiceKey, by: isize) {
        self.v6_met |= key.af() == Af::V6;
        let family = &mut self.families[key.af() as usize];
        *family = family.saturating_add_signed(by);
        let ServiceKey::Addr { addr, port, .. } = key else {
            self.marks = self.marks.saturating_add_signed(by);
            return;
        };
        let af = Af::of(*addr) as usize;
        match *port {
            0 => self.wildcards[af] = self.wildcards[af].saturating_add_signed(by),
            FTP_PORT => self.ftps[af] = self.ftps[af].saturating_add_signed(by),
            _ => {}
        }
    }
}

/// The protocol of a service; none of one by mark.
fn protocol(service: &ServiceKey) -> Option<u8> {
    match service {
        ServiceKey::Addr { proto, .. } => Some(*proto),
        ServiceKey::Mark { .. } => None,
    }
}

/// One less of those that hold a key; the last one takes it away.
fn forget<K: std::hash::Hash + Eq>(counts: &mut GrowMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
