//! ARP (RFC 826) by the rules of the kernel's `arp_process` with its default settings: answers for all our addresses on every
//! interface, learns from answers and from who asks us, asks for neighbours, announces addresses.

use std::net::{IpAddr, Ipv4Addr};

use ripvs_packet::arp::{self, Arp};
use ripvs_packet::eth::{self, ethertype};
use ripvs_packet::{Frame, PacketIo};

use super::iface::{Iface, Mac, MacKind, MAC_BROADCAST};
use super::ingress::Ingress;
use super::neigh::{Heard, Replace};
use super::route::{LocalKind, RouteHit};
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
        let sender_ours = self.routes.local(sender.into()) == Some(LocalKind::Unicast);
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
            // In order of time: what was announced comes behind, a second later.
            if self.announce.front().is_none_or(|next| next.due > now) {
                return;
            }
            let Some(mut next) = self.announce.pop_front() else {
                return;
            };
            match next.addr {
                IpAddr::V4(addr) => self.arp_announce(next.iface, addr, io),
                IpAddr::V6(addr) => self.nd_announce(next.iface, addr, io),
            }
            next.left -= 1;
            next.due = Time(now.0 + Time::from_secs(1).0);
            if next.left > 0 {
                self.announce.push_back(next);
            }
        }
    }
}
