//! A packet's whole life, in order: which interface, which worker, whole or in fragments; for us or to be routed; of a known
//! connection, of a new one, or none of IPVS's business. Every step is a call into the module that owns it.
//!
//! Follows the kernel's hooks: packets to an address of ours pass `ip_vs_out` and `ip_vs_in` (LOCAL_IN), packets to be
//! routed pass `ip_vs_in_icmp` and `ip_vs_out` (FORWARD), after the router has looked at TTL and MTU.
//!
//! Who takes a packet by value ends it and counts its verdict; [`Passed`] hands it back.

use ripvs_packet::{icmp, parse, sctp, Frame, PortId};

use crate::choose::Decision;
use crate::conn::{ConnId, Key, OutKey};
use crate::family::{V4, V6};
use crate::flow::Path;
use crate::input::Gather;
use crate::message::{Ask, Choice, Msg, Parcel};
use crate::net::{DstKind, IcmpKind};
use crate::packet::Packet;
use crate::related::is_balanced;
use crate::rewrite::{End, Ip, Side};
use crate::service::{FTP_DATA_PORT, FTP_PORT};
use crate::spec::Forward;
use crate::state::{self, Direction};
use crate::types::{proto, Af, Time};
use crate::verdict::{Drop, Held};
use crate::worker::{Io, Tables, Worker};

/// A packet handed back, to be gone on with, or `None`: it has been ended, and its verdict is counted.
pub(crate) type Passed<F> = Option<Packet<F>>;

impl<F: Frame> Worker<F> {
    /// A frame from a port that does not go the express way. `fresh`: nobody has asked yet which worker it is for. `hint` is
    /// the hash that its packet's connection would be found by, if it is to an address of ours or not.
    pub(crate) fn ordinary(
        &mut self,
        now: Time,
        port: PortId,
        frame: F,
        (fresh, hint): (bool, impl Fn(bool) -> u64),
        io: &mut impl Io<F>,
    ) {
        if let Some(mut pkt) = self.receive(now, port, frame, io) {
            pkt.hash = hint(pkt.dst == DstKind::Local);
            self.input(now, pkt, fresh, io);
        }
    }

    /// A packet from another worker, which found that it is this one's.
    pub(crate) fn parcel(&mut self, now: Time, parcel: Parcel<F>, io: &mut impl Io<F>) {
        if let Some(pkt) = self.read(now, parcel, io) {
            self.input(now, pkt, false, io);
        }
    }

    /// IP of either family. `fresh`: nobody has asked yet which worker it is for.
    pub(crate) fn input(&mut self, now: Time, pkt: Packet<F>, fresh: bool, io: &mut impl Io<F>) {
        match pkt.info.family {
            parse::Family::V4 => self.input_of::<V4>(now, pkt, fresh, io),
            parse::Family::V6 => self.input_of::<V6>(now, pkt, fresh, io),
        }
    }

    fn input_of<A: Tables<F>>(
        &mut self,
        now: Time,
        pkt: Packet<F>,
        fresh: bool,
        io: &mut impl Io<F>,
    ) {
        let shared = |own: &Self| own.services.enabled(A::AF) || own.gathers::<A>(&pkt);
        if fresh && self.workers > 1 && shared(self) {
            let owner = self.owner_of::<A>(&pkt);
            if owner != self.id {
                self.hand_over(owner, pkt);
                return;
            }
        }
        let Some(pkt) = self.read_options(now, pkt, io) else {
            return;
        };
        let pkt = if self.gathers::<A>(&pkt) {
            let Some(pkt) = self.route_fragment::<A>(now, pkt, io) else {
                return;
            };
            match self.gather(now, pkt, io) {
                Gather::Ended => return,
                Gather::Whole(whole) => return self.input_of::<A>(now, whole, true, io),
                Gather::AsIs(pkt) => {
                    let owner = self.owner_of_conn::<A>(&pkt);
                    if owner != self.id {
                        self.hand_over(owner, pkt);
                        return;
                    }
                    pkt
                }
            }
        } else {
            pkt
        };
        match pkt.dst {
            DstKind::Remote => self.forward::<A>(now, pkt, io),
            DstKind::Local => self.local_in::<A>(now, pkt, io),
            DstKind::Broadcast | DstKind::Multicast => self.host_takes::<A>(now, pkt, io),
        }
    }

