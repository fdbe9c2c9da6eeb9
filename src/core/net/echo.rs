//! What is ours and not IPVS's: answers echo requests, hands neighbour discovery on, gives the rest to the host.

use ripvs_packet::checksum::{self, Sum};
use ripvs_packet::icmp::{self, v4, v6};
use ripvs_packet::parse::{Family, L3Info};
use ripvs_packet::{ipv4, ipv6, Frame, PacketIo};

use super::forward::Outgoing;
use super::ingress::{DstKind, Ingress};
use super::route::RouteHit;
use super::{is_link_local, Net, Outcome};
use crate::types::{proto, IfaceId, Time};
use crate::verdict::{Drop, Verdict};

use std::net::IpAddr;

/// The TTL and hop limit of what we send ourselves.
pub(super) const TTL: u8 = 64;

/// The sum over part of a frame, across its segments.
pub(super) fn sum_frame<F: Frame>(frame: &F, from: usize, to: usize, mut sum: Sum) -> Sum {
    let head = frame.head();
    let mut at = from;
    if let Some(first) = head.get(from..to.min(head.len())) {
        sum = sum.and(first);
        at += first.len();
    }
    let mut chunk = [0; 512];
    while at < to {
        let want = chunk.len().min(to - at);
        let got = frame.copy_to(at, &mut chunk[..want]);
        if got == 0 {
            break;
        }
        sum = sum.and(&chunk[..got]);
        at += got;
    }
    sum
}

impl<F: Frame> Net<F> {
    /// Takes a whole packet (not a fragment) that [`Net::classify`] says is ours, a broadcast's or a group's, and that IPVS
    /// leaves alone.
    pub fn local_input<IO: PacketIo<Frame = F>>(
        &mut self,
        now: Time,
        rx: &Ingress,
        info: &L3Info,
        dst: DstKind,
        frame: F,
        io: &mut IO,
    ) -> Outcome {
        let otherwise = match dst {
            DstKind::Local | DstKind::Remote => Drop::HostNoCompanion,
            DstKind::Multicast => Drop::Multicast,
            DstKind::Broadcast => Drop::Broadcast,
        };
        let icmp = match info.family {
            Family::V4 => proto::ICMP,
            Family::V6 => proto::ICMPV6,
        };
        if info.protocol != icmp || info.is_fragment() {
            return self.to_host(rx, frame, otherwise, io);
        }
        let mut head = [0; icmp::HEADER_LEN];
        let at = usize::from(rx.l3) + usize::from(info.l4_offset);
        if info.l4_len() < head.len() || frame.copy_to(at, &mut head) != head.len() {
            return self.discard(frame, Drop::Runt);
        }
        match (info.family, head[icmp::TYPE]) {
            (Family::V4, v4::ECHO) if dst != DstKind::Local => {
                self.discard(frame, Drop::EchoBroadcast)
            }
            (Family::V4, v4::ECHO) => self.echo_answer(now, rx, info, dst, &head, frame, io),
            (Family::V6, v6::ECHO) => self.echo_answer(now, rx, info, dst, &head, frame, io),
            (Family::V6, kind @ v6::ROUTER_SOLICIT..=v6::REDIRECT) => {
                self.nd_input(now, rx, info, kind, frame, io)
            }
            _ => self.to_host(rx, frame, otherwise, io),
        }
    }

    /// The way to a neighbour on an interface's own link.
    pub(super) fn on_link(&self, iface: IfaceId, next_hop: IpAddr) -> RouteHit {
        RouteHit {
            iface,
            next_hop,
            mtu: self.ifaces.get(iface).map_or(0, |iface| iface.mtu),
            local: false,
        }
    }

    /// The way back to who sent us something by `rx`.
    pub(super) fn route_back(
        &self,
        rx: Option<&Ingress>,
        to: IpAddr,
        from: Option<IpAddr>,
    ) -> Option<RouteHit> {
        match rx {
            Some(rx) if is_link_local(to) => Some(self.on_link(rx.iface, to)),
            _ if is_link_local(to) => None,
            _ => self.route(to, from).filter(|hit| !hit.local),
        }
    }

