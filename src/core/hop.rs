//! Ways out, looked up once and kept by number: a route and the neighbour it leads to. A connection's record keeps the
//! numbers of its two ways, so that its packets cost no route look-up. Any change of routes, addresses or interfaces makes
//! every number stale.

use std::net::IpAddr;

use ripvs_arch::prefetch_read;
use ripvs_packet::{Frame, PacketIo, PortId};

use crate::growing::GrowMap;
use crate::net::{encapsulate, NeighId, Net, RouteHit, UNTAGGED};
use crate::tally::Tally;
use crate::types::{DestId, IfaceId, Time};
use crate::verdict::Verdict;
use crate::worker::Worker;

/// A way out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hop {
    /// The route.
    pub hit: RouteHit,
    /// The neighbour; none where the way ends here, or there is no room for another neighbour.
    pub neigh: Option<NeighId>,
    /// The source address of what we send this way ourselves; known of tunnels only.
    pub source: Option<IpAddr>,
}

/// How packets leave by a way that is known to be good: half a cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(32))]
pub(crate) struct Exit {
    /// The number of the way, and the look that this is from: see [`stamp`].
    stamp: u64,
    /// The longest packet.
    pub mtu: u16,
    port: u16,
    l2_len: u8,
    /// Where a packet begins that has just the room for an untagged header; 0 where frames are tagged.
    room: u8,
    /// The Ethernet header, but for the type.
    l2: [u8; 16],
}

impl Exit {
    /// The header, where a packet that begins `l3` bytes into a frame has just the room for it.
    #[inline(always)]
    pub fn untagged(&self, l3: usize) -> Option<&[u8; UNTAGGED]> {
        let l2 = self.l2.first_chunk();
        l2.filter(|_| l3 == usize::from(self.room))
    }

    /// The port.
    #[inline(always)]
    pub fn port(&self) -> PortId {
        PortId(self.port)
    }

    /// Sends the packet that begins `l3` bytes into the frame, of the same family as what came in the frame.
    #[inline(always)]
    pub fn send<F: Frame>(
        &self,
        mut frame: F,
        l3: usize,
        net: &mut Net<F>,
        io: &mut impl PacketIo<Frame = F>,
    ) {
        let head = frame.head_mut().first_chunk_mut::<UNTAGGED>();
        if let (Some(l2), Some(head)) = (self.untagged(l3), head) {
            *head = *l2;
            net.counters.forwarded += 1;
            io.transmit(self.port(), frame);
        } else {
            self.send_anyhow(frame, l3, net, io);
        }
    }

    /// As [`Exit::send`], whatever the family and wherever in the frame it begins.
    pub fn send_anyhow<F: Frame>(
        &self,
        mut frame: F,
        l3: usize,
        net: &mut Net<F>,
        io: &mut impl PacketIo<Frame = F>,
    ) {
        match encapsulate(&mut frame, l3, &self.l2[..usize::from(self.l2_len)]) {
            Ok(()) => {
                net.counters.forwarded += 1;
                io.transmit(self.port(), frame);
            }
            Err(reason) => net.counters.done(Verdict::Dropped(reason)),
        }
    }
}

/// The number of a way, as records keep it; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HopNumber(pub u32);

/// The ways of one worker.
#[derive(Debug)]
pub(crate) struct Hops {
    ways: Vec<Hop>,
    /// How packets leave by each of the ways.
    exits: Vec<Exit>,
    numbers: GrowMap<(IfaceId, IpAddr, u16, bool, Option<IpAddr>), u16>,
    /// The network layer's generation that the ways are of.
    generation: u32,
    /// Distinguishes the numbers of different generations.
    epoch: u16,
    /// Counts the times after which ways must be looked at again.
    look: u32,
    /// When ways are to be looked at again though nothing is known to have changed.
    look_due: Time,
}

