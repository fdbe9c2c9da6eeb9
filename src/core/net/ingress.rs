//! The first questions about a frame: which interface takes it, whether it is meant for us, and whether its packet is ours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ripvs_packet::{eth, Frame, PacketIo, PortId};

use super::iface::{MacKind, LO, MAC_BROADCAST};
use super::route::{is_link_local, LocalKind};
use super::{Net, Outcome};
use crate::types::IfaceId;
use crate::verdict::{Drop, Verdict};

/// What is known of a received frame before its packet is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// The port it came by.
    pub port: PortId,
    /// The interface that takes it.
    pub iface: IfaceId,
    /// Where the packet begins.
    pub l3: u16,
    /// What the packet is, an EtherType.
    pub ethertype: u16,
    /// Whom the destination MAC address means.
    pub mac: MacKind,
    /// Where the host of that interface listens.
    pub companion: Option<PortId>,
}

/// Whose a destination address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DstKind {
    /// Ours: an interface's address, in a prefix on lo, or a VIP.
    Local,
    /// All hosts on a link.
    Broadcast,
    /// A group; whether we listen to it is for who takes it to say.
    Multicast,
    /// Another's: to be forwarded.
    Remote,
}

impl<F: Frame> Net<F> {
    /// Reads the Ethernet header: the interface by port and VLAN tag, and the MAC filter (our own address, broadcast, groups).
    ///
    /// # Errors
    /// The reason to drop the frame for, which the caller counts.
    #[inline]
    pub fn ingress(&self, port: PortId, frame: &F) -> Result<Ingress, Drop> {
        let head = frame.head();
        let l2 = eth::parse(head).ok_or(Drop::Runt)?;
        // One 802.1Q tag selects the interface; a priority tag (VLAN 0) does not count, a second tag fits none.
        let vlan = (l2.tags > 0).then_some(l2.vlan);
        let iface = match self.ifaces.ingress(port, vlan) {
            Some(iface) => iface,
            None if self.ifaces.port_known(port) => return Err(Drop::UnknownVlan),
            None => return Err(Drop::UnknownPort),
        };
        if l2.tags > 1 {
            return Err(Drop::UnknownVlan);
        }
        if !iface.up {
            return Err(Drop::IfaceDown);
        }
        let dst = &head[..6];
        let mac = if dst == iface.mac {
            MacKind::Host
        } else if dst == MAC_BROADCAST {
            MacKind::Broadcast
        } else if dst[0] & 1 != 0 {
            MacKind::Multicast
        } else {
            return Err(Drop::MacNotOurs);
        };
        Ok(Ingress {
            port,
            iface: iface.id,
            l3: l2.l3_offset,
            ethertype: l2.ethertype,
            mac,
            companion: iface.companion,
        })
    }

    /// Whose packet it is by its addresses, with the checks that the kernel makes when it routes a packet that came in
    /// (`ip_route_input_slow`, `ip6_rcv_core`).
    ///
    /// # Errors
    /// The reason to drop the packet for, which the caller counts.
    #[inline]
    pub fn classify(&self, rx: &Ingress, src: IpAddr, dst: IpAddr) -> Result<DstKind, Drop> {
        match (src, dst) {
            // From ourselves.
            _ if rx.iface == LO => Ok(match self.is_local(dst) {
                true => DstKind::Local,
                false => DstKind::Remote,
            }),
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                self.classify_v4(src, dst, || self.routes.local(dst.into()))
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.classify_v6(src, dst, || {
                // A link-local address means something on its own link only; what is not ours there the router refuses.
                match is_link_local(dst.into()) {
                    true if self.routes.local_on(dst.into(), rx.iface) => Some(LocalKind::Unicast),
                    true => None,
                    false => self.routes.local(dst.into()),
                }
            }),
            _ => Err(Drop::BadHeader),
        }
    }

    /// Whether [`Net::classify`] lets a packet from `src` through to `vip`, which is a service's address, whatever interface but
    /// lo it came in by. Neither is a link-local address.
    #[inline]
    pub fn admits(&self, src: IpAddr, vip: IpAddr) -> bool {
        let ours = || Some(LocalKind::Unicast);
        let kind = match (src, vip) {
            (IpAddr::V4(src), IpAddr::V4(vip)) => self.classify_v4(src, vip, ours),
            (IpAddr::V6(src), IpAddr::V6(vip)) => self.classify_v6(src, vip, ours),
            _ => return false,
        };
        kind == Ok(DstKind::Local)
    }

    /// `local` says what the address is to us, if it is a host's.
    #[inline]
    fn classify_v4(
        &self,
        src: Ipv4Addr,
        dst: Ipv4Addr,
        local: impl FnOnce() -> Option<LocalKind>,
    ) -> Result<DstKind, Drop> {
        if src.is_multicast() || src.is_broadcast() || src.is_loopback() {
            return Err(Drop::MartianSource);
        }
        if dst.is_multicast() {
            return Ok(DstKind::Multicast);
        }
        if dst.is_broadcast() || (src.is_unspecified() && dst.is_unspecified()) {
            return Ok(DstKind::Broadcast);
        }
        // Since Linux 5.3 only 0.0.0.0 itself, not 0/8, is no address of a host's.
        if src.is_unspecified() {
            return Err(Drop::MartianSource);
        }
        if dst.is_unspecified() || dst.is_loopback() {
            return Err(Drop::MartianDest);
        }
        // Nobody else may use our addresses (`__fib_validate_source`, accept_local being off).
        if self.routes.is_ours(src.into()) {
            return Err(Drop::MartianSource);
        }
        Ok(match local() {
            Some(LocalKind::Unicast) => DstKind::Local,
            Some(LocalKind::Broadcast) => DstKind::Broadcast,
            None => DstKind::Remote,
        })
    }

