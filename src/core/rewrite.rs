//! Changing addresses and ports of a packet in place, with the checksums that depend on them, for both families alike.
//!
//! TCP and UDP checksums are updated by what changed (RFC 1624), never computed anew: a wrong one stays wrong. SCTP's CRC
//! cannot be updated and is computed anew, as ip_vs_proto_sctp.c does. The offsets are those of RFC 791, 8200, 768, 9293, 9260.

use ripvs_packet::checksum::{self, Delta, Sum};
use ripvs_packet::ipv6::{next_header, FRAGMENT_LEN, NEXT_HEADER};
use ripvs_packet::Frame;

use crate::family::{Family, V4, V6};
use crate::types::proto;

/// An address family's header as bytes: `ip` is always the packet from its first header byte on.
pub trait Ip: Family {
    /// Offset of the source address.
    const SRC: usize;
    /// Offset of the destination address.
    const DST: usize;
    /// Length of the header without options.
    const HEADER: usize;
    /// The address at an offset of the header.
    fn addr(ip: &[u8], at: usize) -> Self::Addr;
    /// TTL or hop limit.
    fn ttl(ip: &[u8]) -> u8;
    /// One less TTL; the caller saw that there is one to take.
    fn decrement_ttl(ip: &mut [u8]);
    /// Makes the header checksum right again, where there is one.
    fn seal(ip: &mut [u8]);
    /// One less TTL in a header that was right before an address in it changed by `change`: its checksum becomes what it would
    /// be if it were computed anew.
    fn take_ttl(ip: &mut [u8], change: Delta);

    /// What an address having become another does to a checksum that covers it.
    fn delta(old: Self::Addr, new: Self::Addr) -> Delta;
    /// The header that begins at `ip`, as an ICMP error quotes it: the packet may end anywhere after it.
    fn quoted(ip: &[u8]) -> Option<Quoted<Self>>;
    /// The sum of the pseudo header of a transport of `len` bytes.
    fn pseudo(src: Self::Addr, dst: Self::Addr, protocol: u8, len: usize) -> Sum;
    /// The sum of the pseudo header of an ICMP message of `len` bytes from `src` to `dst`, as far as its checksum covers one.
    fn icmp_pseudo(src: Self::Addr, dst: Self::Addr, len: usize) -> Sum;

