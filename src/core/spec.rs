//! What an operator says a service or a real server is, in checked form: the control thread makes these from requests,
//! keeps them as the master tables, and sends them to the workers. No state of the packet path is in here.

use std::net::IpAddr;

use crate::types::Af;

/// What makes a virtual service that service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceKey {
    /// An address, a port (0: all ports) and a protocol (6, 17 or 132).
    Addr {
        /// IP protocol number.
        proto: u8,
        /// The virtual address.
        addr: IpAddr,
        /// The virtual port, host byte order; 0 stands for all ports.
        port: u16,
    },
    /// A firewall mark, one service for each address family.
    Mark {
        /// The mark, not 0.
        mark: u32,
        /// The family of the packets it is for.
        af: Af,
    },
}

impl ServiceKey {
    /// The virtual address; a service by mark has none.
    pub fn addr(&self) -> Option<IpAddr> {
        match self {
            ServiceKey::Addr { addr, .. } => Some(*addr),
            ServiceKey::Mark { .. } => None,
        }
    }

    /// The address family of the service's clients.
    pub fn af(&self) -> Af {
        match self {
            ServiceKey::Addr { addr, .. } => Af::of(*addr),
            ServiceKey::Mark { af, .. } => *af,
        }
    }
}

/// The schedulers of Linux 6.x, by the names operators type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum SchedKind {
    Rr,
    Wrr,
    Lc,
    Wlc,
    Fo,
    Ovf,
    Lblc,
    Lblcr,
    Dh,
    Sh,
    Sed,
    Nq,
    Mh,
    Twos,
}

impl SchedKind {
    /// Every scheduler with its name.
    pub const ALL: [(SchedKind, &'static str); 14] = [
        (SchedKind::Rr, "rr"),
        (SchedKind::Wrr, "wrr"),
        (SchedKind::Lc, "lc"),
        (SchedKind::Wlc, "wlc"),
        (SchedKind::Fo, "fo"),
        (SchedKind::Ovf, "ovf"),
        (SchedKind::Lblc, "lblc"),
        (SchedKind::Lblcr, "lblcr"),
        (SchedKind::Dh, "dh"),
        (SchedKind::Sh, "sh"),
        (SchedKind::Sed, "sed"),
        (SchedKind::Nq, "nq"),
        (SchedKind::Mh, "mh"),
        (SchedKind::Twos, "twos"),
    ];

    /// The scheduler of that name.
    pub fn from_name(name: &str) -> Option<SchedKind> {
        Self::ALL
            .iter()
            .find(|(_, n)| *n == name)
            .map(|(kind, _)| *kind)
    }

    /// The name operators type.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or("", |(_, name)| name)
    }
}

/// Service flags, with the bit values of `linux/ip_vs.h`.
pub mod service_flags {
    /// Persistent (session affinity).
    pub const PERSISTENT: u32 = 0x1;
    /// One-packet scheduling.
    pub const ONE_PACKET: u32 = 0x4;
    /// Scheduler flag 1: `sh-fallback`, `mh-fallback`.
    pub const SCHED1: u32 = 0x8;
    /// Scheduler flag 2: `sh-port`, `mh-port`.
    pub const SCHED2: u32 = 0x10;
    /// Scheduler flag 3.
    pub const SCHED3: u32 = 0x20;
}

/// A virtual service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// What it is known by.
    pub key: ServiceKey,
    /// Its scheduler; `None` where it was added without one (the kernel allows it: such a service has no server).
    pub sched: Option<SchedKind>,
    /// Bits of [`service_flags`].
    pub flags: u32,
    /// Length of the affinity window in seconds, where PERSISTENT is set.
    pub timeout: u32,
    /// Length in bits of the prefix by which clients count as one: /32 or /128 unless `-M` said otherwise. IPv4 masks need
    /// not be prefixes: there it is the mask itself, host byte order; for IPv6 a prefix length.
    pub netmask: u32,
    /// Whether the persistence engine `sip` is on.
    pub pe_sip: bool,
    /// Whether all new connections are scheduled at one worker, in the order of one kernel.
    pub exact: bool,
}

/// How packets reach a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forward {
    /// NAT (`-m`).
    Masq,
    /// Direct routing (`-g`).
    Route,
    /// A tunnel (`-i`).
    Tunnel,
    /// Delivery on the balancer itself: the kernel's answer where a server's address is its own.
    Local,
    /// Sent on to its own destination, without a server (cache_bypass).
    Bypass,
}

/// Encapsulation of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TunnelKind {
    /// IP in IP (RFC 2003, RFC 2473).
    Ipip,
    /// Generic UDP encapsulation (draft-ietf-intarea-gue) to this UDP port.
    Gue {
        /// UDP destination port, host byte order.
        port: u16,
    },
    /// GRE (RFC 2784).
    Gre,
}

/// Checksum mode of GUE and GRE tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TunnelCsum {
    /// `--tun-nocsum`
    None,
    /// `--tun-csum`
    Full,
    /// `--tun-remcsum`: GUE's remote checksum offload.
    Remote,
}

/// A real server of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestSpec {
    /// Its address; of another family than the service's only with [`Forward::Tunnel`].
    pub addr: IpAddr,
    /// Its port, host byte order.
    pub port: u16,
    /// How packets reach it.
    pub forward: Forward,
    /// Its weight, 0 (quiesced) and up.
    pub weight: i32,
    /// Upper connection threshold, 0 for none.
    pub upper: u32,
    /// Lower connection threshold, 0 for none.
    pub lower: u32,
    /// Encapsulation where `forward` is a tunnel.
    pub tunnel: TunnelKind,
    /// Checksum mode of that encapsulation.
    pub tunnel_csum: TunnelCsum,
}
