//! The control thread: waits for clients, workers, signals and the clock, and owns the tables that everything is checked
//! against. A client's request goes client.rs, dispatch.rs, then the table that it is about, then by fleet.rs to the
//! workers; what it is answered goes back by client.rs.
//!
//! Nothing here waits for one client or one worker: answers that depend on a worker are held until it has done its part.

mod advance;
mod client;
mod dispatch;
pub mod fleet;
pub mod master;
pub mod network;
pub mod reload;
mod restore;
pub mod settings;
mod settle;
pub mod socket;
mod stats;
mod stream;

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno as OsErrno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use ripvs_api::nl::Writer;
use ripvs_api::MAX_DATAGRAM;
use ripvs_core::delta::{Answer, ConnEntry};

use crate::board::Boards;
use crate::clock::Clock;
use crate::journal::Journal;
use client::Client;
use fleet::Fleet;
use master::Master;
use network::Network;
use reload::Source;
use settings::Settings;
use socket::ControlSocket;
use stream::Stream;

/// Clients at a time.
const CLIENTS: usize = 256;
/// How long a client may leave answers unread when its place is wanted.
const STUCK: Duration = Duration::from_secs(10);
/// Requests of a client that are begun before the next has its turn.
const TURN: usize = 256;
/// How often is looked whether packets have settled.
const SETTLE_LOOK: Duration = Duration::from_micros(500);
/// How often the slow things are looked at: trash, journal, wedged workers.
const SLOW_LOOK: Duration = Duration::from_millis(500);

/// What the control thread is made of.
pub struct Parts {
    /// Ways to the workers.
    pub fleet: Fleet,
    /// What the workers publish.
    pub boards: Boards,
    /// Services and dests.
    pub master: Master,
    /// The network layer.
    pub network: Network,
    /// Sysctls and timeouts.
    pub settings: Settings,
    /// Connections that the box keeps at most.
    pub conn_limit: u64,
    /// The workers' cores, where they are pinned.
    pub cores: Vec<Option<u16>>,
    /// How many ports there are.
    pub port_count: u16,
    /// DPDK's version.
    pub dpdk: Option<String>,
    /// What connections and rates live by.
    pub clock: Clock,
    /// When the daemon was started.
    pub started: Instant,
}

/// The control thread.
pub struct Control {
    fleet: Fleet,
    boards: Boards,
    master: Master,
    network: Network,
    settings: Settings,
    journal: Option<Journal>,
    /// Pages of connections that are not in use; kept for their memory.
    pages: Vec<Vec<ConnEntry>>,
    /// For encoding what goes to the journal; kept for its memory.
    message: Writer,
    source: Option<Source>,
    /// Answers of workers that somebody waits for.
    answers: HashMap<u64, Answer>,
    conn_limit: u64,
    cores: Vec<Option<u16>>,
    port_count: u16,
    dpdk: Option<String>,
    clock: Clock,
    started: Instant,
    /// The moment of this round.
    now: Instant,
    next_estimate: Instant,
    next_slow: Instant,
}

impl Control {
    /// A control thread that has not begun.
    pub fn new(parts: Parts) -> Control {
        let now = Instant::now();
        Control {
            fleet: parts.fleet,
            boards: parts.boards,
            master: parts.master,
            network: parts.network,
            settings: parts.settings,
            journal: None,
            pages: Vec::new(),
            message: Writer::new(),
            source: None,
            answers: HashMap::new(),
            conn_limit: parts.conn_limit,
            cores: parts.cores,
            port_count: parts.port_count,
            dpdk: parts.dpdk,
            next_estimate: time_by(&parts.clock, parts.started, now) + stats::PERIOD,
            clock: parts.clock,
            started: parts.started,
            now,
            next_slow: now,
        }
    }

    /// Sends what has been gathered so far, and waits until every worker has applied it; for the start, before anybody is
    /// served.
    ///
    /// # Errors
    /// The number of a worker that does not.
    pub fn settle_start(&mut self) -> Result<(), usize> {
        self.master.make_tables(&mut self.fleet);
        let ticket = self.fleet.ticket();
        self.fleet.send(Instant::now());
        loop {
            self.fleet.look(Instant::now());
            match self.fleet.progress(ticket) {
                fleet::Progress::Applied => {
                    self.fleet.begin();
                    return Ok(());
                }
                fleet::Progress::Wedged(worker) => return Err(worker),
                fleet::Progress::Waiting => {
                    let mut fds = [PollFd::new(self.fleet.events().as_fd(), PollFlags::POLLIN)];
                    // Whatever wakes it, the progress is looked at.
                    let _ = poll(&mut fds, PollTimeout::from(50u8));
                }
            }
        }
    }

