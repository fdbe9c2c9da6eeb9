//! Tunnels to dests: IP in IP, GUE and GRE around a client's packet, either family in either. What routers and servers say of
//! packets in tunnels is `error.rs`'s.
//!
//! Follows `ip_vs_tunnel_xmit`, `ip_vs_prepare_tunneled_skb`, `ipvs_gue_encap`, `ipvs_gre_encap` (ip_vs_xmit.c).

mod error;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr};

use ripvs_packet::checksum::{pseudo_v4, pseudo_v6, Sum};
use ripvs_packet::eth::{self, ethertype};
use ripvs_packet::{ipv4, ipv6, parse, Frame, PacketIo, PortId};

use crate::datapath::Passed;
use crate::family::V4;
use crate::flow::Path;
use crate::hop::{Exit, Hop};
use crate::net::{Net, UNTAGGED};
use crate::packet::Packet;
use crate::plain::{Header, Plain};
use crate::rewrite::{add_frame, End, Ip};
use crate::service::Dest;
use crate::spec::{DestSpec, TunnelCsum, TunnelKind};
use crate::types::{proto, Af, Time};
use crate::verdict::{Drop, Verdict};
use crate::worker::{Io, Tables, Worker};

/// Where a packet begins in an untagged frame.
const IN_FRAME: usize = eth::HEADER_LEN;
const UDP_HEADER: usize = 8;
const GUE_HEADER: usize = 4;
const GRE_HEADER: usize = 4;
const GRE_CSUM: u16 = 0x8000;
/// The least MTU that may be left for the inner packet (RFC 791, RFC 8200).
const MIN_MTU_V4: u16 = 68;
const MIN_MTU_V6: u16 = 1280;

/// Bytes that a tunnel puts before a packet.
fn overhead(dest: &DestSpec) -> usize {
    let outer = if dest.addr.is_ipv4() { 20 } else { 40 };
    outer
        + match dest.tunnel {
            TunnelKind::Ipip => 0,
            TunnelKind::Gue { .. } => UDP_HEADER + GUE_HEADER,
            TunnelKind::Gre => {
                GRE_HEADER
                    + if dest.tunnel_csum == TunnelCsum::Full {
                        4
                    } else {
                        0
                    }
            }
        }
}

/// The outer header's TOS: the inner one's, but "congestion experienced" becomes ECT(0) (RFC 3168, 9.1.1).
fn outer_tos(inner: u8) -> u8 {
    if inner & 3 == 3 {
        inner & !3 | 2
    } else {
        inner
    }
}

/// What the outer header takes over from the inner one, and where it goes.
struct Outer {
    src: IpAddr,
    dst: IpAddr,
    tos: u8,
    ttl: u8,
    dont_fragment: bool,
    id: u16,
    /// Source port of GUE, for the way's load balancing: the same for all packets of a connection.
    entropy: u16,
}

impl Outer {
    /// The outer IPv4 header of a packet of `len` bytes in all.
    #[inline(always)]
    fn header_v4(
        &self,
        len: usize,
        protocol: u8,
        src: Ipv4Addr,
        dst: Ipv4Addr,
    ) -> [u8; V4::HEADER] {
        ipv4::build(&ipv4::NewHeader {
            tos: self.tos,
            total_len: len as u16,
            id: self.id,
            fragment: if self.dont_fragment { ipv4::DF } else { 0 },
            ttl: self.ttl,
            protocol,
            src: src.octets(),
            dst: dst.octets(),
        })
    }
}

/// The protocol number of a packet inside another.
fn inner_protocol(inner: Af) -> u8 {
    match inner {
        Af::V4 => proto::IPIP,
        Af::V6 => proto::IPV6,
    }
}

