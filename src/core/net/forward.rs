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
        match self.forward_check(now, rx, info, 0, frame, io) {
            Ok((frame, hit)) => self.send_cut(
                now,
                frame,
                usize::from(rx.l3),
                0,
                &hit,
                Verdict::Forwarded,
                io,
            ),
            Err(outcome) => outcome,
        }
    }

    /// What the router does with a packet before it sends it on: the way there, and TTL less one. `max_fragment` is the size
    /// of the largest fragment that it was put together from, 0 where it came whole.
    ///
    /// # Errors
    /// The packet has been ended, and its sender told.
    pub fn forward_check<IO: PacketIo<Frame = F>>(
        &mut self,
        now: Time,
        rx: &Ingress,
        info: &L3Info,
        max_fragment: u16,
        mut frame: F,
        io: &mut IO,
    ) -> Result<(F, RouteHit), Outcome> {
        if rx.mac != MacKind::Host {
            return Err(self.discard(frame, Drop::NotForHost));
        }
        let hit = match self.route(info.dst_ip(), Some(info.src_ip())) {
            Some(hit) if !hit.local => hit,
            _ => {
                return Err(self.refuse(now, rx, frame, (IcmpKind::NoRoute, Drop::NoRoute), io));
            }
        };
        let l3 = usize::from(rx.l3);
        if info.ttl <= 1 {
            let why = (IcmpKind::TtlExceeded, Drop::TtlExceeded);
            return Err(self.refuse(now, rx, frame, why, io));
        }
        if let IpAddr::V6(src) = info.src_ip() {
            if src.is_unspecified() {
                return Err(self.discard(frame, Drop::MartianSource));
            }
            if is_link_local(src.into()) {
                let why = (IcmpKind::BeyondScope, Drop::LinkLocal);
                return Err(self.refuse(now, rx, frame, why, io));
            }
        }
        let len = info.total_len as usize;
        frame.truncate(l3 + len);
        let (mtu, may_cut) = match info.family {
            Family::V4 => (hit.mtu, !info.has(flags::DONT_FRAGMENT)),
            Family::V6 => (hit.mtu.max(ipv6::MIN_MTU as u16), false),
        };
        let size = match info.family {
            Family::V6 if max_fragment > 0 => usize::from(max_fragment),
            _ => len,
        };
        if size > usize::from(mtu) && !may_cut {
            let why = (IcmpKind::TooBig(mtu), Drop::TooBig);
            return Err(self.refuse(now, rx, frame, why, io));
        }
        decrement_ttl(&mut frame, l3, info.family);
        Ok((frame, hit))
    }

    /// Tells a packet's sender why, and drops it.
    fn refuse<IO: PacketIo<Frame = F>>(
        &mut self,
        now: Time,
        rx: &Ingress,
        frame: F,
        (kind, reason): (IcmpKind, Drop),
        io: &mut IO,
    ) -> Outcome {
        let about = Offender::new(&frame, usize::from(rx.l3)).from(rx);
        self.icmp_error(now, about, kind, io);
        self.discard(frame, reason)
    }

    /// Sends a packet by this way, in fragments where it is longer than the MTU or came in fragments itself, of
    /// `max_fragment` bytes the largest.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn send_cut<IO: PacketIo<Frame = F>>(
        &mut self,
        now: Time,
        frame: F,
        l3: usize,
        max_fragment: u16,
        hit: &RouteHit,
        verdict: Verdict,
        io: &mut IO,
    ) -> Outcome {
        if frame.len() - l3 <= usize::from(hit.mtu) && max_fragment == 0 {
            return self.send_as(now, frame, l3, hit, verdict, io).into();
        }
        self.discard(frame, Drop::FragmentFailed)
    }
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
