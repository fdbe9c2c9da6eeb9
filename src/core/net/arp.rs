//! ARP (RFC 826) by the rules of the kernel's `arp_process` with its default settings: answers for all our addresses on every
//! interface, learns from answers and from who asks us, asks for neighbours, announces addresses.

use std::net::{IpAddr, Ipv4Addr};

use ripvs_packet::arp::{self, Arp};
use ripvs_packet::eth::{self, ethertype};
use ripvs_packet::{Frame, PacketIo};

use super::announce::Due;
use super::iface::{Iface, Mac, MacKind, MAC_BROADCAST};
use super::ingress::Ingress;
use super::neigh::{Heard, Replace};
use super::route::RouteHit;
use super::{source_for, Net, Outcome};
use crate::types::{IfaceId, Time};
use crate::verdict::{Drop, Verdict};

/// Longest Ethernet header.
const L2_MAX: usize = eth::HEADER_LEN + eth::TAG_LEN;

/// Writes an interface's Ethernet header. Returns its length.
pub(super) fn l2_header(iface: &Iface, dst: Mac, ethertype: u16, to: &mut [u8]) -> usize {
    to[..6].copy_from_slice(&dst);
    to[6..12].copy_from_slice(&iface.mac);
    let mut len = 12;
    if let Some(vid) = iface.vlan {
        to[12..14].copy_from_slice(&ethertype::VLAN.to_be_bytes());
        to[14..16].copy_from_slice(&vid.to_be_bytes());
        len = 16;
    }
    to[len..len + 2].copy_from_slice(&ethertype.to_be_bytes());
    len + 2
}

impl<F: Frame> Net<F> {
    /// Takes an ARP packet (EtherType 0x0806): answers a request for an address of ours, learns from it. Answers to our own
    /// questions go on to the host, which may have asked them.
    pub fn arp_input<IO: PacketIo<Frame = F>>(
        &mut self,
        now: Time,
        rx: &Ingress,
        mut frame: F,
        io: &mut IO,
    ) -> Outcome {
        let l3 = usize::from(rx.l3);
        if !frame.pull(l3 + arp::LEN) {
            return self.discard(frame, Drop::ArpInvalid);
        }
        let Some(packet) = Arp::at(frame.head(), l3) else {
            return self.discard(frame, Drop::ArpInvalid);
        };
        let (sender, target) = (
            Ipv4Addr::from(packet.sender_ip()),
            Ipv4Addr::from(packet.target_ip()),
        );
        let (sender_mac, operation) = (packet.sender_mac(), packet.operation());
        let sound = packet.is_ipv4_over_ethernet()
            && matches!(operation, arp::REQUEST | arp::REPLY)
            && !target.is_multicast()
            && !target.is_loopback()
            && !sender.is_multicast()
            && !sender.is_loopback()
            && !sender.is_broadcast()
            && sender_mac[0] & 1 == 0;
        if !sound {
            return self.discard(frame, Drop::ArpInvalid);
        }
        let ours = self.is_local(target.into());
        // Our own address in another's mouth, be it a duplicate or our own announcement come back, teaches nothing.
        let sender_ours = self.routes.is_ours(sender.into());
        if operation == arp::REQUEST && ours && (sender.is_unspecified() || !sender_ours) {
            if !sender.is_unspecified() {
                let heard = Heard {
                    mac: Some(sender_mac),
                    solicited: false,
                    replace: Replace::Always,
                    create: true,
                };
                self.hear(now, rx.iface, sender.into(), heard, io);
            }
            return self.arp_answer(rx, frame, io);
        }
        let gratuitous = sender == target;
        if !sender_ours && !sender.is_unspecified() {
            let heard = Heard {
                mac: Some(sender_mac),
                solicited: operation == arp::REPLY && rx.mac == MacKind::Host,
                replace: if gratuitous {
                    Replace::Always
                } else {
                    Replace::UnlessFresh
                },
                create: false,
            };
            self.hear(now, rx.iface, sender.into(), heard, io);
        }
        if operation == arp::REPLY && rx.companion.is_some() {
            return self.to_host(rx, frame, Drop::ArpNotOurs, io);
        }
        match operation == arp::REPLY || gratuitous {
            true => self.finish(Verdict::Answered),
            false => self.discard(frame, Drop::ArpNotOurs),
        }
    }

