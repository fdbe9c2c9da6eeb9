//! Where packets go: local addresses, VIPs, connected and configured routes, source-specific ones, and the choice of a source
//! address for what we send ourselves. As the kernel: the local table first, then tables for a source, then the main one.

use std::net::{IpAddr, Ipv4Addr};

use super::hints::Hints;
use super::iface::{IfAddr, Iface, Ifaces, LO};
use super::lpm::{common_prefix, Lpm, Prefix};
use crate::family::{Family, V4, V6};
use crate::growing::GrowMap;
use crate::types::IfaceId;

/// A route as an operator wrote it. Where `dev` is missing it is the interface by which `via` is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteSpec {
    /// Destinations.
    pub prefix: Prefix,
    /// The gateway; `None` where the destinations are on the link itself.
    pub via: Option<IpAddr>,
    /// The interface.
    pub dev: Option<IfaceId>,
    /// The MTU on this way in bytes, where it is smaller than the interface's.
    pub mtu: Option<u16>,
    /// Sources that the route is for; such a route goes before those for all sources.
    pub from: Option<Prefix>,
}

/// Why a route cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// Neither a gateway nor an interface is given.
    NoGatewayNorDev,
    /// The gateway is on no connected network (the kernel's "Nexthop has invalid gateway").
    GatewayUnreachable(IpAddr),
    /// The gateway is one of our own addresses.
    GatewayLocal(IpAddr),
    /// There is no such interface.
    NoDev(IfaceId),
    /// There is such a route already.
    Exists,
    /// Prefix and source prefix are of different families, or an IPv6 route has an IPv4 gateway.
    MixedFamilies,
}

/// The way to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteHit {
    /// The interface to send on; lo where the destination is local.
    pub iface: IfaceId,
    /// The gateway, or the destination where it is on the link.
    pub next_hop: IpAddr,
    /// Largest IP packet in bytes: the lesser of the route's and the interface's.
    pub mtu: u16,
    /// The destination is ours.
    pub local: bool,
}

/// What an address in the local table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalKind {
    /// Ours.
    Unicast,
    /// A connected network's broadcast address.
    Broadcast,
}

/// An entry of the local table, kept as long as anything refers to it.
#[derive(Default)]
struct Local {
    /// References by interface addresses: interface, and whether as broadcast.
    addrs: Vec<(IfaceId, bool)>,
    /// References by VIPs.
    vips: u32,
}

impl Local {
    fn kind(&self) -> LocalKind {
        if self.vips > 0 || self.addrs.iter().any(|(_, broadcast)| !broadcast) {
            LocalKind::Unicast
        } else {
            LocalKind::Broadcast
        }
    }
}

/// One way for a prefix.
#[derive(Clone, Debug)]
struct Entry {
    spec: RouteSpec,
    connected: bool,
    /// The interface to send on, `None` while the gateway cannot be reached.
    iface: Option<IfaceId>,
    /// The lesser of the route's and the interface's MTU.
    mtu: u16,
}

/// An address as [`Hints`] takes it.
#[inline]
fn words(addr: IpAddr) -> (u64, u64) {
    match addr {
        IpAddr::V4(addr) => V4::words(addr.octets()),
        IpAddr::V6(addr) => V6::words(addr.octets()),
    }
}

/// A routing table: the usable ways of a prefix, in the order they were added.
type Table = Lpm<Vec<Entry>>;

/// The routing tables.
#[derive(Default)]
pub struct Routes {
    local: Lpm<Local>,
    /// Tables for sources, the longest source prefix first.
    from: Vec<(Prefix, Table)>,
    main: Table,
    /// The addresses of services.
    vips: GrowMap<IpAddr, ()>,
    /// The same, as guesses.
    hints: Hints,
    generation: u32,
}

