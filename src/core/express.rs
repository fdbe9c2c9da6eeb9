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

use ripvs_packet::eth::{self, ethertype};
use ripvs_packet::{tcp, udp, Frame, PortId};

use crate::conn::{ConnId, Flags, Key, OutKey};
use crate::family::{V4, V6};
use crate::flow::take_in;
use crate::hop::HopNumber;
use crate::net::Mac;
use crate::plain::{Parts, Plain};
use crate::rewrite::{translate_ip, End, Side};
use crate::service::{Dest, Services};
use crate::spec::Forward;
use crate::state::{Direction, Signal};
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
    found: Option<ConnId>,
    /// What the connection is found by.
    hash: u64,
}

impl Glance {
    const ORDINARY: Glance = Glance {
        way: Way::Ordinary,
        l3: 0,
        protocol: 0,
        len: 0,
        found: None,
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
        let tick = now.tick();
        self.hops.look_again();
        // A packet that goes the ordinary way may make or end connections, and bring news of neighbours.
        let mut disturbed = false;
        for (frame, glance) in frames.drain(..).zip(&mut glances) {
            if disturbed {
                self.suggest(glance);
            }
            let passed = match glance.way {
                Way::In4 => self.inbound::<V4>((now, tick), glance, frame, io),
                Way::Out4 => self.outbound::<V4>((now, tick), glance, frame, io),
                Way::In6 => self.inbound::<V6>((now, tick), glance, frame, io),
                Way::Out6 => self.outbound::<V6>((now, tick), glance, frame, io),
                Way::Ordinary => Err(frame),
            };
            if let Err(frame) = passed {
                disturbed = true;
                self.ordinary(now, port, frame, |local| glance.hash(local), io);
                self.hops.look_again();
            }
        }
        self.glances = glances;
        self.sums.write(&self.services, &self.total);
        self.flush(io);
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
            found: None,
            hash,
        })
    }

    /// Asks for the record of the connection that the index suggests.
    #[inline(always)]
    fn suggest(&self, glance: &mut Glance) {
        glance.found = match glance.way {
            Way::In4 | Way::Out4 => self.conns4.suggest(glance.hash),
            Way::In6 | Way::Out6 => self.conns6.suggest(glance.hash),
            Way::Ordinary => None,
        };
    }

    /// A client's packet; it comes back, untouched, where anything is unusual.
    #[inline]
    fn inbound<A: Tables<F>>(
        &mut self,
        (now, tick): (Time, Tick),
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
        let ip = usual!(frame, frame.head().get(l3..));
        let start = usual!(frame, A::start(ip));
        let id = usual!(frame, glance.found);
        let record = usual!(frame, table.get(id));
        let key: Key<A> = A::request_key(start);
        if !record.same_in(&key) || !record.is_usual(UNUSUAL) {
            return Err(frame);
        }
        let signal = usual!(frame, signal::<A>(ip, glance.protocol));
        let dest = usual!(frame, record.dest().and_then(|dest| services.dest(dest)));
        let hop = usual!(frame, hops.usual(HopNumber(record.hop_in), now, net));
        let fits = len <= usize::from(hop.hit.mtu);
        let (server, wrapping) = match record.forward() {
            Forward::Route if fits => (None, None),
            // A UDP datagram without a checksum gets one.
            Forward::Masq if fits && !lacks_checksum::<A>(ip, glance.protocol) => {
                let (addr, port) = (record.daddr(), record.dport());
                (Some(End::<A> { addr, port }), None)
            }
            Forward::Tunnel => {
                let (df, tos) = A::df_and_tos(start);
                let wrapping = Wrapping::of::<A>(now, dest, hop, len, df && !cut, tos);
                (None, Some(usual!(frame, wrapping)))
            }
            _ => return Err(frame),
        };
        if !dest.available {
            return Err(frame);
        }
        let record = &mut table[id];
        let step = take_in(record, Direction::Input, signal, timeouts, secure);
        let unsettled = step
            .matters()
            .then(|| (step, record.dest(), record.chooser(), record.control()));
        table.touch(id, tick);
        sums.add(dest, Direction::Input, len, services, total);
        frame.truncate(l3 + len);
        let ip = &mut frame.head_mut()[l3..];
        A::decrement_ttl(ip);
        match (server, wrapping) {
            (Some(server), _) => {
                let virt = End::<A> {
                    addr: key.vaddr,
                    port: key.vport,
                };
                let side = Side::Destination;
                translate_ip(ip, A::HEADER, glance.protocol, side, virt, server);
                hop.send(frame, l3, net, io);
            }
            (None, None) => {
                hop.send(frame, l3, net, io);
            }
            (None, Some(wrapping)) => {
                let client = End::<A> {
                    addr: key.caddr,
                    port: key.cport,
                };
                wrapping.send(frame, l3, (client, key.vport), dest, hop, net, io);
            }
        }
        if let Some((step, dest, chooser, control)) = unsettled {
            self.settle_step::<A>(step, dest, chooser, control);
        }
        Ok(())
    }

    /// A server's packet; it comes back, untouched, where anything is unusual.
    #[inline]
    fn outbound<A: Tables<F>>(
        &mut self,
        (now, tick): (Time, Tick),
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
        let ip = usual!(frame, frame.head().get(l3..));
        let id = usual!(frame, glance.found);
        let record = usual!(frame, table.get(id));
        let key: OutKey<A> = A::answer_key(usual!(frame, A::start(ip)));
        let masq = record.forward() == Forward::Masq;
        if !masq || !record.is_usual(UNUSUAL) || !record.is_out(&key) {
            return Err(frame);
        }
        let signal = usual!(frame, signal::<A>(ip, glance.protocol));
        let dest = usual!(frame, record.dest().and_then(|dest| services.dest(dest)));
        // With routes by source the packet's own way, whose MTU counts, may be another than that of the translated one.
        let by_source = net.routes().by_source();
        let hop = usual!(frame, hops.usual(HopNumber(record.hop_out), now, net));
        let fits = len <= usize::from(hop.hit.mtu);
        if by_source || !fits || !dest.available || lacks_checksum::<A>(ip, glance.protocol) {
            return Err(frame);
        }
        let record = &mut table[id];
        let step = take_in(record, Direction::Output, signal, timeouts, secure);
        let unsettled = (step.active != 0 || step.assure && record.control().is_some())
            .then(|| (step, record.dest(), record.chooser(), record.control()));
        let virt = End::<A> {
            addr: record.vaddr(),
            port: record.vport(),
        };
        table.touch(id, tick);
        sums.add(dest, Direction::Output, len, services, total);
        frame.truncate(l3 + len);
        let ip = &mut frame.head_mut()[l3..];
        A::decrement_ttl(ip);
        let server = End::<A> {
            addr: key.saddr,
            port: key.sport,
        };
        translate_ip(ip, A::HEADER, glance.protocol, Side::Source, server, virt);
        hop.send(frame, l3, net, io);
        if let Some((step, dest, chooser, control)) = unsettled {
            self.settle_step::<A>(step, dest, chooser, control);
        }
        Ok(())
    }
}
