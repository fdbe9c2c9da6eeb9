//! Sending a packet of a connection on: to its dest by NAT, direct routing or a tunnel, and a dest's reply to the client.
//!
//! Follows net/netfilter/ipvs/ip_vs_xmit.c: the route first, then TTL, then MTU, then the rewriting.

use ripvs_packet::Frame;

use crate::datapath::Passed;
use crate::flow::Path;
use crate::message::Expected;
use crate::net::{IcmpKind, RouteHit};
use crate::packet::Packet;
use crate::rewrite::Side;
use crate::spec::Forward;
use crate::types::{Af, Time};
use crate::verdict::Drop;
use crate::worker::{Io, Tables, Worker};

impl<F: Frame> Worker<F> {
    /// Sends a client's packet on to the connection's dest. `error`: it is an ICMP error about the connection, which is
    /// never too big. Hands the packet back where the dest is the balancer itself.
    pub(crate) fn transmit_inbound<A: Tables<F>>(
        &mut self,
        now: Time,
        mut pkt: Packet<F>,
        path: &Path<A>,
        error: bool,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        if path.forward == Forward::Tunnel {
            return self.transmit_tunnel(now, pkt, path, error, io);
        }
        let dest = path.dest.and_then(|id| self.services.dest(id));
        let target = match (path.forward, dest) {
            (Forward::Bypass, _) => A::to_ip(path.virt.addr),
            (Forward::Route, Some(dest)) => dest.spec.addr,
            _ => A::to_ip(path.server.addr),
        };
        let shared = path
            .dest
            .filter(|_| dest.is_some_and(|dest| dest.spec.addr == target));
        let kept = self.kept_way(path.hop_in, shared);
        let Some((number, hop)) = self.way(now, kept, target, None) else {
            return self.unreachable(now, pkt, io);
        };
        self.keep_way(shared, kept, number);
        // The number also says that the addresses were looked at, which an error about the connection does not show.
        if let Some(id) = path.id.filter(|_| number != path.hop_in && !error) {
            if let Some(record) = A::table_mut(self).get_mut(id) {
                record.hop_in = number.0;
            }
        }
        let hit = hop.hit;
        if hit.local && path.forward == Forward::Bypass {
            return self.discard(pkt, Drop::NoRoute);
        }
        if !hit.local {
            pkt = self.prepare::<A>(now, pkt, hit.mtu, error, io)?;
        }
        let mut expected = None;
        if path.forward == Forward::Masq {
            let (old, new) = (path.virt, path.server);
            expected = match self.translate_conn(&mut pkt, path, Side::Destination, old, new) {
                Ok(expected) => expected,
                Err(reason) => return self.discard(pkt, reason),
            };
        }
        if hit.local {
            pkt.read_again();
        }
        if let Some(expected) = expected {
            return self.announce(now, expected, pkt, target, None, io);
        }
        if hit.local {
            return Some(pkt);
        }
        self.output_hop(now, pkt, &hop, io)
    }

    /// The way of an ICMP error about a NAT connection to its dest; the packet is ended where there is none.
    pub(crate) fn way_in<A: Tables<F>>(
        &mut self,
        now: Time,
        pkt: Packet<F>,
        path: &Path<A>,
        io: &mut impl Io<F>,
    ) -> Option<(Packet<F>, RouteHit)> {
        let Some(hit) = self.net.route(A::to_ip(path.server.addr), None) else {
            self.unreachable(now, pkt, io);
            return None;
        };
        if hit.local {
            return Some((pkt, hit));
        }
        self.prepare::<A>(now, pkt, hit.mtu, true, io)
            .map(|pkt| (pkt, hit))
    }

    /// What every way out begins with: one less TTL, and the MTU (`__ip_vs_get_out_rt`). The packet is ended, and its sender
    /// told, where either does not do.
    pub(crate) fn prepare<A: Tables<F>>(
        &mut self,
        now: Time,
        mut pkt: Packet<F>,
        mtu: u16,
        error: bool,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        if A::ttl(pkt.ip()) <= 1 {
            return self.refuse(now, pkt, IcmpKind::TtlExceeded, Drop::TtlExceeded, io);
        }
        A::decrement_ttl(pkt.ip_mut());
        // What was put together from fragments must find room fragment by fragment in IPv6, and is cut again in IPv4.
        let size = match &pkt.pieces {
            Some(pieces) if A::AF == Af::V6 => pieces.largest as usize,
            _ => pkt.len(),
        };
        let whole = A::AF == Af::V6 || pkt.info.has(ripvs_packet::parse::flags::DONT_FRAGMENT);
        if size > usize::from(mtu) && whole {
            if !error {
                return self.refuse(now, pkt, IcmpKind::TooBig(mtu), Drop::TooBig, io);
            }
            // Nothing is told about an error. In IPv4 it is cut, whatever its DF says.
            if A::AF == Af::V6 {
                return self.discard(pkt, Drop::TooBig);
            }
        }
        pkt.carried = true;
        Some(pkt)
    }

    /// As [`Worker::send_reply`], for a packet that announces a data connection.
    pub(crate) fn announce_reply<A: Tables<F>>(
        &mut self,
        now: Time,
        expected: Expected<F>,
        pkt: Packet<F>,
        path: &Path<A>,
        old: A::Addr,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        let source = A::to_ip(self.reply_source(path, old));
        let client = A::to_ip(path.client.addr);
        self.announce(now, expected, pkt, client, Some(source), io)
    }

    /// The source by which a reply is routed. `old` was its own.
    fn reply_source<A: Tables<F>>(&self, path: &Path<A>, old: A::Addr) -> A::Addr {
        if self.settings.snat_reroute != 0 {
            path.virt.addr
        } else {
            old
        }
    }

    /// Sends a packet that was a dest's reply, now from the virtual service, to the client. `old` was its source.
    pub(crate) fn send_reply<A: Tables<F>>(
        &mut self,
        now: Time,
        pkt: Packet<F>,
        path: &Path<A>,
        old: A::Addr,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        let source = self.reply_source(path, old);
        let (client, source) = (A::to_ip(path.client.addr), A::to_ip(source));
        let Some((number, hop)) = self.way(now, path.hop_out, client, Some(source)) else {
            return self.discard(pkt, Drop::NoRoute);
        };
        if let Some(id) = path.id.filter(|_| number != path.hop_out) {
            if let Some(record) = A::table_mut(self).get_mut(id) {
                record.hop_out = number.0;
            }
        }
        if hop.hit.local {
            return Some(pkt);
        }
        self.output_hop(now, pkt, &hop, io)
    }

    /// Drops a packet.
    pub(crate) fn discard(&mut self, pkt: Packet<F>, reason: Drop) -> Passed<F> {
        drop(pkt);
        self.net
            .counters
            .done(crate::verdict::Verdict::Dropped(reason));
        None
    }

    /// Drops a packet for which there is no way to its dest, and tells its sender.
    pub(crate) fn unreachable(
        &mut self,
        now: Time,
        pkt: Packet<F>,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        self.refuse(now, pkt, IcmpKind::HostUnreachable, Drop::NoRoute, io)
    }
}