    /// Makes a request into its answer and sends that back.
    fn arp_answer<IO: PacketIo<Frame = F>>(
        &mut self,
        rx: &Ingress,
        mut frame: F,
        io: &mut IO,
    ) -> Outcome {
        let l3 = usize::from(rx.l3);
        let Some(iface) = self.ifaces.get(rx.iface) else {
            return self.discard(frame, Drop::UnknownPort);
        };
        let mac = iface.mac;
        frame.truncate(l3 + arp::LEN);
        let head = frame.head_mut();
        let Some(mut packet) = Arp::at_mut(head, l3) else {
            return self.discard(frame, Drop::ArpInvalid);
        };
        let (asker_mac, asker, asked) =
            (packet.sender_mac(), packet.sender_ip(), packet.target_ip());
        packet.set_operation(arp::REPLY);
        packet.set_sender_mac(mac);
        packet.set_sender_ip(asked);
        packet.set_target_mac(asker_mac);
        packet.set_target_ip(asker);
        // The VLAN tag, where there is one, stays between the addresses and the type.
        head[..6].copy_from_slice(&asker_mac);
        head[6..12].copy_from_slice(&mac);
        io.transmit(rx.port, frame);
        self.finish(Verdict::Answered)
    }

    /// Asks for `addr`, everybody or (to confirm what is known) the one at `at`.
    pub(super) fn arp_ask<IO: PacketIo<Frame = F>>(
        &mut self,
        iface: IfaceId,
        addr: Ipv4Addr,
        at: Option<Mac>,
        io: &mut IO,
    ) {
        let hit = RouteHit {
            iface,
            next_hop: addr.into(),
            mtu: 0,
            local: false,
        };
        let source = match source_for(&self.ifaces, addr.into(), &hit) {
            Some(IpAddr::V4(source)) => source,
            _ => Ipv4Addr::UNSPECIFIED,
        };
        self.arp_send(iface, at.unwrap_or(MAC_BROADCAST), source, addr, io);
    }

    /// Tells everybody on a link that an address of ours is here: a gratuitous request, as keepalived and `arping -U` send it.
    pub(super) fn arp_announce<IO: PacketIo<Frame = F>>(
        &mut self,
        iface: IfaceId,
        addr: Ipv4Addr,
        io: &mut IO,
    ) {
        self.arp_send(iface, MAC_BROADCAST, addr, addr, io);
    }

    fn arp_send<IO: PacketIo<Frame = F>>(
        &mut self,
        iface: IfaceId,
        to: Mac,
        sender: Ipv4Addr,
        target: Ipv4Addr,
        io: &mut IO,
    ) {
        let Some(iface) = self.ifaces.get(iface).filter(|iface| iface.up) else {
            return;
        };
        let Some(port) = iface.port else { return };
        let mut frame = [0; L2_MAX + arp::LEN];
        let l2 = l2_header(iface, to, ethertype::ARP, &mut frame);
        let packet = arp::build(
            arp::REQUEST,
            iface.mac,
            sender.octets(),
            [0; 6],
            target.octets(),
        );
        frame[l2..l2 + arp::LEN].copy_from_slice(&packet);
        self.emit(port, &frame[..l2 + arp::LEN], io);
    }

