//! A worker's thread: its rounds of orders, messages from the other workers, packets and time, and its end. What it does with
//! a packet is the core's business.

mod idle;
pub mod io;
mod pace;

use std::sync::mpsc::SyncSender;
use std::sync::Arc;
use std::thread::JoinHandle;

use ripvs_core::delta::{Answer, ConnEntry, Query, Step};
use ripvs_core::tally::Tally;
use ripvs_core::{Time, Worker, WorkerConfig};
use ripvs_nic::{Eal, Mbuf, RxQueue};
use ripvs_packet::PortId;

use crate::board::{Board, Rounds};
use crate::clock::Clock;
use crate::config::Idle;
use crate::control::fleet::{Mailbox, Order};
use idle::Idler;
use io::{Ring, WorkerIo};
use pace::Pace;

/// Frames taken from a queue at a time.
const BURST: usize = 32;
/// Messages, or frames in them, taken from another worker's ring in a round.
const MESSAGES: usize = 64;
/// Connection records looked at for a listing between two rounds without packets.
const RECORDS: usize = 512;
/// The same while packets come.
const RECORDS_AMONG_PACKETS: usize = 32;
/// Busy rounds between two publications.
const PUBLISH_EVERY: u32 = 16;
/// Nanoseconds between two looks at the clock's business.
const TICK: u64 = 1_000_000;

/// All that a worker's thread needs.
pub struct Setup {
    /// What the core's worker is to be.
    pub config: WorkerConfig,
    /// The core to be pinned to, if any.
    pub core: Option<core_affinity::CoreId>,
    /// Its clock.
    pub clock: Clock,
    /// What to do when there is nothing to do.
    pub idle: Idle,
    /// Its receive queues with their ports.
    pub rx: Vec<(PortId, RxQueue)>,
    /// Its ways out.
    pub io: WorkerIo,
    /// The rings that lead to it.
    pub inbound: Vec<Arc<Ring>>,
    /// Its orders.
    pub mailbox: Arc<Mailbox>,
    /// Where it publishes.
    pub board: Arc<Board>,
    /// Where it counts all traffic.
    pub total: Arc<Tally>,
}

