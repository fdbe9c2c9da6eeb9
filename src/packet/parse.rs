//! Reads the network layer of a packet in one go, rejecting what the kernel's `ip_rcv_core` and `ip6_rcv_core` reject, in
//! the order in which they look. What they let through passes here, however odd; IPv4 options are another step
//! ([`crate::ipv4_options`]), as they are in the kernel, where they come after the first hook.

use crate::ipv4::{self, Ipv4};
use crate::ipv6::{self, Fragment, Ipv6, WalkError};
use crate::{eth::ethertype, hop_options};

/// The IP version of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Bits of [`L3Info::flags`].
pub mod flags {
    /// A part of a datagram, to be reassembled before anything beyond the network layer is read.
    pub const FRAGMENT: u8 = 0x01;
    /// A fragment that isn't the last one.
    pub const MORE_FRAGMENTS: u8 = 0x02;
    /// Fragmenting is forbidden (IPv4 only).
    pub const DONT_FRAGMENT: u8 = 0x04;
    /// IPv4 options or IPv6 extension headers are there.
    pub const OPTIONS: u8 = 0x08;
    /// An IPv6 fragment header is there although the packet is whole (RFC 6946).
    pub const ATOMIC_FRAGMENT: u8 = 0x10;
    /// The IPv6 extension headers don't lead to an upper protocol: the packet ends within them or they are too many. The
    /// kernel routes such packets, but IPVS leaves them alone. [`super::L3Info::protocol`] is 59 (nothing follows).
    pub const BROKEN_CHAIN: u8 = 0x20;
}

/// What the network layer of one packet says. Offsets are from the start of its IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L3Info {
    /// Source address, network byte order; an IPv4 address in the first four bytes, zeros after it.
    pub src: [u8; 16],
    /// Destination address, likewise.
    pub dst: [u8; 16],
    /// Length of the packet in bytes, IP header included; what the frame has beyond it is padding.
    pub total_len: u32,
    /// Identification: of any IPv4 packet; of an IPv6 packet with a fragment header.
    pub frag_id: u32,
    /// Where in the datagram this fragment belongs, in bytes; 0 where it is none.
    pub frag_offset: u16,
    /// Where the IPv6 fragment header lies; 0 where there is none.
    pub frag_header: u16,
    /// Where the upper protocol begins. May lie beyond `total_len` where the last IPv6 extension header does.
    pub l4_offset: u16,
    /// IPv4 or IPv6.
    pub family: Family,
    /// Upper protocol, behind any extension headers. For an IPv6 fragment, what follows the fragment header.
    pub protocol: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class.
    pub tos: u8,
    /// Bits of [`flags`].
    pub flags: u8,
}

impl L3Info {
    /// Source address of an IPv4 packet.
    #[inline(always)]
    pub fn src4(&self) -> [u8; 4] {
        [self.src[0], self.src[1], self.src[2], self.src[3]]
    }

    /// Destination address of an IPv4 packet.
    #[inline(always)]
    pub fn dst4(&self) -> [u8; 4] {
        [self.dst[0], self.dst[1], self.dst[2], self.dst[3]]
    }

    /// Source address.
    pub fn src_ip(&self) -> core::net::IpAddr {
        match self.family {
            Family::V4 => self.src4().into(),
            Family::V6 => self.src.into(),
        }
    }

    /// Destination address.
    pub fn dst_ip(&self) -> core::net::IpAddr {
        match self.family {
            Family::V4 => self.dst4().into(),
            Family::V6 => self.dst.into(),
        }
    }

    /// Whether the packet is to be reassembled first.
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        self.flags & flags::FRAGMENT != 0
    }

    /// Whether all of these [`flags`] are set.
    #[inline(always)]
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Length of the upper protocol's header and data.
    #[inline(always)]
    pub fn l4_len(&self) -> usize {
        (self.total_len as usize).saturating_sub(usize::from(self.l4_offset))
    }
}

