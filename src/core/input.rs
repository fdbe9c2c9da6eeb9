//! The steps before and around the decision of `datapath.rs`: reading a frame, finding its worker, gathering fragments,
//! giving packets to the host, telling senders, and the way out.

use ripvs_packet::parse::{self, ParseError};
use ripvs_packet::{eth::ethertype, Frame, PortId};

use crate::conn::Key;
use crate::datapath::Passed;
use crate::frag::Gathered;
use crate::hop::Hop;
use crate::mark::Probe;
use crate::message::{Msg, Parcel};
use crate::net::{DstKind, IcmpKind, Offender, Outgoing, RouteHit};
use crate::packet::{ports, Packet};
use crate::related::{quoted, reply_key, request_key};
use crate::types::{proto, Af, Time, WorkerId};
use crate::verdict::{Drop, Held, Verdict};
use crate::worker::{Io, Tables, Worker};

/// Datagrams given up in one round.
const EXPIRE_DATAGRAMS: usize = 16;

/// How far into a packet the first segment must reach for every header that may be looked at.
const HEADERS: usize = 128;

impl<F: Frame> Worker<F> {
    /// A frame from a port: what is not IP ends here.
    pub(crate) fn receive(
        &mut self,
        now: Time,
        port: PortId,
        frame: F,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        if self.net.ifaces().companion_of(port).is_some() {
            self.net.companion_input(port, frame, io);
            return None;
        }
        match self.net.ingress(port, &frame) {
            Ok(rx) => self.read(
                now,
                Parcel {
                    frame,
                    rx,
                    pieces: None,
                    routed: false,
                },
                io,
            ),
            Err(reason) => {
                self.net.counters.done(Verdict::Dropped(reason));
                None
            }
        }
    }

    /// Reads the packet of a frame that came in, perhaps by way of another worker.
    pub(crate) fn read(&mut self, now: Time, parcel: Parcel<F>, io: &mut impl Io<F>) -> Passed<F> {
        let Parcel {
            mut frame,
            rx,
            pieces,
            routed,
        } = parcel;
        match rx.ethertype {
            ethertype::IPV4 | ethertype::IPV6 => {}
            ethertype::ARP => {
                self.net.arp_input(now, &rx, frame, io);
                return None;
            }
            _ => {
                self.net.to_host(&rx, frame, Drop::EtherType, io);
                return None;
            }
        }
        let l3 = usize::from(rx.l3);
        frame.pull(l3 + HEADERS);
        let info = loop {
            match parse::parse(rx.ethertype, &frame.head()[l3..], frame.len() - l3) {
                Ok(info) => break info,
                Err(ParseError::HeadShort(need))
                    if frame.head().len() < l3 + need && frame.pull(l3 + need) => {}
                Err(ParseError::ParamProblem { code, pointer }) => {
                    let about = Offender::new(&frame, l3).from(&rx);
                    self.net
                        .icmp_error(now, about, IcmpKind::ParamProblem { code, pointer }, io);
                    self.net.counters.done(Verdict::Dropped(Drop::BadOption));
                    return None;
                }
                Err(_) => {
                    self.net.counters.done(Verdict::Dropped(Drop::BadHeader));
                    return None;
                }
            }
        };
        frame.truncate(l3 + info.total_len as usize);
        let mut pkt = Packet {
            frame,
            rx,
            l3,
            info,
            dst: DstKind::Remote,
            options: Default::default(),
            mark: 0,
            hash: 0,
            pieces,
            routed,
            carried: false,
        };
        pkt.dst = match self.net.classify(&rx, info.src_ip(), info.dst_ip()) {
            Ok(dst) => dst,
            Err(reason) => return self.discard(pkt, reason),
        };
        // To connections whose service is gone a packet comes as before (`request`).
        if pkt.dst == DstKind::Remote && self.services.outlived(pkt.info.dst_ip()) {
            pkt.dst = DstKind::Local;
        }
        self.mark(&mut pkt);
        Some(pkt)
    }

    /// Gives a packet its mark. One that is marked for IPVS whatever its address is ours from then on.
    fn mark(&mut self, pkt: &mut Packet<F>) {
        if self.marks.is_empty() {
            return;
        }
        let (sport, dport) = match pkt.info.protocol {
            proto::TCP | proto::UDP | proto::SCTP if !pkt.info.is_fragment() => {
                ports(pkt.transport()).unwrap_or((0, 0))
            }
            _ => (0, 0),
        };
        let found = self.marks.lookup(&Probe {
            iface: pkt.rx.iface,
            proto: pkt.info.protocol,
            src: pkt.info.src_ip(),
            dst: pkt.info.dst_ip(),
            sport,
            dport,
        });
        if let Some(rule) = found {
            pkt.mark = rule.mark;
            if rule.divert && pkt.dst == DstKind::Remote {
                pkt.dst = DstKind::Local;
            }
        }
    }

