//! What became of a packet: the one verdict each ends in, the named reasons for drops, and the counters whose sum holds at
//! any moment. Whoever consumes a frame counts its verdict; nothing here looks at packets.

use crate::frag::FragDrop;

/// Declares [`Drop`] from one table of variant, operator's name and meaning.
macro_rules! drops {
    ($($variant:ident $name:literal $doc:literal)*) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Drop {
            $(#[doc = $doc] $variant,)*
        }

        impl Drop {
            /// Every reason with the name and the meaning that operators see, in the order of the counters.
            pub const ALL: &'static [(Drop, &'static str, &'static str)] =
                &[$((Drop::$variant, $name, $doc),)*];
        }
    };
}

drops! {
    // Ethernet
    Runt "runt" "the frame is shorter than its headers"
    UnknownPort "unknown-port" "no interface is configured on the port"
    UnknownVlan "unknown-vlan" "no interface has the VLAN tag"
    IfaceDown "iface-down" "the interface is down"
    MacNotOurs "mac-not-ours" "the destination MAC address is another host's"
    EtherType "ether-type" "neither IPv4, IPv6 nor ARP, and no host behind the port"
    NoMemory "no-memory" "no buffer was free"
    NoHeadroom "no-headroom" "a header found no room before or after the packet"
    // IP
    BadHeader "bad-header" "the IP header contradicts itself or its checksum is wrong"
    BadChecksum "bad-checksum" "the checksum of ICMP, or of an FTP control connection's packet, is wrong"
    BadOption "bad-option" "an IP option or extension header cannot be read or must not pass"
    MartianSource "martian-source" "the source address must not appear on a wire, or is ours"
    MartianDest "martian-dest" "the destination address must not appear on a wire"
    LinkLocal "link-local" "a link-local address is not forwarded"
    Multicast "multicast" "a multicast group that nobody here listens to"
    Broadcast "broadcast" "a broadcast that nobody here listens to"
    NotForHost "not-for-host" "addressed to us by Ethernet multicast, so not to be forwarded"
    NoRoute "no-route" "no route to the destination"
    TtlExceeded "ttl-exceeded" "TTL or hop limit used up"
    TooBig "too-big" "larger than the MTU, and must not be fragmented"
    FragmentFailed "fragment-failed" "could not be cut into fragments"
    // Neighbours
    NeighQueueFull "neigh-queue-full" "too many packets wait for the neighbour's address already"
    NeighFailed "neigh-failed" "the neighbour did not answer"
    NeighTableFull "neigh-table-full" "no room for another neighbour"
    NeighGone "neigh-gone" "the neighbour entry was removed while the packet waited or was under way"
    // ARP, ND, ICMP, host
    ArpInvalid "arp-invalid" "not a valid ARP packet for Ethernet and IPv4"
    ArpNotOurs "arp-not-ours" "an ARP request for another host's address"
    NdInvalid "nd-invalid" "a neighbour discovery packet that RFC 4861 says to discard"
    NdNotOurs "nd-not-ours" "a neighbour solicitation for another host's address"
    NdIgnored "nd-ignored" "neighbour discovery that is no business of a router's"
    EchoBroadcast "echo-broadcast" "an echo request to a broadcast or multicast address"
    HostNoCompanion "host-no-companion" "the host's own, but the port has no companion interface"
    // IPVS
    NoDest "no-dest" "the service has no server that can be had"
    DestGone "dest-gone" "the connection's server was removed"
    NoConn "no-conn" "a server's packet of no connection, and the server was told"
    ConnTableFull "conn-table-full" "the limit on connections is reached"
    DropPacket "drop-packet" "dropped by the sysctl drop_packet"
    NoCallId "no-call-id" "the service persists by SIP Call-ID, and the packet has none"
    FtpFull "ftp-full" "too many FTP control connections wait for an answer or have shifted numbers"
    Truncated "truncated" "the packet ends within its transport header"
    PathMtu "path-mtu" "an ICMP error about a tunnel's size, taken in"
    RingFull "ring-full" "no room in the ring to another worker"
    FragmentInvalid "fragment-invalid" "a fragment that contradicts the others, overlaps them, or is malformed"
    FragmentNoRoom "fragment-no-room" "no room for more fragments"
    ReassemblyTimeout "reassembly-timeout" "the datagram's other fragments did not come in time"
    CompanionUnknown "companion-unknown" "came from a companion that belongs to no port"
}

impl Drop {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The name that operators see.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

impl From<FragDrop> for Drop {
    fn from(reason: FragDrop) -> Drop {
        match reason {
            FragDrop::NoRoom => Drop::FragmentNoRoom,
            FragDrop::NoFrame => Drop::NoMemory,
            _ => Drop::FragmentInvalid,
        }
    }
}

/// How a packet ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Sent on, or sent by us.
    Forwarded,
    /// Given to the host behind the companion interface.
    Host,
    /// Answered or taken in by us: ARP, neighbour discovery, echo, fragments that a datagram was put together from.
    Answered,
    /// Dropped.
    Dropped(Drop),
}

