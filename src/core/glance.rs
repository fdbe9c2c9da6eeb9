//! The first look at the frames of a burst: what their headers say, and what memory will be needed for them. Each step asks
//! for the memory that the next one reads, a whole burst at a time, so that nobody waits for it.

use ripvs_packet::eth::{self, ethertype};
use ripvs_packet::{tcp, udp, Frame, PortId};

use crate::conn::{ConnId, ConnTable, Record};
use crate::family::{V4, V6};
use crate::net::Mac;
use crate::plain::Plain;
use crate::types::{proto, Af, WorkerId};
use crate::worker::{Tables, Worker};

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
    /// To another worker.
    Over,
}

/// What the first look at a frame found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Glance {
    pub way: Way,
    /// Where the packet begins.
    pub l3: u8,
    /// TCP or UDP.
    pub protocol: u8,
    /// Length of the packet.
    pub len: u16,
    /// The connection that the index suggests.
    pub found: ConnId,
    /// What the connection is found by.
    pub hash: u64,
    /// The worker whose it is.
    pub owner: WorkerId,
}

impl Glance {
    const ORDINARY: Glance = Glance {
        way: Way::Ordinary,
        l3: 0,
        protocol: 0,
        len: 0,
        found: ConnTable::<V4>::NOBODY,
        hash: 0,
        owner: WorkerId(0),
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

/// What is the same for all frames of a burst.
#[derive(Clone, Copy, Debug)]
struct Lane {
    port: PortId,
    /// Whether there are services of IPv4, of IPv6.
    enabled: [bool; 2],
    /// The MAC address for untagged frames.
    mac: Option<Mac>,
    /// Whether packets may be another worker's.
    shared: bool,
    /// The services' addresses that the last packets to one were for: most likely the next one's, too. Zeros at first.
    vips: ([u8; 4], [u8; 16]),
}

impl<F: Frame> Worker<F> {
    /// Looks at all frames of a burst from a port, and asks for the memory that their packets will need. `fresh`: nobody has
    /// asked yet which worker they are for.
    #[inline(never)]
    pub(crate) fn foresee(
        &self,
        port: PortId,
        fresh: bool,
        frames: &[F],
        glances: &mut Vec<Glance>,
    ) {
        glances.clear();
        let Some(mut lane) = self.lane(port, fresh) else {
            return glances.resize(frames.len(), Glance::ORDINARY);
        };
        glances.extend(frames.iter().map(|frame| self.glance(&mut lane, frame)));
        self.suggest(glances);
        if self.services.ledger().is_large() {
            self.foresee_tallies(glances);
        }
    }

    /// What is the same for all frames from a port, where packets may take this way at all.
    #[inline]
    fn lane(&self, port: PortId, fresh: bool) -> Option<Lane> {
        let ifaces = self.net.ifaces();
        let enabled = [Af::V4, Af::V6].map(|af| self.services.enabled(af));
        let usual =
            enabled != [false; 2] && self.marks.is_empty() && ifaces.companion_of(port).is_none();
        let untagged = ifaces.ingress(port, None).filter(|iface| iface.up);
        usual.then(|| Lane {
            port,
            enabled,
            mac: untagged.map(|iface| iface.mac),
            // What is to an address of services that are gone is for `input.rs` to judge.
            shared: fresh && self.workers > 1 && !self.services.any_outlived(),
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
        let virt = *last == request.vaddr
            || self.net.vip_hints().may_have(A::words(request.vaddr))
                && (!lane.shared || self.net.is_vip(A::to_ip(request.vaddr)));
        if lane.shared {
            let (client, port) = match virt {
                true => (request.caddr, request.cport),
                false => (request.vaddr, request.vport),
            };
            let owner = self.owners.of_client(A::to_ip(client), port);
            if owner != self.id {
                return Some(Glance {
                    way: Way::Over,
                    owner,
                    ..Glance::ORDINARY
                });
            }
        }
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
            hash,
            ..Glance::ORDINARY
        })
    }

    /// Asks for the records of the connections that the index suggests.
    #[inline(never)]
    fn suggest(&self, glances: &mut [Glance]) {
        for glance in glances {
            glance.found = match glance.way {
                Way::In4 | Way::Out4 => self.conns4.suggest(glance.hash),
                Way::In6 | Way::Out6 => self.conns6.suggest(glance.hash),
                Way::Ordinary | Way::Over => continue,
            };
        }
    }

    /// Asks for the memory where packets will be counted.
    #[inline(never)]
    fn foresee_tallies(&self, glances: &[Glance]) {
        let ledger = self.services.ledger();
        for glance in glances {
            let dest = match glance.way {
                Way::In4 | Way::Out4 => self.conns4.get(glance.found).and_then(Record::dest),
                Way::In6 | Way::Out6 => self.conns6.get(glance.found).and_then(Record::dest),
                Way::Ordinary | Way::Over => None,
            };
            if let Some(dest) = dest {
                ledger.prefetch(dest);
            }
        }
    }
}
