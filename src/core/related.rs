//! ICMP errors about packets of connections: translated with what they quote and sent on, in either direction.
//!
//! Follows `ip_vs_in_icmp`, `ip_vs_out_icmp`, their IPv6 likes, and `ip_vs_nat_icmp` (net/netfilter/ipvs/ip_vs_core.c). Errors
//! about the outside of our own tunnels are in `tunnel.rs`.

use ripvs_packet::{icmp, Frame};

use crate::conn::{ConnId, Key, OutKey};
use crate::datapath::Passed;
use crate::flow::Path;
use crate::message::Ask;
use crate::packet::{ports, Packet, ISAKMP_PORT};
use crate::rewrite::{add_frame, Ip, Quoted, Side};
use crate::service::FTP_DATA_PORT;
use crate::spec::Forward;
use crate::state::Direction;
use crate::types::{proto, Af, Time};
use crate::verdict::Drop;
use crate::worker::{Io, Tables, Worker};

/// Where in the packet an ICMP error's quoted packet begins, from its IP header on.
fn quote_at<F: Frame>(pkt: &Packet<F>) -> usize {
    usize::from(pkt.info.l4_offset) + icmp::HEADER_LEN
}

/// Whether the protocol's header begins with two ports that NAT translates.
fn has_ports(protocol: u8) -> bool {
    matches!(protocol, proto::TCP | proto::UDP | proto::SCTP)
}

/// Whether IPVS knows connections of the protocol.
pub(crate) fn is_balanced(protocol: u8) -> bool {
    has_ports(protocol) || matches!(protocol, proto::ESP | proto::AH)
}

/// Whether what is quoted is a part of a datagram that shows no transport header. Of IPv4 the kernel (6.1) takes what stands in
/// the place of ports for ports, wherever in the datagram it is from.
pub(crate) fn is_later<A: Ip>(quoted: &Quoted<A>) -> bool {
    quoted.offset != 0 && (A::AF == Af::V6 || !has_ports(quoted.proto))
}

/// The ports of a quoted packet.
fn quoted_ports<A: Ip>(ip: &[u8], quoted: &Quoted<A>) -> Option<(u16, u16)> {
    match quoted.proto {
        proto::ESP | proto::AH => Some((ISAKMP_PORT, ISAKMP_PORT)),
        _ => ports(ip.get(quoted.l4..)?),
    }
}

/// Protocol for look-ups: ESP and AH go by the client's ISAKMP connection.
fn keyed(protocol: u8) -> u8 {
    match protocol {
        proto::ESP | proto::AH => proto::UDP,
        other => other,
    }
}

/// The connection's key that an error about a client's packet, as it sent it, names.
pub(crate) fn sent_key<A: Ip>(ip: &[u8], quoted: &Quoted<A>) -> Option<Key<A>> {
    let (sport, dport) = quoted_ports(ip, quoted)?;
    Some(Key {
        proto: keyed(quoted.proto),
        caddr: quoted.src,
        cport: sport,
        vaddr: quoted.dst,
        vport: dport,
    })
}

/// The connection's key that an error about a reply (service to client) names.
pub(crate) fn reply_key<A: Ip>(ip: &[u8], quoted: &Quoted<A>) -> Option<Key<A>> {
    let (sport, dport) = quoted_ports(ip, quoted)?;
    Some(Key {
        proto: keyed(quoted.proto),
        caddr: quoted.dst,
        cport: dport,
        vaddr: quoted.src,
        vport: sport,
    })
}

/// The connection's key that an error about a request on its way to a dest names.
pub(crate) fn request_key<A: Ip>(ip: &[u8], quoted: &Quoted<A>) -> Option<OutKey<A>> {
    let (sport, dport) = quoted_ports(ip, quoted)?;
    Some(OutKey {
        proto: keyed(quoted.proto),
        saddr: quoted.dst,
        sport: dport,
        caddr: quoted.src,
        cport: sport,
    })
}

/// What an ICMP error quotes, if this is one and IPVS is concerned with its kind.
pub(crate) fn quoted<A: Ip, F: Frame>(pkt: &Packet<F>) -> Option<Quoted<A>> {
    let kind = *pkt.transport().first()?;
    let error = match pkt.info.protocol {
        proto::ICMP => matches!(
            kind,
            icmp::v4::DEST_UNREACH | icmp::v4::SOURCE_QUENCH | icmp::v4::TIME_EXCEEDED
        ),
        proto::ICMPV6 => kind & 0x80 == 0,
        _ => false,
    };
    if !error {
        return None;
    }
    A::quoted(pkt.ip().get(quote_at(pkt)..)?)
}

