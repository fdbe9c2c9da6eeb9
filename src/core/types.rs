//! The small types that everything else in the core speaks in: identifiers, time, protocols.

/// One of the poll-mode workers, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u16);

/// A network interface: a port's own, a VLAN's on it, a bond's, or `lo`. Index into the interface table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IfaceId(pub u16);

/// A virtual service: the slot the control thread gave it. The same number on every worker; used again only after every
/// worker has let go of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId(pub u32);

/// A dest (real server) of one service: the slot the control thread gave it, under the same rules as [`ServiceId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DestId(pub u32);

/// A moment, in nanoseconds of a monotonic clock that began with the process. Read once a burst and handed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Time(pub u64);

impl Time {
    /// This moment in ticks, as connections' timers count.
    pub fn tick(self) -> Tick {
        Tick((self.0 / Tick::NANOS) as u32)
    }

    /// The moment `seconds` before or after the clock's start.
    pub const fn from_secs(seconds: u64) -> Time {
        Time(seconds * 1_000_000_000)
    }
}

/// A moment in hundredths of a second, wrapping after 497 days: only differences of up to half of that have a meaning,
/// and the longest timeout that IPVS takes is 31 days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tick(pub u32);

impl Tick {
    /// Nanoseconds in a tick.
    pub const NANOS: u64 = 10_000_000;
    /// Ticks in a second.
    pub const HZ: u32 = 100;

    /// Whether this moment is at or after `other`.
    pub fn reached(self, other: Tick) -> bool {
        self.0.wrapping_sub(other.0) as i32 >= 0
    }

    /// The moment `ticks` later.
    pub fn plus(self, ticks: u32) -> Tick {
        Tick(self.0.wrapping_add(ticks))
    }

    /// Ticks from `now` until this moment; 0 where it has passed.
    pub fn until(self, now: Tick) -> u32 {
        (self.0.wrapping_sub(now.0) as i32).max(0) as u32
    }
}

/// An address family, in the order of the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Af {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Af {
    /// The family of an address.
    pub fn of(addr: std::net::IpAddr) -> Af {
        if addr.is_ipv4() {
            Af::V4
        } else {
            Af::V6
        }
    }
}

/// IP protocol numbers used here (IANA "Assigned Internet Protocol Numbers").
pub mod proto {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP.
    pub const IPIP: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP.
    pub const IPV6: u8 = 41;
    /// Generic routing encapsulation.
    pub const GRE: u8 = 47;
    /// Encapsulating security payload.
    pub const ESP: u8 = 50;
    /// Authentication header.
    pub const AH: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}