    /// The worker that a packet is for. The client is the source of what is for us, and the destination of what is routed;
    /// an ICMP error is judged by the packet that it quotes.
    pub(crate) fn owner_of<A: Tables<F>>(&self, pkt: &Packet<F>) -> WorkerId {
        let info = &pkt.info;
        if info.is_fragment() {
            return self.owners.of_fragments(
                info.src_ip(),
                info.dst_ip(),
                info.frag_id,
                info.protocol,
            );
        }
        self.owner_of_conn::<A>(pkt)
    }

    /// The worker of the connection that a packet is of, be it a fragment that goes on as it is.
    pub(crate) fn owner_of_conn<A: Tables<F>>(&self, pkt: &Packet<F>) -> WorkerId {
        let info = &pkt.info;
        let local = pkt.dst == DstKind::Local;
        if matches!(info.protocol, proto::ICMP | proto::ICMPV6) {
            if let Some(quoted) = quoted::<A, F>(pkt) {
                let at = usize::from(info.l4_offset) + ripvs_packet::icmp::HEADER_LEN;
                if local {
                    if let Some(inner) = self.tunnelled::<A>(pkt, &quoted) {
                        return self
                            .owners
                            .of_client(A::to_ip(inner.key.caddr), inner.key.cport);
                    }
                }
                let ip = pkt.ip().get(at..).unwrap_or_default();
                let about_reply = local
                    || self.net.is_local(A::to_ip(quoted.src))
                    || self.diverts(pkt, reply_key(ip, &quoted));
                let client = if about_reply {
                    reply_key(ip, &quoted).map(|key| (key.caddr, key.cport))
                } else {
                    request_key(ip, &quoted).map(|key| (key.caddr, key.cport))
                };
                if let Some((addr, port)) = client {
                    return self.owners.of_client(A::to_ip(addr), port);
                }
            }
        }
        let ports = pkt.ports();
        if local {
            self.owners
                .of_client(info.src_ip(), ports.map_or(0, |ports| ports.0))
        } else {
            self.owners
                .of_client(info.dst_ip(), ports.map_or(0, |ports| ports.1))
        }
    }

    /// Whether a request of that key would be ours by its mark.
    fn diverts<A: Tables<F>>(&self, pkt: &Packet<F>, key: Option<Key<A>>) -> bool {
        let Some(key) = key.filter(|_| !self.marks.is_empty()) else {
            return false;
        };
        let probe = Probe {
            iface: pkt.rx.iface,
            proto: key.proto,
            src: A::to_ip(key.caddr),
            dst: A::to_ip(key.vaddr),
            sport: key.cport,
            dport: key.vport,
        };
        self.marks.lookup(&probe).is_some_and(|rule| rule.divert)
    }

    /// Hands a packet to its owner.
    pub(crate) fn hand_over(&mut self, owner: WorkerId, pkt: Packet<F>) {
        self.hand_over_burst(owner);
        self.net.counters.hold(Held::Ring);
        let parcel = pkt.into_parcel();
        self.post(owner, Msg::Packet(parcel));
    }

    /// Whether a fragment is gathered here rather than routed as it is: what is ours always, IPv6 always as IPVS wants whole
    /// packets there, other IPv4 only where it may be a server's reply.
    pub(crate) fn gathers<A: Tables<F>>(&self, pkt: &Packet<F>) -> bool {
        let balanced = matches!(
            pkt.info.protocol,
            proto::TCP | proto::UDP | proto::SCTP | proto::ICMP
        );
        // An IPv6 datagram in one fragment loses its fragment header.
        let atomic = pkt.info.has(parse::flags::ATOMIC_FRAGMENT);
        if !pkt.info.is_fragment() && !atomic {
            return false;
        }
        match pkt.dst {
            DstKind::Remote if A::AF == Af::V6 => self.services.gathers_v6(),
            DstKind::Remote => self.services.enabled(Af::V4) && balanced,
            _ => true,
        }
    }

    /// Adds a fragment to its datagram; the datagram comes back once it is whole.
    pub(crate) fn gather(&mut self, now: Time, pkt: Packet<F>, io: &mut impl Io<F>) -> Gather<F> {
        let Packet {
            frame,
            rx,
            l3,
            info,
            dst,
            routed,
            ..
        } = pkt;
        let counters = &mut self.net.counters;
        match self.frags.push(now, rx.iface, frame, l3, &info, io) {
            Gathered::Held { dropped } => {
                counters.hold(Held::Reassembly);
                counters.abandon(Drop::FragmentInvalid, dropped);
                Gather::Ended
            }
            Gathered::Complete(whole) => {
                counters.absorb(whole.absorbed);
                let ours = dst != DstKind::Remote && info.family == parse::Family::V4;
                let pieces = if ours && !self.services.tracks(Af::V4) {
                    whole.pieces.merged()
                } else {
                    whole.pieces
                };
                let parcel = Parcel {
                    frame: whole.frame,
                    rx,
                    pieces: Some(pieces),
                    routed,
                };
                self.read(now, parcel, io)
                    .map_or(Gather::Ended, Gather::Whole)
            }
            Gathered::Ungathered { frame, dropped, .. } => {
                counters.abandon(Drop::FragmentInvalid, dropped);
                Gather::AsIs(Packet { frame, ..pkt })
            }
            Gathered::Dropped { reason, frames } => {
                counters.done(Verdict::Dropped(reason.into()));
                counters.abandon(reason.into(), frames - 1);
                Gather::Ended
            }
        }
    }