/// What is wrong with a packet's network layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParseError {
    /// The frame carries neither IPv4 nor IPv6.
    NotIp,
    /// The frame ends within the header.
    HeaderTruncated,
    /// The version is not the one that the Ethernet type promises.
    Version,
    /// An IPv4 header length below 20.
    HeaderLength,
    /// A wrong IPv4 header checksum.
    HeaderChecksum,
    /// The frame is shorter than the packet says that it is.
    PacketTruncated,
    /// An IPv4 total length below that of the header.
    TotalLength,
    /// An IPv6 address that no packet from a wire may have: loopback; multicast as source; a multicast group of scope 0 or 1.
    Address,
    /// Hop-by-hop options that are malformed, or of a kind that says to drop the packet silently.
    HopOptions,
    /// Hop-by-hop options that the sender is to hear of: an ICMPv6 parameter problem with this code and pointer.
    ParamProblem {
        /// ICMPv6 code.
        code: u8,
        /// Where the trouble lies, in bytes from the start of the IP header.
        pointer: u16,
    },
    /// Nothing is wrong so far, but this many bytes, from the start of the IP header, must lie in the frame's first segment
    /// (see [`crate::Frame::pull`]) before the packet can be read.
    HeadShort(usize),
}

impl ParseError {
    /// A short name, for counters of drop reasons.
    pub fn name(self) -> &'static str {
        match self {
            ParseError::NotIp => "not_ip",
            ParseError::HeaderTruncated => "ip_header_truncated",
            ParseError::Version => "ip_version",
            ParseError::HeaderLength => "ip_header_length",
            ParseError::HeaderChecksum => "ip_header_checksum",
            ParseError::PacketTruncated => "ip_packet_truncated",
            ParseError::TotalLength => "ip_total_length",
            ParseError::Address => "ip_address",
            ParseError::HopOptions => "ip_hop_options",
            ParseError::ParamProblem { .. } => "ip_param_problem",
            ParseError::HeadShort(_) => "ip_head_short",
        }
    }
}

/// Reads the network layer by the frame's Ethernet type. `head` begins with the IP header and holds the first bytes of the
/// packet; `available` is how many bytes the frame has from there on, all segments and any padding included.
///
/// # Errors
/// See [`ParseError`].
#[inline(always)]
pub fn parse(ethertype: u16, head: &[u8], available: usize) -> Result<L3Info, ParseError> {
    match ethertype {
        ethertype::IPV4 => parse_v4(head, available),
        ethertype::IPV6 => parse_v6(head, available),
        _ => Err(ParseError::NotIp),
    }
}

/// Reads an IPv4 header: see [`parse`].
///
/// # Errors
/// See [`ParseError`].
#[inline]
pub fn parse_v4(head: &[u8], available: usize) -> Result<L3Info, ParseError> {
    let Some(h) = Ipv4::new(head) else {
        return Err(short(ipv4::HEADER_LEN, available));
    };
    let header_len = if h.version_ihl() == 0x45 {
        if !plain_checksum_is_valid(h.as_bytes()) {
            return Err(ParseError::HeaderChecksum);
        }
        ipv4::HEADER_LEN
    } else {
        check_header_with_options(head, available)?
    };
    let total_len = usize::from(h.total_len());
    if total_len > available {
        return Err(ParseError::PacketTruncated);
    }
    if total_len < header_len {
        return Err(ParseError::TotalLength);
    }
    let fragment = h.fragment();
    let is_fragment = fragment & (ipv4::MF | ipv4::OFFSET_MASK) != 0;
    let mut flags = u8::from(is_fragment) * flags::FRAGMENT;
    flags |= u8::from(fragment & ipv4::MF != 0) * flags::MORE_FRAGMENTS;
    flags |= u8::from(fragment & ipv4::DF != 0) * flags::DONT_FRAGMENT;
    flags |= u8::from(header_len > ipv4::HEADER_LEN) * flags::OPTIONS;
    Ok(L3Info {
        src: widen(h.src()),
        dst: widen(h.dst()),
        total_len: total_len as u32,
        frag_id: u32::from(h.id()),
        frag_offset: (fragment & ipv4::OFFSET_MASK) << 3,
        frag_header: 0,
        l4_offset: header_len as u16,
        family: Family::V4,
        protocol: h.protocol(),
        ttl: h.ttl(),
        tos: h.tos(),
        flags,
    })
}

/// Which error it is that fewer than `need` bytes are at hand.
#[cold]
fn short(need: usize, available: usize) -> ParseError {
    if need > available {
        ParseError::HeaderTruncated
    } else {
        ParseError::HeadShort(need)
    }
}

