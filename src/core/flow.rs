//! A connection's life at its owner: it is admitted with the dest that the chooser picked, follows its protocol's states,
//! is counted where it belongs, and expires.
//!
//! Follows `ip_vs_conn_new`, `ip_vs_bind_dest`, `set_tcp_state` and `ip_vs_conn_expire` (net/netfilter/ipvs).

use ripvs_packet::Frame;

use crate::conn::{ConnId, Control, Expiry, Flags, NewConn, Record, DELAYED};
use crate::hop::HopNumber;
use crate::message::{Ask, Choice, ConnRef, Load, Msg};
use crate::packet::Packet;
use crate::rewrite::End;
use crate::spec::{service_flags, Forward};
use crate::state::{self, Direction, Signal, Step, Timeouts};
use crate::types::{proto, DestId, Time, WorkerId};
use crate::verdict::Drop;
use crate::worker::{Tables, Worker};

/// What forwarding needs to know of a connection, copied out of its record (or of none, under one-packet scheduling).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<A: crate::family::Family> {
    /// The client.
    pub client: End<A>,
    /// The virtual service.
    pub virt: End<A>,
    /// The real server; zeros where its address is of the other family.
    pub server: End<A>,
    /// How packets reach it.
    pub forward: Forward,
    /// The dest; none for what `cache_bypass` sends on.
    pub dest: Option<DestId>,
    /// The record, where there is one.
    pub id: Option<ConnId>,
    /// Whether the FTP helper looks into it.
    pub app: bool,
    /// The way to the dest, as far as it is known.
    pub hop_in: HopNumber,
    /// The way to the client, as far as it is known.
    pub hop_out: HopNumber,
}

impl<A: crate::family::Family> Path<A> {
    /// The path of a connection on record.
    pub fn of(id: ConnId, record: &Record<A>) -> Path<A> {
        Path {
            client: End {
                addr: record.caddr(),
                port: record.cport(),
            },
            virt: End {
                addr: record.vaddr(),
                port: record.vport(),
            },
            server: End {
                addr: record.daddr(),
                port: record.dport(),
            },
            forward: record.forward(),
            dest: record.dest(),
            id: Some(id),
            app: record.has(Flags::APP),
            hop_in: HopNumber(record.hop_in),
            hop_out: HopNumber(record.hop_out),
        }
    }
}

impl<F: Frame> Worker<F> {
    /// Makes the connection that a chooser chose a dest for. A one-packet one leaves no record.
    pub(crate) fn admit<A: Tables<F>>(
        &mut self,
        now: Time,
        ask: &Ask,
        choice: &Choice,
    ) -> Result<Path<A>, Drop> {
        let Choice::Dest {
            id,
            port,
            chooser,
            control,
        } = choice
        else {
            return Err(Drop::NoDest);
        };
        let key = ask.key::<A>();
        // While the choice was under way another service's dest may have come into the place of the one that was chosen. But
        // of one address's services the one on the FTP port and the one of all ports have their templates in common.
        let dest = self.services.dest(*id).filter(|dest| {
            let of_asked = dest.service == ask.service;
            of_asked || control.is_some() && dest.vaddr == Some(ask.vaddr)
        });
        let Some(dest) = dest else {
            self.unchoose(now, choice, A::IS_V6);
            return Err(Drop::NoDest);
        };
        let one_packet = ask.proto == proto::UDP
            && self
                .services
                .get(ask.service)
                .is_some_and(|s| s.spec.flags & service_flags::ONE_PACKET != 0);
        let forward = dest.spec.forward;
        let app = self.ftp.flag(key.proto, key.vport, forward);
        let new = NewConn {
            dest: Some(*id),
            service: Some(ask.service),
            control: control.map(|at| Control {
                worker: at.worker,
                id: at.id,
            }),
            chooser: *chooser,
            ..NewConn::new(
                key,
                A::from_ip(dest.spec.addr).unwrap_or_default(),
                *port,
                Flags::of_forward(forward).with(app),
            )
        };
        let path = Path {
            client: End {
                addr: key.caddr,
                port: key.cport,
            },
            virt: End {
                addr: key.vaddr,
                port: key.vport,
            },
            server: End {
                addr: new.daddr,
                port: *port,
            },
            forward,
            dest: Some(*id),
            id: None,
            app: app != Flags::NONE,
            hop_in: HopNumber::default(),
            hop_out: HopNumber::default(),
        };
        if one_packet {
            self.unchoose(now, choice, A::IS_V6);
        }
        let id = if one_packet {
            None
        } else {
            if self.conns_left() == 0 {
                self.unchoose(now, choice, A::IS_V6);
                return Err(Drop::ConnTableFull);
            }
            match A::table_mut(self).insert(now.tick(), &new) {
                Ok(id) => Some(id),
                Err(_) => {
                    self.unchoose(now, choice, A::IS_V6);
                    return Err(Drop::ConnTableFull);
                }
            }
        };
        self.total.conn();
        if let Some(tally) = new.dest.and_then(|dest| self.services.ledger().dest(dest)) {
            tally.conn();
            if id.is_some() {
                tally.inactive(1);
                tally.refs(1);
            }
        }
        Ok(Path { id, ..path })
    }