    /// As [`Net::classify_v4`].
    #[inline]
    fn classify_v6(
        &self,
        src: Ipv6Addr,
        dst: Ipv6Addr,
        local: impl FnOnce() -> Option<LocalKind>,
    ) -> Result<DstKind, Drop> {
        if src.is_multicast() || src.is_loopback() {
            return Err(Drop::MartianSource);
        }
        if dst.is_multicast() {
            return Ok(DstKind::Multicast);
        }
        if dst.is_loopback() || dst.is_unspecified() {
            return Err(Drop::MartianDest);
        }
        Ok(match local() {
            Some(LocalKind::Unicast) => DstKind::Local,
            _ => DstKind::Remote,
        })
    }

    /// Gives a frame, as it came in, to the host behind its interface; drops it for `otherwise` where there is none.
    pub fn to_host<IO: PacketIo<Frame = F>>(
        &mut self,
        rx: &Ingress,
        frame: F,
        otherwise: Drop,
        io: &mut IO,
    ) -> Outcome {
        match rx.companion {
            Some(companion) => {
                io.transmit(companion, frame);
                self.finish(Verdict::Host)
            }
            None => self.discard(frame, otherwise),
        }
    }

    /// Sends a frame that the host behind a port gave us by the companion, unchanged. `companion` is the port it came by.
    pub fn companion_input<IO: PacketIo<Frame = F>>(
        &mut self,
        companion: PortId,
        frame: F,
        io: &mut IO,
    ) -> Outcome {
        match self.ifaces.companion_of(companion) {
            Some(port) => {
                io.transmit(port, frame);
                self.finish(Verdict::Forwarded)
            }
            None => self.discard(frame, Drop::CompanionUnknown),
        }
    }

    /// Counts a verdict.
    pub(super) fn finish(&mut self, verdict: Verdict) -> Outcome {
        self.counters.done(verdict);
        Outcome::Done(verdict)
    }

