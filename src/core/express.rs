//! The express way: what a packet of an established connection needs where nothing is out of the ordinary. A burst at a time
//! and in three steps, so that nobody waits for memory: what the headers say and the hash of the connection's key; the
//! connection that the index suggests; then everything else.
//!
//! Nothing is decided here that `datapath.rs` does not decide as well, and nothing is changed before all is known to be in
//! order: whatever is not goes the ordinary way, untouched. What makes the checks few:
//!
//! - The record says that such a packet was let through before, and the number of its way out (`hop.rs`) says that no
//!   address, route, interface, setting or mark rule has changed since. So the addresses need no second look.
//! - SYN, fragments, options, extension headers, protocols other than TCP and UDP, what came to a group address, and
//!   connections with a helper are never taken.

use std::vec::Drain;

use ripvs_packet::eth::{self, ethertype};
use ripvs_packet::{tcp, udp, Frame, PortId};

use crate::conn::{ConnId, ConnTable, Flags, Key, OutKey, Record};
use crate::family::{V4, V6};
use crate::hop::HopNumber;
use crate::net::Mac;
use crate::plain::{Parts, Plain};
use crate::rewrite::{translate_ip, End, Side};
use crate::service::{Dest, Services};
use crate::spec::Forward;
use crate::state::{self, Direction, Signal, Step, Timeouts};
use crate::tally::Tally;
use crate::tunnel::Wrapping;
use crate::types::{proto, Af, ServiceId, Tick, Time};
use crate::worker::{Io, Tables, Worker};

/// Records with any of these flags are not for this way.
const UNUSUAL: Flags = Flags::ONE_PACKET
    .with(Flags::APP)
    .with(Flags::IN_SEQ)
    .with(Flags::OUT_SEQ);

/// By which family and which key a packet's connection is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Not at all: the ordinary way.
    Ordinary,
    /// IPv4 to a virtual address.
    In4,
    /// IPv4 to elsewhere.
    Out4,
    /// IPv6 to a virtual address.
    In6,
    /// IPv6 to elsewhere.
    Out6,
}

/// What the first look at a frame found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Glance {
    way: Way,
    /// Where the packet begins.
    l3: u8,
    /// TCP or UDP.
    protocol: u8,
    /// Length of the packet.
    len: u16,
    /// The connection that the index suggests.
    found: ConnId,
    /// What the connection is found by.
    hash: u64,
}

impl Glance {
    const ORDINARY: Glance = Glance {
        way: Way::Ordinary,
        l3: 0,
        protocol: 0,
        len: 0,
        found: ConnTable::<V4>::NOBODY,
        hash: 0,
    };

    /// The hash, for a packet to an address of ours or not; 0 where it is not known.
    pub fn hash(&self, local: bool) -> u64 {
        match self.way {
            Way::In4 | Way::In6 if local => self.hash,
            Way::Out4 | Way::Out6 if !local => self.hash,
            _ => 0,
        }
    }
}

/// How long a packet must be for its transport header to be there; `None` for protocols that are not taken.
#[inline(always)]
fn least_len<A: Plain>(protocol: u8) -> Option<usize> {
    match protocol {
        proto::UDP => Some(A::HEADER + udp::HEADER_LEN),
        proto::TCP => Some(A::HEADER + tcp::HEADER_LEN),
        _ => None,
    }
}

/// What the packet is to its connection. `None` for a SYN, which may begin another one.
#[inline(always)]
fn signal<A: Plain>(ip: &[u8], protocol: u8) -> Option<Signal> {
    if protocol == proto::UDP {
        return Some(Signal::Udp);
    }
    let flags = *ip.get(A::HEADER + tcp::FLAGS)?;
    (flags & tcp::SYN == 0).then_some(Signal::Tcp(flags))
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
    /// neighbours.
    disturbed: bool,
}

/// What is the same for all frames of a burst.
#[derive(Clone, Copy, Debug)]
struct Lane {
    port: PortId,
    /// Whether there are services of IPv4, of IPv6.
    enabled: [bool; 2],
    /// The MAC address for untagged frames.
    mac: Option<Mac>,
    /// The services' addresses that the last packets to one were for: most likely the next one's, too. Zeros at first.
    vips: ([u8; 4], [u8; 16]),
}

/// What packets add to the counters of their service and of all traffic: written when the burst ends or another service
/// comes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    service: ServiceId,
    /// Packets and bytes from clients, packets and bytes from servers.
    counts: [u64; 4],
}

