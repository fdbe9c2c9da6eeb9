//! The network layer as the operator set it: interfaces, addresses, routes, static neighbours, mark rules. Checked here
//! against a copy of what the workers know, and told to them as changes. What neighbours the workers have learned is theirs.

mod configure;
mod marks;
mod shown;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ripvs_api::ripvs::{Addr, Neigh, Port, PortChange, PortKind, Route};
use ripvs_api::{Errno, Refusal};
use ripvs_core::delta::Delta;
use ripvs_core::mark::MarkTable;
use ripvs_core::net::{
    IfAddr, Iface, LocalKind, Mac, Net, NetConfig, NetDelta, Prefix, RouteError, RouteSpec, LO,
};
use ripvs_core::{IfaceId, Time};
use ripvs_packet::memory::MemFrame;
use ripvs_packet::PortId;

use super::fleet::Fleet;
use super::master::Surroundings;
pub use configure::PortSetup;

/// What is known of an interface besides what the workers know.
struct Named {
    id: IfaceId,
    kind: PortKind,
    /// The interface that a VLAN is on.
    on: Option<String>,
    companion: Option<String>,
}

/// The network layer.
pub struct Network {
    /// What the workers know; it is told whatever they are told.
    copy: Net<MemFrame>,
    named: Vec<Named>,
    /// The devices, by port.
    ports: Vec<PortSetup>,
    routes: Vec<RouteSpec>,
    neighbours: BTreeMap<(IfaceId, IpAddr), Mac>,
    marks: Vec<ripvs_api::ripvs::MarkRule>,
    diverts: BTreeSet<u32>,
    mark_table: Arc<MarkTable>,
    /// What the configuration alone made, for telling what was changed since.
    configured: Configured,
}

/// What can be changed at run time, as it was configured.
#[derive(Clone, Default)]
struct Configured {
    addresses: Vec<Addr>,
    routes: Vec<Route>,
    neighbours: Vec<Neigh>,
    marks: Vec<ripvs_api::ripvs::MarkRule>,
    diverts: BTreeSet<u32>,
    ports: Vec<(String, bool, Mac, u16)>,
}

/// The words of [`RouteError`].
fn route_refusal(error: RouteError) -> Refusal {
    match error {
        RouteError::NoGatewayNorDev => Refusal::new(Errno::INVAL, "a route needs `via` or `dev`"),
        RouteError::GatewayUnreachable(via) => Refusal::new(
            Errno::NETUNREACH,
            format!("{via} is in no network of an interface"),
        ),
        RouteError::GatewayLocal(via) => {
            Refusal::new(Errno::INVAL, format!("{via} is the balancer itself"))
        }
        RouteError::NoDev(_) => Errno::NODEV.into(),
        RouteError::Exists => Refusal::new(Errno::EXIST, "there is such a route already"),
        RouteError::MixedFamilies => {
            Refusal::new(Errno::INVAL, "the addresses are of different families")
        }
    }
}

fn no_interface(name: &str) -> Refusal {
    Refusal::new(Errno::NODEV, format!("there is no interface `{name}`"))
}

/// A prefix as the core has it: without bits behind it.
///
/// # Errors
/// There are such bits.
fn network_of(prefix: ripvs_api::ripvs::Prefix) -> Result<Prefix, Refusal> {
    let network = Prefix::new(prefix.addr, prefix.len).ok_or(Errno::INVAL)?;
    if network.addr() == prefix.addr {
        Ok(network)
    } else {
        let text = format!("{prefix} has bits set behind its prefix; the network is {network}");
        Err(Refusal::new(Errno::INVAL, text))
    }
}

fn shown_prefix(prefix: Prefix) -> ripvs_api::ripvs::Prefix {
    ripvs_api::ripvs::Prefix {
        addr: prefix.addr(),
        len: prefix.len(),
    }
}

impl Default for Network {
    fn default() -> Self {
        // The copy sends nothing and learns nothing.
        let config = NetConfig {
            resolver: false,
            neigh_max: 1,
            neigh_queue: 1,
            neigh_waiting_max: 1,
            icmp_limit: None,
            seed: 0,
        };
        let lo = Named {
            id: LO,
            kind: PortKind::Loopback,
            on: None,
            companion: None,
        };
        Network {
            copy: Net::new(config),
            named: vec![lo],
            ports: Vec::new(),
            routes: Vec::new(),
            neighbours: BTreeMap::new(),
            marks: Vec::new(),
            diverts: BTreeSet::new(),
            mark_table: Arc::default(),
            configured: Configured::default(),
        }
    }
}

impl Network {
    /// Tells the workers a change that has been checked.
    fn tell(&mut self, delta: NetDelta, fleet: &mut Fleet) {
        self.copy.apply(Time::default(), delta.clone());
        fleet.change(|_| Delta::Net(delta.clone()));
    }

    fn iface(&self, name: &str) -> Result<&Iface, Refusal> {
        self.copy
            .ifaces()
            .by_name(name)
            .ok_or_else(|| no_interface(name))
    }

    fn name_of(&self, id: IfaceId) -> String {
        self.copy
            .ifaces()
            .get(id)
            .map_or_else(|| format!("#{}", id.0), |iface| iface.name.clone())
    }

