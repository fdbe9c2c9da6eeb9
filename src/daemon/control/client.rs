//! One client of the control socket: its requests in order, the answers that wait for it, and the bounds that keep it from
//! harming anybody: so many requests and bytes under way, so many requests a second.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use ripvs_api::nl::Header;
use ripvs_api::socket::{self, Received};
use ripvs_api::{Errno, Incoming, Outgoing, Refusal, MAX_DATAGRAM};

use super::fleet::{Fleet, Progress, Ticket};
use super::stream::Stream;

/// Answers that may wait to be sent, bytes; a client that does not read gets no more.
const OUTPUT: usize = 1 << 20;
/// Requests that may wait for workers or their turn.
const REQUESTS: usize = 4096;
/// Requests a second, and how many may come at once: more than can be carried out, so that only those who ask for nothing
/// feel it.
const RATE: f64 = 1_000_000.0;

/// How a change ended, or what it waits for.
pub enum Pending {
    /// It is answered when the workers have applied it and the journal holds it, as part of this batch.
    Applied(Ticket, Option<u64>),
    /// It was refused.
    Refused(Refusal),
}

/// A client.
pub struct Client {
    fd: OwnedFd,
    /// Requests that were read and not begun.
    inbox: VecDeque<Incoming>,
    /// Changes whose answers wait, in order.
    pending: VecDeque<(Header, Pending)>,
    /// An answer of many parts that is under way.
    pub stream: Option<(Header, Stream)>,
    /// Answers that are to be sent.
    pub out: Outgoing,
    datagrams: VecDeque<Vec<u8>>,
    queued: usize,
    tokens: f64,
    filled: Instant,
    /// Since when it has not taken what is there for it.
    pub stuck_since: Option<Instant>,
    gone: bool,
}

impl Client {
    /// A client that has just connected.
    pub fn new(fd: OwnedFd, now: Instant) -> Client {
        Client {
            fd,
            inbox: VecDeque::new(),
            pending: VecDeque::new(),
            stream: None,
            out: Outgoing::new(),
            datagrams: VecDeque::new(),
            queued: 0,
            tokens: RATE,
            filled: now,
            stuck_since: None,
            gone: false,
        }
    }

    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether it has left, or was found to speak something else.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Whether requests of it can be read now.
    pub fn wants_input(&self) -> bool {
        !self.gone && self.inbox.len() < REQUESTS && self.has_room() && self.tokens >= 1.0
    }

    /// Whether it waits for its share of requests a second.
    pub fn is_throttled(&self) -> bool {
        self.tokens < 1.0
    }

    /// Whether answers wait to be sent.
    pub fn wants_output(&self) -> bool {
        !self.gone && !self.datagrams.is_empty()
    }

    /// Whether more answers may be made for it.
    pub fn has_room(&self) -> bool {
        self.queued + self.out.len() < OUTPUT
    }

    /// Whether it waits for the answer to this question.
    pub fn awaits(&self, question: u64) -> bool {
        let stream = self.stream.as_ref();
        stream.and_then(|(_, stream)| stream.question()) == Some(question)
    }

    /// Whether a request could be begun that has to wait for what came before it: nothing did.
    pub fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.stream.is_none()
    }

    /// Reads what it sent, some datagrams at most.
    pub fn read(&mut self, buffer: &mut [u8; MAX_DATAGRAM], now: Instant) {
        let earned = now.duration_since(self.filled).as_secs_f64() * RATE;
        self.tokens = (self.tokens + earned).min(RATE);
        self.filled = now;
        for _ in 0..32 {
            if !self.wants_input() {
                return;
            }
            match socket::receive(&self.fd, buffer) {
                Ok(Received::Datagram(length)) => {
                    let before = self.inbox.len();
                    self.inbox.extend(Incoming::read(&buffer[..length]));
                    // What holds no request costs as much as one.
                    self.tokens -= (self.inbox.len() - before).max(1) as f64;
                }
                Ok(Received::TooLong(length)) => {
                    log::debug!(
                        "a control message of {length} bytes is too long; its client is dropped"
                    );
                    self.gone = true;
                }
                Ok(Received::Closed) => self.gone = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.gone = true,
            }
        }
    }

    /// Its next request, where `begin` says that it can be begun.
    pub fn next_request(&mut self, begin: impl FnOnce(&Incoming) -> bool) -> Option<Incoming> {
        if self.stream.is_some() || !self.has_room() || !begin(self.inbox.front()?) {
            return None;
        }
        self.inbox.pop_front()
    }

    /// Whether a request waits to be begun.
    pub fn has_request(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Whether it has sent one change, and waits for its answer.
    pub fn waits_for_workers(&self) -> bool {
        self.pending.len() == 1 && self.inbox.is_empty()
    }

    /// Notes a change, which is answered in its turn.
    pub fn push_pending(&mut self, header: Header, pending: Pending) {
        self.pending.push_back((header, pending));
    }

    /// Whether so many changes wait that no more should be begun.
    pub fn is_busy(&self) -> bool {
        self.pending.len() >= REQUESTS
    }

    /// Answers the changes that are through. The journal has written all batches before `written`.
    pub fn settle_changes(&mut self, fleet: &Fleet, written: u64) {
        while let Some((header, pending)) = self.pending.front() {
            match pending {
                Pending::Refused(refusal) => self.out.refuse(header, refusal),
                Pending::Applied(_, Some(batch)) if *batch >= written => return,
                Pending::Applied(ticket, _) => match fleet.progress(*ticket) {
                    Progress::Waiting => return,
                    Progress::Applied => self.out.ack(header),
                    Progress::Wedged(worker) => self.out.refuse(header, &wedged(worker)),
                },
            }
            self.pending.pop_front();
        }
    }

    /// The journal's present batch, this, cannot be written: those whose changes are in it hear why.
    pub fn refuse_batch(&mut self, unwritten: u64, refusal: &Refusal) {
        for (_, pending) in &mut self.pending {
            if matches!(pending, Pending::Applied(_, Some(batch)) if *batch == unwritten) {
                *pending = Pending::Refused(refusal.clone());
            }
        }
    }

    /// Sends what can be sent.
    pub fn write(&mut self, now: Instant) {
        if self.gone {
            return;
        }
        for datagram in self.out.take() {
            self.queued += datagram.len();
            self.datagrams.push_back(datagram);
        }
        while let Some(datagram) = self.datagrams.front() {
            match socket::send(&self.fd, datagram) {
                Ok(()) => {
                    self.queued -= datagram.len();
                    self.datagrams.pop_front();
                    self.stuck_since = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stuck_since.get_or_insert(now);
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
    }
}

/// What a client hears of a worker that makes no progress.
pub fn wedged(worker: usize) -> Refusal {
    Refusal::new(
        Errno::BUSY,
        format!("worker {worker} makes no progress; whether it will apply this is not known"),
    )
}