    /// Ends it all: tells the workers to end, and gives the devices back.
    pub fn finish(mut self) -> Vec<ripvs_nic::Port> {
        self.fleet.stop();
        self.network.take_devices()
    }

    /// Serves until a signal says to end.
    ///
    /// # Errors
    /// Waiting itself fails, which leaves nothing to be done.
    pub fn serve(&mut self, socket: &ControlSocket, signals: &SignalFd) -> std::io::Result<()> {
        let mut clients: Vec<Client> = Vec::new();
        let mut buffer = Box::new([0; MAX_DATAGRAM]);
        loop {
            let ready = self.wait(socket, signals, &clients)?;
            self.now = Instant::now();
            if ready.signal && self.signalled(signals) {
                return Ok(());
            }
            self.workers_news();
            if ready.connection {
                self.accept(socket, &mut clients);
            }
            for (client, readable) in clients.iter_mut().zip(ready.clients) {
                if readable || client.is_throttled() {
                    client.read(&mut buffer, self.now);
                }
            }
            self.round(&mut clients);
            clients.retain(|client| !client.is_gone());
            // Answers for those who have left.
            self.answers
                .retain(|question, _| clients.iter().any(|client| client.awaits(*question)));
            self.clock();
        }
    }

    /// Everything that a round does with the clients it has.
    fn round(&mut self, clients: &mut [Client]) {
        for client in clients.iter_mut() {
            self.requests(client);
        }
        self.master.make_tables(&mut self.fleet);
        self.fleet.send_ready(self.now);
        // While the workers apply them.
        self.write_journal(clients);
        if clients.len() == 1 && clients[0].waits_for_workers() {
            self.fleet.await_a_moment();
            self.workers_news();
        }
        let written = self.written();
        for client in clients.iter_mut() {
            client.settle_changes(&self.fleet, written);
            self.go_on(client);
            client.write(self.now);
        }
    }

    /// The journal has written all batches before this.
    fn written(&self) -> u64 {
        self.journal.as_ref().map_or(u64::MAX, Journal::batch)
    }

    /// Begins what requests of a client can be begun, a bounded number, so that all get their turn.
    fn requests(&mut self, client: &mut Client) {
        for _ in 0..TURN {
            if client.is_busy() {
                return;
            }
            // What only asks is to see what was changed before it; what changes something needs room on its way to the
            // workers, unless it is to be refused.
            let settled = client.is_settled();
            let room = self.fleet.has_room() || self.fleet.ready().is_err();
            let begin = |incoming: &ripvs_api::Incoming| match &incoming.request {
                Ok(request) if dispatch::is_change(request) => room,
                Ok(_) => settled,
                Err(_) => true,
            };
            let Some(incoming) = client.next_request(begin) else {
                return;
            };
            self.begin(incoming.header, incoming.request, client);
            self.go_on(client);
        }
    }

    /// Takes in what the workers have done.
    fn workers_news(&mut self) {
        self.fleet.look(self.now);
        while let Some((question, answer)) = self.fleet.answer() {
            self.answers.insert(question, answer);
        }
    }

    /// Waits until there is something to do.
    fn wait(
        &self,
        socket: &ControlSocket,
        signals: &SignalFd,
        clients: &[Client],
    ) -> std::io::Result<Ready> {
        let mut fds = Vec::with_capacity(clients.len() + 3);
        fds.push(PollFd::new(signals.as_fd(), PollFlags::POLLIN));
        fds.push(PollFd::new(self.fleet.events().as_fd(), PollFlags::POLLIN));
        fds.push(PollFd::new(socket.fd(), PollFlags::POLLIN));
        for client in clients {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, client.wants_input());
            flags.set(PollFlags::POLLOUT, client.wants_output());
            fds.push(PollFd::new(client.fd(), flags));
        }
        let patience = match self.fleet.doze() {
            true => self.patience(clients),
            false => PollTimeout::ZERO,
        };
        let polled = poll(&mut fds, patience);
        let any = |fd: &PollFd| fd.any().unwrap_or(false);
        self.fleet.wake_up(any(&fds[1]));
        match polled {
            Ok(_) | Err(OsErrno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Ready {
            signal: any(&fds[0]),
            connection: any(&fds[2]),
            clients: fds[3..].iter().map(any).collect(),
        })
    }