    /// Replaces the address at an offset. The header checksum is left to [`Ip::seal`].
    #[inline(always)]
    fn put(ip: &mut [u8], at: usize, addr: Self::Addr) {
        let bytes = addr.as_ref();
        ip[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

impl Ip for V4 {
    const SRC: usize = 12;
    const DST: usize = 16;
    const HEADER: usize = 20;

    #[inline(always)]
    fn addr(ip: &[u8], at: usize) -> [u8; 4] {
        let mut addr = [0; 4];
        addr.copy_from_slice(&ip[at..at + 4]);
        addr
    }

    #[inline(always)]
    fn ttl(ip: &[u8]) -> u8 {
        ip[8]
    }

    #[inline(always)]
    fn decrement_ttl(ip: &mut [u8]) {
        let ip = &mut ip[..12];
        ip[8] -= 1;
        // `ip_decrease_ttl`: one less in the upper half of a word is 0x0100 more in the checksum.
        // Ones' complement adds alike in either byte order, so it is done in the one that lies there (RFC 1071, 2 (B)).
        let sum = u32::from(u16::from_ne_bytes([ip[10], ip[11]])) + u32::from(0x0100_u16.to_be());
        let sum = sum + u32::from(sum >= 0xffff);
        [ip[10], ip[11]] = (sum as u16).to_ne_bytes();
    }

    #[inline(always)]
    fn delta(old: [u8; 4], new: [u8; 4]) -> Delta {
        Delta::ZERO.change32(old, new)
    }

    fn quoted(ip: &[u8]) -> Option<Quoted<V4>> {
        if ip.len() < Self::HEADER || ip[0] >> 4 != 4 || ip[0] & 15 < 5 {
            return None;
        }
        let fragment = u16::from_be_bytes([ip[6], ip[7]]);
        Some(Quoted {
            src: Self::addr(ip, Self::SRC),
            dst: Self::addr(ip, Self::DST),
            proto: ip[9],
            l4: usize::from(ip[0] & 15) * 4,
            offset: fragment & 0x1fff,
            dont_fragment: fragment & 0x4000 != 0,
        })
    }

    fn pseudo(src: [u8; 4], dst: [u8; 4], protocol: u8, len: usize) -> Sum {
        checksum::pseudo_v4(src, dst, protocol, len as u16)
    }

    fn icmp_pseudo(_: [u8; 4], _: [u8; 4], _: usize) -> Sum {
        Sum::new()
    }

    #[inline(always)]
    fn seal(ip: &mut [u8]) {
        let header = usize::from(ip[0] & 15) * 4;
        ip[10..12].fill(0);
        // Most headers have no options, and a length that the compiler knows makes their sum five additions.
        let sum = match ip.first_chunk::<{ V4::HEADER }>() {
            Some(plain) if header == V4::HEADER => Sum::of(plain),
            _ => Sum::of(&ip[..header]),
        };
        ip[10..12].copy_from_slice(&sum.checksum().to_be_bytes());
    }

    #[inline(always)]
    fn take_ttl(ip: &mut [u8], change: Delta) {
        let ip = &mut ip[..12];
        ip[8] -= 1;
        let change = change.change16(0x0100, 0);
        let sum = change.apply(u16::from_be_bytes([ip[10], ip[11]]));
        [ip[10], ip[11]] = sum.to_be_bytes();
    }
}

impl Ip for V6 {
    const SRC: usize = 8;
    const DST: usize = 24;
    const HEADER: usize = 40;

    #[inline(always)]
    fn addr(ip: &[u8], at: usize) -> [u8; 16] {
        let mut addr = [0; 16];
        addr.copy_from_slice(&ip[at..at + 16]);
        addr
    }

    fn ttl(ip: &[u8]) -> u8 {
        ip[7]
    }

    #[inline(always)]
    fn decrement_ttl(ip: &mut [u8]) {
        ip[7] -= 1;
    }

    #[inline(always)]
    fn delta(old: [u8; 16], new: [u8; 16]) -> Delta {
        Delta::ZERO.change128(&old, &new)
    }

    fn quoted(ip: &[u8]) -> Option<Quoted<V6>> {
        if ip.len() < Self::HEADER || ip[0] >> 4 != 6 {
            return None;
        }
        let (proto, l4, offset) = quoted_upper(ip)?;
        Some(Quoted {
            src: Self::addr(ip, Self::SRC),
            dst: Self::addr(ip, Self::DST),
            proto,
            l4,
            offset,
            dont_fragment: true,
        })
    }

    fn pseudo(src: [u8; 16], dst: [u8; 16], protocol: u8, len: usize) -> Sum {
        checksum::pseudo_v6(&src, &dst, protocol, len as u32)
    }

    fn icmp_pseudo(src: [u8; 16], dst: [u8; 16], len: usize) -> Sum {
        Self::pseudo(src, dst, proto::ICMPV6, len)
    }

    fn seal(_: &mut [u8]) {}

    #[inline(always)]
    fn take_ttl(ip: &mut [u8], _: Delta) {
        ip[7] -= 1;
    }
}

/// What follows the extension headers of a quoted IPv6 packet, where that would begin, and the fragment offset in units of
/// eight bytes (`ipv6_find_hdr`): of each header only what is looked at need be there, as a quote may end anywhere.
fn quoted_upper(ip: &[u8]) -> Option<(u8, usize, u16)> {
    let is_extension = |next: u8| {
        matches!(
            next,
            next_header::HOP_BY_HOP
                | next_header::ROUTING
                | next_header::FRAGMENT
                | next_header::DEST_OPTIONS
                | proto::AH
        )
    };
    let mut next = ip[NEXT_HEADER];
    let mut at = V6::HEADER;
    while is_extension(next) {
        let header = ip.get(at..)?;
        let [following, len] = *header.first_chunk()?;
        let size = match next {
            next_header::FRAGMENT => {
                let [_, _, high, low] = *header.first_chunk()?;
                let offset = u16::from_be_bytes([high, low]) >> 3;
                if offset != 0 {
                    return (!is_extension(following)).then_some((following, at, offset));
                }
                FRAGMENT_LEN
            }
            proto::AH => (usize::from(len) + 2) * 4,
            _ => (usize::from(len) + 1) * 8,
        };
        next = following;
        at += size;
    }
    Some((next, at, 0))
}

/// The header of a packet that an ICMP error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted<A: Family> {
    /// Its source.
    pub src: A::Addr,
    /// Its destination.
    pub dst: A::Addr,
    /// Its protocol, behind any extension headers.
    pub proto: u8,
    /// Where that begins, from the start of the header.
    pub l4: usize,
    /// Its fragment offset, in units of eight bytes.
    pub offset: u16,
    /// Whether it must not be fragmented; always so in IPv6.
    pub dont_fragment: bool,
}

/// One end of a connection: address and port (host byte order).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End<A: Family> {
    /// The address.
    pub addr: A::Addr,
    /// The port.
    pub port: u16,
}

/// Which end of a packet is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The source: replies of a server.
    Source,
    /// The destination: requests of a client.
    Destination,
}

impl Side {
    #[inline(always)]
    fn addr_at<A: Ip>(self) -> usize {
        match self {
            Side::Source => A::SRC,
            Side::Destination => A::DST,
        }
    }

    #[inline(always)]
    fn port_at(self) -> usize {
        match self {
            Side::Source => 0,
            Side::Destination => 2,
        }
    }
}

