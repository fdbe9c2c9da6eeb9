//! The network layer out of a configuration, and what was changed since then.

use std::collections::BTreeSet;

use ripvs_api::ripvs::{
    Addr, Divert, MarkRule, Neigh, NeighState, PortChange, PortKind, Request, Route, RouteKind,
};
use ripvs_api::Refusal;
use ripvs_core::net::{IfAddr, Iface, Mac, NetDelta, Prefix};
use ripvs_core::IfaceId;
use ripvs_packet::PortId;

use super::super::fleet::Fleet;
use super::{shown_prefix, Configured, Named, Network};
use crate::config::values::{self, Cidr};
use crate::config::{self, At, Config};

/// A port as it was started, for the interface on it.
pub struct PortSetup {
    /// Name of the interface, or of the bond.
    pub name: String,
    /// Its MAC address.
    pub mac: Mac,
    /// The largest IP packet that the device carries.
    pub mtu: u16,
    /// Queues, for listings: receive and transmit.
    pub queues: (u16, u16),
    /// DPDK's name of the device.
    pub device_name: String,
    /// The driver's name.
    pub driver: String,
    /// The port of the companion, where it has one.
    pub companion: Option<(PortId, String)>,
    /// Whether an interface is on it: not on a companion, nor on a bond's member.
    pub has_interface: bool,
    /// The device itself.
    pub device: Option<ripvs_nic::Port>,
}

fn own(addresses: &[At<Cidr>]) -> Vec<IfAddr> {
    addresses
        .iter()
        .map(|at| IfAddr {
            addr: at.value.address,
            len: at.value.length,
        })
        .collect()
}

fn prefix(prefix: values::Prefix) -> ripvs_api::ripvs::Prefix {
    ripvs_api::ripvs::Prefix {
        addr: prefix.address,
        len: prefix.length,
    }
}

fn route(route: &config::Route) -> Route {
    Route {
        prefix: prefix(route.prefix.value),
        via: route.via.as_ref().map(|via| via.value),
        dev: route.dev.as_ref().map(|dev| dev.value.0.clone()),
        mtu: route.mtu.as_ref().map(|mtu| u32::from(mtu.value)),
        from: route.from.as_ref().map(|from| prefix(from.value)),
        kind: RouteKind::Static,
    }
}

fn neighbour(neighbour: &config::Neighbour) -> Neigh {
    Neigh {
        addr: neighbour.address.value,
        dev: neighbour.interface.value.0.clone(),
        mac: Some(ripvs_api::ripvs::Mac(neighbour.mac.0)),
        state: NeighState::Permanent,
        waiting: 0,
    }
}

fn mark(rule: &config::Mark) -> MarkRule {
    let ranges = |ports: &[values::PortRange]| {
        let range = |r: &values::PortRange| ripvs_api::ripvs::PortRange {
            first: r.first,
            last: r.last,
        };
        ports.iter().map(range).collect()
    };
    MarkRule {
        mark: rule.mark.value,
        protocol: rule.protocol.map(|protocol| protocol.0),
        src: rule.source.as_ref().map(|at| prefix(at.value)),
        dst: rule.destination.as_ref().map(|at| prefix(at.value)),
        sports: ranges(&rule.source_ports),
        dports: ranges(&rule.destination_ports),
        dev: rule.interface.as_ref().map(|at| at.value.0.clone()),
    }
}

fn diverts(config: &Config) -> BTreeSet<u32> {
    let diverted = config.marks.iter().filter(|rule| rule.divert);
    diverted.map(|rule| rule.mark.value).collect()
}

impl Configured {
    /// What a configuration says of what can be changed at run time, but for the ports' own settings.
    fn of(config: &Config) -> Configured {
        let on = |dev: &str, addresses: &[At<Cidr>]| -> Vec<Addr> {
            let addr = |at: &At<Cidr>| Addr {
                addr: ripvs_api::ripvs::Prefix {
                    addr: at.value.address,
                    len: at.value.length,
                },
                dev: dev.to_string(),
            };
            addresses.iter().map(addr).collect()
        };
        let mut addresses = on("lo", &config.loopback);
        for port in &config.ports {
            addresses.extend(on(&port.name.value.0, &port.addresses));
        }
        for vlan in &config.vlans {
            addresses.extend(on(&vlan.name.value.0, &vlan.addresses));
        }
        for bond in &config.bonds {
            addresses.extend(on(&bond.name.value.0, &bond.addresses));
        }
        Configured {
            addresses,
            routes: config.routes.iter().map(route).collect(),
            neighbours: config.neighbours.iter().map(neighbour).collect(),
            marks: config.marks.iter().map(mark).collect(),
            diverts: diverts(config),
            ports: Vec::new(),
        }
    }

