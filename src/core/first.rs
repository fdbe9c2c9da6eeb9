//! First packets on the express way: where nothing about one or its service is out of the ordinary, its connection is made
//! here, and the packet goes on as one of a known connection. Whatever is unusual is left to `datapath.rs`, untouched, which
//! tells the same at length: `schedule`, `choose`, `admit`.

use std::net::IpAddr;

use ripvs_packet::Frame;

use crate::choose::Decision;
use crate::conn::{ConnId, Control, Flags, Key, NewConn};
use crate::hop::HopNumber;
use crate::message::{Ask, Choice, Load};
use crate::sched::PickKey;
use crate::service::FTP_DATA_PORT;
use crate::state::{self, Signal};
use crate::types::{proto, DestId, ServiceId, Time};
use crate::worker::{Tables, Worker};

/// The dest of a new connection, and the template that it was found by.
struct Found {
    id: DestId,
    addr: IpAddr,
    port: u16,
    control: Option<Control>,
}

impl<F: Frame> Worker<F> {
    /// Makes the connection of a plain packet to a virtual address that is of no connection so far; `hash` is that of its key.
    /// Once there is one the packet is of a known connection, whichever way it goes. `None`: nothing was changed.
    /// Replies find it after [`crate::conn::ConnTable::admit_late`].
    pub(crate) fn open<A: Tables<F>>(
        &mut self,
        now: Time,
        key: &Key<A>,
        hash: u64,
        signal: Signal,
    ) -> Option<ConnId> {
        let (client, vaddr) = (A::to_ip(key.caddr), A::to_ip(key.vaddr));
        let id = self.services.find(0, key.proto, vaddr, key.vport)?;
        if !self.opens_plainly::<A>(key, signal) || !self.net.admits(client, vaddr) {
            return None;
        }
        let service = self.services.get_mut(id)?;
        if service.plain_port != Some(key.vport) || !service.group.pool().has_available() {
            return None;
        }
        let Found {
            id: dest_id,
            addr,
            port,
            control,
        } = match service.persistent() {
            true => self.keep::<A>(now, id, key)?,
            false => {
                let member = service.group.pick(&PickKey {
                    saddr: client,
                    daddr: vaddr,
                    sport: key.cport,
                    dport: key.vport,
                    proto: key.proto,
                    inverse: false,
                    now,
                })?;
                Found {
                    id: member.id,
                    addr: member.addr,
                    port: member.port,
                    control: None,
                }
            }
        };
        let dest = self.services.dest(dest_id)?;
        let tally = self.services.ledger().dest(dest_id)?;
        if self.services.ledger().is_large() {
            self.hops.prefetch(tally.hop());
        }
        let flags = Flags::of_forward(dest.forward);
        let secure = self.defence.secure_tcp();
        let new = NewConn {
            dest: Some(dest_id),
            service: Some(id),
            control,
            chooser: self.id,
            timeout: state::first_timeout(flags, signal, &self.timeouts, secure),
            hop_in: tally.hop().0,
            ..NewConn::new(
                *key,
                A::from_ip(addr).unwrap_or_default(),
                if port != 0 { port } else { key.vport },
                flags,
            )
        };
        self.total.conn();
        tally.conn();
        tally.inactive(1);
        tally.refs(1);
        // What is kept by a template was charged with it.
        if control.is_none() {
            self.services.charge(Load {
                dest: dest_id,
                active: 0,
                inactive: 1,
                bound: Some(true),
            });
        }
        self.services.foresee_pick(id);
        if self.services.ledger().is_large() {
            // The way has come by now.
            if let Some(neigh) = self.hops.neigh(HopNumber(new.hop_in)) {
                self.net.prefetch_neigh(neigh);
            }
        }
        // There is room, as was seen above.
        A::table_mut(self).insert_late(now.tick(), &new, hash).ok()
    }

