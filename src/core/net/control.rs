//! Changes to the network layer: what the control thread sends (it has checked it before, so applying cannot fail), what
//! workers tell one another, and VIPs, which come and go with services.

use std::net::IpAddr;

use ripvs_packet::Frame;

use super::iface::{IfAddr, Iface, Mac, LO};
use super::lpm::Prefix;
use super::neigh::Heard;
use super::route::{is_link_local, RouteSpec};
use super::Net;
use crate::types::{IfaceId, Time};
use crate::verdict::Drop;

/// A change, for every worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetDelta {
    /// Adds an interface with its addresses, or puts it in the place of the one of that number. lo is there already and
    /// gets its addresses by `AddrAdd`. An IPv6 link-local address is added of itself.
    IfaceSet(Iface),
    /// Removes an interface with its addresses and neighbours.
    IfaceDel(IfaceId),
    /// Adds an address. On lo its whole prefix is local.
    AddrAdd {
        /// The interface, `LO` for lo.
        iface: IfaceId,
        /// The address.
        addr: IfAddr,
    },
    /// Removes an address.
    AddrDel {
        /// The interface.
        iface: IfaceId,
        /// The address.
        addr: IfAddr,
    },
    /// Adds a route; to be checked with `Routes::check` before.
    RouteAdd(RouteSpec),
    /// Removes a route equal to this in everything.
    RouteDel(RouteSpec),
    /// Adds a permanent neighbour, or makes one permanent.
    NeighSet {
        /// The interface it is on.
        iface: IfaceId,
        /// Its address.
        addr: IpAddr,
        /// Its MAC address.
        mac: Mac,
    },
    /// Removes a neighbour, permanent or not.
    NeighDel {
        /// The interface it is on.
        iface: IfaceId,
        /// Its address.
        addr: IpAddr,
    },
}

/// What workers tell one another about neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetMsg {
    /// To the resolver: this neighbour is needed, or in use and no longer known to be reachable.
    Resolve {
        /// The interface it is on.
        iface: IfaceId,
        /// Its address.
        addr: IpAddr,
    },
    /// To the resolver: ARP or neighbour discovery said this.
    Heard {
        /// The interface it came in on.
        iface: IfaceId,
        /// Whom it is about.
        addr: IpAddr,
        /// What was said.
        heard: Heard,
    },
    /// To all others: this neighbour has this MAC address.
    Learned {
        /// The interface it is on.
        iface: IfaceId,
        /// Its address.
        addr: IpAddr,
        /// Its MAC address.
        mac: Mac,
        /// Whether that is confirmed.
        reachable: bool,
    },
    /// To all others: this neighbour does not answer.
    Failed {
        /// The interface it is on.
        iface: IfaceId,
        /// Its address.
        addr: IpAddr,
    },
}

impl NetMsg {
    /// Whether the message goes to the resolver; if not, it goes to every other worker.
    pub fn for_resolver(&self) -> bool {
        matches!(self, NetMsg::Resolve { .. } | NetMsg::Heard { .. })
    }
}

impl<F: Frame> Net<F> {
    /// Applies a change.
    pub fn apply(&mut self, now: Time, delta: NetDelta) {
        match delta {
            NetDelta::IfaceSet(iface) => self.iface_set(now, iface),
            NetDelta::IfaceDel(id) => {
                if id != LO {
                    self.iface_clear(id);
                    self.ifaces.remove(id);
                    self.routes.rebind(&self.ifaces);
                }
            }
            NetDelta::AddrAdd { iface, addr } => self.addr_add(now, iface, addr),
            NetDelta::AddrDel { iface, addr } => self.addr_del(iface, addr),
            NetDelta::RouteAdd(spec) => self.routes.add(spec, &self.ifaces),
            NetDelta::RouteDel(spec) => {
                self.routes.del(&spec);
            }
            NetDelta::NeighSet { iface, addr, mac } => {
                let Some(iface) = self.ifaces.get(iface) else {
                    return;
                };
                if let Some((id, lost)) = self.neighs.obtain(iface, addr, now) {
                    self.lose(lost, Drop::NeighGone);
                    self.neighs.set_permanent(id, now, mac);
                    self.to_flush.push(id);
                }
            }
            NetDelta::NeighDel { iface, addr } => {
                let lost = self.neighs.remove(iface, addr);
                self.lose(lost, Drop::NeighGone);
            }
        }
    }

    /// Takes an interface's addresses and neighbours away.
    fn iface_clear(&mut self, id: IfaceId) {
        let addresses = match self.ifaces.get_mut(id) {
            Some(iface) => std::mem::take(&mut iface.addresses),
            None => return,
        };
        for addr in addresses {
            self.routes.addr_del(id, addr, &[], &self.ifaces);
        }
        let lost = self.neighs.remove_iface(id);
        self.lose(lost, Drop::NeighGone);
        self.announce.withdraw_all(id);
    }

