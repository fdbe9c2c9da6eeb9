//! Ways out, looked up once and kept by number: a route and the neighbour it leads to. A connection's record keeps the
//! numbers of its two ways, so that its packets cost no route look-up. Any change of routes, addresses or interfaces makes
//! every number stale.

use std::net::IpAddr;

use hashbrown::HashMap;
use ripvs_packet::{Frame, PacketIo, PortId};

use crate::net::{encapsulate, NeighId, Net, RouteHit, UNTAGGED};
use crate::types::{IfaceId, Time};
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
    /// What goes before packets, as it was when the way was last looked at.
    exit: Exit,
}

/// How packets leave: the port, and the Ethernet header but for the type.
#[derive(Clone, Copy, Debug, Default)]
struct Exit {
    /// The look that this is from.
    look: u64,
    l2_len: u8,
    l2: [u8; 16],
    port: u16,
}

impl Hop {
    /// Sends the packet that begins `l3` bytes into the frame, of the same family as what came in the frame, by this way,
    /// which [`Hops::usual`] said is good.
    #[inline(always)]
    pub fn send<F: Frame>(
        &self,
        mut frame: F,
        l3: usize,
        net: &mut Net<F>,
        io: &mut impl PacketIo<Frame = F>,
    ) {
        let Exit { l2, l2_len, .. } = &self.exit;
        let usual = usize::from(*l2_len) == UNTAGGED && l3 == UNTAGGED + 2;
        let done = match frame.head_mut().first_chunk_mut() {
            Some(head) if usual => {
                let header: &mut [u8; UNTAGGED] = head;
                header.copy_from_slice(&l2[..UNTAGGED]);
                Ok(())
            }
            _ => encapsulate(&mut frame, l3, &l2[..usize::from(*l2_len)]),
        };
        match done {
            Ok(()) => {
                net.counters.forwarded += 1;
                io.transmit(PortId(self.exit.port), frame);
            }
            Err(reason) => net.counters.done(Verdict::Dropped(reason)),
        }
    }
}

/// The number of a way, as records keep it; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HopNumber(pub u32);

/// The ways of one worker.
#[derive(Debug, Default)]
pub(crate) struct Hops {
    ways: Vec<Hop>,
    numbers: HashMap<(IfaceId, IpAddr, u16, bool, Option<IpAddr>), u16>,
    /// The network layer's generation that the ways are of.
    generation: u32,
    /// Distinguishes the numbers of different generations.
    epoch: u16,
    /// Counts the times after which ways must be looked at again.
    look: u64,
}

impl Hops {
    /// Makes every number stale.
    pub fn clear(&mut self) {
        self.ways.clear();
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

    /// From now on each way is to be looked at before it is used by [`Hops::usual`]: time has passed, or something may have
    /// changed.
    #[inline]
    pub fn look_again(&mut self) {
        self.look = self.look.wrapping_add(1);
    }

    /// The way of that number, if it is good and its neighbour reachable, so that [`Hop::send`] can be used.
    #[inline(always)]
    pub fn usual<F: Frame>(
        &mut self,
        number: HopNumber,
        now: Time,
        net: &mut Net<F>,
    ) -> Option<&Hop> {
        let (epoch, place) = ((number.0 >> 16) as u16, number.0 & 0xffff);
        let at = (place as usize).wrapping_sub(1);
        let look = self.look;
        let seen = epoch == self.epoch && self.ways.get(at)?.exit.look == look;
        if !seen {
            self.look_at(number, now, net)?;
        }
        self.ways.get(at)
    }

    #[inline(never)]
    fn look_at<F: Frame>(&mut self, number: HopNumber, now: Time, net: &mut Net<F>) -> Option<()> {
        let id = self.get(number, net.generation())?.neigh?;
        let (port, l2) = net.neigh_usual(id, now)?;
        let at = ((number.0 & 0xffff) as usize).checked_sub(1)?;
        let look = self.look;
        let exit = &mut self.ways.get_mut(at)?.exit;
        exit.l2[..l2.len()].copy_from_slice(l2);
        (exit.port, exit.l2_len, exit.look) = (port.0, l2.len() as u8, look);
        Some(())
    }

    fn insert(&mut self, hop: Hop) -> HopNumber {
        let hit = &hop.hit;
        let key = (hit.iface, hit.next_hop, hit.mtu, hit.local, hop.source);
        let place = match self.numbers.get(&key) {
            Some(place) => {
                self.ways[usize::from(*place) - 1] = hop;
                *place
            }
            None => {
                let Ok(place) = u16::try_from(self.ways.len() + 1) else {
                    return HopNumber(0);
                };
                self.ways.push(hop);
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

    /// As [`Worker::way`], for what we send to the other end of a tunnel.
    #[inline]
    pub(crate) fn tunnel_way(
        &mut self,
        now: Time,
        kept: HopNumber,
        target: IpAddr,
    ) -> Option<(HopNumber, Hop)> {
        if let Some(&hop) = self.hops.get(kept, self.net.generation()) {
            if hop.neigh.is_some_and(|id| self.net.neigh_current(id)) {
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
        let hop = Hop {
            hit,
            neigh,
            source,
            exit: Exit {
                look: self.hops.look.wrapping_sub(1),
                ..Exit::default()
            },
        };
        let number = if neigh.is_some() {
            self.hops.insert(hop)
        } else {
            HopNumber(0)
        };
        Some((number, hop))
    }
}
