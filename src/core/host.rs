//! What a host says to those who knock at a closed port, for addresses of ours with no host behind the port to say it:
//! a reset for TCP (RFC 9293, 3.10.7.1), port unreachable for UDP, protocol unreachable for SCTP. The resets of a server that
//! is the balancer itself count for its connections, as they do in the kernel.

use ripvs_packet::checksum::{pseudo_v4, pseudo_v6, Sum};
use ripvs_packet::{icmp, ipv4, ipv6, parse, tcp, udp, Frame};

use crate::net::{DstKind, IcmpKind};
use crate::packet::Packet;
use crate::rewrite::add_frame;
use crate::types::{proto, Time};
use crate::verdict::{Drop, Verdict};
use crate::worker::{Io, Tables, Worker};

const TTL: u8 = 64;

impl<F: Frame> Worker<F> {
    /// What is ours and not IPVS's: echo, neighbour discovery, the host's.
    pub(crate) fn host_takes<A: Tables<F>>(
        &mut self,
        now: Time,
        pkt: Packet<F>,
        io: &mut impl Io<F>,
    ) {
        if pkt.info.is_fragment() && pkt.info.family == parse::Family::V6 {
            return self.fragment_unfit(now, pkt, io);
        }
        let answered = pkt.dst == DstKind::Local && pkt.rx.companion.is_none();
        match pkt.info.protocol {
            proto::TCP if answered => self.reset::<A>(now, pkt, io),
            proto::UDP if answered && !udp_is_valid(&pkt) => {
                self.discard(pkt, Drop::BadChecksum);
            }
            proto::UDP if answered => {
                let kind = IcmpKind::PortUnreachable;
                self.refuse(now, pkt, kind, Drop::HostNoCompanion, io);
            }
            proto::SCTP if answered => {
                let kind = IcmpKind::ProtocolUnreachable {
                    pointer: protocol_at(&pkt),
                };
                self.refuse(now, pkt, kind, Drop::HostNoCompanion, io);
            }
            _ => {
                let Packet {
                    frame,
                    rx,
                    info,
                    dst,
                    ..
                } = pkt;
                self.net.local_input(now, &rx, &info, dst, frame, io);
            }
        }
    }

    /// An IPv6 fragment that cannot be put together, which IPVS let pass: its sender is told (RFC 8200, 4.5; RFC 7112).
    fn fragment_unfit(&mut self, now: Time, pkt: Packet<F>, io: &mut impl Io<F>) {
        let odd =
            pkt.info.has(parse::flags::MORE_FRAGMENTS) && !pkt.info.l4_len().is_multiple_of(8);
        let (code, pointer) = if odd {
            (icmp::v6::HEADER_FIELD, ipv6::PAYLOAD_LEN as u16)
        } else {
            (icmp::v6::INCOMPLETE_CHAIN, 0)
        };
        let kind = IcmpKind::ParamProblem { code, pointer };
        self.refuse(now, pkt, kind, Drop::FragmentInvalid, io);
    }

    /// Answers a TCP segment to a closed port.
    fn reset<A: Tables<F>>(&mut self, now: Time, pkt: Packet<F>, io: &mut impl Io<F>) {
        let Some(header) = pkt.transport().first_chunk::<{ tcp::HEADER_LEN }>() else {
            self.discard(pkt, Drop::Truncated);
            return;
        };
        let (flags, header) = (header[tcp::FLAGS], *header);
        if flags & tcp::RST != 0 || !sum_is_valid(&pkt) {
            self.discard(pkt, Drop::HostNoCompanion);
            return;
        }
        let mut answer = [0; tcp::HEADER_LEN];
        answer[..2].copy_from_slice(&header[2..4]);
        answer[2..4].copy_from_slice(&header[..2]);
        answer[tcp::DATA_OFFSET] = 5 << 4;
        if flags & tcp::ACK != 0 {
            answer[tcp::SEQ..tcp::SEQ + 4].copy_from_slice(&header[tcp::ACK_SEQ..tcp::ACK_SEQ + 4]);
            answer[tcp::FLAGS] = tcp::RST;
        } else {
            let seq = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            let data = pkt
                .info
                .l4_len()
                .saturating_sub(usize::from(header[tcp::DATA_OFFSET] >> 4) * 4)
                as u32;
            let marks = u32::from(flags & tcp::SYN != 0) + u32::from(flags & tcp::FIN != 0);
            let next = seq.wrapping_add(data).wrapping_add(marks);
            answer[tcp::ACK_SEQ..tcp::ACK_SEQ + 4].copy_from_slice(&next.to_be_bytes());
            answer[tcp::FLAGS] = tcp::RST | tcp::ACK;
        }
        let rx = pkt.rx;
        let bytes = packet_back(&pkt.info, answer);
        self.net.counters.done(Verdict::Answered);
        drop(pkt);
        self.originate::<A>(now, rx, &bytes, io);
    }