    /// Gives up fragments whose datagram was not whole in time, and tells the sender of each.
    pub(crate) fn expire_fragments(&mut self, now: Time, io: &mut impl Io<F>) {
        let net = &mut self.net;
        self.frags.expire(now, EXPIRE_DATAGRAMS, |expired| {
            net.counters
                .abandon(Drop::ReassemblyTimeout, expired.dropped);
            if let Some(first) = expired.first {
                let about = Offender::new(&first, expired.l3_offset);
                net.icmp_error(now, about, IcmpKind::ReassemblyTimeExceeded, io);
                net.counters.abandon(Drop::ReassemblyTimeout, 1);
            }
        });
    }

    /// Has the router look at a fragment before it is gathered. IPVS gathers IPv4 that passes through only behind the router
    /// (`ip_forward`, then `ip_vs_out_hook`), unless connections are tracked.
    pub(crate) fn route_fragment<A: Tables<F>>(
        &mut self,
        now: Time,
        pkt: Packet<F>,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        if A::AF == Af::V6 || pkt.dst != DstKind::Remote || self.services.tracks(Af::V4) {
            return Some(pkt);
        }
        let (mut pkt, _) = self.route_checked(now, pkt, io)?;
        pkt.routed = true;
        Some(pkt)
    }

    /// What the router does first with a packet that is not ours.
    pub(crate) fn route_checked(
        &mut self,
        now: Time,
        mut pkt: Packet<F>,
        io: &mut impl Io<F>,
    ) -> Option<(Packet<F>, RouteHit)> {
        if pkt.routed {
            let hit = self
                .net
                .route(pkt.info.dst_ip(), Some(pkt.info.src_ip()))
                .filter(|hit| !hit.local);
            return match hit {
                Some(hit) => Some((pkt, hit)),
                None => {
                    self.discard(pkt, Drop::NoRoute);
                    None
                }
            };
        }
        let (rx, info, pieces) = (&pkt.rx, &pkt.info, pkt.pieces.as_ref());
        match self
            .net
            .forward_check(now, rx, info, pieces, &mut pkt.frame, io)
        {
            Ok(hit) => Some((pkt, hit)),
            Err(reason) => {
                self.discard(pkt, reason);
                None
            }
        }
    }

    /// Drops a packet and tells its sender why.
    pub(crate) fn refuse(
        &mut self,
        now: Time,
        pkt: Packet<F>,
        kind: IcmpKind,
        reason: Drop,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        let mut about = Offender::new(&pkt.frame, pkt.l3).from(&pkt.rx);
        // What a mark made ours has a destination that IPv4 tells by, and IPv6 does not (`icmp_send`, `icmp6_send`).
        let to = pkt.info.dst_ip();
        if pkt.dst == DstKind::Local && (to.is_ipv4() || self.net.is_local(to)) {
            about = about.told_by(to);
        }
        self.net.icmp_error(now, about, kind, io);
        self.discard(pkt, reason)
    }

    /// Sends a packet by this way, which is known with its neighbour.
    #[inline]
    pub(crate) fn output_hop(
        &mut self,
        now: Time,
        pkt: Packet<F>,
        hop: &Hop,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        let len = pkt.frame.len() - pkt.l3;
        match hop.neigh {
            Some(neigh) if len <= usize::from(hop.hit.mtu) && pkt.is_plain() => {
                self.net.send_cached(now, pkt.frame, pkt.l3, neigh, io);
                None
            }
            _ => self.output(now, pkt, hop.hit, io),
        }
    }

    /// Sends a packet by this way, in fragments where it must be: where it is longer than the MTU, or came in fragments.
    pub(crate) fn output(
        &mut self,
        now: Time,
        mut pkt: Packet<F>,
        hit: RouteHit,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        let v6 = pkt.info.family == parse::Family::V6;
        self.forward_options(&mut pkt, &hit);
        let Packet {
            frame,
            l3,
            pieces,
            carried,
            ..
        } = pkt;
        let packet = Outgoing {
            frame,
            l3,
            pieces: pieces.as_ref(),
            // What was put together from IPv6 fragments may be cut again, whoever sends it.
            force: carried || pieces.is_some() && v6,
            verdict: Verdict::Forwarded,
        };
        self.net.send_or_drop(now, packet, &hit, io);
        None
    }
}

/// What became of a fragment.
pub(crate) enum Gather<F> {
    /// It is held, or has been ended.
    Ended,
    /// It made a datagram whole.
    Whole(Packet<F>),
    /// It goes on as it is.
    AsIs(Packet<F>),
}