    /// Makes the record of a connection that is sent on without a dest (`cache_bypass`).
    pub(crate) fn admit_bypass<A: Tables<F>>(
        &mut self,
        now: Time,
        ask: &Ask,
    ) -> Result<Path<A>, Drop> {
        let key = ask.key::<A>();
        let new = NewConn {
            service: Some(ask.service),
            chooser: self.id,
            ..NewConn::new(
                key,
                A::Addr::default(),
                0,
                Flags::of_forward(Forward::Bypass),
            )
        };
        if self.conns_left() == 0 {
            return Err(Drop::ConnTableFull);
        }
        let id = A::table_mut(self)
            .insert(now.tick(), &new)
            .map_err(|_| Drop::ConnTableFull)?;
        Ok(Path {
            client: End {
                addr: key.caddr,
                port: key.cport,
            },
            virt: End {
                addr: key.vaddr,
                port: key.vport,
            },
            server: End {
                addr: A::Addr::default(),
                port: 0,
            },
            forward: Forward::Bypass,
            dest: None,
            id: Some(id),
            app: false,
            hop_in: HopNumber::default(),
            hop_out: HopNumber::default(),
        })
    }

    /// Takes a packet into its connection's state, restarts its timer and keeps the dest's counts.
    pub(crate) fn advance<A: Tables<F>>(
        &mut self,
        now: Time,
        id: ConnId,
        pkt: &Packet<F>,
        direction: Direction,
    ) {
        let secure = self.defence.secure_tcp();
        let (table, timeouts) = A::table_and_timeouts(self);
        let Some(record) = table.get_mut(id) else {
            return;
        };
        let step = take_in(record, direction, pkt.state_signal(), timeouts, secure);
        let (dest, chooser, control) = (record.dest(), record.chooser(), record.control());
        A::table_mut(self).touch(id, now.tick());
        self.settle_step::<A>(step, dest, chooser, control);
    }

    /// Does what a connection's change of state asks for.
    pub(crate) fn settle_step<A: Tables<F>>(
        &mut self,
        step: Step,
        dest: Option<DestId>,
        chooser: WorkerId,
        control: Option<Control>,
    ) {
        if step.active != 0 {
            if let Some(dest) = dest {
                if let Some(tally) = self.services.ledger().dest(dest) {
                    tally.active(step.active);
                    tally.inactive(-step.active);
                }
                self.report_load(chooser, dest, step.active, -step.active, false);
            }
        }
        if let Some(control) = control.filter(|_| step.assure) {
            self.assure::<A>(ConnRef {
                worker: control.worker,
                id: control.id,
            });
        }
    }

    /// Counts a packet of a connection whose dest is in service (`ip_vs_in_stats`, `ip_vs_out_stats`).
    pub(crate) fn account(&mut self, dest: Option<DestId>, bytes: usize, direction: Direction) {
        let line = dest.and_then(|id| self.services.ledger().line(id));
        let Some(line) = line.filter(|line| line.recent.available()) else {
            return;
        };
        line.count(direction, bytes);
        match direction {
            Direction::Input => self.total.inbound(bytes),
            Direction::Output => self.total.outbound(bytes),
        }
    }

    /// Ends connections whose time is up, a bounded number; true if no more are due.
    pub(crate) fn expire<A: Tables<F>>(&mut self, now: Time, budget: usize) -> bool {
        let mut gone = std::mem::take(&mut self.gone);
        // Memory for as many as there may be, from the first round on: no connection's end waits for it.
        gone.reserve(budget);
        let done = A::table_mut(self).advance(now.tick(), budget, |record, id| {
            if record.n_control() > 0 {
                return Expiry::Again(DELAYED);
            }
            gone.push((id, Gone::of(record)));
            Expiry::Remove
        });
        if self.services.ledger().is_large() {
            let dests = gone.iter().filter_map(|(_, gone)| gone.dest);
            self.services.foresee_charges(dests);
        }
        for (id, gone) in gone.drain(..) {
            self.farewell::<A>(now, id, gone, false);
        }
        self.gone = gone;
        done
    }

    /// Ends a connection at once, for its next packet to be scheduled anew (`ip_vs_conn_expire_now`). One that controls
    /// others stays.
    pub(crate) fn end_now<A: Tables<F>>(&mut self, now: Time, id: ConnId) {
        self.end::<A>(now, id, false);
    }

    /// Ends a connection, and what controls it as well if that was for it alone (`ip_vs_conn_del`).
    pub(crate) fn drop_conn<A: Tables<F>>(&mut self, now: Time, id: ConnId) {
        self.end::<A>(now, id, true);
    }

    fn end<A: Tables<F>>(&mut self, now: Time, id: ConnId, dropped: bool) {
        let Some(record) = A::table(self).get(id) else {
            return;
        };
        if record.n_control() > 0 {
            return;
        }
        let gone = Gone::of(record);
        A::table_mut(self).remove(id);
        self.farewell::<A>(now, id, gone, dropped);
    }