    /// The dest that a client of a persistent service keeps, or that is picked for it now. It is charged with the connection,
    /// and so is its template. `None` where another worker has to say, or nothing can be had.
    fn keep<A: Tables<F>>(&mut self, now: Time, id: ServiceId, key: &Key<A>) -> Option<Found> {
        let ask = Ask {
            service: id,
            proto: key.proto,
            client: A::to_ip(key.caddr),
            cport: key.cport,
            vaddr: A::to_ip(key.vaddr),
            vport: key.vport,
            call_id: None,
            inverse: false,
            server: None,
        };
        let service = self.services.get(id)?;
        // Room for a template and for the connection.
        if self.conns_left() < 2 || self.chooser_of(service, &ask) != self.id {
            return None;
        }
        // A template may lead to a dest of weight 0. Should the packet go the ordinary way after all, its connection would be
        // taken for an older one there, which is to be begun anew.
        if self.settings.expire_nodest_conn != 0 {
            return None;
        }
        let Decision::Made(Choice::Dest { id, control, .. }) = self.choose(now, &ask) else {
            return None;
        };
        let spec = &self.services.dest(id)?.spec;
        Some(Found {
            id,
            addr: spec.addr,
            port: spec.port,
            control: control.map(|at| Control {
                worker: at.worker,
                id: at.id,
            }),
        })
    }

    /// Whether a connection of this key may begin with this packet as far as it is not for its service to say, and nothing is
    /// set that has a say in it.
    fn opens_plainly<A: Tables<F>>(&self, key: &Key<A>, signal: Signal) -> bool {
        let begins = match signal {
            Signal::Tcp(flags) => self.may_begin_tcp(flags) && !self.ftp.is_on(),
            _ => key.proto == proto::UDP,
        };
        begins
            && key.cport != 0
            && key.cport != FTP_DATA_PORT
            && !self.defence.drops_packets()
            && A::table(self).all_exact()
            && self.conns_left() > 0
            // What is to an address of services that are gone was not asked for its owner.
            && (self.workers == 1 || !self.services.any_outlived())
    }
}

#[cfg(test)]
mod tests {
    use ripvs_packet::memory::MemFrame;
    use ripvs_packet::testing::build::{ethernet, Ip};
    use ripvs_packet::testing::{Fuzz, World};

    use super::*;
    use crate::delta::Delta;
    use crate::mark::{MarkRule, MarkTable};
    use crate::settings::Settings;
    use crate::spec::{service_flags, Forward, SchedKind};
    use crate::testing::{mac, Rig};

    /// Services of most kinds, with the dests of each. `by_mark`: there is a rule for marks, if one that fits no packet, so
    /// that all packets go the ordinary way.
    fn rig(workers: u16, by_mark: bool, settings: Settings) -> (Rig, Vec<DestId>) {
        let mut rig = Rig::new(workers);
        if by_mark {
            let rule = MarkRule {
                mark: 7,
                af: None,
                proto: Some(99),
                source: None,
                destination: None,
                source_ports: Vec::new(),
                destination_ports: Vec::new(),
                iface: None,
                divert: false,
            };
            rig.apply(Delta::Marks(MarkTable::new(vec![rule]).into()));
        }
        rig.apply(Delta::Settings(settings));
        let mut dests = Vec::new();
        let families = [
            ("192.0.2.100", ["10.0.0.11", "10.0.0.12", "10.0.0.13"]),
            (
                "2001:db8:2::100",
                ["2001:db8:10::b", "2001:db8:10::c", "2001:db8:10::d"],
            ),
        ];
        for (n, (addr, servers)) in families.into_iter().enumerate() {
            let kinds = [
                (proto::TCP, 80, Forward::Masq, SchedKind::Rr),
                (proto::TCP, 21, Forward::Masq, SchedKind::Wlc),
                (proto::UDP, 53, Forward::Route, SchedKind::Wrr),
                (proto::UDP, 80, Forward::Masq, SchedKind::Sh),
                (proto::TCP, 53, Forward::Tunnel, SchedKind::Lc),
                (proto::UDP, 21, Forward::Tunnel, SchedKind::Ovf),
                (proto::UDP, 0, Forward::Route, SchedKind::Rr),
            ];
            for (number, (protocol, port, forward, sched)) in kinds.into_iter().enumerate() {
                let mut spec = Rig::persistent(protocol, addr, port, 30);
                spec.sched = Some(sched);
                spec.flags = match number {
                    1 | 6 => service_flags::PERSISTENT,
                    // Each of them with persistence in one family only.
                    0 | 2 if n == 0 => service_flags::PERSISTENT,
                    3 | 4 if n == 1 => service_flags::PERSISTENT,
                    5 if n == 1 => service_flags::ONE_PACKET,
                    _ => 0,
                };
                let service = rig.service_as(spec);
                for (n, server) in servers.into_iter().enumerate() {
                    let mut spec = Rig::dest_spec(server, 8080, forward);
                    spec.weight = 2 - n as i32;
                    // Few enough that all are taken now and then.
                    spec.upper = if port == 53 { 3 } else { 0 };
                    dests.push(rig.dest_as(service, spec));
                }
            }
        }
        (rig, dests)
    }