    fn iface_set(&mut self, now: Time, mut iface: Iface) {
        if iface.id == LO {
            return;
        }
        let id = iface.id;
        let mut addresses = std::mem::take(&mut iface.addresses);
        if !addresses.iter().any(|a| is_link_local(a.addr)) {
            addresses.push(IfAddr {
                addr: iface.link_local().into(),
                len: 64,
            });
        }
        // Neighbours stay as they are where the wire is the same: permanent ones are not told again.
        let same_wire = self.ifaces.get(id).is_some_and(|old| {
            (old.port, old.vlan, old.mac) == (iface.port, iface.vlan, iface.mac)
        });
        if same_wire {
            let gone: Vec<IfAddr> = self.ifaces.get(id).map_or(Vec::new(), |old| {
                let gone = old.addresses.iter().filter(|a| !addresses.contains(a));
                gone.copied().collect()
            });
            for addr in gone {
                self.addr_del(id, addr);
            }
            if let Some(old) = self.ifaces.get_mut(id) {
                iface.addresses = std::mem::take(&mut old.addresses);
            }
        } else {
            self.iface_clear(id);
        }
        self.ifaces.set(iface);
        self.routes.rebind(&self.ifaces);
        for addr in addresses {
            self.addr_add(now, id, addr);
        }
    }

    fn addr_add(&mut self, now: Time, id: IfaceId, addr: IfAddr) {
        let Some(iface) = self.ifaces.get_mut(id) else {
            return;
        };
        if iface.addresses.contains(&addr) {
            return;
        }
        iface.addresses.push(addr);
        if let Some(iface) = self.ifaces.get(id) {
            self.routes.addr_add(iface, addr, &self.ifaces);
        }
        if id != LO {
            self.announce_on(now, id, addr.addr);
        } else if Prefix::new(addr.addr, addr.len) == Some(Prefix::host(addr.addr)) {
            self.announce_near(now, addr.addr);
        }
    }

    fn addr_del(&mut self, id: IfaceId, addr: IfAddr) {
        let Some(iface) = self.ifaces.get_mut(id) else {
            return;
        };
        let before = iface.addresses.len();
        iface.addresses.retain(|a| *a != addr);
        if iface.addresses.len() == before {
            return;
        }
        if let Some(iface) = self.ifaces.get(id) {
            self.routes
                .addr_del(id, addr, &iface.addresses, &self.ifaces);
        }
        self.announce.withdraw(addr.addr);
    }

    /// Makes a service's address ours: asked for by ARP or neighbour discovery it is answered, an echo too, and packets to it
    /// are not forwarded. Each `vip_add` wants its [`Net::vip_del`].
    ///
    /// The ways that connections keep stay good, unless a neighbour had the address: thousands of services may be added while
    /// packets come, and none of these leads to an address that is new here. A client elsewhere that had it, which no
    /// network has room for, is answered as before until its connection ends.
    ///
    /// Returns whether the address was not ours before: then ways to what else is known to have it are the caller's to forget.
    pub fn vip_add(&mut self, now: Time, addr: IpAddr) -> bool {
        if !self.routes.vip_add(addr) {
            return false;
        }
        let had_it = |iface: &Iface| self.neighs.find(iface.id, addr).is_some();
        if self.ifaces.iter().any(had_it) {
            self.routes.changed();
        }
        self.announce_near(now, addr);
        true
    }

    /// Takes back one [`Net::vip_add`]. The ways that connections keep stay good: none ended at the address, as what ends
    /// here is not kept.
    ///
    /// Returns whether the address has ceased to be ours: then what is kept of packets to it is the caller's to forget,
    /// where that outlives the service.
    pub fn vip_del(&mut self, addr: IpAddr) -> bool {
        let gone = self.routes.vip_del(addr);
        if gone {
            self.announce.withdraw(addr);
        }
        gone
    }

    /// Announces an address where neighbours would ask for it: on the interfaces with a network that holds it.
    fn announce_near(&mut self, now: Time, addr: IpAddr) {
        let holds = |a: &IfAddr| Prefix::new(a.addr, a.len).is_some_and(|p| p.contains(addr));
        let near: Vec<IfaceId> = self
            .ifaces
            .iter()
            .filter(|iface| iface.id != LO && iface.addresses.iter().any(holds))
            .map(|iface| iface.id)
            .collect();
        for id in near {
            self.announce_on(now, id, addr);
        }
    }

    fn announce_on(&mut self, now: Time, iface: IfaceId, addr: IpAddr) {
        if self.config.resolver && !is_link_local(addr) {
            self.announce.begin(now, iface, addr);
        }
    }
}
