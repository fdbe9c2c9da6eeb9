//! One worker: all that it owns, the changes that it takes in, and its rounds of receiving, listening to other workers and
//! letting time pass. The packet's way begins in `datapath.rs`.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use ripvs_arch::hash::FlowHash;
use ripvs_packet::{Frame, PacketIo, PortId};

use crate::choose::Decision;
use crate::conn::{ConnId, ConnTable};
use crate::defence::Defence;
use crate::delta::{Answer, Delta, Query, Step, Waste};
use crate::family::{V4, V6};
use crate::flow::Gone;
use crate::frag::{self, Reassembler};
use crate::ftp::Ftp;
use crate::glance::Glance;
use crate::hop::Hops;
use crate::ledger::Sums;
use crate::mark::MarkTable;
use crate::message::{Frames, Msg};
use crate::net::{Net, NetConfig};
use crate::owner::Owners;
use crate::plain::{Parts, Plain};
use crate::service::Services;
use crate::settings::Settings;
use crate::sip::Calls;
use crate::state::Timeouts;
use crate::sweep::Sweep;
use crate::tally::Tally;
use crate::thin::Thin;
use crate::types::{Af, Time, WorkerId};
use crate::verdict::{Counters, Drop, Held, Verdict};

/// Where a worker's messages to the others go.
pub trait Post<F> {
    /// Puts a message into the ring to another worker.
    ///
    /// # Errors
    /// The ring is full: the message comes back.
    #[allow(clippy::result_large_err)] // It comes back by value, so that nothing is allocated.
    fn post(&mut self, to: WorkerId, msg: Msg<F>) -> Result<(), Msg<F>>;
}

/// What a worker needs around it: devices, and the other workers.
pub trait Io<F: Frame>: PacketIo<Frame = F> + Post<F> {}

impl<F: Frame, T: PacketIo<Frame = F> + Post<F>> Io<F> for T {}

/// What one worker is to be.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Which it is.
    pub id: WorkerId,
    /// How many there are.
    pub workers: u16,
    /// Most connections at this worker, of both families together.
    pub connections: u32,
    /// Whether the owner of a connection follows from the client's address alone.
    pub owner_by_address: bool,
    /// A number drawn at start, the same for all workers, that keys the hashes.
    pub seed: u64,
    /// The network layer's bounds. Worker 0 is the resolver.
    pub net: NetConfig,
    /// Bounds of reassembly.
    pub frag: frag::Settings,
}

/// A worker's tables for one address family. The packet path is written once, with the family as its parameter.
pub(crate) trait Tables<F: Frame>: Plain {
    /// Whether this is IPv6.
    const IS_V6: bool;
    /// The family's connections.
    fn table(worker: &Worker<F>) -> &ConnTable<Self>;
    /// The family's connections.
    fn table_mut(worker: &mut Worker<F>) -> &mut ConnTable<Self>;
    /// The family's connections, and how long they last.
    fn table_and_timeouts(worker: &mut Worker<F>) -> (&mut ConnTable<Self>, &Timeouts);
    /// What the express way needs.
    fn parts(worker: &mut Worker<F>) -> Parts<'_, Self, F>;
}

impl<F: Frame> Tables<F> for V4 {
    const IS_V6: bool = false;

    fn table(worker: &Worker<F>) -> &ConnTable<V4> {
        &worker.conns4
    }

    fn table_mut(worker: &mut Worker<F>) -> &mut ConnTable<V4> {
        &mut worker.conns4
    }

    fn table_and_timeouts(worker: &mut Worker<F>) -> (&mut ConnTable<V4>, &Timeouts) {
        (&mut worker.conns4, &worker.timeouts)
    }

    #[inline(always)]
    fn parts(worker: &mut Worker<F>) -> Parts<'_, V4, F> {
        Parts::v4(worker)
    }
}

impl<F: Frame> Tables<F> for V6 {
    const IS_V6: bool = true;

    fn table(worker: &Worker<F>) -> &ConnTable<V6> {
        &worker.conns6
    }

    fn table_mut(worker: &mut Worker<F>) -> &mut ConnTable<V6> {
        &mut worker.conns6
    }

    fn table_and_timeouts(worker: &mut Worker<F>) -> (&mut ConnTable<V6>, &Timeouts) {
        (&mut worker.conns6, &worker.timeouts)
    }

    #[inline(always)]
    fn parts(worker: &mut Worker<F>) -> Parts<'_, V6, F> {
        Parts::v6(worker)
    }
}

