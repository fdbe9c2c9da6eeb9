//! Neighbour discovery for IPv6 (RFC 4861): answers solicitations for our addresses, learns from advertisements and from who
//! solicits us, solicits neighbours, advertises addresses that appear. Router advertisements and redirects are none of a
//! router's business and go to the host.

use std::net::{IpAddr, Ipv6Addr};

use ripvs_packet::eth::{self, ethertype};
use ripvs_packet::icmp::v6;
use ripvs_packet::nd::{self, Neighbour};
use ripvs_packet::parse::L3Info;
use ripvs_packet::{checksum, ipv6, Frame, PacketIo};

use super::arp::l2_header;
use super::iface::Mac;
use super::ingress::Ingress;
use super::neigh::{Heard, Replace};
use super::{is_link_local, Net, Outcome};
use crate::types::{proto, IfaceId, Time};
use crate::verdict::{Drop, Verdict};

/// The hop limit that proves a message to come from the link itself.
const HOP_LIMIT: u8 = 255;
/// Longest message read: options beyond the link-layer address are few.
const MESSAGE_MAX: usize = 512;
/// Length of a frame of ours at most.
const FRAME_MAX: usize = eth::HEADER_LEN + eth::TAG_LEN + ipv6::HEADER_LEN + nd::LEN_WITH_LLADDR;
/// All nodes on the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A solicitation or advertisement that passed the checks of RFC 4861 sections 7.1.1 and 7.1.2.
struct Message {
    src: Ipv6Addr,
    target: Ipv6Addr,
    flags: u8,
    /// The link-layer address option: the source's of a solicitation, the target's of an advertisement.
    mac: Option<Mac>,
}

impl Message {
    fn read(info: &L3Info, kind: u8, message: &[u8]) -> Option<Message> {
        let (src, dst) = (Ipv6Addr::from(info.src), Ipv6Addr::from(info.dst));
        let fixed = Neighbour::new(message)?;
        let sum = checksum::pseudo_v6(&info.src, &info.dst, proto::ICMPV6, message.len() as u32);
        let target = Ipv6Addr::from(fixed.target());
        let option = match kind {
            v6::NEIGHBOUR_SOLICIT => nd::OPT_SOURCE_LLADDR,
            _ => nd::OPT_TARGET_LLADDR,
        };
        let mac = nd::lladdr_option(message, option).ok()?;
        let flags = fixed.flags();
        let sound = info.ttl == HOP_LIMIT
            && fixed.code() == 0
            && sum.and(message).is_valid()
            && !target.is_multicast()
            && mac.is_none_or(|mac| mac[0] & 1 == 0)
            && match kind {
                // Duplicate address detection comes from nowhere, to the solicited-node group, and names no address.
                v6::NEIGHBOUR_SOLICIT if src.is_unspecified() => {
                    info.dst == nd::solicited_node(fixed.target()) && mac.is_none()
                }
                v6::NEIGHBOUR_SOLICIT => true,
                _ => !(dst.is_multicast() && flags & nd::SOLICITED != 0),
            };
        sound.then_some(Message {
            src,
            target,
            flags,
            mac,
        })
    }
}

impl<F: Frame> Net<F> {
    /// Takes a neighbour discovery message (ICMPv6 types 133 to 137) that is ours by address or group.
    pub(super) fn nd_input<IO: PacketIo<Frame = F>>(
        &mut self,
        now: Time,
        rx: &Ingress,
        info: &L3Info,
        kind: u8,
        frame: F,
        io: &mut IO,
    ) -> Outcome {
        if !matches!(kind, v6::NEIGHBOUR_SOLICIT | v6::NEIGHBOUR_ADVERT) {
            return self.to_host(rx, frame, Drop::NdIgnored, io);
        }
        let mut bytes = [0; MESSAGE_MAX];
        let len = info.l4_len();
        let at = usize::from(rx.l3) + usize::from(info.l4_offset);
        let Some(message) = bytes.get_mut(..len) else {
            return self.discard(frame, Drop::NdInvalid);
        };
        if frame.copy_to(at, message) != len {
            return self.discard(frame, Drop::NdInvalid);
        }
        let Some(message) = Message::read(info, kind, message) else {
            return self.discard(frame, Drop::NdInvalid);
        };
        if kind == v6::NEIGHBOUR_ADVERT {
            return self.nd_advertised(now, rx, &message, frame, io);
        }
        if !self.routes.local_on(message.target.into(), rx.iface) {
            return self.discard(frame, Drop::NdNotOurs);
        }
        if !message.src.is_unspecified() && !self.is_local(message.src.into()) {
            let heard = Heard {
                mac: message.mac,
                solicited: false,
                replace: Replace::Always,
                create: message.mac.is_some(),
            };
            self.hear(now, rx.iface, message.src.into(), heard, io);
        }
        self.nd_answer(now, rx, &message, frame, io)
    }

