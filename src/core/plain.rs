//! Packets that have nothing between IP header and TCP or UDP, read by the array: what `express.rs` needs to know of an
//! address family, and of a worker.

use ripvs_packet::eth::ethertype;
use ripvs_packet::{ipv4, ipv6, parse, Frame};

use crate::conn::{ConnTable, Ports, Tuple};
use crate::defence::Defence;
use crate::family::{V4, V6};
use crate::glance::Way;
use crate::hop::Hops;
use crate::ledger::Sums;
use crate::net::Net;
use crate::rewrite::Ip;
use crate::service::Services;
use crate::settings::Settings;
use crate::state::Timeouts;
use crate::types::proto;
use crate::worker::Worker;

/// An address family's plain packets. Their start, the IP header and the ports, is an array, so that lengths are compared
/// once.
pub(crate) trait Plain: Ip {
    /// The way of packets to a virtual address.
    const IN: Way;
    /// The way of packets to elsewhere.
    const OUT: Way;
    /// The type of frames with such packets, as it lies there.
    const TYPE: [u8; 2];
    /// The header and the first eight bytes of TCP or UDP.
    type Start;

    /// The start of the packet that begins at `ip`.
    fn start(ip: &[u8]) -> Option<&Self::Start>;

    /// Whether nothing but its protocol follows the header, its addresses mean the same on every interface, and it has a TTL
    /// to take one from. Whether it is all there remains to be seen.
    fn is_plain(start: &Self::Start) -> bool;

    /// Its length.
    fn len(start: &Self::Start) -> usize;

    /// Its protocol.
    fn protocol(start: &Self::Start) -> u8;

    /// Source address and port.
    fn source(start: &Self::Start) -> (Self::Addr, u16);

    /// Destination address and port.
    fn destination(start: &Self::Start) -> (Self::Addr, u16);

    /// What a client's packet is found by.
    fn request(start: &Self::Start) -> Tuple<Self>;

    /// What a server's packet is found by.
    fn answer(start: &Self::Start) -> Tuple<Self>;

    /// This family's one of two addresses.
    fn last_vip(vips: &mut ([u8; 4], [u8; 16])) -> &mut Self::Addr;

    /// Whether it must not be cut (said by IPv4 packets only), and TOS or traffic class.
    fn df_and_tos(start: &Self::Start) -> (bool, u8);

    /// Writes a header without options.
    fn put_header(ip: &mut [u8], header: &Header<Self>);
}

/// A header to be written, of a packet that holds another.
pub(crate) struct Header<A: Ip> {
    /// Source and destination.
    pub ends: (A::Addr, A::Addr),
    /// Length of what is inside.
    pub inside: usize,
    pub tos: u8,
    pub ttl: u8,
    /// Identification; none where it must not be cut. Of no meaning for IPv6.
    pub id: Option<u16>,
}

/// Bytes of an array, from a place that the compiler knows to be inside.
#[inline(always)]
fn field<const N: usize, const LEN: usize>(bytes: &[u8; N], at: usize) -> [u8; LEN] {
    let mut field = [0; LEN];
    field.copy_from_slice(&bytes[at..at + LEN]);
    field
}

#[inline(always)]
fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes(field(bytes, at))
}

/// What is written alike for both families but for the length of arrays.
macro_rules! keys {
    ($start:literal, $protocol:expr) => {
        type Start = [u8; $start];

        #[inline(always)]
        fn start(ip: &[u8]) -> Option<&[u8; $start]> {
            ip.first_chunk()
        }

        #[inline(always)]
        fn protocol(start: &[u8; $start]) -> u8 {
            start[$protocol]
        }

        #[inline(always)]
        fn source(start: &[u8; $start]) -> (Self::Addr, u16) {
            (field(start, Self::SRC), word(start, Self::HEADER))
        }

        #[inline(always)]
        fn destination(start: &[u8; $start]) -> (Self::Addr, u16) {
            (field(start, Self::DST), word(start, Self::HEADER + 2))
        }

        #[inline(always)]
        fn request(start: &[u8; $start]) -> Tuple<Self> {
            let (src, dst) = (field(start, Self::SRC), field(start, Self::DST));
            let ports = Ports::of_header(field(start, Self::HEADER), true);
            Tuple::new(src, dst, ports, start[$protocol])
        }

        #[inline(always)]
        fn answer(start: &[u8; $start]) -> Tuple<Self> {
            let (src, dst) = (field(start, Self::SRC), field(start, Self::DST));
            let ports = Ports::of_header(field(start, Self::HEADER), false);
            Tuple::new(dst, src, ports, start[$protocol])
        }
    };
}

impl Plain for V4 {
    const IN: Way = Way::In4;
    const OUT: Way = Way::Out4;
    const TYPE: [u8; 2] = ethertype::IPV4.to_be_bytes();

    keys!(28, ipv4::PROTOCOL);

    #[inline(always)]
    fn len(start: &[u8; 28]) -> usize {
        usize::from(word(start, ipv4::TOTAL_LEN))
    }

    #[inline(always)]
    fn last_vip(vips: &mut ([u8; 4], [u8; 16])) -> &mut [u8; 4] {
        &mut vips.0
    }

    #[inline(always)]
    fn is_plain(start: &[u8; 28]) -> bool {
        let header: [u8; ipv4::HEADER_LEN] = field(start, 0);
        header[ipv4::VERSION_IHL] == 0x45
            && word(&header, ipv4::FRAGMENT) & (ipv4::MF | ipv4::OFFSET_MASK) == 0
            && header[ipv4::TTL] > 1
            && parse::plain_checksum_is_valid(&header)
    }

