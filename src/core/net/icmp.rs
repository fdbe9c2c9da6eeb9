//! ICMP errors of our own, as the kernel's `icmp_send` and `icmp6_send` make them: when to send one, from which address, how
//! much to quote. Translating the errors of others is IPVS's business, not ours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ripvs_packet::checksum::{self, Sum};
use ripvs_packet::icmp::{self, v4, v6};
use ripvs_packet::ipv4::Ipv4;
use ripvs_packet::ipv6::Ipv6;
use ripvs_packet::{ipv4, ipv6, Frame, PacketIo};

use super::echo::TTL;
use super::iface::MacKind;
use super::ingress::Ingress;
use super::route::{is_link_local, source_for, LocalKind, RouteHit};
use super::Net;
use crate::types::{proto, Time};
use crate::verdict::{Drop, Verdict};

/// Room for the longest error.
pub(super) const SCRATCH: usize = ipv6::MIN_MTU;
/// The longest ICMP error for IPv4 (RFC 1812 section 4.3.2.3).
const V4_MAX: usize = 576;
/// What an error's quotation comes after.
const V4_QUOTE: usize = ipv4::HEADER_LEN + icmp::HEADER_LEN;
const V6_QUOTE: usize = ipv6::HEADER_LEN + icmp::HEADER_LEN;
/// Precedence "internetwork control", which errors have (RFC 1812 section 4.3.2.5).
const INTERNETWORK_CONTROL: u8 = 0xc0;
/// The bits of the offending packet's type of service that an error keeps (`RT_TOS`).
const TOS_KEPT: u8 = 0x1e;

/// What to tell the sender of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpKind {
    /// No route to the destination (IPv4: net unreachable).
    NoRoute,
    /// The destination, or the router to it, does not answer (IPv6: address unreachable).
    HostUnreachable,
    /// Nobody takes the protocol; `pointer` is where its number lies (IPv6).
    ProtocolUnreachable {
        /// Offset in bytes from the start of the IP header.
        pointer: u16,
    },
    /// Nobody takes the port.
    PortUnreachable,
    /// Forbidden by an operator.
    Prohibited,
    /// The packet is link-local and would have to leave its link (IPv6: beyond scope of source address).
    BeyondScope,
    /// Larger than this MTU, in bytes, and not to be fragmented.
    TooBig(u16),
    /// TTL or hop limit used up.
    TtlExceeded,
    /// Not all fragments came in time.
    ReassemblyTimeExceeded,
    /// Something in the packet cannot be read.
    ParamProblem {
        /// The ICMP code.
        code: u8,
        /// Offset in bytes from the start of the IP header.
        pointer: u16,
    },
    /// What another's IPv4 error said, told on.
    Raw {
        /// ICMP type.
        kind: u8,
        /// ICMP code.
        code: u8,
        /// The four bytes behind the checksum.
        rest: u32,
    },
}

impl IcmpKind {
    /// Type, code, and the four bytes behind the checksum.
    fn v4(self) -> (u8, u8, u32) {
        match self {
            IcmpKind::NoRoute => (v4::DEST_UNREACH, v4::NET_UNREACH, 0),
            IcmpKind::HostUnreachable | IcmpKind::BeyondScope => {
                (v4::DEST_UNREACH, v4::HOST_UNREACH, 0)
            }
            IcmpKind::ProtocolUnreachable { .. } => (v4::DEST_UNREACH, v4::PROT_UNREACH, 0),
            IcmpKind::PortUnreachable => (v4::DEST_UNREACH, v4::PORT_UNREACH, 0),
            // "Communication administratively prohibited" (RFC 1812 section 5.2.7.1).
            IcmpKind::Prohibited => (v4::DEST_UNREACH, 13, 0),
            IcmpKind::TooBig(mtu) => (v4::DEST_UNREACH, v4::FRAG_NEEDED, u32::from(mtu)),
            IcmpKind::TtlExceeded => (v4::TIME_EXCEEDED, v4::TTL_EXCEEDED, 0),
            IcmpKind::ReassemblyTimeExceeded => (v4::TIME_EXCEEDED, v4::FRAG_TIME_EXCEEDED, 0),
            IcmpKind::ParamProblem { code, pointer } => {
                (v4::PARAM_PROBLEM, code, u32::from(pointer) << 24)
            }
            IcmpKind::Raw { kind, code, rest } => (kind, code, rest),
        }
    }