    /// A packet to an address of ours.
    fn local_in<A: Tables<F>>(&mut self, now: Time, pkt: Packet<F>, io: &mut impl Io<F>) {
        self.heed_gre::<A>(now, &pkt);
        let passed = if !self.services.enabled(A::AF) {
            Some(pkt)
        } else if is_icmp::<A>(pkt.info.protocol) {
            if pkt.info.l4_len() < icmp::HEADER_LEN && !pkt.is_later_fragment() {
                self.discard(pkt, Drop::Truncated);
                return;
            }
            self.related_out::<A>(now, pkt, io)
                .and_then(|pkt| self.related_in::<A>(now, pkt, true, io))
        } else {
            self.request::<A>(now, pkt, false, io)
        };
        let Some(mut pkt) = passed else { return };
        if self.services.outlived(pkt.info.dst_ip()) && !self.net.is_local(pkt.info.dst_ip()) {
            // Only connections kept its address known: it is another's by now.
            pkt.dst = DstKind::Remote;
            return self.forward::<A>(now, pkt, io);
        }
        self.host_takes::<A>(now, pkt, io);
    }

    /// A packet to somebody else: routed, with IPVS having a look for replies of its servers.
    fn forward<A: Tables<F>>(&mut self, now: Time, pkt: Packet<F>, io: &mut impl Io<F>) {
        let Some((pkt, hit)) = self.route_checked(now, pkt, io) else {
            return;
        };
        let passed = if !self.services.enabled(A::AF) {
            Some(pkt)
        } else if is_icmp::<A>(pkt.info.protocol) {
            if pkt.info.l4_len() < icmp::HEADER_LEN && !pkt.is_later_fragment() {
                self.discard(pkt, Drop::Truncated);
                return;
            }
            self.related_in::<A>(now, pkt, false, io)
                .and_then(|pkt| self.related_out::<A>(now, pkt, io))
        } else {
            self.reply::<A>(now, pkt, io)
        };
        if let Some(pkt) = passed {
            self.output(now, pkt, hit, io);
        }
    }

    /// A client's packet (`ip_vs_in`): to the dest of its connection, or of a new one. `asked`: it is known not to be
    /// expected at another worker.
    pub(crate) fn request<A: Tables<F>>(
        &mut self,
        now: Time,
        pkt: Packet<F>,
        asked: bool,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        if !is_balanced(pkt.info.protocol) || pkt.is_later_fragment() {
            return Some(pkt);
        }
        let Some(key) = request_key::<A, F>(&pkt) else {
            // Nothing to schedule by (`tcp_conn_schedule` and its likes).
            return self.discard(pkt, Drop::Truncated);
        };
        let table = A::table(self);
        let hash = if pkt.hash != 0 {
            pkt.hash
        } else {
            table.hash_in(&key)
        };
        let Some(id) = table.find_in(hash, &key) else {
            if !asked && self.may_be_expected(&pkt, &key) {
                self.seek(pkt, &key);
                return None;
            }
            return self.schedule::<A>(now, pkt, &key, io);
        };
        if self.reused::<A>(id, &pkt) {
            // As the kernel's ends by a timer a moment later, the old one still counts when the new one is scheduled.
            if self.conns_left() == 0 {
                self.end_now::<A>(now, id);
                return self.schedule::<A>(now, pkt, &key, io);
            }
            let passed = self.schedule::<A>(now, pkt, &key, io);
            self.end_now::<A>(now, id);
            return passed;
        }
        let Some(path) = A::table(self).get(id).map(|record| Path::of(id, record)) else {
            return Some(pkt);
        };
        if path
            .dest
            .is_some_and(|dest| !self.services.dest(dest).is_some_and(|dest| dest.available))
        {
            // Its server was removed: the client's packets are dropped without restarting the timer, in case it comes back.
            if self.settings.expire_nodest_conn == 0 {
                return self.discard(pkt, Drop::DestGone);
            }
            self.end_now::<A>(now, id);
            return self.schedule::<A>(now, pkt, &key, io);
        }
        self.fill_cport::<A>(id, key.cport);
        self.carry::<A>(now, pkt, &path, io)
    }

