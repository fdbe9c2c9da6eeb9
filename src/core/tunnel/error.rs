//! ICMP errors about what we sent through a tunnel: told to the client as if about its own packet, and what they say of the
//! size that may pass is kept.
//!
//! Follows the part of `ip_vs_in_icmp` that looks into tunnels (ip_vs_core.c), and `gre_err` (net/ipv4/ip_gre.c).

use std::net::IpAddr;

use ripvs_packet::checksum::Sum;
use ripvs_packet::eth::ethertype;
use ripvs_packet::{icmp, Frame};

use super::{GRE_CSUM, GRE_HEADER, GUE_HEADER, MIN_MTU_V4, UDP_HEADER};
use crate::conn::Key;
use crate::datapath::Passed;
use crate::family::{Family, V4};
use crate::message::Msg;
use crate::net::{IcmpKind, Offender};
use crate::packet::{ports, Packet};
use crate::related::{is_balanced, is_later, quoted, sent_key};
use crate::rewrite::{add_frame, Ip, Quoted};
use crate::spec::TunnelKind;
use crate::state::Direction;
use crate::types::{proto, Af, Time, WorkerId};
use crate::verdict::{Drop, Verdict};
use crate::worker::{Io, Tables, Worker};

/// An ICMP error about a tunnel of ours, read.
pub(crate) struct Tunnelled<A: Family> {
    /// The connection of the packet inside.
    pub key: Key<A>,
    /// Where that packet begins, from the IP header of the error on.
    inner: usize,
    /// The other end of the tunnel.
    server: IpAddr,
    /// Whether the client wants to hear of packets that are too big.
    dont_fragment: bool,
}

impl<F: Frame> Worker<F> {
    /// What an ICMP error for us says of one of our tunnels; `None` where it is about none. IPv4 in IPv4 only, as in the
    /// kernel.
    pub(crate) fn tunnelled<A: Tables<F>>(
        &self,
        pkt: &Packet<F>,
        quoted: &Quoted<A>,
    ) -> Option<Tunnelled<A>> {
        if A::AF != Af::V4 || quoted.offset != 0 {
            return None;
        }
        let at = usize::from(pkt.info.l4_offset) + icmp::HEADER_LEN;
        let outside = pkt.ip().get(at + quoted.l4..)?;
        let server = A::to_ip(quoted.dst);
        let skip = match quoted.proto {
            proto::IPIP => self
                .services
                .is_tunnel(server, TunnelKind::Ipip)
                .then_some(0)?,
            proto::UDP => {
                let (_, port) = ports(outside)?;
                let gue = outside.get(UDP_HEADER..UDP_HEADER + GUE_HEADER)?;
                let data = gue[0] & 0xe0 == 0 && gue[1] == proto::IPIP;
                let known = data && self.services.is_tunnel(server, TunnelKind::Gue { port });
                known.then_some(UDP_HEADER + GUE_HEADER + usize::from(gue[0] & 0x1f) * 4)?
            }
            proto::GRE => {
                let gre = outside.get(..GRE_HEADER)?;
                let flags = u16::from_be_bytes([gre[0], gre[1]]);
                let inner = u16::from_be_bytes([gre[2], gre[3]]);
                let plain = flags & !GRE_CSUM == 0 && inner == ethertype::IPV4;
                let known = plain && self.services.is_tunnel(server, TunnelKind::Gre);
                known.then_some(GRE_HEADER + if flags & GRE_CSUM != 0 { 4 } else { 0 })?
            }
            _ => return None,
        };
        let inner = at + quoted.l4 + skip;
        let ip = pkt.ip().get(inner..)?;
        let inside = A::quoted(ip)?;
        if !is_balanced(inside.proto) || is_later::<A>(&inside) {
            return None;
        }
        Some(Tunnelled {
            key: sent_key(ip, &inside)?,
            inner,
            server,
            dont_fragment: inside.dont_fragment,
        })
    }

