//! The router: sends on what is another's, by the rules of the kernel's `ip_forward` and `ip6_forward` with forwarding on.
//! Redirects are never sent.

use std::net::IpAddr;

use ripvs_packet::ipv4::Ipv4;
use ripvs_packet::ipv6::{self, Ipv6};
use ripvs_packet::parse::{flags, Family, L3Info};
use ripvs_packet::{Frame, PacketIo};

use super::icmp::{IcmpKind, Offender};
use super::iface::MacKind;
use super::ingress::Ingress;
use super::route::RouteHit;
use super::{is_link_local, Net, Outcome};
use crate::frag::{self, CutError, Pieces};
use crate::types::Time;
use crate::verdict::{Drop, Verdict};

impl<F: Frame> Net<F> {
    /// Routes a packet that [`Net::classify`] says is another's: TTL less one, errors to its sender, fragments where it is
    /// too big and may be cut.
    pub fn forward<IO: PacketIo<Frame = F>>(
        &mut self,
        now: Time,
        rx: &Ingress,
        info: &L3Info,
        frame: F,
        io: &mut IO,
    ) -> Outcome {
        let mut frame = frame;
        match self.forward_check(now, rx, info, None, &mut frame, io) {
            Ok(hit) => {
                let packet = Outgoing {
                    frame,
                    l3: usize::from(rx.l3),
                    pieces: None,
                    force: false,
                    verdict: Verdict::Forwarded,
                };
                self.send_or_drop(now, packet, &hit, io)
            }
            Err(reason) => self.discard(frame, reason),
        }
    }

    /// What the router does with a packet before it sends it on: the way there, and TTL less one. `pieces` is what it was put
    /// together from, if it did not come whole.
    ///
    /// # Errors
    /// The reason to drop it for; its sender has been told.
    pub fn forward_check<IO: PacketIo<Frame = F>>(
        &mut self,
        now: Time,
        rx: &Ingress,
        info: &L3Info,
        pieces: Option<&Pieces>,
        frame: &mut F,
        io: &mut IO,
    ) -> Result<RouteHit, Drop> {
        if rx.mac != MacKind::Host {
            return Err(Drop::NotForHost);
        }
        let hit = match self.route(info.dst_ip(), Some(info.src_ip())) {
            _ if is_link_local(info.dst_ip()) => {
                return self.refuse(now, rx, frame, (IcmpKind::NoRoute, Drop::LinkLocal), io);
            }
            Some(hit) if !hit.local => hit,
            _ => return self.refuse(now, rx, frame, (IcmpKind::NoRoute, Drop::NoRoute), io),
        };
        if info.ttl <= 1 {
            let why = (IcmpKind::TtlExceeded, Drop::TtlExceeded);
            return self.refuse(now, rx, frame, why, io);
        }
        if let IpAddr::V6(src) = info.src_ip() {
            if src.is_unspecified() {
                return Err(Drop::MartianSource);
            }
            if is_link_local(src.into()) {
                let why = (IcmpKind::BeyondScope, Drop::LinkLocal);
                return self.refuse(now, rx, frame, why, io);
            }
        }
        let l3 = usize::from(rx.l3);
        let len = info.total_len as usize;
        frame.truncate(l3 + len);
        // What an error quotes has the hop limit of IPv6 counted down already, but not the TTL of IPv4; nor that where it is
        // the interface for which a packet is too big, of which a route's MTU is no part (`ip6_dst_mtu_maybe_forward`).
        let (mtu, size, may_cut) = match info.family {
            Family::V4 => (hit.mtu, len, !info.has(flags::DONT_FRAGMENT)),
            Family::V6 => {
                let size = pieces.map_or(len, |pieces| pieces.largest as usize);
                let link = self
                    .ifaces
                    .get(hit.iface)
                    .map_or(u16::MAX, |iface| iface.mtu);
                let link = link.max(ipv6::MIN_MTU as u16);
                if size > usize::from(link) {
                    let why = (IcmpKind::TooBig(link), Drop::TooBig);
                    return self.refuse(now, rx, frame, why, io);
                }
                decrement_ttl(frame, l3, info.family);
                (hit.mtu.max(ipv6::MIN_MTU as u16), size, false)
            }
        };
        if size > usize::from(mtu) && !may_cut {
            let why = (IcmpKind::TooBig(mtu), Drop::TooBig);
            return self.refuse(now, rx, frame, why, io);
        }
        if info.family == Family::V4 {
            decrement_ttl(frame, l3, info.family);
        }
        Ok(hit)
    }