/// One worker.
pub struct Worker<F: Frame> {
    pub(crate) id: WorkerId,
    pub(crate) workers: u16,
    pub(crate) owners: Owners,
    pub(crate) services: Services,
    pub(crate) conns4: ConnTable<V4>,
    pub(crate) conns6: ConnTable<V6>,
    pub(crate) calls: Calls,
    pub(crate) ftp: Ftp,
    pub(crate) settings: Settings,
    pub(crate) defence: Defence,
    pub(crate) marks: Arc<MarkTable>,
    pub(crate) timeouts: Timeouts,
    pub(crate) net: Net<F>,
    pub(crate) hops: Hops,
    pub(crate) frags: Reassembler<F>,
    pub(crate) total: Arc<Tally>,
    /// Most connections of both families together.
    limit: u32,
    /// Messages to other workers, in order, until the end of the round.
    outbox: VecDeque<(WorkerId, Msg<F>)>,
    /// Connections that have just gone; kept for its memory.
    pub(crate) gone: Vec<(ConnId, Gone)>,
    /// What the first look at a burst found; kept for its memory.
    pub(crate) glances: Vec<Glance>,
    /// What the burst adds to counters.
    pub(crate) sums: Sums,
    /// Frames of the burst that are other workers', by worker.
    pub(crate) over: Vec<Frames<F>>,
    /// The port that they came from.
    pub(crate) over_port: PortId,
    /// Frames that came from another worker; kept for its memory.
    pub(crate) taken: Vec<F>,
    /// How far the search for connections of removed dests has come.
    pub(crate) sweep: Sweep,
    pub(crate) thin: Thin,
    /// When the defences are looked at next.
    defence_due: Time,
    /// Whether connections are left whose time is up.
    overdue: bool,
}

/// The worker that asks for neighbours and announces addresses.
pub const RESOLVER: WorkerId = WorkerId(0);

/// Connections looked at by one round of expiry: some 20 µs of work where none of them is in the caches.
const EXPIRE_BUDGET: usize = 64;

/// Connections looked at between two of these where more are due: a burst begins no more than 32.
const EXPIRE_MORE: usize = 48;

impl<F: Frame> Worker<F> {
    /// A worker without services. Its tables are laid out here. `total` counts its traffic altogether.
    ///
    /// # Errors
    /// There is not enough memory for the tables.
    pub fn new(config: WorkerConfig, now: Time, total: Arc<Tally>) -> io::Result<Worker<F>> {
        let table_seed = FlowHash::new([config.seed, u64::from(config.id.0)]);
        let owners = Owners::new(config.workers, config.owner_by_address, config.seed);
        Ok(Worker {
            id: config.id,
            workers: config.workers,
            owners,
            services: Services::new(config.id, config.workers, owners),
            conns4: ConnTable::new(config.connections, now.tick(), table_seed)?,
            conns6: ConnTable::new(config.connections, now.tick(), table_seed)?,
            calls: Calls::default(),
            ftp: Ftp::default(),
            settings: Settings::default(),
            defence: Defence::default(),
            marks: Arc::default(),
            timeouts: Timeouts::default(),
            net: Net::new(config.net),
            hops: Hops::default(),
            frags: Reassembler::new(config.frag, table_seed),
            total,
            limit: config.connections,
            outbox: VecDeque::new(),
            gone: Vec::new(),
            glances: Vec::new(),
            sums: Sums::default(),
            over_port: PortId(0),
            over: (0..config.workers).map(|_| Frames::new()).collect(),
            taken: Vec::new(),
            sweep: Sweep::default(),
            thin: Thin::new(config.seed.wrapping_add(u64::from(config.id.0))),
            defence_due: now,
            overdue: false,
        })
    }

    /// How many connections and templates there are.
    pub fn conns(&self) -> u32 {
        self.conns4.len() + self.conns6.len()
    }

    /// How many more connections may be made.
    pub(crate) fn conns_left(&self) -> u32 {
        self.limit.saturating_sub(self.conns())
    }

    /// The packet counters.
    pub fn counters(&self) -> &Counters {
        &self.net.counters
    }

    /// Takes in a change. Never fails; a change about what is not known has no effect. What is of no more use is returned.
    pub fn apply(&mut self, now: Time, delta: Delta) -> Waste {
        let before = self.net.generation();
        let about_net = matches!(delta, Delta::Net(_));
        let waste = self.take_change(now, delta);
        // What is done by now counts for the next packet.
        if about_net || self.net.generation() != before {
            self.hops.look_again();
        }
        waste
    }

    /// Does a step, and leaves in its place what is of no more use.
    pub fn carry_out(&mut self, now: Time, step: &mut Step) {
        // Where it is: a service stays there, and only what is small is moved.
        if let Step::Ready(ready) = step {
            let before = self.net.generation();
            self.take_vip(now, ready.addr());
            self.services.take_in(ready);
            if self.net.generation() != before {
                self.hops.look_again();
            }
            return;
        }
        match std::mem::replace(step, Step::Done(Waste::default())) {
            Step::Change(delta) => *step = Step::Done(self.apply(now, delta)),
            done => *step = done,
        }
    }