    /// Drops a frame and counts why.
    pub(super) fn discard(&mut self, frame: F, reason: Drop) -> Outcome {
        drop(frame);
        self.finish(Verdict::Dropped(reason))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{dropped, frame, if_addr, ip, udp, Bed, COMPANION, ETH0, ETH1};
    use super::super::{Iface, NetConfig};
    use super::*;
    use proptest::prelude::*;
    use ripvs_packet::memory::MemFrame;

    const TO_ETH0: &str = "02:00:00:00:00:01";
    const HOST: &str = "02:00:00:00:01:01";

    /// A bed with VLAN 5 on port 0 as interface 7, and a companion for eth1.
    fn bed() -> Bed {
        let mut bed = Bed::new(NetConfig::default());
        let eth0 = bed.net.ifaces().get(ETH0).unwrap().clone();
        bed.set(Iface {
            id: IfaceId(7),
            name: "eth0.5".into(),
            vlan: Some(5),
            addresses: vec![if_addr("10.5.0.254/24")],
            ..eth0
        });
        let mut eth1 = bed.net.ifaces().get(ETH1).unwrap().clone();
        eth1.companion = Some(COMPANION);
        bed.set(eth1);
        bed
    }

    #[test]
    fn port_and_tag_select_the_interface_and_the_mac_address_says_for_whom() {
        let mut bed = bed();
        let mut down = bed.net.ifaces().get(ETH0).unwrap().clone();
        (down.id, down.vlan, down.up) = (IfaceId(8), Some(6), false);
        bed.set(down);
        let v4 = "0800";
        for (what, port, mac, tag, expected) in [
            ("untagged", 0, TO_ETH0, v4, Ok((ETH0, MacKind::Host, 14))),
            (
                "tagged",
                0,
                TO_ETH0,
                "81000005 0800",
                Ok((IfaceId(7), MacKind::Host, 18)),
            ),
            (
                "priority bits",
                0,
                TO_ETH0,
                "8100e005 0800",
                Ok((IfaceId(7), MacKind::Host, 18)),
            ),
            (
                "priority only",
                0,
                TO_ETH0,
                "8100e000 0800",
                Ok((ETH0, MacKind::Host, 18)),
            ),
            (
                "all",
                0,
                "ff:ff:ff:ff:ff:ff",
                v4,
                Ok((ETH0, MacKind::Broadcast, 14)),
            ),
            (
                "a group",
                0,
                "33:33:00:00:00:01",
                v4,
                Ok((ETH0, MacKind::Multicast, 14)),
            ),
            (
                "another host",
                0,
                "02:00:00:00:00:09",
                v4,
                Err(Drop::MacNotOurs),
            ),
            (
                "unknown tag",
                0,
                TO_ETH0,
                "81000009 0800",
                Err(Drop::UnknownVlan),
            ),
            (
                "two tags",
                0,
                TO_ETH0,
                "88a80005 81000001 0800",
                Err(Drop::UnknownVlan),
            ),
            (
                "tag where none is known",
                1,
                TO_ETH0,
                "81000005 0800",
                Err(Drop::UnknownVlan),
            ),
            ("down", 0, TO_ETH0, "81000006 0800", Err(Drop::IfaceDown)),
            ("no interface", 5, TO_ETH0, v4, Err(Drop::UnknownPort)),
            ("cut in the tag", 0, TO_ETH0, "810000", Err(Drop::Runt)),
        ] {
            let mut bytes = frame(mac, HOST, 0, &[]);
            bytes.truncate(12);
            bytes.extend(super::super::testing::hex(tag));
            let found = bed.net.ingress(PortId(port), &MemFrame::new(&bytes));
            let found = found.map(|rx| (rx.iface, rx.mac, rx.l3));
            assert_eq!(found, expected, "{what}");
        }
    }

    #[test]
    fn what_is_the_hosts_own_goes_to_the_companion_as_it_came() {
        let mut bed = bed();
        let ours = udp(ip("10.0.0.11"), ip("10.0.0.254"), 64);
        let bytes = frame("02:00:00:00:00:02", HOST, 0x0800, &ours);
        assert_eq!(bed.input(1, &bytes), Outcome::Done(Verdict::Host));
        assert_eq!(bed.sent(), [(COMPANION.0, bytes)]);
        let group = udp(ip("10.0.0.11"), ip("224.0.0.5"), 1);
        let bytes = frame("01:00:5e:00:00:05", HOST, 0x0800, &group);
        assert_eq!(bed.input(1, &bytes), Outcome::Done(Verdict::Host));
        assert_eq!(bed.sent(), [(COMPANION.0, bytes.clone())]);
        assert_eq!(bed.input(0, &bytes), dropped(Drop::Multicast));
        let ours = udp(ip("198.18.0.1"), ip("198.18.0.254"), 64);
        let bytes = frame(TO_ETH0, HOST, 0x0800, &ours);
        assert_eq!(bed.input(0, &bytes), dropped(Drop::HostNoCompanion));
        let all = udp(ip("198.18.0.1"), ip("198.18.0.255"), 64);
        let bytes = frame("ff:ff:ff:ff:ff:ff", HOST, 0x0800, &all);
        assert_eq!(bed.input(0, &bytes), dropped(Drop::Broadcast));
    }

    #[test]
    fn what_the_host_sends_leaves_by_the_port_as_it_is() {
        let mut bed = bed();
        let bytes = frame(HOST, "02:00:00:00:00:02", 0x88cc, &[1, 2, 3]);
        let outcome = bed.input(COMPANION.0, &bytes);
        assert_eq!(outcome, Outcome::Done(Verdict::Forwarded));
        assert_eq!(bed.sent(), [(1, bytes.clone())]);
        let mut eth1 = bed.net.ifaces().get(ETH1).unwrap().clone();
        eth1.companion = None;
        bed.set(eth1);
        assert!(!bed.net.ifaces().is_companion(COMPANION));
        let (net, io) = (&mut bed.net, &mut bed.io);
        let late = net.companion_input(COMPANION, MemFrame::new(&bytes), io);
        assert_eq!(late, dropped(Drop::CompanionUnknown));
    }

    fn rows() -> Vec<(u16, Vec<u8>)> {
        let rows = include_str!("kernel.rows").lines();
        rows.filter_map(|line| {
            let (port, bytes) = line.strip_prefix("> ")?.split_once(' ')?;
            Some((u16::from(port == "eth1"), super::super::testing::hex(bytes)))
        })
        .collect()
    }

    #[test]
    fn packets_cut_short_anywhere_have_a_verdict() {
        let mut bed = bed();
        for (port, bytes) in rows().iter().filter(|(_, bytes)| bytes.len() < 200) {
            for len in 0..bytes.len() {
                bed.input(*port, &bytes[..len]);
            }
        }
        bed.sleep(10);
        assert!(bed.net.counters.balanced());
    }

    proptest! {
        #[test]
        fn spoilt_packets_have_a_verdict(
            row in 0usize..70,
            spoil in proptest::collection::vec((0usize..120, any::<u8>()), 0..6),
            kind in 0u8..4,
        ) {
            let rows = rows();
            let (port, mut bytes) = rows[row % rows.len()].clone();
            for (at, value) in spoil {
                let at = 12 + at % (bytes.len() - 12);
                bytes[at] = value;
            }
            // Deeper than the header checksum: made right again in most cases.
            if kind > 0 && bytes[12..14] == [8, 0] {
                ripvs_packet::ipv4::fill_checksum(&mut bytes[14..]);
            }
            let mut bed = bed();
            bed.input(port, &bytes);
            bed.sleep(5);
            prop_assert!(bed.net.counters.balanced());
        }
    }
}