    /// Tells a packet's sender why it is to be dropped.
    fn refuse<IO: PacketIo<Frame = F>>(
        &mut self,
        now: Time,
        rx: &Ingress,
        frame: &F,
        (kind, reason): (IcmpKind, Drop),
        io: &mut IO,
    ) -> Result<RouteHit, Drop> {
        let about = Offender::new(frame, usize::from(rx.l3)).from(rx);
        self.icmp_error(now, about, kind, io);
        Err(reason)
    }

    /// Sends a packet by this way, in fragments where it is longer than the MTU or came in fragments itself (see
    /// [`frag::cut_v4`], [`frag::cut_v6`]). The first fragment has the packet's verdict, the others count as generated.
    ///
    /// # Errors
    /// The frame is handed back, without verdict, where it must not or cannot be cut.
    pub fn send_pieces<IO: PacketIo<Frame = F>>(
        &mut self,
        now: Time,
        packet: Outgoing<'_, F>,
        hit: &RouteHit,
        io: &mut IO,
    ) -> Result<Outcome, (F, CutError)> {
        let Outgoing {
            frame,
            l3,
            pieces,
            force,
            verdict,
        } = packet;
        let v6 = frame.head().get(l3).is_some_and(|first| first >> 4 == 6);
        let len = frame.len() - l3.min(frame.len());
        let mtu = match v6 {
            false => usize::from(hit.mtu),
            true => usize::from(hit.mtu).max(ipv6::MIN_MTU),
        };
        let whole = match v6 {
            false => !frag::must_cut_v4(len, mtu, pieces),
            true => !frag::must_cut_v6(len, mtu, pieces),
        };
        if whole {
            return Ok(self.send_as(now, frame, l3, hit, verdict, io).into());
        }
        let id = if v6 { self.next_frag_id() } else { 0 };
        let mut first = None;
        let emit = |bytes: &[u8]| {
            if first.is_some() {
                self.counters.generated += 1;
            }
            let sent = match io.alloc(&bytes[l3..]) {
                Some(piece) => self.send_as(now, piece, 0, hit, verdict, io).into(),
                None => self.finish(Verdict::Dropped(Drop::NoMemory)),
            };
            first.get_or_insert(sent);
        };
        let done = match v6 {
            false => frag::cut_v4(&frame, l3, mtu, pieces, force, emit),
            true => frag::cut_v6(&frame, l3, mtu, pieces, force, id, emit),
        };
        match (first, done) {
            (Some(outcome), _) => Ok(outcome),
            (None, Err(error)) => Err((frame, error)),
            (None, Ok(_)) => Err((frame, CutError::Malformed)),
        }
    }

    /// As [`Net::send_pieces`]; what must not be cut is dropped, and its sender told.
    pub fn send_or_drop<IO: PacketIo<Frame = F>>(
        &mut self,
        now: Time,
        packet: Outgoing<'_, F>,
        hit: &RouteHit,
        io: &mut IO,
    ) -> Outcome {
        let l3 = packet.l3;
        match self.send_pieces(now, packet, hit, io) {
            Ok(outcome) => outcome,
            Err((frame, CutError::TooBig { mtu })) => {
                let kind = IcmpKind::TooBig(u16::try_from(mtu).unwrap_or(u16::MAX));
                self.icmp_error(now, Offender::new(&frame, l3), kind, io);
                self.discard(frame, Drop::TooBig)
            }
            Err((frame, CutError::Malformed)) => self.discard(frame, Drop::FragmentFailed),
        }
    }
}

/// A packet on its way out.
pub struct Outgoing<'a, F> {
    /// Its frame.
    pub frame: F,
    /// Where it begins there.
    pub l3: usize,
    /// How it came, where it came in fragments.
    pub pieces: Option<&'a Pieces>,
    /// Whether it may be cut though its DF flag, or IPv6, forbids that.
    pub force: bool,
    /// What it and its fragments count as when they go.
    pub verdict: Verdict,
}