    #[inline(always)]
    fn df_and_tos(start: &[u8; 28]) -> (bool, u8) {
        let df = word(start, ipv4::FRAGMENT) & ipv4::DF != 0;
        (df, start[ipv4::TOS])
    }

    #[inline(always)]
    fn put_header(ip: &mut [u8], header: &Header<V4>) {
        if let Some(ip) = ip.first_chunk_mut() {
            *ip = ipv4::build(&ipv4::NewHeader {
                tos: header.tos,
                total_len: (V4::HEADER + header.inside) as u16,
                id: header.id.unwrap_or(0),
                fragment: if header.id.is_none() { ipv4::DF } else { 0 },
                ttl: header.ttl,
                protocol: proto::IPIP,
                src: header.ends.0,
                dst: header.ends.1,
            });
        }
    }
}

impl Plain for V6 {
    const IN: Way = Way::In6;
    const OUT: Way = Way::Out6;
    const TYPE: [u8; 2] = ethertype::IPV6.to_be_bytes();

    keys!(48, NEXT_HEADER);

    #[inline(always)]
    fn len(start: &[u8; 48]) -> usize {
        usize::from(word(start, PAYLOAD_LEN)) + ipv6::HEADER_LEN
    }

    #[inline(always)]
    fn last_vip(vips: &mut ([u8; 4], [u8; 16])) -> &mut [u8; 16] {
        &mut vips.1
    }

    #[inline(always)]
    fn is_plain(start: &[u8; 48]) -> bool {
        // What a link-local address means depends on the interface.
        let link_local = |at: usize| start[at] == 0xfe && start[at + 1] & 0xc0 == 0x80;
        start[0] >> 4 == 6 && start[HOP_LIMIT] > 1 && !link_local(V6::SRC) && !link_local(V6::DST)
    }

    #[inline(always)]
    fn df_and_tos(start: &[u8; 48]) -> (bool, u8) {
        (false, (word(start, 0) >> 4) as u8)
    }

    #[inline(always)]
    fn put_header(ip: &mut [u8], header: &Header<V6>) {
        if let Some(ip) = ip.first_chunk_mut() {
            *ip = ipv6::build(&ipv6::NewHeader {
                traffic_class: header.tos,
                flow_label: 0,
                payload_len: header.inside as u16,
                next_header: proto::IPV6,
                hop_limit: header.ttl,
                src: header.ends.0,
                dst: header.ends.1,
            });
        }
    }
}

/// Where IPv6's payload length, next header and hop limit lie.
const PAYLOAD_LEN: usize = 4;
const NEXT_HEADER: usize = 6;
const HOP_LIMIT: usize = 7;

/// The parts of a worker that a packet of one family needs, each by itself.
pub(crate) struct Parts<'a, A: Ip, F: Frame> {
    pub table: &'a mut ConnTable<A>,
    pub rules: Rules<'a>,
    pub services: &'a Services,
    pub hops: &'a mut Hops,
    pub net: &'a mut Net<F>,
    pub sums: &'a mut Sums,
}

/// What is set for all connections.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub timeouts: &'a Timeouts,
    pub defence: &'a Defence,
    pub settings: &'a Settings,
}

macro_rules! parts {
    ($name:ident, $family:ty, $table:ident) => {
        impl<F: Frame> Parts<'_, $family, F> {
            /// Those for this family.
            #[inline(always)]
            pub fn $name(worker: &mut Worker<F>) -> Parts<'_, $family, F> {
                Parts {
                    table: &mut worker.$table,
                    rules: Rules {
                        timeouts: &worker.timeouts,
                        defence: &worker.defence,
                        settings: &worker.settings,
                    },
                    services: &worker.services,
                    hops: &mut worker.hops,
                    net: &mut worker.net,
                    sums: &mut worker.sums,
                }
            }
        }
    };
}

parts!(v4, V4, conns4);
parts!(v6, V6, conns6);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_plain_is_told_by_the_start() {
        let header = ipv4::build(&ipv4::NewHeader {
            tos: 0x10,
            total_len: 28,
            id: 1,
            fragment: ipv4::DF,
            ttl: 2,
            protocol: 17,
            src: [10, 0, 0, 1],
            dst: [10, 0, 0, 2],
        });
        let mut usual = [0; 28];
        usual[..20].copy_from_slice(&header);
        assert!(V4::is_plain(&usual));
        assert_eq!((V4::len(&usual), V4::protocol(&usual)), (28, 17));
        assert_eq!(V4::df_and_tos(&usual), (true, 0x10));
        for (at, value) in [
            (0, 0x46),
            (6, 0x20),
            (7, 0x01),
            (8, 1),
            (8, 0),
            (10, header[10] ^ 1),
        ] {
            let mut odd = usual;
            odd[at] = value;
            if at != 10 {
                ipv4::fill_checksum(&mut odd);
            }
            assert!(!V4::is_plain(&odd), "{at}: {value}");
        }
        let mut usual = [0; 48];
        usual[..8].copy_from_slice(&[0x6a, 0xb0, 0, 0, 0, 8, 17, 2]);
        (usual[8], usual[24]) = (0x20, 0x20);
        assert!(V6::is_plain(&usual));
        assert_eq!((V6::len(&usual), V6::protocol(&usual)), (48, 17));
        assert_eq!(V6::df_and_tos(&usual), (false, 0xab));
        for (at, value) in [(0, 0x45), (7, 1), (8, 0xfe), (24, 0xfe)] {
            let mut odd = usual;
            (odd[at], odd[9], odd[25]) = (value, 0x80, 0x80);
            assert!(!V6::is_plain(&odd), "{at}: {value}");
        }
    }
}