    /// Type, code, and the four bytes behind the checksum.
    fn v6(self) -> (u8, u8, u32) {
        match self {
            IcmpKind::NoRoute => (v6::DEST_UNREACH, v6::NO_ROUTE, 0),
            IcmpKind::HostUnreachable => (v6::DEST_UNREACH, v6::ADDR_UNREACH, 0),
            IcmpKind::ProtocolUnreachable { pointer } => (
                v6::PARAM_PROBLEM,
                v6::UNKNOWN_NEXT_HEADER,
                u32::from(pointer),
            ),
            IcmpKind::PortUnreachable => (v6::DEST_UNREACH, v6::PORT_UNREACH, 0),
            // Codes 1 and 2 of RFC 4443 section 3.1.
            IcmpKind::Prohibited => (v6::DEST_UNREACH, 1, 0),
            IcmpKind::BeyondScope => (v6::DEST_UNREACH, 2, 0),
            IcmpKind::TooBig(mtu) => (v6::PACKET_TOO_BIG, 0, u32::from(mtu)),
            IcmpKind::TtlExceeded => (v6::TIME_EXCEEDED, v6::HOP_LIMIT_EXCEEDED, 0),
            IcmpKind::ReassemblyTimeExceeded => (v6::TIME_EXCEEDED, v6::FRAG_TIME_EXCEEDED, 0),
            IcmpKind::ParamProblem { code, pointer } => {
                (v6::PARAM_PROBLEM, code, u32::from(pointer))
            }
            IcmpKind::Raw { kind, code, rest } => (kind, code, rest),
        }
    }

    /// Whether it is an error about something in the packet that its sender must hear of even where it went to a group.
    fn for_multicast(self) -> bool {
        matches!(
            self,
            IcmpKind::TooBig(_)
                | IcmpKind::ParamProblem {
                    code: v6::UNKNOWN_OPTION,
                    ..
                }
        )
    }
}

/// An error of our own that IPVS is to have a look at.
pub struct OwnError<F> {
    /// The error, from its IP header on.
    pub frame: F,
    /// Its way.
    pub hit: RouteHit,
}

/// The packet that an error is about, as its quotation shall show it.
pub struct Offender<'a, F> {
    frame: &'a F,
    l3: usize,
    rx: Option<&'a Ingress>,
    src: Option<IpAddr>,
    rewritten: bool,
}

impl<'a, F: Frame> Offender<'a, F> {
    /// The packet that begins `l3` bytes into the frame.
    pub fn new(frame: &'a F, l3: usize) -> Self {
        Offender {
            frame,
            l3,
            rx: None,
            src: None,
            rewritten: false,
        }
    }

    /// It came in so. Nothing is told about frames to groups of stations, and IPv6 takes the error's source from the
    /// interface where it can.
    pub fn from(mut self, rx: &'a Ingress) -> Self {
        self.rx = Some(rx);
        self
    }

    /// It is as it was to leave, perhaps rewritten by IPVS, which is to have a look at the error. One of IPv4 is told of by
    /// the address we have towards its sender then, even where it went to one of ours (direct routing).
    pub fn rewritten(mut self) -> Self {
        self.rewritten = true;
        self
    }

    /// The error is to come from this address, whatever the rule says (a packet that a firewall mark made ours).
    pub fn told_by(mut self, src: IpAddr) -> Self {
        self.src = Some(src);
        self
    }
}