/// Puts the tunnel's headers before the packet that is the whole frame.
fn encapsulate<F: Frame>(frame: &mut F, inner: Af, dest: &DestSpec, outer: &Outer) -> bool {
    let len = frame.len();
    let extra = overhead(dest);
    if !frame.prepend(extra) {
        return false;
    }
    let ip_len = if dest.addr.is_ipv4() { 20 } else { 40 };
    let inner_proto = inner_protocol(inner);
    let head = frame.head_mut();
    let protocol = match dest.tunnel {
        TunnelKind::Ipip => inner_proto,
        TunnelKind::Gue { port } => {
            let udp = &mut head[ip_len..];
            udp[..2].copy_from_slice(&outer.entropy.to_be_bytes());
            udp[2..4].copy_from_slice(&port.to_be_bytes());
            udp[4..6].copy_from_slice(&((len + UDP_HEADER + GUE_HEADER) as u16).to_be_bytes());
            udp[6..8].fill(0);
            // GUE version 0, a data message, no options, no flags.
            udp[8..12].copy_from_slice(&[0, inner_proto, 0, 0]);
            proto::UDP
        }
        TunnelKind::Gre => {
            let ethertype = match inner {
                Af::V4 => ethertype::IPV4,
                Af::V6 => ethertype::IPV6,
            };
            let csum = dest.tunnel_csum == TunnelCsum::Full;
            let gre = &mut head[ip_len..extra];
            gre.fill(0);
            gre[..2].copy_from_slice(&(if csum { GRE_CSUM } else { 0 }).to_be_bytes());
            gre[2..4].copy_from_slice(&ethertype.to_be_bytes());
            proto::GRE
        }
    };
    match (outer.src, outer.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            if let Some(ip) = head.first_chunk_mut() {
                *ip = outer.header_v4(len + extra, protocol, src, dst);
            }
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            head[0] = 0x60 | outer.tos >> 4;
            head[1] = outer.tos << 4;
            head[2..4].fill(0);
            head[4..6].copy_from_slice(&((len + extra - 40) as u16).to_be_bytes());
            head[6] = protocol;
            head[7] = outer.ttl;
            head[8..24].copy_from_slice(&src.octets());
            head[24..40].copy_from_slice(&dst.octets());
        }
        _ => return false,
    }
    seal_inside(frame, dest, outer, ip_len);
    true
}

/// Computes the checksum of GUE's UDP header or of GRE, where the dest asks for one.
fn seal_inside<F: Frame>(frame: &mut F, dest: &DestSpec, outer: &Outer, at: usize) {
    // Remote checksum offload asks for GUE's checksum as well; what it would save is for senders that offload.
    let wanted = match dest.tunnel {
        TunnelKind::Ipip => false,
        TunnelKind::Gue { .. } => dest.tunnel_csum != TunnelCsum::None,
        TunnelKind::Gre => dest.tunnel_csum == TunnelCsum::Full,
    };
    if !wanted {
        return;
    }
    let len = frame.len() - at;
    match dest.tunnel {
        TunnelKind::Ipip => {}
        TunnelKind::Gue { .. } => {
            let pseudo = match (outer.src, outer.dst) {
                (IpAddr::V4(src), IpAddr::V4(dst)) => {
                    pseudo_v4(src.octets(), dst.octets(), proto::UDP, len as u16)
                }
                (IpAddr::V6(src), IpAddr::V6(dst)) => {
                    pseudo_v6(&src.octets(), &dst.octets(), proto::UDP, len as u32)
                }
                _ => Sum::new(),
            };
            let sum = add_frame(pseudo, frame, at).udp_checksum();
            frame.write_at(at + 6, &sum.to_be_bytes());
        }
        TunnelKind::Gre => {
            let sum = add_frame(Sum::new(), frame, at).checksum();
            frame.write_at(at + 4, &sum.to_be_bytes());
        }
    }
}

/// The outside of a client's packet that goes IP in IP of its own family, from an untagged frame to one, as most do.
pub(crate) struct InIp<'a, A: Ip> {
    l2: &'a [u8; UNTAGGED],
    port: PortId,
    header: Header<A>,
}