    /// Asks for what a step will touch, when [`Step::prefetch_more`] has had its effect.
    pub fn foresee_step(&self, step: &Step) {
        if let Step::Ready(ready) = step {
            self.services.foresee(ready);
        }
    }

    /// A service is added that has this address.
    fn take_vip(&mut self, now: Time, addr: Option<IpAddr>) {
        let Some(addr) = addr else { return };
        // A dest beyond a gateway is no neighbour: the ways that lead to it are to be looked up again as well.
        if self.net.vip_add(now, addr) && self.services.has_dest_at(addr) {
            self.hops.clear();
        }
    }

    fn take_change(&mut self, now: Time, delta: Delta) -> Waste {
        match delta {
            Delta::ServiceAdd { id, spec } => {
                self.take_vip(now, spec.key.addr());
                self.services.add(id, spec);
            }
            Delta::ServiceEdit { id, spec } => self.services.edit(id, spec),
            Delta::ServiceRemove { id } => {
                let addr = self
                    .services
                    .get(id)
                    .and_then(|service| service.spec.key.addr());
                let removed = self.services.remove(id);
                if self.settings.expire_nodest_conn != 0 {
                    self.sweep.begin();
                }
                if let Some(addr) = addr {
                    // Connections of the service itself have no dest that is in it, and so are looked at anew; those of
                    // a service by mark may be to any address.
                    if self.net.vip_del(addr) && self.services.has_marks() {
                        self.hops.clear();
                    }
                }
                return removed.into();
            }
            Delta::DestAdd {
                service,
                id,
                spec,
                tally,
            } => self.services.add_dest(service, id, spec, tally),
            Delta::DestEdit { id, spec } => self.services.edit_dest(id, spec),
            Delta::DestRemove { id } => {
                self.services.remove_dest(id);
                if self.settings.expire_nodest_conn != 0 {
                    self.sweep.begin();
                }
            }
            Delta::DestFree { id } => return self.services.free_dest(id).into(),
            Delta::MaglevTable { id, table } => {
                if let Some(service) = self.services.get_mut(id) {
                    service.group.set_table(table);
                }
            }
            Delta::Settings(settings) => {
                self.settings = settings;
                self.services.set_expirations(settings.expirations());
                // Which way a reply takes depends on snat_reroute.
                self.hops.clear();
                self.defence.update(&settings, self.conns_left());
            }
            Delta::FtpPorts(ports) => self.ftp.set_ports(ports),
            Delta::Marks(marks) => {
                self.marks = marks;
                // A number that is kept says that the addresses were looked at under these rules.
                self.hops.clear();
            }
            Delta::Timeouts { tcp, tcp_fin, udp } => self.timeouts.set(tcp, tcp_fin, udp),
            Delta::Net(change) => self.net.apply(now, change),
        }
        Waste::default()
    }

    /// Takes a message of another worker's.
    pub fn deliver(&mut self, now: Time, msg: Msg<F>, io: &mut impl Io<F>) {
        let of_neighbours = matches!(msg, Msg::Net(_) | Msg::Packet(_));
        self.take_in(now, msg, io);
        // News of neighbours count for the next packet.
        if of_neighbours {
            self.hops.look_again();
        }
        self.send_own_errors(now, io);
    }