    /// Makes an echo request into its reply (`icmp_echo`, `icmpv6_echo_reply`): type of service kept, TTL 64, no options or
    /// extension headers.
    #[allow(clippy::too_many_arguments)] // all that is known of the packet
    fn echo_answer<IO: PacketIo<Frame = F>>(
        &mut self,
        now: Time,
        rx: &Ingress,
        info: &L3Info,
        dst: DstKind,
        head: &[u8; icmp::HEADER_LEN],
        mut frame: F,
        io: &mut IO,
    ) -> Outcome {
        let l3 = usize::from(rx.l3);
        let at = l3 + usize::from(info.l4_offset);
        let len = info.l4_len();
        frame.truncate(at + len);
        // Everything behind the checksum, which the reply has in common with the request.
        let common = sum_frame(&frame, at + 4, at + len, Sum::new()).fold();
        let pseudo = match info.family {
            Family::V4 => Sum::new(),
            Family::V6 => checksum::pseudo_v6(&info.src, &info.dst, proto::ICMPV6, len as u32),
        };
        if !pseudo.and_u16(common).and(&head[..4]).is_valid() {
            return self.discard(frame, Drop::BadChecksum);
        }
        let asked = (dst == DstKind::Local).then_some(info.dst_ip());
        let back = self.route_back(Some(rx), info.src_ip(), asked);
        let Some(hit) = back else {
            return self.discard(frame, Drop::NoRoute);
        };
        let Some(source) = asked.or_else(|| self.source_for(info.src_ip(), &hit)) else {
            return self.discard(frame, Drop::NoRoute);
        };
        let (new_l3, kind) = match info.family {
            Family::V4 => (at - ipv4::HEADER_LEN, v4::ECHO_REPLY),
            Family::V6 => (at - ipv6::HEADER_LEN, v6::ECHO_REPLY),
        };
        let total = (at + len - new_l3) as u16;
        let mut start = [0; ipv6::HEADER_LEN + 4];
        let pseudo = match (info.family, source) {
            (Family::V4, IpAddr::V4(source)) => {
                let header = ipv4::build(&ipv4::NewHeader {
                    tos: info.tos,
                    total_len: total,
                    id: self.next_ip_id(),
                    fragment: 0,
                    ttl: TTL,
                    protocol: proto::ICMP,
                    src: source.octets(),
                    dst: info.src4(),
                });
                start[..ipv4::HEADER_LEN].copy_from_slice(&header);
                Sum::new()
            }
            (Family::V6, IpAddr::V6(source)) => {
                let header = ipv6::build(&ipv6::NewHeader {
                    traffic_class: info.tos,
                    flow_label: 0,
                    payload_len: len as u16,
                    next_header: proto::ICMPV6,
                    hop_limit: TTL,
                    src: source.octets(),
                    dst: info.src,
                });
                start[..ipv6::HEADER_LEN].copy_from_slice(&header);
                checksum::pseudo_v6(&source.octets(), &info.src, proto::ICMPV6, len as u32)
            }
            _ => return self.discard(frame, Drop::NoRoute),
        };
        let ip_len = at - new_l3;
        let check = pseudo.and_u16(common).and(&[kind, head[1]]).checksum();
        start[ip_len] = kind;
        start[ip_len + 1] = head[1];
        start[ip_len + 2..ip_len + 4].copy_from_slice(&check.to_be_bytes());
        frame.write_at(new_l3, &start[..ip_len + 4]);
        let packet = Outgoing {
            frame,
            l3: new_l3,
            pieces: None,
            force: true,
            verdict: Verdict::Answered,
        };
        self.send_or_drop(now, packet, &hit, io)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{frame, Bed, ETH0};
    use super::super::NetConfig;
    use super::*;
    use ripvs_packet::memory::MemFrame;

    const HOST: &str = "02:00:00:00:01:01";

    #[test]
    fn sums_run_across_segments_of_odd_lengths() {
        let bytes: Vec<u8> = (0..=255).cycle().take(2001).collect();
        let expected = Sum::of(&bytes[3..1990]).fold();
        for cut in [0, 1, 3, 4, 77, 1000, 1989, 2001] {
            let (a, b) = bytes.split_at(cut);
            let (b, c) = b.split_at(b.len() / 3);
            let frame = MemFrame::with_segments(&[a, b, c], 128);
            assert_eq!(
                sum_frame(&frame, 3, 1990, Sum::new()).fold(),
                expected,
                "{cut}"
            );
        }
    }

    #[test]
    fn an_asker_behind_a_link_local_address_is_answered_on_its_link() {
        let mut bed = Bed::new(NetConfig::default());
        bed.neigh(ETH0, "fe80::9", HOST);
        let (src, dst) = (
            [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9],
            "fe80::ff:fe00:1",
        );
        let dst = dst.parse::<std::net::Ipv6Addr>().unwrap().octets();
        let mut echo = [128, 0, 0, 0, 0, 1, 0, 1, b'x'];
        let sum = checksum::pseudo_v6(&src, &dst, 58, echo.len() as u32).and(&echo);
        echo[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
        let header = ipv6::build(&ipv6::NewHeader {
            traffic_class: 0,
            flow_label: 0,
            payload_len: echo.len() as u16,
            next_header: 58,
            hop_limit: 64,
            src,
            dst,
        });
        let packet = [&header[..], &echo].concat();
        let asked = frame("02:00:00:00:00:01", HOST, 0x86dd, &packet);
        assert_eq!(bed.input(0, &asked), Outcome::Done(Verdict::Answered));
        let sent = bed.sent();
        assert_eq!((sent.len(), sent[0].0, sent[0].1[54]), (1, 0, 129));
        assert_eq!(sent[0].1[22..54], [dst, src].concat());
    }

    #[test]
    fn an_answer_may_have_to_wait_for_the_asker() {
        let mut bed = Bed::new(NetConfig::default());
        let row = include_str!("kernel.rows").lines().nth(4).unwrap();
        let bytes = super::super::testing::hex(row.strip_prefix("> eth0 ").unwrap());
        assert_eq!(bed.input(0, &bytes), Outcome::Held);
        bed.neigh(ETH0, "198.18.0.1", HOST);
        bed.sleep(0);
        assert_eq!(bed.net.counters.answered, 1);
        assert_eq!(bed.sent().len(), 2, "the question and the answer");
    }
}
