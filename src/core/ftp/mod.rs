//! The FTP helper: looks into the control connections of NAT services on its ports, expects the data connections that they
//! announce, and writes the virtual address into what servers say of theirs.
//!
//! Follows net/netfilter/ipvs/ip_vs_ftp.c, the checks of ip_vs_proto_tcp.c around it, and nf_nat_mangle_tcp_packet. The words
//! are read in `words.rs`, payloads changed in `splice.rs`, numbers shifted in `seq.rs`, connections expected in `expect.rs`.
//! With the helper off a packet costs the look at one flag of its connection.

mod expect;
mod splice;
#[cfg(test)]
mod tests;
mod words;

use std::io::Write;
use std::sync::Arc;

use hashbrown::HashMap;
use ripvs_packet::{sctp, tcp, udp, Frame};

use crate::conn::{ConnId, Flags};
use crate::flow::Path;
use crate::frag::Pieces;
use crate::message::{ConnRef, Expected, ExpectedStage};
use crate::packet::Packet;
use crate::rewrite::{translate, End, Side};
use crate::seq::Shift;
use crate::spec::Forward;
use crate::state;
use crate::types::proto;
use crate::verdict::Drop;
use crate::worker::{Tables, Worker};
use words::{Command, Listens};

/// Most control connections of one worker's of which anything is kept: those that asked for passive mode.
const SESSIONS_MAX: usize = 1 << 16;

/// What a client asked for that its server has not answered yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Waits {
    /// Nothing.
    #[default]
    Nothing,
    /// PASV.
    Passive,
    /// EPSV.
    Extended,
}

/// What is kept of a control connection.
#[derive(Clone, Copy, Debug, Default)]
struct Session {
    waits: Waits,
    /// The shift of the server's numbers.
    shift: Shift,
    /// The number of the server's packet that was last written anew, and what it answered: sent again, it is once more.
    answered: Option<(u32, Waits)>,
}

/// The helper of one worker.
#[derive(Debug, Default)]
pub(crate) struct Ftp {
    /// Virtual ports of control connections; none: the helper is off.
    ports: Arc<[u16]>,
    /// By family (IPv6 or not) and record.
    sessions: HashMap<(bool, ConnId), Session>,
    /// Where payloads are put together that lie in several segments; kept for its memory.
    scratch: Vec<u8>,
}

impl Ftp {
    /// Looks into connections to these virtual ports from now on. Those that are looked into already stay so.
    pub fn set_ports(&mut self, ports: Arc<[u16]>) {
        if !ports.is_empty() {
            // At once rather than while packets wait.
            self.sessions
                .reserve(SESSIONS_MAX.saturating_sub(self.sessions.len()));
        }
        self.ports = ports;
    }

    /// Whether the helper is on.
    pub fn is_on(&self) -> bool {
        !self.ports.is_empty()
    }

    /// The virtual ports of control connections.
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// The flag of a new connection that is to be looked into (`tcp_app_conn_bind`: only under NAT).
    pub fn flag(&self, protocol: u8, vport: u16, forward: Forward) -> Flags {
        if protocol == proto::TCP && forward == Forward::Masq && self.ports.contains(&vport) {
            Flags::APP
        } else {
            Flags::NONE
        }
    }

    /// A connection that was looked into is gone.
    pub fn forget(&mut self, v6: bool, id: ConnId) {
        self.sessions.remove(&(v6, id));
    }

    /// Notes what a client asked for.
    ///
    /// # Errors
    /// There is no room for another session.
    fn ask(&mut self, at: (bool, ConnId), waits: Waits) -> Result<(), Drop> {
        if let Some(session) = self.sessions.get_mut(&at) {
            session.waits = waits;
        } else if waits != Waits::Nothing {
            if self.sessions.len() >= SESSIONS_MAX {
                return Err(Drop::FtpFull);
            }
            let session = Session {
                waits,
                ..Session::default()
            };
            self.sessions.insert(at, session);
        }
        Ok(())
    }
}

/// What the helper has done to a packet, or is to do with it.
struct Helped<F> {
    /// The data connection that it announces.
    expected: Option<Expected<F>>,
    /// Whether its payload was changed, so that its checksum is wrong.
    changed: bool,
}

impl<F> Default for Helped<F> {
    fn default() -> Self {
        Helped {
            expected: None,
            changed: false,
        }
    }
}