    /// `ripvsadm addr add`.
    ///
    /// # Errors
    /// ENODEV, EEXIST, EINVAL for what cannot be an interface's address.
    pub fn add_address(&mut self, addr: &Addr, fleet: &mut Fleet) -> Result<(), Refusal> {
        let iface = self.iface(&addr.dev)?;
        let (id, own) = (
            iface.id,
            IfAddr {
                addr: addr.addr.addr,
                len: addr.addr.len,
            },
        );
        if own.addr.is_multicast() || own.addr.is_unspecified() {
            let text = format!("{} cannot be an interface's address", own.addr);
            return Err(Refusal::new(Errno::INVAL, text));
        }
        if iface.addresses.iter().any(|a| a.addr == own.addr) {
            let text = format!("{} has {} already", addr.dev, own.addr);
            return Err(Refusal::new(Errno::EXIST, text));
        }
        self.tell(
            NetDelta::AddrAdd {
                iface: id,
                addr: own,
            },
            fleet,
        );
        Ok(())
    }

    /// `ripvsadm addr del`.
    ///
    /// # Errors
    /// ENODEV, EADDRNOTAVAIL.
    pub fn delete_address(&mut self, addr: &Addr, fleet: &mut Fleet) -> Result<(), Refusal> {
        let iface = self.iface(&addr.dev)?;
        let (id, own) = (
            iface.id,
            IfAddr {
                addr: addr.addr.addr,
                len: addr.addr.len,
            },
        );
        if !iface.addresses.contains(&own) {
            let text = format!("{} does not have {}", addr.dev, addr.addr);
            return Err(Refusal::new(Errno::ADDRNOTAVAIL, text));
        }
        self.tell(
            NetDelta::AddrDel {
                iface: id,
                addr: own,
            },
            fleet,
        );
        Ok(())
    }

    fn route_spec(&self, route: &Route) -> Result<RouteSpec, Refusal> {
        let dev = match &route.dev {
            Some(name) => Some(self.iface(name)?.id),
            None => None,
        };
        let mtu = match route.mtu {
            Some(mtu) => Some(u16::try_from(mtu).map_err(|_| Refusal::from(Errno::INVAL))?),
            None => None,
        };
        Ok(RouteSpec {
            prefix: network_of(route.prefix)?,
            via: route.via,
            dev,
            mtu,
            from: route.from.map(network_of).transpose()?,
        })
    }

    /// `ripvsadm route add`.
    ///
    /// # Errors
    /// EEXIST for a second one to the same prefix and from the same sources; what [`RouteError`] says.
    pub fn add_route(&mut self, route: &Route, fleet: &mut Fleet) -> Result<(), Refusal> {
        let spec = self.route_spec(route)?;
        let same = |known: &RouteSpec| (known.prefix, known.from) == (spec.prefix, spec.from);
        if self.routes.iter().any(same) {
            let text = format!("there is a route to {} already", route.prefix);
            return Err(Refusal::new(Errno::EXIST, text));
        }
        self.copy
            .routes()
            .check(&spec, self.copy.ifaces())
            .map_err(route_refusal)?;
        self.routes.push(spec.clone());
        self.tell(NetDelta::RouteAdd(spec), fleet);
        Ok(())
    }

    /// `ripvsadm route del`: only what is given has to match.
    ///
    /// # Errors
    /// ESRCH.
    pub fn delete_route(&mut self, route: &Route, fleet: &mut Fleet) -> Result<(), Refusal> {
        let like = self.route_spec(route)?;
        let fits = |known: &RouteSpec| {
            known.prefix == like.prefix
                && (like.via.is_none() || known.via == like.via)
                && (like.dev.is_none() || known.dev == like.dev)
                && (like.mtu.is_none() || known.mtu == like.mtu)
                && (like.from.is_none() || known.from == like.from)
        };
        let at = self.routes.iter().position(fits).ok_or_else(|| {
            Refusal::new(
                Errno::SRCH,
                format!("there is no such route to {}", route.prefix),
            )
        })?;
        let spec = self.routes.remove(at);
        self.tell(NetDelta::RouteDel(spec), fleet);
        Ok(())
    }

    /// `ripvsadm neigh add`.
    ///
    /// # Errors
    /// ENODEV; EINVAL without a MAC address, and for what cannot be a neighbour.
    pub fn add_neighbour(&mut self, neigh: &Neigh, fleet: &mut Fleet) -> Result<(), Refusal> {
        let iface = self.iface(&neigh.dev)?.id;
        let mac = neigh
            .mac
            .ok_or_else(|| Refusal::new(Errno::INVAL, "a neighbour needs a MAC address"))?;
        let addr = neigh.addr;
        if iface == LO || addr.is_multicast() || addr.is_unspecified() || mac.0[0] & 1 != 0 {
            let text = format!("{addr} at {mac} cannot be a neighbour on {}", neigh.dev);
            return Err(Refusal::new(Errno::INVAL, text));
        }
        self.neighbours.insert((iface, addr), mac.0);
        self.tell(
            NetDelta::NeighSet {
                iface,
                addr,
                mac: mac.0,
            },
            fleet,
        );
        Ok(())
    }

