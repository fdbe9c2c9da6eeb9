//! Interfaces: what carries addresses. Owns the table, the way from (port, VLAN tag) to interface, and the MAC filter. Which
//! addresses are local is `route`'s business.

use std::net::{IpAddr, Ipv6Addr};

use ripvs_packet::PortId;

use crate::types::IfaceId;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// The Ethernet broadcast address.
pub const MAC_BROADCAST: Mac = [0xff; 6];

/// The loopback interface: carries addresses, belongs to no port. Always there.
pub const LO: IfaceId = IfaceId(0);

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IfAddr {
    /// The address itself, host bits included.
    pub addr: IpAddr,
    /// Prefix length in bits.
    pub len: u8,
}

/// An interface as an operator configured it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iface {
    /// Its number, given by the control thread; [`LO`] is taken.
    pub id: IfaceId,
    /// Its name, for listings.
    pub name: String,
    /// The port it is on; `None` for lo.
    pub port: Option<PortId>,
    /// Its VLAN id (1 to 4094); `None` takes untagged frames.
    pub vlan: Option<u16>,
    /// Its MAC address.
    pub mac: Mac,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// Its addresses, in the order they were added. An IPv6 link-local one is added from the MAC address of itself.
    pub addresses: Vec<IfAddr>,
    /// Whether it takes and sends packets.
    pub up: bool,
    /// The port behind which the host listens, for what is the host's own.
    pub companion: Option<PortId>,
}

impl Iface {
    /// The IPv6 link-local address made from the MAC address (RFC 4291 appendix A, modified EUI-64).
    pub fn link_local(&self) -> Ipv6Addr {
        let m = self.mac;
        Ipv6Addr::new(
            0xfe80,
            0,
            0,
            0,
            u16::from_be_bytes([m[0] ^ 2, m[1]]),
            u16::from_be_bytes([m[2], 0xff]),
            u16::from_be_bytes([0xfe, m[3]]),
            u16::from_be_bytes([m[4], m[5]]),
        )
    }
}

/// Whom a frame's destination MAC address means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacKind {
    /// The interface itself.
    Host,
    /// All stations.
    Broadcast,
    /// A group.
    Multicast,
}

const NONE: u16 = u16::MAX;

/// What comes in on one port.
struct Ingress {
    untagged: u16,
    /// By VLAN id; laid out only where the port has VLANs.
    tagged: Option<Box<[u16; 4096]>>,
    /// Where this port is a companion: the port whose frames it gives and takes.
    companion_of: Option<PortId>,
}

/// The interface table.
pub struct Ifaces {
    list: Vec<Option<Iface>>,
    ingress: Vec<Ingress>,
}

impl Default for Ifaces {
    fn default() -> Self {
        let mut ifaces = Ifaces {
            list: Vec::new(),
            ingress: Vec::new(),
        };
        ifaces.set(Iface {
            id: LO,
            name: "lo".into(),
            port: None,
            vlan: None,
            mac: [0; 6],
            mtu: u16::MAX,
            addresses: Vec::new(),
            up: true,
            companion: None,
        });
        ifaces
    }
}

impl Ifaces {
    /// The interface of that number.
    #[inline]
    pub fn get(&self, id: IfaceId) -> Option<&Iface> {
        self.list.get(usize::from(id.0))?.as_ref()
    }

    /// The interface of that name.
    pub fn by_name(&self, name: &str) -> Option<&Iface> {
        self.iter().find(|iface| iface.name == name)
    }

    /// All interfaces, lo first.
    pub fn iter(&self) -> impl Iterator<Item = &Iface> {
        self.list.iter().flatten()
    }

    /// The interface that takes frames of this port with this VLAN id (`None` and 0: untagged). Constant time.
    #[inline]
    pub fn ingress(&self, port: PortId, vlan: Option<u16>) -> Option<&Iface> {
        let ingress = self.ingress.get(usize::from(port.0))?;
        let index = match vlan {
            None | Some(0) => ingress.untagged,
            Some(vid) => ingress.tagged.as_ref()?[usize::from(vid & 0xfff)],
        };
        self.list.get(usize::from(index))?.as_ref()
    }

    /// Whether `port` is one behind which a host listens, not one with interfaces of its own.
    #[inline]
    pub fn is_companion(&self, port: PortId) -> bool {
        self.companion_of(port).is_some()
    }

    /// Where `port` is a companion: the port whose host's frames come from it.
    #[inline]
    pub fn companion_of(&self, port: PortId) -> Option<PortId> {
        self.ingress.get(usize::from(port.0))?.companion_of
    }

    /// Whether any interface is on this port.
    pub fn port_known(&self, port: PortId) -> bool {
        self.iter().any(|iface| iface.port == Some(port))
    }

    pub(super) fn get_mut(&mut self, id: IfaceId) -> Option<&mut Iface> {
        self.list.get_mut(usize::from(id.0))?.as_mut()
    }

    /// Adds an interface, or puts it in the place of the one of that number.
    pub(super) fn set(&mut self, iface: Iface) {
        let index = usize::from(iface.id.0);
        if self.list.len() <= index {
            self.list.resize_with(index + 1, || None);
        }
        self.list[index] = Some(iface);
        self.rebuild();
    }

    pub(super) fn remove(&mut self, id: IfaceId) -> Option<Iface> {
        let gone = self.list.get_mut(usize::from(id.0))?.take();
        self.rebuild();
        gone
    }

    /// Lays the way from ports to interfaces out anew; interfaces change seldom.
    fn rebuild(&mut self) {
        self.ingress.clear();
        for iface in self.list.iter().flatten() {
            let Some(port) = iface.port else { continue };
            let last = port.0.max(iface.companion.map_or(0, |c| c.0));
            while self.ingress.len() <= usize::from(last) {
                self.ingress.push(Ingress {
                    untagged: NONE,
                    tagged: None,
                    companion_of: None,
                });
            }
            let entry = &mut self.ingress[usize::from(port.0)];
            match iface.vlan {
                None => entry.untagged = iface.id.0,
                Some(vid) => {
                    entry.tagged.get_or_insert_with(|| Box::new([NONE; 4096]))
                        [usize::from(vid & 0xfff)] = iface.id.0;
                }
            }
            if let Some(companion) = iface.companion {
                self.ingress[usize::from(companion.0)].companion_of = Some(port);
            }
        }
    }
}
