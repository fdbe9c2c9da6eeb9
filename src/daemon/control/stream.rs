//! Answers of many parts: dumps, driven by a cursor, a page at a time as fast as the client takes them; and answers that
//! wait for workers or packets. None of them makes a worker wait or grows with what there is to show.

use std::collections::HashMap;

use ripvs_api::ipvs::{self, ServiceKey};
use ripvs_api::nl::Header;
use ripvs_api::ripvs::{Bytes, Conn, ConnsEnd, ConnsFrom, Neigh};
use ripvs_api::{ripvs, Reply};
use ripvs_core::delta::{Answer, ConnEntry, Query};

use super::advance::Advancing;
use super::client::Client;
use super::settle::Settling;
use super::Control;

/// Services or dests in a page.
const PAGE: usize = 128;
/// Pages of connections whose memory is kept.
const PAGES: usize = 4;
/// Connection records of a page.
const RECORDS: usize = 1024;

/// An answer that is under way.
pub enum Stream {
    /// Services, from this place on.
    Services(u32),
    /// Dests of a service, from this place on.
    Dests(ServiceKey, usize),
    /// Connections.
    Conns(Conns),
    /// Neighbours; the number of the question.
    Neighbours(u64),
    /// A neighbour to be deleted, once it is known whether the workers have it.
    DeleteNeighbour(u64, Neigh),
    /// Waiting for packets.
    Settle(Settling),
    /// Moving the clock.
    Advance(Advancing),
}

impl Stream {
    /// The question whose answer it waits for.
    pub fn question(&self) -> Option<u64> {
        match self {
            Stream::Conns(conns) => conns.question,
            Stream::Neighbours(question) | Stream::DeleteNeighbour(question, _) => Some(*question),
            Stream::Services(_) | Stream::Dests(..) | Stream::Settle(_) | Stream::Advance(_) => {
                None
            }
        }
    }
}

impl Stream {
    /// Whether it can go on at once, where its client has room for more; these answers have come.
    pub fn is_able(&self, answers: &HashMap<u64, Answer>) -> bool {
        match self {
            Stream::Services(_) | Stream::Dests(..) => true,
            Stream::Settle(_) | Stream::Advance(_) => false,
            Stream::Conns(_) | Stream::Neighbours(_) | Stream::DeleteNeighbour(..) => self
                .question()
                .is_some_and(|question| answers.contains_key(&question)),
        }
    }
}

/// A dump of connections.
pub struct Conns {
    worker: usize,
    cursor: u64,
    left: u32,
    question: Option<u64>,
}

/// Where in a cursor of ours the worker stands, and the bit by which a worker tells its second table.
const WORKER_AT: u32 = 48;
const WORKERS_BIT: u64 = 1 << 63;
const OUR_BIT: u64 = 1 << 47;

fn pack(worker: usize, cursor: u64) -> u64 {
    let second = if cursor & WORKERS_BIT != 0 {
        OUR_BIT
    } else {
        0
    };
    (worker as u64 + 1) << WORKER_AT | second | (cursor & (OUR_BIT - 1))
}

fn unpack(cursor: u64) -> (usize, u64) {
    let second = if cursor & OUR_BIT != 0 {
        WORKERS_BIT
    } else {
        0
    };
    match (cursor >> WORKER_AT) as usize {
        0 => (0, 0),
        worker => (worker - 1, second | (cursor & (OUR_BIT - 1))),
    }
}

impl Conns {
    /// What a request asks for.
    pub fn new(from: &ConnsFrom) -> Conns {
        let (worker, cursor) = unpack(from.cursor);
        Conns {
            worker,
            cursor,
            left: from.limit.max(1),
            question: None,
        }
    }
}

fn shown(entry: ConnEntry, worker: usize) -> Reply {
    let (pe_name, pe_data) = match entry.pe {
        Some((name, data)) => (Some(name.to_string()), Some(Bytes(data))),
        None => (None, None),
    };
    Reply::Ripvs(ripvs::Reply::Conn(Conn {
        protocol: entry.proto,
        caddr: entry.client.0,
        cport: entry.client.1,
        vaddr: entry.virt.0,
        vport: entry.virt.1,
        daddr: entry.dest.0,
        dport: entry.dest.1,
        state: entry.state.into(),
        expires_ms: u64::from(entry.expires) * 10,
        flags: entry.flags.into(),
        pe_name,
        pe_data,
        worker: worker as u16,
    }))
}

impl Control {
    /// Goes on with a client's stream as far as it can.
    pub(super) fn go_on(&mut self, client: &mut Client) {
        while client.has_room() {
            let Some((header, stream)) = client.stream.take() else {
                return;
            };
            let next = match stream {
                Stream::Services(from) => self.services(&header, from, client),
                Stream::Dests(key, from) => self.dests(&header, key, from, client),
                Stream::Conns(conns) => self.conns(&header, conns, client),
                Stream::Neighbours(question) => self.neighbours(&header, question, client),
                Stream::DeleteNeighbour(question, neigh) => {
                    self.delete_neighbour(&header, question, neigh, client)
                }
                Stream::Settle(settling) => self.settle(&header, settling, client),
                Stream::Advance(advancing) => self.advance(&header, advancing, client),
            };
            match next {
                Next::More(stream) => client.stream = Some((header, stream)),
                Next::Wait(stream) => {
                    client.stream = Some((header, stream));
                    return;
                }
                Next::End => return,
            }
        }
    }