    /// Sends the announcements that are due, a bounded number of them.
    pub(super) fn announce_due<IO: PacketIo<Frame = F>>(&mut self, now: Time, io: &mut IO) {
        const PER_TICK: usize = 16;
        for _ in 0..PER_TICK {
            match self.announce.next(now) {
                None => return,
                Some(Due::Void) => {}
                Some(Due::Send(iface, IpAddr::V4(addr))) => self.arp_announce(iface, addr, io),
                Some(Due::Send(iface, IpAddr::V6(addr))) => self.nd_announce(iface, addr, io),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{dropped, frame, ip, mac, Bed, COMPANION, ETH0, ETH1};
    use super::super::{NetConfig, NetDelta, Nud};
    use super::*;
    use ripvs_packet::PortId;

    const HOST: &str = "02:00:00:00:01:01";
    const ALL: &str = "ff:ff:ff:ff:ff:ff";
    const ETH0_MAC: &str = "02:00:00:00:00:01";

    fn v4(text: &str) -> [u8; 4] {
        text.parse::<Ipv4Addr>().unwrap().octets()
    }

    fn arp_frame(to: &str, from: &str, operation: u16, sender: &str, target: &str) -> Vec<u8> {
        let packet = arp::build(operation, mac(from), v4(sender), [0; 6], v4(target));
        frame(to, from, ethertype::ARP, &packet)
    }

    #[test]
    fn requests_are_answered_for_our_addresses_on_any_interface() {
        let answered = Outcome::Done(Verdict::Answered);
        let other = dropped(Drop::ArpNotOurs);
        let invalid = dropped(Drop::ArpInvalid);
        for (what, sender, target, expected) in [
            ("own", "198.18.0.1", "198.18.0.254", answered),
            ("of another interface", "198.18.0.1", "10.0.0.254", answered),
            ("on lo", "198.18.0.1", "192.0.2.100", answered),
            ("in a prefix on lo", "198.18.0.1", "203.0.113.77", answered),
            ("a service's", "198.18.0.1", "198.18.0.100", answered),
            (
                "before having an address",
                "0.0.0.0",
                "198.18.0.254",
                answered,
            ),
            ("another's", "198.18.0.1", "198.18.0.7", other),
            ("a broadcast address", "198.18.0.1", "198.18.0.255", other),
            ("by our own address", "10.0.0.254", "198.18.0.254", other),
            ("a group", "198.18.0.1", "224.0.0.1", invalid),
            ("loopback", "198.18.0.1", "127.0.0.1", invalid),
        ] {
            let mut bed = Bed::new(NetConfig::default());
            bed.net.vip_add(bed.now, ip("198.18.0.100"));
            let request = arp_frame(ALL, HOST, arp::REQUEST, sender, target);
            // Padded, as short frames are.
            let padded = [&request[..], &[0; 18]].concat();
            assert_eq!(bed.input(0, &padded), expected, "{what}");
            let packet = arp::build(arp::REPLY, mac(ETH0_MAC), v4(target), mac(HOST), v4(sender));
            let reply = frame(HOST, ETH0_MAC, ethertype::ARP, &packet);
            let sent = if expected == answered {
                vec![(0, reply)]
            } else {
                vec![]
            };
            assert_eq!(bed.sent(), sent, "{what}");
            let learned = expected == answered && sender != "0.0.0.0";
            let entries = bed.net.neigh_entries(bed.now);
            assert_eq!(entries.len(), usize::from(learned), "{what}");
            if learned {
                assert_eq!(
                    (entries[0].state, entries[0].mac),
                    (Nud::Stale, Some(mac(HOST)))
                );
            }
        }
    }

    #[test]
    fn what_is_not_arp_for_ipv4_is_dropped_at_every_length() {
        let good = arp_frame(ALL, HOST, arp::REQUEST, "198.18.0.1", "198.18.0.254");
        for len in 0..good.len() {
            let mut bed = Bed::new(NetConfig::default());
            let reason = if len < 14 {
                Drop::Runt
            } else {
                Drop::ArpInvalid
            };
            assert_eq!(bed.input(0, &good[..len]), dropped(reason));
        }
        for (at, value) in [(14, 9), (16, 9), (18, 5), (19, 6), (21, 8), (22, 1)] {
            let mut bed = Bed::new(NetConfig::default());
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(bed.input(0, &bad), dropped(Drop::ArpInvalid), "byte {at}");
        }
    }

    #[test]
    fn questions_come_from_our_address_on_the_link_and_answers_confirm() {
        let mut bed = Bed::new(NetConfig::default());
        bed.addr(ETH1, "10.1.0.254/24");
        bed.sent();
        bed.send_to("10.1.0.11");
        let packet = arp::build(
            arp::REQUEST,
            [2, 0, 0, 0, 0, 2],
            v4("10.1.0.254"),
            [0; 6],
            v4("10.1.0.11"),
        );
        let asked = frame(ALL, "02:00:00:00:00:02", ethertype::ARP, &packet);
        assert_eq!(bed.sent(), [(1, asked)]);
        let to_us = "02:00:00:00:00:02";
        let reply = arp_frame(to_us, HOST, arp::REPLY, "10.1.0.11", "10.1.0.254");
        assert_eq!(bed.input(1, &reply), Outcome::Done(Verdict::Answered));
        assert_eq!(bed.net.neigh_entries(bed.now)[0].state, Nud::Reachable);
        assert_eq!(bed.sent().len(), 1, "what waited");
        bed.sleep(2);
        let moved = "02:00:00:00:01:99";
        let gratuitous = arp_frame(ALL, moved, arp::REQUEST, "10.1.0.11", "10.1.0.11");
        assert_eq!(bed.input(1, &gratuitous), Outcome::Done(Verdict::Answered));
        let entry = bed.net.neigh_entries(bed.now)[0];
        assert_eq!((entry.state, entry.mac), (Nud::Stale, Some(mac(moved))));
    }

    #[test]
    fn answers_go_on_to_the_host_which_may_have_asked_too() {
        let mut bed = Bed::new(NetConfig::default());
        let mut iface = bed.net.ifaces().get(ETH0).unwrap().clone();
        iface.companion = Some(COMPANION);
        bed.set(iface);
        let reply = arp_frame(ETH0_MAC, HOST, arp::REPLY, "198.18.0.1", "198.18.0.254");
        assert_eq!(bed.input(0, &reply), Outcome::Done(Verdict::Host));
        assert_eq!(bed.sent(), [(COMPANION.0, reply)]);
    }

    #[test]
    fn a_tagged_request_has_a_tagged_answer() {
        let mut bed = Bed::new(NetConfig::default());
        let iface = Iface {
            id: IfaceId(7),
            name: "eth0.5".into(),
            port: Some(PortId(0)),
            vlan: Some(5),
            mac: mac(ETH0_MAC),
            mtu: 1500,
            addresses: vec![super::super::testing::if_addr("10.5.0.254/24")],
            up: true,
            companion: None,
        };
        bed.set(iface);
        let untagged = arp_frame(ALL, HOST, arp::REQUEST, "10.5.0.1", "10.5.0.254");
        let tag = |frame: &[u8]| [&frame[..12], &[0x81, 0, 0, 5], &frame[12..]].concat();
        assert_eq!(
            bed.input(0, &tag(&untagged)),
            Outcome::Done(Verdict::Answered)
        );
        let packet = arp::build(
            arp::REPLY,
            mac(ETH0_MAC),
            v4("10.5.0.254"),
            mac(HOST),
            v4("10.5.0.1"),
        );
        let reply = frame(HOST, ETH0_MAC, ethertype::ARP, &packet);
        assert_eq!(bed.sent(), [(0, tag(&reply))]);
        bed.send_to("10.5.0.2");
        assert_eq!(bed.sent()[0].1[12..16], [0x81, 0, 0, 5]);
    }

    #[test]
    fn an_address_that_appears_is_announced_three_times_where_it_is_near() {
        let announced = |bed: &mut Bed| -> Vec<(u16, bool)> {
            let mut all = Vec::new();
            for _ in 0..5 {
                bed.sleep(1);
                all.extend(
                    bed.sent()
                        .into_iter()
                        .map(|(p, f)| (p, f[12..14] == [8, 6])),
                );
            }
            all
        };
        let mut bed = Bed::new(NetConfig::default());
        bed.net.vip_add(bed.now, ip("198.18.0.100"));
        bed.net.vip_add(bed.now, ip("198.18.0.100"));
        assert_eq!(announced(&mut bed), [(0, true); 3]);
        bed.net.vip_add(bed.now, ip("2001:db8:10::99"));
        assert_eq!(announced(&mut bed), [(1, false); 3]);
        bed.net.vip_add(bed.now, ip("192.0.2.200"));
        assert_eq!(announced(&mut bed), [], "routed to us: nobody asks for it");
        bed.addr(ETH1, "10.0.0.253/24");
        assert_eq!(announced(&mut bed), [(1, true); 3]);
        bed.net.vip_add(bed.now, ip("198.18.0.101"));
        bed.sleep(0);
        bed.net.vip_del(ip("198.18.0.101"));
        bed.sent();
        assert_eq!(announced(&mut bed), [], "gone again");
        let mut other = Bed::new(NetConfig {
            resolver: false,
            ..NetConfig::default()
        });
        other.net.vip_add(other.now, ip("198.18.0.100"));
        assert_eq!(announced(&mut other), [], "one worker of all does it");
        assert!(other.net.counters.balanced() && bed.net.counters.balanced());
    }

    #[test]
    fn what_is_kept_of_routes_stays_good_when_an_address_comes_that_nobody_had_or_goes() {
        let mut bed = Bed::new(NetConfig::default());
        let (free, taken) = (ip("198.18.0.100"), ip("198.18.0.7"));
        let neighbour = NetDelta::NeighSet {
            iface: ETH0,
            addr: taken,
            mac: mac(HOST),
        };
        bed.net.apply(bed.now, neighbour);
        let generation = bed.net.generation();
        bed.net.vip_add(bed.now, free);
        bed.net.vip_add(bed.now, free);
        assert!(!bed.net.vip_del(free));
        assert!(bed.net.vip_del(free));
        assert_eq!(bed.net.generation(), generation);
        bed.net.vip_add(bed.now, taken);
        assert_ne!(bed.net.generation(), generation, "a way led there");
    }

    #[test]
    fn a_vip_is_ours_until_its_last_service_is_gone() {
        let mut bed = Bed::new(NetConfig::default());
        let addr = ip("198.18.0.100");
        bed.net.vip_add(bed.now, addr);
        bed.net.vip_add(bed.now, addr);
        bed.net.vip_del(addr);
        assert!(bed.net.is_local(addr));
        bed.net.vip_del(addr);
        assert!(!bed.net.is_local(addr));
        bed.net.vip_del(addr);
        let own = ip("198.18.0.254");
        bed.net.vip_add(bed.now, own);
        bed.net.vip_del(own);
        assert!(bed.net.is_local(own), "an interface's address stays");
        let delta = NetDelta::IfaceDel(ETH0);
        bed.net.apply(bed.now, delta);
        assert!(!bed.net.is_local(own));
    }
}