impl Sums {
    /// Counts a packet for a dest and its service.
    #[inline(always)]
    fn add(
        &mut self,
        dest: &Dest,
        direction: Direction,
        bytes: usize,
        services: &Services,
        total: &Tally,
    ) {
        if dest.service != self.service {
            self.write(services, total);
            self.service = dest.service;
        }
        match direction {
            Direction::Input => {
                dest.tally.inbound(bytes);
                self.counts[0] += 1;
                self.counts[1] += bytes as u64;
            }
            Direction::Output => {
                dest.tally.outbound(bytes);
                self.counts[2] += 1;
                self.counts[3] += bytes as u64;
            }
        }
    }

    fn write(&mut self, services: &Services, total: &Tally) {
        let counts = std::mem::take(&mut self.counts);
        if counts == [0; 4] {
            return;
        }
        total.add(counts);
        if let Some(service) = services.get(self.service) {
            service.tally.add(counts);
        }
    }
}

impl<F: Frame> Worker<F> {
    /// Takes a burst of frames from a port.
    pub fn burst(&mut self, now: Time, port: PortId, frames: &mut Vec<F>, io: &mut impl Io<F>) {
        self.net.counters.received += frames.len() as u64;
        self.hops.note_time(now);
        let mut glances = std::mem::take(&mut self.glances);
        glances.clear();
        match self.lane(port) {
            Some(mut lane) => {
                glances.extend(frames.iter().map(|frame| self.glance(&mut lane, frame)));
            }
            None => glances.extend(frames.iter().map(|_| Glance::ORDINARY)),
        }
        for glance in &mut glances {
            self.suggest(glance);
        }
        let mut moment = Moment {
            now,
            tick: now.tick(),
            disturbed: false,
        };
        let (mut frames, mut left) = (frames.drain(..), glances.as_slice());
        while let Some(glance) = left.first() {
            let (taken, unusual) = match glance.way {
                Way::In4 => self.run::<V4, true>(moment, &mut frames, left, io),
                Way::Out4 => self.run::<V4, false>(moment, &mut frames, left, io),
                Way::In6 => self.run::<V6, true>(moment, &mut frames, left, io),
                Way::Out6 => self.run::<V6, false>(moment, &mut frames, left, io),
                Way::Ordinary => (1, frames.next()),
            };
            let (done, rest) = left.split_at(taken);
            left = rest;
            if let Some(frame) = unusual {
                let hash = |local| done.last().map_or(0, |glance| glance.hash(local));
                self.ordinary(now, port, frame, hash, io);
                self.hops.look_again();
                moment.disturbed = true;
            }
        }
        drop(frames);
        self.glances = glances;
        self.sums.write(&self.services, &self.total);
        self.flush(io);
    }

    /// Takes packets of one kind, one after the other, until another kind comes or one is unusual. Returns how many it took
    /// from the burst, and the unusual one, untouched, if it ended there.
    #[inline(never)]
    fn run<A: Tables<F>, const IN: bool>(
        &mut self,
        moment: Moment,
        frames: &mut Drain<'_, F>,
        glances: &[Glance],
        io: &mut impl Io<F>,
    ) -> (usize, Option<F>) {
        let way = if IN { A::IN } else { A::OUT };
        let mut taken = 0;
        for glance in glances.iter().take_while(|glance| glance.way == way) {
            let Some(frame) = frames.next() else { break };
            taken += 1;
            let passed = if IN {
                self.inbound::<A>(moment, glance, frame, io)
            } else {
                self.outbound::<A>(moment, glance, frame, io)
            };
            if let Err(frame) = passed {
                return (taken, Some(frame));
            }
        }
        (taken, None)
    }

    /// What is the same for all frames from a port, where packets may take this way at all.
    #[inline]
    fn lane(&self, port: PortId) -> Option<Lane> {
        let ifaces = self.net.ifaces();
        let enabled = [Af::V4, Af::V6].map(|af| self.services.enabled(af));
        let usual =
            enabled != [false; 2] && self.marks.is_empty() && ifaces.companion_of(port).is_none();
        let untagged = ifaces.ingress(port, None).filter(|iface| iface.up);
        usual.then(|| Lane {
            port,
            enabled,
            mac: untagged.map(|iface| iface.mac),
            vips: Default::default(),
        })
    }

    /// Looks at a frame for the first time, and asks for the memory where its connection is found.
    #[inline(always)]
    fn glance(&self, lane: &mut Lane, frame: &F) -> Glance {
        let head = frame.head();
        let mut look = || {
            let l2: &[u8; eth::HEADER_LEN] = head.first_chunk()?;
            let to: &Mac = l2.first_chunk()?;
            let kind = u16::from_be_bytes([l2[eth::TYPE], l2[eth::TYPE + 1]]);
            if kind == ethertype::VLAN {
                return self.glance_tagged(lane, frame);
            }
            if Some(*to) != lane.mac {
                return None;
            }
            self.glance_l3(lane, kind, frame, eth::HEADER_LEN)
        };
        look().unwrap_or(Glance::ORDINARY)
    }