/// Whether the checksum of a header without options is right. The words are added as they lie in memory: the two zeros of one's complement are
/// the same in either byte order.
#[inline(always)]
pub fn plain_checksum_is_valid(header: &[u8; ipv4::HEADER_LEN]) -> bool {
    let (words, _) = header.as_chunks::<4>();
    let sum: u64 = words
        .iter()
        .map(|w| u64::from(u32::from_ne_bytes(*w)))
        .sum();
    // Modulo 65535 each half of a word counts as much as the other. A header with a version in it is never all zeros, so
    // that a multiple of 65535 means 0xffff; and a multiple it is where the quotient, by way of the inverse, is not absurd
    // (Hacker's Delight, 10-17).
    const INVERSE: u64 = 0xfffe_fffe_fffe_ffff;
    const _: () = assert!(INVERSE.wrapping_mul(0xffff) == 1);
    sum.wrapping_mul(INVERSE) <= u64::MAX / 0xffff
}

#[cold]
fn check_header_with_options(head: &[u8], available: usize) -> Result<usize, ParseError> {
    let first = head.first().copied().unwrap_or(0);
    if first >> 4 != 4 {
        return Err(ParseError::Version);
    }
    let header_len = usize::from(first & 0xf) * 4;
    if header_len < ipv4::HEADER_LEN {
        return Err(ParseError::HeaderLength);
    }
    let Some(header) = head.get(..header_len) else {
        return Err(short(header_len, available));
    };
    if !crate::checksum::Sum::of(header).is_valid() {
        return Err(ParseError::HeaderChecksum);
    }
    Ok(header_len)
}

#[inline(always)]
fn widen(addr: [u8; 4]) -> [u8; 16] {
    let mut wide = [0; 16];
    wide[..4].copy_from_slice(&addr);
    wide
}

/// Reads an IPv6 header and walks over the extension headers: see [`parse`].
///
/// # Errors
/// See [`ParseError`].
#[inline]
pub fn parse_v6(head: &[u8], available: usize) -> Result<L3Info, ParseError> {
    let Some(h) = Ipv6::new(head) else {
        return Err(short(ipv6::HEADER_LEN, available));
    };
    if h.version() != 6 {
        return Err(ParseError::Version);
    }
    let (src, dst) = (h.src(), h.dst());
    if !addresses_are_sound(&src, &dst) {
        return Err(ParseError::Address);
    }
    let payload_len = usize::from(h.payload_len());
    let next_header = h.next_header();
    let mut total_len = ipv6::HEADER_LEN + payload_len;
    if payload_len == 0 && next_header == ipv6::next_header::HOP_BY_HOP {
        // The kernel leaves the length to a jumbo payload option and, where that is missing, to the frame.
        total_len = available;
    } else if total_len > available {
        return Err(ParseError::PacketTruncated);
    }
    if next_header == ipv6::next_header::HOP_BY_HOP {
        hop_options::check(head, total_len)?;
    }
    let mut info = L3Info {
        src,
        dst,
        total_len: total_len as u32,
        frag_id: 0,
        frag_offset: 0,
        frag_header: 0,
        l4_offset: ipv6::HEADER_LEN as u16,
        family: Family::V6,
        protocol: next_header,
        ttl: h.hop_limit(),
        tos: h.traffic_class(),
        flags: 0,
    };
    if ipv6::is_ext_header(next_header) {
        read_chain(head, &mut info)?;
    }
    Ok(info)
}

#[cold]
fn read_chain(head: &[u8], info: &mut L3Info) -> Result<(), ParseError> {
    info.flags |= flags::OPTIONS;
    let upper = match ipv6::walk(head, info.total_len as usize) {
        Ok(upper) if upper.offset <= usize::from(u16::MAX) => upper,
        Err(WalkError::HeadShort(need)) => return Err(ParseError::HeadShort(need)),
        _ => {
            info.flags |= flags::BROKEN_CHAIN;
            info.protocol = ipv6::next_header::NONE;
            return Ok(());
        }
    };
    info.protocol = upper.protocol;
    info.l4_offset = upper.offset as u16;
    if let Some(at) = upper.fragment {
        info.frag_header = at as u16;
        if let Some(fragment) = Fragment::at(head, at) {
            info.frag_id = fragment.id();
            info.frag_offset = fragment.offset() as u16;
            if fragment.more() {
                info.flags |= flags::FRAGMENT | flags::MORE_FRAGMENTS;
            } else if fragment.offset() != 0 {
                info.flags |= flags::FRAGMENT;
            } else {
                info.flags |= flags::ATOMIC_FRAGMENT;
            }
        }
    }
    Ok(())
}