    /// Sends a packet of a connection on, counts it and takes it into the connection's state.
    fn carry<A: Tables<F>>(
        &mut self,
        now: Time,
        pkt: Packet<F>,
        path: &Path<A>,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        self.account(path.dest, pkt.len(), Direction::Input);
        if let Some(id) = path.id {
            self.advance::<A>(now, id, &pkt, Direction::Input);
        }
        self.transmit_inbound(now, pkt, path, false, io)
    }

    /// Whether a packet begins a connection anew under the key of one that may end (`conn_reuse_mode`, and
    /// `expire_nodest_conn` for a dest of weight 0).
    fn reused<A: Tables<F>>(&self, id: ConnId, pkt: &Packet<F>) -> bool {
        if !state::is_new_conn(pkt.signal()) {
            return false;
        }
        let Some(record) = A::table(self).get(id) else {
            return false;
        };
        let dest = record.dest().and_then(|dest| self.services.dest(dest));
        if self.settings.expire_nodest_conn != 0 && dest.is_some_and(|dest| dest.spec.weight == 0) {
            return true;
        }
        let mode = self.settings.conn_reuse_mode;
        mode != 0 && record.control().is_none() && state::is_new_conn_expected(record, mode)
    }

    /// The first packet of a connection, if it is one that a service takes (the protocols' `conn_schedule`).
    fn schedule<A: Tables<F>>(
        &mut self,
        now: Time,
        mut pkt: Packet<F>,
        key: &Key<A>,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        if !pkt.has_transport() {
            return self.discard(pkt, Drop::Truncated);
        }
        if !self.may_begin(&pkt) {
            return Some(pkt);
        }
        let (client, vaddr) = (A::to_ip(key.caddr), A::to_ip(key.vaddr));
        let Some(service) = self
            .services
            .find(pkt.mark, pkt.info.protocol, vaddr, key.vport)
        else {
            return Some(pkt);
        };
        if self.defence.drops_packet() {
            return self.discard(pkt, Drop::DropPacket);
        }
        // Active FTP's data connections are never scheduled.
        if key.cport == FTP_DATA_PORT {
            return Some(pkt);
        }
        let mut ask = Ask {
            service,
            proto: pkt.info.protocol,
            client,
            cport: key.cport,
            vaddr,
            vport: key.vport,
            call_id: None,
            inverse: false,
            server: None,
        };
        if self
            .services
            .get(service)
            .is_some_and(|service| service.persistent() && service.spec.pe_sip)
        {
            match pkt.call_id() {
                Some(call_id) => ask.call_id = Some(call_id),
                None => return self.discard(pkt, Drop::NoCallId),
            }
        }
        self.assign::<A>(now, pkt, ask, io)
    }

    /// Has a dest chosen for a new connection: here, or at the service's chooser.
    pub(crate) fn assign<A: Tables<F>>(
        &mut self,
        now: Time,
        pkt: Packet<F>,
        ask: Ask,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        let Some(service) = self.services.get(ask.service) else {
            return Some(pkt);
        };
        let chooser = self.chooser_of(service, &ask);
        if chooser != self.id {
            self.net.counters.hold(Held::Ring);
            self.post(
                chooser,
                Msg::Choose {
                    ask,
                    parcel: pkt.into_parcel(),
                    from: self.id,
                },
            );
            return None;
        }
        match self.choose(now, &ask) {
            Decision::Made(choice) => self.begin::<A>(now, pkt, &ask, &choice, io),
            Decision::At(chooser) => {
                self.net.counters.hold(Held::Ring);
                self.have_picked(chooser, ask, pkt.into_parcel(), self.id);
                None
            }
        }
    }

