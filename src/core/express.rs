//! The express way: what a packet of an established connection needs where nothing is out of the ordinary. A burst at a time
//! and in three steps, so that nobody waits for memory: what the headers say and the hash of the connection's key; the
//! connection that the index suggests; then everything else.
//!
//! Nothing is decided here that `datapath.rs` does not decide as well, and nothing is changed before all is known to be in
//! order: whatever is not goes the ordinary way, untouched. What makes the checks few:
//!
//! - The record says that such a packet was let through before, and the number of its way out (`hop.rs`) says that no
//!   address, route, interface, setting or mark rule has changed since. So the addresses need no second look.
//! - A first packet's connection is made before (`first.rs`), and then it is one of a known connection.
//! - Later SYNs, fragments, options, extension headers, protocols other than TCP and UDP, what came to a group address, and
//!   connections with a helper are never taken.

use std::vec::Drain;

use ripvs_packet::{tcp, udp, Frame, PortId};

use crate::conn::{ConnId, ConnTable, Flags, Key, Record};
use crate::family::{V4, V6};
use crate::glance::{Glance, Way};
use crate::hop::HopNumber;
use crate::ledger::{Ledger, Sums};
use crate::plain::{Parts, Plain, Rules};
use crate::recent::Recent;
use crate::rewrite::{translate_ip, End, Side};
use crate::spec::Forward;
use crate::state::{self, Direction, Signal, Step};
use crate::tunnel::{InIp, Wrapping};
use crate::types::{proto, Tick, Time};
use crate::worker::{Io, Tables, Worker};

/// Records with any of these flags are not for this way.
const UNUSUAL: Flags = Flags::ONE_PACKET
    .with(Flags::APP)
    .with(Flags::IN_SEQ)
    .with(Flags::OUT_SEQ);

/// Packets of a burst for whose counters is asked together, where that pays: as many as take about as long as memory does.
const PIECE: usize = 8;

/// What the packet is to its connection. `None` for a SYN, which may begin another one, unless it is the `FIRST`.
#[inline(always)]
fn signal<A: Plain, const FIRST: bool>(ip: &[u8], protocol: u8) -> Option<Signal> {
    if protocol == proto::UDP {
        return Some(Signal::Udp);
    }
    let flags = *ip.get(A::HEADER + tcp::FLAGS)?;
    (FIRST || flags & tcp::SYN == 0).then_some(Signal::Tcp(flags))
}

/// Whether the packet is a UDP datagram without a checksum.
#[inline(always)]
fn lacks_checksum<A: Plain>(ip: &[u8], protocol: u8) -> bool {
    let field = ip.get(A::HEADER + udp::CHECKSUM..A::HEADER + udp::CHECKSUM + 2);
    protocol == proto::UDP && field == Some(&[0, 0])
}

/// A value that is there; without it the packet goes the ordinary way.
macro_rules! usual {
    ($frame:ident, $value:expr) => {
        match $value {
            Some(value) => value,
            None => return Err($frame),
        }
    };
}

/// When a burst came.
#[derive(Clone, Copy, Debug)]
struct Moment {
    now: Time,
    /// The same in ticks.
    tick: Tick,
    /// Whether one of its packets went the ordinary way: it may have made or ended connections, or brought news of
    /// neighbours; or one began a connection under NAT, which may be newer than what the index suggested for a reply.
    disturbed: bool,
}

impl Moment {
    /// The connection that the index suggests now.
    #[inline(always)]
    fn found<A: Plain>(&self, glance: &Glance, table: &ConnTable<A>) -> ConnId {
        match self.disturbed {
            true => table.suggest(glance.hash),
            false => glance.found,
        }
    }
}

impl<F: Frame> Worker<F> {
    /// Takes a burst of frames from a port.
    pub fn burst(&mut self, now: Time, port: PortId, frames: &mut Vec<F>, io: &mut impl Io<F>) {
        self.net.counters.received += frames.len() as u64;
        self.take(now, port, true, frames, io);
        self.send_own_errors(now, io);
        self.flush(io);
    }

