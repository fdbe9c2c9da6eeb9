//! One worker: all that it owns, the changes that it takes in, and its rounds of receiving, listening to other workers and
//! letting time pass. The packet's way begins in `datapath.rs`.

use std::collections::VecDeque;
use std::sync::Arc;

use ripvs_packet::{Frame, PacketIo};

use crate::conn::{ConnId, ConnTable};
use crate::delta::{Answer, ConnEntry, Delta, Query};
use crate::family::{Family, V4, V6};
use crate::flow::Gone;
use crate::frag::Reassembler;
use crate::message::Msg;
use crate::net::{Net, NetConfig};
use crate::owner::Owners;
use crate::sip::Calls;
use crate::rewrite::Ip;
use crate::service::Services;
use crate::settings::Settings;
use crate::state::Timeouts;
use crate::tally::Tally;
use crate::types::{Time, WorkerId};
use crate::verdict::{Counters, Drop, Held, Verdict};

/// Where a worker's messages to the others go.
pub trait Post<F> {
    /// Puts a message into the ring to another worker.
    ///
    /// # Errors
    /// The ring is full: the message comes back.
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
    pub connections: usize,
    /// Whether the owner of a connection follows from the client's address alone.
    pub owner_by_address: bool,
    /// A number drawn at start, the same for all workers, that keys the hashes.
    pub seed: u64,
    /// The network layer's bounds. Worker 0 is the resolver.
    pub net: NetConfig,
    /// Bounds of reassembly.
    pub frag: crate::frag::Limits,
}

/// A worker's tables for one address family. The packet path is written once, with the family as its parameter.
pub trait Tables<F: Frame>: Ip {
    /// Whether this is IPv6.
    const IS_V6: bool;
    /// The family's connections.
    fn table(worker: &Worker<F>) -> &ConnTable<Self>;
    /// The family's connections.
    fn table_mut(worker: &mut Worker<F>) -> &mut ConnTable<Self>;
}

impl<F: Frame> Tables<F> for V4 {
    const IS_V6: bool = false;

    fn table(worker: &Worker<F>) -> &ConnTable<V4> {
        &worker.conns4
    }

    fn table_mut(worker: &mut Worker<F>) -> &mut ConnTable<V4> {
        &mut worker.conns4
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
    pub(crate) settings: Settings,
    pub(crate) timeouts: Timeouts,
    pub(crate) net: Net<F>,
    pub(crate) frags: Reassembler<F>,
    pub(crate) total: Arc<Tally>,
    /// Most connections of both families together.
    pub(crate) limit: usize,
    /// Messages to other workers, in order, until the end of the round.
    outbox: VecDeque<(WorkerId, Msg<F>)>,
    /// Connections that have just gone; kept for its memory.
    pub(crate) gone: Vec<(ConnId, Gone)>,
}

/// Connections looked at by one round of expiry.
const EXPIRE_BUDGET: usize = 256;

impl<F: Frame> Worker<F> {
    /// A worker without services. Its tables are laid out here. `total` counts its traffic altogether.
    pub fn new(config: WorkerConfig, total: Arc<Tally>) -> Worker<F> {
        Worker {
            id: config.id,
            workers: config.workers,
            owners: Owners::new(config.workers, config.owner_by_address, config.seed),
            services: Services::default(),
            conns4: ConnTable::new(config.connections, config.seed),
            conns6: ConnTable::new(config.connections, config.seed),
            calls: Calls::default(),
            settings: Settings::default(),
            timeouts: Timeouts::default(),
            net: Net::new(config.net),
            frags: Reassembler::new(config.frag),
            total,
            limit: config.connections,
            outbox: VecDeque::new(),
            gone: Vec::new(),
        }
    }

    /// How many more connections may be made.
    pub(crate) fn conns_left(&self) -> usize {
        self.limit.saturating_sub(self.conns4.len() + self.conns6.len())
    }

    /// The packet counters.
    pub fn counters(&self) -> &Counters {
        &self.net.counters
    }

