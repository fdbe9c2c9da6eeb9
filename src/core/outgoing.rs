//! Requests that servers begin themselves: under a service with the persistence engine `sip` they become connections of the
//! virtual service, so that the answers find the way back.
//!
//! Follows `__ip_vs_rs_conn_out` and `ip_vs_new_conn_out` (net/netfilter/ipvs/ip_vs_core.c): UDP only, from the address and
//! port of a NAT dest, with the Call-ID by which its service persists. Under one-packet scheduling replies go this way too.

use ripvs_packet::Frame;

use crate::conn::OutKey;
use crate::datapath::{answer_key, Passed};
use crate::flow::Path;
use crate::message::{Ask, Choice};
use crate::packet::Packet;
use crate::spec::ServiceKey;
use crate::types::{proto, Time};
use crate::verdict::Drop;
use crate::worker::{Io, Tables, Worker};

impl<F: Frame> Worker<F> {
    /// What to ask for about a packet of no known connection, if a server begins one with it.
    pub(crate) fn own_request<A: Tables<F>>(
        &self,
        pkt: &mut Packet<F>,
        key: &OutKey<A>,
    ) -> Option<Ask> {
        if pkt.info.protocol != proto::UDP || !self.services.has_engines() || key.sport == 0 {
            return None;
        }
        let server = self
            .services
            .real_server(proto::UDP, A::to_ip(key.saddr), key.sport)?;
        let id = self.services.dest(server)?.service;
        let service = self.services.get(id).filter(|own| own.spec.pe_sip)?;
        let ServiceKey::Addr { addr, port, .. } = service.spec.key else {
            return None;
        };
        if port == 0 {
            return None;
        }
        let call_id = match service.persistent() {
            true => Some(pkt.call_id()?),
            false => None,
        };
        Some(Ask {
            service: id,
            proto: proto::UDP,
            client: A::to_ip(key.caddr),
            cport: key.cport,
            vaddr: addr,
            vport: port,
            call_id,
            inverse: false,
            server: Some(server),
        })
    }

    /// Sends the packet on by which a server began a connection. Without a record (one-packet scheduling) it is its
    /// template that is assured.
    pub(crate) fn began<A: Tables<F>>(
        &mut self,
        now: Time,
        pkt: Packet<F>,
        choice: &Choice,
        path: &Path<A>,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        let control = match choice {
            Choice::Dest { control, .. } => *control,
            _ => None,
        };
        if let Some(control) = control.filter(|_| path.id.is_none()) {
            self.assure::<A>(control);
        }
        match answer_key::<A, F>(&pkt) {
            Some(key) => self.send_answer(now, pkt, path, &key, io),
            None => self.discard(pkt, Drop::Truncated),
        }
    }

    /// A chooser's answer about a packet by which a server begins a connection.
    pub(crate) fn chosen_for_server<A: Tables<F>>(
        &mut self,
        now: Time,
        pkt: Packet<F>,
        ask: &Ask,
        choice: &Choice,
        io: &mut impl Io<F>,
    ) {
        let known = answer_key::<A, F>(&pkt).is_some_and(|key| self.find_out(&key).is_some());
        let passed = if known {
            // An earlier packet of the same connection was answered first.
            self.unchoose(now, choice, A::IS_V6);
            self.reply::<A>(now, pkt, io)
        } else {
            self.begin::<A>(now, pkt, ask, choice, io)
        };
        let Some(pkt) = passed else { return };
        match self.net.route(pkt.info.dst_ip(), None) {
            Some(hit) if hit.local => self.host_takes::<A>(now, pkt, io),
            Some(hit) => {
                self.output(now, pkt, hit, io);
            }
            None => {
                self.discard(pkt, Drop::NoRoute);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ripvs_packet::testing::build::{ethernet, Ip};

    use crate::spec::{service_flags, Forward};
    use crate::testing::{mac, Rig};
    use crate::types::proto;

    fn invite(port: u16, from: (&str, u16), to: (&str, u16), call_id: &str) -> Vec<u8> {
        let text = format!("INVITE sip:a SIP/2.0\r\nCall-ID: {call_id}\r\n\r\n");
        let header = Ip::new(from.0.parse().unwrap(), to.0.parse().unwrap());
        let packet = header.udp((from.1, to.1), text.as_bytes());
        ethernet(mac(port), [2, 0, 0, 0, 9, 9], &packet)
    }

    /// Source and destination of an IPv4 UDP packet in a frame.
    fn ends(frame: &[u8]) -> ([u8; 4], u16, [u8; 4], u16) {
        let addr = |at: usize| [frame[at], frame[at + 1], frame[at + 2], frame[at + 3]];
        let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        (addr(26), port(34), addr(30), port(36))
    }

    #[test]
    fn a_server_s_own_request_becomes_the_service_s_and_its_answer_comes_back_to_it() {
        for (workers, one_packet) in [(1, false), (3, false), (7, false), (3, true)] {
            let mut rig = Rig::new(workers);
            let mut spec = Rig::persistent(proto::UDP, "192.0.2.100", 5060, 60);
            spec.pe_sip = true;
            if one_packet {
                spec.flags |= service_flags::ONE_PACKET;
            }
            let service = rig.service_as(spec);
            let first = rig.dest(service, "10.0.0.11", 5060, Forward::Masq);
            rig.dest(service, "10.0.0.12", 5060, Forward::Masq);
            for client in 1..8u8 {
                let addr = format!("198.18.0.{client}");
                let call_id = format!("call{client}@x");
                let out = invite(1, ("10.0.0.11", 5060), (&addr, 5062), &call_id);
                for _ in 0..2 {
                    let sent = rig.send(1, &out);
                    let client = [198, 18, 0, client];
                    assert_eq!(ends(&sent[0].1), ([192, 0, 2, 100], 5060, client, 5062));
                }
                let back = invite(0, (&addr, 5062), ("192.0.2.100", 5060), &call_id);
                let sent = rig.send(0, &back);
                assert_eq!(ends(&sent[0].1).2, [10, 0, 0, 11], "{workers} workers");
            }
            let conns = rig.conns();
            let templates = conns.iter().filter(|conn| conn.state == "ASSURED").count();
            let expected = if one_packet { (7, 7) } else { (14, 7) };
            assert_eq!((conns.len(), templates), expected);
            // Nothing by which it persists, no server of a service, another port: routed as it is.
            for (from, call_id) in [
                (("10.0.0.11", 5060), ""),
                (("10.0.0.13", 5060), "a@x"),
                (("10.0.0.12", 5061), "a@x"),
            ] {
                let sent = rig.send(1, &invite(1, from, ("198.18.0.9", 5062), call_id));
                assert_eq!(ends(&sent[0].1).1, from.1);
                assert_eq!(ends(&sent[0].1).0[0], 10);
            }
            rig.wait(400);
            assert!(rig.conns().is_empty());
            let tally = rig.tally(first);
            assert_eq!((tally.inactive, tally.persistent, tally.refs), (0, 0, 0));
        }
    }
}
