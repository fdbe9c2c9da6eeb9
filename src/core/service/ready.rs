//! New services as the control thread makes them ready with their first dests, so that a worker takes one in by a few
//! entries in its tables: it asks for no memory and gives none back, and reads little that another core has just written.

use std::net::IpAddr;
use std::sync::Arc;

use ripvs_arch::{prefetch_read, prefetch_write};

use super::dest::Loads;
use super::{Service, Services};
use crate::growing::GrowMap;
use crate::ledger::Account;
use crate::recent::InIp;
use crate::sched::{Expirations, Group, Member};
use crate::spec::{DestSpec, Forward, ServiceKey, ServiceSpec};
use crate::types::{DestId, ServiceId};

/// A service that is to be taken in, with dests of it. What the worker has no more use for is left in it.
pub struct Ready {
    id: ServiceId,
    key: ServiceKey,
    pe_sip: bool,
    /// Whether one worker schedules for all.
    central: bool,
    service: Option<Box<Service>>,
    dests: Vec<NewDest>,
    /// Accounts of dests, so many that all of theirs are taken in with them.
    accounts: Vec<Account>,
}

/// A dest that is to be taken in.
pub(super) struct NewDest {
    pub(super) id: DestId,
    pub(super) addr: IpAddr,
    pub(super) forward: Forward,
    pub(super) upper: u32,
    /// Whether it has a threshold.
    pub(super) limited: bool,
    pub(super) tunnel: InIp,
    /// Whether it has a new account, and nobody knows it so far.
    new: bool,
    /// Its settings; then those that it had before, if any.
    pub(super) spec: Option<Arc<DestSpec>>,
}

impl NewDest {
    pub(super) fn new(id: DestId, spec: Arc<DestSpec>, account: &Account) -> NewDest {
        NewDest {
            id,
            addr: spec.addr,
            forward: spec.forward,
            upper: spec.upper,
            limited: spec.upper > 0 || spec.lower > 0,
            tunnel: InIp::of(&spec),
            new: account.is_new(),
            spec: Some(spec),
        }
    }
}

impl Ready {
    /// A service without dests, for this worker of so many.
    pub fn new(id: ServiceId, spec: Arc<ServiceSpec>, share: (u16, u16)) -> Ready {
        let (worker, workers) = if spec.exact { (0, 1) } else { share };
        let (key, pe_sip, exact) = (spec.key, spec.pe_sip, spec.exact);
        let mut service = Box::new(Service {
            group: Group::new(spec.sched, spec.flags, worker, workers),
            spec,
            limited: 0,
            tracked: false,
            counted_at: None,
            plain_port: None,
            left: GrowMap::default(),
        });
        service.see_whether_plain();
        Ready {
            id,
            key,
            pe_sip,
            central: exact,
            service: Some(service),
            dests: Vec::new(),
            accounts: Vec::new(),
        }
    }

    /// The service's id.
    pub fn id(&self) -> ServiceId {
        self.id
    }

    /// The virtual address, if the service has one.
    pub(crate) fn addr(&self) -> Option<IpAddr> {
        self.key.addr()
    }

    /// How many dests it has.
    pub fn dests(&self) -> usize {
        self.dests.len()
    }

    /// Adds a dest, at the head of the kernel's list, for the same worker.
    pub fn add(&mut self, id: DestId, spec: Arc<DestSpec>, account: Account, share: (u16, u16)) {
        if let Some(service) = &mut self.service {
            let member = Member::new(id, spec.addr, spec.port, spec.weight);
            service.group.add(member);
            service.limited += usize::from(spec.upper > 0);
            service.set_share(share);
            self.central |= service.central();
        }
        self.dests.push(NewDest::new(id, spec, &account));
        let last = self.accounts.last();
        if last.is_none_or(|last| !account.goes_with(last)) {
            self.accounts.push(account);
        }
    }

    /// Asks for what is read of it first.
    pub fn prefetch(&self) {
        prefetch_write(self);
    }

    /// Asks for its dests, when [`Ready::prefetch`] has had its effect.
    pub fn prefetch_dests(&self) {
        self.dests.iter().for_each(prefetch_write);
        self.accounts.iter().for_each(prefetch_read);
    }
}

impl Services {
    /// Asks for what [`Services::take_in`] will touch, when [`Ready::prefetch_dests`] has had its effect.
    pub fn foresee(&self, ready: &Ready) {
        for dest in &ready.dests {
            if let Some(place) = self.dests.place(dest.id.0) {
                prefetch_write(place);
            }
            // A new one's is as it is to be.
            if !dest.new {
                if let Some(line) = self.ledger.line(dest.id) {
                    prefetch_write(line.recent);
                    prefetch_write(line.tally);
                }
            }
        }
    }