    /// Takes frames. `fresh`: nobody has asked yet which worker they are for.
    pub(crate) fn take(
        &mut self,
        now: Time,
        port: PortId,
        fresh: bool,
        frames: &mut Vec<F>,
        io: &mut impl Io<F>,
    ) {
        self.hops.note_time(now);
        self.over_port = port;
        let mut glances = std::mem::take(&mut self.glances);
        // What is to an address of services that are gone is for `input.rs` to judge.
        let shared = fresh && self.workers > 1 && !self.services.any_outlived();
        self.foresee(port, shared, frames, &mut glances);
        if shared {
            self.part(frames, &mut glances);
            self.ask(&glances);
        }
        self.suggest(&mut glances);
        let mut moment = Moment {
            now,
            tick: now.tick(),
            disturbed: false,
        };
        let mut frames = frames.drain(..);
        // Where there are very many dests, each piece's counters are asked for while the one before is dealt with: by then its
        // records have come, which say whose counters they are.
        let many = self.services.ledger().is_very_large();
        let mut pieces = glances.chunks(if many { PIECE } else { usize::MAX });
        let mut next = pieces.next().unwrap_or_default();
        if many {
            self.foresee_counters(next);
        }
        while !next.is_empty() {
            let piece = std::mem::replace(&mut next, pieces.next().unwrap_or_default());
            if many {
                self.foresee_counters(next);
            }
            self.take_piece(&mut moment, (port, fresh), &mut frames, piece, io);
        }
        drop(frames);
        self.glances = glances;
        self.sums.end(&self.total);
        self.hand_over_all();
    }

    /// Takes the frames of some glances.
    #[inline(always)]
    fn take_piece(
        &mut self,
        moment: &mut Moment,
        (port, fresh): (PortId, bool),
        frames: &mut Drain<'_, F>,
        mut left: &[Glance],
        io: &mut impl Io<F>,
    ) {
        while let Some(glance) = left.first() {
            let (taken, unusual) = match glance.way {
                Way::In4 => self.run::<V4, true>(moment, frames, left, io),
                Way::Out4 => self.run::<V4, false>(moment, frames, left, io),
                Way::In6 => self.run::<V6, true>(moment, frames, left, io),
                Way::Out6 => self.run::<V6, false>(moment, frames, left, io),
                Way::Ordinary => (1, frames.next()),
                Way::Over => {
                    self.put_over(glance.owner, frames.next());
                    (1, None)
                }
            };
            let (done, rest) = left.split_at(taken);
            left = rest;
            if let Some(frame) = unusual {
                let hash = |local| done.last().map_or(0, |glance| glance.hash(local));
                self.ordinary(moment.now, port, frame, (fresh, hash), io);
                self.hops.look_again();
                moment.disturbed = true;
            }
        }
    }

    /// Takes packets of one kind, one after the other, until another kind comes or one is unusual. Returns how many it took
    /// from the burst, and the unusual one, untouched, if it ended there.
    #[inline(never)]
    fn run<A: Tables<F>, const IN: bool>(
        &mut self,
        burst: &mut Moment,
        frames: &mut Drain<'_, F>,
        glances: &[Glance],
        io: &mut impl Io<F>,
    ) -> (usize, Option<F>) {
        let way = if IN { A::IN } else { A::OUT };
        // A copy, for the sake of registers.
        let mut moment = *burst;
        let mut left = glances;
        let mut unusual = None;
        while let Some((glance, rest)) = left.split_first().filter(|(next, _)| next.way == way) {
            let Some(frame) = frames.next() else { break };
            left = rest;
            let passed = if IN {
                self.inbound::<A, false>(moment, glance, frame, io)
            } else {
                self.outbound::<A>(moment, glance, frame, io)
            };
            let Err(frame) = passed else { continue };
            let passed = if IN && self.net.vip_hints().crowded() {
                moment.disturbed |= A::table_mut(self).settle_late();
                self.answer_after_all::<A>(moment, glance, frame, io)
            } else {
                Err(frame)
            };
            if let Err(frame) = passed {
                unusual = Some(frame);
                break;
            }
        }
        if IN {
            burst.disturbed = moment.disturbed | A::table_mut(self).settle_late();
        }
        (glances.len() - left.len(), unusual)
    }

    /// A packet that was taken for a client's, but is not to a virtual address.
    #[inline(never)]
    fn answer_after_all<A: Tables<F>>(
        &mut self,
        moment: Moment,
        glance: &Glance,
        frame: F,
        io: &mut impl Io<F>,
    ) -> Result<(), F> {
        let ip = frame.head().get(usize::from(glance.l3)..);
        let start = usual!(frame, ip.and_then(A::start));
        if self.net.is_vip(A::to_ip(A::destination(start).0)) {
            return Err(frame);
        }
        let table = A::table(self);
        let hash = table.hash_of(&A::answer(start));
        let glance = Glance {
            way: A::OUT,
            hash,
            found: table.suggest(hash),
            ..*glance
        };
        self.outbound::<A>(moment, &glance, frame, io)
    }