impl<F: Frame> Worker<F> {
    /// Translates one side of a packet of a connection from `old` to `new`, and does what the helper has to do with it. Where
    /// it announces a data connection, it is not to leave before that is expected: see [`Worker::announce`].
    ///
    /// # Errors
    /// Why the packet is to be dropped.
    pub(crate) fn translate_conn<A: Tables<F>>(
        &mut self,
        pkt: &mut Packet<F>,
        path: &Path<A>,
        side: Side,
        old: End<A>,
        new: End<A>,
    ) -> Result<Option<Expected<F>>, Drop> {
        if pkt.pieces.is_some() {
            let rewritten = match pkt.info.protocol {
                proto::TCP => tcp::HEADER_LEN,
                proto::UDP => udp::HEADER_LEN,
                proto::SCTP => sctp::HEADER_LEN,
                _ => 0,
            };
            pkt.pull_pieces(usize::from(pkt.info.l4_offset) + rewritten);
        }
        if path.app {
            return self.translate_helped(pkt, path, side, old, new);
        }
        let (l3, l4) = (pkt.l3, usize::from(pkt.info.l4_offset));
        match translate(&mut pkt.frame, l3, l4, pkt.info.protocol, side, old, new) {
            true => Ok(None),
            false => Err(Drop::Truncated),
        }
    }

    /// [`Worker::translate_conn`] for a control connection.
    fn translate_helped<A: Tables<F>>(
        &mut self,
        pkt: &mut Packet<F>,
        path: &Path<A>,
        side: Side,
        old: End<A>,
        new: End<A>,
    ) -> Result<Option<Expected<F>>, Drop> {
        if !splice::is_valid::<A, F>(pkt) {
            return Err(Drop::BadChecksum);
        }
        // Read through, it is one buffer (`skb_ensure_writable` of the whole).
        if self.is_established::<A>(path) {
            pkt.pieces = pkt.pieces.take().map(Pieces::merged);
        }
        let helped = match side {
            Side::Destination => self.heed_client(pkt, path)?,
            Side::Source => self.heed_server(pkt, path)?,
        };
        let (l3, l4) = (pkt.l3, usize::from(pkt.info.l4_offset));
        if !translate(&mut pkt.frame, l3, l4, pkt.info.protocol, side, old, new) {
            return Err(Drop::Truncated);
        }
        self.shift_numbers(pkt, path, side)?;
        if helped.changed {
            splice::seal::<A, F>(pkt);
        }
        Ok(helped.expected)
    }

    /// Reads a client's packet (`ip_vs_ftp_in`).
    fn heed_client<A: Tables<F>>(
        &mut self,
        pkt: &Packet<F>,
        path: &Path<A>,
    ) -> Result<Helped<F>, Drop> {
        let Some((id, at)) = self.talk(pkt, path) else {
            return Ok(Helped::default());
        };
        let Some(command) = self.with_payload(pkt, at, words::command::<A>) else {
            return Ok(Helped::default());
        };
        let session = (A::IS_V6, id);
        let (addr, port) = match command {
            Command::Passive => {
                self.ftp.ask(session, Waits::Passive)?;
                return Ok(Helped::default());
            }
            Command::ExtendedPassive => {
                self.ftp.ask(session, Waits::Extended)?;
                return Ok(Helped::default());
            }
            Command::Active(addr, port) => (addr, port),
        };
        self.ftp.ask(session, Waits::Nothing)?;
        // The server connects from the port below its own.
        let below = |end: End<A>| End {
            port: end.port.wrapping_sub(1),
            ..end
        };
        let client = End { addr, port };
        let expected = self.expectation(path, client, below(path.virt), below(path.server), false);
        Ok(Helped {
            expected: Some(expected.ok_or(Drop::ConnTableFull)?),
            changed: false,
        })
    }

    /// Reads a server's packet, and writes the virtual address into it (`ip_vs_ftp_out`).
    fn heed_server<A: Tables<F>>(
        &mut self,
        pkt: &mut Packet<F>,
        path: &Path<A>,
    ) -> Result<Helped<F>, Drop> {
        let Some((id, at)) = self.talk(pkt, path) else {
            return Ok(Helped::default());
        };
        let Some(session) = self.ftp.sessions.get(&(A::IS_V6, id)).copied() else {
            return Ok(Helped::default());
        };
        let seq = pkt
            .transport()
            .get(tcp::SEQ..)
            .and_then(|bytes| bytes.first_chunk());
        let seq = seq.map_or(0, |bytes| u32::from_be_bytes(*bytes));
        // The kernel lets an answer that is sent again pass as it is, which leaves the client with the wrong numbers.
        let waits = match (session.waits, session.answered) {
            (Waits::Nothing, Some((again, waits))) if again == seq => waits,
            (waits, _) => waits,
        };
        let server = path.server.addr;
        let found: Option<Listens<A>> = match waits {
            Waits::Nothing => None,
            Waits::Passive => self.with_payload(pkt, at, words::passive::<A>),
            Waits::Extended => {
                self.with_payload(pkt, at, |data| words::extended_passive::<A>(data, server))
            }
        };
        let Some(found) = found else {
            return Ok(Helped::default());
        };
        let listens = End {
            addr: found.addr,
            port: found.port,
        };
        let client = End {
            port: 0,
            ..path.client
        };
        let virt = End {
            port: found.port,
            ..path.virt
        };
        let virt = self.known_virtual(client, listens).unwrap_or(virt);
        let mut text = [0; 24];
        let room = text.len();
        let mut rest = &mut text[..];
        let port = virt.port;
        let written = match (waits, virt.addr.as_ref()) {
            (Waits::Passive, [a, b, c, d]) => {
                write!(rest, "{a},{b},{c},{d},{},{}", port >> 8, port & 0xff)
            }
            _ => write!(rest, "|||{port}|"),
        };
        let len = room - rest.len();
        // It always fits: the longest is "255,255,255,255,255,255".
        written.map_err(|_| Drop::Truncated)?;
        let by = len as i32 - found.text.len() as i32;
        let place = at + found.text.start..at + found.text.end;
        splice::replace::<A, F>(pkt, place, &text[..len])?;
        let expected = self
            .expectation(path, client, virt, listens, true)
            .ok_or(Drop::ConnTableFull)?;
        if let Some(session) = self.ftp.sessions.get_mut(&(A::IS_V6, id)) {
            session.waits = Waits::Nothing;
            session.shift.change(seq, by);
            session.answered = Some((seq, waits));
        }
        Ok(Helped {
            expected: Some(expected),
            changed: true,
        })
    }