    fn take_in(&mut self, now: Time, msg: Msg<F>, io: &mut impl Io<F>) {
        match msg {
            Msg::Packet(parcel) => {
                self.net.counters.release(Held::Ring);
                self.parcel(now, parcel, io);
            }
            Msg::Burst { port, frames } => {
                for _ in &frames {
                    self.net.counters.release(Held::Ring);
                }
                self.take_handed(now, port, frames, io);
            }
            Msg::Choose { ask, parcel, from } => match self.choose(now, &ask) {
                Decision::Made(choice) => self.post(
                    from,
                    Msg::Chosen {
                        ask,
                        choice,
                        parcel,
                    },
                ),
                Decision::At(chooser) => self.have_picked(chooser, ask, parcel, from),
            },
            Msg::Pick {
                ask,
                parcel,
                owner,
                from,
            } => {
                let picked = self.pick_charged(now, &ask);
                self.post(
                    from,
                    Msg::Picked {
                        ask,
                        picked,
                        parcel,
                        owner,
                        from: self.id,
                    },
                );
            }
            Msg::Picked {
                ask,
                picked,
                parcel,
                owner,
                from,
            } => {
                let choice = self.choose_picked(now, &ask, picked, from);
                if owner == self.id {
                    self.chosen(now, ask, choice, parcel, io);
                } else {
                    self.post(
                        owner,
                        Msg::Chosen {
                            ask,
                            choice,
                            parcel,
                        },
                    );
                }
            }
            Msg::Chosen {
                ask,
                choice,
                parcel,
            } => self.chosen(now, ask, choice, parcel, io),
            Msg::Load(load) => self.services.charge(load),
            Msg::Uncontrol {
                control,
                v6: false,
                dropped,
            } => self.uncontrol_here::<V4>(now, control, dropped),
            Msg::Uncontrol {
                control,
                v6: true,
                dropped,
            } => self.uncontrol_here::<V6>(now, control, dropped),
            Msg::Assure { control, v6: false } => self.assure_here::<V4>(control),
            Msg::Assure { control, v6: true } => self.assure_here::<V6>(control),
            Msg::Expect(expected) => self.expect(now, expected, io),
            Msg::Seek {
                client,
                virt,
                parcel,
                from,
            } => self.sought(client, virt, parcel, from),
            Msg::Sought { found, parcel } => self.found(now, found, parcel, io),
            Msg::PathMtu { addr, mtu } => {
                self.services.learn_path_mtu(now, addr, mtu);
            }
            Msg::Net(msg) => self.net.handle(now, msg, io),
            Msg::Transmit { port, frame } => io.transmit(port, frame),
        }
    }

    /// Lets time pass: connections, fragments, neighbours. A bounded piece of work a call.
    pub fn tick(&mut self, now: Time, io: &mut impl Io<F>) {
        self.end_due(now, EXPIRE_BUDGET);
        if self.services.enabled(Af::V4) {
            self.conns4.warm_up();
        }
        if self.services.enabled(Af::V6) {
            self.conns6.warm_up();
        }
        self.sweep(now);
        self.thin(now);
        self.expire_fragments(now, io);
        self.net.tick(now, io);
        self.send_own_errors(now, io);
        if now >= self.defence_due {
            self.defence_due = Time(now.0 + Time::from_secs(1).0);
            self.defence.update(&self.settings, self.conns_left());
            self.begin_thinning();
            self.services.expire(now);
        }
        self.flush(io);
    }

    fn end_due(&mut self, now: Time, budget: usize) {
        let done = self.expire::<V4>(now, budget) & self.expire::<V6>(now, budget);
        self.overdue = !done;
    }

    /// Ends some more connections whose time is up, if [`Worker::tick`] left any: in each round a little more than may begin in
    /// it, so that the table does not fill up with what is over.
    pub fn catch_up(&mut self, now: Time) {
        if self.overdue {
            self.end_due(now, EXPIRE_MORE);
        }
    }

    /// Says something to another worker, at the end of the round.
    pub(crate) fn post(&mut self, to: WorkerId, msg: Msg<F>) {
        self.outbox.push_back((to, msg));
    }

    /// Puts the round's messages into the rings. A packet for which there is no room is dropped; what keeps count waits.
    pub fn flush(&mut self, io: &mut impl Io<F>) {
        while let Some(msg) = self.net.take_msg() {
            if msg.for_resolver() {
                self.post(RESOLVER, Msg::Net(msg));
                continue;
            }
            let own = self.id;
            for other in (0..self.workers)
                .map(WorkerId)
                .filter(|other| *other != own)
            {
                self.post(other, Msg::Net(msg));
            }
        }
        while let Some((to, load)) = self.services.take_report() {
            self.post(to, Msg::Load(load));
        }
        for _ in 0..self.outbox.len() {
            let Some((to, msg)) = self.outbox.pop_front() else {
                break;
            };
            match io.post(to, msg) {
                Ok(()) => {}
                Err(Msg::Burst { frames, .. }) => {
                    for _ in frames {
                        self.net.counters.release(Held::Ring);
                        self.net.counters.done(Verdict::Dropped(Drop::RingFull));
                    }
                }
                Err(Msg::Packet(_) | Msg::Choose { .. } | Msg::Pick { .. } | Msg::Seek { .. }) => {
                    self.net.counters.release(Held::Ring);
                    self.net.counters.done(Verdict::Dropped(Drop::RingFull));
                }
                Err(msg) => self.outbox.push_back((to, msg)),
            }
        }
    }

    /// Whether messages wait for room in a ring.
    pub fn has_backlog(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Answers a question of the control thread's.
    pub fn answer(&self, now: Time, query: Query) -> Answer {
        match query {
            Query::Conns {
                cursor,
                max,
                into: mut entries,
            } => {
                let next = self.list(now, cursor, max, &mut entries);
                Answer::Conns { entries, next }
            }
            Query::Neighbours => Answer::Neighbours(self.neighbours(now)),
        }
    }
}