/// Takes one from TTL or hop limit, and adjusts the IPv4 header checksum.
pub fn decrement_ttl<F: Frame>(frame: &mut F, l3: usize, family: Family) {
    let head = frame.head_mut();
    match family {
        Family::V4 => {
            if let Some(mut header) = Ipv4::at_mut(head, l3) {
                header.decrement_ttl();
            }
        }
        Family::V6 => {
            if let Some(mut header) = Ipv6::at_mut(head, l3) {
                let left = header.hop_limit().wrapping_sub(1);
                header.set_hop_limit(left);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ip, udp, Bed, ETH1};
    use super::super::NetConfig;
    use super::*;
    use ripvs_packet::ipv4;
    use ripvs_packet::memory::MemFrame;

    fn bed() -> Bed {
        let mut bed = Bed::new(NetConfig::default());
        for addr in ["10.0.0.7", "2001:db8:10::7"] {
            bed.neigh(ETH1, addr, "02:00:00:00:02:07");
        }
        bed
    }

    /// A packet of `len` bytes to the neighbour of [`bed`].
    fn long(v6: bool, len: usize) -> Vec<u8> {
        let mut packet = match v6 {
            false => udp(ip("198.18.0.1"), ip("10.0.0.7"), 9),
            true => udp(ip("2001:db8:18::1"), ip("2001:db8:10::7"), 9),
        };
        packet.resize(len, 7);
        match v6 {
            false => Ipv4::new_mut(&mut packet)
                .unwrap()
                .set_total_len(len as u16),
            true => Ipv6::new_mut(&mut packet)
                .unwrap()
                .set_payload_len(len as u16 - 40),
        }
        ipv4::fill_checksum(&mut packet[..if v6 { 0 } else { len }]);
        packet
    }

    fn send(bed: &mut Bed, packet: &[u8], packet_fits: Outgoing<'_, MemFrame>) -> Option<CutError> {
        let dst = if packet[0] >> 4 == 6 {
            "2001:db8:10::7"
        } else {
            "10.0.0.7"
        };
        let hit = bed.net.route(ip(dst), None).unwrap();
        bed.net.counters.received += 1;
        let sent = bed.net.send_pieces(bed.now, packet_fits, &hit, &mut bed.io);
        match sent {
            Ok(_) => {
                assert!(bed.net.counters.balanced());
                None
            }
            Err((frame, error)) => {
                assert_eq!(frame.to_vec(), packet);
                Some(error)
            }
        }
    }

    fn outgoing(
        packet: &[u8],
        pieces: Option<&'static Pieces>,
        force: bool,
    ) -> Outgoing<'static, MemFrame> {
        Outgoing {
            frame: MemFrame::new(packet),
            l3: 0,
            pieces,
            force,
            verdict: Verdict::Forwarded,
        }
    }

    #[test]
    fn a_packet_leaves_whole_or_in_pieces_that_fit() {
        for (v6, len, force, frames) in [
            (false, 1500, false, 1),
            (false, 1501, false, 2),
            (false, 4000, false, 3),
            (true, 1500, false, 1),
            (true, 1501, true, 2),
        ] {
            let (mut bed, packet) = (bed(), long(v6, len));
            assert_eq!(
                send(&mut bed, &packet, outgoing(&packet, None, force)),
                None
            );
            let sent = bed.sent();
            assert_eq!(sent.len(), frames);
            assert!(sent.iter().all(|(port, f)| *port == 1 && f.len() <= 1514));
            assert_eq!(bed.net.counters.forwarded, frames as u64);
            assert_eq!(bed.net.counters.generated, frames as u64 - 1);
        }
    }

    #[test]
    fn what_must_not_be_cut_comes_back() {
        let packet = long(true, 1501);
        let error = send(&mut bed(), &packet, outgoing(&packet, None, false));
        assert_eq!(error, Some(CutError::TooBig { mtu: 1500 }));
    }

    #[test]
    fn fragments_that_find_no_memory_are_counted_drops() {
        let (mut bed, packet) = (bed(), long(false, 4000));
        bed.io.allocs_left = Some(1);
        assert_eq!(
            send(&mut bed, &packet, outgoing(&packet, None, false)),
            None
        );
        assert_eq!(bed.net.counters.dropped_for(Drop::NoMemory), 2);
    }

    #[test]
    fn identifications_of_ipv6_fragments_do_not_repeat_soon() {
        let mut net = bed().net;
        let mut seen: Vec<u32> = (0..10_000).map(|_| net.next_frag_id()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 10_000);
    }
}