/// Where packets wait that have no verdict yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Held {
    /// For a neighbour's MAC address.
    Neighbour,
    /// For the other fragments of their datagram.
    Reassembly,
    /// In a ring on the way to another worker.
    Ring,
}

impl Held {
    /// Every place with the name that operators see.
    pub const ALL: &'static [(Held, &'static str)] = &[
        (Held::Neighbour, "neighbour"),
        (Held::Reassembly, "reassembly"),
        (Held::Ring, "ring"),
    ];
    /// How many places there are.
    pub const COUNT: usize = Self::ALL.len();
}

/// The packet counters of one worker. At any moment between packets
/// `received + generated = forwarded + host + answered + dropped + held` ([`Counters::balanced`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Frames taken from ports, and from other workers.
    pub received: u64,
    /// Frames made here: ARP requests, ICMP errors, fragments beyond the first.
    pub generated: u64,
    /// Frames sent on, or sent by us.
    pub forwarded: u64,
    /// Frames given to the host.
    pub host: u64,
    /// Frames answered or taken in by us.
    pub answered: u64,
    /// Frames dropped, by [`Drop`].
    pub dropped: [u64; Drop::COUNT],
    /// Frames that wait now, by [`Held`]. A ring's are counted up by the worker that sends and down by the one that takes:
    /// only the wrapping sum over all workers has a meaning there.
    pub held: [u64; Held::COUNT],
}

impl Default for Counters {
    fn default() -> Self {
        Counters {
            received: 0,
            generated: 0,
            forwarded: 0,
            host: 0,
            answered: 0,
            dropped: [0; Drop::COUNT],
            held: [0; Held::COUNT],
        }
    }
}

impl Counters {
    /// Counts a frame's verdict.
    #[inline]
    pub fn done(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Forwarded => self.forwarded += 1,
            Verdict::Host => self.host += 1,
            Verdict::Answered => self.answered += 1,
            Verdict::Dropped(reason) => self.dropped[reason as usize] += 1,
        }
    }

    /// Counts a frame that waits from now on.
    #[inline]
    pub fn hold(&mut self, place: Held) {
        self.held[place as usize] = self.held[place as usize].wrapping_add(1);
    }

    /// Counts a frame that waits no longer; its verdict follows.
    #[inline]
    pub fn release(&mut self, place: Held) {
        self.held[place as usize] = self.held[place as usize].wrapping_sub(1);
    }

    /// Counts fragments that waited and are dropped.
    pub fn abandon(&mut self, reason: Drop, frames: usize) {
        let frames = frames as u64;
        let held = &mut self.held[Held::Reassembly as usize];
        *held = held.wrapping_sub(frames);
        self.dropped[reason as usize] += frames;
    }

    /// Counts fragments that waited and are part of a whole datagram now: the datagram goes on as one frame, the others
    /// have been taken in.
    pub fn absorb(&mut self, frames: usize) {
        let frames = frames as u64;
        let held = &mut self.held[Held::Reassembly as usize];
        *held = held.wrapping_sub(frames);
        self.answered += frames;
    }

    /// How many were dropped for a reason.
    pub fn dropped_for(&self, reason: Drop) -> u64 {
        self.dropped[reason as usize]
    }

    /// How many were dropped.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// How many wait now.
    pub fn held_total(&self) -> u64 {
        self.held.iter().fold(0, |sum: u64, n| sum.wrapping_add(*n))
    }

    /// Whether every frame that came or was made has one verdict or waits.
    pub fn balanced(&self) -> bool {
        self.received + self.generated
            == self.forwarded + self.host + self.answered + self.dropped_total() + self.held_total()
    }
}

impl std::ops::AddAssign<&Counters> for Counters {
    fn add_assign(&mut self, other: &Counters) {
        self.received += other.received;
        self.generated += other.generated;
        self.forwarded += other.forwarded;
        self.host += other.host;
        self.answered += other.answered;
        for (sum, n) in self.dropped.iter_mut().zip(&other.dropped) {
            *sum += n;
        }
        for (sum, n) in self.held.iter_mut().zip(&other.held) {
            *sum = sum.wrapping_add(*n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_named_once_in_kebab_case_and_indexed_by_position() {
        let mut names: Vec<_> = Drop::ALL.iter().map(|(_, name, _)| *name).collect();
        for (i, (reason, name, _)) in Drop::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
            assert_eq!(reason.name(), *name);
            assert!(
                name.chars().all(|c| c.is_ascii_lowercase() || c == '-'),
                "{name}"
            );
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Drop::COUNT);
    }

    #[test]
    fn a_frame_without_verdict_unbalances_the_sum_until_it_has_one() {
        let mut counters = Counters {
            received: 1,
            ..Counters::default()
        };
        assert!(!counters.balanced());
        counters.hold(Held::Neighbour);
        assert!(counters.balanced());
        counters.release(Held::Neighbour);
        assert!(!counters.balanced());
        counters.done(Verdict::Dropped(Drop::NeighFailed));
        assert!(counters.balanced());
        let mut sum = counters.clone();
        sum += &counters;
        assert_eq!(sum.dropped_for(Drop::NeighFailed), 2);
        assert!(sum.balanced());
    }
}
