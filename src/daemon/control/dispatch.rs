//! A command's life after decoding: to the tables it is about, and what is answered. Changes are written to the journal
//! before they are answered, and answered when every worker has applied them.

use std::time::Duration;

use ripvs_api::ipvs::{self, Info, Timeouts};
use ripvs_api::nl::Header;
use ripvs_api::ripvs::{self, Verdicts};
use ripvs_api::{ctrl, Errno, Refusal, Reply, Request};
use ripvs_core::delta::Query;
use ripvs_packet::PortId;

use super::advance::Advancing;
use super::client::{wedged, Client, Pending};
use super::restore::{outlives, unwritten};
use super::settle::Settling;
use super::stream::{Conns, Stream};
use super::Control;

/// IP Virtual Server version 1.2.1, as `NVERSION` takes it apart.
const IPVS_VERSION: u32 = 0x01_02_01;
/// The size of the kernel's connection table where nobody set another, which listings show.
const CONN_TAB_SIZE: u32 = 1 << 12;

/// What becomes of a request.
enum Outcome {
    /// One reply, and an acknowledgement.
    Reply(Reply),
    /// A dump that is complete.
    Dump(Vec<Reply>),
    /// An answer of many parts.
    Stream(Stream),
    /// A change, or why it isn't one.
    Change(Result<(), Refusal>),
    /// No answer of any kind but an acknowledgement, if one is wanted.
    Nothing,
}

impl Control {
    /// Begins a client's request.
    pub(super) fn begin(
        &mut self,
        header: Header,
        request: Result<Request, Errno>,
        client: &mut Client,
    ) {
        let request = match request {
            Ok(request) => request,
            Err(errno) => return client.push_pending(header, Pending::Refused(errno.into())),
        };
        if is_change(&request) {
            if let Err(refusal) = self.may_change() {
                return client.push_pending(header, Pending::Refused(refusal));
            }
        }
        match self.outcome(&request) {
            Err(refusal) => client.push_pending(header, Pending::Refused(refusal)),
            Ok(Outcome::Change(ended)) => {
                let pending = self.changed(ended, &request);
                client.push_pending(header, pending);
            }
            Ok(Outcome::Reply(reply)) => {
                client.out.reply(&header, &reply);
                client.out.ack(&header);
            }
            Ok(Outcome::Dump(replies)) => {
                for reply in &replies {
                    client.out.item(&header, reply);
                }
                client.out.done(&header);
            }
            Ok(Outcome::Stream(stream)) => client.stream = Some((header, stream)),
            Ok(Outcome::Nothing) => client.out.ack(&header),
        }
    }

    /// Whether changes can be taken at all.
    ///
    /// # Errors
    /// A worker makes no progress, or too much waits for the journal.
    fn may_change(&self) -> Result<(), Refusal> {
        self.fleet.ready().map_err(wedged)?;
        match &self.journal {
            Some(journal) if !journal.has_room() => Err(Refusal::new(
                Errno::NOSPC,
                "not done: the journal cannot be written to, and too many changes wait for it",
            )),
            _ => Ok(()),
        }
    }

    /// A change that the tables have taken or refused: noted for the journal, and to be answered when it is written there
    /// and applied.
    pub(super) fn changed(&mut self, ended: Result<(), Refusal>, request: &Request) -> Pending {
        if let Err(refusal) = ended {
            return Pending::Refused(refusal);
        }
        let mut noted = None;
        let journal = self.journal.as_mut().filter(|_| outlives(request));
        if let Some(journal) = journal {
            self.message.clear();
            request.encode(0, &mut self.message);
            if let Err(error) = journal.append(self.message.as_bytes()) {
                return Pending::Refused(unwritten(&error));
            }
            noted = Some(journal.batch());
        }
        Pending::Applied(self.fleet.ticket(), noted)
    }

    /// Applies a request out of the journal.
    ///
    /// # Errors
    /// As for a client.
    pub(super) fn replay(&mut self, request: &Request) -> Result<(), Refusal> {
        if let Request::Ripvs(ripvs::Request::DelNeigh(neigh)) = request {
            return self.network.delete_neighbour(neigh, true, &mut self.fleet);
        }
        match self.outcome(request)? {
            Outcome::Change(ended) => ended,
            _ => Err(Errno::INVAL.into()),
        }
    }

    fn outcome(&mut self, request: &Request) -> Result<Outcome, Refusal> {
        match request {
            Request::Nothing => Ok(Outcome::Nothing),
            Request::Families(query) => {
                let families = query.answer()?.into_iter().map(Reply::Family);
                Ok(match query {
                    ctrl::Query::All => Outcome::Dump(families.collect()),
                    _ => one(families),
                })
            }
            Request::Ipvs(request) => self.ipvs(request),
            Request::Ripvs(request) => self.ripvs(request),
        }
    }