/// A way's number and a look in one word. Never 0, which is no look's.
#[inline(always)]
fn stamp(number: HopNumber, look: u32) -> u64 {
    u64::from(number.0) << 32 | u64::from(look)
}

/// How long a way counts as good without a look, in nanoseconds.
const LOOK_EVERY: u64 = 1_000_000;

impl Default for Hops {
    fn default() -> Hops {
        Hops {
            // Room for as many as there can be, which costs nothing before it is used: they are never moved.
            ways: Vec::with_capacity(usize::from(u16::MAX)),
            exits: Vec::with_capacity(usize::from(u16::MAX)),
            numbers: GrowMap::default(),
            generation: 0,
            epoch: 0,
            // No exit is of this look before it was looked at.
            look: 1,
            look_due: Time(0),
        }
    }
}

impl Hops {
    /// Makes every number stale.
    pub fn clear(&mut self) {
        self.ways.clear();
        self.exits.clear();
        self.numbers.clear();
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// The way of that number, if it is still good under this generation of the network layer.
    #[inline(always)]
    pub fn get(&self, number: HopNumber, generation: u32) -> Option<&Hop> {
        let (epoch, place) = ((number.0 >> 16) as u16, number.0 & 0xffff);
        if epoch != self.epoch || generation != self.generation {
            return None;
        }
        self.ways.get((place as usize).checked_sub(1)?)
    }

    /// From now on each way is to be looked at before it is used by [`Hops::usual`]: something may have changed.
    #[inline]
    pub fn look_again(&mut self) {
        self.look = self.look.wrapping_add(1);
        if self.look == 0 {
            // Looks are told apart again from here on.
            self.clear();
            self.look = 1;
        }
    }

    /// Notes the time: after a while ways are to be looked at though nothing is known to have changed.
    #[inline]
    pub fn note_time(&mut self, now: Time) {
        if now >= self.look_due {
            self.look_due = Time(now.0 + LOOK_EVERY);
            self.look_again();
        }
    }

    /// How packets leave by the way of that number, if it is good and its neighbour reachable; and the ways, to look further.
    #[inline(always)]
    pub fn usual<F: Frame>(
        &mut self,
        number: HopNumber,
        now: Time,
        net: &mut Net<F>,
    ) -> Option<(&Exit, &Hops)> {
        let at = (number.0 as u16 as usize).wrapping_sub(1);
        if self.exits.get(at)?.stamp != stamp(number, self.look) {
            self.look_at(number, now, net)?;
        }
        let hops = &*self;
        Some((hops.exits.get(at)?, hops))
    }

    /// Begins to fetch what [`Hops::usual`] needs.
    #[inline]
    pub fn prefetch(&self, number: HopNumber) {
        let at = (number.0 as u16 as usize).wrapping_sub(1);
        if let (Some(exit), Some(way)) = (self.exits.get(at), self.ways.get(at)) {
            prefetch_read(exit);
            prefetch_read(way);
        }
    }

    /// The neighbour of that way, where it has one.
    #[inline]
    pub fn neigh(&self, number: HopNumber) -> Option<NeighId> {
        let at = (number.0 as u16 as usize).wrapping_sub(1);
        self.ways.get(at)?.neigh
    }

    /// The source of what we send ourselves by the way of that number, if it is one for tunnels.
    #[inline]
    pub fn source(&self, number: HopNumber) -> Option<IpAddr> {
        let at = (number.0 as u16 as usize).wrapping_sub(1);
        self.ways.get(at)?.source
    }

    #[inline(never)]
    fn look_at<F: Frame>(&mut self, number: HopNumber, now: Time, net: &mut Net<F>) -> Option<()> {
        let way = self.get(number, net.generation())?;
        let (id, mtu) = (way.neigh?, way.hit.mtu);
        let (port, l2) = net.neigh_usual(id, now)?;
        let at = (number.0 as u16 as usize).wrapping_sub(1);
        let exit = self.exits.get_mut(at)?;
        exit.l2[..l2.len()].copy_from_slice(l2);
        (exit.port, exit.l2_len) = (port.0, l2.len() as u8);
        exit.room = if l2.len() == UNTAGGED {
            UNTAGGED as u8 + 2
        } else {
            0
        };
        (exit.mtu, exit.stamp) = (mtu, stamp(number, self.look));
        Some(())
    }

    fn insert(&mut self, hop: Hop) -> HopNumber {
        let hit = &hop.hit;
        let key = (hit.iface, hit.next_hop, hit.mtu, hit.local, hop.source);
        let place = match self.numbers.get(&key) {
            Some(place) => {
                let at = usize::from(*place) - 1;
                self.ways[at] = hop;
                self.exits[at].stamp = 0;
                *place
            }
            None => {
                let Ok(place) = u16::try_from(self.ways.len() + 1) else {
                    return HopNumber(0);
                };
                self.ways.push(hop);
                self.exits.push(Exit::default());
                self.numbers.insert(key, place);
                place
            }
        };
        HopNumber(u32::from(self.epoch) << 16 | u32::from(place))
    }
}

impl<F: Frame> Worker<F> {
    /// The way to `target`, for packets from `source` where routes may depend on that; by the number that is kept of it, if
    /// that is still good. Returns the number to keep as well. `None`: there is no way.
    #[inline]
    pub(crate) fn way(
        &mut self,
        now: Time,
        kept: HopNumber,
        target: IpAddr,
        source: Option<IpAddr>,
    ) -> Option<(HopNumber, Hop)> {
        if let Some(&hop) = self.hops.get(kept, self.net.generation()) {
            if hop.neigh.is_some_and(|id| self.net.neigh_current(id)) {
                return Some((kept, hop));
            }
        }
        self.way_anew(now, target, source, false)
    }