    /// The requests that make `new` out of this. What hangs on something else goes before it, and comes after it.
    fn changes(&self, new: &Configured) -> Vec<Request> {
        let mut requests = Vec::new();
        requests.extend(missing(&self.neighbours, &new.neighbours).map(Request::DelNeigh));
        requests.extend(missing(&self.routes, &new.routes).map(Request::DelRoute));
        requests.extend(missing(&self.addresses, &new.addresses).map(Request::DelAddr));
        requests.extend(missing(&new.addresses, &self.addresses).map(Request::AddAddr));
        requests.extend(missing(&new.routes, &self.routes).map(Request::AddRoute));
        requests.extend(missing(&new.neighbours, &self.neighbours).map(Request::AddNeigh));
        requests.extend(missing(&self.marks, &new.marks).map(Request::DelMark));
        requests.extend(missing(&new.marks, &self.marks).map(Request::AddMark));
        let divert = |mark: &u32| Divert { mark: *mark };
        let (gone, come) = (
            self.diverts.difference(&new.diverts),
            new.diverts.difference(&self.diverts),
        );
        requests.extend(gone.map(divert).map(Request::DelDivert));
        requests.extend(come.map(divert).map(Request::AddDivert));
        requests
    }

    /// Takes over what a request changes.
    fn note(&mut self, request: &Request) {
        match request {
            Request::AddAddr(addr) => self.addresses.push(addr.clone()),
            Request::DelAddr(addr) => self.addresses.retain(|known| known != addr),
            Request::AddRoute(route) => self.routes.push(route.clone()),
            Request::DelRoute(route) => self.routes.retain(|known| known != route),
            Request::AddNeigh(neigh) => self.neighbours.push(neigh.clone()),
            Request::DelNeigh(neigh) => self.neighbours.retain(|known| known != neigh),
            Request::AddMark(rule) => self.marks.push(rule.clone()),
            Request::DelMark(rule) => self.marks.retain(|known| known != rule),
            Request::AddDivert(divert) => {
                self.diverts.insert(divert.mark);
            }
            Request::DelDivert(divert) => {
                self.diverts.remove(&divert.mark);
            }
            _ => {}
        }
    }
}

impl Network {
    /// The requests that lead from one configuration to another, as far as that goes without a restart.
    pub fn reconfiguration(old: &Config, new: &Config) -> Vec<Request> {
        Configured::of(old).changes(&Configured::of(new))
    }

    /// From here on what this request says counts as configured.
    pub fn now_configured(&mut self, request: &Request) {
        self.configured.note(request);
    }

    /// Makes what the configuration says, over the ports as they were started, in the order of their numbers.
    ///
    /// # Errors
    /// What the configuration's own checks cannot see; with the interface or route it is about.
    pub fn configure(
        &mut self,
        config: &Config,
        ports: Vec<PortSetup>,
        fleet: &mut Fleet,
    ) -> Result<(), Refusal> {
        self.ports = ports;
        self.interfaces(config, fleet)?;
        for address in own(&config.loopback) {
            self.tell(
                NetDelta::AddrAdd {
                    iface: ripvs_core::net::LO,
                    addr: address,
                },
                fleet,
            );
        }
        for route in config.routes.iter().map(route) {
            self.add_route(&route, fleet).map_err(|refusal| {
                Refusal::new(
                    refusal.errno,
                    format!("route to {}: {refusal}", route.prefix),
                )
            })?;
        }
        for neigh in config.neighbours.iter().map(neighbour) {
            self.add_neighbour(&neigh, fleet)?;
        }
        for rule in &config.marks {
            self.add_mark(&mark(rule), fleet)?;
        }
        for mark in diverts(config) {
            self.add_divert(&Divert { mark }, fleet)?;
        }
        self.configured = self.as_configured();
        Ok(())
    }