    /// How long to wait at most.
    fn patience(&self, clients: &[Client]) -> PollTimeout {
        // Time has passed since the round began: waiting a little too long is made good by the next look at the clock.
        let mut until = self.next_slow.saturating_duration_since(self.now);
        if self.clock.held().is_none() {
            until = until.min(self.next_estimate.saturating_duration_since(self.now));
        }
        // An answer of a worker may have made a change.
        let unwritten = |journal: &Journal| journal.is_behind() && !journal.has_failed();
        let unfinished = self.fleet.has_gathered() || self.master.is_estimating();
        if unfinished || self.journal.as_ref().is_some_and(unwritten) {
            until = Duration::ZERO;
        }
        for client in clients {
            if client.has_request()
                && client.is_settled()
                && client.has_room()
                && self.fleet.has_room()
            {
                until = Duration::ZERO;
            }
            // It stopped for want of room, and then all that had been made for it could be sent.
            let able = |(_, stream): &(_, Stream)| stream.is_able(&self.answers);
            if client.has_room() && client.stream.as_ref().is_some_and(able) {
                until = Duration::ZERO;
            }
            if client.is_throttled()
                || matches!(
                    client.stream,
                    Some((_, Stream::Settle(_) | Stream::Advance(_)))
                )
            {
                until = until.min(SETTLE_LOOK);
            }
        }
        // Whole milliseconds are all that poll knows; a settling client is looked at every other one at the latest.
        PollTimeout::try_from(until.as_micros().div_ceil(1000) as i32).unwrap_or(PollTimeout::MAX)
    }

    fn accept(&self, socket: &ControlSocket, clients: &mut Vec<Client>) {
        loop {
            match socket.accept() {
                Ok(None) => return,
                Ok(Some(fd)) => {
                    if clients.len() >= CLIENTS && !self.make_room(clients) {
                        log::warn!(
                            "{CLIENTS} control clients are connected; another is turned away"
                        );
                        continue;
                    }
                    clients.push(Client::new(fd, self.now));
                }
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
                Err(error) => return log::warn!("a control client could not be accepted: {error}"),
            }
        }
    }

    /// Drops the client that has left its answers unread for longest, if that is long.
    fn make_room(&self, clients: &mut Vec<Client>) -> bool {
        let since = |client: &Client| client.stuck_since.map(|at| self.now.duration_since(at));
        let worst = (0..clients.len()).max_by_key(|i| since(&clients[*i]));
        match worst.filter(|i| since(&clients[*i]).is_some_and(|time| time >= STUCK)) {
            Some(i) => {
                clients.swap_remove(i);
                true
            }
            None => false,
        }
    }

    /// Whether a signal says to end.
    fn signalled(&mut self, signals: &SignalFd) -> bool {
        while let Ok(Some(info)) = signals.read_signal() {
            match Signal::try_from(info.ssi_signo as i32) {
                Ok(signal @ (Signal::SIGTERM | Signal::SIGINT)) => {
                    log::info!("{signal}: ending");
                    return true;
                }
                Ok(Signal::SIGHUP) => {
                    self.reload();
                }
                _ => {}
            }
        }
        false
    }

    /// What is due.
    fn clock(&mut self) {
        let time = time_by(&self.clock, self.started, self.now);
        if time >= self.next_estimate {
            self.next_estimate += stats::PERIOD;
            if self.next_estimate < time {
                self.next_estimate = time + stats::PERIOD;
            }
            if self.settings.estimates() {
                self.master.begin_estimate();
            }
        }
        // Who moves the clock wants to see it done.
        while self.master.go_on_estimating() && self.clock.held().is_some() {}
        if self.now < self.next_slow {
            return;
        }
        self.next_slow = self.now + SLOW_LOOK;
        if self.fleet.has_room() {
            self.master.empty_trash(time, &mut self.fleet);
            self.fleet.send(self.now);
        }
        // What could not be written is tried again; those whose it is have been told.
        self.write_journal(&mut []);
        self.compact();
    }
}

/// The moment that connections and rates live in.
fn time_by(clock: &Clock, started: Instant, now: Instant) -> Instant {
    clock.held().map_or(now, |moved| started + moved)
}

/// What poll found.
struct Ready {
    signal: bool,
    connection: bool,
    clients: Vec<bool>,
}

#[cfg(test)]
mod tests;