/// Starts a worker's thread. What comes of its beginning goes to `ready`, an error in words.
///
/// # Errors
/// There is no thread to be had.
pub fn start(
    setup: Setup,
    ready: SyncSender<Result<(), String>>,
) -> std::io::Result<JoinHandle<()>> {
    let name = format!("worker {}", setup.config.id.0);
    std::thread::Builder::new().name(name).spawn(move || {
        if let Some(core) = setup.core {
            if !core_affinity::set_for_current(core) {
                log::warn!(
                    "worker {} cannot be pinned to core {}",
                    setup.config.id.0,
                    core.id
                );
            }
        }
        // It stays until the queues and frames of this thread are gone: it was made before them and goes after them.
        let registered = Eal::register_thread();
        let begun = match &registered {
            Ok(_) => Running::new(setup).map_err(|error| format!("its tables: {error}")),
            Err(error) => Err(error.to_string()),
        };
        match begun {
            Ok(mut running) => {
                // Whoever started us may have given up meanwhile; then we are told to stop.
                let _ = ready.send(Ok(()));
                running.run();
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
        drop(registered);
    })
}

/// An order, and how far it is carried out.
enum Task {
    /// The batch of that number, of which so many steps are done.
    Apply(u64, Vec<Step>, usize),
    /// A page of connections.
    List {
        ticket: u64,
        cursor: u64,
        left: usize,
        entries: Vec<ConnEntry>,
    },
}

/// A worker at work.
struct Running {
    worker: Worker<Mbuf>,
    io: WorkerIo,
    rx: Vec<(PortId, RxQueue)>,
    inbound: Vec<Arc<Ring>>,
    mailbox: Arc<Mailbox>,
    board: Arc<Board>,
    clock: Clock,
    idler: Idler,
    frames: Vec<Mbuf>,
    /// The order that is being carried out, piece by piece.
    task: Option<Task>,
    /// When the next changes are applied while packets come.
    pace: Pace,
    /// Whether packets came in the last round.
    packets: bool,
    rounds: Rounds,
    next_tick: u64,
    /// Busy rounds since the last publication.
    unpublished: u32,
    /// Whether anything may have been counted since then.
    dirty: bool,
}

impl Running {
    fn new(setup: Setup) -> std::io::Result<Running> {
        Ok(Running {
            worker: Worker::new(setup.config, setup.clock.now(), setup.total)?,
            io: setup.io,
            rx: setup.rx,
            inbound: setup.inbound,
            mailbox: setup.mailbox,
            board: setup.board,
            clock: setup.clock,
            idler: Idler::new(setup.idle),
            frames: Vec::with_capacity(BURST),
            task: None,
            pace: Pace::default(),
            packets: false,
            rounds: Rounds::default(),
            next_tick: 0,
            unpublished: 0,
            dirty: true,
        })
    }

    fn run(&mut self) {
        while !self.mailbox.stopped() {
            let now = self.clock.now();
            let mut busy = self.orders(now);
            // Rings first: what another worker handed over came before what is in our queues now.
            self.packets = self.messages(now);
            // Not before what the journal keeps is restored: what is not balanced would be routed, or refused.
            self.packets |= self.mailbox.serves() && self.receive(now);
            busy |= self.packets;
            // Where the clock is held, what is due is done within a few rounds.
            if now.0 >= self.next_tick || self.clock.held().is_some() {
                self.next_tick = now.0 + TICK;
                // It may end packets that waited, without any coming in.
                self.dirty = true;
                self.worker.tick(now, &mut self.io);
            } else {
                self.worker.catch_up(now);
                self.worker.flush(&mut self.io);
            }
            busy |= self.io.flush();
            self.end_round(busy);
        }
        self.publish();
    }

    /// Does what the control thread wants, a bounded piece.
    fn orders(&mut self, now: Time) -> bool {
        let begun = self.clock.machine(now);
        if matches!(self.task, Some(Task::Apply(..))) && self.packets && !self.pace.allows(begun) {
            return true;
        }
        let Some(task) = self.task.take().or_else(|| self.next_task(now)) else {
            return false;
        };
        self.task = match task {
            Task::Apply(batch, steps, done) => self.apply(now, begun, batch, steps, done),
            Task::List {
                ticket,
                cursor,
                left,
                entries,
            } => self.list(now, ticket, cursor, left, entries),
        };
        true
    }

    /// The next order that is worth doing in pieces. Others are done here.
    fn next_task(&mut self, now: Time) -> Option<Task> {
        match self.mailbox.order()? {
            Order::Apply(batch, steps) => Some(Task::Apply(batch, steps, 0)),
            Order::Ask(
                ticket,
                Query::Conns {
                    cursor,
                    max,
                    into: entries,
                },
            ) => Some(Task::List {
                ticket,
                cursor,
                left: max,
                entries,
            }),
            Order::Ask(ticket, query) => {
                self.mailbox.answer(ticket, self.worker.answer(now, query));
                None
            }
        }
    }

    /// Does some steps of a batch, from a moment of the machine's clock on.
    fn apply(
        &mut self,
        now: Time,
        begun: u64,
        batch: u64,
        mut steps: Vec<Step>,
        mut done: usize,
    ) -> Option<Task> {
        if self.packets && !self.pace.allows(begun) {
            return Some(Task::Apply(batch, steps, done));
        }
        let until = begun + pace::PIECE;
        let (mut ended, mut unseen) = (begun, 0);
        while let Some(step) = steps.get_mut(done).filter(|_| ended < until) {
            unseen += step.weight();
            self.worker.carry_out(now, step);
            done += 1;
            self.foresee(&steps[done..]);
            if unseen >= pace::LOOK || done == steps.len() {
                (ended, unseen) = (ripvs_arch::now_ns(), 0);
            }
        }
        self.pace.worked(begun, ended);
        if done < steps.len() {
            return Some(Task::Apply(batch, steps, done));
        }
        self.mailbox.applied(batch, steps);
        None
    }

    /// Asks for the memory of the next steps, of each a little further than of the one behind it.
    fn foresee(&self, steps: &[Step]) {
        if let Some(step) = steps.first() {
            self.worker.foresee_step(step);
        }
        if let Some(step) = steps.get(1) {
            step.prefetch_more();
        }
        if let Some(step) = steps.get(2) {
            step.prefetch();
        }
    }

    /// Lists some connections of a page.
    fn list(
        &mut self,
        now: Time,
        ticket: u64,
        cursor: u64,
        left: usize,
        mut entries: Vec<ConnEntry>,
    ) -> Option<Task> {
        let some = left.min(if self.packets {
            RECORDS_AMONG_PACKETS
        } else {
            RECORDS
        });
        let next = self.worker.list(now, cursor, some, &mut entries);
        let left = left - some;
        match next {
            Some(cursor) if left > 0 => Some(Task::List {
                ticket,
                cursor,
                left,
                entries,
            }),
            next => {
                self.mailbox.answer(ticket, Answer::Conns { entries, next });
                None
            }
        }
    }

    /// Takes what the other workers sent, so much of each.
    fn messages(&mut self, now: Time) -> bool {
        let mut any = false;
        for ring in &self.inbound {
            let mut done = 0;
            while done < MESSAGES {
                let Some(msg) = ring.pop() else { break };
                any = true;
                done += io::weight(&msg);
                io::prefetch(&msg);
                self.worker.deliver(now, msg, &mut self.io);
            }
        }
        any
    }

    /// Takes a burst of each receive queue.
    fn receive(&mut self, now: Time) -> bool {
        let mut any = false;
        for (port, queue) in &mut self.rx {
            let got = queue.burst(&mut self.frames);
            if got == 0 {
                continue;
            }
            any = true;
            self.io.count_received(*port, &self.frames);
            self.worker
                .burst(now, *port, &mut self.frames, &mut self.io);
        }
        any
    }

    /// Publishes now and then, and sleeps where there is nothing to do.
    fn end_round(&mut self, busy: bool) {
        if busy {
            self.rounds.busy += 1;
            self.unpublished += 1;
            self.dirty = true;
            self.idler.busy();
            if self.unpublished >= PUBLISH_EVERY {
                self.publish();
            }
            return;
        }
        self.rounds.idle += 1;
        self.publish();
        let Some(nanoseconds) = self.idler.empty() else {
            ripvs_arch::clock::pause();
            return;
        };
        let (mailbox, inbound) = (&self.mailbox, &self.inbound);
        // Messages that found a ring full wait for the end of a sleep: nobody spins for another worker.
        idle::sleep(mailbox, nanoseconds, || {
            mailbox.has_order() || mailbox.stopped() || inbound.iter().any(|ring| !ring.is_empty())
        });
    }

    fn publish(&mut self) {
        self.unpublished = 0;
        if std::mem::take(&mut self.dirty) {
            self.board.publish(self.worker.counters(), &self.io.counts);
        }
        self.rounds.conns = self.worker.conns() as u64;
        self.rounds.handed_over = self.io.handed_over;
        self.rounds.ring_full = self.io.ring_full;
        self.board.round(&self.rounds);
    }
}