    fn nd_advertised<IO: PacketIo<Frame = F>>(
        &mut self,
        now: Time,
        rx: &Ingress,
        message: &Message,
        frame: F,
        io: &mut IO,
    ) -> Outcome {
        // An advertisement of our own address, from a twin or from ourselves, teaches nothing.
        if !self.is_local(message.target.into()) {
            let heard = Heard {
                mac: message.mac,
                solicited: message.flags & nd::SOLICITED != 0,
                replace: match message.flags & nd::OVERRIDE != 0 {
                    true => Replace::Always,
                    false => Replace::MarkStale,
                },
                create: false,
            };
            self.hear(now, rx.iface, message.target.into(), heard, io);
        }
        match rx.companion {
            Some(_) => self.to_host(rx, frame, Drop::NdIgnored, io),
            None => self.finish(Verdict::Answered),
        }
    }

    /// Answers a solicitation: to the asker, or to all nodes where the asker has no address yet.
    fn nd_answer<IO: PacketIo<Frame = F>>(
        &mut self,
        now: Time,
        rx: &Ingress,
        message: &Message,
        frame: F,
        io: &mut IO,
    ) -> Outcome {
        let Some(iface) = self.ifaces.get(rx.iface) else {
            return self.discard(frame, Drop::UnknownPort);
        };
        let (to, flags) = match message.src.is_unspecified() {
            true => (ALL_NODES, nd::ROUTER | nd::OVERRIDE),
            false => (message.src, nd::ROUTER | nd::OVERRIDE | nd::SOLICITED),
        };
        let advert = nd::build_advert(message.target.octets(), iface.mac, flags);
        let mac = match to.is_multicast() {
            true => Some(nd::multicast_mac(to.octets())),
            false => message.mac,
        };
        let mut bytes = [0; FRAME_MAX];
        let l2 = match mac {
            Some(mac) => l2_header(iface, mac, ethertype::IPV6, &mut bytes),
            None => 0,
        };
        let packet = self.nd_packet(message.target, to, advert);
        let len = l2 + packet.len();
        bytes[l2..len].copy_from_slice(&packet);
        // A solicitation may be shorter than its answer, so that goes in a new frame, in the place of the old one.
        let Some(answer) = io.alloc(&bytes[..len]) else {
            return self.discard(frame, Drop::NoMemory);
        };
        drop(frame);
        if mac.is_none() {
            // Who did not tell its MAC address is known, or is asked in turn.
            let hit = self.on_link(rx.iface, to.into());
            return self
                .send_as(now, answer, 0, &hit, Verdict::Answered, io)
                .into();
        }
        io.transmit(rx.port, answer);
        self.finish(Verdict::Answered)
    }

    /// An IPv6 packet with a solicitation or advertisement, checksum and all.
    fn nd_packet(
        &self,
        src: Ipv6Addr,
        dst: Ipv6Addr,
        mut message: [u8; nd::LEN_WITH_LLADDR],
    ) -> [u8; ipv6::HEADER_LEN + nd::LEN_WITH_LLADDR] {
        let (src, dst) = (src.octets(), dst.octets());
        let sum = checksum::pseudo_v6(&src, &dst, proto::ICMPV6, message.len() as u32);
        let check = sum.and(&message).checksum();
        message[2..4].copy_from_slice(&check.to_be_bytes());
        let header = ipv6::build(&ipv6::NewHeader {
            traffic_class: 0,
            flow_label: 0,
            payload_len: message.len() as u16,
            next_header: proto::ICMPV6,
            hop_limit: HOP_LIMIT,
            src,
            dst,
        });
        let mut packet = [0; ipv6::HEADER_LEN + nd::LEN_WITH_LLADDR];
        packet[..ipv6::HEADER_LEN].copy_from_slice(&header);
        packet[ipv6::HEADER_LEN..].copy_from_slice(&message);
        packet
    }

    /// Asks for `addr`, its solicited-node group or (to confirm what is known) the one at `at`.
    pub(super) fn nd_ask<IO: PacketIo<Frame = F>>(
        &mut self,
        iface: IfaceId,
        addr: Ipv6Addr,
        at: Option<Mac>,
        io: &mut IO,
    ) {
        let Some(own) = self.ifaces.get(iface) else {
            return;
        };
        // The link-local address always does, as the kernel takes it where no packet suggests another (ndisc_send_ns).
        let link_local = |a: &super::IfAddr| is_link_local(a.addr).then_some(a.addr);
        let source = match own.addresses.iter().find_map(link_local) {
            Some(IpAddr::V6(source)) => source,
            _ => own.link_local(),
        };
        let (dst, mac) = match at {
            Some(mac) => (addr, mac),
            None => {
                let group = nd::solicited_node(addr.octets());
                (Ipv6Addr::from(group), nd::multicast_mac(group))
            }
        };
        let solicit = nd::build_solicit(addr.octets(), own.mac);
        let packet = self.nd_packet(source, dst, solicit);
        self.nd_send(iface, mac, &packet, io);
    }