    /// `ripvsadm neigh del`, of a static one or one that the workers learned (`learned` says whether they know it).
    ///
    /// # Errors
    /// ENODEV, ENOENT.
    pub fn delete_neighbour(
        &mut self,
        neigh: &Neigh,
        learned: bool,
        fleet: &mut Fleet,
    ) -> Result<(), Refusal> {
        let iface = self.iface(&neigh.dev)?.id;
        let known = self.neighbours.remove(&(iface, neigh.addr)).is_some();
        if !known && !learned {
            let text = format!("{} is no neighbour on {}", neigh.addr, neigh.dev);
            return Err(Refusal::new(Errno::NOENT, text));
        }
        self.tell(
            NetDelta::NeighDel {
                iface,
                addr: neigh.addr,
            },
            fleet,
        );
        Ok(())
    }

    /// `ripvsadm port set`.
    ///
    /// # Errors
    /// ENODEV, EINVAL for a MAC address or MTU that cannot be, or what the device answers.
    pub fn change_port(&mut self, change: &PortChange, fleet: &mut Fleet) -> Result<(), Refusal> {
        let mut iface = self.iface(&change.name)?.clone();
        if iface.id == LO {
            return Err(Refusal::new(Errno::INVAL, "lo is as it is"));
        }
        if let Some(up) = change.up {
            iface.up = up;
        }
        let port = iface
            .port
            .and_then(|port| self.ports.get(usize::from(port.0)));
        if let Some(mtu) = change.mtu {
            let most = port.map_or(9000, |port| u32::from(port.mtu));
            if !(68..=most).contains(&mtu) {
                let text = format!("{} can have an MTU of 68 to {most}", change.name);
                return Err(Refusal::new(Errno::INVAL, text));
            }
            iface.mtu = mtu as u16;
        }
        if let Some(mac) = change.mac {
            if mac.0[0] & 1 != 0 {
                let text = format!("{mac} is a group address, which no interface can have");
                return Err(Refusal::new(Errno::INVAL, text));
            }
            if let Some(device) = port
                .filter(|_| iface.vlan.is_none())
                .and_then(|p| p.device.as_ref())
            {
                device
                    .set_mac(mac.0)
                    .map_err(|error| Refusal::new(Errno::OPNOTSUPP, error.to_string()))?;
            }
            iface.mac = mac.0;
        }
        let id = iface.id;
        self.tell(NetDelta::IfaceSet(iface), fleet);
        // A changed MAC address takes the neighbours away, static ones too.
        if change.mac.is_some() {
            self.tell_neighbours_again(id, fleet);
        }
        Ok(())
    }

    fn tell_neighbours_again(&mut self, on: IfaceId, fleet: &mut Fleet) {
        let again: Vec<(IpAddr, Mac)> = self
            .neighbours
            .iter()
            .filter(|((iface, _), _)| *iface == on)
            .map(|((_, addr), mac)| (*addr, *mac))
            .collect();
        for (addr, mac) in again {
            self.tell(
                NetDelta::NeighSet {
                    iface: on,
                    addr,
                    mac,
                },
                fleet,
            );
        }
    }

    /// The port that an interface is on, where it is the port's own.
    pub fn port_named(&self, name: &str) -> Option<PortId> {
        let iface = self.copy.ifaces().by_name(name)?;
        iface.port.filter(|_| iface.vlan.is_none())
    }

    /// The devices' ports with their interfaces' names.
    pub fn port_names(&self) -> Vec<(PortId, String)> {
        let mut all: Vec<(PortId, String)> = self
            .copy
            .ifaces()
            .iter()
            .filter(|iface| iface.vlan.is_none())
            .filter_map(|iface| Some((iface.port?, iface.name.clone())))
            .collect();
        all.sort();
        all
    }

    /// Takes the devices out, to be closed.
    pub fn take_devices(&mut self) -> Vec<ripvs_nic::Port> {
        self.ports
            .drain(..)
            .filter_map(|port| port.device)
            .collect()
    }
}

impl Surroundings for Network {
    fn is_local(&self, addr: IpAddr) -> bool {
        self.copy.is_local(addr)
    }

    fn is_broadcast(&self, addr: IpAddr) -> bool {
        self.copy.routes().local(addr) == Some(LocalKind::Broadcast)
    }

    fn mtu_of(&self, name: &str) -> Option<u32> {
        let iface = self.copy.ifaces().by_name(name)?;
        Some(u32::from(iface.mtu))
    }
}

/// What the listings of the network layer need of the workers: how much came and went by a port.
pub trait Traffic {
    /// Frames and bytes received, frames and bytes sent, frames not sent, at all workers.
    fn port(&self, port: PortId) -> [u64; 5];
}

impl Network {
    /// `ripvsadm port`.
    pub fn show_ports(&self, traffic: &dyn Traffic) -> Vec<Port> {
        self.named
            .iter()
            .filter_map(|named| self.show_port(named, traffic))
            .collect()
    }
}

#[cfg(test)]
mod tests;