/// RFC 4291 2.5.3 and 2.7 with erratum 3480, as `ip6_rcv_core` checks them on any interface but the loopback's.
#[inline(always)]
fn addresses_are_sound(src: &[u8; 16], dst: &[u8; 16]) -> bool {
    const LOOPBACK: u128 = 1;
    u128::from_be_bytes(*src) != LOOPBACK
        && u128::from_be_bytes(*dst) != LOOPBACK
        && src[0] != 0xff
        && !(dst[0] == 0xff && dst[1] & 0xf < 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v4(total_len: u16, fragment: u16) -> Vec<u8> {
        let mut bytes = ipv4::build(&ipv4::NewHeader {
            tos: 0x28,
            total_len,
            id: 77,
            fragment,
            ttl: 63,
            protocol: 6,
            src: [10, 0, 0, 1],
            dst: [10, 0, 0, 2],
        })
        .to_vec();
        bytes.resize(46, 0);
        bytes
    }

    fn v6(next_header: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = ipv6::build(&ipv6::NewHeader {
            traffic_class: 0x28,
            flow_label: 5,
            payload_len: rest.len() as u16,
            next_header,
            hop_limit: 63,
            src: [0x20; 16],
            dst: [0x21; 16],
        })
        .to_vec();
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn a_plain_v4_packet_is_read_without_its_padding() {
        let info = parse(0x0800, &v4(40, ipv4::DF), 46).unwrap();
        assert_eq!((info.src4(), info.dst4()), ([10, 0, 0, 1], [10, 0, 0, 2]));
        assert_eq!(info.src_ip(), core::net::IpAddr::from([10, 0, 0, 1]));
        assert_eq!(
            (info.total_len, info.l4_offset, info.l4_len()),
            (40, 20, 20)
        );
        assert_eq!(
            (info.protocol, info.ttl, info.tos, info.frag_id),
            (6, 63, 0x28, 77)
        );
        assert_eq!(info.flags, flags::DONT_FRAGMENT);
        assert!(!info.is_fragment());
    }

    #[test]
    fn v4_fragments_are_told() {
        let first = parse_v4(&v4(44, ipv4::MF), 46).unwrap();
        assert!(first.is_fragment() && first.has(flags::MORE_FRAGMENTS));
        let last = parse_v4(&v4(44, 185), 46).unwrap();
        assert!(last.is_fragment() && !last.has(flags::MORE_FRAGMENTS));
        assert_eq!(last.frag_offset, 1480);
    }

    #[test]
    fn what_ip_rcv_rejects_is_named() {
        let good = v4(40, 0);
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            bytes
        };
        let fixed = |at: usize, value: u8| {
            let mut bytes = with(at, value);
            ipv4::fill_checksum(&mut bytes);
            bytes
        };
        assert_eq!(parse_v4(&good[..19], 19), Err(ParseError::HeaderTruncated));
        assert_eq!(parse_v4(&good[..19], 46), Err(ParseError::HeadShort(20)));
        assert_eq!(parse_v4(&with(0, 0x65), 46), Err(ParseError::Version));
        assert_eq!(parse_v4(&with(0, 0x44), 46), Err(ParseError::HeaderLength));
        assert_eq!(
            parse_v4(&with(0, 0x4f), 46),
            Err(ParseError::HeaderTruncated)
        );
        assert_eq!(
            parse_v4(&with(0, 0x4f), 100),
            Err(ParseError::HeadShort(60))
        );
        assert_eq!(parse_v4(&with(8, 62), 46), Err(ParseError::HeaderChecksum));
        assert_eq!(
            parse_v4(&fixed(3, 47), 46),
            Err(ParseError::PacketTruncated)
        );
        assert_eq!(parse_v4(&fixed(3, 19), 46), Err(ParseError::TotalLength));
        assert!(parse_v4(&fixed(3, 20), 46).is_ok());
        assert_eq!(parse(0x0806, &good, 46), Err(ParseError::NotIp));
    }

    #[test]
    fn v4_options_lie_before_the_upper_protocol() {
        let mut bytes = v4(40, 0);
        bytes[0] = 0x47;
        ipv4::fill_checksum(&mut bytes);
        let info = parse_v4(&bytes, 46).unwrap();
        assert_eq!((info.l4_offset, info.flags), (28, flags::OPTIONS));
        bytes[27] ^= 1;
        assert_eq!(parse_v4(&bytes, 46), Err(ParseError::HeaderChecksum));
    }

    #[test]
    fn a_plain_v6_packet_is_read_without_its_padding() {
        let mut bytes = v6(6, &[0; 20]);
        bytes.extend([0; 9]);
        let info = parse(0x86dd, &bytes, bytes.len()).unwrap();
        assert_eq!((info.src, info.dst), ([0x20; 16], [0x21; 16]));
        assert_eq!((info.total_len, info.l4_offset, info.protocol), (60, 40, 6));
        assert_eq!((info.ttl, info.tos, info.flags), (63, 0x28, 0));
    }

    #[test]
    fn what_ip6_rcv_rejects_is_named() {
        let good = v6(6, &[0; 20]);
        let with = |at: usize, value: &[u8]| {
            let mut bytes = good.clone();
            bytes[at..at + value.len()].copy_from_slice(value);
            parse_v6(&bytes, bytes.len())
        };
        let mut loopback = [0; 16];
        loopback[15] = 1;
        assert_eq!(parse_v6(&good[..39], 39), Err(ParseError::HeaderTruncated));
        assert_eq!(parse_v6(&good[..39], 60), Err(ParseError::HeadShort(40)));
        assert_eq!(with(0, &[0x45]), Err(ParseError::Version));
        assert_eq!(with(8, &loopback), Err(ParseError::Address));
        assert_eq!(with(24, &loopback), Err(ParseError::Address));
        assert_eq!(with(8, &[0xff]), Err(ParseError::Address));
        assert_eq!(with(24, &[0xff, 0x11]), Err(ParseError::Address));
        assert_eq!(with(24, &[0xff, 0x10]), Err(ParseError::Address));
        assert!(with(24, &[0xff, 0x02]).is_ok());
        assert_eq!(with(5, &[21]), Err(ParseError::PacketTruncated));
        assert!(with(5, &[0]).is_ok());
    }

    #[test]
    fn v6_fragments_are_told_from_atomic_ones() {
        let first = v6(44, &[6, 0, 0, 1, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8]);
        let info = parse_v6(&first, first.len()).unwrap();
        assert_eq!(
            info.flags,
            flags::OPTIONS | flags::FRAGMENT | flags::MORE_FRAGMENTS
        );
        assert_eq!(
            (
                info.frag_id,
                info.frag_header,
                info.protocol,
                info.l4_offset
            ),
            (9, 40, 6, 48)
        );
        let last = v6(44, &[6, 0, 5, 0xa8, 0, 0, 0, 9, 1]);
        let info = parse_v6(&last, last.len()).unwrap();
        assert_eq!(
            (info.flags, info.frag_offset),
            (flags::OPTIONS | flags::FRAGMENT, 1448)
        );
        let atomic = v6(44, &[6, 0, 0, 0, 0, 0, 0, 9, 1]);
        let info = parse_v6(&atomic, atomic.len()).unwrap();
        assert_eq!(info.flags, flags::OPTIONS | flags::ATOMIC_FRAGMENT);
        assert!(!info.is_fragment());
    }

    #[test]
    fn a_broken_chain_has_no_upper_protocol() {
        let bytes = v6(60, &[6, 5, 1, 4, 0, 0, 0, 0]);
        let info = parse_v6(&bytes, bytes.len()).unwrap();
        // The header that names TCP is there; that it ends beyond the packet is for the reader of TCP to find.
        assert_eq!((info.protocol, info.l4_offset, info.l4_len()), (6, 88, 0));
        let bytes = v6(60, &[43, 0, 1, 4, 0, 0, 0, 0, 6]);
        let info = parse_v6(&bytes, bytes.len()).unwrap();
        assert!(info.has(flags::BROKEN_CHAIN));
        assert_eq!(info.protocol, 59);
    }

    proptest! {
        #[test]
        fn the_quick_checksum_agrees_with_the_sum(mut header: [u8; 20], right: bool) {
            header[0] = 0x45;
            if right {
                ipv4::fill_checksum(&mut header);
            }
            prop_assert_eq!(
                plain_checksum_is_valid(&header),
                crate::checksum::Sum::of(&header).is_valid()
            );
        }

        #[test]
        fn no_bytes_make_it_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200), more in 0usize..100, v6: bool) {
            let available = bytes.len() + more;
            let parsed = parse(if v6 { 0x86dd } else { 0x0800 }, &bytes, available);
            match parsed {
                Ok(info) => prop_assert!(info.total_len as usize <= available),
                Err(ParseError::HeadShort(need)) => prop_assert!(need > bytes.len() && need <= available),
                Err(_) => {}
            }
        }
    }
}