impl<'a, A: Plain> InIp<'a, A> {
    /// The outside of the packet `ip`, which begins `l3` bytes into its frame. `None` where it or its way is not of that kind.
    /// `cut`: what is too long is cut on its way. `ends`: source and destination of the tunnel.
    #[inline(always)]
    pub fn of<F: Frame>(
        ip: &[u8],
        l3: usize,
        ends: (IpAddr, A::Addr),
        exit: &'a Exit,
        cut: bool,
        net: &mut Net<F>,
    ) -> Option<InIp<'a, A>> {
        let start = A::start(ip)?;
        let (inside, (df, tos)) = (A::len(start), A::df_and_tos(start));
        let room = usize::from(exit.mtu).checked_sub(A::HEADER)?;
        let usual = inside <= room && room >= usize::from(least_mtu(A::AF)) && l3 == IN_FRAME;
        let l2 = exit.untagged(l3).filter(|_| usual)?;
        let header = Header {
            ends: (A::from_ip(ends.0)?, ends.1),
            inside,
            tos: outer_tos(tos),
            // The packet inside is to be sent with one less.
            ttl: A::ttl(ip) - 1,
            id: (!df || cut).then(|| net.next_ip_id()),
        };
        let port = exit.port();
        Some(InIp { l2, port, header })
    }

    /// Wraps the packet, whose frame has no padding, and sends it.
    #[inline(always)]
    pub fn send<F: Frame>(
        &self,
        mut frame: F,
        net: &mut Net<F>,
        io: &mut impl PacketIo<Frame = F>,
    ) {
        let has_room = frame.prepend(A::HEADER);
        let head = frame.head_mut().split_at_mut_checked(IN_FRAME);
        let Some((l2, ip)) = head.filter(|_| has_room) else {
            return net.counters.done(Verdict::Dropped(Drop::NoHeadroom));
        };
        l2[..UNTAGGED].copy_from_slice(self.l2);
        l2[UNTAGGED..].copy_from_slice(&A::TYPE);
        A::put_header(ip, &self.header);
        net.counters.forwarded += 1;
        io.transmit(self.port, frame);
    }
}

/// What is known of the outside of a client's packet before it is wrapped.
pub(crate) struct Wrapping {
    src: IpAddr,
    tos: u8,
    dont_fragment: bool,
}

impl Wrapping {
    /// The outside of a packet of `len` bytes that is as any other: no checksum to be computed over all of it, room for it.
    /// `None` where that is not so. `df`: it must not be cut.
    #[inline(never)]
    pub fn of<A: Ip>(
        dest: &Dest,
        (exit, source): (&Exit, IpAddr),
        len: usize,
        df: bool,
        tos: u8,
    ) -> Option<Wrapping> {
        let spec = &dest.spec;
        let room = usize::from(exit.mtu).checked_sub(overhead(spec))?;
        let usual = len <= room
            && room >= usize::from(least_mtu(Af::of(spec.addr)))
            && spec.tunnel_csum != TunnelCsum::Full;
        usual.then_some(Wrapping {
            src: source,
            tos: outer_tos(tos),
            dont_fragment: A::AF == Af::V4 && df,
        })
    }

    /// Wraps the packet that begins `l3` bytes into the frame, and sends it. `of` is its client and the
    /// virtual port.
    #[allow(clippy::too_many_arguments)]
    #[inline(never)]
    pub fn send<A: Ip, F: Frame>(
        &self,
        mut frame: F,
        l3: usize,
        of: (End<A>, u16),
        dest: &Dest,
        exit: &Exit,
        net: &mut Net<F>,
        io: &mut impl PacketIo<Frame = F>,
    ) {
        let outer = Outer {
            src: self.src,
            dst: dest.spec.addr,
            tos: self.tos,
            ttl: A::ttl(&frame.head()[l3..]),
            dont_fragment: self.dont_fragment,
            id: if self.dont_fragment {
                0
            } else {
                net.next_ip_id()
            },
            entropy: match dest.spec.tunnel {
                TunnelKind::Gue { .. } => entropy(of.0, of.1),
                TunnelKind::Ipip | TunnelKind::Gre => 0,
            },
        };
        let wrapped = frame.trim_front(l3) && encapsulate(&mut frame, A::AF, &dest.spec, &outer);
        if wrapped {
            exit.send_anyhow(frame, 0, net, io);
        } else {
            net.counters.done(Verdict::Dropped(Drop::NoHeadroom));
        }
    }
}