impl<F: Frame> Worker<F> {
    /// An ICMP error from the client's side about a server's reply, or about a tunnel's outer packet (`local`: it came to an
    /// address of ours). Hands the packet back where it is none of IPVS's.
    pub(crate) fn related_in<A: Tables<F>>(
        &mut self,
        now: Time,
        pkt: Packet<F>,
        local: bool,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        let Some(quoted) = quoted::<A, F>(&pkt) else {
            return Some(pkt);
        };
        if local {
            if let Some(tunnelled) = self.tunnelled::<A>(&pkt, &quoted) {
                return self.tunnel_error::<A>(now, pkt, tunnelled, io);
            }
        }
        let at = quote_at(&pkt);
        // Where tunnels end, a part of a UDP datagram may be one of a GUE packet.
        let maybe_gue = local && quoted.proto == proto::UDP && quoted.offset != 0;
        if !is_balanced(quoted.proto) || is_later::<A>(&quoted) || maybe_gue {
            return Some(pkt);
        }
        let schedules = self.settings.schedule_icmp != 0 && has_ports(quoted.proto);
        let Some(key) = reply_key(&pkt.ip()[at..], &quoted) else {
            // Nothing to schedule by (`tcp_conn_schedule` and its likes).
            return match schedules {
                true => self.discard(pkt, Drop::Truncated),
                false => Some(pkt),
            };
        };
        match self
            .find_in::<A>(&key)
            .and_then(|id| Some(Path::of(id, A::table(self).get(id)?)))
        {
            Some(path) => self.relate_in::<A>(now, pkt, &path, io),
            None if schedules => self.schedule_related::<A>(now, pkt, &key, io),
            None => Some(pkt),
        }
    }

    /// An ICMP error that begins a connection (`schedule_icmp`), as the packet it is about would have.
    fn schedule_related<A: Tables<F>>(
        &mut self,
        now: Time,
        pkt: Packet<F>,
        key: &Key<A>,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        let vaddr = A::to_ip(key.vaddr);
        let Some(service) = self.services.find(pkt.mark, key.proto, vaddr, key.vport) else {
            return Some(pkt);
        };
        if self.defence.drops_packet() {
            return self.discard(pkt, Drop::DropPacket);
        }
        if key.cport == FTP_DATA_PORT {
            return Some(pkt);
        }
        // An error has no Call-ID to persist by (`ip_vs_sip_fill_param`).
        if self
            .services
            .get(service)
            .is_some_and(|service| service.persistent() && service.spec.pe_sip)
        {
            return self.discard(pkt, Drop::NoCallId);
        }
        let ask = Ask {
            service,
            proto: key.proto,
            client: A::to_ip(key.caddr),
            cport: key.cport,
            vaddr,
            vport: key.vport,
            call_id: None,
            inverse: true,
            server: None,
        };
        self.assign::<A>(now, pkt, ask, io)
    }

    /// Sends an ICMP error about a connection on to the connection's dest.
    pub(crate) fn relate_in<A: Tables<F>>(
        &mut self,
        now: Time,
        pkt: Packet<F>,
        path: &Path<A>,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        let Some(quoted) = quoted::<A, F>(&pkt) else {
            return Some(pkt);
        };
        // The kernel verifies ICMPv4 here, and leaves ICMPv6 to whom it reaches.
        if A::AF == Af::V4 && !icmp_is_valid::<A, F>(&pkt) {
            return self.discard(pkt, Drop::BadChecksum);
        }
        self.account(path.dest, pkt.len(), Direction::Input);
        if path.forward != Forward::Masq {
            return self.transmit_inbound(now, pkt, path, true, io);
        }
        let (mut pkt, hit) = self.way_in(now, pkt, path, io)?;
        let port = has_ports(quoted.proto).then_some(path.server.port);
        if !translate_error::<A, F>(&mut pkt, &quoted, Side::Destination, path.server.addr, port) {
            return self.discard(pkt, Drop::Truncated);
        }
        self.output(now, pkt, hit, io)
    }