impl Routes {
    /// A number that changes with every change of interfaces, addresses and routes: what was looked up under another
    /// number must be looked up again.
    #[inline]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The way to `dst`, for packets from `src` where that is known. `None`: there is no route.
    #[inline]
    pub fn lookup(&self, dst: IpAddr, src: Option<IpAddr>) -> Option<RouteHit> {
        if let Some(local) = self.local.lookup(dst) {
            return match local.kind() {
                LocalKind::Unicast => Some(RouteHit {
                    iface: LO,
                    next_hop: dst,
                    mtu: u16::MAX,
                    local: true,
                }),
                LocalKind::Broadcast => None,
            };
        }
        if let Some(src) = src {
            for (prefix, table) in &self.from {
                if prefix.contains(src) {
                    if let Some(hit) = find(table, dst) {
                        return Some(hit);
                    }
                }
            }
        }
        find(&self.main, dst)
    }

    /// What `addr` is in the local table: by address, as part of a prefix on lo, or as a VIP.
    #[inline]
    pub fn local(&self, addr: IpAddr) -> Option<LocalKind> {
        if self.hints.may_have(words(addr)) && self.is_vip(addr) {
            return Some(LocalKind::Unicast);
        }
        self.local.lookup(addr).map(Local::kind)
    }

    /// Whether `addr`, which most likely is not, is ours: what [`Routes::local`] says is a host's address.
    #[inline]
    pub fn is_ours(&self, addr: IpAddr) -> bool {
        let local = self.local.lookup(addr);
        local.is_some_and(|local| local.kind() == LocalKind::Unicast)
    }

    /// Whether `addr` is a service's.
    #[inline]
    pub fn is_vip(&self, addr: IpAddr) -> bool {
        self.vips.contains_key(&addr)
    }

    /// The addresses of services, as guesses.
    #[inline(always)]
    pub(crate) fn vip_hints(&self) -> &Hints {
        &self.hints
    }

    /// Whether there are routes that are for certain sources.
    #[inline]
    pub fn by_source(&self) -> bool {
        !self.from.is_empty()
    }

    /// Whether `addr` is ours to be asked for on `iface` (IPv6 neighbour discovery): an address of that interface, of lo, or
    /// a VIP. Addresses of other interfaces are not (`ndisc_recv_ns` looks on the device alone).
    pub fn local_on(&self, addr: IpAddr, iface: IfaceId) -> bool {
        self.local.lookup(addr).is_some_and(|local| {
            local.vips > 0
                || local
                    .addrs
                    .iter()
                    .any(|&(id, broadcast)| !broadcast && (id == iface || id == LO))
        })
    }