/// The least MTU that a tunnel of this family must leave for what is inside.
fn least_mtu(outer: Af) -> u16 {
    match outer {
        Af::V4 => MIN_MTU_V4,
        Af::V6 => MIN_MTU_V6,
    }
}

impl<F: Frame> Worker<F> {
    /// Sends a client's packet to its dest by the tunnel.
    pub(crate) fn transmit_tunnel<A: Tables<F>>(
        &mut self,
        now: Time,
        pkt: Packet<F>,
        path: &Path<A>,
        error: bool,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        let Some(id) = path.dest else {
            return self.discard(pkt, Drop::NoDest);
        };
        let Some(dest) = self.services.dest(id) else {
            return self.discard(pkt, Drop::DestGone);
        };
        let spec = dest.spec.clone();
        let kept = self.kept_way(path.hop_in, path.dest);
        let Some((number, mut hop)) = self.tunnel_way(now, kept, spec.addr) else {
            return self.unreachable(now, pkt, io);
        };
        self.keep_way(path.dest, kept, number);
        // As in `transmit_inbound`.
        if let Some(id) = path.id.filter(|_| number != path.hop_in && !error) {
            if let Some(record) = A::table_mut(self).get_mut(id) {
                record.hop_in = number.0;
            }
        }
        let hit = &mut hop.hit;
        if hit.local {
            return Some(pkt);
        }
        hit.mtu = hit.mtu.min(self.services.path_mtu(now, spec.addr));
        let room = usize::from(hit.mtu).saturating_sub(overhead(&spec)) as u16;
        if room < least_mtu(Af::of(spec.addr)) && A::ttl(pkt.ip()) > 1 {
            return self.discard(pkt, Drop::TooBig);
        }
        // Without path MTU discovery the outer packet is cut instead.
        let cut = A::AF == Af::V4 && self.settings.pmtu_disc == 0;
        let pkt = self.prepare::<A>(now, pkt, room, error || cut, io)?;
        let Some(src) = hop.source else {
            return self.discard(pkt, Drop::NoRoute);
        };
        let dont_fragment = A::AF == Af::V4 && !cut && pkt.info.has(parse::flags::DONT_FRAGMENT);
        let outer = Outer {
            src,
            dst: spec.addr,
            tos: outer_tos(pkt.info.tos),
            ttl: A::ttl(pkt.ip()),
            dont_fragment,
            id: if dont_fragment {
                0
            } else {
                self.net.next_ip_id()
            },
            entropy: entropy::<A>(path.client, path.virt.port),
        };
        self.send_tunnel(now, pkt, A::AF, &spec, &outer, &hop, io)
    }

    #[allow(clippy::too_many_arguments)]
    fn send_tunnel(
        &mut self,
        now: Time,
        mut pkt: Packet<F>,
        inner: Af,
        dest: &DestSpec,
        outer: &Outer,
        hop: &Hop,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        let outside = if dest.addr.is_ipv4() {
            0
        } else {
            ipv6::HEADER_LEN
        };
        if pkt.len() + overhead(dest) > usize::from(u16::MAX) + outside {
            // Put together from fragments, it is longer than any packet may be.
            return self.discard(pkt, Drop::TooBig);
        }
        if !pkt.frame.trim_front(pkt.l3) || !encapsulate(&mut pkt.frame, inner, dest, outer) {
            return self.discard(pkt, Drop::NoHeadroom);
        }
        pkt.l3 = 0;
        // The kernel forgets how a packet came where the outer header is of the other family: one that was put together
        // from fragments leaves whole.
        if inner != Af::of(dest.addr) {
            pkt.pieces = None;
        }
        self.output_hop(now, pkt, hop, io)
    }
}

/// A source port from the range that the kernel takes for its own (32768 to 60999), by connection.
fn entropy<A: crate::family::Family>(client: End<A>, vport: u16) -> u16 {
    let mut hash = u32::from(client.port) << 16 | u32::from(vport);
    for byte in client.addr.as_ref() {
        hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
    32768 + (hash % 28232) as u16
}