    /// Everything that is seen of a balancer after the same packets, its connections' order aside.
    fn seen(rig: &Rig, dests: &[DestId]) -> Vec<String> {
        let mut conns: Vec<String> = rig.conns().iter().map(|c| format!("{c:?}")).collect();
        conns.sort();
        let dest = |id: &DestId| format!("{:?} {:?}", rig.tally(*id), rig.loads(*id));
        conns.extend(dests.iter().map(dest));
        if rig.is_alone() {
            // Several workers ask for neighbours as it happens.
            conns.push(format!("{:?}", rig.counters()));
        }
        conns
    }

    #[test]
    fn connections_begin_the_same_on_either_way() {
        let all = Settings::default();
        let settings = [
            all,
            Settings {
                sloppy_tcp: 1,
                conn_reuse_mode: 0,
                ..all
            },
            Settings {
                drop_packet: 3,
                am_droprate: 3,
                expire_nodest_conn: 1,
                secure_tcp: 3,
                ..all
            },
        ];
        for (seed, settings) in settings.into_iter().enumerate() {
            for workers in [1, 3] {
                let (mut express, dests) = rig(workers, false, settings);
                let (mut ordinary, _) = rig(workers, true, settings);
                let mut fuzz = Fuzz::new(seed as u64, World::small());
                let mut begun = 0;
                for n in 0..3_000 {
                    let port = n % 2;
                    let mut frame = || {
                        // IPv4 options are left out: into some goes the time of day.
                        let options = |frame: &[u8], at| {
                            let first: Option<&u8> = frame.get(at);
                            first.is_some_and(|first| (0x46..0x50).contains(first))
                        };
                        let mut frame = fuzz.next_frame();
                        while options(&frame, 14) || options(&frame, 18) {
                            frame = fuzz.next_frame();
                        }
                        if port == 1 && frame.len() >= 6 {
                            frame[5] = mac(1)[5];
                        }
                        frame
                    };
                    // What is handed over by bursts arrives in another order.
                    let frames = if express.is_alone() { 1 + n % 5 } else { 1 };
                    let burst: Vec<Vec<u8>> = (0..frames).map(|_| frame()).collect();
                    let [mut one, mut other] = [&mut express, &mut ordinary].map(|rig| {
                        let frames = burst.iter().map(|frame| MemFrame::new(frame)).collect();
                        rig.send_burst(port, frames)
                    });
                    if !express.is_alone() {
                        // Each worker numbers by itself the packets that it makes.
                        for (_, frame) in one.iter_mut().chain(&mut other) {
                            frame.truncate(14);
                        }
                    }
                    assert_eq!(one, other, "burst {n}");
                    if n % 100 == 0 {
                        let both = [&express, &ordinary].map(|rig| seen(rig, &dests));
                        for (one, other) in both[0].iter().zip(&both[1]) {
                            assert_eq!(one, other, "burst {n}");
                        }
                        assert_eq!(both[0].len(), both[1].len());
                        begun += express.conns().len();
                        let seconds = u64::from(n) / 100 % 5;
                        express.wait(seconds);
                        ordinary.wait(seconds);
                    }
                }
                assert!(begun > 1000, "{begun}");
            }
        }
    }

    /// A first packet from a client to 192.0.2.100, or to another address of that network.
    fn packet(protocol: u8, client: (&str, u16), to: (u8, u16)) -> Vec<u8> {
        let header = Ip::new(client.0.parse().unwrap(), [192, 0, 2, to.0].into());
        let packet = match protocol {
            proto::TCP => header.tcp((client.1, to.1), 0x02, 1000, 0, &[]),
            _ => header.udp((client.1, to.1), &[7; 18]),
        };
        ethernet(mac(0), [2, 0, 0, 0, 9, 9], &packet)
    }

