//! The workers as the control thread sees them: a bounded ring of orders to each, a count of what it has applied, and a ring
//! of answers back. Changes are gathered and go out together, one order to each worker; whoever waits for a change
//! holds its ticket until every worker has applied it. A worker that makes no progress is noticed and named.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use nix::sys::eventfd::{EfdFlags, EventFd};
use ripvs_core::delta::{Answer, Delta, Query, Step};
use ripvs_core::WorkerId;

/// Orders that a worker may be behind by.
const RING: usize = 1024;
/// Batches of changes that are under way at most: so many keep workers at work, and what is in them is still in the caches
/// when its turn comes. More would only wait, and be read from memory.
const AHEAD: usize = 6;
/// The place in the ring that is left to the changes of a round when questions find none.
const ONE_MORE: usize = 1;
/// How long is waited for workers without going to sleep.
const MOMENT: Duration = Duration::from_micros(10);
/// How long a worker may take to apply a change before it counts as wedged.
const PATIENCE: Duration = Duration::from_secs(2);

/// One order to a worker.
pub enum Order {
    /// Changes to be applied; they make the batch of this number.
    Apply(u64, Vec<Step>),
    /// A question, whose answer bears this ticket.
    Ask(u64, Query),
}

/// What the control thread and one worker share.
pub struct Mailbox {
    orders: ArrayQueue<Order>,
    answers: ArrayQueue<(u64, Answer)>,
    /// What is left of orders that were carried out.
    spent: ArrayQueue<Vec<Step>>,
    applied: AtomicU64,
    asleep: AtomicBool,
    serving: AtomicBool,
    stop: AtomicBool,
    wake: EventFd,
    to_control: Arc<Bell>,
}

impl Mailbox {
    fn new(to_control: Arc<Bell>) -> std::io::Result<Mailbox> {
        Ok(Mailbox {
            orders: ArrayQueue::new(RING),
            answers: ArrayQueue::new(RING),
            spent: ArrayQueue::new(RING),
            applied: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            serving: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            wake: event()?,
            to_control,
        })
    }

    /// The worker's next order.
    pub fn order(&self) -> Option<Order> {
        self.orders.pop()
    }

    /// Whether an order waits.
    pub fn has_order(&self) -> bool {
        !self.orders.is_empty()
    }

    /// The worker says that it has applied all up to this batch, of which this is left.
    pub fn applied(&self, batch: u64, spent: Vec<Step>) {
        // Where there is no room it is dropped here and now.
        drop(self.spent.push(spent));
        self.applied.store(batch, Ordering::Release);
        self.to_control.ring();
    }

    /// Whether the worker may take packets.
    pub fn serves(&self) -> bool {
        self.serving.load(Ordering::Relaxed)
    }

    /// The worker answers a question. There is room for an answer to each question that fits the ring of orders.
    pub fn answer(&self, ticket: u64, answer: Answer) {
        if self.answers.push((ticket, answer)).is_err() {
            log::error!("a worker's answer found no room");
        }
        self.to_control.ring();
    }

    /// Whether the worker is to end.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The descriptor that becomes readable when the worker is wanted, for its sleep.
    pub fn wake(&self) -> &EventFd {
        &self.wake
    }

    /// The worker says that it is about to sleep, or awake again: while it is awake nobody makes a system call to wake it.
    pub fn set_asleep(&self, asleep: bool) {
        self.asleep.store(asleep, Ordering::SeqCst);
        if !asleep {
            let _ = self.wake.read();
        }
    }

    /// Wakes the worker if it sleeps.
    pub fn rouse(&self) {
        if self.asleep.load(Ordering::SeqCst) {
            let _ = self.wake.arm();
        }
    }
}

/// How workers tell the control thread that there is news; a system call only where it sleeps.
struct Bell {
    event: EventFd,
    rung: AtomicBool,
    asleep: AtomicBool,
}

impl Bell {
    fn new() -> std::io::Result<Bell> {
        Ok(Bell {
            event: event()?,
            rung: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
        })
    }

    fn ring(&self) {
        self.rung.store(true, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) {
            // It fails only where the counter is full, and then the control thread is woken anyway.
            let _ = self.event.arm();
        }
    }
}

fn event() -> std::io::Result<EventFd> {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    Ok(EventFd::from_value_and_flags(0, flags)?)
}

/// A batch on its way.
struct Sent {
    number: u64,
    at: Instant,
}

