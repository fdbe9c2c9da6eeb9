//! Well-formed packets, with right lengths and checksums. Functions named after a protocol give an IP packet; [`ethernet`]
//! makes a frame of it. Source and destination must be of one family.

use std::net::{IpAddr, SocketAddr};

use crate::checksum::{pseudo_v4, pseudo_v6, sctp_crc32c, Sum};
use crate::eth::{ethertype, Mac};
use crate::{icmp, ipv4, ipv6, sctp, tcp, udp};

/// Fields of an IP header that tests vary.
#[derive(Clone, Debug)]
pub struct Ip {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class.
    pub tos: u8,
    /// Identification (IPv4).
    pub id: u16,
    /// Flags and offset (IPv4).
    pub fragment: u16,
    /// IPv4 options, padded to a multiple of four bytes by the caller, 40 at most.
    pub options: Vec<u8>,
    /// IPv6 extension headers, each with its number. The first two bytes of each (next header, length) are filled in, and it
    /// is padded with zeros to a multiple of eight bytes.
    pub extensions: Vec<(u8, Vec<u8>)>,
}

impl Ip {
    /// An ordinary header: TTL 64, nothing special.
    pub fn new(src: IpAddr, dst: IpAddr) -> Ip {
        Ip {
            src,
            dst,
            ttl: 64,
            tos: 0,
            id: 0x1000,
            fragment: 0,
            options: Vec::new(),
            extensions: Vec::new(),
        }
    }

    /// The sum of the pseudo-header; 0 where the families differ.
    fn pseudo(&self, protocol: u8, len: usize) -> Sum {
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                pseudo_v4(src.octets(), dst.octets(), protocol, len as u16)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                pseudo_v6(&src.octets(), &dst.octets(), protocol, len as u32)
            }
            _ => Sum::new(),
        }
    }

    /// The packet with this payload.
    pub fn packet(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let header_len = ipv4::HEADER_LEN + self.options.len();
                let mut bytes = ipv4::build(&ipv4::NewHeader {
                    tos: self.tos,
                    total_len: (header_len + payload.len()) as u16,
                    id: self.id,
                    fragment: self.fragment,
                    ttl: self.ttl,
                    protocol,
                    src: src.octets(),
                    dst: dst.octets(),
                })
                .to_vec();
                bytes[ipv4::VERSION_IHL] = 0x40 | (header_len / 4) as u8;
                bytes.extend(&self.options);
                ipv4::fill_checksum(&mut bytes);
                bytes.extend(payload);
                bytes
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let mut rest = Vec::new();
                for (index, (_, body)) in self.extensions.iter().enumerate() {
                    let start = rest.len();
                    rest.extend(body);
                    let len = body.len().max(8).next_multiple_of(8);
                    rest.resize(start + len, 0);
                    rest[start] = self
                        .extensions
                        .get(index + 1)
                        .map_or(protocol, |(kind, _)| *kind);
                    rest[start + 1] = match self.extensions[index].0 {
                        ipv6::next_header::FRAGMENT => 0,
                        ipv6::next_header::AUTH => (len / 4 - 2) as u8,
                        _ => (len / 8 - 1) as u8,
                    };
                }
                rest.extend(payload);
                let mut bytes = ipv6::build(&ipv6::NewHeader {
                    traffic_class: self.tos,
                    flow_label: 0,
                    payload_len: rest.len() as u16,
                    next_header: self.extensions.first().map_or(protocol, |(kind, _)| *kind),
                    hop_limit: self.ttl,
                    src: src.octets(),
                    dst: dst.octets(),
                })
                .to_vec();
                bytes.extend(rest);
                bytes
            }
            _ => Vec::new(),
        }
    }

    /// A TCP packet.
    pub fn tcp(&self, ports: (u16, u16), flags: u8, seq: u32, ack: u32, data: &[u8]) -> Vec<u8> {
        let mut l4 = vec![0; tcp::HEADER_LEN];
        l4.extend(data);
        if let Some(mut t) = tcp::Tcp::new_mut(&mut l4) {
            t.set_src_port(ports.0);
            t.set_dst_port(ports.1);
            t.set_seq(seq);
            t.set_ack_seq(ack);
            t.set_data_offset_byte(0x50);
            t.set_flags(flags);
            t.set_window(0xfaf0);
        }
        let check = self.pseudo(6, l4.len()).and(&l4).checksum();
        l4[tcp::CHECKSUM..tcp::CHECKSUM + 2].copy_from_slice(&check.to_be_bytes());
        self.packet(6, &l4)
    }

    /// A UDP packet with its checksum.
    pub fn udp(&self, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
        let len = udp::HEADER_LEN + data.len();
        let mut l4 = udp::build(ports.0, ports.1, len as u16, 0).to_vec();
        l4.extend(data);
        let check = self.pseudo(17, len).and(&l4).udp_checksum();
        l4[udp::CHECKSUM..udp::CHECKSUM + 2].copy_from_slice(&check.to_be_bytes());
        self.packet(17, &l4)
    }

    /// An SCTP packet with these chunks: type and value.
    pub fn sctp(&self, ports: (u16, u16), tag: u32, chunks: &[(u8, &[u8])]) -> Vec<u8> {
        let mut l4 = vec![0; sctp::HEADER_LEN];
        if let Some(mut s) = sctp::Sctp::new_mut(&mut l4) {
            s.set_src_port(ports.0);
            s.set_dst_port(ports.1);
            s.set_tag(tag);
        }
        for (kind, value) in chunks {
            l4.extend([*kind, 0]);
            l4.extend((value.len() as u16 + 4).to_be_bytes());
            l4.extend(*value);
            l4.resize(l4.len().next_multiple_of(4), 0);
        }
        let check = sctp_crc32c([l4.as_slice()]);
        l4[sctp::CHECKSUM..sctp::CHECKSUM + 4].copy_from_slice(&check);
        self.packet(132, &l4)
    }

    /// An ICMP or ICMPv6 message, by the family: type, code, the four bytes after the checksum, and the rest.
    pub fn icmp(&self, kind: u8, code: u8, rest: u32, body: &[u8]) -> Vec<u8> {
        let mut l4 = vec![0; icmp::HEADER_LEN];
        if let Some(mut m) = icmp::Icmp::new_mut(&mut l4) {
            m.set_kind(kind);
            m.set_code(code);
            m.set_rest(rest);
        }
        l4.extend(body);
        let (protocol, sum) = match self.src {
            IpAddr::V4(_) => (1, Sum::of(&l4)),
            IpAddr::V6(_) => (58, self.pseudo(58, l4.len()).and(&l4)),
        };
        l4[icmp::CHECKSUM..icmp::CHECKSUM + 2].copy_from_slice(&sum.checksum().to_be_bytes());
        self.packet(protocol, &l4)
    }
}

