//! Records of the network layer: interfaces, addresses, routes, neighbours, mark rules.

use std::net::IpAddr;

use super::field::{record, states};
use super::value::{Mac, PortRange, Prefix};

states! {
    /// What an interface is.
    pub enum PortKind {
        /// A DPDK device.
        1 Port = "port",
        /// A VLAN of another interface.
        2 Vlan = "vlan",
        /// Where the balancer's own addresses are that are on no network.
        3 Loopback = "loopback",
        /// A bond of others.
        4 Bond = "bond",
    }
}

record! {
    /// An interface and its counters. Counters of a VLAN are those of its frames; they are in its port's too.
    pub struct Port {
        /// Its name, as in the configuration.
        1 name: String,
        /// What it is.
        2 kind: PortKind,
        /// Whether it is to work.
        3 up: bool,
        /// Whether its device has a link.
        4 link: bool,
        /// Its Ethernet address; the loopback has none.
        5 mac: Option<Mac>,
        /// Largest IP packet, bytes.
        6 mtu: u32,
        /// Its VLAN, where it is one.
        7 vlan: Option<u16>,
        /// DPDK's name of the device, or the interface that a VLAN is on.
        8 device: Option<String>,
        /// DPDK's name of the driver.
        9 driver: Option<String>,
        /// The companion interface that the host sees, if there is one.
        10 companion: Option<String>,
        /// Receive queues.
        11 rx_queues: u16,
        /// Transmit queues.
        12 tx_queues: u16,
        /// Frames received by workers.
        13 rx_packets: u64,
        /// Their bytes, without the frame check sequence.
        14 rx_bytes: u64,
        /// Frames sent.
        15 tx_packets: u64,
        /// Their bytes, without the frame check sequence.
        16 tx_bytes: u64,
        /// Frames that the device dropped as no worker fetched them in time.
        17 rx_missed: u64,
        /// Frames that came damaged.
        18 rx_errors: u64,
        /// Frames that the device dropped for lack of buffers.
        19 rx_no_buffers: u64,
        /// Frames that the device did not take for sending.
        20 tx_dropped: u64,
    }
}

record! {
    /// A change of an interface: what is there is changed.
    pub struct PortChange {
        /// The interface's name.
        1 name: String,
        /// Whether it is to work.
        2 up: Option<bool>,
        /// Its Ethernet address.
        3 mac: Option<Mac>,
        /// Largest IP packet, bytes.
        4 mtu: Option<u32>,
    }
}

record! {
    /// An address of the balancer's.
    pub struct Addr {
        /// The address and how much of it is the network.
        1 addr: Prefix,
        /// The interface's name.
        2 dev: String,
    }
}

states! {
    /// Where a route comes from.
    pub enum RouteKind {
        /// An operator's.
        1 Static = "static",
        /// The network of an address.
        2 Connected = "connected",
        /// The balancer itself.
        3 Local = "local",
    }
}

record! {
    /// A route.
    pub struct Route {
        /// Where to.
        1 prefix: Prefix,
        /// By which router; none where the destination is on the network.
        2 via: Option<IpAddr>,
        /// By which interface; by the router's address where it is not told.
        3 dev: Option<String>,
        /// Largest IP packet that goes that way, bytes; the interface's where it is not told.
        4 mtu: Option<u32>,
        /// Only for packets with such a source. Such routes go first.
        5 from: Option<Prefix>,
        /// Where it comes from. Requests have static ones.
        6 kind: RouteKind,
    }
}

states! {
    /// How sure a neighbour's Ethernet address is (RFC 4861, section 7.3.2).
    pub enum NeighState {
        /// Asked for, not answered yet.
        1 Incomplete = "incomplete",
        /// Known.
        2 Reachable = "reachable",
        /// Not heard of for a while.
        3 Stale = "stale",
        /// Asked for again.
        4 Probe = "probe",
        /// Asked for, and given up.
        5 Failed = "failed",
        /// An operator's.
        6 Permanent = "permanent",
    }
}

record! {
    /// A neighbour.
    pub struct Neigh {
        /// Its address.
        1 addr: IpAddr,
        /// The interface's name.
        2 dev: String,
        /// Its Ethernet address, where it is known.
        3 mac: Option<Mac>,
        /// How sure that is. Requests have permanent ones.
        4 state: NeighState,
        /// Packets that wait for it.
        5 waiting: u32,
    }
}

record! {
    /// What comes in and is like this gets a mark. The last rule that fits decides, as where netfilter sets marks one after
    /// the other.
    pub struct MarkRule {
        /// The mark, not 0.
        1 mark: u32,
        /// IP protocol number; any where it is not told.
        2 protocol: Option<u8>,
        /// Sources; any where it is not told.
        3 src: Option<Prefix>,
        /// Destinations; any where it is not told.
        4 dst: Option<Prefix>,
        /// Source ports; any where there are none. Only with TCP, UDP or SCTP.
        5 sports: Vec<PortRange>,
        /// Destination ports; any where there are none. Only with TCP, UDP or SCTP.
        6 dports: Vec<PortRange>,
        /// The interface it comes in by; any where it is not told.
        7 dev: Option<String>,
    }
}

record! {
    /// A mark whose packets are the balancer's own, whatever their address: what `ip rule` with a local route does on
    /// Linux.
    pub struct Divert {
        /// The mark.
        1 mark: u32,
    }
}