    /// All routes as operators know them, connected ones (flagged) included, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&RouteSpec, bool)> {
        let tables = self.from.iter().map(|(_, table)| table);
        tables
            .chain(std::iter::once(&self.main))
            .flat_map(|table| table.iter())
            .flat_map(|(_, entries)| entries.iter().map(|e| (&e.spec, e.connected)))
    }

    /// Checks a route before it is added, as `ip route add` would, and says by which interface it would send.
    ///
    /// # Errors
    /// [`RouteError`], with what is wrong.
    pub fn check(&self, spec: &RouteSpec, ifaces: &Ifaces) -> Result<IfaceId, RouteError> {
        let v4 = spec.prefix.addr().is_ipv4();
        if spec.from.is_some_and(|from| from.addr().is_ipv4() != v4) {
            return Err(RouteError::MixedFamilies);
        }
        if spec.via.is_some_and(|via| via.is_ipv4() && !v4) {
            return Err(RouteError::MixedFamilies);
        }
        if let Some(via) = spec.via {
            if self.local(via).is_some() {
                return Err(RouteError::GatewayLocal(via));
            }
        }
        if self
            .iter()
            .any(|(known, connected)| !connected && known == spec)
        {
            return Err(RouteError::Exists);
        }
        if let Some(dev) = spec.dev {
            let iface = ifaces.get(dev).ok_or(RouteError::NoDev(dev))?;
            return match spec.via {
                Some(via) if !is_link_local(via) && !on_link(iface, via) => {
                    Err(RouteError::GatewayUnreachable(via))
                }
                _ => Ok(dev),
            };
        }
        let via = spec.via.ok_or(RouteError::NoGatewayNorDev)?;
        self.gateway_iface(via)
            .ok_or(RouteError::GatewayUnreachable(via))
    }

    /// The interface on whose own network a gateway is. A link-local one is on any: its interface must be named.
    fn gateway_iface(&self, via: IpAddr) -> Option<IfaceId> {
        if is_link_local(via) {
            return None;
        }
        self.main
            .matches(via)
            .flatten()
            .find(|entry| entry.spec.via.is_none())?
            .iface
    }

    pub(super) fn changed(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    /// Adds a route; one that equals another in everything is there once only. A gateway that cannot be reached yet makes
    /// the route wait for an interface by which it can.
    pub(super) fn add(&mut self, spec: RouteSpec, ifaces: &Ifaces) {
        self.insert(spec, false, ifaces);
    }

    fn insert(&mut self, spec: RouteSpec, connected: bool, ifaces: &Ifaces) {
        let mut entry = Entry {
            spec,
            connected,
            iface: None,
            mtu: 0,
        };
        let iface = entry
            .spec
            .dev
            .or_else(|| self.gateway_iface(entry.spec.via?));
        entry.bind(iface, ifaces);
        let prefix = entry.spec.prefix;
        let table = match entry.spec.from {
            None => &mut self.main,
            Some(from) => {
                let at = match self.from.iter().position(|(p, _)| *p == from) {
                    Some(at) => at,
                    None => {
                        let at = self.from.partition_point(|(p, _)| p.len() >= from.len());
                        self.from.insert(at, (from, Table::default()));
                        at
                    }
                };
                &mut self.from[at].1
            }
        };
        let entries = table.entry(prefix);
        if !entries
            .iter()
            .any(|e| e.spec == entry.spec && e.connected == connected)
        {
            entries.push(entry);
        }
        self.changed();
    }

    /// Removes a route. Returns whether it was there.
    pub(super) fn del(&mut self, spec: &RouteSpec) -> bool {
        self.take(spec, false)
    }

    fn take(&mut self, spec: &RouteSpec, connected: bool) -> bool {
        let at = spec
            .from
            .and_then(|from| self.from.iter().position(|(p, _)| *p == from));
        let table = match (spec.from, at) {
            (None, _) => &mut self.main,
            (Some(_), Some(at)) => &mut self.from[at].1,
            (Some(_), None) => return false,
        };
        if table.get(spec.prefix).is_none() {
            return false;
        }
        let entries = table.entry(spec.prefix);
        let Some(index) = entries
            .iter()
            .position(|e| e.spec == *spec && e.connected == connected)
        else {
            return false;
        };
        entries.remove(index);
        if entries.is_empty() {
            table.remove(spec.prefix);
        }
        if let Some(at) = at {
            if self.from[at].1.is_empty() {
                self.from.remove(at);
            }
        }
        self.changed();
        true
    }

    /// Takes an interface's address into the tables.
    pub(super) fn addr_add(&mut self, iface: &Iface, addr: IfAddr, ifaces: &Ifaces) {
        for (prefix, broadcast) in local_prefixes(iface.id, addr) {
            self.local.entry(prefix).addrs.push((iface.id, broadcast));
        }
        if let Some(spec) = connected(iface.id, addr) {
            self.insert(spec, true, ifaces);
        }
        self.rebind(ifaces);
    }

    /// Takes an interface's address out of the tables. `remaining` are those it keeps, whose networks stay.
    pub(super) fn addr_del(
        &mut self,
        id: IfaceId,
        addr: IfAddr,
        remaining: &[IfAddr],
        ifaces: &Ifaces,
    ) {
        for (prefix, broadcast) in local_prefixes(id, addr) {
            if self.local.get(prefix).is_none() {
                continue;
            }
            let local = self.local.entry(prefix);
            if let Some(at) = local.addrs.iter().position(|a| *a == (id, broadcast)) {
                local.addrs.swap_remove(at);
            }
            self.local_drop_unused(prefix);
        }
        if let Some(spec) = connected(id, addr) {
            if !remaining
                .iter()
                .any(|a| connected(id, *a).as_ref() == Some(&spec))
            {
                self.take(&spec, true);
            }
        }
        self.rebind(ifaces);
    }

    /// Makes `addr` ours, or once more so. Returns whether it was not before. What is kept of routes stays good unless
    /// somebody else had that address: see [`Net::vip_add`](super::Net::vip_add).
    pub(super) fn vip_add(&mut self, addr: IpAddr) -> bool {
        let new = !self.is_ours(addr);
        self.local.entry(Prefix::host(addr)).vips += 1;
        if self.vips.insert(addr, ()).is_none() {
            self.hints.add(words(addr));
        }
        new
    }

    /// Takes back one [`Routes::vip_add`]. Returns whether `addr` has ceased to be ours. What is kept of routes stays good,
    /// as ways that end here are not kept.
    pub(super) fn vip_del(&mut self, addr: IpAddr) -> bool {
        let prefix = Prefix::host(addr);
        if self.local.get(prefix).is_none_or(|local| local.vips == 0) {
            return false;
        }
        let local = self.local.entry(prefix);
        local.vips -= 1;
        if local.vips == 0 {
            self.vips.remove(&addr);
            self.hints.remove(words(addr));
        }
        self.local_drop_unused(prefix);
        !self.is_ours(addr)
    }

    fn local_drop_unused(&mut self, prefix: Prefix) {
        let unused = |local: &Local| local.vips == 0 && local.addrs.is_empty();
        if self.local.get(prefix).is_some_and(unused) {
            self.local.remove(prefix);
        }
    }

    /// Finds each route's interface and MTU again, after interfaces changed.
    pub(super) fn rebind(&mut self, ifaces: &Ifaces) {
        // Routes on the link first: gateways are found by them.
        let tables = self.from.iter_mut().map(|(_, table)| table);
        for entry in tables
            .chain(std::iter::once(&mut self.main))
            .flat_map(|table| table.values_mut())
            .flatten()
        {
            entry.bind(entry.spec.dev, ifaces);
        }
        let mut waiting: Vec<IpAddr> = self
            .iter()
            .filter(|(spec, _)| spec.dev.is_none())
            .filter_map(|(spec, _)| spec.via)
            .collect();
        waiting.sort_unstable();
        waiting.dedup();
        for via in waiting {
            let iface = self.gateway_iface(via);
            let tables = self.from.iter_mut().map(|(_, table)| table);
            for entry in tables
                .chain(std::iter::once(&mut self.main))
                .flat_map(|table| table.values_mut())
                .flatten()
                .filter(|e| e.spec.dev.is_none() && e.spec.via == Some(via))
            {
                entry.bind(iface, ifaces);
            }
        }
        self.changed();
    }
}