    fn glance_tagged(&self, lane: &mut Lane, frame: &F) -> Option<Glance> {
        let head = frame.head();
        let l2: &[u8; eth::HEADER_LEN + eth::TAG_LEN] = head.first_chunk()?;
        let vlan = u16::from_be_bytes([l2[14], l2[15]]) & 0xfff;
        let kind = u16::from_be_bytes([l2[16], l2[17]]);
        let iface = self.net.ifaces().ingress(lane.port, Some(vlan))?;
        if !iface.up || iface.mac != l2[..6] {
            return None;
        }
        self.glance_l3(lane, kind, frame, l2.len())
    }

    #[inline(always)]
    fn glance_l3(&self, lane: &mut Lane, kind: u16, frame: &F, l3: usize) -> Option<Glance> {
        match kind {
            ethertype::IPV4 => self.glance_ip::<V4>(lane, frame, l3),
            ethertype::IPV6 => self.glance_ip::<V6>(lane, frame, l3),
            _ => None,
        }
    }

    #[inline(always)]
    fn glance_ip<A: Tables<F>>(&self, lane: &mut Lane, frame: &F, l3: usize) -> Option<Glance> {
        let ip = frame.head().get(l3..)?;
        let start = A::start(ip)?;
        let (len, protocol) = A::plain(start)?;
        let least = least_len::<A>(protocol)?;
        let there = lane.enabled[A::AF as usize]
            && usize::from(len) >= least
            && usize::from(len) <= frame.len() - l3
            && ip.len() >= least;
        if !there {
            return None;
        }
        let table = A::table(self);
        let request = A::request_key(start);
        // This is but a guess: one that is wrong finds no connection.
        let last = A::last_vip(&mut lane.vips);
        let virt = *last == request.vaddr || self.net.is_vip(A::to_ip(request.vaddr));
        let (way, hash) = if virt {
            *last = request.vaddr;
            (A::IN, table.hash_in(&request))
        } else {
            (A::OUT, table.hash_out(&A::answer_key(start)))
        };
        table.prefetch_index(hash);
        Some(Glance {
            way,
            l3: l3 as u8,
            protocol,
            len,
            found: ConnTable::<A>::NOBODY,
            hash,
        })
    }

    /// Asks for the record of the connection that the index suggests.
    #[inline(always)]
    fn suggest(&self, glance: &mut Glance) {
        glance.found = match glance.way {
            Way::In4 | Way::Out4 => self.conns4.suggest(glance.hash),
            Way::In6 | Way::Out6 => self.conns6.suggest(glance.hash),
            Way::Ordinary => return,
        };
    }

