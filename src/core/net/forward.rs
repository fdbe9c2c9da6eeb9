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
        if rx.mac != MacKind::Host {
            return self.discard(frame, Drop::NotForHost);
        }
        let hit = match self.route(info.dst_ip(), Some(info.src_ip())) {
            Some(hit) if !hit.local => hit,
            _ => {
                return self.refuse(now, rx, frame, (IcmpKind::NoRoute, Drop::NoRoute), io);
            }
        };
        self.forward_by(now, rx, info, &hit, frame, io)
    }

    /// As [`Net::forward`], by a way that is known already.
    pub fn forward_by<IO: PacketIo<Frame = F>>(
        &mut self,
        now: Time,
        rx: &Ingress,
        info: &L3Info,
        hit: &RouteHit,
        mut frame: F,
        io: &mut IO,
    ) -> Outcome {
        let l3 = usize::from(rx.l3);
        if info.ttl <= 1 {
            let why = (IcmpKind::TtlExceeded, Drop::TtlExceeded);
            return self.refuse(now, rx, frame, why, io);
        }
        if let IpAddr::V6(src) = info.src_ip() {
            if src.is_unspecified() {
                return self.discard(frame, Drop::MartianSource);
            }
            if is_link_local(src.into()) {
                let why = (IcmpKind::BeyondScope, Drop::LinkLocal);
                return self.refuse(now, rx, frame, why, io);
            }
        }
        let len = info.total_len as usize;
        frame.truncate(l3 + len);
        let (mtu, may_cut) = match info.family {
            Family::V4 => (hit.mtu, !info.has(flags::DONT_FRAGMENT)),
            Family::V6 => (hit.mtu.max(ipv6::MIN_MTU as u16), false),
        };
        let too_big = len > usize::from(mtu);
        if too_big && !may_cut {
            let why = (IcmpKind::TooBig(mtu), Drop::TooBig);
            return self.refuse(now, rx, frame, why, io);
        }
        decrement_ttl(&mut frame, l3, info.family);
        if too_big {
            return self.send_fragments(now, frame, l3, hit, Verdict::Forwarded, io);
        }
        self.send_l3(now, frame, l3, hit, io).into()
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

    /// Cuts an IPv4 packet to the way's MTU and sends the pieces.
    pub(super) fn send_fragments<IO: PacketIo<Frame = F>>(
        &mut self,
        _now: Time,
        frame: F,
        _l3: usize,
        _hit: &RouteHit,
        _verdict: Verdict,
        _io: &mut IO,
    ) -> Outcome {
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