    /// A client's packet of no known connection: the first of one, perhaps.
    #[inline(never)]
    fn first<A: Tables<F>>(
        &mut self,
        moment: Moment,
        glance: &Glance,
        frame: F,
        io: &mut impl Io<F>,
    ) -> Result<(), F> {
        let ip = usual!(frame, frame.head().get(usize::from(glance.l3)..));
        let start = usual!(frame, A::start(ip));
        let ((caddr, cport), (vaddr, vport)) = (A::source(start), A::destination(start));
        let key = Key {
            proto: A::protocol(start),
            caddr,
            cport,
            vaddr,
            vport,
        };
        let signal = usual!(frame, signal::<A, true>(ip, key.proto));
        let opened = self.open::<A>(moment.now, &key, glance.hash, signal);
        let glance = Glance {
            found: usual!(frame, opened),
            ..*glance
        };
        self.inbound::<A, true>(moment, &glance, frame, io)
    }

    /// A client's packet; it comes back, untouched, where anything is unusual. `FIRST`: its connection has just been made.
    #[inline(always)]
    fn inbound<A: Tables<F>, const FIRST: bool>(
        &mut self,
        moment: Moment,
        glance: &Glance,
        mut frame: F,
        io: &mut impl Io<F>,
    ) -> Result<(), F> {
        let Parts {
            table,
            rules,
            services,
            hops,
            net,
            sums,
        } = A::parts(self);
        let l3 = usize::from(glance.l3);
        let ip = usual!(frame, frame.head_mut().get_mut(l3..));
        let start = usual!(frame, A::start(ip));
        let (len, protocol) = (A::len(start), A::protocol(start));
        let request = A::request(start);
        let found = match FIRST {
            true => glance.found,
            false => moment.found(glance, table),
        };
        let Some((id, record)) = table.known_in(found, glance.hash, &request) else {
            return match FIRST {
                true => Err(frame),
                false => self.first::<A>(moment, glance, frame, io),
            };
        };
        let signal = usual!(frame, signal::<A, FIRST>(ip, protocol));
        if !record.is_usual(UNUSUAL) {
            return Err(frame);
        }
        let ledger = services.ledger();
        let recent = usual!(frame, ledger.recent(record.dest_number()));
        // One that a new connection has just been given to is in its service.
        if !FIRST && !recent.available() {
            return Err(frame);
        }
        let number = HopNumber(record.hop_in);
        let (exit, hops) = usual!(frame, hops.usual(number, moment.now, net));
        let fits = len <= usize::from(exit.mtu);
        let books = Books {
            rules,
            sums,
            ledger,
            recent,
            direction: Direction::Input,
            signal,
            len,
            tick: moment.tick,
        };
        let step = match record.forward() {
            Forward::Route if fits => {
                let step = books.enter::<A, FIRST>(record);
                A::decrement_ttl(ip);
                shorten(&mut frame, l3 + len);
                exit.send(frame, l3, net, io);
                step
            }
            // A UDP datagram without a checksum gets one.
            Forward::Masq if fits && !lacks_checksum::<A>(ip, protocol) => {
                let step = books.enter::<A, FIRST>(record);
                let server = End::<A> {
                    addr: record.daddr(),
                    port: record.dport(),
                };
                let virt = End::<A> {
                    addr: record.vaddr(),
                    port: record.vport(),
                };
                translate_plain(ip, protocol, Side::Destination, virt, server);
                shorten(&mut frame, l3 + len);
                exit.send(frame, l3, net, io);
                step
            }
            Forward::Tunnel => {
                let cut = rules.settings.pmtu_disc == 0;
                let source = usual!(frame, hops.source(number));
                let outside = match recent.is_in_ip(A::AF) && !services.knows_path_mtus() {
                    true => InIp::<A>::of(ip, l3, (source, record.daddr()), exit, cut, net),
                    false => None,
                };
                if let Some(outside) = outside {
                    let step = books.enter::<A, FIRST>(record);
                    A::decrement_ttl(ip);
                    shorten(&mut frame, l3 + len);
                    outside.send(frame, net, io);
                    step
                } else {
                    let dest = usual!(frame, services.dest(record.dest_number()));
                    if services.path_mtu(moment.now, dest.spec.addr) != u16::MAX {
                        return Err(frame);
                    }
                    let (df, tos) = A::df_and_tos(usual!(frame, A::start(ip)));
                    let wrapping = Wrapping::of::<A>(dest, (exit, source), len, df && !cut, tos);
                    let wrapping = usual!(frame, wrapping);
                    let step = books.enter::<A, FIRST>(record);
                    A::decrement_ttl(ip);
                    shorten(&mut frame, l3 + len);
                    let client = End::<A> {
                        addr: record.caddr(),
                        port: record.cport(),
                    };
                    let ends = (client, record.vport());
                    wrapping.send(frame, l3, ends, dest, exit, net, io);
                    step
                }
            }
            _ => return Err(frame),
        };
        if let Some(step) = step {
            self.follow_up::<A>(id, moment.tick, step);
        }
        Ok(())
    }