    /// A client's packet; it comes back, untouched, where anything is unusual.
    #[inline(always)]
    fn inbound<A: Tables<F>>(
        &mut self,
        moment: Moment,
        glance: &Glance,
        mut frame: F,
        io: &mut impl Io<F>,
    ) -> Result<(), F> {
        let secure = self.defence.secure_tcp();
        let cut = self.settings.pmtu_disc == 0;
        let Parts {
            table,
            timeouts,
            services,
            hops,
            net,
            sums,
            total,
        } = A::parts(self);
        let (l3, len) = (usize::from(glance.l3), usize::from(glance.len));
        let protocol = glance.protocol;
        let ip = usual!(frame, frame.head_mut().get_mut(l3..));
        let key: Key<A> = A::request_key(usual!(frame, A::start(ip)));
        let found = match moment.disturbed {
            true => table.suggest(glance.hash),
            false => glance.found,
        };
        let known = table.known_in(found, glance.hash, &key);
        let (id, record) = usual!(frame, known.filter(|(_, record)| record.is_usual(UNUSUAL)));
        let signal = usual!(frame, signal::<A>(ip, protocol));
        let dest = usual!(frame, record.dest().and_then(|dest| services.dest(dest)));
        let number = HopNumber(record.hop_in);
        let exit = usual!(frame, hops.usual(number, moment.now, net));
        if !dest.available {
            return Err(frame);
        }
        let fits = len <= usize::from(exit.mtu);
        let books = Books {
            timeouts,
            secure,
            services,
            sums,
            total,
        };
        let step = match record.forward() {
            Forward::Route if fits => {
                let step = books.enter(record, dest, Direction::Input, signal, len, moment.tick);
                A::decrement_ttl(ip);
                shorten(&mut frame, l3 + len);
                exit.send(frame, l3, net, io);
                step
            }
            // A UDP datagram without a checksum gets one.
            Forward::Masq if fits && !lacks_checksum::<A>(ip, protocol) => {
                let step = books.enter(record, dest, Direction::Input, signal, len, moment.tick);
                let server = End::<A> {
                    addr: record.daddr(),
                    port: record.dport(),
                };
                let virt = End::<A> {
                    addr: key.vaddr,
                    port: key.vport,
                };
                A::take_ttl(ip);
                translate_ip(ip, A::HEADER, protocol, Side::Destination, virt, server);
                shorten(&mut frame, l3 + len);
                exit.send(frame, l3, net, io);
                step
            }
            Forward::Tunnel => {
                let (df, tos) = A::df_and_tos(usual!(frame, A::start(ip)));
                let exit = *exit;
                let way = (&exit, hops.source(number));
                let wrapping = Wrapping::of::<A>(moment.now, dest, way, len, df && !cut, tos);
                let wrapping = usual!(frame, wrapping);
                let step = books.enter(record, dest, Direction::Input, signal, len, moment.tick);
                A::decrement_ttl(ip);
                shorten(&mut frame, l3 + len);
                let client = End::<A> {
                    addr: key.caddr,
                    port: key.cport,
                };
                wrapping.send(frame, l3, (client, key.vport), dest, &exit, net, io);
                step
            }
            _ => return Err(frame),
        };
        if let Some(step) = step {
            self.settle::<A>(id, moment.tick, step);
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
        let secure = self.defence.secure_tcp();
        let Parts {
            table,
            timeouts,
            services,
            hops,
            net,
            sums,
            total,
        } = A::parts(self);
        let (l3, len) = (usize::from(glance.l3), usize::from(glance.len));
        let protocol = glance.protocol;
        // With routes by source the packet's own way, whose MTU counts, may be another than that of the translated one.
        let by_source = net.routes().by_source();
        let ip = usual!(frame, frame.head_mut().get_mut(l3..));
        let key: OutKey<A> = A::answer_key(usual!(frame, A::start(ip)));
        let found = match moment.disturbed {
            true => table.suggest(glance.hash),
            false => glance.found,
        };
        let known = table.known_out(found, glance.hash, &key);
        let (id, record) = usual!(frame, known.filter(|(_, record)| record.is_usual(UNUSUAL)));
        let signal = usual!(frame, signal::<A>(ip, protocol));
        let dest = usual!(frame, record.dest().and_then(|dest| services.dest(dest)));
        let number = HopNumber(record.hop_out);
        let exit = usual!(frame, hops.usual(number, moment.now, net));
        let usual = record.forward() == Forward::Masq
            && dest.available
            && len <= usize::from(exit.mtu)
            && !by_source
            && !lacks_checksum::<A>(ip, protocol);
        if !usual {
            return Err(frame);
        }
        let books = Books {
            timeouts,
            secure,
            services,
            sums,
            total,
        };
        let step = books.enter(record, dest, Direction::Output, signal, len, moment.tick);
        let virt = End::<A> {
            addr: record.vaddr(),
            port: record.vport(),
        };
        let server = End::<A> {
            addr: key.saddr,
            port: key.sport,
        };
        A::take_ttl(ip);
        translate_ip(ip, A::HEADER, protocol, Side::Source, server, virt);
        shorten(&mut frame, l3 + len);
        exit.send(frame, l3, net, io);
        if let Some(step) = step {
            self.settle::<A>(id, moment.tick, step);
        }
        Ok(())
    }

    /// What is left to do after a packet that changed its connection.
    #[inline(never)]
    fn settle<A: Tables<F>>(&mut self, id: ConnId, tick: Tick, step: Step) {
        let table = A::table_mut(self);
        table.touch(id, tick);
        let Some(record) = table.get(id) else { return };
        let (dest, chooser, control) = (record.dest(), record.chooser(), record.control());
        self.settle_step::<A>(step, dest, chooser, control);
    }
}

/// What a packet is entered in, and by which rules.
struct Books<'a> {
    timeouts: &'a Timeouts,
    secure: bool,
    services: &'a Services,
    sums: &'a mut Sums,
    total: &'a Tally,
}

impl Books<'_> {
    /// Counts a packet of `len` bytes and takes it into its connection's record. What there is to settle beyond it, if
    /// anything.
    #[inline(always)]
    fn enter<A: Plain>(
        self,
        record: &mut Record<A>,
        dest: &Dest,
        direction: Direction,
        signal: Signal,
        len: usize,
        tick: Tick,
    ) -> Option<Step> {
        self.sums
            .add(dest, direction, len, self.services, self.total);
        if direction == Direction::Input {
            record.count_packet();
        }
        let step = state::step(record, direction, signal, self.timeouts, self.secure);
        let matters = step.active != 0 || step.assure && record.control().is_some();
        let renewed = record.renew(tick);
        (matters || !renewed).then_some(step)
    }
}

/// Cuts off what an Ethernet frame was padded with.
#[inline(always)]
fn shorten<F: Frame>(frame: &mut F, len: usize) {
    if frame.len() > len {
        frame.truncate(len);
    }
}