    /// The number to look a way up by: that of the connection, or, of a new one, that of its dest's last one.
    #[inline]
    pub(crate) fn kept_way(&self, own: HopNumber, dest: Option<DestId>) -> HopNumber {
        if own != HopNumber::default() {
            return own;
        }
        dest.and_then(|id| self.services.ledger().dest(id))
            .map_or(own, Tally::hop)
    }

    /// Keeps a number for the dest's next connection, where it is another than that which was looked up.
    #[inline]
    pub(crate) fn keep_way(&mut self, dest: Option<DestId>, kept: HopNumber, number: HopNumber) {
        let dest = dest.filter(|_| number != kept);
        if let Some(tally) = dest.and_then(|id| self.services.ledger().dest(id)) {
            tally.set_hop(number);
        }
    }

    /// As [`Worker::way`], for what we send to the other end of a tunnel.
    #[inline]
    pub(crate) fn tunnel_way(
        &mut self,
        now: Time,
        kept: HopNumber,
        target: IpAddr,
    ) -> Option<(HopNumber, Hop)> {
        if let Some(&hop) = self.hops.get(kept, self.net.generation()) {
            let whole = hop.source.is_some();
            if whole && hop.neigh.is_some_and(|id| self.net.neigh_current(id)) {
                return Some((kept, hop));
            }
        }
        self.way_anew(now, target, None, true)
    }

    fn way_anew(
        &mut self,
        now: Time,
        target: IpAddr,
        source: Option<IpAddr>,
        tunnel: bool,
    ) -> Option<(HopNumber, Hop)> {
        let hit = self.net.route(target, source)?;
        let neigh = self.net.neigh_for(now, &hit);
        if self.hops.generation != self.net.generation() {
            self.hops.clear();
            self.hops.generation = self.net.generation();
        }
        let source = match tunnel {
            true => self.net.source_for(target, &hit),
            false => None,
        };
        let hop = Hop { hit, neigh, source };
        let number = if neigh.is_some() {
            self.hops.insert(hop)
        } else {
            HopNumber(0)
        };
        Some((number, hop))
    }
}