    /// Makes the connection that was chosen a dest for, and sends its first packet on.
    pub(crate) fn begin<A: Tables<F>>(
        &mut self,
        now: Time,
        pkt: Packet<F>,
        ask: &Ask,
        choice: &Choice,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        match choice {
            Choice::Nobody if ask.server.is_some() => Some(pkt),
            Choice::Nobody => self.leave::<A>(now, pkt, ask, io),
            Choice::Refused(reason) => self.discard(pkt, *reason),
            Choice::Dest { .. } => match self.admit::<A>(now, ask, choice) {
                Ok(path) if ask.inverse => self.relate_in(now, pkt, &path, io),
                Ok(path) if ask.server.is_some() => self.began(now, pkt, choice, &path, io),
                Ok(path) => self.carry(now, pkt, &path, io),
                Err(reason) => self.discard(pkt, reason),
            },
        }
    }

    /// A chooser's answer about a packet of this worker's.
    pub(crate) fn chosen(
        &mut self,
        now: Time,
        ask: Ask,
        choice: Choice,
        parcel: Parcel<F>,
        io: &mut impl Io<F>,
    ) {
        self.net.counters.release(Held::Ring);
        match Af::of(ask.client) {
            Af::V4 => self.chosen_of::<V4>(now, ask, choice, parcel, io),
            Af::V6 => self.chosen_of::<V6>(now, ask, choice, parcel, io),
        }
    }

    fn chosen_of<A: Tables<F>>(
        &mut self,
        now: Time,
        ask: Ask,
        choice: Choice,
        parcel: Parcel<F>,
        io: &mut impl Io<F>,
    ) {
        let Some(pkt) = self.read(now, parcel, io) else {
            self.unchoose(now, &choice, A::IS_V6);
            return;
        };
        if ask.server.is_some() {
            self.chosen_for_server::<A>(now, pkt, &ask, &choice, io);
            return;
        }
        // One that is to be begun anew may still be there: an FTP control connection with data connections.
        let known = self
            .find_in(&ask.key::<A>())
            .is_some_and(|id| ask.inverse || !self.reused::<A>(id, &pkt));
        let passed = if known {
            // An earlier packet of the same connection was answered first.
            self.unchoose(now, &choice, A::IS_V6);
            if ask.inverse {
                self.related_in::<A>(now, pkt, true, io)
            } else {
                self.request::<A>(now, pkt, false, io)
            }
        } else {
            self.begin::<A>(now, pkt, &ask, &choice, io)
        };
        if let Some(pkt) = passed {
            self.host_takes::<A>(now, pkt, io);
        }
    }

    /// No dest can be had (`ip_vs_leave`): a marked packet may go on to its own destination, the sender of any other is told.
    fn leave<A: Tables<F>>(
        &mut self,
        now: Time,
        pkt: Packet<F>,
        ask: &Ask,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        let service = self.services.get(ask.service);
        let marked = service.is_some_and(|service| service.mark().is_some());
        let own_port = service.map_or(0, |service| service.port());
        if self.settings.cache_bypass != 0 && marked && !self.net.is_local(ask.vaddr) {
            return match self.admit_bypass::<A>(now, ask) {
                Ok(path) => self.carry(now, pkt, &path, io),
                Err(reason) => self.discard(pkt, reason),
            };
        }
        // What is for another port of an FTP service's address is not for IPVS to refuse.
        if own_port == FTP_PORT && ask.vport != own_port {
            return Some(pkt);
        }
        self.refuse(now, pkt, IcmpKind::PortUnreachable, Drop::NoDest, io)
    }

    /// A packet that is routed: a dest's reply becomes the virtual service's (`ip_vs_out`).
    pub(crate) fn reply<A: Tables<F>>(
        &mut self,
        now: Time,
        mut pkt: Packet<F>,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        if !is_balanced(pkt.info.protocol) || pkt.is_later_fragment() {
            return Some(pkt);
        }
        let Some(key) = answer_key::<A, F>(&pkt) else {
            return Some(pkt);
        };
        let table = A::table(self);
        let hash = if pkt.hash != 0 {
            pkt.hash
        } else {
            table.hash_out(&key)
        };
        let found = table
            .find_out(hash, &key)
            .and_then(|id| Some(Path::of(id, A::table(self).get(id)?)));
        let Some(path) = found else {
            return match self.own_request::<A>(&mut pkt, &key) {
                Some(ask) => self.assign::<A>(now, pkt, ask, io),
                None => self.stray::<A>(now, pkt, &key, io),
            };
        };
        self.send_answer(now, pkt, &path, &key, io)
    }

