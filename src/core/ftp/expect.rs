//! Data connections to come. With one worker they are records like others, put into the table before they are heard of.
//! With several a record is put where its packets will be looked for: one from the server (active mode) at the owner of the
//! client's address and port, which are known; one from a client's port that is not known yet (passive mode) at a worker
//! that follows from the client's address, which the owner of the SYN asks.
//!
//! The packet that announces a data connection takes the same way, and leaves when the connection is expected: the other
//! side may answer at once. The worker that counts for the server's scheduling is told on the way, before anything can be
//! reported to it about the connection. Each record is counted at its control connection, which lives while it does.

use std::net::IpAddr;

use ripvs_packet::Frame;

use crate::conn::{Control, Flags, Key, NewConn, OutKey};
use crate::datapath::Passed;
use crate::family::{V4, V6};
use crate::message::{DataConn, Departing, Expected, ExpectedStage, Load, Msg, Parcel};
use crate::net::Outgoing;
use crate::packet::Packet;
use crate::rewrite::End;
use crate::spec::Forward;
use crate::state::{self, Signal};
use crate::types::{proto, Af, Time, WorkerId};
use crate::verdict::{Drop, Held, Verdict};
use crate::worker::{Io, Tables, Worker};

impl<F: Frame> Worker<F> {
    /// Sends a packet that announces a data connection on to `to`, as soon as that is expected. `from`: its source, where
    /// routes go by it. Hands it back where it is for the balancer itself.
    pub(crate) fn announce(
        &mut self,
        now: Time,
        mut expected: Expected<F>,
        pkt: Packet<F>,
        to: IpAddr,
        from: Option<IpAddr>,
        io: &mut impl Io<F>,
    ) -> Passed<F> {
        if self.net.route(to, from).is_some_and(|hit| hit.local) {
            self.expect(now, expected, io);
            return Some(pkt);
        }
        self.net.counters.hold(Held::Ring);
        expected.packet = Some(Departing {
            frame: pkt.frame,
            l3: pkt.l3,
            pieces: pkt.pieces,
            carried: pkt.carried,
            to,
            from,
        });
        self.expect(now, expected, io);
        None
    }

    /// Brings an announced data connection a step further, here or at the worker whose turn it is.
    pub(crate) fn expect(&mut self, now: Time, expected: Expected<F>, io: &mut impl Io<F>) {
        match Af::of(expected.data.client.0) {
            Af::V4 => self.expect_of::<V4>(now, expected, io),
            Af::V6 => self.expect_of::<V6>(now, expected, io),
        }
    }

    fn expect_of<A: Tables<F>>(
        &mut self,
        now: Time,
        mut expected: Expected<F>,
        io: &mut impl Io<F>,
    ) {
        loop {
            let turn = expected.turn();
            if turn != self.id {
                self.post(turn, Msg::Expect(expected));
                return;
            }
            let data = expected.data;
            match expected.stage {
                ExpectedStage::Find => {
                    if self.listen_again::<A>(now, &expected) {
                        self.uncontrol(now, data.control, A::IS_V6, false);
                        break;
                    }
                    expected.stage = ExpectedStage::Charge;
                }
                ExpectedStage::Charge => {
                    if let Some(dest) = data.dest {
                        self.services.charge(Load {
                            dest,
                            active: 0,
                            inactive: 1,
                            bound: Some(true),
                        });
                    }
                    expected.stage = ExpectedStage::Insert;
                }
                ExpectedStage::Insert => {
                    if self.listen_again::<A>(now, &expected) {
                        // Another packet announced it meanwhile.
                        self.withdraw::<A>(now, &data);
                    } else if self.listen::<A>(now, &data, expected.open) {
                        self.count_in(&data);
                    } else {
                        self.withdraw::<A>(now, &data);
                        self.give_up(expected.packet.take());
                    }
                    break;
                }
            }
        }
        if let Some(packet) = expected.packet {
            self.depart(now, packet, io);
        }
    }

    /// Drops a packet that announces what there is no room for: sent again, it may find some.
    fn give_up(&mut self, packet: Option<Departing<F>>) {
        if packet.is_some() {
            let counters = &mut self.net.counters;
            counters.release(Held::Ring);
            counters.done(Verdict::Dropped(Drop::ConnTableFull));
        }
    }

