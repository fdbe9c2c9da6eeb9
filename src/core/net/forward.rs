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
        let l3 = usize::from(rx.l3);
        let mut frame = frame;
        match self.forward_check(now, rx, info, None, &mut frame, io) {
            Ok(hit) => {
                let way = Cut {
                    pieces: None,
                    ours: false,
                };
                self.send_cut(now, frame, l3, way, &hit, Verdict::Forwarded, io)
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
            Some(hit) if !hit.local => hit,
            _ => {
                return Err(self.tell_sender(now, rx, frame, IcmpKind::NoRoute, Drop::NoRoute, io))
            }
        };
        let l3 = usize::from(rx.l3);
        if info.ttl <= 1 {
            let kind = IcmpKind::TtlExceeded;
            return Err(self.tell_sender(now, rx, frame, kind, Drop::TtlExceeded, io));
        }
        if let IpAddr::V6(src) = info.src_ip() {
            if src.is_unspecified() {
                return Err(Drop::MartianSource);
            }
            if is_link_local(src.into()) {
                return Err(self.tell_sender(
                    now,
                    rx,
                    frame,
                    IcmpKind::BeyondScope,
                    Drop::LinkLocal,
                    io,
                ));
            }
        }
        let len = info.total_len as usize;
        frame.truncate(l3 + len);
        let (mtu, may_cut) = match info.family {
            Family::V4 => (hit.mtu, !info.has(flags::DONT_FRAGMENT)),
            Family::V6 => (hit.mtu.max(ipv6::MIN_MTU as u16), false),
        };
        let size = match pieces {
            Some(pieces) if info.family == Family::V6 => pieces.largest as usize,
            _ => len,
        };
        if size > usize::from(mtu) && !may_cut {
            return Err(self.tell_sender(now, rx, frame, IcmpKind::TooBig(mtu), Drop::TooBig, io));
        }
        decrement_ttl(frame, l3, info.family);
        Ok(hit)
    }

    /// Tells a packet's sender why it is dropped.
    fn tell_sender<IO: PacketIo<Frame = F>>(
        &mut self,
        now: Time,
        rx: &Ingress,
        frame: &F,
        kind: IcmpKind,
        reason: Drop,
        io: &mut IO,
    ) -> Drop {
        let about = Offender::new(frame, usize::from(rx.l3)).from(rx);
        self.icmp_error(now, about, kind, io);
        reason
    }

    /// Sends a packet by this way, in fragments where it is longer than the MTU or came in fragments itself.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn send_cut<IO: PacketIo<Frame = F>>(
        &mut self,
        now: Time,
        frame: F,
        l3: usize,
        way: Cut<'_>,
        hit: &RouteHit,
        verdict: Verdict,
        io: &mut IO,
    ) -> Outcome {
        let (len, mtu) = (frame.len() - l3, usize::from(hit.mtu));
        let v6 = frame.head().get(l3).is_some_and(|first| first >> 4 == 6);
        let cut = if v6 {
            frag::must_cut_v6(len, mtu, way.pieces)
        } else {
            frag::must_cut_v4(len, mtu, way.pieces)
        };
        if !cut {
            return self.send_as(now, frame, l3, hit, verdict, io).into();
        }
        let mut count = 0;
        let mut emit = |net: &mut Self, io: &mut IO, bytes: &[u8]| {
            // The packet itself becomes the first of them; the others are made here.
            count += 1;
            net.counters.generated += u64::from(count > 1);
            match io.alloc(bytes) {
                Some(piece) => {
                    net.send_as(now, piece, l3, hit, verdict, io);
                }
                None => {
                    net.finish(Verdict::Dropped(Drop::NoMemory));
                }
            }
        };
        let id = self.next_fragment_id();
        let done = if v6 {
            frag::cut_v6(&frame, l3, mtu, way.pieces, way.ours, id, |bytes| {
                emit(self, io, bytes)
            })
        } else {
            frag::cut_v4(&frame, l3, mtu, way.pieces, way.ours, |bytes| {
                emit(self, io, bytes)
            })
        };
        match done {
            Ok(0) => self.discard(frame, Drop::FragmentFailed),
            Ok(_) => Outcome::Done(verdict),
            Err(_) if count > 0 => Outcome::Done(verdict),
            Err(CutError::TooBig { mtu }) => {
                let kind = IcmpKind::TooBig(u16::try_from(mtu).unwrap_or(u16::MAX));
                self.icmp_error(now, Offender::new(&frame, l3), kind, io);
                self.discard(frame, Drop::TooBig)
            }
            Err(CutError::Malformed) => self.discard(frame, Drop::FragmentFailed),
        }
    }
}

/// How a packet may be cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut<'a> {
    /// What it was put together from, if it did not come whole.
    pub pieces: Option<&'a Pieces>,
    /// Whether it is of our own making, or sent on for a client by IPVS: then it may be cut whatever its DF says, and IPv6 as
    /// well.
    pub ours: bool,
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