/// A TCP packet with an ordinary header.
pub fn tcp(src: SocketAddr, dst: SocketAddr, flags: u8, data: &[u8]) -> Vec<u8> {
    Ip::new(src.ip(), dst.ip()).tcp((src.port(), dst.port()), flags, 1000, 0, data)
}

/// A UDP packet with an ordinary header.
pub fn udp(src: SocketAddr, dst: SocketAddr, data: &[u8]) -> Vec<u8> {
    Ip::new(src.ip(), dst.ip()).udp((src.port(), dst.port()), data)
}

/// The frame that carries an IP packet, its type by the packet's version.
pub fn ethernet(dst: Mac, src: Mac, packet: &[u8]) -> Vec<u8> {
    let kind = match packet.first() {
        Some(first) if first >> 4 == 6 => ethertype::IPV6,
        _ => ethertype::IPV4,
    };
    ethernet_of(dst, src, kind, packet)
}

/// The frame of this type.
pub fn ethernet_of(dst: Mac, src: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [dst, src].concat();
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Cuts an IP packet without extension headers into two or more fragments at these offsets of its payload, multiples of
/// eight; `id` is used for IPv6.
pub fn fragments(packet: &[u8], offsets: &[usize], id: u32) -> Vec<Vec<u8>> {
    let header_len = match packet.first() {
        Some(first) if first >> 4 == 6 => ipv6::HEADER_LEN,
        Some(first) => usize::from(first & 0xf) * 4,
        None => return Vec::new(),
    };
    let payload = &packet[header_len..];
    let mut out = Vec::new();
    let mut start = 0;
    for end in offsets.iter().copied().chain([payload.len()]) {
        let (from, to) = (start.min(payload.len()), end.min(payload.len()));
        if from < to {
            out.push(fragment(
                &packet[..header_len],
                start,
                to < payload.len(),
                &payload[from..to],
                id,
            ));
        }
        start = end;
    }
    out
}

/// One fragment: the header of its datagram, where it belongs, whether more follow, its data, and the identification for
/// IPv6.
pub fn fragment(header: &[u8], offset: usize, more: bool, data: &[u8], id: u32) -> Vec<u8> {
    let mut bytes = header.to_vec();
    if header.len() >= ipv6::HEADER_LEN && header[0] >> 4 == 6 {
        let mut extension = [0; ipv6::FRAGMENT_LEN];
        if let Some(mut f) = ipv6::Fragment::new_mut(&mut extension) {
            f.set_next_header(header[ipv6::NEXT_HEADER]);
            f.set_offset_more(offset as u16 & 0xfff8 | u16::from(more));
            f.set_id(id);
        }
        if let Some(mut h) = ipv6::Ipv6::new_mut(&mut bytes) {
            h.set_next_header(ipv6::next_header::FRAGMENT);
            h.set_payload_len((extension.len() + data.len()) as u16);
        }
        bytes.extend(extension);
    } else {
        if let Some(mut h) = ipv4::Ipv4::new_mut(&mut bytes) {
            h.set_total_len((header.len() + data.len()) as u16);
            h.set_fragment(
                (offset / 8) as u16 & ipv4::OFFSET_MASK | if more { ipv4::MF } else { 0 },
            );
        }
        ipv4::fill_checksum(&mut bytes);
    }
    bytes.extend(data);
    bytes
}

/// Whether the packet's transport checksum is right (a UDP checksum of 0 is), as its receiver would find. `None` where the
/// packet cannot be read, is a fragment, or has a protocol without a checksum known here.
pub fn transport_checksum_is_right(packet: &[u8]) -> Option<bool> {
    let kind = match packet.first()? >> 4 {
        6 => ethertype::IPV6,
        _ => ethertype::IPV4,
    };
    let info = crate::parse::parse(kind, packet, packet.len()).ok()?;
    let l4 = packet.get(usize::from(info.l4_offset)..info.total_len as usize)?;
    if info.is_fragment() {
        return None;
    }
    let ip = Ip::new(info.src_ip(), info.dst_ip());
    match info.protocol {
        17 if l4.get(udp::CHECKSUM..udp::CHECKSUM + 2)? == [0, 0] => Some(true),
        6 | 17 | 58 => Some(ip.pseudo(info.protocol, l4.len()).and(l4).is_valid()),
        1 => Some(Sum::of(l4).is_valid()),
        132 => Some(l4.get(sctp::CHECKSUM..sctp::CHECKSUM + 4)? == sctp_crc32c([l4])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{flags, parse_v4, parse_v6};

    fn v4() -> Ip {
        Ip::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into())
    }

    fn v6() -> Ip {
        Ip::new([0x20; 16].into(), [0x21; 16].into())
    }

    #[test]
    fn what_is_built_is_right() {
        for ip in [v4(), v6()] {
            let packets = [
                ip.tcp((1, 2), tcp::SYN, 5, 6, b"odd"),
                ip.udp((1, 2), b"data"),
                ip.sctp((1, 2), 9, &[(1, b"init!"), (10, b"")]),
                ip.icmp(8, 0, 7, b"ping"),
            ];
            for mut packet in packets {
                assert_eq!(transport_checksum_is_right(&packet), Some(true));
                let last = packet.len() - 1;
                packet[last] ^= 1;
                assert_eq!(transport_checksum_is_right(&packet), Some(false));
            }
        }
    }

    #[test]
    fn options_and_extensions_are_where_they_should_be() {
        let mut ip = v4();
        ip.options = vec![1, 1, 1, 1];
        let info = parse_v4(&ip.udp((1, 2), b""), 32).unwrap();
        assert_eq!((info.l4_offset, info.protocol), (24, 17));
        let mut ip = v6();
        ip.extensions = vec![
            (0, vec![0, 0, 1, 4]),
            (43, vec![0; 17]),
            (51, vec![0; 16]),
            (44, vec![]),
            (60, vec![0, 0, 1, 4]),
        ];
        let packet = ip.udp((1, 2), b"");
        let info = parse_v6(&packet, packet.len()).unwrap();
        assert_eq!(
            (info.l4_offset, info.protocol),
            (40 + 8 + 24 + 16 + 8 + 8, 17)
        );
    }

    #[test]
    fn fragments_say_where_they_belong() {
        for ip in [v4(), v6()] {
            let whole = ip.udp((1, 2), &[7; 100]);
            let parts = fragments(&whole, &[32, 64], 5);
            let read = |bytes: &Vec<u8>| match bytes[0] >> 4 {
                4 => parse_v4(bytes, bytes.len()).unwrap(),
                _ => parse_v6(bytes, bytes.len()).unwrap(),
            };
            let places: Vec<_> = parts
                .iter()
                .map(|part| {
                    (
                        read(part).frag_offset,
                        read(part).l4_len(),
                        read(part).has(flags::MORE_FRAGMENTS),
                    )
                })
                .collect();
            assert_eq!(places, [(0, 32, true), (32, 32, true), (64, 44, false)]);
            assert_eq!(transport_checksum_is_right(&parts[0]), None);
        }
    }
}