impl<F: Frame> Net<F> {
    /// Tells the sender of a packet what became of it. Returns whether an error was made: not for errors, non-first
    /// fragments, broadcasts, groups, senders that are no single host, senders without a route, and beyond the limit. The
    /// offending frame and its verdict stay with the caller.
    ///
    /// The error comes from the packet's destination where that is ours (a VIP), else from the address we have towards its
    /// sender (`icmp_errors_use_inbound_ifaddr` is off).
    pub fn icmp_error<IO: PacketIo<Frame = F>>(
        &mut self,
        now: Time,
        about: Offender<'_, F>,
        kind: IcmpKind,
        io: &mut IO,
    ) -> bool {
        let mut first = [0];
        about.frame.copy_to(about.l3, &mut first);
        let made = match first[0] >> 4 {
            4 => self.make_v4(now, &about, kind),
            6 => self.make_v6(now, &about, kind),
            _ => None,
        };
        let Some((len, hit)) = made else {
            return false;
        };
        self.counters.generated += 1;
        match io.alloc(&self.scratch[..len]) {
            Some(frame) => self.own_errors.push_back(OwnError { frame, hit }),
            None => self.counters.done(Verdict::Dropped(Drop::NoMemory)),
        }
        true
    }

    /// The way to a packet's sender, who may be ourselves.
    fn way_back(&self, rx: Option<&Ingress>, to: IpAddr, from: Option<IpAddr>) -> Option<RouteHit> {
        let own = || {
            let hit = self.route(to, from)?;
            (hit.local && !is_link_local(to)).then_some(hit)
        };
        self.route_back(rx, to, from).or_else(own)
    }

    /// An error that IPVS is to have a look at before it leaves.
    pub fn take_own_error(&mut self) -> Option<OwnError<F>> {
        self.own_errors.pop_front()
    }

    /// ICMP errors held back by the limit.
    pub fn icmp_limited(&self) -> u64 {
        self.limiter.refused
    }

    fn limited(&mut self, now: Time, to: IpAddr, kind: IcmpKind) -> bool {
        !matches!(kind, IcmpKind::TooBig(_)) && !self.limiter.allow(now, to)
    }

    /// Puts an error for an IPv4 packet together in `scratch`.
    fn make_v4(
        &mut self,
        now: Time,
        about: &Offender<'_, F>,
        kind: IcmpKind,
    ) -> Option<(usize, RouteHit)> {
        if about.rx.is_some_and(|rx| rx.mac != MacKind::Host) {
            return None;
        }
        let copied = about
            .frame
            .copy_to(about.l3, &mut self.scratch[V4_QUOTE..V4_MAX]);
        let quoted = &self.scratch[V4_QUOTE..V4_QUOTE + copied];
        let header = Ipv4::new(quoted)?;
        let (src, dst) = (Ipv4Addr::from(header.src()), Ipv4Addr::from(header.dst()));
        let tos = header.tos() & TOS_KEPT | INTERNETWORK_CONTROL;
        let whole = usize::from(header.total_len());
        if header.fragment() & ipv4::OFFSET_MASK != 0 {
            return None;
        }
        if header.protocol() == proto::ICMP {
            // About any but the known questions and answers nothing is told.
            let inner = *quoted.get(header.header_len())?;
            if !matches!(inner, v4::ECHO_REPLY | v4::ECHO | 13..=18) {
                return None;
            }
        }
        let to_all = |a: Ipv4Addr| {
            a.is_broadcast()
                || a.is_multicast()
                || self.routes.local(a.into()) == Some(LocalKind::Broadcast)
        };
        if to_all(dst) || to_all(src) || src.is_unspecified() || src.is_loopback() {
            return None;
        }
        let told_by = match about.src {
            Some(IpAddr::V4(own)) => Some(own),
            _ => (!about.rewritten && self.is_local(dst.into())).then_some(dst),
        };
        let hit = self.way_back(about.rx, src.into(), told_by.map(IpAddr::V4))?;
        let from = match told_by {
            Some(own) => own,
            None if hit.local => src,
            None => match source_for(&self.ifaces, src.into(), &hit)? {
                IpAddr::V4(own) => own,
                IpAddr::V6(_) => return None,
            },
        };
        if kind == IcmpKind::NoRoute && !self.limiter.allow_no_route(now, src.into()) {
            return None;
        }
        if self.limited(now, src.into(), kind) {
            return None;
        }
        let most = V4_MAX.min(usize::from(hit.mtu)).checked_sub(V4_QUOTE)?;
        let len = V4_QUOTE + copied.min(whole).min(most);
        let header = ipv4::build(&ipv4::NewHeader {
            tos,
            total_len: len as u16,
            id: self.next_ip_id(),
            fragment: 0,
            ttl: TTL,
            protocol: proto::ICMP,
            src: from.octets(),
            dst: src.octets(),
        });
        self.scratch[..ipv4::HEADER_LEN].copy_from_slice(&header);
        self.fill_icmp(ipv4::HEADER_LEN, len, kind.v4(), Sum::new());
        Some((len, hit))
    }