/// All workers.
pub struct Fleet {
    mailboxes: Vec<Arc<Mailbox>>,
    to_control: Arc<Bell>,
    /// Changes gathered for each worker since the last batch.
    gathered: Vec<Vec<Delta>>,
    /// Number of the last batch that went out.
    batch: u64,
    under_way: VecDeque<Sent>,
    /// What workers may still share, until they have what replaces it: they are not to free anything large.
    kept: VecDeque<(Ticket, Arc<dyn Any + Send + Sync>)>,
    questions: u64,
    /// The worker that makes no progress, if one doesn't.
    wedged: Option<usize>,
}

/// What a change's reply waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// How a change stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Every worker has applied it.
    Applied,
    /// Some worker has not yet.
    Waiting,
    /// This worker makes no progress.
    Wedged(usize),
}

impl Fleet {
    /// `count` workers that have not begun yet.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn new(count: usize) -> std::io::Result<Fleet> {
        let to_control = Arc::new(Bell::new()?);
        let mailboxes = (0..count)
            .map(|_| Mailbox::new(to_control.clone()).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Fleet {
            gathered: (0..count).map(|_| Vec::new()).collect(),
            mailboxes,
            to_control,
            batch: 0,
            under_way: VecDeque::new(),
            kept: VecDeque::new(),
            questions: 0,
            wedged: None,
        })
    }

    /// How many workers there are.
    pub fn len(&self) -> usize {
        self.mailboxes.len()
    }

    /// What a worker shares with the control thread.
    pub fn mailbox(&self, worker: usize) -> &Arc<Mailbox> {
        &self.mailboxes[worker]
    }

    /// The descriptor that becomes readable when a worker has applied or answered something, between [`Fleet::doze`] and
    /// [`Fleet::wake_up`].
    pub fn events(&self) -> &EventFd {
        &self.to_control.event
    }

    /// The control thread is about to sleep. False where a worker has applied or answered something since
    /// [`Fleet::look`]: then it is not to.
    pub fn doze(&self) -> bool {
        self.to_control.asleep.store(true, Ordering::SeqCst);
        !self.to_control.rung.load(Ordering::SeqCst)
    }

    /// It is awake again. `rung`: the descriptor is readable.
    pub fn wake_up(&self, rung: bool) {
        self.to_control.asleep.store(false, Ordering::SeqCst);
        if rung {
            let _ = self.to_control.event.read();
        }
    }

    /// Whether changes are carried out at all. Where not, which worker is wedged.
    ///
    /// # Errors
    /// The number of a worker that is wedged.
    pub fn ready(&self) -> Result<(), usize> {
        self.wedged.map_or(Ok(()), Err)
    }

    /// Whether changes can be sent to all workers now; if not, some worker is behind with those of before.
    pub fn has_room(&self) -> bool {
        let fits = |mailbox: &Arc<Mailbox>| mailbox.orders.len() + ONE_MORE < RING;
        self.under_way.len() < AHEAD && self.mailboxes.iter().all(fits)
    }

    /// Whether changes wait to be sent.
    pub fn has_gathered(&self) -> bool {
        self.gathered.first().is_some_and(|some| !some.is_empty())
    }

    /// Gathers a change; `delta` makes it for the worker of that number.
    pub fn change(&mut self, mut delta: impl FnMut(usize) -> Delta) {
        for (worker, gathered) in self.gathered.iter_mut().enumerate() {
            gathered.push(delta(worker));
        }
    }

    /// What someone has to wait for who wants all changes so far applied.
    pub fn ticket(&self) -> Ticket {
        Ticket(self.batch + u64::from(self.has_gathered()))
    }

    /// Keeps what the changes so far replace until every worker has applied them.
    pub fn keep_until_applied(&mut self, old: Arc<dyn Any + Send + Sync>) {
        self.kept.push_back((self.ticket(), old));
    }

    /// Sends what was gathered, as it is.
    pub fn send(&mut self, now: Instant) {
        self.send_as(now, |_, deltas| {
            deltas.into_iter().map(Step::Change).collect()
        });
    }

    /// Sends what was gathered, made ready so that workers which have packets to forward lose little time by it.
    pub fn send_ready(&mut self, now: Instant) {
        let workers = self.gathered.len() as u16;
        self.send_as(now, |worker, deltas| {
            Step::make(deltas, WorkerId(worker as u16), workers)
        });
    }

    fn send_as(&mut self, now: Instant, steps: impl Fn(usize, Vec<Delta>) -> Vec<Step>) {
        if !self.has_gathered() {
            return;
        }
        self.batch += 1;
        for (worker, gathered) in self.gathered.iter_mut().enumerate() {
            let order = Order::Apply(self.batch, steps(worker, std::mem::take(gathered)));
            if self.mailboxes[worker].orders.push(order).is_err() {
                // `has_room` left room for this; and what is lost here would be a silent difference.
                log::error!("worker {worker}: its ring is full, a change is lost; restart ripvsd");
                self.wedged = Some(worker);
            }
            self.mailboxes[worker].rouse();
        }
        self.under_way.push_back(Sent {
            number: self.batch,
            at: now,
        });
    }

    /// Waits as long as a worker that is awake needs for a change: to sleep and be woken would take longer.
    pub fn await_a_moment(&self) {
        if self
            .mailboxes
            .iter()
            .any(|m| m.asleep.load(Ordering::SeqCst))
        {
            return;
        }
        let until = Instant::now() + MOMENT;
        while self.applied() < self.batch && Instant::now() < until {
            std::hint::spin_loop();
        }
    }

    /// Looks at what the workers have applied. True where a worker that was wedged goes on again.
    pub fn look(&mut self, now: Instant) {
        // Before anything is looked at: what comes after that rings again.
        self.to_control.rung.swap(false, Ordering::AcqRel);
        for mailbox in &self.mailboxes {
            while mailbox.spent.pop().is_some() {}
        }
        let applied = self.applied();
        while self
            .under_way
            .front()
            .is_some_and(|sent| sent.number <= applied)
        {
            self.under_way.pop_front();
        }
        while self
            .kept
            .front()
            .is_some_and(|(ticket, _)| ticket.0 <= applied)
        {
            self.kept.pop_front();
        }
        let late = self
            .under_way
            .front()
            .filter(|sent| now.duration_since(sent.at) >= PATIENCE)
            .map(|sent| sent.number);
        let wedged = late.and_then(|batch| {
            self.mailboxes
                .iter()
                .position(|m| m.applied.load(Ordering::Acquire) < batch)
        });
        match (self.wedged, wedged) {
            (None, Some(worker)) => log::error!(
                "worker {worker} has made no progress for {} s; changes are refused until it does",
                PATIENCE.as_secs()
            ),
            (Some(worker), None) => log::warn!("worker {worker} makes progress again"),
            _ => {}
        }
        self.wedged = wedged;
    }

    /// The batch that all have applied.
    fn applied(&self) -> u64 {
        self.mailboxes
            .iter()
            .map(|m| m.applied.load(Ordering::Acquire))
            .min()
            .unwrap_or(self.batch)
    }

    /// How the change of a ticket stands.
    pub fn progress(&self, ticket: Ticket) -> Progress {
        if ticket.0 <= self.applied() {
            return Progress::Applied;
        }
        match self.wedged {
            Some(worker) => Progress::Wedged(worker),
            None => Progress::Waiting,
        }
    }

    /// Asks a worker; the answer bears the number that is returned. `None` where its ring is full.
    pub fn ask(&mut self, worker: usize, query: Query) -> Option<u64> {
        self.questions += 1;
        let mailbox = self.mailboxes.get(worker)?;
        if mailbox.orders.len() + ONE_MORE >= RING {
            return None;
        }
        mailbox
            .orders
            .push(Order::Ask(self.questions, query))
            .ok()?;
        mailbox.rouse();
        Some(self.questions)
    }

    /// The next answer of any worker, with its number.
    pub fn answer(&mut self) -> Option<(u64, Answer)> {
        self.mailboxes.iter().find_map(|m| m.answers.pop())
    }

    /// Lets the workers take packets, now that they have what they need for that.
    pub fn begin(&self) {
        for mailbox in &self.mailboxes {
            mailbox.serving.store(true, Ordering::Relaxed);
            mailbox.rouse();
        }
    }

    /// Tells all workers to end.
    pub fn stop(&self) {
        for mailbox in &self.mailboxes {
            mailbox.stop.store(true, Ordering::Release);
            let _ = mailbox.wake.arm();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ripvs_core::ServiceId;

    fn change(fleet: &mut Fleet) -> Ticket {
        fleet.change(|_| Delta::ServiceRemove { id: ServiceId(1) });
        fleet.ticket()
    }

    /// What a worker does with an order.
    fn apply_one(fleet: &Fleet, worker: usize) -> usize {
        match fleet.mailbox(worker).order() {
            Some(Order::Apply(batch, deltas)) => {
                let count = deltas.len();
                fleet.mailbox(worker).applied(batch, deltas);
                count
            }
            _ => 0,
        }
    }

    #[test]
    fn workers_take_packets_only_from_the_beginning_on() {
        let fleet = Fleet::new(2).unwrap();
        assert!((0..2).all(|worker| !fleet.mailbox(worker).serves()));
        fleet.begin();
        assert!((0..2).all(|worker| fleet.mailbox(worker).serves()));
    }

    #[test]
    fn a_change_is_applied_when_every_worker_has_applied_it() {
        let now = Instant::now();
        let mut fleet = Fleet::new(2).unwrap();
        let ticket = change(&mut fleet);
        assert_eq!(fleet.progress(ticket), Progress::Waiting);
        fleet.send(now);
        assert_eq!(apply_one(&fleet, 0), 1);
        fleet.look(now);
        assert_eq!(fleet.progress(ticket), Progress::Waiting);
        assert_eq!(apply_one(&fleet, 1), 1);
        fleet.look(now);
        assert_eq!(fleet.progress(ticket), Progress::Applied);
    }

    #[test]
    fn changes_of_one_round_go_in_one_order() {
        let mut fleet = Fleet::new(1).unwrap();
        for _ in 0..100 {
            change(&mut fleet);
        }
        fleet.send(Instant::now());
        assert_eq!(apply_one(&fleet, 0), 100);
        assert!(!fleet.mailbox(0).has_order());
    }

    #[test]
    fn nothing_gathered_waits_for_nothing() {
        let mut fleet = Fleet::new(3).unwrap();
        fleet.send(Instant::now());
        let ticket = fleet.ticket();
        assert_eq!(fleet.progress(ticket), Progress::Applied);
    }

    #[test]
    fn a_wedged_worker_is_named_and_changes_are_refused_until_it_goes_on() {
        let start = Instant::now();
        let mut fleet = Fleet::new(2).unwrap();
        let ticket = change(&mut fleet);
        fleet.send(start);
        apply_one(&fleet, 0);
        fleet.look(start + PATIENCE - Duration::from_millis(1));
        assert_eq!(fleet.progress(ticket), Progress::Waiting);
        fleet.look(start + PATIENCE);
        assert_eq!(fleet.progress(ticket), Progress::Wedged(1));
        assert_eq!(fleet.ready(), Err(1));
        apply_one(&fleet, 1);
        fleet.look(start + PATIENCE);
        assert_eq!(fleet.ready(), Ok(()));
        assert_eq!(fleet.progress(ticket), Progress::Applied);
    }

    #[test]
    fn a_worker_wakes_the_control_thread_only_where_it_sleeps_and_is_never_missed() {
        let mut fleet = Fleet::new(1).unwrap();
        let readable = |fleet: &Fleet| fleet.events().read().is_ok();
        fleet.mailbox(0).applied(1, Vec::new());
        assert!(!readable(&fleet), "it is awake");
        assert!(!fleet.doze(), "there is news");
        fleet.wake_up(false);
        fleet.look(Instant::now());
        assert!(fleet.doze(), "it has looked");
        fleet.mailbox(0).applied(2, Vec::new());
        assert!(readable(&fleet), "it sleeps");
        fleet.wake_up(false);
        fleet.mailbox(0).applied(3, Vec::new());
        assert!(!readable(&fleet) && !fleet.doze());
    }

    #[test]
    fn only_so_many_batches_wait_and_a_full_ring_takes_no_more_before_anything_is_lost() {
        let now = Instant::now();
        let mut fleet = Fleet::new(1).unwrap();
        let mut taken = 0;
        while fleet.has_room() {
            change(&mut fleet);
            fleet.send(now);
            taken += 1;
            assert!(taken <= AHEAD, "never refused");
        }
        assert_eq!(taken, AHEAD);
        let mut asked = 0;
        while fleet.ask(0, Query::Neighbours).is_some() {
            asked += 1;
        }
        assert_eq!(asked, RING - AHEAD - ONE_MORE, "questions have room left");
        // And what was begun before the ring was full.
        change(&mut fleet);
        fleet.send(now);
        assert_eq!(fleet.ready(), Ok(()));
        // As soon as the workers have done one, there is room for the next.
        apply_one(&fleet, 0);
        apply_one(&fleet, 0);
        assert!(!fleet.has_room(), "nobody has looked");
        fleet.look(now);
        assert!(fleet.has_room());
    }
}