    fn services(&mut self, header: &Header, from: u32, client: &mut Client) -> Next {
        let (page, next) = self.master.services_from(from, PAGE);
        for service in page {
            client
                .out
                .item(header, &ipvs::Reply::Service(service).into());
        }
        match next {
            Some(next) => Next::More(Stream::Services(next)),
            None => done(header, client),
        }
    }

    fn dests(
        &mut self,
        header: &Header,
        key: ServiceKey,
        from: usize,
        client: &mut Client,
    ) -> Next {
        let (page, next) = self.master.dests_from(&key, from, PAGE);
        for dest in page {
            client.out.item(header, &ipvs::Reply::Dest(dest).into());
        }
        match next {
            Some(next) => Next::More(Stream::Dests(key, next)),
            None => done(header, client),
        }
    }

    fn conns(&mut self, header: &Header, mut conns: Conns, client: &mut Client) -> Next {
        if conns.worker >= self.fleet.len() {
            return conns_end(header, None, client);
        }
        let Some(question) = conns.question else {
            self.ask_page(&mut conns);
            return Next::Wait(Stream::Conns(conns));
        };
        let Some(answer) = self.answers.remove(&question) else {
            return Next::Wait(Stream::Conns(conns));
        };
        conns.question = None;
        let Answer::Conns { mut entries, next } = answer else {
            return conns_end(header, None, client);
        };
        conns.left = conns.left.saturating_sub(entries.len() as u32);
        let worker = conns.worker;
        match next {
            Some(cursor) => conns.cursor = cursor,
            None => {
                conns.worker += 1;
                conns.cursor = 0;
            }
        }
        let is_over = conns.left == 0 || conns.worker >= self.fleet.len();
        if !is_over {
            // The worker fills the next page while this one is written down.
            self.ask_page(&mut conns);
        }
        for entry in entries.drain(..) {
            client.out.item(header, &shown(entry, worker));
        }
        if self.pages.len() < PAGES {
            self.pages.push(entries);
        }
        if is_over && conns.worker < self.fleet.len() {
            return conns_end(header, Some(pack(conns.worker, conns.cursor)), client);
        }
        Next::More(Stream::Conns(conns))
    }

    /// Asks for the page that a dump of connections goes on with.
    fn ask_page(&mut self, conns: &mut Conns) {
        let max = RECORDS.min(conns.left as usize);
        let mut into = self.pages.pop().unwrap_or_default();
        into.reserve(max);
        let query = Query::Conns {
            cursor: conns.cursor,
            max,
            into,
        };
        conns.question = self.ask(conns.worker, query);
    }

    fn neighbours(&mut self, header: &Header, question: u64, client: &mut Client) -> Next {
        match self.answers.remove(&question) {
            None => Next::Wait(Stream::Neighbours(question)),
            Some(Answer::Neighbours(list)) => {
                for entry in &list {
                    let neigh = self.network.show_neighbour(entry);
                    client.out.item(header, &ripvs::Reply::Neigh(neigh).into());
                }
                done(header, client)
            }
            Some(_) => done(header, client),
        }
    }

    fn delete_neighbour(
        &mut self,
        header: &Header,
        question: u64,
        neigh: Neigh,
        client: &mut Client,
    ) -> Next {
        let Some(answer) = self.answers.remove(&question) else {
            return Next::Wait(Stream::DeleteNeighbour(question, neigh));
        };
        let learned = match &answer {
            Answer::Neighbours(list) => list.iter().any(|e| self.network.is_neighbour(e, &neigh)),
            Answer::Conns { .. } => false,
        };
        let ended = self
            .network
            .delete_neighbour(&neigh, learned, &mut self.fleet);
        let request = ripvs::Request::DelNeigh(neigh);
        let pending = self.changed(ended, &request.into());
        client.push_pending(*header, pending);
        Next::End
    }

    fn settle(&mut self, header: &Header, mut settling: Settling, client: &mut Client) -> Next {
        match settling.look(&self.boards, &self.network, self.now) {
            None => Next::Wait(Stream::Settle(settling)),
            Some(settled) => {
                client
                    .out
                    .reply(header, &ripvs::Reply::Settled(settled).into());
                client.out.ack(header);
                Next::End
            }
        }
    }

    fn advance(&mut self, header: &Header, mut advancing: Advancing, client: &mut Client) -> Next {
        if !advancing.look(&self.boards, &self.clock) {
            return Next::Wait(Stream::Advance(advancing));
        }
        client.out.ack(header);
        Next::End
    }

    /// Asks a worker, and remembers that somebody wants the answer.
    pub(super) fn ask(&mut self, worker: usize, query: Query) -> Option<u64> {
        self.fleet.ask(worker, query)
    }
}

/// What follows a step of a stream.
enum Next {
    /// Another step, at once.
    More(Stream),
    /// Another step, when something has changed.
    Wait(Stream),
    /// Nothing.
    End,
}

fn done(header: &Header, client: &mut Client) -> Next {
    client.out.done(header);
    Next::End
}

fn conns_end(header: &Header, next: Option<u64>, client: &mut Client) -> Next {
    client
        .out
        .item(header, &ripvs::Reply::ConnsEnd(ConnsEnd { next }).into());
    done(header, client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_holds_a_worker_and_its_place() {
        assert_eq!(unpack(0), (0, 0));
        for worker in [0, 1, 127] {
            for cursor in [0, 5, WORKERS_BIT, WORKERS_BIT | 123_456_789] {
                assert_eq!(unpack(pack(worker, cursor)), (worker, cursor));
                assert_ne!(pack(worker, cursor), 0, "0 asks for the beginning");
            }
        }
    }
}
