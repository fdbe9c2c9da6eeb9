//! The first questions about a frame: which interface takes it, whether it is meant for us, and whether its packet is ours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ripvs_packet::{eth, Frame, PacketIo, PortId};

use super::iface::{MacKind, MAC_BROADCAST};
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
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.classify_v4(src, dst),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.classify_v6(rx, src, dst),
            _ => Err(Drop::BadHeader),
        }
    }

    fn classify_v4(&self, src: Ipv4Addr, dst: Ipv4Addr) -> Result<DstKind, Drop> {
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
        if self.routes.local(src.into()) == Some(LocalKind::Unicast) {
            return Err(Drop::MartianSource);
        }
        Ok(match self.routes.local(dst.into()) {
            Some(LocalKind::Unicast) => DstKind::Local,
            Some(LocalKind::Broadcast) => DstKind::Broadcast,
            None => DstKind::Remote,
        })
    }

    fn classify_v6(&self, rx: &Ingress, src: Ipv6Addr, dst: Ipv6Addr) -> Result<DstKind, Drop> {
        if src.is_multicast() || src.is_loopback() {
            return Err(Drop::MartianSource);
        }
        if dst.is_multicast() {
            return Ok(DstKind::Multicast);
        }
        if dst.is_loopback() || dst.is_unspecified() {
            return Err(Drop::MartianDest);
        }
        if is_link_local(dst.into()) {
            // Means something on its own link only; what is not ours there the router refuses.
            return Ok(match self.routes.local_on(dst.into(), rx.iface) {
                true => DstKind::Local,
                false => DstKind::Remote,
            });
        }
        Ok(match self.is_local(dst.into()) {
            true => DstKind::Local,
            false => DstKind::Remote,
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