    /// Tells the client of an error about the outside of the tunnel that its packet went through.
    pub(crate) fn tunnel_error<A: Tables<F>>(
        &mut self,
        now: Time,
        pkt: Packet<F>,
        about: Tunnelled<A>,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        let Some(id) = self.find_in(&about.key) else {
            return Some(pkt);
        };
        let dest = A::table(self).get(id).and_then(|record| record.dest());
        let at = pkt.l3 + usize::from(pkt.info.l4_offset);
        if !add_frame(Sum::new(), &pkt.frame, at).is_valid() {
            return self.discard(pkt, Drop::BadChecksum);
        }
        let error = pkt.transport();
        let (kind, code) = (error[icmp::TYPE], error[icmp::CODE]);
        let mut rest = [error[4], error[5], error[6], error[7]];
        if (kind, code) == (icmp::v4::DEST_UNREACH, icmp::v4::FRAG_NEEDED) {
            let told = u16::from_be_bytes([rest[2], rest[3]]);
            let mtu = self.learn_path_mtu(now, about.server, told);
            if !about.dont_fragment {
                return self.discard(pkt, Drop::PathMtu);
            }
            // What GUE or GRE take besides the kernel (6.1) does not tell of here.
            let outer = V4::HEADER as u16;
            let left = if mtu > MIN_MTU_V4 + outer {
                mtu - outer
            } else {
                mtu
            };
            rest = u32::from(left).to_be_bytes();
        }
        let len = pkt.len() - about.inner;
        self.account(dest, len, Direction::Output);
        let offender = Offender::new(&pkt.frame, pkt.l3 + about.inner);
        self.net.icmp_error(
            now,
            offender,
            IcmpKind::Raw {
                kind,
                code,
                rest: u32::from_be_bytes(rest),
            },
            io,
        );
        self.net.counters.done(Verdict::Answered);
        None
    }

    /// Takes in what an ICMP error for us says of the size that may pass to the end of a GRE tunnel of ours, though it may not
    /// quote enough to tell whose packet it is about: many routers quote eight bytes.
    pub(crate) fn heed_gre<A: Tables<F>>(&mut self, now: Time, pkt: &Packet<F>) {
        const REFUSED: u16 = 0x4007;
        const OPTIONAL: [u16; 3] = [GRE_CSUM, 0x2000, 0x1000];
        if A::AF != Af::V4 || pkt.info.protocol != proto::ICMP {
            return;
        }
        let Some(quoted) = quoted::<A, F>(pkt).filter(|quoted| quoted.proto == proto::GRE) else {
            return;
        };
        let server = A::to_ip(quoted.dst);
        let error = pkt.transport();
        let told = match error.first_chunk::<{ icmp::HEADER_LEN }>() {
            Some([icmp::v4::DEST_UNREACH, icmp::v4::FRAG_NEEDED, _, _, _, _, high, low]) => {
                u16::from_be_bytes([*high, *low])
            }
            _ => return,
        };
        let gre = error
            .get(icmp::HEADER_LEN + quoted.l4..)
            .unwrap_or_default();
        let flags = match gre {
            [high, low, ..] if gre.len() >= 8 => u16::from_be_bytes([*high, *low]),
            _ => return,
        };
        let options = OPTIONAL.iter().filter(|option| flags & **option != 0);
        if flags & REFUSED != 0 || gre.len() < GRE_HEADER + 4 * options.count() {
            return;
        }
        let at = pkt.l3 + usize::from(pkt.info.l4_offset);
        if self.services.has_dest_at(server) && add_frame(Sum::new(), &pkt.frame, at).is_valid() {
            self.learn_path_mtu(now, server, told);
        }
    }

    /// Takes in, here and at the other workers, how long a router says that packets on the way to a server may be; more than
    /// the route has is no news. Returns how long they may be now.
    fn learn_path_mtu(&mut self, now: Time, addr: IpAddr, told: u16) -> u16 {
        let route = self.net.route(addr, None).map_or(u16::MAX, |hit| hit.mtu);
        if told <= route && self.services.learn_path_mtu(now, addr, told) {
            for other in (0..self.workers).map(WorkerId) {
                if other != self.id {
                    self.post(other, Msg::PathMtu { addr, mtu: told });
                }
            }
        }
        self.services.path_mtu(now, addr).min(route)
    }
}