    fn interfaces(&mut self, config: &Config, fleet: &mut Fleet) -> Result<(), Refusal> {
        let mut interfaces = Vec::new();
        for (number, port) in self.ports.iter().enumerate() {
            if !port.has_interface {
                continue;
            }
            let bond = config
                .bonds
                .iter()
                .find(|bond| bond.name.value.0 == port.name);
            let single = config.ports.iter().find(|p| p.name.value.0 == port.name);
            let wished = match bond {
                Some(bond) => bond.mtu.as_ref(),
                None => single.and_then(|port| port.mtu.as_ref()),
            };
            let addresses = match (bond, single) {
                (Some(bond), _) => own(&bond.addresses),
                (None, Some(single)) => own(&single.addresses),
                (None, None) => Vec::new(),
            };
            let iface = Iface {
                id: IfaceId(0),
                name: port.name.clone(),
                port: Some(PortId(number as u16)),
                vlan: None,
                mac: port.mac,
                mtu: wished.map_or(1500, |mtu| mtu.value).min(port.mtu),
                addresses,
                up: true,
                companion: port.companion.as_ref().map(|(port, _)| *port),
            };
            let kind = if bond.is_some() {
                PortKind::Bond
            } else {
                PortKind::Port
            };
            let companion = port.companion.as_ref().map(|(_, name)| name.clone());
            interfaces.push((iface, kind, None, companion));
        }
        for vlan in &config.vlans {
            let under = interfaces
                .iter()
                .find(|(iface, ..)| iface.name == vlan.on.value.0)
                .map(|(iface, ..)| iface.clone())
                .ok_or_else(|| super::no_interface(&vlan.on.value.0))?;
            let iface = Iface {
                id: IfaceId(0),
                name: vlan.name.value.0.clone(),
                port: under.port,
                vlan: Some(vlan.id.value),
                mac: under.mac,
                mtu: vlan
                    .mtu
                    .as_ref()
                    .map_or(under.mtu, |mtu| mtu.value.min(under.mtu)),
                addresses: own(&vlan.addresses),
                up: true,
                companion: None,
            };
            interfaces.push((iface, PortKind::Vlan, Some(vlan.on.value.0.clone()), None));
        }
        for (number, (mut iface, kind, on, companion)) in (1..).zip(interfaces) {
            iface.id = IfaceId(number);
            self.named.push(Named {
                id: iface.id,
                kind,
                on,
                companion,
            });
            self.tell(NetDelta::IfaceSet(iface), fleet);
        }
        Ok(())
    }

    /// What can be changed at run time, as it is now.
    fn as_configured(&self) -> Configured {
        Configured {
            addresses: self.show_addresses(),
            routes: self.static_routes(),
            neighbours: self.static_neighbours(),
            marks: self.marks.clone(),
            diverts: self.diverts.clone(),
            ports: self
                .copy
                .ifaces()
                .iter()
                .map(|iface| (iface.name.clone(), iface.up, iface.mac, iface.mtu))
                .collect(),
        }
    }

    fn static_routes(&self) -> Vec<Route> {
        self.routes
            .iter()
            .map(|spec| self.shown_route(spec, RouteKind::Static))
            .collect()
    }

    fn static_neighbours(&self) -> Vec<Neigh> {
        self.neighbours
            .iter()
            .map(|((iface, addr), mac)| Neigh {
                addr: *addr,
                dev: self.name_of(*iface),
                mac: Some(ripvs_api::ripvs::Mac(*mac)),
                state: NeighState::Permanent,
                waiting: 0,
            })
            .collect()
    }

    /// The requests that make this network layer out of what is configured.
    pub fn requests(&self) -> Vec<Request> {
        let (old, new) = (&self.configured, self.as_configured());
        let mut requests = Vec::new();
        for ((name, up, mac, mtu), was) in new.ports.iter().cloned().zip(&old.ports) {
            let change = PortChange {
                up: (up != was.1).then_some(up),
                mac: (mac != was.2).then_some(ripvs_api::ripvs::Mac(mac)),
                mtu: (mtu != was.3).then_some(u32::from(mtu)),
                name,
            };
            if change.up.is_some() || change.mac.is_some() || change.mtu.is_some() {
                requests.push(Request::SetPort(change));
            }
        }
        requests.extend(old.changes(&new));
        requests
    }

    /// `ripvsadm addr`. The link-local addresses that interfaces have of themselves are among them.
    pub fn show_addresses(&self) -> Vec<Addr> {
        let ifaces = self.copy.ifaces().iter();
        ifaces
            .flat_map(|iface| {
                iface.addresses.iter().filter_map(|own| {
                    Some(Addr {
                        addr: ripvs_api::ripvs::Prefix::new(own.addr, own.len)?,
                        dev: iface.name.clone(),
                    })
                })
            })
            .collect()
    }

    pub(super) fn shown_route(&self, spec: &ripvs_core::net::RouteSpec, kind: RouteKind) -> Route {
        Route {
            prefix: shown_prefix(spec.prefix),
            via: spec.via,
            dev: spec.dev.map(|dev| self.name_of(dev)),
            mtu: spec.mtu.map(u32::from),
            from: spec.from.map(shown_prefix),
            kind,
        }
    }

    /// The network that an address is in, with its interface: a connected route's.
    pub(super) fn connected(own: &IfAddr) -> Option<Prefix> {
        Prefix::new(own.addr, own.len)
    }
}

/// What `one` has and `other` has not.
fn missing<'a, T: PartialEq + Clone>(one: &'a [T], other: &'a [T]) -> impl Iterator<Item = T> + 'a {
    one.iter().filter(|entry| !other.contains(entry)).cloned()
}