    /// The kernel's family.
    fn ipvs(&mut self, request: &ipvs::Request) -> Result<Outcome, Refusal> {
        use ipvs::Request as R;
        let (master, fleet, around) = (&mut self.master, &mut self.fleet, &self.network);
        let ended = match request {
            R::NewService(key, config) => master.add_service(key, config, fleet),
            R::SetService(key, config) => master.edit_service(key, config, fleet),
            R::DelService(key) => master.delete_service(key, fleet),
            R::NewDest(key, dest) => master.add_dest(key, *dest, around, fleet),
            R::SetDest(key, dest) => master.edit_dest(key, *dest, fleet),
            R::DelDest(key, dest) => master.delete_dest(key, *dest, fleet),
            R::Flush => {
                master.flush(fleet);
                Ok(())
            }
            R::Zero(key) => master.zero(key.as_ref()),
            R::NewDaemon(daemon) => master.start_sync(daemon.clone(), around),
            R::DelDaemon(daemon) => master.stop_sync(daemon),
            R::SetConfig(timeouts) => self.settings.set_timeouts(timeouts, fleet),
            R::GetService(key) => {
                let service = master.show_service(key)?;
                return Ok(Outcome::Reply(ipvs::Reply::Service(service).into()));
            }
            R::DumpServices => return Ok(Outcome::Stream(Stream::Services(0))),
            R::DumpDests(Some(key)) => return Ok(Outcome::Stream(Stream::Dests(*key, 0))),
            R::DumpDests(None) => return Ok(Outcome::Dump(Vec::new())),
            R::DumpDaemons => {
                let all = master.sync_daemons().cloned().map(ipvs::Reply::Daemon);
                return Ok(Outcome::Dump(all.map(Reply::from).collect()));
            }
            R::GetConfig => {
                let [tcp, tcp_fin, udp] = self.settings.timeouts().map(Some);
                let timeouts = Timeouts { tcp, tcp_fin, udp };
                return Ok(Outcome::Reply(ipvs::Reply::Config(timeouts).into()));
            }
            R::GetInfo => {
                let info = Info {
                    version: IPVS_VERSION,
                    conn_tab_size: CONN_TAB_SIZE,
                };
                return Ok(Outcome::Reply(ipvs::Reply::Info(info).into()));
            }
        };
        Ok(Outcome::Change(ended.map_err(Refusal::from)))
    }

    /// Our family.
    fn ripvs(&mut self, request: &ripvs::Request) -> Result<Outcome, Refusal> {
        use ripvs::{Reply as A, Request as R};
        let (network, fleet) = (&mut self.network, &mut self.fleet);
        let ended = match request {
            R::SetPort(change) => network.change_port(change, fleet),
            R::AddAddr(addr) => network.add_address(addr, fleet),
            R::DelAddr(addr) => network.delete_address(addr, fleet),
            R::AddRoute(route) => network.add_route(route, fleet),
            R::DelRoute(route) => network.delete_route(route, fleet),
            R::AddNeigh(neigh) => network.add_neighbour(neigh, fleet),
            R::AddMark(rule) => network.add_mark(rule, fleet),
            R::DelMark(rule) => network.delete_mark(rule, fleet),
            R::AddDivert(divert) => network.add_divert(divert, fleet),
            R::DelDivert(divert) => network.delete_divert(divert, fleet),
            R::SetSysctl(sysctl) => self.settings.set(sysctl, fleet),
            R::SetServiceExact(said) => self.master.set_exact(said, fleet).map_err(Refusal::from),
            R::DelNeigh(neigh) => {
                let stream = |question| Stream::DeleteNeighbour(question, neigh.clone());
                return self.asked(Query::Neighbours, stream);
            }
            R::Neighs => return self.asked(Query::Neighbours, Stream::Neighbours),
            R::Conns(from) => return Ok(Outcome::Stream(Stream::Conns(Conns::new(from)))),
            R::Settle(asked) => {
                let begun = Settling::begin(asked, &self.network, self.now);
                let settling = begun
                    .map_err(|name| Refusal::new(Errno::NODEV, format!("`{name}` is no port")))?;
                return Ok(Outcome::Stream(Stream::Settle(settling)));
            }
            R::Advance(asked) => {
                if self.clock.held().is_none() {
                    let text = "the clock goes by itself: `clock = \"held\"` would hold it";
                    return Err(Refusal::new(Errno::OPNOTSUPP, text));
                }
                let by = Duration::from_millis(asked.by_ms);
                let advancing = Advancing::begin(by, &self.boards);
                return Ok(Outcome::Stream(Stream::Advance(advancing)));
            }
            R::Status => return Ok(Outcome::Reply(A::Status(self.status()).into())),
            R::Verdicts => return Ok(Outcome::Reply(A::Verdicts(self.verdicts()).into())),
            R::GetSysctl(name) => {
                let sysctl = self.settings.show(&name.name)?;
                return Ok(Outcome::Reply(A::Sysctl(sysctl).into()));
            }
            R::Traffic => return Ok(dump(self.traffic().into_iter().map(A::Traffic))),
            R::Workers => return Ok(dump(self.workers().into_iter().map(A::Worker))),
            R::Ports => {
                return Ok(dump(
                    network.show_ports(&self.boards).into_iter().map(A::Port),
                ))
            }
            R::Addrs => return Ok(dump(network.show_addresses().into_iter().map(A::Addr))),
            R::Routes => return Ok(dump(network.show_routes().into_iter().map(A::Route))),
            R::Marks => return Ok(dump(network.show_marks().iter().cloned().map(A::Mark))),
            R::Diverts => return Ok(dump(network.show_diverts().map(A::Divert))),
            R::ServiceExacts => {
                let said = self.master.exactness().list();
                return Ok(dump(said.into_iter().map(A::ServiceExact)));
            }
            R::Sysctls => return Ok(dump(self.settings.show_all().into_iter().map(A::Sysctl))),
        };
        Ok(Outcome::Change(ended))
    }