    /// Puts an error for an IPv6 packet together in `scratch`.
    fn make_v6(
        &mut self,
        now: Time,
        about: &Offender<'_, F>,
        kind: IcmpKind,
    ) -> Option<(usize, RouteHit)> {
        let copied = about.frame.copy_to(about.l3, &mut self.scratch[V6_QUOTE..]);
        let quoted = &self.scratch[V6_QUOTE..V6_QUOTE + copied];
        let header = Ipv6::new(quoted)?;
        let (src, dst) = (Ipv6Addr::from(header.src()), Ipv6Addr::from(header.dst()));
        let whole = match usize::from(header.payload_len()) {
            0 => copied,
            payload => ipv6::HEADER_LEN + payload,
        };
        let to_group = dst.is_multicast() || about.rx.is_some_and(|rx| rx.mac != MacKind::Host);
        if to_group && !kind.for_multicast() {
            return None;
        }
        if src.is_unspecified() || src.is_multicast() || src.is_loopback() {
            return None;
        }
        if is_icmpv6_error(quoted, whole) {
            return None;
        }
        let told_by = match about.src {
            Some(IpAddr::V6(own)) => Some(own),
            _ => (!to_group && self.is_local(dst.into())).then_some(dst),
        };
        let hit = self.way_back(about.rx, src.into(), told_by.map(IpAddr::V6))?;
        let from = match told_by {
            Some(own) => own,
            None if hit.local => src,
            None => {
                // As if sent by the interface that it came in by, wherever the way back leads.
                let as_if = RouteHit {
                    iface: about.rx.map_or(hit.iface, |rx| rx.iface),
                    ..hit
                };
                match source_for(&self.ifaces, src.into(), &as_if)? {
                    IpAddr::V6(own) => own,
                    IpAddr::V4(_) => return None,
                }
            }
        };
        if self.limited(now, src.into(), kind) {
            return None;
        }
        let len = V6_QUOTE + copied.min(whole);
        let payload_len = (len - ipv6::HEADER_LEN) as u16;
        let (from, to) = (from.octets(), src.octets());
        let header = ipv6::build(&ipv6::NewHeader {
            traffic_class: 0,
            flow_label: 0,
            payload_len,
            next_header: proto::ICMPV6,
            hop_limit: TTL,
            src: from,
            dst: to,
        });
        self.scratch[..ipv6::HEADER_LEN].copy_from_slice(&header);
        let pseudo = checksum::pseudo_v6(&from, &to, proto::ICMPV6, u32::from(payload_len));
        self.fill_icmp(ipv6::HEADER_LEN, len, kind.v6(), pseudo);
        Some((len, hit))
    }

    /// Writes the ICMP header at `at` before a quotation that ends at `end`.
    fn fill_icmp(&mut self, at: usize, end: usize, what: (u8, u8, u32), pseudo: Sum) {
        let message = &mut self.scratch[at..end];
        message[icmp::TYPE] = what.0;
        message[icmp::CODE] = what.1;
        message[icmp::CHECKSUM..icmp::REST].fill(0);
        message[icmp::REST..icmp::HEADER_LEN].copy_from_slice(&what.2.to_be_bytes());
        let check = pseudo.and(message).checksum();
        message[icmp::CHECKSUM..icmp::REST].copy_from_slice(&check.to_be_bytes());
    }
}