    /// Settles the accounts of a connection that has just gone.
    fn farewell<A: Tables<F>>(&mut self, now: Time, id: ConnId, gone: Gone, dropped: bool) {
        if let Some(dest) = gone.dest {
            if let Some(tally) = self.services.ledger().dest(dest) {
                tally.refs(-1);
                match gone.kind {
                    Kind::Template => tally.persistent(-1),
                    Kind::Active => tally.active(-1),
                    Kind::Inactive => tally.inactive(-1),
                }
            }
            match gone.kind {
                Kind::Template => self.services.charge(Load {
                    dest,
                    active: 0,
                    inactive: 0,
                    bound: Some(false),
                }),
                Kind::Active => self.report_load(gone.chooser, dest, -1, 0, true),
                Kind::Inactive => self.report_load(gone.chooser, dest, 0, -1, true),
            }
        }
        if let Some(control) = gone.control {
            self.uncontrol(now, control, A::IS_V6, dropped);
        }
        if matches!(gone.kind, Kind::Template) {
            self.calls.remove(A::IS_V6, id);
        }
        if gone.app {
            self.ftp.forget(A::IS_V6, id);
        }
    }

    /// Tells the chooser that charged a dest with a connection what became of it.
    pub(crate) fn report_load(
        &mut self,
        chooser: WorkerId,
        dest: DestId,
        active: i32,
        inactive: i32,
        gone: bool,
    ) {
        let load = Load {
            dest,
            active,
            inactive,
            bound: gone.then_some(false),
        };
        if chooser == self.id {
            self.services.charge(load);
        } else {
            self.post(chooser, Msg::Load(load));
        }
    }

    /// Takes a connection out from under the record that controlled it.
    pub(crate) fn uncontrol(&mut self, now: Time, control: ConnRef, v6: bool, dropped: bool) {
        if control.worker != self.id {
            self.post(
                control.worker,
                Msg::Uncontrol {
                    control: control.id,
                    v6,
                    dropped,
                },
            );
        } else if v6 {
            self.uncontrol_here::<crate::family::V6>(now, control.id, dropped);
        } else {
            self.uncontrol_here::<crate::family::V4>(now, control.id, dropped);
        }
    }

    /// A connection under a record of this worker's has ended.
    pub(crate) fn uncontrol_here<A: Tables<F>>(&mut self, now: Time, id: ConnId, dropped: bool) {
        let Some(record) = A::table_mut(self).get_mut(id) else {
            return;
        };
        let left = record.drop_controlled();
        let record = *record;
        let assured = record.has(Flags::TEMPLATE) && record.state == state::template::ASSURED;
        // One of a removed dest goes with its connections, assured or not (`ip_vs_expire_nodest_conn_flush`).
        let dest = record.dest().and_then(|dest| self.services.dest(dest));
        let orphan =
            self.settings.expire_nodest_conn != 0 && dest.is_some_and(|dest| !dest.available);
        let dispensable = !assured || orphan;
        if dropped && left == 0 && dispensable {
            self.drop_conn::<A>(now, id);
        }
    }

    /// Marks a template as one under which a connection was established.
    pub(crate) fn assure<A: Tables<F>>(&mut self, control: ConnRef) {
        if control.worker != self.id {
            self.post(
                control.worker,
                Msg::Assure {
                    control: control.id,
                    v6: A::IS_V6,
                },
            );
        } else {
            self.assure_here::<A>(control.id);
        }
    }

    /// A connection under a template of this worker's was established.
    pub(crate) fn assure_here<A: Tables<F>>(&mut self, id: ConnId) {
        if let Some(record) = A::table_mut(self)
            .get_mut(id)
            .filter(|record| record.has(Flags::TEMPLATE))
        {
            record.state = state::template::ASSURED;
        }
    }
}

/// Takes a packet into its connection's record, all but the restart of its timer.
#[inline(always)]
pub(crate) fn take_in<A: crate::family::Family>(
    record: &mut Record<A>,
    direction: Direction,
    signal: Signal,
    timeouts: &Timeouts,
    secure: bool,
) -> Step {
    if direction == Direction::Input {
        record.count_packet();
    }
    state::step(record, direction, signal, timeouts, secure)
}

/// What must be settled when a record goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gone {
    dest: Option<DestId>,
    kind: Kind,
    chooser: WorkerId,
    control: Option<ConnRef>,
    app: bool,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Template,
    Active,
    Inactive,
}

impl Gone {
    fn of<A: crate::family::Family>(record: &Record<A>) -> Gone {
        let flags = record.flags();
        Gone {
            dest: record.dest(),
            kind: match () {
                () if flags.has(Flags::TEMPLATE) => Kind::Template,
                () if flags.has(Flags::INACTIVE) => Kind::Inactive,
                () => Kind::Active,
            },
            chooser: record.chooser(),
            control: record.control().map(|at| ConnRef {
                worker: at.worker,
                id: at.id,
            }),
            app: flags.has(Flags::APP),
        }
    }
}