    /// Takes in a change. Never fails; a change about what is not known has no effect.
    pub fn apply(&mut self, now: Time, delta: Delta) {
        match delta {
            Delta::ServiceAdd { id, spec, tally } => {
                self.net.vip(now, spec.key.addr(), true);
                self.services.add(id, spec, tally, self.id, self.workers);
            }
            Delta::ServiceEdit { id, spec } => self.services.edit(id, spec),
            Delta::ServiceRemove { id } => {
                let addr = self.services.get(id).and_then(|service| service.spec.key.addr());
                self.services.remove(id);
                self.net.vip(now, addr, false);
            }
            Delta::DestAdd { service, id, spec, tally } => self.services.add_dest(service, id, spec, tally),
            Delta::DestEdit { id, spec } => self.services.edit_dest(id, spec),
            Delta::DestRemove { id } => self.services.remove_dest(id),
            Delta::DestFree { id } => self.services.free_dest(id),
            Delta::Settings(settings) => self.settings = settings,
            Delta::Timeouts { tcp, tcp_fin, udp } => self.timeouts.set(tcp, tcp_fin, udp),
            Delta::Net(change) => self.net.apply(now, change),
        }
    }

    /// Takes a message of another worker's.
    pub fn deliver(&mut self, now: Time, msg: Msg<F>, io: &mut impl Io<F>) {
        match msg {
            Msg::Packet(parcel) => {
                self.net.counters.received += 1;
                self.parcel(now, parcel, io);
            }
            Msg::Choose { ask, parcel, from } => {
                let choice = self.choose(now, &ask);
                self.post(from, Msg::Chosen { ask, choice, parcel });
            }
            Msg::Chosen { ask, choice, parcel } => self.chosen(now, ask, choice, parcel, io),
            Msg::Load { dest, active, inactive, gone } => {
                self.services.charge(dest, active, inactive, gone.then_some(false));
            }
            Msg::Uncontrol { control, v6: false, at_once } => self.uncontrol_here::<V4>(now, control, at_once),
            Msg::Uncontrol { control, v6: true, at_once } => self.uncontrol_here::<V6>(now, control, at_once),
            Msg::Assure { control, v6: false } => self.assure_here::<V4>(control),
            Msg::Assure { control, v6: true } => self.assure_here::<V6>(control),
            Msg::Net(msg) => self.net.handle(now, msg, io),
            Msg::Transmit { port, frame } => io.transmit(port, frame),
        }
    }

    /// Lets time pass: connections, fragments, neighbours. A bounded piece of work a call.
    pub fn tick(&mut self, now: Time, io: &mut impl Io<F>) {
        self.expire::<V4>(now, EXPIRE_BUDGET);
        self.expire::<V6>(now, EXPIRE_BUDGET);
        self.expire_fragments(now, io);
        self.net.tick(now, io);
        self.flush(io);
    }

    /// Says something to another worker, at the end of the round.
    pub(crate) fn post(&mut self, to: WorkerId, msg: Msg<F>) {
        self.outbox.push_back((to, msg));
    }

    /// Puts the round's messages into the rings. A packet for which there is no room is dropped; what keeps count waits.
    pub fn flush(&mut self, io: &mut impl Io<F>) {
        for _ in 0..self.outbox.len() {
            let Some((to, msg)) = self.outbox.pop_front() else { break };
            match io.post(to, msg) {
                Ok(()) => {}
                Err(Msg::Packet(_)) => {
                    self.net.counters.done(Verdict::Dropped(Drop::RingFull));
                }
                Err(msg) => self.outbox.push_back((to, msg)),
            }
        }
    }

    /// Answers a question of the control thread's.
    pub fn answer(&self, now: Time, query: Query) -> Answer {
        match query {
            Query::Conns { cursor, max } => self.page(now, cursor, max),
            Query::Neighbours => Answer::Neighbours(self.net.neighbour_list(now)),
        }
    }
}