    /// Takes in a service with its dests.
    pub fn take_in(&mut self, ready: &mut Ready) {
        let Some(mut service) = ready.service.take() else {
            return;
        };
        let (id, key) = (ready.id, ready.key);
        self.count_special(&key, 1);
        self.engines += usize::from(ready.pe_sip);
        self.by_key.insert(key, id);
        if self.expirations != Expirations::default() {
            service.group.set_expirations(self.expirations);
        }
        self.services.put(id.0, service);
        for account in &ready.accounts {
            self.ledger.take(account);
        }
        let (mut new, mut told, mut masq) = (0, false, false);
        for dest in &mut ready.dests {
            let entered = self.enter(id, Some(&key), dest);
            new += isize::from(entered.new);
            told |= entered.told.is_some();
            masq |= dest.forward == Forward::Masq;
            if entered.loads == Loads::default() && !entered.overloaded {
                continue;
            }
            if let Some(service) = self.get_mut(id) {
                let loads = entered.loads;
                service
                    .group
                    .set_load(dest.id, loads.active, loads.inactive);
                service.group.set_overloaded(dest.id, entered.overloaded);
            }
        }
        self.hold(key.addr(), 1, new);
        if masq {
            self.track(id);
        }
        if ready.central {
            self.recount(id);
        }
        if told {
            for dest in &ready.dests {
                self.tell(dest.id);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ledger::Ledger;
    use crate::message::Load;
    use crate::owner::Owners;
    use crate::spec::{SchedKind, TunnelCsum, TunnelKind};
    use crate::types::WorkerId;

    const WORKERS: u16 = 3;

    fn service(n: u16, exact: bool) -> Arc<ServiceSpec> {
        Arc::new(ServiceSpec {
            key: ServiceKey::Addr {
                proto: 6,
                addr: "192.0.2.1".parse().unwrap(),
                port: 21 + n,
            },
            sched: Some(SchedKind::Wlc),
            flags: 0,
            timeout: 0,
            netmask: u32::MAX,
            pe_sip: n == 1,
            exact,
        })
    }

    fn dest(n: u8, forward: Forward, upper: u32) -> Arc<DestSpec> {
        Arc::new(DestSpec {
            addr: [10, 0, 0, n].into(),
            port: 80,
            forward,
            weight: i32::from(n),
            upper,
            lower: 0,
            tunnel: TunnelKind::Ipip,
            tunnel_csum: TunnelCsum::None,
        })
    }

    /// All that can be told of services 0 to 3 and dests 0 to 9.
    fn told(services: &mut Services) -> String {
        let mut text = String::new();
        for n in 0..4 {
            let Some(service) = services.get(ServiceId(n)) else {
                continue;
            };
            let members: Vec<Member> = service.group.pool().iter().map(|(_, m)| *m).collect();
            text += &format!(
                "{:?} {members:?} {} {} {:?} {:?}\n",
                service.spec,
                service.limited,
                service.tracked,
                service.counted_at,
                service.plain_port
            );
        }
        for n in 0..10u8 {
            let addr: IpAddr = [10, 0, 0, n].into();
            if let Some(dest) = services.dest(DestId(n.into())) {
                text += &format!("{dest:?}\n");
            }
            let of_addr = (
                services.has_dest_at(addr),
                services.real_server(6, addr, 80),
                services.is_tunnel(addr, TunnelKind::Ipip),
                services
                    .ledger()
                    .line(DestId(n.into()))
                    .map(|line| line.recent.available()),
            );
            text += &format!("{of_addr:?}\n");
        }
        // Others may hear of it in another order, or of no change at all.
        let mut reports = BTreeMap::new();
        while let Some((to, load)) = services.take_report() {
            let sum: &mut (i32, i32) = reports.entry((to, load.dest.0)).or_default();
            *sum = (sum.0 + load.active, sum.1 + load.inactive);
        }
        reports.retain(|_, sum| *sum != (0, 0));
        text += &format!("{reports:?}\n");
        let vip = services.virtuals.get(&"192.0.2.1".parse().unwrap());
        text + &format!(
            "{vip:?} {} {} {:?}",
            services.outlived, services.engines, services.families
        )
    }

    #[test]
    fn a_service_made_ready_is_what_its_changes_make_one_after_the_other() {
        for worker in 0..WORKERS {
            let owners = Owners::new(WORKERS, false, 5);
            let new = || Services::new(WorkerId(worker), WORKERS, owners);
            let (mut single, mut made) = (new(), new());
            let kinds = [
                (Forward::Masq, 0),
                (Forward::Tunnel, 0),
                (Forward::Route, 0),
                (Forward::Masq, 5),
            ];
            let mut ledger = Ledger::default();
            let accounts: Vec<Account> = (0..10u8)
                .map(|n| {
                    ledger.open(
                        DestId(n.into()),
                        &dest(n, kinds[usize::from(n % 5) % 4].0, 0),
                    )
                })
                .collect();
            // Twice: the second time the dests come back, and some have connections.
            for round in 0..2 {
                for n in 0..2u16 {
                    let id = ServiceId(u32::from(2 * round + n));
                    let spec = service(n, n == round);
                    let dests = (0..4u8).map(|i| {
                        let id = 5 * n as u8 + i;
                        let (forward, upper) = kinds[usize::from(i)];
                        let upper = if n == 1 { upper } else { 0 };
                        let account = match round {
                            0 => accounts[usize::from(id)].clone(),
                            _ => accounts[usize::from(id)].again(),
                        };
                        (DestId(id.into()), dest(id, forward, upper), account)
                    });
                    let mut ready = Ready::new(id, spec.clone(), (worker, WORKERS));
                    for (dest, spec, account) in dests.clone() {
                        ready.add(dest, spec, account, (worker, WORKERS));
                    }
                    single.add(id, spec);
                    for (dest, spec, account) in dests {
                        single.add_dest(id, dest, spec, account);
                    }
                    made.foresee(&ready);
                    made.take_in(&mut ready);
                    let left = ready.dests.iter().filter(|dest| dest.spec.is_some());
                    assert_eq!(left.count(), if round == 0 { 0 } else { 4 });
                    assert_eq!(told(&mut single), told(&mut made));
                }
                for services in [&mut single, &mut made] {
                    for (dest, active) in [(1, 3), (8, 6)] {
                        services.charge(Load {
                            dest: DestId(dest),
                            active,
                            inactive: 1,
                            bound: Some(true),
                        });
                    }
                    for n in 0..2 {
                        assert!(services
                            .remove(ServiceId(u32::from(2 * round + n)))
                            .is_some());
                    }
                }
                assert_eq!(told(&mut single), told(&mut made));
            }
        }
    }
}