    /// Sends a server's packet of a connection on to the client, as the virtual service's.
    pub(crate) fn send_answer<A: Tables<F>>(
        &mut self,
        now: Time,
        mut pkt: Packet<F>,
        path: &Path<A>,
        key: &OutKey<A>,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        let old = End {
            addr: key.saddr,
            port: key.sport,
        };
        let expected = match path.forward {
            Forward::Masq => self.translate_conn(&mut pkt, path, Side::Source, old, path.virt),
            // What a server answers in the service's name passes as it is (`handle_response`).
            _ => Ok(None),
        };
        let expected = match expected {
            Ok(expected) => expected,
            Err(reason) => return self.discard(pkt, reason),
        };
        self.account(path.dest, pkt.len(), Direction::Output);
        if let Some(id) = path.id {
            self.advance::<A>(now, id, &pkt, Direction::Output);
        }
        match expected {
            Some(expected) => self.announce_reply(now, expected, pkt, path, key.saddr, io),
            None => self.send_reply::<A>(now, pkt, path, key.saddr, io),
        }
    }

    /// A real server's packet that belongs to no connection: with `nat_icmp_send` the server is told, unless it is a reset.
    fn stray<A: Tables<F>>(
        &mut self,
        now: Time,
        pkt: Packet<F>,
        key: &OutKey<A>,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        let known = self.settings.nat_icmp_send != 0
            && matches!(pkt.info.protocol, proto::TCP | proto::UDP | proto::SCTP)
            && self
                .services
                .real_server(pkt.info.protocol, A::to_ip(key.saddr), key.sport)
                .is_some();
        if !known || pkt.is_reset() {
            return Some(pkt);
        }
        self.refuse(now, pkt, IcmpKind::PortUnreachable, Drop::NoConn, io)
    }

    /// Whether a segment with these flags may begin a connection.
    pub(crate) fn may_begin_tcp(&self, flags: u8) -> bool {
        flags & state::tcp::RST == 0
            && (flags & state::tcp::SYN != 0 || self.settings.sloppy_tcp != 0)
    }

    /// Whether a packet of no known connection may begin one: SYN without RST, INIT, any UDP; with the sloppy settings any
    /// that does not end one. ESP and AH only follow.
    fn may_begin(&self, pkt: &Packet<F>) -> bool {
        match pkt.signal() {
            state::Signal::Tcp(flags) => self.may_begin_tcp(flags),
            state::Signal::Sctp(_) => match pkt.sctp_chunk() {
                Some(sctp::chunk::INIT) => true,
                Some(sctp::chunk::ABORT) | None => false,
                Some(_) => self.settings.sloppy_sctp != 0,
            },
            state::Signal::Udp => true,
            state::Signal::Other => false,
        }
    }
}

/// Whether a protocol is the family's ICMP.
fn is_icmp<A: Ip>(protocol: u8) -> bool {
    protocol
        == match A::AF {
            Af::V4 => proto::ICMP,
            Af::V6 => proto::ICMPV6,
        }
}

/// The key of a client's packet.
fn request_key<A: Ip, F: Frame>(pkt: &Packet<F>) -> Option<Key<A>> {
    let (cport, vport) = pkt.ports()?;
    Some(Key {
        proto: keyed(pkt.info.protocol),
        caddr: A::addr(pkt.ip(), A::SRC),
        cport,
        vaddr: A::addr(pkt.ip(), A::DST),
        vport,
    })
}

/// The key of a server's packet.
pub(crate) fn answer_key<A: Ip, F: Frame>(pkt: &Packet<F>) -> Option<OutKey<A>> {
    let (sport, dport) = pkt.ports()?;
    Some(OutKey {
        proto: keyed(pkt.info.protocol),
        saddr: A::addr(pkt.ip(), A::SRC),
        sport,
        caddr: A::addr(pkt.ip(), A::DST),
        cport: dport,
    })
}

/// The protocol that a packet's connection is under: ESP and AH follow the client's ISAKMP connection.
fn keyed(protocol: u8) -> u8 {
    match protocol {
        proto::ESP | proto::AH => proto::UDP,
        other => other,
    }
}