impl Entry {
    fn bind(&mut self, id: Option<IfaceId>, ifaces: &Ifaces) {
        let iface = id.and_then(|id| ifaces.get(id)).filter(|iface| iface.up);
        self.iface = iface.map(|iface| iface.id);
        let mtu = iface.map_or(0, |iface| iface.mtu);
        self.mtu = self.spec.mtu.map_or(mtu, |own| own.min(mtu));
    }
}

#[inline]
fn find(table: &Table, dst: IpAddr) -> Option<RouteHit> {
    table.matches(dst).flatten().find_map(|entry| {
        Some(RouteHit {
            iface: entry.iface?,
            next_hop: entry.spec.via.unwrap_or(dst),
            mtu: entry.mtu,
            local: false,
        })
    })
}

/// What an interface's address puts into the local table, and whether as broadcast. On lo a whole prefix is ours: the
/// kernel's rule for IPv4; for IPv6 it has to be told so (`ip -6 route add local`), which nobody who puts a prefix on lo of
/// a load balancer would mean otherwise.
fn local_prefixes(id: IfaceId, addr: IfAddr) -> impl Iterator<Item = (Prefix, bool)> {
    let own = if id == LO {
        Prefix::new(addr.addr, addr.len)
    } else {
        Some(Prefix::host(addr.addr))
    };
    let broadcast = match addr.addr {
        IpAddr::V4(a) if id != LO && addr.len < 31 => {
            let host_bits = u32::MAX >> addr.len;
            Some(Prefix::host(
                Ipv4Addr::from(u32::from(a) | host_bits).into(),
            ))
        }
        _ => None,
    };
    let own = own.map(|prefix| (prefix, false));
    own.into_iter()
        .chain(broadcast.map(|prefix| (prefix, true)))
}