/// Replaces one end of the packet that begins at `l3` of the frame and whose transport header begins at `l3 + l4`.
/// `old` is what the connection says stands there now: checksums are updated by the difference to it.
///
/// Returns false, the packet unchanged, where the transport header is not all there.
#[inline]
pub fn translate<A: Ip, F: Frame>(
    frame: &mut F,
    l3: usize,
    l4: usize,
    proto: u8,
    side: Side,
    old: End<A>,
    new: End<A>,
) -> bool {
    let transport = match proto {
        proto::TCP => 20,
        proto::UDP => 8,
        proto::SCTP => 12,
        _ => 0,
    };
    let at = l3 + l4;
    if frame.len() < at + transport || !frame.pull(at + transport) {
        return false;
    }
    let ip = &mut frame.head_mut()[l3..];
    let no_checksum = translate_ip(ip, l4, proto, side, old, new);
    A::seal(ip);
    if no_checksum {
        seal_udp::<A, F>(frame, l3, at);
    }
    if proto == proto::SCTP && old.port != new.port {
        seal_sctp(frame, at);
    }
    true
}

/// As [`translate`], of a packet whose headers are all there, without those checksums that are computed anew: the header's,
/// SCTP's, and that of a UDP datagram which has none, for which the answer is true.
#[inline(always)]
pub fn translate_ip<A: Ip>(
    ip: &mut [u8],
    l4: usize,
    proto: u8,
    side: Side,
    old: End<A>,
    new: End<A>,
) -> bool {
    let (ip, l4) = ip.split_at_mut(l4);
    let delta = A::delta(old.addr, new.addr).change16(old.port, new.port);
    let mut no_checksum = false;
    match proto {
        proto::TCP => {
            if let Some(l4) = l4.first_chunk_mut::<20>() {
                put_port(l4, side, new.port);
                let sum = delta.apply(u16::from_be_bytes([l4[16], l4[17]]));
                [l4[16], l4[17]] = sum.to_be_bytes();
            }
        }
        proto::UDP => {
            if let Some(l4) = l4.first_chunk_mut::<8>() {
                put_port(l4, side, new.port);
                let old = u16::from_be_bytes([l4[6], l4[7]]);
                no_checksum = old == 0;
                [l4[6], l4[7]] = delta.apply_udp(old).to_be_bytes();
            }
        }
        proto::SCTP => {
            if let Some(l4) = l4.first_chunk_mut::<12>() {
                put_port(l4, side, new.port);
            }
        }
        _ => {}
    }
    A::put(ip, side.addr_at::<A>(), new.addr);
    no_checksum
}

#[inline(always)]
fn put_port<const N: usize>(l4: &mut [u8; N], side: Side, port: u16) {
    let at = side.port_at();
    l4[at..at + 2].copy_from_slice(&port.to_be_bytes());
}

/// Gives a UDP datagram that came without a checksum one, as ip_vs_proto_udp.c does under NAT.
fn seal_udp<A: Ip, F: Frame>(frame: &mut F, l3: usize, at: usize) {
    let ip = &frame.head()[l3..];
    let pseudo = A::pseudo(
        A::addr(ip, A::SRC),
        A::addr(ip, A::DST),
        proto::UDP,
        frame.len() - at,
    );
    let sum = add_frame(pseudo, frame, at).udp_checksum();
    frame.write_at(at + 6, &sum.to_be_bytes());
}

/// Computes the CRC of the SCTP packet that begins at offset `at` of the frame and reaches to its end.
fn seal_sctp<F: Frame>(frame: &mut F, at: usize) {
    let mut packet = vec![0; frame.len().saturating_sub(at)];
    frame.copy_to(at, &mut packet);
    let crc = checksum::sctp_crc32c([packet.as_slice()]);
    frame.write_at(at + 8, &crc);
}

/// A sum with the frame's bytes from an offset to its end added.
pub fn add_frame<F: Frame>(sum: Sum, frame: &F, offset: usize) -> Sum {
    let mut sum = sum;
    let mut from = offset;
    let mut part = [0; 512];
    loop {
        let n = frame.copy_to(from, &mut part);
        if n == 0 {
            return sum;
        }
        sum = sum.and(&part[..n]);
        from += n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_quoted_extension_header_only_what_is_looked_at_need_be_there() {
        let mut quote = vec![0x60, 0, 0, 0, 0, 24, next_header::FRAGMENT, 64];
        quote.resize(V6::HEADER, 0);
        quote.extend([proto::TCP, 0, 0, 1]);
        let upper = |quote: &[u8]| V6::quoted(quote).map(|q| (q.proto, q.l4, q.offset));
        assert_eq!(upper(&quote), Some((proto::TCP, 48, 0)));
        assert_eq!(upper(&quote[..43]), None);
        quote[42..].copy_from_slice(&[0, 9]);
        assert_eq!(upper(&quote), Some((proto::TCP, 40, 1)));
        quote[40] = next_header::DEST_OPTIONS;
        assert_eq!(upper(&quote), None);
        quote[6] = next_header::DEST_OPTIONS;
        quote[40..].copy_from_slice(&[proto::UDP, 1, 0, 0]);
        assert_eq!(upper(&quote), Some((proto::UDP, 56, 0)));
        quote[6] = proto::AH;
        assert_eq!(upper(&quote[..42]), Some((proto::UDP, 52, 0)));
        assert_eq!(upper(&quote[..41]), None);
    }
}