    /// A stream that begins with a question to the worker that resolves neighbours.
    fn asked(
        &mut self,
        query: Query,
        stream: impl FnOnce(u64) -> Stream,
    ) -> Result<Outcome, Refusal> {
        let question = self.ask(0, query).ok_or_else(|| wedged(0))?;
        Ok(Outcome::Stream(stream(question)))
    }

    fn verdicts(&self) -> Verdicts {
        use ripvs_core::verdict::{Drop, Held};
        let counters = self.boards.counters();
        let count = |name: &str, count: u64| ripvs::Count {
            name: name.to_string(),
            count,
        };
        Verdicts {
            received: counters.received,
            generated: counters.generated,
            forwarded: counters.forwarded,
            host: counters.host,
            answered: counters.answered,
            dropped: Drop::ALL
                .iter()
                .map(|(reason, name, _)| count(name, counters.dropped_for(*reason)))
                .collect(),
            held: Held::ALL
                .iter()
                .map(|(place, name)| count(name, counters.held[*place as usize]))
                .collect(),
        }
    }

    fn traffic(&self) -> Vec<ripvs::Traffic> {
        let worker = |id| ripvs::Traffic::new(Some(id as u16), &self.master.worker_stats(id));
        let sum = ripvs::Traffic::new(None, &self.master.total_stats());
        (0..self.fleet.len()).map(worker).chain([sum]).collect()
    }

    fn workers(&self) -> Vec<ripvs::Worker> {
        let boards = self.boards.0.iter().enumerate();
        boards
            .map(|(id, board)| {
                let (rounds, counters) = (board.rounds(), board.counters());
                let sent = (0..self.port_count)
                    .map(|port| board.port(PortId(port)).tx_packets)
                    .sum();
                ripvs::Worker {
                    id: id as u16,
                    core: self.cores.get(id).copied().flatten(),
                    conns: rounds.conns,
                    received: counters.received,
                    sent,
                    handed_over: rounds.handed_over,
                    ring_full: rounds.ring_full,
                    busy_bursts: rounds.busy,
                    idle_bursts: rounds.idle,
                }
            })
            .collect()
    }

    fn status(&self) -> ripvs::Status {
        let (services, dests) = self.master.counts();
        ripvs::Status {
            version: env!("CARGO_PKG_VERSION").to_string(),
            pid: std::process::id(),
            uptime_ms: self.now.duration_since(self.started).as_millis() as u64,
            workers: self.fleet.len() as u16,
            services: services as u64,
            dests: dests as u64,
            conns: self.boards.0.iter().map(|board| board.rounds().conns).sum(),
            conn_limit: self.conn_limit,
            dpdk: self.dpdk.clone(),
        }
    }
}

fn dump(replies: impl Iterator<Item = ripvs::Reply>) -> Outcome {
    Outcome::Dump(replies.map(Reply::from).collect())
}

/// The one reply to a question for one thing.
fn one(mut replies: impl Iterator<Item = Reply>) -> Outcome {
    replies.next().map_or(Outcome::Nothing, Outcome::Reply)
}

/// Whether a request changes something, so that workers have to be told.
pub(super) fn is_change(request: &Request) -> bool {
    match request {
        Request::Nothing | Request::Families(_) => false,
        Request::Ipvs(request) => {
            use ipvs::Request as R;
            !request.is_dump() && !matches!(request, R::GetService(_) | R::GetConfig | R::GetInfo)
        }
        Request::Ripvs(request) => {
            use ripvs::Request as R;
            !request.is_dump()
                && !matches!(
                    request,
                    R::Status | R::Verdicts | R::GetSysctl(_) | R::Settle(_) | R::Advance(_)
                )
        }
    }
}
