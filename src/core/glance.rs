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

/// Ethernet types as they lie in a frame.
const IPV4: u16 = ethertype::IPV4.to_be();
const IPV6: u16 = ethertype::IPV6.to_be();
const VLAN: u16 = ethertype::VLAN.to_be();

/// What no frame's type is.
const NO_TYPE: u32 = u32::MAX;

/// What no MAC address is as a word.
const NO_MAC: u64 = 1;

/// A frame's destination as a word, whose lowest bits are 0.
#[inline(always)]
fn word_of(l2: &[u8; eth::HEADER_LEN]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&l2[..8]);
    u64::from_le_bytes(word) << 16
}

/// A MAC address as such a word.
fn mac_word(mac: Mac) -> u64 {
    let mut l2 = [0; eth::HEADER_LEN];
    l2[..mac.len()].copy_from_slice(&mac);
    word_of(&l2)
}

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
    /// The worker whose it is.
    pub owner: WorkerId,
    /// The connection that the index suggests.
    pub found: ConnId,
    /// What the connection is found by.
    pub hash: u64,
}

const _: () = assert!(size_of::<Glance>() == 16);

impl Glance {
    const ORDINARY: Glance = Glance {
        way: Way::Ordinary,
        l3: 0,
        owner: WorkerId(0),
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

/// What is the same for all frames of a burst.
#[derive(Clone, Copy, Debug)]
struct Lane {
    port: PortId,
    /// The types of frames with IPv4, with IPv6, as they lie there; [`NO_TYPE`] where there are no services of it.
    types: [u32; 2],
    /// The MAC address for untagged frames, as [`mac_word`] has it; [`NO_MAC`] where none are taken.
    mac: u64,
    /// The services' addresses that the last packets to one were for: most likely the next one's, too. Zeros at first.
    vips: ([u8; 4], [u8; 16]),
}

impl<F: Frame> Worker<F> {
    /// Looks at all frames of a burst from a port, and asks for the memory where their connections are found. `shared`: they
    /// may be another worker's, so that it is asked for by [`Worker::ask`] when those are out of the way.
    #[inline(never)]
    pub(crate) fn foresee(
        &self,
        port: PortId,
        shared: bool,
        frames: &[F],
        glances: &mut Vec<Glance>,
    ) {
        glances.clear();
        glances.resize(frames.len(), Glance::ORDINARY);
        let Some(lane) = self.lane(port) else {
            return;
        };
        if shared {
            self.glance_all::<true>(lane, frames, glances);
        } else {
            self.glance_all::<false>(lane, frames, glances);
        }
    }

    /// What is the same for all frames from a port, where packets may take this way at all.
    #[inline]
    fn lane(&self, port: PortId) -> Option<Lane> {
        let ifaces = self.net.ifaces();
        let types =
            [(Af::V4, IPV4), (Af::V6, IPV6)].map(|(af, kind)| match self.services.enabled(af) {
                true => u32::from(kind),
                false => NO_TYPE,
            });
        let usual =
            types != [NO_TYPE; 2] && self.marks.is_empty() && ifaces.companion_of(port).is_none();
        let untagged = ifaces.ingress(port, None).filter(|iface| iface.up);
        usual.then(|| Lane {
            port,
            types,
            mac: untagged.map_or(NO_MAC, |iface| mac_word(iface.mac)),
            vips: Default::default(),
        })
    }

    /// Looks at frames for the first time. `SHARED`: their packets may be another worker's.
    #[inline(always)]
    fn glance_all<const SHARED: bool>(&self, mut lane: Lane, frames: &[F], glances: &mut [Glance]) {
        for (frame, glance) in frames.iter().zip(glances) {
            // What is not understood stays ordinary.
            let _ = self.glance::<SHARED>(&mut lane, frame, glance);
        }
    }

    /// Looks at a frame for the first time, and asks for the memory where its connection is found.
    #[inline(always)]
    fn glance<const SHARED: bool>(
        &self,
        lane: &mut Lane,
        frame: &F,
        glance: &mut Glance,
    ) -> Option<()> {
        let l2: &[u8; eth::HEADER_LEN] = frame.head().first_chunk()?;
        let kind = u16::from_ne_bytes([l2[eth::TYPE], l2[eth::TYPE + 1]]);
        if kind == VLAN {
            return self.glance_tagged::<SHARED>(lane, frame, glance);
        }
        if word_of(l2) != lane.mac {
            return None;
        }
        self.glance_l3::<SHARED>(lane, kind, frame, eth::HEADER_LEN, glance)
    }

    fn glance_tagged<const SHARED: bool>(
        &self,
        lane: &mut Lane,
        frame: &F,
        glance: &mut Glance,
    ) -> Option<()> {
        let l2: &[u8; eth::HEADER_LEN + eth::TAG_LEN] = frame.head().first_chunk()?;
        let vlan = u16::from_be_bytes([l2[14], l2[15]]) & 0xfff;
        let kind = u16::from_ne_bytes([l2[16], l2[17]]);
        let iface = self.net.ifaces().ingress(lane.port, Some(vlan))?;
        if !iface.up || iface.mac != l2[..6] {
            return None;
        }
        self.glance_l3::<SHARED>(lane, kind, frame, l2.len(), glance)
    }

    #[inline(always)]
    fn glance_l3<const SHARED: bool>(
        &self,
        lane: &mut Lane,
        kind: u16,
        frame: &F,
        l3: usize,
        glance: &mut Glance,
    ) -> Option<()> {
        let kind = u32::from(kind);
        if kind == lane.types[0] {
            self.glance_ip::<V4, SHARED>(lane, frame, l3, glance)
        } else if kind == lane.types[1] {
            self.glance_ip::<V6, SHARED>(lane, frame, l3, glance)
        } else {
            None
        }
    }

    #[inline(always)]
    fn glance_ip<A: Tables<F>, const SHARED: bool>(
        &self,
        lane: &mut Lane,
        frame: &F,
        l3: usize,
        glance: &mut Glance,
    ) -> Option<()> {
        let ip = frame.head().get(l3..)?;
        let start = A::start(ip)?;
        let len = A::len(start);
        let least = least_len::<A>(A::protocol(start))?;
        let plain =
            A::is_plain(start) && len >= least && len <= frame.len() - l3 && ip.len() >= least;
        if !plain {
            return None;
        }
        let table = A::table(self);
        let (to, _) = A::destination(start);
        // This is but a guess: one that is wrong finds no connection.
        let last = A::last_vip(&mut lane.vips);
        let virt = *last == to
            || self.net.vip_hints().may_have(A::words(to))
                && (!SHARED || self.net.is_vip(A::to_ip(to)));
        let (way, hash) = if virt {
            *last = to;
            (A::IN, table.hash_of(&A::request(start)))
        } else {
            (A::OUT, table.hash_of(&A::answer(start)))
        };
        (glance.way, glance.l3, glance.hash) = (way, l3 as u8, hash);
        if SHARED {
            let (client, port) = match virt {
                true => A::source(start),
                false => A::destination(start),
            };
            glance.owner = self.owners.of_client(A::to_ip(client), port);
            // Nobody can foresee whose it is: nothing is skipped by it, so that the processor need not guess.
            glance.way = match glance.owner == self.id {
                true => way,
                false => Way::Over,
            };
        } else {
            table.prefetch_index(hash);
        }
        Some(())
    }

    /// Asks for the memory where the connections of our own packets are found.
    #[inline(never)]
    pub(crate) fn ask(&self, glances: &[Glance]) {
        for glance in glances {
            match glance.way {
                Way::In4 | Way::Out4 => self.conns4.prefetch_index(glance.hash),
                Way::In6 | Way::Out6 => self.conns6.prefetch_index(glance.hash),
                Way::Ordinary | Way::Over => {}
            }
        }
    }

    /// Asks for the records of the connections that the index suggests.
    #[inline(never)]
    pub(crate) fn suggest(&self, glances: &mut [Glance]) {
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
    pub(crate) fn foresee_counters(&self, glances: &[Glance]) {
        let ledger = self.services.ledger();
        for glance in glances {
            let dest = match glance.way {
                Way::In4 | Way::Out4 => self.conns4.get(glance.found).and_then(Record::dest),
                Way::In6 | Way::Out6 => self.conns6.get(glance.found).and_then(Record::dest),
                Way::Ordinary | Way::Over => None,
            };
            if let Some(dest) = dest {
                ledger.prefetch_recent(dest);
            }
        }
    }
}