    /// Lets a packet go that waited for what it announces.
    fn depart(&mut self, now: Time, packet: Departing<F>, io: &mut impl Io<F>) {
        self.net.counters.release(Held::Ring);
        let Some(hit) = self.net.route(packet.to, packet.from) else {
            self.net.counters.done(Verdict::Dropped(Drop::NoRoute));
            return;
        };
        let outgoing = Outgoing {
            frame: packet.frame,
            l3: packet.l3,
            pieces: packet.pieces.as_ref(),
            force: packet.carried,
            verdict: Verdict::Forwarded,
        };
        self.net.send_or_drop(now, outgoing, &hit, io);
    }

    /// The virtual end of a data connection that is expected already, as far as this worker knows.
    pub(super) fn known_virtual<A: Tables<F>>(
        &self,
        client: End<A>,
        server: End<A>,
    ) -> Option<End<A>> {
        let id = self.find_out(&OutKey::<A> {
            proto: proto::TCP,
            saddr: server.addr,
            sport: server.port,
            caddr: client.addr,
            cport: client.port,
        })?;
        let record = A::table(self).get(id)?;
        Some(End {
            addr: record.vaddr(),
            port: record.vport(),
        })
    }

    /// Lets a data connection that is known already be expected anew. False if there is none.
    fn listen_again<A: Tables<F>>(&mut self, now: Time, expected: &Expected<F>) -> bool {
        let Some(key) = expected.data.key::<A>() else {
            return false;
        };
        let found = if expected.open {
            let server = expected.data.server;
            A::from_ip(server.0).and_then(|saddr| {
                self.find_out(&OutKey::<A> {
                    proto: proto::TCP,
                    saddr,
                    sport: server.1,
                    caddr: key.caddr,
                    cport: 0,
                })
            })
        } else {
            self.find_in(&key)
        };
        let timeout = self.timeouts.timeout(proto::TCP, state::tcp::LISTEN);
        let Some((id, record)) = found.and_then(|id| Some((id, A::table_mut(self).get_mut(id)?)))
        else {
            return false;
        };
        // Whether it counts as active is left as it was, as the kernel does: its next packet settles that.
        record.state = state::tcp::LISTEN;
        record.timeout = timeout;
        A::table_mut(self).touch(id, now.tick());
        true
    }

    /// Makes the record of a data connection; `open`: its client's port is not known yet. False if there is no room.
    fn listen<A: Tables<F>>(&mut self, now: Time, data: &DataConn, open: bool) -> bool {
        let (Some(key), Some(daddr)) = (data.key::<A>(), A::from_ip(data.server.0)) else {
            return false;
        };
        if self.conns_left() == 0 {
            return false;
        }
        let dest = data.dest.and_then(|dest| self.services.dest(dest));
        let forward = dest.map_or(Forward::Masq, |dest| dest.spec.forward);
        let mut flags = Flags::of_forward(forward).with(Flags::DATA);
        if open {
            flags = flags.with(Flags::NO_CPORT);
        }
        let new = NewConn {
            dest: data.dest,
            service: data.service,
            state: state::tcp::LISTEN,
            timeout: self.timeouts.timeout(proto::TCP, state::tcp::LISTEN),
            control: Some(Control {
                worker: data.control.worker,
                id: data.control.id,
            }),
            chooser: data.chooser,
            ..NewConn::new(key, daddr, data.server.1, flags)
        };
        A::table_mut(self).insert(now.tick(), &new).is_ok()
    }

    /// Counts a new data connection among its server's. It is not one that was scheduled, so those are not counted up.
    fn count_in(&self, data: &DataConn) {
        let ledger = self.services.ledger();
        if let Some(tally) = data.dest.and_then(|dest| ledger.dest(dest)) {
            tally.inactive(1);
            tally.refs(1);
        }
    }

    /// Takes back what was counted of a data connection that came to nothing.
    fn withdraw<A: Tables<F>>(&mut self, now: Time, data: &DataConn) {
        if let Some(dest) = data.dest {
            self.report_load(data.chooser, dest, 0, -1, true);
        }
        self.uncontrol(now, data.control, A::IS_V6, false);
    }

    /// Whether a packet of no known connection may be a data connection's first, expected at another worker. Asked only
    /// where the helper is on and the address is one of whose services some may be FTP.
    pub(crate) fn may_be_expected<A: Tables<F>>(&self, pkt: &Packet<F>, key: &Key<A>) -> bool {
        if self.workers == 1 || !self.ftp.is_on() || key.proto != proto::TCP {
            return false;
        }
        let syn = matches!(pkt.signal(), Signal::Tcp(flags)
            if flags & (state::tcp::SYN | state::tcp::RST) == state::tcp::SYN);
        let ports = self.ftp.ports();
        let vaddr = A::to_ip(key.vaddr);
        syn && !ports.contains(&key.vport)
            && self.owners.of_expected(A::to_ip(key.caddr)) != self.id
            && (self.services.has_marks()
                || ports
                    .iter()
                    .any(|port| self.services.find(0, proto::TCP, vaddr, *port).is_some()))
    }