    /// A server's packet; it comes back, untouched, where anything is unusual.
    #[inline(always)]
    fn outbound<A: Tables<F>>(
        &mut self,
        moment: Moment,
        glance: &Glance,
        mut frame: F,
        io: &mut impl Io<F>,
    ) -> Result<(), F> {
        let Parts {
            table,
            rules,
            services,
            hops,
            net,
            sums,
        } = A::parts(self);
        let l3 = usize::from(glance.l3);
        // With routes by source the packet's own way, whose MTU counts, may be another than that of the translated one.
        let by_source = net.routes().by_source();
        let ip = usual!(frame, frame.head_mut().get_mut(l3..));
        let start = usual!(frame, A::start(ip));
        let (len, protocol) = (A::len(start), A::protocol(start));
        let found = moment.found(glance, table);
        let known = table.known_out(found, glance.hash, &A::answer(start));
        let (id, record) = usual!(frame, known.filter(|(_, record)| record.is_usual(UNUSUAL)));
        let signal = usual!(frame, signal::<A, false>(ip, protocol));
        let ledger = services.ledger();
        let recent = usual!(frame, ledger.recent(record.dest_number()));
        if !recent.available() {
            return Err(frame);
        }
        let number = HopNumber(record.hop_out);
        let (exit, _) = usual!(frame, hops.usual(number, moment.now, net));
        let usual = record.forward() == Forward::Masq
            && len <= usize::from(exit.mtu)
            && !by_source
            && !lacks_checksum::<A>(ip, protocol);
        if !usual {
            return Err(frame);
        }
        let books = Books {
            rules,
            sums,
            ledger,
            recent,
            direction: Direction::Output,
            signal,
            len,
            tick: moment.tick,
        };
        let step = books.enter::<A, false>(record);
        let virt = End::<A> {
            addr: record.vaddr(),
            port: record.vport(),
        };
        let server = End::<A> {
            addr: record.daddr(),
            port: record.dport(),
        };
        translate_plain(ip, protocol, Side::Source, server, virt);
        shorten(&mut frame, l3 + len);
        exit.send(frame, l3, net, io);
        if let Some(step) = step {
            self.follow_up::<A>(id, moment.tick, step);
        }
        Ok(())
    }

    /// What is left to do after a packet that changed its connection.
    #[inline(never)]
    fn follow_up<A: Tables<F>>(&mut self, id: ConnId, tick: Tick, step: Step) {
        let table = A::table_mut(self);
        table.touch(id, tick);
        let Some(record) = table.get(id) else { return };
        let (dest, chooser, control) = (record.dest(), record.chooser(), record.control());
        self.settle_step::<A>(step, dest, chooser, control);
    }
}

/// What a packet is entered in, by which rules, and what of it.
struct Books<'a> {
    rules: Rules<'a>,
    sums: &'a mut Sums,
    ledger: &'a Ledger,
    /// Its dest's in the ledger.
    recent: &'a Recent,
    direction: Direction,
    signal: Signal,
    /// The IP packet's length.
    len: usize,
    tick: Tick,
}

impl Books<'_> {
    /// Counts the packet and takes it into its connection's record. What there is to settle beyond it, if anything.
    #[inline(always)]
    fn enter<A: Plain, const FIRST: bool>(self, record: &mut Record<A>) -> Option<Step> {
        let Books { direction, len, .. } = self;
        if FIRST {
            // What else changes with a new connection is at hand.
            if let Some(tally) = self.ledger.dest(record.dest_number()) {
                tally.inbound(len);
            }
        } else if self.recent.count(direction, len) {
            self.ledger.carry(record.dest_number());
        }
        self.sums.add(direction, len);
        if direction == Direction::Input {
            record.count_packet();
        }
        let secure = self.rules.defence.secure_tcp();
        let timeouts = self.rules.timeouts;
        let step = state::step(record, direction, self.signal, timeouts, secure);
        let matters = step.active != 0 || step.assure && record.control().is_some();
        let renewed = record.renew(self.tick);
        (matters || !renewed).then_some(step)
    }
}

/// Replaces one end of a packet whose header checksum is right, and takes one from its TTL.
#[inline(always)]
fn translate_plain<A: Plain>(ip: &mut [u8], protocol: u8, side: Side, old: End<A>, new: End<A>) {
    translate_ip(ip, A::HEADER, protocol, side, old, new);
    A::take_ttl(ip, A::delta(old.addr, new.addr));
}

/// Cuts off what an Ethernet frame was padded with.
#[inline(always)]
fn shorten<F: Frame>(frame: &mut F, len: usize) {
    if frame.len() > len {
        frame.truncate(len);
    }
}