    #[test]
    fn a_first_packet_that_a_quiesced_dest_keeps_is_counted_once() {
        let mut rig = Rig::new(1);
        let service = rig.service_as(Rig::persistent(proto::TCP, "192.0.2.100", 80, 300));
        let dest = rig.dest(service, "10.0.0.11", 80, Forward::Masq);
        let syn = |port| packet(proto::TCP, ("198.18.0.1", port), (100, 80));
        rig.send(0, &syn(1000));
        rig.dest(service, "10.0.0.12", 80, Forward::Masq);
        let mut quiet = Rig::dest_spec("10.0.0.11", 80, Forward::Masq);
        quiet.weight = 0;
        rig.apply(Delta::DestEdit {
            id: dest,
            spec: quiet.into(),
        });
        // This also has the ways be looked up again, which is for the ordinary way.
        rig.apply(Delta::Settings(Settings {
            expire_nodest_conn: 1,
            ..Settings::default()
        }));
        rig.send(0, &syn(1001));
        assert_eq!(rig.tally(dest).conns, 2);
    }

    #[test]
    fn a_template_may_be_given_up_behind_a_connection_whose_replies_are_still_to_find_it() {
        let mut rig = Rig::new(1);
        let service = rig.service_as(Rig::persistent(proto::UDP, "192.0.2.100", 53, 300));
        let one = rig.dest(service, "10.0.0.11", 53, Forward::Masq);
        let plain = rig.service(proto::UDP, "192.0.2.100", 80, SchedKind::Rr);
        rig.dest(plain, "10.0.0.13", 80, Forward::Masq);
        let to = |client, port, vport| packet(proto::UDP, (client, port), (100, vport));
        rig.send(0, &to("198.18.0.1", 1000, 53));
        rig.dest(service, "10.0.0.12", 53, Forward::Masq);
        rig.apply(Delta::DestRemove { id: one });
        // The ways become known.
        rig.send(0, &to("198.18.0.5", 1000, 80));
        rig.send(0, &to("198.18.0.5", 1000, 53));
        let burst = [to("198.18.0.2", 1000, 80), to("198.18.0.1", 1001, 53)];
        let frames = burst.iter().map(|frame| MemFrame::new(frame)).collect();
        assert_eq!(rig.send_burst(0, frames).len(), 2);
    }

    #[test]
    fn a_reply_finds_the_newest_connection_of_its_burst_whatever_came_between() {
        for (persistent, together) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut rig = Rig::new(1);
            for vip in ["192.0.2.100", "192.0.2.101"] {
                let service = rig.service(proto::UDP, vip, 80, SchedKind::Rr);
                rig.dest(service, "10.0.0.11", 80, Forward::Masq);
            }
            let between = match persistent {
                true => rig.service_as(Rig::persistent(proto::UDP, "192.0.2.100", 53, 300)),
                false => rig.service(proto::UDP, "192.0.2.100", 53, SchedKind::Rr),
            };
            rig.dest(between, "10.0.0.12", 53, Forward::Route);
            let reply = {
                let header = Ip::new([10, 0, 0, 11].into(), [198, 18, 0, 1].into());
                ethernet(
                    mac(0),
                    [2, 0, 0, 0, 9, 9],
                    &header.udp((80, 1000), &[7; 18]),
                )
            };
            let client = ("198.18.0.1", 1000);
            let earlier = [
                // The ways become known.
                packet(proto::UDP, ("198.18.0.9", 1), (100, 53)),
                packet(proto::UDP, ("198.18.0.9", 1), (101, 80)),
                packet(proto::UDP, client, (100, 80)),
                reply.clone(),
            ];
            for frame in &earlier {
                rig.send(0, frame);
            }
            let burst = [
                packet(proto::UDP, client, (101, 80)),
                packet(proto::UDP, ("198.18.0.3", 1000), (100, 53)),
                reply,
            ];
            let sent: Vec<_> = match together {
                true => rig.send_burst(0, burst.iter().map(|f| MemFrame::new(f)).collect()),
                false => burst.iter().flat_map(|frame| rig.send(0, frame)).collect(),
            };
            let source = &sent[2].1[26..30];
            assert_eq!(source, [192, 0, 2, 101], "{persistent} {together}");
        }
    }
}