    /// Tells everybody on a link that an address of ours is here (RFC 4861 section 7.2.6).
    pub(super) fn nd_announce<IO: PacketIo<Frame = F>>(
        &mut self,
        iface: IfaceId,
        addr: Ipv6Addr,
        io: &mut IO,
    ) {
        let Some(own) = self.ifaces.get(iface) else {
            return;
        };
        let advert = nd::build_advert(addr.octets(), own.mac, nd::ROUTER | nd::OVERRIDE);
        let packet = self.nd_packet(addr, ALL_NODES, advert);
        let mac = nd::multicast_mac(ALL_NODES.octets());
        self.nd_send(iface, mac, &packet, io);
    }

    fn nd_send<IO: PacketIo<Frame = F>>(
        &mut self,
        iface: IfaceId,
        mac: Mac,
        packet: &[u8],
        io: &mut IO,
    ) {
        let Some(iface) = self.ifaces.get(iface).filter(|iface| iface.up) else {
            return;
        };
        let Some(port) = iface.port else { return };
        let mut frame = [0; FRAME_MAX];
        let l2 = l2_header(iface, mac, ethertype::IPV6, &mut frame);
        frame[l2..l2 + packet.len()].copy_from_slice(packet);
        self.emit(port, &frame[..l2 + packet.len()], io);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{dropped, frame, ip, mac, Bed, ETH1};
    use super::super::{NetConfig, Nud};
    use super::*;

    const HOST: &str = "02:00:00:00:01:01";
    const ETH0_MAC: &str = "02:00:00:00:00:01";

    fn v6(text: &str) -> [u8; 16] {
        text.parse::<Ipv6Addr>().unwrap().octets()
    }

    /// A frame with an ICMPv6 message whose checksum is made right.
    fn message(dst_mac: &str, src: &str, dst: &str, hop_limit: u8, message: &[u8]) -> Vec<u8> {
        let (src, dst) = (v6(src), v6(dst));
        let mut message = message.to_vec();
        let sum = checksum::pseudo_v6(&src, &dst, 58, message.len() as u32).and(&message);
        message[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
        let header = ipv6::build(&ipv6::NewHeader {
            traffic_class: 0,
            flow_label: 0,
            payload_len: message.len() as u16,
            next_header: 58,
            hop_limit,
            src,
            dst,
        });
        let packet = [&header[..], &message].concat();
        frame(dst_mac, HOST, ethertype::IPV6, &packet)
    }

    /// A solicitation to the target's solicited-node group.
    fn solicit(src: &str, target: &str, option: bool) -> Vec<u8> {
        let bytes = nd::build_solicit(v6(target), mac(HOST));
        let group = Ipv6Addr::from(nd::solicited_node(v6(target)));
        let len = if option { nd::LEN_WITH_LLADDR } else { nd::LEN };
        message(
            "33:33:ff:00:00:00",
            src,
            &group.to_string(),
            255,
            &bytes[..len],
        )
    }

    fn advert(to: &str, to_mac: &str, from: &str, target: &str, flags: u8) -> Vec<u8> {
        let bytes = nd::build_advert(v6(target), mac(ETH0_MAC), flags);
        let mut frame = message(to_mac, from, to, 255, &bytes);
        frame[6..12].copy_from_slice(&mac(ETH0_MAC));
        frame
    }

    #[test]
    fn solicitations_are_answered_for_our_addresses() {
        let ours = Outcome::Done(Verdict::Answered);
        let other = dropped(Drop::NdNotOurs);
        for (what, target, expected) in [
            ("own", "2001:db8:18::fe", ours),
            ("link-local", "fe80::ff:fe00:1", ours),
            ("on lo", "2001:db8:2::100", ours),
            ("a service's", "2001:db8:18::100", ours),
            ("of another interface", "2001:db8:10::fe", other),
            ("another interface's link-local", "fe80::ff:fe00:2", other),
            ("another's", "2001:db8:18::7", other),
        ] {
            let mut bed = Bed::new(NetConfig::default());
            bed.net.vip_add(bed.now, ip("2001:db8:18::100"));
            let asked = solicit("2001:db8:18::1", target, true);
            assert_eq!(bed.input(0, &asked), expected, "{what}");
            let reply = advert("2001:db8:18::1", HOST, target, target, 0xe0);
            let sent = if expected == ours {
                vec![(0, reply)]
            } else {
                vec![]
            };
            assert_eq!(bed.sent(), sent, "{what}");
            let entries = bed.net.neigh_entries(bed.now);
            assert_eq!(entries.len(), usize::from(expected == ours));
            assert!(entries
                .iter()
                .all(|e| e.state == Nud::Stale && e.mac == Some(mac(HOST))));
        }
    }

    #[test]
    fn who_checks_for_a_duplicate_hears_of_it_with_all_others() {
        let mut bed = Bed::new(NetConfig::default());
        let asked = solicit("::", "2001:db8:18::fe", false);
        assert_eq!(bed.input(0, &asked), Outcome::Done(Verdict::Answered));
        let target = "2001:db8:18::fe";
        let reply = advert("ff02::1", "33:33:00:00:00:01", target, target, 0xa0);
        assert_eq!(bed.sent(), [(0, reply)]);
        assert!(bed.net.neighbours().is_empty());
    }

    #[test]
    fn who_does_not_tell_its_mac_address_is_asked_in_turn() {
        let mut bed = Bed::new(NetConfig::default());
        let asked = solicit("2001:db8:18::1", "2001:db8:18::fe", false);
        assert_eq!(bed.input(0, &asked), Outcome::Held);
        let question = bed.sent();
        assert_eq!(question[0].1[54], 135);
        let bytes = nd::build_advert(v6("2001:db8:18::1"), mac(HOST), nd::SOLICITED);
        let told = message(ETH0_MAC, "2001:db8:18::1", "fe80::ff:fe00:1", 255, &bytes);
        assert_eq!(bed.input(0, &told), Outcome::Done(Verdict::Answered));
        let target = "2001:db8:18::fe";
        let reply = advert("2001:db8:18::1", HOST, target, target, 0xe0);
        assert_eq!(bed.sent(), [(0, reply)]);
        assert_eq!(bed.net.counters.answered, 2);
    }

    #[test]
    fn messages_that_rfc_4861_says_to_discard_are_discarded() {
        let (src, target) = ("2001:db8:18::1", "2001:db8:18::fe");
        let good = nd::build_solicit(v6(target), mac(HOST));
        let to_us = |hop: u8, src: &str, bytes: &[u8]| message(ETH0_MAC, src, target, hop, bytes);
        let changed = |at: usize, value: u8| {
            let mut bytes = good;
            bytes[at] = value;
            to_us(255, src, &bytes)
        };
        let mut wrong_sum = to_us(255, src, &good);
        wrong_sum[57] ^= 1;
        let advert = nd::build_advert(v6("2001:db8:18::7"), mac(HOST), nd::SOLICITED);
        for (what, bytes) in [
            ("from beyond the link", to_us(254, src, &good)),
            ("code", changed(1, 1)),
            ("checksum", wrong_sum),
            ("group as target", changed(8, 0xff)),
            ("option of length 0", changed(25, 0)),
            ("option beyond the end", changed(25, 2)),
            ("group as MAC address", changed(26, 1)),
            ("too short", to_us(255, src, &good[..20])),
            ("nobody's, not to the group", to_us(255, "::", &good[..24])),
            (
                "nobody's, with MAC address",
                message(ETH0_MAC, "::", "ff02::1:ff00:fe", 255, &good),
            ),
            (
                "solicited, but to all",
                message("33:33:00:00:00:01", src, "ff02::1", 255, &advert),
            ),
        ] {
            let mut bed = Bed::new(NetConfig::default());
            assert_eq!(bed.input(0, &bytes), dropped(Drop::NdInvalid), "{what}");
            assert!(bed.net.neighbours().is_empty(), "{what}");
        }
    }

    #[test]
    fn questions_go_to_the_solicited_node_group_from_the_link_local_address() {
        let mut bed = Bed::new(NetConfig::default());
        bed.send_to("2001:db8:10::abcd");
        let sent = bed.sent();
        let frame = &sent[0].1;
        assert_eq!(frame[..6], mac("33:33:ff:00:ab:cd"));
        assert_eq!(frame[14 + 8..14 + 24], v6("fe80::ff:fe00:2"));
        assert_eq!(frame[14 + 24..14 + 40], v6("ff02::1:ff00:abcd"));
        // The twin of a test bed takes it for sound and answers.
        let mut twin = Bed::new(NetConfig::default());
        twin.addr(ETH1, "2001:db8:10::abcd/64");
        assert_eq!(twin.input(1, frame), Outcome::Done(Verdict::Answered));
    }

    #[test]
    fn other_discovery_messages_are_the_hosts() {
        let mut bed = Bed::new(NetConfig::default());
        let solicit = message(
            "33:33:00:00:00:02",
            "fe80::1",
            "ff02::2",
            255,
            &[133, 0, 0, 0, 0, 0, 0, 0],
        );
        assert_eq!(bed.input(0, &solicit), dropped(Drop::NdIgnored));
    }
}