/// Whether an address is on one of an interface's own networks.
fn on_link(iface: &Iface, addr: IpAddr) -> bool {
    let holds = |a: &IfAddr| Prefix::new(a.addr, a.len).is_some_and(|p| p.contains(addr));
    iface.addresses.iter().any(holds)
}

/// The route to an address's own network, where it has one.
fn connected(id: IfaceId, addr: IfAddr) -> Option<RouteSpec> {
    let prefix = Prefix::new(addr.addr, addr.len)?;
    if id == LO || prefix == Prefix::host(addr.addr) {
        return None;
    }
    Some(RouteSpec {
        prefix,
        via: None,
        dev: Some(id),
        mtu: None,
        from: None,
    })
}

/// The source address for a packet that we send to `dst` by this way, as the kernel chooses it: IPv4 an address of the
/// interface on the next hop's network, else its first, else lo's, else any (`inet_select_addr`); IPv6 by RFC 6724 over all
/// interfaces (`ipv6_dev_get_saddr`), reduced to the rules that can differ here: same address, scope, outgoing interface,
/// longest common prefix. `None` where there is no address of the family.
pub fn source_for(ifaces: &Ifaces, dst: IpAddr, hit: &RouteHit) -> Option<IpAddr> {
    if hit.local {
        return Some(dst);
    }
    match dst {
        IpAddr::V4(_) => source_v4(ifaces, hit),
        IpAddr::V6(_) => source_v6(ifaces, dst, hit.iface),
    }
}

fn source_v4(ifaces: &Ifaces, hit: &RouteHit) -> Option<IpAddr> {
    let v4 = |iface: &Iface| iface.addresses.iter().copied().find(|a| a.addr.is_ipv4());
    let out = ifaces.get(hit.iface)?;
    let near = out
        .addresses
        .iter()
        .find(|a| Prefix::new(a.addr, a.len).is_some_and(|prefix| prefix.contains(hit.next_hop)));
    let usable = |a: &IfAddr| match a.addr {
        IpAddr::V4(a) => !a.is_loopback(),
        IpAddr::V6(_) => false,
    };
    near.filter(|_| hit.next_hop.is_ipv4())
        .copied()
        .or_else(|| v4(out))
        .or_else(|| ifaces.iter().filter_map(v4).find(usable))
        .map(|a| a.addr)
}

/// The scope of an IPv6 address, in RFC 4291's numbers.
fn scope(addr: IpAddr) -> u8 {
    match addr {
        IpAddr::V6(a) if a.is_multicast() => a.octets()[1] & 0xf,
        IpAddr::V6(a) if is_link_local(IpAddr::V6(a)) || a.is_loopback() => 2,
        _ => 14,
    }
}

/// Whether an address means something on its own link only (169.254/16 is routed by the kernel and does not count).
pub fn is_link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(a) if a.segments()[0] & 0xffc0 == 0xfe80)
}

fn source_v6(ifaces: &Ifaces, dst: IpAddr, out: IfaceId) -> Option<IpAddr> {
    let wanted = scope(dst);
    ifaces
        .iter()
        .flat_map(|iface| iface.addresses.iter().map(move |a| (iface, a)))
        .filter(|(_, a)| a.addr.is_ipv6() && !a.addr.is_loopback())
        // A link-local address means something on its own link alone, and to reach one takes one of that link.
        .filter(|(iface, a)| iface.id == out || (!is_link_local(a.addr) && wanted > 2))
        .max_by_key(|(iface, a)| {
            let own = scope(a.addr);
            let fits = if own >= wanted {
                (1, 255 - own)
            } else {
                (0, own)
            };
            let near = common_prefix(a.addr, dst).min(a.len);
            // Of equals the kernel takes the address added last (`ipv6_link_dev_addr` puts it first); so does max_by_key.
            (a.addr == dst, fits, iface.id == out, near)
        })
        .map(|(_, a)| a.addr)
}

#[cfg(test)]
mod tests;
