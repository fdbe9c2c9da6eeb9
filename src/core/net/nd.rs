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