    /// Sends a packet of the host's own making by way of IPVS, which may have it as a reply of a server.
    fn originate<A: Tables<F>>(
        &mut self,
        now: Time,
        rx: crate::net::Ingress,
        bytes: &[u8],
        io: &mut impl Io<F>,
    ) {
        let ethertype = if A::IS_V6 {
            ripvs_packet::eth::ethertype::IPV6
        } else {
            ripvs_packet::eth::ethertype::IPV4
        };
        let Ok(info) = parse::parse(ethertype, bytes, bytes.len()) else {
            return;
        };
        self.net.counters.generated += 1;
        let Some(frame) = io.alloc(bytes) else {
            self.net.counters.done(Verdict::Dropped(Drop::NoMemory));
            return;
        };
        let pkt = Packet {
            frame,
            rx,
            l3: 0,
            info,
            dst: DstKind::Remote,
            options: Default::default(),
            mark: 0,
            hash: 0,
            pieces: None,
            routed: false,
            carried: false,
        };
        let passed = if self.services.enabled(A::AF) {
            self.reply::<A>(now, pkt, io)
        } else {
            Some(pkt)
        };
        let Some(pkt) = passed else { return };
        match self.net.route(pkt.info.dst_ip(), Some(pkt.info.src_ip())) {
            Some(hit) => self.output(now, pkt, hit, io),
            None => self.discard(pkt, Drop::NoRoute),
        };
    }
}

/// Whether the transport's checksum is right.
fn sum_is_valid<F: Frame>(pkt: &Packet<F>) -> bool {
    let at = pkt.l3 + usize::from(pkt.info.l4_offset);
    add_frame(pseudo(&pkt.info, pkt.info.l4_len()), &pkt.frame, at).is_valid()
}

/// Whether a UDP datagram's checksum will do: none at all is for IPv4 only (RFC 8200, 8.1).
fn udp_is_valid<F: Frame>(pkt: &Packet<F>) -> bool {
    match pkt.transport().get(udp::CHECKSUM..udp::CHECKSUM + 2) {
        Some([0, 0]) => pkt.info.family == parse::Family::V4,
        _ => sum_is_valid(pkt),
    }
}

/// Where in an IPv6 packet the upper protocol's number lies: in the last extension header, or in the fixed one.
fn protocol_at<F: Frame>(pkt: &Packet<F>) -> u16 {
    let (ip, end) = (pkt.ip(), usize::from(pkt.info.l4_offset));
    let (mut at, mut next) = (ipv6::NEXT_HEADER, ipv6::HEADER_LEN);
    while next + 1 < end.min(ip.len()) {
        at = next;
        next += (usize::from(ip[next + 1]) + 1) * 8;
    }
    at as u16
}

/// The sum of a transport's pseudo header.
fn pseudo(info: &parse::L3Info, len: usize) -> Sum {
    match info.family {
        parse::Family::V4 => pseudo_v4(info.src4(), info.dst4(), info.protocol, len as u16),
        parse::Family::V6 => pseudo_v6(&info.src, &info.dst, info.protocol, len as u32),
    }
}

/// The packet that goes back to a packet's sender with this TCP header.
fn packet_back(info: &parse::L3Info, mut segment: [u8; tcp::HEADER_LEN]) -> Vec<u8> {
    // A reset has its packet's TOS, less the bits for congestion.
    let tos = info.tos & !3;
    let sum = pseudo(info, tcp::HEADER_LEN).and(&segment).checksum();
    segment[tcp::CHECKSUM..tcp::CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    match info.family {
        parse::Family::V4 => {
            let header = ipv4::build(&ipv4::NewHeader {
                tos,
                total_len: (ipv4::HEADER_LEN + tcp::HEADER_LEN) as u16,
                id: 0,
                fragment: ipv4::DF,
                ttl: TTL,
                protocol: proto::TCP,
                src: info.dst4(),
                dst: info.src4(),
            });
            [header.as_slice(), &segment].concat()
        }
        parse::Family::V6 => {
            let header = ipv6::build(&ipv6::NewHeader {
                traffic_class: tos,
                flow_label: 0,
                payload_len: tcp::HEADER_LEN as u16,
                next_header: proto::TCP,
                hop_limit: TTL,
                src: info.dst,
                dst: info.src,
            });
            [header.as_slice(), &segment].concat()
        }
    }
}