/// Whether a packet is an ICMPv6 error, or one of which that cannot be told (`is_ineligible`).
fn is_icmpv6_error(packet: &[u8], whole: usize) -> bool {
    let Ok(upper) = ipv6::walk(packet, whole) else {
        return false;
    };
    if upper.protocol != proto::ICMPV6 {
        return false;
    }
    let later_fragment = upper
        .fragment
        .and_then(|at| ipv6::Fragment::at(packet, at))
        .is_some_and(|fragment| fragment.offset() != 0);
    match packet.get(upper.offset) {
        _ if later_fragment => false,
        Some(&kind) => v6::is_error(kind),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{frame, ip, udp, Bed, ETH0};
    use super::super::{IcmpLimit, NetConfig};
    use super::*;
    use ripvs_packet::memory::MemFrame;

    const HOST: &str = "02:00:00:00:01:01";

    fn bed() -> Bed {
        let mut bed = Bed::new(NetConfig::default());
        bed.neigh(ETH0, "198.18.0.1", HOST);
        bed.neigh(ETH0, "2001:db8:18::1", HOST);
        bed
    }

    /// The ICMP packet that `kind` makes of a packet, from its IP header on.
    fn told(bed: &mut Bed, packet: &[u8], kind: IcmpKind) -> Option<Vec<u8>> {
        let offender = MemFrame::new(packet);
        let about = Offender::new(&offender, 0);
        let made = bed.net.icmp_error(bed.now, about, kind, &mut bed.io);
        bed.pass_own_errors();
        assert!(bed.net.counters.balanced());
        let mut sent = bed.sent();
        assert!(made || sent.is_empty());
        sent.pop().map(|(_, frame)| frame[14..].to_vec())
    }

    #[test]
    fn types_codes_and_words_are_those_of_the_rfcs() {
        let v4_packet = udp(ip("198.18.0.1"), ip("10.0.0.7"), 9);
        let v6_packet = udp(ip("2001:db8:18::1"), ip("2001:db8:10::7"), 9);
        let pointer = 21;
        for (kind, v4_says, v6_says) in [
            (IcmpKind::NoRoute, (3, 0, 0), (1, 0, 0)),
            (IcmpKind::HostUnreachable, (3, 1, 0), (1, 3, 0)),
            (
                IcmpKind::ProtocolUnreachable { pointer: 6 },
                (3, 2, 0),
                (4, 1, 6),
            ),
            (IcmpKind::PortUnreachable, (3, 3, 0), (1, 4, 0)),
            (IcmpKind::Prohibited, (3, 13, 0), (1, 1, 0)),
            (IcmpKind::BeyondScope, (3, 1, 0), (1, 2, 0)),
            (IcmpKind::TooBig(1400), (3, 4, 1400), (2, 0, 1400)),
            (IcmpKind::TtlExceeded, (11, 0, 0), (3, 0, 0)),
            (IcmpKind::ReassemblyTimeExceeded, (11, 1, 0), (3, 1, 0)),
            (
                IcmpKind::ParamProblem { code: 0, pointer },
                (12, 0, 21 << 24),
                (4, 0, 21),
            ),
        ] {
            for (packet, at, says) in [(&v4_packet, 20, v4_says), (&v6_packet, 40, v6_says)] {
                let error = told(&mut bed(), packet, kind).unwrap();
                let word = u32::from_be_bytes(error[at + 4..at + 8].try_into().unwrap());
                assert_eq!((error[at], error[at + 1], word), says, "{kind:?}");
                assert_eq!(&error[at + 8..], packet, "{kind:?}");
            }
        }
    }

    #[test]
    fn the_source_is_the_destination_where_that_is_ours_or_what_the_caller_says() {
        for (dst, told_by, source) in [
            ("192.0.2.100", None, "192.0.2.100"),
            ("203.0.113.9", None, "203.0.113.9"),
            ("10.0.0.7", None, "198.18.0.254"),
            ("10.0.0.7", Some("10.0.0.7"), "10.0.0.7"),
            ("2001:db8:2::100", None, "2001:db8:2::100"),
            ("2001:db8:10::7", None, "2001:db8:18::fe"),
        ] {
            let mut bed = bed();
            let v4 = ip(dst).is_ipv4();
            let src = if v4 { "198.18.0.1" } else { "2001:db8:18::1" };
            let offender = MemFrame::new(&udp(ip(src), ip(dst), 9));
            let mut about = Offender::new(&offender, 0);
            if let Some(addr) = told_by {
                about = about.told_by(ip(addr));
            }
            let kind = IcmpKind::PortUnreachable;
            assert!(bed.net.icmp_error(bed.now, about, kind, &mut bed.io));
            bed.pass_own_errors();
            let frame = &bed.sent()[0].1;
            let found = match v4 {
                true => IpAddr::from(<[u8; 4]>::try_from(&frame[26..30]).unwrap()),
                false => IpAddr::from(<[u8; 16]>::try_from(&frame[22..38]).unwrap()),
            };
            assert_eq!(found, ip(source), "{dst}");
        }
    }

    #[test]
    fn a_packet_in_segments_is_quoted_across_them_without_padding() {
        let mut packet = udp(ip("198.18.0.1"), ip("10.0.0.7"), 9);
        let whole = frame("02:00:00:00:00:01", HOST, 0x0800, &packet);
        packet.truncate(24);
        for cut in 15..whole.len() {
            let (a, b) = whole.split_at(cut);
            let offender = MemFrame::with_segments(&[a, b, &[0; 30]], 128);
            let mut bed = bed();
            let about = Offender::new(&offender, 14);
            let kind = IcmpKind::TtlExceeded;
            assert!(bed.net.icmp_error(bed.now, about, kind, &mut bed.io));
            bed.pass_own_errors();
            assert_eq!(bed.sent()[0].1[14 + 28..], packet);
        }
    }

    #[test]
    fn nobody_is_told_who_is_no_single_other_host() {
        for (src, dst) in [
            ("0.0.0.0", "10.0.0.7"),
            ("255.255.255.255", "10.0.0.7"),
            ("224.0.0.1", "10.0.0.7"),
            ("127.0.0.1", "10.0.0.7"),
            ("198.18.0.255", "10.0.0.7"),
            ("192.0.2.100", "10.0.0.7"),
            ("172.16.0.1", "10.0.0.7"),
            ("198.18.0.1", "224.0.0.1"),
            ("198.18.0.1", "10.0.0.255"),
            ("::", "2001:db8:10::7"),
            ("ff02::1", "2001:db8:10::7"),
            ("2001:db8:2::100", "2001:db8:10::7"),
            ("fe80::7", "2001:db8:10::7"),
            ("2001:db8:18::1", "ff02::1"),
        ] {
            let packet = udp(ip(src), ip(dst), 9);
            let error = told(&mut bed(), &packet, IcmpKind::PortUnreachable);
            assert_eq!(error, None, "{src} {dst}");
        }
        let to_group = udp(ip("2001:db8:18::1"), ip("ff02::1"), 9);
        assert!(told(&mut bed(), &to_group, IcmpKind::TooBig(1300)).is_some());
        for junk in [&[][..], &[0x45], &[0x60; 39], &[0x12; 60]] {
            assert_eq!(told(&mut bed(), junk, IcmpKind::TtlExceeded), None);
        }
    }

    #[test]
    fn the_limit_holds_but_not_for_path_mtus() {
        let mut bed = bed();
        bed.net.limiter = super::super::limit::Limiter::new(Some(IcmpLimit::default()));
        let packet = udp(ip("198.18.0.1"), ip("10.0.0.7"), 9);
        let count = |bed: &mut Bed, kind| {
            let errors = (0..20).filter_map(|_| told(bed, &packet, kind));
            errors.count()
        };
        assert_eq!(count(&mut bed, IcmpKind::TtlExceeded), 6);
        assert_eq!(bed.net.icmp_limited(), 14);
        assert_eq!(count(&mut bed, IcmpKind::TooBig(1400)), 20);
    }

    #[test]
    fn without_memory_the_error_is_a_counted_drop() {
        let mut bed = bed();
        bed.io.allocs_left = Some(0);
        let offender = MemFrame::new(&udp(ip("198.18.0.1"), ip("10.0.0.7"), 9));
        let about = Offender::new(&offender, 0);
        let kind = IcmpKind::TtlExceeded;
        assert!(bed.net.icmp_error(bed.now, about, kind, &mut bed.io));
        assert_eq!(bed.net.counters.dropped_for(Drop::NoMemory), 1);
        assert!(bed.net.counters.balanced());
    }
}