    /// Asks the worker where a client's data connections are expected for this one.
    pub(crate) fn seek<A: Tables<F>>(&mut self, pkt: Packet<F>, key: &Key<A>) {
        self.net.counters.hold(Held::Ring);
        let keeper = self.owners.of_expected(A::to_ip(key.caddr));
        let msg = Msg::Seek {
            client: (A::to_ip(key.caddr), key.cport),
            virt: (A::to_ip(key.vaddr), key.vport),
            parcel: pkt.into_parcel(),
            from: self.id,
        };
        self.post(keeper, msg);
    }

    /// Another worker has the first packet of a connection that may be expected here: it takes that over.
    pub(crate) fn sought(
        &mut self,
        client: (IpAddr, u16),
        virt: (IpAddr, u16),
        parcel: Parcel<F>,
        from: WorkerId,
    ) {
        let found = match Af::of(client.0) {
            Af::V4 => self.hand_out::<V4>(client, virt),
            Af::V6 => self.hand_out::<V6>(client, virt),
        };
        self.post(from, Msg::Sought { found, parcel });
    }

    /// Takes an expected connection out of the table, for another worker to go on with. What it counts for stays as it is.
    fn hand_out<A: Tables<F>>(
        &mut self,
        client: (IpAddr, u16),
        virt: (IpAddr, u16),
    ) -> Option<DataConn> {
        let key = Key::<A> {
            proto: proto::TCP,
            caddr: A::from_ip(client.0)?,
            cport: 0,
            vaddr: A::from_ip(virt.0)?,
            vport: virt.1,
        };
        let id = self.find_in(&key)?;
        let record = A::table_mut(self).remove(id)?;
        let control = record.control()?;
        Some(DataConn {
            client,
            virt,
            server: (A::to_ip(record.daddr()), record.dport()),
            dest: record.dest(),
            service: record.service(),
            control: crate::message::ConnRef {
                worker: control.worker,
                id: control.id,
            },
            chooser: record.chooser(),
        })
    }

    /// The answer about a packet that may begin an expected connection: that goes on here if it was, the packet in any case.
    pub(crate) fn found(
        &mut self,
        now: Time,
        found: Option<DataConn>,
        parcel: Parcel<F>,
        io: &mut impl Io<F>,
    ) {
        self.net.counters.release(Held::Ring);
        if let Some(data) = found {
            match Af::of(data.client.0) {
                Af::V4 => self.take_over::<V4>(now, &data),
                Af::V6 => self.take_over::<V6>(now, &data),
            }
        }
        let Some(pkt) = self.read(now, parcel, io) else {
            return;
        };
        match pkt.info.family {
            ripvs_packet::parse::Family::V4 => self.go_on::<V4>(now, pkt, io),
            ripvs_packet::parse::Family::V6 => self.go_on::<V6>(now, pkt, io),
        }
    }

    fn take_over<A: Tables<F>>(&mut self, now: Time, data: &DataConn) {
        if !self.listen::<A>(now, data, false) {
            let ledger = self.services.ledger();
            if let Some(tally) = data.dest.and_then(|dest| ledger.dest(dest)) {
                tally.inactive(-1);
                tally.refs(-1);
            }
            self.withdraw::<A>(now, data);
        }
    }

    fn go_on<A: Tables<F>>(&mut self, now: Time, pkt: Packet<F>, io: &mut impl Io<F>) {
        if let Some(pkt) = self.request::<A>(now, pkt, true, io) {
            self.host_takes::<A>(now, pkt, io);
        }
    }

    /// Gives a connection whose client's port was not known the port that its first packet came from, as the kernel does
    /// on the way to the server (`ip_vs_conn_fill_cport`).
    pub(crate) fn fill_cport<A: Tables<F>>(&mut self, id: crate::conn::ConnId, cport: u16) {
        let open = A::table(self)
            .get(id)
            .is_some_and(|record| record.has(Flags::NO_CPORT) && record.forward() == Forward::Masq);
        if open {
            A::table_mut(self).rekey(id, |ends| ends.cport = cport);
        }
    }
}