    /// An ICMP error from a server's side about a client's request, to be told to the client as the virtual service's.
    pub(crate) fn related_out<A: Tables<F>>(
        &mut self,
        now: Time,
        mut pkt: Packet<F>,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        let Some(quoted) = quoted::<A, F>(&pkt) else {
            return Some(pkt);
        };
        let at = quote_at(&pkt);
        if !is_balanced(quoted.proto) || is_later::<A>(&quoted) {
            return Some(pkt);
        }
        let Some(key) = request_key(&pkt.ip()[at..], &quoted) else {
            return Some(pkt);
        };
        let found = self
            .find_out::<A>(&key)
            .and_then(|id| Some(Path::of(id, A::table(self).get(id)?)));
        let Some(path) = found else { return Some(pkt) };
        if path.forward != Forward::Masq {
            // Not to be translated, it is counted as the server's and goes its way.
            self.account(path.dest, pkt.len(), Direction::Output);
            return Some(pkt);
        }
        if !icmp_is_valid::<A, F>(&pkt) {
            return self.discard(pkt, Drop::BadChecksum);
        }
        let old = A::addr(pkt.ip(), A::SRC);
        let port = has_ports(quoted.proto).then_some(path.virt.port);
        if !translate_error::<A, F>(&mut pkt, &quoted, Side::Source, path.virt.addr, port) {
            return self.discard(pkt, Drop::Truncated);
        }
        self.account(path.dest, pkt.len(), Direction::Output);
        // The way may be used, but not be kept as that of the connection's own packets: it says that their addresses were
        // looked at.
        let path = Path { id: None, ..path };
        self.send_reply::<A>(now, pkt, &path, old, io)
    }

    /// The connection of an in-direction key.
    pub(crate) fn find_in<A: Tables<F>>(&self, key: &Key<A>) -> Option<ConnId> {
        let table = A::table(self);
        table.find_in(table.hash_in(key), key)
    }

    /// The connection of an out-direction key.
    pub(crate) fn find_out<A: Tables<F>>(&self, key: &OutKey<A>) -> Option<ConnId> {
        let table = A::table(self);
        table.find_out(table.hash_out(key), key)
    }
}

/// Whether the ICMP checksum is right.
fn icmp_is_valid<A: Ip, F: Frame>(pkt: &Packet<F>) -> bool {
    let at = pkt.l3 + usize::from(pkt.info.l4_offset);
    let ip = pkt.ip();
    let pseudo = A::icmp_pseudo(A::addr(ip, A::SRC), A::addr(ip, A::DST), pkt.info.l4_len());
    add_frame(pseudo, &pkt.frame, at).is_valid()
}

/// Replaces the outer address on one side, and the quoted packet's on the other, with its port; the quoted header's and the
/// ICMP checksum are made anew, the quoted transport's is left as it is.
fn translate_error<A: Ip, F: Frame>(
    pkt: &mut Packet<F>,
    quoted: &Quoted<A>,
    side: Side,
    addr: A::Addr,
    port: Option<u16>,
) -> bool {
    let (l3, l4, inner) = (pkt.l3, usize::from(pkt.info.l4_offset), quote_at(pkt));
    let need = l3 + inner + quoted.l4 + if port.is_some() { 4 } else { 0 };
    pkt.pull_pieces(need - l3);
    if !pkt.frame.pull(need) || pkt.frame.head().len() < need {
        return false;
    }
    let ip = &mut pkt.frame.head_mut()[l3..];
    let (outer_at, inner_at, port_at) = match side {
        Side::Destination => (A::DST, A::SRC, 0),
        Side::Source => (A::SRC, A::DST, 2),
    };
    A::put(ip, outer_at, addr);
    A::seal(ip);
    A::put(&mut ip[inner..], inner_at, addr);
    A::seal(&mut ip[inner..]);
    if let Some(port) = port {
        let at = inner + quoted.l4 + port_at;
        ip[at..at + 2].copy_from_slice(&port.to_be_bytes());
    }
    ip[l4 + icmp::CHECKSUM..l4 + icmp::CHECKSUM + 2].fill(0);
    let pseudo = A::icmp_pseudo(A::addr(ip, A::SRC), A::addr(ip, A::DST), pkt.info.l4_len());
    let sum = add_frame(pseudo, &pkt.frame, l3 + l4).checksum();
    pkt.frame
        .write_at(l3 + l4 + icmp::CHECKSUM, &sum.to_be_bytes());
    true
}