    fn is_established<A: Tables<F>>(&self, path: &Path<A>) -> bool {
        let record = path.id.and_then(|id| A::table(self).get(id));
        record.is_some_and(|record| record.state == state::tcp::ESTABLISHED)
    }

    /// The control connection that a packet with a payload belongs to, if it is established, and where the payload begins.
    fn talk<A: Tables<F>>(&self, pkt: &Packet<F>, path: &Path<A>) -> Option<(ConnId, usize)> {
        let id = path.id?;
        let record = A::table(self).get(id)?;
        if record.state != state::tcp::ESTABLISHED {
            return None;
        }
        Some((id, splice::payload_at(pkt)?))
    }

    /// Reads the payload that begins `at` bytes behind the IP header.
    fn with_payload<T>(&mut self, pkt: &Packet<F>, at: usize, read: impl FnOnce(&[u8]) -> T) -> T {
        let len = pkt.info.l4_len().saturating_sub(at);
        if let Some(payload) = pkt.transport().get(at..at + len) {
            return read(payload);
        }
        let mut scratch = std::mem::take(&mut self.ftp.scratch);
        scratch.resize(len, 0);
        let from = pkt.l3 + usize::from(pkt.info.l4_offset) + at;
        let copied = pkt.frame.copy_to(from, &mut scratch);
        let result = read(&scratch[..copied]);
        self.ftp.scratch = scratch;
        result
    }

    /// Shifts the numbers of a packet by what was put into earlier ones.
    fn shift_numbers<A: Tables<F>>(
        &mut self,
        pkt: &mut Packet<F>,
        path: &Path<A>,
        side: Side,
    ) -> Result<(), Drop> {
        let session = path
            .id
            .and_then(|id| self.ftp.sessions.get(&(A::IS_V6, id)));
        let Some(shift) = session
            .map(|session| session.shift)
            .filter(|shift| !shift.is_none())
        else {
            return Ok(());
        };
        let at = pkt.l3 + usize::from(pkt.info.l4_offset);
        let header = pkt
            .transport()
            .get(tcp::DATA_OFFSET)
            .map_or(0, |byte| byte >> 4);
        let end = at + (usize::from(header) * 4).max(tcp::HEADER_LEN);
        if !pkt.frame.pull(end) || pkt.frame.head().len() < end {
            return Err(Drop::Truncated);
        }
        let segment = &mut pkt.frame.head_mut()[at..end];
        match side {
            Side::Source => shift.sequence(segment),
            Side::Destination => shift
                .acknowledgement(segment)
                .map_err(|_| Drop::BadOption)?,
        }
        Ok(())
    }

    /// A data connection to come, counted at its control connection. None where that has as many as it can.
    fn expectation<A: Tables<F>>(
        &mut self,
        path: &Path<A>,
        client: End<A>,
        virt: End<A>,
        server: End<A>,
        open: bool,
    ) -> Option<Expected<F>> {
        let id = path.id?;
        let record = A::table_mut(self).get_mut(id)?;
        if !record.add_controlled() {
            return None;
        }
        let (service, chooser) = (record.service(), record.chooser());
        let ip = |end: End<A>| (A::to_ip(end.addr), end.port);
        let target = match open {
            true => self.owners.of_expected(A::to_ip(client.addr)),
            false => self.owners.of_client(A::to_ip(client.addr), client.port),
        };
        Some(Expected {
            data: crate::message::DataConn {
                client: ip(client),
                virt: ip(virt),
                server: ip(server),
                dest: path.dest,
                service,
                control: ConnRef {
                    worker: self.id,
                    id,
                },
                chooser,
            },
            open,
            target,
            stage: ExpectedStage::Find,
            packet: None,
        })
    }
}
